"""What workers print, at the driver: a short prefix, and equal lines folded."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

KEYS_MAX = 1_000  # distinct lines remembered for folding; older ones are forgotten, and shown again


class DriverOutput:
    """Writes workers' lines to this process's output.

    A line is shown at once when new. The same text again within `fold_s` seconds is only counted, and the count is
    shown with its next appearance after that time, or at the end. The prefix is `(name pid=N)`, with `ip=` of another node.
    """

    def __init__(self, *, fold_s: float, use_color: bool) -> None:
        self._fold_s = fold_s
        self._use_color = use_color
        self.has_folded = False  # there are counts that nobody has seen
        self._seen: dict[
            tuple[str, str], list[Any]
        ] = {}  # (name, line) -> [shown at, folded since, last prefix, stream]

    def show(self, message: dict[str, Any]) -> None:
        """One `log` notice of the agent."""
        stream = sys.stderr if message.get("is_err") else sys.stdout
        name, pid, ip = message.get("name") or "worker", message.get("pid"), message.get("ip", "")
        prefix = f"({name} pid={pid}, ip={ip})" if ip else f"({name} pid={pid})"
        now = time.monotonic()
        lines = []
        for line in message["lines"]:
            if not line.strip():
                continue
            key = (name, line)
            entry = self._seen.get(key)
            if entry is not None and self._fold_s > 0 and now - entry[0] < self._fold_s and entry[4] != (ip, pid):
                entry[1] += 1
                entry[2] = prefix
                self.has_folded = True
                continue
            folded = entry[1] if entry is not None else 0
            lines.append(self._line(prefix, line, folded, stream))
            if self._fold_s > 0:
                self._remember(key, [now, 0, prefix, stream, (ip, pid)])
        if lines:
            self._write(stream, lines)

    def flush_folded(self, *, everything: bool = False) -> None:
        """Show the counts that have waited for `fold_s`."""
        now = time.monotonic()
        for key, entry in list(self._seen.items()):
            if everything or now - entry[0] >= self._fold_s:
                self._forget(key)
        self.has_folded = any(entry[1] for entry in self._seen.values())

    def _forget(self, key: tuple[str, str]) -> None:
        _, folded, prefix, stream, _ = self._seen.pop(key)
        if folded:
            self._write(stream, [self._line(prefix, key[1], folded, stream)])

    def _remember(self, key: tuple[str, str], entry: list[Any]) -> None:
        if len(self._seen) >= KEYS_MAX:
            self._forget(next(iter(self._seen)))  # the one shown longest ago
        self._seen.pop(key, None)  # so that the order is that of being shown
        self._seen[key] = entry

    def _line(self, prefix: str, line: str, folded: int, stream: TextIO) -> str:
        if self._use_color and stream.isatty():
            prefix = f"\033[36m{prefix}\033[0m"
        again = f" [repeated {folded}x by other workers]" if folded else ""
        return f"{prefix} {line}{again}\n"

    @staticmethod
    def _write(stream: TextIO, lines: list[str]) -> None:
        try:
            stream.write("".join(lines))
            stream.flush()
        except (OSError, ValueError):  # the program has closed its output
            pass
