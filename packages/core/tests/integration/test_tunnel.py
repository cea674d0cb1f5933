"""Both ends of a tunnel in one process: real sockets, and connections that are broken by hand."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from umbel._transport import connection, tunnel
from umbel._wire import frames, multiplexing

LIMIT_S = 20.0  # for anything here; a busy machine takes a hundredth of it


class End:
    """One end, and what was opened there by the other."""

    def __init__(self, poller: connection.Poller, *, dials: bool) -> None:
        self.now_s = 0.0  # it stands still unless it is set
        self.tunnel = tunnel.Tunnel(poller, self, dials=dials, secret="s", patience_s=30.0, now_s=lambda: self.now_s)
        self.taken: list[socket.socket] = []
        self.over: list[str] = []
        self.dial_count = self.resumed_count = 0

    def opened(self, stream: int, to: dict[str, Any]) -> None:
        if to.get("to") != "something":
            self.tunnel.refuse(stream, "there is no such thing", is_final=True)
            return
        near, far = socket.socketpair()
        near.setblocking(False)
        self.taken.append(near)
        self.tunnel.attach(stream, far)

    def dial(self) -> None:
        self.dial_count += 1

    def resumed(self) -> None:
        self.resumed_count += 1

    def closes(self, why: str) -> None:
        raise AssertionError(why)

    def is_over(self, reason: str) -> None:
        self.over.append(reason)


class Pair:
    def __init__(self) -> None:
        self.poller = connection.Poller()
        self.first, self.second = End(self.poller, dials=True), End(self.poller, dials=False)
        self.links: list[connection.Connection] = []
        self.sockets: list[socket.socket] = []
        self._connect()
        self.first.tunnel.begin(self.links[0])
        self.second.tunnel.begin(self.links[1])

    def link(self) -> None:
        """Another connection."""
        count = self.first.resumed_count
        self._connect()
        self.first.tunnel.connected(self.links[0])
        self.second.tunnel.connected(self.links[1])
        self.until(lambda: self.first.resumed_count > count)

    def _connect(self) -> None:
        self.links = [
            connection.Connection(sock, self.poller, end.tunnel.on_frame, end.tunnel.on_close)
            for end, sock in zip((self.first, self.second), socket.socketpair(), strict=True)
        ]

    def open(self, to: str = "something", **options: Any) -> socket.socket:
        near, far = socket.socketpair()
        near.setblocking(False)
        self.sockets.append(near)
        self.first.tunnel.open(far, {"to": to}, **options)
        return near

    def until(self, condition: Callable[[], object]) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end_s
            self.poller.poll(0.01)

    def received(self, sock: socket.socket, size: int) -> bytes:
        data = bytearray()

        def is_all_there() -> bool:
            try:
                data.extend(sock.recv(size - len(data)))
            except BlockingIOError:
                pass
            return len(data) == size

        self.until(is_all_there)
        return bytes(data)

    def close(self) -> None:
        for end in (self.first, self.second):
            end.tunnel.close()
            self.sockets += end.taken
        for sock in self.sockets:
            sock.close()
        self.poller.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def fill(pair: Pair, sock: socket.socket) -> int:
    """Write until nothing more is taken; how many bytes that were."""
    total, idle = 0, 0
    while idle < 20:
        try:
            total += sock.send(bytes([total % 251]) * 10_000)
            idle = 0
        except BlockingIOError:
            idle += 1
        pair.poller.poll(0.001)
    return total


def test_a_stream_that_nobody_reads_holds_up_no_other_and_takes_little_memory(pair: Pair) -> None:
    stuck, other = pair.open(), pair.open()
    pair.until(lambda: len(pair.second.taken) == 2)
    total = fill(pair, stuck)
    assert multiplexing.WINDOW_BYTES <= total <= 2 * multiplexing.WINDOW_BYTES  # and what the kernel takes
    for _ in range(3):
        other.send(b"question")
        assert pair.received(pair.second.taken[1], 8) == b"question"
        pair.second.taken[1].send(b"answer")
        assert pair.received(other, 6) == b"answer"
    assert len(pair.received(pair.second.taken[0], total)) == total
    assert fill(pair, stuck) > 0


def test_what_was_under_way_comes_by_the_next_connection(pair: Pair) -> None:
    near = pair.open()
    pair.until(lambda: pair.second.taken)
    data = bytes(range(256)) * 2_000
    sent = 0
    got = bytearray()
    cuts = [1, 100_000, 200_000, 300_000]  # when so many bytes have come
    end_s = time.monotonic() + LIMIT_S
    while len(got) < len(data):
        assert time.monotonic() < end_s
        if sent < len(data):
            try:
                sent += near.send(data[sent : sent + 50_000])
            except BlockingIOError:
                pass
        pair.poller.poll(0.001)
        try:
            got += pair.second.taken[0].recv(65_536)
        except BlockingIOError:
            pass
        if cuts and len(got) >= cuts[0]:
            cuts.pop(0)
            pair.links[0].close()
            pair.until(lambda: not pair.second.tunnel.is_linked)
            pair.link()
    assert bytes(got) == data


def test_the_end_of_a_stream_comes_behind_its_bytes(pair: Pair) -> None:
    near = pair.open()
    near.send(b"last words")
    near.close()
    pair.until(lambda: pair.second.taken)
    assert pair.received(pair.second.taken[0], 10) == b"last words"
    pair.until(lambda: is_at_end(pair.second.taken[0]))


def is_at_end(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


def test_what_a_process_has_said_before_its_end_comes_though_it_takes_nothing_any_more(pair: Pair) -> None:
    """A worker answers and dies while something is on its way to it."""
    near = pair.open()
    pair.until(lambda: pair.second.taken)
    pair.second.taken[0].send(b"last words")
    pair.second.taken[0].close()
    pair.first.tunnel.multiplexer.send(3, b"question")
    said = frames.encode_control(*pair.first.tunnel.multiplexer.frames.popleft())
    pair.second.tunnel.on_frame(pair.links[1], said[frames.HEADER.size :])
    assert pair.received(near, 10) == b"last words"
    pair.until(lambda: is_at_end(near))


def test_what_is_not_there_is_refused_and_ends(pair: Pair) -> None:
    answers: list[Any] = []
    near = pair.open("nothing", on_answer=lambda *answer: answers.append(answer))
    pair.until(lambda: answers)
    assert answers == [(False, "there is no such thing", True)]
    pair.until(lambda: is_at_end(near))


def test_a_stream_that_was_ended_before_it_is_taken_leaves_no_socket(pair: Pair) -> None:
    """What the other side wanted took a while, and it does not want it any more."""
    opened: list[int] = []
    pair.second.opened = lambda stream, _to: opened.append(stream)  # type: ignore[method-assign]
    near = pair.open()
    pair.until(lambda: opened)
    near.close()
    pair.until(lambda: not pair.second.tunnel.multiplexer.has(opened[0]))
    ours, theirs = socket.socketpair()
    pair.second.tunnel.attach(opened[0], theirs)
    assert is_at_end(ours)
    ours.close()


def test_streams_end_when_the_other_side_has_been_away_for_too_long(pair: Pair) -> None:
    near = pair.open()
    pair.until(lambda: pair.second.taken)
    pair.links[0].close()
    pair.until(lambda: not pair.second.tunnel.is_linked)
    pair.first.tunnel.tick()
    assert pair.first.dial_count == 1
    for end in (pair.first, pair.second):
        end.now_s = 29.9
        end.tunnel.tick()
        assert end.over == []
        end.now_s = 30.0
        end.tunnel.tick()
        assert end.over == ["the connection was broken for longer than 30 s"]
    pair.until(lambda: is_at_end(near) and is_at_end(pair.second.taken[0]))


def test_a_side_that_talks_nonsense_is_given_up(pair: Pair) -> None:
    pair.links[0].send(frames.encode_control({"t": "said", "number": 1, "heard": 0, "message": {"k": "sing", "s": 1}}))
    pair.until(lambda: pair.second.over)
    assert pair.second.over[0].startswith("the other side has made a mistake: unknown message")
