"""Aggregations to one number or one value: counts, sums, means, deviations, extremes, first and last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import aggregating, columns, ordering, reducing, schemas, tensors

_NUMBERS = "a number"


class Count(aggregating.Vectorized):
    """How many rows there are; with `on` and ignore_nulls, how many values are not null. Never null itself."""

    kind = "count"

    def __init__(self, on: str | None = None, ignore_nulls: bool = False, alias_name: str | None = None) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=ignore_nulls)

    def input_columns(self) -> tuple[str, ...]:
        return () if self.on is None else (self.on,)

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        is_valid = None if self.on is None else columns.valid(self.column_values(table))
        return pa.array(groups.counts(is_valid if self.ignore_nulls else None))

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        return pa.array(groups.sums(columns.numbers(state)[0]))

    def _end(self, state: pa.Array) -> pa.Array:
        return state


class _Total(aggregating.Vectorized):
    """What is computed of the sum and the count. State: how many are valid and how many null, and the sum as float or in
    limbs; `of` holds the type of the column, and nulls."""

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        values = self.column_values(table)
        kind = values.type
        if not self._takes(kind):
            raise self.refused(kind, allowed=_NUMBERS)
        is_valid = columns.valid(values)
        if pa.types.is_null(kind):
            values, is_valid = pa.nulls(len(values), pa.int64()), np.zeros(len(values), bool)
        counts = groups.counts(is_valid)
        if is_valid is not None:
            values, groups_of_values = values.filter(pa.array(is_valid)), groups.where(is_valid)
        else:
            groups_of_values = groups
        if pa.types.is_floating(values.type):
            sums = [groups_of_values.sums(columns.numbers(values)[0].astype(np.float64))]
        else:
            sums = reducing.limb_sums(groups_of_values.sums, values)
        return self._state(kind, counts, groups.sizes - counts, sums)

    def alike(self, states: Sequence[pa.Array]) -> Sequence[pa.Array]:
        kinds = [_kind_of(state) for state in states]
        both = schemas.unify([(pa.schema([(self.on, kind)]), f"block {at}") for at, kind in enumerate(kinds)])
        return [self._as(state, both.field(0).type) for state in states]

    def _as(self, state: pa.Array, kind: pa.DataType) -> pa.Array:
        own = _kind_of(state)
        if own.equals(kind):
            return state
        counts, nulls, *sums = aggregating.parts(state, first=1)
        if not pa.types.is_floating(kind):
            sums = reducing.limbs_as(sums, own, kind)
        elif not pa.types.is_floating(own):
            sums = [reducing.floats_of_limbs(sums)]
        return self._state(kind, counts, nulls, sums)

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        counts, nulls, *sums = aggregating.parts(state, first=1)
        merged = [groups.sums(sums[0])] if len(sums) == 1 else reducing.merged_limbs(groups.sums, sums)
        return self._state(_kind_of(state), groups.sums(counts), groups.sums(nulls), merged)

    def _end(self, state: pa.Array) -> pa.Array:
        counts, nulls, *sums = aggregating.parts(state, first=1)
        is_valid = counts > 0 if self.ignore_nulls else (counts > 0) & (nulls == 0)
        return self._value(_kind_of(state), counts, sums, is_valid)

    def _state(self, kind: pa.DataType, counts: np.ndarray, nulls: np.ndarray, sums: list[np.ndarray]) -> pa.Array:
        named = {f"sum{index}": value for index, value in enumerate(sums)}
        return aggregating.struct(of=pa.nulls(len(counts), kind), counts=counts, nulls=nulls, **named)

    def _takes(self, kind: pa.DataType) -> bool:
        return _is_number(kind)

    def _value(self, kind: pa.DataType, counts: np.ndarray, sums: list[np.ndarray], is_valid: np.ndarray) -> pa.Array:
        raise NotImplementedError


class Sum(_Total):
    """The sum; null of no values, or of any null if those are not ignored.

    Integers add up to 64 bits, signed or not as the column, decimals to their most digits, floats to float64, durations to
    durations, booleans to the count of what is true. A sum of integers or decimals that does not fit raises OverflowError.
    """

    kind = "sum"

    def __init__(self, on: str | None = None, ignore_nulls: bool = True, alias_name: str | None = None) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=ignore_nulls)

    def _takes(self, kind: pa.DataType) -> bool:
        return _is_number(kind) or bool(pa.types.is_duration(kind))

    def _value(self, kind: pa.DataType, counts: np.ndarray, sums: list[np.ndarray], is_valid: np.ndarray) -> pa.Array:
        if len(sums) == 1:
            return columns.rebuilt(sums[0], is_valid, pa.float64())
        try:
            return reducing.totals(sums, is_valid, kind)
        except OverflowError as error:
            raise OverflowError(f"{self.name}: {error}") from None


class Mean(_Total):
    """The mean, as float64; null of no values. Of integers and decimals it is that of their exact sum."""

    kind = "mean"

    def __init__(self, on: str | None = None, ignore_nulls: bool = True, alias_name: str | None = None) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=ignore_nulls)

    def _value(self, kind: pa.DataType, counts: np.ndarray, sums: list[np.ndarray], is_valid: np.ndarray) -> pa.Array:
        total = sums[0] if len(sums) == 1 else reducing.floats_of_limbs(sums)
        scale = kind.scale if pa.types.is_decimal(kind) else 0
        return columns.rebuilt(total / 10.0**scale / np.maximum(counts, 1), is_valid, pa.float64())


class Var(aggregating.Vectorized):
    """The variance, as float64: the sum of squared deviations by the count less `ddof`. Null of no values, NaN of too few.

    State: count, mean and sum of squared deviations, of which any number merges at once without cancellation.
    Source: Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, Stanford 1979.
    """

    kind = "var"

    def __init__(
        self, on: str | None = None, ddof: int = 1, ignore_nulls: bool = True, alias_name: str | None = None
    ) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=ignore_nulls)
        self.ddof = ddof

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        array = self.column_values(table)
        if not _is_number(array.type):
            raise self.refused(array.type, allowed=_NUMBERS)
        values, is_valid = columns.numbers(_as_float(array))
        counts = groups.counts(is_valid)
        nulls = groups.sizes - counts
        if is_valid is not None:
            values, groups = values[is_valid], groups.where(is_valid)
        means = groups.sums(values) / np.maximum(counts, 1)
        deviations = values - means[groups.ids]
        means += groups.sums(deviations) / np.maximum(counts, 1)  # what rounding left of the mean of large values
        squares = groups.sums((values - means[groups.ids]) ** 2)
        return aggregating.struct(counts=counts, nulls=nulls, means=means, squares=squares)

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        counts, nulls, means, squares = aggregating.parts(state)
        total = groups.sums(counts)
        filled = np.flatnonzero(counts)
        bases = np.append(means, 0.0)[_first_of(groups, filled)]  # of each group, so that what is added is small
        shifts = np.where(counts > 0, means - bases[groups.ids], 0.0)
        merged = bases + groups.sums(counts * shifts) / np.maximum(total, 1)
        apart = np.where(counts > 0, means - merged[groups.ids], 0.0)
        return aggregating.struct(
            counts=total, nulls=groups.sums(nulls), means=merged, squares=groups.sums(squares + counts * apart**2)
        )

    def _end(self, state: pa.Array) -> pa.Array:
        counts, nulls, _, squares = aggregating.parts(state)
        is_valid = counts > 0 if self.ignore_nulls else (counts > 0) & (nulls == 0)
        freedom = counts - self.ddof
        return columns.rebuilt(
            self._of_variance(np.where(freedom > 0, squares / np.maximum(freedom, 1), np.nan)), is_valid, pa.float64()
        )

    def _of_variance(self, variance: np.ndarray) -> np.ndarray:
        return variance


class Std(Var):
    """The standard deviation: the root of `Var`."""

    kind = "std"

    def _of_variance(self, variance: np.ndarray) -> np.ndarray:
        return np.sqrt(variance)


class _Extreme(aggregating.Vectorized):
    """The least or the greatest value in the order by which tables are sorted, except that NaN counts only where there is
    nothing else."""

    is_highest: ClassVar[bool]

    def __init__(
        self,
        on: str | None = None,
        ignore_nulls: bool = True,
        alias_name: str | None = None,
        zero_factory: Callable[[], Any] | None = None,  # Ray's, which has no use here: nulls say that there is no value
    ) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=ignore_nulls, zero_factory=zero_factory)

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        values = self.column_values(table)
        is_valid = columns.valid(values)
        nulls = groups.sizes - groups.counts(is_valid)
        return aggregating.struct(value=self._extremes(values, groups), nulls=nulls)

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        values, nulls = state.flatten()
        return aggregating.struct(value=self._extremes(values, groups), nulls=groups.sums(columns.numbers(nulls)[0]))

    def _end(self, state: pa.Array) -> pa.Array:
        values, nulls = state.flatten()
        return values if self.ignore_nulls else pc.if_else(pc.equal(nulls, 0), values, pa.scalar(None, values.type))

    def _extremes(self, values: pa.Array, groups: reducing.Groups) -> pa.Array:
        if columns.is_number(values.type):
            return self._extremes_of_numbers(values, groups)
        try:
            codes = ordering.codes_of(values, is_descending=self.is_highest)
        except TypeError:
            raise self.refused(values.type, allowed="a number, a time or text") from None
        order = ordering.argsort([groups.ids.astype(np.uint64), *codes], len(values))
        first = order[ordering.starts([groups.ids], order)]
        rows = np.full(groups.count, -1, np.int64)
        rows[groups.ids[first]] = first
        return values.take(pa.array(rows, mask=rows < 0))

    def _extremes_of_numbers(self, values: pa.Array, groups: reducing.Groups) -> pa.Array:
        numbers, is_valid = columns.numbers(values)
        rows = is_valid
        if numbers.dtype.kind == "f" and np.isnan(numbers).any():
            rows = ~np.isnan(numbers) if is_valid is None else is_valid & ~np.isnan(numbers)
        inner = groups if rows is None else groups.where(rows)
        numbers = numbers if rows is None else numbers[rows]
        found = inner.highest(numbers) if self.is_highest else inner.lowest(numbers)
        counts = groups.counts(is_valid)
        if rows is not is_valid:
            found[(inner.sizes == 0) & (counts > 0)] = np.nan
        return columns.rebuilt(found, counts > 0, values.type)


class Min(_Extreme):
    """The least value, of the column's type; null of no values. NaN is passed over where there is a number."""

    kind = "min"
    is_highest = False


