"""The actor table's decisions, as lists of events."""

from __future__ import annotations

import random
from typing import Any

import pytest

from umbel import exceptions
from umbel._control import cluster_events
from umbel._control import events as ev
from umbel._control.actors import DEAD_KEPT_MAX, EXIT_GRACE_S, UNKNOWN_GRACE_S, ActorTable
from umbel._control.events import ActorSpec, ActorState, Cause


def spec(
    actor: str = "a",
    *,
    owner: str = "driver",
    name: str = "",
    namespace: str = "ns",
    is_detached: bool = False,
    max_restarts: int = 0,
    group: str = "",
) -> ActorSpec:
    strategy = {"placement_group": group, "bundle_index": -1} if group else None
    return ActorSpec(
        actor, owner, name, namespace, "Counter", is_detached, max_restarts, {"CPU": 1}, {}, None, strategy, None, 0
    )


def created(
    made: ActorSpec, *, get_if_exists: bool = False, request: int | None = None, lacks_arguments: bool = False
) -> ev.ActorCreated:
    return ev.ActorCreated(made, get_if_exists, request, 0.0, lacks_arguments=lacks_arguments)


def arrived(actor: str = "a", client: str = "driver") -> ev.ArgumentsArrived:
    return ev.ArgumentsArrived(actor, client, 0.0)


def failed(actor: str = "a", client: str = "driver") -> ev.ArgumentsFailed:
    return ev.ArgumentsFailed(actor, client, 0.0)


def alive(table: ActorTable, made: ActorSpec, worker: str = "w1") -> None:
    """Create the actor, host it on `worker` and let its constructor return."""
    hosted(table, made, worker)
    table.apply(ev.ActorReady(made.actor, worker, 0.0))


def hosted(table: ActorTable, made: ActorSpec, worker: str = "w1") -> None:
    table.apply(created(made), ev.ActorHosted(made.actor, worker, f"/{worker}.sock", 0.0))


def happened(severity: str, text: str) -> cluster_events.Happened:
    facts = {"actor_id": "a", "class_name": "Counter", "name": "", "job_id": ""}
    return cluster_events.Happened(severity, "ACTORS", f"actor Counter {text}", facts)


def published(
    state: ActorState,
    *,
    client: str = "watcher",
    worker: str = "",
    restarts: int = 0,
    reason: str = "",
    cause: Cause | None = None,
) -> ev.Publish:
    address = f"/{worker}.sock" if worker else ""
    cause = cause or (Cause.CRASHED if state is ActorState.DEAD else Cause.NONE)
    return ev.Publish(client, "a", state, address, worker, restarts, reason, cause)


def watch(table: ActorTable) -> list[ev.ActorCommand]:
    return table.apply(ev.ActorWatched("watcher", "a", 0.0))


@pytest.fixture
def table() -> ActorTable:
    return ActorTable()


def test_creation_looks_for_a_worker_and_is_pending(table: ActorTable) -> None:
    assert table.apply(created(spec())) == [ev.Place(spec())]
    assert watch(table) == [published(ActorState.PENDING)]


def test_hosted_actor_is_created_there_and_alive_once_its_constructor_returned(table: ActorTable) -> None:
    table.apply(created(spec()))
    watch(table)
    assert table.apply(ev.ActorHosted("a", "w1", "/w1.sock", 0.0)) == [ev.Create("a", "w1", reconstructed=0)]
    assert table.apply(ev.ActorReady("a", "w1", 0.0)) == [published(ActorState.ALIVE, worker="w1"), ev.Forget("a")]


def test_actor_is_listed_as_its_instance_calls_itself_dead_or_alive(table: ActorTable) -> None:
    hosted(table, spec()._replace(call_site="a.py:1"))
    table.apply(ev.ActorReady("a", "w1", 0.0, "<Counter 3>"))
    assert [(one.repr_name, one.call_site) for one in table.listed()] == [("<Counter 3>", "a.py:1")]
    table.apply(ev.HostDied("a", "w1", "it crashed", 0.0))
    assert [(one.state, one.repr_name) for one in table.listed()] == [(ActorState.DEAD, "<Counter 3>")]


