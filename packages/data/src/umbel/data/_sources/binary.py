"""Whole files: a row for each, in the column `bytes`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from umbel.data._sources import files

_COLUMN: Final = "bytes"


class BinaryDatasource(files.FileBasedDatasource):
    """Where a file has more than 2 GiB, they are large_binary."""

    _VALUE_COLUMN = _COLUMN

    def get_name(self) -> str:
        return "Binary"

    def _value(self, f: pa.NativeFile, path: str) -> bytes:
        data: bytes = f.read()
        return data

    def _value_array(self, values: Sequence[bytes], paths: Sequence[str]) -> pa.Array:
        is_large = sum(map(len, values)) >= 1 << 31
        return pa.array(values, pa.large_binary() if is_large else pa.binary())
