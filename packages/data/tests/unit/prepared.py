"""Datasets for the tests of preprocessors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import kernel_tables
import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from umbel import data
from umbel.data import block

COUNTS = ["int8", "float64", "float32", "bool", "decimal"]  # whose numbers float64 holds


class CountingDatasource(data.Datasource):
    """A table, in two parts, whose reads are counted, and the columns that were asked for."""

    def __init__(self, table: pa.Table, log: list[list[str]] | None = None) -> None:
        self.table = table
        self.log: list[list[str]] = [] if log is None else log

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[data.ReadTask]:
        half = self.table.num_rows // 2

        def read(part: pa.Table) -> Iterator[pa.Table]:
            self.log.append(self.table.column_names)
            yield part

        parts = [self.table.slice(0, half), self.table.slice(half)]
        return [
            data.ReadTask(
                lambda part=part: read(part),
                block.BlockMetadata(num_rows=part.num_rows, size_bytes=part.nbytes),
                self.table.schema,
            )
            for part in parts
        ]

    def schema(self) -> pa.Schema:
        return self.table.schema

    def with_columns(self, names: Any) -> CountingDatasource:
        return CountingDatasource(self.table.select([*names]), self.log)


def counted(**columns: Any) -> tuple[data.Dataset, list[list[str]]]:
    """A dataset, and what is noted of each read of one of its two parts."""
    source = CountingDatasource(pa.table(columns))
    return data.read_datasource(source), source.log


def dataset(**columns: Any) -> data.Dataset:
    """Of one block."""
    return data.from_arrow(pa.table(columns))


def in_blocks(table: pa.Table, cuts: list[int]) -> data.Dataset:
    """The rows in blocks that end at these."""
    bounds = [0, *sorted(min(cut, table.num_rows) for cut in cuts), table.num_rows]
    return data.from_blocks([table.slice(a, b - a) for a, b in itertools.pairwise(bounds)])


@st.composite
def numbers(draw: st.DrawFn) -> tuple[data.Dataset, np.ndarray]:
    """A dataset with the column "x" of finite numbers in blocks, and its values, NaN for those that are missing."""
    row_count = draw(st.integers(0, 12))
    column = draw(kernel_tables.columns(draw(st.sampled_from(COUNTS)), row_count))
    kept = [
        value if value is None or np.isfinite(float(value)) or np.isnan(float(value)) else 2.5
        for value in column.to_pylist()
    ]
    table = pa.table({"x": pa.chunked_array([pa.array(kept, column.type)])})
    values = np.array([np.nan if value is None else float(value) for value in kept], np.float64)
    return in_blocks(table, draw(st.lists(st.integers(0, 12), max_size=2))), values


def column(ds: data.Dataset, name: str) -> list[Any]:
    found: list[Any] = ds.to_arrow().column(name).to_pylist()
    return found


def floats(ds: data.Dataset, name: str) -> np.ndarray:
    """NaN for null."""
    values = ds.to_arrow().column(name)
    assert values.type == pa.float64()
    return np.array([np.nan if value is None else value for value in values.to_pylist()], np.float64)


def error_of(call: Any) -> str:
    """What the error says, and those that caused it, each on a line."""
    try:
        call()
    except Exception as error:
        lines = []
        cause: BaseException | None = error
        while cause is not None:
            lines.append(f"{type(cause).__name__}: {cause}")
            cause = cause.__cause__
        return "\n".join(lines)
    raise AssertionError("it raised nothing")
