"""Writing files: how they appear, what they are called, and what is left of a write that fails."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import reading
import writing

from umbel import data
from umbel.data import datasink, datasource, expressions
from umbel.data._plan import logical, physical
from umbel.data._sinks import base, files
from umbel.data._sinks.tables import ParquetDatasink
from umbel.data._sources import filesystems, parquet


def block(*ids: int) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.int64())})


def visible(directory: Path) -> list[str]:
    """What a reader sees: names, without the unique part."""
    return sorted(
        re.sub(r"[0-9a-f]{32}", "U", str(path.relative_to(directory)))
        for path in directory.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(directory).parts)
    )


def ids(directory: Path | str, **options: Any) -> list[int]:
    table = reading.table(parquet.ParquetDatasource(directory, **options))
    return list(table.column("id").to_pylist())


def test_each_task_makes_a_file_and_nothing_else_stays(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"
    result = writing.write(ParquetDatasink(str(target)), [block(1, 2), block(3)], [block(4)], [])
    assert visible(target) == ["U_000000.parquet", "U_000001.parquet"]
    assert [path.name.startswith(".") for path in target.iterdir()] == [False, False]
    assert ids(target) == [1, 2, 3, 4]
    assert (result.num_rows, result.size_bytes) == (4, 32)


def test_nothing_is_seen_before_all_is_written(tmp_path: Path) -> None:
    sink = ParquetDatasink(str(tmp_path))
    sink.on_write_start()
    first = base.write_task(sink, [block(1)], datasink.WriteContext(0))
    assert visible(tmp_path) == []
    with pytest.raises(ValueError, match="there are no files"):
        parquet.ParquetDatasource(tmp_path)
    sink.on_write_complete(first)
    assert ids(tmp_path) == [1]


def test_a_driver_that_dies_leaves_nothing_that_a_reader_sees(tmp_path: Path) -> None:
    """Neither `on_write_complete` nor `on_write_failed` was called; a later write of the same directory is whole."""
    dead = ParquetDatasink(str(tmp_path))
    dead.on_write_start()
    dead.write([block(1)], datasink.WriteContext(0))
    assert visible(tmp_path) == []
    writing.write(ParquetDatasink(str(tmp_path), mode="error"), [block(2)])
    assert ids(tmp_path) == [2]


def test_a_task_that_is_tried_again_writes_nothing_twice(tmp_path: Path) -> None:
    """One try dies in the middle, one ends but its answer is lost, one is heard."""
    sink = ParquetDatasink(str(tmp_path), max_rows_per_file=1)
    sink.on_write_start()

    def dying() -> Any:
        yield block(1)
        raise OSError("the worker is lost")

    with pytest.raises(OSError, match="the worker is lost"):
        sink.write(dying(), datasink.WriteContext(0))
    sink.write([block(1), block(2)], datasink.WriteContext(0))
    heard = base.write_task(sink, [block(1), block(2)], datasink.WriteContext(0))
    sink.on_write_complete(heard)
    assert visible(tmp_path) == ["U_000000.parquet", "U_000000_000001.parquet"]
    assert ids(tmp_path) == [1, 2]


def test_a_write_that_failed_leaves_nothing(tmp_path: Path) -> None:
    writing.write(ParquetDatasink(str(tmp_path)), [block(7)])
    sink = ParquetDatasink(str(tmp_path))
    sink.on_write_start()
    sink.write([block(1)], datasink.WriteContext(0))
    sink.on_write_failed(ValueError("a map failed"))
    assert ids(tmp_path) == [7]
    assert len(list(tmp_path.iterdir())) == 1
    sink.on_write_failed(ValueError("and again"))


def test_modes_say_what_becomes_of_what_is_there(tmp_path: Path) -> None:
    target = str(tmp_path)
    writing.write(ParquetDatasink(target, mode=datasink.SaveMode.CREATE), [block(1)])
    writing.write(ParquetDatasink(target), [block(2)])
    assert sorted(ids(target)) == [1, 2]
    for mode in ("create", "error"):
        with pytest.raises(ValueError, match=r"has 2 files already, the first of them .*append, overwrite or ignore"):
            writing.write(ParquetDatasink(target, mode=mode), [block(3)])
    assert writing.write(ParquetDatasink(target, mode="ignore"), [block(3)]) is None
    assert sorted(ids(target)) == [1, 2]
    writing.write(ParquetDatasink(target, mode="overwrite"), [block(3)])
    assert ids(target) == [3]
    with pytest.raises(ValueError, match=r"mode must be one of 'create', 'append'.*got 'replace'"):
        ParquetDatasink(target, mode="replace")
    with pytest.raises(NotImplementedError, match="cannot write with mode 'upsert'"):
        writing.write(ParquetDatasink(target, mode="upsert"), [block(3)])


def test_where_nothing_is_to_be_written_a_sink_writes_nothing(tmp_path: Path) -> None:
    """Whoever runs the write may ask should_write first, and need not."""
    writing.write(ParquetDatasink(str(tmp_path)), [block(1)])
    sink = ParquetDatasink(str(tmp_path), mode="ignore")
    sink.on_write_start(block().schema)
    assert not sink.should_write
    sink.on_write_complete(base.write_task(sink, [block(2)], datasink.WriteContext(0)))
    assert ids(tmp_path) == [1]
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_to_be_replaced_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    """So that a dataset may be written to where it was read from."""
    writing.write(ParquetDatasink(str(tmp_path)), [block(1)])
    sink = ParquetDatasink(str(tmp_path), mode="overwrite")
    sink.on_write_start()
    sink.write([block(2)], datasink.WriteContext(0))
    assert ids(tmp_path) == [1]
    sink.on_write_failed(ValueError())
    assert ids(tmp_path) == [1]


def test_files_end_at_the_rows_they_may_have_at_most(tmp_path: Path) -> None:
    writing.write(ParquetDatasink(str(tmp_path), max_rows_per_file=3), [block(*range(7)), block(7, 8), block(9)])
    counts = [pq.read_metadata(path).num_rows for path in sorted(tmp_path.iterdir())]
    assert counts == [3, 3, 3, 1]
    assert ids(tmp_path) == list(range(10))


@pytest.mark.parametrize(
    "options", [{"min_rows_per_file": 0}, {"max_rows_per_file": -1}, {"min_rows_per_file": 5, "max_rows_per_file": 4}]
)
def test_bounds_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="rows_per_file must"):
        ParquetDatasink(str(tmp_path), **options)
    assert ParquetDatasink(str(tmp_path), min_rows_per_file=5).min_rows_per_write == 5


def test_partitions_become_directories_and_come_back(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": range(6),
            "k": ["a", "b", None, "a", "x/y =z", "b"],
            "n": [1, 1, 2, 1, None, 1],
        }
    )
    writing.write(ParquetDatasink(str(tmp_path), partition_cols=["k", "n"]), [table.slice(0, 3), table.slice(3)])
    assert visible(tmp_path) == [
        "k=__HIVE_DEFAULT_PARTITION__/n=2/U_000000_000002.parquet",
        "k=a/n=1/U_000000.parquet",
        "k=b/n=1/U_000000_000001.parquet",
        "k=x%2Fy %3Dz/n=__HIVE_DEFAULT_PARTITION__/U_000000_000003.parquet",
    ]
    scheme = datasource.Partitioning("hive", field_types={"n": int})
    found = reading.rows(parquet.ParquetDatasource(tmp_path, partitioning=scheme))
    assert sorted(found, key=lambda row: int(row["id"])) == table.to_pylist()
    import pyarrow.dataset as pads

    theirs = pads.dataset(tmp_path, partitioning="hive").to_table().sort_by("id")
    assert theirs.column("k").to_pylist() == table.column("k").to_pylist()


def test_more_partitions_than_open_files_are_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_OPEN_FILES_MAX", 2)
    table = pa.table({"id": range(12), "k": [index % 4 for index in range(12)]})
    writing.write(ParquetDatasink(str(tmp_path), partition_cols=["k"]), [table.slice(0, 6), table.slice(6)])
    assert sorted(ids(tmp_path)) == list(range(12))
    assert len(visible(tmp_path)) == 6


def test_partitioning_by_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"no column 'idd' to partition by; did you mean 'id'"):
        writing.write(ParquetDatasink(str(tmp_path), partition_cols=["idd"]), [block(1)])
    with pytest.raises(ValueError, match="nothing is left to write"):
        writing.write(ParquetDatasink(str(tmp_path), partition_cols=["id"]), [block(1)])
    assert visible(tmp_path) == []


def test_a_schema_that_changes_begins_another_file(tmp_path: Path) -> None:
    sink = ParquetDatasink(str(tmp_path))
    narrow = pa.table({"id": pa.array([2], pa.int32())})
    writing.write(sink, [block(1), narrow, pa.table({"id": [3], "x": ["a"]})])
    assert len(visible(tmp_path)) == 2
    assert reading.rows(parquet.ParquetDatasource(tmp_path)) == [
        {"id": 1, "x": None},
        {"id": 2, "x": None},
        {"id": 3, "x": "a"},
    ]


def test_small_blocks_are_not_row_groups_each(tmp_path: Path) -> None:
    writing.write(ParquetDatasink(str(tmp_path)), [block(index) for index in range(50)])
    (path,) = tmp_path.iterdir()
    assert pq.read_metadata(path).num_row_groups == 1


def test_a_dataset_without_rows_keeps_its_schema_if_it_is_known(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.int64())])
    writing.write(ParquetDatasink(str(tmp_path / "known")), [block()], schema=schema)
    assert reading.table(parquet.ParquetDatasource(tmp_path / "known")).equals(schema.empty_table())
    writing.write(ParquetDatasink(str(tmp_path / "unknown")), [block()])
    assert visible(tmp_path / "unknown") == []


class Prefixed(datasink.FilenameProvider):
    def __init__(self, prefix: str, *, is_unique: bool = True) -> None:
        super().__init__(file_format="txt.gz")
        self.prefix, self.is_unique = prefix, is_unique

    def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
        return f"{self.prefix}-{write_uuid if self.is_unique else ''}-{task_index}.txt.gz"


class Lines(files.BlockBasedFileDatasink):
    def write_block_to_file(self, block: pa.Table, file: pa.NativeFile) -> None:
        file.write("".join(f"{one}\n" for one in block["t"].to_pylist()).encode())


def test_files_are_called_as_the_provider_says(tmp_path: Path) -> None:
    writing.write(Lines(str(tmp_path), filename_provider=Prefixed("mine")), [pa.table({"t": ["a"]})])
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(r"mine-[0-9a-f]{32}-0\.txt\.gz", path.name)
    assert pa.input_stream(path, compression="gzip").read() == b"a\n", "the ending says how it is compressed"


def test_files_that_would_replace_others_are_refused_before_any_is_in_place(tmp_path: Path) -> None:
    once = pa.table({"t": ["a"]})
    provider = Prefixed("mine", is_unique=False)
    writing.write(Lines(str(tmp_path), filename_provider=provider), [once])
    with pytest.raises(
        FileExistsError, match=r"is there already and would be replaced; a filename_provider must have write_uuid"
    ):
        writing.write(Lines(str(tmp_path), filename_provider=provider), [pa.table({"t": ["b"]})])
    (path,) = tmp_path.iterdir()
    assert pa.input_stream(path, compression="gzip").read() == b"a\n"


def test_names_without_the_task_are_refused(tmp_path: Path) -> None:
    class Same(datasink.FilenameProvider):
        def get_filename_for_task(self, write_uuid: str, task_index: int) -> str:
            return write_uuid

    sink = ParquetDatasink(str(tmp_path), filename_provider=Same())
    sink.on_write_start()
    results = [base.write_task(sink, [block(index)], datasink.WriteContext(index)) for index in range(2)]
    with pytest.raises(FileExistsError, match="two tasks have written"):
        sink.on_write_complete(datasink.WriteResult.combine(*results))
    assert list(tmp_path.iterdir()) == []


class Upper(datasink.BlockBasedFileDatasink):
    """A user's own."""

    def write_block_to_file(self, block: pa.Table, file: pa.NativeFile) -> None:
        file.write(repr(block.column("id").to_pylist()).encode())


