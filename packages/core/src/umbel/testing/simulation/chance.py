"""Where a simulated run's decisions come from: a seed, or the record of an earlier run.

All that happens by chance in a run is decided by `below`. The numbers are recorded step by step; a run that failed can
be repeated without some of its steps, which is how its trace is made shorter. A record that has ended answers 0, and
callers see to it that 0 stands for the harmless choice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

Script = list[list[int]]  # for each step of a run, the numbers drawn in it


class Chance:
    """The decisions of one run. Its first step is setting up, its last coming to rest."""

    __slots__ = ("_at", "_next", "_note", "_position", "_script", "record")

    def __init__(self, seed: int, script: Script | None = None) -> None:
        self._next = random.Random(seed).random
        self._script = script
        self._position = 0  # of the current step in the script
        self._at = 0  # within the step
        self.record: Script = [[]]
        self._note = self.record[-1].append

    def step(self) -> None:
        """Another step of the run begins."""
        self.record.append([])
        self._note = self.record[-1].append
        self._position += 1
        self._at = 0

    @property
    def step_count(self) -> int | None:
        """How many steps the run being repeated has between setting up and coming to rest; None for a new run."""
        return None if self._script is None else len(self._script) - 2

    def below(self, count: int) -> int:
        """A whole number >= 0 and < `count`."""
        if self._script is None:
            number = int(self._next() * count)
        else:
            step = self._script[self._position] if self._position < len(self._script) else ()
            number = step[self._at] % count if self._at < len(step) else 0
            self._at += 1
        self._note(number)
        return number

    def happens(self, percent: int) -> bool:
        """True in `percent` of 100 cases."""
        return self.below(100) >= 100 - percent

    def choose(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def some(self, options: Sequence[T], count_max: int) -> list[T]:
        """Up to `count_max` of the options, the same one perhaps more than once."""
        if not options:
            return []
        return [options[self.below(len(options))] for _ in range(self.below(count_max + 1))]

    def weighted(self, weights: Sequence[int]) -> int:
        """An index; the chance of each is as large as its weight. At least one weight must be above 0."""
        number = self.below(sum(weights))
        for index, weight in enumerate(weights):
            number -= weight
            if number < 0:
                return index
        return 0
