"""What other nodes of the cluster have of what this one can never give, in words; for those tasks and actors that are asked of
this one alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from umbel._base.nodes import address_in_words
from umbel._model import node_labels

Node = Mapping[str, Any]

NAMED_MAX = 3  # a list of a thousand nodes explains nothing


def with_resources(nodes: Sequence[Node], needs: Mapping[str, int]) -> str:
    return _told(nodes, lambda node: all(node["resources"].get(name, 0) >= amount for name, amount in needs.items()))


def with_room(nodes: Sequence[Node], needs: Mapping[str, int]) -> str:
    """Which have so much free now, as far as is known here."""
    living = [node for node in nodes if node["alive"] and not node.get("draining")]
    fit = [node for node in living if all(node["available"].get(name, 0) >= amount for name, amount in needs.items())]
    if not living:
        return ""
    if not fit:
        return "; no other node of the cluster has that free now"
    return f"; of the cluster's other nodes {_named(fit)} {'has' if len(fit) == 1 else 'have'} that free"


def with_labels(nodes: Sequence[Node], selectors: Sequence[Any]) -> str:
    def is_fit(node: Node) -> bool:
        labels = {node_labels.NODE_ID: node["node_id"], **node["labels"]}
        return any(node_labels.meets(selector, labels) for selector in selectors)

    return _told(nodes, is_fit)


def by_id(nodes: Iterable[Node], wanted: str) -> str:
    """What that node is."""
    for node in nodes:
        if node["node_id"] == wanted:
            if node["alive"] and node.get("draining"):
                return "which is being drained, and begins nothing any more; make the affinity soft"
            if node["alive"]:
                where = address_in_words(node["address"])
                return f"which is another one of this cluster, at {where}, and cannot be asked now; try again"
            return f"which is dead: {node['reason']}; correct the node id or make the affinity soft"
    return "which this cluster does not have; correct the node id or make the affinity soft"


def _told(nodes: Sequence[Node], is_fit: Callable[[Node], bool]) -> str:
    living = [node for node in nodes if node["alive"]]
    fit = [node for node in living if is_fit(node)]
    if not living:
        return ""
    if not fit and len(living) == 1:
        return "; there is another node in the cluster, which does not have it"
    if not fit:
        return f"; there are {len(living)} other nodes in the cluster, none of which has it"
    return f"; of the cluster's other nodes {_named(fit)} would do"


def _named(nodes: Sequence[Node]) -> str:
    named = ", ".join(f"{node['node_id'][:8]} at {address_in_words(node['address'])}" for node in nodes[:NAMED_MAX])
    return named + (f" and {len(nodes) - NAMED_MAX} more" if len(nodes) > NAMED_MAX else "")
