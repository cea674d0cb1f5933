"""How large blocks are, and blocks of a good size.

A table may show a few rows of buffers that are far larger: pickling sends the whole buffers, and keeping it keeps them. Sizes
here are of what a table shows; `compact` makes it hold no more than about that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import schemas

OFFSET_BYTES_MAX: Final = 2**31 - 1  # what the offsets of strings and lists, of 32 bits, can address in one array
_WASTE_MAX: Final = 2.0  # a copy moves what is shown, sending moves all: more waste than content is not worth sending
_SLACK_BYTES: Final = 4 << 10  # of waste in a column that is not worth the few microseconds of a copy
_SMALL_BYTES: Final = 64 << 10  # the overhead of smaller arrays, on average, counts more than a copy of them
_SPLIT_TOLERANCE: Final = 1.5  # a piece this much above its target is still let pass: rows differ in size


def size_bytes(table: pa.Table) -> int:
    """Of the rows that the table shows, without what else its buffers hold, but a dictionary as a whole. Takes microseconds."""
    return int(table.nbytes)


def compact(table: pa.Table) -> pa.Table:
    """The table itself, or one with the same rows whose buffers hold little else and whose arrays are not tiny."""
    columns = table.columns
    compacted = [_compacted(column) for column in columns]
    is_changed = any(new is not old for new, old in zip(compacted, columns, strict=True))
    return pa.Table.from_arrays(compacted, schema=table.schema) if is_changed else table


def contiguous(column: pa.ChunkedArray, *, offset_bytes_max: int = OFFSET_BYTES_MAX) -> pa.Array:
    """The column as one array, not copied if it is one already; of a `large_` type if its strings or lists need that, with wider
    indices if its dictionaries do."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if not column.num_chunks:  # which PyArrow 26 cannot combine where they are of tensors
        return _empty(column.type)
    if column.nbytes > offset_bytes_max:
        column = column.cast(_large(column.type))
    if pa.types.is_dictionary(column.type) and pa.types.is_float16(column.type.value_type):
        # PyArrow 26 takes them for integers where it unites their dictionaries.
        plain_values = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], column.type.value_type)
        return contiguous(plain_values).dictionary_encode().cast(column.type)
    try:
        combined = column.combine_chunks()
    except pa.ArrowInvalid:
        if not pa.types.is_dictionary(column.type):
            raise
        # More values together than the indices can tell apart.
        wide = pa.dictionary(pa.int32(), column.type.value_type, column.type.ordered)
        combined = column.cast(wide).combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def plain(table: pa.Table, *, narrow: bool = False) -> pa.Table:
    """The table without views and run-ends, which kernels lack functions for. narrow: and with offsets of 32 bits where they
    suffice, for a table whose maker always has the large ones."""
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if pa.types.is_run_end_encoded(column.type):
            column = pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], column.type.value_type)
        target = _plain(column.type, narrow and column.nbytes <= OFFSET_BYTES_MAX)
        if not target.equals(field.type):
            table = table.set_column(index, field.with_type(target), schemas.cast(column, target))
    return table


def _empty(data_type: pa.DataType) -> pa.Array:
    if isinstance(data_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(data_type, pa.array([], data_type.storage_type))
    return pa.array([], data_type)


def split(table: pa.Table, target_bytes: int) -> Iterator[pa.Table]:
    """The table's rows in order, in slices of about the size; a row that is larger is a slice of its own. No rows, no slices."""
    if not table.num_rows:
        return
    total = size_bytes(table)
    if total <= target_bytes * _SPLIT_TOLERANCE or table.num_rows == 1:
        yield table
        return
    count = min(math.ceil(total / target_bytes), table.num_rows)
    bounds = [table.num_rows * index // count for index in range(count + 1)]
    for start, stop in itertools.pairwise(bounds):
        # Rows of unequal sizes: the piece may be too large yet. It is smaller than the whole, so this ends.
        yield from split(table.slice(start, stop - start), target_bytes)


def _compacted(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = _with_used_values(column)
    if column.num_chunks > 1 and column.nbytes < _SMALL_BYTES * column.num_chunks:
        combined = contiguous(column)
        if combined.type.equals(column.type):
            return pa.chunked_array([combined])
    if column.get_total_buffer_size() <= column.nbytes * _WASTE_MAX + _SLACK_BYTES:
        return column
    return pa.chunked_array([_copied(chunk) for chunk in column.chunks], column.type)


def _copied(array: pa.Array) -> pa.Array:
    # Concatenating copies what is shown, whatever the type, and is several times as fast as `take`. It needs two.
    return pa.concat_arrays([array, array[:0]])


def _with_used_values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without most of the dictionary, if that is far larger than the rows: a slice keeps the whole of it."""
    chunks = column.chunks
    wasteful = [len(one.dictionary) > len(one) * _WASTE_MAX and one.dictionary.nbytes > _SLACK_BYTES for one in chunks]
    if not any(wasteful):
        return column
    return pa.chunked_array(
        [_encoded_anew(one) if is_so else one for one, is_so in zip(chunks, wasteful, strict=True)], column.type
    )


def _encoded_anew(array: pa.DictionaryArray) -> pa.DictionaryArray:
    used = array.dictionary_decode().dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        used.indices.cast(array.type.index_type), used.dictionary, ordered=array.type.ordered
    )


def _large(data_type: pa.DataType) -> pa.DataType:
    """The type with offsets of 64 bits, at every depth."""
    if pa.types.is_string(data_type):
        return pa.large_string()
    if pa.types.is_binary(data_type):
        return pa.large_binary()
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        return pa.large_list(_large_field(data_type.value_field))
    if pa.types.is_fixed_size_list(data_type):
        return pa.list_(_large_field(data_type.value_field), data_type.list_size)
    if pa.types.is_struct(data_type):
        return pa.struct([_large_field(field) for field in data_type])
    return data_type


def _plain(data_type: pa.DataType, narrow: bool) -> pa.DataType:
    types = pa.types

    def inside(field: pa.Field) -> pa.Field:
        return field.with_type(_plain(field.type, narrow))

    if types.is_string_view(data_type) or (narrow and types.is_large_string(data_type)):
        return pa.string()
    if types.is_binary_view(data_type) or (narrow and types.is_large_binary(data_type)):
        return pa.binary()
    if types.is_list(data_type) or types.is_list_view(data_type) or (narrow and types.is_large_list(data_type)):
        return pa.list_(inside(data_type.value_field))
    if types.is_large_list(data_type) or types.is_large_list_view(data_type):
        return pa.large_list(inside(data_type.value_field))
    if types.is_fixed_size_list(data_type):
        return pa.list_(inside(data_type.value_field), data_type.list_size)
    if types.is_struct(data_type):
        return pa.struct([inside(field) for field in data_type])
    if types.is_map(data_type):
        return pa.map_(inside(data_type.key_field), inside(data_type.item_field))
    if types.is_dictionary(data_type):
        return pa.dictionary(data_type.index_type, _plain(data_type.value_type, narrow), data_type.ordered)
    return data_type


def _large_field(field: pa.Field) -> pa.Field:
    return field.with_type(_large(field.type))
