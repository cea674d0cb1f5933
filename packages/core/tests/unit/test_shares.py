"""Several jobs on one node: whose turn it is, who gives leases back, whose tasks are stopped, and what is said of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from agent_runs import run

from umbel._agent import environments
from umbel._agent import events as ev
from umbel._agent.ledger import UNIT, Ledger
from umbel._agent.state import AgentState

ONE_CPU = {"CPU": UNIT}
A, B, C = ev.Job("A"), ev.Job("B"), ev.Job("C")
HEAVY = ev.Job("H", weight=3.0)
HIGH = ev.Job("P", priority=10)
STOPS = ev.Job("S", priority=10, preempts=True)


def make(cpus: int, **more: int) -> AgentState:
    ids = (f"w{number}" for number in itertools.count(1))
    total = {"CPU": cpus * UNIT, **{name: amount * UNIT for name, amount in more.items()}}
    state = AgentState(ledger=Ledger(total, {}), worker_ids=ids, starts_max=64, idle_max=cpus)
    state.apply(*(ev.ClientJoined(job.id, 0.0) for job in (A, B, C, HEAVY, HIGH, STOPS)))
    return state


def wants(
    job: ev.Job, count: int, *, key: str = "f", resources: Mapping[str, int] = ONE_CPU, at_s: float = 0.0
) -> ev.DemandChanged:
    """Each job has one driver, of its name, and workers of its own."""
    return ev.DemandChanged(job.id, key, resources, count, 0, f'{{"job":"{job.id}"}}', "", at_s, job=job)


def granted(commands: Iterable[ev.AgentCommand]) -> str:
    """Whom leases were given to, in order."""
    return "".join(one.client for one in commands if isinstance(one, ev.Grant))


def asked_back(commands: Iterable[ev.AgentCommand]) -> list[tuple[str, str]]:
    return [(one.client, one.worker) for one in commands if isinstance(one, ev.Reclaim)]


def returned(client: str, worker: str, at_s: float = 0.0) -> ev.LeaseReturned:
    return ev.LeaseReturned(client, worker, is_retired=False, at_s=at_s)


def held(state: AgentState) -> dict[str, int]:
    return {client: len(leases) for client, leases in state.clients.items() if leases}


def give_back_all(state: AgentState, commands: Iterable[ev.AgentCommand], *, rounds: int = 50) -> dict[str, int]:
    """Whoever is asked for a lease gives it back at once, and wants another instead. Returns who has how many then."""
    waiting = asked_back(commands)
    for _ in range(rounds):
        if not waiting:
            break
        client, worker = waiting.pop(0)
        lease = state.clients[client][worker]
        before = state.demands.get((client, "", lease.key))
        again = ev.DemandChanged(
            client, lease.key, lease.resources, 1 + (before.count if before else 0), 0, state.workers[worker].env, "", 0.0,
            job=lease.job,
        )  # fmt: skip
        waiting += asked_back(run(state, returned(client, worker), again))
    return held(state)


def test_jobs_of_equal_weight_get_equal_shares_whatever_they_ask_for() -> None:
    state = make(4)
    commands = run(state, wants(A, 100))
    commands += run(state, wants(B, 3))
    assert give_back_all(state, commands) == {"A": 2, "B": 2}


def test_jobs_get_shares_by_their_weights() -> None:
    state = make(8)
    commands = run(state, wants(A, 100)) + run(state, wants(HEAVY, 100))
    assert give_back_all(state, commands) == {"A": 2, "H": 6}


def test_a_share_is_of_what_a_job_has_most_of() -> None:
    """The example of Ghodsi et al.: 9 CPUs and 18 GB; tasks of A need 1 CPU and 4 GB, those of B 3 CPUs and 1 GB."""
    state = make(9, GB=18)
    commands = run(state, wants(A, 100, resources={"CPU": UNIT, "GB": 4 * UNIT}))
    commands += run(state, wants(B, 100, resources={"CPU": 3 * UNIT, "GB": UNIT}))
    assert give_back_all(state, commands) == {"A": 3, "B": 2}


def test_what_comes_free_goes_to_the_job_that_has_least() -> None:
    state = make(4)
    run(state, wants(A, 100))
    run(state, wants(B, 100), returned("A", "w1"), returned("A", "w2"))
    assert held(state) == {"A": 2, "B": 2}
    assert granted(run(state, returned("A", "w3"))) == "A"
    assert granted(run(state, returned("B", "w5"))) == "B"


def test_jobs_at_their_shares_ask_nobody_for_anything() -> None:
    state = make(4)
    run(state, wants(A, 100), wants(B, 100))
    give_back_all(state, [ev.Reclaim("A", "w1"), ev.Reclaim("A", "w2")])
    assert held(state) == {"A": 2, "B": 2}
    assert asked_back(run(state, wants(A, 200), wants(B, 200), ev.Ticked(100.0), at_s=100.0)) == []


def test_a_share_that_nobody_wants_is_the_others() -> None:
    state = make(4)
    commands = run(state, wants(A, 100)) + run(state, wants(B, 1))
    assert give_back_all(state, commands) == {"A": 3, "B": 1}
    assert granted(run(state, returned("B", state_of(state, "B")))) == "A"


def state_of(state: AgentState, client: str) -> str:
    """A worker that it has."""
    return next(iter(state.clients[client]))


def test_more_jobs_than_leases_take_turns_by_their_weights() -> None:
    state = make(1)
    commands = run(state, wants(A, 100)) + run(state, wants(HEAVY, 100))
    order = ""
    for second in range(1, 81):
        (client, worker), *_ = asked_back(commands)
        commands = run(state, returned(client, worker, float(second)), at_s=float(second))
        order += granted(commands)
        assert asked_back(commands), "who has nothing has the lease asked back"
    assert order.count("H") == 60


def test_who_comes_later_has_no_claim_to_what_others_had_before() -> None:
    state = make(1)
    run(state, wants(A, 100))
    run(state, wants(B, 100))
    now_s = 0.0
    for _ in range(50):
        now_s += 1.0
        (client,) = held(state)
        run(state, returned(client, state_of(state, client), now_s), at_s=now_s)
    order = granted(run(state, wants(C, 100, at_s=now_s), at_s=now_s))
    for _ in range(9):
        now_s += 1.0
        (client,) = held(state)
        order += granted(run(state, returned(client, state_of(state, client), now_s), at_s=now_s))
    assert {job: order.count(job) for job in "ABC"} == {"A": 3, "B": 3, "C": 3}


def test_a_job_of_higher_priority_takes_all_that_it_wants_and_gives_nothing() -> None:
    state = make(4)
    commands = run(state, wants(A, 100)) + run(state, wants(HIGH, 3))
    assert give_back_all(state, commands) == {"A": 1, "P": 3}
    commands = run(state, wants(B, 100)) + run(state, wants(HIGH, 100))
    assert asked_back(commands) == [("A", state_of(state, "A"))]
    assert give_back_all(state, commands) == {"P": 4}
    assert asked_back(run(state, wants(A, 100), wants(B, 100), ev.Ticked(50.0))) == []


def test_all_that_a_higher_priority_wants_is_asked_back_at_once() -> None:
    state = make(4)
    run(state, wants(A, 100))
    assert len(asked_back(run(state, wants(HIGH, 3)))) == 3


def test_a_demand_that_cannot_be_met_takes_nothing_from_others() -> None:
    """An actor of A has one of the CPUs and gives none, so four at once cannot be had."""
    state = make(4)
    run(state, ev.ActorWanted("a", ONE_CPU, ONE_CPU, 0, '{"job":"A"}', "", 0.0, job=A), wants(A, 100))
    assert asked_back(run(state, wants(HIGH, 1, resources={"CPU": 4 * UNIT}))) == []
    assert len(asked_back(run(state, wants(HIGH, 1, key="g", resources={"CPU": 3 * UNIT})))) == 3


def test_actors_are_placed_in_the_same_order_and_count() -> None:
    state = make(2)
    run(state, wants(A, 1), wants(B, 1))
    wish = ev.ActorWanted("p", ONE_CPU, ONE_CPU, 0, '{"job":"P"}', "", 0.0, job=HIGH)
    ((client, worker),) = asked_back(run(state, wish))
    assert ev.HostActor in {type(one) for one in run(state, returned(client, worker))}
    assert asked_back(run(state, wants(HIGH, 5), ev.Ticked(30.0))) != []
    assert asked_back(run(state, wants(A, 5), wants(B, 5), ev.Ticked(60.0))) == []


def test_a_placement_group_is_reserved_in_its_jobs_turn_and_counts_for_it() -> None:
    state = make(4)
    run(state, wants(A, 100))
    commands = run(state, ev.BundlesWanted("g", 1, {0: ONE_CPU, 1: ONE_CPU}, 0, 0.0, HIGH))
    for client, worker in asked_back(commands):
        commands = run(state, returned(client, worker), wants(A, 100))
    assert ev.BundlesReserved("g", 1) in commands
    state.apply(ev.BundlesCommitted("g", 1, 0.0))
    assert give_back_all(state, run(state, wants(B, 100))) == {"A": 1, "B": 1}


def test_within_a_job_all_is_as_ever() -> None:
    state = make(4)
    run(state, wants(A, 100), wants(B, 1))
    assert len(asked_back(run(state, wants(B, 0), wants(A, 3, key="g")))) == 1


def test_another_job_gives_what_its_share_does_not_cover_before_its_own_does() -> None:
    """A has three of four CPUs, and a driver of B the fourth. One of B's tasks, which has none itself, wants one."""
    state = make(4)
    run(state, wants(A, 3), wants(B, 1))
    state.apply(ev.ClientJoined("task", 0.0))
    assert [client for client, _ in asked_back(run(state, wants(B, 1)._replace(client="task")))] == ["A"]


