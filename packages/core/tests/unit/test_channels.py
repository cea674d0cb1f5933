"""A conversation that outlives its connections."""

from __future__ import annotations

import random

import pytest

from umbel._wire import channels

A, B, C = ({"t": name} for name in "abc")


def test_what_is_said_is_numbered_and_taken_once() -> None:
    one, other = channels.Channel(), channels.Channel()
    first, second = one.say(A, b"x"), one.say(B)
    assert (first["number"], second["number"], second["message"]) == (1, 2, B)
    assert [other.takes(first, b"x"), other.takes(second, b""), other.takes(first, b"x")] == [True, True, False]
    assert other.heard == 2


def test_a_new_connection_begins_with_what_was_not_heard() -> None:
    one, other = channels.Channel(), channels.Channel()
    other.takes(one.say(A), b"")
    one.say(B, b"body")
    one.say(C)
    again = one.linked(other.heard)
    assert [(frame["number"], frame["message"], body) for frame, body in again] == [(2, B, b"body"), (3, C, b"")]
    assert [other.takes(frame, body) for frame, body in again] == [True, True]
    assert one.linked(other.heard) == []
    assert one.kept_bytes == 0


def test_what_is_said_tells_what_was_heard() -> None:
    one, other = channels.Channel(), channels.Channel()
    other.takes(one.say(A, b"xyz"), b"xyz")
    assert (one.kept_count, one.kept_bytes) == (1, 3)
    one.takes(other.say(B), b"")
    assert (one.kept_count, one.kept_bytes) == (0, 0)


@pytest.mark.parametrize(("count", "size_bytes"), [(channels.ACKNOWLEDGE_COUNT, 0), (1, channels.ACKNOWLEDGE_BYTES)])
def test_much_that_was_heard_is_told_at_once(count: int, size_bytes: int) -> None:
    one, other = channels.Channel(), channels.Channel()
    for number in range(count):
        assert other.acknowledgement() is None, number
        other.takes(one.say(A, bytes(size_bytes)), bytes(size_bytes))
    told = other.acknowledgement()
    assert told == {"t": "heard_said", "heard": count}
    assert other.acknowledgement() is None
    one.acknowledged(told["heard"])
    assert one.kept_count == 0


def test_a_gap_is_a_mistake() -> None:
    one, other = channels.Channel(), channels.Channel()
    one.say(A)
    with pytest.raises(ValueError, match="number 2 has come, and 1 has not"):
        other.takes(one.say(B), b"")


def test_nobody_hears_what_was_not_said_or_forgets_what_he_has_heard() -> None:
    one = channels.Channel()
    with pytest.raises(ValueError, match="has heard 1, which must be from 0 to 0"):
        one.linked(1)
    one.say(A)
    one.say(B)
    one.acknowledged(1)
    with pytest.raises(ValueError, match="has heard 0, which must be from 1 to 2"):
        one.linked(0)


@pytest.mark.parametrize("seed", range(50))
def test_whatever_connections_lose_all_arrives_once_in_order(seed: int) -> None:
    chance = random.Random(seed)
    sides = [channels.Channel(), channels.Channel()]
    taken: list[list[int]] = [[], []]
    ways: list[list[tuple[channels.Message, bytes]]] = [[], []]  # to each side; what is in them goes with a connection
    is_linked = False
    said = [0, 0]

    def arrives(side: int) -> None:
        frame, body = ways[side].pop(0)
        if frame["t"] == "heard_said":
            sides[side].acknowledged(frame["heard"])
        elif sides[side].takes(frame, body):
            taken[side].append(frame["message"]["n"])
        told = sides[side].acknowledgement()
        if told is not None and is_linked:
            ways[1 - side].append((told, b""))
        sides[side].check()

    def link() -> None:
        nonlocal is_linked
        is_linked = True
        ways[:] = [[], []]
        heard = [one.heard for one in sides]
        for side in (0, 1):
            ways[1 - side] += sides[side].linked(heard[1 - side])

    for _ in range(300):
        side, what = chance.randrange(2), chance.random()
        if what < 0.5:
            said[side] += 1
            body = bytes(chance.choice((0, 0, 700_000)))
            frame = sides[side].say({"t": "x", "n": said[side]}, body)
            if is_linked:
                ways[1 - side].append((frame, body))
        elif what < 0.9 and is_linked and ways[side]:
            arrives(side)
        elif what > 0.97:
            link()
        elif what > 0.94:
            is_linked = False
    link()
    while ways[0] or ways[1]:
        arrives(0 if ways[0] else 1)
    assert taken == [list(range(1, said[1] + 1)), list(range(1, said[0] + 1))]


def test_a_side_that_vouches_tells_only_what_it_has_vouched_for() -> None:
    one, other = channels.Channel(), channels.Channel(vouches=True)
    for _ in range(channels.ACKNOWLEDGE_COUNT):
        other.takes(one.say(A), b"")
    assert (other.heard, other.counts, other.acknowledgement()) == (channels.ACKNOWLEDGE_COUNT, 0, None)
    one.takes(other.say(B), b"")
    assert [number for number, _, _ in one.kept] == list(range(1, channels.ACKNOWLEDGE_COUNT + 1))
    other.vouch(channels.ACKNOWLEDGE_COUNT)
    told = other.acknowledgement()
    assert told == {"t": "heard_said", "heard": channels.ACKNOWLEDGE_COUNT}
    one.acknowledged(told["heard"])
    assert one.kept == []
    other.check()


def test_what_was_not_vouched_for_is_said_again_and_not_taken_again() -> None:
    one, other = channels.Channel(), channels.Channel(vouches=True)
    other.takes(one.say(A), b"")
    ((frame, body),) = one.linked(other.counts)
    assert not other.takes(frame, body)
