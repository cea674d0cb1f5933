"""Memory that several processes share and see late, as processors' memories are.

What a process stores is seen by the others later, and in any order, and what it loads may be older than what is there. A
fence is a full one: what its process has stored before is seen by all, and what it loads afterwards is not older than what
was seen by then. Each place holds one value, which is stored and loaded whole, and no process sees an older value of a
place after a newer one.
"""

from __future__ import annotations

from typing import Any

from umbel.testing.simulation.chance import Chance

STALE_PERCENT = 40  # of loads of a place that another process has changed

Place = tuple[str, int]


class View:
    """One process's. `there`: what is in the memory, the same dict for all."""

    def __init__(self, there: dict[Place, Any], chance: Chance) -> None:
        self.there = there
        self._chance = chance
        self._seen: dict[Place, Any] = {}
        self._pending: dict[Place, list[Any]] = {}  # stored, and not seen by the others yet

    def load(self, place: Place, default: Any) -> Any:
        waiting = self._pending.get(place)
        if waiting:
            return waiting[-1]
        newest = self.there.get(place, default)
        seen = self._seen.get(place, default)
        if seen != newest and self._chance.happens(STALE_PERCENT):
            return seen
        self._seen[place] = newest
        return newest

    def store(self, place: Place, value: Any) -> None:
        self._pending.setdefault(place, []).append(value)

    def leak(self) -> bool:
        """The others see one thing more; whether there was one."""
        if not self._pending:
            return False
        place = self._chance.choose([*self._pending])
        waiting = self._pending[place]
        self.there[place] = self._seen[place] = waiting.pop(0)
        if not waiting:
            del self._pending[place]
        return True

    def fence(self) -> None:
        for place, waiting in self._pending.items():
            self.there[place] = waiting[-1]
        self._pending.clear()
        self._seen = dict(self.there)

    def lose(self) -> None:
        """The process is dead: what the others have not seen yet they may still see, or not."""
        while self._chance.happens(50) and self.leak():
            pass
        self._pending.clear()
