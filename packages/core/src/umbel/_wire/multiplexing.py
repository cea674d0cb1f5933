"""Many streams of bytes in one conversation that outlives the connections under it.

Either side opens a stream by saying what it wants, and the other takes it or refuses. Bytes of a stream come in order, once,
whatever breaks: `channels` sees to that. A stream ends as a whole, for both directions, after the bytes that its side has sent
before; what the other side has sent meanwhile is dropped, as the kernel does with a socket that was closed.

Both sides keep little: of each stream a side sends at most `WINDOW_BYTES` more than the other has handed on, and of all
together it keeps no more than `KEPT_BYTES_MAX`, and a piece, that the other has not heard. Beyond that nothing is read of who
sends.

This module only decides. What is to be sent is in `frames`, for whoever has a connection, and nobody misses what is dropped
there without one.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from umbel._base import checks
from umbel._wire import channels

WINDOW_BYTES = 1 << 20  # what a distance of 50 ms carries at 20 MB/s
KEPT_BYTES_MAX = 8 << 20  # several times what is acknowledged at a time, see `channels`
STREAM_COUNT_MAX = 4_096  # as many as a process has peers in a large cluster

Message = dict[str, Any]


class Opened(NamedTuple):
    """The other side wants a stream to this."""

    stream: int
    to: Message


class Answered(NamedTuple):
    """The other side has taken a stream of ours, or refused it, which ends it. is_final: trying again is useless."""

    stream: int
    is_taken: bool
    reason: str
    is_final: bool


class Received(NamedTuple):
    stream: int
    data: bytes


class Ended(NamedTuple):
    """By the other side."""

    stream: int


Event = Opened | Answered | Received | Ended


class _Stream:
    __slots__ = ("received_bytes", "sent_bytes", "untold_bytes")

    def __init__(self) -> None:
        self.sent_bytes = 0  # which the other side has not handed on, as far as is known
        self.received_bytes = 0  # which were not handed on here
        self.untold_bytes = 0  # handed on, and the other side does not know


class Multiplexer:
    """One side's. is_first: of the side that began the conversation."""

    def __init__(self, *, is_first: bool) -> None:
        self.channel = channels.Channel()
        self.frames: deque[tuple[Message, bytes]] = deque()
        self._parity = 1 if is_first else 0
        self._opened = 0  # by this side
        self._last_heard_of = 0  # the other side's last
        self._streams: dict[int, _Stream] = {}

    @property
    def stream_count(self) -> int:
        return len(self._streams)

    def has(self, stream: int) -> bool:
        return stream in self._streams

    # ---- what this side does ----

    def open(self, to: Message) -> int:
        """The number of the new stream."""
        self._opened += 1
        stream = 2 * self._opened + self._parity
        self._streams[stream] = _Stream()
        self._say({"k": "open", "s": stream, "to": to})
        return stream

    def take(self, stream: int) -> None:
        """It was opened by the other side, and will do."""
        if stream in self._streams:
            self._say({"k": "taken", "s": stream})

    def refuse(self, stream: int, reason: str, *, is_final: bool) -> None:
        if self._streams.pop(stream, None) is not None:
            self._say({"k": "refused", "s": stream, "reason": reason, "final": is_final})

    def room(self, stream: int) -> int:
        """How many bytes may be sent there now."""
        found = self._streams.get(stream)
        if found is None or self.channel.kept_bytes >= KEPT_BYTES_MAX:
            return 0
        return WINDOW_BYTES - found.sent_bytes

    def send(self, stream: int, data: bytes) -> None:
        """At most `room`."""
        found = self._streams.get(stream)
        if found is None:
            return
        found.sent_bytes += len(data)
        checks.invariant(found.sent_bytes <= WINDOW_BYTES, "more was sent than there is room for", stream=stream)
        self._say({"k": "data", "s": stream}, data)

    def handed_on(self, stream: int, size_bytes: int) -> None:
        """So much of what was received there is not kept here any more."""
        found = self._streams.get(stream)
        if found is None:
            return
        found.received_bytes -= size_bytes
        found.untold_bytes += size_bytes
        checks.invariant(found.received_bytes >= 0, "more was handed on than received", stream=stream)
        if found.untold_bytes >= WINDOW_BYTES // 4:  # so that whoever sends need not wait, nor be told of each piece
            self._say({"k": "took", "s": stream, "n": found.untold_bytes})
            found.untold_bytes = 0

    def end(self, stream: int) -> None:
        if self._streams.pop(stream, None) is not None:
            self._say({"k": "end", "s": stream})

    def _say(self, message: Message, body: bytes = b"") -> None:
        self.frames.append((self.channel.say(message, body), body))

    # ---- connections ----

    def linked(self, heard: int) -> None:
        """There is a new connection, by which the other side has said what it has heard. Raises ValueError when it cannot
        have heard that."""
        frames = self.channel.linked(heard)
        self.frames.clear()
        self.frames.extend(frames)

    def unlinked(self) -> None:
        self.frames.clear()

    def beat(self) -> None:
        """Say that this side is there."""
        self.frames.append(({"t": "heard_said", "heard": self.channel.heard}, b""))

    # ---- what has come ----

    def receive(self, frame: Message, body: bytes) -> Event | None:
        """Raises ValueError when the other side has made a mistake; the conversation is over then."""
        if frame.get("t") == "heard_said":
            self.channel.acknowledged(_count(frame, "heard"))
            return None
        if frame.get("t") != "said" or not isinstance(frame.get("message"), dict):
            raise ValueError(f"unknown frame {frame!r:.100}")
        _count(frame, "heard")
        _count(frame, "number")
        if not self.channel.takes(frame, body):
            return None
        event = self._event(frame["message"], body)
        told = self.channel.acknowledgement()
        if told is not None:
            self.frames.append((told, b""))
        return event

    def _event(self, message: Message, body: bytes) -> Event | None:
        kind, number = message.get("k"), _count(message, "s")
        if kind == "open":
            return self._on_open(number, message.get("to"))
        if kind not in ("taken", "refused", "data", "took", "end"):
            raise ValueError(f"unknown message {message!r:.100}")
        found = self._streams.get(number)
        if found is None:
            return None  # this side has ended it meanwhile
        if kind == "taken":
            return Answered(number, True, "", False)
        if kind == "data":
            found.received_bytes += len(body)
            if found.received_bytes + found.untold_bytes > WINDOW_BYTES:
                raise ValueError(f"stream {number} has brought more bytes than there is room for")
            return Received(number, body)
        if kind == "took":
            found.sent_bytes -= _count(message, "n")
            if found.sent_bytes < 0:
                raise ValueError(f"more of stream {number} was taken than was sent")
            return None
        del self._streams[number]
        if kind == "end":
            return Ended(number)
        return Answered(number, False, str(message.get("reason", "")), bool(message.get("final")))

    def _on_open(self, number: int, to: Any) -> Event:
        if number % 2 == self._parity or number <= self._last_heard_of or not isinstance(to, dict):
            raise ValueError(f"stream {number} to {to!r:.100} cannot be opened")
        if len(self._streams) >= STREAM_COUNT_MAX:
            raise ValueError(f"there are {STREAM_COUNT_MAX} streams already, and no more are allowed")
        self._last_heard_of = number
        self._streams[number] = _Stream()
        return Opened(number, to)


def _count(message: Message, name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be an integer >= 0, got {value!r:.100}")
    return value
