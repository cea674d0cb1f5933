"""How many CPUs there are, read from files such as the kernel's."""

from __future__ import annotations

import math
import os
import pathlib

import pytest

from umbel._base import machine


def write(directory: pathlib.Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text + "\n")


@pytest.mark.parametrize(
    ("limits", "quota"), [({"": "max 100000"}, math.inf), ({"": "150000 100000"}, 1.5), ({"pod": "50000 100000"}, 0.5)]
)
def test_quota_of_version_2_is_the_least_of_the_groups_around(
    tmp_path: pathlib.Path, limits: dict[str, str], quota: float
) -> None:
    write(tmp_path / "root/pod/job", cpu__max="400000 100000" if "pod" in limits else "max 100000")
    for group, text in limits.items():
        write(tmp_path / "root" / group, cpu__max=text)
    (tmp_path / "groups").write_text("0::/pod/job\n")
    assert machine.cpu_quota(str(tmp_path / "root"), str(tmp_path / "groups")) == quota


@pytest.mark.parametrize(("quota_us", "quota"), [("-1", math.inf), ("200000", 2.0), ("nonsense", math.inf)])
def test_quota_of_version_1(tmp_path: pathlib.Path, quota_us: str, quota: float) -> None:
    """In a container the group of /proc is not where the files are: those of the top count."""
    write(tmp_path / "root/cpu", cpu__cfs_quota_us=quota_us, cpu__cfs_period_us="100000")
    (tmp_path / "groups").write_text("4:memory:/x\n1:cpuacct,cpu:/docker/abc\n")
    assert machine.cpu_quota(str(tmp_path / "root"), str(tmp_path / "groups")) == quota


def test_without_control_groups_there_is_no_quota(tmp_path: pathlib.Path) -> None:
    assert machine.cpu_quota(str(tmp_path), str(tmp_path / "nothing")) == math.inf


@pytest.mark.parametrize(("quota", "count"), [(0.5, 1), (1.0, 1), (1.2, 2), (math.inf, None)])
def test_count_is_rounded_up_and_no_more_than_the_process_may_run_on(
    monkeypatch: pytest.MonkeyPatch, quota: float, count: int | None
) -> None:
    allowed = len(os.sched_getaffinity(0))
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.cpu_count() == (allowed if count is None else min(allowed, count))
