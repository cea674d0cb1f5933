"""Values that processes of this node have made for owners on other nodes, and that are here although those processes have ended,
or the connection between the two has broken.

They stay until their owner frees them or ends. It says so when it frees one; since that may be lost, and a process may have
died before it could tell what it had made, owners are asked now and then, while there are such values, which they do not need.
The owner's daemon answers for one that has ended; one whose node has died needs nothing. What there is of those whose makers have
ended is found in the store's directory and in the list of what is on disk, and known nowhere else. Makers that live say which
those were of whose owners they hear no more, and free them themselves. They give no such name to another value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from umbel._agent.store_service import StoreService
from umbel._base import nodes
from umbel._objects import segments

ASK_S = 2.0  # as often as the store measures what the dead have left
NAMED_MAX = 1_000  # values in one message

Tell = Callable[[str, str, dict[str, Any]], None]


class LeftValues:
    """Those of one node, and what its processes own of other nodes'."""

    def __init__(
        self,
        store: StoreService,
        own_tag: bytes,
        place_of: Callable[[bytes], tuple[str, str]],
        tell: Tell,
        now_s: Callable[[], float],
    ) -> None:
        """place_of: a node's id and address, by its tag; "" where it is no member. tell: another node."""
        self._store = store
        self._own_tag = own_tag
        self._place_of = place_of
        self._tell = tell
        self._now_s = now_s
        self._due_s: float | None = None
        self._kept: set[str] = set()  # those of makers that live, as they have said

    # ---- the node where they are ----

    def expect(self) -> None:
        """There are some."""
        if self._due_s is None:
            self._due_s = self._now_s()

    def kept(self, maker: str, names: Iterable[str]) -> None:
        """A process of this node has these, and the connections to their owners have broken."""
        self._kept.update(name for name in names if segments.parts_of(name)[0] == maker)
        self._due_s = self._now_s()

    def count(self) -> int:
        """Of makers that have ended."""
        return 0 if self._due_s is None else sum(map(self._is_left, self._there()))

    def on_needless(self, names: Iterable[str]) -> None:
        """Their owner does not need these."""
        of_living: dict[str, list[str]] = {}
        for name in names:
            if self._is_left(name):
                self._remove(name)
            elif name in self._kept:  # else its maker has the connection to hear that by
                of_living.setdefault(segments.parts_of(name)[0], []).append(name)
        for maker, those in of_living.items():
            self._store.hub.send(maker, {"t": "not_needed", "segments": those})
        self._store.measure()

    def next_tick_s(self) -> float | None:
        return self._due_s

    def tick(self) -> None:
        if self._due_s is None or self._now_s() < self._due_s:
            return
        by_owner: dict[str, list[str]] = {}
        there = {*self._there()}
        self._kept &= there
        for name in there:
            if name in self._kept or self._is_left(name):
                by_owner.setdefault(segments.parts_of(name)[1], []).append(name)
        self._due_s = self._now_s() + ASK_S if by_owner else None
        for owner, names in by_owner.items():
            node, address = self._place_of(nodes.tag_of_process(bytes.fromhex(owner)))
            if not address:
                self.on_needless(names)
            for begin in range(0, len(names) if address else 0, NAMED_MAX):
                self._tell(node, address, {"t": "left", "owner": owner, "values": names[begin : begin + NAMED_MAX]})

    def _there(self) -> Iterator[str]:
        yield from os.listdir(self._store.directory)
        if self._store.spilling is not None:
            yield from [*self._store.spilling.ledger.locations]

    def _is_left(self, name: str) -> bool:
        """Whether its maker was a process of this node, and is none any more, and its owner is of another one."""
        try:
            creator, owner, _ = segments.parts_of(name)
            tags = [nodes.tag_of_process(bytes.fromhex(one)) for one in (creator, owner)]
        except ValueError:  # not a segment
            return False
        return tags[0] == self._own_tag != tags[1] and creator not in self._store.hub.clients

    def _remove(self, name: str) -> None:
        self._store.unlink(os.path.join(self._store.directory, name))
        if self._store.spilling is not None:
            self._store.spilling.freed(name)

    # ---- the owner's node ----

    def on_asked(self, owner: str, names: list[str]) -> None:
        """Another node asks which of these a process of this one needs."""
        if owner in self._store.hub.clients:
            self._store.hub.send(owner, {"t": "left_check", "segments": names})
        elif names:
            self._tell_needless(names)

    def freed(self, name: str) -> None:
        """A process of this node, which owns this, does not need it."""
        self._tell_needless([name])

    def _tell_needless(self, names: list[str]) -> None:
        """names: all of one node. If it cannot be told, it asks."""
        node, address = self._place_of(nodes.tag_of_process(bytes.fromhex(segments.parts_of(names[0])[0])))
        if address:
            self._tell(node, address, {"t": "needless", "values": names})
