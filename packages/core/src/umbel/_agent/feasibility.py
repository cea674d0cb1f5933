"""What can never be had on this node, and why, in words: for where it is to run, for labels, for resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import environment_service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from umbel._agent.other_nodes import OtherNodes

    class Daemon(Protocol):
        """What is needed of the daemon that this is in."""

        others: OtherNodes


class Feasibility:
    def __init__(self, daemon: Daemon, node_id: str, labels: Mapping[str, str]) -> None:
        self._daemon = daemon
        self._node_id = node_id
        self._labels = labels

    def impossible(self, strategy: Any, env: Any) -> tuple[str, bool]:
        """Why what was asked for can never be had, or ""; and whether that is for where it is to run. Spreading means
        nothing on one node."""
        trouble = environment_service.trouble_of(env)
        if trouble:
            return trouble, False
        wanted = strategy.get("node_id") if isinstance(strategy, dict) else None
        if wanted in (None, self._node_id) or strategy.get("soft"):
            return "", False
        link = self._daemon.others.link
        if link is not None:
            from umbel._agent import elsewhere

            return f"it must run on node {wanted}, {elsewhere.by_id(link.listed(), wanted)}", True
        return (
            f"it must run on node {wanted}, which is not alive; the only node is {self._node_id}: "
            "correct the node id or make the affinity soft"
        ), True

    def refusal(self, selectors: Any) -> str:
        """Why this node's labels meet none of these selectors, or ""."""
        if not selectors:
            return ""
        from umbel._model import node_labels  # rarely needed, and not quick to import

        labels = {node_labels.NODE_ID: self._node_id, **self._labels}
        if any(node_labels.meets(selector, labels) for selector in selectors):
            return ""
        needs = f"it needs a node with the labels {node_labels.in_words(selectors)}, but"
        advice = "correct the label selector, or start the node with such labels"
        others = self._daemon.others.listed()
        if not others:
            return f"{needs} the only one has {labels}; {advice}"
        from umbel._agent import elsewhere

        return f"{needs} {self.here()} has {labels}{elsewhere.with_labels(others, selectors)}; {advice}"

    def here(self) -> str:
        """This node, "" where there is no other, with which it could be mixed up."""
        return f"node {self._node_id[:8]}" if self._daemon.others.listed() else ""

    def with_resources(self, needs: Mapping[str, int]) -> str:
        """Which other nodes have so much in all, in words."""
        others = self._daemon.others.listed()
        if not others:
            return ""
        from umbel._agent import elsewhere

        return elsewhere.with_resources(others, needs)

    def with_room(self, needs: Mapping[str, int]) -> str:
        """Which other nodes have so much free now, in words."""
        others = self._daemon.others.listed()
        if not others:
            return ""
        from umbel._agent import elsewhere

        return elsewhere.with_room(others, needs)
