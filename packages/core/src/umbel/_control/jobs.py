"""The drivers of a cluster: which there are and were, how they are numbered, and how they ended."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

ENDED_KEPT_MAX = 1_000
RUNNING, SUCCEEDED, FAILED = "RUNNING", "SUCCEEDED", "FAILED"


class JobEnvironment:
    """What the workers of a job need to be like its driver, as that has said itself."""

    __slots__ = ("__weakref__", "facts", "id")

    def __init__(self, id: str, facts: Mapping[str, Any]) -> None:
        self.id = id
        self.facts = facts


class Job:
    """One driver's. environment: None where workers are the node's own, and when the job has ended."""

    __slots__ = ("driver", "ended_s", "entrypoint", "environment", "id", "message", "pid", "started_s", "status")

    def __init__(self, id: str, driver: str, pid: int, facts: Mapping[str, Any] | None, at_s: float) -> None:
        self.id = id
        self.driver = driver
        self.pid = pid
        self.environment = JobEnvironment(id, facts) if facts is not None else None
        self.entrypoint = str(facts["entrypoint"]) if facts is not None else ""
        self.status = RUNNING
        self.message = ""
        self.started_s = at_s  # by the system's clock, as all times here
        self.ended_s: float | None = None


class Jobs:
    """All jobs, by the client that drives each; ended ones up to a number."""

    def __init__(self) -> None:
        self._count = 0
        self._running: dict[str, Job] = {}
        self._ended: OrderedDict[str, Job] = OrderedDict()

    def begin(self, driver: str, pid: int, facts: Mapping[str, Any] | None, at_s: float) -> Job:
        self._count += 1
        job = self._running[driver] = Job(self._count.to_bytes(4, "little").hex(), driver, pid, facts, at_s)
        return job

    def leaves(self, driver: str) -> None:
        """The driver says that it has done what it wanted, and is about to go."""
        if driver in self._running:
            self._running[driver].status = SUCCEEDED

    def gone(self, driver: str, at_s: float) -> None:
        job = self._running.pop(driver, None)
        if job is None:
            return
        job.ended_s = at_s
        job.environment = None  # actors that outlive the job have it
        if job.status == RUNNING:
            job.status = FAILED
            job.message = "its process ended, or its connection, without umbel.shutdown()"
        self._ended[job.id] = job
        if len(self._ended) > ENDED_KEPT_MAX:
            self._ended.popitem(last=False)

    def listed(self) -> list[Job]:
        """Those that run first."""
        return [*self._running.values(), *self._ended.values()]
