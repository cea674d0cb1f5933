"""Datasets on workers: users' functions, several consumers, references."""

from __future__ import annotations

import functools
import logging
import os
import pathlib
import re
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import leftovers
import numpy as np
import pyarrow as pa
import pytest

import umbel
from umbel import data
from umbel.data import iterator as iterators
from umbel.data._api import split_streams
from umbel.data.expressions import col

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=400 << 20)
    yield
    umbel.shutdown()


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    yield
    leftovers.check()


def ids(ds: data.Dataset) -> list[int]:
    return [row["id"] for row in ds.take_all()]


# ---- functions ----


def fails_on_tens(row: dict[str, Any]) -> dict[str, Any]:
    if row["id"] % 10 == 0:
        raise ValueError(f"{row['id']} is a ten")
    return {"id": row["id"] * 2}


def test_rows_that_fail_are_a_dataset_of_their_own(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    data.range(50, override_num_blocks=1).write_csv(str(tmp_path))
    ds = data.read_csv(str(tmp_path)).map(fails_on_tens, on_error="collect").filter(lambda row: row["id"] < 60)
    with caplog.at_level(logging.WARNING):
        kept = ids(ds)
    assert kept == [2 * n for n in range(30) if n % 10]
    errors = ds.errors().take_all()
    assert [row["id"] for row in errors] == [0, 10, 20, 30, 40]
    told = errors[1]["_error"]
    assert (told["operator"], told["type"], told["message"]) == ("Map(fails_on_tens)", "ValueError", "10 is a ten")
    assert told["input_files"] == ds.input_files()
    assert "in fails_on_tens" in told["traceback"]
    assert ds.errors("Map(fails_on_tens)").count() == 5
    assert ds.errors("Map(other)").count() == 0
    assert ds.get_stats_summary()["rows_left_out"] == {"Map(fails_on_tens)": 5}
    assert "Map(fails_on_tens): 5 rows on which the function failed were left out" in caplog.text
    assert data.range(3).map(fails_on_tens, on_error="skip").count() == 2


def test_errors_of_an_actor_pool_and_none() -> None:
    class Divides:
        def __init__(self, by: int) -> None:
            self.by = by

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            if (batch["id"] == 7).any():
                raise ZeroDivisionError("seven")
            return {"id": batch["id"] // self.by}

    ds = data.range(20).map_batches(
        Divides,
        batch_size=5,
        fn_constructor_args=(2,),
        compute=data.ActorPoolStrategy(min_size=0, max_size=1),
        on_error="collect",
    )
    assert ids(ds) == [0, 0, 1, 1, 2, *(n // 2 for n in range(10, 20))]
    assert [row["id"] for row in ds.errors().take_all()] == [5, 6, 7, 8, 9]
    fine = data.range(3).map(lambda row: row, on_error="collect").materialize()
    assert fine.errors().take_all() == []


def test_groups_that_fail_are_left_out_with_all_of_their_rows() -> None:
    def halves(group: pa.Table) -> Any:
        yield group.slice(0, 1)
        if group["k"][0].as_py() == 1:
            raise ValueError("one")

    ds = data.range(9).with_column("k", col("id") % 3)
    kept = ds.groupby("k").map_groups(halves, batch_format="pyarrow", on_error="collect")
    assert kept.take_all() == [{"id": 0, "k": 0}, {"id": 2, "k": 2}]
    errors = kept.errors().take_all()
    assert [(row["id"], row["k"]) for row in errors] == [(1, 1), (4, 1), (7, 1)]
    assert {row["_error"]["message"] for row in errors} == {"one"}
    assert ds.groupby("k").map_groups(halves, batch_format="pyarrow", on_error="skip").count() == 2
    with pytest.raises(ValueError, match="one"):
        ds.groupby("k").map_groups(halves, batch_format="pyarrow").count()
    with pytest.raises(ValueError, match="on_error must be one of"):
        ds.groupby("k").map_groups(halves, on_error="ignore")


def test_an_error_names_the_operator_and_the_row() -> None:
    ds = data.range(30, override_num_blocks=1).map(lambda row: row).map(fails_on_tens)
    with pytest.raises(ValueError, match="0 is a ten") as caught:
        ds.materialize()
    text = str(caught.value)
    assert "Map(fails_on_tens)" in text
    assert "in fails_on_tens" in text
    if hasattr(caught.value, "add_note"):
        assert re.search(r"on row \{'id': [012]?0\}", text)  # that of the task that was first to fail


def test_what_two_operators_use_is_run_once(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path)

    def counted(row: dict[str, Any]) -> dict[str, Any]:
        fd = os.open(os.path.join(folder, str(row["id"])), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, b".")
        os.close(fd)
        return row

    ds = data.range(6).map(counted)
    small = ds.filter(expr=col("id") < 4).with_column("x", col("id"))
    joined = small.join(ds.filter(expr=col("id") > 1).rename_columns({"id": "other"}), on="id", right_on="other")
    assert sorted(ids(joined.union(small))) == [0, 1, 2, 2, 3, 3]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {str(n): "." for n in range(6)}


def test_batches_are_the_blocks_that_were_asked_for() -> None:
    def counted(batch: dict[str, Any]) -> dict[str, Any]:
        return {"n": [len(batch["id"])]}

    ds = data.range(10).repartition(target_num_rows_per_block=3, strict=True).map_batches(counted)
    assert [row["n"] for row in ds.take_all()] == [3, 3, 3, 1]


def test_added_columns_and_grouped_ones() -> None:
    pytest.importorskip("pandas")
    with pytest.warns(DeprecationWarning, match="with_column"):
        ds = data.range(4).add_column("x", lambda frame: frame["id"] * 2)
    assert ds.take_all() == [{"id": n, "x": 2 * n} for n in range(4)]
    grouped = data.range(4).with_column("k", col("id") % 2).groupby("k").with_column("y", col("id") + col("k"))
    assert sorted(row["y"] for row in grouped.take_all()) == [0, 2, 2, 4]


def test_mix_on_workers_is_as_in_this_process() -> None:
    ones, twos = data.range(3000), data.range(3000).with_column("id", -col("id") - 1)
    here = ids(ones.mix(twos, weights=[2, 1]))
    same = [ds.map_batches(lambda batch: batch) for ds in (ones, twos)]
    assert ids(same[0].mix(same[1], weights=[2, 1])) == here
    longest = ids(same[0].mix(same[1], weights=[2, 1], stopping_condition="LONGEST_DROP"))
    assert sorted(longest) == sorted([*range(3000), *range(-3000, 0)])


# ---- references ----


def test_references_go_and_come() -> None:
    pytest.importorskip("pandas")
    large = data.range(50_000, override_num_blocks=2).map_batches(lambda batch: batch).materialize()
    tables = umbel.get(large.to_arrow_refs())
    assert [value for table in tables for value in table["id"].to_pylist()] == list(range(50_000))
    frames = large.to_pandas_refs()
    assert ids(data.from_pandas_refs(frames)) == list(range(50_000))
    arrays = large.to_numpy_refs(column="id")
    again = data.from_numpy_refs(arrays)
    assert (again.columns(), again.count()) == (["data"], 50_000)
    small = data.from_arrow_refs([umbel.put(pa.table({"id": [1]})), umbel.put(pa.table({"id": [2, 3]}))])
    assert (small.num_blocks(), small.count(), ids(small)) == (2, 3, [1, 2, 3])
    assert small.filter(expr=col("id") > 1).map(lambda row: row).count() == 2
    with pytest.raises(KeyError, match="no column 'x'"):
        large.to_numpy_refs(column="x")
    assert np.concatenate(umbel.get(arrays)).tolist() == list(range(50_000))


def test_sql(tmp_path: pathlib.Path) -> None:
    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    connect = functools.partial(sqlite3.connect, str(tmp_path / "db"))
    with connect() as connection:
        connection.execute("create table t (a integer, b text)")
    data.from_items(rows).write_sql("insert into t values (?, ?)", connect)
    assert data.read_sql("select * from t order by a", connect).take_all() == rows
    assert data.read_sql("select a from t where a > ?", connect, sql_params=[1]).take_all() == [{"a": 2}]


# ---- several consumers ----


@umbel.remote(num_cpus=0)
class Consumer:
    def __init__(self, it: data.DataIterator) -> None:
        self._it = it

    def epochs(self, count: int, stops_at: int | None = None) -> list[list[int]]:
        """The ids of each; stops_at: batches of the first one after which it is left."""
        found = []
        for epoch in range(count):
            seen: list[int] = []
            for number, batch in enumerate(self._it.iter_batches(batch_size=5)):
                seen += batch["id"].tolist()
                if epoch == 0 and number + 1 == stops_at:
                    break
            found.append(seen)
        return found


def slow(batch: dict[str, Any]) -> dict[str, Any]:
    time.sleep(0.02)  # so that no consumer takes all before the others have begun
    return batch


@pytest.mark.parametrize("equal", [False, True])
def test_consumers_share_each_epoch(equal: bool) -> None:
    ds = data.range(103, override_num_blocks=12).map_batches(slow)
    splits = ds.streaming_split(3, equal=equal)
    consumers = [Consumer.remote(one) for one in splits]
    found = umbel.get([one.epochs.remote(2) for one in consumers])
    for epoch in range(2):
        everything = sorted(value for one in found for value in one[epoch])
        if equal:
            assert [len(one[epoch]) for one in found] == [34, 34, 34]
            assert len(set(everything)) == 102
        else:
            assert everything == list(range(103))
    assert "total:" in str(splits[0].stats())
    assert splits[0].schema() is not None
    with pytest.raises(ValueError, match="depends on how quick"):
        splits[0].state_dict()


def test_consumer_that_leaves_early_holds_nobody_up() -> None:
    splits = data.range(200, override_num_blocks=20).map_batches(slow).streaming_split(2)
    consumers = [Consumer.remote(one) for one in splits]
    early, late = umbel.get([consumers[0].epochs.remote(2, 1), consumers[1].epochs.remote(2)])
    assert len(early[0]) == 5
    assert sorted(early[1] + late[1]) == list(range(200))


def test_error_comes_to_every_consumer() -> None:
    splits = data.range(40, override_num_blocks=4).map(fails_on_tens).streaming_split(2)
    consumers = [Consumer.remote(one) for one in splits]
    for ref in [one.epochs.remote(1) for one in consumers]:
        with pytest.raises(ValueError, match="is a ten"):
            umbel.get(ref)


def test_consumer_that_does_not_come_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    context = data.DataContext.get_current().copy()
    context.split_wait_s = 1.0
    with data.DataContext.current(context):
        ds = data.range(40, override_num_blocks=4)
    monkeypatch.setattr(split_streams, "TOLD_EVERY_S", 0.2)
    coordinator = split_streams.Coordinator(ds._with(splits_node(ds, 3)))
    sources = [split_streams.SplitSource(Local(coordinator), number, ds, 1.0) for number in range(3)]
    mine = [iterators.DataIterator(one) for one in sources]
    found = [row["id"] for one in mine[:2] for row in one.iter_rows()]
    with pytest.raises(TimeoutError, match=r"consumer 0 of a streaming_split has waited .* for consumers 2"):
        [*mine[0].iter_rows()]
    assert "for consumers 2, who take no blocks" in caplog.text
    found += [row["id"] for row in mine[2].iter_rows()]  # it has come at last, and gets what was kept for it
    assert sorted(found) == list(range(40))
    assert sorted(row["id"] for one in mine for row in one.iter_rows()) == list(range(40))


def splits_node(ds: data.Dataset, count: int) -> Any:
    from umbel.data._plan import logical

    return logical.Split(input=ds._node, count=count)


class Local:
    """A handle whose actor is an object of this process."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._actor, name)
        return type("Method", (), {"remote": staticmethod(lambda *given: umbel.put(method(*given)))})


# ---- iterating ----


def test_an_iteration_that_is_given_up_ends_its_tasks_and_goes_on_elsewhere() -> None:
    ds = data.range(2000, override_num_blocks=40).map_batches(slow)
    it = ds.iterator()
    seen = []
    for batch in it.iter_batches(batch_size=64):
        seen += batch["id"].tolist()
        if len(seen) >= 640:
            break
    state = it.state_dict()
    assert state == {"version": 1, "epoch": 0, "rows": 640}

    @umbel.remote
    def goes_on(it: data.DataIterator) -> list[int]:
        it.load_state_dict(state)
        return [row["id"] for row in it.iter_rows()]

    assert seen + umbel.get(goes_on.remote(ds.iterator())) == list(range(2000))


def test_schema_is_found_by_one_block() -> None:
    ds = data.range(1000, override_num_blocks=50).map(lambda row: {"x": row["id"]})
    assert ds.schema(fetch_if_missing=False) is None
    assert ds.columns() == ["x"]
    assert ds.schema(fetch_if_missing=False) is not None  # it is kept
