"""What functions and models take of memory is seen, and no more of them are at work at once than fit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umbel
import umbel.data
from umbel.data import context

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]

MIB = 1 << 20
TAKEN = 200 * MIB
LIMIT = 650 * MIB


@pytest.fixture
def session() -> Iterator[None]:
    umbel.init(num_cpus=4, log_to_driver=False, object_store_memory=200 * MIB)
    try:
        yield
    finally:
        umbel.shutdown()


class Presence:
    """Who is at work: a file each, and the most that there were at once."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def enter(self) -> str:
        name = f"{time.monotonic_ns()}-{os.getpid()}"
        open(f"{self.path}/{name}", "w").close()
        count = len([one for one in os.listdir(self.path) if not one.startswith("most")])
        open(f"{self.path}/most-{count}", "w").close()
        return f"{self.path}/{name}"

    @property
    def most(self) -> int:
        return max(int(one.split("-")[1]) for one in os.listdir(self.path) if one.startswith("most"))


def taking(presence: Presence) -> Any:
    def takes(batch: Any) -> Any:
        entered = presence.enter()
        much = np.ones(TAKEN, np.uint8)
        time.sleep(0.2)
        assert much[-1]
        os.unlink(entered)
        return batch

    return takes


def holding(presence: Presence) -> type:
    class Model:
        def __init__(self) -> None:
            presence.enter()
            self.weights = np.ones(TAKEN, np.uint8)

        def __call__(self, batch: Any) -> Any:
            time.sleep(0.2)
            assert self.weights[-1]
            return batch

    return Model


def limited() -> Any:
    found = context.DataContext(local_bytes_max=-1)
    found.execution_options.resource_limits.memory = LIMIT
    return context.DataContext.current(found)


def test_what_a_function_takes_for_a_while_is_seen(session: None, tmp_path: Path) -> None:
    ds = umbel.data.range(8, override_num_blocks=4).map_batches(taking(Presence(tmp_path))).materialize()
    assert TAKEN * 0.9 < ds.stats()["total"]["heap_bytes_max"] < TAKEN * 1.4


def test_no_more_functions_at_once_than_fit(session: None, tmp_path: Path) -> None:
    presence = Presence(tmp_path)
    with limited():
        ds = umbel.data.range(24, override_num_blocks=12)
        ds = ds.map_batches(taking(presence)).map_batches(taking(presence), num_cpus=0.5)
        assert sorted(row["id"] for row in ds.take_all()) == list(range(24))
    assert [one["tasks"] for one in ds.stats()["stages"]][-1] > 3
    assert presence.most == 3


def test_no_more_models_at_once_than_fit(session: None, tmp_path: Path) -> None:
    presence = Presence(tmp_path)
    with limited():
        ds = umbel.data.range(24, override_num_blocks=12)
        ds = ds.map_batches(holding(presence), compute=umbel.data.ActorPoolStrategy(min_size=1, max_size=4))
        assert sorted(row["id"] for row in ds.take_all()) == list(range(24))
    assert TAKEN * 0.9 < ds.stats()["stages"][-1]["actor_bytes_max"] < TAKEN * 1.4
    assert presence.most == 3
