"""Rows of Python's values to tables and back."""

from __future__ import annotations

import collections
import datetime
import enum
import uuid
import zoneinfo
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from umbel.data._blocks import rows, tensors

UTC = datetime.timezone.utc
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NOON = datetime.datetime(2024, 5, 6, 12, 0, 0, 7)


class Colour(enum.IntEnum):
    RED = 3


COLUMNS: list[tuple[list[Any], pa.DataType]] = [
    ([1, None, -5], pa.int64()),
    ([True, None], pa.bool_()),
    ([1, 2.5, None], pa.float64()),
    ([float("inf"), None], pa.float64()),
    (["a", None, "é"], pa.string()),
    ([b"a", None], pa.binary()),
    ([None, None], pa.null()),
    ([NOON, None], pa.timestamp("us")),
    ([NOON.replace(tzinfo=BERLIN), None], pa.timestamp("us", "Europe/Berlin")),
    ([NOON.date(), None], pa.date32()),
    ([NOON.time(), None], pa.time64("us")),
    ([datetime.timedelta(days=1, microseconds=3), None], pa.duration("us")),
    ([Decimal("1.50"), None, Decimal("-1000")], pa.decimal128(6, 2)),
    ([Decimal("1.5"), 10**20], pa.decimal128(22, 1)),
    ([[1, None], [], None, [2]], pa.list_(pa.int64())),
    ([[[1.5]], [], [None]], pa.list_(pa.list_(pa.float64()))),
    ([{"a": 1, "b": "x"}, None, {"a": None, "b": None}], pa.struct({"a": pa.int64(), "b": pa.string()})),
    ([{"a": [{"b": True}]}, {"a": []}], pa.struct({"a": pa.list_(pa.struct({"b": pa.bool_()}))})),
    ([{}, None], pa.struct([])),
    ([[], []], pa.list_(pa.null())),
]


@pytest.mark.parametrize(("values", "data_type"), COLUMNS)
def test_values_have_their_type_and_come_back_as_they_were(values: list[Any], data_type: pa.DataType) -> None:
    made = rows.from_rows([{"x": value} for value in values])
    assert made.schema == pa.schema({"x": data_type})
    got = [row["x"] for row in rows.iter_rows(made)]
    assert got == values
    assert [row["x"] for row in rows.iter_rows(made.slice(1))] == values[1:]
    assert rows.from_rows([{"x": value} for value in values], schema=made.schema) == made


ALIKE: list[tuple[list[Any], pa.DataType, list[Any]]] = [
    ([np.int8(1), None], pa.int8(), [1, None]),
    ([np.float32(1.5), None], pa.float32(), [1.5, None]),
    ([np.int8(1), 500], pa.int64(), [1, 500]),
    ([np.int8(1), np.int16(5)], pa.int64(), [1, 5]),
    ([np.float32(1.5), 2, 0.5], pa.float64(), [1.5, 2.0, 0.5]),
    ([np.bool_(True), False], pa.bool_(), [True, False]),
    ([np.str_("a")], pa.string(), ["a"]),
    ([np.datetime64("2024-05-06"), None], pa.date32(), [NOON.date(), None]),
    (
        [np.datetime64("2024-05-06T12"), np.datetime64("NaT")],
        pa.timestamp("s"),
        [datetime.datetime(2024, 5, 6, 12), None],
    ),
    ([np.timedelta64(5, "ms")], pa.duration("ms"), [datetime.timedelta(milliseconds=5)]),
    ([np.array(5), np.array(7)], pa.int64(), [5, 7]),
    ([(1, 2), [3]], pa.list_(pa.int64()), [[1, 2], [3]]),
    ([np.array([1, 2]), [3]], pa.list_(pa.int64()), [[1, 2], [3]]),
    ([[np.array([5], "timedelta64[s]")]], pa.list_(pa.list_(pa.duration("s"))), [[[datetime.timedelta(seconds=5)]]]),
    ([{"a": np.array([[1, 2]])}], pa.struct({"a": pa.list_(pa.list_(pa.int64()))}), [{"a": [[1, 2]]}]),
    ([np.array(["a", "b"])], pa.list_(pa.string()), [["a", "b"]]),
    (
        [{"a": 1}, {"b": "x"}],
        pa.struct({"a": pa.int64(), "b": pa.string()}),
        [{"a": 1, "b": None}, {"a": None, "b": "x"}],
    ),
    ([collections.OrderedDict(a=1)], pa.struct({"a": pa.int64()}), [{"a": 1}]),
    ([Colour.RED, 4], pa.int64(), [3, 4]),
    ([bytearray(b"a"), memoryview(b"b")], pa.binary(), [b"a", b"b"]),
    ([pa.scalar(5), None], pa.int64(), [5, None]),
    (
        [NOON.replace(tzinfo=BERLIN), NOON.replace(tzinfo=UTC)],
        pa.timestamp("us", "UTC"),
        [NOON.replace(tzinfo=UTC, hour=10), NOON.replace(tzinfo=UTC)],
    ),
]


