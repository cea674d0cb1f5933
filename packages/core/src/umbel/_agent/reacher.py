"""Gets connections to nodes that cannot be dialled, for this node's daemon and processes, and makes those for which this node is
asked: `reaching`, done. On the head also what connects two nodes that meet there.

The connections that come have proved nothing yet: whoever wanted one proves himself over it to the other side, and that to
him, as over one that was dialled. Loaded with the first.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from umbel import exceptions
from umbel._agent import door, reaching
from umbel._base import nodes, tokens
from umbel._transport import addresses, connection, dialler, ways
from umbel._wire import attempts, handshake

DIAL_S = 2.0  # for one attempt: two round trips around the world take under one
MEETING_S = 5.0  # for the second of two nodes to come
MEETINGS_MAX = 512  # that are expected at once; each may be a descriptor

Message = dict[str, Any]


class Daemon(Protocol):
    """What this needs of the daemon that it runs in."""

    poller: connection.Poller

    def now_s(self) -> float: ...

    def log(self, line: str) -> None: ...

    @property
    def link(self) -> Any:
        """What says something to the head: a `head_link.HeadLink`, or the head's own `node_service.NodeService`."""

    def node_with_tag(self, tag: bytes) -> str:
        """The id of a node that is there; "" for none."""

    def take_stranger(self, sock: socket.socket, host: str) -> None:
        """A connection, as if it had been accepted at this node's door."""


class _Waiting(NamedTuple):
    """Who waits for a connection with a ticket."""

    arrived: Callable[[bytes, socket.socket], None]
    unreached: Callable[[bytes, str], None]


