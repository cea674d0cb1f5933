"""Workers' output: cut into lines, and shown at the driver."""

from __future__ import annotations

import pytest

from umbel._agent.output import LINE_BYTES_MAX, LineSplitter, by_name
from umbel._client import output as driver_output


def test_lines_are_cut_wherever_the_pieces_end() -> None:
    splitter = LineSplitter()
    assert [splitter.feed(piece) for piece in (b"a\nb", b"c", b"\n\n", b"d")] == [
        [("", "", ["a"])],
        [],
        [("", "", ["bc", ""])],
        [],
    ]
    assert splitter.finish() == [("", "", ["d"])]
    assert splitter.finish() == []


def test_mark_names_the_lines_after_it_and_is_not_output() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"a\n\x1fname:f()\nb\nc\n\x1fname:\nd\n") == [
        ("", "", ["a"]),
        ("f()", "", ["b", "c"]),
        ("", "", ["d"]),
    ]
    assert splitter.feed(b"\x1fname:Counter") == []
    assert splitter.feed(b"(7)\ne\n") == [("Counter(7)", "", ["e"])]


def test_mark_names_the_task_and_a_new_task_of_the_same_name_begins_a_new_group() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"\x1fname:f\x1f01\na\n\x1fname:f\x1f02\nb\n\x1fname:f\x1f02\nc\n") == [
        ("f", "01", ["a"]),
        ("f", "02", ["b", "c"]),
    ]


def test_tasks_of_one_name_are_shown_together_and_in_order() -> None:
    groups = [("f", "01", ["a"]), ("f", "02", ["b", "c"]), ("g", "03", ["d"]), ("f", "01", ["e"])]
    assert by_name(groups) == [("f", ["a", "b", "c"]), ("g", ["d"]), ("f", ["e"])]
    assert [lines for _, _, lines in groups] == [["a"], ["b", "c"], ["d"], ["e"]]


def test_character_cut_by_a_read_arrives_whole_and_bad_ones_are_replaced() -> None:
    splitter = LineSplitter()
    first, second = "ü\n".encode()[:1], "ü\n".encode()[1:]
    assert splitter.feed(first) == []
    assert splitter.feed(second) == [("", "", ["ü"])]
    assert splitter.feed(b"\xff\r\n") == [("", "", ["\N{REPLACEMENT CHARACTER}"])]


def test_line_without_an_end_is_forwarded_in_pieces() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"x" * LINE_BYTES_MAX) == []
    ((_, _, lines),) = splitter.feed(b"y")
    assert len(lines[0]) == LINE_BYTES_MAX + 1
    assert splitter.feed(b"z\n") == [("", "", ["z"])]


def test_driver_shows_where_another_nodes_worker_is(capsys: pytest.CaptureFixture[str]) -> None:
    """And folds what workers with one process id on different nodes say."""
    shown = driver_output.DriverOutput(fold_s=60.0, use_color=False)
    told = {"name": "f", "pid": 7, "lines": ["a line"]}
    shown.show(told)
    shown.show({**told, "ip": "10.0.0.5"})
    shown.show({**told, "ip": "10.0.0.5", "lines": ["another"]})
    shown.flush_folded(everything=True)
    assert capsys.readouterr().out.splitlines() == [
        "(f pid=7) a line",
        "(f pid=7, ip=10.0.0.5) another",
        "(f pid=7, ip=10.0.0.5) a line [repeated 1x by other workers]",
    ]