def test_creation_told_twice_creates_once(table: ActorTable) -> None:
    table.apply(created(spec()))
    assert table.apply(created(spec())) == []


def test_watcher_that_comes_late_is_told_the_present_state(table: ActorTable) -> None:
    alive(table, spec())
    assert watch(table) == [published(ActorState.ALIVE, worker="w1")]


def test_watch_that_overtakes_the_creation_is_served(table: ActorTable) -> None:
    assert watch(table) == []
    assert table.apply(created(spec())) == [published(ActorState.PENDING), ev.Place(spec())]
    assert table.next_tick_s() is None


def test_watch_of_an_actor_that_never_comes_ends_as_dead(table: ActorTable) -> None:
    watch(table)
    assert table.next_tick_s() == UNKNOWN_GRACE_S
    (state,) = table.apply(ev.Ticked(UNKNOWN_GRACE_S))
    assert isinstance(state, ev.Publish)
    assert state.state is ActorState.DEAD
    assert "belongs to another session" in state.reason
    assert table.next_tick_s() is None


# ---- arguments that are still being computed ----

UNCOMPUTED = "an argument of its constructor could not be computed"


def test_actor_that_lacks_arguments_is_known_and_placed_once_they_are_there(table: ActorTable) -> None:
    assert table.apply(created(spec(), lacks_arguments=True)) == []
    lacking = published(ActorState.PENDING, reason="arguments of its constructor are still being computed")
    assert watch(table) == [lacking]
    assert table.next_tick_s() is None
    assert table.apply(arrived()) == [ev.Place(spec())]
    assert watch(table) == [published(ActorState.PENDING)]
    assert table.apply(arrived(), failed()) == []


def test_watch_that_overtakes_the_creation_of_an_actor_that_lacks_arguments_does_not_time_out(
    table: ActorTable,
) -> None:
    watch(table)
    (pending,) = table.apply(created(spec(), lacks_arguments=True))
    assert isinstance(pending, ev.Publish)
    assert pending.state is ActorState.PENDING
    assert table.apply(ev.Ticked(UNKNOWN_GRACE_S)) == []


def test_argument_that_failed_is_a_death_that_every_watcher_is_told(table: ActorTable) -> None:
    table.apply(created(spec(name="n", max_restarts=5), lacks_arguments=True))
    watch(table)
    dead = published(ActorState.DEAD, reason=UNCOMPUTED, cause=Cause.INIT_FAILED)
    assert table.apply(failed()) == [dead, ev.Forget("a")]
    assert table.find("n", "ns") is None
    assert watch(table) == [dead]
    assert table.apply(arrived()) == []


def test_kill_before_the_arguments_are_there_is_final(table: ActorTable) -> None:
    table.apply(created(spec(), lacks_arguments=True))
    watch(table)
    reason = "it was killed by umbel.kill()"
    assert table.apply(ev.ActorKilled("a", is_final=True, at_s=0.0)) == [
        published(ActorState.DEAD, reason=reason, cause=Cause.INTENDED),
        ev.Forget("a"),
        ev.Kill("a", reason),
    ]
    assert table.apply(arrived(), failed()) == []
    assert watch(table) == [published(ActorState.DEAD, reason=reason, cause=Cause.INTENDED)]


def test_kill_that_allows_restarts_changes_nothing_before_the_arguments_are_there(table: ActorTable) -> None:
    table.apply(created(spec(), lacks_arguments=True))
    assert table.apply(ev.ActorKilled("a", is_final=False, at_s=0.0)) == []
    assert table.apply(arrived()) == [ev.Place(spec())]


