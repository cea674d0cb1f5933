"""The memory of a node's workers: watched while any is in use, held to what was asked for where that is wanted.

What watches and what holds is loaded when it is first needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from umbel._agent.ledger import UNIT

if TYPE_CHECKING:
    from umbel._agent.service import Service

FIRST_LOOK_S = 0.05  # after a worker came into use: short against filling memory, long against a small task
Message = dict[str, Any]


class MemoryService:
    def __init__(self, daemon: Service, config: Message) -> None:
        self.kills = 0  # workers that were killed for their memory
        self.due_s: float | None = None  # when to look next
        self._daemon = daemon
        self._config = config
        self._watch: Any = None  # a `memory_watch.MemoryWatch`, from the first look on
        self._isolation: Any = None  # an `isolation.Isolation`, where it was asked for
        self._reports: dict[str, Message] = {}  # of workers whose end is being told

    def worker_is_used(self, worker: str, resources: Mapping[str, int]) -> None:
        """It is about to be given to somebody, with these resources."""
        if self.due_s is None and self._config.get("memory"):
            self.due_s = self._daemon.now_s() + FIRST_LOOK_S
        if self._config.get("memory_isolation"):
            self._confine(worker, resources)

    def look(self) -> None:
        if self._watch is None:
            from umbel._agent import memory_watch  # the start is not held up by it

            self._watch = memory_watch.MemoryWatch(self._daemon, self._config["memory"])
        self.due_s = self._watch.look()

    def _confine(self, worker: str, resources: Mapping[str, int]) -> None:
        if self._isolation is None:
            from umbel._agent import isolation  # few sessions want it

            self._isolation = isolation.Isolation(self._config["memory_isolation"], self._config["session_dir"])
            if self._isolation.refusal:
                self._daemon.hub.tell_drivers({"t": "warn", "text": self._isolation.refusal})
        try:
            pid = self._daemon.forks.pid_of(worker)
            self._isolation.confine(worker, pid, resources.get("memory", 0) // UNIT)
        except OSError as error:
            text = f"worker {worker[:8]} cannot be held to its memory: {error}; it runs without a limit"
            self._daemon.hub.tell_drivers({"t": "warn", "text": text})

    def given_back(self, worker: str) -> bool:
        """Whether a worker that its user gives back is to be replaced for its size."""
        return self._watch is not None and bool(self._watch.given_back(worker))

    def exited(self, worker: str, number: int) -> None:
        """Its process has ended, by this signal or 0. What is known of why is there until `forget`."""
        if self._isolation is not None:
            self._isolation.exited(worker, self._daemon.forks.pid_of(worker))
        if self._watch is not None:
            self._watch.exited(worker, number)
        report = self._take_report(worker)
        if report is not None:
            self.kills += 1
            self._reports[worker] = report
            self._add_event(worker, report)

    def _add_event(self, worker: str, report: Message) -> None:
        from umbel._agent import memory_watch

        facts = {"worker_id": worker, "pid": report["pid"], "node_id": self._config["node_id"]}
        text = f"worker {worker} was killed: {memory_watch.in_words(report)}"
        self._daemon.control.add_event("WARNING", "MEMORY", text, **facts)

    def _take_report(self, worker: str) -> Message | None:
        """Why a worker has died, if that was for memory; once."""
        found: Message | None = self._isolation.take_report(worker) if self._isolation is not None else None
        noted: Message | None = self._watch.take_report(worker) if self._watch is not None else None
        if found is not None and noted is not None:
            found |= {name: noted[name] for name in ("curve", "others", "outside_bytes")}
        return found or noted

    def report_of(self, worker: str) -> Message | None:
        """How the memory was, of one that has just been killed for it."""
        return self._reports.get(worker)

    def forget(self, worker: str) -> None:
        self._reports.pop(worker, None)
