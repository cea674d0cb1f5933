"""Choices, casts and projections, and that types are foretold."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import expression_tables as tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.data import expressions
from umbel.data._expressions import evaluate, nodes, typing
from umbel.data.expressions import coalesce, col, lit, random, star, uuid, when

TABLE = pa.table({"a": [1, 2, None], "b": [0, 4, 2], "s": ["x", None, "y"]})
OF_VIEWS = pytest.mark.skipif(int(pa.__version__.split(".")[0]) < 20, reason="older Arrows cast no views of strings")


# Choices


@given(
    rows=st.lists(
        st.tuples(st.none() | st.booleans(), st.none() | st.booleans(), st.none() | tables.SMALL), max_size=8
    ),
    layout=tables.layouts(),
)
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_when_takes_the_first_condition_that_is_true(rows: list[tuple[Any, ...]], layout: Any) -> None:
    p, q, v = ([row[index] for row in rows] for index in range(3))
    table = tables.table(layout, p=pa.array(p, pa.bool_()), q=pa.array(q, pa.bool_()), v=pa.array(v, pa.int64()))
    expr = when(col("p")).then(col("v")).when(col("q")).then(-1)
    assert tables.computed(expr, table) == [v if p else (-1 if q else None) for p, q, v in rows]
    assert tables.computed(expr.otherwise(0), table) == [v if p else (-1 if q else 0) for p, q, v in rows]


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        ((col("i8"), col("i16")), pa.int16()),
        ((col("i8"), col("u8")), pa.int16()),
        ((col("i8"), 5), pa.int8()),
        ((col("i8"), 500), pa.int64()),
        ((col("i8"), 0.5), pa.float64()),
        ((col("f32"), 0.5), pa.float32()),
        ((col("f32"), 0.1), pa.float64()),
        ((col("f32"), col("f64")), pa.float64()),
        ((col("i64"), col("f32")), pa.float64()),
        ((col("d"), 1), pa.decimal128(5, 2)),
        ((col("d"), col("i8")), pa.decimal128(5, 2)),
        ((col("s"), col("ls")), pa.large_string()),
        ((col("s"), "x"), pa.string()),
        ((col("dict"), "x"), pa.string()),
        ((col("date"), col("ts")), pa.timestamp("s")),
        ((col("ts"), datetime.datetime(2024, 1, 1)), pa.timestamp("s")),
        ((None, col("i8")), pa.int8()),
        ((None, None), pa.null()),
        ((1, 2.5), pa.float64()),
    ],
    ids=repr,
)
def test_branches_meet_in_the_narrowest_type_that_holds_them(values: tuple[Any, Any], type_: pa.DataType) -> None:
    table = pa.table(
        {
            "i8": pa.array([1, None], pa.int8()),
            "u8": pa.array([200, None], pa.uint8()),
            "i16": pa.array([1, None], pa.int16()),
            "i64": pa.array([1, None], pa.int64()),
            "f32": pa.array([0.5, None], pa.float32()),
            "f64": pa.array([0.1, None], pa.float64()),
            "d": pa.array([Decimal("1.25"), None], pa.decimal128(5, 2)),
            "s": pa.array(["a", None], pa.string()),
            "ls": pa.array(["a", None], pa.large_string()),
            "dict": pa.array(["a", None]).dictionary_encode(),
            "date": pa.array([datetime.date(2024, 1, 1), None]),
            "ts": pa.array([0, None], pa.timestamp("s")),
            "p": [True, False],
        }
    )
    chosen = when(col("p")).then(values[0]).otherwise(values[1])
    assert typing.field_of(chosen, table.schema).type == type_
    first, second = (
        evaluate.evaluate(lit(one) if not isinstance(one, expressions.Expr) else one, table) for one in values
    )
    if pa.types.is_decimal(type_):  # Arrow's cast wants room for all of int64
        first, second = (pa.array(one.to_pylist(), type_) for one in (first, second))
    assert tables.computed(chosen, table) == [first.cast(type_).to_pylist()[0], second.cast(type_).to_pylist()[1]]
    tables.computed(coalesce(*values), table)


def test_branches_without_a_common_type_are_refused() -> None:
    with pytest.raises(expressions.ExpressionTypeError, match="string and int64 have no type in common"):
        typing.field_of(when(col("b") > 0).then(col("s")).otherwise(col("a")), TABLE.schema)
    with pytest.raises(expressions.ExpressionTypeError, match=r"when\(\) takes a boolean, col\('b'\) is int64"):
        typing.field_of(when(col("b")).then(1), TABLE.schema)


def test_values_are_computed_only_where_they_are_taken() -> None:
    quotient = col("a") // col("b")
    assert tables.computed(when(col("b") > 0).then(quotient).otherwise(-1), TABLE) == [-1, 0, None]
    assert tables.computed(when(col("b") == 0).then(-1).otherwise(quotient), TABLE) == [-1, 0, None]
    assert tables.computed(when(col("b") == 0).then(-1).when(quotient == 0).then(7), TABLE) == [-1, 7, None]
    with pytest.raises(expressions.ExpressionZeroDivisionError, match="first in row 0"):
        evaluate.evaluate(when(col("b") >= 0).then(quotient), TABLE)


def test_an_error_in_a_branch_names_the_row_of_the_block() -> None:
    table = pa.table({"p": [False, False, True, True], "b": [0, 0, 1, 0]})
    with pytest.raises(expressions.ExpressionZeroDivisionError, match="first in row 103 "):
        evaluate.evaluate(when(col("p")).then(1 // col("b")), table, row_offset=100)


@given(rows=tables.pairs(tables.SMALL, tables.SMALL), layout=tables.layouts())
@settings(max_examples=25, deadline=None, database=None, derandomize=True)
def test_coalesce_is_the_first_that_is_not_null(rows: list[tuple[Any, Any]], layout: Any) -> None:
    table = tables.table(
        layout, a=pa.array([row[0] for row in rows], pa.int64()), b=pa.array([row[1] for row in rows], pa.int32())
    )
    first = [a if a is not None else b for a, b in rows]
    assert tables.computed(coalesce(col("a"), col("b")), table) == first
    assert tables.computed(col("a").fill_null(col("b")), table) == first
    assert tables.computed(coalesce(col("a"), col("b"), 7), table) == [7 if one is None else one for one in first]
    assert not typing.field_of(coalesce(col("a"), 7), table.schema).nullable


def test_coalesce_computes_what_it_needs() -> None:
    table = pa.table({"a": [1, None], "b": [0, 2]})
    assert tables.computed(coalesce(col("a"), 10 // col("b")), table) == [1, 5]


def test_tensors_and_lists_can_be_chosen_between() -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8).reshape(2, 2, 2))
    table = pa.table({"p": [True, False], "t": tensors, "l": [[1], [2]], "m": [[3], [4]]})
    assert tables.computed(when(col("p")).then(col("t")).arr.to_list(), table) == [[0, 1, 2, 3], None]
    assert tables.computed(when(col("p")).then(col("l")).otherwise(col("m")), table) == [[1], [4]]
    assert tables.computed(when(col("p")).then(col("l")).otherwise([9]), table) == [[1], [9]]


@pytest.mark.parametrize(
    ("column", "expr", "expected"),
    [
        pytest.param(pa.array(["a", None], pa.string_view()), col("x") + "b", ["ab", None], marks=OF_VIEWS),
        pytest.param(pa.array([b"a", None], pa.binary_view()), col("x") == b"a", [True, None], marks=OF_VIEWS),
        (pa.array([[1, 2], [], None], pa.list_view(pa.int64()))[1:], col("x").list.len(), [0, None]),
        (pa.array([[1, 2], None], pa.large_list_view(pa.int64())), col("x").list[-1], [2, None]),
        (
            pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([5, None])),
            col("x") + 1,
            [6, 6, None],
        ),
        (pa.array(["a", None]).dictionary_encode(), col("x").fill_null("z"), ["a", "z"]),
        (pa.array([np.float16(1.5), None], pa.float16()), col("x") * 2, [3.0, None]),
    ],
    ids=["string_view", "binary_view", "list_view", "large_list_view", "run_end_encoded", "dictionary", "float16"],
)
def test_how_a_column_is_encoded_does_not_matter(column: pa.Array, expr: expressions.Expr, expected: list[Any]) -> None:
    assert tables.computed(expr, pa.table({"x": column})) == expected


# Casts


def test_casts_are_safe_unless_told() -> None:
    table = pa.table({"f": [1.0, 2.5], "s": ["1", "2"], "i": [1, 300]})
    assert tables.computed(col("s").cast(int), table) == [1, 2]
    assert tables.computed(col("i").cast("string"), table) == ["1", "300"]
    assert tables.computed(col("f").cast(np.int32, safe=False), table) == [1, 2]
    assert tables.computed(lit(2.5).cast("int64", safe=False), table) == [2, 2]
    with pytest.raises(expressions.ExpressionError, match=r"col\('f'\)\.cast\('int64'\): .*2\.5"):
        evaluate.evaluate(col("f").cast(pa.int64()), table)
    with pytest.raises(expressions.ExpressionError, match=r"cast\('int8'\)"):
        evaluate.evaluate(col("i").cast("int8"), table)
    with pytest.raises(expressions.ExpressionTypeError, match="cast"):
        typing.field_of(col("s").cast(pa.list_(pa.int64())), table.schema)


def test_a_cast_may_encode() -> None:
    table = pa.table({"s": ["a", "b", "a"]})
    type_ = pa.dictionary(pa.int32(), pa.string())
    found = evaluate.evaluate(col("s").cast(type_), table)
    assert found.type == type_
    assert found.to_pylist() == ["a", "b", "a"]


@pytest.mark.parametrize("type_", ["int65", object(), dict, np.dtype(object)])
def test_what_is_no_type_is_refused(type_: object) -> None:
    with pytest.raises(TypeError, match="a type is one of pyarrow's"):
        col("a").cast(type_)


# Names and columns


def test_projections_name_their_columns() -> None:
    field = pa.field("a", pa.int64(), metadata={"unit": "m"})
    table = pa.Table.from_arrays(
        [pa.array([1, 2]), pa.array(["x", "y"])], schema=pa.schema([field, ("s", pa.string())])
    )
    exprs = [col("s"), col("a").alias("z"), (col("a") + 1).alias("y"), lit(1).alias("one")]
    found = evaluate.project(table, exprs)
    assert found.to_pydict() == {"s": ["x", "y"], "z": [1, 2], "y": [2, 3], "one": [1, 1]}
    assert found.schema.field("z").metadata == {b"unit": b"m"}
    assert [one.nullable for one in found.schema] == [True, True, True, False]
    assert typing.schema_of(exprs, table.schema).equals(found.schema, check_metadata=True)


def test_star_is_all_columns_and_others_take_the_place_of_some() -> None:
    found = evaluate.project(TABLE, [star(), (col("a") + 1).alias("a"), lit(0).alias("new")])
    assert found.to_pydict() == {"a": [2, 3, None], "b": [0, 4, 2], "s": ["x", None, "y"], "new": [0, 0, 0]}
    assert evaluate.project(TABLE, [lit(0).alias("b"), star()]).column_names == ["b", "a", "s"]


def test_a_projection_of_an_empty_table_has_its_schema() -> None:
    exprs = [star(), (col("a") / 2).alias("h"), random().alias("r"), uuid().alias("u")]
    assert evaluate.project(TABLE.slice(0, 0), exprs).schema == typing.schema_of(exprs, TABLE.schema)


@pytest.mark.parametrize(
    ("exprs", "says"),
    [
        ([col("a") + 1], r"the column col\('a'\) \+ 1 has no name"),
        ([col("a"), col("b").alias("a")], "two columns are called 'a'"),
        ([star(), col("b").alias("a"), col("b").alias("a")], "two columns are called 'a'"),
    ],
)
def test_projections_of_nameless_or_equal_columns_are_refused(exprs: list[expressions.Expr], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        typing.schema_of(exprs, TABLE.schema)


def test_an_unknown_column_is_refused_with_those_near_it() -> None:
    schema = pa.schema([("price", pa.int64()), ("count", pa.int64())])
    with pytest.raises(KeyError) as caught:
        typing.field_of(col("prise") * 2, schema)
    assert str(caught.value) == "there is no column 'prise'; did you mean 'price'?"
    with pytest.raises(KeyError, match="there are 'price', 'count'"):
        typing.field_of(col("x"), schema)


def test_a_column_that_is_there_twice_is_refused() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(expressions.ExpressionTypeError, match="there are 2 columns 'a'"):
        evaluate.evaluate(col("a"), table)


def test_star_is_no_value() -> None:
    with pytest.raises(expressions.ExpressionTypeError, match="stands for all columns"):
        typing.field_of(star() + 1, TABLE.schema)


# Types and values agree


LEAVES = st.sampled_from(
    [
        *(col(name) for name in ("i8", "u8", "i64", "u64", "f32", "f64", "dec", "p", "s", "ls", "dict", "n", "req")),
        *(lit(value) for value in (1, -3, 0.5, "x", True, None, Decimal("1.5"))),
    ]
)


def _grown(inner: st.SearchStrategy[expressions.Expr]) -> st.SearchStrategy[expressions.Expr]:
    def binary(symbol: str) -> st.SearchStrategy[expressions.Expr]:
        return st.tuples(inner, inner).map(lambda two: expressions.Expr(nodes.Call(symbol, (two[0].node, two[1].node))))

    return st.one_of(
        *(binary(symbol) for symbol in ("+", "-", "*", "/", "//", "%", "**", "==", "<", ">=", "and", "or", "coalesce")),
        *(
            inner.map(lambda one, name=name: getattr(one, name)())
            for name in ("is_null", "negate", "abs", "sign", "round", "ln")
        ),
        inner.map(lambda one: ~one),
        inner.map(lambda one: one.is_in([1, 2.5, None])),
        inner.map(lambda one: one.cast("string")),
        inner.map(lambda one: one.str.len()),
        inner.map(lambda one: one.str.upper()),
        st.tuples(inner, inner, inner).map(lambda three: when(three[0]).then(three[1]).otherwise(three[2])),
    )


EVERY_KIND = pa.table(
    {
        "i8": pa.array([1, None, -128], pa.int8()),
        "u8": pa.array([0, None, 255], pa.uint8()),
        "i64": pa.array([3, None, 2**60], pa.int64()),
        "u64": pa.array([1, None, 2**64 - 1], pa.uint64()),
        "f32": pa.array([0.5, None, float("nan")], pa.float32()),
        "f64": pa.array([-2.5, None, float("inf")]),
        "dec": pa.array([Decimal("1.50"), None, Decimal("-9.99")], pa.decimal128(9, 2)),
        "p": pa.array([True, None, False]),
        "s": pa.array(["a", None, ""]),
        "ls": pa.array(["ä", None, "b"], pa.large_string()),
        "dict": pa.array(["x", None, "y"]).dictionary_encode(),
        "n": pa.nulls(3),
        "req": [4, 5, 6],
    },
    schema=pa.schema(
        [
            *(("i8", pa.int8()), ("u8", pa.uint8()), ("i64", pa.int64()), ("u64", pa.uint64()), ("f32", pa.float32())),
            *(("f64", pa.float64()), ("dec", pa.decimal128(9, 2)), ("p", pa.bool_()), ("s", pa.string())),
            *(("ls", pa.large_string()), ("dict", pa.dictionary(pa.int32(), pa.string())), ("n", pa.null())),
            pa.field("req", pa.int64(), nullable=False),
        ]
    ),
)


@given(expr=st.recursive(LEAVES, _grown, max_leaves=6), layout=tables.layouts(), start=st.integers(0, 3))
@settings(max_examples=400, deadline=None, database=None, derandomize=True)
def test_the_type_that_is_foretold_is_the_type_that_comes(expr: expressions.Expr, layout: Any, start: int) -> None:
    """For any expression: either it is refused before it runs, as it is when it runs, or it gives that type, or its data fail."""
    table = EVERY_KIND.slice(start)
    laid = pa.table([layout(column.combine_chunks()) for column in table.columns], schema=table.schema)
    try:
        typing.field_of(expr, table.schema)
    except (expressions.ExpressionTypeError, expressions.ExpressionError):
        with pytest.raises(
            (expressions.ExpressionTypeError, expressions.ExpressionError)
        ):  # of the data, if that comes first
            evaluate.evaluate(expr, laid)
        return
    try:
        tables.computed(expr, laid)
    except expressions.ExpressionTypeError:
        raise
    except expressions.ExpressionError:
        pass  # overflow, division by zero: of the data
