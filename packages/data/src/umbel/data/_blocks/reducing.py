"""Reductions of the values of each group to one.

Rows know their group by its number (see `factoring`), so every reduction is a pass of NumPy over the values, exact and in the
order of the rows. Sums of integers and decimals are kept as limbs of 32 bits that cannot overflow: whether a total fits is
asked of the total alone, so the answer does not depend on how the rows were divided into blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns, ordering

_LIMB_BITS: Final = 32
_LIMB_MASK: Final = (1 << _LIMB_BITS) - 1


Sums = Callable[[np.ndarray], np.ndarray]


class Groups:
    """Which group each row of a table belongs to.

    ids: [rows] int64 in [0, count). keys: the key columns, one row for each group.
    """

    def __init__(self, ids: np.ndarray, count: int, keys: pa.Table | None = None) -> None:
        self.ids = ids
        self.count = count
        self.keys = keys

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """[count] int64: the rows of each group."""
        if self.count == 1:
            return np.array([len(self.ids)])
        return np.bincount(self.ids, minlength=self.count).astype(np.int64)

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """[count + 1] int64: where each group begins in `order`."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.sizes)])

    @functools.cached_property
    def order(self) -> np.ndarray:
        """[rows] int64: the rows of the first group, then those of the next; within each in their order."""
        return ordering.grouped(self.ids, self.count)

    def key_values(self) -> list[Any]:
        """The key of each group as Python has it; a tuple where there are several columns, None where there are none."""
        if self.keys is None or not self.keys.num_columns:
            return [None] * self.count
        values = [column.to_pylist() for column in self.keys.itercolumns()]
        return values[0] if len(values) == 1 else list(zip(*values, strict=True))

    def tables(self, table: pa.Table) -> Iterator[pa.Table]:
        """The rows of each group: slices of one table, which is this one if the groups lie in order in it."""
        is_in_place = self.count == 1 or (self.ids[1:] >= self.ids[:-1]).all()
        gathered = table if is_in_place else columns.taken(table, self.order)
        for start, size in zip(self.offsets[:-1].tolist(), self.sizes.tolist(), strict=True):
            yield gathered.slice(start, size)

    def nested(self, lists: pa.Array) -> Groups:
        """The groups of the values that the lists hold, one list for each row; none of them null."""
        offsets, _ = columns.list_parts(lists)
        return Groups(np.repeat(self.ids, np.diff(offsets)), self.count)

    def where(self, rows: np.ndarray) -> Groups:
        """The groups of some rows only, by their numbers or by a mask."""
        return Groups(self.ids[rows], self.count)

    def counts(self, mask: np.ndarray | None) -> np.ndarray:
        """[count] int64: of the rows where the mask is true, or of all."""
        return self.sizes if mask is None else np.bincount(self.ids[mask], minlength=self.count).astype(np.int64)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """[count], of the type of the values; integers must not overflow."""
        found = np.zeros(self.count, values.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are what they are
            if self.count == 1:
                found[0] = values.sum()  # in pairs, which is faster and more exact than in turn
            else:
                np.add.at(found, self.ids, values)
        return found

    def lowest(self, values: np.ndarray) -> np.ndarray:
        """[count]: the least value; of a group without rows the greatest that the type has."""
        found = np.full(self.count, _extreme(values.dtype, is_highest=True), values.dtype)
        if self.count == 1:
            found[0] = values.min(initial=found[0])
        else:
            np.minimum.at(found, self.ids, values)
        return found

    def highest(self, values: np.ndarray) -> np.ndarray:
        """[count]: the greatest value; of a group without rows the least that the type has."""
        found = np.full(self.count, _extreme(values.dtype, is_highest=False), values.dtype)
        if self.count == 1:
            found[0] = values.max(initial=found[0])
        else:
            np.maximum.at(found, self.ids, values)
        return found

    def first(self) -> np.ndarray:
        """[count] int64: the first row of each group, -1 where there is none."""
        found = np.full(self.count, -1, np.int64)
        found[self.ids[::-1]] = np.arange(len(self.ids) - 1, -1, -1)
        return found

    def last(self) -> np.ndarray:
        """[count] int64: the last row of each group, -1 where there is none."""
        found = np.full(self.count, -1, np.int64)
        found[self.ids] = np.arange(len(self.ids))
        return found

    def lists(self, values: pa.Array) -> pa.ListArray:
        """The values of each group, one for each row, in their order."""
        gathered = values if self.count == 1 else values.take(pa.array(self.order))
        return pa.ListArray.from_arrays(pa.array(self.offsets.astype(np.int32)), gathered)


def limb_sums(sums: Sums, array: pa.Array) -> list[np.ndarray]:
    """int64 each: sums of the values in limbs, the least one first; all but the last are in [0, 2**32).

    sums: what adds some of as many int64 as the array has values, none of them twice into one sum.
    array: integers, booleans, durations or decimals, plain, none of them null.
    """
    limbs = limb_count(array.type)
    if not pa.types.is_decimal(array.type):
        return _limbs_of_integers(sums, columns.numbers(array)[0], limbs)
    words = columns.words(array)
    low = words[:, 0]
    if (words[:, 1:] == (low >> 63)[:, None]).all():
        return _limbs_of_integers(sums, low, limbs)
    found = []
    for index in range(words.shape[1]):
        word = words[:, index]
        high = word >> _LIMB_BITS
        found += [sums(word & _LIMB_MASK), sums(high if index == words.shape[1] - 1 else high & _LIMB_MASK)]
    return _carried(found)


def limb_count(kind: pa.DataType) -> int:
    """How many limbs hold the values of this type."""
    if pa.types.is_decimal256(kind):
        return 8
    return 4 if pa.types.is_decimal(kind) else 2


def merged_limbs(sums: Sums, limbs: list[np.ndarray]) -> list[np.ndarray]:
    """The sums of sums. There must be fewer than 2**31 of them, which no table has."""
    return _carried([sums(limb) for limb in limbs])


def limbs_as(limbs: list[np.ndarray], kind: pa.DataType, other: pa.DataType) -> list[np.ndarray]:
    """Of a sum of values of `kind` that of the same ones as values of `other`, whose unit may be smaller."""
    factor = 10 ** (_decimals(other) - _decimals(kind))
    count = limb_count(other)
    wholes = [0] * len(limbs[0])
    for limb in reversed(limbs):
        wholes = [(whole << _LIMB_BITS) + part for whole, part in zip(wholes, limb.tolist(), strict=True)]
    wholes = [whole * factor for whole in wholes]
    found = [
        np.array([whole >> (_LIMB_BITS * at) & _LIMB_MASK for whole in wholes], np.int64) for at in range(count - 1)
    ]
    top = [whole >> (_LIMB_BITS * (count - 1)) for whole in wholes]
    if any(not -(1 << 63) <= part < 1 << 63 for part in top):
        raise OverflowError(
            f"a sum does not fit into {total_type(other)}; cast the column to fewer digits or float64 first"
        )
    return [*found, np.array(top, np.int64)]


def _decimals(kind: pa.DataType) -> int:
    """How many digits behind the point the unit has."""
    if pa.types.is_duration(kind):
        return {"s": 0, "ms": 3, "us": 6, "ns": 9}[kind.unit]
    return int(kind.scale) if pa.types.is_decimal(kind) else 0


def floats_of_limbs(limbs: list[np.ndarray]) -> np.ndarray:
    """[count] float64, of what the limbs say."""
    if len(limbs) == 2:
        low, high = limbs
        is_short = (high >= -(1 << 31)) & (high < 1 << 31)
        return np.where(is_short, ((high << _LIMB_BITS) | low).astype(np.float64), high * 2.0**32 + low)
    found = np.zeros(len(limbs[0]))
    for index in range(len(limbs) - 1, -1, -1):
        found = found * 2.0**_LIMB_BITS + limbs[index]
    return found


def totals(limbs: list[np.ndarray], is_valid: np.ndarray, kind: pa.DataType) -> pa.Array:
    """The limbs as values of the type that a sum of `kind` has: 64 bits for integers, the most digits for decimals.

    Raises OverflowError where a valid total does not fit.
    """
    result = total_type(kind)
    if not pa.types.is_decimal(kind):
        low, high = limbs
        least, most = (0, 1 << 32) if pa.types.is_unsigned_integer(kind) else (-(1 << 31), 1 << 31)
        _check(
            is_valid,
            (high >= least) & (high < most),
            result,
            "cast the column to float64 or to decimal128(38, 0) first",
        )
        return columns.rebuilt(
            (high << _LIMB_BITS) | low, is_valid, pa.int64() if pa.types.is_boolean(kind) else result
        )
    words = np.stack([low | (high << _LIMB_BITS) for low, high in zip(limbs[::2], limbs[1::2], strict=True)], axis=1)
    most = 10**result.precision >> (
        64 * (words.shape[1] - 1)
    )  # of the top word; a unit of it at the edge does not matter
    _check(
        is_valid,
        (limbs[-1] < 1 << 31) & (limbs[-1] >= -(1 << 31)),
        result,
        "cast the column to fewer digits or float64 first",
    )
    top = words[:, -1]
    _check(is_valid, (top < most) & (top >= -most), result, "cast the column to fewer digits or float64 first")
    return columns.of_words(words, is_valid, result)


def total_type(kind: pa.DataType) -> pa.DataType:
    """The type of a sum."""
    if pa.types.is_decimal256(kind):
        return pa.decimal256(76, kind.scale)
    if pa.types.is_decimal(kind):
        return pa.decimal128(38, kind.scale)
    if pa.types.is_floating(kind):
        return pa.float64()
    if pa.types.is_unsigned_integer(kind):
        return pa.uint64()
    return kind if pa.types.is_duration(kind) else pa.int64()


def _check(is_valid: np.ndarray, fits: np.ndarray, kind: pa.DataType, advice: str) -> None:
    if not (fits | ~is_valid).all():
        raise OverflowError(f"a sum does not fit into {kind}; {advice}")


def _limbs_of_integers(sums: Sums, values: np.ndarray, limbs: int) -> list[np.ndarray]:
    size = len(values)
    if not size or max(-int(values.min()), int(values.max())) * size < 1 << 63:
        whole = sums(values.astype(np.int64, copy=False))
        low, high = whole & _LIMB_MASK, whole >> _LIMB_BITS
    else:
        low = sums((values & values.dtype.type(_LIMB_MASK)).astype(np.int64))
        high = sums((values >> values.dtype.type(_LIMB_BITS)).astype(np.int64))
        high += low >> _LIMB_BITS
        low &= _LIMB_MASK
    if limbs == 2:
        return [low, high]
    sign = high >> 63
    return [low, high & _LIMB_MASK, *[sign & _LIMB_MASK] * (limbs - 3), sign]


def _carried(limbs: list[np.ndarray]) -> list[np.ndarray]:
    found = list(limbs)
    for index in range(len(found) - 1):
        found[index + 1] = found[index + 1] + (found[index] >> _LIMB_BITS)
        found[index] = found[index] & _LIMB_MASK
    return found


def _extreme(dtype: np.dtype[Any], *, is_highest: bool) -> Any:
    if dtype.kind == "f":
        return np.inf if is_highest else -np.inf
    limits = np.iinfo(dtype)
    return limits.max if is_highest else limits.min
