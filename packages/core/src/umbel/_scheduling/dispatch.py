"""An owner's tasks of one scheduling class, and the workers it leases for them.

The owner leases workers from its node's agent and pushes tasks to them directly, several ahead of the one that runs, so
that a worker never idles for a round trip. How many depends on how long the function has been seen to take: hundreds
for microseconds, one for milliseconds and for functions not yet measured, because what is queued behind a running task
cannot start elsewhere until it is handed back. Idle leases get work back from busy ones.

A task may be *drawn* to a node, for a while. Until then only workers there get it, and it counts as one that needs a worker,
whoever has nothing to do elsewhere.

Decides only: the caller sends, asks the agent, and tells what happened, under one lock.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any, NamedTuple, Protocol

from umbel._base import nodes

DEPTH_MAX = 256  # tasks in flight per worker; enough to hide a round trip of 100 us behind tasks of 1 us
QUEUED_TARGET_S = 0.004  # work queued at a worker: some round trips, yet short against a person's patience
STALLED_AFTER_S = 0.02  # without a reply for so long, what is queued behind counts as work that needs a worker
CHECKED_AFTER_S = 10.0  # without a reply, and again after as long: whether the worker is still leased is asked then
LEASES_WANTED_MAX = 512  # a demand beyond this says no more than this
DRAWN_LOOKED_AT_MAX = (
    256  # of waiting tasks, to find those for a node's workers: with more there is enough to do anywhere
)
NEW_DURATION_WEIGHT = 0.25  # of a moving average: follows a change within a dozen calls


class Durations:
    """How long calls of one function take, as a moving average. Slow calls count at once, quick ones by and by."""

    __slots__ = ("average_s",)

    def __init__(self) -> None:
        self.average_s: float | None = None

    def add(self, seconds: float) -> None:
        average = self.average_s
        if average is None or seconds > 4 * average:
            self.average_s = seconds
        else:
            self.average_s = average + NEW_DURATION_WEIGHT * (seconds - average)

    def depth(self) -> int:
        """How many calls to keep in flight at one worker."""
        average = self.average_s
        if average is None:
            return 1
        if average * DEPTH_MAX <= QUEUED_TARGET_S:
            return DEPTH_MAX
        return max(1, int(QUEUED_TARGET_S / average))


class Task(Protocol):
    """What this module needs of a task."""

    seq: int
    durations: Durations


class Drawn(NamedTuple):
    """To which node, by its tag in hexadecimal, and until when."""

    node: str
    until_s: float


class Lease:
    """One worker leased for this class. `link` belongs to the caller."""

    __slots__ = (
        "checked_s",
        "idle_since_s",
        "inflight",
        "is_blocked",
        "is_reclaimed",
        "is_retired",
        "is_stealing",
        "last_reply_s",
        "link",
        "worker",
    )

    def __init__(self, worker: str, link: Any, now_s: float) -> None:
        self.worker = worker
        self.link = link
        self.inflight: dict[int, Any] = {}
        self.is_blocked = False
        self.is_reclaimed = False
        self.is_retired = False  # the worker takes no more tasks, of anybody
        self.is_stealing = False
        self.idle_since_s = now_s
        self.last_reply_s = now_s
        self.checked_s = now_s  # when it was asked last whether the worker is still leased

    def check_due_s(self) -> float:
        """When to ask whether the worker is still leased, if something runs there. It is, unless something went wrong of which
        nobody knows: then what was sent there must not wait for ever."""
        return max(self.last_reply_s, self.checked_s) + CHECKED_AFTER_S

    @property
    def node(self) -> str:
        """Its tag, in hexadecimal."""
        return self.worker[nodes.TAG_IN_TEXT]


class SchedulingClass:
    """Tasks that need the same resources and environment."""

    __slots__ = ("depth", "drawn", "key", "leases", "ready", "request", "told", "told_drawn")

    def __init__(self, key: str, request: Any, depth: int) -> None:
        self.key = key
        self.request = request  # what the agent must know of the class; not looked at here
        self.depth = depth  # how deeply nested the tasks of this owner are
        self.ready: deque[Any] = deque()
        self.leases: dict[str, Lease] = {}
        self.told = 0  # the demand the agent was told last
        self.drawn: dict[int, Drawn] = {}  # by number, those that wait or have just been pushed
        self.told_drawn: dict[str, int] = {}  # how many of the demand were said to be drawn where

    def add_lease(self, worker: str, link: Any, now_s: float) -> Lease:
        lease = self.leases[worker] = Lease(worker, link, now_s)
        self.told = max(0, self.told - 1)  # the agent counts a grant against the demand
        return lease

    def has(self, lease: Lease) -> bool:
        """Whether it has not ended. There may be another one of the same worker by now."""
        return self.leases.get(lease.worker) is lease

    def quick_lease(self) -> Lease | None:
        """A lease with nothing to do, for a task that need not queue; None when tasks are waiting before it."""
        if self.ready:
            return None
        for lease in self.leases.values():
            if not lease.inflight and not lease.is_reclaimed and not lease.is_blocked:
                return lease
        return None

    def idle_lease_at(self, node: str) -> Lease | None:
        """As `quick_lease`, of a worker of this node."""
        if self.ready:
            return None
        for lease in self.leases.values():
            if not lease.inflight and not lease.is_reclaimed and not lease.is_blocked and lease.node == node:
                return lease
        return None

    def assign(self) -> list[tuple[Lease, list[Any]]]:
        """Move waiting tasks to workers that have room, fairly shared. The caller pushes them."""
        ready = self.ready
        if not ready:
            return []
        if self.drawn:
            return self._assign_drawn()
        usable = [x for x in self.leases.values() if not x.is_blocked and not x.is_reclaimed]
        usable.sort(key=lambda x: len(x.inflight))
        pushes = []
        for position, lease in enumerate(usable):
            if not ready:
                break
            share = -(-len(ready) // (len(usable) - position))
            batch = []
            inflight = lease.inflight
            durations, depth = None, 0
            while ready and share > 0:
                task = ready[0]
                if task.durations is not durations:
                    durations = task.durations
                    depth = durations.depth()
                if len(inflight) >= depth:
                    break
                ready.popleft()
                inflight[task.seq] = task
                batch.append(task)
                share -= 1
            if batch:
                pushes.append((lease, batch))
        return pushes

    def _assign_drawn(self) -> list[tuple[Lease, list[Any]]]:
        """As `assign`, where some are drawn to nodes."""
        ready, drawn = self.ready, self.drawn
        first = [ready.popleft() for _ in range(min(len(ready), DRAWN_LOOKED_AT_MAX))]
        there: dict[str, list[Lease]] = {}
        for lease in self.leases.values():
            if not lease.is_blocked and not lease.is_reclaimed:
                there.setdefault(lease.node, []).append(lease)
        batches: dict[Lease, list[Any]] = {}
        left, plain = [], []
        for task in first:
            if task.seq not in drawn:
                plain.append(task)
                continue
            found = min(there.get(drawn[task.seq].node, ()), key=lambda one: len(one.inflight), default=None)
            if found is None or len(found.inflight) >= task.durations.depth():
                left.append(task)
                continue
            found.inflight[task.seq] = task
            batches.setdefault(found, []).append(task)
        ready.extendleft(reversed(plain))
        self.drawn = {}
        pushes = [*batches.items(), *self.assign()]
        self.drawn = drawn
        for _, batch in pushes:
            for task in batch:
                drawn.pop(task.seq, None)
        ready.extendleft(reversed(left))
        return pushes

    def where_drawn(self) -> dict[str, int]:
        """How many of the waiting tasks are drawn where."""
        counts: dict[str, int] = {}
        for one in islice(self.drawn.values(), LEASES_WANTED_MAX):
            counts[one.node] = counts.get(one.node, 0) + 1
        return counts

    def let_go(self, now_s: float) -> float | None:
        """Those that have been drawn for long enough are so no more. Returns when to look again."""
        for seq in [seq for seq, one in self.drawn.items() if one.until_s <= now_s]:
            del self.drawn[seq]
        return min((one.until_s for one in self.drawn.values()), default=None)

    def take_back(self, lease: Lease, seqs: list[int]) -> list[Any]:
        """The worker hands back tasks it has not started. They go to the front, in their order; returns them."""
        lease.is_stealing = False
        tasks = [lease.inflight.pop(seq) for seq in seqs if seq in lease.inflight]
        self.ready.extendleft(reversed(tasks))
        return tasks

    def withdraw(self, task: Any) -> bool:
        """It is not to run any more; whether it was waiting."""
        if task not in self.ready:
            return False
        self.ready.remove(task)
        self.drawn.pop(task.seq, None)
        return True

    def steal_from(self) -> tuple[Lease, int] | None:
        """A busy lease, and how many of its unstarted tasks to ask back, when another has nothing to do."""
        if self.ready or not any(
            not x.inflight and not x.is_reclaimed and not x.is_blocked for x in self.leases.values()
        ):
            return None
        richest = max(self.leases.values(), key=lambda x: len(x.inflight), default=None)
        if richest is None or richest.is_stealing or len(richest.inflight) < 2:
            return None
        richest.is_stealing = True
        return richest, len(richest.inflight) // 2

    def lose_lease(self, worker: str, started: int | None) -> tuple[list[Any], list[Any]]:
        """The worker died, having last started task `started` (-1: none; None: nobody can say). Returns (tasks that were
        started or may have been, tasks that never were); the latter are waiting again already."""
        lease = self.leases.pop(worker, None)
        if lease is None:
            return [], []
        begun: list[Any] = []
        fresh: list[Any] = list(lease.inflight.values())
        lease.inflight = {}  # a worker that lives, with which the connection holds, may hand back yet what it has not started
        if started is None:
            begun, fresh = fresh, begun
        else:
            position = next((index for index, task in enumerate(fresh, 1) if task.seq == started), 0)
            begun, fresh = fresh[:position], fresh[position:]
        self.ready.extendleft(reversed(fresh))
        return begun, fresh

    def wanted(self, now_s: float) -> int:
        """How many more leases would help now."""
        waiting = len(self.ready)
        behind_s = 0.0
        queued = 0
        for lease in self.leases.values():
            extra = len(lease.inflight) - 1
            if extra > 0:
                if lease.is_blocked or now_s - lease.last_reply_s > STALLED_AFTER_S:
                    waiting += extra
                else:
                    queued += extra
                    last = next(reversed(lease.inflight.values()))
                    behind_s += extra * (last.durations.average_s or 0.0)
        if not waiting and not queued:
            return 0
        if waiting:
            average = self.ready[0].durations.average_s if self.ready else None
            if average is not None and self.leases:
                # Tasks of microseconds do not deserve a process each.
                waiting = max(1, min(waiting, int(waiting * average / QUEUED_TARGET_S) + 1))
        # Who is idle while drawn tasks wait is elsewhere.
        idle = 0 if self.drawn else sum(not x.inflight and not x.is_reclaimed for x in self.leases.values())
        needed = waiting + (1 if behind_s > QUEUED_TARGET_S else 0)
        return min(LEASES_WANTED_MAX, max(0, needed - idle))

    def idle_leases(self, now_s: float, idle_lease_s: float) -> list[Lease]:
        """Leases to give back: unused for long, or reclaimed and drained. They are forgotten here."""
        back = [
            x
            for x in self.leases.values()
            if not x.inflight and (x.is_reclaimed or (now_s - x.idle_since_s >= idle_lease_s and not self.ready))
        ]
        for lease in back:
            del self.leases[lease.worker]
        return back
