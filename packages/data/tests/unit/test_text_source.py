"""Reading lines of text, and dividing files between lines."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pyarrow as pa
import pytest
import reading
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.data import datasource
from umbel.data._sources import lines, text


def texts(source: datasource.Datasource, **options: int) -> list[str]:
    return [row["text"] for row in reading.rows(source, **options)]


def test_each_line_is_a_row_without_what_ends_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\n\n  \ntwo \xc3\xbc\nthree")
    assert texts(text.TextDatasource(tmp_path)) == ["one", "two ü", "three"]
    assert texts(text.TextDatasource(tmp_path, drop_empty_lines=False)) == ["one", "", "  ", "two ü", "three"]


def test_the_feed_at_the_end_makes_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n")
    (tmp_path / "b.txt").write_text("")
    assert texts(text.TextDatasource(tmp_path, drop_empty_lines=False)) == ["one", ""]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "UTF8", "cp1252"])
def test_text_is_decoded(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("grün\nöl\n".encode(encoding))
    source = text.TextDatasource(tmp_path, encoding=encoding)
    assert texts(source) == ["grün", "öl"]
    assert source.schema() == pa.schema([("text", pa.string())])


def test_what_is_not_of_the_encoding_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"gr\xfcn\n")
    with pytest.raises(datasource.FileReadError, match=r"Text cannot read '.*a\.txt'"):
        texts(text.TextDatasource(tmp_path))
    with pytest.raises(ValueError, match="there is no encoding 'utf-9'"):
        text.TextDatasource(tmp_path, encoding="utf-9")


def test_a_large_file_is_divided_among_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "PART_BYTES", 50)
    monkeypatch.setattr(lines, "PIECE_BYTES", 16)
    expected = [f"line {index}" * (index % 4 + 1) for index in range(40)]
    (tmp_path / "a.txt").write_text("\n".join(expected))
    source = text.TextDatasource(tmp_path)
    assert len(source.get_read_tasks(100)) > 10
    assert texts(source, parallelism=100) == texts(source, parallelism=3) == expected

    (tmp_path / "a.txt").unlink()
    with pa.output_stream(tmp_path / "a.txt.gz", compression="gzip") as stream:
        stream.write("\n".join(expected).encode())
    assert len(text.TextDatasource(tmp_path).get_read_tasks(100)) == 1
    assert texts(text.TextDatasource(tmp_path)) == expected


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(
    st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"x")), max_size=8),
    st.booleans(),
    st.lists(st.integers(0, 80), max_size=4),
    st.integers(1, 9),
)
def test_each_line_is_in_one_part_wherever_a_file_is_cut(
    content: list[bytes], ends: bool, cuts: list[int], piece_bytes: int
) -> None:
    data = b"\n".join(content) + (b"\n" if ends and content else b"")
    bounds = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    kept, lines.PIECE_BYTES = lines.PIECE_BYTES, piece_bytes  # type: ignore[misc]
    try:
        found = [
            piece
            for start, stop in itertools.pairwise(bounds)
            for piece in lines.part_pieces(io.BytesIO(data), lines.Part(start, stop))
        ]
    finally:
        lines.PIECE_BYTES = kept  # type: ignore[misc]
    assert b"".join(found) == data
    assert all(piece.endswith(b"\n") for piece in found[:-1])
