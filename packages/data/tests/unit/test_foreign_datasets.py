"""What others have in memory: frames of polars, results of DuckDB, datasets of Hugging Face and of torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import reading

from umbel import data
from umbel.data._sources.huggingface import HuggingFaceDatasource
from umbel.data._sources.torch_datasets import TorchDatasource

TABLE = pa.table({"a": [1, None, 3], "s": ["ü", "", None], "l": [[1, None], [], None]})
ROWS = TABLE.to_pylist()


class Streamed:
    """All that is known of it is how it gives its rows."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return TABLE.__arrow_c_stream__(requested_schema)


def test_whatever_streams_arrow_is_a_dataset() -> None:
    reader = pa.RecordBatchReader.from_batches(TABLE.schema, TABLE.to_batches(max_chunksize=1))
    for given in (Streamed(), reader, TABLE, TABLE.to_batches()[0], [Streamed(), TABLE.slice(3)]):
        assert data.from_arrow(given).take_all() == ROWS
    with pytest.raises(TypeError, match="anything with __arrow_c_stream__, is needed; got dict"):
        data.from_arrow({"a": [1]})
    with pytest.raises(TypeError, match=r"has no columns: .*; make a frame or a table of it"):
        data.from_arrow(pa.chunked_array([[1]]))


def test_frames_of_polars_come_with_plain_types() -> None:
    """As they stream, their text is of views, which Arrow's kernels know nothing of."""
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(TABLE).with_columns(c=pl.Series(["x", "ü", None], dtype=pl.Categorical))
    for make in (data.from_polars, data.from_arrow):
        found = make(frame)
        assert found.select_columns(TABLE.column_names).take_all() == ROWS
        assert [row["c"] for row in found.take_all()] == ["x", "ü", None]
        assert "view" not in repr(found.schema())
        assert found.groupby("s").count().count() == 3
    lazy = frame.lazy().filter(pl.col("a") == 3).select("a")
    assert data.from_polars([lazy, frame.select("a")]).take_all() == [{"a": 3}, {"a": 1}, {"a": None}, {"a": 3}]
    assert data.from_polars(frame.clear()).columns() == frame.columns


@pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")
def test_relations_and_results_of_duckdb() -> None:
    duckdb = pytest.importorskip("duckdb")
    connection = duckdb.connect()
    query = "SELECT * FROM (VALUES (1, 'ü'), (NULL, NULL)) AS t(a, s)"
    expected = [{"a": 1, "s": "ü"}, {"a": None, "s": None}]
    assert data.from_duckdb(connection.sql(query)).take_all() == expected
    assert data.from_duckdb(connection.execute(query)).take_all() == expected
    nothing = data.from_duckdb(connection.sql(f"{query} WHERE a > 9"))
    assert (nothing.take_all(), nothing.columns()) == ([], ["a", "s"])
    assert data.from_duckdb(connection.sql("SELECT * FROM range(10) AS t(n)"), override_num_blocks=3).num_blocks() == 3


@pytest.fixture(scope="module")
def hugging_face() -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(TABLE.to_pydict())


def test_a_dataset_of_hugging_face(hugging_face: Any) -> None:
    assert data.from_huggingface(hugging_face).take_all() == ROWS
    assert data.from_huggingface(hugging_face.select([2, 0])).take_all() == [ROWS[2], ROWS[0]]
    assert data.from_huggingface(hugging_face.select([])).columns() == TABLE.column_names
    assert data.from_huggingface(hugging_face, override_num_blocks=2).num_blocks() == 2
    with pytest.raises(
        ValueError, match=r"dictionary of datasets, \['train'\]; give one of them, such as ds\['train'\]"
    ):
        data.from_huggingface({"train": hugging_face})


def test_an_iterable_dataset_of_hugging_face_is_read_by_its_shards(hugging_face: Any) -> None:
    source = HuggingFaceDatasource(hugging_face.to_iterable_dataset(num_shards=3))
    assert len(source.get_read_tasks(-1)) == 3
    assert reading.rows(source, travels=False) == ROWS
    assert reading.rows(source.with_limit(2), travels=False) == ROWS[:2]
    assert reading.table(source, travels=False).schema == source.schema() == TABLE.schema


class Squares:
    """A map-style dataset, as torch wants it, without torch."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 7:
            raise RuntimeError("no such picture")
        return {"n": index, "x": np.full((2, 2), index, np.float32), "s": "ü"}


class Pairs(Squares):
    def __getitem__(self, index: int) -> Any:  # type: ignore[override]
        return np.arange(2) + index, np.int64(index)


class Stream:
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def test_a_map_style_dataset_is_divided_by_its_indices() -> None:
    source = TorchDatasource(Squares(6))
    assert source.row_count() == 6
    assert [task.metadata.num_rows for task in source.get_read_tasks(4)] == [1, 2, 1, 2]
    assert [row["n"] for row in reading.rows(source, parallelism=4)] == list(range(6))
    assert reading.table(source).schema.field("x").type == pa.fixed_shape_tensor(pa.float32(), (2, 2))
    assert data.from_torch(Squares(6)).limit(2).select_columns(["n", "s"]).take_all() == [
        {"n": 0, "s": "ü"},
        {"n": 1, "s": "ü"},
    ]
    assert data.from_torch(Squares(0)).take_all() == []
    with pytest.raises(ValueError, match="item 7 of the torch dataset Squares cannot be read: RuntimeError"):
        reading.rows(TorchDatasource(Squares(9)))


def test_what_is_no_mapping_is_columns_of_items() -> None:
    assert data.from_torch(Pairs(2)).select_columns(["item_1"]).take_all() == [{"item_1": 0}, {"item_1": 1}]
    assert data.from_torch(Pairs(2)).schema().names == ["item_0", "item_1"]  # type: ignore[union-attr]
    source = TorchDatasource(Stream())
    assert (source.row_count(), len(source.get_read_tasks(8))) == (None, 1)
    assert reading.rows(source) == [{"item": 0}, {"item": 1}, {"item": 2}]
    assert data.from_torch(Stream(), local_read=True).take_all() == [{"item": 0}, {"item": 1}, {"item": 2}]


@pytest.mark.torch
def test_datasets_of_torch_itself() -> None:
    torch = pytest.importorskip("torch")
    pairs = torch.utils.data.TensorDataset(torch.arange(6).reshape(3, 2), torch.tensor([0, 1, 2]))
    found = data.from_torch(pairs).take_all()
    assert [(row["item_0"].tolist(), row["item_1"]) for row in found] == [([0, 1], 0), ([2, 3], 1), ([4, 5], 2)]
