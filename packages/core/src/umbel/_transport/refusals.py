"""What to log of strangers that were refused: one line for each address and reason at first, then counts.

Bounded whatever strangers do: `ENTRY_COUNT_MAX` addresses and reasons are told apart, all others of one reason are one.
Pure: time is passed in, lines come out.
"""

from __future__ import annotations

WINDOW_S = 60.0  # between two lines of one address and reason: soon enough to act on, few enough to read
ENTRY_COUNT_MAX = 256  # lines in a window; more addresses than that are an attack, of which the first ones tell enough
REASON_COUNT_MAX = 64  # reasons of which the others are counted; there are some twenty, and TLS's own
OTHERS = "other addresses"


class Refusals:
    """Told of each refusal; returns the lines that are due."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], _Entry] = {}  # in the order in which their windows end

    def add(self, host: str, reason: str, *, at_s: float) -> list[str]:
        lines = self.tick(at_s=at_s)
        key = (host, reason)
        if key not in self._entries and len(self._entries) >= ENTRY_COUNT_MAX:
            key = (OTHERS, reason)
            if key not in self._entries and len(self._entries) >= ENTRY_COUNT_MAX + REASON_COUNT_MAX:
                key = (OTHERS, "for other reasons")  # one more entry, and the last
        entry = self._entries.get(key)
        if entry is not None:
            entry.count += 1
            return lines
        self._entries[key] = _Entry(at_s + WINDOW_S)
        return [*lines, f"refused a connection from {key[0]}: {key[1]}"]

    def next_tick_s(self) -> float | None:
        """When a count is due, or an entry is to be forgotten."""
        return next((entry.ends_s for entry in self._entries.values()), None)

    def tick(self, *, at_s: float) -> list[str]:
        lines = []
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.ends_s > at_s:
                break
            del self._entries[key]
            if entry.count:
                lines.append(f"refused {entry.count:,} more from {key[0]} within {WINDOW_S:.0f} s: {key[1]}")
                self._entries[key] = _Entry(at_s + WINDOW_S)  # it goes on, perhaps: silent for another window
        return lines


class _Entry:
    """An address and a reason: until when its refusals are counted, and how many there were since the last line."""

    __slots__ = ("count", "ends_s")

    def __init__(self, ends_s: float) -> None:
        self.count = 0
        self.ends_s = ends_s
