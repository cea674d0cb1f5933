"""Nodes that are drained: real daemons, under load, at their deadline, and asked by commands."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import drivers
import homes
import pytest

import umbel
from umbel import cluster_utils, exceptions
from umbel._client import current, tool
from umbel.util.scheduling_strategies import NodeAffinitySchedulingStrategy

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60


class Nodes:
    """A head with two CPUs, of which this process is a driver, and others. directory: for files of tests."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
        assert self.cluster.head_node is not None
        self.head = self.cluster.head_node

    def add(self, **node_args: Any) -> cluster_utils.ClusterNode:
        made = self.cluster.add_node(num_cpus=2, **node_args)
        drivers.wait_until(lambda: self.query("nodes", made)[1:], what=f"{made} to know the head")
        return made

    def file(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def query(self, what: str, node: cluster_utils.ClusterNode | None = None) -> Any:
        with tool.Tool((node or self.head).session_dir) as asker:
            return asker.query(what)

    def seen(self, node: cluster_utils.ClusterNode) -> dict[str, Any]:
        """As the head knows it."""
        return {one["node_id"]: one for one in self.query("nodes")}[node.node_id]

    def drain(
        self, node: cluster_utils.ClusterNode, reason: str = "preemption", deadline_s: float | None = None
    ) -> str:
        with tool.Tool(self.head.session_dir, answer_s=TIMEOUT_S) as asker:
            return asker.drain_node(node.node_id, reason, "a test", deadline_s)

    def until_gone(self, node: cluster_utils.ClusterNode) -> dict[str, Any]:
        def gone() -> dict[str, Any] | None:
            known = self.seen(node)
            return None if known["alive"] else known

        found = drivers.wait_until(gone, what=f"{node} to be gone", timeout_s=TIMEOUT_S) or {}
        drivers.wait_until(
            lambda: not node.any_processes_alive() and not os.path.exists(node.session_dir),
            what=f"{node} to have ended", timeout_s=TIMEOUT_S,
        )  # fmt: skip
        return found


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with homes.own_home() as home:
        made = Nodes(home)
        try:
            made.cluster.connect()
            yield made
        finally:
            umbel.shutdown()
            made.cluster.shutdown()


def get(reference: Any) -> Any:
    return umbel.get(reference, timeout=TIMEOUT_S)


def until(condition: Callable[[], Any], what: str) -> Any:
    return drivers.wait_until(condition, what=what, timeout_s=TIMEOUT_S)


def on(node: cluster_utils.ClusterNode, *, soft: bool = False) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.node_id, soft=soft)


