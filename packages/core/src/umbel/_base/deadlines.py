"""When each of many is due: the earliest of all costs no look at the others. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

_SPARE = 64  # entries that are void, beside as many as there are of others, before all are put in order anew

Key = TypeVar("Key", bound=Hashable)


class Deadlines(Generic[Key]):
    """By key."""

    __slots__ = ("_due_s", "_heap", "_turns")

    def __init__(self) -> None:
        self._due_s: dict[Key, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Key]] = []  # void where that says otherwise
        self._turns = 0  # so that keys need not be comparable

    def set(self, key: Key, due_s: float | None) -> None:
        """None: it is not due at any time."""
        known = self._due_s.get(key)
        if due_s is None:
            self._due_s.pop(key, None)
            return
        if known is not None and known[0] == due_s:
            return
        self._turns += 1
        self._due_s[key] = (due_s, self._turns)
        if len(self._heap) > 2 * len(self._due_s) + _SPARE:
            self._heap = [(at_s, turn, one) for one, (at_s, turn) in self._due_s.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (due_s, self._turns, key))

    def first_s(self) -> float | None:
        """The earliest; None if nothing is due at any time."""
        heap = self._heap
        while heap and self._due_s.get(heap[0][2]) != heap[0][:2]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, at_s: float) -> list[Key]:
        """What is due by then, the earliest first. It stays so until it is set otherwise."""
        found = []
        while (first_s := self.first_s()) is not None and first_s <= at_s:
            found.append(heapq.heappop(self._heap))
        for one in found:
            heapq.heappush(self._heap, one)
        return [key for _, _, key in found]

    def as_dict(self) -> dict[Key, float]:
        """For checks."""
        return {key: due_s for key, (due_s, _) in self._due_s.items()}
