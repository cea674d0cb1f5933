"""What is learned of a dataset: aggregations, all of which one pass computes.

Their names say all that they depend on, so that two of one name are one. NaN counts as a missing value, as null does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from umbel.data import aggregate
from umbel.data._blocks import aggregating, columns, gathering, reducing
from umbel.data.preprocessors import _making, _tokens

if TYPE_CHECKING:
    from umbel.data.dataset import Dataset


def computed(
    ds: Dataset, schema: pa.Schema | None, aggregates: Iterable[aggregating.AggregateFn], *, title: str
) -> dict[str, Any]:
    """The value of each by its name. schema: that of `ds`, if it is known; then what is wrong is said before anything runs."""
    unique = {one.name: one for one in aggregates}
    if not unique:
        return {}
    if schema is not None:
        _making.require(schema, [name for one in unique.values() for name in one.input_columns() or ()], title=title)
        for one in unique.values():
            one.output_field(schema)
    return ds.aggregate(*unique.values())


class _OfNumbers(aggregating.Vectorized):
    """Of numbers only, and not of NaN."""

    def column_values(self, table: pa.Table) -> pa.Array:
        values = super().column_values(table)
        if not _making.is_number(values.type):
            raise self.refused(values.type, allowed="a number")
        if not pa.types.is_floating(values.type):
            return values
        return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


class Mean(_OfNumbers, aggregate.Mean):
    pass


class Std(_OfNumbers, aggregate.Std):
    pass


class Min(_OfNumbers, aggregate.Min):
    pass


class Max(_OfNumbers, aggregate.Max):
    pass


class AbsMax(_OfNumbers, aggregate.Max):
    """As float64, which has the magnitude of every integer; nearly, of the largest."""

    kind = "abs_max"

    def column_values(self, table: pa.Table) -> pa.Array:
        return pc.abs(_making.floats(super().column_values(table)))


class Quantiles(_OfNumbers, aggregate.ApproximateQuantile):
    def __init__(self, on: str, quantiles: tuple[float, ...], quantile_precision: int) -> None:
        name = f"approx_quantile({on}, {', '.join(map(repr, quantiles))}, precision={quantile_precision})"
        super().__init__(on, quantiles, quantile_precision, name)


class Categories(aggregate.ValueCounter):
    """How often each value occurs, a missing one among them. within_lists: of columns of lists the values in those; a null
    list has none."""

    def __init__(self, on: str, *, within_lists: bool) -> None:
        super().__init__(on, f"categories({on}{', within lists' if within_lists else ''})")
        self.within_lists = within_lists

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        values = self.column_values(table)
        if self.within_lists and columns.is_list(values.type):
            values, groups = gathering.flattened(values, groups)
        return gathering.counted(values, groups, None)


class Tokens(aggregate.ValueCounter):
    """How often each token occurs; a null document has none."""

    def __init__(self, on: str, tokenization_fn: Callable[[str], list[str]]) -> None:
        super().__init__(on, f"tokens({on}, {getattr(tokenization_fn, '__name__', '')}@{id(tokenization_fn):x})")
        self.tokenization_fn = tokenization_fn

    def _start(self, table: pa.Table, groups: reducing.Groups) -> pa.Array:
        values = self.column_values(table)
        if not _making.is_text(values.type):
            raise self.refused(values.type, allowed="text")
        tokens = _tokens.tokenized(values, self.tokenization_fn)
        values, groups = gathering.flattened(tokens, groups)
        return gathering.counted(*gathering.without_nulls(values, groups), None)
