"""Each format by the functions that users call: what is written is read."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from umbel import data

ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": None}, {"a": 3, "b": "z"}]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "out")


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (data.Dataset.write_parquet, data.read_parquet),
        (data.Dataset.write_csv, data.read_csv),
        (data.Dataset.write_json, functools.partial(data.read_json, lines=True)),
        (data.Dataset.write_arrow, data.read_arrow),
        (data.Dataset.write_arrow, data.read_feather),
        (data.Dataset.write_orc, data.read_orc),
    ],
)
def test_tables(write: Callable[..., None], read: Callable[..., data.Dataset], folder: str) -> None:
    write(data.from_items(ROWS), folder)
    found = read(folder)
    expected = ROWS if read is not data.read_csv else [{**row, "b": row["b"] or ""} for row in ROWS]
    assert found.take_all() == expected
    assert len(found.input_files()) == 1
    assert found.select_columns(["b"]).take_all() == [{"b": row["b"]} for row in expected]


def test_columns_of_arrow_and_orc_files(folder: str) -> None:
    data.from_items(ROWS).write_orc(folder)
    assert data.read_orc(folder, columns=["a"]).take_all() == [{"a": 1}, {"a": 2}, {"a": 3}]
    data.from_items(ROWS).write_arrow(folder + "2", arrow_ipc_args={"compression": "zstd"})
    assert data.read_arrow(folder + "2", columns=["a"]).take_all() == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_tfrecords(folder: str) -> None:
    rows = [{"a": 1, "b": b"x"}, {"a": 2, "b": b"y"}]
    data.from_items(rows).write_tfrecords(folder)
    assert data.read_tfrecords(folder).take_all() == rows


def test_webdataset(folder: str) -> None:
    rows = [{"__key__": "one", "txt": "x", "json": {"n": 1}}, {"__key__": "two", "txt": "y", "json": {"n": 2}}]
    data.from_items(rows).write_webdataset(folder)
    found = data.read_webdataset(folder).select_columns(["__key__", "txt", "json"]).take_all()
    assert found == rows
    raw = data.read_webdataset(folder, decoder=None, suffixes=["txt"]).select_columns(["__key__", "txt"]).take_all()
    assert raw == [{"__key__": "one", "txt": b"x"}, {"__key__": "two", "txt": b"y"}]


def test_images(folder: str) -> None:
    pytest.importorskip("PIL")
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    data.from_numpy(pixels).rename_columns({"data": "image"}).write_images(folder, "image")
    found = sorted(row["image"].tolist() for row in data.read_images(folder).take_all())
    assert found == sorted(pixels.tolist())


def test_avro(tmp_path: pathlib.Path) -> None:
    fastavro = pytest.importorskip("fastavro")
    schema = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}
    with open(tmp_path / "f.avro", "wb") as file:
        fastavro.writer(file, schema, [{"a": 1}, {"a": 2}])
    assert data.read_avro(str(tmp_path)).take_all() == [{"a": 1}, {"a": 2}]


def test_an_unknown_option_is_named(folder: str) -> None:
    with pytest.raises(TypeError, match="no option 'colums'"):
        data.read_avro(folder, colums=["a"])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no option 'rows'"):
        data.from_items(ROWS).write_orc(folder, rows=3)  # type: ignore[call-arg]


def test_references_are_checked() -> None:
    for make in (data.from_arrow_refs, data.from_pandas_refs, data.from_numpy_refs):
        with pytest.raises(TypeError, match="references are needed"):
            make([pa.table({"a": [1]})])
