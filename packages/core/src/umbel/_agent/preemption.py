"""Which running tasks are stopped for a job of higher priority that wants it so. Pure.

Leases that were asked back for it come back when their tasks end. What has not ended after `PATIENCE_S` is looked at: its worker
says what it runs since when, and whether it may be stopped, which it may not if that is not to be tried again, or if others need
what the worker keeps. One that does not say so for `SILENT_S` is taken for one that may not be stopped. Of those that may, the
newest are stopped, of which the least is lost: as many as are needed beside what comes back in any case, and for one lease all
that it needs together, or nothing. Actors are left alone, and so is whatever runs in a placement group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from umbel._agent import events as ev
from umbel._agent import fairness
from umbel._agent.ledger import added, shown
from umbel._agent.records import Demand, Lease

PATIENCE_S = 1.0  # most tasks end within it; starting a worker anew costs a tenth of it, its imports may cost all of it
ANSWER_S = 0.5  # a worker answers at once, unless its interpreter is held up; who does not is left alone for now
AGAIN_S = 1.0  # one that could not be stopped, or did not answer, is asked again after so long
SILENT_S = 3.0  # of questions without an answer, until nobody counts on what it has; longer than most calls into C code
SILENT = "its worker does not say what runs there"


class Preemption:
    """Made when a job first wants it."""

    def __init__(self) -> None:
        self._asked_s: dict[str, float] = {}  # worker -> when it was asked last
        self._seen: dict[str, ev.TaskSeen] = {}  # what it has answered since
        self._unanswered_s: dict[str, float] = {}  # worker -> when it was asked first since it has answered last
        self.due_s: float | None = None  # when to look again

    def seen(self, event: ev.TaskSeen) -> None:
        if event.worker in self._asked_s:
            self._seen[event.worker] = event
            self._unanswered_s.pop(event.worker, None)

    def orders(
        self,
        unserved: Sequence[Demand],
        leases: Iterable[Lease],
        ending: Iterable[Lease],
        missing_of: Callable[[Demand], dict[str, int]],
        at_s: float,
    ) -> list[ev.LookAtTask | ev.Preempt]:
        """unserved: of those for which tasks may be stopped. leases: that were asked back, of workers in use. ending: of workers
        that were killed, whose end is not known yet. missing_of: what a demand lacks for one lease."""
        highest = max(demand.job.priority for demand in unserved)
        asked_back = {one.worker: one for one in leases if one.job.priority < highest and not one.is_blocked}
        self._asked_s = {worker: at for worker, at in self._asked_s.items() if worker in asked_back}
        self._seen = {worker: seen for worker, seen in self._seen.items() if worker in asked_back}
        self._unanswered_s = {worker: at for worker, at in self._unanswered_s.items() if worker in asked_back}
        due = [one.reclaimed_s + PATIENCE_S for one in asked_back.values()]
        late = [one for one in asked_back.values() if one.reclaimed_s + PATIENCE_S <= at_s]
        orders: list[ev.LookAtTask | ev.Preempt] = []
        for lease in late:
            if lease.worker not in self._asked_s or self._asked_s[lease.worker] + AGAIN_S <= at_s:
                self._asked_s[lease.worker] = at_s
                self._seen.pop(lease.worker, None)
                if self._unanswered_s.setdefault(lease.worker, at_s) + SILENT_S <= at_s:
                    lease.keeps = SILENT
                orders.append(ev.LookAtTask(lease.worker))
        waiting = [one.worker for one in late if one.worker not in self._seen]
        waiting = [worker for worker in waiting if self._asked_s[worker] + ANSWER_S > at_s]
        if not waiting:
            orders += self._chosen(unserved, late, ending, missing_of)
        due += [self._asked_s[worker] + ANSWER_S for worker in waiting]
        due += [asked_s + AGAIN_S for asked_s in self._asked_s.values()]
        self.due_s = min((one for one in due if one > at_s), default=None)
        return orders

    def _chosen(
        self,
        unserved: Sequence[Demand],
        late: Sequence[Lease],
        ending: Iterable[Lease],
        missing_of: Callable[[Demand], dict[str, int]],
    ) -> list[ev.Preempt]:
        seen = {one.worker: self._seen[one.worker] for one in late if one.worker in self._seen}
        idle = [one for one in late if one.worker in seen and seen[one.worker].task < 0]  # they come back by themselves
        coming = added(one.resources for one in (*ending, *idle) if not one.is_blocked)
        candidates = [
            one for one in late if one.worker in seen and seen[one.worker].task >= 0 and not seen[one.worker].keeps
        ]
        if not candidates:
            return []
        candidates.sort(key=lambda one: -seen[one.worker].since_s)
        orders: list[ev.Preempt] = []
        for demand in unserved:
            missing = missing_of(demand)
            for _ in range(demand.count if any(missing.values()) else 0):
                wanted = dict(missing)
                fairness.take_coming(missing, coming)
                chosen = _enough_of([one for one in candidates if one.job.priority < demand.job.priority], missing)
                if chosen:
                    stopped = tuple((one.worker, seen[one.worker].task) for one in chosen)
                    orders.append(ev.Preempt(stopped, _reason(demand, wanted)))
                elif any(missing.values()):
                    break  # it cannot be had so
                for one in chosen:
                    candidates.remove(one)
                    del self._seen[one.worker]
                missing = {name: need for name, need in demand.resources.items() if need}
        return orders


def _enough_of(candidates: Sequence[Lease], missing: Mapping[str, int]) -> list[Lease]:
    """The first ones that have all that is missing, without those that are not needed beside the others; none if all have not."""
    left, chosen = dict(missing), list[Lease]()
    for lease in candidates:
        if any(left.get(name) and amount for name, amount in lease.resources.items()):
            chosen.append(lease)
            left = {name: max(0, amount - lease.resources.get(name, 0)) for name, amount in left.items()}
    if any(left.values()):
        return []
    for lease in chosen[::-1]:
        rest = [one for one in chosen if one is not lease]
        there = added(one.resources for one in rest)
        if all(there.get(name, 0) >= amount for name, amount in missing.items()):
            chosen = rest
    return chosen


def _reason(demand: Demand, missing: Mapping[str, int]) -> str:
    job = demand.job
    wanted = ", ".join(f"{name} {shown(name, amount)}" for name, amount in sorted(missing.items()) if amount)
    return f"was stopped for job {job.id} of priority {job.priority}, which waits for {wanted}"
