"""Reading Parquet: what is read, what is left unread, and that nothing else changes by it."""

from __future__ import annotations

import datetime
import decimal
import itertools
import math
import pickle
from pathlib import Path
from typing import Any

import counting_files
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import reading
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.data import datasource
from umbel.data._sources import parquet


def written(directory: Path, count: int, *, rows: int = 3, start: int = 0) -> list[Path]:
    paths = []
    directory.mkdir(parents=True, exist_ok=True)
    for index in range(start, start + count):
        path = directory / f"part-{index:05}.parquet"
        ids = range(index * rows, (index + 1) * rows)
        pq.write_table(pa.table({"id": list(ids), "name": [f"n{one}" for one in ids]}), path)
        paths.append(path)
    return paths


def many_types() -> pa.Table:
    zone = datetime.timezone.utc
    return pa.table(
        {
            "int": pa.array([1, None, -3], pa.int32()),
            "float": [0.5, math.inf, None],
            "text": pa.array(["a", None, "ü"]).dictionary_encode(),
            "when": pa.array(
                [datetime.datetime(2026, 1, 2, tzinfo=zone), None, None], pa.timestamp("us", "Europe/Rome")
            ),
            "price": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-9.99")], pa.decimal128(9, 2)),
            "list": [[1, 2], [], None],
            "struct": [{"x": 1, "y": "a"}, None, {"x": None, "y": None}],
            "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
            "a.b": [1, 2, 3],
            "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(__import__("numpy").arange(12).reshape(3, 2, 2)),
        }
    )


def test_every_type_comes_back_as_it_was_written(tmp_path: Path) -> None:
    table = many_types()
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)

    source = parquet.ParquetDatasource(str(tmp_path))

    assert reading.table(source).combine_chunks().equals(table.combine_chunks())
    assert source.schema() == table.schema.remove_metadata()
    assert source.row_count() == 3


@pytest.mark.parametrize("columns", [["text"], ["struct", "int"], ["a.b"]])
def test_columns_come_in_the_order_in_which_they_are_asked_for(tmp_path: Path, columns: list[str]) -> None:
    table = many_types()
    pq.write_table(table, tmp_path / "a.parquet")

    source = parquet.ParquetDatasource(tmp_path).with_columns(columns)

    assert source is not None
    assert reading.table(source).combine_chunks().equals(table.select(columns).combine_chunks())
    assert source.schema() == table.select(columns).schema.remove_metadata()


def test_rows_are_counted_where_no_column_is_wanted(tmp_path: Path) -> None:
    written(tmp_path, 3)
    source = parquet.ParquetDatasource(tmp_path).with_columns([])
    assert source is not None
    assert sum(block.num_rows for block in reading.blocks(source)) == 9


def test_an_unknown_column_is_named_with_those_nearest_to_it(tmp_path: Path) -> None:
    written(tmp_path, 1)
    with pytest.raises(KeyError, match=r"no column 'nam'.*did you mean 'name'"):
        parquet.ParquetDatasource(tmp_path, columns=["nam"])


def test_two_thousand_tiny_files_are_few_tasks_of_many_files(tmp_path: Path) -> None:
    written(tmp_path, 2)
    small = (tmp_path / "part-00000.parquet").read_bytes()
    for index in range(2, 2000):
        (tmp_path / f"part-{index:05}.parquet").write_bytes(small)

    counting = counting_files.file_system()
    source = parquet.ParquetDatasource(tmp_path, filesystem=counting)
    tasks = source.get_read_tasks(8)

    assert len(tasks) == 8
    assert [len(task.metadata.input_files) for task in tasks] == [250] * 8
    assert len(counting.opened) == 64, "of most files nothing is read before a task has them"
    assert counting.listed == 1
    path_bytes = len(str(tmp_path / "part-00000.parquet"))
    assert max(len(pickle.dumps(task)) for task in tasks) < 250 * (path_bytes + 40) + 5000, (
        "it travels without the list of all"
    )


