"""The types of a function's input, on its output.

NumPy, pandas and polars know fewer types than Arrow: a zoned time comes back without its zone, a list as an array, a narrow
decimal or dictionary as whatever its values suggest. A column that comes back under its old name, in the form in which its old
type is handed out, gets that type again, if every value fits; any other type is the function's will and stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import inference, schemas, sizes, tensors, unpacking

Arrays = Literal["columns", "lists", "none"]
"""Which values were ndarrays, whose times are those of UTC: elsewhere, a time without a zone is meant so."""


def restore(table: pa.Table, like: pa.Schema, arrays: Mapping[str, Arrays]) -> pa.Table:
    """The table with the types of `like` where its columns are these types' images. arrays: by column; "none" if not there."""
    for index, field in enumerate(table.schema):
        known = like.get_field_index(field.name)
        if known < 0 or field.type.equals(like.field(known).type):
            continue
        original = like.field(known).type
        if _is_image(field.type, original, arrays=arrays.get(field.name, "none"), is_nested=False):
            restored = _restored(table.column(index), original)
            if restored is not None:
                table = table.set_column(index, field.with_type(original), restored)
    return table


def column_like(values: list[Any], *, name: str, like: pa.Schema | None) -> pa.Array:
    """A column of Python's values; a map, if it is one in `like`: lists of pairs say no longer that they were one."""
    known = -1 if like is None else like.get_field_index(name)
    if like is not None and known >= 0 and _has_map(like.field(known).type):
        try:
            return inference.from_values(values, name=name, data_type=like.field(known).type)
        except (TypeError, ValueError):
            pass  # it is something else now
    return inference.from_values(values, name=name)


def _has_map(data_type: pa.DataType) -> bool:
    return pa.types.is_map(data_type) or any(
        _has_map(data_type.field(index).type) for index in range(data_type.num_fields)
    )


def _is_image(observed: pa.DataType, original: pa.DataType, *, arrays: Arrays, is_nested: bool) -> bool:
    def inside(one: pa.DataType, other: pa.DataType, *, is_list: bool = False) -> bool:
        return _is_image(one, other, arrays="columns" if is_list and arrays != "none" else "none", is_nested=True)

    def both(*are: Any) -> bool:
        return all(any(is_one(one) for is_one in are) for one in (observed, original))

    types = pa.types
    if observed.equals(original) or types.is_null(observed):
        return True
    if types.is_dictionary(original):
        values = observed.value_type if types.is_dictionary(observed) else observed
        return _is_image(values, original.value_type, arrays=arrays, is_nested=is_nested)
    if both(types.is_integer) or both(types.is_floating):
        return is_nested  # within lists and structs they are Python's; an ndarray has its dtype, which is meant
    if both(types.is_timestamp):
        return _zone(observed.tz) == _zone(original.tz) or (observed.tz is None and arrays == "columns")
    if types.is_date64(original):
        return bool(types.is_date32(observed) or (types.is_timestamp(observed) and observed.tz is None))
    if tensors.is_tensor(original):
        return _is_tensor_image(observed, original)
    if isinstance(original, pa.BaseExtensionType):
        return inside(observed, original.storage_type)
    if schemas.is_list(original):
        if tensors.is_tensor(observed):
            inner = _innermost(original, tensors.dimensions(observed))
            return _is_image(observed.value_type, inner, arrays="columns", is_nested=False)
        return schemas.is_list(observed) and inside(observed.value_type, original.value_type, is_list=True)
    if both(types.is_struct):
        fields = {field.name: field.type for field in original}
        return all(field.name in fields and inside(field.type, fields[field.name]) for field in observed)
    if both(types.is_map):
        return inside(observed.key_type, original.key_type) and inside(observed.item_type, original.item_type)
    is_text = (types.is_string, types.is_large_string, types.is_string_view)
    is_binary = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return (
        both(*is_text) or both(*is_binary) or both(types.is_decimal) or both(types.is_time) or both(types.is_duration)
    )


def _zone(name: str | None) -> str | None:
    """polars says Etc/GMT-1 for +01:00."""
    offset = re.fullmatch(r"Etc/GMT([+-])(\d+)", name or "")
    return name if offset is None else f"{'-' if offset[1] == '+' else '+'}{int(offset[2]):02}:00"


