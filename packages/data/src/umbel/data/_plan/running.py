"""One run of a plan: rewritten, made into stages, and carried out, in this process where all is built-in and small."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import umbel
from umbel.data._blocks import sizes
from umbel.data._engine import executor, local, reports, stages
from umbel.data._plan import logical, physical, rules

if TYPE_CHECKING:
    import pyarrow as pa

    from umbel.data import context as contexts


class Run:
    """epoch: how many runs of the same dataset there were before."""

    def __init__(self, last: logical.Node, context: contexts.DataContext, *, epoch: int = 0) -> None:
        self.plan = staged(rules.optimized(last), context, epoch=epoch)
        self.is_local = local.is_suitable(self.plan, context.local_bytes_max)
        self._options = reports.RunOptions(
            budget_bytes=int(context.execution_options.resource_limits.object_store_memory or 0),
            keeps_order=context.execution_options.preserve_order,
        )
        self._stats: Any = None

    def tables(self) -> Iterator[pa.Table]:
        """The blocks in order, as they come. Closing it ends the run."""
        if self.is_local:
            yield from self._here()
            return
        _begin_session()
        (stream,) = executor.stream(self.plan, self._options)
        self._stats = stream.stats
        try:
            for view in stream:
                yield view.table()
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
        return [view.block() for view in views]

    def write(self) -> Any:
        """Of a plan that ends with a write."""
        assert isinstance(self.plan, stages.Write)
        if self.is_local:
            return local.write(self.plan)
        _begin_session()
        result, stats = executor.write(self.plan, self._options)
        self._stats = lambda: stats
        return result

    def _here(self) -> Iterator[pa.Table]:
        began_s = time.monotonic()
        rows = 0
        for table in local.tables(self.plan):
            rows += table.num_rows
            yield table
        total = {"rows_out": rows, "wall_s": time.monotonic() - began_s}
        self._stats = lambda: {"stages": [], "total": total, "where": "in this process"}

    def stats(self) -> dict[str, Any]:
        if self._stats is None:
            raise ValueError(
                "the dataset has not been run yet, so there are no statistics; run it, for example by count()"
            )
        found: dict[str, Any] = self._stats()
        return found

    def stats_table(self) -> str:
        return reports.table(self.stats())


def staged(last: logical.Node, context: contexts.DataContext, *, epoch: int = 0) -> stages.Stage:
    """The stages of a plan that was rewritten."""
    wanted = context.read_op_min_num_blocks or 2 * _cpu_count()
    made = physical.Sizes(
        block_bytes=context.target_max_block_size,
        partition_bytes=context.target_shuffle_block_size,
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
        lines.append(f"{numbers[id(stage)]}. {stage.name}{f'  of {inputs}' if inputs else ''}")
    return "\n".join(lines)


def _cpu_count() -> int:
    if umbel.is_initialized():
        return max(1, int(umbel.cluster_resources().get("CPU", 1)))
    return len(os.sched_getaffinity(0))


def _begin_session() -> None:
    if not umbel.is_initialized():
        umbel.init()
