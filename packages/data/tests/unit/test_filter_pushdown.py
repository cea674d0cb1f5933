"""Filters of expressions, handed to sources: the same rows as reading all and filtering then."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import counting_files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reading
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.data import datasource
from umbel.data._expressions import evaluate
from umbel.data._sources.csv import CSVDatasource
from umbel.data._sources.parquet import ParquetDatasource
from umbel.data.expressions import col, lit


def filtered(source: datasource.Datasource, expr: Any) -> list[dict[str, Any]]:
    """As a plan does it: what the source leaves is evaluated on what it gives."""
    reader, residual = source.with_filter(expr)
    table = reading.table(reader)
    return list((table if residual is None else evaluate.filter(table, residual)).to_pylist())


_ints = st.none() | st.integers(-3, 3)
_floats = st.none() | st.sampled_from([math.nan, -0.0, 0.0, 1.5, -2.0, math.inf])
_texts = st.none() | st.sampled_from(["", "a", "b", "ü"])
_atoms = st.one_of(
    st.builds(lambda bound: col("i") > bound, st.integers(-3, 3)),
    st.builds(lambda bound: col("i") != bound, st.integers(-3, 3)),
    st.builds(lambda bound: ~(col("x") <= bound), st.sampled_from([0.0, 1.5])),
    st.builds(lambda bound: col("x") == bound, st.sampled_from([0.0, 1.5])),
    st.builds(lambda bound: lit(bound) < col("s"), st.sampled_from(["a", ""])),
    st.just(col("i").is_in([1, None])),
    st.just(~col("i").is_in([0, 2])),
    st.just(col("x").is_null()),
    st.just(col("i") + 1 > 2),
    st.just(col("k") == "2"),
)
_filters = st.recursive(
    _atoms,
    lambda inner: st.builds(lambda a, b: a & b, inner, inner) | st.builds(lambda a, b: a | b, inner, inner),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(rows=st.lists(st.tuples(_ints, _floats, _texts), max_size=10), group_rows=st.integers(1, 3), expr=_filters)
def test_parquet_gives_the_rows_that_pass(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, Any, Any]], group_rows: int, expr: Any
) -> None:
    directory = tmp_path_factory.mktemp("rows")
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    types = [pa.int64(), pa.float64(), pa.string()]
    table = pa.table({name: pa.array(values, kind) for name, values, kind in zip("ixs", columns, types, strict=True)})
    for key, part in (("1", table.slice(0, 4)), ("2", table.slice(4))):
        (directory / f"k={key}").mkdir()
        pq.write_table(part, directory / f"k={key}" / "a.parquet", row_group_size=group_rows)
    source = ParquetDatasource(directory)

    assert repr(filtered(source, expr)) == repr(evaluate.filter(reading.table(source), expr).to_pylist())


def test_what_concerns_the_path_alone_is_taken_from_any_format(tmp_path: Path) -> None:
    for key in "123":
        (tmp_path / f"k={key}").mkdir()
        (tmp_path / f"k={key}" / f"{key}.csv").write_text(f"a\n{key}\n5\n")
    counting = counting_files.file_system()
    source = CSVDatasource(
        tmp_path, partitioning=datasource.Partitioning("hive", field_types={"k": int}), filesystem=counting
    )
    reader, residual = source.with_filter((col("k") > 1) & (col("a") < 5))
    assert residual is not None
    table = pa.concat_tables(reading.blocks(reader, travels=False))
    assert evaluate.filter(table, residual).to_pylist() == [{"a": 2, "k": 2}, {"a": 3, "k": 3}]
    assert set(counting.opened) == {"2.csv", "3.csv"}
    same, left = source.with_filter(col("a") < 5)
    assert (same, left is not None) == (source, True)


def test_a_filter_behind_a_limit_is_left_to_the_plan(tmp_path: Path) -> None:
    pq.write_table(pa.table({"i": [1, 2, 3]}), tmp_path / "a.parquet")
    limited = ParquetDatasource(tmp_path).with_limit(2)
    same, left = limited.with_filter(col("i") > 1)
    assert same is limited
    assert left is not None


def test_an_unknown_column_is_an_error_at_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"i": [1, 2, 3]}), tmp_path / "a.parquet")
    with pytest.raises(KeyError, match=r"'ii'.*did you mean 'i'"):
        ParquetDatasource(tmp_path).with_filter(col("ii") > 1)
