"""Columns as arrays of NumPy, images, and lines of text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from umbel.data._sinks import files
from umbel.data._sources import errors, seams


class NumpyDatasink(files.BlockBasedFileDatasink):
    """column: whose values, in `.npy` files whose first axis counts the rows."""

    def __init__(self, path: str, column: str, *, file_format: str = "npy", **options: Any) -> None:
        super().__init__(path, file_format=file_format, **options)
        self.column = column

    def get_name(self) -> str:
        return "Numpy"

    def write_block_to_file(self, block: pa.Table, file: pa.NativeFile) -> None:
        buffer = io.BytesIO()
        np.save(buffer, seams.array_of(_column(block, self.column)), allow_pickle=False)
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
            raise KeyError(seams.no_column(self.column, list(row)))
        buffer = io.BytesIO()
        file_format = "jpeg" if self.file_format == "jpg" else self.file_format
        Image.fromarray(np.asarray(row[self.column])).save(buffer, format=file_format)
        file.write(buffer.getbuffer())


class TextDatasink(files.BlockBasedFileDatasink):
    """column: of text, a line for each row. Null is an empty line."""

    _collected_bytes = None

    def __init__(self, path: str, column: str = "text", *, file_format: str = "txt", **options: Any) -> None:
        super().__init__(path, file_format=file_format, **options)
        self.column = column

    def get_name(self) -> str:
        return "Text"

    def _writer(self, file: pa.NativeFile, schema: pa.Schema) -> files.TableWriter:
        return _Lines(file, self.column)


class _Lines:
    def __init__(self, file: pa.NativeFile, column: str) -> None:
        self._file, self._name = file, column

    def write(self, table: pa.Table) -> None:
        values: Sequence[Any] = _column(table, self._name).to_pylist()
        for value in values:
            if value is not None and not isinstance(value, str):
                raise TypeError(
                    f"column {self._name!r} must be text to be written as lines, got {type(value).__name__}"
                )
            if value and "\n" in value:
                raise ValueError(
                    f"a line feed within a value of {self._name!r} would make two rows of it: {value[:60]!r}"
                )
        self._file.write("".join(f"{value or ''}\n" for value in values).encode())

    def close(self) -> None:
        pass


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise KeyError(seams.no_column(name, table.column_names))
    return table.column(name)
