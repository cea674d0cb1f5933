"""Each format written and read back."""

from __future__ import annotations

import datetime
import decimal
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import reading
import writing
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv

from umbel.data._sinks.arrays import ImageDatasink, NumpyDatasink
from umbel.data._sinks.json import JSONDatasink
from umbel.data._sinks.tables import ArrowDatasink, CSVDatasink, ParquetDatasink
from umbel.data._sources.arrow_files import ArrowDatasource
from umbel.data._sources.csv import CSVDatasource
from umbel.data._sources.images import ImageDatasource
from umbel.data._sources.json import JSONDatasource
from umbel.data._sources.parquet import ParquetDatasource

PLAIN = pa.table(
    {
        "i": [1, None, 3],
        "f": [0.5, 2.0, None],
        "s": ["a", 'b "q", c', "ü\nnext"],
        "b": [True, False, None],
        "d": [datetime.date(2026, 1, 2), None, datetime.date(1999, 12, 31)],
    }
)
ZONED = pa.timestamp("us", "Europe/Rome")
RICH = PLAIN.append_column("l", pa.array([[1, 2], [], None])).append_column(
    "t", pa.array([datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), None, None], ZONED)
)


def only_text(directory: Path) -> str:
    (path,) = directory.iterdir()
    return path.read_text()


@pytest.mark.parametrize(("sink", "source"), [(ParquetDatasink, ParquetDatasource), (ArrowDatasink, ArrowDatasource)])
def test_formats_of_arrow_keep_everything(tmp_path: Path, sink: Any, source: Any) -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12.0).reshape(3, 2, 2))
    table = RICH.append_column("tensor", tensors).append_column("dict", RICH.column("s").dictionary_encode())
    writing.write(sink(str(tmp_path)), [table.slice(0, 1), table.slice(1, 0), table.slice(1)])
    assert reading.table(source(tmp_path)).combine_chunks().equals(table.combine_chunks())


_rows = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.none() | st.integers(-(2**63), 2**63 - 1),
            "f": st.none() | st.floats(allow_nan=True),
            "s": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            "l": st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3),
        }
    ),
    max_size=6,
)
_SCHEMA = pa.schema([("i", pa.int64()), ("f", pa.float64()), ("s", pa.string()), ("l", pa.list_(pa.int64()))])


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(
    rows=_rows,
    cut=st.integers(0, 6),
    names=st.sampled_from([(ParquetDatasink, ParquetDatasource), (ArrowDatasink, ArrowDatasource)]),
)
def test_whatever_is_written_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], cut: int, names: tuple[Any, Any]
) -> None:
    directory = tmp_path_factory.mktemp("trip")
    sink, source = names
    table = pa.Table.from_pylist(rows, _SCHEMA)
    writing.write(sink(str(directory)), [table.slice(0, cut)], [table.slice(cut)], schema=_SCHEMA)
    found = reading.table(source(directory))
    assert found.schema == _SCHEMA
    assert repr(found.to_pylist()) == repr(table.to_pylist())


def test_csv_comes_back(tmp_path: Path) -> None:
    writing.write(CSVDatasink(str(tmp_path)), [PLAIN.slice(0, 2)], [PLAIN.slice(2)])
    values = {"parse_options": arrow_csv.ParseOptions(newlines_in_values=True)}
    assert reading.rows(CSVDatasource(tmp_path, arrow_csv_args=values)) == PLAIN.to_pylist()


def test_csv_takes_options_and_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    options = {"write_options": arrow_csv.WriteOptions(include_header=False, delimiter=";", quoting_style="none")}
    writing.write(CSVDatasink(str(tmp_path), arrow_csv_args=options), [pa.table({"a": [1], "b": ["x"]})])
    assert only_text(tmp_path) == "1;x\n"
    with pytest.raises(TypeError, match=r"column 'l' is list<.*which CSV cannot hold"):
        writing.write(CSVDatasink(str(tmp_path)), [pa.table({"l": [[1]]})])


def test_compression_of_what_is_written_is_told_by_the_ending(tmp_path: Path) -> None:
    writing.write(CSVDatasink(str(tmp_path), file_format="csv.gz"), [PLAIN.select(["i", "s"])])
    (path,) = tmp_path.iterdir()
    assert path.read_bytes()[:2] == b"\x1f\x8b"
    values = {"parse_options": arrow_csv.ParseOptions(newlines_in_values=True)}
    assert reading.rows(CSVDatasource(tmp_path, arrow_csv_args=values)) == PLAIN.select(["i", "s"]).to_pylist()


