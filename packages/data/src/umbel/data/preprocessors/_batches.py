"""Single batches of any kind: in as they are, and out as the same kind, with all that was not changed left as it was."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from umbel.data import block
from umbel.data._blocks import batches
from umbel.data.preprocessors import _making


def format_of(data: Any) -> block.BatchFormat:
    """The batch format that it has."""
    if isinstance(data, pa.Table | pa.RecordBatch):
        return "pyarrow"
    if isinstance(data, Mapping):
        return "numpy"
    library = type(data).__module__.partition(".")[0]
    if type(data).__name__ == "DataFrame" and library == "pandas":
        return "pandas"
    if type(data).__name__ == "DataFrame" and library == "polars":
        return "polars"
    raise TypeError(
        f"a batch is a dictionary of arrays, a DataFrame of pandas or polars, or a Table of Arrow, got {type(data).__name__}; "
        "a dataset goes to transform()"
    )


def table_of(data: Any) -> pa.Table:
    format_of(data)
    return batches.from_batch(data, operator="transform_batch")


def changed(
    data: Any,
    outputs_of: Callable[[pa.Schema], Sequence[_making.Output]],
    names: Sequence[str],
    dropped: Collection[str],
) -> Any:
    """The batch with the outputs. names: the columns that they are made of; no other is looked at."""
    batch_format = format_of(data)
    if batch_format == "pyarrow":
        table = pa.Table.from_batches([data]) if isinstance(data, pa.RecordBatch) else data
        return _making.applied(table, outputs_of(table.schema), dropped)
    known = [*(data if batch_format == "numpy" else data.columns)]
    wanted = [name for name in known if name in names] or known[
        :1
    ]  # of the first at least, which says how many rows there are
    table = table_of({name: data[name] for name in wanted} if batch_format == "numpy" else data[wanted])
    unread = [pa.field(str(name), pa.null()) for name in known if name not in wanted]
    outputs = outputs_of(pa.schema([*table.schema, *unread]))  # an error about a missing one names all that there are
    arrays = pa.table(_making.made(table, outputs))
    made: Any = batches.to_batch(arrays, batch_format, zero_copy=False)
    gone = [name for name in known if name in dropped and name not in arrays.column_names]
    if batch_format == "numpy":
        return {name: value for name, value in data.items() if name not in gone} | made
    if batch_format == "polars":
        return data.drop(gone).with_columns(made.get_columns())
    made.index = data.index
    frame = data.drop(columns=gone)
    for name in made.columns:
        frame[name] = made[name]
    return frame
