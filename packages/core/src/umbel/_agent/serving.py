"""Which of a node's demands are served now: with idle workers, with new ones, or by asking for leases back.

A demand is served by an idle worker of the right environment if its resources are free, else by starting one. Of one job, in the
order of the node's policy (`fairness`); of several, one lease at a time to the job whose turn it is (`shares`), for which
tasks of others are stopped where it wants that (`preemption`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel._agent import bundles, demand_table, fairness, shares
from umbel._agent import events as ev
from umbel._agent.builds import Builds
from umbel._agent.demand_table import DemandTable
from umbel._agent.ledger import CPU, Ledger
from umbel._agent.records import Demand, Worker, WorkerState
from umbel._agent.worker_table import WorkerTable

if TYPE_CHECKING:
    from umbel._agent import preemption
    from umbel._scheduling import forwarding


class Serving:
    def __init__(
        self,
        ledger: Ledger,
        held: bundles.Bundles,
        known: shares.Shares,
        wanted: DemandTable,
        table: WorkerTable,
        builds: Builds,
        *,
        worker_ids: Iterator[str],
        free_leases_max: int,
        order: fairness.Order,
    ) -> None:
        """held: what placement groups have of the ledger. known: the jobs. worker_ids: fresh ones. free_leases_max: that one
        client has without CPUs for one key."""
        self.preferred: Demand | None = None  # for which others had to stand back when demands were served last
        self.free_leases_max = free_leases_max
        self.order = order
        self._ledger = ledger
        self._bundles = held
        self._shares = known
        self._wanted = wanted
        self._table = table
        self._builds = builds
        self._worker_ids = worker_ids
        self._preemption: preemption.Preemption | None = None  # once it was wanted
        self._has_promised = False  # and not said since that it has not

    def serve(self, at_s: float) -> list[ev.AgentCommand]:
        """Grant what can be granted, start the workers that are missing, ask for leases back that others wait for."""
        if self._preemption is not None:
            self._preemption.due_s = None
        demands, table = self._wanted.demands, self._table
        if not demands:
            return []
        for demand in demands.values():
            if demand.build_key and self._wanted.is_feasible(demand) and not self.is_kept_out(demand):
                self._builds.server_of(demand, at_s)
        idle: dict[str, list[Worker]] = {}
        starting: dict[str, int] = {}
        starts_left = table.starts_max
        for worker in table.workers.values():
            if worker.state is WorkerState.IDLE:
                idle.setdefault(worker.env, []).append(worker)
            elif worker.state is WorkerState.STARTING:
                starting[worker.env] = starting.get(worker.env, 0) + 1
                starts_left -= 1
        if not idle and starts_left <= 0 and not any(demand.bundles for demand in demands.values()):
            return []  # nothing can change before one of them is ready
        for workers in idle.values():
            workers.sort(key=lambda worker: worker.since_s)  # the one used last, whose caches are warm, is taken first
        self.preferred = None
        now = _Round(idle, starting, starts_left, bundles.Promises(self._ledger), at_s)
        able = [one for one in self.order(demands.values()) if self._wanted.is_feasible(one)]
        if table.draining:
            able = [one for one in able if not self.is_kept_out(one)]
        if self._shares.is_shared:
            return self._serve_jobs(able, now)
        for demand in able:
            self._serve_one(demand, demand.count, now)
        commands = now.commands + self._reclaims(now.unserved)
        return commands + self._promises(dict.fromkeys(able, 0)) if self._has_promised else commands

    def _serve_jobs(self, demands: list[Demand], now: _Round) -> list[ev.AgentCommand]:
        """The same for several jobs: one lease at a time to the one whose turn it is."""
        standing = self.standing()
        now.lowest = min((demand.job.priority for demand in demands), default=0)
        left = {demand: demand.count for demand in demands}  # to be served

        def serve(demand: Demand) -> bool:
            is_served = self._serve_one(demand, 1, now)
            left[demand] -= is_served
            return is_served

        shares.in_turn(demands, standing, serve)
        commands, gained = now.commands, dict[Demand, int]()
        if now.unserved:
            commands += self._reclaims(now.unserved, standing, gained)
            commands += self._preempts(now.unserved)
        if self._shares.cluster is not None:
            unknown = {*now.unserved} - gained.keys()
            served = {one: one.count - left[one] for one in demands if one not in unknown}
            given = {one: count + gained.get(one, 0) for one, count in served.items()}
            return commands + self._promises(self._without_turns(given))
        return commands + self._promises(dict.fromkeys(demands, 0)) if self._has_promised else commands

    def _without_turns(self, given: dict[Demand, int]) -> dict[Demand, int]:
        """Less what processes of one job take from each other by turns: it gains nothing by that, and may have more elsewhere."""
        leaving: dict[str, int] = {}
        for worker in self._table.workers.values():
            if worker.lease is not None and worker.lease.is_reclaimed:
                leaving[worker.lease.job.id] = leaving.get(worker.lease.job.id, 0) + 1
        for demand in reversed(given):
            taken = min(given[demand], leaving.get(demand.job.id, 0))
            if taken:
                given[demand] -= taken
                leaving[demand.job.id] -= taken
        return given

    def _promises(self, promised: Mapping[Demand, int]) -> list[ev.AgentCommand]:
        """promised: leases that clients will be granted, as far as it is known now; of the others that is as before."""
        commands: list[ev.AgentCommand] = []
        self._has_promised = False
        for demand in self._wanted.demands.values():
            count = promised.get(demand, demand.promised)
            if demand.client and count != demand.promised:
                demand.promised = count
                commands.append(ev.Promised(demand.client, demand.key, count))
            self._has_promised |= demand.promised > 0
        return commands

    def _serve_one(self, demand: Demand, count: int, now: _Round) -> bool:
        """Up to `count` of it; whether that was done. What is not is put down as unserved."""
        if demand.bundles:
            return self._reserve(demand, now)
        pools = self._wanted.pools(demand)
        if not pools:
            return False  # it waits for its placement group
        resources, promised = demand.resources, now.promised
        most = now.most.get(demand)
        if most is None:
            most = self.most_now(demand)
        left = count
        lacks_process = False
        while left and most:
            for pool in pools:
                if not promised.of(pool).missing(resources):
                    break
            else:
                break  # none has room
            there = self._ledger if pool is None else pool.ledger
            ready = None if there.missing(resources) else _take(now.idle.get(demand.env, []), demand)
            if ready is not None:
                now.commands.append(self._give(ready, demand, pool, now.at_s))
            elif now.starting.get(demand.env, 0) > 0:
                now.starting[demand.env] -= 1
            elif (
                now.starts_left > 0
                and demand.env not in self._table.starts_at_s
                and (server := self._builds.server_of(demand, now.at_s)) is not None
            ):
                now.starts_left -= 1
                worker = self._table.add(next(self._worker_ids), demand, now.at_s)
                now.commands.append(ev.StartWorker(worker.id, demand.env, server))
            else:
                lacks_process = self._builds.server_of(demand, now.at_s) is not None
                break
            promised.of(pool).acquire(resources)
            left -= 1
            most -= 1
        now.most[demand] = most
        if left:
            now.unserved.append(demand)
            self._give_way(demand, now, lacks_process=lacks_process)
        return not left

    def _give(self, worker: Worker, demand: Demand, bundle: bundles.Bundle | None, at_s: float) -> ev.AgentCommand:
        command = self._table.give(worker, demand, bundle, at_s)
        demand.turn = self._wanted.next_turn()
        demand.short_since_s = demand.busy_since_s = None
        demand.count -= 1
        if demand.promised > 0:
            demand.promised -= 1
        if not demand.count:
            self._wanted.drop(demand.place)
        return command

    def _reserve(self, demand: Demand, now: _Round) -> bool:
        """Serve a placement group: all of its bundles, or none."""
        promised = now.promised
        if bundles.missing(promised.of(None), demand.bundles) or bundles.missing(self._ledger, demand.bundles):
            now.unserved.append(demand)
            self._give_way(demand, now)
            return False
        self._wanted.drop(demand.place)
        self._bundles.reserve(demand.group, demand.attempt, demand.bundles, demand.job)
        for resources in demand.bundles.values():
            promised.of(None).acquire(resources)
        now.commands.append(ev.BundlesReserved(demand.group, demand.attempt))
        return True

    def _give_way(self, demand: Demand, now: _Round, *, lacks_process: bool = False) -> None:
        """Keep what there is of an unserved demand's resources from those behind it, if it has precedence; or a higher priority,
        and lacks nothing but a process, which cannot be started yet."""
        pool = self._wanted.pool_of(demand)
        is_higher = demand.job.priority > now.lowest
        if self._wanted.missing(demand, pool):
            waited_s = now.at_s - self._wanted.is_short(demand, now.at_s)
            is_preferred = fairness.has_precedence(waited_s, at_once=is_higher)
            is_preferred |= is_higher and demand.job.preempts and self._is_stopping()
        else:
            is_preferred = is_higher and lacks_process
        if is_preferred:
            now.promised.of(pool).hold(demand.resources)
            self.preferred = demand

    def _is_stopping(self) -> bool:
        """Whether tasks that were stopped for others have not ended yet."""
        return self._preemption is not None and any(worker.is_preempted for worker in self._table.workers.values())

    def is_kept_out(self, demand: Demand) -> bool:
        """Whether it is not served because the node is drained. Bundles that are there are: what is to run in them can run
        nowhere else."""
        return bool(self._table.draining) and (not demand.group or bool(demand.bundles))

    def most_now(self, demand: Demand) -> int:
        """How many leases more the bound on leases without CPUs allows."""
        if demand.actor or demand.resources.get(CPU):
            return demand.count
        leases = self._table.clients[demand.client].values()
        busy = sum(1 for lease in leases if lease.key == demand.key and not lease.is_blocked)
        return max(0, self.free_leases_max - busy)

    def _reclaims(
        self, unserved: list[Demand], standing: shares.Standing | None = None, gained: dict[Demand, int] | None = None
    ) -> list[ev.AgentCommand]:
        """standing: of the jobs, if there are several; gained: becomes how many leases each will be given then."""
        if not unserved:
            return []
        leases = [lease for of_client in self._table.clients.values() for lease in of_client.values()]
        by_pool: dict[bundles.Bundle | None, list[Demand]] = {}
        for demand in unserved:
            by_pool.setdefault(self._wanted.pool_of(demand), []).append(demand)
        commands: list[ev.AgentCommand] = []
        for pool, demands in by_pool.items():
            there = (lease for lease in leases if lease.bundle is pool)
            missing_of = functools.partial(self._wanted.missing, pool=pool)
            if standing is None:
                chosen = fairness.leases_to_reclaim((one for one in demands if not one.is_claim), there, missing_of)
            else:
                chosen, given = shares.leases_to_reclaim(demands, there, missing_of, standing)
                if gained is not None:
                    gained.update(given)
            commands += [self._table.ask_back(lease) for lease in chosen]
        return commands

    # ---- several jobs ----

    def standing(self, *, is_lasting: bool = False) -> shares.Standing:
        """How much of the node each job has. is_lasting: nobody is to go first for having waited for long."""
        made = shares.Standing(self._ledger.total, self._shares, None if is_lasting else self._table.now_s)
        for worker in self._table.workers.values():
            if worker.lease is not None and worker.lease.bundle is None:
                made.add_lease(worker.lease)
        for bundle in self._bundles:
            made.add(bundle.job, bundle.resources)
        return made

    def on_cluster_use_told(self, event: ev.ClusterUseTold) -> list[ev.AgentCommand]:
        if event.use is not None:
            steps: dict[str, int] = {}
            held = (worker.lease.resources for worker in self._table.workers.values() if worker.lease is not None)
            for resources in (*held, *(demand.resources for demand in self._wanted.demands.values())):
                for name, amount in resources.items():
                    steps[name] = max(steps.get(name, 0), amount)
            event.use.fit(self._ledger.total, steps)
        self._shares.tell(event.use)
        return []

    def use_of_jobs(self, asking: Callable[[], Mapping[str, ev.Job]] = dict) -> dict[str, list[Any]] | None:
        """What each job has here, for the head, see `shares.told`; None while nobody needs to know."""
        if not self._shares.is_shared and self._shares.cluster is None:
            return None
        leases = [worker.lease for worker in self._table.workers.values() if worker.lease is not None]
        of_node = [lease for lease in leases if lease.bundle is None and lease.client]
        waiting = [
            one
            for one in self.order(self._wanted.demands.values())
            if self._wanted.is_feasible(one)
            and not self.is_kept_out(one)
            and self._wanted.pools(one) is demand_table.NODE
        ]
        return shares.told(self.standing(is_lasting=True), of_node, waiting, self._ledger.free, asking())

    def entitled(self, short: Sequence[tuple[ev.Job, forwarding.Short]], at_s: float) -> dict[tuple[str, str], int]:
        """By process and key, how many leases nodes without room may be asked for, see `entitlement`."""
        cluster = self._shares.cluster
        if cluster is None or not short:
            return {}
        from umbel._agent import entitlement

        return entitlement.may_ask(short, cluster, self.use_of_jobs() or {}, at_s)

    def _preempts(self, unserved: list[Demand]) -> list[ev.AgentCommand]:
        """Stop tasks for those that are of a job that wants it so, unless they could not begin yet all the same."""
        now_s = self._table.now_s
        wanting = [
            one
            for one in unserved
            if one.job.preempts
            and self._wanted.pools(one) is demand_table.NODE
            and self._builds.server_of(one, now_s) is not None
        ]
        if not wanting:
            return []
        if self._preemption is None:
            from umbel._agent import preemption

            self._preemption = preemption.Preemption()
        asked_back = [
            lease
            for worker in self._table.workers.values()
            if worker.state is WorkerState.LEASED
            and (lease := worker.lease) is not None
            and lease.client
            and lease.is_reclaimed
            and lease.bundle is None
        ]
        ending = [
            lease
            for worker in self._table.workers.values()
            if worker.state is WorkerState.DYING and (lease := worker.lease) is not None and lease.bundle is None
        ]
        missing_of = functools.partial(self._wanted.missing, pool=None)
        return [*self._preemption.orders(wanting, asked_back, ending, missing_of, now_s)]

    def on_task_seen(self, event: ev.TaskSeen) -> list[ev.AgentCommand]:
        lease = self._table.lease_of(event.worker)
        if self._preemption is not None and lease is not None and lease.is_reclaimed:
            lease.keeps = event.keeps
            self._preemption.seen(event)
        return []

    # ---- time ----

    def due_s(self) -> list[float]:
        """When time alone changes what is served."""
        due = [
            one.short_since_s + fairness.next_change_s(self._table.now_s - one.short_since_s)
            for one in self._wanted.demands.values()
            if one.short_since_s is not None
        ]
        if self._preemption is not None and self._preemption.due_s is not None:
            due.append(self._preemption.due_s)
        return due


class _Round:
    """What is left while demands are served, and what came of it."""

    __slots__ = ("at_s", "commands", "idle", "lowest", "most", "promised", "starting", "starts_left", "unserved")

    def __init__(
        self,
        idle: dict[str, list[Worker]],
        starting: dict[str, int],
        starts_left: int,
        promised: bundles.Promises,
        at_s: float,
    ) -> None:
        self.idle = idle
        self.starting = starting
        self.starts_left = starts_left
        self.promised = promised
        self.at_s = at_s
        self.lowest: float = math.inf  # of the priorities of several jobs
        self.most: dict[Demand, int] = {}  # of those looked at, how many leases more they may have
        self.commands: list[ev.AgentCommand] = []
        self.unserved: list[Demand] = []


def _take(idle: list[Worker], demand: Demand) -> Worker | None:
    """Take out the last worker that suits. An actor gets a process in which nothing has run: what a task has left in a
    module would show, and what a task's worker owns must not end with the actor."""
    for index in range(len(idle) - 1, -1, -1):
        if not demand.actor or not idle[index].has_run_tasks:
            return idle.pop(index)
    return None
