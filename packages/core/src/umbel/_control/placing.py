"""On which node of a cluster an actor is hosted.

Where there is room, as the cluster's scheduling policy has it; built in is: with whoever created it, as calls between the two are
quickest there, else as tasks. A plugin's policy that names no node leaves it to that. Without room anywhere, where there will be
some. An actor that no node can ever host is with its creator, or where it wants to be,
whose node says what is lacking, until a node comes that can. What a strategy or labels insist on comes before all that. Pure.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from umbel._model import placement, resources
from umbel._scheduling import policies


class Policy(Protocol):
    """As `spi.SchedulingPolicy`, as far as it is asked here."""

    def place(self, demand: placement.Demand, view: placement.ClusterView) -> placement.Placement: ...


_BUILT_IN: Policy = policies.HYBRID


def choose(spec: Any, view: placement.ClusterView, creator: str, head: str, policy: Policy = _BUILT_IN) -> str:
    """The id of the node. spec: an `events.ActorSpec`. view: of all that live. creator: the node of its creator, which may be
    none of these any more. head: the node where it goes when its creator's is not there and no node can host it. policy: it
    names one of the nodes with room, or none."""
    there = view.find(creator)
    is_there = there is not None and not there.is_draining
    preferred = creator if is_there else head
    alternatives = [_demand(spec, selector, near=preferred) for selector in spec.label_selectors or ((),)]
    for one in dict.fromkeys((policy, _BUILT_IN)):
        for demand in alternatives:
            chosen = one.place(demand, view).node_id
            if chosen is not None:
                return chosen
    for demand in alternatives:
        busy = _busy(demand, view, preferred)
        if busy:
            return busy
    insisted = demand.strategy.node_id if isinstance(demand.strategy, placement.NodeAffinity) else ""
    wanted = view.find(insisted)
    return insisted if wanted is not None and not wanted.is_draining else preferred


def _busy(demand: placement.Demand, view: placement.ClusterView, preferred: str) -> str:
    """Of the nodes that can host it later, the preferred one, else the first; "" for none."""
    if _holds(preferred, placement.eligible_among(demand, view, preferred).busy):
        return preferred
    able = placement.able_nodes(demand, view)
    return able[0].node_id if able else ""


def _holds(node_id: str, nodes: Sequence[placement.NodeView]) -> bool:
    return any(node.node_id == node_id for node in nodes)


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
    return any(one.ready or one.busy for one in _alone(spec, node))


def is_better(spec: Any, there: placement.NodeView, here: placement.NodeView) -> bool:
    """Whether a node that has come can host it sooner than the one that looks for a worker for it."""
    return not can_ever(spec, here) or (_can_now(spec, there) and not _can_now(spec, here))


def _can_now(spec: Any, node: placement.NodeView) -> bool:
    return any(one.ready for one in _alone(spec, node))


def _alone(spec: Any, node: placement.NodeView) -> list[placement.Eligible]:
    """By each of its label selectors."""
    view = placement.ClusterView((node,))
    return [placement.eligible_nodes(_demand(spec, one), view) for one in spec.label_selectors or ((),)]


def shape(spec: Any) -> tuple[Hashable, ...]:
    """What tells actors apart that another node is better for, beside where they look for a worker."""
    selectors = tuple(tuple(map(tuple, one)) for one in spec.label_selectors or ())
    return resources.ResourceSet(spec.running), resources.ResourceSet(spec.placement), repr(spec.strategy), selectors


def _demand(spec: Any, selector: Sequence[Sequence[str]], near: str = "") -> placement.Demand:
    """What it holds while it lives, where there is in all what it asks for to be placed. near: its creator's node."""
    return placement.Demand(
        resources.ResourceSet(spec.running),
        _strategy(spec.strategy),
        depth=spec.depth,
        in_all=resources.ResourceSet(spec.placement),
        conditions=tuple((label, condition) for label, condition in selector),
        near=near,
        is_actor=True,
    )


def _strategy(wire: Any) -> placement.Strategy:
    """As a process says it, see `umbel._client.strategies`."""
    if isinstance(wire, Mapping) and "node_id" in wire:
        is_soft, spills = bool(wire.get("soft")), bool(wire.get("spills_when_busy"))
        fails = bool(wire.get("fails_when_busy"))
        return placement.NodeAffinity(wire["node_id"], is_soft=is_soft, spills_when_busy=spills, fails_when_busy=fails)
    return "SPREAD" if wire == "SPREAD" else "DEFAULT"
