"""Jobs of drivers on other nodes, of which a node has workers: who has told of them, and where their output goes.

A job is known on other nodes by its number and its node's tag, `number@tag`. It is known here as long as a node that has told of
it is connected, or a process of it is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from umbel._base import nodes

if TYPE_CHECKING:
    from umbel._agent import lease_links
    from umbel._agent.jobs import NodeJobs

Message = dict[str, Any]


class GuestJob:
    """What the workers of another node's job need, as `umbel._control.jobs.JobEnvironment`."""

    __slots__ = ("__weakref__", "facts", "id")

    def __init__(self, id: str, facts: Mapping[str, Any]) -> None:
        self.id = id
        self.facts = facts


class LeaseJobs:
    def __init__(self, jobs: NodeJobs, own_tag: str) -> None:
        self.links: lease_links.LeaseLinks  # once there is another node
        self._jobs = jobs
        self._own_tag = own_tag
        self._holders: dict[str, set[lease_links.Lessee]] = {}  # by job of another node, who has told of it

    def on_wire(self, job: str) -> str:
        return job if "@" in job else f"{job}@{self._own_tag}"

    def here(self, job: str) -> str:
        """By how it is known on the wire."""
        return job.removesuffix(f"@{self._own_tag}")

    def is_known(self, job: str) -> bool:
        return self._jobs.environment(job) is not None

    def facts_of(self, job: str) -> Any:
        environment = self._jobs.environment(self.here(job))
        return environment.facts if environment is not None else {}

    # ---- who has told of them ----

    def told(self, lessee: lease_links.Lessee, job: str, facts: Message) -> None:
        if "@" not in job:
            return  # of a driver of this node, which knows it
        refusal = self._jobs.refusal(facts)
        if refusal:
            lessee.jobs[job] = refusal
            return
        known = self._jobs.environment(job) or GuestJob(job, facts)
        lessee.jobs[job] = known  # it is forgotten with the last one that holds on to it
        self._holders.setdefault(job, set()).add(lessee)
        self._jobs.began(known)

    def told_over(self, lessee: lease_links.Lessee, job: str) -> None:
        if job.partition("@")[2] == nodes.tag_of_node(lessee.node).hex():
            self._end(job)  # who knows it from elsewhere still may have it from here
        else:
            self._drop(lessee, job)

    def lessee_gone(self, lessee: lease_links.Lessee) -> None:
        for job in [*lessee.jobs]:
            self._drop(lessee, job)

    def node_died(self, node: str) -> None:
        tag = nodes.tag_of_node(node).hex()
        for job in [job for job in self._holders if job.endswith(f"@{tag}")]:
            self._end(job)

    def _drop(self, lessee: lease_links.Lessee, job: str) -> None:
        lessee.jobs.pop(job, None)
        holders = self._holders.get(job)
        if holders is not None:
            holders.discard(lessee)
            if not holders:
                self._end(job)

    def _end(self, job: str) -> None:
        for lessee in self._holders.pop(job, ()):
            lessee.jobs.pop(job, None)
        self._jobs.ended(job)
        self.links.job_over(job)

    # ---- output ----

    def send_lines(self, job: str, message: Message, *, is_relayed: bool) -> None:
        """Output of a worker of another node's job whose driver is not known, to the node from which the job is known, or by way
        of one that knows it from there. is_relayed: it has come by another node itself."""
        holders = self._holders.get(job, set())
        at_home = [one for one in holders if nodes.tag_of_node(one.node).hex() == job.partition("@")[2]]
        for lessee in at_home or ([] if is_relayed else [*holders][:1]):
            lessee.send_lines(message, self.on_wire(job))

    def has_holder(self, job: str) -> bool:
        return job in self._holders
