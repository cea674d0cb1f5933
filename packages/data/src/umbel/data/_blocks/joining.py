"""Joins of two tables that hold all rows of the keys they hold.

What is joined are row numbers: the keys alone decide which rows belong together, and then both tables are gathered, so that
the other columns may be of any type. Pairs come in the order of the left rows, and of one left row in the order of the right
ones; after them, for right and full outer joins, the right rows that have no partner. Null keys have no partner; NaN equals
NaN. Equal keys of different types meet in the type that holds both; where there is none that is an error, found without
looking at a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from umbel.data._blocks import columns, factoring, key_types, ordering

How = Literal["inner", "left_outer", "right_outer", "full_outer", "left_semi", "right_semi", "left_anti", "right_anti"]
HOWS: Final = ("inner", "left_outer", "right_outer", "full_outer", "left_semi", "right_semi", "left_anti", "right_anti")


class _Matches(NamedTuple):
    """Which rows belong together. partners, starts: [left rows], how many right rows are equal to each, and where in `order`
    these begin. has_left: [right rows], whether there is an equal left one."""

    partners: np.ndarray
    starts: np.ndarray
    order: np.ndarray
    has_left: np.ndarray

    def pairs(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
        """Of the left rows [low, high), by left and then right row; the left ones counted from `low`."""
        partners = self.partners[low:high]
        rows = np.repeat(np.arange(high - low), partners)
        places = np.arange(len(rows)) - np.repeat(np.cumsum(partners) - partners, partners)
        return rows, self.order[np.repeat(self.starts[low:high], partners) + places]

    def bounds(self, pairs_max: int | None) -> list[int]:
        """Of ranges of left rows with so many pairs at most, unless one row has more."""
        size = len(self.partners)
        if pairs_max is None:
            return [0, size]
        ends = np.cumsum(np.maximum(self.partners, 1))
        found = [0]
        while found[-1] < size:
            before = int(ends[found[-1] - 1]) if found[-1] else 0
            found.append(max(found[-1] + 1, int(np.searchsorted(ends, before + pairs_max, side="right"))))
        return found if size else [0, 0]


def join(
    left: pa.Table,
    right: pa.Table,
    how: How,
    left_on: Sequence[str],
    right_on: Sequence[str] | None = None,
    *,
    left_suffix: str | None = None,
    right_suffix: str | None = None,
) -> pa.Table:
    """The left columns, then the right ones without their keys, of which the left ones say the value. Semi and anti joins
    have the columns of one side only, unchanged. The suffixes go to names that both sides have.

    Raises KeyError, TypeError (keys that cannot be equal) or ValueError (a name twice).
    """
    (found,) = joined(left, right, how, left_on, right_on, left_suffix=left_suffix, right_suffix=right_suffix)
    return found


def joined(
    left: pa.Table,
    right: pa.Table,
    how: How,
    left_on: Sequence[str],
    right_on: Sequence[str] | None = None,
    *,
    left_suffix: str | None = None,
    right_suffix: str | None = None,
    rows_max: int | None = None,
    part: How | None = None,
) -> Iterator[pa.Table]:
    """The same in tables of about so many rows, each made when it is asked for: many rows with one key on both sides make more
    pairs than there is memory for. One table at least.

    part: of a full outer join, only those of its rows that a left or right outer join has, or those without a partner that an
    anti join has.
    """
    if how not in HOWS:
        raise ValueError(f"how must be one of {', '.join(map(repr, HOWS))}, got {how!r}")
    names = list(left_on)
    right_names = names if right_on is None else list(right_on)
    kinds = key_kinds(left.schema, right.schema, names, right_names)
    left_keys = [key_types.cast(left, name, kind) for name, kind in zip(names, kinds, strict=True)]
    right_keys = [key_types.cast(right, name, kind) for name, kind in zip(right_names, kinds, strict=True)]
    if how.endswith(("_semi", "_anti")):
        is_left = how.startswith("left")
        has_partner = _has_partner(left_keys, right_keys) if is_left else _has_partner(right_keys, left_keys)
        rows = np.flatnonzero(has_partner if how.endswith("_semi") else ~has_partner)
        yield columns.taken(left if is_left else right, rows)
        return
    matches = _matched(left_keys, right_keys)
    wanted = part or how
    bounds = matches.bounds(None if wanted.endswith("_anti") else rows_max)
    for low, high in itertools.pairwise(bounds):
        if wanted.endswith("_anti"):
            left_rows = right_rows = np.zeros(0, np.int64)
        else:
            left_rows, right_rows = matches.pairs(low, high)
        if wanted in ("left_outer", "full_outer"):
            left_rows, right_rows = _with_alone(matches.partners[low:high], right_rows)
        elif wanted == "left_anti":
            left_rows = np.flatnonzero(matches.partners[low:high] == 0)
            right_rows = np.full(len(left_rows), -1, np.int64)
        if wanted in ("right_outer", "full_outer", "right_anti") and high == bounds[-1]:
            alone = np.flatnonzero(~matches.has_left)
            left_rows = np.concatenate([left_rows, np.full(len(alone), -1, np.int64)])
            right_rows = np.concatenate([right_rows, alone])
        some = left.slice(low, high - low)
        found = assembled(
            some, right, names, right_names, left_rows, right_rows, left_suffix=left_suffix, right_suffix=right_suffix
        )
        for name, left_key, right_key in zip(names, left_keys, right_keys, strict=True):
            if how in ("right_outer", "full_outer") or found.schema.field(name).type != left_key.type:
                rows = pa.array(np.where(left_rows >= 0, left_rows, some.num_rows + right_rows))
                key = stacked([left_key.slice(low, high - low), right_key]).take(rows)
                if isinstance(left_key.type, pa.BaseExtensionType):
                    key = pa.ExtensionArray.from_storage(left_key.type, key)
                found = found.set_column(found.schema.get_field_index(name), name, key)
        yield found


def joined_schema(
    left: pa.Schema,
    right: pa.Schema,
    how: How,
    left_on: Sequence[str],
    right_on: Sequence[str] | None = None,
    *,
    left_suffix: str | None = None,
    right_suffix: str | None = None,
) -> pa.Schema:
    """The schema of the join of tables of these schemas. Raises what `join` would."""
    empty = (left.empty_table(), right.empty_table())
    found = join(*empty, how, left_on, right_on, left_suffix=left_suffix, right_suffix=right_suffix)
    return found.schema


def key_kinds(left: pa.Schema, right: pa.Schema, names: Sequence[str], right_names: Sequence[str]) -> list[pa.DataType]:
    """The types in which the keys of both sides meet."""
    if not names or len(names) != len(right_names):
        raise ValueError(f"a join needs keys, as many on the left as on the right; got {names} and {right_names}")
    columns.require(left, names, what="the key of the left side")
    columns.require(right, right_names, what="the key of the right side")
    return key_types.unified(left, right, names, right_names)


def assembled(
    left: pa.Table,
    right: pa.Table,
    names: Sequence[str],
    right_names: Sequence[str],
    left_rows: np.ndarray,
    right_rows: np.ndarray,
    *,
    left_suffix: str | None,
    right_suffix: str | None,
) -> pa.Table:
    """The rows side by side, nulls where a row is -1; without the right keys."""
    others = right.select([name for name in right.column_names if name not in right_names])
    both = set(left.column_names) & set(others.column_names)
    found = [name + (left_suffix or "") if name in both and name not in names else name for name in left.column_names]
    found += [name + (right_suffix or "") if name in both else name for name in others.column_names]
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise ValueError(
            f"both sides of the join have columns {twice}; give left_suffix or right_suffix to tell them apart, or drop them"
        )
    return pa.table([*_gathered(left, left_rows), *_gathered(others, right_rows)], names=found)


def stacked(arrays: Sequence[pa.Array]) -> pa.Array:
    """One below the other, plain: of dictionaries each array has its own."""
    return pa.concat_arrays([columns.plain(array) for array in arrays])


def _with_alone(partners: np.ndarray, right_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs, and the left rows without a partner, beside which stands -1."""
    repeats = np.maximum(partners, 1)
    found = np.full(int(repeats.sum()), -1, np.int64)
    found[np.repeat(partners > 0, repeats)] = right_rows
    return np.repeat(np.arange(len(partners)), repeats), found


