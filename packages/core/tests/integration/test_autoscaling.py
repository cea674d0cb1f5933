"""Clusters that launch and end their nodes: real daemons, a real autoscaler, programs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drivers
import pytest
from scaling import LATE_S, SMALL, STORE, Up, described, own_home, up

import umbel
from umbel import exceptions
from umbel._base import sessions
from umbel._client import cluster_node, scaled_clusters, tool
from umbel._model import node_labels
from umbel.autoscaler import sdk
from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(180),
]

TIMEOUT_S = 120


@pytest.fixture(autouse=True)
def home() -> Iterator[Path]:
    with own_home() as directory:
        yield Path(directory)


def burst(made: Up, count: int, nodes: int, gate: Path) -> list[tuple[int, str]]:
    """Tasks that run until there are so many nodes. Their results: (number, the node it was on)."""
    umbel.init(address=made.started.address)

    @umbel.remote
    def wait(number: int, gate: str) -> tuple[int, str]:
        drivers.wait_until(lambda: os.path.exists(gate), timeout_s=LATE_S)
        return number, umbel.get_runtime_context().get_node_id()

    waiting = [wait.remote(number, str(gate)) for number in range(count)]
    made.until(nodes)
    gate.touch()
    return umbel.get(waiting, timeout=LATE_S)


def test_cluster_grows_under_a_burst_and_shrinks_again_and_nothing_is_lost(home: Path) -> None:
    with up() as made:
        assert made.nodes() == {}
        found = burst(made, 24, 3, home / "gate")
        assert [number for number, _ in found] == list(range(24))
        assert {node for _, node in found} - {made.started.launched.node_id}
        umbel.shutdown()  # a program's leases are not idle
        made.until(0)
        assert made.query("autoscaler")["trouble"] == ""


@pytest.mark.slow
def test_cluster_grows_from_one_node_to_eight_and_back(home: Path) -> None:
    types = {"head": {"resources": {"CPU": 1, **STORE}}, "small": {**SMALL, "max_workers": 7}}
    with up(available_node_types=types) as made:
        found = burst(made, 64, 7, home / "gate")
        assert [number for number, _ in found] == list(range(64))
        umbel.shutdown()
        made.until(0)


def test_nodes_with_actors_stay_and_values_survive_the_end_of_others(home: Path) -> None:
    with up() as made:
        umbel.init(address=made.started.address)

        @umbel.remote(num_cpus=1, resources={"small": 1})
        class Counter:
            def __init__(self) -> None:
                self.count = 0

            def add(self) -> tuple[int, str]:
                self.count += 1
                return self.count, umbel.get_runtime_context().get_node_id()

        @umbel.remote(num_cpus=1, resources={"small": 1})
        def large(gate: str) -> bytes:
            drivers.wait_until(lambda: os.path.exists(gate), timeout_s=LATE_S)
            return b"x" * 1_000_000

        counter = Counter.remote()
        count, home_node = umbel.get(counter.add.remote(), timeout=LATE_S)
        values = [large.remote(str(home / "gate")) for _ in range(2)]
        made.until(3)
        (home / "gate").touch()
        umbel.wait(values, num_returns=2, timeout=LATE_S)
        seen_s = made.query("autoscaler")["report"]["at_s"]
        drivers.wait_until(lambda: made.query("autoscaler")["report"]["at_s"] > seen_s + 2.0, what="idle times to pass")
        assert [len(one) for one in umbel.get(values, timeout=LATE_S)] == [1_000_000] * 2
        del values
        made.until(1)
        assert umbel.get(counter.add.remote(), timeout=LATE_S) == (count + 1, home_node)
        drivers.wait_until(
            lambda: (
                [(one["why"], one["state"]) for one in made.scaling()["nodes"] if one["type"]]
                == [("it is in use", "alive")]
            ),
            what="the last one to be kept, with the reason",
        )


def test_placement_groups_that_wait_get_nodes_and_go_with_them() -> None:
    with up() as made:
        umbel.init(address=made.started.address)
        group = umbel.util.placement_group([{"CPU": 1, "small": 1}] * 2, strategy="STRICT_SPREAD")
        umbel.get(group.ready(), timeout=LATE_S)
        assert len(made.nodes()) == 2

        @umbel.remote(num_cpus=1, scheduling_strategy=PlacementGroupSchedulingStrategy(group))
        def where() -> str:
            return umbel.get_runtime_context().get_node_id()

        assert umbel.get(where.remote(), timeout=LATE_S) in [one["node_id"] for one in made.nodes().values()]
        umbel.util.remove_placement_group(group)
        umbel.shutdown()
        made.until(0)


def test_min_workers_are_there_and_killed_ones_are_replaced() -> None:
    types = {"head": {"resources": {"CPU": 1, **STORE}}, "small": {**SMALL, "min_workers": 2, "max_workers": 3}}
    with up(available_node_types=types) as made:
        before = made.until(2)
        (first, *_) = before
        os.kill(sessions.daemon_of(before[first]["session_dir"]), signal.SIGKILL)
        drivers.wait_until(
            lambda: len(made.nodes()) == 2 and first not in made.nodes(), timeout_s=LATE_S, what="another one"
        )
        drivers.wait_until(
            lambda: all("min_workers" in one["why"] for one in made.scaling()["nodes"] if one["type"]),
            what="both to be kept, with the reason",
        )
        events = [one["text"] for one in made.query("cluster_events") if one["source"] == "AUTOSCALER"]
        launches = [one for one in events if one.startswith("launches")]
        assert launches == ["launches 2 of small: min_workers is 2", "launches 1 of small: min_workers is 2"], events


def test_room_that_is_requested_is_there_until_it_is_taken_back(home: Path) -> None:
    with up() as made:
        umbel.init(address=made.started.address)
        sdk.request_resources(num_cpus=1, bundles=[{"CPU": 1, "small": 1}], bundle_label_selectors=[{}])
        made.until(1)
        drivers.wait_until(
            lambda: (
                [one["why"] for one in made.scaling()["nodes"] if one["type"]]
                == ["it is needed for {CPU: 1, small: 1} of a standing request"]
            ),
            what="it to be kept, with the reason",
        )
        sdk.request_resources()
        made.until(0)


WITH_GPU = {
    "head": {"resources": {"CPU": 1, **STORE}}, "small": {**SMALL, "min_workers": 1},
    "gpu": {"resources": {"CPU": 1, "GPU": 2, **STORE}},
}  # fmt: skip


def test_what_nothing_can_be_launched_for_is_explained_on_every_node() -> None:
    with up(available_node_types=WITH_GPU, max_workers=1) as made:
        (node,) = made.until(1).values()

        @umbel.remote(num_cpus=1)
        class Asker:
            def why(self, *parts: str) -> None:
                waiting = umbel.remote(num_gpus=2)(lambda: None).remote()
                drivers.wait_until(lambda: all(part in umbel.explain(waiting) for part in parts), what=f"{parts}")

        umbel.init(address=made.started.address)
        sdk.request_resources(bundles=[{"GPU": 1}])
        drivers.wait_until(lambda: made.scaling()["unmet"], what="what is not met")
        (unmet,) = made.scaling()["unmet"]
        assert unmet["what"] == "{GPU: 1}, of a standing request"
        assert [one["kind"] for one in unmet["looked_at"]] == ["too small", "max_workers of the cluster"]
        nothing = "the autoscaler launches nothing for it (small: a node of it has {CPU: 1, GPU: 0}, less than"
        on_node = NodeAffinitySchedulingStrategy(node["node_id"], soft=False)
        told = Asker.options(scheduling_strategy=on_node).remote().why.remote(nothing, "the cluster's max_workers of 1")
        labels = umbel.remote(label_selector={"zone": "q"})(lambda: None).remote()
        actor = Asker.options(num_gpus=2).remote().why.remote()
        for part, ref in {"its labels are {}, not zone=q": labels, "less than {CPU: 1, GPU: 2}": actor}.items():
            text = drivers.wait_until(
                lambda ref=ref, part=part: part in (told := umbel.explain(ref)) and told, what=part
            )
            assert "the autoscaler launches nothing for it (small: " in text
        umbel.get(told, timeout=LATE_S)


def test_launches_that_fail_are_explained_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    types = {"head": {"resources": {"CPU": 1, **STORE}}, "small": {"resources": {"CPU": 1, "object_store_memory": 1}}}
    with up(available_node_types={**types, "small": {**types["small"], "min_workers": 1, "max_workers": 1}}) as made:
        drivers.wait_until(lambda: made.scaling()["failures"], what="a failure")
        (failure,) = made.scaling()["failures"]
        assert failure["type"] == "small"
        assert "object_store_memory must be at least" in failure["reason"]
        assert failure["retry_s"] > 0
        drivers.wait_until(
            lambda: [one for one in made.query("cluster_events") if one["severity"] == "WARNING"], what="it to be told"
        )


def test_node_that_is_to_be_ended_before_it_joins_is_not_let_in() -> None:
    with up() as made:
        place = cluster_node.Place(
            head=made.started.address, host="127.0.0.1", token_file=scaled_clusters.token_path("test")
        )

        def wishes(name: str) -> cluster_node.Wishes:
            labels = {node_labels.INSTANCE_ID: name, node_labels.NODE_GROUP: "other"}
            return cluster_node.Wishes(1, 0, {}, labels, STORE["object_store_memory"])

        with tool.Tool(made.session_dir) as asker:
            assert asker.scale(barred="late") == {"is_barred": True}
            with pytest.raises(exceptions.UmbelSystemError, match="does not take this node: the autoscaler ends it"):
                cluster_node.start_node(wishes("late"), place)
            joined = cluster_node.start_node(wishes("early"), place, ends_with_starter=True)
            assert asker.scale(barred="early") == {"is_barred": False}
            joined.launched.close()


def cli(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "umbel.cli", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def refused(*arguments: str) -> tuple[int, str]:
    """The exit code, and what is said on standard error."""
    command = [sys.executable, "-m", "umbel.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.returncode, done.stderr


def test_commands_start_change_explain_and_end_a_cluster(home: Path) -> None:
    path = home / "cluster.json"
    types = described().content["available_node_types"]
    path.write_text(json.dumps({**described().content, "available_node_types": types}))
    assert "The cluster 'test' is up: its head has 1 CPU" in cli("up", str(path), "-y")
    more = {**types, "small": {**types["small"], "min_workers": 1}}
    path.write_text(json.dumps({**described().content, "available_node_types": more}))
    assert "follows" in cli("up", str(path))
    running = scaled_clusters.running("test")

    def listed() -> Any:
        with tool.Tool(running) as asker:
            return len([one for one in asker.query("nodes") if one["alive"]]) == 2

    drivers.wait_until(listed, timeout_s=LATE_S, what="the node to join")
    drivers.wait_until(lambda: "is alive: its type's min_workers are 1" in cli("status"), what="the reason")
    status = cli("status")
    assert "Autoscaler:" in status
    assert "1 of at most 3 nodes are there or on their way" in status
    assert "its type's min_workers are 1" in cli("explain")
    assert len(json.loads(cli("sessions", "--json"))) == 2
    head, small = sorted(cli("sessions").splitlines(), key=lambda line: not line.endswith(", the head"))
    assert head.endswith(", the head")
    assert ", of the head at 127.0.0.1:" in small
    assert cli("get-head-ip", str(path)) == cli("get-worker-ips", str(path)) == "127.0.0.1\n"
    assert cli("exec", str(path), "echo $UMBEL_ADDRESS") == f"{running}\n"
    assert refused("exec", str(path), "exit 7") == (7, "")
    for arguments in (("exec", str(path), "true", "-n", "other"), ("get-head-ip", str(path), "-n", "other")):
        code, told = refused(*arguments)
        assert code == 1
        assert f"the cluster 'other' does not run on this machine; `umbel up {path}` starts it" in told
    for answer in ("n\n", ""):
        kept = subprocess.run(
            [sys.executable, "-m", "umbel.cli", "down", str(path)],
            input=answer, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        assert kept.returncode == 1
        assert kept.stderr.splitlines()[-1] in (
            "Error: the cluster 'test' goes on; say yes, or --yes, to end it",
            "Aborted!",
        )
    told = cli("down", str(path), "--yes")
    assert told.startswith(f"the cluster 'test': the head in {os.path.basename(running)} and 1 node (local-")
    assert cli("down", str(path), "--yes") == "nothing of it runs\n"


def test_head_that_is_killed_leaves_nodes_that_end_themselves_or_by_down() -> None:
    types = {"head": {"resources": {"CPU": 1, **STORE}}, "small": {**SMALL, "min_workers": 1, "max_workers": 1}}
    made = Up(described(available_node_types=types))
    made.until(1)
    (daemon,) = made.daemons()
    (scaler,) = [one["pid"] for one in made.query("processes") if one["component"] == "autoscaler"]
    os.kill(made.started.launched.pid, signal.SIGKILL)
    drivers.wait_until(lambda: not drivers.is_running(scaler), what="the autoscaler to end with its head")
    drivers.wait_until(
        lambda: not drivers.is_running(daemon), timeout_s=LATE_S, what="the node to end without its head"
    )
    made.started.launched.close()
    scaled_clusters.end(made.file)


def test_autoscaler_that_is_killed_starts_again_and_launches_nothing_twice() -> None:
    types = {"head": {"resources": {"CPU": 1, **STORE}}, "small": {**SMALL, "min_workers": 2, "max_workers": 3}}
    with up(available_node_types=types) as made:
        before = made.until(2)
        (scaler,) = [one["pid"] for one in made.query("processes") if one["component"] == "autoscaler"]
        os.kill(scaler, signal.SIGKILL)
        trouble = drivers.wait_until(lambda: made.query("autoscaler")["trouble"], what="its end to be noticed")
        assert "its process has ended with the code -9" in trouble
        said_s = made.told()["report"]["at_s"]
        drivers.wait_until(lambda: made.told()["report"]["at_s"] > said_s, what="another one to say something")
        drivers.wait_until(lambda: len(made.scaling()["nodes"]) == 3, what="it to know all")
        assert made.nodes().keys() == before.keys()


def test_whoever_asks_for_what_no_node_has_is_told_what_the_autoscaler_does(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before: warnings and errors said to add a node, and nothing of the autoscaler."""
    monkeypatch.setenv("UMBEL_INFEASIBLE_TIMEOUT_S", "2")
    with up(available_node_types=WITH_GPU, max_workers=1) as made:
        (node,) = made.until(1).values()

        @umbel.remote(num_cpus=1)
        class Asker:
            def told(self) -> str:
                with pytest.raises(exceptions.TaskUnschedulableError) as raised:
                    umbel.get(umbel.remote(num_gpus=2)(lambda: None).remote())
                return str(raised.value)

        umbel.init(address=made.started.address)
        waiting = [
            Asker.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["node_id"], soft=False)).remote().told.remote(),
            umbel.remote(num_gpus=2)(lambda: None).remote(),
            umbel.remote(label_selector={"zone": "q"})(lambda: None).remote(),
            Asker.options(num_gpus=2).remote().told.remote(),
            umbel.util.placement_group([{"GPU": 3}]).ready(),
        ]  # fmt: skip
        errors = [umbel.get(waiting.pop(0), timeout=LATE_S)]
        for ref in waiting:
            with pytest.raises(exceptions.UmbelError) as raised:
                umbel.get(ref, timeout=LATE_S)
            errors.append(str(raised.value))
        says = re.compile(": the autoscaler (launches nothing for it|has not decided about it yet)")
        assert [error for error in errors if not says.search(error)] == []
        warned = [line for line in capfd.readouterr().err.splitlines() if " waits: " in line]
        assert len(warned) == 4
        assert [line for line in warned if not says.search(line)] == []
