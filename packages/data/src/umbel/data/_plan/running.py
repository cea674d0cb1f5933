"""One run of a plan: rewritten, made into stages, and carried out, in this process where all is built-in and small."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import umbel
from umbel.data._blocks import sizes
from umbel.data._engine import blocks_out, executor, local, reports, stages
from umbel.data._plan import counts, logical, physical, rules

if TYPE_CHECKING:
    import pyarrow as pa

    from umbel.data import context as contexts
    from umbel.data._plan import checkpoints


logger = logging.getLogger("umbel.data")


@dataclasses.dataclass
class _Given:
    """For how long whoever reads had what was given."""

    seconds: float = 0.0


class Run:
    """epoch: how many runs of the same dataset there were before. name: what the dataset is called in statistics and progress."""

    def __init__(
        self, last: logical.Node, context: contexts.DataContext, *, epoch: int = 0, name: str | None = None
    ) -> None:
        self.name = name
        self._last = rules.optimized(last)
        self._checkpoint: checkpoints.Checkpoint | None = None
        self._parallelism = context.read_op_min_num_blocks or 2 * _cpu_count()
        if isinstance(last, logical.Write):
            from umbel.data._plan import checkpoints  # with file systems and more, which only writes need

            self._checkpoint = checkpoints.opened(last, context.checkpoint_config)
            if self._checkpoint is not None:
                self._parallelism = (
                    self._checkpoint.parallelism
                    or context.read_op_min_num_blocks
                    or checkpoints.PARTS_PER_CPU * _cpu_count()
                )
        self.plan = staged(
            self._last,
            context,
            epoch=epoch,
            parallelism=self._parallelism,
            is_divided_alike=self._checkpoint is not None,
        )
        self.is_local = self._checkpoint is None and local.is_suitable(self.plan, context.local_bytes_max)
        if not self.is_local:
            _check_shared(last)
        options = context.execution_options
        limits = options.resource_limits.by_name()
        self._options = reports.RunOptions(
            budget_bytes=int(limits.pop("object_store_memory", 0)),
            limits=limits,
            excluded=options.exclude_resources.by_name(),
            keeps_order=options.preserve_order,
            shows_progress=context.enable_progress_bars,
            shows_stages=options.verbose_progress and context.enable_operator_progress_bars,
            name=name,
            label_selector=options.label_selector or {},
            around=functools.partial(type(context).current, _for_tasks(context)),
            callbacks=[kind() for kind in context.custom_execution_callback_classes],
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

    def tables_one_by_one(self) -> Iterator[pa.Table]:
        """As `tables`, with one task of each stage at a time: for whoever wants the first, and no call of a function behind it.
        What needs all rows runs as ever."""
        if not any(isinstance(one, stages.Exchange) for one in stages.ordered(self.plan)):
            self.plan = stages.changed(self.plan, _alone)
        return self.tables()

    def blocks(self) -> list[stages.Block]:
        """All blocks, of which those that lie in the store stay there."""
        if self.is_local:
            return [
                stages.Block(table, stages.Metadata(table.num_rows, sizes.size_bytes(table), table.schema))
                for table in self._here()
            ]
        _begin_session()
        views, stats = executor.collect(self.plan, self._options, self._asked)
        self._stats = lambda: stats
        self._tell_of_left_out()
        return [view.block() for view in views]

    def write(self) -> Any:
        """Of a plan that ends with a write."""
        assert isinstance(self.plan, stages.Write)
        if self.is_local:
            figures: local.Figures = {}
            with self._told_here(figures):
                return local.write(self.plan, figures)
        if self._checkpoint is not None:
            self._stats = lambda: reports.stats_here(self.plan, {}, 0.0, state="ended")
            return self._checkpoint.write(self.plan, self._write_parts, parallelism=self._parallelism)
        return self._write(self.plan, self._options)

    def _write_parts(self, plan: stages.Write, on_written: Callable[[int, Any], None]) -> None:
        self._write(plan, dataclasses.replace(self._options, keeps_order=True, on_written=on_written))

    def _write(self, plan: stages.Write, options: reports.RunOptions) -> Any:
        _begin_session()
        result, stats = executor.write(plan, options, self._asked)
        self._stats = lambda: stats
        self._tell_of_left_out()
        return result

    def _asked(self, stats: Callable[[], reports.Stats]) -> None:
        self._stats = stats

    def stream(self) -> list[executor.Stream]:
        """Of a plan that ends with a split: a stream for each consumer."""
        _begin_session()
        found = executor.stream(self.plan, self._options)
        self._stats = found[0].stats
        return found

    def _here(self) -> Iterator[pa.Table]:
        figures: local.Figures = {}
        with self._told_here(figures) as given:
            for table in local.tables(self.plan, figures):
                given_s = time.monotonic()
                yield table
                given.seconds += time.monotonic() - given_s

    @contextlib.contextmanager
    def _told_here(self, figures: local.Figures) -> Iterator[_Given]:
        """Statistics of what runs in this process, while it does and then."""
        began_s, given, plan = time.monotonic(), _Given(), self.plan
        callbacks = reports.Callbacks(self._options.callbacks, reports.Execution(self.name, self.stats))

        def told(wall_s: float, state: str) -> reports.Stats:
            return reports.stats_here(plan, figures, wall_s, state=state, consumer_s=given.seconds)

        self._stats = lambda: told(time.monotonic() - began_s, "running")
        raised: Exception | None = None
        try:
            callbacks.begin()
            yield given
        except Exception as error:
            raised = error
            raise
        finally:
            wall_s, state = time.monotonic() - began_s, "ended" if raised is None else "failed"
            self._stats = lambda: told(wall_s, state)
            callbacks.end(raised)
            raised = None  # whose traceback has this frame

    def left_out(self) -> list[pa.Table]:
        """Rows on which functions failed, with `on_error="collect"`; of the tasks that have ended."""
        return [blocks_out.unpack(one) for _, tables in self._all_stats().get("left_out", ()) for one in tables]

    def _tell_of_left_out(self) -> None:
        counts = self.stats().get("rows_left_out", {})
        for operator, count in counts.items():
            logger.warning("%s: %d rows on which the function failed were left out", operator, count)

    def stats(self) -> reports.Stats:
        found = reports.Stats(self._all_stats())
        if not found:  # it has not begun
            return found
        counts: collections.Counter[str] = collections.Counter()
        for of_task, _ in found.pop("left_out", ()):
            counts.update(of_task)
        found["rows_left_out"] = dict(counts)
        if self.name is not None:
            found["dataset"] = self.name
        if self._checkpoint is not None:
            found["parts_done_before"] = self._checkpoint.done_before
        return found

    def _all_stats(self) -> reports.Stats:
        found: reports.Stats = reports.Stats() if self._stats is None else self._stats()
        return found


def _alone(stage: stages.Stage) -> dict[str, Any]:
    is_pool_of_tasks = isinstance(getattr(stage, "compute", None), stages.TaskPool)
    return {"compute": stages.TaskPool(size=1)} if is_pool_of_tasks else {}


def _check_shared(last: logical.Node) -> None:
    """That workers see the files of the plan."""
    for node in logical.each(last):
        end = getattr(node, "source", getattr(node, "sink", None))
        filesystem = getattr(end, "_filesystem", None)
        if filesystem is not None:
            from umbel.data._sources import filesystems

            filesystems.check_shared(filesystem, node.name)


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


def _for_tasks(context: contexts.DataContext) -> contexts.DataContext:
    """What of the settings functions may ask for where they run."""
    found = context.copy()
    found.custom_execution_callback_classes, found.checkpoint_config = [], None  # which are the driver's
    return found


def staged(
    last: logical.Node,
    context: contexts.DataContext,
    *,
    epoch: int = 0,
    parallelism: int | None = None,
    is_divided_alike: bool = False,
) -> stages.Stage:
    """The stages of a plan that was rewritten. is_divided_alike: a read has the same parts whatever the context says."""
    wanted = parallelism or context.read_op_min_num_blocks or 2 * _cpu_count()
    has_least = context.read_op_min_num_blocks is not None and not is_divided_alike
    made = physical.Sizes(
        block_bytes=context.target_max_block_size or sys.maxsize,
        part_bytes_min=context.target_min_block_size if has_least else 0,
        retried_errors=tuple(context.retried_io_errors),
        keeps_order=context.execution_options.preserve_order,
        partition_bytes=context.target_shuffle_block_size,
        broadcast_bytes=context.broadcast_bytes_max,
        parallelism=wanted,
        cpu_count=_cpu_count(),
        epoch=epoch,
    )
    return physical.stage_of(last, made)


def _cpu_count() -> int:
    if umbel.is_initialized():
        return max(1, int(umbel.cluster_resources().get("CPU", 1)))
    return len(os.sched_getaffinity(0))


def _begin_session() -> None:
    if not umbel.is_initialized():
        umbel.init()
