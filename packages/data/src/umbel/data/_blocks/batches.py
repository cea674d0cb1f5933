"""Tables as the batches that functions take, and tables of what functions return.

A batch is a view of its table where the form allows, and cannot be written to then; `zero_copy=False` makes it a copy that can.
No integer becomes a float: a column of them with nulls is a masked ndarray (`columns`), or a nullable one in pandas (`frames`).
"""

from __future__ import annotations

import collections
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import frames, inference, restoring, schemas, sizes, unpacking

if TYPE_CHECKING:
    from umbel.data import block

BATCH_FORMATS: Final = ("default", "numpy", "pandas", "pyarrow", "polars", "torch", None)
"""What a function may ask for: "default" is "numpy", and None the block as it is."""

_WINDOW_ROWS: Final = 16_384  # that a copying conversion makes at once: many batches that stay in the cache


def check_format(batch_format: object) -> None:
    """Raises ValueError for what is no batch format."""
    if batch_format not in BATCH_FORMATS:
        raise ValueError(f"batch_format must be one of {', '.join(map(repr, BATCH_FORMATS))}, got {batch_format!r}")


def to_batch(table: pa.Table, batch_format: block.BatchFormat, *, zero_copy: bool = True) -> block.DataBatch:
    """The whole table as one batch.

    Raises ValueError for an unknown format, ImportError where its library is missing, and TypeError where the format has
    nothing for a column's type.
    """
    check_format(batch_format)
    convert, _ = _FORMS[batch_format]
    return convert(table, zero_copy)


def iter_batches(
    tables: Iterable[pa.Table],
    batch_size: int | None,
    batch_format: block.BatchFormat,
    *,
    drop_last: bool = False,
    zero_copy: bool = True,
) -> Iterator[block.DataBatch]:
    """The rows of the tables in order, `batch_size` at a time; None makes each table that has rows one batch.

    A table is converted once, and its batches are slices of that; only a batch with rows of several tables is put together by
    copying. The last batch may be smaller, unless it is dropped. Holds on to one table and, past it, less than a batch.
    """
    check_format(batch_format)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}; None makes each block one batch")
    if batch_size is None:
        return (to_batch(table, batch_format, zero_copy=zero_copy) for table in tables if table.num_rows)
    return _sized(tables, batch_size, batch_format, drop_last, zero_copy)


def from_batch(value: object, *, operator: str = "map_batches", like: pa.Schema | None = None) -> pa.Table:
    """A table of what a function returned: a dict of columns, a data frame, or anything of Arrow's.

    Numbers share the memory of the arrays they came in: whoever writes to these later writes to the table.
    operator: for errors. like: the schema of the function's input, whose types the output's columns keep where they are their
    images (`restoring`).
    Raises TypeError for what is no batch, or has a value that Arrow has no type for; ValueError for unequal lengths, and for
    a value that does not fit.
    """
    try:
        table = _table(value, like)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{operator} returned what cannot be a batch: {error}") from None
    if like is None:
        return table
    arrays: dict[str, restoring.Arrays] = {}
    if isinstance(value, Mapping):
        arrays = {name: "columns" if _is_of_times(column) else "lists" for name, column in value.items()}
    elif _is_frame(value, "pandas"):
        arrays = dict.fromkeys(table.column_names, "lists")
    return restoring.restore(table, like, arrays)


def _sized(
    tables: Iterable[pa.Table], batch_size: int, batch_format: block.BatchFormat, drop_last: bool, zero_copy: bool
) -> Iterator[block.DataBatch]:
    begun: list[pa.Table] = []  # rows that do not fill a batch yet
    begun_rows = 0
    for table in tables:
        start = 0
        if begun_rows:
            start = min(batch_size - begun_rows, table.num_rows)
            begun.append(table.slice(0, start))
            begun_rows += start
            if begun_rows < batch_size:
                continue
            yield to_batch(schemas.concat(begun), batch_format, zero_copy=zero_copy)
            begun, begun_rows = [], 0
        whole_rows = (table.num_rows - start) // batch_size * batch_size
        yield from _slices(table.slice(start, whole_rows), batch_size, batch_format, zero_copy)
        if start + whole_rows < table.num_rows:
            # A copy, for the rows left are few, and a slice would keep the whole table until the next has come.
            begun = [sizes.compact(table.slice(start + whole_rows))]
            begun_rows = begun[0].num_rows
    if begun_rows and not drop_last:
        yield to_batch(schemas.concat(begun), batch_format, zero_copy=zero_copy)


