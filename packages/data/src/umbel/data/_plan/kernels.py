"""The built-in operators as transforms and as the two sides of exchanges. Each is a frozen object that travels pickled."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from umbel.data._blocks import (
    asof,
    columns,
    grouping,
    inference,
    joining,
    partitioning,
    rows,
    schemas,
    shuffling,
    sorting,
    windows,
)
from umbel.data._engine import task_context
from umbel.data._expressions import errors, evaluate, generated, nodes
from umbel.data._plan import functions

if TYPE_CHECKING:
    from umbel.data import expressions
    from umbel.data._plan import calls, logical

SAMPLED_BYTES = 128 << 10  # of a block, for each row of its sample: a thousand rows of a block of 128 MiB
SAMPLE_ROWS_MIN = 10
SORT_KEY = "the key of the sort"

# ---------------------------------------------------------------------------------------------------------------------
# Block by block.


def _named(*exprs: expressions.Expr) -> columns.Required:
    """The columns that they read."""
    names = [name for expr in exprs for name in nodes.columns_of(nodes.tree(expr))]
    return columns.Required(names, what="the name", kind=errors.UnknownColumnError)


@dataclass(frozen=True, eq=False)
class Filtered:
    expression: expressions.Expr

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for block in _named(self.expression).of(blocks):
            yield evaluate.filter(block, self.expression)  # also one without rows: it has the columns


@dataclass(frozen=True, eq=False)
class Projected:
    """epoch: for what is generated anew each time around."""

    expressions: tuple[expressions.Expr, ...]
    dropped: frozenset[str] = frozenset()
    epoch: int = 0

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for block, number, row_offset in _placed(_named(*self.expressions).of(blocks)):
            dropped = [name for name in block.column_names if name in self.dropped]
            whole = block.drop_columns(dropped) if dropped else block
            made = evaluate.project(whole, self.expressions, row_offset=row_offset, block=number, epoch=self.epoch)
            yield made if made.num_columns else schemas.without_columns(block.num_rows)


@dataclass(frozen=True, eq=False)
class Sampled:
    """Each row with a probability; which ones depends on the seed and the number of the block alone."""

    fraction: float
    seed: int

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for block, number, row_offset in _placed(blocks):
            chances = generated.uniform((self.seed, number), row_offset, block.num_rows).to_numpy()
            yield columns.taken(block, np.flatnonzero(chances < self.fraction))


@dataclass(frozen=True, eq=False)
class TopRows:
    """Of each task the rows that come first in the order."""

    count: int
    keys: tuple[str, ...]
    descending: tuple[bool, ...]

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        best: pa.Table | None = None
        for block in columns.Required(self.keys, what=SORT_KEY).of(blocks):
            some = block if best is None else schemas.concat([best, block])
            best = sorting.top_k(some, self.count, self.keys, descending=self.descending)
        if best is not None:
            yield best


@dataclass(frozen=True, eq=False)
class Grouped:
    """What is known of each group by the rows of a task."""

    how: grouping.Grouping

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        read = self.how.input_columns()
        required = columns.Required(self.how.keys if read is None else read, what="the column of the aggregation")
        parts = [self.how.partial(block) for block in required.of(blocks)]
        if parts:
            yield parts[0] if len(parts) == 1 else self.how.combine(parts)


@dataclass(frozen=True, eq=False)
class DistinctRows:
    keys: tuple[str, ...] | None
    keep: Any

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for block in columns.Required(self.keys or (), what="the key").of(blocks):
            yield grouping.distinct(block, self.keys, keep=self.keep)


def _placed(blocks: Iterator[pa.Table]) -> Iterator[tuple[pa.Table, int, int]]:
    """Each with the number of the block that it is of, and of its first row among those that came of that block."""
    number, row_offset = -1, 0
    for block in blocks:
        drawn = max(0, task_context.current().block_number)
        number, row_offset = (number, row_offset) if drawn == number else (drawn, 0)
        yield block, number, row_offset
        row_offset += block.num_rows


# ---------------------------------------------------------------------------------------------------------------------
# Which row goes to which partition.


def _together(tables: Sequence[pa.Table], keys: Sequence[str], *, what: str) -> pa.Table:
    """The rows of all. What some of the tables lack is null, but the keys are an error."""
    columns.Required(keys, what=what).check(tables)
    return schemas.concat(tables)


@dataclass(frozen=True, eq=False)
class ByHash:
    """keys: () for all columns."""

    keys: tuple[str, ...]

    def together(self, tables: Sequence[pa.Table]) -> pa.Table:
        return _together(tables, self.keys, what="the key")

    def __call__(self, block: pa.Table, count: int, _boundaries: Any) -> Iterable[pa.Table]:
        if not self.keys or not (block.num_columns or block.num_rows):
            return partitioning.by_row(block, count)
        columns.Required(self.keys, what="the key").check([block])
        return partitioning.by_hash(block, self.keys, count)


@dataclass(frozen=True, eq=False)
class ByGroup:
    """By hash, of states of groups. A task gets those of several blocks as one table, in which a group is more than once."""

    how: grouping.Grouping

    def together(self, tables: Sequence[pa.Table]) -> pa.Table:
        return self.how.together(tables)

    def __call__(self, block: pa.Table, count: int, _boundaries: Any) -> Iterable[pa.Table]:
        return partitioning.by_hash(self.how.merged(block), self.how.keys, count)


@dataclass(frozen=True, eq=False)
class ByRange:
    keys: tuple[str, ...]
    descending: tuple[bool, ...]

    def together(self, tables: Sequence[pa.Table]) -> pa.Table:
        return _together(tables, self.keys, what=SORT_KEY)

    def __call__(self, block: pa.Table, count: int, boundaries: sorting.Boundaries) -> Iterable[pa.Table]:
        if not (block.num_columns or block.num_rows):
            return [block] * count
        columns.Required(self.keys, what=SORT_KEY).check([block])
        blocks = task_context.current().divided
        parts = partitioning.by_range(block, self.keys, boundaries, descending=self.descending, blocks=blocks)
        return itertools.chain(parts, (block.slice(0, 0) for _ in range(count - boundaries.keys.num_rows - 1)))


@dataclass(frozen=True, eq=False)
class AtRandom:
    seed: int

    def __call__(self, block: pa.Table, count: int, _boundaries: Any) -> Iterable[pa.Table]:
        return partitioning.at_random(block, count, seed=self.seed, blocks=task_context.current().divided)


@dataclass(frozen=True, eq=False)
class ByPlace:
    """Partitions of as many rows each as can be, in the order of all rows. boundaries: the place behind each block's last row.
    block_rows: partitions end only at multiples of so many rows."""

    block_rows: int = 1

    def __call__(self, block: pa.Table, count: int, boundaries: Any) -> Iterable[pa.Table]:
        total = boundaries[-1] if boundaries else 0
        # Of several blocks the last was drawn last.
        first = boundaries[task_context.current().block_number] - block.num_rows
        units = -(-total // self.block_rows)
        ends = [units * (number + 1) // count * self.block_rows - first for number in range(count)]
        bounds = [0, *(min(max(end, 0), block.num_rows) for end in ends)]
        return [block.slice(start, end - start) for start, end in itertools.pairwise(bounds)]


def places(counts: Sequence[int], _partition_count: int) -> list[int]:
    """What `ByPlace` wants, of the rows of each block."""
    found: list[int] = np.cumsum(counts).tolist()
    return found


@dataclass(frozen=True, eq=False)
class KeySample:
    """Some rows of a block, more of a larger one, for the boundaries of a sort."""

    keys: tuple[str, ...]

    def __call__(self, block: pa.Table) -> pa.Table:
        if not (block.num_columns or block.num_rows):
            return pa.table({key: pa.nulls(0) for key in self.keys})
        columns.Required(self.keys, what=SORT_KEY).check([block])
        count = SAMPLE_ROWS_MIN + block.nbytes // SAMPLED_BYTES
        return sorting.sample(block.select([*dict.fromkeys(self.keys)]), count, seed=0)


@dataclass(frozen=True, eq=False)
class SortBoundaries:
    keys: tuple[str, ...]
    descending: tuple[bool, ...]

    def __call__(self, samples: Sequence[pa.Table], count: int) -> sorting.Boundaries:
        return sorting.boundaries(samples, self.keys, count, descending=self.descending)


@dataclass(frozen=True, eq=False)
class GivenBoundaries:
    """Of a sort: values of its first key, at which another partition begins."""

    key: str
    values: tuple[Any, ...]
    descending: bool

    def __call__(self, _counts: Sequence[int], _count: int) -> sorting.Boundaries:
        values = pa.table({self.key: inference.from_values(self.values, name="boundaries")})
        bounds = sorting.sort(values, [self.key], descending=self.descending)
        return sorting.Boundaries(bounds, np.zeros(bounds.num_rows, np.int64))


# ---------------------------------------------------------------------------------------------------------------------
# What is made of a partition.

# Of a join are made at one time: a few of them cost nothing beside the two sides, each of which may be twice as large.
JOINED_BYTES = 64 << 20

Reduction = Callable[[int, Sequence[Sequence["pa.Table"]]], "Iterable[pa.Table]"]


@dataclass(frozen=True, eq=False)
class OfBlocks:
    """Nothing of nothing: of an input without a block, even one without rows, as a limit of 0 gives none, no column is known."""

    reduction: Reduction

    def __call__(self, partition: int, parts: Sequence[Sequence[pa.Table]]) -> Iterable[pa.Table]:
        return self.reduction(partition, parts) if parts[0] else []


@dataclass(frozen=True, eq=False)
class Together:
    """Its rows in order; or sorted within it. block_rows: cut into tables of so many."""

    keys: tuple[str, ...] = ()
    block_rows: int | None = None

    def __call__(self, _partition: int, parts: Sequence[Sequence[pa.Table]]) -> Iterable[pa.Table]:
        whole = _together(parts[0], self.keys, what="the key")
        if self.block_rows is not None:
            return [whole.slice(at, self.block_rows) for at in range(0, whole.num_rows, self.block_rows)] or [whole]
        return sorting.sorted_parts(whole, self.keys) if self.keys else [whole]


@dataclass(frozen=True, eq=False)
class Shuffled:
    seed: int

    def __call__(self, partition: int, parts: Sequence[Sequence[pa.Table]]) -> Iterable[pa.Table]:
        return shuffling.permuted_parts(schemas.concat(parts[0]), (self.seed, partition))


@dataclass(frozen=True, eq=False)
class Sorted:
    """limit: of so many rows. is_one_table: a partition is to be a block, however large."""

    keys: tuple[str, ...]
    descending: tuple[bool, ...]
    limit: int | None = None
    is_one_table: bool = False

    def __call__(self, _partition: int, parts: Sequence[Sequence[pa.Table]]) -> Iterable[pa.Table]:
        whole = _together(parts[0], self.keys, what=SORT_KEY)
        if self.limit is not None:
            return [sorting.top_k(whole, self.limit, self.keys, descending=self.descending)]
        if self.is_one_table:
            return [sorting.sort(whole, self.keys, descending=self.descending)]
        return sorting.sorted_parts(whole, self.keys, descending=self.descending)


@dataclass(frozen=True, eq=False)
class Combined:
    how: grouping.Grouping

    def __call__(self, _partition: int, parts: Sequence[Sequence[pa.Table]]) -> Iterable[pa.Table]:
        if parts[0]:
            return [self.how.finish(self.how.combine(parts[0]))]
        return [] if self.how.keys else [self.how.of_nothing()]


@dataclass(frozen=True, eq=False)
class DistinctOfAll:
    keys: tuple[str, ...] | None
    keep: Any

    def __call__(self, _partition: int, parts: Sequence[Sequence[pa.Table]]) -> Iterable[pa.Table]:
        whole = _together(parts[0], self.keys or (), what="the key")
        return [grouping.distinct(whole, self.keys, keep=self.keep)]


@dataclass(frozen=True, eq=False)
class GroupCalls:
    """A user's function of each group."""

    operator: str
    keys: tuple[str, ...]
    function: calls.Function
    batch_format: str | None
    zero_copy: bool = True
    on_error: str = "raise"

    def __call__(self, _partition: int, parts: Sequence[Sequence[pa.Table]]) -> Iterable[pa.Table]:
        whole = _together(parts[0], self.keys, what="the key")
        groups = (group for _, group in grouping.groups(whole, self.keys)) if self.keys else iter([whole])
        calls = functions.BatchCalls(
            self.operator, self.function, None, self.batch_format, self.zero_copy, self.on_error
        )
        return calls(group for group in groups if group.num_rows)


