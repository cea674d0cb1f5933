"""Channels of compiled graphs: what each side may do, whatever it has seen of the other."""

from __future__ import annotations

import random

import pytest

from umbel import exceptions
from umbel._client.graphs import ring

SLOTS = 3


def test_slots_are_written_in_turn_and_no_more_than_there_are() -> None:
    writer = ring.WriterSide(SLOTS)
    taken = []
    while writer.may_write(0):
        taken.append(writer.slot())
        writer.wrote()
    assert taken == [0, 1, 2]
    assert writer.may_write(1)
    assert writer.slot() == 0


def test_reader_of_an_empty_channel_waits() -> None:
    reader = ring.ReaderSide(SLOTS)
    assert not reader.may_read(0)
    assert reader.may_read(1)
    assert (reader.slot(), reader.took(), reader.slot()) == (0, 1, 1)
    assert not reader.may_read(1)


def test_counts_that_disagree_are_a_defect() -> None:
    writer = ring.WriterSide(SLOTS)
    with pytest.raises(exceptions.InternalError, match="disagree"):
        writer.may_write(1)


@pytest.mark.parametrize("seed", range(20))
def test_messages_arrive_once_and_in_order_however_late_the_counts_are_seen(seed: int) -> None:
    chance = random.Random(seed)
    writer, reader = ring.WriterSide(SLOTS), ring.ReaderSide(SLOTS)
    slots: list[int | None] = [None] * SLOTS
    written = read = 0  # as published
    seen_read = seen_written = 0  # as the other side has seen them last
    sent, received = 0, []
    while len(received) < 50:
        move = chance.randrange(4)
        if move == 0 and writer.may_write(seen_read):
            assert slots[writer.slot()] is None, "a message that nobody has read was overwritten"
            slots[writer.slot()] = sent
            sent += 1
            written = writer.wrote()
        elif move == 1 and reader.may_read(seen_written):
            received.append(slots[reader.slot()])
            slots[reader.slot()] = None
            read = reader.took()
        elif move == 2:
            seen_read = chance.randint(seen_read, read)
        elif move == 3:
            seen_written = chance.randint(seen_written, written)
    assert received == list(range(50))
