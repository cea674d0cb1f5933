"""What of the history waits in the daemon, and that every task is stored or counted as lost."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from umbel._agent import recorder, spool
from umbel._agent.spool import Entry, Spool

SMALL = (b"x" * 100, 10)
LARGE = (b"x" * (spool.KEPT_BYTES + 1), 20_000)


def batch(data: bytes, task_count: int) -> Entry:
    return Entry([data], task_count)


def test_little_waits_without_a_recorder() -> None:
    one = Spool()
    assert not one.add_batch(*SMALL, 0)
    assert not one.add_batch(*SMALL, 0)
    assert one.add_batch(*LARGE, 0)
    assert one.hand_over() == (0, [batch(*SMALL), batch(*SMALL), batch(*LARGE)])


def test_with_a_recorder_no_batch_waits_and_notes_go_with_it() -> None:
    one = Spool()
    one.hand_over()
    assert not one.add_note(b"first", 0)
    assert not one.add_note(b"second", 0)
    assert one.add_batch(*SMALL, 0)
    assert one.hand_over() == (0, [Entry([b"first", b"second"], 0, is_notes=True), batch(*SMALL)])


def test_with_a_recorder_many_notes_do_not_wait_for_a_batch() -> None:
    one = Spool()
    one.hand_over()
    note = b"x" * 1_000
    assert [one.add_note(note, 0) for _ in range(66)] == [False] * 65 + [True]
    assert one.hand_over() == (0, [Entry([note] * 66, 0, is_notes=True)])
    assert not one.add_note(note, spool.BEHIND_BYTES_MAX + 1)
    assert one.hand_over() == (0, [])


def test_what_a_dead_recorder_had_not_stored_is_lost_and_told() -> None:
    one = Spool()
    for _ in range(3):
        one.add_batch(*SMALL, 0)
    one.hand_over()
    one.confirmed()
    one.recorder_gone()
    assert not one.add_batch(*SMALL, 0)
    assert one.hand_over() == (20, [batch(*SMALL)])
    assert one.hand_over() == (0, [])


def test_what_is_lost_is_told_again_until_a_recorder_has_stored_that() -> None:
    """The first dies with the count unread, the second cannot store it."""
    one = Spool()
    one.add_batch(*SMALL, 0)
    one.hand_over()
    one.refused()
    for end in (one.recorder_gone, one.refused):
        assert one.hand_over() == (10, [])
        end()
    assert one.hand_over() == (10, [])
    one.confirmed()
    one.recorder_gone()
    assert one.hand_over() == (0, [])


def test_recorder_says_of_a_count_that_it_could_not_store_it(tmp_path: Path) -> None:
    """Any other answer would be taken for that to a question which nobody has asked."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        one = recorder.Recorder(theirs, str(tmp_path / "history.db"), {})
        assert one._take({"t": "lost", "count": 3}, b"") == {"t": "stored"}
        one._store._db.execute("PRAGMA query_only = 1")
        assert one._take({"t": "lost", "count": 3}, b"")["t"] == "refused"
        one._store.close()


def test_what_could_not_be_stored_is_lost() -> None:
    one = Spool()
    one.add_batch(*SMALL, 0)
    one.hand_over()
    one.refused()
    assert one.hand_over() == (10, [])


def test_recorder_that_does_not_keep_up_costs_entries_and_no_memory() -> None:
    one = Spool()
    one.hand_over()
    assert not one.add_batch(*SMALL, spool.BEHIND_BYTES_MAX + 1)
    assert (one.waiting_bytes, one.lost_count) == (0, 10)


def test_every_task_is_stored_or_counted_whatever_happens() -> None:
    for seed in range(40):
        chance = random.Random(seed)
        one = Spool()
        added = stored = 0
        for _ in range(100):
            action = chance.randrange(6)
            if action < 3:
                data, task_count = b"x" * chance.randrange(1, spool.KEPT_BYTES), chance.randrange(5)
                behind_bytes = chance.choice((0, spool.BEHIND_BYTES_MAX + 1))
                added += task_count
                if one.add_batch(data, task_count, behind_bytes) or one.add_note(b"y" * 100, behind_bytes):
                    one.hand_over()
            elif action == 3 and one.unconfirmed:
                stored += one.unconfirmed[0]
                one.confirmed()
            elif action == 4 and one.unconfirmed:
                one.refused()
            elif action == 5:
                chance.choice((one.recorder_gone, one.give_up))()
            waiting = sum(entry.task_count for entry in one.waiting)
            assert added == stored + one.lost_count + waiting + sum(one.unconfirmed), seed