class Each(datasink.RowBasedFileDatasink):
    def write_row_to_file(self, row: dict[str, Any], file: pa.NativeFile) -> None:
        file.write(str(row["id"]).encode())


def test_sinks_of_a_users_own_write_blocks_or_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing.write(Upper(str(tmp_path / "a"), file_format="x"), [block(1), block(2)], [block(3)])
    assert [path.read_text() for path in sorted((tmp_path / "a").iterdir())] == ["[1, 2]", "[3]"]
    writing.write(Each(str(tmp_path / "b"), file_format="x"), [block(1, 2), block(3)])
    assert [path.read_text() for path in sorted((tmp_path / "b").iterdir())] == ["1", "2", "3"]
    assert visible(tmp_path / "b")[0] == "U_000000_000000_000000.x"
    monkeypatch.setattr(Upper, "_collected_bytes", 8)
    writing.write(Upper(str(tmp_path / "c"), file_format="x", min_rows_per_file=2), [block(1), block(2), block(3)])
    assert [path.read_text() for path in sorted((tmp_path / "c").iterdir())] == ["[1, 2]", "[3]"]
    assert Upper("x").get_name() == "Upper"


def test_files_of_fsspec_are_written_and_renamed() -> None:
    fsspec = pytest.importorskip("fsspec")
    writing.write(ParquetDatasink("memory://sinks/out", partition_cols=["k"]), [pa.table({"id": [1, 2], "k": [1, 2]})])
    memory = fsspec.filesystem("memory")
    names = [re.sub(r"[0-9a-f]{32}", "U", path) for path in memory.find("/sinks/out")]
    assert names == ["/sinks/out/k=1/U_000000.parquet", "/sinks/out/k=2/U_000000_000001.parquet"]
    assert ids("memory://sinks/out") == [1, 2]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "has_rename", lambda filesystem: False)


