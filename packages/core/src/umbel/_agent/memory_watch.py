"""Looks at the node's memory and kills for it: the shell of `shortage`.

Measured is whatever is scarcest: the limit that the configuration sets on this session's processes (their PSS); each
control group around the daemon that limits memory, less what the kernel would give back; the machine
(MemAvailable). Looking costs 10 to 20 µs for each worker, and nothing while no worker is in use. PSS is dear, so it is
read only when the resident sizes, which are never less, say that it may matter.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from umbel._agent import events as ev
from umbel._agent import shortage
from umbel._agent.ledger import UNIT
from umbel._agent.records import Lease, Worker, WorkerState
from umbel._base import control_groups, machine

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
DESCENDANTS_MAX = 200  # of one worker that are looked at
REPORTS_MAX = 1_000  # of kills whose process has not been reaped
MIB = 1 << 20
COUNTED_FOR_S = 1.0  # for this time the system's kills need not be counted again for one that is the daemon's own
YOUNG_S = 60.0  # a worker that is replaced for its size before that costs its users time; a leak lasts longer
STARTERS = ("worker", "actor", "environment")  # whose children count as the session's: the user's, and builds


class Daemon(Protocol):
    """What the watch needs of the daemon that it runs in."""

    agent: Any
    forks: Any
    hub: Any
    control: Any
    leases: Any  # of which the progress of workers is known

    def now_s(self) -> float: ...

    def processes(self) -> list[tuple[str, str, int]]: ...

    def decide(self, *events: ev.AgentEvent) -> None: ...


class MemoryWatch:
    """Made when a worker is first in use."""

    def __init__(self, daemon: Daemon, settings: Mapping[str, Any]) -> None:
        """settings: "limit_bytes" (0 for none), "threshold", "recycle_bytes" (0 for never)."""
        self._daemon = daemon
        self._limit_bytes: int = settings["limit_bytes"]
        self._recycle_bytes: int = settings["recycle_bytes"]
        self.monitor = shortage.MemoryMonitor(threshold=settings["threshold"])
        self._groups = control_groups.limited_groups()
        self._reports: dict[str, dict[str, Any]] = {}  # of workers that were killed and not yet reaped
        self._oom_kills = oom_kill_count(self._groups)
        self._counted_s = daemon.now_s()
        self._has_told_of_young = False

    # ---- looking ----

    def look(self) -> float | None:
        """Look, and act on it. Returns when to look again; None while no worker is in use."""
        began_s = time.process_time()
        uses = self._uses()
        used, limit, source = self._scarcest(uses)
        if not limit:
            return None  # this system does not say
        sample = shortage.Sampled(used, limit, source, tuple(uses), time.process_time() - began_s, self._daemon.now_s())
        for command in self.monitor.apply(sample):
            if isinstance(command, shortage.Kill):
                self._kill(command)
            elif isinstance(command, shortage.Helpless):
                text = (
                    f"memory is short ({command.source} {mib(command.used_bytes)} of {mib(command.limit_bytes)}), and no "
                    "worker of this session holds enough to be worth killing; look for who does (umbel memory "
                    "--stats-only shows this session's processes)"
                )
                self._daemon.hub.tell_drivers({"t": "warn", "text": text})
            else:
                self._daemon.decide(ev.WorkerDismissed(command.worker, self._daemon.now_s()))
        for use in uses:
            if use.owner and use.resident_bytes > self._recycle_bytes and self.is_overgrown(use.worker):
                self._daemon.decide(ev.WorkerOvergrown(use.worker, self._daemon.now_s()))
        return self.monitor.look_again_s()

    def _uses(self) -> list[shortage.Use]:
        found = []
        with_children = self.monitor.is_close()
        for worker in self._daemon.agent.workers.values():
            pid = self._daemon.forks.pid_of(worker.id)
            if not pid or worker.state in (WorkerState.STARTING, WorkerState.DYING):
                continue
            size = private_bytes(pid)
            if with_children:
                size += sum(private_bytes(child) for child in descendants(pid))
            found.append(self._use(worker, size))
        return found

    def _use(self, worker: Worker, size: int) -> shortage.Use:
        lease = worker.lease
        if lease is None:
            return shortage.Use(worker.id, size)
        allowed = _promised_bytes(lease)
        if lease.actor:
            cost = shortage.RESTARTED if self._daemon.control.may_restart(lease.actor) else shortage.LOST_ACTOR
            return shortage.Use(worker.id, size, actor=lease.actor, allowed_bytes=allowed, cost=cost)
        task, is_retried = self._daemon.leases.progress(worker.id)
        cost = shortage.FREE if task == -1 else shortage.RETRIED if is_retried else shortage.LOST_TASK
        return shortage.Use(worker.id, size, lease.client or "?", "", task, allowed, cost)

    def _scarcest(self, uses: list[shortage.Use]) -> tuple[int, int, str]:
        """(used, limit, whose) where least is left."""
        found = []
        total, available = machine.memory_bytes()
        if total:
            found.append((total - available, total, "the machine's processes use"))
        for group in self._groups:
            used, limit = control_groups.group_memory_bytes(group)
            if limit:
                found.append((used, limit, f"the processes of the control group {group.path} use"))
        if self._limit_bytes:
            found.append((self._session_bytes(), self._limit_bytes, "this session's processes use"))
        return min(found, key=lambda one: self.monitor.allowed_bytes(one[1]) - one[0], default=(0, 0, ""))

    def _session_bytes(self) -> int:
        pids: set[int] = set()
        for component, _, pid in self._daemon.processes():
            pids.add(pid)
            if component in STARTERS:
                pids.update(descendants(pid))
        at_most = sum(map(resident_bytes, pids))
        if at_most <= self.monitor.allowed_bytes(self._limit_bytes):
            return at_most
        return sum(map(proportional_bytes, pids))

    # ---- acting ----

    def _kill(self, command: shortage.Kill) -> None:
        worker, report = command.worker, command.report
        pid = self._daemon.forks.pid_of(worker)
        self._complete(report, pid)
        text = in_words(report)
        if len(self._reports) < REPORTS_MAX:
            self._reports[worker] = report
        if command.cost >= shortage.RESTARTED or report["alone"]:  # of the others their owners tell
            self._daemon.hub.tell_drivers({"t": "warn", "text": f"worker {worker[:8]} (pid {pid}) was killed: {text}"})
        children = list(descendants(pid)) if pid else []
        self._daemon.decide(ev.MemoryShort(worker, text, self._daemon.now_s()))
        for child in children:  # what it has started holds memory too, and would outlive it
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)

    def _complete(self, report: dict[str, Any], pid: int) -> None:
        report["pid"] = pid
        classes = {one["actor"]: one["class_name"] for one in self._daemon.control.listed()}
        for other in report["others"]:
            other["class_name"] = classes.get(other["actor"], "")

    def exited(self, worker: str, number: int) -> None:
        """A worker's process has ended, by signal `number` or 0. If the system has killed it for its memory, that is
        noted."""
        if number == signal.SIGKILL and worker not in self._reports and self._may_be_the_systems(worker):
            count = oom_kill_count(self._groups)
            report = self.monitor.report_of(worker, self._daemon.now_s()) if count > self._oom_kills else None
            self._oom_kills = max(self._oom_kills, count)
            if report is not None:
                report["by_system"] = True
                self._complete(report, self._daemon.forks.pid_of(worker))
                self._reports[worker] = report
        self.monitor.apply(shortage.Gone(worker, self._daemon.now_s()))

    def _may_be_the_systems(self, worker: str) -> bool:
        """Of a kill. What the system has killed is counted again now and then when it is the daemon's own, so that nobody's
        end is taken for that of another process long ago; for each it would cost 40 µs."""
        known, now_s = self._daemon.agent.workers.get(worker), self._daemon.now_s()
        if known is not None and known.state is WorkerState.DYING and now_s < self._counted_s + COUNTED_FOR_S:
            return False
        self._counted_s = now_s
        return True

    def take_report(self, worker: str) -> dict[str, Any] | None:
        """Why this worker was killed, if that was for memory; once."""
        return self._reports.pop(worker, None)

    def is_overgrown(self, worker: str) -> bool:
        """Whether the worker holds so much, and more than its task is promised, that it should not be used again."""
        pid, known = self._daemon.forks.pid_of(worker), self._daemon.agent.workers.get(worker)
        if not self._recycle_bytes or not pid or known is None:
            return False
        return private_bytes(pid) > max(self._recycle_bytes, _promised_bytes(known.lease))

    def given_back(self, worker: str) -> bool:
        """Whether a worker that its user gives back is to be replaced for its size. If it is young, somebody may be
        loading things again and again, and is told, once."""
        if not self.is_overgrown(worker):
            return False
        age_s = self._daemon.now_s() - self._daemon.agent.workers[worker].made_s
        if age_s < YOUNG_S and not self._has_told_of_young:
            self._has_told_of_young = True
            pid = self._daemon.forks.pid_of(worker)
            text = (
                f"worker {worker[:8]} (pid {pid}) is replaced when it is {age_s:.0f} s old, for it holds "
                f"{mib(private_bytes(pid))} with no task running, more than {mib(self._recycle_bytes)}; if its tasks keep "
                "that on purpose, give them as much memory= or raise UMBEL_WORKER_RECYCLE_BYTES"
            )
            self._daemon.hub.tell_drivers({"t": "warn", "text": text})
        return True


def _promised_bytes(lease: Lease | None) -> int:
    return lease.resources.get("memory", 0) // UNIT if lease is not None else 0


# ---- the system ----


def _pages(pid: int) -> tuple[int, int]:
    """(resident, those of files and shared memory)."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            fields = file.read(256).split()
        return int(fields[1]), int(fields[2])
    except (OSError, ValueError, IndexError):
        return 0, 0


