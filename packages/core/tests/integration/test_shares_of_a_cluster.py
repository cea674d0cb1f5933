"""Programs on several nodes that want more than there is: what they get of all together."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import sys
import time
from collections.abc import Iterator

import drivers
import homes
import pytest

import umbel
from umbel import cluster_utils
from umbel.job_config import JobConfig

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="drivers are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
# It has all nodes to itself, and goes on with short tasks.
OTHER = """
    import os, sys, time, umbel
    from umbel.job_config import JobConfig

    config = JobConfig(weight=float(os.environ["WEIGHT"]))
    umbel.init(address=os.environ["SESSION"], job_config=config, log_to_driver=False)

    @umbel.remote
    def work(path):
        open(os.path.join(path, umbel.get_runtime_context().get_node_id()), "w").close()
        time.sleep(0.02)

    waiting, has_all = [], False
    while not os.path.exists(os.environ["MARKS"] + "/over"):
        waiting += [work.remote(os.environ["MARKS"]) for _ in range(40 - len(waiting))]
        waiting = umbel.wait(waiting, num_returns=8)[1]
        if not has_all and len(os.listdir(os.environ["MARKS"])) == int(os.environ["NODES"]):
            has_all = True
            print(umbel.get_runtime_context().get_job_id(), flush=True)
"""


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[cluster_utils.Cluster]:
    """A head and another node, with as many CPUs each as the parameter says."""
    with homes.own_home():
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": request.param})
        try:
            made.add_node(num_cpus=request.param)
            yield made
        finally:
            umbel.shutdown()
            made.shutdown()


@umbel.remote
def hold(go: str, log: str) -> None:
    """Runs until there is such a file. There is a line in the log when it begins."""
    with open(log, "a") as file:
        file.write("begun\n")
    while not os.path.exists(go):
        time.sleep(0.005)


def begun(log: pathlib.Path) -> int:
    """How many of them have."""
    return log.read_text().count("begun") if log.exists() else 0


def has_begun(log: pathlib.Path, count: int) -> bool:
    return begun(log) >= count


@contextlib.contextmanager
def other_job(node: cluster_utils.ClusterNode, marks: pathlib.Path, *, weight: float, nodes: int = 2) -> Iterator[None]:
    """It is submitted on that node, and has all nodes when this begins. nodes: how many there are."""
    marks.mkdir()
    given = {"SESSION": node.session_dir, "MARKS": str(marks), "WEIGHT": str(weight), "NODES": str(nodes)}
    other = drivers.Driver(OTHER, os.environ["TMPDIR"], **given)
    try:
        other.line()
        yield
    finally:
        (marks / "over").touch()
        other.process.kill()
        other.process.communicate()


@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_a_job_gets_its_share_of_the_cluster_where_it_waits(
    cluster: cluster_utils.Cluster, tmp_path: pathlib.Path
) -> None:
    """Half of each node would be one CPU: but the other job has the other node as well, and gives this one both of its own."""
    (node,) = cluster.worker_nodes
    go, log = tmp_path / "go", tmp_path / "log"
    with other_job(node, tmp_path / "marks", weight=1.0):
        umbel.init(address=cluster.address, log_to_driver=False)
        refs = [hold.remote(str(go), str(log)) for _ in range(3)]
        drivers.wait_until(lambda: begun(log) >= 2, what="both CPUs of the head to be this job's")
        drivers.wait_until(
            lambda: "2 of 4 in the cluster, beside 1 other" in str(umbel.explain(refs[2])),
            what=str(umbel.explain(refs[2])),
        )
        assert begun(log) == 2, "no more than that"
        go.touch()
        umbel.get(refs, timeout=TIMEOUT_S)


@pytest.mark.parametrize("cluster", [4], indirect=True)
def test_jobs_of_two_nodes_share_the_cluster_by_their_weights(
    cluster: cluster_utils.Cluster, tmp_path: pathlib.Path
) -> None:
    """A job of weight 3 on the head has all eight CPUs. One of weight 1 on the other node gets two of them: a quarter of that
    node would be one."""
    head, (node,) = cluster.head_node, cluster.worker_nodes
    assert head is not None
    go, log = tmp_path / "go", tmp_path / "log"
    with other_job(head, tmp_path / "marks", weight=3.0):
        umbel.init(address=node.session_dir, job_config=JobConfig(weight=1.0), log_to_driver=False)
        refs = [hold.remote(str(go), str(log)) for _ in range(4)]
        why = lambda: str(umbel.explain(refs[3]))  # noqa: E731
        is_shared = lambda: begun(log) == 2 and "2 of 8 in the cluster, beside 1 other (weight 1 of 4)" in why()  # noqa: E731
        drivers.wait_until(is_shared, what="a quarter of the cluster to be this job's")
        drivers.wait_until(
            lambda: umbel.available_resources().get("CPU", 0.0) == 0.0, what="the rest to be the other's"
        )
        assert begun(log) == 2, "no more than that"
        go.touch()
        umbel.get(refs, timeout=TIMEOUT_S)


@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_a_job_gets_its_share_of_full_nodes_though_it_waits_on_one_of_them(
    cluster: cluster_utils.Cluster, tmp_path: pathlib.Path
) -> None:
    """A job has four nodes of one CPU. Of its driver's node alone another one would get one CPU. With three times the weight
    it gets three; with a higher priority, all."""
    head = cluster.head_node
    assert head is not None
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    with other_job(head, tmp_path / "marks", weight=1.0, nodes=4):
        for config, share in ((JobConfig(weight=3.0), 3), (JobConfig(priority=1), 4)):
            umbel.init(address=next(iter(cluster.worker_nodes)).session_dir, job_config=config, log_to_driver=False)
            go, log = tmp_path / f"go{share}", tmp_path / f"log{share}"
            refs = [hold.remote(str(go), str(log)) for _ in range(6)]
            drivers.wait_until(functools.partial(has_begun, log, share), what=f"{share} of 4 CPUs to be this job's")
            assert begun(log) <= share + 1, (
                "no more than that, and what two nodes give that have both drawn for the last one"
            )
            go.touch()
            umbel.get(refs, timeout=TIMEOUT_S)
            umbel.shutdown()


@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_a_job_with_a_node_of_its_own_gets_its_share_of_those_of_another(
    cluster: cluster_utils.Cluster, tmp_path: pathlib.Path
) -> None:
    """No node has both jobs, and one has a node of four to itself."""
    head = cluster.head_node
    assert head is not None
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    go, log = tmp_path / "go", tmp_path / "log"
    umbel.init(address=next(iter(cluster.worker_nodes)).session_dir, log_to_driver=False)
    refs = [hold.remote(str(go), str(log))]
    drivers.wait_until(lambda: has_begun(log, 1), what="a node to be this job's")
    with other_job(head, tmp_path / "marks", weight=1.0, nodes=3):
        refs += [hold.remote(str(go), str(log)) for _ in range(3)]
        drivers.wait_until(lambda: has_begun(log, 2), what="half of the cluster to be this job's")
        assert begun(log) <= 3, "no more than that, and what two nodes give that have both drawn for the last one"
        go.touch()
        umbel.get(refs, timeout=TIMEOUT_S)
