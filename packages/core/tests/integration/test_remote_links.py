"""Links between processes of different nodes, on real sockets: the ends of several processes in this one.

Each node is an acceptor that passes connections on to the doors of its processes, as the daemon does; the test answers where
nodes are. Each process has a reactor, and so a thread, of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from drivers import pause
from drivers import wait_until as until
from tcp_nodes import LIMIT_S, NODE, SUBMIT, WRONG, read_to_the_end

from umbel._agent import door
from umbel._base import nodes
from umbel._client import links, remote_links
from umbel._transport import acceptor, addresses, connection, dialler, reactor
from umbel._wire import handshake, messages

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="descriptors are counted through /proc")

SAY = 99  # a message of these tests


def descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(found)


class Machine:
    """A node's daemon, as far as connections of its processes go."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.id = nodes.new_node_id()
        self.tag = nodes.tag_of_node(self.id)
        self.log: list[str] = []
        self.reactor = reactor.Reactor(self._housekeep, name="daemon")
        self.acceptor = acceptor.Acceptor(
            self.reactor.poller,
            NODE,
            lambda stream, _role, _target: stream.close(),
            now_s=time.monotonic,
            warn=self.log.append,
            decide=lambda _role, target: (
                handshake.Answer.WELCOME if target == handshake.AGENT else handshake.Answer.ABSENT
            ),
            divert=self._divert,
        )
        self.address = self.acceptor.listen(addresses.Address("127.0.0.1", 0))
        self.reactor.poke()

    def _housekeep(self) -> float | None:
        return None

    def door_of(self, process_id: bytes) -> str:
        return f"{self.directory}/{process_id.hex()}.door"

    def _divert(self, sock: socket.socket, preamble: handshake.Preamble) -> bool:
        is_process = preamble.target.kind is handshake.TargetKind.PROCESS
        return is_process and door.pass_on(sock, preamble.data, self.door_of(preamble.target.id))

    def close(self) -> None:
        self.reactor.close()
        self.acceptor.close()


class Process:
    """The links of one process."""

    def __init__(
        self, node: Machine, where: Callable[[bytes], str | None], known: tuple[bytes, socket.socket] | None
    ) -> None:
        """where: the address of a node; None to leave the question open. known: its id and door, if others know it already."""
        self.id = known[0] if known is not None else nodes.new_process_id(node.id)
        self.node = node
        self.lock = threading.RLock()
        self.heard: list[tuple[bytes, Any]] = []
        self.gone: list[bytes] = []
        self.begun_again: list[bytes] = []
        self.asked: list[str] = []
        self._where = where
        self.remote: remote_links.RemoteLinks | None = None
        self.reactor = reactor.Reactor(self._housekeep, name="process")
        self.links = links.Links(self.id, node.directory, self.reactor.poller, self._on_messages, self._on_gone)
        self.links.on_again = lambda link: self.begun_again.append(link.peer)
        self.remote = self.links.remote = remote_links.RemoteLinks(
            self.links, self.id, SUBMIT.as_text(), known[1] if known else connection.listen_unix(node.door_of(self.id)),
            self.reactor, self.lock, self._notify,
        )  # fmt: skip
        self.reactor.poke()

    def _housekeep(self) -> float | None:
        return self.remote.housekeep(time.monotonic()) if self.remote is not None else None

    def _on_messages(self, link: links.Link, batch: list[tuple[Any, ...]]) -> None:
        with self.lock:
            if batch[0][0] == messages.HELLO and not self.links.named(link, *batch.pop(0)[1:]):
                return
            self.heard += [(link.peer, message[1]) for message in batch]

    def _on_gone(self, link: links.Link) -> None:
        self.gone.append(link.peer)

    def _notify(self, message: dict[str, Any]) -> None:
        if message["t"] == "reach":
            self.tell({"t": "unreached", "ticket": message["ticket"], "reason": "there is no head here"})
            return
        self.asked.append(message["node"])
        address = self._where(bytes.fromhex(message["node"]))
        if address is not None:
            self.tell({"t": "node_at", "node": message["node"], "address": address, "is_dialled": True})

    def tell(self, message: dict[str, Any]) -> None:
        """What the daemon says."""
        assert self.remote is not None
        with self.lock:
            self.remote.on_notice(message)

    def say(self, peer: Process, *values: Any) -> links.Link:
        with self.lock:
            link = self.links.to(peer.id)
            assert link is not None
            for value in values:
                link.post((SAY, value))
                link.flush()
        return link

    def close(self) -> None:
        self.links.close()
        self.reactor.close()


