"""What this node sends of its values to others, in which order, and whom it tells to ask somebody else.

So that many can have a value at once, a chunk leaves a node once: whoever asks for it after that is told who has it by then,
and gets it here only if none of those does for him. A chunk that is still to come here is asked for in advance; it is sent
when it has come.

An *offer* is a value of which others have opened what is here. This module only decides: `mover` talks, and `pulls` is the
other side.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from umbel._base import checks

SENDING_MAX = 8  # chunks at once, each to another node: more share the same network, and each of them ends later
HOLDERS_TOLD_MAX = 4  # of one chunk: enough for one to be quick, few enough for a message
CHUNKS_TOLD_MAX = 100  # of each of them, from the one on that was asked for: so that not each has to be asked for
KEPT_S = 60.0  # an offer that nobody has open: others who want the value are told who has it
KEPT_MAX = 1_000
_SPREAD = 0.618034  # the golden ratio: so many shares further each one begins, all are as far apart as can be


class Holder(NamedTuple):
    """Who has chunks too. chunks: None for all."""

    node: str
    chunks: tuple[int, ...] | None


class Opened(NamedTuple):
    """Tell a node that it can have the value, and who else has of it."""

    node: str
    object_id: str
    generation: str
    is_sure: bool
    chunks: tuple[int, ...] | None
    start: int
    holders: tuple[Holder, ...]


class Send(NamedTuple):
    """Send a chunk. Answered by `sent`, unless the node goes."""

    node: str
    object_id: str
    chunk: int


class Elsewhere(NamedTuple):
    """Tell a node who has the chunk."""

    node: str
    object_id: str
    chunk: int
    holders: tuple[Holder, ...]


class Gone(NamedTuple):
    """Tell a node that it cannot have the value here any more."""

    node: str
    object_id: str


class Shut(NamedTuple):
    """Nobody has the value open any more; what was opened to read it can be closed."""

    object_id: str


OfferCommand = Opened | Send | Elsewhere | Gone | Shut


class _Asked(NamedTuple):
    priority: int
    number: int  # its age
    node: str
    object_id: str
    chunk: int
    without: tuple[str, ...]


class _Offer:
    __slots__ = (
        "chunk_count",
        "chunks",
        "generation",
        "has_all",
        "held",
        "is_sure",
        "opened_count",
        "pullers",
        "shut_at_s",
    )

    def __init__(self, chunk_count: int, generation: str, is_sure: bool, chunks: Collection[int] | None) -> None:
        self.chunk_count = chunk_count
        self.generation = generation
        self.is_sure = is_sure
        self.chunks = None if chunks is None else set(chunks)  # what is here; None: all
        self.pullers: dict[str, None] = {}  # who has it open
        self.has_all: dict[str, None] = {}  # who has a right copy of all
        self.held: dict[int, dict[str, None]] = {}  # chunk -> who was sent it, of those who have it open
        self.opened_count = 0
        self.shut_at_s: float | None = None

    def holders(self, chunk: int) -> list[str]:
        return [*self.has_all, *self.held.get(chunk, ())]


class OfferTable:
    """The machine; one method for each event."""

    def __init__(self) -> None:
        self.offers: dict[str, _Offer] = {}
        self._asked: dict[tuple[str, str, int], _Asked] = {}  # by node, object and chunk: not sent yet
        self._sending: dict[str, tuple[str, int]] = {}  # node -> object and chunk
        self._count = 0

    def opened(
        self,
        node: str,
        object_id: str,
        *,
        chunk_count: int,
        generation: str,
        is_sure: bool,
        chunks: Collection[int] | None,
    ) -> list[OfferCommand]:
        """A node wants the value, and this is what there is of it."""
        offer = self.offers.get(object_id)
        commands: list[OfferCommand] = []
        if offer is not None and (offer.generation, offer.is_sure) != (generation, is_sure):
            commands += self.withdrawn(object_id)  # it is another, or another's place
            offer = None
        if offer is None:
            offer = self.offers[object_id] = _Offer(chunk_count, generation, is_sure, chunks)
        start = int(offer.opened_count * _SPREAD % 1.0 * chunk_count)
        offer.opened_count += 1
        offer.pullers[node] = None
        offer.has_all.pop(node, None)
        offer.shut_at_s = None
        told = None if offer.chunks is None else tuple(sorted(offer.chunks))
        return [*commands, Opened(node, object_id, generation, is_sure, told, start, self._all_holders(offer, node))]

    def asked(
        self, node: str, object_id: str, chunk: int, *, priority: int, without: Iterable[str]
    ) -> list[OfferCommand]:
        offer = self.offers.get(object_id)
        if offer is None or node not in offer.pullers or not 0 <= chunk < offer.chunk_count:
            return [Gone(node, object_id)]
        offer.held.get(chunk, {}).pop(node, None)  # it did not get it
        self._count += 1
        self._asked[node, object_id, chunk] = _Asked(priority, self._count, node, object_id, chunk, (*without,))
        return self._serve()

    def cancelled(self, node: str, object_id: str, chunk: int) -> list[OfferCommand]:
        self._asked.pop((node, object_id, chunk), None)
        return []

    def sent(self, node: str) -> list[OfferCommand]:
        """The chunk is on its way."""
        self._sending.pop(node, None)
        return self._serve()

    def closed(self, node: str, object_id: str, *, has_all: bool, at_s: float) -> list[OfferCommand]:
        """A node wants no more of this value. has_all: it has a copy that others can have."""
        offer = self.offers.get(object_id)
        if offer is None or node not in offer.pullers:
            return []
        self._leave(offer, node, object_id)
        if has_all:
            offer.has_all[node] = None
        return self._shut_if_unused(offer, object_id, at_s)

    def node_gone(self, node: str, *, is_dead: bool = False, at_s: float) -> list[OfferCommand]:
        """The connection to a node is lost: it has nothing open any more. is_dead: nor has it any copy."""
        self._sending.pop(node, None)
        commands: list[OfferCommand] = []
        for object_id, offer in [*self.offers.items()]:
            if is_dead:
                offer.has_all.pop(node, None)
            if node in offer.pullers:
                self._leave(offer, node, object_id)
                commands += self._shut_if_unused(offer, object_id, at_s)
        return commands + self._serve()

    def arrived(self, object_id: str, chunk: int) -> list[OfferCommand]:
        """A chunk of a value that is being pulled here has come."""
        offer = self.offers.get(object_id)
        if offer is None or offer.chunks is None:
            return []
        offer.chunks.add(chunk)
        return self._serve()

    def is_open(self, object_id: str) -> bool:
        """Whether anybody may be being sent it now."""
        offer = self.offers.get(object_id)
        return offer is not None and bool(offer.pullers)

    def completed(self, object_id: str) -> None:
        """All of a value that was being pulled here is here, and right."""
        offer = self.offers.get(object_id)
        if offer is not None:
            offer.generation, offer.is_sure, offer.chunks = "", True, None

    def withdrawn(self, object_id: str) -> list[OfferCommand]:
        """What is here of the value is not to be given any more."""
        offer = self.offers.pop(object_id, None)
        if offer is None:
            return []
        for key in [key for key in self._asked if key[1] == object_id]:
            del self._asked[key]
        commands: list[OfferCommand] = [Gone(node, object_id) for node in offer.pullers]
        return [*commands, Shut(object_id)] if offer.pullers else []

    def _leave(self, offer: _Offer, node: str, object_id: str) -> None:
        del offer.pullers[node]
        for key in [key for key in self._asked if key[:2] == (node, object_id)]:
            del self._asked[key]
        for holders in offer.held.values():
            holders.pop(node, None)

    def _shut_if_unused(self, offer: _Offer, object_id: str, at_s: float) -> list[OfferCommand]:
        if offer.pullers:
            return []
        offer.shut_at_s = at_s
        self.offers[object_id] = self.offers.pop(object_id)  # the one that was used last is the last
        unused = [one for one, other in self.offers.items() if other.shut_at_s is not None]
        for one in unused[: max(0, len(unused) - KEPT_MAX)]:
            del self.offers[one]
        return [Shut(object_id)]

    # ---- who gets what ----

    def _serve(self) -> list[OfferCommand]:
        commands: list[OfferCommand] = []
        for asked in sorted(self._asked.values()):
            offer = self.offers[asked.object_id]
            holders = self._told(offer, asked)
            if holders:
                del self._asked[asked[2:5]]
                commands.append(Elsewhere(asked.node, asked.object_id, asked.chunk, holders))
            elif self._may_send(offer, asked):
                del self._asked[asked[2:5]]
                self._sending[asked.node] = asked.object_id, asked.chunk
                offer.held.setdefault(asked.chunk, {})[asked.node] = None
                commands.append(Send(asked.node, asked.object_id, asked.chunk))
        return commands

    def _may_send(self, offer: _Offer, asked: _Asked) -> bool:
        is_here = offer.chunks is None or asked.chunk in offer.chunks
        return is_here and len(self._sending) < SENDING_MAX and asked.node not in self._sending

    def _told(self, offer: _Offer, asked: _Asked) -> tuple[Holder, ...]:
        """Who has the chunk, if that does for him who asks; and what else they have, so that he need not ask for each."""
        names = [node for node in offer.holders(asked.chunk) if node != asked.node and node not in asked.without]
        turn = asked.number % len(names) if names else 0
        chosen = [*names[turn:], *names[:turn]][:HOLDERS_TOLD_MAX]
        return tuple(self._holder(offer, node, asked.chunk) for node in chosen)

    def _all_holders(self, offer: _Offer, node: str) -> tuple[Holder, ...]:
        names = [one for one in offer.has_all if one != node]
        turn = offer.opened_count % len(names) if names else 0
        return tuple(Holder(one, None) for one in [*names[turn:], *names[:turn]][:HOLDERS_TOLD_MAX])

    def _holder(self, offer: _Offer, node: str, chunk: int) -> Holder:
        if node in offer.has_all:
            return Holder(node, None)
        return Holder(
            node, tuple(one for one in range(chunk, chunk + CHUNKS_TOLD_MAX) if node in offer.held.get(one, ()))
        )

    # ---- time ----

    def next_tick_s(self) -> float | None:
        return min((one.shut_at_s + KEPT_S for one in self.offers.values() if one.shut_at_s is not None), default=None)

    def tick(self, *, at_s: float) -> None:
        for object_id, offer in [*self.offers.items()]:
            if offer.shut_at_s is not None and at_s >= offer.shut_at_s + KEPT_S:
                del self.offers[object_id]

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        checks.invariant(len(self._sending) <= SENDING_MAX, "too much is sent at once")
        for node, object_id, _ in self._asked:
            offer = self.offers.get(object_id)
            checks.invariant(offer is not None and node in offer.pullers, "one asks who has nothing open", node=node)
        for object_id, offer in self.offers.items():
            checks.invariant(
                bool(offer.pullers) == (offer.shut_at_s is None), "an offer is open to nobody", object=object_id
            )
            for holders in offer.held.values():
                checks.invariant(holders.keys() <= offer.pullers.keys(), "one who left holds a chunk", object=object_id)
