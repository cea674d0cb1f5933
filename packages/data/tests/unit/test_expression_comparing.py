"""Comparison is of values, whatever their types; logic is Kleene's."""

from __future__ import annotations

import datetime
import math
import operator
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import expression_tables as tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.data import expressions
from umbel.data._expressions import evaluate, typing
from umbel.data.expressions import col, lit

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
UINT64 = st.integers(0, 2**64 - 1) | st.sampled_from([2**63, 2**64 - 1, 2**53 + 1])
DECIMALS = st.decimals(-(10**6), 10**6, places=2)
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int64": (pa.int64(), tables.INT64),
    "uint64": (pa.uint64(), UINT64),
    "int8": (pa.int8(), tables.SMALL),
    "uint16": (pa.uint16(), st.integers(0, 2**16 - 1)),
    "float64": (pa.float64(), tables.FLOATS),
    "float32": (pa.float32(), st.floats(width=32) | tables.SMALL.map(float)),
    "bool": (pa.bool_(), st.booleans()),
}


@pytest.mark.parametrize("kind_b", KINDS)
@pytest.mark.parametrize("kind_a", KINDS)
@given(data=st.data(), layout=tables.layouts())
@settings(max_examples=12, deadline=None, database=None, derandomize=True)
def test_numbers_of_any_two_types_compare_as_in_python(kind_a: str, kind_b: str, data: Any, layout: Any) -> None:
    """Exactly: Python compares an integer and a float as what they are, and so does this."""
    (type_a, of_a), (type_b, of_b) = KINDS[kind_a], KINDS[kind_b]
    rows = data.draw(st.lists(st.tuples(st.none() | of_a, st.none() | of_b) | _equal_pair(of_a, kind_b), max_size=6))
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    table = tables.table(layout, a=pa.array(a, type_a), b=pa.array(b, type_b))
    for function in COMPARISONS.values():
        expected = tables.by_rows(function, a, b)
        assert tables.computed(function(col("a"), col("b")), table) == expected
        if b and b[0] is not None:  # with a value that is written
            assert tables.computed(function(col("a"), b[0]), table) == tables.by_rows(
                lambda one: function(one, b[0]), a
            )
            assert tables.computed(function(lit(b[0]), col("a")), table) == tables.by_rows(
                lambda one: function(b[0], one), a
            )


def _equal_pair(of: st.SearchStrategy[Any], kind: str) -> st.SearchStrategy[tuple[Any, Any]]:
    """Of nearly the same value: chance alone would hardly find any."""

    def near(value: Any) -> tuple[Any, Any]:
        if math.isnan(value) or math.isinf(value):
            return value, None
        if kind.startswith("float"):
            return value, float(np.clip(value, -3e38, 3e38).astype(np.float32)) if kind == "float32" else float(value)
        low, high = {
            "int64": (-(2**63), 2**63 - 1),
            "uint64": (0, 2**64 - 1),
            "int8": (-128, 127),
            "uint16": (0, 65535),
            "bool": (0, 1),
        }[kind]
        near = min(max(int(value), low), high)
        return value, bool(near) if kind == "bool" else near

    return of.map(near)


@given(rows=tables.pairs(DECIMALS, tables.SMALL | DECIMALS), layout=tables.layouts())
@settings(max_examples=30, deadline=None, database=None, derandomize=True)
def test_decimals_compare_exactly_with_each_other_and_with_integers(rows: list[tuple[Any, Any]], layout: Any) -> None:
    a, b = [row[0] for row in rows], [None if row[1] is None else Decimal(row[1]) for row in rows]
    whole = [None if one is None else int(one) for one in b]
    table = tables.table(
        layout,
        a=pa.array(a, pa.decimal128(38, 2)),
        b=pa.array(b, pa.decimal128(38, 20)),
        i=pa.array(whole, pa.int64()),
    )
    for function in COMPARISONS.values():
        assert tables.computed(function(col("a"), col("b")), table) == tables.by_rows(function, a, b)
        assert tables.computed(function(col("a"), col("i")), table) == tables.by_rows(function, a, whole)


def test_a_float_that_is_written_is_compared_with_a_decimal_as_it_is_written() -> None:
    table = pa.table({"d": pa.array([Decimal("0.05"), Decimal("0.07")], pa.decimal128(15, 2))})
    assert tables.computed(col("d").between(0.05, 0.07), table) == [True, True]
    assert tables.computed(col("d") == 0.05, table) == [True, False]
    assert tables.computed(col("d") > 0.0500000001, table) == [False, True]
    assert tables.computed(col("d") < math.inf, table) == [True, True]


def test_nan_equals_nothing_and_is_neither_less_nor_more() -> None:
    table = pa.table({"a": [math.nan, 1.0, None], "b": [math.nan, math.nan, math.nan]})
    found = {symbol: tables.computed(function(col("a"), col("b")), table) for symbol, function in COMPARISONS.items()}
    no, yes = [False, False, None], [True, True, None]
    assert found == {"==": no, "!=": yes, "<": no, "<=": no, ">": no, ">=": no}


