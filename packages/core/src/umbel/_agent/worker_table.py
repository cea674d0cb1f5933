"""A node's worker processes and who has leased them: what may happen to one, when it is asked to go, and when it is killed.

What always holds: a worker is in exactly one state; a worker in use has exactly one lease, and that lease one holder. Idle
workers beyond those that are kept go after a while, old ones are replaced, and who does not answer is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from umbel._agent import bundles, fairness, shares
from umbel._agent import events as ev
from umbel._agent.ledger import CPU, Ledger
from umbel._agent.records import START_TIMEOUT_S, Demand, Lease, Worker, WorkerState
from umbel._base import checks

START_RETRY_S = 0.2  # after a failed start; long enough not to spin, short enough to go unnoticed
ASK_TIMEOUT_S = 30.0  # a worker that does not answer a request to exit for so long is stuck
STAYED_RETRY_S = 2.0  # an idle or retired worker that still owns objects is asked again after so long
DRAIN_RETRY_S = 0.5  # or, where the node waits for nothing else before it ends, after so long
ORPHAN_GRACE_S = 5.0  # for a task whose submitter is gone to be interrupted; what does not end by then is stuck
ORPHAN_RETRY_S = 0.2
LOST_GRACE_S = 2.0  # between a worker's connection closing and its process being killed: time for its exit handlers
START_HUNG = f"did not say that it is ready within {START_TIMEOUT_S:g} s"


class WorkerTable:
    def __init__(
        self,
        ledger: Ledger,
        held: bundles.Bundles,
        known: shares.Shares,
        *,
        starts_max: int,
        idle_max: int,
        idle_worker_s: float,
        recycle_s: float | None,
        is_kept: Callable[[str], bool] | None,
    ) -> None:
        """held: what placement groups have of the ledger. The others: see `state.AgentState`."""
        self.workers: dict[str, Worker] = {}
        self.clients: dict[str, dict[str, Lease]] = {}  # client -> worker -> lease
        self.starts_max = starts_max
        self.starts_at_s: dict[str, float] = {}  # environment -> not before
        self.draining = ""  # why nothing begins here any more; "" while it does
        self.now_s = 0.0  # of the last event
        self._ledger = ledger
        self._bundles = held
        self._shares = known
        self._idle_max = idle_max
        self._idle_worker_s = idle_worker_s
        self._recycle_s = recycle_s
        self._is_kept = is_kept

    # ---- states ----

    def add(self, id: str, demand: Demand, at_s: float) -> Worker:
        """One that is started."""
        worker = Worker(id, demand.env, at_s, demand.build_key)
        checks.invariant(worker.id not in self.workers, "two workers with one id", worker=worker.id)
        self.workers[worker.id] = worker
        return worker

    def enter(self, worker: Worker, state: WorkerState, at_s: float) -> None:
        worker.state = state
        worker.since_s = at_s
        worker.deadline_s = None
        worker.ask_again_s = None

    def kill(self, worker: Worker, reason: str, at_s: float) -> list[ev.AgentCommand]:
        if worker.state is WorkerState.DYING:
            return []
        self.enter(worker, WorkerState.DYING, at_s)
        worker.reason = reason
        return [ev.KillWorker(worker.id)]

    def _ask_exit(self, worker: Worker, at_s: float) -> list[ev.AgentCommand]:
        self.enter(worker, WorkerState.LEAVING, at_s)
        worker.deadline_s = at_s + ASK_TIMEOUT_S
        return [ev.AskExit(worker.id, is_idle=True)]

    def lost(self, worker: Worker, at_s: float) -> None:
        """Its connection has closed."""
        worker.is_lost = True
        if worker.lease is None:
            self.enter(worker, WorkerState.LEAVING, at_s)
        worker.ask_again_s = None
        worker.deadline_s = at_s + LOST_GRACE_S

    # ---- leases ----

    def lease_of(self, worker: str) -> Lease | None:
        found = self.workers.get(worker)
        return found.lease if found is not None else None

    def of_actor(self, actor: str, id: str = "") -> Worker | None:
        """Which hosts it; one that is being killed does so no more, and another one may have been found for it already. id: of
        the worker that is meant; "" for any."""
        for worker in self.workers.values():
            is_its = worker.lease is not None and worker.lease.actor == actor and id in ("", worker.id)
            if is_its and worker.state is not WorkerState.DYING:
                return worker
        return None

    def _ledger_of(self, lease: Lease) -> Ledger:
        """From which it has what it holds."""
        return self._ledger if lease.bundle is None else lease.bundle.ledger

    def give(self, worker: Worker, demand: Demand, bundle: bundles.Bundle | None, at_s: float) -> ev.AgentCommand:
        """The worker to whom the demand is of, with its resources out of the bundle, or of the node."""
        accelerators = (self._ledger if bundle is None else bundle.ledger).acquire(demand.resources)
        lease = Lease(worker.id, demand, demand.resources, accelerators, bundle)
        if bundle is not None:
            bundle.lease_count += 1
        worker.lease = lease
        self._shares.begins(lease.job)
        if demand.actor:
            self.enter(worker, WorkerState.ACTOR, at_s)
            return ev.HostActor(demand.actor, worker.id, demand.resources, accelerators)
        self.enter(worker, WorkerState.LEASED, at_s)
        worker.has_run_tasks = True
        self.clients[demand.client][worker.id] = lease
        return ev.Grant(demand.client, demand.key, worker.id, demand.resources, accelerators)

    def end_lease(self, lease: Lease) -> None:
        """Gives back what it holds. The worker's state is the caller's business."""
        ledger = self._ledger_of(lease)
        if lease.is_blocked:
            ledger.retake_cpu(lease.resources.get(CPU, 0))
        ledger.release(lease.resources, lease.accelerators)
        self._shares.ends(lease.job)
        if lease.bundle is not None:
            self._bundles.lease_ended(lease.bundle)
        self.workers[lease.worker].lease = None
        if lease.client:
            del self.clients[lease.client][lease.worker]

    def orphan(self, lease: Lease, at_s: float) -> list[ev.AgentCommand]:
        """The lease's holder is gone. The worker may own objects that others borrow, so it is not killed: it drops or
        interrupts that holder's tasks and answers; one whose task does not end is killed in the end."""
        worker = self.workers[lease.worker]
        lease.client = ""  # nobody is told of its end
        if worker.state is not WorkerState.LEASED:
            return []
        worker.reason = "the process that had submitted its task is gone"
        worker.is_intended = True
        worker.deadline_s = at_s + ORPHAN_GRACE_S
        return [ev.AskExit(worker.id, is_idle=True)]

    def ask_back(self, lease: Lease) -> ev.AgentCommand:
        lease.is_reclaimed, lease.reclaimed_s = True, self.now_s
        return ev.Reclaim(lease.client, lease.worker)

    def empty(
        self, busy: list[bundles.Bundle], reason: str, at_s: float, *, is_intended: bool = False
    ) -> list[ev.AgentCommand]:
        """Kill what runs in bundles that nobody wants any more."""
        commands: list[ev.AgentCommand] = []
        for worker in self.workers.values() if busy else ():
            if worker.lease is not None and worker.lease.bundle in busy:
                worker.is_intended |= is_intended
                if is_intended:
                    worker.ended_group = worker.lease.bundle.group
                commands += self.kill(worker, reason, at_s)
        return commands

    # ---- what happens to them ----

    def on_lease_returned(self, event: ev.LeaseReturned) -> list[ev.AgentCommand]:
        lease = self.clients.get(event.client, {}).get(event.worker)
        if lease is None:
            return []  # the worker died, or was killed, while the message was under way
        worker = self.workers[event.worker]
        self.end_lease(lease)
        if worker.state is not WorkerState.LEASED:
            return []
        if worker.is_lost:
            return self.kill(worker, "its connection to the agent was closed", event.at_s)
        if event.is_retired or (self._is_old(worker, event.at_s) and self._may_recycle()):
            return self._retire(worker, event.at_s)
        self.enter(worker, WorkerState.IDLE, event.at_s)
        return []

    def on_worker_blocked(self, event: ev.WorkerBlocked) -> list[ev.AgentCommand]:
        lease = self.lease_of(event.worker)
        if lease is None or lease.is_blocked:
            return []
        lease.is_blocked = True
        self._ledger_of(lease).lend_cpu(lease.resources.get(CPU, 0))
        return self._relieve(lease)

    def on_worker_unblocked(self, event: ev.WorkerUnblocked) -> list[ev.AgentCommand]:
        lease = self.lease_of(event.worker)
        if lease is None or not lease.is_blocked:
            return []
        lease.is_blocked = False
        self._ledger_of(lease).retake_cpu(lease.resources.get(CPU, 0))
        return self._relieve(lease)

    def _relieve(self, changed: Lease) -> list[ev.AgentCommand]:
        """Ask back what is in use beyond the CPUs of the node, or of the bundle that this lease is in: it waits since now, or
        goes on."""
        excess = -self._ledger_of(changed).free.get(CPU, 0)
        if excess <= 0:
            return []
        idle: list[Lease] = []
        busy: list[Lease] = []
        for client, leases in self.clients.items():
            holder = self.workers.get(client)
            is_waiting = holder is None or (holder.lease is not None and holder.lease.is_blocked)
            for one in leases.values():
                if one.bundle is changed.bundle and not one.is_blocked:
                    is_busy = self.workers[one.worker].state is WorkerState.LEASED and (is_waiting or one is changed)
                    (busy if is_busy else idle).append(one)
        return [self.ask_back(one) for one in fairness.leases_in_excess(excess, idle, busy, changed)]

    def on_kill_requested(self, event: ev.KillRequested) -> list[ev.AgentCommand]:
        if event.worker not in self.clients.get(event.client, {}):
            return []  # it died meanwhile, or is no longer this client's
        worker = self.workers[event.worker]
        worker.is_intended = True
        return self.kill(worker, event.reason, event.at_s)

    def on_tasks_preempted(self, event: ev.TasksPreempted) -> list[ev.AgentCommand]:
        found = [worker for one in event.workers if (worker := self.workers.get(one)) is not None]
        are_used = [one.state is WorkerState.LEASED and one.lease is not None and one.lease.client for one in found]
        if len(found) < len(event.workers) or not all(are_used):
            return []  # one of them is not needed any more, or has ended
        commands: list[ev.AgentCommand] = []
        for worker in found:
            worker.is_preempted = True
            commands += self.kill(worker, event.reason, event.at_s)
        return commands

    def on_worker_stayed(self, event: ev.WorkerStayed) -> list[ev.AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is None:
            return []
        if worker.state is WorkerState.LEASED and worker.lease is not None and not worker.lease.client:
            if event.is_running:
                worker.ask_again_s = event.at_s + ORPHAN_RETRY_S
                return []
            worker.reason = ""
            worker.is_intended = False
            self.end_lease(worker.lease)
            self.enter(worker, WorkerState.IDLE, event.at_s)
            worker.ask_again_s = event.at_s + (DRAIN_RETRY_S if self.draining else STAYED_RETRY_S)
            return []
        if worker.state is not WorkerState.LEAVING:
            return []
        if worker.is_retired:
            worker.deadline_s = None
        else:
            self.enter(worker, WorkerState.IDLE, event.at_s)
        worker.ask_again_s = event.at_s + (DRAIN_RETRY_S if self.draining else STAYED_RETRY_S)
        return []

    def on_memory_short(self, event: ev.MemoryShort) -> list[ev.AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is None or worker.lease is None:
            return []  # it has ended, or what it did has, while somebody looked
        return self.kill(worker, event.reason, event.at_s)

    def on_worker_overgrown(self, event: ev.WorkerOvergrown) -> list[ev.AgentCommand]:
        worker = self.workers.get(event.worker)
        return self._recycle(worker, event.at_s) if worker is not None and _is_replaceable(worker) else []

    def on_worker_dismissed(self, event: ev.WorkerDismissed) -> list[ev.AgentCommand]:
        worker = self.workers.get(event.worker)
        if worker is None or worker.state is not WorkerState.IDLE:
            return []
        return self._ask_exit(worker, event.at_s)

    def on_draining_changed(self, event: ev.DrainingChanged) -> list[ev.AgentCommand]:
        """What runs goes on; what was sent behind it to the same worker comes back to who sent it."""
        self.draining = event.reason
        commands: list[ev.AgentCommand] = []
        for worker in self.workers.values() if event.reason else ():
            lease = worker.lease
            if worker.state is WorkerState.IDLE or (
                worker.state is WorkerState.LEAVING and worker.ask_again_s is not None
            ):
                commands += self._ask_exit(worker, event.at_s)
            elif lease is not None and lease.client and lease.bundle is None and not lease.is_reclaimed:
                commands.append(self.ask_back(lease))
        return commands

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
        if self._recycle_s is None:
            return None
        oldest = next(filter(_is_replaceable, self.workers.values()), None)  # they are listed by age
        if oldest is None:
            return None
        old_s = oldest.made_s + self._recycle_s
        return old_s if old_s > self.now_s or self._may_recycle() else None

    def _recycle(self, worker: Worker, at_s: float) -> list[ev.AgentCommand]:
        """An idle worker goes. One in use is asked back: what was sent to it is done there, and whether it goes is
        decided when it comes back."""
        lease = worker.lease
        if lease is None:
            return self._retire(worker, at_s)
        lease.is_recycled = True
        return [ev.Reclaim(lease.client, worker.id)]

    def _retire(self, worker: Worker, at_s: float) -> list[ev.AgentCommand]:
        worker.is_retired = True
        return self._ask_exit(worker, at_s)

    # ---- time ----

    def due_s(self) -> list[float]:
        """When `tick` has something to do."""
        due = [
            at for worker in self.workers.values() for at in (worker.deadline_s, worker.ask_again_s) if at is not None
        ]
        if (at_s := self._next_old_s()) is not None:
            due.append(at_s)
        surplus = self._surplus()
        if surplus:
            due.append(surplus[0].since_s + self._surplus_s)
        due += self.starts_at_s.values()
        return due

    def tick(self, at_s: float) -> list[ev.AgentCommand]:
        self.starts_at_s = {env: start_s for env, start_s in self.starts_at_s.items() if start_s > at_s}
        commands: list[ev.AgentCommand] = []
        for worker in self.workers.values():
            if worker.deadline_s is not None and worker.deadline_s <= at_s:
                is_start = worker.state is WorkerState.STARTING
                if is_start:
                    self.starts_at_s[worker.env] = at_s + START_RETRY_S
                commands += self.kill(
                    worker,
                    START_HUNG if is_start else worker.reason or "it did not answer or exit when asked to",
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

    # ---- the invariants ----

    def check(self) -> None:
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
        if starting > self.starts_max:
            raise checks.broken("too many workers starting at once", starting=starting)
        for client, leases in self.clients.items():
            for worker_id, lease in leases.items():
                known = self.workers.get(worker_id)
                if known is None or known.lease is not lease:
                    raise checks.broken("a lease without its worker", client=client, worker=worker_id)
        self._check_resources()

    def _check_lease(self, worker: Worker, lease: Lease) -> None:
        if lease.worker != worker.id:
            raise checks.broken("a lease of another worker", worker=worker.id, other=lease.worker)
        if lease.client and lease.actor:
            raise checks.broken("a lease with two holders", worker=worker.id)
        if lease.client and self.clients.get(lease.client, {}).get(worker.id) is not lease:
            raise checks.broken("a lease that its holder does not know", worker=worker.id, client=lease.client)
        if lease.actor and worker.is_preempted:
            raise checks.broken("an actor was stopped for others", worker=worker.id)

    def _check_resources(self) -> None:
        """What is free, what the leases hold and what bundles hold add up to what there is."""
        held = dict.fromkeys(self._ledger.total, 0)
        in_bundles: dict[bundles.Bundle, dict[str, int]] = {}
        lease_counts: dict[bundles.Bundle, int] = {}
        for bundle in self._bundles:
            in_bundles[bundle] = dict.fromkeys(bundle.resources, 0)
            for name, amount in bundle.resources.items():
                held[name] += amount
        for worker in self.workers.values():
            lease = worker.lease
            if lease is None:
                continue
            book = held
            if lease.bundle is not None:
                checks.invariant(lease.bundle in in_bundles, "a lease in a bundle that is gone", worker=worker.id)
                lease_counts[lease.bundle] = lease_counts.get(lease.bundle, 0) + 1
                book = in_bundles[lease.bundle]
            for name, amount in lease.resources.items():
                if amount and not (lease.is_blocked and name == CPU):
                    book[name] += amount
        free = self._ledger.free
        for name, total in self._ledger.total.items():
            if free[name] + held[name] != total:
                raise checks.broken("free and held do not add up", resource=name)
        for bundle, book in in_bundles.items():
            counted = lease_counts.get(bundle, 0)
            checks.invariant(bundle.lease_count == counted, "leases in a bundle were miscounted", group=bundle.group)
            for name, total in bundle.resources.items():
                is_right = bundle.ledger.free[name] + book[name] == total
                checks.invariant(is_right, "free and held in a bundle do not add up", group=bundle.group, resource=name)


def _is_replaceable(worker: Worker) -> bool:
    """Whether it can be told to go, for it is idle and has not just refused, or can be asked back from a client."""
    if worker.state is WorkerState.IDLE:
        return worker.ask_again_s is None
    lease = worker.lease
    return worker.state is WorkerState.LEASED and lease is not None and bool(lease.client) and not lease.is_recycled


_IN_USE: Final = (WorkerState.LEASED, WorkerState.ACTOR)
