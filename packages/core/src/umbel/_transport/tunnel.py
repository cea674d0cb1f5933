"""Streams to sockets of another machine, through one connection that may break: `multiplexing` and `reconnecting`, done.

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
from umbel._wire import frames, multiplexing, reconnecting

READ_BYTES = 65_536
READ_BYTES_MIN = 16_384  # a record of TLS: less would leave a part of one where no poller sees it

Message = dict[str, Any]


class Owner(Protocol):
    """Of one end."""

    def opened(self, stream: int, to: Message) -> None:
        """The other side wants a stream: `attach` a socket to it, or `refuse` it, at once or when that is known; whoever
        asks for what takes time sends nothing before it is answered."""

    def dial(self) -> None:
        """Make another connection, and call `linked` or `dial_failed`."""

    def is_over(self, reason: str) -> None:
        """There will be no connection any more; all streams end when this returns."""


class _Local:
    """The socket at this end of a stream."""

    __slots__ = ("events", "is_ending", "on_answer", "out", "sock", "stream")

    def __init__(self, stream: int, sock: connection.Stream) -> None:
        self.stream = stream
        self.sock = sock
        self.events = 0
        self.out: deque[memoryview] = deque()
        self.is_ending = False  # the other side has ended it: what is left is written, and then it is closed
        self.on_answer: Callable[[bool, str, bool], None] | None = None


class Tunnel:
    """One end. There is a connection from the first `linked` on."""

    def __init__(
        self,
        poller: connection.Poller,
        owner: Owner,
        *,
        dials: bool,
        patience_s: float,
        now_s: Callable[[], float],
    ) -> None:
        self._poller = poller
        self._owner = owner
        self._now_s = now_s
        self.multiplexer = multiplexing.Multiplexer(is_first=dials)
        self._links = reconnecting.Reconnecting(at_s=now_s(), patience_s=patience_s, dials=dials)
        self._link: connection.Connection | None = None
        self._locals: dict[int, _Local] = {}
        self._paused: set[int] = set()  # streams of which nothing is read for want of room
        self._is_closed = False

    @property
    def is_linked(self) -> bool:
        return self._link is not None

    # ---- connections ----

    def linked(self, link: connection.Connection, heard: int) -> None:
        """A connection, of which the owner reads no more: its frames go to `on_frame`, its end to `on_close`. heard: what
        the other side says that it has heard. Raises ValueError when that cannot be."""
        before, self._link = self._link, link
        if before is not None:  # whose end nobody has noticed here
            before.close()
        self.multiplexer.linked(heard)
        self._links.linked(self._now_s())
        self._flush()

    def on_frame(self, link: connection.Connection, payload: bytes) -> None:
        if link is not self._link:
            return
        self._links.heard(self._now_s())
        try:
            message, body = frames.decode_control(payload)
            if message.get("t") == "over":
                self._end(str(message.get("reason", "")))
                return
            event = self.multiplexer.receive(message, body)
        except ValueError as error:
            self._end(f"the other side has made a mistake: {error}")
            return
        if event is not None:
            self._on_event(event)
        self._resume()
        self._flush()

    def on_close(self, link: connection.Connection) -> None:
        if link is self._link:
            self._link = None
            self.multiplexer.unlinked()
            self._links.broken(self._now_s())

    def dial_failed(self) -> None:
        self._links.dial_failed(self._now_s())

    def _flush(self) -> None:
        waiting = self.multiplexer.frames
        while waiting:
            message, body = waiting.popleft()
            if self._link is not None:
                self._link.send(frames.encode_control(message, body))

    # ---- time ----

    def next_tick_s(self) -> float | None:
        return None if self._is_closed else self._links.next_tick_s()

    def tick(self) -> None:
        what = self._links.tick(self._now_s())
        if what == "beat":
            self.multiplexer.beat()
            self._flush()
        elif what == "close" and self._link is not None:
            self._link.close()
        elif what == "dial":
            self._owner.dial()
        elif what == "give up":
            self._end("the connection was broken for too long")

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
        self._flush()

    def attach(self, stream: int, sock: connection.Stream) -> None:
        """Take a stream of the other side's."""
        self.multiplexer.take(stream)
        self._attach(stream, sock)
        self._flush()

    def refuse(self, stream: int, reason: str, *, is_final: bool = False) -> None:
        self.multiplexer.refuse(stream, reason, is_final=is_final)
        self._flush()

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
        self._flush()

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
            except OSError:  # its other end is gone
                self.multiplexer.end(local.stream)
                self._drop(local)
                return
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

    def _end(self, reason: str) -> None:
        self._owner.is_over(reason)
        self.close()

    def say_over(self, reason: str) -> None:
        """To the other side, if there is a connection that takes it at once."""
        if self._link is not None:
            self._link.send(frames.encode_control({"t": "over", "reason": reason}))

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._links.is_over = True
        for local in list(self._locals.values()):
            self._drop(local)
        link, self._link = self._link, None
        if link is not None:
            link.close()
