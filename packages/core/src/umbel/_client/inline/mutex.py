"""The one lock of the inline engine, with work that has to wait until it is free.

User code (callbacks, destructors of actors) must not run inside the lock. What wants to run it leaves a function in
`later`; whoever leaves the lock next calls it. References are dropped by destructors, which may run at any point, also
while their own thread holds the lock; those wait in `dropped` until the lock is free or the holder is about to leave.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

_log = logging.getLogger("umbel")


class Mutex:
    """Use as a context manager; not within itself.

    Ctrl-C can leave a block between taking the lock and the block's first statement, or at its end before the lock is
    released. A lock that knows its owner mends that: the next block of the same thread takes it again, and frees it for
    good. `_is_owned` and `_release_save` are what `threading.Condition` uses of it.
    """

    def __init__(self, drain: Callable[[], None]) -> None:
        """drain: empties `dropped`; called inside the lock."""
        self._lock: Any = threading.RLock()
        self._drain = drain
        self.later: deque[Callable[[], None]] = deque()
        self.dropped: deque[Any] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_error: object) -> None:
        self._leave()

    def _leave(self) -> None:
        while True:
            try:
                if self.dropped:
                    self._drain()
            finally:
                self._lock._release_save()
            self._run_later()
            if not self.dropped or not self._lock.acquire(blocking=False):
                return

    def _run_later(self) -> None:
        while self.later:
            try:
                work = self.later.popleft()
            except IndexError:  # another thread was quicker
                return
            try:
                work()
            except Exception:  # whoever happens to leave the lock is not concerned
                _log.exception("a callback failed")

    def drop(self, what: Any) -> None:
        """For destructors: never blocks, never raises."""
        self.dropped.append(what)
        if not self._lock._is_owned() and self._lock.acquire(blocking=False):
            self._leave()
