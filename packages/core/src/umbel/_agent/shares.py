"""Which job goes first where several want more than a node has. Pure.

Jobs of a higher priority go before all others. Among those of one priority it is who has least of the node: a job's *share* is
the largest part that it has of any resource, divided by its weight (dominant resource fairness: Ghodsi et al., NSDI 2011). Of
equal ones it is who has had least so far, so that jobs that are entitled to less than one lease take turns by their weights.

An owner keeps a lease while it has tasks for it, so who has more than others is asked for leases back, whose tasks end first: a
job gives to one that will have no more than itself after that, and to one that has nothing of what it waits for. What is on its
way back is expected in the order in which it will be given (`in_turn`), so that nobody is asked for what another one gets.
Nothing of this is computed while all that is wanted and held is of one job.

In a cluster shares are of all nodes together: what a job has here, and what the head has told that it has elsewhere
(`cluster_use`). As that goes by what others need, a job may have nothing on a node for long; whoever has waited there for
`STARVED_S` gets a lease all the same.
"""

from __future__ import annotations

import itertools
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
_Kinds = tuple[str, ...]  # names of resources
_Turn = tuple[int, bool, float, float]  # see `Standing.turn`


class Shares:
    """The jobs of which something waits or runs on a node, and what each has had. cluster: what all have of all nodes; None while
    nobody tells."""

    __slots__ = ("_active", "_had_s", "_served", "_since_s", "_uses", "cluster", "jobs")

    def __init__(self) -> None:
        self.cluster: cluster_use.ClusterUse | None = None
        self.jobs: dict[str, Job] = {}
        self._uses: dict[str, int] = {}  # by job, its demands and leases
        self._active: frozenset[str] = frozenset()  # of the jobs, when time last passed
        self._served: dict[str, float] = {}  # by job, its share times seconds
        self._had_s: dict[str, dict[str, float]] = {}  # by job and resource
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

    def tell(self, use: cluster_use.ClusterUse | None) -> None:
        """What all jobs have of all nodes; None while nobody tells. Who has had how much so far is of one or the other."""
        if (use is None) is not (self.cluster is None):
            self._served.clear()
            self._had_s.clear()
        self.cluster = use

    def elapse(self, at_s: float, standing_since: Callable[[], Standing]) -> None:
        """standing_since: as it was since this was called last. Who comes, or comes back, begins with no claim to what others got
        meanwhile."""
        passed_s = 0.0 if self._since_s is None else at_s - self._since_s
        self._since_s = at_s
        if passed_s:
            self._count(passed_s, standing_since())
        if self._uses.keys() == self._active:
            return
        active = frozenset(self._uses)
        for job_id in self._active - active:
            self._had_s.pop(job_id, None)
        for job_id in active - self._active:
            others = [self.served(one) for one in self._peers(job_id) if one.id in self._active]
            self._served[job_id] = max(self._served.get(job_id, 0.0), min(others, default=0.0))
        self._active = active
        least = min((self._served.get(job_id, 0.0) for job_id in active), default=0.0)
        for job_id in [one for one, served in self._served.items() if one not in active and served <= least]:
            del self._served[job_id]

    def _count(self, passed_s: float, standing: Standing) -> None:
        for job_id in self._active:
            job = self.jobs.get(job_id)
            if job is None:
                continue
            self._served[job_id] = self._served.get(job_id, 0.0) + passed_s * standing.share(job)
            if self.cluster is not None and self._since_s is not None:
                had_s = self._had_s.setdefault(job_id, {})
                for name, amount in standing.here(job).items():
                    if amount:
                        had_s[name] = self._since_s

    def _peers(self, job_id: str) -> Iterator[Job]:
        priority = self.jobs[job_id].priority
        return (one for one in self.jobs.values() if one.priority == priority and one.id != job_id)

    def had_s(self, job: Job) -> Mapping[str, float]:
        """When it had something of each resource last, in a cluster."""
        return self._had_s.get(job.id, {})

    def served(self, job: Job) -> float:
        return self._served.get(job.id, 0.0)

    def check(self, uses: Mapping[str, int]) -> None:
        """uses: by job, counted anew."""
        if self._uses != uses:
            raise checks.broken("what jobs want and hold was miscounted", counted=self._uses, are=uses)


