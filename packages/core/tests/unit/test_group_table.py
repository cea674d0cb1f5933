"""The decisions about placement groups, as lists of events."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from umbel import exceptions
from umbel._control import cluster_events
from umbel._control import group_events as ev
from umbel._control.group_events import Cause, GroupSpec, GroupState
from umbel._control.groups import (
    INFEASIBLE_WARNING_S,
    REMOVED_KEPT_MAX,
    RESERVE_RETRY_S,
    RESERVE_WAIT_S,
    GroupTable,
)
from umbel._model import placement, reasons
from umbel._model.placement import NodeView
from umbel._model.resources import ResourceSet
from umbel._scheduling import bundles

REMOVED = "it was removed by remove_placement_group()"


def cpus(count: float) -> ResourceSet:
    return ResourceSet.from_floats({"CPU": count})


def spec(
    group: str = "g",
    wanted: Sequence[float] = (1, 1),
    *,
    strategy: str = "PACK",
    owner: str = "driver",
    name: str = "",
    namespace: str = "ns",
    is_detached: bool = False,
) -> GroupSpec:
    return GroupSpec(group, owner, name, namespace, tuple(cpus(one) for one in wanted), strategy, is_detached)


def created(made: GroupSpec, at_s: float = 0.0, *, request: int | None = None) -> ev.GroupCreated:
    return ev.GroupCreated(made, "driver", request, at_s)


def seen(node: str, total: float = 4, free: float | None = None, at_s: float = 0.0) -> ev.NodeSeen:
    return ev.NodeSeen(NodeView(node, cpus(total), cpus(total if free is None else free)), at_s)


def reserve(node: str, attempt: int, wanted: dict[int, float], group: str = "g") -> ev.Reserve:
    return ev.Reserve(node, group, attempt, {index: cpus(one) for index, one in wanted.items()}, 0)


def reserved(node: str, attempt: int = 1, group: str = "g", at_s: float = 0.0) -> ev.BundlesReserved:
    return ev.BundlesReserved(node, group, attempt, at_s)


def committed(node: str, attempt: int = 1, group: str = "g", at_s: float = 0.0) -> ev.BundlesCommitted:
    return ev.BundlesCommitted(node, group, attempt, at_s)


def refused(node: str, attempt: int = 1, at_s: float = 0.0) -> ev.BundlesRefused:
    return ev.BundlesRefused(node, "g", attempt, "it has no room", at_s)


def lost(node: str, at_s: float = 0.0) -> ev.NodeLost:
    return ev.NodeLost(node, at_s)


def happened(node: str, bundles: list[int], of: int) -> cluster_events.Happened:
    facts = {"placement_group_id": "g", "name": "", "node_id": node, "bundles": bundles}
    what = f"placement group g lost {len(bundles)} of its {of} bundles with node {node}, and looks for another place"
    return cluster_events.Happened("WARNING", "PLACEMENT_GROUPS", what, facts)


def removal(group: str = "g") -> ev.RemovalWanted:
    return ev.RemovalWanted(group, 0.0)


def make(*nodes: ev.NodeSeen, infeasible_timeout_s: float | None = None) -> GroupTable:
    table = GroupTable(infeasible_timeout_s=infeasible_timeout_s)
    table.apply(*nodes)
    return table


def placed(table: GroupTable, made: GroupSpec, *nodes: str) -> None:
    """Create the group, and let these nodes reserve and commit what they are asked for."""
    table.apply(created(made), *(reserved(node, group=made.group) for node in nodes))
    table.apply(*(committed(node, group=made.group) for node in nodes))
    assert state(table, made.group) is GroupState.CREATED
    table.check()


def state(table: GroupTable, group: str = "g") -> GroupState:
    return next(one.state for one in table.listed() if one.group == group)


def nodes(table: GroupTable, group: str = "g") -> tuple[str, ...]:
    return next(one.nodes for one in table.listed() if one.group == group)


def why(table: GroupTable, group: str = "g") -> reasons.Reason:
    return next(one.why for one in table.listed() if one.group == group)


def test_a_group_is_reserved_then_committed_then_created() -> None:
    table = make(seen("a"))
    assert table.apply(created(spec(), request=7)) == [ev.AnswerCreate("driver", 7, "g"), reserve("a", 1, {0: 1, 1: 1})]
    assert state(table) is GroupState.PENDING
    assert table.apply(reserved("a")) == [ev.Commit("a", "g", 1)]
    assert state(table) is GroupState.PENDING
    assert table.apply(committed("a", at_s=2.0)) == []
    assert (state(table), nodes(table)) == (GroupState.CREATED, ("a", "a"))
    assert table.listed()[0].ready_after_s == 2.0
    assert table.next_tick_s() is None
    table.check()


def test_nothing_is_committed_before_all_nodes_have_reserved() -> None:
    table = make(seen("a"), seen("b"))
    made = table.apply(created(spec(strategy="STRICT_SPREAD")))
    assert made == [reserve("a", 1, {0: 1}), reserve("b", 1, {1: 1})]
    assert table.apply(reserved("b")) == []
    assert table.apply(reserved("a")) == [ev.Commit("a", "g", 1), ev.Commit("b", "g", 1)]
    assert table.apply(committed("a")) == []
    assert state(table) is GroupState.PENDING
    table.apply(committed("b"))
    assert (state(table), nodes(table)) == (GroupState.CREATED, ("a", "b"))


def test_a_refusal_cancels_the_others_and_is_tried_again() -> None:
    table = make(seen("a"), seen("b"))
    table.apply(created(spec(strategy="STRICT_SPREAD")), reserved("b"))
    assert table.apply(refused("a", at_s=1.0)) == [ev.Cancel("b", "g", 1)]
    assert str(why(table)) == "placement group g node a refused its bundles: it has no room"
    table.check()
    assert table.next_tick_s() == 1.0 + RESERVE_RETRY_S
    again = table.apply(ev.Ticked(1.0 + RESERVE_RETRY_S))
    assert again == [reserve("a", 2, {0: 1}), reserve("b", 2, {1: 1})]
    table.check()


def test_a_node_lost_between_reserving_and_committing_cancels_the_others() -> None:
    table = make(seen("a"), seen("b"), seen("c"))
    table.apply(created(spec(strategy="STRICT_SPREAD")), reserved("a"))
    assert table.apply(lost("b")) == [ev.Cancel("a", "g", 1), reserve("a", 2, {0: 1}), reserve("c", 2, {1: 1})]
    table.check()
    assert table.apply(reserved("b")) == [ev.Cancel("b", "g", 1)]  # said before it went
    assert table.apply(reserved("a", 2), reserved("c", 2)) == [ev.Commit("a", "g", 2), ev.Commit("c", "g", 2)]


def test_a_node_lost_while_committing_takes_back_what_others_have_committed() -> None:
    table = make(seen("a"), seen("b"))
    table.apply(created(spec(strategy="STRICT_SPREAD")), reserved("a"), reserved("b"), committed("a"))
    assert table.apply(lost("b", 1.0)) == [ev.Cancel("a", "g", 1)]
    assert (state(table), nodes(table)) == (GroupState.PENDING, ("", ""))
    assert why(table).code == reasons.INFEASIBLE
    table.check()
    assert table.apply(seen("c")) == [reserve("a", 2, {0: 1}), reserve("c", 2, {1: 1})]


def test_only_lost_bundles_are_placed_again() -> None:
    table = make(seen("a"), seen("b"), seen("c"))
    placed(table, spec(strategy="STRICT_SPREAD"), "a", "b")
    assert table.apply(lost("b")) == [happened("b", [1], 2), reserve("c", 2, {1: 1})]
    assert (state(table), nodes(table)) == (GroupState.RESCHEDULING, ("a", ""))
    table.check()
    assert table.apply(reserved("c", 2), committed("c", 2)) == [ev.Commit("c", "g", 2)]
    assert (state(table), nodes(table)) == (GroupState.CREATED, ("a", "c"))
    table.check()


def test_strict_pack_that_lost_its_node_goes_to_another_as_a_whole() -> None:
    table = make(seen("a"), seen("b"))
    placed(table, spec(strategy="STRICT_PACK"), "a")
    assert table.apply(lost("a")) == [happened("a", [0, 1], 2), reserve("b", 2, {0: 1, 1: 1})]
    table.check()


def test_a_second_loss_while_rescheduling_begins_anew() -> None:
    table = make(seen("a"), seen("b"), seen("c"), seen("d"))
    placed(table, spec(wanted=(1, 1, 1), strategy="STRICT_SPREAD"), "a", "b", "c")
    assert table.apply(lost("b")) == [happened("b", [1], 3), reserve("d", 2, {1: 1})]
    assert table.apply(lost("c")) == [happened("c", [2], 3), ev.Cancel("d", "g", 2)]  # no place for two
    assert (state(table), nodes(table)) == (GroupState.RESCHEDULING, ("a", "", ""))
    table.check()
    assert table.apply(seen("e")) == [reserve("d", 3, {1: 1}), reserve("e", 3, {2: 1})]


def test_what_is_said_twice_or_late_changes_nothing() -> None:
    table = make(seen("a"), seen("b"))
    table.apply(created(spec(strategy="STRICT_SPREAD")), reserved("a"))
    assert table.apply(reserved("a")) == []
    table.apply(reserved("b"))
    assert table.apply(reserved("b")) == []
    assert table.apply(refused("b")) == []  # it has just said the opposite
    table.apply(committed("a"), committed("a"))
    assert state(table) is GroupState.PENDING
    table.apply(committed("b"))
    assert table.apply(committed("b"), reserved("a"), refused("a")) == []
    assert state(table) is GroupState.CREATED
    table.apply(removal())
    assert table.apply(committed("b"), refused("a"), removal()) == []
    assert table.apply(reserved("a")) == [ev.Cancel("a", "g", 1)]
    table.check()


def test_removal_drops_it_where_it_is_and_tells_who_waits() -> None:
    """On the node of the service what is to run in it may wait, whether or not there are bundles."""
    table = make(seen("a"), ev.NodeSeen(NodeView("b", cpus(0), cpus(0), is_local=True), 0.0), seen("c"))
    table.apply(created(spec()), ev.GroupWatched("w", "g", 0.0))
    dropped = [ev.GroupEnded("g", REMOVED), ev.Drop("a", "g", REMOVED), ev.Drop("b", "g", REMOVED)]
    assert table.apply(removal()) == [*dropped, ev.Publish("w", "g", GroupState.REMOVED, REMOVED, Cause.REMOVED)]
    assert table.ended("g") == (Cause.REMOVED, REMOVED)
    table.check()


def told(node: str, nodes: Sequence[str], state: GroupState = GroupState.CREATED, reason: str = "") -> ev.Tell:
    return ev.Tell(node, "g", state, tuple(nodes), (cpus(1), cpus(1)), reason, Cause.NONE)


def test_nodes_that_follow_a_group_are_told_of_each_change_of_its_places() -> None:
    table = make(seen("a", 1), seen("b", 1))
    table.apply(created(spec()))
    (first,) = table.apply(ev.GroupFollowed("c", "g", 0.0))
    assert first == told("c", ["", ""], GroupState.PENDING, first.reason)
    assert table.apply(reserved("a"), reserved("b"), committed("a"), committed("b"))[-1] == told("c", ["a", "b"])
    assert table.apply(ev.GroupFollowed("d", "g", 0.0)) == [told("d", ["a", "b"])]
    lost = [one for one in table.apply(ev.NodeLost("a", 1.0)) if isinstance(one, ev.Tell)]
    assert [(one.node, one.state, one.nodes) for one in lost] == [
        ("c", GroupState.RESCHEDULING, ("", "b")), ("d", GroupState.RESCHEDULING, ("", "b")),
    ]  # fmt: skip
    table.apply(ev.NodeLost("d", 2.0))  # it held nothing, and is told no more
    (gone,) = [one for one in table.apply(removal()) if isinstance(one, ev.Tell)]
    assert (gone.node, gone.state, gone.cause) == ("c", GroupState.REMOVED, Cause.REMOVED)
    (gone,) = table.apply(ev.GroupFollowed("c", "g", 3.0))
    assert isinstance(gone, ev.Tell)
    assert (gone.node, gone.state, gone.cause, gone.reason) == ("c", GroupState.REMOVED, Cause.REMOVED, REMOVED)
    table.check()


def test_what_a_node_was_asked_for_counts_until_it_has_answered() -> None:
    """Nodes are seen as they were said to be, and what they were asked for since is not free there. (design/0031)"""
    table = make(ev.NodesSeen([seen(node, 2).view for node in "ab"], 0.0))
    assert table.apply(created(spec("g", [2]))) == [reserve("a", 1, {0: 2})]
    table.apply(seen("a", 2))  # as it was before it was asked
    assert table.apply(created(spec("h", [2]))) == [reserve("b", 1, {0: 2}, "h")]
    view = NodeView("a", cpus(2), cpus(0))
    table.apply(ev.BundlesReserved("a", "g", 1, 1.0, view))
    assert table.nodes["a"] == view
    table.apply(ev.RemovalWanted("h", 1.0))
    assert table.apply(created(spec("i", [2])))[0] == reserve("b", 1, {0: 2}, "i")
    table.check()


def test_watchers_are_told_once_it_is_created() -> None:
    table = make(seen("a"))
    table.apply(created(spec()), ev.GroupWatched("w", "g", 0.0))
    ready = ev.Publish("w", "g", GroupState.CREATED, "", Cause.NONE)
    assert table.apply(reserved("a"), committed("a")) == [ev.Commit("a", "g", 1), ready]
    assert table.apply(ev.GroupWatched("w", "g", 0.0)) == [ready]
    assert table.apply(removal())[-1] == ev.Drop("a", "g", REMOVED)  # and nobody else


def near(table: GroupTable, *homes: str) -> GroupTable:
    """It has a group of a process of the same node, which is placed on these nodes."""
    table.apply(ev.GroupCreated(spec(), "w1", 1, 0.0, is_near=True), *map(reserved, homes))
    table.apply(*map(committed, homes))
    assert state(table) is GroupState.CREATED
    table.check()
    return table


def test_who_has_made_a_group_hears_when_it_is_created_no_more() -> None:
    table = near(make(seen("a")), "a")
    told = ev.Publish("w1", "g", GroupState.RESCHEDULING, table.groups["g"].reason, ev.Cause.NONE)
    assert told in table.apply(lost("a"))
    told = ev.Publish("w1", "g", GroupState.REMOVED, "it was removed by remove_placement_group()", ev.Cause.REMOVED)
    assert table.apply(ev.RemovalWanted("g", 0.0, "driver")).count(told) == 1
    table.check()


def test_who_has_made_a_group_and_waits_for_it_hears_of_its_end_once() -> None:
    table = near(make(seen("a")), "a")
    table.apply(lost("a"), ev.GroupWatched("w1", "g", 0.0))
    ended = [one for one in table.apply(ev.RemovalWanted("g", 0.0, "driver")) if isinstance(one, ev.Publish)]
    assert [(one.client, one.state) for one in ended] == [("w1", GroupState.REMOVED)]
    table.check()


@pytest.mark.parametrize("end", [ev.RemovalWanted("g", 0.0, "w1"), ev.OwnerGone("w1", 0.0)])
def test_who_has_removed_a_group_or_is_gone_hears_nothing_of_its_end(end: ev.GroupEvent) -> None:
    table = near(make(seen("a")), "a")
    commands = table.apply(end, removal())
    assert not [one for one in commands if isinstance(one, ev.Publish)]
    table.check()


def test_who_watches_what_is_not_there_is_told() -> None:
    table = make(seen("a"))
    (told,) = table.apply(ev.GroupWatched("w", "g", 0.0))
    assert isinstance(told, ev.Publish)
    assert (told.state, told.cause) == (GroupState.REMOVED, Cause.UNKNOWN)


def test_a_watcher_that_has_gone_is_not_told() -> None:
    table = make(seen("a"))
    table.apply(created(spec()), ev.GroupWatched("w", "g", 0.0), ev.OwnerGone("w", 0.0))
    assert table.apply(reserved("a"), committed("a")) == [ev.Commit("a", "g", 1)]


def test_a_name_is_taken_once_in_a_namespace() -> None:
    table = make(seen("a"))
    table.apply(created(spec("g", name="n")))
    (refusal,) = table.apply(created(spec("h", name="n"), request=1))
    assert isinstance(refusal, ev.RefuseCreate)
    assert "'n' already exists in namespace 'ns' (id g)" in refusal.reason
    assert table.apply(created(spec("i", name="n", namespace="other")))
    assert (table.find("n", "ns"), table.find("n", "other"), table.find("n", "x")) == ("g", "i", None)
    table.apply(removal())
    assert table.find("n", "ns") is None
    assert table.apply(created(spec("j", name="n"), request=2))[0] == ev.AnswerCreate("driver", 2, "j")
    table.check()


def test_a_creation_told_twice_is_answered_twice_and_done_once() -> None:
    table = make(seen("a"))
    table.apply(created(spec(name="n")))
    assert table.apply(created(spec(name="n"), request=2)) == [ev.AnswerCreate("driver", 2, "g")]


def test_a_group_ends_with_its_owner_unless_it_is_detached() -> None:
    table = make(seen("a"))
    placed(table, spec("mine"), "a")
    placed(table, spec("kept", is_detached=True), "a")
    placed(table, spec("other", owner="someone"), "a")
    commands = table.apply(ev.OwnerGone("driver", 0.0))
    assert [one.group for one in commands if isinstance(one, ev.Drop)] == ["mine"]
    assert "driver, with which it was to end, is gone; pass lifetime='detached'" in table.ended("mine")[1]
    assert [state(table, one) for one in ("kept", "other")] == [GroupState.CREATED, GroupState.CREATED]
    table.check()


def test_an_infeasible_group_waits_with_a_reason_and_is_warned_of_once() -> None:
    table = make(seen("a"))
    assert table.apply(created(spec(strategy="STRICT_SPREAD"), 1.0)) == []
    assert why(table).code == reasons.INFEASIBLE
    assert "its 2 bundles need as many nodes, one each (STRICT_SPREAD), but 1 node is alive" in str(why(table))
    assert table.next_tick_s() == 1.0 + INFEASIBLE_WARNING_S
    (warning,) = table.apply(ev.Ticked(1.0 + INFEASIBLE_WARNING_S))
    assert isinstance(warning, ev.Warn)
    assert warning.text.startswith("Placement group g cannot be placed and waits: its 2 bundles need")
    assert table.apply(ev.Ticked(99.0)) == []
    assert table.next_tick_s() is None
    assert table.apply(seen("b", at_s=100.0)) == [reserve("a", 1, {0: 1}), reserve("b", 1, {1: 1})]
    table.check()


def test_a_group_that_has_no_place_is_looked_at_when_a_node_is_lost() -> None:
    table = make(seen("a", 4), seen("b", 2))
    table.apply(created(spec(wanted=(4, 4), strategy="STRICT_SPREAD")))
    assert "1 of the 2 nodes alive" in why(table).text
    table.apply(lost("a"))
    assert "bundle 0 needs {CPU: 4}" in why(table).text
    table.check()


def test_a_node_that_has_what_it_had_has_no_place_for_what_had_none(monkeypatch: pytest.MonkeyPatch) -> None:
    table = make(seen("a", 1), seen("b", 1))
    table.apply(created(spec(wanted=(2,))))
    looks: list[placement.ClusterView] = []
    place = bundles.place

    def watched(demand: bundles.GroupDemand, view: placement.ClusterView) -> bundles.GroupPlacement:
        looks.append(view)
        return place(demand, view)

    monkeypatch.setattr(bundles, "place", watched)
    assert table.apply(seen("a", 1, at_s=1.0), seen("b", 1, at_s=1.0)) == []
    assert looks == []
    assert table.apply(seen("b", 2, at_s=2.0)) == [reserve("b", 1, {0: 2})]


def test_an_infeasible_group_fails_after_the_time_that_is_set() -> None:
    table = make(seen("a"), infeasible_timeout_s=5.0)
    table.apply(created(spec(wanted=(9,))), ev.GroupWatched("w", "g", 0.0), ev.Ticked(1.0))
    assert table.next_tick_s() == 5.0
    told = table.apply(ev.Ticked(5.0))[-1]
    assert isinstance(told, ev.Publish)
    assert told.cause is Cause.UNSCHEDULABLE
    assert "(it has waited for 5 s, which is infeasible_timeout_s)" in told.reason
    table.check()


def test_a_busy_node_is_waited_for() -> None:
    table = make(seen("a", 4, 1))
    assert table.apply(created(spec(wanted=(3,)))) == [reserve("a", 1, {0: 3})]
    assert table.next_tick_s() is None  # there is no other
    assert str(why(table)) == "placement group g waits for node a to have room for 1 of its bundles"


def test_only_the_bundles_of_nodes_that_are_full_are_said_to_wait_for_room() -> None:
    table = make(seen("a", 1), seen("b", 1), seen("c", 1, 0))
    table.apply(created(spec(wanted=(1, 1, 1))))
    table.apply(reserved("a"))
    assert str(why(table)) == "placement group g waits for nodes b, c to have room for 2 of its bundles"
    table.apply(reserved("b"))
    assert str(why(table)) == "placement group g waits for node c to have room for 1 of its bundles"


def test_a_group_that_waits_for_a_busy_node_goes_to_one_that_has_room() -> None:
    table = make(seen("a", 4, 1))
    table.apply(created(spec(wanted=(3,))), seen("b", 4, 1, at_s=1.0))
    due = table.next_tick_s()
    assert due == 1.0 + RESERVE_WAIT_S
    assert table.apply(ev.Ticked(due)) == []  # none is better: it keeps its place in the queue
    assert table.apply(seen("b", 4, 2, at_s=6.5)) == []
    assert table.apply(seen("b", 4, at_s=7.0)) == [ev.Cancel("a", "g", 1), reserve("b", 2, {0: 3})]
    table.check()
    assert table.apply(seen("a", 4, at_s=7.1)) == []  # it is on its way
    assert table.apply(reserved("a", 1)) == [ev.Cancel("a", "g", 1)]  # late
    assert table.apply(reserved("b", 2)) == [ev.Commit("b", "g", 2)]


def test_what_is_reserved_of_a_group_stays_when_the_rest_goes_where_there_is_room() -> None:
    table = make(seen("a", 4), seen("b", 4, 0), seen("c", 4, 0))
    table.apply(created(spec(strategy="STRICT_SPREAD")), reserved("a"))
    assert table.apply(seen("c", 4, 1, at_s=1.0)) == [ev.Cancel("b", "g", 1), reserve("c", 2, {1: 1})]
    table.check()
    assert table.next_tick_s() == 1.0 + RESERVE_WAIT_S
    assert table.apply(reserved("c", 2)) == [ev.Commit("a", "g", 1), ev.Commit("c", "g", 2)]
    table.apply(committed("a", 1), committed("c", 2))
    assert (state(table), nodes(table)) == (GroupState.CREATED, ("a", "c"))
    table.check()


def test_a_group_goes_on_to_a_node_that_has_more_of_its_bundles_already() -> None:
    table = make(seen("a", 8, 4), seen("b", 4, 0))
    asked = table.apply(created(spec(wanted=(4, 2), strategy="SPREAD")))
    assert asked == [reserve("a", 1, {0: 4}), reserve("b", 1, {1: 2})]
    table.apply(ev.BundlesReserved("a", "g", 1, 0.0, seen("a", 8, 0).view))
    assert table.apply(seen("a", 8, 2, at_s=1.0)) == [ev.Cancel("b", "g", 1), reserve("a", 2, {1: 2})]
    assert table.apply(reserved("a", 2)) == [ev.Commit("a", "g", 1), ev.Commit("a", "g", 2)]
    table.apply(committed("a", 2))
    assert state(table) is GroupState.PENDING
    table.apply(committed("a", 1))
    assert (state(table), nodes(table)) == (GroupState.CREATED, ("a", "a"))
    table.check()


def test_a_group_goes_elsewhere_when_a_node_says_only_later_that_it_is_full() -> None:
    table = make(seen("a"), seen("b"))
    assert table.apply(created(spec(wanted=(4,)))) == [reserve("a", 1, {0: 4})]
    assert table.apply(seen("a", 4, 3, at_s=0.1)) == [ev.Cancel("a", "g", 1), reserve("b", 2, {0: 4})]
    assert table.apply(seen("b", 4, 3, at_s=0.2)) == []  # there is no better one
    table.check()


def test_a_group_of_which_some_is_reserved_finds_room_for_the_rest() -> None:
    """As a whole it had no place where all was free, so it waits where it would have one in the end."""
    table = make(seen("a", 3, 2), seen("b", 2, 0), seen("c", 1))
    asked = table.apply(created(spec(wanted=(3, 1), strategy="PACK")))
    assert asked == [reserve("a", 1, {0: 3}), reserve("b", 1, {1: 1})]
    assert table.apply(ev.BundlesReserved("a", "g", 1, 1.0, seen("a", 3, 0).view)) == [
        ev.Cancel("b", "g", 1),
        reserve("c", 2, {1: 1}),
    ]
    table.check()


def test_a_group_goes_elsewhere_when_one_that_comes_before_it_has_room_instead() -> None:
    table = make(seen("a", 4), seen("b", 4, 0))
    assert table.apply(created(spec("first", wanted=(1,)))) == [reserve("a", 1, {0: 1}, "first")]
    assert table.apply(created(spec("large", wanted=(4,)))) == [reserve("a", 1, {0: 4}, "large")]
    assert table.apply(created(spec("small", wanted=(3,)))) == [reserve("a", 1, {0: 3}, "small")]
    assert table.apply(seen("c", 3)) == []  # beside `first` there is room for it
    assert table.apply(removal("first")) == [
        ev.GroupEnded("first", REMOVED),
        ev.Drop("a", "first", REMOVED),
        ev.Cancel("a", "small", 1),
        reserve("c", 2, {0: 3}, "small"),
    ]
    table.check()


def test_room_that_a_group_leaves_is_for_others_that_wait() -> None:
    table = make(seen("a", 2, 0), seen("b", 4, 1), seen("c", 4, 0))
    assert table.apply(created(spec("large", wanted=(4,)))) == [reserve("b", 1, {0: 4}, "large")]
    assert table.apply(created(spec("small", wanted=(1,)))) == [reserve("a", 1, {0: 1}, "small")]
    assert table.apply(seen("c", 4, at_s=1.0)) == [
        ev.Cancel("b", "large", 1),
        reserve("c", 2, {0: 4}, "large"),
        ev.Cancel("a", "small", 1),
        reserve("b", 2, {0: 1}, "small"),
    ]
    table.check()


def test_nodes_that_have_no_room_at_the_same_time_hold_nothing_for_long() -> None:
    table = make(seen("a", 4), seen("b", 4, 0))
    table.apply(created(spec(strategy="STRICT_SPREAD")), reserved("a"))
    assert table.next_tick_s() == RESERVE_WAIT_S
    assert table.apply(ev.Ticked(RESERVE_WAIT_S)) == [ev.Cancel("a", "g", 1), ev.Cancel("b", "g", 1)]
    assert "waits for its nodes to have room at the same time; b had none for 5 s" in str(why(table))
    table.check()
    assert len(table.apply(ev.Ticked(RESERVE_WAIT_S + RESERVE_RETRY_S))) == 2


def test_groups_are_placed_in_the_order_in_which_they_came() -> None:
    table = make()
    for name in ("first", "second", "third"):
        table.apply(created(spec(name, wanted=(2,))))
    commands = table.apply(seen("a"))
    assert [(one.node, one.group) for one in commands if isinstance(one, ev.Reserve)] == [
        ("a", "first"),
        ("a", "second"),
        ("a", "third"),
    ]
    assert "no node is alive" in str(why(make_with_none()))


def make_with_none() -> GroupTable:
    table = make()
    table.apply(created(spec()))
    return table


def test_a_second_group_is_not_sent_where_the_first_will_be() -> None:
    table = make(seen("a"), seen("b"))
    table.apply(created(spec("first", wanted=(4,))))
    assert table.apply(created(spec("second", wanted=(4,)))) == [reserve("b", 1, {0: 4}, "second")]


def test_so_many_removed_groups_are_remembered() -> None:
    table = make(seen("a"))
    for number in range(REMOVED_KEPT_MAX + 1):
        table.apply(created(spec(f"g{number}")), removal(f"g{number}"))
    assert table.ended("g0")[0] is Cause.UNKNOWN
    assert table.ended("g1")[0] is Cause.REMOVED
    table.check()


def test_check_finds_a_name_that_is_kept() -> None:
    table = make(seen("a"))
    placed(table, spec(name="n"), "a")
    del table.groups["g"]
    with pytest.raises(exceptions.InternalError, match="a name of no group"):
        table.check()


class _Nodes:
    """Nodes as they answer, with messages that take their time; what they hold is counted here too."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.room: dict[str, int] = {}
        self.held: dict[tuple[str, str, int], int] = {}  # (node, group, attempt) -> CPUs
        self.links: dict[str, list[ev.GroupEvent]] = {}  # by node, what has not arrived

    def join(self, name: str) -> None:
        self.room[name] = 4
        self.links[name] = []

    def lose(self, name: str) -> None:
        del self.room[name]
        self.held = {key: amount for key, amount in self.held.items() if key[0] != name}
        for event in self.links.pop(name):  # some of what it had said arrives yet
            if self._chance.random() < 0.5:
                self.links.setdefault("", []).append(event)

    def free(self, name: str) -> int:
        return self.room[name] - sum(amount for key, amount in self.held.items() if key[0] == name)

    def do(self, command: ev.GroupCommand) -> None:
        if not isinstance(command, (ev.Reserve, ev.Commit, ev.Cancel, ev.Drop)) or command.node not in self.room:
            return
        node, group = command.node, command.group
        said = self.links[node]
        if isinstance(command, ev.Reserve):
            wanted = sum(bundle["CPU"] for bundle in command.bundles.values()) // 10_000
            if wanted > self.free(node):
                said.append(ev.BundlesRefused(node, group, command.attempt, "full", 0.0))
                return
            self.held[node, group, command.attempt] = wanted
            said.append(reserved(node, command.attempt, group))
        elif isinstance(command, ev.Commit):
            said.append(committed(node, command.attempt, group))
        elif isinstance(command, ev.Cancel):
            self.held.pop((node, group, command.attempt), None)
        else:
            self.held = {key: amount for key, amount in self.held.items() if key[:2] != (node, group)}


