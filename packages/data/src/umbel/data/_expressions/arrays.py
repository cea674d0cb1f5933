"""Small steps between Arrow's arrays and NumPy's, which functions are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types as at

from umbel.data._expressions.promotion import Value

EXACT_FLOAT_MAX: Final = 2**53  # every integer up to here is a float64


def exceeds_float64(integers: Value) -> bool:
    """Some may be none of float64's values."""
    if integers.type.bit_width < 64:
        return False
    bounds = pc.min_max(single(integers) if isinstance(integers, pa.Scalar) else integers).as_py()
    return any(bound is not None and abs(bound) > EXACT_FLOAT_MAX for bound in bounds.values())


def single(value: Value) -> pa.Array:
    """As one array; a scalar as an array of one."""
    if isinstance(value, pa.Scalar):
        return pa.repeat(value, 1)
    return contiguous(value)


def contiguous(value: Value) -> Value:
    """Not in chunks. Raises pa.ArrowInvalid for more than 2 GiB of strings whose offsets have 32 bits."""
    return value.combine_chunks() if isinstance(value, pa.ChunkedArray) else value


def repeated(scalar: pa.Scalar, count: int) -> pa.Array:
    if at.is_null(scalar.type):
        return pa.nulls(count)
    return pa.nulls(count, scalar.type) if not scalar.is_valid else pa.repeat(scalar, count)


def to_numpy(value: Value, *, fill: object) -> tuple[Any, Any]:
    """Numbers, with `fill` where there is none, and which those are, or None for none. A scalar is an array of one."""
    array = single(value)
    if array.null_count == 0:
        return array.to_numpy(zero_copy_only=False), None
    is_null = array.is_null().to_numpy(zero_copy_only=False)
    return pc.fill_null(array, pa.scalar(fill, array.type)).to_numpy(zero_copy_only=False), is_null


def from_numpy(values: Any, type_: pa.DataType, *is_null: Any) -> pa.Array:
    """The reverse: null where any of the masks says so. Masks may be of one row for all."""
    mask = None
    for one in is_null:
        if one is not None:
            mask = np.broadcast_to(one, values.shape) if mask is None else mask | one
    return pa.array(values, type_, mask=mask)


def is_valid(value: Value) -> Any:
    return single(value).is_valid().to_numpy(zero_copy_only=False)


def any_true(flags: Value) -> bool:
    if isinstance(flags, pa.Scalar):
        return bool(flags.as_py())
    return bool(pc.any(flags).as_py())


def all_true(flags: pa.Array | pa.ChunkedArray) -> bool:
    """None is null either."""
    return flags.null_count == 0 and bool(pc.all(flags, min_count=0).as_py())


def first_true(flags: Value) -> int | None:
    """The first row that is true."""
    if isinstance(flags, pa.Scalar):
        return 0 if flags.as_py() else None
    found = pc.index(flags, True).as_py()
    return None if found < 0 else found


def mapped(value: Value, function: Callable[[Any], Any], type_: pa.DataType) -> Value:
    """A Python function of each value, null for null. For what Arrow has no function, on few rows or short ones."""
    if isinstance(value, pa.Scalar):
        return pa.scalar(function(value.as_py()) if value.is_valid else None, type_)
    return pa.array([None if one is None else function(one) for one in value.to_pylist()], type_)
