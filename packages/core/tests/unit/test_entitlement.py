"""What a job is entitled to, asked of nodes that have no room: how much, of whom, and what comes of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from agent_runs import run

from umbel._agent import cluster_use, entitlement, shares
from umbel._agent import events as ev
from umbel._agent.ledger import UNIT, Ledger
from umbel._agent.state import AgentState
from umbel._control import job_use
from umbel._model.placement import Demand, NodeAffinity, NodeView
from umbel._model.resources import ResourceSet
from umbel._scheduling import forwarding as fw
from umbel._scheduling import full_nodes, policies
from umbel.testing.simulation import entitled as world
from umbel.testing.simulation.chance import Chance

A, B, HEAVY, HIGH = ev.Job("A"), ev.Job("B"), ev.Job("B", weight=3.0), ev.Job("B", priority=1)
ONE_CPU = {"CPU": UNIT}


def cpus(count: float) -> dict[str, int]:
    return {"CPU": int(count * UNIT)}


# ---- simulated clusters ----


class Fixed(world.EntitledWorld):
    """Nodes and jobs as given, of which nothing happens but what tests do."""

    def __init__(self, nodes: Sequence[int], *jobs: ev.Job) -> None:
        """nodes: their CPUs."""
        super().__init__(Chance(1))
        self.given_nodes, self.given_jobs = nodes, [*jobs]
        self.is_settling = True
        self.set_up()
        self.is_settling = True

    def layout(self) -> tuple[list[Any], list[ev.Job], list[float]]:
        nodes = [world.Node(self, number, count) for number, count in enumerate(self.given_nodes)]
        self.link_all(nodes)
        return nodes, self.given_jobs, [0.3] * len(self.given_jobs)

    def begin_jobs(self) -> None:
        pass

    def comes(self, job: ev.Job, node: int, most: int | None = None) -> None:
        """It has a driver on that node, which wants so many leases; None for as many as there are."""
        self.begin_owner(world.Owner(job, self.nodes[node], most))

    def uses(self, job: ev.Job) -> int:
        return sum(node.used(job) for node in self.nodes if not node.is_dead)


@pytest.mark.parametrize(("job", "share"), [(B, 8), (HEAVY, 12), (HIGH, 16)])
def test_a_job_that_comes_second_gets_what_it_is_entitled_to_of_full_nodes(job: ev.Job, share: int) -> None:
    """A has eight nodes of two CPUs. Its own node alone would give B two."""
    eight = Fixed([2] * 8, A, job)
    eight.comes(A, 0)
    eight.pass_time(5.0)
    assert eight.uses(A) == 16
    eight.comes(job, 3)
    eight.pass_time(40.0)
    assert eight.uses(job) in (share, share - 1)
    assert eight.uses(A) == 16 - eight.uses(job)


def test_a_job_gets_no_more_than_it_wants() -> None:
    eight = Fixed([2] * 8, A, B)
    eight.comes(A, 0)
    eight.pass_time(5.0)
    eight.comes(B, 3, most=5)
    eight.pass_time(15.0)
    assert (eight.uses(A), eight.uses(B)) == (11, 5)


def test_nodes_without_another_job_are_asked_as_well() -> None:
    """B has its own node to itself, and A all others: no node has both. B wants more."""
    eight = Fixed([1] * 8, A, B)
    eight.comes(B, 7, most=1)
    eight.pass_time(5.0)
    eight.comes(A, 0)
    eight.pass_time(10.0)
    assert (eight.uses(A), eight.nodes[7].used(B)) == (7, 1)
    eight.owners["B@n7"].most = None
    eight.nodes[7].want(eight.owners["B@n7"])
    eight.pass_time(40.0)
    assert eight.uses(B) in (3, 4)


def test_processes_of_a_job_on_many_nodes_ask_for_one_share_together() -> None:
    """B has a process on each of four nodes, and all want all."""
    nine = Fixed([2] * 9, A, B)
    nine.comes(A, 0)
    nine.pass_time(5.0)
    for node in range(1, 5):
        nine.comes(B, node)
    most = 0
    for _ in range(300):
        nine.pass_time(0.1)
        most = max(most, nine.uses(B))
    assert nine.uses(B) in (8, 9, 10)
    assert most <= 12


def test_hundred_nodes_are_shared_within_some_seconds() -> None:
    many = Fixed([4] * 100, A, B)
    many.comes(A, 0)
    many.pass_time(5.0)
    assert many.uses(A) == 400
    many.comes(B, 50)
    many.pass_time(20.0)
    assert many.uses(B) == pytest.approx(200, abs=10)
    assert many.uses(A) + many.uses(B) == 400


# ---- how much ----


def more(job: ev.Job, most: int, used: Mapping[ev.Job, float], *, needs: float = 1, total: float = 16) -> int:
    holders = {one.id: one for one in used}
    return entitlement.more(
        job, cpus(needs), most, holders, {one.id: cpus(has) for one, has in used.items()}, cpus(total), {}
    )


@pytest.mark.parametrize(
    ("job", "used", "expected"),
    [
        (B, {A: 16}, 8),
        (B, {A: 14, B: 2}, 6),
        (B, {A: 8, B: 8}, 0),
        (B, {A: 9, B: 7}, 1),
        (B, {A: 2, B: 14}, 0),
        (B, {A: 15}, 8),
        (HEAVY, {A: 16}, 12),
        (HIGH, {A: 14, HIGH: 2}, 14),
        (A, {A: 2, HIGH: 14}, 0),
        (B, {A: 8, ev.Job("C"): 8}, 5),
        (B, {A: 4, ev.Job("C", priority=1): 12}, 2),
    ],
)
def test_others_give_what_they_have_beyond_their_share(job: ev.Job, used: dict[ev.Job, float], expected: int) -> None:
    assert more(job, 100, {job: 0, **used}) == expected


def test_no_more_than_is_wanted_and_whole_leases() -> None:
    assert more(B, 3, {A: 16, B: 0}) == 3
    assert more(B, 100, {A: 16, B: 0}, needs=3) == 2
    assert more(B, 100, {A: 16, B: 0}, needs=0.5) == 16


def test_a_share_is_of_what_a_job_has_most_of() -> None:
    """B has as large a part of the GPUs as A of the CPUs."""
    used = {"A": cpus(16), "B": {"GPU": 4 * UNIT}}
    assert entitlement.more(B, ONE_CPU, 9, {"A": A, "B": B}, used, {"CPU": 16 * UNIT, "GPU": 4 * UNIT}, {}) == 0


def test_what_is_free_need_not_be_given_up_but_something_must() -> None:
    """B needs a CPU and a GPU. A has all CPUs, and the GPUs are free; or it has its share, and no node has both free."""
    total, needs = {"CPU": 8 * UNIT, "GPU": 8 * UNIT}, {"CPU": UNIT, "GPU": UNIT}
    holders = {"A": A, "B": B}
    assert entitlement.more(B, needs, 9, holders, {"A": cpus(8)}, total, {}) == 4
    assert entitlement.more(B, needs, 9, holders, {"A": cpus(2), "B": dict.fromkeys(needs, 2 * UNIT)}, total, {}) == 0


def use(used: Mapping[str, float], counted: Mapping[str, float], asking: Mapping[str, int]) -> cluster_use.ClusterUse:
    return cluster_use.ClusterUse(
        {job: cpus(count) for job, count in used.items()}, {"A": A, "B": B}, total=cpus(16), shared={},
        counted={job: cpus(count) for job, count in counted.items()}, draw=0.0, asking=asking,
    )  # fmt: skip


def short(waiting: int, under_way: int = 0, client: str = "b") -> tuple[ev.Job, fw.Short]:
    return B, fw.Short(client, "f", ResourceSet(ONE_CPU), waiting, under_way)


def may_ask(*waits: tuple[ev.Job, fw.Short], asking: int = 0, own: float = 2, at_s: float = 1.0) -> dict[Any, int]:
    """Of a node on which B had two CPUs when that was told, of its four."""
    told = use({"A": 12, "B": 4}, {"B": 2}, {"B": asking})
    return entitlement.may_ask(waits, told, {"B": [0, 1.0, cpus(own), 1]}, at_s)


def test_what_this_node_has_by_now_and_has_asked_for_counts() -> None:
    assert may_ask(short(100)) == {("b", "f"): 4}
    assert may_ask(short(100), own=3) == {("b", "f"): 3}
    assert may_ask(short(100, under_way=3)) == {("b", "f"): 1}
    assert may_ask(short(3), short(9, client="c")) == {("b", "f"): 3, ("c", "f"): 1}


def test_each_of_several_nodes_asks_for_its_part_and_of_less_than_a_lease_by_chance() -> None:
    assert may_ask(short(100), asking=1) == {("b", "f"): 2}
    assert may_ask(short(1), asking=1) == {("b", "f"): 1}
    found = [may_ask(short(100), asking=15, at_s=float(second)).get(("b", "f"), 0) for second in range(400)]
    assert {*found} == {0, 1}
    assert sum(found) == pytest.approx(100, abs=30)


# ---- of whom ----


def view(name: str, total: int, free: int = 0, **more: Any) -> NodeView:
    return NodeView(name, ResourceSet(cpus(total)), ResourceSet(cpus(free)) if free else ResourceSet({}), **more)


def made(*nodes: NodeView, count: int = 10, demand: Demand | None = None) -> fw.Forwarding:
    """Node n0, of which a process wants leases, that nobody has room for."""
    found = fw.Forwarding("n0", policies.HybridPolicy())
    found.apply(fw.NodeSeen(view("n0", 2, is_local=True), 0.0))
    found.apply(*(fw.NodeSeen(node, 0.0) for node in nodes))
    found.apply(fw.WishChanged("p", "f", [demand or Demand(ResourceSet(ONE_CPU))], count, 0.0))
    return found


def on(machine: fw.Forwarding) -> dict[str, int]:
    machine.check()
    return dict(machine.wishes["p", "f"].on)


FOUR = [view(f"n{number}", 2) for number in range(1, 5)]


def test_each_full_node_is_asked_for_its_part() -> None:
    machine = made(view("n1", 2), view("n2", 4), view("n3", 2))
    commands = machine.apply(fw.MayAsk("p", "f", 8, 1.0))
    assert on(machine) == {"n0": 2, "n1": 2, "n2": 4, "n3": 2}
    claims = {one.node: one.lease_count for one in commands if isinstance(one, fw.Want) and one.is_claim}
    assert claims == {"n1": 2, "n2": 4, "n3": 2}


def test_no_more_is_asked_for_than_may_be_and_than_waits() -> None:
    machine = made(*FOUR)
    machine.apply(fw.MayAsk("p", "f", 3, 1.0))
    assert sorted(on(machine).values()) == [1, 1, 1, 7]
    machine = made(*FOUR, count=2)
    machine.apply(fw.Promised("n0", "p", "f", 1, 0.0))
    machine.apply(fw.MayAsk("p", "f", 9, 1.0))
    assert on(machine)["n0"] == 1, "which its own node has promised"


def test_what_is_not_promised_in_time_is_asked_of_others() -> None:
    machine = made(*FOUR, count=1)
    asked = []
    for turn in range(4):
        at_s = 20.0 * turn
        machine.apply(fw.MayAsk("p", "f", 1, at_s))
        asked += [node for node in on(machine) if node != "n0"]
        for step in range(5):
            machine.apply(fw.Ticked(at_s + step * fw.PATIENCE_S))
        assert on(machine) == {"n0": 1}
    assert sorted(asked) == ["n1", "n2", "n3", "n4"]


def test_what_is_promised_is_waited_for() -> None:
    machine = made(*FOUR)
    machine.apply(fw.MayAsk("p", "f", 8, 0.0))
    machine.apply(fw.Promised("n1", "p", "f", 2, 0.0), fw.Promised("n2", "p", "f", 1, 0.0))
    for second in range(100):
        machine.apply(fw.Ticked(float(second)))
    assert on(machine) == {"n0": 7, "n1": 2, "n2": 1}
    machine.apply(fw.Granted("n1", "p", "f", 100.0), fw.NodeSeen(view("n1", 2), 100.0))
    machine.apply(fw.Ticked(101.0))
    assert on(machine)["n1"] == 1
    machine.apply(fw.Promised("n1", "p", "f", 0, 0.0))
    machine.apply(fw.Ticked(103.0))
    assert "n1" not in on(machine)


def test_it_rests_where_nobody_promises_anything() -> None:
    machine = made(*FOUR, count=4)
    at_s = 0.0
    for _ in range(3):
        machine.apply(fw.MayAsk("p", "f", 4, at_s))
        at_s += full_nodes.SETTLE_S
        machine.apply(fw.Ticked(at_s))
    assert [one.waiting for one in machine.short(at_s)] == [0]
    assert [one.waiting for one in machine.short(at_s + full_nodes.REST_MAX_S)] == [4]


def test_claims_move_to_room() -> None:
    machine = made(*FOUR, count=4)
    machine.apply(fw.MayAsk("p", "f", 4, 0.0))
    machine.apply(fw.NodeSeen(view("n2", 2, 2), 0.5))
    assert on(machine)["n2"] >= 2
    assert sum(on(machine).values()) == 4


@pytest.mark.parametrize(
    "demand",
    [
        Demand(ResourceSet(ONE_CPU), NodeAffinity("n0", is_soft=False)),
        Demand(ResourceSet(ONE_CPU), NodeAffinity("n0", is_soft=True)),
        Demand(ResourceSet(ONE_CPU), label_selector={"disk": "fast"}),
        Demand(ResourceSet(cpus(2)), is_in_bundle=True),
    ],
)
def test_what_is_for_certain_nodes_is_asked_of_no_other(demand: Demand) -> None:
    machine = fw.Forwarding("n0", policies.HybridPolicy())
    machine.apply(fw.NodeSeen(view("n0", 2, is_local=True, labels={"disk": "fast"}), 0.0))
    machine.apply(*(fw.NodeSeen(node, 0.0) for node in FOUR))
    machine.apply(fw.WishChanged("p", "f", [demand], 3, 0.0))
    may = sum(one.waiting for one in machine.short(0.0))
    machine.apply(fw.MayAsk("p", "f", may, 0.0))
    assert on(machine) == {"n0": 3}


def test_drained_nodes_are_not_asked() -> None:
    machine = made(view("n1", 2, is_draining=True), view("n2", 2))
    machine.apply(fw.MayAsk("p", "f", 4, 0.0))
    assert on(machine) == {"n0": 6, "n2": 4}


# ---- what comes of it on those nodes ----


def agent(cpu_count: int) -> AgentState:
    ids = (f"w{number}" for number in itertools.count(1))
    state = AgentState(ledger=Ledger(cpus(cpu_count), {}), worker_ids=ids, starts_max=64, idle_max=cpu_count)
    state.apply(*(ev.ClientJoined(client, 0.0) for client in ("A", "B", "b2")))
    return state


def wants(job: ev.Job, count: int, client: str = "", *, is_claim: bool = False) -> ev.DemandChanged:
    env = f'{{"job":"{job.id}"}}'
    return ev.DemandChanged(client or job.id, "f", ONE_CPU, count, 0, env, "", 0.0, job=job, is_claim=is_claim)


def asked_back(commands: list[Any]) -> list[str]:
    return [one.client for one in commands if isinstance(one, ev.Reclaim)]


def promised(commands: list[Any]) -> dict[str, int]:
    return {one.client: one.lease_count for one in commands if isinstance(one, ev.Promised)}


def told(used: Mapping[str, float], counted: Mapping[str, float]) -> ev.ClusterUseTold:
    return ev.ClusterUseTold(use(used, counted, {}), 0.0)


def test_a_node_says_what_it_will_grant_and_when_that_changes() -> None:
    state = agent(4)
    run(state, wants(A, 4), told({"A": 12, "B": 4}, {"A": 4}))
    commands = run(state, wants(B, 9, is_claim=True))
    assert asked_back(commands) == ["A"] * 4
    assert promised(commands) == {"B": 4}
    worker = next(iter(state.clients["A"]))
    given = run(state, ev.LeaseReturned("A", worker, is_retired=False, at_s=0.0))
    assert [one.client for one in given if isinstance(one, ev.Grant)] == ["B"]
    assert promised(given) == {}, "but what was granted"
    assert promised(run(state, ev.ClusterUseTold(None, 0.0))) == {"B": 0}


def test_what_processes_of_a_job_take_from_each_other_is_not_promised() -> None:
    """By turns: their job gains nothing by it, and may have more of other nodes."""
    state = agent(1)
    run(state, wants(B, 1), told({"A": 15, "B": 1}, {"B": 1}))
    commands = run(state, wants(A, 1), wants(B, 1, "b2"))
    assert asked_back(commands) == ["B"]
    assert "b2" not in promised(commands)


def test_a_promise_is_over_when_an_actor_has_what_was_promised() -> None:
    """Though there are no leases that could be asked back: what was promised would be waited for here, whatever others have."""
    state = agent(1)
    run(state, told({"A": 4, "B": 0}, {}))
    state.apply(wants(A, 1))
    assert promised(list(state.apply(wants(HIGH, 1, is_claim=True)))) == {"B": 1}, "its worker starts"
    env = '{"job":"C"}'
    commands = run(state, ev.ActorWanted("actor", ONE_CPU, ONE_CPU, 0, env, "", 0.0, job=ev.Job("C", priority=2)))
    assert [type(one) for one in commands] == [ev.HostActor, ev.Promised]
    assert promised(commands) == {"B": 0}


def test_nothing_is_said_where_nobody_tells_of_the_cluster() -> None:
    state = agent(4)
    run(state, wants(A, 4))
    commands = run(state, wants(B, 9))
    assert asked_back(commands) == ["A", "A"]
    assert promised(commands) == {}


def test_a_claim_takes_nothing_from_its_own_job() -> None:
    """Which would gain nothing by it."""
    state = agent(4)
    run(state, wants(A, 2), wants(B, 2), told({"A": 8, "B": 8}, {"A": 2, "B": 2}))
    assert asked_back(run(state, wants(B, 1, "b2", is_claim=True))) == []
    assert asked_back(run(state, wants(B, 1, "b2"))) == ["B"]
    alone = agent(2)
    run(alone, wants(B, 2))
    assert asked_back(run(alone, wants(B, 1, "b2", is_claim=True))) == []


def test_a_claim_is_not_served_for_having_waited() -> None:
    """Its job is served where it waits."""
    state = agent(2)
    run(state, wants(A, 2), told({"A": 2, "B": 6}, {"A": 2}), wants(B, 1, is_claim=True))
    assert asked_back(run(state, ev.Ticked(2 * shares.STARVED_S))) == []
    assert asked_back(run(state, wants(B, 1))) == ["A"]


# ---- what is told ----

NODES = {"n1": cpus(4), "n2": cpus(4)}


def test_sums_are_told_too_while_each_job_has_nodes_of_its_own_and_something_waits() -> None:
    head = job_use.JobUse()
    assert head.news(NODES, 0.0) is None
    assert head.news({"n1": cpus(4)}, 0.0, is_short=True) is None, "there is no other node"
    first = head.news(NODES, 0.0, is_short=True)
    assert first is not None
    assert (first["jobs"], first["is_whole"]) == ({}, True)
    head.said("n1", {"A": [0, 1.0, cpus(4), 1]})
    head.said("n2", {"B": [0, 1.0, cpus(4), 0], "A": [0, 1.0, {}, 1]})
    news = head.news(NODES, 1.0, is_short=True)
    assert news is not None
    assert news["jobs"] == {"A": [0, 1.0, cpus(4), 2], "B": [0, 1.0, cpus(4), 0]}
    head.said("n2", {"B": [0, 1.0, cpus(4), 0]})
    assert head.news(NODES, 2.0) is not None
    over = head.news(NODES, 2.0 + job_use.LINGER_S)
    assert over is not None
    assert over["is_over"]


def test_other_nodes_that_ask_are_told_apart_from_this_one() -> None:
    news = cluster_use.UseNews("n1")
    news.said(1, {"A": [0, 1.0, {}, 1], "B": [0, 1.0, {}, 0]})
    news.heard(1)
    jobs = {"A": [0, 1.0, {}, 3], "B": [0, 1.0, {}, 2]}
    given = {"gone": [], "total": cpus(8), "shared": {}, "is_whole": True, "is_over": False}
    news.told({"t": "job_use", "jobs": jobs, **given}, 0.0)
    found = news.use()
    assert found is not None
    assert (found.askers_elsewhere(A), found.askers_elsewhere(B)) == (2, 2)


def test_jobs_that_ask_other_nodes_for_more_are_said_to() -> None:
    state = agent(2)
    assert state.use_of_jobs(lambda: {"A": A}) is None
    run(state, wants(A, 2), told({"A": 2}, {}))
    assert state.use_of_jobs(lambda: {"A": A, "B": B}) == {"A": [0, 1.0, cpus(2), 1], "B": [0, 1.0, {}, 1]}
