"""The cache of built environments: made once, never removed while in use, and what goes first."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from umbel._environments import cache
from umbel._environments.cache import Kept

DAY_S = 86_400.0


def _make(path: str) -> None:
    Path(path, "content").write_bytes(b"x" * 10_000)


def _never(_delay_s: float) -> None:
    raise AssertionError("nobody holds the lock, so there is nothing to wait for")


@pytest.fixture
def kept(tmp_path: Path) -> cache.Cache:
    return cache.Cache(str(tmp_path / "cache"))


def test_entry_is_made_once_and_held_by_all_its_users(kept: cache.Cache) -> None:
    first = kept.hold("a", _make, wait=_never)
    second = kept.hold("a", _make, wait=_never)
    assert (first.is_new, second.is_new, first.path) == (True, False, second.path)
    assert kept.collect(bytes_max=0, age_max_s=0) == []
    os.close(first.lock)
    assert kept.collect(bytes_max=0, age_max_s=0) == []
    os.close(second.lock)
    assert kept.collect(bytes_max=0, age_max_s=0) == ["a"]
    assert os.listdir(kept.directory) == []


def test_failed_build_leaves_nothing_and_is_tried_again(kept: cache.Cache) -> None:
    def fail(path: str) -> None:
        _make(path)
        raise RuntimeError("no network")

    with pytest.raises(RuntimeError):
        kept.hold("a", fail, wait=_never)
    assert os.listdir(kept.directory) == ["a.lock"]
    os.close(kept.hold("a", _make, wait=_never).lock)


def test_what_a_killed_build_has_left_is_not_used(kept: cache.Cache) -> None:
    os.mkdir(os.path.join(kept.directory, "a"))
    Path(kept.directory, "a", "half").write_text("x")
    held = kept.hold("a", _make, wait=_never)
    assert sorted(os.listdir(held.path)) == [cache.READY, "content"]
    os.close(held.lock)


def test_second_builder_waits_for_the_first_and_uses_what_it_made(kept: cache.Cache) -> None:
    """As in two sessions: locks belong to open files, so one process can play both."""
    lock = os.open(os.path.join(kept.directory, "a.lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    waits = 0

    def first_one_finishes(_delay_s: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 2:
            kept._make(os.path.join(kept.directory, "a"), _make)
            os.close(lock)

    held = kept.hold("a", lambda _path: pytest.fail("it was built already"), wait=first_one_finishes)
    assert (waits, held.is_new) == (2, False)
    os.close(held.lock)


def test_entry_that_is_removed_while_somebody_waits_for_it_is_made_anew(kept: cache.Cache) -> None:
    path = os.path.join(kept.directory, "a.lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)

    def collected(_delay_s: float) -> None:
        os.unlink(path)
        os.close(lock)

    held = kept.hold("a", _make, wait=collected)
    assert held.is_new and os.path.samestat(os.fstat(held.lock), os.stat(path))
    os.close(held.lock)


def test_using_an_entry_makes_it_young(kept: cache.Cache) -> None:
    os.close(kept.hold("a", _make, wait=_never).lock)
    old_s = time.time() - 100 * DAY_S
    os.utime(os.path.join(kept.directory, "a.lock"), (old_s, old_s))
    (entry,) = kept.entries()
    assert entry.age_s > 99 * DAY_S and entry.size_bytes >= 10_000 and entry.is_ready
    os.close(kept.hold("a", _make, wait=_never).lock)
    assert kept.entries()[0].age_s < DAY_S


def test_evictions_are_the_broken_the_old_and_then_the_longest_unused() -> None:
    entries = [
        Kept("broken", 0, 1.0, is_ready=False),
        Kept("new", 40, 1.0, is_ready=True),
        Kept("middle", 40, 2 * DAY_S, is_ready=True),
        Kept("older", 40, 3 * DAY_S, is_ready=True),
        Kept("ancient", 1, 40 * DAY_S, is_ready=True),
    ]
    assert cache.evictions(entries, bytes_max=80, age_max_s=30 * DAY_S) == ["broken", "ancient", "older"]
    assert cache.evictions(entries, bytes_max=200, age_max_s=30 * DAY_S) == ["broken", "ancient"]
    assert cache.evictions(entries, bytes_max=0, age_max_s=30 * DAY_S)[-1] == "new"


def test_directory_is_the_users_cache_or_beside_the_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.default_directory() == str(tmp_path / "umbel" / "environments")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert cache.default_directory() == f"/tmp/umbel-{os.getuid()}/environments"
