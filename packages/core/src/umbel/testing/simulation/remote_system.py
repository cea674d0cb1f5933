"""What a simulated remote driver and its relay have instead of an operating system: sockets, descriptors, a poller, files.

A socket is one end of a pair, as `umbel._transport.connection.Stream`; one that goes over the network has bytes under way, which
are late, or lost when it is cut or has fallen silent.
"""

from __future__ import annotations

import errno
import posixpath
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from umbel._objects import segments
from umbel._transport import connection

ROOM_BYTES: Final = 160  # of a socket, for what nobody has read yet
NETWORK_ROOM_BYTES: Final = 1_000  # the same of one that goes over the network, with what is under way
IN, OUT, GONE = connection.IN, connection.OUT, connection.GONE
Handler = Callable[[int], None]


class Poller:
    """Of one thread; its sockets are looked at when the world says so."""

    def __init__(self) -> None:
        self.watched: dict[int, list[Any]] = {}  # by descriptor: events, handler

    def register(self, fd: int, events: int, handler: Handler) -> None:
        self.watched[fd] = [events, handler]

    def modify(self, fd: int, events: int) -> None:
        self.watched[fd][0] = events

    def unregister(self, fd: int) -> None:
        self.watched.pop(fd, None)

    def wake(self) -> None:
        """The world comes by often enough."""


class Process:
    """Who has sockets. All of them are closed when it dies, as the system does."""

    def __init__(self, system: System, name: str) -> None:
        self.system = system
        self.name = name
        self.is_dead = False
        self.sockets: dict[int, Socket] = {}
        self.poller = Poller()

    def ready(self, poller: Poller | None = None) -> list[tuple[int, int]]:
        """Descriptors of which something is to be told, and what."""
        found = []
        for fd, (events, _handler) in (poller or self.poller).watched.items():
            told = self.sockets[fd].readiness() & (events | GONE)
            if told:
                found.append((fd, told))
        return found

    def poll(self, poller: Poller | None = None, first: int = 0) -> int:
        """One round, as `connection.Poller.poll`; first: with which of those that are ready it begins."""
        watched = (poller or self.poller).watched
        found = self.ready(poller)
        for fd, told in found[first:] + found[:first]:
            if fd in watched:
                watched[fd][1](told)
        return len(found)

    def die(self) -> None:
        self.is_dead = True
        for socket in list(self.sockets.values()):
            socket.close()


class Socket:
    """One end."""

    def __init__(self, owner: Process, name: str) -> None:
        self.owner = owner
        self.name = name
        self.inbox: deque[bytes] = deque()
        self.inbox_bytes = 0
        self.under_way: deque[bytes] | None = None  # on the network, to this end; b"" is the end
        self.is_silent = False  # nothing comes any more, not even the end
        self.is_cut = False
        self.has_ended = False  # the other end is closed, and that has arrived
        self.is_closed = False
        self.other: Socket
        system = owner.system
        system.descriptors += 1
        self.descriptor = system.descriptors
        owner.sockets[self.descriptor] = self

    def readiness(self) -> int:
        events = 0
        if self.inbox or self.has_ended:
            events = IN
        if self.has_ended:
            events |= OUT | GONE
        elif self.other.room() > 0:
            events |= OUT
        return events

    def room(self) -> int:
        return (ROOM_BYTES if self.under_way is None else NETWORK_ROOM_BYTES) - self.inbox_bytes

    # ---- as `connection.Stream` ----

    def setblocking(self, _flag: bool, /) -> None:
        """Nothing blocks here."""

    def fileno(self) -> int:
        return self.descriptor

    def recv(self, size: int, /) -> bytes:
        if not self.inbox:
            if self.has_ended:
                return b""
            raise BlockingIOError
        data = self.inbox.popleft()
        while self.inbox and len(data) < size:
            data += self.inbox.popleft()
        if len(data) > size:
            self.inbox.appendleft(data[size:])
            data = data[:size]
        self.inbox_bytes -= len(data)
        return data

    def send(self, data: bytes | memoryview, /) -> int:
        if self.has_ended:
            raise BrokenPipeError
        other = self.other
        size = min(other.room(), len(data))
        if size <= 0:
            raise BlockingIOError
        if other.is_cut:
            return size
        sent = bytes(data[:size])
        other.inbox_bytes += size
        if other.under_way is None:
            other.inbox.append(sent)
        else:
            other.under_way.append(sent)
        return size

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        del self.owner.sockets[self.descriptor]
        if self.other.under_way is None:
            self.other.has_ended = True
        else:
            self.other.under_way.append(b"")

    # ---- the network ----

    def deliver(self) -> None:
        """The oldest that is under way to this end."""
        if self.under_way and not self.is_silent:
            data = self.under_way.popleft()
            if data:
                self.inbox.append(data)
            else:
                self.has_ended = True

    def cut(self, kept: int) -> None:
        """Of what is under way so much arrives, then the end."""
        if self.under_way is not None and not self.is_cut:
            self.is_cut = True
            while len(self.under_way) > kept:
                self.inbox_bytes -= len(self.under_way.pop())
            self.under_way.append(b"")


