"""How a node's shared memory is handed out to processes."""

from __future__ import annotations

import random

import pytest

from umbel import exceptions
from umbel._agent.store_ledger import ASK_AGAIN_S, AskTrim, Grant, Refuse, StoreLedger


@pytest.fixture
def ledger() -> StoreLedger:
    return StoreLedger(1_000, full_wait_s=5.0)


def test_what_is_free_is_granted(ledger: StoreLedger) -> None:
    assert ledger.reserve("a", 1, 600, at_s=0.0) == [Grant("a", 1, 600)]
    assert ledger.free_bytes == 400


def test_grant_is_smaller_when_less_is_free(ledger: StoreLedger) -> None:
    assert ledger.reserve("a", 1, 5_000, at_s=0.0) == [Grant("a", 1, 1_000)]


def test_full_store_asks_all_holders_to_trim_and_waits(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 900, at_s=0.0)
    ledger.reserve("b", 1, 100, at_s=0.0)
    assert ledger.reserve("b", 2, 10, at_s=1.0) == [AskTrim("a"), AskTrim("b")]
    assert ledger.next_tick_s() == 1.0 + ASK_AGAIN_S
    assert ledger.tick(at_s=1.0 + ASK_AGAIN_S) == [AskTrim("a"), AskTrim("b")]
    assert ledger.release("a", 50) == [Grant("b", 2, 10)]
    assert ledger.next_tick_s() is None


def test_request_that_waited_in_vain_is_refused_with_the_biggest_holders_first(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 100, at_s=0.0)
    ledger.reserve("b", 1, 900, at_s=0.0)
    ledger.reserve("a", 2, 10, at_s=1.0)
    assert ledger.tick(at_s=5.9) == [AskTrim("a"), AskTrim("b")]
    assert ledger.tick(at_s=6.0) == [Refuse("a", 2, 10, (("b", 900), ("a", 100)))]


def test_requests_are_served_in_their_order(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 1_000, at_s=0.0)
    ledger.reserve("b", 1, 600, at_s=0.0)
    ledger.reserve("c", 1, 600, at_s=0.0)
    assert ledger.release("a", 1_000) == [Grant("b", 1, 600), Grant("c", 1, 400)]


def test_who_got_a_part_gets_the_rest_before_others(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 1_000, at_s=0.0)
    ledger.reserve("b", 1, 600, at_s=0.0)
    ledger.reserve("c", 1, 600, at_s=0.0)
    assert ledger.release("a", 200) == [Grant("b", 1, 200)]
    ledger.reserve("b", 2, 400, at_s=0.1)
    assert ledger.release("a", 800) == [Grant("b", 2, 400), Grant("c", 1, 400)]


def test_what_a_dead_process_left_stays_counted_until_it_is_gone(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 1_000, at_s=0.0)
    assert ledger.client_gone("a", left_bytes=700) == []
    assert ledger.free_bytes == 300
    ledger.reserve("b", 1, 300, at_s=0.0)
    ledger.reserve("b", 2, 300, at_s=0.0)
    assert ledger.measured({"a": 0}) == [Grant("b", 2, 300)]


def test_what_others_take_of_the_file_system_is_not_granted(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 500, at_s=0.0)
    assert ledger.system_measured(free_bytes=100, own_bytes=400) == []
    assert ledger.wanting_bytes == 500
    assert ledger.reserve("b", 1, 300, at_s=0.0) == [AskTrim("a")]
    assert ledger.release("a", 100) == [Grant("b", 1, 100)]
    ledger.reserve("b", 2, 200, at_s=0.1)
    assert ledger.system_measured(free_bytes=900, own_bytes=100) == [Grant("b", 2, 200)]
    assert ledger.wanting_bytes == 0
    ledger.check()


def test_what_was_granted_in_small_parts_may_not_be_there_together(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 700, at_s=0.0)
    ledger.system_measured(free_bytes=300, own_bytes=700)  # then others take 250 of it
    assert not ledger.may_want(40, 50)
    ledger.reserve("a", 2, 40, at_s=0.0)
    assert ledger.may_want(40, 50)
    ledger.system_measured(free_bytes=50, own_bytes=700)
    assert ledger.reserve("a", 3, 40, at_s=0.0) == [Grant("a", 3, 10)]
    assert ledger.reserve("a", 4, 30, at_s=0.0) == [AskTrim("a")]
    ledger.check()


def test_files_that_nobody_has_reserved_are_not_the_stores(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 100, at_s=0.0)
    ledger.system_measured(free_bytes=300, own_bytes=500)
    assert ledger.wanting_bytes == 600
    ledger.check()


def test_requests_of_a_dead_process_are_dropped(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 1_000, at_s=0.0)
    ledger.reserve("b", 1, 10, at_s=0.0)
    ledger.client_gone("b", left_bytes=0)
    assert ledger.release("a", 1_000) == []


def test_giving_back_too_much_is_our_mistake(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 10, at_s=0.0)
    with pytest.raises(exceptions.InternalError, match="gave back more"):
        ledger.release("a", 11)


@pytest.mark.parametrize("seed", range(20))
def test_random_events_keep_the_invariants(seed: int) -> None:
    chance = random.Random(seed)
    ledger = StoreLedger(1_000, full_wait_s=3.0)
    for number in range(500):
        client = chance.choice("abc")
        choice = chance.randrange(6)
        if choice <= 2:
            ledger.reserve(client, number, chance.randint(1, 600), at_s=float(number))
        elif choice == 3 and ledger.held.get(client):
            ledger.release(client, chance.randint(1, ledger.held[client]))
        elif choice == 4:
            ledger.client_gone(client, left_bytes=chance.choice([0, 0, 100]))
        else:
            ledger.measured(dict.fromkeys(ledger.left_behind, chance.choice([0, 50])))
        ledger.tick(at_s=float(number))
        ledger.check()


def test_nobody_is_refused_while_room_is_being_made(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 1_000, at_s=0.0)
    ledger.reserve("b", 1, 10, at_s=0.0)
    ledger.has_hope(at_s=4.0)
    assert ledger.tick(at_s=8.9) == [AskTrim("a")]
    assert ledger.tick(at_s=9.0) == [Refuse("b", 1, 10, (("a", 1_000),))]


def test_of_those_who_hold_each_other_up_the_last_gives_way(ledger: StoreLedger) -> None:
    ledger.reserve("a", 1, 500, at_s=0.0)
    ledger.reserve("b", 1, 500, at_s=0.0)
    ledger.reserve("a", 2, 20, at_s=0.1)
    ledger.reserve("b", 2, 30, at_s=0.2)
    assert (ledger.waiting_bytes, ledger.waiting_clients) == (50, {"a", "b"})
    assert ledger.refuse_last() == [Refuse("b", 2, 30, (("a", 500), ("b", 500)))]
    assert ledger.waiting_clients == {"a"}
