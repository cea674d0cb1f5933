"""What a run is asked and what it tells: options, the code of its stages, statistics, what it waits for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from umbel.data._engine import events, runs, scheduling, stages, work

logger = logging.getLogger("umbel.data")


@dataclass(frozen=True)
class RunOptions:
    """budget_bytes: for blocks, 0 for half of the object store. repeats: whether a task that is late is tried a second
    time, where its stage allows. stall_s: after so long without anything, what everybody waits for is logged. limits: of the
    cluster's resources by core's names, how much of each is taken at most, of `memory` by the heap of tasks and actors;
    excluded: how much of each is left to others.
    on_written: of a write, called with the number of each task and what it returned, as soon as that is here. shows_progress: on
    a terminal or in a notebook; shows_stages: with a line for each stage. name: of the dataset. label_selector: of the nodes on
    which everything is to be. around: what makes the context in which tasks run; it travels. callbacks: see `Callbacks`."""

    budget_bytes: int = 0
    keeps_order: bool = True
    repeats: bool = True
    stall_s: float = 10.0
    limits: Mapping[str, float] = field(default_factory=dict)
    excluded: Mapping[str, float] = field(default_factory=dict)
    on_written: Callable[[int, Any], None] | None = None
    shows_progress: bool = False
    shows_stages: bool = True
    name: str | None = None
    label_selector: Mapping[str, str] = field(default_factory=dict)
    around: Callable[[], contextlib.AbstractContextManager[Any]] | None = None
    callbacks: Sequence[Any] = ()

    def within(self, resources: Mapping[str, float]) -> dict[str, float]:
        """What of the cluster's resources is ours."""
        left = {name: max(0.0, count - self.excluded.get(name, 0.0)) for name, count in resources.items()}
        if "memory" in left:
            left["memory"] = max(0.0, left["memory"] - left.get("object_store_memory", 0.0))
        return {name: min(count, self.limits.get(name, count)) for name, count in left.items()}


class Execution:
    """A run, as its callbacks see it. name: of the dataset, None if it has none."""

    def __init__(self, name: str | None, stats: Callable[[], Stats]) -> None:
        self.name = name
        self._stats = stats

    def stats(self) -> Stats:
        """So far."""
        found = self._stats()
        found.pop("left_out", None)  # tables, which are asked for by `Dataset.errors`
        return found


class Callbacks:
    """Those of a run, each an `umbel.data.context.ExecutionCallback`. What one raises ends the run as an error of its own."""

    def __init__(self, every: Sequence[Any], execution: Execution) -> None:
        self._every = every
        self._execution = execution

    def begin(self) -> None:
        for one in self._every:
            one.before_execution_starts(self._execution)

    def step(self) -> None:
        for one in self._every:
            one.on_execution_step(self._execution)

    def end(self, error: BaseException | None) -> None:
        """Once. The run has these and the execution has the run: what it holds goes with whoever needs it last, and not later."""
        every, execution = self._every, self._execution
        self._every = ()
        del self._execution
        for one in every:
            if error is None:
                one.after_execution_succeeds(execution)
            else:
                one.after_execution_fails(execution, error)


def code_of(stage: stages.Stage) -> work.Code:
    """What its tasks do."""
    if isinstance(stage, stages.Read):
        return work.Code(
            stage.name, events.READ, tuple(stage.transforms), tuple(stage.parts), block_bytes=stage.block_bytes
        )
    if isinstance(stage, stages.Map):
        merges = not stage.is_steady and stage.bundle_rows is None
        return work.Code(stage.name, events.MAP, tuple(stage.transforms), block_bytes=stage.block_bytes, merges=merges)
    if isinstance(stage, stages.Write):
        return work.Code(stage.name, events.MAP, tuple(stage.transforms), write=stage.write)
    if isinstance(stage, stages.Zip):
        return work.Code(stage.name, events.ZIP, combine=stage.combine)
    if isinstance(stage, stages.Exchange):
        reduce = {events.REDUCE: stage.reduce}
        for number, (share, rest) in enumerate(stage.apart):
            reduce |= {events.SHARES[number]: share, events.RESTS[number]: rest}
        return work.Code(
            stage.name, events.REDUCE, sample=stage.sample, partition=tuple(stage.partition), reduce=reduce,
            block_bytes=stage.block_bytes,
        )  # fmt: skip
    raise TypeError(f"{type(stage).__name__} has no tasks")


