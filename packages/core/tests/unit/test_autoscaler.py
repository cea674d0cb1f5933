"""What the autoscaler decides, as lists of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from umbel import exceptions
from umbel._autoscaling import autoscaler, demand, events, node_types, packing, planning
from umbel._autoscaling.autoscaler import Autoscaler
from umbel._autoscaling.demand import Group, Shape
from umbel._autoscaling.node_types import NodeType, Settings
from umbel._autoscaling.planning import UPSCALING_MIN, NodeState
from umbel._model.resources import EMPTY, ResourceSet


def amounts(**wanted: float) -> ResourceSet:
    return ResourceSet.from_floats(wanted)


def kind(
    name: str = "cpu", most: int = 10, least: int = 0, *, labels: Mapping[str, str] | None = None, **has: float
) -> NodeType:
    return NodeType(name, amounts(**(has or {"CPU": 4})), most, least, labels or {})


def machine(*types: NodeType, most: int = 100, **options: float) -> Autoscaler:
    return Autoscaler(node_types.checked(Settings(types or (kind(),), most, **options)))


def waits(*shapes: Shape, groups: Sequence[Group] = (), at_s: float = 0.0) -> events.DemandChanged:
    return events.DemandChanged(shapes, tuple(groups), at_s)


def cpus(count: float, times: int = 1, *selectors: Mapping[str, str]) -> Shape:
    return Shape(amounts(CPU=count), times, tuple(tuple(sorted(one.items())) for one in selectors))


def seen(
    node: str, type_name: str = "cpu", *, total: float = 4, free: float | None = None, idle_s: float | None = None,
    at_s: float = 0.0, labels: Mapping[str, str] | None = None,
) -> events.NodeSeen:  # fmt: skip
    free = total if free is None else free
    return events.NodeSeen(node, type_name, amounts(CPU=total), amounts(CPU=free), labels or {}, idle_s, at_s)


def told(one: Autoscaler, *given: events.Event) -> list[events.Command]:
    """All commands."""
    commands = []
    for event in given:
        commands += one.apply(event)
        one.check()
    return commands


def launched(commands: Sequence[events.Command]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in commands:
        assert isinstance(one, events.Launch)
        counts[one.type_name] = counts.get(one.type_name, 0) + one.node_count
    return counts


def answered(
    number: int, *instances: str, error: str = "", at_s: float = 0.0, after_s: float = 0.0
) -> events.LaunchAnswered:
    return events.LaunchAnswered(number, instances, at_s, error, after_s)


# ---- launching ----


def test_what_waits_gets_as_few_nodes_as_hold_it() -> None:
    one = machine()
    assert told(one, waits(cpus(1, 9), cpus(3, 1)), events.Ticked(0.0)) == [
        events.Launch(1, "cpu", 3, "{CPU: 3}, which waits; 4 x {CPU: 1}, which waits")
    ]


def test_nothing_is_launched_for_what_is_on_its_way() -> None:
    one = machine()
    told(one, waits(cpus(1, 8)), events.Ticked(0.0))
    assert told(one, events.Ticked(5.0)) == []
    assert told(one, answered(1, "a", "b", at_s=6.0), events.Ticked(10.0)) == []
    assert told(one, seen("a", at_s=11.0), events.Ticked(15.0)) == []


def test_a_node_that_is_seen_before_its_launch_is_answered_counts_once() -> None:
    """Clouds answer late: what a node that is there already cannot serve is launched for at once, and not after the answer."""
    one = machine()
    told(one, waits(cpus(4, 1)), events.Ticked(0.0))
    told(one, events.Listed({"a": "cpu"}, 4.0, 4.5), waits(cpus(4, 2), at_s=5.0))
    assert launched(told(one, events.Ticked(5.0))) == {"cpu": 1}
    told(one, events.Listed({}, 6.0, 6.5))  # listings have it for certain once its launch has returned
    assert told(one, events.Ticked(10.0)) == []
    told(one, answered(1, "a", at_s=30.0), events.Listed({"a": "cpu"}, 31.0, 31.0), seen("a", free=0, at_s=32.0))
    assert one.nodes["a"].reason == "{CPU: 4}, which waits"
    assert told(one, waits(cpus(4, 1), at_s=33.0), events.Ticked(35.0)) == []  # the other one comes


def test_a_node_that_was_there_before_is_gone_when_a_listing_says_so_after_all_launches_are_answered() -> None:
    one = machine()
    told(one, waits(cpus(4, 1)), events.Ticked(0.0), events.Listed({"stray": "cpu"}, 1.0, 2.0))
    told(one, events.Listed({}, 3.0, 4.0))
    assert "stray" in one.nodes  # it may be what the launch makes
    told(one, answered(1, "a", at_s=5.0), events.Listed({"a": "cpu"}, 6.0, 7.0))
    assert list(one.nodes) == ["a"]


def test_so_many_launches_are_without_an_answer_at_a_time() -> None:
    types = [kind(f"t{number}", least=1) for number in range(planning.LAUNCHES_MAX + 2)]
    one = machine(*types)
    first = told(one, events.Ticked(0.0))
    assert len(first) == planning.LAUNCHES_MAX
    assert one.last_plan is not None
    assert [later.type_name for later in one.last_plan.deferred] == [types[-2].name, types[-1].name]
    assert told(one, events.Ticked(5.0)) == []
    told(one, answered(1, "a", at_s=6.0))
    assert [launch.type_name for launch in told(one, events.Ticked(10.0)) if isinstance(launch, events.Launch)] == [
        types[-2].name
    ]


def test_room_that_is_there_is_used_first() -> None:
    one = machine()
    assert launched(told(one, seen("a", free=2), waits(cpus(1, 4)), events.Ticked(0.0))) == {"cpu": 1}


def test_min_workers_are_there_without_demand_and_come_back() -> None:
    one = machine(kind(least=2))
    (launch,) = told(one, events.Ticked(0.0))
    assert launch == events.Launch(1, "cpu", 2, "min_workers is 2")
    told(one, answered(1, "a", "b"), seen("a"), seen("b"))
    assert told(one, events.NodeDied("a", 7.0)) == [events.Terminate("a", "its daemon has died")]
    assert launched(told(one, events.Ticked(10.0))) == {"cpu": 1}


def test_never_more_than_max_workers_of_a_type_or_in_all() -> None:
    one = machine(kind("a", 2), kind("b", 3), most=4)
    commands = told(one, waits(cpus(4, 9)), events.Ticked(0.0))
    assert launched(commands) == {"a": 2, "b": 2}
    plan = one.explain(0.0)
    assert [(unmet.what, [looked.kind for looked in unmet.looked]) for unmet in plan.unmet] == [
        ("5 x {CPU: 4}", [packing.TYPE_MAX, packing.CLUSTER_MAX])
    ]


def test_nodes_that_leave_count_until_they_have_ended() -> None:
    one = machine(kind(most=1), idle_timeout_s=10)
    told(one, events.Listed({"a": "cpu"}, 0.0, 0.0), seen("a", idle_s=0.0))
    told(one, events.Ticked(20.0), events.DrainAnswered("a", True, 21.0), waits(cpus(1), at_s=22.0))
    assert told(one, events.Ticked(25.0)) == []
    assert launched(told(one, events.NodeEnded("a", 26.0), events.Ticked(30.0))) == {"cpu": 1}


def test_nodes_that_others_have_drained_are_replaced_and_count_until_they_have_ended() -> None:
    """Before: they counted for min_workers, and for what stands."""
    one = machine(kind(most=3, least=1))
    told(one, events.StandingChanged((cpus(4, 2),), 0.0), seen("a", at_s=0.0), seen("b", at_s=0.0))
    assert told(one, events.Ticked(0.0)) == []
    leaving = seen("a", free=0, idle_s=0.0, at_s=5.0)._replace(draining="it is being drained (preemption)")
    (launch,) = told(one, leaving, events.Ticked(5.0))
    assert launch == events.Launch(1, "cpu", 1, "{CPU: 4} of a standing request")
    assert one.explain(5.0).kept["a"] == "it is leaving: it is being drained (preemption)"
    told(one, answered(1, "c", at_s=6.0), seen("c", at_s=6.0), waits(cpus(4, 1), at_s=7.0))
    told(one, seen("b", free=0, at_s=7.0), seen("c", free=0, at_s=7.0))
    assert told(one, events.Ticked(100.0)) == []  # three are there, and the one that leaves is not drained once more
    assert told(one, events.NodeDied("a", 101.0)) == [events.Terminate("a", "its daemon has died")]
    assert launched(told(one, events.NodeEnded("a", 102.0), events.Ticked(105.0))) == {"cpu": 1}


def test_a_node_that_was_not_launched_here_may_leave() -> None:
    one = machine(kind(least=1))
    told(one, seen("x", "", at_s=0.0)._replace(draining="it is being drained (idle)"))
    assert launched(told(one, waits(cpus(1)), events.Ticked(0.0))) == {"cpu": 1}
    told(one, events.NodeDied("x", 1.0))
    assert "x" not in one.nodes


def test_the_type_that_wastes_least_is_chosen() -> None:
    one = machine(kind("large", CPU=64), kind("small", CPU=4))
    assert launched(told(one, waits(cpus(1, 100)), events.Ticked(0.0))) == {"large": 1, "small": UPSCALING_MIN}
    assert one.explain(0.0).deferred[0][:2] == ("small", 4)


def test_where_few_nodes_may_be_launched_they_are_those_that_serve_most() -> None:
    one = machine(kind("small", CPU=4), kind("large", CPU=64, GPU=1), most=3)
    assert launched(told(one, waits(cpus(1, 100)), events.Ticked(0.0))) == {"large": 2}
    assert one.explain(0.0).unmet == ()


def test_devices_are_left_to_those_who_ask_for_them() -> None:
    types = kind("gpu", CPU=4, GPU=1), kind("cpu", CPU=16)
    assert launched(told(machine(*types), waits(cpus(4)), events.Ticked(0.0))) == {"cpu": 1}
    asked = Shape(amounts(CPU=1, GPU=1), 2)
    assert launched(told(machine(*types), waits(cpus(3, 2), asked), events.Ticked(0.0))) == {"gpu": 2}


def test_labels_choose_the_type_and_the_first_selector_is_preferred() -> None:
    one = machine(kind("a", labels={"zone": "a"}), kind("b", labels={"zone": "b"}))
    commands = told(one, waits(cpus(4, 1, {"zone": "b"}), cpus(3, 1, {"zone": "c"}, {"zone": "a"})), events.Ticked(0.0))
    assert launched(commands) == {"a": 1, "b": 1}
    one = machine(kind("a", labels={"zone": "a"}), kind("b", labels={"zone": "b"}))
    assert launched(told(one, waits(cpus(4, 1, {"zone": "b"}, {"zone": "a"})), events.Ticked(0.0))) == {"b": 1}


def test_upscaling_is_as_fast_as_is_allowed() -> None:
    one = machine(kind(most=1000), most=1000, upscaling_speed=0.5)
    for number in range(20):
        told(one, seen(f"n{number}", free=0))
    told(one, waits(cpus(4, 400)))
    commands = told(one, events.Ticked(0.0))
    assert launched(commands) == {"cpu": 10}
    assert told(one, events.Ticked(5.0)) == []
    told(one, answered(1, *(f"m{number}" for number in range(10)), at_s=6.0))
    told(one, *(seen(f"m{number}", free=0, at_s=7.0) for number in range(10)))
    assert launched(told(one, events.Ticked(10.0))) == {"cpu": 15}


def test_standing_requests_are_launched_at_once_and_count_what_is_in_use() -> None:
    one = machine(kind(most=1000), most=1000)
    told(one, seen("a", free=0), events.StandingChanged((cpus(1, 84),), 0.0))
    assert launched(told(one, events.Ticked(0.0))) == {"cpu": 20}
    assert told(one, events.Ticked(5.0)) == []


def test_a_million_tasks_of_one_shape_are_planned_as_one() -> None:
    one = machine(kind(most=2000), most=2000, upscaling_speed=1e6)
    told(one, seen("a"))
    assert launched(told(one, waits(cpus(0.01, 1_000_000)), events.Ticked(0.0))) == {"cpu": 1999}


def test_tasks_that_need_nothing_need_one_node() -> None:
    assert launched(told(machine(), waits(Shape(EMPTY, 7)), events.Ticked(0.0))) == {"cpu": 1}


def test_nodes_with_less_than_their_type_says_are_not_launched_for_ever() -> None:
    one = machine()
    told(one, waits(cpus(4)), events.Ticked(0.0), answered(1, "a"), seen("a", total=2, at_s=3.0))
    assert told(one, events.Ticked(5.0)) == []
    (unmet,) = one.explain(5.0).unmet
    assert unmet.looked == (packing.Looked("cpu", packing.TOO_SMALL, "a node of it has {CPU: 2}, less than {CPU: 4}"),)


# ---- placement groups ----


def group(strategy: str, *wanted: float, name: str = "g", placed_on: Sequence[str] = ()) -> Group:
    return Group(name, tuple(amounts(CPU=one) for one in wanted), strategy, placed_on=tuple(placed_on))


@pytest.mark.parametrize(("strategy", "count"), [("STRICT_SPREAD", 3), ("PACK", 1), ("SPREAD", 1), ("STRICT_PACK", 1)])
def test_groups_get_the_nodes_that_their_strategy_needs(strategy: str, count: int) -> None:
    assert launched(told(machine(), waits(groups=[group(strategy, 1, 1, 1)]), events.Ticked(0.0))) == {"cpu": count}


def test_group_that_does_not_fit_whole_launches_nothing_and_says_why() -> None:
    one = machine(kind(most=2))
    assert told(one, waits(groups=[group("STRICT_SPREAD", 1, 1, 1)]), events.Ticked(0.0)) == []
    assert one.explain(0.0).unmet == (
        packing.Unplaced(
            "placement group g (STRICT_SPREAD)",
            1,
            (packing.Looked("cpu", packing.TYPE_MAX, "its max_workers of 2 are there or are to be launched"),),
        ),
    )
    wide = machine()
    assert told(wide, waits(groups=[group("STRICT_PACK", 3, 3)]), events.Ticked(0.0)) == []
    assert wide.explain(0.0).unmet[0].looked[0].kind == packing.TOO_SMALL


def test_what_a_group_did_not_get_is_there_for_others() -> None:
    one = machine(kind(most=2))
    told(one, waits(cpus(4, 2), groups=[group("STRICT_SPREAD", 1, 1, 1)]))
    assert launched(told(one, events.Ticked(0.0))) == {"cpu": 2}


def test_lost_bundles_stay_away_from_the_others_or_go_to_them() -> None:
    one = machine()
    told(one, seen("a"), waits(groups=[group("STRICT_SPREAD", 1, placed_on=["a"])]))
    assert launched(told(one, events.Ticked(0.0))) == {"cpu": 1}
    two = machine()
    told(two, seen("a", free=0), waits(groups=[group("STRICT_PACK", 1, placed_on=["a"])]))
    assert told(two, events.Ticked(0.0)) == []
    assert two.explain(0.0).unmet[0].able_count == 1


# ---- launches that fail ----


def test_failed_type_is_left_alone_for_longer_each_time_and_another_one_is_tried() -> None:
    one = machine(kind("cheap", 5), kind("dear", 1))
    told(one, waits(cpus(4, 2)), events.Ticked(0.0))
    told(one, answered(1, "a", error="quota exceeded", at_s=1.0))
    assert launched(told(one, events.Ticked(2.0))) == {"dear": 1}
    told(one, answered(2, "b", at_s=3.0), waits(cpus(4, 3), at_s=3.0))
    assert told(one, events.Ticked(4.0)) == []
    (unmet,) = one.explain(4.0).unmet
    assert unmet.looked[0] == packing.Looked(
        "cheap", packing.FAILING, "it could not be launched (quota exceeded); tried again in 2 s"
    )
    assert launched(told(one, events.Ticked(6.0))) == {"cheap": 1}
    told(one, answered(3, error="quota exceeded", at_s=7.0))
    assert told(one, events.Ticked(16.0)) == []
    assert launched(told(one, events.Ticked(17.0))) == {"cheap": 1}


def test_launcher_says_when_to_try_again() -> None:
    one = machine()
    told(one, waits(cpus(1)), events.Ticked(0.0), answered(1, error="no capacity", after_s=60.0))
    assert told(one, events.Ticked(59.0)) == []
    assert launched(told(one, events.Ticked(60.0))) == {"cpu": 1}


def test_node_that_does_not_join_in_time_is_ended_and_its_type_fails() -> None:
    one = machine(boot_timeout_s=100)
    told(one, waits(cpus(1)), events.Ticked(0.0), answered(1, "a"))
    assert told(one, events.Ticked(99.0)) == []
    assert told(one, events.Ticked(100.0)) == [events.Drain("a", "it has not joined within 100 s")]
    assert told(one, events.DrainAnswered("a", True, 101.0)) == [
        events.Terminate("a", "it has not joined within 100 s")
    ]
    assert launched(told(one, events.NodeEnded("a", 102.0), events.Ticked(105.0))) == {"cpu": 1}


def test_node_that_dies_before_it_was_seen_is_a_failure() -> None:
    one = machine()
    told(one, waits(cpus(1)), events.Ticked(0.0), answered(1, "a"))
    assert told(one, events.NodeDied("a", 1.0), events.NodeEnded("a", 2.0), events.Ticked(3.0)) == [
        events.Terminate("a", "its daemon has died")
    ]
    assert launched(told(one, events.Ticked(6.0))) == {"cpu": 1}


def test_instance_whose_launch_was_never_answered_well_is_found_by_listing() -> None:
    one = machine(idle_timeout_s=10)
    told(one, waits(cpus(1)), events.Ticked(0.0), answered(1, error="connection reset"))
    told(one, events.Listed({"a": "cpu"}, 2.0, 3.0))
    assert told(one, events.Ticked(10.0)) == []
    told(one, waits(at_s=11.0), events.Ticked(11.0))
    assert told(one, events.Ticked(21.0)) == [events.Drain("a", "nothing needs it any more, before it has joined")]


def test_failed_launch_counts_until_a_listing_has_missed_it() -> None:
    """It may have been made all the same; then there would be two."""
    one = machine(kind(most=1))
    told(one, waits(cpus(1)), events.Ticked(0.0), answered(1, error="connection reset", at_s=1.0))
    assert told(one, events.Listed({}, 0.5, 2.0), events.Ticked(10.0)) == []
    assert launched(told(one, events.Listed({}, 11.0, 12.0), events.Ticked(15.0))) == {"cpu": 1}


def test_listing_that_was_asked_for_before_a_node_ended_does_not_bring_it_back() -> None:
    """A launcher may list and end at once. Before: the node was one that is gone before it joins, and its type had failed."""
    one = machine()
    told(one, events.Listed({"a": "cpu"}, 0.0, 0.0), events.NodeDied("a", 1.0), events.NodeEnded("a", 5.0))
    told(one, events.Listed({"a": "cpu"}, 4.0, 6.0))
    assert list(one.nodes) == []
    told(one, events.Listed({"a": "cpu"}, 7.0, 8.0))  # it is there all the same
    assert list(one.nodes) == ["a"]


def test_listing_that_was_asked_for_before_a_launch_ends_nothing() -> None:
    one = machine()
    told(one, waits(cpus(1)), events.Ticked(0.0), answered(1, "a", at_s=2.0), events.Listed({}, 1.0, 3.0))
    assert list(one.nodes) == ["a"]
    told(one, events.Listed({}, 2.5, 3.0))
    assert list(one.nodes) == []


# ---- ending ----


def idle_node(one: Autoscaler, *names: str) -> None:
    for name in names:
        told(one, seen(name, idle_s=0.0))


def test_idle_node_is_drained_before_it_is_ended() -> None:
    one = machine(idle_timeout_s=60)
    idle_node(one, "a")
    assert told(one, events.Ticked(59.0)) == []
    assert told(one, events.Ticked(60.0)) == [events.Drain("a", "it is idle for 60 s, and nothing needs it")]
    assert told(one, events.Ticked(65.0)) == []
    assert told(one, events.DrainAnswered("a", True, 66.0)) == [
        events.Terminate("a", "it is idle for 60 s, and nothing needs it")
    ]


def test_node_that_is_in_use_again_is_left_alone() -> None:
    one = machine(idle_timeout_s=60)
    idle_node(one, "a")
    told(one, events.Ticked(60.0))
    assert told(one, events.DrainAnswered("a", False, 61.0), events.Ticked(65.0)) == []
    assert one.nodes["a"].state is NodeState.ALIVE


def test_asked_again_when_there_is_no_answer() -> None:
    one = machine(idle_timeout_s=60)
    idle_node(one, "a")
    (drain,) = told(one, events.Ticked(60.0))
    assert told(one, events.Ticked(60.0 + autoscaler.ASK_AGAIN_S)) == [drain]
    (end,) = told(one, events.DrainAnswered("a", True, 100.0))
    assert told(one, events.Ticked(100.0 + autoscaler.ASK_AGAIN_S)) == [end]
    assert told(one, events.NodeEnded("a", 140.0), events.Ticked(200.0)) == []


def test_nodes_that_min_workers_or_a_standing_request_need_are_kept() -> None:
    one = machine(kind(least=1), idle_timeout_s=60)
    idle_node(one, "a", "b", "c")
    told(one, events.StandingChanged((cpus(4, 2),), 0.0))
    assert [command.node for command in told(one, events.Ticked(60.0)) if isinstance(command, events.Drain)] == ["c"]
    told(one, events.StandingChanged((), 61.0))
    assert one.explain(61.0).kept == {
        "a": "it is idle for 1 of 60 s",
        "b": "it is idle for 1 of 60 s",
        "c": "it is draining: it is idle for 60 s, and nothing needs it",
    }
    assert [command.node for command in told(one, events.Ticked(121.0)) if command.node != "c"] == ["a"]  # type: ignore[union-attr]
    assert one.explain(130.0).kept["b"] == "its type's min_workers are 1"


def test_every_node_has_a_reason() -> None:
    one = machine(kind(least=1), idle_timeout_s=60)
    told(one, seen("head", "", free=0), seen("used", free=1), events.Listed({"new": "cpu"}, 0.0, 0.0))
    told(one, seen("idle", idle_s=0.0), waits(cpus(3, 2)))
    assert one.explain(30.0).kept == {
        "head": "it was not launched by the autoscaler",
        "used": "it is in use",
        "idle": "it is needed for {CPU: 3}, which waits",
        "new": "it was launched 30 s ago and has not joined yet: it was there already",
    }


def test_time_in_which_a_node_was_needed_is_not_idle() -> None:
    one = machine(idle_timeout_s=60)
    idle_node(one, "a")
    told(one, waits(cpus(1)), events.Ticked(50.0), waits(at_s=51.0))
    assert told(one, events.Ticked(109.0)) == []
    assert told(one, events.Ticked(110.0)) == [events.Drain("a", "it is idle for 60 s, and nothing needs it")]


def test_launch_that_nothing_needs_any_more_is_ended_before_it_joins() -> None:
    one = machine(idle_timeout_s=60)
    told(one, waits(cpus(1)), events.Ticked(0.0), answered(1, "a"), events.Ticked(5.0), waits(at_s=6.0))
    assert told(one, events.Ticked(64.0)) == []
    assert told(one, events.Ticked(65.0)) == [events.Drain("a", "nothing needs it any more, before it has joined")]


def test_idle_nodes_beyond_a_lowered_max_go_at_once() -> None:
    one = machine()
    idle_node(one, "a", "b")
    told(one, seen("c", free=0))
    told(one, events.Configured(Settings((kind(most=1),), 1), 1.0))
    assert told(one, events.Ticked(5.0)) == [
        events.Drain("a", "more nodes are there than max_workers allow"),
        events.Drain("b", "more nodes are there than max_workers allow"),
    ]


def test_node_that_was_not_launched_here_gives_room_and_is_never_ended() -> None:
    one = machine(idle_timeout_s=60)
    told(one, seen("head", "", idle_s=0.0), waits(cpus(1)))
    assert told(one, events.Ticked(500.0)) == []
    assert told(one, events.NodeDied("head", 501.0)) == []
    assert launched(told(one, events.Ticked(505.0))) == {"cpu": 1}


# ---- questions ----


def test_dry_run_says_what_would_happen_and_changes_nothing() -> None:
    one = machine()
    idle_node(one, "a")
    plan = one.dry_run(0.0, [cpus(4, 3)], [group("STRICT_PACK", 9)], [cpus(4, 2)])
    assert plan.launches == (
        planning.PlannedLaunch("cpu", 1, "{CPU: 4} of a standing request"),
        planning.PlannedLaunch("cpu", 1, "{CPU: 4}, which waits"),
    )
    assert [unmet.what for unmet in plan.unmet] == ["placement group g (STRICT_PACK)"]
    assert told(one, events.Ticked(0.0)) == []


def test_what_finds_no_room_says_which_nodes_could_hold_it_later() -> None:
    one = machine(kind(most=1))
    told(one, seen("a", free=0), waits(cpus(4)))
    (unmet,) = one.explain(0.0).unmet
    assert (unmet.what, unmet.unit_count, unmet.able_count) == ("{CPU: 4}", 1, 1)


def test_min_workers_that_cannot_be_launched_are_not_met() -> None:
    one = machine(kind(least=1))
    told(one, events.Ticked(0.0), answered(1, error="quota exceeded"))
    (unmet,) = one.explain(1.0).unmet
    assert (unmet.what, unmet.unit_count, unmet.looked[0].kind) == ("min_workers of cpu", 1, packing.FAILING)


def test_equal_shapes_are_counted_together() -> None:
    assert demand.merged([cpus(1, 2), cpus(2), cpus(1, 3)]) == [cpus(1, 5), cpus(2)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings((kind(), kind()), 5), "node types must have names of their own, got ['cpu', 'cpu']"),
        (
            Settings((kind(most=1, least=2),), 5),
            "node_types['cpu'].min_workers must be at most its max_workers of 1, got 2",
        ),
        (Settings((kind(least=3),), 2), "max_workers must be at least the sum of all min_workers, 3, got 2"),
        (Settings((kind(),), -1), "max_workers must be a whole number >= 0, got -1"),
        (Settings((kind(),), 1, upscaling_speed=float("nan")), "upscaling_speed must be a number >= 0, got nan"),
        (Settings((NodeType("x", EMPTY, 1),), 1), "node_types['x'].resources must name something, got {}"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Settings, message: str) -> None:
    with pytest.raises(exceptions.InvalidOption) as caught:
        node_types.checked(settings)
    assert message in str(caught.value)
