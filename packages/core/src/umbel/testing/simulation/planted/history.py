"""Defects that the world `history` finds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from umbel._agent import spool
from umbel._history import retention, store
from umbel.testing.simulation.planted.defect import Planted, instead

_hand_over = spool.Spool.hand_over
_transaction = store.Store._transaction


def _tell_once(book: spool.Spool) -> tuple[int, list[spool.Entry]]:
    """Of what is lost a recorder is told that may die before it has written that down."""
    lost, entries = _hand_over(book)
    if lost:
        book.unconfirmed[-len(entries) - 1] = 0
    return lost, entries


@contextlib.contextmanager
def _apart(file: store.Store) -> Iterator[None]:
    """Each statement counts by itself, once there are tables: a batch is gone before its rows are there."""
    with contextlib.nullcontext() if file._value("PRAGMA user_version") else _transaction(file):
        yield


def _remove_newest(file: store.Store, what: retention.Removal) -> int:
    """What ended last goes first."""
    chosen = "(SELECT owner, seq, attempt FROM tasks ORDER BY ended DESC LIMIT ?)"
    sql = f"DELETE FROM tasks WHERE (owner, seq, attempt) IN {chosen}"
    return file._db.execute(sql, (what.oldest_count,)).rowcount


PLANTS: Final[Mapping[str, Planted]] = {
    "lost-told-once": instead("history", spool.Spool, "hand_over", _tell_once, "H1"),
    "no-transactions": instead("history", store.Store, "_transaction", _apart, "H"),
    "newest-removed": instead("history", store.Store, "_remove", _remove_newest, "H3"),
}
