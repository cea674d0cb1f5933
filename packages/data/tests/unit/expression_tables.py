"""Columns for tests of expressions: the same values, laid out in memory in every way that a block may have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from umbel.data import expressions
from umbel.data._expressions import evaluate, typing

INT64 = (
    st.integers(-(2**63), 2**63 - 1)
    | st.integers(-20, 20)
    | st.sampled_from([2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)])
)
SMALL = st.integers(-9, 9)
FLOATS = st.floats(width=64) | st.integers(-9, 9).map(float) | st.sampled_from([2.0**53, 2.0**63, -(2.0**63)])
TEXTS = st.text(st.sampled_from("abAB ß,äÄ1%_\n"), max_size=8)


def values(of: st.SearchStrategy[Any], *, max_size: int = 16) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | of, max_size=max_size)


def pairs(a: st.SearchStrategy[Any], b: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[Any, Any]]]:
    return st.lists(st.tuples(st.none() | a, st.none() | b), max_size=16)


def layouts() -> st.SearchStrategy[Callable[[pa.Array], pa.ChunkedArray]]:
    return st.sampled_from([whole, sliced, chunked])


def whole(array: pa.Array) -> pa.ChunkedArray:
    return pa.chunked_array([array])


def sliced(array: pa.Array) -> pa.ChunkedArray:
    """A view into a longer array, as blocks that were cut are."""
    padding = pa.concat_arrays([array[:2], array, array[-1:]])
    return pa.chunked_array([padding.slice(len(array[:2]), len(array))])


def chunked(array: pa.Array) -> pa.ChunkedArray:
    """In chunks of 0, 1, 2, 3 rows, and so on."""
    chunks: list[pa.Array] = []
    start = 0
    while start < len(array) or not chunks:
        chunks.append(array.slice(start, len(chunks)))
        start += len(chunks[-1])
    return pa.chunked_array(chunks, array.type)


def table(layout: Callable[[pa.Array], pa.ChunkedArray] = whole, **columns: pa.Array) -> pa.Table:
    return pa.table({name: layout(column) for name, column in columns.items()})


def computed(expr: expressions.Expr, of: pa.Table) -> list[Any]:
    """Its values, having seen that the type is what was foretold."""
    found = evaluate.evaluate(expr, of)
    field = typing.field_of(expr, of.schema)
    assert found.type.equals(field.type), (found.type, field.type)
    assert len(found) == of.num_rows
    found.validate(full=True)
    assert field.nullable or found.null_count == 0
    return list(found.to_pylist())


def by_rows(function: Callable[..., Any], *columns: Sequence[Any]) -> list[Any]:
    """Python's answer: null for null."""
    rows = zip(*columns, strict=True)
    return [None if any(value is None for value in row) else function(*row) for row in rows]


def same(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Equal, and nan where nan is, and of the same kinds."""
    return len(found) == len(expected) and all(
        (one is None) == (other is None)
        and (one == other or (one != one and other != other))
        and type(one) is type(other)
        for one, other in zip(found, expected, strict=True)
    )