@pytest.mark.usefixtures("store")
def test_in_an_object_store_what_is_tried_again_is_there_once(tmp_path: Path) -> None:
    sink = ParquetDatasink(str(tmp_path), max_rows_per_file=1)
    sink.on_write_start()
    sink.write([block(1), block(2)], datasink.WriteContext(0))  # a try that was not heard of, and made more files
    heard = base.write_task(sink, [block(1)], datasink.WriteContext(0))
    sink.on_write_complete(heard)
    assert ids(tmp_path) == [1]


@pytest.mark.usefixtures("store")
def test_in_an_object_store_a_write_that_failed_is_removed(tmp_path: Path) -> None:
    writing.write(ParquetDatasink(str(tmp_path)), [block(7)])

    def dying() -> Any:
        yield block(1)
        yield block(2)
        raise OSError("no more")

    sink = ParquetDatasink(str(tmp_path), max_rows_per_file=1)
    sink.on_write_start()
    with pytest.raises(OSError, match="no more"):
        sink.write(dying(), datasink.WriteContext(1))
    assert ids(tmp_path) == [7], "what the try had made is gone with it"
    sink.write([block(1)], datasink.WriteContext(0))
    sink.on_write_failed(OSError("no more"))
    assert ids(tmp_path) == [7]


@pytest.mark.usefixtures("store")
def test_in_an_object_store_the_new_replaces_the_old(tmp_path: Path) -> None:
    writing.write(ParquetDatasink(str(tmp_path)), [block(1)])
    writing.write(ParquetDatasink(str(tmp_path), mode="overwrite"), [block(2)])
    assert ids(tmp_path) == [2]


