"""Shares of a whole cluster: what nodes tell each other of their jobs, and what comes of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from agent_runs import run

from umbel._agent import cluster_use, shares
from umbel._agent import events as ev
from umbel._agent.cluster_use import ClusterUse, UseNews
from umbel._agent.ledger import UNIT, Ledger
from umbel._agent.state import AgentState
from umbel._control import job_use
from umbel.testing.simulation import shares as world
from umbel.testing.simulation.chance import Chance

A, B, HEAVY = ev.Job("A"), ev.Job("B"), ev.Job("B", weight=3.0)
ONE_CPU = {"CPU": UNIT}


def cpus(count: float) -> dict[str, int]:
    return {"CPU": int(count * UNIT)}


# ---- simulated clusters ----


class Fixed(world.SharesWorld):
    """Nodes and jobs as given, of which nothing happens but what tests do. tells: whether the head does."""

    def __init__(self, nodes: Sequence[int], homes: Mapping[ev.Job, Sequence[int]], *, tells: bool = True) -> None:
        """nodes: their CPUs. homes: of each job, the nodes on which it submits tasks."""
        super().__init__(Chance(1))
        self.given_nodes, self.homes, self.tells = nodes, homes, tells
        self.set_up()

    def layout(self) -> tuple[list[world.Node], list[ev.Job], list[float]]:
        nodes = [world.Node(self, number, count) for number, count in enumerate(self.given_nodes)]
        return nodes, [*self.homes], [0.3] * len(self.homes)

    def begin_jobs(self) -> None:
        for job, homes in self.homes.items():
            for number in homes:
                self.begin(job, self.nodes[number])

    def head_tells(self) -> None:
        if self.tells:
            super().head_tells()

    def uses(self, job: ev.Job) -> int:
        return sum(node.used(job) for node in self.nodes if not node.is_dead)

    def mean_uses(self, seconds: float) -> dict[str, float]:
        """Leases of each job, looked at every 0.1 s."""
        looks = []
        for _ in range(int(seconds * 10)):
            self.pass_time(0.1)
            looks.append([self.uses(job) for job in self.jobs])
        return {job.id: sum(look[index] for look in looks) / len(looks) for index, job in enumerate(self.jobs)}


UNEVEN = [4, 4, 4, 4], {A: [0], HEAVY: [0, 1, 2, 3]}


def test_shares_of_each_node_alone_are_not_those_of_the_cluster() -> None:
    """Job A, of weight 1, submits on one of four nodes, B, of weight 3, on all: A gets a quarter of its node."""
    apart = Fixed(*UNEVEN, tells=False)
    apart.pass_time(20.0)
    assert apart.mean_uses(20.0)["A"] == pytest.approx(1.0, abs=0.2)


def test_jobs_of_several_nodes_get_shares_of_the_cluster_by_their_weights() -> None:
    """The same: A gets a quarter of the cluster, which is its node, but for what is there at times for who waits there."""
    together = Fixed(*UNEVEN)
    together.pass_time(10.0)
    uses = together.mean_uses(30.0)
    assert uses["A"] == pytest.approx(4.0, abs=0.5)
    assert uses["B"] == pytest.approx(12.0, abs=0.6)


def test_one_difference_is_mended_once_by_all_nodes_together() -> None:
    """Ten nodes have two jobs each, half and half. Then B gets another node, as large as five of them: all ten see that A has
    less, by ten leases in all, and give it those, and not forty."""
    many = Fixed([4] * 10 + [20], {A: range(10), B: range(10)})
    many.pass_time(15.0)
    assert many.mean_uses(5.0) == {"A": pytest.approx(20.0, abs=1.5), "B": pytest.approx(20.0, abs=1.5)}
    many.begin(B, many.nodes[10])
    highest = 0
    for _ in range(300):
        many.pass_time(0.1)
        highest = max(highest, many.uses(A))
    assert highest <= 34
    assert many.mean_uses(20.0) == {"A": pytest.approx(30.0, abs=2.5), "B": pytest.approx(30.0, abs=2.5)}


def test_what_a_dead_node_had_is_counted_no_more() -> None:
    """B has a node of its own, and no part of the other one; until that dies."""
    two = Fixed([4, 4], {A: [0], B: [0, 1]})
    two.pass_time(15.0)
    assert two.nodes[0].used(A) >= 3
    two.nodes[1].is_dead = True
    two.sum.gone("n1")
    two.pass_time(10.0)
    assert two.mean_uses(10.0) == {"A": pytest.approx(2.0, abs=0.3), "B": pytest.approx(2.0, abs=0.3)}


def test_a_node_without_its_head_goes_by_what_it_has_after_a_while() -> None:
    two = Fixed([4, 4], {A: [0], B: [0, 1]})
    two.pass_time(15.0)
    node = two.nodes[0]
    node.is_linked = False
    node.news.lost(two.now_s)
    two.pass_time(cluster_use.STALE_S - 1.0)
    assert node.news.is_told
    two.pass_time(6.0)
    assert not node.news.is_told
    assert (node.used(A), node.used(B)) == (2, 2)


# ---- one agent ----


def make(cpu_count: int) -> AgentState:
    ids = (f"w{number}" for number in itertools.count(1))
    state = AgentState(ledger=Ledger(cpus(cpu_count), {}), worker_ids=ids, starts_max=64, idle_max=cpu_count)
    state.apply(*(ev.ClientJoined(job.id, 0.0) for job in (A, B)))
    return state


def wants(job: ev.Job, count: int, at_s: float = 0.0) -> ev.DemandChanged:
    return ev.DemandChanged(job.id, "f", ONE_CPU, count, 0, f'{{"job":"{job.id}"}}', "", at_s, job=job)


def asked_back(commands: list[Any]) -> list[str]:
    return [one.client for one in commands if isinstance(one, ev.Reclaim)]


def told(state: AgentState, others: Mapping[str, float], total: float, at_s: float = 0.0) -> ev.ClusterUseTold:
    """What jobs have on other nodes."""
    counted = {job_id: one[2] for job_id, one in (state.use_of_jobs() or {}).items()}
    used = {
        job_id: cpus((counted.get(job_id, {}).get("CPU", 0)) / UNIT + others.get(job_id, 0))
        for job_id in {*counted, *others}
    }
    use = ClusterUse(used, {"A": A, "B": B}, total=cpus(total), shared={}, counted=counted, draw=0.0, asking={})
    return ev.ClusterUseTold(use, at_s)


def test_who_has_less_of_the_cluster_is_given_what_another_has_here() -> None:
    state = make(4)
    run(state, wants(A, 9), wants(B, 9))
    for worker in [*state.clients["A"]][:2]:
        run(state, ev.LeaseReturned("A", worker, is_retired=False, at_s=0.0), wants(A, 9))
    assert {client: len(leases) for client, leases in state.clients.items() if leases} == {"A": 2, "B": 2}
    assert asked_back(run(state, told(state, {"B": 4.0}, total=8))) == ["B", "B"]


def test_what_will_be_when_leases_have_come_back_is_told() -> None:
    state = make(4)
    assert state.use_of_jobs() is None, "of one job nobody needs to know"
    run(state, wants(A, 4))
    assert state.use_of_jobs() is None
    assert len(asked_back(run(state, wants(B, 4)))) == 2
    assert state.use_of_jobs() == {"A": [0, 1.0, cpus(2), 0], "B": [0, 1.0, cpus(2), 0]}


def test_who_waits_where_his_job_has_nothing_is_served_after_a_while() -> None:
    state = make(2)
    run(state, wants(A, 9))
    run(state, told(state, {"B": 6.0}, total=8))
    assert asked_back(run(state, wants(B, 9))) == []
    assert asked_back(run(state, ev.Ticked(shares.STARVED_S - 0.1))) == []
    assert asked_back(run(state, ev.Ticked(shares.STARVED_S), at_s=5.0)) == ["A"], "and no more than one"
    (reclaimed,) = [worker for worker, lease in state.clients["A"].items() if lease.is_reclaimed]
    given = run(state, ev.LeaseReturned("A", reclaimed, is_retired=False, at_s=6.0), at_s=6.0)
    assert [one.client for one in given if isinstance(one, ev.Grant)] == ["B"]
    assert asked_back(given) == ["B"], "which has more of the cluster, and gives it back when its task ends"


def test_it_is_served_by_a_job_that_keeps_something_if_there_is_one() -> None:
    """Else that one, which has less of the cluster and nothing left, would take from the third what it has given."""
    state = make(3)
    state.apply(ev.ClientJoined("C", 0.0))
    light, heavy = ev.Job("A"), ev.Job("C", weight=3.0)
    run(state, wants(light, 1), wants(heavy, 9))
    assert {client: len(leases) for client, leases in state.clients.items() if leases} == {"A": 1, "C": 2}
    run(state, told(state, {"B": 9.0}, total=12))
    assert asked_back(run(state, wants(B, 9))) == []
    assert asked_back(run(state, ev.Ticked(shares.STARVED_S), at_s=5.0)) == ["C"]


def test_who_gives_his_only_lease_for_that_claims_none_at_once() -> None:
    """A has one of three here, and has waited for more as long as B has waited for one."""
    state = make(3)
    state.apply(ev.ClientJoined("C", 0.0))
    heavy = ev.Job("C", weight=3.0)
    run(state, wants(A, 1), wants(heavy, 2))
    run(state, told(state, {"A": 1.0, "B": 4.0, "C": 3.0}, total=11))
    run(state, wants(A, 9), wants(B, 9), wants(heavy, 9))
    found = run(state, ev.Ticked(shares.STARVED_S), at_s=5.0)
    assert asked_back(found) == ["A"]
    (worker,) = state.clients["A"]
    found = given_back(state, "A", worker, 6.0)
    assert [one.client for one in found if isinstance(one, ev.Grant)] == ["B"]
    assert asked_back(found) == ["B"]


def test_what_is_given_for_having_waited_for_long_is_not_told() -> None:
    """It is one task's. Other nodes would mend what its job has too much by it, and mend that again a second later."""
    state = make(2)
    run(state, wants(A, 9))
    run(state, told(state, {"B": 6.0}, total=8))
    run(state, wants(B, 9))
    assert asked_back(run(state, ev.Ticked(shares.STARVED_S), at_s=5.0)) == ["A"]
    assert state.use_of_jobs() == {"A": [0, 1.0, cpus(2), 0], "B": [0, 1.0, {}, 0]}


