"""Numbers between NumPy and Arrow, in one memory.

PyArrow does the same, but loads pandas, where that is installed, with the first array that it converts: 150 ms and 40 MB of each
process that has no other use for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def to_arrow(array: np.ndarray[Any, Any]) -> pa.Array:
    """array: [row], of integers or floats. A copy if it is not contiguous, or of the other byte order."""
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return pa.Array.from_buffers(pa.from_numpy_dtype(native.dtype), len(native), [None, pa.py_buffer(native)])


def holds(column: pa.Array) -> bool:
    """Whether `to_numpy` takes the column: of integers or floats, none of them null."""
    return not column.null_count and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type))


def to_numpy(column: pa.Array) -> np.ndarray[Any, Any]:
    """[row]. Cannot be written to."""
    dtype = np.dtype(column.type.to_pandas_dtype())
    data = column.buffers()[1] if len(column) else b""
    array: np.ndarray[Any, Any] = np.frombuffer(data, dtype, len(column), column.offset * dtype.itemsize if data else 0)
    array.flags.writeable = False
    return array
