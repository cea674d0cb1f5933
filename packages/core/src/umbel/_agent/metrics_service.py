"""Metrics in the daemon: reports of processes, answers to scrapers, and the process that serves Prometheus.

That process is one of its own, so that a scraper that reads slowly, or a library that computes for long, costs the
daemon nothing; it asks the daemon as a tool does. Its listening socket is the daemon's, so a scrape that finds it
restarting waits instead of failing. It ends when the daemon does: its end of a pipe tells it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections import Counter
from typing import Any, Protocol

from umbel._agent import metrics, state
from umbel._agent.hub import Client, Hub, Message
from umbel._agent.memory_service import MemoryService
from umbel._agent.servers import ForkServers
from umbel._agent.store_service import StoreService
from umbel._transport import connection as transport

BACKLOG = 16  # scrapes that wait while the endpoint is being restarted
RESTART_AFTER_S = 10.0  # an endpoint that lived shorter has a fault that starting it again will not mend
_BOOT = (
    "import sys, json; given = json.loads(sys.argv[1]); sys.path[:] = given['sys_path']; package = type(sys)('umbel'); "
    "package.__path__ = [given['package_dir']]; sys.modules['umbel'] = package; "
    "from umbel._agent import exporter; exporter.main(given)"
)


class Daemon(Protocol):
    """What is measured."""

    hub: Hub
    agent: state.AgentState
    control: Any
    store: StoreService
    forks: ForkServers
    poller: transport.Poller
    memory: MemoryService

    def now_s(self) -> float: ...

    def processes(self) -> list[tuple[str, str, int]]: ...


class MetricsService:
    def __init__(self, daemon: Daemon, config: Message) -> None:
        self.table = metrics.Table()
        self.port = 0  # where Prometheus is served; 0 for nowhere
        self._daemon = daemon
        self._config = config
        self._socket: socket.socket | None = None
        self._lifeline = -1
        self.pid = 0  # of the process that serves; 0 while there is none
        self._pid_fd = -1
        self._started_s = 0.0

    def on_report(self, client: Client, message: Message, _body: bytes) -> None:
        for text in self.table.reported(client.id, message["report"]):
            self._daemon.hub.tell_drivers({"t": "warn", "text": text})

    def on_gone(self, client: Client) -> None:
        self.table.gone(client.id)

    def snapshot(self) -> Message:
        """Everything that only the daemon knows, for whoever serves or prints it."""
        daemon, ledger = self._daemon, self._daemon.store.ledger
        actors = daemon.control.listed()
        workers = daemon.agent.workers.values()
        spilling = daemon.store.spilling
        spilled = None if spilling is None else spilling.ledger
        class_of = {one["worker"]: one["class_name"] for one in actors if one["worker"]}
        return {
            "node_id": self._config["node_id"],
            "families": self.table.listed(),
            "dropped": self.table.dropped,
            # Those of the cluster are counted once, by its head.
            "actors": Counter(one["state"] for one in actors) if not self._config.get("head") else Counter(),
            "workers": Counter(worker.state.value for worker in workers),
            "leases_pending": sum(demand.count for demand in daemon.agent.demands.values()),
            "store_dir": self._config["store_dir"],
            "session_dir": self._config["session_dir"],
            "store_capacity_bytes": ledger.capacity_bytes,
            "store_reserved_bytes": ledger.used_bytes,
            "spilled_bytes": spilled.spilled_bytes if spilled else 0,
            "spill_written_bytes": spilled.written_bytes if spilled else 0,
            "spill_read_bytes": spilled.read_bytes if spilled else 0,
            "memory_kills": daemon.memory.kills,
            "processes": [(component, class_of.get(known, ""), pid) for component, known, pid in daemon.processes()],
        }

    # ---- the endpoint ----

    def serve(self, host: str, port: int) -> None:
        """Raises OSError when nothing can listen there."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last session's may be in TIME_WAIT
            made.bind((host, port))
            made.listen(BACKLOG)
        except OSError as error:
            made.close()
            raise OSError(
                f"metrics cannot be served at {host}:{port}: {error}; choose another metrics_export_port, or 0 for any"
            ) from error
        made.set_inheritable(True)
        self._socket = made
        self.port = made.getsockname()[1]
        self._start()

    def _start(self) -> None:
        assert self._socket is not None
        theirs, self._lifeline = os.pipe()
        os.set_inheritable(theirs, True)
        given = {
            "sys_path": self._config["sys_path"],
            "package_dir": os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
            "session_dir": self._config["session_dir"],
            "socket": self._socket.fileno(),
            "lifeline": theirs,
            "has_token": "listen" in self._config,
            "token_file": self._config.get("token_file", ""),
        }
        command = [sys.executable, "-S", *(["-B"] if sys.dont_write_bytecode else []), "-c", _BOOT, json.dumps(given)]
        try:
            self.pid = os.posix_spawn(sys.executable, command, os.environ)
        finally:
            os.close(theirs)
        self._started_s = self._daemon.now_s()
        if hasattr(os, "pidfd_open"):
            self._pid_fd = os.pidfd_open(self.pid)
            self._daemon.poller.register(self._pid_fd, transport.IN, self._on_ended)

    def _on_ended(self, _events: int) -> None:
        lived_s = self._daemon.now_s() - self._started_s
        self._reap()
        if lived_s >= RESTART_AFTER_S:
            self._start()
            return
        text = f"the process that serves metrics ended after {lived_s:.1f} s; they are no longer served"
        self._daemon.hub.tell_drivers({"t": "warn", "text": text})

    def _reap(self) -> None:
        if self._pid_fd >= 0:
            self._daemon.poller.unregister(self._pid_fd)
            os.close(self._pid_fd)
            self._pid_fd = -1
        os.close(self._lifeline)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.pid = 0

    def end(self) -> None:
        """The process that serves is gone when this returns."""
        if self.pid:
            self._reap()
        if self._socket is not None:
            self._socket.close()