def command(*arguments: str, is_right: bool = True) -> str:
    """What it prints; on standard error if it fails, as it must unless `is_right`."""
    done = subprocess.run(
        [sys.executable, "-m", "umbel.cli", *arguments], check=False, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert (done.returncode == 0) == is_right, done.stdout + done.stderr
    return done.stdout if is_right else done.stderr


@umbel.remote
def place() -> str:
    return umbel.get_runtime_context().get_node_id()


@umbel.remote
def note(directory: str, number: int) -> tuple[int, str]:
    """Leaves a file for each time that it runs to its end; takes a while."""
    time.sleep(0.05)
    where: str = umbel.get_runtime_context().get_node_id()
    with open(os.path.join(directory, f"{number}.{where}.{time.monotonic_ns()}"), "w"):
        pass
    return number, where


@umbel.remote
def waits(path: str) -> str:
    """Where it runs, once there is a file."""
    with open(f"{path}.{umbel.get_runtime_context().get_node_id()}", "a"):
        pass
    until_s = time.monotonic() + TIMEOUT_S
    while not os.path.exists(path) and time.monotonic() < until_s:
        time.sleep(0.01)
    return umbel.get_runtime_context().get_node_id()


@umbel.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> tuple[int, str]:
        self.count += 1
        return self.count, umbel.get_runtime_context().get_node_id()


def test_an_idle_node_is_drained_at_once_and_leaves_with_the_reason(nodes: Nodes) -> None:
    node = nodes.add()
    assert get(place.options(scheduling_strategy=on(node)).remote()) == node.node_id
    until(lambda: not [one for one in nodes.query("workers", node) if one["client"]], "the lease to go back")
    assert nodes.drain(node, "idle") == ""
    found = nodes.until_gone(node)
    assert found["is_expected"]
    assert found["reason"] == "it was drained (idle: a test)"
    assert get(place.remote()) == nodes.head.node_id


def test_an_idle_drain_is_refused_while_something_runs_and_the_node_goes_on(nodes: Nodes) -> None:
    node = nodes.add()
    path = nodes.file("go")
    running = waits.options(scheduling_strategy=on(node)).remote(path)
    until(lambda: os.path.exists(f"{path}.{node.node_id}"), "the task to run")
    assert nodes.drain(node, "idle") == "the node is not idle: it has 1 worker in use"
    assert "draining" not in nodes.seen(node)
    with open(path, "w"):
        pass
    assert get(running) == node.node_id
    assert get(place.options(scheduling_strategy=on(node)).remote()) == node.node_id


def test_values_of_processes_that_have_ended_keep_a_node_until_their_owner_has_taken_them(nodes: Nodes) -> None:
    node = nodes.add()

    @umbel.remote(scheduling_strategy=on(node), max_retries=0)
    def make() -> bytes:
        return b"made" * 250_000

    made = make.remote()
    umbel.wait([made], timeout=TIMEOUT_S, fetch_local=False)
    killed = {one["pid"] for one in nodes.query("workers", node)}
    for pid in killed:
        drivers.kill(pid)
    until(lambda: not killed & {one["pid"] for one in nodes.query("workers", node)}, "their end")
    assert nodes.drain(node, "idle") == "the node is not idle: it has 1 value that a program of another node needs"
    assert nodes.drain(node) == ""
    nodes.until_gone(node)
    assert get(made) == b"made" * 250_000


def test_an_idle_drain_is_refused_for_an_actor_and_for_a_program(nodes: Nodes) -> None:
    node = nodes.add()
    actor = Counter.options(scheduling_strategy=on(node)).remote()
    assert get(actor.add.remote()) == (1, node.node_id)
    assert nodes.drain(node, "idle") == "the node is not idle: it has 1 actor"
    umbel.kill(actor)
    until(lambda: not [one for one in nodes.query("workers", node) if one["actor"]], "the actor to end")
    driver = drivers.Driver(
        """
        import os, sys, umbel
        umbel.init(address=os.environ["SESSION"])
        print("there", flush=True)
        sys.stdin.readline()
        """,
        nodes.directory, SESSION=node.session_dir,
    )  # fmt: skip
    try:
        assert driver.line() == "there"
        assert nodes.drain(node, "idle") == "the node is not idle: it has 1 program"
    finally:
        driver.process.kill()
        driver.process.communicate()


def test_a_node_that_is_drained_under_load_loses_nothing_and_does_nothing_twice(nodes: Nodes) -> None:
    node = nodes.add()
    directory = nodes.file("done")
    os.mkdir(directory)
    references = [note.remote(directory, number) for number in range(80)]
    until(lambda: any(node.node_id in name for name in os.listdir(directory)), "tasks to run there")
    assert nodes.drain(node) == ""
    found = nodes.until_gone(node)
    assert found["is_expected"]
    results = [get(one) for one in references]
    assert [number for number, _ in results] == list(range(80))
    assert {where for _, where in results} == {nodes.head.node_id, node.node_id}
    times = collections.Counter(name.partition(".")[0] for name in os.listdir(directory))
    assert times == {str(number): 1 for number in range(80)}


def test_a_drained_node_lets_what_runs_finish_takes_nothing_new_and_is_shown(nodes: Nodes) -> None:
    node = nodes.add()
    path = nodes.file("go")
    running = waits.options(scheduling_strategy=on(node)).remote(path)
    until(lambda: os.path.exists(f"{path}.{node.node_id}"), "the task to run")
    assert nodes.drain(node, deadline_s=3600) == ""
    facts = until(lambda: nodes.seen(node).get("draining"), "the head to list it so")
    assert (facts["reason"], facts["message"], facts["waits_for"]) == ("preemption", "a test", "1 worker in use")
    assert "is being drained (preemption: a test)" in command("status", "--session", nodes.head.session_dir)
    with pytest.raises(exceptions.TaskUnschedulableError, match="is being drained"):
        get(place.options(scheduling_strategy=on(node)).remote())
    with pytest.raises(exceptions.ActorUnschedulableError, match="is being drained"):
        get(Counter.options(scheduling_strategy=on(node)).remote().add.remote())
    assert get(place.options(scheduling_strategy=on(node, soft=True)).remote()) == nodes.head.node_id
    assert {get(place.remote()) for _ in range(4)} == {nodes.head.node_id}
    with open(path, "w"):
        pass
    assert get(running) == node.node_id
    nodes.until_gone(node)


def test_at_the_deadline_a_node_ends_and_its_task_is_tried_elsewhere_without_counting(nodes: Nodes) -> None:
    node = nodes.add()
    path = nodes.file("go")
    again = waits.options(scheduling_strategy=on(node, soft=True), max_retries=1).remote(path)
    once = waits.options(scheduling_strategy=on(node, soft=True), max_retries=0).remote(path)
    until(lambda: len([one for one in nodes.query("workers", node) if one["client"]]) == 2, "both tasks to run there")
    until(lambda: os.path.exists(f"{path}.{node.node_id}"), "one of them to have begun")
    assert nodes.drain(node, deadline_s=0.5) == ""
    found = nodes.until_gone(node)
    assert "and its deadline has passed; it still had 2 workers in use" in found["reason"]
    until(lambda: os.path.exists(f"{path}.{nodes.head.node_id}"), "the task to run again")
    worker = until(lambda: [one for one in nodes.query("workers") if one["client"]], "its worker")[0]
    drivers.kill(worker["pid"])  # the only retry is left for this
    with open(path, "w"):
        pass
    assert get(again) == nodes.head.node_id
    with pytest.raises(exceptions.NodeDiedError, match="was drained"):
        get(once)


def test_an_actor_of_a_drained_node_is_restarted_elsewhere_without_counting(nodes: Nodes) -> None:
    node = nodes.add()
    first = Counter.options(scheduling_strategy=on(node, soft=True), max_restarts=1, max_task_retries=-1).remote()
    once = Counter.options(scheduling_strategy=on(node, soft=True), max_restarts=0).remote()
    assert get(first.add.remote()) == (1, node.node_id)
    assert get(once.add.remote()) == (1, node.node_id)
    assert nodes.drain(node, deadline_s=0.5) == ""
    nodes.until_gone(node)
    assert get(first.add.remote()) == (1, nodes.head.node_id)
    with pytest.raises(exceptions.ActorDiedError, match="was drained") as died:
        get(once.add.remote())
    assert died.value.preempted
    (listed,) = [one for one in nodes.query("actors") if one["state"] == "ALIVE"]
    assert (listed["restarts"], listed["preemptions"]) == (1, 1)
    umbel.kill(first, no_restart=False)
    assert get(first.add.remote()) == (1, nodes.head.node_id)
    umbel.kill(first, no_restart=False)
    with pytest.raises(exceptions.ActorDiedError, match="its 1 restarts are used up"):
        get(first.add.remote())


# ---- values ----

VALUE_BYTES = 20_000_000


@umbel.remote
def make(directory: str, number: int, go: str = "") -> Any:
    """A large array, once there is a file `go` if one is named; leaves a file for each time that it is made."""
    numpy = pytest.importorskip("numpy")
    with open(os.path.join(directory, f"{number}.{time.monotonic_ns()}"), "w"):
        pass
    until_s = time.monotonic() + TIMEOUT_S
    while go and not os.path.exists(go) and time.monotonic() < until_s:
        time.sleep(0.01)
    return numpy.arange(number, number + VALUE_BYTES // 8)


@umbel.remote
def total(array: Any) -> tuple[int, int, str]:
    return int(array[0]), int(array.sum()), umbel.get_runtime_context().get_node_id()


@umbel.remote
def put_there() -> list[Any]:
    """A large value that the worker owns which runs this."""
    numpy = pytest.importorskip("numpy")
    return [umbel.put(numpy.ones(VALUE_BYTES // 8))]


def made(directory: str) -> list[str]:
    return sorted(name.partition(".")[0] for name in os.listdir(directory))


def segments_of(node: cluster_utils.ClusterNode, owner: str) -> list[str]:
    """The files of large values in a node's store that this process owns."""
    store = f"/dev/shm/umbel-{os.getuid()}-{os.path.basename(node.session_dir)}"
    found = [one for one in os.scandir(store) if f".{owner}." in one.name]
    return [one.name for one in found if one.stat().st_size >= VALUE_BYTES]


def test_values_of_a_drained_node_are_handed_over_to_their_owner_and_not_computed_again(nodes: Nodes) -> None:
    numpy = pytest.importorskip("numpy")
    node = nodes.add()
    directory, go = nodes.file("made"), nodes.file("go")
    os.mkdir(directory)
    there = make.options(scheduling_strategy=on(node))
    before = [there.remote(directory, number) for number in (1, 2)]
    umbel.wait(before, num_returns=2, timeout=TIMEOUT_S, fetch_local=False)
    later = there.remote(directory, 3, go)
    until(lambda: made(directory) == ["1", "2", "3"], "the third to be under way")
    assert nodes.drain(node) == ""
    with open(go, "w"):
        pass
    nodes.until_gone(node)
    for number, reference in zip((1, 2, 3), [*before, later], strict=True):
        assert numpy.array_equal(get(reference), numpy.arange(number, number + VALUE_BYTES // 8))
    assert made(directory) == ["1", "2", "3"]
    values = current.running_engine().values  # type: ignore[union-attr]
    assert sorted(values.stored) == sorted(segments_of(nodes.head, umbel.get_runtime_context().get_worker_id()))
    assert len(values.stored) == 3
    del before, later, reference
    until(lambda: not values.stored, "them to be freed")


@umbel.remote
class Owner:
    def make(self, node: str, directory: str, count: int) -> int:
        there = make.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False), num_cpus=1)
        self.kept = [there.remote(directory, number) for number in range(count)]
        return len(umbel.wait(self.kept, num_returns=count, timeout=TIMEOUT_S, fetch_local=False)[0])

    def firsts(self) -> list[int]:
        return [int(umbel.get(one, timeout=TIMEOUT_S)[0]) for one in self.kept]


def test_values_of_an_actor_are_handed_over_from_memory_and_from_disk(nodes: Nodes) -> None:
    pytest.importorskip("numpy")
    node = nodes.add(object_store_memory=4 * VALUE_BYTES)
    directory = nodes.file("made")
    os.mkdir(directory)
    owner = Owner.options(scheduling_strategy=on(nodes.head)).remote()
    assert get(owner.make.remote(node.node_id, directory, 6)) == 6
    assert nodes.query("store", node)["spilled_bytes"] >= 2 * VALUE_BYTES
    assert nodes.drain(node) == ""
    nodes.until_gone(node)
    assert get(owner.firsts.remote()) == list(range(6))
    assert made(directory) == ["0", "1", "2", "3", "4", "5"]


def test_who_was_told_where_a_value_lay_reads_it_after_the_node_has_gone(nodes: Nodes) -> None:
    pytest.importorskip("numpy")
    node, reader = nodes.add(), nodes.add()
    directory = nodes.file("made")
    os.mkdir(directory)
    value = make.options(scheduling_strategy=on(node)).remote(directory, 5)
    umbel.wait([value], timeout=TIMEOUT_S, fetch_local=False)

    @umbel.remote
    class Holder:
        def __init__(self, inside: list[Any]) -> None:
            self.inside = inside
            umbel.wait(inside, timeout=TIMEOUT_S, fetch_local=False)  # so that it knows where that lies

        def total(self) -> tuple[int, int]:
            array = umbel.get(self.inside[0], timeout=TIMEOUT_S)
            return int(array[0]), int(array.sum())

    holder = Holder.options(scheduling_strategy=on(reader)).remote([value])
    until(lambda: [one for one in nodes.query("actors") if one["state"] == "ALIVE"], "the holder to be made")
    assert nodes.drain(node) == ""
    nodes.until_gone(node)
    count = VALUE_BYTES // 8
    wanted = 5, sum(range(5, 5 + count))
    assert get(holder.total.remote()) == wanted
    assert get(total.options(scheduling_strategy=on(reader)).remote(value)) == (*wanted, reader.node_id)
    assert made(directory) == ["5"]


def test_an_idle_drain_is_refused_while_a_worker_keeps_a_value_for_an_owner_elsewhere(nodes: Nodes) -> None:
    pytest.importorskip("numpy")
    node = nodes.add()
    directory = nodes.file("made")
    os.mkdir(directory)
    value = make.options(scheduling_strategy=on(node)).remote(directory, 1)
    umbel.wait([value], timeout=TIMEOUT_S, fetch_local=False)
    until(lambda: not [one for one in nodes.query("workers", node) if one["client"]], "the lease to go back")
    assert nodes.drain(node, "idle") == "the node is not idle: it has 1 worker with values that others need"
    assert len(get(value)) == VALUE_BYTES // 8
    del value
    until(lambda: nodes.drain(node, "idle") == "", "the value to be freed")
    nodes.until_gone(node)


def test_values_that_processes_of_a_drained_node_own_keep_it_and_end_with_it(nodes: Nodes) -> None:
    pytest.importorskip("numpy")
    node = nodes.add()
    inside = get(put_there.options(scheduling_strategy=on(node)).remote())
    assert "values that others need" in until(
        lambda: (told := nodes.drain(node, "idle")) and "in use" not in told and told, "the lease to go back"
    )
    assert nodes.drain(node) == ""
    until(lambda: "values that others need" in nodes.seen(node)["draining"]["waits_for"], "the node to wait for that")
    assert len(get(inside[0])) == VALUE_BYTES // 8
    assert nodes.drain(node, deadline_s=0.0) == ""
    nodes.until_gone(node)
    with pytest.raises(exceptions.OwnerDiedError):
        get(inside[0])


def test_who_cannot_be_drained_and_who_may_ask(nodes: Nodes) -> None:
    node = nodes.add()
    on_head = ("--session", nodes.head.session_dir)
    assert "is the head, with which the cluster ends" in command(
        "drain-node", nodes.head.node_id, *on_head, is_right=False
    )
    assert f"those that can be drained are: {node.node_id}" in command("drain-node", "fff", *on_head, is_right=False)
    assert "say which node, once" in command("drain-node", *on_head, is_right=False)
    boredom = pytest.raises(exceptions.UmbelSystemError, match="must be 'idle' or 'preemption', got 'boredom'")
    with tool.Tool(nodes.head.session_dir) as asker, boredom:
        asker.drain_node(node.node_id, "boredom")
    # Of a node that has joined, by the beginning of its id, and by Ray's names.
    told = command(
        "drain-node", "--node-id", node.node_id[:12], "--reason", "DRAIN_NODE_REASON_IDLE_TERMINATION",
        "--reason-message", "not needed", "--deadline-remaining-seconds", "60", "--session", node.session_dir,
    )  # fmt: skip
    assert f"Node {node.node_id} is being drained" in told
    assert nodes.until_gone(node)["reason"] == "it was drained (idle: not needed)"
    refused = command("drain-node", node.node_id, *on_head, is_right=False)
    assert "is dead already: it was drained (idle: not needed)" in refused
