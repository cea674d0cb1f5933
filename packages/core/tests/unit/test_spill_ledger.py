"""Which values lie in which file, and when a file goes."""

from __future__ import annotations

import pytest

from umbel._agent.spill_ledger import AskOwner, Forget, Location, RemoveFile, SpillLedger

A, B = "a.o.1", "b.o.1"  # segments: of creators a and b, both owned by o
LIVING = ("a", "b", "o")


@pytest.fixture
def ledger() -> SpillLedger:
    return SpillLedger("/spilled")


def spill(ledger: SpillLedger, *segments: str, client: str = "a") -> str:
    file = ledger.begin(client)
    entries = [(segment, at * 10, 10, 7) for at, segment in enumerate(segments)]
    assert ledger.written(client, file, entries, LIVING) == []
    return file


def test_values_are_found_in_the_file_that_holds_them(ledger: SpillLedger) -> None:
    file = spill(ledger, A, B)
    assert ledger.located("b", B) == Location(file, 10, 10, 7)
    assert ledger.located("b", "a.o.2") is None
    assert (ledger.spilled_bytes, ledger.file_count) == (20, 1)
    assert (ledger.written_bytes, ledger.read_bytes) == (20, 10)


def test_file_goes_with_the_last_of_its_values(ledger: SpillLedger) -> None:
    file = spill(ledger, A, B)
    assert ledger.freed(A) == []
    assert ledger.freed(A) == []
    assert ledger.freed(B) == [RemoveFile(file)]
    assert ledger.freed(B) == []


def test_file_whose_values_died_while_it_was_written_goes(ledger: SpillLedger) -> None:
    file = ledger.begin("a")
    assert ledger.written("a", file, [(A, 0, 10, 7)], ("a",)) == [RemoveFile(file)]


def test_values_of_a_file_that_was_given_up_are_refused(ledger: SpillLedger) -> None:
    """Its writer keeps them in memory, or they would be nowhere."""
    file = ledger.begin("a")
    ledger.given_up("a", file)
    assert ledger.written("a", file, [(A, 0, 10, 7)], LIVING) is None
    assert ledger.located("a", A) is None
    assert ledger.file_count == 0


def test_file_that_is_complete_or_is_anothers_cannot_be_given_up(ledger: SpillLedger) -> None:
    complete, others = spill(ledger, A), ledger.begin("b")
    ledger.given_up("a", complete)
    ledger.given_up("a", others)
    assert ledger.located("o", A) == Location(complete, 0, 10, 7)
    assert ledger.written("a", others, [(B, 0, 10, 7)], LIVING) is None
    assert ledger.written("b", others, [(B, 0, 10, 7)], LIVING) == []


def test_dead_writers_files_go_and_those_it_completed_stay(ledger: SpillLedger) -> None:
    complete, begun = spill(ledger, B, client="a"), ledger.begin("a")
    assert ledger.client_gone("a") == [RemoveFile(begun)]
    assert ledger.located("o", B) == Location(complete, 0, 10, 7)


def test_dead_owners_values_go(ledger: SpillLedger) -> None:
    file = spill(ledger, A, B)
    assert ledger.client_gone("o") == [RemoveFile(file)]


def test_owner_is_asked_for_the_values_of_a_dead_creator(ledger: SpillLedger) -> None:
    spill(ledger, A, B)
    assert ledger.client_gone("a") == [AskOwner("o", "a", (A,))]


def test_who_has_read_a_value_back_is_told_of_its_death(ledger: SpillLedger) -> None:
    file = spill(ledger, A)
    ledger.located("b", A)
    ledger.located("c", A)
    ledger.client_gone("c")
    assert ledger.freed(A) == [Forget("b", A), RemoveFile(file)]


def test_value_that_is_on_disk_already_is_not_listed_twice(ledger: SpillLedger) -> None:
    spill(ledger, A)
    file = ledger.begin("o")
    assert ledger.written("o", file, [(A, 0, 10, 7)], LIVING) == [RemoveFile(file)]
    ledger.check()
