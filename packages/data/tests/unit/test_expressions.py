"""What an expression is, and how choices, user's functions and generated values are evaluated."""

from __future__ import annotations

import datetime
import pickle
import uuid as uuids
from decimal import Decimal
from typing import Any

import expression_tables as tables
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel import cloudpickle
from umbel.data import expressions
from umbel.data._expressions import errors, evaluate, nodes, rewriting, typing, udfs
from umbel.data.expressions import coalesce, col, lit, monotonically_increasing_id, random, star, udf, uuid, when

TABLE = pa.table({"a": [1, 2, None], "b": [0, 4, 2], "s": ["x", None, "y"]})


# Choices


@given(
    rows=st.lists(
        st.tuples(st.none() | st.booleans(), st.none() | st.booleans(), st.none() | tables.SMALL), max_size=8
    ),
    layout=tables.layouts(),
)
@settings(max_examples=40, deadline=None)
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
@settings(max_examples=25, deadline=None)
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
        (pa.array(["a", None], pa.string_view()), col("x") + "b", ["ab", None]),
        (pa.array([b"a", None], pa.binary_view()), col("x") == b"a", [True, None]),
        (pa.array([[1, 2], [], None], pa.list_view(pa.int64()))[1:], col("x").list.len(), [0, None]),
        (pa.array([[1, 2], None], pa.large_list_view(pa.int64())), col("x").list[-1], [2, None]),
        (
            pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([5, None])),
            col("x") + 1,
            [6, 6, None],
        ),
        (pa.array(["a", None]).dictionary_encode(), col("x").fill_null("z"), ["a", "z"]),
        (pa.array([1.5, None], pa.float16()), col("x") * 2, [3.0, None]),
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


@pytest.mark.parametrize("type_", ["int65", object(), dict, np.dtype(object)], ids=repr)
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
@settings(max_examples=400, deadline=None)
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


# User's functions


@udf(return_dtype=pa.int64())
def doubled(x: pa.Array) -> pa.Array:
    return pc.multiply(x, 2)


@given(values=tables.values(tables.SMALL), layout=tables.layouts())
@settings(max_examples=20, deadline=None)
def test_a_users_function_gets_and_gives_arrays(values: list[Any], layout: Any) -> None:
    table = tables.table(layout, a=pa.array(values, pa.int64()))
    assert tables.computed(doubled(col("a")) + 1, table) == tables.by_rows(lambda one: one * 2 + 1, values)


@pytest.mark.parametrize(
    ("function", "type_", "expected"),
    [
        (lambda x: np.array([0.5, 1.5, 2.5]), "float64", [0.5, 1.5, 2.5]),
        (lambda x: np.array([1, 2, 3]), "float32", [1.0, 2.0, 3.0]),
        (lambda x: ["a", None, "b"], "string", ["a", None, "b"]),
        (lambda x: np.array(["a", None, "b"], object), "string", ["a", None, "b"]),
        (lambda x: pa.chunked_array([[1], [2, 3]]), "int32", [1, 2, 3]),
        (lambda x: np.arange(6).reshape(3, 2), pa.list_(pa.int64()), [[0, 1], [2, 3], [4, 5]]),
        (lambda x: np.arange(6).reshape(3, 2), pa.fixed_shape_tensor(pa.int64(), [2]), [[0, 1], [2, 3], [4, 5]]),
    ],
)
def test_a_users_function_may_return_any_arrays(function: Any, type_: Any, expected: list[Any]) -> None:
    found = evaluate.evaluate(udf(type_)(function)(col("b")), TABLE)
    storage = found.storage if isinstance(found, pa.ExtensionArray) else found
    assert storage.to_pylist() == expected


