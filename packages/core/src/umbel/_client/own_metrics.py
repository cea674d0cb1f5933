"""What an engine tells of its own tasks, calls and objects where metrics are served. Not loaded elsewhere.

Read off the books about once a second; the path of a task is not touched. A worker counts the runs that end there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from umbel._client import metrics
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

LOOK_PERIOD_S = metrics.REPORT_PERIOD_S
ENDED_MAX = 20_000  # runs kept until they are added up: as many as a worker ends in half a second
WAITS_FOR_ARGUMENTS, WAITS_FOR_WORKER = "PENDING_ARGS_AVAIL", "PENDING_NODE_ASSIGNMENT"  # as in `own_state`
TASK_SENT, CALL_SENT = "SUBMITTED_TO_WORKER", "PENDING_ACTOR_TASK_ORDERING_OR_CONCURRENCY"


class OwnMetrics:
    """Those of one process."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._gauges: dict[tuple[str, metrics.Key], float] = {}  # as told last
        self._looked_s = float("-inf")
        self._ended: list[tuple[str, str, float]] = []  # runs: name, outcome, seconds; until the next look
        self._runs = metrics.recorder.own_family("umbel_tasks_ended_total")
        self._recomputed = metrics.recorder.own_family("umbel_tasks_recomputed_total")
        self._recomputed_told = 0
        self._run_s = metrics.recorder.own_family("umbel_task_run_seconds_total")

    def housekeep(self, now_s: float) -> float | None:
        """Look, if it is time to. Returns in how many seconds to look again; None until something happens."""
        wait_s = self._looked_s + LOOK_PERIOD_S - now_s
        if wait_s > 0:
            return wait_s
        self._looked_s = now_s
        self.settle_runs()
        with self._engine.lock:
            counts = self.task_counts()
            running = sum(1 for _ in self._engine.answers.running())
            objects = len(self._engine.values.table.records)
            recomputed = self._engine.rebuilder.run_count if self._engine.rebuilder is not None else 0
        for state, count in counts.items():
            self._tell("umbel_tasks", count, (("state",), (state,)))
        self._tell("umbel_tasks_running", running)
        self._tell("umbel_objects", objects)
        if recomputed > self._recomputed_told:
            metrics.recorder.add(self._recomputed, ((), ()), recomputed - self._recomputed_told)
            self._recomputed_told = recomputed
        return LOOK_PERIOD_S if running or any(counts.values()) else None

    def task_counts(self) -> dict[str, int]:
        """How many tasks and calls of ours have not ended, by state, as far as we know: what runs, as sent. Lock held."""
        book = self._engine.tasks
        waiting = tasks_sent = calls_sent = 0
        for cls in self._engine.leases.classes.values():
            waiting += len(cls.ready)
            tasks_sent += sum(len(lease.inflight) for lease in cls.leases.values())
        for client in self._engine.actors.clients.values():
            calls_sent += len(client.calls.inflight)
            if client.link is None:
                waiting += sum(1 for call in client.calls.queue if not call.missing)
        rest = max(0, len(book.unfinished) - waiting - tasks_sent - calls_sent)
        return {WAITS_FOR_ARGUMENTS: rest, WAITS_FOR_WORKER: waiting, TASK_SENT: tasks_sent, CALL_SENT: calls_sent}

    def _tell(self, name: str, value: float, key: metrics.Key = ((), ())) -> None:
        if self._gauges.get((name, key), 0) != value:
            self._gauges[name, key] = value
            metrics.recorder.set(metrics.recorder.own_family(name), key, value)

    def count_runs(self, executor: Any) -> None:
        """Have an executor's replies counted."""
        reply = executor.reply

        def counted(job: Any, message: tuple[Any, ...], lent: list[bytes], started: float) -> None:
            is_error = message[0] == messages.FAILED or (message[0] == messages.END and message[3] is not None)
            name = job.template.name
            self._ended.append((name, "error" if is_error else "ok", time.time() - started))
            if len(self._ended) >= ENDED_MAX:
                self.settle_runs()
            reply(job, message, lent, started)

        executor.reply = counted

    def settle_runs(self) -> None:
        """Enter the runs that have ended. Added up first: the recorder takes a microsecond for each entry."""
        ended, self._ended = self._ended, []
        counts: dict[tuple[str, str], int] = {}
        seconds: dict[str, float] = {}
        for name, outcome, took_s in ended:
            counts[name, outcome] = counts.get((name, outcome), 0) + 1
            seconds[name] = seconds.get(name, 0.0) + max(0.0, took_s)
        for key, count in counts.items():
            metrics.recorder.add(self._runs, (("name", "outcome"), key), count)
        for name, took_s in seconds.items():
            metrics.recorder.add(self._run_s, (("name",), (name,)), took_s)