@pytest.mark.parametrize(("values", "data_type", "expected"), ALIKE)
def test_values_that_are_like_pythons_become_these(
    values: list[Any], data_type: pa.DataType, expected: list[Any]
) -> None:
    made = rows.from_rows([{"x": value} for value in values])
    assert made.schema == pa.schema({"x": data_type})
    assert [row["x"] for row in rows.iter_rows(made)] == expected


@pytest.mark.skipif(not hasattr(pa, "uuid"), reason="this PyArrow has no type for them")
def test_uuids_are_themselves() -> None:
    made = rows.from_rows([{"x": uuid.UUID(int=5)}, {"x": None}])
    assert made.schema == pa.schema({"x": pa.uuid()})
    assert list(rows.iter_rows(made)) == [{"x": uuid.UUID(int=5)}, {"x": None}]


def test_rows_with_different_keys_have_nulls_and_columns_as_first_seen() -> None:
    made = rows.from_rows([{"b": 1}, {"a": "x", "b": 2}, {}])
    assert made.column_names == ["b", "a"]
    assert list(rows.iter_rows(made)) == [{"b": 1, "a": None}, {"b": 2, "a": "x"}, {"b": None, "a": None}]


def test_no_rows_and_rows_without_columns() -> None:
    assert rows.from_rows([]).shape == (0, 0)
    assert list(rows.iter_rows(rows.from_rows([]))) == []
    assert rows.from_rows([{}, {}]).shape == (2, 0)
    assert list(rows.iter_rows(rows.from_rows([{}, {}]))) == [{}, {}]
    schema = pa.schema({"a": pa.int8(), "t": tensors.fixed_type(pa.int8(), (2,))})
    assert rows.from_rows([], schema=schema) == schema.empty_table()


@pytest.mark.parametrize("shapes", [[(2, 3), (2, 3)], [(2, 3), (3, 1)], [(1,), (1,)], [(0, 2), (0, 2)]])
def test_arrays_are_tensors_and_come_back_as_arrays(shapes: list[tuple[int, ...]]) -> None:
    arrays = [np.arange(np.prod(shape), dtype="int16").reshape(shape) for shape in shapes]
    made = rows.from_rows([{"x": arrays[0]}, {"x": None}, {"x": arrays[1]}])
    assert tensors.is_tensor(made.schema.field("x").type)
    first, none, second = (row["x"] for row in rows.iter_rows(made))
    assert none is None
    for got, array in zip((first, second), arrays, strict=True):
        assert (got.dtype, got.shape, got.tolist()) == (array.dtype, array.shape, array.tolist())
        assert not got.flags.writeable


def test_arrays_of_several_dtypes_take_the_common_one() -> None:
    made = rows.from_rows([{"x": np.array([1, 2], "uint8")}, {"x": np.array([0.5], "float32")}])
    assert made.schema.field("x").type == tensors.RaggedTensorType(pa.float64(), 1)
    assert [row["x"].tolist() for row in rows.iter_rows(made)] == [[1.0, 2.0], [0.5]]


