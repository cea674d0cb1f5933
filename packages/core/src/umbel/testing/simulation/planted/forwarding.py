"""Defects that the world `forwarding` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import records as agent_records
from umbel._agent import serving
from umbel._scheduling import forwarding
from umbel.testing.simulation.planted.defect import Planted, instead

_FORWARDING = forwarding.Forwarding


def _leave_with_the_drained(_machine: forwarding.Forwarding, _node: str, _at_s: float) -> list[Any]:
    """What was asked of a node goes on being asked of it when that is drained."""
    return []


def _keep_nobody_out(_serving: serving.Serving, _demand: agent_records.Demand) -> bool:
    """A node that is drained goes on granting."""
    return False


_told_nodes = _FORWARDING._told


def _move_in_silence(machine: Any, wish: Any, **facts: bool) -> list[Any]:
    """The node that something was asked of, and is not any more, is not told."""
    told: list[Any] = _told_nodes(machine, wish, **facts)
    return [one for one in told if one.lease_count or one.node == machine._node]


def _never_ask_elsewhere(machine: Any, wish: Any, node: str, at_s: float) -> bool:
    """What waits stays where it is."""
    return False


def _count_twice(_given: Any, _client: str, _key: str, lease_count: int, _heard_count: int) -> int:
    """A grant that crosses a wish is not counted against it."""
    return lease_count


def _take_for_dead(machine: Any, event: forwarding.NodeForgot) -> list[Any]:
    """A node to which the connection broke is taken for dead for a moment."""
    lost = machine._on_node_lost(forwarding.NodeLost(event.view.node_id, event.at_s))
    return [*lost, *machine._on_node_seen(forwarding.NodeSeen(event.view, event.at_s))]


def _lose_wishes(machine: Any, event: forwarding.NodeLost) -> list[Any]:
    """What a lost node was asked for is not asked of others."""
    for wish in [*machine.wishes.values()]:
        wish.count -= wish.on.get(event.node, 0)
        if event.node in wish.on:
            machine._put(wish, event.node, -wish.on[event.node])
        wish.untold.clear()
        if not wish.count:
            del machine.wishes[wish.client, wish.key]
    machine.nodes.pop(event.node, None)
    machine._stands_otherwise(event.node)
    for known in machine._known_at.values():
        known.discard(event.node)
    return []


def _leave_in_silence(machine: Any, event: forwarding.ClientLeft) -> list[Any]:
    """Other nodes do not hear that a process is gone."""
    for place in [place for place in machine.wishes if place[0] == event.client]:
        machine._forget(machine.wishes[place])
    machine._known_at.pop(event.client, None)
    return []


PLANTS: Final[Mapping[str, Planted]] = {
    "moved-in-silence": instead("forwarding", _FORWARDING, "_told", _move_in_silence, "W3"),
    "never-elsewhere": instead("forwarding", _FORWARDING, "_move", _never_ask_elsewhere, "W5"),
    "crossed-twice": instead("forwarding", forwarding.Given, "still_wanted", _count_twice, "W3"),
    "builds-not-awaited": instead("forwarding", _FORWARDING, "_on_preparing", lambda *_: [], "W10"),
    "lost-with-node": instead("forwarding", _FORWARDING, "_on_node_lost", _lose_wishes, "W3", "W4", "W5"),
    "taken-for-dead": instead("forwarding", _FORWARDING, "_on_node_forgot", _take_for_dead, "W2"),
    "asked-of-the-drained": instead("forwarding", _FORWARDING, "_take_back", _leave_with_the_drained, "W9"),
    "drained-begin": instead("forwarding", serving.Serving, "is_kept_out", _keep_nobody_out, "W9"),
    "left-in-silence": instead("forwarding", _FORWARDING, "_on_client_left", _leave_in_silence, "W"),
}
