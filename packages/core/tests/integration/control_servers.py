"""Redis and etcd for tests: Debian's, on loopback, with files of their own, killed with the test that started them."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import drivers
import pytest

START_S = 30.0  # of a server on a busy machine
# 1 is PR_SET_PDEATHSIG of <linux/prctl.h>, which holds for what the process becomes.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """One that can be killed, stopped for a while, and started again upon the same files."""

    def __init__(self, command: Sequence[str], log: Path, port: int, is_up: Callable[[int], bool]) -> None:
        self.port = port
        self._command = command
        self._log = log
        self._is_up = is_up
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _DIE_WITH_PARENT, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + START_S
        while not self._is_up(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self.kill()
                pytest.fail(f"{self._command[0]} does not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.02)  # nothing tells when a server listens

    def freeze(self) -> None:
        assert self._process is not None
        drivers.freeze(self._process.pid)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


def redis_url(server: Server) -> str:
    """Of a storage that nobody else uses."""
    return f"redis://127.0.0.1:{server.port}/0?prefix={uuid.uuid4().hex}"


def etcd_url(server: Server) -> str:
    """Likewise."""
    return f"etcd://127.0.0.1:{server.port}/?prefix={uuid.uuid4().hex}"


def redis_server(folder: Path, *options: str, is_tls: bool = False) -> Server:
    """options: more of them, or others. Skips the test where there is no Redis."""
    binary = _found("redis-server")
    port = free_port()
    ports = ["--port", "0", "--tls-port", str(port)] if is_tls else ["--port", str(port)]
    durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    command = [binary, "--bind", "127.0.0.1", "--dir", str(folder), *ports, *durable, *options]
    return Server(command, folder / "redis.log", port, _listens if is_tls else _redis_is_up)


def etcd_server(folder: Path, *options: str, is_tls: bool = False) -> Server:
    """Likewise. Its heartbeats are quick, so that leases of a second can be had."""
    binary = _found("etcd")
    port, peer = free_port(), free_port()
    clients, peers = f"http{'s' if is_tls else ''}://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    listening = ["--listen-client-urls", clients, "--advertise-client-urls", clients]
    alone = ["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"only={peers}"]
    quick = ["--heartbeat-interval", "10", "--election-timeout", "100"]
    command = [binary, "--name", "only", "--data-dir", str(folder / "etcd"), *listening, *alone, *quick, *options]
    return Server(command, folder / "etcd.log", port, _listens if is_tls else _etcd_is_up)


def _found(name: str) -> str:
    binary = shutil.which(name)
    if binary is None:
        pytest.skip(f"needs {name}: apt-get install {name.removesuffix('-server')}-server")
    return binary


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _redis_is_up(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
    return False


def _etcd_is_up(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", "/health")
        return b'"true"' in connection.getresponse().read()
    return False