@dataclass(frozen=True, eq=False)
class Windowed:
    partition_by: tuple[str, ...]
    order_by: tuple[str, ...]
    descending: tuple[bool, ...]
    functions: tuple[windows.Function, ...]

    def __call__(self, _partition: int, parts: Sequence[Sequence[pa.Table]]) -> Iterable[pa.Table]:
        read = [one.on for one in self.functions if one.on is not None]
        whole = _together(parts[0], [*self.partition_by, *self.order_by, *read], what="the column of the window")
        return [windows.window(whole, self.partition_by, self.order_by, self.functions, descending=self.descending)]


@dataclass(frozen=True, eq=False)
class Joined:
    """left, right: the schemas of the sides, as far as they are known, for where one has not even a block without rows. part: of
    the rows of a full outer join those that another kind of join has."""

    join: logical.Join
    left: pa.Schema | None = None
    right: pa.Schema | None = None
    part: joining.How | None = None

    def __call__(self, _partition: int, parts: Sequence[Sequence[pa.Table]]) -> Iterable[pa.Table]:
        how: Any = self.join
        left, right = _sides(parts, (self.left, self.right), (how.left_on, how.right_on))
        suffixes = {"left_suffix": how.left_suffix, "right_suffix": how.right_suffix}
        row_bytes = sum(side.nbytes / max(1, side.num_rows) for side in (left, right))
        rows_max = max(1, int(JOINED_BYTES / max(1.0, row_bytes)))
        return joining.joined(
            left, right, how.how, how.left_on, how.right_on, rows_max=rows_max, part=self.part, **suffixes
        )


