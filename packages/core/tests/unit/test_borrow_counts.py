"""What an owner counts of those who borrow from it, in orders that several connections, or broken ones, bring about."""

from __future__ import annotations

import pytest

from umbel._objects import ownership, serialization

# The tag of a node is in the middle: the first three are on one node, the others on one each.
US, LENDER, BORROWER, FAR, FAR_LENDER = (
    bytes([number]) * 4 + bytes([node]) * 6 + bytes([number]) * 6
    for number, node in ((1, 0), (2, 0), (3, 0), (4, 1), (5, 2))
)
OBJECT, OTHER = US + bytes(12), US + bytes(11) + b"\1"


@pytest.fixture
def table() -> ownership.ReferenceTable:
    made = ownership.ReferenceTable(US)
    made.settle(made.own(OBJECT), serialization.RAW, 7)
    return made


def borrowing() -> ownership.ReferenceTable:
    return ownership.ReferenceTable(FAR)


def is_freed(table: ownership.ReferenceTable) -> bool:
    table.check()
    assert (OBJECT in table.records) != any(isinstance(one, ownership.Free) for one in table.commands)
    return OBJECT not in table.records


def taken(table: ownership.ReferenceTable) -> list[ownership.Free | ownership.Borrow | ownership.Release]:
    commands, table.commands = table.commands, []
    return commands


def grants(table: ownership.ReferenceTable, borrower: bytes) -> int:
    return (table.records[OBJECT].borrowers or {}).get(borrower, 0)


def test_a_release_leaves_the_grant_that_was_entered_meanwhile(table: ownership.ReferenceTable) -> None:
    for _ in range(2):
        table.borrow_received(OBJECT, BORROWER)
    table.drop_local(OBJECT)
    table.release_received(OBJECT, BORROWER, 1)
    assert not is_freed(table)
    table.release_received(OBJECT, BORROWER, 1)
    assert is_freed(table)


def test_who_gives_back_more_than_it_has_does_not_lose_what_it_borrows_later(table: ownership.ReferenceTable) -> None:
    """It had been given up, and was alive. Before: its count was -1, which took the next grant with it."""
    table.borrow_received(OBJECT, BORROWER)
    table.borrow_received(OBJECT, LENDER)
    table.borrower_gone(BORROWER)
    table.release_received(OBJECT, BORROWER, 1)
    table.borrow_received(OBJECT, BORROWER)
    table.drop_local(OBJECT)
    table.release_received(OBJECT, LENDER, 1)
    assert not is_freed(table)
    table.release_received(OBJECT, BORROWER, 1)
    assert is_freed(table)


def test_the_end_of_one_borrower_leaves_what_others_have(table: ownership.ReferenceTable) -> None:
    for one in (LENDER, BORROWER):
        table.borrow_received(OBJECT, one)
    table.drop_local(OBJECT)
    table.borrower_gone(LENDER)
    assert not is_freed(table)
    table.borrower_gone(BORROWER)
    assert is_freed(table)


# ---- what is said again after a connection broke ----


def test_a_borrow_that_was_lost_counts_when_all_borrows_are_said(table: ownership.ReferenceTable) -> None:
    table.borrow_received(OBJECT, LENDER)
    table.drop_local(OBJECT)
    assert not table.told_borrows(FAR, {OBJECT: 1}, at_s=0.0)
    table.release_received(OBJECT, LENDER, 1)
    assert not is_freed(table)
    assert not table.told_borrows(FAR, {OBJECT: 1}, at_s=0.0)  # once more
    table.release_received(OBJECT, FAR, 1)
    assert is_freed(table)


def test_a_release_that_was_lost_is_made_up_for(table: ownership.ReferenceTable) -> None:
    table.borrow_received(OBJECT, FAR)
    table.drop_local(OBJECT)
    assert not is_freed(table)
    assert not table.told_borrows(FAR, {}, at_s=0.0)
    assert is_freed(table)


