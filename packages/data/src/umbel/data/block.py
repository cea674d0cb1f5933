"""What is known of a block without looking at it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BlockMetadata:
    """num_rows: exact, None where it is not known. size_bytes: in memory, an estimate before the block is made.
    input_files: where its rows come from, as far as that is known."""

    num_rows: int | None = None
    size_bytes: int | None = None
    input_files: tuple[str, ...] = ()


__all__ = ["BlockMetadata"]
