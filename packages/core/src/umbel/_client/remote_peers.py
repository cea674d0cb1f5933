"""Which processes of other nodes are being connected to, and what is waited for.

A peer waits until its node's address is known, for which the own node's daemon is asked once for each node, and then for its
dial to end. It ends connected, or given up: no such node, the node died, there is no such process there, or too many dials
were broken off; of one that had been connected before more may be, for its node may be out of reach for a while. A dial that
was broken off may have met a process or a node that was busy, and is begun again.

Only decides. Commands pile up in `commands` until the caller takes them. The caller holds one lock around every call. No
clock: what needs a time is given it.
"""

from __future__ import annotations

from typing import NamedTuple

from umbel._base import checks, nodes

DIAL_TRIES_MAX = 6  # of one peer
RETRY_S = 0.05  # until the second; each later one waits for twice as long, so that the last begins after 1.5 s
RETRY_S_MAX = 2.0
TRIES_AGAIN_MAX = 18  # of one that had been connected: for 25 s, in which a node that the head cannot reach is given up
GONE_COUNT_MAX = 10_000  # nodes that have died; five times the largest cluster that is aimed at


class Ask(NamedTuple):
    """Ask where this node is; `located` is to be told."""

    tag: bytes


class Dial(NamedTuple):
    """Connect to the peer; `connected` or `failed` is to be told, with the same number."""

    peer: bytes
    number: int
    address: str


class GiveUp(NamedTuple):
    """The peer cannot be connected to, and is as good as dead."""

    peer: bytes


class _Waiting:
    """number: of its dial; 0 while there is none. retry_s: when the next one is due."""

    __slots__ = ("number", "retry_s", "tries", "tries_max")

    def __init__(self, tries_max: int) -> None:
        self.tries_max = tries_max
        self.number = 0
        self.tries = 0
        self.retry_s: float | None = None


class RemotePeers:
    """Those of one process that are not connected yet, and the nodes that it knows."""

    def __init__(self) -> None:
        self.commands: list[Ask | Dial | GiveUp] = []
        self._addresses: dict[bytes, str] = {}
        self._asked: set[bytes] = set()
        self._gone: dict[bytes, None] = {}  # tags of nodes that have died, the earliest first
        self._waiting: dict[bytes, _Waiting] = {}
        self._dials = 0

    def is_gone(self, peer: bytes) -> bool:
        """Whether the node of this process has died."""
        return nodes.tag_of_process(peer) in self._gone

    def is_waiting(self, peer: bytes) -> bool:
        return peer in self._waiting

    def state(self, peer: bytes, at_s: float) -> str:
        """What there is between it and us, in words, as the rest of a sentence."""
        tag = nodes.tag_of_process(peer)
        waiting = self._waiting.get(peer)
        if waiting is None:
            return "is connected"
        if waiting.retry_s is not None:
            left_s = max(0.0, waiting.retry_s - at_s)
            return f"broke off {waiting.tries} connections, the next one is tried in {left_s:.2f} s"
        if waiting.number:
            return f"is being connected to, at {self._addresses[tag]}"
        return "is to be connected to, once this node's daemon has said where that node is"

    # ---- events ----

    def wanted(self, peer: bytes, *, tries_max: int = DIAL_TRIES_MAX) -> None:
        """A link to it is needed. It is neither waiting nor connected, and its node is not gone."""
        tag = nodes.tag_of_process(peer)
        checks.invariant(peer not in self._waiting and tag not in self._gone, "a peer is wanted that cannot be")
        waiting = self._waiting[peer] = _Waiting(tries_max)
        if tag in self._addresses:
            self._dial(peer, waiting)
        elif tag not in self._asked:
            self._asked.add(tag)
            self.commands.append(Ask(tag))

    def located(self, tag: bytes, address: str) -> None:
        """The answer: "" for a node that is not known."""
        self._asked.discard(tag)
        if tag in self._gone:
            return  # it has died since
        if address:
            self._addresses[tag] = address
        for peer, waiting in self._of_node(tag):
            if waiting.number or waiting.retry_s is not None:
                continue
            if address:
                self._dial(peer, waiting)
            else:
                self._give_up(peer)

    def connected(self, peer: bytes, number: int) -> bool:
        """Whether the connection is wanted still."""
        waiting = self._waiting.get(peer)
        if waiting is None or waiting.number != number:
            return False
        del self._waiting[peer]
        return True

    def failed(self, peer: bytes, number: int, *, is_final: bool, at_s: float) -> None:
        """is_final: there is no use in another try."""
        waiting = self._waiting.get(peer)
        if waiting is None or waiting.number != number:
            return
        if is_final or waiting.tries >= waiting.tries_max:
            self._give_up(peer)
            return
        waiting.number = 0
        waiting.retry_s = at_s + min(RETRY_S_MAX, RETRY_S * 2 ** (waiting.tries - 1))

    def unwanted(self, peer: bytes) -> None:
        """What comes of its dial is of no interest any more."""
        self._waiting.pop(peer, None)

    def node_gone(self, tag: bytes) -> None:
        """A node has died, which is final."""
        self._addresses.pop(tag, None)
        self._asked.discard(tag)
        self._gone[tag] = None
        if len(self._gone) > GONE_COUNT_MAX:
            del self._gone[next(iter(self._gone))]
        for peer, _waiting in self._of_node(tag):
            self._give_up(peer)

    def next_tick_s(self) -> float | None:
        due = (waiting.retry_s for waiting in self._waiting.values() if waiting.retry_s is not None)
        return min(due, default=None)

    def tick(self, at_s: float) -> None:
        for peer, waiting in list(self._waiting.items()):
            if waiting.retry_s is not None and waiting.retry_s <= at_s:
                self._dial(peer, waiting)

    # ----

    def _of_node(self, tag: bytes) -> list[tuple[bytes, _Waiting]]:
        return [(peer, waiting) for peer, waiting in self._waiting.items() if nodes.tag_of_process(peer) == tag]

    def _dial(self, peer: bytes, waiting: _Waiting) -> None:
        self._dials += 1
        waiting.number = self._dials
        waiting.tries += 1
        waiting.retry_s = None
        self.commands.append(Dial(peer, waiting.number, self._addresses[nodes.tag_of_process(peer)]))

    def _give_up(self, peer: bytes) -> None:
        del self._waiting[peer]
        self.commands.append(GiveUp(peer))

    def check(self) -> None:
        """Assert what always holds: whoever waits, waits for something that will come."""
        for peer, waiting in self._waiting.items():
            tag = nodes.tag_of_process(peer)
            is_asked = tag in self._asked
            checks.invariant(tag not in self._gone, "a process of a dead node is waited for", peer=peer.hex())
            checks.invariant(
                [is_asked, waiting.number > 0, waiting.retry_s is not None].count(True) == 1,
                "a peer waits for nothing, or for several things",
                peer=peer.hex(),
            )
            checks.invariant(is_asked or tag in self._addresses, "a dial has no address", peer=peer.hex())
        checks.invariant(not self._asked & self._addresses.keys(), "a node is asked for that is known")
