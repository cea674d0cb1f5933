"""Numbers as the bins that they are in."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import aggregating, columns
from umbel.data.preprocessors import _base, _categories, _columns, _encoding, _making, _statistics

_MARGIN: Final = 0.001  # of the range, by which the outermost bins are wider, so that the extremes are in them


class _Discretizer(_base.Columnwise):
    _fields: ClassVar[tuple[str, ...]] = (
        "columns",
        "bins",
        "right",
        "include_lowest",
        "duplicates",
        "dtypes",
        "output_columns",
    )

    def __init__(
        self,
        columns: Sequence[str],
        bins: Any,
        *,
        right: bool = True,
        include_lowest: bool = False,
        duplicates: str = "raise",
        dtypes: Mapping[str, Any] | None = None,
        output_columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.columns = _columns.names(columns)
        self.right = right
        self.include_lowest = include_lowest
        if duplicates not in ("raise", "drop"):
            raise ValueError(f"duplicates must be 'raise' or 'drop', got {duplicates!r}")
        self.duplicates = duplicates
        if isinstance(bins, Mapping):
            missing = [one for one in self.columns if one not in bins]
            if missing:
                raise ValueError(f"bins has none for the column {missing[0]!r}; give bins for each of {self.columns}")
            self.bins: Any = {name: self._checked(value) for name, value in bins.items()}
        else:
            self.bins = self._checked(bins)
        self.dtypes = None if dtypes is None else {name: _dtype(value) for name, value in dtypes.items()}
        self.output_columns = _columns.output_names(self.columns, output_columns)

    def _checked(self, bins: Any) -> Any:
        raise NotImplementedError

    def _of(self, column: str) -> Any:
        return self.bins[column] if isinstance(self.bins, dict) else self.bins

    def _edges(self, column: str) -> np.ndarray[Any, Any]:
        raise NotImplementedError

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        _making.require_numbers(schema, self.columns, title=type(self).__name__)
        return [self._output(column, name) for column, name in zip(self.columns, self.output_columns, strict=True)]

    def _output(self, column: str, name: str) -> _making.Output:
        edges = self._edges(column)
        function = functools.partial(_binned, edges=edges, right=self.right, include_lowest=self.include_lowest)
        dtype = (self.dtypes or {}).get(column)
        if not isinstance(dtype, _categories.CategoricalDtype):
            kind = pa.int64() if dtype is None else pa.from_numpy_dtype(dtype)
            return _making.Output(name, (column,), functools.partial(function, made_of=kind), kind)
        known = pa.array(dtype.categories)
        if len(known) != len(edges) - 1:
            raise ValueError(
                f"{type(self).__name__}: dtypes has {len(known)} categories for the column {column!r}, which "
                f"has {len(edges) - 1} bins; "
                "give one for each"
            )
        labelled = functools.partial(function, made_of=known, is_ordered=dtype.ordered)
        return _making.Output(name, (column,), labelled, _encoding.categorical_type(known, dtype.ordered))


def _binned(
    array: pa.Array,
    *,
    edges: np.ndarray[Any, Any],
    right: bool,
    include_lowest: bool,
    made_of: Any,
    is_ordered: bool = False,
) -> pa.Array:
    """The number of the bin, null outside of all; or what has this place in `made_of`, if that is an array."""
    values, is_valid = columns.numbers(_making.floats(array))
    places = np.searchsorted(edges, values, side="left" if right else "right")
    if include_lowest and right:
        places[values == edges[0]] = 1
    is_outside = (places == 0) | (places == len(edges)) | np.isnan(values)
    if is_valid is not None:
        is_outside |= ~is_valid
    if isinstance(made_of, pa.Array):
        indices = pa.array((places - 1).astype(np.int32), mask=is_outside)
        return pa.DictionaryArray.from_arrays(indices, made_of, ordered=is_ordered)
    return pa.array(places - 1, mask=is_outside).cast(made_of)


class CustomKBinsDiscretizer(_Discretizer):
    """The number of the bin of each value, as int64; null for one that is in none.

    bins: edges that rise, or pandas' IntervalIndex without gaps; or such for each column. right: a bin has its right edge and
    not its left one, or the other way round. include_lowest: the first has its left one too. duplicates: of edges, "raise" or
    "drop". dtypes: for columns, another dtype of integers; or a `CategoricalDtype` with a category for each bin, which is the
    result then.
    """

    _is_fittable = False

    def _checked(self, bins: Any) -> list[Any]:
        if hasattr(bins, "closed") and hasattr(bins, "left"):
            bins = self._edges_of_intervals(bins)
        if isinstance(bins, str) or not isinstance(bins, Iterable):
            raise TypeError(
                f"bins are the edges of bins, such as [0, 1, 10], got {bins!r}; see UniformKBinsDiscretizer for a number of bins"
            )
        edges = [one.item() if isinstance(one, np.generic) else one for one in bins]
        if (
            any(second < first for first, second in itertools.pairwise(edges))
            or np.isnan(np.array(edges, np.float64)).any()
        ):
            raise ValueError(f"the edges of bins must rise, got {edges}")
        distinct = [*dict.fromkeys(edges)]
        if len(distinct) < len(edges) and self.duplicates == "raise":
            raise ValueError(
                f"the edges of bins have duplicates, got {edges}; leave them out, or pass duplicates='drop'"
            )
        if len(distinct) < 2:
            raise ValueError(f"bins needs two edges at least, got {edges}")
        return distinct

    def _edges_of_intervals(self, intervals: Any) -> list[float]:
        left, right = [*intervals.left], [*intervals.right]
        if left[1:] != right[:-1]:
            raise ValueError(f"the intervals of bins must follow one another without gaps, got {intervals!r}")
        if intervals.closed != ("right" if self.right else "left"):
            raise ValueError(
                f"the intervals of bins are closed on the {intervals.closed}; pass right={intervals.closed == 'right'}"
            )
        return [*left, right[-1]]

    def _edges(self, column: str) -> np.ndarray[Any, Any]:
        return np.array(self._of(column), np.float64)


class UniformKBinsDiscretizer(_Discretizer):
    """The number of the bin of each value, of bins equally wide from the least value to the greatest; null for one that is in
    none. `stats_` has the edges of each column, of which the first, or else the last, is a thousandth of the range further
    out.

    bins: how many, or that for each column. The other arguments are those of `CustomKBinsDiscretizer`.
    """

    def _checked(self, bins: Any) -> int:
        if not isinstance(bins, int | np.integer) or isinstance(bins, bool):
            raise TypeError(
                f"bins must be a number of bins, or one for each column, got {bins!r}; see CustomKBinsDiscretizer for edges"
            )
        if bins < 1:
            raise ValueError(f"bins must be 1 or more, got {bins!r}")
        return int(bins)

    def _aggregates(self) -> list[aggregating.AggregateFn]:
        return [*(_statistics.Min(one) for one in self.columns), *(_statistics.Max(one) for one in self.columns)]

    def _learned(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {one: self._spread(one, found[f"min({one})"], found[f"max({one})"]) for one in self.columns}

    def _spread(self, column: str, least: Any, most: Any) -> np.ndarray[Any, Any]:
        if least is None or most is None:
            raise ValueError(f"UniformKBinsDiscretizer: the column {column!r} has no values to bin; fit to other data")
        low, high, count = float(least), float(most), self._of(column)
        if not np.isfinite([low, high, high - low]).all():
            raise ValueError(
                f"UniformKBinsDiscretizer: the column {column!r} has values from {low} to {high}, which no bins "
                "divide; replace infinite "
                "ones, or filter their rows out"
            )
        if low == high:
            low -= _MARGIN * abs(low) or _MARGIN
            high += _MARGIN * abs(high) or _MARGIN
            return np.linspace(low, high, count + 1)
        edges = np.linspace(low, high, count + 1)
        outer = 0 if self.right else -1
        edges[outer] += (high - low) * _MARGIN * (-1 if self.right else 1)
        return edges

    def _edges(self, column: str) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = self.stats_[column]
        return found


def _dtype(value: Any) -> Any:
    if isinstance(value, _categories.CategoricalDtype | list | tuple) or hasattr(value, "categories"):
        return _categories.CategoricalDtype.of(value)
    dtype = np.dtype(value)
    if dtype.kind not in "iu":
        raise TypeError(f"dtypes are CategoricalDtype or NumPy's integers, got {value!r}")
    return dtype
