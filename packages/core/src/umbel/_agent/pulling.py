"""Values of other nodes that are pulled to this one: the side of `mover` that takes, about which `pulls` decides.

See `mover` for what is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from umbel._agent import moving, offers, pull_commands, pulls
from umbel._agent.moving import Message
from umbel._transport import bulk

IDLE_S = 10.0  # until a connection that nothing is pulled over is closed; a new one costs two round trips


class _Out:
    """A node that values are pulled from. link: None while it is being connected to."""

    __slots__ = ("idle_since_s", "link", "node", "receiving", "sessions", "waiting")

    def __init__(self, node: str) -> None:
        self.node = node
        self.link: moving.Link | None = None
        self.waiting: dict[str, pull_commands.Connect] = {}  # to be opened once it is connected
        self.sessions: dict[str, int] = {}  # object -> `n` of its `open`
        self.receiving: tuple[str, int] | None = None  # object and chunk of the body that is being written
        self.idle_since_s = 0.0


class Pulling:
    """do: commands of `pulls`, carried out."""

    def __init__(
        self,
        node: str,
        surroundings: moving.Surroundings,
        table: pulls.PullTable,
        offered: offers.OfferTable,
        *,
        address: str,
        addresses: dict[str, str],
        decide: Callable[[Iterable[Any]], None],
        chunk_bytes: int,
    ) -> None:
        """address: where other nodes find this one. addresses: of those, which both sides note. decide: has commands carried
        out."""
        self._node = node
        self._address = address
        self._around = surroundings
        self._pulls = table
        self._offers = offered
        self._addresses = addresses
        self._decide = decide
        self._chunk_bytes = chunk_bytes
        self._to_tell: dict[str, list[Message]] = {}  # node -> what it is to hear once it is connected to
        self._out: dict[str, _Out] = {}
        self._ends: dict[moving.Link, _Out] = {}
        self._copies: dict[str, moving.Copy] = {}
        self._warm: dict[int, moving.Copy] = {}  # of dead values, to be written over
        self._count = 0
        self.do: dict[type, Callable[[Any], None]] = {
            pull_commands.Reserve: lambda command: surroundings.reserve(command.size_bytes),
            pull_commands.Release: lambda command: surroundings.release(command.size_bytes),
            pull_commands.Create: self._create,
            pull_commands.Abandon: lambda command: self._remove(command.object_id),
            pull_commands.Drop: lambda command: self._remove(command.object_id),
            pull_commands.Keep: self._keep,
            pull_commands.Discard: lambda command: self._warm.pop(command.warm).remove(),
            pull_commands.Connect: self._connect,
            pull_commands.Inquire: lambda command: surroundings.ask_owner(command.object_id),
            pull_commands.Ask: self._ask,
            pull_commands.Cancel: self._cancel,
            pull_commands.Confirm: lambda command: self._say(
                command.node, {"t": "confirm", "object": command.object_id}
            ),
            pull_commands.Close: self._close,
            pull_commands.Withdraw: lambda command: decide(offered.withdrawn(command.object_id)),
            pull_commands.Deliver: self._deliver,
            pull_commands.Fail: self._fail,
        }
        self._on: dict[str, Callable[[_Out, Message], None]] = {
            "opened": self._on_opened, "elsewhere": self._on_elsewhere, "confirmed": self._on_confirmed, "gone": self._on_gone,
        }  # fmt: skip

    def copy_of(self, object_id: str) -> moving.Copy | None:
        """Of a value of another node, as far as it is here."""
        return self._copies.get(object_id)

    # ---- connections ----

    def tell(self, node: str, address: str, message: Message) -> None:
        """If the node cannot be reached it is not told."""
        self._addresses[node] = address
        self._to_tell.setdefault(node, []).append(message)
        out = self._out.get(node)
        if out is None:
            self._out[node] = _Out(node)
            self._around.dial(node, address)
        elif out.link is not None:
            self._tell(out)

    def _tell(self, out: _Out) -> None:
        for message in self._to_tell.pop(out.node, ()):
            self._say(out.node, message)
        out.idle_since_s = self._around.now_s()

    @property
    def has_to_tell(self) -> bool:
        """Whether a node that is being connected to is to hear something."""
        return bool(self._to_tell)

    @property
    def is_connected(self) -> bool:
        """To any node, or about to be."""
        return bool(self._out)

    def connected(self, node: str, link: moving.Link) -> None:
        out = self._out.get(node)
        if out is None or out.link is not None:
            link.close()
            return
        out.link = link
        out.idle_since_s = self._around.now_s()
        self._ends[link] = out
        waiting, out.waiting = out.waiting, {}
        for command in waiting.values():
            self._open(out, command)
        self._tell(out)

    def not_connected(self, node: str) -> None:
        self._to_tell.pop(node, None)
        if self._out.pop(node, None) is not None:
            self._decide(self._pulls.source_lost(node, at_s=self._around.now_s()))

    def has(self, link: moving.Link) -> bool:
        return link in self._ends

    def closed(self, link: moving.Link) -> None:
        known = self._ends.pop(link, None)
        if known is not None and self._out.get(known.node) is known:
            del self._out[known.node]
            self._decide(self._pulls.source_lost(known.node, at_s=self._around.now_s()))

    def node_dead(self, node: str) -> None:
        """It will not come back."""
        self._to_tell.pop(node, None)
        known = self._out.pop(node, None)
        if known is not None and known.link is not None:
            self._ends.pop(known.link, None)
            known.link.close()

    def next_idle_s(self) -> float | None:
        """When a connection is to be closed, as nothing is pulled over it."""
        idle = [out.idle_since_s + IDLE_S for out in self._out.values() if out.link is not None and not out.sessions]
        return min(idle, default=None)

    def close_idle(self) -> None:
        now_s = self._around.now_s()
        for out in [*self._out.values()]:
            if out.link is not None and not out.sessions and now_s >= out.idle_since_s + IDLE_S:
                del self._out[out.node], self._ends[out.link]
                out.link.close()

    def close(self) -> None:
        """No connection and no copy is left."""
        for link in [*self._ends]:
            link.close()
        self._ends.clear()
        self._out.clear()
        for copy in [*self._copies.values(), *self._warm.values()]:
            copy.remove()
        self._copies.clear()
        self._warm.clear()

    # ---- what those say from whom is pulled ----

    def said(self, link: moving.Link, message: Message, body_bytes: int) -> bulk.Target | None:
        out = self._ends[link]
        object_id = message["object"]
        is_current = out.sessions.get(object_id) == message["n"]  # else of a pull that is over
        if message["t"] == "chunk":
            out.receiving = None
            if not is_current:
                return None
            return self._on_chunk(out, object_id, message["chunk"], body_bytes)
        if is_current:
            self._on[message["t"]](out, message)
        return None

    def _on_chunk(self, out: _Out, object_id: str, chunk: int, body_bytes: int) -> bulk.Target | None:
        if not self._pulls.takes(object_id, out.node, chunk):
            return None
        wanted_bytes = moving.bytes_of(self._pulls.pulls[object_id].size_bytes, chunk, self._chunk_bytes)
        if body_bytes != wanted_bytes:
            raise ValueError(f"chunk {chunk} has {wanted_bytes} bytes, and {body_bytes} were announced")
        out.receiving = object_id, chunk
        if not body_bytes:
            self.on_body(out.link)
            return None
        return bulk.Target(self._copies[object_id], chunk * self._chunk_bytes)

    def on_body(self, link: moving.Link | None) -> None:
        known = self._ends.get(link) if link is not None else None
        if known is None or known.receiving is None:
            return
        (object_id, chunk), known.receiving = known.receiving, None
        if self._pulls.takes(object_id, known.node, chunk):
            commands = self._pulls.chunk_arrived(object_id, known.node, chunk, at_s=self._around.now_s())
            self._decide(self._offers.arrived(object_id, chunk))
            self._decide(commands)

    def _on_opened(self, out: _Out, message: Message) -> None:
        object_id, now_s = message["object"], self._around.now_s()
        chunks = message["chunks"]
        self._decide(
            self._pulls.opened(
                object_id,
                out.node,
                generation=moving.text(message["generation"]),
                is_sure=message["is_sure"] is True,
                chunks=None if chunks is None else [moving.count(chunk) for chunk in chunks],
                start=moving.count(message["start"]),
                at_s=now_s,
            )
        )
        self._decide(self._pulls.told_holders(object_id, self._holders(message["holders"]), at_s=now_s))

    def _on_elsewhere(self, out: _Out, message: Message) -> None:
        holders = self._holders(message["holders"])
        chunk, now_s = moving.count(message["chunk"]), self._around.now_s()
        self._decide(self._pulls.elsewhere(message["object"], out.node, chunk, holders, at_s=now_s))

    def _holders(self, told: Iterable[Any]) -> dict[str, list[int] | None]:
        holders: dict[str, list[int] | None] = {}
        for node, address, chunks in told:
            self._addresses.setdefault(moving.text(node), moving.text(address))
            holders[node] = None if chunks is None else [moving.count(chunk) for chunk in chunks]
        return holders

    def _on_confirmed(self, out: _Out, message: Message) -> None:
        is_right = message["is_right"] is True
        now_s = self._around.now_s()
        self._decide(self._pulls.confirmed(message["object"], out.node, is_right=is_right, at_s=now_s))

    def _on_gone(self, out: _Out, message: Message) -> None:
        del out.sessions[message["object"]]
        why, now_s = moving.text(message["why"]), self._around.now_s()
        self._decide(self._pulls.gone(message["object"], out.node, why=why, at_s=now_s))

    # ---- what was decided ----

    def _create(self, command: pull_commands.Create) -> None:
        object_id = command.object_id

        def failed(error: OSError) -> None:
            text = f"the copy could not be written: {error.strerror or error}"
            self._decide(self._pulls.no_room(object_id, text, at_s=self._around.now_s()))

        if command.warm is not None:
            copy = self._copies[object_id] = self._warm.pop(command.warm)
            copy.begin(command.size_bytes, failed)
            return
        try:
            self._copies[object_id] = self._around.create(command.size_bytes, failed)
        except OSError as error:
            failed(error)

    def _remove(self, object_id: str) -> None:
        copy = self._copies.pop(object_id, None)
        if copy is not None:
            copy.remove()

    def _keep(self, command: pull_commands.Keep) -> None:
        self._warm[command.warm] = self._copies.pop(command.object_id)

    def _connect(self, command: pull_commands.Connect) -> None:
        node = command.node
        out = self._out.get(node)
        if out is None:
            address = self._addresses.get(node)
            if address is None:
                self._decide(self._pulls.gone(command.object_id, node, at_s=self._around.now_s()))
                return
            out = self._out[node] = _Out(node)
            out.waiting[command.object_id] = command
            self._around.dial(node, address)
        elif out.link is None:
            out.waiting[command.object_id] = command
        else:
            self._open(out, command)

    def _open(self, out: _Out, command: pull_commands.Connect) -> None:
        self._count += 1
        out.sessions[command.object_id] = self._count
        message = {
            "t": "open", "n": self._count, "object": command.object_id, "segment": command.segment,
            "size": command.size_bytes, "chunk_bytes": self._chunk_bytes, "as": self._node, "at": self._address,
        }  # fmt: skip
        self._say(out.node, message)

    def _say(self, node: str, message: Message) -> None:
        out = self._out.get(node)
        if out is not None and out.link is not None:
            out.link.send(message)

    def _ask(self, command: pull_commands.Ask) -> None:
        message = {
            "t": "ask", "object": command.object_id, "chunk": command.chunk, "priority": int(command.priority),
            "without": command.without,
        }  # fmt: skip
        self._say(command.node, message)

    def _cancel(self, command: pull_commands.Cancel) -> None:
        out = self._out.get(command.node)
        if out is not None and out.link is not None:
            if out.receiving == (command.object_id, command.chunk):
                out.receiving = None
                out.link.throw_away()
            out.link.send({"t": "cancel", "object": command.object_id, "chunk": command.chunk})

    def _close(self, command: pull_commands.Close) -> None:
        out = self._out.get(command.node)
        if out is None:
            return
        out.waiting.pop(command.object_id, None)
        if out.sessions.pop(command.object_id, None) is not None:
            self._say(command.node, {"t": "close", "object": command.object_id, "has_all": command.has_all})
        out.idle_since_s = self._around.now_s()

    def _deliver(self, command: pull_commands.Deliver) -> None:
        self._offers.completed(command.object_id)
        copy = self._copies[command.object_id]
        size_bytes = self._pulls.copies[command.object_id].size_bytes
        for asker in command.askers:
            self._around.delivered(asker, command.object_id, copy.name, size_bytes)

    def _fail(self, command: pull_commands.Fail) -> None:
        for asker in command.askers:
            self._around.failed(asker, command.object_id, command.code.value, command.text)
