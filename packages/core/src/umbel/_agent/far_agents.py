"""Questions to the daemons of other nodes, and by way of them to their processes.

This daemon comes to another one as a command from another machine does (`umbel._client.tool`): by that one's port, with the
cluster's token, to look. A connection is made for the first question, carries any number at once, and is closed when it has had
none for a while. Each question is answered once: by the node, or with the reason why it is not. Loaded with the first question.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from umbel._base import tokens
from umbel._transport import addresses, ways
from umbel._transport import connection as transport
from umbel._wire import frames, handshake

DIAL_S = 3.0  # for one attempt: two round trips around the world take under one
IDLE_S = 30.0  # after the last answer; whoever looks again and again asks more often
OPEN_MAX = 2_000  # questions to one node; beyond it they are refused

Message = dict[str, Any]
Done = Callable[[Message], None]  # told {"result": ...} or {"error": {"kind", "text"}}


class Daemon(Protocol):
    poller: transport.Poller

    def now_s(self) -> float: ...

    def address_of(self, tag: str) -> str:
        """Of the node with this tag; "" for one that is not a living member."""

    def reacher(self) -> Any:
        """A `ways.Reacher`, or None."""


class _Question(NamedTuple):
    done: Done
    limit_s: float
    due_s: float


class _Far:
    """One other daemon. waiting: questions that are sent when there is a connection."""

    __slots__ = ("connection", "idle_s", "is_dialling", "questions", "tag", "waiting")

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.connection: transport.Connection | None = None
        self.is_dialling = False
        self.questions: dict[int, _Question] = {}
        self.waiting: list[Message] = []
        self.idle_s = 0.0  # since when it has had no question


class FarAgents:
    """All that one node asks."""

    def __init__(self, daemon: Daemon, token: tokens.Token) -> None:
        self._daemon = daemon
        shown = handshake.shown(token, handshake.AGENT)
        self._ways = ways.Ways(daemon.poller, shown, daemon.reacher(), now_s=daemon.now_s, timeout_s=DIAL_S)
        self._numbers = itertools.count(1)
        self._far: dict[str, _Far] = {}

    def ask(self, tag: str, message: Message, limit_s: float, done: Done) -> None:
        """message: a "query" or an "ask", for the node with this tag. done: is called once, perhaps before this returns."""
        far = self._far.get(tag) or _Far(tag)
        if len(far.questions) >= OPEN_MAX:
            done(_error("busy", f"{OPEN_MAX} questions to it wait for answers already"))
            return
        number = next(self._numbers)
        message = {**message, "rq": number}
        far.questions[number] = _Question(done, limit_s, self._daemon.now_s() + limit_s)
        self._far[tag] = far
        if far.connection is not None:
            far.connection.send(frames.encode_control(message))
            return
        far.waiting.append(message)
        if not far.is_dialling:
            self._dial(far)

    def _dial(self, far: _Far) -> None:
        address = self._daemon.address_of(far.tag)
        if not address:
            self._end(far, "it is not alive")
            return
        far.is_dialling = True
        connected, failed = functools.partial(self._connected, far), functools.partial(self._failed, far, address)
        self._ways.dial(bytes.fromhex(far.tag), addresses.parse(address), handshake.AGENT, connected, failed)

    def _connected(self, far: _Far, stream: transport.Stream) -> None:
        far.is_dialling = False
        if self._far.get(far.tag) is not far:
            stream.close()  # it has died since
            return
        connection = transport.Connection(stream, self._daemon.poller, self._on_frame, self._on_close)
        connection.peer = far
        far.connection = connection
        hello = {"t": "hello", "kind": "tool", "id": os.urandom(16).hex(), "pid": os.getpid()}
        connection.send(frames.encode_control({**hello, "protocol": frames.PROTOCOL_VERSION}))
        waiting, far.waiting = far.waiting, []
        for message in waiting:
            if message["rq"] in far.questions:
                connection.send(frames.encode_control(message))

    def _failed(self, far: _Far, address: str, error: Exception) -> None:
        far.is_dialling = False
        if self._far.get(far.tag) is far:
            self._end(far, f"it cannot be connected to at {address}: {error}")

    def _on_frame(self, connection: transport.Connection, payload: bytes) -> None:
        far = connection.peer
        if not isinstance(far, _Far) or far.connection is not connection:
            return
        try:
            message, _ = frames.decode_control(payload)
        except ValueError as error:
            self._end(far, f"it has sent what is no message: {error}")
            return
        if message.get("t") == "refused":
            self._end(far, f"it refuses: {message.get('text')}")
        elif message.get("t") == "reply":
            question = far.questions.pop(message.get("rq", 0), None)
            if question is not None:
                self._rest(far)
                told = "error" if "error" in message else "result"
                question.done({told: message.get(told)})

    def _on_close(self, connection: transport.Connection) -> None:
        far = connection.peer
        if isinstance(far, _Far) and far.connection is connection:
            self._end(far, "the connection to it broke")

    def _rest(self, far: _Far) -> None:
        if not far.questions:
            far.idle_s = self._daemon.now_s()

    def _end(self, far: _Far, reason: str) -> None:
        """Nothing more comes of it; the next question begins anew."""
        if self._far.get(far.tag) is far:
            del self._far[far.tag]
        connection, far.connection = far.connection, None
        questions, far.questions = far.questions, {}
        if connection is not None:
            connection.close()
        for question in questions.values():
            question.done(_error("gone", reason))

    def forget(self, tag: str) -> None:
        """The node has died."""
        far = self._far.get(tag)
        if far is not None:
            self._end(far, "it has died")

    # ---- time ----

    def next_tick_s(self) -> float | None:
        due = [question.due_s for far in self._far.values() for question in far.questions.values()]
        due += [far.idle_s + IDLE_S for far in self._far.values() if not far.questions and not far.is_dialling]
        dials_s = self._ways.next_tick_s()
        return min([*due, *([dials_s] if dials_s is not None else [])], default=None)

    def tick(self) -> None:
        now_s = self._daemon.now_s()
        due_s = self._ways.next_tick_s()
        if due_s is not None and due_s <= now_s:
            self._ways.tick()
        for far in list(self._far.values()):
            late = [number for number, one in far.questions.items() if one.due_s <= now_s]
            for number in late:
                question = far.questions.pop(number)
                question.done(_error("late", f"it has not answered within {question.limit_s:g} s"))
            if late:
                self._rest(far)
            elif not far.questions and not far.is_dialling and far.idle_s + IDLE_S <= now_s:
                self._end(far, "")

    def close(self) -> None:
        """Whoever waits is told nothing: this node ends."""
        self._ways.close()
        for far in self._far.values():
            far.questions.clear()
            if far.connection is not None:
                far.connection.peer = None
                far.connection.close()
        self._far.clear()


def _error(kind: str, text: str) -> Message:
    return {"error": {"kind": kind, "text": text}}
