"""Arithmetic: Python's, on columns.

`/` of integers is the float nearest to the true quotient, also beyond 2**53; `//` and `%` round down; what does not fit is an
error. An integer divided by zero is an error, as in Python: int64 has no value for it, and a null in its place would be
mistaken for missing data. Floats follow IEEE 754: division by zero gives an infinity or nan, as in NumPy, polars and DuckDB.
`+` joins strings. Null with anything is null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as at

from umbel.data._expressions import arrays, errors, promotion, temporal
from umbel.data._expressions.promotion import Operand, Value

_WIDER_ADVICE: Final = "cast to float64 or to decimal128(38, 0) first"


def add(args: Sequence[Operand]) -> Value:
    a, b = args
    if (
        promotion.is_text(a.type)
        or promotion.is_text(b.type)
        or promotion.is_bytes(a.type)
        or promotion.is_bytes(b.type)
    ):
        return _joined(a, b)
    if temporal.is_temporal(a.type) or temporal.is_temporal(b.type):
        return temporal.add(a, b)
    return _summed(pc.add_checked, a, b, "+")


def subtract(args: Sequence[Operand]) -> Value:
    a, b = args
    if temporal.is_temporal(a.type) or temporal.is_temporal(b.type):
        return temporal.subtract(a, b)
    return _summed(pc.subtract_checked, a, b, "-")


def multiply(args: Sequence[Operand]) -> Value:
    a, b = args
    if at.is_duration(a.type) or at.is_duration(b.type):
        return temporal.multiply(a, b)
    x, y = _numbers(a, b, "*")
    if at.is_decimal(x.type):
        x, y = _with_digits(x, y, x.type.precision + y.type.precision + 1, x.type.scale + y.type.scale)
    return _checked(pc.multiply_checked, x, y)


def divide(args: Sequence[Operand]) -> Value:
    a, b = args
    if at.is_duration(a.type) and at.is_duration(b.type):
        a, b = temporal.same_units(a, b)
    if at.is_null(a.type) and at.is_null(b.type):
        return pc.cast(a.value, pa.float64())
    x, y = _numbers(a, b, "/")
    if at.is_integer(x.type):
        # Each in its own type: the quotient of any two is a float.
        return _integer_quotient(*(_plain_integers(one) for one in (a, b)))
    if at.is_decimal(x.type):
        _refuse_zero(x, y)
        x, y = pc.cast(x, pa.float64()), pc.cast(y, pa.float64())
    return pc.divide(x, y)


def floor_divide(args: Sequence[Operand]) -> Value:
    return _by_numpy(args, "//", np.floor_divide)


def modulo(args: Sequence[Operand]) -> Value:
    a, b = args
    if at.is_duration(a.type) and at.is_duration(b.type):
        unit = promotion.finer_unit(a.type, b.type)
        return pc.cast(_by_numpy(args, "%", np.remainder), pa.duration(unit))
    return _by_numpy(args, "%", np.remainder)


def negate(args: Sequence[Operand]) -> Value:
    return _of_one(args[0], "-", pc.negate_checked, takes_durations=True, takes_unsigned=False)


def absolute(args: Sequence[Operand]) -> Value:
    return _of_one(args[0], "abs()", pc.abs_checked, takes_durations=True)


def sign(args: Sequence[Operand]) -> Value:
    found = _of_one(args[0], "sign()", pc.sign)
    return found if at.is_floating(found.type) or at.is_null(found.type) else pc.cast(found, pa.int64())


def power(args: Sequence[Operand]) -> Value:
    """An integer to a whole power is an integer, to a literal negative one a float."""
    a, b = args
    x, y = _numbers(a, b, "**")
    if at.is_decimal(x.type):
        _refuse_power_of_zero(x, y)
        x, y = pc.cast(x, pa.float64()), pc.cast(y, pa.float64())
    if at.is_integer(x.type):
        if b.is_weak and b.value.is_valid and b.value.as_py() < 0:
            _refuse_power_of_zero(x, y)
            return pc.power(pc.cast(x, pa.float64(), safe=False), pc.cast(y, pa.float64()))
        if arrays.any_true(pc.less(y, pa.scalar(0, y.type))):
            raise errors.Problem(
                "an integer has no integer for a negative power; cast it to float64", errors.ExpressionError
            )
        return _checked(pc.power_checked, x, y)
    return pc.power(x, y)


def rounding(function: Callable[..., Value], name: str) -> Callable[..., Value]:
    """floor, ceil, trunc: a float stays one, an integer is what it was."""

    def run(args: Sequence[Operand]) -> Value:
        (a,) = args
        _demand_number(a, f"{name}()")
        return function(_with_room(a.value)) if at.is_floating(a.type) or at.is_decimal(a.type) else a.value

    return run


def round_half_even(args: Sequence[Operand], *, ndigits: int = 0) -> Value:
    """To the even neighbour where two are as near, as Python's round(). Scales and rounds: the last digit of what is not
    exactly a binary fraction may differ from Python's."""
    (a,) = args
    _demand_number(a, "round()")
    if at.is_null(a.type) or (not at.is_floating(a.type) and not at.is_decimal(a.type) and ndigits >= 0):
        return a.value
    value = pc.cast(a.value, pa.int64()) if at.is_boolean(a.type) else _with_room(a.value)
    return pc.round(value, ndigits=ndigits, round_mode="half_to_even")


