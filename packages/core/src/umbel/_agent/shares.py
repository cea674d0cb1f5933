"""Which job goes first where several want more than a node has. Pure.

Jobs of a higher priority go before all others. Among those of one priority it is who has least of the node: a job's *share* is
the largest part that it has of any resource, divided by its weight (dominant resource fairness: Ghodsi et al., NSDI 2011). Of
equal ones it is who has had least so far, so that jobs that are entitled to less than one lease take turns by their weights.

An owner keeps a lease while it has tasks for it, so who has more than others is asked for leases back, whose tasks end first: a
job gives to one that will have no more than itself after that, and to one that has nothing of what it waits for. Nothing of
this is computed while all that is wanted and held is of one job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from umbel._agent import fairness
from umbel._agent.events import Job
from umbel._agent.ledger import CPU, shown
from umbel._agent.records import Demand, Lease
from umbel._base import checks

_DIGITS = 9  # shares that differ by less are equal: they are sums of fractions
_Groups = dict[tuple[str, str], list[Lease]]


class Shares:
    """The jobs of which something waits or runs on a node, and what each has had."""

    __slots__ = ("_active", "_served", "_since_s", "_uses", "jobs")

    def __init__(self) -> None:
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
    """Who has how much of a node at one moment; or as it will be, where that is added."""

    __slots__ = ("_shares", "_total", "_used")

    def __init__(self, total: Mapping[str, int], shares: Shares) -> None:
        self._total = total
        self._shares = shares
        self._used: dict[str, dict[str, int]] = {}

    def add(self, job: Job, resources: Mapping[str, int]) -> None:
        used = self._used.setdefault(job.id, {})
        for name, amount in resources.items():
            used[name] = used.get(name, 0) + amount

    def add_lease(self, lease: Lease) -> None:
        """Of the node; one that waits for other tasks has lent its CPUs."""
        resources = lease.resources
        if lease.is_blocked:
            resources = {name: amount for name, amount in resources.items() if name != CPU}
        self.add(lease.job, resources)

    def remove(self, job: Job, resources: Mapping[str, int]) -> None:
        self.add(job, {name: -amount for name, amount in resources.items()})

    def used(self, job: Job, name: str) -> int:
        return self._used.get(job.id, {}).get(name, 0)

    def share(self, job: Job, change: Mapping[str, int] | None = None) -> float:
        """change: as it would be with so much more."""
        used = self._used.get(job.id, {})
        if change:
            used = {name: used.get(name, 0) + change.get(name, 0) for name in {*used, *change}}
        total = self._total
        parts = (amount / total[name] for name, amount in used.items() if total.get(name))
        return round(max(parts, default=0.0) / job.weight, _DIGITS)

    def rank(self, job: Job) -> tuple[int, float, float]:
        """The smallest goes first."""
        return -job.priority, self.share(job), self._shares.served(job)

    def must_give(self, lease: Lease, demand: Demand, missing: Mapping[str, int], *, has_any: bool) -> bool:
        """Whether a job gives this lease to a demand of another one that lacks this. has_any: whether that has a lease of
        the kind."""
        mine, other = lease.job, demand.job
        if mine.priority != other.priority:
            return mine.priority < other.priority
        before = self.share(mine)
        if not has_any and self.share(other) <= before:
            has_less = self.share(other) < before
            return has_less or not any(self.used(other, name) for name, amount in missing.items() if amount)
        after = self.share(mine, {name: -amount for name, amount in lease.resources.items()})
        gained = self.share(other, demand.resources)
        return gained <= after and gained < before

    def in_words(self, job: Job, needs: Mapping[str, int], missing: Iterable[str]) -> str:
        """Where it stands with what it lacks, as part of a sentence."""
        peers = [one for one in self._shares.jobs.values() if one.priority == job.priority]
        higher = [one for one in self._shares.jobs.values() if one.priority > job.priority]
        found = []
        for name in sorted(missing):
            total, has = self._total[name], self.used(job, name)
            above = sum(self.used(one, name) for one in higher)
            part = (total - above) * job.weight / sum(one.weight for one in peers) if peers else 0.0
            is_at = has + needs.get(name, 0) > part
            of = f"{shown(name, has)} of {shown(name, total)}"
            found.append(
                f"is at its share of {name}, {of}" if is_at else f"has {of} {name}, less than its share, and goes first"
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
    for lease in leases:
        if lease.is_reclaimed and not lease.is_blocked and not lease.keeps:
            standing.remove(lease.job, lease.resources)
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


def _from_others(
    demand: Demand, missing: dict[str, int], groups: _Groups, standing: Standing, *, has_any: bool
) -> list[Lease]:
    """All that is missing, or nothing; from whom should give first."""
    left, taken = dict(missing), list[Lease]()
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
