"""The physical plan: a graph of stages, each of which makes blocks out of those of its inputs.

A plan is its last stage; the others are its `inputs`, and theirs. A stage that is input to two others is run once, and
both get its blocks. Stages say what is to be done and with which means; when it is done is `scheduling`'s to decide, and
how, `executor`'s (on workers) or `local`'s (in the calling process).

Blocks have an order: those of a stage are numbered by (number of the task, number of the block within it), and a stage
takes those of its inputs in that order. Whatever is called on a worker (transforms, partitions, reductions, parts of a
read) travels there pickled, and must give the same answer each time: tasks run again when a worker is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umbel.data._engine import blocks_out

if TYPE_CHECKING:
    import umbel

MIB = 1 << 20

# A partition has so much at least where a number of CPUs asks for several: dividing costs about as much as two or three tasks.
PARTITION_BYTES_MIN = 16 * MIB

Transform = Callable[[Iterator[pa.Table]], Iterable[pa.Table]]
"""Takes the blocks of one task in order, and gives what becomes of them. Lazy: it draws the next block when it wants it.
`task_context.current()` tells it which block it has drawn."""


Reduce = Callable[[int, Sequence[Sequence["pa.Table"]]], Iterable["pa.Table"]]
"""`(partition, for each input its tables in order) -> tables`."""


@dataclass(frozen=True)
class Made:
    """A transform that is made where it runs: `make()` is called once in each actor, in a task pool once in each task."""

    make: Callable[[], Transform]


# ---------------------------------------------------------------------------------------------------------------------
# With which means.


@dataclass(frozen=True)
class Resources:
    """What one task, or one actor, takes of the cluster.

    memory_bytes: of heap; 0 where nothing is known, then it is learnt. options: others of core's for remote functions and
    actors (`resources`, `accelerator_type`, `label_selector`, `runtime_env`, `scheduling_strategy`, `max_calls`, ...).
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_bytes: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def custom(self) -> Mapping[str, float]:
        """Resources with names of the user's."""
        found: Mapping[str, float] = self.options.get("resources") or {}
        return found

    def needs(self) -> dict[str, float]:
        """All but memory, which the budget accounts for; by core's names."""
        found = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.custom()}
        return {name: amount for name, amount in found.items() if amount}


@dataclass(frozen=True)
class TaskPool:
    """Each task on any worker. size: how many at once at most; None for as many as there is room for."""

    size: int | None = None


@dataclass(frozen=True)
class ActorPool:
    """Tasks on actors of the stage's own, which are started as there is work and ended as there is none.

    min_size are kept from the first work to the last; the rest come and go. initial_size: how many are started with the
    first work at least (never more than max_size). tasks_per_actor: how many are sent to an actor at once, so that it need
    not wait for the next. concurrency: how many of these it runs at once, on threads of its own; are_calls_concurrent: calls of
    the function too, and not only what is done before and after them.
    """

    min_size: int = 0
    max_size: int | None = None
    initial_size: int | None = None
    tasks_per_actor: int = 2
    concurrency: int = 1
    are_calls_concurrent: bool = False


Compute = TaskPool | ActorPool


# ---------------------------------------------------------------------------------------------------------------------
# Blocks that are there, and parts to be read.


@dataclass(frozen=True)
class Metadata:
    """What is known of a block without looking at it. input_files: where its rows come from, as far as that is known."""

    row_count: int
    size_bytes: int
    schema: pa.Schema | None = None
    input_files: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Block:
    """A table, in memory or in the store. A reference is to a table, or to what `blocks_out.pack` made of one. Travels without
    what its table shares with others: pickling writes whole buffers, and so all of a table for each of its slices."""

    value: pa.Table | umbel.ObjectRef[Any]
    metadata: Metadata

    def __reduce__(self) -> tuple[Any, ...]:
        is_here = isinstance(self.value, pa.Table)
        return _arrived, (blocks_out.pack(self.value) if is_here else self.value, self.metadata)


def _arrived(value: Any, metadata: Metadata) -> Block:
    return Block(blocks_out.unpack(value) if isinstance(value, bytes) else value, metadata)


