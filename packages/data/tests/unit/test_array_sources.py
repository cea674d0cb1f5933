"""Reading whole files, NumPy arrays, images, and Arrow's own formats."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
import reading

from umbel.data import datasource
from umbel.data._blocks import rows
from umbel.data._sources import arrow_files, binary, files, images, numpy


def test_a_file_is_a_row_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00\x01")
    (tmp_path / "b").write_bytes(b"")
    source = binary.BinaryDatasource(tmp_path, include_paths=True)
    assert reading.rows(source) == [
        {"bytes": b"\x00\x01", "path": str(tmp_path / "a")},
        {"bytes": b"", "path": str(tmp_path / "b")},
    ]
    assert source.row_count() == 2
    assert [task.metadata.num_rows for task in source.get_read_tasks(2)] == [1, 1]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(5),
        np.arange(24, dtype=np.float32).reshape(4, 3, 2),
        np.arange(6, dtype=np.int16).reshape(2, 3, order="F").T,
        np.array(["a", "bc"]),
        np.arange(3, dtype=">i4"),
        np.zeros((0, 2), np.uint8),
        np.array([True, False]),
    ],
)
def test_arrays_come_back_by_their_first_axis(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    column = reading.table(numpy.NumpyDatasource(tmp_path)).column("data").combine_chunks()
    assert len(column) == len(array)
    if len(array) == 0:
        assert column.type == pa.fixed_shape_tensor(pa.uint8(), (2,))
        return
    found = column.to_numpy_ndarray() if array.ndim > 1 else column.to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(found, array)


def test_a_number_alone_is_a_row(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.float64(2.5))
    assert reading.rows(numpy.NumpyDatasource(tmp_path)) == [{"data": 2.5}]


def test_a_large_array_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE_BYTES", 1000)
    array = np.arange(1000).reshape(200, 5)
    np.save(tmp_path / "a.npy", array)
    (task,) = numpy.NumpyDatasource(tmp_path).get_read_tasks(1)
    tables = list(task.read_fn())
    assert [table.num_rows for table in tables] == [25] * 8
    assert (pa.concat_tables(tables).column("data").combine_chunks().to_numpy_ndarray() == array).all()


def test_objects_are_read_only_if_they_are_trusted(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"x": 1}, None], dtype=object), allow_pickle=True)
    with pytest.raises(datasource.FileReadError, match=r"a\.npy.*allow_pickle=True if you trust"):
        reading.rows(numpy.NumpyDatasource(tmp_path))
    assert reading.rows(numpy.NumpyDatasource(tmp_path, allow_pickle=True)) == [{"data": {"x": 1}}, {"data": None}]


def test_an_array_that_is_cut_off_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(100))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-8])
    with pytest.raises(datasource.FileReadError, match=r"a\.npy.*ends after 99 of 100 rows"):
        reading.rows(numpy.NumpyDatasource(tmp_path))


def picture(path: Path, height: int, width: int, mode: str = "RGB") -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    channels = {"RGB": (3,), "L": (), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(height * width).integers(0, 255, (height, width, *channels), dtype=np.uint8)
    image.fromarray(pixels).save(path)
    return pixels


def test_images_are_height_by_width_by_channels(tmp_path: Path) -> None:
    first = picture(tmp_path / "a.png", 4, 6)
    second = picture(tmp_path / "b.png", 4, 6)
    (tmp_path / "notes.txt").write_text("no image")
    source = images.ImageDatasource(tmp_path, file_extensions=images.ImageDatasource.FILE_EXTENSIONS)
    found = reading.table(source).column("image").combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(found, np.stack([first, second]))
    assert source.row_count() == 2


def test_images_are_brought_to_one_size_and_mode(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    picture(tmp_path / "a.png", 40, 60)
    picture(tmp_path / "b.png", 30, 20, "L")
    picture(tmp_path / "c.png", 30, 20, "RGBA")
    source = images.ImageDatasource(tmp_path, size=(8, 5), mode="RGB")
    table = reading.table(source)
    assert table.schema == source.schema() == pa.schema([("image", pa.fixed_shape_tensor(pa.uint8(), (8, 5, 3)))])
    found = table.column("image").combine_chunks().to_numpy_ndarray()
    expected = [
        np.asarray(image.open(tmp_path / name).convert("RGB").resize((5, 8), image.Resampling.BILINEAR))
        for name in ("a.png", "b.png", "c.png")
    ]
    np.testing.assert_array_equal(found, np.stack(expected))
    grey = reading.table(images.ImageDatasource(tmp_path, size=(8, 5), mode="L"))
    assert grey.schema.field("image").type == pa.fixed_shape_tensor(pa.uint8(), (8, 5))


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(datasource.FileReadError, match=r"Image cannot read '.*a\.png': UnidentifiedImageError"):
        reading.rows(images.ImageDatasource(tmp_path))
    with pytest.raises(ValueError, match=r"size must be \(height, width\), both above 0, got \(0, 3\)"):
        images.ImageDatasource(tmp_path, size=(0, 3))


def stream_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


def test_arrow_files_and_streams_are_told_apart(tmp_path: Path) -> None:
    table = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    (tmp_path / "b.arrows").write_bytes(stream_bytes(table))
    pyarrow.feather.write_feather(table, tmp_path / "c.feather", compression="zstd")
    with pa.output_stream(tmp_path / "d.arrows.gz", compression="gzip") as stream:
        stream.write(stream_bytes(table))

    for name in ("a.arrow", "b.arrows", "c.feather", "d.arrows.gz"):
        source = arrow_files.ArrowDatasource(tmp_path / name)
        assert reading.table(source).combine_chunks().equals(table)
        few = source.with_columns(["b", "a"])
        assert few is not None
        assert reading.table(few).combine_chunks().equals(table.select(["b", "a"]))
        one = source.with_columns(["b"])
        assert one is not None
        assert reading.table(one).combine_chunks().equals(table.select(["b"]))
        wrong = source.with_columns(["bb"])
        assert wrong is not None
        with pytest.raises(ValueError, match="no column 'bb' to read; did you mean 'b'"):
            reading.table(wrong)


def test_an_arrow_file_without_rows_has_a_schema(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([], pa.int8())})
    pyarrow.feather.write_feather(table, tmp_path / "a.feather")
    (tmp_path / "b.arrows").write_bytes(stream_bytes(table))
    for name in ("a.feather", "b.arrows"):
        assert reading.table(arrow_files.ArrowDatasource(tmp_path / name)).equals(table)


def test_images_of_several_sizes_are_ragged_and_come_together(tmp_path: Path) -> None:
    expected = [picture(tmp_path / f"{index}.png", 3 + index, 5) for index in range(4)]
    (tmp_path / "k=1").mkdir()
    expected.append(picture(tmp_path / "k=1" / "9.png", 2, 2))
    source = images.ImageDatasource(tmp_path, include_paths=True, partitioning=datasource.Partitioning("hive"))
    (task,) = source.get_read_tasks(1)
    (table,) = task.read_fn()
    assert [row["path"] for row in rows.iter_rows(table)] == source.input_files()
    for row, pixels in zip(rows.iter_rows(table), expected, strict=True):
        np.testing.assert_array_equal(row["image"], pixels)


def test_images_of_unlike_modes_are_named_with_what_to_do(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 3, 4)
    picture(tmp_path / "b.png", 3, 4, "L")
    with pytest.raises(
        ValueError, match=r"a\.png' is an image of 3 x 4 x 3 uint8, and '.*b\.png' one of 3 x 4 uint8; .*mode=\"RGB\""
    ):
        reading.rows(images.ImageDatasource(tmp_path))


def test_files_that_are_a_row_each_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE_BYTES", 10)
    for index in range(6):
        (tmp_path / str(index)).write_bytes(b"xxxx")
    (task,) = binary.BinaryDatasource(tmp_path).get_read_tasks(1)
    assert [table.num_rows for table in task.read_fn()] == [3, 3]
