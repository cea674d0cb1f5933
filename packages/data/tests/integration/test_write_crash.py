"""Datasets that are written while workers and drivers are killed: all rows once, or nothing that a reader sees."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pyarrow as pa
import pytest
import write_interrupted
from pyarrow import fs

import umbel
from umbel import data
from umbel.data._sources import listing

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]
WAIT_S = 30.0
each_kind = pytest.mark.parametrize("kind", [*write_interrupted.SINKS])
LIBRARIES = {"delta": "deltalake", "lance": "lance", "iceberg": "pyiceberg.catalog.sql"}


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=200 << 20)
    yield
    umbel.shutdown()


@pytest.fixture(autouse=True)
def _libraries(request: pytest.FixtureRequest) -> None:
    kind = request.getfixturevalue("kind")
    if kind in LIBRARIES:
        pytest.importorskip(LIBRARIES[kind])
    if kind == "iceberg":
        from pyiceberg.catalog import sql

        path = request.getfixturevalue("tmp_path") / "out"
        path.mkdir()
        made = sql.SqlCatalog(**write_interrupted.catalog(str(path)))
        made.create_namespace("n")
        made.create_table("n.t", schema=pa.schema([("id", pa.int64())]))


def ids(kind: str, path: pathlib.Path) -> list[int]:
    if kind == "iceberg":
        catalog = write_interrupted.catalog(str(path))
        read = data.read_iceberg(table_identifier="n.t", catalog_kwargs=catalog)
    else:
        read = getattr(data, f"read_{kind}")(str(path))
    return sorted(row["id"] for row in read.take_all())


def begun(kind: str, path: pathlib.Path) -> bool:
    """There are files that the write has made, none of which is seen yet."""
    if kind == "iceberg":
        return True  # pyiceberg writes a file when it has all of its rows
    ending = {"delta": "parquet"}.get(kind, kind)
    return bool([file for file in path.rglob(f"*.{ending}") if kind in LIBRARIES or ".umbel-" in str(file)])


@each_kind
def test_a_worker_that_dies_in_the_middle_writes_nothing_twice(tmp_path: pathlib.Path, kind: str) -> None:
    path, mark = tmp_path / "out", tmp_path / "died"
    sink = write_interrupted.sink(kind, str(path))
    dying = write_interrupted.Interrupted(sink, write_interrupted.DiesOnce(mark))
    data.range(100, override_num_blocks=2).write_datasink(dying)
    assert mark.exists()
    assert ids(kind, path) == list(range(100))
    assert [name for name in os.listdir(path) if name.startswith(".umbel")] == []


@each_kind
def test_a_driver_that_is_killed_leaves_nothing_that_a_reader_sees(tmp_path: pathlib.Path, kind: str) -> None:
    path, mark = tmp_path / "out", tmp_path / "stands"
    program = [sys.executable, write_interrupted.__file__, kind, str(path), str(mark)]
    with subprocess.Popen(program) as driver:
        deadline = time.monotonic() + WAIT_S
        while not mark.exists():
            assert time.monotonic() < deadline, "it did not begin"
            assert driver.poll() is None, "it did not begin"
            time.sleep(0.02)  # another process tells nobody
        assert begun(kind, path)
        driver.kill()  # whose workers are interrupted then, and may tidy up
    if kind == "iceberg":
        assert ids(kind, path) == []
        data.range(5).write_datasink(write_interrupted.sink(kind, str(path)))
        assert ids(kind, path) == list(range(5))
        return
    if kind in LIBRARIES:
        with pytest.raises(Exception, match=r"(?i)no files in log|not found|no such|does not exist|not a delta"):
            ids(kind, path)
    else:
        assert listing.visible_files(str(path), fs.LocalFileSystem()) == []
    getattr(data.range(5), f"write_{kind}")(str(path), mode="create")  # which refuses where something is
    assert ids(kind, path) == list(range(5))
