"""Lines that show how a run goes on."""

from __future__ import annotations

import io
import sys
import types
from typing import Any

import pytest

from umbel.data._engine import events, progress, scheduling, stages


def _unused(*_arguments: Any) -> Any:
    raise AssertionError("nothing runs here")


def machine(budget_bytes: int = 1 << 40) -> scheduling.Machine:
    read = stages.Read(name="ReadParquet", parts=[stages.ReadPart(_unused, size_bytes=10)] * 4)
    mapped = stages.Map(name="Map(f)", input=read, transforms=(), compute=stages.ActorPool(max_size=2))
    found = scheduling.Machine(stages.Limit(input=mapped, row_count=9_999), scheduling.Options(budget_bytes))
    found.apply(events.Began({"CPU": 2.0}, 1.0))
    return found


class Screen:
    """What was shown, time after time."""

    def __init__(self) -> None:
        self.shown: list[list[str]] = []

    def size(self) -> tuple[int, int]:
        return 100, 30

    def show(self, lines: list[str]) -> None:
        self.shown.append(lines)


def test_a_line_says_what_a_stage_has_done_and_why_it_waits() -> None:
    found = machine()
    found.apply(events.BlockMade(1, 1, 1, 5_000, 50 << 10, 2.0))
    found.apply(events.TaskEnded(1, 1, events.Cost(), 2.0))
    read, mapped = progress.lines(found, width=120, height=9)
    assert read == "ReadParquet  ███░░░░░░░░░   25%  5,000 rows  50.0 KiB  3 tasks"
    assert mapped == "Map(f)       ░░░░░░░░░░░░    0%  0 rows  0 B  0 tasks on 1 actor  waits for its actors"


def test_lines_are_no_wider_and_no_more_than_there_is_room_for() -> None:
    stage: stages.Stage = stages.Read(name="Read", parts=[stages.ReadPart(_unused)] * 2)
    for number in range(9):
        stage = stages.Map(name=f"Map{number}" * 20, input=stage, transforms=())
    found = scheduling.Machine(stage, scheduling.Options(1 << 40))
    found.apply(events.Began({"CPU": 2.0}, 1.0))
    found.runs[0].is_closed = True
    some = progress.lines(found, width=60, height=5)
    assert len(some) == 5 and max(map(len, some)) == 60
    assert some[-1] == "and 6 more stages" and "Read" not in some[0]


def test_nothing_is_drawn_of_what_is_over_soon() -> None:
    screen = Screen()
    watched = progress.Progress(machine(), None, screen, 1.0)
    watched.look(1.1)
    watched.look(1.49)
    watched.end(1.49, has_failed=False)
    assert screen.shown == []


def test_lines_are_drawn_now_and_then_and_once_after_the_last_event() -> None:
    screen = Screen()
    watched = progress.Progress(machine(), "photos", screen, 1.0)
    watched.look(1.3)
    assert watched.due_s == 1.5, "whoever drives the run looks again then"
    watched.look(1.5)
    assert watched.due_s is None and len(screen.shown) == 1
    watched.look(1.6)
    assert len(screen.shown) == 1 and watched.due_s == pytest.approx(1.7)
    watched.look(1.7)
    watched.end(3.0, has_failed=True)
    assert [lines[0] for lines in screen.shown] == [
        "photos: 0 rows, 0 B, in 0.5 s",
        "photos: 0 rows, 0 B, in 0.7 s",
        "photos: 0 rows, 0 B, in 2.0 s, failed",
    ]


def test_there_may_be_one_line_for_the_whole_only() -> None:
    screen = Screen()
    watched = progress.Progress(machine(), "photos", screen, 1.0, has_stages=False)
    watched.look(1.5)
    watched.end(2.0, has_failed=False)
    assert screen.shown == [["photos: 0 rows, 0 B, in 0.5 s"], ["photos: 0 rows, 0 B, in 1.0 s"]]


def test_one_run_draws_at_a_time() -> None:
    first, second = Screen(), Screen()
    runs = [progress.Progress(machine(), None, screen, 0.0) for screen in (first, second)]
    runs[0].look(1.0)
    runs[1].look(1.0)
    assert (len(first.shown), len(second.shown)) == (1, 0)
    runs[0].end(2.0, has_failed=False)
    runs[1].look(3.0)
    runs[1].end(3.0, has_failed=False)
    assert (len(first.shown), len(second.shown)) == (2, 2)


def test_a_terminal_is_drawn_over() -> None:
    stream = io.StringIO()
    terminal = progress.Terminal(stream)
    terminal.show(["a", "b"])
    terminal.show(["c"])
    assert stream.getvalue() == "\r\x1b[Ka\n\r\x1b[Kb\n\x1b[J\x1b[2A\r\x1b[Kc\n\x1b[J"
    assert terminal.size() == (80, 24)


def test_a_terminal_that_is_gone_ends_no_run() -> None:
    stream = io.StringIO()
    watched = progress.Progress(machine(), None, progress.Terminal(stream), 0.0)
    stream.close()
    watched.look(1.0)
    watched.end(1.0, has_failed=False)


def test_nothing_is_shown_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress.of(machine(), None, 0.0) is None
    watched = io.StringIO()
    watched.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", watched)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress.screen(), progress.Terminal)
    monkeypatch.setenv("TERM", "dumb")
    assert progress.screen() is None


def test_a_notebook_has_one_output_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython is stood for by what is used of it."""
    told: list[tuple[str, str]] = []

    class Handle:
        def update(self, data: dict[str, str], *, raw: bool) -> None:
            told.append(("update", data["text/html"]))

    def display(data: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        told.append(("display", data["text/html"]))
        return Handle()

    library: Any = types.ModuleType("IPython")
    library.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", library)
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))  # type: ignore[arg-type]
    screen = progress.screen()
    assert isinstance(screen, progress.Notebook)
    screen.show(["a < b"])
    screen.show(["c"])
    assert told == [("display", "<pre>a &lt; b</pre>"), ("update", "<pre>c</pre>")]
    library.get_ipython = lambda: types.SimpleNamespace(kernel=None)  # IPython's shell on a terminal
    assert not isinstance(progress.screen(), progress.Notebook)
