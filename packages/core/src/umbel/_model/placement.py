"""What a scheduling policy is asked and what it answers, and which nodes may hold a demand at all.

`eligible_nodes` applies what is not a matter of policy: a node is alive, has the labels and the resources, and is the
one that the demand insists on. A policy chooses among the nodes that it leaves. Pure, and free of any clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

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


@dataclass(frozen=True)
class Demand:
    """Resources that one task or actor needs on one node.

    label_selector: conditions on the node's labels, see `node_labels.label_matches`. depth: 0 for what the driver submitted, one
    more for each task or actor that it was submitted from. is_in_bundle: `resources` are those of bundles of placement groups,
    which are used as long as they are there, also on a node that begins nothing else any more. near: the node that has most bytes
    of its large arguments, "" where it does not matter; a wish, which a policy weighs.
    """

    resources: resources.ResourceSet
    strategy: Strategy = "DEFAULT"
    label_selector: Mapping[str, str] = field(default_factory=dict)
    depth: int = 0
    is_in_bundle: bool = False
    near: str = ""


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


@dataclass(frozen=True)
class ClusterView:
    """A snapshot of all nodes, dead ones that are still remembered included. Node ids are unique."""

    nodes: tuple[NodeView, ...]


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
    labelled = [node for node in view.nodes if node.is_alive and _has_labels(node, demand.label_selector)]
    staying = [node for node in labelled if demand.is_in_bundle or not node.is_draining]
    if isinstance(demand.strategy, NodeAffinity):
        return _with_affinity(demand, demand.strategy, staying, [node.node_id for node in labelled if node.is_draining])
    return _by_resources(demand, staying)


_NOT_REFUSED = Placement(None, "some node is ready")


def _has_labels(node: NodeView, selector: Mapping[str, str]) -> bool:
    return node_labels.meets(selector.items(), node.labels)


def _by_resources(demand: Demand, nodes: Sequence[NodeView]) -> Eligible:
    able = [node for node in nodes if demand.resources.fits_in(node.total)]
    ready = tuple(node for node in able if demand.resources.fits_in(node.available))
    if len(ready) == len(able) and able:
        return Eligible(ready, (), _NOT_REFUSED)
    busy = tuple(node for node in able if not demand.resources.fits_in(node.available))
    if ready:
        return Eligible(ready, busy, _NOT_REFUSED)
    needs = _describe(demand.resources)
    if able:
        lacking = _names(busy, demand.resources)
        refusal = Placement(None, f"{needs} is not free now on {lacking}; it waits until what runs there ends")
    elif nodes:
        refusal = Placement(
            None,
            f"no node has {needs} in total ({_names(nodes, demand.resources)}); ask for less or add a node",
            is_feasible=False,
        )
    else:
        wanted = f" with the labels {dict(demand.label_selector)}" if demand.label_selector else ""
        refusal = Placement(None, f"no node{wanted} is alive; add one or correct the selector", is_feasible=False)
    return Eligible(ready, busy, refusal)


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
    reason += " with the labels asked for" if demand.label_selector else ""
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
