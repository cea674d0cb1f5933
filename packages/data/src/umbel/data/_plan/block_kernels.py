"""Kernels that hand blocks on, cut, renamed or written, and look at no value: what most workers need, and little else to load."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from umbel.data._blocks import batches, columns, schemas
from umbel.data._engine import task_context
from umbel.data._sinks import base


@dataclass(frozen=True, eq=False)
class Renamed:
    names: Mapping[str, str]

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for block in columns.Required(self.names, what="the column to rename").of(blocks):
            yield block.rename_columns(schemas.renamed(block.schema, self.names).names)


@dataclass(frozen=True, eq=False)
class Conformed:
    """With the columns and types that the blocks of others have too."""

    schema: pa.Schema

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for block in blocks:
            yield schemas.conform(block, self.schema, origin="a block")


@dataclass(frozen=True, eq=False)
class Head:
    """The first rows of a task, and no more is drawn."""

    row_count: int

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        left = self.row_count
        while left > 0 and (block := next(blocks, None)) is not None:
            yield block.slice(0, left)
            left -= block.num_rows


@dataclass(frozen=True, eq=False)
class Rebatched:
    """Blocks of so many rows, and what is left over in each task; of no rows one block, for its columns."""

    row_count: int

    def __call__(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        first = next(blocks, None)
        if first is None:
            return
        has_rows = False
        for table in batches.iter_batches(itertools.chain([first], blocks), self.row_count, "pyarrow"):
            has_rows = True
            yield table
        if not has_rows:
            yield first


@dataclass(frozen=True, eq=False)
class Written:
    sink: base.Datasink[Any]

    def __call__(self, blocks: Iterator[pa.Table]) -> base.WriteResult[Any]:
        first = next(blocks, None)
        index = task_context.current().block_number
        whole = itertools.chain([first] if first is not None else [], blocks)
        return base.write_task(self.sink, whole, base.WriteContext(index))
