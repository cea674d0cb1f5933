"""On which node each lease is asked for that processes of this node want.

Bottom-up: a process asks its own node's agent, and only what that has no room for is asked of another one. The agent tells
each node how many leases it wants of it for one process and key, always the whole number, and how many grants it has heard
of, so that one that crosses this is not granted twice (`Given`); the node queues what it cannot grant yet, as it does for its
own processes. Whatever is wanted is asked for somewhere at any time, so nothing is lost when views are late.

What room a node has is what it said last of itself, less as much of what it has been asked for from here as fits into that.
What waits at a full node is asked for elsewhere as soon as another one has room, also where a node has said only later that
it is full; and what a node with room does not grant within `PATIENCE_S` is tried at another. One that is being drained has
none, and what was asked of it is asked elsewhere. The policy chooses among the nodes with room; which those are, and whether
there can be any at all, `placement.eligible_nodes` says. What other jobs have to give up is asked of nodes without room, as many
leases as `MayAsk` says (`full_nodes`): these are *claims*. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from umbel._base import checks, deadlines
from umbel._model import placement, resources
from umbel._scheduling import full_nodes, rooms

PATIENCE_S: Final = 1.0  # a grant takes milliseconds where there is room and a warm worker; starting one, tens of them

# ---- events ----


class WishChanged(NamedTuple):
    """A process here wants `lease_count` more leases for `key`; 0 withdraws the wish. demands: the same resources by each of
    its label selectors, the most wanted first. near: nodes that some of them had better be of, and how many."""

    client: str
    key: str
    demands: Sequence[placement.Demand]
    lease_count: int
    at_s: float
    near: Sequence[tuple[str, int]] = ()


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


class Preparing(NamedTuple):
    """What a node does for the environment of a wish before it can grant it, in words; "" when that is there."""

    node: str
    client: str
    key: str
    text: str
    at_s: float


class Promised(NamedTuple):
    """A node will grant so many leases of a wish, when others have given them back, and by what is free there."""

    node: str
    client: str
    key: str
    lease_count: int
    at_s: float


class MayAsk(NamedTuple):
    """So many leases of what waits may be asked of nodes that have no room for them."""

    client: str
    key: str
    lease_count: int
    at_s: float


Event = WishChanged | ClientLeft | Granted | NodeSeen | NodeLost | NodeForgot | Ticked | Preparing | Promised | MayAsk

# ---- commands ----


class Want(NamedTuple):
    """Tell the node that so many leases are wanted of it, besides those that it was heard to grant. refusal: why nobody can
    ever grant them, of this node only: it keeps them all the same, warns, and gives them up if it was told to; "" if somebody
    can. is_claim: the node has no room, and other jobs are to give them up."""

    node: str
    client: str
    key: str
    lease_count: int
    heard_count: int
    refusal: str = ""
    is_claim: bool = False


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
    no room. crowded: others that have said that they have no room for all of it. tried_s: when each of these nodes was asked
    first, or it was last tried to do without. preparing: those of them that make its environment, and what they do for that.
    full: what nodes without room have said; None while none has."""

    __slots__ = (
        "asked", "client", "count", "crowded", "demands", "full", "key", "near", "on", "preparing", "queue", "reason",
        "refusal", "tried_s", "turn", "untold",
    )  # fmt: skip

    def __init__(self, client: str, key: str, demands: Sequence[placement.Demand], turn: int) -> None:
        self.client = client
        self.key = key
        self.demands = demands
        self.turn = turn
        self.count = 0
        self.near: dict[str, int] = {}  # as said last, less what was granted there since
        self.on: dict[str, int] = {}
        self.asked = 0  # in all
        self.untold: dict[str, int] = {}  # of nodes that have to be told, what they have been
        self.queue = ""
        self.crowded: dict[str, None] = {}
        self.tried_s: dict[str, float] = {}
        self.preparing: dict[str, str] = {}
        self.full: full_nodes.FullNodes | None = None
        self.refusal = ""
        self.reason = ""  # of the last placement, or why there is none

    @property
    def resources(self) -> resources.ResourceSet:
        return self.demands[0].resources

    @property
    def order(self) -> tuple[int, int]:
        """Deeper ones first, which others wait for, and then by age."""
        return -self.demands[0].depth, self.turn


