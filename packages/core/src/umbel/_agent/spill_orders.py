"""When values are moved from shared memory to disk, and by whom.

While somebody waits for room, or when values fill more than `high_water` of the store, all processes are asked what
they could move and what they look at. Then those that have most are ordered to move as much as is wanted: what others
look at they leave, since its memory would not come free. Orders that bring nothing are given again only after a while,
for what is looked at changes. A disk that refuses is left alone for `RETRY_S`. This module only decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from umbel._base import checks

ANSWER_S = 0.3  # a process answers within milliseconds, unless it holds the interpreter's lock in C
ORDER_S = 30.0  # 100 MB take a second on a slow disk and ten on a slow network; who needs longer is stuck
LOOK_AGAIN_S = 1.0  # while the store is over its high-water mark and nobody waits
ASK_AGAIN_S = 0.1  # while somebody waits and nothing could be moved
RETRY_S = 5.0  # after a disk has refused: somebody may make room there, but not at once
STUCK_S = 0.5  # five rounds in which nothing changed: no view ends by itself in a process that waits for room
MARGIN = 0.1  # of the store: so far below the mark it is brought, or each new value would mean an order


class Ask(NamedTuple):
    """Ask a client what it holds and looks at."""

    client: str
    round: int


class Spill(NamedTuple):
    """Order a client to move values of so many bytes. kept: the segments that others look at."""

    client: str
    order: int
    size_bytes: int
    kept: tuple[str, ...]


OrderCommand = Ask | Spill


class Report(NamedTuple):
    """What a client holds. viewed: the segments that it looks at, and their bytes."""

    live_bytes: int
    spillable_bytes: int
    viewed: Mapping[str, int]


class _Order(NamedTuple):
    number: int
    deadline_s: float


class SpillOrders:
    """The machine; one method for each event. Times are seconds of one monotonic clock."""

    def __init__(self, capacity_bytes: int, *, high_water: float, batch_bytes: int, is_enabled: bool = True) -> None:
        """high_water: a share of the capacity. batch_bytes: what an order is for at least, so that small values share a
        file."""
        self._high_bytes = int(capacity_bytes * high_water)
        self._low_bytes = max(0, int(capacity_bytes * (high_water - MARGIN)))
        # Of a small store, one order must not empty all of it.
        self._batch_bytes = max(1, min(batch_bytes, capacity_bytes // 8))
        self.is_enabled = is_enabled
        self.has_asked = False  # ever
        self.error = ""  # why the last order failed
        self.is_disk_full = False  # that is why
        self.reports: dict[str, Report] = {}
        self._round = 0
        self._awaited: dict[str, None] = {}  # clients that have not answered yet
        self._answer_by_s = 0.0
        self._orders: dict[str, _Order] = {}
        self._order_count = 0
        self._waiting_bytes = 0
        self._used_bytes = 0
        self._look_at_s = 0.0  # not earlier, while nobody waits
        self._try_at_s = 0.0  # not earlier, while somebody waits
        self._nothing_since_s: float | None = None  # somebody has waited, and nobody had anything to move

    @property
    def is_working(self) -> bool:
        """Whether somebody is moving values now, so that those who wait have something to wait for."""
        return bool(self._orders)

    def is_stuck(self, waiting: Collection[str], *, at_s: float) -> bool:
        """Whether everybody who looks at something waits for room himself, so that none will come free. waiting:
        clients."""
        return (
            self._nothing_since_s is not None
            and at_s >= self._nothing_since_s + STUCK_S
            and len(waiting) > 1
            and all(client in waiting for client, report in self.reports.items() if report.viewed)
        )

    def needed(
        self, *, waiting_bytes: int, used_bytes: int, clients: Callable[[], Iterable[str]], at_s: float
    ) -> list[OrderCommand]:
        """Called after every change. waiting_bytes: wanted and not there. used_bytes: what processes have reserved.
        clients: whom to ask."""
        self._waiting_bytes = waiting_bytes
        self._used_bytes = used_bytes
        if not waiting_bytes:
            self._nothing_since_s = None
        if not self.is_enabled or self._awaited or self._orders:
            return []
        if waiting_bytes:
            if at_s < self._try_at_s:
                return []
        elif used_bytes <= self._high_bytes or at_s < max(self._look_at_s, self._try_at_s):
            return []
        return self._ask_all(clients(), at_s)

    def _ask_all(self, clients: Iterable[str], at_s: float) -> list[OrderCommand]:
        self._round += 1
        self.has_asked = True
        self.reports = {}
        self._awaited = dict.fromkeys(clients)
        self._answer_by_s = at_s + ANSWER_S
        return [Ask(client, self._round) for client in self._awaited]

    def told(self, client: str, round_: int, report: Report, *, at_s: float) -> list[OrderCommand]:
        if round_ != self._round or client not in self._awaited:
            return []
        del self._awaited[client]
        self.reports[client] = report
        return [] if self._awaited else self._decide(at_s)

    def ended(
        self, client: str, order: int, *, freed_bytes: int, error: str, at_s: float, is_disk_full: bool = False
    ) -> None:
        """freed_bytes: of shared memory. error: why no more, in words; empty when there is none."""
        if client not in self._orders or self._orders[client].number != order:
            return
        del self._orders[client]
        if error:
            self.error = error
            self.is_disk_full = is_disk_full
            self._try_at_s = at_s + RETRY_S
        elif freed_bytes:
            self.error, self.is_disk_full = "", False
        else:
            self._try_at_s = at_s + ASK_AGAIN_S

    def client_gone(self, client: str, *, at_s: float) -> list[OrderCommand]:
        self._orders.pop(client, None)
        self.reports.pop(client, None)
        if client in self._awaited:
            del self._awaited[client]
            if not self._awaited:
                return self._decide(at_s)
        return []

    def next_tick_s(self) -> float | None:
        due = [order.deadline_s for order in self._orders.values()]
        if self._awaited:
            due.append(self._answer_by_s)
        if self.is_enabled and not due:
            if self._waiting_bytes:
                due.append(self._try_at_s)
            elif self._used_bytes > self._high_bytes:
                due.append(max(self._look_at_s, self._try_at_s))
        return min(due, default=None)

    def tick(self, *, at_s: float) -> list[OrderCommand]:
        """`needed` should follow."""
        for client in [client for client, order in self._orders.items() if order.deadline_s <= at_s]:
            del self._orders[client]
        if self._awaited and self._answer_by_s <= at_s:
            self._awaited = {}
            return self._decide(at_s)
        return []

    def _decide(self, at_s: float) -> list[OrderCommand]:
        """All have answered, or have had the time to."""
        self._look_at_s = at_s + LOOK_AGAIN_S
        live_bytes = sum(report.live_bytes for report in self.reports.values())
        wanted_bytes = max(self._waiting_bytes, self._batch_bytes) if self._waiting_bytes else 0
        if live_bytes > self._high_bytes:
            wanted_bytes = max(wanted_bytes, live_bytes - self._low_bytes)
        if not wanted_bytes:
            return []
        kept = {client: self._viewed_by_others(client) for client in self.reports}
        movable = {
            client: report.spillable_bytes - sum(kept[client].values()) for client, report in self.reports.items()
        }
        commands: list[OrderCommand] = []
        for client in sorted(movable, key=lambda one: -movable[one]):
            if wanted_bytes <= 0 or movable[client] <= 0:
                break
            size_bytes = min(movable[client], max(wanted_bytes, self._batch_bytes))
            wanted_bytes -= size_bytes
            self._order_count += 1
            self._orders[client] = _Order(self._order_count, at_s + ORDER_S)
            commands.append(Spill(client, self._order_count, size_bytes, tuple(kept[client])))
        if commands:
            self._nothing_since_s = None
        else:
            self._try_at_s = at_s + ASK_AGAIN_S
            if self._waiting_bytes and self._nothing_since_s is None:
                self._nothing_since_s = at_s
        return commands

    def _viewed_by_others(self, client: str) -> dict[str, int]:
        """Of the segments that the client may move: those it has created, and those it owns, if their creator died."""
        found = {}
        for other, report in self.reports.items():
            for segment, size_bytes in report.viewed.items() if other != client else ():
                creator, owner, _ = segment.split(".", 2)
                if client == (creator if creator in self.reports else owner):
                    found[segment] = size_bytes
        return found

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        checks.invariant(not (self._awaited and self._orders), "orders are out while questions are")
        checks.invariant(self.is_enabled or not self.has_asked, "spilling is switched off, and somebody was asked")
