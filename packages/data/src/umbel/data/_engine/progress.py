"""How a run goes on, for people who watch: a line for each stage, drawn anew in place, on a terminal or in a notebook.

The thread that drives the run draws, when something has happened and the last time is a while ago; once more after the last
thing that happened, so that what is seen while everything waits is what it waits for. There is no thread and no tick, nothing is
drawn in the first half second, and nothing at all where nobody watches. Lines are plain text with a few of ANSI's sequences:
that needs no library, and one that redraws by itself would have a thread that does.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
from typing import Any, Final, Protocol, TextIO

from umbel.data._engine import reports, runs, scheduling

FIRST_AFTER_S: Final = 0.5  # what is over sooner needs no progress
EVERY_S: Final = 0.2  # more often is more than an eye follows
BAR_CHARS: Final = 12
WIDTH_MIN, WIDTH_MAX = 40, 160
HEIGHT_MIN: Final = 6

# Of the terminal or the notebook, which one run draws on at a time; others are silent.
_screen: Final = threading.Lock()


class Screen(Protocol):
    """Where lines are shown. size: characters in a line, and lines."""

    def size(self) -> tuple[int, int]: ...

    def show(self, lines: list[str]) -> None:
        """Instead of those shown before."""


class Terminal:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = 0

    def size(self) -> tuple[int, int]:
        try:
            width, height = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            width, height = 80, 24
        return width or 80, height or 24

    def show(self, lines: list[str]) -> None:
        up = f"\x1b[{self._shown}A" if self._shown else ""
        self._stream.write(up + "".join(f"\r\x1b[K{line}\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._shown = len(lines)


class Notebook:
    """display: IPython's."""

    def __init__(self, display: Any) -> None:
        self._display = display
        self._handle: Any = None

    def size(self) -> tuple[int, int]:
        return 120, 40

    def show(self, lines: list[str]) -> None:
        import html

        text = "\n".join(lines)
        data = {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
        if self._handle is None:
            self._handle = self._display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)


def screen() -> Screen | None:
    """Where people see lines that change; None where nobody does."""
    library = sys.modules.get("IPython")
    shell = library.get_ipython() if library is not None else None
    if shell is not None and getattr(shell, "kernel", None) is not None:
        return Notebook(importlib.import_module("IPython.display").display)
    stream = sys.stderr
    is_watched = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    return Terminal(stream) if is_watched else None


class Progress:
    """Of one run. has_stages: with a line for each stage, under that of the whole.

    due_s: when it is to be drawn even if nothing happens; None for never."""

    def __init__(
        self, machine: scheduling.Machine, name: str | None, where: Screen, began_s: float, *, has_stages: bool = True
    ) -> None:
        self._machine = machine
        self._has_stages = has_stages
        self._name = name
        self._where = where
        self._began_s = began_s
        self._next_s = began_s + FIRST_AFTER_S
        self._has_screen = False
        self.due_s: float | None = None

    def look(self, now_s: float) -> None:
        """Something has happened, or what is due."""
        if now_s < self._next_s:
            self.due_s = self._next_s
            return
        self.due_s = None
        self._next_s = now_s + EVERY_S
        self._draw(now_s)

    def end(self, now_s: float, *, has_failed: bool) -> None:
        """The last lines stay."""
        self.due_s = None
        if self._has_screen:
            self._draw(now_s, how=", failed" if has_failed else "")
            self._has_screen = False
            _screen.release()

    def _draw(self, now_s: float, how: str = "") -> None:
        if not self._has_screen:
            if not _screen.acquire(blocking=False):
                return
            self._has_screen = True
        width, height = self._where.size()
        width = min(max(width - 1, WIDTH_MIN), WIDTH_MAX)
        found = lines(self._machine, width=width, height=max(height - 2, HEIGHT_MIN)) if self._has_stages else []
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone, which is no reason to end a run
            self._where.show([f"{self._title(now_s)}{how}"[:width], *found])

    def _title(self, now_s: float) -> str:
        total = self._machine.runs[-1].stats
        name = f"{self._name}: " if self._name else ""
        return f"{name}{total.rows_out:,} rows, {reports.sized(total.bytes_out)}, in {now_s - self._began_s:.1f} s"


def of(machine: scheduling.Machine, name: str | None, began_s: float, *, has_stages: bool = True) -> Progress | None:
    """None where nobody watches. has_stages: with a line for each, under that of the whole."""
    where = screen()
    return None if where is None else Progress(machine, name, where, began_s, has_stages=has_stages)


def lines(machine: scheduling.Machine, *, width: int, height: int) -> list[str]:
    """One of each stage that does something, as many as there is room for: first of those that are not done."""
    every = [run for run in machine.runs if run.has_tasks]
    chosen = every
    if len(every) > height:
        going = [run for run in every if not run.is_closed] + [run for run in every if run.is_closed]
        kept = {*map(id, going[: height - 1])}
        chosen = [run for run in every if id(run) in kept]
    names = max((len(run.name) for run in chosen), default=0)
    names = min(names, max(12, width // 3))
    found = [_line(run, names, width) for run in chosen]
    if len(chosen) < len(every):
        found.append(f"and {len(every) - len(chosen)} more stages")
    return found


def _line(run: runs.Run, name_chars: int, width: int) -> str:
    part = 1.0 if run.is_closed else min(run.progress(), 0.99)
    filled = int(part * BAR_CHARS)
    bar = "█" * filled + "░" * (BAR_CHARS - filled)
    stats = run.stats
    cells = [
        f"{reports.shortened(run.name, name_chars):<{name_chars}}",
        bar,
        f"{part:>4.0%}",
        f"{stats.rows_out:,} rows",
        reports.sized(stats.bytes_out),
    ]
    again = stats.tasks_retried + stats.tasks_repeated
    if not run.is_closed:
        actors = "" if run.pool is None else f" on {_counted(run.pool.count, 'actor')}"
        cells.append(f"{_counted(len(run.tasks), 'task')}{actors}")
    if again:
        cells.append(f"{again} tried again")
    if run.reason and not run.is_closed and not (run.reason == "tasks" and run.tasks):
        cells.append(reports.WAITS.get(run.reason, run.reason))
    return "  ".join(cells)[:width]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
