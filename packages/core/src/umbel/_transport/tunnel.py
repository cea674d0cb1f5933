"""Streams to sockets of another machine, through one connection that may break: a `conversation`, done.

Each stream has a local socket at this end, whose other end has whoever wants the stream, and who need not know of all this.
What that writes is read here and sent, and what comes is written to it. Both sides of a tunnel are alike; who opens which
streams, and to what, is their owners' business.

For the thread that polls, but for `open` and `close`.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from umbel._transport import connection
from umbel._wire import conversations, frames, multiplexing

READ_BYTES = 65_536
READ_BYTES_MIN = 16_384  # a record of TLS: less would leave a part of one where no poller sees it

Message = dict[str, Any]


class Owner(Protocol):
    """Of one end."""

    def opened(self, stream: int, to: Message) -> None:
        """The other side wants a stream: `attach` a socket to it, or `refuse` it, at once or when that is known; whoever
        asks for what takes time sends nothing before it is answered."""

    def dial(self) -> None:
        """Make another connection, and call `connected` or `dial_failed`."""

    def resumed(self) -> None:
        """There is a connection again."""

    def closes(self, why: str) -> None:
        """A connection was not taken."""

    def is_over(self, reason: str) -> None:
        """There will be no connection any more; all streams end when this returns."""


class _Local:
    """The socket at this end of a stream."""

    __slots__ = ("events", "is_deaf", "is_ending", "on_answer", "out", "sock", "stream")

    def __init__(self, stream: int, sock: connection.Stream) -> None:
        self.stream = stream
        self.sock = sock
        self.events = 0
        self.out: deque[memoryview] = deque()
        self.is_deaf = False  # its other end is closed, and takes nothing any more
        self.is_ending = False  # the other side has ended it: what is left is written, and then it is closed
        self.on_answer: Callable[[bool, str, bool], None] | None = None


class Tunnel:
    """One end. Its connections are the owner's to make: it tells of each by `begin` or `connected`, hands what comes by it to
    `on_frame`, and its end to `on_close`."""

    def __init__(
        self,
        poller: connection.Poller,
        owner: Owner,
        *,
        dials: bool,
        secret: str,
        patience_s: float,
        now_s: Callable[[], float],
    ) -> None:
        self._poller = poller
        self._owner = owner
        self._now_s = now_s
        self.conversation = conversations.Conversation(dials=dials, secret=secret, patience_s=patience_s, at_s=now_s())
        self.multiplexer = self.conversation.multiplexer
        self._locals: dict[int, _Local] = {}
        self._paused: set[int] = set()  # streams of which nothing is read for want of room
        self._is_closed = False

    @property
    def is_linked(self) -> bool:
        return self.conversation.link is not None

    # ---- connections ----

    def begin(self, link: connection.Connection) -> None:
        """The first one, which both sides know of."""
        self.conversation.begin(link, self._now_s())
        self._go_on()

    def connected(self, link: connection.Connection) -> None:
        """A new one, which has to prove that it belongs here."""
        self.conversation.connected(link, self._now_s())
        self._go_on()

    def on_frame(self, link: connection.Connection, payload: bytes) -> None:
        try:
            message, body = frames.decode_control(payload)
        except ValueError as error:
            message, body = {"t": f"nothing that can be read: {error}"}, b""
        event = self.conversation.receive(link, message, body, self._now_s())
        if event is not None:
            self._on_event(event)
        self._resume()
        self._go_on()

    def on_close(self, link: connection.Connection) -> None:
        self.conversation.closed(link, self._now_s())

    def dial_failed(self, reason: str, *, is_final: bool = False) -> None:
        """is_final: there is no use in another attempt."""
        self.conversation.dial_failed(reason, self._now_s(), is_final=is_final)
        self._go_on()

    def _go_on(self) -> None:
        """Do what is to be done, and send what is to be sent."""
        commands = self.conversation.commands
        while commands:
            self._carry_out(commands.pop(0))
        waiting, link = self.multiplexer.frames, self.conversation.link
        while waiting:
            message, body = waiting.popleft()
            if link is not None:
                link.send(frames.encode_control(message, body))

    def _carry_out(self, command: conversations.Command) -> None:
        if isinstance(command, conversations.Send):
            command.link.send(frames.encode_control(command.message))
        elif isinstance(command, conversations.Close):
            if command.why:
                self._owner.closes(command.why)
            command.link.close()
        elif isinstance(command, conversations.Dial):
            self._owner.dial()
        elif isinstance(command, conversations.Resumed):
            self._owner.resumed()
            self._resume()
        else:
            self._owner.is_over(command.reason)
            self.close()

    # ---- time ----

    def next_tick_s(self) -> float | None:
        return None if self._is_closed else self.conversation.next_tick_s()

    def tick(self) -> None:
        self.conversation.tick(self._now_s())
        self._go_on()

    # ---- streams ----

    def open(
        self, sock: connection.Stream, to: Message, on_answer: Callable[[bool, str, bool], None] | None = None
    ) -> None:
        """A stream to what `to` means to the other side, with this local socket. on_answer(is_taken, reason, is_final): once
        the other side has said so, unless the stream ends before."""
        if self._is_closed:
            sock.close()
            return
        local = self._attach(self.multiplexer.open(to), sock)
        local.on_answer = on_answer
        self._go_on()

    def attach(self, stream: int, sock: connection.Stream) -> None:
        """Take a stream of the other side's. It may have ended it meanwhile."""
        if not self.multiplexer.has(stream):
            sock.close()
            return
        self.multiplexer.take(stream)
        self._attach(stream, sock)
        self._go_on()

    def refuse(self, stream: int, reason: str, *, is_final: bool = False) -> None:
        self.multiplexer.refuse(stream, reason, is_final=is_final)
        self._go_on()

    def _attach(self, stream: int, sock: connection.Stream) -> _Local:
        sock.setblocking(False)
        local = self._locals[stream] = _Local(stream, sock)
        self._watch(local)
        return local

    def _watch(self, local: _Local) -> None:
        """Wait for what is of use now."""
        wants = connection.OUT if local.out else 0
        if not local.is_ending:
            if self.multiplexer.room(local.stream) >= READ_BYTES_MIN:
                wants |= connection.IN
                self._paused.discard(local.stream)
            else:
                self._paused.add(local.stream)
        if wants == local.events:
            return
        fd = local.sock.fileno()
        if not local.events:
            self._poller.register(fd, wants, functools.partial(self._on_ready, local))
        elif not wants:  # else the end of its other side would be reported again and again
            self._poller.unregister(fd)
        else:
            self._poller.modify(fd, wants)
        local.events = wants

    def _resume(self) -> None:
        for stream in list(self._paused):
            local = self._locals.get(stream)
            if local is None:
                self._paused.discard(stream)
            elif self.multiplexer.room(stream) >= READ_BYTES_MIN:
                self._watch(local)

    def _on_ready(self, local: _Local, events: int) -> None:
        if events & (connection.OUT | connection.GONE) and local.out:
            self._write(local)
        if local.stream in self._locals and events & (connection.IN | connection.GONE) and not local.is_ending:
            self._read(local)
        self._go_on()

    def _read(self, local: _Local) -> None:
        size = min(READ_BYTES, self.multiplexer.room(local.stream))
        if size < READ_BYTES_MIN:
            self._watch(local)
            return
        try:
            data = local.sock.recv(size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.multiplexer.end(local.stream)
            self._drop(local)
            return
        self.multiplexer.send(local.stream, data)
        self._watch(local)

    def _write(self, local: _Local) -> None:
        while local.out:
            rest = local.out[0]
            try:
                sent = local.sock.send(rest)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # its other end is gone; what that has said before is to be read yet
                local.is_deaf = True
                self.multiplexer.handed_on(local.stream, sum(map(len, local.out)))
                local.out.clear()
                break
            self.multiplexer.handed_on(local.stream, sent)
            if sent < len(rest):
                local.out[0] = rest[sent:]
            else:
                local.out.popleft()
        if local.is_ending and not local.out:
            self._drop(local)
        else:
            self._watch(local)

    def _drop(self, local: _Local) -> None:
        del self._locals[local.stream]
        self._paused.discard(local.stream)
        if local.events:
            self._poller.unregister(local.sock.fileno())
        local.sock.close()

    def _on_event(self, event: multiplexing.Event) -> None:
        if isinstance(event, multiplexing.Opened):
            self._owner.opened(event.stream, event.to)
            return
        local = self._locals.get(event.stream)
        if local is None:
            return
        if isinstance(event, multiplexing.Received):
            if local.is_deaf:
                self.multiplexer.handed_on(local.stream, len(event.data))
                return
            local.out.append(memoryview(event.data))
            self._write(local)
        elif isinstance(event, multiplexing.Answered):
            if local.on_answer is not None:
                local.on_answer(event.is_taken, event.reason, event.is_final)
            if not event.is_taken and event.stream in self._locals:
                self._drop(local)
        else:
            local.is_ending = True
            self._write(local)

    # ---- the end ----

    def leave(self, reason: str) -> None:
        """Say to the other side that it is over, if there is a connection that takes it at once."""
        self.conversation.leave(reason)
        self._go_on()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for local in list(self._locals.values()):
            self._drop(local)
        for link in self.conversation.forget():
            link.close()
