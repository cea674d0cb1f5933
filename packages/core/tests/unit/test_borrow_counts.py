"""What an owner counts of those who borrow from it, in orders that several connections, or broken ones, bring about."""

from __future__ import annotations

import pytest

from umbel._objects import ownership, serialization

US, LENDER, BORROWER = (bytes([number]) * ownership.OWNER_ID_BYTES for number in (1, 2, 3))
OBJECT = US + bytes(12)


@pytest.fixture
def table() -> ownership.ReferenceTable:
    made = ownership.ReferenceTable(US)
    made.settle(made.own(OBJECT), serialization.RAW, 7)
    return made


def is_freed(table: ownership.ReferenceTable) -> bool:
    table.check()
    assert (OBJECT in table.records) != any(isinstance(one, ownership.Free) for one in table.commands)
    return OBJECT not in table.records


def test_a_release_may_overtake_its_grant(table: ownership.ReferenceTable) -> None:
    table.borrow_received(OBJECT, LENDER)
    table.drop_local(OBJECT)
    table.release_received(OBJECT, BORROWER, 1)
    assert not is_freed(table)
    table.borrow_received(OBJECT, BORROWER)
    assert not is_freed(table)
    table.release_received(OBJECT, LENDER, 1)
    assert is_freed(table)


@pytest.mark.parametrize("is_dropped_first", [True, False])
def test_a_release_of_a_grant_that_ended_with_a_connection_keeps_nothing(
    table: ownership.ReferenceTable, is_dropped_first: bool
) -> None:
    """A result that lends the object was under way to a process of another node when the owner's connection to that one broke,
    and both lived. Before: what it gave back was a grant that never came, and the value, or the actor, stayed for ever."""
    table.borrow_received(OBJECT, BORROWER)
    table.borrow_received(OBJECT, LENDER)
    table.borrower_gone(BORROWER)
    if is_dropped_first:
        table.drop_local(OBJECT)
    table.release_received(OBJECT, BORROWER, 1)
    assert not is_freed(table)
    table.release_received(OBJECT, LENDER, 1)
    if not is_dropped_first:
        table.drop_local(OBJECT)
    assert is_freed(table)


def test_the_end_of_one_borrower_leaves_what_others_have(table: ownership.ReferenceTable) -> None:
    for one in (LENDER, BORROWER):
        table.borrow_received(OBJECT, one)
    table.drop_local(OBJECT)
    table.borrower_gone(LENDER)
    assert not is_freed(table)
    table.borrower_gone(BORROWER)
    assert is_freed(table)
