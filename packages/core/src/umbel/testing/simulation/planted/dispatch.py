"""Defects that the world `dispatch` finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from umbel._client import memory_kills
from umbel._objects import lineage
from umbel._scheduling import dispatch
from umbel._worker import main
from umbel.testing.simulation.planted.defect import Planted, instead

_lose_lease = dispatch.SchedulingClass.lose_lease


_take_back = dispatch.SchedulingClass.take_back


def _charge_all(cls: dispatch.SchedulingClass, worker: str, started: int) -> tuple[list[Any], list[Any]]:
    """A crash is blamed on every task that the worker had."""
    begun, fresh = _lose_lease(cls, worker, started)
    for task in fresh:
        cls.ready.remove(task)
    return begun + fresh, []


def _charge_none(cls: dispatch.SchedulingClass, worker: str, _started: int) -> tuple[list[Any], list[Any]]:
    """A crash is blamed on no task: what had begun runs again as often as it likes."""
    return _lose_lease(cls, worker, -1)


def _lose_handed_back(cls: dispatch.SchedulingClass, lease: dispatch.Lease, seqs: list[int]) -> list[Any]:
    """Of the tasks that a worker hands back the last is lost."""
    tasks = _take_back(cls, lease, seqs)
    if len(tasks) > 1:
        cls.ready.remove(tasks[-1])
    return tasks


def _keep_too(cls: dispatch.SchedulingClass, lease: dispatch.Lease, seqs: list[int]) -> list[Any]:
    """Tasks that a worker hands back stay on its list as well."""
    kept = dict(lease.inflight)
    tasks = _take_back(cls, lease, seqs)
    lease.inflight.update(kept)
    return tasks


def _retry_for_ever(kills: memory_kills.MemoryKills, task: Any, worker: bytes, report: Mapping[str, Any]) -> None:
    """A task that was alone is tried again."""
    _happened(kills, task, worker, {**report, "alone": False})


def _cancel_again(worker: main.Worker, parent: Any, until_seq: int, *, is_again: bool = True) -> None:
    """The children of a task are cancelled when it is told to end, and again when it ends."""
    _cancel_children(worker, parent, until_seq)


_cancel_children = main.Worker.cancel_children
_happened = memory_kills.MemoryKills.happened


_CLASS: Final = dispatch.SchedulingClass


PLANTS: Final[Mapping[str, Planted]] = {
    "crash-charges-all": instead("dispatch", _CLASS, "lose_lease", _charge_all, "D4"),
    "crash-charges-none": instead("dispatch", _CLASS, "lose_lease", _charge_none, "D5", "K6"),
    "hand-back-lost": instead("dispatch", _CLASS, "take_back", _lose_handed_back, "D", "list.remove"),
    "hand-back-kept": instead("dispatch", _CLASS, "take_back", _keep_too, "D", "R2"),
    "cancelled-twice": instead("dispatch", main.Worker, "cancel_children", _cancel_again, "D10"),
    "lineage-kept": instead("dispatch", lineage.Lineage, "freed", lambda *_: None, "O9"),
    "demand-not-raised": instead("dispatch", memory_kills.MemoryKills, "_raise_demand", lambda *_: None, "K6"),
    "alone-again": instead("dispatch", memory_kills.MemoryKills, "happened", _retry_for_ever, "K6"),
}
