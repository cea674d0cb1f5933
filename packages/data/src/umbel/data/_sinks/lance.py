"""Lance: tasks write fragments that no reader of the dataset sees until the driver commits them as a version."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from umbel import exceptions
from umbel.data._blocks import schemas
from umbel.data._sinks import base
from umbel.data._sources import errors, lance


class LanceDatasink(base.Datasink[list[Any]]):
    """schema: of the dataset; what is known of the rows if None, and of one that is there its own. mode: create, append,
    overwrite, ignore or error. min_rows_per_file: how many rows a task gets at least. max_rows_per_file: of a file."""

    def __init__(
        self,
        uri: str,
        *,
        schema: pa.Schema | None = None,
        mode: base.SaveMode | str = base.SaveMode.CREATE,
        min_rows_per_file: int | None = 1024 * 1024,
        max_rows_per_file: int = 64 * 1024 * 1024,
        data_storage_version: str | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self.mode = base.SaveMode(mode)
        if self.mode is base.SaveMode.UPSERT:
            raise exceptions.UnsupportedFeature(base.unsupported_mode(self, self.mode))
        self._uri, self._given_schema = uri, schema
        self._min_rows, self._max_rows = min_rows_per_file, max_rows_per_file
        self._version = data_storage_version
        self._storage_options = dict(storage_options or {}) or None
        self._read_version: int | None = None
        self._schema: pa.Schema | None = None

    def get_name(self) -> str:
        return "Lance"

    @property
    def min_rows_per_write(self) -> int | None:
        return self._min_rows

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        self.should_write = True
        self._schema = schema if self._given_schema is None else self._given_schema
        try:
            known = lance.library().dataset(self._uri, storage_options=self._storage_options)
        except (ValueError, FileNotFoundError):
            self._read_version = None
            return
        if self.mode in (base.SaveMode.CREATE, base.SaveMode.ERROR):
            raise exceptions.InvalidOption(
                f"there is a Lance dataset at {self._uri!r} already; say by mode= what becomes of it: append or overwrite",
                option="mode",
            )
        self.should_write = self.mode is not base.SaveMode.IGNORE
        self._read_version = known.version
        if self.mode is base.SaveMode.APPEND and self._given_schema is None:
            self._schema = known.schema

    def write(self, blocks: Iterable[pa.Table], ctx: base.WriteContext) -> list[Any]:
        if not self.should_write:
            return []
        lance.library()
        from lance.fragment import write_fragments

        tables = (table for table in blocks if table.num_rows)
        first = next(tables, None)
        if first is None:
            return []
        schema = self._schema if self._schema is not None else first.schema
        drawn = _Drawn(itertools.chain([first], tables), schema)
        arguments: dict[str, Any] = {
            "schema": schema,
            "mode": "create" if self._read_version is None else self.mode.value,
            "max_rows_per_file": self._max_rows,
            "data_storage_version": self._version,
            "storage_options": self._storage_options,
        }
        reader = pa.RecordBatchReader.from_batches(schema, iter(drawn))
        try:
            fragments = write_fragments(reader, self._uri, **arguments)
        except Exception:
            if drawn.error is not None:
                raise drawn.error from None
            raise
        return [(fragment, schema) for fragment in fragments]

    def on_write_complete(self, write_result: base.WriteResult[list[Any]]) -> None:
        if not self.should_write:
            return
        library = lance.library()
        written = [one for task in write_result.write_returns for one in task]
        fragments = [fragment for fragment, _ in written]
        schema = self._schema
        for _, own in written:
            schema = own if schema is None else schema
            if not own.equals(schema):
                raise ValueError(
                    f"tasks gave rows with {errors.shown(schema)}, and with {errors.shown(own)}; pass schema= with what is "
                    "written"
                )
        if schema is None or (not written and self.mode is base.SaveMode.APPEND and self._read_version is not None):
            return
        if self._read_version is not None and self.mode is base.SaveMode.APPEND:
            operation = library.LanceOperation.Append(fragments)
        else:
            operation = library.LanceOperation.Overwrite(schema, fragments)
        library.LanceDataset.commit(
            self._uri, operation, read_version=self._read_version, storage_options=self._storage_options
        )


class _Drawn:
    """The batches of tables that are brought to a schema. error: what was raised on the way, of which Lance tells by a text."""

    def __init__(self, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
        self.error: Exception | None = None
        self._tables, self._schema = tables, schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for table in self._tables:
                yield from schemas.conform(table, self._schema, origin="the dataset").to_batches()
        except Exception as error:
            self.error = error
            raise
