"""What both sides of moving values between nodes work with: links, originals, copies, chunks, and what the daemon does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

CHUNK_COUNT_MAX = 1 << 24  # of one value: with chunks of 8 MiB, 128 TiB

Message = dict[str, Any]


class NotToBeGiven(Exception):
    """A value is here, and cannot be sent as it is."""


class Link(Protocol):
    """A connection to another node, as `umbel._transport.bulk` has them."""

    def send(self, message: Message) -> None: ...

    def send_body(self, message: Message, file: Any, offset: int, size_bytes: int) -> None: ...

    def throw_away(self) -> None: ...

    def close(self) -> None: ...


class Original(Protocol):
    """A value of a process of this node. `offset` is where it begins in the file."""

    file: Any
    offset: int
    generation: str

    def holds(self) -> bool: ...


class Copy(Protocol):
    """A value of another node, here. Also what its chunks are written to."""

    file: Any
    offset: int
    name: str

    def receive(self, stream: Any, offset: int, size_max: int) -> int: ...

    def begin(self, size_bytes: int, failed: Callable[[OSError], None]) -> None:
        """Another value is to be written over the one that was here."""

    def remove(self) -> None: ...


class Surroundings(Protocol):
    """What the mover needs of the daemon."""

    def now_s(self) -> float: ...

    def dial(self, node: str, address: str) -> None:
        """Answered by `connected` or `not_connected`."""

    def open_original(self, segment: str, size_bytes: int) -> Original | None:
        """Raises NotToBeGiven."""

    def create(self, size_bytes: int, failed: Callable[[OSError], None]) -> Copy: ...

    def reserve(self, size_bytes: int) -> None:
        """Answered by `room_granted` or `room_refused`."""

    def release(self, size_bytes: int) -> None: ...

    def delivered(self, asker: str, object_id: str, segment: str, size_bytes: int) -> None: ...

    def failed(self, asker: str, object_id: str, code: str, text: str) -> None: ...

    def ask_owner(self, object_id: str) -> None:
        """Of a node where that is wanted: which nodes have copies. Answered by `owner_told`, or not at all."""

    def who_has(self, object_id: str, node: str, address: str) -> None:
        """That node asks so."""

    def left(self, owner: str, names: list[str]) -> None:
        """Another node has these values, made for `owner`, who is of this one. See `left_values`."""

    def needless(self, names: list[str]) -> None:
        """Owners of another node do not need these, if they are here and their makers are not."""


def chunk_count(size_bytes: int, chunk_bytes: int) -> int:
    return max(1, -(-size_bytes // chunk_bytes))


def bytes_of(size_bytes: int, chunk: int, chunk_bytes: int) -> int:
    """Of one chunk of a value of this size."""
    return min(chunk_bytes, size_bytes - chunk * chunk_bytes)


# ---- what others say ----


def text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text was expected, got {value!r:.50}")
    return value


def count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= CHUNK_COUNT_MAX << 32:
        raise TypeError(f"a number >= 0 was expected, got {value!r:.50}")
    return value
