"""As-of joins: to each left row the right row that is nearest in an ordered column, such as the last price before a trade."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns, factoring, joining, key_types, ordering

Direction = Literal["backward", "forward", "nearest"]
DIRECTIONS: Final = ("backward", "forward", "nearest")


def asof(
    left: pa.Table,
    right: pa.Table,
    on: str,
    by: Sequence[str] = (),
    *,
    right_on: str | None = None,
    right_by: Sequence[str] | None = None,
    direction: Direction = "backward",
    tolerance: float | timedelta | None = None,
    is_exact_allowed: bool = True,
    left_suffix: str | None = None,
    right_suffix: str | None = None,
) -> pa.Table:
    """Every left row, in its order, with the right row of equal `by` whose `on` is the last not above its own (backward), the
    first not below it (forward), or the nearest (a tie goes backward); nulls where there is none within the tolerance.

    Of right rows with the same `on` backward takes the last and forward the first. Neither table need be sorted. Null and NaN
    have no partner. tolerance: in the unit of `on`, or a timedelta for times. The columns are those of a left outer join on
    by and on.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(map(repr, DIRECTIONS))}, got {direction!r}")
    names = [*by, on]
    right_names = [*(by if right_by is None else right_by), on if right_on is None else right_on]
    kinds = joining.key_kinds(left.schema, right.schema, names, right_names)
    if not _is_ordered(kinds[-1]):
        raise TypeError(f"an as-of join goes by numbers or times, but {on!r} has type {left.schema.field(on).type}")
    left_keys = [key_types.cast(left, name, kind) for name, kind in zip(names, kinds, strict=True)]
    right_keys = [key_types.cast(right, name, kind) for name, kind in zip(right_names, kinds, strict=True)]
    partners = _partners(left_keys, right_keys, direction, _limit(tolerance, kinds[-1]), is_exact_allowed)
    return joining.assembled(
        left,
        right,
        names,
        right_names,
        np.arange(left.num_rows),
        partners,
        left_suffix=left_suffix,
        right_suffix=right_suffix,
    )


def _partners(
    left: list[pa.Array], right: list[pa.Array], direction: str, limit: Any, is_exact_allowed: bool
) -> np.ndarray:
    """[left rows] int64: the right row of each, or -1."""
    left_count = len(left[0])
    both = [joining.stacked(pair) for pair in zip(left, right, strict=True)]
    values, _ = columns.numbers(both[-1])
    usable = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
    for array in both:
        is_valid = columns.valid(array)
        usable &= True if is_valid is None else is_valid
    groups, _ = factoring.codes(both[:-1], len(values))
    codes = [groups.astype(np.uint64), *ordering.codes_of(both[-1], is_descending=False)]
    ranks = ordering.ranks(codes, len(values))
    right_rows = np.flatnonzero(usable[left_count:])
    right_rows = right_rows[np.argsort(ranks[left_count:][right_rows], kind="stable")]
    ordered = ranks[left_count:][right_rows]
    below = np.searchsorted(ordered, ranks[:left_count], side="right" if is_exact_allowed else "left") - 1
    above = np.searchsorted(ordered, ranks[:left_count], side="left" if is_exact_allowed else "right")

    padded = np.append(right_rows, 0)  # at -1 and at the end

    def chosen(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        is_there = (places >= 0) & (places < len(right_rows)) & usable[:left_count]
        rows = padded[places]
        if len(padded) > 1:
            is_there &= groups[left_count:][rows] == groups[:left_count]
            distances = _distances(values[:left_count], values[left_count:][rows])
        else:
            distances = np.zeros(left_count)
        if limit is not None:
            is_there &= distances <= limit
        return np.where(is_there, rows, -1), distances

    if direction != "nearest":
        return chosen(below if direction == "backward" else above)[0]
    backward, back_distances = chosen(below)
    forward, distances = chosen(above)
    is_forward = (backward < 0) | ((forward >= 0) & (distances < back_distances))
    return np.where(is_forward, forward, backward)


def _distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How far they are apart; exact, as integers by their unsigned difference."""
    if left.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # between infinities
            return np.where(left == right, 0.0, np.abs(left.astype(np.float64) - right))
    dtype = np.int64 if left.dtype.kind == "i" else np.uint64
    wide, other = left.astype(dtype), right.astype(dtype)
    return np.maximum(wide, other).view(np.uint64) - np.minimum(wide, other).view(np.uint64)


def _is_ordered(kind: pa.DataType) -> bool:
    return columns.is_number(kind) and not pa.types.is_boolean(kind)


def _limit(tolerance: float | timedelta | None, kind: pa.DataType) -> Any:
    """In the numbers that the columns are as."""
    if tolerance is None:
        return None
    is_time = pa.types.is_temporal(kind)
    if isinstance(tolerance, timedelta):
        if not is_time:
            raise TypeError(f"a tolerance of {tolerance} is for times, but the column has type {kind}; give a number")
        microseconds = tolerance // timedelta(microseconds=1)
        if pa.types.is_date32(kind):
            found: Any = microseconds // 86_400_000_000
        else:
            unit = "ms" if pa.types.is_date64(kind) else kind.unit
            found = microseconds * 10**9 // 10**6 // {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}[unit]
    else:
        found = tolerance * 10**kind.scale if pa.types.is_decimal(kind) else tolerance
    if found < 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    return found
