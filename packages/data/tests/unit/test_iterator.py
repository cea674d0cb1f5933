"""Iterating again and again, and going on where another process was."""

from __future__ import annotations

import functools
import gc
import threading
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel import data
from umbel.data import block, collate_fn, expressions
from umbel.data.expressions import col


def cut(count: int, *sizes: int) -> data.Dataset:
    table, tables, at = pa.table({"id": pa.array(range(count), pa.int64())}), [], 0
    for size in sizes:
        tables.append(table.slice(at, size))
        at += size
    return data.from_blocks([*tables, table.slice(at)])


def values(batches: Any) -> list[int]:
    return [value for batch in batches for value in batch["id"].tolist()]


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    st.integers(1, 40),
    st.lists(st.integers(0, 9), max_size=4),
    st.lists(st.integers(0, 9), max_size=4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(0, 9),
    st.integers(0, 2),
    st.sampled_from([None, 7]),
)
def test_an_iteration_goes_on_just_behind_what_was_given_out(
    count: int,
    sizes: list[int],
    others: list[int],
    size: int,
    other_size: int,
    taken: int,
    prefetch: int,
    mixed: int | None,
) -> None:
    """The blocks and the batches may be cut otherwise; with a local shuffle, which goes by blocks, they are the same."""
    options: dict[str, Any] = {"prefetch_batches": prefetch}
    if mixed is not None:
        others, other_size = sizes, size
        options |= {"local_shuffle_buffer_size": mixed, "local_shuffle_seed": 1}
    before = cut(count, *sizes).iterator()
    whole = [values(before.iter_batches(batch_size=size, **options)) for _ in range(2)]
    before = cut(count, *sizes).iterator()
    assert values(before.iter_batches(batch_size=size, **options)) == whole[0]
    seen: list[int] = []
    for number, batch in enumerate(before.iter_batches(batch_size=size, **options)):
        if number == taken:
            break
        seen += batch["id"].tolist()
        state = before.state_dict()
    else:
        state = before.state_dict()
    if not seen:
        return
    after = cut(count, *others).iterator()
    after.load_state_dict(state)
    rest = values(after.iter_batches(batch_size=other_size, **options))
    if state["epoch"] == 1:
        assert seen + rest == whole[1]
    else:
        assert (state, sorted(seen)) == ({"version": 1, "epoch": 2, "rows": 0}, list(range(count)))


def test_state_says_which_epoch_it_is_and_how_many_rows_were_given_out() -> None:
    it = data.range(10).iterator()
    assert it.state_dict() == {"version": 1, "epoch": 0, "rows": 0}
    rows = iter(it.iter_rows())
    next(rows), next(rows)
    assert it.state_dict() == {"version": 1, "epoch": 0, "rows": 2}
    del rows
    assert it.state_dict() == {"version": 1, "epoch": 0, "rows": 2}  # where the latest is, if it was given up
    assert len([*it.iter_rows()]) == 10  # a new epoch, from its beginning
    assert it.state_dict() == {"version": 1, "epoch": 2, "rows": 0}


def test_what_is_drawn_anew_each_epoch_is_drawn_again_after_going_on() -> None:
    ds = cut(10, 4).with_column("r", expressions.random(seed=3))
    it = ds.iterator()
    first = [row["r"] for row in it.iter_rows()]
    second = [row["r"] for row in it.iter_rows()]
    assert first != second
    again = cut(10, 4).with_column("r", expressions.random(seed=3)).iterator()
    again.load_state_dict({"version": 1, "epoch": 1, "rows": 6})
    assert [row["r"] for row in again.iter_rows()] == second[6:]


def test_where_another_run_gives_other_rows_there_is_no_state() -> None:
    for ds, message in (
        (data.range(9).random_shuffle(), "RandomShuffle has no seed"),
        (data.range(9).random_sample(0.5).filter(expr=col("id") > 1), "Sample has no seed"),
        (data.range(9).repartition(2, shuffle=True), r"repartition\(shuffle=True\) has no seed"),
    ):
        with pytest.raises(ValueError, match=message):
            ds.iterator().state_dict()
        with pytest.raises(ValueError, match=message):
            ds.iterator().load_state_dict({"version": 1, "epoch": 0, "rows": 1})
    seeded = data.range(9).random_shuffle(seed=1).iterator()
    for bad in ({}, {"version": 2, "epoch": 0, "rows": 0}, {"version": 1, "epoch": -1, "rows": 0}):
        with pytest.raises(ValueError, match="a state is what state_dict"):
            seeded.load_state_dict(bad)
    unseeded = data.range(9).iterator()
    unseeded.load_state_dict({"version": 1, "epoch": 0, "rows": 2})
    with pytest.raises(ValueError, match="local_shuffle_seed"):
        [*unseeded.iter_batches(local_shuffle_buffer_size=3)]


def test_each_epoch_is_mixed_another_way() -> None:
    it = cut(50, 20).iterator()
    options: dict[str, Any] = {"local_shuffle_buffer_size": 20, "local_shuffle_seed": 4}
    first, second = values(it.iter_batches(**options)), values(it.iter_batches(**options))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert values(cut(50, 20).iterator().iter_batches(**options)) == first


def test_a_dataset_that_is_iterated_over_again_is_in_another_epoch() -> None:
    ds = cut(50, 20)
    options: dict[str, Any] = {"local_shuffle_buffer_size": 20, "local_shuffle_seed": 4}
    assert values(ds.iter_batches(**options)) != values(ds.iter_batches(**options))


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "umbel-data-batches"]


