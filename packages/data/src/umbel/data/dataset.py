"""A dataset: rows in blocks, made when they are asked for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

import umbel
from umbel.data import context as contexts
from umbel.data._api import consumption, lineage, relations, splitting, transforms, writing
from umbel.data._blocks import schemas, sizes
from umbel.data._engine import blocks_out, reports, stages
from umbel.data._plan import counts, failing, logical, running
from umbel.data._plan import schemas as plan_schemas

if TYPE_CHECKING:
    from umbel.data.iterator import DataIterator


class Schema:
    """Names and types of columns. base_schema: Arrow's."""

    def __init__(self, base_schema: pa.Schema) -> None:
        self.base_schema = base_schema

    @property
    def names(self) -> list[str]:
        """Names of the columns, in order."""
        return [*self.base_schema.names]

    @property
    def types(self) -> list[pa.DataType]:
        """Arrow's types of the columns, in order."""
        return [*self.base_schema.types]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.base_schema.equals(other.base_schema)

    def __hash__(self) -> int:
        return hash(tuple(self.names))

    def __repr__(self) -> str:
        width = max([6, *map(len, self.names)])
        lines = [f"{'Column':<{width}}  Type", f"{'-' * width}  ----"]
        return "\n".join([*lines, *(f"{one.name:<{width}}  {one.type}" for one in self.base_schema)])


class Dataset(
    transforms.Transforms,
    relations.Relations,
    consumption.Consumption,
    splitting.Splitting,
    writing.Writing,
    lineage.Lineage,
):
    """Rows in blocks, made when they are asked for.

    Made by the functions of `umbel.data`. Each method that transforms gives another dataset and runs nothing; one that looks
    at rows runs the plan, each time anew: `materialize()` keeps what came out. Rows keep the order of what was read, unless an
    operator says otherwise.
    """

    def __init__(self, node: logical.Node, context: contexts.DataContext) -> None:
        self._node = node
        self._context = context
        self._name: str | None = None
        self._epoch = 0
        self._latest: running.Run | None = None
        self._found_schema: pa.Schema | None = None

    def _with(self, node: logical.Node) -> Dataset:
        return Dataset(node, self._context)

    @property
    def context(self) -> contexts.DataContext:
        """The settings that it was made with."""
        return self._context

    @property
    def name(self) -> str | None:
        """What it is called in progress and statistics."""
        return self._name

    def set_name(self, name: str | None) -> None:
        """Call it so in progress and statistics; None for no name."""
        self._name = name

    def __repr__(self) -> str:
        """What is known of it without opening a file."""
        rows = counts.of(self._node, at_once=True)
        reads = (node for node in logical.each(self._node) if isinstance(node, logical.Read))
        unasked: dict[logical.Node, pa.Schema | None] = {
            node: None for node in reads if not node.source.is_told_at_once
        }
        try:
            schema = self._found_schema if self._found_schema is not None else plan_schemas.of(self._node, unasked)
            columns = (
                "unknown" if schema is None else "{" + ", ".join(f"{one.name}: {one.type}" for one in schema) + "}"
            )
        except (ArithmeticError, KeyError, TypeError, ValueError) as error:  # as a run of it raises
            columns = f"<{type(error).__name__}>"
        return f"Dataset(num_rows={'unknown' if rows is None else rows}, schema={columns}, plan={self._node.name})"

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a dataset is not iterated over itself; use iter_rows() or iter_batches()")

    def __len__(self) -> int:
        raise TypeError("len() would run the whole plan; use count()")

    # ---- running ----

    def _run(self, epoch: int | None = None) -> running.Run:
        return self._run_node(self._node, epoch)

    def _run_node(self, node: logical.Node, epoch: int | None = None) -> running.Run:
        """Of a plan that ends with this one's; it is then the latest run of this dataset. epoch: how many there were, if None."""
        run = running.Run(node, self._context, epoch=self._epoch if epoch is None else epoch, name=self._name)
        self._epoch = max(self._epoch, epoch or 0) + 1
        self._latest = run
        return run

    def _tables(self) -> Iterator[pa.Table]:
        return self._run().tables()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_latest": None}  # a run stays where it is

    def materialize(self) -> MaterializedDataset:
        """Run the plan, and keep the blocks as long as what comes back is there."""
        run = self._run()
        found = MaterializedDataset(logical.FromBlocks(blocks=run.blocks(), what="Materialized"), self._context)
        found._latest = run
        return found

    def explain(self) -> str:
        """The plan as it was written, what the rules made of it (with what readers are told), and the stages that it is run as,
        with what was fused, in how many tasks or on which actors each runs, and where it is put together; printed too.

        Runs nothing, and needs no runtime. Files are opened only as far as for reading: footers, say.
        """
        from umbel.data._plan import explaining

        text = explaining.explained(self._node, self._context)
        print(text)  # noqa: T201 - this is what it is for
        return text

    def _last_run(self) -> running.Run:
        if self._latest is None:
            raise ValueError(
                "the dataset has not been run yet, so there is nothing to tell of a run; run it, for example by materialize()"
            )
        return self._latest

    def stats(self) -> reports.Stats:
        """Of the latest run, also while it goes on: a dictionary of what each stage took and gave and what it waited for, of the
        run as a whole and its slowest stage, and of rows that were left out. Printed, it is a table. Before a run it is empty,
        and so is its text.

        `help(type(ds.stats()))` and docs/data/running.md have all keys. Seconds end with `_s`, bytes have `bytes` in them.
        """
        return reports.Stats() if self._latest is None else self._latest.stats()

    def get_stats_summary(self, detail: bool = False) -> reports.Stats:
        """The same as `stats`, which has all there is: detail, of Ray, makes no difference."""
        del detail
        return self.stats()

    def errors(self, operator: str | None = None) -> MaterializedDataset:
        """Of the latest run: the rows on which functions with `on_error="collect"` failed, as they were given to the function;
        of one operator, by its name in `explain()`, where several take rows that do not go together.

        Column `_error` says which operator it was, the error's type, message and traceback, and of which files the rows are.
        """
        tables = self._last_run().left_out()
        if operator is not None:
            is_of_it = pc.field(failing.COLUMN, "operator") == operator
            tables = [one for one in (table.filter(is_of_it) for table in tables) if one.num_rows]
        none = pa.schema([(failing.COLUMN, failing.TYPE)]).empty_table()
        return MaterializedDataset._of_tables(tables or [none], "Errors")

    def iterator(self) -> DataIterator:
        """What can be iterated over again and again; each time is a run."""
        from umbel.data import iterator as iterators

        return iterators.DataIterator(iterators.DatasetSource(self))

    def _iterator(self) -> DataIterator:
        from umbel.data import iterator as iterators

        return iterators.DataIterator(iterators.DatasetSource(self), self._epoch)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """All rows, for pyarrow, polars, DuckDB and whatever else takes Arrow's streams. Runs the plan, block by block as it
        is read."""
        tables = self._tables()
        first = next(tables, None)
        schema = first.schema if first is not None else (plan_schemas.of(self._node) or pa.schema([]))
        every = itertools.chain([] if first is None else [first], tables)
        batches = (batch for table in every for batch in schemas.conform(table, schema).to_batches())
        reader: Any = pa.RecordBatchReader.from_batches(schema, batches)
        return reader.__arrow_c_stream__(requested_schema)


