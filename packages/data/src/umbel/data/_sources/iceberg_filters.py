"""Expressions as filters of Iceberg."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from umbel.data._sources import plain_filters

if TYPE_CHECKING:
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
    return plain_filters.split(expr, schema, _Maker())


class _Maker:
    def compared(self, column: pa.Field, symbol: str, value: Any) -> Any:
        from pyiceberg import expressions

        return getattr(expressions, _COMPARISONS[symbol])(column.name, value)

    def among(self, column: pa.Field, values: Sequence[Any]) -> Any:
        from pyiceberg import expressions

        return expressions.In(column.name, values)

    def missing(self, column: pa.Field) -> Any:
        from pyiceberg import expressions

        return expressions.IsNull(column.name)

    def present(self, column: pa.Field) -> Any:
        from pyiceberg import expressions

        return expressions.NotNull(column.name)

    def both(self, left: Any, right: Any) -> Any:
        from pyiceberg import expressions

        return expressions.And(left, right)

    def either(self, left: Any, right: Any) -> Any:
        from pyiceberg import expressions

        return expressions.Or(left, right)
