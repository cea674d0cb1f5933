"""What transports need to know of PyTorch's tensors."""

from __future__ import annotations

import ctypes
import sys
from typing import Any


def is_plain(value: Any) -> bool:
    """Whether it is a tensor in main memory whose elements lie there as such. Imports nothing: without PyTorch there is
    none."""
    torch = sys.modules.get("torch")
    return (
        torch is not None
        and type(value) is torch.Tensor
        and value.device.type == "cpu"
        and value.layout is torch.strided
        and not value.is_quantized
    )


def contiguous(tensor: Any) -> Any:
    """Its elements one after another, without gradient: the tensor's own memory where they lie so, else a copy."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous()


def memory(tensor: Any) -> memoryview:
    """The bytes of a contiguous tensor, in place and writable."""
    found = (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())
    found.owner = tensor  # what the memory belongs to
    return memoryview(found).cast("B")
