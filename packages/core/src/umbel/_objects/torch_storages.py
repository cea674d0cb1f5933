"""PyTorch's tensors as buffers beside the pickle: their memory is copied once into the store, and once out of it.

PyTorch itself pickles a storage as the bytes of a file that holds it, several copies and some 0.2 ms for each. Whoever reads a
tensor gets memory of his own all the same: PyTorch has no read-only tensors, and writing to memory of the store is a crash.
Tensors that share memory do so again where they are read.
"""

from __future__ import annotations

import ctypes
import pickle
from typing import Any

from umbel._objects import segments


def reduced(storage: Any) -> tuple[Any, ...] | None:
    """What `__reduce__` would return of a torch.TypedStorage or torch.UntypedStorage; None to leave it to PyTorch, which it is
    to if it is another kind or not in main memory."""
    import torch

    if type(storage) is torch.UntypedStorage and storage.device.type == "cpu":
        return _untyped, (_buffer_of(storage),)
    if type(storage) is torch.TypedStorage and storage._untyped_storage.device.type == "cpu":
        return _typed, (storage._untyped_storage, storage.dtype)
    return None


def _buffer_of(storage: Any) -> pickle.PickleBuffer | bytes:
    size_bytes = storage.nbytes()
    if not size_bytes:
        return b""
    memory = (ctypes.c_ubyte * size_bytes).from_address(storage.data_ptr())
    memory.owner = storage  # what the memory belongs to
    return pickle.PickleBuffer(memory)


def _untyped(buffer: Any) -> Any:
    """A torch.UntypedStorage with a copy of these bytes."""
    import torch

    source = memoryview(buffer).cast("B")
    storage = torch.UntypedStorage(source.nbytes)
    if source.nbytes:
        target = (ctypes.c_ubyte * source.nbytes).from_address(storage.data_ptr())
        segments.copy(memoryview(target).cast("B"), 0, source)
    return storage


def _typed(storage: Any, dtype: Any) -> Any:
    import torch

    return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)
