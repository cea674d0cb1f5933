"""Which values of one process are in memory, on disk, or both.

A process moves the values that it has written, and those it owns whose creator has died. A value that was moved is in a
file until it dies; it may be in memory as well, and then its memory is had back for nothing: *saved* ones, which were
written to a file but looked at when their memory was to go, and *copies*, which were read back. Copies are this
process's own; they stay when nobody looks at them any more, until room is wanted. This module only decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from umbel._base import checks


class Choice(NamedTuple):
    """What goes, each with its bytes. copies: segments of copies. saved, write: segments of values, the
    longest unused first."""

    copies: list[tuple[str, int]]
    saved: list[tuple[str, int]]
    write: list[tuple[str, int]]


class SpillBook:
    """stored: bytes of each value in memory that this process may move, by segment, in the order of their last use. The
    caller adds to it and takes from it."""

    def __init__(self, stored: dict[str, int]) -> None:
        self.stored = stored
        self.saved: dict[str, None] = {}
        self.gone: dict[str, None] = {}  # on disk only
        self.copies: dict[str, tuple[str, int]] = {}  # value's segment -> (segment of its copy here, bytes)

    def spillable_bytes(self, viewed: Collection[str]) -> int:
        """Of what nobody in this process looks at."""
        values = sum(size_bytes for name, size_bytes in list(self.stored.items()) if name not in viewed)
        return values + sum(size_bytes for name, size_bytes in self.copies.values() if name not in viewed)

    @property
    def live_bytes(self) -> int:
        return sum(list(self.stored.values())) + sum(size_bytes for _, size_bytes in self.copies.values())

    def used(self, names: Iterable[str]) -> None:
        """Others look at these now, so that they will not be the next to go."""
        for name in names:
            size_bytes = self.stored.pop(name, None)
            if size_bytes is not None:
                self.stored[name] = size_bytes

    def choose(self, size_bytes: int, *, kept: Collection[str]) -> Choice:
        """What to move for so many bytes of memory: what costs nothing first, then what was not used for
        longest.

        kept: segments that somebody looks at."""
        choice = Choice([], [], [])
        for name, bytes_ in self.copies.values():
            if size_bytes <= 0:
                return choice
            if name not in kept:
                choice.copies.append((name, bytes_))
                size_bytes -= bytes_
        stored = list(self.stored.items())
        for is_saved, chosen in ((True, choice.saved), (False, choice.write)):
            for name, bytes_ in stored:
                if size_bytes <= 0:
                    return choice
                if name not in kept and (name in self.saved) is is_saved:
                    chosen.append((name, bytes_))
                    size_bytes -= bytes_
        return choice

    def written(self, name: str) -> bool:
        """It is in a file now. False when it has died meanwhile, which the agent has to be told."""
        if name not in self.stored:
            return False
        self.saved[name] = None
        return True

    def evicted(self, name: str) -> None:
        """Its memory is gone."""
        checks.invariant(name in self.saved, "a value left memory and is in no file", segment=name)
        del self.stored[name]
        del self.saved[name]
        self.gone[name] = None

    def freed(self, name: str) -> bool:
        """It has died. Whether it was on disk, which the agent has to be told. The copy, if any: see `forget_copy`."""
        was_saved = self.saved.pop(name, 0) is None
        return self.gone.pop(name, 0) is None or was_saved

    def restored(self, name: str, copy: str, size_bytes: int) -> str | None:
        """Returns the segment of another copy, which the caller frees."""
        before = self.forget_copy(name)
        self.copies[name] = (copy, size_bytes)
        return before

    def forget_copy(self, name: str) -> str | None:
        """Returns the copy's segment, which the caller frees."""
        copy = self.copies.pop(name, None)
        return None if copy is None else copy[0]

    def copy_gone(self, copy: str) -> None:
        """The memory of a copy is wanted for something else."""
        self.copies = {name: found for name, found in self.copies.items() if found[0] != copy}

    def owner_gone(self, owner: str) -> None:
        """What it owned is dead; the agent knows."""
        for names in (self.saved, self.gone):
            for name in [name for name in names if name.split(".", 2)[1] == owner]:
                del names[name]

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        for name in self.saved:
            checks.invariant(name in self.stored, "a value is in memory and is not", segment=name)
        for name in self.gone:
            checks.invariant(name not in self.stored, "a value has left memory and has not", segment=name)
