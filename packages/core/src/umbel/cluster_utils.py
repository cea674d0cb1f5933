"""A cluster of several nodes on one machine, for tests and for trying things out.

Its nodes are real daemons, which talk over loopback as those of different machines do. They end with the cluster, or with the
process that made it, and leave nothing behind.
"""

from __future__ import annotations

import atexit
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from umbel._base import token_files
from umbel._client import cluster_node, current, launch, session, tool

__all__ = ["Cluster", "ClusterNode"]

STORE_BYTES = 150 << 20  # Ray's, of a node here
END_S = 10.0  # for a node to end with all that runs on it
LOOK_S = 0.01  # between two looks at whether nodes have joined
_OF_WISHES = ("num_cpus", "num_gpus", "resources", "labels", "object_store_memory", "scheduler")
_OF_PLACE = {"port": "port", "node_ip_address": "node_host", "listens": "listens"}


class ClusterNode:
    """One node of a `Cluster`. address: host:port at which others reach it."""

    def __init__(self, launched: launch.Launched, address: str) -> None:
        self._launched = launched
        self.address = address

    @property
    def node_id(self) -> str:
        return self._launched.node_id

    @property
    def unique_id(self) -> str:
        return self._launched.node_id

    @property
    def node_ip_address(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def session_dir(self) -> str:
        return self._launched.session_dir

    @property
    def pid(self) -> int:
        """Of its daemon."""
        return self._launched.pid

    def any_processes_alive(self) -> bool:
        return self._launched.process.poll() is None

    def remaining_processes_alive(self) -> bool:
        return self.any_processes_alive()

    def __repr__(self) -> str:
        return f"ClusterNode({self.node_id[:8]} at {self.address})"

    def _end(self, *, is_graceful: bool) -> None:
        process = self._launched.process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM if is_graceful else signal.SIGKILL)
            process.send_signal(signal.SIGCONT)  # it may be stopped
        self._launched.close(END_S)


