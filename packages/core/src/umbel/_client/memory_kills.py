"""What an owner does about its tasks whose workers were killed because memory was short.

Such a task is tried again `UMBEL_TASK_OOM_RETRIES` times, apart from its other retries, each time with what it was seen to
hold added to the `memory` that it asks for: so it waits until that much is promised to nobody else, and runs with less
company, in the end alone. From the second time on it waits for a moment too, in case another program is the cause. One
that was alone already is not tried again: nothing would change. All of this runs under the engine's lock.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._model import resources as resource_model

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine
    from umbel._client.task import Task, Template

MEMORY = resource_model.MEMORY
UNIT = resource_model.RESOURCE_UNIT
DELAY_S, DELAY_S_MAX = 0.1, 10.0  # doubled with each kill from the second on
CURVE_POINTS_SHOWN = 8
OTHERS_SHOWN = 5
_ADVICE = (
    "Ask for what it needs with memory=..., so that less runs beside it; give it num_cpus > 1, or process its data in "
    "smaller parts"
)


class Killed:
    """What happened to one task so far. demand_bytes: what it asks for now."""

    __slots__ = ("base", "count", "demand_bytes", "due_s", "peak_bytes")

    def __init__(self, base: Template) -> None:
        self.base = base
        self.count = 0
        self.peak_bytes = 0
        self.demand_bytes = base.announcement["resources"].get(MEMORY, 0) // UNIT
        self.due_s = 0.0


class MemoryKills:
    """The tasks of one owner that were killed for memory."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._book = engine.tasks
        self._killed: dict[int, Killed] = {}
        self._templates: dict[tuple[int, int], Template] = {}
        self._delayed: list[tuple[float, int]] = []  # (when, task), a heap

    def of(self, seq: int) -> Killed | None:
        return self._killed.get(seq)

    def happened(self, task: Task, worker: bytes, report: dict[str, Any]) -> None:
        """The task's worker was killed while the task ran."""
        unfinished = self._book.unfinished
        self._killed = {seq: killed for seq, killed in self._killed.items() if seq in unfinished}
        killed = self._killed.setdefault(task.seq, Killed(task.template))
        killed.count += 1
        killed.peak_bytes = max(killed.peak_bytes, report["peak_bytes"])
        limit = self._engine.config.task_oom_retries
        why_not = ""
        if not killed.base.max_retries:
            why_not = "it has max_retries=0"
        elif report["alone"]:
            why_not = "it ran alone, so that nothing would change"
        elif 0 <= limit < killed.count:
            why_not = f"UMBEL_TASK_OOM_RETRIES is {limit}"
        error = self._error(task, report, killed, why_not)
        blob = exceptions.dump_error(error)
        self._book.note_failure(task, worker, blob)
        if why_not:
            self._book.settle_failure(task, blob)
            return
        self._engine.troubles.retried(killed.base.name, limit if limit < 0 else limit - killed.count + 1, blob)
        self._raise_demand(task, killed)
        self._engine.leases.begin_again(task, is_delayed=killed.count > 1)
        if killed.count > 1:
            delay_s = min(DELAY_S * 2 ** (killed.count - 2), DELAY_S_MAX)
            killed.due_s = time.monotonic() + delay_s
            heapq.heappush(self._delayed, (killed.due_s, task.seq))
            self._engine.reactor.poke()

    def answer_lost(self, task: Task, worker: bytes, report: dict[str, Any]) -> None:
        """The task had run, and its worker was killed, while it ran another, before its answer was out."""
        outcome = "It had run, but its result was not sent yet; it runs again."
        error = error_of(f"task {task.template.name}", report, outcome)
        self._book.note_failure(task, worker, exceptions.dump_error(error))
        self._engine.leases.begin_again(task)

    def release(self, now_s: float) -> float | None:
        """Let those run that have waited for long enough; in how many seconds the next one has."""
        while self._delayed and self._delayed[0][0] <= now_s:
            _, seq = heapq.heappop(self._delayed)
            task = self._book.unfinished.get(seq)
            if task is not None and task.lease is None:  # else an argument was lost and came back meanwhile
                self._engine.leases.begin_again(task)
        return self._delayed[0][0] - now_s if self._delayed else None

    def _raise_demand(self, task: Task, killed: Killed) -> None:
        if (
            isinstance(killed.base.announcement.get("strategy"), dict)
            and "placement_group" in killed.base.announcement["strategy"]
        ):
            return  # its bundle has what it has
        total = self._engine.welcome["resources"].get(MEMORY, 0) // UNIT
        wanted = _rounded(killed.demand_bytes + killed.peak_bytes)
        killed.demand_bytes = max(killed.demand_bytes, min(wanted, total))
        key = (killed.base.index, killed.demand_bytes)
        made = self._templates.get(key)
        if made is None:
            made = self._templates[key] = self._book.with_resources(
                killed.base, {**killed.base.announcement["resources"], MEMORY: killed.demand_bytes * UNIT}
            )
        task.template = made

    def _error(self, task: Task, report: dict[str, Any], killed: Killed, why_not: str) -> exceptions.OutOfMemoryError:
        again = f"it is not tried again, since {why_not}" if why_not else "it is tried again, with less beside it"
        times = "once" if killed.count == 1 else f"{killed.count} times"
        names = {
            lease.worker: _name_of(lease)
            for cls in self._engine.leases.classes.values()
            for lease in cls.leases.values()
        }
        return error_of(f"task {killed.base.name}", report, f"It was killed {times}; {again}.", names, killed.count)