# ---- nothing goes back and forth ----


def given_back(state: AgentState, client: str, worker: str, at_s: float) -> list[Any]:
    """What is ordered when it is, by whom wants another one instead."""
    lease = state.clients[client][worker]
    waiting = state.demands.get((client, "", "f"))
    again = wants(lease.job, 1 + (waiting.count if waiting is not None else 0), at_s)
    return run(state, ev.LeaseReturned(client, worker, is_retired=False, at_s=at_s), again, at_s=at_s)


def moved(state: AgentState, commands: list[Any]) -> int:
    """How many leases are asked back until none is any more, if each comes back, one after another. Nobody is given one and asked
    for one at once."""
    count, waiting = 0, [one for one in commands if isinstance(one, ev.Reclaim)]
    while waiting and count < 100:
        count += 1
        one = waiting.pop(0)
        found = given_back(state, one.client, one.worker, 0.01 * count)
        given = {grant.client for grant in found if isinstance(grant, ev.Grant)}
        assert not given & {*asked_back(found)}, "and it would be given again what is asked back"
        waiting += [grant for grant in found if isinstance(grant, ev.Reclaim)]
    return count


def test_what_comes_back_is_expected_for_whom_it_will_be_given_to() -> None:
    """All that B has was asked back for A, as B was said to have much elsewhere; then that is not so. What comes back is given in
    turn, so B's first one has nothing to do with what A still waits for."""
    state, light = make(5), ev.Job("A", weight=2.0)
    run(state, wants(light, 1))
    run(state, wants(HEAVY, 9))
    run(state, wants(light, 9))
    run(state, told(state, {"B": 9.0}, total=14))
    assert all(lease.is_reclaimed for lease in state.clients["B"].values())
    assert asked_back(run(state, told(state, {}, total=14))) == []
    for count, worker in enumerate([*state.clients["B"]]):
        assert asked_back(given_back(state, "B", worker, 0.01 * count)) == []
    assert {client: len(state.clients[client]) for client in "AB"} == {"A": 2, "B": 3}


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 3.0), (2.0, 3.0)])
@pytest.mark.parametrize("others", [(0, 0), (0, 3), (3, 1), (8, 2)])
@pytest.mark.parametrize(("shared", "draw"), [(4, 0.0), (16, 0.0), (16, 0.9)])
def test_each_lease_moves_once_at_most_for_one_word_of_the_head(
    weights: tuple[float, float], others: tuple[int, int], shared: float, draw: float
) -> None:
    """Whatever two jobs have of four CPUs, and elsewhere: they come to rest."""
    one, other = (ev.Job(job_id, weight=weight) for job_id, weight in zip("AB", weights, strict=True))
    for count in range(5):
        state = make(4)
        run(state, wants(one, count), wants(other, 4 - count))
        use = ClusterUse(
            {"A": cpus(count + others[0]), "B": cpus(4 - count + others[1])}, {"A": one, "B": other}, total=cpus(16),
            shared=cpus(shared), counted={"A": cpus(count), "B": cpus(4 - count)}, draw=draw, asking={},
        )  # fmt: skip
        commands = run(state, ev.ClusterUseTold(use, 0.0), wants(one, 9), wants(other, 9))
        assert moved(state, commands) <= 4


