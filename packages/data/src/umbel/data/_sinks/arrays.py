"""Columns as arrays of NumPy, and as images."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
import pyarrow as pa

from umbel.data._blocks import sizes, tensors
from umbel.data._sinks import files
from umbel.data._sources import errors

_NULLS: Final = "a column with nulls is no array; fill or drop them"


class NumpyDatasink(files.BlockBasedFileDatasink):
    """column: whose values, in `.npy` files whose first axis counts the rows."""

    _KEEPS_SCHEMA = True

    def __init__(self, path: str, column: str, *, file_format: str = "npy", **options: Any) -> None:
        super().__init__(path, file_format=file_format, **options)
        self.column = column

    def get_name(self) -> str:
        return "Numpy"

    def write_block_to_file(self, block: pa.Table, file: pa.NativeFile) -> None:
        buffer = io.BytesIO()
        np.save(buffer, _array_of(_column(block, self.column)), allow_pickle=False)
        file.write(buffer.getbuffer())


class ImageDatasink(files.RowBasedFileDatasink):
    """column: of pixels, uint8, height by width or by channels too. file_format: "png", "jpeg", ..., as Pillow calls it."""

    def __init__(self, path: str, column: str, file_format: str = "png", **options: Any) -> None:
        super().__init__(path, file_format=file_format, **options)
        self.column = column

    def get_name(self) -> str:
        return "Image"

    def write_row_to_file(self, row: dict[str, Any], file: pa.NativeFile) -> None:
        try:
            from PIL import Image
        except ImportError as error:
            raise errors.missing_library("Pillow", what="writing images", extra="umbel-data[images]") from error
        if self.column not in row:
            raise KeyError(errors.no_column(self.column, list(row)))
        buffer = io.BytesIO()
        file_format = "jpeg" if self.file_format == "jpg" else self.file_format
        Image.fromarray(np.asarray(row[self.column])).save(buffer, format=file_format)
        file.write(buffer.getbuffer())


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise KeyError(errors.no_column(name, table.column_names))
    return table.column(name)


def _array_of(column: pa.ChunkedArray) -> np.ndarray:
    """The whole column as one array whose first axis counts the rows. Raises ValueError where it has nulls or several shapes."""
    joined = sizes.contiguous(column)
    if tensors.is_tensor(joined.type):
        found: np.ndarray = tensors.to_numpy(joined)
        if found.dtype != object:
            return found
        return _stacked(list(found))
    if pa.types.is_nested(joined.type):
        return _stacked([None if value is None else np.asarray(value) for value in joined.to_pylist()])
    if joined.null_count and not pa.types.is_floating(joined.type):
        raise ValueError(_NULLS)
    if pa.types.is_string(joined.type) or pa.types.is_large_string(joined.type):
        texts: np.ndarray = np.array(joined.to_pylist(), dtype=np.str_)
        return texts
    plain: np.ndarray = joined.to_numpy(zero_copy_only=False)
    return plain


def _stacked(arrays: list[np.ndarray | None]) -> np.ndarray:
    if any(array is None for array in arrays):
        raise ValueError(_NULLS)
    shapes = {array.shape for array in arrays if array is not None}
    if len(shapes) > 1:
        raise ValueError(f"arrays of several shapes do not go into one array, got {sorted(shapes)[:4]}")
    stacked: np.ndarray = np.stack([array for array in arrays if array is not None])
    return stacked
