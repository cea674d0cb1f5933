"""When values are moved to disk, and by whom."""

from __future__ import annotations

import pytest

from umbel._agent import spill_orders
from umbel._agent.spill_orders import Ask, OrderCommand, Report, Spill, SpillOrders

CLIENTS = ("a", "b")
NOTHING = Report(0, 0, {})


@pytest.fixture
def orders() -> SpillOrders:
    """Of a store of 1,000 bytes: high water at 800, each order for at least 50."""
    return SpillOrders(1_000, high_water=0.8, batch_bytes=50)


def needed(orders: SpillOrders, *, waiting: int = 0, used: int = 1_000, at_s: float = 0.0) -> list[OrderCommand]:
    return orders.needed(waiting_bytes=waiting, used_bytes=used, clients=lambda: CLIENTS, at_s=at_s)


def decided(orders: SpillOrders, a: Report, b: Report = NOTHING, *, at_s: float = 0.0) -> list[OrderCommand]:
    """What follows from the answers to a question that is out."""
    assert orders.told("a", orders._round, a, at_s=at_s) == []
    return orders.told("b", orders._round, b, at_s=at_s)


def test_nobody_is_asked_while_there_is_room(orders: SpillOrders) -> None:
    assert needed(orders, used=800) == []
    assert orders.next_tick_s() is None


def test_everybody_is_asked_once_somebody_waits(orders: SpillOrders) -> None:
    assert needed(orders, waiting=100) == [Ask("a", 1), Ask("b", 1)]
    assert needed(orders, waiting=200) == []


def test_who_has_most_moves_as_much_as_is_wanted(orders: SpillOrders) -> None:
    needed(orders, waiting=300)
    assert decided(orders, Report(200, 100, {}), Report(500, 400, {})) == [Spill("b", 1, 300, ())]
    assert orders.is_working


def test_several_move_what_one_has_not(orders: SpillOrders) -> None:
    needed(orders, waiting=300)
    assert decided(orders, Report(200, 200, {}), Report(200, 150, {})) == [
        Spill("a", 1, 200, ()),
        Spill("b", 2, 100, ()),
    ]


def test_little_is_not_worth_a_file_of_its_own(orders: SpillOrders) -> None:
    needed(orders, waiting=1)
    assert decided(orders, Report(200, 200, {})) == [Spill("a", 1, 50, ())]


def test_what_others_look_at_is_left(orders: SpillOrders) -> None:
    needed(orders, waiting=300)
    reader = Report(0, 0, {"a.o.1": 80, "dead.a.1": 20, "b.a.3": 40, "c.o.1": 9})
    assert decided(orders, Report(400, 150, {"a.o.9": 5}), reader) == [Spill("a", 1, 50, ("a.o.1", "dead.a.1"))]


def test_above_the_mark_values_are_moved_before_anybody_waits(orders: SpillOrders) -> None:
    needed(orders, used=900)
    assert decided(orders, Report(860, 860, {})) == [Spill("a", 1, 860 - 700, ())]


def test_memory_that_is_only_kept_warm_is_no_reason(orders: SpillOrders) -> None:
    needed(orders, used=900)
    assert decided(orders, Report(500, 500, {})) == []
    assert needed(orders, used=900, at_s=0.5) == []
    assert orders.next_tick_s() == spill_orders.LOOK_AGAIN_S
    assert needed(orders, used=900, at_s=spill_orders.LOOK_AGAIN_S) == [Ask("a", 2), Ask("b", 2)]


def test_who_does_not_answer_is_not_waited_for(orders: SpillOrders) -> None:
    needed(orders, waiting=100)
    orders.told("a", 1, Report(200, 200, {}), at_s=0.0)
    assert orders.next_tick_s() == spill_orders.ANSWER_S
    assert orders.tick(at_s=spill_orders.ANSWER_S) == [Spill("a", 1, 100, ())]
    assert orders.told("b", 1, Report(900, 900, {}), at_s=1.0) == []


def test_dead_process_is_not_waited_for(orders: SpillOrders) -> None:
    needed(orders, waiting=100)
    orders.told("a", 1, Report(200, 200, {}), at_s=0.0)
    assert orders.client_gone("b", at_s=0.0) == [Spill("a", 1, 100, ())]
    orders.client_gone("a", at_s=0.0)
    assert not orders.is_working
    assert needed(orders, waiting=100) == [Ask("a", 2), Ask("b", 2)]


def test_order_that_is_never_carried_out_is_given_up(orders: SpillOrders) -> None:
    needed(orders, waiting=100)
    decided(orders, Report(200, 200, {}))
    assert orders.next_tick_s() == spill_orders.ORDER_S
    orders.tick(at_s=spill_orders.ORDER_S)
    assert not orders.is_working


def test_asks_again_soon_where_nothing_can_be_moved(orders: SpillOrders) -> None:
    needed(orders, waiting=100)
    assert decided(orders, Report(200, 0, {"a.o.1": 200})) == []
    assert needed(orders, waiting=100, at_s=0.05) == []
    assert orders.next_tick_s() == spill_orders.ASK_AGAIN_S
    assert needed(orders, waiting=100, at_s=spill_orders.ASK_AGAIN_S) == [Ask("a", 2), Ask("b", 2)]


def test_disk_that_refuses_is_left_alone_for_a_while(orders: SpillOrders) -> None:
    needed(orders, waiting=100)
    decided(orders, Report(200, 200, {}))
    orders.ended("a", 1, freed_bytes=0, error="the disk is full", is_disk_full=True, at_s=1.0)
    assert (orders.error, orders.is_disk_full) == ("the disk is full", True)
    assert needed(orders, waiting=100, at_s=1.0 + spill_orders.RETRY_S - 0.1) == []
    assert needed(orders, waiting=100, at_s=1.0 + spill_orders.RETRY_S) != []
    decided(orders, Report(200, 200, {}), at_s=7.0)
    orders.ended("a", 2, freed_bytes=100, error="", at_s=8.0)
    assert (orders.error, orders.is_disk_full) == ("", False)


def test_those_who_hold_what_the_others_wait_for_are_stuck(orders: SpillOrders) -> None:
    needed(orders, waiting=100)
    assert decided(orders, Report(0, 0, {"x.o.1": 500}), Report(0, 0, {"x.o.2": 500})) == []
    assert not orders.is_stuck({"a", "b"}, at_s=0.0)
    assert orders.is_stuck({"a", "b"}, at_s=spill_orders.STUCK_S)
    assert not orders.is_stuck({"a", "c"}, at_s=spill_orders.STUCK_S)  # b may let go of what it looks at
    needed(orders, waiting=0)
    assert not orders.is_stuck({"a", "b"}, at_s=spill_orders.STUCK_S)


def test_switched_off_it_does_nothing() -> None:
    orders = SpillOrders(1_000, high_water=0.8, batch_bytes=50, is_enabled=False)
    assert needed(orders, waiting=100) == []
    assert orders.next_tick_s() is None
    orders.check()
