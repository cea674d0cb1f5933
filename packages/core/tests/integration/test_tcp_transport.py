"""Connections between nodes, on real sockets: who gets in, and what those cost who do not."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import resource
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tcp_nodes import LIMIT_S, NODE, READ, SUBMIT, WRONG, Ends, Talk, read_to_the_end

from umbel import exceptions
from umbel._base import tokens
from umbel._transport import acceptor, addresses, dialler
from umbel._wire import handshake

PREAMBLE = handshake.encode_preamble(handshake.AGENT, is_tls=False)
PROCESS = handshake.process(b"p" * 16)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")


@pytest.fixture
def make_ends() -> Iterator[Callable[..., Ends]]:
    made: list[Ends] = []

    def make(**options: Any) -> Ends:
        made.append(Ends(**options))
        return made[-1]

    yield make
    for ends in made:
        ends.close()


@pytest.fixture
def ends(make_ends: Callable[..., Ends]) -> Ends:
    return make_ends()


# ---- who gets in ----


def test_dialled_connection_is_handed_over_at_both_ends(ends: Ends) -> None:
    ends.dial(PROCESS)
    ends.until(lambda: ends.peers and ends.connected)
    ((_stream, role, target),) = ends.peers
    assert (role, target) == (tokens.Role.SUBMIT, PROCESS)
    assert (ends.acceptor.stranger_count, ends.dialler.dial_count, ends.log) == (0, 0, [])
    assert (ends.acceptor.next_tick_s(), ends.dialler.next_tick_s()) == (None, None)


def test_blocking_connection_is_the_same(ends: Ends) -> None:
    with ends.served():
        ends.connected.append(dialler.connect(ends.address, NODE, handshake.CONTROL, timeout_s=LIMIT_S))
        ends.connected.append(dialler.connect(ends.address, READ, handshake.AGENT, timeout_s=LIMIT_S))
    assert [(role, target) for _stream, role, target in ends.peers] == [
        (tokens.Role.NODE, handshake.CONTROL),
        (tokens.Role.READ, handshake.AGENT),
    ]


def test_frames_sent_at_once_after_the_handshake_arrive(ends: Ends) -> None:
    """Neither side takes bytes of the other's first frames for its handshake."""
    server, client = (Talk(stream, ends.poller) for stream in ends.pair())
    server.send(b"from the server")
    client.send(b"from the client")
    ends.until(lambda: server.frames and client.frames)
    assert (server.frames, client.frames) == ([b"from the client"], [b"from the server"])
    server.connection.close()
    client.connection.close()


def test_frame_that_is_there_before_the_connection_is_handed_over_is_not_lost(ends: Ends) -> None:
    with ends.served():
        stream = dialler.connect(ends.address, SUBMIT, handshake.AGENT, timeout_s=LIMIT_S)
        stream.send(b"\x02\0\0\0hi")
    ends.until(lambda: ends.peers)
    server = Talk(ends.peers.pop()[0], ends.poller)
    ends.until(lambda: server.frames)
    assert server.frames == [b"hi"]
    server.connection.close()
    stream.close()


def test_sockets_send_small_messages_at_once_and_notice_a_dead_peer(ends: Ends) -> None:
    for stream in ends.pair():
        assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert not stream.getblocking()
        assert not stream.get_inheritable()
        stream.close()


# ---- addresses ----


