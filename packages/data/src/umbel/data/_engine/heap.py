"""How much memory a task takes of its process.

The kernel keeps the most that a process has had, which costs next to nothing to ask for, and nothing while the task runs. It is
set back where what a task before has had would hide this one's: a task that makes that necessary has written so many pages that
the setting back is a small part of its time. Where the kernel does not let us (some containers), and while several tasks run
in one process, what shows is what there was when blocks went out, and a peak that is higher than every one before.
"""

from __future__ import annotations

import resource
import threading

# Of a peak, that nobody misses: writing so much takes some milliseconds, setting back 20 to 200 us.
HIDDEN_BYTES = 8 << 20

_PAGE_BYTES = resource.getpagesize()


class Heap:
    """The most that this process has beyond what it has now, until `end`."""

    def __init__(self) -> None:
        with _lock:
            _open.add(self)
            self._count_max = len(_open)
            for other in _open:
                other._count_max = max(other._count_max, len(_open))
        own, shared = _resident()
        self._before = own
        self._shared_max = shared
        self._looked_max = 0
        if must_reset(_peak_bytes() - own - shared, self._count_max):
            _reset()
        self._peak_before = _peak_bytes()

    def look(self) -> None:
        """Where the task has much, and where blocks that lie in shared memory are mapped."""
        own, shared = _resident()
        self._looked_max = max(self._looked_max, own - self._before)
        self._shared_max = max(self._shared_max, shared)

    def end(self) -> int:
        """Bytes. Of tasks that ran at once in this process, each is said to have taken its share."""
        self.look()
        self.close()
        found = taken(self._peak_before, _peak_bytes(), self._before + self._shared_max)
        return max(self._looked_max, found) // self._count_max

    def close(self) -> None:
        with _lock:
            _open.discard(self)


def must_reset(hidden_bytes: int, at_once: int) -> bool:
    """hidden_bytes: by which the peak so far is above what there is."""
    return hidden_bytes > HIDDEN_BYTES and at_once == 1


def taken(peak_before: int, peak: int, other_bytes: int) -> int:
    """By the peaks before a task and after it: the pages that were no blocks' in shared memory, nor there before. A peak that has
    not grown is another's."""
    return max(0, peak - other_bytes) if peak > peak_before else 0


def own_bytes() -> int:
    """Resident and not shared: blocks that are read in place are not the process's."""
    return _resident()[0]


def _resident() -> tuple[int, int]:
    """Bytes that are the process's own, and that are shared."""
    with open("/proc/self/statm", "rb") as file:
        fields = file.read().split()
    resident, shared = int(fields[1]) * _PAGE_BYTES, int(fields[2]) * _PAGE_BYTES
    return resident - shared, shared


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _reset() -> None:
    try:
        with open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(b"5")
    except OSError:
        pass  # not allowed here; see above


_open: set[Heap] = set()  # of tasks that have not ended
_lock = threading.Lock()
