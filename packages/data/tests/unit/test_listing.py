"""Which files are read, and where a path is."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
import reading
from pyarrow import fs

from umbel.data import datasource
from umbel.data._sources import filesystems, listing


class Lines(datasource.FileBasedDatasource):
    """A format of a user's own."""

    def _read_stream(self, f: pa.NativeFile, path: str):  # type: ignore[no-untyped-def]  # as people write it
        yield pa.table({"line": [line.decode() for line in f.read().splitlines()]})


def tree(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    return directory


def test_a_directory_is_all_that_it_holds_but_for_what_is_hidden(tmp_path: Path) -> None:
    tree(tmp_path, "b/y.txt", "a.txt", "b/x.txt", ".hidden", "_SUCCESS", "b/_temporary/z.txt", "_year=2026/w.txt")
    assert reading.rows(Lines(tmp_path)) == [
        {"line": "_year=2026/w.txt"},
        {"line": "a.txt"},
        {"line": "b/x.txt"},
        {"line": "b/y.txt"},
    ]


def test_what_is_named_itself_is_read_in_the_order_named(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", "_b", "sub/c.txt")
    paths = [tmp_path / "_b", str(tmp_path / "sub"), tmp_path / "a.txt"]
    found = reading.rows(Lines(paths, file_extensions=["txt"]))
    assert [row["line"] for row in found] == ["_b", "sub/c.txt", "a.txt"]


def test_extensions_choose_among_the_files_of_a_directory(tmp_path: Path) -> None:
    tree(tmp_path, "a.TXT", "b.csv", "c.txt.gz", "d.txt")
    chosen = Lines(tmp_path, file_extensions=["txt"]).input_files()
    assert [Path(path).name for path in chosen] == ["a.TXT", "d.txt"]
    with pytest.raises(ValueError, match=r"no files that end with \.npy in .*file_extensions=None"):
        Lines(tmp_path, file_extensions=["npy"])


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt")
    with pytest.raises(FileNotFoundError, match=r"no file or directory '.*nowhere'.*ignore_missing_paths=True"):
        Lines([tmp_path / "a.txt", tmp_path / "nowhere"])
    assert reading.rows(Lines([tmp_path / "a.txt", tmp_path / "nowhere"], ignore_missing_paths=True)) == [
        {"line": "a.txt"}
    ]
    with pytest.raises(FileNotFoundError, match=r"paths are no patterns: name the directory"):
        Lines(tmp_path / "*.txt")


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no files in '.*empty'"):
        Lines(tmp_path / "empty")
    with pytest.raises(ValueError, match="at least one path"):
        Lines([])
    with pytest.raises(TypeError, match="must be a path or a list of paths, got 3"):
        Lines(3)  # type: ignore[arg-type]


def test_paths_to_skip_are_skipped(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", "b.txt")
    assert reading.rows(Lines(tmp_path, skip_paths=[tmp_path / "a.txt"])) == [{"line": "b.txt"}]


def test_partitions_and_the_path_are_columns(tmp_path: Path) -> None:
    tree(tmp_path, "k=1/a.txt", "k=2/b.txt")
    source = Lines(tmp_path, partitioning=datasource.Partitioning("hive", field_types={"k": int}), include_paths=True)
    assert reading.rows(source) == [
        {"line": "k=1/a.txt", "k": 1, "path": str(tmp_path / "k=1/a.txt")},
        {"line": "k=2/b.txt", "k": 2, "path": str(tmp_path / "k=2/b.txt")},
    ]


def test_a_partition_that_some_paths_lack_is_null_there(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", "k=2/b.txt")
    source = Lines(tmp_path, partitioning=datasource.Partitioning("hive"))
    assert reading.rows(source) == [{"line": "a.txt", "k": None}, {"line": "k=2/b.txt", "k": "2"}]


def test_a_partition_filter_chooses_files(tmp_path: Path) -> None:
    tree(tmp_path, "k=1/a.txt", "k=2/b.txt")
    chosen = datasource.PathPartitionFilter.of(lambda values: values["k"] == "2")
    assert reading.rows(Lines(tmp_path, partition_filter=chosen)) == [{"line": "k=2/b.txt"}]
    with pytest.raises(ValueError, match=r"partition_filter chose none of 2 files"):
        Lines(tmp_path, partition_filter=datasource.PathPartitionFilter.of(lambda values: False))


@pytest.mark.parametrize("ending", ["gz", "bz2", "zst", "lz4"])
def test_files_are_decompressed_by_their_ending(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.txt.{ending}"
    with pa.output_stream(path, compression="detect") as stream:
        stream.write(b"one\ntwo\n")
    assert path.read_bytes() != b"one\ntwo\n"
    assert reading.rows(Lines(path)) == [{"line": "one"}, {"line": "two"}]


def test_a_compressed_file_of_another_name_is_read_when_told(tmp_path: Path) -> None:
    with pa.output_stream(tmp_path / "a", compression="gzip") as stream:
        stream.write(b"one\n")
    assert reading.rows(Lines(tmp_path / "a", open_stream_args={"compression": "gzip"})) == [{"line": "one"}]


def test_a_file_that_is_not_compressed_as_its_name_says_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(b"plain")
    with pytest.raises(datasource.FileReadError, match=r"Lines cannot read '.*a\.txt\.gz': OSError"):
        reading.rows(Lines(tmp_path))


def test_files_come_in_a_random_order_that_the_seed_decides(tmp_path: Path) -> None:
    tree(tmp_path, *[f"{index}.txt" for index in range(8)])

    def order(shuffle: datasource.FileShuffleConfig, epoch: int = 0) -> list[str]:
        source = Lines(tmp_path, shuffle=shuffle).with_epoch(epoch)
        return [row["line"] for row in reading.rows(source, parallelism=3)]

    seeded = datasource.FileShuffleConfig(seed=7)
    assert order(seeded) == order(seeded) != sorted(order(seeded))
    assert order(seeded, 1) == order(seeded, 1) != order(seeded)
    fixed = datasource.FileShuffleConfig(seed=7, reseed_after_execution=False)
    assert order(fixed) == order(fixed, 1)
    assert sorted(order(datasource.FileShuffleConfig())) == sorted(order(seeded))
    with pytest.raises(ValueError, match="shuffle must be 'files'"):
        Lines(tmp_path, shuffle="rows")  # type: ignore[arg-type]


def test_files_of_fsspec_are_read_by_uri_and_by_file_system() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe({"/listing/a.txt": b"one\n", "/listing/b.txt": b"two\n"})
    expected = [{"line": "one"}, {"line": "two"}]
    assert reading.rows(Lines("memory://listing")) == expected
    assert reading.rows(Lines("memory://listing", filesystem=memory)) == expected
    assert reading.rows(Lines("/listing", filesystem=fs.PyFileSystem(fs.FSSpecHandler(memory)))) == expected


def test_paths_are_taken_to_the_file_system_that_they_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    local = fs.LocalFileSystem()
    assert filesystems.resolve("a/b") == (local, [os.path.join(os.getcwd(), "a/b")])
    assert filesystems.resolve("~/a") == (local, ["/home/someone/a"])
    assert filesystems.resolve("file:///a%20b") == (local, ["/a b"])
    assert filesystems.resolve(["local://a", "/b"]) == (local, [os.path.join(os.getcwd(), "a"), "/b"])
    with pytest.raises(ValueError, match=r"must be on one file system, got '/a' and 's3://b/c\?region=x'"):
        filesystems.resolve(["/a", "s3://b/c?region=x"])
    with pytest.raises(TypeError, match=r"must be one of pyarrow\.fs or of fsspec, got int"):
        filesystems.resolve("a", 3)


def test_a_scheme_that_nobody_knows_is_named() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(ValueError, match="no file system is known for 'nonsense://a'"):
        filesystems.resolve("nonsense://a")


def test_what_is_local_is_read_where_the_driver_is(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt")
    assert Lines(tmp_path).supports_distributed_reads
    assert not Lines(f"local://{tmp_path}").supports_distributed_reads


def test_object_stores_have_no_rename() -> None:
    assert filesystems.has_rename(fs.LocalFileSystem())
    fsspec = pytest.importorskip("fsspec")
    assert filesystems.has_rename(filesystems.wrap(fsspec.filesystem("memory")))
    store = fs.S3FileSystem(region="eu-west-1", anonymous=True)
    assert not filesystems.has_rename(store)
    assert not filesystems.has_rename(fs.SubTreeFileSystem("bucket", store))


def test_hidden_is_what_lies_below_something_hidden() -> None:
    assert [listing.is_hidden(name) for name in ("a/b", ".a", "a/_b", "_a/b", "_a=1/b", "_a=1/.b")] == [
        False,
        True,
        True,
        True,
        False,
        True,
    ]


def test_a_missing_method_is_named(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt")

    class Nothing(datasource.FileBasedDatasource):
        pass

    with pytest.raises(datasource.FileReadError, match="Nothing must define _read_stream"):
        reading.rows(Nothing(tmp_path), travels=False)


def test_files_that_differ_in_type_are_named(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt", "b.txt")

    class Drifting(datasource.FileBasedDatasource):
        def _read_stream(self, f: pa.NativeFile, path: str):  # type: ignore[no-untyped-def]
            yield pa.table({"x": [1] if path.endswith("a.txt") else ["s"]})

    with pytest.raises(ValueError, match=r"column 'x' is int64 in '.*a\.txt' and string in '.*b\.txt'"):
        reading.rows(Drifting(tmp_path), travels=False)