def _with_room(value: Value) -> Value:
    """Of decimals, for a digit more: 9.95 may become 10.0."""
    if not at.is_decimal(value.type):
        return value
    kind = value.type
    digits = min(kind.precision + 1, promotion.DECIMAL256_DIGITS_MAX)
    wider = pa.decimal256 if at.is_decimal256(kind) or digits > promotion.DECIMAL128_DIGITS_MAX else pa.decimal128
    return pc.cast(value, wider(digits, kind.scale))


def of_floats(function: Callable[..., Value], name: str) -> Callable[..., Value]:
    """A function of real numbers: float32 gives float32, all else float64; outside its domain it is nan or an infinity."""

    def run(args: Sequence[Operand]) -> Value:
        (a,) = args
        _demand_number(a, f"{name}()")
        return function(a.value if at.is_floating(a.type) else pc.cast(a.value, pa.float64(), safe=False))

    return run


def is_nan(args: Sequence[Operand]) -> Value:
    (a,) = args
    _demand_number(a, "is_nan()")
    return pc.is_nan(a.value if at.is_floating(a.type) else pc.cast(a.value, pa.float64(), safe=False))


def _joined(a: Operand, b: Operand) -> Value:
    for is_kind in (promotion.is_text, promotion.is_bytes):
        if all(is_kind(one.type) or at.is_null(one.type) for one in (a, b)):
            x, y = promotion.unified([a, b])
            if at.is_fixed_size_binary(x.type):
                x, y = pc.cast(x, pa.binary()), pc.cast(y, pa.binary())
            empty: object = "" if promotion.is_text(x.type) else b""
            return pc.binary_join_element_wise(x, y, pa.scalar(empty, x.type))
    raise _mismatch(a, b, "+")


def _summed(function: Callable[..., Value], a: Operand, b: Operand, symbol: str) -> Value:
    x, y = _numbers(a, b, symbol)
    if at.is_decimal(x.type):
        scale = max(x.type.scale, y.type.scale)
        digits = max(x.type.precision - x.type.scale, y.type.precision - y.type.scale) + scale + 1
        x, y = _with_digits(x, y, digits, scale)
    return _checked(function, x, y)


def _with_digits(x: Value, y: Value, digits: int, scale: int) -> tuple[Value, Value]:
    """Both as wide as their result has to be: Arrow gives what it computes from them."""
    if at.is_decimal256(promotion.decimal_type(digits, scale)):
        return tuple(pc.cast(one, pa.decimal256(one.type.precision, one.type.scale)) for one in (x, y))
    return x, y


def _of_one(
    a: Operand, name: str, function: Callable[..., Value], *, takes_durations: bool = False, takes_unsigned: bool = True
) -> Value:
    if takes_durations and at.is_duration(a.type):  # as integers, since Arrow lets durations wrap
        return pc.cast(_checked(function, pc.cast(a.value, pa.int64())), a.type)
    _demand_number(a, name)
    if at.is_null(a.type):
        return a.value
    if at.is_boolean(a.type) or (at.is_integer(a.type) and not (takes_unsigned and at.is_uint64(a.type))):
        return _checked(function, pc.cast(a.value, pa.int64()))
    return _checked(function, a.value)