def test_tiny_files_are_put_together_into_one_block(tmp_path: Path) -> None:
    written(tmp_path, 40)
    blocks = reading.blocks(parquet.ParquetDatasource(tmp_path), parallelism=2)
    assert [block.num_rows for block in blocks] == [60, 60]
    assert pa.concat_tables(blocks).column("id").to_pylist() == list(range(120))


def test_a_large_file_is_divided_into_its_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_DIVIDED_BYTES", 1000)
    table = pa.table({"id": range(10_000)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1000)

    tasks = parquet.ParquetDatasource(tmp_path).get_read_tasks(4)

    assert [task.metadata.num_rows for task in tasks] == [3000, 2000, 3000, 2000]
    assert pa.concat_tables(block for task in tasks for block in task()).equals(table)


def test_blocks_are_bounded_by_bytes(tmp_path: Path) -> None:
    table = pa.table({"id": range(100_000)})
    pq.write_table(table, tmp_path / "a.parquet")
    blocks = reading.blocks(parquet.ParquetDatasource(tmp_path), target_bytes=100_000)
    assert max(block.nbytes for block in blocks) <= 100_100
    assert pa.concat_tables(blocks).equals(table)


def test_partitions_that_a_filter_excludes_are_not_opened(tmp_path: Path) -> None:
    for year, month in itertools.product((2024, 2025), (1, 2, 3)):
        written(tmp_path / f"year={year}" / f"month={month}", 1, start=year * 10 + month)
    counting = counting_files.file_system()
    scheme = datasource.Partitioning("hive", field_types={"year": int, "month": int})
    source = parquet.ParquetDatasource(tmp_path, filesystem=counting, partitioning=scheme)
    everything = reading.table(source, travels=False)
    counting.opened.clear()

    expression = (pc.field("year") == 2025) & (pc.field("month") > 1)
    filtered, residual = source.with_filter(expression)
    found = reading.table(filtered, travels=False)

    assert residual is None
    assert found.equals(everything.filter(expression))
    assert set(counting.opened) == {"part-20252.parquet", "part-20253.parquet"}
    assert everything.schema.names == ["id", "name", "year", "month"]


def test_row_groups_and_columns_that_are_not_wanted_are_not_read(tmp_path: Path) -> None:
    rows = 40_000
    wide = pa.table(
        {"id": range(rows), **{f"c{index}": [index + row * 7919 for row in range(rows)] for index in range(6)}}
    )
    pq.write_table(wide, tmp_path / "a.parquet", row_group_size=4000, compression="none", use_dictionary=False)
    size_bytes = (tmp_path / "a.parquet").stat().st_size

    def read_bytes(source: datasource.Datasource) -> int:
        counting.read_bytes.clear()
        reading.table(source, travels=False)
        return counting.read_bytes["a.parquet"]

    counting = counting_files.file_system()
    source = parquet.ParquetDatasource(tmp_path, filesystem=counting)
    few_columns = source.with_columns(["id"])
    assert few_columns is not None
    few_rows, _ = source.with_filter(pc.field("id") < 4000)

    assert read_bytes(source) >= size_bytes * 0.9
    assert read_bytes(few_columns) < size_bytes / 5
    assert read_bytes(few_rows) < size_bytes / 5


@pytest.mark.parametrize(
    "expression",
    [
        pc.field("x") != 5.0,
        ~(pc.field("x") <= 7.0),
        ~pc.is_in(pc.field("x"), pa.array([5.0])),
        pc.is_nan(pc.field("x")),
    ],
)
def test_statistics_do_not_hide_what_is_not_a_number(tmp_path: Path, expression: Any) -> None:
    """Arrow's statistics leave NaN out, and by them a row group of 5.0 and NaN has no row for which x != 5.0."""
    table = pa.table({"x": [5.0, math.nan]})
    pq.write_table(table, tmp_path / "a.parquet")
    source, _ = parquet.ParquetDatasource(tmp_path).with_filter(expression)
    assert reading.table(source).num_rows == table.filter(expression).num_rows == 1


_values = st.one_of(st.none(), st.integers(-3, 3))


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(
    st.lists(st.tuples(_values, st.one_of(st.none(), st.sampled_from([math.nan, -1.0, 0.0, 2.0]))), max_size=12),
    st.integers(1, 4),
    st.integers(-3, 3),
    st.sampled_from(["<", ">=", "==", "!=", "in", "null", "not"]),
    st.sampled_from(["i", "x"]),
    st.sampled_from([["x"], ["i", "x"], ["i"]]),
)
def test_filters_give_what_reading_all_and_filtering_gives(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[Any, Any]],
    group_rows: int,
    bound: int,
    kind: str,
    name: str,
    columns: list[str],
) -> None:
    directory = tmp_path_factory.mktemp("rows")
    table = pa.table(
        {"i": pa.array([row[0] for row in rows], pa.int64()), "x": pa.array([row[1] for row in rows], pa.float64())}
    )
    pq.write_table(table, directory / "a.parquet", row_group_size=group_rows)
    field = pc.field(name)
    expression = {
        "<": field < bound,
        ">=": field >= bound,
        "==": field == bound,
        "!=": field != bound,
        "in": field.isin([bound, 0]),
        "null": field.is_null(),
        "not": ~((field < bound) | (pc.field("i") == 1)),
    }[kind]

    filtered, _ = parquet.ParquetDatasource(directory).with_filter(expression)
    source = filtered.with_columns(columns)

    assert source is not None
    expected = table.filter(expression).select(columns)
    assert repr(reading.table(source).to_pydict()) == repr(expected.to_pydict())


