"""Blocks as references to objects in the store, in the form that somebody wants, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

import umbel
from umbel.data._blocks import batches, sizes
from umbel.data._engine import blocks_out, stages


def of_blocks(blocks: Sequence[stages.Block], batch_format: str, *, column: str | None = None) -> list[Any]:
    """A reference to each block in that form. What is in the store is converted there, by tasks."""
    if not umbel.is_initialized():
        umbel.init()
    convert = umbel.remote(_converted)
    return [
        umbel.put(_converted(one.value, batch_format, column))
        if isinstance(one.value, pa.Table)
        else convert.remote(one.value, batch_format, column)
        for one in blocks
    ]


def _converted(value: Any, batch_format: str, column: str | None) -> Any:
    found: Any = batches.to_batch(blocks_out.unpack(value), batch_format)  # type: ignore[arg-type]
    return found if column is None else found[column]


def to_blocks(refs: Any, *, column: str | None = None) -> list[stages.Block]:
    """Of references to tables or frames, or with a column to arrays. Nothing comes to this process but what is known of them."""
    several = [*refs] if isinstance(refs, list | tuple) else [refs]
    for one in several:
        if not isinstance(one, umbel.ObjectRef):
            raise TypeError(
                f"references are needed, as umbel.put() and remote functions give them, got {type(one).__name__}"
            )
    taken = umbel.remote(_taken).options(num_returns=2)
    pairs = [taken.remote(one, column) for one in several]
    told = umbel.get([known for _, known in pairs])
    return [stages.Block(ref, stages.Metadata(*known)) for (ref, _), known in zip(pairs, told, strict=True)]


def _taken(value: Any, column: str | None) -> tuple[pa.Table, tuple[int, int, pa.Schema]]:
    table = batches.from_batch(value if column is None else {column: value}, operator="the reference")
    return blocks_out.compact(table), (table.num_rows, sizes.size_bytes(table), table.schema)
