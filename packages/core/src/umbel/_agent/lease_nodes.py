"""What a node knows of others of which its processes may have leases: what they have, and which cannot be asked now.

A node that cannot be reached is *away* until it is to be tried again. One is *awaited* that a head which has started again knows
of, and that has not come back to it. What a node has said of its own room counts for a while before what the head says of it;
that is looked at afterwards, for the node may have nobody here any more to say it to. Leases that
have been given back are room, too, until it says that it has heard so: what it said before crosses that on the way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from umbel._base import nodes

ROOM_COUNTS_S = 2.0  # so long what a node itself has said is newer than what the head says of it

Amounts = Mapping[str, int]
Message = dict[str, Any]


class LeaseNodes:
    def __init__(self) -> None:
        self.members: dict[str, Message] = {}  # the other nodes
        self.awaited: set[str] = set()  # of the members, those that have not come back to this head
        self._dead: set[str] = set()
        self._away: dict[str, float] = {}  # nodes that could not be reached, until then
        self._room_s: dict[str, float] = {}  # when a node has said last what is free there
        self._unseen: dict[str, tuple[float, Amounts]] = {}  # what the head has said since, and when that counts
        self._said_back: dict[
            str, int
        ] = {}  # how many leases each was told of that have ended, by the connection there is
        self._unheard: dict[str, deque[tuple[int, Amounts]]] = {}  # those of them that it may not have heard of

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
        self._forget_room(node)
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
        self._forget_room(node)

    def _forget_room(self, node: str) -> None:
        """What has been said by the connection that there was."""
        for known in (self._room_s, self._unseen, self._said_back, self._unheard):
            known.pop(node, None)

    def due_s(self) -> Iterable[float]:
        """When `due` finds something."""
        return [*self._away.values(), *(at_s for at_s, _ in self._unseen.values())]

    def due(self, now_s: float) -> list[str]:
        """Those of which it is to be looked at anew from now on what may be asked of them."""
        found = [node for node, at_s in self._away.items() if at_s <= now_s]
        for node in found:
            del self._away[node]
        for node, (at_s, available) in list(self._unseen.items()):
            if at_s <= now_s:
                del self._unseen[node]
                self._has(node, available)
                found.append(node)
        return found

    # ---- what they have ----

    def changed(self, change: Mapping[str, Any], now_s: float) -> bool:
        """The head knows this of a node. Whether it is to be looked at anew what may be asked of it."""
        node = change["node_id"]
        known = self.members.get(node)
        if known is None or "available" not in change:
            return False
        is_drained = bool(change.get("draining") and not known.get("draining"))
        if is_drained:
            self.members[node] = {**known, "draining": change["draining"]["reason"]}
        if change.get("is_awaited"):  # the head does not know what it has
            return is_drained
        counts_until_s = self._room_s.get(node, -ROOM_COUNTS_S) + ROOM_COUNTS_S
        if counts_until_s < now_s:
            self._has(node, change["available"])
            return is_drained or node not in self._away
        self._unseen[node] = (counts_until_s, change["available"])
        return is_drained

    def _has(self, node: str, available: Amounts) -> None:
        self.members[node] = {**self.members[node], "available": available}

    def free(self, node: str) -> Amounts:
        """What can be asked for there."""
        available: Amounts = self.members[node]["available"]
        unheard = self._unheard.get(node)
        if not unheard:
            return available
        free = dict(available)
        for _, resources in unheard:
            for name, amount in resources.items():
                free[name] = free.get(name, 0) + amount
        return free

    def room_told(self, node: str, message: Message, now_s: float) -> None:
        """It says itself what is free there: a "room"."""
        self._away.pop(node, None)
        self._unseen.pop(node, None)
        self._room_s[node] = now_s
        unheard = self._unheard.get(node)
        while unheard and unheard[0][0] <= message["returns"]:
            unheard.popleft()
        known = self.members[node]
        drained = known["draining"] or message.get("draining", "")
        self.members[node] = {**known, "available": message["available"], "draining": drained}

    def given_back(self, node: str, resources: Amounts) -> bool:
        """It is told that a lease has ended. Whether something can be asked of it: it will say itself what is free, in a while,
        but what is wanted next may want to go there."""
        if node not in self.members or node in self._away:
            return False
        number = self._said_back[node] = self._said_back.get(node, 0) + 1
        self._unheard.setdefault(node, deque()).append((number, resources))
        return bool(resources)


def _draining(facts: Mapping[str, Any]) -> str:
    return str((facts.get("draining") or {"reason": ""})["reason"])