@dataclass(frozen=True, eq=False)
class ReadPart:
    """What one task reads. row_count, size_bytes (in memory): what is known before, None where nothing is. is_exact: the count
    of rows is no estimate."""

    read: Callable[[], Iterable[pa.Table]]
    row_count: int | None = None
    size_bytes: int | None = None
    is_exact: bool = False
    input_files: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------------------------
# Stages. Equal only to themselves: two that look the same are two.


@dataclass(frozen=True, eq=False, kw_only=True)
class Input:
    """Blocks that are there. skipped: numbers of those that are left out."""

    name: str = "Input"
    blocks: Sequence[Block]
    skipped: frozenset[int] = frozenset()

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Read:
    """A task for each part. transforms: what was fused behind it.

    can_repeat: running a part twice at once does no harm, so that one that is late may be tried a second time. block_bytes:
    the size at which a task ends a block. is_kernel: nothing of it is the user's code. skipped: numbers of parts that are not
    read; the others keep theirs.
    """

    name: str
    parts: Sequence[ReadPart]
    transforms: Sequence[Transform | Made] = ()
    compute: Compute = TaskPool()
    resources: Resources = Resources()
    can_repeat: bool = True
    block_bytes: int = 128 * MIB
    is_kernel: bool = True
    skipped: frozenset[int] = frozenset()

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Map:
    """A chain of transforms over the blocks of one stage.

    A task takes blocks that follow one another until they have `bundle_rows` rows, or else `bundle_bytes` bytes; a larger
    block is a task of its own. One may be given less while workers would have nothing to do otherwise, so that transforms
    must not depend on what they get together; with `bundle_rows` (batches of so many rows) or `is_steady` (something
    random follows, which depends on the numbers of blocks) that is not done, and tasks are the same in every run. With
    `by_part` no task has rows of two parts of the read, two partitions or two blocks that were there, whichever the rows come
    of; order must be kept then.
    """

    name: str
    input: Stage
    transforms: Sequence[Transform | Made]
    compute: Compute = TaskPool()
    resources: Resources = Resources()
    bundle_rows: int | None = None
    bundle_bytes: int = 16 * MIB  # a task costs about a millisecond, these some milliseconds in the quickest kernel
    is_steady: bool = False
    can_repeat: bool = False
    block_bytes: int = 128 * MIB
    is_kernel: bool = False
    by_part: bool = False

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Write:
    """As `Map`, but for effect: each task returns what `write` does, and when all are done `commit` gets these, in order.

    write: takes the blocks of a task after `transforms`. begin: before the first task. abort: when the run fails or is given up,
    and when `commit` raises. `begin`, `commit` and `abort` run in the calling process. by_part: a task has all rows of one part,
    as a `Map` has it, whose number is that of the task.
    """

    name: str
    input: Stage
    write: Callable[[Iterator[pa.Table]], Any]
    transforms: Sequence[Transform | Made] = ()
    begin: Callable[[], None] | None = None
    commit: Callable[[list[Any]], Any] | None = None
    abort: Callable[[BaseException], None] | None = None
    compute: Compute = TaskPool()
    resources: Resources = Resources()
    bundle_rows: int | None = None
    bundle_bytes: int = 128 * MIB
    is_steady: bool = True  # a file for each task
    is_kernel: bool = False
    by_part: bool = False

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Exchange:
    """Rows go where their partition is put together: group-bys, joins, sorts, shuffles, repartitions.

    partition: one for each input (one or two), `(table, partition_count, boundaries) -> partition_count tables`.
    reduce: called once for each partition, also for an empty one. partition_count: None to take one for each `partition_bytes`
    of what comes in, as measured; with one, nothing is partitioned and `reduce` gets the inputs' blocks themselves. parallelism:
    without a count, so many at least, as far as each has `PARTITION_BYTES_MIN`.
    whole: of two inputs the numbers of those that may be given whole to several tasks, which share the other one, as the right
    side of a left join may. The first one that turns out to have at most `broadcast_bytes` is: then nothing is divided, and
    `reduce` is called for some blocks of the other at a time, in order, with all of this one. And a partition that has become
    much larger than `partition_bytes` is shared by several calls of `reduce`, each with all of one input. broadcast_bytes: 0
    to divide in any case.
    apart: of a join that needs both whole, two functions for each input, which make of a large partition what `reduce` would: the
    first is called for some rows of that input at a time with all of the other, then the second once with all of both, for what
    none of those calls could know.
    is_steady: then tasks are the same in every run, as those of a `Map`.
    sample, boundaries: for partitions by range. `sample(table)` is taken of every block of the first input, where it is made
    if a task makes it, then `boundaries(samples, partition_count)` in the calling process makes what `partition` gets; without,
    that is None. With boundaries and no sample, these are made of how many rows each block of the first input has.
    The order of what comes out is that of the partitions.
    """

    name: str
    inputs: tuple[Stage, ...]
    partition: Sequence[Callable[[pa.Table, int, Any], Iterable[pa.Table]]]
    reduce: Reduce
    partition_count: int | None = None
    partition_bytes: int = 128 * MIB
    partition_count_max: int = 1_000
    parallelism: int = 1
    whole: tuple[int, ...] = ()
    apart: Sequence[tuple[Reduce, Reduce]] = ()
    is_steady: bool = False
    broadcast_bytes: int = 64 * MIB
    sample: Callable[[pa.Table], Any] | None = None
    boundaries: Callable[[Sequence[Any], int], Any] | None = None
    resources: Resources = Resources()
    bundle_bytes: int = 128 * MIB
    can_repeat: bool = False
    block_bytes: int = 128 * MIB
    is_kernel: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class Limit:
    """The first rows. What is above it stops as soon as they are there."""

    input: Stage
    row_count: int
    name: str = "Limit"

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Union:
    """The blocks of each input, one after the other."""

    inputs: tuple[Stage, ...]
    name: str = "Union"


