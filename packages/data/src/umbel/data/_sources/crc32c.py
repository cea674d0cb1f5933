"""CRC-32C of many byte strings at once, which TFRecord files carry behind each record.

The register is linear in what goes in: leading zeros change nothing, and the register of two strings one after the other is that
of the first, moved on by as many zeros as the second is long, with that of the second added. So all strings are cut into
strips, whose registers NumPy computes side by side, and neighbours are joined until one is left of each string.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np

_POLYNOMIAL: Final = 0x82F63B78  # Castagnoli's, with its bits reversed
_STRIP_BYTES: Final = 64  # as many steps are taken on all strips together
_MASK_DELTA: Final = 0xA282EAD8
_AT_ONCE_BYTES: Final = 32 << 20  # of memory besides the strings


def crc32c(strings: Sequence[bytes]) -> np.ndarray:
    """[string] uint32."""
    found: list[np.ndarray] = []
    start = size_bytes = 0
    for index, string in enumerate(strings):
        if size_bytes and size_bytes + len(string) > _AT_ONCE_BYTES:
            found.append(_together(strings[start:index]))
            start, size_bytes = index, 0
        size_bytes += len(string) + _STRIP_BYTES
    found.append(_together(strings[start:]))
    joined: np.ndarray = np.concatenate(found)
    return joined


def masked(crcs: np.ndarray) -> np.ndarray:
    """As TFRecord files have them: so that a CRC of what has CRCs in it is of use."""
    rotated: np.ndarray = ((crcs >> 15) | (crcs << 17)) + np.uint32(_MASK_DELTA)
    return rotated


def _together(strings: Sequence[bytes]) -> np.ndarray:
    lengths = np.array([len(string) for string in strings], np.int64)
    counts = np.maximum(-(-lengths // _STRIP_BYTES), 1)
    padded = b"".join(
        string.rjust(count * _STRIP_BYTES, b"\0") for string, count in zip(strings, counts.tolist(), strict=True)
    )
    strips = np.frombuffer(padded, np.uint8).reshape(-1, _STRIP_BYTES).T.astype(np.uint32)
    table = _byte_table()
    registers: np.ndarray = np.zeros(strips.shape[1], np.uint32)
    for column in strips:
        registers = table[(registers ^ column) & 0xFF] ^ (registers >> 8)
    level = _STRIP_BYTES.bit_length() - 1
    while counts.size and counts.max() > 1:
        registers, counts = _pairs_joined(registers, counts, level)
        level += 1
    found: np.ndarray = (
        registers ^ _moved(np.full(len(strings), 0xFFFFFFFF, np.uint32), lengths) ^ np.uint32(0xFFFFFFFF)
    )
    return found


def _pairs_joined(registers: np.ndarray, counts: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each string the neighbours, each of 2**level bytes; an odd number gets a zero in front."""
    halves: np.ndarray = -(-counts // 2)
    ends = np.cumsum(2 * halves)
    paired: np.ndarray = np.zeros(int(ends[-1]) if ends.size else 0, np.uint32)
    within = np.arange(registers.size) - np.repeat(np.cumsum(counts) - counts, counts)
    paired[within + np.repeat(ends - counts, counts)] = registers
    return _by_zeros(level, paired[0::2]) ^ paired[1::2], halves


def _moved(registers: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Each register moved on by its length of zeros."""
    level = 0
    while lengths.any():
        registers = np.where(lengths & 1, _by_zeros(level, registers), registers)
        lengths, level = lengths >> 1, level + 1
    return registers


def _by_zeros(level: int, registers: np.ndarray) -> np.ndarray:
    """Moved on by 2**level zeros."""
    low, second, third, high = _zeros_tables(level)
    moved: np.ndarray = (
        low[registers & 0xFF]
        ^ second[(registers >> 8) & 0xFF]
        ^ third[(registers >> 16) & 0xFF]
        ^ high[registers >> 24]
    )
    return moved


@functools.lru_cache(maxsize=1)
def _byte_table() -> np.ndarray:
    values: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = (values >> 1) ^ np.where(values & 1, np.uint32(_POLYNOMIAL), np.uint32(0))
    return values


@functools.lru_cache(maxsize=64)  # strings of 2**64 bytes there are none
def _zeros_tables(level: int) -> list[np.ndarray]:
    """What becomes of each byte of a register."""
    bytes_at = [np.arange(256, dtype=np.uint32) << np.uint32(shift) for shift in (0, 8, 16, 24)]
    if level > 0:
        return [_by_zeros(level - 1, _by_zeros(level - 1, values)) for values in bytes_at]
    return [_byte_table()[bytes_at[0]], *(values >> 8 for values in bytes_at[1:])]
