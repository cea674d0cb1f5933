"""Defects that the world `borrows` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._client import links, reconnected, values
from umbel._objects import ownership
from umbel.testing.simulation.planted.defect import Planted, instead

_TABLE: Final = ownership.ReferenceTable
_peer_gone = values.Values.peer_gone
_told_borrows = ownership.ReferenceTable.told_borrows


def _given_up(objects: values.Values, peer: bytes, *, may_live: bool) -> None:
    """Whose connection breaks is taken for dead."""
    _peer_gone(objects, peer, may_live=False)


def _exact(table: ownership.ReferenceTable, borrower: bytes, grants: Mapping[bytes, int], at_s: float) -> bool:
    """What is on its way to the borrower does not count."""
    table._lent.clear()
    return _told_borrows(table, borrower, grants, at_s)


def _lavish(table: ownership.ReferenceTable, borrower: bytes, grants: Mapping[bytes, int], at_s: float) -> bool:
    """What the borrower does not have stays."""
    for record in table.records.values():
        if record.borrowers and borrower in record.borrowers:
            grants = {**grants, record.object_id: max(record.borrowers[borrower], grants.get(record.object_id, 0))}
    return _told_borrows(table, borrower, grants, at_s)


def _say_nothing(_values: values.Values, _link: links.Link) -> None:
    """Over a new connection things go on as if nothing had happened."""


def _again(table: ownership.ReferenceTable, object_id: bytes, borrower: bytes, **more: Any) -> bool:
    """A borrow that is asked for once more is another one."""
    return table._enter(object_id, borrower, more.get("lender") or borrower, more.get("at_s", 0.0))


PLANTS: Final[Mapping[str, Planted]] = {
    "broken-is-dead": instead("borrows", values.Values, "peer_gone", _given_up, "O7", "O11", "O13"),
    "under-way-forgotten": instead("borrows", _TABLE, "told_borrows", _exact, "O7", "O8", "O11"),
    "lost-release-kept": instead("borrows", _TABLE, "told_borrows", _lavish, "O2", "O9", "O11"),
    "nothing-said-again": instead("borrows", reconnected, "say_all", _say_nothing, "O7", "O8", "O11", "O12", "O13"),
    "asked-twice-entered-twice": instead("borrows", _TABLE, "borrow_received", _again, "O11"),
}
