"""What always holds of blocks, whatever is in them."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from typing import Any

import block_strategies as blocks
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umbel.data._blocks import batches, rows, schemas, shuffling, sizes

pytest.importorskip("pandas", reason="without pandas, PyArrow has no Python value for a time with nanoseconds")
checks = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
any_type = st.one_of(blocks.types, blocks.tensor_types, blocks.other_dictionaries, blocks.nothing)


def float_nulls(value: Any, data_type: pa.DataType, null: Any) -> Any:
    """A value as NumPy has it: in arrays and lists a float that is null is NaN; in a struct or a map values are Python's."""
    kinds = pa.types
    if kinds.is_dictionary(data_type):
        data_type = data_type.value_type
    if kinds.is_floating(data_type):
        return null if value is None else value
    if schemas.is_list(data_type) and value is not None:
        return [float_nulls(one, data_type.value_type, null) for one in value]
    return value


@checks
@given(blocks.tables(any_type))
def test_numpy_batches_come_back_with_their_types_and_values(table: pa.Table) -> None:
    got = batches.from_batch(batches.to_batch(table, "numpy"), like=table.schema)
    assert got.schema == table.schema
    expected = [
        {name: float_nulls(value, table.schema.field(name).type, "NaN") for name, value in row.items()}
        for row in blocks.rows_of(table)
    ]
    assert blocks.rows_of(got) == expected


@checks
@given(blocks.tables(any_type))
def test_pandas_batches_come_back_with_their_types_and_values(table: pa.Table) -> None:
    pytest.importorskip("pandas")
    got = batches.from_batch(batches.to_batch(table, "pandas"), like=table.schema)
    assert got.schema == table.schema
    for one, other in zip(blocks.rows_of(got), blocks.rows_of(table), strict=True):
        for name in table.column_names:
            data_type = table.schema.field(name).type
            if pa.types.is_floating(getattr(data_type, "value_type", data_type)) and not schemas.is_list(data_type):
                assert one[name] == (None if other[name] == "NaN" else other[name])
            else:
                assert one[name] == float_nulls(other[name], data_type, "NaN")


@checks
@given(blocks.tables(any_type))
def test_polars_batches_come_back_with_their_types_and_values(table: pa.Table) -> None:
    pytest.importorskip("polars")
    got = batches.from_batch(batches.to_batch(table, "polars"), like=table.schema)
    assert got.schema == table.schema
    assert blocks.rows_of(got) == blocks.rows_of(table)


@checks
@given(blocks.tables(any_type))
def test_rows_come_back_with_their_types_and_values(table: pa.Table) -> None:
    found = list(rows.iter_rows(table))
    assert [blocks.plain(row) for row in found] == blocks.rows_of(table)
    got = rows.from_rows(found, schema=table.schema)
    assert got.schema == table.schema
    assert blocks.rows_of(got) == blocks.rows_of(table)


@checks
@given(blocks.tables(st.one_of(blocks.nothing, blocks.leaves, blocks.leaves.map(pa.list_), blocks.tensor_types)))
def test_the_types_of_rows_hold_their_values(table: pa.Table) -> None:
    got = rows.from_rows(list(rows.iter_rows(table)))
    assert [blocks.plain(row) for row in rows.iter_rows(got)] == blocks.rows_of(table)


@checks
@given(blocks.tables(any_type), st.lists(st.integers(0, 6), max_size=4), st.integers(1, 4), st.booleans(), st.data())
def test_batches_are_the_rows_in_order(
    table: pa.Table, cuts: list[int], batch_size: int, drop_last: bool, data: st.DataObject
) -> None:
    bounds = sorted([0, *(min(cut, table.num_rows) for cut in cuts), table.num_rows])
    parts = [table.slice(start, stop - start) for start, stop in itertools.pairwise(bounds)]
    batch_format: Any = data.draw(st.sampled_from(["numpy", "pyarrow"]))
    found: list[Any] = list(batches.iter_batches(parts, batch_size, batch_format, drop_last=drop_last))
    sizes_of = [len(batch["c0"]) for batch in found]
    whole, rest = divmod(table.num_rows, batch_size)
    assert sizes_of == [batch_size] * whole + ([rest] if rest and not drop_last else [])
    expected = blocks.rows_of(table)[: sum(sizes_of)]
    if batch_format == "numpy":
        expected = [
            {name: float_nulls(value, table.schema.field(name).type, "NaN") for name, value in row.items()}
            for row in expected
        ]
    got = [row for batch in found for row in blocks.rows_of(batches.from_batch(batch, like=table.schema))]
    assert got == expected


