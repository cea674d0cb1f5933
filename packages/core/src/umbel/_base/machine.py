"""Facts about this machine: its CPUs and its memory."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """The CPUs that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


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
