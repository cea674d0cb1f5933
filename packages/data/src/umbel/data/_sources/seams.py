"""What the readers and writers take from the rest of the package, in one place each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import sizes, tensors

_NULLS: Final = "a column with nulls is no array; fill or drop them"


def shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def table_of_columns(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """A column of each sequence of Python values, NumPy arrays among them."""
    return pa.table({name: column_of(values) for name, values in columns.items()})


def table_of_rows(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Columns in the order in which their names come; a row without one has null there."""
    rows = list(rows)
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return table_of_columns({name: [row.get(name) for row in rows] for name in names})


def column_of(values: Sequence[Any]) -> pa.Array:
    if any(isinstance(value, np.ndarray) for value in values):
        return tensor_column(values)
    return pa.array(values)


def tensor_column(values: Sequence[np.ndarray | None] | np.ndarray) -> pa.Array:
    """One array (its first axis counts the rows), or arrays that make one row each."""
    if not isinstance(values, np.ndarray):
        return tensors.from_arrays(values)
    if values.ndim == 1:
        return pa.array(values)
    if not tensors.holds(values.dtype):
        raise TypeError(
            f"an array of {values.dtype} cannot be a column of tensors; allowed are numbers, times and bool"
        )
    return tensors.from_numpy(values)


def array_of(column: pa.ChunkedArray) -> np.ndarray:
    """The whole column as one array whose first axis counts the rows. Raises ValueError where it has nulls or several shapes."""
    joined = sizes.contiguous(column)
    if tensors.is_tensor(joined.type):
        found: np.ndarray = tensors.to_numpy(joined)
        if found.dtype != object:
            return found
        return _stacked(list(found))
    if pa.types.is_nested(joined.type):
        return _stacked([None if value is None else np.asarray(value) for value in joined.to_pylist()])
    if joined.null_count and not pa.types.is_floating(joined.type):
        raise ValueError(_NULLS)
    if pa.types.is_string(joined.type) or pa.types.is_large_string(joined.type):
        texts: np.ndarray = np.array(joined.to_pylist(), dtype=np.str_)
        return texts
    plain: np.ndarray = joined.to_numpy(zero_copy_only=False)
    return plain


def _stacked(arrays: list[np.ndarray | None]) -> np.ndarray:
    if any(array is None for array in arrays):
        raise ValueError(_NULLS)
    shapes = {array.shape for array in arrays if array is not None}
    if len(shapes) > 1:
        raise ValueError(f"arrays of several shapes do not go into one array, got {sorted(shapes)[:4]}")
    stacked: np.ndarray = np.stack([array for array in arrays if array is not None])
    return stacked


def iter_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows as Python values; a tensor is an ndarray."""
    columns = [
        list(tensors.to_numpy(sizes.contiguous(column))) if tensors.is_tensor(column.type) else column.to_pylist()
        for column in table.columns
    ]
    names = table.column_names
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def no_column(name: str, known: Sequence[str], *, purpose: str = "write") -> str:
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"there are {', '.join(map(repr, known[:20]))}"
    return f"there is no column {name!r} to {purpose}; {hint}"
