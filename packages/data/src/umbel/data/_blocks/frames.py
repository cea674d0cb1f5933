"""Data frames of pandas and of polars, from tables and to them.

pandas has NumPy's dtypes where they hold a column, as its users expect: NaN for a float that is null, which comes back as null.
An integer or a boolean that is null makes its column a nullable one (Int64, boolean). Lists, structs and tensors are objects.
The index is not kept. Neither library is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from umbel.data._blocks import restoring, schemas, sizes, tensors, unpacking

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl


def load(name: str) -> ModuleType:
    """The library of a batch format. Raises ImportError that says how to have it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"batches of {name} need that library: pip install {name}") from error


def to_pandas(table: pa.Table, *, zero_copy: bool) -> pd.DataFrame:
    """zero_copy: plain columns are views of the table's memory where they can be, which cannot be written to in place."""
    pandas = load("pandas")
    made = {name: _special(pandas, table.column(name)) for name in table.column_names}
    special = {name: column for name, column in made.items() if column is not None}
    plain = [name for name in table.column_names if name not in special]
    shown = table.select(plain) if special else table
    frame: pd.DataFrame = shown.to_pandas(split_blocks=zero_copy, ignore_metadata=True, use_threads=False)
    if not plain:
        frame.index = pandas.RangeIndex(table.num_rows)
    for name, column in special.items():
        frame.insert(table.schema.get_field_index(name), name, column)
    return frame if zero_copy else frame.copy()


def slice_pandas(frame: pd.DataFrame, start: int, stop: int) -> pd.DataFrame:
    """With an index from 0 on, as a frame of its own has; writing to it leaves the rest alone."""
    pandas = load("pandas")
    part: Any = frame.iloc[start:stop]  # typed as a row, where pandas has types
    if pandas.__version__.startswith("2."):  # where it would warn of being a slice when it is written to
        part = part.copy(deep=False)
    part.index = pandas.RangeIndex(len(part))
    cut: pd.DataFrame = part
    return cut


def from_pandas(frame: pd.DataFrame, *, like: pa.Schema | None = None) -> pa.Table:
    """Columns' names become strings. like: see `restoring`."""
    names = [str(name) for name in frame.columns]
    arrays = [from_series(frame.iloc[:, index], name=name, like=like) for index, name in enumerate(names)]
    if not names:
        return schemas.without_columns(len(frame))
    return sizes.plain(pa.Table.from_arrays(arrays, names), narrow=True)


def from_series(series: pd.Series[Any], *, name: str, like: pa.Schema | None = None) -> pa.Array | pa.ChunkedArray:
    if series.dtype != object:
        return pa.array(series, from_pandas=True)
    values = series.tolist()
    for index in np.flatnonzero(series.isna().to_numpy()):
        values[index] = None
    return restoring.column_like(values, name=name, like=like)


def to_polars(table: pa.Table) -> pl.DataFrame:
    """Tensors of one shape are polars' arrays, ragged ones structs of data and shape.

    Raises TypeError for a type that polars has not.
    """
    polars = load("polars")
    arrays = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if _is_unknown_to_polars(field.type):
            raise TypeError(
                f"polars has no type for the column {field.name!r}, which is {field.type}; cast it or drop it"
            )
        array = sizes.contiguous(_for_polars(column))
        if pa.types.is_fixed_size_list(array.type) and array.null_count:  # of which polars 2.1 cannot take a slice
            array = array.take(pa.array(range(len(array)), pa.int64()))
        if tensors.is_fixed(field.type):
            array = tensors.to_lists(array)
        elif isinstance(field.type, pa.BaseExtensionType):
            array = array.storage
        arrays.append(array)
    frame: pl.DataFrame = polars.from_arrow(pa.Table.from_arrays(arrays, table.column_names))
    return frame


def from_polars(frame: pl.DataFrame) -> pa.Table:
    polars = load("polars")
    return sizes.plain(frame.to_arrow(compat_level=polars.CompatLevel.oldest()), narrow=True)


def _special(pandas: ModuleType, column: pa.ChunkedArray) -> Any:
    """A column of the frame that PyArrow would make otherwise; None for one that it makes well."""
    data_type = column.type
    if pa.types.is_nested(data_type) or isinstance(data_type, pa.BaseExtensionType):
        return pandas.Series(unpacking.objects(list(unpacking.to_numpy(sizes.contiguous(column)))), dtype=object)
    if pa.types.is_dictionary(data_type):
        array = sizes.contiguous(column)
        values = array.dictionary
        # A Categorical has each of its values once and no null; of other types it would lose zones, or there is none.
        is_fit = pa.types.is_string(values.type) or pa.types.is_integer(values.type)
        if not is_fit or values.null_count or len(values.unique()) < len(values):
            return array.dictionary_decode().to_pandas()
        return None
    if column.null_count and (pa.types.is_integer(data_type) or pa.types.is_boolean(data_type)):
        masked: Any = unpacking.to_numpy(sizes.contiguous(column))
        kind = pandas.arrays.BooleanArray if pa.types.is_boolean(data_type) else pandas.arrays.IntegerArray
        return pandas.Series(kind(masked.data, masked.mask))
    return None


def _for_polars(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """polars 2.1 refuses fixed-size lists with nulls, but columns of lists of numbers: they go as lists of any size. And it
    stops at dictionaries within null structs: those go as plain values."""
    if pa.types.is_dictionary(column.type):
        return column
    if pa.types.is_fixed_size_list(column.type):
        values = column.type.value_type
        if pa.types.is_integer(values) or pa.types.is_floating(values):
            return column
    return schemas.cast(column, _polars_type(column.type))


def _polars_type(data_type: pa.DataType) -> pa.DataType:
    def inside(field: pa.Field) -> pa.Field:
        return field.with_type(_polars_type(field.type))

    if pa.types.is_dictionary(data_type):
        return data_type.value_type
    if pa.types.is_list(data_type) or pa.types.is_fixed_size_list(data_type):
        return pa.list_(inside(data_type.value_field))
    if pa.types.is_large_list(data_type):
        return pa.large_list(inside(data_type.value_field))
    if pa.types.is_struct(data_type):
        return pa.struct([inside(field) for field in data_type])
    return data_type


def _is_unknown_to_polars(data_type: pa.DataType) -> bool:
    if pa.types.is_decimal256(data_type) or pa.types.is_interval(data_type) or pa.types.is_union(data_type):
        return True
    return any(_is_unknown_to_polars(data_type.field(index).type) for index in range(data_type.num_fields))
