"""What a runtime's processes use, read from outside: which they are, their memory, their CPU time.

A process belongs to a runtime when it descends from the driver or carries the driver's mark in its environment: a
daemon that was orphaned by a double fork, or whose parent was killed, is still found by the mark. Linux only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

MARK = "UMBEL_BENCHMARK_MARK"
PROC = Path("/proc")
SHARED = "/dev/shm/"


def family(root_pid: int, mark: str | None = None) -> set[int]:
    """Live processes that descend from `root_pid`, it included, and those whose environment holds `MARK=mark`."""
    children: dict[int, list[int]] = {}
    for pid in _pids():
        fields = stat_fields(pid)
        if fields is not None and fields[0] != "Z":  # a zombie holds neither memory nor CPU
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    frontier = [root_pid, *(_marked(mark) if mark is not None else ())]
    while frontier:
        pid = frontier.pop()
        if pid not in found:
            found.add(pid)
            frontier += children.get(pid, [])
    return found


def end_marked(mark: str, *, patience_s: float) -> list[int]:
    """Wait until no process carries the mark, then kill those that still do; returns the killed ones."""
    deadline = time.monotonic() + patience_s
    while left := _marked(mark):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return sorted(left)
        time.sleep(0.02)
    return []


def start_tick(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; with the pid it names one process for ever. None when gone."""
    fields = stat_fields(pid)
    return None if fields is None or fields[0] == "Z" else int(fields[19])


def pss_bytes(pid: int) -> int:
    """The process's proportional share of memory: pages shared by n processes count 1/n in each. 0 when it is gone."""
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def own_and_shared_bytes(pid: int) -> tuple[int, int]:
    """The process's share of memory in two parts, of which the second is what lies in shared memory. (0, 0) when it is gone."""
    own, shared = 0, 0
    try:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_File:")):
                own += int(line.split()[1]) * 1024
            elif line.startswith("Pss_Shmem:"):
                shared += int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return own, shared


def cpu_s(pid: int) -> float:
    """CPU time of all threads the process has had, user and system. 0 when it is gone.

    The clock of the process counts nanoseconds; `stat` counts ticks of 10 ms, too coarse for what an idle runtime uses.
    """
    process_clock = (~pid << 3) | 2  # Linux: the clock id of another process's CPU time
    try:
        return time.clock_gettime(process_clock)
    except OSError:
        fields = stat_fields(pid)
        return 0.0 if fields is None else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ended_children_cpu_s(pid: int) -> float:
    """CPU time of the children that it has waited for, in ticks of 10 ms. 0 when it is gone."""
    fields = stat_fields(pid)
    return 0.0 if fields is None else (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def descriptor_count(pid: int) -> int:
    """How many descriptors the process has open; 0 when it is gone."""
    try:
        return len(os.listdir(PROC / str(pid) / "fd"))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def shared_files(pid: int) -> set[Path]:
    """Files in /dev/shm that the process maps or has open, unlinked ones left out."""
    found: set[str] = set()
    folder = PROC / str(pid)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        found.update(line.split(maxsplit=5)[5] for line in (folder / "maps").read_text().splitlines() if SHARED in line)
        for descriptor in os.listdir(folder / "fd"):
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(folder / "fd" / descriptor))
    return {Path(name) for name in found if name.startswith(SHARED) and not name.endswith(" (deleted)")}


def command_of(pid: int) -> str:
    """What to call the process in a message; empty when it is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def stat_fields(pid: int) -> list[str] | None:
    """`/proc/PID/stat` from the state on (the name before it may hold spaces); None when there is no such process."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _marked(mark: str) -> set[int]:
    return {pid for pid in _pids() if _has_mark(pid, mark) and start_tick(pid) is not None}


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir(PROC) if entry.isdigit()]


def _has_mark(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
