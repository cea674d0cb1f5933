"""What programs for Ray Data use, as far as it takes workers."""

from __future__ import annotations

import os
import pathlib
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import umbel
from umbel import data
from umbel.data import aggregate, block, context, datasink, datasource
from umbel.data import exceptions as data_exceptions
from umbel.data.expressions import col

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=2, resources={"disk": 4}, log_to_driver=False, object_store_memory=400 << 20)
    yield
    umbel.shutdown()


def ids(ds: data.Dataset) -> list[int]:
    return [row["id"] for row in ds.take_all()]


class Adder:
    def __init__(self, by: int = 1, *, times: int = 1) -> None:
        self.by = by * times
        self.buffer = np.zeros(64, np.int64)

    def __call__(self, batch: dict[str, Any], more: int = 0) -> dict[str, Any]:
        count = len(batch["id"])
        self.buffer[:count] = batch["id"] + self.by + more
        return {"id": self.buffer[:count]}


class Stream:
    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for value in batch["id"]:
            yield {"id": [value, -value]}


async def tenfold(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"] * 10}


def test_a_worker_loads_what_it_runs_and_no_planner() -> None:
    def loaded(row: dict[str, Any]) -> dict[str, Any]:
        return {"modules": [one for one in sys.modules if one.startswith("umbel.data.")], "pid": os.getpid()}

    fresh = {"env_vars": {"UMBEL_TEST_FRESH": "1"}}  # a worker that has run nothing else
    (row,) = data.range(1).map(loaded, runtime_env=fresh).take_all()
    assert row["pid"] != os.getpid()
    left_out = (
        "umbel.data.dataset",
        "umbel.data._plan.logical",
        "umbel.data._plan.physical",
        "umbel.data._expressions.evaluate",
    )
    assert "umbel.data._engine.work" in row["modules"]
    assert not {*left_out} & {*row["modules"]}


# ---- functions, classes, pools ----


@pytest.mark.parametrize(
    "compute",
    [
        data.ActorPoolStrategy(size=1),
        data.ActorPoolStrategy(min_size=0, max_size=2),
        data.ActorPoolStrategy(
            min_size=1, max_size=2, initial_size=2, max_tasks_in_flight_per_actor=3, max_concurrent_calls_per_actor=1
        ),
        "actors",
        None,
    ],
)
def test_a_class_runs_in_every_kind_of_pool_and_may_use_a_buffer_again(compute: Any) -> None:
    ds = data.range(40, override_num_blocks=4).map_batches(
        Adder,
        batch_size=4,
        compute=compute,
        fn_constructor_args=(2,),
        fn_constructor_kwargs={"times": 5},
        fn_kwargs={"more": 100},
    )
    assert ids(ds) == [value + 110 for value in range(40)]


def test_older_ways_to_say_a_pool() -> None:
    ds = data.range(6)
    with pytest.warns(DeprecationWarning, match="concurrency is deprecated"):
        found = ds.map_batches(Adder, concurrency=(1, 2))
    assert ids(found) == [1, 2, 3, 4, 5, 6]
    with pytest.warns(DeprecationWarning, match="use compute=TaskPoolStrategy"):
        assert ids(ds.map(lambda row: row, concurrency=2)) == [0, 1, 2, 3, 4, 5]


def test_asynchronous_functions_and_generators() -> None:
    ds = data.range(5)
    assert ids(ds.map(tenfold)) == [0, 10, 20, 30, 40]
    assert ids(ds.map_batches(Stream, batch_size=2)) == [0, 0, 1, -1, 2, -2, 3, -3, 4, -4]


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "polars", "torch", "pyarrow"])
def test_batches_of_every_form(batch_format: str) -> None:
    if batch_format not in ("numpy", "pyarrow"):
        pytest.importorskip(batch_format)
    seen = {"numpy": "dict", "torch": "dict", "pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table"}

    def checked(batch: Any) -> Any:
        assert type(batch).__name__ == seen[batch_format]
        return batch

    ds = (
        data.range(10)
        .with_column("s", col("id").cast("int8"))
        .map_batches(checked, batch_format=batch_format, batch_size="auto")
    )
    assert ds.to_arrow().equals(pa.table({"id": list(range(10)), "s": pa.array(range(10), pa.int8())}))


def test_tasks_take_what_they_are_given() -> None:
    def where(row: dict[str, Any]) -> dict[str, Any]:
        return {"id": row["id"], "node": umbel.get_runtime_context().get_assigned_resources()}

    ds = data.range(2, override_num_blocks=1).map(
        where, num_cpus=0.5, memory=64 << 20, resources={"disk": 2}, max_calls=3, runtime_env=None, label_selector=None
    )
    (first, _) = ds.take_all()
    assert (first["node"]["CPU"], first["node"]["disk"]) == (0.5, 2.0)
    lazy = data.range(3).with_column("y", col("id") + 1, resources={"disk": 1}).take_all()
    assert [row["y"] for row in lazy] == [1, 2, 3]


class Busy:
    """How many run at once, as files say."""

    def __init__(self, folder: str) -> None:
        self.folder = pathlib.Path(folder)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        mine = self.folder / f"{row['id']}"
        mine.touch()
        time.sleep(0.05)
        count = len(list(self.folder.iterdir()))
        mine.unlink()
        return {"id": row["id"], "count": count}