class Short(NamedTuple):
    """What waits of one wish, in leases. waiting: without a promise, and is no claim; none while it rests, as claims were in
    vain. under_way: claims of nodes that have not had time to say what they promise."""

    client: str
    key: str
    resources: resources.ResourceSet
    waiting: int
    under_way: int


class Forwarding:
    """The wishes of one node's processes."""

    def __init__(self, node: str, policy: Policy) -> None:
        """node: this one, which `NodeSeen` tells of before anything is wanted."""
        self._node = node
        self._policy = policy
        self.nodes: dict[str, placement.NodeView] = {}
        self.wishes: dict[tuple[str, str], Wish] = {}
        self._asking: dict[str, set[Wish]] = {}  # by node, those of which something is asked there
        self._rooms = rooms.Rooms(self.nodes, self._asking)
        self._known_at: dict[str, set[str]] = {}  # by process, the other nodes that have heard of it
        self._heard: dict[tuple[str, str], dict[str, int]] = {}  # by process and key, the grants of each node
        self._turns = 0
        self._has_freed = False  # there may be more room somewhere than there was when it was last looked for
        self._are_others = False  # nodes that could hold something in all, since then
        # By process, key and node: when it is to be tried elsewhere.
        self._due: deadlines.Deadlines[tuple[str, str, str]] = deadlines.Deadlines()
        self._granting: set[str] = set()  # nodes that have granted something since they were last seen
        self._on: dict[type, Callable[[Any], list[Command]]] = {
            WishChanged: self._on_wish_changed,
            ClientLeft: self._on_client_left,
            Granted: self._on_granted,
            NodeSeen: self._on_node_seen,
            NodeLost: self._on_node_lost,
            NodeForgot: self._on_node_forgot,
            Ticked: self._on_ticked,
            Preparing: self._on_preparing,
            Promised: self._on_promised,
            MayAsk: self._on_may_ask,
        }

    def apply(self, *events: Event) -> list[Command]:
        """Room that they have made is looked for once, after the last."""
        commands: list[Command] = []
        for event in events:
            commands += self._on[type(event)](event)
        if self._has_freed and events:
            self._has_freed = False
            commands += self._look_again(events[-1].at_s)
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
        self._stands_otherwise(node)
        for wish in self._asking.get(node, ()):
            if node != wish.queue and wish.on[node] > self._rooms.fitting(wish, node):
                wish.crowded[node] = None
            else:
                wish.crowded.pop(node, None)
        is_new = known is None or not known.is_draining
        return self._take_back(node, event.at_s) if event.view.is_draining and is_new else []

    def _take_back(self, node: str, at_s: float) -> list[Command]:
        """It grants nothing any more, but for its bundles: what else is asked of it is asked of others."""
        commands: list[Command] = []
        for wish in [wish for wish in self._in_order() if node in wish.on]:
            if wish.demands[0].is_in_bundle:
                continue
            self._put(wish, node, -wish.on[node])
            commands += [*self._told(wish), *self._settle(wish, at_s)]
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
        wish.count, wish.near = event.lease_count, dict(event.near)
        return self._settle(wish, event.at_s)

    def _on_granted(self, event: Granted) -> list[Command]:
        heard = self._heard.setdefault((event.client, event.key), {})
        heard[event.node] = heard.get(event.node, 0) + 1
        self._granting.add(event.node)
        wish = self.wishes.get((event.client, event.key))
        if wish is None:
            return []  # who wanted it gives it back
        wish.count -= 1
        if wish.near.get(event.node):
            wish.near[event.node] -= 1
        if wish.on.get(event.node):
            self._put(wish, event.node, -1)
            wish.untold.pop(event.node)  # it has counted that, too
            if wish.full is not None:
                wish.full.granted(event.node)
            if event.node in wish.tried_s:
                self._try(wish, event.node, event.at_s)
        return self._settle(wish, event.at_s)

    def _on_client_left(self, event: ClientLeft) -> list[Command]:
        for place in [place for place in self.wishes if place[0] == event.client]:
            self._forget(self.wishes[place])
        for place in [place for place in self._heard if place[0] == event.client]:
            del self._heard[place]
        return [Leave(node, event.client) for node in sorted(self._known_at.pop(event.client, ()))]

    def _on_node_lost(self, event: NodeLost) -> list[Command]:
        self.nodes.pop(event.node, None)
        for wish in self.wishes.values():
            if wish.full is not None:
                wish.full.lost(event.node)
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
            wish.untold.pop(node)  # it knows of nothing
        self._stands_otherwise(node)
        self._granting.discard(node)
        self._has_freed = self._are_others = True
        commands: list[Command] = []
        for wish in hit:
            commands += self._settle(wish, at_s)
        return commands

    def _on_preparing(self, event: Preparing) -> list[Command]:
        wish = self.wishes.get((event.client, event.key))
        if wish is None or event.node not in wish.on:
            return []
        if event.text:
            wish.preparing[event.node] = event.text
        else:
            wish.preparing.pop(event.node, None)
        self._try(wish, event.node, event.at_s)
        return []

    def _forget(self, wish: Wish) -> None:
        for node in [*wish.on]:
            self._put(wish, node, -wish.on[node])
            self._has_freed = True
        del self.wishes[wish.client, wish.key]

    # ---- nodes without room ----

    def _on_promised(self, event: Promised) -> list[Command]:
        wish = self.wishes.get((event.client, event.key))
        if wish is not None and event.node in wish.on:
            wish.full = wish.full or full_nodes.FullNodes()
            wish.full.promises(event.node, event.lease_count)
        return []

    def _unpromised(self, wish: Wish, node: str) -> int:
        """How much of what a node is asked for it has neither room for nor promised."""
        promised = wish.full.promised.get(node, 0) if wish.full is not None else 0
        return max(0, wish.on.get(node, 0) - max(promised, self._rooms.fitting(wish, node)))

    def _waiting(self, wish: Wish) -> list[tuple[str, int]]:
        """What waits without a promise, and is no claim: by node. Who makes its environment is waited for."""
        nodes = [node for node in dict.fromkeys((wish.queue, *wish.crowded)) if node not in wish.preparing]
        found = [(node, self._unpromised(wish, node)) for node in nodes if not (wish.full and wish.full.is_asked(node))]
        return [one for one in found if one[1]]

    def short(self, at_s: float) -> Iterator[Short]:
        """The wishes of which something waits without a promise, or is a claim."""
        for wish in self._in_order(wish for wish in self.wishes.values() if wish.crowded or wish.on.get(wish.queue)):
            if wish.refusal or wish.demands[0].is_in_bundle or not wish.resources:
                continue
            full = wish.full or full_nodes.FullNodes()
            waiting = sum(count for _, count in self._waiting(wish))
            under_way = sum(wish.on[node] for node in full.under_way(at_s))
            if waiting or under_way:
                waiting = 0 if at_s < full.rests_until_s else waiting
                yield Short(wish.client, wish.key, wish.resources, waiting, under_way)

    def _on_may_ask(self, event: MayAsk) -> list[Command]:
        wish = self.wishes.get((event.client, event.key))
        if wish is None or wish.refusal:
            return []
        waiting, view, needs = self._waiting(wish), self._rooms.view(), wish.resources
        full = wish.full = wish.full or full_nodes.FullNodes()
        count = min(event.lease_count * full.factor, sum(count for _, count in waiting))
        able = next((found for demand in wish.demands if (found := placement.able_nodes(demand, view))), ())
        others = [node for node in able if node.node_id not in wish.on and not needs.fits_in(node.available)]
        left = 0
        for node, part in full.parts((wish.client, wish.key), count, needs, [*wish.near], others):
            self._put(wish, node, part)
            self._begin_to_try(wish, node, event.at_s)
            wish.crowded[node] = None
            full.asked(node, event.at_s)
            left += part
        for node, count in waiting:
            taken = min(left, count)
            if taken:
                self._put(wish, node, -taken)
                left -= taken
        return self._told(wish)

    def _take_home(self, wish: Wish, node: str, at_s: float) -> list[Command]:
        """What a node without room has not promised in time waits where it did before."""
        count = self._unpromised(wish, node)
        if wish.full is None or not wish.full.is_late(node, at_s) or not count:
            return []
        wish.full.refused(node, at_s)
        self._put(wish, node, -count)
        failure = self._queue(wish, count, at_s)
        if not failure:
            return []
        self._forget(wish)
        return [*self._told(wish), Fail(wish.client, wish.key, failure)]

    # ---- time ----

    def next_tick_s(self) -> float | None:
        return self._due.first_s()

    def _try(self, wish: Wish, node: str, since_s: float | None) -> None:
        """since_s: None for a node of which nothing is asked any more."""
        if since_s is None:
            wish.tried_s.pop(node, None)
        else:
            wish.tried_s[node] = since_s
        due_s = None if since_s is None or node in wish.preparing else since_s + PATIENCE_S
        self._due.set((wish.client, wish.key, node), due_s)

    def _on_ticked(self, event: Ticked) -> list[Command]:
        late: dict[Wish, list[str]] = {}
        for client, key, node in self._due.due(event.at_s):
            late.setdefault(self.wishes[client, key], []).append(node)
        commands: list[Command] = []
        for wish in self._in_order(late):
            for node in late[wish]:
                if node in wish.tried_s:  # else it was taken back meanwhile
                    self._try(wish, node, event.at_s)
                    if self._rooms.has_any_for(wish.resources):
                        self._move(wish, node, event.at_s)
                    commands += self._take_home(wish, node, event.at_s)
            commands += self._told(wish)
        return commands

    # ---- where to ask ----

    def _settle(self, wish: Wish, at_s: float) -> list[Command]:
        """Ask for as much as is wanted, no more and no less."""
        refusal, excess = wish.refusal, wish.asked - wish.count
        in_order = sorted(wish.on, key=lambda node: (node != wish.queue, node == self._node)) if excess > 0 else ()
        for node in in_order:
            taken = min(excess, wish.on[node])
            if taken > 0:
                self._put(wish, node, -taken)
                excess -= taken
                self._has_freed = True
        while excess < 0:
            chosen = self._chosen(wish, self._rooms.view())
            if chosen is None:
                break
            self._ask(wish, chosen, at_s)
            excess += 1
        if excess < 0:
            failure = self._queue(wish, -excess, at_s)
            if failure:
                self._forget(wish)
                return [*self._told(wish), Fail(wish.client, wish.key, failure)]
        elif wish.refusal and wish.count:
            wish.refusal = ""
        commands = self._told(wish, is_refusal_new=refusal != wish.refusal)
        if not wish.count:
            del self.wishes[wish.client, wish.key]
        return commands

    def _stands_otherwise(self, node: str) -> None:
        self._rooms.changed(node)

    def _chosen(self, wish: Wish, view: placement.ClusterView) -> str | None:
        """The node with room that the policy wants; the wish's reason is the policy's."""
        near = self._near(wish, view) if wish.near else ""
        for demand in wish.demands:
            found = self._policy.place(replace(demand, near=near) if near else demand, view)
            wish.reason = found.reason
            if found.node_id is not None:
                return found.node_id
        return None

    @staticmethod
    def _near(wish: Wish, view: placement.ClusterView) -> str:
        """A node that more of it had better be asked of, and that has room."""
        for name, count in wish.near.items():
            node = view.find(name) if wish.on.get(name, 0) < count else None
            if node is not None and wish.resources.fits_in(node.available):
                return name
        return ""

    def _queue(self, wish: Wish, count: int, at_s: float) -> str:
        """Nobody has room: wait where it is likely to come first. Returns why the wish cannot wait, or ""."""
        view, reason = self._rooms.view(), ""
        for demand in wish.demands:
            first = placement.first_ready(demand, view, self._by_queue)
            if (
                isinstance(first, placement.NodeView) or first.is_feasible
            ):  # a ready one a plugin's policy would not take
                there = placement.eligible_among(demand, view, wish.queue)
                if wish.queue not in {node.node_id for node in (*there.ready, *there.busy)}:
                    wish.queue = placement.able_nodes(demand, view, self._by_queue)[0].node_id
                if wish.full is not None:
                    wish.full.waits_on(wish.queue)
                self._put(wish, wish.queue, count)
                self._begin_to_try(wish, wish.queue, at_s)
                wish.refusal = ""
                if isinstance(first, placement.Placement):
                    wish.reason = first.reason
                return ""
            reason = reason or first.reason
        strategy = wish.demands[0].strategy
        if isinstance(strategy, placement.NodeAffinity) and not strategy.is_soft:
            return reason
        wish.queue, wish.refusal, wish.reason = self._node, reason, reason
        self._put(wish, self._node, count)
        self._begin_to_try(wish, wish.queue, at_s)
        return ""

    def _by_queue(self, _demand: placement.Demand, node: placement.NodeView) -> tuple[bool, int, str]:
        return (
            not node.is_local,
            sum(wish.on[node.node_id] for wish in self._asking.get(node.node_id, ())),
            node.node_id,
        )

    def _look_again(self, at_s: float) -> list[Command]:
        """A node has changed: what waits may have room now, or can never have it."""
        are_others, self._are_others = self._are_others, False
        commands: list[Command] = []
        for wish in self._in_order(wish for wish in self.wishes.values() if wish.crowded or wish.on.get(wish.queue)):
            refusal = wish.refusal
            for node in [node for node in (wish.queue, *wish.crowded) if node not in wish.preparing]:
                if not self._rooms.has_any_for(wish.resources):
                    break
                for _ in range(wish.on.get(node, 0) - self._rooms.fitting(wish, node)):
                    if not self._rooms.has_any_for(wish.resources) or not self._move(wish, node, at_s):
                        break
            waiting = wish.on.get(wish.queue, 0)
            if not waiting:
                wish.refusal = ""
            elif are_others:
                queue, since_s, doing = wish.queue, wish.tried_s[wish.queue], wish.preparing.get(wish.queue)
                promised = wish.full.promised.get(queue, 0) if wish.full is not None else 0
                self._put(wish, wish.queue, -waiting)
                failure = self._queue(wish, waiting, at_s)
                if failure:
                    self._forget(wish)
                    commands += [*self._told(wish), Fail(wish.client, wish.key, failure)]
                    continue
                if wish.queue == queue:  # it has not heard that it was not asked for a moment
                    if doing is not None:
                        wish.preparing[queue] = doing
                    if wish.full is not None:
                        wish.full.promises(queue, promised)
                self._try(wish, wish.queue, since_s)
            commands += self._told(wish, is_refusal_new=refusal != wish.refusal)
        return commands

    def _move(self, wish: Wish, node: str, at_s: float) -> bool:
        """Ask for one elsewhere instead, if there is room."""
        other = self._chosen(wish, self._rooms.view().without(node))
        if other is None:
            return False
        self._put(wish, node, -1)
        self._ask(wish, other, at_s)
        return True

    def _ask(self, wish: Wish, node: str, at_s: float) -> None:
        """Of a node that has room."""
        self._put(wish, node, 1)
        self._begin_to_try(wish, node, at_s)

    def _begin_to_try(self, wish: Wish, node: str, at_s: float) -> None:
        if node not in wish.tried_s:
            self._try(wish, node, at_s)

    def _put(self, wish: Wish, node: str, count: int) -> None:
        wish.untold.setdefault(node, wish.on.get(node, 0))
        wish.asked += count
        wish.on[node] = wish.on.get(node, 0) + count
        self._stands_otherwise(node)
        if wish.on[node]:
            self._asking.setdefault(node, set()).add(wish)
            return
        del wish.on[node]
        wish.preparing.pop(node, None)
        wish.crowded.pop(node, None)
        if wish.full is not None:
            wish.full.forget(node)
        self._try(wish, node, None)
        self._asking[node].discard(wish)
        if not self._asking[node]:
            del self._asking[node]

    def _told(self, wish: Wish, *, is_refusal_new: bool = False) -> list[Command]:
        """What has changed for the nodes since they were told."""
        commands: list[Command] = []
        before, wish.untold = wish.untold, {}
        for node in sorted({*before, self._node} if is_refusal_new else before):
            count = wish.on.get(node, 0)
            is_own = node == self._node
            if node not in self.nodes and not is_own:
                continue
            if count != before.get(node, count) or (is_own and is_refusal_new):
                heard = self._heard.get((wish.client, wish.key), {}).get(node, 0)
                is_claim = wish.full is not None and wish.full.is_asked(node)
                refusal = wish.refusal if is_own else ""
                commands.append(Want(node, wish.client, wish.key, count, heard, refusal, is_claim))
                if not is_own:
                    self._known_at.setdefault(wish.client, set()).add(node)
        return commands

    def _in_order(self, wishes: Iterable[Wish] | None = None) -> list[Wish]:
        return sorted(self.wishes.values() if wishes is None else wishes, key=lambda wish: wish.order)

    # ---- answers and invariants ----

    def reason_of(self, client: str, key: str) -> str:
        """Why a wish is not granted yet; "" if there is none."""
        wish = self.wishes.get((client, key))
        return wish.reason if wish is not None else ""

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        self._rooms.check()
        for place, wish in self.wishes.items():
            if place != (wish.client, wish.key):
                raise checks.broken("a wish in another's place", client=wish.client)
            total = sum(wish.on.values())
            if not total == wish.asked == wish.count > 0:
                raise checks.broken("not all is asked for, or too much", key=wish.key, asked=total)
            if wish.untold:
                raise checks.broken("a node is not told", key=wish.key)
            if not wish.reason:
                raise checks.broken("a wish waits without a reason", client=wish.client, key=wish.key)
            if wish.full is not None and not wish.full.asked_s.keys() <= self.nodes.keys():
                raise checks.broken("a node is noted that is gone", key=wish.key)
            for noted, what in ((wish.tried_s, "tried"), (wish.preparing, "prepared"), (wish.crowded, "crowded")):
                if noted and not noted.keys() <= wish.on.keys():
                    raise checks.broken(f"{what} where nothing is asked for", key=wish.key)
            for node, count in wish.on.items():
                if count <= 0 or (node not in self.nodes and node != self._node):
                    raise checks.broken("asked of a node that is gone", key=wish.key, node=node)
                if wish not in self._asking.get(node, ()):
                    raise checks.broken("miscounted", key=wish.key, node=node)
        due = {
            (*place, node): at_s + PATIENCE_S
            for place, wish in self.wishes.items()
            for node, at_s in wish.tried_s.items()
            if node not in wish.preparing
        }
        checks.invariant(due == self._due.as_dict(), "a node is given up too late, or in vain", due=due)
        for node, wishes in self._asking.items():
            for wish in wishes:
                if self.wishes.get((wish.client, wish.key)) is not wish or node not in wish.on:
                    raise checks.broken("a wish that is over counts", key=wish.key, node=node)
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
