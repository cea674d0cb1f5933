"""Filters of listings: what they may be, and whether a row meets them.

A filter is (column, operator, value). Each column has a kind, by which texts from a command line are read; comparisons
of text ignore case, as Ray's do. Nothing here knows where rows come from; `selections` makes SQL of the same conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from umbel import exceptions

OPERATORS = ("=", "!=", "<", ">", "in")
NUMBERS = (int, float)
VALUES_MAX = 500  # of one "in"; SQLite takes a thousand alternatives


class Condition(NamedTuple):
    """value: of the column's kind, or a list of such for "in"; None stands for "has none"."""

    column: str
    operator: str
    value: Any

    def is_met(self, row: Mapping[str, Any]) -> bool:
        found = row.get(self.column)
        if self.operator == "in":
            return any(_is_equal(found, one) for one in self.value)
        if self.operator == "=":
            return _is_equal(found, self.value)
        if self.operator == "!=":
            return not _is_equal(found, self.value)
        if found is None:
            return False
        return bool(found < self.value if self.operator == "<" else found > self.value)


def _is_equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, str) and isinstance(wanted, str):
        return found.lower() == wanted.lower()
    return bool(found == wanted)


def all_met(conditions: Sequence[Condition], row: Mapping[str, Any]) -> bool:
    return all(condition.is_met(row) for condition in conditions)


def read(filters: Any, columns: Mapping[str, type], what: str) -> list[Condition]:
    """The conditions that `filters` stand for. columns: those that may be filtered by, with their kinds; what: the
    plural of the rows, for messages. Raises InvalidOption, which says what is allowed."""
    if filters is None:
        return []
    if isinstance(filters, (str, bytes)) or not isinstance(filters, Sequence):
        raise _bad(f"filters must be a list of (column, operator, value), got {filters!r}")
    return [_read_one(one, columns, what) for one in filters]


def _read_one(one: Any, columns: Mapping[str, type], what: str) -> Condition:
    if isinstance(one, (str, bytes)) or not isinstance(one, Sequence) or len(one) != 3:
        raise _bad(f'a filter must be (column, operator, value), such as ("state", "=", "RUNNING"), got {one!r}')
    name, operator, value = one
    column = name.lower() if isinstance(name, str) else ""
    if column not in columns:
        raise _bad(f"{what} cannot be filtered by {name!r}; the columns are {', '.join(columns)}")
    if operator not in OPERATORS:
        raise _bad(f"a filter's operator must be one of {' '.join(OPERATORS)}, got {operator!r} for {column}")
    kind = columns[column]
    if operator in ("<", ">") and kind not in NUMBERS:
        ordered = [name for name, kind in columns.items() if kind in NUMBERS]
        raise _bad(f"{operator} compares numbers, and {column} is none; of {what} those are {', '.join(ordered)}")
    if operator != "in":
        return Condition(column, operator, _of_kind(value, kind, column))
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (Sequence, set, frozenset)):
        raise _bad(f'the value of an "in" filter must be a list of values, got {value!r} for {column}')
    if len(value) > VALUES_MAX:
        raise _bad(f'an "in" filter takes up to {VALUES_MAX} values, got {len(value)} for {column}; ask several times')
    return Condition(column, operator, [_of_kind(item, kind, column) for item in value])


def _of_kind(value: Any, kind: type, column: str) -> Any:
    if value is None:
        return None
    try:
        return _READERS[kind](value)
    except (KeyError, TypeError, ValueError):
        raise _bad(f"{column} is {_WORDS[kind]}, so that a filter cannot compare it with {value!r}") from None


def _flag(value: Any) -> bool:
    return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        raise TypeError
    return str(value)


_READERS: dict[type, Callable[[Any], Any]] = {str: _text, int: int, float: float, bool: _flag}
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def read_order(order_by: Any, columns: Sequence[str], what: str) -> tuple[str, bool] | None:
    """(column, whether descending) of "column" or "-column"; None for None. Raises InvalidOption."""
    if order_by is None:
        return None
    name = order_by.removeprefix("-").lower() if isinstance(order_by, str) else ""
    if name not in columns:
        raise _bad(f"{what} cannot be sorted by {order_by!r}; the columns are {', '.join(columns)}, or -column")
    return name, order_by.startswith("-")


def read_count(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _bad(f"{name} must be a whole number >= 0, got {value!r}")
    return value


def _bad(text: str) -> exceptions.InvalidOption:
    return exceptions.InvalidOption(text, option="filters")
