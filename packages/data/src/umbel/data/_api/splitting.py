"""Methods of a dataset that divide it: into datasets that are there, and into iterators for several consumers at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from umbel.data import expressions, window
from umbel.data._api import checks
from umbel.data._blocks import hashing
from umbel.data._plan import counts, logical

if TYPE_CHECKING:
    from umbel.data import context as contexts
    from umbel.data.dataset import Dataset, MaterializedDataset
    from umbel.data.iterator import DataIterator


class Splitting:
    """See the module."""

    _node: logical.Node

    @property
    def context(self) -> contexts.DataContext:
        raise NotImplementedError

    def _with(self, node: logical.Node) -> Dataset:
        raise NotImplementedError

    def materialize(self) -> MaterializedDataset:
        raise NotImplementedError

    def split(
        self, n: int, *, equal: bool = False, locality_hints: Sequence[Any] | None = None
    ) -> list[MaterializedDataset]:
        """So many datasets. equal: with equally many rows each; what is left over, fewer than `n` rows, is in none.
        locality_hints has no effect: blocks are read where they are."""
        del locality_hints
        whole, count = self.materialize(), checks.positive("n", n)
        total = whole.count()
        ends = [total // count * at if equal else total * at // count for at in range(1, count + 1)]
        return whole._parts(ends, "Split")

    def split_at_indices(self, indices: Sequence[int]) -> list[MaterializedDataset]:
        """Datasets of the rows up to each index, and one of those behind the last."""
        ends = [*indices]
        is_whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in ends)
        if not ends or not is_whole or ends != sorted(ends):
            raise ValueError(f"indices must be numbers of rows, 0 or more, that rise, got {ends}")
        whole = self.materialize()
        total = whole.count()
        return whole._parts([*(min(one, total) for one in ends), total], "Split")

    def split_proportionately(self, proportions: Sequence[float]) -> list[MaterializedDataset]:
        """Datasets of these parts of all rows, and one of the rest."""
        given = [*proportions]
        if not given or any(one <= 0 for one in given) or sum(given) >= 1:
            raise ValueError(f"proportions must be above 0, and below 1 together, got {given}")
        whole = self.materialize()
        total = whole.count()
        ends = [_part_of(total, so_far) for so_far in itertools.accumulate(given)]
        return whole._parts([*ends, total], "Split")

    def train_test_split(
        self, test_size: int | float, *, shuffle: bool = False, seed: int | None = None, stratify: str | None = None
    ) -> tuple[MaterializedDataset, MaterializedDataset]:
        """Two datasets, the second of so many rows, or of this part of them.

        shuffle: rows in random order before. stratify: a column, of whose values both have equal parts, as far as that goes; rows
        come by its values then.
        """
        ds: Any = self
        is_part = isinstance(test_size, float)
        if isinstance(test_size, bool) or not (
            (is_part and 0 < test_size < 1) or (isinstance(test_size, int) and test_size > 0)
        ):
            raise ValueError(
                f"test_size must be a part between 0 and 1, or a number of rows above 0, got {test_size!r}"
            )
        if seed is not None and not shuffle:
            raise ValueError("seed goes with shuffle=True")
        if shuffle:
            ds = ds.random_shuffle(seed=seed)
        if stratify is None:
            whole = ds.materialize()
            total = whole.count()
            count = _part_of(total, test_size) if is_part else int(test_size)
            if count >= total:
                raise ValueError(f"test_size={test_size} leaves no row of {total} for training")
            train, test = whole._parts([total - count, total], "TrainTestSplit")
            return train, test
        if not is_part:
            if counts.of(ds._node) is None:
                ds = ds.materialize()  # or it would run once to be counted, and once more
            total = ds.count()
            if test_size >= total:
                raise ValueError(f"test_size={test_size} leaves no row of {total} for training")
            test_size = test_size / total
        numbers, sizes = (checks.unused(name, self._node) for name in ("__number__", "__count__"))
        numbered = ds.window({numbers: window.row_number(), sizes: window.count()}, partition_by=stratify).materialize()
        last = expressions.col(sizes) - (expressions.col(sizes) * expressions.lit(float(test_size))).round()
        train, test = (
            numbered.filter(expr=one).drop_columns([numbers, sizes]).materialize()
            for one in (expressions.col(numbers) <= last, expressions.col(numbers) > last)
        )
        return train, test

    def streaming_train_test_split(
        self,
        test_size: float,
        *,
        split_type: str = "random",
        hash_column: str | None = None,
        seed: int | None = None,
        **ray_remote_args: Any,
    ) -> tuple[Dataset, Dataset]:
        """Two datasets, the second of about this part of the rows. Nothing runs: each of them is a filter of this one.

        split_type: "random" by chance, the same with the same seed, or "hash" by the values of `hash_column`: rows that are equal
        in it are in one of both, and always in the same. ray_remote_args: of the tasks that divide the rows, such as num_cpus.
        """
        if not isinstance(test_size, float) or not 0 < test_size < 1:
            raise ValueError(f"test_size must be a part between 0 and 1, got {test_size!r}")
        if split_type == "random":
            if hash_column is not None:
                raise ValueError("hash_column goes with split_type='hash'")
            drawn = expressions.random(seed=seed, reseed_after_execution=False)
        elif split_type == "hash":
            if hash_column is None or seed is not None:
                raise ValueError("split_type='hash' takes hash_column=, and no seed")
            checks.columns(self._node, [hash_column])
            drawn = _hash_part(expressions.col(hash_column))
        else:
            raise ValueError(f"split_type must be 'random' or 'hash', got {split_type!r}")
        ds: Any = self
        part = checks.unused("__part__", self._node)
        with_part = ds.with_column(part, drawn, **ray_remote_args)
        is_test = expressions.col(part) < test_size
        return (
            with_part.filter(expr=~is_test).drop_columns([part]),
            with_part.filter(expr=is_test).drop_columns([part]),
        )

    def streaming_split(
        self, n: int, *, equal: bool = False, locality_hints: Sequence[Any] | None = None
    ) -> list[DataIterator]:
        """Iterators for so many consumers, which may be passed to tasks and actors: each row goes to one of them.

        A run serves all of them, once for each epoch; the next one begins when the last has ended for all. One that leaves early
        has ended it. equal: all get equally many rows, and what is left over, fewer than `n` rows, nobody; otherwise a block
        goes to whoever asks. Who waits for one that does not come is told of it, and fails after `DataContext.split_wait_s`.
        locality_hints has no effect: blocks are read where they are.
        """
        from umbel.data._api import split_streams

        del locality_hints
        node = logical.Split(input=self._node, count=checks.positive("n", n), is_equal=bool(equal))
        return split_streams.iterators(self._with(node), self.context)


def _hashed(values: Any) -> Any:
    """Of each value a number of [0, 1) that is the same everywhere."""
    return hashing.hash_rows(pa.table({"value": values}), ["value"]).astype("uint64") / 2.0**64


_hash_part = expressions.udf(return_dtype=pa.float64())(_hashed)


def _part_of(total: int, part: float) -> int:
    """Rounded down, but for what the float lacks: 0.29 of 100 are 29, and eight times 0.1 of 10 are 8."""
    return int(round(total * part, 9))
