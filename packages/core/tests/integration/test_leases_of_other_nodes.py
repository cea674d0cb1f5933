"""Tasks of a driver that run on other nodes of its cluster: real daemons, some of which are killed."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import drivers
import homes
import proxies
import pytest

import umbel
from umbel import cluster_utils, exceptions
from umbel._base import token_files, tokens
from umbel._client import tool
from umbel._transport import addresses, dialler
from umbel._wire import frames, handshake, lease_messages
from umbel.util.scheduling_strategies import In, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc"),
    pytest.mark.timeout(120),
]

TIMEOUT_S = 60
THERE = {"licence": 1}  # a resource that only the other node has


class Nodes:
    """A head with one CPU, of which this process is a driver, and another node with two. directory: for files of tests."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        assert self.cluster.head_node is not None
        self.head = self.cluster.head_node
        self.other = self.cluster.add_node(num_cpus=2, resources={"licence": 4}, labels={"zone": "b"})
        self.cluster.wait_for_nodes()

    def file(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def query(self, node: cluster_utils.ClusterNode, what: str) -> Any:
        with tool.Tool(node.session_dir) as asker:
            return asker.query(what)

    def leased(self) -> list[dict[str, Any]]:
        """Of the other node's workers, those in use."""
        return [one for one in self.query(self.other, "workers") if one["client"]]


@pytest.fixture
def home() -> Iterator[str]:
    with homes.own_home(UMBEL_NODE_RECONNECT_S="1") as directory:
        yield directory


@pytest.fixture
def nodes(home: str) -> Iterator[Nodes]:
    made = Nodes(home)
    try:
        made.cluster.connect()
        yield made
    finally:
        umbel.shutdown()
        made.cluster.shutdown()


def get(reference: Any) -> Any:
    return umbel.get(reference, timeout=TIMEOUT_S)


def place() -> str:
    return umbel.get_runtime_context().get_node_id()


@umbel.remote
def where(number: int = 0, seconds: float = 0.0) -> tuple[int, str]:
    time.sleep(seconds)
    return number, umbel.get_runtime_context().get_node_id()


@umbel.remote
def waits(path: str) -> str:
    """Where it runs, once there is a file."""
    with open(f"{path}.{os.getpid()}", "w"):
        pass
    until_s = time.monotonic() + TIMEOUT_S
    while not os.path.exists(path) and time.monotonic() < until_s:
        time.sleep(0.01)
    return umbel.get_runtime_context().get_node_id()


def begun(path: str) -> int:
    """How many of these run, or have."""
    name = os.path.basename(path)
    return sum(one.startswith(f"{name}.") for one in os.listdir(os.path.dirname(path)))


def until(condition: Callable[[], Any], what: str) -> None:
    drivers.wait_until(condition, what=what, timeout_s=TIMEOUT_S)


def test_tasks_use_the_cpus_of_other_nodes(nodes: Nodes) -> None:
    found = get([where.remote(number, 0.03) for number in range(100)])
    assert [number for number, _ in found] == list(range(100))
    counts = collections.Counter(node for _, node in found)
    assert set(counts) == {nodes.head.node_id, nodes.other.node_id}
    assert counts[nodes.other.node_id] > 30, counts


def test_what_only_another_node_has_runs_there(nodes: Nodes) -> None:
    assert get(where.options(resources=THERE).remote()) == (0, nodes.other.node_id)
    assert get(where.options(label_selector={"zone": "b"}).remote()) == (0, nodes.other.node_id)


def test_a_task_says_on_which_node_it_is_to_run(nodes: Nodes) -> None:
    for node in (nodes.head, nodes.other):
        on = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        assert get(where.options(scheduling_strategy=on).remote()) == (0, node.node_id)
    softly = NodeAffinitySchedulingStrategy("00" * 28, soft=True)
    assert get(where.options(scheduling_strategy=softly).remote(1))[0] == 1
    on = NodeAffinitySchedulingStrategy("00" * 28, soft=False)
    with pytest.raises(exceptions.TaskUnschedulableError, match="which this cluster does not have"):
        get(where.options(scheduling_strategy=on).remote())


def test_a_worker_that_nobody_uses_counts_as_room(nodes: Nodes) -> None:
    """This process keeps it for a moment, in case it has more of the same."""
    there, whole = nodes.other.node_id, where.options(num_cpus=2, label_selector={"zone": "b"})
    for strategy in (
        NodeAffinitySchedulingStrategy(there, soft=False, _fail_on_unavailable=True),
        NodeAffinitySchedulingStrategy(there, soft=True, _spill_on_unavailable=True),
        NodeLabelSchedulingStrategy(hard={}, soft={"zone": In("b")}),
    ):
        assert get(whole.remote()) == (0, there)
        assert get(where.options(scheduling_strategy=strategy).remote()) == (0, there), strategy


def test_a_task_that_is_not_to_wait_fails_where_others_run(nodes: Nodes) -> None:
    path = nodes.file("go")
    running = waits.options(num_cpus=2, label_selector={"zone": "b"}).remote(path)
    until(lambda: begun(path), "the task runs")
    at_once = NodeAffinitySchedulingStrategy(nodes.other.node_id, soft=False, _fail_on_unavailable=True)
    refused = where.options(scheduling_strategy=at_once).remote()
    with pytest.raises(exceptions.TaskUnschedulableError, match=r"where cannot run now: on node .* \(0 of 2 free\)"):
        get(refused)
    open(path, "w").close()
    assert get(running) == nodes.other.node_id
    assert get(where.options(scheduling_strategy=at_once).remote(1)) == (1, nodes.other.node_id)


def test_tasks_that_are_to_be_spread_are(nodes: Nodes) -> None:
    spread = waits.options(scheduling_strategy="SPREAD", num_cpus=1)
    path = nodes.file("spread")
    refs = [spread.remote(path) for _ in range(3)]
    until(lambda: begun(path) == 3, "three tasks to run at once")
    with open(path, "w"):
        pass
    assert collections.Counter(get(refs)) == {nodes.head.node_id: 1, nodes.other.node_id: 2}


def test_errors_generators_references_and_nested_tasks_come_back(nodes: Nodes) -> None:
    @umbel.remote(resources=THERE)
    def fails() -> None:
        raise ValueError("not today")

    @umbel.remote(resources=THERE)
    def counts(until_number: int) -> Iterator[tuple[int, str]]:
        for number in range(until_number):
            yield number, place_of()

    @umbel.remote(resources=THERE)
    def nests(reference: list[Any]) -> tuple[int, list[Any], Any]:
        return umbel.get(reference[0]), umbel.get([where.remote(one, 0.2) for one in range(3)]), [umbel.put("kept")]

    place_of = place
    with pytest.raises(ValueError, match="not today"):
        get(fails.remote())
    assert [get(one) for one in counts.remote(3)] == [(number, nodes.other.node_id) for number in range(3)]
    number, nested, kept = get(nests.remote([umbel.put(7)]))
    assert number == 7 and [one for one, _ in nested] == [0, 1, 2]
    assert get(kept[0]) == "kept"


@pytest.mark.parametrize("force", [False, True])
def test_a_task_of_another_node_is_cancelled(nodes: Nodes, force: bool) -> None:
    path = nodes.file("cancelled")
    running = waits.options(resources=THERE, max_retries=0).remote(path)
    until(lambda: begun(path), "the task to run")
    umbel.cancel(running, force=force)
    with pytest.raises(exceptions.TaskCancelledError):
        get(running)
    assert get(where.options(resources=THERE).remote(1)) == (1, nodes.other.node_id)


def test_a_worker_of_another_node_that_dies_is_replaced(nodes: Nodes) -> None:
    path = nodes.file("dies")

    @umbel.remote(resources=THERE)
    def dies() -> str:
        if not os.path.exists(path):
            with open(path, "w"):
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return "the second time"

    assert get(dies.remote()) == "the second time"
    os.unlink(path)
    with pytest.raises(exceptions.WorkerCrashedError, match="killed by signal 9"):
        get(dies.options(max_retries=0).remote())


def test_tasks_of_a_node_that_is_killed_run_elsewhere(nodes: Nodes) -> None:
    third = nodes.cluster.add_node(num_cpus=2)
    refs = [where.remote(number, 0.1) for number in range(60)]
    until(lambda: nodes.leased(), "the node to have some")
    umbel.wait(refs, num_returns=10, timeout=TIMEOUT_S)
    nodes.cluster.remove_node(nodes.other, allow_graceful=False)
    found = get(refs)
    assert [number for number, _ in found] == list(range(60))
    assert third.node_id in {node for _, node in found}


def test_a_task_that_may_not_be_tried_again_says_that_its_node_died(nodes: Nodes) -> None:
    path = nodes.file("once")
    once = waits.options(resources=THERE, max_retries=0).remote(path)
    until(lambda: begun(path), "the task to run")
    nodes.cluster.remove_node(nodes.other, allow_graceful=False)
    with pytest.raises(exceptions.NodeDiedError, match=nodes.other.node_id):
        get(once)
    waiting = where.options(resources=THERE).remote()
    until(lambda: "no node has" in umbel.explain(waiting), "it to be said that nobody has it any more")


def test_what_waits_for_another_node_says_so(nodes: Nodes) -> None:
    path = nodes.file("busy")
    busy = [waits.options(resources=THERE).remote(path) for _ in range(2)]
    until(lambda: begun(path) == 2, "both CPUs to be in use")
    waiting = where.options(resources=THERE).remote()
    until(lambda: f"is asked of node {nodes.other.node_id[:8]}" in umbel.explain(waiting), "the reason")
    nowhere = where.options(resources={"nothing": 1}).remote()
    until(lambda: "no node has {CPU: 1, nothing: 1} in total" in umbel.explain(nowhere), "the other reason")
    with open(path, "w"):
        pass
    assert get([*busy, waiting]) == [nodes.other.node_id, nodes.other.node_id, (0, nodes.other.node_id)]
    assert nowhere not in umbel.wait([nowhere], timeout=0)[0]


def test_large_values_and_actors_pass_between_nodes(nodes: Nodes) -> None:
    """As arguments and as results; an actor is called from the other node, and by whoever gets it from there."""

    @umbel.remote(resources=THERE)
    def reversed_of(data: bytes) -> bytes:
        return data[::-1]

    @umbel.remote
    class Actor:
        def kept(self, data: bytes) -> bytes:
            self._data = getattr(self, "_data", b"") + data
            return self._data

    @umbel.remote(resources=THERE)
    def gives(actor: Any, data: bytes) -> int:
        return len(umbel.get(actor.kept.remote(data), timeout=TIMEOUT_S))

    @umbel.remote(resources=THERE)
    def makes() -> Any:
        return Actor.options(lifetime="detached", name="made there").remote()

    data = os.urandom(1 << 20)
    assert get(reversed_of.remote(umbel.put(data))) == data[::-1]
    assert get(reversed_of.remote(data)) == data[::-1]
    actor = Actor.remote()
    assert get(gives.remote(actor, data)) == 1 << 20
    assert get(actor.kept.remote(b"")) == data
    made = get(makes.remote())
    assert get(made.kept.remote(data)) == data
    umbel.kill(made)


def test_large_results_outlive_the_leases_of_whoever_made_them(nodes: Nodes) -> None:
    """More workers than that node keeps without work: those that have values of its owner are kept, until it frees them."""

    @umbel.remote(resources=THERE, num_cpus=0.25)
    def makes(path: str) -> bytes:
        with open(path, "a") as file:
            file.write("ran\n")
        time.sleep(0.3)  # so that each has a worker of its own
        return bytes(1 << 20)

    path = nodes.file("runs")
    refs = [makes.remote(path) for _ in range(4)]
    umbel.wait(refs, num_returns=4, timeout=TIMEOUT_S, fetch_local=False)
    until(lambda: not nodes.leased(), "all leases to be back")
    drivers.pause(4.0)  # twice the time for which a worker is kept without work
    assert [len(get(ref)) for ref in refs] == [1 << 20] * 4
    with open(path) as file:
        assert len(file.readlines()) == 4
    del refs
    until(lambda: len(nodes.query(nodes.other, "workers")) <= 2, "workers that nobody needs to end")


def test_output_of_another_nodes_worker_reaches_the_driver(nodes: Nodes, capfd: pytest.CaptureFixture[str]) -> None:
    seen = []

    def is_there() -> bool:
        seen.append(capfd.readouterr().out)
        return "from elsewhere" in "".join(seen)

    get(umbel.remote(resources=THERE)(lambda: print("from elsewhere")).remote())
    until(is_there, "what it has printed")


DRIVER = """
    import os, umbel

    umbel.init(address=os.environ["SESSION"])
    refs = [umbel.remote(resources={"licence": 1})(lambda: __import__("time").sleep(600)).remote() for _ in range(2)]
    print("asked", flush=True)
    umbel.get(refs)
"""


def test_leases_return_when_their_driver_ends(nodes: Nodes) -> None:
    made = drivers.Driver(DRIVER, nodes.directory, SESSION=nodes.head.session_dir)
    try:
        assert made.line() == "asked"
        until(lambda: len(nodes.leased()) == 2, "it to have leases")
    finally:
        made.kill()
    until(lambda: not nodes.leased(), "them to be given back")
    assert get(where.options(resources={"licence": 4}).remote()) == (0, nodes.other.node_id)
    with contextlib.suppress(Exception):
        made.finish(1)


def cut_daemons(nodes: Nodes) -> int:
    return proxies.cut_connections(nodes.head.pid, int(nodes.other.address.rpartition(":")[2]))


def cut_data(nodes: Nodes) -> int:
    """Between this process and workers of the other node."""
    return proxies.cut_connections(os.getpid(), int(nodes.other.address.rpartition(":")[2]))


def test_a_connection_between_daemons_that_breaks_is_made_anew(nodes: Nodes) -> None:
    path = nodes.file("broken")
    running = waits.options(resources=THERE).remote(path)
    until(lambda: begun(path) == 1, "the task to run")
    if not cut_daemons(nodes):
        pytest.skip("another process's sockets cannot be had here")
    until(lambda: begun(path) == 2, "it to be tried again")
    with open(path, "w"):
        pass
    assert get(running) == nodes.other.node_id
    assert get(where.options(resources=THERE).remote()) == (0, nodes.other.node_id)
    until(lambda: not nodes.leased(), "all leases to go back")


def test_a_data_connection_that_breaks_costs_its_worker(nodes: Nodes) -> None:
    path = nodes.file("broken")
    running = waits.options(resources=THERE).remote(path)
    until(lambda: begun(path) == 1, "the task to run")
    if not cut_data(nodes):
        pytest.skip("sockets cannot be had here")
    until(lambda: begun(path) == 2, "it to be tried again")
    with open(path, "w"):
        pass
    assert get(running) == nodes.other.node_id


@pytest.mark.parametrize(
    ("cut", "error", "told"),
    [
        (cut_daemons, exceptions.NodeDiedError, "connection"),
        (cut_data, exceptions.WorkerCrashedError, "connection"),
    ],
)
def test_a_task_that_may_not_be_tried_again_says_which_connection_broke(
    nodes: Nodes, cut: Callable[[Nodes], int], error: type[Exception], told: str
) -> None:
    path = nodes.file("broken")
    running = waits.options(resources=THERE, max_retries=0).remote(path)
    until(lambda: begun(path) == 1, "the task to run")
    if not cut(nodes):
        pytest.skip("another process's sockets cannot be had here")
    with pytest.raises(error, match=told):
        get(running)
    assert begun(path) == 1


def test_an_actor_goes_on_after_the_connection_to_it_broke(nodes: Nodes) -> None:
    @umbel.remote(num_cpus=0, resources=THERE)
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self, path: str = "") -> int:
            self.count += 1
            if path:
                get(waits.options(num_cpus=0).remote(path))
            return self.count

    counter, path = Counter.remote(), nodes.file("broken")
    assert get(counter.add.remote()) == 1
    call = counter.add.remote(path)
    until(lambda: begun(path) == 1, "the call to run")
    if not cut_data(nodes):
        pytest.skip("sockets cannot be had here")
    with pytest.raises(exceptions.ActorUnavailableError):
        get(call)
    with open(path, "w"):
        pass
    until(lambda: answers(counter.add) == 3, "the actor to answer as the same")