@pytest.mark.parametrize("others", [(0, 0, 0), (0, 2, 6), (5, 0, 1), (9, 3, 0)])
def test_leases_of_three_jobs_come_to_rest(others: tuple[int, int, int]) -> None:
    jobs = [ev.Job(job_id, weight=weight) for job_id, weight in zip("ABC", (1.0, 2.0, 3.0), strict=True)]
    for first, second in itertools.product(range(6), repeat=2):
        counts = (first, second, 5 - first - second)
        if counts[2] < 0:
            continue
        state = make(5)
        state.apply(ev.ClientJoined("C", 0.0))
        run(state, *(wants(job, count) for job, count in zip(jobs, counts, strict=True)))
        used = {job.id: cpus(count + more) for job, count, more in zip(jobs, counts, others, strict=True)}
        counted = {job.id: cpus(count) for job, count in zip(jobs, counts, strict=True)}
        use = ClusterUse(
            used, {job.id: job for job in jobs}, total=cpus(20), shared={}, counted=counted, draw=0.0, asking={}
        )
        commands = run(state, ev.ClusterUseTold(use, 0.0), *(wants(job, 9) for job in jobs))
        assert moved(state, commands) <= 5


def test_who_has_had_how_much_is_counted_anew_where_shares_of_the_cluster_begin_or_end() -> None:
    """B has had all of another node for long, and A this one, which is as large as half of that. Alone they take turns."""
    state, order = make(1), ""
    run(state, wants(A, 9))
    run(state, told(state, {"B": 2.0}, total=2), wants(B, 9), ev.Ticked(0.1))
    commands = run(state, ev.ClusterUseTold(None, 100.0), at_s=100.0)
    for second in range(101, 109):
        (client,) = asked_back(commands)
        (worker,) = state.clients[client]
        commands = given_back(state, client, worker, float(second))
        order += "".join(one.client for one in commands if isinstance(one, ev.Grant))
    assert order.count("A") == order.count("B") == 4


