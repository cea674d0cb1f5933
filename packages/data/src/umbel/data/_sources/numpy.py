"""Arrays of NumPy's `.npy`: a row for each entry along the first axis, in the column `data`."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import inference
from umbel.data._sources import files, filesystems

_COLUMN: Final = "data"


class NumpyDatasource(files.FileBasedDatasource):
    """allow_pickle: read arrays of Python objects, which runs what the file says. numpy_load_args: for numpy.load, which then
    reads each file as a whole."""

    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = ("npy",)

    def __init__(
        self,
        paths: filesystems.Paths,
        *,
        allow_pickle: bool = False,
        numpy_load_args: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(paths, **options)
        self._load_options = {**(numpy_load_args or {}), **({"allow_pickle": True} if allow_pickle else {})}

    def get_name(self) -> str:
        return "Numpy"

    def _read_stream(self, f: pa.NativeFile, path: str) -> Iterator[pa.Table]:
        if self._load_options:
            yield _table(np.load(io.BytesIO(f.read()), **self._load_options))
            return
        shape, is_fortran, dtype = _header(f)
        if is_fortran or len(shape) == 0 or dtype.hasobject:
            if dtype.hasobject:
                raise ValueError("it holds Python objects; pass allow_pickle=True if you trust whoever wrote it")
            values = np.frombuffer(f.read(), dtype).reshape(shape, order="F" if is_fortran else "C")
            yield _table(values)
            return
        row_bytes = dtype.itemsize * math.prod(shape[1:])
        rows_at_once = max(1, files.PIECE_BYTES // max(row_bytes, 1))
        for start in range(0, max(shape[0], 1), rows_at_once):
            count = min(rows_at_once, shape[0] - start)
            data = f.read(count * row_bytes)
            if len(data) < count * row_bytes:
                raise ValueError(f"it ends after {start + len(data) // max(row_bytes, 1)} of {shape[0]} rows")
            yield _table(np.frombuffer(data, dtype).reshape(count, *shape[1:]))


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    return shape, is_fortran, dtype


def _table(values: np.ndarray) -> pa.Table:
    if values.dtype.byteorder not in "=|" and not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    rows = np.atleast_1d(values)
    return pa.table({_COLUMN: inference.from_numpy(rows, name=_COLUMN)})
