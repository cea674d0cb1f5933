"""What the readers and writers take from the rest of the package, in one place each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa


def unify(first: pa.Schema, second: pa.Schema, *, first_name: str, second_name: str) -> pa.Schema:
    """Raises ValueError with the column, both types and both names."""
    if first.equals(second, check_metadata=False):
        return first
    try:
        return pa.unify_schemas([first, second], promote_options="permissive")
    except pa.ArrowInvalid as error:
        raise _differing(first, second, first_name, second_name) from error
    except pa.ArrowTypeError as error:
        raise _differing(first, second, first_name, second_name) from error


def _differing(first: pa.Schema, second: pa.Schema, first_name: str, second_name: str) -> ValueError:
    parts = []
    for field in first:
        index = second.get_field_index(field.name)
        if index < 0 or field.type.equals(second.field(index).type):
            continue
        try:
            pa.unify_schemas([pa.schema([field]), pa.schema([second.field(index)])], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            parts.append(
                f"column {field.name!r} is {field.type} in {first_name}, but {second.field(index).type} in {second_name}"
            )
    return ValueError(
        f"the schemas of {first_name} and {second_name} do not go together: {'; '.join(parts)}.\n"
        f"schema of {first_name}: {shown(first)}\nschema of {second_name}: {shown(second)}\n"
        "Read them apart and cast, or give the schema that both can be read with"
    )


def shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema` in its order and types, with nulls where the table has none. The schema is a unification of the
    table's with others, so that each cast keeps the values."""
    if table.schema.equals(schema, check_metadata=False):
        return table
    columns = []
    for field in schema:
        index = table.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.nulls(table.num_rows, field.type))
        else:
            column = table.column(index)
            columns.append(column if column.type.equals(field.type) else column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


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
    if isinstance(values, np.ndarray):
        if values.ndim == 1:
            return pa.array(values)
        if values.dtype.kind not in "iufb":
            raise TypeError(f"an array of {values.dtype} cannot be a column of tensors; allowed are numbers and bool")
        if values.size == 0:
            return pa.Table.from_batches(
                [], pa.schema([("x", pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), values.shape[1:]))])
            ).column(0)
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
    present = [value for value in values if value is not None]
    if len({(value.shape, value.dtype) for value in present}) == 1 and len(present) == len(values):
        return tensor_column(np.stack(present))
    raise NotImplementedError("tensors of several shapes in a column")


def array_of(column: pa.ChunkedArray) -> np.ndarray:
    """The whole column as one array whose first axis counts the rows. Raises ValueError where it has nulls or several shapes."""
    if isinstance(column.type, pa.FixedShapeTensorType):
        joined = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        found: np.ndarray = joined.to_numpy_ndarray()
        return found
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        stacked: np.ndarray = np.stack([np.asarray(value) for value in column.to_pylist()])
        return stacked
    plain: np.ndarray = column.to_numpy()
    return plain
