"""The agent's decisions about leases, workers and resources, as lists of events."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from umbel import exceptions
from umbel._agent import events as ev
from umbel._agent import fairness
from umbel._agent.demand_table import BUSY_FAILS_S, INFEASIBLE_WARNING_S
from umbel._agent.ledger import UNIT, Ledger
from umbel._agent.records import START_TIMEOUT_S, WorkerState
from umbel._agent.state import IDLE_WORKER_S, START_FAILURES_MAX, AgentState
from umbel._agent.worker_table import (
    ASK_TIMEOUT_S,
    LOST_GRACE_S,
    ORPHAN_GRACE_S,
    ORPHAN_RETRY_S,
    START_RETRY_S,
    STAYED_RETRY_S,
)

ONE_CPU = {"CPU": UNIT}


def ids() -> Iterator[str]:
    return (f"w{number}" for number in itertools.count(1))


def make(
    cpus: int = 2,
    *,
    gpus: tuple[str, ...] = (),
    starts_max: int = 4,
    infeasible_timeout_s: float | None = None,
    recycle_s: float | None = None,
    is_kept: Callable[[str], bool] | None = None,
) -> AgentState:
    total = {"CPU": cpus * UNIT, **({"GPU": len(gpus) * UNIT} if gpus else {})}
    ledger = Ledger(total, {"GPU": gpus} if gpus else {})
    state = AgentState(
        ledger=ledger,
        worker_ids=ids(),
        starts_max=starts_max,
        idle_max=cpus,
        infeasible_timeout_s=infeasible_timeout_s,
        recycle_s=recycle_s,
        is_kept=is_kept,
    )
    state.apply(ev.ClientJoined("driver", 0.0))
    return state


def demand(
    count: int = 1,
    *,
    client: str = "driver",
    key: str = "f",
    resources: dict[str, int] | None = None,
    depth: int = 0,
    env: str = "",
    refusal: str = "",
    at_s: float = 0.0,
    strategy: dict[str, object] | None = None,
) -> ev.DemandChanged:
    needs = ONE_CPU if resources is None else resources
    return ev.DemandChanged(client, key, needs, count, depth, env, refusal, at_s, strategy)


def actor(
    name: str = "a", *, running: dict[str, int] | None = None, placement: dict[str, int] | None = None
) -> ev.ActorWanted:
    return ev.ActorWanted(name, placement or ONE_CPU, running or {}, 0, "", "", 0.0)


def ready(state: AgentState, worker: str, at_s: float = 0.0) -> list[ev.AgentCommand]:
    """A started worker connects and says hello."""
    return state.apply(ev.ClientJoined(worker, at_s), ev.WorkerReady(worker, at_s))


def grant(worker: str, *, client: str = "driver", key: str = "f", resources: dict[str, int] | None = None) -> ev.Grant:
    return ev.Grant(client, key, worker, ONE_CPU if resources is None else resources, {})


def test_demand_starts_as_many_workers_as_resources_allow() -> None:
    assert make(2).apply(demand(5)) == [ev.StartWorker("w1", ""), ev.StartWorker("w2", "")]


def test_demand_starts_no_more_workers_at_once_than_allowed() -> None:
    state = make(8, starts_max=2)
    assert state.apply(demand(5)) == [ev.StartWorker("w1", ""), ev.StartWorker("w2", "")]
    assert ready(state, "w1") == [grant("w1"), ev.StartWorker("w3", "")]


def test_repeated_demand_starts_nothing_more() -> None:
    state = make()
    state.apply(demand(1))
    assert state.apply(demand(1)) == []


def test_ready_worker_is_granted_and_counted_against_the_demand() -> None:
    state = make()
    state.apply(demand(1))
    assert ready(state, "w1") == [grant("w1")]
    assert state.pending() == []
    assert state.ledger.free == {"CPU": UNIT}


def test_returned_worker_is_reused() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 1.0)) == []
    assert state.apply(demand(1, key="g")) == [grant("w1", key="g")]


def test_withdrawn_demand_leaves_the_started_worker_idle() -> None:
    state = make(1)
    state.apply(demand(1), demand(0))
    assert ready(state, "w1") == []
    assert state.workers["w1"].state is WorkerState.IDLE


def test_return_of_an_unknown_lease_is_ignored() -> None:
    state = make(1)
    assert state.apply(ev.LeaseReturned("driver", "nobody", False, 1.0)) == []


def test_deeper_demand_is_served_first() -> None:
    state = make(1)
    state.apply(ev.ClientJoined("w9", 0.0), demand(1, key="shallow"), demand(1, client="w9", key="deep", depth=3))
    assert ready(state, "w1") == [grant("w1", client="w9", key="deep"), ev.Reclaim("w9", "w1")]


def test_equal_demands_take_turns() -> None:
    state = make(1)
    state.apply(demand(2, key="f"), demand(2, key="g"))
    assert ready(state, "w1")[0] == grant("w1", key="f")
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 1.0))[0] == grant("w1", key="g")
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 2.0))[0] == grant("w1", key="f")


def test_demand_of_another_environment_gets_its_own_worker() -> None:
    state = make(2)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.LeaseReturned("driver", "w1", False, 0.0))
    assert state.apply(demand(1, key="g", env='{"a":1}')) == [ev.StartWorker("w2", '{"a":1}')]
    assert ready(state, "w2") == [grant("w2", key="g")]


def test_resources_promised_to_a_starting_worker_are_not_given_to_a_later_demand() -> None:
    """The idle plain worker must not take the only CPU from the demand that waits for its own kind of worker."""
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.LeaseReturned("driver", "w1", False, 0.0), demand(1, key="special", env="E"))
    assert state.apply(demand(1, key="plain")) == []
    assert ready(state, "w2")[0] == grant("w2", key="special")


# ---- resources ----


def test_blocked_worker_lends_its_cpu() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    assert state.apply(ev.WorkerBlocked("w1", 1.0), demand(1, client="w1", key="child", depth=1)) == [
        ev.StartWorker("w2", "")
    ]
    assert ready(state, "w2") == [grant("w2", client="w1", key="child")]


def test_unblocked_worker_may_oversubscribe_and_nothing_is_granted_until_that_is_over() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.WorkerBlocked("w1", 1.0), demand(1, client="w1", key="child", depth=1))
    ready(state, "w2")
    state.apply(ev.WorkerUnblocked("w1", 2.0))
    assert state.ledger.free == {"CPU": -UNIT}
    assert state.apply(demand(1, key="g")) == [ev.Reclaim("driver", "w1"), ev.Reclaim("w1", "w2")]
    assert state.apply(ev.LeaseReturned("w1", "w2", False, 3.0)) == []
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 4.0)) == [grant("w1", key="g")]


def test_who_goes_on_where_another_has_its_cpu_gives_its_lease_back_when_its_task_has_ended() -> None:
    """Before: both were kept, and two tasks at a time ran on one CPU for as long as there were any, whatever other nodes had."""
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.WorkerBlocked("w1", 1.0), demand(1))
    ready(state, "w2")
    assert state.apply(ev.WorkerUnblocked("w1", 2.0)) == [ev.Reclaim("driver", "w1")]
    assert state.apply(ev.WorkerBlocked("w1", 3.0)) == []
    assert state.apply(ev.WorkerUnblocked("w1", 4.0)) == []  # it was asked for
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 5.0)) == []
    assert state.ledger.free == {"CPU": 0}


def test_who_goes_on_where_its_own_tasks_had_its_cpu_keeps_its_lease() -> None:
    """Those are over, and each round of them would cost it a lease; so are those of who runs beside it, and went on before."""
    state = make(2)
    state.apply(demand(2))
    ready(state, "w1")
    ready(state, "w2")
    for parent, child in ("w1", "w3"), ("w2", "w4"):
        state.apply(ev.WorkerBlocked(parent, 1.0), demand(1, client=parent, key="child", depth=1))
        ready(state, child)
    assert state.ledger.free == {"CPU": 0}
    assert state.apply(ev.WorkerUnblocked("w1", 2.0), ev.WorkerUnblocked("w2", 2.0)) == []
    assert state.ledger.free == {"CPU": -2 * UNIT}


def test_who_goes_on_counts_tasks_of_those_that_wait_for_them() -> None:
    state = make(1)
    state.apply(demand(2))
    ready(state, "w1")
    state.apply(ev.WorkerBlocked("w1", 1.0))
    ready(state, "w2")
    state.apply(ev.WorkerBlocked("w2", 2.0), demand(1, client="w2", key="child", depth=1))
    ready(state, "w3")
    assert state.apply(ev.WorkerUnblocked("w1", 3.0)) == [ev.Reclaim("driver", "w1")]


def test_an_actor_that_goes_on_has_its_cpu_back_from_whoever_got_it_last() -> None:
    state = make(2)
    state.apply(demand(1), ev.ActorWanted("a1", ONE_CPU, ONE_CPU, 0, "", "", 0.0))
    ready(state, "w1")
    ready(state, "w2")
    (actors,) = [worker.id for worker in state.workers.values() if worker.state is WorkerState.ACTOR]
    state.apply(ev.WorkerBlocked(actors, 1.0), demand(1, key="g"))
    ready(state, "w3")
    assert state.apply(ev.WorkerUnblocked(actors, 2.0)) == [ev.Reclaim("driver", "w3")]


def test_blocked_worker_keeps_everything_but_cpus() -> None:
    state = make(1, gpus=("0",))
    state.apply(demand(1, resources={"CPU": UNIT, "GPU": UNIT}))
    ready(state, "w1")
    state.apply(ev.WorkerBlocked("w1", 1.0))
    assert state.ledger.free == {"CPU": UNIT, "GPU": 0}


def test_blocked_lease_that_ends_gives_back_once() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.WorkerBlocked("w1", 1.0), ev.LeaseReturned("driver", "w1", False, 2.0))
    assert state.ledger.free == {"CPU": UNIT}


def test_whole_accelerators_are_handed_out_by_id() -> None:
    state = make(4, gpus=("0", "1", "2"))
    state.apply(demand(1, resources={"GPU": 2 * UNIT}), demand(1, key="g", resources={"GPU": UNIT}))
    assert ready(state, "w1") == [ev.Grant("driver", "f", "w1", {"GPU": 2 * UNIT}, {"GPU": ("0", "1")})]
    assert ready(state, "w2") == [ev.Grant("driver", "g", "w2", {"GPU": UNIT}, {"GPU": ("2",)})]


def test_shares_of_accelerators_fill_one_device_before_the_next() -> None:
    state = make(4, gpus=("0", "1"))
    half = {"GPU": UNIT // 2}
    state.apply(demand(2, resources=half), demand(1, key="whole", resources={"GPU": UNIT}))
    granted = [command for worker in ("w1", "w2", "w3") for command in ready(state, worker)]
    assert granted == [
        ev.Grant("driver", "f", "w1", half, {"GPU": ("0",)}),
        ev.Grant("driver", "whole", "w2", {"GPU": UNIT}, {"GPU": ("1",)}),
        ev.Grant("driver", "f", "w3", half, {"GPU": ("0",)}),
    ]


def test_accelerator_in_pieces_is_not_handed_out_as_a_whole() -> None:
    ledger = Ledger({"GPU": 2 * UNIT}, {"GPU": ("0", "1")})
    share = {"GPU": UNIT * 6 // 10}
    ledger.acquire(share)
    ledger.acquire(share)
    assert ledger.missing({"GPU": UNIT * 8 // 10}) == {"GPU": UNIT * 8 // 10}
    assert ledger.missing({"GPU": UNIT // 2}) == {"GPU": UNIT // 2}
    ledger.check()


def test_tasks_without_cpus_are_bounded_unless_they_block() -> None:
    state = make(1, starts_max=1_000)
    assert len(state.apply(demand(500, resources={}))) == 32
    granted = [command for number in range(32) for command in ready(state, f"w{number + 1}")]
    assert granted == [grant(f"w{number + 1}", resources={}) for number in range(32)]
    assert "need no CPU" in str(state.pending()[0].why)
    assert state.apply(ev.WorkerBlocked("w1", 1.0)) == [ev.StartWorker("w33", "")]


# ---- waiting with a reason ----


def test_infeasible_demand_is_warned_about_once_and_says_what_to_do() -> None:
    state = make(2)
    assert state.apply(demand(1, resources={"CPU": 3 * UNIT})) == []
    assert state.next_tick_s() == INFEASIBLE_WARNING_S
    (warning,) = state.apply(ev.Ticked(INFEASIBLE_WARNING_S))
    assert warning == ev.Warn(
        "A task cannot be scheduled and waits: it needs {CPU: 3}, but this node has {CPU: 2} in all; "
        "ask for less of CPU, or start Umbel with more",
        {"needs": {"CPU": 3 * UNIT}, "labels": []},
    )
    assert state.apply(ev.Ticked(9.0)) == []
    assert state.next_tick_s() is None


def test_infeasible_demand_ends_when_its_time_is_up() -> None:
    state = make(2, infeasible_timeout_s=5.0)
    state.apply(demand(1, resources={"CPU": 3 * UNIT}), actor(placement={"TPU": UNIT}), ev.Ticked(INFEASIBLE_WARNING_S))
    assert state.next_tick_s() == 5.0
    task, wish = state.apply(ev.Ticked(5.0))
    why = "it needs {%s}, but this node has {%s} in all; ask for less of %s, or start Umbel with more (it has waited for 5 s"
    assert isinstance(task, ev.DemandFailed)
    assert (task.client, task.key, task.is_unschedulable) == ("driver", "f", True)
    assert task.reason.startswith(why % ("CPU: 3", "CPU: 2", "CPU"))
    assert isinstance(wish, ev.ActorUnplaceable)
    assert (wish.actor, wish.is_unschedulable) == ("a", True)
    assert wish.reason.startswith(why % ("TPU: 1", "TPU: 0", "TPU"))
    assert state.pending() == []
    assert state.next_tick_s() is None


def test_demand_that_resources_are_missing_for_has_no_such_limit() -> None:
    state = make(1, infeasible_timeout_s=5.0)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(demand(1, key="g"))
    assert state.apply(ev.Ticked(100.0)) == []
    assert [one.key for one in state.pending()] == ["g"]


AT_ONCE: dict[str, object] = {"node_id": "n", "soft": False, "fails_when_busy": True}


def test_demand_that_is_not_to_wait_gets_what_is_leased_and_not_used() -> None:
    state = make(1)
    state.apply(ev.ClientJoined("w9", 0.0), demand(1))
    ready(state, "w1")
    at_once = demand(1, client="w9", key="g", at_s=1.0, strategy=AT_ONCE)
    assert state.apply(at_once) == [ev.Reclaim("driver", "w1")]
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 1.1)) == [grant("w1", client="w9", key="g")]
    assert state.apply(ev.Ticked(1.0 + BUSY_FAILS_S)) == []
    state.check()


def test_demand_that_is_not_to_wait_ends_when_what_it_needs_is_in_use() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(demand(2, key="g", at_s=1.0, strategy=AT_ONCE), demand(1, key="h", at_s=1.0))
    assert state.next_tick_s() == 1.0 + BUSY_FAILS_S
    (failed,) = state.apply(ev.Ticked(1.0 + BUSY_FAILS_S))
    assert failed == ev.DemandFailed(
        "driver",
        "g",
        "it needs {CPU: 1} and waits for CPU (0 of 1 free), held by 1 task or actor; its affinity says not to wait",
        is_unschedulable=True,
        is_busy=True,
    )
    assert [one.key for one in state.pending()] == ["h"]
    state.check()


def test_demand_that_is_not_to_wait_may_wait_for_a_process() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(demand(1, key="g", at_s=1.0, strategy=AT_ONCE))
    state.apply(ev.LeaseReturned("driver", "w1", True, 1.1))  # nobody may use its worker again
    assert state.apply(ev.Ticked(1.0 + BUSY_FAILS_S)) == []
    due_s = state.next_tick_s()
    assert due_s is not None and due_s > 1.0 + BUSY_FAILS_S
    assert ready(state, "w2", 3.0) == [grant("w2", key="g")]
    state.check()


def test_infeasible_demand_holds_nobody_up() -> None:
    state = make(2)
    assert state.apply(demand(1, resources={"TPU": UNIT}), demand(1, key="g")) == [ev.StartWorker("w1", "")]


def test_demand_that_the_node_refuses_waits_with_that_reason() -> None:
    state = make(2)
    assert state.apply(demand(1, refusal="wrong labels"), demand(1, key="g")) == [ev.StartWorker("w1", "")]
    assert str(state.pending()[0].why) == "wrong labels"
    lacks = {"needs": {"CPU": UNIT}, "labels": []}
    assert state.apply(ev.Ticked(1.0)) == [ev.Warn("A task cannot be scheduled and waits: wrong labels", lacks)]


def test_pending_tells_busy_resources_from_a_starting_worker() -> None:
    state = make(1)
    state.apply(demand(1))
    assert [str(one.why) for one in state.pending()] == ["its worker process is starting"]
    ready(state, "w1")
    state.apply(demand(1, key="g"))
    assert [str(one.why) for one in state.pending()] == [
        "it needs {CPU: 1} and waits for CPU (0 of 1 free), held by 1 task or actor"
    ]


# ---- taking turns between holders ----


def test_idle_or_busy_lease_is_asked_back_when_another_client_has_none() -> None:
    state = make(1)
    state.apply(ev.ClientJoined("w9", 0.0), demand(1))
    ready(state, "w1")
    assert state.apply(demand(1, client="w9", key="g")) == [ev.Reclaim("driver", "w1")]
    assert state.apply(demand(1, client="w9", key="g")) == []
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 1.0)) == [grant("w1", client="w9", key="g")]


def test_leases_do_not_go_back_and_forth_between_equals() -> None:
    state = make(2)
    state.apply(ev.ClientJoined("w9", 0.0), demand(1))
    ready(state, "w1")
    state.apply(demand(1, client="w9", key="g"))
    ready(state, "w2")
    assert state.apply(demand(5), demand(5, client="w9", key="g")) == []


def test_group_with_two_more_leases_gives_one() -> None:
    state = make(3)
    state.apply(ev.ClientJoined("w9", 0.0), demand(3))
    for worker in ("w1", "w2", "w3"):
        ready(state, worker)
    assert state.apply(demand(5, client="w9", key="g")) == [ev.Reclaim("driver", "w1")]


def test_leases_of_other_resources_are_not_asked_back() -> None:
    state = make(1, gpus=("0",))
    state.apply(demand(1, resources={"GPU": UNIT}), demand(1, key="cpu"))
    ready(state, "w1")
    ready(state, "w2")
    assert state.apply(demand(1, key="other")) == [ev.Reclaim("driver", "w2")]


def test_large_demand_gets_precedence_over_a_stream_of_small_ones() -> None:
    """Without it, each CPU that comes free would go to the small tasks that fit."""
    state = make(2)
    state.apply(demand(2))
    ready(state, "w1")
    ready(state, "w2")
    state.apply(demand(1, key="large", resources={"CPU": 2 * UNIT}), demand(9))
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 0.5))[0] == grant("w1")
    assert state.next_tick_s() == fairness.FIRST_SPELL_S
    at_s = fairness.FIRST_SPELL_S
    assert state.apply(ev.LeaseReturned("driver", "w1", False, at_s)) == []
    assert state.apply(ev.LeaseReturned("driver", "w2", False, at_s)) == [
        ev.Grant("driver", "large", "w2", {"CPU": 2 * UNIT}, {}),
        ev.Reclaim("driver", "w2"),
    ]


def test_precedence_pauses_so_that_what_a_running_task_needs_can_run() -> None:
    state = make(2)
    state.apply(demand(2))
    ready(state, "w1")
    ready(state, "w2")
    state.apply(demand(1, key="large", resources={"CPU": 2 * UNIT}), demand(1, key="small"))
    state.apply(ev.Ticked(1.5))
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 1.6)) == []
    assert str(state.pending()[1].why) == "an older demand for {CPU: 2} goes first for a moment"
    assert state.next_tick_s() == 2.0
    assert state.apply(ev.Ticked(2.0))[0] == grant("w1", key="small")


def test_spells_of_precedence_double() -> None:
    changes = [0.0]
    while changes[-1] < 30.0:
        changes.append(fairness.next_change_s(changes[-1]))
    assert changes == [0.0, 1.0, 2.0, 4.0, 6.0, 10.0, 14.0, 22.0, 30.0]
    assert [fairness.has_precedence(at_s) for at_s in changes] == [False, True] * 4 + [False]


# ---- the end of workers and clients ----


def test_death_of_a_leased_worker_is_told_to_its_holder() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    assert state.apply(ev.WorkerExited("w1", 0, 9, 1.0)) == [
        ev.LeaseBroken("driver", "w1", 0, 9, "", is_intended=False)
    ]
    assert state.ledger.free == state.ledger.total
    assert state.workers == {}


def test_death_of_a_worker_lets_the_next_demand_start_another() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(demand(1, key="g"))
    assert state.apply(ev.WorkerExited("w1", 0, 9, 1.0))[-1] == ev.StartWorker("w2", "")


def test_killing_by_the_holder_is_intended() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    assert state.apply(ev.KillRequested("driver", "w1", "cancelled", 1.0)) == [ev.KillWorker("w1")]
    assert state.apply(ev.KillRequested("driver", "w1", "cancelled", 1.0)) == []
    assert state.apply(ev.WorkerExited("w1", 0, 9, 2.0)) == [
        ev.LeaseBroken("driver", "w1", 0, 9, "cancelled", is_intended=True)
    ]


def test_killing_by_a_stranger_is_ignored() -> None:
    state = make(1)
    state.apply(ev.ClientJoined("w9", 0.0), demand(1))
    ready(state, "w1")
    assert state.apply(ev.KillRequested("w9", "w1", "", 1.0)) == []


def test_lease_returned_while_its_worker_is_being_killed_is_not_granted_again() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.KillRequested("driver", "w1", "cancelled", 1.0))
    state.apply(ev.LeaseReturned("driver", "w1", False, 1.0))
    assert state.apply(demand(1)) == [ev.StartWorker("w2", "")]
    state.check()


def test_death_of_a_client_ends_its_tasks_and_drops_its_demands() -> None:
    state = make(3)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(demand(1, client="w1", key="child", depth=1))
    ready(state, "w2")
    state.apply(demand(9, client="w1", key="child", depth=1))
    assert state.apply(ev.WorkerExited("w1", 0, 9, 1.0)) == [
        ev.LeaseBroken("driver", "w1", 0, 9, "", is_intended=False),
        ev.AskExit("w2", is_idle=True),
    ]
    assert state.apply(ev.WorkerExited("w2", 0, 9, 2.0)) == []
    assert [one.client for one in state.pending()] == []
    assert state.ledger.free == state.ledger.total


def orphaned() -> AgentState:
    """A state in which w1 still runs a task whose submitter is gone."""
    state = make(1)
    state.apply(ev.ClientJoined("w9", 0.0), demand(1, client="w9"))
    ready(state, "w1")
    assert state.apply(ev.ClientLeft("w9", 1.0)) == [ev.AskExit("w1", is_idle=True)]
    return state


def test_orphans_worker_that_owns_objects_is_used_again_once_its_task_has_ended() -> None:
    state = orphaned()
    assert state.apply(ev.WorkerStayed("w1", 1.1, is_running=True)) == []
    assert state.next_tick_s() == 1.1 + ORPHAN_RETRY_S
    assert state.apply(ev.Ticked(1.1 + ORPHAN_RETRY_S)) == [ev.AskExit("w1", is_idle=True)]
    assert state.ledger.free == {"CPU": 0}
    assert state.apply(ev.WorkerStayed("w1", 2.0), demand(1)) == [grant("w1")]


def test_end_is_intended_of_whom_nobody_wants_any_more_and_of_no_other() -> None:
    state = orphaned()
    assert state.workers["w1"].is_intended
    state.apply(ev.WorkerStayed("w1", 1.1, is_running=False))
    assert not state.workers["w1"].is_intended  # it is used again
    state = make(1)
    state.apply(actor("a"))
    ready(state, "w1")
    assert state.apply(ev.ActorUnwanted("a", "killed", 1.0)) == [ev.KillWorker("w1")]
    assert state.workers["w1"].is_intended
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.ClientLeft("w1", 1.0))
    assert state.apply(ev.Ticked(1.0 + LOST_GRACE_S)) == [ev.KillWorker("w1")]
    assert not state.workers["w1"].is_intended


def test_orphan_that_does_not_end_is_killed() -> None:
    state = orphaned()
    assert state.apply(ev.Ticked(1.0 + ORPHAN_GRACE_S)) == [ev.KillWorker("w1")]
    state.check()


def test_worker_whose_connection_closed_is_not_leased_again_and_is_killed_in_the_end() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.LeaseReturned("driver", "w1", False, 0.0), ev.ClientLeft("w1", 1.0))
    assert state.apply(demand(1)) == [ev.StartWorker("w2", "")]
    assert state.apply(ev.Ticked(1.0 + LOST_GRACE_S)) == [ev.KillWorker("w1")]


def test_lost_worker_is_killed_when_its_lease_comes_back() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.ClientLeft("w1", 1.0))
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 1.1)) == [ev.KillWorker("w1")]


def test_retired_worker_leaves() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    assert state.apply(ev.LeaseReturned("driver", "w1", True, 1.0), demand(1)) == [
        ev.AskExit("w1", is_idle=True),
        ev.StartWorker("w2", ""),
    ]


def test_retired_worker_that_owns_objects_stays_unused_and_is_asked_again() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.LeaseReturned("driver", "w1", True, 1.0), ev.WorkerStayed("w1", 1.1))
    assert state.apply(demand(1)) == [ev.StartWorker("w2", "")]
    assert state.apply(ev.Ticked(1.1 + STAYED_RETRY_S)) == [ev.AskExit("w1", is_idle=True)]
    assert state.apply(ev.Ticked(1.1 + STAYED_RETRY_S + ASK_TIMEOUT_S)) == [ev.KillWorker("w1")]


def test_idle_workers_of_an_environment_that_is_not_kept_leave_though_they_are_few() -> None:
    ended: set[str] = set()
    state = make(cpus=3, is_kept=lambda env: env not in ended)
    for name, env in (("w1", "first"), ("w2", "second")):
        state.apply(demand(key=env, env=env), ev.WorkerReady(name, 1.0), ev.LeaseReturned("driver", name, False, 1.0))
    assert state.next_tick_s() is None
    ended.add("first")
    assert state.next_tick_s() == 1.0 + IDLE_WORKER_S
    assert state.apply(ev.Ticked(1.0 + IDLE_WORKER_S)) == [ev.AskExit("w1", is_idle=True)]
    assert state.apply(ev.Ticked(9.0 + IDLE_WORKER_S)) == []


def test_surplus_idle_workers_leave_after_a_while_longest_idle_first() -> None:
    state = make(1)
    state.apply(demand(3, resources={}))
    for worker in ("w1", "w2", "w3"):
        ready(state, worker)
    for number, worker in enumerate(("w2", "w1", "w3")):
        state.apply(ev.LeaseReturned("driver", worker, False, float(number)))
    assert state.next_tick_s() == 2.0
    assert state.apply(ev.Ticked(2.0)) == [ev.AskExit("w2", is_idle=True)]
    assert state.apply(ev.Ticked(9.0)) == [ev.AskExit("w1", is_idle=True)]
    assert state.apply(ev.WorkerExited("w2", 0, 0, 9.1), ev.WorkerExited("w1", 0, 0, 9.1), ev.Ticked(100.0)) == []


def test_surplus_worker_that_owns_objects_is_used_again_and_asked_later() -> None:
    state = make(1)
    state.apply(demand(2, resources={}))
    ready(state, "w1")
    ready(state, "w2")
    state.apply(ev.LeaseReturned("driver", "w1", False, 0.0), ev.LeaseReturned("driver", "w2", False, 0.0))
    assert state.apply(ev.Ticked(2.0)) == [ev.AskExit("w1", is_idle=True)]
    state.apply(ev.WorkerStayed("w1", 2.1), ev.Ticked(2.1), ev.WorkerStayed("w2", 2.2))
    assert state.next_tick_s() == 2.1 + STAYED_RETRY_S
    assert state.apply(ev.Ticked(2.1 + STAYED_RETRY_S)) == [ev.AskExit("w1", is_idle=True)]
    assert state.apply(demand(1)) == [grant("w2")]


def test_failed_starts_are_retried_after_a_pause_and_reported_in_the_end() -> None:
    state = make(1)
    state.apply(demand(1, env="E"))
    at_s = 0.0
    for number in range(1, START_FAILURES_MAX):
        assert state.apply(ev.WorkerExited(f"w{number}", 1, 0, at_s)) == []
        at_s = state.next_tick_s() or 0.0
        assert state.apply(ev.Ticked(at_s)) == [ev.StartWorker(f"w{number + 1}", "E")]
    (failed,) = state.apply(ev.WorkerExited(f"w{START_FAILURES_MAX}", 1, 0, at_s))
    assert isinstance(failed, ev.DemandFailed)
    assert "exited with code 1 before it was ready, 3 times" in failed.reason
    assert state.apply(ev.Ticked(at_s + START_RETRY_S)) == []


def test_worker_that_never_becomes_ready_is_killed() -> None:
    state = make(1)
    state.apply(demand(1))
    assert state.apply(ev.Ticked(START_TIMEOUT_S)) == [ev.KillWorker("w1")]
    assert state.apply(ev.WorkerExited("w1", 0, 9, START_TIMEOUT_S)) == []
    assert state.apply(ev.Ticked(START_TIMEOUT_S + START_RETRY_S)) == [ev.StartWorker("w2", "")]


# ---- actors ----


def test_actor_gets_a_worker_in_which_no_task_has_run() -> None:
    """A task's worker may own objects that others borrow, which would end with the actor."""
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.LeaseReturned("driver", "w1", False, 0.0))
    assert state.apply(actor(running=ONE_CPU)) == [ev.StartWorker("w2", "")]
    assert ready(state, "w2") == [ev.HostActor("a", "w2", ONE_CPU, {})]
    assert state.ledger.free == {"CPU": 0}


