"""Workers' log files of a directory: which there are, and what is in them, piece by piece. See `umbel._agent.log_files`."""

from __future__ import annotations

import os
from typing import NamedTuple

PIECE_BYTES_MAX = 1 << 20  # what is read at once, and goes from node to node in one message


class Stat(NamedTuple):
    """A file as it was. inode: another one when it was full and begun anew."""

    inode: int
    size_bytes: int
    changed_s: float


def look(directory: str) -> dict[str, Stat]:
    """The files of a directory, by name; {} where there is none."""
    found = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if is_log(entry.name):
                    stat = entry.stat()
                    found[entry.name] = Stat(stat.st_ino, stat.st_size, stat.st_mtime)
    except FileNotFoundError:  # the directory, or a file that has just gone
        pass
    return found


def is_log(name: str) -> bool:
    """And nothing else, wherever it comes from."""
    return name.startswith("worker-") and name == os.path.basename(name)


def read(directory: str, name: str, at: int) -> bytes:
    """What a file has from this byte on, at most a piece; nothing of one that is not there. Raises ValueError for what is no
    name of a log file."""
    if not is_log(name):
        raise ValueError(f"a log file has a name that begins with worker-, got {name!r:.200}")
    try:
        with open(os.path.join(directory, name), "rb", buffering=0) as file:
            file.seek(at)
            return file.read(PIECE_BYTES_MAX)
    except FileNotFoundError:
        return b""