def _by_numpy(args: Sequence[Operand], symbol: str, function: Callable[[Any, Any], Any]) -> Value:
    a, b = args
    if at.is_duration(a.type) and at.is_duration(b.type):
        a, b = temporal.same_units(a, b)
    x, y = _numbers(a, b, symbol)
    if at.is_decimal(x.type):
        raise errors.Problem(
            f"{symbol} is not there for decimals ({a.type} and {b.type}); cast them to float64 or int64"
        )
    if at.is_null(x.type):
        return x
    is_integer = at.is_integer(x.type)
    if is_integer:
        _refuse_zero(x, y)
    (left, left_null), (right, right_null) = arrays.to_numpy(x, fill=0), arrays.to_numpy(y, fill=1)
    if symbol == "//" and at.is_int64(x.type) and ((left == np.iinfo(np.int64).min) & (right == -1)).any():
        raise errors.Problem(f"the result does not fit in int64; {_WIDER_ADVICE}", errors.ExpressionOverflowError)
    with np.errstate(all="ignore"):  # IEEE: a float by zero is an infinity or nan
        found = function(left, np.where(_where_null(left_null, left, right), right.dtype.type(1), right))
    return arrays.from_numpy(found, x.type, left_null, right_null)


def _where_null(is_null: Any, left: Any, right: Any) -> Any:
    """Rows whose divisor does not matter."""
    return False if is_null is None else np.broadcast_to(is_null, np.broadcast_shapes(left.shape, right.shape))


def _integer_quotient(x: Value, y: Value) -> Value:
    _refuse_zero(x, y)
    quotient = pc.divide(pc.cast(x, pa.float64(), safe=False), pc.cast(y, pa.float64(), safe=False))
    if not (arrays.exceeds_float64(x) or arrays.exceeds_float64(y)):
        return quotient
    (left, left_null), (right, right_null) = arrays.to_numpy(x, fill=0), arrays.to_numpy(y, fill=1)
    found = arrays.to_numpy(quotient, fill=0)[0].copy()
    left, right = np.broadcast_to(left, found.shape), np.broadcast_to(right, found.shape)
    is_inexact = (_magnitude(left) >= arrays.EXACT_FLOAT_MAX) | (_magnitude(right) >= arrays.EXACT_FLOAT_MAX)
    if right_null is not None or left_null is not None:
        is_inexact &= arrays.is_valid(quotient)
    rows = np.flatnonzero(is_inexact)
    found[rows] = [one / other for one, other in zip(left[rows].tolist(), right[rows].tolist(), strict=True)]
    return arrays.from_numpy(found, pa.float64(), left_null, right_null)


def _plain_integers(operand: Operand) -> Value:
    return operand.value if at.is_integer(operand.type) else pc.cast(operand.value, pa.int64())


def _magnitude(values: Any) -> Any:
    """Absolute values; of negative ones one less, which the least int64 has room for."""
    return np.where(values < 0, -(values + 1), values).astype(np.uint64) if values.dtype.kind == "i" else values


def _refuse_zero(x: Value, y: Value) -> None:
    is_zero = pc.equal(y, pa.scalar(0, y.type))
    if not arrays.any_true(is_zero):
        return
    row = arrays.first_true(pc.and_(is_zero, pc.is_valid(x)))
    if row is not None:
        raise errors.Problem(
            "division by zero; write when(divisor != 0).then(...) for null there, or cast to float64 for an infinity",
            errors.ExpressionZeroDivisionError,
            row=row,
        )


def _refuse_power_of_zero(x: Value, y: Value) -> None:
    """Of what is exact, as in Python; a float is an infinity then."""
    is_wrong = pc.and_(pc.equal(x, pa.scalar(0, x.type)), pc.less(y, pa.scalar(0, y.type)))
    if arrays.any_true(is_wrong):
        raise errors.Problem(
            "zero has no negative power; write when(base != 0).then(...) for null there, or cast to float64 for an infinity",
            errors.ExpressionZeroDivisionError,
            row=arrays.first_true(is_wrong),
        )


def _numbers(a: Operand, b: Operand, symbol: str) -> tuple[Value, Value]:
    if not all(promotion.is_number(one.type) or at.is_null(one.type) for one in (a, b)):
        raise _mismatch(a, b, symbol)
    return promotion.numbers(a, b)


def _mismatch(a: Operand, b: Operand, symbol: str) -> errors.Problem:
    return errors.Problem(f"there is no {symbol} for {a.type} and {b.type}; cast one of them")


def _demand_number(a: Operand, name: str) -> None:
    if not promotion.is_number(a.type) and not at.is_null(a.type):
        raise errors.Problem(f"{name} takes numbers, got {a.type}")


def _checked(function: Callable[..., Value], *values: Value) -> Value:
    try:
        return function(*values)
    except pa.ArrowInvalid as error:
        if "overflow" not in str(error):
            raise
        raise errors.Problem(
            f"the result does not fit in {values[0].type}; {_WIDER_ADVICE}", errors.ExpressionOverflowError
        ) from error
