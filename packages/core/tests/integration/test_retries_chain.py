"""A worker that dies amid a chain of tasks that were sent ahead of their arguments."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import umbel


@pytest.mark.parametrize("crash_at", [0, 20, 59])
def test_a_chain_survives_the_death_of_its_worker(tmp_path: Path, crash_at: int) -> None:
    crashed = str(tmp_path / "crashed")

    @umbel.remote
    def step(x: int, end_at: int = -1) -> int:
        if x == end_at and not os.path.exists(crashed):
            with open(crashed, "w"):
                pass
            os._exit(1)
        return x + 1

    with umbel.init(num_cpus=2, log_to_driver=False):
        umbel.get([step.remote(i) for i in range(100)])
        ref = step.remote(0, crash_at)
        for _ in range(59):
            ref = step.remote(ref, crash_at)
        assert umbel.get(ref, timeout=30) == 60
    assert os.path.exists(crashed)
