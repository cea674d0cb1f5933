"""Columns made of Python's values and of ndarrays: which type they have, and what is refused.

The values of a column are of one kind, but that integers go with floats and with decimals, as design/0046 says of types. PyArrow
is not asked: its own inference makes binary of str with bytes, drops the time of datetimes among dates, and cuts nanoseconds. The
values of lists and dicts are held to the same, and every error has the row's number.
"""

from __future__ import annotations

import bisect
import collections.abc
import datetime
import decimal
import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

import numpy as np
import pyarrow as pa

from umbel.data._blocks import numeric, schemas, sizes, tensors

_Array: TypeAlias = "np.ndarray[Any, Any]"
_SHOWN_MAX: Final = 60  # characters of a value in an error
_KINDS: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "str"),
    ((bytes, bytearray, memoryview), "bytes"),
    (datetime.datetime, "datetime"),
    (datetime.date, "date"),
    (datetime.time, "time"),
    (datetime.timedelta, "timedelta"),
    (decimal.Decimal, "Decimal"),
    (uuid.UUID, "UUID"),
    (np.generic, "numpy"),
    (collections.abc.Mapping, "dict"),
    ((list, tuple, set, frozenset), "list"),
    (pa.Scalar, "arrow"),
)
_PANDAS_KINDS: Final = {"NaTType": "missing", "NAType": "missing", "Timestamp": "Timestamp", "Timedelta": "Timedelta"}


class _Place(NamedTuple):
    """What an error says of where the values are. row: of the index of one of them."""

    name: str
    row: Callable[[int], int]
    is_nested: bool = False

    def within(self, name: str, row: Callable[[int], int]) -> _Place:
        return _Place(f"{self.name}.{name}", lambda index: self.row(row(index)), is_nested=True)


def from_values(values: Sequence[object], *, name: str, data_type: pa.DataType | None = None) -> pa.Array:
    """A column with the values: None is null, an ndarray a tensor, a dict a struct.

    name: for errors. data_type: inferred if it is None.
    Raises TypeError for values of several kinds, or of one that Arrow does not know; ValueError for one that does not fit.
    """
    place = _Place(name, lambda index: index)
    known = list(values)
    if data_type is None:
        return _inferred(known, place)
    if tensors.is_tensor(data_type):
        made = _inferred([value if value is None else _as_array(value) for value in known], place)
        return sizes.contiguous(schemas.cast(pa.chunked_array([made]), data_type))
    if pa.types.is_dictionary(data_type):  # PyArrow makes only some of them
        return _converted(_without_missing(known), place, data_type.value_type).dictionary_encode().cast(data_type)
    return _converted(_without_missing(known), place, data_type)


def from_numpy(array: _Array, *, name: str) -> pa.Array:
    """A column of the array's rows: numbers and times share its memory if it is contiguous; of more axes, they are tensors.

    What a masked array masks is null, and so is NaT; NaN is NaN.
    Raises TypeError for a dtype that Arrow does not know.
    """
    mask = _mask(array)
    if mask is not None and array.ndim > 1:
        return from_values(array.tolist(), name=name)
    array = _known_unit(np.asarray(array))
    kind = array.dtype.kind
    if kind in "OT" or (kind in "US" and array.ndim > 1):
        values = array.tolist()
        return from_values(values if mask is None else np.where(mask, None, array).tolist(), name=name)
    if kind == "V" and array.dtype.names and array.ndim == 1:
        fields = [from_numpy(array[field], name=f"{name}.{field}") for field in array.dtype.names]
        return pa.StructArray.from_arrays(
            fields, list(array.dtype.names), mask=None if mask is None else pa.array(mask)
        )
    if kind not in "US" and not (tensors.holds(array.dtype) or _is_of_days(array)):
        raise TypeError(
            f"column {name!r}: Arrow has no type for NumPy's {array.dtype}; give numbers of at most 64 bits, or objects"
        )
    if array.ndim > 1:
        return tensors.from_numpy(array)
    if kind in "iuf" and mask is None:
        return numeric.to_arrow(array)
    return pa.array(np.asarray(array, array.dtype.newbyteorder("=")), mask=mask)


def _mask(array: _Array) -> _Array | None:
    """What is masked, if anything is."""
    if not isinstance(array, np.ma.MaskedArray):
        return None
    mask: _Array = np.ma.getmaskarray(array)
    return mask if mask.any() else None


