"""Parquet, Arrow, ORC and CSV: formats whose writers take tables one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from umbel.data._blocks import schemas, sizes
from umbel.data._sinks import files, storable

_ROW_GROUP_BYTES: Final = 64 << 20  # of tables that become a row group: readers want them neither tiny nor huge

_CSV_FIELDS: Final = ("include_header", "batch_size", "delimiter", "quoting_style", "quoting_header")


class _Gathered:
    """Small tables put together before they are written, since each becomes a row group."""

    def __init__(self, write: Callable[[pa.Table], None], close: Callable[[], None]) -> None:
        self._write, self._close = write, close
        self._tables: list[pa.Table] = []
        self._size_bytes = 0

    def write(self, table: pa.Table) -> None:
        self._tables.append(table)
        self._size_bytes += sizes.size_bytes(table)
        if self._size_bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._tables:
            self._write(schemas.concat(self._tables))
        self._tables, self._size_bytes = [], 0

    def close(self) -> None:
        self._flush()
        self._close()


class _WithArguments(files.BlockBasedFileDatasink):
    """arguments: for the format's writer; arguments_fn: makes them where they are used, for what does not travel."""

    _collected_bytes = None
    _KEEPS_SCHEMA = True

    def __init__(
        self,
        path: str,
        *,
        arguments: Mapping[str, Any] | None,
        arguments_fn: Callable[[], Mapping[str, Any]] | None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        self._given = dict(arguments or {})
        self._make = arguments_fn

    def _arguments(self) -> dict[str, Any]:
        return {**self._given, **(self._make() if self._make is not None else {})}


class ParquetDatasink(_WithArguments):
    """arrow_parquet_args: for pyarrow.parquet.ParquetWriter, `compression` and `row_group_size` among them."""

    def __init__(
        self,
        path: str,
        *,
        partition_cols: Sequence[str] | None = None,
        arrow_parquet_args: Mapping[str, Any] | None = None,
        arrow_parquet_args_fn: Callable[[], Mapping[str, Any]] | None = None,
        file_format: str = "parquet",
        **options: Any,
    ) -> None:
        super().__init__(
            path,
            partition_cols=partition_cols,
            arguments=arrow_parquet_args,
            arguments_fn=arrow_parquet_args_fn,
            file_format=file_format,
            **options,
        )

    def get_name(self) -> str:
        return "Parquet"

    def _writer(self, file: pa.NativeFile, schema: pa.Schema) -> files.TableWriter:
        arguments = self._arguments()
        row_group_size = arguments.pop("row_group_size", None)
        writer = pq.ParquetWriter(file, arguments.pop("schema", schema), **arguments)
        return _Gathered(lambda table: writer.write_table(table, row_group_size=row_group_size), writer.close)


class ArrowDatasink(_WithArguments):
    """arrow_ipc_args: for pyarrow.ipc.IpcWriteOptions, such as `compression`."""

    def __init__(
        self, path: str, *, arrow_ipc_args: Mapping[str, Any] | None = None, file_format: str = "arrow", **options: Any
    ) -> None:
        super().__init__(path, arguments=arrow_ipc_args, arguments_fn=None, file_format=file_format, **options)

    def get_name(self) -> str:
        return "Arrow"

    def _writer(self, file: pa.NativeFile, schema: pa.Schema) -> files.TableWriter:
        writer = pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(**self._arguments()))
        return _Gathered(writer.write_table, writer.close)


def _of_orc(data_type: pa.DataType) -> pa.DataType | None:
    if pa.types.is_time(data_type) or pa.types.is_duration(data_type) or pa.types.is_null(data_type):
        return None
    return storable.signed(data_type)


class ORCDatasink(_WithArguments):
    """arrow_orc_args: for pyarrow.orc.ORCWriter, such as `compression`."""

    def __init__(
        self,
        path: str,
        *,
        arrow_orc_args: Mapping[str, Any] | None = None,
        arrow_orc_args_fn: Callable[[], Mapping[str, Any]] | None = None,
        file_format: str = "orc",
        **options: Any,
    ) -> None:
        super().__init__(
            path, arguments=arrow_orc_args, arguments_fn=arrow_orc_args_fn, file_format=file_format, **options
        )

    def get_name(self) -> str:
        return "ORC"

    def _writer(self, file: pa.NativeFile, schema: pa.Schema) -> files.TableWriter:
        from pyarrow import orc

        storable.schema(schema, _of_orc, of="ORC")
        writer = orc.ORCWriter(file, **self._arguments())
        return _Gathered(lambda table: writer.write(storable.table(table, _of_orc, of="ORC")), writer.close)


class CSVDatasink(_WithArguments):
    """arrow_csv_args: `write_options`, of pyarrow.csv. Nested values cannot be written."""

    def __init__(
        self,
        path: str,
        *,
        arrow_csv_args: Mapping[str, Any] | None = None,
        arrow_csv_args_fn: Callable[[], Mapping[str, Any]] | None = None,
        file_format: str = "csv",
        **options: Any,
    ) -> None:
        super().__init__(
            path, arguments=arrow_csv_args, arguments_fn=arrow_csv_args_fn, file_format=file_format, **options
        )
        if "write_options" in self._given:  # which do not travel; their fields do
            given = self._given["write_options"]
            fields = {name: getattr(given, name) for name in _CSV_FIELDS if hasattr(given, name)}
            self._given["write_options"] = fields

    def get_name(self) -> str:
        return "CSV"

    def _writer(self, file: pa.NativeFile, schema: pa.Schema) -> files.TableWriter:
        for field in schema:
            if pa.types.is_nested(field.type) or isinstance(field.type, pa.BaseExtensionType):
                raise TypeError(
                    f"column {field.name!r} is {field.type}, which CSV cannot hold; drop it, or write JSON or Parquet"
                )
        arguments = self._arguments()
        options = arguments.pop("write_options", None)
        if isinstance(options, dict):
            options = arrow_csv.WriteOptions(**options)
        return arrow_csv.CSVWriter(file, schema, write_options=options, **arguments)  # type: ignore[no-any-return]
