"""Workers that are like their driver: on a node that outlives its drivers, each job has fork servers and workers of its own.

Which jobs there are is the control service's business; here is what they mean for this node. An environment, as it
travels inside the daemon, names its job by "job"; nothing outside sees that.
"""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from umbel._agent import events as ev

FACTS_BYTES_MAX = 60_000  # they go to the fork server in one datagram with the environment, of which Linux takes 200 kB


class NodeJobs:
    """What this node knows of jobs whose drivers are not the ones that started it."""

    def __init__(self, version: str) -> None:
        """version: of Umbel, here."""
        self._version = version
        # As long as a driver or an actor, here or in the actor table, holds on to it.
        self._environments: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._running: set[str] = set()
        self._of_workers: dict[str, str] = {}

    def refusal(self, facts: Mapping[str, Any] | None) -> str:
        """Why a driver cannot have a job here, or ""."""
        if facts is None:
            return (
                "this node outlives its drivers, so a driver must say what its workers are to be like; it said nothing"
            )
        if facts.get("version") != self._version:
            return (
                f"this node runs Umbel {self._version or 'of unknown version'}, the driver {facts.get('version')!r}; "
                "install the same version on both sides"
            )
        for name, (is_right, wanted) in _TERMS.items():
            if name in facts and not is_right(facts[name]):
                return f"the driver's {name} must be {wanted}, got {facts.get(name)!r:.100}"
        size = len(json.dumps(facts))
        if size > FACTS_BYTES_MAX:
            return (
                f"the driver's sys.path, environment variables and logging take {size} bytes as JSON, allowed are "
                f"{FACTS_BYTES_MAX}; pass large values by file or as arguments"
            )
        return ""

    def began(self, environment: Any) -> None:
        """environment: `umbel._control.jobs.JobEnvironment`."""
        self._environments[environment.id] = environment
        self._running.add(environment.id)

    def knows(self, environment: Any) -> None:
        """Of a job that ended before this node began, and has actors."""
        self._environments[environment.id] = environment

    def ended(self, job_id: str) -> None:
        self._running.discard(job_id)

    def environment(self, job_id: str) -> Any:
        """None if it is not known any more: then nobody needs it."""
        return self._environments.get(job_id)

    def terms(self, job_id: str) -> ev.Job:
        """What its work is scheduled by here."""
        known = self._environments.get(job_id)
        facts = known.facts if known is not None else {}
        return ev.Job(
            cluster_wide(job_id), facts.get("priority", 0), facts.get("weight", 1.0), facts.get("preempt", False)
        )

    def is_running(self, env: str) -> bool:
        """Whether the job of an environment, as canonical text, has its driver."""
        return json.loads(env)["job"] in self._running

    def starts(self, worker: str, env: dict[str, Any]) -> dict[str, Any] | None:
        """A worker is started: what its fork server, which is its job's, has to be told."""
        self._of_workers[worker] = env.pop("job")
        return env or None

    def job_of(self, worker: str) -> str:
        return self._of_workers.get(worker, "")

    def exited(self, worker: str) -> None:
        self._of_workers.pop(worker, None)

    def configuration(self, job: str) -> dict[str, Any]:
        """What replaces the node's configuration for a fork server of this job, which is named as all nodes know it."""
        known = (one for id, one in self._environments.items() if cluster_wide(id) == job)
        environment = next(known, None)
        facts = environment.facts if environment is not None else {}
        return {**facts, "job_id": job}


def cluster_wide(job_id: str) -> str:
    """As all nodes know the job. To a node that leases workers for it, one of another node's is also known by where it is from,
    see `lease_sharing`."""
    return job_id.partition("@")[0]


def _is_weight(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0


def _is_priority(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_TERMS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "priority": (_is_priority, "an integer"),
    "weight": (_is_weight, "a finite number > 0"),
    "metadata": (lambda value: isinstance(value, dict), "an object"),
    "preempt": (lambda value: isinstance(value, bool), "true or false"),
}
