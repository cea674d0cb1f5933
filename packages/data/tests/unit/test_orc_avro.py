"""ORC and Avro."""

from __future__ import annotations

import datetime
from pathlib import Path

import pyarrow as pa
import pytest
import reading
import writing
from pyarrow import orc as arrow_orc

from umbel import data
from umbel.data import datasource
from umbel.data._sinks.tables import ORCDatasink
from umbel.data._sources import orc
from umbel.data._sources.avro import AvroDatasource
from umbel.data._sources.orc import ORCDatasource

TABLE = pa.table(
    {
        "i": [1, None, 3],
        "s": ["a", None, "ü"],
        "l": [[1, 2], [], None],
        "t": pa.array([datetime.datetime(2026, 1, 2), None, None], pa.timestamp("ns")),
    }
)


def test_orc_comes_back(tmp_path: Path) -> None:
    writing.write(
        ORCDatasink(str(tmp_path), arrow_orc_args={"compression": "zstd"}), [TABLE.slice(0, 1), TABLE.slice(1)]
    )
    source = ORCDatasource(tmp_path)
    assert reading.table(source).combine_chunks().equals(TABLE)
    few = source.with_columns(["s", "i"])
    assert few is not None
    assert reading.table(few).combine_chunks().equals(TABLE.select(["s", "i"]))


def test_a_large_orc_file_is_divided_into_stripes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orc, "_DIVIDED_BYTES", 1000)
    table = pa.table({"i": range(300_000)})
    with arrow_orc.ORCWriter(tmp_path / "a.orc", stripe_size=100_000, compression="uncompressed") as writer:
        for start in range(0, 300_000, 50_000):
            writer.write(table.slice(start, 50_000))
    source = ORCDatasource(tmp_path)
    assert len(source.get_read_tasks(10)) > 1
    assert reading.table(source, parallelism=10).combine_chunks().equals(table)


def test_what_is_no_orc_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.orc").write_bytes(b"ORC")
    with pytest.raises(datasource.FileReadError, match=r"ORC cannot read '.*a\.orc'"):
        reading.rows(ORCDatasource(tmp_path))


def test_avro_is_read(tmp_path: Path) -> None:
    fastavro = pytest.importorskip("fastavro")
    schema = {
        "type": "record",
        "name": "row",
        "fields": [
            {"name": "a", "type": ["null", "long"]},
            {"name": "b", "type": {"type": "array", "items": "string"}},
        ],
    }
    rows = [{"a": 1, "b": ["x"]}, {"a": None, "b": []}]
    with (tmp_path / "a.avro").open("wb") as file:
        fastavro.writer(file, schema, rows, codec="deflate")
    assert reading.rows(AvroDatasource(tmp_path)) == rows
    (tmp_path / "a.avro").write_bytes(b"Obj")
    with pytest.raises(datasource.FileReadError, match=r"Avro cannot read '.*a\.avro'"):
        reading.rows(AvroDatasource(tmp_path))


def test_avro_files_together(tmp_path: Path) -> None:
    """Several, one without rows, and what a logical type says."""
    fastavro = pytest.importorskip("fastavro")
    instant = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
    schema = {
        "type": "record",
        "name": "row",
        "fields": [
            {"name": "s", "type": ["null", "string"]},
            {"name": "t", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
            {"name": "m", "type": {"type": "map", "values": "int"}},
        ],
    }
    rows = [
        {"s": "ü", "t": instant, "m": {"k": 1}},
        {"s": None, "t": None, "m": {"k": 2}},
        {"s": "", "t": instant, "m": {"k": 3}},
    ]
    for name, part in (("a", rows[:2]), ("b", []), ("c", rows[2:])):
        with (tmp_path / f"{name}.avro").open("wb") as file:
            fastavro.writer(file, schema, part)
    read = data.read_avro(str(tmp_path), include_paths=True)
    assert read.drop_columns(["path"]).take_all() == rows
    assert [Path(row["path"]).stem for row in read.take_all()] == ["a", "a", "c"]
    assert (data.read_avro(str(tmp_path / "b.avro")).count(), read.count()) == (0, 3)
