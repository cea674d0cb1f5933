"""What a process tells its node's daemon unasked: which tasks of its own have ended, and what was measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from umbel._client import recording

if TYPE_CHECKING:
    from umbel._client import metrics
    from umbel._client.native import NativeEngine


class Reports:
    """The reports of one process. No lock held in its methods."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._last_s = 0.0
        self.metrics: metrics.Reporter | None = None  # once something was measured

    def begin(self) -> None:
        self._last_s = time.monotonic() - recording.REPORT_PERIOD_S + recording.FIRST_REPORT_S

    def expect_metrics(self) -> None:
        """Something was measured, for the first time since the last report. Any thread."""
        if self.metrics is None:
            from umbel._client import metrics

            self.metrics = metrics.Reporter(self._engine.agent)

    def send_metrics(self) -> None:
        """Tell the agent what was measured, as when this process ends."""
        engine = self._engine
        if engine.own_metrics is not None:
            engine.own_metrics.settle_runs()
        if self.metrics is not None and not engine.agent_is_gone:
            self.metrics.report()

    def send_due(self, now_s: float) -> float | None:
        """Report what has ended, if it is time; when to look again."""
        recorder = self._engine.tasks.recorder
        if recorder is None or recorder.is_empty or self._engine.agent_is_gone:
            return None
        wait_s = self._last_s + recording.REPORT_PERIOD_S - now_s
        if wait_s > 0 and not recorder.is_full:
            return wait_s
        self._last_s = now_s
        self.send_tasks()
        return None

    def send_tasks(self) -> None:
        """Tell the agent of the tasks of ours that have ended. When this returns it has been told, whoever did."""
        recorder = self._engine.tasks.recorder
        if recorder is None:
            return
        with self._engine.lock:
            for count, batch in recorder.take():
                self._engine.agent.notify({"t": "task_events", "count": count}, batch)