def answers(method: Any, *arguments: Any) -> Any:
    try:
        return get(method.remote(*arguments))
    except exceptions.ActorUnavailableError:
        return None


def test_a_large_result_of_before_the_connection_broke_is_there_and_itself(nodes: Nodes) -> None:
    @umbel.remote(num_cpus=0, resources=THERE)
    class Maker:
        def make(self, letter: bytes) -> bytes:
            return letter * (1 << 20)

    maker = Maker.remote()
    first = maker.make.remote(b"1")
    umbel.wait([first], fetch_local=False, timeout=TIMEOUT_S)
    if not cut_data(nodes):
        pytest.skip("sockets cannot be had here")
    until(lambda: answers(maker.make, b"2") == b"2" * (1 << 20), "the actor to answer")
    assert get(first) == b"1" * (1 << 20)


def test_what_waits_runs_on_a_node_that_comes_later(nodes: Nodes) -> None:
    waiting = where.options(resources={"rare": 1}).remote(5)
    until(lambda: "no node has" in umbel.explain(waiting), "it to wait")
    later = nodes.cluster.add_node(num_cpus=1, resources={"rare": 1})
    assert get(waiting) == (5, later.node_id)


def test_what_waits_at_a_head_that_is_alone_runs_on_the_first_node_that_comes(home: str) -> None:
    cluster = cluster_utils.Cluster(initialize_head=True, connect=True, head_node_args={"num_cpus": 1})
    try:
        waiting = [where.options(resources={"rare": 1}).remote(number) for number in range(3)]
        until(lambda: "but this node has" in umbel.explain(waiting[0]), "them to wait")
        first = cluster.add_node(num_cpus=1, resources={"rare": 1})
        assert get(waiting) == [(number, first.node_id) for number in range(3)]
    finally:
        umbel.shutdown()
        cluster.shutdown()


