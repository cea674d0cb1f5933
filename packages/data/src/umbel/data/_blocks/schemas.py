"""One schema for many tables, and tables brought to it.

Types unify where every value of both keeps its meaning: design/0046 has the rule and its reasons. What does not fit is an error
that names the column, both types and where each came from; nothing is cut, rounded or wrapped on the way, for casts are checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from umbel.data._blocks import naming, tensors

_UNITS: Final = ("s", "ms", "us", "ns")  # from coarse to fine
_INT_DIGITS: Final = {8: 3, 16: 5, 32: 10, 64: 20}  # by width in bits: of the largest number, signed or not
_DECIMAL128_DIGITS_MAX: Final = 38
_DECIMAL256_DIGITS_MAX: Final = 76
_ARE_BINARY: Final = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_binary_view,
)
_ARE_LISTS: Final = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


class _Typed(NamedTuple):
    """A type and where it came from."""

    type: pa.DataType
    origin: str = ""


class _Unlike(Exception):
    """Two types have none in common. path: the names of the fields down to them."""

    def __init__(self, left: _Typed, right: _Typed, advice: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(left, right)
        self.left, self.right, self.advice, self.path = left, right, advice, path


def unify(schemas: Iterable[tuple[pa.Schema, str]]) -> pa.Schema:
    """The schema of tables together: columns by name, as they are first seen.

    schemas: each with its origin, a file or an operator, for the error. A column that some lack may be null. A schema without
    columns says nothing. Metadata is that of the first to have some.
    Raises ValueError where two types do not unify, or a name occurs twice.
    """
    distinct: list[tuple[pa.Schema, str]] = []
    for schema, origin in schemas:
        if len(schema) and not any(schema.equals(known) for known, _ in distinct):
            distinct.append((schema, origin))
    if not distinct:
        return pa.schema([])
    for schema, origin in distinct:
        refuse_duplicates(schema.names, origin)
    if len(distinct) == 1:
        return distinct[0][0]
    columns: dict[str, list[tuple[pa.Field, str]]] = {}
    for schema, origin in distinct:
        for field in schema:
            columns.setdefault(field.name, []).append((field, origin))
    fields = []
    for name, several in columns.items():
        try:
            found = _common_field(several)
        except _Unlike as unlike:
            raise ValueError(
                f"the column {'.'.join(unlike.path)!r} is {unlike.left.type} in {unlike.left.origin} and {unlike.right.type} in "
                f"{unlike.right.origin}, and no type holds the values of both; {unlike.advice}"
            ) from None
        is_everywhere = all(schema.get_field_index(name) >= 0 for schema, _ in distinct)
        fields.append(found if is_everywhere else found.with_nullable(True))
    return pa.schema(fields, next((schema.metadata for schema, _ in distinct if schema.metadata), None))


def common_type(*types: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of all without a loss; None if there is none."""
    try:
        return _common([_Typed(one) for one in types])
    except _Unlike:
        return None


def conform(table: pa.Table, schema: pa.Schema, *, origin: str = "the table") -> pa.Table:
    """The table with the columns of the schema, in its order and of its types: nulls where a column is missing.

    Copies only the columns whose types differ.
    Raises ValueError, naming the column, if the table has one more, a value does not fit, or what may not be null is missing.
    """
    if table.schema.equals(schema):
        return table
    refuse_duplicates(table.column_names, origin)
    surplus = [name for name in table.column_names if schema.get_field_index(name) < 0]
    if surplus:
        raise ValueError(
            f"{origin} has the column {surplus[0]!r}, which the schema has not: its columns are {', '.join(schema.names)}; "
            "drop it, or add it to the schema"
        )
    columns = [_conformed(table, field, origin) for field in schema]
    if not columns:
        return table
    return pa.Table.from_arrays(columns, schema=schema)


def concat(tables: Sequence[pa.Table], *, origins: Sequence[str] | None = None) -> pa.Table:
    """The rows of all, one table after the other, under one schema. Copies only columns whose types differ from it."""
    if not tables:
        return pa.table({})
    if len(tables) == 1:
        return tables[0]
    names = [f"table {index}" for index in range(len(tables))] if origins is None else origins
    schema = unify([(table.schema, name) for table, name in zip(tables, names, strict=True)])
    if not len(schema):
        return without_columns(sum(table.num_rows for table in tables))
    filled = [(table, name) for table, name in zip(tables, names, strict=True) if table.num_columns or table.num_rows]
    return pa.concat_tables([conform(table, schema, origin=name) for table, name in filled])


