"""Time, passed in. Deciding code gets times with its events; code that acts reads a Clock that it was given."""

from __future__ import annotations

import time
from typing import Protocol

from umbel._base import checks


class Clock(Protocol):
    """Seconds since a moment that only this clock knows; never goes back."""

    def now_s(self) -> float: ...


class MonotonicClock:
    """The system's monotonic clock. One machine's processes share its origin until the machine restarts."""

    __slots__ = ()

    def now_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is advanced."""

    __slots__ = ("_now_s",)

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now_s(self) -> float:
        return self._now_s

    def advance(self, duration_s: float) -> float:
        """Moves on by `duration_s` >= 0 and returns the new time."""
        checks.invariant(duration_s >= 0, "a clock cannot go back", duration_s=duration_s)
        self._now_s += duration_s
        return self._now_s