@pytest.mark.parametrize(
    ("function", "error", "says"),
    [
        (lambda x: [1], expressions.ExpressionError, "returned 1 values for 3 rows"),
        (lambda x: 1, expressions.ExpressionError, "returned 1; it has to return one value for each row"),
        (lambda x: None, expressions.ExpressionError, "returned None"),
        (
            lambda x: ["a", "b", "c"],
            expressions.ExpressionError,
            "returned list, which is not the int64 that it declares",
        ),
        (lambda x: pa.array([0.5] * 3), expressions.ExpressionError, "returned double, which is not the int64"),
    ],
)
def test_what_a_users_function_must_not_return(function: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=rf"<lambda>\(col\('b'\)\): {says}"):
        evaluate.evaluate(udf("int64")(function)(col("b")), TABLE)


def test_what_a_users_function_raises_comes_through() -> None:
    @udf("int64")
    def broken(x: pa.Array) -> pa.Array:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        evaluate.evaluate(broken(col("a")), TABLE)


def test_a_users_function_is_not_called_for_types_nor_for_no_rows() -> None:
    calls: list[int] = []

    @udf("int64")
    def counted(x: pa.Array) -> pa.Array:
        calls.append(len(x))
        return x

    expr = counted(col("a"))
    assert typing.field_of(expr, TABLE.schema).type == pa.int64()
    assert evaluate.evaluate(expr, TABLE.slice(0, 0)).type == pa.int64()
    assert calls == []
    assert tables.computed(when(col("b") > 0).then(expr), TABLE) == [None, 2, None]
    assert calls == [2]  # only what is wanted


def test_other_arguments_come_as_they_are() -> None:
    seen: list[Any] = []

    @udf("int64")
    def scaled(x: pa.Array, factor: int, *, shift: pa.Array, names: list[str]) -> pa.Array:
        seen.append((factor, names))
        return pc.add(pc.multiply(x, factor), shift)

    expr = scaled(col("b"), lit(3), shift=col("b"), names=["n"])
    assert tables.computed(expr, TABLE) == [0, 16, 8]
    assert seen == [(3, ["n"])]
    assert repr(expr) == "scaled(col('b'), lit(3), shift=col('b'), names=['n'])"
    with pytest.raises(TypeError, match="takes at least one expression"):
        scaled(3)


class Counted:
    made = 0


@udf(return_dtype="int64")
class Shifted:
    def __init__(self, by: int, *, extra: list[int] | None = None) -> None:
        Counted.made += 1
        self.by = by + sum(extra or [])

    def __call__(self, x: pa.Array) -> pa.Array:
        return pc.add(x, self.by)


def test_a_class_is_instantiated_once_for_each_set_of_arguments() -> None:
    Counted.made = 0
    exprs = [Shifted(1)(col("b")), Shifted(1)(col("b")) + 0, Shifted(2, extra=[3])(col("b")), Shifted(True)(col("b"))]
    assert Counted.made == 0  # here; it is made where it is used
    for _ in range(2):
        found = [tables.computed(expr, TABLE) for expr in exprs]
    assert found == [[1, 5, 3], [1, 5, 3], [5, 9, 7], [1, 5, 3]]
    assert Counted.made == 3  # 1 and True are not the same
    assert exprs[0].structurally_equals(Shifted(1)(col("b")))
    assert not exprs[0].structurally_equals(Shifted(4)(col("b")))


def test_instances_are_bounded() -> None:
    Counted.made = 0
    for by in range(1000, 1000 + udfs.INSTANCES_MAX + 1):
        tables.computed(Shifted(by)(col("b")), TABLE)
    tables.computed(Shifted(1000 + udfs.INSTANCES_MAX)(col("b")), TABLE)
    assert Counted.made == udfs.INSTANCES_MAX + 1
    tables.computed(Shifted(1000)(col("b")), TABLE)  # it went first
    assert Counted.made == udfs.INSTANCES_MAX + 2


def test_a_class_travels_with_its_arguments_and_stays_one() -> None:
    expr = Shifted(40)(col("b"))
    copies = [cloudpickle.loads(cloudpickle.dumps(expr)) for _ in range(2)]
    Counted.made = 0
    assert [tables.computed(copy, TABLE) for copy in copies] == [[40, 44, 42]] * 2


@pytest.mark.parametrize("wrong", [3, type("NoCall", (), {})])
def test_what_cannot_be_called_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"@udf|no __call__"):
        udf("int64")(wrong)