def test_cpus_that_a_waiting_worker_lends_count_for_nobody() -> None:
    state = make(2)
    run(state, wants(A, 2))
    blocked = [ev.WorkerBlocked(worker, 0.0) for worker in state.clients["A"]]
    assert granted(run(state, wants(B, 1), wants(A, 1, key="g"), *blocked)) in ("AB", "BA")


def test_two_jobs_that_become_one_are_counted_no_more() -> None:
    state = make(2)
    run(state, wants(A, 2), wants(B, 1))
    assert state._shares.is_shared
    run(state, ev.ClientLeft("B", 0.0))
    assert state._shares.is_shared, "what it had left running runs"
    run(state, *(ev.WorkerExited(worker.id, 0, 0, 0.0) for worker in [*state.workers.values()] if '"B"' in worker.env))
    assert not state._shares.is_shared


def test_what_one_job_has_all_of_is_shared_though_another_has_as_much_of_something_else() -> None:
    state = make(4, GPU=1)
    run(state, wants(A, 4))
    run(state, wants(B, 1, key="device", resources={"GPU": UNIT}))
    assert give_back_all(state, run(state, wants(B, 9))) == {"A": 3, "B": 2}


def test_who_has_nothing_of_a_resource_is_given_what_was_asked_back_for_it() -> None:
    """B has the only GPU, and so a larger share than A, which waits as well: its CPU went back to A, and was asked back again."""
    state = make(4, GPU=1)
    run(state, wants(A, 9))
    run(state, wants(B, 1, key="device", resources={"GPU": UNIT}))
    ((client, worker),) = asked_back(run(state, wants(B, 9)))
    commands = run(state, returned(client, worker))
    assert (granted(commands), asked_back(commands)) == ("B", [])


