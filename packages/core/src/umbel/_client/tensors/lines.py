"""The sockets by which tensors go from the process that holds them to one that takes them.

A taker connects to the holder's door, names an object, and then both ends talk as their transport likes. Abstract
sockets, which leave no file; the end of a process, whatever ended it, is the end of its lines, known at once.
"""

from __future__ import annotations

import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Sequence

from umbel import exceptions, spi
from umbel._transport import connection

TIMEOUT_S = 60.0  # for which one end waits for the other, which lives but does not answer; Ray's is the same
BACKLOG = 128
WAITING_MAX = 2  # threads at a door; starting one for each that comes would take as long as the rest
DESCRIPTORS_MAX = 253  # what the kernel takes in one message
_DATA, _FAILED = 0, 1
_HEADER = struct.Struct("<BQ")  # which of these, and how many bytes follow
_CREDENTIALS = struct.Struct("3i")
_TIME = struct.Struct("ll")  # seconds and microseconds


class Line:
    """See `spi.TensorLine`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.settimeout(TIMEOUT_S)

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        self._send(_DATA, data, descriptors)

    def fail(self, error: BaseException) -> None:
        """The other end's `receive` raises it."""
        self._send(_FAILED, exceptions.dump_error(error), ())

    def receive(self) -> tuple[bytes, list[int]]:
        head, descriptors = b"", []
        while len(head) < _HEADER.size:
            connection.wait_readable(self._sock, TIMEOUT_S)
            part, found, _, _ = socket.recv_fds(self._sock, _HEADER.size - len(head), DESCRIPTORS_MAX)
            head += _some(part)
            descriptors += found
        kind, left = _HEADER.unpack(head)
        parts = []
        while left:
            connection.wait_readable(self._sock, TIMEOUT_S)
            parts.append(_some(self._sock.recv(min(left, 1 << 20))))
            left -= len(parts[-1])
        data = b"".join(parts)
        if kind == _FAILED:
            raise exceptions.load_error(data)
        return data, descriptors

    def close(self) -> None:
        self._sock.close()

    def _send(self, kind: int, data: bytes, descriptors: Sequence[int]) -> None:
        head = _HEADER.pack(kind, len(data))
        if descriptors:
            socket.send_fds(self._sock, [head], descriptors)
        else:
            self._sock.sendall(head)
        self._sock.sendall(data)


def _some(data: bytes) -> bytes:
    if not data:
        raise ConnectionError("the other end has gone")
    return data


def connect(address: bytes) -> Line:
    """Raises ConnectionError when nobody is there any more, TimeoutError when nobody opens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not by `settimeout`: a connection that has to queue for the door would then be refused at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIME.pack(int(TIMEOUT_S), 0))
        try:
            sock.connect(address)
        except BlockingIOError:
            raise TimeoutError(f"nobody has opened for {TIMEOUT_S:g} s") from None
        if not _is_own(sock):
            raise ConnectionError("a process of another user has taken the address")
    except BaseException:
        sock.close()
        raise
    return Line(sock)


def _is_own(sock: socket.socket) -> bool:
    """Whether a process of the same user is at the other end."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(raw)[1] == os.getuid())


class Door:
    """Where others come for what this process holds. Each is served by a thread that serves nobody else meanwhile: none
    waits for another one, nor for what the process is busy with."""

    def __init__(self, find: Callable[[bytes], spi.HeldTensors]) -> None:
        """find: by object id; raises ObjectFreedError."""
        self._find = find
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.bind(b"\0umbel-tensors-" + secrets.token_hex(16).encode())
        self._sock.listen(BACKLOG)
        self.address: bytes = self._sock.getsockname()
        self._lock = threading.Lock()
        self._waiting = 0  # threads that wait for the next one to come
        with self._lock:
            self._start_waiting()

    def close(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        except OSError:
            pass  # it is closed already
        self._sock.close()

    def forked(self) -> None:
        """This is a copy in a forked child: it must not keep the parent's door open beyond its death."""
        self._sock.close()

    def _start_waiting(self) -> None:
        """Lock held."""
        self._waiting += 1
        threading.Thread(target=self._wait, daemon=True, name="umbel-tensors").start()

    def _wait(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return  # closed
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._start_waiting()
            self._serve(sock)
            with self._lock:
                if self._waiting >= WAITING_MAX:
                    return
                self._waiting += 1

    def _serve(self, sock: socket.socket) -> None:
        line = Line(sock)
        try:
            if not _is_own(sock):
                return
            object_id, _ = line.receive()
            try:
                self._find(object_id).give(line)
            except (ConnectionError, TimeoutError):
                raise
            except Exception as error:
                line.fail(error)
        except OSError:
            pass  # the taker has died or is stuck: its process tells of itself
        finally:
            line.close()
