"""Window functions: for each row a value of the rows around it, in its partition and in an order.

The table holds whole partitions. Each result is a column beside the others, in the table's own order of rows. A frame counts
rows, not values: `(2, 0)` is the row and the two before it, None is as far as the partition goes. Nulls are passed over, as
in aggregations, and a frame without values has null. No sum is made by subtracting a running one, which would keep the
rounding, infinities and NaN of rows that have left the frame: frames are put together from sums of 1, 2, 4, 8 … rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns, factoring, ordering, reducing

Frame = tuple[int | None, int | None]  # rows before and after; negative ones exclude
WHOLE: Final[Frame] = (None, None)

OF_PLACE: Final = ("row_number", "rank", "dense_rank", "ntile")
OF_OTHER_ROW: Final = ("lag", "lead")
OF_FRAME: Final = ("sum", "mean", "min", "max", "count", "first_value", "last_value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Function:
    """One column of the result.

    kind: row_number, rank (with gaps), dense_rank, ntile (of `buckets`, the larger ones first): int64 from 1 on. lag, lead:
    the value `offset` rows before or after, or `default`. sum, mean, min, max, count (of rows, if `on` is None), first_value,
    last_value: of the `frame`; of fewer than `min_count` values null.
    """

    kind: str
    name: str
    on: str | None = None
    offset: int = 1
    default: Any = None
    buckets: int = 1
    frame: Frame = WHOLE
    min_count: int = 1

    def __post_init__(self) -> None:
        kinds = (*OF_PLACE, *OF_OTHER_ROW, *OF_FRAME)
        if self.kind not in kinds:
            raise ValueError(f"a window function must be one of {', '.join(kinds)}, got {self.kind!r}")
        if self.on is None and self.kind not in (*OF_PLACE, "count"):
            raise ValueError(f"{self.name}: {self.kind} needs a column, give on=")
        if self.buckets < 1:
            raise ValueError(f"{self.name}: buckets must be at least 1, got {self.buckets!r}")


def window(
    table: pa.Table,
    partition_by: Sequence[str],
    order_by: Sequence[str],
    functions: Sequence[Function],
    *,
    descending: bool | Sequence[bool] = False,
) -> pa.Table:
    """The table and a column for each function, in place of one of that name. Rows of equal order_by keep their order in the
    table.

    Raises KeyError for a column that is not there, TypeError for one of the wrong type, OverflowError for a sum that does not
    fit.
    """
    columns.require(table.schema, partition_by, what="the partition key")
    read = [function.on for function in functions if function.on is not None]
    columns.require(table.schema, read, what="the column of a window function")
    placed = _Placed(table, partition_by, order_by, descending)
    found = table
    for function in functions:
        array = placed.result(function)
        index = found.schema.get_field_index(function.name)
        if index < 0:
            found = found.append_column(function.name, array)
        else:
            found = found.set_column(index, function.name, array)
    return found


class _Placed:
    """The rows of a table by partition and order. Everything is in that order, until `result` puts it back."""

    def __init__(
        self, table: pa.Table, partition_by: Sequence[str], order_by: Sequence[str], descending: bool | Sequence[bool]
    ) -> None:
        self.table = table
        self.row_count = table.num_rows
        ids, _ = factoring.codes([columns.flat(table.column(name)) for name in partition_by], self.row_count)
        codes = [ids.astype(np.uint64), *ordering.codes(table, order_by, descending)]
        self.order = ordering.argsort(codes, self.row_count)
        self.places = np.arange(self.row_count)
        self.is_new_peer = ordering.starts(codes, self.order)
        begins = np.flatnonzero(ordering.starts([ids], self.order))
        sizes = np.diff(np.append(begins, self.row_count))
        self.begin = np.repeat(begins, sizes)  # of the partition of each row
        self.end = self.begin + np.repeat(sizes, sizes)

    def result(self, function: Function) -> pa.Array:
        if function.kind in OF_PLACE:
            return pa.array(self._back(self._place(function)))
        values = None if function.on is None else columns.flat(self.table.column(function.on))
        if function.kind in OF_OTHER_ROW:
            return self._other(function, values)
        return self._framed(function, values)

    def _back(self, values: np.ndarray) -> np.ndarray:
        found = np.empty_like(values)
        found[self.order] = values
        return found

    def _place(self, function: Function) -> np.ndarray:
        number = self.places - self.begin
        if function.kind == "rank":
            number = np.maximum.accumulate(np.where(self.is_new_peer, self.places, 0)) - self.begin
        elif function.kind == "dense_rank":
            peers = np.cumsum(self.is_new_peer)
            number = peers - peers[self.begin]
        elif function.kind == "ntile":
            least, larger = np.divmod(self.end - self.begin, function.buckets)
            bound = larger * (least + 1)
            number = np.where(number < bound, number // (least + 1), larger + (number - bound) // np.maximum(least, 1))
        return number + 1

    def _other(self, function: Function, values: pa.Array) -> pa.Array:
        places = self.places + (function.offset if function.kind == "lead" else -function.offset)
        return self._rows(values, np.where((places >= self.begin) & (places < self.end), places, -1), function.default)

    def _rows(self, values: pa.Array, places: np.ndarray, default: Any = None) -> pa.Array:
        """The values at these places, and the default where a place is -1."""
        rows = self._back(np.where(places >= 0, np.append(self.order, 0)[places], -1))
        if default is None:
            return values.take(pa.array(rows, mask=rows < 0))
        values = columns.plain(values)
        filled = pa.concat_arrays([values, pa.array([default], values.type)])
        return filled.take(pa.array(np.where(rows < 0, len(values), rows)))

    def _framed(self, function: Function, values: pa.Array | None) -> pa.Array:
        before, after = function.frame
        low = self.begin if before is None else np.clip(self.places - before, self.begin, self.end)
        high = self.end if after is None else np.clip(self.places + after + 1, self.begin, self.end)
        high = np.maximum(low, high)
        if values is None:
            return pa.array(self._back(high - low))
        if function.kind in ("first_value", "last_value"):
            places = low if function.kind == "first_value" else high - 1
            return self._rows(values, np.where(high > low, places, -1))
        values = columns.plain(values)
        is_valid = columns.valid(values)
        running = np.arange(self.row_count + 1) if is_valid is None else np.append(0, np.cumsum(is_valid[self.order]))
        counts = running[high] - running[low]
        if function.kind == "count":
            return pa.array(self._back(counts))
        is_enough = counts >= max(function.min_count, 1)
        if function.kind in ("min", "max"):
            return self._extremes(function, values, low, high, is_enough)
        return self._sums(function, values, low, high, counts, is_enough)

    def _extremes(
        self, function: Function, values: pa.Array, low: np.ndarray, high: np.ndarray, is_enough: np.ndarray
    ) -> pa.Array:
        """By rank: NaN is behind the numbers and null behind NaN in either direction."""
        try:
            codes = ordering.codes_of(values, is_descending=function.kind == "max")
        except TypeError as error:
            raise TypeError(f"{function.name}: no {function.kind} of column {function.on!r}: {error}") from None
        ranks = ordering.ranks(codes, self.row_count)
        places = np.empty(self.row_count, np.int64)  # where a value of the rank stands
        places[ranks[self.order]] = self.places
        least = _framed_lowest(ranks[self.order], low, high)
        return self._rows(values, np.where(is_enough, places[np.where(is_enough, least, 0)], -1))

    def _sums(
        self,
        function: Function,
        values: pa.Array,
        low: np.ndarray,
        high: np.ndarray,
        counts: np.ndarray,
        is_enough: np.ndarray,
    ) -> pa.Array:
        kind = values.type
        if not (columns.is_number(kind) or pa.types.is_decimal(kind)) or (
            pa.types.is_temporal(kind) and not (pa.types.is_duration(kind) and function.kind == "sum")
        ):
            raise TypeError(f"{function.name}: column {function.on!r} has type {kind}; a {function.kind} is of numbers")
        if pa.types.is_null(kind):
            return pa.nulls(self.row_count, pa.float64() if function.kind == "mean" else kind)
        ordered = values.take(pa.array(self.order))
        if ordered.null_count:
            is_decimal = pa.types.is_decimal(kind)
            ordered = ordered.fill_null(pa.scalar(0, kind) if is_decimal else pa.scalar(0, pa.int64()).cast(kind))
        if pa.types.is_floating(kind):
            sums = [_framed_sums(columns.numbers(ordered)[0].astype(np.float64), low, high)]
        else:
            sums = reducing.limb_sums(lambda numbers: _framed_sums(numbers, low, high), ordered)
        sums, counts, is_enough = [self._back(part) for part in sums], self._back(counts), self._back(is_enough)
        if function.kind == "mean":
            total = sums[0] if len(sums) == 1 else reducing.floats_of_limbs(sums)
            scale = kind.scale if pa.types.is_decimal(kind) else 0
            return columns.rebuilt(total / 10.0**scale / np.maximum(counts, 1), is_enough, pa.float64())
        if len(sums) == 1:
            return columns.rebuilt(sums[0], is_enough, pa.float64())
        try:
            return reducing.totals(sums, is_enough, kind)
        except OverflowError as error:
            raise OverflowError(f"{function.name}: {error}") from None


def _doubled(
    values: np.ndarray, both: Callable[[np.ndarray, np.ndarray], np.ndarray], low: np.ndarray, high: np.ndarray
) -> Any:
    """For the exponents up to that of the longest frame: the exponent, and of each place `both` over 2**exponent values from
    there on.

    Those that would reach beyond the end are of no meaning, and nobody asks for them.
    """
    longest = int((high - low).max()) if len(low) else 0
    for exponent in range(longest.bit_length()):
        yield exponent, values
        width = 1 << exponent
        with np.errstate(over="ignore", invalid="ignore"):  # across the edge of a partition, where nobody asks
            values = np.concatenate([both(values[:-width], values[width:]), values[-width:]])


def _framed_sums(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The sum of values[low:high], for each pair of them."""
    found = np.zeros(len(low), values.dtype)
    places, sizes = low.copy(), high - low
    for exponent, sums in _doubled(values, np.add, low, high):
        rows = np.flatnonzero(sizes >> exponent & 1)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are what they are
            found[rows] += sums[places[rows]]
        places[rows] += 1 << exponent
    return found


def _framed_lowest(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The least of values[low:high], for each pair of them: of two runs of a power of two that overlap. 0 where there are
    none."""
    found = np.zeros(len(low), values.dtype)
    exponents = np.frexp(high - low)[1] - 1
    for exponent, least in _doubled(values, np.minimum, low, high):
        rows = np.flatnonzero(exponents == exponent)
        found[rows] = np.minimum(least[low[rows]], least[high[rows] - (1 << exponent)])
    return found
