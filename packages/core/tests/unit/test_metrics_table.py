"""The node's totals of what processes report."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._agent import metrics


def told(name: str, kind: str, *series: Any, bounds: tuple[float, ...] = ()) -> dict[str, Any]:
    return {"name": name, "kind": kind, "help": "", "bounds": list(bounds), "is_own": False, "series": list(series)}


def values(table: metrics.Table) -> dict[str, list[Any]]:
    return {family["name"]: family["series"] for family in table.listed() if family["series"]}


def test_counters_of_all_processes_add_up_and_stay_when_those_end() -> None:
    table = metrics.Table()
    table.reported("one", [told("c", "counter", [{"a": "1"}, 2], [{"a": "2"}, 1])])
    table.reported("two", [told("c", "counter", [{"a": "1"}, 3])])
    table.gone("one")
    table.reported("three", [told("c", "counter", [{"a": "1"}, 4])])
    assert values(table) == {"c": [["", {"a": "1"}, 9], ["", {"a": "2"}, 1]]}


def test_histograms_add_up_bucket_by_bucket() -> None:
    table = metrics.Table()
    for process in ("one", "two"):
        table.reported(process, [told("h", "histogram", [{}, [[1, 0, 2], 7.0]], bounds=(1, 2))])
        table.gone(process)
    assert values(table) == {"h": [["", {}, [[2, 0, 4], 14.0]]]}


def test_gauge_is_the_last_value_of_each_process_and_goes_with_it() -> None:
    table = metrics.Table()
    table.reported("one", [told("g", "gauge", [{}, 1])])
    table.reported("two", [told("g", "gauge", [{}, 5])])
    table.reported("one", [told("g", "gauge", [{}, 2])])
    assert values(table) == {"g": [["one", {}, 2], ["two", {}, 5]]}
    table.gone("one")
    assert values(table) == {"g": [["two", {}, 5]]}


def test_one_name_for_two_kinds_is_warned_of_once_and_the_first_goes_on() -> None:
    table = metrics.Table()
    table.reported("one", [told("x", "counter", [{}, 1])])
    (warning,) = table.reported("two", [told("x", "gauge", [{}, 7])])
    assert "'x' is a counter" in warning and "a gauge with []" in warning and "different names" in warning
    assert table.reported("three", [told("x", "gauge", [{}, 7])]) == []
    assert values(table) == {"x": [["", {}, 1]]}


def test_series_beyond_the_bound_are_counted_and_room_comes_back_with_the_end_of_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "SERIES_MAX", 2)
    table = metrics.Table()
    table.reported("one", [told("g", "gauge", *[[{"n": str(number)}, number] for number in range(3)])])
    assert (len(values(table)["g"]), table.dropped) == (2, 1)
    table.gone("one")
    table.reported("two", [told("g", "gauge", [{}, 1], [{"n": "9"}, 2])])
    assert (len(values(table)["g"]), table.dropped) == (2, 1)
