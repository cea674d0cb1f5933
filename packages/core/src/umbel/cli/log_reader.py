"""Reading workers' log files, of sessions that run and of those whose logs are kept. See `umbel._agent.log_files`."""

from __future__ import annotations

import bisect
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

INDEX = ".idx"
ID_MIN = 8  # digits of an id, as titles show; fewer may be the name of a function


class Entry(NamedTuple):
    """Whose the lines are from a byte on."""

    at: int
    time_s: float
    name: str
    task: str
    actor: str


Wanted = Callable[[Entry], bool]


class Stream:
    """The lines of one file, with those of the file before it when it was full. Reads on as it grows."""

    def __init__(self, path: str) -> None:
        self.path = path
        stem, _, ending = os.path.basename(path).rpartition(".")
        _, self.worker, self.pid = stem.split("-")
        self.is_error = ending == "err"
        self.entries: list[Entry] = []  # of the file as it is now
        self._inode = 0
        self._at = 0
        self._index_at = 0

    @property
    def title(self) -> str:
        kind = "standard error" if self.is_error else "standard output"
        return f"worker {self.worker[:8]} (pid {self.pid}), {kind}"

    def names(self) -> list[str]:
        """Of whom it has lines, in the order of their appearance."""
        return list(dict.fromkeys(entry.name for entry in self.entries if entry.name))

    def all(self, wanted: Wanted) -> list[str]:
        """The lines that are wanted, from the beginning."""
        self._begin(0)
        before = Stream(self.path)
        older = before._read(self.path + ".1", wanted)
        lines = older + self.more(wanted)
        self.entries = before.entries + self.entries
        return lines

    def more(self, wanted: Wanted) -> list[str]:
        """The lines that came since."""
        lines = []
        try:
            inode = os.stat(self.path).st_ino
        except OSError:
            return []
        if self._inode and inode != self._inode:  # it was full: what was added to it last is in the one before
            lines = self._read(self.path + ".1", wanted)
            self._begin(0)
        self._inode = inode
        return lines + self._read(self.path, wanted)

    def _begin(self, inode: int) -> None:
        self._inode, self._at, self._index_at, self.entries = inode, 0, 0, []

    def _read(self, path: str, wanted: Wanted) -> list[str]:
        try:
            with open(path, "rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._read_index(path)  # after the lines: it is written before them
        begin, end = self._at, self._at + len(data)
        self._at = end
        starts = [entry.at for entry in self.entries]
        lines: list[str] = []
        for number in range(max(0, bisect.bisect_right(starts, begin) - 1), len(starts)):
            first = max(begin, starts[number])
            last = min(end, starts[number + 1] if number + 1 < len(starts) else end)
            if first < last and wanted(self.entries[number]):
                lines += data[first - begin : last - begin].decode(errors="replace").split("\n")[:-1]
        return lines

    def _read_index(self, path: str) -> None:
        try:
            with open(path + INDEX, "rb") as file:
                file.seek(self._index_at)
                data = file.read()
        except OSError:
            return
        data = data[: data.rfind(b"\n") + 1]
        self._index_at += len(data)
        for line in data.splitlines():
            told = json.loads(line)
            self.entries.append(Entry(told["at"], told["time"], told["name"], told["task"], told["actor"]))

    def describe(self) -> dict[str, Any]:
        """For a list; `entries` must have been read."""
        found = os.stat(self.path)
        return {
            "worker": self.worker,
            "pid": int(self.pid),
            "stream": "err" if self.is_error else "out",
            "bytes": found.st_size,
            "changed_s": found.st_mtime,
            "names": self.names(),
            "actors": list(dict.fromkeys(entry.actor for entry in self.entries if entry.actor)),
            "path": self.path,
        }


def streams(directory: str) -> list[Stream]:
    """Of a session, workers that printed first coming first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    found = [name for name in names if name.startswith("worker-") and name.endswith((".out", ".err"))]
    return sorted(map(Stream, (os.path.join(directory, name) for name in found)), key=_first_written)


def _first_written(stream: Stream) -> tuple[float, str]:
    stream._read_index(stream.path)
    first_s = stream.entries[0].time_s if stream.entries else 0.0
    stream._begin(0)
    return first_s, f"{stream.worker}{stream.is_error:d}"


def wanted_by(about: str | None, stream: Stream) -> Wanted:
    """Which of a stream's lines an id or name means.

    about: of a worker or actor or the beginning of one, of a task, a process id, or the name of a task or actor; None for
    everything.
    """
    if about is None:
        return lambda entry: True
    text = about.lower()
    is_id = len(text) >= ID_MIN
    if stream.pid == text or (is_id and stream.worker.startswith(text)):
        return lambda entry: True

    def is_meant(entry: Entry) -> bool:
        return entry.name == about or entry.task == text or (is_id and entry.actor.startswith(text))

    return is_meant
