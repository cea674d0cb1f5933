"""How much of the node's shared memory each process may use.

Processes reserve quota before they allocate pages and give it back when they have removed files. When nothing is free,
a request waits while everybody is asked to give back what is only kept warm, and while values are moved to disk
(`spill_orders`); if that does not help in time it is refused with the biggest holders. What a dead process has left
behind stays counted until its files are gone, and what others have taken of the same file system is not there to be
granted. This module only decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from umbel._base import checks

ASK_AGAIN_S = 0.1  # what is freed is kept warm: a process asked a moment ago may have something to give back now
FULL_WAIT_S = 5.0  # longer than other processes need to notice that references are gone, shorter than patience


class Grant(NamedTuple):
    """Answer a request: the client may use so many bytes, at least one and perhaps fewer than it asked for."""

    client: str
    request: int
    granted_bytes: int


class Refuse(NamedTuple):
    """Answer a request: the store is full. holders: (client, bytes), the biggest first."""

    client: str
    request: int
    asked_bytes: int
    holders: tuple[tuple[str, int], ...]


class AskTrim(NamedTuple):
    """Ask a client to give back what it does not use."""

    client: str


StoreCommand = Grant | Refuse | AskTrim


class _Waiting(NamedTuple):
    client: str
    request: int
    asked_bytes: int
    deadline_s: float


class StoreLedger:
    """The machine; one method for each event. Times are seconds of one monotonic clock."""

    def __init__(self, capacity_bytes: int, *, full_wait_s: float = FULL_WAIT_S) -> None:
        self.capacity_bytes = capacity_bytes
        self.held: dict[str, int] = {}  # by client, without zeros
        self.left_behind: dict[str, int] = {}  # by dead client: its files that are still there
        self.wanting_bytes = 0  # of the capacity: others have taken them of the file system
        self._granted_bytes = 0  # since that was measured
        self._full_wait_s = full_wait_s
        self._waiting: deque[_Waiting] = deque()
        self._ask_at_s = 0.0  # when holders are asked to trim again, while somebody waits
        self._short: set[str] = set()  # clients whose last grant was less than they had asked for

    @property
    def used_bytes(self) -> int:
        return sum(self.held.values()) + sum(self.left_behind.values())

    @property
    def free_bytes(self) -> int:
        return self.capacity_bytes - self.wanting_bytes - self.used_bytes

    @property
    def waiting_bytes(self) -> int:
        """Asked for, and not granted yet."""
        return sum(one.asked_bytes for one in self._waiting)

    @property
    def waiting_clients(self) -> set[str]:
        return {one.client for one in self._waiting}

    def reserve(self, client: str, request: int, asked_bytes: int, *, at_s: float) -> list[StoreCommand]:
        """asked_bytes: > 0. Requests are served in the order in which they came, but who got less than he asked for last
        time goes on collecting first: or many would hold a part each, and none enough."""
        waiting = _Waiting(client, request, asked_bytes, at_s + self._full_wait_s)
        if client in self._short:
            self._waiting.appendleft(waiting)
        else:
            self._waiting.append(waiting)
        commands = self._serve()
        if waiting in self._waiting:
            commands += self._ask_all(at_s)
        return commands

    def _ask_all(self, at_s: float) -> list[StoreCommand]:
        """Also who waits: he may keep something warm himself."""
        self._ask_at_s = at_s + ASK_AGAIN_S
        return [AskTrim(holder) for holder in self.held]

    def release(self, client: str, size_bytes: int) -> list[StoreCommand]:
        left = self.held.get(client, 0) - size_bytes
        checks.invariant(
            left >= 0, "a process gave back more of the store than it had", client=client, bytes=size_bytes
        )
        if left:
            self.held[client] = left
        else:
            self.held.pop(client, None)
        return self._serve()

    def client_gone(self, client: str, *, left_bytes: int) -> list[StoreCommand]:
        """left_bytes: of its files, which others may still use."""
        self.held.pop(client, None)
        self._waiting = deque(one for one in self._waiting if one.client != client)
        self._short.discard(client)
        return self.measured({**self.left_behind, client: left_bytes})

    def measured(self, left_behind: Mapping[str, int]) -> list[StoreCommand]:
        """What the dead have left behind now, by client."""
        self.left_behind = {client: size for client, size in left_behind.items() if size}
        return self._serve()

    def may_want(self, asked_bytes: int, system_free_bytes: int) -> bool:
        """Whether the file system may not have what is to be granted, as it may lack what was granted and is not taken yet."""
        return self.wanting_bytes > 0 or system_free_bytes < asked_bytes + self._granted_bytes

    def system_measured(self, free_bytes: int, own_bytes: int) -> list[StoreCommand]:
        """free_bytes: of the file system. own_bytes: of it, taken by this node's store."""
        there_bytes = free_bytes + min(own_bytes, self.used_bytes)
        self.wanting_bytes = max(0, self.capacity_bytes - there_bytes)
        self._granted_bytes = 0
        return self._serve()

    def has_hope(self, *, at_s: float) -> None:
        """Room is being made: nobody who waits is refused for another `full_wait_s`."""
        until_s = at_s + self._full_wait_s
        self._waiting = deque(one._replace(deadline_s=max(one.deadline_s, until_s)) for one in self._waiting)

    def next_tick_s(self) -> float | None:
        if not self._waiting:
            return None
        return min(self._ask_at_s, *(one.deadline_s for one in self._waiting))

    def tick(self, *, at_s: float) -> list[StoreCommand]:
        commands: list[StoreCommand] = [
            self._refuse(waiting) for waiting in [one for one in self._waiting if one.deadline_s <= at_s]
        ]
        if self._waiting and self._ask_at_s <= at_s:
            commands += self._ask_all(at_s)
        return commands

    def refuse_last(self) -> list[StoreCommand]:
        """Those who wait hold what the others wait for: whoever came last gives up, and what he holds."""
        return [self._refuse(self._waiting[-1])] if self._waiting else []

    def _refuse(self, waiting: _Waiting) -> Refuse:
        self._waiting.remove(waiting)
        self._short.discard(waiting.client)
        holders = sorted([*self.held.items(), *self.left_behind.items()], key=lambda pair: -pair[1])
        return Refuse(waiting.client, waiting.request, waiting.asked_bytes, tuple(holders))

    def _serve(self) -> list[StoreCommand]:
        commands: list[StoreCommand] = []
        free = self.free_bytes
        while self._waiting and free > 0:
            waiting = self._waiting.popleft()
            granted = min(free, waiting.asked_bytes)
            free -= granted
            self._granted_bytes += granted
            if granted < waiting.asked_bytes:
                self._short.add(waiting.client)
            else:
                self._short.discard(waiting.client)
            self.held[waiting.client] = self.held.get(waiting.client, 0) + granted
            commands.append(Grant(waiting.client, waiting.request, granted))
        return commands

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        for client, size in [*self.held.items(), *self.left_behind.items()]:
            checks.invariant(size > 0, "a holder of nothing", client=client)
        if not self.left_behind and not self.wanting_bytes:
            checks.invariant(
                self.free_bytes >= 0, "more of the store is handed out than there is", free=self.free_bytes
            )
        checks.invariant(not self._waiting or self.free_bytes <= 0, "a request waits although there is room")
