"""Drivers that are killed in the middle of a write with a checkpoint, and what the next one does."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
WAIT_S = 60.0
FILES, ROWS = 24, 10

PROGRAM = """
import pathlib, sys, time, uuid
import umbel
from umbel import data

base = pathlib.Path(sys.argv[1])

def noted(kind, id):
    (base / "calls" / f"{kind}-{id}-{uuid.uuid4().hex}").touch()

def doubled(row):
    noted("map", row["id"])
    time.sleep(0.002)
    return {"id": row["id"], "x": 2 * row["id"]}

class Adds:
    def __init__(self, what):
        self.what = what
    def __call__(self, batch):
        for id in batch["id"].tolist():
            noted("batch", id)
        time.sleep(0.03)
        batch["y"] = batch["x"] + self.what
        return batch

umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=200 << 20)
ds = data.read_parquet(str(base / "in"), override_num_blocks=24).map(doubled)
ds = ds.map_batches(Adds, fn_constructor_args=(1,), compute=data.ActorPoolStrategy(size=2), batch_size=4)
ds = ds.filter(expr="id != 77")
ds.write_parquet(str(base / "out"), mode="overwrite", checkpoint=str(base / "noted"))
(base / "end").touch()
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name in ("in", "calls"):
        (tmp_path / name).mkdir()
    for number in range(FILES):
        ids = range(number * ROWS, (number + 1) * ROWS)
        pq.write_table(pa.table({"id": ids}), tmp_path / "in" / f"{number:03}.parquet")
    return tmp_path


def begin(base: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(base)])


def kill_when(base: Path, is_time: Callable[[], bool]) -> None:
    process = begin(base)
    deadline = time.monotonic() + WAIT_S
    try:
        while not is_time():
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline
            time.sleep(0.001)  # the driver is not to be in the way of being killed
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def calls(base: Path) -> collections.Counter[tuple[str, int]]:
    names = [name.split("-") for name in os.listdir(base / "calls")]
    return collections.Counter((kind, int(id)) for kind, id, _ in names)


def done_rows(base: Path) -> set[int]:
    """Of the parts that are noted, each of which is a file here."""
    parts = [json.loads(path.read_text())["part"] for path in (base / "noted").glob("_part-*")]
    return {row for part in parts for row in range(part * ROWS, (part + 1) * ROWS)}


def finish(base: Path) -> None:
    assert begin(base).wait(WAIT_S) == 0
    assert (base / "end").exists() and not (base / "noted").exists()


def check_result(base: Path) -> None:
    """All rows once, in order."""
    paths = sorted((base / "out").glob("*.parquet"))
    assert len(paths) == FILES and [one for one in (base / "out").iterdir() if one.name[0] in "._"] == []
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    assert rows == [{"id": id, "x": 2 * id, "y": 2 * id + 1} for id in range(FILES * ROWS) if id != 77]


@pytest.mark.parametrize("seed", range(2))
def test_killed_drivers_lose_no_part_and_none_is_done_twice(base: Path, seed: int) -> None:
    chance = random.Random(seed)
    moments = sorted(chance.sample(range(40, FILES * ROWS - 40), 3))  # in calls of the second function
    before: dict[tuple[str, int], int] = {}
    for moment in moments:
        kill_when(base, lambda moment=moment: len([*(base / "calls").glob("batch-*")]) >= moment)  # type: ignore[misc]
        made = calls(base)
        assert all(made[key] == count for key, count in before.items()), "what was done is done again"
        before = {key: count for key, count in made.items() if key[1] in done_rows(base)}
    assert before, "nothing was done before the driver was killed"
    finish(base)
    check_result(base)
    made = calls(base)
    assert all(made[key] == count for key, count in before.items()), "what was done is done again"
    assert set(made) == {(kind, id) for kind in ("map", "batch") for id in range(FILES * ROWS)}


@pytest.mark.parametrize("seed", range(2))
def test_a_driver_that_is_killed_as_it_puts_files_in_place(base: Path, seed: int) -> None:
    """`overwrite`: what was there before goes, whenever that is."""
    (base / "out").mkdir()
    pq.write_table(pa.table({"old": [1]}), base / "out" / "old.parquet")
    renamed = random.Random(seed).randrange(1, FILES)
    kill_when(base, lambda: len(os.listdir(base / "out")) >= 2 + renamed)
    made = calls(base)
    finish(base)
    check_result(base)
    assert calls(base) == made, "all was done before"
