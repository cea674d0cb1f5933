"""A 64-bit hash of each row's key, and numbers drawn by chance.

Both are the same for ever, whatever the version, process, machine or library: rows are sent to partitions by them, and two
machines must agree. Equal keys have equal hashes even where their types are not equal yet but will be made so: an integer of
any width, a float or decimal without fraction, float32 and float64, a time in any unit, text with offsets of any width, a
dictionary and what it stands for. NaN is NaN, -0.0 is 0.0, null is null. Not for use against an adversary: whoever knows this
file can make collisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd: the step of SplitMix64
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)  # these two are SplitMix64's
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_NULL: Final = np.uint64(0x6E756C6C00000001)  # values of no meaning, but all different
_NAN: Final = np.uint64(0x6E616E0000000002)
_FRACTION: Final = np.uint64(0x6672616300000003)
_BYTES: Final = np.uint64(0x6279746573000004)
_LIST: Final = np.uint64(0x6C69737400000005)
_STRUCT: Final = np.uint64(0x7374727563000006)

_ROWS_AT_ONCE: Final = 1 << 15  # of which all that is in between stays in the processor's second cache
_WORD_BYTES: Final = 8
_WORDS_MAX: Final = (
    64  # longer text goes to BLAKE2, a value at a time: one long value must not cost a pass for each of its words
)
_TIME_UNITS: Final = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def hash_rows(table: pa.Table, keys: Sequence[str]) -> np.ndarray:
    """[rows] uint64. Raises KeyError for a key that is not there and TypeError for one whose values cannot be compared."""
    columns.require(table.schema, keys, what="the key")
    return hash_arrays([columns.flat(table.column(key)) for key in keys], table.num_rows)


def hash_arrays(arrays: Sequence[pa.Array], row_count: int) -> np.ndarray:
    """[rows] uint64, of the values that stand side by side in the arrays."""
    if len(arrays) == 1:
        return _hash(arrays[0])
    found = np.full(row_count, len(arrays), np.uint64)
    for array in arrays:
        found = mixed(found * _GOLDEN + _hash(array))
    return found


def hash_fields(names: Sequence[str], arrays: Sequence[pa.Array], row_count: int) -> np.ndarray:
    """[rows] uint64, of values by their names. In whichever order, and a null is as good as none: of two tables that become equal
    under one schema, one may lack a column, or have it elsewhere."""
    found = np.zeros(row_count, np.uint64)
    for name, array in zip(names, arrays, strict=True):
        values = _hash(array)
        found += np.where(values == _NULL, np.uint64(0), mixed(values ^ _blake(name.encode())))
    return mixed(found)


def buckets(hashes: np.ndarray, count: int) -> np.ndarray:
    """[rows] int64 in [0, count): the partition of each hash. Of its upper half, by a multiplication, which is fair to any
    count."""
    return (((hashes >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)).astype(np.int64)


def draw(count: int, *, seed_parts: Sequence[int]) -> np.ndarray:
    """[count] uint64 by chance, the same for the same parts: SplitMix64 from a seed that all of them make."""
    state = np.full(1, len(seed_parts), np.uint64)
    for part in seed_parts:
        state = mixed(state * _GOLDEN + np.uint64(part & 0xFFFFFFFFFFFFFFFF))
    return mixed(state + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)


def permutation(count: int, *, seed_parts: Sequence[int]) -> np.ndarray:
    """[count] int64: the numbers below `count` in an order by chance, the same for the same parts."""
    return np.argsort(draw(count, seed_parts=seed_parts), kind="stable")


def mixed(values: np.ndarray) -> np.ndarray:
    """The uint64, each bit depending on all of them. A bijection.

    Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014 (Stafford's variant 13).
    """
    values = values ^ (values >> np.uint64(30))
    values *= _MIX_1
    values ^= values >> np.uint64(27)
    values *= _MIX_2
    values ^= values >> np.uint64(31)
    return values


def _hash(array: pa.Array) -> np.ndarray:
    if pa.types.is_dictionary(array.type):
        return _hash_of_dictionary(array)
    array = columns.plain(array)
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), _NULL, np.uint64)
    if pa.types.is_struct(kind):
        found = hash_fields([field.name for field in kind], array.flatten(), len(array)) ^ _STRUCT
    elif columns.is_list(kind):
        found = _hash_of_lists(array)
    elif pa.types.is_decimal(kind):
        found = _hash_of_decimals(array)
    elif columns.is_number(kind):
        found = _hash_of_numbers(array)
    elif pa.types.is_fixed_size_binary(kind):
        starts = np.arange(array.offset, array.offset + len(array), dtype=np.int64) * kind.byte_width
        found = _hash_of_bytes(array.buffers()[1], starts, np.full(len(array), kind.byte_width))
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        found = _hash_of_text(array, "<i4")
    elif pa.types.is_large_string(kind) or pa.types.is_large_binary(kind):
        found = _hash_of_text(array, "<i8")
    else:
        raise TypeError(f"values of type {kind} cannot be a key; use a field or an expression of them instead")
    is_valid = columns.valid(array)
    if is_valid is not None:
        found[~is_valid] = _NULL
    return found


def _hash_of_dictionary(array: pa.Array) -> np.ndarray:
    entries = _hash(array.dictionary)
    places, is_valid = columns.numbers(array.indices)
    if is_valid is None:
        return entries[places]
    found = np.full(len(array), _NULL, np.uint64)
    found[is_valid] = entries[places[is_valid]]
    return found


def _hash_of_numbers(array: pa.Array) -> np.ndarray:
    kind = array.type
    values = columns.numbers(array)[0]
    if values.dtype.kind == "f":
        return _hash_of_floats(values)
    if pa.types.is_date32(kind):
        return _hash_of_scaled(values.astype(np.int64) * 86_400, 0, step=3)  # as the midnight that it begins with
    if pa.types.is_date64(kind):
        return _hash_of_scaled(values, 3, step=3)
    if any(test(kind) for test in (pa.types.is_timestamp, pa.types.is_time, pa.types.is_duration)):
        return _hash_of_scaled(values.astype(np.int64), _TIME_UNITS[kind.unit], step=3)
    return _hash_of_integers(values)


def _hash_of_integers(values: np.ndarray) -> np.ndarray:
    return mixed(values.astype(np.uint64) + _GOLDEN)  # that of a negative one is taken modulo 2**64


def _hash_of_floats(values: np.ndarray) -> np.ndarray:
    """Those without fraction as integers."""
    wide = values.astype(np.float64)
    is_signed = (wide >= -(2.0**63)) & (wide < 2.0**63)  # false for NaN too
    is_unsigned = (wide >= 2.0**63) & (wide < 2.0**64)
    whole = np.where(is_signed, wide, 0.0).astype(np.int64)
    found = np.where(is_signed & (whole == wide), _hash_of_integers(whole), mixed(wide.view(np.uint64) ^ _FRACTION))
    found[is_unsigned] = _hash_of_integers(wide[is_unsigned].astype(np.uint64))
    found[np.isnan(wide)] = _NAN
    return found


def _hash_of_scaled(values: np.ndarray, scale: int, *, step: int = 1) -> np.ndarray:
    """Of values / 10**scale, where the scale of equal values may differ by multiples of `step`."""
    values, scales = values.copy(), np.full(len(values), scale)
    unit = 10**step
    rows = np.arange(len(values))
    for _ in range(scale // step):
        quotients = values[rows] // unit
        is_whole = quotients * unit == values[rows]
        rows = rows[is_whole]
        if not len(rows):
            break
        values[rows] = quotients[is_whole]
        scales[rows] -= step
    found = _hash_of_integers(values)
    rows = np.flatnonzero(scales)
    found[rows] = mixed(found[rows] ^ (scales[rows].astype(np.uint64) + _FRACTION))
    return found


def _hash_of_decimals(array: pa.Array) -> np.ndarray:
    scale = array.type.scale
    words = columns.words(array)
    low = words[:, 0]
    is_short = (words[:, 1:] == (low >> 63)[:, None]).all(axis=1)
    if scale < 0:  # 5 and -2 are 500
        is_short &= np.abs(low) < 2**62 // 10**-scale
        found = _hash_of_integers(low * (10**-scale if scale > -19 else 0))
    else:
        found = _hash_of_scaled(low, scale)
    for row in np.flatnonzero(~is_short).tolist():
        value = sum((int(word) & 0xFFFFFFFFFFFFFFFF) << (64 * index) for index, word in enumerate(words[row, :-1]))
        value += int(words[row, -1]) << (64 * (words.shape[1] - 1))
        found[row] = _hash_of_long_decimal(value * 10**-scale if scale < 0 else value, max(scale, 0))
    return found


def _hash_of_long_decimal(value: int, scale: int) -> np.uint64:
    """One whose unscaled integer takes more than 64 bits; another of the same value may take less."""
    while scale and value % 10 == 0:
        value, scale = value // 10, scale - 1
    if -(2**63) <= value < 2**63:
        return np.uint64(_hash_of_scaled(np.array([value]), scale)[0])
    if not scale and 0 <= value < 2**64:
        return np.uint64(_hash_of_integers(np.array([value], np.uint64))[0])
    return _blake(f"{value}e-{scale}".encode())


def _hash_of_text(array: pa.Array, offset_dtype: str) -> np.ndarray:
    _, offsets, data = array.buffers()
    if not len(array):
        return np.zeros(0, np.uint64)
    itemsize = int(offset_dtype[-1])
    ends = np.frombuffer(offsets, offset_dtype, len(array) + 1, array.offset * itemsize).astype(np.int64)
    return _hash_of_bytes(data, ends[:-1], ends[1:] - ends[:-1])


def _hash_of_bytes(data: pa.Buffer | None, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The hash of each run of bytes: word by word, all runs at once."""
    found = np.empty(len(starts), np.uint64)
    source = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    if len(source) < _WORD_BYTES:
        source = np.concatenate([source, np.zeros(_WORD_BYTES, np.uint8)])
    # Words at every byte, aligned or not. One that would reach beyond the buffer is read from earlier on and shifted.
    words = np.ndarray((len(source) - _WORD_BYTES + 1,), "<u8", source, strides=(1,))
    for row in range(0, len(starts), _ROWS_AT_ONCE):
        rows = slice(row, row + _ROWS_AT_ONCE)
        found[rows] = _hash_of_words(words, starts[rows], sizes[rows])
    for row in np.flatnonzero(sizes > _WORDS_MAX * _WORD_BYTES).tolist():
        found[row] = _blake(source[starts[row] : starts[row] + sizes[row]])
    return found


def _hash_of_words(words: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    found = mixed(sizes.astype(np.uint64) ^ _BYTES)
    rows: np.ndarray | slice = slice(None)
    left = np.where(sizes > _WORDS_MAX * _WORD_BYTES, 0, sizes)
    places = starts
    last = len(words) - 1
    while True:
        is_active = left > 0
        if not is_active.all():
            kept = np.flatnonzero(is_active)
            rows = kept if isinstance(rows, slice) else rows[kept]
            left, places = left[kept], places[kept]
        if not len(left):
            return found
        read = np.minimum(places, last)
        word = words[read] >> ((places - read) * 8).astype(np.uint64)
        unused = np.maximum(_WORD_BYTES - left, 0) * 8
        word &= np.uint64(0xFFFFFFFFFFFFFFFF) >> unused.astype(np.uint64)
        found[rows] = mixed(found[rows] * _GOLDEN + word)
        left, places = left - _WORD_BYTES, places + _WORD_BYTES


def _blake(data: bytes | np.ndarray) -> np.uint64:
    import hashlib

    return np.uint64(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"))


def _hash_of_lists(array: pa.Array) -> np.ndarray:
    """A sum over the entries, each mixed with its place; sums of all lists come from one running sum, modulo 2**64."""
    offsets, values = columns.list_parts(array)
    sizes = offsets[1:] - offsets[:-1]
    places = np.arange(len(values)) - np.repeat(offsets[:-1], sizes)
    entries = mixed(_hash(values) + places.astype(np.uint64) * _GOLDEN)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(entries)])
    return mixed((sums[offsets[1:]] - sums[offsets[:-1]]) ^ (sizes.astype(np.uint64) + _LIST))
