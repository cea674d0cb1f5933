"""Nodes of a cluster as daemons on this machine, the built-in node launcher `local`.

They are as `umbel start --address` starts them: they outlive the process that launched them, are seen by `umbel stop`, and end
without their head. What runs is read from their sessions, where their labels are noted: so any process of this user finds it,
and a daemon that stands still is found too.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from umbel import exceptions, spi
from umbel._base import sessions
from umbel._client import cluster_node, launch
from umbel._model import node_labels

END_S: Final = 10.0  # for a daemon to end with all that runs on it; then it is killed
LOOK_S: Final = 0.01  # between two looks at whether it has
_CLUSTER: Final = "umbel.io/cluster-name"


class LocalLauncher:
    """See `spi.NodeLauncher`. config: nothing. That of a type: `object_store_memory`, in bytes."""

    def __init__(self, cluster: str, *, address: str, token_file: str, config: Mapping[str, Any]) -> None:
        """Raises InvalidOption."""
        if config:
            raise exceptions.InvalidOption(
                f"the launcher 'local' takes no configuration, got {dict(config)}; remove it", option="config"
            )
        self._cluster = cluster
        self._address = address
        self._token_file = token_file
        self._children: dict[str, launch.Launched] = {}  # to be waited for when they end

    def check(self, spec: spi.NodeSpec) -> None:
        _wishes(spec, {})

    def launch(self, spec: spi.NodeSpec, count: int) -> Sequence[str]:
        """One after another, as each takes all of a processor to start; each has joined."""
        made: list[str] = []
        for _ in range(count):
            name = f"local-{os.urandom(8).hex()}"
            own = {node_labels.NODE_GROUP: spec.type_name, node_labels.INSTANCE_ID: name, _CLUSTER: self._cluster}
            wishes = _wishes(spec, own)
            place = cluster_node.Place(head=self._address, token_file=self._token_file)
            try:
                started = cluster_node.start_node(wishes, place)
            except exceptions.UmbelSystemError as error:
                raise exceptions.NodeLaunchError(
                    f"{len(made)} of {count} nodes of type {spec.type_name!r} were launched on this machine: {error}",
                    launched=made,
                ) from error
            self._children[name] = started.launched
            made.append(name)
        return made

    def terminate(self, instances: Sequence[str]) -> None:
        """All at once: each has `END_S` to end."""
        here = self._sessions()
        for name in instances:
            if name in here:
                _signal(here[name][0], signal.SIGTERM)
        left = []
        until_s = time.monotonic() + END_S
        for name in instances:
            child = self._children.pop(name, None)
            if child is not None:
                child.close(max(0.0, until_s - time.monotonic()))
            elif name in here and not _ended(here[name][0], until_s):
                left.append(name)
        if left:
            raise exceptions.NodeLaunchError(f"{left} have not ended within {2 * END_S:g} s, though they were killed")

    def running(self) -> Mapping[str, str]:
        return {name: type_name for name, (_, type_name) in self._sessions().items()}

    def _sessions(self) -> dict[str, tuple[str, str]]:
        """The session's directory and the type of each node, by its name."""
        children = list(self._children.items())  # while a launch may add some
        for name in [name for name, child in children if child.process.poll() is not None]:
            ended = self._children.pop(name, None)  # by itself, or it is being ended: nothing is to be left of it
            if ended is not None:
                ended.close()
        found = {}
        for path in sessions.outliving_sessions(sessions.base_dir()):
            with contextlib.suppress(OSError):  # it has just ended
                labels = json.loads(sessions.outliving(path).labels)
                if labels.get(_CLUSTER) == self._cluster and node_labels.INSTANCE_ID in labels:
                    found[labels[node_labels.INSTANCE_ID]] = path, labels.get(node_labels.NODE_GROUP, "")
        return found

    def close(self) -> None:
        """There is nothing to close."""


def _wishes(spec: spi.NodeSpec, own: Mapping[str, str]) -> cluster_node.Wishes:
    """Raises InvalidOption."""
    unknown = spec.config.keys() - {"object_store_memory"}
    if unknown:
        raise exceptions.InvalidOption(
            f"a node type of the launcher 'local' may have a config of object_store_memory, got {sorted(unknown)} in type "
            f"{spec.type_name!r}; remove it",
            option="config",
        )
    store_bytes = spec.config.get("object_store_memory")
    if store_bytes is not None and (type(store_bytes) is not int or store_bytes <= 0):
        raise exceptions.InvalidOption(
            f"object_store_memory of type {spec.type_name!r} must be a number of bytes, got {store_bytes!r}; correct it",
            option="object_store_memory",
        )
    return cluster_node.wishes_of(spec, own, store_bytes)


def _signal(path: str, number: int) -> None:
    pid = sessions.daemon_of(path)
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _ended(path: str, until_s: float) -> bool:
    """Whether nothing is left of it, at last killed."""
    if _gone(path, until_s):
        return True
    _signal(path, signal.SIGKILL)
    until_s = time.monotonic() + END_S
    while time.monotonic() < until_s and sessions.daemon_of(path):
        select.select([], [], [], LOOK_S)
    sessions.sweep_stale_sessions(sessions.base_dir())
    return not os.path.exists(path)


def _gone(path: str, until_s: float) -> bool:
    while os.path.exists(path):
        if time.monotonic() >= until_s:
            return False
        select.select([], [], [], LOOK_S)
    return True
