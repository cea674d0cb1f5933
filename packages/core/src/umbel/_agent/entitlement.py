"""How much a job is entitled to that others have on nodes without room: as many leases are asked of those.

By the rule of `shares`: all that jobs of lower priority have, and what others of its own have beyond its share, as that is then.
What all have is what the head has told, with what this node has now. What was asked of nodes without room, and may not be in that
yet, counts as well. Where processes of a job wait on several nodes, each takes it that the others ask for as much as
itself, and a part of a lease is asked for by chance, as often. Whether it is given up its holder's node decides, so what is asked
for too much is asked for in vain. Loaded where the head tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel._agent.cluster_use import Amounts, ClusterUse, drawn
from umbel._agent.events import Job

if TYPE_CHECKING:
    from umbel._scheduling import forwarding


def may_ask(
    short: Sequence[tuple[Job, forwarding.Short]], cluster: ClusterUse, own: Mapping[str, list[Any]], at_s: float
) -> dict[tuple[str, str], int]:
    """By process and key, how many leases more nodes without room may be asked for. short: what waits on this node, with its job;
    those go first that are first. own: what this node's jobs have, as is told. at_s: each moment has a chance of its own."""
    holders = {**cluster.jobs, **{job_id: Job(job_id, one[0], one[1]) for job_id, one in own.items()}}
    used = cluster.known({job_id: one[2] for job_id, one in own.items()})
    claimed: dict[str, dict[str, int]] = {}
    for job, one in short:
        _add(claimed, job, one.resources, one.under_way)
    found = {}
    for job, one in short:
        askers = 1 + cluster.askers_elsewhere(job)
        most = more(job, one.resources, one.waiting * askers, holders, used, cluster.total, claimed.get(job.id, {}))
        chance = drawn(f"{one.client} {one.key} {at_s:.3f}")
        count = min(one.waiting, int(most / askers + chance) if most % askers else most // askers)
        if count:
            found[one.client, one.key] = count
            _add(claimed, job, one.resources, count * askers)
    return found


def more(
    job: Job,
    resources: Amounts,
    most: int,
    holders: Mapping[str, Job],
    used: Mapping[str, Amounts],
    total: Amounts,
    claimed: Amounts,
) -> int:
    """How many leases others have to give up for a job, up to `most`. claimed: beside those."""
    fewest = 0  # so many are
    while fewest < most:
        count = (fewest + most + 1) // 2
        wanted = {name: count * amount + claimed.get(name, 0) for name, amount in resources.items() if amount}
        if _is_given(job, wanted, holders, used, total):
            fewest = count
        else:
            most = count - 1
    return fewest


def _is_given(
    job: Job, wanted: Amounts, holders: Mapping[str, Job], used: Mapping[str, Amounts], total: Amounts
) -> bool:
    has = used.get(job.id, {})
    share = _share({**has, **{name: has.get(name, 0) + amount for name, amount in wanted.items()}}, job, total)
    others = [(other, used.get(other.id, {})) for other in holders.values() if other.id != job.id]
    is_any = False
    for name, amount in wanted.items():
        given, free = 0.0, total.get(name, 0) - has.get(name, 0)
        for other, theirs in others:
            free -= theirs.get(name, 0)
            if other.priority < job.priority:
                given += theirs.get(name, 0)
            elif other.priority == job.priority and (its := _share(theirs, other, total)) > share:
                given += theirs.get(name, 0) * (1 - share / its)
        is_any |= given >= 1  # amounts are whole
        if given + max(0, free) + 1 < amount:
            return False
    return is_any  # what is free in all does not help where nobody gives up the rest


def _share(amounts: Amounts, job: Job, total: Amounts) -> float:
    return max((amount / total[name] for name, amount in amounts.items() if total.get(name)), default=0.0) / job.weight


def _add(claimed: dict[str, dict[str, int]], job: Job, resources: Amounts, count: int) -> None:
    known = claimed.setdefault(job.id, {})
    for name, amount in resources.items():
        known[name] = known.get(name, 0) + count * amount
