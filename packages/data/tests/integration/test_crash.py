"""A process that is killed in the middle of a write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from umbel.data import datasink
from umbel.data._sinks.tables import ParquetDatasink
from umbel.data._sources import listing

PROGRAM = """
import os, sys
import pyarrow as pa
from umbel.data import datasink
from umbel.data._sinks.tables import CSVDatasink, ParquetDatasink

def blocks():
    yield pa.table({"id": range(1000)})
    if sys.argv[2] == "task":
        os._exit(1)

sink = {"parquet": ParquetDatasink, "csv": CSVDatasink}[sys.argv[3]](sys.argv[1], max_rows_per_file=600)
sink.on_write_start()
sink.write(blocks(), datasink.WriteContext(0))
os._exit(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["task", "driver"])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_killed_process_leaves_nothing_that_a_reader_sees(tmp_path: Path, where: str, kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path), where, kind], check=False, timeout=60)
    assert done.returncode == 1
    assert [path.name.startswith(".umbel-") for path in tmp_path.iterdir()] == [True], "it had begun"
    sink = ParquetDatasink(str(tmp_path), mode="error")
    assert listing.visible_files(sink.path, sink._filesystem) == []
    sink.on_write_start()  # which would refuse to write where files are
    sink.on_write_complete(datasink.WriteResult(1, 8, [sink.write([pa.table({"id": [1]})], datasink.WriteContext(0))]))
    assert len(listing.visible_files(sink.path, sink._filesystem)) == 1
