"""A dataset: rows in blocks, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umbel.data import context as contexts
from umbel.data._api import consumption, transforms, writing
from umbel.data._blocks import sizes
from umbel.data._engine import stages
from umbel.data._plan import counts, logical, rules, running
from umbel.data._plan import schemas as plan_schemas

if TYPE_CHECKING:
    from umbel.data.iterator import DataIterator


class Schema:
    """Names and types of columns. base_schema: Arrow's."""

    def __init__(self, base_schema: pa.Schema) -> None:
        self.base_schema = base_schema

    @property
    def names(self) -> list[str]:
        return [*self.base_schema.names]

    @property
    def types(self) -> list[pa.DataType]:
        return [*self.base_schema.types]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.base_schema.equals(other.base_schema)

    def __hash__(self) -> int:
        return hash(tuple(self.names))

    def __repr__(self) -> str:
        width = max([6, *map(len, self.names)])
        lines = [f"{'Column':<{width}}  Type", f"{'-' * width}  ----"]
        return "\n".join([*lines, *(f"{one.name:<{width}}  {one.type}" for one in self.base_schema)])


class Dataset(transforms.Transforms, consumption.Consumption, writing.Writing):
    """Rows in blocks, made when they are asked for.

    Made by the functions of `umbel.data`. Each method that transforms gives another dataset and runs nothing; one that looks at rows
    runs the plan, each time anew: `materialize()` keeps what came out. Rows keep the order of what was read, unless an operator
    says otherwise.
    """

    def __init__(self, node: logical.Node, context: contexts.DataContext) -> None:
        self._node = node
        self._context = context
        self._name: str | None = None
        self._stats: dict[str, Any] | None = None
        self._epoch = 0

    def _with(self, node: logical.Node) -> Dataset:
        return Dataset(node, self._context)

    @property
    def context(self) -> contexts.DataContext:
        return self._context

    @property
    def name(self) -> str | None:
        """What it is called in progress and statistics."""
        return self._name

    def set_name(self, name: str | None) -> None:
        self._name = name

    def __repr__(self) -> str:
        schema = plan_schemas.of(self._node)
        rows = counts.of(self._node)
        columns = "unknown" if schema is None else "{" + ", ".join(f"{one.name}: {one.type}" for one in schema) + "}"
        return f"Dataset(num_rows={'unknown' if rows is None else rows}, schema={columns}, plan={self._node.name})"

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a dataset is not iterated over itself; use iter_rows() or iter_batches()")

    def __len__(self) -> int:
        raise TypeError("len() would run the whole plan; use count()")

    # ---- running ----

    def _run(self) -> running.Run:
        return self._run_node(self._node)

    def _run_node(self, node: logical.Node) -> running.Run:
        run = running.Run(node, self._context, epoch=self._epoch)
        self._epoch += 1
        self._latest = run
        return run

    def _tables(self) -> Iterator[pa.Table]:
        return self._run().tables()

    def materialize(self) -> MaterializedDataset:
        """Run the plan, and keep the blocks as long as what comes back is there."""
        run = self._run()
        found = MaterializedDataset(logical.FromBlocks(blocks=run.blocks(), what="Materialized"), self._context)
        found._latest = run
        return found

    def explain(self) -> str:
        """The plan as it was written, as it is rewritten, and the stages that it is run as; printed too."""
        rewritten = rules.optimized(self._node)
        parts = {
            "Logical plan": logical.drawn(self._node),
            "Optimized plan": logical.drawn(rewritten),
            "Stages": running.drawn(rewritten, self._context),
        }
        text = "\n\n".join(f"{title}\n{'-' * len(title)}\n{what}" for title, what in parts.items())
        print(text)  # noqa: T201 - this is what it is for
        return text

    def stats(self) -> str:
        """Of the latest run, as a table. `get_stats_summary()` has the figures."""
        return self._latest.stats_table()

    def get_stats_summary(self) -> dict[str, Any]:
        """Of the latest run: for each stage its tasks, rows, bytes and times."""
        return self._latest.stats()

    _latest: running.Run

    def iterator(self) -> DataIterator:
        """What can be iterated over again and again; each time is a run."""
        from umbel.data.iterator import DataIterator

        return DataIterator(self)


class MaterializedDataset(Dataset):
    """A dataset whose blocks are there."""

    _node: logical.FromBlocks

    @classmethod
    def of(cls, tables: Sequence[pa.Table], what: str = "FromBlocks") -> MaterializedDataset:
        blocks = [stages.Block(one, stages.Metadata(one.num_rows, sizes.size_bytes(one), one.schema)) for one in tables]
        return cls(logical.FromBlocks(blocks=blocks, what=what), contexts.DataContext.get_current())

    def num_blocks(self) -> int:
        return len(self._node.blocks)

    def size_bytes(self) -> int:
        return sum(one.metadata.size_bytes for one in self._node.blocks)

    def materialize(self) -> MaterializedDataset:
        return self
