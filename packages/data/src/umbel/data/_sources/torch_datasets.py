"""Datasets of torch. A map-style one is divided by its indices; an iterable one is read by one task.

An item that is a mapping is a row; one that is a tuple, which may have anything in its places and so no type as a whole, is the
columns `item_0`, `item_1`, ...; any other is the column `item`. Torch itself is not imported.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from umbel.data import block
from umbel.data._blocks import rows as block_rows
from umbel.data._blocks import sizes
from umbel.data._sources import base, packing

_ITEMS_AT_ONCE: Final = 256  # that become a table: images of a megabyte too


class TorchDatasource(base.Datasource):
    """The dataset travels to the tasks. Its first item is looked at for its size."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._is_indexed = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        self._limit: int | None = None
        self._row_bytes: int | None = None

    def get_name(self) -> str:
        return "Torch"

    def row_count(self) -> int | None:
        if not self._is_indexed:
            return None
        count = len(self._dataset)
        return count if self._limit is None else min(count, self._limit)

    def estimate_inmemory_data_size(self) -> int | None:
        count = self.row_count()
        if count is None:
            return None
        if self._row_bytes is None:
            self._row_bytes = sizes.size_bytes(_table([_item(self._dataset, 0)])) if count else 0
        return count * self._row_bytes

    def with_limit(self, count: int) -> base.Datasource:
        limited = TorchDatasource(self._dataset)
        limited._row_bytes = self._row_bytes
        limited._limit = count if self._limit is None else min(count, self._limit)
        return limited

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[base.ReadTask]:
        rows, size_bytes = self.row_count(), self.estimate_inmemory_data_size()
        if rows is None or size_bytes is None:
            return [
                base.ReadTask(
                    functools.partial(_iterated, self._dataset),
                    block.BlockMetadata(),
                    per_task_row_limit=per_task_row_limit,
                )
            ]
        wanted = max(1, min(packing.task_count(parallelism, size_bytes), rows))
        tasks = []
        for start, stop in itertools.pairwise(rows * part // wanted for part in range(wanted + 1)):
            kept = stop - start if per_task_row_limit is None else min(stop - start, per_task_row_limit)
            metadata = block.BlockMetadata(num_rows=kept, size_bytes=size_bytes * kept // max(rows, 1))
            read = functools.partial(_indexed, self._dataset, start, stop)
            tasks.append(base.ReadTask(read, metadata, per_task_row_limit=per_task_row_limit))
        return tasks


def _indexed(dataset: Any, start: int, stop: int) -> Iterator[pa.Table]:
    return _tables(map(functools.partial(_item, dataset), range(start, stop)))


def _item(dataset: Any, index: int) -> Any:
    try:
        return dataset[index]
    except Exception as error:
        raise ValueError(
            f"item {index} of the torch dataset {type(dataset).__name__} cannot be read: {error!r}"
        ) from error


def _iterated(dataset: Any) -> Iterator[pa.Table]:
    return _tables(iter(dataset))


def _tables(items: Iterator[Any]) -> Iterator[pa.Table]:
    while several := list(itertools.islice(items, _ITEMS_AT_ONCE)):
        yield _table(several)


def _table(items: Iterable[Any]) -> pa.Table:
    return block_rows.from_rows([_row(item) for item in items])


def _row(item: Any) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        return {name: _plain(value) for name, value in item.items()}
    if isinstance(item, tuple):
        return {f"item_{place}": _plain(value) for place, value in enumerate(item)}
    return {"item": _plain(item)}


def _plain(value: Any) -> Any:
    """A tensor without dimensions is a number."""
    is_number = hasattr(value, "dtype") and getattr(value, "ndim", None) == 0
    return value.item() if is_number else value
