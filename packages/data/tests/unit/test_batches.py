"""Tables as batches, and tables of what functions return."""

from __future__ import annotations

import datetime
import decimal
import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from umbel.data._blocks import batches, tensors

UTC = datetime.timezone.utc


def everything() -> pa.Table:
    """A column of each kind, with a null in every one that may have some."""
    ragged = tensors.from_arrays([np.ones((1, 2), "int8"), None, np.zeros((2, 1), "int8")])
    return pa.table(
        {
            "int": pa.array([1, None, 3], pa.int8()),
            "full": pa.array([1, 2, 3], pa.uint16()),
            "bool": [True, None, False],
            "float": pa.array([1.5, None, 2.5], pa.float32()),
            "text": ["a", None, "c"],
            "bytes": [b"a", None, b"c"],
            "time": pa.array([1, None, 3], pa.timestamp("ms")),
            "zoned": pa.array([1, None, 3], pa.timestamp("us", "Asia/Tokyo")),
            "date": [datetime.date(2024, 1, 1), None, datetime.date(2025, 1, 1)],
            "clock": pa.array([1, None, 3], pa.time32("s")),
            "span": pa.array([1, None, 3], pa.duration("ms")),
            "decimal": pa.array([decimal.Decimal("1.5"), None, decimal.Decimal(2)], pa.decimal128(20, 3)),
            "words": pa.array(["x", None, "x"]).dictionary_encode(),
            "list": pa.array([[1, None], None, []], pa.list_(pa.int8())),
            "texts": [["a"], None, []],
            "pair": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2)),
            "struct": pa.array(
                [{"a": 1, "b": "x"}, None, {"a": None, "b": "z"}], pa.struct({"a": pa.int8(), "b": pa.string()})
            ),
            "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
            "tensor": tensors.from_numpy(np.arange(12, dtype="float32").reshape(3, 2, 2)),
            "ragged": ragged,
            "null": pa.nulls(3),
        }
    )


def test_a_numpy_batch_has_the_dtypes_that_users_expect_and_no_integer_becomes_a_float() -> None:
    got = batches.to_batch(everything(), "numpy")
    assert isinstance(got, dict)
    assert {name: str(array.dtype) for name, array in got.items()} == {
        "int": "int8",
        "full": "uint16",
        "bool": "bool",
        "float": "float32",
        "time": "datetime64[ms]",
        "zoned": "datetime64[us]",
        "date": "datetime64[D]",
        "span": "timedelta64[ms]",
        "pair": "int32",
        "tensor": "float32",
        **dict.fromkeys(
            ("text", "bytes", "clock", "decimal", "words", "list", "texts", "struct", "map", "ragged", "null"), "object"
        ),
    }
    assert {name for name, array in got.items() if isinstance(array, np.ma.MaskedArray)} == {"int", "bool"}
    assert got["int"].tolist() == [1, None, 3]
    assert got["int"].sum() == 4
    assert np.isnan(got["float"][1])
    assert np.isnat(got["zoned"][1])
    assert got["pair"].shape == (3, 2)
    assert got["tensor"].shape == (3, 2, 2)
    assert got["text"].tolist() == ["a", None, "c"]
    assert got["struct"].tolist() == [{"a": 1, "b": "x"}, None, {"a": None, "b": "z"}]
    assert got["map"].tolist() == [[("k", 1)], None, []]
    assert got["list"][0].tolist() == [1, None]
    assert got["list"][0].dtype == np.int8
    assert got["list"][1] is None
    assert got["ragged"][2].shape == (2, 1)


def test_default_is_numpy_and_none_is_the_block() -> None:
    table = pa.table({"a": [1]})
    assert batches.to_batch(table, None) is table
    assert batches.to_batch(table, "pyarrow") is table
    assert isinstance(batches.to_batch(table, "default"), dict)
    with pytest.raises(ValueError, match=r"batch_format must be one of 'default', 'numpy', .*, None, got 'cudf'"):
        batches.to_batch(table, "cudf")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got 'nunpy'"):
        batches.iter_batches([table], 1, "nunpy")  # type: ignore[arg-type]


