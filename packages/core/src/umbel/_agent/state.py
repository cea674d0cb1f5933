"""Who may use which worker: leases, workers and the node's resources.

Clients (drivers and workers) say how many leases they want for a scheduling key; actors want one worker for life. Both
are *demands*. A demand is served by an idle worker of the right environment if its resources are free, else by
starting one. What always holds: a worker is in exactly one state; a worker in use has exactly one lease and that lease
one holder; what is free, what the leases hold and what the bundles of placement groups hold add up to what the node has,
and what is free in a bundle and what the leases in it hold to what that has. This module only decides; `service` carries out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from umbel._agent import bundles, fairness, shares
from umbel._agent import events as ev
from umbel._agent.ledger import CPU, Ledger, describe, shown
from umbel._agent.records import START_TIMEOUT_S, Demand, Lease, Pending, Place, Worker, WorkerState
from umbel._base import checks
from umbel._model import reasons

if TYPE_CHECKING:
    from umbel._agent import environments, packages, preemption

    AgentCommand = ev.AgentCommand | environments.Begin | environments.End | packages.Step

Reason = reasons.Reason
START_FAILURES_MAX = 3  # in a row for one environment, before those who wait for it are told
START_RETRY_S = 0.2  # after a failed start; long enough not to spin, short enough to go unnoticed
ASK_TIMEOUT_S = 30.0  # a worker that does not answer a request to exit for so long is stuck
STAYED_RETRY_S = 2.0  # an idle or retired worker that still owns objects is asked again after so long
DRAIN_RETRY_S = 0.5  # or, where the node waits for nothing else before it ends, after so long
ORPHAN_GRACE_S = 5.0  # for a task whose submitter is gone to be interrupted; what does not end by then is stuck
ORPHAN_RETRY_S = 0.2
LOST_GRACE_S = 2.0  # between a worker's connection closing and its process being killed: time for its exit handlers
WARNING_CHARS_MAX = 4_000  # of what an installer has printed; an error has it all
INFEASIBLE_WARNING_S = 1.0  # users add resources or nodes right after; do not cry at once
IDLE_WORKER_S = 2.0  # where the session does not say; its own default is in `Config`


class AgentState:
    """The machine. `apply` takes events and returns the commands that they cause."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        worker_ids: Iterator[str],
        starts_max: int,
        idle_max: int,
        idle_worker_s: float = IDLE_WORKER_S,
        infeasible_timeout_s: float | None = None,
        recycle_s: float | None = None,
        order: fairness.Order = fairness.deepest_first,
        is_kept: Callable[[str], bool] | None = None,
        elsewhere: Callable[[Mapping[str, int]], str] | None = None,
        packages: Callable[[], packages.Packages] | None = None,
    ) -> None:
        """worker_ids: fresh ids, for fork servers of environments too. starts_max: workers starting at once. idle_max:
        idle workers kept for good, and old ones that others do not let go. infeasible_timeout_s: how long a demand that
        can never be served may wait; None for ever. recycle_s: how old a worker may be that is used for tasks again;
        None for any age. is_kept: whether idle workers of an environment are kept at all; all are unless it is given.
        elsewhere: what other nodes have of resources that this one lacks, in words. packages: makes what says which packages of
        environments are here; all are unless it is given."""
        self.ledger = ledger
        self.bundles = bundles.Bundles(ledger)
        self.workers: dict[str, Worker] = {}
        self.clients: dict[str, dict[str, Lease]] = {}  # client -> worker -> lease
        self.demands: dict[Place, Demand] = {}
        self.environments: environments.Environments | None = None  # made when the first one has to be built
        self._preparing: dict[Place, str] = {}  # what was said last that is done for environments; "" is not kept
        self._infeasible: dict[Place, Demand] = {}  # those that can never be served here
        self._worker_ids = worker_ids
        self._starts_max = starts_max
        self._idle_max = idle_max
        self._idle_worker_s = idle_worker_s
        self._infeasible_timeout_s = infeasible_timeout_s
        self._recycle_s = recycle_s
        # Tasks without CPUs would otherwise start as many processes as there are tasks. Enough for tasks that wait for
        # one another without the runtime's knowledge; those that wait in `get` do not count.
        self._free_leases_max = max(32, 8 * idle_max)
        self._order = order
        self._shares = shares.Shares()
        self._preemption: preemption.Preemption | None = None  # once it was wanted
        self._is_kept = is_kept
        self._elsewhere = elsewhere or (lambda _needs: "")
        self._packages = packages
        self._turns = 0
        self._now_s = 0.0  # of the last event
        self.draining = ""  # why nothing begins here any more; "" while it does
        self._preferred: Demand | None = None  # for which others had to stand back when demands were served last
        self._starts_failed: dict[str, int] = {}  # environment -> failures in a row
        self._starts_at_s: dict[str, float] = {}  # environment -> not before
        self._handlers: dict[type, Callable[..., list[AgentCommand]]] = {
            ev.ClientJoined: self._on_client_joined,
            ev.ClientLeft: self._on_client_left,
            ev.DemandChanged: self._on_demand_changed,
            ev.LeaseReturned: self._on_lease_returned,
            ev.WorkerBlocked: self._on_worker_blocked,
            ev.WorkerUnblocked: self._on_worker_unblocked,
            ev.KillRequested: self._on_kill_requested,
            ev.ActorWanted: self._on_actor_wanted,
            ev.ActorUnwanted: self._on_actor_unwanted,
            ev.ActorReleased: self._on_actor_released,
            ev.BundlesWanted: self._on_bundles_wanted,
            ev.BundlesCommitted: self._on_bundles_committed,
            ev.BundlesUnwanted: self._on_bundles_unwanted,
            ev.GroupDropped: self._on_group_dropped,
            ev.WorkerReady: self._on_worker_ready,
            ev.WorkerStayed: self._on_worker_stayed,
            ev.MemoryShort: self._on_memory_short,
            ev.WorkerOvergrown: self._on_worker_overgrown,
            ev.WorkerDismissed: self._on_worker_dismissed,
            ev.TaskSeen: self._on_task_seen,
            ev.TaskPreempted: self._on_task_preempted,
            ev.WorkerExited: self._on_worker_exited,
            ev.DrainingChanged: self._on_draining_changed,
            ev.Ticked: self._on_ticked,
        }

    @property
    def turns(self) -> int:
        """A number that grows with whatever is wanted anew."""
        return self._turns

    def apply(self, *events: ev.AgentEvent | environments.Event) -> list[AgentCommand]:
        commands: list[AgentCommand] = []
        for event in events:
            self._now_s = max(self._now_s, event.at_s)
            if self._shares.is_shared:
                self._shares.elapse(self._now_s, self._standing())
            commands += self._handlers.get(type(event), self._on_environment)(event)
            commands += self._serve(event.at_s)
            if self.environments is not None and (self.environments.servers or self._preparing):
                commands += self._settle_environments(event.at_s)
        return commands

    # ---- clients and what they want ----

    def _on_client_joined(self, event: ev.ClientJoined) -> list[AgentCommand]:
        self.clients.setdefault(event.client, {})
        return []

    def _on_client_left(self, event: ev.ClientLeft) -> list[AgentCommand]:
        for place in [place for place in self.demands if place[0] == event.client]:
            self._drop(place)
        if self.environments is not None:
            self.environments.client_gone(event.client)
        commands: list[AgentCommand] = []
        for lease in self.clients.pop(event.client, {}).values():
            commands += self._orphan(self.workers[lease.worker], lease, event.at_s)
        worker = self.workers.get(event.client)
        if worker is not None and worker.state is not WorkerState.DYING:
            worker.is_lost = True
            if worker.lease is None:
                self._enter(worker, WorkerState.LEAVING, event.at_s)
            worker.ask_again_s = None
            worker.deadline_s = event.at_s + LOST_GRACE_S
        return commands

    def _orphan(self, worker: Worker, lease: Lease, at_s: float) -> list[AgentCommand]:
        """The lease's holder is gone. The worker may own objects that others borrow, so it is not killed: it drops or
        interrupts that holder's tasks and answers; one whose task does not end is killed in the end."""
        lease.client = ""  # nobody is told of its end
        if worker.state is not WorkerState.LEASED:
            return []
        worker.reason = "the process that had submitted its task is gone"
        worker.is_intended = True
        worker.deadline_s = at_s + ORPHAN_GRACE_S
        return [ev.AskExit(worker.id, is_idle=True)]

    def _on_demand_changed(self, event: ev.DemandChanged) -> list[AgentCommand]:
        place = (event.client, "", event.key)
        if event.client not in self.clients or not event.lease_count:
            self._drop(place)
            return []
        known = self.demands.get(place)
        if known is None:
            self._add(place, event)
        else:
            known.count = event.lease_count
            known.depth = max(known.depth, event.depth)
        return []

    def _add(self, place: Place, event: ev.DemandChanged | ev.ActorWanted | ev.BundlesWanted) -> Demand:
        self._turns += 1
        self._drop(place)
        demand = self.demands[place] = Demand(place, event, self._turns)
        self._shares.begins(demand.job)
        self._note_lacking(demand)
        return demand

    def _note_lacking(self, demand: Demand) -> None:
        """What it can never have: of the node, or of that bundle of its group which lacks least."""
        if not demand.group:
            demand.lacking = {**self.ledger.lacking(demand.placement), **self.ledger.lacking(demand.resources)}
        elif demand.bundles:
            demand.lacking = bundles.missing(self.ledger.emptied(), demand.bundles)
            return
        else:
            there = [one.ledger for one in self.bundles.usable(demand.group, demand.bundle_index)]
            lacking = [{**one.lacking(demand.placement), **one.lacking(demand.resources)} for one in there]
            demand.lacking = min(lacking, key=len, default={})
            self._infeasible.pop(demand.place, None)
        if not self._is_feasible(demand):
            self._infeasible[demand.place] = demand

    def _pools(self, demand: Demand) -> Sequence[bundles.Bundle | None]:
        """What it can be served from: the node, which is None, or bundles; nothing while its group has no place."""
        if not demand.group or demand.bundles:
            return _NODE
        return self.bundles.usable(demand.group, demand.bundle_index)

    def _pool_of(self, demand: Demand) -> bundles.Bundle | None:
        """Of those, the one that lacks least now. There must be one."""
        pools = self._pools(demand)
        return pools[0] if len(pools) == 1 else min(pools, key=lambda pool: len(self._missing(demand, pool)))

    def _missing(self, demand: Demand, pool: bundles.Bundle | None) -> dict[str, int]:
        """What of its resources is not free there now."""
        if demand.bundles:
            return bundles.missing(self.ledger, demand.bundles)
        return (self.ledger if pool is None else pool.ledger).missing(demand.resources)

    def _drop(self, place: Place) -> None:
        demand = self.demands.pop(place, None)
        self._infeasible.pop(place, None)
        if demand is not None:
            self._shares.ends(demand.job)

    def _is_feasible(self, demand: Demand) -> bool:
        return not demand.lacking and not demand.refusal

    def _on_lease_returned(self, event: ev.LeaseReturned) -> list[AgentCommand]:
        lease = self.clients.get(event.client, {}).get(event.worker)
        if lease is None:
            return []  # the worker died, or was killed, while the message was under way
        worker = self.workers[event.worker]
        self._end_lease(lease)
        if worker.state is not WorkerState.LEASED:
            return []
        if worker.is_lost:
            return self._kill(worker, "its connection to the agent was closed", event.at_s)
        if event.is_retired or (self._is_old(worker, event.at_s) and self._may_recycle()):
            return self._retire(worker, event.at_s)
        self._enter(worker, WorkerState.IDLE, event.at_s)
        return []

    # ---- workers that are replaced ----

    def _is_old(self, worker: Worker, at_s: float) -> bool:
        return self._recycle_s is not None and worker.made_s + self._recycle_s <= at_s

    def _may_recycle(self) -> bool:
        """Whether old workers are to go now. Those that own what others need stay, unused; more of them than are kept
        idle would make a session that holds on to everything grow by as many processes each time."""
        staying = sum(worker.is_retired and worker.state is WorkerState.LEAVING for worker in self.workers.values())
        return staying < self._idle_max

    def _next_old_s(self) -> float | None:
        """When a worker becomes too old next; None while that changes nothing."""
        oldest = next(filter(_is_replaceable, self.workers.values()), None)  # they are listed by age
        if oldest is None or self._recycle_s is None:
            return None
        old_s = oldest.made_s + self._recycle_s
        return old_s if old_s > self._now_s or self._may_recycle() else None

    def _recycle(self, worker: Worker, at_s: float) -> list[AgentCommand]:
        """An idle worker goes. One in use is asked back: what was sent to it is done there, and whether it goes is
        decided when it comes back."""
        lease = worker.lease
        if lease is None:
            return self._retire(worker, at_s)
        lease.is_recycled = True
        return [ev.Reclaim(lease.client, worker.id)]

    def _retire(self, worker: Worker, at_s: float) -> list[AgentCommand]:
        worker.is_retired = True
        return self._ask_exit(worker, at_s)

    def _on_worker_overgrown(self, event: ev.WorkerOvergrown) -> list[AgentCommand]:
        worker = self.workers.get(event.worker)
        return self._recycle(worker, event.at_s) if worker is not None and _is_replaceable(worker) else []

    # ---- leases ----

    def _end_lease(self, lease: Lease) -> None:
        """Gives back what it holds. The worker's state is the caller's business."""
        ledger = self._ledger_of(lease)
        if lease.is_blocked:
            ledger.retake_cpu(lease.resources.get(CPU, 0))
        ledger.release(lease.resources, lease.accelerators)
        self._shares.ends(lease.job)
        if lease.bundle is not None:
            self.bundles.lease_ended(lease.bundle)
        self.workers[lease.worker].lease = None
        if lease.client:
            del self.clients[lease.client][lease.worker]

    def _ledger_of(self, lease: Lease) -> Ledger:
        """From which it has what it holds."""
        return self.ledger if lease.bundle is None else lease.bundle.ledger

    def _on_worker_blocked(self, event: ev.WorkerBlocked) -> list[AgentCommand]:
        lease = self._lease_of(event.worker)
        if lease is not None and not lease.is_blocked:
            lease.is_blocked = True
            self._ledger_of(lease).lend_cpu(lease.resources.get(CPU, 0))
        return []

    def _on_worker_unblocked(self, event: ev.WorkerUnblocked) -> list[AgentCommand]:
        lease = self._lease_of(event.worker)
        if lease is not None and lease.is_blocked:
            lease.is_blocked = False
            self._ledger_of(lease).retake_cpu(lease.resources.get(CPU, 0))
        return []

    def _lease_of(self, worker: str) -> Lease | None:
        found = self.workers.get(worker)
        return found.lease if found is not None else None

    def has_leased(self, client: str, worker: str) -> bool:
        return worker in self.clients.get(client, {})

    def _on_kill_requested(self, event: ev.KillRequested) -> list[AgentCommand]:
        if event.worker not in self.clients.get(event.client, {}):
            return []  # it died meanwhile, or is no longer this client's
        worker = self.workers[event.worker]
        worker.is_intended = True
        return self._kill(worker, event.reason, event.at_s)

    # ---- actors ----

    def _on_actor_wanted(self, event: ev.ActorWanted) -> list[AgentCommand]:
        self._add(("", event.actor, ""), event)
        return []

    def _on_actor_unwanted(self, event: ev.ActorUnwanted) -> list[AgentCommand]:
        self._drop(("", event.actor, ""))
        worker = self._worker_of_actor(event.actor)
        if worker is None:
            return []
        worker.is_intended = True
        return self._kill(worker, event.reason, event.at_s)

    def _on_actor_released(self, event: ev.ActorReleased) -> list[AgentCommand]:
        self._drop(("", event.actor, ""))
        worker = self._worker_of_actor(event.actor)
        if worker is None or worker.state is not WorkerState.ACTOR:
            return []
        worker.is_retired = True  # it holds its resources until it has finished, however long that takes
        if event.grace_s is not None and worker.deadline_s is None:
            worker.deadline_s = event.at_s + event.grace_s
        return [ev.AskExit(worker.id, is_idle=False)]

    def _worker_of_actor(self, actor: str) -> Worker | None:
        for worker in self.workers.values():
            if worker.lease is not None and worker.lease.actor == actor:
                return worker
        return None

    # ---- placement groups ----

    def _on_bundles_wanted(self, event: ev.BundlesWanted) -> list[AgentCommand]:
        place = ("", "", event.group)
        if any(bundle.attempt == event.attempt for bundle in self.bundles.held.get(event.group, {}).values()):
            return [ev.BundlesReserved(event.group, event.attempt)]  # told twice
        known = self.demands.get(place)
        if known is not None and known.attempt == event.attempt:
            return []
        demand = self._add(place, event)
        if not demand.lacking:
            return []
        reason = self._reason(demand).text
        self._drop(place)
        return [ev.BundlesRefused(event.group, event.attempt, reason)]

    def _on_bundles_committed(self, event: ev.BundlesCommitted) -> list[AgentCommand]:
        if self.bundles.commit(event.group, event.attempt):
            self._bundles_changed(event.group)
        return []

    def _bundles_changed(self, group: str) -> None:
        for demand in self._of_group(group):
            self._note_lacking(demand)

    def _of_group(self, group: str) -> list[Demand]:
        """What is to run in it."""
        return [demand for demand in self.demands.values() if demand.group == group and not demand.bundles]

    def _on_bundles_unwanted(self, event: ev.BundlesUnwanted) -> list[AgentCommand]:
        known = self.demands.get(("", "", event.group))
        if known is not None and known.attempt == event.attempt:
            self._drop(known.place)
        busy = self.bundles.give_up(event.group, event.attempt)
        self._bundles_changed(event.group)
        reason = "the placement group that it ran in has lost a node before it was created"
        return self._empty(busy, reason, event.at_s)

    def _on_group_dropped(self, event: ev.GroupDropped) -> list[AgentCommand]:
        self._drop(("", "", event.group))
        commands: list[AgentCommand] = []
        reason = f"the placement group {event.group} that it was to run in is gone: {event.reason}"
        for demand in self._of_group(event.group):
            self._drop(demand.place)
            if demand.actor:
                commands.append(ev.ActorUnplaceable(demand.actor, reason, is_unschedulable=True))
            else:
                commands.append(ev.DemandFailed(demand.client, demand.key, reason, is_group_gone=True))
        reason = f"the placement group {event.group} that it ran in is gone: {event.reason}"
        return commands + self._empty(self.bundles.give_up(event.group), reason, event.at_s, is_intended=True)

    def _empty(
        self, busy: list[bundles.Bundle], reason: str, at_s: float, *, is_intended: bool = False
    ) -> list[AgentCommand]:
        """Kill what runs in bundles that nobody wants any more."""
        commands: list[AgentCommand] = []
        for worker in self.workers.values() if busy else ():
            if worker.lease is not None and worker.lease.bundle in busy:
                worker.is_intended |= is_intended
                if is_intended:
                    worker.ended_group = worker.lease.bundle.group
                commands += self._kill(worker, reason, at_s)
        return commands

    # ---- workers ----

    def _enter(self, worker: Worker, state: WorkerState, at_s: float) -> None:
        worker.state = state
        worker.since_s = at_s
        worker.deadline_s = None
        worker.ask_again_s = None

    def _kill(self, worker: Worker, reason: str, at_s: float) -> list[AgentCommand]:
        if worker.state is WorkerState.DYING:
            return []
        self._enter(worker, WorkerState.DYING, at_s)
        worker.reason = reason
        return [ev.KillWorker(worker.id)]

    def _ask_exit(self, worker: Worker, at_s: float) -> list[AgentCommand]:
        self._enter(worker, WorkerState.LEAVING, at_s)
        worker.deadline_s = at_s + ASK_TIMEOUT_S
        return [ev.AskExit(worker.id, is_idle=True)]

    def _on_worker_ready(self, event: ev.WorkerReady) -> list[AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is not None and worker.state is WorkerState.STARTING:
            self._enter(worker, WorkerState.IDLE, event.at_s)
            self._starts_failed.pop(worker.env, None)
            if self.environments is not None:
                self.environments.worker_ready(worker.build_key)
        return []

    def _on_worker_stayed(self, event: ev.WorkerStayed) -> list[AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is None:
            return []
        if worker.state is WorkerState.LEASED and worker.lease is not None and not worker.lease.client:
            if event.is_running:
                worker.ask_again_s = event.at_s + ORPHAN_RETRY_S
                return []
            worker.reason = ""
            worker.is_intended = False
            self._end_lease(worker.lease)
            self._enter(worker, WorkerState.IDLE, event.at_s)
            worker.ask_again_s = event.at_s + (DRAIN_RETRY_S if self.draining else STAYED_RETRY_S)
            return []
        if worker.state is not WorkerState.LEAVING:
            return []
        if worker.is_retired:
            worker.deadline_s = None
        else:
            self._enter(worker, WorkerState.IDLE, event.at_s)
        worker.ask_again_s = event.at_s + (DRAIN_RETRY_S if self.draining else STAYED_RETRY_S)
        return []

    def _on_memory_short(self, event: ev.MemoryShort) -> list[AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is None or worker.lease is None:
            return []  # it has ended, or what it did has, while somebody looked
        return self._kill(worker, event.reason, event.at_s)

    def _on_worker_dismissed(self, event: ev.WorkerDismissed) -> list[AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is None or worker.state is not WorkerState.IDLE:
            return []
        return self._ask_exit(worker, event.at_s)

    def _on_worker_exited(self, event: ev.WorkerExited) -> list[AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is None:
            return []
        commands: list[AgentCommand] = []
        if worker.state is WorkerState.STARTING or (worker.state is WorkerState.DYING and worker.reason == _START_HUNG):
            commands += self._on_start_failed(worker, event)
        lease = worker.lease
        if lease is not None:
            client, actor = lease.client, lease.actor
            self._end_lease(lease)
            if client:
                commands.append(
                    ev.LeaseBroken(
                        client,
                        worker.id,
                        event.exit_code,
                        event.signal,
                        worker.reason,
                        worker.is_intended,
                        worker.ended_group,
                        worker.is_preempted,
                    )
                )
            elif actor:
                commands.append(ev.ActorWorkerDied(actor, worker.id, event.exit_code, event.signal, worker.reason))
        del self.workers[worker.id]
        return commands + self._on_client_left(ev.ClientLeft(worker.id, event.at_s))

    def _on_start_failed(self, worker: Worker, event: ev.WorkerExited) -> list[AgentCommand]:
        if event.failure:  # it would be the same the next time
            return self._fail(self._in_environment(worker.env), event.failure)
        failures = self._starts_failed.get(worker.env, 0) + 1
        self._starts_failed[worker.env] = failures
        self._starts_at_s[worker.env] = event.at_s + START_RETRY_S
        how = f"was killed by signal {event.signal}" if event.signal else f"exited with code {event.exit_code}"
        reason = (
            f"a worker process {worker.reason or how} before it was ready, {failures} times in a row; "
            "what it printed tells why"
        )
        if failures < START_FAILURES_MAX:
            return []
        del self._starts_failed[worker.env]
        return self._fail(self._in_environment(worker.env), reason)

    def _in_environment(self, env: str) -> list[Demand]:
        """What waits for workers of this environment."""
        return [demand for demand in self.demands.values() if demand.env == env and not demand.bundles]

    def _fail(self, demands: list[Demand], reason: str, log_of: str = "") -> list[AgentCommand]:
        commands: list[AgentCommand] = []
        for demand in demands:
            self._drop(demand.place)
            if demand.actor:
                commands.append(ev.ActorUnplaceable(demand.actor, reason, log_of=log_of))
            else:
                commands.append(ev.DemandFailed(demand.client, demand.key, reason, log_of=log_of))
        return commands

    # ---- draining ----

    def _on_draining_changed(self, event: ev.DrainingChanged) -> list[AgentCommand]:
        """What runs goes on; what was sent behind it to the same worker comes back to who sent it."""
        self.draining = event.reason
        commands: list[AgentCommand] = []
        for worker in self.workers.values() if event.reason else ():
            lease = worker.lease
            if worker.state is WorkerState.IDLE or (
                worker.state is WorkerState.LEAVING and worker.ask_again_s is not None
            ):
                commands += self._ask_exit(worker, event.at_s)
            elif lease is not None and lease.client and lease.bundle is None and not lease.is_reclaimed:
                commands.append(self._ask_back(lease))
        return commands

    def _ask_back(self, lease: Lease) -> AgentCommand:
        lease.is_reclaimed, lease.reclaimed_s = True, self._now_s
        return ev.Reclaim(lease.client, lease.worker)

    def _is_kept_out(self, demand: Demand) -> bool:
        """Whether it is not served because the node is drained. Bundles that are there are: what is to run in them can run
        nowhere else."""
        return bool(self.draining) and (not demand.group or bool(demand.bundles))

    # ---- environments ----

    def _use_environments(self) -> environments.Environments:
        if self.environments is None:
            from umbel._agent import environments

            known = self._packages() if self._packages is not None else None
            self.environments = environments.Environments(self._worker_ids, known)
        return self.environments

    def _on_environment(self, event: environments.Event) -> list[AgentCommand]:
        return self._carry_out(self._use_environments().apply(event))

    def _settle_environments(self, at_s: float) -> list[AgentCommand]:
        wanted = {demand.build_key for demand in self.demands.values() if self._is_feasible(demand)}
        wanted.update(worker.build_key for worker in self.workers.values())
        known = self._use_environments()
        commands = self._carry_out(known.settle(wanted, at_s))
        unready = known.unready()
        waiting = [one for one in self.demands.values() if one.build_key in unready] if unready else ()
        doing = {one.place: unready[one.build_key] for one in waiting}
        told, self._preparing = self._preparing, doing
        if doing != told:
            changed = [place for place in {**told, **doing} if told.get(place) != doing.get(place)]
            commands += [ev.Preparing(*place, doing.get(place, "")) for place in changed]
        return commands

    def _carry_out(self, steps: list[environments.Step]) -> list[AgentCommand]:
        from umbel._agent import environments

        commands: list[AgentCommand] = []
        for step in steps:
            if isinstance(step, environments.Fail):
                waiting = [demand for demand in self.demands.values() if demand.build_key == step.key]
                commands += self._fail(waiting, step.reason, step.log_of)
                if step.is_held and not waiting:
                    text = f"The runtime environment of the job could not be built: {step.reason:.{WARNING_CHARS_MAX}}"
                    commands.append(ev.Warn(f"{text}; tasks that need it will try again"))
            else:
                commands.append(step)
        return commands

    # ---- time ----

    def next_tick_s(self) -> float | None:
        """When `Ticked` is due next, or None while nothing depends on time."""
        due = [
            at for worker in self.workers.values() for at in (worker.deadline_s, worker.ask_again_s) if at is not None
        ]
        if (at_s := self._next_old_s()) is not None:
            due.append(at_s)
        surplus = self._surplus()
        if surplus:
            due.append(surplus[0].since_s + self._surplus_s)
        for demand in self._infeasible.values():
            if not demand.is_warned_of:
                due.append(demand.since_s + INFEASIBLE_WARNING_S)
            if self._infeasible_timeout_s is not None:
                due.append(demand.since_s + self._infeasible_timeout_s)
        due += self._starts_at_s.values()
        if self.environments is not None and (at_s := self.environments.next_tick_s()) is not None:
            due.append(at_s)
        due += [
            one.short_since_s + fairness.next_change_s(self._now_s - one.short_since_s)
            for one in self.demands.values()
            if one.short_since_s is not None
        ]
        if self._preemption is not None and self._preemption.due_s is not None:
            due.append(self._preemption.due_s)
        return min(due, default=None)

    def _on_ticked(self, event: ev.Ticked) -> list[AgentCommand]:
        at_s = event.at_s
        self._starts_at_s = {env: start_s for env, start_s in self._starts_at_s.items() if start_s > at_s}
        commands: list[AgentCommand] = []
        for worker in self.workers.values():
            if worker.deadline_s is not None and worker.deadline_s <= at_s:
                is_start = worker.state is WorkerState.STARTING
                if is_start:
                    self._starts_at_s[worker.env] = at_s + START_RETRY_S
                commands += self._kill(
                    worker,
                    _START_HUNG if is_start else worker.reason or "it did not answer or exit when asked to",
                    at_s,
                )
            elif worker.ask_again_s is not None and worker.ask_again_s <= at_s:
                worker.ask_again_s = None
                if worker.state is WorkerState.LEAVING:
                    commands += self._ask_exit(worker, at_s)
                elif worker.state is WorkerState.LEASED:
                    commands.append(ev.AskExit(worker.id, is_idle=True))
        for worker in self.workers.values():
            if self._is_old(worker, at_s) and _is_replaceable(worker) and self._may_recycle():
                commands += self._recycle(worker, at_s)
        for worker in self._surplus():
            if worker.since_s + self._surplus_s <= at_s:
                commands += self._ask_exit(worker, at_s)
        return commands + self._look_at_infeasible(at_s)

    def _look_at_infeasible(self, at_s: float) -> list[AgentCommand]:
        """Warn of demands that can never be served, once each, and end those that have waited too long for a change."""
        commands: list[AgentCommand] = []
        limit_s = self._infeasible_timeout_s
        for place, demand in list(self._infeasible.items()):
            if limit_s is not None and demand.since_s + limit_s <= at_s:
                self._drop(place)
                reason = f"{self._reason(demand)} (it has waited for {limit_s:g} s, which is infeasible_timeout_s)"
                if demand.actor:
                    commands.append(ev.ActorUnplaceable(demand.actor, reason, is_unschedulable=True))
                else:
                    commands.append(ev.DemandFailed(demand.client, demand.key, reason, is_unschedulable=True))
            elif not demand.is_warned_of and demand.since_s + INFEASIBLE_WARNING_S <= at_s:
                demand.is_warned_of = True
                what = "An actor" if demand.actor else "A task"
                commands.append(ev.Warn(f"{what} cannot be scheduled and waits: {self._reason(demand)}"))
        return commands

    def _surplus(self) -> list[Worker]:
        """Idle workers beyond those that are kept, longest idle first; without those that have just refused to go."""
        if self.draining:
            return self._willing()
        idle = [worker for worker in self.workers.values() if worker.state is WorkerState.IDLE]
        unkept = set() if self._is_kept is None else {one.id for one in idle if not self._is_kept(one.env)}
        beyond = len(idle) - len(unkept) - self._idle_max
        if beyond <= 0 and not unkept:
            return []
        willing = sorted(self._willing(), key=lambda worker: worker.since_s)
        extra = [worker.id for worker in willing if worker.id not in unkept][: max(0, beyond)]
        return [worker for worker in willing if worker.id in unkept or worker.id in extra]

    @property
    def _surplus_s(self) -> float:
        """How long they may be idle."""
        return 0.0 if self.draining else self._idle_worker_s

    def _willing(self) -> list[Worker]:
        """Idle workers that have not just refused to go."""
        return [
            worker
            for worker in self.workers.values()
            if worker.state is WorkerState.IDLE and worker.ask_again_s is None
        ]

    # ---- serving demands ----

    def _serve(self, at_s: float) -> list[AgentCommand]:
        """Grant what can be granted, start the workers that are missing, ask for leases back that others wait for."""
        if self._preemption is not None:
            self._preemption.due_s = None
        if not self.demands:
            return []
        for demand in self.demands.values():
            if demand.build_key and self._is_feasible(demand) and not self._is_kept_out(demand):
                self._server_of(demand, at_s)
        idle: dict[str, list[Worker]] = {}
        starting: dict[str, int] = {}
        starts_left = self._starts_max
        for worker in self.workers.values():
            if worker.state is WorkerState.IDLE:
                idle.setdefault(worker.env, []).append(worker)
            elif worker.state is WorkerState.STARTING:
                starting[worker.env] = starting.get(worker.env, 0) + 1
                starts_left -= 1
        if not idle and starts_left <= 0 and not any(demand.bundles for demand in self.demands.values()):
            return []  # nothing can change before one of them is ready
        for workers in idle.values():
            workers.sort(key=lambda worker: worker.since_s)  # the one used last, whose caches are warm, is taken first
        self._preferred = None
        serving = _Serving(idle, starting, starts_left, bundles.Promises(self.ledger), at_s)
        able = [
            one for one in self._order(self.demands.values()) if self._is_feasible(one) and not self._is_kept_out(one)
        ]
        if self._shares.is_shared:
            return self._serve_jobs(able, serving)
        for demand in able:
            self._serve_one(demand, demand.count, serving)
        return serving.commands + self._reclaims(serving.unserved)

    def _serve_jobs(self, demands: list[Demand], serving: _Serving) -> list[AgentCommand]:
        """The same for several jobs: one lease at a time to the one whose turn it is."""
        standing = self._standing()
        serving.lowest = min((demand.job.priority for demand in demands), default=0)
        left = {demand: demand.count for demand in demands}
        waiting: dict[str, list[Demand]] = {}  # by job, the next one last
        for demand in reversed(demands):
            waiting.setdefault(demand.job.id, []).append(demand)
        while waiting:
            queue = min(waiting.values(), key=lambda queue: standing.rank(queue[-1].job))
            demand = queue[-1]
            is_served = self._serve_one(demand, 1, serving)
            if is_served:
                standing.add(demand.job, demand.resources)
                left[demand] -= 1
            if not is_served or not left[demand]:
                queue.pop()
                if not queue:
                    del waiting[demand.job.id]
        commands = serving.commands
        if serving.unserved:
            commands += self._reclaims(serving.unserved, standing)
            commands += self._preempts(serving.unserved)
        return commands

    def _serve_one(self, demand: Demand, count: int, serving: _Serving) -> bool:
        """Up to `count` of it; whether that was done. What is not is put down as unserved."""
        if demand.bundles:
            return self._reserve(demand, serving)
        pools = self._pools(demand)
        if not pools:
            return False  # it waits for its placement group
        resources, promised = demand.resources, serving.promised
        most = serving.most.get(demand)
        if most is None:
            most = self._most_now(demand)
        left = count
        while left and most:
            for pool in pools:
                if not promised.of(pool).missing(resources):
                    break
            else:
                break  # none has room
            there = self.ledger if pool is None else pool.ledger
            ready = None if there.missing(resources) else _take(serving.idle.get(demand.env, []), demand)
            if ready is not None:
                serving.commands.append(self._give(ready, demand, pool, serving.at_s))
            elif serving.starting.get(demand.env, 0) > 0:
                serving.starting[demand.env] -= 1
            elif (
                serving.starts_left > 0
                and demand.env not in self._starts_at_s
                and (server := self._server_of(demand, serving.at_s)) is not None
            ):
                serving.starts_left -= 1
                serving.commands.append(self._start(demand, server, serving.at_s))
            else:
                break
            promised.of(pool).acquire(resources)
            left -= 1
            most -= 1
        serving.most[demand] = most
        if left:
            serving.unserved.append(demand)
            self._give_way(demand, serving)
        return not left

    def _reserve(self, demand: Demand, serving: _Serving) -> bool:
        """Serve a placement group: all of its bundles, or none."""
        promised = serving.promised
        if bundles.missing(promised.of(None), demand.bundles) or bundles.missing(self.ledger, demand.bundles):
            serving.unserved.append(demand)
            self._give_way(demand, serving)
            return False
        self._drop(demand.place)
        self.bundles.reserve(demand.group, demand.attempt, demand.bundles, demand.job)
        for resources in demand.bundles.values():
            promised.of(None).acquire(resources)
        serving.commands.append(ev.BundlesReserved(demand.group, demand.attempt))
        return True

    def _give_way(self, demand: Demand, serving: _Serving) -> None:
        """Keep what there is of an unserved demand's resources from those behind it, if it has precedence."""
        pool = self._pool_of(demand)
        if not self._missing(demand, pool):
            return
        if demand.short_since_s is None:
            demand.short_since_s = serving.at_s
        waited_s = serving.at_s - demand.short_since_s
        if fairness.has_precedence(waited_s, at_once=demand.job.priority > serving.lowest):
            serving.promised.of(pool).hold(demand.resources)
            self._preferred = demand

    def _most_now(self, demand: Demand) -> int:
        """How many leases more the bound on leases without CPUs allows."""
        if demand.actor or demand.resources.get(CPU):
            return demand.count
        leases = self.clients[demand.client].values()
        busy = sum(1 for lease in leases if lease.key == demand.key and not lease.is_blocked)
        return max(0, self._free_leases_max - busy)

    def _give(self, worker: Worker, demand: Demand, bundle: bundles.Bundle | None, at_s: float) -> AgentCommand:
        accelerators = (self.ledger if bundle is None else bundle.ledger).acquire(demand.resources)
        lease = Lease(worker.id, demand, demand.resources, accelerators, bundle)
        if bundle is not None:
            bundle.lease_count += 1
        worker.lease = lease
        self._shares.begins(lease.job)
        self._turns += 1
        demand.turn = self._turns
        demand.short_since_s = None
        demand.count -= 1
        if not demand.count:
            self._drop(demand.place)
        if demand.actor:
            self._enter(worker, WorkerState.ACTOR, at_s)
            return ev.HostActor(demand.actor, worker.id, demand.resources, accelerators)
        self._enter(worker, WorkerState.LEASED, at_s)
        worker.has_run_tasks = True
        self.clients[demand.client][worker.id] = lease
        return ev.Grant(demand.client, demand.key, worker.id, demand.resources, accelerators)

    def _server_of(self, demand: Demand, at_s: float) -> str | None:
        """The fork server of its environment: "" for the plain one, None if it has to be waited for."""
        if not demand.build_key:
            return ""
        return self._use_environments().want(demand.build_key, demand.build_timeout_s, at_s, demand.source)

    def _start(self, demand: Demand, server: str, at_s: float) -> AgentCommand:
        worker = Worker(next(self._worker_ids), demand.env, at_s, demand.build_key)
        checks.invariant(worker.id not in self.workers, "two workers with one id", worker=worker.id)
        self.workers[worker.id] = worker
        return ev.StartWorker(worker.id, demand.env, server)

    def _reclaims(self, unserved: list[Demand], standing: shares.Standing | None = None) -> list[AgentCommand]:
        """standing: of the jobs, if there are several."""
        if not unserved:
            return []
        leases = [lease for of_client in self.clients.values() for lease in of_client.values()]
        by_pool: dict[bundles.Bundle | None, list[Demand]] = {}
        for demand in unserved:
            by_pool.setdefault(self._pool_of(demand), []).append(demand)
        commands: list[AgentCommand] = []
        for pool, demands in by_pool.items():
            there = (lease for lease in leases if lease.bundle is pool)
            missing_of = functools.partial(self._missing, pool=pool)
            if standing is None:
                chosen = fairness.leases_to_reclaim(demands, there, missing_of)
            else:
                chosen = shares.leases_to_reclaim(demands, there, missing_of, standing)
            commands += [self._ask_back(lease) for lease in chosen]
        return commands

    # ---- several jobs ----

    def _standing(self) -> shares.Standing:
        """How much of the node each job has."""
        made = shares.Standing(self.ledger.total, self._shares)
        for worker in self.workers.values():
            if worker.lease is not None and worker.lease.bundle is None:
                made.add_lease(worker.lease)
        for bundle in self.bundles:
            made.add(bundle.job, bundle.resources)
        return made

    def _preempts(self, unserved: list[Demand]) -> list[AgentCommand]:
        """Stop tasks for those that are of a job that wants it so, unless they could not begin yet all the same."""
        wanting = [
            one
            for one in unserved
            if one.job.preempts and self._pools(one) is _NODE and self._server_of(one, self._now_s) is not None
        ]
        if not wanting:
            return []
        if self._preemption is None:
            from umbel._agent import preemption

            self._preemption = preemption.Preemption()
        asked_back = [
            lease
            for worker in self.workers.values()
            if worker.state is WorkerState.LEASED
            and (lease := worker.lease) is not None
            and lease.client
            and lease.is_reclaimed
            and lease.bundle is None
        ]
        missing_of = functools.partial(self._missing, pool=None)
        return [*self._preemption.orders(wanting, asked_back, missing_of, self._now_s)]

    def _on_task_seen(self, event: ev.TaskSeen) -> list[AgentCommand]:
        lease = self._lease_of(event.worker)
        if self._preemption is not None and lease is not None and lease.is_reclaimed:
            lease.keeps = event.keeps
            self._preemption.seen(event)
        return []

    def _on_task_preempted(self, event: ev.TaskPreempted) -> list[AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is None or worker.state is not WorkerState.LEASED or not (worker.lease and worker.lease.client):
            return []
        worker.is_preempted = True
        return self._kill(worker, event.reason, event.at_s)

    # ---- answers ----

    def pending(self, at_s: float = 0.0) -> list[Pending]:
        """Every waiting demand with the reason why it waits, in the order in which they will be served."""
        self._now_s = max(self._now_s, at_s)
        ordered = self._order(self.demands.values())
        if self._shares.is_shared:
            standing = self._standing()
            ordered = sorted(ordered, key=lambda one: standing.rank(one.job))
        return [
            Pending(
                one.client,
                one.actor,
                one.key,
                one.count,
                one.depth,
                one.placement,
                one.since_s,
                self._reason(one),
                one.env,
                one.group if one.bundles else "",
            )
            for one in ordered
        ]

    def _reason(self, demand: Demand) -> Reason:
        if demand.refusal:
            return Reason(reasons.INFEASIBLE, "", demand.refusal)
        if self._is_kept_out(demand):
            text = f"is being drained ({self.draining}), and begins nothing any more"
            return Reason(reasons.NODE, "this node", text, "start another node that can have it")
        pools = self._pools(demand)
        if not pools:
            facts: dict[str, object] = {"group": demand.group, "bundle": demand.bundle_index}
            return Reason(reasons.GROUP, "its placement group", "has no place on this node yet", facts=facts)
        pool = self._pool_of(demand)
        ledger, where = self.ledger, "this node"
        if pool is not None:
            ledger, where = pool.ledger, f"bundle {pool.index} of its placement group"
            where += f", the best of {len(pools)}," if len(pools) > 1 else ""
        if demand.lacking:
            has = {name: ledger.total.get(name, 0) for name in demand.placement}
            in_all = ", ".join(f"{name}: {shown(name, amount)}" for name, amount in has.items())
            more = "start Umbel with more" if pool is None else "make a placement group with more"
            return Reason(
                reasons.INFEASIBLE,
                "it",
                f"needs {describe(demand.placement)}, but {where} has {{{in_all}}} in all"
                + (self._elsewhere(demand.placement) if pool is None else ""),
                f"ask for less of {', '.join(sorted(demand.lacking))}, or {more}",
                {"needs": dict(demand.placement), "total": has, "lacking": dict(demand.lacking)},
            )
        if self.environments is not None:
            unbuilt = self.environments.reason(demand.build_key, self._now_s)
            if unbuilt is not None:
                return unbuilt
        missing = self._missing(demand, pool)
        if missing:
            leases = [worker.lease for worker in self.workers.values() if worker.lease is not None]
            holders = sum(
                1 for lease in leases if lease.bundle is pool and any(lease.resources.get(name) for name in missing)
            )
            groups = (
                sum(1 for one in self.bundles if any(one.resources.get(name) for name in missing))
                if pool is None
                else 0
            )
            short_of = ", ".join(
                f"{name} ({shown(name, max(0, ledger.free[name]))} of {shown(name, ledger.total[name])} free)"
                for name in sorted(missing)
            )
            who = [_counted(holders, "task or actor", "tasks and actors")] if holders or not groups else []
            who += [_counted(groups, "bundle of placement groups", "bundles of placement groups")] if groups else []
            at = "" if pool is None else f" in {where.rstrip(',')}"
            return Reason(
                reasons.RESOURCES,
                "it",
                f"needs {describe(demand.resources)} and waits for {short_of}{at}, held by {' and '.join(who)}"
                + (self._job_in_words(demand, missing) if pool is None else ""),
                facts={
                    "needs": dict(demand.resources),
                    "free": {name: ledger.free[name] for name in sorted(missing)},
                    "held_by": holders + groups,
                    **({"job": demand.job.id, "priority": demand.job.priority} if self._shares.is_shared else {}),
                },
            )
        if not self._most_now(demand):
            text = f"{self._free_leases_max} of its tasks that need no CPU run already"
            return Reason(reasons.LIMIT, "", text, "give them num_cpus or wait", {"limit": self._free_leases_max})
        if self._preferred not in (None, demand):
            text = f"an older demand for {describe(self._preferred.resources)} goes first for a moment"
            return Reason(reasons.TURN, "", text, facts={"needs": dict(self._preferred.resources)})
        return Reason(reasons.STARTING, "its worker process", "is starting")

    def _job_in_words(self, demand: Demand, missing: Mapping[str, int]) -> str:
        if not self._shares.is_shared or not demand.job.id:
            return ""
        text = f"; {self._standing().in_words(demand.job, demand.resources, missing)}"
        kept = [
            worker.lease.keeps for worker in self.workers.values() if worker.lease is not None and worker.lease.keeps
        ]
        if demand.job.preempts and kept:
            what = _counted(len(kept), "task that was", "tasks that were")
            text += f"; {what} to be stopped for it cannot be: {', '.join(sorted(set(kept)))}"
        return text

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        self._check_jobs()
        self.ledger.check()
        self.bundles.check()
        if self.environments is not None:
            self.environments.check()
        held = dict.fromkeys(self.ledger.total, 0)
        in_bundles: dict[bundles.Bundle, dict[str, int]] = {}
        lease_counts: dict[bundles.Bundle, int] = {}
        for bundle in self.bundles:
            in_bundles[bundle] = dict.fromkeys(bundle.resources, 0)
            for name, amount in bundle.resources.items():
                held[name] += amount
        starting = 0
        for worker in self.workers.values():
            state, lease = worker.state, worker.lease
            starting += state is WorkerState.STARTING
            if lease is None:
                if state in _IN_USE:
                    raise checks.broken("a worker in use without a lease", worker=worker.id)
                continue
            if state not in _IN_USE and state is not WorkerState.DYING:
                raise checks.broken(f"a worker that is {state.value} has a lease", worker=worker.id)
            self._check_lease(worker, lease)
            book = held
            if lease.bundle is not None:
                checks.invariant(lease.bundle in in_bundles, "a lease in a bundle that is gone", worker=worker.id)
                lease_counts[lease.bundle] = lease_counts.get(lease.bundle, 0) + 1
                book = in_bundles[lease.bundle]
            for name, amount in lease.resources.items():
                if amount and not (lease.is_blocked and name == CPU):
                    book[name] += amount
        free = self.ledger.free
        for name, total in self.ledger.total.items():
            if free[name] + held[name] != total:
                raise checks.broken("free and held do not add up", resource=name)
        for bundle, book in in_bundles.items():
            counted = lease_counts.get(bundle, 0)
            checks.invariant(bundle.lease_count == counted, "leases in a bundle were miscounted", group=bundle.group)
            for name, total in bundle.resources.items():
                is_right = bundle.ledger.free[name] + book[name] == total
                checks.invariant(is_right, "free and held in a bundle do not add up", group=bundle.group, resource=name)
        checks.invariant(starting <= self._starts_max, "too many workers starting at once", starting=starting)
        for client, leases in self.clients.items():
            for worker_id, lease in leases.items():
                known = self.workers.get(worker_id)
                if known is None or known.lease is not lease:
                    raise checks.broken("a lease without its worker", client=client, worker=worker_id)
        for place, demand in self.demands.items():
            if place != demand.place:
                raise checks.broken("a demand in another's place", client=place[0])
            if demand.count <= 0:
                raise checks.broken("a demand for nothing", client=demand.client, key=demand.key)
            if not (demand.actor or demand.bundles or demand.client in self.clients):
                raise checks.broken("a demand of nobody", client=demand.client)

    def _check_jobs(self) -> None:
        uses: dict[str, int] = {}
        using = [demand.job.id for demand in self.demands.values()]
        using += [worker.lease.job.id for worker in self.workers.values() if worker.lease is not None]
        for job_id in filter(None, using):
            uses[job_id] = uses.get(job_id, 0) + 1
        self._shares.check(uses)
        for worker in self.workers.values():
            is_tasks = worker.lease is None or not worker.lease.actor
            checks.invariant(is_tasks or not worker.is_preempted, "an actor was stopped for others", worker=worker.id)

    def _check_lease(self, worker: Worker, lease: Lease) -> None:
        if lease.worker != worker.id:
            raise checks.broken("a lease of another worker", worker=worker.id, other=lease.worker)
        if lease.client and lease.actor:
            raise checks.broken("a lease with two holders", worker=worker.id)
        if lease.client and self.clients.get(lease.client, {}).get(worker.id) is not lease:
            raise checks.broken("a lease that its holder does not know", worker=worker.id, client=lease.client)


class _Serving:
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
        self.commands: list[AgentCommand] = []
        self.unserved: list[Demand] = []


def _is_replaceable(worker: Worker) -> bool:
    """Whether it can be told to go, for it is idle and has not just refused, or can be asked back from a client."""
    if worker.state is WorkerState.IDLE:
        return worker.ask_again_s is None
    lease = worker.lease
    return worker.state is WorkerState.LEASED and lease is not None and bool(lease.client) and not lease.is_recycled


def _take(idle: list[Worker], demand: Demand) -> Worker | None:
    """Take out the last worker that suits. An actor gets a process in which nothing has run: what a task has left in a
    module would show, and what a task's worker owns must not end with the actor."""
    for index in range(len(idle) - 1, -1, -1):
        if not demand.actor or not idle[index].has_run_tasks:
            return idle.pop(index)
    return None


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


_IN_USE: Final = (WorkerState.LEASED, WorkerState.ACTOR)
_NODE: Final = (None,)  # what all is served from that is in no placement group
_START_HUNG = f"did not say that it is ready within {START_TIMEOUT_S:g} s"
