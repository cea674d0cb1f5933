"""The drivers of a cluster: which there are and were, how they are numbered, and how they ended."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

ENDED_KEPT_MAX = 1_000
NODE_GONE = "the node that it was connected to ended, or its control service did, while it ran"
RUNNING, SUCCEEDED, FAILED = "RUNNING", "SUCCEEDED", "FAILED"
TERMS: Mapping[str, Any] = {
    "priority": 0,
    "weight": 1.0,
    "preempt": False,
    "metadata": {},
}  # unless its driver says others


def job_id(number: int) -> str:
    return number.to_bytes(4, "little").hex()


class JobEnvironment:
    """What the workers of a job need to be like its driver, as that has said itself."""

    __slots__ = ("__weakref__", "facts", "id")

    def __init__(self, id: str, facts: Mapping[str, Any]) -> None:
        self.id = id
        self.facts = facts


class Job:
    """One driver's. environment: None where workers are the node's own, and when the job has ended."""

    __slots__ = (
        "driver", "ended_s", "entrypoint", "environment", "id", "message", "pid", "started_s", "status", "terms",
    )  # fmt: skip

    def __init__(self, id: str, driver: str, pid: int, facts: Mapping[str, Any] | None, at_s: float) -> None:
        self.id = id
        self.driver = driver
        self.pid = pid
        self.environment = JobEnvironment(id, facts) if facts is not None else None
        self.entrypoint = str(facts["entrypoint"]) if facts is not None else ""
        self.terms = {**TERMS, **{name: value for name, value in (facts or {}).items() if name in TERMS}}
        self.status = RUNNING
        self.message = ""
        self.started_s = at_s  # by the system's clock, as all times here
        self.ended_s: float | None = None


class Jobs:
    """All jobs, by the client that drives each; ended ones up to a number."""

    def __init__(self) -> None:
        self.count = 0  # so many there have been
        self.changed: dict[str, None] | None = None  # whose records are to be kept anew; None where nobody keeps any
        self._running: dict[str, Job] = {}
        self._ended: OrderedDict[str, Job] = OrderedDict()
        self._awaited: list[str] = []  # drivers that ran before, until it is known who lives

    def restore(self, kept: Iterable[Job], count: int) -> None:
        """Begin with what was kept of each, in the order in which they began, or have ended. count: as above."""
        self.count = count
        for job in kept:
            if job.ended_s is None:
                self._running[job.driver] = job
            else:
                self._ended[job.id] = job
        while len(self._ended) > ENDED_KEPT_MAX:
            self._forget_oldest()
        self._awaited = list(self._running)

    def recovered(self, processes: Collection[str], at_s: float) -> list[Job]:
        """Of the drivers that ran before, others than these are gone. Returns their jobs."""
        awaited, self._awaited = self._awaited, []
        ended = [self.gone(driver, at_s, NODE_GONE) for driver in awaited if driver not in processes]
        return [job for job in ended if job is not None]

    def record(self, job_id: str) -> Job | None:
        """What is to be kept of it; None for nothing."""
        if job_id in self._ended:
            return self._ended[job_id]
        return next((one for one in self._running.values() if one.id == job_id), None)

    def driver_of(self, job_id: str) -> str:
        """ "" when it has ended."""
        return next((one.driver for one in self._running.values() if one.id == job_id), "")

    def scheduling_of(self, job_id: str) -> list[Any]:
        """As `umbel._agent.events.Job`, in JSON."""
        job = self.record(job_id)
        terms = job.terms if job is not None else TERMS
        return [job_id, terms["priority"], terms["weight"], terms["preempt"]]

    @property
    def running_count(self) -> int:
        return len(self._running)

    def is_running(self, job_id: str) -> bool:
        return any(one.id == job_id for one in self._running.values())

    def _changes(self, job: Job) -> None:
        if self.changed is not None:
            self.changed[job.id] = None

    def _forget_oldest(self) -> None:
        _, job = self._ended.popitem(last=False)
        self._changes(job)

    def reserve(self, count: int) -> int:
        """So many numbers are given by somebody else: the first. Those of which nothing comes are never given again."""
        first = self.count + 1
        self.count += count
        return first

    def begin(self, driver: str, pid: int, facts: Mapping[str, Any] | None, at_s: float, reserved_id: str = "") -> Job:
        """reserved_id: of the job, where it was reserved. One that is known may be told again."""
        if reserved_id and (known := self._known(driver, reserved_id)) is not None:
            return known
        chosen = reserved_id or job_id(self.reserve(1))
        job = self._running[driver] = Job(chosen, driver, pid, facts, at_s)
        self._changes(job)
        return job

    def _known(self, driver: str, job_id: str) -> Job | None:
        running = self._running.get(driver)
        return running if running is not None and running.id == job_id else self._ended.get(job_id)

    def leaves(self, driver: str) -> None:
        """The driver says that it has done what it wanted, and is about to go."""
        if driver in self._running:
            self._running[driver].status = SUCCEEDED
            self._changes(self._running[driver])

    def gone(self, driver: str, at_s: float, why: str = "") -> Job | None:
        """The job that has ended with this process, if it drove one."""
        job = self._running.pop(driver, None)
        if job is None:
            return None
        job.ended_s = at_s
        job.environment = None  # actors that outlive the job have it
        if job.status == RUNNING:
            job.status = FAILED
            job.message = why or "its process ended, or its connection, without umbel.shutdown()"
        self._ended[job.id] = job
        self._changes(job)
        if len(self._ended) > ENDED_KEPT_MAX:
            self._forget_oldest()
        return job

    def listed(self) -> list[Job]:
        """Those that run first."""
        return [*self._running.values(), *self._ended.values()]
