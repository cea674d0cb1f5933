"""What is measured of datasets, and what Umbel has to reach beside Ray and the others: the table that every program here reads.

Every row is a number of seconds: less is better. Rows of one group run one after another in a process of their own for each side.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

GB = 10**9


@dataclass(frozen=True)
class Row:
    key: str
    title: str
    group: str
    bar: float  # how many times less than Ray's time ours has to be
    at_most: Mapping[str, float] = field(default_factory=dict)  # and how many times that of others
    others: tuple[str, ...] = ()  # libraries that are shown beside, those of `at_most` included
    is_fresh: bool = False  # measured from outside, in processes of its own
    is_long: bool = False  # each side once, and nothing again for a warm figure
    limit_s: float = 300.0  # for all of a side's samples; what takes longer is a failure


ROWS: tuple[Row, ...] = (
    Row("cold_take", "range(1000).map(...).take(), from process start", "start", 10, is_fresh=True),
    Row("groupby", "group-by, 1M rows, one key", "small", 20, {"pandas": 3.0}, ("pandas", "polars", "duckdb")),
    Row("map_batches", "map_batches, 10M rows", "batches", 2),
    Row("iter_32", "iter_batches, 1M rows, 32 at a time", "iteration", 5, others=("torch",)),
    Row("iter_256", "iter_batches, 1M rows, 256 at a time", "iteration", 5, others=("torch",)),
    Row("parquet_filter", "Parquet, 10M rows, filter for 1 %", "parquet", 2, others=("polars", "duckdb")),
    Row("parquet_tiny", "Parquet, 2,000 tiny files", "parquet", 2, others=("polars", "duckdb")),
    Row("join", "inner join, 5M x 2.5M rows", "join", 2, others=("polars", "duckdb")),
    Row("sort", "sort under a memory limit", "sort", 1.5, is_long=True, limit_s=1200.0),
    Row("shuffle", "random_shuffle under a memory limit", "shuffle", 1.5, is_long=True, limit_s=1200.0),
    Row("tpch_q1", "TPC-H Q1", "tpch", 2, others=("duckdb",)),
    Row("tpch_q3", "TPC-H Q3", "tpch", 2, others=("duckdb",)),
    Row("tpch_q5", "TPC-H Q5", "tpch", 2, others=("duckdb",)),
    Row("tpch_q6", "TPC-H Q6", "tpch", 2, others=("duckdb",)),
    Row("tpch_q12", "TPC-H Q12", "tpch", 2, others=("duckdb",)),
    Row("tpch_q14", "TPC-H Q14", "tpch", 2, others=("duckdb",)),
    Row("images", "5,000 JPEGs: decode, resize, normalise", "images", 1.2, {"torch": 1.0}, ("torch",)),
)

ROW_BY_KEY = {row.key: row for row in ROWS}


@dataclass(frozen=True)
class Sizes:
    """How much there is of each."""

    group_rows: int = 1_000_000
    map_rows: int = 10_000_000
    batch_rows: int = 1_000_000
    scan_rows: int = 10_000_000
    tiny_files: int = 2_000
    join_rows: int = 5_000_000  # on the left; half as many on the right
    large_bytes: int = 4 * GB
    scale_factor: float = 1.0  # of TPC-H
    images: int = 5_000

    @property
    def limit_bytes(self) -> int:
        """How much the object store has for `large_bytes`."""
        return max(self.large_bytes // 2, STORE_BYTES_MIN)


STORE_BYTES_MIN = 160 << 20  # Ray starts with no less than 75 MiB, and no run of it ends with that
MEMORY_SHARE = (
    0.2  # of the machine's, for what is sorted: its store, its workers and files in the page cache share the rest
)

TINY = Sizes(
    group_rows=2_000,
    map_rows=20_000,
    batch_rows=2_000,
    scan_rows=20_000,
    tiny_files=20,
    join_rows=2_000,
    large_bytes=4_000_000,
    scale_factor=0.002,
    images=8,
)


def large_bytes() -> int:
    """What this machine sorts and shuffles by default: 4 GB, or a fifth of its memory where that is less."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(4 * GB, int(memory_bytes * MEMORY_SHARE))
