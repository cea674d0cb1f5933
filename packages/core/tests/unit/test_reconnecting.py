"""When a broken connection is made again, and when it is given up."""

from __future__ import annotations

from umbel._wire import reconnecting
from umbel._wire.reconnecting import BEAT_S, REDIAL_S, REDIAL_S_MAX, SILENCE_S, Reconnecting


def made(*, dials: bool = True) -> Reconnecting:
    links = Reconnecting(at_s=0.0, patience_s=30.0, dials=dials)
    links.linked(0.0)
    return links


def test_a_connection_is_beaten_and_a_silent_one_closed() -> None:
    links = made()
    assert links.tick(BEAT_S - 0.1) == ""
    assert links.tick(BEAT_S) == "beat"
    assert links.tick(BEAT_S) == ""
    links.heard(BEAT_S)
    assert links.tick(BEAT_S + SILENCE_S - 0.1) == "beat"
    assert links.tick(BEAT_S + SILENCE_S) == "close"


def test_a_broken_one_is_dialled_at_once_then_slower() -> None:
    links = made()
    links.broken(10.0)
    assert links.tick(10.0) == "dial"
    assert links.tick(20.0) == ""  # until it is known what came of it
    pauses = []
    at_s = 10.0
    for _ in range(5):
        links.dial_failed(at_s)
        due_s = links.next_tick_s()
        assert due_s is not None
        pauses.append(round(due_s - at_s, 6))
        at_s = due_s
        assert links.tick(at_s) == "dial"
    assert pauses == [REDIAL_S, 2 * REDIAL_S, 4 * REDIAL_S, REDIAL_S_MAX, REDIAL_S_MAX]


def test_one_that_was_linked_again_begins_anew() -> None:
    links = made()
    links.broken(10.0)
    assert links.tick(10.0) == "dial"
    links.dial_failed(10.0)
    links.linked(39.0)
    assert (links.is_linked, links.tick(40.0)) == (True, "")
    links.broken(50.0)
    assert links.tick(50.0) == "dial"
    links.dial_failed(50.0)
    assert links.next_tick_s() == 50.0 + REDIAL_S


def test_patience_ends_on_both_sides_once() -> None:
    for dials in (True, False):
        links = made(dials=dials)
        links.broken(10.0)
        if dials:
            assert links.tick(10.0) == "dial"
        assert links.next_tick_s() == 40.0
        assert links.tick(39.9) == ""
        assert links.tick(40.0) == "give up"
        assert (links.tick(41.0), links.next_tick_s()) == ("", None)


def test_the_side_that_is_dialled_waits() -> None:
    links = made(dials=False)
    links.broken(10.0)
    assert (links.tick(10.0), links.next_tick_s()) == ("", 40.0)


def test_a_break_that_is_told_twice_counts_from_the_first() -> None:
    links = made(dials=False)
    links.broken(10.0)
    links.broken(20.0)
    assert links.tick(40.0) == "give up"
    assert reconnecting.SILENCE_S > 3 * BEAT_S
