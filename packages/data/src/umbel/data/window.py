"""Window functions for `Dataset.window`: for each row a value of the rows around it, in its partition and in an order.

    ds.window({"before": window.lag("price"), "mean": window.mean("price", rows=(6, 0))}, partition_by="item", order_by="day")

`rows`: how many rows before and after the row are looked at, with it; None is as far as the partition goes, which both are
if it is left out. Nulls are passed over; of no values the result is null.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from umbel.data._blocks import windows

Rows = tuple[int | None, int | None]
WindowFunction = Callable[[str], windows.Function]
"""Made by the functions here; it is given the name of its column."""


def row_number() -> WindowFunction:
    """1, 2, 3, … in the order."""
    return lambda name: windows.Function(kind="row_number", name=name)


def rank() -> WindowFunction:
    """The same number for rows that are equal in the order, and a gap behind them."""
    return lambda name: windows.Function(kind="rank", name=name)


def dense_rank() -> WindowFunction:
    """As `rank`, without gaps."""
    return lambda name: windows.Function(kind="dense_rank", name=name)


def ntile(buckets: int) -> WindowFunction:
    """1 to `buckets`, each for as many rows as can be; the first ones are larger."""
    return lambda name: windows.Function(kind="ntile", name=name, buckets=buckets)


def lag(on: str, offset: int = 1, default: Any = None) -> WindowFunction:
    """The value of the column so many rows before."""
    return lambda name: windows.Function(kind="lag", name=name, on=on, offset=offset, default=default)


def lead(on: str, offset: int = 1, default: Any = None) -> WindowFunction:
    """The value of the column so many rows behind."""
    return lambda name: windows.Function(kind="lead", name=name, on=on, offset=offset, default=default)


def count(on: str | None = None, *, rows: Rows = windows.WHOLE) -> WindowFunction:
    """Of values that are not null; without a column, of rows."""
    return lambda name: windows.Function(kind="count", name=name, on=on, frame=rows)


def sum(on: str, *, rows: Rows = windows.WHOLE, min_count: int = 1) -> WindowFunction:
    """min_count: of fewer values it is null."""
    return lambda name: windows.Function(kind="sum", name=name, on=on, frame=rows, min_count=min_count)


def mean(on: str, *, rows: Rows = windows.WHOLE, min_count: int = 1) -> WindowFunction:
    """As `sum`."""
    return lambda name: windows.Function(kind="mean", name=name, on=on, frame=rows, min_count=min_count)


def min(on: str, *, rows: Rows = windows.WHOLE, min_count: int = 1) -> WindowFunction:
    """As `sum`."""
    return lambda name: windows.Function(kind="min", name=name, on=on, frame=rows, min_count=min_count)


def max(on: str, *, rows: Rows = windows.WHOLE, min_count: int = 1) -> WindowFunction:
    """As `sum`."""
    return lambda name: windows.Function(kind="max", name=name, on=on, frame=rows, min_count=min_count)


def first_value(on: str, *, rows: Rows = windows.WHOLE) -> WindowFunction:
    """Of the rows that are looked at, in the order; it may be null."""
    return lambda name: windows.Function(kind="first_value", name=name, on=on, frame=rows)


def last_value(on: str, *, rows: Rows = windows.WHOLE) -> WindowFunction:
    """As `first_value`."""
    return lambda name: windows.Function(kind="last_value", name=name, on=on, frame=rows)


__all__ = [
    "WindowFunction", "count", "dense_rank", "first_value", "lag", "last_value", "lead", "max", "mean", "min", "ntile",
    "rank", "row_number", "sum",
]  # fmt: skip