CROSSING = """
    import os, umbel

    umbel.init(address=os.environ["SESSION"])
    place = umbel.remote(lambda: umbel.get_runtime_context().get_node_id())
    back = place.options(resources={"licence": 1})
    there = umbel.remote(lambda: (umbel.get(back.remote()), umbel.get_runtime_context().get_job_id()))
    print(umbel.get(place.options(resources={"node:__internal_head__": 0.001}).remote()))
    node, job = umbel.get(there.options(resources={"node:__internal_head__": 0.001}).remote())
    print(node, job == umbel.get_runtime_context().get_job_id())
"""


def test_a_task_that_a_task_of_another_node_submits_may_come_back_to_its_drivers_node(nodes: Nodes) -> None:
    made = drivers.Driver(CROSSING, nodes.directory, SESSION=nodes.other.session_dir)
    assert made.finish(TIMEOUT_S)[0].split() == [nodes.head.node_id, nodes.other.node_id, "True"]


def test_a_worker_that_another_node_cannot_start_is_an_error_that_names_the_node(nodes: Nodes) -> None:
    source = """
        import os, sys, umbel

        sys.executable = "/nowhere/python"
        umbel.init(address=os.environ["SESSION"])
        try:
            umbel.get(umbel.remote(resources={"licence": 1})(lambda: 1).remote(), timeout=30)
        except umbel.exceptions.RuntimeEnvSetupError as error:
            print(error)
        """
    told = drivers.Driver(source, nodes.directory, SESSION=nodes.head.session_dir).finish(TIMEOUT_S)[0]
    assert f"on node {nodes.other.node_id}: workers of this job run /nowhere/python, as its driver does" in told


