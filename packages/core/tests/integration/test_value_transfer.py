"""Values go from node to node over real connections, into and out of real files."""

from __future__ import annotations

import os
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tcp_nodes import NODE, Ends
from value_nodes import CAPACITY_BYTES, CHUNK_BYTES, ValueNode, ValueNodes

from umbel import exceptions
from umbel._agent import pull_commands
from umbel._base import nodes
from umbel._transport import addresses, bulk, dialler
from umbel._wire import handshake

X, Y = "0a" * 14, "0b" * 14
BYTES = 5 * CHUNK_BYTES + 123


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ValueNodes]:
    cluster = ValueNodes(tmp_path)
    yield cluster
    cluster.close()


def some(size_bytes: int = BYTES) -> bytes:
    return os.urandom(size_bytes)


def files_of(node: ValueNode) -> list[str]:
    return os.listdir(node.folder / "store")


@pytest.mark.parametrize("size_bytes", [0, 1, 4096, CHUNK_BYTES, CHUNK_BYTES + 1, 30 * CHUNK_BYTES + 5])
def test_value_arrives_as_it_was_written(cluster: ValueNodes, size_bytes: int) -> None:
    origin, reader = cluster.add(), cluster.add()
    data = some(size_bytes)
    reader.want(X, size_bytes, (origin, origin.put(data)))
    cluster.until(lambda: reader.got)
    assert reader.read()[:size_bytes] == data
    assert origin.mover.sent_bytes == size_bytes


