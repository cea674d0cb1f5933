"""Accepts TCP connections and hands over those whose other side has proved that it has a token.

Until then a connection is a *stranger*: it costs a descriptor, under 100 bytes read and, where TLS is used, OpenSSL's
buffers, for `HANDSHAKE_TIMEOUT_S` at most. At most `STRANGER_COUNT_MAX` of them are there. For one more, the oldest goes of the
address that has the most: so a flood drives out its own, and from an address that floods, an honest peer gets in that is
through its two round trips before the flood has come round. Nothing that a stranger says is decoded, and what is logged of
strangers is one line for each address and reason in a minute, with a count.

For the thread that polls. Whoever runs the poller calls `tick` when `next_tick_s` has come.
"""

from __future__ import annotations

import collections
import errno
import functools
import itertools
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from umbel import exceptions
from umbel._base import tokens
from umbel._transport import addresses, negotiation, refusals
from umbel._transport.connection import IN, Stream, Watches
from umbel._wire import handshake

if TYPE_CHECKING:
    import ssl

HANDSHAKE_TIMEOUT_S = 5.0  # two round trips take under one around the world; TLS adds two, a busy machine a second
STRANGER_COUNT_MAX = 128  # a tenth of the 1,024 descriptors that many systems allow a process
ACCEPT_SHARE = 4  # so many rounds of the poller, and the peers' answers in them, until all strangers are others
EXHAUSTED_PAUSE_S = 0.1  # of accepting when the process has no descriptors left, instead of asking without end

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

OnPeer = Callable[[Stream, tokens.Role, handshake.Target], None]
Divert = Callable[[socket.socket, handshake.Preamble], bool]