@needs_ipv6
def test_ipv6(make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(host="::1")
    assert str(ends.address).startswith("[::1]:")
    ends.dial(address=addresses.parse(str(ends.address)))
    ends.until(lambda: ends.peers and ends.connected)


@needs_ipv6
@pytest.mark.parametrize("host", ["", "::"])
def test_all_addresses_of_the_machine_are_ipv6_and_ipv4(make_ends: Callable[..., Ends], host: str) -> None:
    ends = make_ends(host=host)
    for own in ("127.0.0.1", "::1"):
        ends.dial(address=addresses.Address(own, ends.address.port))
    ends.until(lambda: len(ends.peers) == len(ends.connected) == 2)


def test_refused_ipv4_peer_of_a_socket_for_both_is_logged_as_such(make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(host="")
    ends.stranger(addresses.Address("127.0.0.1", ends.address.port)).send(b"GET / HTTP/1.0\r\n\r\n")
    ends.until(lambda: ends.log)
    assert ends.log[0].startswith("refused a connection from 127.0.0.1: it is not Umbel")


def test_host_that_is_a_name_is_listened_at_and_dialled(make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(host="localhost")
    ends.dial(address=addresses.parse(f"localhost:{ends.address.port}"))
    ends.until(lambda: ends.peers and ends.connected)


@needs_ipv6
def test_second_address_of_a_host_is_tried_when_nobody_is_at_the_first(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = ends.address.port
    both = [(socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, ("127.0.0.1", port))]
    monkeypatch.setattr(addresses, "resolve", lambda _address: both)
    ends.dial()
    ends.until(lambda: ends.peers and ends.connected)
    with ends.served():
        ends.connected.append(dialler.connect(ends.address, SUBMIT, handshake.AGENT, timeout_s=LIMIT_S))


def test_port_that_is_free_at_the_first_address_only_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has it at the second one; another free one is looked for."""
    both = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET, ("127.0.0.2", 0))]
    monkeypatch.setattr(addresses, "resolve", lambda _address: both)
    taken = []
    listener = addresses._listener

    def taking(endpoint: addresses.Endpoint, **options: Any) -> socket.socket:
        if endpoint[1][0] == "127.0.0.2" and len(taken) < 3:
            taken.append(socket.create_server((endpoint[1][0], endpoint[1][1])))
        return listener(endpoint, **options)

    monkeypatch.setattr(addresses, "_listener", taking)
    listeners = addresses.listen(addresses.Address("both.example", 0))
    names = [one.getsockname() for one in listeners]
    assert [name[0] for name in names] == ["127.0.0.1", "127.0.0.2"]
    assert names[0][1] == names[1][1]
    assert names[0][1] not in {one.getsockname()[1] for one in taken}
    for one in (*taken, *listeners):
        one.close()


def test_port_that_is_taken_is_told(ends: Ends) -> None:
    with pytest.raises(OSError, match=f"cannot listen at {ends.address}: Address already in use"):
        addresses.listen(ends.address)


def test_address_that_this_machine_does_not_have_is_told() -> None:
    with pytest.raises(OSError, match=r"cannot listen at 192.0.2.1:0: Cannot assign requested address"):
        addresses.listen(addresses.Address("192.0.2.1", 0))


# ---- who does not get in ----


def test_wrong_token_is_logged_once_and_then_counted(make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(dial_token=WRONG)
    for _ in range(20):
        ends.dial()
    ends.until(lambda: len(ends.failed) == 20)
    assert {type(error) for error in ends.failed} == {exceptions.AuthenticationError}
    assert str(ends.failed[0]) == (
        f"{ends.address} cannot be used: it does not accept this token of the role 'submit'; take the token of its cluster"
    )
    what = "127.0.0.1: its token is not one of this cluster, or not of the role that it claims"
    assert ends.log == [f"refused a connection from {what}"]
    ends.clock.advance(61.0)
    ends.until(lambda: len(ends.log) == 2)
    assert ends.log[1] == f"refused 19 more from 127.0.0.1 within 60 s: {what.removeprefix('127.0.0.1: ')}"
    ends.clock.advance(61.0)
    ends.poll()
    assert (len(ends.log), ends.acceptor.next_tick_s(), ends.peers) == (2, None, [])


def test_role_that_may_not_reach_the_target_is_told_so(make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(dial_token=READ)
    ends.dial(PROCESS)
    ends.until(lambda: ends.failed)
    assert isinstance(ends.failed[0], exceptions.AuthenticationError)
    assert "the role 'read' may not reach process 7070" in str(ends.failed[0])
    assert ends.log == ["refused a connection from 127.0.0.1: its role 'read' may not reach process"]


def test_target_that_is_absent_is_told(make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(decide=lambda _role, _target: handshake.Answer.ABSENT)
    ends.dial(PROCESS)
    ends.until(lambda: ends.failed)
    assert f"there is no {PROCESS} at that address" in str(ends.failed[0])
    assert ends.peers == []


def test_slow_stranger_is_cut_at_the_deadline_however_busy_it_is(ends: Ends) -> None:
    """A byte a second: the time runs from the connection on, not from the last byte."""
    slow = ends.stranger()
    ends.until(lambda: ends.acceptor.stranger_count)
    for byte in PREAMBLE[:5]:
        slow.send(bytes([byte]))
        ends.poll()
        assert ends.acceptor.stranger_count == 1
        ends.clock.advance(1.0)
    ends.until(lambda: not ends.acceptor.stranger_count)
    assert read_to_the_end(slow) == b""
    assert ends.log == ["refused a connection from 127.0.0.1: it did not prove itself within 5 s"]


def test_slow_stranger_is_cut_while_the_challenge_waits_for_its_answer(make_ends: Callable[..., Ends]) -> None:
    """With the real clock, and a deadline to match."""
    ends = make_ends(now_s=time.monotonic, timeout_s=0.2)
    slow = ends.stranger()
    slow.send(PREAMBLE)
    began_s = time.monotonic()
    while not ends.log:
        due_s = ends.acceptor.next_tick_s()
        ends.poller.poll(None if due_s is None else max(0.0, due_s - time.monotonic()))
        ends.acceptor.tick()
        assert time.monotonic() < began_s + LIMIT_S
    assert len(read_to_the_end(slow)) == handshake.CHALLENGE_BYTES


class Listening(socket.socket):
    """A listener whose connections count what is read of them."""

    received = 0
    refuses = 0
    tries = 0

    class Counted(socket.socket):
        def recv(self, *args: Any) -> bytes:
            data = super().recv(*args)
            Listening.received += len(data)
            return data

    def accept(self) -> tuple[socket.socket, Any]:
        Listening.tries += 1
        if Listening.refuses:
            Listening.refuses -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        sock, name = super().accept()
        return Listening.Counted(fileno=sock.detach()), name


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> type[Listening]:
    listen = addresses.listen
    monkeypatch.setattr(addresses, "listen", lambda at: [Listening(fileno=one.detach()) for one in listen(at)])
    Listening.received = Listening.refuses = Listening.tries = 0
    return Listening


@pytest.mark.parametrize("begin", [b"", PREAMBLE], ids=["at once", "after the preamble"])
def test_megabyte_of_garbage_is_not_read(
    listening: type[Listening], make_ends: Callable[..., Ends], begin: bytes
) -> None:
    ends = make_ends()
    garbage = ends.stranger()
    sender = threading.Thread(target=_send_all, args=(garbage, begin + os.urandom(1 << 20)))
    sender.start()
    ends.until(lambda: ends.log)
    sender.join(LIMIT_S)
    assert not sender.is_alive()
    assert 0 < listening.received <= handshake.PREAMBLE_BYTES + handshake.ANSWER_BYTES
    assert (ends.peers, ends.acceptor.stranger_count) == ([], 0)


def _send_all(sock: socket.socket, data: bytes) -> None:
    try:
        sock.sendall(data)
    except OSError as error:  # it was cut off
        assert error.errno in (errno.EPIPE, errno.ECONNRESET)


class Bomb:
    """Whoever unpickles it fails the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)


def test_pickle_of_a_stranger_is_not_opened(ends: Ends) -> None:
    bomb = pickle.dumps(Bomb())
    framed = len(bomb).to_bytes(4, "little") + bomb
    for sent in (framed, PREAMBLE + framed + bytes(100), PREAMBLE + b"\x02" + bytes(64) + framed):
        before = len(ends.log)
        ends.clock.advance(100.0)  # so that the next refusal has a line of its own
        ends.stranger().send(sent)
        ends.until(lambda: len(ends.log) > before)
    assert ends.peers == []


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "it is not Umbel that speaks there, but HTTP or some other text"),
        (b"\x16\x03\x01\x00\xf4\x01", "it speaks TLS from the first byte, which Umbel does not"),
        (handshake.MAGIC + b"\x09", "it speaks version 9 of the handshake, which is newer"),
        (PREAMBLE + b"\x02" + bytes(64), "its token is not one of this cluster"),
    ],
)
def test_each_way_to_be_wrong_has_its_line(ends: Ends, sent: bytes, reason: str) -> None:
    stranger = ends.stranger()
    stranger.send(sent)
    ends.until(lambda: ends.log)
    assert ends.log[0].startswith(f"refused a connection from 127.0.0.1: {reason}")
    read_to_the_end(stranger)


