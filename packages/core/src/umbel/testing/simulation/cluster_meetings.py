"""Tasks in a simulated cluster that end only once all of them have begun.

They need nothing of each other but a CPU each at the same time, of which there are enough: so if one of them waits where it
cannot run, while there is room elsewhere, all wait for ever.
"""

from __future__ import annotations

from typing import Any, Final

from umbel._objects import serialization
from umbel._transport import reactor
from umbel.testing.simulation.runtime import Machine

MET_S: Final = (
    60.0  # without faults, and with all messages heard: some times what a node gets to grant what it has room for
)
KINDS: Final = ("plain", "plain", "once", "spread")


class Meeting:
    """One, of tasks that this process submits."""

    def __init__(self, owner: Machine) -> None:
        self.owner = owner
        self.works: list[Any] = []
        self._object_ids: list[bytes] = []
        self._waiters: list[reactor.Waiter] = []
        self.is_over = False

    def add(self, work: Any, object_id: bytes) -> None:
        self.works.append(work)
        self._object_ids.append(object_id)

    def attend(self, process: Machine) -> None:
        """A task of it has begun there. Returns when all have."""
        if all(work.executions for work in self.works):
            self.end()
        if not self.is_over:
            waiter = reactor.Waiter()
            self._waiters.append(waiter)
            process.wait(waiter, None)

    def end(self) -> None:
        self.is_over = True
        for waiter in self._waiters:
            waiter.finish()

    def is_hopeless(self, cpu_count: int) -> bool:
        """One will never begin, or there are too few CPUs for all."""
        if self.owner.is_dead or cpu_count < len(self.works):
            return True
        records = self.owner.engine.values.table.records
        ended = [id for id in self._object_ids if id not in records or records[id].kind == serialization.ERROR]
        return any(id in ended and not work.executions for id, work in zip(self._object_ids, self.works, strict=True))
