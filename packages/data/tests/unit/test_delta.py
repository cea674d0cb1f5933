"""Delta Lake: a table with a log of its own. What a library is called that is missing, of all such formats."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import reading
import writing

from umbel import data
from umbel.data import datasink
from umbel.data._sinks import base
from umbel.data._sinks.delta import DeltaDatasink
from umbel.data._sources.delta import DeltaDatasource
from umbel.data._sources.iceberg import IcebergDatasource
from umbel.data._sources.lance import LanceDatasource

TABLE = pa.table(
    {
        "id": range(6),
        "k": ["a", "x/y =%z", None] * 2,
        "d": pa.array([datetime.date(2026, 1, 1), None] * 3),
        "x": [0.5, None, 1.5, 2.5, None, 3.5],
    }
)


def by_id(source: Any, **options: Any) -> list[dict[str, Any]]:
    return sorted(reading.rows(source, **options), key=lambda row: int(row["id"]))


def test_a_delta_table_is_read_with_its_partitions(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    deltalake.write_deltalake(str(tmp_path / "t"), TABLE, partition_by=["k", "d"])
    source = DeltaDatasource(str(tmp_path / "t"))
    assert by_id(source, parallelism=3) == TABLE.to_pylist()
    assert source.schema() == TABLE.schema
    assert source.row_count() == 6
    assert sum(task.metadata.num_rows or 0 for task in source.get_read_tasks(2)) == 6
    few, _ = source.with_filter((pc.field("k") == "a") & (pc.field("id") > 0))
    chosen = few.with_columns(["x", "id"])
    assert chosen is not None
    assert reading.rows(chosen) == [{"x": 2.5, "id": 3}]
    assert len(few.get_read_tasks(-1)[0].metadata.input_files) == 2, "files of other partitions are not read"


def test_a_version_of_a_delta_table_is_read(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    for index in range(3):
        mode = "overwrite" if index == 2 else "append"
        deltalake.write_deltalake(str(tmp_path), pa.table({"id": [index]}), mode=mode)
    assert by_id(DeltaDatasource(str(tmp_path))) == [{"id": 2}]
    assert by_id(DeltaDatasource(str(tmp_path), version=1)) == [{"id": 0}, {"id": 1}]
    assert DeltaDatasource(str(tmp_path), version=1, columns=["id"], include_paths=True).schema() == pa.schema(
        [("id", pa.int64())]
    )


@pytest.mark.parametrize("partition_by", [None, ["k"], ["d", "k"]])
def test_a_delta_table_is_written(tmp_path: Path, partition_by: list[str] | None) -> None:
    deltalake = pytest.importorskip("deltalake")
    path = str(tmp_path / "t")
    writing.write(
        DeltaDatasink(path, partition_by=partition_by, mode="error"), [TABLE.slice(0, 2)], [TABLE.slice(2, 2)]
    )
    writing.write(DeltaDatasink(path), [TABLE.slice(4)])
    assert by_id(DeltaDatasource(path)) == TABLE.to_pylist()
    theirs = deltalake.DeltaTable(path).to_pyarrow_table().sort_by("id").select(TABLE.column_names)
    assert theirs.to_pylist() == TABLE.to_pylist()
    assert deltalake.DeltaTable(path).version() == 1


def test_modes_of_delta_hold(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    path = str(tmp_path)
    writing.write(DeltaDatasink(path), [pa.table({"id": [1]})])
    with pytest.raises(ValueError, match="has a Delta table already"):
        writing.write(DeltaDatasink(path, mode="error"), [pa.table({"id": [2]})])
    assert writing.write(DeltaDatasink(path, mode="ignore"), [pa.table({"id": [2]})]) is None
    writing.write(DeltaDatasink(path, mode="overwrite"), [pa.table({"id": [2]})])
    assert by_id(DeltaDatasource(path)) == [{"id": 2}]
    assert by_id(DeltaDatasource(path, version=0)) == [{"id": 1}]
    with pytest.raises(ValueError, match=r"is partitioned by \[\], got partition_by=\['id'\]"):
        writing.write(DeltaDatasink(path, partition_by=["id"]), [pa.table({"id": [2]})])


def test_a_delta_table_gets_columns_that_it_lacks(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    path = str(tmp_path)
    writing.write(DeltaDatasink(path), [pa.table({"id": [1]})])
    with pytest.raises(ValueError, match="has no column 'y'"):
        data.from_arrow(pa.table({"id": [2], "y": ["a"]})).write_delta(path, schema_mode="error")
    writing.write(DeltaDatasink(path), [pa.table({"id": [2], "y": ["a"]})])
    assert by_id(DeltaDatasource(path)) == [{"id": 1, "y": None}, {"id": 2, "y": "a"}]
    with pytest.raises(ValueError, match="'id'"):
        data.from_arrow(pa.table({"id": ["text"]})).write_delta(path)
    assert len(list(tmp_path.glob("*.parquet"))) == 2, "of writes that were refused nothing is left"


def test_a_write_to_delta_that_fails_is_not_seen(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    path = str(tmp_path)
    writing.write(DeltaDatasink(path), [pa.table({"id": [1]})])
    sink = DeltaDatasink(path)
    sink.on_write_start()
    sink.write([pa.table({"id": [2]})], datasink.WriteContext(0))
    assert by_id(DeltaDatasource(path)) == [{"id": 1}]
    sink.on_write_failed(OSError())
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_types_that_delta_does_not_have(tmp_path: Path) -> None:
    """Parquet has them, so that the files would say otherwise than the log."""
    deltalake = pytest.importorskip("deltalake")
    instant = datetime.datetime(2026, 1, 2, 3, 4, 5, 6)
    table = pa.table(
        {
            "id": pa.array([200, None], pa.uint8()),
            "u": pa.array([2**32 - 1, None], pa.uint32()),
            "n": pa.array([instant, None], pa.timestamp("ns")),
            "z": pa.array([instant, None], pa.timestamp("us", "Europe/Rome")),
            "d": pa.array(["ü", None]).dictionary_encode(),
            "l": pa.array([[1], None], pa.list_(pa.uint16())),
        }
    )
    path = str(tmp_path / "t")
    data.from_arrow(table).write_delta(path)
    found = data.read_delta(path).to_arrow()
    assert found.schema == pa.schema(
        [
            ("id", pa.int16()),
            ("u", pa.int64()),
            ("n", pa.timestamp("us")),
            ("z", pa.timestamp("us", "UTC")),
            ("d", pa.string()),
            ("l", pa.list_(pa.int32())),
        ]
    )
    assert found.to_pylist() == table.cast(found.schema).to_pylist()
    assert deltalake.DeltaTable(path).to_pyarrow_table().to_pylist() == found.to_pylist()
    for column, error, message in (
        (pa.array([datetime.time(1)]), TypeError, r"'x' is time64\[us\], which a Delta table cannot hold"),
        (pa.array([2**63], pa.uint64()), ValueError, "'x'"),
        (pa.array([1], pa.timestamp("ns")), ValueError, "'x'"),
    ):
        with pytest.raises(error, match=message):
            data.from_arrow(pa.table({"x": column})).write_delta(str(tmp_path / "other"))


def test_a_deltalake_that_would_write_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deltalake = pytest.importorskip("deltalake")
    monkeypatch.setattr(deltalake, "__version__", "1.4.2")
    with pytest.raises(ImportError, match=r"needs deltalake 1\.6 or later, got 1\.4\.2; pip install -U"):
        data.from_arrow(TABLE).write_delta(str(tmp_path / "t"))


def test_what_replaces_a_delta_table_has_columns_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    path = str(tmp_path)
    data.from_arrow(TABLE).write_delta(path, partition_by=["k"])
    data.from_items([{"k": "a", "other": [1]}]).write_delta(path, mode="overwrite")
    assert data.read_delta(path).take_all() == [{"k": "a", "other": [1]}]
    assert data.read_delta(path, 0).count() == 6


def test_two_writes_at_the_same_time_are_both_there(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    path = str(tmp_path)
    sinks = [DeltaDatasink(path), DeltaDatasink(path)]
    for sink in sinks:
        sink.on_write_start()
    results = [base.write_task(sink, [TABLE.slice(at, 1)], datasink.WriteContext(0)) for at, sink in enumerate(sinks)]
    for sink, result in zip(sinks, results, strict=True):
        sink.on_write_complete(result)
    assert [row["id"] for row in by_id(DeltaDatasource(path))] == [0, 1]


def test_a_file_of_a_delta_table_that_is_gone_is_named(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    data.from_arrow(TABLE).write_delta(str(tmp_path))
    read = data.read_delta(str(tmp_path))
    (file,) = tmp_path.glob("*.parquet")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{file}.*not there any more"):
        read.take_all()


def test_a_delta_table_without_rows(tmp_path: Path) -> None:
    pytest.importorskip("deltalake")
    path = str(tmp_path)
    data.from_arrow(TABLE.slice(0, 0)).write_delta(path, partition_by=["k"])
    assert data.read_delta(path).take_all() == []
    data.from_arrow(TABLE).write_delta(path)
    assert data.read_delta(path, columns=["id"]).sort("id").take_all() == [{"id": index} for index in range(6)]
    data.from_arrow(TABLE.slice(0, 0)).write_delta(path, mode="overwrite")
    assert (data.read_delta(path).count(), data.read_delta(path, 1).count()) == (0, 6)


def test_a_delta_table_that_we_would_misread_is_refused(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    options = {"delta.enableDeletionVectors": "true"}
    deltalake.write_deltalake(str(tmp_path), pa.table({"id": [1]}), configuration=options)
    if not deltalake.DeltaTable(str(tmp_path)).protocol().reader_features:
        pytest.skip("this deltalake does not mark the table")
    with pytest.raises(NotImplementedError, match="needs readers that know deletionVectors"):
        DeltaDatasource(str(tmp_path))


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("deltalake", lambda: DeltaDatasource("x")),
        ("pyiceberg", lambda: IcebergDatasource("x")),
        ("lance", lambda: LanceDatasource("x")),
    ],
)
def test_a_library_that_is_missing_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, module: str, make: Any
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=r"needs .*which is not installed; pip install umbel-data\[\w+\]"):
        make()


def test_files_stay_when_the_answer_of_their_commit_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deltalake = pytest.importorskip("deltalake")
    path = str(tmp_path)
    writing.write(DeltaDatasink(path), [pa.table({"id": [1]})])
    commit = deltalake.DeltaTable.create_write_transaction

    def without_answer(*args: Any, **options: Any) -> None:
        commit(*args, **options)
        raise OSError("connection reset")

    monkeypatch.setattr(deltalake.DeltaTable, "create_write_transaction", without_answer)
    with pytest.raises(OSError, match="connection reset"):
        data.from_arrow(pa.table({"id": [2]})).write_delta(path)
    assert by_id(DeltaDatasource(path)) == [{"id": 1}, {"id": 2}]


def test_columns_are_added_by_a_version_of_their_own(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    path = str(tmp_path)
    writing.write(DeltaDatasink(path), [pa.table({"id": [1]})])
    writing.write(DeltaDatasink(path), [pa.table({"id": [2], "y": ["a"]})])
    assert deltalake.DeltaTable(path).version() == 2
    assert by_id(DeltaDatasource(path, version=1)) == [{"id": 1, "y": None}]
