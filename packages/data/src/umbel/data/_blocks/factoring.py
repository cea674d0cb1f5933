"""Which rows are equal: each row gets the number of its group.

Two values are equal as a key if they are the same value: NaN is NaN, -0.0 is 0.0, null is null, a dictionary's entry is what
it stands for, and a nested value is compared in all its parts. Everything is exact, nothing rests on hashes being different.
What groups, joins, counts distinct values or partitions a window begins here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import columns

_SPAN_PER_ROW: Final = 8  # integers that lie so densely are looked up by their value instead of being hashed
_SPAN_FREE: Final = 1 << 16  # and always in one that fits into the processor's cache


@dataclasses.dataclass(frozen=True)
class Factors:
    """ids: [rows] int64, the group of each row, in [0, count), not to be written to: they may be the table's own values.
    first: [count] int64, the first row of each group."""

    ids: np.ndarray
    count: int
    first: np.ndarray


def factors(arrays: Sequence[pa.Array], row_count: int) -> Factors:
    """The groups of rows that are equal in all arrays; one group of all rows if there is no array.

    The numbers of the groups are deterministic and in no order to rely on.
    """
    ids, count = codes(arrays, row_count)
    if count <= 1:
        return Factors(ids, count, np.zeros(count, np.int64))
    first = np.empty(count, np.int64)
    first[ids[::-1]] = np.arange(row_count - 1, -1, -1)  # the last one written stays, and that is the first row
    return Factors(ids, count, first)


def codes(arrays: Sequence[pa.Array], row_count: int) -> tuple[np.ndarray, int]:
    """As `factors`, without the first rows: the group of each row, and how many groups there are."""
    if not arrays:
        return np.zeros(row_count, np.int64), min(row_count, 1)
    ids, count = _codes(arrays[0])
    for array in arrays[1:]:
        more, more_count = _codes(array)
        ids, count = dense(ids * more_count + more, None)  # each count is at most that of the rows, below 2**31
    return ids, count


def dense(values: np.ndarray, is_valid: np.ndarray | None) -> tuple[np.ndarray, int]:
    """The number of each distinct int64 among those that occur, null being one more, and how many there are."""
    if not len(values):
        return np.zeros(0, np.int64), 0
    known = values if is_valid is None else values[is_valid]
    low, high = (int(known.min()), int(known.max())) if len(known) else (0, -1)
    span = high - low + 1
    if span > _SPAN_PER_ROW * len(values) + _SPAN_FREE:
        encoded = _encoded(pa.array(values, mask=None if is_valid is None else ~is_valid, from_pandas=False))
        return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)
    places = values if low == 0 and is_valid is None else values - low
    if span == 1 and is_valid is None:
        return places, 1
    if is_valid is not None:
        places[~is_valid] = span
        span += 1
    seen = np.zeros(span, bool)
    seen[places] = True
    if seen.all():
        return places, span
    ranks = np.cumsum(seen, dtype=np.int32)  # there are fewer than 2**31 rows
    ranks -= 1
    return ranks[places].astype(np.int64), int(ranks[-1]) + 1


def _codes(array: pa.Array) -> tuple[np.ndarray, int]:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _codes_of_dictionary(array)
    array = columns.plain(array)
    kind = array.type
    if pa.types.is_struct(kind):
        parts = [pa.array(array.is_valid()), *array.flatten()]
        return codes(parts, len(array))
    if columns.is_list(kind):
        return _codes_of_lists(array)
    if columns.is_number(kind):
        values, is_valid = columns.numbers(array)
        if values.dtype.kind == "f":
            values = canonical_bits(values)
        elif values.dtype == np.uint64:
            values = values.view(np.int64)
        return dense(values.astype(np.int64, copy=False), is_valid)
    encoded = _encoded(array)
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def canonical_bits(values: np.ndarray) -> np.ndarray:
    """int64 that are equal where the floats are equal keys: one NaN, one zero, and the same for float32 as for float64."""
    wide = values.astype(np.float64) + 0.0  # which turns -0.0 into 0.0
    wide[np.isnan(wide)] = np.nan
    return wide.view(np.int64)


def _codes_of_dictionary(array: pa.Array) -> tuple[np.ndarray, int]:
    """By its indices; the dictionary may name a value twice, name null, or hold what no row has."""
    inner, inner_count = _codes(array.dictionary)
    places, is_valid = columns.numbers(array.indices)
    entry_valid = columns.valid(array.dictionary)
    if is_valid is None and entry_valid is None:
        return dense(inner[places], None)
    null = int(inner[~entry_valid][0]) if entry_valid is not None else inner_count
    ids = np.full(len(array), null, np.int64)
    rows = slice(None) if is_valid is None else is_valid
    ids[rows] = inner[places[rows]]
    return dense(ids, None)


def _codes_of_lists(array: pa.Array) -> tuple[np.ndarray, int]:
    """As strings whose letters are the numbers of the list's values."""
    offsets, values = columns.list_parts(array)
    letters = np.ascontiguousarray(_codes(values)[0], "<i4")
    buffers = [columns.validity(columns.valid(array)), pa.py_buffer(offsets * 4), pa.py_buffer(letters)]
    encoded = _encoded(pa.Array.from_buffers(pa.large_binary(), len(array), buffers))
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(encoded.dictionary)


def _encoded(array: pa.Array) -> pa.DictionaryArray:
    return pc.dictionary_encode(array, null_encoding="encode")