def test_who_waits_is_told_where_its_job_stands_in_the_cluster() -> None:
    state = make(2)
    run(state, wants(A, 9), wants(B, 9))
    run(state, told(state, {"A": 1.0, "B": 1.0}, total=8))
    why = next(str(one.why) for one in state.pending() if one.client == "B")
    assert "job B has 2 of 8 CPU in the cluster, less than its share, and goes first, beside 1 other" in why
    run(state, told(state, {"A": 1.0, "B": 4.0}, total=8))
    why = next(str(one.why) for one in state.pending() if one.client == "B")
    assert "job B is at its share of CPU, 5 of 8 in the cluster" in why


# ---- what is expected of others ----


def use(*, draw: float, shared: float = 16, counted: float = 2) -> ClusterUse:
    """Of job A, which has 8 CPUs of 16, two of them on this node of four."""
    made = ClusterUse(
        {"A": cpus(8), "B": cpus(8)}, {"A": A, "B": B}, total=cpus(16), shared=cpus(shared),
        counted={"A": cpus(counted), "B": cpus(2)}, draw=draw, asking={},
    )  # fmt: skip
    made.fit(cpus(4), ONE_CPU)
    return made


@pytest.mark.parametrize(
    ("draw", "here", "in_all"),
    [(0.0, 2, 8), (0.0, 1, 4), (0.0, 3, 12), (0.0, 0, 0), (0.5, 1, 6), (0.5, 0, 2), (0.75, 1, 7), (0.9, 3, 9)],
)
def test_others_are_taken_to_do_as_this_node_does_since(draw: float, here: int, in_all: int) -> None:
    """Four nodes of one size. The first step counts for less, by what was drawn, and never for less than one."""
    assert use(draw=draw).expected(A, cpus(here)) == cpus(in_all)


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("counted", [0.0, 2.0, 4.0, 8.0])
def test_who_has_more_here_is_expected_to_have_more_in_all(draw: float, counted: float) -> None:
    """Else two that have different shares could be alike, and take leases from each other."""
    made = use(draw=draw, counted=counted)
    found = [made.expected(A, cpus(half / 2))["CPU"] for half in range(9)]
    assert all(one < following for one, following in itertools.pairwise(found))


