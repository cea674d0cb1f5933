"""Which job goes first where several want more than a node has. Pure.

Jobs of a higher priority go before all others. Among those of one priority it is who has least of the node: a job's *share* is
the largest part that it has of any resource, divided by its weight (dominant resource fairness: Ghodsi et al., NSDI 2011). Of
equal ones it is who has had least so far, so that jobs that are entitled to less than one lease take turns by their weights.

An owner keeps a lease while it has tasks for it, so who has more than others is asked for leases back, whose tasks end first: a
job gives to one that will have no more than itself after that, and to one that has nothing of what it waits for. Nothing of
this is computed while all that is wanted and held is of one job.

In a cluster shares are of all nodes together: what a job has here, and what the head has told that it has elsewhere
(`cluster_use`). As that goes by what others need, a job may have nothing on a node for long; whoever has waited there for
`STARVED_S` gets a lease all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from umbel._agent import fairness
from umbel._agent.events import Job
from umbel._agent.ledger import CPU, shown
from umbel._agent.records import Demand, Lease
from umbel._base import checks

if TYPE_CHECKING:
    from umbel._agent import cluster_use

STARVED_S = 5.0  # twice as long as it takes until all nodes know of a change; tasks of one job may wait for one here
JOBS_TOLD_MAX = 100  # of a node, those that have most there; each takes some 60 bytes of a heartbeat
SETTLED_MAX = 1_000  # leases that are looked ahead; a node has fewer CPUs
_DIGITS = 9  # shares that differ by less are equal: they are sums of fractions
_Groups = dict[tuple[str, str], list[Lease]]


class Shares:
    """The jobs of which something waits or runs on a node, and what each has had. cluster: what all have of all nodes; None while
    nobody tells."""

    __slots__ = ("_active", "_served", "_since_s", "_uses", "cluster", "jobs")

    def __init__(self) -> None:
        self.cluster: cluster_use.ClusterUse | None = None
        self.jobs: dict[str, Job] = {}
        self._uses: dict[str, int] = {}  # by job, its demands and leases
        self._active: frozenset[str] = frozenset()  # of the jobs, when time last passed
        self._served: dict[str, float] = {}  # by job, its share times seconds
        self._since_s: float | None = None

    @property
    def is_shared(self) -> bool:
        """Whether there are several jobs."""
        return len(self._uses) > 1

    def begins(self, job: Job) -> None:
        """Something of it waits, or has got something."""
        if not job.id:
            return
        if job.id in self._uses:
            self._uses[job.id] += 1
        else:
            self._uses[job.id] = 1
            self.jobs[job.id] = job
            if len(self._uses) == 2:
                self._since_s = None  # until now nobody counted

    def ends(self, job: Job) -> None:
        """The same, no more."""
        if not job.id:
            return
        left = self._uses[job.id] - 1
        if left:
            self._uses[job.id] = left
        else:
            del self._uses[job.id], self.jobs[job.id]

    def elapse(self, at_s: float, standing: Standing) -> None:
        """standing: as it was since this was called last. Who comes, or comes back, begins with no claim to what others got
        meanwhile."""
        passed_s = 0.0 if self._since_s is None else at_s - self._since_s
        self._since_s = at_s
        for job_id in self._active:
            job = self.jobs.get(job_id)
            if job is not None:
                self._served[job_id] = self._served.get(job_id, 0.0) + passed_s * standing.share(job)
        active = frozenset(self._uses)
        for job_id in active - self._active:
            others = [self._served[one] for one in self._peers(job_id) if one in self._active]
            self._served[job_id] = max(self._served.get(job_id, 0.0), min(others, default=0.0))
        self._active = active
        least = min((self._served[job_id] for job_id in active), default=0.0)
        for job_id in [one for one, served in self._served.items() if one not in active and served <= least]:
            del self._served[job_id]

    def _peers(self, job_id: str) -> Iterator[str]:
        priority = self.jobs[job_id].priority
        return (one.id for one in self.jobs.values() if one.priority == priority and one.id != job_id)

    def served(self, job: Job) -> float:
        return self._served.get(job.id, 0.0)

    def check(self, uses: Mapping[str, int]) -> None:
        """uses: by job, counted anew."""
        checks.invariant(self._uses == uses, "what jobs want and hold was miscounted", counted=self._uses, are=uses)


class Standing:
    """Who has how much of a node, and of its cluster, at one moment; or as it will be, where that is added. is_settled: leases
    that were asked back are nobody's any more. In a cluster that is always so: by the next news their holder may be the one
    who is to get some, and is not to be passed over for what it will not have."""

    __slots__ = ("_at_s", "_cluster", "_leaving", "_own", "_shares", "_total", "is_settled")

    def __init__(self, total: Mapping[str, int], shares: Shares, at_s: float) -> None:
        """total: of the node. at_s: the moment."""
        self._at_s = at_s
        self._cluster = shares.cluster
        self.is_settled = self._cluster is not None
        self._leaving: set[tuple[str, str]] = (
            set()
        )  # jobs, with the resources of leases that are nobody's but still run
        self._total = total if self._cluster is None else self._cluster.total
        self._shares = shares
        self._own: dict[str, dict[str, int]] = {}

    def add(self, job: Job, resources: Mapping[str, int]) -> None:
        own = self._own.setdefault(job.id, {})
        for name, amount in resources.items():
            own[name] = own.get(name, 0) + amount

    def add_lease(self, lease: Lease) -> None:
        """Of the node; one that waits for other tasks has lent its CPUs."""
        if self.is_settled and _comes_back(lease):
            self._leaving.update((lease.job.id, name) for name in lease.resources)
            return
        resources = lease.resources
        if lease.is_blocked:
            resources = {name: amount for name, amount in resources.items() if name != CPU}
        self.add(lease.job, resources)

    def remove(self, job: Job, resources: Mapping[str, int]) -> None:
        self.add(job, {name: -amount for name, amount in resources.items()})

    def own(self, job: Job) -> Mapping[str, int]:
        """What it has of the node."""
        return self._own.get(job.id, {})

    def used(self, job: Job, change: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """What it has of the cluster, as far as is known here. change: as it would be with so much more of the node."""
        own = self.own(job)
        if change:
            own = {name: own.get(name, 0) + change.get(name, 0) for name in {*own, *change}}
        return own if self._cluster is None else self._cluster.expected(job, own)

    def share(self, job: Job, change: Mapping[str, int] | None = None) -> float:
        """change: as above."""
        total = self._total
        parts = (amount / total[name] for name, amount in self.used(job, change).items() if total.get(name))
        return round(max(parts, default=0.0) / job.weight, _DIGITS)

    def rank(self, job: Job) -> tuple[int, float, float]:
        """The smallest goes first."""
        return -job.priority, self.share(job), self._shares.served(job)

    def turn(self, demand: Demand) -> tuple[int, bool, float, float]:
        """The same of what waits here."""
        priority, share, served = self.rank(demand.job)
        return priority, not self.is_starved(demand), share, served

    def is_starved(self, demand: Demand) -> bool:
        """Whether it has waited for too long on a node on which its job has nothing of the kind, whatever that has elsewhere."""
        short_s = demand.short_since_s
        if self._cluster is None or short_s is None or self._at_s < short_s + STARVED_S:
            return False
        job, own = demand.job, self.own(demand.job)
        wanted = [name for name, amount in demand.resources.items() if amount]
        return not any(own.get(name) or (job.id, name) in self._leaving for name in wanted)

    def _has(self, job: Job, name: str) -> bool:
        """Whether it has any of that, here or elsewhere; by what was told, not by what is expected to become of it."""
        return bool(self.own(job).get(name)) or (self._cluster is not None and self._cluster.is_elsewhere(job, name))

    def has_more(self, lease: Lease) -> bool:
        """Whether its job would not be left with nothing of the kind, which it could claim back at once."""
        left = self.used(lease.job, {name: -amount for name, amount in lease.resources.items()})
        return any(left.get(name) for name, amount in lease.resources.items() if amount)

    def must_give(self, lease: Lease, demand: Demand, missing: Mapping[str, int], *, has_any: bool) -> bool:
        """Whether a job gives this lease to a demand of another one that lacks this. has_any: whether that has a lease of
        the kind."""
        mine, other = lease.job, demand.job
        if mine.priority != other.priority:
            return mine.priority < other.priority
        if self.is_starved(demand):
            return True
        before = self.share(mine)
        has_kind = any(self._has(other, name) for name, amount in missing.items() if amount)
        is_new = not has_any and not (has_kind and self._cluster is not None)  # elsewhere counts as well
        if is_new and self.share(other) <= before:
            return self.share(other) < before or not has_kind
        after = self.share(mine, {name: -amount for name, amount in lease.resources.items()})
        gained = self.share(other, demand.resources)
        return gained <= after and gained < before

    def told(self) -> dict[str, list[Any]]:
        """See the function."""
        jobs = sorted(self._shares.jobs.values(), key=lambda one: -max(self.own(one).values(), default=0))
        return {
            one.id: [one.priority, one.weight, {name: amount for name, amount in self.own(one).items() if amount}]
            for one in jobs[:JOBS_TOLD_MAX]
        }

    def in_words(self, job: Job, needs: Mapping[str, int], missing: Iterable[str]) -> str:
        """Where it stands with what it lacks, as part of a sentence."""
        cluster = self._cluster
        jobs = self._shares.jobs if cluster is None else {**cluster.jobs, **self._shares.jobs}
        peers = [one for one in jobs.values() if one.priority == job.priority]
        higher = [one for one in jobs.values() if one.priority > job.priority]
        found = []
        for name in sorted(missing):
            total, has = self._total.get(name, 0), self.used(job).get(name, 0)
            above = sum(self.used(one).get(name, 0) for one in higher)
            part = (total - above) * job.weight / sum(one.weight for one in peers) if peers else 0.0
            is_at = has + needs.get(name, 0) > part
            of = f"{shown(name, has)} of {shown(name, total)}"
            where = "" if cluster is None else " in the cluster"
            found.append(
                f"is at its share of {name}, {of}{where}"
                if is_at
                else f"has {of} {name}{where}, less than its share, and goes first"
            )
        text = f"job {job.id} " + " and ".join(found)
        if higher:
            text += f"; before it come jobs of higher priority ({', '.join(sorted(one.id for one in higher))})"
        elif len(peers) > 1:
            weights = sum(one.weight for one in peers)
            text += (
                f", beside {len(peers) - 1} other{'s' if len(peers) > 2 else ''} (weight {job.weight:g} of {weights:g})"
            )
        return text


def leases_to_reclaim(
    unserved: Iterable[Demand],
    leases: Iterable[Lease],
    missing_of: Callable[[Demand], dict[str, int]],
    standing: Standing,
) -> list[Lease]:
    """As `fairness.leases_to_reclaim`, but between jobs by the rule above, and for as many leases as a job is entitled to.
    standing: becomes what it will be. Within a job all is as ever."""
    leases = list(leases)
    groups, coming = fairness.grouped(leases)
    _settle(standing, leases)
    chosen: list[Lease] = []
    for demand in unserved:
        missing = missing_of(demand)
        held = len(groups.get((demand.client, demand.key), ()))
        for own in range(held, held + demand.count if missing else 0):
            fairness.take_coming(missing, coming)
            taken = []
            for place, group in groups.items():
                if place != (demand.client, demand.key) and group and group[0].job.id == demand.job.id:
                    taken += fairness.take_from(group, missing, own)
            taken += _from_others(demand, missing, groups, standing, has_any=own > 0)
            chosen += taken
            for lease in taken:
                standing.remove(lease.job, lease.resources)
            if any(missing.values()):
                break  # for the rest of it nobody has to give
            standing.add(demand.job, demand.resources)
            missing = {name: need for name, need in demand.resources.items() if need}
    return chosen


def _settle(standing: Standing, leases: Iterable[Lease]) -> None:
    """Count no more what was asked back."""
    if not standing.is_settled:
        for lease in filter(_comes_back, leases):
            standing.remove(lease.job, lease.resources)


def _comes_back(lease: Lease) -> bool:
    return lease.is_reclaimed and not lease.is_blocked and not lease.keeps


def _from_others(
    demand: Demand, missing: dict[str, int], groups: _Groups, standing: Standing, *, has_any: bool
) -> list[Lease]:
    """All that is missing, or nothing; from whom should give first."""
    left, taken = dict(missing), list[Lease]()
    is_starved = standing.is_starved(demand)
    while any(left.values()):
        givers = [
            one
            for group in groups.values()
            for one in group
            if one.job.id != demand.job.id
            and one not in taken
            and any(left.get(name) and amount for name, amount in one.resources.items())
            and standing.must_give(one, demand, left, has_any=has_any)
        ]
        if not givers:
            break
        if is_starved:
            givers = [one for one in givers if standing.has_more(one)] or givers
        lease = max(givers, key=lambda one: (standing.rank(one.job), not one.is_recycled))
        taken.append(lease)
        standing.remove(lease.job, lease.resources)
        for name, amount in left.items():
            left[name] = max(0, amount - lease.resources.get(name, 0))
    for lease in taken:
        standing.add(lease.job, lease.resources)
    if any(left.values()):
        return []
    for lease in taken:
        groups[lease.client, lease.key].remove(lease)
    missing.update(left)
    return taken


def told(
    standing: Standing, leases: Iterable[Lease], waiting: Iterable[Demand], free: Mapping[str, int]
) -> dict[str, list[Any]]:
    """What each job that wants or has something here will have once what was asked back has come, as [priority, weight, amounts]
    by id, for the head. What is on its way counts already: the others would have more given back for it meanwhile.

    leases: of the node's own resources. waiting: what can be served, the first first. free: what nobody has. standing: becomes
    what is told."""
    leases = list(leases)
    _settle(standing, leases)
    left = dict(free)
    for lease in filter(_comes_back, leases):
        for name, amount in lease.resources.items():
            left[name] = left.get(name, 0) + amount
    counts = {demand: demand.count for demand in waiting if any(demand.resources.values())}
    for _ in range(SETTLED_MAX):
        able = [one for one in counts if all(left.get(name, 0) >= need for name, need in one.resources.items())]
        if not able:
            break
        demand = min(able, key=lambda one: standing.rank(one.job))
        standing.add(demand.job, demand.resources)
        for name, need in demand.resources.items():
            left[name] -= need
        counts[demand] -= 1
        if not counts[demand]:
            del counts[demand]
    return standing.told()