def test_a_sink_that_was_not_started_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"on_write_start\(\) must be called before write\(\)"):
        ParquetDatasink(str(tmp_path)).write([block(1)], datasink.WriteContext(0))


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file"):
        writing.write(ParquetDatasink(str(tmp_path / "a")), [block(1)])
    assert not ParquetDatasink(f"local://{tmp_path}").supports_distributed_writes


def test_a_dummy_counts_and_keeps_nothing() -> None:
    sink = datasink.DummyOutputDatasink()
    result = writing.write(sink, [block(1, 2)], [block(3)])
    assert (sink.num_ok, sink.rows_written, result.write_returns) == (1, 3, [None, None])
    sink.on_write_failed(ValueError())
    assert sink.num_failed == 1


def test_a_sink_of_a_users_own_needs_write_only() -> None:
    class ListDatasink(datasink.Datasink[list[int]]):
        def write(self, blocks: Any, ctx: datasink.WriteContext) -> list[int]:
            return [ctx.task_idx, *(row["id"] for table in blocks for row in table.to_pylist())]

        def on_write_complete(self, write_result: datasink.WriteResult[list[int]]) -> None:
            self.found = write_result.write_returns

    sink = ListDatasink()
    result = base.write_task(sink, [block(5)], datasink.WriteContext(3))
    sink.on_write_complete(result)
    assert sink.found == [[3, 5]]
    assert sink.get_name() == "List"
    assert pickle.loads(pickle.dumps(result)) == result
    with pytest.raises(NotImplementedError, match=r"must define write\(blocks, ctx\)"):
        datasink.Datasink[None]().write([], datasink.WriteContext(0))