def test_where_no_other_node_has_several_jobs_a_change_here_is_all_there_is() -> None:
    assert use(draw=0.0, shared=4).expected(A, cpus(1)) == cpus(7)


def test_what_others_are_expected_to_have_given_is_not_taken_for_nothing() -> None:
    """By what this node expects of the three others, A has nothing left anywhere, and would have a claim to one at once."""
    given = use(draw=0.0)
    assert given.expected(A, {}) == cpus(0)
    assert given.is_elsewhere(A, "CPU")


# ---- what is told ----


def said(**jobs: float) -> dict[str, list[Any]]:
    return {job_id: [0, 1.0, cpus(count) if count else {}, 0] for job_id, count in jobs.items()}


NODES = {"n1": cpus(4), "n2": cpus(4)}


def test_nothing_is_told_while_each_node_has_one_job() -> None:
    head = job_use.JobUse()
    assert not head.is_wanted
    head.said("n1", said(A=3))
    head.said("n2", said(B=3))
    assert head.news(NODES, 0.0) is None
    assert head.whole() is None


def test_nothing_is_told_while_there_is_one_node() -> None:
    head = job_use.JobUse()
    head.said("n1", said(A=3, B=1))
    assert head.news({"n1": cpus(4)}, 0.0) is None
    assert head.news(NODES, 1.0) is not None


def test_sums_are_told_once_and_then_what_has_changed() -> None:
    head = job_use.JobUse()
    assert head.said("n1", said(A=3, B=0))
    assert head.news(NODES, 0.0) == {
        "t": "job_use", "jobs": said(A=3, B=0), "gone": [], "total": cpus(8), "shared": cpus(4), "is_whole": True,
        "is_over": False,
    }  # fmt: skip
    assert head.news(NODES, 1.0) is None
    assert not head.said("n1", said(A=3, B=0))
    assert head.said("n2", said(B=2))
    assert head.news(NODES, 2.0) == {
        "t": "job_use", "jobs": said(B=2), "gone": [], "total": cpus(8), "shared": cpus(4), "is_whole": False,
        "is_over": False,
    }  # fmt: skip
    assert head.whole() == {
        "t": "job_use", "jobs": said(A=3, B=2), "gone": [], "total": cpus(8), "shared": cpus(4), "is_whole": True,
        "is_over": False,
    }  # fmt: skip


def test_a_node_that_does_not_count_is_left_out() -> None:
    """One that is dead, is drained or says nothing; it comes back with what it has said."""
    head = job_use.JobUse()
    head.said("n1", said(A=3, B=1))
    head.said("n2", said(B=2, C=1))
    head.news(NODES, 0.0)
    without = head.news({"n1": cpus(4)}, 1.0)
    assert without is not None
    assert (without["jobs"], without["gone"], without["total"]) == (said(B=1), ["C"], cpus(4))
    again = head.news(NODES, 2.0)
    assert again is not None
    assert again["jobs"] == said(B=3, C=1)


def test_it_is_over_a_while_after_no_node_has_several_jobs() -> None:
    head = job_use.JobUse()
    head.said("n1", said(A=3, B=1))
    head.news(NODES, 0.0)
    head.said("n1", said(A=4))
    news = head.news(NODES, 1.0)
    assert news is not None
    assert not news["is_over"]
    assert head.news(NODES, job_use.LINGER_S - 0.1) is None
    over = head.news(NODES, job_use.LINGER_S)
    assert over is not None
    assert over["is_over"]
    assert head.whole() is None
    head.said("n1", None)
    assert not head.is_wanted


