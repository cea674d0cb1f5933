"""Facts about this machine: its CPUs and its memory."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """The CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def has_idle_cpu(path: str = "/proc/loadavg") -> bool:
    """Whether fewer threads want to run now, this one included, than there are CPUs; False where that cannot be known."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            running = int(os.read(descriptor, 100).split()[3].partition(b"/")[0])
        finally:
            os.close(descriptor)
    except (OSError, ValueError, IndexError):
        return False
    return 0 < running <= cpu_count()


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
