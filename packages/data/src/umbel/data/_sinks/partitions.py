"""The rows of a table by the values of some of its columns, as directories `name=value` hold them."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from umbel.data._sources import errors, partitioning


def divided(table: pa.Table, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """The directory and the rows of each combination of values, without the columns; their order is kept. "" without columns."""
    if not columns:
        yield "", table
        return
    _check(table, columns)
    rest = table.drop_columns(list(columns))
    if table.num_rows == 0:
        return
    codes = np.zeros(table.num_rows, np.int64)
    for name in columns:
        encoded = table.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
        codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy()
        codes = np.unique(codes, return_inverse=True)[1]  # kept small, so that many columns cannot overflow
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sorted_rows = rest.take(pa.array(order))
    for start, stop in zip(starts, [*starts[1:], table.num_rows], strict=True):
        values = [table.column(name)[int(order[start])] for name in columns]
        yield _directory(columns, values), sorted_rows.slice(start, stop - start)


def _check(table: pa.Table, columns: Sequence[str]) -> None:
    for name in columns:
        if name not in table.column_names:
            raise KeyError(errors.no_column(name, table.column_names, purpose="partition by"))
    if len(columns) == table.num_columns:
        raise ValueError(f"nothing is left to write besides the partition_cols {list(columns)}; leave one of them out")


def _directory(names: Sequence[str], values: Sequence[pa.Scalar]) -> str:
    return "/".join(f"{_quoted(name)}={_text(value)}" for name, value in zip(names, values, strict=True))


def _text(value: pa.Scalar) -> str:
    plain: Any = value.as_py()
    if plain is None:
        return partitioning.NULL_DIRECTORY
    return _quoted(str(plain).lower() if isinstance(plain, bool) else str(plain))


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe=" ,-_.~")
