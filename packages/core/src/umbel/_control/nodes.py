"""Which nodes a cluster has, as its head sees them: who is a member, who is suspected, who is dead.

A node joins over a *link*, a connection to the head of which each has a number of its own. It is *suspected* when its link
breaks, or when it has said nothing for `timeout_s`; it is declared *dead* when it has not come back `reconnect_s` after its
link broke, or has said nothing for `threshold` further periods. Dead is final: whoever comes back under that id is told so
and ends itself, since others have acted on its death. A node numbers all it says, joins and heartbeats alike, so what comes
late by an older link changes nothing.

Time at which the head itself stood still counts against nobody: what nodes said meanwhile lies unread. It is to be told `Ticked`
by `next_tick_s`, once in `TICK_S` at least; when that comes `LATE_S` too late, what has passed since the last one is not counted.

A head that has started again begins with the nodes that were kept (`restore`): its cluster's id is that of before, the daemon
of the head before is dead with what ran there, and the others are *awaited* for `return_s`, as one that has not noticed yet
that its link is broken takes `timeout_s` to do so. What those have is not known until then; that one is being drained is kept.

Members are told who joined, left or died, and what else has changed, as `node_news` has it: with values and not differences, so
what is told twice does no harm.

A node is *drained* on request: it is asked, over its next link if this one breaks, and agrees or not. From then on its state
says so, which it tells itself ("draining"), and it leaves when it has nothing left, or at its deadline. A request is answered
once, within `DRAIN_ANSWER_S`. This module only decides; `node_service` sends and receives.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from umbel._base import checks, nodes
from umbel._control import node_news

PERIOD_S = 3.0  # Ray's: of its health checks
THRESHOLD = 5  # Ray's: so many of them fail
TIMEOUT_S = 10.0  # Ray's: until one has failed
RECONNECT_S = (
    5.0  # five attempts of a node that is still there; a killed process does not come back, and its work waits
)
TICK_S = 1.0  # so that little of the time at which the head stood still is counted
LATE_S = 0.5  # a loop that is so late was stopped, or had no CPU
DRAIN_ANSWER_S = 15.0  # a node looks for 5 s whether it is idle; and it may have to come back first
DEAD_KEPT_MAX = 1_000  # Ray's; to be listed, and to be told that they are dead
HEAD_ENDED = "its daemon ended, which was the head of the cluster, and another one has taken its place"
UNKNOWN: Mapping[str, Any] = {"available": {}, "waiting": 0}  # what a node has that has said nothing to this head

Facts = Mapping[str, Any]


class Health(NamedTuple):
    """After what time a node is taken for dead."""

    period_s: float = PERIOD_S
    threshold: int = THRESHOLD
    timeout_s: float = TIMEOUT_S
    reconnect_s: float = RECONNECT_S

    @property
    def silence_s(self) -> float:
        """Of a link that has not broken."""
        return self.timeout_s + self.threshold * self.period_s

    @property
    def return_s(self) -> float:
        """For nodes to come back to a head that has started again."""
        return self.timeout_s + self.reconnect_s


# What has happened.


class NodeJoined(NamedTuple):
    """A node wants to be a member, or to go on being one over a new link.

    facts: what does not change, "node_id" and "version" among it. state: what does: "available", "load". cluster: of which it
    knows that it is a member; "" before it was welcomed.
    """

    node_id: str
    link: int
    sequence: int
    facts: Facts
    state: Facts
    cluster: str
    now_s: float


class Heartbeat(NamedTuple):
    """A member lives. state: as in NodeJoined."""

    node_id: str
    link: int
    sequence: int
    state: Facts
    now_s: float


class LinkLost(NamedTuple):
    """Nothing more comes over this link."""

    node_id: str
    link: int
    now_s: float


class NodeLeft(NamedTuple):
    """A node says goodbye: it ends."""

    node_id: str
    link: int
    reason: str
    now_s: float


class HeadChanged(NamedTuple):
    """The head's own state."""

    state: Facts
    now_s: float


