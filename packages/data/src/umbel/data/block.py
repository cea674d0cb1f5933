"""What a dataset is made of, and what of it a user's function may be given."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union

import pyarrow as pa
import pyarrow.compute as pc

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
        """The table of a table, a frame or a dictionary of arrays."""
        from umbel.data._blocks import batches

        return batches.from_batch(batch, operator="batch_to_block")

    def num_rows(self) -> int:
        """How many rows it has."""
        return int(self._block.num_rows)

    def size_bytes(self) -> int:
        """Of the buffers that its rows are in."""
        return int(self._block.nbytes)

    def schema(self) -> pa.Schema:
        """Arrow's."""
        return self._block.schema

    def column_names(self) -> list[str]:
        """In order."""
        return list(self._block.column_names)

    def to_block(self) -> pa.Table:
        """The table."""
        return self._block

    def to_arrow(self) -> pa.Table:
        """The table."""
        return self._block

    def to_batch_format(self, batch_format: BatchFormat) -> Any:
        """As functions see it in that format."""
        from umbel.data._blocks import batches

        return batches.to_batch(self._block, batch_format)

    def to_default(self) -> Any:
        """A dictionary of arrays."""
        return self.to_batch_format("default")

    def to_pandas(self) -> pd.DataFrame:
        """A frame."""
        frame: pd.DataFrame = self.to_batch_format("pandas")
        return frame

    def to_numpy(self, columns: str | Sequence[str] | None = None) -> Any:
        """A dictionary of arrays; of one column that is named by itself, its array."""
        found = self.select(columns).to_batch_format("numpy") if columns is not None else self.to_default()
        return found[columns] if isinstance(columns, str) else found

    def select(self, columns: str | Sequence[str]) -> BlockAccessor:
        """Of these columns only."""
        return BlockAccessor(self._block.select([columns] if isinstance(columns, str) else list(columns)))

    def drop(self, columns: Sequence[str]) -> pa.Table:
        """Without these columns."""
        return self._block.drop_columns(list(columns))

    def rename_columns(self, columns_rename: Mapping[str, str]) -> pa.Table:
        """With other names for some columns."""
        return self._block.rename_columns([columns_rename.get(one, one) for one in self._block.column_names])

    def slice(self, start: int, end: int, copy: bool = False) -> pa.Table:
        """The rows from start up to, not including, end; nothing is copied unless that is asked for."""
        found = self._block.slice(start, end - start)
        return found.take(pa.array(range(found.num_rows))) if copy else found

    def take(self, indices: Sequence[int]) -> pa.Table:
        """The rows with these numbers."""
        return self._block.take(indices)

    def count(self, on: str, ignore_nulls: bool = False) -> int:
        """How many values the column has."""
        return int(self._column(on).count(ignore_nulls=ignore_nulls))

    def sum(self, on: str, ignore_nulls: bool) -> Any:
        """Of the values of the column; None where there are none, or one is null and nulls are not ignored."""
        return self._column(on).sum(ignore_nulls=ignore_nulls)

    def min(self, on: str, ignore_nulls: bool) -> Any:
        """As `sum`."""
        return self._column(on).min(ignore_nulls=ignore_nulls)

    def max(self, on: str, ignore_nulls: bool) -> Any:
        """As `sum`."""
        return self._column(on).max(ignore_nulls=ignore_nulls)

    def mean(self, on: str, ignore_nulls: bool) -> Any:
        """As `sum`."""
        return self._column(on).mean(ignore_nulls=ignore_nulls)

    def sum_of_squared_diffs_from_mean(self, on: str, ignore_nulls: bool, mean: float | None = None) -> Any:
        """As `sum`. mean: where it is known already."""
        return self._column(on).sum_of_squared_diffs_from_mean(ignore_nulls=ignore_nulls, mean=mean)

    def _column(self, on: str) -> BlockColumnAccessor:
        return BlockColumnAccessor(self._block.column(on))

    def iter_rows(self, public_row_format: bool = True) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries."""
        from umbel.data._blocks import rows

        del public_row_format  # rows are dictionaries
        return rows.iter_rows(self._block)


class BlockColumnAccessor:
    """A column under the names that code for Ray's columns uses; it is Arrow's, whose functions do as well.

    ignore_nulls: False to have None as soon as there is a null. as_py: False for a scalar of Arrow's.
    """

    def __init__(self, col: pa.Array | pa.ChunkedArray) -> None:
        self._column = col

    @staticmethod
    def for_column(col: Any) -> BlockColumnAccessor:
        """Of a column of Arrow's, or of what becomes one: a list, an array, a series."""
        return BlockColumnAccessor(col if isinstance(col, pa.Array | pa.ChunkedArray) else pa.array(col))

    def count(self, *, ignore_nulls: bool, as_py: bool = True) -> Any:
        """How many values there are."""
        return self._given(pc.count(self._column, mode="only_valid" if ignore_nulls else "all"), as_py)

    def sum(self, *, ignore_nulls: bool, as_py: bool = True) -> Any:
        """Of all values."""
        return self._given(pc.sum(self._column, skip_nulls=ignore_nulls), as_py)

    def min(self, *, ignore_nulls: bool, as_py: bool = True) -> Any:
        """The least value."""
        return self._given(pc.min(self._column, skip_nulls=ignore_nulls), as_py)

    def max(self, *, ignore_nulls: bool, as_py: bool = True) -> Any:
        """The greatest value."""
        return self._given(pc.max(self._column, skip_nulls=ignore_nulls), as_py)

    def mean(self, *, ignore_nulls: bool, as_py: bool = True) -> Any:
        """Of all values."""
        return self._given(pc.mean(self._column, skip_nulls=ignore_nulls), as_py)

    def quantile(self, *, q: float, ignore_nulls: bool, as_py: bool = True) -> Any:
        """q: from 0 to 1. Between two values it is in proportion."""
        return self._given(pc.quantile(self._column, q=q, skip_nulls=ignore_nulls)[0], as_py)

    def sum_of_squared_diffs_from_mean(self, ignore_nulls: bool, mean: float | None = None, as_py: bool = True) -> Any:
        """mean: where it is known already."""
        known = self.mean(ignore_nulls=ignore_nulls) if mean is None else mean
        if known is None:
            return None
        squares = pc.power(pc.subtract(self._column, known), 2)
        return self._given(pc.sum(squares, skip_nulls=ignore_nulls), as_py)

    def unique(self) -> pa.Array:
        """Each value once."""
        return pc.unique(self._column)

    def value_counts(self) -> dict[str, list[Any]] | None:
        """Two lists, `values` and `counts`; None where there are none."""
        found = pc.value_counts(self._column)
        return {name: found.field(name).to_pylist() for name in ("values", "counts")} if len(found) else None

    def flatten(self) -> pa.Array | pa.ChunkedArray:
        """The items of all lists."""
        return pc.list_flatten(self._column)

    def dropna(self) -> pa.Array | pa.ChunkedArray:
        """Without nulls."""
        return pc.drop_null(self._column)

    def is_composed_of_lists(self) -> bool:
        """Whether its values are lists."""
        return bool(pa.types.is_list(self._column.type) or pa.types.is_large_list(self._column.type))

    def to_pylist(self) -> list[Any]:
        """Python's values."""
        found: list[Any] = self._column.to_pylist()
        return found

    def to_numpy(self, zero_copy_only: bool = False) -> np.ndarray[Any, Any]:
        """An array, as Arrow makes it."""
        if isinstance(self._column, pa.ChunkedArray):
            return self._column.to_numpy()
        return self._column.to_numpy(zero_copy_only=zero_copy_only)

    @staticmethod
    def _given(found: pa.Scalar, as_py: bool) -> Any:
        return found.as_py() if as_py else found


__all__ = [
    "BatchFormat",
    "Block",
    "BlockAccessor",
    "BlockColumnAccessor",
    "BlockMetadata",
    "DataBatch",
    "DataBatchColumn",
]