def test_a_limit_leaves_later_files_alone(tmp_path: Path) -> None:
    written(tmp_path, 10)
    source = parquet.ParquetDatasource(tmp_path)
    assert source.row_count() == 30  # now the footers are known
    limited = source.with_limit(7)
    tasks = limited.get_read_tasks(10)
    assert [len(task.metadata.input_files) for task in tasks] == [1, 1, 1]
    assert reading.table(limited, parallelism=1).column("id").to_pylist() == list(range(7))
    assert limited.row_count() == 7


def test_files_of_unlike_schemas_are_unified(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([1], pa.int32())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"b": ["x"], "a": pa.array([2], pa.int64())}), tmp_path / "b.parquet")
    source = parquet.ParquetDatasource(tmp_path)
    assert source.schema() == pa.schema([("a", pa.int64()), ("b", pa.string())])
    assert reading.rows(source, parallelism=2) == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]


def test_schemas_that_do_not_go_together_are_shown_with_their_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"a": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"column 'a' is int64 in '.*a\.parquet' and string in '.*b\.parquet'"):
        parquet.ParquetDatasource(tmp_path).schema()


def test_a_file_that_differs_from_those_looked_at_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_FOOTERS_LOOKED_AT_MAX", 2)
    written(tmp_path, 3)
    pq.write_table(pa.table({"id": [1], "name": ["x"], "more": [2]}), tmp_path / "part-00001.parquet")
    with pytest.raises(ValueError, match=r"part-00001\.parquet' has columns or types.*more: int64.*pass schema="):
        reading.table(parquet.ParquetDatasource(tmp_path))

    given = pa.schema([("more", pa.int32()), ("id", pa.int64())])
    rows = reading.rows(parquet.ParquetDatasource(tmp_path, schema=given))
    assert [row["more"] for row in rows] == [None, None, None, 2, None, None, None]


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    written(tmp_path, 2)
    (tmp_path / "part-00001.parquet").write_bytes(b"PAR1 nothing of the kind PAR1")
    with pytest.raises(datasource.FileReadError, match=r"Parquet cannot read '.*part-00001\.parquet'") as caught:
        parquet.ParquetDatasource(tmp_path).schema()
    assert caught.value.path == str(tmp_path / "part-00001.parquet")
    assert pickle.loads(pickle.dumps(caught.value)).path == caught.value.path


