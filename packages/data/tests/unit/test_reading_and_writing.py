"""Each format by the functions that users call: what is written is read."""

from __future__ import annotations

import functools
import json
import os
import pathlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow import csv
from pyarrow import json as arrow_json

from umbel import data
from umbel.data import datasource
from umbel.data._engine import stages
from umbel.data._plan import logical
from umbel.data.expressions import col as data_col

ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": None}, {"a": 3, "b": "z"}]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> str:
    return str(tmp_path / "out")


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (data.Dataset.write_parquet, data.read_parquet),
        (data.Dataset.write_csv, data.read_csv),
        (data.Dataset.write_json, functools.partial(data.read_json, lines=True)),
        (data.Dataset.write_arrow, data.read_arrow),
        (data.Dataset.write_arrow, data.read_feather),
        (data.Dataset.write_orc, data.read_orc),
    ],
)
def test_tables(write: Callable[..., None], read: Callable[..., data.Dataset], folder: str) -> None:
    write(data.from_items(ROWS), folder)
    found = read(folder)
    expected = ROWS if read is not data.read_csv else [{**row, "b": row["b"] or ""} for row in ROWS]
    assert found.take_all() == expected
    assert len(found.input_files()) == 1
    assert found.select_columns(["b"]).take_all() == [{"b": row["b"]} for row in expected]


def test_columns_of_arrow_and_orc_files(folder: str) -> None:
    data.from_items(ROWS).write_orc(folder)
    assert data.read_orc(folder, columns=["a"]).take_all() == [{"a": 1}, {"a": 2}, {"a": 3}]
    data.from_items(ROWS).write_arrow(folder + "2", arrow_ipc_args={"compression": "zstd"})
    assert data.read_arrow(folder + "2", columns=["a"]).take_all() == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_tfrecords(folder: str) -> None:
    rows = [{"a": 1, "b": b"x"}, {"a": 2, "b": b"y"}]
    data.from_items(rows).write_tfrecords(folder)
    assert data.read_tfrecords(folder).take_all() == rows


def test_webdataset(folder: str) -> None:
    rows = [{"__key__": "one", "txt": "x", "json": {"n": 1}}, {"__key__": "two", "txt": "y", "json": {"n": 2}}]
    data.from_items(rows).write_webdataset(folder)
    found = data.read_webdataset(folder).select_columns(["__key__", "txt", "json"]).take_all()
    assert found == rows
    raw = data.read_webdataset(folder, decoder=None, suffixes=["txt"]).select_columns(["__key__", "txt"]).take_all()
    assert raw == [{"__key__": "one", "txt": b"x"}, {"__key__": "two", "txt": b"y"}]


def test_images(folder: str) -> None:
    pytest.importorskip("PIL")
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    data.from_numpy(pixels).rename_columns({"data": "image"}).write_images(folder, "image")
    found = sorted(row["image"].tolist() for row in data.read_images(folder).take_all())
    assert found == sorted(pixels.tolist())


def test_avro(tmp_path: pathlib.Path) -> None:
    fastavro = pytest.importorskip("fastavro")
    schema = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}
    with open(tmp_path / "f.avro", "wb") as file:
        fastavro.writer(file, schema, [{"a": 1}, {"a": 2}])
    assert data.read_avro(str(tmp_path)).take_all() == [{"a": 1}, {"a": 2}]


def test_an_unknown_option_is_named(folder: str) -> None:
    with pytest.raises(TypeError, match=r"read_orc\(\) has no option 'colums'; did you mean columns"):
        data.read_orc(folder, colums=["a"])  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"write_orc\(\) has no option 'rows'"):
        data.from_items(ROWS).write_orc(folder, rows=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"read_parquet\(\) has no option 'prebuffer'; did you mean pre_buffer"):
        data.read_parquet(folder, prebuffer=True)  # type: ignore[call-arg]


# ---- options of pyarrow's ----


