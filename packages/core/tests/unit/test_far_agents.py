"""Questions to the daemons of other nodes: each is answered once, whatever becomes of the other side."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from umbel._agent import door, far_agents
from umbel._base import tokens
from umbel._transport import acceptor, addresses, connection
from umbel._wire import frames, handshake

TAG = "ab" * 6
HOLDS_S = 10.0  # what is awaited takes milliseconds


class There:
    """A daemon that is asked: it answers what `replies` says, by the question's "what", and nothing to others."""

    def __init__(self, poller: connection.Poller, token: tokens.Token) -> None:
        self.replies: dict[str, dict[str, Any]] = {}
        self.heard: list[str] = []
        self.connections: list[connection.Connection] = []
        self.tag = TAG
        self._acceptor = acceptor.Acceptor(
            poller, token, self._on_peer, now_s=time.monotonic, warn=lambda _text: None, decide=self._decide,
        )  # fmt: skip
        self._poller = poller
        self.address = str(self._acceptor.listen(addresses.parse("127.0.0.1:0")))

    def _decide(self, role: tokens.Role, target: handshake.Target) -> handshake.Answer:
        tag = bytes.fromhex(self.tag)
        return door._decide(role, target, tag=tag, has_control=False, has_leases=False, has_drivers=False)

    def _on_peer(self, stream: Any, _role: Any, _target: Any) -> None:
        self.connections.append(connection.Connection(stream, self._poller, self._on_frame, lambda _connection: None))

    def _on_frame(self, link: connection.Connection, payload: bytes) -> None:
        message, _ = frames.decode_control(payload)
        self.heard.append(message.get("what", message["t"]))
        reply = self.replies.get(message.get("what", ""))
        if reply is not None:
            link.send(frames.encode_control({"t": "reply", "rq": message["rq"], **reply}))

    def close(self) -> None:
        self._acceptor.close()
        for one in self.connections:
            one.close()


class Here:
    """What `FarAgents` need of their daemon. later_s: by how much its clock is ahead."""

    def __init__(self) -> None:
        self.poller = connection.Poller()
        self.later_s = 0.0
        self.address = ""
        self.answers: list[Any] = []

    def now_s(self) -> float:
        return time.monotonic() + self.later_s

    def reacher(self) -> None:
        """Nodes can only be dialled here."""

    def address_of(self, tag: str) -> str:
        return self.address if tag == TAG else ""


@pytest.fixture
def here() -> Iterator[Here]:
    made = Here()
    yield made
    made.poller.close()


@pytest.fixture
def token() -> tokens.Token:
    return tokens.new_secret()


@pytest.fixture
def there(here: Here, token: tokens.Token) -> Iterator[There]:
    made = There(here.poller, token)
    here.address = made.address
    yield made
    made.close()


@pytest.fixture
def agents(here: Here, token: tokens.Token) -> Iterator[far_agents.FarAgents]:
    made = far_agents.FarAgents(here, token)
    yield made
    made.close()


def ask(here: Here, agents: far_agents.FarAgents, what: str, tag: str = TAG, limit_s: float = 5.0) -> None:
    agents.ask(tag, {"t": "query", "what": what, "about": ""}, limit_s, here.answers.append)


def until(here: Here, agents: far_agents.FarAgents, is_done: Any) -> None:
    until_s = time.monotonic() + HOLDS_S
    while not is_done():
        assert time.monotonic() < until_s
        due_s = agents.next_tick_s()
        here.poller.poll(0.05 if due_s is None else min(0.05, max(0.0, due_s - here.now_s())))
        if due_s is not None and due_s <= here.now_s():
            agents.tick()


def test_questions_share_a_connection(here: Here, there: There, agents: far_agents.FarAgents) -> None:
    there.replies = {"a": {"result": 1}, "b": {"error": {"kind": "invalid", "text": "no"}}}
    ask(here, agents, "a")
    ask(here, agents, "b")
    until(here, agents, lambda: len(here.answers) == 2)
    assert here.answers == [{"result": 1}, {"error": {"kind": "invalid", "text": "no"}}]
    assert there.heard == ["hello", "a", "b"]
    assert len(there.connections) == 1


def test_node_that_is_late_is_said_to_be(here: Here, there: There, agents: far_agents.FarAgents) -> None:
    there.replies = {"a": {"result": 1}}
    ask(here, agents, "silent", limit_s=2.0)
    ask(here, agents, "a")
    until(here, agents, lambda: here.answers == [{"result": 1}])
    here.later_s = 2.0
    until(here, agents, lambda: len(here.answers) == 2)
    assert here.answers[1] == {"error": {"kind": "late", "text": "it has not answered within 2 s"}}


def test_connection_that_breaks_ends_what_was_asked_by_it(
    here: Here, there: There, agents: far_agents.FarAgents
) -> None:
    ask(here, agents, "silent")
    until(here, agents, lambda: "silent" in there.heard)
    there.connections.pop().close()
    until(here, agents, lambda: here.answers)
    assert here.answers == [{"error": {"kind": "gone", "text": "the connection to it broke"}}]
    there.replies = {"a": {"result": 1}}
    ask(here, agents, "a")
    until(here, agents, lambda: len(here.answers) == 2)
    assert here.answers[1] == {"result": 1}


def test_node_that_dies_is_not_waited_for(here: Here, there: There, agents: far_agents.FarAgents) -> None:
    ask(here, agents, "silent")
    agents.forget(TAG)
    assert here.answers == [{"error": {"kind": "gone", "text": "it has died"}}]
    ask(here, agents, "a", tag="cd" * 6)
    assert here.answers[1] == {"error": {"kind": "gone", "text": "it is not alive"}}


def test_nobody_listens_where_the_node_was(here: Here, agents: far_agents.FarAgents) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        here.address = f"127.0.0.1:{sock.getsockname()[1]}"
    ask(here, agents, "a")
    until(here, agents, lambda: here.answers)
    assert here.answers[0]["error"]["text"].startswith(f"it cannot be connected to at {here.address}: ")


def test_another_node_that_has_its_address_by_now_is_asked_nothing(
    here: Here, there: There, agents: far_agents.FarAgents
) -> None:
    there.tag = "cd" * 6
    there.replies = {"a": {"result": 1}}
    ask(here, agents, "a")
    until(here, agents, lambda: here.answers)
    text = here.answers[0]["error"]["text"]
    assert text.startswith(f"it cannot be connected to at {here.address}: ")
    assert text.endswith("another node of the cluster is at that address")
    assert (here.answers[0]["error"]["kind"], there.heard) == ("gone", [])


def test_connection_without_questions_is_closed(here: Here, there: There, agents: far_agents.FarAgents) -> None:
    there.replies = {"a": {"result": 1}}
    ask(here, agents, "a")
    until(here, agents, lambda: here.answers)
    here.later_s = far_agents.IDLE_S
    until(here, agents, lambda: there.connections[0].is_closed)
    assert agents.next_tick_s() is None
