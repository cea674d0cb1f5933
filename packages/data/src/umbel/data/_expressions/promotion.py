"""Which type two values meet in.

Integers have one width in arithmetic: 64 bits. Narrower ones are widened first, so 100 + 100 of int8 is 200; uint64 with
uint64 stays so, and with a signed integer becomes int64, an error where it does not fit. Floats keep the width of the
column: a Python number, being weak, takes it. A decimal with an integer is a decimal, with a float a float64. Booleans count
as 0 and 1. What is compared is compared by value, whatever the types (`comparing`); what is put into one column
(`unified`) gets the narrowest type that holds all of both, and a value it does not hold is an error.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as at

from umbel.data._expressions import errors

Value: TypeAlias = Any  # a pa.Array, pa.ChunkedArray or, until the very end if it is the same for all rows, a pa.Scalar

_INTEGER_DIGITS: Final = {8: 3, 16: 5, 32: 10, 64: 19}  # of the largest, by width; uint64 has one more
DECIMAL128_DIGITS_MAX: Final = 38
DECIMAL256_DIGITS_MAX: Final = 76
_UNITS: Final = ("s", "ms", "us", "ns")


class Operand(NamedTuple):
    """A value in the course of evaluation. is_weak: see nodes.Literal."""

    value: Value
    is_weak: bool = False

    @property
    def type(self) -> pa.DataType:
        return self.value.type


def plain(operand: Operand) -> Operand:
    """The same without an encoding, and in no narrower a type than Arrow has functions for: float16 becomes float32."""
    type_ = operand.type
    if at.is_run_end_encoded(type_):
        return plain(Operand(pc.run_end_decode(operand.value), operand.is_weak))
    to = _plain_type(type_)
    return operand if to is None else plain(Operand(pc.cast(operand.value, to), operand.is_weak))


def _plain_type(type_: pa.DataType) -> pa.DataType | None:
    """None: it is plain."""
    if at.is_dictionary(type_):
        return type_.value_type
    if at.is_float16(type_):
        return pa.float32()
    if at.is_decimal(type_) and type_.bit_width < 128:
        return pa.decimal128(type_.precision, type_.scale)
    if at.is_string_view(type_):
        return pa.large_string()
    return pa.large_binary() if at.is_binary_view(type_) else None


def is_text(type_: pa.DataType) -> bool:
    return bool(at.is_string(type_) or at.is_large_string(type_))


def is_bytes(type_: pa.DataType) -> bool:
    return bool(at.is_binary(type_) or at.is_large_binary(type_) or at.is_fixed_size_binary(type_))


def is_number(type_: pa.DataType) -> bool:
    """What arithmetic takes: booleans too."""
    return bool(at.is_integer(type_) or at.is_floating(type_) or at.is_decimal(type_) or at.is_boolean(type_))


def numbers(a: Operand, b: Operand) -> tuple[Value, Value]:
    """Both in one type of arithmetic: int64, uint64, float32, float64, or decimals, which may differ in digits."""
    a, b = _as_numbers(a), _as_numbers(b)
    if at.is_null(a.type) or at.is_null(b.type):
        type_ = b.type if at.is_null(a.type) else a.type
        both = pc.cast(a.value, type_), pc.cast(b.value, type_)
        return both if at.is_null(type_) else numbers(*map(Operand, both))
    if at.is_floating(a.type) or at.is_floating(b.type):
        to = _float_of(a, b)
        return pc.cast(a.value, to, safe=False), pc.cast(b.value, to, safe=False)
    if at.is_decimal(a.type) or at.is_decimal(b.type):
        return as_decimal(a), as_decimal(b)
    to = _integer_of(a, b)
    return pc.cast(a.value, to), pc.cast(b.value, to)


def _as_numbers(operand: Operand) -> Operand:
    if at.is_boolean(operand.type):
        return Operand(pc.cast(operand.value, pa.int64()), operand.is_weak)
    return operand


def _float_of(a: Operand, b: Operand) -> pa.DataType:
    """A weak number takes the width of the other; an integer column asks for float64, which holds most of its values."""
    for one, other in ((a, b), (b, a)):
        if one.is_weak and not other.is_weak and at.is_floating(other.type):
            return other.type
    return pa.float32() if at.is_float32(a.type) and at.is_float32(b.type) else pa.float64()


def _integer_of(a: Operand, b: Operand) -> pa.DataType:
    if (at.is_uint64(a.type) or at.is_uint64(b.type)) and _is_unsigned(a) and _is_unsigned(b):
        return pa.uint64()
    return pa.int64()


def _is_unsigned(operand: Operand) -> bool:
    if operand.is_weak and operand.value.is_valid:
        return bool(operand.value.as_py() >= 0)
    return bool(at.is_unsigned_integer(operand.type))


def as_decimal(operand: Operand) -> Value:
    """Integers with as many digits as their type has, a weak one with as many as it has itself."""
    if at.is_decimal(operand.type):
        return operand.value
    if operand.is_weak and operand.value.is_valid:
        return pa.scalar(decimal.Decimal(operand.value.as_py()))
    digits = _INTEGER_DIGITS[operand.type.bit_width] + at.is_uint64(operand.type)
    return pc.cast(operand.value, pa.decimal128(digits, 0))


def decimal_type(digits: int, scale: int) -> pa.DataType:
    """The narrower of Arrow's two that has so many digits."""
    if digits > DECIMAL256_DIGITS_MAX:
        raise errors.Problem(
            f"the exact result has up to {digits} digits, and decimals have at most {DECIMAL256_DIGITS_MAX}; "
            "cast to fewer digits first"
        )
    return pa.decimal128(digits, scale) if digits <= DECIMAL128_DIGITS_MAX else pa.decimal256(digits, scale)


