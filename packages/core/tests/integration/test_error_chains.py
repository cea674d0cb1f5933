"""Long chains of tasks, of which the first one fails when all of them wait for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drivers
import pytest

import umbel

LENGTH = 3_000  # a few frames each would be more than the interpreter's stack


@pytest.fixture(autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=1)
    yield
    umbel.shutdown()


@umbel.remote
def fails(fifo: str) -> None:
    with open(fifo) as file:
        file.read()
    raise ValueError("the first one")


@umbel.remote
def passes(value: Any) -> Any:
    return value


@umbel.remote
class Passing:
    def passes(self, value: Any) -> Any:
        return value


def test_all_fail_that_wait_for_one_that_fails(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    actor = Passing.remote()
    ref = last = fails.remote(str(fifo))
    for number in range(LENGTH):
        last = actor.passes.remote(last) if number % 10 == 0 else passes.remote(last)
    fifo.write_text("")
    with pytest.raises(ValueError, match="the first one"):
        umbel.get(last, timeout=drivers.PATIENCE_S)
    with pytest.raises(ValueError, match="the first one"):
        umbel.get(ref, timeout=drivers.PATIENCE_S)
    assert umbel.get(passes.remote(1), timeout=drivers.PATIENCE_S) == 1


def test_a_session_ends_though_many_wait_for_one_another(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    last = fails.remote(str(fifo))
    for _ in range(LENGTH):
        last = passes.remote(last)
    umbel.shutdown()
