"""The one rule by which schemas unify, and tables brought to a schema."""

from __future__ import annotations

import datetime
import decimal
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from umbel.data._blocks import inference, schemas, tensors

RAGGED = tensors.RaggedTensorType


def tensor(value_type: pa.DataType, *shape: int) -> pa.DataType:
    return tensors.fixed_type(value_type, shape)


FIT = [
    (pa.null(), pa.int8(), pa.int8()),
    (pa.null(), RAGGED(pa.int8(), 2), RAGGED(pa.int8(), 2)),
    (pa.int8(), pa.int32(), pa.int32()),
    (pa.uint8(), pa.uint32(), pa.uint32()),
    (pa.uint8(), pa.int8(), pa.int16()),
    (pa.uint32(), pa.int8(), pa.int64()),
    (pa.uint8(), pa.int64(), pa.int64()),
    (pa.int8(), pa.float32(), pa.float64()),
    (pa.int64(), pa.float64(), pa.float64()),
    (pa.float16(), pa.float32(), pa.float32()),
    (pa.decimal128(5, 2), pa.decimal128(6, 4), pa.decimal128(7, 4)),
    (pa.decimal128(5, 2), pa.int64(), pa.decimal128(22, 2)),
    (pa.decimal128(38, 0), pa.decimal128(38, 10), pa.decimal256(48, 10)),
    (pa.decimal128(5, 2), pa.decimal256(5, 2), pa.decimal256(5, 2)),
    (pa.string(), pa.large_string(), pa.large_string()),
    (pa.string(), pa.string_view(), pa.string()),
    (pa.binary(), pa.large_binary(), pa.large_binary()),
    (pa.binary(3), pa.binary(4), pa.binary()),
    (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
    (pa.timestamp("s", "UTC"), pa.timestamp("ns", "UTC"), pa.timestamp("ns", "UTC")),
    (pa.timestamp("s", "Europe/Berlin"), pa.timestamp("s", "Asia/Tokyo"), pa.timestamp("s", "UTC")),
    (pa.duration("ms"), pa.duration("us"), pa.duration("us")),
    (pa.time32("s"), pa.time32("ms"), pa.time32("ms")),
    (pa.time32("s"), pa.time64("ns"), pa.time64("ns")),
    (pa.date32(), pa.date64(), pa.date64()),
    (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
    (pa.dictionary(pa.int8(), pa.int8()), pa.int32(), pa.int32()),
    (
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int16(), pa.string()),
        pa.dictionary(pa.int32(), pa.string()),
    ),
    (pa.list_(pa.int8()), pa.list_(pa.null()), pa.list_(pa.int8())),
    (pa.list_(pa.int8()), pa.large_list(pa.int16()), pa.large_list(pa.int16())),
    (pa.list_(pa.int8(), 2), pa.list_(pa.int16(), 2), pa.list_(pa.int16(), 2)),
    (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3), pa.list_(pa.int8())),
    (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int16()), pa.map_(pa.string(), pa.int16())),
    (
        pa.struct({"a": pa.int8(), "b": pa.string()}),
        pa.struct({"c": pa.bool_(), "a": pa.int16()}),
        pa.struct({"a": pa.int16(), "b": pa.string(), "c": pa.bool_()}),
    ),
    (pa.struct([]), pa.struct({"a": pa.int8()}), pa.struct({"a": pa.int8()})),
    (tensor(pa.int8(), 2, 3), tensor(pa.int16(), 2, 3), tensor(pa.int16(), 2, 3)),
    (tensor(pa.int8(), 2, 3), tensor(pa.int8(), 3, 2), RAGGED(pa.int8(), 2)),
    (tensor(pa.int8(), 2, 3), RAGGED(pa.float32(), 2), RAGGED(pa.float64(), 2)),
]