class Stats(dict[str, Any]):
    """What a run has done; printed, a table. Times are in seconds, sizes in bytes. It may be asked for while the run goes on.

    stages: for each, in order, a dictionary of
        name; how, what an exchange has decided; tasks (that have ended), tasks_started, tasks_retried (after a worker was
        lost), tasks_repeated (late ones, tried a second time); workers_max, at once; rows_in, bytes_in, rows_out, bytes_out,
        blocks_out; wall_s and cpu_s, of all tasks together; task_wall_s_max, of one; heap_bytes_max, that one task had at once
        beyond its blocks; actor_bytes_max, that one actor held between tasks, its model; blocked_s, for how long the stage could
        start no task, by why (`input`, `tasks`: those that run have given nothing
        yet, `budget`, `resources`, `actors`); waits_for: of these, what it waits for now, "" if nothing.
    total: rows_out, bytes_out, tasks, tasks_retried, tasks_repeated, cpu_s, wall_s (of the run), consumer_s (for how long whoever
        reads had something to take), held_bytes_max (blocks that are made and not used yet), parked_bytes_max (those that
        exchanges keep), heap_bytes_max.
    bottleneck: stage (None: whoever reads is the slowest), busy_s (for how long its workers would be busy if they shared its work
        evenly), cpu_part (of the time of its tasks). None if nothing was done.
    rows_left_out: by operator, on which its function failed, with `on_error="skip"` or `"collect"`.
    where: "on workers" or "in this process"; there, there are no tasks and the figures of stages are of the process.
    state: "running", "ended" or "failed". parts_done_before: of a write with a checkpoint.
    Empty, with an empty text, where nothing has run.
    """

    def __str__(self) -> str:
        return table(self) if self else ""

    __repr__ = __str__


def stats(machine: scheduling.Machine, wall_s: float, *, state: str) -> Stats:
    """Of a run on workers, so far."""
    return _stats(
        [
            _of_stage(
                run.name,
                run.stats,
                how=run.how(),
                waits_for=run.reason if state == "running" and not run.is_closed else "",
            )
            for run in machine.runs
        ],
        wall_s,
        where="on workers",
        state=state,
        consumer_s=machine.consumer_s,
        held_bytes_max=machine.held_bytes_max,
        parked_bytes_max=machine.parked_bytes_max,
    )


def stats_here(
    plan: stages.Stage,
    figures: Mapping[stages.Stage, runs.Stats],
    wall_s: float,
    *,
    state: str,
    consumer_s: float = 0.0,
) -> Stats:
    """Of a run in this process, so far. figures: of stages that have been asked for something."""
    every = stages.ordered(plan)
    for stage in every:
        found = figures.get(stage)
        if found is not None:
            inputs = [figures[one] for one in stage.inputs if one in figures]
            found.rows_in = sum(one.rows_out for one in inputs)
            found.bytes_in = sum(one.bytes_out for one in inputs)
    told = [_of_stage(stage.name, figures.get(stage) or runs.Stats()) for stage in every]
    return _stats(told, wall_s, where="in this process", state=state, consumer_s=consumer_s)


def _stats(
    told: Sequence[Mapping[str, Any]],
    wall_s: float,
    *,
    where: str,
    state: str,
    consumer_s: float = 0.0,
    held_bytes_max: int = 0,
    parked_bytes_max: int = 0,
) -> Stats:
    total = {
        "wall_s": wall_s,
        "tasks": sum(one["tasks"] for one in told),
        "tasks_retried": sum(one["tasks_retried"] for one in told),
        "tasks_repeated": sum(one["tasks_repeated"] for one in told),
        "cpu_s": sum(one["cpu_s"] for one in told),
        "rows_out": told[-1]["rows_out"] if told else 0,
        "bytes_out": told[-1]["bytes_out"] if told else 0,
        "consumer_s": consumer_s,
        "held_bytes_max": held_bytes_max,
        "parked_bytes_max": parked_bytes_max,
        "heap_bytes_max": max((one["heap_bytes_max"] for one in told), default=0),
    }
    return Stats(stages=told, total=total, bottleneck=_bottleneck(told, consumer_s), where=where, state=state)


def _of_stage(name: str, found: runs.Stats, *, how: str = "", waits_for: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "how": how,
        "tasks": found.tasks_ended,
        "tasks_started": found.tasks_started,
        "tasks_retried": found.tasks_retried,
        "tasks_repeated": found.tasks_repeated,
        "workers_max": found.workers_max,
        "rows_in": found.rows_in,
        "bytes_in": found.bytes_in,
        "rows_out": found.rows_out,
        "bytes_out": found.bytes_out,
        "blocks_out": found.blocks_out,
        "wall_s": found.wall_s,
        "cpu_s": found.cpu_s,
        "task_wall_s_max": found.task_wall_s_max,
        "heap_bytes_max": found.heap_bytes_max,
        "actor_bytes_max": found.actor_bytes_max,
        "blocked_s": dict(found.blocked_s),
        "waits_for": waits_for,
    }


