"""Tensors of several libraries as numpy arrays that share their memory.

numpy arrays, PyTorch's tensors in main memory, and whatever has the buffer protocol. Only contiguous ones: an operation
works in place.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from umbel import exceptions

_REDUCIBLE_KINDS = "biufc"  # numpy's letters: booleans, integers, floating-point and complex numbers


@functools.cache
def numpy() -> Any:
    try:
        import numpy as found
    except ImportError as error:
        raise exceptions.PluginError(
            'the backend "shm" needs numpy, which is not installed; run: pip install numpy', plugin="shm"
        ) from error
    return found


def flat(tensor: Any, *, is_written: bool = False) -> Any:
    """The elements of a tensor as a one-dimensional array on the same memory.

    Raises TypeError for what is no tensor, ValueError for one that cannot be used in place.
    """
    np = numpy()
    array = tensor if type(tensor) is np.ndarray else _array_of(tensor)
    if not array.flags.c_contiguous:
        raise ValueError(
            f"a tensor must be contiguous in memory, got one of shape {array.shape} with strides {array.strides}; "
            "pass a contiguous copy, as of numpy.ascontiguousarray(x) or x.contiguous()"
        )
    if is_written and not array.flags.writeable:
        raise ValueError(
            f"the result is written into the tensor, and this one, of shape {array.shape}, is read-only, as arrays from "
            "umbel.get() are; pass a copy: x.copy()"
        )
    if array.dtype.hasobject:
        raise TypeError(f"a tensor has numbers as elements, got dtype {array.dtype}")
    return array.reshape(-1)


def describe(tensor: Any) -> str:
    """Its type and shape, in words; the same for equal ones of all libraries."""
    np = numpy()
    array = tensor if type(tensor) is np.ndarray else _array_of(tensor)
    return f"{_name_of(array.dtype)} {array.shape}"


def shape_of(tensor: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = _array_of(tensor).shape
    return shape


def check_reducible(array: Any) -> None:
    if array.dtype.kind not in _REDUCIBLE_KINDS:
        raise TypeError(f"elements of type {array.dtype} cannot be reduced; convert them to a type of numbers")


@functools.lru_cache(maxsize=64)
def _name_of(dtype: Any) -> str:
    return str(dtype)


def _array_of(tensor: Any) -> Any:
    np = numpy()
    if isinstance(tensor, np.ndarray):
        return tensor.view(np.ndarray)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tensor, torch.Tensor):
        return _array_of_torch(tensor)
    if not isinstance(tensor, (list, tuple, str, bytes)):
        try:
            return np.asarray(memoryview(tensor))
        except (TypeError, ValueError):
            pass  # it has no buffer; said below
    raise TypeError(
        f"a tensor must be a numpy array, a torch.Tensor, or a writable buffer of numbers, got {type(tensor).__name__}"
    )


def _array_of_torch(tensor: Any) -> Any:
    if tensor.device.type != "cpu":
        raise ValueError(
            f'the backend "shm" takes tensors in main memory, got one on {tensor.device}; pass tensor.cpu(), or use a '
            "plugin's backend for that device"
        )
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f'a tensor of {tensor.dtype} cannot be read through numpy ({error}); use the backend "gloo", or another type'
        ) from error
