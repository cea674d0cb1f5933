"""Programs of other machines that want to be drivers of this node (`umbel://`): each gets a `relay`, a process that stands for
it.

The daemon reads one message of each, which it checks, forks the relay with the connection, and has no more to do with it: the
relay connects to the daemon as any process of the node does. It ends with the daemon, or by itself. Loaded with the first one.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from umbel._base import nodes, sessions
from umbel._transport import connection as transport
from umbel._wire import frames

RELAY_COUNT_MAX = 256  # programs at once; each costs a process of a few MiB
WAITING_COUNT_MAX = 16  # that have proved themselves and said nothing yet; of more the oldest goes
PATIENCE_S_MAX = 3_600.0
SECRET_BYTES_MIN = 16
LAST_WORDS_S = 0.5  # of a relay that is told to end; it needs milliseconds, and the daemon waits meanwhile
PROTOCOL_VERSION = 1

Message = dict[str, Any]


class Wish(NamedTuple):
    """What a program has said. secret: with which it comes back when its connection breaks."""

    secret: str
    patience_s: float


class _Relay:
    """why: it ends, once it has said so. is_missed: its client, the program's, has gone."""

    __slots__ = ("id", "is_linked", "is_missed", "pid", "why")

    def __init__(self, pid: int, relay_id: str) -> None:
        self.pid = pid
        self.id = relay_id
        self.why = ""
        self.is_linked = True
        self.is_missed = False


class Relays:
    """Those of one node."""

    def __init__(
        self,
        poller: transport.Poller,
        config: Message,
        submit_token: str,
        address: str,
        reach_for: Callable[[Message, str, Callable[[Message], None]], None],
        log: Callable[[str], None],
    ) -> None:
        """submit_token: as text. address: of this node. reach_for(wish, path, tell): as `service.Service.reach_for`."""
        self._poller = poller
        self._config = config
        self._token = submit_token
        self._address = address
        self._reach_for = reach_for
        self._log = log
        self._waiting: dict[transport.Connection, transport.Stream] = {}
        self._relays: dict[transport.Connection, _Relay] = {}
        self._ended: dict[int, str] = {}  # by pid: why, of those whose client may not have been missed yet

    def admit(self, stream: transport.Stream) -> None:
        """A program that may submit."""
        connection = transport.Connection(stream, self._poller, self._on_frame, self._on_close)
        self._waiting[connection] = stream
        if len(self._waiting) > WAITING_COUNT_MAX:
            next(iter(self._waiting)).close()

    def door_of(self, relay_id: bytes) -> str:
        """Where the relay with this id takes connections; "" if there is none."""
        found = any(relay.id == relay_id.hex() for relay in self._relays.values())
        return door_path(self._config["session_dir"], relay_id.hex()) if found else ""

    def _on_frame(self, connection: transport.Connection, payload: bytes) -> None:
        try:
            message, _ = frames.decode_control(payload)
            wish = read(message, self._config["version"])
        except ValueError as error:
            self._refuse(connection, str(error))
            return
        if len(self._relays) >= RELAY_COUNT_MAX:
            self._refuse(connection, f"this node has {RELAY_COUNT_MAX} programs of other machines, and takes no more")
            return
        self._start(connection, wish)

    def _refuse(self, connection: transport.Connection, text: str) -> None:
        connection.send(frames.encode_control({"t": "refused", "text": text}))
        connection.close()

    def _on_close(self, connection: transport.Connection) -> None:
        self._waiting.pop(connection, None)

    def _start(self, connection: transport.Connection, wish: Wish) -> None:
        ours, theirs = socket.socketpair()
        relay_id = nodes.new_process_id(self._config["node_id"]).hex()
        stream = self._waiting[connection]
        pid = os.fork()
        if not pid:
            from umbel._agent import relay

            relay.run_forked(stream, theirs, wish, relay_id, self._token, self._facts())
        theirs.close()
        connection.close()  # the relay has it
        with contextlib.suppress(OSError):  # the directory is gone, and with it the session presently
            sessions.record_process(pid, self._config["session_dir"])
        alive = transport.Connection(ours, self._poller, self._on_word, self._on_gone)
        self._relays[alive] = _Relay(pid, relay_id)
        self._log(f"a program of another machine has connected; process {pid} stands for it")

    def _facts(self) -> Message:
        """Of this node."""
        config = self._config
        return {
            "node_id": config["node_id"],
            "session_dir": config["session_dir"],
            "store_dir": config["store_dir"],
            "address": self._address,
        }

    def why_gone(self, pid: int) -> str:
        """What is to be said of the end of the client that this process was; "" if it was no relay."""
        for alive, relay in list(self._relays.items()):
            if relay.pid == pid:
                relay.is_missed = True
                alive.drain()
                return _why(relay) if relay.why or alive.is_closed else ""
        return self._ended.pop(pid, "")

    def does_not_answer(self, pid: int) -> str:
        """Why the client that this process is cannot say anything now; "" if it can, or is no relay."""
        is_away = any(relay.pid == pid and not relay.is_linked for relay in self._relays.values())
        return (
            "it is a program of another machine, whose connection to its node is broken, and is waited for"
            if is_away
            else ""
        )

    def _on_word(self, alive: transport.Connection, payload: bytes) -> None:
        message, _ = frames.decode_control(payload)
        relay = self._relays[alive]
        if message["t"] == "linked":
            relay.is_linked = message["is_linked"]
        elif message["t"] == "reach":  # a connection to a node that it cannot dial
            path = door_path(self._config["session_dir"], relay.id)
            self._reach_for(message, path, lambda told: alive.send(frames.encode_control(told)))
        else:
            relay.why = message["why"]

    def _on_gone(self, alive: transport.Connection) -> None:
        """A relay has ended, or is about to."""
        relay = self._relays.pop(alive)
        if not relay.is_missed:
            self._ended[relay.pid] = _why(relay)
        if len(self._ended) > RELAY_COUNT_MAX:
            del self._ended[next(iter(self._ended))]
        _reap(relay.pid)
        with contextlib.suppress(OSError):
            os.unlink(door_path(self._config["session_dir"], relay.id))
        self._log(f"process {relay.pid}, which stood for a program of another machine, has ended")

    def pids(self) -> list[int]:
        return [relay.pid for relay in self._relays.values()]

    def close(self) -> None:
        """There is no relay when this returns."""
        for connection in list(self._waiting):
            connection.close()
        for alive in list(self._relays):
            alive.close()


