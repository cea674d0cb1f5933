"""Which values of a process are in memory, on disk, or both."""

from __future__ import annotations

import pytest

from umbel._objects.spill_book import Choice, SpillBook


@pytest.fixture
def book() -> SpillBook:
    return SpillBook({"me.o.1": 10, "me.o.2": 20, "me.p.3": 30})


def move(book: SpillBook, name: str) -> None:
    assert book.written(name)
    book.evicted(name)


def test_what_was_not_used_for_longest_goes_first(book: SpillBook) -> None:
    assert book.choose(25, kept=()) == Choice([], [], [("me.o.1", 10), ("me.o.2", 20)])
    book.used(["me.o.1", "other.o.1"])
    assert book.choose(25, kept=()) == Choice([], [], [("me.o.2", 20), ("me.p.3", 30)])
    assert book.choose(0, kept=()) == Choice([], [], [])


def test_what_somebody_looks_at_stays(book: SpillBook) -> None:
    assert book.choose(100, kept={"me.o.2"}).write == [("me.o.1", 10), ("me.p.3", 30)]
    assert book.spillable_bytes({"me.o.2"}) == 40


def test_what_is_on_disk_anyway_goes_before_anything_is_written(book: SpillBook) -> None:
    book.written("me.p.3")
    book.restored("other.o.7", "me.me.9", 5)
    assert book.choose(35, kept=()) == Choice([("me.me.9", 5)], [("me.p.3", 30)], [])
    assert book.choose(36, kept=()).write == [("me.o.1", 10)]
    assert book.choose(36, kept={"me.me.9"}).copies == []


def test_moved_value_is_not_in_memory(book: SpillBook) -> None:
    move(book, "me.o.1")
    assert (book.live_bytes, list(book.stored)) == (50, ["me.o.2", "me.p.3"])
    book.check()


def test_the_agent_is_told_of_deaths_that_concern_files(book: SpillBook) -> None:
    move(book, "me.o.1")
    book.written("me.o.2")
    del book.stored["me.o.2"], book.stored["me.p.3"]
    assert [book.freed(name) for name in ("me.o.1", "me.o.1", "me.o.2", "me.p.3")] == [True, False, True, False]


def test_value_that_dies_while_it_is_written_is_not_moved(book: SpillBook) -> None:
    del book.stored["me.o.1"]
    assert not book.freed("me.o.1")
    assert not book.written("me.o.1")
    book.check()


def test_copy_goes_with_its_value_or_when_room_is_wanted(book: SpillBook) -> None:
    book.restored("other.o.7", "me.me.9", 5)
    assert book.restored("other.o.7", "me.me.10", 5) == "me.me.9"
    assert book.forget_copy("other.o.7") == "me.me.10"
    assert book.forget_copy("other.o.7") is None
    book.restored("other.o.8", "me.me.11", 5)
    book.copy_gone("me.me.11")
    assert book.copies == {}


def test_dead_owners_values_are_forgotten(book: SpillBook) -> None:
    move(book, "me.o.1")
    move(book, "me.p.3")
    book.owner_gone("o")
    assert list(book.gone) == ["me.p.3"]
