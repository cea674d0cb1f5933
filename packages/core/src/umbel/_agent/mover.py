"""Moves values between this node and others: turns what they say into events of `pulls` and `offers`, and back.

Between two daemons there is a connection for each direction in which values are pulled, opened by the one that pulls; nothing
else goes over it, so nothing else waits behind values. What it says there:

    open      object, segment, size, chunk size, who it is and where others find it; `n`, which all answers repeat
    ask       object, chunk, priority, nodes that do not do      cancel    object, chunk
    confirm   object: whether the generation still holds         close     object, whether it has all of it now
    freed     object, of which the other side has a copy
    left      an owner there, and values here that were made for it, whose maker has ended or hears no more of it: which does it
              not need?
    who_has   object of an owner there, who asks and where that is
    holders   object, and the nodes that have copies of it, as its owner knows
    needless  values of such kind on the other side that nobody here needs

and what it is told:

    opened    object, generation, whether that is sure, chunks, where to begin, who else has of it
    chunk     object, chunk; the bytes are the message's body    elsewhere object, chunk, who has it
    confirmed object, whether it holds                           gone      object, and why, if it is here all the same

The side that says the former is `pulling`, the other one `giving`. Whoever is connected has proved to be a node of the
cluster. What it says is checked all the same, and it is cut off if it says what it must not. Connections, files and the
time are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from umbel._agent import giving, moving, offers, pull_commands, pulling, pulls
from umbel._agent.moving import Message, text
from umbel._base import orders
from umbel._model import reasons
from umbel._transport import bulk


class Mover:
    """One node's side. Messages and ends of connections come by the methods that `bulk.Receiver` lists."""

    def __init__(
        self,
        node: str,
        surroundings: moving.Surroundings,
        *,
        capacity_bytes: int,
        address: str = "",
        chunk_bytes: int = pulls.CHUNK_BYTES,
    ) -> None:
        """node: its id. address: where other nodes find this one."""
        self.node = node
        self.address = address
        self.offers = offers.OfferTable()
        self.pulls = pulls.PullTable(node, capacity_bytes, is_lent=self.offers.is_open, chunk_bytes=chunk_bytes)
        self._around = surroundings
        self._addresses: dict[str, str] = {}
        self.pulling = pulling.Pulling(
            node,
            surroundings,
            self.pulls,
            self.offers,
            address=address,
            addresses=self._addresses,
            decide=self._decide,
            chunk_bytes=chunk_bytes,
        )
        self._giving = giving.Giving(
            node,
            surroundings,
            self.offers,
            self.pulls,
            addresses=self._addresses,
            copy_of=self.pulling.copy_of,
            decide=self._decide,
            chunk_bytes=chunk_bytes,
        )
        self._orders = orders.Orders({**self.pulling.do, **self._giving.do})
        self._on: dict[str, Callable[[Message], None]] = {
            "freed": lambda message: self.freed(text(message["object"])),
            "who_has": lambda message: surroundings.who_has(
                text(message["object"]), text(message["as"]), text(message["at"])
            ),
            "holders": lambda message: self.owner_told(
                text(message["object"]), {text(node): text(address) for node, address in message["nodes"]}
            ),
            "left": lambda message: surroundings.left(text(message["owner"]), [*map(text, message["values"])]),
            "needless": lambda message: surroundings.needless([*map(text, message["values"])]),
        }

    @property
    def sent_bytes(self) -> int:
        """Of values, to others."""
        return self._giving.sent_bytes

    # ---- what this node wants ----

    def want(
        self,
        object_id: str,
        size_bytes: int,
        sources: Mapping[str, tuple[str, str]],
        *,
        asker: str,
        priority: pull_commands.Priority,
    ) -> None:
        """sources: node -> its address, and the segment there, "" where it has a copy. Answered by `delivered` or `failed`,
        perhaps before this returns. The asker counts on the value, as its owner knows, until he says `unwanted`."""
        for node, (address, _) in sources.items():
            self._addresses[node] = address
        places = {node: segment for node, (_, segment) in sources.items()}
        self._decide(
            self.pulls.wanted(
                object_id, size_bytes, sources=places, asker=asker, priority=priority, at_s=self._around.now_s()
            )
        )

    def unwanted(self, object_id: str, asker: str) -> None:
        self._decide(self.pulls.unwanted(object_id, asker, at_s=self._around.now_s()))

    def asker_gone(self, asker: str) -> None:
        self._decide(self.pulls.asker_gone(asker, at_s=self._around.now_s()))

    def source_added(self, object_id: str, node: str, address: str, segment: str) -> None:
        self._addresses[node] = address
        self._decide(self.pulls.source_added(object_id, node, segment, at_s=self._around.now_s()))

    def owner_told(self, object_id: str, nodes: Mapping[str, str]) -> None:
        """nodes: that have copies, and their addresses."""
        for node, address in nodes.items():
            self._addresses.setdefault(node, address)
        self._decide(self.pulls.owner_told(object_id, nodes, at_s=self._around.now_s()))

    def freed(self, object_id: str) -> None:
        """Its owner says that nobody needs it."""
        self._decide([*self.pulls.freed(object_id, at_s=self._around.now_s()), *self.offers.withdrawn(object_id)])

    def tell_freed(self, object_id: str, node: str, address: str) -> None:
        """Another node, which has a copy, is to hear that nobody needs it."""
        self.tell(node, address, {"t": "freed", "object": object_id})

    def tell(self, node: str, address: str, message: Message) -> None:
        """If the node cannot be reached it is not told."""
        self.pulling.tell(node, address, message)

    def node_dead(self, node: str) -> None:
        """It will not come back."""
        now_s = self._around.now_s()
        self.pulling.node_dead(node)
        self._giving.node_dead(node)
        self._decide(self.pulls.source_lost(node, is_dead=True, at_s=now_s))
        self._decide(self.offers.node_gone(node, is_dead=True, at_s=now_s))

    def room_granted(self, size_bytes: int) -> None:
        self._decide(self.pulls.room_granted(size_bytes, at_s=self._around.now_s()))

    def room_refused(self, text: str) -> None:
        self._decide(self.pulls.room_refused(text, at_s=self._around.now_s()))

    def room_wanted(self) -> None:
        self._decide(self.pulls.room_wanted(at_s=self._around.now_s()))

    def reason(self, object_id: str) -> reasons.Reason | None:
        return self.pulls.reason(object_id)

    # ---- connections ----

    def connected(self, node: str, link: moving.Link) -> None:
        self.pulling.connected(node, link)

    def not_connected(self, node: str) -> None:
        self.pulling.not_connected(node)

    def accepted(self, link: moving.Link) -> None:
        """A node wants to pull."""
        self._giving.accepted(link)

    def on_closed(self, link: moving.Link) -> None:
        self.pulling.closed(link)
        self._giving.closed(link)

    def on_message(self, link: moving.Link, message: Message, body_bytes: int) -> bulk.Target | None:
        """Raises ValueError for what breaks the protocol."""
        try:
            if self.pulling.has(link):
                return self.pulling.said(link, message, body_bytes)
            if self._giving.has(link):
                if message["t"] in self._on:
                    self._on[message["t"]](message)
                else:
                    self._giving.said(link, message)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a message between nodes that move values: {error!r}") from error
        return None

    def on_body(self, link: moving.Link | None, _message: Message | None = None) -> None:
        self.pulling.on_body(link)

    def on_sent(self, link: moving.Link) -> None:
        self._giving.sent(link)

    # ---- what the machines decide ----

    def _decide(self, commands: Iterable[Any]) -> None:
        """Carry out commands in order, and what follows from each after all of them."""
        self._orders.carry_out(commands)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        due = (self.pulls.next_tick_s(), self.offers.next_tick_s(), self.pulling.next_idle_s())
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        now_s = self._around.now_s()
        self._decide(self.pulls.tick(at_s=now_s))
        self.offers.tick(at_s=now_s)
        self.pulling.close_idle()

    def close(self) -> None:
        """No connection and no copy is left."""
        self._giving.close()
        self.pulling.close()

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        self.pulls.check()
        self.offers.check()
