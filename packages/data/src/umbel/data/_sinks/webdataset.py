"""WebDataset: tar files with a file for each value of a row, called by the row's `__key__` and the column."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from umbel.data._blocks import rows as block_rows
from umbel.data._sinks import files
from umbel.data._sources import errors, webdataset

Encoder = bool | Callable[[dict[str, Any]], dict[str, Any]] | Sequence[Any] | None


class WebDatasetDatasink(files.BlockBasedFileDatasink):
    """encoder: True for text, numbers, images, JSON and arrays by the names of the columns; None for values that are bytes
    or text already; a function of the row; a list of these. Null makes no file."""

    _MAY_BE_EMPTY = True
    _collected_bytes = None

    def __init__(self, path: str, encoder: Encoder = True, *, file_format: str = "tar", **options: Any) -> None:
        super().__init__(path, file_format=file_format, **options)
        self._encoder = encoder

    def get_name(self) -> str:
        return "WebDataset"

    def _writer(self, file: pa.NativeFile, schema: pa.Schema) -> files.TableWriter:
        return _Writer(file, self._encoder)


class _Writer:
    def __init__(self, file: pa.NativeFile, encoder: Encoder) -> None:
        self._archive = tarfile.open(fileobj=file, mode="w")  # "w|" would write its end into a file that was given up
        self._steps = list(encoder) if isinstance(encoder, (list, tuple)) else [encoder]

    def write(self, table: pa.Table) -> None:
        for row in block_rows.iter_rows(table):
            sample = {name: value for name, value in row.items() if value is not None}
            for step in self._steps:
                if callable(step):
                    sample = step(sample)
                elif step:
                    sample = {name: _encoded(name, value) for name, value in sample.items()}
            key = str(sample.get("__key__") or uuid.uuid4().hex)
            members = {name: value for name, value in sample.items() if not name.startswith("__") and value is not None}
            if not members:
                raise ValueError(
                    f"the row {row!r} has no value that would be a file, and would not be read again; drop such rows"
                )
            for name, value in members.items():
                self._add(f"{key}.{name}", value)

    def _add(self, name: str, value: Any) -> None:
        data = value.encode() if isinstance(value, str) else value
        if not isinstance(data, bytes):
            raise TypeError(
                f"{name!r} must be bytes or text to be written, got {type(value).__name__}; pass an encoder"
            )
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(data), 0o444
        self._archive.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        self._archive.close()


def _encoded(name: str, value: Any) -> Any:
    ending = name.rpartition(".")[2].lower()
    if name.startswith("__") or isinstance(value, bytes):
        return value
    if ending in ("txt", "text", "transcript", "cls", "cls2", "index", "inx", "id"):
        return str(value)
    if ending in ("json", "jsn"):
        return json.dumps(value)
    if ending in webdataset.IMAGES:
        return _image(value, ending)
    if ending == "npy":
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(value), allow_pickle=False)
        return buffer.getvalue()
    return value


def _image(pixels: Any, ending: str) -> bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise errors.missing_library("Pillow", what="writing images", extra="umbel-data[images]") from error
    buffer = io.BytesIO()
    formats = {"jpg": "jpeg", "tif": "tiff", "pgm": "ppm", "pbm": "ppm", "pnm": "ppm"}
    Image.fromarray(np.asarray(pixels)).save(buffer, format=formats.get(ending, ending))
    return buffer.getvalue()
