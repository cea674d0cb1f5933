"""Whether this node takes no more work, and when it ends for that: its part in being drained.

Who asks for an *idle* drain thinks that nothing runs here, and it is refused if something does. What the node knows at once are
its drivers, leases, actors, bundles and what waits for workers; whether a worker owns values that others need, or keeps some
for owners on other nodes, only that worker knows. So the node begins nothing more, asks its idle workers to exit, and agrees
when all have gone; if one stays it goes on as before, and says why. A *preemption* is never refused: the machine will be taken
away. The node begins nothing more, and ends when it has nothing left, or at the deadline, whatever runs. An accepted drain is
final; of all deadlines that it was given the earliest holds, so that whoever asks again puts nothing off.

This module only decides; `drain_service` carries out. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

from umbel._base import checks

IDLE, PREEMPTION = "idle", "preemption"
REASONS = (IDLE, PREEMPTION)
CHECK_S: Final = 5.0  # for idle workers to answer, which takes milliseconds; the head waits for longer


class Left(NamedTuple):
    """What a node still has. waiting: leases, actors and bundles that are asked for here. workers: processes without a lease.
    keeping: those of them that have said that they own, or keep, what others need. values: that ended workers have left for
    owners on other nodes."""

    drivers: int = 0
    leases: int = 0
    actors: int = 0
    bundles: int = 0
    waiting: int = 0
    workers: int = 0
    keeping: int = 0
    values: int = 0

    def in_words(self) -> str:
        """What of it keeps a node; "" for nothing."""
        counts = [
            (self.drivers, "program", "programs"),
            (self.leases, "worker in use", "workers in use"),
            (self.actors, "actor", "actors"),
            (self.bundles, "bundle of placement groups", "bundles of placement groups"),
            (self.keeping, "worker with values that others need", "workers with values that others need"),
            (self.values, "value that a program of another node needs", "values that programs of other nodes need"),
        ]
        return ", ".join(f"{count} {one if count == 1 else several}" for count, one, several in counts if count)

    @property
    def is_nothing(self) -> bool:
        return not (self.drivers or self.leases or self.actors or self.bundles or self.workers or self.values)


# ---- events ----


class Asked(NamedTuple):
    """The head wants this node to be drained. request: to be answered. until_s: the deadline, None for none."""

    request: int
    reason: str
    message: str
    until_s: float | None
    left: Left
    now_s: float


class Looked(NamedTuple):
    """The node has this left now."""

    left: Left
    now_s: float


Event: TypeAlias = "Asked | Looked"

# ---- commands ----


class Begin(NamedTuple):
    """Begin nothing more, ask idle workers to exit and leases back. why: for those who wait."""

    why: str


class GoOn(NamedTuple):
    """As before: it is not drained after all."""


class Answer(NamedTuple):
    """Tell the head. text: why not."""

    request: int
    is_accepted: bool
    text: str


class End(NamedTuple):
    """This node ends now, with all that runs here."""

    reason: str


Command: TypeAlias = "Begin | GoOn | Answer | End"


class Draining:
    """One node's. reason: of a drain that was accepted; "" before."""

    def __init__(self) -> None:
        self.reason = ""
        self.message = ""
        self.until_s: float | None = None
        self.is_over = False
        self._asked: list[Asked] = []  # idle drains that are being looked into
        self._check_until_s = 0.0

    @property
    def is_begun(self) -> bool:
        """Whether nothing begins here any more, or for now."""
        return bool(self.reason or self._asked)

    def apply(self, event: Event) -> list[Command]:
        if self.is_over:
            return []
        commands = self._on_asked(event) if isinstance(event, Asked) else self._look(event.left, event.now_s)
        self.check()
        return commands

    def next_tick_s(self) -> float | None:
        """When to look, if nothing changes before."""
        if self.is_over:
            return None
        return self.until_s if self.reason else self._check_until_s if self._asked else None

    def _on_asked(self, event: Asked) -> list[Command]:
        if self.reason and event.reason != PREEMPTION and not event.left.is_nothing:
            what = event.left.in_words() or "workers that are asked whether others need what they have"
            return [Answer(event.request, False, f"the node is being drained already, and is not idle: it has {what}")]
        if self.reason:
            if event.until_s is not None:
                self.until_s = event.until_s if self.until_s is None else min(self.until_s, event.until_s)
            return [Answer(event.request, True, ""), *self._look(event.left, event.now_s)]
        if event.reason == PREEMPTION:
            first = [] if self._asked else [Begin(_why(event))]
            return [*first, *self._accept(event, [*self._asked, event]), *self._look(event.left, event.now_s)]
        busy = _busy(event.left)
        if busy:
            return [Answer(event.request, False, f"the node is not idle: it has {busy}")]
        begun: list[Command] = [] if self._asked else [Begin(_why(event))]
        if not self._asked:
            self._check_until_s = event.now_s + CHECK_S
        self._asked.append(event)
        # Workers are asked before it is known whether they stay.
        return begun if event.left.workers else [*begun, *self._look(event.left, event.now_s)]

    def _accept(self, event: Asked, asked: list[Asked]) -> list[Command]:
        self.reason, self.message, self._asked = event.reason, event.message, []
        self.until_s = min((one.until_s for one in asked if one.until_s is not None), default=None)
        return [Answer(one.request, True, "") for one in asked]

    def _look(self, left: Left, now_s: float) -> list[Command]:
        if self.reason:
            return self._look_for_end(left, now_s)
        if not self._asked:
            return []
        busy = _busy(left)
        if busy:
            trouble = f"the node is not idle: it has {busy}"
        elif left.keeping:
            trouble = f"the node is not idle: it has {left.in_words()}"
        elif left.workers and now_s >= self._check_until_s:
            trouble = f"{left.workers} of its idle workers have not said within {CHECK_S:g} s whether they have values"
        elif left.workers:
            return []
        else:
            first = self._asked[0]
            return [*self._accept(first, self._asked), *self._look_for_end(left, now_s)]
        asked, self._asked = self._asked, []
        return [GoOn(), *(Answer(one.request, False, trouble) for one in asked)]

    def _look_for_end(self, left: Left, now_s: float) -> list[Command]:
        told = f"it was drained ({self.reason}{f': {self.message}' if self.message else ''})"
        if left.is_nothing:
            self.is_over = True
            return [End(told)]
        if self.until_s is not None and now_s >= self.until_s:
            self.is_over = True
            had = left.in_words() or f"{left.workers} idle worker{'s' * (left.workers != 1)}"
            return [End(f"{told}, and its deadline has passed; it still had {had}")]
        return []

    def check(self) -> None:
        """Raises InternalError unless it has one reason to drain at most."""
        checks.invariant(not (self.reason and self._asked), "a drain was accepted, and another is looked into")
        checks.invariant(self.reason in ("", *REASONS), "no such reason", reason=self.reason)


def _why(event: Asked) -> str:
    return f"{event.reason}: {event.message}" if event.message else event.reason


def _busy(left: Left) -> str:
    """What runs here, or is to; "" for nothing."""
    found = left._replace(keeping=0).in_words()
    if not found and left.waiting:
        found = f"{left.waiting} worker{'s' * (left.waiting != 1)} to be found for what waits"
    return found
