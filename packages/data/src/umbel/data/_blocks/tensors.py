"""Columns of tensors: one array of numbers in each row.

Tensors of one shape are Arrow's fixed-shape tensors, which are stacked ndarrays without a copy, either way. Those of several
shapes are `RaggedTensorType`, of ours: a struct of the numbers, one tensor after the other, and of the shapes; all tensors of
a column have one number of dimensions. What a tensor may be made of is what Arrow and NumPy lay out alike, and booleans, which
Arrow packs and which are therefore copied. An ndarray made here from a column can be read only, unless it is a copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import numeric


class RaggedTensorScalar(pa.ExtensionScalar):  # type: ignore[misc]  # PyArrow has no types
    """One tensor, or null."""

    def as_py(self, **options: object) -> np.ndarray[Any, Any] | None:
        if self.value is None:
            return None
        shape: list[int] = self.value["shape"].as_py()
        return _views(self.value["data"].values).reshape(shape)


class RaggedTensorArray(pa.ExtensionArray):  # type: ignore[misc]
    """Tensors of several shapes."""

    def to_numpy(self, zero_copy_only: bool = True, writable: bool = False) -> np.ndarray[Any, Any]:
        """[row], of objects: an ndarray, or None. Takes what PyArrow's own method takes."""
        return to_numpy(self)

    def to_pylist(self, **options: object) -> list[np.ndarray[Any, Any] | None]:
        return list(to_numpy(self))


class RaggedTensorType(pa.ExtensionType):  # type: ignore[misc]
    """The type of a column whose tensors differ in shape, though not in how many dimensions they have."""

    def __init__(self, value_type: pa.DataType, ndim: int) -> None:
        self._value_type, self._ndim = value_type, ndim
        fields = [pa.field("data", pa.large_list(value_type)), pa.field("shape", pa.list_(pa.int64(), ndim))]
        super().__init__(pa.struct(fields), "umbel.ragged_tensor")

    @property
    def value_type(self) -> pa.DataType:
        return self._value_type

    @property
    def ndim(self) -> int:
        return self._ndim

    def __arrow_ext_serialize__(self) -> bytes:
        return b""  # the storage says it all

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> RaggedTensorType:
        return cls(storage_type.field("data").type.value_type, storage_type.field("shape").type.list_size)

    def __arrow_ext_class__(self) -> type[RaggedTensorArray]:
        return RaggedTensorArray

    def __arrow_ext_scalar_class__(self) -> type[RaggedTensorScalar]:
        return RaggedTensorScalar

    def __reduce__(self) -> tuple[type[RaggedTensorType], tuple[pa.DataType, int]]:
        return RaggedTensorType, (self._value_type, self._ndim)

    def __str__(self) -> str:
        return f"ragged_tensor<{self._value_type}, ndim={self._ndim}>"


try:
    pa.register_extension_type(RaggedTensorType(pa.int8(), 1))
except pa.ArrowKeyError:
    pass  # the module was loaded before, and again


def is_fixed(data_type: pa.DataType) -> bool:
    return isinstance(data_type, pa.FixedShapeTensorType)


def is_ragged(data_type: pa.DataType) -> bool:
    return isinstance(data_type, RaggedTensorType)


def is_tensor(data_type: pa.DataType) -> bool:
    return is_fixed(data_type) or is_ragged(data_type)


def dimensions(data_type: pa.DataType) -> int:
    """How many dimensions each tensor of a column has."""
    return data_type.ndim if is_ragged(data_type) else len(data_type.shape)


def shape(data_type: pa.DataType) -> tuple[int, ...]:
    """That of each tensor of a fixed-shape column, as NumPy sees it: the axes may be stored in another order."""
    stored = tuple(data_type.shape)
    order = data_type.permutation
    return stored if order is None else tuple(stored[axis] for axis in order)


