"""Defects that the world `groups` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import bundles as node_bundles
from umbel._agent import state
from umbel._control import group_state, groups
from umbel._scheduling import bundles as group_bundles
from umbel.testing.simulation.planted.defect import Planted, deaf, instead

_on_reserved = groups.GroupTable._on_reserved


_give_up = groups.GroupTable._give_up


_on_node_lost = groups.GroupTable._on_node_lost


_give_up_bundles = node_bundles.Bundles.give_up


def _commit_at_once(table: groups.GroupTable, event: Any) -> list[Any]:
    """Bundles are committed once one node has reserved its own."""
    group = table.groups.get(event.group)
    part = (event.node, event.attempt)
    if group is not None and group.attempt is not None and part in group.attempt.waits_for:
        for node, _ in {*group.attempt.waits_for} - {part}:
            table._room.answered(node, event.group)
        group.attempt.waits_for = {part: None}
    return _on_reserved(table, event)


def _give_up_in_silence(table: groups.GroupTable, group: group_state.Group, **options: Any) -> list[Any]:
    """Nodes are not told that an attempt was given up."""
    _give_up(table, group, **options)
    return []


def _move_all(table: groups.GroupTable, event: Any) -> list[Any]:
    """With one bundle of a group all of them are placed again."""
    for group in table.groups.values():
        if event.node in group.nodes.values():
            group.nodes = dict.fromkeys(group.nodes, event.node)
    return _on_node_lost(table, event)


def _forget_watchers(_table: groups.GroupTable, group: group_state.Group) -> list[Any]:
    """Nobody is told what he waits for."""
    group.watchers = {}
    return []


def _forget_followers(_table: groups.GroupTable, _group: group_state.Group) -> list[Any]:
    """Nodes that follow a group hear nothing of what becomes of its bundles."""
    return []


def _forget_creator(_group: group_state.Group) -> list[Any]:
    """Whoever has made a group hears nothing of its end."""
    return []


def _stay(_table: groups.GroupTable, _at_s: float) -> list[Any]:
    """Groups that wait for a full node do not look at others."""
    return []


def _match_first_come(demand: Any, able: Mapping[int, Any], free: Mapping[str, Any]) -> dict[int, str] | None:
    """Of STRICT_SPREAD, no bundle makes way for another."""
    found: dict[int, str] = {}
    for index, nodes in able.items():
        left = [one for one in nodes if one not in (*demand.placed.values(), *found.values())]
        fitting = [one for one in left if demand.bundles[index].fits_in(free[one])]
        if not fitting:
            return None
        found[index] = fitting[0]
    return found


def _free_at_once(held: node_bundles.Bundles, group: str, attempt: int | None = None) -> list[Any]:
    """Bundles go back to the node while something runs in them."""
    busy = _give_up_bundles(held, group, attempt)
    for bundle in busy:
        held.ending.remove(bundle)
        held._node.release(bundle.resources, bundle.devices)
    return busy


_AGENT: Final = state.AgentState


PLANTS: Final[Mapping[str, Planted]] = {
    "committed-at-once": instead("groups", groups.GroupTable, "_on_reserved", _commit_at_once, "P1"),
    "cancelled-in-silence": instead("groups", groups.GroupTable, "_give_up", _give_up_in_silence, "P3", "a bundle"),
    "all-moved": instead(
        "groups", groups.GroupTable, "_on_node_lost", _move_all, "P4", "the end of a node is not heard"
    ),
    "watchers-untold": instead(
        "groups", groups.GroupTable, "_publish", _forget_watchers, "P7", "a process is to do with a group that is gone"
    ),
    "followers-untold": instead("groups", groups.GroupTable, "_moved", _forget_followers, "P9"),
    "creator-untold": instead("groups", group_state, "not_created", _forget_creator, "P12"),
    "stays-where-it-waits": instead("groups", groups.GroupTable, "_look_again", _stay, "P11"),
    "first-come": instead("groups", group_bundles, "_matched", _match_first_come, "P6"),
    "drop-unheard": instead("groups", _AGENT, "_on_group_dropped", deaf, "P"),
    "bundles-free-at-once": instead("groups", node_bundles.Bundles, "give_up", _free_at_once, "a lease in a", "free"),
}
