"""A head and other nodes, real daemons that reach each other through relays only, for whoever disturbs them.

A node's place outlives the node: whoever replaces one that has ended listens at the same address, behind the same relay.
Every node listens at an address of its own, 127.0.1.N, and is known to the others by its relay's, 127.0.2.N, with the same port.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from benchmarks import processes, relays
from umbel import exceptions
from umbel._base import sessions
from umbel._client import cluster_node, tool

END_S = 10.0
REPLACE_MAX_S = 60.0  # for a node to be started; a head that stands still meanwhile lets nobody in
STORE_BYTES = 256 << 20


class Place:
    """Where a node is: its number, 0 for the head, its relay, and the node that is there, None while there is none."""

    def __init__(self, number: int, relay: relays.Relay) -> None:
        self.number = number
        self.relay = relay
        self.node: cluster_node.Started | None = None
        self.visitor: subprocess.Popen[bytes] | None = None  # a program that is connected there
        self.is_down = False  # from before its node is killed until there is another

    def pids(self) -> list[int]:
        """The daemon first, then its fork server; empty when there is no node."""
        node = self.node
        if node is None:
            return []
        with contextlib.suppress(OSError, ValueError):
            text = Path(node.launched.session_dir, sessions.PROCESSES_FILE).read_text()
            return [int(line.split()[0]) for line in text.splitlines()]
        return [node.launched.pid]

    def workers(self) -> list[int]:
        pids = self.pids()
        if len(pids) < 2:
            return []
        return sorted(processes.family(pids[1]) - {pids[1]})

    def all_pids(self) -> list[int]:
        pids = self.pids()
        return sorted(processes.family(pids[0])) if pids else []


class ChaosCluster:
    """count: of nodes, the head included. storage: where the head keeps its records; "" for nowhere."""

    def __init__(self, count: int, *, cpus: int, folder: str, storage: str = "") -> None:
        self._relays = relays.Relays()
        self._cpus = cpus
        self._keeping = cluster_node.Keeping(storage) if storage else None
        self._token_file = os.path.join(folder, "token")
        self.places = [
            Place(number, self._relays.relay(f"127.0.2.{number + 1}", f"127.0.1.{number + 1}"))
            for number in range(count)
        ]
        try:
            for place in self.places:
                self.start(place)
        except BaseException:
            self.close()
            raise

    @property
    def head(self) -> Place:
        return self.places[0]

    @property
    def home(self) -> Place:
        """Which is never ended, for the program that judges: the head, unless that is killed."""
        return self.places[1 if self._keeping is not None else 0]

    @property
    def home_session(self) -> str:
        assert self.home.node is not None
        return self.home.node.launched.session_dir

    def start(self, place: Place) -> None:
        """Raises UmbelSystemError when it does not start, or is not let in."""
        is_head = place is self.head
        wanted = cluster_node.Place(
            head="" if is_head else self.head.relay.address,
            host=place.relay.to_host,
            port=place.relay.port,
            node_host=place.relay.host,
            token_file=self._token_file,
        )
        wishes = cluster_node.Wishes(num_cpus=self._cpus, num_gpus=0, object_store_memory=STORE_BYTES)
        keeping = self._keeping if is_head else None
        place.node = cluster_node.start_node(wishes, wanted, keeping, ends_with_starter=True)

    def end(self, place: Place, *, is_graceful: bool = False) -> None:
        """And all that runs there."""
        node, place.node = place.node, None
        if node is None:
            return
        process = node.launched.process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM if is_graceful else signal.SIGKILL)
            process.send_signal(signal.SIGCONT)  # it may be stopped
        node.launched.close(END_S)

    def replace(self, place: Place) -> str:
        """A new node where there was one; returns what went wrong, "" for nothing."""
        until_s = time.monotonic() + REPLACE_MAX_S
        self.end(place)
        while True:
            try:
                self.start(place)
                place.is_down = False
                return ""
            except exceptions.UmbelSystemError as error:
                if time.monotonic() > until_s:
                    return str(error)

    def living(self) -> int:
        """How many nodes the head counts as alive."""
        return sum(bool(one["alive"]) for one in self.asked(self.head, "nodes"))

    def asked(self, place: Place, what: str) -> list[dict[str, object]]:
        assert place.node is not None
        with tool.Tool(place.node.launched.session_dir) as asker:
            found: list[dict[str, object]] = asker.query(what)
            return found

    def stack(self, place: Place, worker: str) -> str:
        """What one of its workers does, and where; or why that is not known."""
        assert place.node is not None
        try:
            with tool.Tool(place.node.launched.session_dir) as asker:
                return json.dumps(asker.ask(worker, "stack", ""))
        except exceptions.UmbelError as error:
            return str(error)

    def relayed_descriptors(self) -> int:
        return self._relays.descriptor_count()

    def close(self) -> None:
        for place in reversed(self.places):
            self.end(place, is_graceful=True)
        self._relays.close()