def _known_unit(array: _Array) -> _Array:
    """Arrow knows days and, from the second on, what is finer."""
    if array.dtype.kind not in "mM":
        return array
    unit = np.datetime_data(array.dtype)[0]
    if unit in ("s", "ms", "us", "ns") or (unit == "D" and array.dtype.kind == "M" and array.ndim == 1):
        return array
    is_calendar = unit in ("Y", "M", "W") and array.dtype.kind == "M" and array.ndim == 1
    return array.astype(f"{array.dtype.kind}8[{'D' if is_calendar else 's'}]")


def _kind(cls: type) -> str:
    if cls is type(None):
        return "null"
    if cls.__module__.partition(".")[0] == "pandas" and cls.__name__ in _PANDAS_KINDS:
        return _PANDAS_KINDS[cls.__name__]
    for known, kind in _KINDS:
        if issubclass(cls, known):
            return kind
    return "array" if hasattr(cls, "__array__") or hasattr(cls, "__array_interface__") else "object"


def _kinds(values: list[Any]) -> set[str]:
    classes: set[type] = set(map(type, values))
    return {_kind(cls) for cls in classes} - {"null"}


def _inferred(values: list[Any], place: _Place) -> pa.Array:
    kinds = _kinds(values)
    if "missing" in kinds:
        values = _without_missing(values)
        kinds.discard("missing")
    if not kinds:
        return pa.nulls(len(values))
    if "arrow" in kinds:
        return _inferred([value.as_py() if isinstance(value, pa.Scalar) else value for value in values], place)
    if "object" in kinds:
        _refuse_object(values, place)
    if len(kinds) == 1:
        return _BY_KIND[kinds.pop()](values, place)
    if "numpy" in kinds and kinds <= {"numpy", "bool", "int", "float"}:
        return _inferred([_item(value, values, place) for value in values], place)
    if kinds == {"int", "float"}:
        return _converted(values, place, pa.float64())
    if kinds == {"int", "Decimal"}:
        return _with_decimals(values, place)
    if kinds == {"datetime", "Timestamp"}:
        return _datetimes(values, place)
    if kinds == {"timedelta", "Timedelta"}:
        return _timedeltas(values, place)
    if kinds == {"list", "array"}:
        return _lists(
            [value if _kind(type(value)) != "array" else _elements(_as_array(value)) for value in values], place
        )
    _refuse_mixture(values, place, lambda value: _kind(type(value)))


def _without_missing(values: list[Any]) -> list[Any]:
    """With None for what pandas has in its stead."""
    if "missing" not in _kinds(values):
        return values
    return [None if _kind(type(value)) == "missing" else value for value in values]


def _converted(values: list[Any], place: _Place, data_type: pa.DataType | None = None) -> pa.Array:
    """By PyArrow, of values that it takes as they are."""
    try:
        made = pa.array(values, data_type)
    except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
        for index, value in enumerate(values):
            try:
                pa.array([value], data_type)
            except (ValueError, TypeError, OverflowError, NotImplementedError) as reason:
                target = data_type or "any type of Arrow"
                raise ValueError(
                    f"column {place.name!r}, row {place.row(index)}: {_shown(value)} does not fit {target}: {reason}"
                ) from error
        raise ValueError(f"column {place.name!r}: its values have no common type in Arrow: {error}") from error
    return made if isinstance(made, pa.Array) else sizes.contiguous(made)  # several arrays, past 2 GiB


def _integers(values: list[Any], place: _Place) -> pa.Array:
    try:
        return numeric.to_arrow(np.fromiter(values, np.int64, len(values)))  # twice as fast as by PyArrow
    except (TypeError, OverflowError):
        pass  # one is None, or does not fit
    try:
        return pa.array(values, pa.int64())
    except OverflowError as error:
        index = next(index for index, value in enumerate(values) if value is not None and not -(2**63) <= value < 2**63)
        raise ValueError(
            f"column {place.name!r}, row {place.row(index)}: {_shown(values[index])} does not fit into 64 bits; "
            "make the column's integers Decimals, floats or strings, or give a schema with uint64 or a decimal"
        ) from error


def _with_decimals(values: list[Any], place: _Place) -> pa.Array:
    return _converted([decimal.Decimal(value) if isinstance(value, int) else value for value in values], place)


