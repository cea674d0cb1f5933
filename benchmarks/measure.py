"""Timing one row: warm-up, several samples, a bound on the time it may take.

A sample repeats the operation until it has lasted `sample_s`, so that the clock and a stray interrupt do not matter.
What is slow (a peer's nested tasks take seconds for one operation) gets fewer samples instead of minutes: no sample
starts that would end after `budget_s`, but one always runs after the warm-up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


def nothing() -> None:
    """The default for a workload that has nothing to close."""


@dataclass(frozen=True)
class Workload:
    """Something to repeat. `units` is what one call of `operation` gets done: tasks, calls, gigabytes."""

    operation: Callable[[], object]
    units: float = 1.0
    close: Callable[[], None] = nothing
    reference: Callable[[], object] | None = None  # measured in turn with the operation
    prepare: Callable[[], object] | None = None  # before every operation, not timed


@dataclass(frozen=True)
class Effort:
    warm_up_s: float
    sample_s: float
    samples: int
    budget_s: float
    limit_s: float  # a row that takes longer than this hangs, and is reported as failed


FULL = Effort(warm_up_s=0.6, sample_s=0.4, samples=5, budget_s=10.0, limit_s=120.0)
QUICK = Effort(warm_up_s=0.2, sample_s=0.2, samples=3, budget_s=3.0, limit_s=60.0)


@dataclass
class Measurement:
    """Samples of one row, each in the row's unit."""

    samples: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def as_json(self) -> dict[str, object]:
        record: dict[str, object] = {"median": self.median, "samples": self.samples}
        if self.reference:
            record["memcpy"] = statistics.median(self.reference)
            # Each sample against the copy that ran next to it: a noisy neighbour slows both.
            record["of_memcpy"] = statistics.median(a / b for a, b in zip(self.samples, self.reference, strict=True))
        return record


def rate(workload: Workload, effort: Effort) -> Measurement:
    """Units per second of the workload, several times."""
    seconds_each = _warm_up(workload.operation, effort.warm_up_s, workload.prepare)
    repeats = max(1, round(effort.sample_s / seconds_each))
    if workload.reference is not None:
        _warm_up(workload.reference, effort.warm_up_s)
    measured = Measurement()
    began = time.perf_counter()
    while len(measured.samples) < effort.samples:
        elapsed_s = time.perf_counter() - began
        if measured.samples and elapsed_s * (1 + 1 / len(measured.samples)) > effort.budget_s:
            break  # one more would pass the budget
        spent_s = _seconds(workload.operation, repeats, workload.prepare)
        measured.samples.append(workload.units * repeats / spent_s)
        if workload.reference is not None:
            measured.reference.append(workload.units * repeats / _seconds(workload.reference, repeats))
    return measured


def _warm_up(operation: Callable[[], object], at_least_s: float, prepare: Callable[[], object] | None = None) -> float:
    """Seconds of the fastest call, after `at_least_s` of calls."""
    began = time.perf_counter()
    fastest_s = float("inf")
    while time.perf_counter() - began < at_least_s:
        fastest_s = min(fastest_s, _seconds(operation, 1, prepare))
    return fastest_s


def _seconds(operation: Callable[[], object], repeats: int, prepare: Callable[[], object] | None = None) -> float:
    if prepare is not None:
        spent_s = 0.0
        for _ in range(repeats):
            prepare()
            spent_s += _seconds(operation, 1)
        return spent_s
    began = time.perf_counter()
    for _ in range(repeats):
        operation()
    return time.perf_counter() - began
