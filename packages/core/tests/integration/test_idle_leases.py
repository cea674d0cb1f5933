"""Leases that a process keeps though nothing runs there, in case more comes."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Iterator

import drivers
import pytest

import umbel

pytestmark = pytest.mark.slow
OTHER = {"memory": 1 << 20}  # of other tasks: no lease is for both


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("UMBEL_IDLE_LEASE_S", "600")
    umbel.init(num_cpus=2, log_to_driver=False)
    yield
    umbel.shutdown()


@umbel.remote
def quick() -> int:
    return 1


@umbel.remote
def held_up(begun: pathlib.Path, gate: pathlib.Path) -> int:
    begun.touch()
    while not gate.exists():
        time.sleep(0.005)
    return 2


def test_an_idle_lease_goes_back_when_other_tasks_of_the_same_process_wait(tmp_path: pathlib.Path) -> None:
    """The node takes a lone lease of one kind of tasks from nobody who has one of another, and cannot know that it is idle.
    Before: they waited until it was not kept any more, by default half a second."""
    assert umbel.get(quick.remote(), timeout=30) == 1
    running = held_up.options(**OTHER).remote(tmp_path / "begun", tmp_path / "gate")
    drivers.wait_until((tmp_path / "begun").exists)
    assert umbel.get(quick.options(**OTHER).remote(), timeout=30) == 1
    (tmp_path / "gate").touch()
    assert umbel.get(running, timeout=30) == 2
