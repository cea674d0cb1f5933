"""Saying a thing once.

A library that runs inside many tasks asks `log_once(key)` before it logs what is worth one line per process.
"""

from __future__ import annotations

import threading
import time

KEYS_MAX = 10_000  # keys remembered; a caller that makes up keys must not grow the process without bound
PERIOD_S = 60.0  # with periodic logging, a key is let through again after this long


class OnceFilter:
    """Which keys were let through, and when. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_s: dict[str, float] = {}
        self._is_disabled = False
        self._is_periodic = False

    def admits(self, key: str, now_s: float) -> bool:
        """Whether `key` may be logged at `now_s`. Beyond KEYS_MAX the oldest are forgotten, and may come again."""
        with self._lock:
            last_s = self._last_s.get(key)
            if self._is_disabled or (last_s is not None and not (self._is_periodic and now_s - last_s > PERIOD_S)):
                return False
            if last_s is None and len(self._last_s) >= KEYS_MAX:
                del self._last_s[next(iter(self._last_s))]
            self._last_s[key] = now_s
            return True

    def forget(self, key: str | None) -> None:
        """None: all."""
        with self._lock:
            if key is None:
                self._last_s.clear()
            else:
                self._last_s.pop(key, None)

    def disable(self) -> None:
        with self._lock:
            self._is_disabled = True

    def repeat(self) -> None:
        with self._lock:
            self._is_periodic = True


_filter = OnceFilter()


def log_once(key: str) -> bool:
    """True the first time this process asks about `key`."""
    return _filter.admits(key, time.monotonic())


def reset_log_once(key: str | None = None) -> None:
    """Make `log_once` answer True once more for `key`, or for every key."""
    _filter.forget(key)


def disable_log_once_globally() -> None:
    """Make `log_once` answer False to everything in this process."""
    _filter.disable()


def enable_periodic_logging() -> None:
    """Make `log_once` answer True again once a minute, rather than only once."""
    _filter.repeat()
