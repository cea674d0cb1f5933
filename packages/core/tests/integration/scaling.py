"""Clusters that launch and end their nodes, for tests: a real head with its autoscaler, and daemons."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import drivers
import homes
import pytest

import umbel
from umbel._base import sessions
from umbel._client import cluster_files, cluster_node, scaled_clusters, tool
from umbel._model import node_labels

STORE = {"object_store_memory": 80 << 20}
SMALL = {"resources": {"CPU": 1, "small": 1, **STORE}}
LATE_S = 90.0  # for several nodes to come or to go, on a machine that is busy


@contextlib.contextmanager
def own_home(**environment: str) -> Iterator[str]:
    """As `homes.own_home`, for tokens too, with short periods. At the end nothing may be left that daemons have to sweep."""
    quick = {"UMBEL_AUTOSCALER_PERIOD_S": "0.2", "UMBEL_NODE_RECONNECT_S": "1", "UMBEL_HEAD_LOST_S": "2"}
    with homes.own_home(**{**quick, **environment}) as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", directory)
        yield directory
        assert homes.is_empty(directory)
        assert not os.path.isdir(os.path.join(directory, ".umbel", "clusters"))


def described(**changed: Any) -> cluster_files.ClusterFile:
    content = {
        "cluster_name": "test",
        "idle_timeout_minutes": 0.01,
        "head_node_type": "head",
        "available_node_types": {"head": {"resources": {"CPU": 1, **STORE}}, "small": {**SMALL, "max_workers": 3}},
        **changed,
    }
    return cluster_files.parsed(content, "test.json")


class Up:
    """A cluster that is up."""

    def __init__(self, file: cluster_files.ClusterFile) -> None:
        self.file = file
        self.started = scaled_clusters.start(file, cluster_node.Place(host="127.0.0.1", port=0))
        self.session_dir = self.started.launched.session_dir

    def query(self, what: str) -> Any:
        with tool.Tool(self.session_dir) as asker:
            return asker.query(what)

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Those that live and were launched, by what they are called."""
        living = [one for one in self.query("nodes") if one["alive"] and not one["is_head"]]
        return {one["labels"][node_labels.INSTANCE_ID]: one for one in living}

    def until(self, count: int) -> dict[str, dict[str, Any]]:
        """That there are so many."""
        drivers.wait_until(lambda: len(self.nodes()) == count, timeout_s=LATE_S, what=f"{count} nodes; {self.told()}")
        return self.nodes()

    def told(self) -> dict[str, Any]:
        """What the autoscaler says, once it has looked."""

        def said() -> Any:
            answer = self.query("autoscaler")
            return answer["report"] is not None and answer["report"]["scaling"] is not None and answer

        found: dict[str, Any] = drivers.wait_until(said, what="the autoscaler to say something")
        return found

    def scaling(self) -> dict[str, Any]:
        found: dict[str, Any] = self.told()["report"]["scaling"]
        return found

    def daemons(self) -> list[int]:
        """The process ids of launched nodes' daemons."""
        return [sessions.daemon_of(one["session_dir"]) for one in self.nodes().values()]


@contextlib.contextmanager
def up(**changed: Any) -> Iterator[Up]:
    made = Up(described(**changed))
    try:
        yield made
    finally:
        umbel.shutdown()
        scaled_clusters.end(made.file)
        made.started.launched.close()
