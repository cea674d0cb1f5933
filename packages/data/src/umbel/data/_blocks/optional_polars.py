"""Polars, where it is installed and worth being asked.

The kernels hand it plain integers only, so that no rule on nulls, NaN or order is its own, and no string is converted. It
uses the threads that POLARS_MAX_THREADS allows; who starts a task on one CPU sets that before the first import.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Final

ROWS_MIN: Final = 100_000  # below, what it saves is less than its import takes, several times over


def module(row_count: int) -> ModuleType | None:
    """The module, if there is one and so many rows are worth it."""
    if row_count < ROWS_MIN or importlib.util.find_spec("polars") is None:
        return None
    return importlib.import_module("polars")
