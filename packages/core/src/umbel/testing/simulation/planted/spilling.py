"""Defects that the world `spilling` finds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from umbel._agent import spill_ledger, store_ledger
from umbel._objects import spill_book
from umbel.testing.simulation.planted.defect import Planted, instead
from umbel.testing.simulation.processes import attribute

_client_gone = spill_ledger.SpillLedger.client_gone


_written = spill_ledger.SpillLedger.written


_ledger_tick = store_ledger.StoreLedger.tick


def _ask_no_owner(book: spill_ledger.SpillLedger, client: str) -> list[Any]:
    """What a creator that died had still to say of its values is never asked for."""
    return [command for command in _client_gone(book, client) if not isinstance(command, spill_ledger.AskOwner)]


def _write_nothing_down(
    _book: spill_ledger.SpillLedger, _client: str, _file: str, _entries: Any, _living: Any
) -> list[Any]:
    """A file's values are not entered."""
    return []


def _give_up_all(book: spill_ledger.SpillLedger, client: str, _file: str) -> None:
    """The end of one order is taken for the end of all that its client has."""
    book._writing = {file: writer for file, writer in book._writing.items() if writer != client}


def _refuse_no_file(book: spill_ledger.SpillLedger, *what: Any) -> list[Any]:
    """A file that was given up is not entered, and its writer believes that it is."""
    return _written(book, *what) or []


@contextlib.contextmanager
def _mixed_up() -> Iterator[None]:
    ledger_ = spill_ledger.SpillLedger
    with attribute(ledger_, "given_up", _give_up_all), attribute(ledger_, "written", _refuse_no_file):
        yield


def _die_unsaid(book: spill_book.SpillBook, name: str) -> bool:
    """Nobody is told of the death of a value on disk."""
    book.saved.pop(name, None)
    book.gone.pop(name, None)
    return False


def _refuse_nobody(book: store_ledger.StoreLedger, *, at_s: float) -> list[Any]:
    """A request for room waits for ever."""
    book.has_hope(at_s=at_s)
    return _ledger_tick(book, at_s=at_s)


PLANTS: Final[Mapping[str, Planted]] = {
    "owner-unasked": instead("spilling", spill_ledger.SpillLedger, "client_gone", _ask_no_owner, "S6"),
    "spilled-unwritten": instead("spilling", spill_ledger.SpillLedger, "written", _write_nothing_down, "S4", "S6"),
    "orders-mixed-up": Planted("spilling", _mixed_up, ("S4", "S6")),
    "death-unsaid": instead("spilling", spill_book.SpillBook, "freed", _die_unsaid, "S6"),
    "refuses-nobody": instead("spilling", store_ledger.StoreLedger, "tick", _refuse_nobody, "R2", "S5"),
}
