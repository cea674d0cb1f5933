"""What runs on workers: tasks of a stage, as generators of what they make.

Everything a task tells is an item of its generator, a small tuple that begins with what it is; a block that is not small
follows its item as an item of its own, a table, which nobody fetches who only hands it on. An error of the user's is an
item as well: to the runtime the task has done its work, and is not run again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from umbel.data._blocks import schemas
from umbel.data._engine import blocks_out, events, failures, heap, stages, task_context

BLOCK = "block"  # rows, bytes, schema (None: as before), bytes of the table or None: the next item
SHARDS = "shards"  # of a partition task, several small blocks: rows, bytes of the table, what it travels as, schema
VALUE = "value"  # what a write returned
SAMPLE = "sample"
LEFT_OUT = "left out"  # rows on which the user's function failed: how many by operator, tables of them; before the end
END = "end"  # what `events.Cost` has
FAILED = "failed"  # the error
READY = "ready"  # of an actor: what it holds

SHARD_BYTES_MAX = 8 << 10  # of one that is sent with others, and from the driver to whoever puts its partition together
WINDOW_ITEMS = 4  # that a task is ahead of its reader: two blocks and their items


class Code(NamedTuple):
    """What the tasks of a stage do. Travels to each worker once."""

    stage: str
    kind: str
    transforms: tuple[stages.Transform | stages.Made, ...] = ()
    parts: tuple[stages.ReadPart, ...] = ()
    write: Callable[[Iterator[pa.Table]], Any] | None = None
    sample: Callable[[pa.Table], Any] | None = None
    partition: tuple[Callable[[pa.Table, int, Any], Iterable[pa.Table]], ...] = ()
    reduce: Mapping[str, stages.Reduce] | None = None  # by the kind of the task
    combine: Callable[[Sequence[pa.Table]], pa.Table] | None = None
    block_bytes: int = stages.Map.block_bytes
    merges: bool = False  # small blocks, before the transforms see them
    sampling: tuple[str, Callable[[pa.Table], Any]] | None = None  # of its blocks, for the stage of this name
    around: Callable[[], contextlib.AbstractContextManager[Any]] | None = None  # in what its functions run

    def entered(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self.around is None else self.around()


class Slice(NamedTuple):
    """Which rows of the block, and which of the stage's blocks it is."""

    number: int
    offset: int
    row_count: int


class Call(NamedTuple):
    """One task. slices: for each input, of the blocks that follow as arguments, in order. read: of a part. schemas: of a
    partition, for each input, of the shards of all partitions, if there are several: so that each gives the same types. Travels
    as a plain tuple: to pickle an object of a class of Python's takes as long as everything else that starting a task does."""

    kind: str
    number: int
    slices: tuple[tuple[Slice, ...], ...] = ()
    skipped_blocks: int = 0
    partition_count: int = 0
    read: Callable[[], Iterable[pa.Table]] | None = None
    input_files: tuple[str, ...] = ()
    schemas: tuple[tuple[pa.Schema, ...], ...] = ()

    def plain(self) -> tuple[Any, ...]:
        slices = tuple(tuple(map(tuple, some)) for some in self.slices)
        return tuple(self._replace(slices=slices))  # type: ignore[arg-type]  # to be slices again

    @classmethod
    def of_plain(cls, plain: Sequence[Any]) -> Call:
        call = cls(*plain)
        return call._replace(slices=tuple(tuple(map(Slice._make, some)) for some in call.slices))

    def on(self) -> str:
        """In words."""
        if self.kind == events.READ:
            return f"part {self.number}"
        if self.kind in events.REDUCING:
            return f"partition {self.number}"
        numbers = [one.number for some in self.slices for one in some]
        rows = sum(one.row_count for some in self.slices for one in some)
        if not numbers:
            return "no blocks"
        named = f"block {numbers[0]}" if numbers[0] == numbers[-1] else f"blocks {numbers[0]} to {numbers[-1]}"
        return f"{named} ({rows} rows)"


def made(transforms: Iterable[stages.Transform | stages.Made]) -> list[stages.Transform]:
    return [one.make() if isinstance(one, stages.Made) else one for one in transforms]


def chained(tables: Iterable[pa.Table], transforms: Iterable[stages.Transform | stages.Made]) -> Iterator[pa.Table]:
    """What becomes of the tables. Nothing is called before the first one is asked for."""
    for transform in made(transforms):
        tables = transform(iter(tables))
    yield from tables


