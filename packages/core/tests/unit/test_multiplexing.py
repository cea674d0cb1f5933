"""Streams of bytes in a conversation whose connections break."""

from __future__ import annotations

import random
from typing import Any

import pytest

from umbel._wire import multiplexing
from umbel._wire.multiplexing import Answered, Ended, Multiplexer, Opened, Received
from umbel.exceptions import InternalError

SEED_COUNT = 150
STEP_COUNT = 120


class Pair:
    """Two sides, and the frames between them while they are connected."""

    def __init__(self) -> None:
        self.first = Multiplexer(is_first=True)
        self.second = Multiplexer(is_first=False)
        self.is_linked = True

    def deliver(self, from_side: Multiplexer, to_side: Multiplexer, count: int = 10_000) -> list[multiplexing.Event]:
        events = []
        while from_side.frames and count:
            event = to_side.receive(*from_side.frames.popleft())
            if event is not None:
                events.append(event)
            count -= 1
        return events

    def settle(self) -> list[multiplexing.Event]:
        """What both have heard, until nothing is under way."""
        events = []
        while self.first.frames or self.second.frames:
            events += self.deliver(self.first, self.second)
            events += self.deliver(self.second, self.first)
        return events

    def break_off(self) -> None:
        self.first.unlinked()
        self.second.unlinked()

    def link(self, *, is_late: bool = False) -> None:
        """is_late: each side says what it had heard earlier, as far back as it may, and is told things again."""
        heard = [side.channel.heard for side in (self.first, self.second)]
        if is_late:
            heard = [other.channel.said - other.channel.kept_count for other in (self.second, self.first)]
        self.first.linked(heard[1])
        self.second.linked(heard[0])


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_a_stream_is_opened_taken_and_ended(pair: Pair) -> None:
    stream = pair.first.open({"to": "agent"})
    pair.first.send(stream, b"hello")
    assert pair.deliver(pair.first, pair.second) == [Opened(stream, {"to": "agent"}), Received(stream, b"hello")]
    pair.second.take(stream)
    pair.second.send(stream, b"yes")
    pair.second.end(stream)
    assert pair.settle() == [Answered(stream, True, "", False), Received(stream, b"yes"), Ended(stream)]
    assert (pair.first.stream_count, pair.second.stream_count) == (0, 0)


def test_a_refused_stream_is_over(pair: Pair) -> None:
    stream = pair.second.open({"to": "nothing"})
    pair.settle()
    pair.first.refuse(stream, "there is none", is_final=True)
    assert pair.settle() == [Answered(stream, False, "there is none", True)]
    assert (pair.first.stream_count, pair.second.stream_count) == (0, 0)


def test_what_comes_for_a_stream_that_was_ended_here_is_dropped(pair: Pair) -> None:
    stream = pair.first.open({})
    pair.settle()
    pair.first.end(stream)
    pair.second.send(stream, b"late")
    pair.second.end(stream)
    assert pair.deliver(pair.second, pair.first) == []
    assert pair.settle() == []


