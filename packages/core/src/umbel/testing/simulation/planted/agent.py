"""Defects that the world `agent` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import environments, ledger, state
from umbel._agent import events as agent_events
from umbel._agent import records as agent_records
from umbel._model import reasons
from umbel.testing.simulation.planted.defect import Planted, deaf, instead

_release = ledger.Ledger.release


_end_lease = state.AgentState._end_lease


_is_feasible = state.AgentState._is_feasible


def _keep_devices(book: ledger.Ledger, resources: Mapping[str, int], _accelerators: Any) -> None:
    """Devices are not given back by their ids."""
    _release(book, resources, {})


def _forget_lent(machine: state.AgentState, lease: agent_records.Lease) -> None:
    """The end of a lease forgets that its worker was blocked, and gives its CPU back a second time."""
    lease.is_blocked = False
    _end_lease(machine, lease)


_want = environments.Environments.want


def _hasty_server(machine: environments.Environments, key: str, timeout_s: float | None, at_s: float) -> str:
    """Workers are started without waiting for the build."""
    _want(machine, key, timeout_s, at_s)
    return machine.servers[key].id


_recycle = state.AgentState._recycle


def _recycle_idle_only(machine: state.AgentState, worker: agent_records.Worker, at_s: float) -> list[Any]:
    """Worn-out workers are replaced only once their clients give them back by themselves."""
    if worker.lease is None:
        return _recycle(machine, worker, at_s)
    worker.lease.is_recycled = True
    return []


_add = state.AgentState._add


def _give_up_the_short(machine: state.AgentState, place: agent_records.Place, event: Any) -> agent_records.Demand:
    """Who lacks what others hold now is taken for one that can never be served."""
    demand = _add(machine, place, event)
    if machine.ledger.missing(demand.resources):
        machine._infeasible[place] = demand
    return demand


def _always_starting(_machine: state.AgentState, _demand: agent_records.Demand) -> reasons.Reason:
    """Whoever waits is told that a process starts."""
    return reasons.Reason(reasons.STARTING, "its worker process", "is starting")


def _plain_only(machine: state.AgentState, demand: agent_records.Demand) -> bool:
    """Demands for environments of their own are never served."""
    return not demand.env and _is_feasible(machine, demand)


def _kill_whoever(machine: state.AgentState, event: agent_events.MemoryShort) -> list[Any]:
    """Also who is not in use any more."""
    worker = machine.workers.get(event.worker)
    return machine._kill(worker, event.reason, event.at_s) if worker is not None else []


_AGENT: Final = state.AgentState


PLANTS: Final[Mapping[str, Planted]] = {
    "devices-kept": instead("agent", ledger.Ledger, "release", _keep_devices, "devices and amount", "A"),
    "cpu-given-twice": instead("agent", _AGENT, "_end_lease", _forget_lent, "more is free", "free and held"),
    "return-unheard": instead("agent", _AGENT, "_on_lease_returned", deaf, "A", "R2"),
    "stayed-unheard": instead("agent", _AGENT, "_on_worker_stayed", deaf, "A"),
    "worn-out-kept": instead("agent", _AGENT, "_recycle", _recycle_idle_only, "A16"),
    "build-not-awaited": instead("agent", environments.Environments, "want", _hasty_server, "A15"),
    "plain-only": instead("agent", _AGENT, "_is_feasible", _plain_only, "A10", "A17", "A7"),
    "never-given-up": instead("agent", _AGENT, "_look_at_infeasible", lambda *_: [], "A10"),
    "short-given-up": instead("agent", _AGENT, "_add", _give_up_the_short, "A10"),
    "always-starting": instead("agent", _AGENT, "_reason", _always_starting, "A17"),
    "unused-killed": instead("agent", _AGENT, "_on_memory_short", _kill_whoever, "A14"),
}
