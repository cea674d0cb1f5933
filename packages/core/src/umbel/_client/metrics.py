"""What this process has measured: counted here, and told to the node's agent about once a second while there is news.

Counters and histograms travel as what was added since the last report, so that the agent's totals stay when the process
ends; gauges as their last value. A process that is killed takes at most the last second's news along. Any thread may
record anything; nothing is sent for one value.
"""

from __future__ import annotations

import bisect
import os
import threading
import warnings
from typing import Any, NamedTuple

from umbel._client import current, links
from umbel._model import metric_catalog as catalog

REPORT_PERIOD_S = 1.0  # scrapes come every few seconds; more often would only cost
SERIES_MAX = 10_000  # of one process between two reports; a tag with ids in it must not fill the memory
Key = tuple[tuple[str, ...], tuple[str, ...]]  # the labels' names and, in the same order, their values


class Definition(NamedTuple):
    """What all series of one name have in common. bounds: the upper bounds of a histogram's buckets, ascending."""

    kind: str
    name: str
    help: str
    bounds: tuple[float, ...] = ()
    is_own: bool = False  # Umbel's, whose name is exported as it is


class Family:
    """One metric and its series that have news: what was added, the last value, or (counts of buckets, sum)."""

    __slots__ = ("definition", "news")

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.news: dict[Key, Any] = {}


class Recorder:
    """The metrics of one process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a destructor may count something, in the midst of anything
        self._families: dict[tuple[str, bool], Family] = {}
        self._series = 0  # with news
        self._dropped = 0
        self.has_news = False

    def family(self, definition: Definition) -> Family:
        """The one of this name. Raises ValueError when it was defined differently, or is one of Umbel's own."""
        full = catalog.exported_name(definition.name, definition.kind)
        if full in catalog.BY_NAME:
            raise ValueError(
                f"metric {definition.name!r} would be exported as {full}, Umbel's own; choose another name"
            )
        return self._family(definition)

    def own_family(self, name: str) -> Family:
        """One of Umbel's own metrics, by its full name."""
        metric = catalog.BY_NAME[name]
        return self._family(Definition(metric.kind, name, metric.help, is_own=True))

    def _family(self, definition: Definition) -> Family:
        with self._lock:
            found = self._families.setdefault((definition.name, definition.is_own), Family(definition))
        there = found.definition
        if (there.kind, there.bounds) != (definition.kind, definition.bounds):
            raise ValueError(
                f"metric {definition.name!r} is a {there.kind}{_with(there.bounds)} in this process already, got a "
                f"{definition.kind}{_with(definition.bounds)}; choose another name, or define it alike"
            )
        return found

    def add(self, family: Family, key: Key, value: float) -> None:
        with self._lock:
            news = family.news
            old = news.get(key)
            if old is not None:
                news[key] = old + value
            elif self._has_room():
                news[key] = value
            if self.has_news:
                return
            self.has_news = True
        self._wake()

    def set(self, family: Family, key: Key, value: float) -> None:
        with self._lock:
            if key in family.news or self._has_room():
                family.news[key] = value
            if self.has_news:
                return
            self.has_news = True
        self._wake()

    def observe(self, family: Family, key: Key, value: float) -> None:
        bounds = family.definition.bounds
        with self._lock:
            entry = family.news.get(key)
            if entry is None and self._has_room():
                entry = family.news[key] = [[0] * (len(bounds) + 1), 0.0]
            if entry is not None:
                entry[0][bisect.bisect_left(bounds, value)] += 1
                entry[1] += value
            if self.has_news:
                return
            self.has_news = True
        self._wake()

    def _has_room(self) -> bool:
        """Whether one more series can be kept until the next report; counts it."""
        if self._series < SERIES_MAX:
            self._series += 1
            return True
        self._dropped += 1
        return False

    @staticmethod
    def _wake() -> None:
        """There is news: the running engine, if there is one, comes for it within a second."""
        engine = current.running_engine()
        if engine is not None:
            engine.metrics_have_news()

    def take(self) -> list[dict[str, Any]]:
        """All news, as it travels; it is news no more."""
        with self._lock:
            self.has_news = False
            self._series = 0
            taken = [(family.definition, family.news) for family in list(self._families.values()) if family.news]
            for family in list(self._families.values()):
                family.news = {}
            dropped, self._dropped = self._dropped, 0
        report: list[dict[str, Any]] = [
            {**definition._asdict(), "series": [[dict(zip(*key, strict=True)), value] for key, value in news.items()]}
            for definition, news in taken
        ]
        if dropped:
            name = "umbel_metric_series_dropped_total"
            report.append({**self.own_family(name).definition._asdict(), "series": [[{}, dropped]]})
            warnings.warn(
                f"umbel: {dropped} values of metrics were dropped, since this process has more than {SERIES_MAX} "
                "combinations of names and tags; use tags with fewer values",
                stacklevel=2,
            )
        return report

    def session_began(self) -> None:
        """What was measured before belongs to the session that begins."""
        if self.has_news:
            self._wake()

    def forked(self) -> None:
        """This is a copy in a forked child: what the parent has measured, it will report itself."""
        self._lock = threading.RLock()
        self._series = self._dropped = 0
        self.has_news = False
        for family in self._families.values():
            family.news = {}


class Reporter:
    """Tells one session's agent the news of this process."""

    def __init__(self, agent: links.AgentLink) -> None:
        self._agent = agent
        self._reported_s = float("-inf")

    def housekeep(self, now_s: float) -> float | None:
        """Report, if it is time to. Returns in how many seconds it will be; None until there is news."""
        if not recorder.has_news:
            return None
        wait_s = self._reported_s + REPORT_PERIOD_S - now_s
        if wait_s > 0:
            return wait_s
        self._reported_s = now_s
        self.report()
        return None

    def report(self) -> None:
        """All news, now."""
        report = recorder.take()
        if report:
            self._agent.notify({"t": "metrics", "report": report})


def _with(bounds: tuple[float, ...]) -> str:
    return f" with boundaries {list(bounds)}" if bounds else ""


recorder = Recorder()  # of this process: metrics are made at any time, in modules before there is a session
current.set_on_engine(recorder.session_began)
os.register_at_fork(after_in_child=recorder.forked)