def test_recursion_over_nodes_with_one_cpu_each_ends(nodes: Nodes) -> None:
    @umbel.remote
    def fibonacci(number: int) -> tuple[int, set[str]]:
        here = {umbel.get_runtime_context().get_node_id()}
        if number < 2:
            return number, here
        (first, others), (second, more) = umbel.get([fibonacci.remote(number - 1), fibonacci.remote(number - 2)])
        return first + second, here | others | more

    value, used = get(fibonacci.remote(7))
    assert value == 13
    assert used == {nodes.head.node_id, nodes.other.node_id}


def test_all_is_right_whatever_dies(nodes: Nodes) -> None:
    @umbel.remote(max_retries=-1)
    def sums(count: int) -> int:
        return sum(number for number, _ in umbel.get([again.remote(one, 0.005) for one in range(count)]))

    def kill_worker(nodes: Nodes) -> None:
        pids = [one["pid"] for one in nodes.query(nodes.other, "workers") if one["client"]]
        for pid in pids[:1]:
            drivers.kill(pid)

    def replace_node(nodes: Nodes) -> None:
        nodes.cluster.remove_node(nodes.other, allow_graceful=False)
        nodes.other = nodes.cluster.add_node(num_cpus=2)

    again = where.options(max_retries=-1)
    disturbances: list[Callable[[Nodes], Any]] = [
        kill_worker,
        cut_daemons,
        replace_node,
        cut_data,
        kill_worker,
        cut_daemons,
    ]
    for disturb in disturbances:
        plain = [again.remote(number, 0.1) for number in range(30)]
        nested = [sums.remote(count) for count in range(5)]
        until(nodes.leased, "the other node to have some")
        disturb(nodes)
        assert [number for number, _ in get(plain)] == list(range(30))
        assert get(nested) == [0, 0, 1, 3, 6]
    until(lambda: not nodes.leased() and not nodes.query(nodes.head, "pending"), "all to be given back")


