"""Which log files are to go: those that are too old, then the oldest until the rest fits. This module only decides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class LogFile(NamedTuple):
    """A file with its index. changed_s, expires_s: seconds since the epoch; is_open: it is still written."""

    path: str
    size_bytes: int
    changed_s: float
    expires_s: float
    is_open: bool = False


def excess(files: Iterable[LogFile], *, now_s: float, bytes_max: int) -> list[str]:
    """The paths of the files to remove, the oldest first. What is open is counted and never removed."""
    kept = []
    removed = []
    for file in sorted(files, key=lambda file: file.changed_s):
        if file.expires_s <= now_s and not file.is_open:
            removed.append(file.path)
        else:
            kept.append(file)
    size_bytes = sum(file.size_bytes for file in kept)
    for file in kept:
        if size_bytes <= bytes_max:
            break
        if not file.is_open:
            size_bytes -= file.size_bytes
            removed.append(file.path)
    return removed
