"""Types of values, of Arrow, NumPy or Python, by one class.

Wherever a type is asked for, that of Arrow, NumPy or Python itself does as well.
"""

from __future__ import annotations

import builtins
import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from umbel.data._blocks import inference, tensors
from umbel.data._expressions import datatypes

__all__ = ["DataType", "TypeCategory"]


class TypeCategory(str, enum.Enum):
    """What types may have in common."""

    LIST = "list"
    LARGE_LIST = "large_list"
    STRUCT = "struct"
    MAP = "map"
    TENSOR = "tensor"
    TEMPORAL = "temporal"


@dataclass(frozen=True, repr=False)
class DataType:
    """A type: one of pyarrow's, a NumPy dtype, or a class of Python's. Equal to another of the same library."""

    _physical_dtype: pa.DataType | np.dtype[Any] | type

    def __post_init__(self) -> None:
        if not isinstance(self._physical_dtype, pa.DataType | np.dtype | type):
            raise TypeError(
                f"a type is one of pyarrow's, a NumPy dtype or a class of Python's, got {self._physical_dtype!r}"
            )

    def __repr__(self) -> str:
        if isinstance(self._physical_dtype, type):
            return f"DataType(python:{self._physical_dtype.__name__})"
        return f"DataType({'arrow' if self.is_arrow_type() else 'numpy'}:{self._physical_dtype})"

    # ---- making ----

    @classmethod
    def from_arrow(cls, arrow_type: pa.DataType) -> DataType:
        return cls(arrow_type)

    @classmethod
    def from_numpy(cls, numpy_dtype: np.dtype[Any] | str) -> DataType:
        return cls(np.dtype(numpy_dtype))

    @classmethod
    def from_dtype(cls, dtype: Any) -> DataType:
        """Of any of these, or the name of one of Arrow's."""
        if isinstance(dtype, cls):
            return dtype
        return cls(dtype if isinstance(dtype, pa.DataType | np.dtype | type) else datatypes.to_arrow(dtype))

    @classmethod
    def infer_dtype(cls, value: Any) -> DataType:
        """Arrow's, that a column with this value would have."""
        return cls(inference.from_values([value], name="value").type)

    @classmethod
    def list(cls, value_type: DataType) -> DataType:
        return cls(pa.list_(value_type.to_arrow_dtype()))

    @classmethod
    def large_list(cls, value_type: DataType) -> DataType:
        return cls(pa.large_list(value_type.to_arrow_dtype()))

    @classmethod
    def fixed_size_list(cls, value_type: DataType, list_size: int) -> DataType:
        return cls(pa.list_(value_type.to_arrow_dtype(), list_size))

    @classmethod
    def struct(cls, fields: Iterable[tuple[str, DataType]]) -> DataType:
        return cls(pa.struct([(name, one.to_arrow_dtype()) for name, one in fields]))

    @classmethod
    def map(cls, key_type: DataType, value_type: DataType) -> DataType:
        return cls(pa.map_(key_type.to_arrow_dtype(), value_type.to_arrow_dtype()))

    @classmethod
    def tensor(cls, shape: Sequence[int], dtype: DataType) -> DataType:
        """Of tensors of this shape."""
        return cls(pa.fixed_shape_tensor(dtype.to_arrow_dtype(), [*shape]))

    @classmethod
    def variable_shaped_tensor(cls, dtype: DataType, ndim: int = 2) -> DataType:
        """Of tensors of several shapes, with so many axes."""
        return cls(tensors.RaggedTensorType(dtype.to_arrow_dtype(), ndim))

    @classmethod
    def temporal(cls, temporal_type: str, unit: str = "us", tz: str | None = None) -> DataType:
        """temporal_type: timestamp, date32, date64, time32, time64 or duration."""
        makers = {
            "timestamp": lambda: pa.timestamp(unit, tz),
            "date32": pa.date32,
            "date64": pa.date64,
            "time32": lambda: pa.time32(unit),
            "time64": lambda: pa.time64(unit),
            "duration": lambda: pa.duration(unit),
        }
        if temporal_type not in makers:
            raise ValueError(f"temporal_type must be one of {', '.join(makers)}, got {temporal_type!r}")
        return cls(makers[temporal_type]())

    # ---- as others write it ----

    def to_arrow_dtype(self, values: Sequence[Any] | None = None) -> pa.DataType:
        """values: by which the type is found for a class of Python's that says too little, such as list."""
        if self.is_python_type() and values:
            return inference.from_values([*values], name="value").type
        return datatypes.to_arrow(self._physical_dtype)

    def to_numpy_dtype(self) -> np.dtype[Any]:
        """That of objects where NumPy has no type for it."""
        if isinstance(self._physical_dtype, np.dtype):
            return self._physical_dtype
        try:
            return np.dtype(self.to_arrow_dtype().to_pandas_dtype())
        except (TypeError, NotImplementedError):
            return np.dtype(object)

    def to_python_type(self) -> type:
        """Raises ValueError if it is not one of Python's."""
        if not isinstance(self._physical_dtype, type):
            raise ValueError(f"{self!r} is not a class of Python's; use to_arrow_dtype() or to_numpy_dtype()")
        return self._physical_dtype

    # ---- what it is ----

    def is_arrow_type(self) -> builtins.bool:
        return isinstance(self._physical_dtype, pa.DataType)

    def is_numpy_type(self) -> builtins.bool:
        return isinstance(self._physical_dtype, np.dtype)

    def is_python_type(self) -> builtins.bool:
        return isinstance(self._physical_dtype, type)

    def is_of(self, category: TypeCategory | str) -> builtins.bool:
        kind = TypeCategory(category)
        return {
            TypeCategory.LIST: self.is_list_type,
            TypeCategory.LARGE_LIST: lambda: self._is(pa.types.is_large_list),
            TypeCategory.STRUCT: self.is_struct_type,
            TypeCategory.MAP: self.is_map_type,
            TypeCategory.TENSOR: self.is_tensor_type,
            TypeCategory.TEMPORAL: self.is_temporal_type,
        }[kind]()

    def is_list_type(self) -> builtins.bool:
        types = pa.types
        return self._physical_dtype is list or self._is(types.is_list, types.is_large_list, types.is_fixed_size_list)

    def is_tensor_type(self) -> builtins.bool:
        return self._is(tensors.is_tensor)

    def is_struct_type(self) -> builtins.bool:
        return self._physical_dtype is dict or self._is(pa.types.is_struct)

    def is_map_type(self) -> builtins.bool:
        return self._is(pa.types.is_map)

    def is_nested_type(self) -> builtins.bool:
        return self._physical_dtype in (list, dict, tuple) or self._is(pa.types.is_nested)

    def is_temporal_type(self) -> builtins.bool:
        return self._is(pa.types.is_temporal)

    def is_integer_type(self) -> builtins.bool:
        return self._is(pa.types.is_integer)

    def is_uint64_type(self) -> builtins.bool:
        return self._is(pa.types.is_uint64)

    def is_floating_type(self) -> builtins.bool:
        return self._is(pa.types.is_floating)

    def is_numerical_type(self) -> builtins.bool:
        return self._is(pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)

    def is_boolean_type(self) -> builtins.bool:
        return self._is(pa.types.is_boolean)

    def is_string_type(self) -> builtins.bool:
        return self._is(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)

    def is_binary_type(self) -> builtins.bool:
        return self._is(
            pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary
        )

    def is_null_type(self) -> builtins.bool:
        return self._is(pa.types.is_null)

    def _is(self, *are: Any) -> builtins.bool:
        try:
            arrow_type = self.to_arrow_dtype()
        except TypeError:  # a class that is no type of values
            return False
        return any(is_one(arrow_type) for is_one in are)

    # ---- by name; last, since they hide Python's names within the class ----

    @classmethod
    def int8(cls) -> DataType:
        return cls(pa.int8())

    @classmethod
    def int16(cls) -> DataType:
        return cls(pa.int16())

    @classmethod
    def int32(cls) -> DataType:
        return cls(pa.int32())

    @classmethod
    def int64(cls) -> DataType:
        return cls(pa.int64())

    @classmethod
    def uint8(cls) -> DataType:
        return cls(pa.uint8())

    @classmethod
    def uint16(cls) -> DataType:
        return cls(pa.uint16())

    @classmethod
    def uint32(cls) -> DataType:
        return cls(pa.uint32())

    @classmethod
    def uint64(cls) -> DataType:
        return cls(pa.uint64())

    @classmethod
    def float32(cls) -> DataType:
        return cls(pa.float32())

    @classmethod
    def float64(cls) -> DataType:
        return cls(pa.float64())

    @classmethod
    def string(cls) -> DataType:
        return cls(pa.string())

    @classmethod
    def binary(cls) -> DataType:
        return cls(pa.binary())

    @classmethod
    def bool(cls) -> DataType:
        return cls(pa.bool_())
