"""Delta Lake, Iceberg and Lance: tables with a log of their own."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import reading
import writing

from umbel.data import datasink
from umbel.data._sinks.delta import DeltaDatasink
from umbel.data._sinks.iceberg import IcebergDatasink
from umbel.data._sinks.lance import LanceDatasink
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


# ---------------------------------------------------------------------------------------------------------------------
# Delta


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
        writing.write(DeltaDatasink(path, schema_mode="error"), [pa.table({"id": [2], "y": ["a"]})])
    writing.write(DeltaDatasink(path), [pa.table({"id": [2], "y": ["a"]})])
    assert by_id(DeltaDatasource(path)) == [{"id": 1, "y": None}, {"id": 2, "y": "a"}]
    with pytest.raises(ValueError, match="'id'"):
        writing.write(DeltaDatasink(path), [pa.table({"id": ["text"]})])
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


def test_a_delta_table_that_we_would_misread_is_refused(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    options = {"delta.enableDeletionVectors": "true"}
    deltalake.write_deltalake(str(tmp_path), pa.table({"id": [1]}), configuration=options)
    if not deltalake.DeltaTable(str(tmp_path)).protocol().reader_features:
        pytest.skip("this deltalake does not mark the table")
    with pytest.raises(NotImplementedError, match="needs readers that know deletionVectors"):
        DeltaDatasource(str(tmp_path))


# ---------------------------------------------------------------------------------------------------------------------
# Iceberg


@pytest.fixture
def catalog(tmp_path: Path) -> dict[str, Any]:
    sql = pytest.importorskip("pyiceberg.catalog.sql")
    pytest.importorskip("sqlalchemy")
    options = {"name": "c", "type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/w"}
    made = sql.SqlCatalog(**options)
    made.create_namespace("n")
    made.create_table("n.t", schema=TABLE.schema).append(TABLE.slice(0, 4))
    return options


def test_an_iceberg_table_is_read(catalog: dict[str, Any]) -> None:
    source = IcebergDatasource("n.t", catalog_kwargs=catalog)
    assert by_id(source) == TABLE.slice(0, 4).to_pylist()
    assert source.row_count() == 4
    assert source.schema().names == TABLE.schema.names
    few = source.with_columns(["x", "id"])
    assert few is not None
    assert [list(row) for row in reading.rows(few)] == [["x", "id"]] * 4
    assert by_id(IcebergDatasource("n.t", catalog_kwargs=catalog, row_filter="id > 2", selected_fields=("id",))) == [
        {"id": 3}
    ]
    assert len(reading.rows(source.with_limit(3))) == 3


def test_an_iceberg_table_is_appended_to_and_overwritten(catalog: dict[str, Any]) -> None:
    first = IcebergDatasource("n.t", catalog_kwargs=catalog)
    sink = IcebergDatasink("n.t", catalog_kwargs=catalog)
    writing.write(sink, [TABLE.slice(4, 1)], [TABLE.slice(5).select(["x", "k", "d", "id"])])
    assert by_id(IcebergDatasource("n.t", catalog_kwargs=catalog)) == TABLE.to_pylist()
    assert by_id(first) == TABLE.slice(0, 4).to_pylist(), "a source reads the snapshot that was there when it was made"
    filtered = IcebergDatasink("n.t", catalog_kwargs=catalog, mode="overwrite", overwrite_filter="id < 3")
    writing.write(filtered, [TABLE.slice(0, 1)])
    assert [row["id"] for row in by_id(IcebergDatasource("n.t", catalog_kwargs=catalog))] == [0, 3, 4, 5]
    writing.write(IcebergDatasink("n.t", catalog_kwargs=catalog, mode="overwrite"), [TABLE.slice(1, 1)])
    assert [row["id"] for row in by_id(IcebergDatasource("n.t", catalog_kwargs=catalog))] == [1]
    with pytest.raises(NotImplementedError, match="by append or overwrite, got 'error'"):
        IcebergDatasink("n.t", catalog_kwargs=catalog, mode="error")


def test_rows_that_do_not_suit_an_iceberg_table_are_refused(catalog: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="column 'more'"):
        writing.write(IcebergDatasink("n.t", catalog_kwargs=catalog), [pa.table({"id": [1], "more": [2]})])


# ---------------------------------------------------------------------------------------------------------------------
# Lance


def test_a_lance_dataset_is_written_and_read(tmp_path: Path) -> None:
    pytest.importorskip("lance")
    uri = str(tmp_path / "t.lance")
    writing.write(LanceDatasink(uri), [TABLE.slice(0, 2)], [TABLE.slice(2, 2)])
    with pytest.raises(ValueError, match="there is a Lance dataset at"):
        writing.write(LanceDatasink(uri), [TABLE])
    first = LanceDatasource(uri)
    writing.write(LanceDatasink(uri, mode="append"), [TABLE.slice(4)])
    source = LanceDatasource(uri)
    assert by_id(source, parallelism=3) == TABLE.to_pylist()
    assert by_id(first) == TABLE.slice(0, 4).to_pylist(), "a source reads the version that was there when it was made"
    assert (source.row_count(), source.schema(), len(source.get_read_tasks(2))) == (6, TABLE.schema, 2)
    few = source.with_columns(["x", "id"])
    assert few is not None
    assert reading.rows(few.with_limit(1)) == [{"x": 0.5, "id": 0}]
    assert by_id(LanceDatasource(uri, filter="id > 4", columns=["id"])) == [{"id": 5}]
    writing.write(LanceDatasink(uri, mode="overwrite"), [TABLE.slice(0, 1)])
    assert by_id(LanceDatasource(uri)) == TABLE.slice(0, 1).to_pylist()
    assert by_id(LanceDatasource(uri, version=1)) == TABLE.slice(0, 4).to_pylist()


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
