"""A runtime seen from outside: its processes, what they hold, and what is left of them in the end. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import processes

SETTLE_MAX_S = 60.0  # for memory to come back: idle workers end and segments are given back after some seconds
MIB = 1 << 20

# What "back where it was" means. Processes differ by what they happened to run; a leak of one object or descriptor per
# hundred calls is far above all of these after a minute.
RUNTIME_MEMORY_SLACK = 64 * MIB
DRIVER_MEMORY_SLACK = 48 * MIB
SHARED_MEMORY_SLACK = 64 * MIB
DESCRIPTOR_SLACK = 10


@dataclass
class Usage:
    """What the runtime and its driver hold at one moment."""

    runtime_bytes: int
    driver_bytes: int
    shared_bytes: int
    descriptors: int
    processes: int

    def beyond(self, before: Usage) -> list[str]:
        """What is more than it was, by more than the slack."""
        found = []
        for name, slack in (
            ("runtime_bytes", RUNTIME_MEMORY_SLACK),
            ("driver_bytes", DRIVER_MEMORY_SLACK),
            ("shared_bytes", SHARED_MEMORY_SLACK),
            ("descriptors", DESCRIPTOR_SLACK),
        ):
            was, now = getattr(before, name), getattr(self, name)
            if now > was + slack:
                found.append(f"{name} {now:,}, was {was:,} before the kills; {slack:,} more would be within bounds")
        return found

    def __str__(self) -> str:
        return (
            f"{self.processes} processes with {self.runtime_bytes / MIB:.0f} MiB, "
            f"driver with {self.driver_bytes / MIB:.0f} MiB and {self.descriptors} descriptors, "
            f"{self.shared_bytes / MIB:.0f} MiB in shared memory"
        )


@dataclass
class Watch:
    """Sees a runtime's processes, and the shared-memory files that they have open. others: how many descriptors of this process
    are not the runtime's."""

    mark: str
    shared: set[Path] = field(default_factory=set)
    others: Callable[[], int] = field(default=lambda: 0)

    def family(self) -> set[int]:
        return processes.family(os.getpid(), self.mark)

    def usage(self) -> Usage:
        self.find_shared()
        family = self.family() - {os.getpid()}
        return Usage(
            runtime_bytes=sum(processes.pss_bytes(pid) for pid in family),
            driver_bytes=processes.pss_bytes(os.getpid()),
            shared_bytes=sum(size_of(path) for path in self.shared),
            descriptors=processes.descriptor_count(os.getpid()) - self.others(),
            processes=len(family),
        )

    def find_shared(self) -> None:
        """Remember every file in /dev/shm that one of the processes maps or has open."""
        for pid in self.family():
            self.shared |= processes.shared_files(pid)

    def settled(self, before: Usage | None) -> Usage:
        """The usage once it is back where it was, or once `SETTLE_MAX_S` is over; without `before`, once it is steady."""
        deadline = time.monotonic() + SETTLE_MAX_S
        give_back_memory()
        last = self.usage()
        while time.monotonic() < deadline:
            time.sleep(3.0)
            give_back_memory()
            now = self.usage()
            if not now.beyond(before or last) and (before is not None or not last.beyond(now)):
                return now
            last = now
        return last

    def leftovers(self, folder: Path) -> list[str]:
        """What is still there after `shutdown`. Processes get some seconds, and then an end."""
        killed = []
        deadline = time.monotonic() + 10.0
        while (left := self.family() - {os.getpid()}) and time.monotonic() < deadline:
            time.sleep(0.1)
        for pid in left:
            killed.append(f"process {pid}: {processes.command_of(pid)[:200]}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return [
            *killed,
            *(f"shared memory {path}" for path in sorted(path for path in self.shared if path.exists())),
            *(f"file {path}" for path in sorted(folder.rglob("*")) if not path.is_dir()),
        ]


def give_back_memory() -> None:
    """What this process has freed, which the allocator keeps for later: after large values that is many times our slack."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # a C library that is not glibc
        ctypes.CDLL(None).malloc_trim(0)


def size_of(path: Path) -> int:
    """Bytes that the file takes of memory, holes not counted; 0 when it is gone."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