@given(rows=tables.pairs(tables.TEXTS, tables.TEXTS), layout=tables.layouts())
@settings(max_examples=25, deadline=None, database=None, derandomize=True)
def test_strings_compare_by_their_characters(rows: list[tuple[Any, Any]], layout: Any) -> None:
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    table = tables.table(layout, a=pa.array(a, pa.string()).dictionary_encode(), b=pa.array(b, pa.large_string()))
    for function in COMPARISONS.values():
        assert tables.computed(function(col("a"), col("b")), table) == tables.by_rows(function, a, b)
        assert tables.computed(function(col("a"), "aB"), table) == tables.by_rows(
            lambda one, f=function: f(one, "aB"), a
        )


def test_times_compare_across_units_and_zones() -> None:
    at = datetime.datetime(2024, 5, 1, 12)
    table = pa.table(
        {
            "s": pa.array([at], pa.timestamp("s")),
            "us": pa.array([at], pa.timestamp("us")),
            "u": pa.array([at], pa.timestamp("s", "UTC")),
            "t": pa.array([at], pa.timestamp("us", "Asia/Tokyo")),
            "d": pa.array([at.date()], pa.date32()),
            "d64": pa.array([at.date()], pa.date64()),
            "x": pa.array([1], pa.time32("s")),
            "y": pa.array([1_000_000], pa.time64("us")),
        }
    )
    for expr in (
        col("s") == col("us"),
        col("u") == col("t"),
        col("d") < col("s"),
        col("d") == col("d64"),
        col("x") == col("y"),
        col("s") == at,
        col("u") == at.replace(tzinfo=datetime.timezone.utc),
        col("d") == at.date(),
        col("s") > at.date(),
        col("d") >= "2024-05-01",
        col("s") == "2024-05-01 12:00:00",
        col("t") == "2024-05-01 12:00:00Z",
        col("d").is_in(["2024-05-01"]),
        col("s").is_in([at]),
    ):
        assert tables.computed(expr, table) == [True], expr