def without_columns(row_count: int) -> pa.Table:
    """Which knows all the same how many rows there are."""
    return pa.Table.from_struct_array(pa.array([{}] * row_count, pa.struct([])))


def refuse_duplicates(names: Sequence[str], origin: str) -> None:
    """Raises ValueError for a name that several columns have."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{origin} has several columns called {twice!r}; rename all but one")


def _conformed(table: pa.Table, field: pa.Field, origin: str) -> pa.ChunkedArray:
    if field.name not in table.column_names:
        if not field.nullable:
            raise ValueError(
                f"{origin} has no column {field.name!r}, which may not be null; it has {', '.join(table.column_names)}"
            )
        return pa.chunked_array([nulls(table.num_rows, field.type)], field.type)
    column = table.column(field.name)
    if not field.nullable and column.null_count:
        raise ValueError(
            f"the column {field.name!r} of {origin} has {column.null_count} nulls, which the schema rules out"
        )
    if column.type.equals(field.type):
        return column
    try:
        return cast(column, field.type)
    except (ValueError, NotImplementedError) as error:  # those of PyArrow are of these kinds
        raise ValueError(
            f"the column {field.name!r} of {origin} is {column.type}, and not all of it can be {field.type}: {error}"
        ) from error


def nulls(row_count: int, data_type: pa.DataType) -> pa.Array:
    if isinstance(data_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(data_type, pa.nulls(row_count, data_type.storage_type))
    return pa.nulls(row_count, data_type)


def cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Raises ArrowInvalid, a ValueError, where a value would change, and ArrowNotImplementedError where Arrow knows no way."""
    if column.type.equals(target):
        return column
    if pa.types.is_null(column.type):
        return pa.chunked_array([nulls(len(column), target)], target)
    if tensors.is_tensor(target):
        if not tensors.is_tensor(column.type):
            raise ValueError("only tensors can become tensors")
        return pa.chunked_array([tensors.cast(chunk, target) for chunk in column.chunks], target)
    if holds(target, pa.types.is_null) or (holds(column.type, pa.types.is_dictionary) and column.type.num_fields):
        return pa.chunked_array([_cast_by_level(chunk, target) for chunk in column.chunks], target)
    try:
        return column.cast(target)
    except (TypeError, NotImplementedError):
        # PyArrow 17 cannot add fields to structs, nor order them.
        return pa.chunked_array([_cast_by_level(chunk, target) for chunk in column.chunks], target)


def _cast_by_level(array: pa.Array, target: pa.DataType) -> pa.Array:
    """By hand where lists and structs are concerned. PyArrow 26's own casts of lists within lists, of the null type, make arrays
    that are out of bounds; and what a null struct has of a dictionary is an index that there may be no value for."""
    if array.type.equals(target):
        return array
    if pa.types.is_null(array.type):
        return nulls(len(array), target)
    if tensors.is_tensor(target):
        return tensors.cast(array, target)
    if pa.types.is_struct(array.type) and pa.types.is_struct(target) and target.num_fields:
        known = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
        fields = [
            _cast_by_level(known[field.name], field.type) if field.name in known else nulls(len(array), field.type)
            for field in target
        ]
        return pa.StructArray.from_arrays(fields, fields=list(target), mask=_null_mask(array))
    if is_list(array.type) and is_list(target):
        return _cast_lists(array, target)
    if pa.types.is_dictionary(target) and not pa.types.is_dictionary(array.type):
        return array.cast(target.value_type).dictionary_encode().cast(target)
    return array.cast(target)


def _cast_lists(array: pa.Array, target: pa.DataType) -> pa.Array:
    values = _cast_by_level(array.flatten(), target.value_type)
    if pa.types.is_fixed_size_list(array.type):
        lengths = np.where(array.is_valid().to_numpy(zero_copy_only=False), array.type.list_size, 0)
    else:
        lengths = array.value_lengths().fill_null(0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    if pa.types.is_large_list(target):
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values, mask=_null_mask(array))
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, mask=_null_mask(array))
    if lists.type.equals(target):
        return lists
    made = lists.cast(target)
    made.validate(full=True)
    return made


def _null_mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def holds(data_type: pa.DataType, is_kind: Callable[[pa.DataType], bool]) -> bool:
    """Whether it is of the kind, or something within it is."""
    return is_kind(data_type) or any(
        holds(data_type.field(index).type, is_kind) for index in range(data_type.num_fields)
    )


