"""A relay between two machines that are one here, for tests that cut them off from each other, or look at what they say."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from typing import Any

TIMEOUT_S = 60


class Proxy:
    """A TCP relay to one address. `cut` breaks its connections; while `is_silent` it takes and gives nothing, while
    `is_shut` it takes no new ones. seen: all bytes that have passed, if it `records` them."""

    def __init__(self, address: str, *, records: bool = False) -> None:
        host, port = address.rsplit(":", 1)
        self._to = (host, int(port))
        self._listener = socket.create_server((host, 0))
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self.is_silent = False
        self.is_shut = False
        self.pause_s = 0.0  # after each piece that it has passed on
        self.seen = bytearray()
        self._records = records
        self._is_over = False
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over:
            for key, _events in self._selector.select(0.01):
                with self._lock:
                    self._relay(key.fileobj)
                time.sleep(self.pause_s)

    def _relay(self, ready: Any) -> None:
        if ready is self._listener:
            near, _ = self._listener.accept()
            if self.is_shut:
                near.close()
                return
            with contextlib.suppress(OSError):
                far = socket.create_connection(self._to)
                self._pairs |= {near: far, far: near}
                for one in (near, far):
                    self._selector.register(one, selectors.EVENT_READ)
                return
            near.close()
        elif ready in self._pairs and not self.is_silent:
            try:
                data = ready.recv(65_536)
                if self._records:
                    self.seen += data
                self._pairs[ready].sendall(data)
            except OSError:
                data = b""
            if not data:
                self._end(ready)

    def _end(self, one: socket.socket) -> None:
        for sock in (one, self._pairs[one]):
            self._selector.unregister(sock)
            del self._pairs[sock]
            sock.close()

    def cut(self) -> int:
        """How many connections there were."""
        with self._lock:
            count = len(self._pairs) // 2
            while self._pairs:
                self._end(next(iter(self._pairs)))
        return count

    def close(self) -> None:
        self._is_over = True
        self._thread.join(TIMEOUT_S)
        self.cut()
        self._listener.close()
        self._selector.close()