def test_the_last_of_a_resource_is_kept_from_whoever_has_some() -> None:
    """A has three of four GPUs. Its only CPU would be given to B, and then be asked back for A, which had none."""
    state = make(3, GPU=4)
    run(state, wants(A, 1), wants(B, 1), wants(C, 1), wants(A, 3, key="device", resources={"GPU": UNIT}))
    assert asked_back(run(state, wants(A, 2), wants(B, 2))) == []


def test_jobs_with_equal_shares_take_nothing_from_each_other_for_tasks_of_another_kind() -> None:
    state = make(2)
    run(state, wants(A, 1), wants(B, 1))
    assert [client for client, _ in asked_back(run(state, wants(A, 5, key="g")))] == ["A"]


# ---- reasons ----


def why(state: AgentState, client: str) -> str:
    return next(str(one.why) for one in state.pending() if one.client == client)


def test_who_waits_is_told_where_its_job_stands() -> None:
    state = make(4)
    commands = run(state, wants(A, 100)) + run(state, wants(B, 100))
    assert why(state, "B").endswith(
        "job B has 0 of 4 CPU, less than its share, and goes first, beside 1 other (weight 1 of 2)"
    )
    give_back_all(state, commands)
    assert why(state, "A") == (
        "it needs {CPU: 1} and waits for CPU (0 of 4 free), held by 4 tasks and actors; job A is at its share of CPU, 2 of 4, "
        "beside 1 other (weight 1 of 2)"
    )


