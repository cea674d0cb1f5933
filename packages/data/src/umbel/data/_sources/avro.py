"""Avro: a row for each record. Read by fastavro."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import pyarrow as pa

from umbel.data._blocks import rows as block_rows
from umbel.data._sources import errors, files

_RECORDS_AT_ONCE: Final = 10_000  # that become a table


class AvroDatasource(files.FileBasedDatasource):
    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = ("avro",)
    _INMEMORY_RATIO = 4.0

    def get_name(self) -> str:
        return "Avro"

    def _read_stream(self, f: pa.NativeFile, path: str) -> Iterator[pa.Table]:
        try:
            import fastavro
        except ImportError as error:
            raise errors.missing_library("fastavro", what="reading Avro", extra="umbel-data[avro]") from error
        rows: list[Any] = []
        for record in fastavro.reader(f):
            if not isinstance(record, dict):
                raise ValueError(f"its schema must be of records, got a value of {type(record).__name__}")
            rows.append(record)
            if len(rows) >= _RECORDS_AT_ONCE:
                yield block_rows.from_rows(rows)
                rows = []
        if rows:
            yield block_rows.from_rows(rows)
