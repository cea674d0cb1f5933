"""Threads that take turns: each runs only when it is told to, alone, until it pauses.

With them production code that blocks can be simulated as it is. A fiber of a process that dies is told at its next
pause, by an exception that no handler for errors catches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Killed(BaseException):
    """The process that this fiber belongs to is dead."""


class Exited(BaseException):
    """The process ends itself, with exit code `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Fiber:
    """One. `body` runs in it; `error` is what ended it, if anything but its return or its death did."""

    def __init__(self, body: Callable[[], None], name: str) -> None:
        self._body = body
        self._turn = threading.Lock()  # held by whoever must wait: the fiber while it pauses
        self._back = threading.Lock()  # the same for the one who lets it run
        self._turn.acquire()
        self._back.acquire()
        self._is_started = False
        self._is_killed = False
        self.is_over = False
        self.error: BaseException | None = None
        self.name = name
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def step(self) -> None:
        """Let it run until it pauses or ends. Raises what ended it, unless it was killed."""
        if self.is_over:
            return
        if self._is_started:
            self._turn.release()
        else:
            self._is_started = True
            self._thread.start()
        self._back.acquire()
        if self.is_over:
            self._thread.join()
            error, self.error = self.error, None
            if error is not None and not self._is_killed:
                raise error

    def pause(self) -> None:
        """Called in the fiber: give the turn back. Returns at the next `step`."""
        if not self._is_killed:
            self._back.release()
            self._turn.acquire()
        if self._is_killed:
            raise Killed

    def kill(self) -> None:
        """End it: what it is in the midst of is left as if the process had died."""
        self._is_killed = True
        if not self._is_started:
            self.is_over = True
        elif not self.is_over:
            self.step()

    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        try:
            self._body()
        except BaseException as error:  # of whatever kind: `step` raises it where it is looked for
            self.error = error
        self.is_over = True
        self._back.release()
