"""What processes of one machine do by its sockets and its memory, on machines that share neither: tensors that stay in their
actors."""

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