def test_actor_that_nobody_refers_to_before_its_arguments_are_there_is_never_placed(table: ActorTable) -> None:
    table.apply(created(spec(name="n"), lacks_arguments=True))
    assert [type(command) for command in table.apply(ev.ActorUnreferenced("a", 0.0))] == [ev.Forget, ev.Kill]
    assert table.find("n", "ns") is None
    assert table.apply(arrived()) == []


@pytest.mark.parametrize(
    ("is_detached", "words"), [(False, "pass lifetime='detached'"), (True, "had not sent all arguments")]
)
def test_actor_that_lacks_arguments_dies_with_its_creator(table: ActorTable, is_detached: bool, words: str) -> None:
    table.apply(created(spec(name="n", is_detached=is_detached, max_restarts=-1), lacks_arguments=True))
    watch(table)
    assert table.owns_actors("driver")
    dead, forget, kill = table.apply(ev.ClientGone("driver", 0.0))
    assert isinstance(dead, ev.Publish)
    assert (dead.state, dead.cause) == (ActorState.DEAD, Cause.CRASHED)
    assert dead.reason.startswith("its owner, the process driver that created it, is gone")
    assert words in dead.reason
    assert (forget, kill) == (ev.Forget("a"), ev.Kill("a", dead.reason))
    assert table.find("n", "ns") is None


def test_detached_actor_needs_its_creator_no_more_once_the_arguments_are_there(table: ActorTable) -> None:
    table.apply(created(spec(is_detached=True), lacks_arguments=True), arrived())
    assert not table.owns_actors("driver")
    assert table.apply(ev.ClientGone("driver", 0.0)) == []


def test_only_the_creator_speaks_for_the_arguments(table: ActorTable) -> None:
    table.apply(created(spec(), lacks_arguments=True))
    assert table.apply(arrived(client="other"), failed(client="other")) == []
    assert (table.awaits_arguments("a", "driver"), table.awaits_arguments("a", "other")) == (True, False)


def test_name_is_taken_before_the_arguments_are_there(table: ActorTable) -> None:
    named = spec(name="n")
    answer = ev.AnswerCreate("driver", 7, "a", is_existing=False)
    assert table.apply(created(named, request=7, lacks_arguments=True)) == [answer]
    assert table.find("n", "ns") == "a"
    assert table.apply(created(spec("b", name="n"), get_if_exists=True, request=8, lacks_arguments=True)) == [
        ev.AnswerCreate("driver", 8, "a", is_existing=True),
        ev.Forget("b"),
    ]
    assert table.apply(arrived("b"), arrived("a")) == [ev.Place(named)]


def test_check_finds_an_actor_made_without_its_arguments(table: ActorTable) -> None:
    hosted(table, spec())
    table.actors["a"].lacks_arguments = True
    with pytest.raises(exceptions.InternalError, match="made without its arguments"):
        table.check()


# ---- names ----


def test_named_creation_is_answered(table: ActorTable) -> None:
    named = spec(name="n")
    assert table.apply(created(named, request=7)) == [
        ev.AnswerCreate("driver", 7, "a", is_existing=False),
        ev.Place(named),
    ]
    assert table.find("n", "ns") == "a"
    assert table.find("n", "other") is None


def test_taken_name_is_refused_with_the_holder_and_what_to_do(table: ActorTable) -> None:
    table.apply(created(spec(name="n")))
    refused, forget = table.apply(created(spec("b", name="n"), request=8))
    assert isinstance(refused, ev.RefuseCreate)
    assert refused.request == 8
    assert "'n' already exists in namespace 'ns' (class Counter, id a)" in refused.reason
    assert "get_if_exists=True" in refused.reason
    assert forget == ev.Forget("b")


def test_get_if_exists_of_many_creates_one(table: ActorTable) -> None:
    answers = [
        table.apply(created(spec(f"a{number}", name="n"), get_if_exists=True, request=number))[0] for number in range(5)
    ]
    assert [(answer.actor, answer.is_existing) for answer in answers if isinstance(answer, ev.AnswerCreate)] == [
        ("a0", False),
        *[("a0", True)] * 4,
    ]


