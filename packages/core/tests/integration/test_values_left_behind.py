"""Large results of another node outlive the process that made them, until their owner frees them or ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import drivers
import homes
import pytest

import umbel
from umbel import cluster_utils
from umbel._client import current, tool
from umbel._objects import serialization

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
THERE = {"there": 1}  # a resource that only the other node has
SIZE_BYTES = 1 << 20
OWNER = """
    import os, sys, umbel

    umbel.init(address=os.environ["SESSION"])

    @umbel.remote(resources={"there": 1}, max_retries=0)
    def make():
        return os.getpid(), bytes(1 << 20)

    made = make.remote()
    umbel.wait([made], timeout=60, fetch_local=False)
    print("made", flush=True)
    sys.stdin.readline()
"""


class Nodes:
    """A head with one CPU, of which this process is a driver, and another node with two."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        assert self._cluster.head_node is not None
        self.head = self._cluster.head_node
        self.other = self._cluster.add_node(num_cpus=2, resources={"there": 4}, object_store_memory=80_000_000)
        self._cluster.connect()

    def file(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def query(self, what: str) -> Any:
        """Of the other node."""
        with tool.Tool(self.other.session_dir) as asker:
            return asker.query(what)

    def kill_workers(self) -> None:
        """All of the other node, and wait until its daemon knows."""
        killed = {one["pid"] for one in self.query("workers")}
        for pid in killed:
            drivers.kill(pid)
        drivers.wait_until(lambda: not killed & {one["pid"] for one in self.query("workers")}, what="their end")

    def kept(self) -> list[str]:
        """The large values in the other node's store."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(f"/dev/shm/umbel-{os.getuid()}-{os.path.basename(self.other.session_dir)}"):
                with contextlib.suppress(FileNotFoundError):  # files go while they are looked at
                    if "." in entry.name and entry.stat().st_size >= SIZE_BYTES:
                        found.append(entry.name)
        return found

    def used_bytes(self) -> int:
        store = self.query("store")
        return int(store["capacity_bytes"] - store["free_bytes"])

    def end(self) -> None:
        umbel.shutdown()
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with homes.own_home() as home:
        made = Nodes(home)
        try:
            yield made
        finally:
            made.end()


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    drivers.wait_until(lambda: not cluster.kept(), what="values of the test before to go")
    return cluster


def get(reference: Any) -> Any:
    return umbel.get(reference, timeout=TIMEOUT_S)


@umbel.remote(resources=THERE, max_retries=0)
def makes(path: str, letter: bytes = b"x") -> bytes:
    with open(path, "a") as file:
        file.write("ran\n")
    return letter * SIZE_BYTES


@umbel.remote(resources=THERE)
def looks(data: bytes) -> tuple[int, bytes]:
    return len(data), data[:1]


def test_a_result_outlives_the_process_that_made_it(nodes: Nodes) -> None:
    """It is read here and there, by tasks too, without being computed again, and goes when it is freed."""
    before = nodes.used_bytes()
    path = nodes.file("runs")
    made = makes.remote(path)
    umbel.wait([made], timeout=TIMEOUT_S, fetch_local=False)
    nodes.kill_workers()
    assert nodes.used_bytes() - before >= SIZE_BYTES  # it counts
    assert get(looks.remote(made)) == (SIZE_BYTES, b"x")
    assert get(made) == b"x" * SIZE_BYTES
    with open(path) as file:
        assert file.read() == "ran\n"
    del made
    drivers.wait_until(lambda: not nodes.kept(), what="the value to go")
    drivers.wait_until(lambda: nodes.used_bytes() == before, what="its room to be free")


def test_a_result_that_is_left_goes_with_its_owner(nodes: Nodes) -> None:
    owner = drivers.Driver(OWNER, nodes.directory, SESSION=nodes.head.session_dir)
    try:
        assert owner.line() == "made"
        nodes.kill_workers()
        assert len(nodes.kept()) == 1
        owner.kill()
        drivers.wait_until(lambda: not nodes.kept(), what="the value to go")
    finally:
        owner.end()


def test_a_value_of_which_its_owner_never_heard_goes(nodes: Nodes) -> None:
    """Its maker has died between writing it and saying so."""

    @umbel.remote(resources=THERE, max_retries=0)
    def writes_and_dies(owner: bytes, path: str) -> None:
        values = current.running_engine().values
        values.write(serialization.serialize(bytes(SIZE_BYTES)), owner)
        with open(path, "w"):
            os._exit(1)

    path = nodes.file("written")
    kept = makes.remote(nodes.file("runs of another"), b"k")
    umbel.wait([kept], timeout=TIMEOUT_S, fetch_local=False)
    failed = writes_and_dies.remote(current.running_engine().process_id, path)
    with pytest.raises(umbel.exceptions.WorkerCrashedError):
        get(failed)
    assert os.path.exists(path)
    nodes.kill_workers()
    drivers.wait_until(lambda: len(nodes.kept()) == 1, what="what nobody needs to go")
    assert get(kept)[:1] == b"k"


def test_results_on_disk_outlive_the_process_that_made_them(nodes: Nodes) -> None:
    @umbel.remote(resources=THERE, max_retries=0)
    def makes_large(number: int) -> bytes:
        return bytes([number]) * 20_000_000

    made = [makes_large.remote(number) for number in range(5)]  # more than the store takes
    umbel.wait(made, num_returns=5, timeout=TIMEOUT_S, fetch_local=False)
    assert nodes.query("store")["spilled_files"]
    nodes.kill_workers()
    for number in range(5):
        read = get(made[number])
        assert (len(read), read[:1], read[-1:]) == (20_000_000, bytes([number]), bytes([number]))
        del read
    del made
    drivers.wait_until(lambda: not nodes.query("store")["spilled_files"], what="the files to go")
