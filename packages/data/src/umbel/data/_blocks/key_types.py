"""The type in which the keys of two tables meet: the narrowest that holds every value of both.

Integers of any width meet in an integer (or, of 64 bits with and without sign, in a decimal), with floats in float64, with
decimals in decimals; times in the finer unit; text and binary in their own kind whatever their offsets; a dictionary as what
it stands for. A cast that would change a value is an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from umbel.data._blocks import columns

_UNITS = ("s", "ms", "us", "ns")
_DIGITS_OF_INTEGERS = {8: 3, 16: 5, 32: 10, 64: 20}


def unified(left: pa.Schema, right: pa.Schema, left_on: Sequence[str], right_on: Sequence[str]) -> list[pa.DataType]:
    """For each pair of keys the type of both. Partition by the hash of keys in any type: equal ones have equal hashes.

    Raises TypeError for keys that cannot be equal.
    """
    found = []
    for name, right_name in zip(left_on, right_on, strict=True):
        kinds = left.field(name).type, right.field(right_name).type
        kind = kinds[0] if kinds[0] == kinds[1] else _met(_plain(kinds[0]), _plain(kinds[1]))
        if kind is None:
            raise TypeError(
                f"the keys {name!r} (left, {kinds[0]}) and {right_name!r} (right, {kinds[1]}) cannot be equal; "
                "cast one to the type of the other first"
            )
        found.append(kind)
    return found


def cast(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    """The column as one array of this type. Of a dictionary what is null is so by its index. Raises ValueError for a value that
    the type does not hold."""
    array = columns.flat(table.column(name))
    if pa.types.is_dictionary(array.type) and array.type == kind and array.dictionary.null_count:
        return columns.plain(array).dictionary_encode().cast(kind)
    if array.type == kind:
        return array
    try:
        return columns.plain(array).cast(kind)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"the key {name!r} ({array.type}) cannot be compared as {kind}: {error}; cast it first"
        ) from error


def _plain(kind: pa.DataType) -> pa.DataType:
    return columns.plain(pa.array([], kind.value_type if pa.types.is_dictionary(kind) else kind)).type


def _met(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if left == right or pa.types.is_null(right):
        return left
    if pa.types.is_null(left):
        return right
    if _is_numeric(left) and _is_numeric(right):
        return _met_numbers(left, right)
    for tests, wide in (
        ((pa.types.is_string, pa.types.is_large_string), pa.large_string()),
        ((pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary), pa.large_binary()),
    ):
        if any(test(left) for test in tests) and any(test(right) for test in tests):
            return wide
    return _met_times(left, right)


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _met_numbers(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if pa.types.is_decimal(left) or pa.types.is_decimal(right):
        if pa.types.is_floating(left) or pa.types.is_floating(right):
            return None  # 0.1 is not the float 0.1
        return _met_decimals(*map(_digits, (left, right)))
    if pa.types.is_floating(left) or pa.types.is_floating(right):
        return pa.float64()
    is_signed = [pa.types.is_signed_integer(kind) for kind in (left, right)]
    if is_signed[0] == is_signed[1]:
        return left if left.bit_width > right.bit_width else right
    bits = max(kind.bit_width * (1 if signed else 2) for kind, signed in zip((left, right), is_signed, strict=True))
    if bits > 64:
        return pa.decimal128(20, 0)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[bits]


def _digits(kind: pa.DataType) -> tuple[int, int]:
    """Before and behind the point."""
    if pa.types.is_decimal(kind):
        return kind.precision - kind.scale, kind.scale
    return _DIGITS_OF_INTEGERS[kind.bit_width], 0


def _met_decimals(left: tuple[int, int], right: tuple[int, int]) -> pa.DataType | None:
    whole, scale = max(left[0], right[0]), max(left[1], right[1])
    if whole + scale > 76:
        return None
    return pa.decimal128(whole + scale, scale) if whole + scale <= 38 else pa.decimal256(whole + scale, scale)


def _met_times(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    if pa.types.is_date(left) and pa.types.is_date(right):
        return pa.date32()
    kinds = [pa.timestamp("s") if pa.types.is_date(kind) else kind for kind in (left, right)]  # a day is its midnight
    if all(pa.types.is_timestamp(kind) for kind in kinds):
        if (kinds[0].tz is None) != (kinds[1].tz is None):
            return None  # an instant is not what a clock shows
        return pa.timestamp(_finer(*kinds), kinds[0].tz)
    if all(pa.types.is_duration(kind) for kind in kinds):
        return pa.duration(_finer(*kinds))
    if all(pa.types.is_time(kind) for kind in kinds):
        unit = _finer(*kinds)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    return None


def _finer(left: pa.DataType, right: pa.DataType) -> str:
    return _UNITS[max(_UNITS.index(left.unit), _UNITS.index(right.unit))]
