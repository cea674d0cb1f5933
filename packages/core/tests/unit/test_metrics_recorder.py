"""Metrics in one process: what is accepted, and how news add up until they are reported."""

from __future__ import annotations

import math
import pickle
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from umbel._client import metrics
from umbel.util.metrics import Counter, Gauge, Histogram, Metric


def fresh() -> str:
    """A name that no other test has used: the process has one book of metrics."""
    return f"m_{uuid.uuid4().hex}"


@pytest.fixture(autouse=True)
def nothing_new() -> Iterator[None]:
    metrics.recorder.take()
    yield
    metrics.recorder.take()


def news() -> list[dict[str, Any]]:
    return metrics.recorder.take()


def series(metric: Metric) -> list[Any]:
    (told,) = [one for one in news() if one["name"] == metric.info["name"]]
    return list(told["series"])


def test_counter_adds_up_and_reports_what_was_added_since() -> None:
    counter = Counter(fresh(), "requests", tag_keys=("route",))
    counter.inc(tags={"route": "a"})
    counter.inc(2.5, tags={"route": "a"})
    counter.inc(tags={"route": "b"})
    assert series(counter) == [[{"route": "a"}, 3.5], [{"route": "b"}, 1.0]]
    assert news() == []
    counter.inc(4, tags={"route": "a"})
    assert series(counter) == [[{"route": "a"}, 4.0]]


def test_gauge_reports_its_last_value_and_takes_none_for_no_news() -> None:
    gauge = Gauge(fresh())
    gauge.set(None)
    assert news() == []
    gauge.set(3)
    gauge.set(-1.5)
    assert series(gauge) == [[{}, -1.5]]


def test_histogram_counts_each_value_in_the_bucket_of_the_bound_above_it() -> None:
    histogram = Histogram(fresh(), boundaries=[1, 2.5])
    for value in (0.5, 1, 2, 3, -1):
        histogram.observe(value)
    assert series(histogram) == [[{}, [[3, 1, 1], 5.5]]]


def test_default_tags_fill_in_and_tags_of_the_call_win() -> None:
    counter = Counter(fresh(), tag_keys=("a", "b")).set_default_tags({"a": "1"})
    counter.inc(tags={"b": "2"})
    counter.inc(tags={"a": "3", "b": "2"})
    assert series(counter) == [[{"a": "1", "b": "2"}, 1.0], [{"a": "3", "b": "2"}, 1.0]]


def test_tags_that_were_not_declared_are_kept_in_any_order() -> None:
    counter = Counter(fresh(), tag_keys=("a",))
    counter.inc(tags={"a": "1", "y": "2", "x": "3"})
    counter.inc(tags={"x": "3", "y": "2", "a": "1"})
    assert series(counter) == [[{"a": "1", "x": "3", "y": "2"}, 2.0]]


def test_a_tag_without_a_value_is_named() -> None:
    for metric, call in ((Counter, "inc"), (Gauge, "set")):
        made = metric(fresh(), tag_keys=("a", "b"))
        with pytest.raises(ValueError, match=r"no value for the tags \['b'\]; pass them in tags="):
            getattr(made, call)(1, tags={"a": "1"})
        with pytest.raises(ValueError, match=r"no value for the tags \['a', 'b'\]"):
            getattr(made, call)(1)


@pytest.mark.parametrize("wrong", ["x", None, [1], 1j])
def test_values_are_numbers(wrong: Any) -> None:
    with pytest.raises(TypeError, match="value must be an int or float, got"):
        Counter(fresh()).inc(wrong)
    with pytest.raises(TypeError, match="value must be an int or float, got"):
        Histogram(fresh(), boundaries=[1]).observe(wrong)
    if wrong is not None:
        with pytest.raises(TypeError, match="value must be an int or float, got"):
            Gauge(fresh()).set(wrong)


@pytest.mark.parametrize("wrong", [0, -1, -0.5])
def test_counters_only_grow(wrong: float) -> None:
    with pytest.raises(ValueError, match=f"value must be > 0, got {wrong}"):
        Counter(fresh()).inc(wrong)
    with pytest.raises(ValueError, match="got nan"):
        Counter(fresh()).inc(math.nan)


def test_keys_and_values_of_tags_are_strings() -> None:
    wrong: Any
    for wrong in (["a"], "a", {"a"}):
        with pytest.raises(TypeError, match="tag_keys must be a tuple of strings"):
            Counter(fresh(), tag_keys=wrong)
    wrong = (1,)
    with pytest.raises(TypeError, match="tag_keys must be a tuple of strings, got 1"):
        Counter(fresh(), tag_keys=wrong)
    counter = Counter(fresh(), tag_keys=("a",))
    one: Any = {"a": 1}
    with pytest.raises(TypeError, match="tag 'a' must be a string, got 1"):
        counter.inc(tags=one)
    with pytest.raises(TypeError, match="tag 'a' must be a string, got 1"):
        counter.set_default_tags(one)
    with pytest.raises(ValueError, match="tag 'b' is not one of the metric's"):
        counter.set_default_tags({"b": "1"})


