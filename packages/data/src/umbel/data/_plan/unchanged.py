"""Columns that a function of rows hands on: they keep their types.

A row has Python's values, which do not tell int8 from int64, nor the width of a decimal or the unit of a time. A column is
handed on where each value that comes out is the very object that went in, under the same name; what a function computes has the
type of its values.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from umbel.data._blocks import rows, schemas

_TOLD: Final = frozenset(
    one.id for one in (pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.binary(), pa.date32(), pa.null())
)


def watched(schema: pa.Schema) -> tuple[str, ...]:
    """The columns whose values do not tell their type."""
    return tuple(field.name for field in schema if field.type.id not in _TOLD)


class Unchanged:
    """Of the rows of one block that comes out."""

    def __init__(self) -> None:
        self._types: dict[str, pa.DataType] = {}
        self._differing: set[str] = set()
        self._counts: collections.Counter[str] = collections.Counter()  # rows in which it was handed on
        self._schema = schemas.EMPTY

    def add(self, row: Mapping[str, Any], given: Mapping[str, Any], schema: pa.Schema) -> None:
        """given: what the function got for this row, of the columns that are watched."""
        if schema is not self._schema:
            for name in given:
                type_ = schema.field(name).type
                if not self._types.setdefault(name, type_).equals(type_):
                    self._differing.add(name)
            self._schema = schema
        for name, value in given.items():
            if row.get(name, self) is value:
                self._counts[name] += 1

    def table(self, made: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Of the rows, which are all that were added."""
        kept = [name for name, count in self._counts.items() if count == len(made) and name not in self._differing]
        types = {name: self._types[name] for name in kept}
        try:
            found = rows.from_rows(made, types=types, like=self._schema)
        except (TypeError, ValueError):  # a list may be the same one and have other values now
            found = rows.from_rows(made, like=self._schema)
        for index, field in enumerate(found.schema):
            known = self._schema.get_field_index(field.name)
            if pa.types.is_null(field.type) and known >= 0:  # of no value, it is what it was
                type_ = self._schema.field(known).type
                found = found.set_column(index, field.with_type(type_), schemas.cast(found.column(index), type_))
        return found