class System:
    """Descriptors, and the files of the node; it does for `os` and `segments` in the modules that are simulated."""

    path = posixpath
    O_RDONLY = 0
    FULL_ERRNOS = segments.FULL_ERRNOS
    page_bytes = staticmethod(segments.page_bytes)
    parts_of = staticmethod(segments.parts_of)
    name_of = staticmethod(segments.name_of)

    def __init__(self) -> None:
        self.descriptors = 0
        self.files: dict[str, bytearray] = {}
        self.open_files: dict[int, bytearray] = {}
        self.open_copies: dict[int, bytearray] = {}  # on the program's machine
        self.is_full = False

    def pair(self, near: Process, far: Process, name: str, *, is_remote: bool = False) -> tuple[Socket, Socket]:
        one, other = Socket(near, name), Socket(far, name)
        one.other, other.other = other, one
        if is_remote:
            one.under_way, other.under_way = deque(), deque()
        return one, other

    def _opened(self, data: bytearray) -> int:
        self.descriptors += 1
        self.open_files[self.descriptors] = data
        return self.descriptors

    # ---- as `segments` ----

    def allocate(self, path: str, _start_bytes: int, end_bytes: int) -> int:
        if self.is_full:
            raise OSError(errno.ENOSPC, "no space left")
        if path in self.files:
            raise FileExistsError(errno.EEXIST, path)
        self.files[path] = bytearray(end_bytes)
        return self._opened(self.files[path])

    def _data(self, descriptor: int) -> bytearray:
        found = self.open_files.get(descriptor)
        return self.open_copies[descriptor] if found is None else found

    def write(self, descriptor: int, offset: int, source: memoryview) -> None:
        self._data(descriptor)[offset : offset + len(source)] = source

    def remove(self, path: str) -> int:
        return len(self.files.pop(path, b""))

    def Mapping(self, descriptor: int, *, is_writable: bool) -> Mapping:
        return Mapping(self.open_copies[descriptor])

    # ---- as `os` ----

    def getpid(self) -> int:
        return 1

    def open(self, path: str, _flags: int) -> int:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, path)
        return self._opened(self.files[path])

    def anonymous_file(self, _name: str) -> int:
        self.descriptors += 1
        self.open_copies[self.descriptors] = bytearray()
        return self.descriptors

    def ftruncate(self, descriptor: int, size_bytes: int) -> None:
        data = self.open_copies[descriptor]
        data.extend(bytes(size_bytes - len(data)))

    def pread(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        return bytes(self.open_files[descriptor][offset : offset + size_bytes])

    def close(self, descriptor: int) -> None:
        del (self.open_files if descriptor in self.open_files else self.open_copies)[descriptor]

    def listdir(self, path: str) -> list[str]:
        return [name.rpartition("/")[2] for name in self.files if name.startswith(f"{path}/")]


class Mapping:
    """As `segments.Mapping`."""

    def __init__(self, data: bytearray) -> None:
        self._data = data

    def view(self, size_bytes: int, keep: object) -> memoryview:
        del keep  # it tells of the end of views, which nobody waits for here
        return memoryview(self._data)[:size_bytes]