def test_options_of_csv_may_stand_by_themselves_or_together(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("a;b\n1;x\n2;y\n")
    parse, convert = csv.ParseOptions(delimiter=";"), csv.ConvertOptions(column_types={"a": pa.float32()})
    expected = pa.table({"a": pa.array([1, 2], pa.float32()), "b": ["x", "y"]})
    found = data.read_csv(tmp_path, parse_options=parse, convert_options=convert)
    assert found.to_arrow().equals(expected)
    together = {"parse_options": parse, "convert_options": convert}
    assert data.read_csv(tmp_path, arrow_csv_args=together).to_arrow().equals(expected)
    plain = csv.WriteOptions(include_header=False, delimiter="|")
    for folder, options in (
        ("1", {"write_options": plain}),
        ("2", {"arrow_csv_args_fn": lambda: {"write_options": plain}}),
    ):
        found.write_csv(str(tmp_path / folder), **options)  # type: ignore[arg-type]
        (written,) = (tmp_path / folder).iterdir()
        assert written.read_text() == '1|"x"\n2|"y"\n'


def test_options_of_json(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "1")
    data.from_items(ROWS).write_json(path, orient="records", lines=False, pandas_json_args_fn=lambda: {"indent": 1})
    (written,) = (tmp_path / "1").iterdir()
    assert json.loads(written.read_text()) == ROWS
    assert written.read_text().startswith('[{\n "a"')
    schema = pa.schema([("a", pa.int8())])
    options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    (tmp_path / "x.jsonl").write_text('{"a": 1, "b": 2}\n')
    reading = arrow_json.ReadOptions(block_size=1 << 20)
    found = data.read_json(str(tmp_path / "x.jsonl"), parse_options=options, read_options=reading)
    assert found.to_arrow().equals(pa.table({"a": pa.array([1], pa.int8())}))
    with pytest.raises(TypeError, match="no option double_precision: round the columns"):
        data.from_items(ROWS).write_json(path, double_precision=3)  # type: ignore[call-arg]


def test_options_of_parquet(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "1")
    data.from_items(ROWS).write_parquet(folder, compression="zstd", row_group_size=1, min_bytes_per_file=1 << 20)
    (written,) = (tmp_path / "1").iterdir()
    footer = pq.read_metadata(written)
    assert (footer.num_row_groups, footer.row_group(0).column(0).compression) == (3, "ZSTD")
    found = data.read_parquet(folder, memory_map=True, use_threads=False, batch_size=2, include_row_hash=False)
    assert found.take_all() == ROWS
    with pytest.raises(TypeError, match="no option tensor_column_schema: read the bytes"):
        data.read_parquet(folder, tensor_column_schema={"b": ("int8", (1,))})  # type: ignore[call-arg]
    assert data.read_parquet(folder, filter=pc.field("a") > 1, columns=["b"]).take_all() == [{"b": None}, {"b": "z"}]
    assert data.read_parquet(folder, filter=data_col("a") > 1, columns=["a", "b"]).take_all() == ROWS[1:]


def test_compression_may_be_said(tmp_path: pathlib.Path) -> None:
    packed = str(tmp_path / "1")
    data.from_items(ROWS).write_json(packed, arrow_open_stream_args={"compression": "gzip"})
    assert data.read_json(packed, arrow_open_stream_args={"compression": "gzip"}).take_all() == ROWS
    data.from_items(ROWS).write_csv(str(tmp_path / "2"), arrow_open_stream_args=None)
    assert data.read_csv(str(tmp_path / "2"), arrow_open_stream_args=None).count() == 3


# ---- which files ----


def test_a_directory_is_read_for_files_of_the_format(tmp_path: pathlib.Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"a": [2]}), tmp_path / "2.pq")
    (tmp_path / "notes.txt").write_text("hello")
    assert data.read_parquet(tmp_path).take_all() == [{"a": 1}]
    assert data.read_parquet(tmp_path, file_extensions=["PQ"]).take_all() == [{"a": 2}]
    assert data.read_parquet(str(tmp_path / "2.pq")).take_all() == [{"a": 2}]
    with pytest.raises(ValueError, match=r"Parquet|magic"):
        data.read_parquet(tmp_path, file_extensions=None).take_all()
    assert data.read_text(tmp_path, file_extensions=["txt"]).take_all() == [{"text": "hello"}]
    assert sorted(map(os.path.basename, data.read_binary_files(tmp_path).input_files())) == [
        "1.parquet",
        "2.pq",
        "notes.txt",
    ]


def test_partitions_are_columns_of_tables_and_not_of_what_is_no_table(tmp_path: pathlib.Path) -> None:
    for year in (2023, 2024):
        (tmp_path / f"year={year}").mkdir()
        (tmp_path / f"year={year}" / "a.csv").write_text(f"a\n{year}\n")
        (tmp_path / f"year={year}" / "a.jsonl").write_text(f'{{"a": {year}}}\n')
    expected = [{"a": 2023, "year": "2023"}, {"a": 2024, "year": "2024"}]
    assert data.read_csv(tmp_path, file_extensions=["csv"]).take_all() == expected
    assert data.read_json(tmp_path).take_all() == expected
    assert data.read_csv(tmp_path, file_extensions=["csv"], partitioning=None).take_all() == [{"a": 2023}, {"a": 2024}]
    assert data.read_text(tmp_path, file_extensions=["jsonl"]).columns() == ["text"]
    only = datasource.PathPartitionFilter.of(lambda found: found["year"] == "2024")
    assert data.read_csv(tmp_path, file_extensions=["csv"], partition_filter=only).take_all() == expected[1:]