def _why(relay: _Relay) -> str:
    if not relay.why:
        return f"process {relay.pid}, which stood for it on this node, was killed"
    return f"it was a program of another machine: {relay.why}"


def _reap(pid: int) -> None:
    """It ends by itself, after a last word to its program; else it is killed."""
    with contextlib.suppress(OSError, AttributeError):  # it has ended, or this system cannot wait for it so
        descriptor = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(LAST_WORDS_S * 1000)
        os.close(descriptor)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def door_path(session_dir: str, relay_id: str) -> str:
    return os.path.join(session_dir, f"{relay_id}.door")


def read(message: Message, version: str) -> Wish:
    """What a program asks for. version: of Umbel here. Raises ValueError: why it cannot be had."""
    if message.get("t") != "begin" or message.get("protocol") != PROTOCOL_VERSION:
        raise ValueError(
            f"this node speaks version {PROTOCOL_VERSION} of the protocol for remote drivers, the program "
            f"{message.get('protocol')!r:.20}; install the same version of Umbel on both sides"
        )
    if message.get("version") != version:
        raise ValueError(
            f"this node runs Umbel {version or 'of unknown version'}, the program {message.get('version')!r:.50}; install "
            "the same version on both sides"
        )
    if message.get("python") != list(sys.version_info[:2]):
        here = ".".join(map(str, sys.version_info[:2]))
        there = message.get("python")
        shown = ".".join(map(str, there)) if isinstance(there, list) else repr(there)
        raise ValueError(
            f"this node runs Python {here}, the program {shown:.20}, and functions cannot be pickled from one to the other; "
            "run the program with the same minor version"
        )
    secret, patience_s = message.get("secret"), message.get("patience_s")
    is_number = isinstance(patience_s, (int, float)) and not isinstance(patience_s, bool)
    if not isinstance(secret, str) or len(secret) < 2 * SECRET_BYTES_MIN or not is_number:
        raise ValueError("the program has said neither how it comes back nor for how long it is waited for")
    return Wish(secret, min(max(0.0, float(patience_s)), PATIENCE_S_MAX))  # type: ignore[arg-type]  # it is_number
