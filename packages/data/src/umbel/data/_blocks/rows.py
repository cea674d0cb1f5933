"""Rows, as dicts, to tables and back."""

from __future__ import annotations

import itertools
import types as python_types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from umbel.data._blocks import inference, schemas, sizes, unpacking

_WINDOW_FIRST: Final = 16  # rows converted at once: few at first, for whoever takes only some,
_WINDOW_MAX: Final = (
    4096  # and then as many as make a column's own cost small, without holding a whole block as objects
)


def from_rows(
    rows: Sequence[Mapping[str, object]],
    *,
    schema: pa.Schema | None = None,
    types: Mapping[str, pa.DataType] = python_types.MappingProxyType({}),
    like: pa.Schema | None = None,
) -> pa.Table:
    """A table of the rows, with columns as their keys are first seen; a key that a row lacks is null there.

    schema: the columns and their types; inferred from the values if it is None, but those of `types`, by name. like: of the
    rows that these were made of; what was uint64 there stays so, where it still fits: of such numbers alone one cannot tell,
    and half of them are no int64.
    Raises TypeError and ValueError that name the column and the row.
    """
    classes: set[type] = set(map(type, rows))
    if not all(issubclass(cls, Mapping) for cls in classes):
        index, row = next((index, row) for index, row in enumerate(rows) if not isinstance(row, Mapping))
        raise TypeError(
            f"row {index} must be a dict with a value for each column, got {type(row).__name__}: {row!r:.60}"
        )
    names = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"the name of a column must be a str, got {name!r}; make the rows' keys strings")
    if schema is None:
        if not names:
            return schemas.without_columns(len(rows))
        columns = {name: [row.get(name) for row in rows] for name in names}
        made = [
            inference.from_values(values, name=name, data_type=types[name])
            if name in types
            else _inferred(values, name, like)
            for name, values in columns.items()
        ]
        return pa.Table.from_arrays(made, names)
    surplus = [name for name in names if schema.get_field_index(name) < 0]
    if surplus:
        raise ValueError(
            f"the rows have the key {surplus[0]!r}, which the schema has not: its columns are {', '.join(schema.names)}"
        )
    return pa.Table.from_arrays([_typed(rows, field) for field in schema], schema=schema)


def iter_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Each row as a dict: Python's values, with ndarrays for tensors, which are views that cannot be written to."""
    if not table.num_columns:
        yield from ({} for _ in range(table.num_rows))
        return
    names, start, window = table.column_names, 0, _WINDOW_FIRST
    while start < table.num_rows:
        part = table.slice(start, window)
        values = [unpacking.to_values(sizes.contiguous(column)) for column in part.columns]
        for row in zip(*values):  # noqa: B905  # they are of one length, and `strict` costs
            yield dict(zip(names, row))  # noqa: B905
        start, window = start + window, min(2 * window, _WINDOW_MAX)


def _inferred(values: list[object], name: str, like: pa.Schema | None) -> pa.Array:
    known = None if like is None or like.get_field_index(name) < 0 else like.field(name).type
    if known == pa.uint64() and all(value is None or (type(value) is int and value >= 0) for value in values):
        try:
            return pa.array(values, known)
        except OverflowError:
            pass  # below, by one who can say which value it is
    try:
        return inference.from_values(values, name=name)
    except ValueError:
        if known is None or not schemas.holds(known, pa.types.is_uint64):
            raise
        return inference.from_values(values, name=name, data_type=known)


def _typed(rows: Sequence[Mapping[str, object]], field: pa.Field) -> pa.Array:
    values = [row.get(field.name) for row in rows]
    missing = next((index for index, value in enumerate(values) if value is None), None)
    if missing is not None and not field.nullable:
        raise ValueError(
            f"column {field.name!r}, row {missing}: there is no value, and the schema says that it may not be null"
        )
    return inference.from_values(values, name=field.name, data_type=field.type)
