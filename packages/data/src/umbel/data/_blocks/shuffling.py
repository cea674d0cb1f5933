"""Rows in a random order that a seed decides, whoever computes it.

Every permutation is drawn by a generator of its own, from numbers that say what it is for: the seed, the epoch, the number of
the block. So an order depends neither on which worker drew it nor on what was drawn before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import schemas, sizes

_GATHER_BYTES: Final = 8 << 20  # gathered at once: many batches, and little beside the buffer itself
_BUFFER: Final = 0x6275_6666  # keeps the draws of buffers apart from those of whole blocks under the same seed


def generator(seed_parts: Sequence[int]) -> np.random.Generator:
    """The same numbers for the same parts, each an integer from 0 on, on every machine."""
    for part in seed_parts:
        if part < 0:
            raise ValueError(f"a seed must be an integer >= 0, got {part}")
    # With how many they are, as NumPy takes (7,) and (7, 0) for the same.
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([len(seed_parts), *seed_parts])))


def permute(table: pa.Table, seed_parts: Sequence[int]) -> pa.Table:
    """All rows of the table in an order that the parts, such as (seed, epoch, number of the block), decide."""
    if table.num_rows < 2:
        return table
    return _taken(_contiguous(table), generator(seed_parts).permutation(table.num_rows))


def permuted_parts(table: pa.Table, seed_parts: Sequence[int]) -> Iterator[pa.Table]:
    """As `permute`, in tables of some MiB, of which one at a time need be in memory; one table at least."""
    if table.num_rows < 2:
        yield table
    else:
        yield from _gathered(_contiguous(table), generator(seed_parts).permutation(table.num_rows))


class LocalShuffle:
    """Shuffles a stream through a buffer: each row that comes out was drawn from at least `buffer_rows_min` of them, but at the
    end of the stream.

    Once the buffer has twice as many rows, it is permuted as a whole, and all but `buffer_rows_min` of them come out, in
    tables of many batches each. So a row is gathered twice at most on average, and the buffer holds twice the rows that were
    asked for, and a table.
    """

    def __init__(self, buffer_rows_min: int, seed: Sequence[int] | int | None = None) -> None:
        """seed: the parts of one, such as (seed, epoch); None for another order each time."""
        if buffer_rows_min < 1:
            raise ValueError(f"the buffer of a local shuffle must have at least 1 row, got {buffer_rows_min}")
        self._rows_min = buffer_rows_min
        parts = [seed] if isinstance(seed, int) else seed
        self._generator = generator([*parts, _BUFFER]) if parts is not None else np.random.default_rng()

    def __call__(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The tables' rows, in the order of this shuffle's seed and of how the stream is cut into tables."""
        buffered: list[pa.Table] = []
        row_count = 0
        for table in tables:
            if not table.num_rows:
                continue
            buffered.append(table)
            row_count += table.num_rows
            if row_count >= 2 * self._rows_min:
                whole = _contiguous(schemas.concat(buffered))
                order = self._generator.permutation(row_count)
                yield from _gathered(whole, order[self._rows_min :])
                buffered = [_taken(whole, order[: self._rows_min])]
                row_count = self._rows_min
        if row_count:
            yield from _gathered(_contiguous(schemas.concat(buffered)), self._generator.permutation(row_count))


def _gathered(table: pa.Table, order: np.ndarray[Any, Any]) -> Iterator[pa.Table]:
    row_bytes = max(1, sizes.size_bytes(table) // table.num_rows)
    step = max(1, _GATHER_BYTES // row_bytes)
    for start in range(0, len(order), step):
        yield _taken(table, order[start : start + step])


def _taken(table: pa.Table, rows: np.ndarray[Any, Any]) -> pa.Table:
    return table.take(pa.array(rows)) if table.num_columns else schemas.without_columns(len(rows))


def _contiguous(table: pa.Table) -> pa.Table:
    """With one array in each column: gathering from one is several times as fast as from many."""
    if not table.num_columns:  # Arrow would forget how many rows there are
        return table
    columns = [sizes.contiguous(column) for column in table.columns]
    fields = [field.with_type(column.type) for field, column in zip(table.schema, columns, strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, table.schema.metadata))
