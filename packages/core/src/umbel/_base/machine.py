"""Facts about this machine: its CPUs and its memory."""

from __future__ import annotations

import functools
import math
import os


def cpu_count() -> int:
    """The CPUs that this process may use: those it may run on, and no more than its control groups give it time for."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        allowed = os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, cpu_quota())))


@functools.cache
def cpu_quota(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> float:
    """How many CPUs' time the control groups of this process, of version 2 or 1, allow; infinity if they do not limit it.
    What they say when first asked."""
    quota = math.inf
    try:
        with open(membership, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return quota
    files: tuple[str, ...]
    for line in lines:
        number, _, rest = line.partition(b":")
        controllers, _, own = rest.partition(b":")
        if number == b"0" and not controllers:
            top, files = root, ("cpu.max",)
        elif b"cpu" in controllers.split(b","):
            top, files = os.path.join(root, "cpu"), ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        else:
            continue
        path = os.path.normpath(top + os.fsdecode(own))
        while path == top or path.startswith(top + os.sep):  # a group is limited by those around it too
            quota = min(quota, _quota_of(path, files))
            path = os.path.dirname(path)
    return quota


def _quota_of(group: str, files: tuple[str, ...]) -> float:
    """Of microseconds in a period: "max" or -1 for no limit."""
    words = []
    try:
        for name in files:
            with open(os.path.join(group, name)) as file:
                words += file.read().split()
        quota, period = words
        return int(quota) / int(period) if quota not in ("max", "-1") else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # the group of all processes has no such files
        return math.inf


class IdleCpus:
    """Whether there are any. Keeps the file open, once it was asked, for it is asked thousands of times a second."""

    def __init__(self, path: str = "/proc/loadavg") -> None:
        self._path = path
        self._cpu_count = 0
        self._descriptor = -1

    def any(self) -> bool:
        """Whether fewer threads want to run now, this one included, than there are CPUs; False where that cannot be
        known."""
        try:
            if not self._cpu_count:
                self._cpu_count = cpu_count()
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)  # fails where this is not Linux
            running = int(os.pread(self._descriptor, 100, 0).split()[3].partition(b"/")[0])
        except (OSError, ValueError, IndexError):
            return False
        return 0 < running <= self._cpu_count

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def memory_bytes(path: str = "/proc/meminfo") -> tuple[int, int]:
    """(total, available) of the machine; (0, 0) where that cannot be known."""
    found = {}
    try:
        with open(path, "rb") as lines:
            for line in lines:
                name, _, rest = line.partition(b":")
                if name in (b"MemTotal", b"MemAvailable"):
                    found[name] = int(rest.split()[0]) * 1024
                    if len(found) == 2:
                        return found[b"MemTotal"], found[b"MemAvailable"]
    except (OSError, ValueError):
        pass
    return 0, 0
