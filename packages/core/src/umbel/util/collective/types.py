"""The names of backends and reductions."""

from __future__ import annotations

import enum
from typing import Final


class Backend(str):
    """The name of a backend: `Backend.SHM`, `Backend.GLOO`, or that of a plugin, in upper or lower case."""

    SHM: Final = "SHM"
    GLOO: Final = "GLOO"
    NCCL: Final = "NCCL"  # no backend of this name comes with Umbel; a plugin may bring one
    UNRECOGNIZED: Final = "unrecognized"

    __slots__ = ()

    def __new__(cls, name: str) -> Backend:
        if not isinstance(name, str) or not name:
            raise ValueError(f"a backend is a name such as 'shm' or 'gloo', got {name!r}")
        upper = name.upper()
        return super().__new__(cls, cls.GLOO if upper == "TORCH_GLOO" else upper)


class ReduceOp(enum.Enum):
    """How tensors are combined, element by element."""

    SUM = 0
    PRODUCT = 1
    MIN = 2
    MAX = 3
