"""What is only written down: questions find in it what they find once it is rows."""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from umbel import exceptions
from umbel._history import batches, codes, selections, store
from umbel._history.conditions import Condition
from umbel._history.store import Store

OWNERS = [f"{number:032x}" for number in (7, 3, 5)]
WORKERS = [f"{number:032x}" for number in (21, 22)]
ORDERS = [None, *itertools.product(selections.ORDERS, (False, True))]


def drawn(chance: random.Random, seqs: dict[str, Any]) -> bytes:
    """A batch of several groups, with tasks retried, failed, never run, and of parents elsewhere."""
    owner = chance.choice(OWNERS)
    templates = [
        batches.Template("f", "f", codes.NORMAL, "", '{"CPU": 1.0}', "", "a.py:3 in f"),
        batches.Template(chance.choice(["g", "F"]), "A.m", codes.CALL, f"{9:048x}", "", "{}"),
    ]
    parents = [f"{chance.choice(OWNERS)}{number:016x}" for number in (1, 2)]
    groups = [
        batches.Group(*drawn_group)
        for drawn_group in itertools.product((1, 2), range(3), range(3), (0, 1), (codes.FINISHED, codes.FAILED))
    ]
    groups = chance.sample(groups, chance.randint(1, 8))
    values: list[float] = []
    failures = []
    for row in range(chance.randint(1, 12)):
        group = chance.randrange(len(groups))
        if groups[group].state == codes.FAILED:
            failures.append(batches.Failure(row, chance.choice(["WORKER_DIED", "TASK_CANCELLED"]), f"error {row}"))
        duration = chance.choice([codes.UNKNOWN_S, 0.25, 2.0])
        ended = float(chance.randint(100, 160))
        values += (group, next(seqs[owner]), chance.choice([0.0, ended - 8]), duration, ended)
    return batches.encode(
        batches.Batch(owner, "01000000", templates, WORKERS, parents, groups, failures, codes.new_values(values))
    )


@pytest.fixture(scope="module", params=range(3))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """A history of which a half is only written down, and the same history as rows."""
    chance = random.Random(request.param)
    folder = Path(tmp_path_factory.mktemp("history"))
    written, rows = (Store(str(folder / name), create=True) for name in ("written.db", "rows.db"))
    numbers = list(range(1, 1_000))
    chance.shuffle(numbers)
    seqs = {owner: iter(numbers) for owner in OWNERS}
    all_batches = [drawn(chance, seqs) for _ in range(12)]
    for made in (written, rows):
        made.worker({"worker": WORKERS[0], "node": "n1", "pid": 42, "ready": 1.0})
        for batch in all_batches[:6]:
            made.write_down(batch)
        if request.param:  # else nothing is rows yet
            made.absorb_all()
        for batch in all_batches[6:]:
            made.write_down(batch)
    rows.absorb_all()
    return written, rows


def conditions() -> list[list[Condition]]:
    one = f"{OWNERS[0]}{5:016x}"
    values: dict[str, list[Any]] = {
        "task_id": [one, one.upper(), one[:-1], "nonsense", f"{OWNERS[1]}{40:016x}"],
        "attempt_number": [0, 1, 2],
        "name": ["f", "G", "x"],
        "state": ["FINISHED", "failed", "RUNNING"],
        "job_id": ["01000000", "02000000"],
        "actor_id": [f"{9:048x}", None, "x"],
        "type": ["NORMAL_TASK", "actor_task", "x"],
        "func_or_class_name": ["f", "a.M", "x"],
        "parent_task_id": [f"{OWNERS[0]}{1:016x}", None, "x"],
        "node_id": ["n1", "n2", None],
        "worker_id": [WORKERS[0], WORKERS[1].upper(), None],
        "worker_pid": [42, 43, None],
        "error_type": ["WORKER_DIED", "task_cancelled", None, "x"],
        "creation_time_ms": [120_000, 131_000, None],
        "start_time_ms": [120_000, 130_750, None],
        "end_time_ms": [100_000, 131_000, 160_000],
        "language": ["python", "JAVA"],
        "placement_group_id": [None, "x"],
        "is_debugger_paused": [False, True],
    }
    assert set(values) == set(selections.COLUMNS)
    found = [[Condition(column, way, value)] for column in values for value in values[column] for way in ("=", "!=")]
    found += [[Condition(column, "in", values[column])] for column in values]
    found += [
        [Condition(column, way, value)]
        for column in values
        for value in values[column]
        if selections.COLUMNS[column] is int and value is not None
        for way in ("<", ">")
    ]
    both = [[*first, *second] for first, second in list(itertools.pairwise(found))[::5]]
    return [[], *found, *both]


