"""Every format of files by the functions that users call: what is written is read, whatever it is and wherever it lies."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs

from umbel import data
from umbel.data import block, datasource

fsspec = pytest.importorskip("fsspec")

RICH = pa.table(
    {
        "i": [1, None, -3, 2**62, 5],
        "s": ["a", None, 'ü "q", \n', "", "日本語"],
        "f": [0.5, None, 1e300, -0.0, 5.0],
        "b": [True, None, False, True, False],
        "l": [[1, None], [], None, [2], [3]],
    }
)


@dataclass(frozen=True)
class Format:
    """table: five rows with all that the format can hold. broken: what no reader takes. types: for what the files do not say."""

    name: str
    table: pa.Table
    broken: bytes
    writes: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, Any] = field(default_factory=dict)
    knows_columns: bool = True  # where there are no rows

    def write(self, ds: data.Dataset, path: str, **options: Any) -> None:
        getattr(ds, f"write_{self.name}")(path, **self.writes, **options)

    def read(self, path: str, **options: Any) -> data.Dataset:
        read: Callable[..., data.Dataset] = getattr(data, f"read_{self.name}")
        return read(path, **self.reads, **options)


def _texts(sample: dict[str, Any]) -> dict[str, Any]:
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in sample.items()}


PIXELS = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(5 * 2 * 3 * 3, dtype=np.uint8).reshape(5, 2, 3, 3))
FORMATS = [
    Format("parquet", RICH, b"PAR1"),
    Format("arrow", RICH, b"ARROW1\0\0"),
    Format("orc", RICH, b"ORC"),
    Format(
        "csv",
        pa.table({"i": RICH["i"], "f": [0.5, None, 1e300, -0.5, 5.5], "s": ["a", "ü", '"q", x', "d", "日本語"]}),
        b"i,f\n1\n",
    ),
    Format("json", RICH, b'{"i": [1}\n', knows_columns=False),
    Format(
        "tfrecords",
        pa.table(
            {
                "i": RICH["i"],
                "f": pa.array([0.5, None, 2.5, 3, 5], pa.float32()),
                "b": [b"a", None, "ü".encode(), b"", b"\0"],
                "l": [[1, 2], [], [3], [4], [5]],
            }
        ),
        b"\0" * 20,
        reads={
            "schema": pa.schema(
                [("i", pa.int64()), ("f", pa.float32()), ("b", pa.binary()), ("l", pa.list_(pa.int64()))]
            )
        },
    ),
    Format(
        "webdataset",
        pa.table({"__key__": ["a", "ü", "c", "d", "e"], "txt": ["a", None, "ü", "", "日本語"], "cls": list("12345")}),
        b"no archive" * 100,
        reads={"decoder": _texts},
        knows_columns=False,
    ),
    Format("numpy", pa.table({"data": PIXELS}), b"\x93NUMPY"),
]
each_format = pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.name)


def rows(ds: data.Dataset, names: list[str]) -> str:
    """As text, in which -0.0 and NaN are what they are."""
    return repr([{name: _plain(row[name]) for name in names} for row in ds.take_all()])


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def expected(table: pa.Table) -> str:
    return rows(data.from_arrow(table), table.column_names)


def visible(directory: str | Path) -> list[Path]:
    return sorted(path for path in Path(directory).rglob("*") if path.is_file())


@each_format
@pytest.mark.parametrize("count", [5, 1])
def test_what_is_written_is_read(tmp_path: Path, kind: Format, count: int) -> None:
    table = kind.table.slice(0, count)
    kind.write(data.from_blocks([table.slice(0, 1), table.slice(1)]), str(tmp_path), max_rows_per_file=2)
    assert len(visible(tmp_path)) == (count + 1) // 2
    read = kind.read(str(tmp_path))
    assert rows(read, table.column_names) == expected(table)
    assert read.count() == count
    assert len(read.input_files()) == (count + 1) // 2


@each_format
def test_no_rows_are_written_and_read(tmp_path: Path, kind: Format) -> None:
    kind.write(data.from_arrow(kind.table.slice(0, 0)), str(tmp_path))
    read = kind.read(str(tmp_path))
    assert (read.take_all(), read.count()) == ([], 0)
    if kind.knows_columns:
        assert read.columns() == kind.table.column_names


@each_format
def test_modes_say_what_becomes_of_what_is_there(tmp_path: Path, kind: Format) -> None:
    names = kind.table.column_names
    first, second = (kind.table.slice(index, 1) for index in (0, 2))
    kind.write(data.from_arrow(first), str(tmp_path), mode="create")
    for mode in ("create", "error"):
        with pytest.raises(ValueError, match="has 1 files already"):
            kind.write(data.from_arrow(second), str(tmp_path), mode=mode)
    kind.write(data.from_arrow(second), str(tmp_path), mode="ignore")
    assert rows(kind.read(str(tmp_path)), names) == expected(first)
    kind.write(data.from_arrow(second), str(tmp_path), mode="append")
    assert len(visible(tmp_path)) == 2
    assert kind.read(str(tmp_path)).count() == 2
    kind.write(data.from_arrow(second), str(tmp_path), mode="overwrite")
    assert rows(kind.read(str(tmp_path)), names) == expected(second)
    kind.write(data.from_arrow(second.slice(1)), str(tmp_path), mode="overwrite")
    assert kind.read(str(tmp_path)).count() == 0


@each_format
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, kind: Format) -> None:
    kind.write(data.from_arrow(kind.table), str(tmp_path), max_rows_per_file=2)
    second = visible(tmp_path)[1]
    second.write_bytes(kind.broken)
    with pytest.raises(ValueError, match="cannot read") as raised:
        kind.read(str(tmp_path)).take_all()
    assert str(second) in str(raised.value)


class Failing(data.Datasource):
    """Gives the rows, and fails then."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[data.ReadTask]:
        def read() -> Iterator[pa.Table]:
            yield self._table
            raise OSError("the disk is gone")

        return [data.ReadTask(read, block.BlockMetadata(size_bytes=100))]


