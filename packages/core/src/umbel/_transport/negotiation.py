"""What is done on a new TCP connection until both sides have proved themselves: connecting, TLS, the handshake.

Written as generators that yield what to wait for, IN or OUT, and return what came of it. The poller goes through the steps in
`acceptor` and `dialler`, and a loop that blocks in `dialler.connect`. They raise `exceptions.AuthenticationError` where the
other side was heard and is refused, and other OSErrors where the network failed.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

from umbel import exceptions
from umbel._base import tokens
from umbel._transport import addresses, own_tls
from umbel._transport.connection import IN, OUT, Stream
from umbel._wire import handshake

if TYPE_CHECKING:
    import ssl

    from umbel._transport import tls as tls_module

_NOT_TLS = {"HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL", "WRONG_VERSION_NUMBER"}  # as OpenSSL sees it

_T = TypeVar("_T")
Steps = Generator[int, None, _T]


class Peer(NamedTuple):
    """Who has proved itself on an accepted connection."""

    stream: Stream
    role: tokens.Role
    target: handshake.Target


class RefusedError(exceptions.AuthenticationError):
    """The node that is meant has proved itself, and refuses: what is wanted is not there, or not for this role."""


class EarlyEndError(ConnectionError):
    """The other side ended the connection. is_silent: before it had sent a byte."""

    def __init__(self, *, is_silent: bool) -> None:
        super().__init__("it ended the connection before it had proved itself")
        self.is_silent = is_silent


class Accepting:
    """The steps of the side that was connected to.

    stream: what there is to wait for and, if it comes to nothing, to close. received_bytes: of the handshake's own.
    """

    def __init__(
        self,
        sock: socket.socket,
        keys: handshake.Keys,
        decide: handshake.Decide,
        divert: Callable[[socket.socket, handshake.Preamble], bool],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.stream: Stream = sock
        self.received_bytes = 0
        self._sock = sock
        self._keys = keys
        self._decide = decide
        self._divert = divert
        self._tls = tls or own_tls.server()

    def from_the_start(self) -> Steps[Peer | None]:
        """Returns the peer, or None when `divert` has taken the connection."""
        reader = handshake.PreambleReader()
        while reader.outcome is None:
            reader.feed((yield from self._receive(reader.wanted)))
        if not isinstance(reader.outcome, handshake.Preamble):
            self._say_last(reader.reply)
            raise exceptions.AuthenticationError(reader.outcome.reason)
        if self._divert(self._sock, reader.outcome):
            return None
        return (yield from self.from_preamble(reader.outcome))

    def from_preamble(self, preamble: handshake.Preamble) -> Steps[Peer]:
        if preamble.is_tls != (self._tls is not None):
            self._say_last(handshake.reply_about_tls(has_tls=self._tls is not None))
            wants, has = ("TLS", "has none") if preamble.is_tls else ("no TLS", "insists on it")
            raise exceptions.AuthenticationError(f"it wants {wants} and this node {has}; configure both alike")
        tls_stream = None
        if self._tls is not None:
            tls_stream = _wrap(self._sock, self._tls, server_name=None)
            self.stream = tls_stream
            yield from _guarded(tls_stream.steps())
        machine = handshake.ServerHandshake(preamble, self._keys, os.urandom(handshake.NONCE_BYTES), self._decide)
        yield from _send(self.stream, machine.greeting)
        while machine.outcome is None:
            reply = machine.feed((yield from self._receive(machine.wanted)))
            yield from _send(self.stream, reply)
        _check_pending(tls_stream)
        if isinstance(machine.outcome, handshake.Failed):
            raise exceptions.AuthenticationError(machine.outcome.reason)
        return Peer(self.stream, machine.outcome.role, machine.outcome.target)

    def _receive(self, size: int) -> Steps[bytes]:
        data = yield from _receive(self.stream, size, is_silent=not self.received_bytes)
        self.received_bytes += len(data)
        return data

    def _say_last(self, reply: bytes) -> None:
        """To a client that is refused: it fits, since nothing was sent before."""
        if reply:
            self._sock.send(reply)


class Connecting:
    """The steps of the side that connects.

    stream: what there is to wait for and, if it comes to nothing, to close. until_s: until when the present step may
    take; whoever goes through the steps throws a TimeoutError into them then. is_reached: the other machine has answered.
    """

    def __init__(
        self,
        address: addresses.Address,
        token: tokens.Token,
        target: handshake.Target,
        *,
        deadline_s: float,
        now_s: Callable[[], float],
        tls: ssl.SSLContext | None,
        server_name: str,
    ) -> None:
        """server_name: which the certificate has to have; "" for the address's host."""
        self.is_reached = False
        self.stream: Stream | None = None
        self.until_s = deadline_s
        self._address = address
        self._token = token
        self._target = target
        self._deadline_s = deadline_s
        self._now_s = now_s
        own = own_tls.client() if tls is None else None
        self._tls = tls or own
        self._server_name = server_name or (own_tls.SERVER_NAME if own is not None else address.host)

    def through(self, endpoints: list[addresses.Endpoint]) -> Steps[Stream]:
        """Connects to the first endpoint that answers, and both sides prove themselves."""
        return (yield from self.proved((yield from self._reached(endpoints))))

    def knock(self, endpoints: list[addresses.Endpoint]) -> Steps[Stream]:
        """Connects to the first endpoint that answers, and says what is wanted there. Nobody has proved anything."""
        sock = yield from self._reached(endpoints)
        yield from _send(sock, handshake.encode_preamble(self._target, is_tls=False))
        return sock

    def _reached(self, endpoints: list[addresses.Endpoint]) -> Steps[socket.socket]:
        """The time left is shared among the endpoints left."""
        troubles: dict[str, None] = {}
        for position, (family, sockaddr) in enumerate(endpoints):
            now_s = self._now_s()
            self.until_s = now_s + max(0.0, self._deadline_s - now_s) / (len(endpoints) - position)
            try:
                sock = yield from self._connect(family, sockaddr)
            except OSError as error:
                self.close()
                troubles[f"{sockaddr[0]}: {error.strerror or error}"] = None
                continue
            self.until_s = self._deadline_s
            self.is_reached = True
            return sock
        told = "; ".join(troubles) or "it has no address"
        raise ConnectionError(
            f"nothing can be reached at {self._address} ({told}); is the node there, and the port open?"
        )

    def _connect(self, family: int, sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Steps[socket.socket]:
        self.stream = sock = socket.socket(family, socket.SOCK_STREAM)
        addresses.prepare(sock)
        code = sock.connect_ex(sockaddr)
        if code == errno.EINPROGRESS:
            yield OUT
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if sock.getsockname() == sock.getpeername():  # where nobody listens, TCP may connect a socket to itself
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        return sock

    def proved(self, sock: socket.socket) -> Steps[Stream]:
        """Over a connection that leads to the address, whoever has made it, both sides prove themselves."""
        stream: Stream = sock
        self.stream = stream
        tls_stream = None
        try:
            yield from _send(stream, handshake.encode_preamble(self._target, is_tls=self._tls is not None))
            if self._tls is not None:
                self.stream = stream = tls_stream = _wrap(sock, self._tls, server_name=self._server_name)
                yield from _guarded(tls_stream.steps())
            machine = handshake.ClientHandshake(
                self._token,
                self._target,
                os.urandom(handshake.NONCE_BYTES),
                is_tls=self._tls is not None,
            )
            while machine.outcome is None:
                reply = machine.feed((yield from _receive(stream, machine.wanted, is_silent=False)))
                yield from _send(stream, reply)
            _check_pending(tls_stream)
        except exceptions.AuthenticationError as error:
            raise exceptions.AuthenticationError(
                f"the connection to {self._address} failed: {error}"
            ) from error.__cause__
        except TimeoutError as error:
            raise TimeoutError(f"{self._address} was connected, but its handshake did not end in time") from error
        except OSError as error:
            what = str(error) if isinstance(error, EarlyEndError) else error.strerror or str(error)
            raise ConnectionError(
                f"the handshake with {self._address} was broken off: {what}; trying again is safe"
            ) from error
        if isinstance(machine.outcome, handshake.Failed):
            told = f"{self._address} cannot be used: {machine.outcome.reason}"
            if machine.outcome.answer is handshake.Answer.ELSEWHERE:
                raise ConnectionError(told)
            raise (RefusedError if machine.outcome.answer else exceptions.AuthenticationError)(told)
        return stream

    def close(self) -> None:
        if self.stream is not None:
            self.stream.close()
            self.stream = None


def _send(stream: Stream, data: bytes) -> Steps[None]:
    while data:
        try:
            data = data[stream.send(data) :]
        except (BlockingIOError, InterruptedError):
            yield OUT
        except OSError as error:
            _tell(error)


def _receive(stream: Stream, size: int, *, is_silent: bool) -> Steps[bytes]:
    """1 to `size` bytes."""
    while True:
        try:
            data = stream.recv(size)
        except (BlockingIOError, InterruptedError):
            yield IN
        except OSError as error:
            _tell(error)
        else:
            if not data:
                raise EarlyEndError(is_silent=is_silent)
            return data


def _wrap(sock: socket.socket, context: ssl.SSLContext, *, server_name: str | None) -> tls_module.TlsStream:
    from umbel._transport import tls as tls_module  # `ssl` takes longer to load than all else here

    try:
        return tls_module.TlsStream(sock, context, server_name=server_name)
    except (OSError, ValueError) as error:  # the second: a server's name that TLS does not take
        raise exceptions.AuthenticationError(f"TLS cannot begin: {error}") from error


def _guarded(steps: Steps[None]) -> Steps[None]:
    try:
        yield from steps
    except TimeoutError:
        raise
    except OSError as error:
        _tell(error)


def _tell(error: OSError) -> NoReturn:
    """Raises an error of TLS as a failed authentication, with OpenSSL's reason in words; any other as it is."""
    reason = getattr(error, "reason", None)  # of ssl.SSLError; not asked by its class, which may never have been loaded
    if not isinstance(reason, str):
        raise error
    detail = getattr(error, "verify_message", "")
    words = reason.replace("_", " ").lower() + (f" ({detail})" if detail else "")
    words += "; what came is not TLS, which has to be configured at both ends" if reason in _NOT_TLS else ""
    raise exceptions.AuthenticationError(f"TLS failed: {words}") from error


def _check_pending(tls_stream: tls_module.TlsStream | None) -> None:
    """Whoever writes behind a message of the handshake, in one record of TLS, has not waited for its turn; what it wrote
    would lie where no poller sees it."""
    if tls_stream is not None and tls_stream.pending_bytes:
        raise exceptions.AuthenticationError("it spoke before it was its turn")
