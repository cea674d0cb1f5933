"""A file system that counts what is opened and how many bytes are read: a real one beneath, through fsspec."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

try:
    from fsspec.implementations.local import LocalFileSystem
except ImportError:  # `file_system` says so
    LocalFileSystem = object


class CountingFileSystem(LocalFileSystem):
    """`opened`: how often each file was opened to be read, by its name; `read_bytes`: how many bytes of it were handed out."""

    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.opened: Counter[str] = Counter()
        self.read_bytes: Counter[str] = Counter()
        self.listed = 0

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file = super()._open(path, mode=mode, **options)
        if "r" not in mode:
            return file
        name = Path(path).name
        self.opened[name] += 1
        return _File(file, self.read_bytes, name)

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        self.listed += 1
        return super().find(path, *args, **options)


class _File:
    def __init__(self, file: Any, counts: Counter[str], name: str) -> None:
        self._file, self._counts, self._name = file, counts, name

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        self._counts[self._name] += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def file_system() -> CountingFileSystem:
    """Skips the test where fsspec is not installed."""
    pytest.importorskip("fsspec")
    return CountingFileSystem()
