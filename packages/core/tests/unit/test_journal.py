"""What may be said when, as lists of events."""

from __future__ import annotations

import pytest

from umbel._control import journal
from umbel._control.journal import (
    Commit,
    Committed,
    Do,
    Failed,
    Fenced,
    Journal,
    Paused,
    Recorded,
    Resumed,
    StepDown,
    Ticked,
    Withheld,
)


@pytest.fixture
def machine() -> Journal:
    return Journal(7)


def recorded(key: str = "a", value: bytes | None = b"1", at_s: float = 0.0) -> Recorded:
    return Recorded({key: value}, at_s)


def apply(machine: Journal, *events: journal.Event) -> list[journal.Command]:
    commands = []
    for event in events:
        commands += machine.apply(event)
        machine.check()
    return commands


def test_what_depends_on_nothing_goes_at_once(machine: Journal) -> None:
    assert apply(machine, Withheld("reply"), Recorded({}, 0.0), Withheld("more")) == [Do(("reply",)), Do(("more",))]
    assert machine.reason(0.0) == ""


def test_answer_waits_until_its_record_is_there(machine: Journal) -> None:
    assert apply(machine, recorded(), Withheld("answer")) == [Commit(7, 1, {"a": b"1"})]
    assert apply(machine, Committed(7, 1, 0.0)) == [Do(("answer",))]
    assert machine.is_clear


def test_what_comes_meanwhile_is_collected_into_one_commit(machine: Journal) -> None:
    apply(machine, recorded("a"), Withheld(1))
    assert apply(machine, recorded("b"), Withheld(2), recorded("c"), Withheld(3), recorded("b", None)) == []
    assert apply(machine, Committed(7, 1, 1.0)) == [Commit(7, 2, {"b": None, "c": b"1"}), Do((1,))]
    assert apply(machine, Committed(7, 2, 2.0)) == [Do((2, 3))]


def test_what_changes_nothing_keeps_its_place(machine: Journal) -> None:
    """A reader must not see what may be gone after a crash."""
    apply(machine, recorded("a"), Withheld("made"))
    assert apply(machine, Withheld("found")) == []
    apply(machine, recorded("b"))
    assert apply(machine, Withheld("after b")) == []
    assert apply(machine, Committed(7, 1, 0.0))[-1] == Do(("made", "found"))
    assert apply(machine, Committed(7, 2, 0.0)) == [Do(("after b",))]


def test_failed_commit_is_asked_for_again_by_its_number_until_it_is_there(machine: Journal) -> None:
    commit = apply(machine, recorded("a"), Withheld("answer"))
    assert apply(machine, Failed(7, 1, "the disk is full", 1.0), recorded("b", at_s=1.0)) == []
    assert machine.next_tick_s() == 1.0 + journal.RETRY_S
    assert "has failed 1 times" in machine.reason(3.0)
    assert "the disk is full" in machine.reason(3.0)
    assert apply(machine, Ticked(1.05)) == []
    assert apply(machine, Ticked(1.1)) == commit
    assert apply(machine, Failed(7, 1, "the disk is full", 2.0)) == []
    assert machine.next_tick_s() == 2.0 + 2 * journal.RETRY_S
    assert apply(machine, Ticked(3.0), Committed(7, 1, 3.0)) == [*commit, Commit(7, 2, {"b": b"1"}), Do(("answer",))]


def test_wait_between_tries_has_a_limit(machine: Journal) -> None:
    apply(machine, recorded())
    for second in range(0, 100, 10):
        apply(machine, Failed(7, 1, "no", float(second)), Ticked(second + 9.0))
    apply(machine, Failed(7, 1, "no", 100.0))
    assert machine.next_tick_s() == 100.0 + journal.RETRY_S_MAX


def test_answers_of_the_storage_that_come_late_or_twice_mean_nothing(machine: Journal) -> None:
    apply(machine, recorded("a"), Withheld(1), recorded("b"), Withheld(2))
    assert apply(machine, Committed(7, 2, 0.0)) == []
    apply(machine, Committed(7, 1, 0.0))
    assert apply(machine, Committed(7, 1, 0.0), Failed(7, 1, "late", 0.0)) == []
    assert machine.next_tick_s() is None


