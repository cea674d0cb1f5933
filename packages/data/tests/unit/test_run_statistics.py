"""What a run tells of itself: the dictionary, the table, and who was slowest."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pyarrow as pa
import pytest

from umbel import data
from umbel.data._engine import events, local, reports, runs, scheduling, stages
from umbel.data.expressions import col

STAGE_KEYS = [
    "name", "how", "tasks", "tasks_started", "tasks_retried", "tasks_repeated", "workers_max", "rows_in", "bytes_in", "rows_out",
    "bytes_out", "blocks_out", "wall_s", "cpu_s", "task_wall_s_max", "heap_bytes_max", "actor_bytes_max", "blocked_s",
    "waits_for",
]  # fmt: skip
TOTAL_KEYS = [
    "wall_s", "tasks", "tasks_retried", "tasks_repeated", "cpu_s", "rows_out", "bytes_out", "consumer_s", "held_bytes_max",
    "parked_bytes_max", "heap_bytes_max",
]  # fmt: skip


def numbers(count: int) -> data.Dataset:
    return data.from_arrow(pa.table({"id": range(count)}))


def test_a_run_in_this_process_has_all_figures() -> None:
    ds = numbers(10).filter(expr=col("id") > 3).sort("id", descending=True)
    ds.set_name("few")
    assert len(ds.take_all()) == 6
    found = ds.stats()
    assert found["where"] == "in this process" and found["state"] == "ended" and found["dataset"] == "few"
    assert [[*one] for one in found["stages"]] == [STAGE_KEYS] * 3
    assert [*found["total"]] == TOTAL_KEYS
    figures = [(one["rows_in"], one["rows_out"], one["bytes_out"]) for one in found["stages"]]
    assert figures == [(0, 10, 80), (10, 6, 48), (6, 6, 48)]
    assert found["total"]["rows_out"] == 6 and found["rows_left_out"] == {}
    times = [one["wall_s"] for one in found["stages"]]
    assert all(one > 0 for one in times) and sum(times) <= found["total"]["wall_s"]
    assert found["bottleneck"]["stage"] in {None, *(one["name"] for one in found["stages"])}


def test_statistics_are_a_dictionary_that_prints_as_a_table() -> None:
    ds = numbers(3)
    ds.take_all()
    found = ds.stats()
    assert isinstance(found, dict) and json.loads(json.dumps(found)) == found
    assert pickle.loads(pickle.dumps(found)) == found
    assert str(found) == repr(found) == reports.table(found)
    assert "total: 3 rows, 24 B" in str(found)
    assert ds.get_stats_summary() == found


def test_a_run_that_goes_on_or_failed_says_so() -> None:
    ds = numbers(3)
    rows = ds.iter_batches(batch_size=1, prefetch_batches=0)
    next(rows)
    assert ds.stats()["state"] == "running"
    rows.close()  # type: ignore[attr-defined]
    assert ds.stats()["state"] == "ended"
    failing = numbers(3).filter(expr=col("id") / col("id") > 0)
    with pytest.raises(Exception, match="zero"):
        failing.take_all()
    assert failing.stats()["state"] == "failed"


def test_rows_of_a_stage_with_two_consumers_count_once() -> None:
    source = stages.Input(blocks=[stages.Block(pa.table({"id": [1, 2]}), stages.Metadata(2, 16))])
    union = stages.Union(inputs=(source, source))
    figures: local.Figures = {}
    assert sum(table.num_rows for table in local.tables(union, figures)) == 4
    found = reports.stats_here(union, figures, 1.0, state="ended")
    assert [one["rows_out"] for one in found["stages"]] == [2, 4]


def machine() -> scheduling.Machine:
    """A read of two parts and a map, of which the second task of the read was lost once."""
    read = stages.Read(name="read", parts=[stages.ReadPart(_unused, size_bytes=10)] * 2)
    found = scheduling.Machine(stages.Map(name="map", input=read, transforms=()), scheduling.Options(1 << 40))

    def tell(*every: events.Event) -> None:
        for event in every:
            found.apply(event)
            found.check()

    tell(
        events.Began({"CPU": 3.0}, 10.0),
        events.BlockMade(1, 1, 1, 5, 50, 11.0),
        events.TaskFailed(2, 1, OSError(), True, 12.0),
        events.TaskEnded(1, 1, events.Cost(1.0, 0.5, 7), 12.0),
        events.BlockMade(2, 2, 2, 5, 50, 13.0),
        events.TaskEnded(2, 2, events.Cost(3.0, 0.5, 9), 13.0),
        events.BlockMade(3, 1, 3, 10, 100, 14.0),
        events.TaskEnded(3, 1, events.Cost(9.0, 8.1, 1), 14.0),
    )
    return found


def _unused(*_arguments: Any) -> Any:
    raise AssertionError("nothing runs here")


def test_a_run_on_workers_has_all_figures() -> None:
    found = reports.stats(machine(), 5.0, state="running")
    read, mapped = found["stages"]
    assert [*read] == [*mapped] == STAGE_KEYS and [*found["total"]] == TOTAL_KEYS
    told = {
        key: read[key] for key in ("tasks", "tasks_started", "tasks_retried", "tasks_repeated", "rows_out", "wall_s")
    }
    assert told == {
        "tasks": 2, "tasks_started": 2, "tasks_retried": 1, "tasks_repeated": 0, "rows_out": 10, "wall_s": 4.0,
    }  # fmt: skip
    assert (read["task_wall_s_max"], read["heap_bytes_max"], read["workers_max"]) == (3.0, 9, 2)
    assert mapped["blocked_s"]["input"] == 1.0 and mapped["rows_in"] >= 5
    assert found["total"]["tasks_retried"] == 1
    assert found["total"]["held_bytes_max"] >= 100
    assert found["bottleneck"] == {"stage": "map", "busy_s": 4.5, "cpu_part": pytest.approx(0.9)}
    text = str(found)
    assert "2 +1" in text and "slowest: map, busy for 4.50 s, 90% of it computing" in text
    assert text.splitlines()[3].endswith("in 5.00 s, on workers, running")


def test_whoever_reads_may_be_the_slowest() -> None:
    found = reports._stats(
        [reports._of_stage("read", runs.Stats(wall_s=1.0))], 9.0, where="on workers", state="ended", consumer_s=8.0
    )
    assert found["bottleneck"] == {"stage": None, "busy_s": 8.0, "cpu_part": None}
    assert "slowest: whoever reads, busy for 8.00 s" in str(found)


def test_the_table_tells_of_rows_left_out_and_of_checkpoints() -> None:
    found = reports._stats([], 1.0, where="on workers", state="ended")
    found |= {"rows_left_out": {"Map(f)": 12_345}, "parts_done_before": 7}
    assert "left out: 12,345 rows on which Map(f) failed" in str(found)
    assert "from the checkpoint: 7 parts" in str(found)
    assert found["bottleneck"] is None


def test_long_names_are_shortened_in_the_middle() -> None:
    assert reports.shortened("abcdefgh", 8) == "abcdefgh"
    assert reports.shortened("abcdefgh", 5) == "ab…gh"
    assert reports.shortened("abcdefgh", 4) == "a…gh"