class World:
    """Nodes and processes that know of each other."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.machines: list[Machine] = []
        self.processes: list[Process] = []
        self.addresses: dict[bytes, str | None] = {}

    def machine(self) -> Machine:
        path = os.path.join(self.directory, str(len(self.machines)))
        os.mkdir(path)
        made = Machine(path)
        self.machines.append(made)
        self.addresses[made.tag] = str(made.address)
        return made

    def process(self, node: Machine | None = None, *, known: tuple[bytes, socket.socket] | None = None) -> Process:
        """On a node of its own, unless one is named."""
        made = Process(node or self.machine(), lambda tag: self.addresses.get(tag, ""), known)
        self.processes.append(made)
        return made

    def close(self) -> None:
        for one in [*self.processes, *self.machines]:
            one.close()


@pytest.fixture
def world() -> Iterator[World]:
    """Nothing of it is open when it has been closed."""
    before = descriptors()
    directory = tempfile.mkdtemp(prefix="u", dir="/tmp")
    made = World(directory)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(directory, ignore_errors=True)
    assert [one for one in descriptors() if one.startswith("socket:")] == [
        one for one in before if one.startswith("socket:")
    ]


# ---- connecting ----


def test_what_is_said_before_there_is_a_connection_arrives_in_order(world: World) -> None:
    here, there = world.process(), world.process()
    link = here.say(there, *range(200))
    assert isinstance(link, links.Link)
    until(lambda: len(there.heard) == 200)
    assert there.heard == [(here.id, number) for number in range(200)]
    assert here.asked == [there.node.tag.hex()]
    there.say(here, "back")  # by the same connection
    until(lambda: here.heard)
    assert (here.heard, there.asked) == ([(there.id, "back")], [])
    assert here.gone == there.gone == []


def test_nothing_is_all_sent_while_something_waits_for_a_connection(world: World) -> None:
    here, there = world.process(), world.process()
    world.addresses[there.node.tag] = None
    assert here.links.is_all_sent()
    here.say(there, "one")
    assert not here.links.is_all_sent()
    here.tell({"t": "node_at", "node": there.node.tag.hex(), "address": str(there.node.address), "is_dialled": True})
    until(lambda: there.heard)
    until(here.links.is_all_sent)


def test_what_the_other_machine_has_not_acknowledged_is_not_all_sent(world: World) -> None:
    """A process that ends now takes it along if it has not read what the other sent it. The other process is busy: what it
    is sent fills the buffers of both kernels, and then waits."""
    here, there = world.process(), world.process()
    here.say(there, "one")
    until(lambda: there.heard and here.links.is_all_sent())
    assert here.remote is not None
    with there.lock:  # its thread gets no further than this
        while here.remote.has_all_arrived():
            here.say(there, bytes(1_000_000))
    until(here.links.is_all_sent)


@pytest.fixture
def brief_silence() -> Iterator[None]:
    """For a second a machine may be silent."""
    before_s = addresses.borne_s()
    addresses.bear(1.0)
    yield
    addresses.bear(before_s)


@pytest.mark.usefixtures("brief_silence")
def test_process_that_does_not_read_for_long_is_not_cut_off(world: World) -> None:
    """It computes, say, and lets nothing else run; its machine answers for it. Before: after a minute the system broke the
    connection, if more was sent there than it keeps."""
    here, there = world.process(), world.process()
    here.say(there, "one")
    there.say(here, "two")
    until(lambda: here.heard and there.heard)
    with there.lock:  # its thread gets no further than this
        for _ in range(32):  # which is more than both kernels keep
            link = here.say(there, bytes(1_000_000))
        assert link.stream is not None
        assert link.stream.queued_bytes
        pause(remote_links.ANSWER_S + 2.0)
        assert here.gone == there.gone == []
    here.say(there, "last")
    until(lambda: there.heard[-1] == (here.id, "last"))
    assert here.gone == there.gone == []


def test_links_of_the_own_node_stay_what_they_were(world: World) -> None:
    node = world.machine()
    one, other = world.process(node), world.process(node)
    link = one.say(other, "near")
    assert isinstance(link.stream, connection.Connection)
    until(lambda: other.heard == [(one.id, "near")])
    assert (one.asked, other.asked) == ([], [])


def test_both_that_dial_at_once_have_two_connections_and_hear_each_other_in_order(world: World) -> None:
    here, there = world.process(), world.process()
    for _ in range(3):
        with here.lock, there.lock:
            here.say(there, *range(50))
            there.say(here, *range(50))
    until(lambda: len(here.heard) == len(there.heard) == 150)
    assert there.heard == [(here.id, number) for number in range(50)] * 3
    assert here.heard == [(there.id, number) for number in range(50)] * 3
    assert {len(one.links.twins.get(other.id, ())) for one, other in ((here, there), (there, here))} <= {0, 1}
    assert here.gone == there.gone == []


def test_process_that_cannot_be_dialled_but_has_dialled_us_is_talked_to_by_that(world: World) -> None:
    """One side is behind a NAT: its address leads nowhere, and what waits for it goes by the connection that it made."""
    here, hidden = world.process(), world.process()
    world.addresses[hidden.node.tag] = None
    here.say(hidden, "to", "you")  # waits for the address
    hidden.say(here, "hello")
    until(lambda: here.heard)
    here.tell({"t": "node_at", "node": hidden.node.tag.hex(), "address": _nowhere(), "is_dialled": True})
    until(lambda: len(hidden.heard) == 2)
    assert hidden.heard == [(here.id, "to"), (here.id, "you")]
    here.say(hidden, "more")
    until(lambda: len(hidden.heard) == 3)
    assert here.gone == hidden.gone == []


def _nowhere() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


# ---- what does not come about ----


@pytest.mark.parametrize("why", ["unknown node", "nobody listens", "no such process", "wrong token"])
def test_process_that_cannot_be_connected_to_is_gone_as_one_that_died(world: World, why: str) -> None:
    here, there = world.process(), world.process()
    if why == "unknown node":
        world.addresses[there.node.tag] = ""
    elif why == "nobody listens":
        world.addresses[there.node.tag] = _nowhere()
    elif why == "wrong token":
        assert there.remote is not None
        there.remote._token_text = WRONG.as_text()
    else:
        there.id = nodes.new_process_id(there.node.id)
    with here.lock:
        link = here.say(there, "lost")
        assert here.gone == []  # not from within
    until(lambda: here.gone)
    assert here.gone == [there.id]
    assert link.stream is not None
    assert link.stream.is_closed
    assert here.links.is_all_sent()
    assert there.id not in here.links.by_peer
    assert there.heard == []


def test_process_that_ends_while_it_is_dialled_is_gone(world: World) -> None:
    """The connection lies in the queue of its door, which nobody looks at, when it ends."""
    node, here = world.machine(), world.process()
    stuck = nodes.new_process_id(node.id)
    queue = connection.listen_unix(node.door_of(stuck))
    with here.lock:
        here.links.to(stuck)
    way = _accepted(queue)
    data, passed, _, _ = socket.recv_fds(way, 1000, 1)
    assert data == handshake.encode_preamble(handshake.process(stuck), is_tls=False) + b"127.0.0.1"
    for descriptor in passed:
        os.close(descriptor)
    way.close()
    queue.close()
    os.unlink(node.door_of(stuck))
    until(lambda: here.gone == [stuck])
    assert node.acceptor.stranger_count == 0


def _accepted(listener: socket.socket) -> socket.socket:
    listener.setblocking(True)
    listener.settimeout(LIMIT_S)
    return listener.accept()[0]


def test_full_queue_of_a_busy_process_ends_dials_cleanly_and_they_are_begun_again(world: World) -> None:
    """The process takes nothing for a while: what finds no place in its queue is closed, and has another try."""
    node, here = world.machine(), world.process()
    busy = nodes.new_process_id(node.id)
    queue = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    queue.bind(node.door_of(busy))
    queue.listen(0)
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        full.connect(node.door_of(busy))
        stranger = stack.enter_context(socket.create_connection(tuple(node.address), timeout=LIMIT_S))
        stranger.sendall(handshake.encode_preamble(handshake.process(busy), is_tls=False))
        assert read_to_the_end(stranger) == b""
        refused = "refused a connection from 127.0.0.1: the process that it wants has as many to take as may wait"
        until(lambda: node.log == [refused])  # it is closed first
        with here.lock:
            here.links.to(busy)
        until(lambda: here.remote is not None and here.remote._peers.next_tick_s() is not None)
        _accepted(queue).close()  # there is room again
        way = _accepted(queue)
        way.close()
    queue.close()
    os.unlink(node.door_of(busy))
    until(lambda: here.gone == [busy])


# ---- ends ----


@pytest.mark.parametrize("side", ["the one that dialled", "the other"])
def test_connection_that_breaks_is_seen_by_both(world: World, side: str) -> None:
    here, there = world.process(), world.process()
    with here.lock, there.lock:
        here.say(there, "one")
        there.say(here, "two")
    until(lambda: here.heard and there.heard)
    breaks, other = (here, there) if side == "the one that dialled" else (there, here)
    stream = breaks.links.by_peer[other.id].stream
    assert isinstance(stream, connection.Connection)
    sock = socket.socket(fileno=os.dup(stream.fileno()))
    sock.shutdown(socket.SHUT_RDWR)
    sock.close()
    until(lambda: other.id in breaks.gone and breaks.id in other.gone)
    until(lambda: not breaks.links.by_peer and not other.links.by_peer)
    assert not breaks.links.twins
    assert not other.links.twins
    breaks.say(other, "again")  # a link of its own, which has nothing to do with the first
    until(lambda: other.heard[-1] == (breaks.id, "again"))


def test_a_link_that_follows_a_broken_one_is_told_to_begin_again_at_both_ends(world: World) -> None:
    here, there = world.process(), world.process()
    here.say(there, "one")
    until(lambda: there.heard)
    assert here.begun_again == there.begun_again == []
    link = here.links.by_peer[there.id]
    assert isinstance(link.stream, connection.Connection)
    with socket.socket(fileno=os.dup(link.stream.fileno())) as sock:
        sock.shutdown(socket.SHUT_RDWR)
    until(lambda: here.gone and there.gone)
    assert here.links.may_live(link)
    here.say(there, "two")
    until(lambda: there.heard[-1:] == [(here.id, "two")])
    assert (here.begun_again, there.begun_again) == ([there.id], [here.id])


def test_who_connects_anew_ends_what_the_other_has_not_seen_the_end_of(world: World) -> None:
    from umbel._wire import data_frames

    node, here = world.machine(), world.process()
    there = nodes.new_process_id(node.id)
    first = _proved(here)
    first.send(data_frames.encode([(messages.HELLO, there, 1), (SAY, "one")]))
    until(lambda: here.heard)
    second = _proved(here)
    second.send(data_frames.encode([(messages.HELLO, there, 2), (SAY, "two")]))
    until(lambda: len(here.heard) == 2)
    assert (here.gone, here.begun_again) == ([there], [there])
    first.setblocking(True)
    assert read_to_the_end(first) == b""  # type: ignore[arg-type]
    third = _proved(here)  # it was dialled before the first had ended
    third.send(data_frames.encode([(messages.HELLO, there, 2), (SAY, "three")]))
    until(lambda: len(here.heard) == 3)
    assert here.gone == [there]
    for stream in (first, second, third):
        stream.close()
    until(lambda: not here.links.by_peer)


def test_a_process_that_is_not_there_any_more_is_gone_for_good(world: World) -> None:
    here, there = world.process(), world.process()
    here.say(there, "one")
    until(lambda: there.heard)
    first = here.links.by_peer[there.id]
    world.processes.remove(there)
    there.close()
    os.unlink(there.node.door_of(there.id))
    until(lambda: here.gone)
    assert here.links.may_live(first)
    with here.lock:
        second = here.links.to(there.id)
    assert second is not None
    until(lambda: len(here.gone) == 2)
    assert not here.links.may_live(second)


def test_dial_that_ends_after_its_link_is_not_taken_for_that_of_the_next(world: World) -> None:
    """A slow process is dialled, and its own connection to us breaks: that is its end. Then it is dialled anew."""
    from umbel._wire import data_frames

    node, here = world.machine(), world.process()
    slow_id = nodes.new_process_id(node.id)
    queue = connection.listen_unix(node.door_of(slow_id))
    with here.lock:
        link = here.links.to(slow_id)
        assert link is not None
        link.post((SAY, "lost"))
        link.flush()
    stream = _proved(here)
    stream.send(data_frames.encode([(messages.HELLO, slow_id), (SAY, "one")]))
    until(lambda: here.heard)
    stream.close()
    until(lambda: here.gone == [slow_id, slow_id])  # of both links between the two
    with here.lock:
        link = here.links.to(slow_id)
        assert link is not None
        link.post((SAY, "again"))
        link.flush()
    slow = world.process(node, known=(slow_id, queue))
    until(lambda: slow.heard)
    assert slow.heard == [(here.id, "again")]
    until(lambda: slow.remote is not None and not slow.remote._unnamed)
    assert (here.gone, slow.gone) == ([slow_id, slow_id], [])


def test_what_a_process_said_last_arrives_before_its_end(world: World) -> None:
    here, there = world.process(), world.process()
    with here.lock, there.lock:
        here.say(there, 0)
        there.say(here, 0)
    until(lambda: here.heard and there.heard)
    with there.lock:
        here.say(there, *range(1, 100))
        until(here.links.is_all_sent)
        here.links.close()
    until(lambda: there.gone)
    assert there.heard == [(here.id, number) for number in range(100)]


@pytest.mark.parametrize("seed", range(3))
def test_connections_cut_at_random_leave_nobody_mute_and_nothing_behind(
    world: World, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """Four processes talk, dial each other at once, and are cut off from each other again and again."""
    processes = [world.process() for _ in range(4)]

    def talk(process: Process) -> None:
        chance = random.Random(f"{seed} {processes.index(process)}")
        for number in range(300):
            peer = chance.choice([one for one in processes if one is not process])
            with process.lock:
                process.say(peer, number)
                stream = process.links.by_peer[peer.id].stream
                if chance.random() < 0.1 and isinstance(stream, connection.Connection):
                    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(stream.fileno())) as sock:
                        sock.shutdown(socket.SHUT_RDWR)
            if chance.random() < 0.3:
                pause(chance.random() * 0.004)

    threads = [threading.Thread(target=talk, args=(process,)) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()

    def is_quiet() -> bool:
        """Nothing that was cut is still to be noticed."""
        return all(
            {peer.id for peer in processes if process.id in peer.links.by_peer} == process.links.by_peer.keys()
            for process in processes
        ) and not any(
            isinstance(link.stream, remote_links.Waiting) for one in processes for link in one.links.by_peer.values()
        )

    until(is_quiet)
    pairs = [(one, other) for one in processes for other in processes if one is not other]
    for one, other in pairs:
        one.say(other, "last")
    until(lambda: all((one.id, "last") in other.heard for one, other in pairs))
    for process in processes:
        assert process.remote is not None
        with process.lock:
            process.remote._peers.check()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_death_of_a_node_ends_all_links_to_it_and_no_others(world: World) -> None:
    here, other = world.process(), world.process()
    dead = world.machine()
    connected, asked_for = world.process(dead), world.process(dead)
    dials_us = world.process(dead)
    here.say(connected, "one")
    here.say(other, "one")
    dials_us.say(here, "hello")
    until(lambda: connected.heard and other.heard and here.heard)
    queue = connection.listen_unix(dead.door_of(stuck := nodes.new_process_id(dead.id)))
    with here.lock:
        here.links.to(stuck)  # dialled without end
    assert here.gone == []
    here.tell({"t": "node_gone", "node": dead.tag.hex()})
    until(lambda: len(here.gone) == 3)
    assert sorted(here.gone) == sorted([connected.id, dials_us.id, stuck])
    assert list(here.links.by_peer) == [other.id]
    with here.lock:
        assert here.links.to(asked_for.id) is None
    until(lambda: here.id in connected.gone)
    dials_us.say(here, "I live")  # nobody of a dead node comes back
    until(lambda: dials_us.gone.count(here.id) == 2)
    assert (dials_us.id, "I live") not in here.heard
    queue.close()


def test_death_of_a_node_ends_links_that_wait_for_its_address(world: World) -> None:
    here, there = world.process(), world.process()
    world.addresses[there.node.tag] = None
    here.say(there, "lost")
    here.tell({"t": "node_gone", "node": there.node.tag.hex()})
    until(lambda: here.gone == [there.id])
    here.tell(
        {"t": "node_at", "node": there.node.tag.hex(), "address": str(there.node.address), "is_dialled": True}
    )  # said before it
    with here.lock:
        assert here.links.to(there.id) is None


# ---- who comes ----


def _proved(process: Process) -> connection.Stream:
    return dialler.connect(process.node.address, SUBMIT, handshake.process(process.id), timeout_s=LIMIT_S)


@pytest.mark.parametrize("what", ["own id", "id of this node", "no id"])
def test_peer_that_says_it_is_what_does_not_come_by_tcp_is_cut_off(
    world: World, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    from umbel._wire import data_frames

    node = world.machine()
    here, near = world.process(node), world.process(node)
    near.say(here, "one")
    until(lambda: here.heard)
    said = {"own id": here.id, "id of this node": near.id, "no id": "x"}[what]
    stream = _proved(here)
    stream.send(data_frames.encode([(messages.HELLO, said), (SAY, "forged")]))
    stream.setblocking(True)
    assert read_to_the_end(stream) == b""  # type: ignore[arg-type]
    stream.close()
    assert "which said that it is" in caplog.text
    near.say(here, "two")
    here.say(near, "three")
    until(lambda: len(here.heard) == 2 and near.heard)
    assert here.heard == [(near.id, "one"), (near.id, "two")]
    assert here.gone == []


def test_peer_that_says_who_it_is_twice_stays_the_first(world: World) -> None:
    from umbel._wire import data_frames

    here, other = world.process(), world.process()
    name = nodes.new_process_id(other.node.id)
    stream = _proved(here)
    stream.send(data_frames.encode([(messages.HELLO, name)]))
    stream.send(data_frames.encode([(messages.HELLO, other.id), (SAY, "one")]))
    until(lambda: here.heard)
    assert here.heard == [(name, "one")]
    assert list(here.links.by_peer) == [name]
    stream.close()
    until(lambda: here.gone == [name])


def test_flood_of_strangers_costs_a_process_a_bounded_number_of_descriptors_and_keeps_nobody_out(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    here, there = world.process(), world.process()
    before = len(descriptors())
    preamble = handshake.encode_preamble(handshake.process(there.id), is_tls=False)
    with contextlib.ExitStack() as stack:
        for number in range(300):
            stranger = stack.enter_context(socket.create_connection(tuple(there.node.address), timeout=LIMIT_S))
            stranger.sendall(preamble)
            if number % 2:
                with contextlib.suppress(ConnectionError):
                    stranger.recv(handshake.CHALLENGE_BYTES, socket.MSG_WAITALL)
                    stranger.sendall(bytes(handshake.ANSWER_BYTES))
        here.say(there, "let me in")
        until(lambda: there.heard)
        assert there.remote is not None
        assert there.remote._acceptor is not None
        assert there.remote._acceptor.stranger_count <= acceptor.STRANGER_COUNT_MAX
        assert there.node.acceptor.stranger_count == 0
        assert len(descriptors()) <= before + 300 + acceptor.STRANGER_COUNT_MAX + 10
    until(lambda: there.remote is not None and there.remote._acceptor.stranger_count == 0)  # type: ignore[union-attr]
    until(lambda: len(descriptors()) <= before + 4)  # the link's two ends, and what the reactors have opened
    lines = [record for record in caplog.records if "refused a connection" in record.message]
    assert 1 <= len(lines) <= 4, [record.message for record in lines]


def test_connection_passed_on_is_not_inherited_by_programs(world: World) -> None:
    here, there = world.process(), world.process()
    here.say(there, "one")
    until(lambda: there.heard)
    stream = there.links.by_peer[here.id].stream
    assert isinstance(stream, connection.Connection)
    assert not os.get_inheritable(stream.fileno())


def test_door_that_hears_nonsense_goes_on(world: World) -> None:
    """Only processes of this user can reach it."""
    here, there = world.process(), world.process()
    path = there.node.door_of(there.id)
    read_end, write_end = os.pipe()
    for data, passed in ((b"", []), (b"x", []), (b"x" * 100, [read_end]), (b"x" * 27, [write_end])):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as way:
            way.connect(path)
            if data:
                socket.send_fds(way, [data], passed)
    os.close(read_end)
    os.close(write_end)
    here.say(there, "one")
    until(lambda: there.heard)
    assert there.heard == [(here.id, "one")]
