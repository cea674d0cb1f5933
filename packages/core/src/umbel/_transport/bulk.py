"""Connections for large values: messages, each of which may have a body that goes from one file into another.

What a body is read from is a descriptor, and who writes it decides how; its bytes pass through no Python object, unless TLS is
used. A frame is a header, a message as control frames have it,
and the body. No more than `TURN_BYTES` are sent or received of one connection at a time, so that whoever else uses the poller
waits no longer than they take, about a millisecond. For the thread that polls.
"""

from __future__ import annotations

import collections
import os
import socket
import struct
from typing import Any, NamedTuple, Protocol

from umbel._transport.connection import GONE, IN, OUT, READ_BYTES, Poller, Stream
from umbel._wire import frames

HEADER = struct.Struct("<IQ")  # bytes of the message, and of the body behind it
MESSAGE_BYTES_MAX = 4 << 20  # a list of the chunks of a terabyte; what announces more is no message
# A millisecond; with half of that a transfer takes a quarter longer, with twice that a seventh less.
TURN_BYTES = 2 << 20

Message = dict[str, Any]


class Sink(Protocol):
    """Where a body is written."""

    def receive(self, stream: Stream, offset: int, size_max: int) -> int:
        """Take what there is and write it; how many bytes that was, 0 at the end. Raises what the stream's `recv` does."""


class Readable(Protocol):
    """What a body is read from: open as long as this object lives."""

    def fileno(self) -> int: ...


class Target(NamedTuple):
    """Where in a sink a body begins."""

    sink: Sink
    offset: int


class Receiver(Protocol):
    """Whom a connection tells. None of these is called after `on_closed`."""

    def on_message(self, connection: BulkConnection, message: Message, body_bytes: int) -> Target | None:
        """Where the body goes; None throws it away. Raises ValueError for what breaks the protocol: it is closed then."""

    def on_body(self, connection: BulkConnection, message: Message) -> None:
        """All of the body has been written, or thrown away."""

    def on_sent(self, connection: BulkConnection) -> None:
        """The system has all of a body that was to be sent."""

    def on_closed(self, connection: BulkConnection) -> None:
        """Once, unless it was closed by `close`."""


class _Body:
    """A part of a file that is to be sent."""

    __slots__ = ("file", "offset", "rest", "size_bytes")

    def __init__(self, file: Readable, offset: int, size_bytes: int) -> None:
        self.file = file
        self.offset = offset
        self.size_bytes = size_bytes  # yet to be sent
        self.rest = memoryview(b"")  # read and not sent; TLS insists on getting the same bytes again


class BulkConnection:
    """A connection whose other side has proved itself."""

    def __init__(self, stream: Stream, poller: Poller, receiver: Receiver) -> None:
        stream.setblocking(False)
        self._stream = stream
        self._poller = poller
        self._receiver = receiver
        self._out: collections.deque[memoryview | _Body] = collections.deque()
        self._events = IN
        self._is_flushing = False
        self._head = bytearray()
        self._wanted = HEADER.size  # of the header, or of it and the message
        self._message: Message = {}
        self._body_bytes = 0  # yet to come
        self._target: Target | None = None
        self._body_offset = 0
        self.is_closed = False
        poller.register(stream.fileno(), IN, self._on_ready)

    # ---- sending ----

    def send(self, message: Message) -> None:
        self._queue(message, 0)
        self._flush()

    def send_body(self, message: Message, file: Readable, offset: int, size_bytes: int) -> None:
        """A message, and so many bytes of a file behind it, at least one."""
        self._queue(message, size_bytes)
        self._out.append(_Body(file, offset, size_bytes))
        self._flush()

    def _queue(self, message: Message, body_bytes: int) -> None:
        payload = frames.encode_control(message)[frames.HEADER.size :]
        self._out.append(memoryview(HEADER.pack(len(payload), body_bytes) + payload))

    def _flush(self) -> None:
        if self._is_flushing:  # who is told that something was sent sends the next: it is taken up below
            return
        self._is_flushing = True
        left = TURN_BYTES
        try:
            while self._out and left > 0 and not self.is_closed:
                left -= self._send_some(self._out[0], left)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._lose()
        finally:
            self._is_flushing = False
        if not self.is_closed:
            events = IN | OUT if self._out else IN
            if events != self._events:
                self._events = events
                self._poller.modify(self._stream.fileno(), events)

    def _send_some(self, item: memoryview | _Body, size_max: int) -> int:
        if isinstance(item, memoryview):
            sent = self._stream.send(item)
            if sent < len(item):
                self._out[0] = item[sent:]
            else:
                self._out.popleft()
            return sent
        sent = self._send_of(item, min(size_max, item.size_bytes))
        item.size_bytes -= sent
        if not item.size_bytes:
            self._out.popleft()
            self._receiver.on_sent(self)
        return sent

    def _send_of(self, body: _Body, size_max: int) -> int:
        if isinstance(self._stream, socket.socket):
            sent = os.sendfile(self._stream.fileno(), body.file.fileno(), body.offset, size_max)
        else:
            body.rest = body.rest or memoryview(os.pread(body.file.fileno(), size_max, body.offset))
            sent = self._stream.send(body.rest) if body.rest else 0
            body.rest = body.rest[sent:]
        if not sent:
            raise OSError("a file has become shorter while it was sent")
        body.offset += sent
        return sent

    # ---- receiving ----

    def _on_ready(self, events: int) -> None:
        if events & (IN | GONE):
            self._receive()
        if events & OUT and not self.is_closed:
            self._flush()

    def _receive(self) -> None:
        left = TURN_BYTES
        try:
            while not self.is_closed and (left > 0 or getattr(self._stream, "pending_bytes", False)):
                received = self._receive_body() if self._body_bytes else self._receive_head()
                if not received:
                    self._lose()
                left -= received
        except (BlockingIOError, InterruptedError):
            pass
        except (OSError, ValueError):
            self._lose()

    def _receive_head(self) -> int:
        data = self._stream.recv(self._wanted - len(self._head))
        self._head += data
        if len(self._head) < self._wanted:
            return len(data)
        if self._wanted == HEADER.size:
            message_bytes, _ = HEADER.unpack(self._head)
            if not 0 < message_bytes <= MESSAGE_BYTES_MAX:
                raise ValueError(f"a message of {message_bytes} bytes is none; the stream is corrupt")
            self._wanted += message_bytes
            return len(data)
        _, body_bytes = HEADER.unpack_from(self._head)
        message, _ = frames.decode_control(bytes(self._head[HEADER.size :]))
        self._head.clear()
        self._wanted = HEADER.size
        self._message, self._body_bytes, self._body_offset = message, body_bytes, 0
        self._target = self._receiver.on_message(self, message, body_bytes)
        return len(data)

    def _receive_body(self) -> int:
        size_max = min(self._body_bytes, TURN_BYTES)
        if self._target is not None:
            received = self._target.sink.receive(self._stream, self._target.offset + self._body_offset, size_max)
        else:
            received = len(self._stream.recv(min(size_max, READ_BYTES)))
        self._body_offset += received
        self._body_bytes -= received
        if not self._body_bytes:
            self._target = None
            self._receiver.on_body(self, self._message)
        return received

    def throw_away(self) -> None:
        """Whatever is still to come of the present body is written nowhere."""
        self._target = None

    # ---- the end ----

    def _lose(self) -> None:
        if not self.is_closed:
            self.close()
            self._receiver.on_closed(self)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._out.clear()
            self._target = None
            self._poller.unregister(self._stream.fileno())
            self._stream.close()
