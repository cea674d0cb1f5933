"""Tables of any size made into blocks of about one size: nothing waits longer than it takes to fill a block."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa

from umbel.data._sources import seams

_CHUNKS_MAX: Final = (
    64  # in a block: each costs every kernel behind it some microseconds, putting them together one copy
)


def blocks(tables: Iterable[pa.Table], *, target_bytes: int) -> Iterator[pa.Table]:
    """The same rows in the same order. Where there are no rows at all, one empty table, if there is any: it has the schema."""
    pending: list[pa.Table] = []
    pending_bytes = 0
    empty: pa.Table | None = None
    has_given = False
    for table in tables:
        if not isinstance(table, pa.Table):
            raise TypeError(f"a reader gave {type(table).__name__}; it must give pyarrow.Table")
        if table.num_rows == 0:
            empty = table if empty is None else empty
            continue
        if table.num_columns == 0:  # pyarrow forgets how many rows such tables have when it joins them
            yield table
            has_given = True
            continue
        size_bytes = table.nbytes
        if pending and pending_bytes + size_bytes > target_bytes:
            yield _joined(pending)
            has_given, pending, pending_bytes = True, [], 0
        if size_bytes > target_bytes:
            yield from _cut(table, size_bytes, target_bytes)
            has_given = True
        else:
            pending.append(table)
            pending_bytes += size_bytes
    if pending:
        yield _joined(pending)
    elif not has_given and empty is not None:
        yield empty


def first_rows(tables: Iterable[pa.Table], count: int) -> Iterator[pa.Table]:
    """Draws no table more than it must."""
    if count <= 0:
        for table in tables:
            yield table.slice(0, 0)
            return
    for table in tables:
        yield table.slice(0, count)
        count -= table.num_rows
        if count <= 0:
            return


def _cut(table: pa.Table, size_bytes: int, target_bytes: int) -> Iterator[pa.Table]:
    parts = min(-(-size_bytes // target_bytes), table.num_rows)
    bounds = [table.num_rows * part // parts for part in range(parts + 1)]
    for start, stop in itertools.pairwise(bounds):
        yield table.slice(start, stop - start)


def _joined(tables: list[pa.Table]) -> pa.Table:
    if len(tables) == 1:
        return tables[0]
    schema = tables[0].schema
    for table in tables[1:]:
        schema = seams.unify(schema, table.schema, first_name="one block", second_name="the next")
    joined = pa.concat_tables([seams.conform(table, schema) for table in tables])
    return joined.combine_chunks() if len(tables) > _CHUNKS_MAX else joined
