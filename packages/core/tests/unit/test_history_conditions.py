"""Filters: what they may be, whether a row meets them, and that SQL says the same of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_history_batches import OWNER, ROWS, WORKER, batch

from umbel import exceptions
from umbel._history import batches, codes, conditions, selections
from umbel._history.conditions import Condition
from umbel._history.store import Store

COLUMNS = {"name": str, "size": int, "share": float, "is_alive": bool}
ROW = {"name": "Big", "size": 7, "share": 0.5, "is_alive": True}


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (("name", "=", "big"), True),
        (("NAME", "=", "Big"), True),
        (("name", "!=", "big"), False),
        (("name", "=", None), False),
        (("name", "!=", None), True),
        (("name", "in", ["small", "BIG"]), True),
        (("name", "in", "small,big"), True),
        (("name", "in", []), False),
        (("size", "=", "7"), True),
        (("size", "<", 8), True),
        (("size", "<", 7), False),
        (("size", ">", "6"), True),
        (("size", "in", ["7", 8]), True),
        (("share", ">", 0.4), True),
        (("is_alive", "=", "true"), True),
        (("is_alive", "=", True), True),
        (("is_alive", "!=", "0"), True),
    ],
)
def test_row_meets_condition(one: tuple[Any, ...], expected: bool) -> None:
    (condition,) = conditions.read([one], COLUMNS, "things")
    assert condition.is_met(ROW) is expected


def test_row_without_a_value_meets_no_comparison() -> None:
    assert not Condition("size", "<", 8).is_met({"size": None})
    assert Condition("size", "!=", 8).is_met({"size": None})
    assert Condition("size", "=", None).is_met({})


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ("name=x", r"must be a list of \(column, operator, value\)"),
        ([("name", "=")], r'a filter must be .*"RUNNING"\), got'),
        (["abc"], "a filter must be"),
        (
            [("colour", "=", "red")],
            "things cannot be filtered by 'colour'; the columns are name, size, share, is_alive",
        ),
        ([(3, "=", "red")], "cannot be filtered by 3"),
        ([("name", "~", "x")], "must be one of = != < > in, got '~' for name"),
        ([("name", "<", "x")], "< compares numbers, and name is none; of things those are size, share"),
        ([("size", "=", "big")], "size is a whole number, so that a filter cannot compare it with 'big'"),
        ([("is_alive", "=", "perhaps")], "is_alive is true or false"),
        ([("name", "=", b"x")], "name is a text"),
        ([("size", "in", 3)], "must be a list of values, got 3 for size"),
    ],
)
def test_bad_filter_says_what_is_allowed(filters: Any, message: str) -> None:
    with pytest.raises(exceptions.InvalidOption, match=message):
        conditions.read(filters, COLUMNS, "things")


@pytest.mark.parametrize("order_by", ["colour", "-colour", 3, "--name"])
def test_bad_order_says_what_is_allowed(order_by: Any) -> None:
    with pytest.raises(exceptions.InvalidOption, match=r"things cannot be sorted by .*; the columns are name, size"):
        conditions.read_order(order_by, ["name", "size"], "things")


def test_order_is_read() -> None:
    assert conditions.read_order("-size", ["name", "size"], "things") == ("size", True)
    assert conditions.read_order("NAME", ["name", "size"], "things") == ("name", False)
    assert conditions.read_order(None, ["name"], "things") is None


@pytest.mark.parametrize("count", [-1, 1.5, True, "3", None])
def test_bad_count_is_refused(count: Any) -> None:
    with pytest.raises(exceptions.InvalidOption, match="limit must be a whole number >= 0"):
        conditions.read_count(count, "limit")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished task on a worker, and a failed one of an actor, which never ran."""
    made = Store(str(Path(tmp_path_factory.mktemp("history")) / "h.db"), create=True)
    actor = batches.Template("A.m", "A.m", codes.CALL, "0c" * 24, "", "")
    templates = [*batch([]).templates, actor]
    groups = [batches.Group(1, 1, 0, 0, codes.FINISHED), batches.Group(2, 0, 1, 2, codes.FAILED)]
    made.write_down(batches.encode(batch(ROWS, templates=templates, groups=groups)))
    made.worker({"worker": WORKER, "node": "n1", "pid": 42, "ready": 1.0})
    made.absorb_all()
    return made


