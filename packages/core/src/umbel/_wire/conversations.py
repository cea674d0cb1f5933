"""One side of a conversation whose connections break: by which it goes on, and who may bring another.

What is said is the business of `multiplexing`, when a connection is made again or given up that of `reconnecting`; here the two
come together. A new connection begins with a message each way: the side that dials proves that it is the one from before, by a
secret, and both say what they have heard. Attempts have numbers: one that was given up, and arrives late all the same, does not
take the place of a later one. A connection that does not get as far counts as broken after the same silence as any.

This module only decides; what to do besides sending `multiplexer.frames` by `link` is in `commands`. Connections are told apart,
and nothing else is asked of them.
"""

from __future__ import annotations

import hmac
from typing import Any, NamedTuple

from umbel._wire import multiplexing, reconnecting

NEW_COUNT_MAX = 16  # that have not proved themselves; whoever has a token can make some, and of more the oldest goes

Message = dict[str, Any]


class Send(NamedTuple):
    """By a connection that is not, or no longer, the conversation's."""

    link: Any
    message: Message


class Close(NamedTuple):
    """why: for the log; "" when it is nothing to wonder at."""

    link: Any
    why: str


class Dial(NamedTuple):
    """Make a connection, and tell `connected` or `dial_failed`."""


class Resumed(NamedTuple):
    """There is a connection again."""


class Over(NamedTuple):
    """There will be no connection any more."""

    reason: str


Command = Send | Close | Dial | Resumed | Over


class Conversation:
    """dials: whether it is this side that connects. secret: the same on both sides. patience_s: for how long after a connection
    broke there may be none."""

    def __init__(self, *, dials: bool, secret: str, patience_s: float, at_s: float) -> None:
        self.multiplexer = multiplexing.Multiplexer(is_first=dials)
        self.commands: list[Command] = []
        self.link: Any = None
        self.is_over = False
        self._dials = dials
        self._secret = secret
        self._patience_s = patience_s
        self._links = reconnecting.Reconnecting(at_s=at_s, patience_s=patience_s, dials=dials)
        self._new: dict[Any, float] = {}  # connections that have not proved themselves, and until when they have to
        self._attempt = 0  # the number of the last one, of those that count
        self._failure = ""  # of the last attempt

    # ---- connections ----

    def begin(self, link: Any, at_s: float) -> None:
        """The first connection, of which both sides know."""
        self.link = link
        self._links.linked(at_s)

    def connected(self, link: Any, at_s: float) -> None:
        """Another one. What comes by it is to be told, and its end."""
        if self.is_over:
            self.commands.append(Close(link, ""))
            return
        self._new[link] = at_s + reconnecting.SILENCE_S
        if len(self._new) > NEW_COUNT_MAX:
            self.commands.append(Close(next(iter(self._new)), "too many are being made"))
        if self._dials:
            self._attempt += 1
            heard = self.multiplexer.channel.heard
            self.commands.append(
                Send(link, {"t": "resume", "secret": self._secret, "heard": heard, "attempt": self._attempt})
            )

    def closed(self, link: Any, at_s: float) -> None:
        if link is self.link:
            self.link = None
            self.multiplexer.unlinked()
            self._links.broken(at_s)
        elif self._new.pop(link, None) is not None and self._dials:
            self.dial_failed("the node has not gone on with a connection", at_s)

    def dial_failed(self, reason: str, at_s: float, *, is_final: bool = False) -> None:
        """is_final: the other side is no more."""
        if is_final:
            self._end(
                "the connection was broken, and what acted there for this program has ended meanwhile, or does not know it any "
                f"more: {reason}"
            )
        else:
            self._failure = reason
            self._links.dial_failed(at_s)

    def leave(self, reason: str) -> None:
        """Say to the other side that it is over, if there is a connection."""
        if self.link is not None:
            self.commands.append(Send(self.link, {"t": "over", "reason": reason}))

    # ---- what has come ----

    def receive(self, link: Any, message: Message, body: bytes, at_s: float) -> multiplexing.Event | None:
        if self.is_over:
            return None
        if link is not self.link:
            if link in self._new:
                self._greeted(link, message, at_s)
            return None  # what was said by a former connection is said again by this one
        self._links.heard(at_s)
        if message.get("t") == "over":
            self._end(str(message.get("reason", "")))
            return None
        try:
            return self.multiplexer.receive(message, body)
        except ValueError as error:
            self._mistaken(error)
            return None

    def _greeted(self, link: Any, message: Message, at_s: float) -> None:
        """The first that comes by a connection."""
        why = self._trouble(message)
        if why:
            self.commands.append(Close(link, why))
            return
        del self._new[link]
        if not self._dials:
            self._attempt = message["attempt"]
            heard = self.multiplexer.channel.heard
            self.commands.append(Send(link, {"t": "resumed", "heard": heard}))
        before, self.link = self.link, link
        if before is not None:  # whose end nobody has noticed here
            self.commands.append(Close(before, ""))
        try:
            self.multiplexer.linked(message["heard"])
        except ValueError as error:
            self._mistaken(error)
            return
        self._links.linked(at_s)
        self.commands.append(Resumed())

    def _trouble(self, message: Message) -> str:
        """Why this is no beginning; "" if it is."""
        if message.get("t") != ("resumed" if self._dials else "resume") or not _is_number(message.get("heard")):
            return "it does not say that it comes back"
        if self._dials:
            return ""
        secret, attempt = message.get("secret"), message.get("attempt")
        if not isinstance(secret, str) or not hmac.compare_digest(secret.encode(), self._secret.encode()):
            return "it is another program"
        if not isinstance(attempt, int) or attempt <= self._attempt:
            return f"it is older than the last one: attempt {attempt!r:.20} after {self._attempt}"
        return ""

    # ---- time ----

    def next_tick_s(self) -> float | None:
        due_s = self._links.next_tick_s()
        return due_s if due_s is None else min([due_s, *self._new.values()])

    def tick(self, at_s: float) -> None:
        if self.is_over:
            return
        for link in [link for link, until_s in self._new.items() if until_s <= at_s]:
            self.commands.append(Close(link, "it has said nothing"))
        what = self._links.tick(at_s)
        if what == "beat":
            self.multiplexer.beat()
        elif what == "close":
            self.commands.append(Close(self.link, ""))
        elif what == "dial":
            self.commands.append(Dial())
        elif what == "give up":
            last = f"; the last attempt to make it again: {self._failure}" if self._failure else ""
            self._end(f"the connection was broken for longer than {self._patience_s:g} s{last}")

    # ---- the end ----

    def _mistaken(self, error: ValueError) -> None:
        self._end(f"the other side has made a mistake: {error}")

    def _end(self, reason: str) -> None:
        self.is_over = self._links.is_over = True
        self.commands.append(Over(reason))

    def forget(self) -> list[Any]:
        """It is over here, without a word. Returns what connections there were."""
        links = [link for link in (self.link, *self._new) if link is not None]
        self.is_over = self._links.is_over = True
        self.link = None
        self._new.clear()
        return links


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
