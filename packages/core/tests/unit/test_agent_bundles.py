"""Bundles of placement groups on a node, as lists of events."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

import pytest

from umbel import exceptions
from umbel._agent import events as ev
from umbel._agent.demand_table import INFEASIBLE_WARNING_S
from umbel._agent.ledger import UNIT, Ledger
from umbel._agent.records import WorkerState
from umbel._agent.state import AgentState
from umbel._agent.worker_table import LOST_GRACE_S
from umbel._model import reasons

ONE_CPU = {"CPU": UNIT}
IN_GROUP = {"placement_group": "g", "bundle_index": -1}


def make(cpus: int = 4, *, gpus: tuple[str, ...] = (), infeasible_timeout_s: float | None = None) -> AgentState:
    total = {"CPU": cpus * UNIT, **({"GPU": len(gpus) * UNIT} if gpus else {})}
    state = AgentState(
        ledger=Ledger(total, {"GPU": gpus} if gpus else {}),
        worker_ids=(f"w{number}" for number in itertools.count(1)),
        starts_max=4,
        idle_max=cpus,
        infeasible_timeout_s=infeasible_timeout_s,
    )
    state.apply(ev.ClientJoined("driver", 0.0))
    return state


def units(**amounts: float) -> dict[str, int]:
    return {name: int(amount * UNIT) for name, amount in amounts.items()}


def wanted(*bundles: Mapping[str, int], group: str = "g", attempt: int = 1, at_s: float = 0.0) -> ev.BundlesWanted:
    return ev.BundlesWanted(group, attempt, dict(enumerate(bundles)), 0, at_s)


def commit(group: str = "g", attempt: int = 1) -> ev.BundlesCommitted:
    return ev.BundlesCommitted(group, attempt, 0.0)


def unwanted(group: str = "g", attempt: int = 1) -> ev.BundlesUnwanted:
    return ev.BundlesUnwanted(group, attempt, 0.0)


def dropped(group: str = "g") -> ev.GroupDropped:
    return ev.GroupDropped(group, "it was removed", 0.0)


def demand(
    count: int = 1,
    *,
    key: str = "f",
    resources: Mapping[str, int] = ONE_CPU,
    strategy: Mapping[str, object] | None = IN_GROUP,
    depth: int = 0,
    at_s: float = 0.0,
) -> ev.DemandChanged:
    return ev.DemandChanged("driver", key, resources, count, depth, "", "", at_s, strategy)


def outside(count: int = 1, *, key: str = "out", resources: Mapping[str, int] = ONE_CPU) -> ev.DemandChanged:
    return demand(count, key=key, resources=resources, strategy=None)


def ready(state: AgentState, *workers: str) -> list[ev.AgentCommand]:
    commands: list[ev.AgentCommand] = []
    for worker in workers:
        commands += state.apply(ev.ClientJoined(worker, 0.0), ev.WorkerReady(worker, 0.0))
    state.check()
    return commands


def grant(
    worker: str, *, key: str = "f", resources: Mapping[str, int] = ONE_CPU, **devices: tuple[str, ...]
) -> ev.Grant:
    return ev.Grant("driver", key, worker, resources, devices)


def placed(*bundles: Mapping[str, int], cpus: int = 4, gpus: tuple[str, ...] = ()) -> AgentState:
    """A node with one group, whose bundles are committed."""
    state = make(cpus, gpus=gpus)
    assert state.apply(wanted(*bundles)) == [ev.BundlesReserved("g", 1)]
    assert state.apply(commit()) == []
    state.check()
    return state


def test_bundles_are_taken_out_of_the_node() -> None:
    state = make(4)
    assert state.apply(wanted(units(CPU=2), units(CPU=1))) == [ev.BundlesReserved("g", 1)]
    assert state.ledger.free == units(CPU=1)
    state.check()


def test_what_is_held_is_told_by_attempt() -> None:
    state = make()
    state.apply(wanted(ONE_CPU, ONE_CPU), commit(), wanted(ONE_CPU, group="h"))
    state.apply(ev.BundlesWanted("g", 2, {3: ONE_CPU}, 0, 0.0))
    assert state.bundles.by_attempt() == [("g", 1, [0, 1], True), ("g", 2, [3], False), ("h", 1, [0], False)]


def test_all_bundles_are_reserved_or_none() -> None:
    state = make(4)
    state.apply(wanted(units(CPU=3)))
    assert state.apply(wanted(units(CPU=1), units(CPU=1), group="h")) == []
    assert state.ledger.free == units(CPU=1)
    (pending,) = state.pending()
    assert (pending.group, pending.why.code) == ("h", reasons.RESOURCES)
    assert str(pending.why) == "it needs {CPU: 2} and waits for CPU (1 of 4 free), held by 1 bundle of placement groups"
    assert state.apply(dropped()) == [ev.BundlesReserved("h", 1)]
    state.check()


def test_what_the_node_can_never_hold_is_refused() -> None:
    state = make(4)
    (refusal,) = state.apply(wanted(units(CPU=3), units(CPU=3)))
    assert isinstance(refusal, ev.BundlesRefused)
    assert "needs {CPU: 6}, but this node has {CPU: 4} in all" in refusal.reason
    assert not state.demands
    state.check()


def test_a_wish_told_twice_is_answered_twice_and_held_once() -> None:
    state = make(4)
    state.apply(wanted(units(CPU=2)))
    assert state.apply(wanted(units(CPU=2))) == [ev.BundlesReserved("g", 1)]
    assert state.ledger.free == units(CPU=2)
    busy = wanted(units(CPU=3), group="h")
    assert state.apply(busy, busy) == []
    assert len(state.pending()) == 1


def test_an_attempt_that_is_given_up_holds_nothing() -> None:
    state = make(4)
    state.apply(wanted(units(CPU=2)), unwanted(), unwanted())
    assert state.ledger.free == units(CPU=4)
    state.apply(outside(4), wanted(units(CPU=4), attempt=2))
    ready(state, "w1", "w2", "w3", "w4")
    state.apply(unwanted(attempt=1))  # late
    state.check()
    state.apply(commit(attempt=1))  # late
    assert not list(state.bundles)


def test_tasks_outside_do_not_get_what_a_group_holds() -> None:
    state = placed(units(CPU=3))
    assert state.apply(outside(4)) == [ev.StartWorker("w1", "")]
    assert ready(state, "w1") == [grant("w1", key="out")]
    assert state.ledger.free == units(CPU=0)


def test_a_task_in_a_group_takes_from_its_bundles() -> None:
    state = placed(units(CPU=2), units(CPU=1))
    assert state.apply(demand(4)) == [ev.StartWorker(f"w{number}", "") for number in (1, 2, 3)]
    assert ready(state, "w1", "w2", "w3", "w4") == [grant("w1"), grant("w2"), grant("w3")]
    assert state.ledger.free == units(CPU=1)
    assert [bundle.lease_count for bundle in state.bundles] == [2, 1]
    (pending,) = state.pending()
    assert str(pending.why).startswith("it needs {CPU: 1} and waits for CPU (0 of ")
    assert "in bundle 0 of its placement group, the best of 2, held by 2 tasks and actors" in str(pending.why)


def test_a_task_in_one_bundle_does_not_get_another() -> None:
    state = placed(units(CPU=1), units(CPU=1))
    state.apply(demand(2, strategy={"placement_group": "g", "bundle_index": 1}))
    assert ready(state, "w1") == [grant("w1")]
    assert [bundle.lease_count for bundle in state.bundles] == [0, 1]
    assert "bundle 1 of its placement group" in str(state.pending()[0].why)


def test_what_comes_back_from_a_bundle_stays_in_it() -> None:
    state = placed(units(CPU=1), cpus=1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.LeaseReturned("driver", "w1", False, 0.0))
    assert (state.ledger.free, [one.ledger.free for one in state.bundles]) == (units(CPU=0), [units(CPU=1)])
    assert state.apply(demand(1)) == [grant("w1")]
    state.check()


def test_a_group_without_a_place_is_waited_for() -> None:
    state = make(2)
    assert state.apply(demand(1)) == []
    (pending,) = state.pending()
    assert (pending.why.code, pending.why.facts["group"]) == (reasons.GROUP, "g")
    assert state.next_tick_s() is None  # nothing is wrong with it
    assert state.apply(wanted(units(CPU=1)), commit()) == [ev.BundlesReserved("g", 1), ev.StartWorker("w1", "")]


def test_nothing_runs_in_bundles_that_are_not_committed() -> None:
    state = make(2)
    assert state.apply(wanted(units(CPU=1)), demand(1)) == [ev.BundlesReserved("g", 1)]
    assert state.apply(commit()) == [ev.StartWorker("w1", "")]


def test_what_no_bundle_can_hold_is_infeasible_and_says_so() -> None:
    state = make(4, infeasible_timeout_s=9.0)
    state.apply(demand(resources=units(CPU=3)))
    state.apply(wanted(units(CPU=2), units(CPU=1)), commit())
    (pending,) = state.pending()
    assert pending.why.code == reasons.INFEASIBLE
    assert "needs {CPU: 3}, but bundle 0 of its placement group, the best of 2, has {CPU: 2} in all" in str(pending.why)
    assert "make a placement group with more" in str(pending.why)
    (warning,) = state.apply(ev.Ticked(INFEASIBLE_WARNING_S))
    assert isinstance(warning, ev.Warn)
    (failed,) = state.apply(ev.Ticked(9.0))
    assert isinstance(failed, ev.DemandFailed)
    assert failed.is_unschedulable
    state.check()


def test_devices_of_a_bundle_are_its_own() -> None:
    state = placed(units(CPU=1, GPU=1), units(CPU=1, GPU=0.5), gpus=("a", "b"))
    on_whole = demand(resources=units(CPU=1, GPU=1), strategy={"placement_group": "g", "bundle_index": 0})
    on_half = demand(resources=units(CPU=1, GPU=0.5), key="h", strategy={"placement_group": "g", "bundle_index": 1})
    state.apply(on_whole, on_half, outside(1, resources=units(CPU=1, GPU=0.5)))
    granted = [one for one in ready(state, "w1", "w2", "w3") if isinstance(one, ev.Grant)]
    assert {one.key: one.accelerators for one in granted} == {
        "f": {"GPU": ("a",)},
        "h": {"GPU": ("b",)},
        "out": {"GPU": ("b",)},
    }


def test_halves_of_devices_are_enough_for_bundles_of_halves() -> None:
    state = make(4, gpus=("a", "b"))
    state.apply(outside(2, resources=units(CPU=1, GPU=0.6)))
    ready(state, "w1", "w2")
    half = units(GPU=0.4)
    assert state.apply(wanted(half, half)) == [ev.BundlesReserved("g", 1)]
    assert sorted(bundle.devices["GPU"] for bundle in state.bundles) == [("a",), ("b",)]
    state.check()


def test_shares_that_no_devices_have_room_for_are_refused() -> None:
    state = make(4, gpus=("a", "b"))
    state.apply(wanted(units(GPU=0.6), units(GPU=0.6)))
    (refusal,) = state.apply(wanted(units(GPU=0.6), units(GPU=0.6), units(GPU=0.6), group="h"))
    assert isinstance(refusal, ev.BundlesRefused)  # 1.8 of 2, but never on two devices
    assert "GPU: 1.8" in refusal.reason
    state.check()


def test_a_blocked_worker_lends_its_bundle_s_cpus_to_that_bundle() -> None:
    state = placed(units(CPU=1), cpus=2)
    state.apply(demand(1))
    ready(state, "w1")
    assert state.apply(demand(1, key="child", depth=1)) == [ev.Reclaim("driver", "w1")]
    assert state.apply(ev.WorkerBlocked("w1", 0.0)) == [ev.StartWorker("w2", "")]
    assert ready(state, "w2") == [grant("w2", key="child")]
    assert state.ledger.free == units(CPU=1)
    state.apply(ev.WorkerUnblocked("w1", 0.0))
    state.check()
    assert [bundle.ledger.free for bundle in state.bundles] == [units(CPU=-1)]


def test_an_actor_lives_in_its_bundle() -> None:
    state = placed(units(CPU=1), cpus=1)
    state.apply(ev.ActorWanted("a", ONE_CPU, {}, 0, "", "", 0.0, IN_GROUP))
    assert ready(state, "w1") == [ev.HostActor("a", "w1", {}, {})]
    assert [bundle.lease_count for bundle in state.bundles] == [1]


def test_a_dropped_group_ends_what_runs_in_it_and_what_waits_for_it() -> None:
    state = placed(units(CPU=1), cpus=2)
    state.apply(demand(2), ev.ActorWanted("a", ONE_CPU, ONE_CPU, 0, "", "", 0.0, IN_GROUP), outside(1))
    assert set(map(str, ready(state, "w1", "w2"))) >= {str(grant("w1")), str(grant("w2", key="out"))}
    commands = state.apply(dropped())
    failed, unplaceable, killed = commands[:3]
    assert isinstance(failed, ev.DemandFailed)
    assert failed.is_group_gone
    assert "the placement group g that it was to run in is gone: it was removed" in failed.reason
    assert isinstance(unplaceable, ev.ActorUnplaceable)
    assert killed == ev.KillWorker("w1")
    assert state.ledger.free == units(CPU=0)  # until the process is gone
    state.check()
    (broken,) = state.apply(ev.WorkerExited("w1", 0, 9, 1.0))
    assert isinstance(broken, ev.LeaseBroken)
    assert (broken.group, broken.is_intended) == ("g", True)
    assert state.ledger.free == units(CPU=1)
    assert not list(state.bundles)
    assert state.workers["w2"].state is WorkerState.LEASED
    state.check()


def test_a_group_that_still_waits_can_be_dropped() -> None:
    state = make(2)
    state.apply(outside(2))
    ready(state, "w1", "w2")
    assert state.apply(wanted(units(CPU=1)), dropped()) == [ev.Reclaim("driver", "w1")]
    assert state.pending() == []


def test_bundles_given_up_with_tasks_in_them_go_back_with_the_last() -> None:
    state = placed(units(CPU=1), units(CPU=1), cpus=2)
    state.apply(demand(1))
    ready(state, "w1")
    assert state.apply(unwanted()) == [ev.KillWorker("w1")]
    assert state.ledger.free == units(CPU=1)
    assert state.apply(wanted(units(CPU=2), attempt=2)) == []
    state.check()
    broken, reserved = state.apply(ev.WorkerExited("w1", 0, 9, 1.0))
    assert isinstance(broken, ev.LeaseBroken)
    assert broken.group == ""  # the group is there: the task can be tried again
    assert reserved == ev.BundlesReserved("g", 2)
    state.check()


def test_leases_are_asked_back_for_a_group_that_waits() -> None:
    state = make(2)
    state.apply(outside(4))
    ready(state, "w1", "w2")
    assert state.apply(wanted(units(CPU=2))) == [ev.Reclaim("driver", "w1"), ev.Reclaim("driver", "w2")]


def test_a_group_does_not_starve_beside_small_tasks() -> None:
    """One CPU comes free at a time; after a while it is kept for the group."""
    state = make(2)
    state.apply(outside(50))
    ready(state, "w1", "w2")
    state.apply(wanted(units(CPU=2)))
    now_s = 0.0
    for turn in range(100):
        now_s += 0.1
        worker = f"w{turn % 2 + 1}"
        commands = state.apply(ev.LeaseReturned("driver", worker, False, now_s))
        state.check()
        if ev.BundlesReserved("g", 1) in commands:
            return
    pytest.fail("the group never got its bundles")


def test_only_leases_of_the_bundle_are_asked_back_for_it() -> None:
    state = placed(units(CPU=1), cpus=3)
    state.apply(outside(2), demand(1))
    ready(state, "w1", "w2", "w3")
    (asked,) = state.apply(demand(1, key="other"))
    assert isinstance(asked, ev.Reclaim)
    lease = state.workers[asked.worker].lease
    assert lease is not None
    assert lease.bundle is not None


def test_a_client_that_goes_takes_its_tasks_out_of_the_bundle() -> None:
    state = placed(units(CPU=1), cpus=1)
    state.apply(demand(1))
    ready(state, "w1")
    state.apply(ev.ClientLeft("driver", 0.0))
    state.apply(ev.WorkerStayed("w1", 0.0))
    assert [bundle.lease_count for bundle in state.bundles] == [0]
    state.check()


def test_programs_see_the_names_they_know() -> None:
    state = placed(units(CPU=2), units(CPU=1))
    state.apply(demand(1))
    ready(state, "w1")
    assert state.bundles.as_resources(free=True) == {
        "CPU_group_0_g": UNIT,
        "CPU_group_1_g": UNIT,
        "CPU_group_g": 2 * UNIT,
        "bundle_group_0_g": 1000 * UNIT,
        "bundle_group_1_g": 1000 * UNIT,
        "bundle_group_g": 2000 * UNIT,
    }
    assert state.bundles.as_resources(free=False)["CPU_group_g"] == 3 * UNIT


def test_check_finds_a_bundle_that_lost_something() -> None:
    state = placed(units(CPU=2))
    next(iter(state.bundles)).ledger.free["CPU"] -= 1
    with pytest.raises(exceptions.InternalError, match="an empty bundle that is not free"):
        state.check()


@pytest.mark.parametrize("seed", range(60))
def test_the_books_are_right_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    state = make(3, gpus=("a", "b"))
    now_s = 0.0

    def apply(*events: ev.AgentEvent) -> None:
        state.apply(*events)
        state.check()

    def bundle() -> dict[str, int]:
        return chance.choice([units(CPU=1), units(CPU=2), units(CPU=1, GPU=0.5), units(GPU=1)])

    for step in range(150):
        now_s += 0.05
        group, attempt = chance.choice("gh"), chance.randrange(1, 4)
        workers = sorted(state.workers)
        starting = [one for one in workers if state.workers[one].state is WorkerState.STARTING]
        leased = [one for one in workers if state.workers[one].state is WorkerState.LEASED]
        strategy = chance.choice(
            [None, {"placement_group": group, "bundle_index": -1}, {"placement_group": group, "bundle_index": 0}]
        )
        match chance.randrange(11):
            case 0:
                if not state.bundles.held.get(group):
                    apply(
                        wanted(
                            *(bundle() for _ in range(chance.randrange(1, 3))), group=group, attempt=attempt, at_s=now_s
                        )
                    )
            case 1:
                apply(commit(group, attempt))
            case 2:
                apply(unwanted(group, attempt))
            case 3:
                apply(dropped(group))
            case 4 | 5:
                key = f"{strategy}{chance.randrange(2)}"
                apply(demand(chance.randrange(3), key=key, resources=bundle(), strategy=strategy, at_s=now_s))
            case 6:
                apply(ev.ActorWanted(f"a{step}", ONE_CPU, ONE_CPU, 0, "", "", now_s, strategy))
            case 7:
                if leased:
                    apply(ev.LeaseReturned("driver", chance.choice(leased), chance.random() < 0.2, now_s))
            case 8:
                if workers:
                    apply(ev.WorkerExited(chance.choice(workers), 0, 9, now_s))
            case 9:
                if leased:
                    one = chance.choice(leased)
                    apply(ev.WorkerBlocked(one, now_s) if chance.random() < 0.6 else ev.WorkerUnblocked(one, now_s))
            case _:
                if starting:
                    apply(ev.ClientJoined(starting[0], now_s), ev.WorkerReady(starting[0], now_s))
        apply(ev.Ticked(now_s))
    apply(dropped("g"), dropped("h"), ev.ClientLeft("driver", now_s))
    for worker in list(state.workers):
        apply(ev.WorkerExited(worker, 0, 9, now_s + LOST_GRACE_S))
    for worker in list(state.workers):
        apply(ev.WorkerExited(worker, 0, 9, now_s + LOST_GRACE_S))
    for actor in [one.actor for one in state.demands.values() if one.actor]:
        apply(ev.ActorUnwanted(actor, "", now_s))
    for worker in list(state.workers):
        apply(ev.WorkerExited(worker, 0, 9, now_s + LOST_GRACE_S))
    assert state.ledger.free == state.ledger.total
    assert not list(state.bundles)
