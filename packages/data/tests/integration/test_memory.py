"""Data larger than the store: memory of all processes stays bounded, and the answer is right."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from conftest import MARK

import umbel
import umbel.data
from umbel.util import memory

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

MIB = 1 << 20
ROW_BYTES = 512
STORE_BYTES = 200 * MIB
EVERY_S = 0.02  # a block is made in less, but not one of those that would be too much
# Driver, head and two workers, each with Python and PyArrow, what tasks of a ninth of half the store take, and what allocators
# keep. It does not grow with the data.
MOST_BYTES = 600 * MIB


class Watch:
    """The most that each process of this run had of memory of its own, and all of them at one time: what they look at in the
    store is the store's. A thread looks while it is entered."""

    def __init__(self) -> None:
        self._mark = f"{MARK}={os.environ[MARK]}".encode()
        self._ours: dict[int, bool] = {os.getpid(): True}
        self.most: Counter[int] = Counter()
        self.most_at_once = 0
        self.look_count = 0
        self.before = self._own_bytes(os.getpid())
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._is_over.set()
        self._thread.join()
        assert self.look_count > 20, "it was over before there was anything to see"

    def _look_again_and_again(self) -> None:
        while not self._is_over.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        now: Counter[int] = Counter()
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                if self._is_ours(pid):
                    now[pid] = self._own_bytes(pid)
            except OSError:  # it has ended meanwhile
                continue
        self.look_count += 1
        self.most |= now
        self.most_at_once = max(self.most_at_once, sum(now.values()) - self.before)

    def _is_ours(self, pid: int) -> bool:
        if pid not in self._ours:
            with open(f"/proc/{pid}/environ", "rb") as file:
                self._ours[pid] = self._mark in file.read().split(b"\0")
        return self._ours[pid]

    @staticmethod
    def _own_bytes(pid: int) -> int:
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:"))

    def check(self) -> None:
        """Neither the driver nor any other process had much, nor all of them at one time."""
        driver_bytes = self.most[os.getpid()] - self.before
        other_bytes = max(size for pid, size in self.most.items() if pid != os.getpid())
        told = f"driver {driver_bytes >> 20}, most of the others {other_bytes >> 20}, all {self.most_at_once >> 20} MiB"
        assert driver_bytes < 150 * MIB, told
        assert other_bytes < 250 * MIB, told
        assert self.most_at_once < MOST_BYTES, told


@pytest.fixture
def session() -> Iterator[None]:
    umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=STORE_BYTES)
    try:
        yield
    finally:
        umbel.shutdown()


def widened(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ids = batch["id"]
    return {
        "id": ids,
        "few": ids % 2,
        "many": ids % 5_000,
        "key": (ids * 0x5851_F42D_4C95_7F2D) ^ (ids >> 7),
        "data": np.broadcast_to(ids[:, None], (len(ids), ROW_BYTES // 8 - 4)).copy(),
    }


def test_a_stream_to_a_slow_consumer_passes_in_bounded_memory(session: None) -> None:
    """Nothing of it goes to disk, for no more is made than there is room for."""
    rows = 10 * STORE_BYTES // ROW_BYTES
    seen, most_taken = 0, 0
    ds = umbel.data.range(rows).map_batches(widened, batch_size=8_192, batch_format="numpy")
    with Watch() as watch:
        for number, batch in enumerate(ds.iter_batches(batch_size=16_384, batch_format="numpy")):
            assert batch["id"][0] == seen and (batch["data"][:, -1] == batch["id"]).all()
            seen += len(batch["id"])
            time.sleep(0.02)  # slower than all of it is made
            if number % 8 == 0:
                told = memory.memory_summary(stats_only=True)
                assert "on disk: 0 B" in told
                most_taken = max(most_taken, int(told.split("shared memory: ")[1].split(" B")[0]))
    assert seen == rows
    assert most_taken <= STORE_BYTES
    watch.check()


def of_group(group: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"id": group["id"], "data": group["data"]}


KINDS: dict[str, Callable[[umbel.data.Dataset], umbel.data.Dataset]] = {
    "sort": lambda ds: ds.sort("key"),
    "sort by few values": lambda ds: ds.sort("few"),
    "random_shuffle": lambda ds: ds.random_shuffle(seed=5),
    "repartition": lambda ds: ds.repartition(40),
    "map_groups": lambda ds: ds.groupby("many").map_groups(of_group, batch_format="numpy"),
    "join": lambda ds: ds.join(ds.select_columns(["id", "key"]), on="id", right_suffix="_r", broadcast=False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_three_times_what_the_store_holds_is_exchanged_in_bounded_memory(session: None, kind: str) -> None:
    rows = 3 * STORE_BYTES // ROW_BYTES
    ds = umbel.data.range(rows).map_batches(widened, batch_size=8_192, batch_format="numpy")
    exchanged, ids, last = KINDS[kind](ds), [], None
    with Watch() as watch:
        for batch in exchanged.iter_batches(batch_size=None, batch_format="numpy"):
            assert (batch["data"][:, -1] == batch["id"]).all()
            ids.append(batch["id"].copy())
            if kind == "sort":
                assert (batch["key"][1:] >= batch["key"][:-1]).all()
                assert last is None or last <= batch["key"][0]
                last = batch["key"][-1]
    everything = np.concatenate(ids)
    if kind == "sort by few values":
        assert (everything == np.concatenate([np.arange(0, rows, 2), np.arange(1, rows, 2)])).all()
    if kind == "repartition":
        assert (everything == np.arange(rows)).all()
    if kind == "random_shuffle":
        assert (np.diff(everything) != 1).sum() > rows * 0.9
    assert (np.sort(everything) == np.arange(rows)).all()
    watch.check()
