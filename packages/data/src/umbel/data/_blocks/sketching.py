"""Aggregations that are approximate and stay small: quantiles and the most frequent values. Where the state of a group would
not be larger than its bound anyway, they are exact. Both are deterministic; nothing is drawn by chance.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import aggregating, columns, gathering, ordering, reducing

_CENTROIDS_PER_PRECISION: Final = 4  # kept before they are merged: merging less often costs less and is more exact
_LOG_CAPACITY_MAX: Final = 30


class ApproximateQuantile(aggregating.Vectorized):
    """The quantiles, each in [0, 1], as a list of float64 in their order; null of no values. Nulls and NaN do not count.

    State: centroids (mean and weight) in order, merged by a scale function that keeps those at both ends small. The rank of
    an answer is off by about 1 / quantile_precision in the middle and by less at the ends; up to four times that many values
    are all kept.
    Source: Dunning and Ertl, Computing Extremely Accurate Quantiles Using t-Digests, arXiv:1902.04023, with scale function
    k1.
    """

    kind = "approx_quantile"

    def __init__(
        self, on: str, quantiles: Sequence[float], quantile_precision: int = 800, alias_name: str | None = None
    ) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=True)
        wrong = [q for q in quantiles if not 0.0 <= q <= 1.0]
        if wrong or not len(quantiles):
            raise ValueError(
                f"{self.name}: quantiles must be one or more numbers between 0 and 1, got {list(quantiles)}"
            )
        if quantile_precision < 8:
            raise ValueError(
                f"{self.name}: quantile_precision must be at least 8, got {quantile_precision!r}; 800 is the default"
            )
        self.quantiles = list(quantiles)
        self.quantile_precision = quantile_precision

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        values, groups = gathering.without_nulls(gathering.as_floats(self, table), groups)
        means = columns.numbers(values)[0]
        is_number = ~np.isnan(means)
        if not is_number.all():
            means, groups = means[is_number], groups.where(is_number)
        return self._digested(means, np.ones(len(means)), groups)

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        means, weights = state.flatten()
        return self._digested(
            columns.numbers(means.flatten())[0], columns.numbers(weights.flatten())[0], groups.nested(means)
        )

    def _end(self, state: pa.Array) -> pa.Array:
        means, weights = state.flatten()
        offsets = columns.list_parts(means)[0].tolist()
        all_means, all_weights = columns.numbers(means.flatten())[0], columns.numbers(weights.flatten())[0]
        found = []
        for start, end in itertools.pairwise(offsets):
            weight = all_weights[start:end]
            # The centroid of rows a..b stands at (a + b) / 2, so that single values stand where an exact quantile has them.
            centers = np.cumsum(weight) - (weight + 1) / 2
            places = np.array(self.quantiles) * (weight.sum() - 1)
            found.append(np.interp(places, centers, all_means[start:end]).tolist() if end > start else None)
        return pa.array(found, pa.list_(pa.float64()))

    def _digested(self, means: np.ndarray, weights: np.ndarray, groups: reducing.Groups) -> pa.Array:
        """The state, of centroids in any order."""
        codes = ordering.codes_of(pa.array(means), is_descending=False)
        order = ordering.argsort([groups.ids.astype(np.uint64), *codes], len(means))
        means, weights, groups = means[order], weights[order], groups.where(order)
        if (groups.sizes > self.quantile_precision * _CENTROIDS_PER_PRECISION).any():
            means, weights, groups = self._compressed(means, weights, groups)
        lists = [
            pa.ListArray.from_arrays(pa.array(groups.offsets.astype(np.int32)), pa.array(part))
            for part in (means, weights)
        ]
        return pa.StructArray.from_arrays(lists, names=["means", "weights"])

    def _compressed(
        self, means: np.ndarray, weights: np.ndarray, groups: reducing.Groups
    ) -> tuple[np.ndarray, np.ndarray, reducing.Groups]:
        """Those of neighbours that fall between the same two steps of the scale become one; all groups at once."""
        ends = np.cumsum(weights)
        before = np.concatenate([np.zeros(1), ends])[groups.offsets[:-1]]
        totals = groups.sums(weights)
        middle = (ends - weights / 2 - before[groups.ids]) / totals[groups.ids]
        steps = np.floor(np.arcsin(np.clip(2 * middle - 1, -1, 1)) / np.pi * self.quantile_precision).astype(np.int64)
        is_whole = (groups.sizes <= self.quantile_precision * _CENTROIDS_PER_PRECISION)[groups.ids]
        is_first = np.ones(len(means), bool)
        is_first[1:] = (groups.ids[1:] != groups.ids[:-1]) | (steps[1:] != steps[:-1]) | is_whole[1:]
        is_first[groups.offsets[1:] - 1] = (
            True  # the last of each group stays alone, as does the first: its ends are exact
        )
        is_first[np.minimum(groups.offsets[:-1] + 1, len(means) - 1)] = True
        places = np.flatnonzero(is_first)
        clusters = reducing.Groups(np.cumsum(is_first) - 1, len(places))
        merged = clusters.sums(weights)
        bases = means[places]  # so that of equal values the mean is exactly that, infinities included
        with np.errstate(invalid="ignore"):
            shifts = np.where(means == bases[clusters.ids], 0.0, means - bases[clusters.ids])
            centers = bases + clusters.sums(shifts * weights) / merged
        centers = np.where(np.isnan(centers), bases, centers)
        return centers, merged, groups.where(places)


class ApproximateTopK(aggregating.Vectorized):
    """The `k` most frequent values, as a list of structs of the value, under the column's name, and its `count`, most
    frequent first.

    Of N values, one that occurs more than N / 2**log_capacity times is found, and a count is too low by at most that much. Up
    to 2**log_capacity distinct values all counts are exact. Nulls do not count. encode_lists: of the values within lists.
    Source: Agarwal, Cormode, Huang, Phillips, Wei and Yi, Mergeable Summaries, PODS 2012 (Misra-Gries).
    """

    kind = "approx_topk"

    def __init__(
        self, on: str, k: int, log_capacity: int = 15, alias_name: str | None = None, encode_lists: bool = False
    ) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=True)
        if k < 1:
            raise ValueError(f"{self.name}: k must be at least 1, got {k!r}")
        if not 1 <= log_capacity <= _LOG_CAPACITY_MAX:
            raise ValueError(
                f"{self.name}: log_capacity must be between 1 and {_LOG_CAPACITY_MAX}, got {log_capacity!r}"
            )
        self.k = k
        self.log_capacity = log_capacity
        self.encode_lists = encode_lists

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        values = self.column_values(table)
        if self.encode_lists and columns.is_list(values.type):
            values, groups = gathering.flattened(values, groups)
        return self._bounded(gathering.counted(*gathering.without_nulls(values, groups), None))

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        values, counts = state.flatten()
        return self._bounded(
            gathering.counted(values.flatten(), groups.nested(values), columns.numbers(counts.flatten())[0])
        )

    def _end(self, state: pa.Array) -> pa.Array:
        values, groups, counts = self._exploded(state)
        order = np.lexsort([-counts, groups.ids])  # stable: of equal counts the value that appeared first
        place = np.arange(len(order)) - groups.offsets[:-1][groups.ids[order]]
        rows = order[place < self.k]
        pairs = [values.take(pa.array(rows)), pa.array(counts[rows])]
        return groups.where(rows).lists(pa.StructArray.from_arrays(pairs, names=[self.on or "", "count"]))

    def _bounded(self, state: pa.StructArray) -> pa.StructArray:
        """Of each group that has more values than its capacity, those that are more frequent than the first one beyond, less
        its count."""
        capacity = 1 << self.log_capacity
        values, groups, counts = self._exploded(state)
        if not (groups.sizes > capacity).any():
            return state
        order = np.lexsort([-counts, groups.ids])
        beyond = np.zeros(groups.count, np.int64)
        full = np.flatnonzero(groups.sizes > capacity)
        beyond[full] = counts[order[groups.offsets[full] + capacity]]
        left = counts - beyond[groups.ids]
        rows = np.flatnonzero(left > 0)
        inner = groups.where(rows)
        return pa.StructArray.from_arrays(
            [inner.lists(values.take(pa.array(rows))), inner.lists(pa.array(left[rows]))], names=["values", "counts"]
        )

    def _exploded(self, state: pa.StructArray) -> tuple[pa.Array, reducing.Groups, np.ndarray]:
        values, counts = state.flatten()
        groups = reducing.Groups(np.arange(len(values)), len(values)).nested(values)
        return columns.list_parts(values)[1], groups, columns.numbers(columns.list_parts(counts)[1])[0]