def test_same_name_in_another_namespace_is_another_actor(table: ActorTable) -> None:
    table.apply(created(spec("a", name="n")), created(spec("b", name="n", namespace="other")))
    assert table.named(None) == [("ns", "n"), ("other", "n")]
    assert table.named("ns") == [("ns", "n")]


def test_name_of_a_dead_actor_is_free_at_once(table: ActorTable) -> None:
    alive(table, spec(name="n"))
    table.apply(ev.ActorKilled("a", is_final=True, at_s=0.0))
    assert table.apply(created(spec("b", name="n"), request=1))[0] == ev.AnswerCreate(
        "driver", 1, "b", is_existing=False
    )


# ---- death and restarts ----


def test_crash_without_restarts_is_death(table: ActorTable) -> None:
    alive(table, spec())
    watch(table)
    assert table.apply(ev.HostDied("a", "w1", "it crashed", 1.0)) == [
        published(ActorState.DEAD, reason="it crashed"),
        ev.Forget("a"),
        happened("ERROR", "is dead: it crashed"),
    ]
    assert watch(table) == [published(ActorState.DEAD, reason="it crashed")]


def test_crash_with_restarts_left_restarts_and_counts(table: ActorTable) -> None:
    made = spec(max_restarts=1)
    alive(table, made)
    watch(table)
    assert table.apply(ev.HostDied("a", "w1", "it crashed", 1.0)) == [
        published(ActorState.RESTARTING, restarts=1, reason="it crashed"),
        ev.Place(made),
        happened("WARNING", "restarts, 1 of 1: it crashed"),
    ]
    assert table.apply(ev.ActorHosted("a", "w2", "/w2.sock", 2.0)) == [ev.Create("a", "w2", reconstructed=1)]
    assert table.apply(ev.ActorReady("a", "w2", 2.0)) == [published(ActorState.ALIVE, worker="w2", restarts=1)]
    assert table.apply(ev.HostDied("a", "w2", "it crashed", 3.0))[0] == published(
        ActorState.DEAD, restarts=1, reason="it crashed; its 1 restarts are used up"
    )


def test_restarts_without_limit(table: ActorTable) -> None:
    alive(table, spec(max_restarts=-1))
    for number in range(100):
        table.apply(ev.HostDied("a", f"w{number + 1}", "it crashed", 1.0))
        table.apply(ev.ActorHosted("a", f"w{number + 2}", "", 1.0), ev.ActorReady("a", f"w{number + 2}", 1.0))
    assert table.actors["a"].restarts == 100


def test_crash_during_the_constructor_counts_as_a_restart(table: ActorTable) -> None:
    hosted(table, spec(max_restarts=1))
    table.apply(ev.HostDied("a", "w1", "it crashed", 1.0))
    assert table.actors["a"].state is ActorState.RESTARTING


def test_constructor_that_raises_is_final_and_its_worker_is_released(table: ActorTable) -> None:
    hosted(table, spec(max_restarts=5))
    watch(table)
    assert table.apply(ev.ActorInitFailed("a", "w1", 0.0)) == [
        published(ActorState.DEAD, reason="its constructor raised an error", cause=Cause.INIT_FAILED),
        ev.Forget("a"),
        happened("ERROR", "is dead: its constructor raised an error"),
        ev.Release("a", EXIT_GRACE_S),
    ]
    assert table.apply(ev.HostDied("a", "w1", "", 1.0)) == []


def test_intended_exit_is_no_crash_and_is_told_when_the_process_has_gone(table: ActorTable) -> None:
    alive(table, spec(max_restarts=5))
    watch(table)
    assert table.apply(ev.ActorExiting("a", "w1", "exit_actor() was called", 0.0)) == [ev.Release("a", EXIT_GRACE_S)]
    assert table.apply(ev.HostDied("a", "w1", "exited with code 0", 1.0))[0] == published(
        ActorState.DEAD, reason="exit_actor() was called", cause=Cause.INTENDED
    )