def _common_field(several: Sequence[tuple[pa.Field, str]]) -> pa.Field:
    """Of fields of one name. Raises _Unlike, with the names down to the types that do not unify."""
    first = several[0][0]
    try:
        both = _common([_Typed(field.type, origin) for field, origin in several])
    except _Unlike as unlike:
        raise _Unlike(unlike.left, unlike.right, unlike.advice, (first.name, *unlike.path)) from None
    is_nullable = any(field.nullable or pa.types.is_null(field.type) for field, _ in several)
    metadata = next((field.metadata for field, _ in several if field.metadata), None)
    return pa.field(first.name, both, is_nullable, metadata)


def _common(several: Sequence[_Typed]) -> pa.DataType:
    """All at once, and what is within them likewise: were it two by two, int8, uint64 and a decimal would unify in one order of
    the tables and not in another."""
    known: list[_Typed] = []
    for one in several:
        if not pa.types.is_null(one.type) and not any(one.type.equals(other.type) for other in known):
            known.append(one)
    if len(known) < 2:
        return known[0].type if known else several[0].type
    for rule in (_dictionaries, _maps, _lists, _structs, _tensors):
        found = rule(known)
        if found is not None:
            return found
    if all(_is_number(one.type) for one in known):
        # Decimals and floats take in any integers, and integers among themselves become more or do not unify.
        known.sort(key=lambda one: pa.types.is_integer(one.type))
    both, *others = known
    for other in others:
        both_type = _of_two(both, other)
        both = _Typed(both_type, both.origin if both_type.equals(both.type) else other.origin)
    return both.type


def _of_two(left: _Typed, right: _Typed) -> pa.DataType:
    for rule in (_number, _text, _temporal):
        found = rule(left, right)
        if found is not None:
            return found
    for kind_rule in (_maps, _lists, _structs, _tensors):  # of three, of which the third one is something else
        found = kind_rule([left, right])
        if found is not None:
            return found
    raise _Unlike(left, right, "cast one of them")


def _is_number(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_))


def _dictionaries(several: Sequence[_Typed]) -> pa.DataType | None:
    """Those make one, of which any index type that suffices for one may be too narrow; dictionaries and plain values make plain
    values."""
    are_encoded = [pa.types.is_dictionary(one.type) for one in several]
    if not any(are_encoded):
        return None
    values = _common(
        [
            one._replace(type=one.type.value_type) if is_encoded else one
            for one, is_encoded in zip(several, are_encoded, strict=True)
        ]
    )
    if not all(are_encoded):
        return values
    index_type = pa.int64() if any(one.type.index_type.equals(pa.int64()) for one in several) else pa.int32()
    return pa.dictionary(index_type, values, all(one.type.ordered for one in several))


def _number(left: _Typed, right: _Typed) -> pa.DataType | None:
    types = (left.type, right.type)
    if all(pa.types.is_integer(one) for one in types):
        return _integer(left, right)
    if all(pa.types.is_floating(one) for one in types):
        return max(types, key=lambda one: one.bit_width)
    if all(pa.types.is_floating(one) or pa.types.is_integer(one) for one in types):
        return pa.float64()
    if all(pa.types.is_decimal(one) or pa.types.is_integer(one) for one in types):
        return _decimal(left, right)
    return None


def _integer(left: _Typed, right: _Typed) -> pa.DataType:
    types = (left.type, right.type)
    is_signed = [pa.types.is_signed_integer(one) for one in types]
    if is_signed[0] == is_signed[1]:
        return max(types, key=lambda one: one.bit_width)
    signed, unsigned = types if is_signed[0] else types[::-1]
    if unsigned.bit_width == 64:
        raise _Unlike(left, right, "cast one of them, to decimal128(20, 0) if all numbers matter")
    width = max(signed.bit_width, 2 * unsigned.bit_width)
    return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[width]


def _decimal(left: _Typed, right: _Typed) -> pa.DataType:
    types = (left.type, right.type)
    sizes = [
        (one.precision - one.scale, one.scale) if pa.types.is_decimal(one) else (_INT_DIGITS[one.bit_width], 0)
        for one in types
    ]
    scale = max(scale for _, scale in sizes)
    digits = max(whole for whole, _ in sizes) + scale
    if digits > _DECIMAL256_DIGITS_MAX:
        raise _Unlike(
            left, right, f"together they need {digits} digits, and a decimal has at most {_DECIMAL256_DIGITS_MAX}"
        )
    is_wide = digits > _DECIMAL128_DIGITS_MAX or any(pa.types.is_decimal256(one) for one in types)
    return pa.decimal256(digits, scale) if is_wide else pa.decimal128(digits, scale)


