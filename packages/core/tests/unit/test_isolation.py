"""Workers held to their memory by control groups of version 2, on a made-up tree: what is written where, and read."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from umbel._agent import isolation
from umbel._base import control_groups, sessions


@pytest.fixture
def tree(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A group that this process may use. As the kernel does, making a directory makes a group's files, and removing it removes
    them."""
    make, remove = os.mkdir, os.rmdir

    def make_group(path: str, *mode: int) -> None:
        make(path, *mode)
        for name in ("cgroup.procs", "cgroup.subtree_control", "memory.max"):
            pathlib.Path(path, name).touch()

    def remove_group(path: str) -> None:
        for one in pathlib.Path(path).iterdir():
            one.unlink()
        remove(path)

    make_group(str(tmp_path / "group"))
    make(tmp_path / "session_1")
    monkeypatch.setattr(isolation.os, "mkdir", make_group)
    monkeypatch.setattr(isolation.os, "rmdir", remove_group)
    yield tmp_path
    monkeypatch.undo()


def read(*parts: object) -> str:
    return pathlib.Path(*map(str, parts)).read_text()


def test_a_worker_has_a_group_with_its_limit_which_is_lifted_and_goes_with_it(tree: pathlib.Path) -> None:
    held = isolation.Isolation(str(tree / "group"), str(tree / "session_1"))
    group = tree / "group" / "umbel-session_1"
    assert held.refusal == ""
    assert read(tree, "session_1", sessions.GROUP_FILE) == str(group)
    assert [read(one, "cgroup.subtree_control") for one in (tree / "group", group)] == ["+memory", "+memory"]
    assert not (group / "probe").exists()
    held.confine("w", 7, 0)
    assert not (group / "w").exists(), "it has asked for nothing"
    held.confine("w", 7, 100)
    assert (read(group, "w", "memory.max"), read(group, "w", "cgroup.procs")) == ("100", "7")
    held.confine("w", 7, 0)
    assert read(group, "w", "memory.max") == "max"
    held.exited("w", 7)
    assert not (group / "w").exists()
    assert held.take_report("w") is None


def test_a_worker_that_its_limit_has_killed_is_told_with_its_peak(tree: pathlib.Path) -> None:
    held = isolation.Isolation(str(tree / "group"), str(tree / "session_1"))
    group = tree / "group" / "umbel-session_1"
    for name, kills in (("w", 1), ("v", 0)):
        held.confine(name, 7, 100)
        (group / name / "memory.events").write_text(
            f"low 0\nhigh 0\nmax 12\noom 1\noom_kill {kills}\noom_group_kill 0\n"
        )
        (group / name / "memory.peak").write_text("99\n")
        held.exited(name, 7)
    report = held.take_report("w")
    assert report is not None
    assert (report["limit_bytes"], report["peak_bytes"], report["by_limit"]) == (100, 99, True)
    assert (held.take_report("w"), held.take_report("v")) == (None, None)


def test_a_group_that_may_not_be_used_is_refused_with_the_reason(
    tree: pathlib.Path,
) -> None:
    (tree / "group" / "cgroup.subtree_control").unlink()
    (tree / "group" / "cgroup.subtree_control").mkdir()  # as one with processes, it cannot be written to
    held = isolation.Isolation(str(tree / "group"), str(tree / "session_1"))
    assert held.refusal.startswith(
        "UMBEL_MEMORY_ISOLATION is set, but this process may not make control groups that limit"
    )
    assert f"({tree / 'group'}: Is a directory)" in held.refusal
    held.confine("w", 7, 100)
    assert [one.name for one in (tree / "group").iterdir() if one.name.startswith("umbel")] == []


def test_own_groups_of_both_versions_are_found(tmp_path: pathlib.Path) -> None:
    (tmp_path / "membership").write_text("12:memory:/elsewhere\n3:cpu,cpuacct:/x\n0::/slice/job\n")
    found = control_groups.own_groups(str(tmp_path), str(tmp_path / "membership"))
    assert [(one.path, one.limit) for one in found] == [
        (str(tmp_path / "memory" / "elsewhere"), "memory.limit_in_bytes"),
        (str(tmp_path / "slice" / "job"), "memory.max"),
    ]