def test_a_file_cut_off_after_the_plan_was_made_is_named(tmp_path: Path) -> None:
    written(tmp_path, 2)
    tasks = parquet.ParquetDatasource(tmp_path).get_read_tasks(1)
    (tmp_path / "part-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(datasource.FileReadError, match=r"part-00001\.parquet"):
        list(tasks[0]())


def test_paths_come_as_a_column_and_decide_what_is_opened(tmp_path: Path) -> None:
    paths = written(tmp_path, 3)
    counting = counting_files.file_system()
    source = parquet.ParquetDatasource(tmp_path, include_paths=True, filesystem=counting)
    assert reading.table(source, travels=False).column("path").to_pylist() == [
        str(path) for path in paths for _ in range(3)
    ]
    counting.opened.clear()
    one, _ = source.with_filter(pc.field("path") == str(paths[1]))
    assert reading.table(one, travels=False).column("id").to_pylist() == [3, 4, 5]
    assert set(counting.opened) == {"part-00001.parquet"}


def test_an_empty_table_keeps_its_schema(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([], pa.int16())})
    pq.write_table(table, tmp_path / "a.parquet")
    assert reading.table(parquet.ParquetDatasource(tmp_path)).equals(table)


def test_nothing_passes_a_filter_that_nothing_meets(tmp_path: Path) -> None:
    written(tmp_path, 2)
    source, _ = parquet.ParquetDatasource(tmp_path).with_filter(pc.field("id") > 1000)
    found = reading.table(source)
    assert found.num_rows == 0
    assert found.schema.names == ["id", "name"]


STAMPS = [datetime.datetime(2026, 1, day, tzinfo=datetime.timezone.utc) for day in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("column", "bound", "groups"),
    [
        (pa.array([1, 2, 3, 4], pa.uint8()), 3, [2, 3]),
        (pa.array(["a", "b", "c", "d"]), "c", [2, 3]),
        (pa.array([b"a", b"b", b"c", b"d"]), b"c", [2, 3]),
        (pa.array([1.5, 2.5, 3.5, None]), 3.5, [2]),
        (pa.array(STAMPS, pa.timestamp("us", "UTC")), STAMPS[2], [2, 3]),
        (pa.array([one.date() for one in STAMPS]), STAMPS[2].date(), [2, 3]),
        (pa.array([decimal.Decimal(one) for one in ("1.0", "2.0", "3.0", "4.0")]), decimal.Decimal("3.0"), [2, 3]),
        (pa.array([False, False, True, None]), True, [2]),
        (pa.array(["a", "b", "c", "d"]).dictionary_encode(), "c", [0, 1, 2, 3]),
        (pa.array([{"y": 1}, {"y": 2}, {"y": 3}, None]), None, [0, 1, 2, 3]),
    ],
)
def test_row_groups_are_left_out_by_bounds_of_every_type(
    tmp_path: Path, column: pa.Array, bound: Any, groups: list[int]
) -> None:
    pq.write_table(pa.table({"x": column}), tmp_path / "a.parquet", row_group_size=1)
    field = pc.field("x")
    if pa.types.is_dictionary(column.type):
        field = field.cast(pa.string())
    expression = pc.field("x").is_valid() | pc.field("x").is_null() if bound is None else field >= pa.scalar(bound)
    source, _ = parquet.ParquetDatasource(tmp_path).with_filter(expression)
    assert isinstance(source, parquet.ParquetDatasource)
    footer = pq.read_metadata(tmp_path / "a.parquet")
    found = source._possible_row_groups(str(tmp_path / "a.parquet"), footer, source._pruning())
    assert list(found) == groups
    assert reading.table(source).equals(reading.table(parquet.ParquetDatasource(tmp_path)).filter(expression))


def test_statistics_of_another_type_than_the_column_is_given_decide_nothing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "a.parquet", row_group_size=1)
    pq.write_table(pa.table({"x": [1.5]}), tmp_path / "b.parquet")
    source, _ = parquet.ParquetDatasource(tmp_path).with_filter(pc.field("x") > 1.2)
    assert reading.table(source).column("x").to_pylist() == [2.0, 1.5]
