"""What a scheduling policy is asked and what it answers, and which nodes may hold a demand at all.

`eligible_nodes` applies what is not a matter of policy: a node is alive, has the labels and the resources, and is the
one that the demand insists on. A policy chooses among the nodes that it leaves. `first_ready` does both, for a policy that is an
order of the nodes, and need not look at all of them. Pure, and free of any clock.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal, TypeAlias

from umbel._model import node_labels, resources

_NAMED_NODES_MAX = 3  # in a reason; a list of a thousand nodes explains nothing


@dataclass(frozen=True)
class NodeAffinity:
    """The demand wants this node.

    is_soft: another node will do when this one is gone or could never hold the demand, not when it is merely busy.
    spills_when_busy: another one will do then too; for soft ones. fails_when_busy: do not wait for it; for hard ones.
    """

    node_id: str
    is_soft: bool
    spills_when_busy: bool = False
    fails_when_busy: bool = False


Strategy: TypeAlias = "Literal['DEFAULT', 'SPREAD'] | NodeAffinity"


_Amounts: TypeAlias = resources.ResourceSet  # by these names in a class that has `resources` of its own
_NOTHING = resources.EMPTY


@dataclass(frozen=True)
class Demand:
    """Resources that one task or actor needs on one node.

    label_selector: conditions on the node's labels, see `node_labels.label_matches`; conditions: more of them, maybe several on
    one label. depth: 0 for what the driver submitted, one more for each task or actor that it was submitted from. is_in_bundle:
    `resources` are those of bundles of placement groups, which are used as long as they are there, also on a node that begins
    nothing else any more. in_all: what the node must have, free or not, beside that. near: the node that has most bytes of its
    large arguments, of an actor that of its creator, "" where it does not matter; a wish, which a policy weighs. is_actor: it
    lives there until it ends, and calls come to it.
    """

    resources: resources.ResourceSet
    strategy: Strategy = "DEFAULT"
    label_selector: Mapping[str, str] = field(default_factory=dict)
    depth: int = 0
    is_in_bundle: bool = False
    in_all: _Amounts = _NOTHING
    conditions: node_labels.Selector = ()
    near: str = ""
    is_actor: bool = False


@dataclass(frozen=True)
class WaitingDemand:
    """A demand in a node's queue.

    lease_count: workers wanted. turn: smaller has waited longer, since it came or was last served; no two are equal.
    client: the process that asks, in hex. is_actor: it wants one worker for life.
    """

    demand: Demand
    turn: int
    client: str = ""
    lease_count: int = 1
    is_actor: bool = False


@dataclass(frozen=True)
class NodeView:
    """A node as it was last heard of. is_local: the node that asks; placing there costs no forwarding. is_draining: it begins
    nothing any more, and will end."""

    node_id: str
    total: resources.ResourceSet
    available: resources.ResourceSet
    labels: Mapping[str, str] = field(default_factory=dict)
    is_alive: bool = True
    is_local: bool = False
    is_draining: bool = False


# Smaller ones come first, and no two nodes have the same; None for one that is left out.
Rank: TypeAlias = Callable[[NodeView], Any]
Order: TypeAlias = Callable[[Demand, NodeView], Any]


@dataclass(frozen=True)
class ClusterView:
    """A snapshot of all nodes, dead ones that are still remembered included. Node ids are unique."""

    nodes: tuple[NodeView, ...]

    def find(self, node_id: str) -> NodeView | None:
        return next((node for node in self.nodes if node.node_id == node_id), None)

    def ranked(self, key: Hashable, rank: Rank) -> Sequence[NodeView]:
        """The nodes that have a rank, the first first. key: of two ranks with the same key, a node has the same by both; so a
        view may remember (`umbel._scheduling.kept_view`)."""
        found = [(place, node) for node in self.nodes if (place := rank(node)) is not None]
        return [node for _, node in sorted(found, key=itemgetter(0))]


@dataclass(frozen=True)
class Placement:
    """Where a demand goes now, or that it goes nowhere now, and why.

    reason: never empty; `umbel.explain` and warnings show it. is_feasible: waiting may help; false when no node that is
    there could ever hold the demand.
    """

    node_id: str | None
    reason: str
    is_feasible: bool = True


@dataclass(frozen=True)
class Eligible:
    """The nodes that may hold a demand: `ready` now, `busy` later. `refusal` is the answer when none is ready."""

    ready: tuple[NodeView, ...]
    busy: tuple[NodeView, ...]
    refusal: Placement


def eligible_nodes(demand: Demand, view: ClusterView) -> Eligible:
    """Sort out the nodes for a demand, in the view's order. Raises InvalidOption for an unreadable label selector."""
    labelled = [node for node in view.nodes if node.is_alive and _has_labels(node, demand)]
    staying = [node for node in labelled if demand.is_in_bundle or not node.is_draining]
    if isinstance(demand.strategy, NodeAffinity):
        return _with_affinity(demand, demand.strategy, staying, [node.node_id for node in labelled if node.is_draining])
    return _by_resources(demand, staying)