def news_of(news: UseNews) -> dict[str, int]:
    """What is expected if this node has nothing."""
    found = news.use()
    assert found is not None
    found.fit(cpus(4), ONE_CPU)
    return {job_id: found.expected(ev.Job(job_id), {}).get("CPU", 0) // UNIT for job_id in found.jobs}


def message(jobs: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    given = {"gone": [], "total": cpus(8), "shared": cpus(4), "is_whole": False, "is_over": False}
    return {"t": "job_use", "jobs": jobs, **given, **more}


def test_what_the_head_had_heard_of_this_node_is_taken_out_of_what_it_tells() -> None:
    """Not what was said last, of which the head may not have heard."""
    news = UseNews("n1")
    news.said(1, said(A=2, B=1))
    news.said(2, said(A=0, B=3))
    news.heard(1)
    news.told(message(said(A=5, B=4), is_whole=True), 0.0)
    assert news_of(news) == {"A": 3, "B": 3}
    news.heard(2)
    assert news_of(news) == {"A": 3, "B": 3}, "it told that before"
    news.told(message(said(A=3, B=6)), 1.0)
    assert news_of(news) == {"A": 3, "B": 3}


def test_news_that_are_over_are_forgotten_and_old_ones_without_the_head() -> None:
    news = UseNews("n1")
    news.told(message(said(A=5), is_whole=True), 0.0)
    news.told(message({}, gone=["A"]), 0.5)
    assert news_of(news) == {}
    news.told(message({}, is_over=True), 1.0)
    assert news.use() is None
    news.told(message(said(A=5), is_whole=True), 2.0)
    news.lost(3.0)
    news.lost(9.0)
    assert not news.is_due(2.9 + cluster_use.STALE_S)
    assert news.use() is not None
    assert news.is_due(3.0 + cluster_use.STALE_S)
    assert news.use() is None


def drawn(news: UseNews) -> float:
    """How much less the first step counts; 0 if nothing is drawn."""
    found = news.use()
    assert found is not None
    found.fit(cpus(4), ONE_CPU)
    return 1 - found.expected(ev.Job("A"), cpus(1))["CPU"] / UNIT / 4


def test_a_number_is_drawn_for_one_step_and_anew_when_the_news_of_it_have_come() -> None:
    """Else two nodes that take a step where one would do take the same one back by the next news, until the numbers change."""
    news = UseNews("n1")
    whole = message({"A": [0, 1.0, {}, 0]}, shared=cpus(16), is_whole=True)
    news.said(1, said(A=0, B=1))
    news.heard(1)
    news.told(whole, 0.0)
    assert drawn(news) == 0
    assert news.is_due(1.0)
    first = drawn(news)
    assert first > 0
    assert not news.is_due(1.0 + cluster_use.DRAW_S - 0.1)
    news.said(2, said(A=1, B=0))
    assert not news.is_due(1.0 + cluster_use.DRAW_S), "its step is not heard yet"
    assert drawn(news) == first
    news.heard(2)
    assert not news.is_due(1.0 + cluster_use.DRAW_S), "and not in the news"
    news.told(message({"A": [0, 1.0, cpus(1), 0]}, shared=cpus(16)), 4.0)
    assert news.is_due(1.0 + cluster_use.DRAW_S)
    assert drawn(news) not in (0, first)


def takes_step(news: UseNews) -> bool:
    """Whether this node, of two of one size, takes its step to be all that there will be, and so the right one."""
    found = news.use()
    assert found is not None
    found.fit(cpus(4), ONE_CPU)
    return found.expected(A, cpus(1)) == cpus(1)


@pytest.mark.parametrize("other", ["n1", "n2", "n7"])
def test_numbers_of_two_nodes_have_nothing_to_do_with_each_other(other: str) -> None:
    """Two nodes that see one difference take the step with a probability of a half each. That one of them does and the other does
    not, half the time, is how they come to rest: if they drew the same, a lease would go back and forth for ever."""
    took: list[list[bool]] = []
    for node in ("n0", other):
        news = UseNews(node)
        news.told(message({"A": [0, 1.0, {}, 0]}, is_whole=True, shared=cpus(4)), 0.0)
        took.append([news.is_due(count * cluster_use.DRAW_S) and takes_step(news) for count in range(1, 200)])
    differs = [one is not two for one, two in zip(*took, strict=True)]
    assert 25 <= sum(differs[9:99]) <= 65
    assert 30 <= sum(differs[99:]) <= 70
