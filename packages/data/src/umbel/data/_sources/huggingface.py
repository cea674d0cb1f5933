"""Hugging Face's iterable datasets: a task for each of their shards, which give tables of Arrow."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from umbel.data import block
from umbel.data._sources import base

_ROWS_AT_ONCE: Final = 1000  # what `datasets` itself takes for a batch


class HuggingFaceDatasource(base.Datasource):
    """dataset: a `datasets.IterableDataset`. It travels to the tasks."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def get_name(self) -> str:
        return "HuggingFace"

    def schema(self) -> pa.Schema | None:
        features = self._dataset.features
        return None if features is None else features.arrow_schema.remove_metadata()

    def with_limit(self, count: int) -> base.Datasource:
        return HuggingFaceDatasource(self._dataset.take(count))

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[base.ReadTask]:
        count = int(self._dataset.num_shards)
        shards = [self._dataset.shard(count, index) for index in range(count)] if count > 1 else [self._dataset]
        schema = self.schema()
        return [
            base.ReadTask(functools.partial(_read, shard, schema), block.BlockMetadata(), schema, per_task_row_limit)
            for shard in shards
        ]


def _read(dataset: Any, schema: pa.Schema | None) -> Iterator[pa.Table]:
    empty = [] if schema is None else [pa.Table.from_batches([], schema)]
    tables = dataset.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE)
    return itertools.chain(empty, (table.replace_schema_metadata(None) for table in tables))
