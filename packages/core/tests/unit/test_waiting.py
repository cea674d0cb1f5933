"""What of a head's tables waits for nodes."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._control import group_events as gev
from umbel._control import groups, waiting
from umbel._control.events import ActorSpec
from umbel._model.placement import NodeView
from umbel._model.resources import ResourceSet

CPU = 10_000


def node(total: int = 4, free: int | None = None, **labels: str) -> Any:
    amounts = ResourceSet({"CPU": total * CPU}), ResourceSet({"CPU": (total if free is None else free) * CPU})
    return NodeView("aa", *amounts, labels)


def spec(cpus: int = 1, *, holds: int | None = None, **more: Any) -> ActorSpec:
    running = {"CPU": (cpus if holds is None else holds) * CPU}
    fields: dict[str, Any] = {
        "actor": "a", "owner": "o", "name": "", "namespace": "", "class_name": "C", "is_detached": False, "max_restarts": 0,
        "placement": {"CPU": cpus * CPU}, "running": {name: one for name, one in running.items() if one}, "env": None,
        "strategy": None, "label_selectors": None, "depth": 0,
    }  # fmt: skip
    return ActorSpec(**{**fields, **more})


def test_equal_actors_are_counted_together() -> None:
    found = waiting.actors([spec(), spec(), spec(2)], [node(free=0)])
    assert found == [[{"CPU": CPU}, 2, []], [{"CPU": 2 * CPU}, 1, []]]


def test_actors_that_hold_nothing_need_one_node_that_has_what_they_ask_for() -> None:
    idle = [spec(holds=0)] * 7
    assert waiting.actors(idle, [node(0)]) == [[{"CPU": CPU}, 1, []]]
    assert waiting.actors(idle, [node(0), node(free=0)]) == []  # they are starting


def test_what_the_node_must_have_counts_where_none_has_it() -> None:
    """A node of 2 CPUs would hold it while it runs, and never let it start."""
    assert waiting.actors([spec(3, holds=2)], [node(2)]) == [[{"CPU": 3 * CPU}, 1, []]]
    assert waiting.actors([spec(3, holds=2)], [node(4, free=0)]) == [[{"CPU": 2 * CPU}, 1, []]]


@pytest.mark.parametrize(
    "bound",
    [
        spec(9, strategy={"placement_group": "g", "bundle_index": 0}),
        spec(9, strategy={"node_id": "bb", "soft": False}),
    ],
)
def test_actors_that_no_new_node_can_host_are_left_out(bound: ActorSpec) -> None:
    assert waiting.actors([bound], [node()]) == []


def test_labels_are_looked_at() -> None:
    wanted = spec(label_selectors=[[["zone", "b"]]])
    assert waiting.actors([wanted], [node(zone="a")]) == [[{"CPU": CPU}, 1, [[["zone", "b"]]]]]


def test_kinds_are_bounded() -> None:
    assert len(waiting.actors([spec(number) for number in range(1, 3_000)], [])) == waiting.SHAPES_MAX


def test_groups_want_what_has_no_place() -> None:
    table = groups.GroupTable()
    has = ResourceSet.from_floats({"CPU": 4})
    table.apply(gev.NodeSeen(NodeView("n1", has, has), 0.0))

    def made(name: str, *cpus: float, **more: Any) -> gev.GroupCreated:
        bundles = tuple(ResourceSet.from_floats({"CPU": one}) for one in cpus)
        return gev.GroupCreated(gev.GroupSpec(name, "d", "", "ns", bundles, "SPREAD", False, **more), "d", None, 0.0)

    table.apply(made("small", 1, 1), made("large", 9, 1, label_selectors=({"zone": "a"}, {})))
    table.apply(gev.BundlesReserved("n1", "small", 1, 0.0))
    table.apply(gev.BundlesCommitted("n1", "small", 1, 0.0))
    assert waiting.groups(table) == [
        {
            "group": "large", "bundles": [{"CPU": 9 * CPU}, {"CPU": CPU}], "strategy": "SPREAD",
            "label_selectors": [[("zone", "a")], []], "placed_on": [],
        }
    ]  # fmt: skip
