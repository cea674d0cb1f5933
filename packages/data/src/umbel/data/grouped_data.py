"""What `Dataset.groupby` gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umbel.data import aggregate as aggregates
from umbel.data import expressions
from umbel.data._api import checks, options, transforms
from umbel.data._blocks import batches
from umbel.data._expressions import evaluate
from umbel.data._plan import failing, logical, schemas

if TYPE_CHECKING:
    from umbel.data.dataset import Dataset


class GroupedData:
    """Rows by groups, each of those that are equal in the keys. Nulls are a group, and so is NaN."""

    def __init__(self, dataset: Any, keys: tuple[str, ...], partition_count: int | None) -> None:
        self._dataset: Dataset = dataset
        self._keys = keys
        self._partition_count = partition_count

    def __repr__(self) -> str:
        return f"GroupedData(keys={[*self._keys]}, dataset={self._dataset!r})"

    def aggregate(self, *aggs: Any) -> Dataset:
        """A row for each group: its keys, and what each aggregation gives, by its name."""
        if not aggs:
            raise ValueError("aggregate needs an aggregation at least, such as Sum('x')")
        node = logical.Aggregate(
            input=self._dataset._node, keys=self._keys, aggregates=aggs, partition_count=self._partition_count
        )
        return self._dataset._with(node)

    def count(self) -> Dataset:
        """How many rows each group has, as "count()"."""
        return self.aggregate(aggregates.Count())

    def sum(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Dataset:
        """Of these columns, or of all that are numbers and no keys, as "sum(name)". ignore_nulls: False makes it null where there
        is any null. If no column is named and a function decides which there are, its first block is made beforehand to see them,
        and once more by the run. Raises ValueError where there is no column of numbers."""
        return self._of_columns(lambda name: aggregates.Sum(name, ignore_nulls=ignore_nulls), on)

    def min(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Dataset:
        """As `sum`."""
        return self._of_columns(lambda name: aggregates.Min(name, ignore_nulls=ignore_nulls), on)

    def max(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Dataset:
        """As `sum`."""
        return self._of_columns(lambda name: aggregates.Max(name, ignore_nulls=ignore_nulls), on)

    def mean(self, on: str | Sequence[str] | None = None, ignore_nulls: bool = True) -> Dataset:
        """As `sum`."""
        return self._of_columns(lambda name: aggregates.Mean(name, ignore_nulls=ignore_nulls), on)

    def std(self, on: str | Sequence[str] | None = None, ddof: int = 1, ignore_nulls: bool = True) -> Dataset:
        """As `sum`. ddof: 1 for that of a sample, 0 for that of all."""
        return self._of_columns(lambda name: aggregates.Std(name, ddof=ddof, ignore_nulls=ignore_nulls), on)

    def map_groups(
        self,
        fn: Callable[..., Any] | type,
        *,
        zero_copy_batch: bool = True,
        compute: options.ComputeStrategy | None = None,
        batch_format: str | None = "default",
        fn_args: Iterable[Any] | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
        fn_constructor_args: Iterable[Any] | None = None,
        fn_constructor_kwargs: Mapping[str, Any] | None = None,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        memory: float | None = None,
        concurrency: int | tuple[int, int] | None = None,
        on_error: str = "raise",
        **ray_remote_args: Any,
    ) -> Dataset:
        """`fn(batch)` of all rows of each group gives rows in their place, as in `map_batches`.

        A group is given whole to one call, so that it must fit into a task's memory: the statistics say how large the largest
        partition was, if it was much larger than wanted. Sums, counts and the like (`aggregate`) have no such bound.

        It runs in the tasks that put the groups together, which make a class once each: compute and concurrency do not say how
        many there are at once; num_cpus, num_gpus and memory do.

        on_error: as in `Dataset.map`, for all rows of the group on which the function fails.
        """
        if (compute, concurrency) != (None, None):
            warnings.warn(
                "map_groups runs in the tasks that put groups together: say by num_cpus=, num_gpus= or memory= how many are to "
                "run at once, and leave out compute and concurrency",
                stacklevel=2,
            )
        batches.check_format(batch_format)
        function = transforms._function(fn, fn_args, fn_kwargs, fn_constructor_args, fn_constructor_kwargs)
        means = options.means(
            function,
            compute=None,
            concurrency=None,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            memory=memory,
            options=ray_remote_args,
        )
        node = logical.MapGroups(
            input=self._dataset._node,
            keys=self._keys,
            function=function,
            batch_format=batch_format,
            zero_copy=zero_copy_batch,
            partition_count=self._partition_count,
            means=means,
            on_error=failing.check(on_error),
        )
        return self._dataset._with(node)

    def with_column(self, column_name: str, expr: expressions.Expr, **ray_remote_args: Any) -> Dataset:
        """A column out of an expression, evaluated on the rows of each group by themselves. Rows come group by group."""
        if not isinstance(expr, expressions.Expr):
            raise TypeError(f"a column is made of an expression such as col('x') * 2 or lit(1), got {expr!r}")
        return self.map_groups(_GroupColumn(expr.alias(column_name)), batch_format="pyarrow", **ray_remote_args)

    def _of_columns(self, kind: Callable[[str], Any], on: str | Sequence[str] | None) -> Dataset:
        names = checks.keys("on", on)
        if not names:
            schema = schemas.of(self._dataset._node)
            if schema is None:
                found = self._dataset.schema()
                schema = found.base_schema if found is not None else None
            names = tuple(schemas.numbers(schema, but=self._keys)) if schema is not None else ()
            if not names:
                raise ValueError(f"there is no column of numbers beside the keys {[*self._keys]}; name the columns")
        return self.aggregate(*map(kind, names))


class _GroupColumn:
    """A group with one column more."""

    def __init__(self, expression: expressions.Expr) -> None:
        self._expression = expression
        self.__name__ = f"with_column({expression.name})"

    def __call__(self, group: pa.Table) -> pa.Table:
        return evaluate.project(group, (expressions.star(), self._expression))
