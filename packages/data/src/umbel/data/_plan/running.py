"""One run of a plan: rewritten, made into stages, and carried out, in this process where all is built-in and small."""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import umbel
from umbel.data._blocks import sizes
from umbel.data._engine import blocks_out, executor, local, reports, stages
from umbel.data._plan import counts, logical, physical, rules

if TYPE_CHECKING:
    import pyarrow as pa

    from umbel.data import context as contexts


logger = logging.getLogger("umbel.data")


class Run:
    """epoch: how many runs of the same dataset there were before."""

    def __init__(self, last: logical.Node, context: contexts.DataContext, *, epoch: int = 0) -> None:
        self._last = rules.optimized(last)
        self.plan = staged(self._last, context, epoch=epoch)
        self.is_local = local.is_suitable(self.plan, context.local_bytes_max)
        limits = context.execution_options.resource_limits.by_name()
        self._options = reports.RunOptions(
            budget_bytes=int(limits.pop("object_store_memory", 0)),
            limits=limits,
            excluded=context.execution_options.exclude_resources.by_name(),
            keeps_order=context.execution_options.preserve_order,
        )
        self._stats: Any = None

    def tables(self, skipped_rows: int = 0) -> Iterator[pa.Table]:
        """The blocks in order, as they come, without the first rows, of which those of whole blocks are not fetched, and those
        of whole parts of a read not even made, where it is known which these are. Closing it ends the run."""
        if skipped_rows:
            self.plan, skipped_rows = _behind(self._last, self.plan, skipped_rows)
        if self.is_local:
            for table in self._here():
                kept = table.slice(min(skipped_rows, table.num_rows))
                skipped_rows -= table.num_rows - kept.num_rows
                if kept.num_rows or not table.num_rows:
                    yield kept
            return
        _begin_session()
        (stream,) = executor.stream(self.plan, self._options)
        self._stats = stream.stats
        try:
            for view in stream:
                if skipped_rows and view.row_count <= skipped_rows:
                    skipped_rows -= view.row_count
                    continue
                yield view.table().slice(skipped_rows) if skipped_rows else view.table()
                skipped_rows = 0
            self._tell_of_left_out()
        finally:
            stream.close()

    def blocks(self) -> list[stages.Block]:
        """All blocks, of which those that lie in the store stay there."""
        if self.is_local:
            return [
                stages.Block(table, stages.Metadata(table.num_rows, sizes.size_bytes(table), table.schema))
                for table in self._here()
            ]
        _begin_session()
        views, stats = executor.collect(self.plan, self._options)
        self._stats = lambda: stats
        self._tell_of_left_out()
        return [view.block() for view in views]

    def write(self) -> Any:
        """Of a plan that ends with a write."""
        assert isinstance(self.plan, stages.Write)
        if self.is_local:
            began_s = time.monotonic()
            result = local.write(self.plan)
            self._ran_here(0, 0, began_s)
            return result
        _begin_session()
        result, stats = executor.write(self.plan, self._options)
        self._stats = lambda: stats
        self._tell_of_left_out()
        return result

    def stream(self) -> list[executor.Stream]:
        """Of a plan that ends with a split: a stream for each consumer."""
        _begin_session()
        found = executor.stream(self.plan, self._options)
        self._stats = found[0].stats
        return found

    def _here(self) -> Iterator[pa.Table]:
        began_s = time.monotonic()
        rows = size_bytes = 0
        try:
            for table in local.tables(self.plan):
                rows += table.num_rows
                size_bytes += sizes.size_bytes(table)
                yield table
        finally:
            self._ran_here(rows, size_bytes, began_s)

    def _ran_here(self, row_count: int, size_bytes: int, began_s: float) -> None:
        total = {"rows_out": row_count, "bytes_out": size_bytes, "tasks": 0, "wall_s": time.monotonic() - began_s}
        self._stats = lambda: {"stages": [], "total": total, "where": "in this process"}

    def left_out(self) -> list[pa.Table]:
        """Rows on which functions failed, with `on_error="collect"`; of the tasks that have ended."""
        return [blocks_out.unpack(one) for _, tables in self._all_stats().get("left_out", ()) for one in tables]

    def _tell_of_left_out(self) -> None:
        counts = self.stats().get("rows_left_out", {})
        for operator, count in counts.items():
            logger.warning("%s: %d rows on which the function failed were left out", operator, count)

    def stats(self) -> dict[str, Any]:
        found = self._all_stats()
        counts: collections.Counter[str] = collections.Counter()
        for of_task, _ in found.get("left_out", ()):
            counts.update(of_task)
        told = {name: value for name, value in found.items() if name != "left_out"}
        return {**told, "rows_left_out": dict(counts)}

    def _all_stats(self) -> dict[str, Any]:
        if self._stats is None:
            raise ValueError(
                "the dataset has not been run yet, so there are no statistics; run it, for example by count()"
            )
        found: dict[str, Any] = self._stats()
        return found

    def stats_table(self) -> str:
        return reports.table(self.stats())