def test_compression_and_other_arguments_reach_the_writer(tmp_path: Path) -> None:
    arguments = {"compression": "zstd", "row_group_size": 2}
    writing.write(ParquetDatasink(str(tmp_path), arrow_parquet_args=arguments), [block(1, 2, 3)])
    (path,) = tmp_path.iterdir()
    footer = pq.read_metadata(path)
    assert (footer.num_row_groups, footer.row_group(0).column(0).compression) == (2, "ZSTD")
    made = ParquetDatasink(str(tmp_path), arrow_parquet_args_fn=_gzip, mode="overwrite")
    writing.write(made, [block(1)])
    (path,) = tmp_path.iterdir()
    assert pq.read_metadata(path).row_group(0).column(0).compression == "GZIP"


def _gzip() -> dict[str, Any]:
    return {"compression": "gzip"}


# ---- how many files ----


def read_back(folder: Path) -> list[list[int]]:
    """The numbers in each file, in the order of the files' names."""
    return [pq.read_table(path)["id"].to_pylist() for path in sorted(folder.iterdir())]


def test_parts_that_were_asked_for_are_files(tmp_path: Path) -> None:
    items = [{"id": number} for number in range(9)]
    thirds = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    made = {
        "read": data.range(9, override_num_blocks=3),
        "items": data.from_items(items, override_num_blocks=3),
        "repartitioned": data.range(9).repartition(3),
        "after": data.range(9).repartition(3).filter(expr="id >= 0").rename_columns({"id": "id"}),
    }
    for name, ds in made.items():
        ds.write_parquet(str(tmp_path / name))
        assert read_back(tmp_path / name) == thirds, name
    made["read"].write_parquet(str(tmp_path / "more"), min_rows_per_file=5)
    assert read_back(tmp_path / "more") == [[0, 1, 2, 3, 4, 5], [6, 7, 8]]
    data.range(3).repartition(5).write_parquet(str(tmp_path / "few"))
    assert read_back(tmp_path / "few") == [[0], [1], [2]]
    data.range(9, override_num_blocks=3).filter(expr="id < 0").write_parquet(str(tmp_path / "none"))
    assert read_back(tmp_path / "none") == [[]]
    data.range(9).write_parquet(str(tmp_path / "any"))
    assert read_back(tmp_path / "any") == [[*range(9)]]


def test_large_parts_are_not_kept_until_they_are_whole() -> None:
    def is_by_part(bytes_of_part: int | None) -> bool:
        class Source(datasource.Datasource):
            def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> Any:
                known = datasource.BlockMetadata(num_rows=1, size_bytes=bytes_of_part)
                return [datasource.ReadTask(lambda: [pa.table({"id": [1]})], known)] * parallelism

        ds = data.read_datasource(Source(), override_num_blocks=2).map(dict)
        stage = physical.stage_of(logical.Write(input=ds._node, sink=base.DummyOutputDatasink()), physical.Sizes())
        return bool(stage.by_part)  # type: ignore[union-attr]

    assert [is_by_part(1 << 20), is_by_part(1 << 30), is_by_part(None)] == [True, False, False]


def test_a_part_of_many_blocks_is_one_file(tmp_path: Path) -> None:
    small = data.DataContext(target_max_block_size=16)
    with data.DataContext.current(small):
        data.range(12, override_num_blocks=2).write_parquet(str(tmp_path / "read"))
        data.range(12).repartition(2).with_column("id", expressions.col("id") + 1).write_parquet(
            str(tmp_path / "moved")
        )
        data.range(12).repartition(2).sort("id").write_parquet(str(tmp_path / "sorted"))
    assert read_back(tmp_path / "read") == [[*range(6)], [*range(6, 12)]]
    assert read_back(tmp_path / "moved") == [[*range(1, 7)], [*range(7, 13)]]
    assert [one for some in read_back(tmp_path / "sorted") for one in some] == [*range(12)]


@pytest.mark.parametrize("is_store", [False, True])
def test_what_is_in_place_stays_when_the_end_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_store: bool
) -> None:
    path = str(tmp_path)
    data.range(2).write_parquet(path)
    if is_store:
        monkeypatch.setattr(filesystems, "has_rename", lambda filesystem: False)
    sink = ParquetDatasink(path, mode="overwrite")
    remove = files.FileDatasink._remove

    def failing(self: Any, paths: Iterable[str]) -> None:
        if set(paths) & set(sink._replaced):
            raise OSError("not removed")
        remove(self, paths)

    monkeypatch.setattr(files.FileDatasink, "_remove", failing)
    with pytest.raises(OSError, match="not removed") as failed:
        writing.write(sink, [block(7)])
    sink.on_write_failed(failed.value)
    assert sorted(row["id"] for row in data.read_parquet(path).take_all()) == [0, 1, 7]
