"""Which tasks are kept, for how long, and which are run again, by events and in random graphs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from umbel._objects import lineage

OWNER, OTHER = b"o" * 16, b"x" * 16


def oid(seq: int, index: int = 0, owner: bytes = OWNER) -> bytes:
    return owner + seq.to_bytes(8, "big") + index.to_bytes(4, "big")


def may(_task: Any, _object_id: bytes) -> str:
    return ""


def make(bytes_max: int = 1_000) -> lineage.Lineage:
    return lineage.Lineage(OWNER, bytes_max)


def test_task_is_kept_while_a_result_lives() -> None:
    book = make()
    book.keep(1, "one", [0, 1], (), 10)
    book.freed(oid(1, 0))
    assert book.plan(oid(1, 1), lambda _: False, may) == [1]
    book.freed(oid(1, 1))
    assert (len(book), book.size_bytes) == (0, 0)


def test_chain_is_kept_for_its_end_and_run_from_its_beginning() -> None:
    book = make()
    for seq in range(1, 2_001):
        book.keep(seq, seq, [0], (oid(seq - 1),) if seq > 1 else (), 0)
        if seq > 1:
            book.freed(oid(seq - 1))
    assert book.plan(oid(2_000), lambda _: False, may) == list(range(1, 2_001))
    assert book.plan(oid(2_000), lambda needed: needed == oid(1_990), may) == list(range(1_991, 2_001))
    book.freed(oid(2_000))
    assert len(book) == 0


def test_what_is_kept_is_told_and_for_how_many() -> None:
    book = make()
    book.keep(1, "root", [0], (), 10)
    for seq in (2, 3):
        book.keep(seq, f"leaf {seq}", [0], (oid(1), oid(9)), 20)
    book.refuse(4, [0], "retries_disabled")
    book.freed(oid(1))
    assert book.told(oid(1)) == ("root", 10, 2)
    assert book.told(oid(3)) == ("leaf 3", 20, 0)
    assert book.told(oid(9)) == (None, 0, 2), "it was put"
    assert [book.told(one) for one in (oid(4), oid(5), oid(1, owner=OTHER))] == [None, None, None]
    assert (book.kept_count(), book.size_bytes) == (3, 50)
    book.freed(oid(2))
    book.freed(oid(3))
    assert (book.told(oid(1)), book.kept_count()) == (None, 0)


def test_shared_need_is_run_once_and_before_both() -> None:
    book = make()
    book.keep(1, "root", [0], (), 1)
    book.keep(2, "left", [0], (oid(1),), 1)
    book.keep(3, "right", [0], (oid(1),), 1)
    book.keep(4, "end", [0], (oid(2), oid(3)), 1)
    order = book.plan(oid(4), lambda _: False, may)
    assert isinstance(order, list)
    assert sorted(order) == [1, 2, 3, 4]
    assert order[0] == 1
    assert order[-1] == 4


def test_task_that_runs_again_is_not_started_twice_nor_forgotten() -> None:
    book = make()
    book.keep(1, "one", [0], (), 1)
    assert book.begin(1) == ("one", ())
    assert book.plan(oid(1), lambda _: False, may) == []
    book.freed(oid(1))  # while it runs, its last reference goes away
    assert len(book) == 1
    assert book.finished(1, ())
    assert len(book) == 0
    assert not book.finished(1, (0,))


@pytest.mark.parametrize(
    ("needed", "reason"),
    [
        (oid(9), "put"),
        (oid(9, 3), "lineage_disabled"),
        (oid(1, owner=OTHER), "borrowed"),
        (oid(2), "retries_disabled"),
        (oid(3), "max_attempts_exceeded"),
    ],
)
def test_refusals_name_the_object_at_fault(needed: bytes, reason: str) -> None:
    book = make()
    book.refuse(2, [0], "retries_disabled")
    book.keep(3, "spent", [0], (), 1)
    book.keep(4, "end", [0], (needed,), 1)
    refusal = book.plan(oid(4), lambda _: False, lambda task, _: "max_attempts_exceeded" if task == "spent" else "")
    assert refusal == lineage.Refusal(reason, needed)


def test_need_that_was_not_there_yet_and_is_let_go_of_is_not_taken_for_one_that_was_put() -> None:
    book = make()
    book.keep(4, "end", [0], (oid(9),), 1, awaited=(oid(9),))
    assert book.plan(oid(4), lambda _: False, may) == lineage.Refusal("ref_not_found", oid(9))
    book.keep(9, "late", [0], (), 1)
    assert book.plan(oid(4), lambda _: False, may) == [9, 4]


def test_what_was_put_is_known_as_long_as_a_kept_task_needs_it() -> None:
    book = make()
    for seq in (4, 5):
        book.keep(seq, seq, [0], (oid(1),), 1)
    book.freed(oid(1))
    book.freed(oid(4))
    assert book.plan(oid(5), lambda _: False, may) == lineage.Refusal("put", oid(1))
    book.freed(oid(5))
    assert (len(book), book.size_bytes) == (0, 0)


def test_object_that_no_task_is_known_to_have_made_was_put() -> None:
    assert make().plan(oid(9), lambda _: False, may) == lineage.Refusal("put", oid(9))


def test_refusal_names_the_object_that_is_the_reason() -> None:
    book = make()
    book.refuse(2, [0], "put", (oid(1),))
    assert book.plan(oid(2), lambda _: False, may) == lineage.Refusal("put", oid(1))
    book.freed(oid(2))
    assert (len(book), book.size_bytes) == (0, 0)


def test_oldest_are_forgotten_when_there_is_too_much() -> None:
    book = make(bytes_max=100)
    for seq in range(1, 12):
        book.keep(seq, seq, [0], (), 10)
    assert book.size_bytes <= 50
    assert book.plan(oid(1), lambda _: False, may) == lineage.Refusal("lineage_evicted", oid(1))
    assert book.plan(oid(11), lambda _: False, may) == [11]
    for seq in range(1, 12):
        book.freed(oid(seq))
    assert (len(book), book.size_bytes) == (0, 0)


@pytest.mark.parametrize("seed", range(200))
def test_random_graphs(seed: int) -> None:
    """Whatever is made, freed, lost and run again: a plan is complete and in order, and at the end nothing is kept."""
    chance = random.Random(seed)
    book = make(bytes_max=chance.choice([40, 10_000]))
    needs: dict[int, tuple[bytes, ...]] = {}
    alive: set[bytes] = set()
    running: set[int] = set()
    for seq in range(1, 60):
        step = chance.random()
        if step < 0.5 or not alive:
            needs[seq] = tuple(chance.sample(sorted(alive), min(len(alive), chance.randrange(4))))
            results = range(chance.randrange(1, 3))
            book.keep(seq, seq, results, needs[seq], 1)
            alive.update(oid(seq, index) for index in results)
        elif step < 0.75:
            gone = chance.choice(sorted(alive))
            alive.discard(gone)
            book.freed(gone)
        elif step < 0.9:
            lost = chance.choice(sorted(alive))
            known = frozenset(alive)
            order = book.plan(lost, known.__contains__, may)
            if isinstance(order, list):
                there = set(running)
                for one in order:
                    assert one not in there
                    for need in needs[one]:
                        assert need in alive or lineage.seq_of(need) in there, "an argument would be missing"
                    there.add(one)
                    book.begin(one)
                    running.add(one)
                assert lineage.seq_of(lost) in there
            else:
                assert order.reason == "lineage_evicted"
        elif running:
            ended = chance.choice(sorted(running))
            running.discard(ended)
            assert book.finished(ended, [lineage.index_of(one) for one in alive if lineage.seq_of(one) == ended])
        kept = sum(entry.size_bytes for entry in book._entries.values())
        assert kept == book.size_bytes
    for ended in sorted(running):
        book.finished(ended, ())
    for gone in sorted(alive):
        book.freed(gone)
    assert (len(book), book.size_bytes) == (0, 0)