def test_copy_is_read_by_processes_like_any_segment(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(), cluster.add()
    data = some()
    reader.want(X, BYTES, (origin, origin.put(data)))
    cluster.until(lambda: reader.got)
    view = reader.owner.open(reader.got["a"], BYTES)
    assert bytes(view.buffer) == data
    reader.mover.unwanted(X, "a")
    reader.store.reserve("a process", 1, CAPACITY_BYTES)  # it gets what is free
    reader.store.reserve("a process", 2, BYTES)
    assert files_of(reader) == []
    assert bytes(view.buffer) == data  # who looks at it goes on


def test_pages_of_a_dead_copy_are_written_over(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(), cluster.add()
    for number in range(3):
        data = some()
        reader.want(f"0{number}", BYTES, (origin, origin.put(data)), asker=str(number))
        cluster.until(lambda asker=str(number): asker in reader.got)
        assert reader.read(str(number))[:BYTES] == data
        reader.mover.unwanted(f"0{number}", str(number))
        reader.mover.freed(f"0{number}")
    assert len(files_of(reader)) == 1
    assert len(set(reader.got.values())) == 1


def test_copy_is_counted_and_goes_when_processes_want_the_room(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(), cluster.add()
    reader.want(X, BYTES, (origin, origin.put(some())))
    cluster.until(lambda: reader.got)
    held = reader.store.ledger.held[reader.values.client]
    assert BYTES <= held < BYTES + 4096
    reader.store.reserve("a process", 1, CAPACITY_BYTES)
    reader.store.reserve("a process", 2, held)
    assert files_of(reader) != []  # somebody looks at it
    reader.mover.unwanted(X, "a")
    cluster.until(lambda: reader.values.client not in reader.store.ledger.held)
    assert files_of(reader) == []


def test_pull_that_finds_no_room_says_so(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(), cluster.add()
    reader.store.reserve("a process", 1, CAPACITY_BYTES)
    reader.want(X, BYTES, (origin, origin.put(some())))
    reason = reader.mover.reason(X)
    assert reason is not None
    assert "bytes of room in this node's store" in str(reason)
    cluster.until(lambda: reader.errors)
    code, text = reader.errors["a"]
    assert code == "full"
    assert "the object store of 8388608 bytes is full" in text


def test_memory_that_is_used_again_while_it_is_sent_is_taken_for_nothing(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(), cluster.add()
    segment = origin.put(some(60 * CHUNK_BYTES))
    reader.want(X, 60 * CHUNK_BYTES, (origin, segment))
    cluster.until(lambda: X in reader.mover.pulls.pulls and reader.mover.pulls.pulls[X].arrived)
    origin.owner.free(segment)
    assert origin.put(some(60 * CHUNK_BYTES)) == segment  # it has the same name, size and pages
    cluster.until(lambda: reader.errors or reader.got)
    assert reader.errors["a"][0] == "lost"
    assert files_of(reader) == []


def test_generation_does_not_change_while_a_value_is_only_read(cluster: ValueNodes) -> None:
    origin = cluster.add()
    segment = origin.put(some())
    before = origin.values.open_original(segment, BYTES)
    assert before is not None
    view = origin.owner.open(segment, BYTES)  # maps it writable
    assert bytes(view.buffer)
    assert before.holds()
    del view
    origin.owner.free(segment)
    assert not before.holds()


def test_value_is_pulled_from_two_nodes_at_once(cluster: ValueNodes) -> None:
    origin, first, second = cluster.add(), cluster.add(), cluster.add()
    data = some(40 * CHUNK_BYTES)
    segment = origin.put(data)
    first.want(X, len(data), (origin, segment))
    cluster.until(lambda: first.got)
    second.want(X, len(data), (origin, segment), (first, ""))
    cluster.until(lambda: second.got)
    assert second.read() == data
    assert first.mover.sent_bytes > 0


def test_each_byte_leaves_its_node_once_however_many_want_it(cluster: ValueNodes) -> None:
    origin, *readers = (cluster.add() for _ in range(5))
    data = some(40 * CHUNK_BYTES)
    segment = origin.put(data)
    for reader in readers:
        reader.want(X, len(data), (origin, segment))
    cluster.until(lambda: all(reader.got for reader in readers))
    assert all(reader.read() == data for reader in readers)
    assert origin.mover.sent_bytes <= 2 * len(data)
    assert sum(node.mover.sent_bytes for node in cluster.nodes) == 4 * len(data)


def test_node_that_dies_while_others_pull_from_it_is_replaced(cluster: ValueNodes) -> None:
    origin, first, second = cluster.add(), cluster.add(), cluster.add()
    data = some(60 * CHUNK_BYTES)
    segment = origin.put(data)
    first.want(X, len(data), (origin, segment))
    cluster.until(lambda: first.got)
    second.want(X, len(data), (first, ""), (origin, segment))
    cluster.until(lambda: X in second.mover.pulls.pulls and second.mover.pulls.pulls[X].arrived)
    first.close()
    cluster.until(lambda: second.got)
    assert second.read() == data


def test_last_node_that_dies_is_an_error(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(), cluster.add()
    reader.want(X, 60 * CHUNK_BYTES, (origin, origin.put(some(60 * CHUNK_BYTES))))
    cluster.until(lambda: X in reader.mover.pulls.pulls and reader.mover.pulls.pulls[X].arrived)
    origin.close()
    reader.mover.node_dead(origin.id)
    assert reader.errors["a"][0] == "lost"
    assert files_of(reader) == []
    assert reader.values.client not in reader.store.ledger.held


def test_value_that_is_not_there_is_an_error(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(), cluster.add()
    segment = origin.put(some())
    reader.want(X, BYTES, (origin, segment[:-1] + "9"), asker="b")
    reader.want(Y, 8 * BYTES, (origin, segment), asker="c")  # of another size
    cluster.until(lambda: len(reader.errors) == 2)
    assert {code for code, _ in reader.errors.values()} == {"lost"}


def test_value_on_disk_is_sent_from_its_file(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(), cluster.add()
    data = some()
    segment = origin.put(data)
    spilling = origin.store.make_spilling()
    (origin.folder / "spill").mkdir()
    creator = segment.split(".")[0]
    file = spilling.ledger.begin(creator)
    Path(file).write_bytes(b"something before" + data)
    assert spilling.ledger.written(creator, file, [(segment, 16, len(data), zlib.crc32(data))], {creator}) == []
    origin.owner.evict(segment)
    reader.want(X, len(data), (origin, segment))
    cluster.until(lambda: reader.got)
    assert reader.read()[: len(data)] == data


def test_value_on_a_distant_disk_is_not_called_lost(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(spill="memory://spilled"), cluster.add()
    segment = origin.put(some())
    spilling = origin.store.make_spilling()
    creator = segment.split(".")[0]
    file = spilling.ledger.begin(creator)
    assert spilling.ledger.written(creator, file, [(segment, 0, BYTES, 0)], {creator}) == []
    origin.owner.evict(segment)
    reader.want(X, BYTES, (origin, segment))
    cluster.until(lambda: reader.errors)
    code, text = reader.errors["a"]
    assert code == "elsewhere"
    assert f"it was moved to {file}, from where values are not sent" in text


def test_node_that_has_a_copy_is_told_that_the_value_is_freed(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(), cluster.add()
    reader.want(X, BYTES, (origin, origin.put(some())))
    cluster.until(lambda: reader.got)
    reader.mover.unwanted(X, "a")
    assert X in reader.mover.pulls.copies
    origin.mover.tell_freed(X, reader.id, reader.address)  # a connection the other way
    cluster.until(lambda: X not in reader.mover.pulls.copies)
    reader.want(Y, BYTES, (origin, origin.put(some())))
    cluster.until(lambda: Y in reader.mover.pulls.copies)
    reader.mover.unwanted(Y, "a")
    origin.mover.tell_freed(Y, reader.id, reader.address)  # the same connection
    cluster.until(lambda: Y not in reader.mover.pulls.copies)


def test_node_that_cannot_be_told_of_a_freed_value_is_given_up(cluster: ValueNodes) -> None:
    origin = cluster.add()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    origin.mover.tell_freed(X, nodes.new_node_id(), address)
    assert origin.mover.pulling.has_to_tell
    cluster.until(lambda: not origin.mover.pulling.has_to_tell and not origin.mover.pulling.is_connected)


def test_get_is_not_kept_waiting_by_a_prefetch(cluster: ValueNodes) -> None:
    origin, reader = cluster.add(), cluster.add()
    half = CAPACITY_BYTES // 2
    data = some(half)
    with socket.create_server(("127.0.0.1", 0)) as dumb:  # a node that hangs
        address = f"127.0.0.1:{dumb.getsockname()[1]}"
        reader.mover.want(
            Y, half, {nodes.new_node_id(): (address, "a.b.1")}, asker="p", priority=pull_commands.Priority.PREFETCH
        )
        reader.store.reserve("a process", 1, half - 8192)
        reader.want(X, half, (origin, origin.put(data)), asker="g")
        cluster.until(lambda: "g" in reader.got)
    assert reader.read("g") == data
    reason = reader.mover.reason(Y)
    assert reason is not None
    assert "room" in str(reason)


# ---- who may ----


def test_only_nodes_get_values() -> None:
    ends = Ends()
    try:
        ends.dial(handshake.VALUES)
        ends.until(lambda: ends.failed)
        assert isinstance(ends.failed[0], exceptions.AuthenticationError)
        assert ends.peers == []
    finally:
        ends.close()


@pytest.mark.parametrize(
    "message",
    [
        {
            "t": "open",
            "n": 1,
            "object": X,
            "segment": "../secret",
            "size": 1,
            "chunk_bytes": CHUNK_BYTES,
            "as": "n",
            "at": "",
        },
        {
            "t": "open",
            "n": 1,
            "object": X,
            "segment": "a.b.1",
            "size": -1,
            "chunk_bytes": CHUNK_BYTES,
            "as": "n",
            "at": "",
        },
        {"t": "open", "n": 1, "object": X, "segment": "a.b.1", "size": 1, "chunk_bytes": 5, "as": "n", "at": ""},
        {"t": "ask", "object": [], "chunk": 0, "priority": 0, "without": []},
        {"t": "shout"},
        {},
    ],
)
def test_node_that_says_what_it_must_not_is_cut_off(cluster: ValueNodes, message: dict[str, Any]) -> None:
    closed: list[Any] = []

    class Peer:
        def on_message(self, _connection: Any, _message: Any, _body_bytes: int) -> None: ...

        def on_body(self, _connection: Any, _message: Any) -> None: ...

        def on_sent(self, _connection: Any) -> None: ...

        def on_closed(self, connection: Any) -> None:
            closed.append(connection)

    node = cluster.add()
    made: list[Any] = []
    dial = dialler.Dialler(cluster.poller, NODE, now_s=lambda: 0.0)
    dial.dial(addresses.parse(node.address), handshake.VALUES, made.append, made.append)
    cluster.until(lambda: made)
    peer = bulk.BulkConnection(made[0], cluster.poller, Peer())
    peer.send(message)
    cluster.until(lambda: closed)
    assert node.warned == []