@each_format
@pytest.mark.filterwarnings("error")
def test_of_a_write_that_fails_nothing_is_left(tmp_path: Path, kind: Format) -> None:
    kind.write(data.from_arrow(kind.table.slice(0, 1)), str(tmp_path))
    before = visible(tmp_path)
    with pytest.raises(OSError, match="the disk is gone"):
        kind.write(data.read_datasource(Failing(kind.table)), str(tmp_path), mode="overwrite")
    assert visible(tmp_path) == before
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


@each_format
def test_a_file_system_of_fsspec_does_as_well(kind: Format) -> None:
    path = f"memory://formats/{uuid.uuid4().hex}"
    kind.write(data.from_arrow(kind.table), path, max_rows_per_file=2)
    assert rows(kind.read(path), kind.table.column_names) == expected(kind.table)
    bare = path.removeprefix("memory://")
    memory = fsspec.filesystem("memory")
    kind.write(data.from_arrow(kind.table.slice(0, 1)), bare, filesystem=memory, mode="overwrite")
    read = kind.read(bare, filesystem=memory)
    assert rows(read, kind.table.column_names) == expected(kind.table.slice(0, 1))
    assert len(memory.find(bare)) == 1, "of what was staged nothing is left"


@each_format
def test_a_file_system_of_pyarrow_does_as_well(tmp_path: Path, kind: Format) -> None:
    below = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    kind.write(data.from_arrow(kind.table), "a/ü b", filesystem=below)
    assert rows(kind.read("a/ü b", filesystem=below), kind.table.column_names) == expected(kind.table)
    assert len(visible(tmp_path / "a" / "ü b")) == 1


def test_files_of_which_no_two_are_alike(tmp_path: Path) -> None:
    """Text, bytes and images are a file's own."""
    pytest.importorskip("PIL")
    pixels = PIXELS.to_numpy_ndarray()
    data.from_numpy(pixels).write_images(str(tmp_path / "i"), "data")
    assert len(visible(tmp_path / "i")) == 5
    read = data.read_images(str(tmp_path / "i"), include_paths=True, mode="RGB")
    assert [row["image"].tolist() for row in read.take_all()] == pixels.tolist()
    small = data.read_images(str(tmp_path / "i"), size=(4, 4), mode="L")
    assert small.schema().base_schema.field("image").type.shape == [4, 4]  # type: ignore[union-attr]
    visible(tmp_path / "i")[2].write_bytes(b"no image")
    with pytest.raises(datasource.FileReadError, match=str(visible(tmp_path / "i")[2])):
        data.read_images(str(tmp_path / "i")).take_all()

    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.txt").write_text("ü\n\n日本語")
    (tmp_path / "t" / "b.txt").write_text("")
    assert data.read_text(str(tmp_path / "t")).take_all() == [{"text": "ü"}, {"text": "日本語"}]
    assert data.read_binary_files(str(tmp_path / "t")).take_all() == [{"bytes": "ü\n\n日本語".encode()}, {"bytes": b""}]
    with pytest.raises(datasource.FileReadError, match=r"a\.txt"):
        data.read_text(str(tmp_path / "t" / "a.txt"), encoding="ascii").take_all()


def test_a_row_that_would_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    table = pa.table({"__key__": ["a", "b"], "txt": ["x", None]})
    with pytest.raises(ValueError, match=r"'__key__': 'b'.* has no value that would be a file"):
        data.from_arrow(table).write_webdataset(str(tmp_path))


def test_types_that_orc_does_not_have(tmp_path: Path) -> None:
    table = pa.table({"u": pa.array([1, None], pa.uint8()), "d": pa.array(["ü", None]).dictionary_encode()})
    data.from_arrow(table).write_orc(str(tmp_path))
    read = data.read_orc(str(tmp_path))
    assert read.take_all() == [{"u": 1, "d": "ü"}, {"u": None, "d": None}]
    assert read.schema().base_schema == pa.schema([("u", pa.int16()), ("d", pa.string())])  # type: ignore[union-attr]
    lasting = pa.table({"t": pa.array([datetime.timedelta(1)])})
    with pytest.raises(TypeError, match=r"column 't' is duration\[us\], which ORC cannot hold; cast it or drop it"):
        data.from_arrow(lasting).write_orc(str(tmp_path))
    large = pa.table({"u": pa.array([2**63], pa.uint64())})
    with pytest.raises(ValueError, match="'u'"):
        data.from_arrow(large).write_orc(str(tmp_path))
    with pytest.raises(ValueError, match="column 'u' has 9223372036854775808, and an Example has no integers above"):
        data.from_arrow(large).write_tfrecords(str(tmp_path))


def test_memory_of_this_process_is_refused_before_workers_run() -> None:
    pytest.importorskip("fsspec")
    path = f"memory://{uuid.uuid4().hex}"
    data.range(3).write_parquet(path)
    assert data.read_parquet(path).count() == 3
    assert [row["id"] for row in data.read_parquet(path).take_all()] == [0, 1, 2]
    with pytest.raises(ValueError, match="ReadParquet is to run on workers, but memory://"):
        data.read_parquet(path).map(lambda row: row).take_all()
    with pytest.raises(ValueError, match="memory of this process"):
        data.range(3).map(lambda row: row).write_parquet(path)
