"""Questions about the whole cluster: to other nodes and their processes, and to several nodes at once.

A process or command asks its own daemon. That passes on what only another node knows (`far_agents`), or asks several and answers
with what they have said within the time that was given (`gathers`). What takes long is answered by a process of the node that is
asked (`surveyors`). Loaded with the first such question.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import far_agents, gathers, surveyors
from umbel._base import nodes, tokens
from umbel._transport import connection as transport

if TYPE_CHECKING:
    from umbel._agent.hub import Hub
    from umbel._agent.other_nodes import OtherNodes

_DIGITS = set("0123456789abcdef")
PASS_ON_S = 4.0  # for another node, or a process there, to answer; commands wait for 5 s

Message = dict[str, Any]
Done = Callable[[Message], None]


class Daemon(Protocol):
    poller: transport.Poller
    hub: Hub
    others: OtherNodes

    def now_s(self) -> float: ...


class Inquiries:
    """Of one node."""

    def __init__(
        self,
        daemon: Daemon,
        config: Message,
        token: tokens.Token | None,
        look: Callable[[str, str, Done], None],
    ) -> None:
        """token: None where there are no other nodes. look(what, about, done): answers a "query" about this one."""
        self._daemon = daemon
        self.poller, self.now_s, self.reacher = daemon.poller, daemon.now_s, daemon.others.reacher
        self._own_tag = nodes.tag_text(config["node_id"])
        self._look = look
        self._far = far_agents.FarAgents(self, token) if token is not None else None
        self._gathers = gathers.Gathers()
        self._surveyors = surveyors.Surveyors(daemon.poller, config["session_dir"], daemon.now_s)

    def address_of(self, tag: str) -> str:
        return str(self._daemon.others.directory.address_of(bytes.fromhex(tag)))

    def is_elsewhere(self, tag: str) -> bool:
        """Whether another node has this tag, which may have died."""
        is_tag = len(tag) == 2 * nodes.TAG_BYTES and set(tag) <= _DIGITS
        return is_tag and tag != self._own_tag and self._far is not None

    def survey(self, about: str, done: Done) -> None:
        """Of this node."""
        self._surveyors.ask(about, done)

    def pids(self) -> list[int]:
        return self._surveyors.pids()

    def pass_on(self, tag: str, message: Message, done: Done) -> None:
        """message: a "query" or an "ask", for another node."""

        def named(answer: Message) -> None:
            error = answer.get("error")
            if error is not None and error.get("kind") in ("late", "gone", "busy"):
                answer = {"error": {**error, "text": f"{self._called(tag)}: {error.get('text')}"}}
            done(answer)

        self._ask(tag, message, PASS_ON_S, named)

    def _ask(self, tag: str, message: Message, limit_s: float, done: Done) -> None:
        if self._far is None or not self.is_elsewhere(tag):
            done({"error": {"kind": "gone", "text": "there is no such node"}})
        else:
            self._far.ask(tag, message, limit_s, done)

    def _called(self, tag: str) -> str:
        """A node, in words."""
        found = next((one for one in self._daemon.others.listed() if one["node_id"].startswith(tag)), None)
        return f"node {tag[:8]}" if found is None else f"node {tag[:8]} at {nodes.address_in_words(found['address'])}"

    def gather(self, client: str, request: int, what: str, abouts: Mapping[str, str], limit_s: float) -> None:
        """A "query" to each node in `abouts`, with what it is to be asked about, answered by node within `limit_s`."""
        if self._gathers.is_full(client) or not abouts:
            text = f"{gathers.PER_ASKER_MAX} questions to several nodes wait for answers; wait for some of them"
            text = text if abouts else "gather.abouts names no node; name at least one"
            self._daemon.hub.reply(client, request, {"error": {"kind": "invalid", "text": text}})
            return
        number = self._gathers.begin(client, request, abouts, limit_s, self._daemon.now_s())
        for node, about in abouts.items():
            done = functools.partial(self._gathered, number, node)
            if nodes.tag_text(node) == self._own_tag:
                self._look(what, about, done)
            else:
                message = {"t": "query", "what": what, "about": about}
                self._ask(nodes.tag_text(node), message, limit_s, done)

    def _gathered(self, number: int, node: str, answer: Message) -> None:
        done = self._gathers.answered(number, node, answer)
        if done is not None:
            self._tell(done)

    def _tell(self, done: gathers.Done) -> None:
        self._daemon.hub.reply(done.asker, done.request, {"result": done.answers})

    def client_gone(self, client: str) -> None:
        self._gathers.gone(client)

    def node_died(self, node: str) -> None:
        if self._far is not None:
            self._far.forget(nodes.tag_text(node))

    # ---- time ----

    def next_tick_s(self) -> float | None:
        parts = (self._gathers, self._surveyors, self._far)
        due = [one.next_tick_s() for one in parts if one is not None]
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        for done in self._gathers.late(self._daemon.now_s()):
            self._tell(done)
        if self._far is not None:
            self._far.tick()
        self._surveyors.tick()

    def close(self) -> None:
        if self._far is not None:
            self._far.close()
        self._surveyors.close()
