"""Rows that are counted or drawn, and read from nowhere."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from umbel import exceptions
from umbel.data import block
from umbel.data._blocks import numeric
from umbel.data._sources import base, packing

_ROWS_AT_ONCE = 1 << 20  # 8 MiB of int64: what is made ahead of a limit is little


class _Counted(base.Datasource):
    """`n` rows of which each is a function of its number alone."""

    def __init__(self, n: int) -> None:
        try:
            self._row_count = operator.index(n)
        except TypeError:
            raise TypeError(f"the number of rows must be an integer, got {n!r}") from None
        if n < 0:
            raise exceptions.InvalidOption(f"the number of rows must be >= 0, got {n}", option="n")
        self._limit: int | None = None

    def _row_bytes(self) -> int:
        raise NotImplementedError

    def _read(self) -> Callable[[int, int], Iterator[pa.Table]]:
        """What makes the rows from start to stop; it is pickled."""
        raise NotImplementedError

    @property
    def is_told_at_once(self) -> bool:
        return True

    def row_count(self) -> int:
        return self._row_count if self._limit is None else min(self._limit, self._row_count)

    def estimate_inmemory_data_size(self) -> int:
        return self.row_count() * self._row_bytes()

    def with_limit(self, count: int) -> base.Datasource:
        limited = type(self).__new__(type(self))
        limited.__dict__.update(self.__dict__)
        limited._limit = count if self._limit is None else min(count, self._limit)
        return limited

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[base.ReadTask]:
        rows, row_bytes = self.row_count(), self._row_bytes()
        wanted = max(1, min(packing.task_count(parallelism, rows * row_bytes), rows))
        bounds = [rows * part // wanted for part in range(wanted + 1)]
        tasks = []
        for start, stop in itertools.pairwise(bounds):
            kept = stop - start if per_task_row_limit is None else min(stop - start, per_task_row_limit)
            metadata = block.BlockMetadata(num_rows=kept, size_bytes=kept * row_bytes)
            read = functools.partial(self._read(), start, stop)
            tasks.append(base.ReadTask(read, metadata, self.schema(), per_task_row_limit))
        return tasks


class RangeDatasource(_Counted):
    """The numbers 0 to n - 1. With a tensor_shape each row is a tensor of that shape, filled with its number.

    column: its name; `id`, or `data` for tensors.
    """

    def __init__(self, n: int, *, tensor_shape: tuple[int, ...] | None = None, column: str | None = None) -> None:
        super().__init__(n)
        self._shape = tensor_shape
        self._column = column or ("id" if tensor_shape is None else "data")

    def get_name(self) -> str:
        return "Range" if self._shape is None else "RangeTensor"

    def schema(self) -> pa.Schema:
        kind = pa.int64() if self._shape is None else pa.fixed_shape_tensor(pa.int64(), self._shape)
        return pa.schema([(self._column, kind)])

    def _row_bytes(self) -> int:
        return 8 * int(np.prod(self._shape or (1,), dtype=np.int64))

    def _read(self) -> Callable[[int, int], Iterator[pa.Table]]:
        return functools.partial(_numbers, self._column, self._shape)


class RandomIntRowDatasource(_Counted):
    """n rows of num_columns random int64 in columns `c_0`, `c_1`, .... With a seed they are the same every time; without one
    they are drawn once for the source, so that a task that runs again gives the same rows."""

    def __init__(self, n: int, num_columns: int, *, seed: int | None = None) -> None:
        super().__init__(n)
        self._names = [f"c_{index}" for index in range(num_columns)]
        self._seed = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])

    def get_name(self) -> str:
        return "RandomInt"

    def schema(self) -> pa.Schema:
        return pa.schema([(name, pa.int64()) for name in self._names])

    def _row_bytes(self) -> int:
        return 8 * len(self._names)

    def _read(self) -> Callable[[int, int], Iterator[pa.Table]]:
        return functools.partial(_random_ints, self._seed, self._names)


def _numbers(column: str, shape: tuple[int, ...] | None, start: int, stop: int) -> Iterator[pa.Table]:
    step = max(1, _ROWS_AT_ONCE // int(np.prod(shape or (1,), dtype=np.int64)))
    for first in range(start, max(stop, start + 1), step):
        values: np.ndarray = np.arange(first, min(first + step, stop), dtype=np.int64)
        if shape is None:
            yield pa.table({column: numeric.to_arrow(values)})
        else:
            tensor_type = pa.fixed_shape_tensor(pa.int64(), shape)
            width = int(np.prod(shape, dtype=np.int64))
            flat = numeric.to_arrow(np.repeat(values, width))
            storage = pa.FixedSizeListArray.from_arrays(flat, type=tensor_type.storage_type)
            yield pa.table({column: pa.ExtensionArray.from_storage(tensor_type, storage)})


def _random_ints(seed: int, names: list[str], start: int, stop: int) -> Iterator[pa.Table]:
    """Drawn in chunks whose bounds do not depend on how the rows are divided among tasks; nor do the values."""
    first = start - start % _ROWS_AT_ONCE
    for chunk in range(first, max(stop, first + 1), _ROWS_AT_ONCE):
        low, high = max(start, chunk) - chunk, max(min(stop, chunk + _ROWS_AT_ONCE) - chunk, 0)
        values: dict[str, np.ndarray] = {
            name: np.random.default_rng([seed, chunk, index]).integers(np.iinfo(np.int64).max, size=high)[low:]
            for index, name in enumerate(names)
        }
        yield pa.table(values, schema=pa.schema([(name, pa.int64()) for name in names]))
