"""How files, or parts of files, are divided among tasks. Pure.

Order is kept: each task has neighbours, and the tasks follow each other. They get about the same number of bytes, where
opening a file counts as much as reading some: two thousand tiny files are a handful of tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

OPEN_COST_BYTES: Final = 256 << 10  # what could be read in the time that opening takes: about 1 ms on a disk
TASK_BYTES: Final = 64 << 20  # of a task where nobody says how many are wanted: about a second of work


@dataclass(frozen=True)
class Unit:
    """A file, or a part of it that is read apart: `part` is what its reader made, None for the whole. size_bytes: on disk.
    row_count: exact, or None."""

    path: str
    size_bytes: int
    part: Any = None
    row_count: int | None = None


def task_count(parallelism: int, size_bytes: int) -> int:
    """What is wanted, or what suits so many bytes where that is -1."""
    return parallelism if parallelism > 0 else max(1, -(-size_bytes // TASK_BYTES))


def weight(unit: Unit) -> int:
    return unit.size_bytes + OPEN_COST_BYTES


def pack(units: Sequence[Unit], parallelism: int) -> list[list[Unit]]:
    """At most as many groups as are wanted, none of them empty, in order.

    A group ends where the running weight comes closest to its share of the whole. What is asked for by number is given,
    as far as there are units: one may be read for the sake of much work behind it.
    """
    if not units:
        return []
    whole = sum(weight(unit) for unit in units)
    count = min(task_count(parallelism, whole), len(units))
    groups: list[list[Unit]] = []
    group: list[Unit] = []
    done = 0
    for index, unit in enumerate(units):
        left_groups, left_units = count - len(groups), len(units) - index
        share = whole * (len(groups) + 1) / count
        # With this unit the group would be further from its share than without.
        is_past = done + weight(unit) / 2 > share
        if group and left_groups > 1 and (is_past or left_units < left_groups):
            groups.append(group)
            group = []
        group.append(unit)
        done += weight(unit)
    groups.append(group)
    return groups


def first_units(units: Sequence[Unit], row_limit: int) -> list[Unit]:
    """Those at the front that certainly hold so many rows; all of them, where it is not known how many they hold."""
    kept: list[Unit] = []
    for unit in units:
        if row_limit <= 0 and kept:
            break
        kept.append(unit)
        row_limit -= unit.row_count or 0
    return kept