VALUES: dict[str, list[Any]] = {
    "task_id": [f"{OWNER}{1:016x}", f"{OWNER}{2:016x}".upper(), "nonsense", "0" * 48],
    "attempt_number": [0, 2, 3],
    "name": ["f", "F", "a.M", "o'clock"],
    "state": ["FINISHED", "failed", "RUNNING"],
    "job_id": ["01000000", "02000000"],
    "actor_id": ["0c" * 24, "0C" * 24, None, "x"],
    "type": ["NORMAL_TASK", "actor_task", "x"],
    "func_or_class_name": ["f", "A.m", "x"],
    "parent_task_id": [f"{OWNER}{7:016x}", None, "x"],
    "node_id": ["n1", "n2", None],
    "worker_id": [WORKER, None, "x"],
    "worker_pid": [42, 43, None],
    "error_type": ["WORKER_DIED", "worker_died", None, "x"],
    "creation_time_ms": [10_000, 10_499, 10_500, 11_000],
    "start_time_ms": [10_500, 10_501, None],
    "end_time_ms": [11_000, 12_000, 0],
    "language": ["PYTHON", "JAVA"],
    "placement_group_id": [None, "x"],
    "is_debugger_paused": [False, True],
}


def test_every_column_is_tried() -> None:
    assert set(VALUES) == set(selections.COLUMNS)


@pytest.mark.parametrize("column", VALUES)
def test_database_finds_what_meets_the_condition(store: Store, column: str) -> None:
    """The rows themselves, looked at one by one, are the measure for what the statement finds."""
    rows = [{**selections.CONSTANT, **_with_times(row)} for row in store.tasks()]
    assert [row["name"] for row in rows] == ["f", "A.m"]
    operators = ["=", "!=", "in"] + (["<", ">"] if selections.COLUMNS[column] is int else [])
    for operator in operators:
        for value in VALUES[column]:
            if value is None and operator in ("<", ">"):
                continue
            condition = Condition(column, operator, [value] if operator == "in" else value)
            expected = [row["task_id"] for row in rows if condition.is_met(row)]
            assert [row["task_id"] for row in store.tasks([condition])] == expected, condition
            assert store.task_count([condition]) == len(expected)


def _with_times(row: dict[str, Any]) -> dict[str, Any]:
    names = {"submitted_s": "creation_time_ms", "started_s": "start_time_ms", "ended_s": "end_time_ms"}
    return row | {to: None if row[name] is None else int(row[name] * 1e3) for name, to in names.items()}


def test_conditions_are_all_met(store: Store) -> None:
    met = [Condition("state", "=", "FAILED"), Condition("attempt_number", "=", 2)]
    assert store.task_count(met) == 1
    assert store.task_count([*met, Condition("name", "=", "f")]) == 0
    assert store.task_count([]) == 2
    assert store.task_count([Condition("name", "in", [])]) == 0


def test_values_are_never_text_of_the_statement() -> None:
    for column in VALUES:
        for text in ("' OR 1=1 --", "x); DROP TABLE tasks"):
            value: Any = text if selections.COLUMNS[column] is str else 12_345
            assert str(value) not in selections.where([Condition(column, "=", value)]).sql


@pytest.mark.parametrize("order", [("task_id", False), ("end_time_ms", True), ("start_time_ms", False), None])
def test_pages_follow_one_another(store: Store, order: Any) -> None:
    whole = [row["task_id"] for row in store.tasks(order=order)]
    pages = [row["task_id"] for offset in range(3) for row in store.tasks(order=order, limit=1, offset=offset)]
    assert pages == whole
