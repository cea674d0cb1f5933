"""How often a user's function is called for a row, whatever is asked of its dataset: not at all where the answer is known, and
otherwise once for each run that was asked for."""

from __future__ import annotations

import collections
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import umbel
from umbel import data
from umbel.data import aggregate, expressions, window
from umbel.data.expressions import col

pytestmark = pytest.mark.timeout(120)
ROWS = 24


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=200 << 20)
    yield
    umbel.shutdown()


class Counted:
    """Keeps the ids for which it is called in a file. It is a function of rows, or of batches."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = str(path)

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        self._note([row["id"]])
        return {"id": row["id"], "k": row["id"] % 3, "x": float(row["id"])}

    def batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        self._note(batch["id"].tolist())
        return {"id": batch["id"], "k": batch["id"] % 3, "x": batch["id"] * 1.0}

    def _note(self, ids: list[int]) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, "".join(f"{one}\n" for one in ids).encode())
        os.close(file)

    @property
    def calls(self) -> collections.Counter[int]:
        return collections.Counter(map(int, open(self._path))) if os.path.exists(self._path) else collections.Counter()


@pytest.fixture(params=["map", "map_batches"])
def counted(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[data.Dataset, Counted]:
    found = Counted(tmp_path / "calls")
    ds = data.range(ROWS, override_num_blocks=4)
    return (ds.map(found.row) if request.param == "map" else ds.map_batches(found.batch)), found


def looked_at(ds: data.Dataset) -> None:
    assert (ds.count(), len(ds.take(3)), ds.sum("id")) == (ROWS, 3, sum(range(ROWS)))
    assert ds.columns() == ["id", "k", "x"]
    assert len(ds.split(2)) == 2


ASKED: dict[str, Callable[[data.Dataset], Any]] = {
    "repr": repr,
    "explain": lambda ds: ds.explain(),
    "schema, not fetched": lambda ds: ds.schema(fetch_if_missing=False),
    "input_files": lambda ds: ds.input_files(),
    "a plan": lambda ds: ds.filter(expr=col("x") > 1).sort("k").join(ds, on="id", left_suffix="_l", right_suffix="_r"),
    "copy": lambda ds: data.Dataset.deserialize_lineage(ds.copy().serialize_lineage()),
}
RUN: dict[str, Callable[[data.Dataset, str], Any]] = {
    "take_all": lambda ds, _: ds.take_all(),
    "to_arrow": lambda ds, _: ds.to_arrow(),
    "to_arrow_refs": lambda ds, _: ds.to_arrow_refs(),
    "to_numpy_refs": lambda ds, _: ds.to_numpy_refs(column="x"),
    "iter_batches": lambda ds, _: ([*ds.iter_batches(batch_size=5)], ds.stats()),
    "materialize": lambda ds, _: looked_at(ds.materialize()),
    "split": lambda ds, _: [one.take_all() for one in ds.split(3, equal=True)],
    "split_at_indices": lambda ds, _: [one.count() for one in ds.split_at_indices([3, 9])],
    "train_test_split": lambda ds, _: [one.take_all() for one in ds.train_test_split(6, shuffle=True, seed=1)],
    "stratified": lambda ds, _: [one.take_all() for one in ds.train_test_split(6, stratify="k")],
    "streaming_split": lambda ds, _: [len([*one.iter_rows()]) for one in ds.streaming_split(1)],
    "aggregate": lambda ds, _: ds.aggregate(aggregate.Sum("x"), aggregate.Max("id"), aggregate.Unique("k")),
    "groupby": lambda ds, _: ds.groupby("k").aggregate(aggregate.Count(), aggregate.Sum("x")).take_all(),
    "map_groups": lambda ds, _: ds.groupby("k").map_groups(lambda group: group).take_all(),
    "sort": lambda ds, _: ds.sort("x", descending=True).take_all(),
    "sort, first rows": lambda ds, _: ds.sort("x").limit(3).take_all(),
    "random_shuffle": lambda ds, _: ds.random_shuffle(seed=1).take_all(),
    "repartition": lambda ds, _: ds.repartition(3, keys=["k"]).take_all(),
    "repartition, strict": lambda ds, _: ds.repartition(target_num_rows_per_block=5, strict=True).take_all(),
    "distinct": lambda ds, _: ds.distinct("k").take_all(),
    "sample": lambda ds, _: ds.sample(4, seed=1).take_all(),
    "window": lambda ds, _: ds.with_column("n", window.row_number().over("k")).take_all(),
    "join": lambda ds, _: ds.join(data.range(ROWS), on="id", broadcast=False).take_all(),
    "join, broadcast": lambda ds, _: data.range(ROWS).join(ds, on="id").take_all(),
    "join with itself": lambda ds, _: ds.join(ds.groupby("k").count(), on="k").take_all(),
    "join_asof": lambda ds, _: ds.join_asof(data.range(ROWS).with_column("z", col("id")), "id").take_all(),
    "union with itself": lambda ds, _: ds.filter(expr=col("id") < 5).union(ds).take_all(),
    "zip with itself": lambda ds, _: ds.select_columns("id").zip(ds.select_columns("x")).take_all(),
    "write_parquet": lambda ds, path: ds.write_parquet(path),
    "write_parquet by values": lambda ds, path: ds.write_parquet(path, partition_cols=["k"]),
    "write_json": lambda ds, path: ds.write_json(path, min_rows_per_file=10),
    "write, checkpoint": lambda ds, path: ds.write_parquet(path, checkpoint=f"{path}-noted"),
    "drawn column": lambda ds, _: ds.with_column("r", expressions.random(seed=1)).take_all(),
}  # fmt: skip


@pytest.mark.parametrize("what", ASKED)
def test_what_needs_no_rows_calls_no_function(counted: tuple[data.Dataset, Counted], what: str) -> None:
    ds, found = counted
    ASKED[what](ds)
    assert not found.calls


@pytest.mark.parametrize("what", RUN)
def test_a_run_calls_a_function_once_for_each_row(
    counted: tuple[data.Dataset, Counted], tmp_path: pathlib.Path, what: str
) -> None:
    ds, found = counted
    RUN[what](ds, str(tmp_path / "out"))
    assert found.calls == collections.Counter(range(ROWS))


def test_a_count_that_is_known_calls_no_function(tmp_path: pathlib.Path) -> None:
    found = Counted(tmp_path / "calls")
    ds = data.range(ROWS).map(found.row)
    assert (ds.count(), ds.limit(5).count(), ds.sort("x").union(ds).count()) == (ROWS, 5, 2 * ROWS)
    assert not found.calls
    assert len(ds.take(2)) == 2
    assert found.calls == {0: 1, 1: 1}


def test_a_schema_that_a_function_decides_takes_one_task(tmp_path: pathlib.Path) -> None:
    found = Counted(tmp_path / "calls")

    def slow(batch: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.2)
        return found.batch(batch)

    assert data.range(8, override_num_blocks=8).map_batches(slow).columns() == ["id", "k", "x"]
    time.sleep(0.5)
    assert found.calls == {0: 1}