class Acceptor:
    """Listeners, and the strangers that have come by them."""

    def __init__(
        self,
        poller: Watches,
        token: tokens.Token,
        on_peer: OnPeer,
        *,
        now_s: Callable[[], float],
        warn: Callable[[str], None],
        decide: handshake.Decide = handshake.may_reach,
        divert: Divert | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = HANDSHAKE_TIMEOUT_S,
        stranger_count_max: int = STRANGER_COUNT_MAX,
    ) -> None:
        """token: of the highest role that is accepted; those below are as well.

        on_peer(stream, role, target): of one who has proved itself. The stream is the caller's from then on. warn: takes lines
        for the log. decide: whether a role may reach a target, and whether that is here. divert(socket, preamble): whether it
        has taken the connection for another process, which goes on by `adopt`; asked before anything is proved. It may raise
        OSError, and the connection is refused. tls: nobody gets in without it; None for that of this
        process, see `own_tls`, if it has one.
        """
        self._poller = poller
        self._keys = handshake.Keys(token)
        self._on_peer = on_peer
        self._now_s = now_s
        self._warn = warn
        self._decide = decide
        self._divert: Divert = divert or (lambda _socket, _preamble: False)
        self._tls = tls
        self._timeout_s = timeout_s
        self._stranger_count_max = stranger_count_max
        self._listeners: list[socket.socket] = []
        self._strangers: dict[int, _Stranger] = {}  # the oldest first
        self._numbers = itertools.count()
        self._refusals = refusals.Refusals()
        self._resume_s: float | None = None  # when to accept again, while there are no descriptors

    def listen(self, address: addresses.Address) -> addresses.Address:
        """Accept at this address; returns it with the port that it got. Raises OSError."""
        listeners = addresses.listen(address)
        self._listeners += listeners
        if self._resume_s is None:
            for listener in listeners:
                self._watch(listener)
        return addresses.Address(address.host, listeners[0].getsockname()[1])

    @property
    def stranger_count(self) -> int:
        return len(self._strangers)

    def adopt(self, sock: socket.socket, preamble: bytes, host: str) -> None:
        """Go on with a connection that another process has accepted, and of which it has read the preamble. host: where it
        comes from, for the log."""
        parsed = handshake.read_preamble(preamble)
        if isinstance(parsed, handshake.Failed):
            self._refuse(host, parsed.reason)
            sock.close()
        else:
            self._begin(sock, host, parsed)

    def take(self, sock: socket.socket, host: str) -> None:
        """Go on with a connection as if it had been accepted: this side has dialled, and the other one is the client."""
        self._begin(sock, host, None)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        oldest_s = next((stranger.until_s for stranger in self._strangers.values()), None)
        due = (oldest_s, self._refusals.next_tick_s(), self._resume_s)
        return min((at_s for at_s in due if at_s is not None), default=None)

    def tick(self) -> None:
        now_s = self._now_s()
        for stranger in list(self._strangers.values()):
            if stranger.until_s > now_s:
                break
            self._drop(stranger, f"it did not prove itself within {self._timeout_s:g} s")
        for line in self._refusals.tick(at_s=now_s):
            self._warn(line)
        if self._resume_s is not None and now_s >= self._resume_s:
            self._resume_s = None
            for listener in self._listeners:
                self._watch(listener)

    # ---- accepting ----

    def _watch(self, listener: socket.socket) -> None:
        self._poller.register(listener.fileno(), IN, functools.partial(self._on_connection, listener))

    def _on_connection(self, listener: socket.socket, _events: int) -> None:
        for _ in range(max(1, self._stranger_count_max // ACCEPT_SHARE)):
            try:
                sock, name = listener.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._make_room(error)
                return  # nothing more to accept, or the peer went away meanwhile
            self._begin(sock, host_of(name), None)

    def _oldest_of_most(self) -> _Stranger:
        """Whom to drop: the oldest of the address from which most have come."""
        counts = collections.Counter(stranger.host for stranger in self._strangers.values())
        most = max(counts.values())
        return next(stranger for stranger in self._strangers.values() if counts[stranger.host] == most)

    def _make_room(self, error: OSError) -> None:
        """No descriptor is left: a stranger gives its own, or there is a pause."""
        if self._strangers:
            reason = f"{error.strerror}, and it was the oldest of those that had not proved themselves"
            self._drop(self._oldest_of_most(), reason)
            return
        self._refuse("any address", f"{error.strerror}; raise the limit of open files")
        self._resume_s = self._now_s() + EXHAUSTED_PAUSE_S
        for listener in self._listeners:
            self._poller.unregister(listener.fileno())

    def _begin(self, sock: socket.socket, host: str, preamble: handshake.Preamble | None) -> None:
        try:
            addresses.prepare(sock)
        except OSError:  # it has gone already
            sock.close()
            return
        while len(self._strangers) >= self._stranger_count_max:
            self._drop(self._oldest_of_most(), "it was the oldest of too many that had not proved themselves")
        accepting = negotiation.Accepting(sock, self._keys, self._decide, self._divert, self._tls)
        steps = accepting.from_the_start() if preamble is None else accepting.from_preamble(preamble)
        stranger = _Stranger(next(self._numbers), host, self._now_s() + self._timeout_s, accepting, steps)
        self._strangers[stranger.number] = stranger
        self._advance(stranger, 0)

    def _advance(self, stranger: _Stranger, _events: int) -> None:
        """Go on with a stranger until it has to wait again, or is one no longer."""
        descriptor = stranger.accepting.stream.fileno()
        self._poller.unregister(descriptor)
        try:
            events = next(stranger.steps)
        except StopIteration as end:
            del self._strangers[stranger.number]
            peer: negotiation.Peer | None = end.value
            if peer is not None:
                self._on_peer(peer.stream, peer.role, peer.target)
        except negotiation.EarlyEndError as error:  # without a word: who only looks whether the port is open
            self._drop(stranger, "" if error.is_silent else str(error))
        except exceptions.AuthenticationError as error:
            self._drop(stranger, str(error))
        except OSError as error:
            self._drop(stranger, error.strerror or type(error).__name__)
        else:
            self._poller.register(descriptor, events, functools.partial(self._advance, stranger))

    # ---- refusing ----

    def _drop(self, stranger: _Stranger, reason: str) -> None:
        """reason: for the log; "" for none."""
        del self._strangers[stranger.number]
        stream = stranger.accepting.stream
        self._poller.unregister(stream.fileno())
        stranger.steps.close()
        stream.close()
        if reason:
            self._refuse(stranger.host, reason)

    def _refuse(self, host: str, reason: str) -> None:
        for line in self._refusals.add(host, reason, at_s=self._now_s()):
            self._warn(line)

    def close(self) -> None:
        """Stop listening, and drop all strangers. Peers that were handed over are not ours any more."""
        for stranger in list(self._strangers.values()):
            self._drop(stranger, "")
        for listener in self._listeners:
            self._poller.unregister(listener.fileno())
            listener.close()
        self._listeners.clear()
        self._resume_s = None


class _Stranger:
    """A connection whose other side has not proved itself yet."""

    __slots__ = ("accepting", "host", "number", "steps", "until_s")

    def __init__(
        self,
        number: int,
        host: str,
        until_s: float,
        accepting: negotiation.Accepting,
        steps: negotiation.Steps[negotiation.Peer] | negotiation.Steps[negotiation.Peer | None],
    ) -> None:
        self.number = number
        self.host = host
        self.until_s = until_s
        self.accepting = accepting
        self.steps = steps


def host_of(name: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """Where a connection comes from; IPv4 as such on a socket for both."""
    return name[0].removeprefix("::ffff:")
