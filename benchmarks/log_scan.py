"""Looks for defects in what the runtime's processes write to their logs."""

from __future__ import annotations

import contextlib
from pathlib import Path

MARKS = ("internal error", "InternalError", "Fatal Python error")
DAEMON_MARKS = (*MARKS, "Traceback (most recent call last)")  # no user's code runs there
EXCERPT = 3000
TAIL = 1500


class LogScan:
    """Reads each log below a folder once. tails: the last lines of daemons' logs, by session, also of those that are gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}
        self.tails: dict[str, str] = {}

    def scan(self) -> list[str]:
        """What was found since the last time."""
        found = []
        for path in self._folder.glob("umbel-*/*/daemon.log"):
            text = self._more(path)
            session = path.parent.name
            self.tails[session] = (self.tails.get(session, "") + text)[-TAIL:]
            found += self._marked(path, text, DAEMON_MARKS)
        for path in self._folder.glob("umbel-*/*/logs/*"):
            found += self._marked(path, self._more(path), MARKS)
        return found

    def _more(self, path: Path) -> str:
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            data = file.read()
            self._read[path] = file.tell()
            return data.decode(errors="replace")
        return ""

    def _marked(self, path: Path, text: str, marks: tuple[str, ...]) -> list[str]:
        starts = [start for mark in marks if (start := text.find(mark)) >= 0]
        if not starts:
            return []
        return [f"{path.relative_to(self._folder)}: {text[min(starts) :][:EXCERPT]}"]