def test_tensors_of_a_schema_are_made_of_arrays_and_lists() -> None:
    schema = pa.schema({"x": tensors.RaggedTensorType(pa.float32(), 2)})
    made = rows.from_rows([{"x": [[1, 2]]}, {"x": np.zeros((1, 2), "float16")}], schema=schema)
    assert made.schema == schema
    assert [row["x"].tolist() for row in rows.iter_rows(made)] == [[[1, 2]], [[0, 0]]]


REFUSED: list[tuple[list[Any], type[Exception], str]] = [
    ([1, "a"], TypeError, r"column 'x' mixes types: row 0 has int \(1\), row 1 has str \('a'\); make them one type"),
    ([None, "a", b"b"], TypeError, r"row 1 has str \('a'\), row 2 has bytes"),
    ([1, True], TypeError, "row 0 has int .* row 1 has bool"),
    ([NOON, NOON.date()], TypeError, "row 0 has datetime .* row 1 has date"),
    (
        [NOON, NOON.replace(tzinfo=UTC)],
        TypeError,
        "row 0 has datetime without a zone .* row 1 has datetime with a zone",
    ),
    ([Decimal(1), 1.5], TypeError, "row 0 has Decimal .* row 1 has float"),
    ([{"a": 1}, [1]], TypeError, "row 0 has dict .* row 1 has list"),
    ([[1], ["a"], [2]], TypeError, r"column 'x\.item' mixes types: row 0 has int \(1\), row 1 has str"),
    (
        [{"a": [1]}, None, {"a": [2, None, "b"]}],
        TypeError,
        r"column 'x\.a\.item' mixes types: row 0 has int \(1\), row 2 has str",
    ),
    ([np.zeros(2), np.zeros((2, 2))], TypeError, "row 0 has array of 1 dimensions .* row 1 has array of 2 dimensions"),
    ([np.zeros(2, "int64"), np.zeros(2, "uint64")], TypeError, "row 0 has array of int64 .* row 1 has array of uint64"),
    ([np.zeros(2), 5], TypeError, "row 0 has array .* row 1 has int"),
    (
        [0, 2**63],
        ValueError,
        r"column 'x', row 1: 9223372036854775808 does not fit into 64 bits; make the column's integers Decimals",
    ),
    ([[0], [1, -(2**70)]], ValueError, r"column 'x\.item', row 1: -1180591620717411303424 does not fit"),
    ([0.5, 2**53 + 1], ValueError, "column 'x', row 1: 9007199254740993 does not fit double"),
    (
        [1, object()],
        TypeError,
        r"column 'x', row 1: Arrow has no type for <object object at .*, a builtins.object; give numbers",
    ),
    ([1 + 2j], TypeError, r"row 0: Arrow has no type for \(1\+2j\), a builtins.complex"),
    ([np.complex64(1)], TypeError, "Arrow has no type for .*a numpy.complex64"),
    ([1, np.longdouble(2)], TypeError, "row 0 has int .* row 1 has longdouble"),
    ([np.datetime64("2024-05-06", "ns"), 5], TypeError, "row 0 has datetime64 .* row 1 has int"),
    ([np.int8(1), np.datetime64("2024-05-06", "ns")], TypeError, "row 0 has int8 .* row 1 has datetime64"),
    ([np.zeros(2), np.zeros(2, complex)], TypeError, "column 'x', row 1: no tensor holds NumPy's complex128"),
    ([{1: 2}], TypeError, "column 'x', row 0: a dict has the key 1, and only strings"),
    (["a", "\ud800"], ValueError, "column 'x', row 1: .*surrogates not allowed"),
    ([Decimal("NaN")], ValueError, "column 'x', row 0: Decimal"),
]


