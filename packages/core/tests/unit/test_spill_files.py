"""Files of values: written, read in parts, and what is said when they are not what was written."""

from __future__ import annotations

import os
import re
import sys
import zlib
from pathlib import Path

import pytest

from umbel import exceptions
from umbel._objects import spill_files

PARTS = [b"first", b"the second part"]


@pytest.fixture(params=["path", "fsspec", "pyarrow"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file that can be written, in a directory that is not there yet."""
    if request.param == "path":
        return f"{tmp_path}/below/1"
    pytest.importorskip(request.param)
    if request.param == "fsspec":
        return f"local://{tmp_path}/below/1"  # fsspec's other name for local files, which are read by path otherwise
    monkeypatch.setitem(sys.modules, "fsspec.core", None)  # as if it were not installed
    return f"file://{tmp_path}/below/1"


def read(place: str, offset: int, part: bytes) -> bytes:
    buffer = bytearray(len(part))
    spill_files.read(place, offset, memoryview(buffer), zlib.crc32(part))
    return bytes(buffer)


def test_parts_are_read_back(place: str) -> None:
    spill_files.open_file(place).write(PARTS)
    assert [read(place, 0, PARTS[0]), read(place, 5, PARTS[1])] == PARTS


def test_file_is_removed_and_its_directory(place: str, tmp_path: Path) -> None:
    file = spill_files.open_file(place)
    file.write(PARTS)
    file.remove()
    assert os.listdir(tmp_path / "below") == []
    file.write(PARTS)
    spill_files.remove_all(os.path.dirname(place))
    assert os.listdir(tmp_path) == []


def test_writing_that_fails_leaves_nothing(place: str, tmp_path: Path) -> None:
    def failing() -> object:
        yield b"begun"
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        spill_files.open_file(place).write(failing())  # type: ignore[arg-type]
    assert os.listdir(tmp_path / "below") == []


def test_truncated_file_is_not_a_value(place: str, tmp_path: Path) -> None:
    spill_files.open_file(place).write(PARTS)
    os.truncate(tmp_path / "below" / "1", 12)
    with pytest.raises(spill_files.Damaged, match="ends after 12 bytes, but 20 had been written"):
        read(place, 5, PARTS[1])


def test_changed_byte_is_not_a_value(place: str, tmp_path: Path) -> None:
    spill_files.open_file(place).write(PARTS)
    path = tmp_path / "below" / "1"
    path.write_bytes(path.read_bytes().replace(b"second", b"sexond"))
    with pytest.raises(spill_files.Damaged, match="other contents than were written"):
        read(place, 5, PARTS[1])
    assert read(place, 0, PARTS[0]) == PARTS[0]


def test_url_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    monkeypatch.setitem(sys.modules, "pyarrow.fs", None)
    with pytest.raises(exceptions.InvalidOption, match="pip install fsspec s3fs, or name a local directory"):
        spill_files.check("s3://bucket/path")


def test_scheme_that_one_library_does_not_know_is_the_others() -> None:
    pytest.importorskip("pyarrow")
    pytest.importorskip("fsspec")
    spill_files.open_file("mock:///below/1").write(PARTS)
    with pytest.raises(exceptions.InvalidOption, match="'nonsense://x"):
        spill_files.check("nonsense://x")


def test_directory_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(exceptions.InvalidOption, match=re.escape(f"object_spilling_directory='{tmp_path}/file'")):
        spill_files.check(f"{tmp_path}/file")


def test_file_url_is_a_path() -> None:
    assert spill_files.local_path("file:///tmp/x") == "/tmp/x"
    assert spill_files.local_path("file://localhost/tmp/x") == "/tmp/x"
    assert spill_files.local_path("s3://bucket/x") == "s3://bucket/x"
    assert spill_files.local_path("here") == os.path.abspath("here")
