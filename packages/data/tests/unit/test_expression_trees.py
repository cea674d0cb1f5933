"""What an expression is, and what a plan does to it."""

from __future__ import annotations

import datetime
import pickle
from typing import Any

import expression_tables as tables
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings

from umbel.data import expressions
from umbel.data._expressions import errors, evaluate, rewriting
from umbel.data.expressions import col, lit, monotonically_increasing_id, random, star, udf, uuid, when


@udf(return_dtype=pa.int64())
def doubled(x: pa.Array) -> pa.Array:
    return pc.multiply(x, 2)


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


@pytest.mark.parametrize("value", [10**40, object(), {1: object()}, [1, "a"]])
def test_what_cannot_be_a_literal_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        lit(value)


def test_columns_are_listed_once_by_first_use() -> None:
    expr = when(col("c") > col("a")).then(doubled(col("b"))).otherwise(col("a"))
    assert rewriting.columns_of(expr) == ("c", "a", "b")
    assert rewriting.columns_of(star()) == ()
    assert rewriting.has_star(star())


def test_substitution_puts_in_what_columns_stand_for() -> None:
    mapping = {"a": (col("x") + 1).alias("a"), "b": col("y")}
    expr = (col("a") * col("b") + col("c")).alias("out")
    assert repr(rewriting.substitute(expr, mapping)) == "((col('x') + 1) * col('y') + col('c')).alias('out')"
    assert repr(rewriting.substitute(col("b"), mapping)) == "col('y').alias('b')"
    assert rewriting.substitute(col("c"), mapping).structurally_equals(col("c"))
    swapped = rewriting.substitute(col("a") - col("b"), {"a": col("b"), "b": col("a")})
    assert repr(swapped) == "col('b') - col('a')"


@given(values=tables.values(tables.SMALL))
@settings(max_examples=15, deadline=None, database=None, derandomize=True)
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
