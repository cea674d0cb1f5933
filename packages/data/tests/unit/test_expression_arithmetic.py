"""Arithmetic of columns is Python's."""

from __future__ import annotations

import datetime
import decimal
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
from umbel.data.expressions import col, lit, when

INTEGER_TYPES = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()]
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}


def python_answer(function: Callable[[Any, Any], Any], a: list[Any], b: list[Any]) -> list[Any] | type[Exception]:
    try:
        found = tables.by_rows(function, a, b)
    except ZeroDivisionError:
        return expressions.ExpressionZeroDivisionError
    if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in found):
        return expressions.ExpressionOverflowError
    return found


def check(expr: expressions.Expr, table: pa.Table, expected: list[Any] | type[Exception]) -> None:
    if isinstance(expected, list):
        found = tables.computed(expr, table)
        assert tables.same(found, expected), (found, expected)
    else:
        with pytest.raises(expected):
            evaluate.evaluate(expr, table)


@pytest.mark.parametrize("symbol", OPERATORS)
@given(rows=tables.pairs(tables.INT64, tables.INT64), layout=tables.layouts())
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_int64_with_int64_is_as_in_python(symbol: str, rows: list[tuple[Any, Any]], layout: Any) -> None:
    """Also beyond 2**53, where a quotient of floats is not the float of the quotient."""
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    table = tables.table(layout, a=pa.array(a, pa.int64()), b=pa.array(b, pa.int64()))
    check(OPERATORS[symbol](col("a"), col("b")), table, python_answer(OPERATORS[symbol], a, b))


@pytest.mark.parametrize("symbol", OPERATORS)
@given(
    type_a=st.sampled_from(INTEGER_TYPES),
    type_b=st.sampled_from(INTEGER_TYPES),
    rows=tables.pairs(st.integers(0, 127), st.integers(0, 127)),
    layout=tables.layouts(),
)
@settings(max_examples=25, deadline=None, database=None, derandomize=True)
def test_integers_of_any_width_are_computed_in_64_bits(
    symbol: str, type_a: pa.DataType, type_b: pa.DataType, rows: list[tuple[Any, Any]], layout: Any
) -> None:
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    table = tables.table(layout, a=pa.array(a, type_a), b=pa.array(b, type_b))
    expr = OPERATORS[symbol](col("a"), col("b"))
    assert typing.field_of(expr, table.schema).type == (pa.float64() if symbol == "/" else pa.int64())
    check(expr, table, python_answer(OPERATORS[symbol], a, b))


@pytest.mark.parametrize("symbol", OPERATORS)
@given(values=tables.values(tables.INT64), constant=tables.SMALL, is_left=st.booleans(), layout=tables.layouts())
@settings(max_examples=30, deadline=None, database=None, derandomize=True)
def test_a_column_with_a_number_is_as_in_python(
    symbol: str, values: list[Any], constant: int, is_left: bool, layout: Any
) -> None:
    table = tables.table(layout, a=pa.array(values, pa.int64()))
    sides = (constant, col("a")) if is_left else (col("a"), constant)
    given = ([constant] * len(values), values) if is_left else (values, [constant] * len(values))
    check(OPERATORS[symbol](*sides), table, python_answer(OPERATORS[symbol], *given))


@pytest.mark.parametrize("symbol", OPERATORS)
@given(rows=tables.pairs(tables.FLOATS, tables.FLOATS | tables.INT64), layout=tables.layouts())
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_floats_are_as_in_python_but_divide_by_zero(symbol: str, rows: list[tuple[Any, Any]], layout: Any) -> None:
    def answer(a: Any, b: Any) -> float:
        a, b = float(a), float(b)
        if b == 0 and symbol in ("/", "//", "%"):
            with np.errstate(all="ignore"):  # IEEE 754, as NumPy and polars have it
                return float(OPERATORS[symbol](np.float64(a), np.float64(b)))
        return float(OPERATORS[symbol](a, b))

    a, b = [row[0] for row in rows], [None if row[1] is None else float(row[1]) for row in rows]
    table = tables.table(layout, a=pa.array(a, pa.float64()), b=pa.array(b, pa.float64()))
    check(OPERATORS[symbol](col("a"), col("b")), table, tables.by_rows(answer, a, b))


