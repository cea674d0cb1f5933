"""Connections between nodes for leases, at the side of the node that gives them: whom it lets go on."""

from __future__ import annotations

import socket
from typing import Any

from umbel._agent import lease_links
from umbel._base import tokens
from umbel._transport import connection
from umbel._wire import frames, lease_messages

THIS, OTHER, ASKING = "aa" * 28, "bb" * 28, "cc" * 28


class Receiver:
    """Notes what it is told. dead: nodes."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.dead: set[str] = set()

    def is_dead(self, node: str) -> bool:
        return node in self.dead

    def on_lessee(self, _lessee: lease_links.Lessee, message: dict[str, Any]) -> None:
        self.heard.append(message)

    def on_lessee_gone(self, _lessee: lease_links.Lessee) -> None:
        """Nothing was leased."""

    def on_lessor(self, node: str, message: dict[str, Any]) -> None:
        raise AssertionError(f"nobody was asked, and {node} says {message}")

    def on_lessor_lost(self, node: str, reason: str, retry_s: float) -> None:
        raise AssertionError(f"nobody was asked, and {node} is lost: {reason}")


class Lessor:
    """The daemon of node `THIS`, as far as its links need it, with a connection of node `ASKING`."""

    def __init__(self, receiver: Receiver) -> None:
        self.poller = connection.Poller()
        self.lines: list[str] = []
        token = tokens.Token(tokens.Role.NODE, bytes(tokens.KEY_BYTES))
        links = lease_links.LeaseLinks(self, THIS, token, receiver, lambda _job: {})
        self.theirs, ours = socket.socketpair()
        links.admit(ours)

    def now_s(self) -> float:
        return 0.0

    def reacher(self) -> None:
        """Nodes can only be dialled here."""

    def log(self, line: str) -> None:
        self.lines.append(line)

    def hear(self, **message: Any) -> None:
        self.theirs.send(frames.encode_control(message))
        self.poller.poll(5.0)

    def is_cut_off(self) -> bool:
        self.theirs.setblocking(False)
        try:
            return self.theirs.recv(1) == b""
        except BlockingIOError:
            return False


def hello(to: str) -> dict[str, Any]:
    return {"t": "hello", "protocol": lease_messages.PROTOCOL_VERSION, "node": ASKING, "to": to}


def test_who_means_this_node_is_heard() -> None:
    receiver = Receiver()
    lessor = Lessor(receiver)
    lessor.hear(**hello(THIS))
    assert receiver.heard == [hello(THIS)]
    assert not lessor.is_cut_off()


def test_who_means_another_node_is_cut_off() -> None:
    """It was at this address before, and has died, as that of a head which has come back. What is granted in its name would
    break once that is known. Found by the simulated cluster."""
    receiver = Receiver()
    lessor = Lessor(receiver)
    lessor.hear(**hello(OTHER))
    assert receiver.heard == []
    assert lessor.is_cut_off()
    assert lessor.lines == [
        f"a connection for leases was closed (of an unknown node): it wants node {OTHER}, this one is {THIS}"
    ]
