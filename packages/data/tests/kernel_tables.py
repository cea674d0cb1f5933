"""Random tables for the tests of the kernels, and what equal and ordered mean, in plain Python.

The values come from small pools, so that keys meet; the columns come whole, in chunks or as slices of longer ones.
"""

from __future__ import annotations

import datetime
import decimal
import math
import os
from typing import Any

import hypothesis
import pyarrow as pa
from hypothesis import strategies as st

NAN = float("nan")
UTC = datetime.timezone.utc
_DAY = datetime.datetime(2020, 1, 1)
_D = decimal.Decimal

POOLS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "int64": (pa.int64(), [-(2**63), -1, 0, 1, 7, 2**63 - 1, None]),
    "int8": (pa.int8(), [-128, -1, 0, 1, 127, None]),
    "uint64": (pa.uint64(), [0, 1, 2**63, 2**64 - 1, None]),
    "float64": (pa.float64(), [-math.inf, -1.5, -0.0, 0.0, 1.0, math.inf, NAN, None]),
    "float32": (pa.float32(), [-0.0, 0.0, 0.5, 3.0, NAN, None]),
    "bool": (pa.bool_(), [False, True, None]),
    "string": (pa.string(), ["", "a", "a\0", "ab", "ähm", "b" * 70, "c" * 600, None]),
    "large_string": (pa.large_string(), ["", "a", "zz", None]),
    "binary": (pa.binary(), [b"", b"\0", b"\0\0", b"\xff", None]),
    "fixed": (pa.binary(3), [b"abc", b"abd", b"\0\0\0", None]),
    "decimal": (pa.decimal128(12, 2), [_D("-1.50"), _D("0.00"), _D("1.00"), _D("1234567890.12"), None]),
    "long_decimal": (pa.decimal128(38, 3), [_D("-9" * 1), _D("1.5"), _D(10) ** 34, -(_D(10) ** 34), _D("0.001"), None]),
    "decimal256": (pa.decimal256(60, 1), [_D("-0.5"), _D("0.5"), _D(10) ** 50, _D(10) ** 50 + 1, None]),
    "date": (pa.date32(), [datetime.date(1969, 12, 31), datetime.date(2020, 2, 29), None]),
    "timestamp": (
        pa.timestamp("us"),
        [_DAY, _DAY + datetime.timedelta(microseconds=1), datetime.datetime(1900, 1, 1), None],
    ),
    "zoned": (
        pa.timestamp("ms", "Europe/Berlin"),
        [_DAY.replace(tzinfo=UTC), datetime.datetime(1950, 1, 1, tzinfo=UTC), None],
    ),
    "duration": (pa.duration("ms"), [datetime.timedelta(0), datetime.timedelta(days=-3), None]),
    "time": (pa.time64("us"), [datetime.time(0), datetime.time(23, 59, 59, 5), None]),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ["x", "y", "", None]),
    "null": (pa.null(), [None]),
    "list": (pa.list_(pa.int32()), [[], [1], [1, None], [1, 2], [2, 1], None]),
    "fixed_list": (pa.list_(pa.float32(), 2), [[0.0, 1.0], [NAN, 1.0], None]),
    "struct": (pa.struct([("a", pa.int64()), ("b", pa.string())]), [{"a": 1, "b": None}, {"a": None, "b": "x"}, None]),
    "nested": (
        pa.list_(pa.struct([("a", pa.list_(pa.string()))])),
        [[{"a": ["x"]}, {"a": None}], [{"a": []}], [], None],
    ),
    "map": (pa.map_(pa.string(), pa.int64()), [[("a", 1)], [("a", 1), ("b", None)], [], None]),
}
SORTABLE = [name for name in POOLS if name not in ("list", "fixed_list", "struct", "nested", "map")]
NUMERIC = ["int64", "int8", "uint64", "float64", "float32", "bool", "decimal", "long_decimal", "decimal256"]


def checked(examples: int) -> hypothesis.settings:
    """So many examples, always the same; UMBEL_TEST_EXAMPLES=20 tries twenty times as many, other ones each time."""
    factor = int(os.environ.get("UMBEL_TEST_EXAMPLES", "1"))
    return hypothesis.settings(
        max_examples=examples * factor, deadline=None, database=None, derandomize=factor == 1, print_blob=factor > 1
    )


@st.composite
def columns(draw: st.DrawFn, pool: str, row_count: int) -> pa.ChunkedArray:
    """A column of values of the pool; in one chunk, in several, or cut out of a longer one."""
    kind, values = POOLS[pool]
    chosen = draw(st.lists(st.sampled_from(values), min_size=row_count, max_size=row_count))
    shape = draw(st.sampled_from(["whole", "chunks", "slice"]))
    if shape == "whole":
        return pa.chunked_array([pa.array(chosen, kind)])
    if shape == "slice":
        padding = [values[0], values[-1], values[0]]
        return pa.chunked_array([pa.array(padding + chosen + padding, kind).slice(3, row_count)])
    middle = row_count // 2
    return pa.chunked_array(
        [pa.array(chosen[:middle], kind), pa.array([], kind), pa.array(chosen[middle:], kind)], kind
    )


@st.composite
def tables(draw: st.DrawFn, pools: list[str], *, column_count: int = 2, rows_max: int = 12) -> pa.Table:
    """Columns `a`, `b`, … of some of the pools, and `row`, the number of each row."""
    row_count = draw(st.integers(0, rows_max))
    names = "abcdefgh"[:column_count]
    found = {name: draw(columns(draw(st.sampled_from(pools)), row_count)) for name in names}
    return pa.table({**found, "row": pa.array(range(row_count), pa.int64())})


def normal(value: Any) -> Any:
    """Equal, and hashable, for keys that are equal: NaN is NaN, -0.0 is 0.0."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value + 0.0
    if isinstance(value, dict):
        return tuple((name, normal(inner)) for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(normal(inner) for inner in value)
    return value


def keys_of(table: pa.Table, names: list[str]) -> list[tuple[Any, ...]]:
    """The key of each row."""
    values = [table.column(name).to_pylist() for name in names]
    return (
        [tuple(normal(value) for value in row) for row in zip(*values, strict=True)] if names else [()] * table.num_rows
    )


class Descending:
    """Compares the other way round."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Descending) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: Descending) -> bool:
        return bool(other.value < self.value)


def sort_key(value: Any, *, is_descending: bool = False) -> tuple[Any, ...]:
    """Numbers and so on, then NaN, then null."""
    if value is None:
        return (2,)
    if isinstance(value, float) and math.isnan(value):
        return (1,)
    if isinstance(value, str):
        value = value.encode()
    return (0, Descending(value) if is_descending else value)


def sorted_rows(table: pa.Table, names: list[str], directions: list[bool]) -> list[int]:
    """The rows in order."""
    values = [table.column(name).to_pylist() for name in names]

    def key(row: int) -> list[tuple[Any, ...]]:
        pairs = zip(values, directions, strict=True)
        return [sort_key(column[row], is_descending=is_descending) for column, is_descending in pairs]

    return sorted(range(table.num_rows), key=key)


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """All values of each row, so that equal ones compare equal."""
    return keys_of(table, table.column_names)
