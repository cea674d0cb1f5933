"""Whether an error was read by anybody goes with it when it is freed, as events of the ownership table."""

from __future__ import annotations

import pytest

from umbel._objects import ownership, serialization

US = b"u" * ownership.OWNER_ID_BYTES
OTHER = b"o" * ownership.OWNER_ID_BYTES
ID = US + b"\0" * 12
ERROR = serialization.ERROR


@pytest.fixture
def table() -> ownership.ReferenceTable:
    return ownership.ReferenceTable(US)


@pytest.mark.parametrize("is_read", [False, True])
def test_an_error_is_freed_with_whether_it_was_read(table: ownership.ReferenceTable, is_read: bool) -> None:
    record = table.own(ID)
    table.settle(record, ERROR, b"error")
    record.is_read = is_read
    table.drop_local(ID)
    assert table.commands == [ownership.Free(ERROR, b"error", is_read, ID)]


def test_an_error_that_comes_after_the_last_reference_went_is_unread(table: ownership.ReferenceTable) -> None:
    record = table.own(ID)
    table.drop_local(ID)
    assert table.commands == []
    table.settle(record, ERROR, b"error")
    assert table.commands == [ownership.Free(ERROR, b"error", False, ID)]


def test_an_error_that_somebody_borrows_is_freed_when_he_gives_it_back(table: ownership.ReferenceTable) -> None:
    record = table.own(ID)
    table.settle(record, ERROR, b"error")
    table.borrow_received(ID, OTHER)
    table.drop_local(ID)
    assert table.commands == []
    record.is_read = True  # he asked for the value
    table.release_received(ID, OTHER, 1)
    assert table.commands == [ownership.Free(ERROR, b"error", True, ID)]


def test_a_borrowed_error_is_its_owners_to_tell(table: ownership.ReferenceTable) -> None:
    borrowed = OTHER + b"\0" * 12
    record = table.add_local(borrowed)
    table.settle(record, ERROR, b"error")
    table.drop_local(borrowed)
    assert table.commands == []