def test_views_share_the_tables_memory_and_cannot_be_written_to_but_copies_can() -> None:
    table = pa.table(
        {"a": np.arange(10), "t": tensors.from_numpy(np.zeros((10, 2))), "l": [[1]] * 10, "b": [True] * 10}
    )
    views = batches.to_batch(table, "numpy")
    copies = batches.to_batch(table, "numpy", zero_copy=False)
    assert isinstance(views, dict)
    assert isinstance(copies, dict)
    for name in ("a", "t"):
        assert np.shares_memory(views[name], batches.to_batch(table, "numpy")[name])
        assert not views[name].flags.writeable
        assert not np.shares_memory(views[name], copies[name])
    for name in ("a", "t", "b"):
        copies[name][0] = 7
    copies["l"][0][0] = 7
    assert table["l"][0].as_py() == [1]
    assert table["a"][0].as_py() == 0


def test_types_come_back_from_numpy_as_they_went() -> None:
    table = everything()
    got = batches.from_batch(batches.to_batch(table, "numpy"), like=table.schema)
    assert got.schema == table.schema
    names = [name for name in table.column_names if name not in ("float", "tensor", "ragged")]
    assert got.select(names) == table.select(names)
    assert np.isnan(got["float"][1].as_py())  # NumPy's null is NaN
    for name in ("tensor", "ragged"):
        for one, other in zip(got[name].to_pylist(), table[name].to_pylist(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("batch_format", ["pandas", "polars"])
def test_types_come_back_from_frames_as_they_went(batch_format: Any) -> None:
    pytest.importorskip(batch_format)
    table = everything()
    got = batches.from_batch(batches.to_batch(table, batch_format), like=table.schema)
    assert got.schema == table.schema
    names = [name for name in table.column_names if name not in ("tensor", "ragged")]
    assert got.select(names).to_pydict() == table.select(names).to_pydict()
    for name in ("tensor", "ragged"):
        for one, other in zip(got[name].to_pylist(), table[name].to_pylist(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_pandas_batch_has_the_dtypes_that_users_expect() -> None:
    pd = pytest.importorskip("pandas")
    got: Any = batches.to_batch(everything(), "pandas")
    assert list(got.columns) == everything().column_names
    kinds = {name: str(dtype) for name, dtype in got.dtypes.items()}
    assert kinds["int"] == "Int8"
    assert kinds["full"] == "uint16"
    assert kinds["bool"] == "boolean"
    assert kinds["float"] == "float32"
    assert kinds["zoned"] == "datetime64[us, Asia/Tokyo]"
    assert kinds["words"] == "category"
    assert {kinds[name] for name in ("list", "struct", "tensor", "ragged", "decimal", "date")} == {"object"}
    assert got["tensor"][1].shape == (2, 2)
    assert got["list"][0].tolist() == [1, None]
    assert isinstance(got.index, pd.RangeIndex)
    assert batches.to_batch(pa.table({"l": [[1], [2]]}), "pandas").shape == (2, 1)  # type: ignore[union-attr]
    assert batches.to_batch(pa.table({"d": pa.DictionaryArray.from_arrays([0, 1], ["a", "a"])}), "pandas").shape == (
        2,
        1,
    )  # type: ignore[union-attr]


def test_pandas_batches_can_be_written_to_without_touching_the_table() -> None:
    pd = pytest.importorskip("pandas")
    table = pa.table({"a": [1.0, 2.0, 3.0, 4.0], "b": [1, 2, 3, 4]})
    for zero_copy in (True, False):
        for frame in batches.iter_batches([table], 2, "pandas", zero_copy=zero_copy):
            frame["c"] = frame["a"] + 1  # type: ignore[index, operator, call-overload]
            if not (zero_copy and pd.__version__.startswith("2.")):  # which does not copy on write
                frame.loc[0, "a"] = 9.0  # type: ignore[union-attr]
            assert list(frame.index) == [0, 1]  # type: ignore[arg-type, union-attr]
    assert table.to_pydict() == {"a": [1.0, 2.0, 3.0, 4.0], "b": [1, 2, 3, 4]}


@pytest.mark.parametrize(("first", "count"), [(0, 3), (1, 2), (2, 1), (1, 1), (3, 0)])
def test_polars_gets_slices_of_fixed_lists_with_nulls(first: int, count: int) -> None:
    pytest.importorskip("polars")
    values = [[0.0, 1.0], [2.0, 3.0], None]
    table = pa.table({"x": pa.array(values, pa.list_(pa.float32(), 2))})
    frame = batches.to_batch(table.slice(first, count), "polars")
    assert [one if one is None else list(one) for one in frame["x"].to_list()] == values[first : first + count]


def test_polars_says_which_column_it_has_no_type_for() -> None:
    pytest.importorskip("polars")
    with pytest.raises(TypeError, match=r"no type for the column 'b', which is struct<a: decimal256\(50, 1\)>"):
        batches.to_batch(pa.table({"b": pa.nulls(1, pa.struct({"a": pa.decimal256(50, 1)}))}), "polars")


def as_frame(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda columns: pytest.importorskip(name).DataFrame(columns)


@pytest.mark.parametrize(
    "make", [dict, pa.table, lambda columns: pa.record_batch(columns), as_frame("pandas"), as_frame("polars")]
)
def test_what_functions_return_becomes_a_table(make: Callable[[dict[str, Any]], Any]) -> None:
    got = batches.from_batch(make({"a": [1, 2], "b": ["x", None]}))
    assert got == pa.table({"a": [1, 2], "b": ["x", None]})


class Streamed:
    """What some library may return: Arrow's interface, and nothing more."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def test_anything_with_arrows_interface_is_a_batch() -> None:
    table = pa.table({"a": [1, 2]})
    assert batches.from_batch(Streamed(table)) == table
    assert batches.from_batch(table.to_reader()) == table


def test_columns_may_be_of_any_kind_of_sequence() -> None:
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    columns = {
        "numpy": np.array([1, 2], ">i4"),
        "strided": np.arange(4)[::2],
        "masked": np.ma.MaskedArray([1, 2], [True, False]),
        "texts": np.array(["a", "bc"]),
        "raw": np.array([b"a", b"bc"]),
        "objects": np.array(["a", None], object),
        "hours": np.array(["2024-01-01T05", "NaT"], "datetime64[h]"),
        "pairs": np.array([(1, 2.5), (3, 4.5)], [("a", "i4"), ("b", "f8")]),
        "stacked": np.zeros((2, 3), "int8"),
        "arrays": [np.zeros(3, "int8"), np.zeros(3, "int8")],
        "ragged": [np.zeros(3, "int8"), np.zeros(2, "int8")],
        "list": [[1], []],
        "tuple": (1, None),
        "range": range(2),
        "arrow": pa.array([1, 2], pa.int8()),
        "chunks": pa.chunked_array([[1], [2]]),
        "views": pa.array(["a", "b"], pa.string_view()),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["a"])),
        "series": pd.Series([1, None], dtype="Int16"),
        "category": pd.Series(["a", "b"], dtype="category"),
        "frames": pl.Series([1, None], dtype=pl.Int16),
    }
    got = batches.from_batch(columns)
    assert {field.name: field.type for field in got.schema} == {
        "numpy": pa.int32(),
        "strided": pa.int64(),
        "masked": pa.int64(),
        "texts": pa.string(),
        "raw": pa.binary(),
        "objects": pa.string(),
        "hours": pa.timestamp("s"),
        "pairs": pa.struct({"a": pa.int32(), "b": pa.float64()}),
        "stacked": tensors.fixed_type(pa.int8(), (3,)),
        "arrays": tensors.fixed_type(pa.int8(), (3,)),
        "ragged": tensors.RaggedTensorType(pa.int8(), 1),
        "list": pa.list_(pa.int64()),
        "tuple": pa.int64(),
        "range": pa.int64(),
        "arrow": pa.int8(),
        "chunks": pa.int64(),
        "views": pa.string(),
        "runs": pa.string(),
        "series": pa.int16(),
        "category": pa.dictionary(pa.int8(), got.schema.field("category").type.value_type),
        "frames": pa.int16(),
    }
    assert got["masked"].to_pylist() == [None, 2]
    assert got["hours"].to_pylist() == [datetime.datetime(2024, 1, 1, 5), None]
    assert got["runs"].to_pylist() == ["a", "a"]
    assert got["pairs"].to_pylist() == [{"a": 1, "b": 2.5}, {"a": 3, "b": 4.5}]


def test_arrays_are_not_copied_on_their_way_into_a_table() -> None:
    array = np.arange(1000.0)
    assert np.shares_memory(batches.from_batch({"a": array})["a"].chunk(0).to_numpy(), array)


def test_columns_of_pandas_keep_integers_and_take_nan_for_null() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {0: [1.0, np.nan], "o": ["a", np.nan], "i": pd.array([1, None], "Int64"), "n": [np.zeros(2), np.ones(2)]}
    )
    got = batches.from_batch(frame)
    assert got.schema == pa.schema(
        {"0": pa.float64(), "o": pa.string(), "i": pa.int64(), "n": tensors.fixed_type(pa.float64(), (2,))}
    )
    assert got.drop_columns("n").to_pylist() == [{"0": 1.0, "o": "a", "i": 1}, {"0": None, "o": None, "i": None}]


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (
        [1, 2],
        TypeError,
        r"^scale returned what cannot be a batch: it is a list, not a dict of arrays.*return \{'name': values\}",
    ),
    (None, TypeError, "it is None, not a dict .*is there a return statement missing"),
    (np.zeros(3), TypeError, r"it is numpy\.ndarray, not a dict"),
    ("text", TypeError, r"it is builtins\.str, not"),
    ({"a": [1, 2], "b": [1]}, ValueError, "its columns are of unequal lengths: 'a' has 2, 'b' has 1"),
    ({"a": 5}, TypeError, r"the column 'a' is a int, 5, not an array or a list .* return \{'a': \[value\]\}"),
    ({"a": "text"}, TypeError, "the column 'a' is a str"),
    ({"a": np.array(5)}, TypeError, "the column 'a' is a ndarray"),
    ({"a": {1, 2}}, TypeError, "the column 'a' is a set"),
    ({1: [5]}, TypeError, "the name of a column must be a str, got 1"),
    ({"a": [1, "x"]}, TypeError, "scale returned .*: column 'a' mixes types: row 0 has int"),
    ({"a": np.zeros(3, complex)}, TypeError, "column 'a': Arrow has no type for NumPy's complex128"),
    (pa.table([[1], [2]], ["a", "a"]), ValueError, "it has several columns called 'a'"),
]


@pytest.mark.parametrize(("value", "kind", "message"), REFUSED)
def test_what_is_no_batch_names_the_operator_and_what_to_return(
    value: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        batches.from_batch(value, operator="scale")


def test_a_column_that_is_no_image_of_its_old_type_keeps_its_new_one() -> None:
    like = pa.schema(
        {
            "narrow": pa.int8(),
            "zoned": pa.timestamp("us", "Asia/Tokyo"),
            "decimal": pa.decimal128(4, 1),
            "struct": pa.struct({"a": pa.float32(), "b": pa.int8()}),
            "map": pa.map_(pa.string(), pa.int64()),
            "words": pa.dictionary(pa.int8(), pa.string()),
        }
    )
    got = batches.from_batch(
        {
            "narrow": np.array([1]),
            "zoned": ["noon"],
            "decimal": [decimal.Decimal("1.25")],
            "struct": [{"a": 0.1, "b": 1}],
            "map": [5],
            "words": [5],
            "new": [None],
        },
        like=like,
    )
    assert got.schema == pa.schema(
        {
            "narrow": pa.int64(),
            "zoned": pa.string(),
            "decimal": pa.decimal128(3, 2),
            "struct": pa.struct({"a": pa.float64(), "b": pa.int64()}),
            "map": pa.int64(),
            "words": pa.int64(),
            "new": pa.null(),
        }
    )


def test_a_time_without_a_zone_is_that_of_utc_in_an_array_and_no_longer_zoned_elsewhere() -> None:
    pd = pytest.importorskip("pandas")
    zoned, epoch = pa.timestamp("us", "Asia/Tokyo"), datetime.datetime(1970, 1, 1)
    like = pa.schema({"t": zoned, "l": pa.list_(pa.list_(zoned))})
    times = np.array([0], "datetime64[us]")
    for lists in (
        batches.from_batch({"l": [[times]]}, like=like),
        batches.from_batch(pd.DataFrame({"l": [[times]]}), like=like),
    ):
        assert lists.to_pylist() == [{"l": [[epoch.replace(tzinfo=UTC)]]}]
    assert batches.from_batch({"t": times}, like=like).to_pylist() == [{"t": epoch.replace(tzinfo=UTC)}]
    for batch in ({"t": [epoch]}, pd.DataFrame({"t": times}), pa.table({"t": times})):
        assert batches.from_batch(batch, like=like).to_pylist() == [{"t": epoch}]


def lengths(found: list[Any]) -> list[int]:
    return [len(batch["a"]) for batch in found]


@pytest.mark.parametrize("batch_format", ["numpy", "pyarrow", "pandas", "polars"])
@pytest.mark.parametrize("zero_copy", [True, False])
@pytest.mark.parametrize(("drop_last", "expected"), [(False, [4, 4, 4, 4, 1]), (True, [4, 4, 4, 4])])
def test_batches_cross_tables_in_order(
    batch_format: Any, zero_copy: bool, drop_last: bool, expected: list[int]
) -> None:
    if batch_format in ("pandas", "polars"):
        pytest.importorskip(batch_format)
    whole = pa.table({"a": range(17), "s": [str(number) for number in range(17)]})
    cuts = [0, 1, 1, 3, 12, 12, 14, 17]
    tables = [whole.slice(start, stop - start) for start, stop in itertools.pairwise(cuts)]
    found = list(batches.iter_batches(tables, 4, batch_format, drop_last=drop_last, zero_copy=zero_copy))
    assert lengths(found) == expected
    rows = [row for batch in found for row in batches.from_batch(batch).to_pylist()]
    assert rows == whole.to_pylist()[: sum(expected)]


def test_a_batch_size_of_none_makes_each_table_one_batch() -> None:
    tables = [pa.table({"a": [1, 2]}), pa.table({"a": []}), pa.table({"a": [3]})]
    assert lengths(list(batches.iter_batches(tables, None, "numpy"))) == [2, 1]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        batches.iter_batches(tables, 0, "numpy")


def test_batches_of_one_table_are_views_of_it() -> None:
    table = pa.table({"a": np.arange(100)})
    memory = table["a"].chunk(0).to_numpy()
    found: Any = list(batches.iter_batches([table], 32, "numpy"))
    assert lengths(found) == [32, 32, 32, 4]
    assert all(np.shares_memory(batch["a"], memory) for batch in found[:3])


def test_batches_that_are_copies_do_not_share_rows() -> None:
    found: Any = list(batches.iter_batches([pa.table({"a": np.arange(10)})], 5, "numpy", zero_copy=False))
    found[0]["a"][:] = 0
    assert found[1]["a"].tolist() == [5, 6, 7, 8, 9]


def test_long_tables_of_objects_are_converted_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_WINDOW_ROWS", 10)
    table = pa.concat_tables(
        [pa.table({"a": [str(number) for number in range(start, start + 20)]}) for start in (0, 20)]
    )
    found: Any = list(batches.iter_batches([table], 4, "numpy"))
    assert [value for batch in found for value in batch["a"]] == [str(number) for number in range(40)]
    assert lengths(found) == [4] * 10


def test_tables_that_differ_are_brought_together_in_a_batch_that_crosses_them() -> None:
    tables = [pa.table({"a": [1, 2, 3]}), pa.table({"a": [0.5, 1.5], "b": ["x", "y"]})]
    found: Any = list(batches.iter_batches(tables, 2, "pyarrow"))
    assert [batch.to_pydict() for batch in found] == [
        {"a": [1, 2]},
        {"a": [3.0, 0.5], "b": [None, "x"]},
        {"a": [1.5], "b": ["y"]},
    ]


@pytest.mark.torch
def test_tensors_of_torch_go_out_and_in_without_a_copy() -> None:
    import torch

    table = pa.table(
        {"a": np.arange(6, dtype="float32"), "t": tensors.from_numpy(np.zeros((6, 2), "int16")), "b": [True] * 6}
    )
    got: Any = batches.to_batch(table, "torch")
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in got.items()} == {
        "a": (torch.float32, (6,)),
        "t": (torch.int16, (6, 2)),
        "b": (torch.bool, (6,)),
    }
    assert np.shares_memory(got["a"].numpy(), table["a"].chunk(0).to_numpy())
    assert not np.shares_memory(
        batches.to_batch(table, "torch", zero_copy=False)["a"].numpy(), table["a"].chunk(0).to_numpy()
    )  # type: ignore[index, union-attr, call-overload]
    assert batches.from_batch(got) == table
    assert [batch["a"].tolist() for batch in batches.iter_batches([table], 4, "torch")] == [[0, 1, 2, 3], [4, 5]]  # type: ignore[index, union-attr, call-overload]
    out = batches.from_batch(
        {"x": [torch.zeros(2), torch.ones(2)], "y": torch.ones(2, dtype=torch.bfloat16, requires_grad=True)}
    )
    assert out.schema == pa.schema({"x": tensors.fixed_type(pa.float32(), (2,)), "y": pa.float32()})


@pytest.mark.torch
def test_torch_says_which_columns_it_cannot_have() -> None:
    with pytest.raises(TypeError, match="the column 'a' has 1 nulls, and torch has none for int64"):
        batches.to_batch(pa.table({"a": [1, None]}), "torch")
    with pytest.raises(TypeError, match="torch has no tensor for the column 's', which is string"):
        batches.to_batch(pa.table({"s": ["x"]}), "torch")


def test_a_missing_library_is_named_with_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match="batches of polars need that library: pip install polars"):
        batches.to_batch(pa.table({"a": [1]}), "polars")