class Max(_Extreme):
    """The greatest value, of the column's type; null of no values. NaN is passed over where there is a number."""

    kind = "max"
    is_highest = True


class AbsMax(Max):
    """The greatest magnitude, of the column's type. Raises OverflowError where the type has no such positive number.

    State: that of `Max`, of integers of 64 bits: whether it fits is asked of the last one, as blocks may have wider types. `of`
    holds the type of the column, and nulls.
    """

    kind = "abs_max"

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        return self._state(super().column_values(table).type, super()._start(table, groups))

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        return self._state(_kind_of(state), super()._merge(aggregating.struct(**_fields(state, but="of")), groups))

    def _end(self, state: pa.Array) -> pa.Array:
        kind = _kind_of(state)
        found = super()._end(aggregating.struct(**_fields(state, but="of")))
        try:
            return found.cast(kind)
        except pa.ArrowInvalid as error:
            raise self._too_large(kind) from error

    def _state(self, kind: pa.DataType, of_max: pa.Array) -> pa.Array:
        return aggregating.struct(of=pa.nulls(len(of_max), kind), **_fields(of_max))

    def column_values(self, table: pa.Table) -> pa.Array:
        values = super().column_values(table)
        if not _is_number(values.type) and not pa.types.is_duration(values.type):
            raise self.refused(values.type, allowed=_NUMBERS)
        if pa.types.is_boolean(values.type) or pa.types.is_null(values.type):
            return values
        try:
            if pa.types.is_duration(values.type):
                return pc.abs_checked(values.view(pa.int64())).view(values.type)
            return pc.abs_checked(values.cast(pa.int64()) if pa.types.is_signed_integer(values.type) else values)
        except pa.ArrowInvalid as error:
            raise self._too_large(values.type) from error

    def _too_large(self, kind: pa.DataType) -> OverflowError:
        return OverflowError(f"{self.name}: the magnitude of a value of column {self.on!r} does not fit into {kind}")