def test_stranger_that_goes_away_in_the_middle_is_logged_and_one_that_only_looks_is_not(ends: Ends) -> None:
    ends.stranger().close()
    ends.until(lambda: not ends.acceptor.stranger_count)
    silent = ends.stranger()
    half = ends.stranger()
    half.send(PREAMBLE[:3])
    ends.until(lambda: ends.acceptor.stranger_count == 2)
    silent.close()
    half.close()
    ends.until(lambda: not ends.acceptor.stranger_count and ends.log)
    assert ends.log == ["refused a connection from 127.0.0.1: it ended the connection before it had proved itself"]


# ---- floods ----


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_flood_of_strangers_is_bounded_and_an_honest_peer_gets_in(make_ends: Callable[..., Ends], source: str) -> None:
    """From the honest peer's own address, and from another."""
    ends = make_ends(stranger_count_max=16)
    to = (ends.address.host, ends.address.port)
    before = _descriptor_count()
    flood: list[socket.socket] = []
    for round_ in range(20):
        if round_ == 10:
            ends.dial()
        burst = [socket.create_connection(to, LIMIT_S, (source, 0)) for _ in range(20)]
        for stranger in burst:
            stranger.send(PREAMBLE[: round_ + 8])
        flood += burst
        ends.poll()
        assert ends.acceptor.stranger_count <= 16
        assert _descriptor_count() - before <= len(flood) + 16 + 2  # theirs, ours, and the honest pair
    ends.until(lambda: ends.peers and ends.connected)
    assert ends.failed == []
    ends.until(lambda: "too many" in "".join(ends.log))
    assert len(ends.log) == 1
    for stranger in flood:
        stranger.close()


