"""Lance: tasks write fragments that no reader of the dataset sees until the driver commits them as a version."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from umbel import exceptions
from umbel.data._blocks import schemas
from umbel.data._sinks import base
from umbel.data._sources import lance


class LanceDatasink(base.Datasink[list[Any]]):
    """mode: create, append or overwrite. min_rows_per_file: how many rows a task gets at least. max_rows_per_file: of a file."""

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
        self._uri, self._given_schema = uri, schema
        self._min_rows, self._max_rows = min_rows_per_file, max_rows_per_file
        self._version = data_storage_version
        self._storage_options = dict(storage_options or {}) or None
        self._read_version: int | None = None

    def get_name(self) -> str:
        return "Lance"

    @property
    def min_rows_per_write(self) -> int | None:
        return self._min_rows

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        if self.mode is base.SaveMode.UPSERT:
            raise exceptions.UnsupportedFeature(base.unsupported_mode(self, self.mode))
        self.should_write = True
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
            self._given_schema = known.schema

    def write(self, blocks: Iterable[pa.Table], ctx: base.WriteContext) -> list[Any]:
        lance.library()
        from lance.fragment import write_fragments

        tables = (table for table in blocks if table.num_rows)
        first = next(tables, None)
        if first is None:
            return []
        schema = self._given_schema if self._given_schema is not None else first.schema
        conformed = (schemas.conform(table, schema, origin="the dataset") for table in itertools.chain([first], tables))
        reader = pa.RecordBatchReader.from_batches(
            schema, itertools.chain.from_iterable(one.to_batches() for one in conformed)
        )
        fragments = write_fragments(
            reader,
            self._uri,
            schema=schema,
            max_rows_per_file=self._max_rows,
            data_storage_version=self._version,
            storage_options=self._storage_options,
        )
        return [(fragment, schema) for fragment in fragments]

    def on_write_complete(self, write_result: base.WriteResult[list[Any]]) -> None:
        library = lance.library()
        written = [one for task in write_result.write_returns for one in task]
        if not written:
            return
        fragments = [fragment for fragment, _ in written]
        if self._read_version is not None and self.mode is base.SaveMode.APPEND:
            operation = library.LanceOperation.Append(fragments)
        else:
            schema = schemas.unify([(schema, f"task {index}") for index, (_, schema) in enumerate(written)])
            operation = library.LanceOperation.Overwrite(schema, fragments)
        library.LanceDataset.commit(
            self._uri, operation, read_version=self._read_version, storage_options=self._storage_options
        )
