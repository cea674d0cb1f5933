"""Moves values between this node and others: turns what they say into events of `pulls` and `offers`, and back.

Between two daemons there is a connection for each direction in which values are pulled, opened by the one that pulls; nothing
else goes over it, so nothing else waits behind values. What it says there:

    open      object, segment, size, chunk size, who it is and where others find it; `n`, which all answers repeat
    ask       object, chunk, priority, nodes that do not do      cancel    object, chunk
    confirm   object: whether the generation still holds         close     object, whether it has all of it now
    freed     object, of which the other side has a copy
    left      an owner there, and values here that a process has made for it, which has ended: which does it not need?
    needless  values of such kind on the other side that nobody here needs

and what it is told:

    opened    object, generation, whether that is sure, chunks, where to begin, who else has of it
    chunk     object, chunk; the bytes are the message's body    elsewhere object, chunk, who has it
    confirmed object, whether it holds                           gone      object, and why, if it is here all the same

Whoever is connected has proved to be a node of the cluster. What it says is checked all the same, and it is cut off if it
says what it must not. Connections, files and the time are given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from umbel._agent import offers, pulls
from umbel._model import reasons
from umbel._transport import bulk

IDLE_S = 10.0  # until a connection that nothing is pulled over is closed; a new one costs two round trips
CHUNK_COUNT_MAX = 1 << 24  # of one value: with chunks of 8 MiB, 128 TiB

Message = dict[str, Any]


class NotToBeGiven(Exception):
    """A value is here, and cannot be sent as it is."""


class Link(Protocol):
    """A connection to another node, as `umbel._transport.bulk` has them."""

    def send(self, message: Message) -> None: ...

    def send_body(self, message: Message, file: Any, offset: int, size_bytes: int) -> None: ...

    def throw_away(self) -> None: ...

    def close(self) -> None: ...


class Original(Protocol):
    """A value of a process of this node. `offset` is where it begins in the file."""

    file: Any
    offset: int
    generation: str

    def holds(self) -> bool: ...


class Copy(Protocol):
    """A value of another node, here. Also what its chunks are written to."""

    file: Any
    offset: int
    name: str

    def receive(self, stream: Any, offset: int, size_max: int) -> int: ...

    def begin(self, size_bytes: int, failed: Callable[[OSError], None]) -> None:
        """Another value is to be written over the one that was here."""

    def remove(self) -> None: ...


class Surroundings(Protocol):
    """What the mover needs of the daemon."""

    def now_s(self) -> float: ...

    def dial(self, node: str, address: str) -> None:
        """Answered by `connected` or `not_connected`."""

    def open_original(self, segment: str, size_bytes: int) -> Original | None:
        """Raises NotToBeGiven."""

    def create(self, size_bytes: int, failed: Callable[[OSError], None]) -> Copy: ...

    def reserve(self, size_bytes: int) -> None:
        """Answered by `room_granted` or `room_refused`."""

    def release(self, size_bytes: int) -> None: ...

    def delivered(self, asker: str, object_id: str, segment: str, size_bytes: int) -> None: ...

    def failed(self, asker: str, object_id: str, code: str, text: str) -> None: ...

    def left(self, owner: str, names: list[str]) -> None:
        """Another node has these values, made for `owner`, who is of this one. See `left_values`."""

    def needless(self, names: list[str]) -> None:
        """Owners of another node do not need these, if they are here and their makers are not."""


class _Out:
    """A node that values are pulled from. link: None while it is being connected to."""

    __slots__ = ("idle_since_s", "link", "node", "receiving", "sessions", "waiting")

    def __init__(self, node: str) -> None:
        self.node = node
        self.link: Link | None = None
        self.waiting: dict[str, pulls.Connect] = {}  # to be opened once it is connected
        self.sessions: dict[str, int] = {}  # object -> `n` of its `open`
        self.receiving: tuple[str, int] | None = None  # object and chunk of the body that is being written
        self.idle_since_s = 0.0


class _In:
    """A node that pulls values from here."""

    __slots__ = ("link", "node", "numbers")

    def __init__(self, link: Link) -> None:
        self.link = link
        self.node = ""  # until it has opened something
        self.numbers: dict[str, int] = {}  # object -> `n` of its `open`


class _Shared(NamedTuple):
    """An original that others have open."""

    segment: str
    original: Original


class Mover:
    """One node's side. Messages and ends of connections come by the methods that `bulk.Receiver` lists."""

    def __init__(
        self,
        node: str,
        surroundings: Surroundings,
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
        self.sent_bytes = 0  # of values, to others
        self._chunk_bytes = chunk_bytes
        self._around = surroundings
        self._addresses: dict[str, str] = {}
        self._to_tell: dict[str, list[Message]] = {}  # node -> what it is to hear once it is connected to
        self._out: dict[str, _Out] = {}
        self._in: dict[str, _In] = {}
        self._ends: dict[Link, _Out | _In] = {}
        self._copies: dict[str, Copy] = {}
        self._warm: dict[int, Copy] = {}  # of dead values, to be written over
        self._sizes: dict[str, int] = {}  # of what is offered
        self._shared: dict[str, _Shared] = {}
        self._count = 0
        self._todo: deque[Any] = deque()
        self._do: dict[type, Callable[[Any], None]] = {
            pulls.Reserve: lambda command: surroundings.reserve(command.size_bytes),
            pulls.Release: lambda command: surroundings.release(command.size_bytes),
            pulls.Create: self._create,
            pulls.Abandon: lambda command: self._remove(command.object_id),
            pulls.Drop: lambda command: self._remove(command.object_id),
            pulls.Keep: self._keep,
            pulls.Discard: lambda command: self._warm.pop(command.warm).remove(),
            pulls.Connect: self._connect,
            pulls.Ask: self._ask,
            pulls.Cancel: self._cancel,
            pulls.Confirm: lambda command: self._say(command.node, {"t": "confirm", "object": command.object_id}),
            pulls.Close: self._close,
            pulls.Withdraw: lambda command: self._decide(self.offers.withdrawn(command.object_id)),
            pulls.Deliver: self._deliver,
            pulls.Fail: self._fail,
            offers.Opened: self._opened,
            offers.Send: self._send,
            offers.Elsewhere: self._elsewhere,
            offers.Gone: lambda command: self._answer(command.node, command.object_id, {"t": "gone", "why": ""}),
            offers.Shut: self._shut,
        }
        self._on_in: dict[str, Callable[[_In, Message], None]] = {
            "open": self._on_open, "ask": self._on_ask, "cancel": self._on_cancel, "confirm": self._on_confirm,
            "close": self._on_close, "freed": lambda _known, message: self.freed(_text(message["object"])),
            "left": lambda _known, message: surroundings.left(_text(message["owner"]), [*map(_text, message["values"])]),
            "needless": lambda _known, message: surroundings.needless([*map(_text, message["values"])]),
        }  # fmt: skip
        self._on_out: dict[str, Callable[[_Out, Message], None]] = {
            "opened": self._on_opened, "elsewhere": self._on_elsewhere, "confirmed": self._on_confirmed, "gone": self._on_gone,
        }  # fmt: skip

    # ---- what this node wants ----

    def want(
        self,
        object_id: str,
        size_bytes: int,
        sources: Mapping[str, tuple[str, str]],
        *,
        asker: str,
        priority: pulls.Priority,
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

    def freed(self, object_id: str) -> None:
        """Its owner says that nobody needs it."""
        self._decide([*self.pulls.freed(object_id, at_s=self._around.now_s()), *self.offers.withdrawn(object_id)])

    def tell_freed(self, object_id: str, node: str, address: str) -> None:
        """Another node, which has a copy, is to hear that nobody needs it."""
        self.tell(node, address, {"t": "freed", "object": object_id})

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

    def node_dead(self, node: str) -> None:
        """It will not come back."""
        self._to_tell.pop(node, None)
        now_s = self._around.now_s()
        for known in (self._out.pop(node, None), self._in.pop(node, None)):
            if known is not None and known.link is not None:
                self._ends.pop(known.link, None)
                known.link.close()
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

    def connected(self, node: str, link: Link) -> None:
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
            self._decide(self.pulls.source_lost(node, at_s=self._around.now_s()))

    def accepted(self, link: Link) -> None:
        """A node wants to pull."""
        self._ends[link] = _In(link)

    def on_closed(self, link: Link) -> None:
        known = self._ends.pop(link, None)
        now_s = self._around.now_s()
        if isinstance(known, _Out):
            if self._out.get(known.node) is known:
                del self._out[known.node]
                self._decide(self.pulls.source_lost(known.node, at_s=now_s))
        elif known is not None and self._in.get(known.node) is known:
            del self._in[known.node]
            self._decide(self.offers.node_gone(known.node, at_s=now_s))

    def on_message(self, link: Link, message: Message, body_bytes: int) -> bulk.Target | None:
        """Raises ValueError for what breaks the protocol."""
        known = self._ends.get(link)
        try:
            if isinstance(known, _In):
                self._on_in[message["t"]](known, message)
            elif known is not None:
                return self._on_answer(known, message, body_bytes)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a message between nodes that move values: {error!r}") from error
        return None

    def _on_answer(self, out: _Out, message: Message, body_bytes: int) -> bulk.Target | None:
        object_id = message["object"]
        is_current = out.sessions.get(object_id) == message["n"]  # else of a pull that is over
        if message["t"] == "chunk":
            out.receiving = None
            if not is_current:
                return None
            return self._on_chunk(out, object_id, message["chunk"], body_bytes)
        if is_current:
            self._on_out[message["t"]](out, message)
        return None

    def _on_chunk(self, out: _Out, object_id: str, chunk: int, body_bytes: int) -> bulk.Target | None:
        if not self.pulls.takes(object_id, out.node, chunk):
            return None
        wanted_bytes = self._bytes_of(self.pulls.pulls[object_id].size_bytes, chunk)
        if body_bytes != wanted_bytes:
            raise ValueError(f"chunk {chunk} has {wanted_bytes} bytes, and {body_bytes} were announced")
        out.receiving = object_id, chunk
        if not body_bytes:
            self.on_body(out.link)
            return None
        return bulk.Target(self._copies[object_id], chunk * self._chunk_bytes)

    def on_body(self, link: Link | None, _message: Message | None = None) -> None:
        known = self._ends.get(link) if link is not None else None
        if not isinstance(known, _Out) or known.receiving is None:
            return
        (object_id, chunk), known.receiving = known.receiving, None
        if self.pulls.takes(object_id, known.node, chunk):
            commands = self.pulls.chunk_arrived(object_id, known.node, chunk, at_s=self._around.now_s())
            self._decide(self.offers.arrived(object_id, chunk))
            self._decide(commands)

    def on_sent(self, link: Link) -> None:
        known = self._ends.get(link)
        if isinstance(known, _In):
            self._decide(self.offers.sent(known.node))

    # ---- what those say who pull from here ----

    def _on_open(self, known: _In, message: Message) -> None:
        node, object_id, size_bytes = _text(message["as"]), _text(message["object"]), _count(message["size"])
        if message["chunk_bytes"] != self._chunk_bytes:
            raise ValueError(f"chunks of {message['chunk_bytes']} bytes, this node has {self._chunk_bytes}")
        former = self._in.get(node)
        if former is not known:
            if known.node:
                raise ValueError("a node has one name")
            if former is not None:  # its end has not been noticed yet
                self._ends.pop(former.link, None)
                former.link.close()
                self._decide(self.offers.node_gone(node, at_s=self._around.now_s()))
            known.node = node
            self._in[node] = known
        self._addresses[node] = _text(message["at"])
        known.numbers[object_id] = message["n"]
        why = ""
        try:
            had = self._had(object_id, _text(message["segment"]), size_bytes)
        except NotToBeGiven as error:
            had, why = None, str(error)
        if had is None:
            self._answer(node, object_id, {"t": "gone", "why": why})
            return
        self._sizes[object_id] = size_bytes
        self._decide(
            self.offers.opened(
                node,
                object_id,
                chunk_count=self._chunk_count(size_bytes),
                generation=had.generation,
                is_sure=had.is_sure,
                chunks=had.chunks,
            )
        )

    def _had(self, object_id: str, segment: str, size_bytes: int) -> pulls.Had | None:
        """What there is of it here."""
        had = self.pulls.had(object_id)
        if had is not None:
            return had if had.size_bytes == size_bytes else None
        shared = self._shared.get(object_id)
        if shared is not None and (segment not in ("", shared.segment) or not shared.original.holds()):
            self._decide(self.offers.withdrawn(object_id))
            self._shared.pop(object_id, None)
            shared = None
        if shared is None and segment:
            original = self._around.open_original(segment, size_bytes)
            if original is not None:
                shared = self._shared[object_id] = _Shared(segment, original)
        if shared is None:
            return None
        return pulls.Had(size_bytes, f"{self.node}:{shared.original.generation}", is_sure=False, chunks=None)

    def _on_ask(self, known: _In, message: Message) -> None:
        without = [_text(node) for node in message["without"]]
        self._decide(
            self.offers.asked(
                known.node,
                message["object"],
                _count(message["chunk"]),
                priority=_count(message["priority"]),
                without=without,
            )
        )

    def _on_cancel(self, known: _In, message: Message) -> None:
        self._decide(self.offers.cancelled(known.node, message["object"], message["chunk"]))

    def _on_confirm(self, known: _In, message: Message) -> None:
        shared = self._shared.get(message["object"])
        is_right = shared is not None and shared.original.holds()
        self._answer(known.node, message["object"], {"t": "confirmed", "is_right": is_right})

    def _on_close(self, known: _In, message: Message) -> None:
        object_id = message["object"]
        has_all = message["has_all"] is True
        known.numbers.pop(object_id, None)
        self._decide(self.offers.closed(known.node, object_id, has_all=has_all, at_s=self._around.now_s()))

    # ---- what those say from whom is pulled ----

    def _on_opened(self, out: _Out, message: Message) -> None:
        object_id, now_s = message["object"], self._around.now_s()
        chunks = message["chunks"]
        self._decide(
            self.pulls.opened(
                object_id,
                out.node,
                generation=_text(message["generation"]),
                is_sure=message["is_sure"] is True,
                chunks=None if chunks is None else [_count(chunk) for chunk in chunks],
                start=_count(message["start"]),
                at_s=now_s,
            )
        )
        self._decide(self.pulls.told_holders(object_id, self._holders(message["holders"]), at_s=now_s))

    def _on_elsewhere(self, out: _Out, message: Message) -> None:
        holders = self._holders(message["holders"])
        chunk, now_s = _count(message["chunk"]), self._around.now_s()
        self._decide(self.pulls.elsewhere(message["object"], out.node, chunk, holders, at_s=now_s))

    def _holders(self, told: Iterable[Any]) -> dict[str, list[int] | None]:
        holders: dict[str, list[int] | None] = {}
        for node, address, chunks in told:
            self._addresses.setdefault(_text(node), _text(address))
            holders[node] = None if chunks is None else [_count(chunk) for chunk in chunks]
        return holders

    def _on_confirmed(self, out: _Out, message: Message) -> None:
        is_right = message["is_right"] is True
        now_s = self._around.now_s()
        self._decide(self.pulls.confirmed(message["object"], out.node, is_right=is_right, at_s=now_s))

    def _on_gone(self, out: _Out, message: Message) -> None:
        del out.sessions[message["object"]]
        why, now_s = _text(message["why"]), self._around.now_s()
        self._decide(self.pulls.gone(message["object"], out.node, why=why, at_s=now_s))

    # ---- what the machines decide ----

    def _decide(self, commands: Iterable[Any]) -> None:
        """Carry out commands in order, and what follows from each after all of them."""
        is_outermost = not self._todo
        self._todo.extend(commands)
        if is_outermost:
            while self._todo:
                command = self._todo[0]
                self._do[type(command)](command)
                self._todo.popleft()

    def _create(self, command: pulls.Create) -> None:
        object_id = command.object_id

        def failed(error: OSError) -> None:
            text = f"the copy could not be written: {error.strerror or error}"
            self._decide(self.pulls.no_room(object_id, text, at_s=self._around.now_s()))

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

    def _keep(self, command: pulls.Keep) -> None:
        self._warm[command.warm] = self._copies.pop(command.object_id)

    def _connect(self, command: pulls.Connect) -> None:
        node = command.node
        out = self._out.get(node)
        if out is None:
            address = self._addresses.get(node)
            if address is None:
                self._decide(self.pulls.gone(command.object_id, node, at_s=self._around.now_s()))
                return
            out = self._out[node] = _Out(node)
            out.waiting[command.object_id] = command
            self._around.dial(node, address)
        elif out.link is None:
            out.waiting[command.object_id] = command
        else:
            self._open(out, command)

    def _open(self, out: _Out, command: pulls.Connect) -> None:
        self._count += 1
        out.sessions[command.object_id] = self._count
        message = {
            "t": "open", "n": self._count, "object": command.object_id, "segment": command.segment,
            "size": command.size_bytes, "chunk_bytes": self._chunk_bytes, "as": self.node, "at": self.address,
        }  # fmt: skip
        self._say(out.node, message)

    def _say(self, node: str, message: Message) -> None:
        out = self._out.get(node)
        if out is not None and out.link is not None:
            out.link.send(message)

    def _ask(self, command: pulls.Ask) -> None:
        message = {
            "t": "ask", "object": command.object_id, "chunk": command.chunk, "priority": int(command.priority),
            "without": command.without,
        }  # fmt: skip
        self._say(command.node, message)

    def _cancel(self, command: pulls.Cancel) -> None:
        out = self._out.get(command.node)
        if out is not None and out.link is not None:
            if out.receiving == (command.object_id, command.chunk):
                out.receiving = None
                out.link.throw_away()
            out.link.send({"t": "cancel", "object": command.object_id, "chunk": command.chunk})

    def _close(self, command: pulls.Close) -> None:
        out = self._out.get(command.node)
        if out is None:
            return
        out.waiting.pop(command.object_id, None)
        if out.sessions.pop(command.object_id, None) is not None:
            self._say(command.node, {"t": "close", "object": command.object_id, "has_all": command.has_all})
        out.idle_since_s = self._around.now_s()

    def _deliver(self, command: pulls.Deliver) -> None:
        self.offers.completed(command.object_id)
        copy = self._copies[command.object_id]
        size_bytes = self.pulls.copies[command.object_id].size_bytes
        for asker in command.askers:
            self._around.delivered(asker, command.object_id, copy.name, size_bytes)

    def _fail(self, command: pulls.Fail) -> None:
        for asker in command.askers:
            self._around.failed(asker, command.object_id, command.code.value, command.text)

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
        holder = self._copies.get(object_id) or (shared.original if shared is not None else None)
        if known is None or holder is None or object_id not in known.numbers:
            self._decide(self.offers.sent(command.node))  # withdrawn since, or the node has gone
            return
        size_bytes = self._bytes_of(self._sizes[object_id], command.chunk)
        message = {"t": "chunk", "object": object_id, "n": known.numbers[object_id], "chunk": command.chunk}
        self.sent_bytes += size_bytes
        if size_bytes:
            offset = holder.offset + command.chunk * self._chunk_bytes
            known.link.send_body(message, holder.file, offset, size_bytes)
        else:
            known.link.send(message)
            self._decide(self.offers.sent(command.node))

    def _shut(self, command: offers.Shut) -> None:
        self._shared.pop(command.object_id, None)
        self._sizes.pop(command.object_id, None)

    def _chunk_count(self, size_bytes: int) -> int:
        return max(1, -(-size_bytes // self._chunk_bytes))

    def _bytes_of(self, size_bytes: int, chunk: int) -> int:
        return min(self._chunk_bytes, size_bytes - chunk * self._chunk_bytes)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        idle = [out.idle_since_s + IDLE_S for out in self._out.values() if out.link is not None and not out.sessions]
        due = (self.pulls.next_tick_s(), self.offers.next_tick_s(), min(idle, default=None))
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        now_s = self._around.now_s()
        self._decide(self.pulls.tick(at_s=now_s))
        self.offers.tick(at_s=now_s)
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
        self._in.clear()
        for copy in [*self._copies.values(), *self._warm.values()]:
            copy.remove()
        self._copies.clear()
        self._warm.clear()
        self._shared.clear()

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        self.pulls.check()
        self.offers.check()


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text was expected, got {value!r:.50}")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= CHUNK_COUNT_MAX << 32:
        raise TypeError(f"a number >= 0 was expected, got {value!r:.50}")
    return value
