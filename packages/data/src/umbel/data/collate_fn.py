"""What makes of a batch what `iter_torch_batches` gives out: a class that says in which form it takes its batches.

class Tokenized(NumpyBatchCollateFn):
    def __call__(self, batch):
        return tokenizer(list(batch["text"]), return_tensors="pt")
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar


class CollateFn(abc.ABC):
    """batch_format: the form in which it gets its batches."""

    batch_format: ClassVar[str]

    @abc.abstractmethod
    def __call__(self, batch: Any) -> Any:
        """Tensors, in dictionaries, lists or tuples; or anything else."""


class NumpyBatchCollateFn(CollateFn):
    """Of dictionaries of arrays."""

    batch_format = "numpy"


class ArrowBatchCollateFn(CollateFn):
    """Of tables."""

    batch_format = "pyarrow"


class PandasBatchCollateFn(CollateFn):
    """Of frames."""

    batch_format = "pandas"


class DefaultCollateFn(ArrowBatchCollateFn):
    """Torch tensors by column, as `iter_torch_batches` makes them without a collate_fn. dtypes: one for all, or by name.

    combine_chunks, num_workers have no effect: each column becomes one tensor anyway, without a copy where it is one already.
    """

    def __init__(self, dtypes: Any = None, combine_chunks: bool = False, num_workers: int = 0) -> None:
        self.combine_chunks, self.num_workers = combine_chunks, num_workers
        self.dtypes = dtypes

    def __call__(self, batch: Any) -> Any:
        from umbel.data._api import torch_batches
        from umbel.data._blocks import batches

        found: Any = batches.to_batch(batch, "torch")
        return torch_batches.cast(found, self.dtypes)


__all__ = ["ArrowBatchCollateFn", "CollateFn", "DefaultCollateFn", "NumpyBatchCollateFn", "PandasBatchCollateFn"]
