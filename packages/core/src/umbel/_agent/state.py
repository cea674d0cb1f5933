"""Who may use which worker: leases, workers and the node's resources.

Clients (drivers and workers) say how many leases they want for a scheduling key; actors want one worker for life. Both
are *demands*. A demand is served by an idle worker of the right environment if its resources are free, else by
starting one. What always holds: a worker is in exactly one state; a worker in use has exactly one lease and that lease
one holder; what is free and what the leases hold add up to what the node has. This module only decides; `service`
carries out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from umbel._agent import events as ev
from umbel._agent import fairness
from umbel._agent.ledger import CPU, Ledger, describe, shown
from umbel._agent.records import START_TIMEOUT_S, Demand, Lease, Pending, Place, Worker, WorkerState
from umbel._base import checks
from umbel._model import reasons

if TYPE_CHECKING:
    from umbel._agent import environments

    AgentCommand = ev.AgentCommand | environments.Begin | environments.End

Reason = reasons.Reason
START_FAILURES_MAX = 3  # in a row for one environment, before those who wait for it are told
START_RETRY_S = 0.2  # after a failed start; long enough not to spin, short enough to go unnoticed
ASK_TIMEOUT_S = 30.0  # a worker that does not answer a request to exit for so long is stuck
STAYED_RETRY_S = 2.0  # an idle or retired worker that still owns objects is asked again after so long
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
    ) -> None:
        """worker_ids: fresh ids, for fork servers of environments too. starts_max: workers starting at once. idle_max:
        idle workers kept for good, and old ones that others do not let go. infeasible_timeout_s: how long a demand that
        can never be served may wait; None for ever. recycle_s: how old a worker may be that is used for tasks again;
        None for any age. is_kept: whether idle workers of an environment are kept at all; all are unless it is given."""
        self.ledger = ledger
        self.workers: dict[str, Worker] = {}
        self.clients: dict[str, dict[str, Lease]] = {}  # client -> worker -> lease
        self.demands: dict[Place, Demand] = {}
        self.environments: environments.Environments | None = None  # made when the first one has to be built
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
        self._is_kept = is_kept
        self._turns = 0
        self._now_s = 0.0  # of the last event
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
            ev.WorkerReady: self._on_worker_ready,
            ev.WorkerStayed: self._on_worker_stayed,
            ev.MemoryShort: self._on_memory_short,
            ev.WorkerOvergrown: self._on_worker_overgrown,
            ev.WorkerDismissed: self._on_worker_dismissed,
            ev.WorkerExited: self._on_worker_exited,
            ev.Ticked: self._on_ticked,
        }

    def apply(self, *events: ev.AgentEvent | environments.Event) -> list[AgentCommand]:
        commands: list[AgentCommand] = []
        for event in events:
            self._now_s = max(self._now_s, event.at_s)
            commands += self._handlers.get(type(event), self._on_environment)(event)
            commands += self._serve(event.at_s)
            if self.environments is not None and self.environments.servers:
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

    def _add(self, place: Place, event: ev.DemandChanged | ev.ActorWanted) -> None:
        self._turns += 1
        demand = self.demands[place] = Demand(place, event, self._turns)
        demand.lacking = {**self.ledger.lacking(demand.placement), **self.ledger.lacking(demand.resources)}
        if not self._is_feasible(demand):
            self._infeasible[place] = demand

    def _drop(self, place: Place) -> None:
        self.demands.pop(place, None)
        self._infeasible.pop(place, None)

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
        if lease.is_blocked:
            self.ledger.retake_cpu(lease.resources.get(CPU, 0))
        self.ledger.release(lease.resources, lease.accelerators)
        self.workers[lease.worker].lease = None
        if lease.client:
            del self.clients[lease.client][lease.worker]

    def _on_worker_blocked(self, event: ev.WorkerBlocked) -> list[AgentCommand]:
        lease = self._lease_of(event.worker)
        if lease is not None and not lease.is_blocked:
            lease.is_blocked = True
            self.ledger.lend_cpu(lease.resources.get(CPU, 0))
        return []

    def _on_worker_unblocked(self, event: ev.WorkerUnblocked) -> list[AgentCommand]:
        lease = self._lease_of(event.worker)
        if lease is not None and lease.is_blocked:
            lease.is_blocked = False
            self.ledger.retake_cpu(lease.resources.get(CPU, 0))
        return []

    def _lease_of(self, worker: str) -> Lease | None:
        found = self.workers.get(worker)
        return found.lease if found is not None else None

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
            worker.ask_again_s = event.at_s + STAYED_RETRY_S
            return []
        if worker.state is not WorkerState.LEAVING:
            return []
        if worker.is_retired:
            worker.deadline_s = None
        else:
            self._enter(worker, WorkerState.IDLE, event.at_s)
        worker.ask_again_s = event.at_s + STAYED_RETRY_S
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
                    ev.LeaseBroken(client, worker.id, event.exit_code, event.signal, worker.reason, worker.is_intended)
                )
            elif actor:
                commands.append(ev.ActorWorkerDied(actor, worker.id, event.exit_code, event.signal, worker.reason))
        del self.workers[worker.id]
        return commands + self._on_client_left(ev.ClientLeft(worker.id, event.at_s))

    def _on_start_failed(self, worker: Worker, event: ev.WorkerExited) -> list[AgentCommand]:
        if event.failure:  # it would be the same the next time
            waiting = [demand for demand in self.demands.values() if demand.env == worker.env]
            return self._fail(waiting, event.failure)
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
        return self._fail([demand for demand in self.demands.values() if demand.env == worker.env], reason)

    def _fail(self, demands: list[Demand], reason: str, log_of: str = "") -> list[AgentCommand]:
        commands: list[AgentCommand] = []
        for demand in demands:
            self._drop(demand.place)
            if demand.actor:
                commands.append(ev.ActorUnplaceable(demand.actor, reason, log_of=log_of))
            else:
                commands.append(ev.DemandFailed(demand.client, demand.key, reason, log_of=log_of))
        return commands

    # ---- environments ----

    def _use_environments(self) -> environments.Environments:
        if self.environments is None:
            from umbel._agent import environments

            self.environments = environments.Environments(self._worker_ids)
        return self.environments

    def _on_environment(self, event: environments.Event) -> list[AgentCommand]:
        return self._carry_out(self._use_environments().apply(event))

    def _settle_environments(self, at_s: float) -> list[AgentCommand]:
        wanted = {demand.build_key for demand in self.demands.values() if self._is_feasible(demand)}
        wanted.update(worker.build_key for worker in self.workers.values())
        return self._carry_out(self._use_environments().settle(wanted, at_s))

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
            due.append(surplus[0].since_s + self._idle_worker_s)
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
            if worker.since_s + self._idle_worker_s <= at_s:
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
        idle = [worker for worker in self.workers.values() if worker.state is WorkerState.IDLE]
        unkept = set() if self._is_kept is None else {one.id for one in idle if not self._is_kept(one.env)}
        beyond = len(idle) - len(unkept) - self._idle_max
        if beyond <= 0 and not unkept:
            return []
        willing = sorted(self._willing(), key=lambda worker: worker.since_s)
        extra = [worker.id for worker in willing if worker.id not in unkept][: max(0, beyond)]
        return [worker for worker in willing if worker.id in unkept or worker.id in extra]

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
        if not self.demands:
            return []
        for demand in self.demands.values():
            if demand.build_key and self._is_feasible(demand):
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
        if not idle and starts_left <= 0:
            return []  # nothing can change before one of them is ready
        for workers in idle.values():
            workers.sort(key=lambda worker: worker.since_s)  # the one used last, whose caches are warm, is taken first
        commands: list[AgentCommand] = []
        self._preferred = None
        promised = self.ledger.copy()  # what is free and not meant for a worker that is starting
        unserved: list[Demand] = []
        for demand in self._order(self.demands.values()):
            if not self._is_feasible(demand):
                continue
            left = demand.count
            most = self._most_now(demand)
            while left and most and not promised.missing(demand.resources):
                ready = None if self.ledger.missing(demand.resources) else _take(idle.get(demand.env, []), demand)
                if ready is not None:
                    commands.append(self._give(ready, demand, at_s))
                elif starting.get(demand.env, 0) > 0:
                    starting[demand.env] -= 1
                elif (
                    starts_left > 0
                    and demand.env not in self._starts_at_s
                    and (server := self._server_of(demand, at_s)) is not None
                ):
                    starts_left -= 1
                    commands.append(self._start(demand, server, at_s))
                else:
                    break
                promised.acquire(demand.resources)
                left -= 1
                most -= 1
            if left:
                unserved.append(demand)
                self._give_way(demand, promised, at_s)
        commands += self._reclaims(unserved)
        return commands

    def _give_way(self, demand: Demand, promised: Ledger, at_s: float) -> None:
        """Keep what there is of an unserved demand's resources from those behind it, if it has waited long enough."""
        if not self.ledger.missing(demand.resources):
            return
        if demand.short_since_s is None:
            demand.short_since_s = at_s
        elif fairness.has_precedence(at_s - demand.short_since_s):
            promised.hold(demand.resources)
            self._preferred = demand

    def _most_now(self, demand: Demand) -> int:
        """How many leases more the bound on leases without CPUs allows."""
        if demand.actor or demand.resources.get(CPU):
            return demand.count
        leases = self.clients[demand.client].values()
        busy = sum(1 for lease in leases if lease.key == demand.key and not lease.is_blocked)
        return max(0, self._free_leases_max - busy)

    def _give(self, worker: Worker, demand: Demand, at_s: float) -> AgentCommand:
        accelerators = self.ledger.acquire(demand.resources)
        lease = Lease(worker.id, demand, demand.resources, accelerators)
        worker.lease = lease
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
        return self._use_environments().want(demand.build_key, demand.build_timeout_s, at_s)

    def _start(self, demand: Demand, server: str, at_s: float) -> AgentCommand:
        worker = Worker(next(self._worker_ids), demand.env, at_s, demand.build_key)
        checks.invariant(worker.id not in self.workers, "two workers with one id", worker=worker.id)
        self.workers[worker.id] = worker
        return ev.StartWorker(worker.id, demand.env, server)

    def _reclaims(self, unserved: list[Demand]) -> list[AgentCommand]:
        if not unserved:
            return []
        leases = (lease for of_client in self.clients.values() for lease in of_client.values())
        commands: list[AgentCommand] = []
        for lease in fairness.leases_to_reclaim(unserved, leases, self.ledger):
            lease.is_reclaimed = True
            commands.append(ev.Reclaim(lease.client, lease.worker))
        return commands

    # ---- answers ----

    def pending(self, at_s: float = 0.0) -> list[Pending]:
        """Every waiting demand with the reason why it waits, in the order in which they will be served."""
        self._now_s = max(self._now_s, at_s)
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
            )
            for one in self._order(self.demands.values())
        ]

    def _reason(self, demand: Demand) -> Reason:
        if demand.refusal:
            return Reason(reasons.INFEASIBLE, "", demand.refusal)
        if demand.lacking:
            has = {name: self.ledger.total.get(name, 0) for name in demand.placement}
            in_all = ", ".join(f"{name}: {shown(name, amount)}" for name, amount in has.items())
            return Reason(
                reasons.INFEASIBLE,
                "it",
                f"needs {describe(demand.placement)}, but this node has {{{in_all}}} in all",
                f"ask for less of {', '.join(sorted(demand.lacking))}, or start Umbel with more",
                {"needs": dict(demand.placement), "total": has, "lacking": dict(demand.lacking)},
            )
        if self.environments is not None:
            unbuilt = self.environments.reason(demand.build_key, self._now_s)
            if unbuilt is not None:
                return unbuilt
        missing = self.ledger.missing(demand.resources)
        if missing:
            leases = [worker.lease for worker in self.workers.values() if worker.lease is not None]
            holders = sum(1 for lease in leases if any(lease.resources.get(name) for name in missing))
            short_of = ", ".join(
                f"{name} ({shown(name, max(0, self.ledger.free[name]))} of {shown(name, self.ledger.total[name])} free)"
                for name in sorted(missing)
            )
            who = "1 task or actor" if holders == 1 else f"{holders} tasks and actors"
            return Reason(
                reasons.RESOURCES,
                "it",
                f"needs {describe(demand.resources)} and waits for {short_of}, held by {who}",
                facts={
                    "needs": dict(demand.resources),
                    "free": {name: self.ledger.free[name] for name in sorted(missing)},
                    "held_by": holders,
                },
            )
        if not self._most_now(demand):
            text = f"{self._free_leases_max} of its tasks that need no CPU run already"
            return Reason(reasons.LIMIT, "", text, "give them num_cpus or wait", {"limit": self._free_leases_max})
        if self._preferred not in (None, demand):
            text = f"an older demand for {describe(self._preferred.resources)} goes first for a moment"
            return Reason(reasons.TURN, "", text, facts={"needs": dict(self._preferred.resources)})
        return Reason(reasons.STARTING, "its worker process", "is starting")

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        self.ledger.check()
        if self.environments is not None:
            self.environments.check()
        held = dict.fromkeys(self.ledger.total, 0)
        starting = 0
        for worker in self.workers.values():
            starting += worker.state is WorkerState.STARTING
            lease = worker.lease
            if worker.state in (WorkerState.LEASED, WorkerState.ACTOR):
                checks.invariant(lease is not None, "a worker in use without a lease", worker=worker.id)
            elif worker.state is not WorkerState.DYING:
                checks.invariant(lease is None, f"a worker that is {worker.state.value} has a lease", worker=worker.id)
            if lease is None:
                continue
            checks.invariant(
                lease.worker == worker.id, "a lease of another worker", worker=worker.id, other=lease.worker
            )
            checks.invariant(not (lease.client and lease.actor), "a lease with two holders", worker=worker.id)
            if lease.client:
                found = self.clients.get(lease.client, {}).get(worker.id)
                checks.invariant(
                    found is lease, "a lease that its holder does not know", worker=worker.id, client=lease.client
                )
            for name, amount in lease.resources.items():
                if amount and not (lease.is_blocked and name == CPU):
                    held[name] += amount
        for name, total in self.ledger.total.items():
            checks.invariant(self.ledger.free[name] + held[name] == total, "free and held do not add up", resource=name)
        checks.invariant(starting <= self._starts_max, "too many workers starting at once", starting=starting)
        for client, leases in self.clients.items():
            for worker_id, lease in leases.items():
                known = self.workers.get(worker_id)
                checks.invariant(
                    known is not None and known.lease is lease,
                    "a lease without its worker",
                    client=client,
                    worker=worker_id,
                )
        for place, demand in self.demands.items():
            checks.invariant(place == demand.place, "a demand in another's place", client=place[0])
            checks.invariant(demand.count > 0, "a demand for nothing", client=demand.client, key=demand.key)
            checks.invariant(
                bool(demand.actor) or demand.client in self.clients, "a demand of nobody", client=demand.client
            )


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


_START_HUNG = f"did not say that it is ready within {START_TIMEOUT_S:g} s"
