"""What becomes of types that a format does not have: the nearest type that holds all of their values, or an error that names the
column.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from umbel.data._blocks import schemas

Restated = Callable[[pa.DataType], pa.DataType | None]


def schema(given: pa.Schema, restated: Restated, *, of: str) -> pa.Schema:
    """restated: what a type that has no other within it becomes, None where the format has nothing like it. Raises TypeError."""
    return pa.schema([field.with_type(_restated(field.type, restated, field, of)) for field in given])


def table(given: pa.Table, restated: Restated, *, of: str) -> pa.Table:
    """Raises ValueError too, where a value does not fit."""
    wanted = schema(given.schema, restated, of=of)
    return given if wanted.equals(given.schema) else schemas.conform(given, wanted)


def signed(data_type: pa.DataType) -> pa.DataType:
    """For formats without unsigned integers and dictionaries. Of uint64, what is beyond int64 does not fit."""
    if pa.types.is_dictionary(data_type):
        return data_type.value_type
    if pa.types.is_unsigned_integer(data_type):
        return {8: pa.int16(), 16: pa.int32()}.get(data_type.bit_width, pa.int64())
    return data_type


def _restated(data_type: pa.DataType, restated: Restated, field: pa.Field, of: str) -> pa.DataType:
    def inside(one: pa.Field) -> pa.Field:
        return one.with_type(_restated(one.type, restated, field, of))

    if pa.types.is_struct(data_type):
        return pa.struct([inside(one) for one in data_type])
    if pa.types.is_map(data_type):
        return pa.map_(inside(data_type.key_field), inside(data_type.item_field))
    if pa.types.is_list(data_type):
        return pa.list_(inside(data_type.value_field))
    if pa.types.is_large_list(data_type):
        return pa.large_list(inside(data_type.value_field))
    if pa.types.is_fixed_size_list(data_type):
        return pa.list_(inside(data_type.value_field), data_type.list_size)
    found = None if isinstance(data_type, pa.BaseExtensionType) else restated(data_type)
    if found is None:
        raise TypeError(f"column {field.name!r} is {field.type}, which {of} cannot hold; cast it or drop it")
    return found
