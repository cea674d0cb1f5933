"""The stages of a logical plan.

Operators that look at one block at a time are fused into the stage in front of them, where they run with the same means; built-in
ones take any. What needs rows of several blocks is an exchange, in front of which each task does what it can by itself.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from umbel.data import context
from umbel.data._blocks import grouping, shuffling
from umbel.data._engine import placing, stages
from umbel.data._plan import block_kernels, functions, kernels, logical, retrying, rules, schemas
from umbel.data._sinks import base as sinks

if TYPE_CHECKING:
    import pyarrow as pa

INDEXED_BYTES = 16 * stages.MIB  # an index of these takes a tenth of a second
DIVIDED_PER_INDEXED = 1.75  # measured, see docs/design/0046
TASKS_PER_CPU = 2  # into which a join is divided: one is never as long as another
FEW_BLOCKS = 64  # of a side of a join: as many arguments of each task, which cost less than one more stage


@dataclass(frozen=True)
class Sizes:
    """block_bytes: at which a block ends. partition_bytes: of what one reduction gets. broadcast_bytes: of a side
    of a join that goes to every task, 0 for none. parallelism: tasks that a read is divided into at least, where it is large
    enough, as each is to have part_bytes_min. cpu_count: of the cluster. epoch: how many runs of the dataset there were before.
    retried_errors: after which a read is tried again. keeps_order: as in `reports.RunOptions`."""

    block_bytes: int = 128 * stages.MIB
    partition_bytes: int = 128 * stages.MIB
    broadcast_bytes: int = 64 * stages.MIB
    parallelism: int = 2
    part_bytes_min: int = 0
    cpu_count: int = 1
    epoch: int = 0
    retried_errors: tuple[str, ...] = ()
    keeps_order: bool = True


@dataclass(frozen=True)
class Link:
    """An operator that is a transform. bundle_rows: of what a task of its own would get. is_steady: it gets the blocks that there
    are, and not several as one. block_bytes: at which its blocks end, if not the usual ones; 0 for as it gives them."""

    name: str
    transform: Any
    means: logical.Means = field(default_factory=logical.Means)
    is_kernel: bool = True
    bundle_rows: int | None = None
    is_steady: bool = False
    block_bytes: int | None = None


def stage_of(last: logical.Node, sizes: Sizes) -> stages.Stage:
    """Of the last node, with those in front of it."""
    planner = _Planner(last, sizes)
    stage = planner.stage(last)
    return _steadied(stage) if planner.goes_by_place else stage


class _Planner:
    def __init__(self, last: logical.Node, sizes: Sizes) -> None:
        self._sizes = sizes
        self._stages: dict[logical.Node, stages.Stage] = {}
        self._schemas: dict[logical.Node, pa.Schema | None] = {}
        uses = collections.Counter(one for node in logical.each(last) for one in node.inputs)
        self._is_shared = {node for node, count in uses.items() if count > 1}
        self.goes_by_place = False  # something depends on which block a row is in

    def stage(self, node: logical.Node) -> stages.Stage:
        if node not in self._stages:
            self._stages[node] = _lower(node, self)
        return self._stages[node]

    def schema(self, node: logical.Node) -> pa.Schema | None:
        return schemas.of(node, self._schemas)

    def alike(self, node: logical.Several) -> tuple[stages.Stage, ...]:
        """The stages of the inputs, with blocks of one schema as far as theirs are known: what follows may rely on columns that
        only some of them have, and compute with types that are wider than theirs."""
        schema = self.schema(node)
        made = []
        for one in node.inputs:
            own = self.schema(one)
            is_other = schema is not None and own is not None and not own.equals(schema)
            made.append(
                self.linked(one, Link("Conform", block_kernels.Conformed(schema))) if is_other else self.stage(one)
            )
        return tuple(made)

    def linked(self, node: logical.Node, link: Link) -> stages.Stage:
        """The stage of `node` with another operator behind it."""
        before = self.stage(node)
        if isinstance(before, stages.Map | stages.Read) and node not in self._is_shared and _goes_with(before, link):
            given: dict[str, Any] = {} if link.block_bytes is None else {"block_bytes": link.block_bytes}
            if _is_plain(before) and not link.is_kernel:
                given |= {"resources": link.means.resources, "compute": compute_of(link)}
            return dataclasses.replace(
                before,
                name=f"{before.name}->{link.name}",
                transforms=(*before.transforms, link.transform),
                is_kernel=before.is_kernel and link.is_kernel,
                can_repeat=before.can_repeat and link.is_kernel,
                **given,
            )
        return self.mapped(before, link)

    def mapped(self, before: stages.Stage, link: Link) -> stages.Map:
        """A stage of the operator."""
        return stages.Map(
            name=link.name,
            input=before,
            transforms=(link.transform,),
            compute=compute_of(link),
            resources=link.means.resources,
            bundle_rows=link.bundle_rows,
            is_steady=link.is_steady,
            block_bytes=self._sizes.block_bytes if link.block_bytes is None else link.block_bytes,
            is_kernel=link.is_kernel,
            can_repeat=link.is_kernel,
        )

    def exchange(
        self,
        name: str,
        inputs: Sequence[stages.Stage],
        partition: Callable[..., Any] | Sequence[Callable[..., Any]],
        reduce: kernels.Reduction,
        **options: Any,
    ) -> stages.Exchange:
        given = {"partition_bytes": self._sizes.partition_bytes, "block_bytes": self._sizes.block_bytes, **options}
        sides = partition if isinstance(partition, Sequence) else [partition] * len(inputs)
        if len(inputs) == 1 and not isinstance(reduce, kernels.Combined):
            reduce = kernels.OfBlocks(reduce)
        return stages.Exchange(name=name, inputs=tuple(inputs), partition=sides, reduce=reduce, **given)

    def reordered(self, node: logical.Node, seed: int) -> stages.Stage:
        """Its blocks in another order: at once where they come from, if nobody else gets them."""
        chance = shuffling.generator((seed, 0x6F72))
        stage = self.stage(node)
        return (None if self._is_shared else _reordered(stage, chance)) or self.exchange(
            "RandomizeBlocks", [stage], kernels.ByBlock(seed), kernels.Together()
        )

    def has_chosen_parts(self, node: logical.Node) -> bool:
        """Somebody said of how many parts the rows come, and nothing since has put several together: each is to be a file.
        Only where blocks keep their order are those of a part together."""
        while node not in self._is_shared and _keeps_parts(node):
            (node,) = node.inputs
        if node in self._is_shared or not self._sizes.keeps_order:
            return False
        if isinstance(node, logical.Repartition):
            return node.block_count is not None
        if isinstance(node, logical.Read):
            return node.parallelism is not None
        return isinstance(node, logical.FromBlocks) and node.is_chosen

    @property
    def sizes(self) -> Sizes:
        return self._sizes


def _keeps_parts(node: logical.Node) -> bool:
    if isinstance(node, logical.MapBatches):
        return node.batch_size is None
    return isinstance(node, logical.MapRows | logical.Filter | logical.Project | logical.Rename)


def _by_part(stage: stages.Stage) -> stages.Stage:
    """The same, of which no task has rows of two parts."""
    if not isinstance(stage, stages.Map):
        return stage
    return dataclasses.replace(stage, input=_by_part(stage.input), by_part=True)


def _are_parts_small(stage: stages.Stage) -> bool:
    """Each is known to fit what one task of a write gets, so that nothing need be kept until a part is whole."""
    while isinstance(stage, stages.Map):
        stage = stage.input
    if not isinstance(stage, stages.Read):  # what is there already, or was put together by one task
        return True
    return all(part.size_bytes is not None and part.size_bytes <= stages.Write.bundle_bytes for part in stage.parts)


def _reordered(stage: stages.Stage, chance: Any) -> stages.Stage | None:
    if isinstance(stage, stages.Input):
        order = chance.permutation(len(stage.blocks))
        return dataclasses.replace(stage, blocks=[stage.blocks[number] for number in order])
    if isinstance(stage, stages.Read):
        order = chance.permutation(len(stage.parts))
        return dataclasses.replace(stage, parts=[stage.parts[number] for number in order])
    if isinstance(stage, stages.Map) and stage.bundle_rows is None:
        found = _reordered(stage.input, chance)
        return None if found is None else dataclasses.replace(stage, input=found)
    return None


def _steadied(last: stages.Stage) -> stages.Stage:
    """The same stages with blocks that are cut alike in every run, as what is random goes by their numbers."""

    def change(stage: stages.Stage) -> dict[str, Any]:
        return {"is_steady": True} if isinstance(stage, stages.Map | stages.Exchange | stages.Zip) else {}

    return stages.changed(last, change)


def compute_of(link: Link) -> stages.Compute:
    if link.means.compute is not None:
        return link.means.compute
    return stages.ActorPool() if isinstance(link.transform, stages.Made) else stages.TaskPool()


def _is_plain(stage: stages.Map | stages.Read) -> bool:
    """It runs with the means of any built-in operator."""
    return stage.compute == stages.TaskPool() and stage.resources == stages.Resources()


def _goes_with(stage: stages.Map | stages.Read, link: Link) -> bool:
    if link.is_kernel:
        return True
    if link.bundle_rows is not None and getattr(stage, "bundle_rows", None) != link.bundle_rows:
        return False
    means = (compute_of(link), link.means.resources)
    return means == (stage.compute, stage.resources) and not isinstance(compute_of(link), stages.ActorPool)


# ---------------------------------------------------------------------------------------------------------------------
# Each node.


@functools.singledispatch
def _lower(node: Any, _planner: _Planner) -> stages.Stage:
    raise NotImplementedError(f"there is no way yet to run {node.name}")


@_lower.register
def _(node: logical.FromBlocks, planner: _Planner) -> stages.Stage:
    made = stages.Input(name=node.name, blocks=node.blocks)
    schema = planner.schema(node)
    if schema is None or all(schema.equals(block.metadata.schema) for block in node.blocks):
        return made
    link = Link("Conform", block_kernels.Conformed(schema), is_steady=True, block_bytes=0)
    return planner.mapped(made, link)


@_lower.register
def _(node: logical.Read, planner: _Planner) -> stages.Stage:
    source = node.source.with_epoch(planner.sizes.epoch)
    tasks = source.get_read_tasks(node.parallelism or _parallelism(source, planner.sizes), node.limit)
    return stages.Read(
        name=node.name,
        parts=[_part(task, planner.sizes.retried_errors) for task in tasks],
        compute=node.means.compute or stages.TaskPool(),
        resources=node.means.resources,
        block_bytes=planner.sizes.block_bytes,
    )


def _parallelism(source: Any, sizes: Sizes) -> int:
    size_bytes = source.estimate_inmemory_data_size() if sizes.part_bytes_min else None
    return (
        sizes.parallelism if size_bytes is None else max(1, min(sizes.parallelism, size_bytes // sizes.part_bytes_min))
    )


def _part(task: Any, retried_errors: tuple[str, ...]) -> stages.ReadPart:
    known = task.metadata
    read = retrying.Retried(task, retried_errors) if retried_errors else task
    return stages.ReadPart(
        read=read, row_count=known.num_rows, size_bytes=known.size_bytes, input_files=tuple(known.input_files or ())
    )


@_lower.register
def _(node: logical.MapRows, planner: _Planner) -> stages.Stage:
    is_alone = _is_alone(node.means)
    calls = functions.RowCalls(node.name, node.function, node.kind, node.on_error, is_alone)
    return planner.linked(node.input, Link(node.name, functions.transform(calls), node.means, is_kernel=False))


@_lower.register
def _(node: logical.MapBatches, planner: _Planner) -> stages.Stage:
    calls = functions.BatchCalls(
        node.name,
        node.function,
        node.batch_size,
        node.batch_format,
        node.zero_copy,
        node.on_error,
        _is_alone(node.means),
    )
    link = Link(
        node.name,
        functions.transform(calls),
        node.means,
        is_kernel=False,
        bundle_rows=node.batch_size if isinstance(node.batch_size, int) else None,
        is_steady=node.batch_size is None and _has_chosen_blocks(node.input),
    )
    return planner.linked(node.input, link)


def _is_alone(means: logical.Means) -> bool:
    """One call of the function at a time, whatever else its actor does at once."""
    pool = means.compute
    return isinstance(pool, stages.ActorPool) and pool.concurrency > 1 and not pool.are_calls_concurrent


def _has_chosen_blocks(node: logical.Node) -> bool:
    """Somebody said which blocks there are to be, and means them when he says that a function gets blocks."""
    while isinstance(node, logical.Project | logical.Rename | logical.MapRows | logical.Filter):
        node = node.input
    return isinstance(node, logical.Repartition)


@_lower.register
def _(node: logical.Filter, planner: _Planner) -> stages.Stage:
    return planner.linked(node.input, Link(node.name, kernels.Filtered(node.expression), node.means))


@_lower.register
def _(node: logical.Project, planner: _Planner) -> stages.Stage:
    is_placed = rules.is_placed(node)
    planner.goes_by_place |= is_placed
    transform = kernels.Projected(node.expressions, node.dropped, planner.sizes.epoch)
    is_plain = node.means == logical.Means()
    link = Link(node.name, transform, node.means, is_kernel=is_plain, is_steady=is_placed)
    return planner.linked(node.input, link)


@_lower.register
def _(node: logical.Rename, planner: _Planner) -> stages.Stage:
    return planner.linked(node.input, Link(node.name, block_kernels.Renamed(node.names)))


@_lower.register
def _(node: logical.Sample, planner: _Planner) -> stages.Stage:
    planner.goes_by_place = True
    link = Link(node.name, kernels.Sampled(node.fraction, _seed(node.seed, planner.sizes.epoch)), is_steady=True)
    return planner.linked(node.input, link)


@_lower.register
def _(node: logical.Limit, planner: _Planner) -> stages.Stage:
    if not node.row_count:  # nothing is run; but whoever comes next may ask for a column
        schema = planner.schema(node)
        empty = [] if schema is None else [stages.Block(schema.empty_table(), stages.Metadata(0, 0, schema))]
        return stages.Input(blocks=empty, name=node.name)
    before = planner.linked(node.input, Link(node.name, block_kernels.Head(node.row_count)))
    return stages.Limit(input=before, row_count=node.row_count, name=node.name)


@_lower.register
def _(node: logical.Repartition, planner: _Planner) -> stages.Stage:
    if node.block_rows is not None and not node.is_strict:
        link = Link(node.name, block_kernels.Rebatched(node.block_rows), bundle_rows=node.block_rows, block_bytes=0)
        return planner.linked(node.input, link)
    before = planner.stage(node.input)
    if node.block_rows is not None:
        return planner.exchange(
            node.name,
            [before],
            kernels.ByPlace(node.block_rows),
            kernels.Together(block_rows=node.block_rows),
            boundaries=kernels.places,
            block_bytes=0,
        )
    together = kernels.Together(node.keys if node.sorts else ())
    if node.keys:
        how: Any = kernels.ByHash(node.keys)
        return planner.exchange(node.name, [before], how, together, partition_count=node.block_count)
    if node.shuffles:
        seed = _seed(None, 0)
        how = kernels.AtRandom(seed)
        return planner.exchange(node.name, [before], how, kernels.Shuffled(seed), partition_count=node.block_count)
    return planner.exchange(
        node.name,
        [before],
        kernels.ByPlace(),
        together,
        partition_count=node.block_count,
        boundaries=kernels.places,
    )


@_lower.register
def _(node: logical.RandomizeBlocks, planner: _Planner) -> stages.Stage:
    planner.goes_by_place = True
    return planner.reordered(node.input, _seed(node.seed, planner.sizes.epoch))


@_lower.register
def _(node: logical.RandomShuffle, planner: _Planner) -> stages.Stage:
    seed = _seed(node.seed, planner.sizes.epoch)
    planner.goes_by_place |= node.seed is not None  # else each run differs, and nothing need wait for it not to
    return planner.exchange(
        node.name,
        [planner.stage(node.input)],
        kernels.AtRandom(seed),
        kernels.Shuffled(seed),
        partition_count=node.block_count,
        resources=node.means.resources,
    )


@_lower.register
def _(node: logical.Sort, planner: _Planner) -> stages.Stage:
    reduce = kernels.Sorted(node.keys, node.descending, node.limit)
    how = kernels.ByRange(node.keys, node.descending)
    if node.limit is not None:
        before = planner.linked(node.input, Link("TopRows", kernels.TopRows(node.limit, node.keys, node.descending)))
        return planner.exchange(node.name, [before], how, reduce, partition_count=1)
    if node.boundaries is not None:
        given = kernels.GivenBoundaries(node.keys[0], node.boundaries, node.descending[0])
        return planner.exchange(
            node.name,
            [planner.stage(node.input)],
            kernels.ByRange(node.keys[:1], node.descending[:1]),
            kernels.Sorted(node.keys, node.descending, is_one_table=True),
            partition_count=len(node.boundaries) + 1,
            boundaries=given,
            block_bytes=0,
        )
    return planner.exchange(
        node.name,
        [planner.stage(node.input)],
        how,
        reduce,
        sample=kernels.KeySample(node.keys),
        boundaries=kernels.SortBoundaries(node.keys, node.descending),
    )


@_lower.register
def _(node: logical.Aggregate, planner: _Planner) -> stages.Stage:
    how = grouping.Grouping(node.keys, node.aggregates)
    before = planner.linked(node.input, Link("PartialAggregate", kernels.Grouped(how)))
    count = node.partition_count if node.keys else 1
    return planner.exchange(node.name, [before], kernels.ByGroup(how), kernels.Combined(how), partition_count=count)


@_lower.register
def _(node: logical.Distinct, planner: _Planner) -> stages.Stage:
    before = planner.linked(node.input, Link("PartialDistinct", kernels.DistinctRows(node.keys, node.keep)))
    return planner.exchange(
        node.name, [before], kernels.ByHash(node.keys or ()), kernels.DistinctOfAll(node.keys, node.keep)
    )


@_lower.register
def _(node: logical.MapGroups, planner: _Planner) -> stages.Stage:
    return planner.exchange(
        node.name,
        [planner.stage(node.input)],
        kernels.ByHash(node.keys),
        kernels.GroupCalls(node.name, node.keys, node.function, node.batch_format, node.zero_copy, node.on_error),
        partition_count=node.partition_count if node.keys else 1,
        resources=node.means.resources,
        is_kernel=False,
    )


@_lower.register
def _(node: logical.Window, planner: _Planner) -> stages.Stage:
    return planner.exchange(
        node.name,
        [planner.stage(node.input)],
        kernels.ByHash(node.partition_by),
        kernels.Windowed(node.partition_by, node.order_by, node.descending, node.functions),
        partition_count=None if node.partition_by else 1,
    )


@_lower.register
def _(node: logical.Join, planner: _Planner) -> stages.Stage:
    inputs = [planner.stage(one) for one in node.inputs]
    whole = logical.WHOLE_SIDES[node.how]
    if len(whole) > 1 and node.is_broadcast is None:
        sizes = [estimated_bytes(one) for one in inputs]
        whole = tuple(sorted(whole, key=lambda side: (sizes[side] is None, sizes[side] or 0)))
    is_broadcast = node.is_broadcast
    if is_broadcast is None and node.partition_count is not None:
        is_broadcast = False  # who says into how many partitions wants it divided
    if is_broadcast is None and whole:
        known = [known_bytes(one) for one in inputs]
        is_worth_it = should_go_whole(known[whole[0]], known[1 - whole[0]], planner.sizes.cpu_count)
        is_broadcast = None if is_worth_it else False
    limit = _broadcast_bytes(is_broadcast, planner)
    if whole:
        inputs[whole[0]] = _in_few_blocks(inputs[whole[0]], limit)
    joined = kernels.Joined(_alone(node), *map(schemas.of, node.inputs))
    return planner.exchange(
        node.name,
        inputs,
        [kernels.ByHash(node.left_on), kernels.ByHash(node.right_on)],
        joined,
        apart=[tuple(dataclasses.replace(joined, part=part) for part in parts) for parts in logical.APART[node.how]],
        partition_count=node.partition_count,
        parallelism=TASKS_PER_CPU * planner.sizes.cpu_count,
        whole=whole[:1] if node.is_broadcast else whole,
        resources=node.resources,
        broadcast_bytes=limit,
    )


def _alone(node: logical.Node) -> Any:
    """The operator without what it takes its rows from, which may be in memory and would travel to each task with it."""
    return node.with_inputs([logical.Node() for _ in node.inputs])


def _broadcast_bytes(is_broadcast: bool | None, planner: _Planner) -> int:
    if is_broadcast is None:
        return planner.sizes.broadcast_bytes
    return sys.maxsize if is_broadcast else 0


def should_go_whole(whole_bytes: int | None, other_bytes: int | None, cpu_count: int) -> bool:
    """Whether a side of a join that is small enough to go whole to every task should.

    Then every CPU makes an index of all of it. The other way, both are divided and each CPU has its part of the index; to index a
    byte takes as long as to divide `DIVIDED_PER_INDEXED`. So it should unless the other side is known to be too small for so many
    indexes; and always if there is little to index."""
    if whole_bytes is None or other_bytes is None or whole_bytes <= INDEXED_BYTES:
        return True
    return other_bytes >= DIVIDED_PER_INDEXED * (cpu_count - 1) * whole_bytes


def known_bytes(stage: stages.Stage) -> int | None:
    """Of what a stage makes, where nothing is left out of it or computed; None where it is not known."""
    is_plain = isinstance(stage, stages.Input) or (isinstance(stage, stages.Read) and not stage.transforms)
    return estimated_bytes(stage) if is_plain else None


def _in_few_blocks(stage: stages.Stage, limit_bytes: int) -> stages.Stage:
    """What is in memory in many small blocks put together, if it may be an argument of every task."""
    if not isinstance(stage, stages.Input) or len(stage.blocks) <= FEW_BLOCKS:
        return stage
    if (estimated_bytes(stage) or 0) > limit_bytes:
        return stage
    return stages.Map(name="Gather", input=stage, transforms=(), can_repeat=True, is_kernel=True)


def estimated_bytes(stage: stages.Stage) -> int | None:
    """Of what a stage makes, at most and about; None where nothing is known."""
    if isinstance(stage, stages.Input):
        return sum(block.metadata.size_bytes for block in stage.blocks)
    if not getattr(stage, "is_kernel", True):
        return None
    if isinstance(stage, stages.Read):
        found = [part.size_bytes for part in stage.parts]
    elif isinstance(stage, stages.Map | stages.Limit | stages.Union):
        found = [estimated_bytes(one) for one in stage.inputs]
    else:
        return None
    return None if None in found else sum(one or 0 for one in found)


@_lower.register
def _(node: logical.AsofJoin, planner: _Planner) -> stages.Stage:
    limit = _broadcast_bytes(node.is_broadcast, planner)
    left, right = (planner.stage(one) for one in node.inputs)
    return planner.exchange(
        node.name,
        [left, _in_few_blocks(right, limit)],
        [kernels.ByHash(node.left_by), kernels.ByHash(node.right_by)],
        kernels.AsofJoined(_alone(node), *map(schemas.of, node.inputs)),
        partition_count=None if node.left_by else 1,
        whole=(1,),
        broadcast_bytes=limit,
    )


@_lower.register
def _(node: logical.Mix, planner: _Planner) -> stages.Stage:
    return stages.Mix(inputs=planner.alike(node), weights=node.weights, is_shortest=node.is_shortest)


@_lower.register
def _(node: logical.Write, planner: _Planner) -> stages.Stage:
    sink = node.sink

    def commit(results: list[Any]) -> Any:
        sink.on_write_complete(sinks.WriteResult.combine(*results))

    def abort(error: BaseException) -> None:
        sink.on_write_failed(error)  # type: ignore[arg-type]  # an interruption too: what was written is not to stay

    resources, before = node.means.resources, planner.stage(node.input)
    by_part = (
        sink.min_rows_per_write is None
        and not sink.min_bytes_per_write
        and planner.has_chosen_parts(node.input)
        and not planner.goes_by_place
        and _are_parts_small(before)
    )
    return stages.Write(
        name=node.name,
        input=_by_part(before) if by_part else before,
        by_part=by_part,
        write=block_kernels.Written(sink),
        begin=functools.partial(sink.on_write_start, schemas.of(node.input)),
        commit=commit,
        abort=abort,
        compute=node.means.compute or stages.TaskPool(),
        resources=resources if sink.supports_distributed_writes else placing.on_driver(resources),
        bundle_rows=sink.min_rows_per_write,
        bundle_bytes=max(stages.Write.bundle_bytes, sink.min_bytes_per_write or 0),
        is_kernel=type(sink).__module__.startswith("umbel.data."),
    )


@_lower.register
def _(node: logical.Union, planner: _Planner) -> stages.Stage:
    return stages.Union(inputs=planner.alike(node), name=node.name)


@_lower.register
def _(node: logical.Zip, planner: _Planner) -> stages.Stage:
    return stages.Zip(inputs=tuple(planner.stage(one) for one in node.inputs), combine=kernels.Zipped(), name=node.name)


@_lower.register
def _(node: logical.Split, planner: _Planner) -> stages.Stage:
    return stages.Split(input=planner.stage(node.input), count=node.count, is_equal=node.is_equal)


def _seed(seed: int | context.RandomSeedConfig | None, epoch: int) -> int:
    """Another one in each run, if none is given: drawn here and not in a task, which may run twice."""
    if seed is None:
        return secrets.randbits(63)
    if isinstance(seed, int):
        return seed
    return int(shuffling.generator((seed.seed or 0, epoch)).integers(1 << 62))