def test_coroutines_and_generators_are_refused_where_they_are_written() -> None:
    async def slow(x: pa.Array) -> pa.Array:
        return x

    with pytest.raises(TypeError, match="write a plain function"):
        udf("int64")(slow)


# Values that depend on where a row is


def test_ids_rise_and_are_unique_across_blocks() -> None:
    expr = monotonically_increasing_id()
    found = [
        evaluate.evaluate(expr, TABLE, block=block, row_offset=offset).to_pylist()
        for block, offset in ((0, 0), (0, 3), (2, 0))
    ]
    assert found == [[0, 1, 2], [3, 4, 5], [2 * 2**33, 2 * 2**33 + 1, 2 * 2**33 + 2]]
    with pytest.raises(ValueError, match="has room for"):
        evaluate.evaluate(expr, TABLE, block=2**31)


@pytest.mark.parametrize("make", [lambda: random(seed=7), random, uuid], ids=["seeded", "random", "uuid"])
@given(cut=st.integers(0, 20), block=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_what_is_random_does_not_depend_on_how_a_block_is_cut(make: Any, cut: int, block: int) -> None:
    table = pa.table({"x": range(20)})
    expr = make()
    whole = tables.computed(expr, table)
    parts = [
        *evaluate.evaluate(expr, table.slice(0, cut)).to_pylist(),
        *evaluate.evaluate(expr, table.slice(cut), row_offset=cut).to_pylist(),
    ]
    assert parts == whole
    again = evaluate.evaluate(expr, table, block=block).to_pylist()
    assert (again == whole) == (block == 0)
    wanted = tables.computed(when(col("x") % 3 == 1).then(expr), table)
    assert wanted == [one if row % 3 == 1 else None for row, one in enumerate(whole)]


def test_random_numbers_are_uniform_and_differ_by_epoch_if_told() -> None:
    table = pa.table({"x": range(10_000)})
    numbers = evaluate.evaluate(random(seed=1), table).to_numpy()
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert np.histogram(numbers, 10, (0, 1))[0].min() > 850
    for reseed in (True, False):
        expr = random(seed=1, reseed_after_execution=reseed)
        same = evaluate.evaluate(expr, table, epoch=1).equals(evaluate.evaluate(expr, table))
        assert same is not reseed
    with pytest.raises(ValueError, match="seed must be an integer"):
        random(seed=-1)


def test_uuids_are_version_4_and_all_differ() -> None:
    found = evaluate.evaluate(uuid(), pa.table({"x": range(1000)})).to_pylist()
    assert len(set(found)) == 1000
    assert {(uuids.UUID(one).version, uuids.UUID(one).variant, str(uuids.UUID(one)) == one) for one in found} == {
        (4, uuids.RFC_4122, True)
    }
    assert not set(found) & set(evaluate.evaluate(uuid(), pa.table({"x": range(1000)})).to_pylist())


# The tree


def test_expressions_are_what_they_say() -> None:
    expr = (col("a") + 1).alias("x")
    assert expr.structurally_equals((col("a") + 1).alias("x"))
    assert not expr.structurally_equals((col("a") + 1.0).alias("x"))
    assert not lit(True).structurally_equals(lit(1))
    assert not lit(0.0).structurally_equals(lit(-0.0))
    assert lit(float("nan")).structurally_equals(lit(float("nan")))
    assert not lit(np.int8(1)).structurally_equals(lit(1))
    assert not (col("a") + 1).structurally_equals(1)
    assert random(seed=1).structurally_equals(random(seed=1))
    assert not random().structurally_equals(random())


def test_expressions_have_no_truth_and_no_members() -> None:
    expr = col("a") > 1
    for act in (
        lambda: bool(expr),
        lambda: 1 < col("a") < 3,
        lambda: expr and expr,
        lambda: list(expr),
        lambda: 1 in expr,
        lambda: {expr},
    ):
        with pytest.raises(TypeError):
            act()


@pytest.mark.parametrize("value", [10**40, object(), {1: object()}, [1, "a"]], ids=str)
def test_what_cannot_be_a_literal_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        lit(value)


def test_columns_are_listed_once_by_first_use() -> None:
    expr = when(col("c") > col("a")).then(doubled(col("b"))).otherwise(col("a"))
    assert rewriting.columns_of(expr) == ("c", "a", "b")
    assert rewriting.columns_of(star()) == ()
    assert rewriting.has_star(star())
    assert rewriting.has_udf(expr) and not rewriting.has_udf(col("a") + 1)


def test_substitution_puts_in_what_columns_stand_for() -> None:
    mapping = {"a": (col("x") + 1).alias("a"), "b": col("y")}
    expr = (col("a") * col("b") + col("c")).alias("out")
    assert repr(rewriting.substitute(expr, mapping)) == "((col('x') + 1) * col('y') + col('c')).alias('out')"
    assert repr(rewriting.substitute(col("b"), mapping)) == "col('y').alias('b')"
    assert rewriting.substitute(col("c"), mapping).structurally_equals(col("c"))
    swapped = rewriting.substitute(col("a") - col("b"), {"a": col("b"), "b": col("a")})
    assert repr(swapped) == "col('b') - col('a')"


@given(values=tables.values(tables.SMALL))
@settings(max_examples=15, deadline=None)
def test_substituting_is_computing_one_after_the_other(values: list[Any]) -> None:
    table = pa.table({"x": pa.array(values, pa.int64())})
    inner = [(col("x") + 1).alias("a"), (col("x") * 2).alias("b")]
    outer = when(col("a") > 2).then(col("b") / 2).otherwise(col("a") - col("b"))
    at_once = rewriting.substitute(outer, {"a": inner[0], "b": inner[1]})
    assert tables.computed(at_once, table) == tables.computed(outer, evaluate.project(table, inner))


def test_conjuncts_are_from_left_to_right() -> None:
    expr = (col("a") > 1) & ((col("b") > 2) & (col("c") | col("d"))) & col("e")
    parts = rewriting.conjuncts(expr)
    assert list(map(repr, parts)) == ["col('a') > 1", "col('b') > 2", "col('c') | col('d')", "col('e')"]
    joined = rewriting.conjunction(parts)
    assert joined is not None
    assert repr(joined) == "(col('a') > 1) & (col('b') > 2) & (col('c') | col('d')) & col('e')"
    assert rewriting.conjunction(()) is None


def test_what_depends_on_the_place_of_a_row_is_not_deterministic() -> None:
    for expr in (random(seed=1) < 0.5, monotonically_increasing_id(), uuid().str.len()):
        assert not rewriting.is_deterministic(expr)
    assert rewriting.is_deterministic(doubled(col("a")) + 1)


def test_a_renamed_column_is_known_as_one() -> None:
    assert rewriting.source_of_rename(col("a").alias("b")) == "a"
    assert rewriting.source_of_rename(col("a") + 1) is None


@pytest.mark.parametrize(
    "expr",
    [
        (col("a") + 1).alias("x"),
        when(col("a") > 1).then("b").when(col("c")).then(None),
        col("s").str.replace("a", "b").cast(pa.large_string(), safe=False),
        col("t") > datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
        col("l").is_in([1, None]),
        random(),
        star(),
    ],
    ids=repr,
)
def test_expressions_travel(expr: expressions.Expr) -> None:
    copy = pickle.loads(pickle.dumps(expr))
    assert type(copy) is expressions.Expr
    assert copy.structurally_equals(expr)


@pytest.mark.parametrize(
    "kind",
    [
        errors.ExpressionError,
        errors.ExpressionTypeError,
        errors.ExpressionOverflowError,
        errors.ExpressionZeroDivisionError,
        errors.UnknownColumnError,
    ],
)
def test_errors_travel(kind: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(kind("what it says")))
    assert type(copy) is kind
    assert str(copy) == "what it says"


def test_the_public_names_are_listed() -> None:
    assert [name for name in expressions.__all__ if not hasattr(expressions, name)] == []
