"""Heads that keep their records, and nodes that outlive them, for tests in which heads are killed and others follow."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import drivers
import homes

from umbel._client import cluster_node, launch, tool

TIMEOUT_S = 60
END_S = 10.0
BEGIN = """
    import os, sys, threading, time, umbel
    from umbel.experimental import internal_kv as kv

    umbel.init(address=os.environ["SESSION"], namespace="ns", log_to_driver=False)

    def say(*what):
        print(*what, flush=True)

    def here():
        return umbel.get_runtime_context().get_node_id()

    @umbel.remote(num_cpus=0)
    class Counter:
        def __init__(self, start=0):
            self.count = start

        def add(self, amount=1):
            self.count += amount
            return self.count

        def where(self):
            return here(), os.getpid()
"""


class Place:
    """A head with a storage, which can be killed and started again at its address, and nodes that have joined it."""

    def __init__(self, directory: str, storage: str) -> None:
        self.directory = directory
        self.token = os.path.join(directory, "token")
        self.address = ""
        self._launched: list[launch.Launched] = []
        self._programs = drivers.Programs(directory, BEGIN)
        self.head = self.start_head(storage)

    def start_head(self, storage: str, *, address: str = "", is_standby: bool = False) -> launch.Launched:
        """storage: its URL, or the name of a file here for SQLite. address: "" for that of the head before."""
        port = int((address or self.address or ":0").rpartition(":")[2])
        place = cluster_node.Place(host="127.0.0.1", port=port, token_file=self.token)
        url = storage if "://" in storage else f"sqlite://{self.directory}/{storage}.db"
        keeping = cluster_node.Keeping(url, is_standby)
        started = cluster_node.start_node(cluster_node.Wishes(num_cpus=2), place, keeping, ends_with_starter=True)
        self._launched.append(started.launched)
        self.head, self.address = started.launched, started.address
        return started.launched

    def add(self, *, at: str = "", **resources: float) -> launch.Launched:
        """at: where the head may be."""
        place = cluster_node.Place(head=at or self.address, host="127.0.0.1", port=0, token_file=self.token)
        wishes = cluster_node.Wishes(num_cpus=2, resources=resources)
        started = cluster_node.start_node(wishes, place, ends_with_starter=True)
        self._launched.append(started.launched)
        return started.launched

    def kill(self, node: launch.Launched) -> None:
        node.process.kill()
        node.close(END_S)
        drivers.wait_until(lambda: not os.path.exists(node.session_dir), what="its files to go")

    def driver(self, node: launch.Launched, source: str) -> drivers.Driver:
        return self._programs.start(node, source)

    def says(self, node: launch.Launched, source: str) -> list[str]:
        """The lines of a driver that ends by itself."""
        return self.driver(node, source).finish(TIMEOUT_S)[0].splitlines()

    def end(self) -> None:
        self._programs.end()
        for node in reversed(self._launched):
            if node.process.poll() is None:
                node.process.send_signal(signal.SIGTERM)
        for node in self._launched:
            node.close(END_S)


@contextlib.contextmanager
def placed(storage: str = "a") -> Iterator[Place]:
    """A head, in a directory of sessions of its own, with what comes after it; in the end nothing is left. Nodes are given up
    sooner than by default."""
    quick = {"UMBEL_HEALTH_CHECK_PERIOD_S": "0.5", "UMBEL_HEALTH_CHECK_TIMEOUT_S": "2", "UMBEL_NODE_RECONNECT_S": "4"}
    with homes.own_home(**quick) as home:
        made = Place(home, storage)
        try:
            yield made
        finally:
            made.end()


def asked(node: drivers.Session, what: str) -> list[dict[str, Any]]:
    with tool.Tool(node.session_dir) as asker:
        found: list[dict[str, Any]] = asker.query(what)
        return found


def living(node: launch.Launched) -> set[str]:
    return {one["node_id"] for one in asked(node, "nodes") if one["alive"] and not one.get("suspicion")}
