"""The node's totals of what its processes report. Loaded with the first report.

Counters and histograms are added up over all processes and stay when those end; a gauge is the last value of a process
and goes with it. This module only keeps the books.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

SERIES_MAX = 50_000  # of a node; some 20 MB, and an answer to a scrape that takes the agent a tenth of a second
Labels = tuple[tuple[str, str], ...]
GAUGE, HISTOGRAM = "gauge", "histogram"


class Family:
    """All series of one name. `series` by (process, or "" for what outlives it; labels)."""

    __slots__ = ("bounds", "help", "is_own", "kind", "name", "series")

    def __init__(self, told: dict[str, Any]) -> None:
        self.name: str = told["name"]
        self.kind: str = told["kind"]
        self.help: str = told["help"]
        self.bounds: list[float] = list(told["bounds"])
        self.is_own: bool = told["is_own"]
        self.series: dict[tuple[str, Labels], Any] = {}


class Table:
    """What the node knows. One method for each event."""

    def __init__(self) -> None:
        self.families: dict[tuple[str, bool], Family] = {}
        self.dropped = 0  # values for which there was no room
        self._series = 0
        self._conflicts: set[tuple[str, bool, str]] = set()  # told of; at most the names times the kinds of metrics

    def reported(self, process: str, report: Iterable[dict[str, Any]]) -> list[str]:
        """A process tells its news. Returns what its user should be warned of, each once."""
        warnings = []
        for told in report:
            name = (told["name"], told["is_own"])
            family = self.families.get(name)
            if family is None:
                family = self.families[name] = Family(told)
            if (family.kind, family.bounds) != (told["kind"], list(told["bounds"])):
                if (*name, told["kind"]) not in self._conflicts:
                    self._conflicts.add((*name, told["kind"]))
                    warnings.append(
                        f"metric {told['name']!r} is a {family.kind} with boundaries {family.bounds} in one process and "
                        f"a {told['kind']} with {list(told['bounds'])} in another, whose values are dropped; give them "
                        "different names"
                    )
                continue
            for labels, value in told["series"]:
                self._add(family, process if family.kind == GAUGE else "", labels, value)
        return warnings

    def _add(self, family: Family, holder: str, labels: dict[str, str], value: Any) -> None:
        place = (holder, tuple(sorted(labels.items())))
        old = family.series.get(place)
        if old is None:
            if self._series >= SERIES_MAX:
                self.dropped += 1
                return
            self._series += 1
            family.series[place] = value
        elif family.kind == GAUGE:
            family.series[place] = value
        elif family.kind == HISTOGRAM:
            family.series[place] = [[a + b for a, b in zip(old[0], value[0], strict=True)], old[1] + value[1]]
        else:
            family.series[place] = old + value

    def gone(self, process: str) -> None:
        """A process has ended: its gauges say nothing any more."""
        for family in self.families.values():
            if family.kind == GAUGE:
                for place in [place for place in family.series if place[0] == process]:
                    del family.series[place]
                    self._series -= 1

    def listed(self) -> list[dict[str, Any]]:
        """Every family with its series as [process, labels, value], for an answer."""
        return [
            {
                "name": family.name,
                "kind": family.kind,
                "help": family.help,
                "bounds": family.bounds,
                "is_own": family.is_own,
                "series": [[holder, dict(labels), value] for (holder, labels), value in family.series.items()],
            }
            for family in self.families.values()
        ]
