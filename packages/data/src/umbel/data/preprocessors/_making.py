"""The columns that a preprocessor makes: of which others, by which function of Arrow arrays, and of which type.

They are made of a table here and now, or by expressions of a dataset, whose schema is then known before anything runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from umbel.data import expressions
from umbel.data._blocks import columns, schemas, tensors
from umbel.data._expressions import errors

if TYPE_CHECKING:
    from umbel.data.dataset import Dataset

_TEXT_BYTES: Final = 16  # a guess at what a value of no fixed width takes
_BITS_PER_BYTE: Final = 8

Function = Callable[..., "pa.Array | pa.Scalar"]


@dataclasses.dataclass(frozen=True)
class Output:
    """One column. function: gets an array for each of `inputs` and returns one of as many values; of no inputs it returns a
    scalar, for all rows. type: None where it is known from the values only. is_scratch: the outputs behind it read it, and
    it goes then."""

    name: str
    inputs: tuple[str, ...]
    function: Function
    type: pa.DataType | None
    is_scratch: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class _Called:
    """The function as plans show it."""

    title: str
    function: Function

    def __call__(self, *arrays: pa.Array) -> Any:
        return self.function(*arrays)

    @property
    def __name__(self) -> str:
        return self.title


def made(table: pa.Table, outputs: Sequence[Output]) -> dict[str, pa.Array]:
    """The columns by name, all of them of columns that are there before."""
    arrays: dict[str, pa.Array] = {}
    scratch: dict[str, pa.Array] = {}
    for one in outputs:
        given = [scratch[name] if name in scratch else columns.flat(table.column(name)) for name in one.inputs]
        value = one.function(*given)
        if isinstance(value, pa.Scalar):
            value = pa.repeat(value, table.num_rows)
        (scratch if one.is_scratch else arrays)[one.name] = value
    return arrays


def applied(table: pa.Table, outputs: Sequence[Output], dropped: Collection[str]) -> pa.Table:
    """The table with the columns, new or in the place of those with their names."""
    arrays = made(table, outputs)
    names = [name for name in table.column_names if name not in dropped or name in arrays]
    every = {name: arrays[name] if name in arrays else table.column(name) for name in names} | arrays
    return pa.table(every)


def planned(ds: Dataset, outputs: Sequence[Output], dropped: Collection[str], *, title: str) -> Dataset:
    """The same of a dataset. All outputs have a type."""
    scratch = {one.name: _expression(one, title) for one in outputs if one.is_scratch}
    lasting = {one.name: _expression(one, title) for one in outputs if not one.is_scratch}
    made_of = ds.with_columns(scratch) if scratch else ds
    made_of = made_of.with_columns(lasting)
    gone = [*scratch, *(name for name in dropped if name not in lasting)]
    return made_of.drop_columns(gone) if gone else made_of


def schema_after(schema: pa.Schema, outputs: Sequence[Output], dropped: Collection[str]) -> pa.Schema | None:
    """What `applied` makes of it; None if that is known from the values only."""
    lasting = {one.name: one.type for one in outputs if not one.is_scratch}
    if any(kind is None for kind in lasting.values()):
        return None
    kept = {one.name: one.type for one in schema if one.name not in dropped or one.name in lasting}
    return pa.schema([*(kept | lasting).items()])


def row_bytes(outputs: Sequence[Output]) -> int:
    """About what the outputs take of each row."""
    return sum(_width(one.type) for one in outputs)


def _width(kind: pa.DataType | None) -> int:
    if kind is None:
        return _TEXT_BYTES
    if tensors.is_fixed(kind):
        return math.prod(tensors.shape(kind)) * _width(kind.value_type)
    try:
        return int(kind.bit_width) // _BITS_PER_BYTE or 1
    except ValueError:
        return _TEXT_BYTES


def _expression(output: Output, title: str) -> expressions.Expr:
    if not output.inputs:
        return expressions.lit(output.function())
    maker = expressions.udf(output.type)(_Called(title, output.function))
    found: expressions.Expr = maker(*map(expressions.col, output.inputs))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# What outputs may be made of.


def require(schema: pa.Schema, names: Sequence[str], *, title: str) -> None:
    """Raises UnknownColumnError, a KeyError, for one that is not there."""
    for name in names:
        if name not in schema.names:
            raise expressions.UnknownColumnError(f"{title}: {errors.unknown(name, schema.names)}")


def plain_type(schema: pa.Schema, name: str) -> pa.DataType:
    """Of the column's values, without what says nothing of them."""
    return plain_of(schema.field(name).type)


def plain_of(kind: pa.DataType) -> pa.DataType:
    return columns.plain(schemas.nulls(0, kind)).type


def require_numbers(schema: pa.Schema, names: Sequence[str], *, title: str) -> None:
    """Raises as `require`, and TypeError for a column of no numbers."""
    require(schema, names, title=title)
    for name in names:
        if not is_number(plain_type(schema, name)):
            raise TypeError(
                f"{title}: the column {name!r} has type {schema.field(name).type}; it must be of numbers, so cast "
                "it or leave it out"
            )


def is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean, pa.types.is_null)
    return any(test(kind) for test in tests)


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def floats(array: pa.Array) -> pa.Array:
    """Numbers as float64; nulls stay null."""
    array = columns.plain(array)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    return array.cast(pa.float64(), safe=False)
