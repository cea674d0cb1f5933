"""Values in the place of missing ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import aggregating, columns
from umbel.data.preprocessors import _base, _categories, _columns, _making, _statistics

_STRATEGIES = ("mean", "most_frequent", "constant")


class SimpleImputer(_base.Columnwise):
    """A value in the place of each null and NaN; where a column is missing from what is transformed, it is all that value.

    strategy: "mean", of numbers, which makes floats; "most_frequent", of equally frequent values the first; or "constant",
    which is fill_value and needs no fit. `stats_` "mean(x)" or "most_frequent(x)".
    """

    _fields: ClassVar[tuple[str, ...]] = ("columns", "strategy", "fill_value", "output_columns")

    def __init__(
        self,
        columns: Sequence[str],
        strategy: str = "mean",
        fill_value: Any = None,
        *,
        output_columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if strategy not in _STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(map(repr, _STRATEGIES))}, got {strategy!r}")
        if strategy == "constant" and fill_value is None:
            raise ValueError("strategy 'constant' needs a fill_value")
        self._is_fittable = strategy != "constant"
        self.columns = _columns.names(columns)
        self.strategy = strategy
        self.fill_value = fill_value
        self.output_columns = _columns.output_names(self.columns, output_columns)

    def _aggregates(self) -> list[aggregating.AggregateFn]:
        if self.strategy == "mean":
            return [_statistics.Mean(one) for one in self.columns]
        return [_statistics.Categories(one, within_lists=False) for one in self.columns]

    def _learned(self, found: Mapping[str, Any]) -> dict[str, Any]:
        if self.strategy == "mean":
            return {f"mean({one})": found[f"mean({one})"] for one in self.columns}
        stats = {}
        for one in self.columns:
            values = _categories.most_frequent(found[_statistics.Categories(one, within_lists=False).name], None)
            stats[f"most_frequent({one})"] = next((v for v in values if not _categories.is_missing(v)), None)
        return stats

    def _value(self, column: str) -> Any:
        value = self.fill_value if self.strategy == "constant" else self.stats_[f"{self.strategy}({column})"]
        if value is None:
            raise ValueError(
                f"SimpleImputer: the column {column!r} has no fill value, for it had no values when it was fitted; "
                "fit to other data, or "
                "use strategy='constant'"
            )
        return value

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        made = []
        for column, name in zip(self.columns, self.output_columns, strict=True):
            value = self._value(column)
            if column in schema.names:
                made.append(self._filled_output(schema, column, name, value))
            else:
                scalar = pa.scalar(value)
                made.append(_making.Output(name, (), functools.partial(_constant, scalar), scalar.type))
        return made

    def _filled_output(self, schema: pa.Schema, column: str, name: str, value: Any) -> _making.Output:
        kind = _making.plain_type(schema, column)
        if self.strategy == "mean" and not pa.types.is_floating(kind):
            _making.require_numbers(schema, [column], title="SimpleImputer")
            kind = pa.float64()
        try:
            if self.strategy == "mean":
                known = pa.array([value], kind)  # rounded, where the column is
            else:
                known = _categories.keys([value], kind, column, title="SimpleImputer")
        except TypeError as error:
            raise TypeError(
                f"SimpleImputer: the column {column!r} has type {kind}, which {value!r} does not go with; cast the "
                "column, or fill "
                "with another value"
            ) from error
        made, given = known.type, schema.field(column).type
        if pa.types.is_dictionary(given):
            made = pa.dictionary(pa.int32(), known.type, ordered=given.ordered)
        return _making.Output(name, (column,), functools.partial(_filled, known=known), made)


def _constant(value: pa.Scalar) -> pa.Scalar:
    return value


def _filled(array: pa.Array, *, known: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        return _filled_categories(array, known)
    array = columns.plain(array)
    if pa.types.is_boolean(array.type) and pa.types.is_floating(known.type):
        array = array.cast(pa.uint8())
    array = array.cast(known.type, safe=not pa.types.is_floating(known.type))
    return pc.if_else(pc.is_null(array, nan_is_null=True), known[0], array)


def _filled_categories(array: pa.Array, known: pa.Array) -> pa.Array:
    """The value becomes a category behind the others, if it is none yet."""
    categories = columns.plain(array.dictionary).cast(known.type)
    place = pc.index_in(known, categories)[0].as_py()
    if place is None:
        place = len(categories)
        categories = pa.concat_arrays([categories, known])
    indices = array.indices.cast(pa.int32())
    if array.dictionary.null_count:
        indices = pc.if_else(array.dictionary.is_null().take(array.indices), pa.scalar(None, pa.int32()), indices)
    return pa.DictionaryArray.from_arrays(indices.fill_null(place), categories, ordered=array.type.ordered)
