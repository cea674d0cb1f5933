"""What processes of one machine do by its sockets and its memory, on machines that share neither: tensors that stay in their
actors, collective groups, compiled graphs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import homes
import network
import pytest
from machines import Machines

np = pytest.importorskip("numpy")
pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="network namespaces are Linux's"),
    pytest.mark.timeout(180),
]

TIMEOUT_S = 90


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Three with nodes, the third of which has the programs, with work on the second and the third; and one without."""
    try:
        cables = network.Network(4, own_memory=True)
    except network.NotPermitted as error:
        pytest.skip(f"networks cannot be made here: {error}")
    try:
        with homes.own_home() as home:
            made = Machines(cables, home)
            try:
                made.start([{}, {"there": 4}, {"here": 4}])
                yield made
            finally:
                made.end()
    finally:
        cables.close()


def run(machines: Machines, source: str) -> list[str]:
    """What a program on the last machine prints."""
    return machines.program(source).finish(TIMEOUT_S)[0].splitlines()


TENSORS = """
    import numpy as np
    from umbel._client import current, values

    @umbel.remote(num_cpus=0, enable_tensor_transport=True)
    class Holder:
        @umbel.method(tensor_transport="shm")
        def make(self, count):
            self.newest = {"layer": np.arange(count, dtype="f8"), "order": np.asfortranarray(np.eye(3)), "step": 7}
            return self.newest

        def is_same(self, made):
            return made["layer"] is self.newest["layer"]

        def held(self):
            records = current.engine().values.table.records.values()
            return sum(one.kind in (values.HELD, values.STORED) for one in records)

        def pid(self):
            return os.getpid()

    @umbel.remote(num_cpus=0)
    class Taker:
        def total(self, made):
            made["layer"][0] = 5.0
            return made["step"], float(made["layer"].sum())

        def nested(self, boxed):
            return self.total(umbel.get(boxed[0]))

    def sum_to(count):
        return float(np.arange(count).sum())

    holder = Holder.options(resources={"there": 0.01}).remote()
"""


def test_tensors_are_taken_from_another_machine(machines: Machines) -> None:
    """Small ones and large ones; anybody may write to his own, and nothing stays once nobody needs it."""
    told = run(
        machines,
        TENSORS
        + """
    takers = [Taker.options(resources={place: 0.01}).remote() for place in ("here", "there", "here")]
    for count in (10, 300_000):
        made = holder.make.remote(count)
        say(get([one.total.remote(made) for one in takers]) == [(7, sum_to(count) + 5.0)] * 3)
        say(get(takers[0].nested.remote([made])) == (7, sum_to(count) + 5.0))
        found = get(made)
        say(found["layer"].tolist() == list(range(count)), found["layer"].flags.writeable, found["order"].flags.f_contiguous)
        say(get(holder.is_same.remote(made)))
    del made, found
    while get(holder.held.remote()):
        time.sleep(0.01)
    boxed = umbel.put({"layer": np.ones(100_000), "step": 7}, _tensor_transport="shm")
    far = Taker.options(resources={"there": 0.01}).remote()
    say(get(far.total.remote(boxed)))
    """,
    )
    assert told == ["True", "True", "True True True", "True"] * 2 + ["(7, 100004.0)"]


def test_tensors_of_a_dead_actor_on_another_machine_are_lost(machines: Machines) -> None:
    """Who lives is never said to be dead; who is dead is, at once."""
    told = run(
        machines,
        TENSORS
        + """
    made = [holder.make.remote(count) for count in (10, 300_000)]
    first = Taker.options(resources={"here": 0.01}).remote()  # who has had a copy may have it still
    say(get(first.total.remote(made[0])))
    pid = get(holder.pid.remote())
    umbel.kill(holder)
    while os.path.exists(f"/proc/{pid}"):  # its calls fail sooner, and it may answer until then
        time.sleep(0.005)
    taker = Taker.options(resources={"here": 0.01}).remote()
    began_s = time.monotonic()
    for one in made:
        for read in (get, lambda one: get(taker.total.remote(one))):
            try:
                say(read(one))
            except exceptions.ObjectLostError as error:
                say("lost", "actor Holder (" in str(error), "has died" in str(error))
    say(time.monotonic() - began_s < 20)
    """,
    )
    assert told == ["(7, 50.0)", *["lost True True"] * 4, "True"]


GRAPH = """
    from umbel.dag import InputNode, MultiOutputNode

    @umbel.remote(num_cpus=0)
    class Stage:
        def __init__(self, factor):
            self.factor = factor

        def scale(self, value):
            return value * self.factor

        def node(self):
            return umbel.get_runtime_context().get_node_id()

    def graph_of(*places):
        stages = [Stage.options(resources={place: 0.01}).remote(10) for place in places]
        with InputNode() as given:
            found = given
            for one in stages:
                found = one.scale.bind(found)
            return stages, MultiOutputNode([found, stages[0].scale.bind(given)])
"""


