"""Bringing the ranks of a group together: each gets a connection to every other.

The host of the round (`meeting`) opens a door, a socket without a file that only this user's processes get through.
Each guest says who it is; when all are there, the host makes a pair of sockets for every two guests and hands them out.

Who finds nobody at the door, as from another machine, writes to the inbox of the host's process that has the door's name. If
one comes that way, the host tells all whose process each rank is, and they write to each other's inboxes (`far_links`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from typing import NoReturn

from umbel._base import nodes
from umbel._client import inboxes
from umbel.util.collective import far_links, links, peers, rounds, waiting

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
    """Gathers the others at the door and at an inbox, if there is one."""

    def __init__(
        self,
        door: socket.socket,
        box: inboxes.Inbox | None,
        *,
        process: bytes,
        group_name: str,
        rank: int,
        world_size: int,
        timeout_s: float,
    ) -> None:
        """process: its own id."""
        self._door = door
        self._box = box
        self._group_name = group_name
        self._rank = rank
        self._others = [other for other in range(world_size) if other != rank]
        self._timeout_s = timeout_s
        self._guests: dict[int, socket.socket] = {}  # who has come to the door
        self._far_guests: set[int] = set()
        self._processes = {rank: process}  # of all who have come

    def missing(self) -> list[int]:
        """The ranks that have not come so far."""
        return [rank for rank in self._others if rank not in self._processes]

    def gather(self) -> links.Connections:
        """Raises CollectiveError when a rank dies or does not come; the others are told."""
        due_s = time.monotonic() + self._timeout_s
        strangers: set[socket.socket] = set()  # connected, and yet to say who they are
        try:
            with selectors.PollSelector() as selector, _bell(self._box) as bell:
                self._door.setblocking(False)
                selector.register(self._door, selectors.EVENT_READ)
                if bell is not None:
                    selector.register(bell, selectors.EVENT_READ)
                    self._hear_far()
                while self.missing():
                    ready = selector.select(max(0.0, due_s - time.monotonic()))
                    if not ready and time.monotonic() >= due_s:
                        self._late()
                    for key, _ in ready:
                        if key.fileobj is self._door:
                            self._let_in(selector, strangers)
                        elif key.fileobj is bell:
                            bell.recv(PACKET_BYTES_MAX)
                            self._hear_far()
                        else:
                            self._hear(selector, strangers, key.fileobj)  # type: ignore[arg-type]
            if self._box is not None and self._far_guests:
                return self._tell_all(self._box)
            self._introduce()
            return links.Links(self._guests)
        except BaseException:
            for sock in self._guests.values():
                sock.close()
            raise
        finally:
            for sock in strangers:
                sock.close()

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
            rank = self._expected(packet)
            if rank is not None:
                self._guests[rank] = sock  # and watched further: it may die before the others come
                return
            selector.unregister(sock)
            sock.close()
            return
        (rank,) = (one for one, guest in self._guests.items() if guest is sock)
        self._died(rank)

    def _hear_far(self) -> None:
        """What has come to the inbox."""
        if self._box is None:
            return
        for process, packet in self._box.receive(0.0):
            ranks = [rank for rank in self._far_guests if self._processes[rank] == process]
            if packet is None and ranks:
                self._died(ranks[0])
            elif packet is not None and not ranks:
                rank = self._expected(packet)
                if rank is not None:
                    self._far_guests.add(rank)
                    self._box.send(process, far_links.packet_of(rounds.Frame(rounds.Kind.ACCEPTED)))

    def _expected(self, packet: bytes) -> int | None:
        """The rank that says so, if it has yet to come."""
        frame = links.frame_of(packet) if packet else None
        rank = int(frame.text) if frame is not None and frame.text.isdecimal() else -1
        if frame is None or rank not in self.missing():
            return None
        self._processes[rank] = frame.body
        return rank

    def _died(self, rank: int) -> NoReturn:
        self._fail(rounds.Problem(rounds.Fault.DIED, rank, f"rank {rank} died while the group came together"))

    def _late(self) -> NoReturn:
        missing = self.missing()
        text = (
            f"{waiting.ranks_in_words(missing)} did not come within {self._timeout_s:g} s; see that as many "
            "processes as the group has ranks can run at once, and that each calls init_collective_group"
        )
        self._fail(rounds.Problem(rounds.Fault.TIMEOUT, missing[0], text))

    def _fail(self, problem: rounds.Problem) -> NoReturn:
        frame = rounds.Frame(rounds.Kind.BROKEN, problem.encoded())
        for sock in self._guests.values():
            with contextlib.suppress(OSError):
                sock.sendmsg(links.packet_of(frame))
        if self._box is not None:
            for rank in self._far_guests:
                self._box.send(self._processes[rank], far_links.packet_of(frame))
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
            self._died(guest)

    def _tell_all(self, box: inboxes.Inbox) -> far_links.FarLinks:
        """All guests, whose process each rank is."""
        frame = rounds.Frame(
            rounds.Kind.OFFER, _ALL, b"".join(self._processes[rank] for rank in sorted(self._processes))
        )
        for rank, sock in self._guests.items():
            with sock:
                try:
                    sock.sendmsg(links.packet_of(frame))
                except OSError:
                    self._died(rank)
        for rank in self._far_guests:
            box.send(self._processes[rank], far_links.packet_of(frame))
        return far_links.FarLinks(box, self._processes, self._rank)


@contextlib.contextmanager
def _bell(box: inboxes.Inbox | None) -> Iterator[socket.socket | None]:
    """What can be read once something has come to the inbox."""
    if box is None:
        yield None
        return
    near, far = socket.socketpair()
    with near, far:
        far.setblocking(False)

        def ring() -> None:
            with contextlib.suppress(BlockingIOError):
                far.send(b"\0")

        box.ring_with(ring)
        try:
            yield near
        finally:
            box.ring_with(None)


class Guest:
    """Goes to the host. box: with the name of the host's door, for who may be told that ranks are on several machines."""

    def __init__(
        self,
        box: inboxes.Inbox | None,
        *,
        process: bytes,
        group_name: str,
        rank: int,
        world_size: int,
        timeout_s: float,
    ) -> None:
        """process: its own id."""
        self._box = box
        self._group_name = group_name
        self._rank = rank
        self._world_size = world_size
        self._timeout_s = timeout_s
        self._due_s = time.monotonic() + 2 * timeout_s  # the host is the one who tells who is late
        self._hello = rounds.Frame(rounds.Kind.STEP, str(rank), process)

    def join(self, address: bytes) -> links.Connections:
        """Raises ConnectionRefusedError when nobody is at that door, CollectiveError as the host does."""
        host = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        found: dict[int, socket.socket] = {}
        try:
            host.connect(address)
            if not _is_own(host):
                raise ConnectionRefusedError("another user's process is at this door")
            host.sendmsg(links.packet_of(self._hello))
            host.setblocking(False)
            with selectors.PollSelector() as selector:
                selector.register(host, selectors.EVENT_READ)
                while len(found) < self._world_size - 2:
                    if not selector.select(max(0.0, self._due_s - time.monotonic())):
                        self._late()
                    frame, descriptor = self._introduction(host)
                    if frame.text == _ALL:
                        host.close()
                        return self._among(frame.body)
                    found[int(frame.text)] = socket.socket(fileno=descriptor)
            (host_rank,) = set(range(self._world_size)) - {self._rank, *found}
            found[host_rank] = host
        except BaseException:
            for sock in (host, *found.values()):
                sock.close()
            raise
        return links.Links(found)

    def join_far(self, host: bytes) -> links.Connections:
        """host: its process. Raises ConnectionRefusedError when it is gone or has given up, CollectiveError as the host does."""
        box = self._box
        if box is None:
            raise ConnectionRefusedError("nobody is there")
        box.send(host, far_links.packet_of(self._hello))
        packet = box.receive_from(host, time.monotonic() + self._timeout_s)
        if packet is None:
            self._unreached(box, host)
        if not packet:
            raise ConnectionRefusedError("nobody is there any more")
        if links.frame_of(packet).kind is rounds.Kind.ACCEPTED:
            packet = box.receive_from(host, self._due_s)
            if packet is None:
                self._late()
            if not packet:
                self._host_died()
        return self._among(self._unbroken(packet).body)

    def _introduction(self, host: socket.socket) -> tuple[rounds.Frame, int]:
        try:
            packet, descriptor = links.receive_descriptor(host)
        except ConnectionError:
            packet, descriptor = b"", -1
        if not packet:
            self._host_died()
        return self._unbroken(packet), descriptor

    def _unbroken(self, packet: bytes) -> rounds.Frame:
        frame = links.frame_of(packet)
        if frame.kind is rounds.Kind.BROKEN:
            raise peers.error_of(rounds.Problem.decoded(frame.text), self._group_name)
        return frame

    def _among(self, processes: bytes) -> far_links.FarLinks:
        """processes: of all ranks."""
        size = nodes.PROCESS_ID_BYTES
        by_rank = {rank: processes[rank * size : (rank + 1) * size] for rank in range(self._world_size)}
        if self._box is None:
            self._host_died()
        return far_links.FarLinks(self._box, by_rank, self._rank)

    def _host_died(self) -> NoReturn:
        text = "the rank that came first died while the group came together"
        raise peers.error_of(rounds.Problem(rounds.Fault.DIED, 0, text), self._group_name)

    def _late(self) -> NoReturn:
        text = f"rank {self._rank} waited {2 * self._timeout_s:g} s for the others"
        raise peers.error_of(rounds.Problem(rounds.Fault.TIMEOUT, self._rank, text), self._group_name)

    def _unreached(self, box: inboxes.Inbox, host: bytes) -> NoReturn:
        here, there = (far_links.node_in_words(nodes.tag_of_process(one)) for one in (self._hello.body, host))
        text = (
            f"rank {self._rank}, on {here}, has heard nothing for {self._timeout_s:g} s from the rank that came first, on "
            f"{there}: {box.way_to(host)}; see that these two nodes reach each other, as `umbel status` tells"
        )
        raise peers.error_of(rounds.Problem(rounds.Fault.TIMEOUT, self._rank, text), self._group_name)


_ALL = "all"  # instead of a rank: what follows is of all


def _is_own(sock: socket.socket) -> bool:
    """Whether a process of the same user is at the other end."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(raw)[1] == os.getuid())