def _datetimes(values: list[Any], place: _Place) -> pa.Array:
    """Of several zones, the instants in UTC."""
    present = [value for value in values if value is not None]
    if len({value.tzinfo is None for value in present}) > 1:
        _refuse_mixture(values, place, lambda value: f"datetime {'without' if value.tzinfo is None else 'with'} a zone")
    unit = _finest(getattr(value, "unit", "us") for value in present)
    if present[0].tzinfo is None:
        return _converted(values, place, pa.timestamp(unit))
    is_one_zone = len({str(value.tzinfo) for value in present}) == 1
    zone = pa.array(present[:1]).type.tz if is_one_zone else "UTC"
    return _converted(values, place, pa.timestamp(unit, zone))


def _timedeltas(values: list[Any], place: _Place) -> pa.Array:
    unit = _finest(getattr(value, "unit", "us") for value in values if value is not None)
    return _converted(values, place, pa.duration(unit))


def _finest(units: Iterator[str]) -> str:
    """Of those of pandas' values; Python's are of microseconds."""
    return max({"us", *units}, key=("s", "ms", "us", "ns").index)


def _structs(values: list[Any], place: _Place) -> pa.Array:
    mask = _null_mask(values)
    dicts = values if mask is None else [{} if value is None else value for value in values]
    names = dict.fromkeys(itertools.chain.from_iterable(dicts))
    if not names:
        return pa.array(values, pa.struct([]))
    for name in names:
        if not isinstance(name, str):
            index = next(index for index, value in enumerate(dicts) if name in value)
            raise TypeError(
                f"column {place.name!r}, row {place.row(index)}: a dict has the key {_shown(name)}, and only strings name "
                "the fields of a struct; make the keys strings, or the dict a list of pairs"
            )
    fields = [
        _inferred([value.get(name) for value in dicts], place.within(name, lambda index: index)) for name in names
    ]
    return pa.StructArray.from_arrays(fields, list(names), mask=None if mask is None else pa.array(mask))


def _lists(values: list[Any], place: _Place) -> pa.Array:
    mask = _null_mask(values)
    lists = values if mask is None else [() if value is None else value for value in values]
    stops = np.cumsum(np.fromiter(map(len, lists), np.int64, len(lists)))
    flat = list(itertools.chain.from_iterable(lists))
    items = _inferred(flat, place.within("item", lambda index: bisect.bisect_right(stops.tolist(), index)))
    is_large = len(flat) > sizes.OFFSET_BYTES_MAX
    offsets = pa.array(np.concatenate([[0], stops]), pa.int64() if is_large else pa.int32())
    made = pa.LargeListArray if is_large else pa.ListArray
    return made.from_arrays(offsets, items, mask=None if mask is None else pa.array(mask))


def _null_mask(values: list[Any]) -> _Array | None:
    """[value], whether it is None; None where none is."""
    if type(None) not in set(map(type, values)):
        return None
    mask: _Array = np.array([value is None for value in values])
    return mask


def _scalars(values: list[Any], place: _Place) -> pa.Array:
    """Of NumPy's, whose dtype the column has if it is one for all."""
    dtypes = {value.dtype for value in values if value is not None}
    if any(dtype.kind not in "biufmM" or dtype.itemsize > 8 for dtype in dtypes):
        _refuse_object(values, place)
    if len(dtypes) > 1 and {dtype.kind for dtype in dtypes} not in ({"m"}, {"M"}):
        return _inferred([_item(value, values, place) for value in values], place)
    dtype = np.result_type(*dtypes)
    mask = _null_mask(values)
    if mask is None:
        return from_numpy(np.array(values, dtype), name=place.name)
    filled = np.zeros(len(values), dtype)
    filled[~mask] = [value for value in values if value is not None]
    return from_numpy(np.ma.MaskedArray(filled, mask), name=place.name)


def _item(value: Any, values: list[Any], place: _Place) -> Any:
    """Python's number for one of NumPy's. Not of times, for which `item` may say integers."""
    if not isinstance(value, np.generic) or isinstance(value, float):
        return value
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        _refuse_mixture(values, place, lambda one: type(one).__name__)
    return value.item()