def _indices(rows: np.ndarray) -> pa.Array:
    is_none = rows < 0
    return pa.array(rows, mask=is_none) if is_none.any() else pa.array(rows)


def _gathered(table: pa.Table, rows: np.ndarray) -> list[pa.ChunkedArray]:
    if len(rows) == table.num_rows and (rows == np.arange(len(rows))).all():
        return list(table.columns)
    return list(columns.contiguous(table).take(_indices(rows)).columns) if table.num_columns else []


def _has_partner(keys: list[pa.Array], others: list[pa.Array]) -> np.ndarray:
    """[rows] bool: whether one of the others is equal."""
    size = len(keys[0])
    ids, count = factoring.codes([stacked(pair) for pair in zip(keys, others, strict=True)], size + len(others[0]))
    is_there = np.zeros(count, bool)
    is_there[ids[size:]] = True
    found = is_there[ids[:size]]
    for mask in map(columns.valid, keys):
        found = found if mask is None else found & mask
    return found


def _matched(left: list[pa.Array], right: list[pa.Array]) -> _Matches:
    """The arrays of a key have one type."""
    left_rows, right_rows = _with_keys(left), _with_keys(right)
    some = left if left_rows is None else [key.take(pa.array(left_rows)) for key in left]
    others = right if right_rows is None else [key.take(pa.array(right_rows)) for key in right]
    left_count, right_count = len(some[0]), len(others[0])
    ids, count = factoring.codes([stacked(pair) for pair in zip(some, others, strict=True)], left_count + right_count)
    left_ids, right_ids = ids[:left_count], ids[left_count:]
    sizes = np.bincount(right_ids, minlength=count)
    starts = np.cumsum(sizes) - sizes
    order = ordering.grouped(right_ids, count)
    is_on_left = np.zeros(count, bool)
    is_on_left[left_ids] = True
    return _Matches(
        partners=_spread(sizes[left_ids], left_rows, len(left[0])),
        starts=_spread(starts[left_ids], left_rows, len(left[0])),
        order=order if right_rows is None else right_rows[order],
        has_left=_spread(is_on_left[right_ids], right_rows, len(right[0])),
    )


def _spread(values: np.ndarray, rows: np.ndarray | None, size: int) -> np.ndarray:
    """Of these rows, 0 for the others; None for all rows."""
    if rows is None:
        return values
    found = np.zeros(size, values.dtype)
    found[rows] = values
    return found


def _with_keys(keys: list[pa.Array]) -> np.ndarray | None:
    """The rows of which no key is null; None if that are all."""
    masks = [mask for mask in map(columns.valid, keys) if mask is not None]
    return np.flatnonzero(np.logical_and.reduce(masks)) if masks else None
