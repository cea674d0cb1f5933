"""What may be said when: nothing that depends on a change of the records before the control storage has that.

The tables apply an event at once. What that changes of the records is `Recorded`, what it would have others told or do is
an effect that is `Withheld`: until all that was recorded before it is in the storage. So effects keep their order, and one
that comes while nothing is under way goes at once. One commit is under way at a time; what is recorded meanwhile is
collected, and goes with the next one. A commit that has failed, or of which nobody knows whether it has happened, is asked
for again by the same number, with the same writes, until it is there; `reason` says what is being waited for. While the lease
has run out nothing is done. If nobody has led when it is had again, all goes on; else everything withheld is void, as is
what the tables have: whoever leads does not know of it.

This module only decides. Effects are opaque; the shell does them in the order in which it is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from umbel._base import checks

WRITES_MAX = 20_000  # of a commit: a fifth of what storages take; SQLite needs a fifth of a second for so many
BYTES_MAX = 16 << 20  # of a commit, unless one change has more: a quarter of what storages take
WITHHELD_MAX = 100_000  # effects and writes; beyond, new requests are refused
RETRY_S = 0.1  # after the first failure, twice as long after each further one
RETRY_S_MAX = 2.0


# What has happened.


class Recorded(NamedTuple):
    """One event has changed these records. They go into one commit."""

    writes: Mapping[str, bytes | None]
    at_s: float


class Withheld(NamedTuple):
    """What that event, or one that changes nothing, would have done."""

    effect: Any


class Committed(NamedTuple):
    """fencing: as in Commit; so in those that follow."""

    fencing: int
    number: int
    at_s: float


class Failed(NamedTuple):
    """It may have happened all the same."""

    fencing: int
    number: int
    reason: str
    at_s: float


class Fenced(NamedTuple):
    """Another one has led since, or the storage can never take what it was given."""

    fencing: int
    reason: str


class Paused(NamedTuple):
    """The lease has run out, and maybe nobody has it."""

    reason: str


class Resumed(NamedTuple):
    """It is had again, by this or the next number: nobody has led meanwhile, and the records are as they were."""

    fencing: int
    at_s: float


class Ticked(NamedTuple):
    at_s: float


Event: TypeAlias = "Recorded | Withheld | Committed | Failed | Fenced | Paused | Resumed | Ticked"


# What to do.


class Commit(NamedTuple):
    """Answer with Committed, Failed or Fenced."""

    fencing: int
    number: int
    writes: Mapping[str, bytes | None]


class Do(NamedTuple):
    """In this order."""

    effects: tuple[Any, ...]


class StepDown(NamedTuple):
    """Act no more, at once."""

    reason: str


Command: TypeAlias = "Commit | Do | StepDown"


class Batch:
    """One commit, and what waits for it."""

    __slots__ = ("effects", "number", "size_bytes", "writes")

    def __init__(self) -> None:
        self.number = 0  # once it is under way
        self.writes: dict[str, bytes | None] = {}
        self.size_bytes = 0
        self.effects: list[Any] = []

    def has_room_for(self, writes: Mapping[str, bytes | None], size_bytes: int) -> bool:
        return len(self.writes) + len(writes) <= WRITES_MAX and self.size_bytes + size_bytes <= BYTES_MAX


class Journal:
    """The machine. `apply` takes what has happened and returns what to do."""

    def __init__(self, fencing: int) -> None:
        self.fencing = fencing
        self.ended = ""  # why nothing is done any more
        self.paused = ""  # why nothing is done for now
        self._number = 0  # of the last commit that was begun
        self._under_way: Batch | None = None
        self._collected: deque[Batch] = deque()
        self._withheld_count = 0
        self._since_s = 0.0  # when the commit that is under way was first asked for
        self._failure = ""
        self._failures = 0
        self._retry_at_s: float | None = None  # when to ask again for the commit that is under way

    @property
    def is_clear(self) -> bool:
        """Whether nothing is withheld."""
        return self._under_way is None and not self._collected

    @property
    def is_full(self) -> bool:
        return self._withheld_count > WITHHELD_MAX

    def reason(self, at_s: float) -> str:
        """What is waited for; "" for nothing."""
        if self.ended or self.paused:
            return self.ended or f"may not act until it has its lease again: {self.paused}"
        if self._under_way is None:
            return ""
        waiting = len(self._under_way.writes) + sum(len(batch.writes) for batch in self._collected)
        text = f"waits for the control storage to take {waiting} records, since {at_s - self._since_s:.1f} s"
        if self._failures:
            text += f"; it has failed {self._failures} times and is tried again: {self._failure}"
        return text

    def next_tick_s(self) -> float | None:
        return self._retry_at_s

    def apply(self, event: Event) -> list[Command]:
        if self.ended:
            return []
        if isinstance(event, Withheld):
            return self._withhold(event.effect)
        if isinstance(event, Recorded):
            return self._record(event)
        if isinstance(event, Paused):
            self.paused, self._retry_at_s = event.reason, None
            return []
        if isinstance(event, Resumed):
            return self._resume(event)
        if isinstance(event, (Committed, Failed, Fenced)) and event.fencing != self.fencing:
            return []  # of before a pause: it was asked for anew
        if isinstance(event, Committed):
            return self._committed(event)
        if isinstance(event, Failed):
            self._failed(event)
            return []
        if isinstance(event, Fenced):
            return self._end(event.reason)
        if self._retry_at_s is None or event.at_s < self._retry_at_s:
            return []
        self._retry_at_s = None
        return self._ask()

    def _record(self, event: Recorded) -> list[Command]:
        if not event.writes:
            return []
        size_bytes = sum(len(key) + len(value or b"") for key, value in event.writes.items())
        if not (self._collected and self._collected[-1].has_room_for(event.writes, size_bytes)):
            self._collected.append(Batch())
        batch = self._collected[-1]
        self._withheld_count -= len(batch.writes)
        batch.writes.update(event.writes)
        batch.size_bytes += size_bytes
        self._withheld_count += len(batch.writes)
        return self._begin(event.at_s)

    def _withhold(self, effect: Any) -> list[Command]:
        batch = self._collected[-1] if self._collected else self._under_way
        if batch is None and not self.paused:
            return [Do((effect,))]
        if batch is None:
            batch = Batch()
            self._collected.append(batch)
        batch.effects.append(effect)
        self._withheld_count += 1
        return []

    def _begin(self, at_s: float) -> list[Command]:
        """The next commit, if none is under way."""
        commands: list[Command] = []
        while self._collected and self._under_way is None and not self.paused:
            batch = self._collected.popleft()
            if not batch.writes:  # what came during a pause
                self._withheld_count -= len(batch.effects)
                commands.append(Do(tuple(batch.effects)))
                continue
            self._number += 1
            batch.number = self._number
            self._under_way, self._since_s = batch, at_s
            commands += self._ask()
        return commands

    def _resume(self, event: Resumed) -> list[Command]:
        if event.fencing != self.fencing:  # commits are counted anew
            self._number = 0 if self._under_way is None else 1
        self.fencing, self.paused = event.fencing, ""
        self._failure, self._failures = "", 0
        if self._under_way is None:
            return self._begin(event.at_s)
        self._under_way.number = self._number
        return self._ask()

    def _ask(self) -> list[Command]:
        batch = self._under_way
        return [Commit(self.fencing, batch.number, batch.writes)] if batch is not None else []

    def _committed(self, event: Committed) -> list[Command]:
        batch = self._under_way
        if batch is None or event.number != batch.number:
            return []  # told twice
        self._under_way = None
        self._withheld_count -= len(batch.writes) + len(batch.effects)
        self._failure, self._failures, self._retry_at_s = "", 0, None
        commands = self._begin(event.at_s)  # first: the storage works while the effects are done
        return [*commands, Do(tuple(batch.effects))] if batch.effects else commands

    def _failed(self, event: Failed) -> None:
        if self._under_way is None or event.number != self._under_way.number or self._retry_at_s is not None:
            return
        if self.paused:
            return  # it is asked for anew afterwards
        self._failure = event.reason
        self._retry_at_s = event.at_s + min(RETRY_S_MAX, RETRY_S * 2**self._failures)
        self._failures += 1

    def _end(self, reason: str) -> list[Command]:
        self.ended = reason
        self._under_way = None
        self._collected.clear()
        self._withheld_count = 0
        self._retry_at_s = None
        return [StepDown(reason)]

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        batches = [*([self._under_way] if self._under_way is not None else []), *self._collected]
        is_under_way = self._under_way is not None or self.paused
        checks.invariant(not self._collected or is_under_way, "collected, and nothing is under way")
        checks.invariant(not self.ended or not batches, "something is withheld by who acts no more")
        for batch in batches:
            checks.invariant(batch.writes or self.paused, "something is withheld for nothing", number=batch.number)
        count = sum(len(batch.writes) + len(batch.effects) for batch in batches)
        checks.invariant(count == self._withheld_count, "withheld is miscounted", count=count)
        checks.invariant(self._retry_at_s is None or self._under_way is not None, "nothing is tried again")
