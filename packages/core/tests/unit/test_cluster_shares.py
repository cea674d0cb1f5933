"""Shares of a whole cluster: what nodes tell each other of their jobs, and what comes of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

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


def run(state: AgentState, *events: Any, at_s: float = 0.0) -> list[Any]:
    """What is ordered, with workers ready at once."""
    todo, found = list(state.apply(*events)), []
    while todo:
        command = todo.pop(0)
        if isinstance(command, ev.StartWorker):
            todo += state.apply(ev.ClientJoined(command.worker, at_s), ev.WorkerReady(command.worker, at_s))
        else:
            found.append(command)
    state.check()
    return found


def asked_back(commands: list[Any]) -> list[str]:
    return [one.client for one in commands if isinstance(one, ev.Reclaim)]


def told(state: AgentState, others: Mapping[str, float], total: float, at_s: float = 0.0) -> ev.ClusterUseTold:
    """What jobs have on other nodes."""
    counted = {job_id: one[2] for job_id, one in (state.use_of_jobs() or {}).items()}
    used = {
        job_id: cpus((counted.get(job_id, {}).get("CPU", 0)) / UNIT + others.get(job_id, 0))
        for job_id in {*counted, *others}
    }
    use = ClusterUse(used, {"A": A, "B": B}, total=cpus(total), shared={}, counted=counted, draw=0.0)
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
    assert state.use_of_jobs() == {"A": [0, 1.0, cpus(2)], "B": [0, 1.0, cpus(2)]}


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


def test_who_waits_is_told_where_its_job_stands_in_the_cluster() -> None:
    state = make(2)
    run(state, wants(A, 9), wants(B, 9))
    run(state, told(state, {"A": 1.0, "B": 1.0}, total=8))
    why = next(str(one.why) for one in state.pending() if one.client == "B")
    assert "job B has 2 of 8 CPU in the cluster, less than its share, and goes first, beside 1 other" in why
    run(state, told(state, {"A": 1.0, "B": 4.0}, total=8))
    why = next(str(one.why) for one in state.pending() if one.client == "B")
    assert "job B is at its share of CPU, 4 of 8 in the cluster" in why, "but for the one that was asked back"


# ---- what is expected of others ----


def use(*, draw: float, shared: float = 16, counted: float = 2) -> ClusterUse:
    """Of job A, which has 8 CPUs of 16, two of them on this node of four."""
    made = ClusterUse(
        {"A": cpus(8), "B": cpus(8)}, {"A": A, "B": B}, total=cpus(16), shared=cpus(shared),
        counted={"A": cpus(counted), "B": cpus(2)}, draw=draw,
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


def test_where_no_other_node_has_several_jobs_a_change_here_is_all_there_is() -> None:
    assert use(draw=0.0, shared=4).expected(A, cpus(1)) == cpus(7)


def test_what_others_are_expected_to_have_given_is_not_taken_for_nothing() -> None:
    """By what this node expects of the three others, A has nothing left anywhere, and would have a claim to one at once."""
    given = use(draw=0.0)
    assert given.expected(A, {}) == cpus(0)
    assert given.is_elsewhere(A, "CPU")


# ---- what is told ----


def said(**jobs: float) -> dict[str, list[Any]]:
    return {job_id: [0, 1.0, cpus(count) if count else {}] for job_id, count in jobs.items()}


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
    assert news.is_due(2.0 + cluster_use.DRAW_S)
    assert not news.is_due(2.1 + cluster_use.DRAW_S)
    assert news.use() is not None
    assert news.is_due(3.0 + cluster_use.STALE_S)
    assert news.use() is None
