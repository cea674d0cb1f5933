"""Tables of any size made into blocks of about one size: nothing waits longer than it takes to fill a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import pyarrow as pa

from umbel.data._blocks import schemas, sizes

_CHUNKS_MAX: Final = 64  # in a block: each costs every kernel behind it microseconds, joining them costs one copy


def as_table(given: Any) -> pa.Table:
    """What a reader of somebody's own gave: a table, or a frame of pandas."""
    if isinstance(given, pa.Table):
        return given
    if not hasattr(given, "iloc"):
        raise TypeError(f"a reader gave {type(given).__name__}; it must give pyarrow.Table")
    from umbel.data._blocks import batches

    return batches.from_batch(given, operator="a reader")


def blocks(tables: Iterable[pa.Table], *, target_bytes: int) -> Iterator[pa.Table]:
    """The same rows in the same order. Where there are no rows at all, one empty table, if there is any: it has the schema."""
    pending: list[pa.Table] = []
    pending_bytes = 0
    empty: pa.Table | None = None
    has_given = False
    for table in tables:
        if table.num_rows == 0:
            empty = table if empty is None else empty
            continue
        if table.num_columns == 0:  # pyarrow forgets how many rows such tables have when it joins them
            yield table
            has_given = True
            continue
        size_bytes = sizes.size_bytes(table)
        if pending and pending_bytes + size_bytes > target_bytes:
            yield _joined(pending)
            has_given, pending, pending_bytes = True, [], 0
        if size_bytes > target_bytes:
            yield from sizes.split(table, target_bytes)
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


def _joined(tables: list[pa.Table]) -> pa.Table:
    joined = schemas.concat(tables)
    return sizes.compact(joined) if len(tables) > _CHUNKS_MAX else joined
