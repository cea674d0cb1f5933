"""A node's connection to the head of its cluster: what `membership` decides, done. Loaded only on a node that joins one."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from umbel import exceptions
from umbel._agent import membership
from umbel._base import tokens
from umbel._transport import addresses, dialler
from umbel._transport import connection as transport
from umbel._wire import frames, handshake, node_messages

if TYPE_CHECKING:
    from umbel._agent import cluster_use

LOOK_S = 1.0  # after how long the node looks whether its state has changed; the head tells others as often
LAST_WORDS_S = 1.0  # for the head to hear a goodbye; one that runs needs milliseconds
DIAL_S = 3.0  # for one attempt: two round trips around the world take under one

Message = dict[str, Any]


class Daemon(Protocol):
    """What the link needs of the daemon that it runs in."""

    poller: transport.Poller

    def now_s(self) -> float: ...

    def own_facts(self) -> Message:
        """Of this node, what does not change."""

    def own_state(self) -> Message: ...

    def log(self, line: str) -> None: ...

    def node_appeared(self, node_id: str, address: str) -> None:
        """A member of the cluster, this one perhaps, is reached there."""

    def node_died(self, node_id: str, reason: str) -> None:
        """For good."""

    def nodes_changed(self, changes: Iterable[Mapping[str, Any]]) -> None:
        """The head says this of nodes, each with its "node_id"."""

    def use_news(self) -> cluster_use.UseNews:
        """What this node has told of its jobs, and heard of all."""

    def use_told(self, use: cluster_use.ClusterUse | None) -> None:
        """The head says what jobs have of the cluster; None once it does not any more."""

    def note_outliving(self, cluster: str, head: str) -> None:
        """The node is a member now. head: the address of its head."""

    def end_node(self, reason: str) -> None:
        """End, with all that runs here."""

    def asked_to_drain(self, message: Message) -> None:
        """Answered by `HeadLink.answer_drain`."""

    def on_reach(self, message: Message) -> None:
        """The head says this about a connection with another node, see `reacher`."""

    def head_linked(self, *, is_linked: bool) -> None:
        """There is a connection to the head, or none any more."""

    @property
    def control(self) -> Any:
        """The `control_proxy.ControlProxy`, whose conversation with the head passes by this connection."""


class HeadLink:
    """Dials from the first `tick` on."""

    is_head = False

    def __init__(self, daemon: Daemon, address: str, token: tokens.Token, *, join_s: float, head_lost_s: float) -> None:
        """address: of the head, or several that the head may have, with commas between them."""
        self._addresses = deque(addresses.parse(one) for one in address.split(","))
        self._daemon = daemon
        self._membership = membership.Membership(now_s=daemon.now_s(), join_s=join_s, head_lost_s=head_lost_s)
        # A dial must end well before the head's patience with a broken link does.
        self._dialler = dialler.Dialler(daemon.poller, token, now_s=daemon.now_s, timeout_s=DIAL_S)
        self._numbers = itertools.count(1)
        self._connection: transport.Connection | None = None
        self._joined_by = 0  # the sequence of what it has said first over the present link
        self._head = ""  # the id of its node, as it has said in its last welcome
        self._tell: Callable[[str], None] | None = None  # whoever wants to know whether it has joined
        self._news: cluster_use.UseNews | None = None  # once several jobs meet here, or the head tells of them
        self._do: dict[type, Callable[[Any], None]] = {
            membership.Dial: self._dial,
            membership.Join: self._join,
            membership.Beat: self._beat,
            membership.HangUp: lambda _command: self._hang_up(),
            membership.Joined: self._joined,
            membership.Appeared: lambda command: daemon.node_appeared(command.node_id, command.address),
            membership.Died: lambda command: daemon.node_died(command.node_id, command.reason),
            membership.End: self._end,
        }

    def _decide(self, event: membership.Event) -> None:
        for command in self._membership.apply(event):
            self._do[type(command)](command)

    # ---- for the daemon ----

    def when_joined(self, tell: Callable[[str], None]) -> None:
        """tell: "" or why not, once that is known. To be called before the first tick."""
        self._tell = tell

    @property
    def has_joined(self) -> bool:
        """Whether this node is a member, or was."""
        return bool(self._membership.cluster)

    @property
    def head_id(self) -> str:
        """Of the head's node, "" before this one has joined."""
        return self._head

    def waits_for(self) -> str:
        """Why there is no connection to the head now; "" if there is."""
        return self._membership.waits_for(self._daemon.now_s())

    def listed(self) -> list[Message]:
        """All nodes, as last heard of."""
        return list(self._membership.nodes.values())

    def node_facts(self, node_id: str) -> Message | None:
        return self._membership.nodes.get(node_id)

    def next_tick_s(self) -> float | None:
        due = (self._membership.next_tick_s(LOOK_S), self._dialler.next_tick_s())
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        due_s, now_s = self._dialler.next_tick_s(), self._daemon.now_s()
        if due_s is not None and due_s <= now_s:
            self._dialler.tick()
        due_s = self._membership.next_tick_s(LOOK_S)
        if due_s is not None and due_s <= now_s:
            self._decide(membership.Looked(self._daemon.own_state(), now_s))
            if self._news is not None and self._news.is_due(now_s):
                self._daemon.use_told(self._news.use())
            self._daemon.control.look()

    def answer_drain(self, request: int, text: str, *, is_accepted: bool) -> None:
        """Whether this node agrees to be drained, and else why not. If it gets lost the head asks again."""
        state = self._daemon.own_state()
        self._send({"t": "drain_answer", "request": request, "is_accepted": is_accepted, "text": text, "state": state})

    def head_address(self) -> str:
        """Where the head was reached last."""
        return str(self._addresses[0])

    def say_reach(self, message: Message) -> None:
        if self._membership.is_welcome:
            self._send(message)

    def close(self, reason: str) -> None:
        """The node ends. Returns when the head has heard it, or not in time."""
        self._dialler.close()
        if self._membership.leave():
            self._send({"t": "goodbye", "reason": reason})
            until_s = self._daemon.now_s() + LAST_WORDS_S
            while self._connection is not None and self._daemon.now_s() < until_s:
                self._daemon.poller.poll(max(0.0, until_s - self._daemon.now_s()))
        self._hang_up()

    # ---- the link ----

    def _dial(self, _command: membership.Dial) -> None:
        self._dialler.dial(self._addresses[0], handshake.CONTROL, self._on_connected, self._on_dial_failed)

    def _on_connected(self, stream: transport.Stream) -> None:
        self._connection = transport.Connection(stream, self._daemon.poller, self._on_frame, self._on_close)
        self._connection.peer = link = next(self._numbers)
        self._decide(membership.Connected(link, self._daemon.now_s()))

    def _on_dial_failed(self, error: Exception) -> None:
        self._addresses.rotate(-1)  # a standby listens when it leads
        reason, is_final = str(error), isinstance(error, exceptions.AuthenticationError)
        if is_final:
            reason += (
                "; the address has to be that of the cluster's head, and the token one of its role 'node' or 'head'"
            )
        self._decide(membership.DialFailed(reason, is_final, self._daemon.now_s()))

    def _on_frame(self, connection: transport.Connection, payload: bytes) -> None:
        try:
            message, body = node_messages.decode(payload)
            self._on_message(connection, node_messages.parse(message, node_messages.FROM_HEAD), body)
        except ValueError as error:
            self._daemon.log(f"the connection to the head was closed: {error}")
            connection.close()

    def _on_message(self, connection: transport.Connection, message: Message, body: bytes) -> None:
        is_member = connection is self._connection and self._membership.is_welcome
        if message["t"] in ("said", "heard_said"):
            if is_member:
                self._daemon.control.on_frame(message, body)
            return
        if message["t"] == "job_use":
            if is_member:
                self._on_job_use(message)
            return
        if message["t"] in ("dial_back", "meet", "unreached"):
            if is_member:
                self._daemon.on_reach(message)
            return
        if message["t"] == "drain":  # which may come before the welcome, as that waits for what is to be kept
            if connection is self._connection:
                self._daemon.asked_to_drain(message)
            return
        if message["t"] == "heard" and not message["leads"] and len(self._addresses) > 1:
            return  # one that may not act may have a successor, which is looked for when it has been silent for long enough
        is_welcome = message["t"] == "welcome" and connection is self._connection
        is_new = is_welcome and message["head"] != self._head
        if self._news is not None and connection is self._connection and (is_welcome or message["t"] == "heard"):
            self._news.heard(self._joined_by if is_welcome else message["sequence"])
        if is_new:
            self._head = message["head"]
            addresses.bear(message["silence_s"])
        event = self._event(int(str(connection.peer)), message)
        self._decide(event)
        if isinstance(event, membership.Told):
            self._daemon.nodes_changed(event.changes)
        elif isinstance(event, membership.Welcomed):
            self._daemon.nodes_changed(self._membership.nodes.values())
        if message["t"] == "welcome" and connection is self._connection and self._membership.is_welcome:
            self._daemon.control.linked(message["heard"], message["job_ids"], self._send, head=message["head"])
            self._daemon.head_linked(is_linked=True)
            if is_new:
                self._note_outliving()

    def _on_job_use(self, message: Message) -> None:
        """It has been sent after whatever the head was heard to hear."""
        news = self._use_news()
        was_told = news.is_told
        news.told(message, self._daemon.now_s())
        self._daemon.use_told(news.use())
        if news.is_told != was_told:  # others want to know at once
            self._decide(membership.Looked(self._daemon.own_state(), self._daemon.now_s()))

    def _use_news(self) -> cluster_use.UseNews:
        if self._news is None:
            self._news = self._daemon.use_news()
        return self._news

    def _event(self, link: int, message: Message) -> membership.Event:
        kind, now_s = message["t"], self._daemon.now_s()
        if kind == "welcome":
            self._daemon.log(f"this node is a member of {message['cluster']}, by connection {link}")
            period_s, timeout_s = message["period_s"], message["timeout_s"]
            return membership.Welcomed(link, message["cluster"], period_s, timeout_s, tuple(message["nodes"]), now_s)
        if kind == "listing":
            return membership.Listed(link, tuple(message["nodes"]), now_s)
        if kind == "nodes":
            return membership.Told(link, tuple(message["nodes"]), now_s)
        if kind == "heard":
            return membership.Acknowledged(link, now_s)
        if kind == "refused":
            return membership.Refused(link, message["kind"], message["reason"], now_s)
        return membership.HeadEnds(link, message["reason"], now_s)

    def _on_close(self, connection: transport.Connection) -> None:
        if self._connection is connection:
            self._lose()
            self._unlinked()
            if not self._membership.is_over:
                self._daemon.log("the connection to the head has ended")
        self._decide(membership.Closed(int(str(connection.peer)), self._daemon.now_s()))

    # ---- commands ----

    def _send(self, message: Message, body: bytes = b"") -> None:
        if self._connection is not None:
            self._connection.send(frames.encode_control(message, body))

    def _said(self, sequence: int, state: Mapping[str, Any]) -> None:
        if self._news is not None or "jobs" in state:
            self._use_news().said(sequence, state.get("jobs"))

    def _beat(self, command: membership.Beat) -> None:
        self._said(command.sequence, command.state)
        self._send({"t": "beat", "sequence": command.sequence, "state": command.state})

    def _join(self, command: membership.Join) -> None:
        head, heard = self._daemon.control.heard_of()
        state = self._daemon.own_state()
        self._joined_by = command.sequence
        self._said(command.sequence, state)
        self._send(
            {
                "t": "join", "protocol": node_messages.PROTOCOL_VERSION, "sequence": command.sequence,
                "cluster": command.cluster, "facts": self._daemon.own_facts(), "state": state,
                "heard": heard, "head": head,
            }
        )  # fmt: skip

    def _unlinked(self) -> None:
        self._daemon.control.unlinked()
        self._daemon.head_linked(is_linked=False)

    def _lose(self) -> None:
        self._connection = None
        if self._news is not None:
            self._news.lost(self._daemon.now_s())
        self._addresses.rotate(-1)

    def _hang_up(self) -> None:
        connection = self._connection
        self._lose()
        self._unlinked()
        if connection is not None:
            connection.close()

    def _joined(self, _command: membership.Joined) -> None:
        self._note_outliving()
        self._answer("")

    def _note_outliving(self) -> None:
        self._daemon.note_outliving(self._membership.cluster, self._membership.nodes[self._head]["address"])

    def _answer(self, trouble: str) -> None:
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(trouble)

    def _end(self, command: membership.End) -> None:
        self._answer(command.reason)
        self._daemon.end_node(command.reason)
