"""Programs as the guide of Ray Data writes them, with nothing changed but the import. What they give is what Ray 2.60 gave."""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import umbel as ray
import umbel.data
from umbel.data.aggregate import AggregateFn, AggregateFnV2, Count, Mean, Quantile
from umbel.data.block import BlockAccessor, BlockMetadata
from umbel.data.datasource import (
    Datasink,
    Datasource,
    FileBasedDatasource,
    FilenameProvider,
    Partitioning,
    PathPartitionFilter,
    ReadTask,
    RowBasedFileDatasink,
)
from umbel.data.datatype import DataType
from umbel.data.expressions import col, lit, udf
from umbel.data.preprocessors import Chain, Concatenator, OneHotEncoder, StandardScaler

pytestmark = pytest.mark.timeout(120)

IRIS = """sepal,petal,target
5.1,0.2,0
4.9,0.2,0
4.7,0.2,0
7.0,1.4,1
6.4,1.5,1
6.3,2.5,2
"""


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    ray.init(num_cpus=2, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def iris(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "iris.csv"
    path.write_text(IRIS)
    return str(path)


# ---- loading and inspecting ----


def test_loading_and_inspecting_data(iris: str, capsys: pytest.CaptureFixture[str]) -> None:
    ds = ray.data.read_csv(iris)
    ds.show(2)
    assert capsys.readouterr().out.splitlines() == [
        "{'sepal': 5.1, 'petal': 0.2, 'target': 0}",
        "{'sepal': 4.9, 'petal': 0.2, 'target': 0}",
    ]
    assert (ds.count(), ds.columns(), ds.input_files()) == (6, ["sepal", "petal", "target"], [iris])
    assert ds.schema().names == ["sepal", "petal", "target"]  # type: ignore[union-attr]
    assert [str(one) for one in ds.schema().types] == ["double", "double", "int64"]  # type: ignore[union-attr]
    assert {name: array.tolist() for name, array in ds.take_batch(batch_size=2).items()} == {
        "sepal": [5.1, 4.9],
        "petal": [0.2, 0.2],
        "target": [0, 0],
    }
    assert [ds.sum("target"), ds.max("petal"), round(ds.mean("sepal"), 3)] == [4, 2.5, 5.733]
    assert ray.data.range(100, override_num_blocks=5).materialize().num_blocks() == 5
    assert not ray.data.range(3).stats()


def test_loading_partitioned_files(tmp_path: pathlib.Path) -> None:
    for year in ("2022", "2023"):
        (tmp_path / f"year={year}").mkdir()
        (tmp_path / f"year={year}" / "a.json").write_text(json.dumps({"n": int(year) % 7}) + "\n")
    assert ray.data.read_json(str(tmp_path)).take_all() == [{"n": 6, "year": "2022"}, {"n": 0, "year": "2023"}]
    only = PathPartitionFilter.of(style="hive", filter_fn=lambda found: found["year"] == "2023")
    assert ray.data.read_json(str(tmp_path), partition_filter=only).take_all() == [{"n": 0, "year": "2023"}]


def test_working_with_images(tmp_path: pathlib.Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
    for name in ("cat/a", "dog/b"):
        (tmp_path / name).parent.mkdir(parents=True)
        image.fromarray(pixels).save(tmp_path / f"{name}.png")
    partitioning = Partitioning("dir", field_names=["class"], base_dir=str(tmp_path))
    ds = ray.data.read_images(str(tmp_path), partitioning=partitioning)

    def brighter(batch: dict[str, Any]) -> dict[str, Any]:
        batch["image"] = np.clip(batch["image"].astype(int) + 100, 0, 255).astype(np.uint8)
        return batch

    rows = ds.map_batches(brighter).take_all()
    assert [row["class"] for row in rows] == ["cat", "dog"]
    assert np.array_equal(rows[0]["image"], np.clip(pixels.astype(int) + 100, 0, 255))
    ds.write_images(str(tmp_path / "out"), column="image")
    assert {np.array(image.open(one)).shape for one in (tmp_path / "out").iterdir()} == {(8, 6, 3)}
    (row,) = ray.data.read_images(str(tmp_path / "cat"), size=(4, 5), mode="L").take_all()
    assert (row["image"].shape, row["image"].dtype) == ((4, 5), np.uint8)


class Squares(Datasource):
    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        metadata = BlockMetadata(num_rows=2, size_bytes=16, exec_stats=None, task_exec_stats=None, input_files=None)  # type: ignore[arg-type]
        return [
            ReadTask(lambda n=n: [pa.table({"x": [n, n * n]})], metadata, per_task_row_limit=per_task_row_limit)  # type: ignore[misc]
            for n in range(3)
        ]

    def estimate_inmemory_data_size(self) -> int | None:
        return None


class Lengths(FileBasedDatasource):
    def _read_stream(self, f: pa.NativeFile, path: str) -> Iterator[pa.Table]:
        yield pa.table({"length": [len(f.readall())]})


def test_sources_of_ones_own(iris: str) -> None:
    assert [row["x"] for row in ray.data.read_datasource(Squares()).take_all()] == [0, 0, 1, 1, 2, 4]
    assert ray.data.read_datasource(Lengths(iris)).take_all() == [{"length": len(IRIS)}]


# ---- transforming ----


class Predictor:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["output"] = batch["data"].sum(axis=1) * self.factor
        return batch


def test_transforming_rows_and_batches() -> None:
    ds = ray.data.from_items([{"name": "Luna", "age": 4}, {"name": "Rory", "age": 14}, {"name": "Scout", "age": 9}])
    assert ds.map(lambda row: {"n": row["name"][0]}).take_all() == [{"n": "L"}, {"n": "R"}, {"n": "S"}]
    assert ds.flat_map(lambda row: [row] * 2).count() == 6

    def dog_years(batch: Any) -> Any:
        batch["dog_years"] = 7 * batch["age"]
        return batch

    for batch_format in ("numpy", "pandas"):
        if batch_format == "pandas":
            pytest.importorskip("pandas")
        found = ds.map_batches(dog_years, batch_format=batch_format).take_all()
        assert [row["dog_years"] for row in found] == [28, 98, 63]
    assert ds.filter(lambda row: row["age"] > 8).count() == ds.filter(expr="age > 8").count() == 2
    assert ds.sort("age", descending=True).take(1) == [{"name": "Rory", "age": 14}]

    def several(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for number in range(3):
            yield {"data": np.full(1, number)}

    assert ray.data.range(4).map_batches(several, batch_size=4).take_all() == [{"data": 0}, {"data": 1}, {"data": 2}]


def test_batch_inference() -> None:
    ds = ray.data.from_numpy(np.ones((6, 100)))
    predictions = ds.map_batches(
        Predictor, fn_constructor_args=(2,), compute=ray.data.ActorPoolStrategy(size=2), batch_size=2, num_cpus=0.5
    )
    assert [row["output"] for row in predictions.iter_rows()] == [200.0] * 6


def test_expressions() -> None:
    @udf(return_dtype=DataType.int64())
    def add_one(values: pa.Array) -> pa.Array:
        return pc.add(values, 1)

    ds = ray.data.from_items([{"s": "Hello", "n": -1.5, "a": 1}, {"s": "wOrld", "n": 2.5, "a": 2}])
    ds = ds.with_column("u", col("s").str.upper()).with_column("abs", col("n").abs()).with_column("k", lit("k"))
    ds = ds.with_column("b", add_one(col("a")) * 10).filter(expr=(col("a") > 0) & col("s").str.starts_with("w"))
    assert ds.take_all() == [{"s": "wOrld", "n": 2.5, "a": 2, "u": "WORLD", "abs": 2.5, "k": "k", "b": 30}]


def test_working_with_text(tmp_path: pathlib.Path) -> None:
    (tmp_path / "sms.txt").write_text("ham hello there\n\nspam win win now\n")
    ds = ray.data.read_text(str(tmp_path / "sms.txt"))
    words = ds.flat_map(lambda row: [{"word": word} for word in row["text"].split()[1:]])
    assert words.groupby("word").count().sort("word").take_all() == [
        {"word": "hello", "count()": 1},
        {"word": "now", "count()": 1},
        {"word": "there", "count()": 1},
        {"word": "win", "count()": 2},
    ]


# ---- groups and joins ----


class OwnMean(AggregateFnV2):
    def __init__(self, on: str) -> None:
        super().__init__(f"own({on})", zero_factory=lambda: [0, 0], on=on, ignore_nulls=True)

    def aggregate_block(self, block: Any) -> Any:
        accessor = BlockAccessor.for_block(block)
        count = accessor.count(self._target_col_name, self._ignore_nulls)  # type: ignore[arg-type]
        return [accessor.sum(self._target_col_name, self._ignore_nulls), count]  # type: ignore[arg-type]

    def combine(self, current_accumulator: Any, new: Any) -> Any:
        return [current_accumulator[0] + new[0], current_accumulator[1] + new[1]]

    def finalize(self, accumulator: Any) -> Any:
        return accumulator[0] / accumulator[1]


def test_aggregations(iris: str) -> None:
    ds = ray.data.read_csv(iris)
    found = ds.groupby("target").aggregate(Count(), Mean("sepal"), Quantile("sepal", q=0.5, alias_name="median"))
    assert found.sort("target").take_all()[1] == {"target": 1, "count()": 2, "mean(sepal)": 6.7, "median": 6.7}
    rows = AggregateFn(
        init=lambda _key: 0, accumulate_row=lambda total, _row: total + 1, merge=lambda a, b: a + b, name="rows"
    )
    assert ds.aggregate(rows, OwnMean("target")) == {"rows": 6, "own(target)": 4 / 6}
    assert ds.groupby("target").max(["sepal", "petal"]).sort("target").take(1) == [
        {"target": 0, "max(sepal)": 5.1, "max(petal)": 0.2}
    ]

    def largest(group: dict[str, Any]) -> dict[str, Any]:
        return {"target": group["target"][:1], "size": np.array([len(group["target"])])}

    assert ds.groupby("target").map_groups(largest).sort("target").take_all() == [
        {"target": 0, "size": 3},
        {"target": 1, "size": 2},
        {"target": 2, "size": 1},
    ]


def test_joins() -> None:
    left = ray.data.range(4).map(lambda row: {"id": row["id"], "square": row["id"] ** 2})
    right = ray.data.from_items([{"id": number, "name": str(number)} for number in range(2, 6)])

    def ids(how: str) -> list[int]:
        return sorted(row["id"] for row in left.join(right, join_type=how, num_partitions=2, on=("id",)).take_all())

    found = left.join(right, join_type="inner", num_partitions=2, on=("id",)).sort("id").take_all()
    assert found == [{"id": 2, "square": 4, "name": "2"}, {"id": 3, "square": 9, "name": "3"}]
    assert {how: ids(how) for how in ("left_outer", "right_outer", "full_outer", "left_anti", "right_semi")} == {
        "left_outer": [0, 1, 2, 3],
        "right_outer": [2, 3, 4, 5],
        "full_outer": [0, 1, 2, 3, 4, 5],
        "left_anti": [0, 1],
        "right_semi": [2, 3],
    }


# ---- iterating and saving ----


@ray.remote
class Worker:
    def train(self, iterator: Any, epochs: int) -> int:
        return sum(len(batch["id"]) for _ in range(epochs) for batch in iterator.iter_batches(batch_size=3))


def test_iterating() -> None:
    ds = ray.data.range(12)
    assert [batch["id"].tolist() for batch in ds.iter_batches(batch_size=5, drop_last=True)] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
    ]
    mixed = [one for batch in ds.iter_batches(batch_size=4, local_shuffle_buffer_size=6) for one in batch["id"]]
    assert sorted(mixed) == [*range(12)]
    workers = [Worker.remote() for _ in range(2)]
    shards = ds.streaming_split(2, equal=True)
    assert shards[0].get_context().target_max_block_size == ds.context.target_max_block_size
    runs = [worker.train.remote(shard, 2) for worker, shard in zip(workers, shards, strict=True)]
    assert ray.get(runs) == [12, 12]
    train, test = ds.train_test_split(0.25)
    assert (train.count(), [row["id"] for row in test.iter_rows()]) == (9, [9, 10, 11])


class Named(FilenameProvider):
    def __init__(self, prefix: str, file_format: str) -> None:
        super().__init__(file_format=file_format)
        self.prefix = prefix

    def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
        return f"{self.prefix}_{task_index:06}.{self.file_format}"


class Texts(RowBasedFileDatasink):
    def __init__(self, path: str, column: str) -> None:
        super().__init__(path, file_format="txt")
        self.column = column

    def write_row_to_file(self, row: Any, file: Any) -> None:
        file.write(str(row[self.column]).encode())


class Counted(Datasink[int]):
    def on_write_start(self, schema: Any = None) -> None:
        self.total = 0

    def write(self, blocks: Any, ctx: Any) -> int:
        return sum(BlockAccessor.for_block(block).num_rows() for block in blocks)

    def on_write_complete(self, write_result: Any) -> None:
        self.total = sum(write_result.write_returns)


def test_saving(iris: str, tmp_path: pathlib.Path) -> None:
    ds = ray.data.range(6).map(lambda row: {"id": row["id"], "half": row["id"] / 2})
    ds.repartition(1).write_csv(str(tmp_path / "one"))
    (only,) = (tmp_path / "one").iterdir()
    assert [*csv.reader(only.open())][:2] == [["id", "half"], ["0", "0"]]
    ds.repartition(3).write_parquet(str(tmp_path / "three"), filename_provider=Named("part", "parquet"))
    names = ["part_000000.parquet", "part_000001.parquet", "part_000002.parquet"]
    assert sorted(one.name for one in (tmp_path / "three").iterdir()) == names
    assert ray.data.read_parquet(str(tmp_path / "three")).sort("id").take_all() == ds.take_all()
    ray.data.read_csv(iris).write_parquet(str(tmp_path / "parts"), partition_cols=["target"])
    assert sorted(one.name for one in (tmp_path / "parts").iterdir()) == ["target=0", "target=1", "target=2"]
    ds.write_datasink(Texts(str(tmp_path / "texts"), "id"))
    assert sorted(one.read_text() for one in (tmp_path / "texts").iterdir()) == ["0", "1", "2", "3", "4", "5"]
    sink = Counted()
    ds.write_datasink(sink)
    assert sink.total == 6


# ---- preprocessors and settings ----


def test_preprocessors() -> None:
    ds = ray.data.from_items([{"x": value, "c": kind} for value, kind in ((-2.0, "a"), (0.0, "b"), (2.0, "a"))])
    chain = Chain(
        StandardScaler(columns=["x"]), OneHotEncoder(columns=["c"]), Concatenator(columns=["x", "c"], flatten=True)
    )
    found = [row["concat_out"].round(3).tolist() for row in chain.fit_transform(ds).iter_rows()]
    assert found == [[-1.225, 1.0, 0.0], [0.0, 0.0, 1.0], [1.225, 1.0, 0.0]]


def test_configuring_execution() -> None:
    context = ray.data.DataContext.get_current().copy()
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(cpu=1, gpu=0, object_store_memory=1e9)
    context.execution_options.preserve_order = True
    context.execution_options.verbose_progress = True
    context.enable_progress_bars = False
    context.target_max_block_size = 64 * 1024 * 1024
    context.retried_io_errors.append("AWS Error ACCESS_DENIED")
    context.set_config("mine", 5)
    with ray.data.DataContext.current(context):
        ds = ray.data.range(2).map(lambda row: {"x": ray.data.DataContext.get_current().get_config("mine")})
    assert ds.take_all() == [{"x": 5}, {"x": 5}]
    assert ds.stats()["total"]["rows_out"] == 2
