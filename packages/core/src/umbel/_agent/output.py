"""Workers' output, cut into lines.

A worker's standard output and error are two pipes that the agent reads. A line "\\x1fname:NAME" is not output: it says
whose lines follow (the worker writes it when it starts a task or becomes an actor).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from umbel._transport import connection as transport

NAME_MARK = b"\x1fname:"
LINE_BYTES_MAX = 65_536  # a longer line without an end is forwarded in pieces, so that it cannot fill the memory
READ_BYTES = 65_536  # the size of a pipe


class LineSplitter:
    """Cuts bytes into lines and follows the name marks."""

    __slots__ = ("_rest", "name")

    def __init__(self) -> None:
        self.name = ""
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[str, list[str]]]:
        """(name, lines) for the lines completed by `data`, in order; a new entry at every change of name."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        return self._grouped(lines)

    def finish(self) -> list[tuple[str, list[str]]]:
        """The last line, if it has no end."""
        rest, self._rest = self._rest, b""
        return self._grouped([rest] if rest else [])

    def _grouped(self, lines: list[bytes]) -> list[tuple[str, list[str]]]:
        groups: list[tuple[str, list[str]]] = []
        for line in lines:
            if line.startswith(NAME_MARK):
                self.name = line[len(NAME_MARK) :].decode(errors="replace")
            else:
                if not groups or groups[-1][0] != self.name:
                    groups.append((self.name, []))
                groups[-1][1].append(line.decode(errors="replace").rstrip("\r"))
        return groups


class OutputPipe:
    """Reads one pipe of one worker until its end."""

    __slots__ = ("_fd", "_on_lines", "_poller", "_splitter")

    def __init__(self, fd: int, poller: transport.Poller, on_lines: Callable[[str, list[str]], None]) -> None:
        """fd: the reading end, owned from now on. on_lines(name, lines)."""
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
        for name, lines in self._splitter.feed(data):
            self._on_lines(name, lines)
        return len(data)

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
            for name, lines in self._splitter.finish():
                self._on_lines(name, lines)
