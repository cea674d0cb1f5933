"""On which node an actor is hosted."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._control import placing
from umbel._control.events import ActorSpec
from umbel._model import placement, resources
from umbel._scheduling import kept_view, policies

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


class Fullest:
    """A plugin's: the fullest node."""

    def place(self, demand: placement.Demand, view: placement.ClusterView) -> placement.Placement:
        eligible = placement.eligible_nodes(demand, view)
        if not eligible.ready:
            return eligible.refusal
        chosen = min(eligible.ready, key=lambda one: (one.available.get("CPU", 0), one.node_id))
        return placement.Placement(chosen.node_id, "the fullest")

    def order(self, waiting: Any) -> Any:
        return range(len(waiting))


class Careless(Fullest):
    """Looks at nothing."""

    def place(self, demand: placement.Demand, view: placement.ClusterView) -> placement.Placement:
        return placement.Placement(C, "always")


class Raising(Fullest):
    def place(self, demand: placement.Demand, view: placement.ClusterView) -> placement.Placement:
        raise RuntimeError("out of order")


class Idle(Fullest):
    def place(self, demand: placement.Demand, view: placement.ClusterView) -> placement.Placement:
        return placement.Placement(None, "it is Sunday")


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


# ---- by the policy of a plugin ----


def guarded(policy: Any, told: list[str]) -> policies.GuardedPolicy:
    return policies.GuardedPolicy("theirs", policy, fallback=policies.HybridPolicy(), report=told.append)


def by_policy(policy: Any, wanted: ActorSpec, nodes: list[Any], creator: str) -> str:
    return placing.choose(wanted, kept_view.KeptView(nodes), creator, nodes[0].node_id, policy)


def test_a_policy_ranks_the_nodes_that_may_host_it() -> None:
    nodes = [node(A), node(B, free=1), node(C, free=0)]
    assert by_policy(Fullest(), spec(), nodes, A) == B
    assert by_policy(Fullest(), spec(2), nodes, A) == A
    assert by_policy(Fullest(), spec(strategy={"node_id": A, "soft": False}), nodes, B) == A
    labelled = [node(A, labels={"zone": "a"}), node(B, free=1)]
    assert by_policy(Fullest(), spec(label_selectors=[[["zone", "a"]]]), labelled, B) == A


def test_a_policy_is_told_that_it_is_an_actor_and_who_has_created_it() -> None:
    seen: list[placement.Demand] = []

    class Watching(Fullest):
        def place(self, demand: placement.Demand, view: placement.ClusterView) -> placement.Placement:
            seen.append(demand)
            return super().place(demand, view)

    by_policy(Watching(), spec(running={}), [node(A), node(B)], B)
    (demand,) = seen
    assert (demand.is_actor, demand.near, demand.resources, demand.in_all) == (
        True, B, resources.EMPTY, resources.ResourceSet({"CPU": CPU}),
    )  # fmt: skip


def test_a_policy_that_names_no_node_leaves_it_to_the_built_in_way() -> None:
    told: list[str] = []
    assert by_policy(guarded(Idle(), told), spec(), [node(A), node(B)], B) == B
    assert by_policy(guarded(Idle(), told), spec(), [node(A, free=0), node(B, free=0)], B) == B
    assert told == []


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (Raising(), "place() raised RuntimeError: out of order"),
        (Careless(), f"place() chose node {C!r}; only ['{A}', '{B}'] may hold"),
    ],
)
def test_a_policy_that_errs_is_switched_off_with_the_reason(policy: Any, fault: str) -> None:
    told: list[str] = []
    chosen = guarded(policy, told)
    nodes = [node(A), node(B), node(C, free=0)]
    assert [by_policy(chosen, spec(), nodes, B) for _ in range(3)] == [B, B, B]
    (text,) = told
    assert text.startswith(f"scheduler 'theirs' is switched off: {fault}")
    assert "the built-in policy takes over" in text


def test_spread_takes_the_emptiest_node_for_actors_too() -> None:
    assert by_policy(policies.SpreadPolicy(), spec(), [node(A, free=3), node(B)], A) == B
