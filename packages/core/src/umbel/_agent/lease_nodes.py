"""What a node knows of others of which its processes may have leases: what they have, and which cannot be asked now.

A node that cannot be reached is *away* until it is to be tried again. One is *awaited* that a head which has started again knows
of, and that has not come back to it. What a node has said of its own room counts for a while before what the head says of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from umbel._base import nodes

ROOM_COUNTS_S = 2.0  # so long what a node itself has said is newer than what the head says of it

Message = dict[str, Any]


class LeaseNodes:
    def __init__(self) -> None:
        self.members: dict[str, Message] = {}  # the other nodes
        self.awaited: set[str] = set()  # of the members, those that have not come back to this head
        self._dead: set[str] = set()
        self._away: dict[str, float] = {}  # nodes that could not be reached, until then
        self._room_s: dict[str, float] = {}  # when a node has said last what is free there

    def enter(self, facts: Message) -> None:
        """facts: as the cluster lists it."""
        self.members[facts["node_id"]] = {**facts, "draining": _draining(facts)}

    def died(self, node: str, facts: Message) -> str | None:
        """Why it was being drained, "" if it was not; None if it was no member. facts: as the cluster lists it now."""
        self._dead.add(node)
        known = self.members.pop(node, None)
        if known is None:
            return None
        self._away.pop(node, None)
        self.awaited.discard(node)
        self._room_s.pop(node, None)
        return str(known["draining"] or _draining(facts))

    def is_dead(self, node: str) -> bool:
        return node in self._dead

    def of_process(self, process: str) -> str:
        """The node that it is of; "" for none of these."""
        tag = nodes.tag_in(process)
        return next((node for node in self.members if node.startswith(tag)), "")

    def address_of(self, node: str) -> str:
        return str(self.members.get(node, {}).get("address", ""))

    # ---- which cannot be reached ----

    def is_away(self, node: str) -> bool:
        return node in self._away

    def lost(self, node: str, until_s: float) -> None:
        self._away[node] = until_s
        self._room_s.pop(node, None)

    def away_until_s(self) -> Iterable[float]:
        return self._away.values()

    def back(self, now_s: float) -> list[str]:
        """Those that are to be tried again from now on."""
        found = [node for node, until_s in self._away.items() if until_s <= now_s]
        for node in found:
            del self._away[node]
        return found

    # ---- what they have ----

    def changed(self, change: Mapping[str, Any], now_s: float) -> bool:
        """The head knows this of a node. Whether it is to be looked at anew what may be asked of it."""
        node = change["node_id"]
        known = self.members.get(node)
        if known is None or "available" not in change:
            return False
        is_known = not change.get("is_awaited")  # else the head does not know what it has
        if is_known:
            self.members[node] = {**known, "available": change["available"]}
        if change.get("draining") and not known.get("draining"):
            self.members[node]["draining"] = change["draining"]["reason"]
            return True
        return is_known and node not in self._away and self._room_s.get(node, 0.0) + ROOM_COUNTS_S < now_s

    def room_told(self, node: str, message: Message, now_s: float) -> None:
        """It says itself what is free there: a "room"."""
        self._away.pop(node, None)
        self._room_s[node] = now_s
        known = self.members[node]
        drained = known["draining"] or message.get("draining", "")
        self.members[node] = {**known, "available": message["available"], "draining": drained}

    def given_back(self, node: str, resources: Mapping[str, int]) -> bool:
        """A lease there has ended. Whether something can be asked of it: it will say itself what is free, in a while, but what is
        wanted next may want to go there."""
        known = self.members.get(node)
        if known is None or not resources or node in self._away:
            return False
        free = dict(known["available"])
        for name, amount in resources.items():
            free[name] = free.get(name, 0) + amount
        self.members[node] = {**known, "available": free}
        return True


def _draining(facts: Mapping[str, Any]) -> str:
    return str((facts.get("draining") or {"reason": ""})["reason"])
