"""The distinct values of a column, in order, and where in them each value of an array is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel.data._blocks import columns, factoring, schemas


class CategoricalDtype:
    """The categories of a column, and whether their order means something: what pandas calls so too, and equal to that."""

    def __init__(self, categories: Iterable[Any], ordered: bool = False) -> None:
        self.categories = [*categories]
        self.ordered = bool(ordered)

    @classmethod
    def of(cls, value: Any) -> CategoricalDtype:
        """value: one of these, or pandas', or a list of the categories."""
        if isinstance(value, cls):
            return value
        if hasattr(value, "categories") and hasattr(value, "ordered"):
            return cls(value.categories.tolist(), value.ordered)
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise TypeError(f"categories are a CategoricalDtype or a list of values, got {value!r}")
        return cls(value)

    def __eq__(self, other: object) -> bool:
        try:
            return [*other.categories] == self.categories and other.ordered == self.ordered  # type: ignore[attr-defined]
        except AttributeError:
            return NotImplemented

    def __hash__(self) -> int:
        return hash((len(self.categories), self.ordered))

    def __repr__(self) -> str:
        return f"CategoricalDtype(categories={self.categories!r}, ordered={self.ordered})"


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def refuse_missing_among(values: Iterable[Any], column: str, *, title: str) -> None:
    """Raises ValueError if there is a missing one."""
    if any(map(is_missing, values)):
        raise ValueError(
            f"{title}: the column {column!r} has null values; fill them before, for example by SimpleImputer, "
            "or filter their rows out"
        )


def indices(values: Iterable[Any], column: str, *, title: str) -> dict[Any, int]:
    """The place of each value that is not missing among all in order. Lists become tuples. Raises TypeError for values without an
    order."""
    try:
        present = sorted(_hashable(one) for one in values if not is_missing(one))
        return {value: place for place, value in enumerate(present)}
    except TypeError as error:
        raise TypeError(f"{title}: the values of the column {column!r} have no order: {error}") from error


def most_frequent(counted: Mapping[str, list[Any]], limit: int | None) -> list[Any]:
    """Of values and their counts, the values that occur most; of equally frequent ones those that came first. None: all of
    them."""
    pairs = zip(counted["values"], counted["counts"], strict=True)
    return [value for value, _ in sorted(pairs, key=lambda pair: -pair[1])[:limit]]


def keys(values: Collection[Any], kind: pa.DataType, column: str, *, title: str) -> pa.Array:
    """The values as an array that values of type `kind` can be looked up in. Raises TypeError where they are nothing of the
    kind."""
    try:
        found = pa.array(values, kind)
        if pa.types.is_nested(kind) or found.to_pylist() == [*values]:  # PyArrow makes 0 of 0.5 without a word
            return found
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        pass  # they are not of the kind
    found = pa.array(values)
    common = schemas.common_type(found.type, kind)
    if common is None:
        raise TypeError(
            f"{title}: the column {column!r} was {found.type} when it was fitted, and is {kind}; cast it to what it was"
        )
    return found.cast(common)


def positions(array: pa.Array, known: pa.Array) -> pa.Array:
    """int32: where each value is in `known`, null for one that is not."""
    array = columns.plain(array)
    if pa.types.is_nested(known.type):
        return _positions_of_nested(array, known)
    array = array.cast(known.type)
    if pa.types.is_floating(known.type):
        array, known = (pc.add(one, pa.scalar(0.0, one.type)) for one in (array, known))  # both zeros are one
    return pc.index_in(array, known)


def refuse_missing(array: pa.Array, column: str, *, title: str) -> pa.Array:
    """The plain array. Raises ValueError if it has a null or NaN."""
    array = columns.plain(array)
    count = pc.sum(pc.is_null(array, nan_is_null=True)).as_py() or 0
    if count:
        raise ValueError(
            f"{title}: the column {column!r} has {count} null values among {len(array)}; fill them before, for example by "
            "SimpleImputer, or filter their rows out"
        )
    return array


def _positions_of_nested(array: pa.Array, known: pa.Array) -> pa.Array:
    both = pa.concat_arrays([known, array.cast(known.type)])
    ids, count = factoring.codes([both], len(both))
    places = np.full(count, -1, np.int32)
    places[ids[: len(known)]] = np.arange(len(known), dtype=np.int32)
    found = places[ids[len(known) :]]
    return pa.array(found, mask=found < 0)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
