"""Filters as those of Arrow's datasets, where they keep provably the same rows.

A reader compares its filter with the statistics of a row group before it reads it, and those do not know nan: a group
of 6 and nan says that its least value is 6, so it would be dropped by ~(x > 5), which nan satisfies. A reader also
converts types on its own. So what is handed over is this, and nothing else: a column compared with a value that its
type holds exactly, is_in of such values, is_null, a boolean column, and these joined by and and or; of floats only
what nan does not satisfy. Not is resolved before: ~(a < b) is a >= b.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as at

from umbel.data._expressions import comparing, errors, nodes, promotion, typing
from umbel.data._expressions.expr import Expr
from umbel.data._expressions.promotion import Operand

_OPPOSITE: Final = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_COMPARE: Final[dict[str, Callable[..., pc.Expression]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Split(NamedTuple):
    """pushed: what the reader filters by; residual: what is left to do on its rows. None: nothing."""

    pushed: pc.Expression | None
    residual: Expr | None


def to_pyarrow(expr: nodes.Tree, schema: pa.Schema) -> pc.Expression | None:
    """A filter that keeps the rows that `evaluate.filter` keeps, or None. schema: of the data that is filtered.

    Raises what `typing.check_filter` raises.
    """
    typing.check_filter(expr, schema)
    return _converted(nodes.tree(expr), schema, is_negated=False)


def split(expr: nodes.Tree, schema: pa.Schema) -> Split:
    """The parts of a conjunction that convert, and the rest in its order. What converts fails for no row, so that it
    may go first."""
    typing.check_filter(expr, schema)
    if not nodes.is_deterministic(
        nodes.tree(expr)
    ):  # it depends on the numbers of the rows, which a filter before it would change
        return Split(None, Expr(nodes.unaliased(nodes.tree(expr))))
    pushed: pc.Expression | None = None
    residual: list[nodes.Node] = []
    for part in nodes.conjuncts(nodes.tree(expr)):
        found = _converted(part, schema, is_negated=False)
        if found is None:
            residual.append(part)
        else:
            pushed = found if pushed is None else pushed & found
    return Split(pushed, Expr(nodes.conjunction(tuple(residual))) if residual else None)


def _converted(node: nodes.Node, schema: pa.Schema, *, is_negated: bool) -> pc.Expression | None:
    """Of the node or its negation. True where that is true, and null or false where it is either: a filter drops both."""
    node = nodes.unaliased(node)
    if isinstance(node, nodes.Column):
        field = _field(node, schema, at.is_boolean)
        return None if field is None else (~field if is_negated else field)
    if not isinstance(node, nodes.Call):
        return None
    if node.function == "not":
        return _converted(node.args[0], schema, is_negated=not is_negated)
    if node.function in ("and", "or"):
        left, right = (_converted(arg, schema, is_negated=is_negated) for arg in node.args)
        if left is None or right is None:
            return None
        return left & right if (node.function == "and") is not is_negated else left | right
    if node.function in ("is_null", "is_not_null"):
        field = _field(node.args[0], schema, _has_statistics)
        if field is None:
            return None
        return field.is_null() if (node.function == "is_null") is not is_negated else field.is_valid()
    if node.function == "is_in":
        return _membership(node, schema, is_negated=is_negated)
    if node.function in _OPPOSITE:
        return _comparison(node, schema, is_negated=is_negated)
    return None


def _comparison(node: nodes.Call, schema: pa.Schema, *, is_negated: bool) -> pc.Expression | None:
    symbol = node.function
    column, other = node.args
    if isinstance(column, nodes.Literal):
        column, other, symbol = other, column, comparing.FLIPPED[symbol]
    field = _field(column, schema, _has_statistics)
    if field is None or not isinstance(other, nodes.Literal) or not isinstance(column, nodes.Column):
        return None
    type_ = schema.field(column.name).type
    if at.is_floating(type_) and (is_negated or symbol == "!="):
        return None
    value = _exactly(other.scalar, type_, is_weak=other.is_weak)
    if value is None:
        return None
    return _COMPARE[_OPPOSITE[symbol] if is_negated else symbol](field, pc.scalar(value))


def _membership(node: nodes.Call, schema: pa.Schema, *, is_negated: bool) -> pc.Expression | None:
    column, among = node.args
    field = _field(column, schema, _has_statistics)
    if field is None or not isinstance(column, nodes.Column) or not isinstance(among, nodes.Literal):
        return None
    type_ = schema.field(column.name).type
    if at.is_floating(type_):
        return None
    values = among.scalar.values
    if values is None:
        return None
    members = values.drop_null()
    scalars = [_exactly(member, type_, is_weak=among.is_weak) for member in members]
    if any(scalar is None for scalar in scalars):
        return None
    found = field.isin(pa.array(scalars, type_))
    has_null = len(members) < len(values)
    if is_negated:
        return ~found & field.is_valid()
    return found | field.is_null() if has_null else found


def _field(node: nodes.Node, schema: pa.Schema, is_fit: Callable[[pa.DataType], bool]) -> pc.Expression | None:
    node = nodes.unaliased(node)
    if not isinstance(node, nodes.Column) or not is_fit(schema.field(node.name).type):
        return None
    return pc.field((node.name,))  # as a path, or a dot in the name would be a part of a struct


def _has_statistics(type_: pa.DataType) -> bool:
    """Types whose values a reader compares as we do, given one of the same type."""
    return bool(
        at.is_integer(type_)
        or at.is_float32(type_)
        or at.is_float64(type_)
        or at.is_boolean(type_)
        or promotion.is_text(type_)
        or at.is_binary(type_)
        or at.is_large_binary(type_)
        or at.is_date32(type_)
        or at.is_timestamp(type_)
        or at.is_decimal128(type_)
    )


def _exactly(scalar: pa.Scalar, type_: pa.DataType, *, is_weak: bool) -> pa.Scalar | None:
    """The value in the column's type, if it is comparable to it and is held by it; nan and null are not."""
    if not scalar.is_valid:
        return None
    if at.is_floating(scalar.type) and scalar.as_py() != scalar.as_py():
        return None
    if not is_weak and not scalar.type.equals(type_):
        return None
    try:
        return promotion.converted(Operand(scalar, is_weak=True), type_)
    except errors.Problem:
        return None
