"""Reading log files of workers, on any node of a session that runs, and where they are kept. See `umbel._agent.log_files`."""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from umbel._client import log_files
from umbel._client.log_files import Stat

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


class Files(Protocol):
    """A directory of logs."""

    @property
    def place(self) -> str:
        """Where it is."""

    @property
    def title(self) -> str:
        """How it is told from others, behind what is in it; "" where there are none."""

    def look(self) -> Mapping[str, Stat]:
        """The files that are there now, by name."""

    def read(self, name: str, at: int) -> bytes:
        """What a file has from this byte on, perhaps not all of it; nothing of one that is not there."""


class LocalFiles:
    """On this machine."""

    title = ""

    def __init__(self, directory: str) -> None:
        self.place = directory

    def look(self) -> Mapping[str, Stat]:
        return log_files.look(self.place)

    def read(self, name: str, at: int) -> bytes:
        return log_files.read(self.place, name, at)


class Stream:
    """The lines of one file, with those of the file before it when it was full. Reads on as it grows."""

    def __init__(self, files: Files, name: str) -> None:
        self._files = files
        self.name = name
        stem, _, ending = name.rpartition(".")
        _, self.worker, self.pid = stem.split("-")
        self.is_error = ending == "err"
        self.entries: list[Entry] = []  # of the file as it is now
        self._inode = 0
        self._at = 0
        self._index_at = 0
        self._looked_at: tuple[Stat, ...] = ()
        self._has = False

    @property
    def title(self) -> str:
        kind = "standard error" if self.is_error else "standard output"
        return f"worker {self.worker[:8]} (pid {self.pid}){self._files.title}, {kind}"

    @property
    def path(self) -> str:
        return f"{self._files.place}/{self.name}"

    def names(self) -> list[str]:
        """Of whom it has lines, in the order of their appearance."""
        return list(dict.fromkeys(entry.name for entry in self.entries if entry.name))

    def has(self, wanted: Wanted, seen: Mapping[str, Stat]) -> bool:
        """Whether it has lines that are wanted, as its index says, which is short beside them."""
        indexes = [one for one in (f"{self.name}.1{INDEX}", self.name + INDEX) if one in seen]
        stats = tuple(seen[one] for one in indexes)
        if stats != self._looked_at:
            self._looked_at = stats
            self._has = any(wanted(entry) for one in indexes for entry in _entries(_rest(self._files, one, 0)))
        return self._has

    def all(self, wanted: Wanted, seen: Mapping[str, Stat]) -> list[str]:
        """The lines that are wanted, from the beginning. seen: what was there when the files were looked at, as below."""
        self._begin(0)
        before = Stream(self._files, self.name)
        older = before._read(self.name + ".1", wanted) if self.name + ".1" in seen else []
        lines = older + self.more(wanted, seen)
        self.entries = before.entries + self.entries
        return lines

    def more(self, wanted: Wanted, seen: Mapping[str, Stat]) -> list[str]:
        """The lines that came since."""
        lines = []
        stat = seen.get(self.name)
        if stat is None or (stat.inode == self._inode and stat.size_bytes <= self._at):
            return []
        if self._inode and stat.inode != self._inode:  # it was full: what was added to it last is in the one before
            lines = self._read(self.name + ".1", wanted)
            self._begin(0)
        self._inode = stat.inode
        return lines + self._read(self.name, wanted)

    def _begin(self, inode: int) -> None:
        self._inode, self._at, self._index_at, self.entries = inode, 0, 0, []

    def _read(self, name: str, wanted: Wanted) -> list[str]:
        data = _rest(self._files, name, self._at)
        data = data[: data.rfind(b"\n") + 1]
        self._read_index(name)  # after the lines: it is written before them
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

    def _read_index(self, name: str) -> None:
        data = _rest(self._files, name + INDEX, self._index_at)
        data = data[: data.rfind(b"\n") + 1]
        self._index_at += len(data)
        self.entries += _entries(data)

    def describe(self, seen: Mapping[str, Stat]) -> dict[str, Any]:
        """For a list; `entries` must have been read."""
        found = seen[self.name]
        return {
            "worker": self.worker,
            "pid": int(self.pid),
            "stream": "err" if self.is_error else "out",
            "bytes": found.size_bytes,
            "changed_s": found.changed_s,
            "names": self.names(),
            "actors": list(dict.fromkeys(entry.actor for entry in self.entries if entry.actor)),
            "path": self.path,
        }


def _entries(index: bytes) -> list[Entry]:
    """Of an index, but for a line that is being written."""
    told = [json.loads(line) for line in index[: index.rfind(b"\n") + 1].splitlines()]
    return [Entry(one["at"], one["time"], one["name"], one["task"], one["actor"]) for one in told]


def _rest(files: Files, name: str, at: int) -> bytes:
    parts = []
    while data := files.read(name, at):
        parts.append(data)
        at += len(data)
    return b"".join(parts)


def names(seen: Mapping[str, Stat]) -> list[str]:
    """Of the streams of a directory that was looked at."""
    return [name for name in seen if name.startswith("worker-") and name.endswith((".out", ".err"))]


def streams(files: Files, seen: Mapping[str, Stat]) -> list[Stream]:
    """Of a directory that was looked at, workers that printed first coming first."""
    return sorted((Stream(files, name) for name in names(seen)), key=_first_written)


def _first_written(stream: Stream) -> tuple[float, str]:
    stream._read_index(stream.name)
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
