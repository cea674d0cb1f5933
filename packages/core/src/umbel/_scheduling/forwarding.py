"""On which node each lease is asked for that processes of this node want.

Bottom-up: a process asks its own node's agent, and only what that has no room for is asked of another one. The agent tells
each node how many leases it wants of it for one process and key, always the whole number, and how many grants it has heard
of, so that one that crosses this is not granted twice (`Given`); the node queues what it cannot grant yet, as it does for its
own processes. Whatever is wanted is asked for somewhere at any time, so nothing is lost when views are late.

What room a node has is what it said last of itself, less as much of what it has been asked for from here as fits into that.
What waits at a full node is asked for elsewhere as soon as another one has room, and what a node with room does not grant
within `PATIENCE_S` is tried at another. One that is being drained has none, and what was asked of it is asked elsewhere. The
policy chooses among the nodes with room; which those are, and whether there can be any at all, `placement.eligible_nodes`
says. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from umbel._base import checks
from umbel._model import placement, resources

PATIENCE_S: Final = 1.0  # a grant takes milliseconds where there is room and a warm worker; starting one, tens of them

# ---- events ----


class WishChanged(NamedTuple):
    """A process here wants `lease_count` more leases for `key`; 0 withdraws the wish. demands: the same resources by each of
    its label selectors, the most wanted first."""

    client: str
    key: str
    demands: Sequence[placement.Demand]
    lease_count: int
    at_s: float


class ClientLeft(NamedTuple):
    """A process of this node has ended, and its wishes with it."""

    client: str
    at_s: float


class Granted(NamedTuple):
    """A node has granted one lease of a wish."""

    node: str
    client: str
    key: str
    at_s: float


class NodeSeen(NamedTuple):
    """A node is as this says, this one included. After each `Granted` of a node comes one that counts it."""

    view: placement.NodeView
    at_s: float


class NodeLost(NamedTuple):
    """A node is gone, with what was granted there."""

    node: str
    at_s: float


class NodeForgot(NamedTuple):
    """A node is there, as this says, and knows of nothing that was asked of it from here; what was granted there is lost."""

    view: placement.NodeView
    at_s: float


class Ticked(NamedTuple):
    at_s: float


Event = WishChanged | ClientLeft | Granted | NodeSeen | NodeLost | NodeForgot | Ticked

# ---- commands ----


class Want(NamedTuple):
    """Tell the node that so many leases are wanted of it, besides those that it was heard to grant. refusal: why nobody can
    ever grant them, of this node only: it keeps them all the same, warns, and gives them up if it was told to; "" if somebody
    can."""

    node: str
    client: str
    key: str
    lease_count: int
    heard_count: int
    refusal: str = ""


class Leave(NamedTuple):
    """Tell the node that a process from here, which it has heard of, is gone."""

    node: str
    client: str


class Fail(NamedTuple):
    """The wish can never be granted, and is not to wait: it is forgotten."""

    client: str
    key: str
    reason: str


Command = Want | Leave | Fail


class Policy(Protocol):
    """As `spi.SchedulingPolicy`, as far as it is asked here."""

    def place(self, demand: placement.Demand, view: placement.ClusterView) -> placement.Placement: ...


class Wish:
    """What is wanted for one key of one process. on: how much of it is asked for where. queue: the node that has what found
    no room. tried_s: when each of these nodes was asked first, or it was last tried to do without."""

    __slots__ = ("client", "count", "demands", "key", "on", "queue", "reason", "refusal", "tried_s", "turn")

    def __init__(self, client: str, key: str, demands: Sequence[placement.Demand], turn: int) -> None:
        self.client = client
        self.key = key
        self.demands = demands
        self.turn = turn
        self.count = 0
        self.on: dict[str, int] = {}
        self.queue = ""
        self.tried_s: dict[str, float] = {}
        self.refusal = ""
        self.reason = ""  # of the last placement, or why there is none

    @property
    def resources(self) -> resources.ResourceSet:
        return self.demands[0].resources


class Forwarding:
    """The wishes of one node's processes."""

    def __init__(self, node: str, policy: Policy) -> None:
        """node: this one, which `NodeSeen` tells of before anything is wanted."""
        self._node = node
        self._policy = policy
        self.nodes: dict[str, placement.NodeView] = {}
        self.wishes: dict[tuple[str, str], Wish] = {}
        self._asking: dict[str, set[Wish]] = {}  # by node, those of which something is asked there
        # Nodes less what they are asked for, and how much of each wish fits; where nothing has changed since.
        self._left: dict[str, tuple[placement.NodeView, dict[Wish, int]]] = {}
        self._known_at: dict[str, set[str]] = {}  # by process, the other nodes that have heard of it
        self._heard: dict[tuple[str, str], dict[str, int]] = {}  # by process and key, the grants of each node
        self._turns = 0
        self._has_freed = False  # there may be more room somewhere than there was when it was last looked for
        self._are_others = False  # nodes that could hold something in all, since then
        self._due_s: float | None = None  # of the next tick, where nothing has changed since
        self._is_due_known = False
        self._granting: set[str] = set()  # nodes that have granted something since they were last seen
        self._on: dict[type, Callable[[Any], list[Command]]] = {
            WishChanged: self._on_wish_changed,
            ClientLeft: self._on_client_left,
            Granted: self._on_granted,
            NodeSeen: self._on_node_seen,
            NodeLost: self._on_node_lost,
            NodeForgot: self._on_node_forgot,
            Ticked: self._on_ticked,
        }

    def apply(self, *events: Event) -> list[Command]:
        """Room that they have made is looked for once, after the last."""
        commands: list[Command] = []
        for event in events:
            commands += self._on[type(event)](event)
        if self._has_freed and events:
            self._has_freed = False
            commands += self._look_again(events[-1].at_s)
        self._is_due_known = False
        return commands

    def _on_node_seen(self, event: NodeSeen) -> list[Command]:
        node = event.view.node_id
        known = self.nodes.get(node)
        if known is None or _in_all(known) != _in_all(event.view):
            self._are_others = True
        if known != event.view or node in self._granting:
            self._has_freed = True
        self._granting.discard(node)
        self.nodes[node] = event.view
        self._left.pop(node, None)
        is_new = known is None or not known.is_draining
        return self._take_back(node, event.at_s) if event.view.is_draining and is_new else []

    def _take_back(self, node: str, at_s: float) -> list[Command]:
        """It grants nothing any more, but for its bundles: what else is asked of it is asked of others."""
        commands: list[Command] = []
        for wish in [wish for wish in self._in_order() if node in wish.on]:
            if wish.demands[0].is_in_bundle:
                continue
            before = dict(wish.on)
            self._put(wish, node, -before[node])
            commands += [*self._told(wish, before), *self._settle(wish, at_s)]
        return commands

    # ---- wishes ----

    def _on_wish_changed(self, event: WishChanged) -> list[Command]:
        place = (event.client, event.key)
        wish = self.wishes.get(place)
        if wish is None:
            if not event.lease_count:
                return []
            self._turns += 1
            wish = self.wishes[place] = Wish(event.client, event.key, event.demands, self._turns)
        wish.count = event.lease_count
        return self._settle(wish, event.at_s)

    def _on_granted(self, event: Granted) -> list[Command]:
        heard = self._heard.setdefault((event.client, event.key), {})
        heard[event.node] = heard.get(event.node, 0) + 1
        self._granting.add(event.node)
        wish = self.wishes.get((event.client, event.key))
        if wish is None:
            return []  # who wanted it gives it back
        wish.count -= 1
        if wish.on.get(event.node):
            self._put(wish, event.node, -1)  # the node has counted it, too
            if event.node in wish.tried_s:
                wish.tried_s[event.node] = event.at_s
        return self._settle(wish, event.at_s)

    def _on_client_left(self, event: ClientLeft) -> list[Command]:
        for place in [place for place in self.wishes if place[0] == event.client]:
            self._forget(self.wishes[place])
        for place in [place for place in self._heard if place[0] == event.client]:
            del self._heard[place]
        return [Leave(node, event.client) for node in sorted(self._known_at.pop(event.client, ()))]

    def _on_node_lost(self, event: NodeLost) -> list[Command]:
        self.nodes.pop(event.node, None)
        return self._ask_anew(event.node, event.at_s)

    def _on_node_forgot(self, event: NodeForgot) -> list[Command]:
        self.nodes[event.view.node_id] = event.view
        return self._ask_anew(event.view.node_id, event.at_s)

    def _ask_anew(self, node: str, at_s: float) -> list[Command]:
        """Nothing is asked of the node: where is it to be asked?"""
        for known in self._known_at.values():
            known.discard(node)
        for heard in self._heard.values():
            heard.pop(node, None)
        hit = [wish for wish in self._in_order() if node in wish.on]
        for wish in hit:
            self._put(wish, node, -wish.on[node])
        self._left.pop(node, None)
        self._granting.discard(node)
        self._has_freed = self._are_others = True
        commands: list[Command] = []
        for wish in hit:
            commands += self._settle(wish, at_s)
        return commands

    def _forget(self, wish: Wish) -> None:
        for node in [*wish.on]:
            self._put(wish, node, -wish.on[node])
            self._has_freed = True
        del self.wishes[wish.client, wish.key]

    # ---- time ----

    def next_tick_s(self) -> float | None:
        if not self._is_due_known:
            tried = [at_s for wish in self.wishes.values() for at_s in wish.tried_s.values()]
            self._due_s = min(tried) + PATIENCE_S if tried else None
            self._is_due_known = True
        return self._due_s

    def _on_ticked(self, event: Ticked) -> list[Command]:
        commands: list[Command] = []
        crowded: set[resources.ResourceSet] = set()
        for wish in self._in_order():
            before = dict(wish.on)
            for node, since_s in [*wish.tried_s.items()]:
                if since_s + PATIENCE_S <= event.at_s:
                    wish.tried_s[node] = event.at_s
                    if self._has_room(wish, crowded) and self._move(wish, node, event.at_s):
                        crowded.clear()
            commands += self._told(wish, before)
        return commands

    # ---- where to ask ----

    def _settle(self, wish: Wish, at_s: float) -> list[Command]:
        """Ask for as much as is wanted, no more and no less."""
        before, refusal = dict(wish.on), wish.refusal
        excess = sum(wish.on.values()) - wish.count
        for node in sorted(wish.on, key=lambda node: (node != wish.queue, node == self._node)):
            taken = min(excess, wish.on[node])
            if taken > 0:
                self._put(wish, node, -taken)
                excess -= taken
                self._has_freed = True
        while excess < 0:
            chosen = self._chosen(wish, ())
            if chosen is None:
                break
            self._ask(wish, chosen, at_s)
            excess += 1
        if excess < 0:
            failure = self._queue(wish, -excess, at_s)
            if failure:
                self._forget(wish)
                return [*self._told(wish, before), Fail(wish.client, wish.key, failure)]
        elif wish.refusal and wish.count:
            wish.refusal = ""
        commands = self._told(wish, before, is_refusal_new=refusal != wish.refusal)
        if not wish.count:
            del self.wishes[wish.client, wish.key]
        return commands

    def _chosen(self, wish: Wish, without: Sequence[str]) -> str | None:
        """The node with room that the policy wants; the wish's reason is the policy's."""
        view = placement.ClusterView(tuple(self._room(node) for node in self.nodes if node not in without))
        for demand in wish.demands:
            found = self._policy.place(demand, view)
            wish.reason = found.reason
            if found.node_id is not None:
                return found.node_id
        return None

    def _room(self, name: str) -> placement.NodeView:
        """A node as it will be once it has granted what it can of what is asked of it."""
        return self._standing(name)[0]

    def _fitting(self, wish: Wish, name: str) -> int:
        """How much of what a node is asked for by this wish it has room for, as far as it is known."""
        return self._standing(name)[1].get(wish, 0) if name in self.nodes else 0

    def _standing(self, name: str) -> tuple[placement.NodeView, dict[Wish, int]]:
        found = self._left.get(name)
        if found is None:
            view, fitting = self.nodes[name], {}
            wishes = self._asking.get(name)
            if wishes:
                left = dict(view.available)
                fitting = {wish: _take(left, wish.resources, wish.on[name]) for wish in self._in_order(wishes)}
                view = replace(view, available=resources.ResourceSet(left))
            found = self._left[name] = (view, fitting)
        return found

    def _has_room(self, wish: Wish, crowded: set[resources.ResourceSet]) -> bool:
        """Whether some node has, whatever else the wish asks for. crowded: what none has room for, to be emptied when that
        may have changed."""
        needs = wish.resources
        if needs in crowded:
            return False
        if any(needs.fits_in(self._room(node).available) for node in self.nodes):
            return True
        crowded.add(needs)
        return False

    def _queue(self, wish: Wish, count: int, at_s: float) -> str:
        """Nobody has room: wait where it is likely to come first. Returns why the wish cannot wait, or ""."""
        view = placement.ClusterView(tuple(self._room(node) for node in self.nodes))
        for demand in wish.demands:
            eligible = placement.eligible_nodes(demand, view)
            if eligible.busy or eligible.ready:  # ready ones, which a policy of a plugin would not take
                able = (*eligible.ready, *eligible.busy)
                if wish.queue not in {node.node_id for node in able}:
                    wish.queue = min(able, key=self._by_queue).node_id
                self._put(wish, wish.queue, count)
                wish.tried_s.setdefault(wish.queue, at_s)
                wish.refusal = ""
                if not eligible.ready:
                    wish.reason = eligible.refusal.reason
                return ""
        refusal = placement.eligible_nodes(wish.demands[0], view).refusal
        strategy = wish.demands[0].strategy
        if isinstance(strategy, placement.NodeAffinity) and not strategy.is_soft:
            return refusal.reason
        wish.queue, wish.refusal, wish.reason = self._node, refusal.reason, refusal.reason
        self._put(wish, self._node, count)
        wish.tried_s.setdefault(wish.queue, at_s)
        return ""

    def _by_queue(self, node: placement.NodeView) -> tuple[bool, int, str]:
        return (
            not node.is_local,
            sum(wish.on[node.node_id] for wish in self._asking.get(node.node_id, ())),
            node.node_id,
        )

    def _look_again(self, at_s: float) -> list[Command]:
        """A node has changed: what waits may have room now, or can never have it."""
        are_others, self._are_others = self._are_others, False
        commands: list[Command] = []
        crowded: set[resources.ResourceSet] = set()
        for wish in self._in_order(wish for wish in self.wishes.values() if wish.on.get(wish.queue)):
            before, refusal = dict(wish.on), wish.refusal
            for _ in range(wish.on[wish.queue] - self._fitting(wish, wish.queue)):
                if not self._has_room(wish, crowded) or not self._move(wish, wish.queue, at_s):
                    break
                crowded.clear()
            waiting = wish.on.get(wish.queue, 0)
            if not waiting:
                wish.refusal = ""
            elif are_others:
                crowded.clear()
                since_s = wish.tried_s[wish.queue]
                self._put(wish, wish.queue, -waiting)
                failure = self._queue(wish, waiting, at_s)
                if failure:
                    self._forget(wish)
                    commands += [*self._told(wish, before), Fail(wish.client, wish.key, failure)]
                    continue
                wish.tried_s[wish.queue] = since_s
            if wish.on != before or wish.refusal != refusal:
                commands += self._told(wish, before, is_refusal_new=refusal != wish.refusal)
        return commands

    def _move(self, wish: Wish, node: str, at_s: float) -> bool:
        """Ask for one elsewhere instead, if there is room."""
        other = self._chosen(wish, (node,))
        if other is None:
            return False
        self._put(wish, node, -1)
        self._ask(wish, other, at_s)
        return True

    def _ask(self, wish: Wish, node: str, at_s: float) -> None:
        """Of a node that has room."""
        self._put(wish, node, 1)
        wish.tried_s.setdefault(node, at_s)

    def _put(self, wish: Wish, node: str, count: int) -> None:
        wish.on[node] = wish.on.get(node, 0) + count
        self._left.pop(node, None)
        if wish.on[node]:
            self._asking.setdefault(node, set()).add(wish)
            return
        del wish.on[node]
        wish.tried_s.pop(node, None)
        self._asking[node].discard(wish)
        if not self._asking[node]:
            del self._asking[node]

    def _told(self, wish: Wish, before: dict[str, int], *, is_refusal_new: bool = False) -> list[Command]:
        """What has changed for the nodes."""
        commands: list[Command] = []
        for node in sorted({*before, *wish.on}):
            count = wish.on.get(node, 0)
            is_own = node == self._node
            if node not in self.nodes and not is_own:
                continue
            if count != before.get(node, 0) or (is_own and is_refusal_new):
                heard = self._heard.get((wish.client, wish.key), {}).get(node, 0)
                commands.append(Want(node, wish.client, wish.key, count, heard, wish.refusal if is_own else ""))
                if not is_own:
                    self._known_at.setdefault(wish.client, set()).add(node)
        return commands

    def _in_order(self, wishes: Iterable[Wish] | None = None) -> list[Wish]:
        """Deeper ones first, which others wait for, and then by age."""
        return sorted(
            self.wishes.values() if wishes is None else wishes, key=lambda wish: (-wish.demands[0].depth, wish.turn)
        )

    # ---- answers and invariants ----

    def reason_of(self, client: str, key: str) -> str:
        """Why a wish is not granted yet; "" if there is none."""
        wish = self.wishes.get((client, key))
        return wish.reason if wish is not None else ""

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        for place, wish in self.wishes.items():
            checks.invariant(place == (wish.client, wish.key), "a wish in another's place", client=wish.client)
            total = sum(wish.on.values())
            checks.invariant(total == wish.count > 0, "not all is asked for, or too much", key=wish.key, asked=total)
            checks.invariant(wish.reason, "a wish waits without a reason", client=wish.client, key=wish.key)
            checks.invariant(wish.tried_s.keys() <= wish.on.keys(), "tried where nothing is asked for", key=wish.key)
            for node, count in wish.on.items():
                is_there = node in self.nodes or node == self._node
                checks.invariant(count > 0 and is_there, "asked of a node that is gone", key=wish.key, node=node)
                checks.invariant(wish in self._asking.get(node, ()), "miscounted", key=wish.key, node=node)
        for node, wishes in self._asking.items():
            for wish in wishes:
                is_known = self.wishes.get((wish.client, wish.key)) is wish and node in wish.on
                checks.invariant(is_known, "a wish that is over counts", key=wish.key, node=node)
        for client, nodes in self._known_at.items():
            for node in nodes:
                checks.invariant(node in self.nodes, "a node that is gone knows of a process", client=client, node=node)


class Given:
    """The grants of one node to processes, its own and those of other nodes, as far as `Want` has to be read by them."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}

    def granted(self, client: str, key: str) -> None:
        self._counts[client, key] = self._counts.get((client, key), 0) + 1

    def still_wanted(self, client: str, key: str, lease_count: int, heard_count: int) -> int:
        """How many are wanted now, of so many that were when so many grants had been heard of."""
        return max(0, lease_count - (self._counts.get((client, key), 0) - heard_count))

    def forget(self, client: str) -> None:
        """It is gone."""
        for place in [place for place in self._counts if place[0] == client]:
            del self._counts[place]


def _in_all(node: placement.NodeView) -> tuple[object, ...]:
    """What decides whether it could ever hold something."""
    return node.total, node.labels, node.is_alive, node.is_draining


def _take(left: dict[str, int], wanted: resources.ResourceSet, count: int) -> int:
    """As often as there is enough; returns how often that is, up to `count`."""
    fitting = min([count, *(left.get(name, 0) // amount for name, amount in wanted.items())])
    for name, amount in wanted.items():
        left[name] = left.get(name, 0) - fitting * amount
    return fitting
