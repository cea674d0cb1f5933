"""Connections to nodes that may not be dialled: real sockets of one process, without a cluster."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tcp_nodes import NODE, Ends, Talk

from umbel._transport import addresses, dialler, negotiation, ways
from umbel._wire import attempts, handshake

TAG = b"node-b"
THERE = handshake.LEASES.at_node(TAG)


class Two:
    """A node that wants to reach another one, by `ways`; the other one has the door `far`."""

    def __init__(self, **far: Any) -> None:
        self.far = Ends(**far)
        self.here = Ends(divert=self._divert)
        self.dialled = attempts.Dialled()
        self.asked: list[bytes] = []
        self.refusal = ""  # why the other one does not dial
        self.given: list[tuple[bytes, Any]] = []
        self.connected: list[Any] = []
        self.failed: list[Exception] = []
        clock = self.here.clock
        self.ways = ways.Ways(self.here.poller, NODE, self, now_s=clock.now_s, timeout_s=10.0)
        self._knocks = dialler.Dialler(self.far.poller, NODE, now_s=clock.now_s)

    def reach(self, tag: bytes, ticket: bytes, _ways: ways.Ways) -> None:
        """As the head and the other node would."""
        assert tag == TAG
        self.asked.append(ticket)
        if self.refusal:
            self.ways.unreached(ticket, self.refusal)
        else:
            self.knock(ticket)

    def knock(self, ticket: bytes) -> None:
        taken = lambda sock: self.far.acceptor.take(sock, "here")  # noqa: E731  # as short as that
        self._knocks.dial(self.here.address, handshake.back(ticket), taken, self.failed.append, only_knocks=True)

    def _divert(self, sock: socket.socket, preamble: handshake.Preamble) -> bool:
        if preamble.target.id not in self.asked:
            return False
        self.ways.arrived(preamble.target.id, sock)
        return True

    def want(self, address: addresses.Address) -> None:
        self.ways.dial(TAG, address, handshake.LEASES, self.connected.append, self.failed.append)

    def until_settled(self) -> None:
        self.until(lambda: self.failed or (self.connected and self.far.peers))

    def until(self, condition: Any) -> None:
        def done() -> bool:
            self.far.poll()
            return bool(condition())

        self.here.until(done)

    def close(self) -> None:
        self.ways.close()
        self._knocks.close()
        for stream in self.connected:
            stream.close()
        self.here.close()
        self.far.close()


@pytest.fixture
def two() -> Iterator[Two]:
    made = Two()
    yield made
    made.close()


def _nowhere() -> addresses.Address:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return addresses.Address("127.0.0.1", taken.getsockname()[1])


def test_a_node_that_answers_is_dialled(two: Two) -> None:
    two.want(two.far.address)
    two.until_settled()
    assert (two.asked, [peer[1:] for peer in two.far.peers]) == ([], [(NODE.role, THERE)])


@pytest.mark.parametrize("address", [_nowhere(), addresses.Address("127.0.0.1", 0)], ids=["refused", "none"])
def test_one_that_cannot_be_dialled_is_asked_and_both_prove_themselves(two: Two, address: addresses.Address) -> None:
    two.want(address)
    two.until_settled()
    assert [peer[1:] for peer in two.far.peers] == [(NODE.role, THERE)]
    near, far = Talk(two.connected[0], two.here.poller), Talk(two.far.peers[0][0], two.far.poller)
    near.send(b"there")
    far.send(b"back" * 100_000)
    two.until(lambda: near.frames and far.frames)
    assert (far.frames, near.frames) == ([b"there"], [b"back" * 100_000])
    two.connected.clear()
    two.want(two.far.address)  # it is not even tried
    two.until(lambda: two.connected)
    assert len(two.asked) == 2


def test_a_ticket_is_of_use_once_and_only_for_whom_it_was_made(two: Two) -> None:
    two.want(_nowhere())
    two.until_settled()
    (ticket,) = two.asked
    two.far.peers.clear()
    for again in (ticket, b"t" * 16):
        two.knock(again)
    two.until(lambda: not two.here.acceptor.stranger_count and two.far.log and not two.failed)
    assert (two.far.peers, len(two.connected)) == ([], 1)


def test_another_node_at_the_address_is_not_taken_for_the_one_that_is_meant(two: Two) -> None:
    other = Ends(decide=lambda _role, _target: handshake.Answer.ELSEWHERE)
    try:
        two.want(other.address)
        two.until(lambda: (other.poll() or two.connected) and two.far.peers)
    finally:
        other.close()
    assert (len(two.asked), [peer[1:] for peer in two.far.peers]) == (1, [(NODE.role, THERE)])


def test_the_node_that_is_meant_is_not_asked_when_it_refuses() -> None:
    two = Two(decide=lambda _role, _target: handshake.Answer.ABSENT)
    try:
        two.want(two.far.address)
        two.until_settled()
        two.want(_nowhere())
        two.until(lambda: len(two.failed) == 2)
    finally:
        two.close()
    assert [type(error) for error in two.failed] == [negotiation.RefusedError] * 2
    assert len(two.asked) == 1


def test_what_each_way_failed_of_is_told(two: Two) -> None:
    two.refusal = "its router lets nothing through"
    two.want(_nowhere())
    two.until_settled()
    (error,) = two.failed
    assert isinstance(error, ConnectionError)
    assert "nothing can be reached at 127.0.0.1" in str(error)
    assert str(error).endswith("; nor has it made a connection itself: its router lets nothing through")


def test_a_connection_that_is_asked_for_and_does_not_come_is_given_up(two: Two) -> None:
    two.knock = lambda ticket: None  # type: ignore[method-assign]  # it does not hear of it
    two.want(_nowhere())
    two.until(lambda: two.asked)
    assert two.ways.is_asking(TAG)
    two.here.clock.advance(10.0)
    two.ways.tick()
    assert [type(error) for error in two.failed] == [TimeoutError]
    assert not two.ways.is_asking(TAG)
