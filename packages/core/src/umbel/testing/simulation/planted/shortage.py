"""Defects that the world `shortage` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._agent import shortage
from umbel.testing.simulation.planted.defect import Planted, instead

_decide = shortage.MemoryMonitor._decide


def _kill_the_largest(
    _machine: shortage.MemoryMonitor, uses: list[shortage.Use], _worth: float, _at_s: float
) -> shortage.Use | None:
    """Who holds most goes, whatever it costs and whoever has grown."""
    return max(uses, key=lambda use: use.resident_bytes, default=None)


def _kill_on(machine: shortage.MemoryMonitor, sample: shortage.Sampled) -> list[Any]:
    """The next one goes before the last one's memory is back."""
    machine._leaving.clear()
    return _decide(machine, sample)


def _kill_the_idle(machine: shortage.MemoryMonitor, sample: shortage.Sampled) -> list[Any]:
    """Idle workers are killed as others are."""
    report: dict[str, Any] = {"alone": False, "others": []}
    return [
        shortage.Kill(command.worker, shortage.FREE, report) if isinstance(command, shortage.Dismiss) else command
        for command in _decide(machine, sample)
    ]


def _kill_the_dearest(
    machine: shortage.MemoryMonitor, uses: list[shortage.Use], worth: float, at_s: float
) -> shortage.Use | None:
    """Of those to blame, whoever costs most goes."""
    dearer = [use._replace(cost=shortage.LOST_ACTOR - use.cost) for use in uses]
    victim = _victim(machine, dearer, worth, at_s)
    return next((use for use in uses if victim is not None and use.worker == victim.worker), None)


def _kill_early(_machine: shortage.MemoryMonitor, limit_bytes: int) -> int:
    """A quarter of what may be used is not."""
    return _allowed_bytes(_machine, limit_bytes) * 3 // 4


_victim = shortage.MemoryMonitor._victim


_allowed_bytes = shortage.MemoryMonitor.allowed_bytes


def _use_all(_machine: shortage.MemoryMonitor, limit_bytes: int) -> int:
    """Nothing is kept free."""
    return limit_bytes


_MONITOR: Final = shortage.MemoryMonitor


PLANTS: Final[Mapping[str, Planted]] = {
    "largest-killed": instead("shortage", _MONITOR, "_victim", _kill_the_largest, "K"),
    "killed-on": instead("shortage", _MONITOR, "_decide", _kill_on, "K3"),
    "idle-killed": instead("shortage", _MONITOR, "_decide", _kill_the_idle, "K2", "K3"),
    "dearest-killed": instead("shortage", _MONITOR, "_victim", _kill_the_dearest, "K4"),
    "killed-early": instead("shortage", _MONITOR, "allowed_bytes", _kill_early, "K1"),
    "nothing-kept-free": instead("shortage", _MONITOR, "allowed_bytes", _use_all, "K7"),
    "helpless-unsaid": instead("shortage", _MONITOR, "_complain", lambda *_: [], "K7"),
}