def holds(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of the dtype can be tensors."""
    if dtype.kind in "mM":
        return np.datetime_data(dtype)[0] in ("s", "ms", "us", "ns")
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def fixed_type(value_type: pa.DataType, shape: Sequence[int]) -> pa.DataType:
    return pa.fixed_shape_tensor(value_type, tuple(shape))


def from_numpy(stacked: np.ndarray[Any, Any]) -> pa.Array:
    """[row, ...] with at least one axis besides the rows, of a dtype that tensors hold.

    Copies nothing if the array is contiguous, of the machine's byte order and not of booleans: what is written to it later
    shows in the column.
    """
    return from_numbers(_column(stacked), stacked.shape)


def from_arrays(arrays: Sequence[np.ndarray[Any, Any] | None]) -> pa.Array:
    """A column with one tensor or null in each row: of a fixed shape where all have it, else ragged.

    arrays: of one dtype and one number of dimensions, at least one of them not None.
    """
    present = [array for array in arrays if array is not None]
    mask = None if len(present) == len(arrays) else np.fromiter((array is None for array in arrays), bool, len(arrays))
    first = present[0]
    if len({array.shape for array in present}) > 1:
        empty = np.empty((0,) * first.ndim, first.dtype)
        return _ragged([empty if array is None else array for array in arrays], mask)
    if mask is None:
        return from_numpy(np.stack(present))
    stacked = np.zeros((len(arrays), *first.shape), first.dtype)
    stacked[~mask] = present
    return from_numbers(_column(stacked), stacked.shape, mask)


def from_numbers(numbers: pa.Array, full_shape: Sequence[int], mask: np.ndarray[Any, Any] | None = None) -> pa.Array:
    """full_shape: how many rows there are, and the shape of each. mask: [row], of the rows that are null, which have numbers
    as well."""
    row_count, size = full_shape[0], math.prod(full_shape[1:])
    validity = None if mask is None else pa.array(~mask).buffers()[1]
    # Not `FixedSizeListArray.from_arrays`, which cannot tell how many rows there are where the tensors are of no elements.
    storage = pa.Array.from_buffers(pa.list_(numbers.type, size), row_count, [validity], children=[numbers])
    return pa.ExtensionArray.from_storage(fixed_type(numbers.type, full_shape[1:]), storage)


def to_numpy(column: pa.Array) -> np.ndarray[Any, Any]:
    """Of a fixed shape without nulls: [row, ...], of the column's own memory unless it is of booleans. Else [row], of objects:
    an ndarray, again of that memory, or None.

    Raises ValueError where a tensor of integers or booleans has a null among its elements.
    """
    if is_fixed(column.type) and not column.null_count:
        return _stacked(column)
    tensors = _ragged_views(column) if is_ragged(column.type) else _stacked(column)
    objects: np.ndarray[Any, Any] = np.full(len(column), None, object)
    for index in np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)):
        objects[index] = tensors[index]
    return objects


def to_lists(column: pa.Array) -> pa.Array:
    """Lists within lists, one level for each axis: of one size where the column has one shape. Copies nothing if the axes of
    such a one are in order."""
    if is_ragged(column.type):
        return _ragged_to_lists(column)
    axes = shape(column.type)
    nested = _numbers(column) if column.type.permutation is None else _column(_stacked(column))
    for level, size in reversed(list(enumerate(axes))):
        row_count = len(column) * math.prod(axes[:level])
        validity = _validity(column) if not level else None
        nested = pa.Array.from_buffers(pa.list_(nested.type, size), row_count, [validity], children=[nested])
    return nested


def _ragged_to_lists(column: pa.Array) -> pa.Array:
    data, shapes = (column.storage.field(name) for name in ("data", "shape"))
    ndim = shapes.type.list_size
    sizes = shapes.values.slice(shapes.offset * ndim, len(shapes) * ndim).fill_null(0).to_numpy().reshape(-1, ndim)
    offsets = data.offsets.to_numpy()
    nested = data.values.slice(offsets[0], offsets[-1] - offsets[0])
    for level in range(ndim - 1, -1, -1):
        lengths = np.repeat(sizes[:, level], sizes[:, :level].prod(axis=1))
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        buffers = [_validity(column) if not level else None, pa.py_buffer(ends)]
        nested = pa.Array.from_buffers(pa.large_list(nested.type), len(lengths), buffers, children=[nested])
    return nested


def _validity(column: pa.Array) -> pa.Buffer | None:
    return pa.array(column.is_valid().to_pylist(), pa.bool_()).buffers()[1] if column.null_count else None


def cast(column: pa.Array, target: pa.DataType) -> pa.Array:
    """The tensors of one column as those of another type: with other numbers, or ragged where they were of one shape.

    Raises ArrowInvalid where a number does not fit, ValueError where the target's shape is another.
    """
    if is_ragged(column.type):
        if not is_ragged(target):
            raise ValueError(f"tensors of several shapes cannot be cast to {target}")
        data, shapes = (column.storage.field(name) for name in ("data", "shape"))
        fields = list(target.storage_type)
        storage = pa.StructArray.from_arrays(
            [data.cast(fields[0].type), shapes], fields=fields, mask=column.is_null() if column.null_count else None
        )
        return pa.ExtensionArray.from_storage(target, storage)
    numbers, full_shape = _numbers(column), (len(column), *shape(column.type))
    if column.type.permutation is not None:
        numbers = _column(_stacked(column))
    mask = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    if is_ragged(target):
        return _ragged_of(numbers.cast(target.value_type), np.tile(full_shape[1:], (len(column), 1)), mask)
    if shape(target) != full_shape[1:] or target.permutation is not None:
        raise ValueError(f"tensors of shape {full_shape[1:]} cannot be cast to {target}")
    return from_numbers(numbers.cast(target.value_type), full_shape, mask)


def _column(stacked: np.ndarray[Any, Any]) -> pa.Array:
    """The numbers of an array in C order."""
    native = np.ascontiguousarray(stacked, stacked.dtype.newbyteorder("=")).reshape(-1)
    return numeric.to_arrow(native) if native.dtype.kind in "iuf" else pa.array(native)


def _ragged(arrays: Sequence[np.ndarray[Any, Any]], mask: np.ndarray[Any, Any] | None) -> pa.Array:
    shapes = np.array([array.shape for array in arrays], np.int64)
    return _ragged_of(_column(np.concatenate([array.reshape(-1) for array in arrays])), shapes, mask)


def _ragged_of(numbers: pa.Array, shapes: np.ndarray[Any, Any], mask: np.ndarray[Any, Any] | None) -> pa.Array:
    """shapes: [row, axis]; a null row has a shape as well, and as many numbers as that says."""
    row_count, ndim = shapes.shape
    target = RaggedTensorType(numbers.type, ndim)
    offsets = np.zeros(row_count + 1, np.int64)
    np.cumsum(shapes.prod(axis=1), out=offsets[1:])
    sizes = pa.array(shapes.reshape(-1).astype(np.int64, copy=False))
    children = [
        pa.LargeListArray.from_arrays(pa.array(offsets), numbers),
        pa.Array.from_buffers(pa.list_(pa.int64(), ndim), row_count, [None], children=[sizes]),
    ]
    storage = pa.StructArray.from_arrays(
        children, fields=list(target.storage_type), mask=None if mask is None else pa.array(mask)
    )
    return pa.ExtensionArray.from_storage(target, storage)


def _numbers(column: pa.Array) -> pa.Array:
    """Those of a fixed-shape column's rows as they are stored; of null rows as well."""
    size = column.storage.type.list_size
    return column.storage.values.slice(column.offset * size, len(column) * size)


def _stacked(column: pa.Array) -> np.ndarray[Any, Any]:
    """[row, ...] of a fixed-shape column, whatever its null rows hold."""
    numbers = _dense(_numbers(column), column, column.storage.type.list_size)
    stacked: np.ndarray[Any, Any] = numbers.reshape((len(column), *column.type.shape))
    if column.type.permutation is None:
        return stacked
    ordered: np.ndarray[Any, Any] = stacked.transpose((0, *(1 + axis for axis in column.type.permutation)))
    return ordered


def _ragged_views(column: pa.Array) -> list[np.ndarray[Any, Any]]:
    data, shapes = (column.storage.field(name) for name in ("data", "shape"))
    if not len(column):
        return []
    offsets = data.offsets.to_numpy()
    numbers = _dense(data.values.slice(offsets[0], offsets[-1] - offsets[0]), column, np.diff(offsets))
    bounds = (offsets - offsets[0]).tolist()
    ndim = shapes.type.list_size
    flat = shapes.values.slice(shapes.offset * ndim, len(shapes) * ndim).fill_null(0)
    sizes = flat.to_numpy().reshape((len(shapes), ndim)).tolist()
    valid = column.is_valid().to_pylist()  # a null row's shape may be anything
    return [
        numbers[bounds[row] : bounds[row + 1]].reshape(sizes[row] if valid[row] else -1) for row in range(len(column))
    ]


def _dense(numbers: pa.Array, column: pa.Array, counts: int | np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """counts: how many of the numbers each row of the column has. Those of null rows may be null as well, and mean nothing."""
    if numbers.null_count and column.null_count:
        is_shown: np.ndarray[Any, Any] = np.repeat(column.is_valid().to_numpy(zero_copy_only=False), counts)
        is_nothing = pa.array(~is_shown & numbers.is_null().to_numpy(zero_copy_only=False))
        numbers = pc.if_else(is_nothing, pa.scalar(0, pa.int8()).cast(numbers.type), numbers)
    return _views(numbers)


def _views(numbers: pa.Array) -> np.ndarray[Any, Any]:
    if numbers.null_count and (pa.types.is_integer(numbers.type) or pa.types.is_boolean(numbers.type)):
        raise ValueError(f"a tensor of {numbers.type} has a null among its elements; fill it, or use a list column")
    if numeric.holds(numbers):
        return numeric.to_numpy(numbers)
    views: np.ndarray[Any, Any] = numbers.to_numpy(zero_copy_only=False)
    return views
