"""One table divided into several, by key, by range, by chance or in turn.

The rows of each partition keep their order. All of them together are gathered once, and each partition is a slice of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns, hashing, ordering, schemas


def by_hash(table: pa.Table, keys: Sequence[str], count: int) -> list[pa.Table]:
    """Rows of equal keys come into one partition, the same for every table, process and machine."""
    return divided(table, hashing.buckets(hashing.hash_rows(table, keys), count), count)


def by_range(
    table: pa.Table, keys: Sequence[str], boundaries: pa.Table, *, descending: bool | Sequence[bool] = False
) -> list[pa.Table]:
    """One partition more than there are boundaries, which are rows of keys in order; a row equal to one belongs behind it."""
    names = list(keys)
    columns.require(table.schema, names, what="the key")
    bounds = boundaries.select(names)
    rows = table.num_rows
    # Bounds have the type that all blocks together have.
    codes = ordering.codes(schemas.concat([table.select(names), bounds]), names, descending)
    code = codes[0] if len(codes) == 1 else ordering.ranks(codes, rows + bounds.num_rows)
    return divided(table, np.searchsorted(code[rows:], code[:rows], side="right"), bounds.num_rows + 1)


def at_random(table: pa.Table, count: int, *, seed_parts: Sequence[int]) -> list[pa.Table]:
    """Each row into any partition with equal chance. seed_parts: what tells this draw from all others, as the seed, the epoch
    and the number of the block; the same parts draw the same."""
    drawn = hashing.draw(table.num_rows, seed_parts=seed_parts)
    return divided(table, hashing.buckets(drawn, count), count)


def round_robin(table: pa.Table, count: int, *, start: int = 0) -> list[pa.Table]:
    """Row by row in turn, the first one into partition `start`."""
    return divided(table, (np.arange(table.num_rows) + start) % count, count)


def divided(table: pa.Table, partitions: np.ndarray, count: int) -> list[pa.Table]:
    """partitions: [rows], the partition of each row, in [0, count)."""
    if count == 1:
        return [table]
    gathered = columns.taken(table, ordering.grouped(partitions, count))
    ends = np.cumsum(np.bincount(partitions, minlength=count)).tolist()
    return [gathered.slice(start, end - start) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