def test_who_waits_is_told_of_higher_priorities() -> None:
    state = make(2)
    run(state, wants(HIGH, 2))
    run(state, wants(A, 1))
    assert why(state, "A").endswith("job A is at its share of CPU, 0 of 2; before it come jobs of higher priority (P)")


def test_of_a_lone_job_nothing_of_this_is_said() -> None:
    state = make(1)
    run(state, wants(A, 2))
    assert why(state, "A").endswith("held by 1 task or actor")


# ---- preemption ----


def preempted(*workers: str, at_s: float) -> ev.TasksPreempted:
    return ev.TasksPreempted(workers, "stopped", at_s)


def looked_at(commands: Iterable[ev.AgentCommand]) -> list[str]:
    return [one.worker for one in commands if isinstance(one, ev.LookAtTask)]


def stopped(commands: Iterable[ev.AgentCommand]) -> list[str]:
    return [worker for one in commands if isinstance(one, ev.Preempt) for worker, _ in one.tasks]


def test_the_newest_tasks_are_stopped_that_may_be_once_they_had_time_to_end() -> None:
    state = make(3)
    run(state, wants(A, 3))
    assert len(asked_back(run(state, wants(STOPS, 2)))) == 2
    assert looked_at(run(state, ev.Ticked(0.9))) == []
    workers = looked_at(run(state, ev.Ticked(1.0)))
    assert len(workers) == 2
    first = run(state, ev.TaskSeen(workers[0], 7, 100.0, "", 1.0))
    assert stopped(first) == [], "the other has not answered yet"
    commands = run(state, ev.TaskSeen(workers[1], 8, 200.0, "", 1.0))
    assert stopped(commands) == [workers[1], workers[0]]
    reason = "was stopped for job S of priority 10, which waits for CPU 1"
    assert commands[0] == ev.Preempt(((workers[1], 8),), reason)
    assert run(state, preempted(workers[1], at_s=1.0)) == [ev.KillWorker(workers[1])]
    broken = ev.LeaseBroken("A", workers[1], 0, 9, "stopped", is_intended=False, is_preempted=True)
    assert run(state, ev.WorkerExited(workers[1], 0, 9, 1.1)) == [broken, ev.Grant("S", "f", "w4", ONE_CPU, {})]


def test_only_as_many_are_stopped_as_are_needed() -> None:
    state = make(2)
    run(state, wants(A, 1, resources={"CPU": 2 * UNIT}))
    run(state, wants(STOPS, 1))
    (worker,) = looked_at(run(state, ev.Ticked(1.0)))
    assert stopped(run(state, ev.TaskSeen(worker, 7, 100.0, "", 1.0))) == [worker]


def test_what_may_not_be_stopped_is_left_and_asked_again() -> None:
    state = make(1)
    run(state, wants(A, 1))
    run(state, wants(STOPS, 1))
    (worker,) = looked_at(run(state, ev.Ticked(1.0)))
    assert stopped(run(state, ev.TaskSeen(worker, 7, 100.0, "max_retries=0", 1.0))) == []
    assert stopped(run(state, ev.Ticked(1.5))) == []
    assert looked_at(run(state, ev.Ticked(2.0))) == [worker]
    assert stopped(run(state, ev.TaskSeen(worker, -1, 0.0, "", 2.0))) == [], "it runs nothing, and comes back by itself"
    assert looked_at(run(state, ev.Ticked(3.0))) == [worker]
    assert stopped(run(state, ev.TaskSeen(worker, 8, 300.0, "", 3.0))) == [worker]


def test_for_one_that_may_not_be_stopped_another_is_asked_back() -> None:
    state = make(2)
    run(state, wants(A, 2))
    ((_, first),) = asked_back(run(state, wants(STOPS, 1)))
    assert looked_at(run(state, ev.Ticked(1.0))) == [first]
    ((_, second),) = asked_back(run(state, ev.TaskSeen(first, 7, 100.0, "max_retries=0", 1.0)))
    assert second != first
    assert why(state, "S").endswith("1 task that was to be stopped for it cannot be: max_retries=0")
    assert looked_at(run(state, ev.Ticked(2.0))) == [first, second]
    run(state, ev.TaskSeen(first, 7, 100.0, "max_retries=0", 2.0))
    assert stopped(run(state, ev.TaskSeen(second, 8, 50.0, "", 2.0))) == [second]


