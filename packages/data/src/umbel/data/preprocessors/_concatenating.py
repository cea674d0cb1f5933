"""Several columns as one of vectors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns, tensors, unpacking
from umbel.data.preprocessors import _base, _columns, _making

_DEFAULTS = {
    "output_column_name": "concat_out",
    "columns": None,
    "dtype": None,
    "raise_if_missing": False,
    "flatten": False,
}


class Concatenator(_base.Columnwise):
    """A tensor in each row of the numbers of these columns, in their order, in the place of the columns.

    dtype: of NumPy; by default the one that NumPy makes of all of theirs. Null is NaN, and an error where the dtype is of
    integers. flatten: columns may be of lists or tensors, whose numbers follow one another. raise_if_missing: a column that
    is not there raises ValueError, and not KeyError.
    """

    _is_fittable = False
    _fields: ClassVar[tuple[str, ...]] = ("columns", "output_column_name", "dtype", "raise_if_missing", "flatten")

    def __init__(
        self,
        columns: Sequence[str],
        output_column_name: str = "concat_out",
        dtype: Any = None,
        raise_if_missing: bool = False,
        flatten: bool = False,
    ) -> None:
        super().__init__()
        self.columns = _columns.names(columns)
        if not self.columns:
            raise ValueError("columns must name one column at least")
        self.output_column_name = output_column_name
        self.dtype = None if dtype is None else np.dtype(dtype)
        if self.dtype is not None and self.dtype.kind not in "biuf":
            raise TypeError(f"dtype must be one of numbers, such as np.float32, got {dtype!r}")
        self.raise_if_missing = raise_if_missing
        self.flatten = flatten

    def get_output_columns(self) -> list[str]:
        return [self.output_column_name]

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)}" for name, usual in _DEFAULTS.items() if getattr(self, name) != usual]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _dropped(self) -> list[str]:
        return self.columns

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        try:
            _making.require(schema, self.columns, title="Concatenator")
        except KeyError as error:
            if self.raise_if_missing:
                raise ValueError(str(error)) from error
            raise
        widths, dtypes = zip(*(self._width_and_dtype(schema, one) for one in self.columns), strict=True)
        dtype = np.result_type(*dtypes) if self.dtype is None else self.dtype
        if None in widths:
            return [self._output(functools.partial(_ragged, dtype=dtype), None)]
        function = functools.partial(_stacked, dtype=dtype, widths=widths, names=tuple(self.columns))
        return [self._output(function, tensors.fixed_type(pa.from_numpy_dtype(dtype), (sum(widths),)))]

    def _output(self, function: Any, kind: pa.DataType | None) -> _making.Output:
        return _making.Output(self.output_column_name, tuple(self.columns), function, kind)

    def _width_and_dtype(self, schema: pa.Schema, name: str) -> tuple[int | None, np.dtype[Any]]:
        """How many numbers a row has, None where that may differ."""
        kind = _making.plain_type(schema, name)
        width: int | None = 1
        given = schema.field(name).type
        while columns.is_list(kind) and self.flatten and not pa.types.is_map(kind):
            width = width * kind.list_size if pa.types.is_fixed_size_list(kind) and width is not None else None
            kind = _making.plain_of(kind.value_type)
        is_ragged = self.flatten and tensors.is_ragged(given)
        if is_ragged:
            width, kind = None, given.value_type
        if not _making.is_number(kind):
            advice = (
                "pass flatten=True"
                if columns.is_list(kind) or tensors.is_tensor(given)
                else "encode it first, or leave it out"
            )
            raise TypeError(f"Concatenator: the column {name!r} has type {given}, not numbers; {advice}")
        is_plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        return width, np.dtype(kind.to_pandas_dtype() if is_plain else np.float64)


def _stacked(*arrays: pa.Array, dtype: np.dtype[Any], widths: Sequence[int], names: Sequence[str]) -> pa.Array:
    matrix = np.empty((len(arrays[0]), sum(widths)), dtype)
    first = 0
    for array, width, name in zip(arrays, widths, names, strict=True):
        matrix[:, first : first + width] = _numbers(array, width, dtype, name)
        first += width
    return tensors.from_numpy(matrix)


def _numbers(array: pa.Array, width: int, dtype: np.dtype[Any], name: str) -> Any:
    """[row, number]"""
    row_count = len(array)
    if tensors.is_fixed(array.type) and not array.null_count:
        return tensors.to_numpy(array).reshape(row_count, width)
    values = columns.plain(array)
    has_null = values.null_count > 0
    while columns.is_list(values.type):
        offsets, inner = columns.list_parts(values)
        is_valid = columns.valid(values)
        if is_valid is not None:  # a null list stands for so many nulls
            inner = inner.take(pa.array(np.arange(offsets[-1]), mask=np.repeat(~is_valid, values.type.list_size)))
        values = columns.plain(inner)
        has_null = values.null_count > 0
    if has_null and dtype.kind != "f":
        raise ValueError(
            f"Concatenator: the column {name!r} has {values.null_count} null values, and {dtype} has none; fill "
            "them before, or pass "
            "dtype=np.float64, in which they are NaN"
        )
    if has_null or not pa.types.is_integer(values.type):
        return _making.floats(values).to_numpy(zero_copy_only=False).reshape(row_count, width)
    return columns.numbers(values)[0].reshape(row_count, width)


def _ragged(*arrays: pa.Array, dtype: np.dtype[Any]) -> pa.Array:
    """Of lists of several lengths: row by row."""
    parts = [unpacking.to_values(array) for array in arrays]
    rows = [np.concatenate([np.ravel(np.asarray(one, dtype)) for one in row]) for row in zip(*parts, strict=True)]
    if not rows:
        return tensors.from_numpy(np.zeros((0, 0), dtype))
    return tensors.from_arrays(rows)
