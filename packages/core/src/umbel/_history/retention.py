"""How much of the history is kept. Live items are not in it, so they are never dropped; what ended goes oldest first."""

from __future__ import annotations

from typing import NamedTuple

SLACK = 0.05  # as much again is removed beyond what must be, so that one removal serves many later tasks


class Retention(NamedTuple):
    """tasks_max: of ended tasks. age_max_s: since they ended; 0 for any age. bytes_max: of the store, about."""

    tasks_max: int
    age_max_s: float
    bytes_max: int


class Extent(NamedTuple):
    """What there is. oldest_ended_s: when the task that ended first did, in the clock's seconds; None without any."""

    task_count: int
    size_bytes: int
    oldest_ended_s: float | None


class Removal(NamedTuple):
    """Remove the `oldest_count` tasks that ended first, and all that ended before `ended_before_s`, unless None."""

    oldest_count: int
    ended_before_s: float | None

    @property
    def is_nothing(self) -> bool:
        return not self.oldest_count and self.ended_before_s is None


def removal(retention: Retention, extent: Extent, now_s: float) -> Removal:
    """What is to go now."""
    wanted = extent.task_count
    if extent.size_bytes > retention.bytes_max:  # tasks take about the same room each
        wanted = min(wanted, int(extent.task_count * retention.bytes_max / extent.size_bytes))
    wanted = min(wanted, retention.tasks_max)
    oldest_count = 0
    if wanted < extent.task_count:
        oldest_count = extent.task_count - int(wanted * (1 - SLACK))
    before_s = None
    if retention.age_max_s and extent.oldest_ended_s is not None:
        limit_s = now_s - retention.age_max_s
        if extent.oldest_ended_s < limit_s - SLACK * retention.age_max_s:
            before_s = limit_s
    return Removal(oldest_count, before_s)
