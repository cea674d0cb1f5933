"""What turns an agent's answer into metrics."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from umbel._agent import exporter
from umbel._model import metric_catalog as catalog


def snapshot(*families: dict[str, Any]) -> dict[str, Any]:
    return {
        "node_id": "n1", "families": list(families), "dropped": 2, "actors": {"ALIVE": 1}, "workers": {"idle": 3},
        "leases_pending": 4, "store_capacity_bytes": 100, "store_reserved_bytes": 40,
        "spilled_bytes": 30, "spill_written_bytes": 70, "spill_read_bytes": 20, "memory_kills": 5,
    }  # fmt: skip


def family(name: str, kind: str, *series: Any, is_own: bool = False, bounds: tuple[float, ...] = ()) -> dict[str, Any]:
    return {
        "name": name, "kind": kind, "help": "", "bounds": list(bounds), "is_own": is_own, "series": list(series),
    }  # fmt: skip


def samples(*families: dict[str, Any], measured: Any = ()) -> dict[str, Any]:
    """(name, labels but the node's) -> value."""
    found: dict[str, Any] = {}
    for metric in exporter.metrics_of(snapshot(*families), measured):
        for sample in metric.samples:
            labels = dict(sample.labels)
            assert labels.pop(catalog.NODE_LABEL) == "n1"
            shown = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
            found[f"{sample.name}{{{shown}}}" if shown else sample.name] = sample.value
    return found


def test_agents_own_facts_are_metrics_of_the_list() -> None:
    assert samples() == {
        "umbel_actors{state=ALIVE}": 1,
        "umbel_workers{state=idle}": 3,
        "umbel_leases_pending": 4,
        "umbel_object_store_capacity_bytes": 100,
        "umbel_object_store_reserved_bytes": 40,
        "umbel_object_store_spilled_bytes": 30,
        "umbel_object_store_spill_written_bytes_total": 70,
        "umbel_object_store_spill_read_bytes_total": 20,
        "umbel_memory_kills_total": 5,
        "umbel_metric_series_dropped_total": 2,
    }


def test_umbels_own_gauges_add_up_over_processes_and_the_programs_do_not() -> None:
    own = family("umbel_tasks", "gauge", ["p1", {"state": "x"}, 2], ["p2", {"state": "x"}, 5], is_own=True)
    theirs = family("depth", "gauge", ["p1", {}, 2], ["p2", {}, 5])
    found = samples(own, theirs)
    assert found["umbel_tasks{state=x}"] == 7
    assert (found["umbel_depth{worker_id=p1}"], found["umbel_depth{worker_id=p2}"]) == (2, 5)


def test_histogram_is_told_as_prometheus_counts_it() -> None:
    found = samples(family("wait_seconds", "histogram", ["", {"q-1": "a"}, [[2, 0, 1], 7.5]], bounds=(0.5, 2)))
    assert {name: value for name, value in found.items() if "wait" in name} == {
        "umbel_wait_seconds_bucket{le=0.5,q_1=a}": 2,
        "umbel_wait_seconds_bucket{le=2,q_1=a}": 2,
        "umbel_wait_seconds_bucket{le=+Inf,q_1=a}": 3,
        "umbel_wait_seconds_count{q_1=a}": 3,
        "umbel_wait_seconds_sum{q_1=a}": 7.5,
    }


def test_what_was_measured_beside_adds_up_by_labels() -> None:
    owner = {"component": "worker", "name": ""}
    found = samples(measured=[("umbel_processes", owner, 1), ("umbel_processes", owner, 1)])
    assert found["umbel_processes{component=worker,name=}"] == 2


def test_processor_time_of_ended_processes_stays() -> None:
    book, owner = exporter.CpuBook(), ("worker", "")
    assert book.seen([(owner, (1, 0.0), 2.0), (owner, (2, 0.0), 1.0)]) == {owner: 3.0}
    assert book.seen([(owner, (1, 0.0), 2.5)]) == {owner: 3.5}
    assert book.seen([(owner, (1, 9.0), 0.5)]) == {owner: 4.0}  # another process with the same pid
    assert book.seen([]) == {owner: 4.0}
