"""What a head tells of its cluster, as events for the autoscaler.

A node is named by what its launcher calls it, which its labels say; another one by its id. Idle times are counted by the clock of
whoever looks, from when a node was first seen idle: a node says the same number as long as nothing has run on it
(`umbel._agent.load`), so what has begun and ended between two looks counts as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from umbel import exceptions
from umbel._autoscaling import demand, events
from umbel._model import node_labels, resources

Facts = Mapping[str, Any]


class Observer:
    """seen: of each living node, by what it is called, its id. complaints: what the head has told that makes no sense."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}
        self.complaints: list[str] = []
        self._idle: dict[str, tuple[int, float]] = {}  # by id: its number, and since when it has been that

    def events(self, told: Facts, now_s: float) -> list[events.Event]:
        """told: "nodes", the living and the dead; "tasks", "actors" and "groups" that wait; "standing", as `request_resources`
        has left it."""
        self.complaints = []
        found: list[events.Event] = []
        before, self.seen = self.seen, {}
        idle: dict[str, tuple[int, float]] = {}
        for node in told["nodes"]:
            if node["alive"]:
                name = node["labels"].get(node_labels.INSTANCE_ID, node["node_id"])
                self.seen[name] = node["node_id"]
                number = node["idle"]
                known = self._idle.get(node["node_id"])
                if number:
                    idle[node["node_id"]] = known if known is not None and known[0] == number else (number, now_s)
                found.append(_seen(name, node, idle.get(node["node_id"], (0, None))[1], now_s))
        self._idle = idle
        dead = {
            node["labels"].get(node_labels.INSTANCE_ID, node["node_id"]) for node in told["nodes"] if not node["alive"]
        }
        found += [events.NodeDied(name, now_s) for name in sorted((dead | before.keys()) - self.seen.keys())]
        found.append(
            events.DemandChanged(
                tuple(demand.merged(self._shapes([*told["tasks"], *told["actors"]]))),
                tuple(self._groups(told["groups"])),
                now_s,
            )
        )
        found.append(events.StandingChanged(tuple(self._standing(told["standing"])), now_s))
        return found

    def _shapes(self, told: Iterable[Any]) -> list[demand.Shape]:
        found = []
        for amounts, count, selectors in told:
            try:
                checked = tuple(_selector(one) for one in selectors)
                found.append(demand.Shape(resources.ResourceSet(amounts), count, checked))
            except (exceptions.UmbelError, TypeError, ValueError) as error:
                self.complaints.append(f"{count} that wait for {amounts} are not counted: {error}")
        return found

    def _groups(self, told: Iterable[Facts]) -> list[demand.Group]:
        names = {node_id: name for name, node_id in self.seen.items()}
        found = []
        for one in told:
            try:
                bundles = tuple(resources.ResourceSet(bundle) for bundle in one["bundles"])
                selectors = tuple(_selector(selector) for selector in one["label_selectors"])
                placed = tuple(names.get(node_id, node_id) for node_id in one["placed_on"])
                found.append(demand.Group(one["group"], bundles, one["strategy"], selectors, placed))
            except (exceptions.UmbelError, TypeError, ValueError) as error:
                self.complaints.append(f"placement group {one['group']} is not counted: {error}")
        return found

    def _standing(self, text: str) -> list[demand.Shape]:
        try:
            return demand.merged(
                self._shapes(
                    (resources.ResourceSet.from_floats(amounts), count, [list(selector.items())] if selector else [])
                    for amounts, count, selector in json.loads(text or "[]")
                )
            )
        except (exceptions.UmbelError, AttributeError, TypeError, ValueError) as error:
            self.complaints.append(f"what was asked for by request_resources cannot be read: {error}")
            return []


def _selector(pairs: Iterable[Any]) -> node_labels.Selector:
    """Raises InvalidOption for a condition that cannot be read."""
    found = tuple((str(label), str(condition)) for label, condition in pairs)
    for _, condition in found:
        node_labels.label_matches(condition, None)
    return found


def _seen(name: str, node: Facts, idle_since_s: float | None, now_s: float) -> events.NodeSeen:
    labels = node["labels"]
    return events.NodeSeen(
        name,
        labels.get(node_labels.NODE_GROUP, "") if node_labels.INSTANCE_ID in labels else "",
        resources.ResourceSet({key: amount for key, amount in node["total"].items() if amount > 0}),
        resources.ResourceSet({key: amount for key, amount in node["available"].items() if amount > 0}),
        labels,
        idle_since_s,
        now_s,
        node["draining"],
    )