PROGRAM_ON_A_FRESH_NODE = """
    import os, sys, time, umbel

    umbel.init(address=sys.argv[1])

    @umbel.remote(max_retries=0)
    def waits(path):
        print("begun", file=open(path + ".begun", "w"))
        while not os.path.exists(path):
            time.sleep(0.01)
        return "once"

    @umbel.remote(scheduling_strategy="SPREAD", max_retries=-1)
    def quick(number):
        time.sleep(0.1)
        return number

    first = waits.remote(sys.argv[2])
    while not os.path.exists(sys.argv[2] + ".begun"):
        time.sleep(0.01)
    assert umbel.get([quick.remote(number) for number in range(12)]) == list(range(12))
    print("there", flush=True)
    print(umbel.get(first, timeout=60))
"""


def test_a_node_where_one_has_died_leases_nothing_of_itself() -> None:
    """Until the death is known it takes itself, by its address, for the dead node: that node's end was that of its own leases."""
    with homes.own_home(UMBEL_NODE_RECONNECT_S="3") as directory:
        nodes = Nodes(directory)
        try:
            port = int(nodes.other.address.rpartition(":")[2])
            nodes.cluster.remove_node(nodes.other, allow_graceful=False)
            fresh = nodes.cluster.add_node(num_cpus=2, port=port)
            path = nodes.file("go")
            driver = drivers.Driver(PROGRAM_ON_A_FRESH_NODE, directory, arguments=(fresh.session_dir, path))
            assert driver.line() == "there"
            until(
                lambda: [one["alive"] for one in nodes.query(fresh, "nodes")].count(True) == 2, "the death to be known"
            )
            leased = [one for one in nodes.query(fresh, "workers") if one["state"] == "leased" and not one["client"]]
            assert not leased, "nobody has it any more"
            with open(path, "w"):
                pass
            assert driver.finish(TIMEOUT_S)[0] == "once\n"
        finally:
            nodes.cluster.shutdown()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({"t": "leave", "client": "ab" * 16}, "the first message must be hello, got leave"),
        (
            {"t": "hello", "protocol": lease_messages.PROTOCOL_VERSION + 1, "node": "ab" * 28, "to": "cd" * 28},
            f"it speaks protocol {lease_messages.PROTOCOL_VERSION + 1}, this node {lease_messages.PROTOCOL_VERSION}",
        ),
        (
            {"t": "hello", "protocol": lease_messages.PROTOCOL_VERSION, "node": "ab" * 28, "to": "cd" * 28},
            f"it wants node {'cd' * 28}, this one is ",
        ),
        ({"t": "hello", "protocol": 1, "node": "ab"}, "hello.node is wrong"),
        ({"t": "room", "available": {}}, "unknown message type 'room'"),
    ],
)
def test_a_node_that_breaks_the_protocol_is_cut_off(home: str, sent: dict[str, Any], told: str) -> None:
    cluster = cluster_utils.Cluster(initialize_head=True)
    try:
        assert cluster.head_node is not None
        token = token_files.read(cluster.token_file)
        with dialler.connect(addresses.parse(cluster.head_node.address), token, handshake.LEASES) as stream:
            stream.send(frames.encode_control(sent))
            assert select.select([stream], [], [], TIMEOUT_S)[0]
            assert stream.recv(1) == b""
        with open(os.path.join(cluster.head_node.session_dir, "daemon.log")) as file:
            assert told in file.read()
    finally:
        cluster.shutdown()


