"""JSON: an object in each line, or all of them in one array.

Times are ISO 8601; decimals are strings, as their digits would be lost otherwise; NaN and infinities, which JSON has not,
are null.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from umbel import exceptions
from umbel.data._blocks import rows as block_rows
from umbel.data._sinks import files

_ARGUMENTS: Final = ("lines", "orient", "ensure_ascii", "indent")


class JSONDatasink(files.BlockBasedFileDatasink):
    """pandas_json_args: lines (True: an object in each line), ensure_ascii, indent (of an array); orient must be "records"."""

    _MAY_BE_EMPTY = True
    _collected_bytes = None

    def __init__(
        self,
        path: str,
        *,
        pandas_json_args: Mapping[str, Any] | None = None,
        pandas_json_args_fn: Callable[[], Mapping[str, Any]] | None = None,
        file_format: str = "json",
        **options: Any,
    ) -> None:
        super().__init__(path, file_format=file_format, **options)
        self._arguments = {
            **(pandas_json_args or {}),
            **(pandas_json_args_fn() if pandas_json_args_fn is not None else {}),
        }
        unknown = sorted(set(self._arguments) - set(_ARGUMENTS))
        if unknown:
            raise exceptions.InvalidOption(
                f"writing JSON takes {', '.join(_ARGUMENTS)}, got {unknown[0]!r}; map the rows before writing",
                option=unknown[0],
            )
        if self._arguments.get("orient", "records") != "records":
            raise exceptions.InvalidOption(
                f"orient must be 'records', got {self._arguments['orient']!r}: each row is an object", option="orient"
            )

    def get_name(self) -> str:
        return "JSON"

    def _writer(self, file: pa.NativeFile, schema: pa.Schema) -> files.TableWriter:
        return _Writer(file, self._arguments)


class _Writer:
    def __init__(self, file: pa.NativeFile, arguments: Mapping[str, Any]) -> None:
        self._file = file
        self._lines = arguments.get("lines", True)
        indent = None if self._lines else arguments.get("indent")
        self._encoder = json.JSONEncoder(
            ensure_ascii=arguments.get("ensure_ascii", False), indent=indent, default=_plain, allow_nan=False
        )
        self._has_begun = False

    def write(self, table: pa.Table) -> None:
        for row in block_rows.iter_rows(_without_nan(table)):
            text = self._encode(row)
            if self._lines:
                self._file.write(text + b"\n")
            else:
                self._file.write((b",\n" if self._has_begun else b"[") + text)
            self._has_begun = True

    def _encode(self, row: dict[str, Any]) -> bytes:
        try:
            return self._encoder.encode(row).encode()
        except ValueError:  # NaN within nested values
            return self._encoder.encode(_finite(row)).encode()

    def close(self) -> None:
        if not self._lines:
            self._file.write(b"]" if self._has_begun else b"[]")


def _without_nan(table: pa.Table) -> pa.Table:
    for index, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(index)
            is_finite = pc.is_finite(column)
            if pc.all(is_finite).as_py() is False:
                finite = pc.if_else(is_finite, column, pa.scalar(None, field.type))
                table = table.set_column(index, pa.field(field.name, field.type), finite)
    return table


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    """What JSON has no form for."""
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if isinstance(value, bytes):
        raise TypeError("JSON has no bytes; decode the column to text, by base64 for one, or write Parquet")
    raise TypeError(f"JSON has no {type(value).__name__}; map the column to text or numbers before writing")
