"""Bringing the ranks of a group together: each gets a socket to every other.

The host of the round (`meeting`) opens a door, a socket without a file that only this user's processes get through.
Each guest says who it is; when all are there, the host makes a pair of sockets for every two guests and hands them out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import struct
import time
from typing import NoReturn

from umbel.util.collective import links, peers, rounds, waiting

PACKET_BYTES_MAX = 4096
_CREDENTIALS = struct.Struct("3i")  # what SO_PEERCRED tells: process, user, group


def open_door() -> socket.socket:
    """Its address is the socket's name."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        door.bind(b"\0umbel-collective-" + secrets.token_hex(16).encode())
        door.listen(128)
    except BaseException:
        door.close()
        raise
    return door


class Host:
    """Gathers the others at the door."""

    def __init__(self, door: socket.socket, *, group_name: str, rank: int, world_size: int, timeout_s: float) -> None:
        self._door = door
        self._group_name = group_name
        self._rank = rank
        self._others = [other for other in range(world_size) if other != rank]
        self._timeout_s = timeout_s
        self._guests: dict[int, socket.socket] = {}

    def missing(self) -> list[int]:
        """The ranks that have not come so far."""
        return [rank for rank in self._others if rank not in self._guests]

    def gather(self) -> dict[int, socket.socket]:
        """Raises CollectiveError when a rank dies or does not come; the others are told."""
        due_s = time.monotonic() + self._timeout_s
        strangers: set[socket.socket] = set()  # connected, and yet to say who they are
        try:
            with selectors.PollSelector() as selector:
                self._door.setblocking(False)
                selector.register(self._door, selectors.EVENT_READ)
                while len(self._guests) < len(self._others):
                    ready = selector.select(max(0.0, due_s - time.monotonic()))
                    if not ready and time.monotonic() >= due_s:
                        self._late()
                    for key, _ in ready:
                        if key.fileobj is self._door:
                            self._let_in(selector, strangers)
                        else:
                            self._hear(selector, strangers, key.fileobj)  # type: ignore[arg-type]
            self._introduce()
        except BaseException:
            for sock in (*strangers, *self._guests.values()):
                sock.close()
            raise
        for sock in strangers:
            sock.close()
        return self._guests

    def _let_in(self, selector: selectors.BaseSelector, strangers: set[socket.socket]) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _ = self._door.accept()
            if not _is_own(sock):
                sock.close()
                return
            strangers.add(sock)
            selector.register(sock, selectors.EVENT_READ)

    def _hear(self, selector: selectors.BaseSelector, strangers: set[socket.socket], sock: socket.socket) -> None:
        try:
            packet = sock.recv(PACKET_BYTES_MAX)
        except ConnectionError:
            packet = b""
        if sock in strangers:
            strangers.discard(sock)
            frame = links.frame_of(packet) if packet else None
            rank = int(frame.text) if frame is not None and frame.text.isdecimal() else -1
            if rank in self._others and rank not in self._guests:
                self._guests[rank] = sock  # and watched further: it may die before the others come
                return
            selector.unregister(sock)
            sock.close()
            return
        (rank,) = (one for one, guest in self._guests.items() if guest is sock)
        self._fail(rounds.Problem(rounds.Fault.DIED, rank, f"rank {rank} died while the group came together"))

    def _late(self) -> NoReturn:
        missing = self.missing()
        text = (
            f"{waiting.ranks_in_words(missing)} did not come within {self._timeout_s:g} s; see that as many "
            "processes as the group has ranks can run at once, and that each calls init_collective_group"
        )
        self._fail(rounds.Problem(rounds.Fault.TIMEOUT, missing[0], text))

    def _fail(self, problem: rounds.Problem) -> NoReturn:
        for sock in self._guests.values():
            with contextlib.suppress(OSError):
                sock.sendmsg(links.packet_of(rounds.Frame(rounds.Kind.BROKEN, problem.encoded())))
        raise peers.error_of(problem, self._group_name)

    def _introduce(self) -> None:
        """Every two guests to each other."""
        guests = sorted(self._guests)
        for sock in self._guests.values():
            sock.setblocking(True)
            sock.settimeout(self._timeout_s)
        for index, one in enumerate(guests):
            for other in guests[index + 1 :]:
                near, far = links.pair()
                with near, far:
                    self._hand_over(one, other, near)
                    self._hand_over(other, one, far)

    def _hand_over(self, guest: int, other: int, end: socket.socket) -> None:
        try:
            links.send_descriptor(
                self._guests[guest], links.packet_of(rounds.Frame(rounds.Kind.OFFER, str(other))), end.fileno()
            )
        except (ConnectionError, TimeoutError):
            self._fail(rounds.Problem(rounds.Fault.DIED, guest, f"rank {guest} died while the group came together"))


def join(address: bytes, *, group_name: str, rank: int, world_size: int, timeout_s: float) -> dict[int, socket.socket]:
    """As a guest. Raises ConnectionRefusedError when nobody is at that door, CollectiveError as the host does."""
    due_s = time.monotonic() + 2 * timeout_s  # the host is the one who tells who is late
    host = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    found: dict[int, socket.socket] = {}
    try:
        host.connect(address)
        if not _is_own(host):
            raise ConnectionRefusedError("another user's process is at this door")
        host.sendmsg(links.packet_of(rounds.Frame(rounds.Kind.STEP, str(rank))))
        host.setblocking(False)
        with selectors.PollSelector() as selector:
            selector.register(host, selectors.EVENT_READ)
            while len(found) < world_size - 2:
                if not selector.select(max(0.0, due_s - time.monotonic())):
                    problem = rounds.Problem(
                        rounds.Fault.TIMEOUT, rank, f"rank {rank} waited {2 * timeout_s:g} s for the others"
                    )
                    raise peers.error_of(problem, group_name)
                other, sock = _introduction(host, group_name)
                found[other] = sock
        (host_rank,) = set(range(world_size)) - {rank, *found}
        found[host_rank] = host
    except BaseException:
        for sock in (host, *found.values()):
            sock.close()
        raise
    return found


def _introduction(host: socket.socket, group_name: str) -> tuple[int, socket.socket]:
    try:
        packet, descriptor = links.receive_descriptor(host)
    except ConnectionError:
        packet, descriptor = b"", -1
    if not packet:
        problem = rounds.Problem(rounds.Fault.DIED, 0, "the rank that came first died while the group came together")
        raise peers.error_of(problem, group_name)
    frame = links.frame_of(packet)
    if frame.kind is rounds.Kind.BROKEN:
        raise peers.error_of(rounds.Problem.decoded(frame.text), group_name)
    return int(frame.text), socket.socket(fileno=descriptor)


def _is_own(sock: socket.socket) -> bool:
    """Whether a process of the same user is at the other end."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(raw)[1] == os.getuid())
