"""Data larger than the store: memory of all processes stays bounded, and the answer is right."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from conftest import MARK

import umbel
import umbel.data
from umbel.util import memory

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

MIB = 1 << 20
ROW_BYTES = 512


class Watch:
    """The most that each process of this run had of memory of its own: what it looks at in the store is the store's."""

    def __init__(self) -> None:
        self._mark = f"{MARK}={os.environ[MARK]}".encode()
        self.most: Counter[int] = Counter()
        self.before = self._own_bytes(os.getpid())

    def look(self) -> None:
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    is_ours = int(name) == os.getpid() or self._mark in file.read().split(b"\0")
                if is_ours:
                    self.most[int(name)] = max(self.most[int(name)], self._own_bytes(int(name)))
            except OSError:  # it has ended meanwhile
                continue

    @staticmethod
    def _own_bytes(pid: int) -> int:
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon:"))

    @property
    def driver_bytes(self) -> int:
        return self.most[os.getpid()] - self.before

    @property
    def worker_bytes(self) -> int:
        return max(size for pid, size in self.most.items() if pid != os.getpid())


@pytest.fixture
def session() -> Iterator[None]:
    umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=200 * MIB)
    try:
        yield
    finally:
        umbel.shutdown()


def widened(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ids = batch["id"]
    return {
        "id": ids,
        "few": ids % 2,
        "key": (ids * 0x5851_F42D_4C95_7F2D) ^ (ids >> 7),
        "data": np.broadcast_to(ids[:, None], (len(ids), ROW_BYTES // 8 - 3)).copy(),
    }


def test_a_stream_to_a_slow_consumer_passes_in_bounded_memory(session: None) -> None:
    """Nothing of it goes to disk, for no more is made than there is room for."""
    rows = 1_000 * MIB // ROW_BYTES
    watch, seen, most_taken = Watch(), 0, 0
    ds = umbel.data.range(rows).map_batches(widened, batch_size=8_192, batch_format="numpy")
    for number, batch in enumerate(ds.iter_batches(batch_size=16_384, batch_format="numpy")):
        assert batch["id"][0] == seen and (batch["data"][:, -1] == batch["id"]).all()
        seen += len(batch["id"])
        time.sleep(0.02)  # slower than all of it is made
        if number % 8 == 0:
            watch.look()
            told = memory.memory_summary(stats_only=True)
            assert "on disk: 0 B" in told
            most_taken = max(most_taken, int(told.split("shared memory: ")[1].split(" B")[0]))
    assert seen == rows
    assert most_taken <= 200 * MIB
    assert watch.driver_bytes < 150 * MIB, watch.most
    assert watch.worker_bytes < 250 * MIB, watch.most


@pytest.mark.parametrize("kind", ["sort", "sort by few values", "random_shuffle", "repartition"])
def test_more_than_the_store_holds_is_exchanged_in_bounded_memory(session: None, kind: str) -> None:
    rows = 400 * MIB // ROW_BYTES
    ds = umbel.data.range(rows).map_batches(widened, batch_size=8_192, batch_format="numpy")
    exchanged = {
        "sort": lambda: ds.sort("key"),
        "sort by few values": lambda: ds.sort("few"),
        "random_shuffle": lambda: ds.random_shuffle(seed=5),
        "repartition": lambda: ds.repartition(40),
    }[kind]()
    watch, ids, last = Watch(), [], None
    for batch in exchanged.iter_batches(batch_size=None, batch_format="numpy"):
        watch.look()
        assert (batch["data"][:, -1] == batch["id"]).all()
        ids.append(batch["id"].copy())
        if kind == "sort":
            assert (batch["key"][1:] >= batch["key"][:-1]).all()
            assert last is None or last <= batch["key"][0]
            last = batch["key"][-1]
    everything = np.concatenate(ids)
    if kind == "sort by few values":
        assert (everything == np.concatenate([np.arange(0, rows, 2), np.arange(1, rows, 2)])).all()
    moved = int((np.diff(everything) != 1).sum())
    assert moved == 0 if kind == "repartition" else moved > rows // 2
    assert (np.sort(everything) == np.arange(rows)).all()
    assert watch.driver_bytes < 150 * MIB, watch.most
    assert watch.worker_bytes < 250 * MIB, watch.most
