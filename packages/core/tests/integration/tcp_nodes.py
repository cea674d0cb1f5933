"""Two ends of TCP connections in one process and on one poller, for the tests of the transport between nodes."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from umbel._base import clock, tokens
from umbel._transport import acceptor, addresses, connection, dialler
from umbel._wire import frames, handshake

LIMIT_S = 20.0  # for anything here; a busy machine takes a hundredth of it
SECRET = tokens.Token(tokens.Role.HEAD, bytes(range(32)))
NODE, SUBMIT, READ = (SECRET.lowered(role) for role in (tokens.Role.NODE, tokens.Role.SUBMIT, tokens.Role.READ))
WRONG = tokens.Token(tokens.Role.SUBMIT, bytes(32))


class Ends:
    """An acceptor and a dialler, who came in, and what was logged. The clock stands still unless it is advanced."""

    def __init__(self, *, host: str = "127.0.0.1", token: tokens.Token = SECRET, **options: Any) -> None:
        self.clock = clock.ManualClock(1000.0)
        self.poller = connection.Poller()
        self.log: list[str] = []
        self.peers: list[tuple[Any, tokens.Role, handshake.Target]] = []
        self.connected: list[Any] = []
        self.failed: list[Exception] = []
        tls_of_client = options.pop("tls_of_client", None)
        dial_token = options.pop("dial_token", SUBMIT)
        self.options: dict[str, Any] = {"now_s": self.clock.now_s, "warn": self.log.append, **options}
        self.acceptor = acceptor.Acceptor(
            self.poller, token, lambda stream, role, target: self.peers.append((stream, role, target)), **self.options
        )
        self.address = self.acceptor.listen(addresses.Address(host, 0))
        self.dialler = dialler.Dialler(self.poller, dial_token, now_s=self.clock.now_s, tls=tls_of_client)
        self._open: list[Any] = []

    def stranger(self, address: addresses.Address | None = None) -> socket.socket:
        """A connected socket of nobody in particular."""
        to = address or self.address
        sock = socket.create_connection((to.host, to.port), timeout=LIMIT_S)
        self._open.append(sock)
        return sock

    def dial(self, target: handshake.Target = handshake.AGENT, *, address: addresses.Address | None = None) -> None:
        self.dialler.dial(address or self.address, target, self.connected.append, self.failed.append)

    def poll(self) -> None:
        """One round of a loop as the daemon has it."""
        self.poller.poll(0.01)
        for service in (self.acceptor, self.dialler):
            due_s = service.next_tick_s()
            if due_s is not None and due_s <= self.clock.now_s():
                service.tick()

    def until(self, condition: Callable[[], object]) -> None:
        end_s = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < end_s, (self.log, self.peers, self.connected, self.failed)
            self.poll()

    def pair(self, target: handshake.Target = handshake.AGENT) -> tuple[Any, Any]:
        """The server's and the client's stream of a new connection."""
        self.dial(target)
        self.until(lambda: (self.peers and self.connected) or self.failed)
        assert not self.failed
        return self.peers.pop()[0], self.connected.pop()

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """The loop runs in a thread meanwhile, for clients that block."""
        ends = threading.Event()

        def run() -> None:
            while not ends.is_set():
                self.poll()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join(LIMIT_S)
            assert not thread.is_alive()

    def close(self) -> None:
        self.acceptor.close()
        self.dialler.close()
        for stream in [*self._open, *self.connected, *(peer[0] for peer in self.peers)]:
            stream.close()
        self.poller.close()


class Talk:
    """A framed connection and the frames that came by it."""

    def __init__(self, stream: connection.Stream, poller: connection.Poller) -> None:
        self.frames: list[bytes] = []
        self.connection = connection.Connection(
            stream, poller, lambda _connection, payload: self.frames.append(payload), lambda _connection: None
        )

    def send(self, payload: bytes) -> None:
        self.connection.send(frames.HEADER.pack(len(payload)) + payload)


def read_to_the_end(sock: socket.socket) -> bytes:
    """All that comes until the other side closes, or breaks off."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(4096):
            received += data
    return received