@pytest.mark.parametrize(
    ("expr", "says"),
    [
        (col("s") > 1, "cannot compare string and int64"),
        (col("t") > col("z"), "one has a zone and the other has none"),
        (col("t") > "yesterday", "'yesterday' does not read as one"),
        (col("l") == col("l"), "compares no lists"),
        (col("i") == "1", "cannot compare int64 and string"),
        (col("i").is_in(["1"]), "takes values of that kind, got '1'"),
        (col("s").is_in([1]), "cannot compare string and int64"),
        (col("t").is_in(["yesterday"]), "takes values of that kind, got 'yesterday'"),
        ((col("i") > 1) & col("i"), "& takes booleans, got int64"),
        (col("i") | (col("i") > 1), r"\| takes booleans, got int64"),
    ],
    ids=repr,
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(expr: expressions.Expr, says: str) -> None:
    schema = pa.schema(
        [
            ("s", pa.string()),
            ("t", pa.timestamp("us")),
            ("z", pa.timestamp("us", "UTC")),
            ("l", pa.list_(pa.int64())),
            ("i", pa.int64()),
        ]
    )
    with pytest.raises(expressions.ExpressionTypeError, match=says):
        typing.field_of(expr, schema)


BOOLEANS = [True, False, None]


@pytest.mark.parametrize("layout", [tables.whole, tables.sliced, tables.chunked])
def test_logic_is_kleenes(layout: Any) -> None:
    rows = [(a, b) for a in BOOLEANS for b in BOOLEANS] * 3
    a, b = (pa.array([row[side] for row in rows], pa.bool_()) for side in (0, 1))
    table = tables.table(layout, a=a, b=b)

    def both(a: Any, b: Any) -> Any:
        return False if a is False or b is False else (None if a is None or b is None else True)

    assert tables.computed(col("a") & col("b"), table) == [both(a, b) for a, b in rows]
    assert tables.computed(col("a") | col("b"), table) == [
        True if a is True or b is True else (None if a is None or b is None else False) for a, b in rows
    ]
    assert tables.computed(~col("a"), table) == tables.by_rows(operator.not_, [a for a, _ in rows])
    assert tables.computed(True & col("a"), table) == [a for a, _ in rows]
    assert tables.computed(lit(None) | col("a"), table) == [a or None for a, _ in rows]


def test_the_right_side_is_not_computed_where_the_left_decides() -> None:
    table = pa.table({"a": [4, 4, 4, None], "b": [0, 2, None, 0]})
    assert tables.computed((col("b") != 0) & (col("a") // col("b") == 2), table) == [False, True, None, False]
    assert tables.computed((col("b") == 0) | (col("a") // col("b") == 2), table) == [True, True, None, True]
    with pytest.raises(expressions.ExpressionZeroDivisionError):
        evaluate.evaluate((col("a") // col("b") == 2) & (col("b") != 0), table)


@given(
    values=tables.values(tables.SMALL | tables.INT64),
    members=st.lists(tables.SMALL | st.none() | tables.INT64),
    layout=tables.layouts(),
)
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_is_in_is_a_chain_of_equals_and_none_stands_for_null(
    values: list[Any], members: list[Any], layout: Any
) -> None:
    table = tables.table(layout, a=pa.array(values, pa.int64()))
    expected = [None if one is None and None not in members else one in members for one in values]
    assert tables.computed(col("a").is_in(members), table) == expected
    assert tables.computed(col("a").not_in(members), table) == tables.by_rows(operator.not_, expected)


@pytest.mark.parametrize(
    ("column", "members", "expected"),
    [
        (pa.array([1, 2, None]), [1.0, 2.5, math.nan], [True, False, None]),
        (pa.array([2**53 + 1]), [2.0**53], [False]),
        (pa.array([1, 2**64 - 1], pa.uint64()), [-1, 2**64 - 1], [False, True]),
        (pa.array([1, 2**64 - 1], pa.uint64()), [2**64 - 1, 2**64], [False, True]),
        (pa.array([1.5, math.nan]), [1.5, math.nan], [True, False]),
        (pa.array([0.5, 0.1], pa.float32()), [0.5, 0.1], [True, False]),
        (pa.array([1, 200], pa.uint8()), [-1, 200, 10**15], [False, True]),
        (pa.array([Decimal("0.10")], pa.decimal128(5, 2)), [0.1], [True]),
        (pa.array([True, False]), [1], [True, False]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a"], [True, False]),
        (pa.array(["a", "b"], pa.large_string()), np.array(["b"]), [False, True]),
        (pa.array([1, 2]), pa.array([2], pa.int8()), [False, True]),
        (pa.array([1, None]), [], [False, None]),
        (pa.array([1, None]), [None], [False, True]),
        (pa.array([1, 2]), range(2), [True, False]),
    ],
    ids=lambda one: str(one.to_pylist() if isinstance(one, pa.Array) else one),
)
def test_members_are_compared_by_value(column: pa.Array, members: Any, expected: list[Any]) -> None:
    assert tables.computed(col("a").is_in(members), pa.table({"a": column})) == expected


def test_members_may_be_a_series() -> None:
    pandas = pytest.importorskip("pandas")
    table = pa.table({"a": [1, 2]})
    assert tables.computed(col("a").is_in(pandas.Series([2, 3])), table) == [False, True]
    assert tables.computed(col("a").cast(str).is_in(pandas.Series(["2"])), table) == [False, True]


def test_null_and_its_absence_are_never_null_themselves() -> None:
    values = ["a", None]
    for column in (pa.array(values), pa.array(values).dictionary_encode(), pa.nulls(2)):
        table = pa.table({"a": column})
        is_null = [one is None for one in column.to_pylist()]
        assert tables.computed(col("a").is_null(), table) == is_null
        assert tables.computed(col("a").is_not_null(), table) == [not one for one in is_null]
        assert not typing.field_of(col("a").is_null(), table.schema).nullable


def test_a_null_in_a_dictionary_is_null() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None]))
    assert tables.computed(col("a").is_null(), pa.table({"a": column})) == [False, True]


def test_comparing_with_none_is_refused_where_it_is_written() -> None:
    for make in (lambda: col("a") == None, lambda: col("a") != None):  # noqa: E711 # what is tested
        with pytest.raises(TypeError, match=r"write \.is_null\(\)"):
            make()


@given(values=tables.values(tables.SMALL), layout=tables.layouts())
@settings(max_examples=20, deadline=None, database=None, derandomize=True)
def test_a_filter_keeps_what_is_true(values: list[Any], layout: Any) -> None:
    table = tables.table(layout, a=pa.array(values, pa.int64()))
    assert evaluate.filter(table, col("a") > 2)["a"].to_pylist() == [
        one for one in values if one is not None and one > 2
    ]
    assert evaluate.filter(table, lit(True)) is table
    assert evaluate.filter(table, lit(None)).num_rows == 0
    assert evaluate.filter(table, col("a").is_null() | col("a").is_not_null()) is table


def test_a_filter_has_to_be_boolean() -> None:
    table = pa.table({"a": [1]})
    with pytest.raises(expressions.ExpressionTypeError, match=r"a filter has to be boolean, col\('a'\) \+ 1 is int64"):
        evaluate.filter(table, col("a") + 1)


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_negative_zero_is_in_where_zero_is(kind: pa.DataType) -> None:
    table = pa.table({"a": pa.array([-0.0, 0.0, 1.5, None]).cast(kind)})
    for among in ([0.0], [-0.0], [0], [-0.0, 7]):
        assert tables.computed(col("a").is_in(among), table) == [True, True, False, None]
        assert tables.computed(col("a").not_in(among), table) == [False, False, True, None]
