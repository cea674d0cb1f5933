"""How much memory there is, read from files such as the kernel's."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from umbel._agent import memory_watch
from umbel._base import control_groups, machine

MIB = 1 << 20


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A control group `job` in one of 1,000 MiB, within the root; `job` itself has no limit."""
    files = {
        "": {"memory.stat": "anon 5\n"},
        "slice": {
            "memory.max": f"{1_000 * MIB}\n",
            "memory.current": f"{700 * MIB}\n",
            "memory.stat": (
                f"anon {400 * MIB}\nfile {250 * MIB}\nshmem {50 * MIB}\ninactive_file {120 * MIB}\n"
                f"active_file {80 * MIB}\nslab_reclaimable {10 * MIB}\nslab_unreclaimable {40 * MIB}\n"
            ),
        },
        "slice/job": {"memory.max": "max\n", "memory.current": f"{600 * MIB}\n", "memory.stat": ""},
    }
    for directory, contents in files.items():
        (tmp_path / directory).mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            (tmp_path / directory / name).write_text(text)
    (tmp_path / "membership").write_text("12:memory:/elsewhere\n0::/slice/job\n")
    return tmp_path


def paths(root: pathlib.Path) -> list[str]:
    return [group.path for group in control_groups.limited_groups(str(root), str(root / "membership"))]


def test_groups_that_limit_memory_are_found_up_to_the_root(root: pathlib.Path) -> None:
    assert paths(root) == [str(root / "slice")]
    (root / "slice/job/memory.max").write_text(str(300 * MIB))
    assert paths(root) == [str(root / "slice/job"), str(root / "slice")]


def test_limit_beyond_the_machine_is_none(root: pathlib.Path) -> None:
    (root / "slice/memory.max").write_text(str(1 << 60))
    assert paths(root) == []


@pytest.mark.parametrize("text", ["", "4:memory:/old\n", "0::/nowhere\n", "nonsense"])
def test_no_group_where_there_is_none(root: pathlib.Path, text: str) -> None:
    (root / "membership").write_text(text)
    assert control_groups.limited_groups(str(root), str(root / "membership")) == []
    assert control_groups.limited_groups(str(root), str(root / "missing")) == []


def test_what_the_kernel_would_give_back_is_not_used(root: pathlib.Path) -> None:
    (group,) = control_groups.limited_groups(str(root), str(root / "membership"))
    assert control_groups.group_memory_bytes(group) == (490 * MIB, 1_000 * MIB)
    assert control_groups.group_memory_bytes(group.at(str(root / "slice/job"))) == (0, 0)
    assert control_groups.group_memory_bytes(group.at(str(root / "gone"))) == (0, 0)


def test_groups_of_version_1(tmp_path: pathlib.Path) -> None:
    """The path is of the host, as in a container without a namespace of its own: the group is the mount's root."""
    directory = tmp_path / "memory"
    directory.mkdir()
    (directory / "memory.limit_in_bytes").write_text(f"{800 * MIB}\n")
    (directory / "memory.usage_in_bytes").write_text(f"{500 * MIB}\n")
    (directory / "memory.stat").write_text(f"cache 9\nactive_file 9\ntotal_active_file {100 * MIB}\ntotal_rss 4\n")
    (tmp_path / "membership").write_text("5:cpu,memory:/docker/1234\n0::/\n")
    (group,) = control_groups.limited_groups(str(tmp_path), str(tmp_path / "membership"))
    assert group.path == str(directory)
    assert control_groups.group_memory_bytes(group) == (400 * MIB, 800 * MIB)


def test_memory_of_the_machine(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       1000 kB\nMemFree:   10 kB\nMemAvailable:    400 kB\nBuffers: 1 kB\n")
    assert machine.memory_bytes(str(path)) == (1000 * 1024, 400 * 1024)
    assert machine.memory_bytes(str(tmp_path / "missing")) == (0, 0)
    assert control_groups.available_bytes() > 0


def test_memory_of_a_process_follows_what_it_holds() -> None:
    program = """if True:
        import sys
        held = []
        for line in sys.stdin:
            held.append(bytearray(b"x") * (int(line) << 20))
            print(flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        sizes = []
        for size_mib in (1, 50):
            child.stdin.write(f"{size_mib}\n")
            child.stdout.readline()
            sizes.append((memory_watch.private_bytes(child.pid), memory_watch.proportional_bytes(child.pid)))
        assert memory_watch.resident_bytes(child.pid) >= sizes[1][1]
        assert [one for one in memory_watch.descendants(os.getpid()) if one == child.pid] == [child.pid]
        child.stdin.close()
    for before, after in zip(*sizes, strict=True):
        assert 45 * MIB < after - before < 60 * MIB
    assert memory_watch.private_bytes(child.pid) == memory_watch.proportional_bytes(child.pid) == 0


def test_kills_of_the_system_are_counted(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "vmstat"
    path.write_text("nr_free_pages 3\noom_kill 7\npgfault 1\n")
    assert memory_watch.oom_kill_count(vmstat=str(path)) == 7
    path.write_text("nr_free_pages 3\n")
    assert memory_watch.oom_kill_count(vmstat=str(path)) == 0
    assert memory_watch.oom_kill_count(vmstat=str(tmp_path / "missing")) == 0


@pytest.mark.parametrize("name", ["memory.events", "memory.oom_control"])
def test_kills_of_the_system_are_counted_in_a_limited_group_where_there_is_one(
    tmp_path: pathlib.Path, name: str
) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("oom_kill 7\n")
    (tmp_path / name).write_text("oom 9\noom_kill 2\n")
    group = control_groups.GROUP_VERSIONS[0].at(str(tmp_path))
    assert memory_watch.oom_kill_count([group], str(vmstat)) == 2
