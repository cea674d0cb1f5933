"""A program's connection to a cluster of which no node runs here (`umbel://host:port`), and what goes through it.

On a thread of its own: whoever wants to talk to a process of the cluster gets a local socket, whose other end is here
(`umbel._transport.tunnel`). When the connection breaks it is made again, to the same `relay`, for as long as both sides have
patience; what was under way goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from umbel import exceptions
from umbel._base import token_files, tokens
from umbel._transport import addresses, connection, dialler, own_tls, tunnel
from umbel._wire import frames, handshake

BEGIN_S = 20.0  # for a node to let a program in: two round trips, and to fork a process
REDIAL_TIMEOUT_S = 5.0  # for one attempt to connect again
LAST_WORDS_S = 1.0  # for the other side to hear a goodbye; one that is reached needs milliseconds
CLOSE_S = 5.0  # for the thread to end
SECRET_BYTES = 16
PROTOCOL_VERSION = 1

logger = logging.getLogger("umbel")
Message = dict[str, Any]
OnAnswer = Callable[[bool, str, bool], None]


class RemoteTunnel:
    """Connected from the beginning. node: what the node has said of itself.

    Raises AuthenticationError when the node does not let us in, UmbelSystemError when it does not accept this program, and
    ConnectionError or TimeoutError when it is not reached.
    """

    def __init__(self, address: str, *, version: str, patience_s: float) -> None:
        """address: umbel://host:port. version: of Umbel, here."""
        self.address = address
        self.lost = ""  # why the connection is gone for good; "" while it is not
        self.on_lost: Callable[[], None] = lambda: None  # called once, on the thread
        self.on_incoming: Callable[[connection.Stream, Message], None] | None = None
        self._at = addresses.parse(address.partition("://")[2])
        self._token = _token(address)
        self._secret = os.urandom(SECRET_BYTES).hex()
        self._patience_s = patience_s
        self._relay = b""
        self._lock = threading.Lock()
        self._todo: deque[Callable[[], None]] = deque()
        self._is_over = False
        self._leaves_until_s: float | None = None  # once goodbye was said
        self._is_closed = False  # nothing is done any more. Guarded by the lock
        self.poller = connection.Poller()
        self._tunnel = tunnel.Tunnel(
            self.poller, self, dials=True, secret=self._secret, patience_s=patience_s, now_s=time.monotonic
        )
        self._dialler = dialler.Dialler(
            self.poller, self._token, now_s=time.monotonic, timeout_s=min(REDIAL_TIMEOUT_S, patience_s)
        )
        self._begun: Message | None = None
        self._begin(version)
        self._thread = threading.Thread(target=self._run, name="umbel-tunnel", daemon=True)
        self._thread.start()

    def _begin(self, version: str) -> None:
        stream = dialler.connect(self._at, handshake.shown(self._token, handshake.DRIVERS), handshake.DRIVERS)
        link = connection.Connection(stream, self.poller, self._on_frame, self._tunnel.on_close)
        python = list(sys.version_info[:2])
        link.send(frames.encode_control({
            "t": "begin", "protocol": PROTOCOL_VERSION, "version": version, "python": python, "secret": self._secret,
            "patience_s": self._patience_s,
        }))  # fmt: skip
        until_s = time.monotonic() + BEGIN_S
        try:
            while self._begun is None:
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"the node at {self._at} has not answered within {BEGIN_S:g} s")
                if link.is_closed:
                    raise ConnectionError(f"the node at {self._at} has ended the connection; trying again is safe")
                self.poller.poll(left_s)
            if self._begun["t"] != "begun":
                text = self._begun.get("text", "it speaks another protocol")
                raise exceptions.UmbelSystemError(f"the node at {self._at} did not accept this program: {text}")
        except BaseException:
            link.close()
            self.poller.close()
            raise
        self.node: Message = self._begun["node"]
        self.pid = int(self._begun["pid"])
        self._relay = bytes.fromhex(self._begun["relay"])
        self._tunnel.begin(link)

    # ---- for any thread ----

    def open(self, to: Message, on_answer: OnAnswer | None = None) -> socket.socket:
        """A socket to what `to` means on the node. on_answer: on the tunnel's thread, see `tunnel.Tunnel.open`. What is not there
        is an end of the socket."""
        near, far = socket.socketpair()
        if not self._do(lambda: self._tunnel.open(far, to, on_answer)):
            far.close()
        return near

    def _do(self, call: Callable[[], None]) -> bool:
        """Have the thread do this; whether it will."""
        with self._lock:
            if self._is_closed:
                return False
            self._todo.append(call)
            self.poller.wake()
            return True

    def close(self) -> None:
        """Say goodbye, if there is a connection, and wait a moment for its other side to hear it, who ends it then."""
        if not self.lost:
            self.lost = "umbel.shutdown() was called"
        self._do(self._say_goodbye)
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_S)

    def waits_for(self) -> str:
        """Why nothing comes now; "" if something could."""
        return "" if self._tunnel.is_linked else f"the connection to {self.address} is broken, and is being made again"

    # ---- the thread ----

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # a defect of ours must not leave anybody waiting
            logger.exception("internal error in the connection to %s", self.address)
            self._lose(f"of an internal error: {error!r}")
        self._dialler.close()
        self._tunnel.close()
        with self._lock:
            self._is_closed = True
            while self._todo:  # sockets to be closed
                self._todo.popleft()()
            self.poller.close()

    def _serve(self) -> None:
        parts = (self._tunnel, self._dialler)
        while not self._is_over:
            due = [at_s for part in parts if (at_s := part.next_tick_s()) is not None]
            if self._leaves_until_s is not None:
                if not self._tunnel.is_linked or time.monotonic() >= self._leaves_until_s:
                    return
                due.append(self._leaves_until_s)
            self.poller.poll(max(0.0, min(due) - time.monotonic()) if due else None)
            while self._todo:
                self._todo.popleft()()
            for part in parts:
                due_s = part.next_tick_s()
                if due_s is not None and due_s <= time.monotonic():
                    part.tick()

    def _say_goodbye(self) -> None:
        self._tunnel.leave("it has called umbel.shutdown(), or ended")
        self._leaves_until_s = time.monotonic() + LAST_WORDS_S

    def _on_frame(self, link: connection.Connection, payload: bytes) -> None:
        if self._begun is None:
            self._begun, _ = frames.decode_control(payload)
        else:
            self._tunnel.on_frame(link, payload)

    # ---- for the tunnel ----

    def opened(self, stream: int, to: Message) -> None:
        """From a process of the cluster."""
        if self.on_incoming is None:
            self._tunnel.refuse(stream, "this program takes no connections", is_final=True)
            return
        near, far = socket.socketpair()
        self._tunnel.attach(stream, far)
        self.on_incoming(near, to)

    def dial(self) -> None:
        self._dialler.dial(self._at, handshake.process(self._relay), self._connected, self._failed)

    def _connected(self, stream: connection.Stream) -> None:
        self._tunnel.connected(connection.Connection(stream, self.poller, self._tunnel.on_frame, self._tunnel.on_close))

    def _failed(self, error: Exception) -> None:
        logger.debug("connecting to %s again failed: %s", self.address, error)
        self._tunnel.dial_failed(str(error), is_final=isinstance(error, exceptions.AuthenticationError))

    def resumed(self) -> None:
        logger.info("the connection to %s is there again", self.address)

    def closes(self, why: str) -> None:
        logger.debug("a connection to %s was closed: %s", self.address, why)

    def is_over(self, reason: str) -> None:
        self._lose(reason)

    def _lose(self, reason: str) -> None:
        if not self.lost:
            self.lost = reason
            with contextlib.suppress(Exception):  # the engine may be closing
                self.on_lost()
        self._is_over = True


def _token(address: str) -> tokens.Token:
    """Raises AuthenticationError where there is none."""
    own_tls.use(os.environ.get(own_tls.DIRECTORY_VARIABLE, ""))
    found = token_files.find(os.environ)
    if found is None:
        raise exceptions.AuthenticationError(
            f"{address} lets nobody in without a token; set {token_files.TOKEN_VARIABLE} to one of the role 'submit', or "
            f"{token_files.FILE_VARIABLE} to a file with one (`umbel token` on a node's machine prints them)"
        )
    return found.lowered(tokens.Role.SUBMIT) if found.role > tokens.Role.SUBMIT else found
