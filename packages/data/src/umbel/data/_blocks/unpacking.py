"""A column as an ndarray, or as a list of Python's values.

No integer becomes a float on the way: where a column of integers or booleans has nulls, its ndarray is a masked one. Floats have
NaN for null and times NaT, as everybody who uses NumPy expects. What NumPy has no dtype for is an array of objects: a string
is a str, a list an ndarray, a struct a dict, and so on.
"""

from __future__ import annotations

import datetime
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

from umbel.data._blocks import numeric, schemas, tensors

_Array: TypeAlias = "np.ndarray[Any, Any]"
_FIRST_US: Final = -62_135_596_800_000_000  # of the year 1: Python's datetimes know no earlier one,
_LAST_US: Final = 253_402_300_799_999_999  # and none after the year 9999
_US: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}  # microseconds in a unit


def to_numpy(column: pa.Array) -> _Array:
    """[row], or [row, ...] for tensors of one shape and for fixed-size lists of numbers without nulls.

    A view of the column's memory, which cannot be written to, for numbers and times without nulls and for such tensors.
    """
    data_type = column.type
    if tensors.is_tensor(data_type):
        return tensors.to_numpy(column)
    if isinstance(data_type, pa.BaseExtensionType):
        return to_numpy(column.storage)
    if pa.types.is_null(data_type):
        return np.full(len(column), None, object)
    if pa.types.is_integer(data_type) or pa.types.is_boolean(data_type):
        return _plain(column) if not column.null_count else _masked(column)
    if pa.types.is_dictionary(data_type) and not _is_text(data_type.value_type):
        return to_numpy(column.dictionary_decode())
    if schemas.is_list(data_type):
        return _lists(column)
    if pa.types.is_struct(data_type) or pa.types.is_map(data_type) or pa.types.is_union(data_type):
        return objects(to_values(column))
    return _plain(column)


def to_values(column: pa.Array) -> list[Any]:
    """What `to_pylist` says, and several times as fast for most types; but a tensor is an ndarray."""
    data_type = column.type
    if tensors.is_tensor(data_type):
        return list(tensors.to_numpy(column))
    if pa.types.is_integer(data_type) or pa.types.is_boolean(data_type) or pa.types.is_floating(data_type):
        return _numbers(column)
    if (
        _is_text(data_type)
        or pa.types.is_date32(data_type)
        or pa.types.is_decimal(data_type)
        or pa.types.is_time(data_type)
    ):
        return _listed(_plain(column))
    if pa.types.is_timestamp(data_type) and data_type.unit != "ns":
        return _datetimes(column)
    if pa.types.is_dictionary(data_type):
        values = to_values(column.dictionary) or [None]  # a null within a struct may have any index
        return [None if index is None else values[index] for index in _numbers(column.indices)]
    if schemas.is_list(data_type):
        values, starts, stops = _flat(column)
        parts = to_values(values)
        return _with_none(column, [parts[start:stop] for start, stop in zip(starts, stops, strict=True)])
    if pa.types.is_struct(data_type) and data_type.num_fields == len({field.name for field in data_type}) > 0:
        names = [field.name for field in data_type]
        fields = [to_values(field) for field in column.flatten()]
        return _with_none(column, [dict(zip(names, row, strict=True)) for row in zip(*fields, strict=True)])
    return list(column.to_pylist())


def objects(values: list[Any]) -> _Array:
    """[value], never of more axes, whatever the values are."""
    array: _Array = np.fromiter(values, object, len(values))
    return array


def _plain(column: pa.Array) -> _Array:
    if numeric.holds(column):
        return numeric.to_numpy(column)
    array: _Array = column.to_numpy(zero_copy_only=False)
    return array


def _listed(array: _Array) -> list[Any]:
    values: list[Any] = array.tolist()
    return values


def _masked(column: pa.Array) -> _Array:
    mask: _Array = column.is_null().to_numpy(zero_copy_only=False)
    filled = column.fill_null(False if pa.types.is_boolean(column.type) else 0)
    masked: _Array = np.ma.MaskedArray(_plain(filled), mask)
    return masked


def _is_text(data_type: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(data_type)
        or pa.types.is_large_string(data_type)
        or pa.types.is_string_view(data_type)
        or schemas.is_binary(data_type)
    )


def _numbers(column: pa.Array) -> list[Any]:
    if not column.null_count:
        return _listed(_plain(column))
    if pa.types.is_floating(column.type):
        return _with_none(column, _listed(_plain(column)))
    values = _listed(_plain(column.fill_null(False if pa.types.is_boolean(column.type) else 0)))
    return _with_none(column, values)


def _with_none(column: pa.Array, values: list[Any]) -> list[Any]:
    if column.null_count:
        for index in np.flatnonzero(_plain(column.is_null())).tolist():
            values[index] = None
    return values


def _datetimes(column: pa.Array) -> list[Any]:
    """Python's, in the column's zone. Those that Python does not know are left to PyArrow, which says so."""
    instants = column.cast(pa.int64()).drop_null()
    if not len(instants):
        return [None] * len(column)
    numbers, factor = _plain(instants), _US[column.type.unit]
    day_us = 86_400_000_000  # a zone may move the first and the last of them over the edge
    if numbers.min() < (_FIRST_US + day_us) // factor or numbers.max() > (_LAST_US - day_us) // factor:
        return list(column.to_pylist())
    values: list[Any] = _plain(column).astype("datetime64[us]").tolist()
    if column.type.tz is None:
        return values
    zone = column.drop_null()[0].as_py().tzinfo
    utc = datetime.timezone.utc
    return [None if value is None else value.replace(tzinfo=utc).astimezone(zone) for value in values]


def _flat(column: pa.Array) -> tuple[pa.Array, list[int], list[int]]:
    """The values of a column of lists, and where in them each list starts and stops; a null is an empty list."""
    if pa.types.is_fixed_size_list(column.type):
        lengths = np.where(_plain(column.is_valid()), column.type.list_size, 0)
    else:
        lengths = _plain(column.value_lengths().fill_null(0))
    stops = np.cumsum(lengths, dtype=np.int64)
    return column.flatten(), (stops - lengths).tolist(), stops.tolist()


def _lists(column: pa.Array) -> _Array:
    values, starts, stops = _flat(column)
    array = to_numpy(values)
    if (
        pa.types.is_fixed_size_list(column.type)
        and not column.null_count
        and array.dtype != object
        and array.ndim == 1
        and not isinstance(array, np.ma.MaskedArray)
    ):
        return array.reshape(len(column), column.type.list_size)
    parts: list[Any] = [array[start:stop] for start, stop in zip(starts, stops, strict=True)]
    return objects(_with_none(column, parts))
