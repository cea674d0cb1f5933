"""What a head tells, as events for the autoscaler."""

from __future__ import annotations

import json
from typing import Any

from umbel._autoscaling import demand, events, observing
from umbel._model import node_labels
from umbel._model.resources import ResourceSet

CPU = 10_000


def node(node_id: str, *, instance: str = "", alive: bool = True, idle: int = 0, free: int = 4) -> dict[str, Any]:
    labels = {node_labels.INSTANCE_ID: instance, node_labels.NODE_GROUP: "small"} if instance else {}
    return {
        "node_id": node_id, "alive": alive, "total": {"CPU": 4 * CPU}, "available": {"CPU": free * CPU}, "labels": labels,
        "idle": idle, "draining": "",
    }  # fmt: skip


def told(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nodes": nodes, "tasks": [], "actors": [], "groups": [], "standing": "", **more}


def of(kind: type, found: list[events.Event]) -> list[Any]:
    return [one for one in found if isinstance(one, kind)]


def test_nodes_have_the_names_that_their_launcher_gave_them() -> None:
    observer = observing.Observer()
    first, second = of(events.NodeSeen, observer.events(told(node("h"), node("n1", instance="x", free=1)), 5.0))
    total = ResourceSet({"CPU": 4 * CPU})
    assert first == events.NodeSeen("h", "", total, total, {}, None, 5.0)
    assert (second.node, second.type_name, second.available) == ("x", "small", ResourceSet({"CPU": CPU}))
    assert observer.seen == {"h": "h", "x": "n1"}


def test_why_a_node_is_drained_is_told() -> None:
    (seen,) = of(events.NodeSeen, observing.Observer().events(told({**node("n1"), "draining": "spot"}), 0.0))
    assert seen.draining == "spot"


def test_idle_time_is_counted_from_when_a_number_was_first_seen() -> None:
    observer = observing.Observer()

    def since(number: int, now_s: float) -> float | None:
        (found,) = of(events.NodeSeen, observer.events(told(node("n1", instance="x", idle=number)), now_s))
        assert isinstance(found, events.NodeSeen)
        return found.idle_since_s

    assert [since(7, 1.0), since(7, 4.0), since(9, 6.0), since(0, 7.0), since(9, 8.0)] == [1.0, 1.0, 6.0, None, 8.0]


def test_amounts_below_zero_are_none() -> None:
    """A worker that waits in `get` has lent its CPU, and has taken it back."""
    (seen,) = of(events.NodeSeen, observing.Observer().events(told(node("n1", free=-1)), 0.0))
    assert seen.available.is_empty


def test_who_is_dead_or_missing_has_died() -> None:
    observer = observing.Observer()
    observer.events(told(node("n1", instance="x"), node("n2", instance="y"), node("n3", instance="z")), 0.0)
    found = observer.events(told(node("n1", instance="x"), node("n2", instance="y", alive=False)), 1.0)
    assert of(events.NodeDied, found) == [events.NodeDied("y", 1.0), events.NodeDied("z", 1.0)]


def test_one_that_runs_again_under_its_name_has_not_died() -> None:
    found = observing.Observer().events(told(node("n1", instance="x", alive=False), node("n2", instance="x")), 0.0)
    assert of(events.NodeDied, found) == []


def test_what_waits_on_several_nodes_is_one_demand() -> None:
    shape, zone = [{"CPU": CPU}, 3, []], [[["zone", "in(a,b)"]], []]
    tasks, actors = [shape, [{"CPU": CPU}, 1, zone], shape], [[{"CPU": CPU}, 2, []]]
    (change,) = of(events.DemandChanged, observing.Observer().events(told(tasks=tasks, actors=actors), 0.0))
    one = ResourceSet({"CPU": CPU})
    assert change.shapes == (demand.Shape(one, 8), demand.Shape(one, 1, ((("zone", "in(a,b)"),), ())))


def test_groups_are_on_nodes_by_their_names() -> None:
    group = {
        "group": "g",
        "bundles": [{"CPU": CPU}],
        "strategy": "PACK",
        "label_selectors": [],
        "placed_on": ["n1", "h"],
    }
    found = observing.Observer().events(told(node("h"), node("n1", instance="x"), groups=[group]), 0.0)
    (change,) = of(events.DemandChanged, found)
    assert change.groups == (demand.Group("g", (ResourceSet({"CPU": CPU}),), "PACK", (), ("x", "h")),)


def test_standing_requests_are_read() -> None:
    standing = json.dumps([[{"CPU": 1}, 3, {}], [{"GPU": 1}, 1, {"zone": "a"}], [{"CPU": 1}, 1, {}]])
    (change,) = of(events.StandingChanged, observing.Observer().events(told(standing=standing), 0.0))
    assert change.shapes == (
        demand.Shape(ResourceSet.from_floats({"CPU": 1}), 4),
        demand.Shape(ResourceSet.from_floats({"GPU": 1}), 1, ((("zone", "a"),),)),
    )


def test_what_makes_no_sense_is_said_and_the_rest_counts() -> None:
    observer = observing.Observer()
    tasks = [[{"CPU": CPU}, 1, [[["zone", "in("]]]], [{"CPU": CPU}, 2, []]]
    group = {"group": "g", "bundles": [{"CPU": "x"}], "strategy": "PACK", "label_selectors": [], "placed_on": []}
    found = observer.events(told(tasks=tasks, groups=[group], standing='{"CPU"'), 0.0)
    (change,) = of(events.DemandChanged, found)
    assert (change.shapes, change.groups) == ((demand.Shape(ResourceSet({"CPU": CPU}), 2),), ())
    shape, group_told, standing = observer.complaints
    assert shape.startswith("1 that wait for {'CPU': 10000} are not counted: a label selector's value must be")
    assert group_told.startswith("placement group g is not counted: ")
    assert standing.startswith("what was asked for by request_resources cannot be read: ")
    observer.events(told(), 1.0)
    assert observer.complaints == []
