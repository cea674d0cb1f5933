from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import kernel_tables
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_aggregate import assert_alike, extreme, known, mean, total

from umbel.data._blocks import windows

Function = windows.Function
REDUCTIONS: dict[str, tuple[Callable[[list[Any]], Any], list[str]]] = {
    "sum": (total, ["int8", "float32", "bool", "decimal", "long_decimal", "decimal256"]),
    "mean": (mean, kernel_tables.NUMERIC),
    "min": (extreme(min), kernel_tables.SORTABLE),
    "max": (extreme(max), kernel_tables.SORTABLE),
}
BOUNDS = st.none() | st.integers(-2, 4)


def partitions(table: pa.Table, names: list[str], order: list[int]) -> list[list[int]]:
    """The rows of each partition, in order."""
    keys = kernel_tables.keys_of(table, names)
    found: dict[Any, list[int]] = {}
    for row in order:
        found.setdefault(keys[row], []).append(row)
    return list(found.values())


def framed(rows: list[int], place: int, frame: windows.Frame) -> list[int]:
    before, after = frame
    low = 0 if before is None else max(place - before, 0)
    high = len(rows) if after is None else max(place + after + 1, 0)
    return rows[low:high]


@kernel_tables.checked(45)
@given(
    kernel_tables.tables(kernel_tables.SORTABLE, column_count=3),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(1, 4),
    st.tuples(BOUNDS, BOUNDS),
)
def test_functions_of_place_are_those_of_plain_python(
    table: pa.Table, is_descending: bool, offset: int, buckets: int, frame: windows.Frame
) -> None:
    order = kernel_tables.sorted_rows(table, ["b"], [is_descending])
    functions = [
        Function(kind="row_number", name="row_number"),
        Function(kind="rank", name="rank"),
        Function(kind="dense_rank", name="dense_rank"),
        Function(kind="ntile", name="ntile", buckets=buckets),
        Function(kind="lag", name="lag", on="row", offset=offset),
        Function(kind="lead", name="lead", on="row", offset=offset, default=-1),
        Function(kind="first_value", name="first_value", on="c", frame=frame),
        Function(kind="last_value", name="last_value", on="c", frame=frame),
        Function(kind="count", name="count", on="c", frame=frame),
        Function(kind="count", name="rows", frame=frame),
    ]
    expected: dict[str, list[Any]] = {function.name: [None] * table.num_rows for function in functions}
    keys, values = kernel_tables.keys_of(table, ["b"]), table.column("c").to_pylist()
    for rows in partitions(table, ["a"], order):
        own = [keys[row] for row in rows]
        least, larger = divmod(len(rows), buckets)
        tiles = [tile for tile in range(buckets) for _ in range(least + (tile < larger))]
        for place, row in enumerate(rows):
            inner = framed(rows, place, frame)
            found = {
                "row_number": place + 1,
                "rank": own.index(own[place]) + 1,
                "dense_rank": len(set(own[: place + 1])),
                "ntile": tiles[place] + 1,
                "lag": rows[place - offset] if 0 <= place - offset < len(rows) else None,
                "lead": rows[place + offset] if 0 <= place + offset < len(rows) else -1,
                "first_value": values[inner[0]] if inner else None,
                "last_value": values[inner[-1]] if inner else None,
                "count": len(known([values[inner_row] for inner_row in inner])),
                "rows": len(inner),
            }
            for name, value in found.items():
                expected[name][row] = value
    result = windows.window(table, ["a"], ["b"], functions, descending=is_descending)
    assert kernel_tables.rows(result.select(table.column_names)) == kernel_tables.rows(table)
    for name, column in expected.items():
        assert kernel_tables.normal(result.column(name).to_pylist()) == kernel_tables.normal(column)


@pytest.mark.parametrize("kind", REDUCTIONS)
@kernel_tables.checked(45)
@given(data=st.data())
def test_frames_reduce_as_plain_python_does(kind: str, data: st.DataObject) -> None:
    reference, pools = REDUCTIONS[kind]
    table = data.draw(kernel_tables.tables(pools))
    table = table.set_column(0, "a", pa.array([row % 5 == 0 for row in range(table.num_rows)], pa.bool_()))
    frame = data.draw(st.tuples(BOUNDS, BOUNDS) | st.sampled_from([windows.WHOLE, (None, 0), (2, 0)]))
    min_count = data.draw(st.integers(0, 3))
    function = Function(kind=kind, name="found", on="b", frame=frame, min_count=min_count)
    found = windows.window(table, ["a"], ["row"], [function], descending=True).column("found").to_pylist()
    values = table.column("b").to_pylist()
    for rows in partitions(table, ["a"], list(range(table.num_rows))[::-1]):
        for place, row in enumerate(rows):
            inner = known([values[inner_row] for inner_row in framed(rows, place, frame)])
            assert_alike(found[row], reference(inner) if len(inner) >= max(min_count, 1) else None)


