"""The same stages in the calling process, without a runtime: for plans of built-in kernels over little data.

Lazy: a block is made when it is asked for, so that a limit stops what is above it. A worker would do the same, later.
"""

from __future__ import annotations

import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from umbel import exceptions
from umbel.data._engine import blocks_out, events, exchanges, failures, flow, mixing, runs, stages, task_context, work
from umbel.data._engine.events import Piece

SMALL_BYTES = 64 << 20  # takes kernels a tenth of a second or so: what starting workers takes


def is_suitable(plan: stages.Stage, small_bytes: int = SMALL_BYTES) -> bool:
    """Whether all of it is built-in kernels, in memory here or of known size, and no more than so many bytes."""
    size_bytes = 0
    for stage in stages.ordered(plan):
        if isinstance(stage, stages.Split) or not getattr(stage, "is_kernel", True):
            return False
        if isinstance(getattr(stage, "compute", None), stages.ActorPool):
            return False
        if isinstance(stage, stages.Input):
            if not all(isinstance(block.value, pa.Table) for block in stage.blocks):
                return False
            size_bytes += sum(block.metadata.size_bytes for block in stage.blocks)
        if isinstance(stage, stages.Read):
            sizes = [part.size_bytes for part in stage.parts]
            if any(size is None for size in sizes):
                return False
            size_bytes += sum(size or 0 for size in sizes)
    return size_bytes <= small_bytes


Figures = dict[stages.Stage, runs.Stats]
_END = object()


def tables(plan: stages.Stage, figures: Figures | None = None) -> Iterator[pa.Table]:
    """The blocks of the last stage. Raises as `executor` does. Of a write nothing comes: see `write`. figures: what each stage
    has done is added to it."""
    return _Plan(plan, figures).tables(plan)


def write(plan: stages.Write, figures: Figures | None = None) -> Any:
    """What `commit` returned, or else what the tasks did."""
    made = _Plan(plan, figures)
    if plan.begin is not None:
        plan.begin()
    try:
        written = (
            made.guarded(plan, events.MAP, bundle[0][0], functools.partial(_written, plan, bundle))
            for bundle in made.bundles(plan)
        )
        results = list(made.counted(plan, written))
        return results if plan.commit is None else plan.commit(results)
    except BaseException as error:
        if plan.abort is not None:
            plan.abort(error)
        raise


def _written(plan: stages.Write, bundle: Sequence[tuple[int, pa.Table]]) -> Any:
    return plan.write(work.chained(_drawn(bundle, task_context.current()), plan.transforms))