def test_kill_is_told_at_once(table: ActorTable) -> None:
    alive(table, spec(max_restarts=5))
    watch(table)
    reason = "it was killed by umbel.kill()"
    assert table.apply(ev.ActorKilled("a", is_final=True, at_s=0.0)) == [
        published(ActorState.DEAD, reason=reason, cause=Cause.INTENDED),
        ev.Forget("a"),
        ev.Kill("a", reason),
    ]
    assert table.apply(ev.ActorKilled("a", is_final=True, at_s=0.0), ev.HostDied("a", "w1", "killed", 1.0)) == []


def test_kill_that_allows_restarts_uses_one(table: ActorTable) -> None:
    alive(table, spec(max_restarts=1))
    (kill,) = table.apply(ev.ActorKilled("a", is_final=False, at_s=0.0))
    assert isinstance(kill, ev.Kill)
    table.apply(ev.HostDied("a", "w1", "killed", 1.0))
    assert (table.actors["a"].state, table.actors["a"].restarts) == (ActorState.RESTARTING, 1)


def test_kill_of_a_pending_actor_stops_the_search(table: ActorTable) -> None:
    table.apply(created(spec()))
    assert [type(command) for command in table.apply(ev.ActorKilled("a", is_final=True, at_s=0.0))] == [
        ev.Forget,
        ev.Kill,
    ]
    assert table.apply(ev.ActorHosted("a", "w1", "", 0.0)) == []


def test_messages_of_an_earlier_host_are_void(table: ActorTable) -> None:
    alive(table, spec(max_restarts=1))
    table.apply(ev.HostDied("a", "w1", "it crashed", 1.0), ev.ActorHosted("a", "w2", "", 1.0))
    stale: list[ev.ActorEvent] = [
        ev.ActorReady("a", "w1", 2.0),
        ev.ActorInitFailed("a", "w1", 2.0),
        ev.ActorExiting("a", "w1", "", 2.0),
        ev.HostDied("a", "w1", "", 2.0),
    ]
    assert table.apply(*stale) == []
    assert table.actors["a"].worker == "w2"


def test_no_worker_to_be_had_is_death(table: ActorTable) -> None:
    table.apply(created(spec()))
    watch(table)
    assert table.apply(ev.HostingFailed("a", "no worker", False, 0.0))[0] == published(
        ActorState.DEAD, reason="no worker", cause=Cause.NO_ENVIRONMENT
    )


def test_actor_that_cannot_be_scheduled_is_dead_with_that_cause(table: ActorTable) -> None:
    table.apply(created(spec(max_restarts=-1)))
    watch(table)
    assert table.apply(ev.HostingFailed("a", "no such node", True, 0.0))[0] == published(
        ActorState.DEAD, reason="no such node", cause=Cause.UNSCHEDULABLE
    )


# ---- lifetime ----


def test_unreferenced_actor_finishes_and_is_then_dead_by_intention(table: ActorTable) -> None:
    alive(table, spec(max_restarts=5))
    watch(table)
    assert table.apply(ev.ActorUnreferenced("a", 0.0)) == [ev.Release("a", None)]
    assert table.apply(ev.HostDied("a", "w1", "exited", 1.0))[0] == published(
        ActorState.DEAD, reason="no handle to it is left", cause=Cause.INTENDED
    )


def test_unreferenced_actor_without_a_worker_is_dead_at_once(table: ActorTable) -> None:
    table.apply(created(spec()))
    assert [type(command) for command in table.apply(ev.ActorUnreferenced("a", 0.0))] == [ev.Forget, ev.Kill]


def test_detached_actor_outlives_handles_and_owner(table: ActorTable) -> None:
    alive(table, spec(name="n", is_detached=True))
    assert table.apply(ev.ActorUnreferenced("a", 0.0), ev.ClientGone("driver", 0.0)) == []
    assert table.find("n", "ns") == "a"


