"""What user code prints: passed on with the name of the task that printed it."""

from __future__ import annotations

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

    def write(self, text: str) -> int:
        name = self._name()
        if name != self._announced:
            self._announced = name
            self._stream.write(f"{NAME_MARK}{name}\n")
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stream, attribute)


def install(name: Callable[[], str]) -> None:
    """Route this process's prints through named streams."""
    sys.stdout = NamedStream(sys.stdout, name)
    sys.stderr = NamedStream(sys.stderr, name)
