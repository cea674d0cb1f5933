"""The identities of things: objects, tasks, actors, processes, nodes.

Every kind is a type of its own, so that a task's id never passes for an object's: two ids are equal only when both
their type and their bytes are. The nil id of a kind (all bytes 0xff) stands for "none" where a field cannot be empty.

Who made a thing, and on which node, can be read from its id. A WorkerID has the beginning of its node's in it, see
`_base.nodes`. A TaskID or ActorID is the WorkerID of the process that created it and a counter of that process; an ObjectID is
the TaskID of the task that returns it (a `put` counts as a task) and an index among the returns. Nothing has to be asked or
generated at random on the hot path.
"""

from __future__ import annotations

import builtins
import os
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

_COUNTER_BYTES = 8  # a process that makes a million ids a second needs 584,000 years to use them up
_INDEX_BYTES = 4  # a streaming generator may yield four billion objects


class BaseID:
    """An immutable identity of a fixed number of bytes; see `size()`."""

    __slots__ = ("_binary",)

    SIZE: ClassVar[int] = 0
    _NIL: ClassVar[bytes] = b""

    _binary: bytes

    def __init_subclass__(cls, *, size_bytes: int | None = None) -> None:
        super().__init_subclass__()
        if size_bytes is not None:
            cls.SIZE = size_bytes
            cls._NIL = b"\xff" * size_bytes

    def __init__(self, binary: bytes) -> None:
        if type(binary) is not bytes or len(binary) != self.SIZE:
            raise _bad_binary(type(self), binary)
        self._binary = binary

    @classmethod
    def size(cls) -> int:
        """The number of bytes of every id of this kind."""
        return cls.SIZE

    @classmethod
    def from_binary(cls, binary: bytes) -> Self:
        """The same as calling the class."""
        return cls(binary)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """The id that `hex()` wrote. Raises ValueError when the text is not hexadecimal or not as long as this
        kind is."""
        try:
            binary = bytes.fromhex(text)
        except (TypeError, ValueError):
            raise ValueError(
                f"the hex form of {cls.__name__} must be {2 * cls.SIZE} hexadecimal digits, got {text!r}; "
                "pass what .hex() returned"
            ) from None
        return cls(binary)

    @classmethod
    def from_random(cls) -> Self:
        """An id that no other process has, from the system's source of randomness."""
        return cls(os.urandom(cls.SIZE))

    @classmethod
    def nil(cls) -> Self:
        """The id that stands for none."""
        return cls(cls._NIL)

    def binary(self) -> bytes:
        return self._binary

    def hex(self) -> str:
        return self._binary.hex()

    def is_nil(self) -> bool:
        return self._binary == self._NIL

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._binary == self._binary

    def __hash__(self) -> int:
        return hash(self._binary)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._binary.hex()})"

    def __reduce__(self) -> tuple[type[BaseID], tuple[bytes]]:
        return type(self), (self._binary,)


class UniqueID(BaseID, size_bytes=28):
    """An id of no particular kind."""

    __slots__ = ()


class JobID(BaseID, size_bytes=4):
    """A driver's connection to a cluster."""

    __slots__ = ()

    @classmethod
    def from_int(cls, number: builtins.int) -> JobID:
        """The id of the cluster's `number`-th job, 0 <= number < 2**32 - 1."""
        return cls(number.to_bytes(4, "little"))

    def to_int(self) -> builtins.int:
        return builtins.int.from_bytes(self._binary, "little")

    def int(self) -> builtins.int:
        """As `to_int`."""
        return self.to_int()


class NodeID(BaseID, size_bytes=28):
    """One run of a node's daemon. A machine that comes back gets a new one."""

    __slots__ = ()


class WorkerID(BaseID, size_bytes=16):
    """One process that can own objects: a worker or a driver."""

    __slots__ = ()


class OwnedID(BaseID):
    """An id made of the process that created the thing and a counter of that process."""

    __slots__ = ()

    @classmethod
    def of(cls, owner: WorkerID, counter: int) -> Self:
        """The `counter`-th thing of this kind that `owner` made, 0 <= counter < 2**64."""
        return cls(owner._binary + counter.to_bytes(_COUNTER_BYTES, "big"))

    def owner(self) -> WorkerID:
        return WorkerID(self._binary[: WorkerID.SIZE])

    def counter(self) -> int:
        return int.from_bytes(self._binary[WorkerID.SIZE :], "big")


class TaskID(OwnedID, size_bytes=WorkerID.SIZE + _COUNTER_BYTES):
    """A submitted task or actor call, or a `put`. A retry keeps it."""

    __slots__ = ()


class ActorID(OwnedID, size_bytes=WorkerID.SIZE + _COUNTER_BYTES):
    """An actor. A restart keeps it."""

    __slots__ = ()


class ObjectID(BaseID, size_bytes=TaskID.SIZE + _INDEX_BYTES):
    """An object: one of the returns of a task."""

    __slots__ = ()

    @classmethod
    def of(cls, task: TaskID, index: int) -> ObjectID:
        """The return `index` of `task`, 0 <= index < 2**32; a retry of the task yields the same."""
        return cls(task._binary + index.to_bytes(_INDEX_BYTES, "big"))

    def owner(self) -> WorkerID:
        return WorkerID(self._binary[: WorkerID.SIZE])

    def task_id(self) -> TaskID:
        return TaskID(self._binary[: TaskID.SIZE])

    def index(self) -> int:
        return int.from_bytes(self._binary[TaskID.SIZE :], "big")


class PlacementGroupID(BaseID, size_bytes=18):
    """A placement group."""

    __slots__ = ()


class ClusterID(BaseID, size_bytes=28):
    """One life of a cluster's control store."""

    __slots__ = ()


class FunctionID(BaseID, size_bytes=28):
    """A remote function as exported: its content, not its name."""

    __slots__ = ()


class ActorClassID(BaseID, size_bytes=28):
    """An actor class as exported: its content, not its name."""

    __slots__ = ()


def _bad_binary(kind: type[BaseID], binary: object) -> ValueError:
    got = f"{len(binary)} bytes" if isinstance(binary, bytes) else f"{binary!r} of type {type(binary).__name__}"
    return ValueError(
        f"{kind.__name__} must be {kind.SIZE} bytes, got {got}; use {kind.__name__}.from_hex for text "
        f"and {kind.__name__}.from_random for a new one"
    )
