"""Workers' output, cut into lines.

A worker's standard output and error are two pipes that the agent reads. A line "\\x1fname:NAME\\x1fTASK" is not output:
it says whose lines follow, and of which task (the worker writes it before the first line of each).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from umbel._transport import connection as transport

NAME_MARK = b"\x1fname:"
TASK_MARK = "\x1f"
LINE_BYTES_MAX = 65_536  # a longer line without an end is forwarded in pieces, so that it cannot fill the memory
READ_BYTES = 65_536  # the size of a pipe
CATCH_UP_READS_MAX = 2  # more than a pipe holds


Group = tuple[str, str, list[str]]  # name, task, lines


class LineSplitter:
    """Cuts bytes into lines and follows the name marks."""

    __slots__ = ("_rest", "name", "task")

    def __init__(self) -> None:
        self.name = ""
        self.task = ""
        self._rest = b""

    def feed(self, data: bytes) -> list[Group]:
        """The lines completed by `data`, in order; a new group at every change of name or task."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        return self._grouped(lines)

    def finish(self) -> list[Group]:
        """The last line, if it has no end."""
        rest, self._rest = self._rest, b""
        return self._grouped([rest] if rest else [])

    def _grouped(self, lines: list[bytes]) -> list[Group]:
        groups: list[Group] = []
        for line in lines:
            if line.startswith(NAME_MARK):
                self.name, _, self.task = line[len(NAME_MARK) :].decode(errors="replace").partition(TASK_MARK)
            else:
                if not groups or groups[-1][:2] != (self.name, self.task):
                    groups.append((self.name, self.task, []))
                groups[-1][2].append(line.decode(errors="replace").rstrip("\r"))
        return groups


def by_name(groups: list[Group]) -> list[tuple[str, list[str]]]:
    """(name, lines): what follows each other under one name, whichever tasks it is of."""
    merged: list[tuple[str, list[str]]] = []
    for name, _, lines in groups:
        if merged and merged[-1][0] == name:
            merged[-1][1].extend(lines)
        else:
            merged.append((name, list(lines)))
    return merged


class OutputPipe:
    """Reads one pipe of one worker until its end."""

    __slots__ = ("_fd", "_on_lines", "_poller", "_splitter")

    def __init__(self, fd: int, poller: transport.Poller, on_lines: Callable[[list[Group]], None]) -> None:
        """fd: the reading end, owned from now on. on_lines: told what came at once."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._poller = poller
        self._on_lines = on_lines
        self._splitter = LineSplitter()
        poller.register(fd, transport.IN, self._on_ready)

    def _on_ready(self, _events: int) -> None:
        self._read()

    def _read(self) -> int:
        """How many bytes came; at the end of the stream the pipe is closed."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._close()
            return 0
        groups = self._splitter.feed(data)
        if groups:
            self._on_lines(groups)
        return len(data)

    def catch_up(self) -> None:
        """Read what is in the pipe now, and no more of what a worker prints that never stops."""
        for _ in range(CATCH_UP_READS_MAX):
            if self._fd < 0 or not self._read():
                return

    def drain(self) -> None:
        """Read what is in the pipe and close it: the worker is gone, though processes that it started may not be."""
        while self._fd >= 0 and self._read():
            pass
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            self._poller.unregister(self._fd)
            os.close(self._fd)
            self._fd = -1
            groups = self._splitter.finish()
            if groups:
                self._on_lines(groups)
