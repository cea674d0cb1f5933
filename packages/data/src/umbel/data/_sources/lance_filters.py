"""Expressions as filters of Lance, which are text.

DataFusion evaluates them. Of floating point it takes NaN for the largest number, and -0.0 for less than 0.0; so they are of
integers, text and booleans only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umbel.data._sources import plain_filters

if TYPE_CHECKING:
    from umbel.data._expressions.expr import Expr


def split(expr: Expr, schema: pa.Schema) -> tuple[str | None, Expr | None]:
    return plain_filters.split(expr, schema, _Maker())


class _Maker:
    def compared(self, column: pa.Field, symbol: str, value: Any) -> str | None:
        name, text = _name(column), _text(value)
        if name is None or text is None or not _is_alike(column.type):
            return None
        return f"{name} {'=' if symbol == '==' else symbol} {text}"

    def among(self, column: pa.Field, values: Sequence[Any]) -> str | None:
        name, texts = _name(column), [_text(value) for value in values]
        if name is None or None in texts or not _is_alike(column.type):
            return None
        return f"{name} IN ({', '.join(map(str, texts))})"

    def missing(self, column: pa.Field) -> str | None:
        name = _name(column)
        return None if name is None else f"{name} IS NULL"

    def present(self, column: pa.Field) -> str | None:
        name = _name(column)
        return None if name is None else f"{name} IS NOT NULL"

    def both(self, left: str, right: str) -> str:
        return f"({left}) AND ({right})"

    def either(self, left: str, right: str) -> str:
        return f"({left}) OR ({right})"


def _name(column: pa.Field) -> str | None:
    return None if "`" in column.name or "." in column.name else f"`{column.name}`"


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 2**63 else None
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else None


def _is_alike(data_type: pa.DataType) -> bool:
    is_text = pa.types.is_string(data_type) or pa.types.is_large_string(data_type)
    return bool(is_text or pa.types.is_integer(data_type) or pa.types.is_boolean(data_type))
