"""A cluster whose nodes have networks of their own, and cables that are pulled out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import drivers
import homes
import network
import pytest

from umbel._client import tool

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="network namespaces are Linux's"),
    pytest.mark.timeout(180),
]

TIMEOUT_S = 90
HEAD, WORKER, DRIVER = range(3)  # the hosts
UNPLUGGED_S = 3.0  # a third of what makes a node dead here
DELAY_MS = 20

NODE = """
    import json, os, sys
    from umbel._client import cluster_node

    given = json.loads(os.environ["NODE"])
    place = cluster_node.Place(head=given["head"], host=given["host"], port=0, token_file=given["token"])
    wishes = cluster_node.Wishes(num_cpus=2, num_gpus=0, resources=given["resources"], object_store_memory=150 << 20)
    started = cluster_node.start_node(wishes, place, ends_with_starter=True)
    made = started.launched
    print(json.dumps([started.address, made.session_dir, made.node_id]), flush=True)
    print(made.process.wait(), flush=True)
"""

BEGIN = """
    import os, sys, time, zlib, umbel
    from umbel import exceptions

    umbel.init(address=os.environ["SESSION"], log_to_driver=False)

    def say(*what):
        print(*what, flush=True)

    def get(reference):
        return umbel.get(reference, timeout=80)

    @umbel.remote(resources={"there": 1})
    def where():
        return umbel.get_runtime_context().get_node_id()

    @umbel.remote(resources={"there": 1}, max_retries=0)
    def makes(size):
        return bytes(range(256)) * (size // 256)

    @umbel.remote(resources={"there": 1})
    def checksum(data):
        return zlib.crc32(data)

    @umbel.remote(num_cpus=0, resources={"there": 0.01})
    class Counter:
        def __init__(self):
            self.count = 0

        def add(self):
            self.count += 1
            return self.count

        def waits(self, seconds):
            time.sleep(seconds)
            return self.count
"""


class Node:
    def __init__(self, driver: drivers.Driver) -> None:
        self.driver = driver
        self.address, self.session_dir, self.node_id = json.loads(driver.line())


class Machines:
    """A head, a node with the resource "there", and one for programs."""

    def __init__(self, cables: network.Network, directory: str) -> None:
        self.network = cables
        self._directory = directory
        self._started: list[drivers.Driver] = []
        self.nodes: list[Node] = []

    def start(self) -> None:
        for host, resources in enumerate([{}, {"there": 4}, {}]):
            self.nodes.append(self._node(host, resources))

    def _node(self, host: int, resources: dict[str, int]) -> Node:
        given = {
            "head": self.nodes[HEAD].address if self.nodes else "",
            "host": self.network.address(host),
            "token": os.path.join(self._directory, "token"),
            "resources": resources,
        }
        return Node(self._start(NODE, host, NODE=json.dumps(given)))

    def program(self, source: str) -> drivers.Driver:
        return self._start(BEGIN + source, DRIVER, SESSION=self.nodes[DRIVER].session_dir)

    def _start(self, source: str, host: int, **environment: str) -> drivers.Driver:
        made = drivers.Driver(source, self._directory, prefix=self.network.prefix(host), **environment)
        self._started.append(made)
        return made

    def states(self) -> dict[str, str]:
        """By node, as the head sees it: dead, suspected, or alive."""
        with tool.Tool(self.nodes[HEAD].session_dir) as asker:
            found: list[dict[str, Any]] = asker.query("nodes")
        return {
            one["node_id"]: ("suspected" if one.get("suspicion") else "alive") if one["alive"] else "dead"
            for one in found
        }

    def state(self, host: int) -> str:
        return self.states()[self.nodes[host].node_id]

    def end(self) -> None:
        for one in reversed(self._started):
            one.process.kill()
            one.process.communicate()


DEAD_IN_10_S = {  # of silence
    "UMBEL_HEALTH_CHECK_PERIOD_S": "1",
    "UMBEL_HEALTH_CHECK_TIMEOUT_S": "5",
    "UMBEL_HEALTH_CHECK_FAILURE_THRESHOLD": "5",
    "UMBEL_NODE_RECONNECT_S": "10",
}


@pytest.fixture
def machines() -> Iterator[Machines]:
    try:
        cables = network.Network(3)
    except network.NotPermitted as error:
        pytest.skip(f"networks cannot be made here: {error}")
    try:
        with homes.own_home(**DEAD_IN_10_S) as home:
            made = Machines(cables, home)
            try:
                made.start()
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
