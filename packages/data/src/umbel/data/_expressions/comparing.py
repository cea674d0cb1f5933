"""Comparison, membership and logic.

Values are compared as what they are, whatever their types: 2**53 + 1 is not 2.0**53, and the largest uint64 is more
than -1. nan equals nothing and is neither less nor more, as in Python. `is_in` is a chain of `==`, but None in the
list stands for null; a null is otherwise neither in a list nor not in it. `&`, `|` and `~` are Kleene's: what decides
alone decides, null or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as at

from umbel.data._expressions import arrays, errors, promotion, temporal
from umbel.data._expressions.promotion import Operand, Value

FLIPPED: Final = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_COMPARE: Final[dict[str, Callable[..., Value]]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}


def comparison(symbol: str) -> Callable[[Sequence[Operand]], Value]:
    def run(args: Sequence[Operand]) -> Value:
        return _compared(symbol, args[0], args[1])

    return run


def is_in(args: Sequence[Operand]) -> Value:
    """The second is one list for all rows."""
    of, among = args
    members = among.value.values if isinstance(among.value, pa.Scalar) and at.is_list(among.type) else None
    if members is None:
        raise errors.Problem(f"is_in() takes a list of values, got {among.type}")
    has_null = members.null_count > 0
    members = members.drop_null()
    value = of.value
    if at.is_null(of.type) or len(members) == 0:
        found = pc.and_(pc.is_valid(value), False)
    else:
        if not (among.is_weak and promotion.is_text(members.type)):  # what text may say is seen at each
            _compared("==", Operand(pa.nulls(0, of.type)), Operand(pa.nulls(0, members.type)))
        if at.is_boolean(of.type) and not at.is_boolean(members.type):
            value = pc.cast(value, pa.int64())
        members = _exactly(members, value.type, is_weak=among.is_weak)
        if at.is_floating(members.type):  # Arrow looks for the same bits, and -0.0 is 0.0
            zero = pa.scalar(0.0, members.type)
            members, value = pc.add(members, zero), pc.add(value, zero)
        found = pc.is_in(value, value_set=members)
    if has_null:
        return pc.or_(found, pc.is_null(value))
    return pc.if_else(pc.is_valid(value), found, pa.scalar(None, pa.bool_()))


def logic(function: Callable[..., Value], symbol: str) -> Callable[..., Value]:
    def run(args: Sequence[Operand]) -> Value:
        for one in args:
            demand_boolean(one, symbol)
        # In one piece: of several chunks, Arrow 17's Kleene functions make false | null true.
        return function(*(arrays.contiguous(pc.cast(one.value, pa.bool_())) for one in args))

    return run


def demand_boolean(operand: Operand, symbol: str) -> None:
    if not at.is_boolean(operand.type) and not at.is_null(operand.type):
        raise errors.Problem(
            f"{symbol} takes booleans, got {operand.type}; it binds more tightly than comparisons, so put those in "
            "parentheses: (a > 1) & (b > 2)"
        )


def _compared(symbol: str, a: Operand, b: Operand) -> Value:
    if at.is_nested(a.type) or at.is_nested(b.type):
        raise errors.Problem(
            f"{symbol} compares no lists, structs and maps, got {a.type} and {b.type}; compare their parts"
        )
    for one, other in ((a, b), (b, a)):
        fits = promotion.converted(one, other.type) if not other.is_weak else None
        if fits is not None:
            return _compare(symbol, fits, other.value) if one is a else _compare(symbol, other.value, fits)
    if at.is_null(a.type) and at.is_null(b.type):
        return pc.cast(a.value, pa.bool_())
    if at.is_null(a.type) or at.is_null(b.type):
        type_ = b.type if at.is_null(a.type) else a.type
        return _compared(symbol, *(Operand(pc.cast(one.value, type_)) for one in (a, b)))
    if promotion.is_number(a.type) and promotion.is_number(b.type):
        return _compared_numbers(symbol, a, b)
    if _is_one_kind(a.type, b.type):
        return _compare(symbol, *_units_met(a.value, b.value))
    advice = "cast one of them"
    texts = [one for one in (a, b) if one.is_weak and promotion.is_text(one.type)]
    if texts and temporal.is_temporal((b if texts[0] is a else a).type):
        advice = f"{texts[0].value.as_py()!r} does not read as one"
    elif at.is_timestamp(a.type) and at.is_timestamp(b.type):
        advice = "one has a zone and the other has none"
    raise errors.Problem(f"{symbol} cannot compare {a.type} and {b.type}; {advice}")


def _is_one_kind(a: pa.DataType, b: pa.DataType) -> bool:
    """What Arrow compares rightly by itself, once units have met."""
    for is_kind in (promotion.is_text, promotion.is_bytes, at.is_date, at.is_time, at.is_duration):
        if is_kind(a) and is_kind(b):
            return True
    times = [one for one in (a, b) if at.is_timestamp(one)]
    if not times or not all(at.is_timestamp(one) or at.is_date(one) for one in (a, b)):
        return False
    return len({one.tz is None if at.is_timestamp(one) else True for one in (a, b)}) == 1


def _units_met(x: Value, y: Value) -> tuple[Value, Value]:
    if at.is_fixed_size_binary(x.type) or at.is_fixed_size_binary(y.type):
        x, y = (pc.cast(one, pa.binary()) if at.is_fixed_size_binary(one.type) else one for one in (x, y))
    if at.is_timestamp(x.type) and at.is_timestamp(y.type) and x.type.tz != y.type.tz:
        return tuple(pc.cast(one, pa.timestamp(one.type.unit, "UTC")) for one in (x, y))
    if at.is_date(x.type) != at.is_date(y.type):
        x, y = (pc.cast(one, pa.timestamp("s")) if at.is_date(one.type) else one for one in (x, y))
    return x, y


def _compared_numbers(symbol: str, a: Operand, b: Operand) -> Value:
    if at.is_boolean(a.type) != at.is_boolean(b.type):
        a, b = (
            Operand(pc.cast(one.value, pa.int64()), one.is_weak) if at.is_boolean(one.type) else one for one in (a, b)
        )
    if at.is_decimal(a.type) or at.is_decimal(b.type):
        a, b = _as_written(a), _as_written(b)
        if at.is_floating(a.type) or at.is_floating(b.type):
            return _compare(symbol, pc.cast(a.value, pa.float64()), pc.cast(b.value, pa.float64()))
        x, y = promotion.as_decimal(Operand(a.value)), promotion.as_decimal(Operand(b.value))
        type_ = promotion.common_decimal(x.type, y.type)
        return _compare(symbol, pc.cast(x, type_), pc.cast(y, type_))
    if at.is_integer(a.type) and at.is_integer(b.type):
        if at.is_uint64(a.type) != at.is_uint64(b.type) and (
            at.is_signed_integer(a.type) or at.is_signed_integer(b.type)
        ):
            type_ = pa.decimal128(20, 0)
            return _compare(symbol, *(pc.cast(promotion.as_decimal(Operand(one.value)), type_) for one in (a, b)))
        return _compare(symbol, a.value, b.value)
    if at.is_integer(a.type) and at.is_floating(b.type):
        return _integer_with_float(symbol, a.value, b.value)
    if at.is_floating(a.type) and at.is_integer(b.type):
        return _integer_with_float(FLIPPED[symbol], b.value, a.value)
    return _compare(symbol, a.value, b.value)


def _integer_with_float(symbol: str, integers: Value, floats: Value) -> Value:
    """Exactly. Rounding an integer to a float keeps its order with every float but the one that it rounds to; there, the
    float is a whole number, and the two are compared as integers."""
    rounded = pc.cast(integers, pa.float64(), safe=False)
    floats = pc.cast(floats, pa.float64())
    found = _compare(symbol, rounded, floats)
    if not arrays.exceeds_float64(integers):
        return found
    exact, exact_null = arrays.to_numpy(integers, fill=0)
    near, near_null = arrays.to_numpy(floats, fill=0.0)
    flags = arrays.to_numpy(found, fill=False)[0].copy()
    exact, near = np.broadcast_to(exact, flags.shape), np.broadcast_to(near, flags.shape)
    compare = _COMPARE[symbol]
    for row in np.flatnonzero((exact.astype(np.float64) == near) & (np.abs(near) >= arrays.EXACT_FLOAT_MAX)):
        difference = int(exact[row]) - int(near[row])
        flags[row] = compare(pa.scalar((difference > 0) - (difference < 0)), pa.scalar(0)).as_py()
    return arrays.from_numpy(flags, pa.bool_(), exact_null, near_null)


def _as_written(operand: Operand) -> Operand:
    """A float that was written in Python, as the decimal that was written."""
    if not operand.is_weak or not at.is_floating(operand.type) or not operand.value.is_valid:
        return operand
    written = promotion.as_written(operand.value)
    try:
        return operand if written is None else Operand(pa.scalar(written))
    except pa.ArrowInvalid:  # more digits than a decimal has
        return operand


def _compare(symbol: str, x: Value, y: Value) -> Value:
    return _COMPARE[symbol](x, y)


def _exactly(members: pa.Array, type_: pa.DataType, *, is_weak: bool) -> pa.Array:
    """Those of the members that the type holds, in it: no other can be equal to one of its values."""
    if at.is_floating(members.type):
        members = members.filter(pc.invert(pc.is_nan(members)))
    if members.type.equals(type_):
        return members
    if promotion.is_text(type_) or (at.is_integer(type_) and at.is_integer(members.type)):
        try:
            return pc.cast(members, type_)
        except pa.ArrowInvalid:  # some are out of range: they are left out below
            pass
    found: list[pa.Scalar] = []
    for member in members:
        fits = promotion.converted(Operand(member, is_weak=True), type_)
        if fits is not None:
            found.append(fits)
        elif is_weak and promotion.is_text(members.type):
            raise errors.Problem(f"is_in() on {type_} takes values of that kind, got {member.as_py()!r}")
    return pa.array(found, type_)