def _text(left: _Typed, right: _Typed) -> pa.DataType | None:
    types = (left.type, right.type)
    if all(pa.types.is_string(one) or pa.types.is_large_string(one) or pa.types.is_string_view(one) for one in types):
        return pa.large_string() if any(pa.types.is_large_string(one) for one in types) else pa.string()
    if all(is_binary(one) for one in types):
        return pa.large_binary() if any(pa.types.is_large_binary(one) for one in types) else pa.binary()
    return None


def is_binary(data_type: pa.DataType) -> bool:
    return any(is_one(data_type) for is_one in _ARE_BINARY)


def _temporal(left: _Typed, right: _Typed) -> pa.DataType | None:
    types = (left.type, right.type)
    if all(pa.types.is_timestamp(one) for one in types):
        zones = [one.tz for one in types]
        if (zones[0] is None) != (zones[1] is None):
            raise _Unlike(left, right, "say in which zone the one without is, or take the zone from the other")
        return pa.timestamp(_finer(*types), zones[0] if zones[0] == zones[1] else "UTC")
    if all(pa.types.is_duration(one) for one in types):
        return pa.duration(_finer(*types))
    if all(pa.types.is_time(one) for one in types):
        unit = _finer(*types)
        return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)
    if all(pa.types.is_date(one) for one in types):
        return pa.date64()
    return None


def _finer(*types: pa.DataType) -> str:
    return max((str(one.unit) for one in types), key=_UNITS.index)


def _maps(several: Sequence[_Typed]) -> pa.DataType | None:
    if not all(pa.types.is_map(one.type) for one in several):
        return None
    keys = _common_field([(pa.field("key", one.type.key_type), one.origin) for one in several])
    items = _common_field([(pa.field("value", one.type.item_type), one.origin) for one in several])
    return pa.map_(keys.type, items.type)


def _lists(several: Sequence[_Typed]) -> pa.DataType | None:
    types = [one.type for one in several]
    if not all(map(is_list, types)):
        return None
    values = _common_field([(one.type.value_field, one.origin) for one in several])
    if all(pa.types.is_fixed_size_list(one) for one in types) and len({one.list_size for one in types}) == 1:
        return pa.list_(values, types[0].list_size)
    is_large = any(pa.types.is_large_list(one) or pa.types.is_large_list_view(one) for one in types)
    return pa.large_list(values) if is_large else pa.list_(values)


def is_list(data_type: pa.DataType) -> bool:
    return any(is_one(data_type) for is_one in _ARE_LISTS)


def _structs(several: Sequence[_Typed]) -> pa.DataType | None:
    if not all(pa.types.is_struct(one.type) for one in several):
        return None
    by_name: dict[str, list[tuple[pa.Field, str]]] = {}
    for one in several:
        for field in one.type:
            by_name.setdefault(field.name, []).append((field, one.origin))
    fields = [(_common_field(present), len(present) == len(several)) for present in by_name.values()]
    return pa.struct([field if is_everywhere else field.with_nullable(True) for field, is_everywhere in fields])


def _tensors(several: Sequence[_Typed]) -> pa.DataType | None:
    first = several[0]
    for other in several[1:]:
        if tensors.is_tensor(first.type) != tensors.is_tensor(other.type):
            raise _Unlike(first, other, "make the one that is no tensor an array of numbers, or the other a list")
    if not tensors.is_tensor(first.type):
        return None
    ndim = tensors.dimensions(first.type)
    for other in several[1:]:
        if tensors.dimensions(other.type) != ndim:
            raise _Unlike(first, other, "reshape one of them to as many dimensions as the other")
    values = _common([one._replace(type=one.type.value_type) for one in several])
    types = [one.type for one in several]
    if all(map(tensors.is_fixed, types)) and len(set(map(tensors.shape, types))) == 1:
        return tensors.fixed_type(values, tensors.shape(first.type))
    return tensors.RaggedTensorType(values, ndim)


EMPTY: Final = pa.schema([])


def renamed(schema: pa.Schema, names: Mapping[str, str]) -> pa.Schema:
    """Columns, old name to new; all others stay. Raises KeyError for one that is not there, ValueError for two of one name."""
    for name in names:
        if name not in schema.names:
            raise KeyError(f"there is no column {name!r} to rename; {naming.hint(name, schema.names)}")
    made = [one.with_name(names.get(one.name, one.name)) for one in schema]
    doubled = [name for name, count in Counter(one.name for one in made).items() if count > 1]
    if doubled:
        raise ValueError(f"two columns would be called {doubled[0]!r}; rename the other one too, or drop it")
    return pa.schema(made, schema.metadata)
