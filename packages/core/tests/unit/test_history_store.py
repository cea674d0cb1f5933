"""The store: several attempts, repeated words, malformed batches, retention, several connections."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from test_history_batches import OWNER, WORKER, batch

from umbel._history import batches, codes, retention
from umbel._history.conditions import Condition
from umbel._history.store import Store

KEEP_ALL = retention.Retention(1_000_000, 0.0, 1 << 40)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a?b%20c.db")  # a name that an address of a file must not take apart


@pytest.fixture
def store(path: str) -> Store:
    return Store(path, create=True)


def finished(count: int, first: int = 1, ended_s: float = 100.0) -> bytes:
    rows = [(0, seq, ended_s + seq - 2, 1.0, ended_s + seq) for seq in range(first, first + count)]
    return batches.encode(batch(rows, groups=batch([]).groups[:1], failures=[]))


def attempt(number: int, state: int, failures: list[Any]) -> bytes:
    groups = [batches.Group(1, 1, 0, number, state)]
    return batches.encode(batch([(0, 1, 1.0, 1.0, 3.0)], groups=groups, failures=failures))


def test_batch_is_found_when_it_is_written_down_and_when_it_is_absorbed(store: Store) -> None:
    store.write_down(finished(3))
    assert (store.has_raw(), store.task_count([])) == (True, 3)
    assert store.absorb() == 1
    assert (store.has_raw(), store.task_count([]), store.absorb()) == (False, 3, 0)
    row = next(store.tasks([Condition("task_id", "=", f"{OWNER}{2:016x}")]))
    assert (row["submitted_s"], row["started_s"], row["ended_s"]) == (100.0, 101.0, 102.0)
    assert (row["worker_id"], row["worker_pid"]) == (WORKER, None)


def test_attempts_are_rows_of_their_own_and_a_last_word_counts(store: Store) -> None:
    store.write_down(attempt(0, codes.FINISHED, []))
    store.write_down(attempt(0, codes.FAILED, [batches.Failure(0, "WORKER_DIED", "its answer was lost")]))
    store.write_down(attempt(1, codes.FINISHED, []))
    store.absorb_all()
    found = [(row["attempt_number"], row["state"], row["error_message"]) for row in store.tasks()]
    assert found == [(0, "FAILED", "its answer was lost"), (1, "FINISHED", None)]


def test_malformed_batch_is_told_of_once_and_costs_no_other(store: Store) -> None:
    store.write_down(b"nonsense")
    store.write_down(finished(2))
    with pytest.raises(ValueError, match="no batch of task events"):
        store.absorb()
    store.absorb_all()
    assert store.task_count([]) == 2


def test_small_batches_become_rows_together(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "ROWS_MAX", 5)
    for first in (1, 4, 7, 10):
        store.write_down(finished(3, first))
    assert [store.absorb() for _ in range(3)] == [2, 2, 0]
    assert (store.raw_count(), store.task_count([])) == (0, 12)


def test_full_disk_is_what_is_told_and_costs_nothing(store: Store) -> None:
    """SQLite has ended the transaction itself by then."""
    store.write_down(finished(5_000))
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.absorb()
    store._db.execute("PRAGMA max_page_count = 100000")
    store.absorb_all()
    assert store.task_count([]) == 5_000


def test_two_connections_absorb_each_batch_once(store: Store, path: str) -> None:
    other = Store(path)
    for first in (1, 11, 21, 31):
        store.write_down(finished(10, first))
    while store.absorb() | other.absorb():
        pass
    assert other.task_count([]) == 40


def test_worker_is_known_by_what_was_said_last(store: Store) -> None:
    store.write_down(finished(1))
    store.absorb_all()
    store.worker({"worker": WORKER, "node": "n", "pid": 9, "ready": 1.0})
    store.worker({"worker": WORKER, "ended": 2.0, "exit_type": "SYSTEM_ERROR", "exit_detail": "gone"})
    (told,) = store.workers()
    assert told == {
        "worker": WORKER, "node": "n", "pid": 9, "ready": 1.0, "ended": 2.0, "exit_type": "SYSTEM_ERROR",
        "exit_detail": "gone",
    }  # fmt: skip
    assert [row["worker_pid"] for row in store.tasks()] == [9]


def test_places_of_submission_are_kept_apart_and_counted_together(store: Store) -> None:
    template = batch([]).templates[0]
    for seq, site in enumerate(("a.py:1", "a.py:2", "")):
        groups = [batches.Group(1, 1, 0, 0, codes.FINISHED)]
        told = batch([(0, seq, 1.0, 1.0, 3.0)], groups=groups, failures=[])
        store.write_down(batches.encode(told._replace(templates=[template._replace(call_site=site)])))
    store.absorb_all()
    assert [row["call_site"] for row in store.tasks()] == ["a.py:1", "a.py:2", None]
    assert store.task_tally() == [("f", "NORMAL_TASK", "FINISHED", 3)]


def test_tasks_that_ended_at_the_same_moment_are_on_one_page_each(store: Store) -> None:
    for seq in (3, 1, 4, 2):
        store.write_down(batches.encode(batch([(0, seq, 1.0, 1.0, 3.0)], failures=[])))
    store.absorb_all()
    for column in ("creation_time_ms", "start_time_ms", "end_time_ms"):
        pages = [list(store.tasks(order=(column, True), limit=1, offset=offset)) for offset in range(4)]
        assert [int(row["task_id"][32:], 16) for (row,) in pages] == [4, 3, 2, 1]


def test_task_of_a_worker_of_which_nothing_is_known_has_no_node(store: Store) -> None:
    store.write_down(finished(1))
    store.absorb_all()
    assert [row["node_id"] for row in store.tasks([Condition("node_id", "=", None)])] == [None]
    assert store.task_count([Condition("worker_id", "=", None)]) == 0


def test_tally_counts_by_name_and_state(store: Store) -> None:
    store.write_down(finished(5))
    store.write_down(attempt(3, codes.FAILED, []))
    store.absorb_all()
    assert sorted(store.task_tally()) == [("f", "NORMAL_TASK", "FAILED", 1), ("f", "NORMAL_TASK", "FINISHED", 5)]
    assert store.task_tally([Condition("state", "=", "FAILED")]) == [("f", "NORMAL_TASK", "FAILED", 1)]


def test_what_ended_first_goes_first(store: Store) -> None:
    store.write_down(finished(100))
    store.absorb_all()
    assert store.trim(KEEP_ALL, 0.0) == 0
    removed = store.trim(KEEP_ALL._replace(tasks_max=40), 0.0)
    left = [int(row["task_id"][32:], 16) for row in store.tasks()]
    assert left == list(range(removed + 1, 101))
    assert len(left) == 38  # with some slack, so that the next task does not bring the next removal
    assert store.counts()["removed"] == 62
    assert store.trim(KEEP_ALL._replace(tasks_max=40), 0.0) == 0


def test_what_is_too_old_goes(store: Store) -> None:
    store.write_down(finished(100))
    store.actor("a1", 120.0, "{}")
    store.actor("a2", 180.0, "{}")
    store.absorb_all()
    assert store.trim(KEEP_ALL._replace(age_max_s=50.0), 200.5) == 50
    assert min(row["ended_s"] for row in store.tasks()) == 151.0
    assert len(store.actors()) == 1


def test_nothing_refers_to_what_was_removed(store: Store, path: str) -> None:
    store.write_down(attempt(0, codes.FAILED, [batches.Failure(0, "WORKER_DIED", "")]))
    store.worker({"worker": WORKER, "pid": 9, "ended": 3.0})
    store.absorb_all()
    assert store.trim(KEEP_ALL._replace(tasks_max=0), 0.0) == 1
    db = sqlite3.connect(path)
    for table in ("tasks", "failures", "kinds", "workers"):
        assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_worker_of_what_is_only_written_down_is_kept(store: Store) -> None:
    store.write_down(finished(100))
    store.worker({"worker": WORKER, "pid": 9, "ended": 3.0})
    store.absorb_all()
    store.write_down(finished(1, first=101))
    assert store.trim(KEEP_ALL._replace(tasks_max=0), 0.0) == 100
    assert [row["worker_pid"] for row in store.tasks(limit=5)] == [9]


def test_dropped_tasks_are_counted(store: Store) -> None:
    store.dropped(3)
    store.dropped(4)
    assert store.counts() == {"dropped": 7, "removed": 0}


def test_missing_file_is_not_made_by_a_reader(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error):
        Store(str(tmp_path / "none.db"))
    assert not list(tmp_path.iterdir())


def test_history_of_another_version_is_refused(store: Store, path: str) -> None:
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(sqlite3.DatabaseError, match="history of version 99, this program reads 2"):
        Store(path)
