"""How this node gets connections to nodes that cannot be dialled.

By way of the head, with which every node has a connection, it asks such a node to dial this one. Where that cannot dial it
either, both dial the head, which passes bytes on between the two. Each connection has a *ticket*, by which it is known when it
comes; it is for these two nodes, for one use, and for `BACK_S` or `RELAYED_S`. What was of use for a node is tried first for
`KNOWN_S`.

Without a connection to the head what is wanted waits for one. This module only decides; `reacher` does the rest.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from umbel._base import checks

BACK_S = 2.0  # for a node to dial this one: a round trip to the head and one to the node, around the world twice
RELAYED_S = 5.0  # for both to dial the head; as long as it waits for the second of them
WAIT_S = 60.0  # for the head: as long as nodes do that have lost it
KNOWN_S = 300.0  # that a node can only be reached through the head; networks change
TICKET_COUNT_MAX = 10_000  # under way; beyond it nodes are said not to be reached


class Ask(NamedTuple):
    """The head is to have this node dial here; is_relayed: or to dial the head, as this one will."""

    ticket: bytes
    node: str
    is_relayed: bool


class MeetAtHead(NamedTuple):
    """Dial the head, with this ticket."""

    ticket: bytes
    node: str


class Fail(NamedTuple):
    """There will be no such connection."""

    ticket: bytes
    reason: str


Command: TypeAlias = "Ask | MeetAtHead | Fail"


class _Wanted:
    __slots__ = ("is_asked", "is_relayed", "node", "trouble", "until_s")

    def __init__(self, node: str, *, is_relayed: bool, until_s: float) -> None:
        self.node = node
        self.is_relayed = is_relayed
        self.is_asked = False  # by the present connection to the head
        self.until_s = until_s
        self.trouble = ""  # why the node does not dial this one


class Reaching:
    """Of one node. listens: whether others can dial it at all. is_head: then no other node can pass bytes on."""

    def __init__(self, *, listens: bool, is_head: bool) -> None:
        self.is_linked = is_head
        self.relayed: dict[str, float] = {}  # nodes that are reached through the head, and until when that is believed
        self._listens = listens
        self._is_head = is_head
        self._wanted: dict[bytes, _Wanted] = {}

    # ---- what this node wants ----

    def wanted(self, ticket: bytes, node: str, at_s: float) -> list[Command]:
        if len(self._wanted) >= TICKET_COUNT_MAX:
            return [Fail(ticket, f"{TICKET_COUNT_MAX} such connections are waited for already; try again later")]
        if self.relayed.get(node, at_s) < at_s:
            del self.relayed[node]
        is_relayed = not self._is_head and (not self._listens or node in self.relayed)
        wanted = self._wanted[ticket] = _Wanted(node, is_relayed=is_relayed, until_s=at_s + WAIT_S)
        if is_relayed:
            self.relayed.setdefault(node, at_s + KNOWN_S)
        if not self._listens:
            wanted.trouble = "this node listens nowhere"
        return self._ask(ticket, wanted, at_s) if self.is_linked else []

    def _ask(self, ticket: bytes, wanted: _Wanted, at_s: float) -> list[Command]:
        wanted.is_asked = True
        wanted.until_s = at_s + (RELAYED_S if wanted.is_relayed else BACK_S)
        return [Ask(ticket, wanted.node, wanted.is_relayed)]

    def arrived(self, ticket: bytes) -> str:
        """A connection with this ticket has come: from which node; "" if none was waited for."""
        wanted = self._wanted.pop(ticket, None)
        return "" if wanted is None else wanted.node

    # ---- what is heard of it ----

    def meets(self, ticket: bytes) -> list[Command]:
        """The head expects this node, and has told the other one."""
        wanted = self._wanted.get(ticket)
        return [MeetAtHead(ticket, wanted.node)] if wanted is not None and wanted.is_relayed else []

    def unreached(self, ticket: bytes, reason: str, at_s: float, *, is_final: bool) -> list[Command]:
        """is_final: there is no use in another way."""
        wanted = self._wanted.get(ticket)
        if wanted is None:
            return []
        if wanted.is_relayed or is_final or self._is_head:
            del self._wanted[ticket]
            self.relayed.pop(wanted.node, None)
            told = f"{wanted.trouble}, and through the head it is not reached either: " if wanted.trouble else ""
            return [Fail(ticket, f"{told}{reason}")]
        wanted.is_relayed, wanted.trouble = True, reason
        self.relayed[wanted.node] = at_s + KNOWN_S
        return self._ask(ticket, wanted, at_s) if self.is_linked else []

    def linked(self, at_s: float) -> list[Command]:
        """There is a connection to the head, which knows of nothing that the last one was asked."""
        self.is_linked = True
        commands: list[Command] = []
        for ticket, wanted in self._wanted.items():
            if not wanted.is_asked:
                commands += self._ask(ticket, wanted, at_s)
        return commands

    def unlinked(self, at_s: float) -> None:
        self.is_linked = False
        for wanted in self._wanted.values():
            wanted.is_asked = False
            wanted.until_s = at_s + WAIT_S

    def node_gone(self, node: str) -> list[Command]:
        self.relayed.pop(node, None)
        gone = [ticket for ticket, wanted in self._wanted.items() if wanted.node == node]
        for ticket in gone:
            del self._wanted[ticket]
        return [Fail(ticket, "it has died") for ticket in gone]

    def state(self, node: str) -> str:
        """What is waited for, as the rest of a sentence about that node; "" if nothing is."""
        found = next((wanted for wanted in self._wanted.values() if wanted.node == node), None)
        if found is None:
            return ""
        if not found.is_asked:
            return "cannot be dialled, and is asked to dial this node once there is a connection to the head"
        if found.is_relayed:
            return "cannot be dialled, and is to be reached through the head"
        return "cannot be dialled, and was asked through the head to dial this node"

    # ---- time ----

    def next_tick_s(self) -> float | None:
        return min((wanted.until_s for wanted in self._wanted.values()), default=None)

    def tick(self, at_s: float) -> list[Command]:
        commands: list[Command] = []
        for ticket, wanted in list(self._wanted.items()):
            if wanted.until_s > at_s:
                continue
            if not wanted.is_asked:
                reason = f"it cannot be asked, as there was no connection to the head for {WAIT_S:g} s"
            elif wanted.is_relayed:
                reason = f"it did not come to the head within {RELAYED_S:g} s"
            else:
                reason = f"it did not dial this node within {BACK_S:g} s"
            commands += self.unreached(ticket, reason, at_s, is_final=not wanted.is_asked)
        return commands

    def check(self) -> None:
        """Raises InternalError unless whatever is asked for can come."""
        for wanted in self._wanted.values():
            checks.invariant(self.is_linked or not wanted.is_asked, "a node was asked without a head", node=wanted.node)
            checks.invariant(
                wanted.is_relayed or self._listens or self._is_head,
                "a node is to dial where nobody listens",
                node=wanted.node,
            )
            checks.invariant(not (wanted.is_relayed and self._is_head), "the head is to be met by itself")
