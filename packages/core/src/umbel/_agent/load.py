"""What a node tells the autoscaler of its cluster: what its processes wait for, by shape, and whether it is idle.

Looked at once in a period, so nothing is done for a task; told only where somebody wants to know. A shape is `[amounts in units,
count, label selectors]`, the best selector first. What other nodes cannot help is left out: tasks of placement groups, and those
that want a certain node. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SHAPES_MAX = 100  # of a node; Ray's. The rest is told when these have been served

Message = dict[str, Any]
Shape = list[Any]


def of_tasks(waiting: Iterable[tuple[Mapping[str, Any], int]]) -> list[Shape]:
    """waiting: what processes said that they want, and how much of it they have not been given; the oldest first."""
    shapes = (
        (message["resources"], count, message["label_selectors"] or [])
        for message, count in waiting
        if not is_bound(message["strategy"])
    )
    anywhere: tuple[Message, list[Any]] = ({}, [])  # it runs there
    return merged((one for one in shapes if (one[0], one[2]) != anywhere), SHAPES_MAX)


def merged(shapes: Iterable[Sequence[Any]], shapes_max: int) -> list[Shape]:
    """Equal ones counted together, the first of each first. shapes_max: of those that are not equal, beyond which they are left
    out."""
    found: dict[tuple[Any, ...], Shape] = {}
    for amounts, count, selectors in shapes:
        key = (*sorted(amounts.items()), repr(selectors))
        known = found.get(key)
        if known is not None:
            known[1] += count
        elif len(found) < shapes_max:
            found[key] = [dict(amounts), count, selectors]
    return list(found.values())


def is_bound(strategy: Any) -> bool:
    """To a placement group, which waits itself if need be, or to a certain node."""
    if not isinstance(strategy, dict):
        return False
    return "placement_group" in strategy or ("node_id" in strategy and not strategy.get("soft"))


def idle_number(agent: Any, *, has_drivers: bool) -> int:
    """0 while something runs, is reserved or waits here; else a number which is another one whenever something has. So whoever
    sees the same one twice knows that the node was idle in between, by no clock but its own. agent: a `state.AgentState`."""
    is_used = (
        has_drivers
        or bool(agent.demands)
        or any(worker.lease is not None for worker in agent.workers.values())
        or any(True for _ in agent.bundles)
    )
    return 0 if is_used else agent.turns + 1
