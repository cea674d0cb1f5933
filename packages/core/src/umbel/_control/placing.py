"""On which node of a cluster an actor is hosted.

With whoever created it, while there is room: calls between the two are quickest there. Else where there is room, as the policy
has it; else where there will be some. An actor that no node can ever host is with its creator, or where it wants to be,
whose node says what is lacking, until a node comes that can. What a strategy or labels insist on comes before all that. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from umbel._model import node_labels, placement, resources
from umbel._scheduling import policies

_POLICY = policies.HybridPolicy()


def view(
    node_id: str,
    total: Mapping[str, int],
    available: Mapping[str, int],
    labels: Mapping[str, str],
    *,
    is_local: bool = False,
    is_draining: bool = False,
) -> placement.NodeView:
    """A node as it was last heard of, amounts in units."""
    free = {name: max(0, amount) for name, amount in available.items()}
    told = {node_labels.NODE_ID: node_id, **labels}
    return placement.NodeView(
        node_id,
        resources.ResourceSet(total),
        resources.ResourceSet(free),
        told,
        is_local=is_local,
        is_draining=is_draining,
    )


def choose(spec: Any, nodes: Sequence[placement.NodeView], creator: str) -> str:
    """The id of the node. spec: an `events.ActorSpec`. creator: the node of its creator, which may be none of these any more.
    nodes: all that live, of which the first does where the creator's is not and no node can host it."""
    is_there = any(node.node_id == creator for node in nodes)
    preferred = creator if is_there else nodes[0].node_id
    demand = _demand(spec)
    alternatives = [_fit(spec, nodes, selector) for selector in spec.label_selectors or ((),)]
    for fit in alternatives:
        ready = [node.node_id for node in placement.eligible_nodes(demand, fit).ready]
        if preferred in ready and demand.strategy != "SPREAD":
            return preferred
        chosen = _POLICY.place(demand, fit).node_id if ready else None
        if chosen is not None:
            return chosen
    for fit in alternatives:
        busy = [node.node_id for node in placement.eligible_nodes(demand, fit).busy]
        if busy:
            return preferred if preferred in busy else busy[0]
    insisted = demand.strategy.node_id if isinstance(demand.strategy, placement.NodeAffinity) else ""
    return insisted if any(node.node_id == insisted for node in nodes) else preferred


def choose_in_group(
    spec: Any,
    bundles: Sequence[Mapping[str, int]],
    homes: Mapping[int, str],
    creator: str,
    counts: Mapping[str, int],
) -> str:
    """The node of the bundle that it is to live in; of any, its creator's if that has room, else the one with most; "" while
    none has a place. homes: of each bundle that has one. counts: how many actors of the group have gone to each node."""
    index = int(spec.strategy.get("bundle_index", -1))
    if index >= 0:
        return homes.get(index, "")
    wanted = resources.ResourceSet(spec.placement)
    room: dict[str, int] = {}
    for one, node in homes.items():
        fitting = min((bundles[one].get(name, 0) // amount for name, amount in wanted.items()), default=1)
        if fitting:
            room[node] = room.get(node, 0) + fitting
    left = {node: fitting - counts.get(node, 0) for node, fitting in room.items()}
    return min(left, key=lambda node: (left[node] <= 0, node != creator, -left[node], node), default="")


def can_ever(spec: Any, node: placement.NodeView) -> bool:
    """Whether the node can host it, now or when something ends there."""
    found = [placement.eligible_nodes(_demand(spec), _fit(spec, [node], one)) for one in spec.label_selectors or ((),)]
    return any(one.ready or one.busy for one in found)


def is_better(spec: Any, there: placement.NodeView, here: placement.NodeView) -> bool:
    """Whether a node that has come can host it sooner than the one that looks for a worker for it."""
    return not can_ever(spec, here) or (_can_now(spec, there) and not _can_now(spec, here))


def _can_now(spec: Any, node: placement.NodeView) -> bool:
    found = [placement.eligible_nodes(_demand(spec), _fit(spec, [node], one)) for one in spec.label_selectors or ((),)]
    return any(one.ready for one in found)


def _demand(spec: Any) -> placement.Demand:
    """What it holds while it lives; what the node must have in all may be more, see `_fit`."""
    return placement.Demand(resources.ResourceSet(spec.running), _strategy(spec.strategy), depth=spec.depth)


def _fit(spec: Any, nodes: Sequence[placement.NodeView], selector: Sequence[Any]) -> placement.ClusterView:
    """Those with such labels, and so much in all."""
    wanted = resources.ResourceSet(spec.placement)
    conditions = [(label, condition) for label, condition in selector]
    fit = [node for node in nodes if wanted.fits_in(node.total) and node_labels.meets(conditions, node.labels)]
    return placement.ClusterView(tuple(fit))


def _strategy(wire: Any) -> placement.Strategy:
    """As a process says it, see `umbel._client.strategies`."""
    if isinstance(wire, Mapping) and "node_id" in wire:
        is_soft, spills = bool(wire.get("soft")), bool(wire.get("spills_when_busy"))
        fails = bool(wire.get("fails_when_busy"))
        return placement.NodeAffinity(wire["node_id"], is_soft=is_soft, spills_when_busy=spills, fails_when_busy=fails)
    return "SPREAD" if wire == "SPREAD" else "DEFAULT"
