"""The log files of a cluster's nodes, looked at from here: those of the node that is asked are read where that can be done, those
of others come piece by piece by way of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from umbel._client import cluster_view, inquiry, log_files, log_reader

LOOK_S = 15.0  # for all nodes; one that does not answer costs a third of it


class NodeFiles:
    """Of another node, by way of the one that is asked."""

    def __init__(self, asker: inquiry.Asker, node_id: str) -> None:
        self._asker = asker
        self.node_id = node_id
        self.place = ""
        self.title = f" of node {node_id[:8]}"

    def look(self) -> Mapping[str, log_files.Stat]:
        """Raises UmbelSystemError when the node does not answer."""
        told = self._survey("logs", {})
        self.place = told["place"]
        return {name: log_files.Stat(*stat) for name, stat in told["files"].items()}

    def read(self, name: str, at: int) -> bytes:
        return base64.b64decode(self._survey("log_piece", {"name": name, "at": at}))

    def _survey(self, kind: str, asked: Mapping[str, Any]) -> Any:
        return cluster_view.Cluster(self._asker, LOOK_S).survey_one(self.node_id, kind, asked)


class _OwnFiles(log_reader.LocalFiles):
    """Of the node that is asked, beside others."""

    def __init__(self, directory: str, node_id: str) -> None:
        super().__init__(directory)
        self.node_id = node_id
        self.title = f" of node {node_id[:8]}"


def of_nodes(
    asker: inquiry.Asker, cluster: cluster_view.Cluster, chosen: Sequence[str], directory: str
) -> list[log_reader.Files]:
    """Of the chosen ones that answer; who does not is noted in `cluster`. directory: of the asked node's logs, where that is read
    here; else ""."""
    others = set(cluster.to_survey() if [*chosen] != [cluster.own_id] or not directory else ())
    is_alone = sum(bool(one["alive"]) for one in cluster.facts) == 1
    found: list[log_reader.Files] = []
    for one in chosen:
        if one == cluster.own_id and directory:
            found.append(log_reader.LocalFiles(directory) if is_alone else _OwnFiles(directory, one))
        elif one in others:
            found.append(NodeFiles(asker, one))
    return found