def test_boundaries_are_ascending_and_above_zero() -> None:
    for wrong in (None, []):
        with pytest.raises(ValueError, match=r"boundaries must be a list of numbers > 0, got .*boundaries=\[0.1"):
            Histogram(fresh(), boundaries=wrong)
    for bad in ([0.0], [-1.0, 1.0], [2.0, 1.0], [1.0, 1.0], [math.inf]):
        with pytest.raises(ValueError, match="boundaries must be ascending numbers > 0, got"):
            Histogram(fresh(), boundaries=bad)


def test_name_that_prometheus_does_not_take_is_warned_of_and_its_values_are_discarded() -> None:
    for name in ("with-dash", "1st", "a b"):
        with pytest.warns(UserWarning, match="values are discarded"):
            counter = Counter(name)
        counter.inc()
    assert news() == []
    with pytest.warns(FutureWarning, match="colon"):
        Counter(f"a:{fresh()}").inc()
    for empty in ("", None):
        with pytest.raises(ValueError, match="non-empty string"):
            Counter(empty)  # type: ignore[arg-type]  # that is the point


def test_metrics_of_one_name_share_their_values_if_they_are_alike() -> None:
    name = fresh()
    Counter(name).inc()
    Counter(name).inc()
    assert series(Counter(name)) == [[{}, 2.0]]
    with pytest.raises(ValueError, match="is a counter in this process already, got a gauge"):
        Gauge(name)
    Histogram(f"{name}_h", boundaries=[1])
    with pytest.raises(ValueError, match=r"with boundaries \[1.0\] in this process already, got a histogram with"):
        Histogram(f"{name}_h", boundaries=[2])


def test_names_of_umbels_own_are_refused() -> None:
    for make, name in ((Gauge, "tasks"), (Counter, "tasks_ended"), (Counter, "tasks_ended_total")):
        with pytest.raises(ValueError, match=r"would be exported as umbel_tasks.*choose another name"):
            make(name)


def test_info_tells_what_it_was_made_of() -> None:
    name = fresh()
    gauge = Gauge(name, "of a queue", tag_keys=("q",)).set_default_tags({"q": "x"})
    assert gauge.info == {"name": name, "description": "of a queue", "tag_keys": ("q",), "default_tags": {"q": "x"}}
    assert Histogram(fresh(), boundaries=[1, 2]).info["boundaries"] == [1, 2]


@pytest.mark.parametrize("kind", [Counter, Gauge, Histogram])
def test_metric_can_be_pickled(kind: Any) -> None:
    more = {"boundaries": [1.0]} if kind is Histogram else {}
    made = kind(fresh(), "text", tag_keys=("a",), **more).set_default_tags({"a": "1"})
    again = pickle.loads(pickle.dumps(made))
    assert (type(again), again.info, again._family) == (kind, made.info, made._family)


def test_more_series_than_there_is_room_for_are_counted_and_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SERIES_MAX", 3)
    counter = Counter(fresh(), tag_keys=("id",))
    for number in range(5):
        counter.inc(tags={"id": str(number)})
    with pytest.warns(UserWarning, match="2 values of metrics were dropped"):
        told = news()
    assert [len(one["series"]) for one in told] == [3, 1]
    assert (told[1]["name"], told[1]["series"]) == ("umbel_metric_series_dropped_total", [[{}, 2]])
    counter.inc(tags={"id": "7"})
    assert series(counter) == [[{"id": "7"}, 1.0]]


def test_destructor_may_count_in_the_midst_of_counting() -> None:
    counter, inner = Counter(fresh(), tag_keys=("a",)), Counter(fresh())

    class Loud(str):
        """A tag whose hash runs code while the recorder looks its value up, as a garbage collection may."""

        def __hash__(self) -> int:
            inner.inc()
            return hash("x")

    counter.inc(tags={"a": Loud("x")})
    told = {one["name"]: one["series"] for one in news()}
    assert told[counter.info["name"]] == [[{"a": "x"}, 1.0]]
    assert told[inner.info["name"]][0][1] >= 1


def test_copy_in_a_forked_child_starts_without_news() -> None:
    counter = Counter(fresh())
    counter.inc()
    metrics.recorder.forked()
    assert news() == []
    counter.inc()
    assert series(counter) == [[{}, 1.0]]
