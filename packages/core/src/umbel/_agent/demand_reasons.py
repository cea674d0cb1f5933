"""Why a node's demands wait, in words: for `umbel explain`, listings and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from umbel._agent import bundles, load, shares
from umbel._agent.builds import Builds
from umbel._agent.demand_table import DemandTable
from umbel._agent.ledger import Ledger, describe, shown
from umbel._agent.records import Demand, Pending
from umbel._agent.serving import Serving
from umbel._agent.worker_table import WorkerTable
from umbel._model import reasons

Reason = reasons.Reason


class Elsewhere(Protocol):
    """What is to be said of the cluster, if this node is in one. All in words, "" for nothing."""

    def here(self) -> str:
        """This node: "" where there is no other, with which it could be mixed up."""

    def with_resources(self, needs: Mapping[str, int]) -> str:
        """Which other nodes have so much in all."""

    def with_room(self, needs: Mapping[str, int]) -> str:
        """Which other nodes have so much free now."""


class DemandReasons:
    def __init__(
        self,
        ledger: Ledger,
        held: bundles.Bundles,
        known: shares.Shares,
        wanted: DemandTable,
        table: WorkerTable,
        builds: Builds,
        serving: Serving,
        elsewhere: Elsewhere | None,
    ) -> None:
        """held: what placement groups have of the ledger. known: the jobs. elsewhere: None for a node that is in no
        cluster."""
        self._ledger = ledger
        self._bundles = held
        self._shares = known
        self._wanted = wanted
        self._table = table
        self._builds = builds
        self._serving = serving
        self._elsewhere = elsewhere

    def pending(self) -> list[Pending]:
        """Every waiting demand with the reason why it waits, in the order in which they will be served."""
        ordered = self._serving.order(self._wanted.demands.values())
        if self._shares.is_shared:
            standing = self._serving.standing()
            ordered = sorted(ordered, key=standing.turn)
        return [
            Pending(
                one.client,
                one.actor,
                one.key,
                one.count,
                one.depth,
                one.placement,
                one.since_s,
                self.reason(one),
                one.env,
                one.group if one.bundles else "",
            )
            for one in ordered
        ]

    def reason(self, demand: Demand) -> Reason:
        if demand.refusal:
            return Reason(reasons.INFEASIBLE, "", demand.refusal, facts=_lacks(demand, demand.placement))
        if self._serving.is_kept_out(demand):
            text = f"is being drained ({self._table.draining}), and begins nothing any more"
            return Reason(reasons.NODE, self._here() or "this node", text, "start another node that can have it")
        pools = self._wanted.pools(demand)
        if not pools:
            facts: dict[str, object] = {"group": demand.group, "bundle": demand.bundle_index}
            return Reason(reasons.GROUP, "its placement group", "has no place on this node yet", facts=facts)
        pool = self._wanted.pool_of(demand)
        where = self._here() or "this node"
        if pool is not None:
            where = f"bundle {pool.index} of its placement group"
            where += f", the best of {len(pools)}," if len(pools) > 1 else ""
        if demand.lacking:
            return self._infeasible(demand, pool, where)
        unbuilt = self._builds.reason(demand, self._table.now_s)
        if unbuilt is not None:
            return unbuilt
        missing = self._wanted.missing(demand, pool)
        if missing:
            return self._short(demand, pool, where, missing)
        if not self._serving.most_now(demand):
            limit = self._serving.free_leases_max
            text = f"{limit} of its tasks that need no CPU run already"
            return Reason(reasons.LIMIT, "", text, "give them num_cpus or wait", {"limit": limit})
        preferred = self._serving.preferred
        if preferred not in (None, demand):
            text = f"an older demand for {describe(preferred.resources)} goes first for a moment"
            return Reason(reasons.TURN, "", text, facts={"needs": dict(preferred.resources)})
        return Reason(reasons.STARTING, "its worker process", "is starting")

    def _here(self) -> str:
        return self._elsewhere.here() if self._elsewhere is not None else ""

    def _infeasible(self, demand: Demand, pool: bundles.Bundle | None, where: str) -> Reason:
        """It can never be served there."""
        ledger = self._ledger if pool is None else pool.ledger
        has = {name: ledger.total.get(name, 0) for name in demand.placement}
        in_all = ", ".join(f"{name}: {shown(name, amount)}" for name, amount in has.items())
        others = (
            self._elsewhere.with_resources(demand.placement) if self._elsewhere is not None and pool is None else ""
        )
        more = "add a node with more" if self._here() else "start Umbel with more"
        more = more if pool is None else "make a placement group with more"
        return Reason(
            reasons.INFEASIBLE,
            "it",
            f"needs {describe(demand.placement)}, but {where} has {{{in_all}}} in all{others}",
            f"ask for less of {', '.join(sorted(demand.lacking))}, or {more}",
            {
                "needs": dict(demand.placement),
                "total": has,
                "lacking": dict(demand.lacking),
                **_lacks(demand, {**demand.resources, **demand.placement}),
            },
        )

    def _short(self, demand: Demand, pool: bundles.Bundle | None, where: str, missing: Mapping[str, int]) -> Reason:
        """Others have what it needs there."""
        ledger = self._ledger if pool is None else pool.ledger
        leases = [worker.lease for worker in self._table.workers.values() if worker.lease is not None]
        holders = sum(
            1 for lease in leases if lease.bundle is pool and any(lease.resources.get(name) for name in missing)
        )
        groups = (
            sum(1 for one in self._bundles if any(one.resources.get(name) for name in missing)) if pool is None else 0
        )
        short_of = ", ".join(
            f"{name} ({shown(name, max(0, ledger.free[name]))} of {shown(name, ledger.total[name])} free)"
            for name in sorted(missing)
        )
        who = [_counted(holders, "task or actor", "tasks and actors")] if holders or not groups else []
        who += [_counted(groups, "bundle of placement groups", "bundles of placement groups")] if groups else []
        at, others = f" in {where.rstrip(',')}", ""
        if pool is None:
            at = f" on {self._here()}" if self._here() else ""
            others = self._elsewhere.with_room(demand.placement) if self._elsewhere is not None else ""
        return Reason(
            reasons.RESOURCES,
            "it",
            f"needs {describe(demand.resources)} and waits for {short_of}{at}, held by {' and '.join(who)}{others}"
            + (self._job_in_words(demand, missing) if pool is None else ""),
            facts={
                "needs": dict(demand.resources),
                "free": {name: ledger.free[name] for name in sorted(missing)},
                "held_by": holders + groups,
                **_lacks(demand, demand.resources),
                **({"job": demand.job.id, "priority": demand.job.priority} if self._shares.is_shared else {}),
            },
        )

    def _job_in_words(self, demand: Demand, missing: Mapping[str, int]) -> str:
        if not self._shares.is_shared or not demand.job.id:
            return ""
        text = f"; {self._serving.standing().in_words(demand.job, demand.resources, missing)}"
        kept = [
            worker.lease.keeps
            for worker in self._table.workers.values()
            if worker.lease is not None and worker.lease.keeps
        ]
        if demand.job.preempts and kept:
            what = _counted(len(kept), "task that was", "tasks that were")
            text += f"; {what} to be stopped for it cannot be: {', '.join(sorted(set(kept)))}"
        return text


def _lacks(demand: Demand, needs: Mapping[str, int]) -> dict[str, object]:
    """What is to be asked of `launches` about it; nothing where no other node could help."""
    if demand.group or load.is_bound(demand.strategy):
        return {}
    return {"lacks": {"needs": dict(needs), "labels": demand.label_selectors or []}}


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
