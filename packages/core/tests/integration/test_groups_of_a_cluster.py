"""Placement groups over the nodes of a cluster: real daemons, some of which are killed, and drivers at any of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import commands
import drivers
import proxies
import pytest
from homes import own_home

import umbel
from umbel import cluster_utils, exceptions
from umbel._client import cluster_node, tool
from umbel.util import get_current_placement_group, placement_group, placement_group_table, remove_placement_group
from umbel.util.placement_group import PlacementGroup, get_placement_group
from umbel.util.scheduling_strategies import PlacementGroupSchedulingStrategy

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(180),
]

TIMEOUT_S = 60


class Nodes:
    """A head and two more nodes, each with two CPUs; this process is a driver of the second. directory: for files of tests."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        assert self.cluster.head_node is not None
        self.head = self.cluster.head_node
        self.second = self.cluster.add_node(num_cpus=2, labels={"zone": "b"})
        self.third = self.cluster.add_node(num_cpus=2, labels={"zone": "c"})
        self.ids = [one.node_id for one in (self.head, self.second, self.third)]

    def driver(self, node: cluster_utils.ClusterNode, source: str) -> drivers.Driver:
        return drivers.Driver(PROGRAM + source, self.directory, SESSION=node.session_dir)

    def says(self, node: cluster_utils.ClusterNode, source: str) -> list[str]:
        """The lines of a driver that ends by itself."""
        return self.driver(node, source).finish(TIMEOUT_S)[0].splitlines()


PROGRAM = """
    import os, sys, umbel
    from umbel.util import placement_group, placement_group_table, remove_placement_group
    from umbel.util.placement_group import get_placement_group
    from umbel.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    umbel.init(address=os.environ["SESSION"], namespace="ns", log_to_driver=False)

    @umbel.remote
    def where():
        return umbel.get_runtime_context().get_node_id()

    def run(group, index):
        return where.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group, index)).remote()

    def say(*what):
        print(*what, flush=True)
"""