@pytest.mark.parametrize("places", [("there", "there"), ("here", "there"), ("here", "here")])
def test_a_graph_over_machines_has_the_same_results(machines: Machines, places: tuple[str, ...]) -> None:
    out, error = machines.program(
        GRAPH
        + f"""
    stages, graph = graph_of(*{places!r})
    compiled = graph.experimental_compile()
    executions = [compiled.execute(number) for number in (1, "ab", 0.5)]
    say([get(one) for one in executions])
    failing = compiled.execute(None)
    try:
        say(umbel.get(failing[0]))
    except TypeError as error:
        say("TypeError")
    say(get(compiled.execute(2)))
    compiled.teardown()
    say(get([one.scale.remote(3) for one in stages]), get(stages[-1].node.remote()))
    """
    ).finish(TIMEOUT_S)
    nodes = {"there": machines.nodes[1].node_id, "here": machines.nodes[2].node_id}
    text = "ab" * 10
    assert out.splitlines() == [
        str([[100, 10], [text * 10, text], [50.0, 5.0]]), "TypeError", "[200, 20]", f"[30, 30] {nodes[places[-1]]}",
    ]  # fmt: skip
    is_apart = "there" in places
    assert ("run by ordinary calls" in error) == is_apart
    assert (f"is on node {nodes['there']}, and this process on node {nodes['here']}" in error) == is_apart


RANKS = """
    import numpy as np
    from umbel.util import collective

    @umbel.remote(num_cpus=0)
    class Rank:
        def join(self, size, rank, name, backend="shm", timeout_s=60):
            collective.init_collective_group(size, rank, backend, name, gloo_timeout=timeout_s * 1000)

        def work(self, size, rank, name, backend="shm"):
            self.join(size, rank, name, backend)
            return work(size, rank, name)

        def reduce(self, count, name):
            found = np.ones(count)
            collective.allreduce(found, name)
            return float(found.sum())

        def barrier(self, name):
            collective.barrier(name)

        def leave(self, name):
            collective.destroy_collective_group(name)

        def pid(self):
            return os.getpid()

    def work(size, rank, name):
        for count in (3, 700_001):
            ramp = np.arange(count, dtype="f4") % 251
            everything = sum(ramp + other for other in range(size))
            found = ramp + rank
            collective.allreduce(found, name)
            assert np.array_equal(found, everything), "allreduce"
            found = ramp + rank
            collective.reduce(found, 1, name)
            assert np.array_equal(found, everything if rank == 1 else ramp + rank), "reduce"
            collective.broadcast(found, 1, name)
            assert np.array_equal(found, everything), "broadcast"
            outputs = [np.empty(count, "f4") for _ in range(size)]
            collective.allgather(outputs, ramp + rank, name)
            assert all(np.array_equal(one, ramp + other) for other, one in enumerate(outputs)), "allgather"
            collective.reducescatter(found, [ramp + rank + 10 * other for other in range(size)], name)
            assert np.array_equal(found, everything + 10 * rank * size), "reducescatter"
            if rank == 0:
                collective.send(ramp + 5, size - 1, name)
            elif rank == size - 1:
                collective.recv(found, 0, name)
                assert np.array_equal(found, ramp + 5), "recv"
            collective.barrier(name)
        try:
            collective.allreduce(np.zeros(3 + rank), name)
        except exceptions.CollectiveMismatchError as error:
            assert "rank 0 called allreduce(sum) of float64 (3,); rank 1 called" in str(error), str(error)
        return "fine"

    def ranks_at(*places):
        return [Rank.options(resources={place: 0.01}).remote() for place in places]
"""


@pytest.mark.parametrize(
    ("backend", "first"),
    [("shm", 0), ("shm", 1), ("shm", 2), pytest.param("gloo", 2, marks=pytest.mark.torch)],
)
def test_ranks_on_several_machines_do_every_operation(machines: Machines, backend: str, first: int) -> None:
    """first: who opens the door, the program, an actor on its machine, or one on another."""
    if backend == "gloo":
        pytest.importorskip("torch")
    told = run(
        machines,
        RANKS
        + f"""
    actors = ranks_at("here", "there", "there")
    numbers = [1, 2, 3]
    working = []
    if {first}:
        working = [actors[{first} - 1].work.remote(4, numbers.pop({first} - 1), "g", {backend!r})]
        actors.pop({first} - 1)
        while "joins group" not in umbel.explain(working[0]):
            time.sleep(0.01)
    working += [one.work.remote(4, number, "g", {backend!r}) for one, number in zip(actors, numbers)]
    collective.init_collective_group(4, 0, {backend!r}, "g")
    say(work(4, 0, "g"), get(working))
    """,
    )
    assert told == ["fine ['fine', 'fine', 'fine']"]