UNFIT = [
    (pa.int64(), pa.string()),
    (pa.bool_(), pa.int64()),
    (pa.int64(), pa.uint64()),
    (pa.decimal128(5, 2), pa.float64()),
    (pa.decimal256(76, 0), pa.decimal256(76, 76)),
    (pa.string(), pa.binary()),
    (pa.timestamp("s"), pa.timestamp("s", "UTC")),
    (pa.timestamp("s"), pa.date32()),
    (pa.timestamp("s"), pa.int64()),
    (pa.list_(pa.int64()), pa.int64()),
    (pa.list_(pa.int64()), pa.list_(pa.string())),
    (pa.list_(pa.int64()), tensor(pa.int64(), 2)),
    (pa.struct({"a": pa.int64()}), pa.struct({"a": pa.string()})),
    (tensor(pa.int8(), 2), tensor(pa.int8(), 2, 2)),
    (pa.dictionary(pa.int8(), pa.string()), pa.int64()),
]


@pytest.mark.parametrize(("left", "right", "both"), FIT)
def test_types_unify_whichever_comes_first(left: pa.DataType, right: pa.DataType, both: pa.DataType) -> None:
    assert schemas.common_type(left, right) == both
    other = schemas.common_type(right, left)
    if pa.types.is_struct(both):  # in the order in which its fields are seen
        assert {field.name: field.type for field in other} == {field.name: field.type for field in both}
    else:
        assert other == both
    assert schemas.common_type(both, left) == both


@pytest.mark.parametrize(("left", "right"), UNFIT)
def test_types_that_would_change_meaning_do_not_unify(left: pa.DataType, right: pa.DataType) -> None:
    assert schemas.common_type(left, right) is None
    assert schemas.common_type(right, left) is None


def test_columns_come_as_they_are_first_seen_and_those_that_some_lack_may_be_null() -> None:
    first = pa.schema([pa.field("b", pa.int64(), nullable=False), pa.field("a", pa.int8(), nullable=False)])
    second = pa.schema([pa.field("c", pa.string(), nullable=False), pa.field("a", pa.int16(), nullable=False)])
    assert schemas.unify([(first, "x"), (second, "y")]) == pa.schema(
        [pa.field("b", pa.int64()), pa.field("a", pa.int16(), nullable=False), pa.field("c", pa.string())]
    )


def test_equal_schemas_and_empty_ones_give_the_first_itself() -> None:
    schema = pa.schema({"a": pa.int64()})
    many = itertools.chain([(pa.schema([]), "none")], ((pa.schema({"a": pa.int64()}), "x") for _ in range(100)))
    assert schemas.unify(itertools.chain([(schema, "first")], many)) is schema
    assert schemas.unify([]) == pa.schema([])


def test_what_does_not_fit_names_the_column_both_types_and_both_origins() -> None:
    inner = [pa.struct({"b": pa.list_(pa.struct({"c": one}))}) for one in (pa.int64(), pa.string())]
    with pytest.raises(ValueError, match="no type holds") as caught:
        schemas.unify(
            [
                (pa.schema({"x": pa.null()}), "0.csv"),
                (pa.schema({"a": inner[0]}), "1.csv"),
                (pa.schema({"a": inner[1]}), "2.csv"),
            ]
        )
    assert str(caught.value) == (
        "the column 'a.b.item.c' is int64 in 1.csv and string in 2.csv, and no type holds the values of both; cast one of them"
    )


def test_a_type_comes_with_the_origin_that_made_it_so() -> None:
    several = [
        (pa.schema({"a": pa.null()}), "0"),
        (pa.schema({"a": pa.int8()}), "1"),
        (pa.schema({"a": pa.string()}), "2"),
    ]
    with pytest.raises(ValueError, match="is int8 in 1 and string in 2"):
        schemas.unify(several)


def test_a_name_that_occurs_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"one\.csv has several columns called 'a'"):
        schemas.unify([(pa.schema([("a", pa.int8()), ("a", pa.int8())]), "one.csv")])


