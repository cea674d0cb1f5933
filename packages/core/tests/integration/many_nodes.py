"""Any number of nodes in one process, by the production link to the head, for tests and measurements of the head.

`python many_nodes.py` prints how long nodes take to be up and joined, on this machine.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from umbel import cluster_utils
from umbel._agent import control_proxy, head_link
from umbel._base import nodes, token_files
from umbel._client import attach
from umbel._transport import connection

UNIT = 10_000
INTERPRETER_S = 0.02  # in which a bare interpreter starts on two slow cores that nobody else uses
TRIES_MAX = 5  # each of which a busy machine may spoil


class _Node:
    """What a `HeadLink` needs of its daemon."""

    def __init__(self, poller: connection.Poller, address: str, token_file: str) -> None:
        self.poller = poller
        self.node_id = nodes.new_node_id()
        self.waiting = 0
        self.others: set[str] = set()  # that live, itself among them
        self.trouble: str | None = None  # why it has not joined; "" once it has
        self.ended = ""
        self.control = control_proxy.ControlProxy(self)
        self.link = head_link.HeadLink(self, address, token_files.read(token_file), join_s=30.0, head_lost_s=60.0)
        self.link.when_joined(self._on_joined)

    def _on_joined(self, trouble: str) -> None:
        self.trouble = trouble

    def now_s(self) -> float:
        return time.monotonic()

    def own_facts(self) -> dict[str, Any]:
        return {
            "node_id": self.node_id, "version": attach.version(), "address": "127.0.0.1:1", "host_name": "simulated",
            "is_head": False, "resources": {"CPU": 16 * UNIT}, "labels": {}, "started_s": 0.0, "session_dir": "", "socket": "",
            "store_dir": "",
        }  # fmt: skip

    def head_linked(self, *, is_linked: bool) -> None:
        """Nobody waits for that."""

    def on_reach(self, _message: dict[str, Any]) -> None:
        raise AssertionError("nobody wants to reach it")

    def own_state(self) -> dict[str, Any]:
        return {"available": {"CPU": 16 * UNIT}, "waiting": self.waiting}

    def own_load(self) -> dict[str, Any]:
        return {"tasks": [], "idle": 1}

    def log(self, _line: str) -> None:
        """Nobody reads it."""

    def send(self, *_message: Any) -> None:
        """It has no processes."""

    reply = send

    def node_appeared(self, node_id: str, _address: str) -> None:
        self.others.add(node_id)

    def node_died(self, node_id: str, _reason: str) -> None:
        self.others.remove(node_id)

    def nodes_changed(self, _changes: Any) -> None:
        """They are not leased of."""

    def note_outliving(self, _cluster: str, _head: str) -> None:
        """No program looks for these."""

    def end_node(self, reason: str) -> None:
        self.ended = reason


class ManyNodes:
    """Members of a cluster until `close`. busy: what each counts changes all the time."""

    def __init__(self, address: str, token_file: str, count: int, *, busy: bool = False) -> None:
        self._poller = connection.Poller()
        self.nodes = [_Node(self._poller, address, token_file) for _ in range(count)]
        self._busy = busy
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over:
            self._poller.poll(0.02)
            for node in self.nodes:
                node.waiting += self._busy
                due_s = node.link.next_tick_s()
                if due_s is not None and due_s <= time.monotonic():
                    node.link.tick()
        for node in self.nodes:
            node.link._hang_up()
        self._poller.close()

    def close(self) -> None:
        """Without a word: as killed processes."""
        self._is_over = True
        self._thread.join()


def is_within(limit_s: float, act: Callable[[], object]) -> bool:
    """Whether it takes no longer than that on a machine that does nothing else, as far as a busy one can tell: there it may
    take as many times longer as a bare interpreter takes longer to start. Prints what it took. Tries again if not."""
    for _ in range(TRIES_MAX):
        bare = [bare_start_s() for _ in range(3)]
        began_s = time.perf_counter()
        act()
        took_s = time.perf_counter() - began_s
        bare += [bare_start_s() for _ in range(3)]
        factor = slowness(bare)
        print(f"it took {took_s:.2f} s, at most {limit_s:g} s times {factor:.1f} are allowed")
        if took_s <= limit_s * factor:
            return True
    return False


def slowness(bare_starts_s: Sequence[float]) -> float:
    """How many times longer things may take than on a machine that does nothing else, if a bare interpreter takes this long."""
    return max(1.0, statistics.mean(bare_starts_s) / INTERPRETER_S)


def bare_start_s() -> float:
    began_s = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-c", "pass"], check=True)
    return time.perf_counter() - began_s


def main() -> None:
    rounds = 5
    up, more, stop = [], [], []
    for _ in range(rounds):
        began_s = time.perf_counter()
        cluster = cluster_utils.Cluster(initialize_head=True)
        for _ in range(4):
            cluster.add_node()
        up.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        cluster.shutdown()
        stop.append(time.perf_counter() - began_s)
    cluster = cluster_utils.Cluster(initialize_head=True)
    others = ManyNodes(str(cluster.address), cluster.token_file, 50)
    try:
        while any(node.trouble is None for node in others.nodes):
            time.sleep(0.01)
        for _ in range(rounds):
            began_s = time.perf_counter()
            cluster.add_node()
            more.append(time.perf_counter() - began_s)
    finally:
        others.close()
        cluster.shutdown()
    for name, times in (
        ("a head and 4 nodes", up),
        ("one more at a head that has 50", more),
        ("ending a head and 4 nodes", stop),
    ):
        print(f"{name}: {min(times):.2f} s / {statistics.median(times):.2f} s (least / median of {rounds})")


if __name__ == "__main__":
    main()