def run(
    code: Code,
    call: Call,
    values: Sequence[Any],
    transforms: Sequence[stages.Transform] | None,
    actor_bytes: int | None = None,
) -> Iterator[Any]:
    """The items of one task. values: the blocks of `call.slices`, of all inputs one after the other; before them, for a
    partition, its boundaries. transforms: as made beforehand, by an actor; actor_bytes: that it began with."""
    context = task_context.TaskContext(code.stage, input_files=call.input_files)
    token = task_context.enter(context)
    taken = heap.Heap()
    samples: list[Any] = []
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    try:
        with code.entered():
            yield from _items(code, call, values, transforms, context, taken, samples)
        heap_bytes = taken.end()
        held_bytes = 0 if actor_bytes is None else max(0, heap.own_bytes() - actor_bytes)
        if samples:
            yield SAMPLE, samples
        if context.failed_counts:
            yield (
                LEFT_OUT,
                context.failed_counts,
                [blocks_out.pack(table) for table in blocks_out.merged(context.failed)],
            )
        yield END, (time.perf_counter() - wall_s, time.process_time() - cpu_s, heap_bytes, held_bytes)
    except _OfSampleError as error:
        yield FAILED, failures.failure(error.error, stage=error.stage, on=f"what {code.stage} makes")
    except Exception as error:
        yield FAILED, failures.failure(error, stage=code.stage, on=call.on(), input_files=call.input_files)
    finally:
        taken.close()
        task_context.leave(token)


def _items(
    code: Code,
    call: Call,
    values: Sequence[Any],
    transforms: Sequence[stages.Transform] | None,
    context: task_context.TaskContext,
    taken: heap.Heap,
    samples: list[Any],
) -> Iterator[Any]:
    if call.kind == events.SAMPLE and code.sample is not None:
        yield SAMPLE, [code.sample(table) for table in _tables(call.slices[0], values, context)]
        return
    if call.kind == events.PARTITION:
        boundaries, *values = values
        partition = code.partition[call.number]
        # Of states it is not the rows' schemas alone that have to unify.
        together = getattr(partition, "together", whole)
        table = together(list(_tables(call.slices[0], values, context)))
        context.divided = [(one.number, one.row_count) for one in call.slices[0]]
        tables: Iterable[pa.Table] = partition(table, call.partition_count, boundaries)
        del table
    elif call.kind in events.REDUCING and code.reduce is not None:
        reduced = code.reduce[call.kind](call.number, _inputs(call, values, context))
        tables = blocks_out.blocks(reduced, code.block_bytes)
    elif call.kind == events.ZIP and code.combine is not None:
        tables = [code.combine([whole(list(some)) for some in _inputs(call, values, context)])]
    else:
        steps = code.transforms if transforms is None else transforms
        source = _read(call, context) if call.read is not None else _tables(call.slices[0], values, context)
        chain = chained(blocks_out.merged(source) if code.merges else source, steps)
        if code.write is not None:
            if not call.skipped_blocks:  # else what it returned is here, and writing again would be twice
                yield VALUE, code.write(chain)
            return
        tables = blocks_out.blocks(chain, code.block_bytes)
    if code.sampling is not None and call.kind in events.MAKING:
        tables = _sampled(tables, *code.sampling, samples)
    if call.kind == events.PARTITION:
        yield from _shards(tables, call.skipped_blocks, taken)
    else:
        yield from _sent(tables, call.skipped_blocks, taken)


class _OfSampleError(Exception):
    """Not of the stage whose task it was."""

    def __init__(self, stage: str, error: Exception) -> None:
        super().__init__(stage)
        self.stage = stage
        self.error = error


def _sampled(
    tables: Iterable[pa.Table], stage: str, sample: Callable[[pa.Table], Any], samples: list[Any]
) -> Iterator[pa.Table]:
    """The same; `samples` has one of each."""
    for table in tables:
        try:
            samples.append(sample(table))
        except Exception as error:
            raise _OfSampleError(stage, error) from None
        yield table