@pytest.mark.parametrize(
    "options",
    [
        data.ExecutionOptions(resource_limits=data.ExecutionResources(cpu=1)),
        data.ExecutionOptions(exclude_resources=data.ExecutionResources(cpu=1)),
    ],
)
def test_a_run_keeps_to_its_limits(options: data.ExecutionOptions, tmp_path: pathlib.Path) -> None:
    with context.DataContext.current(context.DataContext(execution_options=options)):
        ds = data.range(8, override_num_blocks=8).map(Busy(str(tmp_path)).__call__)
        assert {row["count"] for row in ds.take_all()} == {1}


# ---- groups ----


class First:
    def __init__(self) -> None:
        self.buffer = np.zeros(1, np.int64)

    def __call__(self, group: dict[str, Any]) -> Iterator[dict[str, Any]]:
        self.buffer[:] = group["id"][0]
        yield {"id": self.buffer}


class Longest(aggregate.VectorizedAggregateFnV2):
    def __init__(self, on: str) -> None:
        super().__init__(f"longest({on})", lambda: "", on=on)

    def aggregate_block(self, block: pa.Table) -> Any:
        return max(block[self.on or ""].to_pylist(), key=len)

    def _combine_column(self, accumulator_col: pa.ChunkedArray) -> Any:
        lengths = pc.utf8_length(accumulator_col).to_pylist()
        return accumulator_col[lengths.index(max(lengths))].as_py()


def test_functions_of_groups_and_aggregations_of_ones_own() -> None:
    ds = data.range(10, override_num_blocks=3).with_column("k", col("id") % 3)
    assert sorted(ids(ds.groupby("k").map_groups(First, num_cpus=1))) == [0, 1, 2]
    words = data.from_blocks([pa.table({"w": ["a", "bbb"]}), pa.table({"w": ["cc"]}), pa.table({"w": ["dddd"]})])
    assert words.aggregate(Longest("w"), aggregate.Count()) == {"longest(w)": "dddd", "count()": 4}


# ---- sources and sinks of one's own ----


class Squares(datasource.Datasource):
    def __init__(self, upto: int) -> None:
        self.upto = upto

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[datasource.ReadTask]:
        def task(first: int, last: int) -> datasource.ReadTask:
            def read() -> Iterator[pa.Table]:
                yield pa.table({"id": [value * value for value in range(first, last)]})

            return datasource.ReadTask(read, block.BlockMetadata(num_rows=last - first))

        half = self.upto // 2
        return [task(0, half), task(half, self.upto)]


class Collected(datasink.Datasink[list[int]]):
    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        self.events = ["start"]

    def write(self, blocks: Any, ctx: datasink.WriteContext) -> list[int]:
        return [value for one in blocks for value in block.BlockAccessor.for_block(one).to_numpy("id").tolist()]

    def on_write_complete(self, write_result: datasink.WriteResult[list[int]]) -> None:
        self.events.append(f"{write_result.num_rows} rows")
        self.found = [value for some in write_result.write_returns for value in some]


def test_sources_and_sinks_of_ones_own() -> None:
    ds = data.read_datasource(Squares(6), num_cpus=0.5, ray_remote_args={"max_retries": 1})
    assert ids(ds) == [0, 1, 4, 9, 16, 25]
    assert ds.count() == 6
    sink = Collected()
    ds.write_datasink(sink, concurrency=1, ray_remote_args={"num_cpus": 1})
    assert (sink.events, sink.found) == (["start", "6 rows"], [0, 1, 4, 9, 16, 25])


# ---- errors, plans, references ----


def test_an_error_of_a_function_is_known_by_two_names() -> None:
    ds = data.range(2).map(lambda row: {"id": 1 // row["id"]})
    for kind in (data_exceptions.UserCodeException, ZeroDivisionError):
        with pytest.raises(kind):
            ds.take_all()


def test_blocks_in_the_store_are_handed_on_by_reference_and_not_by_bytes() -> None:
    kept = data.range(1 << 20, override_num_blocks=2).map_batches(lambda batch: batch).materialize()
    assert not kept.has_serializable_lineage()
    with pytest.raises(ValueError, match="blocks in the store, which end with the session; write it"):
        kept.serialize_lineage()
    bundles = list(kept.iter_internal_ref_bundles())
    assert sum(one.num_rows() for one in bundles) == 1 << 20
    assert all(one.size_bytes() > 0 for one in bundles)
    tables = umbel.get([ref for one in bundles for ref in one.block_refs])
    assert pa.concat_tables(tables)["id"].to_pylist() == list(range(1 << 20))
    assert len(kept.get_internal_block_refs()) == kept.num_blocks()
    lazy = data.range(3).map(lambda row: {"id": row["id"] + 1})
    assert ids(data.Dataset.deserialize_lineage(lazy.serialize_lineage())) == [1, 2, 3]
    assert [one for one in threading.enumerate() if one.name.startswith("umbel-data-")] == []


def test_a_sink_is_told_when_its_end_fails() -> None:
    class Sink(datasink.Datasink[int]):
        def __init__(self) -> None:
            self.told: list[str] = []

        def write(self, blocks: Any, ctx: datasink.WriteContext) -> int:
            return sum(block.num_rows for block in blocks)

        def on_write_complete(self, write_result: datasink.WriteResult[int]) -> None:
            self.told.append(f"{write_result.num_rows} rows")
            raise OSError("no commit")

        def on_write_failed(self, error: Exception) -> None:
            self.told.append(str(error))

    sink = Sink()
    with pytest.raises(OSError, match="no commit"):
        data.range(3).write_datasink(sink)
    assert sink.told == ["3 rows", "no commit"]
