"""From what transforms give to blocks of a good size, and to bytes that are no larger than the block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from umbel.data._blocks import schemas

# A task's first block is this large, each further one twice as large: whoever waits has something soon.
FIRST_BYTES = 1 << 20
INLINE_BYTES = 64 << 10  # blocks up to here travel within the message that tells of them
EXCESS_BYTES = 1 << 16  # a table may share buffers that are so much larger than itself, or a tenth
EXCESS_PART = 10
OVERSIZE = 1.5  # a table that is larger than a block by less is not divided


def blocks(tables: Iterable[pa.Table], block_bytes: int) -> Iterator[pa.Table]:
    """The same rows, in tables of about so many bytes; of 0 in the tables that they come in. How they are divided depends on the
    tables alone.

    Tables whose schemas differ are not put together. If there are no rows, one table without any, for its schema.
    """
    target = min(FIRST_BYTES, block_bytes)
    waiting: list[pa.Table] = []
    size_bytes = 0
    empty: pa.Table | None = None
    has_rows = False
    for table in tables:
        if not table.num_rows:
            empty = table if empty is None else empty
            continue
        has_rows = True
        if not block_bytes:
            yield table
            continue
        if waiting and not table.schema.equals(waiting[0].schema, check_metadata=True):
            yield _joined(waiting)
            waiting, size_bytes = [], 0
        for part in _parts(table, block_bytes):
            waiting.append(part)
            size_bytes += part.nbytes
            if size_bytes >= target:
                yield _joined(waiting)
                waiting, size_bytes = [], 0
                target = min(2 * target, block_bytes)
    if waiting:
        yield _joined(waiting)
    elif empty is not None and not has_rows:
        yield empty


def merged(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows; small tables with one schema, which follow one another, as one: a transform costs some tens of
    microseconds for each table that it gets."""
    waiting: list[pa.Table] = []
    size_bytes = 0
    for table in tables:
        is_large = table.nbytes > INLINE_BYTES
        is_full = is_large or size_bytes >= FIRST_BYTES
        if waiting and (is_full or not table.schema.equals(waiting[0].schema, check_metadata=True)):
            yield _joined(waiting)
            waiting, size_bytes = [], 0
        if is_large:
            yield table
            continue
        waiting.append(table)
        size_bytes += table.nbytes
    if waiting:
        yield _joined(waiting)


def _joined(tables: list[pa.Table]) -> pa.Table:
    """They have one schema."""
    if len(tables) > 1 and not tables[0].num_columns:  # Arrow would forget how many rows there are
        return schemas.concat(tables)
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables)


def _parts(table: pa.Table, block_bytes: int) -> Iterator[pa.Table]:
    size_bytes = table.nbytes
    if size_bytes <= OVERSIZE * block_bytes or table.num_rows < 2:
        yield table
        return
    row_count = max(1, table.num_rows * block_bytes // size_bytes)
    for at in range(0, table.num_rows, row_count):
        yield table.slice(at, row_count)


def compact(table: pa.Table) -> pa.Table:
    """The same, without buffers much larger than it: pickling writes these whole."""
    size_bytes = table.nbytes
    shared = table.get_total_buffer_size()
    if shared - size_bytes <= max(EXCESS_BYTES, size_bytes // EXCESS_PART):
        return table
    return from_bytes(to_bytes(table))


def to_bytes(table: pa.Table) -> pa.Buffer:
    """As a stream of Arrow IPC."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def from_bytes(data: bytes | pa.Buffer) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()


def pack(table: pa.Table) -> Any:
    """What is sent as an argument or kept: bytes of a small one, else the table. `unpack` reads both."""
    if table.nbytes <= INLINE_BYTES:
        return to_bytes(table).to_pybytes()
    return compact(table)


def unpack(value: Any) -> pa.Table:
    """Of what `pack` made, or of an item of a task (`work`)."""
    if isinstance(value, tuple):
        value = value[-1]
    return from_bytes(value) if isinstance(value, (bytes, pa.Buffer)) else value
