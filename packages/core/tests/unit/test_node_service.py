"""What the members of a cluster are told of its nodes by a head that keeps its records, as lists of what is said."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from test_head_return import Disk
from test_members import Daemon

from umbel._base import nodes as ids
from umbel._control import keeping, kept, leadership, members, node_service, service
from umbel._transport import connection
from umbel._wire import frames, node_messages

HEAD, A, B, C = (f"{letter}0" * ids.NODE_ID_BYTES for letter in "abcd")


def facts(node_id: str) -> dict[str, Any]:
    return {
        "node_id": node_id, "version": "1", "address": "127.0.0.1:1", "host_name": "h", "is_head": node_id == HEAD,
        "resources": {"CPU": 10_000}, "labels": {}, "started_s": 0.0, "session_dir": "", "socket": "", "store_dir": "",
    }  # fmt: skip


class Head(Daemon):
    """A head's daemon. Its disk writes when it is told to."""

    address = "127.0.0.1:1"
    scaling = None

    def __init__(self) -> None:
        super().__init__(HEAD)
        self.poller = connection.Poller()
        self.disk = Disk()
        self.members = members.Members(self, ids.tag_of_node(HEAD))
        leader = leadership.Leadership(ttl_s=1e9, now_s=0.0)
        leader.apply(leadership.Tick(0.0))
        leader.apply(leadership.Granted(1, 0.0, 0.0))
        keeper = keeping.Keeping(
            kept.Kept((), 0.0), leader, self.disk, now_s=self.now_s, lease_now_s=self.now_s,
            on_step_down=lambda _reason: None, recovery_s=0.0,
        )  # fmt: skip
        self.control = service.ActorService(self.members, keeper)
        self.members.serve(self.control)
        self.service = node_service.NodeService(self, {})

    def own_facts(self) -> dict[str, Any]:
        return facts(HEAD)

    def own_state(self) -> dict[str, Any]:
        return {"available": {"CPU": 10_000}, "waiting": 0}

    def log(self, line: str) -> None:
        raise AssertionError(line)

    def node_appeared(self, _node_id: str, _address: str) -> None:
        """Nobody here wants anything of it."""

    def node_died(self, node_id: str, reason: str) -> None:
        self.members.node_gone(node_id, reason)

    def nodes_changed(self, changes: Any) -> None:
        self.members.nodes_changed(list(changes))

    def write(self) -> None:
        while self.disk.under_way:
            self.disk.write()
            self.control.tick()


class Node:
    """A node's end of its connection to the head. nodes: what it was told of each. before: the head that it has heard last."""

    def __init__(self, head: Head, node_id: str, *, sequence: int = 1, cluster: str = "", before: str = "") -> None:
        self._head = head
        self.id = node_id
        self.is_welcome = False
        self.nodes: dict[str, dict[str, Any]] = {}
        near, far = socket.socketpair()
        for sock in (near, far):
            sock.setblocking(False)
        head.service.admit(near)
        self.stream = connection.Connection(far, head.poller, self._on_frame, lambda _stream: None)
        self.say({
            "t": "join", "protocol": node_messages.PROTOCOL_VERSION, "sequence": sequence, "cluster": cluster,
            "head": before, "heard": 0, "facts": facts(node_id), "state": {"available": {"CPU": 10_000}, "waiting": 0},
        })  # fmt: skip

    def _on_frame(self, _stream: connection.Connection, payload: bytes) -> None:
        message, _ = node_messages.decode(payload)
        if message["t"] == "listing":
            assert not self.is_welcome
            self.nodes.clear()
        self.is_welcome |= message["t"] == "welcome"
        for one in message.get("nodes", ()):
            self.nodes[one["node_id"]] = {**self.nodes.get(one["node_id"], {}), **one}

    def say(self, message: dict[str, Any]) -> None:
        self.stream.send(frames.encode_control(message))
        for _ in range(3):
            self._head.poller.poll(0.0)

    def knows(self) -> dict[str, bool]:
        """By id, whether it lives."""
        self._head.poller.poll(0.0)
        return {node_id: one["alive"] for node_id, one in self.nodes.items()}


@pytest.fixture
def head() -> Iterator[Head]:
    made = Head()
    yield made
    made.service.close("the test is over", ends_cluster=False)
    made.poller.close()


def joined(head: Head, node_id: str) -> Node:
    node = Node(head, node_id)
    assert not node.is_welcome
    head.write()
    assert node.knows()[node_id]
    return node


def back(head: Head, node: Node) -> Node:
    """Its connection has broken, and it has made another."""
    node.stream.close()
    again = Node(head, node.id, sequence=9, cluster=HEAD)
    assert again.is_welcome  # whatever is being written
    return again


def test_a_node_may_die_before_it_is_kept_that_it_has_joined(head: Head) -> None:
    """The head broke an invariant of its own."""
    node = Node(head, A)
    node.say({"t": "goodbye", "reason": "it ends"})
    head.write()
    b = joined(head, B)
    assert b.knows() == {HEAD: True, A: False, B: True}


@pytest.mark.parametrize("before", ["", B])
def test_only_a_node_that_has_heard_the_head_before_is_to_say_what_it_has(head: Head, before: str) -> None:
    """One that was recorded, and not welcomed any more, was waited for for ever, and all that had ended with that head stayed."""
    head.members.await_nodes([A])
    Node(head, A, before=before)
    head.write()
    assert head.members.awaits(A) == bool(before)


def test_a_member_that_comes_back_hears_of_a_death_only_when_it_is_kept(head: Head) -> None:
    """It was told at once, and is told what a head that was killed then does not know."""
    a, b = joined(head, A), joined(head, B)
    b.say({"t": "goodbye", "reason": "it ends"})
    a = back(head, a)
    assert a.knows() == {HEAD: True, A: True, B: True}
    head.write()
    assert a.knows() == {HEAD: True, A: True, B: False}


def test_a_member_that_comes_back_hears_of_a_newcomer_only_when_that_is_kept(head: Head) -> None:
    a = joined(head, A)
    b = Node(head, B)
    a = back(head, a)
    assert a.knows() == {HEAD: True, A: True}
    head.write()
    assert a.knows() == b.knows() == {HEAD: True, A: True, B: True}


def test_a_newcomer_does_not_hear_of_what_was_decided_after_it_came_and_is_not_kept(head: Head) -> None:
    joined(head, A)
    b = Node(head, B)
    head.disk.write()
    head.control.tick()
    c = Node(head, C)  # while the numbers of B's jobs are written, for which its welcome waits
    head.disk.write()
    head.control.tick()
    assert b.knows() == {HEAD: True, A: True, B: True}
    head.write()
    assert b.knows() == c.knows() == {HEAD: True, A: True, B: True, C: True}


def test_a_newcomer_of_later_hears_of_what_was_not_kept_before(head: Head) -> None:
    """The listing that was made meanwhile is used for several."""
    a, b = joined(head, A), joined(head, B)
    b.say({"t": "goodbye", "reason": "it ends"})
    a = back(head, a)
    head.write()
    c = joined(head, C)
    assert a.knows() == c.knows() == {HEAD: True, A: True, B: False, C: True}