def test_slow_honest_peer_is_not_driven_out_by_the_flood_of_another_address(make_ends: Callable[..., Ends]) -> None:
    ends = make_ends(stranger_count_max=16)
    honest = ends.stranger()
    honest.send(PREAMBLE)
    ends.until(lambda: ends.acceptor.stranger_count)
    to = (ends.address.host, ends.address.port)
    flood = [socket.create_connection(to, LIMIT_S, ("127.0.0.2", 0)) for _ in range(100)]
    for _ in range(100):
        ends.poll()
    assert ends.acceptor.stranger_count == 16
    client = handshake.ClientHandshake(SUBMIT, handshake.AGENT, bytes(32), is_tls=False)
    honest.send(client.feed(honest.recv(handshake.CHALLENGE_BYTES)))
    ends.until(lambda: ends.peers)
    for stranger in flood:
        stranger.close()


def _descriptor_count() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_process_without_descriptors_gives_up_strangers_and_goes_on(ends: Ends) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = [ends.stranger() for _ in range(3)]
    ends.until(lambda: ends.acceptor.stranger_count == 3)
    late = ends.stranger()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), limits[1]))
    fillers = []
    try:
        try:
            while True:
                fillers.append(os.dup(0))
        except OSError as error:
            assert error.errno == errno.EMFILE
        ends.poll()
        assert any("Too many open files" in line for line in ends.log)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for filler in fillers:
            os.close(filler)
    late.send(b"x")
    ends.until(lambda: any("not Umbel" in line for line in ends.log))
    assert read_to_the_end(waiting[0]) == b""  # the oldest went


