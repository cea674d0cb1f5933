"""What of a head's tables waits for nodes that are not there, for the autoscaler, by shape (see `umbel._agent.load`). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umbel._control import placing
from umbel._model import placement

SHAPES_MAX = 1_000  # of all actors, and groups

Message = dict[str, Any]


def actors(specs: Iterable[Any], nodes: Sequence[placement.NodeView]) -> list[Any]:
    """The shapes of those for which a worker is looked for (`events.ActorSpec`).

    One that holds nothing while it runs starts at once where a node has what it asks for in all: so many of those need one such
    node, and none where there is one. Left out are those of groups, of which the group waits, and those that no new node can
    host.
    """
    counts: dict[tuple[Any, ...], int] = {}
    examples: dict[tuple[Any, ...], Any] = {}
    for spec in specs:
        if _is_bound(spec):
            continue
        key = (tuple(sorted(spec.placement.items())), tuple(sorted(spec.running.items())), repr(spec.label_selectors))
        if key in counts or len(counts) < SHAPES_MAX:
            counts[key] = counts.get(key, 0) + 1
            examples.setdefault(key, spec)
    found = []
    for key, spec in examples.items():
        selectors = spec.label_selectors or []
        if any(placing.can_ever(spec, node) for node in nodes):
            if spec.running:
                found.append([dict(spec.running), counts[key], selectors])
        else:
            found.append([_in_all(spec), counts[key] if spec.running else 1, selectors])
    return found


def lacks(spec: Any) -> Message | None:
    """What no node has that such an actor needs, as `launches_for` of a node is asked about it; None if no new node could host
    it."""
    return None if _is_bound(spec) else {"needs": _in_all(spec), "labels": spec.label_selectors or []}


def _is_bound(spec: Any) -> bool:
    strategy = spec.strategy
    to_node = isinstance(strategy, Mapping) and "node_id" in strategy and not strategy.get("soft")
    return bool(spec.group or to_node)


def _in_all(spec: Any) -> dict[str, int]:
    """What its node must have."""
    wanted = {name: max(amount, spec.running.get(name, 0)) for name, amount in spec.placement.items()}
    return {**spec.running, **wanted}


def groups(table: Any) -> list[Message]:
    """Placement groups of which bundles have no place. table: a `groups.GroupTable`."""
    found: list[Message] = []
    for group in table.groups.values():
        spec = group.spec
        lacking = [index for index in range(len(spec.bundles)) if index not in group.nodes]
        if lacking and len(found) < SHAPES_MAX:
            selectors = spec.label_selectors
            found.append(
                {
                    "group": spec.group,
                    "bundles": [dict(spec.bundles[index]) for index in lacking],
                    "strategy": spec.strategy,
                    "label_selectors": [list(selectors[index].items()) for index in lacking] if selectors else [],
                    "placed_on": sorted(set(group.nodes.values())),
                }
            )
    return found
