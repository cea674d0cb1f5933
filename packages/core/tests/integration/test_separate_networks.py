"""A cluster whose nodes have networks of their own, and cables that are pulled out."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import drivers
import homes
import network
import pytest
from machines import Machines

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="network namespaces are Linux's"),
    pytest.mark.timeout(180),
]

TIMEOUT_S = 90
HEAD, WORKER, DRIVER = range(3)  # the hosts
UNPLUGGED_S = 3.0  # a third of what makes a node dead here
DELAY_MS = 20

DEAD_IN_10_S = {  # of silence
    "UMBEL_HEALTH_CHECK_PERIOD_S": "1",
    "UMBEL_HEALTH_CHECK_TIMEOUT_S": "5",
    "UMBEL_HEALTH_CHECK_FAILURE_THRESHOLD": "5",
    "UMBEL_NODE_RECONNECT_S": "10",
}
DEAD_IN_4_S = DEAD_IN_10_S | {"UMBEL_HEALTH_CHECK_TIMEOUT_S": "2", "UMBEL_HEALTH_CHECK_FAILURE_THRESHOLD": "2"}


@pytest.fixture
def machines(request: pytest.FixtureRequest) -> Iterator[Machines]:
    """With other times where a test's parameter says so."""
    cables = network.Network(3)
    try:
        with homes.own_home(**getattr(request, "param", DEAD_IN_10_S)) as home:
            made = Machines(cables, home)
            try:
                made.start([{}, {"there": 4}, {}])
                yield made
            finally:
                made.end()
    finally:
        cables.close()


def test_a_program_works_on_another_network_and_goes_on_after_its_cable_was_out(machines: Machines) -> None:
    machines.network.slow_down(WORKER, DELAY_MS)
    program = machines.program(
        """
    size = 8 << 20
    say(get(where.remote()))
    made = makes.remote(size)
    say(zlib.crc32(get(made)) == get(checksum.remote(made)) == get(checksum.remote(umbel.put(bytes(range(256)) * (size // 256)))))
    counter = Counter.remote()
    say(get([counter.add.remote() for _ in range(3)]))
    waiting = counter.waits.remote(0.5)
    say("unplug")
    sys.stdin.readline()
    refs = [where.remote() for _ in range(4)]
    later = counter.add.remote()
    say("asked")
    say(get(waiting), len(set(get(refs))), get(later))
    say(zlib.crc32(get(makes.remote(size))) == get(checksum.remote(made)), get(counter.add.remote()))
    """
    )
    assert program.line() == machines.nodes[WORKER].node_id
    assert program.line() == "True"
    assert program.line() == "[1, 2, 3]"
    assert program.line() == "unplug"
    machines.network.unplug(WORKER)
    program.tell()
    assert program.line() == "asked"
    drivers.pause(UNPLUGGED_S)
    machines.network.plug(WORKER)
    assert program.line() == "3 1 4"
    assert program.finish(TIMEOUT_S)[0].splitlines() == ["True 5"]
    assert machines.state(WORKER) == "alive"


def test_a_node_whose_cable_stays_out_is_dead_to_all_and_ends_when_it_hears_of_it(machines: Machines) -> None:
    program = machines.program(
        """
    @umbel.remote(resources={"there": 1}, max_retries=0)
    def waits(path):
        open(path, "w").close()
        time.sleep(600)

    made = makes.remote(8 << 20)
    umbel.wait([made], fetch_local=False)
    counter = Counter.remote()
    say(get(counter.add.remote()))
    path = os.path.join(os.environ["TMPDIR"], "begun")
    waiting = waits.remote(path)
    while not os.path.exists(path):
        time.sleep(0.01)
    say("unplug")
    sys.stdin.readline()
    calls = [counter.add.remote()]
    for name, reference in (("task", waiting), ("call", calls[0]), ("value", made)):
        try:
            say(name, get(reference))
        except exceptions.UmbelError as error:
            say(name, type(error).__name__)
    while True:
        try:
            say(get(counter.add.remote()))
        except exceptions.ActorUnavailableError:
            continue
        except exceptions.ActorDiedError as error:
            say("dead", "there" if "node" in str(error) else str(error))
        break
    again = where.remote()
    while "no node has" not in umbel.explain(again):
        time.sleep(0.05)
    say(get(umbel.remote(lambda: 1).remote()))
    """
    )
    assert program.line() == "1"
    assert program.line() == "unplug"
    machines.network.unplug(WORKER)
    program.tell()
    drivers.wait_until(lambda: machines.state(WORKER) == "dead", what="it to be dead", timeout_s=TIMEOUT_S)
    told = program.finish(TIMEOUT_S)[0].splitlines()
    assert told[0] == "task NodeDiedError"
    assert told[1] in ("call ActorUnavailableError", "call ActorDiedError")
    assert told[2] == "value ObjectReconstructionFailedError"
    assert told[3:] == ["dead there", "1"]
    machines.network.plug(WORKER)
    assert machines.nodes[WORKER].driver.line() == "3"  # the exit code of a node that was declared dead
    assert [machines.state(host) for host in (HEAD, WORKER, DRIVER)] == ["alive", "dead", "alive"]


@pytest.mark.parametrize("machines", [DEAD_IN_4_S], indirect=True)
def test_a_path_that_loses_all_between_two_nodes_is_broken_off_as_soon_as_a_silent_node_would_be_dead(
    machines: Machines,
) -> None:
    """Before: after a minute. The head hears both all the time. A connection is broken off by who sends something as well as by
    who waits; and once the path is there again, all goes on, and what a process on the other side borrows is there."""
    program = machines.program(
        """
    @umbel.remote(resources={"there": 1}, max_retries=0)
    def waits(path):
        open(path, "w").close()
        time.sleep(600)

    @umbel.remote(resources={"there": 1})
    class Keeper:
        def keep(self, boxed):
            self.ref = boxed[0]

        def read(self):
            return umbel.get(self.ref)

    keeper = Keeper.remote()
    get(keeper.keep.remote([umbel.put("kept")]))
    counters = [Counter.remote() for _ in range(2)]
    say(get([one.add.remote() for one in counters]))
    path = os.path.join(os.environ["TMPDIR"], "begun")
    waiting = {"task": waits.remote(path), "call": counters[0].waits.remote(600)}
    while not os.path.exists(path):
        time.sleep(0.01)
    say("part")
    sys.stdin.readline()
    waiting["later call"] = counters[1].add.remote()
    waiting["reading"] = keeper.read.remote()
    for name, reference in waiting.items():
        try:
            say(name, umbel.get(reference, timeout=40))
        except exceptions.UmbelError as error:
            say(name, type(error).__name__)
    say("told")
    sys.stdin.readline()
    while True:
        try:
            say(get(counters[1].add.remote()) in (2, 3))
            break
        except exceptions.ActorUnavailableError:
            continue
    while True:
        try:
            say(get(keeper.read.remote()))
            break
        except exceptions.ActorUnavailableError:
            continue
    """
    )
    assert program.line() == "[1, 1]"
    assert program.line() == "part"
    machines.network.part(WORKER, DRIVER)
    program.tell()
    told = [program.line() for _ in range(4)]
    assert told[0] in ("task NodeDiedError", "task WorkerCrashedError")
    assert told[1:] == [f"{what} ActorUnavailableError" for what in ("call", "later call", "reading")]
    assert program.line() == "told"
    assert {*machines.states().values()} == {"alive"}
    machines.network.join(WORKER, DRIVER)
    assert program.finish(TIMEOUT_S)[0].splitlines() == ["True", "kept"]