@pytest.mark.slow
def test_conditions_find_the_same(pair: tuple[Store, Store]) -> None:
    written, rows = pair
    for wanted in conditions():
        expected = list(rows.tasks(wanted))
        assert list(written.tasks(wanted)) == expected, wanted
        assert written.task_count(wanted) == rows.task_count(wanted) == len(expected), wanted
        assert sorted(written.task_tally(wanted)) == sorted(rows.task_tally(wanted)), wanted
    assert written.has_raw()  # nothing has become rows meanwhile


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("wanted", [[], [Condition("state", "=", "FINISHED")]], ids=["all", "some"])
def test_pages_are_the_same(pair: tuple[Store, Store], order: Any, wanted: list[Condition]) -> None:
    written, rows = pair
    every = list(rows.tasks(wanted, order=order))
    for offset, limit in itertools.product((0, 1, 7, len(every) - 3, len(every) + 5), (0, 1, 10, None)):
        page = list(written.tasks(wanted, order=order, limit=limit, offset=offset))
        assert page == every[offset : None if limit is None else offset + limit], (offset, limit)
    pages = [written.tasks(wanted, order=order, limit=5, offset=offset) for offset in range(0, len(every), 5)]
    assert list(itertools.chain.from_iterable(pages)) == every
    assert written.has_raw()


@pytest.mark.parametrize(
    "wanted", [[], [Condition("state", "=", "FINISHED")], [Condition("start_time_ms", ">", 120_000)]]
)
def test_what_has_ended_of_a_process_is_the_same(pair: tuple[Store, Store], wanted: list[Condition]) -> None:
    ranges = [[1, 200], [300, 301], [500, 999]]
    for owner, attempt in itertools.product((*OWNERS, f"{99:032x}"), range(3)):
        found = pair[0].ended(owner, attempt, ranges, wanted)
        assert found == pair[1].ended(owner, attempt, ranges, wanted)
        listed = (row for row in pair[1].tasks(wanted) if row["task_id"].startswith(owner))
        seqs = sorted(int(row["task_id"][32:], 16) for row in listed if row["attempt_number"] == attempt)
        assert found == [seq for seq in seqs if any(first <= seq <= last for first, last in ranges)]
    assert pair[0].owners() == pair[1].owners()


def plain(count: int, first: int = 1) -> bytes:
    template = batches.Template("f", "f", codes.NORMAL)
    values = [value for seq in range(first, first + count) for value in (0, seq, 1.0, 1.0, 3.0)]
    return batches.encode(
        batches.Batch(OWNERS[0], "", [template], [], [], [batches.Group(1, 0, 0, 0, 1)], [], codes.new_values(values))
    )


def test_question_that_wants_many_makes_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MERGED_MAX", 20)
    made = Store(str(tmp_path / "h.db"), create=True)
    made.write_down(plain(30))
    assert len(list(made.tasks(limit=20))) == 20
    assert made.has_raw()
    assert [row["task_id"][-2:] for row in made.tasks(limit=5, offset=20)] == ["15", "16", "17", "18", "19"]
    assert (made.has_raw(), made.task_count([])) == (False, 30)


