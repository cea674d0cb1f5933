"""Expressions as filters of other libraries, which pass over files and row groups by them.

Only what keeps provably the same rows: of what `pushdown` hands to Arrow's readers, a column compared with a value, is_in,
is_null, is_not_null, a boolean column, and these joined by `&` and `|`. Not `!=` and negations, of which each library has
its own rules for null and NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import pyarrow as pa

if TYPE_CHECKING:
    from umbel.data._expressions import nodes
    from umbel.data._expressions.expr import Expr

Made = TypeVar("Made")


class Maker(Protocol, Generic[Made]):
    """Makes filters of one library. Values are Python's, in the column's type; None where it has no such filter."""

    def compared(self, column: pa.Field, symbol: str, value: Any) -> Made | None:
        """symbol: ==, <, <=, > or >=."""

    def among(self, column: pa.Field, values: Sequence[Any]) -> Made | None: ...

    def missing(self, column: pa.Field) -> Made | None: ...

    def present(self, column: pa.Field) -> Made | None: ...

    def both(self, left: Made, right: Made) -> Made: ...

    def either(self, left: Made, right: Made) -> Made: ...


def split(expr: Expr, schema: pa.Schema, maker: Maker[Made]) -> tuple[Made | None, Expr | None]:
    """The filter, and what is left to be evaluated on the rows that pass it; None for nothing."""
    from umbel.data._expressions import nodes, pushdown
    from umbel.data._expressions.expr import Expr

    if not nodes.is_deterministic(expr.node):
        return None, expr
    pushed: Made | None = None
    residual: list[nodes.Node] = []
    for part in nodes.conjuncts(expr.node):
        found = None if pushdown.to_pyarrow(part, schema) is None else _made(part, schema, maker)
        if found is None:
            residual.append(part)
        else:
            pushed = found if pushed is None else maker.both(pushed, found)
    return pushed, Expr(nodes.conjunction(tuple(residual))) if residual else None


def _made(node: nodes.Node, schema: pa.Schema, maker: Maker[Made]) -> Made | None:
    from umbel.data._expressions import comparing, nodes

    node = nodes.unaliased(node)
    if isinstance(node, nodes.Column):
        return maker.compared(schema.field(node.name), "==", True)
    if not isinstance(node, nodes.Call):
        return None
    if node.function in ("and", "or"):
        left, right = (_made(arg, schema, maker) for arg in node.args)
        if left is None or right is None:
            return None
        return maker.both(left, right) if node.function == "and" else maker.either(left, right)
    column, other, symbol = nodes.unaliased(node.args[0]), nodes.unaliased(node.args[-1]), node.function
    if isinstance(column, nodes.Literal) and symbol in comparing.FLIPPED:
        column, other, symbol = other, column, comparing.FLIPPED[symbol]
    if not isinstance(column, nodes.Column):
        return None
    field = schema.field(column.name)
    if symbol == "is_null":
        return maker.missing(field)
    if symbol == "is_not_null":
        return maker.present(field)
    if not isinstance(other, nodes.Literal):
        return None
    if symbol == "is_in":
        return _membership(field, other.scalar.values, maker)
    return maker.compared(field, symbol, _value(other.scalar, field.type)) if symbol in _COMPARISONS else None


_COMPARISONS = ("==", "<", "<=", ">", ">=")


def _membership(field: pa.Field, members: pa.Array, maker: Maker[Made]) -> Made | None:
    """None among the values stands for null."""
    values = [_value(member, field.type) for member in members.drop_null()]
    found = maker.among(field, values) if values else None
    if not members.null_count:
        return found
    missing = maker.missing(field)
    return missing if found is None or missing is None else maker.either(found, missing)


def _value(scalar: pa.Scalar, data_type: pa.DataType) -> Any:
    """In the type of the column, which holds it: `pushdown` has looked."""
    from umbel.data._expressions import promotion

    value = promotion.converted(promotion.Operand(scalar, is_weak=True), data_type)
    return None if value is None else value.as_py()
