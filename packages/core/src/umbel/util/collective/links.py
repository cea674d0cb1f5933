"""The sockets from one rank to the others: frames out, frames and ends in.

Sequenced packets: one frame is one packet, and the end of a process, whatever ended it, is the end of its connections,
known at once. Nothing that arrives is unpickled.
"""

from __future__ import annotations

import array
import contextlib
import os
import selectors
import socket
import struct
import weakref
from collections.abc import Mapping
from typing import Protocol

from umbel.util.collective import rounds

BODY_BYTES_MAX = 32 << 10  # four of them, a rank's most (`rounds.INBOX_FRAMES_MAX`), fit into a socket's usual buffer
TEXT_BYTES_MAX = 16 << 10  # a text names one shape, or a mismatch the shapes of all ranks
_HEADER = struct.Struct("<BH")
_PACKET_BYTES_MAX = _HEADER.size + TEXT_BYTES_MAX + BODY_BYTES_MAX
_KINDS = {int(kind): kind for kind in rounds.Kind}
_ONE_DESCRIPTOR_BYTES = socket.CMSG_SPACE(array.array("i").itemsize)


def packet_of(frame: rounds.Frame) -> list[bytes]:
    text = frame.text.encode(errors="replace")[:TEXT_BYTES_MAX]
    return [_HEADER.pack(frame.kind, len(text)) + text, frame.body]


def frame_of(packet: bytes) -> rounds.Frame:
    kind, text_bytes = _HEADER.unpack_from(packet)
    end = _HEADER.size + text_bytes
    return rounds.Frame(_KINDS[kind], packet[_HEADER.size : end].decode(errors="replace"), packet[end:])


def send_descriptor(sock: socket.socket, packet: list[bytes], descriptor: int) -> None:
    sock.sendmsg(packet, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))])


def receive_descriptor(sock: socket.socket) -> tuple[bytes, int]:
    """(packet, descriptor); -1 when none came along."""
    packet, ancillary, _, _ = sock.recvmsg(_PACKET_BYTES_MAX, _ONE_DESCRIPTOR_BYTES, socket.MSG_CMSG_CLOEXEC)
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return packet, found[0] if found else -1


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Connections(Protocol):
    """Of one rank to the others: `Links`, or `far_links.FarLinks`."""

    is_one_machine: bool
    body_bytes_max: int

    def send(self, rank: int, frame: rounds.Frame, timeout_s: float, descriptor: int = -1, /) -> None: ...

    def receive(
        self, timeout_s: float, descriptors: dict[int, int] | None = None, /
    ) -> list[tuple[int, rounds.Frame | None]]: ...

    def close(self) -> None: ...


class Links:
    """Owns the sockets. Any method may raise OSError only for what is no end of a connection."""

    is_one_machine = True
    body_bytes_max = BODY_BYTES_MAX

    def __init__(self, sockets: Mapping[int, socket.socket]) -> None:
        self._sockets = dict(sockets)
        self._selector = selectors.PollSelector()
        for rank, sock in self._sockets.items():
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, rank)
        _open_links.add(self)

    def send(self, rank: int, frame: rounds.Frame, timeout_s: float, descriptor: int = -1) -> None:
        """To a rank that is gone, nothing is sent: `receive` tells of its end. Raises TimeoutError when it does not
        read."""
        sock = self._sockets.get(rank)
        if sock is None:
            return
        packet = packet_of(frame)
        while True:
            try:
                if descriptor >= 0:
                    send_descriptor(sock, packet, descriptor)
                else:
                    sock.sendmsg(packet)
                return
            except BlockingIOError:
                self._wait_to_write(sock, timeout_s)
            except (BrokenPipeError, ConnectionError):
                return  # `receive` tells of the end, after what was sent before it

    def receive(
        self, timeout_s: float, descriptors: dict[int, int] | None = None
    ) -> list[tuple[int, rounds.Frame | None]]:
        """What has arrived, at least one thing unless time is up: (rank, frame), or (rank, None) for its end.

        descriptors: where to put those that come along; they are lost without it.
        """
        found: list[tuple[int, rounds.Frame | None]] = []
        for key, _ in self._selector.select(timeout_s):
            sock: socket.socket = key.fileobj  # type: ignore[assignment]  # it was registered as one
            rank: int = key.data
            # All that is there: what a rank had to say of an operation may be followed by the news that it failed.
            while (packet := self._packet(sock, rank, descriptors)) is not None:
                if packet:
                    found.append((rank, frame_of(packet)))
                else:
                    self._selector.unregister(sock)
                    self._sockets.pop(rank).close()
                    found.append((rank, None))
                    break
        return found

    @staticmethod
    def _packet(sock: socket.socket, rank: int, descriptors: dict[int, int] | None) -> bytes | None:
        """The next one; empty at the end of the connection, None when there is none yet."""
        try:
            if descriptors is None:
                return sock.recv(_PACKET_BYTES_MAX)
            packet, descriptor = receive_descriptor(sock)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""
        if descriptor >= 0:
            descriptors[rank] = descriptor
        return packet

    def close(self) -> None:
        """Idempotent."""
        with contextlib.suppress(OSError, KeyError):
            self._selector.close()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def _wait_to_write(self, sock: socket.socket, timeout_s: float) -> None:
        with selectors.PollSelector() as selector:
            selector.register(sock, selectors.EVENT_WRITE)
            if not selector.select(timeout_s):
                raise TimeoutError(f"a rank has read nothing for {timeout_s:g} s")


_open_links: weakref.WeakSet[Links] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked child has copies of the sockets, which would hide this process's death from the other ranks."""
    for links in list(_open_links):
        links.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
