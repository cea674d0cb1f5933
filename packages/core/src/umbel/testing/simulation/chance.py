"""Where a simulated run's decisions come from: a seed, or the record of an earlier run.

All that happens by chance in a run is decided by `below`. The numbers are recorded step by step; a run that failed can
be repeated without some of its steps, which is how its trace is made shorter. A record that has ended answers 0, and
callers see to it that 0 stands for the harmless choice.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")

Script = list[list[int]]  # for each step of a run, the numbers drawn in it


class Chance:
    """The decisions of one run. Its first step is setting up, its last coming to rest.

    below: `below(count)` is a whole number >= 0 and < `count`.
    """

    __slots__ = ("_drawn", "_position", "_script", "_steps", "below")

    def __init__(self, seed: int, script: Script | None = None) -> None:
        self._script = script
        self._position = 0  # of the current step in the script
        self._drawn: list[int] = []  # all numbers, and where each step began among them
        self._steps = [0]
        self.below = _drawing(seed, self._drawn) if script is None else self._repeat

    def step(self) -> None:
        """Another step of the run begins."""
        self._steps.append(len(self._drawn))
        self._position += 1

    @property
    def record(self) -> Script:
        ends = [*self._steps[1:], len(self._drawn)]
        return [self._drawn[begin:end] for begin, end in zip(self._steps, ends, strict=True)]

    @property
    def step_count(self) -> int | None:
        """How many steps the run being repeated has between setting up and coming to rest; None for a new run."""
        return None if self._script is None else len(self._script) - 2

    def _repeat(self, count: int) -> int:
        """`below`, as recorded."""
        script = self._script or ()
        step = script[self._position] if self._position < len(script) else ()
        at = len(self._drawn) - self._steps[-1]
        number = step[at] % count if at < len(step) else 0
        self._drawn.append(number)
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
        ends = _ends(tuple(weights))
        return bisect.bisect_right(ends, self.below(ends[-1]))


@functools.lru_cache(maxsize=1_000)  # those of a world are few
def _ends(weights: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(itertools.accumulate(weights))


def _drawing(seed: int, drawn: list[int]) -> Callable[[int], int]:
    """`below` of a new run. A closure: it is called some thousand times a run, and takes a third less so."""
    draw, note = random.Random(seed).random, drawn.append

    def below(count: int) -> int:
        number = int(draw() * count)
        note(number)
        return number

    return below