def test_a_rank_that_is_killed_on_another_machine_is_an_error_at_all_others(machines: Machines) -> None:
    """In the midst of the operations, and at whoever waits for it; and the next group is a new one."""
    told = run(
        machines,
        RANKS
        + """
    def outcome(what):
        try:
            return get(what) if isinstance(what, umbel.ObjectRef) else what()
        except exceptions.CollectiveError as error:
            return isinstance(error, exceptions.CollectiveRankDiedError), error.rank

    actors = ranks_at("here", "there", "there")
    for victim in (2, 0):
        joining = [one.join.remote(4, number + 1, "g") for number, one in enumerate(actors)]
        collective.init_collective_group(4, 0, group_name="g")
        get(joining)
        left = [one for one in actors if one is not actors[victim]]
        waiting = [one.reduce.remote(500_000, "g") for one in left]
        began_s = time.monotonic()
        umbel.kill(actors[victim])
        say(outcome(lambda: collective.allreduce(np.ones(500_000), "g")), [outcome(one) for one in waiting])
        say(time.monotonic() - began_s < 20)
        collective.destroy_collective_group("g")
        get([one.leave.remote("g") for one in left])
        actors[victim : victim + 1] = ranks_at("there" if victim else "here")
    joining = [one.join.remote(4, number + 1, "g") for number, one in enumerate(actors)]
    collective.init_collective_group(4, 0, group_name="g")
    get(joining)
    leaving = actors[1].leave.remote("g")
    say(outcome(lambda: collective.barrier("g")))
    """,
    )
    died = [f"(True, {rank})" for rank in (3, 1, 2)]
    assert told == [f"{died[0]} [{died[0]}, {died[0]}]", "True", f"{died[1]} [{died[1]}, {died[1]}]", "True", died[2]]


def test_a_rank_that_does_not_come_is_named_on_all_machines(machines: Machines) -> None:
    told = run(
        machines,
        RANKS
        + """
    (far,) = ranks_at("there")
    joining = far.join.remote(3, 1, "g", timeout_s=1)
    for join in (lambda: collective.init_collective_group(3, 0, group_name="g", gloo_timeout=1000), lambda: get(joining)):
        try:
            say(join())
        except exceptions.CollectiveTimeoutError as error:
            say("rank 2 did not come within 1 s" in str(error))
    joining = far.join.remote(2, 1, "g")
    while "joins group" not in umbel.explain(joining):
        time.sleep(0.01)
    umbel.kill(far)
    (far,) = ranks_at("there")
    joining = far.join.remote(2, 1, "g")
    collective.init_collective_group(2, 0, group_name="g")
    say(get(joining))
    """,
    )
    assert told == ["True", "True", "None"]


def test_a_rank_that_hears_nothing_of_another_machine_names_both_nodes(machines: Machines) -> None:
    told = run(
        machines,
        RANKS
        + """
    import signal

    (far,) = ranks_at("there")
    pid = get(far.pid.remote())
    joining = far.join.remote(2, 1, "g")
    while "joins group" not in umbel.explain(joining):
        time.sleep(0.01)
    os.kill(pid, signal.SIGSTOP)
    try:
        collective.init_collective_group(2, 0, group_name="g", gloo_timeout=1000)
    except exceptions.CollectiveTimeoutError as error:
        say(error)
    finally:
        os.kill(pid, signal.SIGCONT)
    """,
    )
    here, there = (f"the node whose id begins with {machines.nodes[host].node_id[:12]}" for host in (2, 1))
    assert f"rank 0, on {here}, has heard nothing for 1 s from the rank that came first, on {there}: " in told[0]


def test_a_backend_that_needs_one_machine_says_where_its_ranks_are(machines: Machines) -> None:
    told = run(
        machines,
        RANKS
        + """
    (far,) = ranks_at("there")
    joining = far.join.remote(2, 1, "g")
    collective.init_collective_group(2, 0, group_name="g")
    get(joining)
    try:
        collective.get_group_handle("g")._peers.exchange_descriptors(0)
    except exceptions.UnsupportedFeature as error:
        say(error)
    """,
    )
    here, there = (machines.nodes[host].node_id[:12] for host in (2, 1))
    expected = f"rank 0 is on the node whose id begins with {here}, rank 1 is on the node whose id begins with {there}"
    assert expected in told[0]
    assert "place the ranks on one node" in told[0]


def test_a_program_on_a_machine_without_a_node_takes_part(machines: Machines) -> None:
    told = (
        machines.remote_program(
            RANKS
            + TENSORS
            + """
    say(get(holder.make.remote(300_000))["layer"].sum() == sum_to(300_000))
    taker = Taker.options(resources={"here": 0.01}).remote()
    say(get(taker.total.remote(umbel.put({"layer": np.ones(100_000), "step": 7}, _tensor_transport="shm"))))
    actors = ranks_at("here", "there")
    working = [one.work.remote(3, number + 1, "g") for number, one in enumerate(actors)]
    collective.init_collective_group(3, 0, group_name="g")
    say(work(3, 0, "g"), get(working))
    try:
        collective.init_collective_group(3, 0, "gloo", "other")
    except exceptions.UnsupportedFeature as error:
        say("let actors be the ranks" in str(error))
    """,
            host=3,
        )
        .finish(TIMEOUT_S)[0]
        .splitlines()
    )
    assert told == ["True", "(7, 100004.0)", "fine ['fine', 'fine']", "True"]
