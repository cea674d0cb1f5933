"""Users' functions between the blocks that come and those that go."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from umbel.data._engine import task_context
from umbel.data._plan import awaiting, calls, failing, functions

TABLE = pa.table({"a": pa.array([1, 2, 3, 4, 5], pa.int32())})


@pytest.fixture
def context() -> Iterator[task_context.TaskContext]:
    made = task_context.TaskContext("stage", input_files=("f.csv",))
    token = task_context.enter(made)
    yield made
    task_context.leave(token)


def values(tables: Any) -> list[int]:
    return [value for table in tables for value in table["a"].to_pylist()]


def rows(kind: str, call: Any, on_error: str = "raise", **arguments: Any) -> functions.RowCalls:
    return functions.RowCalls("Map(f)", calls.Function(call, **arguments), kind, on_error)


def batches(call: Any, batch_size: Any = None, batch_format: Any = "numpy", **options: Any) -> functions.BatchCalls:
    on_error = options.pop("on_error", "raise")
    zero_copy = options.pop("zero_copy", True)
    function = calls.Function(call, **options)
    return functions.BatchCalls("MapBatches(f)", function, batch_size, batch_format, zero_copy, on_error)


def through(transform: Callable[[Iterator[pa.Table]], Iterator[pa.Table]], *tables: pa.Table) -> Iterator[pa.Table]:
    return transform(iter(tables or (TABLE.slice(0, 2), TABLE.slice(2))))


# ---- kinds of functions ----


async def later(row: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0.001 * (5 - row["a"]))  # the last is ready first
    return {"a": row["a"] * 10}


async def several(row: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    for at in range(row["a"]):
        await asyncio.sleep(0)
        yield {"a": row["a"] * 10 + at}


def test_coroutines_run_at_once_and_keep_the_order() -> None:
    assert values(through(rows("map", later))) == [10, 20, 30, 40, 50]


def test_flat_map_takes_lists_generators_and_asynchronous_generators() -> None:
    expected = [10, 20, 21, 30, 31, 32]
    table = TABLE.slice(0, 3)
    assert values(through(rows("flat_map", several), table)) == expected
    assert (
        values(through(rows("flat_map", lambda row: [{"a": row["a"] * 10 + n} for n in range(row["a"])]), table))
        == expected
    )
    assert (
        values(through(rows("flat_map", lambda row: ({"a": row["a"] * 10 + n} for n in range(row["a"]))), table))
        == expected
    )


def test_of_an_endless_generator_only_what_is_wanted_is_made() -> None:
    made: list[int] = []

    async def endless(batch: Any) -> AsyncIterator[Any]:
        for at in itertools.count():
            made.append(at)
            yield {"a": np.array([at])}

    stream = through(batches(endless))
    assert values(itertools.islice(stream, 4)) == [0, 1, 2, 3]
    stream.close()  # type: ignore[attr-defined]
    assert len(made) <= 4 + awaiting.CONCURRENT_CALLS * (awaiting.ITEMS_AHEAD + 2)


def test_error_of_an_asynchronous_generator_comes_behind_its_items() -> None:
    async def fails(batch: Any) -> AsyncIterator[Any]:
        yield batch
        raise OSError("gone")

    stream = through(batches(fails), TABLE)
    assert values([next(stream)]) == [1, 2, 3, 4, 5]
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_generators_of_batches() -> None:
    def halves(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"a": batch["a"][:1]}
        yield {"a": batch["a"][1:]}

    assert values(through(batches(halves))) == [1, 2, 3, 4, 5]


def test_a_class_is_made_with_its_arguments_and_called_with_others() -> None:
    class Scaled:
        def __init__(self, by: int, *, plus: int) -> None:
            self.by, self.plus = by, plus

        def __call__(self, row: dict[str, Any], minus: int, *, times: int) -> dict[str, Any]:
            return {"a": (row["a"] * self.by + self.plus - minus) * times}

    made = rows("map", Scaled, constructor_args=(2,), constructor_kwargs={"plus": 1}, args=(3,), kwargs={"times": 10})
    assert values(through(made)) == [0, 20, 40, 60, 80]


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "polars", "pyarrow", None])
def test_types_stay_what_they_were(batch_format: Any) -> None:
    if batch_format in ("pandas", "polars"):
        pytest.importorskip(batch_format)
    table = pa.table({"a": pa.array([1, None, 3], pa.int16())})
    (found,) = through(batches(lambda batch: batch, batch_format=batch_format), table)
    assert found.equals(table)


TYPED = pa.table(
    {
        "i8": pa.array([1, None, 3], pa.int8()),
        "u16": pa.array([7, 8, 9], pa.uint16()),
        "f32": pa.array([0.1, 2.5, None], pa.float32()),
        "wide": pa.array([Decimal("1.20"), None, Decimal("3")], pa.decimal128(20, 4)),
        "ns": pa.array([1, None, 3], pa.timestamp("ns", "Europe/Berlin")),
        "word": pa.array(["x", "y", "x"]).dictionary_encode(),
        "many": pa.array([[1], None, []], pa.list_(pa.int16())),
        "large": pa.array(["p", "q", None], pa.large_string()),
        "pair": pa.array([{"a": 1}, {"a": 2}, None], pa.struct([("a", pa.int8())])),
        "none": pa.array([None, None, None], pa.int32()),
        "plain": pa.array([None, None, None], pa.int64()),
        "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int16())),
    }
)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_columns_that_rows_hand_on_keep_their_types(on_error: str, context: task_context.TaskContext) -> None:
    pytest.importorskip("pandas")  # for values of nanoseconds
    (same,) = through(rows("map", lambda row: row, on_error), TYPED)
    assert same.equals(TYPED)
    (twice,) = through(rows("flat_map", lambda row: [{**row}, {**row}], on_error), TYPED)
    assert twice.equals(TYPED.take([0, 0, 1, 1, 2, 2]))
    (of_both,) = through(rows("map", lambda row: {**row, "new": 1}, on_error), TYPED.slice(0, 1), TYPED.slice(1))
    assert of_both.equals(TYPED.append_column("new", pa.array([1, 1, 1])))


def test_columns_that_rows_compute_have_the_type_of_their_values() -> None:
    pytest.importorskip("pandas")  # for values of nanoseconds

    def changed(row: dict[str, Any]) -> dict[str, Any]:
        row["i8"] = row["u16"] * 1000
        row["many"] = [*(row["many"] or ()), 0.5]
        row["u16"] = row["u16"] if row["u16"] == 7 else 100_000
        return {name: row[name] for name in ("i8", "many", "u16", "f32")}

    (found,) = through(rows("map", changed), TYPED)
    assert found.to_pydict() == {
        "i8": [7000, 8000, 9000],
        "many": [[1.0, 0.5], [0.5], [0.5]],
        "u16": [7, 100_000, 100_000],
        "f32": TYPED["f32"].to_pylist(),
    }
    assert found.schema.types == [pa.int64(), pa.list_(pa.float64()), pa.int64(), pa.float32()]
    (mutated,) = through(rows("map", _with_a_word), TYPED.select(["many"]).slice(2))
    assert mutated.equals(pa.table({"many": [["word"]]}))


def _with_a_word(row: dict[str, Any]) -> dict[str, Any]:
    row["many"].append("word")
    return row


def test_a_column_of_two_types_is_handed_on_with_that_of_its_values() -> None:
    (found,) = through(rows("map", lambda row: row), pa.table({"a": pa.array([1], pa.int8())}), TABLE.slice(4))
    assert found.equals(pa.table({"a": [1, 5]}))
    missing = [pa.table({"a": pa.array([1], pa.int8())}), pa.table({"b": ["x"]})]
    (found,) = through(rows("map", lambda row: {"a": 1, **row}), *missing)
    assert found.equals(pa.table({"a": [1, 1], "b": [None, "x"]}))


# ---- what is given out stays as it was ----


class Buffers:
    """Gives out the same arrays again and again, each time with other values."""

    def __init__(self) -> None:
        self.one = np.zeros(8, np.int64)
        self.many = np.zeros((8, 2))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        count = len(batch["a"])
        self.one[:count] = batch["a"]
        self.many[:count] = batch["a"][:, None]
        shown = self.one[:count]
        shown.flags.writeable = False
        return {"a": self.one[:count], "b": self.many[:count], "c": shown}


def test_a_buffer_that_is_used_again_changes_nothing_that_was_given() -> None:
    found = pa.concat_tables(list(through(batches(Buffers, batch_size=2))))
    expected = np.arange(1, 6)
    assert found["a"].to_pylist() == found["c"].to_pylist() == expected.tolist()
    assert [one.to_numpy_ndarray().tolist() for one in found["b"].chunks] == [
        [[1, 1], [2, 2]],
        [[3, 3], [4, 4]],
        [[5, 5]],
    ]

    def one_after_the_other(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        buffer, row = np.zeros(1, np.int64), {}
        for value in batch["a"]:
            buffer[:] = value
            row["a"] = buffer
            yield row

    assert values([*through(batches(one_after_the_other))]) == expected.tolist()

    def frames(batch: Any) -> Iterator[Any]:
        frame = batch.iloc[:1].copy()
        for value in batch["a"]:
            frame.iloc[0, 0] = value
            yield frame

    pytest.importorskip("pandas")
    assert values([*through(batches(frames, batch_format="pandas"))]) == expected.tolist()


def test_a_tensor_that_is_used_again_changes_nothing_that_was_given() -> None:
    torch = pytest.importorskip("torch")
    kept = torch.zeros(2, dtype=torch.int64)

    def filled(batch: dict[str, Any]) -> dict[str, Any]:
        kept[: len(batch["a"])] = batch["a"]
        return {"a": kept[: len(batch["a"])]}

    assert values([*through(batches(filled, batch_size=2, batch_format="torch"))]) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_row_that_is_used_again_changes_nothing_that_was_given(
    on_error: str, context: task_context.TaskContext
) -> None:
    def growing(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        made: dict[str, Any] = {"array": np.zeros(2), "list": []}
        for at in range(2):
            made["a"] = row["a"] * 10 + at
            made["array"][:] = at
            made["list"].append(at)
            yield made

    (found,) = through(rows("flat_map", growing, on_error), TABLE.slice(0, 2))
    assert found.drop_columns(["array"]).to_pydict() == {"list": [[0], [0, 1]] * 2, "a": [10, 11, 20, 21]}
    assert found["array"].chunk(0).to_numpy_ndarray().tolist() == [[0, 0], [1, 1]] * 2


def test_arrays_that_nobody_else_holds_are_not_copied() -> None:
    seen: list[int] = []

    def fresh(batch: dict[str, Any]) -> dict[str, Any]:
        made = batch["a"] * 2
        seen.append(made.ctypes.data)
        return {"a": made, "b": np.stack([made, made], 1)[:, :1]}

    (found,) = through(batches(fresh), TABLE)
    assert found["a"].chunk(0).buffers()[1].address == seen[0]


def test_batches_can_be_written_to_if_asked_for() -> None:
    def adds(batch: dict[str, Any]) -> dict[str, Any]:
        batch["a"] += 1
        return batch

    assert values(through(batches(adds, zero_copy=False))) == [2, 3, 4, 5, 6]
    assert TABLE["a"].to_pylist() == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="read-only"):
        values(through(batches(adds)))


def test_size_of_batches_by_bytes() -> None:
    seen: list[int] = []
    wide = pa.table({"a": pa.array(range(40), pa.int64()), "b": pa.array(["x" * (1 << 20)] * 40)})

    def looks(batch: pa.Table) -> pa.Table:
        seen.append(batch.num_rows)
        return batch.select(["a"])

    found = through(batches(looks, "auto", "pyarrow"), wide.slice(0, 0), wide.slice(0, 25), wide.slice(25))
    assert values(found) == list(range(40))
    assert seen == [15, 15, 10]


# ---- mistakes ----


def test_what_is_no_row_is_told_with_the_operator() -> None:
    with pytest.raises(TypeError, match=r"Map\(f\): a row is a mapping .* returned 7 of type int"):
        values(through(rows("map", lambda row: 7)))
    with pytest.raises(TypeError, match="a list of rows for each row"):
        values(through(rows("flat_map", lambda row: {"a": 1})))
    with pytest.raises(TypeError, match="returns whether a row is kept; it is a generator"):
        values(through(rows("filter", lambda row: (one for one in ()))))


def test_what_is_no_batch_is_told_with_the_operator() -> None:
    with pytest.raises(TypeError, match=r"MapBatches\(f\) returned what cannot be a batch: it is a list"):
        values(through(batches(lambda batch: [1, 2])))
    with pytest.raises(TypeError, match="is there a return statement missing"):
        values(through(batches(lambda batch: None)))
    with pytest.raises(ValueError, match="unequal lengths"):
        values(through(batches(lambda batch: {"a": [1], "b": [1, 2]})))


def fails_on_three(row: dict[str, Any]) -> Any:
    if row["a"] == 3:
        raise KeyError("three")
    return row


def test_an_error_says_on_which_row_it_was() -> None:
    with pytest.raises(KeyError) as caught:
        values(through(rows("map", fails_on_three)))
    notes = getattr(caught.value, "__notes__", ["(in Map(f), on row {'a': 3})"])  # Python 3.10 has none
    assert notes == ["(in Map(f), on row {'a': 3})"]


# ---- rows that are left out ----


async def fails_later(row: dict[str, Any]) -> Any:
    await asyncio.sleep(0)
    return fails_on_three(row)


def gives_then_fails(row: dict[str, Any]) -> Iterator[Any]:
    yield row
    fails_on_three(row)


async def gives_then_fails_later(row: dict[str, Any]) -> AsyncIterator[Any]:
    yield row
    fails_on_three(row)


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("map", fails_on_three),
        ("map", fails_later),
        ("map", lambda row: row if row["a"] != 3 else "no row"),
        ("filter", fails_on_three),
        ("filter", fails_later),
        ("flat_map", gives_then_fails),
        ("flat_map", gives_then_fails_later),
    ],
)
@pytest.mark.parametrize("on_error", ["skip", "collect"])
def test_rows_on_which_a_function_fails_are_left_out(
    context: task_context.TaskContext, kind: str, call: Any, on_error: str
) -> None:
    assert values(through(rows(kind, call, on_error))) == [1, 2, 4, 5]
    assert context.failed_counts == {"Map(f)": 1}
    if on_error == "skip":
        assert context.failed == []
        return
    (failed,) = context.failed
    assert failed.schema == pa.schema([("a", pa.int32()), (failing.COLUMN, failing.TYPE)])
    (row,) = failed.to_pylist()
    told = row["_error"]
    assert row["a"] == 3
    assert (told["operator"], told["input_files"]) == ("Map(f)", ["f.csv"])
    assert told["type"] in ("KeyError", "TypeError")
    if told["type"] == "KeyError":
        assert told["message"] == "'three'"
        assert "in fails_on_three" in told["traceback"]
        assert "/_plan/" not in told["traceback"]


def test_batches_on_which_a_function_fails_are_left_out_whole(context: task_context.TaskContext) -> None:
    def fails(batch: dict[str, Any]) -> Iterator[Any]:
        yield batch
        if 3 in batch["a"]:
            raise ValueError("three")

    assert values(through(batches(fails, 2, on_error="collect"))) == [1, 2, 5]
    (failed,) = context.failed
    assert failed["a"].to_pylist() == [3, 4]
    assert failed.schema.field("a").type == pa.int32()
    assert context.failed_counts == {"MapBatches(f)": 2}


def test_where_all_rows_fail_it_is_not_the_rows(context: task_context.TaskContext) -> None:
    def fails(row: Any) -> Any:
        raise OSError("no network")

    table = pa.table({"a": pa.array(range(failing.COLLECTED_MAX + 1))})
    with pytest.raises(OSError, match="no network"):
        values(through(rows("map", fails, "collect"), table))
    assert values(through(rows("map", fails, "skip"), table)) == []
