"""The control groups that this process is in, of version 2 or 1, and what they allow of the machine's memory.

Apart from `machine`, which every process reads: only who asks for memory needs this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from umbel._base import machine

CGROUP_ROOT = "/sys/fs/cgroup"


class Group:
    """A control group. Beside its directory: the names of its files of the limit and of what is used, and of those lines
    of memory.stat that the kernel gives back by itself before it kills: pages of files, without those in shared memory,
    and what the kernel keeps of its own to be quick."""

    __slots__ = ("limit", "path", "reclaimable", "used")

    def __init__(self, path: str, limit: str, used: str, reclaimable: tuple[bytes, ...]) -> None:
        self.path = path
        self.limit = limit
        self.used = used
        self.reclaimable = reclaimable

    def at(self, path: str) -> Group:
        """Another group of the same version."""
        return Group(path, self.limit, self.used, self.reclaimable)


_V2 = Group("", "memory.max", "memory.current", (b"active_file", b"inactive_file", b"slab_reclaimable"))
_V1 = Group("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", (b"total_active_file", b"total_inactive_file"))
GROUP_VERSIONS = (_V2, _V1)


EVENTS = ("memory.events", "memory.oom_control")  # of version 2 and 1: has a line "oom_kill N"


def own_groups(root: str = CGROUP_ROOT, membership: str = "/proc/self/cgroup") -> list[Group]:
    """The control groups that this process is in, of either version, whether they limit memory or not."""
    return [version.at(os.path.normpath(_top(root, version) + own)) for version, own in _memberships(membership)]


def limited_groups(root: str = CGROUP_ROOT, membership: str = "/proc/self/cgroup") -> list[Group]:
    """This process's control groups, of version 2 or 1, that limit memory, and those around them. A group whose limit is
    above the machine's memory is left out."""
    total, _ = machine.memory_bytes()
    found = []
    for version, own in _memberships(membership):
        top = _top(root, version)
        path = os.path.normpath(top + own)
        while path == top or path.startswith(top + os.sep):
            limit = _number(f"{path}/{version.limit}")
            if limit is not None and not (total and limit >= total):
                found.append(version.at(path))
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
    _, available = machine.memory_bytes()
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