def test_json_comes_back(tmp_path: Path) -> None:
    table = RICH.drop_columns(["d", "t"])
    writing.write(JSONDatasink(str(tmp_path)), [table.slice(0, 2), table.slice(2)])
    assert len(only_text(tmp_path).splitlines()) == 3
    assert reading.rows(JSONDatasource(tmp_path)) == table.to_pylist()


def test_json_has_forms_for_what_it_does_not_know(tmp_path: Path) -> None:
    table = pa.table(
        {
            "t": [datetime.datetime(2026, 1, 2, 3, 4, 5)],
            "d": [datetime.date(2026, 1, 2)],
            "p": [decimal.Decimal("1.10")],
            "n": [math.nan],
            "m": [[math.inf, 1.0]],
            "x": pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[1, 2]])),
        }
    )
    writing.write(JSONDatasink(str(tmp_path)), [table])
    assert json.loads(only_text(tmp_path)) == {
        "t": "2026-01-02T03:04:05",
        "d": "2026-01-02",
        "p": "1.10",
        "n": None,
        "m": [None, 1.0],
        "x": [1, 2],
    }
    with pytest.raises(TypeError, match="JSON has no bytes; decode the column"):
        writing.write(JSONDatasink(str(tmp_path)), [pa.table({"b": [b"x"]})])


def test_json_is_one_array_if_that_is_asked_for(tmp_path: Path) -> None:
    sink = JSONDatasink(str(tmp_path), pandas_json_args={"lines": False})
    writing.write(sink, [pa.table({"a": [1]}), pa.table({"a": [2]})])
    assert json.loads(only_text(tmp_path)) == [{"a": 1}, {"a": 2}]
    assert reading.rows(JSONDatasource(tmp_path)) == [{"a": 1}, {"a": 2}]
    with pytest.raises(ValueError, match="orient must be 'records', got 'split'"):
        JSONDatasink("x", pandas_json_args={"orient": "split"})
    with pytest.raises(ValueError, match="takes lines, orient, ensure_ascii, indent, got 'date_unit'"):
        JSONDatasink("x", pandas_json_args={"date_unit": "ms"})


@pytest.mark.parametrize("array", [np.arange(4), np.arange(24.0).reshape(4, 3, 2), np.array(["a", "bc", "", "d"])])
def test_arrays_come_back(tmp_path: Path, array: np.ndarray) -> None:
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(array) if array.ndim > 1 else pa.array(array)
    table = pa.table({"x": column, "other": range(4)})
    writing.write(NumpyDatasink(str(tmp_path), "x"), [table.slice(0, 3), table.slice(3)])
    (path,) = tmp_path.iterdir()
    found = np.load(path)
    np.testing.assert_array_equal(found, array)


def test_lists_of_one_length_are_arrays(tmp_path: Path) -> None:
    writing.write(NumpyDatasink(str(tmp_path), "x"), [pa.table({"x": [[1, 2], [3, 4]]})])
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(np.load(path), [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="several shapes"):
        writing.write(NumpyDatasink(str(tmp_path), "x"), [pa.table({"x": [[1, 2], [3]]})])
    with pytest.raises(ValueError, match="with nulls"):
        writing.write(NumpyDatasink(str(tmp_path), "x"), [pa.table({"x": [[1, 2], None]})])
    with pytest.raises(KeyError, match="no column 'y' to write"):
        writing.write(NumpyDatasink(str(tmp_path), "y"), [pa.table({"x": [1]})])


def test_images_come_back(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(1).integers(0, 255, (3, 4, 5, 3), dtype=np.uint8)
    table = pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)})
    writing.write(ImageDatasink(str(tmp_path), "image"), [table])
    assert {path.suffix for path in tmp_path.iterdir()} == {".png"}
    found = reading.table(ImageDatasource(tmp_path)).column("image").combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(found, pixels)
    with pytest.raises(KeyError, match="no column 'img' to write; did you mean 'image'"):
        writing.write(ImageDatasink(str(tmp_path), "img"), [table])
