"""Text in Python's syntax is read as the expression that it would make, and nothing of it is ever run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from umbel.data import expressions
from umbel.data._expressions import nodes, parse
from umbel.data.expressions import coalesce, col, lit, when

a, b, name = col("a"), col("b"), col("name")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", a),
        ("a > 5 and name in ['x', 'y']", (a > 5) & name.is_in(["x", "y"])),
        ("a > 5 or not b", (a > 5) | ~b),
        ("not a == 1 and b", ~(a == 1) & b),
        ("a and b and name", a & b & name),
        ("1 < a <= b", (lit(1) < a) & (a <= b)),
        ("a != -1.5", a != -1.5),
        ("a is None or b is not None", a.is_null() | b.is_not_null()),
        ("a not in (1, None)", ~a.is_in([1, None])),
        ("a + b * 2 // 3 % 4 - -a / 2 ** b", a + b * 2 // 3 % 4 - -a / lit(2) ** b),
        ("(a > 1) & (b > 2) | ~(a == b)", (a > 1) & (b > 2) | ~(a == b)),
        ("abs(a) > 1", a.abs() > 1),
        ("round(a, 2) == a.floor()", a.round(2) == a.floor()),
        ("is_null(a) or isnan(b) or is_valid(a)", a.is_null() | b.is_nan() | a.is_not_null()),
        ("is_in(a, [1, 2])", a.is_in([1, 2])),
        ("a.between(1, 2)", a.between(1, 2)),
        (
            "name.str.lower().str.starts_with('x', ignore_case=True)",
            name.str.lower().str.starts_with("x", ignore_case=True),
        ),
        ("name.str.len() > 3", name.str.len() > 3),
        ("a.dt.year() == 2024 and a >= '2024-01-01'", (a.dt.year() == 2024) & (a >= "2024-01-01")),
        ("a.list[0] == a.list[1:-1].list.get(2)", a.list[0] == a.list[1:-1].list.get(2)),
        ("a.struct['x'] > a.map.get('y')", a.struct["x"] > a.map.get("y")),
        ("a.x.y > 1", a.struct["x"].struct["y"] > 1),
        ("col('odd name') > lit(1)", col("odd name") > lit(1)),
        ("1 if a else b", when(a).then(1).otherwise(b)),
        ("when(a).then(1).when(b).then(2).otherwise(3) == 1", when(a).then(1).when(b).then(2).otherwise(3) == 1),
        ("coalesce(a, b, 0) == 1", coalesce(a, b, 0) == 1),
        ("a.fill_null(0).cast('int32')", a.fill_null(0).cast("int32")),
        ("True", lit(True)),
        ("  a\n", a),
        ("a == b'x'", a == b"x"),
        ("+a > +1", a > 1),
        ("(a\n > 1)", a > 1),
    ],
)
def test_text_is_read_as_what_it_says(text: str, expected: expressions.Expr) -> None:
    assert parse.parse(text).structurally_equals(expected), parse.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no expression"),
        ("a >", "is no expression"),
        ("a = 1", "is no expression"),
        ("a; b", "is no expression"),
        ("a == None", "write `is None`"),
        ("None != a", "write `is None`"),
        ("a is 1", "where only None can"),
        ("a in b", "where only a list of values can"),
        ("a in 'text'", r"\.str\.contains"),
        ("a in [b]", "where only a value can"),
        ("__import__('os').system('true')", "there is no function '__import__'"),
        ("a.__class__()", "there is no method '__class__'"),
        ("a._call('+')", "there is no method '_call'"),
        ("a.str._of('upper')", "there is no method '_of'"),
        ("a.str.uper()", "did you mean 'upper'"),
        ("a.structurally_equals(b)", "there is no method"),
        ("eval('a')", "there is no function 'eval'"),
        ("col(a)", "has to name one column"),
        ("a.str", "is not complete"),
        ("when(a)", "is not complete"),
        ("when(a).otherwise(1)", "there is no method 'otherwise'"),
        ("a.str > 1", "is not complete"),
        ("a[0]", r"\.list\[0\]"),
        ("a()", "there is no function 'a'"),
        ("a()()", "calls what is no function"),
        ("lambda: a", "is no part of an expression"),
        ("[a for a in b]", "is no part of an expression"),
        ("{'a': 1}", "is no part of an expression"),
        ("f'{a}'", "is no part of an expression"),
        ("(a := 1)", "is no part of an expression"),
        ("await a", "is no part of an expression"),
        ("...", "has no meaning here"),
        ("a @ b", "is no part of an expression"),
        ("a << 1", "is no part of an expression"),
        ("abs(*a)", r"has \* or \*\* in it"),
        ("abs()", "wants an argument"),
        ("abs(a, 1)", "positional argument"),
        ("a.str.contains(1)", "must be a string"),
        ("a.str.match_regex('(')", "no regular expression"),
        ("a.cast('int65')", "a type is one of"),
        ("a.str.lpad(b)", "must be an integer"),
        ("a.list[b]", "where only a value can"),
        ("a > 1j", "cannot stand in an expression"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(expressions.ExpressionError, match=says):
        parse.parse(text)


def test_text_has_bounds() -> None:
    for text in ("a+" * 100_000 + "a", "(" * 5_000 + "a" + ")" * 5_000, "~" * 50_000 + "a"):
        with pytest.raises(expressions.ExpressionError):
            parse.parse(text)
    with pytest.raises(expressions.ExpressionError, match="at most"):
        parse.parse("a" * (parse.CHARS_MAX + 1))
    with pytest.raises(TypeError, match="is written as a string"):
        parse.parse(col("a"))  # type: ignore[arg-type] # what is tested


LEAVES = st.sampled_from(
    [col("a"), col("odd name"), col("it's"), lit(1), lit(-2), lit(0.5), lit("x"), lit(True), lit(None)]
)


def _grown(inner: st.SearchStrategy[expressions.Expr]) -> st.SearchStrategy[expressions.Expr]:
    symbols = st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "and", "or"])

    def binary(parts: tuple[str, expressions.Expr, expressions.Expr]) -> expressions.Expr:
        return expressions.Expr(nodes.Call(parts[0], (parts[1].node, parts[2].node)))

    return st.one_of(
        st.tuples(symbols, inner, inner).map(binary),
        inner.map(lambda one: ~one),
        inner.map(lambda one: -one),
        inner.map(lambda one: one.abs()),
        inner.map(lambda one: one.is_null()),
        inner.map(lambda one: one.is_in([1, None, -3])),
        inner.map(lambda one: one.str.replace("a'", '"b', max_replacements=2)),
        inner.map(lambda one: one.round(1).cast("float")),
        st.tuples(inner, inner).map(lambda two: coalesce(*two)),
        st.tuples(inner, inner, inner).map(lambda three: when(three[0]).then(three[1]).otherwise(three[2])),
    )


@given(expr=st.recursive(LEAVES, _grown, max_leaves=8))
@settings(max_examples=200, deadline=None, database=None, derandomize=True)
def test_what_is_printed_is_read_as_the_same(expr: expressions.Expr) -> None:
    assert parse.parse(repr(expr)).structurally_equals(expr), repr(expr)


@given(expr=st.recursive(LEAVES, _grown, max_leaves=8))
@example(expr=expressions.Expr(nodes.Call("%", (nodes.literal("x"), nodes.Column("a")))))
@settings(max_examples=100, deadline=None, database=None, derandomize=True)
def test_what_is_printed_is_python_for_the_same(expr: expressions.Expr) -> None:
    names: dict[str, Any] = {"col": col, "lit": lit, "when": when, "coalesce": coalesce}
    assert eval(repr(expr), names).structurally_equals(expr), repr(expr)
