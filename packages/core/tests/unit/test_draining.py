"""A node that is to be drained, as lists of events."""

from __future__ import annotations

from typing import Any

from umbel._agent.draining import CHECK_S, Answer, Asked, Begin, Draining, End, GoOn, Left, Looked


def idle(left: Left, number: int = 1, now_s: float = 0.0) -> Asked:
    return Asked(number, "idle", "", None, left, now_s)


def preemption(left: Left, until_s: float | None, number: int = 1, now_s: float = 0.0) -> Asked:
    return Asked(number, "preemption", "spot", until_s, left, now_s)


def apply(machine: Draining, *events: Any) -> list[Any]:
    """The commands of the last one."""
    commands: list[Any] = []
    for event in events:
        commands = machine.apply(event)
    return commands


def test_an_idle_node_without_workers_is_drained_at_once() -> None:
    commands = apply(Draining(), idle(Left()))
    assert commands == [Begin("idle"), Answer(1, True, ""), End("it was drained (idle)")]


def test_an_idle_drain_is_refused_by_a_node_that_has_something() -> None:
    for left, told in (
        (Left(drivers=1), "1 program"),
        (Left(leases=2, workers=1), "2 workers in use"),
        (Left(actors=1), "1 actor"),
        (Left(bundles=3), "3 bundles of placement groups"),
        (Left(waiting=1), "1 worker to be found for what waits"),
    ):
        machine = Draining()
        assert apply(machine, idle(left)) == [Answer(1, False, f"the node is not idle: it has {told}")]
        assert not machine.is_begun
        assert machine.next_tick_s() is None


def test_idle_workers_are_asked_before_an_idle_drain_is_answered() -> None:
    machine = Draining()
    assert apply(machine, idle(Left(workers=2))) == [Begin("idle")]
    assert machine.is_begun
    assert apply(machine, Looked(Left(workers=1), 0.1)) == []
    assert apply(machine, Looked(Left(), 0.2)) == [Answer(1, True, ""), End("it was drained (idle)")]
    assert apply(machine, Looked(Left(), 0.3)) == []


def test_a_worker_with_values_that_others_need_makes_the_node_go_on() -> None:
    machine = Draining()
    commands = apply(machine, idle(Left(workers=2)), Looked(Left(workers=1, keeping=1), 0.1))
    assert commands == [
        GoOn(), Answer(1, False, "the node is not idle: it has 1 worker with values that others need"),
    ]  # fmt: skip
    assert not machine.is_begun


def test_what_comes_while_workers_are_asked_makes_the_node_go_on() -> None:
    machine = Draining()
    commands = apply(machine, idle(Left(workers=1)), Looked(Left(workers=1, waiting=1), 0.1))
    told = "the node is not idle: it has 1 worker to be found for what waits"
    assert commands == [GoOn(), Answer(1, False, told)]


def test_a_worker_that_does_not_answer_is_not_waited_for_without_end() -> None:
    machine = Draining()
    apply(machine, idle(Left(workers=1), 1), idle(Left(workers=1), 2, now_s=1.0))
    assert machine.next_tick_s() == CHECK_S
    first, *answers = apply(machine, Looked(Left(workers=1), CHECK_S))
    assert first == GoOn()
    assert [(one.request, one.is_accepted) for one in answers] == [(1, False), (2, False)]


def test_a_preemption_is_never_refused_and_ends_when_nothing_is_left() -> None:
    machine = Draining()
    assert apply(machine, preemption(Left(leases=1, workers=1), 60.0)) == [
        Begin("preemption: spot"),
        Answer(1, True, ""),
    ]
    assert apply(machine, Looked(Left(workers=1, keeping=1), 1.0)) == []
    assert apply(machine, Looked(Left(waiting=3), 2.0)) == [End("it was drained (preemption: spot)")]


def test_at_the_deadline_a_node_ends_whatever_it_has() -> None:
    machine = Draining()
    apply(machine, preemption(Left(actors=1), 60.0))
    assert machine.next_tick_s() == 60.0
    assert apply(machine, Looked(Left(actors=1), 59.0)) == []
    told = "it was drained (preemption: spot), and its deadline has passed; it still had 1 actor"
    assert apply(machine, Looked(Left(actors=1), 60.0)) == [End(told)]
    assert machine.next_tick_s() is None


def test_a_preemption_overtakes_an_idle_drain_that_is_looked_into() -> None:
    machine = Draining()
    commands = apply(machine, idle(Left(workers=1), 1), preemption(Left(workers=1), None, 2))
    assert commands == [Answer(1, True, ""), Answer(2, True, "")]
    assert machine.reason == "preemption"


def test_of_two_deadlines_the_sooner_holds() -> None:
    machine = Draining()
    apply(machine, preemption(Left(actors=1), None))
    assert apply(machine, preemption(Left(actors=1), 30.0, 2)) == [Answer(2, True, "")]
    apply(machine, preemption(Left(actors=1), 90.0, 3), idle(Left(actors=1), 4))
    assert machine.next_tick_s() == 30.0


def test_an_idle_drain_of_a_node_that_is_being_drained_is_refused_while_it_has_something() -> None:
    """Whoever asks ends the machine when that is agreed to, as the autoscaler does."""
    machine = Draining()
    apply(machine, preemption(Left(workers=1, keeping=1), None))
    (refused,) = apply(machine, idle(Left(workers=1, keeping=1), 2))
    assert refused == Answer(
        2, False, "the node is being drained already, and is not idle: it has 1 worker with values that others need"
    )
    assert apply(machine, idle(Left(), 3))[0] == Answer(3, True, "")


def test_of_two_deadlines_the_earlier_one_holds_whatever_the_order_and_the_reasons() -> None:
    """Before: a preemption that was asked for while an idle node was looked at took its own deadline, though later."""
    machine = Draining()
    idle = Asked(1, "idle", "", 8.0, Left(workers=1), 0.0)
    assert machine.apply(idle) == [Begin("idle")]
    preemption = Asked(2, "preemption", "", 100.0, Left(workers=1), 1.0)
    assert machine.apply(preemption) == [Answer(1, True, ""), Answer(2, True, "")]
    assert machine.next_tick_s() == 8.0
    again = Asked(3, "preemption", "", 101.0, Left(workers=1), 2.0)
    assert machine.apply(again) == [Answer(3, True, "")]
    assert machine.next_tick_s() == 8.0
    sooner = Asked(4, "preemption", "", 5.0, Left(workers=1), 3.0)
    assert machine.apply(sooner) == [Answer(4, True, "")]
    assert machine.next_tick_s() == 5.0


def test_of_several_idle_drains_that_are_looked_into_the_earliest_deadline_holds() -> None:
    machine = Draining()
    for request, until_s in ((1, None), (2, 30.0), (3, 20.0)):
        machine.apply(Asked(request, "idle", "", until_s, Left(workers=1, keeping=0), 0.0))
    commands = machine.apply(Looked(Left(), 1.0))
    assert [one.request for one in commands if isinstance(one, Answer)] == [1, 2, 3]
    assert machine.until_s == 20.0