@pytest.mark.parametrize("seed", range(150))
def test_nothing_is_held_in_vain_whatever_is_late_repeated_or_lost(seed: int) -> None:
    chance = random.Random(seed)
    table, world, now_s, made = GroupTable(), _Nodes(chance), 0.0, 0

    def apply(event: ev.GroupEvent) -> None:
        for command in table.apply(event):
            world.do(command)
        table.check()

    def hear(link: str) -> None:
        event = world.links[link].pop(0)
        apply(event)
        if chance.random() < 0.2:
            apply(event)

    def step() -> None:
        nonlocal made, now_s
        what = chance.randrange(9)
        if what == 0 and len(world.room) < 4:
            world.join(f"n{made}-{now_s}")
        elif what == 1 and world.room:
            name = chance.choice(sorted(world.room))
            world.lose(name)
            apply(lost(name, now_s))
        elif what == 2 and made < 12:
            made += 1
            wanted = [chance.randrange(1, 4) for _ in range(chance.randrange(1, 4))]
            strategy = chance.choice(("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"))
            apply(created(spec(f"g{made}", wanted, strategy=strategy, owner=chance.choice("xy")), now_s))
        elif what == 3 and table.groups:
            apply(ev.RemovalWanted(chance.choice(sorted(table.groups)), now_s))
        elif what == 4:
            now_s += chance.random() * 2
            apply(ev.Ticked(now_s))
        elif what == 5 and world.room:
            name = chance.choice(sorted(world.room))
            apply(seen(name, 4, world.free(name), now_s))
        elif world.links:
            link = chance.choice(sorted(world.links))
            if world.links[link]:
                hear(link)

    for _ in range(120):
        step()
    for _ in range(60):  # to rest: all is heard, time goes on, and the nodes say what they have
        for link in list(world.links):
            while world.links[link]:
                hear(link)
        now_s += 1.0
        apply(ev.Ticked(now_s))
        for name in sorted(world.room):
            apply(seen(name, 4, world.free(name), now_s))
    books: dict[str, int] = {}
    for key, amount in world.held.items():
        books[key[1]] = books.get(key[1], 0) + amount
    for one in table.listed():
        wanted = sum(bundle["CPU"] for bundle in one.bundles) // 10_000
        if one.state is GroupState.CREATED:
            assert books.pop(one.group) == wanted
        elif one.state is GroupState.RESCHEDULING:
            kept = [one.bundles[index]["CPU"] // 10_000 for index, node in enumerate(one.nodes) if node]
            assert books.pop(one.group, 0) == sum(kept) or not one.is_infeasible
    assert not {name for name in books if name not in table.groups}