def first_ready(demand: Demand, view: ClusterView, order: Order) -> NodeView | Placement:
    """Of the nodes that are ready for a demand, by `eligible_nodes`, the first one; else the refusal. order: a function that is
    the same object whenever it is the same order, and looks at nothing of the demand but its resources and labels."""
    affinity = demand.strategy
    if not isinstance(affinity, NodeAffinity):
        return _first_ready(demand, view, order)
    alone = eligible_among(demand, view)
    if alone.ready:
        return alone.ready[0]
    if affinity.is_soft and (affinity.spills_when_busy or not alone.busy):
        found = _first_ready(demand, view, order)
        if isinstance(found, NodeView) or not alone.busy:
            return found
    return alone.refusal


def able_nodes(demand: Demand, view: ClusterView, order: Order | None = None) -> Sequence[NodeView]:
    """The nodes that may hold a demand now or later, the first first; of one with an affinity, that node alone if it may. order:
    as for `first_ready`; else the local one, and the others by id."""
    affinity = demand.strategy
    if isinstance(affinity, NodeAffinity):
        wanted = view.find(affinity.node_id)
        if wanted is not None and _is_able(demand, wanted):
            return (wanted,)
        if not affinity.is_soft:
            return ()
    order = order or _by_id
    return view.ranked(
        ("able", order, *_key(demand)), lambda node: order(demand, node) if _is_able(demand, node) else None
    )


def eligible_among(demand: Demand, view: ClusterView, *node_ids: str) -> Eligible:
    """As if there were no other nodes than these, and the one of its affinity."""
    names = [*node_ids, demand.strategy.node_id] if isinstance(demand.strategy, NodeAffinity) else node_ids
    found = [view.find(node_id) for node_id in dict.fromkeys(names)]
    return eligible_nodes(demand, ClusterView(tuple(node for node in found if node is not None)))


def _first_ready(demand: Demand, view: ClusterView, order: Order) -> NodeView | Placement:
    key = _key(demand)
    ready = view.ranked(
        ("ready", order, *key),
        lambda node: (
            order(demand, node) if demand.resources.fits_in(node.available) and _is_able(demand, node) else None
        ),
    )
    if ready:
        return ready[0]
    stays = view.ranked(("stays", *key[2:]), lambda node: _by_id(demand, node) if _stays(demand, node) else None)
    able = view.ranked(("able", _by_id, *key), lambda node: _by_id(demand, node) if _is_able(demand, node) else None)
    return _refusal(demand, able, stays)


def _key(demand: Demand) -> tuple[Hashable, ...]:
    """What tells demands apart for which other nodes are eligible, beside their affinity."""
    labels = tuple(sorted(demand.label_selector.items())) if demand.label_selector else ()
    return demand.resources, demand.in_all, demand.is_in_bundle, labels, demand.conditions


def _by_id(_demand: Demand, node: NodeView) -> tuple[bool, str]:
    return not node.is_local, node.node_id


def _stays(demand: Demand, node: NodeView) -> bool:
    """Whether it lives, has the labels, and begins such things."""
    is_open = node.is_alive and (demand.is_in_bundle or not node.is_draining)
    return is_open and _has_labels(node, demand)


