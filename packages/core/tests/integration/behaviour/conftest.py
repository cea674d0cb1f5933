"""The public behaviour, on every engine: each module here runs once with each."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel import cluster_utils
from umbel._base import token_files

CPUS = 4
POLL_S = 0.01
PATIENCE_S = 20.0  # for what must happen; only a failing test waits so long


@pytest.fixture(scope="module", params=["native", "inline", "remote"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """remote: the native engine of a program without a node, at a cluster of one."""
    umbel.shutdown()
    if request.param == "remote":
        with remote_cluster():
            yield request.param
        return
    umbel.init(num_cpus=CPUS, engine=request.param, log_to_driver=False, object_store_memory=200 << 20)
    yield request.param
    umbel.shutdown()


@contextlib.contextmanager
def remote_cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))  # what the program can import
        cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": CPUS, "object_store_memory": 200 << 20}
        )
        patched.setenv(token_files.FILE_VARIABLE, cluster.token_file)
        try:
            umbel.init(f"umbel://{cluster.address}", log_to_driver=False)
            yield
        finally:
            umbel.shutdown()
            cluster.shutdown()


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Polls a condition until it holds."""

    def poll(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (value := condition()):
            assert time.monotonic() < deadline, "the condition never held"
            # Any call lets the inline engine go on; the wait is for the native one.
            umbel.wait([umbel.put(None)])
            threading.Event().wait(POLL_S)
        return value

    return poll


@pytest.fixture
def signal() -> Any:
    """An actor to hold tasks back: wait() returns once send() was called."""

    class Signal:
        def __init__(self) -> None:
            import asyncio

            self._event = asyncio.Event()

        async def wait(self) -> bool:
            return await self._event.wait()

        async def send(self) -> None:
            self._event.set()

    return umbel.remote(num_cpus=0)(Signal).remote()


@pytest.fixture
def marks(tmp_path: Path) -> Any:
    """A list in a file, for tasks in any process; survives crashes."""
    path = str(tmp_path / "marks")

    class Marks:
        def add(self, word: object = "x") -> int:
            with open(path, "a") as file:
                file.write(f"{word}\n")
            return len(self.all())

        def all(self) -> list[str]:
            try:
                with open(path) as file:
                    return file.read().split()
            except FileNotFoundError:
                return []

    return Marks()
