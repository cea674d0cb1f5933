"""What is logged of errors that no caller is told of: those that nobody read, those after the last result
of a task, and those that a retry makes good.

Only user code's errors and workers' crashes are worth a line: who cancels a task or loses an actor knows. Lines are
written by a thread of their own, since reading an error runs the user's code, and so may a handler of the log.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable

from umbel import exceptions
from umbel._client import refs

logger = logging.getLogger("umbel")
LINES_MAX = 10  # in each period: the first errors tell what is wrong, a thousand more of them do not
PERIOD_S = 5.0
WAITING_MAX = 1_000  # errors that wait for the thread; each is a few kilobytes
_WORTH_A_LINE = (exceptions.UmbelTaskError, exceptions.WorkerCrashedError, exceptions.OutOfMemoryError)


def coroutine_blocks(class_name: str) -> None:
    """A coroutine of an actor waits without `await`."""
    logger.warning(
        "a coroutine of actor %s waits in umbel.get() or umbel.wait(), which holds up all its other coroutines; "
        "write 'await ref', or 'await asyncio.gather(*refs)' for several",
        class_name,
    )


class TroubleLog:
    """Logs errors, some for each period, and how many it left out. Its caller holds a lock around all but
    `write`."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, run: Callable[[Callable[[], None]], object] | None = None
    ) -> None:
        """run: calls `write` later, without the caller's lock; by default in a thread."""
        self._clock = clock
        self._run = refs._callbacks.run if run is None else run
        self._waiting: deque[tuple[int, str, bytes]] = deque()
        self._period_began_s = 0.0
        self._line_count = 0
        self._left_out = 0

    def unread(self, blob: bytes) -> None:
        """The last reference to this error went away, and nobody had asked for it."""
        self._add(logging.ERROR, "Unhandled error (UMBEL_IGNORE_UNHANDLED_ERRORS=1 silences these)", blob)

    def lost(self, name: str, blob: bytes) -> None:
        """A task had given all its results when it failed."""
        self._add(logging.ERROR, f"task {name} failed after its last result", blob)

    def retried(self, name: str, retries_left: int, blob: bytes) -> None:
        """`retries_left`: this one included; negative for no limit."""
        left = "any number of" if retries_left < 0 else str(retries_left)
        self._add(logging.WARNING, f"task {name} failed with {left} retries left, so it is tried again", blob)

    def _add(self, level: int, what: str, blob: bytes) -> None:
        if not logger.isEnabledFor(level):
            return
        if len(self._waiting) >= WAITING_MAX:
            self._left_out += 1
            return
        self._waiting.append((level, what, blob))
        if len(self._waiting) == 1:
            with contextlib.suppress(RuntimeError):  # no thread can be started: the interpreter ends
                self._run(self.write)

    def write(self) -> None:
        """Log what waits."""
        while self._waiting:
            level, what, blob = self._waiting.popleft()
            error = exceptions.load_error(blob)
            first = exceptions.first_of_failed_input(blob)
            if isinstance(error if first is None else exceptions.load_error(first), _WORTH_A_LINE):
                self._log(level, f"{what}: {error}")

    def _log(self, level: int, text: str) -> None:
        now_s = self._clock()
        if now_s - self._period_began_s >= PERIOD_S:
            self._period_began_s, self._line_count = now_s, 0
        if self._line_count >= LINES_MAX:
            self._left_out += 1
            return
        self._line_count += 1
        if self._left_out:
            text += f"\n({self._left_out} more such errors were left out)"
            self._left_out = 0
        logger.log(level, "%s", text)
