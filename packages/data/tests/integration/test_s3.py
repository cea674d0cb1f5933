"""Reading and writing in an object store: moto's S3, in another thread of this process."""

from __future__ import annotations

import pickle
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import fs

from umbel.data import datasink, datasource
from umbel.data._sinks import base
from umbel.data._sinks.json import JSONDatasink
from umbel.data._sinks.tables import CSVDatasink, ParquetDatasink
from umbel.data._sources.csv import CSVDatasource
from umbel.data._sources.json import JSONDatasource
from umbel.data._sources.parquet import ParquetDatasource

moto_server = pytest.importorskip("moto.server", reason="needs moto[server]")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint: str, request: pytest.FixtureRequest) -> tuple[fs.S3FileSystem, str]:
    """A file system, and a directory of the test's own."""
    filesystem = fs.S3FileSystem(
        access_key="a",
        secret_key="b",
        endpoint_override=endpoint,
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
    )
    filesystem.create_dir("bucket")
    return filesystem, f"bucket/{abs(hash(request.node.name))}"


def write(sink: datasink.Datasink[Any], *tasks: list[pa.Table]) -> None:
    sink.on_write_start()
    travelled = pickle.dumps(sink)
    results = [
        base.write_task(pickle.loads(travelled), task, datasink.WriteContext(index)) for index, task in enumerate(tasks)
    ]
    sink.on_write_complete(datasink.WriteResult.combine(*results))


def rows(source: datasource.Datasource, parallelism: int = 2) -> list[dict[str, Any]]:
    tasks = [pickle.loads(pickle.dumps(task)) for task in source.get_read_tasks(parallelism)]
    return [row for task in tasks for table in task() for row in table.to_pylist()]


TABLE = pa.table({"id": range(6), "k": ["a", "b"] * 3})


def test_partitions_are_written_read_and_pruned(store: tuple[fs.S3FileSystem, str]) -> None:
    filesystem, path = store
    write(ParquetDatasink(path, filesystem=filesystem, partition_cols=["k"]), [TABLE.slice(0, 4)], [TABLE.slice(4)])
    source = ParquetDatasource(path, filesystem=filesystem)
    assert sorted(rows(source), key=lambda row: int(row["id"])) == TABLE.to_pylist()
    assert source.row_count() == 6
    filtered, _ = source.with_filter((pc.field("k") == "a") & (pc.field("id") > 0))
    assert {len(task.metadata.input_files) for task in filtered.get_read_tasks(1)} == {2}
    assert sorted(row["id"] for row in rows(filtered)) == [2, 4]


def test_a_uri_says_where_the_store_is(
    store: tuple[fs.S3FileSystem, str], endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = store
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    uri = f"s3://{path}?scheme=http&region=us-east-1&endpoint_override={urllib.parse.quote(endpoint, safe='')}"
    write(CSVDatasink(uri), [TABLE])
    assert rows(CSVDatasource(uri)) == TABLE.to_pylist()


def test_files_appear_when_they_are_whole_and_once(store: tuple[fs.S3FileSystem, str]) -> None:
    filesystem, path = store
    sink = JSONDatasink(path, filesystem=filesystem, max_rows_per_file=2)
    sink.on_write_start()

    def dying() -> Iterator[pa.Table]:
        yield TABLE.slice(0, 3)
        assert len(names()) == 1, "the file that has two rows is whole, the other is not there"
        raise OSError("the worker is lost")

    def names() -> list[str]:
        infos = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
        return [info.path for info in infos if info.type == fs.FileType.File]

    with pytest.raises(OSError, match="the worker is lost"):
        sink.write(dying(), datasink.WriteContext(0))
    assert names() == []
    sink.write([TABLE], datasink.WriteContext(0))  # a try that nobody heard of
    heard = base.write_task(sink, [TABLE.slice(0, 4)], datasink.WriteContext(0))
    sink.on_write_complete(heard)
    assert len(names()) == 2
    assert rows(JSONDatasource(path, filesystem=filesystem)) == TABLE.slice(0, 4).to_pylist()


def test_modes_hold(store: tuple[fs.S3FileSystem, str]) -> None:
    filesystem, path = store
    write(ParquetDatasink(path, filesystem=filesystem, mode="error"), [TABLE])
    with pytest.raises(ValueError, match="has 1 files already"):
        write(ParquetDatasink(path, filesystem=filesystem, mode="error"), [TABLE])
    write(ParquetDatasink(path, filesystem=filesystem, mode="overwrite"), [TABLE.slice(0, 1)])
    assert rows(ParquetDatasource(path, filesystem=filesystem)) == TABLE.slice(0, 1).to_pylist()
    failed = ParquetDatasink(path, filesystem=filesystem)
    failed.on_write_start()
    failed.write([TABLE], datasink.WriteContext(0))
    failed.on_write_failed(OSError())
    assert rows(ParquetDatasource(path, filesystem=filesystem)) == TABLE.slice(0, 1).to_pylist()


def test_what_is_not_there_is_named(store: tuple[fs.S3FileSystem, str]) -> None:
    filesystem, path = store
    with pytest.raises(FileNotFoundError, match=r"no file or directory 'bucket/.*/nowhere'"):
        ParquetDatasource(f"s3://{path}/nowhere", filesystem=filesystem)
