"""Defects that the world `graphs` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._client.graphs import backends, channels, executions, loop, ring
from umbel._objects import segments
from umbel.testing.simulation.planted.defect import Planted, instead


def _read_ahead(side: ring.ReaderSide, written: int) -> bool:
    """A reader takes what is not written yet."""
    return written >= side.read


class _Unremoved:
    """`segments` for who has a file removed, and does not."""

    name_of = staticmethod(segments.name_of)

    @staticmethod
    def remove(_path: str) -> None:
        """It stays."""


def _begin_one_more(book: executions.Executions) -> int | None:
    """One execution more is in flight than may be."""
    if book.in_flight > book.in_flight_max:
        return None
    book.submitted += 1
    return book.submitted - 1


def _take_any(book: executions.Executions, _execution: int, _output: int) -> Any:
    """A reference gets whichever result came first."""
    return book._buffered.pop(next(iter(book._buffered)))


def _keep_unsent(_loop: loop._Loop, _step: Any, value: Any, senders: list[channels.Sender]) -> None:
    """A message that the end of the graph has kept from being sent keeps its segment."""
    message = channels.encode(value, _loop._memory.slot_bytes, _loop._engine)
    for sender in senders:
        sender.send(message)


def _close_in_silence(memory: channels.Memory) -> None:
    """Nobody is woken when the channels are closed."""
    memory.halves[0] = 1


def _let_go_at_once(sender: channels.Sender, *, of_all: bool = False) -> None:
    """What a message needs goes before its reader has it."""
    while sender._kept:
        _, kept = sender._kept.popleft()
        if isinstance(kept, channels.Lent):
            kept.give_back()


def _look_at_no_actor(backend: backends.Channels) -> None:
    """The death of an actor goes unnoticed."""
    backend.check_open()


PLANTS: Final[Mapping[str, Planted]] = {
    "reads-ahead": instead("graphs", ring.ReaderSide, "may_read", _read_ahead, "X1", "X4", "R1"),
    "one-too-many": instead(
        "graphs",
        executions.Executions,
        "submit",
        _begin_one_more,
        "a channel has no room",
        "internal error in the loop of a compiled graph",
        "R1",
        "X",
    ),
    "any-result": instead("graphs", executions.Executions, "take", _take_any, "X1", "X3", "result"),
    "unsent-kept": instead("graphs", loop._Loop, "_send", _keep_unsent, "X5"),
    "segment-free-at-once": instead("graphs", channels.Sender, "let_go", _let_go_at_once, "X"),
    "name-kept": instead("graphs", backends, "segments", _Unremoved, "X6"),
    "closed-in-silence": instead("graphs", channels.Memory, "close", _close_in_silence, "X7"),
    "death-of-actor-unseen": instead("graphs", backends.Channels, "check", _look_at_no_actor, "R2", "X4"),
}