def _sent(tables: Iterable[pa.Table], skipped: int, taken: heap.Heap) -> Iterator[Any]:
    schema: pa.Schema | None = None
    for at, table in enumerate(tables):
        taken.look()
        if at < skipped:
            continue
        told = None if schema is not None and table.schema.equals(schema, check_metadata=True) else table.schema
        schema = table.schema
        size_bytes = table.nbytes
        if size_bytes <= blocks_out.INLINE_BYTES:
            yield BLOCK, table.num_rows, size_bytes, told, blocks_out.to_bytes(table).to_pybytes()
            continue
        yield BLOCK, table.num_rows, size_bytes, told, None
        yield blocks_out.compact(table)
        del table


def _shards(tables: Iterable[pa.Table], skipped: int, taken: heap.Heap) -> Iterator[Any]:
    """As `_sent`, but small ones together: there may be a thousand of a task, and an item costs more than what is in them."""
    waiting: list[tuple[int, int, bytes, pa.Schema | None]] = []
    schema: pa.Schema | None = None
    size_bytes = 0
    for table in itertools.islice(tables, skipped, None):
        is_small = table.nbytes <= SHARD_BYTES_MAX
        if waiting and (not is_small or size_bytes > blocks_out.INLINE_BYTES):
            yield SHARDS, waiting
            waiting, size_bytes = [], 0
        if is_small:
            told = None if schema is not None and table.schema.equals(schema, check_metadata=True) else table.schema
            schema = table.schema
            waiting.append((table.num_rows, table.nbytes, blocks_out.to_bytes(table).to_pybytes(), told))
            size_bytes += len(waiting[-1][2])
        else:
            yield from _sent([table], 0, taken)
    taken.look()
    if waiting:
        yield SHARDS, waiting


def _read(call: Call, context: task_context.TaskContext) -> Iterator[pa.Table]:
    if call.read is not None:
        for table in call.read():
            context.draws(call.number)
            yield table


def _tables(slices: Sequence[Slice], values: Sequence[Any], context: task_context.TaskContext) -> Iterator[pa.Table]:
    for one, value in zip(slices, values, strict=True):
        table = blocks_out.unpack(value)
        if one.row_count != table.num_rows:
            table = table.slice(one.offset, one.row_count)
        context.draws(one.number)
        yield table


def _inputs(call: Call, values: Sequence[Any], context: task_context.TaskContext) -> list[list[pa.Table]]:
    """The tables of each input."""
    found, at = [], 0
    for number, slices in enumerate(call.slices):
        empty = [schema.empty_table() for schema in call.schemas[number]] if call.schemas else []
        found.append([*empty, *_tables(slices, values[at : at + len(slices)], context)])
        at += len(slices)
    return found


def whole(tables: list[pa.Table]) -> pa.Table:
    """The rows of all, under one schema: blocks of a user's function may differ in theirs."""
    return schemas.concat(tables)


# ---------------------------------------------------------------------------------------------------------------------
# What the executor makes remote.


def _limit_threads() -> None:
    """Of libraries that would take all cores: those that a task has, as the runtime tells OpenMP. What is set already stays."""
    os.environ.setdefault("POLARS_MAX_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))


def task_of(code: Code) -> Callable[..., Iterator[Any]]:
    """The function of a stage's tasks. The code is a part of it, so that a worker loads it once."""

    def dataset_task(call: tuple[Any, ...], *values: Any) -> Iterator[Any]:
        _limit_threads()
        yield from run(code, Call.of_plain(call), values, None)

    return dataset_task


class DatasetActor:
    """One actor of a stage's pool. Its transforms are made by `ready`, where an error of the user's can be told."""

    def __init__(self, code: Code) -> None:
        _limit_threads()
        self._code = code
        self._transforms: list[stages.Transform] | None = None
        self._before_bytes = heap.own_bytes()

    def ready(self) -> Iterator[Any]:
        try:
            self._make()
            yield READY, max(0, heap.own_bytes() - self._before_bytes)
        except Exception as error:
            yield FAILED, failures.failure(error, stage=self._code.stage, on="what its actors begin with")

    def _make(self) -> list[stages.Transform]:
        if self._transforms is None:
            with self._code.entered():
                self._transforms = made(self._code.transforms)
        return self._transforms

    def run(self, call: tuple[Any, ...], *values: Any) -> Iterator[Any]:
        try:
            transforms = self._make()  # again, where the runtime has made a lost actor anew
        except Exception as error:
            yield FAILED, failures.failure(error, stage=self._code.stage, on="what its actors begin with")
            return
        yield from run(self._code, Call.of_plain(call), values, transforms, self._before_bytes)
