"""What a dataset is made of, and what of it a user's function may be given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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


__all__ = ["BatchFormat", "Block", "BlockMetadata", "DataBatch", "DataBatchColumn"]
