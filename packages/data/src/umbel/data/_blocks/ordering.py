"""The order of rows by keys, as integers.

Each key becomes unsigned integers that compare as its values do, the direction and the place of nulls included: values in
their order (or its reverse), then NaN, then null, in both directions, as pandas, Arrow and Ray have it. -0.0 equals 0.0; text
compares by its UTF-8 bytes, which is by code points; equal keys keep the order of their rows. So whoever sorts the integers,
NumPy or Polars, finds the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import columns, optional_polars

Codes = list[np.ndarray]  # [rows] uint64 each; the first decides, then the next

ROWS_OF_RUN: Final = 64  # on average, from where on merging costs less than sorting

_SIGN: Final = np.uint64(1 << 63)
_NULL: Final = np.uint64(2**64 - 1)
_NAN: Final = np.uint64(2**64 - 2)  # no number is so high: the code of infinity is 2**64 - 2**52


def directions(keys: Sequence[str], descending: bool | Sequence[bool]) -> list[bool]:
    """One for each key."""
    if isinstance(descending, bool):
        return [descending] * len(keys)
    if len(descending) != len(keys):
        raise ValueError(
            f"descending must be one bool or one for each of the {len(keys)} keys {list(keys)}, got {list(descending)}"
        )
    return list(descending)


def codes(table: pa.Table, keys: Sequence[str], descending: bool | Sequence[bool] = False) -> Codes:
    """Raises KeyError for a key that is not there and TypeError for one that has no order."""
    columns.require(table.schema, keys, what="the key")
    found: Codes = []
    for key, is_descending in zip(keys, directions(keys, descending), strict=True):
        try:
            found += codes_of(columns.flat(table.column(key)), is_descending=is_descending)
        except TypeError as error:
            raise TypeError(f"cannot sort by {key!r}: {error}") from None
    return found


def has_order(kind: pa.DataType) -> bool:
    """Whether a column of this type can be a key to sort by."""
    try:
        codes_of(pa.array([], kind), is_descending=False)
    except (TypeError, pa.ArrowNotImplementedError):
        return False
    return True


def codes_of(array: pa.Array, *, is_descending: bool) -> Codes:
    """The codes of one key."""
    if pa.types.is_dictionary(array.type):
        return [_codes_of_dictionary(array, is_descending=is_descending)]
    array = columns.plain(array)
    kind = array.type
    if columns.is_number(kind):
        return [_codes_of_numbers(*columns.numbers(array), is_descending=is_descending)]
    if pa.types.is_decimal(kind):
        return _codes_of_long_decimals(array, is_descending=is_descending)
    if any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
        )
    ):
        encoded = pc.dictionary_encode(array)
        return [_codes_of_dictionary(encoded, is_descending=is_descending)]
    raise TypeError(f"values of type {kind} have no order; sort by a field or an expression of them instead")


def argsort(codes: Codes, row_count: int) -> np.ndarray:
    """[rows] int64: the rows in the order of their codes, stable."""
    if row_count < 2 or not codes:
        return np.arange(row_count)
    packed = _packed(codes)
    order = _argsort(*packed[-1])
    for code, span in packed[-2::-1]:  # by the last key first, as each sort keeps the order of what is equal to it
        order = order[_argsort(code[order], span)]
    return order


def grouped(ids: np.ndarray, count: int) -> np.ndarray:
    """[rows] int64: the rows by the number of their group, which is below `count`, stable."""
    if count <= 1:
        return np.arange(len(ids))
    return argsort([ids.astype(np.uint64)], len(ids))


def starts(codes: Codes, order: np.ndarray) -> np.ndarray:
    """[rows] bool: which rows, in this order, differ from the one before them; the first one does."""
    found = np.zeros(len(order), bool)
    found[:1] = True
    for code in codes:
        ordered = code[order]
        found[1:] |= ordered[1:] != ordered[:-1]
    return found


def ranks(codes: Codes, row_count: int) -> np.ndarray:
    """[rows] int64: one number for each row, that compares as its codes do; equal codes have equal ranks, without gaps."""
    order = argsort(codes, row_count)
    found = np.empty(row_count, np.int64)
    found[order] = np.cumsum(starts(codes, order)) - 1
    return found


def _argsort(code: np.ndarray, span: int) -> np.ndarray:
    """span: above every code."""
    row_count = len(code)
    run_count = 1 + np.count_nonzero(code[1:] < code[:-1])
    if run_count == 1:
        return np.arange(row_count)
    if span <= 1 << 16:
        return np.argsort(code.astype(np.uint16), kind="stable")  # for which NumPy has a radix sort
    row_bits = (row_count - 1).bit_length()
    if span <= 1 << (64 - row_bits):  # the row behind the code makes a plain sort a stable one
        both = (code << np.uint64(row_bits)) | np.arange(row_count, dtype=np.uint64)
        both.sort()
        return (both & np.uint64((1 << row_bits) - 1)).astype(np.int64)
    if run_count <= row_count // ROWS_OF_RUN:
        return np.argsort(code, kind="stable")  # which merges what is sorted already
    polars = optional_polars.module(row_count)
    if polars is None:
        return np.argsort(code, kind="stable")
    order = polars.DataFrame({"code": code}).select(polars.arg_sort_by("code", maintain_order=True))
    return np.asarray(order.to_series().to_numpy().astype(np.int64))


def _packed(codes: Codes) -> list[tuple[np.ndarray, int]]:
    """Fewer arrays that say the same, each from 0 on, and how many values it spans."""
    found: list[tuple[np.ndarray, int]] = []
    for code in codes:
        low, high = int(code.min()), int(code.max())
        span = high - low + 1
        shifted = code - np.uint64(low)
        if found and found[-1][1] * span < 1 << 64:
            before, span_before = found.pop()
            shifted, span = before * np.uint64(span) + shifted, span_before * span
        found.append((shifted, span))
    return found


def _codes_of_numbers(values: np.ndarray, is_valid: np.ndarray | None, *, is_descending: bool) -> np.ndarray:
    if values.dtype.kind == "f":
        wide = values.astype(np.float64) + 0.0  # which turns -0.0 into 0.0
        bits = wide.view(np.uint64)
        code = np.where(bits & _SIGN, ~bits, bits | _SIGN)  # magnitudes compare as integers, negative ones in reverse
        code = ~code if is_descending else code
        code[np.isnan(wide)] = _NAN
    elif values.dtype.kind == "u":
        code = values.astype(np.uint64)
        code = ~code if is_descending else code
    else:
        code = values.astype(np.int64).view(np.uint64) ^ _SIGN
        code = ~code if is_descending else code
    return code if is_valid is None else _with_nulls(code, is_valid)


def _with_nulls(code: np.ndarray, is_valid: np.ndarray) -> np.ndarray:
    """The code with nulls after everything, even after the last of the integers."""
    known = code[is_valid]
    if len(known) and known.max() == _NULL:
        code = code.copy()
        code[is_valid] = np.unique(known, return_inverse=True)[1]
    return np.where(is_valid, code, _NULL)


def _codes_of_long_decimals(array: pa.Array, *, is_descending: bool) -> Codes:
    found: Codes = []
    words, is_valid = columns.words(array), columns.valid(array)
    for index in range(words.shape[1] - 1, -1, -1):
        code = np.ascontiguousarray(words[:, index]).view(np.uint64)
        if not found:  # the word with the sign, of which 10**38 or 10**76 leave the highest values free
            code = code ^ _SIGN
        code = ~code if is_descending else code
        found.append(code if is_valid is None else np.where(is_valid, code, _NULL))
    return found


def _codes_of_dictionary(array: pa.Array, *, is_descending: bool) -> np.ndarray:
    """By the rank of each entry, so that only what is different is sorted."""
    entries = columns.plain(array.dictionary)
    if columns.is_number(entries.type) or pa.types.is_decimal(entries.type):
        rank = ranks(codes_of(entries, is_descending=is_descending), len(entries)).astype(np.uint64)
    else:
        order = pc.sort_indices(entries).to_numpy()
        is_new = np.ones(len(order), bool)
        ordered = entries.take(pa.array(order))
        is_new[1:] = (
            pc.not_equal(ordered.slice(1), ordered.slice(0, max(len(ordered) - 1, 0))).fill_null(False).to_numpy(False)
        )
        rank = np.empty(len(order), np.uint64)
        rank[order] = np.cumsum(is_new)
        rank = np.uint64(len(order)) - rank if is_descending else rank
    entry_valid = columns.valid(array.dictionary)
    if entry_valid is not None:
        rank[~entry_valid] = _NULL
    places, is_valid = columns.numbers(array.indices)
    if is_valid is None:
        return rank[places]
    code = np.full(len(array), _NULL, np.uint64)
    code[is_valid] = rank[places[is_valid]]
    return code
