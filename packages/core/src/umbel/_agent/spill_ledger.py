"""Which values lie in which spill file, and which files nobody needs any more.

A value is called by its segment: a name that its creator gives to no other value once this one was spilled. A file is
written by one client, holds the values of one order, and never changes. It goes when the last of them has died: when
its creator or owner says so, or when its owner is gone. This module only decides.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import NamedTuple

from umbel._base import checks


class Location(NamedTuple):
    """Where a value lies. checksum: zlib.crc32 of its bytes."""

    file: str
    offset: int
    size_bytes: int
    checksum: int


class RemoveFile(NamedTuple):
    """Nobody needs this file; part of it may never have been written."""

    file: str


class AskOwner(NamedTuple):
    """The creator of these values died, perhaps with word that they are not needed any more: ask their owner."""

    owner: str
    creator: str
    segments: tuple[str, ...]


class Forget(NamedTuple):
    """The value is dead: the client may let go of the copy that it has read back."""

    client: str
    segment: str


SpillCommand = RemoveFile | AskOwner | Forget


class SpillLedger:
    """The machine; one method for each event. directory: of the files, a path or a URL."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.locations: dict[str, Location] = {}  # by segment
        self.written_bytes = 0  # since the session began
        self.read_bytes = 0  # as far as somebody has asked where to
        self._held: dict[str, dict[str, None]] = {}  # file -> the segments in it that live
        self._writing: dict[str, str] = {}  # file -> who writes it
        self._readers: dict[str, dict[str, None]] = {}  # segment -> who has read it back
        self._count = 0

    @property
    def file_count(self) -> int:
        return len(self._held) + len(self._writing)

    @property
    def spilled_bytes(self) -> int:
        """Of the values that live."""
        return sum(location.size_bytes for location in self.locations.values())

    def begin(self, client: str) -> str:
        """A file for the client to write."""
        self._count += 1
        file = f"{self.directory}/{self._count}"
        self._writing[file] = client
        return file

    def written(
        self, client: str, file: str, entries: Iterable[tuple[str, int, int, int]], living: Container[str]
    ) -> list[SpillCommand] | None:
        """The file is complete. None: the client was not to write it, or no more, and nothing is entered.

        entries: (segment, offset, bytes, checksum). living: processes; what others own is dead."""
        if self._writing.get(file) != client:
            return None
        del self._writing[file]
        held: dict[str, None] = {}
        for segment, offset, size_bytes, checksum in entries:
            if owner_of(segment) not in living or segment in self.locations:
                continue
            self.locations[segment] = Location(file, offset, size_bytes, checksum)
            self.written_bytes += size_bytes
            held[segment] = None
        if not held:
            return [RemoveFile(file)]
        self._held[file] = held
        return []

    def given_up(self, client: str, file: str) -> None:
        """The client writes this file no more, and has left nothing of it; nothing happens if it is complete."""
        if self._writing.get(file) == client:
            del self._writing[file]

    def located(self, client: str, segment: str) -> Location | None:
        """The client wants to read the value back. None: it is not on disk."""
        location = self.locations.get(segment)
        if location is not None:
            self._readers.setdefault(segment, {})[client] = None
            self.read_bytes += location.size_bytes
        return location

    def freed(self, segment: str) -> list[SpillCommand]:
        """The value is dead, or was never spilled."""
        location = self.locations.pop(segment, None)
        if location is None:
            return []
        commands: list[SpillCommand] = [Forget(client, segment) for client in self._readers.pop(segment, ())]
        held = self._held[location.file]
        del held[segment]
        if not held:
            del self._held[location.file]
            commands.append(RemoveFile(location.file))
        return commands

    def client_gone(self, client: str) -> list[SpillCommand]:
        commands: list[SpillCommand] = []
        for readers in self._readers.values():
            readers.pop(client, None)
        for file in [file for file, writer in self._writing.items() if writer == client]:
            del self._writing[file]
            commands.append(RemoveFile(file))
        for segment in [segment for segment in self.locations if owner_of(segment) == client]:
            commands += self.freed(segment)
        orphans: dict[str, list[str]] = {}
        for segment in self.locations:
            if creator_of(segment) == client:
                orphans.setdefault(owner_of(segment), []).append(segment)
        commands += [AskOwner(owner, client, tuple(segments)) for owner, segments in orphans.items()]
        return commands

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        for file, held in self._held.items():
            checks.invariant(held, "a spill file holds nothing and is kept", file=file)
            checks.invariant(file not in self._writing, "a complete spill file is still being written", file=file)
            for segment in held:
                location = self.locations.get(segment)
                checks.invariant(
                    location is not None and location.file == file, "a value lies in no file or two", segment=segment
                )
        checks.invariant(
            sum(map(len, self._held.values())) == len(self.locations), "a value lies in a file that holds it not"
        )


def creator_of(segment: str) -> str:
    return segment.split(".", 1)[0]


def owner_of(segment: str) -> str:
    return (*segment.split(".", 2), "")[1]