class DrainRequested(NamedTuple):
    """Somebody wants a node to take no more work and to end. request: a number that `AnswerDrain` repeats. reason: "idle" or
    "preemption". message: for people. left_s: until the node ends whatever runs there; None for never."""

    request: int
    node_id: str
    reason: str
    message: str
    left_s: float | None
    now_s: float


class DrainAnswered(NamedTuple):
    """A node has been asked. state: as in NodeJoined. text: why not."""

    node_id: str
    link: int
    request: int
    is_accepted: bool
    text: str
    state: Facts
    now_s: float


class Ticked(NamedTuple):
    """`next_tick_s` has come."""

    now_s: float


NodeEvent: TypeAlias = (
    "NodeJoined | Heartbeat | LinkLost | NodeLeft | HeadChanged | DrainRequested | DrainAnswered | Ticked"
)


# What to do.


class Welcome(NamedTuple):
    """Tell it over this link that it is a member, and what `listed` says."""

    node_id: str
    link: int


class Acknowledge(NamedTuple):
    """A heartbeat has been heard."""

    link: int
    sequence: int


class Refuse(NamedTuple):
    """Say why over this link, and close it. kind: "version", "tag", "cluster" or "dead"; none of them passes."""

    link: int
    kind: str
    reason: str


class DropLink(NamedTuple):
    """Close it: the node has another, or has gone."""

    link: int


class Publish(NamedTuple):
    """Tell all that have been welcomed. changes: each names its "node_id"; all facts of one that is new."""

    changes: tuple[Facts, ...]


class Admit(NamedTuple):
    """A member is there that has not been, at this head; for those here whom it concerns."""

    node_id: str


class DeclareDead(NamedTuple):
    """For those here whom it concerns; members are told by Publish. is_expected: it said goodbye."""

    node_id: str
    reason: str
    is_expected: bool


class AskToDrain(NamedTuple):
    """Ask the node at this link; answered by DrainAnswered, if the link lasts. left_s: as in DrainRequested, from now."""

    link: int
    request: int
    reason: str
    message: str
    left_s: float | None


class AnswerDrain(NamedTuple):
    """Tell whoever wanted a node drained. text: why not."""

    request: int
    is_accepted: bool
    text: str


NodeCommand: TypeAlias = (
    "Welcome | Acknowledge | Refuse | DropLink | Publish | Admit | DeclareDead | AskToDrain | AnswerDrain"
)


class _Drain(NamedTuple):
    """A request that was not answered. until_s: the deadline. answer_by_s: when it is answered at the latest."""

    request: int
    node_id: str
    reason: str
    message: str
    until_s: float | None
    answer_by_s: float

    def ask(self, link: int, now_s: float) -> AskToDrain:
        left_s = None if self.until_s is None else max(0.0, self.until_s - now_s)
        return AskToDrain(link, self.request, self.reason, self.message, left_s)


class Node:
    """One of a cluster. link: 0 for none. suspected_s: since when it has been, None while it is not. ended_s: of the dead, by
    the system's clock."""

    __slots__ = (
        "ended_s", "facts", "heard_s", "id", "is_expected", "link", "lost_s", "reason", "sequence", "state", "suspected_s",
    )  # fmt: skip

    def __init__(self, facts: Facts, state: Facts, now_s: float) -> None:
        self.id: str = facts["node_id"]
        self.facts = facts
        self.state = state
        self.link = 0
        self.sequence = 0
        self.heard_s = now_s
        self.lost_s: float | None = None  # when its link broke
        self.suspected_s: float | None = None
        self.ended_s: float | None = None
        self.reason = ""
        self.is_expected = False

    @property
    def is_awaited(self) -> bool:
        """It has not come to this head yet, and had to that before. Its state says so as long as nothing else is known of it."""
        return bool(self.state.get("is_awaited"))

    def dies_s(self, health: Health) -> float:
        if self.is_awaited and self.lost_s is not None:
            return self.lost_s + health.return_s
        silent_s = self.heard_s + health.silence_s
        return silent_s if self.lost_s is None else min(silent_s, self.lost_s + health.reconnect_s)

    def listed(self) -> dict[str, Any]:
        is_alive = self.ended_s is None
        end = {"alive": is_alive, "reason": self.reason, "is_expected": self.is_expected, "ended_s": self.ended_s}
        return {**self.facts, **self.state, **end}


