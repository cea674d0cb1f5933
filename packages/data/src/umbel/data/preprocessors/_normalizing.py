"""Rows of unit norm."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data.preprocessors import _base, _columns, _making

_NORMS: Final = ("l1", "l2", "max")
_SCRATCH: Final = "__umbel_norm"


class Normalizer(_base.Columnwise):
    """Each row by its norm over these columns: "l1" the sum of magnitudes, "l2" the root of the sum of squares, "max" the
    greatest magnitude. A row of zeros stays so. Null and NaN stay so, and count for nothing in the norm."""

    _is_fittable = False
    _fields: ClassVar[tuple[str, ...]] = ("columns", "norm", "output_columns")

    def __init__(
        self, columns: Sequence[str], norm: str = "l2", *, output_columns: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        if norm not in _NORMS:
            raise ValueError(f"norm must be one of {', '.join(map(repr, _NORMS))}, got {norm!r}")
        self.columns = _columns.names(columns)
        self.norm = norm
        self.output_columns = _columns.output_names(self.columns, output_columns)

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        _making.require_numbers(schema, self.columns, title="Normalizer")
        norms = functools.partial(_norms, norm=self.norm)
        return [
            _making.Output(_SCRATCH, tuple(self.columns), norms, pa.float64(), is_scratch=True),
            *(
                _making.Output(name, (column, _SCRATCH), _divided, pa.float64())
                for column, name in zip(self.columns, self.output_columns, strict=True)
            ),
        ]


def _norms(*arrays: pa.Array, norm: str) -> pa.Array:
    """By the greatest magnitude first, so that no square overflows or vanishes."""
    magnitudes = [np.nan_to_num(np.abs(_float_values(array)), nan=0.0, posinf=np.inf) for array in arrays]
    most = functools.reduce(np.maximum, magnitudes)
    if norm == "max":
        return pa.array(most)
    if norm == "l1":
        return pa.array(sum(magnitudes[1:], magnitudes[0]))
    scale = np.where((most > 0) & np.isfinite(most), most, 1.0)
    squares = np.zeros(len(most))
    for one in magnitudes:
        squares += (one / scale) ** 2
    return pa.array(np.sqrt(squares) * scale)


def _float_values(array: pa.Array) -> np.ndarray:
    """Null is NaN."""
    found: np.ndarray = _making.floats(array).to_numpy(zero_copy_only=False)
    return found


def _divided(array: pa.Array, norms: pa.Array) -> pa.Array:
    return pc.divide(_making.floats(array), pc.if_else(pc.equal(norms, 0.0), 1.0, norms))
