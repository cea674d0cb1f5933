"""A cluster of several nodes on one machine, for tests and for trying things out.

Its nodes are real daemons, which talk over loopback as those of different machines do. They end with the cluster, or with the
process that made it, and leave nothing behind.
"""

from __future__ import annotations

import atexit
import os
import signal
import time
import warnings
from collections.abc import Mapping
from typing import Any

from umbel._base import tokens
from umbel._client import cluster_files, cluster_node, current, launch, own_node, scaled_clusters, session, tool

__all__ = ["AutoscalingCluster", "Cluster", "ClusterNode"]

STORE_BYTES = 150 << 20  # Ray's, of a node here
END_S = 10.0  # for a node to end with all that runs on it
LOOK_S = 0.01  # between two looks at whether nodes have joined
_OF_WISHES = cluster_node.Wishes._fields
_OF_PLACE = {"port": "port", "node_ip_address": "node_host", "listens": "listens"}
_HEAD_TYPE = "head"  # of an AutoscalingCluster's nodes
# Ray's, of what is not there.
_IGNORED = frozenset((
    "_system_config", "dashboard_agent_listen_port", "dashboard_host", "dashboard_port", "gcs_server_port",
    "include_dashboard", "max_worker_port", "min_worker_port", "node_manager_port", "object_manager_port", "plasma_directory",
    "plasma_store_socket_name", "raylet_socket_name", "redis_max_memory", "redis_password", "redis_port", "redis_username",
    "resource_isolation_config", "runtime_env_agent_port", "temp_dir", "worker_port_list",
))  # fmt: skip


class ClusterNode:
    """One node of a `Cluster`. address: host:port at which others reach it. gcs_address: that of the head."""

    def __init__(self, launched: launch.Launched, address: str, head: str = "") -> None:
        """head: "" for this one."""
        self._launched = launched
        self.address = address
        self.gcs_address = head or address

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

    def get_session_dir_path(self) -> str:
        return self._launched.session_dir

    @property
    def raylet_socket_name(self) -> str:
        """Where its daemon listens for processes of the node."""
        return self._launched.address

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
    def redis_address(self) -> str | None:
        """Ray's older name of it."""
        return self.address

    @property
    def webui_url(self) -> None:
        """There is no dashboard."""

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

        node_args: num_cpus (default 1), num_gpus (0), resources, labels, object_store_memory (150 MiB), memory, scheduler,
        node_name, env_vars (of its processes), object_spilling_directory, metrics_export_port, port, node_ip_address (127.0.0.1),
        listens (True; False for one that only dials others). Others of Ray's are ignored with a warning. wait: until the head has
        told this process of it; it is a member in any case. Raises TypeError for others, UmbelSystemError when the node does not
        start.
        """
        unknown = node_args.keys() - {*_OF_WISHES, *_OF_PLACE, *_IGNORED}
        if unknown:
            known = ", ".join((*_OF_WISHES, *_OF_PLACE))
            raise TypeError(f"add_node() has no arguments {sorted(unknown)}; it takes wait, {known}")
        ignored = sorted(name for name in node_args.keys() & _IGNORED if node_args[name] not in (None, False))
        if ignored:
            warnings.warn(f"add_node() ignores {', '.join(ignored)}: Umbel has no such setting", stacklevel=2)
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
        wishes["labels"] = own_node.labels_of(wishes.get("labels"))
        wishes["env_vars"] = dict(wishes.get("env_vars") or {})
        place = {_OF_PLACE[name]: value for name, value in node_args.items() if name in _OF_PLACE}
        host = place.setdefault("node_host", "127.0.0.1")
        place.setdefault("port", 0)
        chosen = cluster_node.Wishes(**wishes)
        if self.head_node is not None:
            wanted = cluster_node.Place(head=self.address or "", host=host, token_file=self.token_file, **place)
            started = cluster_node.start_node(chosen, wanted, ends_with_starter=True)
        else:
            secret = tokens.new_secret().as_text()
            started = cluster_node.start_node(
                chosen, cluster_node.Place(host=host, token=secret, **place), ends_with_starter=True
            )
        return ClusterNode(started.launched, started.address, self.address or "")

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


class AutoscalingCluster:
    """A head on this machine that launches nodes here as they are needed, and ends them; see `umbel up`.

    `umbel.init("auto")` connects to it once it has been started. It ends with `shutdown`, or with the process that made it.
    """

    def __init__(
        self,
        head_resources: Mapping[str, float],
        worker_node_types: Mapping[str, Any],
        autoscaler_v2: bool = False,
        **config_kwargs: Any,
    ) -> None:
        """worker_node_types: as `available_node_types` of a cluster's file. config_kwargs: other keys of such a file.
        autoscaler_v2: there is one. Raises InvalidOption."""
        content = {
            "cluster_name": f"autoscaling-{os.urandom(8).hex()}",
            "head_node_type": _HEAD_TYPE,
            "available_node_types": {
                **worker_node_types,
                _HEAD_TYPE: {"resources": {"object_store_memory": STORE_BYTES, **head_resources}, "max_workers": 0},
            },
            **config_kwargs,
        }
        self._file = cluster_files.parsed(content, "AutoscalingCluster()")
        self._started: cluster_node.Started | None = None
        self._maker = os.getpid()

    @property
    def address(self) -> str | None:
        """Of the head, host:port; None while it does not run."""
        return self._started.address if self._started is not None else None

    def start(self, _system_config: Any = None, override_env: Mapping[str, str] | None = None) -> None:
        """Returns when the head runs. override_env: of its processes, and those of nodes. Raises UmbelSystemError."""
        if self._started is not None:
            raise RuntimeError("this AutoscalingCluster has been started already; call shutdown() first")
        if _system_config:
            warnings.warn("start() ignores _system_config: Umbel has no such setting", stacklevel=2)
        place = cluster_node.Place(host="127.0.0.1", port=0)
        self._started = scaled_clusters.start(self._file, place, env_vars=override_env or {})
        atexit.register(self.shutdown)

    def shutdown(self) -> None:
        """End the head and all nodes; if this process is a driver of the head, its session ends first. Idempotent."""
        started = self._started
        if started is None or os.getpid() != self._maker:
            return
        self._started = None
        atexit.unregister(self.shutdown)
        if Cluster._own_session() == started.launched.session_dir:
            session.shutdown()
        scaled_clusters.end(self._file)
        started.launched.close()