def test_actor_that_needs_nothing_to_run_is_hosted_while_all_cpus_are_busy() -> None:
    state = make(1)
    state.apply(demand(1))
    ready(state, "w1")
    assert state.apply(actor()) == [ev.StartWorker("w2", "")]
    assert ready(state, "w2") == [ev.HostActor("a", "w2", {}, {})]


def test_actor_larger_than_the_node_waits_and_is_warned_about() -> None:
    state = make(1)
    assert state.apply(actor(placement={"CPU": 2 * UNIT})) == []
    (warning,) = state.apply(ev.Ticked(INFEASIBLE_WARNING_S))
    assert isinstance(warning, ev.Warn)
    assert warning.text.startswith("An actor cannot be scheduled and waits: it needs {CPU: 2}")


def test_death_of_an_actors_worker_is_told_to_the_actor_table() -> None:
    state = make(1)
    state.apply(actor(running=ONE_CPU))
    ready(state, "w1")
    assert state.apply(ev.WorkerExited("w1", 3, 0, 1.0)) == [ev.ActorWorkerDied("a", "w1", 3, 0, "")]
    assert state.ledger.free == state.ledger.total


def test_unwanted_actor_loses_its_wish_or_its_worker() -> None:
    state = make(1)
    state.apply(actor("a"), ev.ActorUnwanted("a", "killed", 0.0))
    assert ready(state, "w1") == []
    assert state.apply(actor("b")) == [ev.HostActor("b", "w1", {}, {})]
    assert state.apply(ev.ActorUnwanted("b", "killed", 1.0)) == [ev.KillWorker("w1")]
    assert state.apply(ev.WorkerExited("w1", 0, 9, 1.0)) == [ev.ActorWorkerDied("b", "w1", 0, 9, "killed")]


