"""Scalers: each column less a shift, by a scale, both of which are learned."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import aggregating
from umbel.data.preprocessors import _base, _columns, _making, _statistics

_CONSTANT_EPSILONS: Final = 10.0  # a deviation of so many roundings of the mean is what rounding leaves of a constant
_EPSILON: Final = 2.0**-52


class _Scaler(_base.Columnwise):
    """Null and NaN stay so, and count for nothing in the statistics; a column without values becomes null. A scale of 0, that
    of a constant, counts as 1."""

    _fields: ClassVar[tuple[str, ...]] = ("columns", "output_columns")

    def __init__(self, columns: Sequence[str], output_columns: Sequence[str] | None = None) -> None:
        super().__init__()
        self.columns = _columns.names(columns)
        self.output_columns = _columns.output_names(self.columns, output_columns)

    def _shift_and_scale(self, column: str) -> tuple[float, float] | None:
        """None for a column without values."""
        raise NotImplementedError

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        return self._made(schema, self.columns, self.output_columns, _scaled)

    def _inverse_outputs(self, schema: pa.Schema) -> list[_making.Output]:
        return self._made(schema, self.output_columns, self.columns, _unscaled)

    def _made(
        self, schema: pa.Schema, inputs: Sequence[str], outputs: Sequence[str], function: Any
    ) -> list[_making.Output]:
        _making.require_numbers(schema, inputs, title=type(self).__name__)
        return [
            _making.Output(made, (read,), functools.partial(function, by=self._shift_and_scale(column)), pa.float64())
            for column, read, made in zip(self.columns, inputs, outputs, strict=True)
        ]

    def _finite(self, stats: dict[str, Any]) -> dict[str, Any]:
        """Raises ValueError for a statistic that no column can be scaled by."""
        for name, value in stats.items():
            if value is not None and not math.isfinite(value):
                raise ValueError(
                    f"{type(self).__name__}: {name} is {value}, for the column has infinite or too large values; "
                    "replace these, or "
                    "filter their rows out, before fit()"
                )
        return stats


def _scaled(array: pa.Array, *, by: tuple[float, float] | None) -> pa.Array:
    if by is None:
        return pa.nulls(len(array), pa.float64())
    shift, scale = by
    return pc.divide(pc.subtract(_making.floats(array), shift), scale)


def _unscaled(array: pa.Array, *, by: tuple[float, float] | None) -> pa.Array:
    if by is None:
        return pa.nulls(len(array), pa.float64())
    shift, scale = by
    return pc.add(pc.multiply(_making.floats(array), scale), shift)


class StandardScaler(_Scaler):
    """Less the mean, by the standard deviation (of all, not of a sample): `stats_` "mean(x)" and "std(x)"."""

    def _aggregates(self) -> list[aggregating.AggregateFn]:
        means = [_statistics.Mean(one) for one in self.columns]
        return [*means, *(_statistics.Std(one, ddof=0) for one in self.columns)]

    def _learned(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return self._finite(
            {f"{kind}({one})": found[f"{kind}({one})"] for kind in ("mean", "std") for one in self.columns}
        )

    def _shift_and_scale(self, column: str) -> tuple[float, float] | None:
        mean, std = self.stats_[f"mean({column})"], self.stats_[f"std({column})"]
        if mean is None or std is None:
            return None
        return mean, 1.0 if std <= _CONSTANT_EPSILONS * _EPSILON * abs(mean) else std


class MinMaxScaler(_Scaler):
    """From 0 for the least value to 1 for the greatest: `stats_` "min(x)" and "max(x)"."""

    def _aggregates(self) -> list[aggregating.AggregateFn]:
        return [*(_statistics.Min(one) for one in self.columns), *(_statistics.Max(one) for one in self.columns)]

    def _learned(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return self._finite(
            {f"{kind}({one})": found[f"{kind}({one})"] for kind in ("min", "max") for one in self.columns}
        )

    def _shift_and_scale(self, column: str) -> tuple[float, float] | None:
        least, most = self.stats_[f"min({column})"], self.stats_[f"max({column})"]
        if least is None or most is None:
            return None
        return float(least), (float(most) - float(least)) or 1.0


class MaxAbsScaler(_Scaler):
    """By the greatest magnitude, so that 0 stays 0: `stats_` "abs_max(x)"."""

    def _aggregates(self) -> list[aggregating.AggregateFn]:
        return [_statistics.AbsMax(one) for one in self.columns]

    def _learned(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return self._finite({f"abs_max({one})": found[f"abs_max({one})"] for one in self.columns})

    def _shift_and_scale(self, column: str) -> tuple[float, float] | None:
        most = self.stats_[f"abs_max({column})"]
        return None if most is None else (0.0, float(most) or 1.0)


class RobustScaler(_Scaler):
    """Less the median, by the difference of two quantiles, so that outliers count for little: `stats_` "low_quantile(x)",
    "median(x)" and "high_quantile(x)".

    quantile_range: of which quantiles, each from 0 to 1. quantile_precision: of `ApproximateQuantile`, which is exact for up
    to four times as many values.
    """

    DEFAULT_QUANTILE_PRECISION = 800
    _fields = ("columns", "quantile_range", "output_columns", "quantile_precision")

    def __init__(
        self,
        columns: Sequence[str],
        quantile_range: tuple[float, float] = (0.25, 0.75),
        output_columns: Sequence[str] | None = None,
        quantile_precision: int = DEFAULT_QUANTILE_PRECISION,
    ) -> None:
        super().__init__(columns, output_columns)
        low, high = quantile_range
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"quantile_range must be two quantiles from 0 to 1, the lower first, got {quantile_range!r}"
            )
        self.quantile_range = (low, high)
        self.quantile_precision = quantile_precision

    def _repr_fields(self) -> tuple[str, ...]:
        return self._fields[:-1]

    def _quantiles(self, column: str) -> _statistics.Quantiles:
        low, high = self.quantile_range
        return _statistics.Quantiles(column, (low, 0.5, high), self.quantile_precision)

    def _aggregates(self) -> list[aggregating.AggregateFn]:
        return [*map(self._quantiles, self.columns)]

    def _learned(self, found: Mapping[str, Any]) -> dict[str, Any]:
        stats = {}
        for column in self.columns:
            values = found[self._quantiles(column).name] or [None] * 3
            for kind, value in zip(("low_quantile", "median", "high_quantile"), values, strict=True):
                stats[f"{kind}({column})"] = value
        return self._finite(stats)

    def _shift_and_scale(self, column: str) -> tuple[float, float] | None:
        low, median, high = (self.stats_[f"{kind}({column})"] for kind in ("low_quantile", "median", "high_quantile"))
        return None if median is None else (median, (high - low) or 1.0)
