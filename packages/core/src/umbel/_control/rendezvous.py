"""How two nodes of a cluster meet of which one cannot dial the other: what the head does for it.

One asks for the other by a ticket, over its connection to the head. The head passes that on to the other one, which dials the
first, or, if both are to meet here, dials the head with a ticket of its own; the head expects both. A ticket is good for
`GOOD_S`, and only for these two: what becomes of it is believed from nobody else.

This module only decides; `node_service` sends, and `umbel._agent.reacher` has the connections.
"""

from __future__ import annotations

import collections
from typing import NamedTuple, TypeAlias

GOOD_S = 10.0  # twice what the nodes wait
OPEN_MAX = 1_000  # of one node that asks; beyond it the others are said not to be reached
REFUSED = "the head knows no such node"


class DialBack(NamedTuple):
    """Tell this node to dial the asker; is_relayed: or the head."""

    node: str
    ticket: bytes
    asker: str
    is_relayed: bool


class Expect(NamedTuple):
    """Those who come with the one ticket and the other are to be connected to each other."""

    ticket: bytes
    other: bytes


class Meet(NamedTuple):
    """Tell the asker that it is expected."""

    asker: str
    ticket: bytes


class Unreached(NamedTuple):
    """Tell the asker. is_final: there is no use in asking otherwise."""

    asker: str
    ticket: bytes
    reason: str
    is_final: bool


Command: TypeAlias = "DialBack | Expect | Meet | Unreached"


class _Open(NamedTuple):
    asker: str
    node: str
    told: bytes  # the ticket of the node
    until_s: float


class Rendezvous:
    """All at one head."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, bytes], _Open] = {}  # by asker and its ticket, the oldest first
        self._counts: collections.Counter[str] = collections.Counter()  # of them, by asker
        self._by_told: dict[bytes, tuple[str, bytes]] = {}

    def asked(
        self,
        asker: str,
        node: str,
        ticket: bytes,
        other: bytes,
        at_s: float,
        *,
        is_relayed: bool,
        is_alive: bool,
        is_linked: bool,
    ) -> list[Command]:
        """other: a fresh ticket, for the node if both are to meet. is_linked: whether the node can be told now. If not, whoever
        asks finds that nobody comes, and asks again, as long as the node lives."""
        self._close((asker, ticket))  # it asks again, for another way
        if not is_alive or asker == node:
            return [Unreached(asker, ticket, REFUSED, is_final=True)]
        if not is_linked:
            return []
        told = other if is_relayed else ticket
        if self._counts[asker] >= OPEN_MAX or told in self._by_told:
            return [Unreached(asker, ticket, f"{OPEN_MAX} such wishes of this node are open already", is_final=True)]
        self._open[asker, ticket] = _Open(asker, node, told, at_s + GOOD_S)
        self._by_told[told] = (asker, ticket)
        self._counts[asker] += 1
        if not is_relayed:
            return [DialBack(node, ticket, asker, is_relayed=False)]
        return [Expect(ticket, other), DialBack(node, other, asker, is_relayed=True), Meet(asker, ticket)]

    def failed(self, node: str, told: bytes, reason: str) -> list[Command]:
        """A node could not dial with the ticket that it was told."""
        key = self._by_told.get(told)
        if key is None or self._open[key].node != node:
            return []
        self._close(key)
        return [Unreached(*key, reason, is_final=False)]

    def next_tick_s(self) -> float | None:
        return next((one.until_s for one in self._open.values()), None)

    def tick(self, at_s: float) -> None:
        for key, one in list(self._open.items()):
            if one.until_s > at_s:
                break
            self._close(key)

    def _close(self, key: tuple[str, bytes]) -> None:
        one = self._open.pop(key, None)
        if one is not None:
            del self._by_told[one.told]
            self._counts[one.asker] -= 1
            if not self._counts[one.asker]:
                del self._counts[one.asker]
