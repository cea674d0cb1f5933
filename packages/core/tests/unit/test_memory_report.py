"""The tables of `umbel memory`."""

from __future__ import annotations

import json

import pytest

from umbel._client import memory_report
from umbel._client.memory_report import Entry, Report

STORE = {
    "capacity_bytes": 1 << 30, "free_bytes": 1 << 29, "wanting_bytes": 0, "holders": [{"id": "aa", "bytes": 1 << 29}],
    "spilled_bytes": 3 << 20, "spilled_files": 2,
}  # fmt: skip
PROCESSES = [
    {"id": "aa", "component": "driver", "pid": 7, "actor": "", "class_name": "", "private_bytes": 20 << 20},
    {"id": "bb", "component": "actor", "pid": 8, "actor": "x", "class_name": "Cache", "private_bytes": 10 << 20},
    {"id": "", "component": "fork_server", "pid": 6, "actor": "", "class_name": "", "private_bytes": 1 << 20},
]


def entry(object_id: str, size: int, *, pid: int = 7, made: str = "f", kind: str = "shared", local: int = 1) -> Entry:
    process = "driver (pid 7)" if pid == 7 else "actor Cache (pid 8)"
    return Entry(object_id, pid, process, made, size, kind, local, 0, 0)


def words(
    report: Report, *, group_by: str = "STACK_TRACE", sort_by: str = "OBJECT_SIZE", count: int | None = None
) -> str:
    return memory_report.in_words(report, group_by=group_by, sort_by=sort_by, units="AUTO", num_entries=count)


REPORT = Report(
    [
        entry("o1", 10, made="/a.py:3 in f"),
        entry("o2", 3 << 20, made="g", pid=8),
        entry("o3", 2 << 20, made="/a.py:3 in f"),
    ],
    PROCESSES,
    [(8, 500, 4_096)],
    ["worker (pid 9) does not answer: gone"],
    STORE,
    [("actor Cache (pid 8)", 1, 900), ("driver (pid 7)", 20, 4_096)],
)


def test_groups_and_rows_are_sorted_by_size() -> None:
    text = words(REPORT)
    places = [text.index(part) for part in ("g: 1 object, 3.0 MB", "o2", "/a.py:3 in f: 2 objects, 2.0 MB", "o3", "o1")]
    assert places == sorted(places)
    assert memory_report.DISABLED_SITE not in text


def test_what_is_not_shown_is_said() -> None:
    text = words(REPORT, count=1)
    assert "o1" not in text
    assert "  and 1 more" in text
    assert "pid 8 holds 500 smaller objects as well, 4.0 KB in all" in text
    assert "worker (pid 9) does not answer: gone" in text


def test_groups_by_process() -> None:
    text = words(REPORT, group_by="NODE_ADDRESS", sort_by="PID")
    assert "actor Cache (pid 8): 1 object, 3.0 MB" in text
    assert "driver (pid 7): 2 objects, 2.0 MB" in text


def test_sums() -> None:
    report = REPORT._replace(entries=[*REPORT.entries, entry("o4", 50, kind="inline"), entry("o5", 0, kind="pending")])
    assert memory_report.stats(report, units="B").splitlines() == [
        "3 objects in the object store, 5242890 B; 1 object in their owners' memory, 50 B; 1 pending",
        "shared memory: 536870912 B of 1073741824 B taken, by driver (pid 7) 536870912 B",
        "on disk: 3145728 B in 2 files",
        "processes: driver (pid 7) 20971520 B, actor Cache (pid 8) 10485760 B, fork server (pid 6) 1048576 B",
        "driver (pid 7) keeps 20 calls to compute lost values again, with 4096 B of arguments",
        "actor Cache (pid 8) keeps 1 call to compute lost values again, with 900 B of arguments",
        "worker (pid 9) does not answer: gone",
    ]


def test_report_of_several_nodes_says_which() -> None:
    one, other = "a" * 56, "b" * 56
    found = memory_report.merged({one: REPORT, other: REPORT._replace(silent=[])}, ["node cc does not answer"])
    assert [(entry.node_id, entry.process[-17:]) for entry in found.entries[:: len(REPORT.entries)]] == [
        (one, " of node aaaaaaaa"), (other, " of node bbbbbbbb"),
    ]  # fmt: skip
    assert found.lineage[2] == ("actor Cache (pid 8) of node bbbbbbbb", 1, 900)
    assert found.store["capacity_bytes"] == 2 * REPORT.store["capacity_bytes"]
    assert found.silent == ["node cc does not answer", *(f"node aaaaaaaa: {text}" for text in REPORT.silent)]
    assert Report.read(json.loads(json.dumps(found))) == found


def test_what_others_use_of_the_file_system_is_told() -> None:
    report = REPORT._replace(store={**STORE, "wanting_bytes": 5 << 20})
    assert "taken, by driver (pid 7) 536870912 B; 5242880 B of it used by others" in memory_report.stats(
        report, units="B"
    )


def test_empty_session() -> None:
    assert memory_report.DISABLED_SITE in words(Report([], [], [], [], {**STORE, "holders": []}, []))


@pytest.mark.parametrize(
    ("size", "units", "text"),
    [
        (0, "AUTO", "0 B"),
        (1023, "auto", "1023 B"),
        (1024, "AUTO", "1.0 KB"),
        (3 << 30, "auto", "3.0 GB"),
        (512, "kb", "0.5 KB"),
    ],
)
def test_sizes_in_units(size: int, units: str, text: str) -> None:
    assert memory_report.shown(size, units) == text
