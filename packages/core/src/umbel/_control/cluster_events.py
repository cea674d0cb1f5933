"""What has happened to a cluster that people ask for afterwards: nodes that came and went, jobs, what failed, what was launched.

Of each source the latest are kept, so that one that fails all the time drives out no other news.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

KEPT_MAX = 1_000  # of each source
TEXT_CHARS_MAX = 2_000
INFO, WARNING, ERROR = SEVERITIES = ("INFO", "WARNING", "ERROR")
NODES, JOBS, ACTORS, GROUPS, AUTOSCALER, MEMORY = SOURCES = (
    "CLUSTER_LIFECYCLE", "JOBS", "ACTORS", "PLACEMENT_GROUPS", "AUTOSCALER", "MEMORY",
)  # fmt: skip


class ClusterEvent(NamedTuple):
    """number: they are counted from 1, over all heads of the cluster. facts: what it is about, for programs."""

    number: int
    time_s: float  # by the system's clock
    severity: str
    source: str
    text: str
    facts: Mapping[str, Any]


class Happened(NamedTuple):
    """A command of the tables: to be added."""

    severity: str
    source: str
    text: str
    facts: Mapping[str, Any]


class ClusterEvents:
    def __init__(self) -> None:
        self.changed: dict[int, None] | None = None  # whose records are to be kept anew; None where nobody keeps any
        self._count = 0
        self._of_source: dict[str, deque[ClusterEvent]] = {}
        self._known: dict[int, ClusterEvent] = {}

    def restore(self, kept: Iterable[ClusterEvent]) -> None:
        """Begin with what was kept, and keep from now on."""
        for event in sorted(kept):
            self._count = event.number
            self._add(event)
        self.changed = {}

    def add(self, severity: str, source: str, text: str, time_s: float, facts: Mapping[str, Any]) -> None:
        self._count += 1
        self._add(ClusterEvent(self._count, time_s, severity, source, text[:TEXT_CHARS_MAX], facts))

    def _add(self, event: ClusterEvent) -> None:
        of_source = self._of_source.setdefault(event.source, deque())
        of_source.append(event)
        self._known[event.number] = event
        self._changes(event.number)
        if len(of_source) > KEPT_MAX:
            oldest = of_source.popleft()
            del self._known[oldest.number]
            self._changes(oldest.number)

    def _changes(self, number: int) -> None:
        if self.changed is not None:
            self.changed[number] = None

    def record(self, number: int) -> ClusterEvent | None:
        """What is to be kept of it; None for nothing."""
        return self._known.get(number)

    def listed(self) -> list[ClusterEvent]:
        """The latest last."""
        return list(self._known.values())