class Cluster:
    """Nodes on this machine: the head first, then any number of others.

    head_node: None before the first `add_node`. worker_nodes: the others.
    """

    def __init__(
        self,
        initialize_head: bool = False,
        connect: bool = False,
        head_node_args: Mapping[str, Any] | None = None,
        shutdown_at_exit: bool = True,
    ) -> None:
        """head_node_args: as `add_node` takes them. connect: this process becomes a driver of the head."""
        if connect and not initialize_head:
            raise RuntimeError("Cluster(connect=True) has no head to connect to; pass initialize_head=True as well")
        self.head_node: ClusterNode | None = None
        self.worker_nodes: set[ClusterNode] = set()
        self.connected = False
        self._maker = os.getpid()
        if shutdown_at_exit:
            atexit.register(self.shutdown)
        if initialize_head:
            self.add_node(**(head_node_args or {}))
            if connect:
                self.connect()

    @property
    def address(self) -> str | None:
        """Of the head, host:port; what `umbel.init(address=...)` takes on this machine. None while there is no head."""
        return self.head_node.address if self.head_node is not None else None

    @property
    def gcs_address(self) -> str | None:
        return self.address

    @property
    def token_file(self) -> str:
        """In the head's session directory, with which it goes; "" while there is no head."""
        return os.path.join(self.head_node.session_dir, "token") if self.head_node is not None else ""

    def connect(self, namespace: str | None = None) -> None:
        """Make this process a driver of the head. Raises RuntimeError when there is none."""
        if self.address is None:
            raise RuntimeError("this Cluster has no head to connect to; call add_node() first")
        session.init(address=self.address, namespace=namespace, ignore_reinit_error=True)
        self.connected = True

    def add_node(self, wait: bool = True, **node_args: Any) -> ClusterNode:
        """Start a node: the head, if there is none, else one that joins it.

        node_args: num_cpus (default 1), num_gpus (0), resources, labels, object_store_memory (150 MiB), scheduler, port,
        node_ip_address (127.0.0.1), listens (True; False for one that only dials others). wait: until the head has told this
        process of it; it is a member in any case. Raises TypeError for others, UmbelSystemError when the node does not start.
        """
        unknown = node_args.keys() - {*_OF_WISHES, *_OF_PLACE}
        if unknown:
            known = ", ".join((*_OF_WISHES, *_OF_PLACE))
            raise TypeError(f"add_node() has no arguments {sorted(unknown)}; it takes wait, {known}")
        made = self._start(node_args)
        if self.head_node is None:
            self.head_node = made
        else:
            self.worker_nodes.add(made)
        if wait:
            self._wait_for_node(made)
        return made

    def _start(self, node_args: Mapping[str, Any]) -> ClusterNode:
        wishes: dict[str, Any] = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": STORE_BYTES}
        wishes |= {name: value for name, value in node_args.items() if name in _OF_WISHES}
        wishes["labels"] = dict(wishes.get("labels") or {})
        place = {_OF_PLACE[name]: value for name, value in node_args.items() if name in _OF_PLACE}
        host = place.setdefault("node_host", "127.0.0.1")
        place.setdefault("port", 0)
        chosen = cluster_node.Wishes(**wishes)
        if self.head_node is not None:
            wanted = cluster_node.Place(head=self.address or "", host=host, token_file=self.token_file, **place)
            started = cluster_node.start_node(chosen, wanted, ends_with_starter=True)
        else:
            with tempfile.TemporaryDirectory(prefix="umbel-cluster-") as directory:
                path = os.path.join(directory, "token")
                wanted = cluster_node.Place(host=host, token_file=path, **place)
                started = cluster_node.start_node(chosen, wanted, ends_with_starter=True)
                token_files.ensure(os.path.join(started.launched.session_dir, "token"), token_files.read(path))
        return ClusterNode(started.launched, started.address)

    def remove_node(self, node: ClusterNode, allow_graceful: bool = True) -> None:
        """End a node, and all that runs on it. allow_graceful: it says goodbye first; else it is killed, and the head finds
        that out. Raises ValueError when this process is its driver, whose session ends all the same, as in Ray."""
        if self._own_session() == node.session_dir:
            session.shutdown()
            raise ValueError(
                f"{node} was to be removed, which this process is connected to, and cannot work without: its session was shut "
                "down; remove other nodes, or call umbel.shutdown() before"
            )
        node._end(is_graceful=allow_graceful)
        if self.head_node is node:
            self.head_node = None
        self.worker_nodes.discard(node)

    @staticmethod
    def _own_session() -> str:
        """The directory of the session that this process is in, "" for none."""
        engine = current.running_engine()
        return "" if engine is None else str(engine.address_info.get("session_dir", ""))

    def wait_for_nodes(self, timeout: float = 30) -> None:
        """Wait until the head has as many living nodes as were added and not removed. Raises TimeoutError."""
        self._wait(lambda living: len(living) == len(self.list_all_nodes()), timeout, "its nodes to join")

    def _wait_for_node(self, node: ClusterNode, timeout: float = 30) -> None:
        self._wait(lambda living: node.node_id in living, timeout, f"{node} to join")

    def _wait(self, is_done: Any, timeout_s: float, what: str) -> None:
        if self.head_node is None:
            raise RuntimeError("this Cluster has no head; call add_node() first")
        until_s = time.monotonic() + timeout_s
        with tool.Tool(self.head_node.session_dir) as asker:
            while True:
                living = {one["node_id"] for one in asker.query("nodes") if one["alive"]}
                if is_done(living):
                    return
                if time.monotonic() > until_s:
                    raise TimeoutError(
                        f"the cluster waited {timeout_s:g} s for {what}; its head has {len(living)} living nodes, "
                        f"{len(self.list_all_nodes())} were added and not removed"
                    )
                time.sleep(LOOK_S)

    def list_all_nodes(self) -> list[ClusterNode]:
        """The head first."""
        return [*([self.head_node] if self.head_node is not None else []), *self.worker_nodes]

    def remaining_processes_alive(self) -> bool:
        """Whether all nodes run that were not removed."""
        return all(node.remaining_processes_alive() for node in self.list_all_nodes())

    def shutdown(self) -> None:
        """Remove all nodes, the head last; if this process is a driver of one of them, its session ends first. Idempotent."""
        if os.getpid() != self._maker:
            return  # a forked child, whose parent the nodes are of
        if self._own_session() in {node.session_dir for node in self.list_all_nodes()}:
            session.shutdown()
        for node in (*self.worker_nodes, *([self.head_node] if self.head_node is not None else [])):
            self.remove_node(node)
        self.connected = False
        atexit.unregister(self.shutdown)
