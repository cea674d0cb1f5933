"""Defects that the world `ownership` finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from umbel._objects import ownership
from umbel.testing.simulation.planted.defect import Planted, instead

_found_in_value = ownership.ReferenceTable.found_in_value


_task_ended = ownership.ReferenceTable.task_ended


_maybe_free = ownership.ReferenceTable._maybe_free


def _unprotected(table: ownership.ReferenceTable, object_id: bytes, _outer: Any) -> ownership.Record:
    """The value that a reference was read from may go before the owner knows of the borrow."""
    return _found_in_value(table, object_id, None)


def _hasty(table: ownership.ReferenceTable, argument_ids: Iterable[bytes], submitter: bytes) -> list[bytes]:
    """A reply waits for nobody."""
    _task_ended(table, argument_ids, submitter)
    return []


def _careless(table: ownership.ReferenceTable, record: ownership.Record) -> None:
    """What others borrow is freed with the owner's last reference."""
    if not (record.local or record.pins):
        record.borrowers = None
    _maybe_free(table, record)


_TABLE: Final = ownership.ReferenceTable


PLANTS: Final[Mapping[str, Planted]] = {
    "unprotected-borrow": instead("ownership", _TABLE, "found_in_value", _unprotected, "O7"),
    "reply-before-ack": instead("ownership", _TABLE, "task_ended", _hasty, "O7", "O8"),
    "careless-owner": instead("ownership", _TABLE, "_maybe_free", _careless, "O7", "O8"),
    "grants-not-counted": instead("ownership", _TABLE, "receive_granted", lambda *_: None, "O7", "O11"),
}
