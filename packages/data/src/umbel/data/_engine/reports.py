"""What a run is asked and what it tells: options, the code of its stages, statistics, what it waits for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from umbel.data._engine import events, scheduling, stages, work

logger = logging.getLogger("umbel.data")


@dataclass(frozen=True)
class RunOptions:
    """budget_bytes: for blocks and heap, 0 for half of the object store. repeats: whether a task that is late is tried a second
    time, where its stage allows. stall_s: after so long without anything, what everybody waits for is logged. limits: of the
    cluster's resources by core's names, how much of each is taken at most; excluded: how much of each is left to others."""

    budget_bytes: int = 0
    keeps_order: bool = True
    repeats: bool = True
    stall_s: float = 10.0
    limits: Mapping[str, float] = field(default_factory=dict)
    excluded: Mapping[str, float] = field(default_factory=dict)

    def within(self, resources: Mapping[str, float]) -> dict[str, float]:
        """What of the cluster's resources is ours."""
        left = {name: max(0.0, count - self.excluded.get(name, 0.0)) for name, count in resources.items()}
        return {name: min(count, self.limits.get(name, count)) for name, count in left.items()}


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
        return work.Code(
            stage.name, events.REDUCE, sample=stage.sample, partition=tuple(stage.partition), reduce=stage.reduce,
            block_bytes=stage.block_bytes,
        )  # fmt: skip
    raise TypeError(f"{type(stage).__name__} has no tasks")


def stats(machine: scheduling.Machine, wall_s: float) -> dict[str, Any]:
    """`stages`: for each, in order, its name, how it was done (of an exchange) and figures; `total`: of the run. Times are in
    seconds, sizes in bytes."""
    told: list[dict[str, Any]] = []
    for run in machine.runs:
        found = run.stats
        told.append(
            {
                "name": run.name,
                "how": run.how(),
                "tasks": found.tasks_ended,
                "tasks_started": found.tasks_started,
                "tasks_repeated": found.tasks_repeated,
                "rows_in": found.rows_in,
                "bytes_in": found.bytes_in,
                "rows_out": found.rows_out,
                "bytes_out": found.bytes_out,
                "blocks_out": found.blocks_out,
                "wall_s": found.wall_s,
                "cpu_s": found.cpu_s,
                "heap_bytes_max": found.heap_bytes_max,
                "blocked_s": dict(found.blocked_s),
            }
        )
    total = {
        "wall_s": wall_s,
        "tasks": sum(one["tasks"] for one in told),
        "cpu_s": sum(one["cpu_s"] for one in told),
        "rows_out": told[-1]["rows_out"],
        "bytes_out": told[-1]["bytes_out"],
    }
    return {"stages": told, "total": total}


_COLUMNS = ("stage", "tasks", "rows", "out", "wall", "cpu", "heap", "waited for")


def table(found: Mapping[str, Any]) -> str:
    """The statistics as lines for people."""
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for one in found["stages"]:
        longest = max(one["blocked_s"].items(), key=lambda item: item[1], default=("", 0.0))
        waited = f"{longest[0]} {longest[1]:.2f} s" if longest[1] >= 0.005 else ""
        rows.append(
            (
                f"{one['name']}: {one['how']}" if one["how"] else one["name"], str(one["tasks"]),
                str(one["rows_out"]), sized(one["bytes_out"]), f"{one['wall_s']:.2f} s",
                f"{one['cpu_s']:.2f} s", sized(one["heap_bytes_max"]), waited,
            )
        )  # fmt: skip
    total = found["total"]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(f"total: {total['rows_out']} rows, {sized(total['bytes_out'])}, in {total['wall_s']:.2f} s")
    return "\n".join(lines)


def sized(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def warn_of_stall(warning: events.Warn) -> None:
    waits = "; ".join(f"{name}: {_WORDS.get(reason, reason)}" for name, reason in warning.reasons.items())
    logger.warning("no block was made for %.0f s. %s", warning.since_s, waits)


_WORDS = {
    "input": "waits for its input",
    "tasks": "its tasks run, and have given nothing",
    "budget": "waits for memory: raise the budget, or make blocks smaller",
    "resources": "waits for CPUs, GPUs or what else its tasks need",
    "actors": "waits for its actors",
}