def test_whoever_has_lost_the_lease_does_nothing_more(machine: Journal) -> None:
    apply(machine, recorded(), Withheld("answer"))
    assert apply(machine, Fenced(7, "another one leads")) == [StepDown("another one leads")]
    late = [Committed(7, 1, 0.0), Withheld("more"), recorded(), Ticked(9.0), Fenced(7, "again")]
    assert apply(machine, *late) == []
    assert machine.reason(0.0) == "another one leads"


def test_commit_is_no_larger_than_storages_take(machine: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "WRITES_MAX", 2)
    apply(machine, recorded("a"))
    apply(machine, *(recorded(key) for key in "bcd"), Withheld("d"))
    assert apply(machine, Committed(7, 1, 0.0)) == [Commit(7, 2, {"b": b"1", "c": b"1"})]
    assert apply(machine, Committed(7, 2, 0.0)) == [Commit(7, 3, {"d": b"1"})]
    monkeypatch.setattr(journal, "BYTES_MAX", 10)
    apply(machine, recorded("e", b"123456789"), recorded("f", b"123456789"))
    assert apply(machine, Committed(7, 3, 0.0)) == [Commit(7, 4, {"e": b"123456789"}), Do(("d",))]


def test_writes_of_one_event_stay_together(machine: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "WRITES_MAX", 3)
    apply(machine, recorded("a"), recorded("b"), recorded("c"))
    apply(machine, Recorded({"x": b"", "y": b""}, 0.0))
    assert apply(machine, Committed(7, 1, 0.0)) == [Commit(7, 2, {"b": b"1", "c": b"1"})]
    assert apply(machine, Committed(7, 2, 0.0)) == [Commit(7, 3, {"x": b"", "y": b""})]


def test_too_much_that_waits_is_told(machine: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "WITHHELD_MAX", 3)
    apply(machine, recorded("a"), Withheld(1), Withheld(2))
    assert not machine.is_full
    apply(machine, recorded("b"))
    assert machine.is_full
    apply(machine, Committed(7, 1, 0.0))
    assert not machine.is_full


def test_while_the_lease_has_run_out_nothing_is_done_and_then_all_in_order(machine: Journal) -> None:
    """What was under way is asked for anew by the new lease: it may have happened, and is the same."""
    apply(machine, recorded("a"), Withheld(1))
    assert apply(machine, Paused("slow"), recorded("b"), Withheld(2), Failed(7, 1, "away", 5.0), Ticked(9.0)) == []
    assert machine.reason(9.0) == "may not act until it has its lease again: slow"
    assert apply(machine, Resumed(8, 9.0)) == [Commit(8, 1, {"a": b"1"})]
    assert apply(machine, Committed(7, 1, 9.0), Failed(7, 1, "late", 9.0), Fenced(7, "late")) == []
    assert apply(machine, Committed(8, 1, 9.0)) == [Commit(8, 2, {"b": b"1"}), Do((1,))]
    assert apply(machine, Committed(8, 2, 9.0)) == [Do((2,))]
    assert machine.reason(9.0) == ""


def test_what_depends_on_nothing_waits_as_well_while_the_lease_has_run_out(machine: Journal) -> None:
    assert apply(machine, Paused("slow"), Withheld(1), Withheld(2)) == []
    assert apply(machine, Resumed(8, 1.0)) == [Do((1, 2))]
    apply(machine, Paused("slow"), Withheld(3), recorded("a"), Withheld(4))
    assert apply(machine, Resumed(9, 1.0)) == [Commit(9, 1, {"a": b"1"})]
    assert apply(machine, Committed(9, 1, 1.0)) == [Do((3, 4))]


def test_lease_that_is_had_again_by_the_same_number_goes_on_counting(machine: Journal) -> None:
    apply(machine, recorded("a"), Committed(7, 1, 0.0), recorded("b"))
    assert apply(machine, Paused("slow"), Resumed(7, 1.0)) == [Commit(7, 2, {"b": b"1"})]
    apply(machine, Committed(7, 2, 1.0), Paused("slow"), Resumed(7, 1.0))
    assert apply(machine, recorded("c")) == [Commit(7, 3, {"c": b"1"})]
