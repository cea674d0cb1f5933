"""A node's membership in a cluster, as the node sees it: when to dial the head, when to speak, when to end.

It dials until it is welcomed, or refused for good, or `JOIN_S` have passed. Then it says at least once a period that it lives,
and sooner when what it has changes. When the link breaks, or the head does not answer for `timeout_s`, it dials again, with
its id and all that it runs; after `head_lost_s` without the head it ends, and also when it is told that it was declared dead:
others have acted on its death, so what runs here must not go on. Time at which this node itself stood still is not counted.

It numbers whatever it says, over all its links, so that the head can tell what comes late. This module only decides;
`head_link` does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from umbel._base import checks

JOIN_S = 30.0  # for the first welcome: a head that is starting as well is there by then
HEAD_LOST_S = 60.0  # Ray's, of its nodes without their control store
DEAD_KEPT_MAX = 1_000  # to be listed; as many as the head keeps
FIRST_RETRY_S, RETRY_S_MAX = (
    0.05,
    1.0,
)  # doubling: within the head's patience with a broken link there are several attempts

Facts = Mapping[str, Any]


# What has happened. now_s: by this node's clock.


class Connected(NamedTuple):
    """The dial has led to a link; of each its number."""

    link: int
    now_s: float


class DialFailed(NamedTuple):
    """is_final: trying again would not help."""

    reason: str
    is_final: bool
    now_s: float


class Listed(NamedTuple):
    """The head says which nodes there are. What it has told of them since follows, and then the welcome."""

    link: int
    nodes: tuple[Facts, ...]
    now_s: float


class Welcomed(NamedTuple):
    """The head has made this node a member, or keeps it one. nodes: what it knows beside the listing and what followed that."""

    link: int
    cluster: str
    period_s: float
    timeout_s: float
    nodes: tuple[Facts, ...]
    now_s: float


class Told(NamedTuple):
    """What has changed of other nodes, or of this one."""

    link: int
    changes: tuple[Facts, ...]
    now_s: float


class Acknowledged(NamedTuple):
    """The head has heard this node."""

    link: int
    now_s: float


class Refused(NamedTuple):
    """The head does not want this node (any more)."""

    link: int
    kind: str
    reason: str
    now_s: float


class HeadEnds(NamedTuple):
    """The head says goodbye."""

    link: int
    reason: str
    now_s: float


class Closed(NamedTuple):
    """Nothing more comes over this link."""

    link: int
    now_s: float


class Looked(NamedTuple):
    """`next_tick_s` has come. state: what this node has free, and what waits on it."""

    state: Facts
    now_s: float


Event: TypeAlias = (
    "Connected | DialFailed | Listed | Welcomed | Told | Acknowledged | Refused | HeadEnds | Closed | Looked"
)


# What to do.


class Dial(NamedTuple):
    """Answer with Connected or DialFailed."""


class Join(NamedTuple):
    """Say over this link who this node is. cluster: of which it is a member; "" for none yet."""

    link: int
    sequence: int
    cluster: str


class Beat(NamedTuple):
    link: int
    sequence: int
    state: Facts


class HangUp(NamedTuple):
    link: int


class Joined(NamedTuple):
    """For the first time."""


class Appeared(NamedTuple):
    """A node is a member, this one perhaps, and is reached there."""

    node_id: str
    address: str


class Died(NamedTuple):
    """A node that had appeared is dead, for good."""

    node_id: str
    reason: str


class End(NamedTuple):
    """This node has to end, with all that runs on it."""

    reason: str


Command: TypeAlias = "Dial | Join | Beat | HangUp | Joined | Appeared | Died | End"


class Membership:
    """One node's. link: 0 for none. nodes: by id, as the head tells them."""

    def __init__(self, *, now_s: float, join_s: float = JOIN_S, head_lost_s: float = HEAD_LOST_S) -> None:
        self.cluster = ""  # of which it is a member
        self.link = 0
        self.is_welcome = False  # over this link
        self.is_over = False
        self.trouble = "it has not been tried yet"  # why there is no link
        self.nodes: dict[str, dict[str, Any]] = {}
        self._dead: dict[str, None] = {}  # of those
        self._listing: dict[str, dict[str, Any]] | None = None  # over this link, until the welcome
        self._sequence = 0
        self._period_s = self._timeout_s = 10.0  # until the head has said
        self._head_lost_s = head_lost_s
        self._join_s = join_s
        self._is_dialling = False
        self._dial_at_s = self._heard_s = self._without_s = self._looked_s = now_s
        self._retry_s = FIRST_RETRY_S
        self._told: Facts = {}  # what the head knows of this node's state
        self._beat_s = now_s

    # ---- time ----

    def next_tick_s(self, look_s: float) -> float | None:
        """When it is to look. look_s: after how long it looks whether its state has changed."""
        if self.is_over:
            return None
        if self.is_welcome:
            return min(self._looked_s + min(look_s, self._period_s), self._heard_s + self._timeout_s)
        due_s = min(self._without_s + self._patience_s, self._looked_s + self._period_s)
        if self.link:
            return min(due_s, self._heard_s + self._timeout_s)
        return due_s if self._is_dialling else min(due_s, self._dial_at_s)

    @property
    def _patience_s(self) -> float:
        return self._head_lost_s if self.cluster else self._join_s

    def waits_for(self, now_s: float) -> str:
        """What this node waits for while it is no member, or has no link; "" while it has."""
        if self.is_welcome:
            return ""
        return f"it has had no connection to the head for {now_s - self._without_s:.0f} s: {self.trouble}"

    def apply(self, event: Event) -> list[Command]:
        commands = [] if self.is_over else self._apply(event)
        self.check()
        return commands

    def _apply(self, event: Event) -> list[Command]:
        if isinstance(event, Looked):
            return self._look(event)
        if isinstance(event, DialFailed):
            return self._dial_failed(event)
        if isinstance(event, Connected):
            return self._connected(event)
        if event.link != self.link:
            return []  # of a link that has been given up
        self._heard_s = event.now_s
        if isinstance(event, Listed):
            self._listing = {facts["node_id"]: dict(facts) for facts in event.nodes}
            return []
        if isinstance(event, Welcomed):
            return self._welcomed(event)
        if isinstance(event, Told):
            return self._told_of(event.changes)
        if isinstance(event, Refused):
            what = (
                "the head has declared this node dead" if event.kind == "dead" else "the head does not take this node"
            )
            return self._end(f"{what}: {event.reason}")
        elif isinstance(event, HeadEnds):
            return self._end(f"the head of the cluster has ended: {event.reason}")
        elif isinstance(event, Closed):
            self._lose("the connection broke", event.now_s)
        return []

    # ---- joining ----

    def _connected(self, event: Connected) -> list[Command]:
        self._is_dialling = False
        self.link, self._heard_s, self._listing = event.link, event.now_s, None
        self._sequence += 1
        return [Join(self.link, self._sequence, self.cluster)]

    def _dial_failed(self, event: DialFailed) -> list[Command]:
        self._is_dialling = False
        self.trouble = event.reason
        if event.is_final and not self.cluster:
            return self._end(event.reason)
        self._back_off(event.now_s)
        return []

    def _welcomed(self, event: Welcomed) -> list[Command]:
        is_first = not self.cluster
        self.cluster, self.is_welcome = event.cluster, True
        self._period_s, self._timeout_s = event.period_s, event.timeout_s
        self._retry_s, self.trouble = FIRST_RETRY_S, ""
        self._told, self._beat_s = {}, event.now_s
        known, self.nodes, self._dead = self.nodes, {}, {}
        listing, self._listing = self._listing or {}, None
        for change in event.nodes:
            _merge(listing, change)
        commands: list[Command] = []
        for node_id, facts in listing.items():
            before = known.pop(node_id, {"alive": False})
            if (
                facts.get("is_awaited") and before["alive"]
            ):  # what it has this node knows better than a head that awaits it
                facts |= {"available": before["available"], "waiting": before["waiting"]}
            commands += self._take(facts, was_alive=before["alive"])
        # Those that the head does not remember have been dead for long.
        commands += [
            Died(node_id, "the head does not remember it") for node_id, facts in known.items() if facts["alive"]
        ]
        return (
            [Joined(), *commands] if is_first else commands
        )  # whoever waits for it goes on while others are looked at

    def _take(self, facts: dict[str, Any], *, was_alive: bool) -> list[Command]:
        """All facts of a node. was_alive: as it was known here."""
        node_id = facts["node_id"]
        self.nodes[node_id] = facts
        if facts["alive"]:
            return [] if was_alive else [Appeared(node_id, facts["address"])]
        self._dead[node_id] = None
        if len(self._dead) > DEAD_KEPT_MAX:
            oldest = next(iter(self._dead))
            del self._dead[oldest], self.nodes[oldest]
        return [Died(node_id, facts["reason"])] if was_alive else []

    def _told_of(self, changes: tuple[Facts, ...]) -> list[Command]:
        if self._listing is not None:
            for change in changes:
                _merge(self._listing, change)
            return []
        commands: list[Command] = []
        for change in changes:
            was_alive = change["node_id"] in self.nodes
            merged = _merge(self.nodes, change)
            commands += self._take(merged, was_alive=was_alive) if merged is not None else []
        return commands

    # ---- losing it ----

    def _lose(self, reason: str, now_s: float) -> None:
        if self.is_welcome:
            self._without_s = now_s
        self.link, self.is_welcome, self.trouble = 0, False, reason
        self._back_off(now_s)

    def _back_off(self, now_s: float) -> None:
        self._dial_at_s = now_s + self._retry_s
        self._retry_s = min(2 * self._retry_s, RETRY_S_MAX)

    def leave(self) -> int:
        """This node ends by itself: the link over which to say goodbye, 0 for none."""
        link = self.link if self.is_welcome and not self.is_over else 0
        self.is_over = True
        return link

    def _end(self, reason: str) -> list[Command]:
        self.is_over, self.trouble = True, reason
        return [End(reason)]

    # ---- looking ----

    def _look(self, event: Looked) -> list[Command]:
        now_s = event.now_s
        self._forgive(now_s - self._looked_s - self._period_s, now_s)
        self._looked_s = now_s
        commands: list[Command] = []
        if self.link and now_s >= self._heard_s + self._timeout_s:
            commands.append(HangUp(self.link))
            self._lose(f"the head has not answered for {self._timeout_s:g} s", now_s)
        if self.is_welcome:
            return [*commands, *self._beat(event)]
        if now_s >= self._without_s + self._patience_s:
            reason = f"there was no connection to the head for {self._patience_s:g} s: {self.trouble}"
            return [*commands, *self._end(reason)]
        if not self.link and not self._is_dialling and now_s >= self._dial_at_s:
            self._is_dialling = True
            commands.append(Dial())
        return commands

    def _forgive(self, stood_still_s: float, now_s: float) -> None:
        """What the head said while this node stood still lies unread."""
        if stood_still_s > 0:
            self._heard_s = min(now_s, self._heard_s + stood_still_s)
            self._without_s = min(now_s, self._without_s + stood_still_s)

    def _beat(self, event: Looked) -> list[Command]:
        if event.state == self._told and event.now_s < self._beat_s + self._period_s:
            return []
        self._sequence += 1
        self._told, self._beat_s = event.state, event.now_s
        return [Beat(self.link, self._sequence, event.state)]

    def check(self) -> None:
        """Raises InternalError unless it is a member only over a link, and dials only without one."""
        checks.invariant(self.link or not self.is_welcome, "a member without a link", cluster=self.cluster)
        checks.invariant(not (self.link and self._is_dialling), "it dials and has a link", link=self.link)
        checks.invariant(self.cluster or not self.is_welcome, "a member of no cluster")


def _merge(nodes: dict[str, dict[str, Any]], change: Facts) -> dict[str, Any] | None:
    """What is told of a node into what is known of all: that node then, unless it changes nothing."""
    node_id = change["node_id"]
    known = nodes.get(node_id)
    if known is None:
        if "version" not in change:  # not all facts, so of one that is not known any more
            return None
        nodes[node_id] = dict(change)
    elif known["alive"]:  # dead is final
        known.pop("is_awaited", None)  # what the head tells of a node that has
        nodes[node_id] = {**known, **change}
    else:
        return None
    return nodes[node_id]
