"""By which connection a conversation goes on, and who may bring another."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._wire import reconnecting
from umbel._wire.conversations import NEW_COUNT_MAX, Close, Command, Conversation, Dial, Over, Resumed, Send

SECRET = "s" * 32


def made(*, dials: bool) -> Conversation:
    """One that has a connection, `first`."""
    conversation = Conversation(dials=dials, secret=SECRET, patience_s=30.0, at_s=0.0)
    conversation.begin("first", 0.0)
    return conversation


def taken(conversation: Conversation) -> list[Command]:
    commands, conversation.commands = conversation.commands, []
    return commands


def resume(attempt: int, **other: Any) -> dict[str, Any]:
    return {"t": "resume", "secret": SECRET, "heard": 0, "attempt": attempt, **other}


def test_a_broken_connection_is_followed_by_another() -> None:
    near, far = made(dials=True), made(dials=False)
    near.multiplexer.open({"to": "agent"})
    near.multiplexer.frames.clear()  # lost
    for side in (near, far):
        side.closed("first", 10.0)
    near.tick(10.0)
    far.tick(10.0)
    assert (taken(near), taken(far)) == ([Dial()], [])
    near.connected("second", 10.1)
    far.connected("second", 10.1)
    assert taken(near) == [Send("second", resume(1))]
    assert far.receive("second", resume(1), b"", 10.2) is None
    assert taken(far) == [Send("second", {"t": "resumed", "heard": 0}), Resumed()]
    assert near.receive("second", {"t": "resumed", "heard": 0}, b"", 10.3) is None
    assert taken(near) == [Resumed()]
    assert (near.link, far.link) == ("second", "second")
    assert [message["message"]["k"] for message, _ in near.multiplexer.frames] == ["open"]


def test_a_connection_by_which_nothing_comes_is_given_up_and_made_again() -> None:
    """The network loses everything after the handshake: without a limit the side that dials would wait for as long as its
    patience lasts."""
    near = made(dials=True)
    near.closed("first", 10.0)
    near.tick(10.0)
    near.connected("second", 10.0)
    taken(near)
    due_s = near.next_tick_s()
    assert due_s == 10.0 + reconnecting.SILENCE_S
    near.tick(due_s)
    assert taken(near) == [Close("second", "it has said nothing")]
    near.closed("second", due_s)
    due_s = near.next_tick_s()
    assert due_s is not None
    near.tick(due_s)
    assert taken(near) == [Dial()]


def test_a_stranger_that_says_nothing_is_cut_off_beside_the_connection_that_lives() -> None:
    far = made(dials=False)
    far.connected("stranger", 1.0)
    far.receive("first", {"t": "heard_said", "heard": 0}, b"", 10.9)
    far.tick(1.0 + reconnecting.SILENCE_S)
    assert taken(far) == [Close("stranger", "it has said nothing")]
    assert far.link == "first"


def test_of_too_many_strangers_the_oldest_goes() -> None:
    far = made(dials=False)
    for number in range(NEW_COUNT_MAX + 1):
        far.connected(number, 1.0)
    assert taken(far) == [Close(0, "too many are being made")]
    far.closed(0, 1.0)
    far.connected("program", 1.0)
    assert taken(far) == [Close(1, "too many are being made")]
    far.receive("program", resume(1), b"", 1.0)
    assert far.link == "program"


def test_an_attempt_that_was_given_up_and_comes_late_takes_no_place() -> None:
    far = made(dials=False)
    far.connected("second", 1.0)
    far.connected("third", 2.0)
    far.receive("third", resume(2), b"", 2.0)
    taken(far)
    far.receive("second", resume(1), b"", 3.0)
    assert taken(far) == [Close("second", "it is older than the last one: attempt 1 after 2")]
    assert far.link == "third"


def test_a_new_connection_takes_the_place_of_one_whose_end_nobody_has_noticed() -> None:
    far = made(dials=False)
    far.connected("second", 1.0)
    far.receive("second", resume(1), b"", 1.0)
    assert Close("first", "") in taken(far)
    far.closed("first", 1.0)
    assert (far.link, far.is_over) == ("second", False)
    assert far.receive("first", {"t": "over", "reason": "late"}, b"", 1.1) is None
    assert not far.is_over


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"t": "said"}, "it does not say that it comes back"),
        (resume(1, heard=-1), "it does not say that it comes back"),
        (resume(1, heard=True), "it does not say that it comes back"),
        (resume(1, secret="x" * 32), "it is another program"),
        (resume(1, secret=7), "it is another program"),
        (resume(0), "it is older than the last one: attempt 0 after 0"),
        ({**resume(1), "attempt": "1"}, "it is older than the last one: attempt '1' after 0"),
    ],
)
def test_who_does_not_prove_that_it_comes_back_is_not_taken(message: dict[str, Any], why: str) -> None:
    far = made(dials=False)
    far.connected("other", 1.0)
    far.receive("other", message, b"", 1.0)
    assert taken(far) == [Close("other", why)]
    assert far.link == "first"


def test_a_side_that_cannot_have_heard_what_it_says_ends_it() -> None:
    for dials, message in ((True, {"t": "resumed", "heard": 5}), (False, resume(1, heard=5))):
        side = made(dials=dials)
        side.closed("first", 1.0)
        side.connected("second", 1.0)
        side.receive("second", message, b"", 1.0)
        *_, last = taken(side)
        assert isinstance(last, Over)
        assert last.reason.startswith("the other side has made a mistake: the other side has heard 5")


def test_both_sides_give_up_with_the_reason() -> None:
    near, far = made(dials=True), made(dials=False)
    for side in (near, far):
        side.closed("first", 10.0)
    near.tick(10.0)
    near.dial_failed("nobody is there", 10.0)
    for side in (near, far):
        taken(side)
        side.tick(40.0)
    assert taken(near) == [
        Over("the connection was broken for longer than 30 s; the last attempt to make it again: nobody is there")
    ]
    assert taken(far) == [Over("the connection was broken for longer than 30 s")]
    near.connected("late", 41.0)
    assert (taken(near), near.next_tick_s()) == ([Close("late", "")], None)


def test_the_other_side_says_that_it_is_over() -> None:
    near, far = made(dials=True), made(dials=False)
    near.leave("umbel.shutdown() was called")
    (said,) = taken(near)
    assert isinstance(said, Send)
    far.receive("first", said.message, b"", 1.0)
    assert taken(far) == [Over("umbel.shutdown() was called")]
    far.closed("first", 1.0)
    far.leave("too late")
    assert taken(far) == []


def test_an_end_that_is_final_is_told_at_once() -> None:
    near = made(dials=True)
    near.closed("first", 1.0)
    near.dial_failed("there is no such process", 1.0, is_final=True)
    (over,) = taken(near)
    assert isinstance(over, Over)
    assert over.reason.endswith("has ended meanwhile, or does not know it any more: there is no such process")
