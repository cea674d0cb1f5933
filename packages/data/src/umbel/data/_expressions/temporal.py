"""Dates, times, timestamps and durations.

A timestamp with a zone is a moment: adding a duration adds time that passes, whatever the clocks do. A date moves by the whole
days of a duration, as in Python. Parts (`.dt.hour`) of a timestamp with a zone are those that its clocks show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as at

from umbel.data._expressions import arrays, errors, promotion
from umbel.data._expressions.promotion import Operand, Value

UNITS: Final = (
    "year",
    "quarter",
    "month",
    "week",
    "day",
    "hour",
    "minute",
    "second",
    "millisecond",
    "microsecond",
    "nanosecond",
)
_OF_A_DAY: Final = frozenset(UNITS[UNITS.index("hour") :])
_PER_DAY: Final = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}


def is_temporal(type_: pa.DataType) -> bool:
    return bool(at.is_timestamp(type_) or at.is_date(type_) or at.is_time(type_) or at.is_duration(type_))


def add(a: Operand, b: Operand) -> Value:
    if at.is_duration(a.type) and not at.is_duration(b.type):
        a, b = b, a
    if not at.is_duration(b.type) or not (at.is_timestamp(a.type) or at.is_date(a.type) or at.is_duration(a.type)):
        raise _mismatch(a, b, "+")
    if at.is_date(a.type):
        return _moved(a, b, 1)
    return _checked(pc.add_checked, a, Operand(_in_unit(b, a)))


def subtract(a: Operand, b: Operand) -> Value:
    if at.is_duration(b.type) and at.is_date(a.type):
        return _moved(a, b, -1)
    if at.is_duration(b.type) and (at.is_timestamp(a.type) or at.is_duration(a.type)):
        return _checked(pc.subtract_checked, a, Operand(_in_unit(b, a)))
    if not all(at.is_timestamp(one.type) or at.is_date(one.type) for one in (a, b)):
        raise _mismatch(a, b, "-")
    x, y = promotion.unified([a, b])
    if at.is_timestamp(x.type) and x.type.tz is not None:  # of two zones, the difference is that of the moments
        x, y = (pc.cast(one, pa.timestamp(one.type.unit, "UTC")) for one in (x, y))
    return _checked(pc.subtract_checked, Operand(x), Operand(y))


def multiply(a: Operand, b: Operand) -> Value:
    if at.is_duration(b.type):
        a, b = b, a
    if not at.is_integer(b.type) and not at.is_boolean(b.type):
        raise _mismatch(a, b, "*")
    return _checked(pc.multiply_checked, a, Operand(pc.cast(b.value, pa.int64())))


def same_units(a: Operand, b: Operand) -> tuple[Operand, Operand]:
    """Two durations as integers of one unit."""
    unit = pa.duration(promotion.finer_unit(a.type, b.type))
    return Operand(pc.cast(pc.cast(a.value, unit), pa.int64())), Operand(pc.cast(pc.cast(b.value, unit), pa.int64()))


def part(function: Callable[..., Value], name: str, *, of_time: bool = False) -> Callable[..., Value]:
    """A number that a timestamp or date has; of_time: one that a time has and a date has not."""

    def run(args: Sequence[Operand]) -> Value:
        (a,) = args
        value = a.value
        if at.is_null(a.type):
            return pc.cast(value, pa.int64())
        if at.is_date(a.type) and of_time:
            value = pc.cast(value, pa.timestamp("s"))
        elif not (at.is_timestamp(a.type) or (at.is_time(a.type) if of_time else at.is_date(a.type))):
            raise errors.Problem(f".dt.{name}() takes {_kinds(of_time)}, got {a.type}")
        return pc.cast(function(value), pa.int64())

    return run


def date(args: Sequence[Operand]) -> Value:
    (a,) = args
    if not (at.is_timestamp(a.type) or at.is_date(a.type) or at.is_null(a.type)):
        raise errors.Problem(f".dt.date() takes {_kinds(False)}, got {a.type}")
    if at.is_timestamp(a.type):
        local = pc.local_timestamp(a.value) if a.type.tz is not None else a.value
        return pc.cast(pc.floor_temporal(local, unit="day"), pa.date32())
    return pc.cast(a.value, pa.date32())


def strftime(args: Sequence[Operand], *, fmt: str) -> Value:
    """%S is the whole seconds, as in Python; Arrow's would print the fraction too."""
    (a,) = args
    if not (at.is_timestamp(a.type) or at.is_date(a.type)):
        raise errors.Problem(f".dt.strftime() takes {_kinds(False)}, got {a.type}")
    value = a.value
    if at.is_timestamp(a.type) and a.type.unit != "s":
        moment = pc.cast(value, pa.timestamp(a.type.unit, a.type.tz and "UTC"))
        value = pc.cast(
            pc.cast(pc.floor_temporal(moment, unit="second"), pa.timestamp("s")), pa.timestamp("s", a.type.tz)
        )
    return pc.strftime(value, format=fmt)


def rounded(function: Callable[..., Value], name: str) -> Callable[..., Value]:
    """To a whole number of `unit`s; of zones, by their clocks. Weeks begin on Monday.

    What begins twice, as clocks are set back, or not at all, as they are set forward, begins at the first moment of it.
    """

    def run(args: Sequence[Operand], *, unit: str) -> Value:
        (a,) = args
        if not (at.is_timestamp(a.type) or at.is_date(a.type) or at.is_time(a.type)):
            raise errors.Problem(f".dt.{name}() takes timestamps, dates and times, got {a.type}")
        if not at.is_timestamp(a.type) or a.type.tz is None:
            return function(a.value, unit=unit)
        local = pc.local_timestamp(a.value)
        moved = function(local, unit=unit)
        if unit in _OF_A_DAY:  # by as much as the clock moves: which of two hours of one name it is, remains
            return pc.add_checked(a.value, pc.subtract_checked(moved, local))
        return pc.assume_timezone(moved, a.type.tz, ambiguous="earliest", nonexistent="latest")

    return run


def _moved(a: Operand, b: Operand, direction: int) -> Value:
    """Dates, moved by whole days."""
    days, days_null = arrays.to_numpy(pc.cast(pc.cast(a.value, pa.date32()), pa.int32()), fill=0)
    spans, spans_null = arrays.to_numpy(pc.cast(b.value, pa.int64()), fill=0)
    moved = days.astype(np.int64) + direction * np.floor_divide(spans, _PER_DAY[b.type.unit])
    found = arrays.from_numpy(moved, pa.int64(), days_null, spans_null)
    return pc.cast(pc.cast(found, pa.int32()), pa.date32())


def _in_unit(span: Operand, other: Operand) -> Value:
    """A duration written in Python does not refine the unit of a column that holds it."""
    fits = promotion.converted(span, pa.duration(other.type.unit))
    return span.value if fits is None else fits


def _checked(function: Callable[..., Value], a: Operand, b: Operand) -> Value:
    try:
        return function(a.value, b.value)
    except pa.ArrowInvalid as error:
        raise errors.Problem(
            f"the result of {a.type} and {b.type} does not fit its type: {error}; cast to a coarser unit first",
            errors.ExpressionOverflowError,
        ) from error


def _mismatch(a: Operand, b: Operand, symbol: str) -> errors.Problem:
    return errors.Problem(f"there is no {symbol} for {a.type} and {b.type}; cast one of them")


def _kinds(of_time: bool) -> str:
    return "timestamps and times" if of_time else "timestamps and dates"
