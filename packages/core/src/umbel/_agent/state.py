"""Who may use which worker: leases, workers and the node's resources.

Clients (drivers and workers) say how many leases they want for a scheduling key; actors want one worker for life. Both are
*demands* (`demand_table`). They are served (`serving`) by workers (`worker_table`), once the environments that they need are
there (`builds`); `demand_reasons` says why one waits. What always holds: a worker is in exactly one state; a worker in use has
exactly one lease and that lease one holder; what is free, what the leases hold and what the bundles of placement groups hold
add up to what the node has, and what is free in a bundle and what the leases in it hold to what that has. This module only
decides; `lease_service` carries out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from umbel._agent import builds, bundles, demand_table, fairness, serving, shares, worker_table
from umbel._agent import events as ev
from umbel._agent.ledger import Ledger
from umbel._agent.records import Pending, Worker, WorkerState

if TYPE_CHECKING:
    from umbel._agent import demand_reasons, environments, packages
    from umbel._agent.records import Demand
    from umbel._model import reasons
    from umbel._scheduling import forwarding

    AgentEvent = ev.AgentEvent | environments.Event
    AgentCommand = builds.Command  # `ev.AgentCommand`, and those about environments

START_FAILURES_MAX = 3  # in a row for one environment, before those who wait for it are told
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
        elsewhere: demand_reasons.Elsewhere | None = None,
        packages: Callable[[], packages.Packages] | None = None,
    ) -> None:
        """worker_ids: fresh ids, for fork servers of environments too. starts_max: workers starting at once. idle_max:
        idle workers kept for good, and old ones that others do not let go. infeasible_timeout_s: how long a demand that
        can never be served may wait; None for ever. recycle_s: how old a worker may be that is used for tasks again;
        None for any age. is_kept: whether idle workers of an environment are kept at all; all are unless it is given.
        elsewhere: None for a node that is in no cluster. packages: makes what says which packages of
        environments are here; all are unless it is given."""
        self.ledger = ledger
        self.bundles = bundles.Bundles(ledger)
        self._shares = shares.Shares()
        self._wanted = demand_table.DemandTable(ledger, self.bundles, self._shares, infeasible_timeout_s)
        self.worker_table = worker_table.WorkerTable(
            ledger,
            self.bundles,
            self._shares,
            starts_max=starts_max,
            idle_max=idle_max,
            idle_worker_s=idle_worker_s,
            recycle_s=recycle_s,
            is_kept=is_kept,
        )
        self.demands = self._wanted.demands
        self.workers = self.worker_table.workers
        self.clients = self.worker_table.clients
        self._builds = builds.Builds(self._wanted, self.worker_table, worker_ids, packages)
        self._serving = serving.Serving(
            ledger,
            self.bundles,
            self._shares,
            self._wanted,
            self.worker_table,
            self._builds,
            worker_ids=worker_ids,
            # Tasks without CPUs would otherwise start as many processes as there are tasks. Enough for tasks that wait for
            # one another without the runtime's knowledge; those that wait in `get` do not count.
            free_leases_max=max(32, 8 * idle_max),
            order=order,
        )
        self._elsewhere = elsewhere
        self._reasons: demand_reasons.DemandReasons | None = None  # made, and loaded, when one is asked for
        self._starts_failed: dict[str, int] = {}  # environment -> failures in a row
        self._handlers: dict[type, Callable[..., Sequence[AgentCommand]]] = {
            ev.ClientJoined: self._on_client_joined,
            ev.ClientLeft: self._on_client_left,
            ev.DemandChanged: self._on_demand_changed,
            ev.LeaseReturned: self.worker_table.on_lease_returned,
            ev.WorkerBlocked: self.worker_table.on_worker_blocked,
            ev.WorkerUnblocked: self.worker_table.on_worker_unblocked,
            ev.KillRequested: self.worker_table.on_kill_requested,
            ev.ActorWanted: self._on_actor_wanted,
            ev.ActorUnwanted: self._on_actor_unwanted,
            ev.ActorReleased: self._on_actor_released,
            ev.BundlesWanted: self._on_bundles_wanted,
            ev.BundlesCommitted: self._on_bundles_committed,
            ev.BundlesUnwanted: self._on_bundles_unwanted,
            ev.GroupDropped: self._on_group_dropped,
            ev.WorkerReady: self._on_worker_ready,
            ev.WorkerStayed: self.worker_table.on_worker_stayed,
            ev.MemoryShort: self.worker_table.on_memory_short,
            ev.WorkerOvergrown: self.worker_table.on_worker_overgrown,
            ev.WorkerDismissed: self.worker_table.on_worker_dismissed,
            ev.TaskSeen: self._serving.on_task_seen,
            ev.TasksPreempted: self.worker_table.on_tasks_preempted,
            ev.WorkerExited: self._on_worker_exited,
            ev.DrainingChanged: self.worker_table.on_draining_changed,
            ev.ClusterUseTold: self._serving.on_cluster_use_told,
            ev.Ticked: self._on_ticked,
        }

    @property
    def turns(self) -> int:
        """A number that grows with whatever is wanted anew."""
        return self._wanted.turns

    @property
    def draining(self) -> str:
        """Why nothing begins here any more; "" while it does."""
        return self.worker_table.draining

    @property
    def environments(self) -> environments.Environments | None:
        """None until the first one has to be built."""
        return self._builds.environments

    def use_of_jobs(self, asking: Callable[[], Mapping[str, ev.Job]] = dict) -> dict[str, list[Any]] | None:
        """What each job has here, as the head is told; None while nobody needs to know. asking: jobs that want more of other
        nodes."""
        return self._serving.use_of_jobs(asking)

    def entitled(self, short: Sequence[tuple[ev.Job, forwarding.Short]], at_s: float) -> dict[tuple[str, str], int]:
        """By process and key, how many leases nodes without room may be asked for. short: what waits of this node's processes."""
        return self._serving.entitled(short, at_s)

    def apply(self, *events: AgentEvent) -> list[AgentCommand]:
        commands: list[AgentCommand] = []
        for event in events:
            table = self.worker_table
            table.now_s = max(table.now_s, event.at_s)
            if self._shares.is_shared:
                self._shares.elapse(table.now_s, self._serving.standing)
            handle: Callable[..., Sequence[AgentCommand]] = self._handlers.get(type(event), self._builds.on_event)
            commands += handle(event)
            commands += self._serving.serve(event.at_s)
            if self._builds.environments is not None:
                commands += self._builds.settle(event.at_s)
        return commands

    # ---- clients and what they want ----

    def _on_client_joined(self, event: ev.ClientJoined) -> list[ev.AgentCommand]:
        self.clients.setdefault(event.client, {})
        return []

    def _on_client_left(self, event: ev.ClientLeft) -> list[ev.AgentCommand]:
        for place in [place for place in self.demands if place[0] == event.client]:
            self._wanted.drop(place)
        self._builds.client_gone(event.client)
        commands: list[ev.AgentCommand] = []
        for lease in self.clients.pop(event.client, {}).values():
            commands += self.worker_table.orphan(lease, event.at_s)
        worker = self.workers.get(event.client)
        if worker is not None and worker.state is not WorkerState.DYING:
            self.worker_table.lost(worker, event.at_s)
        return commands

    def _on_demand_changed(self, event: ev.DemandChanged) -> list[ev.AgentCommand]:
        place = (event.client, "", event.key)
        if event.client not in self.clients or not event.lease_count:
            self._wanted.drop(place)
            return []
        known = self.demands.get(place)
        if known is None:
            self._wanted.add(place, event)
        else:
            known.count = event.lease_count
            known.depth = max(known.depth, event.depth)
            known.is_claim = event.is_claim
        return []

    # ---- actors ----

    def _on_actor_wanted(self, event: ev.ActorWanted) -> list[ev.AgentCommand]:
        self._wanted.add(("", event.actor, ""), event)
        return []

    def _on_actor_unwanted(self, event: ev.ActorUnwanted) -> list[ev.AgentCommand]:
        if not event.worker:
            self._wanted.drop(("", event.actor, ""))
        worker = self.worker_table.of_actor(event.actor, event.worker)
        if worker is None:
            return []
        worker.is_intended = True
        return self.worker_table.kill(worker, event.reason, event.at_s)

    def _on_actor_released(self, event: ev.ActorReleased) -> list[ev.AgentCommand]:
        self._wanted.drop(("", event.actor, ""))
        worker = self.worker_table.of_actor(event.actor)
        if worker is None or worker.state is not WorkerState.ACTOR:
            return []
        worker.is_retired = True  # it holds its resources until it has finished, however long that takes
        if event.grace_s is not None and worker.deadline_s is None:
            worker.deadline_s = event.at_s + event.grace_s
        return [ev.AskExit(worker.id, is_idle=False)]

    # ---- placement groups ----

    def _on_bundles_wanted(self, event: ev.BundlesWanted) -> list[ev.AgentCommand]:
        place = ("", "", event.group)
        if any(bundle.attempt == event.attempt for bundle in self.bundles.held.get(event.group, {}).values()):
            return [ev.BundlesReserved(event.group, event.attempt)]  # told twice
        known = self.demands.get(place)
        if known is not None and known.attempt == event.attempt:
            return []
        demand = self._wanted.add(place, event)
        if not demand.lacking:
            return []
        reason = self._reason(demand).text
        self._wanted.drop(place)
        return [ev.BundlesRefused(event.group, event.attempt, reason)]

    def _on_bundles_committed(self, event: ev.BundlesCommitted) -> list[ev.AgentCommand]:
        if self.bundles.commit(event.group, event.attempt):
            self._bundles_changed(event.group)
        return []

    def _bundles_changed(self, group: str) -> None:
        for demand in self._wanted.of_group(group):
            self._wanted.note_lacking(demand)

    def _on_bundles_unwanted(self, event: ev.BundlesUnwanted) -> list[ev.AgentCommand]:
        known = self.demands.get(("", "", event.group))
        if known is not None and known.attempt == event.attempt:
            self._wanted.drop(known.place)
        busy = self.bundles.give_up(event.group, event.attempt)
        self._bundles_changed(event.group)
        reason = "the placement group that it ran in has lost a node before it was created"
        return self.worker_table.empty(busy, reason, event.at_s)

    def _on_group_dropped(self, event: ev.GroupDropped) -> list[ev.AgentCommand]:
        self._wanted.drop(("", "", event.group))
        commands: list[ev.AgentCommand] = []
        reason = f"the placement group {event.group} that it was to run in is gone: {event.reason}"
        for demand in self._wanted.of_group(event.group):
            self._wanted.drop(demand.place)
            if demand.actor:
                commands.append(ev.ActorUnplaceable(demand.actor, reason, is_unschedulable=True))
            else:
                commands.append(ev.DemandFailed(demand.client, demand.key, reason, is_group_gone=True))
        reason = f"the placement group {event.group} that it ran in is gone: {event.reason}"
        busy = self.bundles.give_up(event.group)
        return commands + self.worker_table.empty(busy, reason, event.at_s, is_intended=True)

    # ---- workers ----

    def _on_worker_ready(self, event: ev.WorkerReady) -> list[ev.AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is not None and worker.state is WorkerState.STARTING:
            self.worker_table.enter(worker, WorkerState.IDLE, event.at_s)
            self._starts_failed.pop(worker.env, None)
            self._builds.worker_ready(worker)
        return []

    def _on_worker_exited(self, event: ev.WorkerExited) -> list[ev.AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is None:
            return []
        commands: list[ev.AgentCommand] = []
        is_hung = worker.state is WorkerState.DYING and worker.reason == worker_table.START_HUNG
        if worker.state is WorkerState.STARTING or is_hung:
            commands += self._on_start_failed(worker, event)
        lease = worker.lease
        if lease is not None:
            client, actor = lease.client, lease.actor
            self.worker_table.end_lease(lease)
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

    def _on_start_failed(self, worker: Worker, event: ev.WorkerExited) -> list[ev.AgentCommand]:
        waiting = self._wanted.in_environment(worker.env)
        if event.failure:  # it would be the same the next time
            return self._wanted.fail(waiting, event.failure)
        failures = self._starts_failed.get(worker.env, 0) + 1
        self._starts_failed[worker.env] = failures
        self.worker_table.starts_at_s[worker.env] = event.at_s + worker_table.START_RETRY_S
        how = f"was killed by signal {event.signal}" if event.signal else f"exited with code {event.exit_code}"
        reason = (
            f"a worker process {worker.reason or how} before it was ready, {failures} times in a row; "
            "what it printed tells why"
        )
        if failures < START_FAILURES_MAX:
            return []
        del self._starts_failed[worker.env]
        return self._wanted.fail(waiting, reason)

    # ---- time ----

    def next_tick_s(self) -> float | None:
        """When `Ticked` is due next, or None while nothing depends on time."""
        due = [*self.worker_table.due_s(), *self._wanted.due_s(), *self._serving.due_s()]
        if (at_s := self._builds.next_tick_s()) is not None:
            due.append(at_s)
        return min(due, default=None)

    def _on_ticked(self, event: ev.Ticked) -> list[ev.AgentCommand]:
        commands = self.worker_table.tick(event.at_s)
        commands += self._wanted.look_at_impatient(event.at_s, self._reason)
        return commands + self._wanted.look_at_infeasible(event.at_s, self._reason)

    # ---- answers ----

    def pending(self, at_s: float = 0.0) -> list[Pending]:
        """Every waiting demand with the reason why it waits, in the order in which they will be served."""
        self.worker_table.now_s = max(self.worker_table.now_s, at_s)
        return self._explaining().pending()

    def _reason(self, demand: Demand) -> reasons.Reason:
        return self._explaining().reason(demand)

    def _explaining(self) -> demand_reasons.DemandReasons:
        if self._reasons is None:
            from umbel._agent import demand_reasons

            self._reasons = demand_reasons.DemandReasons(
                self.ledger,
                self.bundles,
                self._shares,
                self._wanted,
                self.worker_table,
                self._builds,
                self._serving,
                self._elsewhere,
            )
        return self._reasons

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        self._check_jobs()
        self.ledger.check()
        self.bundles.check()
        self._builds.check()
        self.worker_table.check()
        self._wanted.check(self.clients)

    def _check_jobs(self) -> None:
        uses: dict[str, int] = {}
        using = [demand.job.id for demand in self.demands.values()]
        using += [worker.lease.job.id for worker in self.workers.values() if worker.lease is not None]
        for job_id in filter(None, using):
            uses[job_id] = uses.get(job_id, 0) + 1
        self._shares.check(uses)
