"""What fork servers report of a node's workers: their ends, and what they print."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any, Protocol

from umbel._agent import endings, output
from umbel._agent import events as ev
from umbel._agent.records import WorkerState

if TYPE_CHECKING:
    from umbel._agent.control import Control
    from umbel._agent.environment_service import EnvironmentService
    from umbel._agent.history import History
    from umbel._agent.hub import Hub, Message
    from umbel._agent.memory_service import MemoryService
    from umbel._agent.other_nodes import OtherNodes
    from umbel._agent.servers import ForkServers
    from umbel._agent.state import AgentState

    class Daemon(Protocol):
        """What is needed of the daemon that this is in."""

        hub: Hub
        agent: AgentState
        forks: ForkServers
        control: Control
        history: History
        memory: MemoryService
        others: OtherNodes
        environments: EnvironmentService
        jobs: Any  # a `jobs.NodeJobs`, or None

        def now_s(self) -> float: ...

        def decide(self, *events: Any) -> None: ...

        def job_of_worker(self, worker: str) -> str: ...

        def cannot_fork(self, text: str) -> None:
            """No worker can ever be started."""


FAILURE_CHARS_MAX = 100_000  # of a traceback


class WorkerReports:
    """A `servers.Watcher`."""

    def __init__(self, daemon: Daemon, config: Message) -> None:
        self._daemon = daemon
        self._config = config
        self._log_files: Any = None  # once a worker prints something
        self.on_environment_building = daemon.environments.building
        self.on_environment_ready = daemon.environments.ready
        self.on_environment_gone = daemon.environments.gone
        self.on_fork_server_failed = daemon.cannot_fork

    # ---- ends ----

    def on_worker_exited(self, worker: str, exit_code: int, signal: int) -> None:
        daemon = self._daemon
        client = daemon.hub.clients.get(worker)
        if client is not None:
            client.connection.drain()  # what it said last counts before its end
            client.connection.close()  # a process that it forked may have kept it open
        if self._log_files is not None:
            self._log_files.ended(worker, daemon.forks.pid_of(worker))
        daemon.memory.exited(worker, signal)
        self._note_end(worker, exit_code, signal)
        daemon.decide(ev.WorkerExited(worker, exit_code, signal, daemon.now_s(), self._failure_of(worker)))
        daemon.memory.forget(worker)
        if daemon.jobs is not None:
            daemon.jobs.exited(worker)
        for ending in ("sock", "door", "progress", "failed"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self._config['session_dir']}/{worker}.{ending}")

    def _note_end(self, worker: str, exit_code: int, signal: int) -> None:
        """Tell the history how a worker ended."""
        known = self._daemon.agent.workers.get(worker)
        reason, is_intended = (known.reason, known.is_intended) if known is not None else ("", False)
        report = self._daemon.memory.report_of(worker)
        exit_type, detail = endings.end_of(exit_code, signal, reason, report, is_intended=is_intended)
        end = {"worker": worker, "ended": time.time(), "exit_type": exit_type, "exit_detail": detail}
        self._daemon.history.add_worker(end)

    def note_last(self) -> None:
        """Tell the history of the workers that end with the session."""
        for worker in self._daemon.agent.workers:
            if self._daemon.forks.pid_of(worker):
                end = {"ended": time.time(), "exit_type": "INTENDED_SYSTEM_EXIT", "exit_detail": "its session ended"}
                self._daemon.history.add_worker({"worker": worker, **end})

    def _failure_of(self, worker: str) -> str:
        """What a worker has left to say that could not start."""
        known = self._daemon.agent.workers.get(worker)
        if known is None or known.state is not WorkerState.STARTING:
            return ""
        try:
            with open(f"{self._config['session_dir']}/{worker}.failed", encoding="utf-8") as file:
                return file.read(FAILURE_CHARS_MAX)
        except OSError:
            return ""

    # ---- what they print ----

    def on_worker_lines(self, worker: str, pid: int, is_error: bool, groups: list[output.Group]) -> None:
        if self._config.get("log_files"):
            self._write(worker, pid, is_error, groups)
        job = self._daemon.job_of_worker(worker)
        is_alone = self._daemon.others.sharing is None
        if is_alone and not any(client.wants_output for client in self._daemon.hub.drivers()):
            return
        for name, lines in output.by_name(groups):
            message = {"t": "log", "worker": worker, "pid": pid, "name": name, "is_err": is_error, "lines": lines}
            self.tell_lines(job, message)

    def tell_lines(self, job: str, message: Message, *, is_relayed: bool = False) -> None:
        """To the driver of the job, wherever that is. is_relayed: it has come from another node."""
        hub, sharing = self._daemon.hub, self._daemon.others.sharing
        number = job.partition("@")[0]  # by which all nodes know it; the rest says from where it is known here
        if sharing is None or any(client.job_id == number for client in hub.drivers()):
            hub.forward_lines(message, number)
            return
        driver = self._daemon.control.driver_of_job(job)
        if sharing.wants_lines(job, driver):
            sharing.send_lines(job, message, driver, is_relayed=is_relayed)

    def _write(self, worker: str, pid: int, is_error: bool, groups: list[output.Group]) -> None:
        """Into the files of its output."""
        if self._log_files is None:
            from umbel._agent import log_files

            self._log_files = log_files.LogFiles(
                self._config["session_dir"], report=self.on_fork_server_warning, **self._config["log_files"]
            )
        known = self._daemon.agent.workers.get(worker)
        actor = known.lease.actor if known is not None and known.lease is not None else ""
        self._log_files.write(worker, pid, is_error=is_error, actor=actor, groups=groups, at_s=time.time())

    def close(self) -> None:
        if self._log_files is not None:
            self._log_files.close()

    # ---- fork servers ----

    def on_fork_server_warning(self, text: str) -> None:
        self._daemon.hub.tell_drivers({"t": "warn", "text": text})

    def on_fork_server_message(self, message: Message) -> None:
        """Nothing but what `forks` passes on itself is said."""
