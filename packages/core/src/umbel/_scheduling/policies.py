"""The built-in scheduling policies, and a guard around those that come from elsewhere.

Both obey labels, resources and node affinity through `first_ready`, and spread what asks for "SPREAD"; they differ
in where everything else goes, and only the hybrid one looks at where arguments are. Policies are pure: the same question
has the same answer, so a seed replays a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from umbel import spi
from umbel._model import placement  # what is asked often: each look into `spi` is one for the module first

# Up to half of a node's scarcest resource, packing keeps other nodes free for large demands and lets a cluster shrink;
# beyond it, neighbours begin to disturb one another. Ray's threshold.
PACK_UNTIL = 0.5


class HybridPolicy:
    """Where the arguments are, if they are large; an actor with its creator. Else pack: the local node first, then the others in
    order, until half full; from there on the emptiest node."""

    def place(self, demand: spi.Demand, view: spi.ClusterView) -> spi.Placement:
        if demand.strategy == "SPREAD":
            return _spread(demand, view)
        near = placement.eligible_among(demand, view, demand.near).ready if demand.near else ()
        if any(node.node_id == demand.near for node in near):
            why = "its creator's node" if demand.is_actor else "the node that has most bytes of its large arguments"
            return placement.Placement(demand.near, why)
        found = placement.first_ready(demand, view, packed)
        if isinstance(found, placement.Placement):
            return found
        if _share_used(found, demand) >= PACK_UNTIL:
            return _as_least_used(demand, found)
        where = "the local node" if found.is_local else "the first node"
        return placement.Placement(found.node_id, f"{where} that is less than {PACK_UNTIL:.0%} used")

    def order(self, waiting: Sequence[spi.WaitingDemand]) -> Sequence[int]:
        return deepest_first(waiting)


HYBRID = HybridPolicy()


class SpreadPolicy:
    """The emptiest node for everything, as if every task asked for "SPREAD"."""

    def place(self, demand: spi.Demand, view: spi.ClusterView) -> spi.Placement:
        return _spread(demand, view)

    def order(self, waiting: Sequence[spi.WaitingDemand]) -> Sequence[int]:
        return deepest_first(waiting)


def deepest_first(waiting: Sequence[spi.WaitingDemand]) -> list[int]:
    """What shallower tasks wait for comes first; among equals, who has waited longest."""
    return sorted(range(len(waiting)), key=lambda index: (-waiting[index].demand.depth, waiting[index].turn))


class GuardedPolicy:
    """A policy of a plugin, whose faults must not take the node down with them.

    The first answer that breaks the contract, or error, is reported; from then on the fallback answers.
    """

    def __init__(
        self, name: str, policy: spi.SchedulingPolicy, *, fallback: spi.SchedulingPolicy, report: Callable[[str], None]
    ) -> None:
        """report: called once at most, with a sentence for the user."""
        self._name = name
        self._policy = policy
        self._fallback = fallback
        self._report = report

    def place(self, demand: spi.Demand, view: spi.ClusterView) -> spi.Placement:
        try:
            answer = self._policy.place(demand, view)
            fault = placement_fault(demand, view, answer)
        except Exception as error:
            fault = f"place() raised {type(error).__name__}: {error}"
        if not fault:
            return answer
        self._give_up(fault)
        return self._policy.place(demand, view)

    def order(self, waiting: Sequence[spi.WaitingDemand]) -> Sequence[int]:
        try:
            order = list(self._policy.order(waiting))
            fault = order_fault(len(waiting), order)
        except Exception as error:
            fault = f"order() raised {type(error).__name__}: {error}"
        if not fault:
            return order
        self._give_up(fault)
        return self._policy.order(waiting)

    def _give_up(self, fault: str) -> None:
        if self._policy is self._fallback:
            return
        self._policy = self._fallback
        self._report(
            f"scheduler {self._name!r} is switched off: {fault}; the built-in policy takes over. Report this to the "
            "plugin's authors; the conformance suite of umbel.testing checks it"
        )


def placement_fault(demand: spi.Demand, view: spi.ClusterView, answer: object) -> str:
    """How a placement breaks the contract of SchedulingPolicy, or an empty string."""
    if not isinstance(answer, spi.Placement):
        return f"place() returned {answer!r} instead of a Placement"
    if not answer.reason:
        return f"place() gave no reason: {answer!r}"
    if answer.node_id is None:
        return ""
    ready = [node.node_id for node in spi.eligible_nodes(demand, view).ready]
    if answer.node_id not in ready:
        return f"place() chose node {answer.node_id!r}; only {ready} may hold {demand.resources!r} now"
    return ""


def order_fault(count: int, order: Sequence[object]) -> str:
    """How an order breaks the contract of SchedulingPolicy, or an empty string."""
    if len(order) == count and set(order) == set(range(count)):
        return ""
    return f"order() must return each index below {count} once, got {list(order)[:10]!r}"


def _spread(demand: spi.Demand, view: spi.ClusterView) -> spi.Placement:
    found = placement.first_ready(demand, view, spread)
    return found if isinstance(found, placement.Placement) else _as_least_used(demand, found)


def _as_least_used(demand: spi.Demand, node: spi.NodeView) -> spi.Placement:
    return placement.Placement(node.node_id, f"the least used ({_share_used(node, demand):.0%}) of the nodes with room")


def packed(demand: spi.Demand, node: spi.NodeView) -> tuple[Any, ...]:
    """The order of the nodes: those that are less than half used first, the others by how much they are."""
    used = _share_used(node, demand)
    return (False, not node.is_local, node.node_id) if used < PACK_UNTIL else (True, *spread(demand, node))


def spread(demand: spi.Demand, node: spi.NodeView) -> tuple[Any, ...]:
    """The order of the nodes by how much they are used."""
    return _share_used(node, demand), not node.is_local, node.node_id


def _share_used(node: spi.NodeView, demand: spi.Demand) -> float:
    """How much of the scarcest resource that the demand needs is in use; of the node's scarcest if it needs none."""
    names = [name for name in demand.resources if name in node.total] or list(node.total)
    total, available = node.total, node.available
    # One division is rounded once: equal shares are equal numbers.
    return max(((total[name] - available.get(name, 0)) / total[name] for name in names), default=0.0)
