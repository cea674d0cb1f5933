"""Reading and writing in an object store: moto's S3, in another process, as some libraries hold Python's lock while they wait."""

from __future__ import annotations

import collections
import os
import pathlib
import pickle
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from umbel import data
from umbel.data import datasink, datasource
from umbel.data._sinks import base
from umbel.data._sinks.json import JSONDatasink
from umbel.data._sinks.tables import CSVDatasink, ParquetDatasink
from umbel.data._sources.csv import CSVDatasource
from umbel.data._sources.json import JSONDatasource
from umbel.data._sources.parquet import ParquetDatasource

pytest.importorskip("flask_cors", reason="moto's server needs Flask")
pytest.importorskip("moto.server", reason="needs moto[s3]")


SERVER = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # which ends when whoever started this does, however that ends
server.stop()
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    program = [sys.executable, "-c", SERVER]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"127.0.0.1:{int(server.stdout.readline())}"
        server.communicate(timeout=20)


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


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "arrow", "orc", "tfrecords", "webdataset"])
def test_every_format_is_written_and_read(store: tuple[fs.S3FileSystem, str], kind: str) -> None:
    filesystem, path = store
    table = TABLE if kind != "webdataset" else pa.table({"__key__": list("abcdef"), "txt": list("üvwxyz")})
    ds = data.from_arrow(table)
    getattr(ds, f"write_{kind}")(path, filesystem=filesystem, max_rows_per_file=4)
    read = getattr(data, f"read_{kind}")
    options = {"schema": table.schema} if kind in ("tfrecords", "webdataset") else {}
    found = read(f"s3://{path}", filesystem=filesystem, **options)
    assert found.select_columns(table.column_names).take_all() == table.to_pylist()
    assert len(found.input_files()) == 2
    getattr(ds.limit(1), f"write_{kind}")(path, filesystem=filesystem, mode="overwrite")
    assert read(path, filesystem=filesystem, **options).count() == 1


@pytest.fixture
def options(endpoint: str) -> dict[str, str]:
    """What the libraries of Delta and Lance call where the store is."""
    return {
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
        "aws_region": "us-east-1",
        "aws_endpoint": f"http://{endpoint}",
        "aws_allow_http": "true",
    }


def test_a_delta_table(store: tuple[fs.S3FileSystem, str], options: dict[str, str]) -> None:
    pytest.importorskip("deltalake")
    filesystem, path = store
    uri = f"s3://{path}"
    ds = data.from_arrow(TABLE)
    ds.write_delta(uri, partition_by=["k"], storage_options=options, filesystem=filesystem)
    ds.limit(1).write_delta(uri, storage_options=options, filesystem=filesystem)
    read = data.read_delta(uri, storage_options=options, filesystem=filesystem)
    assert read.sort("id").take_all() == [TABLE.to_pylist()[0], *TABLE.to_pylist()]
    first = data.read_delta(uri, 0, storage_options=options, filesystem=filesystem)
    assert first.filter(expr="k == 'b' and id > 1").sort("id").take_all() == [{"id": 3, "k": "b"}, {"id": 5, "k": "b"}]


def test_a_lance_dataset(store: tuple[fs.S3FileSystem, str], options: dict[str, str]) -> None:
    pytest.importorskip("lance")
    uri = f"s3://{store[1]}.lance"
    data.from_arrow(TABLE).write_lance(uri, storage_options=options)
    data.from_arrow(TABLE.slice(0, 1)).write_lance(uri, storage_options=options, mode="append")
    assert data.read_lance(uri, storage_options=options).sort("id").count() == 7
    assert data.read_lance(uri, version=1, storage_options=options).take_all() == TABLE.to_pylist()


def test_an_iceberg_table(store: tuple[fs.S3FileSystem, str], endpoint: str, tmp_path: pathlib.Path) -> None:
    sql = pytest.importorskip("pyiceberg.catalog.sql")
    pytest.importorskip("sqlalchemy")
    catalog = {
        "name": "c",
        "type": "sql",
        "uri": f"sqlite:///{tmp_path}/c.db",
        "warehouse": f"s3://{store[1]}",
        "s3.endpoint": f"http://{endpoint}",
        "s3.access-key-id": "a",
        "s3.secret-access-key": "b",
        "s3.region": "us-east-1",
    }
    made = sql.SqlCatalog(**catalog)
    made.create_namespace("n")
    made.create_table("n.t", schema=TABLE.schema)
    data.from_arrow(TABLE).write_iceberg("n.t", catalog_kwargs=catalog)
    new = pa.table({"id": [0, 9], "k": ["new"] * 2})
    data.from_arrow(new).write_iceberg(
        "n.t", catalog_kwargs=catalog, mode="upsert", upsert_kwargs={"join_cols": ["id"]}
    )
    read = data.read_iceberg(table_identifier="n.t", catalog_kwargs=catalog)
    assert read.filter(expr="k == 'new'").sort("id").take_all() == new.to_pylist()
    assert read.count() == 7


FILES, ROWS = 12, 10
WRITER = """
import pathlib, sys, time, uuid
import umbel
from pyarrow import fs
from umbel import data
from umbel.data.checkpoint import CheckpointConfig

endpoint, path, calls = sys.argv[1:]
store = fs.S3FileSystem(access_key="a", secret_key="b", endpoint_override=endpoint, scheme="http", region="us-east-1")

def doubled(row):
    (pathlib.Path(calls) / f"{row['id']}-{uuid.uuid4().hex}").touch()
    time.sleep(0.02)
    return {"id": row["id"], "x": 2 * row["id"]}

umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=200 << 20)
ds = data.read_parquet(f"{path}/in", filesystem=store, override_num_blocks=12).map(doubled)
noted = CheckpointConfig(checkpoint_path=f"{path}/noted", override_filesystem=store)
ds.write_parquet(f"{path}/out", filesystem=store, checkpoint=noted)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_write_with_a_checkpoint_goes_on_after_its_driver_was_killed(
    store: tuple[fs.S3FileSystem, str], endpoint: str, tmp_path: pathlib.Path
) -> None:
    filesystem, path = store
    ids = pa.table({"id": range(FILES * ROWS)})
    write(ParquetDatasink(f"{path}/in", filesystem=filesystem, max_rows_per_file=ROWS), [ids])

    def names(directory: str) -> list[str]:
        selector = fs.FileSelector(f"{path}/{directory}", recursive=True, allow_not_found=True)
        return [one.path for one in filesystem.get_file_info(selector) if one.type == fs.FileType.File]

    def calls() -> collections.Counter[int]:
        return collections.Counter(int(name.split("-")[0]) for name in os.listdir(tmp_path))

    def noted() -> list[str]:
        return [name for name in names("noted") if "_part-" in name]

    program = [sys.executable, "-c", WRITER, endpoint, path, str(tmp_path)]
    with subprocess.Popen(program) as driver:
        deadline = time.monotonic() + 60.0
        while len(noted()) < 3:
            assert time.monotonic() < deadline and driver.poll() is None, "it noted nothing"
            time.sleep(0.02)  # another process tells nobody
        driver.kill()
    before, done = calls(), len(noted())
    assert 3 <= done < FILES
    assert subprocess.run(program, check=False, timeout=120).returncode == 0
    found = [row for name in sorted(names("out")) for row in pq.read_table(name, filesystem=filesystem).to_pylist()]
    assert sorted(row["id"] for row in found) == [*range(FILES * ROWS)]
    assert all(row["x"] == 2 * row["id"] for row in found)
    assert names("noted") == []
    assert len([one for one, count in calls().items() if count == before[one]]) >= done * ROWS, (
        "what was done is not done again"
    )
