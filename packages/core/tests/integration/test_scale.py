"""A small run of `benchmarks/scale.py`: its head and nodes agree about who is where, and it sees when they do not."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[4]
SMALL = ("--actors=60", "--groups=12", "--tasks=3000", "--keys=30", "--drivers=4", "--window=10", "--leases=40")
LIMIT_S = 120.0  # it takes two seconds


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder `benchmarks` is no part of the wheel."""
    monkeypatch.syspath_prepend(str(ROOT))


def test_a_small_cluster_and_a_larger_one_are_measured_and_nothing_is_wrong(tmp_path: pathlib.Path) -> None:
    program, found = str(ROOT / "benchmarks" / "scale.py"), tmp_path / "found.json"
    command = [sys.executable, program, "--nodes=10", "--nodes=25", *SMALL, f"--json={found}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    small, large = json.loads(found.read_text(encoding="utf-8"))
    assert (small["nodes"], large["nodes"]) == (10, 25)
    assert not small["faults"] + large["faults"]
    counts = {row["what"]: row["count"] for row in large["rows"]}
    assert counts["a node joins"] == counts["a heartbeat"] == 25
    assert counts["an actor is created, hosted and ready"] == counts["an actor is killed"] == 60
    assert counts["a placement group of two is made"] == counts["a placement group is removed"] == 12
    assert counts["a task of 10 ms: given out and done, at its owner"] == 3000
    assert [row["what"] for row in small["rows"]] == [row["what"] for row in large["rows"]]
    assert all(row["event_us"] > 0 for row in large["rows"])
    assert "| a node joins | 10, " in done.stdout


def cluster() -> Any:
    """With three nodes, and a driver on the first."""
    from benchmarks import scale_cluster

    made = scale_cluster.Cluster()
    for _ in range(3):
        made.join(cpus=4)
    return made, scale_cluster.Driver(made, made.nodes[0])


def create(made: Any, driver: Any) -> str:
    actor = f"{driver.id}{1:016x}"
    message = {
        "t": "create_actor", "actor": actor, "name": "", "namespace": None, "get_if_exists": False, "detached": False,
        "max_restarts": 0, "placement": {"CPU": 10_000}, "running": {"CPU": 10_000}, "env": None, "strategy": None,
        "label_selectors": None, "class_name": "C", "meta_size": 0, "depth": 0, "lacks_arguments": False, "call_site": "",
    }  # fmt: skip
    driver.tell(message)
    driver.tell({"t": "actor_watch", "actor": actor})
    made.network.run()
    return actor


def test_a_cluster_whose_head_and_nodes_agree_has_no_fault() -> None:
    made, driver = cluster()
    actor = create(made, driver)
    assert driver.states == {actor: "ALIVE"}
    assert made.nodes[0].hosts.keys() == {actor}
    made.pass_s(1.0)
    assert made.faults() == []


def test_an_actor_that_only_the_head_knows_is_a_fault() -> None:
    made, driver = cluster()
    actor = create(made, driver)
    _, held = made.nodes[0].workers.pop(made.nodes[0].hosts.pop(actor))
    made.nodes[0].free["CPU"] += held["CPU"]
    assert made.faults() == ["0 actors are hosted, the head knows 1"]


def test_resources_that_are_lost_are_a_fault() -> None:
    made, _ = cluster()
    made.nodes[1].free["CPU"] -= 1
    (fault,) = made.faults()
    assert "node 000000000002 has" in fault


def test_a_node_that_has_gone_without_the_heads_knowing_is_a_fault() -> None:
    made, _ = cluster()
    made.nodes.pop()
    assert made.faults()[0] == "2 nodes live, the head knows 3"


def test_a_task_that_was_done_twice_is_a_fault() -> None:
    from benchmarks import scale_tasks

    queue = scale_tasks.Queue(3, 2, 20, 0.01)
    assert queue.run(float("inf")).faults == []
    queue.done[7] += 1
    assert queue.run(float("inf")).faults[0] == "task 7 was done 2 times"


def test_owners_get_leases_of_all_nodes_and_give_them_back() -> None:
    from benchmarks import scale_tasks

    taken = scale_tasks.Queue(3, 2, 200, 0.01).run(float("inf"))
    assert (taken.count, taken.leases, taken.faults) == (200, 6, [])