@given(rows=tables.pairs(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), layout=tables.layouts())
@settings(max_examples=30, deadline=None, database=None, derandomize=True)
def test_uint64_with_uint64_stays_and_never_wraps(rows: list[tuple[Any, Any]], layout: Any) -> None:
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    table = tables.table(layout, a=pa.array(a, pa.uint64()), b=pa.array(b, pa.uint64()))
    for function in (operator.add, operator.sub, operator.mul):
        expected = tables.by_rows(function, a, b)
        fits = all(value is None or 0 <= value < 2**64 for value in expected)
        check(function(col("a"), col("b")), table, expected if fits else expressions.ExpressionOverflowError)
    check(col("a") / col("b"), table, python_answer(operator.truediv, a, b))


def test_uint64_with_a_signed_integer_is_int64_where_it_fits() -> None:
    table = pa.table({"u": pa.array([5, 2**63 - 1], pa.uint64()), "i": pa.array([-7, 0])})
    assert tables.computed(col("u") + col("i"), table) == [-2, 2**63 - 1]
    assert tables.computed(col("u") - 6, pa.table({"u": pa.array([7], pa.uint64())})) == [1]
    too_large = pa.table({"u": pa.array([2**63], pa.uint64()), "i": pa.array([-1])})
    with pytest.raises(expressions.ExpressionError, match=r"col\('u'\) \+ col\('i'\)"):
        evaluate.evaluate(col("u") + col("i"), too_large)


@given(values=tables.values(tables.INT64), layout=tables.layouts())
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_functions_of_one_integer_are_as_in_python(values: list[Any], layout: Any) -> None:
    table = tables.table(layout, a=pa.array(values, pa.int64()))
    for made, function in (
        (-col("a"), operator.neg),
        (abs(col("a")), abs),
        (col("a").abs(), abs),
        (col("a").sign(), lambda value: (value > 0) - (value < 0)),
        (col("a").floor(), math.floor),
        (col("a").ceil(), math.ceil),
        (col("a").trunc(), math.trunc),
        (col("a").round(), round),
    ):
        expected = tables.by_rows(function, values)
        fits = all(value is None or value < 2**63 for value in expected)
        check(made, table, expected if fits else expressions.ExpressionOverflowError)


@given(values=tables.values(st.floats(-1e9, 1e9) | st.sampled_from([0.5, 1.5, 2.5, -0.5])), layout=tables.layouts())
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_functions_of_one_float_are_as_in_python(values: list[Any], layout: Any) -> None:
    table = tables.table(layout, a=pa.array(values, pa.float64()))
    for made, function in (
        (-col("a"), operator.neg),
        (col("a").abs(), abs),
        (col("a").floor(), lambda value: float(math.floor(value))),
        (col("a").ceil(), lambda value: float(math.ceil(value))),
        (col("a").trunc(), lambda value: float(math.trunc(value))),
        (col("a").round(), lambda value: float(round(value))),
        (col("a").is_nan(), math.isnan),
    ):
        check(made, table, tables.by_rows(function, values))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("ln", math.log),
        ("log10", math.log10),
        ("log2", math.log2),
        ("exp", math.exp),
        ("sqrt", math.sqrt),
        ("sin", math.sin),
        ("cos", math.cos),
        ("tan", math.tan),
        ("asin", math.asin),
        ("acos", math.acos),
        ("atan", math.atan),
    ],
)
def test_functions_of_real_numbers(name: str, function: Callable[[float], float]) -> None:
    values = [0.25, 1.0, None, 0.5]
    table = pa.table({"a": values, "f": pa.array(values, pa.float32()), "i": [1, 1, None, 1]})
    assert tables.computed(getattr(col("a"), name)(), table) == [
        None if one is None else pytest.approx(function(one)) for one in values
    ]
    assert typing.field_of(getattr(col("f"), name)(), table.schema).type == pa.float32()
    assert tables.computed(getattr(col("i"), name)(), table)[0] == pytest.approx(function(1.0))


def test_outside_of_their_domain_functions_are_nan_or_infinite() -> None:
    table = pa.table({"a": [-1.0, 0.0]})
    assert math.isnan(tables.computed(col("a").ln(), table)[0])
    assert tables.computed(col("a").ln(), table)[1] == -math.inf
    assert math.isnan(tables.computed(col("a").sqrt(), table)[0])


@given(values=tables.values(st.integers(-40, 40)), exponent=st.integers(0, 20))
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_powers_of_integers_are_exact_or_an_error(values: list[Any], exponent: int) -> None:
    table = pa.table({"a": pa.array(values, pa.int64())})
    check(col("a") ** exponent, table, python_answer(operator.pow, values, [exponent] * len(values)))


def test_negative_powers_of_integers_are_floats_if_literal() -> None:
    table = pa.table({"a": [2, 4], "b": [1, -1]})
    assert tables.computed(col("a") ** -1, table) == [0.5, 0.25]
    with pytest.raises(expressions.ExpressionError, match="cast it to float64"):
        evaluate.evaluate(col("a").power(col("b")), table)


