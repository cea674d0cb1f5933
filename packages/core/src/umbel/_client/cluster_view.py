"""The living nodes of a cluster, looked at within a time-out: each is asked for what it knows, and who does not answer is named.

The node that is asked passes questions on and collects the answers (`umbel._agent.inquiries`); its own files are read here where
they can be. The first question finds out who answers at all, so that one node that is stopped costs its time once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from umbel import exceptions
from umbel._base import nodes as node_ids
from umbel._client import inquiry, node_view

REACH_S = 5.0  # for a node to answer at all, and a third of the time-out at most; one that runs needs milliseconds
SHARE = 0.8  # of the time that is left, for the answers of all nodes; what is left is for putting them together

Row = dict[str, Any]


class Cluster:
    """node: the one that is asked, which notes what is missing of all."""

    def __init__(self, asker: inquiry.Asker, timeout_s: float) -> None:
        self.node = node_view.Node(asker, timeout_s)
        self._timeout_s = timeout_s
        self.facts: list[Row] = self.node.query("nodes")
        self.own_id: str = self.facts[0]["node_id"]
        self._living = {one["node_id"]: one for one in self.facts if one["alive"]}
        self._silent: set[str] = set()
        self._has_reached = False

    @property
    def is_alone(self) -> bool:
        """Whether there is one node, which can be looked at from here."""
        return len(self._living) == 1 and self.node.is_here

    def tags(self) -> dict[str, str]:
        """The ids of all nodes by their tags; {} where there is one."""
        return {node_ids.tag_text(one["node_id"]): one["node_id"] for one in self.facts if len(self.facts) > 1}

    def host_of(self, node_id: str | None) -> str:
        """Its address without the port; "" for one that is not known any more."""
        found = next((one for one in self.facts if one["node_id"] == node_id), None)
        return node_view.host_of(found) if found is not None else ""

    def called(self, node_id: str) -> str:
        """In words."""
        found = self._living.get(node_id, {})
        address = found.get("address")
        return f"node {node_id[:8]}" + (f" at {node_ids.address_in_words(address)}" if address else "")

    def to_survey(self) -> list[str]:
        """The nodes that answer, but for this one where it is looked at from here."""
        self._reach()
        kept = [one for one in self._living if one not in self._silent]
        return [one for one in kept if one != self.own_id or not self.node.is_here]

    def does_answer(self, node_id: str) -> bool:
        """Of a node that is not known: nobody asks it."""
        self._reach()
        return node_id == self.own_id or (node_id in self._living and node_id not in self._silent)

    def _reach(self) -> None:
        if not self._has_reached:
            self._has_reached = True
            others = [one for one in self._living if one != self.own_id]
            if others:
                self.ask("alive", dict.fromkeys(others, ""), min(REACH_S, self._timeout_s / 3))

    def ask(self, what: str, abouts: Mapping[str, str], limit_s: float) -> dict[str, Any]:
        """What these nodes answer to a query, by node. Those that do not are noted, and asked no more."""
        found = {}
        for node_id, answer in sorted(self.node.gather(what, abouts, limit_s).items()):
            if "result" in answer:
                found[node_id] = answer["result"]
            else:
                self._silent.add(node_id)
                self.node.missing.append(f"{self.called(node_id)} does not answer: {answer['error']['text']}")
        return found

    def query(self, what: str) -> dict[str, Any]:
        """The answers of the agents of all nodes that give one, the asked one's first."""
        own = self.node.query(what)
        self._reach()
        others = dict.fromkeys((one for one in self._living if one not in {self.own_id, *self._silent}), "")
        limit_s = min(REACH_S, self._timeout_s / 3)
        return {self.own_id: own, **(self.ask(what, others, limit_s) if others else {})}

    def pending(self) -> list[tuple[str, Row]]:
        """What waits for workers and bundles, with the node whose process wants it, or that places it."""
        answers = self.query("pending")
        tags = {node_ids.tag_text(node_id) for node_id in answers}
        found = []
        for node_id, entries in answers.items():
            for entry in entries:
                of = node_ids.tag_in(entry["client"])
                is_guests = bool(of) and of != node_ids.tag_text(node_id)
                if not (is_guests and of in tags):  # else the guest's own node tells it as well
                    found.append((node_id, entry))
        return found

    def survey(self, kind: str, asked: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """What these nodes find out, see `surveys`, by node in the order of their ids. asked: by node."""
        if not asked:
            return {}
        limit_s = SHARE * self.node.left_s()
        told = {"kind": kind, "timeout_s": SHARE * limit_s}
        abouts = {node_id: json.dumps({**told, **one}) for node_id, one in asked.items()}
        return {node_id: json.loads(text) for node_id, text in self.ask("survey", abouts, limit_s).items()}

    def survey_one(self, node_id: str, kind: str, asked: Mapping[str, Any]) -> Any:
        """The same of one node. Raises UmbelSystemError when it does not answer."""
        found = self.survey(kind, {node_id: asked})
        if node_id not in found:
            raise exceptions.UmbelSystemError(self.node.missing[-1])
        return found[node_id]

    def note(self, node_id: str, missing: Iterable[str], notes: Iterable[str]) -> None:
        """What another node says of what it has told."""
        self.node.missing += [f"{self.called(node_id)}: {text}" for text in missing]
        self.node.notes += [f"{self.called(node_id)}: {text}" for text in notes]
