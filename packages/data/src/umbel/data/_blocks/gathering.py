"""Aggregations whose state holds values: lists, distinct values, their counts, and exact quantiles. Nothing is approximate,
so the state grows with what is distinct, or with the rows; see `sketching` for those that stay small.
"""

from __future__ import annotations

import enum

import numpy as np
import pyarrow as pa

from umbel.data._blocks import aggregating, columns, factoring, hashing, ordering, reducing


class AsList(aggregating.Vectorized):
    """All values of the group in the order of the rows, nulls among them unless they are ignored."""

    kind = "list"

    def __init__(self, on: str, alias_name: str | None = None, ignore_nulls: bool = False) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=ignore_nulls)

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        return _listed(self.column_values(table), groups, ignore_nulls=self.ignore_nulls)

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        return joined_lists(state, groups)

    def _end(self, state: pa.Array) -> pa.Array:
        return state


class ListEncoding(str, enum.Enum):
    """What `Unique` makes of a column of lists."""

    FLATTEN = "FLATTEN"  # the values within the lists
    HASH = "HASH"  # the lists, as 64-bit hashes


class Unique(aggregating.Vectorized):
    """The distinct values, in the order in which they first appear; null is one of them unless it is ignored, NaN is one.

    encode_lists: True, of the values within lists (or ListEncoding); by default a list is a value.
    """

    kind = "unique"
    ListEncodingMode = ListEncoding

    def __init__(
        self,
        on: str | None = None,
        ignore_nulls: bool = False,
        alias_name: str | None = None,
        encode_lists: bool | ListEncoding | None = None,
    ) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=ignore_nulls)
        if isinstance(encode_lists, ListEncoding):
            self.list_encoding: ListEncoding | None = encode_lists
        else:
            self.list_encoding = ListEncoding.FLATTEN if encode_lists else None

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        values = self.column_values(table)
        if columns.is_list(values.type) and self.list_encoding is ListEncoding.HASH:
            is_valid = columns.valid(values)
            values = pa.array(hashing.hash_arrays([values], len(values)), mask=None if is_valid is None else ~is_valid)
        elif columns.is_list(values.type) and self.list_encoding is ListEncoding.FLATTEN:
            values, groups = flattened(values, groups)
        return _distinct(values, groups, ignore_nulls=self.ignore_nulls)

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        return _distinct(state.flatten(), groups.nested(state), ignore_nulls=False)

    def _end(self, state: pa.Array) -> pa.Array:
        return state


class CountDistinct(Unique):
    """How many distinct values there are; null is one of them unless it is ignored, NaN is one."""

    kind = "count_distinct"

    def __init__(self, on: str, ignore_nulls: bool = True, alias_name: str | None = None) -> None:
        super().__init__(on, ignore_nulls=ignore_nulls, alias_name=alias_name)

    def _end(self, state: pa.Array) -> pa.Array:
        return pa.array(np.diff(columns.list_parts(state)[0]))


class ValueCounter(aggregating.Vectorized):
    """How often each value occurs: a struct of two lists, `values` in the order in which they first appear, and `counts`.
    Nulls do not count."""

    kind = "value_counter"

    def __init__(self, on: str, alias_name: str | None = None) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=True)

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        return counted(*without_nulls(self.column_values(table), groups), None)

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        values, counts = state.flatten()
        return counted(values.flatten(), groups.nested(values), columns.numbers(counts.flatten())[0])

    def _end(self, state: pa.Array) -> pa.Array:
        return state


