"""Where leases are asked for, as lists of events."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import pytest

from umbel import spi
from umbel._model import placement, resources
from umbel._scheduling import forwarding as fw
from umbel._scheduling import policies

UNIT = resources.RESOURCE_UNIT


def units(**amounts: float) -> resources.ResourceSet:
    return resources.ResourceSet({name: round(amount * UNIT) for name, amount in amounts.items()})


def demand(cpus: float = 1, **options: Any) -> placement.Demand:
    return placement.Demand(units(CPU=cpus), **options)


class Here:
    """Node "a" of a cluster, and what it has ordered."""

    def __init__(self, cpus: Mapping[str, float], policy: fw.Policy | None = None) -> None:
        self.machine = fw.Forwarding("a", policy or policies.HybridPolicy())
        self.at_s = 0.0
        self.total = dict(cpus)
        for node, total in cpus.items():
            self.see(node, total)

    def tell(self, event: fw.Event) -> list[Any]:
        commands = self.machine.apply(event)
        self.machine.check()
        return [
            (one.node, one.lease_count, *([one.refusal] if one.refusal else [])) if isinstance(one, fw.Want) else one
            for one in commands
        ]

    def see(self, node: str, free: float, *, labels: Mapping[str, str] | None = None) -> list[Any]:
        view = placement.NodeView(
            node, units(CPU=self.total.setdefault(node, free)), units(CPU=free), labels or {}, is_local=node == "a"
        )
        return self.tell(fw.NodeSeen(view, self.at_s))

    def lose(self, node: str) -> list[Any]:
        return self.tell(fw.NodeLost(node, self.at_s))

    def forgets(self, node: str, free: float) -> list[Any]:
        view = placement.NodeView(node, units(CPU=self.total[node]), units(CPU=free))
        return self.tell(fw.NodeForgot(view, self.at_s))

    def want(self, count: int, *demands: placement.Demand, key: str = "f", client: str = "p") -> list[Any]:
        return self.tell(fw.WishChanged(client, key, demands or (demand(),), count, self.at_s))

    def granted(self, node: str, *, key: str = "f", client: str = "p") -> list[Any]:
        return self.tell(fw.Granted(node, client, key, self.at_s))

    def prepares(self, node: str, text: str, *, client: str = "p") -> None:
        assert self.tell(fw.Preparing(node, client, "f", text, self.at_s)) == []

    def wait(self, duration_s: float) -> list[Any]:
        self.at_s += duration_s
        return self.tell(fw.Ticked(self.at_s))

    def asked(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for wish in self.machine.wishes.values():
            for node, count in wish.on.items():
                total[node] = total.get(node, 0) + count
        return total


def test_what_is_drawn_to_a_node_is_asked_there_as_far_as_it_has_room() -> None:
    here = Here({"a": 4, "b": 2, "c": 4})
    assert here.tell(fw.WishChanged("p", "f", [demand()], 4, 0.0, [("gone", 1), ("b", 1), ("c", 1)])) == [
        ("a", 2), ("b", 1), ("c", 1)
    ]  # fmt: skip
    assert here.granted("b") == []
    assert here.tell(fw.WishChanged("p", "f", [demand()], 6, 0.0, [("b", 5), ("c", 3)])) == [("b", 2), ("c", 2)]


def test_what_fits_here_is_asked_of_this_node_alone() -> None:
    here = Here({"a": 4, "b": 4})
    assert here.want(2) == [("a", 2)]
    assert here.granted("a") == []
    assert here.want(0) == [("a", 0)]
    assert here.machine.wishes == {}


def test_beyond_half_of_this_node_the_emptiest_has_the_next() -> None:
    here = Here({"a": 2, "b": 8})
    assert here.want(4) == [("a", 1), ("b", 3)]


def test_what_finds_no_room_waits_here_and_goes_where_room_comes_first() -> None:
    here = Here({"a": 1, "b": 1})
    assert here.want(5) == [("a", 4), ("b", 1)]
    assert "is not free now" in here.machine.reason_of("p", "f")
    for node in ("a", "b"):
        here.granted(node)
        here.see(node, 0)
    assert here.asked() == {"a": 3}
    assert here.see("b", 1) == [("a", 2), ("b", 1)]


def test_what_is_too_large_for_this_node_waits_where_it_fits() -> None:
    here = Here({"a": 1, "b": 4, "c": 4})
    here.see("b", 0)
    here.see("c", 0)
    assert here.want(2, demand(2)) == [("b", 2)]
    assert here.see("c", 4) == [("b", 0), ("c", 2)]


def test_what_no_node_can_ever_hold_waits_here_with_the_reason_until_one_can() -> None:
    here = Here({"a": 1, "b": 2})
    ((node, count, refusal),) = here.want(1, demand(3))
    assert (node, count) == ("a", 1)
    assert "no node has {CPU: 3} in total" in refusal
    assert here.see("c", 4) == [("a", 0), ("c", 1)]
    assert here.machine.wishes["p", "f"].refusal == ""


def test_a_wish_that_shrinks_is_taken_back_where_it_waits_before_where_there_is_room() -> None:
    here = Here({"a": 1, "b": 1})
    here.want(5)
    assert here.want(2) == [("a", 1)]
    assert here.want(1) == [("a", 0)]


def test_a_grant_that_crosses_the_withdrawal_counts_against_what_is_asked_elsewhere() -> None:
    here = Here({"a": 1, "b": 1})
    here.want(2)
    here.see("b", 0)
    here.wait(fw.PATIENCE_S)
    before = here.asked()
    here.lose("b")
    assert before == {"a": 1, "b": 1}
    assert here.asked() == {"a": 2}
    assert here.granted("b") == [("a", 1)]  # it was on its way


def test_what_a_node_with_room_does_not_grant_is_tried_at_another() -> None:
    here = Here({"a": 1, "b": 1, "c": 1})
    here.see("a", 0)
    assert here.want(1) == [("b", 1)]
    assert here.machine.next_tick_s() == fw.PATIENCE_S
    assert here.wait(fw.PATIENCE_S) == [("b", 0), ("c", 1)]
    here.see("b", 0)
    assert here.wait(fw.PATIENCE_S) == []  # nobody else has room: it stays asked for


def test_what_this_node_seemed_to_have_room_for_is_tried_elsewhere_too() -> None:
    here = Here({"a": 1, "b": 1})
    assert here.want(1) == [("a", 1)]
    assert here.see("a", 0) == [("a", 0), ("b", 1)]  # another process has come first


def test_what_a_node_says_it_has_no_room_for_any_more_is_tried_at_another_at_once() -> None:
    """Before: after PATIENCE_S, though it had said that it was full."""
    here = Here({"a": 0, "b": 2})
    assert here.want(2) == [("b", 2)]
    here.at_s = 0.1
    assert here.see("b", 1) == []  # one was given to somebody else, and nobody has room for it
    assert here.see("c", 1) == [("b", 1), ("c", 1)]
    assert here.see("c", 0) == []
    assert here.see("b", 0) == []
    assert here.asked() == {"b": 1, "c": 1}
    assert here.granted("c") == []
    assert here.see("d", 4) == [("b", 0), ("d", 1)]


def test_what_a_node_that_is_full_makes_the_environment_of_stays_there() -> None:
    here = Here({"a": 0, "b": 1, "c": 1})
    assert here.want(1) == [("b", 1)]
    here.prepares("b", "is being built")
    assert here.see("b", 0) == []


def test_a_node_that_makes_the_environment_is_waited_for_however_long_that_takes() -> None:
    """Else every second another node would begin to make it, and the one before would end that. (design/0037)"""
    here = Here({"a": 0, "b": 1, "c": 1})
    assert here.want(1) == [("b", 1)]
    here.prepares("b", "is being built")
    assert here.machine.next_tick_s() is None
    assert here.wait(60.0) == []
    assert here.see("c", 1) == []
    here.prepares("b", "")
    assert here.machine.next_tick_s() == 60.0 + fw.PATIENCE_S
    assert here.wait(fw.PATIENCE_S) == [("b", 0), ("c", 1)]


def test_what_a_node_does_for_an_environment_is_forgotten_with_what_it_was_asked_for() -> None:
    here = Here({"a": 0, "b": 1, "c": 1})
    here.want(1)
    here.prepares("b", "is being built")
    assert here.lose("b") == [("c", 1)]
    here.prepares("b", "is being built")  # said before it was lost
    here.prepares("c", "is being built", client="other")
    assert here.machine.wishes["p", "f"].preparing == {}
    here.prepares("c", "is being built")
    assert here.granted("c") == []
    here.want(0)
    assert here.machine.wishes == {}


def test_what_waits_where_its_environment_is_made_keeps_that_when_a_node_comes() -> None:
    """It is asked for anew in the same place: the node does not hear of that, and will not say it again."""
    here = Here({"a": 1})
    here.see("a", 0)
    assert here.want(2) == [("a", 2)]
    here.prepares("a", "is being built")
    assert here.see("b", 0) == []
    assert here.machine.wishes["p", "f"].preparing == {"a": "is being built"}


def test_a_node_that_is_lost_gives_all_back_that_it_was_asked_for() -> None:
    here = Here({"a": 1, "b": 3})
    assert here.want(4) == [("a", 1), ("b", 3)]
    assert here.lose("b") == [("a", 4)]
    assert here.see("b", 3) == [("a", 1), ("b", 3)]


def test_wishes_end_with_their_process_and_the_nodes_that_knew_of_it_are_told() -> None:
    here = Here({"a": 1, "b": 1})
    here.want(2)
    here.want(1, client="q")
    assert here.tell(fw.ClientLeft("p", 0.0)) == [fw.Leave("b", "p")]
    assert here.asked() == {"a": 1}
    assert here.tell(fw.ClientLeft("q", 0.0)) == []


def test_hard_affinity_waits_for_its_node_and_fails_without_it() -> None:
    here = Here({"a": 1, "b": 1})
    there = demand(strategy=placement.NodeAffinity("b", is_soft=False))
    assert here.want(3, there) == [("b", 3)]
    (failed,) = here.lose("b")
    assert isinstance(failed, fw.Fail)
    assert "node b is dead" in failed.reason
    assert here.machine.wishes == {}
    (failed,) = here.want(1, there)
    assert isinstance(failed, fw.Fail)


def test_soft_affinity_goes_elsewhere_when_its_node_is_gone() -> None:
    here = Here({"a": 1, "b": 1})
    soft = demand(strategy=placement.NodeAffinity("b", is_soft=True))
    assert here.want(1, soft) == [("b", 1)]
    assert here.lose("b") == [("a", 1)]


def test_what_insists_on_a_node_whose_connection_broke_waits_and_is_said_again() -> None:
    """Before: it failed, as if the node were dead."""
    here = Here({"a": 2, "b": 2})
    there = demand(strategy=placement.NodeAffinity("b", is_soft=False))
    assert here.want(2, there) == [("b", 2)]
    assert here.granted("b") == []
    assert here.forgets("b", 0) == [("b", 1)]
    assert here.machine._heard == {("p", "f"): {}}  # of what it has granted before, it counts nothing
    assert here.granted("b") == []
    assert here.asked() == {}


def test_what_a_node_has_forgotten_goes_elsewhere_if_it_may() -> None:
    here = Here({"a": 1, "b": 4})
    here.want(3)
    assert here.asked() == {"a": 1, "b": 2}
    here.see("c", 4)
    assert here.forgets("b", 0) == [("c", 2)]
    assert here.machine.apply(fw.ClientLeft("p", 1.0)) == [fw.Leave("c", "p")]


def test_label_selectors_are_tried_in_their_order() -> None:
    here = Here({"a": 2})
    here.see("b", 1, labels={"zone": "x"})
    here.see("c", 1, labels={"zone": "y"})
    wanted = [demand(label_selector={"zone": "x"}), demand(label_selector={"zone": "y"})]
    assert here.want(2, *wanted) == [("b", 1), ("c", 1)]
    assert here.want(3, *wanted) == [("b", 2)]


def test_spreading_takes_the_emptiest_each_time() -> None:
    here = Here({"a": 4, "b": 4, "c": 4})
    assert here.want(3, demand(strategy="SPREAD")) == [("a", 1), ("b", 1), ("c", 1)]


def test_a_policy_that_takes_no_node_leaves_it_waiting_where_there_is_room() -> None:
    class Lazy:
        def place(self, demand: placement.Demand, view: placement.ClusterView) -> placement.Placement:
            return placement.Placement(None, "not today")

    here = Here({"a": 1, "b": 1}, Lazy())
    assert here.want(1) == [("a", 1)]


def test_deeper_wishes_have_room_first() -> None:
    here = Here({"a": 1, "b": 1})
    here.see("a", 0)
    here.see("b", 0)
    here.want(1, key="shallow")
    here.want(1, demand(depth=2), key="deep")
    here.see("b", 1)
    assert here.machine.wishes["p", "deep"].on == {"b": 1}
    assert here.machine.wishes["p", "shallow"].on == {"a": 1}


@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_grant_nobody_waits_for_any_more_changes_nothing(late: int) -> None:
    here = Here({"a": 2, "b": 2})
    here.want(late)
    here.want(0)
    assert here.granted("b") == []
    assert here.asked() == {}


def test_grants_that_cross_a_wish_count_against_it() -> None:
    here, given = Here({"a": 1, "b": 8}), fw.Given()
    here.see("a", 0)
    (first,) = here.machine.apply(fw.WishChanged("p", "f", [demand()], 2, 0.0))
    (second,) = here.machine.apply(fw.WishChanged("p", "f", [demand()], 3, 0.0))
    assert isinstance(first, fw.Want)
    assert isinstance(second, fw.Want)
    assert given.still_wanted(*first[1:5]) == 2
    for _ in range(2):
        given.granted("p", "f")
    assert given.still_wanted(*second[1:5]) == 1
    for _ in range(2):
        here.granted("b")
    (third,) = here.machine.apply(fw.WishChanged("p", "f", [demand()], 4, 0.0))
    assert isinstance(third, fw.Want)
    assert given.still_wanted(*third[1:5]) == 4
    given.forget("p")
    assert given.still_wanted("p", "f", 4, 0) == 4


def test_spi_has_the_same_views() -> None:
    assert spi.NodeView is placement.NodeView


def calls_of_a_look(wish_count: int) -> int:
    """Of Python functions, when a full node says that it is a little less so, and so many wishes wait for it."""
    here = Here({"a": 4, "b": 4, "c": 4})
    for node in here.total:
        here.see(node, 0)
    for number in range(wish_count):
        here.want(5, key=f"f{number}")
    counts = {"call": 0}

    def count(_frame: Any, event: str, _argument: object) -> None:
        counts[event] = counts.get(event, 0) + 1

    view = placement.NodeView("a", units(CPU=4), units(CPU=0.5), {}, is_local=True)
    sys.setprofile(count)
    try:
        here.machine.apply(fw.NodeSeen(view, 0.0))
    finally:
        sys.setprofile(None)
    return counts["call"]


def test_what_waits_is_looked_through_once_when_a_node_changes() -> None:
    few, many = calls_of_a_look(50), calls_of_a_look(200)
    assert many < 5 * few, (few, many)  # four times as many wishes
    assert many < 200 * 40


def test_several_nodes_that_have_room_are_looked_at_together() -> None:
    here = Here({"a": 1, "b": 1, "c": 1})
    for node in here.total:
        here.see(node, 0)
    assert here.want(3) == [("a", 3)]
    views = [placement.NodeView(node, units(CPU=1), units(CPU=1)) for node in ("b", "c")]
    told = here.machine.apply(*(fw.NodeSeen(view, 0.0) for view in views))
    assert sorted((one.node, one.lease_count) for one in told if isinstance(one, fw.Want)) == [
        ("a", 1),
        ("b", 1),
        ("c", 1),
    ]


def drained(here: Here, node: str) -> list[Any]:
    view = placement.NodeView(node, units(CPU=here.total[node]), units(), is_local=node == "a", is_draining=True)
    return here.tell(fw.NodeSeen(view, here.at_s))


def test_what_was_asked_of_a_node_that_is_drained_is_asked_of_others() -> None:
    here = Here({"a": 1, "b": 4, "c": 4})
    here.see("c", 0)
    assert here.want(3) == [("a", 1), ("b", 2)]
    assert drained(here, "b") == [("b", 0), ("a", 3)]
    assert here.see("c", 4) == [("a", 1), ("c", 2)]
    assert drained(here, "b") == []  # told twice


def test_a_node_that_is_drained_asks_all_of_others_and_keeps_what_none_can_hold() -> None:
    here = Here({"a": 4, "b": 2})
    assert here.want(1) == [("a", 1)]
    assert drained(here, "a") == [("a", 0), ("b", 1)]
    ((node, count, refusal),) = here.want(1, demand(3), key="g")
    assert (node, count) == ("a", 1)
    assert "no node has {CPU: 3} in total" in refusal


def test_what_insists_on_a_node_that_is_drained_fails_unless_it_is_soft() -> None:
    here = Here({"a": 2, "b": 2})
    here.want(1, demand(strategy=placement.NodeAffinity("b", is_soft=False)))
    ended, failed = drained(here, "b")
    assert ended == ("b", 0)
    assert failed.reason == "node b is being drained, and begins nothing any more; make the affinity soft"
    assert here.want(1, demand(strategy=placement.NodeAffinity("b", is_soft=True)), key="g") == [("a", 1)]


def test_bundles_are_asked_for_on_their_node_though_it_is_drained() -> None:
    room = {"room in a bundle": 1}
    here = Here({"a": 2, "b": 2})
    in_bundle = placement.Demand(units(**room), is_in_bundle=True)

    def seen(*, is_draining: bool) -> list[Any]:
        view = placement.NodeView("b", units(CPU=2, **room), units(**room), is_draining=is_draining)
        return here.tell(fw.NodeSeen(view, here.at_s))

    seen(is_draining=False)
    assert here.want(1, in_bundle) == [("b", 1)]
    assert seen(is_draining=True) == []
    assert here.want(1, in_bundle, key="g") == [("b", 1)]
    assert here.want(1, key="h") == [("a", 1)]