def _behind(last: logical.Node, plan: stages.Stage, skipped_rows: int) -> tuple[stages.Stage, int]:
    """The plan without parts of its read that have only rows to be skipped, and how many are left to be."""
    while isinstance(last, logical.Project | logical.Rename | logical.MapRows) and counts.keeps(last):
        if isinstance(last, logical.Project) and rules.is_placed(last):  # it goes by the numbers of all parts
            break
        last = last.input
    if not isinstance(last, logical.Read) or last.limit is not None:
        return plan, skipped_rows
    (read,) = (one for one in stages.ordered(plan) if isinstance(one, stages.Read))
    parts = [*read.parts]
    while len(parts) > 1 and parts[0].row_count is not None and parts[0].row_count <= skipped_rows:
        skipped_rows -= parts.pop(0).row_count or 0

    def without(stage: stages.Stage) -> stages.Stage:
        if stage is read:
            return dataclasses.replace(read, parts=parts)
        assert isinstance(stage, stages.Map)
        return dataclasses.replace(stage, input=without(stage.input))

    return without(plan), skipped_rows


def staged(last: logical.Node, context: contexts.DataContext, *, epoch: int = 0) -> stages.Stage:
    """The stages of a plan that was rewritten."""
    wanted = context.read_op_min_num_blocks or 2 * _cpu_count()
    made = physical.Sizes(
        block_bytes=context.target_max_block_size,
        partition_bytes=context.target_shuffle_block_size,
        broadcast_bytes=context.broadcast_bytes_max,
        parallelism=wanted,
        epoch=epoch,
    )
    return physical.stage_of(last, made)


def drawn(last: logical.Node, context: contexts.DataContext) -> str:
    """The stages, the first first, with what each takes its blocks from."""
    ordered = stages.ordered(staged(last, context))
    numbers = {id(stage): number for number, stage in enumerate(ordered, 1)}
    lines = []
    for stage in ordered:
        inputs = ", ".join(str(numbers[id(one)]) for one in stage.inputs)
        lines.append(
            f"{numbers[id(stage)]}. {stage.name}{f'  of {inputs}' if inputs else ''}{_broadcast(stage, numbers)}"
        )
    return "\n".join(lines)


def _broadcast(stage: stages.Stage, numbers: Mapping[int, int]) -> str:
    """Of a join, which side goes to every task, or may."""
    if not isinstance(stage, stages.Exchange) or not stage.whole or not stage.broadcast_bytes:
        return ""
    limit = stage.broadcast_bytes
    named = [str(numbers[id(stage.inputs[side])]) for side in stage.whole]
    known = physical.estimated_bytes(stage.inputs[stage.whole[0]])
    if limit == sys.maxsize or (known is not None and known <= limit):
        return f"; {named[0]} goes whole to every task"
    return f"; {' or else '.join(named)} goes whole to every task if it has at most {reports.sized(limit)}"


def _cpu_count() -> int:
    if umbel.is_initialized():
        return max(1, int(umbel.cluster_resources().get("CPU", 1)))
    return len(os.sched_getaffinity(0))


def _begin_session() -> None:
    if not umbel.is_initialized():
        umbel.init()
