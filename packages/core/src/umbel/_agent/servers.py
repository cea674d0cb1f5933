"""All fork servers of a node: the plain one, and one for each environment that has to be built."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from umbel._agent.forks import ForkServer, Receiver
from umbel._transport import connection as transport

LOG_CHARS_MAX = 400_000  # of a failed build, in its error: more than any installer prints that is not broken


class Watcher(Receiver, Protocol):
    """Whom the reports are for."""

    def on_environment_building(self, server: str, text: str) -> None: ...

    def on_environment_ready(self, server: str) -> None: ...

    def on_environment_gone(self, server: str, reason: str, *, was_killed: bool) -> None:
        """Its process has ended, and its workers with it, whose ends are told next. reason: with the output of its
        build. was_killed: by SIGKILL, before it had said that it could not serve."""


class ForkServers:
    """Starts workers by the fork server of their environment, and those servers by the plain one."""

    def __init__(
        self, sock: socket.socket, pid: int, poller: transport.Poller, watcher: Watcher, log_path: Callable[[str], str]
    ) -> None:
        """log_path: where the output of a server's build is."""
        self.pid = pid  # of the plain one
        self._poller = poller
        self._watcher = watcher
        self._log_path = log_path
        self._plain = ForkServer(sock, pid, poller, _Plain(self, watcher))
        self._built: dict[str, _Built] = {}
        self._of: dict[str, ForkServer] = {}  # by worker, where it is not the plain one

    # ---- workers ----

    def start(self, worker: str, env: dict[str, Any] | None, server: str = "") -> None:
        """server: by its id; "" for the plain one."""
        if not server:
            self._plain.start(worker, env)
            return
        built = self._built.get(server)
        if built is None:  # it has gone a moment ago
            self._watcher.on_worker_exited(worker, 1, 0)
            return
        self._of[worker] = built.forks
        built.forks.start(worker, env)

    def _server_of(self, worker: str) -> ForkServer:
        return self._of.get(worker, self._plain)

    def pid_of(self, worker: str) -> int:
        return self._server_of(worker).pid_of(worker)

    def on_connected(self, worker: str, pid: int) -> None:
        self._server_of(worker).on_connected(worker, pid)

    def kill(self, worker: str) -> None:
        self._server_of(worker).kill(worker)

    def forget(self, worker: str) -> None:
        self._of.pop(worker, None)

    def catch_up(self) -> None:
        """Read what workers have printed so far."""
        for forks in (self._plain, *(built.forks for built in self._built.values())):
            forks.catch_up()

    def drain(self) -> None:
        for forks in (self._plain, *(built.forks for built in self._built.values())):
            forks.drain()

    def is_idle(self) -> bool:
        """Whether no worker is left."""
        return self._plain.is_idle() and not self._of

    # ---- servers ----

    def build(self, server: str, built: dict[str, Any], job: Mapping[str, Any] | None) -> None:
        """Have an environment built, in a process of its own. It is reported building, ready, and gone. job: what replaces
        the node's configuration for its workers, None for nothing."""
        kind = socket.SOCK_SEQPACKET if sys.platform.startswith("linux") else socket.SOCK_DGRAM
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        self._built[server] = _Built(self, server, ours)
        self._plain.host(server, built, job, theirs)

    def pids(self) -> dict[str, int]:
        """The processes of environments' servers, by id; what builds one is below it."""
        return {built.server: built.pid for built in self._built.values() if built.pid}

    def end_server(self, server: str) -> None:
        """Kill it with all that it has started. It is not reported any more, but its workers are."""
        self._plain.kill_host(server)

    def _on_plain(self, message: dict[str, Any]) -> None:
        """Reports of the plain server about others."""
        built = self._built.get(message.get("id", ""))
        if built is None:
            return
        if message["t"] == "forked":
            built.pid = message["pid"]
        elif message["t"] == "exited":
            how = (
                f"was killed by signal {message['signal']}"
                if message["signal"]
                else f"exited with code {message['code']}"
            )
            self._gone(built, f"its process {how}", was_killed=message["signal"] == signal.SIGKILL)

    def _gone(self, built: _Built, how: str, *, was_killed: bool) -> None:
        built.forks.receive()  # what it said last, which comes on another socket than news of its end
        if self._built.pop(built.server, None) is None:
            return
        with contextlib.suppress(OSError):
            if built.pid:
                os.killpg(built.pid, signal.SIGKILL)  # what is left of its build
        reason = built.failure or how
        output = self._output(built.server)
        reason = f"{reason}\n{output}" if output else reason
        self._watcher.on_environment_gone(built.server, reason, was_killed=was_killed and not built.failure)
        built.forks.abandon()  # only now: nobody shall be promised a worker of it

    def _output(self, server: str) -> str:
        try:
            with open(self._log_path(server), encoding="utf-8", errors="backslashreplace") as file:
                text = file.read().strip()
        except OSError:
            return ""
        if len(text) > LOG_CHARS_MAX:
            half = LOG_CHARS_MAX // 2
            text = f"{text[:half]}\n[{len(text) - LOG_CHARS_MAX} characters left out]\n{text[-half:]}"
        return text

    def output_of(self, server: str) -> str:
        """What the programs of its build have printed so far."""
        return self._output(server)

    def end(self, grace_s: float) -> None:
        """Make all of them end themselves and everything below them; do here what they do not. Blocks."""
        for built in self._built.values():
            built.forks.close()
        self._plain.end(grace_s)
        for built in self._built.values():
            with contextlib.suppress(OSError):
                if built.pid:
                    os.killpg(built.pid, signal.SIGKILL)


class _Plain:
    """Receives for the plain server."""

    def __init__(self, servers: ForkServers, watcher: Watcher) -> None:
        self._servers = servers
        self.on_worker_exited = watcher.on_worker_exited
        self.on_worker_lines = watcher.on_worker_lines
        self.on_fork_server_warning = watcher.on_fork_server_warning
        self.on_fork_server_failed = watcher.on_fork_server_failed
        self.on_fork_server_message = servers._on_plain


class _Built:
    """An environment's server, and receives for it."""

    def __init__(self, servers: ForkServers, server: str, sock: socket.socket) -> None:
        self.server = server
        self.pid = 0  # until its fork has been reported
        self.failure = ""  # what it said before it ended
        self._servers = servers
        watcher = self._watcher = servers._watcher
        self.on_worker_lines = watcher.on_worker_lines
        self.on_fork_server_warning = watcher.on_fork_server_warning
        self.forks = ForkServer(sock, 0, servers._poller, self)

    def on_worker_exited(self, worker: str, exit_code: int, signal: int) -> None:
        self._watcher.on_worker_exited(worker, exit_code, signal)
        self._servers.forget(worker)

    def on_fork_server_failed(self, text: str) -> None:
        """It cannot serve, or its socket has ended; how its process ends, the plain server will say."""
        if not self.forks.is_gone:
            self.failure = text
        self._servers.end_server(self.server)

    def on_fork_server_message(self, message: dict[str, Any]) -> None:
        if message["t"] == "building":
            self._watcher.on_environment_building(self.server, message["text"])
        elif message["t"] == "ready":
            self._watcher.on_environment_ready(self.server)
        elif message["t"] == "unbuilt":
            self.failure = message["error"]