def test_released_actor_keeps_its_resources_until_it_has_finished() -> None:
    state = make(1)
    state.apply(actor(running=ONE_CPU))
    ready(state, "w1")
    assert state.apply(ev.ActorReleased("a", None, 1.0)) == [ev.AskExit("w1", is_idle=False)]
    assert state.apply(demand(1), ev.Ticked(1_000.0)) == []
    assert state.apply(ev.WorkerExited("w1", 0, 0, 1_001.0))[-1] == ev.StartWorker("w2", "")


def test_released_actor_is_killed_after_its_grace() -> None:
    state = make(1)
    state.apply(actor(running=ONE_CPU))
    ready(state, "w1")
    state.apply(ev.ActorReleased("a", 30.0, 1.0))
    assert state.apply(ev.Ticked(31.0)) == [ev.KillWorker("w1")]


@pytest.mark.parametrize(
    ("event", "command"),
    [
        (ev.ActorReleased("a", None, 1.0), ev.AskExit("w2", is_idle=False)),
        (ev.ActorUnwanted("a", "killed", 1.0), ev.KillWorker("w2")),
    ],
)
def test_end_of_an_actor_concerns_the_worker_that_it_has_and_not_one_that_it_had_and_that_dies(
    event: ev.AgentEvent, command: ev.AgentCommand
) -> None:
    """A head that has started again has a worker killed of which it had not written down that the actor was called there, and
    another one looked for, perhaps on the same node. Before: the actor lived on for ever."""
    state = make(2)
    state.apply(actor())
    ready(state, "w1")
    assert state.apply(ev.ActorUnwanted("a", "it was not recorded", 0.0)) == [ev.KillWorker("w1")]
    assert state.apply(actor()) == [ev.StartWorker("w2", "")]
    assert ready(state, "w2") == [ev.HostActor("a", "w2", {}, {})]
    assert state.apply(event) == [command]
    assert state.apply(ev.WorkerExited("w1", 0, 9, 1.0)) == [ev.ActorWorkerDied("a", "w1", 0, 9, "it was not recorded")]


