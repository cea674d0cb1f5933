"""Rows on which a function of the user's fails: the error is told with them, or they are left out.

What is left out is counted, and with "collect" kept, in the task's context, from where it goes with the task's end to whoever
runs the plan: a task that is tried again tells of it once.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa

from umbel.data._engine import failures, task_context

CHOICES: Final = ("raise", "skip", "collect")
COLUMN: Final = "_error"
TYPE: Final = pa.struct(
    [
        ("operator", pa.string()),
        ("type", pa.string()),
        ("message", pa.string()),
        ("traceback", pa.string()),
        ("input_files", pa.list_(pa.string())),
    ]
)
COLLECTED_MAX: Final = 10_000  # rows of one task: where more fail, it is not the rows that are bad


def check(on_error: object) -> str:
    if on_error not in CHOICES:
        raise ValueError(f"on_error must be one of {', '.join(map(repr, CHOICES))}, got {on_error!r}")
    return str(on_error)


def failed(error: Exception, operator: str, on_error: str, where: str, rows: Callable[[], pa.Table]) -> None:
    """Raises the error, which then says where it was; unless rows on which the function fails are left out. rows: makes them."""
    if on_error == "raise":
        raise _told(error, f"in {operator}, on {where}")
    here = task_context.current()
    table = rows()
    count = here.failed_counts.get(operator, 0) + table.num_rows
    here.failed_counts[operator] = count
    if on_error != "collect":
        return
    if count > COLLECTED_MAX:
        raise _told(error, f"in {operator}, on more than {COLLECTED_MAX} rows of one task; the last was {where}")
    here.failed.append(_with_error(table, error, operator, here.input_files))


def _told(error: Exception, note: str) -> Exception:
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note(f"({note})")
    return error


def _with_error(table: pa.Table, error: Exception, operator: str, input_files: Sequence[str]) -> pa.Table:
    of_user = failures.of_user(error)
    value = {
        "operator": operator,
        "type": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(type(of_user), of_user, of_user.__traceback__)),
        "input_files": [*input_files],
    }
    column: Any = pa.array([value] * table.num_rows, TYPE)
    kept = table.drop_columns([COLUMN]) if COLUMN in table.column_names else table
    return kept.append_column(COLUMN, column)
