"""Window functions for `Dataset.window`: for each row a value of the rows around it, in its partition and in an order.

    ds.window({"before": window.lag("price"), "mean": window.mean("price", rows=(6, 0))}, partition_by="item", order_by="day")

or, in one column among others: `ds.with_column("before", window.lag("price").over("item", order_by="day"))`.

`rows`: how many rows before and after the row are looked at, with it; None is as far as the partition goes, which both are
if it is left out. Nulls are passed over; of no values the result is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from umbel.data import expressions
from umbel.data._blocks import windows

Rows = tuple[int | None, int | None]
Column = str | expressions.Expr


class WindowFunction:
    """Made by the functions here: called with the name of the column that it is to make, or put into `with_column` by `over`."""

    def __init__(self, kind: str, on: Column | None = None, **options: Any) -> None:
        self.on = on
        self._kind, self._options = kind, options

    def __call__(self, name: str) -> windows.Function:
        on = self.on.name if isinstance(self.on, expressions.Expr) else self.on
        if isinstance(self.on, expressions.Expr) and not self.on.structurally_equals(expressions.col(on or "")):
            raise TypeError(f"window() takes names of columns, got {self.on!r}; use with_column({name!r}, ….over(...))")
        return windows.Function(kind=self._kind, name=name, on=on, **self._options)

    def __repr__(self) -> str:
        return f"{self._kind}({'' if self.on is None else repr(self.on)})"

    def over(
        self,
        partition_by: str | Sequence[str] | None = None,
        *,
        order_by: str | Sequence[str] | None = None,
        descending: bool | Sequence[bool] = False,
    ) -> Over:
        """As a column of `with_column` or `with_columns`; see `Dataset.window` for what these are."""
        return Over(self, partition_by, order_by, descending)


class Over:
    """A window function with its windows; see `WindowFunction.over`."""

    def __init__(self, function: WindowFunction, partition_by: Any, order_by: Any, descending: Any) -> None:
        self._function = function
        self._windows = {"partition_by": partition_by, "order_by": order_by, "descending": descending}

    def __repr__(self) -> str:
        return f"{self._function!r}.over({', '.join(f'{name}={value!r}' for name, value in self._windows.items())})"

    def _added(self, ds: Any, name: str) -> tuple[Any, str]:
        """A dataset with its column, and the name of that."""
        function, of = self._function, self._function.on
        if isinstance(of, expressions.Expr):
            ds = ds.with_column(f"{name}of", of)
            function = WindowFunction(function._kind, f"{name}of", **function._options)
        ds = ds.window({name: function}, **self._windows)
        return (ds.drop_columns(f"{name}of") if isinstance(of, expressions.Expr) else ds), name


def row_number() -> WindowFunction:
    """1, 2, 3, … in the order."""
    return WindowFunction("row_number")


def rank() -> WindowFunction:
    """The same number for rows that are equal in the order, and a gap behind them."""
    return WindowFunction("rank")


def dense_rank() -> WindowFunction:
    """As `rank`, without gaps."""
    return WindowFunction("dense_rank")


def ntile(buckets: int) -> WindowFunction:
    """1 to `buckets`, each for as many rows as can be; the first ones are larger."""
    return WindowFunction("ntile", buckets=buckets)


def lag(on: Column, offset: int = 1, default: Any = None) -> WindowFunction:
    """The value of the column so many rows before."""
    return WindowFunction("lag", on=on, offset=offset, default=default)


def lead(on: Column, offset: int = 1, default: Any = None) -> WindowFunction:
    """The value of the column so many rows behind."""
    return WindowFunction("lead", on=on, offset=offset, default=default)


def count(on: Column | None = None, *, rows: Rows = windows.WHOLE) -> WindowFunction:
    """Of values that are not null; without a column, of rows."""
    return WindowFunction("count", on=on, frame=rows)


def sum(on: Column, *, rows: Rows = windows.WHOLE, min_count: int = 1) -> WindowFunction:
    """min_count: of fewer values it is null."""
    return WindowFunction("sum", on=on, frame=rows, min_count=min_count)


def mean(on: Column, *, rows: Rows = windows.WHOLE, min_count: int = 1) -> WindowFunction:
    """As `sum`."""
    return WindowFunction("mean", on=on, frame=rows, min_count=min_count)


def min(on: Column, *, rows: Rows = windows.WHOLE, min_count: int = 1) -> WindowFunction:
    """As `sum`."""
    return WindowFunction("min", on=on, frame=rows, min_count=min_count)


def max(on: Column, *, rows: Rows = windows.WHOLE, min_count: int = 1) -> WindowFunction:
    """As `sum`."""
    return WindowFunction("max", on=on, frame=rows, min_count=min_count)


def first_value(on: Column, *, rows: Rows = windows.WHOLE) -> WindowFunction:
    """Of the rows that are looked at, in the order; it may be null."""
    return WindowFunction("first_value", on=on, frame=rows)


def last_value(on: Column, *, rows: Rows = windows.WHOLE) -> WindowFunction:
    """As `first_value`."""
    return WindowFunction("last_value", on=on, frame=rows)


__all__ = [
    "Over", "WindowFunction", "count", "dense_rank", "first_value", "lag", "last_value", "lead", "max", "mean", "min", "ntile",
    "rank", "row_number", "sum",
]  # fmt: skip