def test_process_without_descriptors_and_strangers_pauses_instead_of_asking_without_end(
    listening: type[Listening], make_ends: Callable[..., Ends]
) -> None:
    ends = make_ends()
    listening.refuses = 1
    ends.stranger().send(b"x")
    for _ in range(5):
        ends.poll()
    assert listening.tries == 1
    assert ends.log == ["refused a connection from any address: Too many open files; raise the limit of open files"]
    due_s = ends.acceptor.next_tick_s()
    assert due_s is not None
    ends.clock.advance(due_s - ends.clock.now_s())
    ends.until(lambda: len(ends.log) == 2)
    assert "it is not Umbel" in ends.log[1]


# ---- connections for other processes ----


def test_connection_for_another_process_is_passed_on_with_what_was_read(make_ends: Callable[..., Ends]) -> None:
    """By a Unix socket, as to another process; it makes the handshake itself, with the keys that it has."""
    ours, theirs = socket.socketpair()

    def divert(sock: socket.socket, preamble: handshake.Preamble) -> bool:
        if preamble.target != PROCESS:
            return False
        socket.send_fds(ours, [preamble.data], [sock.fileno()])
        sock.close()
        return True

    ends = make_ends(divert=divert, token=NODE)
    peers: list[tuple[tokens.Role, handshake.Target]] = []
    other = acceptor.Acceptor(
        ends.poller,
        SUBMIT,
        lambda stream, role, target: (peers.append((role, target)), stream.close()),
        now_s=ends.clock.now_s,
        warn=ends.log.append,
    )
    ends.dial(PROCESS)
    ends.dial(handshake.AGENT)
    ends.until(lambda: len(ends.peers) == 1 and _is_readable(theirs))
    preamble, (descriptor,), _flags, _name = socket.recv_fds(theirs, 100, 1)
    other.adopt(socket.socket(fileno=descriptor), preamble, "127.0.0.1")
    ends.until(lambda: peers and len(ends.connected) == 2)
    assert peers == [(tokens.Role.SUBMIT, PROCESS)]
    assert [target for _stream, _role, target in ends.peers] == [handshake.AGENT]
    assert (ends.log, ends.acceptor.stranger_count, other.stranger_count) == ([], 0, 0)
    ours.close()
    theirs.close()