def common_decimal(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    """Holds every value of both."""
    scale = max(a.scale, b.scale)
    return decimal_type(max(a.precision - a.scale, b.precision - b.scale) + scale, scale)


def finer_unit(a: pa.DataType, b: pa.DataType) -> str:
    return max(str(a.unit), str(b.unit), key=_UNITS.index)


def converted(operand: Operand, type_: pa.DataType) -> Value | None:
    """A weak value in that type, if the type holds exactly it; else None."""
    if not operand.is_weak or not isinstance(operand.value, pa.Scalar):
        return None
    value = operand.value
    if value.type.equals(type_) or not value.is_valid:
        return pc.cast(value, type_) if _is_castable(value.type, type_) else None
    if not _is_castable(value.type, type_):
        return None
    try:
        if at.is_decimal(type_) and not at.is_decimal(value.type):
            written = as_written(value)
            return None if written is None else pa.scalar(written, type_)
        found = pc.cast(value, type_)
        if at.is_decimal(value.type) and at.is_float64(type_):
            return found  # the two meet as float64
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return None
    if at.is_floating(type_) and not at.is_string(value.type):
        back = found.as_py()
        return found if back == value.as_py() or (back != back and value.as_py() != value.as_py()) else None
    return found


def as_written(scalar: pa.Scalar) -> decimal.Decimal | None:
    """The decimal that a number was written as; None for nan and infinities."""
    value = scalar.as_py()
    return decimal.Decimal(repr(value)) if math.isfinite(value) else None


def _is_castable(source: pa.DataType, type_: pa.DataType) -> bool:
    """Values of the one are a way to write values of the other: numbers for numbers, texts for texts and times."""
    if source.equals(type_) or at.is_null(source):
        return True
    if is_number(source) and is_number(type_):
        return bool(at.is_boolean(source) == at.is_boolean(type_))
    if is_text(source):
        return is_text(type_) or at.is_timestamp(type_) or at.is_date(type_) or at.is_time(type_)
    if is_bytes(source):
        return is_bytes(type_)
    if at.is_duration(source) or at.is_time(source):
        return bool(source.id == type_.id or (at.is_time(source) and at.is_time(type_)))
    if at.is_timestamp(source):
        return bool(at.is_timestamp(type_) and (source.tz is None) == (type_.tz is None))
    if at.is_date(source):
        return bool(at.is_date(type_) or (at.is_timestamp(type_) and type_.tz is None))
    return bool(at.is_list(source) and (at.is_list(type_) or at.is_large_list(type_)))


def unified(operands: Sequence[Operand]) -> list[Value]:
    """All in one type that holds each: the branches of a choice. Raises Problem where there is none."""
    strong = [one.type for one in operands if not one.is_weak]
    type_ = strong[0] if strong else operands[0].type
    for other in strong[1:]:
        type_ = _wider(type_, other)
    values: list[Value | None] = []
    for one in operands:
        fits = converted(one, type_)
        if fits is None:
            type_ = _wider(type_, one.type)
        values.append(fits)
    return [
        fits if fits is not None and fits.type.equals(type_) else pc.cast(one.value, type_)
        for one, fits in zip(operands, values, strict=True)
    ]


def _wider(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if a.equals(b) or at.is_null(b):
        return a
    if at.is_null(a):
        return b
    found = None
    if is_number(a) and is_number(b) and not at.is_boolean(a) and not at.is_boolean(b):
        found = _wider_number(a, b)
    elif is_text(a) and is_text(b):
        found = pa.large_string()
    elif is_bytes(a) and is_bytes(b):
        found = pa.large_binary() if at.is_large_binary(a) or at.is_large_binary(b) else pa.binary()
    elif at.is_date(a) and at.is_date(b):
        found = pa.date32()
    elif (at.is_timestamp(a) or at.is_date(a)) and (at.is_timestamp(b) or at.is_date(b)):
        found = _wider_timestamp(a, b)
    elif at.is_duration(a) and at.is_duration(b):
        found = pa.duration(finer_unit(a, b))
    elif at.is_time(a) and at.is_time(b):
        unit = finer_unit(a, b)
        found = pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    if found is None:
        raise errors.Problem(f"{a} and {b} have no type in common; cast one of them")
    return found


def _wider_number(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if at.is_floating(a) or at.is_floating(b):
        both_floats = at.is_floating(a) and at.is_floating(b)
        return pa.float32() if both_floats and max(a.bit_width, b.bit_width) <= 32 else pa.float64()
    if at.is_decimal(a) or at.is_decimal(b):
        return common_decimal(
            *(one if at.is_decimal(one) else as_decimal(Operand(pa.nulls(0, one))).type for one in (a, b))
        )
    if at.is_signed_integer(a) == at.is_signed_integer(b):
        return max(a, b, key=lambda one: one.bit_width)
    signed, unsigned = (a, b) if at.is_signed_integer(a) else (b, a)
    width = max(signed.bit_width, min(64, 2 * unsigned.bit_width))
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[width]


def _wider_timestamp(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if at.is_date(a):
        return b if b.tz is None else None
    if at.is_date(b):
        return a if a.tz is None else None
    if (a.tz is None) != (b.tz is None):
        return None
    return pa.timestamp(finer_unit(a, b), a.tz)
