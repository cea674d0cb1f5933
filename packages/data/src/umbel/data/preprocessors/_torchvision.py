"""Transforms of images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from umbel.data._blocks import batches, frames
from umbel.data.preprocessors import _base, _columns, _making


class TorchVisionPreprocessor(_base.Columnwise):
    """A transform of torchvision, or any other callable, on columns of tensors.

    transform: gets a tensor of torch, or where that raises TypeError an ndarray, and returns either. batched: it gets all
    images of a batch as one tensor with a row for each, and returns as many; else one at a time.
    """

    _is_fittable = False
    _fields: ClassVar[tuple[str, ...]] = ("columns", "transform", "output_columns", "batched")

    def __init__(
        self,
        columns: Sequence[str],
        transform: Callable[[Any], Any],
        output_columns: Sequence[str] | None = None,
        batched: bool = False,
    ) -> None:
        super().__init__()
        if not callable(transform):
            raise TypeError(f"transform must be a callable that gets an image and returns one, got {transform!r}")
        self.columns = _columns.names(columns)
        self.torchvision_transform = transform
        self.output_columns = _columns.output_names(self.columns, output_columns)
        self.batched = batched

    def _get_serializable_fields(self) -> dict[str, Any]:
        return {
            "columns": self.columns,
            "transform": self.torchvision_transform,
            "output_columns": self.output_columns,
            "batched": self.batched,
        }

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(columns={self.columns}, output_columns={self.output_columns}, "
            f"transform={self.torchvision_transform!r})"
        )

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        _making.require(schema, self.columns, title="TorchVisionPreprocessor")
        function = functools.partial(_transformed, how=_Images(self.torchvision_transform), is_batched=self.batched)
        return [
            _making.Output(name, (column,), function, None)
            for column, name in zip(self.columns, self.output_columns, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class _Images:
    transform: Callable[[Any], Any]

    def __call__(self, image: Any) -> Any:
        torch = frames.load("torch")
        try:
            output = self.transform(torch.from_numpy(np.array(image)))  # a copy that it may write to
        except TypeError:  # as `ToTensor` does, which takes ndarrays
            output = self.transform(np.array(image))
        if isinstance(output, torch.Tensor):
            output = output.detach().cpu().numpy()
        if not isinstance(output, np.ndarray):
            raise ValueError(
                f"TorchVisionPreprocessor: the transform must return a torch.Tensor or an ndarray, it returned "
                f"{type(output).__name__}"
            )
        return output


def _transformed(array: pa.Array, *, how: _Images, is_batched: bool) -> pa.Array:
    images = batches.to_batch(pa.table({"image": array}), "numpy")["image"]
    made = how(images) if is_batched else [*map(how, images)]
    if len(made) != len(images):
        raise ValueError(f"TorchVisionPreprocessor: the transform returned {len(made)} rows for {len(images)}")
    return batches.from_batch({"image": made}, operator="TorchVisionPreprocessor").column(0).combine_chunks()
