"""Holds workers to their `memory=` by control groups, where the daemon may make some.

The worker of a lease that asks for memory is put into a group of its own, with that limit, before it is given away; a
lease that asks for none lifts it. The system kills what exceeds its limit, nothing else. Groups lie in one for the
session, whose path is noted in the session's directory, so that whoever clears that up removes them too.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from umbel._base import control_groups, sessions

_PEAKS = ("memory.peak", "memory.max_usage_in_bytes")
_NO_LIMIT = {"memory.max": "max"}  # version 1: -1
REPORTS_MAX = 1_000  # of kills that nobody has asked for


class Isolation:
    """`refusal`: why this session's workers cannot be held to their memory; "" if they can."""

    def __init__(self, setting: str, session_dir: str) -> None:
        """setting: the directory of a control group that this process may use, or "1" for its own."""
        self.refusal = ""
        self._limits: dict[str, int] = {}
        self._reports: dict[str, dict[str, Any]] = {}
        tried = []
        for kind in _candidates(setting):
            path = os.path.join(kind.path, f"umbel-{os.path.basename(session_dir)}")
            try:
                self._make(kind, path, session_dir)
            except OSError as error:
                tried.append(f"{kind.path}: {error.strerror}")
                continue
            self._kind = kind.at(path)
            return
        self.refusal = (
            "UMBEL_MEMORY_ISOLATION is set, but this process may not make control groups that limit memory "
            f"({'; '.join(tried) or 'there are none'}); memory= stays a promise that nothing enforces. Start in a "
            "delegated group (systemd-run --user -p Delegate=yes), name one that has no processes, or unset the variable"
        )

    @staticmethod
    def _make(kind: control_groups.Group, path: str, session_dir: str) -> None:
        with open(os.path.join(session_dir, sessions.GROUP_FILE), "w") as file:
            file.write(path)
        _delegate(kind.path)
        os.mkdir(path)
        try:
            _delegate(path)
            probe = os.path.join(path, "probe")
            os.mkdir(probe)
            try:
                _write(probe, kind.limit, str(1 << 30))
            finally:
                os.rmdir(probe)
        except OSError:
            os.rmdir(path)
            raise

    def confine(self, worker: str, pid: int, limit_bytes: int) -> None:
        """Before the worker is given away. limit_bytes: 0 for none. Raises OSError when the system refuses."""
        if not pid or self.refusal or (not limit_bytes and worker not in self._limits):
            return
        path = self._path(worker)
        if worker not in self._limits:
            os.mkdir(path)
        self._limits[worker] = limit_bytes
        _write(path, self._kind.limit, str(limit_bytes) if limit_bytes else _NO_LIMIT.get(self._kind.limit, "-1"))
        _write(path, "cgroup.procs", str(pid))

    def exited(self, worker: str, pid: int) -> None:
        """The worker's process is gone: removes its group, and notes whether its limit was what killed it."""
        limit = self._limits.pop(worker, None)
        if limit is None:
            return
        path = self._path(worker)
        if limit and _number_in(path, control_groups.EVENTS, "oom_kill") and len(self._reports) < REPORTS_MAX:
            self._reports[worker] = _report(worker, pid, limit, _number_in(path, _PEAKS) or limit)
        with contextlib.suppress(OSError):  # what the worker has started may live on in it
            os.rmdir(path)

    def take_report(self, worker: str) -> dict[str, Any] | None:
        """What is told of a worker that its limit has killed, as of those in `shortage`; once."""
        return self._reports.pop(worker, None)

    def _path(self, worker: str) -> str:
        return os.path.join(self._kind.path, worker)


def _report(worker: str, pid: int, limit: int, peak: int) -> dict[str, Any]:
    return {
        "source": "it held", "used_bytes": peak, "limit_bytes": limit, "allowed_bytes": limit, "worker": worker,
        "pid": pid, "resident_bytes": peak, "peak_bytes": peak, "growth_bytes": peak, "demand_bytes": limit,
        "alone": False, "curve": [[0.0, peak]], "others": [], "outside_bytes": 0, "by_limit": True,
    }  # fmt: skip


def _candidates(setting: str) -> list[control_groups.Group]:
    if os.path.isabs(setting):
        return [kind.at(setting) for kind in control_groups.GROUP_VERSIONS if _has(setting, kind)]
    return control_groups.own_groups()


def _has(path: str, kind: control_groups.Group) -> bool:
    """Whether a directory is a control group of this version."""
    is_first = os.path.exists(os.path.join(path, "cgroup.subtree_control"))
    return is_first == (kind.limit == "memory.max")


def _delegate(path: str) -> None:
    """In version 2 a group must say that those below it may limit memory, which one with processes may not."""
    if os.path.exists(os.path.join(path, "cgroup.subtree_control")):
        _write(path, "cgroup.subtree_control", "+memory")


def _write(path: str, name: str, text: str) -> None:
    with open(os.path.join(path, name), "w") as file:
        file.write(text)


def _number_in(path: str, names: tuple[str, ...], line: str = "") -> int:
    """The number in the first of these files that there is, or behind `line` in it."""
    for name in names:
        with contextlib.suppress(OSError, ValueError), open(os.path.join(path, name)) as file:
            for text in file:
                words = text.split()
                if not line or words[0] == line:
                    return int(words[-1])
    return 0
