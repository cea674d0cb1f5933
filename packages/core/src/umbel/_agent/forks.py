"""The daemon's side of the fork server: orders to it, its reports, and the workers' output pipes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any, Protocol

from umbel._agent import output
from umbel._agent.forkserver import MESSAGE_BYTES_MAX
from umbel._transport import connection as transport


class Receiver(Protocol):
    """Whom the reports are for."""

    def on_worker_exited(self, worker: str, exit_code: int, signal: int) -> None: ...

    def on_worker_lines(self, worker: str, pid: int, is_error: bool, groups: list[output.Group]) -> None: ...

    def on_fork_server_warning(self, text: str) -> None: ...

    def on_fork_server_failed(self, text: str) -> None: ...

    def on_fork_server_message(self, message: dict[str, Any]) -> None:
        """Anything else that it reports."""


class _Process:
    __slots__ = ("pid", "pipes")

    def __init__(self) -> None:
        self.pid = 0  # 0 until the fork has been reported
        self.pipes: list[output.OutputPipe] = []


class ForkServer:
    """Starts and kills workers by way of the fork server."""

    def __init__(self, sock: socket.socket, pid: int, poller: transport.Poller, receiver: Receiver) -> None:
        self.pid = pid
        self._sock = sock
        self._poller = poller
        self._receiver = receiver
        self._processes: dict[str, _Process] = {}
        self._unsent: list[
            tuple[bytes, list[int]]
        ] = []  # bounded by the number of workers that start or are killed at once
        self.is_gone = False
        sock.setblocking(False)
        poller.register(sock.fileno(), transport.IN, self._on_ready)

    def pid_of(self, worker: str) -> int:
        """0 while it is not known, or no more."""
        process = self._processes.get(worker)
        return process.pid if process is not None else 0

    def on_connected(self, worker: str, pid: int) -> None:
        """The worker has said hello, which may be sooner than the fork server's report arrives."""
        process = self._processes.get(worker)
        if process is not None:
            process.pid = pid

    def start(self, worker: str, env: dict[str, Any] | None) -> None:
        process = self._processes[worker] = _Process()
        writing = []
        for is_error in (False, True):
            read_fd, write_fd = os.pipe()
            writing.append(write_fd)
            process.pipes.append(output.OutputPipe(read_fd, self._poller, self._lines_of(worker, is_error)))
        self._send({"t": "fork", "id": worker, "env": env}, writing)

    def _lines_of(self, worker: str, is_error: bool) -> Any:
        def on_lines(groups: list[output.Group]) -> None:
            self._receiver.on_worker_lines(worker, self.pid_of(worker), is_error, groups)

        return on_lines

    def kill(self, worker: str) -> None:
        if worker in self._processes:
            self._send({"t": "kill", "id": worker}, [])

    def _send(self, message: dict[str, Any], fds: list[int]) -> None:
        self._unsent.append((json.dumps(message).encode(), fds))
        if self.is_gone:
            self._forget_unsent()
        self._flush()

    def _forget_unsent(self) -> None:
        for _, fds in self._unsent:
            for fd in fds:
                os.close(fd)
        self._unsent.clear()

    def _flush(self) -> None:
        while self._unsent and not self.is_gone:
            data, fds = self._unsent[0]
            try:
                if fds:
                    socket.send_fds(self._sock, [data], fds)
                else:
                    self._sock.send(data)
            except BlockingIOError:
                self._poller.modify(self._sock.fileno(), transport.IN | transport.OUT)
                return
            except OSError:
                pass  # the fork server is gone; the end of the stream reports it
            self._unsent.pop(0)
            for fd in fds:
                os.close(fd)
        if not self.is_gone:
            self._poller.modify(self._sock.fileno(), transport.IN)

    def _on_ready(self, events: int) -> None:
        if events & transport.OUT:
            self._flush()
        if events & (transport.IN | transport.GONE):
            self.receive()

    def receive(self) -> None:
        """Take in what it has said so far."""
        while not self.is_gone:
            try:
                data = self._sock.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                self._receiver.on_fork_server_failed("the fork server process has died")
                return
            self._on_message(json.loads(data))

    def _on_message(self, message: dict[str, Any]) -> None:
        kind = message["t"]
        if kind in ("forked", "exited") and message["id"] not in self._processes:
            self._receiver.on_fork_server_message(message)  # not of a worker
        elif kind == "forked":
            self._processes[message["id"]].pid = message["pid"]
        elif kind == "exited":
            for pipe in self._processes[message["id"]].pipes:
                pipe.drain()
            self._receiver.on_worker_exited(message["id"], message["code"], message["signal"])
            self._processes.pop(message["id"], None)
        elif kind == "failed":
            self._receiver.on_fork_server_failed(f"the worker's modules cannot be imported:\n{message['error']}")
        elif kind == "warn":
            self._receiver.on_fork_server_warning(message["text"])
        else:
            self._receiver.on_fork_server_message(message)

    def host(self, server: str, built: dict[str, Any], job: Mapping[str, Any] | None, theirs: socket.socket) -> None:
        """Have another fork server made, which takes its orders from the other end of `theirs`."""
        self._send({"t": "host", "id": server, "built": built, "job": job}, [theirs.detach()])

    def kill_host(self, server: str) -> None:
        self._send({"t": "kill", "id": server}, [])

    def abandon(self) -> None:
        """It is gone, and its workers die with it: report their ends, which nobody else can."""
        self.close()
        for worker, process in list(self._processes.items()):
            if process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)  # it was not reaped yet, or is not there
            for pipe in process.pipes:
                pipe.drain()
            self._receiver.on_worker_exited(worker, 0, signal.SIGKILL)
            self._processes.pop(worker, None)

    def catch_up(self) -> None:
        """Read what workers have printed so far."""
        for process in self._processes.values():
            for pipe in process.pipes:
                pipe.catch_up()

    def drain(self) -> None:
        """Read what is left in the workers' pipes."""
        for process in self._processes.values():
            for pipe in process.pipes:
                pipe.drain()

    def is_idle(self) -> bool:
        """Whether no worker is left."""
        return not self._processes

    def close(self) -> None:
        """Let go of it; it then ends itself and its workers."""
        if not self.is_gone:
            self.is_gone = True
            self._poller.unregister(self._sock.fileno())
            self._sock.close()
            self._forget_unsent()

    def end(self, grace_s: float) -> None:
        """Make the fork server end itself and everything below it; if it is dead or hangs, do it here. Blocks."""
        self.close()
        until_s = time.monotonic() + grace_s
        while time.monotonic() < until_s:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                    time.sleep(0.001)
                    continue
            break
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        for process in self._processes.values():  # only those are left whose parent could not kill them
            if process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
