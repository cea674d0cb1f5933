"""A process that is killed in the middle of a write, and one that is interrupted in the middle of a run."""

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


INTERRUPTED = """
import os, signal, threading, time
import umbel
from umbel import data

umbel.init(num_cpus=1, log_to_driver=False)

def sleeps(row):
    open("begun", "w").close()
    time.sleep(100)

def interrupt():
    while not os.path.exists("begun"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
try:
    data.range(1).map(sleeps).take_all()
except KeyboardInterrupt:
    print("interrupted")
print(data.range(2).map(lambda row: row).count())
"""


@pytest.mark.slow
def test_interrupt_ends_a_run_whose_functions_are_at_work(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], check=True, timeout=50, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "interrupted\n2\n", done.stderr