def _slices(
    table: pa.Table, batch_size: int, batch_format: block.BatchFormat, zero_copy: bool
) -> Iterator[block.DataBatch]:
    """Batches of a table whose rows are a multiple of their size."""
    convert, cut = _FORMS[batch_format]
    window = table.num_rows if _is_viewed(table) else max(1, _WINDOW_ROWS // batch_size) * batch_size
    for begin in range(0, table.num_rows, window or 1):
        part = table.slice(begin, window)
        form = convert(part, zero_copy)
        if part.num_rows == batch_size:
            yield form
            continue
        for start in range(0, part.num_rows, batch_size):
            yield cut(form, start, start + batch_size)


def _is_viewed(table: pa.Table) -> bool:
    """Whether converting it copies next to nothing."""
    return all(
        column.num_chunks <= 1
        and (
            pa.types.is_primitive(column.type)
            or pa.types.is_fixed_size_list(getattr(column.type, "storage_type", column.type))
        )
        for column in table.columns
    )


def _to_numpy(table: pa.Table, zero_copy: bool) -> dict[str, np.ndarray[Any, Any]]:
    arrays = (unpacking.to_numpy(sizes.contiguous(column)) for column in table.columns)
    made = arrays if zero_copy else (_writable(array) for array in arrays)
    return dict(zip(table.column_names, made, strict=True))


def _writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype == object:
        return unpacking.objects([_writable(one) if isinstance(one, np.ndarray) else one for one in array])
    return array if array.flags.writeable and array.base is None else array.copy()


def _to_torch(table: pa.Table, zero_copy: bool) -> dict[str, Any]:
    """Without a copy as NumPy's are; but torch knows no array that cannot be written to, so who writes all the same writes to the
    table, or is killed where that is another process's."""
    torch = frames.load("torch")
    made = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        for name, array in _to_numpy(table, zero_copy).items():
            if isinstance(array, np.ma.MaskedArray):
                raise TypeError(
                    f"the column {name!r} has {int(array.mask.sum())} nulls, and torch has none for {array.dtype}: "
                    "fill them, or drop their rows, before"
                )
            if array.dtype.kind not in "biuf":
                raise TypeError(
                    f"torch has no tensor for the column {name!r}, which is {table.schema.field(name).type}: drop it or "
                    "make numbers of it before, or take batches of another format"
                )
            made[name] = torch.from_numpy(array if array.flags.c_contiguous else np.ascontiguousarray(array))
    return made


def _cut_columns(batch: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {name: column[start:stop] for name, column in batch.items()}


def _as_it_is(table: pa.Table, zero_copy: bool) -> pa.Table:
    return table


def _cut_rows(batch: Any, start: int, stop: int) -> Any:
    return batch.slice(start, stop - start)


_Form = tuple[Callable[[pa.Table, bool], Any], Callable[[Any, int, int], Any]]
_FORMS: Final[dict[str | None, _Form]] = {  # how to convert a table, and how to cut rows out of what that gives
    "default": (_to_numpy, _cut_columns),
    "numpy": (_to_numpy, _cut_columns),
    "torch": (_to_torch, _cut_columns),
    "pandas": (lambda table, zero_copy: frames.to_pandas(table, zero_copy=zero_copy), frames.slice_pandas),
    "polars": (lambda table, zero_copy: frames.to_polars(table), _cut_rows),
    "pyarrow": (_as_it_is, _cut_rows),
    None: (_as_it_is, _cut_rows),
}


def _table(value: Any, like: pa.Schema | None) -> pa.Table:
    if isinstance(value, pa.RecordBatch):
        value = pa.Table.from_batches([value])
    if isinstance(value, Mapping):
        return _of_columns(value, like)
    if _is_frame(value, "pandas"):
        made = frames.from_pandas(value, like=like)
    elif _is_frame(value, "polars"):
        made = frames.from_polars(value)
    elif isinstance(value, pa.Table):
        made = sizes.plain(value)
    elif hasattr(value, "__arrow_c_stream__") and not hasattr(value, "__array__"):
        made = sizes.plain(pa.table(value))
    else:
        raise TypeError(_advice(value))
    schemas.unify([(made.schema, "it")])
    return made


def _is_of_times(column: object) -> bool:
    return isinstance(column, np.ndarray) and column.dtype.kind == "M"


def _is_frame(value: object, library: str) -> bool:
    """Of a library that need not be there to say so."""
    return any(
        cls.__name__ == "DataFrame" and cls.__module__.partition(".")[0] == library for cls in type(value).__mro__
    )


def _advice(value: object) -> str:
    allowed = "a dict of arrays, a data frame of pandas or polars, or a table of Arrow"
    if value is None:
        return f"it is None, not {allowed}; is there a return statement missing?"
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return f"it is a {type(value).__name__}, not {allowed}; return {{'name': values}} with a name for the column"
    return f"it is {type(value).__module__}.{type(value).__qualname__}, not {allowed}"


def _of_columns(batch: Mapping[Any, Any], like: pa.Schema | None) -> pa.Table:
    made = {}
    for name, value in batch.items():
        if not isinstance(name, str):
            raise TypeError(f"the name of a column must be a str, got {name!r}")
        made[name] = _column(value, name, like)
    lengths = {name: len(column) for name, column in made.items()}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
        raise ValueError(f"its columns are of unequal lengths: {described}")
    return sizes.plain(pa.Table.from_pydict(made))


def _column(value: Any, name: str, like: pa.Schema | None) -> pa.Array | pa.ChunkedArray:
    library = type(value).__module__.partition(".")[0]
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return value
    if library == "pandas" and type(value).__name__ == "Series":
        return frames.from_series(value, name=name, like=like)
    if library == "torch":
        value = inference.torch_to_numpy(value)
    elif isinstance(value, (list, tuple, range, collections.deque)):
        return restoring.column_like(list(value), name=name, like=like)
    elif hasattr(value, "__arrow_c_stream__"):
        return pa.chunked_array(value)
    elif hasattr(value, "__array__") and not isinstance(value, (np.ndarray, np.generic)):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        raise TypeError(
            f"the column {name!r} is a {type(value).__name__}, {value!r:.60}, not an array or a list with a value for each row; "
            f"for one row, return {{{name!r}: [value]}}"
        )
    if value.dtype == object:
        return restoring.column_like(value.tolist(), name=name, like=like)
    return inference.from_numpy(value, name=name)
