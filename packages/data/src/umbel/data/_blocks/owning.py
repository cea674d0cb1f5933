"""Values that a function returns and may still write to: what it gives out is to stay as it was.

Tables share the memory of the arrays that they are made of, and lie about for a while before they are sent. A function that
fills one buffer again and again, and gives it out each time, would change what it gave before. So what anybody else still
holds is copied; an array that was made for its batch, as most are, is not.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

_PLAIN: Final = frozenset((int, float, str, bool, bytes, type(None)))


def owned_batch(batch: Any, *, is_of_generator: bool) -> Any:
    """The batch, with copies of those arrays that whoever made it can still write to. is_of_generator: it goes on later, with all
    that it has."""
    if isinstance(batch, Mapping):
        return {name: _copied(batch, name) if _is_shared(batch, name) else batch[name] for name in batch}
    if is_of_generator and type(batch).__module__.partition(".")[0] == "pandas":
        return batch.copy()
    return batch


def owned_row(row: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The row, with copies of what in it can be written to: rows are kept as they are until there are enough for a block. given:
    values that were made for this row alone."""
    return {
        name: value if type(value) in _PLAIN or given.get(name) is value else _owned_value(value)
        for name, value in row.items()
    }


def _owned_value(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy() if _is_writable(value) else value
    if isinstance(value, list):
        return [*value]
    return dict(value) if isinstance(value, dict) else value


def _copied(batch: Mapping[str, Any], name: str) -> Any:
    value = batch[name]
    return value.copy() if isinstance(value, np.ndarray) else value.detach().clone()


def _is_shared(batch: Mapping[str, Any], name: str) -> bool:
    """Whether others than the batch hold the array `name` or the memory that it shows, and could write there."""
    count = _reference_count(batch, name)
    value = batch[name]
    if not isinstance(value, np.ndarray):
        # Whether another tensor shows the same memory, torch does not tell.
        return type(value).__module__.partition(".")[0] == "torch" and value.device.type == "cpu"
    if value.dtype == object or not _is_writable(value):
        return False
    while isinstance(value.base, np.ndarray):
        if count > _ALONE:
            return True
        count, value = _reference_count({name: value}, name, through_base=True), value.base
    return count > _ALONE or value.base is not None


def _reference_count(batch: Mapping[str, Any], name: str, *, through_base: bool = False) -> int:
    value = batch[name].base if through_base else batch[name]
    return sys.getrefcount(value)


def _is_writable(array: Any) -> bool:
    """By anybody: also if it is a view that cannot be written to of what can."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return True
        array = array.base
    return False


_ALONE: Final = _reference_count({"": np.empty(0)}, "")  # held by nothing but a dictionary
