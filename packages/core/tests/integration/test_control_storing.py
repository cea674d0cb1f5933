"""The threads that talk to the control storage: real ones, with SQLite, and with storages that misbehave as a plugin's may."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from umbel import exceptions
from umbel._control import journal, leadership, storing
from umbel._control.storage import in_sqlite

TIMEOUT_S = 30


class Loop:
    """Who is woken."""

    def __init__(self, commits: Any, leases: Any) -> None:
        self._woken = threading.Event()
        self.threads = storing.Threads(commits, leases, "me", self._woken.set)

    def heard(self) -> Any:
        """The next that they say."""
        while not self.threads.has_heard:
            assert self._woken.wait(TIMEOUT_S), "nothing was heard"
            self._woken.clear()
        (found,) = self.threads.take()
        return found


class Foreign:
    """A storage of somebody else's, of which each call does what the test says."""

    def __init__(self, do: Callable[[], Any]) -> None:
        self._do = do
        self.is_closed = False

    def commit(self, *_values: Any, **_named: Any) -> None:
        self._do()

    def acquire(self, *_values: Any) -> Any:
        return self._do()

    def close(self) -> None:
        self.is_closed = True


def _raise(error: Exception) -> Callable[[], Any]:
    def do() -> None:
        raise error

    return do


def commit(number: int, key: str = "a") -> journal.Commit:
    return journal.Commit(1, number, {key: b"1"})


def test_what_is_ordered_is_done_and_told(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/c.db"
    look = in_sqlite.SqliteStorage(url)
    loop = Loop(in_sqlite.SqliteStorage(url), in_sqlite.SqliteStorage(url))
    loop.threads.ask(leadership.Acquire())
    assert loop.heard()[0] == 1
    loop.threads.commit(commit(1))
    assert loop.heard()[:2] == (1, 1)
    assert dict(look.load()) == {"a": b"1"}
    loop.threads.ask(leadership.Renew(1))
    assert isinstance(loop.heard(), leadership.Renewed)
    loop.threads.close(1)
    assert look.leader().holder == ""
    look.close()


def test_former_leader_hears_that_he_is_one(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/c.db"
    other = in_sqlite.SqliteStorage(url)
    loop = Loop(in_sqlite.SqliteStorage(url), in_sqlite.SqliteStorage(url))
    loop.threads.ask(leadership.Acquire())
    loop.heard()
    other.release(1)
    assert other.acquire("other", 10.0).fencing == 2
    loop.threads.commit(commit(1))
    assert isinstance(loop.heard(), journal.Fenced)
    loop.threads.ask(leadership.Renew(1))
    assert isinstance(loop.heard(), leadership.Fenced)
    loop.threads.ask(leadership.Acquire())
    held = loop.heard()
    assert (type(held), held.holder) == (leadership.Held, "other")
    loop.threads.close(0)
    other.close()


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (exceptions.StorageUnavailable("away"), journal.Failed, "away"),
        (exceptions.StorageUncertain("perhaps"), journal.Failed, "perhaps"),
        (exceptions.ControlStorageError("the disk is full"), journal.Failed, "the disk is full"),
        (exceptions.InvalidOption("too large", option="writes"), journal.Fenced, "cannot take what is to be kept: Inv"),
        (KeyError("a"), journal.Fenced, "cannot take what is to be kept: KeyError: 'a'"),
    ],
)
def test_error_of_a_commit_is_told_and_the_thread_goes_on(error: Exception, kind: type, text: str) -> None:
    storage = Foreign(_raise(error))
    loop = Loop(storage, Foreign(_raise(KeyError("b"))))
    for _ in range(2):
        loop.threads.commit(commit(1))
        heard = loop.heard()
        assert type(heard) is kind
        assert text in heard.reason
    loop.threads.ask(leadership.Acquire())
    assert loop.heard().reason == "KeyError: 'b'"
    loop.threads.close(0)
    assert storage.is_closed


def test_fork_waits_for_a_commit_and_goes_on_without_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "FORK_WAIT_S", 0.05)
    may_end, began = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        assert may_end.wait(TIMEOUT_S)

    loop = Loop(Foreign(hang), Foreign(lambda: None))
    loop.threads.commit(commit(1))
    assert began.wait(TIMEOUT_S)
    pid = os.fork()
    if not pid:
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    may_end.set()
    assert isinstance(loop.heard(), journal.Committed)
    pid = os.fork()
    if not pid:
        os._exit(any(lock.locked() for lock in loop.threads._locks.values()))
    assert os.waitpid(pid, 0)[1] == 0
    loop.threads.commit(commit(2))
    assert isinstance(loop.heard(), journal.Committed)
    loop.threads.close(0)
