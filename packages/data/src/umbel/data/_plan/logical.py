"""The logical plan: what is wanted, as a tree of frozen nodes.

A dataset is its last node; each method of it adds one. Nothing here knows how it is done: `schemas` says what columns a node
has as far as that is known before anything runs, `rules` rewrite the tree, and `physical` makes stages of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from umbel.data._engine import stages
from umbel.data._plan import calls

if TYPE_CHECKING:
    from umbel.data import aggregate, checkpoint, context, datasink, datasource, expressions
    from umbel.data._blocks import windows


@dataclass(frozen=True)
class Means:
    """With what the functions of a node run. compute: None for tasks, or for a class an actor pool of the default size."""

    compute: stages.Compute | None = None
    resources: stages.Resources = field(default_factory=stages.Resources)


# ---------------------------------------------------------------------------------------------------------------------
# Nodes. Equal only to themselves.


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """One operator."""

    @property
    def inputs(self) -> tuple[Node, ...]:
        return ()

    def with_inputs(self, inputs: Sequence[Node]) -> Node:
        """The same operator on others."""
        if [*inputs] == [*self.inputs]:
            return self
        (only,) = inputs
        return dataclasses.replace(self, input=only)  # type: ignore[call-arg]  # of those with one

    @property
    def name(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, eq=False, kw_only=True)
class FromBlocks(Node):
    """Blocks that are there already. what: where they come from, for the plan. is_chosen: somebody said how many there are to
    be."""

    blocks: Sequence[stages.Block]
    what: str = "FromBlocks"
    is_chosen: bool = False

    @property
    def name(self) -> str:
        return self.what


@dataclass(frozen=True, eq=False, kw_only=True)
class Read(Node):
    """parallelism: how many tasks are wanted; None to choose by size."""

    source: datasource.Datasource
    parallelism: int | None = None
    means: Means = Means()
    limit: int | None = None  # rows that are wanted at most of each task

    @property
    def name(self) -> str:
        return f"Read{self.source.get_name()}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Unary(Node):
    input: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)


@dataclass(frozen=True, eq=False, kw_only=True)
class MapRows(Unary):
    """kind: "map" a row to a row, "flat_map" to several, "filter" to whether it is kept."""

    function: calls.Function
    kind: str
    means: Means = Means()
    on_error: str = "raise"

    @property
    def name(self) -> str:
        title = {"map": "Map", "flat_map": "FlatMap", "filter": "Filter"}[self.kind]
        return f"{title}({self.function.name})"


@dataclass(frozen=True, eq=False, kw_only=True)
class MapBatches(Unary):
    """batch_size: rows; None for whole blocks."""

    function: calls.Function
    batch_size: int | str | None = None  # "auto": by bytes
    batch_format: str | None = "default"
    zero_copy: bool = True
    changes_row_count: bool = True
    means: Means = Means()
    on_error: str = "raise"

    @property
    def name(self) -> str:
        return f"MapBatches({self.function.name})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Filter(Unary):
    """Rows for which the expression is true."""

    expression: expressions.Expr
    means: Means = Means()

    @property
    def name(self) -> str:
        return f"Filter({self.expression!r})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Project(Unary):
    """Columns out of expressions, each named by itself; `star()` among them stands for all columns that no other one gives anew,
    but `dropped`."""

    expressions: tuple[expressions.Expr, ...]
    dropped: frozenset[str] = frozenset()
    means: Means = Means()


@dataclass(frozen=True, eq=False, kw_only=True)
class Rename(Unary):
    """Columns, old name to new; all others stay."""

    names: Mapping[str, str]


@dataclass(frozen=True, eq=False, kw_only=True)
class Limit(Unary):
    row_count: int

    @property
    def name(self) -> str:
        return f"Limit({self.row_count})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample(Unary):
    """Each row with this probability. seed: None for another sample in each run."""

    fraction: float
    seed: int | context.RandomSeedConfig | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Repartition(Unary):
    """One of: so many blocks; blocks of so many rows; by hash of keys into so many."""

    block_count: int | None = None
    block_rows: int | None = None
    is_strict: bool = False  # each block but the last has exactly so many rows
    shuffles: bool = False
    keys: tuple[str, ...] = ()
    sorts: bool = False  # within each partition, by the keys


@dataclass(frozen=True, eq=False, kw_only=True)
class RandomShuffle(Unary):
    seed: int | context.RandomSeedConfig | None = None
    block_count: int | None = None
    means: Means = Means()


@dataclass(frozen=True, eq=False, kw_only=True)
class RandomizeBlocks(Unary):
    """Blocks in another order, their rows as they are."""

    seed: int | context.RandomSeedConfig | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Sort(Unary):
    """limit: only so many of the first rows are wanted. boundaries: of the first key, where blocks begin."""

    keys: tuple[str, ...]
    descending: tuple[bool, ...]
    boundaries: tuple[Any, ...] | None = None
    limit: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Aggregate(Unary):
    """keys: () for one row of all."""

    keys: tuple[str, ...]
    aggregates: tuple[aggregate.AggregateFn | aggregate.AggregateFnV2, ...]
    partition_count: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Distinct(Unary):
    """One row of those that are equal in `keys`. None: in all columns. keep: "first", "last" or "any"."""

    keys: tuple[str, ...] | None = None
    keep: str = "first"


@dataclass(frozen=True, eq=False, kw_only=True)
class MapGroups(Unary):
    """A function of all rows of each group."""

    keys: tuple[str, ...]
    function: calls.Function
    batch_format: str | None = "default"
    zero_copy: bool = True
    partition_count: int | None = None
    means: Means = Means()
    on_error: str = "raise"

    @property
    def name(self) -> str:
        return f"MapGroups({self.function.name})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Window(Unary):
    """Columns of windows over groups that are equal in `partition_by`; () for one group of all."""

    partition_by: tuple[str, ...]
    order_by: tuple[str, ...]
    descending: tuple[bool, ...]
    functions: tuple[windows.Function, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Write(Unary):
    """checkpoint: None for that of the context."""

    sink: datasink.Datasink[Any]
    means: Means = Means()
    checkpoint: checkpoint.CheckpointConfig | None = None

    @property
    def name(self) -> str:
        return f"Write{self.sink.get_name()}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Split(Unary):
    """For several consumers at once."""

    count: int
    is_equal: bool = False


# By the kind of a join: which sides (0 the left, 1 the right) may be given whole to several tasks that share the other one, the
# one that is tried first in front. Each task must be able to tell by itself what becomes of its rows of the other side, and a row
# of the whole side must not be in the result by itself, since several tasks have it.
WHOLE_SIDES: Mapping[str, tuple[int, ...]] = {
    "inner": (1, 0),
    "left_outer": (1,),
    "left_semi": (1,),
    "left_anti": (1,),
    "right_outer": (0,),
    "right_semi": (0,),
    "right_anti": (0,),
    "full_outer": (),
}

# Of a kind that has no such side, for each side that is divided all the same: of which kinds of joins its rows are that each task
# can tell with a part of this side and all of the other, and those that take all of both.
APART: Mapping[str, tuple[tuple[Any, Any], ...]] = {
    how: (("left_outer", "right_anti"), ("right_outer", "left_anti")) if not sides else ()
    for how, sides in WHOLE_SIDES.items()
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Join(Node):
    """how: as in `_blocks.joining`. is_broadcast: whether a side goes whole to every task; None to choose by its size."""

    left: Node
    right: Node
    how: str
    left_on: tuple[str, ...]
    right_on: tuple[str, ...]
    left_suffix: str | None = None
    right_suffix: str | None = None
    partition_count: int | None = None
    is_broadcast: bool | None = None
    resources: stages.Resources = field(default_factory=stages.Resources)

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.left, self.right)

    def with_inputs(self, inputs: Sequence[Node]) -> Node:
        left, right = inputs
        return self if (left, right) == (self.left, self.right) else dataclasses.replace(self, left=left, right=right)

    @property
    def name(self) -> str:
        return f"Join({self.how})"


@dataclass(frozen=True, eq=False, kw_only=True)
class AsofJoin(Node):
    """Each row of the left with the nearest one of the right."""

    left: Node
    right: Node
    left_on: str
    right_on: str
    left_by: tuple[str, ...] = ()
    right_by: tuple[str, ...] = ()
    direction: str = "backward"
    tolerance: Any = None
    is_exact_allowed: bool = True
    left_suffix: str | None = None
    right_suffix: str | None = None
    is_broadcast: bool | None = None

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.left, self.right)

    def with_inputs(self, inputs: Sequence[Node]) -> Node:
        left, right = inputs
        return self if (left, right) == (self.left, self.right) else dataclasses.replace(self, left=left, right=right)


@dataclass(frozen=True, eq=False, kw_only=True)
class Several(Node):
    several: tuple[Node, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.several

    def with_inputs(self, inputs: Sequence[Node]) -> Node:
        return self if (*inputs,) == self.several else dataclasses.replace(self, several=(*inputs,))


@dataclass(frozen=True, eq=False, kw_only=True)
class Union(Several):
    """All rows of each, one after the other."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Zip(Several):
    """Rows side by side; a column whose name is taken gets a suffix."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Mix(Several):
    """Rows of several in turns, by weight. is_shortest: ends with the first that does; otherwise the others go on."""

    weights: tuple[float, ...]
    is_shortest: bool = True


def each(last: Node) -> list[Node]:
    """All nodes of a plan, each once and behind its inputs."""
    found: dict[Node, None] = {}

    def visit(node: Node) -> None:
        if node not in found:
            for one in node.inputs:
                visit(one)
            found[node] = None

    visit(last)
    return [*found]


def drawn(last: Node) -> str:
    """The tree in lines, the last operator first."""
    lines: list[str] = []

    def draw(node: Node, depth: int) -> None:
        lines.append(f"{'   ' * (depth - 1)}{'+- ' if depth else ''}{node.name}")
        for one in node.inputs:
            draw(one, depth + 1)

    draw(last, 0)
    return "\n".join(lines)
