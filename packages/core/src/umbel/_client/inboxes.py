"""Packets that processes send each other beside calls and values, over the connections that they have for those anyway.

For processes that know each other's ids and have agreed on a name, on whatever nodes they are: between nodes both sides have
proved themselves, and the way is the one there is (`remote_links`). An inbox gets the packets of one sender in their order, and
then its *end*, once: its inbox of that name is closed, or was never open, or the process is gone.

How much waits in an inbox is for those to bound who use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel._transport import reactor
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client import links
    from umbel._client.native import NativeEngine


class Inboxes:
    """Those of one process, by name."""

    def __init__(self, engine: NativeEngine) -> None:
        self.engine = engine
        self.open_ones: dict[bytes, Inbox] = {}

    def open(self, name: bytes) -> Inbox:
        """An earlier one of that name is closed."""
        box = Inbox(self, name)
        with self.engine.lock:
            if name in self.open_ones:
                self.open_ones[name].end()
            self.open_ones[name] = box
        return box

    # Lock held

    def on_packet(self, link: links.Link, message: tuple[Any, ...]) -> None:
        _, name, packet = message
        box = self.open_ones.get(name)
        if box is not None:
            box.put(link.peer, packet)
        elif packet is not None:
            link.post((messages.PACKET, name, None))

    def peer_gone(self, peer: bytes) -> None:
        for box in list(self.open_ones.values()):
            if peer in box.known:
                box.put(peer, None)


class Inbox:
    """Any thread may do anything, one at a time receives. known: processes that have been written to, have written, or are
    watched."""

    def __init__(self, boxes: Inboxes, name: bytes) -> None:
        self.name = name
        self.known: set[bytes] = set()
        self.is_owned = False  # by what closes it later than who has opened it
        self._boxes = boxes
        self._engine = boxes.engine
        self._ended: set[bytes] = set()
        self._arrived: list[tuple[bytes, bytes | None]] = []
        self._waiter: reactor.Waiter | None = None
        self._ring: Callable[[], None] | None = None
        self._last = b""

    def watch(self, peer: bytes) -> None:
        """Have the end of a process told, even if it never writes."""
        with self._engine.lock:
            self._link_to(peer)

    def send(self, peer: bytes, packet: bytes) -> None:
        """Waits for nothing. Nothing is sent to whom an end has come from."""
        with self._engine.lock:
            link = self._link_to(peer)
            if link is not None:
                link.post((messages.PACKET, self.name, packet))
                link.flush()

    def _link_to(self, peer: bytes) -> links.Link | None:
        self.known.add(peer)
        if self._engine.is_closed or peer in self._ended:
            return None
        link = self._engine.links.to(peer)
        if link is None:
            self.put(peer, None)
        return link

    def receive(self, timeout_s: float) -> list[tuple[bytes, bytes | None]]:
        """What has arrived, at least one thing unless time is up: (process, packet), or (process, None) for its end."""
        self._wait(lambda: bool(self._arrived), time.monotonic() + timeout_s)
        with self._engine.lock:
            found, self._arrived = self._arrived, []
        return found

    def receive_from(self, peer: bytes, until_s: float) -> bytes | None:
        """The next packet of this process, empty at its end; None when there is none by then (time.monotonic()). What comes from
        others stays here."""

        def index() -> int:
            return next((index for index, (one, _) in enumerate(self._arrived) if one == peer), -1)

        self._wait(lambda: index() >= 0, until_s)
        with self._engine.lock:
            return None if index() < 0 else self._arrived.pop(index())[1] or b""

    def _wait(self, is_there: Callable[[], bool], until_s: float) -> None:
        driver = self._engine.reactor
        if not is_there():
            driver.poll_now()
        while True:
            with self._engine.lock:
                if is_there() or time.monotonic() >= until_s:
                    return
                waiter = self._waiter = reactor.Waiter()
                self._engine.prepare_to_wait()
            try:
                driver.wait(waiter, until_s)
            finally:
                self._waiter = None

    def ring_with(self, ring: Callable[[], None] | None) -> None:
        """Call this, lock held, whenever something arrives."""
        with self._engine.lock:
            self._ring = ring

    def way_to(self, peer: bytes) -> str:
        """What there is between it and us, in words, as the rest of a sentence."""
        remote = self._engine.links.remote
        if remote is None or self._engine.links.is_of_this_node(peer):
            return "it is on this node"
        with self._engine.lock:
            return remote.reason(peer).text

    def close(self, last: bytes = b"") -> None:
        """Soon, for a destructor may call this; its end is told to all who are known. last: a packet for them before that.
        Idempotent."""
        self._last = last
        self._engine.call_soon(self.end)

    def end(self) -> None:
        """As `close`, at once. Lock held."""
        if self._boxes.open_ones.get(self.name) is not self:
            return
        del self._boxes.open_ones[self.name]
        for peer in self.known - self._ended:
            link = self._engine.links.to(peer)
            if link is not None:
                if self._last:
                    link.post((messages.PACKET, self.name, self._last))
                link.post((messages.PACKET, self.name, None))
                self._engine.mark_dirty(link)

    def put(self, peer: bytes, packet: bytes | None) -> None:
        """Lock held."""
        if peer in self._ended:
            return
        self.known.add(peer)
        if packet is None:
            self._ended.add(peer)
        self._arrived.append((peer, packet))
        if self._waiter is not None:
            self._waiter.finish()
        if self._ring is not None:
            self._ring()