@dataclass(frozen=True, eq=False, kw_only=True)
class Mix:
    """The blocks of all inputs, or parts of them, in turns by weight. is_shortest: ends with the first input that does; otherwise
    those that are left go on."""

    inputs: tuple[Stage, ...]
    weights: tuple[float, ...]
    is_shortest: bool = True
    name: str = "Mix"


@dataclass(frozen=True, eq=False, kw_only=True)
class Zip:
    """Rows of two or more inputs side by side: `combine` gets tables with as many rows each. Inputs that turn out not to have
    equally many rows end the run with ValueError. A task takes blocks of the first input until these and what lies beside them
    have `bundle_bytes`; `is_steady` as of a `Map`."""

    inputs: tuple[Stage, ...]
    combine: Callable[[Sequence[pa.Table]], pa.Table]
    name: str = "Zip"
    resources: Resources = Resources()
    bundle_bytes: int = Map.bundle_bytes
    is_steady: bool = False
    is_kernel: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """The last stage of a plan with several consumers: each block, or part of one, goes to one of them.

    is_equal: all get equally many rows, and what is left over in the end, fewer than `count` rows, nobody. Otherwise a block
    goes to whoever asks.
    """

    input: Stage
    count: int
    is_equal: bool = False
    name: str = "Split"

    @property
    def inputs(self) -> tuple[Stage, ...]:
        return (self.input,)


Stage = Input | Read | Map | Write | Exchange | Limit | Union | Mix | Zip | Split


def changed(last: Stage, change: Callable[[Stage], Mapping[str, Any]]) -> Stage:
    """The same stages with other fields, as `change` says of each. One of which nothing changes stays itself."""
    made: dict[Stage, Stage] = {}
    for stage in ordered(last):
        given = {**change(stage)}
        if any(made[one] is not one for one in stage.inputs):
            if isinstance(stage, Map | Write | Limit | Split):
                given["input"] = made[stage.input]
            else:
                given["inputs"] = tuple(made[one] for one in stage.inputs)
        made[stage] = replace(stage, **given) if given else stage
    return made[last]


def ordered(last: Stage) -> list[Stage]:
    """All stages of the plan, each once and behind its inputs."""
    found: list[Stage] = []
    seen: set[int] = set()
    waiting: list[tuple[Stage, bool]] = [(last, False)]
    while waiting:
        stage, are_inputs_in = waiting.pop()
        if are_inputs_in:
            found.append(stage)
        elif id(stage) not in seen:
            seen.add(id(stage))
            waiting.append((stage, True))
            waiting += [(one, False) for one in reversed(stage.inputs)]
    return found
