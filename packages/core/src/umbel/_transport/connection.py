"""Readiness polling, framed connections and listeners over Unix sockets.

Nothing here decides anything: a connection hands complete frames to its `on_frame` and says once, by `on_close`, that
it is gone. One thread polls at a time; any thread may send.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from umbel._wire import frames

READ_BYTES = 65_536  # below malloc's mmap threshold, so that a receive buffer is not mapped and unmapped each time
LISTEN_BACKLOG = 512  # as many processes as may start at once on one node

if hasattr(select, "epoll"):
    IN, OUT, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR
else:  # macOS
    IN, OUT, GONE = select.POLLIN, select.POLLOUT, select.POLLHUP | select.POLLERR


class Poller:
    """Which descriptors are ready, and whom to tell."""

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._wake_lock = threading.Lock()
        self._is_woken = False
        if hasattr(select, "epoll"):
            self._epoll = select.epoll()
            self._poll_raw: Callable[[float | None], list[tuple[int, int]]] = self._epoll.poll
        else:
            self._epoll = select.poll()  # type: ignore[assignment]  # same register/modify/unregister
            raw = self._epoll
            self._poll_raw = lambda t: raw.poll(None if t is None or t < 0 else t * 1000)
        if hasattr(os, "eventfd"):
            self._wake_read = self._wake_write = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._wake_read, self._wake_write = os.pipe()
            os.set_blocking(self._wake_read, False)
            os.set_blocking(self._wake_write, False)
        self.register(self._wake_read, IN, self._on_wake)

    def register(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def unregister(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            with contextlib.suppress(OSError, KeyError, ValueError):
                self._epoll.unregister(fd)

    def forked(self) -> None:
        """In a forked child: let go of its copies of what is watched, by which the other ends would take the parent for alive
        when that has died. Who has one as a socket may still close it: the number stays taken."""
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in [*self._handlers]:
            os.dup2(nowhere, fd, inheritable=False)
        os.close(nowhere)

    def fileno(self) -> int:
        """A descriptor that is readable when `poll(0)` would have work (Linux only)."""
        return self._epoll.fileno()

    def poll(self, timeout_s: float | None) -> int:
        """Wait up to `timeout_s` (None: for ever), call the handlers of what is ready, and return how many were."""
        ready = self._poll_raw(timeout_s)
        for fd, events in ready:
            handler = self._handlers.get(fd)
            if handler is not None:  # an earlier handler of this round may have closed it
                handler(events)
        return len(ready)

    def wake(self) -> None:
        """Make the poll in progress, or the next one, return. Safe from any thread and from `__del__`."""
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(BlockingIOError, OSError):
                os.write(self._wake_write, b"\1\0\0\0\0\0\0\0")

    def _on_wake(self, _events: int) -> None:
        # In this order: a wake after the flag is cleared writes again, and one before it set its reason before we look.
        # The other way round, the read could swallow a wake whose flag then kept all later ones from writing.
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 8)
        self._is_woken = False

    @property
    def is_closed(self) -> bool:
        return not self._handlers  # it waits for being woken as long as it is open

    def close(self) -> None:
        self._handlers.clear()
        with contextlib.suppress(OSError, AttributeError):
            self._epoll.close()
        for fd in {self._wake_read, self._wake_write}:
            with contextlib.suppress(OSError):
                os.close(fd)


class Watches(Protocol):
    """What is needed of a poller by whoever waits for descriptors."""

    def register(self, fd: int, events: int, handler: Callable[[int], None]) -> None: ...

    def unregister(self, fd: int) -> None: ...

    def wake(self) -> None: ...


class Stream(Protocol):
    """What a connection needs of a socket, or of what does for one. Nothing blocks: BlockingIOError says so instead."""

    def fileno(self) -> int: ...

    def setblocking(self, flag: bool, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...

    def send(self, data: bytes | memoryview, /) -> int: ...

    def close(self) -> None: ...


class Connection:
    """A framed, non-blocking stream socket.

    `on_frame(connection, payload)` runs in the polling thread. `on_close(connection)` runs exactly once, in whichever
    thread noticed. Frames are sent in the order of the calls; what the socket does not take at once is queued.
    """

    __slots__ = (
        "_lock",
        "_on_close",
        "_on_frame",
        "_out",
        "_poller",
        "_reader",
        "_sock",
        "is_closed",
        "peer",
        "queued_bytes",
    )

    def __init__(
        self,
        sock: Stream,
        poller: Poller,
        on_frame: Callable[[Connection, bytes], None],
        on_close: Callable[[Connection], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._poller = poller
        self._on_frame = on_frame
        self._on_close = on_close
        self._reader = frames.FrameReader()
        self._out: deque[memoryview] = deque()
        self._lock = threading.RLock()
        self.queued_bytes = 0
        self.is_closed = False
        self.peer: object = None  # who is at the other end, once it has said so
        poller.register(sock.fileno(), IN, self._on_ready)

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, frame: bytes) -> None:
        """Send one encoded frame. A frame to a closed connection is dropped: `on_close` has told, or will."""
        with self._lock:
            if self.is_closed:
                return
            if not self._out:
                try:
                    sent = self._sock.send(frame)
                except (BlockingIOError, InterruptedError):
                    sent = 0
                except OSError:
                    self._poller.wake()  # the reading side will see the end of the stream and report it
                    return
                if sent == len(frame):
                    return
                self._queue(memoryview(frame)[sent:])
                self._poller.modify(self._sock.fileno(), IN | OUT)
            else:
                self._queue(memoryview(frame))

    def _queue(self, rest: memoryview) -> None:
        self._out.append(rest)
        self.queued_bytes += len(rest)

    def _on_ready(self, events: int) -> None:
        if events & (IN | GONE):
            self._receive()
        if events & OUT and not self.is_closed:
            self._flush()

    def _receive(self) -> bool:
        """Read once and hand on the frames completed; False when there was nothing to read."""
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        try:
            payloads = self._reader.feed(data)
        except ValueError:
            self.close()
            return False
        for payload in payloads:
            if self.is_closed:  # by the handler of an earlier frame
                return False
            self._on_frame(self, payload)
        return True

    def drain(self) -> None:
        """Hand on what a dead peer sent before it died. For the polling thread only."""
        while not self.is_closed and self._receive():
            pass

    def _flush(self) -> None:
        with self._lock:
            while self._out:
                rest = self._out[0]
                try:
                    sent = self._sock.send(rest)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError:
                    self._out.clear()
                    return
                self.queued_bytes -= sent
                if sent < len(rest):
                    self._out[0] = rest[sent:]
                    return
                self._out.popleft()
            if not self.is_closed:
                self._poller.modify(self._sock.fileno(), IN)

    def close(self) -> None:
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            self._poller.unregister(self._sock.fileno())
            self._sock.close()
            self._out.clear()
        self._on_close(self)


def connect_unix(path: str) -> socket.socket:
    """A stream connected to the listener at `path`. Raises OSError when nobody listens there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def wait_readable(sock: socket.socket, timeout_s: float) -> None:
    """Wait until there is something to read, or the end. A function of its own so that a signal handler can see that the
    thread waits. Raises TimeoutError."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        raise TimeoutError(f"nothing has come for {timeout_s:g} s")


def listen_unix(path: str) -> socket.socket:
    """A non-blocking listener at `path`, readable and writable by this user alone."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(mask)
    sock.listen(LISTEN_BACKLOG)
    sock.setblocking(False)
    return sock


def is_same_user(sock: socket.socket) -> bool:
    """Whether the process at the other end of a Unix socket runs as this user (or as root)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the socket's file mode is the check there
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", raw)
    return uid in (os.getuid(), 0)


class Listener:
    """Accepts authenticated peers and hands their sockets on."""

    def __init__(self, sock: socket.socket, poller: Poller, on_accept: Callable[[socket.socket], None]) -> None:
        self._sock = sock
        self._poller = poller
        self._on_accept = on_accept
        poller.register(sock.fileno(), IN, self._on_ready)

    def _on_ready(self, _events: int) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:  # nothing more to accept, or the peer went away meanwhile
                return
            if is_same_user(sock):
                self._on_accept(sock)
            else:
                sock.close()

    def close(self) -> None:
        self._poller.unregister(self._sock.fileno())
        self._sock.close()
