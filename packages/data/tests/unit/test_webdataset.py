"""WebDataset: samples of tar files."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import reading
import writing

from umbel.data import datasource
from umbel.data._sinks.webdataset import WebDatasetDatasink
from umbel.data._sources import files
from umbel.data._sources.webdataset import WebDatasetDatasource


def archive(path: Path, *members: tuple[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_files_of_one_name_are_a_sample(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "a.tar",
        ("train/1.txt", "ü".encode()),
        ("train/1.meta.json", b'{"a": [1, 2]}'),
        ("train/1.cls", b"7"),
        ("train/1.bin", b"\x00"),
        ("train/2.txt", b"b"),
        ("train/2.cls", b"8"),
        ("README", b"no sample"),
        ("train/.hidden", b"nor this"),
    )
    assert reading.rows(WebDatasetDatasource(path)) == [
        {
            "__key__": "train/1",
            "txt": "ü",
            "meta.json": {"a": [1, 2]},
            "cls": 7,
            "bin": b"\x00",
            "__url__": str(path),
        },
        {"__key__": "train/2", "txt": "b", "meta.json": None, "cls": 8, "bin": None, "__url__": str(path)},
    ]


def test_arrays_and_images_are_decoded(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    buffer = io.BytesIO()
    image.fromarray(pixels).save(buffer, "png")
    path = archive(tmp_path / "a.tar", ("1.x.npy", npy(np.arange(4.0))), ("1.png", buffer.getvalue()))
    table = reading.table(WebDatasetDatasource(path))
    np.testing.assert_array_equal(table.column("png").combine_chunks().to_numpy_ndarray(), pixels[None])
    assert list(table.to_pylist()[0]["x.npy"]) == [0.0, 1.0, 2.0, 3.0]
    grey = reading.table(WebDatasetDatasource(path, decoder="L"))
    assert grey.schema.field("png").type.shape == [2, 4]
    raw = reading.rows(WebDatasetDatasource(path, decoder=None))
    assert raw[0]["png"] == buffer.getvalue()


def upper(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "txt": sample["txt"].upper()}


def is_first(name: str) -> bool:
    return name.startswith("1.")


def test_samples_are_selected_renamed_and_decoded_by_functions(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", ("1.text", b"a"), ("1.cls", b"1"), ("2.text", b"b"), ("2.cls", b"2"))

    def rows(**options: Any) -> list[dict[str, Any]]:
        found = reading.rows(WebDatasetDatasource(path, **options))
        return [{name: value for name, value in row.items() if not name.startswith("__")} for row in found]

    assert rows(suffixes=["txt", "text"]) == [{"text": "a"}, {"text": "b"}]
    assert rows(suffixes=["*.c*"]) == [{"cls": 1}, {"cls": 2}]
    assert rows(fileselect=is_first) == [{"text": "a", "cls": 1}]
    assert rows(fileselect=["*.cls"]) == [{"cls": 1}, {"cls": 2}]
    assert rows(filerename=[("text", "txt")], decoder=[True, upper]) == [{"txt": "A", "cls": 1}, {"txt": "B", "cls": 2}]
    assert rows(filerename=str.upper, decoder=False) == [{"TEXT": b"a", "CLS": b"1"}, {"TEXT": b"b", "CLS": b"2"}]


def test_json_may_become_columns(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", ("1.json", json.dumps({"x": 1, "y": "a"}).encode()))
    (row,) = reading.rows(WebDatasetDatasource(path, expand_json=True))
    assert row == {"x": 1, "y": "a", "__key__": "1", "__url__": str(path)}


@pytest.mark.parametrize(
    ("members", "said"),
    [
        (
            [("1.a", b""), ("2.a", b""), ("1.b", b"")],
            "the files of sample '1' do not follow each other; make the tar anew",
        ),
        ([("1.a", b""), ("1.a", b"")], "sample '1' has two files that end with 'a'"),
        ([("1.pkl", b"")], "'pkl' is a pickle, which runs what it says"),
    ],
)
def test_what_is_wrong_is_an_error_that_names_the_tar(
    tmp_path: Path, members: list[tuple[str, bytes]], said: str
) -> None:
    path = archive(tmp_path / "a.tar", *members)
    with pytest.raises(datasource.FileReadError, match=rf"WebDataset cannot read '.*a\.tar'.*{said}"):
        reading.rows(WebDatasetDatasource(path))


def test_compressed_tars_are_read(tmp_path: Path) -> None:
    for name in ("a.tar.gz", "b.tgz"):
        archive(tmp_path / name, ("1.txt", b"x"), mode="w:gz")
    assert [row["txt"] for row in reading.rows(WebDatasetDatasource(tmp_path))] == ["x", "x"]


def test_a_large_tar_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE_BYTES", 100)
    path = archive(tmp_path / "a.tar", *[(f"{index}.txt", b"x" * 40) for index in range(9)])
    (task,) = WebDatasetDatasource(path).get_read_tasks(1)
    assert len(list(task.read_fn())) >= 3
    assert len(reading.rows(WebDatasetDatasource(path))) == 9


def test_samples_come_back(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    pixels = np.arange(48, dtype=np.uint8).reshape(2, 2, 4, 3)
    table = pa.table(
        {
            "__key__": ["a", "b"],
            "txt": ["x", None],
            "cls": [1, 2],
            "json": [{"n": 1}, {"n": 2}],
            "png": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels),
        }
    )
    writing.write(WebDatasetDatasink(str(tmp_path)), [table.slice(0, 1), table.slice(1)])
    found = reading.table(WebDatasetDatasource(tmp_path))
    assert found.drop_columns(["png", "__url__"]).to_pylist() == table.drop_columns(["png"]).to_pylist()
    np.testing.assert_array_equal(found.column("png").combine_chunks().to_numpy_ndarray(), pixels)


def test_samples_without_a_key_get_one_each(tmp_path: Path) -> None:
    writing.write(WebDatasetDatasink(str(tmp_path), None), [pa.table({"txt": ["a", "b"]})])
    rows = reading.rows(WebDatasetDatasource(tmp_path))
    assert [row["txt"] for row in rows] == ["a", "b"]
    assert len({row["__key__"] for row in rows}) == 2
    with pytest.raises(TypeError, match=r"cls' must be bytes or text to be written, got int; pass an encoder"):
        writing.write(WebDatasetDatasink(str(tmp_path), None), [pa.table({"cls": [1]})])