@pytest.mark.parametrize(("values", "kind", "message"), REFUSED)
def test_what_does_not_go_together_is_named_with_its_row(
    values: list[Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        rows.from_rows([{"y": 0, "x": value} for value in values])


def test_rows_that_are_not_dicts_and_names_that_are_not_strings_are_refused() -> None:
    with pytest.raises(TypeError, match=r"row 1 must be a dict with a value for each column, got int: 5"):
        rows.from_rows([{"a": 1}, 5])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="the name of a column must be a str, got 1"):
        rows.from_rows([{1: 1}])  # type: ignore[dict-item]


def test_a_schema_says_the_types_and_what_does_not_fit_it_is_refused() -> None:
    schema = pa.schema([pa.field("a", pa.uint64(), nullable=False), pa.field("b", pa.decimal128(25, 1))])
    made = rows.from_rows([{"b": Decimal(10**20), "a": 2**63}, {"a": 0}], schema=schema)
    assert made.schema == schema
    assert made.to_pylist() == [{"a": 2**63, "b": Decimal(10**20)}, {"a": 0, "b": None}]
    with pytest.raises(ValueError, match="column 'a', row 1: -1 does not fit uint64"):
        rows.from_rows([{"a": 1}, {"a": -1}], schema=schema)
    with pytest.raises(ValueError, match="column 'a', row 1: there is no value"):
        rows.from_rows([{"a": 1}, {"b": None}], schema=schema)
    with pytest.raises(ValueError, match="the key 'c', which the schema has not: its columns are a, b"):
        rows.from_rows([{"a": 1, "c": 1}], schema=schema)


def test_long_tables_come_row_by_row_across_windows_and_chunks() -> None:
    table = pa.concat_tables(
        [pa.table({"a": range(start, start + 3000), "s": ["x"] * 3000}) for start in (0, 3000, 6000)]
    )
    got = list(rows.iter_rows(table))
    assert [row["a"] for row in got] == list(range(9000))
    assert got[8999] == {"a": 8999, "s": "x"}


SPECIAL: list[pa.Array] = [
    pa.array([1, None], pa.timestamp("s", "Asia/Tokyo")),
    pa.array([-62_135_596_800_000_000, 253_402_300_799_999_999, None], pa.timestamp("us")),
    pa.array([10**9, None], pa.timestamp("ns")),
    pa.array([np.float16(1.5), None], pa.float16()),
    pa.array(["a", None, "a"]).dictionary_encode(),
    pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["a", None])),
    pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
    pa.array([[1, 2], None, [None, 3]], pa.list_(pa.int8(), 2)),
    pa.array([[1], None], pa.large_list(pa.int8())),
    pa.array([1, None], pa.time32("s")),
    pa.array([1, None], pa.date64()),
    pa.array([pa.MonthDayNano([1, 2, 3]), None]),
    pa.array(["a", None], pa.large_string()),
    pa.array([b"ab", None], pa.binary(2)),
    pa.array([{"a": 1}, None, {"a": None}]),
    pa.nulls(2),
]


@pytest.mark.parametrize("column", SPECIAL, ids=lambda column: str(column.type))
def test_values_are_those_that_arrow_gives(column: pa.Array) -> None:
    for part in (column, column[1:], column[:0]):
        got = [row["x"] for row in rows.iter_rows(pa.table({"x": part}))]
        assert got == part.to_pylist()
        if column.type != pa.float16():  # which PyArrow 17 makes NumPy's
            assert [type(value) for value in got] == [type(value) for value in part.to_pylist()]
        zones = [getattr(value, "tzinfo", None) for value in got]
        assert zones == [getattr(value, "tzinfo", None) for value in part.to_pylist()]


def test_missing_values_and_instants_of_pandas_are_known() -> None:
    pd = pytest.importorskip("pandas")
    moment = pd.Timestamp("2024-05-06 12:00:00.000000001")
    made = rows.from_rows([{"t": moment, "n": 1, "d": pd.Timedelta(1)}, {"t": pd.NaT, "n": pd.NA, "d": NOON - NOON}])
    assert made.schema == pa.schema({"t": pa.timestamp("ns"), "n": pa.int64(), "d": pa.duration("ns")})
    assert list(rows.iter_rows(made)) == [
        {"t": moment, "n": 1, "d": pd.Timedelta(1)},
        {"t": None, "n": None, "d": pd.Timedelta(0)},
    ]
    zoned = rows.from_rows([{"t": moment.tz_localize("Asia/Tokyo")}, {"t": NOON.replace(tzinfo=UTC)}])
    assert zoned.schema == pa.schema({"t": pa.timestamp("ns", "UTC")})
