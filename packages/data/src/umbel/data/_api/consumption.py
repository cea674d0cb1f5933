"""Methods of a dataset that look at rows. They run the plan, but for what is known without."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from umbel.data import aggregate as aggregates
from umbel.data._api import options
from umbel.data._blocks import batches, rows, schemas, sizes
from umbel.data._plan import counts, logical
from umbel.data._plan import schemas as plan_schemas

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from umbel.data.dataset import Dataset, MaterializedDataset, Schema
    from umbel.data.iterator import DataIterator

SHOWN_ROWS = 20


class Consumption:
    """See the module."""

    _node: logical.Node

    def _with(self, node: logical.Node) -> Dataset:
        raise NotImplementedError

    def _tables(self) -> Iterator[pa.Table]:
        """The blocks of a run, in order. Closing it ends the run."""
        raise NotImplementedError

    def iterator(self) -> DataIterator:
        raise NotImplementedError

    # ---- some rows ----

    def take(self, limit: int = SHOWN_ROWS) -> list[dict[str, Any]]:
        """The first rows, as dictionaries."""
        return [*self._with(logical.Limit(input=self._node, row_count=_count("limit", limit))).iter_rows()]

    def take_all(self, limit: int | None = None) -> list[dict[str, Any]]:
        """All rows. limit: raises ValueError if there are more."""
        if limit is None:
            return [*self.iter_rows()]
        found = self.take(_count("limit", limit) + 1)
        if len(found) > limit:
            raise ValueError(
                f"there are more than limit={limit} rows; give a larger one, None for no limit, or use take({limit})"
            )
        return found

    def take_batch(self, batch_size: int = SHOWN_ROWS, *, batch_format: str | None = "default") -> Any:
        """The first rows as one batch. Raises ValueError where there are none."""
        some = [*self._with(logical.Limit(input=self._node, row_count=_count("batch_size", batch_size)))._tables()]
        whole = schemas.concat(some) if some else None
        if whole is None or not whole.num_rows:
            raise ValueError("the dataset has no rows, so there is no batch")
        return batches.to_batch(whole, batch_format)

    def show(self, limit: int = SHOWN_ROWS) -> None:
        """Print the first rows, one on each line."""
        for row in self.take(limit):
            print(row)  # noqa: T201 - this is what it is for

    # ---- all rows ----

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries, in order."""
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
            self.iterator().iter_batches(
                prefetch_batches=prefetch_batches,
                batch_size=batch_size,
                batch_format=batch_format,
                drop_last=drop_last,
                local_shuffle_buffer_size=local_shuffle_buffer_size,
                local_shuffle_seed=local_shuffle_seed,
            )
        )

    def iter_torch_batches(self, **options: Any) -> Iterator[Any]:
        """See `DataIterator.iter_torch_batches`."""
        return iter(self.iterator().iter_torch_batches(**options))

    def to_arrow(self) -> pa.Table:
        """All rows as one table."""
        some = [*self._tables()]
        if some:
            return schemas.concat(some)
        return (plan_schemas.of(self._node) or schemas.EMPTY).empty_table()

    def to_pandas(self, limit: int | None = None) -> pd.DataFrame:
        """All rows as one frame. limit: raises ValueError if there are more."""
        whole = (
            self.to_arrow()
            if limit is None
            else self._with(logical.Limit(input=self._node, row_count=limit + 1)).to_arrow()
        )
        if limit is not None and whole.num_rows > limit:
            raise ValueError(f"there are more than limit={limit} rows; give a larger one, or None for no limit")
        return batches.to_batch(whole, "pandas")

    def to_polars(self) -> pl.DataFrame:
        """All rows as one frame."""
        return batches.to_batch(self.to_arrow(), "polars")

    def to_numpy(self) -> dict[str, np.ndarray[Any, Any]]:
        """All rows, an array for each column."""
        found: dict[str, np.ndarray[Any, Any]] = batches.to_batch(self.to_arrow(), "numpy")
        return found

    # ---- what there is ----

    def count(self) -> int:
        """How many rows there are; without a run where that is known, as by the footers of files."""
        known = counts.of(self._node)
        if known is not None:
            return known
        return int(self._one(aggregates.Count())["count()"])

    def schema(self, fetch_if_missing: bool = True) -> Schema | None:
        """Names and types of the columns, without a run where they are known. fetch_if_missing: else a first block is made; if not,
        None."""
        from umbel.data.dataset import Schema

        found = plan_schemas.of(self._node)
        if found is None and fetch_if_missing:
            for table in self._with(logical.Limit(input=self._node, row_count=1))._tables():
                found = table.schema
                break
        return Schema(found) if found is not None else None

    def columns(self, fetch_if_missing: bool = True) -> list[str] | None:
        """Names of the columns; see `schema`."""
        found = self.schema(fetch_if_missing)
        return found.names if found is not None else None

    # ---- sums ----

    def aggregate(self, *aggs: Any) -> dict[str, Any]:
        """What each gives of all rows, by its name."""
        if not aggs:
            raise ValueError("aggregate needs an aggregation at least, such as Sum('x')")
        return self._one(*aggs)

    def _one(self, *aggs: Any) -> dict[str, Any]:
        (row,) = self._with(logical.Aggregate(input=self._node, keys=(), aggregates=aggs)).iter_rows()
        return row

    def _of_columns(self, kind: Callable[[str], Any], on: str | Sequence[str] | None) -> Any:
        """One value for one column, and a dictionary for several or all."""
        names = options.keys("on", on if on is None or isinstance(on, str) else list(on))
        if not names:
            names = tuple(self.columns() or ())
        found = self._one(*map(kind, names))
        return next(iter(found.values())) if isinstance(on, str) else found

    def sum(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Any:
        """Of a column, or of each of several, by "sum(name)"."""
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

    # ---- parts ----

    def split(
        self, n: int, *, equal: bool = False, locality_hints: Sequence[Any] | None = None
    ) -> list[MaterializedDataset]:
        """So many datasets. equal: with equally many rows each; what is left over, fewer than `n` rows, is in none."""
        del locality_hints  # blocks are read where they are
        whole = self.materialize()
        total = whole.count()
        if _count("n", n) < 1:
            raise ValueError(f"n must be 1 or more, got {n}")
        ends = [total // n * number if equal else total * number // n for number in range(1, n + 1)]
        parts = whole.split_at_indices(ends)
        return parts[:n]

    def split_at_indices(self, indices: Sequence[int]) -> list[MaterializedDataset]:
        """Datasets of the rows up to each index, and one of those behind the last."""
        from umbel.data.dataset import MaterializedDataset

        ends = [*indices]
        if not ends or any(one < 0 for one in ends) or ends != sorted(ends):
            raise ValueError(f"indices must be 0 or more, and rise, got {ends}")
        whole = self.to_arrow()
        bounds = [0, *(min(one, whole.num_rows) for one in ends), whole.num_rows]
        return [
            MaterializedDataset.of([whole.slice(first, last - first)]) for first, last in itertools.pairwise(bounds)
        ]

    def split_proportionately(self, proportions: Sequence[float]) -> list[MaterializedDataset]:
        """Datasets of these parts of all rows, and one of the rest."""
        given = [*proportions]
        if not given or any(one <= 0 for one in given) or sum(given) >= 1:
            raise ValueError(f"proportions must be above 0, and below 1 together, got {given}")
        whole = self.materialize()
        total, ends, so_far = whole.count(), [], 0.0
        for one in given:
            so_far += one
            ends.append(int(total * so_far))
        return whole.split_at_indices(ends)

    def materialize(self) -> MaterializedDataset:
        raise NotImplementedError

    def size_bytes(self) -> int:
        """Of all blocks in memory."""
        return sum(sizes.size_bytes(table) for table in self._tables())


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a number of rows, 0 or more, got {value!r}")
    return value