def test_what_was_lent_lately_is_kept_until_it_must_have_arrived(table: ownership.ReferenceTable) -> None:
    """A lender's result is on its way while the borrower, which knows nothing of it, says what it has."""
    table.borrow_received(OBJECT, FAR, lender=LENDER, number=1, at_s=1.0)
    table.drop_local(OBJECT)
    assert table.told_borrows(FAR, {}, at_s=2.0)
    assert not is_freed(table)
    assert not table.told_borrows(FAR, {}, at_s=1.0 + ownership.UNDER_WAY_S)
    assert is_freed(table)


def test_what_has_arrived_of_what_was_lent_lately_stays(table: ownership.ReferenceTable) -> None:
    table.borrow_received(OBJECT, FAR, lender=LENDER, number=1, at_s=1.0)
    table.drop_local(OBJECT)
    assert table.told_borrows(FAR, {}, at_s=2.0)
    assert not table.told_borrows(FAR, {OBJECT: 1}, at_s=1.0 + ownership.UNDER_WAY_S)
    assert not is_freed(table)
    table.release_received(OBJECT, FAR, 1)
    assert is_freed(table)


def test_what_the_owner_itself_has_lent_lately_is_kept_as_well(table: ownership.ReferenceTable) -> None:
    assert table.lend_result([OBJECT], FAR, 1.0) == []
    table.drop_local(OBJECT)
    assert table.told_borrows(FAR, {}, at_s=2.0)
    assert not is_freed(table)


def test_what_another_one_contains_is_kept_though_that_goes(table: ownership.ReferenceTable) -> None:
    """The borrower has given back the outer value and kept what was in it; the word of neither has come."""
    table.settle(table.own(OTHER), serialization.PICKLE, b"", [OBJECT])
    table.borrow_received(OTHER, FAR)
    table.drop_local(OBJECT)
    table.drop_local(OTHER)
    table.told_borrows(FAR, {OBJECT: 1}, at_s=0.0)
    assert OTHER not in table.records
    assert grants(table, FAR) == 1


def test_a_borrow_for_another_one_that_is_asked_for_again_is_entered_once(table: ownership.ReferenceTable) -> None:
    """Its acknowledgement was lost with the connection."""
    for number in (1, 1, 2):
        table.borrow_received(OBJECT, BORROWER, lender=FAR_LENDER, number=number, at_s=0.0)
    assert grants(table, BORROWER) == 2


def test_all_that_a_process_borrows_is_said_with_what_is_not_acknowledged() -> None:
    table = borrowing()
    table.found_in_value(OBJECT, None)
    table.lend_result([OTHER], FAR_LENDER, 0.0)
    assert taken(table) == [ownership.Borrow(US, OBJECT, FAR, 1), ownership.Borrow(US, OTHER, FAR_LENDER, 2)]
    assert table.borrows_of(US, []) == [(OBJECT, 1)]
    assert table.unacknowledged(US, []) == [
        ownership.Borrow(US, OBJECT, FAR, 1),
        ownership.Borrow(US, OTHER, FAR_LENDER, 2),
    ]
    table.acknowledged(OBJECT)
    assert table.unacknowledged(US, []) == [ownership.Borrow(US, OTHER, FAR_LENDER, 2)]
    assert table.borrows_of(FAR_LENDER, []) == []


def test_what_will_be_said_anyway_is_left_out() -> None:
    """A new link begins in the middle of commands: the owner adds what they say to what it was told."""
    table = borrowing()
    table.found_in_value(OBJECT, None)
    taken(table)
    table.acknowledged(OBJECT)
    table.drop_local(OBJECT)
    table.found_in_value(OTHER, None)
    unsent = taken(table)
    assert unsent == [ownership.Release(US, OBJECT, 1), ownership.Borrow(US, OTHER, FAR, 2)]
    assert table.borrows_of(US, unsent) == [(OBJECT, 1)]
    assert table.unacknowledged(US, unsent) == []


def test_a_borrow_that_was_given_back_before_it_was_acknowledged_is_not_said() -> None:
    table = borrowing()
    table.found_in_value(OBJECT, None)
    table.drop_local(OBJECT)
    taken(table)
    assert table.borrows_of(US, []) == []
    assert [borrow.object_id for borrow in table.unacknowledged(US, [])] == [OBJECT]
