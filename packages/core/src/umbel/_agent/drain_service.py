"""The daemon's part in draining nodes: requests that nodes of the cluster be drained, and this node's own drain.

Requests come from commands and programs (`on_request`), and reach the head, whose table of nodes asks the node. What that decides
(`draining`) is carried out here. Made, and loaded, with the first of either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import draining
from umbel._agent import events as ev
from umbel._agent.hub import Client, Hub, Message
from umbel._agent.records import WorkerState
from umbel._agent.state import AgentState

if TYPE_CHECKING:
    from umbel._agent.other_nodes import OtherNodes


class Daemon(Protocol):
    """What is needed of the daemon that this is in."""

    hub: Hub
    agent: AgentState
    control: Any

    def now_s(self) -> float: ...

    def time_s(self) -> float: ...

    def decide(self, *events: Any) -> None: ...

    def log(self, line: str) -> None: ...

    def end_drained(self, reason: str) -> None:
        """This node ends, as it was to."""


def left_on(agent: AgentState, driver_count: int, left_value_count: int = 0) -> draining.Left:
    """What a node still has."""
    workers = agent.workers.values()
    idle = [one for one in workers if one.lease is None]
    return draining.Left(
        drivers=driver_count,
        leases=sum(one.lease is not None and not one.lease.actor for one in workers),
        actors=sum(one.lease is not None and bool(one.lease.actor) for one in workers),
        bundles=sum(1 for _ in agent.bundles),
        waiting=sum(demand.count for demand in agent.demands.values()),
        workers=len(idle),
        keeping=sum(
            one.state in (WorkerState.IDLE, WorkerState.LEAVING) and one.ask_again_s is not None for one in idle
        ),
        values=left_value_count,
    )


def trouble_of(reason: str, left_s: float | None) -> str:
    """What is wrong with a request; "" for nothing."""
    if reason not in draining.REASONS:
        return f"the reason for draining a node must be {' or '.join(map(repr, draining.REASONS))}, got {reason!r:.100}"
    if left_s is not None and not 0 <= left_s < float("inf"):
        return f"deadline_s must be a number of seconds >= 0, or None for no deadline, got {left_s!r}"
    return ""


class DrainService:
    """See the module."""

    def __init__(self, daemon: Daemon, others: OtherNodes) -> None:
        self._daemon = daemon
        self._others = others
        self._machine = draining.Draining()
        self._is_looking = False
        self._deadline_s: tuple[float | None, float | None] = (None, None)  # by this node's clock, and by the system's
        self._do: dict[type, Callable[[Any], None]] = {
            draining.Begin: lambda command: self._begin(command.why),
            draining.GoOn: lambda _command: self._begin(""),
            draining.Answer: self._answer,
            draining.End: lambda command: daemon.end_drained(command.reason),
        }

    # ---- who wants nodes drained ----

    def on_request(self, client: Client, message: Message) -> None:
        daemon, request = self._daemon, message["rq"]
        link = self._others.link
        trouble = trouble_of(message["reason"], message["deadline_s"])
        if not client.may_change:
            daemon.hub.refuse(client.id, request, "forbidden", "draining a node needs a token of the role admin")
        elif trouble:
            daemon.hub.refuse(client.id, request, "invalid", trouble)
        elif link is None:
            text = "this node is a cluster of its own, which has no node that could be drained; end it by `umbel stop`"
            daemon.hub.refuse(client.id, request, "invalid", text)
        elif link.is_head:
            self.drain(message, lambda *answer: daemon.hub.reply(client.id, request, {"result": as_result(*answer)}))
        else:
            daemon.control.ask_to_drain(client.id, message)

    def drain(self, message: Message, tell: Callable[[bool, str], None]) -> None:
        """On the head. message: a "drain_node". tell: is told whether the node agrees, and else why not."""
        trouble = trouble_of(message["reason"], message["deadline_s"])
        if trouble:
            tell(False, trouble)
            return
        wanted = (message["node"], message["reason"], message["message"], message["deadline_s"])
        self._others.link.drain(*wanted, tell)

    # ---- this node ----

    @property
    def is_begun(self) -> bool:
        """Whether nothing begins here any more, or for now."""
        return self._machine.is_begun

    @property
    def reason(self) -> str:
        """Of a drain that this node has agreed to; "" for none."""
        return self._machine.reason

    def state(self) -> Message:
        """For those who list nodes; nothing before this node has agreed. deadline_s: by the system's clock."""
        machine = self._machine
        if not machine.reason:
            return {}
        until_s = machine.until_s
        if until_s != self._deadline_s[0]:  # once for each, as the head keeps it each time that it is another one
            self._deadline_s = until_s, round(self._daemon.time_s() + (until_s or 0.0) - self._daemon.now_s(), 1)
        return {
            "draining": {
                "reason": machine.reason, "message": machine.message, "deadline_s": self._deadline_s[1],
                "waits_for": self._left().in_words(),
            },
        }  # fmt: skip

    def asked(self, message: Message) -> None:
        """The head wants this node drained. message: a "drain" of `node_messages`."""
        left_s, now_s = message["left_s"], self._daemon.now_s()
        until_s = None if left_s is None else now_s + left_s
        request = (message["request"], message["reason"], message["message"], until_s)
        self._daemon.log(f"this node is to be drained ({message['reason']}: {message['message']})")
        self._apply(draining.Asked(*request, self._left(), now_s))

    def look(self) -> None:
        """Something has changed here, or time has passed."""
        if self._machine.is_begun and not self._is_looking:
            self._apply(draining.Looked(self._left(), self._daemon.now_s()))

    def next_tick_s(self) -> float | None:
        return self._machine.next_tick_s()

    def _left(self) -> draining.Left:
        return left_on(self._daemon.agent, len(self._daemon.hub.drivers()), self._others.left_value_count())

    def _apply(self, event: draining.Event) -> None:
        self._is_looking = True  # carrying out changes what is left, which is looked at when all is done
        try:
            for command in self._machine.apply(event):
                self._do[type(command)](command)
        finally:
            self._is_looking = False

    def _begin(self, why: str) -> None:
        self._daemon.decide(ev.DrainingChanged(why, self._daemon.now_s()))
        self._others.draining_changed()

    def _answer(self, command: draining.Answer) -> None:
        if not command.is_accepted:
            self._daemon.log(f"this node is not drained: {command.text}")
        self._others.link.answer_drain(command.request, command.text, is_accepted=command.is_accepted)


def as_result(is_accepted: bool, text: str) -> Message:
    return {"is_accepted": is_accepted, "reason": text}
