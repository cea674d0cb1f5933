"""The most memory that a side's processes had at a time, seen from outside.

Shared memory counts once: pages that lie in /dev/shm are there whether a process maps them or not, so what is counted of them is
what /dev/shm has gained, or what is mapped where that is more. All else is counted by proportional share (PSS). Linux only.
"""

from __future__ import annotations

import os
import threading

from benchmarks import processes

EVERY_S = 0.5  # a look at all processes takes some 20 ms of one core
SHARED_FOLDER = "/dev/shm"


class Peak:
    """Looks at a process, its descendants and those with its mark on a thread, until `end`."""

    def __init__(self, root_pid: int, mark: str) -> None:
        self._root_pid, self._mark = root_pid, mark
        self._before = _shared_bytes()
        self._most = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self._thread.start()

    def end(self) -> int:
        """Bytes."""
        self._is_over.set()
        self._thread.join()
        return self._most

    def _watch(self) -> None:
        while not self._is_over.wait(EVERY_S):
            own, mapped = 0, 0
            for pid in processes.family(self._root_pid, self._mark):
                own_of_one, mapped_of_one = processes.own_and_shared_bytes(pid)
                own, mapped = own + own_of_one, mapped + mapped_of_one
            self._most = max(self._most, own + max(mapped, _shared_bytes() - self._before))


def _shared_bytes() -> int:
    try:
        found = os.statvfs(SHARED_FOLDER)
    except FileNotFoundError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize
