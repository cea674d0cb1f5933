"""Connections between nodes for leases: to those whose workers processes of this node want, and from those that want some here.
What workers print goes by them to the node of their driver.

One is dialled when it is needed first, and again as long as something is wanted there. Until it is there wishes wait in it,
the last one for each key of a process. A connection that breaks takes all with it that was said by it: the lessor
forgets the processes of the other node, and their leases, and the lessee asks anew. Loaded where there are other nodes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

from umbel._base import nodes, tokens
from umbel._transport import addresses, ways
from umbel._transport import connection as transport
from umbel._wire import frames, handshake, lease_messages

DIAL_S = 3.0  # for one attempt: two round trips around the world take under one
FIRST_RETRY_S = 0.1
RETRY_MAX_S = 5.0
QUEUED_BYTES_MAX = 16 << 20  # for a node that does not take what it is told; it may be stopped
LINES_WAITING_MAX = 10_000  # of output, while there is no connection; beyond it they are dropped, and counted
LINES_QUEUED_BYTES_MAX = 4 << 20  # beyond it, lines of output are dropped, and counted

Message = dict[str, Any]


class Daemon(Protocol):
    """What the links need of the daemon that they run in."""

    poller: transport.Poller

    def now_s(self) -> float: ...

    def log(self, line: str) -> None: ...

    def reacher(self) -> Any:
        """A `reacher.Reacher`, or None where nodes can only be dialled."""


class Receiver(Protocol):
    """Whom the links tell."""

    def on_lessor(self, node: str, message: Message) -> None:
        """A node of which leases are wanted says this."""

    def on_lessor_lost(self, node: str, reason: str, retry_s: float) -> None:
        """The connection to it broke, or cannot be made until then. It knows of nothing that it was told."""

    def is_dead(self, node: str) -> bool:
        """Whether it was declared dead, which is for good."""

    def on_lessee(self, lessee: Lessee, message: Message) -> None: ...

    def on_lessee_gone(self, lessee: Lessee) -> None: ...


class Lessor:
    """A node of which leases are wanted, or a driver of which wants output. waiting: what it is to be told first, by process and
    key, and of which job that is; jobs: those that it knows over the present connection; lines: output that waits for one."""

    __slots__ = (
        "address", "connection", "dropped_lines", "is_dialling", "jobs", "lines", "node", "pause_s", "retry_s", "trouble",
        "waiting",
    )  # fmt: skip

    def __init__(self, node: str, address: str) -> None:
        self.node = node
        self.address = address
        self.connection: transport.Connection | None = None
        self.is_dialling = False
        self.jobs: set[str] = set()
        self.pause_s = FIRST_RETRY_S
        self.retry_s = 0.0  # not to be dialled before
        self.trouble = ""  # why it was not connected when that was tried last
        self.waiting: dict[tuple[str, str], Message] = {}
        self.lines: list[tuple[str, Message]] = []
        self.dropped_lines = 0


class Lessee:
    """A node that wants leases here, by one connection. node: "" until it has said so. guests: its processes that want
    or wanted some; jobs: those that it has told of; groups: placement groups in which some of that is to run; returns: how many
    leases it has given back."""

    __slots__ = ("connection", "dropped_lines", "groups", "guests", "jobs", "node", "returns")

    def __init__(self) -> None:
        self.node = ""
        self.connection: transport.Connection
        self.guests: set[str] = set()
        self.groups: set[str] = set()
        self.jobs: dict[str, Any] = {}
        self.dropped_lines = 0
        self.returns = 0

    def send(self, message: Message) -> None:
        _send(self.connection, message)

    def send_lines(self, message: Message, job: str) -> None:
        _send_lines(self, self.connection, message, job)


class LeaseLinks:
    """All of one node."""

    def __init__(
        self, daemon: Daemon, node: str, token: tokens.Token, receiver: Receiver, facts_of: Callable[[str], Any]
    ) -> None:
        """node: this one. facts_of: what a job's workers need to be like its driver."""
        self._daemon = daemon
        self._node = node
        self._receiver = receiver
        self._facts_of = facts_of
        self._ways = ways.Ways(daemon.poller, token, daemon.reacher(), now_s=daemon.now_s, timeout_s=DIAL_S)
        self._lessors: dict[str, Lessor] = {}
        self._waited_for: dict[str, Lessor] = {}  # those of them to which something may wait to be said
        self._lessees: set[Lessee] = set()

    # ---- to lessors ----

    def add(self, node: str, address: str) -> None:
        """Leases may be wanted of it."""
        self._lessors[node] = Lessor(node, address)

    def forget(self, node: str) -> None:
        """It is dead. Nobody is told."""
        self._waited_for.pop(node, None)
        lessor = self._lessors.pop(node, None)
        if lessor is not None and lessor.connection is not None:
            lessor.connection.close()
        for lessee in [one for one in self._lessees if one.node == node]:
            lessee.connection.close()

    def want(self, node: str, message: Message) -> None:
        """message: a "want"."""
        lessor = self._lessors.get(node)
        if lessor is None:
            return  # it has died since this was decided
        if lessor.connection is not None:
            self._tell(lessor, message)
            return
        place = (message["client"], message["key"])
        if message["count"]:
            lessor.waiting[place] = message
            self._waited_for[node] = lessor
            self._dial_if_due(lessor)
        else:
            lessor.waiting.pop(place, None)  # it has not heard of it

    def say(self, node: str, message: Message) -> None:
        """What makes sense only to one that has been told of the process."""
        lessor = self._lessors.get(node)
        if lessor is None:
            return
        if message["t"] == "leave":
            for place in [place for place in lessor.waiting if place[0] == message["client"]]:
                del lessor.waiting[place]
        if lessor.connection is not None:
            _send(lessor.connection, message)

    def say_lines(self, node: str, message: Message, job: str) -> None:
        """Output, for a driver on that node."""
        lessor = self._lessors.get(node)
        if lessor is None:
            return  # it is dead, and the driver with it
        if lessor.connection is not None:
            _send_lines(lessor, lessor.connection, message, job)
        elif sum(len(one["lines"]) for _, one in lessor.lines) >= LINES_WAITING_MAX:
            lessor.dropped_lines += len(message["lines"])
        else:
            lessor.lines.append((job, message))
            self._waited_for[node] = lessor
            self._dial_if_due(lessor)

    def job_over(self, job: str) -> None:
        for lessor in self._lessors.values():
            if job in lessor.jobs:
                lessor.jobs.discard(job)
                self.say(lessor.node, {"t": "job_over", "job": job})

    def _tell(self, lessor: Lessor, message: Message) -> None:
        job = message["job"]
        connection = lessor.connection
        if connection is None:
            return
        if message["count"] and job not in lessor.jobs:
            lessor.jobs.add(job)
            _send(connection, {"t": "job", "job": job, "facts": self._facts_of(job)})
        _send(connection, message)

    def _dial_if_due(self, lessor: Lessor) -> None:
        if lessor.is_dialling or lessor.connection is not None or lessor.retry_s > self._daemon.now_s():
            return
        lessor.is_dialling = True
        self._ways.dial(
            nodes.tag_of_node(lessor.node),
            addresses.parse(lessor.address),
            handshake.LEASES,
            functools.partial(self._connected, lessor),
            functools.partial(self._failed, lessor),
        )

    def _connected(self, lessor: Lessor, stream: transport.Stream) -> None:
        lessor.is_dialling = False
        if self._lessors.get(lessor.node) is not lessor:
            stream.close()  # it has died since
            return
        connection = transport.Connection(stream, self._daemon.poller, self._on_lessors_frame, self._on_lessor_closed)
        connection.peer = lessor
        lessor.connection = connection
        hello = {"t": "hello", "protocol": lease_messages.PROTOCOL_VERSION, "node": self._node, "to": lessor.node}
        _send(connection, hello)
        waiting, lessor.waiting = lessor.waiting, {}
        for message in waiting.values():
            self._tell(lessor, message)
        lines, lessor.lines = lessor.lines, []
        self._waited_for.pop(lessor.node, None)
        for job, message in lines:
            _send_lines(lessor, connection, message, job)

    def _failed(self, lessor: Lessor, error: Exception) -> None:
        lessor.is_dialling = False
        self._lose(lessor, f"it cannot be connected to at {lessor.address}: {error}")

    def _lose(self, lessor: Lessor, reason: str) -> None:
        if self._lessors.get(lessor.node) is not lessor:
            return
        lessor.retry_s = self._daemon.now_s() + lessor.pause_s
        lessor.pause_s = min(RETRY_MAX_S, 2 * lessor.pause_s)
        lessor.trouble = reason
        lessor.jobs.clear()
        lessor.waiting.clear()
        self._daemon.log(f"no workers of node {lessor.node} can be leased now: {reason}")
        self._receiver.on_lessor_lost(lessor.node, reason, lessor.retry_s)

    def _on_lessors_frame(self, connection: transport.Connection, payload: bytes) -> None:
        lessor = connection.peer
        if not isinstance(lessor, Lessor) or lessor.connection is not connection:
            return
        try:
            message, _body = frames.decode_control(payload)
            lease_messages.parse(message, lease_messages.FROM_LESSOR)
        except ValueError as error:
            self._daemon.log(f"the connection for leases to node {lessor.node} was closed: {error}")
            connection.close()
            return
        lessor.pause_s = FIRST_RETRY_S
        self._receiver.on_lessor(lessor.node, message)

    def _on_lessor_closed(self, connection: transport.Connection) -> None:
        lessor = connection.peer
        if isinstance(lessor, Lessor):
            lessor.connection = None
            self._lose(lessor, "the connection to it broke")

    # ---- from lessees ----

    def admit(self, stream: transport.Stream) -> None:
        """A connection of a node, which has proved that it has a node's token."""
        lessee = Lessee()
        lessee.connection = transport.Connection(
            stream, self._daemon.poller, self._on_lessees_frame, self._on_lessee_closed
        )
        lessee.connection.peer = lessee
        self._lessees.add(lessee)

    def _on_lessees_frame(self, connection: transport.Connection, payload: bytes) -> None:
        lessee = connection.peer
        if not isinstance(lessee, Lessee):
            return
        try:
            message, _body = frames.decode_control(payload)
            lease_messages.parse(message, lease_messages.FROM_LESSEE)
            if message["t"] == "hello":
                self._on_hello(lessee, message)
                return
            if not lessee.node:
                raise ValueError(f"the first message must be hello, got {message['t']}")
        except ValueError as error:
            self._daemon.log(f"a connection for leases was closed ({lessee.node or 'of an unknown node'}): {error}")
            connection.close()
            return
        self._receiver.on_lessee(lessee, message)

    def _on_hello(self, lessee: Lessee, message: Message) -> None:
        """Raises ValueError when it is not to go on."""
        if message["protocol"] != lease_messages.PROTOCOL_VERSION:
            raise ValueError(f"it speaks protocol {message['protocol']}, this node {lease_messages.PROTOCOL_VERSION}")
        if message["to"] != self._node:  # which was at this address before, and has died; that will be told
            raise ValueError(f"it wants node {message['to']}, this one is {self._node}")
        if self._receiver.is_dead(message["node"]):
            raise ValueError("it was declared dead")
        for other in [one for one in self._lessees if one.node == message["node"] and one is not lessee]:
            other.connection.close()  # which has broken, though this side has not heard it yet
        lessee.node = message["node"]
        self._receiver.on_lessee(lessee, message)

    def _on_lessee_closed(self, connection: transport.Connection) -> None:
        lessee = connection.peer
        if isinstance(lessee, Lessee):
            self._lessees.discard(lessee)
            self._receiver.on_lessee_gone(lessee)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        due = [lessor.retry_s for lessor in self._waited_for.values() if self._is_to_be_dialled(lessor)]
        dials_s = self._ways.next_tick_s()
        return min([*due, *([dials_s] if dials_s is not None else [])], default=None)

    def _is_to_be_dialled(self, lessor: Lessor) -> bool:
        return bool(lessor.waiting or lessor.lines) and lessor.connection is None and not lessor.is_dialling

    def tick(self) -> None:
        now_s = self._daemon.now_s()
        due_s = self._ways.next_tick_s()
        if due_s is not None and due_s <= now_s:
            self._ways.tick()
        for lessor in list(self._waited_for.values()):
            if self._is_to_be_dialled(lessor):
                self._dial_if_due(lessor)
            elif not lessor.waiting and not lessor.lines:
                del self._waited_for[lessor.node]

    def state(self, node: str) -> str:
        """Why nothing can be said to it now, as the rest of a sentence; "" if it can."""
        lessor = self._lessors.get(node)
        if lessor is None or lessor.connection is not None:
            return ""
        if lessor.is_dialling:
            reacher = self._daemon.reacher()
            asked = reacher.state(node) if reacher is not None else ""
            return str(asked) or f"is being connected to, at {lessor.address}"
        left_s = lessor.retry_s - self._daemon.now_s()
        return f"could not be connected to, and is tried again in {max(0.0, left_s):.1f} s: {lessor.trouble}"

    def close(self) -> None:
        self._ways.close()
        for lessor in self._lessors.values():
            if lessor.connection is not None:
                lessor.connection.peer = None
                lessor.connection.close()
        for lessee in list(self._lessees):
            lessee.connection.peer = None
            lessee.connection.close()


def _send_lines(far: Lessor | Lessee, connection: transport.Connection, message: Message, job: str) -> None:
    """Of output, unless the other side does not keep up."""
    if connection.queued_bytes > LINES_QUEUED_BYTES_MAX:
        far.dropped_lines += len(message["lines"])
        return
    if far.dropped_lines:
        text = f"[{far.dropped_lines} lines were dropped, as the connection to this node did not take them]"
        message = {**message, "lines": [text, *message["lines"]]}
        far.dropped_lines = 0
    _send(connection, {"t": "lines", "job": job, "message": message})


def _send(connection: transport.Connection, message: Message) -> None:
    if connection.queued_bytes > QUEUED_BYTES_MAX:
        connection.close()
    else:
        connection.send(frames.encode_control(message))