class Standing:
    """Who has how much of a node, and of its cluster, at one moment; or as it will be, where that is added. Leases that were
    asked back are their holder's for as long as they run; after `settle` they are nobody's."""

    __slots__ = ("_at_s", "_cluster", "_given", "_leaving", "_own", "_parts", "_shares", "_total", "_turns")

    def __init__(self, total: Mapping[str, int], shares: Shares, at_s: float | None) -> None:
        """total: of the node. at_s: the moment; None if nobody is to go first for having waited for long."""
        self._at_s = at_s
        self._cluster = shares.cluster
        self._total = total if self._cluster is None else self._cluster.total
        self._shares = shares
        self._own: dict[str, dict[str, int]] = {}  # by job, without what is below
        self._leaving: dict[str, dict[str, int]] = {}  # of leases that were asked back
        self._given: dict[str, dict[str, int]] = {}  # once that is settled: the same, and what is asked back besides
        self._parts: dict[str, float] = {}  # by job, its share, while nothing of that changes
        self._turns: dict[str, dict[Demand, _Turn]] = {}  # by job, for as long

    def add(self, job: Job, resources: Mapping[str, int]) -> None:
        _add(self._own, job, resources)
        self._changed(job)

    def _changed(self, job: Job) -> None:
        self._parts.pop(job.id, None)
        self._turns.pop(job.id, None)

    def add_lease(self, lease: Lease) -> None:
        """Of the node; one that waits for other tasks has lent its CPUs."""
        resources = lease.resources
        if lease.is_blocked:
            resources = {name: amount for name, amount in resources.items() if name != CPU}
        _add(self._leaving if _comes_back(lease) else self._own, lease.job, resources)
        self._changed(lease.job)

    def remove(self, job: Job, resources: Mapping[str, int]) -> None:
        self.add(job, _less(resources))

    def settle(self) -> None:
        """What was asked back has come back."""
        if self._leaving:
            self._leaving, self._given = {}, self._leaving
            self._parts.clear()
            self._turns.clear()

    def ask_back(self, lease: Lease) -> None:
        self.remove(lease.job, lease.resources)
        _add(self._given, lease.job, lease.resources)

    def here(self, job: Job) -> Mapping[str, int]:
        """What it has of the node."""
        return _sum(self._own.get(job.id, {}), self._leaving.get(job.id))

    def used(self, job: Job, change: Mapping[str, int] | None = None) -> Mapping[str, int]:
        """What it has of the cluster, as far as is known here. change: as it would be with so much more of the node."""
        own = _sum(self._own.get(job.id, {}), change)
        return _sum(own if self._cluster is None else self._cluster.expected(job, own), self._leaving.get(job.id))

    def share(self, job: Job, change: Mapping[str, int] | None = None) -> float:
        """change: as above."""
        if change is not None:
            return self._share(job, change)
        share = self._parts.get(job.id)
        if share is None:
            share = self._parts[job.id] = self._share(job, None)
        return share

    def _share(self, job: Job, change: Mapping[str, int] | None) -> float:
        total, largest = self._total, 0.0
        for name, amount in self.used(job, change).items():
            of = total.get(name)
            if of and amount / of > largest:
                largest = amount / of
        return round(largest / job.weight, _DIGITS)

    def turn(self, demand: Demand) -> _Turn:
        """Of what waits here, the smallest goes first."""
        job = demand.job
        known = self._turns.get(job.id)
        if known is None:
            known = self._turns[job.id] = {}
        turn = known.get(demand)
        if turn is None:
            claim = self._claim(job, demand.kinds, None)
            turn = known[demand] = -job.priority, not self.is_starved(demand), claim, self._shares.served(job)
        return turn

    def _claim(self, job: Job, kinds: _Kinds, change: Mapping[str, int] | None) -> float:
        """The share by which it goes before others, or after them: none while it has nothing of one of these kinds."""
        return 0.0 if self._lacks(job, kinds, change) else self.share(job, change)

    def _lacks(self, job: Job, kinds: _Kinds, change: Mapping[str, int] | None) -> bool:
        """Whether it has nothing of one of these, here or elsewhere, by what was told, whatever is expected to become of it."""
        here, cluster = _sum(self.here(job), change), self._cluster
        return any(
            here.get(name, 0) <= 0 and not (cluster is not None and cluster.is_elsewhere(job, name)) for name in kinds
        )

    def is_starved(self, demand: Demand) -> bool:
        """Whether it has waited for too long on a node on which its job has nothing of the kind, whatever that has elsewhere."""
        since_s, at_s = demand.short_since_s, self._at_s
        if self._cluster is None or at_s is None or since_s is None or at_s < since_s + STARVED_S or demand.is_claim:
            return False
        here, had_s = self.here(demand.job), self._shares.had_s(demand.job)
        given = self._given.get(demand.job.id, {})
        for name, amount in demand.resources.items():
            if amount and (here.get(name) or given.get(name) or at_s < had_s.get(name, 0.0) + STARVED_S):
                return False
        return True

    def gives_first(self, lease: Lease) -> tuple[int, bool, float, float, bool]:
        """Of those that must be given, the largest is. Whoever would be left with nothing of the kind, which he could claim back
        at once, comes last of his priority."""
        job = lease.job
        has_more = not self._lacks(job, lease.kinds, _less(lease.resources))
        return -job.priority, has_more, self.share(job), self._shares.served(job), not lease.is_recycled

    def must_give(self, lease: Lease, demand: Demand) -> bool:
        """Whether a job gives this lease to a demand of another one. That is then before it in turn, so that it does not get the
        same lease again; and what was given in turn nobody takes, but who has nothing of the kind."""
        mine, other = lease.job, demand.job
        if mine.priority != other.priority:
            return mine.priority < other.priority
        if self.is_starved(demand):
            return True
        share = self.share(other)
        if share > self.share(mine):
            return False
        if self._lacks(other, demand.kinds, None):
            return True
        left = self._claim(mine, lease.kinds, _less(lease.resources))
        return share < left and self.share(other, demand.resources) <= left

    def told(self, asking: Mapping[str, Job]) -> dict[str, list[Any]]:
        """See the function."""
        here = {one: self.here(one) for one in {**asking, **self._shares.jobs}.values()}
        jobs = sorted(here, key=lambda one: -max(here[one].values(), default=0))
        return {
            one.id: [
                one.priority,
                one.weight,
                {name: amount for name, amount in here[one].items() if amount},
                int(one.id in asking),
            ]
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


def in_turn(demands: Iterable[Demand], standing: Standing, serve: Callable[[Demand], bool]) -> None:
    """Give one lease at a time to the job whose turn it is, until there is nobody left who can be given one. This is the one
    order in which leases are given, expected, and asked back for.

    demands: those of one job in their own order. serve: whether it could be given one. standing: becomes what it will be."""
    demands = list(demands)
    # By job and what is wanted, the next one last: its place, and how many are left of it.
    waiting: dict[tuple[str, _Kinds], list[tuple[int, Demand, int]]] = {}
    for place in reversed(range(len(demands))):
        demand = demands[place]
        waiting.setdefault((demand.job.id, demand.kinds), []).append((place, demand, demand.count))
    while waiting:
        of = next(iter(waiting))
        if len(waiting) > 1:
            first: tuple[_Turn, int] | None = None
            for one, queue in waiting.items():
                place, demand, _ = queue[-1]
                turn = standing.turn(demand), place
                if first is None or turn < first:
                    first, of = turn, one
        queue = waiting[of]
        place, demand, left = queue.pop()
        if serve(demand):
            standing.add(demand.job, demand.resources)
            if left > 1:
                queue.append((place, demand, left - 1))
        if not queue:
            del waiting[of]


def leases_to_reclaim(
    unserved: Iterable[Demand],
    leases: Iterable[Lease],
    missing_of: Callable[[Demand], dict[str, int]],
    standing: Standing,
) -> tuple[list[Lease], dict[Demand, int]]:
    """As `fairness.leases_to_reclaim`, but between jobs by the rule above, and for as many leases as a job is entitled to. What
    comes back in any case is given in turn, as it will be. standing: becomes what it will be. Within a job all is as ever.

    Returns how many leases each will be given, too."""
    groups, coming = fairness.grouped(leases)
    if not groups and not coming:
        return [], {one: 0 for one in unserved if missing_of(one)}  # who has it keeps it, as actors do
    standing.settle()
    chosen: list[Lease] = []
    gained: dict[Demand, int] = {}

    def take(demand: Demand) -> bool:
        if demand in gained:
            missing = {name: need for name, need in demand.resources.items() if need}
        else:
            missing = missing_of(demand)
            if not missing:
                return False  # what it waits for is nobody's
            gained[demand] = 0
        place = (demand.client, demand.key)
        own = len(groups.get(place, ())) + gained[demand]
        if coming:
            fairness.take_coming(missing, coming)
        taken = _from_others(demand, missing, groups, standing)
        if any(missing.values()) and not demand.is_claim:
            for other, group in groups.items():
                if other != place and group and group[0].job.id == demand.job.id:
                    taken += fairness.take_from(group, missing, own)
            if taken:  # less is missing than what nobody had to give for before
                taken += _from_others(demand, missing, groups, standing)
        chosen.extend(taken)
        for lease in taken:
            standing.ask_back(lease)
        if any(missing.values()):
            return False  # for the rest of it nobody has to give
        gained[demand] += 1
        return True

    in_turn(unserved, standing, take)
    return chosen, gained


def _comes_back(lease: Lease) -> bool:
    return lease.is_reclaimed and not lease.is_blocked and not lease.keeps


def _add(amounts: dict[str, dict[str, int]], job: Job, resources: Mapping[str, int]) -> None:
    known = amounts.setdefault(job.id, {})
    for name, amount in resources.items():
        known[name] = known.get(name, 0) + amount


def _sum(own: Mapping[str, int], more: Mapping[str, int] | None) -> Mapping[str, int]:
    if not more:
        return own
    total = dict(own)
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount
    return total


def _less(resources: Mapping[str, int]) -> dict[str, int]:
    return {name: -amount for name, amount in resources.items()}


def _from_others(demand: Demand, missing: dict[str, int], groups: _Groups, standing: Standing) -> list[Lease]:
    """All that is missing, or nothing; from whom should give first."""
    left, taken = dict(missing), list[Lease]()
    while any(left.values()):
        must: dict[tuple[str, int], bool] = {}  # by job and what a lease has
        givers = []
        for group in groups.values():
            for one in group:
                if one.job.id == demand.job.id:
                    break  # as all of this group
                of = (one.job.id, id(one.resources))
                if of not in must:
                    is_useful = any(left.get(name) and amount for name, amount in one.resources.items())
                    must[of] = is_useful and standing.must_give(one, demand)
                if must[of] and one not in taken:
                    givers.append(one)
        if not givers:
            break
        lease = max(givers, key=standing.gives_first) if len(givers) > 1 else givers[0]
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
    standing: Standing,
    leases: Iterable[Lease],
    waiting: Iterable[Demand],
    free: Mapping[str, int],
    asking: Mapping[str, Job],
) -> dict[str, list[Any]]:
    """What each job that wants or has something here will have once what was asked back has come, as [priority, weight, amounts,
    1 if it is one of those that ask other nodes for more, else 0] by id, for the head. What is on its way counts already: the
    others would have more given back for it meanwhile. What is given for a while to who has waited for long does not: the others
    would mend that.

    leases: of the node's own resources. waiting: what can be served, the first first. free: what nobody has. standing: becomes
    what is told."""
    standing.settle()
    left = dict(free)
    for lease in filter(_comes_back, leases):
        for name, amount in lease.resources.items():
            left[name] = left.get(name, 0) + amount

    looked = itertools.count(1)

    def take(demand: Demand) -> bool:
        if next(looked) > SETTLED_MAX or any(left.get(name, 0) < need for name, need in demand.resources.items()):
            return False
        for name, need in demand.resources.items():
            left[name] -= need
        return True

    if any(amount > 0 for amount in left.values()):
        in_turn((one for one in waiting if one.kinds), standing, take)
    return standing.told(asking)