class NodeTable:
    """The members, the head first, and the dead, the latest last."""

    def __init__(self, head: Facts, state: Facts, *, health: Health, now_s: float, time_s: float) -> None:
        """head: its facts. The cluster is called by its id, unless one is restored. now_s, time_s: by the clock of the events,
        and by the system's."""
        self._health = health
        self._to_time_s = time_s - now_s
        self.head = Node(head, state, now_s)
        self.version: str = head["version"]
        self.cluster = self.head.id
        self.alive: dict[str, Node] = {self.head.id: self.head}
        self.dead: OrderedDict[str, Node] = OrderedDict()
        self.changed: dict[str, None] | None = None  # whose records are to be kept anew; None where nobody keeps any
        self._tags = {nodes.tag_of_node(self.head.id): self.head.id}
        self._linked: OrderedDict[str, Node] = OrderedDict()  # the one that has been silent for longest first
        self._lost: dict[str, Node] = {}  # living ones without a link
        self._news = node_news.News(now_s)
        self._relisted: dict[str, None] = {self.head.id: None}  # see `relisted`
        self._drains: dict[int, _Drain] = {}  # by request
        self._looked_s = now_s
        self.next_tick_s = now_s + TICK_S
        self._on: dict[type, Callable[[Any], list[NodeCommand]]] = {
            NodeJoined: self._on_joined,
            Heartbeat: self._on_heartbeat,
            LinkLost: self._on_link_lost,
            NodeLeft: self._on_left,
            HeadChanged: self._on_head_changed,
            DrainRequested: self._on_drain_requested,
            DrainAnswered: self._on_drain_answered,
            Ticked: self._on_ticked,
        }

    def apply(self, event: NodeEvent) -> list[NodeCommand]:
        return self._on[type(event)](event)

    def restore(self, cluster: str, kept: Iterable[Facts]) -> list[str]:
        """Begin with what was kept (`record`) of each, the latest last, and keep records from now on. cluster: "" for none yet.
        Returns the ids of those that are awaited."""
        now_s = self.head.heard_s
        self.cluster = cluster or self.head.id
        self.changed = {self.head.id: None}
        for one in kept:
            draining = one.get("draining")  # which earlier versions did not keep
            state = {**UNKNOWN, "draining": {**draining, "waits_for": ""}} if draining else UNKNOWN
            node = Node(one["facts"], state, now_s)
            self._tags[nodes.tag_of_node(node.id)] = node.id
            self._relisted[node.id] = None
            if one["ended_s"] is not None or one["is_head"]:
                self._restore_dead(node, one)
            else:
                self.alive[node.id] = self._lost[node.id] = node
                node.lost_s = node.suspected_s = now_s
                node.state = {**state, "is_awaited": True}
                self.next_tick_s = min(self.next_tick_s, node.dies_s(self._health))
        return [node.id for node in self.alive.values() if node.is_awaited]

    def _restore_dead(self, node: Node, kept: Facts) -> None:
        node.ended_s, node.reason, node.is_expected = kept["ended_s"], kept["reason"], kept["is_expected"]
        if node.ended_s is None:
            node.ended_s, node.reason = node.heard_s + self._to_time_s, HEAD_ENDED
            self._changes(node)
        self._remember_dead(node)

    def record(self, node_id: str) -> dict[str, Any] | None:
        """What is to be kept of it; None for nothing."""
        node = self.alive.get(node_id) or self.dead.get(node_id)
        if node is None:
            return None
        end = {"ended_s": node.ended_s, "reason": node.reason, "is_expected": node.is_expected}
        return {"facts": dict(node.facts), "is_head": node is self.head, "draining": _drain_of(node.state), **end}

    def _changes(self, node: Node) -> None:
        if self.changed is not None:
            self.changed[node.id] = None

    def end(self, reason: str, now_s: float) -> None:
        """The cluster ends, and no member of it lives on."""
        for node in [one for one in self.alive.values() if one is not self.head]:
            self._die(node, reason, now_s, is_expected=True)

    def listed(self) -> list[dict[str, Any]]:
        """All, for queries."""
        return [node.listed() for node in (*self.alive.values(), *self.dead.values())]

    def relisted(self, unkept: Mapping[str, Facts | None] | None = None) -> dict[str, Facts | None]:
        """Those that are listed otherwise than when this was asked last, by id; None for one that is no more, or not yet. unkept:
        those that are to be listed so instead, for now."""
        unkept = unkept or {}
        changed, self._relisted = self._relisted, dict.fromkeys(unkept)
        found = {node_id: self.alive.get(node_id) or self.dead.get(node_id) for node_id in changed}
        return {node_id: node.listed() if node is not None else None for node_id, node in found.items()} | {**unkept}

    def suspicion(self, node_id: str, now_s: float) -> str:
        """Why this node is suspected, and until when; "" if it is not."""
        node = self.alive.get(node_id)
        if node is None or node.suspected_s is None:
            return ""
        what = "its connection is broken" if node.lost_s is not None else "it says nothing"
        if node.is_awaited:
            what = "the head has started again, and the node has not come back"
        left_s = max(0.0, node.dies_s(self._health) - now_s)
        return (
            f"{what} for {now_s - node.suspected_s:.0f} s; it is declared dead in {left_s:.0f} s unless it comes back"
        )

    # ---- joining ----

    def _on_joined(self, event: NodeJoined) -> list[NodeCommand]:
        trouble = self._trouble(event)
        if trouble is not None:
            return [trouble]
        node = self.alive.get(event.node_id)
        if node is None:
            return self._enter(event)
        if event.sequence <= node.sequence:  # it came late, or twice
            return [] if event.link == node.link else [DropLink(event.link)]
        commands: list[NodeCommand] = [DropLink(node.link)] if node.link else []
        if node.is_awaited:
            commands.append(Admit(node.id))
        node.link, node.lost_s = event.link, None
        self._lost.pop(node.id, None)
        self._heard(node, event.sequence, event.state, event.now_s)
        again = [one.ask(node.link, event.now_s) for one in self._drains.values() if one.node_id == node.id]
        return [*commands, Welcome(node.id, event.link), *again]

    def _trouble(self, event: NodeJoined) -> Refuse | None:
        version = event.facts["version"]
        if version != self.version:
            text = f"this cluster runs Umbel {self.version or 'of unknown version'}, the node {version!r}"
            return Refuse(event.link, "version", f"{text}; install the same version on both")
        if event.cluster not in ("", self.cluster):
            text = f"its cluster {event.cluster[:8]} has ended; another, {self.cluster[:8]}, runs at this address: start it anew"
            return Refuse(event.link, "cluster", text)
        if event.node_id in self.dead or (event.cluster and event.node_id not in self.alive):
            return self._refuse_dead(event.link, event.node_id)
        other = self._tags.get(nodes.tag_of_node(event.node_id), event.node_id)
        if other != event.node_id or event.node_id == self.head.id:
            text = f"its id {event.node_id} begins as that of another node, {other}; start it again, which gives it another id"
            return Refuse(event.link, "tag", text)
        return None

    def _refuse_dead(self, link: int, node_id: str) -> Refuse:
        known = self.dead.get(node_id)
        return Refuse(link, "dead", known.reason if known is not None else "it is not remembered why")

    def _enter(self, event: NodeJoined) -> list[NodeCommand]:
        node = Node(event.facts, event.state, event.now_s)
        self.alive[node.id] = node
        self._relisted[node.id] = None
        self._tags[nodes.tag_of_node(node.id)] = node.id
        self._changes(node)
        node.link, node.sequence = event.link, event.sequence
        self._linked[node.id] = node
        self._news.comes(node)
        return [Admit(node.id), *self._tell(event.now_s), Welcome(node.id, event.link)]

    # ---- telling members ----

    def _tell(self, now_s: float) -> list[NodeCommand]:
        """What they are to hear by now."""
        changes = self._news.take(now_s, self._member_count)
        self._look_for_news(now_s)
        return [Publish(changes)] if changes else []

    def _look_for_news(self, now_s: float) -> None:
        due_s = self._news.due_s(self._member_count)
        if due_s is not None:
            self.next_tick_s = min(self.next_tick_s, max(now_s, due_s))

    @property
    def _member_count(self) -> int:
        """Of those that hear of one that has come."""
        return len(self.alive) - 2

    # ---- living ----

    def _on_heartbeat(self, event: Heartbeat) -> list[NodeCommand]:
        node = self.alive.get(event.node_id)
        if node is None:
            return [self._refuse_dead(event.link, event.node_id)]
        if event.link != node.link or event.sequence <= node.sequence:
            return []
        self._heard(node, event.sequence, event.state, event.now_s)
        return [Acknowledge(event.link, event.sequence)]

    def _heard(self, node: Node, sequence: int, state: Facts, now_s: float) -> None:
        node.sequence, node.heard_s, node.suspected_s = sequence, now_s, None
        self._linked[node.id] = node
        self._linked.move_to_end(node.id)
        self._update(node, state, now_s)

    def _update(self, node: Node, state: Facts, now_s: float) -> None:
        is_other = state != node.state
        if is_other and _drain_of(state) != _drain_of(node.state):
            self._changes(node)
        node.state = state  # an equal one is a later word all the same
        if is_other:
            self._relisted[node.id] = None
            self._news.changes(node)
            self._look_for_news(now_s)

    def _on_head_changed(self, event: HeadChanged) -> list[NodeCommand]:
        self._update(self.head, event.state, event.now_s)
        return []

    # ---- draining ----

    def _on_drain_requested(self, event: DrainRequested) -> list[NodeCommand]:
        node = self.alive.get(event.node_id)
        trouble = self._why_not_drained(event)
        if trouble or node is None:
            return [AnswerDrain(event.request, False, trouble)]
        until_s = None if event.left_s is None else event.now_s + event.left_s
        answer_by_s = event.now_s + DRAIN_ANSWER_S
        asked = _Drain(event.request, node.id, event.reason, event.message, until_s, answer_by_s)
        self._drains[event.request] = asked
        self.next_tick_s = min(self.next_tick_s, answer_by_s)
        return [asked.ask(node.link, event.now_s)] if node.link else []

    def _why_not_drained(self, event: DrainRequested) -> str:
        if event.node_id in self.alive:
            if event.node_id != self.head.id:
                return ""
            return f"node {event.node_id} is the head, with which the cluster ends; drain others, or end it by `umbel stop`"
        dead = self.dead.get(event.node_id)
        if dead is not None:
            return f"node {event.node_id} is dead already: {dead.reason}"
        living = ", ".join(one for one in self.alive if one != self.head.id) or "none"
        return f"this cluster has no node {event.node_id!r:.100}; those that can be drained are: {living}"

    def _on_drain_answered(self, event: DrainAnswered) -> list[NodeCommand]:
        node = self.alive.get(event.node_id)
        if node is None or node.link != event.link:
            return []  # it is asked again, or gone
        self._update(node, event.state, event.now_s)
        asked = self._drains.get(event.request)
        if asked is None or asked.node_id != node.id:
            return []
        del self._drains[event.request]
        return [AnswerDrain(event.request, event.is_accepted, event.text)]

    def _give_up_drains(self, now_s: float) -> list[NodeCommand]:
        """Answer those that nobody has answered."""
        commands: list[NodeCommand] = []
        for asked in [one for one in self._drains.values() if one.answer_by_s <= now_s]:
            del self._drains[asked.request]
            text = (
                f"node {asked.node_id} has not answered within {DRAIN_ANSWER_S:g} s; it may still be drained, which "
                "`umbel status` shows"
            )
            commands.append(AnswerDrain(asked.request, False, text))
        return commands

    # ---- ending ----

    def _on_link_lost(self, event: LinkLost) -> list[NodeCommand]:
        node = self.alive.get(event.node_id)
        if node is not None and node.link == event.link:
            node.link, node.lost_s = 0, event.now_s
            self._lost[node.id] = self._linked.pop(node.id)
            if node.suspected_s is None:
                node.suspected_s = event.now_s
            self.next_tick_s = min(self.next_tick_s, node.dies_s(self._health))
        return []

    def _on_left(self, event: NodeLeft) -> list[NodeCommand]:
        if event.node_id not in self.alive:
            return [DropLink(event.link)]
        node = self.alive[event.node_id]
        commands = [*self._die(node, event.reason, event.now_s, is_expected=True), *self._tell(event.now_s)]
        return [*commands, *(DropLink(link) for link in dict.fromkeys((event.link, node.link)) if link)]

    def _die(self, node: Node, reason: str, now_s: float, *, is_expected: bool) -> list[NodeCommand]:
        checks.invariant(node is not self.head, "the head was declared dead by itself", reason=reason)
        del self.alive[node.id]
        self._linked.pop(node.id, None)
        self._lost.pop(node.id, None)
        self._relisted[node.id] = None
        node.ended_s, node.reason, node.is_expected = now_s + self._to_time_s, reason, is_expected
        node.suspected_s = None
        node.state = {name: value for name, value in node.state.items() if name != "is_awaited"}
        self._changes(node)
        self._remember_dead(node)
        end = {"alive": False, "reason": reason, "is_expected": is_expected, "ended_s": node.ended_s}
        if "draining" in node.state:  # those who have not heard of it count what died there against nobody all the same
            end["draining"] = node.state["draining"]
        self._news.ends(node, {"node_id": node.id, **end})
        commands: list[NodeCommand] = [DeclareDead(node.id, reason, is_expected)]
        for asked in [one for one in self._drains.values() if one.node_id == node.id]:
            del self._drains[asked.request]
            commands.append(AnswerDrain(asked.request, False, f"node {node.id} has died meanwhile: {reason}"))
        return commands

    def _remember_dead(self, node: Node) -> None:
        self.dead[node.id] = node
        if len(self.dead) > DEAD_KEPT_MAX:
            _, forgotten = self.dead.popitem(last=False)
            del self._tags[nodes.tag_of_node(forgotten.id)]
            self._relisted[forgotten.id] = None
            self._changes(forgotten)

    # ---- time ----

    def _on_ticked(self, event: Ticked) -> list[NodeCommand]:
        now_s, health = event.now_s, self._health
        stood_still_s = now_s - self._looked_s if now_s > self.next_tick_s + LATE_S else 0.0
        self._looked_s = now_s
        if stood_still_s:
            for node in (*self._linked.values(), *self._lost.values()):
                self._forgive(node, stood_still_s, now_s)
        commands: list[NodeCommand] = []
        next_s = now_s + TICK_S
        silent = itertools.takewhile(lambda node: now_s >= node.heard_s + health.timeout_s, self._linked.values())
        for node in [*self._lost.values(), *silent]:
            dies_s = node.dies_s(health)
            if now_s >= dies_s:
                commands += self._declare_dead(node, now_s)
            else:
                if node.suspected_s is None:
                    node.suspected_s = node.heard_s
                next_s = min(next_s, dies_s)
        for node in itertools.islice(self._linked.values(), 1):  # those behind it die later
            next_s = min(next_s, node.dies_s(health))
        commands += self._give_up_drains(now_s)
        self.next_tick_s = min([next_s, *(one.answer_by_s for one in self._drains.values())])
        return [*commands, *self._tell(now_s)]

    def _forgive(self, node: Node, stood_still_s: float, now_s: float) -> None:
        """While the head stood still, it could neither hear the node nor let it in."""
        node.heard_s = min(now_s, node.heard_s + stood_still_s)
        if node.lost_s is not None:
            node.lost_s = min(now_s, node.lost_s + stood_still_s)
        if node.suspected_s is not None:
            node.suspected_s = min(now_s, node.suspected_s + stood_still_s)

    def _declare_dead(self, node: Node, now_s: float) -> list[NodeCommand]:
        if node.is_awaited:
            reason = (
                f"it did not come back within {self._health.return_s:g} s after the cluster's head had started again"
            )
        elif node.lost_s is not None and node.lost_s + self._health.reconnect_s <= now_s:
            reason = f"its connection to the head broke, and it did not come back within {self._health.reconnect_s:g} s"
        else:
            reason = f"the head has heard nothing from it for {self._health.silence_s:g} s"
        draining = node.state.get("draining")
        if draining:
            what = ": ".join(filter(None, (draining["reason"], draining.get("message", ""))))
            reason += f"; it was being drained ({what})"
        commands = self._die(node, reason, now_s, is_expected=False)
        if node.link:  # it is told, in case it hears that
            commands.append(Refuse(node.link, "dead", reason))
            node.link = 0
        return commands

    # ---- what must hold ----

    def check(self) -> None:
        """Raises InternalError unless it does."""
        known = [*self.alive.values(), *self.dead.values()]
        checks.invariant(
            self._tags == {nodes.tag_of_node(node.id): node.id for node in known} and len(self._tags) == len(known),
            "two nodes have one tag, or a node has none",
        )
        links = [node.link for node in self.alive.values() if node.link]
        checks.invariant(len(links) == len(set(links)), "two nodes have one link", links=links)
        checks.invariant(len(self.dead) <= DEAD_KEPT_MAX, "too many dead are kept", dead=len(self.dead))
        checks.invariant(self.alive.get(self.head.id) is self.head and not self.head.link, "the head is not a member")
        for node in known:
            is_dead = node.id in self.dead
            if not is_dead == (node.ended_s is not None) == bool(node.reason):
                raise checks.broken("half dead", node=node.id)
            if is_dead or node is self.head:
                continue
            if (node.link == 0) != (node.lost_s is not None):
                raise checks.broken("a link neither there nor lost", node=node.id)
            if node.lost_s is not None and node.suspected_s is None:
                raise checks.broken("lost and not suspected", node=node.id)
            if self.next_tick_s > node.dies_s(self._health):
                raise checks.broken("a death is due before anybody looks", node=node.id)
        checks.invariant(self._news.concerned() <= self.alive.keys(), "the dead join, or change")
        members = [node for node in self.alive.values() if node is not self.head]
        for is_linked, looked_after in ((True, self._linked), (False, self._lost)):
            expected = {node.id for node in members if bool(node.link) is is_linked}
            checks.invariant(expected == set(looked_after), "a node is not looked after", nodes=expected)
        heard = [node.heard_s for node in self._linked.values()]
        checks.invariant(heard == sorted(heard), "the most silent are not the first", heard=heard)
        for asked in self._drains.values():
            is_there = asked.node_id in self.alive and asked.node_id != self.head.id
            checks.invariant(is_there, "a node is to be drained that is not there", node=asked.node_id)
            checks.invariant(self.next_tick_s <= asked.answer_by_s, "nobody looks for an answer", node=asked.node_id)


def _drain_of(state: Facts) -> Facts | None:
    """What is kept of a drain that a node has agreed to: all but what it still has, which changes all the time. None for none."""
    draining = state.get("draining")
    return {name: value for name, value in draining.items() if name != "waits_for"} if draining else None