def _is_readable(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def test_adopted_connection_with_a_broken_preamble_is_refused(ends: Ends) -> None:
    ours, theirs = socket.socketpair()
    ends.acceptor.adopt(theirs, PREAMBLE[:-1], "10.0.0.7")
    assert ends.log == ["refused a connection from 10.0.0.7: a preamble has 27 bytes, there were 26"]
    assert ours.recv(1) == b""
    ours.close()


# ---- dialling what is not there ----


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_nobody_at_the_address_is_told(ends: Ends) -> None:
    address = addresses.Address("127.0.0.1", _free_port())
    wanted = (
        f"nothing can be reached at {address} (127.0.0.1: Connection refused); is the node there, and the port open?"
    )
    ends.dial(address=address)
    ends.until(lambda: ends.failed)
    assert (type(ends.failed[0]), str(ends.failed[0])) == (ConnectionError, wanted)
    with pytest.raises(ConnectionError) as caught:
        dialler.connect(address, SUBMIT, handshake.AGENT)
    assert str(caught.value) == wanted


class Held:
    """What a program has in a local variable."""


def _polls(ends: Ends) -> weakref.ref[Held]:
    """As a thread does that waits for a result."""
    held = Held()
    ends.until(lambda: ends.failed)
    return weakref.ref(held)


@pytest.mark.parametrize("is_late", [False, True])
def test_an_error_that_is_kept_keeps_nothing_of_who_polled(ends: Ends, *, is_late: bool) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    ends.dial(address=addresses.Address("127.0.0.1", silent.getsockname()[1] if is_late else _free_port()))
    if is_late:
        ends.poll()
        ends.clock.advance(20.0)
    held = _polls(ends)
    assert ends.failed
    assert held() is None
    silent.close()


def test_server_that_says_nothing_is_given_up_in_time(ends: Ends) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # the system accepts for it
    address = addresses.Address("127.0.0.1", silent.getsockname()[1])
    ends.dial(address=address)
    ends.poll()
    ends.clock.advance(9.9)
    ends.poll()
    assert ends.failed == []
    ends.clock.advance(0.2)
    ends.until(lambda: ends.failed)
    wanted = f"{address} was connected, but its handshake did not end in time"
    assert (type(ends.failed[0]), str(ends.failed[0])) == (TimeoutError, wanted)
    assert ends.dialler.next_tick_s() is None
    with pytest.raises(TimeoutError, match=wanted):
        dialler.connect(address, SUBMIT, handshake.AGENT, timeout_s=0.1)
    silent.close()


@pytest.mark.parametrize(
    ("reply", "error", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", exceptions.AuthenticationError, "not Umbel that speaks there, but HTTP"),
        (b"", ConnectionError, "it ended the connection before it had proved itself; trying again is safe"),
        (handshake.MAGIC + b"\x02", exceptions.AuthenticationError, "it speaks version 2 of the handshake"),
        (handshake.MAGIC + b"\x01\x00" + bytes(32) + b"\x01" + bytes(32), exceptions.AuthenticationError, "cannot prove"),
    ],
)  # fmt: skip
def test_server_that_is_none_of_the_cluster_is_refused(
    ends: Ends, reply: bytes, error: type[Exception], text: str
) -> None:
    impostor = socket.create_server(("127.0.0.1", 0))
    ends.dial(address=addresses.Address("127.0.0.1", impostor.getsockname()[1]))
    sock, _name = impostor.accept()
    sock.send(reply)
    sock.shutdown(socket.SHUT_WR)
    ends.until(lambda: ends.failed)
    assert isinstance(ends.failed[0], error)
    assert text in str(ends.failed[0])
    sock.close()
    impostor.close()


def test_slow_lookup_of_a_name_stops_nobody_and_is_given_up_in_time(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    resolve = addresses.resolve

    def slow(address: addresses.Address) -> list[addresses.Endpoint]:
        if address.host == "slow.example":
            assert answers.wait(LIMIT_S)
        return resolve(addresses.Address("127.0.0.1", address.port))

    monkeypatch.setattr(addresses, "resolve", slow)
    ends.dial(address=addresses.Address("slow.example", ends.address.port))
    ends.dial()
    ends.until(lambda: ends.connected)
    ends.clock.advance(10.1)
    ends.until(lambda: ends.failed)
    assert str(ends.failed[0]) == f"the name in slow.example:{ends.address.port} was not found within 10 s"
    ends.dial(address=addresses.Address("slow.example", ends.address.port))
    answers.set()
    ends.until(lambda: len(ends.connected) == 2)


def test_name_that_is_not_found_is_told(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: Any, **_options: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    ends.dial(address=addresses.Address("nobody.example", 1))
    ends.until(lambda: ends.failed)
    assert str(ends.failed[0]) == "the host of nobody.example:1 cannot be found: Name or service not known"
    with pytest.raises(ConnectionError, match=r"the host of nobody\.example:1 cannot be found"):
        dialler.connect(addresses.Address("nobody.example", 1), SUBMIT, handshake.AGENT)


def test_closing_leaves_no_descriptor(make_ends: Callable[..., Ends]) -> None:
    before = _descriptor_count()
    ends = Ends()
    silent = socket.create_server(("127.0.0.1", 0))
    ends.dial(address=addresses.Address("127.0.0.1", silent.getsockname()[1]))
    ends.stranger()
    ends.until(lambda: ends.acceptor.stranger_count)
    ends.dial()
    ends.until(lambda: ends.peers and ends.connected)
    ends.close()
    silent.close()
    assert _descriptor_count() == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not tell")
def test_what_the_other_side_has_not_acknowledged_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        assert addresses.unacknowledged_bytes(sock.fileno()) == 0
        sock.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sock.send(bytes(1_000_000))  # nobody reads
        assert 0 < addresses.unacknowledged_bytes(sock.fileno()) < sent
    assert addresses.unacknowledged_bytes(sock.fileno()) == 1
