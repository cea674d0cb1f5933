"""Orders of nodes that are kept while nodes change: the same as of a snapshot, without a look at each node."""

from __future__ import annotations

import random
from typing import Any

import pytest

from umbel._model import placement, resources
from umbel._scheduling import kept_view, policies

UNIT = resources.RESOURCE_UNIT
NAMES = [f"{number:02d}" for number in range(12)]


def amounts(**given: float) -> resources.ResourceSet:
    return resources.ResourceSet.from_floats(given)


def node(node_id: str, cpus: float = 4, free: float = 4, **more: Any) -> placement.NodeView:
    return placement.NodeView(node_id, amounts(CPU=cpus), amounts(CPU=free), **more)


def any_node(chance: random.Random, node_id: str) -> placement.NodeView:
    gpus = chance.choice((0, 0, 2))
    return placement.NodeView(
        node_id,
        amounts(CPU=chance.choice((0, 2, 4)), GPU=gpus),
        amounts(CPU=chance.choice((0, 0, 1, 2, 4)), GPU=chance.randint(0, gpus)),
        {"zone": chance.choice("ab")},
        is_alive=chance.random() > 0.1,
        is_local=node_id == NAMES[3],
        is_draining=chance.random() < 0.2,
    )


def any_demand(chance: random.Random) -> placement.Demand:
    affinity = placement.NodeAffinity(
        chance.choice([*NAMES, "gone"]),
        is_soft=chance.random() < 0.5,
        spills_when_busy=chance.random() < 0.5,
        fails_when_busy=chance.random() < 0.5,
    )
    return placement.Demand(
        amounts(CPU=chance.choice((0, 1, 2, 9)), GPU=chance.choice((0, 0, 1))),
        chance.choice(("DEFAULT", "DEFAULT", "SPREAD", affinity)),
        chance.choice(({}, {}, {"zone": "a"}, {"zone": "c"})),
        is_in_bundle=chance.random() < 0.2,
        in_all=chance.choice((resources.EMPTY, amounts(CPU=3))),
    )


def expected(demand: placement.Demand, nodes: tuple[placement.NodeView, ...], order: placement.Order) -> Any:
    """By a look at each."""
    eligible = placement.eligible_nodes(demand, placement.ClusterView(nodes))
    return min(eligible.ready, key=lambda one: order(demand, one), default=eligible.refusal.is_feasible)


@pytest.mark.parametrize("seed", range(20))
def test_the_first_node_is_that_of_all_eligible_ones_however_the_nodes_change(seed: int) -> None:
    """Also where they are few at times."""
    chance = random.Random(seed)
    view = kept_view.KeptView(any_node(chance, name) for name in NAMES)
    for step in range(100):
        if chance.random() < (0.1 if step < 50 else 0.7):
            view.remove(chance.choice(NAMES))
        else:
            view.put(any_node(chance, chance.choice(NAMES)))
        demand, order = any_demand(chance), chance.choice((policies.packed, policies.spread))
        left_out = chance.choice([*NAMES, "gone"])
        for given in (view, placement.ClusterView(view.nodes), view.without(left_out)):
            found = placement.first_ready(demand, given, order)
            answer = found if isinstance(found, placement.NodeView) else found.is_feasible
            assert answer == expected(demand, given.nodes, order)
            if isinstance(found, placement.Placement):
                in_order = sorted(given.nodes, key=lambda one: (not one.is_local, one.node_id))
                assert found == placement.first_ready(demand, placement.ClusterView(tuple(in_order)), order)
        view.check()


def test_a_change_costs_a_look_at_the_node_that_has_changed() -> None:
    looks: list[str] = []

    def rank(one: placement.NodeView) -> Any:
        looks.append(one.node_id)
        return one.available.get("CPU", 0), one.node_id

    view = kept_view.KeptView(map(node, NAMES))
    assert view.ranked("k", rank)[0].node_id == NAMES[0]
    assert len(looks) == len(NAMES)
    looks.clear()
    view.put(node(NAMES[5], free=1))
    view.put(node(NAMES[6]))  # as it was
    assert [one.node_id for one in view.ranked("k", rank)[:2]] == [NAMES[5], NAMES[0]]
    assert view.ranked("k", rank)[0].node_id == NAMES[5]
    assert looks == [NAMES[5]]


def test_a_node_without_a_rank_is_left_out_and_one_that_is_hidden_too() -> None:
    view = kept_view.KeptView(map(node, NAMES))

    def rank(one: placement.NodeView) -> Any:
        return one.node_id if one.available else None

    view.put(node(NAMES[1], free=0))
    assert [one.node_id for one in view.ranked("k", rank)] == [NAMES[0], *NAMES[2:]]
    without = view.without(NAMES[2])
    assert [one.node_id for one in without.ranked("k", rank)] == [NAMES[0], *NAMES[3:]]
    assert [one.node_id for one in without.ranked("k", rank)[:2]] == [NAMES[0], NAMES[3]]
    assert without.find(NAMES[2]) is None
    assert NAMES[2] not in {one.node_id for one in without.nodes}
    assert len(view.without(NAMES[1]).ranked("k", rank)) == len(NAMES) - 1


def test_orders_of_which_nobody_asks_any_more_are_forgotten() -> None:
    view = kept_view.KeptView(map(node, NAMES))
    for key in range(2 * kept_view.RANKINGS_MAX):
        view.ranked(key, lambda one: one.node_id)
    assert len(view._rankings) == kept_view.RANKINGS_MAX
