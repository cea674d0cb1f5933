"""One row's work on one side, and its timing: the first time apart, then warm, each with its result checked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.datasets.bars import Sizes

SAMPLES = 5
BUDGET_S = 12.0  # no further sample is begun that would end later; the second always is, unless the first took longer than that


def nothing() -> None:
    """Of a job that leaves nothing open."""


@dataclass(frozen=True)
class Job:
    """run: what is timed. check: gets what it gave, and raises when that is wrong. share: of the row's work, where a slow library
    does only a part of it."""

    run: Callable[[], Any]
    check: Callable[[Any], None]
    share: float = 1.0
    close: Callable[[], None] = nothing


@dataclass(frozen=True)
class Setting:
    """What a job is made of. cpus: how many each side has."""

    folder: Path
    sizes: Sizes
    cpus: int


@dataclass
class Timing:
    """Seconds for the whole of the row's work. cold: the first time in its process, with inputs and runtime there."""

    cold: float
    warm: list[float] = field(default_factory=list)


def timed(job: Job, *, is_once: bool) -> Timing:
    cold_s = _seconds(job)
    found = Timing(cold_s)
    began = time.perf_counter()
    is_enough = is_once or cold_s * job.share > BUDGET_S
    while not is_enough and len(found.warm) < SAMPLES:
        elapsed_s = time.perf_counter() - began
        if found.warm and elapsed_s * (1 + 1 / len(found.warm)) > BUDGET_S:
            break
        found.warm.append(_seconds(job))
    return found


def _seconds(job: Job) -> float:
    began = time.perf_counter()
    answer = job.run()
    spent_s = time.perf_counter() - began
    job.check(answer)  # a benchmark of wrong results must not produce a number
    return spent_s / job.share


def expecting(wanted: Any, *, cents: float = 0.5) -> Callable[[Any], None]:
    """A check for an answer that is known. cents: by how many a float may be off."""

    def check(found: Any) -> None:
        if not is_same(found, wanted, cents):
            raise ValueError(
                f"the answer was {str(found)[:300]}, but {str(wanted)[:300]} is right; fix that before timing it"
            )

    return check


def is_same(found: Any, wanted: Any, cents: float) -> bool:
    """Equal; floats to so many cents and to nine digits, as sums of them depend on the order in which they are made."""
    if isinstance(wanted, float):
        return math.isclose(found, wanted, rel_tol=1e-9) and abs(found - wanted) < cents / 100
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return len(found) == len(wanted) and all(is_same(*both, cents) for both in zip(found, wanted, strict=True))
    return bool(found == wanted)
