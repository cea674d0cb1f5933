"""Defects that the world `agent` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import demand_reasons, demand_table, environments, ledger, packages, preemption, shares, worker_table
from umbel._agent import events as agent_events
from umbel._agent import records as agent_records
from umbel._model import reasons
from umbel.testing.simulation.planted.defect import Planted, deaf, instead

_release = ledger.Ledger.release


_end_lease = worker_table.WorkerTable.end_lease


_is_feasible = demand_table.DemandTable.is_feasible


def _keep_devices(book: ledger.Ledger, resources: Mapping[str, int], _accelerators: Any) -> None:
    """Devices are not given back by their ids."""
    _release(book, resources, {})


def _forget_lent(table: worker_table.WorkerTable, lease: agent_records.Lease) -> None:
    """The end of a lease forgets that its worker was blocked, and gives its CPU back a second time."""
    lease.is_blocked = False
    _end_lease(table, lease)


_want = environments.Environments.want


def _hasty_server(
    machine: environments.Environments, key: str, timeout_s: float | None, at_s: float, source: str = ""
) -> str:
    """Workers are started without waiting for the build."""
    _want(machine, key, timeout_s, at_s, source)
    return machine.servers[key].id


def _build_with_the_first(machine: environments.Environments, event: packages.Event) -> None:
    """Of several packages, the first one does."""
    come = machine._packages.apply(event) if machine._packages is not None else ""
    for server in machine.servers.values():
        if come in server.lacks:
            server.lacks.clear()
            server.state = environments.State.QUEUED
            server.deadline_s = None


def _ask_the_dead(table: packages.Packages, event: packages.Event) -> str:
    """That a node has died is not heard."""
    return "" if isinstance(event, packages.NodeDied) else _apply_to_packages(table, event)


_apply_to_packages = packages.Packages.apply


_recycle = worker_table.WorkerTable._recycle


def _recycle_idle_only(table: worker_table.WorkerTable, worker: agent_records.Worker, at_s: float) -> list[Any]:
    """Worn-out workers are replaced only once their clients give them back by themselves."""
    if worker.lease is None:
        return _recycle(table, worker, at_s)
    worker.lease.is_recycled = True
    return []


_add = demand_table.DemandTable.add


def _give_up_the_short(table: demand_table.DemandTable, place: agent_records.Place, event: Any) -> agent_records.Demand:
    """Who lacks what others hold now is taken for one that can never be served."""
    demand = _add(table, place, event)
    if table._ledger.missing(demand.resources):
        table.infeasible[place] = demand
    return demand


def _always_starting(_reasons: demand_reasons.DemandReasons, _demand: agent_records.Demand) -> reasons.Reason:
    """Whoever waits is told that a process starts."""
    return reasons.Reason(reasons.STARTING, "its worker process", "is starting")


def _plain_only(table: demand_table.DemandTable, demand: agent_records.Demand) -> bool:
    """Demands for environments of their own are never served."""
    return not demand.env and _is_feasible(table, demand)


_turn = shares.Standing.turn
_must_give = shares.Standing.must_give
_seen = preemption.Preemption.seen


def _alike_in_turn(standing: shares.Standing, demand: agent_records.Demand) -> tuple[int, bool, float, float]:
    """Priorities count when leases are asked back, and not when they are given away."""
    return (0, *_turn(standing, demand)[1:])


def _give_to_higher_only(standing: shares.Standing, lease: agent_records.Lease, demand: agent_records.Demand) -> bool:
    """Jobs of one priority keep what they have."""
    return lease.job.priority != demand.job.priority and _must_give(standing, lease, demand)


def _unkept(machine: preemption.Preemption, event: agent_events.TaskSeen) -> None:
    """Whatever runs may be stopped."""
    _seen(machine, event._replace(keeps=""))


_on_tasks_preempted = worker_table.WorkerTable.on_tasks_preempted


def _stop_as_if_it_crashed(table: worker_table.WorkerTable, event: agent_events.TasksPreempted) -> list[Any]:
    """Owners are not told that the task was not to blame."""
    commands = _on_tasks_preempted(table, event)
    for worker in event.workers if commands else ():
        table.workers[worker].is_preempted = False
    return commands


def _kill_whoever(table: worker_table.WorkerTable, event: agent_events.MemoryShort) -> list[Any]:
    """Also who is not in use any more."""
    worker = table.workers.get(event.worker)
    return table.kill(worker, event.reason, event.at_s) if worker is not None else []


def _first_of_actor(table: worker_table.WorkerTable, actor: str, _id: str = "") -> agent_records.Worker | None:
    """The worker that the actor had before, which has not ended yet, is taken for its host."""
    leases = [worker.lease for worker in table.workers.values() if worker.lease is not None]
    return next((table.workers[lease.worker] for lease in leases if lease.actor == actor), None)


_WORKERS: Final = worker_table.WorkerTable
_DEMANDS: Final = demand_table.DemandTable


PLANTS: Final[Mapping[str, Planted]] = {
    "devices-kept": instead("agent", ledger.Ledger, "release", _keep_devices, "devices and amount", "A"),
    "cpu-given-twice": instead("agent", _WORKERS, "end_lease", _forget_lent, "more is free", "free and held"),
    "return-unheard": instead("agent", _WORKERS, "on_lease_returned", deaf, "A", "R2"),
    "stayed-unheard": instead("agent", _WORKERS, "on_worker_stayed", deaf, "A"),
    "worn-out-kept": instead("agent", _WORKERS, "_recycle", _recycle_idle_only, "A16"),
    "build-not-awaited": instead("agent", environments.Environments, "want", _hasty_server, "A15"),
    "first-package-does": instead("agent", environments.Environments, "_on_package", _build_with_the_first, "A18"),
    "others-not-asked": instead("agent", packages.Packages, "_look_around", lambda *_: None, "A18"),
    "dead-asked-for-packages": instead("agent", packages.Packages, "apply", _ask_the_dead, "A18", "R2"),
    "plain-only": instead("agent", _DEMANDS, "is_feasible", _plain_only, "A10", "A17", "A7"),
    "never-given-up": instead("agent", _DEMANDS, "look_at_infeasible", lambda *_: [], "A10"),
    "short-given-up": instead("agent", _DEMANDS, "add", _give_up_the_short, "A10"),
    "alike-in-turn": instead("agent", shares.Standing, "turn", _alike_in_turn, "A19"),
    "equals-keep": instead("agent", shares.Standing, "must_give", _give_to_higher_only, "A19"),
    "stopped-for-good": instead("agent", preemption.Preemption, "seen", _unkept, "A20"),
    "stopped-unsaid": instead("agent", _WORKERS, "on_tasks_preempted", _stop_as_if_it_crashed, "A20"),
    "overdrawn-kept": instead("agent", worker_table.WorkerTable, "_relieve", lambda *_: [], "A25"),
    "always-starting": instead("agent", demand_reasons.DemandReasons, "reason", _always_starting, "A17"),
    "dying-host-counts": instead("agent", _WORKERS, "of_actor", _first_of_actor, "A13", "R2"),
    "unused-killed": instead("agent", _WORKERS, "on_memory_short", _kill_whoever, "A14"),
}
