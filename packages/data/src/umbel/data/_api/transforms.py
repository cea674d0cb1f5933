"""Methods of a dataset that add an operator. Nothing runs."""

from __future__ import annotations

import collections.abc
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umbel.data import context as contexts
from umbel.data import expressions, window
from umbel.data._api import checks, options
from umbel.data._blocks import batches, inference
from umbel.data._blocks import schemas as block_schemas
from umbel.data._expressions import parse
from umbel.data._plan import calls, failing, logical, schemas

if TYPE_CHECKING:
    from umbel.data.dataset import Dataset

Seed = int | contexts.RandomSeedConfig | None


class Transforms:
    """See the module.

    The arguments of functions are written out for each method, though they are the same: `inspect.signature`, `help()` and most
    editors do not look into a TypedDict.
    """

    # What `Dataset` has is declared here, for type checkers: none of these errors can come of a dataset.
    _node: logical.Node

    def _with(self, node: logical.Node) -> Dataset:
        raise NotImplementedError

    # ---- rows and batches ----

    def map(
        self,
        fn: Callable[..., Mapping[str, Any]] | type,
        *,
        compute: options.ComputeStrategy | None = None,
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
        """`fn(row)` of each row, a dictionary, gives the row in its place.

        A class is made once in each actor of a pool. A coroutine function runs for several rows at once; order is kept.
        on_error: "skip" leaves out the rows on which the function fails, "collect" keeps them, with the error: after a run
        `errors()` has them.
        """
        function = _function(fn, fn_args, fn_kwargs, fn_constructor_args, fn_constructor_kwargs)
        return self._rows("map", function, compute, concurrency, num_cpus, num_gpus, memory, on_error, ray_remote_args)

    def flat_map(
        self,
        fn: Callable[..., Iterable[Mapping[str, Any]]] | type,
        *,
        compute: options.ComputeStrategy | None = None,
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
        """As `map`, but the function gives any number of rows for each: a list, or by `yield`."""
        function = _function(fn, fn_args, fn_kwargs, fn_constructor_args, fn_constructor_kwargs)
        return self._rows(
            "flat_map", function, compute, concurrency, num_cpus, num_gpus, memory, on_error, ray_remote_args
        )

    def filter(
        self,
        fn: Callable[..., bool] | type | None = None,
        expr: str | expressions.Expr | None = None,
        *,
        compute: options.ComputeStrategy | None = None,
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
        """Rows for which it is true; null counts as false.

        expr: an expression, or one in Python's syntax such as "price > 5 and kind in ['a', 'b']": no Python runs for a row, and
        readers leave out what cannot match.
        """
        if isinstance(fn, expressions.Expr | str) and expr is None:
            fn, expr = None, fn
        if (fn is None) == (expr is None):
            raise ValueError("filter takes either a function of a row or expr=, an expression; give one of them")
        if expr is not None:
            parsed = parse.parse(expr) if isinstance(expr, str) else expr
            return self._with(logical.Filter(input=self._node, expression=parsed))
        assert fn is not None
        function = _function(fn, fn_args, fn_kwargs, fn_constructor_args, fn_constructor_kwargs)
        return self._rows(
            "filter", function, compute, concurrency, num_cpus, num_gpus, memory, on_error, ray_remote_args
        )

    def _rows(
        self,
        kind: str,
        function: calls.Function,
        compute: Any,
        concurrency: Any,
        num_cpus: float | None,
        num_gpus: float | None,
        memory: float | None,
        on_error: str,
        rest: Mapping[str, Any],
    ) -> Dataset:
        means = options.means(
            function,
            compute=compute,
            concurrency=concurrency,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            memory=memory,
            options=rest,
        )
        chosen = failing.check(on_error)
        return self._with(logical.MapRows(input=self._node, function=function, kind=kind, means=means, on_error=chosen))

    def map_batches(
        self,
        fn: Callable[..., Any] | type,
        *,
        batch_size: int | str | None = None,
        compute: options.ComputeStrategy | None = None,
        batch_format: str | None = "default",
        zero_copy_batch: bool = True,
        fn_args: Iterable[Any] | None = None,
        fn_kwargs: Mapping[str, Any] | None = None,
        fn_constructor_args: Iterable[Any] | None = None,
        fn_constructor_kwargs: Mapping[str, Any] | None = None,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        memory: float | None = None,
        concurrency: int | tuple[int, int] | None = None,
        udf_modifying_row_count: bool = True,
        on_error: str = "raise",
        **ray_remote_args: Any,
    ) -> Dataset:
        """`fn(batch)` of each batch gives a batch in its place, or several by `yield`.

        batch_size: rows; None for whole blocks; "auto" for as many as take 16 MiB. batch_format: "numpy" (also "default"; a
        dictionary of arrays), "pandas", "polars", "torch", "pyarrow", or None for the block as it is. zero_copy_batch: a batch
        may be a read-only view; False gives a copy that the function may change. A batch that is returned may be of any of
        these kinds. on_error: as in `map`, for all rows of the batch on which the function fails.
        """
        if batch_size == "default":
            batch_size = None
        if batch_size not in (None, "auto") and (
            not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1
        ):
            raise ValueError(f"batch_size must be 1 or more rows, 'auto', or None for whole blocks, got {batch_size!r}")
        batches.check_format(batch_format)
        if num_gpus and batch_size is None:
            raise ValueError("say batch_size= with num_gpus: a whole block may be more than a GPU's memory holds")
        function = _function(fn, fn_args, fn_kwargs, fn_constructor_args, fn_constructor_kwargs)
        means = options.means(
            function,
            compute=compute,
            concurrency=concurrency,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            memory=memory,
            options=ray_remote_args,
        )
        return self._with(
            logical.MapBatches(
                input=self._node,
                function=function,
                batch_size=batch_size,
                batch_format=batch_format,
                zero_copy=zero_copy_batch,
                changes_row_count=udf_modifying_row_count,
                means=means,
                on_error=failing.check(on_error),
            )
        )

    # ---- columns ----

    def with_column(self, column_name: str, expr: expressions.Expr | window.Over, **ray_remote_args: Any) -> Dataset:
        """A column out of an expression, new or in the place of the one with its name."""
        return self.with_columns({column_name: expr}, **ray_remote_args)

    def with_columns(
        self,
        exprs: Mapping[str, expressions.Expr | window.Over] | expressions.Unnest,
        *more_exprs: Mapping[str, expressions.Expr | window.Over] | expressions.Unnest,
        **ray_remote_args: Any,
    ) -> Dataset:
        """Columns out of expressions, all of them of the columns that are there before.

        `unnest(expr)` makes a column of each field of a struct; where a function decides which these are, a first block is made
        at once, as by `schema`. `lag("price").over(order_by="day")` and the like, of
        `umbel.data.window`, are values of the rows around; with them rows come partition by partition, as from `window`.
        Options of tasks are for what a function in them needs; then they run in tasks of their own.
        """
        given: dict[str, Any] = {}
        ds, dropped = self, []
        for number, one in enumerate((exprs, *more_exprs)):
            if isinstance(one, expressions.Unnest):
                temporary = checks.unused(f"__struct{number}__", self._node)
                ds = ds._with(
                    logical.Project(input=ds._node, expressions=(expressions.star(), one.expr.alias(temporary)))
                )
                dropped.append(temporary)
                given |= self._fields(one.expr, expressions.col(temporary))
            else:
                given |= one
        made = []
        for name, value in given.items():
            if isinstance(value, window.Over):
                ds, temporary = value._added(ds, checks.unused(f"__over{len(dropped)}__", self._node))
                dropped.append(temporary)
                value = expressions.col(temporary)
            if not isinstance(value, expressions.Expr):
                raise TypeError(
                    f"a column is made of an expression such as col('x') * 2 or lit(1), got {value!r} for {name!r}"
                )
            made.append(value.alias(name))
        means = options.plain_means(ray_remote_args)
        node = logical.Project(input=ds._node, expressions=(expressions.star(), *made), means=means)
        return self._with(node).drop_columns(dropped) if dropped else self._with(node)

    def _fields(self, expr: expressions.Expr, of: expressions.Expr) -> dict[str, expressions.Expr]:
        """An expression for each field of the struct that `expr` is and `of` has."""
        schema = self.schema()  # type: ignore[attr-defined]  # of another part of a dataset
        type_ = expr.get_type(schema.base_schema if schema is not None else pa.schema([]))
        if not pa.types.is_struct(type_):
            raise TypeError(f"unnest() makes columns of the fields of a struct; {expr!r} is {type_}")
        return {field.name: of.struct.field(field.name) for field in type_}

    def add_column(
        self, col: str, fn: Callable[..., Any], *, batch_format: str | None = "pandas", **options: Any
    ) -> Dataset:
        """Deprecated: use `with_column` with an expression, or `map_batches`. `fn(batch)` gives the values of the column."""
        warnings.warn(
            "add_column is deprecated; use with_column with an expression, or map_batches", DeprecationWarning, 2
        )
        if not callable(fn):
            raise TypeError(f"add_column takes a function of a batch that gives the values of the column, got {fn!r}")
        return self.map_batches(
            _with_values, batch_format=batch_format, zero_copy_batch=False, fn_args=(col, fn), **options
        )

    def select_columns(self, cols: str | Sequence[str | expressions.Expr], **ray_remote_args: Any) -> Dataset:
        """These columns, in this order: names, or expressions. Options of tasks are for what a function in them needs. Raises
        KeyError, when it runs or the schema is asked for, for one that is not there."""
        several = [cols] if isinstance(cols, str) else list(cols)
        if not several:
            raise ValueError("select_columns needs a column at least")
        exprs = tuple(expressions.col(one) if isinstance(one, str) else one for one in several)
        means = options.plain_means(ray_remote_args)
        return self._with(logical.Project(input=self._node, expressions=exprs, means=means))

    def drop_columns(self, cols: str | Sequence[str], **ray_remote_args: Any) -> Dataset:
        """All columns but these. Options of tasks are taken, and not needed: it runs with what is in front of it. Raises KeyError
        for one that is known not to be there."""
        options.plain_means(ray_remote_args)
        dropped = checks.keys("cols", cols)
        node = logical.Project(input=self._node, expressions=(expressions.star(),), dropped=frozenset(dropped))
        checks.columns(self._node, dropped)
        return self._with(node)

    def rename_columns(self, names: Mapping[str, str] | Sequence[str], **ray_remote_args: Any) -> Dataset:
        """names: old to new; or the new names of all columns, in order. Options of tasks are taken, and not needed. Raises
        KeyError for one that is known not to be there, ValueError for a list where the columns are not known or not as many."""
        options.plain_means(ray_remote_args)
        if not isinstance(names, collections.abc.Mapping):
            schema = schemas.of(self._node)
            if schema is None:
                raise ValueError(
                    "which columns there are is known after a run only; give {old name: new name} instead of a list"
                )
            if len(schema.names) != len(names):
                raise ValueError(
                    f"there are {len(schema.names)} columns, {schema.names}, got {len(names)} names: {list(names)}"
                )
            names = dict(zip(schema.names, names, strict=True))
        checks.columns(self._node, names)
        return self._with(logical.Rename(input=self._node, names=dict(names)))

    # ---- which rows, and where ----

    def limit(self, limit: int) -> Dataset:
        """The first rows. Nothing that is behind them is read."""
        return self._with(logical.Limit(input=self._node, row_count=checks.row_count("limit", limit)))

    def random_sample(self, fraction: float, *, seed: Seed = None) -> Dataset:
        """Each row with this probability. With a seed the same rows each time, however many workers there are."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be from 0 to 1, got {fraction!r}")
        return self._with(logical.Sample(input=self._node, fraction=fraction, seed=options.seed(seed)))

    def sample(self, n: int, *, seed: int | None = None) -> Dataset:
        """So many rows at random, in random order; all if there are fewer. Only so many are kept while it runs."""
        count = checks.row_count("n", n)
        name = checks.unused("__drawn__", self._node)  # a column that is there only for a while
        drawn = self.with_column(name, expressions.random(seed=seed, reseed_after_execution=False))
        return drawn.sort(name).limit(count).drop_columns(name)

    def distinct(self, on: str | Sequence[str] | None = None, *, keep: str = "first") -> Dataset:
        """One row of those that are equal in these columns, or in all. keep: "first", "last" or "any", which is quickest."""
        if keep not in ("first", "last", "any"):
            raise ValueError(f"keep must be 'first', 'last' or 'any', got {keep!r}")
        names = checks.keys("on", on) or None
        if names is not None:
            checks.columns(self._node, names)
        return self._with(logical.Distinct(input=self._node, keys=names, keep=keep))

    drop_duplicates = distinct

    def sort(
        self,
        key: str | Sequence[str],
        descending: bool | Sequence[bool] = False,
        boundaries: Sequence[Any] | None = None,
    ) -> Dataset:
        """By columns, the first first; rows that are equal in all keep their order. Nulls come last and NaN before them,
        descending too. boundaries: values of the first key, at each of which another block begins, so that there is one more
        block than boundaries; in either order. Without them there are as many blocks as the bytes want. Raises KeyError for a
        column that is known not to be there, and TypeError for boundaries that its values cannot be compared with."""
        names = checks.keys("key", key)
        if not names:
            raise ValueError("sort needs the name of a column at least")
        each = checks.descending(descending, names)
        checks.columns(self._node, names)
        bounds = None if boundaries is None else tuple(boundaries)
        if bounds is not None:
            self._check_boundaries(bounds, names[0])
        return self._with(logical.Sort(input=self._node, keys=names, descending=each, boundaries=bounds))

    def _check_boundaries(self, values: tuple[Any, ...], key: str) -> None:
        found = inference.from_values(values, name="boundaries")
        if found.null_count:
            raise ValueError(
                f"boundaries are values of the key {key!r}, got None among {values!r}; nulls come last anyway"
            )
        schema = schemas.of(self._node)
        if schema is not None and block_schemas.common_type(schema.field(key).type, found.type) is None:
            raise TypeError(
                f"boundaries are values of the key {key!r}, which is {schema.field(key).type}; got {found.type}: {values!r}"
            )

    def random_shuffle(self, *, seed: Seed = None, num_blocks: int | None = None, **ray_remote_args: Any) -> Dataset:
        """All rows in another order. With a seed the same one each time, however many workers there are; with a
        `RandomSeedConfig` another one in each run, if it says so."""
        means = options.plain_means(ray_remote_args)
        return self._with(
            logical.RandomShuffle(input=self._node, seed=options.seed(seed), block_count=num_blocks, means=means)
        )

    def repartition(
        self,
        num_blocks: int | None = None,
        target_num_rows_per_block: int | None = None,
        *,
        strict: bool = False,
        shuffle: bool = False,
        keys: Sequence[str] | None = None,
        sort: bool = False,
    ) -> Dataset:
        """So many blocks; or blocks of so many rows, of which with `strict` only the last may have less.

        shuffle: rows in random order. keys: rows that are equal in these come into one block. sort: by the keys, within each
        block."""
        if (num_blocks is None) == (target_num_rows_per_block is None):
            raise ValueError("repartition takes num_blocks or target_num_rows_per_block; give one of them")
        if target_num_rows_per_block is not None and (shuffle or keys or sort):
            raise ValueError("shuffle, keys and sort go with num_blocks")
        for name, value in (("num_blocks", num_blocks), ("target_num_rows_per_block", target_num_rows_per_block)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be 1 or more, got {value!r}")
        return self._with(
            logical.Repartition(
                input=self._node,
                block_count=num_blocks,
                block_rows=target_num_rows_per_block,
                is_strict=strict,
                shuffles=shuffle,
                keys=checks.keys("keys", keys),
                sorts=sort,
            )
        )

    def randomize_block_order(self, *, seed: Seed = None) -> Dataset:
        """Blocks in another order, their rows as they are: nearly a shuffle, and costs nothing."""
        return self._with(logical.RandomizeBlocks(input=self._node, seed=options.seed(seed)))


def _with_values(batch: Any, name: str, fn: Callable[[Any], Any]) -> Any:
    values = fn(batch)
    if hasattr(batch, "append_column"):  # Arrow's
        at = batch.schema.get_field_index(name)
        return batch.append_column(name, values) if at < 0 else batch.set_column(at, name, values)
    batch[name] = values
    return batch


def _function(call: Any, args: Any, kwargs: Any, constructor_args: Any, constructor_kwargs: Any) -> calls.Function:
    if not callable(call):
        raise TypeError(f"a function or a class with __call__ is needed, got {call!r}")
    function = calls.Function(
        call, tuple(args or ()), dict(kwargs or {}), tuple(constructor_args or ()), dict(constructor_kwargs or {})
    )
    if not function.is_class and (constructor_args or constructor_kwargs):
        raise ValueError(
            "fn_constructor_args and fn_constructor_kwargs are for a class with __call__; give a function its arguments by "
            "fn_args and fn_kwargs"
        )
    return function