def test_actors_die_with_their_owner(table: ActorTable) -> None:
    alive(table, spec(max_restarts=-1))
    watch(table)
    dead, _, kill = table.apply(ev.ClientGone("driver", 0.0))
    assert isinstance(dead, ev.Publish)
    assert dead.state is ActorState.DEAD
    assert dead.reason.startswith("its owner, the process driver that created it, is gone")
    assert isinstance(kill, ev.Kill)


class Unlisted(dict[str, Any]):
    """Of which one can be looked up, and not all looked at."""

    def values(self) -> Any:
        raise AssertionError("all actors are looked at")

    items = __iter__ = values


def test_the_end_of_a_process_costs_no_look_at_the_actors_of_others(table: ActorTable) -> None:
    """Every worker's end is told: when each looked at all actors, killing 8,900 of them took the head 15 s."""
    alive(table, spec("a"))
    alive(table, spec("b", owner="other"), "w2")
    table.apply(ev.ActorWatched("other", "a", 0.0))
    table.actors = Unlisted(table.actors)
    assert table.apply(ev.ClientGone("w9", 0.0)) == []
    forget, kill = table.apply(ev.ClientGone("other", 0.0))
    assert forget == ev.Forget("b")
    assert isinstance(kill, ev.Kill)
    assert kill.actor == "b"
    table.actors = dict(dict.items(table.actors))
    table.check()
    assert table.apply(ev.ActorKilled("a", True, 0.0))[0] == ev.Forget("a")  # and nobody watches it any more


def test_watcher_that_is_gone_is_told_nothing(table: ActorTable) -> None:
    alive(table, spec())
    watch(table)
    table.apply(ev.ClientGone("watcher", 0.0))
    assert table.apply(ev.HostDied("a", "w1", "", 1.0)) == [ev.Forget("a"), happened("ERROR", "is dead: ")]


def test_only_so_many_dead_are_remembered(table: ActorTable) -> None:
    for number in range(DEAD_KEPT_MAX + 1):
        table.apply(created(spec(f"a{number}")), ev.ActorKilled(f"a{number}", is_final=True, at_s=0.0))
    assert len(table.listed()) == DEAD_KEPT_MAX
    table.check()


def test_check_finds_a_name_of_nobody(table: ActorTable) -> None:
    alive(table, spec(name="n"))
    del table.actors["a"]
    with pytest.raises(exceptions.InternalError, match="a name of no live actor"):
        table.check()


@pytest.mark.parametrize("seed", range(40))
def test_random_events_keep_the_invariants_and_dead_stays_dead(seed: int) -> None:
    chance = random.Random(seed)
    table = ActorTable()
    dead: set[str] = set()
    workers = 0
    for _ in range(300):
        actor = f"a{chance.randrange(20)}"
        known = table.actors.get(actor)
        worker = known.worker if known is not None and known.worker and chance.random() < 0.8 else "w?"
        choice = chance.randrange(12)
        event: ev.ActorEvent
        if choice <= 1:
            event = created(
                spec(
                    actor,
                    owner=chance.choice(["driver", "p"]),
                    name=chance.choice(["", "n", "m"]),
                    is_detached=chance.random() < 0.3,
                    max_restarts=chance.choice([0, 1, -1]),
                ),
                get_if_exists=chance.random() < 0.5,
                request=1,
                lacks_arguments=chance.random() < 0.5,
            )
        elif choice <= 3:
            if known is not None and (known.worker or known.lacks_arguments):
                continue  # no worker was asked for
            workers += 1
            event = ev.ActorHosted(actor, f"w{workers}", "", 0.0)
        else:
            events: list[ev.ActorEvent] = [
                ev.ActorReady(actor, worker, 0.0),
                ev.ActorWatched("watcher", actor, 0.0),
                ev.ActorInitFailed(actor, worker, 0.0),
                ev.ActorExiting(actor, worker, "bye", 0.0),
                ev.ActorKilled(actor, chance.random() < 0.3, 0.0),
                ev.HostDied(actor, worker, "it crashed", 0.0),
                ev.ActorUnreferenced(actor, 0.0) if chance.random() < 0.5 else ev.ClientGone("p", 0.0),
                (arrived if chance.random() < 0.7 else failed)(actor, chance.choice(["driver", "p"])),
            ]
            event = events[choice - 4]
        commands = table.apply(event)
        table.check()
        for command in commands:
            if isinstance(command, ev.Publish):
                assert command.actor not in dead or command.state is ActorState.DEAD
        dead |= {one.actor for one in table.listed() if one.state is ActorState.DEAD}
        assert not dead & set(table.actors)