def test_a_float_keeps_the_width_of_its_column() -> None:
    table = pa.table(
        {"f": pa.array([0.5, None], pa.float32()), "h": pa.array([np.float16(0.5), None], pa.float16()), "i": [1, 2]}
    )
    for expr, expected in (
        (col("f") * 0.1, pa.float32()),
        (1 - col("f"), pa.float32()),
        (col("h") + col("h"), pa.float32()),
        (col("f") * lit(np.float64(0.1)), pa.float64()),
        (col("f") + col("i"), pa.float64()),
        (col("i") * 0.5, pa.float64()),
    ):
        assert typing.field_of(expr, table.schema).type == expected, expr
        tables.computed(expr, table)


def test_booleans_count_as_numbers() -> None:
    table = pa.table({"a": [True, False, None], "b": [True, True, True]})
    assert tables.computed(col("a") + col("b"), table) == [2, 1, None]
    assert tables.computed(col("a") * 0.5, table) == [0.5, 0.0, None]
    assert tables.computed(-col("a"), table) == [-1, 0, None]


DECIMALS = st.decimals(-(10**6), 10**6, places=2)


@given(rows=tables.pairs(DECIMALS, st.decimals(-(10**6), 10**6, places=4)), layout=tables.layouts())
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_decimals_are_exact(rows: list[tuple[Any, Any]], layout: Any) -> None:
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    table = tables.table(layout, a=pa.array(a, pa.decimal128(30, 2)), b=pa.array(b, pa.decimal128(30, 4)))
    with decimal.localcontext(decimal.Context(prec=100)):
        for function in (operator.add, operator.sub, operator.mul):
            check(function(col("a"), col("b")), table, tables.by_rows(function, a, b))
        check(1 - col("a"), table, tables.by_rows(lambda value: 1 - value, a))


def test_decimals_grow_as_their_result_needs_and_no_further() -> None:
    schema = pa.schema([("price", pa.decimal128(15, 2)), ("discount", pa.decimal128(15, 2)), ("i", pa.int64())])
    revenue = col("price") * (1 - col("discount"))
    assert typing.field_of(revenue, schema).type == pa.decimal128(32, 4)
    charge = revenue * (1 + col("discount"))
    assert typing.field_of(charge, schema).type == pa.decimal256(49, 6)
    assert typing.field_of(col("price") + col("i"), schema).type == pa.decimal128(22, 2)
    assert typing.field_of(col("price") / col("discount"), schema).type == pa.float64()
    assert typing.field_of(col("price") * 0.5, schema).type == pa.float64()
    with pytest.raises(expressions.ExpressionTypeError, match="up to 99 digits"):
        typing.field_of(charge * charge, schema)
    with pytest.raises(expressions.ExpressionTypeError, match="// is not there for decimals"):
        typing.field_of(col("price") // 2, schema)


NARROW = [pa.decimal32(5, 2), pa.decimal64(10, 2)] if hasattr(pa, "decimal32") else []  # came with Arrow 19


@pytest.mark.parametrize("type_", [*NARROW, pa.decimal128(10, 2), pa.decimal256(50, 2)], ids=str)
def test_decimals_of_any_width_have_all_of_it(type_: pa.DataType) -> None:
    table = pa.table(
        {"a": pa.array([Decimal("-1.50"), None], type_), "b": pa.array([Decimal("0.25"), None], pa.decimal128(5, 2))}
    )
    for expr, expected in (
        (-col("a"), Decimal("1.50")),
        (col("a").abs(), Decimal("1.50")),
        (col("a").sign(), -1),
        (col("a").floor(), Decimal("-2.00")),
        (col("a").round(), Decimal("-2.00")),
        (col("a") + col("b"), Decimal("-1.25")),
        (col("a") * col("b"), Decimal("-0.375")),
        (col("a") / col("b"), -6.0),
        (col("a") < col("b"), True),
        (col("a").is_in([-1.5]), True),
        (col("a").fill_null(0), Decimal("-1.50")),
    ):
        assert tables.computed(expr, table)[0] == expected, expr


def test_a_decimal_divided_by_zero_is_an_error() -> None:
    table = pa.table({"a": pa.array([Decimal("1.00")], pa.decimal128(5, 2))})
    with pytest.raises(expressions.ExpressionZeroDivisionError):
        evaluate.evaluate(col("a") / 0, table)


def test_division_by_zero_names_the_expression_and_the_row() -> None:
    table = pa.table({"a": [1, 2, 3], "b": [1, None, 0]})
    for function in (operator.truediv, operator.floordiv, operator.mod):
        with pytest.raises(ZeroDivisionError, match=r"col\('a'\) .* col\('b'\).*first in row 12 of the block"):
            evaluate.evaluate(function(col("a"), col("b")), table, row_offset=10)


def test_a_null_divided_by_zero_is_null() -> None:
    table = pa.table({"a": pa.array([None, 4], pa.int64()), "b": [0, 2]})
    assert tables.computed(col("a") // col("b"), table) == [None, 2]
    assert tables.computed(col("a") / col("b"), table) == [None, 2.0]


def test_a_column_of_nulls_is_null_with_anything() -> None:
    table = pa.table({"n": pa.nulls(2), "i": [1, 2], "s": ["a", "b"], "f": [1.0, 2.0]})
    for expr in (
        col("n") + col("i"),
        col("n") * 2.5,
        col("n") / col("i"),
        col("n") // col("n"),
        col("n") + col("s"),
        -col("n"),
    ):
        assert tables.computed(expr, table) == [None, None], expr


@given(rows=tables.pairs(tables.TEXTS, tables.TEXTS), layout=tables.layouts())
@settings(max_examples=25, deadline=None, database=None, derandomize=True)
def test_plus_joins_strings(rows: list[tuple[Any, Any]], layout: Any) -> None:
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    table = tables.table(layout, a=pa.array(a, pa.string()), b=pa.array(b, pa.large_string()))
    check(col("a") + col("b"), table, tables.by_rows(operator.add, a, b))
    check("<" + col("a") + ">", table, tables.by_rows("<{}>".format, a))


def test_bytes_are_joined_too() -> None:
    table = pa.table({"a": [b"x", None], "f": pa.array([b"12", b"34"], pa.binary(2))})
    assert tables.computed(col("a") + b"y", table) == [b"xy", None]
    assert tables.computed(col("f") + col("f"), table) == [b"1212", b"3434"]


MOMENTS = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1))
SPANS = st.timedeltas(datetime.timedelta(-9999), datetime.timedelta(9999))


