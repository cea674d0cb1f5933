"""What a program may ask of its session: nodes, resources, what ran when, which actors have names."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import umbel
from umbel.util import get_node_ip_address, list_named_actors

pytestmark = pytest.mark.usefixtures("engine")

NODE_KEYS = {
    "NodeID", "Alive", "NodeManagerAddress", "NodeManagerHostname", "NodeManagerPort", "ObjectManagerPort",
    "ObjectStoreSocketName", "RayletSocketName", "MetricsExportPort", "MetricsAgentPort", "DashboardAgentListenPort",
    "NodeName", "RuntimeEnvAgentPort", "DeathReason", "DeathReasonMessage", "alive", "Resources", "Labels",
}  # fmt: skip
STORE_BYTES = 200 << 20  # as the session was started


@umbel.remote
def one() -> int:
    return 1


@umbel.remote
class Counter:
    def one(self) -> int:
        return 1


# Nodes and resources


def test_nodes_have_the_keys_that_programs_for_ray_read() -> None:
    (node,) = umbel.nodes()
    assert set(node) == NODE_KEYS
    assert (node["Alive"], node["DeathReason"], node["DeathReasonMessage"]) == (True, 0, "")


def test_every_node_has_its_own_resource_and_memory_for_objects() -> None:
    total = umbel.cluster_resources()
    assert total["object_store_memory"] == STORE_BYTES
    assert total["node:__internal_head__"] == 1.0
    assert total["node:" + get_node_ip_address()] == 1.0
    assert umbel.nodes()[0]["Resources"] == total


def test_tasks_and_actors_run_where_the_node_is_named() -> None:
    here = {"node:" + get_node_ip_address(): 0.01}
    assert umbel.get(one.options(resources=here).remote(), timeout=30) == 1
    assert umbel.get(Counter.options(resources=here, num_cpus=0).remote().one.remote(), timeout=30) == 1


def test_actor_that_reserves_memory_for_objects_runs() -> None:
    assert umbel.get(Counter.options(object_store_memory=1 << 20).remote().one.remote(), timeout=30) == 1


def test_what_has_ended_holds_nothing(eventually: Callable[[Callable[[], Any]], Any]) -> None:
    cpus = umbel.cluster_resources()["CPU"]
    eventually(lambda: umbel.available_resources()["CPU"] == cpus)  # actors of other tests leave in a moment
    for _ in range(5):
        assert umbel.get(one.remote(), timeout=30) == 1
        assert umbel.available_resources()["CPU"] == cpus


# What ran when


def test_timeline_tells_methods_with_their_class(eventually: Callable[[Callable[[], Any]], Any]) -> None:
    counter = Counter.remote()
    umbel.get([one.remote(), one.options(name="renamed").remote(), counter.one.remote()], timeout=30)
    umbel.get(counter.one.options(name="called").remote(), timeout=30)
    wanted = {("task", "renamed"), ("actor_task", "Counter.one"), ("actor_task", "called")}
    eventually(lambda: wanted <= {(event["cat"], event["name"]) for event in umbel.timeline() or ()})


def test_timeline_leaves_out_what_asked_for_that(eventually: Callable[[Callable[[], Any]], Any]) -> None:
    @umbel.remote
    class Hidden:
        def secret(self) -> int:
            return 1

    counter = Counter.remote()
    umbel.get(one.options(name="hidden task", enable_task_events=False).remote(), timeout=30)
    umbel.get(Hidden.options(enable_task_events=False).remote().secret.remote(), timeout=30)
    umbel.get(counter.one.options(name="hidden call", enable_task_events=False).remote(), timeout=30)
    umbel.get([one.options(name="shown").remote(), counter.one.options(name="shown call").remote()], timeout=30)

    def names() -> set[str]:
        return {event["name"] for event in umbel.timeline() or ()}

    eventually(lambda: {"shown", "shown call"} <= names())
    assert not names() & {"hidden task", "Hidden.secret", "secret", "hidden call"}


def test_timeline_goes_to_a_file_and_not_to_a_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    assert umbel.timeline(path) is None
    assert isinstance(json.loads(path.read_text()), list)
    descriptor = os.open(path, os.O_RDWR)
    for wrong in (descriptor, True, ["x"], b"x"):
        with pytest.raises(TypeError, match="filename must be a path as str"):
            umbel.timeline(wrong)  # type: ignore[arg-type]
    os.close(descriptor)


# Named actors


@pytest.mark.parametrize("wrong", ["x", 1, None])
def test_listing_named_actors_takes_true_or_false(wrong: Any) -> None:
    with pytest.raises(TypeError, match="all_namespaces must be True or False"):
        list_named_actors(all_namespaces=wrong)


def test_finding_an_actor_of_another_class_is_told() -> None:
    class Other:
        def two(self) -> int:
            return 2

    counter = Counter.options(name="shared").remote()
    with pytest.warns(UserWarning, match="'shared' exists already and is a Counter, not a Other") as warned:
        found: Any = umbel.remote(Other).options(name="shared", get_if_exists=True).remote()
    assert warned[0].filename == __file__
    assert umbel.get(found.one.remote(), timeout=30) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = Counter.options(name="shared", get_if_exists=True).remote()
    assert again == counter


# Sessions within sessions


def test_init_in_a_task_gives_advice_that_can_be_followed_there() -> None:
    @umbel.remote
    def start(keep: bool) -> str:
        try:
            umbel.init(ignore_reinit_error=keep)
        except RuntimeError as error:
            return str(error)
        return "kept"

    advice = umbel.get(start.remote(False), timeout=30)
    assert "in a task or actor" in advice
    assert "shutdown" not in advice
    assert umbel.get(start.remote(True), timeout=30) == "kept"
