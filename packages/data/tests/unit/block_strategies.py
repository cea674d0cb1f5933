"""Random types, columns and tables, for property tests."""

from __future__ import annotations

import decimal
import math
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from umbel.data._blocks import tensors

UNITS = ("s", "ms", "us", "ns")
ZONES = (None, "UTC", "Asia/Tokyo", "+01:00")

numbers = st.sampled_from(
    [
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64()),
    ]
)
times = st.one_of(
    st.builds(pa.timestamp, st.sampled_from(UNITS), st.sampled_from(ZONES)),
    st.builds(pa.duration, st.sampled_from(UNITS)),
    st.sampled_from([pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]),
)
texts = st.sampled_from([pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.binary(3)])
decimals = st.integers(1, 30).flatmap(lambda digits: st.builds(pa.decimal128, st.just(digits), st.integers(0, digits)))
dictionaries = st.builds(pa.dictionary, st.sampled_from([pa.int8(), pa.int32()]), st.just(pa.string()))
other_dictionaries = st.one_of(times, numbers.filter(lambda one: one != pa.float16())).map(
    lambda one: pa.dictionary(pa.int16(), one)
)  # not within lists, in PyArrow
leaves = st.one_of(st.just(pa.bool_()), numbers, times, texts, decimals)
nothing = st.sampled_from([pa.null(), pa.list_(pa.null()), pa.struct({"a": pa.null(), "b": pa.int8()})])
types = st.recursive(
    st.one_of(leaves, dictionaries),
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(lambda one: pa.list_(one, 2)),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).map(pa.struct),
        leaves.map(lambda one: pa.map_(pa.string(), one)),
    ),
    max_leaves=4,
)
tensor_types = st.one_of(
    st.builds(
        tensors.fixed_type,
        st.sampled_from([pa.float32(), pa.int8(), pa.bool_()]),
        st.lists(st.integers(1, 3), min_size=1, max_size=2),
    ),
    st.builds(tensors.RaggedTensorType, st.sampled_from([pa.float64(), pa.uint8(), pa.bool_()]), st.integers(1, 2)),
)


def values(data_type: pa.DataType) -> st.SearchStrategy[Any]:
    """What `pa.array` takes for the type, one value of it or None."""
    return st.one_of(st.none(), present(data_type))


def present(data_type: pa.DataType) -> st.SearchStrategy[Any]:
    kinds = pa.types
    if kinds.is_null(data_type):
        return st.none()
    if kinds.is_boolean(data_type):
        return st.booleans()
    if kinds.is_integer(data_type):
        low, high = np.iinfo(data_type.to_pandas_dtype()).min, np.iinfo(data_type.to_pandas_dtype()).max
        return st.integers(int(low), int(high))
    if kinds.is_float16(data_type):
        return st.floats(width=16).map(np.float16)
    if kinds.is_floating(data_type):
        return st.floats(width=data_type.bit_width)
    if kinds.is_string(data_type) or kinds.is_large_string(data_type):
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    if kinds.is_fixed_size_binary(data_type):
        return st.binary(min_size=3, max_size=3)
    if kinds.is_binary(data_type) or kinds.is_large_binary(data_type):
        return st.binary(max_size=4)
    if kinds.is_decimal(data_type):
        most = 10**data_type.precision - 1
        return st.integers(-most, most).map(
            lambda whole: decimal.Decimal(whole).scaleb(-data_type.scale, decimal.Context(80))
        )
    if kinds.is_date64(data_type):
        return st.integers(-30_000, 60_000).map(lambda days: days * 86_400_000)
    if kinds.is_date(data_type):
        return st.integers(-30_000, 60_000)
    if kinds.is_time(data_type):
        # Python's times have no nanoseconds.
        parts = 1000 ** UNITS.index(data_type.unit)
        return st.integers(0, 86_400 * min(parts, 10**6) - 1).map(lambda part: part * max(1, parts // 10**6))
    if kinds.is_timestamp(data_type) or kinds.is_duration(data_type):
        return st.integers(-(10**9), 4 * 10**9).flatmap(
            lambda seconds: st.integers(0, 1000 ** UNITS.index(data_type.unit) - 1).map(
                lambda rest: seconds * 1000 ** UNITS.index(data_type.unit) + rest
            )
        )
    if kinds.is_dictionary(data_type):
        return present(data_type.value_type)
    if kinds.is_map(data_type):
        return st.dictionaries(st.text("xyz", max_size=2), values(data_type.item_type), max_size=2).map(
            lambda one: list(one.items())
        )
    if kinds.is_fixed_size_list(data_type):
        return st.lists(values(data_type.value_type), min_size=data_type.list_size, max_size=data_type.list_size)
    if kinds.is_list(data_type) or kinds.is_large_list(data_type):
        return st.lists(values(data_type.value_type), max_size=3)
    if kinds.is_struct(data_type):
        return st.fixed_dictionaries({field.name: values(field.type) for field in data_type})
    raise AssertionError(data_type)


def array_of(data_type: pa.DataType, items: list[Any]) -> pa.Array:
    if pa.types.is_dictionary(data_type):
        return pa.array(items, data_type.value_type).dictionary_encode().cast(data_type)
    return pa.array(items, data_type)


@st.composite
def tensor_columns(draw: st.DrawFn, data_type: pa.DataType, row_count: int) -> pa.Array:
    dtype = data_type.value_type.to_pandas_dtype()
    shapes = (
        st.just(tensors.shape(data_type))
        if tensors.is_fixed(data_type)
        else st.tuples(*[st.integers(0, 3)] * tensors.dimensions(data_type))
    )
    rows: list[Any] = []
    for index in range(row_count):
        shape = draw(st.one_of(st.none(), shapes))
        rows.append(None if shape is None else (np.arange(math.prod(shape)) + index).reshape(shape).astype(dtype))
    if not any(row is not None for row in rows):
        return pa.ExtensionArray.from_storage(data_type, pa.nulls(row_count, data_type.storage_type))
    made = tensors.from_arrays(rows)
    return made if made.type == data_type else tensors.cast(made, data_type)


@st.composite
def columns(draw: st.DrawFn, row_count: int, of: st.SearchStrategy[pa.DataType]) -> pa.ChunkedArray:
    """Of one chunk or several, some of them slices."""
    data_type = draw(of)
    before = draw(st.integers(0, 2))
    if tensors.is_tensor(data_type):
        array = draw(tensor_columns(data_type, before + row_count))
    else:
        size = before + row_count
        array = array_of(data_type, draw(st.lists(values(data_type), min_size=size, max_size=size)))
    array = array.slice(before)
    cut = draw(st.integers(0, row_count))
    return pa.chunked_array([array[:cut], array[cut:]] if cut else [array], data_type)


@st.composite
def tables(draw: st.DrawFn, of: st.SearchStrategy[pa.DataType] = types) -> pa.Table:
    row_count = draw(st.integers(0, 6))
    count = draw(st.integers(1, 3))
    return pa.table({f"c{index}": draw(columns(row_count, of)) for index in range(count)})


def plain(value: Any) -> Any:
    """With what can be compared for what cannot: NaN and ndarrays."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, np.floating):
        return plain(float(value))
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, plain(value.tolist()))
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value


def rows_of(table: pa.Table) -> list[Any]:
    """By PyArrow, but for tensors, which are ndarrays."""
    named = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        is_tensor = tensors.is_tensor(column.type)
        chunks = [list(tensors.to_numpy(chunk)) if is_tensor else chunk.to_pylist() for chunk in column.chunks]
        named[name] = [plain(value) for chunk in chunks for value in chunk]
    return [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]
