"""Names and traces of sessions: whose are they, and may they be removed?"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from umbel._base import sessions


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of sessions, and one of shared memory beside it."""
    monkeypatch.setattr(sessions, "SHM_DIR", str(tmp_path / "shm"))
    (tmp_path / "shm").mkdir()
    (tmp_path / "base").mkdir()
    return tmp_path / "base"


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def make(base: Path, name: str) -> tuple[Path, Path]:
    """A session's two directories with something in them."""
    session = base / name
    store = Path(sessions.store_dir_for(str(session)))
    for directory in (session, store):
        (directory / "below").mkdir(parents=True)
        (directory / "below" / "file").write_text("x")
    return session, store


def name_for(pid: int, started: int) -> str:
    return "-".join([str(pid), str(started), sessions.new_name().split("-")[2], "12345678"])


def test_own_session_is_not_stale(base: Path) -> None:
    session, store = make(base, sessions.new_name())
    assert sessions.sweep_stale_sessions(str(base)) == []
    assert session.exists()
    assert store.exists()


def test_session_of_a_dead_process_is_removed_with_its_shared_memory(base: Path) -> None:
    session, store = make(base, name_for(dead_pid(), 123))
    assert sessions.sweep_stale_sessions(str(base)) == [str(session), str(store)]
    assert not session.exists()
    assert not store.exists()


def test_shared_memory_whose_session_directory_is_gone_is_removed(base: Path) -> None:
    session, store = make(base, name_for(dead_pid(), 123))
    sessions.remove_tree(str(session))
    assert sessions.sweep_stale_sessions(str(base)) == [str(store)]
    assert not store.exists()


def test_later_process_with_the_same_pid_does_not_keep_a_session(base: Path) -> None:
    session, store = make(base, name_for(os.getpid(), sessions.start_time(os.getpid()) - 1))
    assert sessions.sweep_stale_sessions(str(base)) == [str(session), str(store)]


def test_session_is_kept_while_its_daemon_cleans_up(base: Path) -> None:
    session, store = make(base, name_for(dead_pid(), 123))
    sessions.record_process(os.getpid(), str(session), str(store))
    assert sessions.sweep_stale_sessions(str(base)) == []


def test_session_of_another_container_is_kept(base: Path) -> None:
    make(base, f"{dead_pid()}-123-1-12345678")
    assert sessions.sweep_stale_sessions(str(base)) == []


def test_what_is_not_a_session_is_kept(base: Path) -> None:
    for name in ("notes", "1-2-3", "a-1-2-3", "1-b-2-3"):
        make(base, name)
    assert sessions.sweep_stale_sessions(str(base)) == []


def test_rest_of_a_stale_session_is_killed(base: Path) -> None:
    session, _ = make(base, name_for(dead_pid(), 123))
    orphan = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    with orphan:
        (session / sessions.PROCESSES_FILE).write_text(
            f"{dead_pid()} 1\n{orphan.pid} {sessions.start_time(orphan.pid)}\n"
        )
        sessions.sweep_stale_sessions(str(base))
        assert orphan.wait(10) == -9


def test_long_temporary_directory_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/" + "x" * 60)
    assert sessions.base_dir() == f"/tmp/umbel-{os.getuid()}"


def test_directory_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setattr(os, "getuid", lambda: 4_242_424)
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(os, "lstat", lambda path: (tmp_path / "x").stat())
    monkeypatch.setattr(os, "mkdir", lambda path, mode: None)
    with pytest.raises(RuntimeError, match=r"not a directory of this user.*; set TMPDIR to a short path"):
        sessions.base_dir()


def test_values_on_disk_go_with_their_session_and_nothing_else_does(base: Path, tmp_path: Path) -> None:
    session = str(base / sessions.new_name())
    store = sessions.store_dir_for(session)
    place = sessions.spill_dir_for(session, f"{tmp_path}/")
    sessions.make_directories(session, store, place)
    other = tmp_path / "other"
    for directory in (Path(place), other):
        directory.mkdir()
        (directory / "1").write_text("x")
    sessions.remove_session(session, store)
    assert not Path(place).exists()
    assert (other / "1").exists()


def test_only_a_sessions_own_directory_is_removed_with_it(base: Path, tmp_path: Path) -> None:
    session, store = make(base, sessions.new_name())
    victim = tmp_path / "umbel-0-spilled-somebody-else's"
    victim.mkdir()
    (session / sessions.SPILL_FILE).write_text(str(victim))
    sessions.remove_session(str(session), str(store))
    assert victim.exists()


def test_stale_sessions_values_elsewhere_are_handed_to_who_can_remove_them(base: Path) -> None:
    session, _ = make(base, name_for(dead_pid(), 123))
    url = sessions.spill_dir_for(str(session), "s3://bucket/path")
    (session / sessions.SPILL_FILE).write_text(url)
    removed: list[str] = []
    sessions.sweep_stale_sessions(str(base), removed.append)
    assert removed == [url]


def test_session_goes_though_a_process_that_was_killed_is_still_making_files(base: Path) -> None:
    """What a busy machine has not got round to ending may be in the midst of making a file."""
    session, store = make(base, name_for(dead_pid(), 1))
    made = threading.Event()

    def make_files() -> None:
        until_s = time.monotonic() + 0.3
        number = 0
        while time.monotonic() < until_s and session.exists():
            for directory in (session, store):
                try:
                    (directory / f"late{number}").write_text("x")
                except OSError:  # it has gone
                    return
            number += 1
            made.set()

    maker = threading.Thread(target=make_files)
    maker.start()
    made.wait(10)
    sessions.remove_session(str(session), str(store))
    maker.join()
    assert not session.exists()
    assert not store.exists()


def test_a_session_that_ends_while_it_is_looked_at_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: who asked which there are was told that a file is missing."""
    paths = [tmp_path / sessions.new_name() for _ in range(2)]
    for path in paths:
        path.mkdir()
        (path / sessions.AGENT_SOCKET).touch()
    look = sessions._is_stale

    def ends(name: str, *more: str) -> bool:
        found = look(name, *more)
        if name == paths[0].name:
            (paths[0] / sessions.AGENT_SOCKET).unlink()
            paths[0].rmdir()
        return found

    monkeypatch.setattr(sessions, "_is_stale", ends)
    assert sessions.running_sessions(str(tmp_path)) == [str(paths[1])]
