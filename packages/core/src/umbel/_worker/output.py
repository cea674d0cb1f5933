"""What user code prints: passed on with the name and id of the task that printed it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, TextIO

NAME_MARK = "\x1fname:"  # a line that begins so names whatever follows; the agent takes it out
TASK_MARK = "\x1f"  # in such a line: the task's id follows


class NamedStream:
    """A text stream that announces who writes, by name and task, when that changes. Otherwise the stream itself."""

    def __init__(self, stream: TextIO, who: Callable[[], tuple[str, str]]) -> None:
        self._stream = stream
        self._who = who
        self._announced = ("", "")
        self._is_amid_line = False
        self.is_waiting = False  # there is text that only a flush will pass on: the stream does so at the ends of lines

    def write(self, text: str) -> int:
        who = self._who()
        if who != self._announced:
            self._announced = who
            end = "\n" if self._is_amid_line else ""
            self._stream.write(f"{end}{NAME_MARK}{TASK_MARK.join(who)}\n")
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


def install(who: Callable[[], tuple[str, str]]) -> tuple[NamedStream, NamedStream]:
    """Route this process's prints through named streams, which are returned. who: the name and the task's id."""
    out, err = NamedStream(sys.stdout, who), NamedStream(sys.stderr, who)
    sys.stdout, sys.stderr = out, err
    return out, err