def _is_able(demand: Demand, node: NodeView) -> bool:
    return _has_enough(demand, node) and _stays(demand, node)


def _has_enough(demand: Demand, node: NodeView) -> bool:
    return demand.resources.fits_in(node.total) and demand.in_all.fits_in(node.total)


_NOT_REFUSED = Placement(None, "some node is ready")


def _has_labels(node: NodeView, demand: Demand) -> bool:
    if not demand.label_selector and not demand.conditions:
        return True
    return node_labels.meets([*demand.label_selector.items(), *demand.conditions], node.labels)


def _by_resources(demand: Demand, nodes: Sequence[NodeView]) -> Eligible:
    able = [node for node in nodes if _has_enough(demand, node)]
    ready = tuple(node for node in able if demand.resources.fits_in(node.available))
    if len(ready) == len(able) and able:
        return Eligible(ready, (), _NOT_REFUSED)
    busy = tuple(node for node in able if not demand.resources.fits_in(node.available))
    return Eligible(ready, busy, _NOT_REFUSED if ready else _refusal(demand, busy, nodes))


def _refusal(demand: Demand, busy: Sequence[NodeView], nodes: Sequence[NodeView]) -> Placement:
    """Of nodes that live and have the labels, none of which is ready."""
    wanted = {**demand.in_all, **demand.resources} if demand.in_all else demand.resources
    needs = _describe(resources.ResourceSet(wanted))
    if busy:
        lacking = _names(busy, demand.resources)
        return Placement(None, f"{needs} is not free now on {lacking}; it waits until what runs there ends")
    if nodes:
        return Placement(
            None,
            f"no node has {needs} in total ({_names(nodes, demand.resources)}); ask for less or add a node",
            is_feasible=False,
        )
    asked_for = [*demand.label_selector.items(), *demand.conditions]
    labels = f" with the labels {node_labels.in_words([asked_for])}" if asked_for else ""
    return Placement(None, f"no node{labels} is alive; add one or correct the selector", is_feasible=False)


def _with_affinity(
    demand: Demand, affinity: NodeAffinity, nodes: Sequence[NodeView], draining: Sequence[str]
) -> Eligible:
    """draining: the ids of the nodes that are not among `nodes` for that."""
    chosen = _by_resources(demand, [node for node in nodes if node.node_id == affinity.node_id])
    others = _by_resources(demand, [node for node in nodes if node.node_id != affinity.node_id])
    if chosen.ready:
        return chosen
    if chosen.busy:
        if affinity.is_soft and affinity.spills_when_busy and others.ready:
            return others
        if affinity.fails_when_busy and not affinity.is_soft:
            reason = f"{chosen.refusal.reason}, but its affinity says not to wait"
            return Eligible((), (), Placement(None, reason, is_feasible=False))
        return chosen
    if affinity.is_soft:
        return others
    if affinity.node_id in draining:
        reason = f"node {affinity.node_id} is being drained, and begins nothing any more; make the affinity soft"
        return Eligible((), (), Placement(None, reason, is_feasible=False))
    reason = f"node {affinity.node_id} is dead, unknown, or never has {_describe(demand.resources)}"
    reason += " with the labels asked for" if demand.label_selector or demand.conditions else ""
    reason += "; correct the node id or make the affinity soft"
    return Eligible((), (), Placement(None, reason, is_feasible=False))


def _describe(amounts: resources.ResourceSet) -> str:
    return "{" + ", ".join(f"{name}: {amount:g}" for name, amount in amounts.to_floats().items()) + "}"


def _names(nodes: Sequence[NodeView], wanted: resources.ResourceSet) -> str:
    """Some of them, with what they have in all of what is wanted."""
    shown = ", ".join(
        f"{node.node_id[:8]} {_describe(resources.ResourceSet({name: node.total.get(name, 0) for name in wanted}))}"
        for node in nodes[:_NAMED_NODES_MAX]
    )
    hidden_count = len(nodes) - _NAMED_NODES_MAX
    return f"{shown} and {hidden_count} more" if hidden_count > 0 else shown