VALUES: list[tuple[pa.Array, pa.DataType, list[Any]]] = [
    (pa.array([1, None], pa.int8()), pa.float64(), [1.0, None]),
    (pa.nulls(2), pa.struct({"a": pa.int8()}), [None, None]),
    (pa.array([1], pa.int64()), pa.decimal128(22, 2), [decimal.Decimal("1.00")]),
    (pa.array(["a", None, "a"]).dictionary_encode(), pa.string(), ["a", None, "a"]),
    (pa.array(["a"]).dictionary_encode(), pa.dictionary(pa.int64(), pa.large_string()), ["a"]),
    (pa.array([{"a": 1}, None]), pa.struct({"a": pa.float64(), "b": pa.string()}), [{"a": 1.0, "b": None}, None]),
    (
        pa.array([[{"a": 1}], None]),
        pa.large_list(pa.struct({"b": pa.string(), "a": pa.int64()})),
        [[{"b": None, "a": 1}], None],
    ),
    (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), pa.list_(pa.int16()), [[1, 2], None]),
    (pa.array([b"ab"], pa.binary(2)), pa.binary(), [b"ab"]),
    (
        pa.array([0], pa.timestamp("s", "Asia/Tokyo")),
        pa.timestamp("us", "UTC"),
        [datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)],
    ),
]


@pytest.mark.parametrize(("column", "target", "expected"), VALUES)
def test_a_column_is_brought_to_its_type(column: pa.Array, target: pa.DataType, expected: list[Any]) -> None:
    table = schemas.conform(pa.table({"a": column}), pa.schema({"a": target}))
    assert table.schema.field("a").type == target
    assert table["a"].to_pylist() == expected


def test_a_table_of_the_schema_is_itself_and_missing_columns_are_null() -> None:
    table = pa.table({"a": [1, 2]})
    assert schemas.conform(table, pa.schema({"a": pa.int64()})) is table
    got = schemas.conform(table, pa.schema({"t": tensor(pa.int8(), 2), "a": pa.int64()}))
    assert got.to_pydict() == {"t": [None, None], "a": [1, 2]}


def test_conforming_names_what_stands_against_it() -> None:
    table = pa.table({"a": [2**53 + 1, None]})
    with pytest.raises(
        ValueError, match=r"column 'a' of map\(f\) is int64, and not all of it can be double: Integer value 9007"
    ):
        schemas.conform(table, pa.schema({"a": pa.float64()}), origin="map(f)")
    with pytest.raises(ValueError, match="has the column 'a', which the schema has not: its columns are b"):
        schemas.conform(table, pa.schema({"b": pa.int64()}))
    with pytest.raises(ValueError, match="no column 'b', which may not be null"):
        schemas.conform(table, pa.schema([pa.field("a", pa.int64()), pa.field("b", pa.int64(), nullable=False)]))
    with pytest.raises(ValueError, match="'a' of the table has 1 nulls"):
        schemas.conform(table, pa.schema([pa.field("a", pa.int64(), nullable=False)]))


def test_tables_are_concatenated_in_order_without_copying_what_fits() -> None:
    first, second = pa.table({"a": np.arange(3), "b": ["x", "y", "z"]}), pa.table({"b": pa.nulls(1), "a": [0.5]})
    got = schemas.concat([first, pa.table({}), second, first.slice(2)])
    assert got.to_pydict() == {"a": [0, 1, 2, 0.5, 2], "b": ["x", "y", "z", None, "z"]}
    assert got.schema == pa.schema({"a": pa.float64(), "b": pa.string()})
    assert got["b"].chunk(0).buffers()[2].address == first["b"].chunk(0).buffers()[2].address
    assert schemas.concat([first]) is first
    assert schemas.concat([]).num_rows == 0
    bare = schemas.without_columns(2)
    assert schemas.concat([bare, bare]).shape == (4, 0)
    assert schemas.concat([bare, pa.table({"a": [1]})]).to_pydict() == {"a": [None, None, 1]}


