"""Conditions on tasks as SQL over the tables of `schema`: text with question marks, and the values for them.

What the user gives is always a value, never text of the statement. Conditions on what many tasks share become
subqueries on the small table that holds it, so that the large one is looked through once at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from umbel._history import codes, conditions

Condition = conditions.Condition


class Selection(NamedTuple):
    """A part of a statement, and the values of its question marks."""

    sql: str
    values: tuple[Any, ...] = ()


COLUMNS: dict[str, type] = {
    "task_id": str, "attempt_number": int, "name": str, "state": str, "job_id": str, "actor_id": str, "type": str,
    "func_or_class_name": str, "parent_task_id": str, "node_id": str, "worker_id": str, "worker_pid": int,
    "error_type": str, "creation_time_ms": int, "start_time_ms": int, "end_time_ms": int, "language": str,
    "placement_group_id": str, "is_debugger_paused": bool,
}  # fmt: skip
CONSTANT = {"language": "PYTHON", "placement_group_id": None, "is_debugger_paused": False}  # of every task
_BY_ID = ("owner", "seq", "attempt")
ORDERS = {  # whole orders, so that each task is on one page; each time's index has the rest as well
    "task_id": _BY_ID,
    "creation_time_ms": ("submitted", *_BY_ID),
    "start_time_ms": ("started", *_BY_ID),
    "end_time_ms": ("ended", *_BY_ID),
}
_OWNER_DIGITS, _ID_DIGITS = 32, 48
_NEVER = Selection("0")


def task_id(owner: str, seq: int) -> str:
    return f"{owner}{seq:016x}"


def where(wanted: Sequence[Condition]) -> Selection:
    """For after WHERE."""
    parts = [_condition(one) for one in wanted]
    return Selection(" AND ".join(f"({part.sql})" for part in parts) or "1", tuple(v for p in parts for v in p.values))


def order(wanted: tuple[str, bool] | None) -> str:
    """For after ORDER BY; by task id, which is the order of submission of each owner, for None."""
    column, is_descending = wanted or ("task_id", False)
    way = " DESC" if is_descending else ""
    return ", ".join(name + way for name in ORDERS[column])


def _condition(one: Condition) -> Selection:
    if one.column in CONSTANT:
        return Selection(str(int(one.is_met(CONSTANT))))
    if one.column == "state":
        return _state(one)
    if one.operator == "in":
        return _any([_condition(Condition(one.column, "=", value)) for value in one.value])
    if one.operator == "!=":
        equal = _condition(one._replace(operator="="))
        return Selection(f"NOT coalesce({equal.sql}, 0)", equal.values)
    return _MAKERS[one.column](one)


def _any(parts: Sequence[Selection]) -> Selection:
    return Selection(" OR ".join(f"({p.sql})" for p in parts) or "0", tuple(v for p in parts for v in p.values))


def _kind(column: str) -> Callable[[Condition], Selection]:
    def make(one: Condition) -> Selection:
        value = one.value or ""  # a task of no actor has an empty text there
        return Selection(f"kind IN (SELECT id FROM kinds WHERE {column} = ? COLLATE NOCASE)", (value,))

    return make


def _worker(column: str) -> Callable[[Condition], Selection]:
    def make(one: Condition) -> Selection:
        if one.value is None:
            return Selection(f"worker IS NULL OR worker IN (SELECT id FROM workers WHERE {column} IS NULL)")
        return Selection(
            f"worker IN (SELECT id FROM workers WHERE {column} {one.operator} ? COLLATE NOCASE)", (one.value,)
        )

    return make


def _number(column: str) -> Callable[[Condition], Selection]:
    def make(one: Condition) -> Selection:
        return Selection(f"{column} {one.operator} ?", (one.value,))

    return make


def _time(column: str) -> Callable[[Condition], Selection]:
    """Times are stored in seconds and asked for in whole milliseconds."""

    def make(one: Condition) -> Selection:
        if one.value is None:
            return Selection(f"{column} IS NULL")
        if one.operator == ">":
            return Selection(f"{column} >= ?", ((one.value + 1) / 1e3,))
        if one.operator == "<":
            return Selection(f"{column} < ?", (one.value / 1e3,))
        return Selection(f"{column} >= ? AND {column} < ?", (one.value / 1e3, (one.value + 1) / 1e3))

    return make


def _state(one: Condition) -> Selection:
    """As numbers in the text, which are ours, so that the index of those that failed fits."""
    met = [number for number, name in codes.STATES.items() if one.is_met({"state": name})]
    return Selection("1") if len(met) == len(codes.STATES) else _any([Selection(f"state = {n}") for n in met])


def _id(owner: str, seq: str) -> Callable[[Condition], Selection]:
    def make(one: Condition) -> Selection:
        if one.value is None:
            return Selection(f"{owner} IS NULL")
        text = one.value.lower()
        try:
            number = int.from_bytes(bytes.fromhex(text[_OWNER_DIGITS:]), "big")
        except ValueError:
            return _NEVER
        if len(text) != _ID_DIGITS or number >= 1 << 63:
            return _NEVER
        process = text[:_OWNER_DIGITS]
        return Selection(f"{owner} = (SELECT id FROM owners WHERE process = ?) AND {seq} = ?", (process, number))

    return make


def _job(one: Condition) -> Selection:
    return Selection("owner IN (SELECT id FROM owners WHERE job = ? COLLATE NOCASE)", (one.value,))


def _error(one: Condition) -> Selection:
    if one.value is None:
        return Selection(
            "NOT EXISTS (SELECT 1 FROM failures f WHERE (f.owner, f.seq, f.attempt) = (tasks.owner, tasks.seq, tasks.attempt))"
        )
    return Selection(
        "(owner, seq, attempt) IN (SELECT owner, seq, attempt FROM failures WHERE type = ? COLLATE NOCASE)",
        (one.value,),
    )


_MAKERS: dict[str, Callable[[Condition], Selection]] = {
    "task_id": _id("owner", "seq"),
    "parent_task_id": _id("parent_owner", "parent_seq"),
    "attempt_number": _number("attempt"),
    "name": _kind("name"),
    "func_or_class_name": _kind("function"),
    "type": _kind("type"),
    "actor_id": _kind("actor"),
    "job_id": _job,
    "node_id": _worker("node"),
    "worker_id": _worker("worker"),
    "worker_pid": _worker("pid"),
    "error_type": _error,
    "creation_time_ms": _time("submitted"),
    "start_time_ms": _time("started"),
    "end_time_ms": _time("ended"),
}
