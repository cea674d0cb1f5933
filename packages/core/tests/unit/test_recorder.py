"""The recorder: what it makes rows of while the machine is busy."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_history_batches import batch

from umbel._agent import recorder
from umbel._history import batches
from umbel._history.store import Store


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "history.db")


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        yield ours, theirs


Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture
def made(path: str, sockets: Sockets, monkeypatch: pytest.MonkeyPatch) -> recorder.Recorder:
    """One whose limit is ten batches."""
    monkeypatch.setattr(recorder, "BATCHES_MAX", 10)
    return recorder.Recorder(sockets[1], path, {"session_dir": ""})


def kept(path: str, sockets: Sockets, **limits: Any) -> recorder.Recorder:
    return recorder.Recorder(sockets[1], path, {"session_dir": "", "history": limits})


def take(made: recorder.Recorder, first: int, count: int = 2, ended_s: float = 0.0) -> dict[str, Any]:
    rows = [(0, seq, 10.0, 0.5, ended_s or seq) for seq in range(first, first + count)]
    return made._take({"t": "batch"}, batches.encode(batch(rows, failures=[])))


def found(path: str) -> list[int]:
    return [int(row["task_id"][32:], 16) for row in Store(path).tasks()]


def test_batches_wait_for_an_idle_machine(made: recorder.Recorder, path: str) -> None:
    for number in range(10):
        assert take(made, 2 * number) == {"t": "stored"}
    assert Store(path).raw_count() == 10


def test_many_small_batches_do_not_wait(made: recorder.Recorder, path: str) -> None:
    store, waiting = Store(path), []
    for number in range(200):
        assert take(made, 2 * number) == {"t": "stored"}
        waiting.append(store.raw_count())
    assert max(waiting) <= 10
    assert store.task_count([]) == 400


def test_malformed_batch_among_them_is_told_of_and_costs_no_other(
    made: recorder.Recorder, path: str, sockets: Sockets
) -> None:
    made._take({"t": "batch"}, b"nonsense")
    for number in range(30):
        assert take(made, 2 * number) == {"t": "stored"}
    assert Store(path).task_count([]) == 60
    assert made._store.raw_count() <= 10
    assert b"the history of tasks has gaps" in sockets[0].recv(1000)


def test_what_is_written_down_is_stored_though_rows_cannot_be_made(made: recorder.Recorder, path: str) -> None:
    """Counted as lost as well, its tasks would be told of twice."""
    for number in range(10):
        take(made, 2 * number)
    made._store._db.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON tasks BEGIN SELECT raise(ABORT, 'full'); END")
    assert take(made, 20) == {"t": "stored"}
    made._store._db.execute("DROP TRIGGER full")
    assert (Store(path).raw_count(), Store(path).task_count([])) == (11, 22)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM tasks").fetchone() == (0,)


def test_of_tasks_beyond_the_limit_the_oldest_go_though_the_machine_is_busy(path: str, sockets: Sockets) -> None:
    """Those that are rows are older than what is only written down."""
    made = kept(path, sockets, tasks_max=100)
    for number in range(9):
        take(made, 1 + 10 * number, 10)
    made._store.absorb_all()
    for number in range(9, 19):
        take(made, 1 + 10 * number, 10)
    assert found(path) == list(range(1, 191))  # those that are rows are few enough, and the others as well
    take(made, 191, 10)
    assert found(path) == list(range(101, 201))
    assert Store(path).counts()["removed"] == 100
    take(made, 201, 10)
    assert found(path) == list(range(111, 211))


def test_batch_of_more_tasks_than_are_kept_is_kept_in_part(path: str, sockets: Sockets) -> None:
    made = kept(path, sockets, tasks_max=100)
    take(made, 1, 300)
    assert found(path) == list(range(206, 301))
    assert Store(path).counts()["removed"] == 205


def test_tasks_that_are_too_old_go_though_the_machine_is_busy(
    path: str, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "TRIM_PERIOD_S", 0.0)
    made = kept(path, sockets, age_max_s=1_000.0)
    now_s = time.time()
    take(made, 1, 5, ended_s=now_s - 2_000)
    take(made, 6, 5, ended_s=now_s)
    take(made, 11, 5, ended_s=now_s)
    assert found(path) == list(range(6, 16))


def test_what_a_question_made_rows_of_is_not_counted_as_waiting(path: str, sockets: Sockets) -> None:
    made = kept(path, sockets, tasks_max=100)
    take(made, 1, 60)
    Store(path).absorb_all()
    take(made, 61, 41)
    assert found(path) == list(range(1, 102))  # neither of the two is too many


def test_recorder_goes_on_with_what_one_before_has_written_down(path: str, sockets: Sockets) -> None:
    take(kept(path, sockets, tasks_max=100), 1, 60)
    made = kept(path, sockets, tasks_max=100)
    assert made._due_s() is not None  # it makes rows of it when the machine is idle, whether more comes or not
    take(made, 61, 60)
    assert found(path) == list(range(26, 121))