QUICK = {"UMBEL_HEALTH_CHECK_PERIOD_S": "0.5", "UMBEL_NODE_RECONNECT_S": "4"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    """For tests that leave it as it is."""
    with own_home(**QUICK) as directory:
        made = Nodes(directory)
        try:
            yield made
        finally:
            made.cluster.shutdown()


@pytest.fixture
def nodes(cluster: Nodes) -> Iterator[Nodes]:
    umbel.init(address=cluster.second.session_dir, namespace="ns", log_to_driver=False)
    try:
        yield cluster
    finally:
        umbel.shutdown()
        until(lambda: free(cluster) == 6.0, "all that the driver had to be given back")


def get(reference: Any) -> Any:
    return umbel.get(reference, timeout=TIMEOUT_S)


def until(condition: Callable[[], Any], what: str) -> None:
    drivers.wait_until(condition, what=what, timeout_s=TIMEOUT_S)


def free(nodes: Nodes) -> float:
    """CPUs, as the head has heard."""
    with tool.Tool(nodes.head.session_dir) as asker:
        return sum(one["available"]["CPU"] for one in asker.query("nodes") if one["alive"]) / 10_000


def homes(group: PlacementGroup) -> list[str]:
    found: dict[int, str] = placement_group_table(group)["bundles_to_node_id"]
    return [found[index] for index in sorted(found)]


def inside(group: PlacementGroup, index: int = -1, *, captures: bool = False) -> Any:
    return PlacementGroupSchedulingStrategy(group, index, placement_group_capture_child_tasks=captures)


@umbel.remote
def where() -> str:
    return umbel.get_runtime_context().get_node_id()


@umbel.remote
def waits(path: str) -> str:
    """Where it runs, once there is a file."""
    with open(f"{path}.{os.getpid()}", "w"):
        pass
    until_s = time.monotonic() + TIMEOUT_S
    while not os.path.exists(path) and time.monotonic() < until_s:
        time.sleep(0.01)
    return umbel.get_runtime_context().get_node_id()


@umbel.remote(num_cpus=1)
class Actor:
    def where(self) -> str:
        return umbel.get_runtime_context().get_node_id()


def placed(bundles: list[dict[str, float]], strategy: str = "PACK", **more: Any) -> PlacementGroup:
    group = placement_group(bundles, strategy=strategy, **more)
    get(group.ready())
    return group


def runs_where_its_bundles_are(group: PlacementGroup) -> list[str]:
    """A task and then an actor, in each bundle; returns the nodes."""
    expected = homes(group)
    indices = range(len(expected))
    assert get([where.options(scheduling_strategy=inside(group, index)).remote() for index in indices]) == expected
    actors = [Actor.options(scheduling_strategy=inside(group, index)).remote() for index in indices]
    assert get([one.where.remote() for one in actors]) == expected
    return expected


@pytest.mark.parametrize(
    ("strategy", "bundles", "count"),
    [("STRICT_SPREAD", 3, 3), ("SPREAD", 3, 3), ("STRICT_PACK", 2, 1), ("PACK", 2, 1), ("PACK", 4, 2)],
)
def test_tasks_and_actors_run_on_the_nodes_of_their_bundles(
    nodes: Nodes, strategy: str, bundles: int, count: int
) -> None:
    group = placed([{"CPU": 1}] * bundles, strategy)
    assert group.wait(TIMEOUT_S)
    found = runs_where_its_bundles_are(group)
    assert len(set(found)) == count
    assert set(found) <= set(nodes.ids)
    remove_placement_group(group)


def test_any_bundle_of_any_node_is_used(nodes: Nodes) -> None:
    path = os.path.join(nodes.directory, "any")
    group = placed([{"CPU": 1}] * 3, "SPREAD")
    running = [waits.options(scheduling_strategy=inside(group)).remote(path) for _ in range(3)]
    until(lambda: sum(name.startswith("any.") for name in os.listdir(nodes.directory)) == 3, "all three to run at once")
    with open(path, "w"):
        pass
    assert sorted(get(running)) == sorted(nodes.ids)
    actors = [Actor.options(scheduling_strategy=inside(group)).remote() for _ in range(3)]
    assert sorted(get([one.where.remote() for one in actors])) == sorted(nodes.ids)


def test_what_bundles_have_on_all_nodes_is_shown(nodes: Nodes) -> None:
    group = placed([{"CPU": 1}] * 3, "STRICT_SPREAD")
    one = group.id.hex()

    def shown(resources: dict[str, float]) -> dict[str, float]:
        return {name.replace(one, "g"): amount for name, amount in resources.items() if one in name}

    whole = {
        "CPU_group_0_g": 1.0, "CPU_group_1_g": 1.0, "CPU_group_2_g": 1.0, "CPU_group_g": 3.0,
        "bundle_group_0_g": 1000.0, "bundle_group_1_g": 1000.0, "bundle_group_2_g": 1000.0, "bundle_group_g": 3000.0,
    }  # fmt: skip
    assert shown(umbel.available_resources()) == shown(umbel.cluster_resources()) == whole
    actors = [Actor.options(scheduling_strategy=inside(group, index)).remote() for index in (0, 2)]
    get([actor.where.remote() for actor in actors])
    used = {"CPU_group_0_g": 0.0, "CPU_group_2_g": 0.0}
    assert shown(umbel.available_resources()) == {
        name: amount for name, amount in {**whole, **used, "CPU_group_g": 1.0}.items() if amount
    }
    assert shown(umbel.cluster_resources()) == whole
    remove_placement_group(group)
    until(lambda: not shown(umbel.available_resources()) and not shown(umbel.cluster_resources()), "it to go")


def test_a_group_that_waits_goes_where_there_is_room_first(nodes: Nodes) -> None:
    full = {homes(group)[0]: group for group in [placed([{"CPU": 2}]) for _ in range(3)]}
    late = placement_group([{"CPU": 2}])
    until(lambda: "to have room for 1 of its bundles" in umbel.explain(late.ready()), "it to wait for a node")
    waits_for = next(node for node in full if f"node {node[:8]}" in umbel.explain(late.ready()))
    freed = next(node for node in full if node != waits_for)
    remove_placement_group(full[freed])
    get(late.ready())
    assert homes(late) == [freed]


def test_a_bundle_is_on_a_node_with_its_labels(nodes: Nodes) -> None:
    selectors = [{"zone": "c"}, {"zone": "b"}]
    group = placed([{"CPU": 1}] * 2, bundle_label_selector=selectors)
    assert runs_where_its_bundles_are(group) == [nodes.third.node_id, nodes.second.node_id]


def test_what_cannot_be_placed_says_why(nodes: Nodes) -> None:
    group = placement_group([{"CPU": 1}] * 4, strategy="STRICT_SPREAD")
    assert not group.wait(0.2)
    assert "its 4 bundles need as many nodes, one each (STRICT_SPREAD), but 3 nodes are alive" in umbel.explain(
        group.ready()
    )
    task = where.options(scheduling_strategy=inside(group, 0)).remote()
    actor = Actor.options(scheduling_strategy=inside(group, 0)).remote()
    for waiting in (task, actor.where.remote()):
        until(lambda one=waiting: "3 nodes are alive" in umbel.explain(one), "the reason to be followed to the group")
    full = placed([{"CPU": 2}] * 3, "STRICT_SPREAD")
    late = placement_group([{"CPU": 2}])
    until(lambda: "to have room for 1 of its bundles" in umbel.explain(late.ready()), "it to wait for a node")
    waiting = commands.run("status").stdout.partition("Waiting:")[2]
    assert f"  placement group {group.id.hex()} cannot be placed: its 4 bundles need as many nodes" in waiting
    assert f"  placement group {late.id.hex()} for " in waiting
    assert any(f"node {node[:8]}" in umbel.explain(late.ready()) for node in nodes.ids)
    remove_placement_group(full)
    get(late.ready())
    assert len(homes(late)) == 1
    remove_placement_group(group)
    with pytest.raises(exceptions.TaskPlacementGroupRemoved):
        get(task)
    with pytest.raises(exceptions.ActorPlacementGroupRemoved):
        get(actor.where.remote())


def test_removal_ends_what_runs_in_it_on_all_nodes(nodes: Nodes) -> None:
    path = os.path.join(nodes.directory, "never")
    group = placed([{"CPU": 2}] * 3, "STRICT_SPREAD")
    running = [waits.options(scheduling_strategy=inside(group, index)).remote(path) for index in range(3)]
    until(lambda: sum(name.startswith("never.") for name in os.listdir(nodes.directory)) == 3, "the tasks to run")
    actors = [Actor.options(scheduling_strategy=inside(group, index)).remote() for index in range(3)]
    get([one.where.remote() for one in actors])
    queued = [waits.options(num_cpus=2, scheduling_strategy=inside(group, index)).remote(path) for index in range(3)]
    remove_placement_group(group)
    for task in (*running, *queued):
        with pytest.raises(exceptions.TaskPlacementGroupRemoved):
            get(task)
    for actor in actors:
        with pytest.raises(exceptions.ActorPlacementGroupRemoved):
            while True:  # until it has heard of it
                get(actor.where.remote())
    with pytest.raises(exceptions.TaskPlacementGroupRemoved, match="was removed by"):
        get(where.options(scheduling_strategy=inside(group, 0)).remote())
    assert placement_group_table(group)["state"] == "REMOVED"
    until(lambda: free(nodes) == 6.0, "all bundles to be given back")


def test_children_are_captured_on_other_nodes(nodes: Nodes) -> None:
    group = placed([{"CPU": 2}] * 3, "STRICT_SPREAD")

    @umbel.remote
    def child() -> tuple[PlacementGroup | None, str]:
        return get_current_placement_group(), umbel.get_runtime_context().get_node_id()

    @umbel.remote
    def parent() -> list[Any]:
        return umbel.get([child.remote() for _ in range(4)])

    for index in range(3):
        strategy = inside(group, index, captures=True)
        found = get(parent.options(scheduling_strategy=strategy).remote())
        assert [one for one, _ in found] == [group] * 4
        assert {node for _, node in found} <= set(nodes.ids)


def test_a_detached_group_is_found_by_name_from_any_node_and_outlives_its_job(nodes: Nodes) -> None:
    told = nodes.says(
        nodes.third,
        """
    group = placement_group([{"CPU": 1}] * 2, strategy="STRICT_SPREAD", name="gang", lifetime="detached")
    own = placement_group([{"CPU": 1}], name="own")
    say(group.wait(60), own.wait(60), group.id.hex())
    """,
    )
    group = get_placement_group("gang")
    assert told == [f"True True {group.id.hex()}"]
    assert group.wait(TIMEOUT_S)
    assert len(set(runs_where_its_bundles_are(group))) == 2
    until(lambda: {one["name"]: one["state"] for one in placement_group_table().values()}.get("own") == "REMOVED",
          "the group of the job that has ended to go")  # fmt: skip
    with pytest.raises(ValueError, match="there is no placement group named 'own'"):
        get_placement_group("own")
    with pytest.raises(exceptions.UmbelSystemError, match="already exists in namespace"):
        placement_group([{"CPU": 1}], name="gang")
    told = nodes.says(
        nodes.head,
        """
    group = get_placement_group("gang")
    say(umbel.get([run(group, 0), run(group, 1)]) == list(placement_group_table(group)["bundles_to_node_id"].values()))
    remove_placement_group(group)
    """,
    )
    assert told == ["True"]
    from umbel.util import state

    (listed,) = [one for one in state.list_placement_groups(detail=True) if one.name == "gang"]
    assert (listed.state, listed.is_detached) == ("REMOVED", True)


def test_a_group_ends_with_a_driver_that_is_killed(nodes: Nodes) -> None:
    creator = nodes.driver(
        nodes.third,
        """
    group = placement_group([{"CPU": 2}] * 3, strategy="STRICT_SPREAD", name="brief")
    umbel.get(group.ready())
    say("there", len(set(umbel.get([run(group, index) for index in range(3)]))))
    sys.stdin.readline()
    """,
    )
    try:
        assert creator.line() == "there 3"
        waiting = placement_group([{"CPU": 2}])
        assert not waiting.wait(0.2)
    finally:
        creator.process.kill()
        creator.process.communicate()
    get(waiting.ready())


@pytest.fixture
def fragile(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    """For tests that break it. Parameter: how long a node without a connection is not dead."""
    with own_home(**{**QUICK, "UMBEL_NODE_RECONNECT_S": request.param}) as directory:
        made = Nodes(directory)
        try:
            umbel.init(address=made.second.session_dir, namespace="ns", log_to_driver=False)
            yield made
        finally:
            umbel.shutdown()
            made.cluster.shutdown()


@pytest.mark.parametrize("fragile", ["1"], indirect=True)
def test_the_bundles_of_a_node_that_died_get_another_place(fragile: Nodes) -> None:
    nodes = fragile
    group = placed([{"CPU": 2}] * 3, "STRICT_SPREAD")
    index = homes(group).index(nodes.third.node_id)
    actor = Actor.options(scheduling_strategy=inside(group, index), max_restarts=1, max_task_retries=-1).remote()
    assert get(actor.where.remote()) == nodes.third.node_id
    path = os.path.join(nodes.directory, "killed")
    task = waits.options(scheduling_strategy=inside(group, index)).remote(path)
    until(lambda: any(name.startswith("killed.") for name in os.listdir(nodes.directory)), "the task to run")
    nodes.cluster.remove_node(nodes.third, allow_graceful=False)
    until(lambda: placement_group_table(group)["state"] == "RESCHEDULING", "the loss to be heard of")
    until(lambda: f"has no place for bundle {index}" in umbel.explain(task), "the task to wait for its bundle")
    others = [where.options(scheduling_strategy=inside(group, one)).remote() for one in range(3) if one != index]
    assert sorted(get(others)) == sorted([nodes.head.node_id, nodes.second.node_id])  # they go on meanwhile
    fourth = nodes.cluster.add_node(num_cpus=2)
    with open(path, "w"):
        pass
    assert get(task) == fourth.node_id
    assert get(actor.where.remote()) == fourth.node_id
    assert homes(group)[index] == fourth.node_id


@pytest.mark.parametrize("fragile", ["1"], indirect=True)
def test_a_node_that_dies_before_it_has_reserved_leaves_nothing_reserved(fragile: Nodes) -> None:
    nodes = fragile
    drivers.freeze(nodes.third.pid)
    group = placement_group([{"CPU": 2}] * 3, strategy="STRICT_SPREAD")
    waits_for = f"waits for node {nodes.third.node_id[:8]} to have room"
    until(lambda: waits_for in umbel.explain(group.ready()), "the others to have reserved theirs")
    nodes.cluster.remove_node(nodes.third, allow_graceful=False)
    until(lambda: "2 nodes are alive" in umbel.explain(group.ready()), "its death to be heard of")
    until(lambda: free(nodes) == 4.0, "what was reserved to be given back")
    assert get(where.options(num_cpus=2).remote()) in nodes.ids[:2]
    fourth = nodes.cluster.add_node(num_cpus=2)
    get(group.ready())
    assert sorted(runs_where_its_bundles_are(group)) == sorted([*nodes.ids[:2], fourth.node_id])


def test_what_waits_at_a_head_that_is_alone_goes_with_its_group_to_a_node_that_joins() -> None:
    with own_home(**QUICK):
        cluster = cluster_utils.Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1})
        try:
            group = placement_group([{"CPU": 2}])
            task = where.options(scheduling_strategy=inside(group, 0)).remote()
            actor = Actor.options(scheduling_strategy=inside(group)).remote()
            until(lambda: "cannot be placed" in umbel.explain(task), "the task to wait for the group")
            node = cluster.add_node(num_cpus=2)
            assert get([task, actor.where.remote()]) == [node.node_id, node.node_id]
        finally:
            umbel.shutdown()
            cluster.shutdown()


@pytest.mark.parametrize("fragile", ["20"], indirect=True)
def test_a_group_is_placed_over_a_connection_that_is_cut_meanwhile(fragile: Nodes) -> None:
    """A node behind a connection that breaks, and is not dead: what was said to it is done once it is back."""
    nodes = fragile
    proxy = proxies.Proxy(str(nodes.cluster.address))
    place = cluster_node.Place(head=proxy.address, host="127.0.0.1", port=0, token_file=nodes.cluster.token_file)
    wishes = cluster_node.Wishes(num_cpus=2, labels={"zone": "far"})
    started = cluster_node.start_node(wishes, place, ends_with_starter=True)
    far = cluster_utils.ClusterNode(started.launched, started.address)
    try:
        selectors = [{"zone": "far"}, {"zone": "b"}]
        for _ in range(3):
            group = placement_group([{"CPU": 2}] * 2, bundle_label_selector=selectors)
            proxy.cut()
            assert get(group.ready()) is not None
            assert get(where.options(scheduling_strategy=inside(group, 0)).remote()) == far.node_id
            proxy.cut()
            remove_placement_group(group)
    finally:
        far._end(is_graceful=False)
        proxy.close()
