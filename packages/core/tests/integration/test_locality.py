"""Tasks run where most bytes of their large arguments are, while there is room."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import drivers
import homes
import pytest

import umbel
from umbel import cluster_utils
from umbel._client import tool

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
LARGE_BYTES = 100_000_000
SMALL_BYTES = 1 << 20  # stored, and not worth a way


class Nodes:
    """A head with two CPUs, of which this process is a driver, and another node with one."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._cluster = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"here": 9}}
        )
        assert self._cluster.head_node is not None
        self.head = self._cluster.head_node
        self.other = self._cluster.add_node(num_cpus=1, resources={"there": 9})
        self._cluster.connect()

    def query(self, node: cluster_utils.ClusterNode, what: str) -> Any:
        with tool.Tool(node.session_dir) as asker:
            return asker.query(what)

    def used_bytes(self, node: cluster_utils.ClusterNode) -> int:
        store = self.query(node, "store")
        return int(store["capacity_bytes"] - store["free_bytes"])

    def are_idle(self) -> bool:
        workers = [one for node in (self.head, self.other) for one in self.query(node, "workers")]
        return not any(one["client"] for one in workers)

    @contextlib.contextmanager
    def busy(self, resource: str) -> Iterator[None]:
        """One CPU of the node with this resource is in use meanwhile."""
        path = os.path.join(self.directory, f"busy {resource}")
        waiting = waits.options(resources={resource: 1}).remote(path)
        drivers.wait_until(lambda: os.path.exists(f"{path}.begun"), what="a task to run")
        try:
            yield
        finally:
            with open(path, "w"):
                pass
            get(waiting)
            os.unlink(path)
            os.unlink(f"{path}.begun")

    def end(self) -> None:
        umbel.shutdown()
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with homes.own_home(UMBEL_IDLE_LEASE_S="0.05") as home:  # leases of a task before are not used for the next
        made = Nodes(home)
        try:
            yield made
        finally:
            made.end()


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    drivers.wait_until(cluster.are_idle, what="all leases to be back")
    return cluster


def get(reference: Any) -> Any:
    return umbel.get(reference, timeout=TIMEOUT_S)


def made(reference: Any, nodes: Nodes) -> Any:
    """Once it is there, and nothing is leased any more."""
    umbel.wait([reference], timeout=TIMEOUT_S, fetch_local=False)
    drivers.wait_until(nodes.are_idle, what="all leases to be back")
    return reference


@umbel.remote
def makes(size_bytes: int) -> bytes:
    return bytes(size_bytes)


@umbel.remote
def where(*values: bytes) -> str:
    return umbel.get_runtime_context().get_node_id()


@umbel.remote
def waits(path: str) -> None:
    with open(f"{path}.begun", "w"):
        pass
    until_s = time.monotonic() + TIMEOUT_S
    while not os.path.exists(path) and time.monotonic() < until_s:
        time.sleep(0.01)


def test_a_task_runs_where_its_large_argument_is_and_elsewhere_when_that_node_is_full(nodes: Nodes) -> None:
    before = nodes.used_bytes(nodes.head)
    value = made(makes.options(resources={"there": 1}).remote(LARGE_BYTES), nodes)
    assert get(where.remote(value)) == nodes.other.node_id
    assert nodes.used_bytes(nodes.head) == before  # nothing was copied
    with nodes.busy("there"):
        assert get(where.remote(value)) == nodes.head.node_id


def test_a_task_whose_argument_is_computed_elsewhere_follows_it(nodes: Nodes) -> None:
    before = nodes.used_bytes(nodes.head)
    assert get(where.remote(makes.options(resources={"there": 1}).remote(LARGE_BYTES), 1)) == nodes.other.node_id
    assert nodes.used_bytes(nodes.head) == before


def test_most_bytes_decide(nodes: Nodes) -> None:
    for counts, node in (((1, 1), nodes.other), ((2, 1), nodes.head), ((2, 2), nodes.other)):
        here = [umbel.put(bytes(6 << 20)) for _ in range(counts[0])]
        there = [makes.options(resources={"there": 1}).remote(9 << 20) for _ in range(counts[1])]
        assert get(where.remote(*here, *there)) == node.node_id


def test_a_small_argument_draws_nothing(nodes: Nodes) -> None:
    value = made(makes.options(resources={"there": 1}).remote(SMALL_BYTES), nodes)
    assert get(where.remote(value)) == nodes.head.node_id


def test_a_large_argument_of_this_node_keeps_a_task_here(nodes: Nodes) -> None:
    """Half of its CPUs are used, so that others go to the other node."""
    value = umbel.put(bytes(LARGE_BYTES))
    with nodes.busy("here"):
        assert get(where.remote()) == nodes.other.node_id
        assert get(where.remote(value)) == nodes.head.node_id
        assert get(where.options(scheduling_strategy="SPREAD").remote(value)) == nodes.other.node_id


def test_a_node_that_has_a_copy_has_its_bytes(nodes: Nodes) -> None:
    value, other = umbel.put(bytes(30 << 20)), made(makes.options(resources={"there": 1}).remote(20 << 20), nodes)
    assert get(where.options(resources={"there": 1}).remote(value)) == nodes.other.node_id  # from now on it has both
    assert get(where.remote(value, other)) == nodes.other.node_id
