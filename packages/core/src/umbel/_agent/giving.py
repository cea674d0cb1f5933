"""Values of this node that others pull from here: the side of `mover` that gives, about which `offers` decides.

See `mover` for what is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from umbel._agent import moving, offers, pull_records, pulls
from umbel._agent.moving import Message


class _In:
    """A node that pulls values from here."""

    __slots__ = ("link", "node", "numbers")

    def __init__(self, link: moving.Link) -> None:
        self.link = link
        self.node = ""  # until it has opened something
        self.numbers: dict[str, int] = {}  # object -> `n` of its `open`


class _Shared(NamedTuple):
    """An original that others have open."""

    segment: str
    original: moving.Original


class Giving:
    """do: commands of `offers`, carried out."""

    def __init__(
        self,
        node: str,
        surroundings: moving.Surroundings,
        table: offers.OfferTable,
        pulled: pulls.PullTable,
        *,
        addresses: dict[str, str],
        copy_of: Callable[[str], moving.Copy | None],
        decide: Callable[[Iterable[Any]], None],
        chunk_bytes: int,
    ) -> None:
        """pulled: what of values of others is here, copy_of says in what. addresses: of nodes, which both sides note. decide:
        has commands carried out."""
        self.sent_bytes = 0  # of values
        self._node = node
        self._around = surroundings
        self._offers = table
        self._pulls = pulled
        self._addresses = addresses
        self._copy_of = copy_of
        self._decide = decide
        self._chunk_bytes = chunk_bytes
        self._in: dict[str, _In] = {}
        self._ends: dict[moving.Link, _In] = {}
        self._sizes: dict[str, int] = {}  # of what is offered
        self._shared: dict[str, _Shared] = {}
        self.do: dict[type, Callable[[Any], None]] = {
            offers.Opened: self._opened,
            offers.Send: self._send,
            offers.Elsewhere: self._elsewhere,
            offers.Gone: lambda command: self._answer(command.node, command.object_id, {"t": "gone", "why": ""}),
            offers.Shut: self._shut,
        }
        self._on: dict[str, Callable[[_In, Message], None]] = {
            "open": self._on_open, "ask": self._on_ask, "cancel": self._on_cancel, "confirm": self._on_confirm,
            "close": self._on_close,
        }  # fmt: skip

    # ---- connections ----

    def accepted(self, link: moving.Link) -> None:
        """A node wants to pull."""
        self._ends[link] = _In(link)

    def has(self, link: moving.Link) -> bool:
        return link in self._ends

    def closed(self, link: moving.Link) -> None:
        known = self._ends.pop(link, None)
        if known is not None and self._in.get(known.node) is known:
            del self._in[known.node]
            self._decide(self._offers.node_gone(known.node, at_s=self._around.now_s()))

    def node_dead(self, node: str) -> None:
        """It will not come back."""
        known = self._in.pop(node, None)
        if known is not None:
            self._ends.pop(known.link, None)
            known.link.close()

    def sent(self, link: moving.Link) -> None:
        known = self._ends.get(link)
        if known is not None:
            self._decide(self._offers.sent(known.node))

    def close(self) -> None:
        for link in [*self._ends]:
            link.close()
        self._ends.clear()
        self._in.clear()
        self._shared.clear()

    # ---- what those say who pull from here ----

    def said(self, link: moving.Link, message: Message) -> None:
        self._on[message["t"]](self._ends[link], message)

    def _on_open(self, known: _In, message: Message) -> None:
        node, object_id, size_bytes = (
            moving.text(message["as"]),
            moving.text(message["object"]),
            moving.count(message["size"]),
        )
        if message["chunk_bytes"] != self._chunk_bytes:
            raise ValueError(f"chunks of {message['chunk_bytes']} bytes, this node has {self._chunk_bytes}")
        former = self._in.get(node)
        if former is not known:
            if known.node:
                raise ValueError("a node has one name")
            if former is not None:  # its end has not been noticed yet
                self._ends.pop(former.link, None)
                former.link.close()
                self._decide(self._offers.node_gone(node, at_s=self._around.now_s()))
            known.node = node
            self._in[node] = known
        self._addresses[node] = moving.text(message["at"])
        known.numbers[object_id] = message["n"]
        why = ""
        try:
            had = self._had(object_id, moving.text(message["segment"]), size_bytes)
        except moving.NotToBeGiven as error:
            had, why = None, str(error)
        if had is None:
            self._answer(node, object_id, {"t": "gone", "why": why})
            return
        self._sizes[object_id] = size_bytes
        self._decide(
            self._offers.opened(
                node,
                object_id,
                chunk_count=moving.chunk_count(size_bytes, self._chunk_bytes),
                generation=had.generation,
                is_sure=had.is_sure,
                chunks=had.chunks,
            )
        )

    def _had(self, object_id: str, segment: str, size_bytes: int) -> pull_records.Had | None:
        """What there is of it here."""
        had = self._pulls.had(object_id)
        if had is not None:
            return had if had.size_bytes == size_bytes else None
        shared = self._shared.get(object_id)
        if shared is not None and (segment not in ("", shared.segment) or not shared.original.holds()):
            self._decide(self._offers.withdrawn(object_id))
            self._shared.pop(object_id, None)
            shared = None
        if shared is None and segment:
            original = self._around.open_original(segment, size_bytes)
            if original is not None:
                shared = self._shared[object_id] = _Shared(segment, original)
        if shared is None:
            return None
        return pull_records.Had(size_bytes, f"{self._node}:{shared.original.generation}", is_sure=False, chunks=None)

    def _on_ask(self, known: _In, message: Message) -> None:
        without = [moving.text(node) for node in message["without"]]
        self._decide(
            self._offers.asked(
                known.node,
                message["object"],
                moving.count(message["chunk"]),
                priority=moving.count(message["priority"]),
                without=without,
            )
        )

    def _on_cancel(self, known: _In, message: Message) -> None:
        self._decide(self._offers.cancelled(known.node, message["object"], message["chunk"]))

    def _on_confirm(self, known: _In, message: Message) -> None:
        shared = self._shared.get(message["object"])
        is_right = shared is not None and shared.original.holds()
        self._answer(known.node, message["object"], {"t": "confirmed", "is_right": is_right})

    def _on_close(self, known: _In, message: Message) -> None:
        object_id = message["object"]
        has_all = message["has_all"] is True
        known.numbers.pop(object_id, None)
        self._decide(self._offers.closed(known.node, object_id, has_all=has_all, at_s=self._around.now_s()))

    # ---- what was decided ----

    def _answer(self, node: str, object_id: str, message: Message) -> None:
        known = self._in.get(node)
        if known is not None and object_id in known.numbers:
            known.link.send({**message, "object": object_id, "n": known.numbers[object_id]})

    def _opened(self, command: offers.Opened) -> None:
        message = {
            "t": "opened", "generation": command.generation, "is_sure": command.is_sure, "chunks": command.chunks,
            "start": command.start, "holders": self._told(command.holders),
        }  # fmt: skip
        self._answer(command.node, command.object_id, message)

    def _told(self, holders: Iterable[offers.Holder]) -> list[Any]:
        return [(one.node, self._addresses[one.node], one.chunks) for one in holders]

    def _elsewhere(self, command: offers.Elsewhere) -> None:
        message = {"t": "elsewhere", "chunk": command.chunk, "holders": self._told(command.holders)}
        self._answer(command.node, command.object_id, message)

    def _send(self, command: offers.Send) -> None:
        object_id = command.object_id
        known, shared = self._in.get(command.node), self._shared.get(object_id)
        holder = self._copy_of(object_id) or (shared.original if shared is not None else None)
        if known is None or holder is None or object_id not in known.numbers:
            self._decide(self._offers.sent(command.node))  # withdrawn since, or the node has gone
            return
        size_bytes = moving.bytes_of(self._sizes[object_id], command.chunk, self._chunk_bytes)
        message = {"t": "chunk", "object": object_id, "n": known.numbers[object_id], "chunk": command.chunk}
        self.sent_bytes += size_bytes
        if size_bytes:
            offset = holder.offset + command.chunk * self._chunk_bytes
            known.link.send_body(message, holder.file, offset, size_bytes)
        else:
            known.link.send(message)
            self._decide(self._offers.sent(command.node))

    def _shut(self, command: offers.Shut) -> None:
        self._shared.pop(command.object_id, None)
        self._sizes.pop(command.object_id, None)
