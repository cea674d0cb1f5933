"""What user code prints: passed on with the name of the task that printed it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, TextIO

NAME_MARK = "\x1fname:"  # a line that begins so names whatever follows; the agent takes it out


class NamedStream:
    """A text stream that announces a new name before the first text written under it. Otherwise the stream itself."""

    def __init__(self, stream: TextIO, name: Callable[[], str]) -> None:
        self._stream = stream
        self._name = name
        self._announced = ""
        self._is_amid_line = False
        self.is_waiting = False  # there is text that only a flush will pass on: the stream does so at the ends of lines

    def write(self, text: str) -> int:
        name = self._name()
        if name != self._announced:
            self._announced = name
            end = "\n" if self._is_amid_line else ""
            self._stream.write(f"{end}{NAME_MARK}{name}\n")
        if text:
            self._is_amid_line = self.is_waiting = text[-1] != "\n"
        return self._stream.write(text)

    def pass_on(self) -> None:
        """Flush, if that changes anything."""
        if self.is_waiting:
            self.is_waiting = False
            with contextlib.suppress(OSError, ValueError):  # closed by the user, or nobody reads
                self._stream.flush()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stream, attribute)


def install(name: Callable[[], str]) -> tuple[NamedStream, NamedStream]:
    """Route this process's prints through named streams, which are returned."""
    out, err = NamedStream(sys.stdout, name), NamedStream(sys.stderr, name)
    sys.stdout, sys.stderr = out, err
    return out, err