class MaterializedDataset(Dataset):
    """A dataset whose blocks are there."""

    _node: logical.FromBlocks

    @classmethod
    def _of_tables(
        cls, tables: Sequence[pa.Table], what: str = "FromBlocks", *, is_chosen: bool = False
    ) -> MaterializedDataset:
        """Of tables that are here, each a block. what: the name of its operator in plans. is_chosen: somebody asked for so many
        blocks."""
        blocks = [stages.Block(one, stages.Metadata(one.num_rows, sizes.size_bytes(one), one.schema)) for one in tables]
        node = logical.FromBlocks(blocks=blocks, what=what, is_chosen=is_chosen)
        return cls(node, contexts.DataContext.get_current().copy())

    def _parts(self, ends: Sequence[int], what: str) -> list[MaterializedDataset]:
        """Its rows up to each of these places, which rise. Blocks that are not cut stay where they are."""
        made: list[list[stages.Block]] = [[] for _ in ends]
        first = 0
        for block in self._node.blocks:
            last = first + block.metadata.row_count
            begin = first
            for some, end in zip(made, ends, strict=True):
                stop = min(end, last)
                if stop > begin:
                    some.append(_part(block, begin - first, stop - begin))
                    begin = stop
            first = last
        schema = plan_schemas.of(self._node)
        if schema is not None:  # which a part without rows has as well
            empty = stages.Block(schema.empty_table(), stages.Metadata(0, 0, schema))
            made = [some or [empty] for some in made]
        return [MaterializedDataset(logical.FromBlocks(blocks=some, what=what), self._context) for some in made]

    def materialize(self) -> MaterializedDataset:
        """Itself: its blocks are there."""
        return self


def _part(block: stages.Block, first: int, row_count: int) -> stages.Block:
    if row_count == block.metadata.row_count:
        return block
    table = _table_of(block).slice(first, row_count)
    return stages.Block(
        table, stages.Metadata(row_count, sizes.size_bytes(table), table.schema, block.metadata.input_files)
    )


def _table_of(block: stages.Block) -> pa.Table:
    """Fetched, if it is not here."""
    if isinstance(block.value, pa.Table):
        return block.value
    return blocks_out.unpack(umbel.get(block.value))
