"""A cluster of real daemons whose machines have networks of their own, see `network`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import drivers
import network

from umbel._client import tool

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
    """One node on each host: the first is the head, and the last is where programs run."""

    def __init__(self, cables: network.Network, directory: str) -> None:
        self.network = cables
        self._directory = directory
        self._token = os.path.join(directory, "token")
        self._started: list[drivers.Driver] = []
        self.nodes: list[Node] = []

    def start(self, resources: Sequence[Mapping[str, int]]) -> None:
        """resources: of each host's node."""
        for host, own in enumerate(resources):
            self.nodes.append(self._node(host, own))

    def _node(self, host: int, resources: Mapping[str, int]) -> Node:
        given = {
            "head": self.nodes[0].address if self.nodes else "",
            "host": self.network.address(host),
            "token": self._token,
            "resources": resources,
        }
        return Node(self._start(NODE, host, NODE=json.dumps(given)))

    def program(self, source: str, host: int = -1) -> drivers.Driver:
        host = range(len(self.nodes))[host]
        return self._start(BEGIN + source, host, SESSION=self.nodes[host].session_dir)

    def remote_program(self, source: str, host: int) -> drivers.Driver:
        """On a host without a node, connected to the head's."""
        environment = {"SESSION": f"umbel://{self.nodes[0].address}", "UMBEL_TOKEN_FILE": self._token}
        return self._start(BEGIN + source, host, **environment)

    def _start(self, source: str, host: int, **environment: str) -> drivers.Driver:
        made = drivers.Driver(source, self._directory, prefix=self.network.prefix(host), **environment)
        self._started.append(made)
        return made

    def states(self) -> dict[str, str]:
        """By node, as the head sees it: dead, suspected, or alive."""
        with tool.Tool(self.nodes[0].session_dir) as asker:
            found: list[dict[str, Any]] = asker.query("nodes")
        return {
            one["node_id"]: ("suspected" if one.get("suspicion") else "alive") if one["alive"] else "dead"
            for one in found
        }

    def state(self, host: int) -> str:
        return self.states()[self.nodes[host].node_id]

    def ways(self, host: int) -> dict[str, str]:
        """How the node of a host reaches the others, by node, unless it dials them."""
        with tool.Tool(self.nodes[host].session_dir) as asker:
            return {one["node_id"]: one["reached"] for one in asker.query("nodes") if one.get("reached")}

    def forwarder(self) -> int:
        """The head's process that passes bytes on between other nodes."""
        with tool.Tool(self.nodes[0].session_dir) as asker:
            (found,) = [one["pid"] for one in asker.query("processes") if one["component"] == "forwarder"]
        return int(found)

    def end(self) -> None:
        for one in reversed(self._started):
            one.process.kill()
            one.process.communicate()
