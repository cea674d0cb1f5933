"""Connections to other nodes, by whichever way there is one: `attempts`, done.

In the place of a `dialler.Dialler` for whoever may have to do with nodes that cannot be dialled. A connection that a node was
asked for comes from a `Reacher` as it is; over that, as over one that was dialled, both sides prove themselves before anything
else.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from umbel._base import tokens
from umbel._transport import addresses, dialler, negotiation
from umbel._transport.connection import Stream, Watches
from umbel._wire import attempts, handshake

if TYPE_CHECKING:
    import ssl


class Reacher(Protocol):
    """By way of whom nodes are asked for connections of their own."""

    dialled: attempts.Dialled

    def reach(self, tag: bytes, ticket: bytes, ways: Ways) -> None:
        """Have that node dial this one, or be met otherwise. `Ways.arrived` or `Ways.unreached` is called, not before this
        returns, once or not at all."""


class Ways:
    """Connections that are being made."""

    def __init__(
        self,
        poller: Watches,
        token: tokens.Token,
        reacher: Reacher | None,
        *,
        now_s: Callable[[], float],
        timeout_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """reacher: None where nodes can only be dialled."""
        self._reacher = reacher
        self._now_s = now_s
        self._timeout_s = timeout_s
        self._dialler = dialler.Dialler(poller, token, now_s=now_s, tls=tls, timeout_s=timeout_s)
        self._wishes: dict[_Wish, None] = {}
        self._by_ticket: dict[bytes, _Wish] = {}

    def dial(
        self,
        tag: bytes,
        address: addresses.Address,
        target: handshake.Target,
        on_connected: Callable[[Stream], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        """Connect to the node with this tag, which is to be at this address: the port 0 is nowhere.

        One of the two is called, once, perhaps before this returns, unless all is closed before. on_failed: as
        `dialler.Dialler.dial`.
        """
        now_s, reacher = self._now_s(), self._reacher
        is_dialled = reacher is None or (bool(address.port) and reacher.dialled.is_worth_a_try(tag, now_s))
        attempt = attempts.Attempt(at_s=now_s, is_dialled=is_dialled, can_ask=reacher is not None)
        wish = _Wish(tag, address, target.at_node(tag), attempt, now_s + self._timeout_s, on_connected, on_failed)
        self._wishes[wish] = None
        self._do(wish, attempt.begin())

    # ---- for the reacher ----

    def arrived(self, ticket: bytes, sock: socket.socket) -> None:
        """A connection that was asked for; of a ticket that may be of no use any more."""
        wish = self._by_ticket.pop(ticket, None)
        if wish is None or wish.attempt.arrived() is attempts.Do.CLOSE:
            sock.close()
            return
        wish.dials.append(
            self._dialler.dial(
                wish.address,
                wish.target,
                functools.partial(self._connected, wish, was_dialled=False),
                functools.partial(self._asking_failed, wish),
                through=sock,
            )
        )

    def unreached(self, ticket: bytes, reason: str) -> None:
        wish = self._by_ticket.pop(ticket, None)
        if wish is not None:
            self._asking_failed(wish, ConnectionError(reason))

    def is_asking(self, tag: bytes) -> bool:
        """Whether that node was asked for a connection that is waited for."""
        return any(wish.tag == tag and wish.attempt.is_asking for wish in self._wishes)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        due = [
            at_s
            for wish in self._wishes
            for at_s in (wish.attempt.ask_s, wish.until_s if wish.attempt.is_asking else None)
            if at_s is not None
        ]
        dials_s = self._dialler.next_tick_s()
        return min([*due, *([dials_s] if dials_s is not None else [])], default=None)

    def tick(self) -> None:
        self._dialler.tick()
        now_s = self._now_s()
        for wish in list(self._wishes):
            if any(dial is not None and dial.is_reached for dial in wish.dials):
                wish.attempt.reached()
            self._do(wish, wish.attempt.tick(now_s))
            if wish.attempt.is_asking and now_s >= wish.until_s:
                self._by_ticket.pop(wish.ticket, None)
                self._asking_failed(
                    wish, TimeoutError(f"no connection of its own has come within {self._timeout_s:g} s")
                )

    def close(self) -> None:
        """Give up all that are being made, without a word."""
        self._dialler.close()
        self._wishes.clear()
        self._by_ticket.clear()

    # ---- steps ----

    def _do(self, wish: _Wish, do: attempts.Do | None) -> None:
        if do is attempts.Do.DIAL:
            wish.dials.append(
                self._dialler.dial(
                    wish.address,
                    wish.target,
                    functools.partial(self._connected, wish, was_dialled=True),
                    functools.partial(self._dial_failed, wish),
                )
            )
        elif do is attempts.Do.ASK and self._reacher is not None:
            wish.ticket = os.urandom(handshake.TARGET_ID_BYTES)
            self._by_ticket[wish.ticket] = wish
            self._reacher.reach(wish.tag, wish.ticket, self)
        elif do is attempts.Do.FAIL:
            self._drop(wish)
            wish.on_failed(wish.error())
        wish.attempt.check()

    def _dial_failed(self, wish: _Wish, error: Exception) -> None:
        if wish in self._wishes:
            wish.dial_error = error
            self._do(wish, wish.attempt.dial_failed(is_final=isinstance(error, negotiation.RefusedError)))

    def _asking_failed(self, wish: _Wish, error: Exception) -> None:
        if wish in self._wishes:
            wish.asking_error = error
            self._do(wish, wish.attempt.asking_failed(is_final=isinstance(error, negotiation.RefusedError)))

    def _connected(self, wish: _Wish, stream: Stream, *, was_dialled: bool) -> None:
        if wish not in self._wishes:
            stream.close()
            return
        wish.attempt.connected()
        self._drop(wish)
        if self._reacher is not None:
            if was_dialled:
                self._reacher.dialled.could_be_dialled(wish.tag)
            else:
                self._reacher.dialled.had_to_be_asked(wish.tag, self._now_s())
        wish.on_connected(stream)

    def _drop(self, wish: _Wish) -> None:
        del self._wishes[wish]
        self._by_ticket.pop(wish.ticket, None)
        for dial in wish.dials:
            if dial is not None:
                self._dialler.cancel(dial)


class _Wish:
    """One connection that is wanted. dials: those under way, or over. ticket: b"" until the node is asked."""

    __slots__ = (
        "address", "asking_error", "attempt", "dial_error", "dials", "on_connected", "on_failed", "tag", "target", "ticket",
        "until_s",
    )  # fmt: skip

    def __init__(
        self,
        tag: bytes,
        address: addresses.Address,
        target: handshake.Target,
        attempt: attempts.Attempt,
        until_s: float,
        on_connected: Callable[[Stream], None],
        on_failed: Callable[[Exception], None],
    ) -> None:
        self.tag = tag
        self.address = address
        self.target = target
        self.attempt = attempt
        self.until_s = until_s
        self.on_connected = on_connected
        self.on_failed = on_failed
        self.ticket = b""
        self.dials: list[dialler.Dial | None] = []
        self.dial_error: Exception | None = None
        self.asking_error: Exception | None = None

    def error(self) -> Exception:
        """Why there is no connection."""
        dialled, asked = self.dial_error, self.asking_error
        if isinstance(asked, negotiation.RefusedError) or dialled is None:
            return asked or ConnectionError("there is no way to it")
        if asked is None or isinstance(dialled, negotiation.RefusedError):
            return dialled
        is_late = isinstance(dialled, TimeoutError) or isinstance(asked, TimeoutError)
        return (TimeoutError if is_late else ConnectionError)(
            f"{dialled}; nor has it made a connection itself: {asked}"
        )
