"""Passes bytes on between nodes of which neither can dial the other: on the head, in a process of its own.

What goes through is opened by nobody here: the two sides prove themselves to each other, with TLS where the cluster has it, as
over any other connection. A direction has at most `BUFFER_BYTES` here; of who sends more nothing is read until the other has
taken that, so that it is held up as by a slow network. The daemon forks the process with the first pair, and it ends with the
daemon.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket

from umbel._agent import forked
from umbel._base import sessions
from umbel._transport import connection

BUFFER_BYTES = 256 << 10  # of each direction; the kernel keeps as much on both sides of it
PAIR = b"\0"  # comes with two descriptors


class Forwarder:
    """The daemon's end."""

    def __init__(self, session_dir: str) -> None:
        self._daemon_end, theirs = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            forked.run(_Process(theirs).run, theirs.fileno())
        theirs.close()
        self._daemon_end.setblocking(False)
        with contextlib.suppress(OSError):  # the directory is gone, and with it the session presently
            sessions.record_process(self.pid, session_dir)

    def join(self, one: socket.socket, other: socket.socket) -> None:
        """What comes by the one goes to the other, and the other way round. Both are still to be closed here. Raises
        BlockingIOError when the process takes nothing, another OSError when it has gone."""
        socket.send_fds(self._daemon_end, [PAIR], [one.fileno(), other.fileno()])

    def close(self) -> None:
        """There is no such process when this returns."""
        self._daemon_end.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


class _Process:
    def __init__(self, daemon: socket.socket) -> None:
        self._daemon = daemon
        self._is_over = False
        self._poller: connection.Poller

    def run(self) -> None:
        self._poller = connection.Poller()
        self._poller.register(self._daemon.fileno(), connection.IN, lambda _events: self._on_daemon())
        while not self._is_over:
            self._poller.poll(None)

    def _on_daemon(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._daemon, len(PAIR), 2)
        except OSError:  # no descriptor is left; what was to come is closed
            return
        if not data:
            self._is_over = True
        pair = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if len(pair) == 2:
            Pair(self._poller, *pair)
        else:
            for sock in pair:
                sock.close()


class Pair:
    """Two sockets that are connected to each other, until both sides have ended or one is gone."""

    def __init__(self, poller: connection.Poller, one: socket.socket, other: socket.socket) -> None:
        self._poller = poller
        there, back = _Direction(one, other), _Direction(other, one)
        self._ways = {one: (there, back), other: (back, there)}  # of each socket, how it is left and how it is reached
        self._events = dict.fromkeys(self._ways, 0)
        for sock in self._ways:
            sock.setblocking(False)
        self._watch()

    def _watch(self) -> None:
        """Wait for what is of use now."""
        if all(way.is_over for way in self._ways[next(iter(self._ways))]):
            self._close()
            return
        for sock, (leaving, reaching) in self._ways.items():
            wants = (connection.IN if leaving.may_read else 0) | (connection.OUT if reaching.waits_to_write else 0)
            if wants == self._events[sock]:
                continue
            if not self._events[sock]:
                self._poller.register(sock.fileno(), wants, functools.partial(self._on_ready, sock))
            elif not wants:  # else its end would be reported again and again
                self._poller.unregister(sock.fileno())
            else:
                self._poller.modify(sock.fileno(), wants)
            self._events[sock] = wants

    def _on_ready(self, sock: socket.socket, events: int) -> None:
        leaving, reaching = self._ways[sock]
        try:
            if events & (connection.OUT | connection.GONE):
                reaching.write()
            if events & (connection.IN | connection.GONE) and leaving.may_read:
                leaving.read()
        except OSError:
            self._close()
            return
        self._watch()

    def _close(self) -> None:
        for sock in self._ways:
            if self._events[sock]:
                self._poller.unregister(sock.fileno())
            sock.close()


class _Direction:
    """Bytes on their way from one socket to another. Raises OSError when one is gone."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self._source = source
        self._sink = sink
        self._rest = memoryview(b"")
        self._has_ended = False  # the source says nothing more
        self.is_over = False  # and the sink knows

    @property
    def may_read(self) -> bool:
        return not self._rest and not self._has_ended

    @property
    def waits_to_write(self) -> bool:
        return bool(self._rest)

    def read(self) -> None:
        try:
            data = self._source.recv(BUFFER_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        self._has_ended = not data
        self._rest = memoryview(data)
        self.write()

    def write(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[self._sink.send(self._rest) :]
        except (BlockingIOError, InterruptedError):
            return
        if self._has_ended and not self.is_over:
            self.is_over = True
            self._sink.shutdown(socket.SHUT_WR)
