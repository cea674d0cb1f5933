"""What is alive and what has ended, put together: each attempt once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_history_batches import OWNER, batch

from umbel._client import task_listing
from umbel._history import batches, codes
from umbel._history.conditions import Condition
from umbel._history.store import Store
from umbel.util.state import api

OTHER = "0d" * 16


@pytest.fixture
def history(tmp_path: Path) -> Store:
    """Of OWNER the first attempts of tasks 3 to 5 and 8 have ended, and the second of 8."""
    made = Store(str(tmp_path / "history.db"), create=True)
    for attempt, seqs in ((0, (3, 4, 5, 8)), (1, (8,))):
        groups = [batches.Group(1, 1, 0, attempt, codes.FINISHED)]
        rows = [(0, seq, 1.0, 1.0, 3.0) for seq in seqs]
        made.write_down(batches.encode(batch(rows, groups=groups, failures=[])))
    made.absorb_all()
    return made


def count(*ranges: tuple[int, int], process: str = OWNER, attempt: int = 0) -> task_listing.Count:
    return task_listing.Count(process, "f", "NORMAL_TASK", "SUBMITTED_TO_WORKER", attempt, [*ranges])


def row(seq: int, attempt: int = 0) -> dict[str, Any]:
    return {"task_id": f"{OWNER}{seq:016x}", "attempt_number": attempt}


def test_what_has_ended_since_it_was_told_is_not_alive(history: Store) -> None:
    told = task_listing.Living([row(2), row(3), row(8), row(9)], [count((1, 4), (6, 9)), count((3, 3), process=OTHER)])
    left = told.without(history, ())
    assert left.rows == [row(2), row(9)]
    assert left.counts == [count((1, 2), (6, 7), (9, 9)), count((3, 3), process=OTHER)]
    assert [one.total for one in left.counts] == [5, 1]


def test_later_attempt_is_alive_though_the_first_has_ended(history: Store) -> None:
    told = task_listing.Living([row(3, 1), row(8, 1)], [count((3, 3), (8, 8), attempt=1)])
    assert told.without(history, ()) == task_listing.Living([row(3, 1)], [count((3, 3), attempt=1)])


def test_what_has_ended_as_something_else_than_is_asked_for_was_alive_when_it_was_asked(history: Store) -> None:
    told = task_listing.Living([row(3)], [count((3, 3))])
    wanted = [Condition("state", "!=", "FINISHED")]
    assert told.without(history, wanted) == told
    assert told.without(history, [Condition("name", "=", "f")]) == task_listing.Living([], [count()])


@pytest.mark.parametrize("column", ["error_type", "parent_task_id", "placement_group_id"])
def test_ended_are_found_by_conditions_on_other_tables_too(history: Store, column: str) -> None:
    told = task_listing.Living([row(3)], [count((3, 3))])
    assert told.without(history, [Condition(column, "=", None)]) == task_listing.Living([], [count()])
    wanted = [Condition(column, "!=", None)]
    assert told.without(history, wanted) == told


def test_what_is_looked_up_together_is_of_one_moment(history: Store) -> None:
    other = Store(history.path)
    with other.reading():
        before = other.task_count([])
        history.write_down(
            batches.encode(
                batch([(0, 6, 1.0, 1.0, 3.0)], groups=[batches.Group(1, 1, 0, 0, codes.FINISHED)], failures=[])
            )
        )
        history.absorb_all()
        assert (other.task_count([]), other.ended(OWNER, 0, [(6, 6)])) == (before, [])
    assert (other.task_count([]), other.ended(OWNER, 0, [(6, 6)])) == (before + 1, [6])
    other.close()


def test_summaries_of_equal_tallies_look_alike() -> None:
    """Which of two tasks that run side by side ends first is chance."""
    tally = [("f", "NORMAL_TASK", "FINISHED", 5), ("f", "NORMAL_TASK", "FAILED", 5), ("a", "ACTOR_TASK", "FINISHED", 1)]
    assert str(api._task_summary(tally)) == str(api._task_summary(tally[::-1]))
