"""A TLS connection as the rest of the transport wants a socket to be: non-blocking, and used by several threads.

Loaded only where a TLS context is given. Three things differ from `ssl.SSLSocket`. What is not ready raises BlockingIOError,
like a plain socket's. `send` and `recv` go on over the 16 KiB of one record for as long as they can, so that nothing that
was decrypted is left behind: the poller sees the socket, not what lies in OpenSSL's buffer. And a lock is around every
call, for one thread may send while another receives, and OpenSSL does not allow that for one connection.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Generator

from umbel import exceptions
from umbel._transport import connection

RECORD_BYTES = 16_384  # what one record of TLS carries


class TlsStream:
    """TLS over a connected socket, which it owns from then on. `steps` has to be gone through first."""

    __slots__ = ("_lock", "_ssl")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_name: str | None) -> None:
        """server_name: of the server, on the side of the client; None on that of the server."""
        sock.setblocking(False)
        self._lock = threading.RLock()  # as that of a connection: a signal may come in the middle
        self._ssl = context.wrap_socket(
            sock, server_side=server_name is None, server_hostname=server_name or None, do_handshake_on_connect=False
        )

    def steps(self) -> Generator[int, None, None]:
        """TLS's own handshake. Yields what to wait for. Raises ssl.SSLError and other OSErrors."""
        while True:
            try:
                self._ssl.do_handshake()
                return
            except ssl.SSLWantReadError:
                yield connection.IN
            except ssl.SSLWantWriteError:
                yield connection.OUT

    @property
    def pending_bytes(self) -> int:
        """What was decrypted and not yet read."""
        with self._lock:
            return self._ssl.pending()

    def recv(self, size: int) -> bytes:
        """Up to `size` bytes; b"" at the end. Leaves nothing decrypted behind if `size` is at least RECORD_BYTES and it
        did so before."""
        with self._lock:
            try:
                data = self._ssl.recv(size)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise BlockingIOError from None
            while data and (room := size - len(data)):
                pending = self._ssl.pending()
                if not pending and room < RECORD_BYTES:  # the rest of another record would be left behind
                    break
                try:
                    more = self._ssl.recv(min(room, pending or room))
                except OSError:  # nothing more has come, or an error that the next call will meet as well
                    break
                if not more:
                    break
                data += more
            return data

    def send(self, data: bytes | memoryview) -> int:
        """How many bytes were taken, at least one. What was not has to be given again, unchanged."""
        rest = memoryview(data)
        sent = 0
        with self._lock:
            while sent < len(rest):
                try:
                    sent += self._ssl.send(rest[sent : sent + RECORD_BYTES])
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    if not sent:
                        raise BlockingIOError from None
                    break
        return sent

    def fileno(self) -> int:
        return self._ssl.fileno()

    def setblocking(self, flag: bool) -> None:
        if flag:
            raise exceptions.InternalError("a TLS connection cannot be made blocking")

    def close(self) -> None:
        with self._lock:
            self._ssl.close()
