"""A filter that a reader applies keeps the rows that `evaluate.filter` keeps, whatever the statistics of its row groups say."""

from __future__ import annotations

import datetime
import io
import operator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.data import expressions
from umbel.data._expressions import evaluate, nodes, pushdown
from umbel.data.expressions import col, lit, random, udf

SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("n", pa.int8()),
        ("u", pa.uint64()),
        ("f", pa.float64()),
        ("g", pa.float32()),
        ("p", pa.bool_()),
        ("s", pa.string()),
        ("d", pa.date32()),
        ("t", pa.timestamp("us", "UTC")),
        ("m", pa.decimal128(9, 2)),
        ("b", pa.binary()),
    ]
)
DAYS = st.dates(datetime.date(2024, 1, 1), datetime.date(2024, 1, 5))
MOMENTS = DAYS.map(lambda day: datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.timezone.utc))
FEW = {
    "i": st.integers(-3, 3) | st.just(2**53 + 1),
    "n": st.integers(-3, 3),
    "u": st.integers(0, 3) | st.just(2**64 - 1),
    "f": st.integers(-2, 2).map(float) | st.sampled_from([float("nan"), float("inf"), -0.0]),
    "g": st.integers(-2, 2).map(float) | st.sampled_from([float("nan"), 0.5]),
    "p": st.booleans(),
    "s": st.sampled_from(["", "a", "b", "ä"]),
    "d": DAYS,
    "t": MOMENTS,
    "m": st.sampled_from([Decimal("0.05"), Decimal("1.00"), Decimal("-2.50")]),
    "b": st.sampled_from([b"", b"a", b"\xff"]),
}
WRITTEN = {
    **FEW,
    "i": FEW["i"] | st.sampled_from([0.5, 1.0, 2.0**53, True]),
    "n": FEW["n"] | st.sampled_from([1000, -1.0]),
    "u": FEW["u"] | st.just(-1),
    "g": FEW["g"] | st.sampled_from([0.1, 1]),
    "f": FEW["f"] | st.sampled_from([1, 2**53 + 1]),
    "d": DAYS | DAYS.map(str),
    "m": FEW["m"] | st.sampled_from([0.05, 1, 0.051]),
}
ROWS = st.lists(st.fixed_dictionaries({name: st.none() | of for name, of in FEW.items()}), max_size=8)
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@st.composite
def predicates(draw: Any, depth: int = 3) -> expressions.Expr:
    kind = draw(st.sampled_from(["leaf", "leaf", "and", "or", "not"])) if depth else "leaf"
    if kind == "not":
        return ~draw(predicates(depth - 1))
    if kind != "leaf":
        left, right = draw(predicates(depth - 1)), draw(predicates(depth - 1))
        return left & right if kind == "and" else left | right
    name = draw(st.sampled_from(list(FEW)))
    value = draw(WRITTEN[name])
    leaf = draw(
        st.sampled_from(["compare", "reflected", "strong", "is_in", "not_in", "is_null", "is_not_null", "flag"])
    )
    if leaf == "compare":
        return draw(st.sampled_from(COMPARISONS))(col(name), value)
    if leaf == "reflected":
        symbol = draw(st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
        return expressions.Expr(nodes.Call(symbol, (nodes.literal(value), nodes.Column(name))))
    if leaf == "strong":
        return draw(st.sampled_from(COMPARISONS))(col(name), pa.scalar(draw(FEW[name]), SCHEMA.field(name).type))
    if leaf in ("is_in", "not_in"):
        members = draw(st.lists(st.none() | FEW[name], max_size=3))
        return getattr(col(name), leaf)(members)
    return col("p") if leaf == "flag" else getattr(col(name), leaf)()


def parquet(table: pa.Table, rows_per_group: int) -> pads.Dataset:
    """In memory, in row groups with statistics."""
    fragment = pads.ParquetFileFormat().make_fragment(pa.BufferReader(_bytes(table, rows_per_group)))
    return pads.FileSystemDataset([fragment], table.schema, pads.ParquetFileFormat())


def _bytes(table: pa.Table, rows_per_group: int | None = None) -> bytes:
    written = io.BytesIO()
    pq.write_table(table, written, row_group_size=rows_per_group)
    return written.getvalue()


def same_rows(found: pa.Table, expected: pa.Table) -> bool:
    """repr tells nan from null, and is the same for the same."""
    return repr(found.to_pylist()) == repr(expected.to_pylist())


@given(rows=ROWS, predicate=predicates(), rows_per_group=st.integers(1, 3))
@settings(max_examples=150, deadline=None, database=None, derandomize=True)
def test_readers_keep_the_rows_that_evaluation_keeps(
    rows: list[dict[str, Any]], predicate: expressions.Expr, rows_per_group: int
) -> None:
    table = pa.Table.from_pylist(rows, SCHEMA)
    expected = evaluate.filter(table, predicate)
    source = parquet(table, rows_per_group)
    whole = pushdown.to_pyarrow(predicate, SCHEMA)
    if whole is not None:
        assert same_rows(source.to_table(filter=whole), expected)
        assert same_rows(table.filter(whole), expected)
    split = pushdown.split(predicate, SCHEMA)
    read = source.to_table(filter=split.pushed)
    assert same_rows(read if split.residual is None else evaluate.filter(read, split.residual), expected)
    assert (split.residual is None) == (whole is not None)


CONVERTED = [
    col("i") > 5,
    expressions.Expr(nodes.Call(">=", (nodes.literal(5), nodes.Column("i")))),
    col("i") == 2.0,
    ~(col("i") > 5),
    col("f") >= 1,
    (col("s") == "a") & ~col("p"),
    col("s").is_in(["a", None]) | col("d").is_null(),
    col("s").not_in(["a"]),
    col("d") >= "2024-01-02",
    col("m").between(0.05, 0.07),
    col("u") < 7,
    col("t") < datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
]
NOT_CONVERTED = [
    col("f") != 1.0,
    ~(col("f") > 1.0),
    col("f").is_in([1.0]),
    col("i") > 2.5,
    col("g") == 0.1,
    col("i") > col("n"),
    col("i") + 1 > 2,
    col("u") > -1,
    col("s").str.len() > 1,
    lit(True),
    col("i") > np.int8(1),
    (col("i") > 5) | (col("f") != 1.0),
    random(seed=1) < 0.5,
    col("m") == 0.051,
]


@pytest.mark.parametrize("expr", CONVERTED, ids=repr)
def test_what_a_reader_can_do(expr: expressions.Expr) -> None:
    assert pushdown.to_pyarrow(expr, SCHEMA) is not None


@pytest.mark.parametrize("expr", NOT_CONVERTED, ids=repr)
def test_what_a_reader_is_not_trusted_with(expr: expressions.Expr) -> None:
    assert pushdown.to_pyarrow(expr, SCHEMA) is None
    split = pushdown.split(expr, SCHEMA)
    assert split.pushed is None
    assert split.residual is not None
    assert split.residual.structurally_equals(expr)


def test_nan_is_not_lost_to_statistics_that_do_not_know_it() -> None:
    """A reader that was handed ~(f > 5) would skip the row group: its statistics say that all of it is 6."""
    table = pa.table({"f": [6.0, float("nan")]})
    predicate = ~(col("f") > 5)
    assert parquet(table, 2).to_table(filter=~(pads.field("f") > 5)).num_rows == 0
    split = pushdown.split(predicate, table.schema)
    read = parquet(table, 2).to_table(filter=split.pushed)
    assert split.residual is not None
    assert evaluate.filter(read, split.residual).num_rows == evaluate.filter(table, predicate).num_rows == 1


def test_the_rest_of_a_conjunction_keeps_its_order() -> None:
    called: list[int] = []

    @udf("bool")
    def asked(x: pa.Array) -> pa.Array:
        called.append(len(x))
        return pa.array([True] * len(x))

    predicate = (col("f") != 0.0) & (col("i") > 1) & asked(col("i")) & (1 / col("f") > 0.1) & (col("s") == "a")
    split = pushdown.split(predicate, SCHEMA)
    assert str(split.pushed) == '((i > 1) and (s == "a"))'
    assert repr(split.residual) == "(col('f') != 0.0) & asked(col('i')) & (1 / col('f') > 0.1)"
    assert called == []


def test_nothing_goes_before_what_depends_on_the_place_of_a_row() -> None:
    split = pushdown.split((col("i") > 1) & (random(seed=1) < 0.5), SCHEMA)
    assert split.pushed is None


def test_a_name_with_a_dot_is_one_column() -> None:
    table = pa.table({"a.b": [1, 2]})
    found = pushdown.to_pyarrow(col("a.b") > 1, table.schema)
    assert table.filter(found)["a.b"].to_pylist() == [2]


def test_filters_are_checked_before_they_are_handed_over() -> None:
    with pytest.raises(expressions.UnknownColumnError):
        pushdown.to_pyarrow(col("x") > 1, SCHEMA)
    with pytest.raises(expressions.ExpressionTypeError, match="a filter has to be boolean"):
        pushdown.split(col("i") + 1, SCHEMA)


def test_partitions_are_pruned_by_what_is_pushed() -> None:
    """As statistics are used, so is what the paths of files say."""
    table = pa.table({"x": [1, 2, 3]})
    fragments = [
        pads.ParquetFileFormat().make_fragment(
            pa.BufferReader(_bytes(table)), partition_expression=pads.field("year") == year
        )
        for year in (2023, 2024)
    ]
    schema = pa.schema([("x", pa.int64()), ("year", pa.int64())])
    source = pads.FileSystemDataset(fragments, schema, pads.ParquetFileFormat())
    found = pushdown.to_pyarrow((col("year") >= 2024) & (col("x") != 2), schema)
    assert len(list(source.get_fragments(filter=found))) == 1
    assert source.to_table(filter=found).to_pylist() == [{"x": 1, "year": 2024}, {"x": 3, "year": 2024}]