def test_nothing_is_stopped_for_what_has_to_wait_for_its_environment() -> None:
    state = make(1)
    run(state, wants(A, 1))
    (begin,) = [
        one for one in state.apply(wants(STOPS, 1)._replace(build_key="b")) if isinstance(one, environments.Begin)
    ]
    assert looked_at(run(state, ev.Ticked(5.0))) == []
    ready = state.apply(environments.Ready(begin.server, 6.0))
    assert looked_at(ready) == ["w1"]


def test_a_worker_that_does_not_answer_holds_up_no_other() -> None:
    state = make(2)
    run(state, wants(A, 2))
    run(state, wants(STOPS, 2))
    one, other = looked_at(run(state, ev.Ticked(1.0)))
    assert stopped(run(state, ev.TaskSeen(other, 7, 100.0, "", 1.0))) == []
    due_s = state.next_tick_s()
    assert due_s == 1.5
    assert stopped(run(state, ev.Ticked(1.5))) == [other]
    assert one not in stopped(run(state, ev.Ticked(9.0)))


def test_for_one_that_never_answers_another_is_asked_back() -> None:
    """Its lease counted as coming back for as long as it did not."""
    state = make(2)
    run(state, wants(A, 2))
    ((_, first),) = asked_back(run(state, wants(STOPS, 1)))
    for at_s in (1.0, 2.0, 3.0):
        commands = run(state, ev.Ticked(at_s))
        assert (looked_at(commands), asked_back(commands)) == ([first], [])
    run(state, ev.Ticked(4.0))
    ((_, second),) = asked_back(run(state, ev.Ticked(5.0)))
    assert second != first
    reason = "1 task that was to be stopped for it cannot be: its worker does not say what runs there"
    assert why(state, "S").endswith(reason)
    assert stopped(run(state, ev.TaskSeen(first, 7, 100.0, "", 5.5))) == [first], "it answers at last"
    assert "cannot be" not in why(state, "S")


def test_neither_actors_nor_higher_nor_equal_priorities_are_stopped() -> None:
    state = make(2)
    equal = ev.Job("B", priority=10)
    run(state, ev.ActorWanted("a", ONE_CPU, ONE_CPU, 0, '{"job":"A"}', "", 0.0, job=A), wants(equal, 1))
    run(state, wants(STOPS, 1))
    for at_s in (1.0, 2.0, 5.0):
        assert looked_at(run(state, ev.Ticked(at_s))) == []


def test_nothing_is_stopped_for_a_job_that_does_not_want_it() -> None:
    state = make(1)
    run(state, wants(A, 1))
    run(state, wants(HIGH, 1))
    assert looked_at(run(state, ev.Ticked(1.0), ev.Ticked(50.0))) == []


def test_a_lease_that_came_back_meanwhile_is_not_stopped() -> None:
    state = make(1)
    run(state, wants(A, 1))
    run(state, wants(STOPS, 1))
    (worker,) = looked_at(run(state, ev.Ticked(1.0)))
    assert granted(run(state, returned("A", worker, 1.0), at_s=1.0)) == "S"
    assert stopped(run(state, ev.TaskSeen(worker, 7, 100.0, "", 1.0))) == []
    assert run(state, preempted(worker, at_s=1.0)) == []


def both_may_be_stopped(state: AgentState, at_s: float) -> list[str]:
    """Who is looked at says what it runs: each a task that may be stopped, the last one the newest. Returns who is stopped."""
    found = []
    for number, worker in enumerate(looked_at(run(state, ev.Ticked(at_s)))):
        found += stopped(run(state, ev.TaskSeen(worker, number, float(number), "", at_s)))
    return found


def test_no_other_is_stopped_while_the_end_of_one_that_was_is_not_known() -> None:
    """Two were asked back, since the first could not be stopped at first."""
    state = make(2)
    run(state, wants(A, 2))
    run(state, wants(STOPS, 1))
    (first,) = looked_at(run(state, ev.Ticked(1.0)))
    run(state, ev.TaskSeen(first, 7, 100.0, "others use what it has put", 1.0))
    (gone,) = both_may_be_stopped(state, 2.0)
    assert run(state, preempted(gone, at_s=2.0)) == [ev.KillWorker(gone)]
    assert stopped(run(state, ev.Ticked(2.1))) == []
    assert granted(run(state, ev.WorkerExited(gone, 0, 9, 2.2), at_s=2.2)) == "S"