class Reacher:
    """Of one node."""

    def __init__(self, daemon: Daemon, token: tokens.Token, session_dir: str, *, listens: bool, is_head: bool) -> None:
        """listens, is_head: of this node."""
        self.dialled = attempts.Dialled()
        self._daemon = daemon
        self._session_dir = session_dir
        self._machine = reaching.Reaching(listens=listens, is_head=is_head)
        link = daemon.link  # which is being made yet, maybe
        if not is_head and link is not None and not link.waits_for():
            self._machine.linked(daemon.now_s())
        self._dialler = dialler.Dialler(daemon.poller, token, now_s=daemon.now_s, timeout_s=DIAL_S)
        self._waiting: dict[bytes, _Waiting] = {}
        self._meetings: dict[bytes, _Meeting] = {}  # on the head, by both tickets
        self._forwarder: Any = None  # a `forwarder.Forwarder`, once two have met here

    # ---- who wants one ----

    def reach(self, tag: bytes, ticket: bytes, asker: ways.Ways) -> None:
        self._reach(tag, ticket, _Waiting(asker.arrived, asker.unreached))

    def reach_for(self, tag: bytes, ticket: bytes, path: str, unreached: Callable[[bytes, str], None]) -> None:
        """For a process of this node, which takes connections at `path`."""
        self._reach(tag, ticket, _Waiting(functools.partial(_pass_on, path), unreached))

    def _reach(self, tag: bytes, ticket: bytes, waiting: _Waiting) -> None:
        node = self._daemon.node_with_tag(tag)
        if not node:
            waiting.unreached(ticket, "it is none of the cluster (any more)")
            return
        self.dialled.had_to_be_asked(tag, self._daemon.now_s())  # which other processes here need not find out
        self._waiting[ticket] = waiting
        self._do(self._machine.wanted(ticket, node, self._daemon.now_s()))

    def takes(self, sock: socket.socket, preamble: handshake.Preamble) -> bool:
        """Whether it has taken a connection that has come with a ticket."""
        target = preamble.target
        if target.kind is handshake.TargetKind.BACK:
            return self._arrived(target.id, sock)
        return target.kind is handshake.TargetKind.MEETING and self._on_meeting(target.id, sock)

    def _arrived(self, ticket: bytes, sock: socket.socket) -> bool:
        waiting = self._waiting.pop(ticket, None)
        if not self._machine.arrived(ticket) or waiting is None:
            return False
        waiting.arrived(ticket, sock)
        return True

    def _do(self, commands: list[reaching.Command]) -> None:
        for command in commands:
            if isinstance(command, reaching.Ask):
                wish = {"ticket": command.ticket.hex(), "node": command.node, "is_relayed": command.is_relayed}
                self._daemon.link.say_reach({"t": "reach", **wish})
            elif isinstance(command, reaching.MeetAtHead):
                self._meet(command.ticket)
            else:
                waiting = self._waiting.pop(command.ticket, None)
                if waiting is not None:
                    waiting.unreached(command.ticket, command.reason)

    def _meet(self, ticket: bytes) -> None:
        def connected(sock: Any) -> None:
            if not self._arrived(ticket, sock):
                sock.close()

        def failed(error: Exception) -> None:
            self._do(self._machine.unreached(ticket, str(error), self._daemon.now_s(), is_final=False))

        self._knock("", handshake.meeting(ticket), connected, failed)

    def _knock(
        self,
        address: str,
        target: handshake.Target,
        connected: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """address: "" for the head's, as this node knows it. connected: is given the connection, over which nothing is proved."""
        try:
            parsed = addresses.parse(address or self._daemon.link.head_address())
        except exceptions.InvalidOption as error:  # the head has said so
            failed(error)
            return
        self._dialler.dial(parsed, target, connected, failed, only_knocks=True)

    # ---- what the head says ----

    def on_head(self, message: Message) -> None:
        ticket = bytes.fromhex(message["ticket"])
        if message["t"] == "meet":
            self._do(self._machine.meets(ticket))
        elif message["t"] == "unreached":
            is_final, now_s = message["is_final"], self._daemon.now_s()
            self._do(self._machine.unreached(ticket, message["reason"], now_s, is_final=is_final))
        else:
            self._dial_back(ticket, message["address"], is_relayed=message["is_relayed"])

    def _dial_back(self, ticket: bytes, address: str, *, is_relayed: bool) -> None:
        """Another node wants to be dialled, or to meet this one at the head."""

        def connected(sock: Any) -> None:
            self._daemon.take_stranger(sock, address or "the head")

        def failed(error: Exception) -> None:
            self._daemon.link.say_reach({"t": "unreached", "ticket": ticket.hex(), "reason": str(error)})

        self._knock(address, handshake.meeting(ticket) if is_relayed else handshake.back(ticket), connected, failed)

    def head_linked(self, *, is_linked: bool) -> None:
        """There is a connection to the head, or none any more."""
        if is_linked:
            self._do(self._machine.linked(self._daemon.now_s()))
        else:
            self._machine.unlinked(self._daemon.now_s())

    def node_gone(self, node: str) -> None:
        self._do(self._machine.node_gone(node))

    # ---- on the head ----

    def expect(self, ticket: bytes, other: bytes) -> None:
        """Who comes with the one and who comes with the other are to be connected to each other."""
        while len(self._meetings) >= 2 * MEETINGS_MAX:
            self._meetings.pop(next(iter(self._meetings))).end()
        self._meetings[ticket] = self._meetings[other] = _Meeting(self._daemon.now_s() + MEETING_S)

    def _on_meeting(self, ticket: bytes, sock: socket.socket) -> bool:
        meeting = self._meetings.pop(ticket, None)
        if meeting is None:
            return False
        if meeting.first is None:
            meeting.first = sock
            return True
        self._connect(meeting.first, sock)
        return True

    def _connect(self, one: socket.socket, other: socket.socket) -> None:
        from umbel._agent import forwarder

        if self._forwarder is None:
            self._forwarder = forwarder.Forwarder(self._session_dir)
        try:
            self._forwarder.join(one, other)
        except BlockingIOError:
            self._daemon.log("two nodes were not connected to each other: the process that does it takes nothing now")
        except OSError:  # it has died
            self._forwarder.close()
            self._forwarder = forwarder.Forwarder(self._session_dir)
            self._forwarder.join(one, other)
        one.close()
        other.close()

    def pids(self) -> list[int]:
        return [self._forwarder.pid] if self._forwarder is not None else []

    # ---- asked by others ----

    def way_to(self, node: str) -> str:
        """How that node is reached by this one, in words; "" if it is dialled."""
        if not self.dialled.was_asked(nodes.tag_of_node(node)):
            return ""
        return "through the head" if node in self._machine.relayed else "by connections that it makes itself"

    def is_dialled(self, tag: str) -> bool:
        """Whether dialling a node is worth a try. tag: in hexadecimal."""
        return self.dialled.is_worth_a_try(bytes.fromhex(tag), self._daemon.now_s())

    def state(self, node: str) -> str:
        """What is waited for, as the rest of a sentence about that node; "" if nothing is."""
        return self._machine.state(node)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        due = (
            self._machine.next_tick_s(),
            self._dialler.next_tick_s(),
            min((meeting.until_s for meeting in self._meetings.values()), default=None),
        )
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        now_s = self._daemon.now_s()
        self._dialler.tick()
        self._do(self._machine.tick(now_s))
        for ticket, meeting in list(self._meetings.items()):
            if meeting.until_s <= now_s:
                del self._meetings[ticket]
                meeting.end()

    def close(self) -> None:
        self._dialler.close()
        for meeting in self._meetings.values():
            meeting.end()
        self._meetings.clear()
        if self._forwarder is not None:
            self._forwarder.close()


class _Meeting:
    """Of two nodes, at the head. first: who has come already."""

    __slots__ = ("first", "until_s")

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.first: socket.socket | None = None

    def end(self) -> None:
        first, self.first = self.first, None
        if first is not None:
            first.close()


def _pass_on(path: str, ticket: bytes, sock: socket.socket) -> None:
    """To the process that waits for it; if that has gone, it ends."""
    try:
        is_taken = door.pass_on(sock, handshake.encode_preamble(handshake.back(ticket), is_tls=False), path)
    except OSError:
        is_taken = False
    if not is_taken:
        sock.close()
