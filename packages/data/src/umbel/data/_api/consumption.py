"""Methods of a dataset that look at rows. They run the plan, but for what is known without."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from umbel.data import aggregate as aggregates
from umbel.data._api import checks, references
from umbel.data._blocks import batches, rows, schemas, sizes
from umbel.data._plan import counts, logical, running
from umbel.data._plan import schemas as plan_schemas

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from umbel.data import context as contexts
    from umbel.data._api import summaries
    from umbel.data._api.summaries import DatasetSummary
    from umbel.data.dataset import Dataset, Schema
    from umbel.data.iterator import DataIterator

SHOWN_ROWS = 20


class Consumption:
    """See the module."""

    # What `Dataset` has is declared here, for type checkers: none of these errors can come of a dataset.
    _node: logical.Node

    def _with(self, node: logical.Node) -> Dataset:
        raise NotImplementedError

    _found_schema: pa.Schema | None

    @property
    def context(self) -> contexts.DataContext:
        raise NotImplementedError

    def _run(self, epoch: int | None = None) -> running.Run:
        raise NotImplementedError

    def _run_node(self, node: logical.Node, epoch: int | None = None) -> running.Run:
        """It is the latest run of this dataset then."""
        raise NotImplementedError

    def _tables(self) -> Iterator[pa.Table]:
        """The blocks of a run, in order. Closing it ends the run."""
        raise NotImplementedError

    def iterator(self) -> DataIterator:
        raise NotImplementedError

    def _iterator(self) -> DataIterator:
        """Whose first epoch is that of the next run."""
        raise NotImplementedError

    # ---- some rows ----

    def take(self, limit: int = SHOWN_ROWS) -> list[dict[str, Any]]:
        """The first rows, as dictionaries; fewer where there are no more."""
        some = self._run_node(logical.Limit(input=self._node, row_count=checks.row_count("limit", limit))).tables()
        return [row for table in some for row in rows.iter_rows(table)]

    def take_all(self, limit: int | None = None) -> list[dict[str, Any]]:
        """All rows. limit: raises ValueError if there are more."""
        if limit is None:
            return [*self.iter_rows()]
        found = self.take(checks.row_count("limit", limit) + 1)
        if len(found) > limit:
            raise ValueError(
                f"there are more than limit={limit} rows; give a larger one, None for no limit, or use take({limit})"
            )
        return found

    def take_batch(self, batch_size: int = SHOWN_ROWS, *, batch_format: str | None = "default") -> Any:
        """The first rows as one batch. Raises ValueError where there are none."""
        row_count = checks.row_count("batch_size", batch_size)
        some = [*self._run_node(logical.Limit(input=self._node, row_count=row_count)).tables()]
        whole = schemas.concat(some) if some else None
        if whole is None or not whole.num_rows:
            raise ValueError("the dataset has no rows, so there is no batch")
        return batches.to_batch(whole, batch_format)  # type: ignore[arg-type]  # it is checked there

    def show(self, limit: int = SHOWN_ROWS) -> None:
        """Print the first rows, one on each line."""
        for row in self.take(limit):
            print(row)  # noqa: T201 - this is what it is for

    # ---- all rows ----

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries, in order. An iteration that is left ends its tasks."""
        return (row for table in self._tables() for row in rows.iter_rows(table))

    def iter_batches(
        self,
        *,
        prefetch_batches: int = 1,
        batch_size: int | None = 256,
        batch_format: str | None = "default",
        drop_last: bool = False,
        local_shuffle_buffer_size: int | None = None,
        local_shuffle_seed: int | None = None,
    ) -> Iterator[Any]:
        """See `DataIterator.iter_batches`."""
        return iter(
            self._iterator().iter_batches(
                prefetch_batches=prefetch_batches,
                batch_size=batch_size,
                batch_format=batch_format,
                drop_last=drop_last,
                local_shuffle_buffer_size=local_shuffle_buffer_size,
                local_shuffle_seed=local_shuffle_seed,
            )
        )

    def iter_torch_batches(
        self,
        *,
        prefetch_batches: int = 1,
        batch_size: int | None = 256,
        dtypes: Any = None,
        device: str | Any = "auto",
        collate_fn: Callable[[Any], Any] | None = None,
        drop_last: bool = False,
        local_shuffle_buffer_size: int | None = None,
        local_shuffle_seed: int | None = None,
        pin_memory: bool = False,
    ) -> Iterator[Any]:
        """See `DataIterator.iter_torch_batches`."""
        return iter(
            self._iterator().iter_torch_batches(
                prefetch_batches=prefetch_batches,
                batch_size=batch_size,
                dtypes=dtypes,
                device=device,
                collate_fn=collate_fn,
                drop_last=drop_last,
                local_shuffle_buffer_size=local_shuffle_buffer_size,
                local_shuffle_seed=local_shuffle_seed,
                pin_memory=pin_memory,
            )
        )

    def to_arrow(self) -> pa.Table:
        """All rows as one table."""
        return self._whole(self._node)

    def _whole(self, node: logical.Node) -> pa.Table:
        some = [*self._run_node(node).tables()]
        if some:
            return schemas.concat(some)
        return (plan_schemas.of(node) or schemas.EMPTY).empty_table()

    def to_pandas(self, limit: int | None = None) -> pd.DataFrame:
        """All rows as one frame. limit: raises ValueError if there are more."""
        if limit is None:
            whole = self.to_arrow()
        else:
            most = checks.row_count("limit", checks.row_count("limit", limit) + 1)
            whole = self._whole(logical.Limit(input=self._node, row_count=most))
        if limit is not None and whole.num_rows > limit:
            raise ValueError(f"there are more than limit={limit} rows; give a larger one, or None for no limit")
        frame: Any = batches.to_batch(whole, "pandas")
        return frame

    def to_polars(self) -> pl.DataFrame:
        """All rows as one frame."""
        frame: Any = batches.to_batch(self.to_arrow(), "polars")
        return frame

    def to_numpy(self) -> dict[str, np.ndarray[Any, Any]]:
        """All rows, an array for each column."""
        found: Any = batches.to_batch(self.to_arrow(), "numpy")
        return dict(found)

    # ---- what there is ----

    def count(self) -> int:
        """How many rows there are; without a run where that is known, as by the footers of files."""
        known = counts.of(self._node)
        if known is not None:
            return known
        return int(self._one(aggregates.Count())["count()"])

    def schema(self, fetch_if_missing: bool = True) -> Schema | None:
        """Names and types of the columns, without a run where they are known. fetch_if_missing: else a first block is made, by
        one task at a time until there is a row, and a later run makes it again; if not, None. None for a dataset that has no
        block at all. Raises the errors of expressions: types that do not go together, columns that are not there."""
        from umbel.data.dataset import Schema

        found = self._found_schema if self._found_schema is not None else plan_schemas.of(self._node)
        if found is None and fetch_if_missing:
            run = running.Run(logical.Limit(input=self._node, row_count=1), self.context, epoch=0)
            for table in run.tables_one_by_one():
                found = table.schema
                break
        self._found_schema = found
        return Schema(found) if found is not None else None

    def columns(self, fetch_if_missing: bool = True) -> list[str] | None:
        """Names of the columns; see `schema`."""
        found = self.schema(fetch_if_missing)
        return found.names if found is not None else None

    # ---- sums ----

    def aggregate(self, *aggs: Any) -> dict[str, Any]:
        """What each gives of all rows, by its name. Raises KeyError for a column that is not there, TypeError for one that the
        aggregation cannot be asked of."""
        if not aggs:
            raise ValueError("aggregate needs an aggregation at least, such as Sum('x')")
        return self._one(*aggs)

    def _one(self, *aggs: Any) -> dict[str, Any]:
        some = self._run_node(logical.Aggregate(input=self._node, keys=(), aggregates=aggs)).tables()
        (row,) = (row for table in some for row in rows.iter_rows(table))
        return row

    def _of_columns(self, kind: Callable[[str], Any], on: str | Sequence[str] | None) -> Any:
        """One value for one column, and a dictionary for several or all."""
        names = checks.keys("on", on)
        if not names:
            names = tuple(self.columns() or ())
        found = self._one(*map(kind, names))
        return next(iter(found.values())) if len(found) == 1 else found

    def sum(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Any:
        """Of a column, or a dictionary for several, by "sum(name)"; of all if none is named. None where there is no value. Of one
        column it is the value itself, however it is named. If none is named and a function decides which there are, its first
        block is made beforehand to see them, and once more by the run.

        ignore_nulls: False makes it None where there is any null. Raises KeyError, TypeError for a column that is not of numbers
        or durations, and OverflowError where a sum of integers or decimals does not fit."""
        return self._of_columns(lambda name: aggregates.Sum(name, ignore_nulls=ignore_nulls), on)

    def min(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Any:
        """As `sum`."""
        return self._of_columns(lambda name: aggregates.Min(name, ignore_nulls=ignore_nulls), on)

    def max(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Any:
        """As `sum`."""
        return self._of_columns(lambda name: aggregates.Max(name, ignore_nulls=ignore_nulls), on)

    def mean(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Any:
        """As `sum`."""
        return self._of_columns(lambda name: aggregates.Mean(name, ignore_nulls=ignore_nulls), on)

    def std(self, on: str | Sequence[str] | None = None, ddof: int = 1, ignore_nulls: bool = True) -> Any:
        """As `sum`. ddof: 1 for that of a sample, 0 for that of all."""
        return self._of_columns(lambda name: aggregates.Std(name, ddof=ddof, ignore_nulls=ignore_nulls), on)

    def unique(self, column: str, ignore_nulls: bool = False) -> list[Any]:
        """The values of a column, each once."""
        found: list[Any] = self._one(aggregates.Unique(column, ignore_nulls=ignore_nulls))[f"unique({column})"]
        return found

    def summary(
        self, columns: Sequence[str] | None = None, override_dtype_agg_mapping: summaries.Overrides | None = None
    ) -> DatasetSummary:
        """Counts, missing values, and of numbers also their mean, spread and bounds, for each column: by one run. Where a
        function decides which there are, its first block is made beforehand, as by `schema`.

        override_dtype_agg_mapping: other aggregations for columns of a type: {DataType.int64(): lambda name: [Sum(name)]}.
        """
        from umbel.data._api import summaries

        schema = self.schema()
        if schema is None:
            raise ValueError("the dataset has no columns, so there is nothing to sum up")
        names = schema.names if columns is None else list(checks.keys("columns", columns))
        plan_schemas.check_columns(names, schema.base_schema)
        wanted = summaries.wanted(schema.base_schema, names, override_dtype_agg_mapping or {})
        every = [one for some in wanted.values() for one in some.values()]
        return summaries.DatasetSummary(wanted, self._one(*every))

    # ---- blocks, and what is known of them ----

    def num_blocks(self) -> int:
        """How many blocks there are, where that is known without a run. Raises ValueError otherwise: materialize() makes them."""
        node = self._node
        if isinstance(node, logical.FromBlocks):
            return len(node.blocks)
        if isinstance(node, logical.Repartition | logical.RandomShuffle) and node.block_count is not None:
            return node.block_count
        raise ValueError("how many blocks there will be is decided while it runs; use materialize().num_blocks()")

    def size_bytes(self) -> int:
        """Of all rows in memory: as known, or estimated by its source; else all of the plan is run, as it is by Ray."""
        node = self._node
        if isinstance(node, logical.FromBlocks):
            return sum(one.metadata.size_bytes for one in node.blocks)
        estimated = node.source.estimate_inmemory_data_size() if isinstance(node, logical.Read) else None
        return estimated if estimated is not None else sum(map(sizes.size_bytes, self._tables()))

    def input_files(self) -> list[str]:
        """Files that the plan reads, each once. Nothing is run."""
        found: dict[str, None] = {}
        for node in logical.each(self._node):
            if isinstance(node, logical.Read):
                found.update(dict.fromkeys(node.source.input_files()))
            elif isinstance(node, logical.FromBlocks):
                found.update((name, None) for block in node.blocks for name in block.metadata.input_files)
        return [*found]

    def to_arrow_refs(self) -> list[Any]:
        """References to the blocks, as tables. Runs the plan; blocks are not fetched to this process."""
        return references.of_blocks(self._run().blocks(), "pyarrow")

    def to_pandas_refs(self) -> list[Any]:
        """References to the blocks, as pandas frames."""
        return references.of_blocks(self._run().blocks(), "pandas")

    def to_numpy_refs(self, *, column: str | None = None) -> list[Any]:
        """References to the blocks, as dictionaries of arrays; of one column, as an array."""
        names = [] if column is None else [column]
        known = plan_schemas.of(self._node)
        if known is not None:
            plan_schemas.check_columns(names, known)
        blocks = self._run().blocks()
        for block in blocks if known is None else ():
            plan_schemas.check_columns(names, block.metadata.schema or schemas.EMPTY)
        return references.of_blocks(blocks, "numpy", column=column)

    def to_torch(self, **_options: Any) -> Any:
        """Not there: use `iter_torch_batches`."""
        return self.iterator().to_torch()

    def to_tf(self, *_args: Any, **_options: Any) -> Any:
        """Not there: use `iter_batches`."""
        return self.iterator().to_tf()

    def iter_tf_batches(self, **_options: Any) -> Any:
        """Not there: use `iter_batches`."""
        return self.iterator().iter_tf_batches()
