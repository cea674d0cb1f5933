"""Encoders: numbers in the place of the values of a column, which are learned.

What was not there when they were fitted has no number and becomes null, or a row of zeros. Missing values are an error that
says so, but for `Categorizer`: a number for "unknown" is nobody's intention.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import aggregating, columns, tensors
from umbel.data.preprocessors import _base, _categories, _columns, _making, _statistics, _tokens


class _Encoder(_base.Columnwise):
    """`stats_` "unique_values(x)": the number of each value."""

    columns: list[str]
    _within_lists: bool = False  # whether the values of a column of lists are those in the lists
    max_categories: Mapping[str, int] = {}

    def _values_of(self, column: str) -> _statistics.Categories:
        return _statistics.Categories(column, within_lists=self._within_lists)

    def _aggregates(self) -> list[aggregating.AggregateFn]:
        return [*map(self._values_of, self.get_input_columns())]

    def _learned(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {f"unique_values({one})": self._indices(found, one) for one in self.get_input_columns()}

    def _indices(self, found: Mapping[str, Any], column: str, *, drops_missing: bool = False) -> dict[Any, int]:
        counted = found[self._values_of(column).name]
        title = type(self).__name__
        if not drops_missing:
            _categories.refuse_missing_among(counted["values"], column, title=title)
        kept = _categories.most_frequent(counted, self.max_categories.get(column))
        return _categories.indices(kept, column, title=title)

    def _known(self, schema: pa.Schema, column: str) -> pa.Array:
        """The values that have numbers, as those of the column. Raises TypeError where they are nothing of the kind."""
        kind = _making.plain_type(schema, column)
        if self._within_lists and columns.is_list(kind):
            kind = _making.plain_of(kind.value_type)
        values = [*self.stats_[f"unique_values({column})"]]
        return _categories.keys(values, kind, column, title=type(self).__name__)


def _checked_maximums(max_categories: Mapping[str, int] | None, names: Sequence[str]) -> dict[str, int]:
    found = dict(max_categories or {})
    for name, value in found.items():
        if name not in names:
            raise ValueError(f"max_categories has {name!r}, which is not among the columns {[*names]}")
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"max_categories must be 1 or more, got {value!r} for {name!r}")
    return found


class OrdinalEncoder(_Encoder):
    """The place of each value among all in order, as int64; null for one that was not there when it was fitted.

    encode_lists: within lists each value is encoded; if False, a list is a value.
    """

    _fields: ClassVar[tuple[str, ...]] = ("columns", "encode_lists", "output_columns")

    def __init__(
        self, columns: Sequence[str], *, encode_lists: bool = True, output_columns: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.columns = _columns.names(columns)
        self.encode_lists = self._within_lists = encode_lists
        self.output_columns = _columns.output_names(self.columns, output_columns)

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        title = type(self).__name__
        _making.require(schema, self.columns, title=title)
        made = []
        for column, name in zip(self.columns, self.output_columns, strict=True):
            is_within = self.encode_lists and columns.is_list(_making.plain_type(schema, column))
            function = functools.partial(_places, known=self._known(schema, column), column=column, title=title)
            kind = pa.list_(pa.int64()) if is_within else pa.int64()
            made.append(_making.Output(name, (column,), functools.partial(function, is_within=is_within), kind))
        return made

    def _inverse_outputs(self, schema: pa.Schema) -> list[_making.Output]:
        _making.require(schema, self.output_columns, title=type(self).__name__)
        return [
            _value_output(schema, name, column, [*self.stats_[f"unique_values({column})"]])
            for column, name in zip(self.columns, self.output_columns, strict=True)
        ]


def _places(array: pa.Array, *, known: pa.Array, column: str, title: str, is_within: bool) -> pa.Array:
    array = _categories.refuse_missing(array, column, title=title)
    if not is_within:
        return _categories.positions(array, known).cast(pa.int64())
    offsets, values = columns.list_parts(array)
    codes = _categories.positions(values, known).cast(pa.int64())
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), codes)


def _value_output(schema: pa.Schema, name: str, column: str, values: list[Any]) -> _making.Output:
    """The way back from places."""
    known = pa.array(values)
    kind = _making.plain_type(schema, name)
    is_within = columns.is_list(kind)
    if not _making.is_number(kind.value_type if is_within else kind):
        raise TypeError(
            f"the column {name!r} has type {schema.field(name).type}; the inverse needs the numbers of categories"
        )
    made = pa.list_(known.type) if is_within else known.type
    return _making.Output(column, (name,), functools.partial(_values, known=known, name=name), made)


def _values(array: pa.Array, *, known: pa.Array, name: str) -> pa.Array:
    array = columns.plain(array)
    if columns.is_list(array.type):
        offsets, inner = columns.list_parts(array)
        found = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), _values(inner, known=known, name=name))
        return pc.if_else(array.is_valid(), found, pa.scalar(None, found.type)) if array.null_count else found
    if pa.types.is_floating(array.type):  # as NumPy and pandas have integers among which some are missing
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    try:
        places = array.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise ValueError(f"the column {name!r} has a value that is no number of a category: {error}") from error
    least, most = pc.min_max(places).values()
    if places.null_count < len(places) and not 0 <= least.as_py() <= most.as_py() < len(known):
        raise ValueError(
            f"the column {name!r} has values from {least} to {most}, and the categories have numbers from 0 to {len(known) - 1}"
        )
    return known.take(places)


class LabelEncoder(_Encoder):
    """The place of each label among all in order, as int64; null for one that was not there when it was fitted."""

    _fields: ClassVar[tuple[str, ...]] = ("label_column", "output_column")

    def __init__(self, label_column: str, *, output_column: str | None = None) -> None:
        super().__init__()
        (self.label_column,) = _columns.names([label_column], what="label_column")
        self.output_column = output_column or label_column

    def get_input_columns(self) -> list[str]:
        return [self.label_column]

    def get_output_columns(self) -> list[str]:
        return [self.output_column]

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        title, column = type(self).__name__, self.label_column
        _making.require(schema, [column], title=title)
        function = functools.partial(
            _places, known=self._known(schema, column), column=column, title=title, is_within=False
        )
        return [_making.Output(self.output_column, (column,), function, pa.int64())]

    def _inverse_outputs(self, schema: pa.Schema) -> list[_making.Output]:
        _making.require(schema, [self.output_column], title=type(self).__name__)
        values = [*self.stats_[f"unique_values({self.label_column})"]]
        return [_value_output(schema, self.output_column, self.label_column, values)]


class _HotEncoder(_Encoder):
    _fields: ClassVar[tuple[str, ...]] = ("columns", "max_categories", "output_columns")

    def __init__(
        self,
        columns: Sequence[str],
        *,
        max_categories: Mapping[str, int] | None = None,
        output_columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.columns = _columns.names(columns)
        self.max_categories = _checked_maximums(max_categories, self.columns)
        self.output_columns = _columns.output_names(self.columns, output_columns)

    def _made(self, schema: pa.Schema, function: Any, kind: pa.DataType) -> list[_making.Output]:
        title = type(self).__name__
        _making.require(schema, self.columns, title=title)
        made = []
        for column, name in zip(self.columns, self.output_columns, strict=True):
            known = self._known(schema, column)
            bound = functools.partial(function, known=known, column=column, title=title)
            made.append(_making.Output(name, (column,), bound, tensors.fixed_type(kind, (len(known),))))
        return made


class OneHotEncoder(_HotEncoder):
    """A tensor of uint8 in each row: 1 in the place of the value, else 0; all 0 for one that is not encoded.

    max_categories: for columns, how many values are encoded at most, the most frequent ones. A list is a value.
    """

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        return self._made(schema, _one_hot, pa.uint8())


def _one_hot(array: pa.Array, *, known: pa.Array, column: str, title: str) -> pa.Array:
    array = _categories.refuse_missing(array, column, title=title)
    places, is_known = columns.numbers(_categories.positions(array, known))
    rows = np.arange(len(array)) if is_known is None else np.flatnonzero(is_known)
    matrix = np.zeros((len(array), len(known)), np.uint8)
    matrix[rows, places[rows]] = 1
    return tensors.from_numpy(matrix)


class MultiHotEncoder(_HotEncoder):
    """A tensor of int64 in each row, of a column of lists: in the place of each value how often the list has it.

    max_categories: for columns, how many values are encoded at most, the most frequent ones. What is no list counts as one of
    one value.
    """

    _within_lists = True

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        return self._made(schema, _multi_hot, pa.int64())


def _multi_hot(array: pa.Array, *, known: pa.Array, column: str, title: str) -> pa.Array:
    array = _categories.refuse_missing(array, column, title=title)
    rows = np.arange(len(array))
    offsets, values = columns.list_parts(array) if columns.is_list(array.type) else (np.arange(len(array) + 1), array)
    return _tokens.row_counts(rows, offsets, _categories.positions(values, known), (len(array), len(known)))


class Categorizer(_Encoder):
    """Dictionary columns, which are pandas' categorical ones; null for what is no category. `stats_` has the
    `CategoricalDtype` of each column.

    dtypes: for columns whose categories are known before: a `CategoricalDtype`, ours or pandas', or a list.
    """

    _fields: ClassVar[tuple[str, ...]] = ("columns", "dtypes", "output_columns")

    def __init__(
        self,
        columns: Sequence[str],
        dtypes: Mapping[str, Any] | None = None,
        output_columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.columns = _columns.names(columns)
        self.dtypes = {name: _categories.CategoricalDtype.of(value) for name, value in (dtypes or {}).items()}
        unknown = [name for name in self.dtypes if name not in self.columns]
        if unknown:
            raise ValueError(f"dtypes has {unknown[0]!r}, which is not among the columns {self.columns}")
        self.output_columns = _columns.output_names(self.columns, output_columns)

    def _aggregates(self) -> list[aggregating.AggregateFn]:
        return [self._values_of(one) for one in self.columns if one not in self.dtypes]

    def _learned(self, found: Mapping[str, Any]) -> dict[str, Any]:
        return {
            one: self.dtypes[one]
            if one in self.dtypes
            else _categories.CategoricalDtype(self._indices(found, one, drops_missing=True))
            for one in self.columns
        }

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        title = type(self).__name__
        _making.require(schema, self.columns, title=title)
        made = []
        for column, name in zip(self.columns, self.output_columns, strict=True):
            dtype, kind = self.stats_[column], _making.plain_type(schema, column)
            known = _categories.keys(dtype.categories, kind, column, title=title)
            function = functools.partial(categorical, known=known, is_ordered=dtype.ordered)
            made.append(_making.Output(name, (column,), function, categorical_type(known, dtype.ordered)))
        return made


def categorical_type(known: pa.Array, is_ordered: bool) -> pa.DataType:
    return pa.dictionary(pa.int32(), known.type, ordered=is_ordered)


def categorical(array: pa.Array, *, known: pa.Array, is_ordered: bool) -> pa.Array:
    """A dictionary column with these categories, in all blocks the same."""
    return pa.DictionaryArray.from_arrays(_categories.positions(array, known), known, ordered=is_ordered)
