"""Stands on a node for a program of another machine: its sockets are here, and what goes through them goes to and from the
program by a tunnel.

The program is a driver like any other, and does everything itself; here nothing of what it says is decoded but what it wants to
be connected to. What it cannot have by a socket, the node's shared memory, it has from `relayed_files`. The relay outlives its
connection to the program for as long as that has asked for; then it ends, and with it, for all others, the driver.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

from umbel import exceptions
from umbel._agent import forked, relayed_files
from umbel._base import nodes, tokens
from umbel._transport import acceptor, addresses, connection, tunnel, ways
from umbel._wire import attempts, frames, handshake

if TYPE_CHECKING:
    from umbel._agent import relays

DIAL_TIMEOUT_S = 60.0  # as for processes of nodes, see `umbel._client.remote_links`
PROOF_TIMEOUT_S = 30.0
PASSED_BYTES_MAX = 512  # a preamble and an address
PROCESS_ID_BYTES = 16

Message = dict[str, Any]


def run_forked(
    stream: connection.Stream, alive: socket.socket, wish: relays.Wish, relay_id: str, token: str, node: Message
) -> NoReturn:
    """Be the relay, in a process just forked from the daemon."""

    def serve() -> None:
        Relay(stream, alive, wish, relay_id, tokens.parse(token, source="the daemon"), node).run()

    forked.run(serve, stream.fileno(), alive.fileno())


class Relay:
    """node: what the program is told of it."""

    def __init__(
        self,
        stream: connection.Stream,
        alive: socket.socket,
        wish: relays.Wish,
        relay_id: str,
        token: tokens.Token,
        node: Message,
    ) -> None:
        """alive: of a pair with the daemon, of which it is asked for connections, and whose end means that it is gone."""
        self._node = node
        self._id = bytes.fromhex(relay_id)
        self._token = token
        self._process = b""  # the program's id, once it has said so
        self._is_over = False
        self._files: list[relayed_files.RelayedFiles] = []
        self.poller = connection.Poller()
        self._alive = connection.Connection(alive, self.poller, self._on_daemon, lambda _alive: self._daemon_gone())
        self._acceptor = acceptor.Acceptor(
            self.poller,
            token,
            self._on_peer,
            now_s=time.monotonic,
            warn=_log,
            decide=self._decide,
            timeout_s=PROOF_TIMEOUT_S,
        )
        self.dialled = attempts.Dialled()
        self._ways = ways.Ways(self.poller, token, self, now_s=time.monotonic, timeout_s=DIAL_TIMEOUT_S)
        self._tunnel = tunnel.Tunnel(
            self.poller, self, dials=False, secret=wish.secret, patience_s=wish.patience_s, now_s=time.monotonic
        )
        self._listeners = [self._listen_door(relay_id)]
        link = connection.Connection(stream, self.poller, self._tunnel.on_frame, self._tunnel.on_close)
        link.send(frames.encode_control({"t": "begun", "relay": relay_id, "pid": os.getpid(), "node": node}))
        self._tunnel.begin(link)

    def run(self) -> None:
        """Until the program has gone, or the daemon."""
        parts = (self._tunnel, self._acceptor, self._ways)
        is_linked = True
        while not self._is_over:
            if self._tunnel.is_linked != is_linked:
                is_linked = self._tunnel.is_linked
                self._tell({"t": "linked", "is_linked": is_linked})
            due = [at_s for part in parts if (at_s := part.next_tick_s()) is not None]
            self.poller.poll(max(0.0, min(due) - time.monotonic()) if due else None)
            for part in parts:
                due_s = part.next_tick_s()
                if due_s is not None and due_s <= time.monotonic():
                    part.tick()

    def _daemon_gone(self) -> None:
        self._tunnel.leave("the node's daemon has ended")
        self._is_over = True

    # ---- for the tunnel ----

    def is_over(self, reason: str) -> None:
        _log(f"the program that it stands for is gone: {reason}")
        for files in self._files:  # the daemon is about to free what there is, and nothing must come to it
            files.close()
        self._tell({"t": "ended", "why": reason})
        self._is_over = True

    def _tell(self, message: Message) -> None:
        """The daemon."""
        self._alive.send(frames.encode_control(message))

    def dial(self) -> None:
        """It is the program that does."""

    def resumed(self) -> None:
        _log("the program has come back by a new connection")

    def closes(self, why: str) -> None:
        _log(f"a connection of a program was closed: {why}")

    def opened(self, stream: int, to: Message) -> None:
        kind = to.get("to")
        try:
            if kind == "agent":
                self._tunnel.attach(stream, connection.connect_unix(self._path("agent.sock")))
            elif kind == "process":
                path = self._path(f"{_process_id(to).hex()}.sock")
                self._tunnel.attach(stream, connection.connect_unix(path))
            elif kind == "elsewhere":
                self._dial(stream, addresses.parse(str(to.get("address"))), _process_id(to))
            elif kind == "files":
                ours, theirs = socket.socketpair()
                store_dir, session_dir = self._node["store_dir"], self._node["session_dir"]
                self._files.append(relayed_files.RelayedFiles(theirs, self.poller, store_dir, session_dir))
                self._tunnel.attach(stream, ours)
            elif kind == "serve":
                self._serve(_process_id(to))
                ours, theirs = socket.socketpair()
                theirs.close()
                self._tunnel.attach(stream, ours)
            else:
                self._tunnel.refuse(stream, f"there is no {kind!r:.50} here", is_final=True)
        except (OSError, ValueError, exceptions.UmbelError) as error:
            self._tunnel.refuse(stream, str(error), is_final=not isinstance(error, OSError))

    def _path(self, name: str) -> str:
        return os.path.join(self._node["session_dir"], name)

    def _dial(self, stream: int, address: addresses.Address, process: bytes) -> None:
        def failed(error: Exception) -> None:
            is_final = isinstance(error, (exceptions.AuthenticationError, TimeoutError))
            self._tunnel.refuse(stream, str(error), is_final=is_final)

        taken = functools.partial(self._tunnel.attach, stream)
        self._ways.dial(nodes.tag_of_process(process), address, handshake.process(process), taken, failed)

    def reach(self, tag: bytes, ticket: bytes, _ways: ways.Ways) -> None:
        """As `ways.Reacher`: the daemon has a connection made, which it passes on."""
        self._tell({"t": "reach", "node": tag.hex(), "ticket": ticket.hex()})

    def _on_daemon(self, _alive: connection.Connection, payload: bytes) -> None:
        message, _ = frames.decode_control(payload)
        self._ways.unreached(bytes.fromhex(message["ticket"]), message["reason"])

    def _serve(self, process: bytes) -> None:
        """Take connections for the program, from processes of this node and, by the daemon, of others."""
        self._process = process
        path = self._path(f"{process.hex()}.sock")
        taken = functools.partial(self._tunnel.open, to={"from": "process"})
        self._listeners.append(connection.Listener(connection.listen_unix(path), self.poller, taken))
        self._listeners.append(self._listen_door(process.hex()))

    # ---- connections that the daemon passes on ----

    def _listen_door(self, name: str) -> connection.Listener:
        sock = connection.listen_unix(self._path(f"{name}.door"))
        return connection.Listener(sock, self.poller, self._on_passing)

    def _on_passing(self, way: socket.socket) -> None:
        way.setblocking(False)
        self.poller.register(way.fileno(), connection.IN, functools.partial(self._on_passed, way))

    def _on_passed(self, way: socket.socket, _events: int) -> None:
        self.poller.unregister(way.fileno())
        with way:
            try:
                data, descriptors, _, _ = socket.recv_fds(way, PASSED_BYTES_MAX, 1)
            except OSError:
                return
        if not descriptors:
            return
        sock = socket.socket(fileno=descriptors[0])
        preamble = handshake.read_preamble(data[: handshake.PREAMBLE_BYTES])
        if isinstance(preamble, handshake.Preamble) and preamble.target.kind is handshake.TargetKind.BACK:
            self._ways.arrived(preamble.target.id, sock)
        else:
            host = data[handshake.PREAMBLE_BYTES :].decode("ascii", "replace")
            self._acceptor.adopt(sock, data[: handshake.PREAMBLE_BYTES], host)

    def _decide(self, role: tokens.Role, target: handshake.Target) -> handshake.Answer:
        answer = handshake.may_reach(role, target)
        is_here = bool(target.id) and target.id in (self._id, self._process)
        if answer is handshake.Answer.WELCOME and not is_here:
            return handshake.Answer.ABSENT
        return answer

    def _on_peer(self, stream: connection.Stream, _role: tokens.Role, target: handshake.Target) -> None:
        if target.id == self._process:
            self._tunnel.open(stream, {"from": "elsewhere"})
        else:
            link = connection.Connection(stream, self.poller, self._tunnel.on_frame, self._tunnel.on_close)
            self._tunnel.connected(link)  # the program, or somebody who says so


def _process_id(to: Message) -> bytes:
    """Raises ValueError."""
    found = bytes.fromhex(str(to.get("process")))
    if len(found) != PROCESS_ID_BYTES:
        raise ValueError(f"a process has an id of {PROCESS_ID_BYTES} bytes, got {len(found)}")
    return found


def _log(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} relay {os.getpid()}: {line}\n")
    sys.stderr.flush()
