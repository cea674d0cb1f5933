"""What processes and nodes say about leases, as `umbel._scheduling.forwarding` has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umbel._agent import load

Message = dict[str, Any]


def group_of(message: Message) -> str:
    """The placement group in which what a process wants is to run; "" for none."""
    strategy = message["strategy"]
    return str(strategy.get("placement_group", "")) if isinstance(strategy, dict) else ""


def lacks(message: Message) -> Message:
    """What is to be asked of `launches` about it; nothing where no other node could help."""
    if load.is_bound(message["strategy"]):
        return {}
    return {"lacks": {"needs": message["resources"], "labels": message["label_selectors"] or []}}


def is_impatient(message: Message) -> bool:
    """Whether what a process wants is to fail where others have now what it needs."""
    strategy = message["strategy"]
    return isinstance(strategy, dict) and bool(strategy.get("fails_when_busy"))


def positive(amounts: Mapping[str, int]) -> Message:
    return {name: max(0, amount) for name, amount in amounts.items()}


def demands_of(message: Message, *, is_in_bundle: bool = False) -> list[Any]:
    """What a process wants, by each of its label selectors."""
    from umbel._model import placement, resources

    needs = resources.ResourceSet(message["resources"])
    sent = message["strategy"]
    strategy: placement.Strategy = "SPREAD" if sent == "SPREAD" else "DEFAULT"
    if isinstance(sent, dict) and "node_id" in sent:
        strategy = placement.NodeAffinity(
            str(sent["node_id"]),
            is_soft=bool(sent.get("soft")),
            spills_when_busy=bool(sent.get("spills_when_busy")),
        )  # whether it is too busy for one that is not to wait is for that node to say: see `is_impatient`
    demands = []
    for selector in message["label_selectors"] or [[]]:
        labels: dict[str, str] = {}
        others = tuple(
            [(label, condition) for label, condition in selector if labels.setdefault(label, condition) != condition]
        )
        demands.append(placement.Demand(needs, strategy, labels, message["depth"], is_in_bundle, conditions=others))
    return demands


def view_of(node: str, facts: Message, free: Mapping[str, int], *, is_local: bool) -> Any:
    from umbel._model import node_labels, placement, resources

    available = resources.ResourceSet(positive(free))
    labels = {node_labels.NODE_ID: node, **facts["labels"]}
    return placement.NodeView(
        node, resources.ResourceSet(facts["resources"]), available, labels, is_local=is_local,
        is_draining=bool(facts["draining"]),
    )  # fmt: skip
