"""Expressions as filters of Iceberg, by which whole files and row groups are passed over.

Only what keeps provably the same rows: what `pushdown` hands to Arrow's readers, without `!=` and negations, of which
Iceberg's rules for null and NaN are not ours.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

if TYPE_CHECKING:
    from umbel.data._expressions import nodes
    from umbel.data._expressions.expr import Expr

_COMPARISONS: Final = {
    "==": "EqualTo",
    "<": "LessThan",
    "<=": "LessThanOrEqual",
    ">": "GreaterThan",
    ">=": "GreaterThanOrEqual",
}


def of(given: Any, schema: pa.Schema, *, option: str) -> Any:
    """What is given as a filter, for pyiceberg: text and its own expressions as they are, ours converted. Raises ValueError where
    one of ours cannot be."""
    from umbel.data._expressions.expr import Expr

    if not isinstance(given, Expr):
        return given
    pushed, residual = split(given, schema)
    if residual is not None:
        raise ValueError(
            f"{option} cannot be {residual!r}: Iceberg compares a column with a value by ==, <, <=, >, >=, or by is_in, is_null "
            "and is_not_null, joined by & and |; pass what it does otherwise as text"
        )
    return pushed


def split(expr: Expr, schema: pa.Schema) -> tuple[Any | None, Expr | None]:
    """The filter, and what is left to be evaluated on the rows that pass it; None for nothing."""
    from umbel.data._expressions import nodes, pushdown
    from umbel.data._expressions.expr import Expr

    if not nodes.is_deterministic(expr.node):
        return None, expr
    pushed: list[Any] = []
    residual: list[nodes.Node] = []
    for part in nodes.conjuncts(expr.node):
        found = None if pushdown.to_pyarrow(part, schema) is None else _converted(part, schema)
        if found is None:
            residual.append(part)
        else:
            pushed.append(found)
    left = Expr(nodes.conjunction(tuple(residual))) if residual else None
    return (both(pushed) if pushed else None), left


def both(filters: Sequence[Any]) -> Any:
    from pyiceberg.expressions import And

    return functools.reduce(And, filters)


def _converted(node: nodes.Node, schema: pa.Schema) -> Any | None:
    from pyiceberg import expressions as iceberg

    from umbel.data._expressions import comparing, nodes

    node = nodes.unaliased(node)
    if isinstance(node, nodes.Column):
        return iceberg.EqualTo(node.name, True)
    if not isinstance(node, nodes.Call):
        return None
    if node.function in ("and", "or"):
        left, right = (_converted(arg, schema) for arg in node.args)
        if left is None or right is None:
            return None
        return iceberg.And(left, right) if node.function == "and" else iceberg.Or(left, right)
    column = nodes.unaliased(node.args[0])
    if node.function in ("is_null", "is_not_null") and isinstance(column, nodes.Column):
        return iceberg.IsNull(column.name) if node.function == "is_null" else iceberg.NotNull(column.name)
    if node.function == "is_in" and isinstance(column, nodes.Column) and isinstance(node.args[1], nodes.Literal):
        values = [_value(one, schema.field(column.name).type) for one in node.args[1].scalar.values or ()]
        found = iceberg.In(column.name, [value for value in values if value is not None])
        return iceberg.Or(found, iceberg.IsNull(column.name)) if None in values else found
    symbol, other = node.function, node.args[-1]
    if isinstance(column, nodes.Literal):
        column, other, symbol = nodes.unaliased(other), column, comparing.FLIPPED.get(symbol, symbol)
    if symbol not in _COMPARISONS or not isinstance(column, nodes.Column) or not isinstance(other, nodes.Literal):
        return None
    kind = getattr(iceberg, _COMPARISONS[symbol])
    return kind(column.name, _value(other.scalar, schema.field(column.name).type))


def _value(scalar: pa.Scalar, data_type: pa.DataType) -> Any:
    """As Python's, in the type of the column, which holds it: `pushdown` has looked."""
    from umbel.data._expressions import promotion

    if not scalar.is_valid:
        return None
    value = promotion.converted(promotion.Operand(scalar, is_weak=True), data_type)
    return None if value is None else value.as_py()