class Quantile(aggregating.Vectorized):
    """The quantile `q` in [0, 1], as float64, interpolated between the two values that lie about it; null of no values."""

    kind = "quantile"

    def __init__(
        self, on: str | None = None, q: float = 0.5, ignore_nulls: bool = True, alias_name: str | None = None
    ) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=ignore_nulls)
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"{self.name}: q must be between 0 and 1, got {q!r}")
        self.q = q

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        return _listed(as_floats(self, table), groups, ignore_nulls=self.ignore_nulls)

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        return joined_lists(state, groups)

    def _end(self, state: pa.Array) -> pa.Array:
        groups = reducing.Groups(np.arange(len(state)), len(state)).nested(state)
        array = state.flatten()
        nulls = groups.sizes - groups.counts(columns.valid(array))
        values, groups = without_nulls(array, groups)
        order = ordering.argsort(
            [groups.ids.astype(np.uint64), *ordering.codes_of(values, is_descending=False)], len(values)
        )
        ordered = np.append(columns.numbers(values)[0][order], np.nan)
        places = groups.offsets[:-1] + self.q * np.maximum(groups.sizes - 1, 0)
        low = np.floor(places).astype(np.int64)
        high = np.minimum(np.ceil(places).astype(np.int64), len(values))
        least, most, part = ordered[low], ordered[high], places - low
        # Not by their difference, which may overflow.
        found = np.where(part == 0, least, least * (1 - part) + most * part)
        is_valid = (groups.sizes > 0) & (nulls == 0)
        return columns.rebuilt(found, is_valid, pa.float64())


def as_floats(aggregation: aggregating.Vectorized, table: pa.Table) -> pa.Array:
    """The numbers of its column as float64."""
    values = aggregation.column_values(table)
    kind = values.type
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)
    if not any(test(kind) for test in tests):
        raise aggregation.refused(kind, allowed="a number")
    return (values.cast(pa.uint8()) if pa.types.is_boolean(kind) else values).cast(pa.float64(), safe=False)


def flattened(values: pa.Array, groups: reducing.Groups) -> tuple[pa.Array, reducing.Groups]:
    """What is within the lists, and the groups of that. A null list has nothing."""
    values, groups = without_nulls(values, groups)
    return columns.list_parts(values)[1], groups.nested(values)


def without_nulls(values: pa.Array, groups: reducing.Groups) -> tuple[pa.Array, reducing.Groups]:
    """The values that are not null, and their groups."""
    is_valid = columns.valid(values)
    if is_valid is None:
        return values, groups
    return values.take(pa.array(np.flatnonzero(is_valid))), groups.where(is_valid)


def joined_lists(state: pa.Array, groups: reducing.Groups) -> pa.Array:
    """For each group its lists one after another."""
    return groups.nested(state).lists(columns.list_parts(state)[1])


def counted(values: pa.Array, groups: reducing.Groups, counts: np.ndarray | None) -> pa.StructArray:
    """`values` and `counts`: the distinct values of each group by first appearance, and the sum of their counts (None: 1
    each)."""
    pairs, rows = _pairs(values, groups)
    sums = pairs.sizes if counts is None else pairs.sums(counts)
    inner = groups.where(rows)
    return pa.StructArray.from_arrays(
        [inner.lists(values.take(pa.array(rows))), inner.lists(pa.array(sums[pairs.ids[rows]]))],
        names=["values", "counts"],
    )


def _listed(values: pa.Array, groups: reducing.Groups, *, ignore_nulls: bool) -> pa.Array:
    if ignore_nulls:
        values, groups = without_nulls(values, groups)
    return groups.lists(values)


def _distinct(values: pa.Array, groups: reducing.Groups, *, ignore_nulls: bool) -> pa.Array:
    if ignore_nulls:
        values, groups = without_nulls(values, groups)
    _, rows = _pairs(values, groups)
    return groups.where(rows).lists(values.take(pa.array(rows)))


def _pairs(values: pa.Array, groups: reducing.Groups) -> tuple[reducing.Groups, np.ndarray]:
    """The rows by group and value, and the first row of each pair, in the order of the rows."""
    ids, count = factoring.codes([values], len(values))
    if groups.count > 1:
        ids, count = factoring.dense(groups.ids * count + ids, None)
    pairs = reducing.Groups(ids, count)
    is_first = np.zeros(len(values), bool)
    is_first[pairs.first()] = True
    return pairs, np.flatnonzero(is_first)
