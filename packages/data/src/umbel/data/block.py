"""What a dataset is made of, and what of it a user's function may be given."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union

import pyarrow as pa

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import torch

Block: TypeAlias = pa.Table
"""A part of a dataset's rows. It is never of another kind, whatever form of batches functions take."""

BatchFormat: TypeAlias = Literal["default", "numpy", "pandas", "pyarrow", "polars", "torch"] | None
"""The form in which a function takes its batches. "default" is "numpy"; None is that of the block."""

DataBatchColumn: TypeAlias = Union[
    "np.ndarray[Any, Any]", "torch.Tensor", "pd.Series[Any]", "pl.Series", pa.Array, pa.ChunkedArray, Sequence[Any]
]
"""A column of a batch that is a dictionary, as a function may return it."""

DataBatch: TypeAlias = Union[pa.Table, "pd.DataFrame", "pl.DataFrame", Mapping[str, DataBatchColumn]]
"""Some rows, as a function takes or returns them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockMetadata:
    """What is known of a block without having it.

    num_rows, size_bytes: None where they are not known yet. size_bytes is that of the rows, not of what is shared with others.
    input_files: those that its rows came from, as far as that is kept.
    exec_stats: of the task that made it, by name: seconds as `..._s`, bytes as `..._bytes`; None for one that no task made.
    """

    num_rows: int | None = None
    size_bytes: int | None = None
    input_files: tuple[str, ...] = ()
    exec_stats: Mapping[str, float] | None = None


class BlockAccessor:
    """A block under the names that code for Ray's blocks uses; it is a table, whose own methods do as well."""

    def __init__(self, block: pa.Table) -> None:
        self._block = block

    @staticmethod
    def for_block(block: Any) -> BlockAccessor:
        """Of a table, a frame or a dictionary of arrays."""
        return BlockAccessor(BlockAccessor.batch_to_block(block))

    @staticmethod
    def batch_to_block(batch: Any) -> pa.Table:
        from umbel.data._blocks import batches

        return batches.from_batch(batch, operator="batch_to_block")

    def num_rows(self) -> int:
        return int(self._block.num_rows)

    def size_bytes(self) -> int:
        return int(self._block.nbytes)

    def schema(self) -> pa.Schema:
        return self._block.schema

    def column_names(self) -> list[str]:
        return list(self._block.column_names)

    def to_block(self) -> pa.Table:
        return self._block

    def to_arrow(self) -> pa.Table:
        return self._block

    def to_batch_format(self, batch_format: BatchFormat) -> Any:
        from umbel.data._blocks import batches

        return batches.to_batch(self._block, batch_format)

    def to_default(self) -> Any:
        return self.to_batch_format("default")

    def to_pandas(self) -> pd.DataFrame:
        frame: pd.DataFrame = self.to_batch_format("pandas")
        return frame

    def to_numpy(self, columns: str | Sequence[str] | None = None) -> Any:
        """A dictionary of arrays; of one column that is named by itself, its array."""
        found = self.select(columns).to_batch_format("numpy") if columns is not None else self.to_default()
        return found[columns] if isinstance(columns, str) else found

    def select(self, columns: str | Sequence[str]) -> BlockAccessor:
        return BlockAccessor(self._block.select([columns] if isinstance(columns, str) else list(columns)))

    def slice(self, start: int, end: int) -> pa.Table:
        return self._block.slice(start, end - start)

    def take(self, indices: Sequence[int]) -> pa.Table:
        return self._block.take(indices)

    def iter_rows(self, public_row_format: bool = True) -> Iterator[dict[str, Any]]:
        from umbel.data._blocks import rows

        del public_row_format  # rows are dictionaries
        return rows.iter_rows(self._block)


__all__ = ["BatchFormat", "Block", "BlockAccessor", "BlockMetadata", "DataBatch", "DataBatchColumn"]