def test_a_node_whose_process_counts_on_a_worker_that_it_has_not_leased_is_told(home: str) -> None:
    cluster = cluster_utils.Cluster(initialize_head=True)
    try:
        assert cluster.head_node is not None
        head, process, worker = cluster.head_node, "ab" * 16, "cd" * 16
        with dialler.connect(
            addresses.parse(head.address), token_files.read(cluster.token_file), handshake.LEASES
        ) as stream:
            hello = {"t": "hello", "protocol": lease_messages.PROTOCOL_VERSION, "node": "ef" * 28, "to": head.node_id}
            for message in (hello, {"t": "check", "client": process, "worker": worker}):
                stream.send(frames.encode_control(message))
            reader, heard = frames.FrameReader(), []
            while len(heard) < 2:
                assert select.select([stream], [], [], TIMEOUT_S)[0]
                heard += [frames.decode_control(one)[0] for one in reader.feed(stream.recv(1 << 16))]
        assert (heard[1]["t"], heard[1]["client"]) == ("tell", process)
        assert (heard[1]["message"]["t"], heard[1]["message"]["worker"]) == ("worker_died", worker)
    finally:
        cluster.shutdown()


def test_only_nodes_may_ask_for_leases(home: str) -> None:
    cluster = cluster_utils.Cluster(initialize_head=True)
    try:
        assert cluster.head_node is not None
        token = token_files.read(cluster.token_file).lowered(tokens.Role.ADMIN)
        with pytest.raises(exceptions.AuthenticationError, match="may not reach"):
            dialler.connect(addresses.parse(cluster.head_node.address), token, handshake.LEASES)
    finally:
        cluster.shutdown()
