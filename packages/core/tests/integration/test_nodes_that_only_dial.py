"""Nodes that listen nowhere: they are reached by connections that they make themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator

import drivers
import homes
import pytest
from click import testing

import umbel
from umbel import cluster_utils
from umbel._client import tool
from umbel.cli import cluster as cli_cluster
from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy

TIMEOUT_S = 60
SIZE = 3 << 20
THERE, HERE = {"there": 4}, {"here": 4}


@pytest.fixture(scope="module")
def cluster() -> Iterator[cluster_utils.Cluster]:
    """A head, and two nodes that listen nowhere."""
    with homes.own_home():
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        for resources in (THERE, HERE):
            made.add_node(num_cpus=2, resources=resources, listens=False)
        yield made
        made.shutdown()


@pytest.fixture
def there(cluster: cluster_utils.Cluster) -> cluster_utils.ClusterNode:
    return _with(cluster, "there")


def _with(cluster: cluster_utils.Cluster, resource: str) -> cluster_utils.ClusterNode:
    with tool.Tool(cluster.head_node.session_dir) as asker:  # type: ignore[union-attr]  # there is one
        (node_id,) = [one["node_id"] for one in asker.query("nodes") if resource in one["resources"]]
    return next(node for node in cluster.worker_nodes if node.node_id == node_id)


def _reached(session: str) -> dict[str, str]:
    with tool.Tool(session) as asker:
        return {one["node_id"]: one["reached"] for one in asker.query("nodes") if one.get("reached")}


def _uses_there(node_id: str) -> None:
    """A task, a large value from there, one to there, and an actor."""

    @umbel.remote(resources={"there": 1}, max_retries=0)
    def makes() -> tuple[str, bytes]:
        return umbel.get_runtime_context().get_node_id(), bytes(range(256)) * (SIZE // 256)

    @umbel.remote(resources={"there": 1}, max_retries=0)
    def checksum(data: bytes) -> int:
        return zlib.crc32(data)

    @umbel.remote(resources={"there": 1})
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self) -> int:
            self.count += 1
            return self.count

    where, data = umbel.get(makes.remote(), timeout=TIMEOUT_S)
    assert (where, len(data)) == (node_id, SIZE)
    assert umbel.get(checksum.remote(umbel.put(data)), timeout=TIMEOUT_S) == zlib.crc32(data)
    counter = Counter.remote()
    assert umbel.get([counter.add.remote() for _ in range(3)], timeout=TIMEOUT_S) == [1, 2, 3]


def test_it_listens_nowhere(cluster: cluster_utils.Cluster, there: cluster_utils.ClusterNode) -> None:
    assert there.address == "127.0.0.1:0"
    listening = (
        [line.split() for line in open("/proc/net/tcp").read().splitlines()[1:]] if sys.platform == "linux" else []
    )
    own = (
        {os.readlink(f"/proc/{there.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{there.pid}/fd")}
        if listening
        else set()
    )
    assert not [one for one in listening if one[3] == "0A" and f"socket:[{one[9]}]" in own]


def test_a_program_of_the_head_uses_it(cluster: cluster_utils.Cluster, there: cluster_utils.ClusterNode) -> None:
    head = cluster.head_node
    assert head is not None
    with umbel.init(address=head.session_dir):
        _uses_there(there.node_id)
    assert _reached(head.session_dir)[there.node_id] == "by connections that it makes itself"


def test_a_program_of_another_such_node_uses_it_through_the_head(
    cluster: cluster_utils.Cluster, there: cluster_utils.ClusterNode
) -> None:
    here = _with(cluster, "here")
    with umbel.init(address=here.session_dir):
        _uses_there(there.node_id)
    assert _reached(here.session_dir)[there.node_id] == "through the head"
    told = subprocess.run(
        [sys.executable, "-m", "umbel.cli", "status", "--session", here.session_dir],
        check=False,
        capture_output=True,
        text=True,
    )
    assert f"Node {there.node_id[:8]} (at 127.0.0.1, where it listens nowhere, reached through the head)" in told.stdout
    assert f"Node {here.node_id[:8]} ({os.path.basename(here.session_dir)}, listens nowhere)" in told.stdout


def test_a_program_without_a_node_uses_it(
    cluster: cluster_utils.Cluster, there: cluster_utils.ClusterNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMBEL_TOKEN_FILE", cluster.token_file)
    with umbel.init(f"umbel://{cluster.address}"):
        _uses_there(there.node_id)


def test_it_runs_programs_whose_values_other_nodes_read(cluster: cluster_utils.Cluster) -> None:
    @umbel.remote
    def read(data: bytes) -> int:
        return zlib.crc32(data)

    here = _with(cluster, "here")
    with umbel.init(address=here.session_dir):
        value = umbel.put(bytes(SIZE))
        places = [NodeAffinitySchedulingStrategy(one["NodeID"], soft=False) for one in umbel.nodes()]
        reads = [read.options(scheduling_strategy=place).remote(value) for place in places]
        assert umbel.get(reads, timeout=TIMEOUT_S) == [zlib.crc32(bytes(SIZE))] * 3


def test_whoever_it_meets_at_the_head_is_met_again_when_what_connects_them_dies(
    cluster: cluster_utils.Cluster, there: cluster_utils.ClusterNode
) -> None:
    @umbel.remote(resources={"there": 1})
    def where() -> str:
        return umbel.get_runtime_context().get_node_id()

    head = cluster.head_node
    assert head is not None
    with umbel.init(address=_with(cluster, "here").session_dir):
        assert umbel.get(where.remote(), timeout=TIMEOUT_S) == there.node_id
        with tool.Tool(head.session_dir) as asker:
            (forwarder,) = [one["pid"] for one in asker.query("processes") if one["component"] == "forwarder"]
        drivers.kill(forwarder)
        assert umbel.get(where.remote(), timeout=TIMEOUT_S) == there.node_id


@pytest.mark.parametrize(
    "more", [["--head"], ["--address", "127.0.0.1:1", "--port", "5"], ["--address", "a:1", "--host", "b"]]
)
def test_only_a_node_that_joins_and_names_no_place_can_listen_nowhere(more: list[str]) -> None:
    done = testing.CliRunner().invoke(cli_cluster.make_start(), ["--no-listen", *more])
    assert done.exit_code == 1
    assert "--no-listen is for a node that joins" in done.output
