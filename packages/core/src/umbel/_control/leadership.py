"""Whether this head leads its cluster, and whether it may act on that now.

A lease in a control storage says who leads. It is measured by the storage's clock, which nobody here can see: what is
known is when this machine asked, and the lease was granted after that. So this head stops acting `margin_s` before
`ttl_s` have passed since it asked, by its own clock, which may run a hundredth faster or slower than the storage's; the
storage gives the lease to another one only after that. `margin_s` covers what happens between asking `may_act` and the
effect of what is then done. Commits need none of this: the storage refuses those of a former leader.

While it leads it asks to renew after a third of the lease, and again and again when that fails. Once it has stepped down,
whatever it decided as a leader is void: it acquires anew, and loads anew when it leads again, even by the same number.
This module only decides: `apply` takes what has happened and returns what to do. At most one question is out at a time.
The clock is one that goes on while the machine sleeps (CLOCK_BOOTTIME).
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

from umbel._base import checks

DRIFT = 0.01  # between two clocks; a quartz is a thousand times better, a badly virtualised clock is not
RENEWALS = 3  # in the time of a lease: one may fail, and the next one still comes in time
RETRIES = 10  # in the time of a lease, while the storage does not answer
MARGIN = 0.2  # of a lease


# What has happened.


class Granted(NamedTuple):
    """The answer to Acquire: the lease is this head's. asked_at_s: before the question was sent."""

    fencing: int
    asked_at_s: float
    now_s: float


class Held(NamedTuple):
    """The answer to Acquire: another one leads, for so long at least unless he releases it."""

    holder: str
    remaining_s: float
    now_s: float


class Renewed(NamedTuple):
    """The answer to Renew."""

    fencing: int
    asked_at_s: float
    now_s: float


class Failed(NamedTuple):
    """There was no answer to either: StorageUnavailable, StorageUncertain."""

    reason: str
    now_s: float


class Fenced(NamedTuple):
    """The storage has said that this head leads no longer. is_answer: to Renew, and not to a commit."""

    fencing: int
    now_s: float
    is_answer: bool = True


class Tick(NamedTuple):
    """`wake_at_s` has come, or a while has passed."""

    now_s: float


Event: TypeAlias = "Granted | Held | Renewed | Failed | Fenced | Tick"


# What to do.


class Acquire(NamedTuple):
    """Ask the storage; answer with Granted, Held or Failed."""


class Renew(NamedTuple):
    """Ask the storage; answer with Renewed, Fenced or Failed."""

    fencing: int


class Lead(NamedTuple):
    """Load what there is, and act upon it."""

    fencing: int


class StepDown(NamedTuple):
    """Stop acting, at once."""

    fencing: int
    reason: str


Command: TypeAlias = "Acquire | Renew | Lead | StepDown"


class Leadership:
    """One head's part. It follows until the first Lead."""

    def __init__(self, *, ttl_s: float, now_s: float, margin_s: float | None = None) -> None:
        """ttl_s: as it asks for in Acquire. margin_s: None for a fifth of that."""
        self.ttl_s = ttl_s
        self.fencing = 0  # by which it leads; 0 while it follows
        self._margin_s = MARGIN * ttl_s if margin_s is None else margin_s
        checks.invariant(
            0 < self._valid_s < ttl_s, "a lease is shorter than its margin", ttl_s=ttl_s, margin_s=margin_s
        )
        self._until_s = -math.inf  # it may act until then
        self._ask_at_s = now_s
        self._is_asking = False
        self._reason = "nobody has been asked yet who leads"
        self._failure = ""  # why the last question had no answer

    @property
    def _valid_s(self) -> float:
        return self.ttl_s * (1 - DRIFT) - self._margin_s

    @property
    def wake_at_s(self) -> float:
        """When the next Tick is due, if nothing else happens before."""
        if self.fencing:
            return self._until_s if self._is_asking else min(self._until_s, self._ask_at_s)
        return math.inf if self._is_asking else self._ask_at_s

    def may_act(self, now_s: float) -> bool:
        """Whether it leads, and nobody else can before `margin_s` from now. To be asked before each act, not once."""
        return self.fencing != 0 and now_s < self._until_s

    def reason(self, now_s: float) -> str:
        """What it waits for while it may not act; "" while it may."""
        return "" if self.may_act(now_s) else self._reason

    def apply(self, event: Event) -> list[Command]:
        commands = self._expire(event.now_s)
        if isinstance(event, Granted):
            commands += self._granted(event)
        elif isinstance(event, Held):
            self._answered(event.now_s + min(event.remaining_s, self.ttl_s / RENEWALS))
            commands += self._step_down(f"{event.holder!r} leads")
            self._reason = f"{event.holder!r} leads, for {event.remaining_s:.1f} s if it does not renew"
        elif isinstance(event, Renewed):
            self._answered(event.asked_at_s + self.ttl_s / RENEWALS)
            self._failure = ""
            if event.fencing == self.fencing:
                self._until_s = max(self._until_s, event.asked_at_s + self._valid_s)
        elif isinstance(event, Failed):
            self._answered(event.now_s + self.ttl_s / RETRIES)
            self._failure = f": {event.reason}"
            if not self.fencing:
                self._reason = f"the control storage does not answer: {event.reason}"
        elif isinstance(event, Fenced):
            if event.is_answer:
                self._answered(event.now_s)
            if event.fencing == self.fencing:
                commands += self._step_down("another one leads, or the lease has run out")
        commands += self._ask(event.now_s)
        self.check()
        return commands

    def _granted(self, event: Granted) -> list[Command]:
        self._answered(event.asked_at_s + self.ttl_s / RENEWALS)
        self._failure = ""
        until_s = event.asked_at_s + self._valid_s
        if event.fencing == self.fencing:
            self._until_s = max(self._until_s, until_s)
            return []
        commands = self._step_down("it has got another lease")
        if until_s <= event.now_s:
            self._reason = "the lease was granted too late to be of use"
            return commands
        self.fencing, self._until_s = event.fencing, until_s
        return [*commands, Lead(event.fencing)]

    def _expire(self, now_s: float) -> list[Command]:
        if self.fencing and now_s >= self._until_s:
            return self._step_down(f"the lease could not be renewed in time{self._failure}")
        return []

    def _step_down(self, reason: str) -> list[Command]:
        if not self.fencing:
            return []
        fencing, self.fencing, self._until_s = self.fencing, 0, -math.inf
        self._reason = f"it has stepped down: {reason}"
        return [StepDown(fencing, reason)]

    def _answered(self, ask_at_s: float) -> None:
        self._is_asking = False
        self._ask_at_s = ask_at_s

    def _ask(self, now_s: float) -> list[Command]:
        if self._is_asking or now_s < self._ask_at_s:
            return []
        self._is_asking = True
        return [Renew(self.fencing) if self.fencing else Acquire()]

    def check(self) -> None:
        """Raises InternalError unless it may act exactly while it has a lease."""
        if (self.fencing != 0) != (self._until_s > -math.inf):
            raise checks.broken("acts without a lease", fencing=self.fencing)