def _name_of(lease: Any) -> str:
    """What runs there, as far as its owner knows."""
    return next((task.template.name for task in lease.inflight.values()), "nothing")


def _rounded(size_bytes: int) -> int:
    """A little more, so that few amounts are asked for: workers are leased for each one apart."""
    step = 1 << max(20, size_bytes.bit_length() - 4)
    return -(-size_bytes // step) * step


def error_of(
    what: str, report: Mapping[str, Any], outcome: str, names: Mapping[str, str] | None = None, kills: int = 1
) -> exceptions.OutOfMemoryError:
    """The error for whoever waits for `what`. names: what other workers run."""
    by = "memory ran short"
    if report.get("by_limit"):
        by = "it exceeded the memory= that it had asked for, to which UMBEL_MEMORY_ISOLATION holds it"
    elif report.get("by_system"):
        by = "the system had no memory left for it. When last looked at"
    lines = [
        f"{what} was killed with its worker (pid {report['pid']}) because {by}: {report['source']} "
        f"{_mib(report['used_bytes'])} of {_mib(report['limit_bytes'])}, allowed are {_mib(report['allowed_bytes'])}.",
        f"  Its worker held {', '.join(_curve(report))}; at most {_mib(report['peak_bytes'])}. It had asked for "
        f"memory={report['demand_bytes']}.",
        f"  Beside it: {', '.join(_company(report, names or {}))}.",
        f"  {outcome} {_ADVICE}.",
    ]
    return exceptions.OutOfMemoryError(
        "\n".join(lines),
        curve=[(at_s, size) for at_s, size in report["curve"]],
        peak_bytes=report["peak_bytes"],
        used_bytes=report["used_bytes"],
        limit_bytes=report["limit_bytes"],
        demand_bytes=report["demand_bytes"],
        others=list(report["others"]),
        kills=kills,
    )


def _curve(report: Mapping[str, Any]) -> Iterator[str]:
    points = report["curve"]
    count = min(CURVE_POINTS_SHOWN, len(points))
    for index in range(count):
        at_s, size = points[index * (len(points) - 1) // max(1, count - 1)]
        yield f"{_mib(size)} at {at_s:.1f} s"


def _company(report: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    for other in report["others"][:OTHERS_SHOWN]:
        name = names.get(other["worker"]) or (f"actor {other['class_name']}" if other["actor"] else "a worker")
        yield f"{name} {_mib(other['bytes'])}"
    left = report["others"][OTHERS_SHOWN:]
    if left:
        yield f"{len(left)} more workers {_mib(sum(other['bytes'] for other in left))}"
    yield f"all else {_mib(report['outside_bytes'])}"


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"
