"""Processes that this one starts.

`subprocess` takes 0.4 MB and some milliseconds to import, which a program that starts a daemon and has no other use for it can
do without.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Sequence

_LOOK_S = 0.01  # where the system does not tell when a process ends


class Child:
    """One that runs, or ran; as `subprocess.Popen` has it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None  # minus the number of the signal that ended it; None while it runs
        self._lock = threading.RLock()  # nobody is to signal a process that was just reaped; signal handlers may

    def poll(self) -> int | None:
        """Its `returncode`, as it is now."""
        with self._lock:
            if self.returncode is None:
                self._look()
            return self.returncode

    def _look(self) -> None:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # reaped by somebody else, or by the system, as this process ignores SIGCHLD
            self.returncode = 0
        else:
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)

    def wait(self, timeout_s: float | None = None) -> int:
        """Until it has ended. Raises TimeoutError."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while (code := self.poll()) is None:
            left_s = None if until_s is None else until_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise TimeoutError(f"process {self.pid} has not ended within {timeout_s} s")
            self._await_end(left_s)
        return code

    def _await_end(self, left_s: float | None) -> None:
        """Or for some time."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            time.sleep(_LOOK_S)
            return
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(None if left_s is None else left_s * 1e3)
        finally:
            os.close(descriptor)

    def send_signal(self, number: int) -> None:
        """Nothing, if it has ended."""
        with self._lock:
            if self.returncode is None:
                self._look()
            if self.returncode is None:
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(command: Sequence[str], descriptors: Sequence[int]) -> Child:
    """Start a program that gets these descriptors, by numbers that are its last arguments. Its input and output are /dev/null, as
    is its standard error if this process has closed its own; it is to close what else it inherits. Raises OSError."""
    free = max((2, *descriptors)) + 1
    numbers = list(range(free, free + len(descriptors)))
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in zip(descriptors, numbers, strict=True)
    ]
    streams = [0, 1] if _is_open(2) else [0, 1, 2]
    actions += [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in streams]
    command = [*command, *map(str, numbers)]
    # As `subprocess` has it: what Python ignores is as usual in what it starts.
    usual = [signal.SIGPIPE, signal.SIGXFSZ]
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions, setsigdef=usual)
    return Child(pid)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