def test_no_more_is_sent_than_there_is_room_for_until_it_is_handed_on(pair: Pair) -> None:
    stream = pair.first.open({})
    pair.settle()
    pair.first.send(stream, bytes(multiplexing.WINDOW_BYTES))
    assert pair.first.room(stream) == 0
    with pytest.raises(InternalError, match="more was sent"):
        pair.first.send(stream, b"x")
    pair = Pair()
    stream = pair.first.open({})
    pair.first.send(stream, bytes(multiplexing.WINDOW_BYTES))
    pair.settle()
    assert pair.first.room(stream) == 0
    pair.second.handed_on(stream, multiplexing.WINDOW_BYTES // 4)
    pair.settle()
    assert pair.first.room(stream) == multiplexing.WINDOW_BYTES // 4


def test_a_stream_carries_any_number_of_windows(pair: Pair) -> None:
    stream = pair.first.open({})
    for _ in range(20):
        size = pair.first.room(stream) // 2
        assert size >= multiplexing.WINDOW_BYTES // 4
        pair.first.send(stream, bytes(size))
        pair.settle()
        pair.second.handed_on(stream, size)
        pair.settle()


def test_all_streams_together_keep_no_more_than_a_bound_while_there_is_no_connection(pair: Pair) -> None:
    streams = [pair.first.open({}) for _ in range(64)]
    pair.break_off()
    for stream in streams:
        while room := pair.first.room(stream):
            pair.first.send(stream, bytes(min(room, 65_536)))
    kept = pair.first.channel.kept_bytes
    assert multiplexing.KEPT_BYTES_MAX <= kept <= multiplexing.KEPT_BYTES_MAX + 65_536
    pair.link()
    pair.settle()
    pair.second.beat()
    pair.settle()
    assert pair.first.channel.kept_bytes == 0


@pytest.mark.parametrize(
    ("message", "body", "reason"),
    [
        ({"k": "data", "s": 2}, bytes(multiplexing.WINDOW_BYTES + 1), "more bytes"),
        ({"k": "took", "s": 2, "n": 1}, b"", "was taken than was sent"),
        ({"k": "took", "s": 2, "n": -1}, b"", "n must be"),
        ({"k": "sing", "s": 2}, b"", "unknown message"),
        ({"k": "data", "s": "2"}, b"", "s must be"),
        ({"k": "open", "s": 2, "to": {}}, b"", "cannot be opened"),
        ({"k": "open", "s": 4, "to": {}}, b"", "cannot be opened"),
        ({"k": "open", "s": 7, "to": []}, b"", "cannot be opened"),
    ],
)
def test_mistakes_of_the_other_side_are_told(pair: Pair, message: dict[str, Any], body: bytes, reason: str) -> None:
    assert pair.second.open({}) == 2
    pair.settle()
    frame = {"t": "said", "number": pair.second.channel.heard + 1, "heard": 1, "message": message}
    with pytest.raises(ValueError, match=reason):
        pair.second.receive(frame, body)


def test_a_flood_of_streams_is_a_mistake(pair: Pair) -> None:
    for _ in range(multiplexing.STREAM_COUNT_MAX):
        pair.first.open({})
    pair.settle()
    pair.first.open({})
    with pytest.raises(ValueError, match="no more are allowed"):
        pair.settle()


class World:
    """Both sides open, send, hand on and end at random, and connections break with what is under way."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.pair = Pair()
        self.is_linked = True
        self.sides = (self.pair.first, self.pair.second)
        self.sent: dict[tuple[int, int], bytes] = {}  # by who received, and the stream
        self.received: dict[tuple[int, int], bytes] = {}
        self.ended: set[tuple[int, int]] = set()  # by whom, and the stream
        self.opened: list[set[int]] = [set(), set()]
        self.open: list[set[int]] = [set(), set()]
        self.unread: list[dict[int, int]] = [{}, {}]

    def run(self) -> None:
        for _ in range(STEP_COUNT):
            self.chance.choice(
                (self.do_open, self.send, self.send, self.hand_on, self.end, self.deliver, self.change)
            )()
        self.relink()
        while any(side.frames for side in self.sides):
            for index in (0, 1):
                self.take(index, self.pair.deliver(self.sides[1 - index], self.sides[index]))
        self.check()

    def check(self) -> None:
        for key, data in self.received.items():
            assert self.sent.get(key, b"").startswith(data)
            if key not in self.ended:  # else what came afterwards was dropped
                assert self.sent[key] == data
        for index in (0, 1):
            first = 2 + index
            assert self.opened[index] == set(range(first, first + 2 * len(self.opened[index]), 2))

    def do_open(self) -> None:
        index = self.chance.randrange(2)
        self.open[index].add(self.sides[index].open({"n": 1}))

    def send(self) -> None:
        index = self.chance.randrange(2)
        if not self.open[index]:
            return
        stream = self.chance.choice(sorted(self.open[index]))
        room = self.sides[index].room(stream)
        if room:
            data = bytes([self.chance.randrange(256)]) * self.chance.randint(1, min(room, 100_000))
            self.sides[index].send(stream, data)
            self.sent[1 - index, stream] = self.sent.get((1 - index, stream), b"") + data

    def hand_on(self) -> None:
        index = self.chance.randrange(2)
        for stream, size in list(self.unread[index].items()):
            self.sides[index].handed_on(stream, size)
            del self.unread[index][stream]

    def end(self) -> None:
        index = self.chance.randrange(2)
        if self.open[index] and self.chance.random() < 0.3:
            stream = self.chance.choice(sorted(self.open[index]))
            self.open[index].discard(stream)
            self.ended.add((index, stream))
            self.unread[index].pop(stream, None)
            self.sides[index].end(stream)

    def deliver(self) -> None:
        index = self.chance.randrange(2)
        if self.is_linked:
            self.take(index, self.pair.deliver(self.sides[1 - index], self.sides[index], self.chance.randint(1, 5)))

    def take(self, index: int, events: list[multiplexing.Event]) -> None:
        for event in events:
            if isinstance(event, Opened):
                assert event.stream not in self.opened[index], "a stream was opened twice"
                self.opened[index].add(event.stream)
                self.open[index].add(event.stream)
                self.sides[index].take(event.stream)
            elif isinstance(event, Received):
                key = index, event.stream
                self.received[key] = self.received.get(key, b"") + event.data
                self.unread[index][event.stream] = self.unread[index].get(event.stream, 0) + len(event.data)
            elif isinstance(event, Ended):
                self.open[index].discard(event.stream)
                self.unread[index].pop(event.stream, None)
                assert self.sent.get((index, event.stream), b"") == self.received.get((index, event.stream), b"")

    def change(self) -> None:
        if self.is_linked:
            self.is_linked = False
            self.pair.break_off()
        else:
            self.relink()

    def relink(self) -> None:
        self.is_linked = True
        self.pair.link(is_late=self.chance.random() < 0.5)


@pytest.mark.parametrize("seed", range(SEED_COUNT))
def test_bytes_come_once_and_in_order_whatever_breaks(seed: int) -> None:
    World(seed).run()