@given(rows=tables.pairs(MOMENTS, SPANS), layout=tables.layouts())
@settings(max_examples=30, deadline=None, database=None, derandomize=True)
def test_timestamps_and_durations_are_as_in_python(rows: list[tuple[Any, Any]], layout: Any) -> None:
    a, b = [row[0] for row in rows], [row[1] for row in rows]
    days = [None if one is None else one.date() for one in a]
    table = tables.table(
        layout, a=pa.array(a, pa.timestamp("us")), b=pa.array(b, pa.duration("us")), d=pa.array(days, pa.date32())
    )
    for function in (operator.add, operator.sub):
        check(function(col("a"), col("b")), table, tables.by_rows(function, a, b))
        check(function(col("d"), col("b")), table, tables.by_rows(function, days, b))
        check(function(col("b"), col("b")), table, tables.by_rows(lambda one, function=function: function(one, one), b))
    check(col("b") + col("a"), table, tables.by_rows(operator.add, a, b))
    check(col("a") - col("a"), table, tables.by_rows(lambda one: one - one, a))
    check(col("d") - col("d"), table, tables.by_rows(lambda one: one - one, days))
    check(col("b") * 3, table, tables.by_rows(lambda one: one * 3, b))
    check(-col("b"), table, tables.by_rows(operator.neg, b))
    hour = datetime.timedelta(hours=1)
    check(col("b") / hour, table, tables.by_rows(lambda one: one / hour, b))
    check(col("b") // hour, table, tables.by_rows(lambda one: one // hour, b))
    check(col("b") % hour, table, tables.by_rows(lambda one: one % hour, b))


def test_a_duration_that_is_written_keeps_the_unit_of_the_column() -> None:
    schema = pa.schema([("t", pa.timestamp("s")), ("z", pa.timestamp("ms", "Europe/Berlin"))])
    assert typing.field_of(col("t") + datetime.timedelta(hours=1), schema).type == pa.timestamp("s")
    assert typing.field_of(col("t") + datetime.timedelta(microseconds=1), schema).type == pa.timestamp("us")
    assert typing.field_of(col("z") - datetime.timedelta(hours=1), schema).type == pa.timestamp("ms", "Europe/Berlin")


def test_moments_of_two_zones_differ_by_the_time_between_them() -> None:
    utc, tokyo = pa.timestamp("s", "UTC"), pa.timestamp("ms", "Asia/Tokyo")
    table = pa.table({"u": pa.array([3600], utc), "t": pa.array([0], tokyo)})
    assert tables.computed(col("u") - col("t"), table) == [datetime.timedelta(hours=1)]


def test_a_timestamp_beyond_its_range_is_an_error() -> None:
    table = pa.table({"t": pa.array([2**63 - 1], pa.timestamp("ns"))})
    with pytest.raises(OverflowError, match="does not fit"):
        evaluate.evaluate(col("t") + datetime.timedelta(days=1), table)


@pytest.mark.parametrize(
    "expr",
    [
        col("s") + 1,
        col("s") * 2,
        col("s") - col("s"),
        -col("s"),
        col("t") + col("t"),
        col("t") * 2,
        col("t") + 1,
        col("t") - col("z"),
        col("l") + col("l"),
        col("s").abs(),
        col("s").ln(),
        col("s").round(),
        col("i") & col("i"),
        ~col("i"),
    ],
    ids=repr,
)
def test_wrong_types_are_refused_before_anything_runs(expr: expressions.Expr) -> None:
    schema = pa.schema(
        [
            ("s", pa.string()),
            ("t", pa.timestamp("us")),
            ("z", pa.timestamp("us", "UTC")),
            ("l", pa.list_(pa.int64())),
            ("i", pa.int64()),
        ]
    )
    with pytest.raises(expressions.ExpressionTypeError) as caught:
        typing.field_of(expr, schema)
    assert repr(expr) in str(caught.value)


def test_rounding_to_digits() -> None:
    table = pa.table(
        {"a": [1.25, -1.35, None], "i": [25, 35, None], "d": pa.array([Decimal("1.25")] * 3, pa.decimal128(5, 2))}
    )
    assert tables.computed(col("a").round(1), table) == [1.2, -1.4, None]
    assert tables.computed(col("i").round(-1), table) == [20, 40, None]
    assert tables.computed(col("d").round(1), table) == [Decimal("1.20")] * 3


def test_what_is_guarded_divides_by_no_zero() -> None:
    table = pa.table({"a": [1, 2, None], "b": [0, 4, 2]})
    assert tables.computed(when(col("b") != 0).then(col("a") / col("b")), table) == [None, 0.5, None]


@pytest.mark.parametrize("base", [pa.array([2, 0]), pa.array([2, 0], pa.uint8()), pa.array([Decimal(2), Decimal(0)])])
def test_zero_has_no_negative_power_where_numbers_are_exact(base: pa.Array) -> None:
    table = pa.table({"a": base})
    with pytest.raises(
        expressions.ExpressionZeroDivisionError, match=r"zero has no negative power.*row 1 of the block"
    ):
        evaluate.evaluate(col("a") ** -1, table)
    assert tables.computed(when(col("a") != 0).then(col("a") ** -1), table) == [0.5, None]
    assert tables.computed(col("a").cast(pa.float64()) ** -1, table) == [0.5, math.inf]
    with pytest.raises(expressions.ExpressionZeroDivisionError):
        evaluate.evaluate(lit(0) ** lit(-1), table)


def test_what_is_not_negative_keeps_uint64() -> None:
    table = pa.table({"a": pa.array([2**64 - 1, 0, None], pa.uint64())})
    assert tables.computed(abs(col("a")), table) == [2**64 - 1, 0, None]
    assert tables.computed(col("a").sign(), table) == [1, 0, None]
    with pytest.raises(expressions.ExpressionError):
        evaluate.evaluate(-col("a"), table)


def test_durations_that_do_not_fit_are_an_error() -> None:
    table = pa.table({"a": pa.array([5, -(2**63)], pa.duration("s"))})
    for expr in (-col("a"), abs(col("a"))):
        with pytest.raises(expressions.ExpressionOverflowError):
            evaluate.evaluate(expr, table)
    (found,) = tables.computed(-col("a"), table.slice(0, 1))
    assert found == datetime.timedelta(seconds=-5)


def test_decimals_that_are_rounded_may_have_a_digit_more() -> None:
    table = pa.table({"a": pa.array([Decimal("9.95"), Decimal("-9.96"), None], pa.decimal128(3, 2))})
    assert tables.computed(col("a").round(1), table) == [Decimal("10.00"), Decimal("-10.00"), None]
    assert tables.computed(col("a").ceil(), table) == [Decimal("10.00"), Decimal("-9.00"), None]
    assert tables.computed(col("a").floor(), table) == [Decimal("9.00"), Decimal("-10.00"), None]
    for digits, kind in ((38, pa.decimal128(38, 0)), (76, pa.decimal256(76, 0))):
        long = pa.table({"a": pa.array([Decimal("9" * digits)], kind)})
        assert tables.computed(col("a").round(), long) == [Decimal("9" * digits)]