def test_none_is_stopped_for_one_that_comes_back_by_itself() -> None:
    state = make(2)
    run(state, wants(A, 2))
    run(state, wants(STOPS, 1))
    (first,) = looked_at(run(state, ev.Ticked(1.0)))
    run(state, ev.TaskSeen(first, 7, 100.0, "others use what it has put", 1.0))
    first, second = looked_at(run(state, ev.Ticked(2.0)))
    commands = run(state, ev.TaskSeen(first, -1, 0.0, "", 2.0), ev.TaskSeen(second, 8, 100.0, "", 2.0))
    assert stopped(commands) == []


def test_what_is_stopped_together_is_kept_for_whom_it_was_stopped_until_all_of_it_has_ended() -> None:
    """After two seconds precedence is that of others for a while: then what ended first ran again, and was stopped again."""
    state = make(2)
    two = {"CPU": 2 * UNIT}
    run(state, wants(A, 2))
    run(state, wants(STOPS, 1, resources=two))
    first, second = both_may_be_stopped(state, 2.5)
    assert len(run(state, preempted(first, second, at_s=2.5))) == 2
    assert granted(run(state, ev.WorkerExited(first, 0, 9, 2.6), wants(A, 1, at_s=2.6), at_s=2.6)) == ""
    assert granted(run(state, ev.WorkerExited(second, 0, 9, 2.7), at_s=2.7)) == "S"


def test_none_is_stopped_where_not_all_that_is_needed_can_be_had_so() -> None:
    state = make(2)
    run(state, wants(A, 2))
    run(state, wants(STOPS, 1, resources={"CPU": 2 * UNIT}))
    one, other = looked_at(run(state, ev.Ticked(1.0)))
    commands = run(state, ev.TaskSeen(one, 7, 100.0, "max_retries=0", 1.0), ev.TaskSeen(other, 8, 200.0, "", 1.0))
    assert stopped(commands) == []


def test_one_that_turns_out_not_to_be_needed_is_not_stopped() -> None:
    """The newest has one of two CPUs that are needed, and another both."""
    state = make(3)
    two = {"CPU": 2 * UNIT}
    run(state, wants(A, 1, key="large", resources=two), wants(A, 1))
    run(state, wants(STOPS, 1, resources=two))
    run(state, wants(STOPS, 1, key="more"))
    seen = {}
    for worker in looked_at(run(state, ev.Ticked(1.0))):
        amount = state.workers[worker].lease.resources["CPU"] // UNIT  # type: ignore[union-attr]  # it is leased
        seen[amount] = worker
        commands = run(state, ev.TaskSeen(worker, amount, 10.0 - amount, "", 1.0))
    orders = [one.tasks for one in commands if isinstance(one, ev.Preempt)]
    assert orders == [((seen[2], 2),), ((seen[1], 1),)]


def test_of_those_to_be_stopped_together_none_is_where_one_has_come_back() -> None:
    state = make(2)
    run(state, wants(A, 2))
    run(state, wants(STOPS, 1, resources={"CPU": 2 * UNIT}))
    first, second = both_may_be_stopped(state, 1.0)
    run(state, returned("A", first, 1.0), at_s=1.0)
    assert run(state, preempted(first, second, at_s=1.0)) == []


def test_room_is_kept_for_a_higher_priority_whose_worker_cannot_be_started_yet() -> None:
    """All starts that may be under way at once are: it only lacks a process, and else would have a task stopped later."""
    ids = (f"w{number}" for number in itertools.count(1))
    state = AgentState(ledger=Ledger({"CPU": UNIT}, {}), worker_ids=ids, starts_max=1, idle_max=2)
    state.apply(*(ev.ClientJoined(job.id, 0.0) for job in (A, B, STOPS)))
    run(state, wants(A, 1))
    run(state, returned("A", "w1"))
    assert state.apply(wants(B, 1), wants(B, 0)) == [ev.StartWorker("w2", '{"job":"B"}', "")]
    assert state.apply(wants(STOPS, 1), wants(A, 1)) == []
    assert state.apply(ev.WorkerReady("w2", 0.1)) == [ev.StartWorker("w3", '{"job":"S"}', "")]
    assert granted(state.apply(ev.WorkerReady("w3", 0.2))) == "S"
