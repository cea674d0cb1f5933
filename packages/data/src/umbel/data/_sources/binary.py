"""Whole files: a row for each, in the column `bytes`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from umbel.data._sources import files

_COLUMN: Final = "bytes"


class BinaryDatasource(files.FileBasedDatasource):
    """A file of more than 2 GiB is large_binary."""

    _ROWS_PER_FILE = 1

    def get_name(self) -> str:
        return "Binary"

    def _read_stream(self, f: pa.NativeFile, path: str) -> Iterator[pa.Table]:
        data = f.read()
        yield pa.table({_COLUMN: pa.array([data], pa.binary() if len(data) < 1 << 31 else pa.large_binary())})
