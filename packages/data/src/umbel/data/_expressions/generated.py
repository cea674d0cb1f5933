"""Values that depend on where a row is: its number, and random numbers and identifiers.

Each is a function of (seed, epoch, number of the block, number of the row in it): how a block is cut into tables does
not matter, nor which worker computes it, nor how often.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

ROW_BITS: Final = 33  # of a row's id; the bits above are the block's number. As Ray's: 8 billion rows in a block
BLOCKS_MAX: Final = 2**30
_PER_COUNT: Final = 4  # numbers of 64 bits that Philox makes of one value of its counter
_UUID_CHARS: Final = 36
_UUIDS_AT_ONCE: Final = 1 << 20  # of one chunk of the result, whose characters an int32 has to count
_DASHES: Final = (8, 13, 18, 23)  # where they stand


def row_ids(block: int, first: int, count: int) -> pa.Array:
    if not 0 <= block < BLOCKS_MAX or first + count > 2**ROW_BITS:
        raise ValueError(
            f"a row's id has room for {BLOCKS_MAX} blocks of {2**ROW_BITS} rows, "
            f"got block {block}, rows {first} to {first + count}"
        )
    return pa.array(np.arange(first, first + count, dtype=np.int64) + (block << ROW_BITS))


def uniform(key: tuple[int, ...], first: int, count: int) -> pa.Array:
    """Of [0, 1), each of 53 random bits."""
    return pa.array((_words(key, first, count) >> np.uint64(11)) * 2.0**-53)


def uuids(key: tuple[int, ...], first: int, count: int) -> pa.ChunkedArray:
    """Random ones (version 4), as text."""
    return pa.chunked_array(list(_uuid_chunks(key, first, count)), pa.string())


def _uuid_chunks(key: tuple[int, ...], first: int, count: int) -> Iterator[pa.Array]:
    for start in range(0, count, _UUIDS_AT_ONCE):
        size = min(_UUIDS_AT_ONCE, count - start)
        raw = _words(key, 2 * (first + start), 2 * size).view(np.uint8).reshape(size, 16).copy()
        raw[:, 6] = raw[:, 6] & 0x0F | 0x40  # the version
        raw[:, 8] = raw[:, 8] & 0x3F | 0x80  # the variant
        digits = np.frombuffer(raw.tobytes().hex().encode(), np.uint8).reshape(size, 32)
        text: Any = np.full((size, _UUID_CHARS), ord("-"), np.uint8)
        text[:, [place for place in range(_UUID_CHARS) if place not in _DASHES]] = digits
        offsets: Any = np.arange(0, _UUID_CHARS * (size + 1), _UUID_CHARS, dtype=np.int32)
        yield pa.StringArray.from_buffers(size, pa.py_buffer(offsets), pa.py_buffer(text.tobytes()))


def _words(key: tuple[int, ...], first: int, count: int) -> Any:
    """Random numbers of 64 bits, from number `first` of the key's sequence on."""
    bits = np.random.Philox(np.random.SeedSequence(key))
    bits.advance(first // _PER_COUNT)
    skipped = first % _PER_COUNT
    return bits.random_raw(skipped + count)[skipped:]