def _sides(
    parts: Sequence[Sequence[pa.Table]], known: Sequence[pa.Schema | None], keys: Sequence[Sequence[str]]
) -> list[pa.Table]:
    """Both as a table each. One of which there is nothing, and nothing known, has the keys of the other."""
    found: list[pa.Table] = []
    for at, tables in enumerate(parts):
        if tables:
            found.append(_together(tables, keys[at], what=f"the key of the {('left', 'right')[at]} side"))
            continue
        schema = known[at]
        if schema is None:
            other = parts[1 - at][0].schema if parts[1 - at] else known[1 - at]
            kinds = [None if other is None else other.field(name).type for name in keys[1 - at]]
            schema = pa.schema([(name, kind or pa.null()) for name, kind in zip(keys[at], kinds, strict=True)])
        found.append(schema.empty_table())
    return found


@dataclass(frozen=True, eq=False)
class AsofJoined:
    """As `Joined`."""

    join: logical.AsofJoin
    left: pa.Schema | None = None
    right: pa.Schema | None = None

    def __call__(self, _partition: int, parts: Sequence[Sequence[pa.Table]]) -> Iterable[pa.Table]:
        how = self.join
        keys = ((*how.left_by, how.left_on), (*how.right_by, how.right_on))
        return [self.joined(*_sides(parts, (self.left, self.right), keys))]

    def joined(self, left: pa.Table, right: pa.Table) -> pa.Table:
        how: Any = self.join
        return asof.asof(
            left,
            right,
            how.left_on,
            how.left_by,
            right_on=how.right_on,
            right_by=how.right_by,
            direction=how.direction,
            tolerance=how.tolerance,
            is_exact_allowed=how.is_exact_allowed,
            left_suffix=how.left_suffix,
            right_suffix=how.right_suffix,
        )


@dataclass(frozen=True, eq=False)
class ByBlock:
    """All rows of a block to one partition, any of them."""

    seed: int

    def __call__(self, block: pa.Table, count: int, _boundaries: Any) -> Iterable[pa.Table]:
        blocks = task_context.current().divided
        return partitioning.whole_blocks_at_random(block, count, seed=self.seed, blocks=blocks)


@dataclass(frozen=True, eq=False)
class Zipped:
    """Columns side by side; a name that is taken gets the first suffix `_1`, `_2`, … with which it is not."""

    def __call__(self, tables: Sequence[pa.Table]) -> pa.Table:
        whole = tables[0]
        for table in tables[1:]:
            for name, column in zip(table.column_names, table.columns, strict=True):
                taken, number = whole.column_names, 0
                new = name
                while new in taken:
                    number += 1
                    new = f"{name}_{number}"
                whole = whole.append_column(new, column)
        return whole


def of_rows(values: Sequence[Any]) -> pa.Table:
    """Of items: mappings are rows, anything else is the column `item`."""
    return rows.from_rows([one if isinstance(one, Mapping) else {"item": one} for one in values])
