"""A node's shared memory without memory that is shared: the interface of `umbel._objects.store`, for many processes."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from typing import Any

from umbel import exceptions
from umbel._objects import segments

TRAILING_BYTES = 16  # views are slices; a segment is never empty


class Memory:
    """The segments of one node, by name."""

    def __init__(self) -> None:
        self.segments: dict[str, bytearray] = {}
        self.object_of: dict[str, bytes] = {}  # segment -> the object whose value it was read as
        self.lost: set[str] = set()
        self.views: Counter[tuple[str, str]] = Counter()  # (viewing process, segment) -> live views

    def lose(self, name: str) -> None:
        """A segment is gone; what its creator does with it from now on is in vain."""
        del self.segments[name]
        self.lost.add(name)


class _Segment:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Lease:
    """Ends when the last buffer over a segment does, which it is attached to."""

    __slots__ = ("_on_release", "_place", "_views")

    def __init__(
        self, views: Counter[tuple[str, str]], place: tuple[str, str], on_release: Callable[[], None] | None
    ) -> None:
        self._views = views
        self._place = place
        self._on_release = on_release
        views[place] += 1

    def __del__(self) -> None:
        self._views[self._place] -= 1
        if self._on_release is not None:
            self._on_release()


class _View:
    __slots__ = ("buffer",)

    def __init__(self, buffer: memoryview) -> None:
        self.buffer = buffer


class SimulatedStore:
    """One process's part."""

    def __init__(self, memory: Memory, process_id: str) -> None:
        self.memory = memory
        self._process_id = process_id
        self._count = 0

    def create(self, size_bytes: int, owner: str) -> _Segment:
        self._count += 1
        name = segments.name_of(self._process_id, owner, self._count)
        self.memory.segments[name] = bytearray(size_bytes + TRAILING_BYTES)
        return _Segment(name)

    def write(self, segment: _Segment, offset: int, data: Any) -> None:
        source = memoryview(data).cast("B")
        self.memory.segments[segment.name][offset : offset + source.nbytes] = source

    def seal(self, segment: _Segment) -> None:
        """Nothing to do: nobody reads what nobody knows of."""

    def open(self, name: str, size_bytes: int, on_release: Callable[[], None] | None = None) -> _View:
        data = self.memory.segments.get(name)
        if data is None:
            raise exceptions.ObjectLostError(f"the shared memory of this object is gone (segment {name})")
        array: Any = (ctypes.c_char * size_bytes).from_buffer_copy(data)
        array.lease = _Lease(self.memory.views, (self._process_id, name), on_release)
        return _View(memoryview(array).cast("B").toreadonly())

    def free(self, name: str) -> None:
        creator, _, _ = segments.parts_of(name)
        if name in self.memory.lost:
            self.memory.lost.discard(name)
            return
        if creator != self._process_id or name not in self.memory.segments:
            raise exceptions.InternalError("a segment was freed twice, or by another than its creator", segment=name)
        del self.memory.segments[name]

    def unlink(self, name: str) -> int:
        return len(self.memory.segments.pop(name, b""))

    def orphans_of(self, process_id: str) -> list[str]:
        for name in list(self.memory.segments):
            if name.startswith(self._process_id) and segments.parts_of(name)[1] == process_id:
                self.free(name)
        start = f"{process_id}.{self._process_id}."
        return [name for name in self.memory.segments if name.startswith(start)]

    def trim(self, now_s: float | None = None) -> int:
        return 0

    def trim_due_s(self, now_s: float) -> float | None:
        return None

    def trim_all(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing to do: its process has died."""
