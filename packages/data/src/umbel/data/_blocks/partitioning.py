"""One table divided into several, by key, by range or by chance.

The rows of each partition keep their order, but those of ranges, which are sorted. Large partitions are gathered as they are
asked for, so that one at a time is in memory; small ones are slices of one table, for gathering has its costs too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns, hashing, ordering, schemas, sorting

_ORIGINS: Final = ("the boundaries", "the rows")
# Of a partition: gathering some columns of it costs a few times what calling Arrow does.
_SLICED_BYTES: Final = 64 << 10


def by_hash(table: pa.Table, keys: Sequence[str], count: int) -> Iterable[pa.Table]:
    """Rows of equal keys come into one partition, the same for every table, process and machine."""
    return divided(table, hashing.buckets(hashing.hash_rows(table, keys), count), count)


def by_row(table: pa.Table, count: int) -> Iterable[pa.Table]:
    """As `by_hash`, of rows that are equal in all columns; one that a table lacks is null in it."""
    arrays = [columns.flat(column) for column in table.columns]
    hashes = hashing.hash_fields(table.column_names, arrays, table.num_rows)
    return divided(table, hashing.buckets(hashes, count), count)


def by_range(
    table: pa.Table,
    keys: Sequence[str],
    boundaries: sorting.Boundaries,
    *,
    descending: bool | Sequence[bool] = False,
    blocks: Sequence[tuple[int, int]] = (),
) -> Iterable[pa.Table]:
    """One partition more than there are boundaries; a row whose key and block are equal to one belongs behind it.

    blocks: of which the table consists, in order, as numbers and how many rows each has; without, boundaries divide no key.
    Each partition is sorted: to know the range of a row is about as much work, and whoever puts sorted tables together has
    little left.
    """
    names = list(keys)
    columns.require(table.schema, names, what="the key")
    bounds = boundaries.keys.select(names)
    count = bounds.num_rows
    # Bounds have the type that all blocks together have.
    codes = ordering.codes(schemas.concat([bounds, table.select(names)], origins=_ORIGINS), names, descending)
    mixed = _with_boundaries(boundaries.blocks, blocks, table.num_rows)
    # Stable: a boundary comes behind what is equal to it and of a block before its own, and in front of all else that is.
    if mixed is None:
        order = ordering.argsort(codes, count + table.num_rows)
    else:
        order = mixed[ordering.argsort([code[mixed] for code in codes], len(mixed))]
    ends = np.append(np.flatnonzero(order < count) - np.arange(count), table.num_rows)
    return _gathered(table, order[order >= count] - count, ends.tolist())


def _with_boundaries(
    boundary_blocks: np.ndarray, blocks: Sequence[tuple[int, int]], row_count: int
) -> np.ndarray | None:
    """The boundaries, numbered from 0 on, each in front of the first row of its block or a later one; the rows are numbered
    behind them. None if all boundaries come first."""
    count = len(boundary_blocks)
    numbers, sizes = np.array([*blocks] or [(0, 0)], np.int64).T
    starts = np.append(0, np.cumsum(sizes))
    places = starts[np.searchsorted(numbers, boundary_blocks)] if blocks else np.zeros(count, np.int64)
    if not places.any():
        return None
    return np.insert(np.arange(count, count + row_count), places, np.arange(count))


def at_random(table: pa.Table, count: int, *, seed: int, blocks: Sequence[tuple[int, int]]) -> Iterable[pa.Table]:
    """Each row into any partition with equal chance. blocks: of which the table consists, in order, as numbers and how many rows
    each has. What is drawn depends on the seed, the number of a block and a row's place in it, and not on which blocks came
    together."""
    drawn = [hashing.draw(row_count, seed_parts=(seed, number)) for number, row_count in blocks]
    return divided(table, hashing.buckets(np.concatenate(drawn), count), count)


def whole_blocks_at_random(
    table: pa.Table, count: int, *, seed: int, blocks: Sequence[tuple[int, int]]
) -> Iterable[pa.Table]:
    """As `at_random`, but all rows of a block go into one partition."""
    drawn = np.concatenate([hashing.draw(1, seed_parts=(seed, number)) for number, _ in blocks])
    return divided(table, np.repeat(hashing.buckets(drawn, count), [row_count for _, row_count in blocks]), count)


def divided(table: pa.Table, partitions: np.ndarray, count: int) -> Iterable[pa.Table]:
    """partitions: [rows], the partition of each row, in [0, count)."""
    if count == 1:
        return [table]
    ends = np.cumsum(np.bincount(partitions, minlength=count)).tolist()
    return _gathered(table, ordering.grouped(partitions, count), ends)


def _gathered(table: pa.Table, order: np.ndarray, ends: list[int]) -> Iterable[pa.Table]:
    """The rows in this order, in tables that end there."""
    places = list(zip([0, *ends[:-1]], ends, strict=True))
    if table.nbytes <= _SLICED_BYTES * len(ends):
        whole = columns.taken(table, order)
        return [whole.slice(start, end - start) for start, end in places]
    table = columns.contiguous(table)
    return (columns.taken(table, order[start:end]) for start, end in places)
