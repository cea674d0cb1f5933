"""Where the bundles of placement groups go."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence

import pytest

from umbel._model.placement import ClusterView, NodeView
from umbel._model.resources import ResourceSet
from umbel._scheduling import bundles
from umbel._scheduling.bundles import GroupDemand, GroupPlacement
from umbel._scheduling.kept_view import KeptView

CPU = 10_000


def cpus(count: float) -> ResourceSet:
    return ResourceSet.from_floats({"CPU": count})


def node(
    name: str,
    total: float = 4,
    free: float | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    is_alive: bool = True,
) -> NodeView:
    return NodeView(name, cpus(total), cpus(total if free is None else free), labels or {}, is_alive)


def place(
    strategy: str,
    wanted: Sequence[float],
    *nodes: NodeView,
    placed: Mapping[int, str] | None = None,
    selectors: Sequence[Mapping[str, str]] = (),
    target: str = "",
) -> GroupPlacement:
    demand = GroupDemand([cpus(one) for one in wanted], strategy, placed or {}, selectors, target)
    return bundles.place(demand, ClusterView(nodes))


def test_pack_takes_one_node_where_one_will_do() -> None:
    found = place("PACK", [1, 1, 2], node("a", 3), node("b", 4))
    assert (found.nodes, found.is_ready) == ({0: "b", 1: "b", 2: "b"}, True)
    assert found.reason == "packed on as few nodes as will do, on node b"


def test_pack_takes_more_nodes_where_it_must() -> None:
    assert place("PACK", [2, 2, 2], node("a", 4), node("b", 2)).nodes == {0: "a", 1: "a", 2: "b"}


def test_a_node_that_is_drained_gets_no_bundles() -> None:
    drained = NodeView("a", cpus(4), cpus(4), is_draining=True)
    assert place("PACK", [1, 1], drained, node("b", 2)).nodes == {0: "b", 1: "b"}
    assert place("PACK", [1, 1], drained, node("b", 1), placed={0: "a"}).nodes == {1: "b"}
    assert not place("PACK", [3], drained, node("b", 2)).is_feasible


def test_pack_prefers_the_nodes_that_hold_the_rest() -> None:
    assert place("PACK", [1, 1], node("a", 4), node("b", 4), placed={0: "b"}).nodes == {1: "b"}


def test_spread_takes_as_many_nodes_as_there_are() -> None:
    assert place("SPREAD", [1, 1, 1], node("a", 4), node("b", 2)).nodes == {0: "a", 1: "b", 2: "a"}


def test_spread_avoids_the_nodes_that_hold_the_rest() -> None:
    assert place("SPREAD", [1, 1], node("a", 9), node("b", 2), placed={0: "a"}).nodes == {1: "b"}


def test_strict_pack_takes_one_node_or_none() -> None:
    assert place("STRICT_PACK", [2, 2], node("a", 3), node("b", 4)).nodes == {0: "b", 1: "b"}
    refused = place("STRICT_PACK", [2, 2], node("a", 3), node("b", 3))
    assert (refused.nodes, refused.is_feasible) == ({}, False)
    assert "{CPU: 4} on one node (STRICT_PACK), which no node has in all" in refused.reason


def test_strict_pack_takes_the_node_it_is_pointed_to_if_that_has_room() -> None:
    assert place("STRICT_PACK", [1], node("a"), node("b"), target="b").nodes == {0: "b"}
    assert place("STRICT_PACK", [1], node("a"), node("b", 4, 0), target="b").nodes == {0: "a"}


def test_strict_spread_takes_a_node_for_each() -> None:
    # The large bundle fits on `a` only, which the small one would have taken had it been asked first.
    assert place("STRICT_SPREAD", [1, 3], node("a", 4), node("b", 1)).nodes == {0: "b", 1: "a"}


def test_strict_spread_on_too_few_nodes_is_infeasible_and_says_so() -> None:
    refused = place("STRICT_SPREAD", [1, 1], node("a", 4))
    assert (refused.nodes, refused.is_ready, refused.is_feasible) == ({}, False, False)
    assert refused.reason.startswith("its 2 bundles need as many nodes, one each (STRICT_SPREAD), but 1 node is alive")


def test_strict_spread_counts_the_nodes_that_can_hold_a_bundle() -> None:
    told = (
        "its 3 bundles need as many nodes, one each (STRICT_SPREAD), and each of 3 of them needs one that has {CPU: 2}"
    )
    refused = place("STRICT_SPREAD", [2, 2, 2], node("a", 1), node("b", 2), node("c", 2))
    assert refused.reason.startswith(f"{told}, as 2 of the 3 nodes alive do; add nodes")
    refused = place("STRICT_SPREAD", [2, 2, 2], node("a", 2), node("b", 2), node("c", 1), placed={0: "a"})
    assert "each of 2 of them needs one that has {CPU: 2} and holds none of the others, as 1 of the 3" in refused.reason
    zone = {"zone": "x"}
    refused = place("STRICT_SPREAD", [1, 1], node("a", labels=zone), node("b"), selectors=[zone, zone])
    assert "has {CPU: 1} and has labels like {'zone': 'x'}, as 1 of the 2 nodes alive does" in refused.reason
    refused = place("STRICT_SPREAD", [1, 2, 3], node("a", 3), node("b", 3), node("c", 0.5))
    assert "and the 2 of the 3 nodes alive that can hold any of them do not suffice; add nodes" in refused.reason


def test_strict_spread_keeps_off_the_nodes_of_the_rest() -> None:
    assert place("STRICT_SPREAD", [1, 1], node("a"), node("b"), placed={0: "a"}).nodes == {1: "b"}
    assert not place("STRICT_SPREAD", [1, 1], node("a"), placed={0: "a"}).is_feasible


def test_what_is_busy_is_waited_for() -> None:
    found = place("PACK", [3], node("a", 4, 1), node("b", 2))
    assert found == GroupPlacement({0: "a"}, "waits for room on node a")


def test_what_the_group_holds_already_is_no_room_to_wait_for() -> None:
    refused = place("PACK", [3, 3], node("a", 4, 1), placed={0: "a"})
    assert not refused.is_feasible


def test_the_dead_hold_nothing() -> None:
    assert place("PACK", [1], node("a", is_alive=False), node("b")).nodes == {0: "b"}
    assert place("PACK", [1]).reason == "no node is alive; add one"


def test_bundles_go_where_their_labels_are() -> None:
    here, there = node("a", labels={"zone": "x"}), node("b", labels={"zone": "y"})
    selectors = [{"zone": "y"}, {"zone": "!y"}]
    assert place("PACK", [1, 1], here, there, selectors=selectors).nodes == {0: "b", 1: "a"}
    refused = place("PACK", [1], here, selectors=[{"zone": "y"}])
    assert "bundle 0 needs a node with labels like {'zone': 'y'}" in refused.reason
    assert not refused.is_feasible


def test_a_bundle_larger_than_any_node_is_named() -> None:
    refused = place("PACK", [1, 9], node("a", 4))
    assert "bundle 1 needs {CPU: 9}" in refused.reason
    assert "no node has so much CPU" in refused.reason


def test_bundles_that_do_not_fit_together_are_infeasible() -> None:
    refused = place("SPREAD", [3, 3], node("a", 4))
    assert refused.reason.startswith("its bundles, {CPU: 6} together, do not all fit on the nodes, which have {CPU: 4}")


def test_what_nodes_have_besides_is_not_told() -> None:
    more = NodeView("a", ResourceSet.from_floats({"CPU": 4, "node:a": 1, "memory": 9}), cpus(4))
    refused = bundles.place(GroupDemand([cpus(3), cpus(3)], "PACK"), ClusterView([more]))
    assert "which have {CPU: 4} together" in refused.reason


def test_what_greed_misses_is_found() -> None:
    # Largest first into the fullest leaves 2+2+2 no room: 4+2 and 3+2+2 on two nodes of 6 and 7 is the only way.
    found = place("PACK", [4, 3, 2, 2, 2], node("a", 6), node("b", 7))
    loads = {name: sum([4, 3, 2, 2, 2][index] for index, at in found.nodes.items() if at == name) for name in "ab"}
    assert loads == {"a": 6, "b": 7}


def test_what_is_too_hard_to_arrange_is_not_called_infeasible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "SEARCH_STEPS_MAX", 3)
    hard = place("PACK", [4, 3, 2, 2, 2, 2], node("a", 6), node("b", 7))
    assert (hard.nodes, hard.is_feasible) == ({}, True)
    assert hard.reason == "has no place that 3 attempts to arrange its bundles have found"


@pytest.mark.parametrize("seed", range(200))
def test_every_strategy_finds_a_place_exactly_when_there_is_one(seed: int) -> None:
    """Against all assignments there are."""
    chance = random.Random(seed)
    nodes = [node(name, chance.randrange(1, 5)) for name in "abc"[: chance.randrange(1, 4)]]
    wanted = [chance.randrange(1, 4) for _ in range(chance.randrange(1, 5))]
    for strategy in bundles.STRATEGIES:
        found = place(strategy, wanted, *nodes)
        possible = [
            homes
            for homes in itertools.product(nodes, repeat=len(wanted))
            if all(
                sum(w for w, at in zip(wanted, homes, strict=True) if at is one) * CPU <= one.total["CPU"]
                for one in nodes
            )
            and (strategy != "STRICT_PACK" or len({at.node_id for at in homes}) == 1)
            and (strategy != "STRICT_SPREAD" or len({at.node_id for at in homes}) == len(wanted))
        ]
        assert found.is_feasible == bool(possible)
        if possible:
            homes = [found.nodes[index] for index in range(len(wanted))]
            assert homes in [[at.node_id for at in one] for one in possible]
        else:
            assert found.nodes == {}
            assert found.reason


@pytest.mark.parametrize("seed", range(150))
def test_a_few_nodes_are_chosen_from_as_if_all_had_been(seed: int) -> None:
    """Of many nodes few are looked at: whether there is a place does not depend on that, and what it is in PACK alone, where
    there are several as good. A view that is kept says the same as a snapshot."""
    chance = random.Random(seed)
    view = KeptView()
    for number in range(14):
        total, gpus = chance.randrange(1, 5), chance.choice((0, 0, 1, 2))
        amounts = {"CPU": total, "GPU": gpus}, {"CPU": chance.randint(0, total), "GPU": chance.randint(0, gpus)}
        facts = {"labels": {"zone": chance.choice("ab")}, "is_draining": chance.random() < 0.2}
        view.put(NodeView(f"{number:02d}", *(ResourceSet.from_floats(one) for one in amounts), **facts))  # type: ignore[arg-type]  # as they are called
    for _ in range(6):
        kinds = [
            ResourceSet.from_floats({"CPU": chance.randrange(1, 4), "GPU": chance.choice((0, 0, 1))}) for _ in "12"
        ]
        wanted = [chance.choice(kinds) for _ in range(chance.randrange(1, 5))]
        selectors = [chance.choice(({}, {}, {"zone": "a"})) for _ in wanted] if chance.random() < 0.5 else []
        strategy = chance.choice(bundles.STRATEGIES)
        homes = (
            chance.sample(view.nodes, len(wanted))
            if strategy != "STRICT_PACK"
            else [chance.choice(view.nodes)] * len(wanted)
        )
        placed = {index: homes[index].node_id for index in range(len(wanted) - 1) if chance.random() < 0.3}
        demand = GroupDemand(wanted, strategy, placed, selectors, chance.choice(("", "05")))
        found = bundles.place(demand, view)
        assert found == bundles.place(demand, ClusterView(view.nodes))
        by_id = sorted(view.nodes, key=lambda one: one.node_id)
        now = bundles._assigned_among(by_id, demand, lambda one: dict(one.available))
        later = bundles._assigned_among(by_id, demand, lambda one, demand=demand: bundles._emptied(demand, one))
        assert (found.is_ready, found.is_feasible) == (now is not None, now is not None or later is not None)
        if strategy != "PACK":
            assert dict(found.nodes) == (now or later or {})
        elif found.is_ready:
            assert now is not None
            assert len({*found.nodes.values()}) <= len({*now.values()})
