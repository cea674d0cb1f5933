"""What a node sends of its values to others, and whom it tells to ask somebody else."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._agent import offers
from umbel._agent.offers import Elsewhere, Gone, Holder, OfferTable, Opened, Send, Shut

X = "0a"


@pytest.fixture
def table() -> OfferTable:
    return OfferTable()


def opened(table: OfferTable, node: str, **facts: Any) -> list[Any]:
    told = {"chunk_count": 8, "generation": "me:1", "is_sure": False, "chunks": None, **facts}
    return table.opened(node, X, **told)


def asked(table: OfferTable, node: str, chunk: int, *without: str, priority: int = 0) -> list[Any]:
    return table.asked(node, X, chunk, priority=priority, without=without)


def test_those_who_pull_at_once_begin_far_apart(table: OfferTable) -> None:
    starts = []
    for node in ("n1", "n2", "n3", "n4"):
        (told,) = opened(table, node)
        assert isinstance(told, Opened)
        starts.append(told.start)
    assert starts == [0, 4, 1, 6]


def test_chunk_is_sent_once_and_others_are_told_who_has_it(table: OfferTable) -> None:
    opened(table, "n1")
    opened(table, "n2")
    assert asked(table, "n1", 0) == [Send("n1", X, 0)]
    assert asked(table, "n2", 0) == [Elsewhere("n2", X, 0, (Holder("n1", (0,)),))]
    table.check()


def test_chunk_is_sent_again_to_whom_nobody_else_does(table: OfferTable) -> None:
    opened(table, "n1")
    opened(table, "n2")
    asked(table, "n1", 0)
    table.sent("n1")
    assert asked(table, "n2", 0, "n1") == [Send("n2", X, 0)]


def test_chunk_is_sent_again_when_who_had_it_is_gone(table: OfferTable) -> None:
    opened(table, "n1")
    opened(table, "n2")
    asked(table, "n1", 0)
    table.node_gone("n1", at_s=0.0)
    assert asked(table, "n2", 0) == [Send("n2", X, 0)]
    table.check()


def test_chunk_that_did_not_come_is_sent_again(table: OfferTable) -> None:
    opened(table, "n1")
    asked(table, "n1", 0)
    table.sent("n1")
    assert asked(table, "n1", 0) == [Send("n1", X, 0)]


def test_one_chunk_at_a_time_goes_to_a_node(table: OfferTable) -> None:
    opened(table, "n1")
    assert asked(table, "n1", 0) == [Send("n1", X, 0)]
    assert asked(table, "n1", 1) == []
    assert table.sent("n1") == [Send("n1", X, 1)]


def test_urgent_chunks_go_first_when_too_many_are_sent(table: OfferTable) -> None:
    for number in range(offers.SENDING_MAX + 2):
        opened(table, f"n{number}", chunk_count=100)
    for number in range(offers.SENDING_MAX):
        asked(table, f"n{number}", number)
    assert asked(table, f"n{offers.SENDING_MAX}", 50, priority=2) == []
    assert asked(table, f"n{offers.SENDING_MAX + 1}", 51, priority=0) == []
    assert table.sent("n0") == [Send(f"n{offers.SENDING_MAX + 1}", X, 51)]
    table.check()


def test_chunk_that_is_still_to_come_is_sent_when_it_has(table: OfferTable) -> None:
    opened(table, "n1", chunks=(1,))
    assert asked(table, "n1", 0) == []
    assert table.arrived(X, 0) == [Send("n1", X, 0)]


def test_who_has_all_is_named_to_whoever_comes_later(table: OfferTable) -> None:
    opened(table, "n1")
    assert table.closed("n1", X, has_all=True, at_s=1.0) == [Shut(X)]
    (told,) = opened(table, "n2")
    assert told.holders == (Holder("n1", None),)
    assert asked(table, "n2", 3) == [Elsewhere("n2", X, 3, (Holder("n1", None),))]


def test_who_has_all_is_forgotten_after_a_while(table: OfferTable) -> None:
    opened(table, "n1")
    table.closed("n1", X, has_all=True, at_s=1.0)
    assert table.next_tick_s() == pytest.approx(1.0 + offers.KEPT_S)
    table.tick(at_s=1.0 + offers.KEPT_S)
    assert table.offers == {}


def test_withdrawn_value_is_said_to_be_gone_to_all(table: OfferTable) -> None:
    opened(table, "n1")
    opened(table, "n2")
    asked(table, "n1", 0)
    assert table.withdrawn(X) == [Gone("n1", X), Gone("n2", X), Shut(X)]
    assert asked(table, "n1", 1) == [Gone("n1", X)]
    table.check()


def test_value_of_another_generation_is_another_offer(table: OfferTable) -> None:
    opened(table, "n1")
    assert [type(one) for one in opened(table, "n2", generation="me:2")] == [Gone, Shut, Opened]
    table.check()


def test_cancelled_chunk_is_not_sent(table: OfferTable) -> None:
    opened(table, "n1")
    asked(table, "n1", 0)
    asked(table, "n1", 1)
    table.cancelled("n1", X, 1)
    assert table.sent("n1") == []


def test_chunk_that_there_is_not_is_gone(table: OfferTable) -> None:
    opened(table, "n1")
    assert asked(table, "n1", 8) == [Gone("n1", X)]
