"""The transport of one machine: a file in memory without a name, which the taker maps. Small tensors travel whole.

Tensors are copied once, when the first of those who want them comes; the file stays with the holder for the next ones.
A taker gets a mapping of its own (copy on write), so it copies what it changes and nothing else, and changes nobody
else's. A file is gone with the last process that has it, however that ends.
"""

from __future__ import annotations

import math
import mmap
import os
import pickle
import sys
import threading
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from umbel import exceptions, spi
from umbel._client.tensors import torch_tensors

ALIGNMENT_BYTES = 64  # a cache line: vector instructions may work in place
INLINE_BYTES_MAX = 64 << 10  # in all of one value: copying them costs less than a file, and needs no descriptor


class _Place(NamedTuple):
    """Where one tensor lies in the file, and what it is. order: of its elements in memory, as numpy calls it."""

    library: str
    dtype: Any
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    needs_gradient: bool
    offset_bytes: int


class _File:
    """A descriptor of memory without a name, closed with the last reference to this."""

    def __init__(self, size_bytes: int) -> None:
        self.descriptor = -1
        self.descriptor = os.memfd_create("umbel-tensors")
        os.ftruncate(self.descriptor, size_bytes)

    def write(self, data: memoryview, offset_bytes: int) -> None:
        """Not by a mapping: its pages would be cleared first and come one by one, which takes twice as long."""
        while data:
            written = os.pwrite(self.descriptor, data, offset_bytes)  # 2 GiB at most
            data, offset_bytes = data[written:], offset_bytes + written

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


class SharedMemoryTransport:
    """See `spi.TensorTransport`."""

    def is_tensor(self, value: Any) -> bool:
        np = sys.modules.get("numpy")
        if np is not None and type(value) is np.ndarray:
            return not value.dtype.hasobject
        return torch_tensors.is_plain(value)

    def hold(self, tensors: Sequence[Any]) -> spi.HeldTensors:
        if not hasattr(os, "memfd_create"):
            raise exceptions.UnsupportedFeature('tensor_transport="shm" needs Linux (memfd_create); leave it out')
        return _Held(tensors)

    def take(self, line: spi.TensorLine) -> list[Any]:
        data, descriptors = line.receive()
        size_bytes, places, content = pickle.loads(data)
        memory: mmap.mmap | bytearray = content
        for descriptor in descriptors:  # one at most
            try:
                memory = mmap.mmap(descriptor, size_bytes, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
            finally:
                os.close(descriptor)
        return [_tensor_at(memory, place) for place in places]


class _Held:
    """See `spi.HeldTensors`."""

    def __init__(self, tensors: Sequence[Any]) -> None:
        self._tensors = tensors
        self._lock = threading.Lock()
        self._copied: tuple[bytes, _File | None] | None = None

    def give(self, line: spi.TensorLine) -> None:
        with self._lock:  # two who come at the same time share one copy
            if self._copied is None:
                self._copied = _copied(self._tensors)
            data, file = self._copied
        line.send(data, [] if file is None else [file.descriptor])


def _copied(tensors: Sequence[Any]) -> tuple[bytes, _File | None]:
    """What to tell takers, and the file to send along, unless that has it all."""
    places, end = [], 0
    for tensor in tensors:
        places.append(_place_of(tensor, end))
        end += -(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    content, file = bytearray(), None
    if end <= INLINE_BYTES_MAX:
        content = bytearray(end)
    else:
        file = _File(end)
    for tensor, place in zip(tensors, places, strict=True):
        if not tensor.nbytes:
            continue
        data, start = _bytes_of(tensor, place), place.offset_bytes
        if file is None:
            content[start : start + len(data)] = data
        else:
            file.write(data, start)
    return pickle.dumps((end, places, content)), file


def _place_of(tensor: Any, offset_bytes: int) -> _Place:
    if hasattr(tensor, "requires_grad"):
        return _Place("torch", tensor.dtype, tuple(tensor.shape), "C", tensor.requires_grad, offset_bytes)
    order: Literal["C", "F"] = "F" if tensor.flags.f_contiguous and not tensor.flags.c_contiguous else "C"
    return _Place("numpy", tensor.dtype, tensor.shape, order, False, offset_bytes)


def _bytes_of(tensor: Any, place: _Place) -> memoryview:
    """Of its elements one after another; of itself where they lie so."""
    if place.library == "torch":
        return torch_tensors.memory(torch_tensors.contiguous(tensor))
    import numpy as np

    flat = np.ascontiguousarray(tensor if place.order == "C" else tensor.T).reshape(-1)
    return memoryview(flat.view(np.uint8))


def _tensor_at(memory: mmap.mmap | bytearray, place: _Place) -> Any:
    if place.library == "numpy":
        import numpy as np

        return np.ndarray(place.shape, place.dtype, memory, place.offset_bytes, order=place.order)
    import torch

    count = math.prod(place.shape)
    if not count:
        tensor = torch.empty(place.shape, dtype=place.dtype)
    else:
        flat = torch.frombuffer(memory, dtype=place.dtype, count=count, offset=place.offset_bytes)
        tensor = flat.reshape(place.shape)
    return tensor.requires_grad_() if place.needs_gradient else tensor