@checks
@given(blocks.tables(any_type), st.integers(0, 6), st.integers(0, 6))
def test_compact_tables_show_the_same_and_hold_no_more(table: pa.Table, start: int, length: int) -> None:
    part = table.slice(start, length)
    got = sizes.compact(part)
    assert got.schema == part.schema
    assert blocks.rows_of(got) == blocks.rows_of(part)
    assert blocks.rows_of(pickle.loads(pickle.dumps(got))) == blocks.rows_of(part)


@checks
@given(st.lists(blocks.tables(any_type), max_size=3))
def test_tables_are_concatenated_under_one_schema_or_not_at_all(parts: list[pa.Table]) -> None:
    try:
        schema = schemas.unify([(part.schema, f"part {index}") for index, part in enumerate(parts)])
    except ValueError as error:
        assert "no type holds the values of both" in str(error)
        return
    for part in parts:
        for field in part.schema:
            assert schemas.common_type(schema.field(field.name).type, field.type) == schema.field(field.name).type
    names = schema.names
    try:
        got = schemas.concat(parts)
    except ValueError as error:
        assert "not all of it can be" in str(error)  # a value that does not fit, and is not changed so that it does
        return
    assert got.column_names == names
    assert got.num_rows == sum(part.num_rows for part in parts)
    if all(part.schema.equals(schema) for part in parts):
        assert blocks.rows_of(got) == [row for part in parts for row in blocks.rows_of(part)]
    for name in names:
        nulls = sum(part[name].null_count if name in part.column_names else part.num_rows for part in parts)
        assert got[name].null_count == nulls


WITHIN: list[Callable[[pa.DataType], pa.DataType]] = [
    lambda one: one,
    pa.list_,
    lambda one: pa.struct({"b": one}),
    lambda one: pa.map_(pa.string(), pa.list_(one)),
    lambda one: pa.dictionary(pa.int32(), one),
]


@checks
@given(
    st.lists(st.one_of(blocks.numbers, blocks.times, blocks.texts, blocks.decimals), min_size=2, max_size=4),
    st.sampled_from(WITHIN),
)
def test_unifying_does_not_depend_on_the_order(
    types: list[pa.DataType], within: Callable[[pa.DataType], pa.DataType]
) -> None:
    results = set()
    for order in itertools.permutations(map(within, types)):
        try:
            results.add(str(schemas.unify([(pa.schema({"a": one}), "x") for one in order]).field("a").type))
        except ValueError:
            results.add("none")
    assert len(results) == 1


@checks
@given(blocks.tables(any_type), st.integers(0, 2**64))
def test_permuted_tables_have_the_same_rows(table: pa.Table, seed: int) -> None:
    got = shuffling.permute(table, (seed, 0, 1))
    assert got.schema == table.schema
    assert sorted(map(repr, blocks.rows_of(got))) == sorted(map(repr, blocks.rows_of(table)))
    assert blocks.rows_of(shuffling.permute(sizes.compact(table), (seed, 0, 1))) == blocks.rows_of(got)


@checks
@given(blocks.tables(any_type), st.integers(1, 200))
def test_split_tables_are_the_rows_in_order(table: pa.Table, target_bytes: int) -> None:
    pieces = list(sizes.split(table, target_bytes))
    assert [row for piece in pieces for row in blocks.rows_of(piece)] == blocks.rows_of(table)
    assert all(piece.num_rows for piece in pieces)