def test_actor_that_cannot_be_started_is_reported() -> None:
    state = make(1)
    state.apply(actor())
    for number in range(1, START_FAILURES_MAX):
        state.apply(ev.WorkerExited(f"w{number}", 1, 0, 0.0), ev.Ticked(START_RETRY_S))
    (failed,) = state.apply(ev.WorkerExited(f"w{START_FAILURES_MAX}", 1, 0, 1.0))
    assert isinstance(failed, ev.ActorUnplaceable)
    assert failed.actor == "a"


# ---- all together ----


def test_check_finds_a_lost_cpu() -> None:
    state = make(2)
    state.ledger.free["CPU"] -= 1
    with pytest.raises(exceptions.InternalError, match="do not add up"):
        state.check()


@pytest.mark.parametrize("seed", range(40))
def test_random_events_keep_the_invariants_and_everything_ends(seed: int) -> None:
    """Whatever happens in whatever order, the invariants hold, and once all is over everything is free again."""
    chance = random.Random(seed)
    state = make(chance.randint(1, 4), gpus=("0", "1"))
    processes: dict[str, str] = {}  # worker -> "starting" | "up"
    at_s = 0.0

    def carry_out(commands: list[ev.AgentCommand]) -> None:
        for command in commands:
            if isinstance(command, ev.StartWorker):
                processes[command.worker] = "starting"
            elif isinstance(command, ev.Grant):
                assert processes[command.worker] == "up"

    def any_of(*states: str) -> str:
        return chance.choice([worker for worker, is_in in processes.items() if is_in in states] or ["none"])

    for _ in range(300):
        at_s += chance.random()
        client = chance.choice(["driver", any_of("up")])
        resources = chance.choice([{}, ONE_CPU, {"CPU": UNIT // 2}, {"GPU": UNIT // 2}, {"CPU": UNIT, "GPU": UNIT}])
        worker = any_of("up")
        actor_id = f"a{chance.randrange(5)}"
        event: ev.AgentEvent
        choice = chance.randrange(12)
        if choice <= 2:
            env = chance.choice(["", "", "E"])
            count = chance.randrange(4)
            event = demand(
                count,
                client=client,
                key=f"{resources}{env}",
                resources=resources,
                env=env,
                depth=chance.randrange(3),
                at_s=at_s,
            )
        elif choice == 3:
            event = ev.LeaseReturned(client, worker, chance.random() < 0.2, at_s)
        elif choice == 4:
            event = ev.WorkerBlocked(worker, at_s)
        elif choice == 5:
            event = ev.WorkerUnblocked(worker, at_s)
        elif choice == 6:
            event = ev.KillRequested(client, worker, "cancelled", at_s)
        elif choice == 7:
            known = {lease.actor for w in state.workers.values() if (lease := w.lease)} | {
                place[1] for place in state.demands
            }
            event = ev.Ticked(at_s)
            if actor_id not in known:
                event = ev.ActorWanted(actor_id, ONE_CPU, resources, 0, "", "", at_s)
        elif choice == 8:
            event = ev.ActorReleased(actor_id, 5.0, at_s)
            if chance.random() < 0.5:
                event = ev.ActorUnwanted(actor_id, "killed", at_s)
        elif choice == 9:
            dead = any_of("starting", "up")
            processes.pop(dead, None)
            leaving: list[ev.AgentEvent] = [ev.WorkerExited(dead, 0, 9, at_s), ev.ClientLeft(dead, at_s)]
            chance.shuffle(leaving)
            carry_out(state.apply(leaving[0]))
            state.check()
            event = leaving[1]
        elif choice == 10:
            event = ev.Ticked(at_s)
            if chance.random() < 0.5:
                event = ev.WorkerStayed(worker, at_s, chance.random() < 0.5)
        else:
            born = any_of("starting")
            if born == "none":
                continue
            processes[born] = "up"
            state.apply(ev.ClientJoined(born, at_s))
            event = ev.WorkerReady(born, at_s)
        carry_out(state.apply(event))
        state.check()
    for client in list(state.clients):
        carry_out(state.apply(ev.ClientLeft(client, at_s)))
    for number in range(5):
        state.apply(ev.ActorUnwanted(f"a{number}", "over", at_s))
    for worker in list(state.workers):
        state.apply(ev.WorkerExited(worker, 0, 9, at_s))
    state.check()
    assert state.ledger.free == state.ledger.total
    assert (state.demands, state.workers, state.clients) == ({}, {}, {})


# ---- memory and age ----


def test_worker_to_blame_for_short_memory_is_killed_and_its_user_told() -> None:
    state = make()
    state.apply(demand())
    ready(state, "w1")
    assert state.apply(ev.MemoryShort("w1", "memory ran short", 1.0)) == [ev.KillWorker("w1")]
    commands = state.apply(ev.WorkerExited("w1", 0, 9, 1.1))
    assert commands == [ev.LeaseBroken("driver", "w1", 0, 9, "memory ran short", False)]
    assert state.ledger.free == state.ledger.total


def test_worker_whose_work_ended_meanwhile_is_not_killed_for_it() -> None:
    state = make()
    state.apply(demand())
    ready(state, "w1")
    state.apply(ev.LeaseReturned("driver", "w1", False, 1.0))
    assert state.apply(ev.MemoryShort("w1", "memory ran short", 1.0)) == []
    assert state.apply(ev.MemoryShort("gone", "memory ran short", 1.0)) == []


def test_idle_worker_is_asked_to_leave_when_memory_is_short_and_may_refuse() -> None:
    state = make()
    state.apply(demand())
    ready(state, "w1")
    assert state.apply(ev.WorkerDismissed("w1", 0.5)) == []  # it is in use
    state.apply(ev.LeaseReturned("driver", "w1", False, 1.0))
    assert state.apply(ev.WorkerDismissed("w1", 2.0)) == [ev.AskExit("w1", is_idle=True)]
    state.apply(ev.WorkerStayed("w1", 2.1))
    assert state.apply(demand(at_s=3.0)) == [grant("w1")]


def test_old_worker_is_replaced_when_it_comes_back() -> None:
    state = make(recycle_s=60.0)
    state.apply(demand())
    ready(state, "w1")
    state.apply(ev.LeaseReturned("driver", "w1", False, 59.0))
    assert state.apply(demand(at_s=59.5)) == [grant("w1")]
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 60.0)) == [ev.AskExit("w1", is_idle=True)]
    assert state.apply(demand(at_s=60.1)) == [ev.StartWorker("w2", "")]


def test_old_worker_goes_while_it_is_idle_unless_it_is_needed() -> None:
    state = make(recycle_s=60.0)
    state.apply(demand())
    ready(state, "w1")
    state.apply(ev.LeaseReturned("driver", "w1", False, 1.0))
    assert state.next_tick_s() == 60.0
    assert state.apply(ev.Ticked(60.0)) == [ev.AskExit("w1", is_idle=True)]
    state.apply(ev.WorkerStayed("w1", 60.1))  # others borrow what it owns
    assert state.next_tick_s() == pytest.approx(60.1 + STAYED_RETRY_S)
    assert state.apply(demand(at_s=61.0)) == [ev.StartWorker("w2", "")]


def leased_from_two(recycle_s: float | None) -> AgentState:
    """w1 and w2 are the driver's, since 0 s."""
    state = make(recycle_s=recycle_s)
    state.apply(demand(2))
    ready(state, "w1")
    ready(state, "w2")
    return state


def test_old_worker_that_its_client_keeps_using_is_asked_back_once_and_replaced() -> None:
    """A steady program never gives a lease back by itself: its workers would leak for ever."""
    state = leased_from_two(60.0)
    state.apply(ev.LeaseReturned("driver", "w2", False, 1.0))
    assert state.next_tick_s() == 60.0
    assert state.apply(ev.Ticked(60.0)) == [ev.Reclaim("driver", "w1"), ev.AskExit("w2", is_idle=True)]
    state.apply(ev.WorkerExited("w2", 0, 0, 60.1))
    assert state.next_tick_s() is None
    assert state.apply(demand(1, at_s=60.2)) == [ev.StartWorker("w3", "")]  # while w1 ends its task
    assert ready(state, "w3", 60.3) == [grant("w3")]
    assert state.apply(ev.LeaseReturned("driver", "w1", False, 70.0)) == [ev.AskExit("w1", is_idle=True)]
    assert state.next_tick_s() == 70.0 + ASK_TIMEOUT_S
    state.apply(ev.WorkerExited("w1", 0, 0, 70.1))
    assert state.next_tick_s() == pytest.approx(120.2)  # w3 comes of age


def test_old_worker_whose_client_has_died_is_used_by_nobody_else() -> None:
    state = leased_from_two(60.0)
    state.apply(ev.Ticked(60.0))
    assert state.apply(ev.ClientLeft("driver", 61.0)) == [ev.AskExit(w, is_idle=True) for w in ("w1", "w2")]
    state.apply(ev.WorkerStayed("w1", 61.1), ev.WorkerExited("w2", 0, 0, 61.1))  # w1 owns what others borrow
    state.apply(ev.Ticked(61.1 + STAYED_RETRY_S))
    assert state.workers["w1"].is_retired
    state.apply(ev.WorkerStayed("w1", 63.5), ev.ClientJoined("other", 64.0))
    assert state.apply(demand(client="other", at_s=64.0)) == [ev.StartWorker("w3", "")]


def test_old_workers_of_actors_stay_and_those_that_are_dying_are_not_asked_back() -> None:
    state = leased_from_two(60.0)
    state.apply(ev.LeaseReturned("driver", "w1", False, 1.0), ev.LeaseReturned("driver", "w2", False, 1.0))
    state.apply(actor("a"))
    ready(state, "w3", 2.0)
    state.apply(demand(at_s=3.0))
    state.apply(ev.MemoryShort("w2", "memory ran short", 4.0))
    assert state.apply(ev.Ticked(70.0)) == [ev.AskExit("w1", is_idle=True)]
    assert state.apply(ev.WorkerOvergrown("w3", 71.0), ev.WorkerOvergrown("w2", 71.0)) == []


def test_old_worker_is_used_on_while_as_many_as_are_kept_idle_must_stay_for_what_they_own() -> None:
    """Who holds on to everything would get one more process for each, each time."""
    state = leased_from_two(60.0)
    assert state.apply(ev.Ticked(60.0)) == [ev.Reclaim("driver", "w1"), ev.Reclaim("driver", "w2")]
    for worker in ("w1", "w2"):
        state.apply(ev.LeaseReturned("driver", worker, False, 61.0), ev.WorkerStayed(worker, 61.0))
    state.apply(demand(2, at_s=62.0))
    ready(state, "w3", 62.0)
    ready(state, "w4", 62.0)
    assert state.apply(ev.Ticked(122.0)) == [ev.AskExit(w, is_idle=True) for w in ("w1", "w2")]  # again
    state.apply(ev.WorkerStayed("w1", 122.1), ev.WorkerStayed("w2", 122.1))
    assert state.next_tick_s() == pytest.approx(122.1 + STAYED_RETRY_S)
    state.apply(ev.LeaseReturned("driver", "w3", False, 123.0))
    assert state.apply(demand(at_s=123.0)) == [grant("w3")]
    state.apply(ev.WorkerExited("w1", 0, 0, 123.5))
    assert state.apply(ev.Ticked(123.6)) == [ev.Reclaim("driver", "w3"), ev.Reclaim("driver", "w4")]
    state.check()


def test_worker_that_is_found_large_goes_if_it_is_idle_and_is_asked_back_once_if_it_is_leased() -> None:
    state = leased_from_two(None)
    state.apply(ev.LeaseReturned("driver", "w2", False, 1.0))
    assert state.apply(ev.WorkerOvergrown("w2", 2.0)) == [ev.AskExit("w2", is_idle=True)]
    assert state.apply(ev.WorkerOvergrown("w1", 2.0)) == [ev.Reclaim("driver", "w1")]
    assert state.apply(ev.WorkerOvergrown("w1", 3.0), ev.WorkerOvergrown("gone", 3.0)) == []
    state.apply(ev.LeaseReturned("driver", "w1", False, 4.0))  # it was its task that held so much
    assert state.apply(demand(at_s=5.0)) == [grant("w1")]
    assert state.apply(ev.WorkerOvergrown("w1", 6.0)) == [ev.Reclaim("driver", "w1")]


def test_worker_that_was_asked_back_to_be_replaced_does_not_count_as_one_that_others_get_soon() -> None:
    """It may run on for hours: who waits gets another of the client's."""
    state = leased_from_two(None)
    state.apply(ev.WorkerOvergrown("w1", 1.0), ev.ClientJoined("other", 2.0))
    assert state.apply(demand(client="other", at_s=2.0)) == [ev.Reclaim("driver", "w2")]


# ---- draining ----


def test_a_drained_node_begins_nothing_more_and_says_so() -> None:
    state = make(cpus=2)
    commands = state.apply(ev.DrainingChanged("preemption: spot", 0.0), demand(), actor("a"))
    assert commands == []
    told = "this node is being drained (preemption: spot), and begins nothing any more; start another node that can have it"
    assert [str(one.why) for one in state.pending()] == [told] * 2
    assert state.next_tick_s() is None
    assert [type(one) for one in state.apply(ev.DrainingChanged("", 1.0))] == [ev.StartWorker, ev.StartWorker]


def test_draining_asks_leases_back_and_idle_workers_to_exit_until_they_do() -> None:
    state = make(cpus=2)
    (one, other) = state.apply(demand(2))
    ready(state, one.worker)
    ready(state, other.worker)
    state.apply(ev.LeaseReturned("driver", other.worker, False, 1.0))
    commands = state.apply(ev.DrainingChanged("idle", 2.0))
    assert commands == [ev.Reclaim("driver", one.worker), ev.AskExit(other.worker, is_idle=True)]
    state.apply(ev.WorkerStayed(other.worker, 2.0))
    due_s = state.next_tick_s()
    assert due_s is not None
    assert state.apply(ev.Ticked(due_s)) == [ev.AskExit(other.worker, is_idle=True)]
    state.apply(ev.LeaseReturned("driver", one.worker, False, 5.0))
    due_s = state.next_tick_s()
    assert due_s == 5.0
    assert ev.AskExit(one.worker, is_idle=True) in state.apply(ev.Ticked(due_s))


def test_what_runs_in_bundles_that_are_there_still_begins_on_a_drained_node() -> None:
    state = make(cpus=2)
    state.apply(ev.BundlesWanted("g", 1, {0: ONE_CPU}, 0, 0.0), ev.BundlesCommitted("g", 1, 0.0))
    state.apply(ev.DrainingChanged("preemption", 1.0))
    assert state.apply(ev.BundlesWanted("h", 1, {0: ONE_CPU}, 0, 1.0)) == []
    strategy = {"placement_group": "g", "bundle_index": 0}
    wanted = ev.DemandChanged("driver", "f", ONE_CPU, 1, 0, "", "", 2.0, strategy)
    assert [type(one) for one in state.apply(wanted)] == [ev.StartWorker]
