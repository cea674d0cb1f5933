"""The files that values are copied from and into, between nodes.

A copy is a segment of the daemon's own, which it never reuses: its pages are gone when nobody has it open or mapped any more.
It is written as the store writes fresh pages, without mapping them, which spares the kernel from clearing what is about to
be filled; and no page is allocated before its bytes have come, so that to begin costs nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable

from umbel._agent import spill_ledger
from umbel._objects import segments

Locate = Callable[[str], "spill_ledger.Location | None"]


class OpenFile:
    """A descriptor, open as long as this object lives."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        return self._descriptor

    def __del__(self, _close: Callable[[int], None] = os.close) -> None:
        _close(self._descriptor)


class Original:
    """A value of a process of this node, to be read by others. offset: where it begins in the file."""

    __slots__ = ("_changed_ns", "file", "generation", "offset")

    def __init__(self, file: OpenFile, offset: int, *, is_segment: bool) -> None:
        self.file = file
        self.offset = offset
        self._changed_ns = segments.generation(file.fileno()) if is_segment else None  # a file on disk never changes
        self.generation = f"{os.fstat(file.fileno()).st_ino}.{offset if self._changed_ns is None else self._changed_ns}"

    def holds(self) -> bool:
        """Whether all that was read so far was this value."""
        return self._changed_ns is None or segments.generation(self.file.fileno()) == self._changed_ns


class Copy:
    """A value of another node, to be written here. failed: called once with what the system said."""

    __slots__ = ("_failed", "_path", "file", "name", "offset", "size_bytes")

    def __init__(self, path: str, size_bytes: int, failed: Callable[[OSError], None]) -> None:
        self.name = os.path.basename(path)
        self.size_bytes = size_bytes
        self.offset = 0
        self._path = path
        self._failed: Callable[[OSError], None] | None = failed
        self.file = OpenFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        os.ftruncate(self.file.fileno(), segments.page_bytes(size_bytes))

    def write(self, offset: int, data: memoryview) -> None:
        try:
            segments.write(self.file.fileno(), offset, data)
        except OSError as error:
            failed, self._failed = self._failed, None
            if failed is not None:
                failed(error)

    def remove(self) -> None:
        """Whoever has it open or mapped goes on reading it."""
        with contextlib.suppress(OSError):  # the session's end has removed it
            os.unlink(self._path)


class ValueFiles:
    """The originals and copies of one node."""

    def __init__(self, directory: str, process_id: str, locate: Locate) -> None:
        """process_id: the daemon's, which names its segments. locate: where a value lies on disk."""
        self._directory = directory
        self._process_id = process_id
        self._locate = locate
        self._numbers = itertools.count(1)

    def open_original(self, segment: str, size_bytes: int) -> Original | None:
        """None: it is not here, or is not of that size. Raises ValueError for what is no segment's name."""
        segments.parts_of(segment)
        try:
            file = OpenFile(os.open(f"{self._directory}/{segment}", os.O_RDONLY))
        except FileNotFoundError:
            return self._open_on_disk(segment, size_bytes)
        file_bytes = os.fstat(file.fileno()).st_size
        if not segments.page_bytes(size_bytes) <= file_bytes <= segments.class_bytes(size_bytes):
            return None
        return Original(file, 0, is_segment=True)

    def _open_on_disk(self, segment: str, size_bytes: int) -> Original | None:
        location = self._locate(segment)
        if location is None or location.size_bytes != size_bytes or "://" in location.file:
            return None  # the last: a process with the user's libraries has to read it back first
        try:
            file = OpenFile(os.open(location.file, os.O_RDONLY))
        except FileNotFoundError:
            return None
        return Original(file, location.offset, is_segment=False)

    def create(self, size_bytes: int, failed: Callable[[OSError], None]) -> Copy:
        """Raises OSError."""
        name = segments.name_of(self._process_id, self._process_id, next(self._numbers))
        return Copy(f"{self._directory}/{name}", size_bytes, failed)
