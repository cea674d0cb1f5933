"""Which nodes may hold a demand, where the built-in policies put it, and what becomes of a policy that misbehaves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from umbel import exceptions, spi
from umbel._scheduling import policies


def amounts(**given: float) -> spi.ResourceSet:
    return spi.ResourceSet.from_floats(given)


def node(node_id: str, cpus: float, free: float, *, is_local: bool = False, **labels: str) -> spi.NodeView:
    return spi.NodeView(node_id, amounts(CPU=cpus), amounts(CPU=free), labels=labels, is_local=is_local)


def view_of(*nodes: spi.NodeView) -> spi.ClusterView:
    return spi.ClusterView(nodes)


def waiting(depth: int, turn: int) -> spi.WaitingDemand:
    return spi.WaitingDemand(spi.Demand(amounts(CPU=1), depth=depth), turn)


ONE = spi.Demand(amounts(CPU=1))


# Labels and eligibility


@pytest.mark.parametrize(
    ("condition", "value", "matches"),
    [
        ("west", "west", True),
        ("west", "east", False),
        ("west", None, False),
        ("!west", "west", False),
        ("!west", "east", True),
        ("!west", None, True),
        ("in(west,east)", "east", True),
        ("in( west , east )", "west", True),
        ("in(west,east)", None, False),
        ("!in(west,east)", "north", True),
        ("! in(west,east)", "east", False),
        ("!in(west,east)", None, True),
    ],
)
def test_label_conditions(condition: str, value: str | None, matches: bool) -> None:
    assert spi.label_matches(condition, value) is matches


@pytest.mark.parametrize("condition", ["", "!", "in()", "in(a,)", "!!a", "in(a", "a)b"])
def test_label_condition_that_cannot_be_read_is_refused(condition: str) -> None:
    with pytest.raises(exceptions.InvalidOption, match="must be 'v', '!v'"):
        spi.label_matches(condition, "a")


def test_eligible_nodes_are_sorted_into_ready_and_busy() -> None:
    small, full, roomy = node("small", 1, 1), node("full", 8, 1), node("roomy", 8, 4)
    eligible = spi.eligible_nodes(spi.Demand(amounts(CPU=2)), view_of(small, full, roomy))
    assert (eligible.ready, eligible.busy) == ((roomy,), (full,))


@pytest.mark.parametrize(
    ("demand", "reason", "is_feasible"),
    [
        (spi.Demand(amounts(CPU=2)), "{CPU: 2} is not free now on full {CPU: 4}; it waits", True),
        (spi.Demand(amounts(CPU=5)), "no node has {CPU: 5} in total (full {CPU: 4}); ask for less", False),
        (
            spi.Demand(amounts(CPU=1), label_selector={"zone": "west"}),
            "no node with the labels zone=west",
            False,
        ),
        (
            spi.Demand(amounts(CPU=1), spi.NodeAffinity("gone", is_soft=False)),
            "node gone is dead, unknown, or never has {CPU: 1}; correct the node id or make the affinity soft",
            False,
        ),
        (
            spi.Demand(amounts(CPU=1), spi.NodeAffinity("full", is_soft=False, fails_when_busy=True)),
            "but its affinity says not to wait",
            False,
        ),
    ],
)
def test_refusal_says_what_is_missing(demand: spi.Demand, reason: str, is_feasible: bool) -> None:
    refusal = spi.eligible_nodes(demand, view_of(node("full", 4, 0))).refusal
    assert refusal.node_id is None
    assert reason in refusal.reason
    assert refusal.is_feasible is is_feasible


def test_soft_affinity_may_spill_from_a_busy_node() -> None:
    busy, idle = node("busy", 4, 0), node("idle", 4, 4)
    affinity = spi.NodeAffinity("busy", is_soft=True, spills_when_busy=True)
    demand = spi.Demand(amounts(CPU=1), affinity)
    assert spi.eligible_nodes(demand, view_of(busy, idle)).ready == (idle,)
    assert spi.eligible_nodes(demand, view_of(busy)).busy == (busy,)


# Built-in policies


def test_hybrid_packs_the_local_node_first() -> None:
    view = view_of(node("a", 8, 8), node("b", 8, 5, is_local=True), node("c", 8, 8))
    assert policies.HybridPolicy().place(ONE, view) == spi.Placement("b", "the local node that is less than 50% used")


def test_hybrid_packs_another_node_when_the_local_one_is_half_full() -> None:
    view = view_of(node("b", 8, 4, is_local=True), node("c", 8, 6), node("d", 8, 8))
    assert policies.HybridPolicy().place(ONE, view).node_id == "c"


def test_hybrid_takes_the_emptiest_node_when_all_are_half_full() -> None:
    view = view_of(node("a", 8, 1, is_local=True), node("b", 8, 3), node("c", 8, 2))
    placement = policies.HybridPolicy().place(ONE, view)
    assert placement == spi.Placement("b", "the least used (62%) of the nodes with room")


def test_hybrid_prefers_the_node_with_the_arguments_while_it_has_room() -> None:
    near = spi.Demand(amounts(CPU=1), near="c")
    nodes = [node("a", 4, 4, is_local=True), node("b", 4, 4)]
    policy = policies.HybridPolicy()
    found = policy.place(near, view_of(*nodes, node("c", 4, 1)))
    assert (found.node_id, found.reason) == ("c", "the node that has most bytes of its large arguments")
    assert policy.place(near, view_of(*nodes, node("c", 4, 0))).node_id == "a"
    assert policy.place(near, view_of(*nodes)).node_id == "a"


def test_hybrid_spreads_what_asks_for_it() -> None:
    view = view_of(node("a", 8, 7, is_local=True), node("b", 8, 8))
    assert policies.HybridPolicy().place(spi.Demand(amounts(CPU=1), "SPREAD"), view).node_id == "b"


def test_spread_takes_the_emptiest_node() -> None:
    view = view_of(node("a", 8, 7, is_local=True), node("b", 2, 2), node("c", 8, 0))
    assert policies.SpreadPolicy().place(ONE, view).node_id == "b"


def test_use_is_that_of_the_scarcest_resource_asked_for() -> None:
    scarce = spi.NodeView("scarce", amounts(CPU=8, GPU=4), amounts(CPU=8, GPU=1))
    other = spi.NodeView("other", amounts(CPU=8, GPU=4), amounts(CPU=1, GPU=4))
    policy, view = policies.SpreadPolicy(), view_of(scarce, other)
    assert policy.place(spi.Demand(amounts(GPU=1)), view).node_id == "other"
    assert policy.place(ONE, view).node_id == "scarce"


@pytest.mark.parametrize("policy", [policies.HybridPolicy(), policies.SpreadPolicy()])
def test_deepest_comes_first_and_then_the_longest_waiting(policy: spi.SchedulingPolicy) -> None:
    queue = [waiting(0, 5), waiting(2, 9), waiting(0, 3), waiting(1, 1), waiting(2, 7)]
    assert list(policy.order(queue)) == [4, 1, 3, 2, 0]


# A policy that misbehaves


class Misbehaving:
    """Answers with what it was given, or raises it."""

    def __init__(self, placement: object = None, order: object = None) -> None:
        self.placement = placement
        self.ordered = order

    def place(self, demand: spi.Demand, view: spi.ClusterView) -> spi.Placement:
        if isinstance(self.placement, Exception):
            raise self.placement
        return self.placement  # type: ignore[return-value]  # wrong on purpose

    def order(self, waiting: Sequence[spi.WaitingDemand]) -> Sequence[int]:
        if isinstance(self.ordered, Exception):
            raise self.ordered
        return self.ordered  # type: ignore[return-value]  # wrong on purpose


def guarded(policy: spi.SchedulingPolicy, reports: list[str]) -> policies.GuardedPolicy:
    return policies.GuardedPolicy("mine", policy, fallback=policies.HybridPolicy(), report=reports.append)


VIEW = view_of(node("full", 4, 0), node("idle", 4, 4))


@pytest.mark.parametrize(
    ("placement", "fault"),
    [
        (ValueError("no"), "place() raised ValueError: no"),
        (None, "place() returned None instead of a Placement"),
        ("idle", "place() returned 'idle' instead of a Placement"),
        (spi.Placement("idle", ""), "place() gave no reason"),
        (spi.Placement("full", "why not"), "place() chose node 'full'; only ['idle'] may hold"),
        (spi.Placement("other", "why not"), "place() chose node 'other'"),
    ],
)
def test_wrong_placement_switches_a_policy_off(placement: object, fault: str) -> None:
    reports: list[str] = []
    policy = guarded(Misbehaving(placement=placement), reports)
    assert [policy.place(ONE, VIEW).node_id for _ in range(3)] == ["idle"] * 3
    (report,) = reports
    assert report.startswith("scheduler 'mine' is switched off: ")
    assert fault in report


@pytest.mark.parametrize(
    "order", [ValueError("no"), None, [], [0], [0, 0], [1, 2], [0, 1, 2], [[0], [1]], ["0", "1"], 7]
)
def test_wrong_order_switches_a_policy_off(order: object) -> None:
    reports: list[str] = []
    policy = guarded(Misbehaving(order=order), reports)
    assert [policy.order([waiting(0, 1), waiting(1, 2)]) for _ in range(3)] == [[1, 0]] * 3
    assert len(reports) == 1


def test_policy_that_behaves_is_left_alone() -> None:
    reports: list[str] = []
    policy = guarded(Misbehaving(placement=spi.Placement("idle", "I like it"), order=(1, 0)), reports)
    assert policy.place(ONE, VIEW) == spi.Placement("idle", "I like it")
    assert policy.order([waiting(1, 1), waiting(0, 2)]) == [1, 0]
    assert reports == []


def test_bad_question_is_the_askers_error() -> None:
    """It raises from the fallback as well, and says what is wrong with the question."""
    demand = spi.Demand(amounts(CPU=1), label_selector={"zone": "in("})
    with pytest.raises(exceptions.InvalidOption):
        guarded(policies.SpreadPolicy(), []).place(demand, VIEW)
