"""Columns of a table as NumPy sees them, for the kernels.

A kernel asks for a column as one array (`flat`), without the wrapping that says nothing of its values (`plain`), and as
numbers where it has a fixed width (`numbers`, and `rebuilt` for the way back). Nothing is copied where Arrow's layout is
NumPy's already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import naming

OFFSET_BYTES_MAX: Final = 2**31 - 1  # what the 32-bit offsets of Arrow's strings, binaries and lists reach
_NAMES_SHOWN: Final = 20  # of columns, in an error
DIGITS_OF_INT64: Final = 18  # every decimal of so many digits fits

_DTYPES: Final = {
    pa.int8(): "i1",
    pa.int16(): "i2",
    pa.int32(): "i4",
    pa.int64(): "i8",
    pa.uint8(): "u1",
    pa.uint16(): "u2",
    pa.uint32(): "u4",
    pa.uint64(): "u8",
    pa.float32(): "f4",
    pa.float64(): "f8",
    pa.date32(): "i4",
    pa.date64(): "i8",
}


def require(schema: pa.Schema, names: Iterable[str], *, what: str) -> None:
    """Raises KeyError for a name that is not in the schema, and says which one may have been meant."""
    for name in names:
        found = schema.names.count(name)
        if found == 1:
            continue
        if found:
            raise KeyError(f"{what} {name!r} is the name of {found} columns; rename them so that each has its own")
        raise KeyError(f"{what} {name!r} is not a column; {naming.hint(name, schema.names)}")


class Required:
    """Columns that an operator names, which each block has to have.

    A function may make blocks of several schemas. A column that one of them lacks is null where rows of several come together,
    but under the name of an operator it is an error, whichever operator that is and however rows are divided: what looks at one
    block cannot tell it from a name that no block has.
    """

    def __init__(self, names: Iterable[str], *, what: str, kind: type[KeyError] = KeyError) -> None:
        self._names = tuple(dict.fromkeys(names))
        self._what, self._kind = what, kind
        self._complete: pa.Schema | None = None

    def of(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The same, but those without columns and rows, which say nothing. Raises KeyError (or `kind`) at one that lacks one."""
        for table in tables:
            if table.num_columns or table.num_rows:
                self.check([table])
                yield table

    def check(self, tables: Sequence[pa.Table]) -> None:
        """Raises KeyError (or `kind`) where one of them lacks one, with its schema and that of one that has all, if there is."""
        if self._complete is None:
            self._complete = next((one.schema for one in tables if self._has_all(one)), None)
        for table in tables:
            if not self._has_all(table) and (table.num_columns or table.num_rows):
                self._refuse(table.schema)

    def _has_all(self, table: pa.Table) -> bool:
        found = table.column_names
        return all(found.count(name) == 1 for name in self._names)

    def _refuse(self, schema: pa.Schema) -> None:
        try:
            require(schema, self._names, what=self._what)
        except KeyError as error:
            other = "" if self._complete is None else f", and another one {_listed(self._complete)}"
            message = str(error.args[0]).removesuffix("?")
            raise self._kind(
                f"{message}. A block has {_listed(schema)}{other}. Each block has to have what an operator names: where a "
                "function makes them, let it give the column always, with None where there is no value"
            ) from None


def _listed(schema: pa.Schema) -> str:
    shown = ", ".join(f"{one.name}: {one.type}" for one in [*schema][:_NAMES_SHOWN]) or "no columns"
    return shown if len(schema) <= _NAMES_SHOWN else f"{shown} and {len(schema) - _NAMES_SHOWN} more"


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array. Copies only what lies in several chunks."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    kind = column.type
    if column.nbytes > OFFSET_BYTES_MAX and (pa.types.is_string(kind) or pa.types.is_binary(kind)):
        column = column.cast(pa.large_string() if pa.types.is_string(kind) else pa.large_binary())
    return column.combine_chunks()


def contiguous(table: pa.Table) -> pa.Table:
    """The table with each column in one chunk; taking rows from it needs no search for their chunk."""
    if all(column.num_chunks == 1 for column in table.itercolumns()):
        return table
    return table.combine_chunks()


def taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The rows of these numbers, in this order."""
    if not table.num_columns:  # Arrow would forget how many rows there are
        return pa.table({"": pa.nulls(len(rows))}).select([])
    return contiguous(table).take(pa.array(rows))


def taken_parts(table: pa.Table, rows: np.ndarray, part_bytes: int) -> Iterator[pa.Table]:
    """As `taken`, in tables of about so many bytes, each gathered when it is asked for; one table at least."""
    table = contiguous(table)
    step = max(1, len(rows) * part_bytes // max(1, table.nbytes))
    for start in range(0, max(1, len(rows)), step):
        yield taken(table, rows[start : start + step])


def plain(array: pa.Array) -> pa.Array:
    """The same values without extension, dictionary, run-ends, view or half width. Nested values stay as they are."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(array.storage)
    if pa.types.is_dictionary(kind):
        return plain(array.cast(kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(array))
    if pa.types.is_float16(kind):
        return array.cast(pa.float32())
    name = str(kind)
    if name == "string_view":
        return _without_views(array, pa.large_string())
    if name == "binary_view":
        return _without_views(array, pa.large_binary())
    if name.startswith(("decimal32", "decimal64")):
        return array.cast(pa.decimal128(kind.precision, kind.scale))
    return array


def valid(array: pa.Array) -> np.ndarray | None:
    """Which values are not null; None where none is."""
    return None if array.null_count == 0 else array.is_valid().to_numpy(zero_copy_only=False)


def is_number(kind: pa.DataType) -> bool:
    """Whether `numbers` takes a plain array of this type."""
    return _dtype(kind) is not None or pa.types.is_null(kind) or _is_short_decimal(kind)


def numbers(array: pa.Array) -> tuple[np.ndarray, np.ndarray | None]:
    """The values of a plain array of fixed width and which of them are valid (None: all). What stands at a null is any number.

    A decimal is its unscaled integer, a time its count of units, a boolean 0 or 1.
    """
    kind, size = array.type, len(array)
    if pa.types.is_null(kind):
        return np.zeros(size, np.int64), np.zeros(size, bool)
    if pa.types.is_boolean(kind):
        return numbers(array.cast(pa.uint8()))
    if _is_short_decimal(kind):
        return words(array)[:, 0], valid(array)
    dtype = np.dtype(_dtype(kind))
    data = array.buffers()[1]
    if data is None or not size:
        return np.zeros(size, dtype), valid(array)
    return np.frombuffer(data, dtype, size, array.offset * dtype.itemsize), valid(array)


def words(array: pa.Array) -> np.ndarray:
    """[rows, 2 or 4] int64: the unscaled integers of decimals in two's complement, the least word first."""
    width = 4 if pa.types.is_decimal256(array.type) else 2
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.zeros((len(array), width), np.int64)
    return np.frombuffer(data, "<i8", len(array) * width, array.offset * width * 8).reshape(-1, width)


def rebuilt(values: np.ndarray, is_valid: np.ndarray | None, kind: pa.DataType) -> pa.Array:
    """An array of the type, of numbers as `numbers` gave them."""
    mask = None if is_valid is None or is_valid.all() else ~is_valid
    if pa.types.is_null(kind):
        return pa.nulls(len(values))
    if pa.types.is_boolean(kind):
        return pa.array(values.astype(bool), mask=mask, from_pandas=False)
    if _is_short_decimal(kind):
        pairs = np.stack([values, values >> 63], axis=1).astype(np.int64)
        return of_words(pairs, is_valid, kind)
    array = pa.array(values.astype(_dtype(kind), copy=False), mask=mask, from_pandas=False)
    return array if array.type == kind else array.view(kind)


def of_words(values: np.ndarray, is_valid: np.ndarray | None, kind: pa.DataType) -> pa.Array:
    """Decimals of the words of their unscaled integers, as `words` gave them."""
    data = pa.py_buffer(np.ascontiguousarray(values, "<i8"))
    return pa.Array.from_buffers(kind, len(values), [validity(is_valid), data])


def validity(is_valid: np.ndarray | None) -> pa.Buffer | None:
    """The bitmap that says so."""
    return None if is_valid is None or is_valid.all() else pa.array(is_valid).buffers()[1]


def list_parts(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Of a list, a map, or a list of one size: where each entry begins and the last one ends, and the values they lie in.

    A null may have values, which are to be ignored.
    """
    kind = array.type
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
        offsets = np.arange(len(array) + 1, dtype=np.int64) * width
        return offsets, array.values.slice(array.offset * width, len(array) * width)
    offsets = numbers(array.offsets)[0].astype(np.int64)
    if pa.types.is_map(kind):
        values: pa.Array = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
    else:
        values = array.values
    return offsets - offsets[0], values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def is_list(kind: pa.DataType) -> bool:
    """Whether `list_parts` takes an array of this type."""
    return any(
        test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_map)
    )


def _without_views(array: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return array.cast(kind)
    except pa.ArrowNotImplementedError:  # before PyArrow 18
        return pa.array(array.to_pylist(), kind)


def _is_short_decimal(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal128(kind)) and kind.precision <= DIGITS_OF_INT64


def _dtype(kind: pa.DataType) -> str | None:
    found = _DTYPES.get(kind)
    if found is not None:
        return found
    if pa.types.is_boolean(kind):
        return "u1"
    if pa.types.is_time32(kind):
        return "i4"
    if pa.types.is_time64(kind) or pa.types.is_timestamp(kind) or pa.types.is_duration(kind):
        return "i8"
    return None