def test_actors_of_a_group_that_has_ended_die_whatever_restarts_they_have_left(table: ActorTable) -> None:
    alive(table, spec("a", group="g", max_restarts=-1, is_detached=True, name="n"))
    table.apply(created(spec("b", group="g")), created(spec("c", group="other")), created(spec("d")))
    watch(table)
    reason = "the placement group g that it was to live in is gone: it was removed"
    assert table.apply(ev.GroupEnded("g", "it was removed", 0.0)) == [
        published(ActorState.DEAD, reason=reason, cause=Cause.GROUP_REMOVED),
        ev.Forget("a"),
        ev.Kill("a", reason),
        ev.Forget("b"),
        ev.Kill("b", reason),
    ]
    assert sorted(table.actors) == ["c", "d"]
    assert table.find("n", "ns") is None
    assert table.apply(ev.HostDied("a", "w1", "killed", 0.0)) == []
    table.check()


def test_a_restart_for_a_node_that_was_taken_away_does_not_count(table: ActorTable) -> None:
    alive(table, spec(max_restarts=1))
    assert table.apply(ev.HostDied("a", "w1", "its node was drained", 0.0, is_preempted=True)) == [
        ev.Place(spec(max_restarts=1)),
        happened("WARNING", "restarts, 1 of 1: its node was drained"),
    ]
    table.apply(ev.ActorHosted("a", "w2", "/w2.sock", 0.0), ev.ActorReady("a", "w2", 0.0))
    table.apply(ev.HostDied("a", "w2", "it crashed", 0.0))
    (listed,) = table.listed()
    assert (listed.state, listed.restarts, listed.preemptions) == (ActorState.RESTARTING, 2, 1)
    table.check()
    table.apply(ev.ActorHosted("a", "w3", "/w3.sock", 0.0), ev.ActorReady("a", "w3", 0.0))
    table.apply(ev.HostDied("a", "w3", "it crashed", 0.0))
    assert table.listed()[0].reason == "it crashed; its 1 restarts are used up"


def test_an_actor_whose_restarts_are_used_up_survives_the_end_of_its_node_and_one_without_any_does_not(
    table: ActorTable,
) -> None:
    alive(table, spec(max_restarts=1))
    table.apply(ev.HostDied("a", "w1", "it crashed", 0.0), ev.ActorHosted("a", "w2", "/w2.sock", 0.0))
    table.apply(ev.ActorReady("a", "w2", 0.0), ev.HostDied("a", "w2", "drained", 0.0, is_preempted=True))
    assert table.listed()[0].state is ActorState.RESTARTING
    alive(table, spec("b"), "w9")
    table.apply(ev.HostDied("b", "w9", "drained", 0.0, is_preempted=True))
    assert [(one.state, one.cause) for one in table.listed()] == [
        (ActorState.RESTARTING, Cause.NONE), (ActorState.DEAD, Cause.PREEMPTED),
    ]  # fmt: skip


def test_who_asks_again_for_a_named_actor_that_was_made_is_answered_alike(table: ActorTable) -> None:
    made = spec(name="n")
    table.apply(created(made, request=7))
    answer = [ev.AnswerCreate("driver", 7, "a", is_existing=False)]
    assert table.apply(created(made, request=7)) == answer
    table.apply(ev.ActorKilled("a", is_final=True, at_s=1.0))
    assert table.apply(created(made, request=7)) == answer
    assert table.find("n", "ns") is None
