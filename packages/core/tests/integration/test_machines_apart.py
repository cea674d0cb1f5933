"""What processes of one machine do by its sockets and its memory, on machines that share neither: tensors that stay in their
actors, compiled graphs."""

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
    say(get(made[0])["step"])
    umbel.kill(holder)
    try:
        while get(holder.pid.remote()):
            pass
    except exceptions.ActorDiedError:
        pass
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
    assert told == ["7", *["lost True True"] * 4, "True"]


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
