"""When a side whose connection broke dials again, and when it gives the other side up.

Both sides of a conversation (`multiplexing`) say by a *beat* that they are there. A connection that is silent for too long is
closed: a network may lose everything and break nothing. This module only decides; it has no clock.
"""

from __future__ import annotations

BEAT_S = 3.0
SILENCE_S = 3 * BEAT_S + 1.0  # three beats lost, and the time of one collection of garbage
REDIAL_S = 0.2  # after the first attempt; twice as long each time, up to the next
REDIAL_S_MAX = 1.0


class Reconnecting:
    """One side's. dials: whether it is this side that connects. There is no connection in the beginning."""

    def __init__(self, *, at_s: float, patience_s: float, dials: bool) -> None:
        """patience_s: for how long after a connection broke there may be none."""
        self.broken_s: float | None = at_s
        self.is_over = False
        self._patience_s = patience_s
        self._dials = dials
        self._pause_s = REDIAL_S
        self._dial_s: float | None = at_s if dials else None
        self._heard_s = at_s
        self._beat_s = at_s

    @property
    def is_linked(self) -> bool:
        return self.broken_s is None

    def linked(self, at_s: float) -> None:
        self.broken_s = self._dial_s = None
        self._pause_s = REDIAL_S
        self._heard_s = at_s
        self._beat_s = at_s + BEAT_S

    def heard(self, at_s: float) -> None:
        self._heard_s = at_s

    def broken(self, at_s: float) -> None:
        """The connection has ended."""
        if self.broken_s is None:
            self.broken_s = at_s
            self._dial_s = at_s if self._dials else None

    def dial_failed(self, at_s: float) -> None:
        self._dial_s = at_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, REDIAL_S_MAX)

    def next_tick_s(self) -> float | None:
        if self.is_over:
            return None
        if self.broken_s is None:
            return min(self._beat_s, self._heard_s + SILENCE_S)
        over_s = self.broken_s + self._patience_s
        return over_s if self._dial_s is None else min(self._dial_s, over_s)

    def tick(self, at_s: float) -> str:
        """What to do now: "beat", "close" the connection, "dial", "give up", or "" for nothing."""
        if self.is_over:
            return ""
        if self.broken_s is None:
            if at_s >= self._heard_s + SILENCE_S:
                return "close"
            if at_s >= self._beat_s:
                self._beat_s = at_s + BEAT_S
                return "beat"
            return ""
        if at_s >= self.broken_s + self._patience_s:
            self.is_over = True
            return "give up"
        if self._dial_s is not None and at_s >= self._dial_s:
            self._dial_s = None  # until it is known what came of it
            return "dial"
        return ""