def test_file_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A history that was kept when everything was killed has batches that are no rows."""
    made = Store(str(tmp_path / "h.db"), create=True)
    made.write_down(plain(30))
    made.close()
    reader = Store(str(tmp_path / "h.db"))
    reader._db.execute("PRAGMA query_only = ON")  # as on a disk that takes no more; the tests may run as root
    assert len(list(reader.tasks(limit=20))) == 20
    monkeypatch.setattr(store, "MERGED_MAX", 20)
    with pytest.raises(exceptions.UmbelSystemError, match="cannot be written"):
        list(reader.tasks())


def test_page_is_of_one_moment(tmp_path: Path) -> None:
    """A batch that becomes rows while an answer is read is in it once, and one that is new is not."""
    made = Store(str(tmp_path / "h.db"), create=True)
    made.write_down(plain(5))
    made.absorb_all()
    made.write_down(plain(5, first=6))
    reader = Store(str(tmp_path / "h.db"))
    answer = reader.tasks()
    first = next(answer)
    made.absorb_all()
    made.write_down(plain(5, first=11))
    assert [row["task_id"][-1] for row in (first, *answer)] == list("123456789a")
    assert reader.task_count([]) == 15


def test_who_asks_need_not_look_at_numbers_and_digests_go_with_their_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "h.db")
    made = Store(path, create=True)
    for first in (1, 6, 11):
        made.write_down(plain(5, first))
    made.discard(count_max=5)
    monkeypatch.setattr(batches, "digest_of", None)
    asker = Store(path)
    assert (asker.task_count([]), asker.task_tally()) == (10, [("f", "NORMAL_TASK", "FINISHED", 10)])
    assert [row["task_id"][-1] for row in asker.tasks(limit=2)] == ["6", "7"]
    monkeypatch.undo()
    made.absorb_all()
    for table in ("raw", "digests"):
        assert sqlite3.connect(path).execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_question_does_not_wait_for_who_writes(tmp_path: Path) -> None:
    made = Store(str(tmp_path / "h.db"), create=True)
    made.write_down(plain(5))
    with made._transaction():
        asker = Store(str(tmp_path / "h.db"))
        assert (asker.task_count([]), len(list(asker.tasks(limit=9)))) == (5, 5)
        asker.close()


def test_a_batch_of_what_are_no_numbers_is_left_out_and_told_of_once(tmp_path: Path) -> None:
    made = Store(str(tmp_path / "h.db"), create=True)
    header, body = batches.split(plain(2))
    bad = codes.new_values([float("nan")] * (len(body) // 8)).tobytes()
    made.write_down(len(header).to_bytes(4, "little") + header + bad)
    made.write_down(plain(3))
    assert (made.task_count([]), len(list(made.tasks(limit=9)))) == (3, 3)
    assert made.discard(count_max=0, ended_before_s=1e12) == 0
    with pytest.raises(ValueError, match="NaN"):
        made.absorb()
    made.absorb_all()
    assert made.task_count([]) == 3


def test_batches_are_told_apart_when_all_were_made_rows_meanwhile(tmp_path: Path) -> None:
    """A connection keeps what it has read of a batch; another batch must not get its number."""
    made = Store(str(tmp_path / "h.db"), create=True)
    reader = Store(str(tmp_path / "h.db"))
    made.write_down(plain(5))
    assert reader.task_count([]) == 5
    made.absorb_all()
    made.write_down(plain(3, first=6))
    assert reader.task_count([]) == 8


def test_malformed_batch_hides_no_other(tmp_path: Path) -> None:
    made = Store(str(tmp_path / "h.db"), create=True)
    made.write_down(b"nonsense")
    made.write_down(plain(3))
    assert (made.task_count([]), len(list(made.tasks(limit=10)))) == (3, 3)


@pytest.mark.parametrize("step", range(4))
def test_killed_between_steps_nothing_is_lost_or_doubled(tmp_path: Path, step: int) -> None:
    """A process dies in the transaction that makes rows of a batch: after it, and each time, all tasks are there once."""
    path = str(tmp_path / "h.db")
    made = Store(path, create=True)
    made.write_down(plain(4))
    made.write_down(plain(4, first=5))
    child = os.fork()
    if not child:
        dying = Store(path)
        statements = itertools.count()
        dying._db.set_trace_callback(lambda _: os._exit(9) if next(statements) == 2 * step + 2 else None)
        dying.absorb_all()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    reader = Store(path)
    assert (reader.task_count([]), len(list(reader.tasks(limit=100)))) == (8, 8)
    made.absorb_all()
    assert (reader.task_count([]), len(list(reader.tasks(limit=100)))) == (8, 8)
    assert sqlite3.connect(path).execute("SELECT count(*) FROM tasks").fetchone() == (8,)