class _Edge(aggregating.Vectorized):
    """The value of the first or the last row; of those with a value, if nulls are ignored."""

    is_last: ClassVar[bool]

    def __init__(self, on: str | None = None, ignore_nulls: bool = True, alias_name: str | None = None) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=ignore_nulls)

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        is_tensor = self.on in table.column_names and tensors.is_tensor(table.schema.field(self.on).type)
        # A tensor stays one.
        values = columns.flat(table.column(self.on)) if is_tensor else self.column_values(table)
        is_valid = columns.valid(values) if self.ignore_nulls else None
        return self._edges(values, np.arange(len(values)) if is_valid is None else np.flatnonzero(is_valid), groups)

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        values, is_found = state.flatten()
        return self._edges(values, np.flatnonzero(columns.numbers(is_found)[0]), groups)

    def _end(self, state: pa.Array) -> pa.Array:
        return state.flatten()[0]

    def _edges(self, values: pa.Array, rows: np.ndarray, groups: reducing.Groups) -> pa.Array:
        inner = groups.where(rows)
        edges = inner.last() if self.is_last else inner.first()
        is_found = edges >= 0
        chosen = np.append(rows, 0)[edges]  # -1 finds the 0 behind the end, and is masked
        return aggregating.struct(value=values.take(pa.array(chosen, mask=~is_found)), is_found=is_found)


