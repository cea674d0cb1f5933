"""The actors of one stage: which are there, what each has in hand, how many there should be."""

from __future__ import annotations

from umbel.data._engine import stages

IDLE_S = 10.0  # until an actor beyond min_size goes: some times what starting one takes


class Pool:
    """`starting` and `ready` together are the actors that take resources. said_bytes: for each, by the user; None if
    nothing was."""

    def __init__(self, pool: stages.ActorPool, said_bytes: int | None = None) -> None:
        self.pool = pool
        self._said_bytes = said_bytes
        self.actor_bytes = said_bytes or 0  # that one of them holds, as far as is known
        self.is_actor_known = said_bytes is not None
        self._held: dict[int, int] = {}
        self.held_bytes = 0  # of all
        self.per_actor = max(pool.tasks_per_actor, pool.concurrency)
        self.starting: set[int] = set()
        self.ready: dict[int, int] = {}  # actor -> tasks in hand
        self.idle_since_s: dict[int, float] = {}
        self.without_cpus: set[int] = set()
        self.death_count = 0

    @property
    def count(self) -> int:
        return len(self.starting) + len(self.ready)

    @property
    def in_hand_count(self) -> int:
        return sum(self.ready.values())

    def room(self) -> int:
        """How many tasks could be sent now."""
        return sum(self.per_actor - count for count in self.ready.values())

    def next_actor(self) -> int | None:
        """The one with the least in hand; None if all have enough."""
        actor = min(self.ready, key=lambda one: (self.ready[one], one), default=None)
        return actor if actor is not None and self.ready[actor] < self.per_actor else None

    def wanted(self, ready_count: int) -> int:
        """How many there should be, with so many tasks that could be started beside those in hand."""
        most = self.pool.max_size
        work = ready_count + self.in_hand_count
        least = max(self.pool.min_size, self.pool.initial_size or 0) if work or self.count else 0
        return max(least, work) if most is None else min(most, max(least, work))

    def took(self, actor: int) -> None:
        self.ready[actor] += 1
        self.idle_since_s.pop(actor, None)

    def gave_back(self, actor: int, at_s: float) -> None:
        if actor in self.ready:
            self.ready[actor] -= 1
            if not self.ready[actor]:
                self.idle_since_s[actor] = at_s

    def starts(self, actor: int, held_bytes: int) -> None:
        """held_bytes: expected."""
        self.starting.add(actor)
        self._held[actor] = held_bytes
        self.held_bytes += held_bytes

    def holds(self, actor: int, held_bytes: int) -> None:
        """As the actor tells."""
        if actor in self._held and self._said_bytes is None:
            self.held_bytes += held_bytes - self._held[actor]
            self._held[actor] = held_bytes
            self.actor_bytes, self.is_actor_known = max(self.actor_bytes, held_bytes), True

    def is_ready(self, actor: int, at_s: float) -> None:
        self.starting.discard(actor)
        self.ready[actor] = 0
        self.idle_since_s[actor] = at_s

    def forget(self, actor: int) -> None:
        self.held_bytes -= self._held.pop(actor, 0)
        self.starting.discard(actor)
        self.ready.pop(actor, None)
        self.idle_since_s.pop(actor, None)
        self.without_cpus.discard(actor)

    def idle(self) -> list[int]:
        return [actor for actor, count in self.ready.items() if not count]

    def to_end(self, at_s: float) -> list[int]:
        """Those that have been idle for too long, beyond min_size."""
        late = [actor for actor, since_s in self.idle_since_s.items() if at_s - since_s >= IDLE_S]
        return late[: max(0, self.count - self.pool.min_size)]

    def next_end_s(self) -> float | None:
        if self.count <= self.pool.min_size:
            return None
        return min((since_s + IDLE_S for since_s in self.idle_since_s.values()), default=None)