@pytest.mark.parametrize(
    "target",
    [
        pa.large_list(pa.list_(pa.null())),
        pa.list_(pa.large_list(pa.null())),
        pa.list_(pa.list_(pa.int8())),
        pa.large_list(pa.list_(tensor(pa.int8(), 2))),
    ],
)
def test_lists_of_lists_of_nothing_but_nulls_stay_within_their_bounds(target: pa.DataType) -> None:
    """PyArrow 26's own cast makes arrays whose offsets are out of bounds."""
    column = pa.array([[[None, None, None]], [[None, None], [None]], None, [None, []], [[None]]])
    for part in (column, column[1:], column[:2]):
        got = schemas.conform(pa.table({"a": part}), pa.schema({"a": target}))
        got.validate(full=True)
        assert got.schema.field("a").type == target
        assert got["a"].to_pylist() == part.to_pylist()


def test_dictionaries_within_structs_become_plain_values() -> None:
    words = pa.struct({"w": pa.dictionary(pa.int8(), pa.string())})
    for column in (pa.array([None, None], words), pa.array([{"w": "a"}, None, {"w": None}], words)):
        assert column.type == words
        got = schemas.conform(pa.table({"a": column}), pa.schema({"a": pa.struct({"w": pa.string()})}))
        assert got["a"].to_pylist() == column.to_pylist()


def test_tensors_of_several_shapes_are_concatenated_as_ragged() -> None:
    arrays = [np.zeros((1, 2, 2), "int8"), np.ones((2, 1, 3), "int8")]
    got = schemas.concat([pa.table({"t": tensors.from_numpy(one)}) for one in arrays] + [pa.table({"t": pa.nulls(1)})])
    assert got.schema.field("t").type == RAGGED(pa.int8(), 2)
    rows = [row.tolist() if row is not None else None for row in got["t"].combine_chunks().to_pylist()]
    assert rows == [[[0, 0], [0, 0]], [[1, 1, 1]], [[1, 1, 1]], None]


PLACES: dict[str, Callable[[pa.DataType], pa.DataType]] = {
    "a column": lambda one: one,
    "lists": pa.list_,
    "lists of one size": lambda one: pa.list_(one, 2),
    "a struct": lambda one: pa.struct({"b": one}),
    "maps": lambda one: pa.map_(pa.string(), one),
    "keys of maps": lambda one: pa.map_(one, pa.string()),
    "a dictionary": lambda one: pa.dictionary(pa.int32(), one),
    "lists of lists of structs": lambda one: pa.list_(pa.large_list(pa.struct({"b": one}))),
}


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([pa.int8(), pa.uint64(), pa.decimal128(1, 0), pa.uint8()], "decimal128(20, 0)"),
        ([pa.int8(), pa.uint64(), pa.float32()], "double"),
    ],
)
@pytest.mark.parametrize("place", PLACES)
def test_the_order_of_integers_and_what_takes_them_in_does_not_matter(
    types: list[pa.DataType], expected: str, place: str
) -> None:
    found = {
        str(schemas.unify([(pa.schema({"a": PLACES[place](one)}), "x") for one in order]).field("a").type)
        for order in itertools.permutations(types)
    }
    expected_type = {"decimal128(20, 0)": pa.decimal128(20, 0), "double": pa.float64()}[expected]
    assert found == {str(PLACES[place](expected_type))}


def test_tensors_of_several_numbers_unify_in_every_order() -> None:
    arrays = [np.ones((1, 2), dtype) for dtype in (np.int8, np.uint64, np.float32)]
    for order in itertools.permutations(arrays):
        (column,) = schemas.concat([pa.table({"a": tensors.from_numpy(one)}) for one in order]).columns
        assert column.type == tensors.fixed_type(pa.float64(), (2,))
        of_rows = inference.from_values([one[0] for one in order], name="a")
        assert of_rows.type == column.type