def _bottleneck(told: Sequence[Mapping[str, Any]], consumer_s: float) -> dict[str, Any] | None:
    """Who had most to do for each of its workers."""
    busiest = max(told, key=_busy_s, default=None)
    if busiest is None or not busiest["wall_s"]:
        return None
    if consumer_s > _busy_s(busiest):
        return {"stage": None, "busy_s": consumer_s, "cpu_part": None}
    cpu_part = min(1.0, busiest["cpu_s"] / busiest["wall_s"])
    return {"stage": busiest["name"], "busy_s": _busy_s(busiest), "cpu_part": cpu_part}


def _busy_s(stage: Mapping[str, Any]) -> float:
    found: float = stage["wall_s"] / max(1, stage["workers_max"])
    return found


_COLUMNS = ("stage", "tasks", "rows", "out", "wall", "cpu", "heap", "waited for")
_NAME_CHARS = 60  # of a stage in a table; the name is whole in the dictionary


def table(found: Mapping[str, Any]) -> str:
    """The statistics as lines for people."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for one in found["stages"]:
        waits = sorted(one["blocked_s"].items(), key=lambda item: -item[1])[:2]
        waited = ", ".join(f"{reason} {seconds:.2f} s" for reason, seconds in waits if seconds >= 0.005)
        again = one["tasks_retried"] + one["tasks_repeated"]
        rows.append(
            (
                _called(one), f"{one['tasks']}{f' +{again}' if again else ''}", f"{one['rows_out']:,}",
                sized(one["bytes_out"]), f"{one['wall_s']:.2f} s", f"{one['cpu_s']:.2f} s", sized(one["heap_bytes_max"]), waited,
            )
        )  # fmt: skip
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *_summary(found)])


def _summary(found: Mapping[str, Any]) -> list[str]:
    total, slowest = found["total"], found.get("bottleneck")
    name = f"{found['dataset']}: " if found.get("dataset") else ""
    state = "" if found.get("state", "ended") == "ended" else f", {found['state']}"
    where = f", {found['where']}" if found.get("where") else ""
    lines = [
        f"{name}total: {total['rows_out']} rows, {sized(total['bytes_out'])}, in {total['wall_s']:.2f} s{where}{state}"
    ]
    if total["held_bytes_max"] or total["parked_bytes_max"]:
        kept = f", and {sized(total['parked_bytes_max'])} kept for exchanges" if total["parked_bytes_max"] else ""
        lines.append(f"memory: at most {sized(total['held_bytes_max'])} of blocks between stages{kept}")
    if slowest is not None:
        who = "whoever reads" if slowest["stage"] is None else shortened(slowest["stage"], _NAME_CHARS)
        cpu = "" if slowest["cpu_part"] is None else f", {slowest['cpu_part']:.0%} of it computing"
        lines.append(f"slowest: {who}, busy for {slowest['busy_s']:.2f} s{cpu}")
    for operator, count in found.get("rows_left_out", {}).items():
        lines.append(f"left out: {count:,} rows on which {operator} failed")
    if found.get("parts_done_before"):
        lines.append(f"from the checkpoint: {found['parts_done_before']} parts")
    return lines


def _called(one: Mapping[str, Any]) -> str:
    name = shortened(one["name"], _NAME_CHARS)
    return f"{name}: {one['how']}" if one["how"] else name


def shortened(text: str, char_count: int) -> str:
    """Its beginning and its end."""
    if len(text) <= char_count:
        return text
    front = (char_count - 1) // 2
    return f"{text[:front]}…{text[len(text) - (char_count - 1 - front) :]}"


def sized(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def warn_of_stall(warning: events.Warn, oldest: str) -> None:
    """oldest: what core says of the task that was started first."""
    waits = "; ".join(f"{name}: {_WORDS.get(reason, reason)}" for name, reason in warning.reasons.items())
    logger.warning("no block was made for %.0f s. %s%s", warning.since_s, waits, f". {oldest}" if oldest else "")


WAITS = {
    "input": "waits for input",
    "tasks": "works",
    "budget": "waits for memory",
    "resources": "waits for CPUs or what else it needs",
    "actors": "waits for its actors",
}
_WORDS = {
    "input": "waits for its input",
    "tasks": "its tasks run, and have given nothing",
    "budget": "waits for memory: raise the budget, or make blocks smaller",
    "resources": "waits for CPUs, GPUs or what else its tasks need",
    "actors": "waits for its actors",
}
