"""What is left of large values when the node that they lie on is killed, and what is computed again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import drivers
import homes
import pytest

import umbel
from umbel import cluster_utils, exceptions
from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
SIZE_BYTES = 1 << 20


class Nodes:
    """A head, of which this process is a driver, and two other nodes. directory: for files of tests."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        assert self.cluster.head_node is not None
        self.head = self.cluster.head_node
        self.lost, self.other = (self.cluster.add_node(num_cpus=2) for _ in range(2))
        self.cluster.connect()

    def file(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def kill(self) -> None:
        """The node `lost`, and wait until it is known to be dead."""
        self.cluster.remove_node(self.lost, allow_graceful=False)
        drivers.wait_until(
            lambda: not next(one for one in umbel.nodes() if one["NodeID"] == self.lost.node_id)["Alive"],
            what="its death to be known",
        )


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with homes.own_home(UMBEL_NODE_RECONNECT_S="0.5") as home:
        made = Nodes(home)
        try:
            yield made
        finally:
            umbel.shutdown()
            made.cluster.shutdown()


def get(reference: Any) -> Any:
    return umbel.get(reference, timeout=TIMEOUT_S)


def on(node: cluster_utils.ClusterNode, *, soft: bool = False) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.node_id, soft=soft)


@umbel.remote
def follows(path: str, number: int, before: bytes) -> bytes:
    with open(path, "a") as file:
        file.write(f"{number}\n")
    return bytes([before[0] + 1 if before else 1]) * SIZE_BYTES


@umbel.remote
def first(data: bytes) -> int:
    return data[0]


def chain(nodes: Nodes, path: str) -> list[Any]:
    """Of five values, by turns on the node that will be lost and on the other one."""
    values: list[Any] = []
    for number in range(1, 6):
        home = on(nodes.lost if number % 2 else nodes.other, soft=True)
        before = values[-1] if values else b""
        values.append(follows.options(scheduling_strategy=home).remote(path, number, before))
    umbel.wait(values, num_returns=5, timeout=TIMEOUT_S, fetch_local=False)
    return values


def runs(path: str) -> list[int]:
    with open(path) as file:
        return sorted(map(int, file))


def test_a_chain_of_which_only_the_end_is_held_is_computed_again_from_its_beginning(nodes: Nodes) -> None:
    path = nodes.file("runs")
    last = chain(nodes, path)[-1]
    nodes.kill()
    assert get(last) == bytes([5]) * SIZE_BYTES
    assert runs(path) == sorted([1, 2, 3, 4, 5] * 2)


def test_what_lies_elsewhere_or_has_a_copy_there_is_not_computed_again(nodes: Nodes) -> None:
    """The second and the fourth task were on the other node, and had the values before theirs copied to it."""
    path = nodes.file("runs")
    values = chain(nodes, path)
    nodes.kill()
    assert [get(value)[0] for value in values] == [1, 2, 3, 4, 5]
    assert runs(path) == [1, 2, 3, 4, 5, 5]


def test_a_copy_on_a_third_node_does_for_a_value_that_may_not_be_computed_again(nodes: Nodes) -> None:
    value = follows.options(scheduling_strategy=on(nodes.lost), max_retries=0).remote(nodes.file("runs"), 1, b"")
    assert get(first.options(scheduling_strategy=on(nodes.other)).remote(value)) == 1
    nodes.kill()
    assert get(value) == bytes([1]) * SIZE_BYTES


def test_what_cannot_be_computed_again_says_why(nodes: Nodes) -> None:
    there = on(nodes.lost)
    begun = nodes.file("begun")

    @umbel.remote(scheduling_strategy=there)
    def puts() -> list[Any]:
        return [umbel.put(bytes(SIZE_BYTES))]

    @umbel.remote(scheduling_strategy=there, max_retries=0)
    def runs_on() -> None:
        with open(begun, "w"):
            time.sleep(TIMEOUT_S)

    once = follows.options(scheduling_strategy=there, max_retries=0).remote(nodes.file("runs"), 1, b"")
    (put,) = get(puts.remote())
    needs_it = first.options(scheduling_strategy=on(nodes.other))
    own = umbel.put(bytes(SIZE_BYTES))
    umbel.wait([once], timeout=TIMEOUT_S, fetch_local=False)
    running = runs_on.remote()
    drivers.wait_until(lambda: os.path.exists(begun), what="a task to run")
    nodes.kill()
    with pytest.raises(exceptions.ObjectReconstructionFailedError) as lost:
        get(once)
    assert lost.value.reason == "retries_disabled"
    with pytest.raises(exceptions.ObjectLostError):
        get(needs_it.remote(once))
    with pytest.raises(exceptions.OwnerDiedError):
        get(put)
    with pytest.raises(exceptions.NodeDiedError):
        get(running)
    assert get(needs_it.remote(own)) == 0
