"""Bytes between two that do not reach each other, by a process of the daemon's."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import drivers
import pytest

from umbel._agent import forwarder
from umbel._base import sessions

LARGE_BYTES = 8 << 20


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[forwarder.Forwarder]:
    monkeypatch.setattr(sessions, "record_process", lambda *_: None)  # there is no session
    one = forwarder.Forwarder("")
    yield one
    one.close()
    assert not drivers.is_running(one.pid)


def _joined(made: forwarder.Forwarder) -> tuple[socket.socket, socket.socket]:
    """The ends of two connections that are connected to each other."""
    near, one = socket.socketpair()
    far, other = socket.socketpair()
    with one, other:
        made.join(one, other)
    for end in (near, far):
        end.settimeout(drivers.PATIENCE_S)
    return near, far


def _all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(1 << 20):
        data += piece
    return data


def test_what_is_said_at_one_end_is_heard_at_the_other(made: forwarder.Forwarder) -> None:
    near, far = _joined(made)
    with near, far:
        near.sendall(b"there")
        assert far.recv(100) == b"there"
        far.sendall(b"back")
        assert near.recv(100) == b"back"


def test_an_end_that_says_no_more_still_hears_what_the_other_says(made: forwarder.Forwarder) -> None:
    near, far = _joined(made)
    with near, far:
        near.sendall(b"all")
        near.shutdown(socket.SHUT_WR)
        assert _all(far) == b"all"
        far.sendall(b"answer")
        far.close()
        assert _all(near) == b"answer"


def test_many_bytes_go_both_ways_at_once_and_none_is_lost(made: forwarder.Forwarder) -> None:
    near, far = _joined(made)
    data = os.urandom(LARGE_BYTES)
    with near, far:

        def send(sock: socket.socket) -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        senders = [threading.Thread(target=send, args=(sock,)) for sock in (near, far)]
        for sender in senders:
            sender.start()
        heard: list[bytes] = []
        reader = threading.Thread(target=lambda: heard.append(_all(near)))
        reader.start()
        assert _all(far) == data
        for thread in (*senders, reader):
            thread.join(drivers.PATIENCE_S)
        assert heard == [data]


def test_who_is_not_read_is_held_up_and_the_others_are_not(made: forwarder.Forwarder) -> None:
    near, far = _joined(made)
    others = _joined(made)
    with near, far, others[0], others[1]:
        near.setblocking(False)
        sent_bytes = 0

        def is_held_up() -> bool:
            nonlocal sent_bytes
            try:
                sent_bytes += near.send(bytes(1 << 20))
            except BlockingIOError:
                return drivers.is_idle(made.pid)
            return False

        drivers.wait_until(is_held_up, what="the sender to be held up")
        assert sent_bytes < LARGE_BYTES
        others[0].sendall(b"quick")
        assert others[1].recv(100) == b"quick"
        far.settimeout(drivers.PATIENCE_S)
        near.close()
        assert len(_all(far)) == sent_bytes


def test_an_end_that_is_gone_ends_the_other(made: forwarder.Forwarder) -> None:
    near, far = _joined(made)
    with far:
        near.close()
        assert far.recv(1) == b""


def test_a_process_that_has_died_is_noticed_by_the_next_pair(made: forwarder.Forwarder) -> None:
    drivers.kill(made.pid)
    drivers.wait_until(lambda: not drivers.is_running(made.pid), what="it to die")
    with pytest.raises(OSError, match="Broken pipe"):
        _joined(made)
