"""Facts about this machine: its CPUs, its memory, and what a control group allows of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

CGROUP_ROOT = "/sys/fs/cgroup"


class Group(NamedTuple):
    """A control group. Beside its directory: the names of its files of the limit and of what is used, and of those lines
    of memory.stat that the kernel gives back by itself before it kills: pages of files, without those in shared memory,
    and what the kernel keeps of its own to be quick."""

    path: str
    limit: str
    used: str
    reclaimable: tuple[bytes, ...]


_V2 = Group("", "memory.max", "memory.current", (b"active_file", b"inactive_file", b"slab_reclaimable"))
_V1 = Group("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", (b"total_active_file", b"total_inactive_file"))


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


GROUP_VERSIONS = (_V2, _V1)


def own_groups(root: str = CGROUP_ROOT, membership: str = "/proc/self/cgroup") -> list[Group]:
    """The control groups that this process is in, of either version, whether they limit memory or not."""
    return [
        version._replace(path=os.path.normpath(_top(root, version) + own)) for version, own in _memberships(membership)
    ]


def limited_groups(root: str = CGROUP_ROOT, membership: str = "/proc/self/cgroup") -> list[Group]:
    """This process's control groups, of version 2 or 1, that limit memory, and those around them. A group whose limit is
    above the machine's memory is left out."""
    total, _ = memory_bytes()
    found = []
    for version, own in _memberships(membership):
        top = _top(root, version)
        path = os.path.normpath(top + own)
        while path == top or path.startswith(top + os.sep):
            limit = _number(f"{path}/{version.limit}")
            if limit is not None and not (total and limit >= total):
                found.append(version._replace(path=path))
            path = os.path.dirname(path)
    return found


def _top(root: str, version: Group) -> str:
    """Where the groups of a version are mounted."""
    return os.path.join(root, version.path) if version.path else root


def _memberships(path: str) -> Iterator[tuple[Group, str]]:
    """(version, group), as in /proc/self/cgroup."""
    try:
        with open(path, "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(b":")
        controllers, _, own = rest.partition(b":")
        if number == b"0" and not controllers:
            yield _V2, os.fsdecode(own)
        elif b"memory" in controllers.split(b","):
            yield _V1, os.fsdecode(own)


def group_memory_bytes(group: Group) -> tuple[int, int]:
    """(used, limit) of a control group, without what the kernel would give back. (0, 0) when the group has gone, or has
    no limit any more."""
    limit, used = _number(f"{group.path}/{group.limit}"), _number(f"{group.path}/{group.used}")
    if limit is None or used is None:
        return 0, 0
    try:
        with open(f"{group.path}/memory.stat", "rb") as lines:
            for line in lines:
                name, _, rest = line.partition(b" ")
                if name in group.reclaimable:
                    used -= int(rest)
    except (OSError, ValueError):
        pass
    return max(0, used), limit


def available_bytes() -> int:
    """What this process and its children may still take: of the machine, and of their control groups."""
    _, available = memory_bytes()
    if not available:
        import psutil

        available = int(psutil.virtual_memory().available)
    for group in limited_groups():
        used, limit = group_memory_bytes(group)
        if limit:
            available = min(available, max(0, limit - used))
    return available


def _number(path: str) -> int | None:
    """The number in a file; None for "max", and where there is no such file."""
    try:
        with open(path, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
