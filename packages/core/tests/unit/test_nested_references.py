"""References in values that lie in each other, as events of the ownership table."""

from __future__ import annotations

import sys

import pytest

from umbel import exceptions
from umbel._objects import ownership, serialization
from umbel.testing.simulation import chance, processes
from umbel.testing.simulation import ownership as simulated

US = b"u" * ownership.OWNER_ID_BYTES
OTHER = b"o" * ownership.OWNER_ID_BYTES
PICKLE = serialization.PICKLE


@pytest.fixture
def table() -> ownership.ReferenceTable:
    return ownership.ReferenceTable(US)


def object_id(number: int, owner: bytes = US) -> bytes:
    return owner + number.to_bytes(12, "big")


def put(table: ownership.ReferenceTable, number: int, *contained: bytes) -> bytes:
    """An object of ours with these references in it, which nothing else here needs."""
    record = table.own(object_id(number))
    table.settle(record, PICKLE, number, contained)
    for one in contained:
        table.drop_local(one)
    return record.object_id


def freed(table: ownership.ReferenceTable) -> list[object]:
    return [one.payload for one in table.commands if isinstance(one, ownership.Free)]


def test_values_are_freed_however_many_lie_in_each_other(table: ownership.ReferenceTable) -> None:
    """Before: each was freed within the freeing of the one around it, as far as the stack had room, and the rest never."""
    count = 3 * sys.getrecursionlimit()
    outer = put(table, 0)
    for number in range(1, count):
        outer = put(table, number, outer)
    table.drop_local(outer)
    assert freed(table) == [*reversed(range(count))]
    assert not table.records


def test_what_one_value_contained_is_freed_before_what_the_next_one_did(table: ownership.ReferenceTable) -> None:
    first, second = put(table, 2, put(table, 1)), put(table, 4, put(table, 3))
    table.drop_local(put(table, 5, first, second))
    assert freed(table) == [5, 2, 1, 4, 3]


def test_what_something_else_needs_stays(table: ownership.ReferenceTable) -> None:
    inner = put(table, 1)
    table.add_local(inner)
    borrowed = object_id(9, OTHER)
    table.receive_granted([borrowed])
    table.add_local(borrowed)
    table.drop_local(put(table, 2, inner, borrowed))
    assert freed(table) == [2]
    assert [*table.records] == [inner]
    assert ownership.Release(OTHER, borrowed, 1) in table.commands


def test_a_value_of_a_dead_record_lets_go_of_all_that_it_contains(table: ownership.ReferenceTable) -> None:
    dead = ownership.Record(object_id(7))
    dead.is_dead = True
    first, second = put(table, 2, put(table, 1)), put(table, 3)
    for one in (first, second):
        table.pin(table.records[one])
        table.drop_local(one)
    table.settle(dead, PICKLE, 7, (first, second))
    assert freed(table) == [7]
    for one in (first, second):
        table.unpin(table.records[one])
    assert freed(table) == [7, 2, 1, 3]


@pytest.mark.parametrize("is_argument", [True, False])
def test_reading_a_reference_to_a_freed_object_of_ones_own_is_an_error(is_argument: bool) -> None:
    """It came back with a call whose caller was not counted, since its connection had broken. Before, as an argument: whoever
    read the object waited for ever."""
    world = simulated.OwnershipWorld(chance.Chance(1))
    with processes.surroundings(world):
        world.set_up()
        engine = world.peers[0].engine
        ref = engine.put("value")
        kind, payload, _ = engine.values.encode([ref])
        del ref
        engine._housekeeping()
        assert not engine.values.table.records
        found = engine.values.read(kind, payload, b"", None, [] if is_argument else None)
        with pytest.raises(exceptions.ObjectFreedError):
            engine.get(found, 0.0)
