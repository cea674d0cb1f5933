"""On which node an actor is hosted."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._control import placing
from umbel._control.events import ActorSpec
from umbel._model import placement, resources
from umbel._scheduling import kept_view

A, B, C = "aa" * 28, "bb" * 28, "cc" * 28
CPU = 10_000


def node(node_id: str, total: int = 4, free: int | None = None, **more: Any) -> Any:
    amounts = {"CPU": total * CPU, **more.get("has", {})}
    available = {**amounts, "CPU": (total if free is None else free) * CPU}
    return placement.NodeView(
        node_id, resources.ResourceSet(amounts), resources.ResourceSet(available), more.get("labels", {})
    )


def choose(wanted: ActorSpec, nodes: list[Any], creator: str) -> str:
    """The first node is the head; by a snapshot, and by a view that is kept."""
    given = wanted, placement.ClusterView(tuple(nodes)), creator, nodes[0].node_id
    chosen = placing.choose(*given)
    assert placing.choose(wanted, kept_view.KeptView(nodes), *given[2:]) == chosen
    return chosen


def spec(cpus: int = 1, **more: Any) -> ActorSpec:
    wanted = {"CPU": cpus * CPU, **more.pop("wants", {})}
    fields: dict[str, Any] = {
        "actor": "a", "owner": "o", "name": "", "namespace": "", "class_name": "C", "is_detached": False, "max_restarts": 0,
        "placement": wanted, "running": wanted, "env": None, "strategy": None, "label_selectors": None, "depth": 0,
    }  # fmt: skip
    return ActorSpec(**{**fields, **more})


def test_with_its_creator_while_there_is_room() -> None:
    assert choose(spec(), [node(A), node(B, free=1)], B) == B


def test_where_there_is_room_if_not_there() -> None:
    assert choose(spec(2), [node(A), node(B, free=1)], B) == A
    assert choose(spec(), [node(A, free=0), node(B, free=0), node(C)], B) == C


def test_with_its_creator_when_all_are_busy() -> None:
    assert choose(spec(), [node(A, free=0), node(B, free=0)], B) == B
    assert choose(spec(3), [node(A, free=0), node(B, total=2)], B) == A


def test_with_its_creator_when_nobody_can() -> None:
    assert choose(spec(9), [node(A), node(B)], B) == B
    assert not placing.can_ever(spec(9), node(A))
    assert placing.can_ever(spec(4), node(A, free=0))


def test_on_the_first_when_its_creator_is_gone() -> None:
    assert choose(spec(), [node(A), node(B)], C) == A


def test_what_it_holds_need_not_be_what_the_node_must_have() -> None:
    """A default actor holds nothing, and is placed where there is a CPU."""
    wanted = spec(running={})
    assert choose(wanted, [node(A), node(B, free=0)], B) == B
    assert choose(wanted, [node(A), node(B, total=0)], B) == A


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({"node_id": C, "soft": False}, C),
        ({"node_id": C, "soft": True}, C),
        ({"node_id": "dd" * 28, "soft": True}, A),
        ({"node_id": "dd" * 28, "soft": False}, A),  # whose daemon says that there is none
        ("SPREAD", B),
        (None, A),
    ],
)
def test_strategies_come_first(strategy: Any, expected: str) -> None:
    assert choose(spec(strategy=strategy), [node(A, free=2), node(B), node(C, free=3)], A) == expected


def test_a_node_that_it_insists_on_is_waited_for() -> None:
    wanted = spec(strategy={"node_id": C, "soft": False})
    assert choose(wanted, [node(A), node(C, free=0)], A) == C
    assert choose(spec(9, strategy={"node_id": C, "soft": False}), [node(A), node(C)], A) == C
    spills = spec(strategy={"node_id": C, "soft": True, "spills_when_busy": True})
    assert choose(spills, [node(A), node(C, free=0)], A) == A


def test_the_first_labels_that_a_node_has_decide() -> None:
    nodes = [node(A, labels={"zone": "a"}), node(B, labels={"zone": "b"}), node(C, labels={"zone": "c"})]
    assert choose(spec(label_selectors=[[["zone", "c"]]]), nodes, A) == C
    assert choose(spec(label_selectors=[[["zone", "x"]], [["zone", "b"]]]), nodes, A) == B
    assert choose(spec(label_selectors=[[["zone", "x"]]]), nodes, A) == A
    assert placing.can_ever(spec(label_selectors=[[["zone", "!a"]]]), nodes[1])


def test_actor_moves_to_a_node_that_has_come_only_if_it_would_wait_where_it_is() -> None:
    busy, free, small = node(A, free=0), node(B), node(C, total=1)
    assert placing.is_better(spec(2), free, busy)
    assert placing.is_better(spec(2), busy, small)  # which can never host it
    assert not placing.is_better(spec(2), free, node(A))
    assert not placing.is_better(spec(2), busy, busy)
