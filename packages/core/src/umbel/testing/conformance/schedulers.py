"""What a scheduling policy must do. Which of the nodes it may choose it chooses, is its own affair."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from umbel import spi
from umbel._scheduling import policies
from umbel.testing.conformance import suite

SEEDS = range(50)  # of random clusters and queues: enough to meet every mixture of full, dead and labelled nodes


def amounts(**given: float) -> spi.ResourceSet:
    return spi.ResourceSet.from_floats(given)


def node(
    node_id: str,
    total: spi.ResourceSet,
    available: spi.ResourceSet | None = None,
    *,
    labels: dict[str, str] | None = None,
    is_alive: bool = True,
    is_local: bool = False,
) -> spi.NodeView:
    """available: None for all of it."""
    free = total if available is None else available
    return spi.NodeView(node_id, total, free, labels=labels or {}, is_alive=is_alive, is_local=is_local)


def view_of(*nodes: spi.NodeView) -> spi.ClusterView:
    return spi.ClusterView(nodes)


IDLE = node("a" * 56, amounts(CPU=4, GPU=1), is_local=True)
FULL = node("b" * 56, amounts(CPU=4), amounts())
OTHER = node("c" * 56, amounts(CPU=2), labels={"zone": "west"})
DEAD = node("d" * 56, amounts(CPU=64), is_alive=False)
ONE_CPU = spi.Demand(amounts(CPU=1))


def random_view(chance: random.Random) -> spi.ClusterView:
    nodes = []
    for index in range(chance.randrange(0, 8)):
        cpus, gpus = chance.randrange(0, 9), chance.choice([0, 0, 1, 4])
        free = amounts(CPU=chance.randint(0, cpus), GPU=chance.randrange(0, gpus + 1))
        labels = {"zone": chance.choice(["west", "east"])} if chance.random() < 0.5 else {}
        nodes.append(
            node(
                f"{index:056x}",
                amounts(CPU=cpus, GPU=gpus),
                free,
                labels=labels,
                is_alive=chance.random() < 0.8,
                is_local=index == 0,
            )
        )
    return view_of(*nodes)


def random_demand(chance: random.Random) -> spi.Demand:
    affinity = spi.NodeAffinity(f"{chance.randrange(0, 8):056x}", is_soft=chance.random() < 0.5)
    strategies: list[spi.Strategy] = ["DEFAULT", "DEFAULT", "SPREAD", affinity]
    return spi.Demand(
        amounts(CPU=chance.choice([0, 0.5, 1, 2, 16]), GPU=chance.choice([0, 0, 0.25, 1])),
        strategy=chance.choice(strategies),
        label_selector=chance.choice([{}, {}, {"zone": "west"}, {"zone": "!in(west,north)"}]),
        depth=chance.randrange(0, 4),
        **(random_actor(chance) if chance.random() < 0.3 else {}),
    )


def random_actor(chance: random.Random) -> dict[str, Any]:
    """What the head says of an actor beside that: what its node must have in all, the labels of one of its selectors, and the
    node of its creator, which may be gone."""
    return {
        "is_actor": True,
        "in_all": amounts(CPU=chance.choice([1, 1, 4])),
        "conditions": chance.choice([(), (("zone", "west"),), (("zone", "!west"), ("zone", "!north"))]),
        "near": f"{chance.randrange(0, 9):056x}",
    }


def random_queue(chance: random.Random) -> list[spi.WaitingDemand]:
    turns = chance.sample(range(1000), chance.randrange(0, 30))
    return [
        spi.WaitingDemand(
            random_demand(chance),
            turn,
            client=f"{chance.randrange(0, 4):032x}",
            lease_count=chance.randrange(1, 5),
            is_actor=chance.random() < 0.2,
        )
        for turn in turns
    ]


class SchedulerConformance(suite.Suite[spi.SchedulingPolicy]):
    """Subclass it and set `descriptor`."""

    kind = "scheduler"
    descriptor_type = spi.SchedulerDescriptor
    protocol = spi.SchedulingPolicy

    # place: whether

    def test_places_on_an_idle_node(self) -> None:
        assert self.make().place(ONE_CPU, view_of(IDLE)).node_id == IDLE.node_id

    def test_places_what_needs_nothing(self) -> None:
        assert self.make().place(spi.Demand(amounts()), view_of(IDLE)).node_id == IDLE.node_id

    def test_waits_for_a_full_node(self) -> None:
        placement = self.make().place(ONE_CPU, view_of(FULL))
        assert (placement.node_id, placement.is_feasible) == (None, True)
        assert placement.reason

    def test_says_when_no_node_is_large_enough(self) -> None:
        placement = self.make().place(spi.Demand(amounts(CPU=100)), view_of(IDLE, FULL, OTHER))
        assert (placement.node_id, placement.is_feasible) == (None, False)
        assert placement.reason

    def test_says_when_there_is_no_node(self) -> None:
        placement = self.make().place(ONE_CPU, view_of())
        assert placement.node_id is None
        assert placement.reason

    def test_needs_every_resource_on_one_node(self) -> None:
        cpus_only, gpus_only = node("1" * 56, amounts(CPU=4)), node("2" * 56, amounts(GPU=4))
        assert self.make().place(spi.Demand(amounts(CPU=1, GPU=1)), view_of(cpus_only, gpus_only)).node_id is None

    # place: where

    def test_leaves_dead_nodes_alone(self) -> None:
        assert self.make().place(ONE_CPU, view_of(DEAD, OTHER)).node_id == OTHER.node_id
        assert self.make().place(ONE_CPU, view_of(DEAD)).node_id is None

    def test_prefers_a_node_with_room_to_a_full_one(self) -> None:
        assert self.make().place(ONE_CPU, view_of(FULL, OTHER)).node_id == OTHER.node_id

    def test_obeys_labels(self) -> None:
        demand = spi.Demand(amounts(CPU=1), label_selector={"zone": "in(west, north)"})
        assert self.make().place(demand, view_of(IDLE, OTHER)).node_id == OTHER.node_id
        demand = spi.Demand(amounts(CPU=1), label_selector={"zone": "!west"})
        assert self.make().place(demand, view_of(IDLE, OTHER)).node_id == IDLE.node_id

    @pytest.mark.parametrize("is_soft", [False, True])
    def test_obeys_affinity(self, is_soft: bool) -> None:
        demand = spi.Demand(amounts(CPU=1), strategy=spi.NodeAffinity(OTHER.node_id, is_soft=is_soft))
        assert self.make().place(demand, view_of(IDLE, OTHER)).node_id == OTHER.node_id

    @pytest.mark.parametrize("is_soft", [False, True])
    def test_waits_for_a_busy_node_of_affinity(self, is_soft: bool) -> None:
        demand = spi.Demand(amounts(CPU=1), strategy=spi.NodeAffinity(FULL.node_id, is_soft=is_soft))
        placement = self.make().place(demand, view_of(IDLE, FULL))
        assert (placement.node_id, placement.is_feasible) == (None, True)

    def test_hard_affinity_to_a_dead_node_is_infeasible(self) -> None:
        demand = spi.Demand(amounts(CPU=1), strategy=spi.NodeAffinity(DEAD.node_id, is_soft=False))
        placement = self.make().place(demand, view_of(IDLE, DEAD))
        assert (placement.node_id, placement.is_feasible) == (None, False)

    def test_soft_affinity_to_a_dead_node_goes_elsewhere(self) -> None:
        demand = spi.Demand(amounts(CPU=1), strategy=spi.NodeAffinity(DEAD.node_id, is_soft=True))
        assert self.make().place(demand, view_of(IDLE, DEAD)).node_id == IDLE.node_id

    # place: actors

    def test_places_an_actor_that_holds_nothing_while_it_runs(self) -> None:
        actor = spi.Demand(amounts(), in_all=amounts(CPU=1), near=FULL.node_id, is_actor=True)
        assert self.make().place(actor, view_of(FULL)).node_id == FULL.node_id

    def test_places_an_actor_only_where_there_is_in_all_what_it_asks_for(self) -> None:
        actor = spi.Demand(amounts(), in_all=amounts(CPU=3), near=OTHER.node_id, is_actor=True)
        assert self.make().place(actor, view_of(OTHER, IDLE)).node_id == IDLE.node_id
        assert self.make().place(actor, view_of(OTHER)).node_id is None

    def test_places_an_actor_only_where_the_labels_are(self) -> None:
        actor = spi.Demand(amounts(), conditions=(("zone", "west"),), near=IDLE.node_id, is_actor=True)
        assert self.make().place(actor, view_of(IDLE, OTHER)).node_id == OTHER.node_id

    def test_places_an_actor_whose_creators_node_is_gone(self) -> None:
        actor = spi.Demand(amounts(CPU=1), in_all=amounts(CPU=1), near=DEAD.node_id, is_actor=True)
        assert self.make().place(actor, view_of(DEAD, OTHER)).node_id == OTHER.node_id

    @pytest.mark.parametrize("seed", SEEDS)
    def test_every_placement_keeps_the_contract(self, seed: int) -> None:
        chance = random.Random(seed)
        policy, view = self.make(), random_view(chance)
        for demand in [random_demand(chance) for _ in range(20)]:
            assert policies.placement_fault(demand, view, policy.place(demand, view)) == ""

    # order

    def test_orders_an_empty_queue(self) -> None:
        assert list(self.make().order([])) == []

    @pytest.mark.parametrize("seed", SEEDS)
    def test_every_order_has_each_index_once(self, seed: int) -> None:
        waiting = random_queue(random.Random(seed))
        assert policies.order_fault(len(waiting), list(self.make().order(waiting))) == ""

    # both

    def test_same_question_has_the_same_answer(self) -> None:
        """Whatever was asked before: nothing may be remembered, counted or drawn by chance."""
        chance = random.Random(7)
        view, demands, waiting = random_view(chance), [random_demand(chance) for _ in range(20)], random_queue(chance)
        used, fresh = self.make(), self.make()
        for demand in demands:
            used.place(demand, view)
            used.order(waiting)
        assert [used.place(demand, view) for demand in demands] == [fresh.place(demand, view) for demand in demands]
        assert list(used.order(waiting)) == list(fresh.order(waiting))
        alike = view_of(*(node(f"{index:056x}", amounts(CPU=4)) for index in range(5)))
        assert len({used.place(ONE_CPU, alike).node_id for _ in range(7)}) == 1

    def test_changes_nothing_that_it_is_given(self) -> None:
        chance = random.Random(8)
        view, demand, waiting = random_view(chance), random_demand(chance), random_queue(chance)
        before = copy.deepcopy((view, demand, waiting))
        policy = self.make()
        policy.place(demand, view)
        policy.order(waiting)
        assert (view, demand, waiting) == before