def test_a_sum_forgets_what_has_left_its_frame() -> None:
    values = [1e300, 1.0, 2.0, math.inf, 3.0, 4.0, math.nan, 5.0, 6.0]
    function = Function(kind="sum", name="s", on="v", frame=(1, 0))
    found = windows.window(pa.table({"v": values}), [], [], [function]).column("s").to_pylist()
    assert kernel_tables.normal(found) == (1e300, 1e300, 3.0, math.inf, math.inf, 7.0, "NaN", "NaN", 11.0)


def test_sums_of_integers_are_exact_or_an_error() -> None:
    most = 2**63 - 1
    table = pa.table({"v": [most, -most, most, most]})
    running = Function(kind="sum", name="s", on="v", frame=(None, 0))
    assert windows.window(table.slice(0, 3), [], [], [running]).column("s").to_pylist() == [most, 0, most]
    with pytest.raises(OverflowError, match="s: a sum does not fit into int64"):
        windows.window(table, [], [], [running])


def test_a_result_takes_the_place_of_a_column_of_its_name() -> None:
    function = Function(kind="lag", name="v", on="v")
    found = windows.window(pa.table({"k": [1, 1, 2], "v": ["a", "b", "c"]}), ["k"], [], [function])
    assert found.to_pydict() == {"k": [1, 1, 2], "v": [None, "a", None]}


def test_duckdb_agrees() -> None:
    duckdb = pytest.importorskip("duckdb")
    import numpy as np

    chance = np.random.default_rng(11)
    values = chance.integers(-100, 100, 400)
    table = pa.table(
        {"k": chance.integers(0, 5, 400), "o": chance.permutation(400), "v": pa.array(values, mask=values > 80)}
    )
    kinds = {"sum": "sum", "mean": "avg", "min": "min", "max": "max", "count": "count", "first_value": "first_value"}
    frames = {
        (3, 0): "3 preceding and current row",
        (None, 0): "unbounded preceding and current row",
        (1, 2): "1 preceding and 2 following",
    }
    functions, columns = [], []
    for kind, theirs in kinds.items():
        for frame, words in frames.items():
            functions.append(Function(kind=kind, name=f"{kind}{frame}", on="v", frame=frame))
            columns.append(f"{theirs}(v) over (partition by k order by o rows between {words})")
    for kind in ("row_number", "rank", "dense_rank"):
        functions.append(Function(kind=kind, name=kind))
        columns.append(f"{kind}() over (partition by k order by o)")
    functions.append(Function(kind="ntile", name="ntile", buckets=7))
    columns.append("ntile(7) over (partition by k order by o)")
    found = windows.window(table, ["k"], ["o"], functions).sort_by("o").drop_columns(["k", "o", "v"])
    with duckdb.connect() as connection:
        connection.register("t", table)
        rows = connection.execute(f"select {', '.join(columns)} from t order by o").fetchall()
    assert list(zip(*found.to_pydict().values(), strict=True)) == [pytest.approx(row) for row in rows]


def test_wrong_functions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a window function must be one of row_number, .*, got 'median'"):
        Function(kind="median", name="m", on="v")
    with pytest.raises(ValueError, match="m: sum needs a column, give on="):
        Function(kind="sum", name="m")
    with pytest.raises(ValueError, match="m: buckets must be at least 1, got 0"):
        Function(kind="ntile", name="m", buckets=0)
    table = pa.table({"text": ["a"]})
    with pytest.raises(TypeError, match="m: column 'text' has type string; a mean is of numbers"):
        windows.window(table, [], [], [Function(kind="mean", name="m", on="text")])
    with pytest.raises(KeyError, match="'txt' is not a column; did you mean 'text'"):
        windows.window(table, [], [], [Function(kind="lag", name="m", on="txt")])


@pytest.mark.parametrize("size", [0, 1])
def test_tables_without_rows_or_with_one_have_the_same_columns(size: int) -> None:
    table = pa.table({"k": ["a"], "v": pa.array([2], pa.int16())}).slice(0, size)
    kinds = ["row_number", "lag", "sum", "mean", "min", "count", "last_value"]
    functions = [Function(kind=kind, name=kind, on="v") for kind in kinds]
    found = windows.window(table, ["k"], ["v"], functions)
    assert found.schema.types[2:] == [
        pa.int64(),
        pa.int16(),
        pa.int64(),
        pa.float64(),
        pa.int16(),
        pa.int64(),
        pa.int16(),
    ]
    assert found.select(kinds).to_pylist() == [dict(zip(kinds, [1, None, 2, 2.0, 2, 1, 2], strict=True))] * size