def test_paths_order_and_what_is_missing(tmp_path: pathlib.Path) -> None:
    names = [str(tmp_path / f"{number}.txt") for number in range(20)]
    for number, name in enumerate(names):
        pathlib.Path(name).write_text(str(number))
    found = data.read_text(names, include_paths=True).take_all()
    assert found == [{"text": str(number), "path": name} for number, name in enumerate(names)]
    config = datasource.FileShuffleConfig(seed=3, reseed_after_execution=False)
    shuffled = [row["text"] for row in data.read_text(names, shuffle=config).take_all()]
    assert shuffled != [str(number) for number in range(20)]
    assert sorted(map(int, shuffled)) == list(range(20))
    assert shuffled == [row["text"] for row in data.read_text(names, shuffle=config).take_all()]
    assert data.read_text(names, shuffle="files").count() == 20
    missing = [*names[:2], str(tmp_path / "none.txt")]
    assert data.read_text(missing, ignore_missing_paths=True).count() == 2
    assert data.read_text(names, skip_paths=names[5:]).count() == 5
    with pytest.raises(FileNotFoundError, match="ignore_missing_paths"):
        data.read_text(missing)


# ---- how tasks run ----


def test_reads_take_options_of_tasks(folder: str) -> None:
    data.from_items(ROWS).write_parquet(folder)
    found = data.read_parquet(
        folder,
        override_num_blocks=2,
        compute=data.TaskPoolStrategy(3),
        num_cpus=0.5,
        memory=1 << 20,
        resources={"disk": 1},
        label_selector=None,
        runtime_env=None,
        max_calls=5,
        ray_remote_args={"num_cpus": 3, "max_retries": 2},
    )
    node = found._node
    assert isinstance(node, logical.Read)
    assert node.parallelism == 2
    assert node.means.compute == stages.TaskPool(3)
    assert node.means.resources == stages.Resources(
        0.5, 0.0, 1 << 20, {"resources": {"disk": 1}, "max_calls": 5, "max_retries": 2}
    )
    with pytest.warns(DeprecationWarning, match="parallelism is deprecated; use override_num_blocks"):
        old = data.range(8, parallelism=4)
    assert old._node.parallelism == 4  # type: ignore[attr-defined]
    assert data.range(8, parallelism=-1)._node.parallelism is None  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match=r"read_datasource\(\) has no option 'num_cpu'; did you mean num_cpus"):
        data.range(8, num_cpu=1)  # type: ignore[call-arg]
    for wrong, message in (
        ({"compute": data.ActorPoolStrategy(size=1)}, "runs in tasks"),
        ({"ray_remote_args": {"max_concurrency": 2}}, "tasks have no option 'max_concurrency'"),
        ({"ray_remote_args": {"ray_remote_args_fn": dict}}, "no option ray_remote_args_fn"),
        ({"num_cpus": -1}, "num_cpus must be a number >= 0"),
        ({"override_num_blocks": 0}, "override_num_blocks must be 1 or more"),
        ({"override_num_blocks": 2, "parallelism": 2}, "old name"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            data.range(8, **wrong)  # type: ignore[arg-type]


def test_writes_take_options_of_tasks_and_files(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "1")
    data.range(10).write_csv(
        path, min_rows_per_file=4, max_rows_per_file=5, concurrency=1, ray_remote_args={"num_cpus": 1}
    )
    assert sorted(one.read_text().count("\n") - 1 for one in (tmp_path / "1").iterdir()) == [5, 5]
    with pytest.warns(DeprecationWarning, match="use min_rows_per_file"):
        data.range(10).write_csv(str(tmp_path / "2"), num_rows_per_file=4)
    assert data.read_csv(str(tmp_path / "2")).count() == 10
    with pytest.raises(ValueError, match="min_bytes_per_file must be above 0, got -1"):
        data.range(10).write_csv(path, min_bytes_per_file=-1)
    with pytest.raises(TypeError, match="no option tf_schema; cast the columns"):
        data.range(10).write_tfrecords(path, tf_schema=object())  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="tasks have no option 'max_concurrency'"):
        data.range(10).write_csv(path, ray_remote_args={"max_concurrency": 1})


# ---- what is in memory ----


def test_blocks_are_tables_or_frames_and_streams_may_be_bytes() -> None:
    pd = pytest.importorskip("pandas")
    tables = [pd.DataFrame({"a": [1]}), pa.table({"a": [2]})]
    assert data.from_blocks(tables).take_all() == [{"a": 1}, {"a": 2}]
    assert data.from_pandas(pd.DataFrame({"a": [1, 2]}), 2).num_blocks() == 2
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, tables[1].schema) as writer:
        writer.write_table(tables[1])
    for given in (buffer.getvalue(), buffer.getvalue().to_pybytes()):
        assert data.from_arrow(given).take_all() == [{"a": 2}]
    with pytest.warns(DeprecationWarning, match="override_num_blocks"):
        assert data.from_items([1, 2], parallelism=2).num_blocks() == 2


def test_references_are_checked() -> None:
    for make in (data.from_arrow_refs, data.from_pandas_refs, data.from_numpy_refs):
        with pytest.raises(TypeError, match="references are needed"):
            make([pa.table({"a": [1]})])
