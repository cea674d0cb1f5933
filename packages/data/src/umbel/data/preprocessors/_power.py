"""Powers that make data more normal."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns
from umbel.data.preprocessors import _base, _columns, _making

_METHODS: Final = ("yeo-johnson", "box-cox")


class PowerTransformer(_base.Columnwise):
    """Each column by a power transform, of which you give the power.

    method: "yeo-johnson", or "box-cox", for which all values have to be above 0: another is an error. Source: Yeo and
    Johnson, A new family of power transformations to improve normality or symmetry, Biometrika 2000; Box and Cox, An Analysis
    of Transformations, 1964.
    """

    _is_fittable = False
    _fields: ClassVar[tuple[str, ...]] = ("columns", "power", "method", "output_columns")

    def __init__(
        self,
        columns: Sequence[str],
        power: float,
        method: str = "yeo-johnson",
        *,
        output_columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if method not in _METHODS:
            raise ValueError(f"method must be one of {', '.join(map(repr, _METHODS))}, got {method!r}")
        if isinstance(power, bool) or not isinstance(power, int | float) or not math.isfinite(power):
            raise ValueError(f"power must be a number, mostly between -2.5 and 2.5, got {power!r}")
        self.columns = _columns.names(columns)
        self.power = power
        self.method = method
        self.output_columns = _columns.output_names(self.columns, output_columns)

    def _outputs(self, schema: pa.Schema) -> list[_making.Output]:
        return self._made(schema, self.columns, self.output_columns, is_inverse=False)

    def _inverse_outputs(self, schema: pa.Schema) -> list[_making.Output]:
        return self._made(schema, self.output_columns, self.columns, is_inverse=True)

    def _made(
        self, schema: pa.Schema, inputs: Sequence[str], outputs: Sequence[str], *, is_inverse: bool
    ) -> list[_making.Output]:
        _making.require_numbers(schema, inputs, title="PowerTransformer")
        transform = {
            ("yeo-johnson", False): _yeo_johnson,
            ("yeo-johnson", True): _inverse_yeo_johnson,
            ("box-cox", False): _box_cox,
            ("box-cox", True): _inverse_box_cox,
        }[self.method, is_inverse]
        return [
            _making.Output(
                name,
                (column,),
                functools.partial(_of_array, transform=transform, power=self.power, column=column),
                pa.float64(),
            )
            for column, name in zip(inputs, outputs, strict=True)
        ]


def _of_array(array: pa.Array, *, transform: Any, power: float, column: str) -> pa.Array:
    values, is_valid = columns.numbers(_making.floats(array))
    if is_valid is not None:
        values = np.where(is_valid, values, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large is infinite
        return columns.rebuilt(transform(values, power, column), is_valid, pa.float64())


def _box_cox(values: np.ndarray, power: float, column: str) -> np.ndarray:
    if (values <= 0).any():
        raise ValueError(
            f"PowerTransformer: 'box-cox' needs values above 0, and the column {column!r} has {values.min()}; use "
            "'yeo-johnson', or add "
            "to the column"
        )
    # expm1 and log: exact for powers near 0 as well.
    return np.log(values) if power == 0 else np.expm1(power * np.log(values)) / power


def _inverse_box_cox(values: np.ndarray, power: float, column: str) -> np.ndarray:
    return np.exp(values) if power == 0 else np.exp(np.log1p(values * power) / power)


def _yeo_johnson(values: np.ndarray, power: float, column: str) -> np.ndarray:
    """Of x >= 0 Box-Cox of x + 1; else that of 1 - x with the power 2 - p, negative."""
    made = np.array(values)
    is_low = values < 0
    made[~is_low] = _box_cox(values[~is_low] + 1, power, column)
    made[is_low] = -_box_cox(1 - values[is_low], 2 - power, column)
    return made


def _inverse_yeo_johnson(values: np.ndarray, power: float, column: str) -> np.ndarray:
    made = np.array(values)
    is_low = values < 0
    made[~is_low] = _inverse_box_cox(values[~is_low], power, column) - 1
    made[is_low] = 1 - _inverse_box_cox(-values[is_low], 2 - power, column)
    return made
