"""The copies of other nodes' values that are here, and the files of dead ones, which are kept warm for the next. For `pulls`.

A copy is kept for those who look at it, and for a while after that for whoever wants it next. What comes free of its room is said
with the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from umbel._agent.pull_commands import Deliver, Discard, Drop, Keep, PullCommand, Withdraw
from umbel._objects import segments

WARM_BYTES_MAX = 1 << 30  # of dead copies' pages kept for the next, into which twice as many bytes go in a second
WARM_S = 5.0  # as long as a process keeps its own
KEPT_S = 30.0  # a copy that nobody here wants any more, for whoever wants it next; sooner if somebody wants the room

Freed = tuple[list[PullCommand], int]  # commands, and the bytes of room that they free


class Copy:
    __slots__ = ("idle_since_s", "is_dead", "room_bytes", "size_bytes", "users")

    def __init__(self, size_bytes: int, room_bytes: int, users: Iterable[str]) -> None:
        self.size_bytes = size_bytes
        self.room_bytes = room_bytes
        self.users = dict.fromkeys(users)
        self.is_dead = False
        self.idle_since_s = 0.0  # without users


class Warm(NamedTuple):
    """The file of a dead copy."""

    room_bytes: int
    since_s: float


class Copies:
    """Those of one node."""

    def __init__(self, is_lent: Callable[[str], bool]) -> None:
        """is_lent: whether a copy may be being sent to another node just now."""
        self._is_lent = is_lent
        self.held: dict[str, Copy] = {}  # the one that was used longest ago first
        self.warm: dict[int, Warm] = {}  # by number
        self._count = 0

    def use(self, object_id: str, asker: str) -> list[PullCommand]:
        """Of a copy that lives."""
        copy = self.held[object_id] = self.held.pop(object_id)
        copy.users[asker] = None
        return [Deliver(object_id, (asker,))]

    def unused(self, object_id: str, asker: str, at_s: float) -> Freed:
        """He looks at it no more, if he did."""
        copy = self.held[object_id]
        if asker in copy.users:
            del copy.users[asker]
            copy.idle_since_s = at_s
        return self._retire(object_id, at_s) if copy.is_dead and not copy.users else ([], 0)

    def freed(self, object_id: str, at_s: float) -> Freed:
        """The value is dead. Whoever looks at the copy may go on."""
        copy = self.held[object_id]
        copy.is_dead = True
        return ([Withdraw(object_id)], 0) if copy.users else self._retire(object_id, at_s)

    def give_back(self) -> Freed:
        """What is only kept goes."""
        return self._remove([*self.warm], [one for one, copy in self.held.items() if not copy.users])

    def expire(self, at_s: float) -> Freed:
        idle = [number for number, one in self.warm.items() if at_s >= one.since_s + WARM_S]
        unused = [one for one, copy in self.held.items() if not copy.users and at_s >= copy.idle_since_s + KEPT_S]
        return self._remove(idle, unused)

    def next_tick_s(self) -> float | None:
        due = [one.since_s + WARM_S for one in self.warm.values()]
        due += [copy.idle_since_s + KEPT_S for copy in self.held.values() if not copy.users]
        return min(due, default=None)

    @property
    def idle_bytes(self) -> int:
        """What `give_back` does."""
        unused_bytes = sum(copy.room_bytes for copy in self.held.values() if not copy.users)
        return unused_bytes + sum(one.room_bytes for one in self.warm.values())

    @property
    def room_bytes(self) -> int:
        """Of all that is here."""
        return sum(copy.room_bytes for copy in self.held.values()) + sum(one.room_bytes for one in self.warm.values())

    def fitting(self, size_bytes: int, room_bytes: int) -> int | None:
        """A file that was kept and has about the size."""
        largest_bytes = segments.class_bytes(size_bytes)
        fitting = (number for number, one in self.warm.items() if room_bytes <= one.room_bytes <= largest_bytes)
        return next(fitting, None)

    def _retire(self, object_id: str, at_s: float) -> Freed:
        """The copy is dead, and nobody looks at it: its file is kept for another, if it is not sent to anybody."""
        room_bytes = self.held[object_id].room_bytes
        warm_bytes = sum(one.room_bytes for one in self.warm.values())
        if self._is_lent(object_id) or warm_bytes + room_bytes > WARM_BYTES_MAX:
            return self._remove([], [object_id])
        del self.held[object_id]
        self._count += 1
        self.warm[self._count] = Warm(room_bytes, at_s)
        return [Withdraw(object_id), Keep(object_id, self._count)], 0

    def _remove(self, numbers: Iterable[int], object_ids: Iterable[str]) -> Freed:
        commands: list[PullCommand] = []
        freed_bytes = 0
        for object_id in object_ids:
            freed_bytes += self.held.pop(object_id).room_bytes
            commands += (Withdraw(object_id), Drop(object_id))
        for number in numbers:
            freed_bytes += self.warm.pop(number).room_bytes
            commands.append(Discard(number))
        return commands, freed_bytes
