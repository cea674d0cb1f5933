"""What the head does for two nodes of which one cannot dial the other: lists of events, and the commands that follow."""

from __future__ import annotations

import pytest

from umbel._control import rendezvous
from umbel._control.rendezvous import GOOD_S, REFUSED, DialBack, Expect, Meet, Rendezvous, Unreached

A, B, C = "a", "b", "c"
T, T2, OTHER = b"ticket-1", b"ticket-2", b"other"


def asked(
    meetings: Rendezvous,
    asker: str = A,
    node: str = B,
    ticket: bytes = T,
    *,
    is_relayed: bool = False,
    is_alive: bool = True,
    is_linked: bool = True,
) -> list[rendezvous.Command]:
    return meetings.asked(
        asker, node, ticket, OTHER, 0.0, is_relayed=is_relayed, is_alive=is_alive, is_linked=is_linked
    )


def test_the_node_is_told_to_dial() -> None:
    assert asked(Rendezvous()) == [DialBack(B, T, A, is_relayed=False)]


def test_both_are_told_to_meet_each_by_a_ticket_of_its_own() -> None:
    expected = [Expect(T, OTHER), DialBack(B, OTHER, A, is_relayed=True), Meet(A, T)]
    assert asked(Rendezvous(), is_relayed=True) == expected


def test_only_the_node_that_was_told_is_believed_that_it_could_not_dial_and_once() -> None:
    meetings = Rendezvous()
    asked(meetings)
    assert meetings.failed(C, T, "no route") == []
    assert meetings.failed(B, T, "no route") == [Unreached(A, T, "no route", is_final=False)]
    assert meetings.failed(B, T, "no route") == []


def test_who_asks_otherwise_is_asked_for_that_alone() -> None:
    meetings = Rendezvous()
    asked(meetings)
    asked(meetings, is_relayed=True)
    assert meetings.failed(B, T, "late") == []
    assert meetings.failed(B, OTHER, "no route") == [Unreached(A, T, "no route", is_final=False)]


def test_who_is_not_there_is_not_waited_for() -> None:
    assert asked(Rendezvous(), is_alive=False, is_linked=False) == [Unreached(A, T, REFUSED, is_final=True)]
    assert asked(Rendezvous(), node=A) == [Unreached(A, T, REFUSED, is_final=True)]


def test_a_node_without_a_connection_to_the_head_is_asked_for_again() -> None:
    meetings = Rendezvous()
    assert asked(meetings, is_linked=False) == []
    assert asked(meetings) == [DialBack(B, T, A, is_relayed=False)]


def test_nobody_takes_anothers_ticket() -> None:
    meetings = Rendezvous()
    asked(meetings)
    (refused,) = asked(meetings, asker=C)
    assert isinstance(refused, Unreached)
    assert refused.is_final
    assert meetings.failed(B, T, "no route") == [Unreached(A, T, "no route", is_final=False)]


def test_tickets_are_good_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "OPEN_MAX", 1)
    meetings = Rendezvous()
    asked(meetings)
    (refused,) = asked(meetings, ticket=T2)
    assert isinstance(refused, Unreached)
    assert meetings.next_tick_s() == GOOD_S
    meetings.tick(GOOD_S)
    assert meetings.next_tick_s() is None
    assert meetings.failed(B, T, "no route") == []
    assert asked(meetings, ticket=T2) == [DialBack(B, T2, A, is_relayed=False)]