def _innermost(lists: pa.DataType, depth: int) -> pa.DataType:
    """The type of the values so deep in lists; null if they are not so deep."""
    for _ in range(depth):
        lists = lists.value_type if schemas.is_list(lists) else pa.null()
    return lists


def _is_tensor_image(observed: pa.DataType, original: pa.DataType) -> bool:
    if tensors.is_tensor(observed):
        return bool(
            tensors.is_ragged(original)
            and tensors.dimensions(observed) == tensors.dimensions(original)
            and observed.value_type.equals(original.value_type)
        )
    if tensors.is_ragged(original):
        return pa.types.is_struct(observed) and {field.name for field in observed} == {"data", "shape"}
    shape = []  # polars has arrays of several axes, which are fixed-size lists within such
    while pa.types.is_fixed_size_list(observed):
        shape.append(observed.list_size)
        observed = observed.value_type
    return tuple(shape) == tensors.shape(original) and bool(observed.equals(original.value_type))


def _restored(column: pa.ChunkedArray, original: pa.DataType) -> pa.ChunkedArray | None:
    if not _floats_fit(column, original):
        return None
    try:
        return _cast(column, original)
    except (ValueError, NotImplementedError):
        return None  # a value does not fit, or PyArrow knows no way: the column stays as it came


def _cast(column: pa.ChunkedArray, original: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_null(column.type) or (tensors.is_tensor(original) and tensors.is_tensor(column.type)):
        return schemas.cast(column, original)
    if pa.types.is_dictionary(original):
        if pa.types.is_dictionary(column.type):
            column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)
        return _cast(column, original.value_type).dictionary_encode().cast(original)
    if tensors.is_fixed(original):
        arrays = [_tensor_of_lists(chunk, original) for chunk in column.chunks]
    elif isinstance(original, pa.BaseExtensionType):
        stored = column.cast(original.storage_type)
        arrays = [pa.ExtensionArray.from_storage(original, chunk) for chunk in stored.chunks]
    elif tensors.is_tensor(column.type):
        arrays = [_lists_of_tensors(chunk, original) for chunk in column.chunks]
    else:
        return schemas.cast(column, original)
    return pa.chunked_array(arrays, original)


def _tensor_of_lists(array: pa.Array, original: pa.DataType) -> pa.Array:
    mask = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    values = array
    for size in tensors.shape(original):
        values = values.values.slice(values.offset * size, len(values) * size)
    return tensors.from_numbers(values, (len(array), *tensors.shape(original)), mask)


def _lists_of_tensors(array: pa.Array, original: pa.DataType) -> pa.Array:
    if tensors.dimensions(array.type) > 1:
        rows = [None if row is None else row.tolist() for row in tensors.to_numpy(array)]
        return pa.array(rows, original)
    if tensors.is_fixed(array.type):
        return array.storage.cast(original)
    data, mask = array.storage.field("data"), array.is_null() if array.null_count else None
    return pa.LargeListArray.from_arrays(_from_zero(data.offsets), data.flatten(), mask=mask).cast(original)


def _from_zero(offsets: pa.Array) -> pa.Array:
    return pa.array(offsets.to_numpy() - offsets[0].as_py()) if len(offsets) else pa.array([0], pa.int64())


def _floats_fit(column: pa.ChunkedArray, original: pa.DataType) -> bool:
    """Whether no float would be rounded, which Arrow's checked casts do without a word."""
    observed = column.type
    if pa.types.is_floating(observed) and pa.types.is_floating(original) and observed.bit_width > original.bit_width:
        numbers = unpacking.to_numpy(sizes.contiguous(column))
        return bool(np.array_equal(numbers.astype(original.to_pandas_dtype()), numbers, equal_nan=True))
    if schemas.is_list(observed) and schemas.is_list(original):
        return _floats_fit(pc.list_flatten(column), original.value_type)
    if pa.types.is_struct(observed) and pa.types.is_struct(original):
        kinds = {field.name: field.type for field in original}
        return all(_floats_fit(pc.struct_field(column, field.name), kinds[field.name]) for field in observed)
    return True
