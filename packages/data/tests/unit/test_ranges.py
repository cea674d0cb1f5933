"""Rows that are counted, drawn, or given by a user's own source."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import reading

from umbel.data import datasource
from umbel.data._sources import ranges
from umbel.data.datasource import BlockMetadata, RandomIntRowDatasource, RangeDatasource, ReadTask


@pytest.mark.parametrize(("n", "parallelism"), [(0, 1), (0, 4), (1, 4), (10, 1), (10, 3), (10, 20)])
def test_a_range_counts_from_nothing_in_every_division(n: int, parallelism: int) -> None:
    source = RangeDatasource(n)
    table = reading.table(source, parallelism=parallelism)
    assert table.column("id").to_pylist() == list(range(n))
    assert table.schema == source.schema() == pa.schema([("id", pa.int64())])
    assert len(source.get_read_tasks(parallelism)) == max(1, min(n, parallelism))
    assert source.row_count() == n
    assert source.estimate_inmemory_data_size() == 8 * n


def test_a_range_of_tensors_fills_each_with_its_number() -> None:
    source = RangeDatasource(5, tensor_shape=(2, 3))
    table = reading.table(source, parallelism=2)
    expected = np.arange(5).reshape(5, 1, 1) * np.ones((1, 2, 3), dtype=np.int64)
    assert (table.column("data").combine_chunks().to_numpy_ndarray() == expected).all()
    assert table.schema == source.schema()
    assert source.get_name() == "RangeTensor"


def test_a_limit_makes_only_what_is_wanted() -> None:
    limited = RangeDatasource(1000).with_limit(7).with_limit(9)
    assert limited.row_count() == 7
    assert reading.table(limited, parallelism=2).column("id").to_pylist() == list(range(7))


def test_large_ranges_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_ROWS_AT_ONCE", 4)
    (task,) = RangeDatasource(10).get_read_tasks(1)
    assert [table.num_rows for table in task.read_fn()] == [4, 4, 2]
    assert [table.num_rows for table in task(target_bytes=64)] == [8, 2]
    assert [table.num_rows for table in task(target_bytes=16)] == [2, 2, 2, 2, 2]


def test_random_rows_do_not_depend_on_how_they_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_ROWS_AT_ONCE", 8)
    source = RandomIntRowDatasource(30, 2, seed=3)
    whole = reading.table(source, parallelism=1)
    assert whole.schema == source.schema()
    for parallelism in (2, 3, 7, 30):
        assert reading.table(source, parallelism=parallelism).equals(whole)
    assert len(set(whole.column("c_0").to_pylist() + whole.column("c_1").to_pylist())) == 60
    assert not reading.table(RandomIntRowDatasource(30, 2, seed=4)).equals(whole)
    unseeded = RandomIntRowDatasource(5, 1)
    assert reading.table(unseeded).equals(reading.table(unseeded))


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="must be >= 0, got -1"):
        RangeDatasource(-1)


def letters(count: int) -> Iterator[pa.Table]:
    for index in range(count):
        yield pa.table({"x": ["abc"[index]]})


def test_a_source_of_a_users_own_needs_tasks_only() -> None:
    class LettersDatasource(datasource.Datasource):
        def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[ReadTask]:
            return [ReadTask(lambda: letters(3), BlockMetadata(num_rows=3), per_task_row_limit=per_task_row_limit)]

    source = LettersDatasource()
    assert [row["x"] for row in reading.rows(source, travels=False)] == ["a", "b", "c"]
    (task,) = source.get_read_tasks(1, per_task_row_limit=2)
    assert [table.to_pylist() for table in task()] == [[{"x": "a"}, {"x": "b"}]]
    assert source.get_name() == "Letters"
    assert (source.schema(), source.row_count(), source.with_columns(["x"])) == (None, None, None)
    assert source.with_filter("x") == (source, "x")
    assert source.with_limit(1) is source


def test_a_limit_of_nothing_gives_the_schema() -> None:
    task = ReadTask(lambda: letters(3), BlockMetadata(), per_task_row_limit=0)
    assert [table.schema.names for table in task()] == [["x"]]
    assert [table.num_rows for table in task()] == [0]


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(TypeError, match="a reader gave dict; it must give"):
        list(ReadTask(lambda: [{"x": 1}], BlockMetadata())())  # type: ignore[list-item,return-value]
    with pytest.raises(TypeError, match="must give tables one after the other, got NoneType"):
        list(ReadTask(lambda: None, BlockMetadata())())  # type: ignore[arg-type,return-value]