class First(_Edge):
    """The first value in the order of the rows; null of no values."""

    kind = "first"
    is_last = False


class Last(_Edge):
    """The last value in the order of the rows; null of no values."""

    kind = "last"
    is_last = True


class _Percentage(aggregating.Vectorized):
    """How many of a hundred are so. State: how many, of how many. Null of none."""

    def _merge(self, state: pa.Array, groups: reducing.Groups) -> pa.Array:
        found, total = aggregating.parts(state)
        return aggregating.struct(found=groups.sums(found), total=groups.sums(total))

    def _end(self, state: pa.Array) -> pa.Array:
        found, total = aggregating.parts(state)
        return columns.rebuilt(found / np.maximum(total, 1) * 100.0, total > 0, pa.float64())


class MissingValuePercentage(_Percentage):
    """The percentage of values that are null or NaN; null of no rows."""

    kind = "missing_pct"

    def __init__(self, on: str, alias_name: str | None = None) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=False)

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        is_missing = pc.is_null(self.column_values(table), nan_is_null=True).to_numpy(zero_copy_only=False)
        return aggregating.struct(found=groups.counts(is_missing), total=groups.sizes)


class ZeroPercentage(_Percentage):
    """The percentage of numbers that are zero; of those that are not null if nulls are ignored. Null of none."""

    kind = "zero_pct"

    def __init__(self, on: str, ignore_nulls: bool = True, alias_name: str | None = None) -> None:
        super().__init__(on, alias_name=alias_name, ignore_nulls=ignore_nulls)

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        array = self.column_values(table)
        if not _is_number(array.type):
            raise self.refused(array.type, allowed=_NUMBERS)
        values, is_valid = columns.numbers(_as_float(array))
        is_zero = values == 0 if is_valid is None else (values == 0) & is_valid
        total = groups.counts(is_valid if self.ignore_nulls else None)
        return aggregating.struct(found=groups.counts(is_zero), total=total)


def _first_of(groups: reducing.Groups, rows: np.ndarray) -> np.ndarray:
    """[count] int64: the first of these rows in each group, -1 where there is none."""
    found = groups.where(rows).first()
    return np.where(found >= 0, np.append(rows, -1)[found], -1)


def _is_number(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_integer,
            pa.types.is_floating,
            pa.types.is_decimal,
            pa.types.is_boolean,
            pa.types.is_null,
        )
    )


def _as_float(array: pa.Array) -> pa.Array:
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    return array.cast(pa.float64(), safe=False)


def _fields(state: pa.Array, *, but: str = "") -> dict[str, pa.Array]:
    """Of states of several values, by name."""
    return {field.name: array for field, array in zip(state.type, state.flatten(), strict=True) if field.name != but}


def _kind_of(state: pa.Array) -> pa.DataType:
    return state.type.field("of").type
