"""What arrives at a process: messages of others, their ends, and what its node's daemon says.

Each is handed to the part of the engine that it concerns, with the engine's lock held. What comes while the process is not
set up yet is handled as soon as it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel._client import links
from umbel._transport import reactor
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

logger = logging.getLogger("umbel")
_OF_FETCHING = ("value_here", "value_failed")
_OF_SPILLING = ("store_ask", "store_spill", "spill_check", "spill_forget", "spill_remove")
Handler = Callable[[links.Link, tuple[Any, ...]], None]


class Arrivals:
    """on_notice: is asked first about what the daemon says; returns whether it knew."""

    def __init__(self, engine: NativeEngine, on_notice: Callable[[dict[str, Any], bytes], bool] | None) -> None:
        self._engine = engine
        self._on_notice_first = on_notice
        self.on_link_lost: Callable[[links.Link], None] | None = None
        self.welcomed = reactor.Waiter()
        self.is_ready = False
        self._early: list[Callable[[], None]] = []  # what arrived before `begin`
        self._handlers: dict[int, Handler] = {}

    def add(self, handlers: dict[int, Handler]) -> None:
        """What a worker understands beside."""
        self._handlers.update(handlers)

    def add_common(self) -> None:
        """What every process understands; its parts are there."""
        book, held, objects = self._engine.tasks, self._engine.leases, self._engine.values
        self._handlers = {
            messages.BORROW: objects.on_borrow,
            messages.ACK: objects.on_ack,
            messages.RELEASE: objects.on_release,
            messages.BORROWS: objects.on_borrows,
            messages.BORROWS_ASKED: objects.on_borrows_asked,
            messages.FETCH: objects.on_fetch,
            messages.VALUE: objects.on_value,
            messages.FREE: objects.on_free,
            messages.TAKEN: objects.on_taken,
            messages.LOST: objects.on_lost,
            messages.COPIED: objects.on_copied,
            messages.CANCEL_OBJECT: book.on_cancel_object,
            messages.PACKET: self._on_packet,
            messages.REPLY: book.on_reply,
            messages.REPLY_MANY: book.on_reply_many,
            messages.FAILED: book.on_failed,
            messages.ITEM: book.on_item,
            messages.END: book.on_end,
            messages.UNSTARTED: held.on_unstarted,
            messages.CANCELLED: book.on_cancelled,
            messages.RETIRE: held.on_retire,
        }

    def _on_packet(self, link: links.Link, message: tuple[Any, ...]) -> None:
        self._engine.inboxes.on_packet(link, message)

    def _is_early(self, replay: Callable[[], None]) -> bool:
        """Whether this is kept for `begin`, which may run on another thread at the same moment."""
        with self._engine.lock:
            if not self.is_ready:
                self._early.append(replay)
            return not self.is_ready

    def begin(self) -> None:
        """Handle what has arrived meanwhile, and from now on."""
        with self._engine.lock:
            self.is_ready = True
            early, self._early = self._early, []
            for replay in early:
                replay()

    def on_messages(self, link: links.Link, batch: list[tuple[Any, ...]]) -> None:
        if not self.is_ready and self._is_early(lambda: self.on_messages(link, batch)):
            return
        engine = self._engine
        if engine.is_closed:
            return
        handlers = self._handlers
        with engine.lock:
            engine.frame_time_s = time.monotonic()
            if batch[0][0] == messages.HELLO and not engine.links.named(link, *batch.pop(0)[1:]):
                return
            # Two processes that dialled each other have two connections. Each sends on one only, its first: what it says
            # arrives in order. So everything is answered there, whichever the question came by.
            link = engine.links.by_peer.get(link.peer, link)
            for message in batch:
                try:
                    handlers[message[0]](link, message)
                except Exception:  # a defect of ours: the other messages must not be lost with it
                    logger.exception(
                        "internal error while handling message %s of process %s", message[0], link.peer.hex()
                    )
            engine.carry_on()
            if link.outbox:
                link.flush()

    def on_link_gone(self, link: links.Link) -> None:
        if not self.is_ready and self._is_early(lambda: self.on_link_gone(link)):
            return
        engine = self._engine
        if engine.is_closed:
            return
        with engine.lock:
            engine.dirty_links.discard(link)
            engine.peer_gone(link.peer, may_live=engine.links.may_live(link))
            engine.actors.link_gone(link)
            engine.leases.link_gone(link)
            if self.on_link_lost is not None:
                self.on_link_lost(link)
            engine.carry_on()

    def on_notice(self, message: dict[str, Any], body: bytes) -> None:
        engine, kind = self._engine, message["t"]
        if kind in ("welcome", "refused"):
            engine.welcome = message
            self.welcomed.finish()
            return
        if not self.is_ready and self._is_early(lambda: self.on_notice(message, body)):
            return
        if self._on_notice_first is not None and self._on_notice_first(message, body):
            return
        if kind == "asked":
            engine.answers.answer(message)
            return
        with engine.lock:
            engine.frame_time_s = time.monotonic()
            if kind == "grant":
                engine.leases.on_grant(message)
            elif kind == "reclaim":
                engine.leases.on_reclaim(message["worker"])
            elif kind == "worker_died":
                engine.deaths.on_worker_died(message)
            elif kind == "actor_state":
                engine.actors.on_state(message, body)
            elif kind == "demand_failed":
                engine.deaths.on_demand_failed(
                    message["key"],
                    message["reason"],
                    is_unschedulable=message["unschedulable"],
                    is_group_gone=message["group_gone"],
                    is_busy=message["busy"],
                )
            elif kind == "group_state":
                engine.groups.on_state(message)
            elif kind == "store_trim":
                engine.values.drain_drops()
                engine.values.store.trim_all()
            elif kind in _OF_FETCHING:
                engine.values.make_fetching().on_notice(message)
            elif kind in _OF_SPILLING:
                engine.values.make_spilling().on_notice(message)
            elif kind == "left_check":
                engine.values.check_left(message["segments"])
            elif kind == "not_needed":
                engine.values.not_needed(message["segments"])
            elif kind == "node_draining":
                engine.values.make_takeover().begin(bytes.fromhex(message["node"]))
            elif engine.links.remote is not None:
                if kind == "node_gone" and engine.values.takeover is not None:
                    engine.values.takeover.node_gone(bytes.fromhex(message["node"]))
                engine.links.remote.on_notice(message)
            engine.carry_on()
