"""The files that values are copied from and into, between nodes.

A copy is a segment of the daemon's own. Fresh pages are filled without mapping them, by `splice` where there is no TLS, which
spares the kernel from clearing what is about to be written; and none is allocated before its bytes have come, so that to begin
costs nothing. A file that is written over, once nobody looks at it any more, is mapped, and received into as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import mmap
import os
import socket
from collections.abc import Callable
from typing import Any

from umbel._agent import moving, spill_ledger
from umbel._objects import segments
from umbel._transport.connection import Stream

PIPE_BYTES = 1 << 20  # the most that Linux gives an ordinary user
POPULATE_BYTES = 8 << 20  # mapped at once, with the first bytes of a chunk: a millisecond, once for each file
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of Linux
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, since Linux 5.14

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


class Pipe:
    """Through which pages go from a socket into a file, without being looked at. Empty between calls."""

    def __init__(self) -> None:
        self._read, self._write = (OpenFile(one) for one in os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        with contextlib.suppress(OSError):  # the user has too many large ones
            fcntl.fcntl(self._write.fileno(), _SET_PIPE_SIZE, PIPE_BYTES)

    def take(self, sock: socket.socket, size_max: int) -> int:
        return os.splice(sock.fileno(), self._write.fileno(), size_max, flags=os.SPLICE_F_NONBLOCK)

    def put(self, descriptor: int, offset: int, size_bytes: int) -> None:
        while size_bytes:
            done = os.splice(self._read.fileno(), descriptor, size_bytes, offset_dst=offset)
            size_bytes -= done
            offset += done

    def empty(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read.fileno(), PIPE_BYTES):
                pass


class Copy:
    """A value of another node, to be written here."""

    __slots__ = ("_failed", "_mapping", "_path", "_pipe", "_view", "file", "name", "offset")

    def __init__(self, path: str, size_bytes: int, failed: Callable[[OSError], None], pipe: Pipe | None) -> None:
        """failed: is called once if the system has no room. pipe: None where the system cannot splice."""
        self.name = os.path.basename(path)
        self.offset = 0
        self._path = path
        self._pipe = pipe
        self._failed: Callable[[OSError], None] | None = failed
        self._mapping: mmap.mmap | None = None
        self._view = memoryview(b"")
        self.file = OpenFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        os.ftruncate(self.file.fileno(), segments.page_bytes(size_bytes))
        if not size_bytes:  # the others are filled to the last page
            segments.write(self.file.fileno(), 0, memoryview(bytes(segments.PAGE_BYTES)))

    def begin(self, size_bytes: int, failed: Callable[[OSError], None]) -> None:
        """Another value of about the same size is to be written over it. All its pages are there."""
        self._failed = failed
        if self._mapping is None:
            with contextlib.suppress(OSError, ValueError):  # no more can be mapped: it is written like a new one
                self._mapping = mmap.mmap(self.file.fileno(), os.fstat(self.file.fileno()).st_size)
                self._view = memoryview(self._mapping)

    def receive(self, stream: Stream, offset: int, size_max: int) -> int:
        if isinstance(stream, socket.socket) and self._mapping is not None:
            if offset % POPULATE_BYTES == 0:
                with contextlib.suppress(OSError):  # an older system maps pages one by one
                    self._mapping.madvise(_POPULATE_WRITE, offset, min(POPULATE_BYTES, len(self._mapping) - offset))
            return stream.recv_into(self._view[offset : offset + size_max])
        if isinstance(stream, socket.socket) and self._pipe is not None:
            received = self._pipe.take(stream, size_max)
            if not self._has_written(self._pipe.put, offset, received):
                self._pipe.empty()
            return received
        data = memoryview(stream.recv(size_max))
        self._has_written(segments.write, offset, data)
        return len(data)

    def _has_written(self, write: Callable[[int, int, Any], None], offset: int, what: object) -> bool:
        try:
            write(self.file.fileno(), offset, what)
        except OSError as error:
            failed, self._failed = self._failed, None
            if failed is not None:
                failed(error)
            return False
        return True

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
        self._pipe = Pipe() if hasattr(os, "splice") else None

    def open_original(self, segment: str, size_bytes: int) -> Original | None:
        """None: it is not here, or is not of that size. Raises ValueError for what is no segment's name, NotToBeGiven."""
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
        if location is None or location.size_bytes != size_bytes:
            return None
        if "://" in location.file:  # a process with the user's libraries has to read it back first
            raise moving.NotToBeGiven(f"it was moved to {location.file}, from where values are not sent to other nodes")
        try:
            file = OpenFile(os.open(location.file, os.O_RDONLY))
        except FileNotFoundError:
            return None
        return Original(file, location.offset, is_segment=False)

    def create(self, size_bytes: int, failed: Callable[[OSError], None]) -> Copy:
        """Raises OSError."""
        name = segments.name_of(self._process_id, self._process_id, next(self._numbers))
        return Copy(f"{self._directory}/{name}", size_bytes, failed, self._pipe)
