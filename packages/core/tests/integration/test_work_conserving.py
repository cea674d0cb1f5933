"""No task waits while a node that could run it has a CPU free: neither for where its argument lies, nor behind another one."""

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
from umbel import cluster_utils
from umbel._client import current, tool
from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
LARGE_BYTES = 100_000_000


class Nodes:
    """A head with one CPU, of which this process is a driver, and another node with one. directory: for files of tests."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        assert self._cluster.head_node is not None
        self.head = self._cluster.head_node
        self.other = self._cluster.add_node(num_cpus=1)
        self._cluster.connect()

    def on(self, node: cluster_utils.ClusterNode) -> Any:
        return NodeAffinitySchedulingStrategy(node.node_id, soft=False)

    def gate(self, name: str) -> Gate:
        return Gate(os.path.join(self.directory, name))

    def is_idle(self) -> bool:
        for node in (self.head, self.other):
            with tool.Tool(node.session_dir) as asker:
                if any(one["client"] for one in asker.query("workers")):
                    return False
        return True

    def end(self) -> None:
        umbel.shutdown()
        self._cluster.shutdown()


class Gate:
    """What tasks wait for: a file. Each of them says first, by another one, that it has begun."""

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self) -> None:
        open(self.path, "w").close()

    def wait(self, name: str = "") -> None:
        open(f"{self.path}.{name}{os.getpid()}", "w").close()
        until_s = time.monotonic() + TIMEOUT_S
        while not os.path.exists(self.path) and time.monotonic() < until_s:
            time.sleep(0.005)

    def await_begun(self, count: int = 1) -> None:
        """So many wait for it."""
        name, directory = f"{os.path.basename(self.path)}.", os.path.dirname(self.path)
        drivers.wait_until(
            lambda: sum(one.startswith(name) for one in os.listdir(directory)) >= count,
            what=f"{count} tasks to begin at {name}",
            timeout_s=TIMEOUT_S,
        )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with homes.own_home(UMBEL_IDLE_LEASE_S="0.05") as home:  # leases of a task before are not used for the next
        made = Nodes(home)
        try:
            yield made
        finally:
            made.end()


@pytest.fixture
def nodes(cluster: Nodes, tmp_path: Any) -> Iterator[Nodes]:
    cluster.directory = str(tmp_path)
    yield cluster
    drivers.wait_until(cluster.is_idle, what="leases to go back", timeout_s=TIMEOUT_S)


def get(reference: Any) -> Any:
    return umbel.get(reference, timeout=TIMEOUT_S)


@umbel.remote
def where(*_arguments: Any) -> str:
    return umbel.get_runtime_context().get_node_id()


@umbel.remote
def waits(gate: Gate | None, *_arguments: Any) -> str:
    if gate is not None:
        gate.wait()
    return umbel.get_runtime_context().get_node_id()


@umbel.remote(num_cpus=0)
class Answerer:
    """Answers when a gate opens: whoever asks it waits, as the runtime sees it."""

    def answer(self, gate: Gate) -> None:
        gate.wait("actor")


@umbel.remote
def blocks(answerer: Any, answer: Gate, end: Gate) -> str:
    """Waits for an answer, and then goes on until the end."""
    umbel.get(answerer.answer.remote(answer))
    end.wait()
    return umbel.get_runtime_context().get_node_id()


@pytest.mark.parametrize("strategy", ["DEFAULT", "SPREAD"])
def test_a_task_whose_large_argument_lies_at_a_busy_node_runs_at_another(nodes: Nodes, strategy: str) -> None:
    gate, value = nodes.gate("gate"), umbel.put(bytes(LARGE_BYTES))
    running = waits.options(scheduling_strategy=nodes.on(nodes.head)).remote(gate)
    gate.await_begun()
    insists = [where.options(scheduling_strategy=nodes.on(nodes.head)).remote(value) for _ in range(3)]
    for _ in range(3):
        assert get(where.options(scheduling_strategy=strategy).remote(value)) == nodes.other.node_id
    assert umbel.wait(insists, num_returns=3, timeout=0)[0] == []
    gate.open()
    assert get([running, *insists]) == [nodes.head.node_id] * 4


def test_a_task_that_was_sent_behind_one_that_takes_long_runs_elsewhere(nodes: Nodes) -> None:
    """Calls of a quick function are sent ahead, many at a time, until one of them is not."""
    get([waits.remote(None) for _ in range(300)])
    gate = nodes.gate("gate")
    running = waits.remote(gate)
    behind = [waits.remote(None) for _ in range(5)]
    gate.await_begun()
    get(behind)
    gate.open()
    get(running)


@pytest.mark.parametrize("is_large", [False, True])
def test_a_node_that_was_lent_a_cpu_and_has_none_gets_no_more(nodes: Nodes, is_large: bool) -> None:
    """Who waits lends its CPU. When it went on, both leases went on to be used: two tasks at a time shared the head's CPU for as
    long as there were tasks, and the other node had nothing to do."""
    answerer = Answerer.remote()
    elsewhere, answer, end, last = (nodes.gate(name) for name in ("elsewhere", "answer", "end", "last"))
    value = umbel.put(bytes(LARGE_BYTES)) if is_large else None
    busy = waits.options(scheduling_strategy=nodes.on(nodes.other)).remote(elsewhere)
    elsewhere.await_begun()
    lends = blocks.remote(answerer, answer, end)
    answer.await_begun()
    borrows = waits.remote(last)
    last.await_begun()
    answer.open()
    end.await_begun()  # it goes on, beside the one that has its CPU
    leases = current.engine().leases
    drivers.wait_until(
        lambda: any(lease.is_reclaimed for cls in leases.classes.values() for lease in [*cls.leases.values()]),
        what="a lease to be asked back",
        timeout_s=TIMEOUT_S,
    )
    elsewhere.open()
    assert get(busy) == nodes.other.node_id
    end.open()
    assert get(lends) == nodes.head.node_id
    after = waits.remote(last, value)
    last.await_begun(2)
    last.open()
    assert get([borrows, after]) == [nodes.head.node_id, nodes.other.node_id]
