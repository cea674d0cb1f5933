"""What the nodes of a cluster have free, as its head sees them when it places something.

A node says what it has free by its beats, and between them with what it says of bundles; what is newer counts. Of that is
taken what the head has ordered there since: an actor *claims* what it runs with from the order until it needs no worker, or,
once it has one, until the node has spoken again, since what it said last is from before. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel._base import checks
from umbel._model import node_labels, placement, resources
from umbel._scheduling import kept_view

Amounts = Mapping[str, int]


class Standing:
    """One node. free: as it has said last. claims: what is taken of that, by actor; told_of: those of them that have a worker,
    and go with its next word. draining: why it is being drained; "" if it is not. is_reachable: there is a connection to it.
    view: None until it has said something."""

    __slots__ = ("claims", "draining", "facts", "free", "is_reachable", "labels", "node_id", "told_of", "total", "view")

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.facts: Any = None
        self.total = resources.EMPTY
        self.labels: Mapping[str, str] = {}
        self.free: Amounts = {}
        self.draining = ""
        self.is_reachable = False
        self.claims: dict[str, Amounts] = {}
        self.told_of: dict[str, None] = {}
        self.view: placement.NodeView | None = None

    def seen(self, *, is_local: bool, is_full: bool = False) -> placement.NodeView:
        left = {} if is_full else dict(self.free)
        if not is_full:
            for amounts in self.claims.values():
                for name, amount in amounts.items():
                    left[name] = left.get(name, 0) - amount
        free = resources.ResourceSet({name: amount for name, amount in left.items() if amount > 0})
        return placement.NodeView(
            self.node_id, self.total, free, self.labels, is_local=is_local, is_draining=bool(self.draining)
        )


class NodeViews:
    """All living nodes. for_actors: a node is there from its first word on, whether or not there is a connection to it."""

    def __init__(self, own_id: str) -> None:
        self._own_id = own_id
        self._standings: dict[str, Standing] = {}
        self._claimed: dict[str, str] = {}  # by actor, the node
        self._new_for_groups: dict[str, None] = {}  # that have changed since `new_for_groups` was asked last
        self.for_actors = kept_view.KeptView()
        self.has_more = False  # a node has more free than it had, until somebody says that he has looked

    # ---- what is heard ----

    def said(self, node_id: str, facts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """A node has said how it is; as in `nodes.NodeJoined`. What it says now counts all workers that it has told of."""
        standing, draining = self._of(node_id), (state.get("draining") or {"reason": ""})["reason"]
        about = facts["resources"], facts["labels"]
        is_new = standing.told_of or standing.free != state["available"] or standing.draining != draining
        if standing.facts == about and not is_new:
            return
        if standing.facts != about:
            standing.facts = about
            standing.total = resources.ResourceSet(facts["resources"])
            standing.labels = {node_labels.NODE_ID: node_id, **facts["labels"]}
        standing.draining = draining
        self._has_free(standing, state["available"])

    def room(self, node_id: str, free: Amounts) -> None:
        """A node says what it has left, with what it says of bundles."""
        self._has_free(self._of(node_id), free)

    def _of(self, node_id: str) -> Standing:
        standing = self._standings.get(node_id)
        if standing is None:
            standing = self._standings[node_id] = Standing(node_id)
        return standing

    def _has_free(self, standing: Standing, free: Amounts) -> None:
        for actor in standing.told_of:
            del standing.claims[actor], self._claimed[actor]
        standing.told_of.clear()
        standing.free = free
        self._look_at(standing)

    def reachable(self, node_id: str, *, is_so: bool) -> None:
        self._of(node_id).is_reachable = is_so
        self._new_for_groups[node_id] = None

    def drain_reason(self, node_id: str) -> str:
        """Why a node is being drained; "" if it is not."""
        standing = self._standings.get(node_id)
        return standing.draining if standing is not None else ""

    def gone(self, node_id: str) -> None:
        standing = self._standings.pop(node_id, None)
        if standing is not None:
            for actor in standing.claims:
                del self._claimed[actor]
            self.for_actors.remove(node_id)
            self._new_for_groups.pop(node_id, None)

    def _look_at(self, standing: Standing) -> None:
        if standing.facts is None:
            return
        view = standing.seen(is_local=False)
        if view != standing.view:
            before = standing.view.available if standing.view is not None else resources.EMPTY
            if any(before.get(name, 0) < amount for name, amount in view.available.items()):
                self.has_more = True
            standing.view = view
            self.for_actors.put(view)
            self._new_for_groups[standing.node_id] = None

    # ---- what actors take ----

    def claim(self, actor: str, node_id: str, amounts: Amounts) -> None:
        """The node is to find a worker for it."""
        self.release(actor)
        standing = self._of(node_id)
        standing.claims[actor] = amounts
        self._claimed[actor] = node_id
        self._look_at(standing)

    def has_worker(self, actor: str) -> None:
        """Its node has told so: it takes the room from its next word on. What this node has is seen as it is."""
        standing = self._standings.get(self._claimed.get(actor, ""))
        if standing is None:
            return
        if standing.node_id == self._own_id:
            self.release(actor)
        else:
            standing.told_of[actor] = None

    def release(self, actor: str) -> None:
        """Nothing is looked for there any more."""
        standing = self._standings.get(self._claimed.pop(actor, ""))
        if standing is not None:
            del standing.claims[actor]
            standing.told_of.pop(actor, None)
            self._look_at(standing)

    # ---- for placement groups ----

    def for_groups(self, node_id: str) -> placement.NodeView | None:
        """One without a connection counts as full, for it takes time until it hears of anything."""
        standing = self._standings.get(node_id)
        if standing is None or standing.facts is None:
            return None
        is_own = node_id == self._own_id
        return standing.seen(is_local=is_own, is_full=not (is_own or standing.is_reachable))

    def new_for_groups(self) -> list[placement.NodeView]:
        """Those that are other than when this was asked last."""
        found = [self.for_groups(node_id) for node_id in self._new_for_groups]
        self._new_for_groups = {}
        return [one for one in found if one is not None]

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        claimed = {actor: one.node_id for one in self._standings.values() for actor in one.claims}
        checks.invariant(claimed == self._claimed, "a claim is at another node, or at none")
        for one in self._standings.values():
            checks.invariant(one.told_of.keys() <= one.claims.keys(), "a worker claims nothing", node=one.node_id)
        shown = {one.node_id: one.view for one in self._standings.values() if one.facts is not None}
        checks.invariant(shown == {one.node_id: one for one in self.for_actors.nodes}, "a view is old")
        self.for_actors.check()