class _Plan:
    """One run. kept: the blocks of stages with two consumers, which are run once."""

    def __init__(self, plan: stages.Stage, figures: Figures | None) -> None:
        self._figures = {} if figures is None else figures
        self._above_s = self._above_cpu_s = 0.0  # spent in what the stage that is asked now asks itself
        self._part = -1  # of the latest table: which part of a read, block that was there, or partition it is of
        counts: dict[stages.Stage, int] = {}
        for stage in stages.ordered(plan):
            for one in stage.inputs:
                counts[one] = counts.get(one, 0) + 1
        self._kept: dict[stages.Stage, list[pa.Table] | None] = {
            stage: None for stage, count in counts.items() if count > 1
        }

    def tables(self, stage: stages.Stage) -> Iterator[pa.Table]:
        if stage not in self._kept:
            return self.counted(stage, _KINDS[type(stage)](self, stage))
        found = self._kept[stage]
        if found is None:
            found = self._kept[stage] = list(self.counted(stage, _KINDS[type(stage)](self, stage)))
        return iter(found)

    def counted(self, stage: stages.Stage, given: Iterator[Any]) -> Iterator[Any]:
        """The same, with what the stage takes of time and gives of rows added to its figures."""
        found = self._figures.setdefault(stage, runs.Stats())
        while True:
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            before, self._above_s, self._above_cpu_s = (self._above_s, self._above_cpu_s), 0.0, 0.0
            try:
                one = next(given, _END)
            finally:
                wall_s, cpu_s = time.perf_counter() - wall_s, time.thread_time() - cpu_s
                found.wall_s += wall_s - self._above_s
                found.cpu_s += cpu_s - self._above_cpu_s
                self._above_s, self._above_cpu_s = before[0] + wall_s, before[1] + cpu_s
            if one is _END:
                return
            if isinstance(one, pa.Table):
                found.rows_out += one.num_rows
                found.bytes_out += one.nbytes
            found.blocks_out += 1
            yield one

    def _input(self, stage: stages.Input) -> Iterator[pa.Table]:
        for number, block in enumerate(stage.blocks):
            self._part = number
            yield block.value

    def _read(self, stage: stages.Read) -> Iterator[pa.Table]:
        for number, part in enumerate(stage.parts):
            files = part.input_files
            context = task_context.TaskContext(stage.name, input_files=files)

            def drawn(part: stages.ReadPart = part, number: int = number, context: Any = context) -> Iterator[pa.Table]:
                for table in part.read():
                    context.draws(number)
                    yield table

            chain = work.chained(drawn(), stage.transforms)
            call = work.Call(events.READ, number, input_files=files)
            for table in _guarded(stage, call, blocks_out.blocks(chain, stage.block_bytes), context):
                self._part = number
                yield table

    def _map(self, stage: stages.Map) -> Iterator[pa.Table]:
        for bundle in self.bundles(stage):
            part = self._part
            context = task_context.TaskContext(stage.name)
            drawn: Iterable[pa.Table] = _drawn(bundle, context)
            if not stage.is_steady and stage.bundle_rows is None:
                drawn = blocks_out.merged(drawn)
            chain = work.chained(drawn, stage.transforms)
            slices = ((work.Slice(bundle[0][0], 0, sum(table.num_rows for _, table in bundle)),),)
            call = work.Call(events.MAP, bundle[0][0], slices)
            for table in _guarded(stage, call, blocks_out.blocks(chain, stage.block_bytes), context):
                self._part = part
                yield table

    def bundles(self, stage: stages.Map | stages.Write) -> Iterator[list[tuple[int, pa.Table]]]:
        """The blocks of each task with their numbers."""
        if not stage.by_part:
            return self._bundled(stage.input, stage.bundle_bytes, stage.bundle_rows)
        is_whole = isinstance(stage, stages.Write)
        return self._bundled_by_part(stage.input, sys.maxsize if is_whole else stage.bundle_bytes, stage.bundle_rows)

    def _bundled_by_part(
        self, stage: stages.Stage, bundle_bytes: int, bundle_rows: int | None
    ) -> Iterator[list[tuple[int, pa.Table]]]:
        """As `_bundled`, of one part each. The part is the latest table's when a bundle is given."""

        def numbered() -> Iterator[tuple[int, int, pa.Table]]:
            for number, table in enumerate(self.tables(stage)):
                yield self._part, number, table

        for part, some in itertools.groupby(numbered(), key=lambda one: one[0]):
            for bundle in _bundles(((number, table) for _, number, table in some), bundle_bytes, bundle_rows):
                self._part = part
                yield bundle

    def _bundled(
        self, stage: stages.Stage, bundle_bytes: int, bundle_rows: int | None
    ) -> Iterator[list[tuple[int, pa.Table]]]:
        """Of the blocks of a stage, as the scheduler puts them together if nothing is urgent."""
        return _bundles(enumerate(self.tables(stage)), bundle_bytes, bundle_rows)

    def guarded(self, stage: stages.Stage, kind: str, number: int, call: Callable[[], Any]) -> Any:
        (found,) = _guarded(stage, work.Call(kind, number), (call() for _ in range(1)), None)
        return found

    def _exchange(self, stage: stages.Exchange) -> Iterator[pa.Table]:
        known: dict[int, list[pa.Table]] = {}
        for number in stage.whole if stage.broadcast_bytes else ():
            known[number] = list(self.tables(stage.inputs[number]))
            if _bytes_of(known[number]) <= stage.broadcast_bytes:
                yield from self._broadcast(stage, number, known[number])
                return
        inputs = [known[at] if at in known else list(self.tables(one)) for at, one in enumerate(stage.inputs)]
        size_bytes = sum(map(_bytes_of, inputs))
        count = stage.partition_count
        if count is None:
            count = min(stage.partition_count_max, max(1, -(-size_bytes // stage.partition_bytes)))
        partitions = [inputs]
        if count > 1:
            partitions = self._divided(stage, inputs, count)
        for number, of_inputs in enumerate(partitions):
            reduced = blocks_out.blocks(stage.reduce(number, of_inputs), stage.block_bytes)
            for table in _guarded(stage, work.Call(events.REDUCE, number), reduced, None):
                self._part = number
                yield table

    def _broadcast(self, stage: stages.Exchange, whole: int, tables: list[pa.Table]) -> Iterator[pa.Table]:
        """Some blocks of the other input at a time, with all of this one."""
        (other,) = (one for number, one in enumerate(stage.inputs) if number != whole)
        target = exchanges.broadcast_bundle_bytes(_bytes_of(tables), stage.partition_bytes)
        bundles = self._bundled(other, target, None)
        for number, bundle in enumerate(itertools.chain([next(bundles, [])], bundles)):  # of nothing there is one
            some = [table for _, table in bundle]
            reduced = stage.reduce(number, [tables, some] if whole == 0 else [some, tables])
            made = blocks_out.blocks(reduced, stage.block_bytes)
            yield from _guarded(stage, work.Call(events.REDUCE, number), made, None)

    def _divided(self, stage: stages.Exchange, inputs: list[list[pa.Table]], count: int) -> list[list[list[pa.Table]]]:
        """For each partition, for each input, its tables."""

        context = task_context.TaskContext(stage.name)

        def divide() -> list[list[list[pa.Table]]]:
            boundaries = None
            if stage.boundaries is not None:
                sample = stage.sample
                samples = [table.num_rows if sample is None else sample(table) for table in inputs[0]]
                boundaries = stage.boundaries(samples, count)
            found: list[list[list[pa.Table]]] = [[[] for _ in inputs] for _ in range(count)]
            for at, (some, partition) in enumerate(zip(inputs, stage.partition, strict=True)):
                for block_number, table in enumerate(some):
                    context.draws(block_number)
                    context.divided = [(block_number, table.num_rows)]
                    for number, shard in enumerate(partition(table, count, boundaries)):
                        if shard.num_rows or not any(shard.schema.equals(one.schema) for one in found[number][at]):
                            found[number][at].append(shard)
            return found

        made: list[list[list[pa.Table]]]
        (made,) = _guarded(stage, work.Call(events.PARTITION, 0), (divide() for _ in range(1)), context)
        return made

    def _limit(self, stage: stages.Limit) -> Iterator[pa.Table]:
        left = stage.row_count
        if not left:
            return
        for table in self.tables(stage.input):
            yield table if table.num_rows <= left else table.slice(0, left)
            left -= min(left, table.num_rows)
            if not left:
                return

    def _union(self, stage: stages.Union) -> Iterator[pa.Table]:
        for one in stage.inputs:
            yield from self.tables(one)

    def _mix(self, stage: stages.Mix) -> Iterator[pa.Table]:
        turns = mixing.Turns(stage.weights)
        sources = [self.tables(one) for one in stage.inputs]
        begun: dict[int, pa.Table] = {}
        while (number := turns.next()) is not None:
            table = begun.pop(number, None)
            if table is None:
                table = next(sources[number], None)
            if table is None:
                turns.end(number, is_shortest=stage.is_shortest)
                continue
            row_count = turns.take(number, table.num_rows)
            yield table.slice(0, row_count)
            if row_count < table.num_rows:
                begun[number] = table.slice(row_count)

    def _zip(self, stage: stages.Zip) -> Iterator[pa.Table]:
        inputs = [list(self.tables(one)) for one in stage.inputs]
        counts = [sum(table.num_rows for table in some) for some in inputs]
        if len(set(counts)) > 1:
            named = " and ".join(map(str, counts))
            raise ValueError(f"zip() takes datasets with equally many rows, got {named}; use join() for others")
        if not all(inputs):
            return
        edges, ledger, ids = [flow.Edge() for _ in inputs], flow.Ledger(), itertools.count()
        for edge, some in zip(edges, inputs, strict=True):
            for number, table in zip(ids, some, strict=False):
                ledger.enter(number, 0)
                edge.push(Piece(number, 0, table.num_rows, table.nbytes))
        whole = [work.whole(some) for some in inputs]
        at = 0
        for number in itertools.count():
            row_count, _ = runs.rows_side_by_side(edges, stage.bundle_bytes)
            if not row_count and number:
                return
            beside = [one.slice(at, row_count) for one in whole]
            at += row_count
            yield self.guarded(stage, events.ZIP, number, functools.partial(stage.combine, beside))
            for edge in edges:
                edge.take_rows(row_count, ledger)


def _bundles(
    numbered: Iterable[tuple[int, pa.Table]], bundle_bytes: int, bundle_rows: int | None
) -> Iterator[list[tuple[int, pa.Table]]]:
    """As `runs.bundled` puts them together."""
    waiting: list[tuple[int, pa.Table]] = []
    edge = flow.Edge()
    for number, table in numbered:
        edge.push(Piece(0, 0, table.num_rows, table.nbytes, number))
        waiting.append((number, table))
        there, wanted = (edge.size_bytes, bundle_bytes) if bundle_rows is None else (edge.row_count, bundle_rows)
        if there < wanted and len(waiting) < runs.BUNDLE_PIECES_MAX:  # without looking at each
            continue
        count, is_full = runs.bundled(edge.pieces, bundle_bytes, bundle_rows)
        if is_full:
            yield waiting[:count]
            del waiting[:count]
            for _ in range(count):
                edge.pop()
    if waiting:
        yield waiting


def _bytes_of(tables: Iterable[pa.Table]) -> int:
    return sum(table.nbytes for table in tables)


def _drawn(bundle: Sequence[tuple[int, pa.Table]], context: task_context.TaskContext) -> Iterator[pa.Table]:
    for number, table in bundle:
        context.draws(number)
        yield table


def _guarded(
    stage: stages.Stage, call: work.Call, made: Iterable[Any], context: task_context.TaskContext | None
) -> Iterator[Any]:
    """With errors as they come from workers, and the context while a table is made."""
    iterator = iter(made)
    context = context or task_context.TaskContext(stage.name)
    while True:
        token = task_context.enter(context)
        try:
            table = next(iterator)
        except StopIteration:
            return
        except exceptions.UmbelTaskError:  # of a stage above
            raise
        except Exception as error:
            failed = failures.failure(error, stage=stage.name, on=call.on(), input_files=call.input_files)
            raise failed.as_instanceof_cause() from None
        finally:
            task_context.leave(token)
        yield table


_KINDS: dict[type, Callable[[_Plan, Any], Iterator[pa.Table]]] = {
    stages.Input: _Plan._input,
    stages.Read: _Plan._read,
    stages.Map: _Plan._map,
    stages.Exchange: _Plan._exchange,
    stages.Limit: _Plan._limit,
    stages.Union: _Plan._union,
    stages.Mix: _Plan._mix,
    stages.Zip: _Plan._zip,
}