def _arrays(values: list[Any], place: _Place) -> pa.Array:
    """Tensors; but lists within lists and dicts, and where the elements are no numbers or some are masked."""
    arrays = [None if value is None else _as_array(value) for value in values]
    present = [array for array in arrays if array is not None]
    if len({array.ndim for array in present}) > 1:
        _refuse_mixture(arrays, place, lambda array: f"array of {array.ndim} dimensions")
    if present[0].ndim == 0:
        return _inferred([None if array is None else array[()] for array in arrays], place)
    if place.is_nested or any(
        array.dtype.kind in "OUST" or _is_of_days(array) or _mask(array) is not None for array in present
    ):
        return _lists([None if array is None else _elements(array) for array in arrays], place)
    arrays = [None if array is None else _known_unit(array) for array in arrays]
    for index, array in enumerate(arrays):
        if array is not None and not tensors.holds(array.dtype):
            raise TypeError(
                f"column {place.name!r}, row {place.row(index)}: no tensor holds NumPy's {array.dtype}; "
                "give numbers of at most 64 bits"
            )
    dtypes = {array.dtype.newbyteorder("=") for array in arrays if array is not None}
    if len(dtypes) > 1:
        both = schemas.common_type(*(pa.from_numpy_dtype(dtype) for dtype in dtypes))
        if both is None:
            _refuse_mixture(arrays, place, lambda array: f"array of {array.dtype}")
        arrays = [None if array is None else _of_type(array, both) for array in arrays]
    return tensors.from_arrays(arrays)


def _is_of_days(array: _Array) -> bool:
    return bool(array.dtype == "datetime64[D]" and array.ndim == 1)


def _elements(array: _Array) -> list[Any]:
    """Python's values, but NumPy's of times: `tolist` makes integers of nanoseconds."""
    elements: list[Any] = list(array) if array.dtype.kind in "mM" else array.tolist()
    return elements


def _of_type(array: _Array, data_type: pa.DataType) -> _Array:
    """With a check that every number fits."""
    cast = pa.array(np.ascontiguousarray(array).reshape(-1)).cast(data_type)
    shaped: _Array = cast.to_numpy(zero_copy_only=False).reshape(array.shape)
    return shaped


def _as_array(value: Any) -> _Array:
    """Of a value that says that it is one: an ndarray itself, a tensor of torch without a copy where it is the CPU's."""
    if type(value).__module__.partition(".")[0] == "torch":
        return torch_to_numpy(value)
    return value if isinstance(value, np.ndarray) else np.asarray(value)


def torch_to_numpy(tensor: Any) -> _Array:
    """Of a tensor of torch. One of bfloat16, which NumPy does not know, becomes float32, which holds the same numbers."""
    plain = tensor.detach().cpu()
    array: _Array = (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy()
    return array


def _refuse_mixture(values: list[Any], place: _Place, kind_of: Callable[[Any], str]) -> NoReturn:
    first = next(index for index, value in enumerate(values) if value is not None)
    kind = kind_of(values[first])
    other = next(index for index, value in enumerate(values) if value is not None and kind_of(value) != kind)
    raise TypeError(
        f"column {place.name!r} mixes types: row {place.row(first)} has {kind} ({_shown(values[first])}), row "
        f"{place.row(other)} has {kind_of(values[other])} ({_shown(values[other])}); make them one type"
    )


def _refuse_object(values: list[Any], place: _Place) -> NoReturn:
    index = next(
        index for index, value in enumerate(values) if value is not None and _kind(type(value)) in ("object", "numpy")
    )
    cls = type(values[index])
    raise TypeError(
        f"column {place.name!r}, row {place.row(index)}: Arrow has no type for {_shown(values[index])}, a {cls.__module__}."
        f"{cls.__qualname__}; give numbers, strings, bytes, dates and times, arrays, or lists and dicts of them, "
        "or pickle it to bytes yourself"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"


_BY_KIND: Final[dict[str, Callable[[list[Any], _Place], pa.Array]]] = {
    **dict.fromkeys(("bool", "float", "str", "bytes", "date", "time", "Decimal", "UUID"), _converted),
    "int": _integers,
    "datetime": _datetimes,
    "Timestamp": _datetimes,
    "timedelta": _timedeltas,
    "Timedelta": _timedeltas,
    "dict": _structs,
    "list": _lists,
    "numpy": _scalars,
    "array": _arrays,
}