@pytest.mark.parametrize("how", ["break", "drop", "close", "error", "end"])
def test_the_thread_that_makes_batches_ends_with_the_iteration(how: str) -> None:
    batches = iter(cut(1000).iterator().iter_batches(batch_size=1, prefetch_batches=3))
    next(batches)
    assert len(threads()) == 1
    if how == "break":
        for _ in batches:
            break
        del batches
    elif how == "drop":
        del batches
    elif how == "close":
        batches.close()  # type: ignore[attr-defined]
    elif how == "error":
        with pytest.raises(RuntimeError):
            batches.throw(RuntimeError())  # type: ignore[attr-defined]
    else:
        assert len([*batches]) == 999
    gc.collect()
    assert threads() == []


def test_error_of_the_thread_comes_to_whoever_iterates() -> None:
    ds = cut(10).with_column("x", lit_over_zero())
    with pytest.raises(ZeroDivisionError):
        [*ds.iter_batches(prefetch_batches=2)]
    assert threads() == []


class Waiting(data.Datasource):
    """Parts of one row, each of which is not made before the one in front of it was given out."""

    def __init__(self, count: int) -> None:
        self.given_out = [threading.Event() for _ in range(count)]

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[data.ReadTask]:
        known = block.BlockMetadata(num_rows=1, size_bytes=8)
        return [data.ReadTask(functools.partial(self._part, at), known) for at in range(len(self.given_out))]

    def _part(self, at: int) -> list[pa.Table]:
        if at and not self.given_out[at - 1].wait(10):
            raise TimeoutError(f"part {at - 1} was never given out")
        return [pa.table({"id": [at]})]


@pytest.mark.parametrize("prefetch", [1, 5])
def test_a_batch_is_given_out_while_the_next_one_is_made(prefetch: int) -> None:
    source = Waiting(20)
    found = []
    for batch in data.read_datasource(source).iter_batches(batch_size=1, prefetch_batches=prefetch):
        found += batch["id"].tolist()
        source.given_out[found[-1]].set()
    assert found == [*range(20)]


def lit_over_zero() -> expressions.Expr:
    return col("id") // (col("id") - 5)


class Counted(data.Datasource):
    """Ten parts of ten rows each, which say when they are read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[data.ReadTask]:
        return [
            data.ReadTask(functools.partial(self._part, at), block.BlockMetadata(num_rows=10, size_bytes=80))
            for at in range(10)
        ]

    def _part(self, at: int) -> list[pa.Table]:
        self.read.append(at)
        return [pa.table({"id": pa.array(range(10 * at, 10 * at + 10), pa.int64())})]


def test_parts_that_were_given_out_are_not_read_again() -> None:
    source = Counted()
    it = data.read_datasource(source).with_column("id", col("id") + 1).iterator()
    it.load_state_dict({"version": 1, "epoch": 0, "rows": 73})
    assert [row["id"] for row in it.iter_rows()] == list(range(74, 101))
    assert source.read == [7, 8, 9]
    filtered = Counted()
    it = data.read_datasource(filtered).filter(expr=col("id") % 2 == 0).iterator()
    it.load_state_dict({"version": 1, "epoch": 0, "rows": 48})
    assert [row["id"] for row in it.iter_rows()] == [96, 98]
    assert filtered.read == list(range(10))  # how many rows of each were given out is not known


def test_last_batch_and_sizes() -> None:
    ds = cut(10, 3)
    assert [len(batch["id"]) for batch in ds.iter_batches(batch_size=4)] == [4, 4, 2]
    assert [len(batch["id"]) for batch in ds.iter_batches(batch_size=4, drop_last=True)] == [4, 4]
    assert [len(batch["id"]) for batch in ds.iter_batches(batch_size=None)] == [3, 7]
    for bad in (0, True, 1.5):
        with pytest.raises(ValueError, match="batch_size must be"):
            ds.iter_batches(batch_size=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="prefetch_batches must be"):
        ds.iter_batches(prefetch_batches=-1)


@pytest.mark.torch
def test_torch_batches() -> None:
    import torch

    ds = data.from_arrow(pa.table({"x": pa.array([1, 2, 3], pa.int64()), "y": pa.array([0.5, 1.5, 2.5], pa.float32())}))
    (batch,) = ds.iter_torch_batches(batch_size=None)
    assert (batch["x"].dtype, batch["y"].dtype) == (torch.int64, torch.float32)
    assert batch["x"].tolist() == [1, 2, 3]
    (batch,) = ds.iter_torch_batches(dtypes={"x": torch.float64})
    assert batch["x"].dtype == torch.float64
    (batch,) = ds.iter_torch_batches(collate_fn=lambda batch: torch.as_tensor(batch["x"].copy()) * 2, device="cpu")
    assert batch.tolist() == [2, 4, 6]
    with pytest.raises(KeyError, match="dtypes names 'z'"):
        [*ds.iter_torch_batches(dtypes={"z": torch.int64})]
    with pytest.raises(TypeError, match="has 1 nulls"):
        [*data.from_items([{"x": 1}, {"x": None}]).iter_torch_batches()]

    class Columns(collate_fn.ArrowBatchCollateFn):
        def __call__(self, batch: pa.Table) -> list[str]:
            return batch.column_names

    assert [*ds.iter_torch_batches(collate_fn=Columns())] == [["x", "y"]]
    it = ds.iterator()
    next(iter(it.iter_torch_batches(batch_size=2)))
    assert it.state_dict()["rows"] == 2
