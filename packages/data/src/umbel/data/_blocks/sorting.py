"""Tables in the order of their keys; see `ordering` for what comes first. Every sort is stable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns, hashing, ordering, schemas

_PART_BYTES: Final = 16 << 20  # gathered at once: large enough to cost little, and little beside what is sorted


def sort(table: pa.Table, keys: Sequence[str], *, descending: bool | Sequence[bool] = False) -> pa.Table:
    """Nulls come last and NaN just before them, whatever the direction; equal keys keep their order."""
    order = ordering.argsort(ordering.codes(table, keys, descending), table.num_rows)
    return columns.taken(table, order)


def sorted_parts(
    table: pa.Table, keys: Sequence[str], *, descending: bool | Sequence[bool] = False
) -> Iterator[pa.Table]:
    """As `sort`, in tables of some MiB, of which one at a time need be in memory; one table at least."""
    yield from columns.taken_parts(
        table, ordering.argsort(ordering.codes(table, keys, descending), table.num_rows), _PART_BYTES
    )


def merge(tables: Sequence[pa.Table], keys: Sequence[str], *, descending: bool | Sequence[bool] = False) -> pa.Table:
    """The rows of tables that are sorted already, sorted; of equal keys those of an earlier table first."""
    return sort(schemas.concat(tables), keys, descending=descending)


def top_k(table: pa.Table, count: int, keys: Sequence[str], *, descending: bool | Sequence[bool] = False) -> pa.Table:
    """The first rows of `sort`, without sorting the others."""
    codes = ordering.codes(table, keys, descending)
    if not codes or count >= table.num_rows:
        return columns.taken(table, ordering.argsort(codes, table.num_rows)[:count])
    if count < 1:
        return table.slice(0, 0)
    bound = np.partition(codes[0], count - 1)[count - 1]
    rows = np.flatnonzero(codes[0] <= bound)
    order = ordering.argsort([code[rows] for code in codes], len(rows))[:count]
    return columns.taken(table, rows[order])


def sample(table: pa.Table, count: int, *, seed: int | Sequence[int]) -> pa.Table:
    """So many rows by chance, one of each of so many equal parts, in their order; all if there are no more. The same for the
    same seed and number of rows."""
    if count >= table.num_rows:
        return table
    drawn = hashing.draw(max(count, 0), seed_parts=(seed,) if isinstance(seed, int) else seed)
    starts = np.arange(len(drawn) + 1) * table.num_rows // max(count, 1)
    return columns.taken(table, starts[:-1] + (drawn % np.diff(starts).astype(np.uint64)).astype(np.int64))


class Boundaries(NamedTuple):
    """Where partitions begin, the first one excepted: with the rows of these keys, of blocks from these numbers on."""

    keys: pa.Table
    blocks: np.ndarray  # [boundaries] int64


def boundaries(
    samples: Sequence[pa.Table], keys: Sequence[str], count: int, *, descending: bool | Sequence[bool] = False
) -> Boundaries:
    """For `count` partitions of about equal size: at most count - 1, none twice.

    samples: of each block, in order, a table that holds the keys of some rows, more of a larger one. By the numbers of blocks
    rows of one key are divided too, so that no partition is large because a key is frequent.
    """
    whole = schemas.concat([table.select(keys) for table in samples])
    blocks = np.repeat(np.arange(len(samples)), [table.num_rows for table in samples])
    if count < 2 or not whole.num_rows:
        return Boundaries(whole.slice(0, 0), blocks[:0])
    codes = [*ordering.codes(whole, keys, descending), blocks.astype(np.uint64)]
    order = ordering.argsort(codes, whole.num_rows)
    places = np.unique(np.arange(1, count) * whole.num_rows // count)
    chosen = order[places[places > 0]]
    chosen = chosen[ordering.starts(codes, chosen)]
    return Boundaries(columns.taken(whole, chosen), blocks[chosen])