def private_bytes(pid: int) -> int:
    """What a process holds without files and shared memory; 0 when it is gone. Pages that it has shared with the fork
    server since it was forked count."""
    resident, shared = _pages(pid)
    return (resident - shared) * PAGE_BYTES


def resident_bytes(pid: int) -> int:
    return _pages(pid)[0] * PAGE_BYTES


def proportional_bytes(pid: int) -> int:
    """PSS: what is shared counts in parts. Walks the process's page tables: a millisecond for each 100 MB."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as lines:
            for line in lines:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def descendants(pid: int) -> Iterable[int]:
    """The processes below this one, as far as its main threads have started them."""
    waiting, found = [pid], 0
    while waiting and found < DESCENDANTS_MAX:
        one = waiting.pop()
        try:
            with open(f"/proc/{one}/task/{one}/children", "rb") as file:
                children = [int(child) for child in file.read().split()]
        except (OSError, ValueError):
            continue
        for child in children:
            found += 1
            yield child
        waiting += children


def oom_kill_count(groups: Sequence[control_groups.Group] = (), vmstat: str = "/proc/vmstat") -> int:
    """How many processes the kernel has killed for their memory: of the outermost of these groups, or else since the
    machine started, whoever they belonged to."""
    paths = [f"{groups[-1].path}/{name}" for name in control_groups.EVENTS] if groups else []
    for path in (*paths, vmstat):
        with contextlib.suppress(OSError), open(path, "rb") as lines:
            for line in lines:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    return 0


def mib(size_bytes: float) -> str:
    return f"{size_bytes / MIB:.0f} MiB"


def in_words(report: Mapping[str, Any]) -> str:
    """Why a worker was killed, after "was killed: "."""
    if report.get("by_limit"):
        held, limit = mib(report["peak_bytes"]), mib(report["limit_bytes"])
        return f"it held {held}, and had asked for memory= of {limit}, to which UMBEL_MEMORY_ISOLATION holds it"
    if report.get("by_system"):
        return f"by the system, for want of memory; when last looked at, {_state(report)}"
    return f"memory ran short: {_state(report)}"


def _state(report: Mapping[str, Any]) -> str:
    first, last = report["curve"][0], report["curve"][-1]
    return (
        f"{report['source']} {mib(report['used_bytes'])} of {mib(report['limit_bytes'])}, allowed are "
        f"{mib(report['allowed_bytes'])}; this worker grew from {mib(first[1])} to {mib(report['resident_bytes'])} in "
        f"{last[0] - first[0]:.1f} s"
    )
