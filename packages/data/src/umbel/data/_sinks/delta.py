"""Delta Lake: tasks write Parquet files that no reader of the table sees until the driver commits them to its log."""

from __future__ import annotations

import json
import logging
import posixpath
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from umbel import exceptions
from umbel.data._blocks import schemas
from umbel.data._sinks import base, files, storable, tables
from umbel.data._sources import delta, partitioning

logger = logging.getLogger("umbel.data")


@dataclass(frozen=True)
class DeltaFile(files.WrittenFile):
    """schema: of the rows, the columns of the partitions among them."""

    schema: pa.Schema


class DeltaDatasink(tables.ParquetDatasink):
    """mode: append, overwrite (older versions stay readable), error or ignore. partition_by: of a table that is made; one that
    is there has its own. schema_mode: "merge" adds columns that the table lacks, by a version of their own before that with the
    rows; "error" refuses them."""

    def __init__(
        self,
        path: str,
        *,
        mode: base.SaveMode | str = base.SaveMode.APPEND,
        partition_by: Sequence[str] | None = None,
        schema_mode: Literal["merge", "error"] = "merge",
        storage_options: Mapping[str, str] | None = None,
        name: str | None = None,
        description: str | None = None,
        **options: Any,
    ) -> None:
        if schema_mode not in ("merge", "error"):
            raise exceptions.InvalidOption(
                f"schema_mode must be 'merge' or 'error', got {schema_mode!r}", option="schema_mode"
            )
        super().__init__(path, mode=mode, partition_cols=partition_by, **options)
        self._uri = path
        self._stages = False  # the log is what makes files appear
        self._schema_mode = schema_mode
        self._storage_options = dict(storage_options or {}) or None
        self._table_name, self._description = name, description

    def get_name(self) -> str:
        return "Delta"

    @property
    def supports_checkpoints(self) -> bool:
        return False  # a commit that was made before its driver was killed would be made again

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        if self.mode is base.SaveMode.UPSERT:
            raise exceptions.UnsupportedFeature(base.unsupported_mode(self, self.mode))
        known = None if schema is None else storable.schema(schema, _of_delta, of="a Delta table")
        self.write_uuid, self.should_write, self._schema, self._is_ending = uuid.uuid4().hex, True, known, False
        table = self._table()
        if table is not None:
            if self.mode in (base.SaveMode.CREATE, base.SaveMode.ERROR):
                raise exceptions.InvalidOption(
                    f"{self._uri!r} has a Delta table already; say what becomes of it by mode=: append, overwrite, ignore",
                    option="mode",
                )
            if self.mode is base.SaveMode.IGNORE:
                self.should_write = False
                return
            own = list(table.metadata().partition_columns)
            if self.partition_cols and self.partition_cols != own:
                raise exceptions.InvalidOption(
                    f"the Delta table {self._uri!r} is partitioned by {own}, got partition_by={self.partition_cols}; omit it",
                    option="partition_by",
                )
            self.partition_cols = own
        if self._has_directories:
            self._filesystem.create_dir(self.path, recursive=True)

    def write(self, blocks: Iterable[pa.Table], ctx: base.WriteContext) -> list[files.WrittenFile]:
        seen = _Seen(storable.table(table, _of_delta, of="a Delta table") for table in blocks)
        written = super().write(seen, ctx)
        return [DeltaFile(file.staged, file.final, file.num_rows, seen.schema) for file in written]

    def on_write_complete(self, write_result: base.WriteResult[list[files.WrittenFile]]) -> None:
        if not self.should_write:
            return
        written = [file for task in write_result.write_returns for file in task if isinstance(file, DeltaFile)]
        self._refuse_clashes(written)
        self._remove(set(self._own_files()) - {file.final for file in written})
        found = [(file.schema, f"the rows of {posixpath.basename(file.final)}") for file in written]
        if not found and self._schema is not None:
            found = [(self._schema, "the dataset")]
        if not found:
            return
        self._commit(schemas.unify(found), [self._action(file) for file in written])

    def on_write_failed(self, error: Exception) -> None:
        """An error of the commit does not tell that the log has not got it: its answer may be what was lost."""
        if self._is_ending:
            logger.warning(
                "the commit to the Delta table %r failed (%s: %s), but may be in its log; its files, with %s in their names, "
                "stay, and vacuum() of deltalake removes them if no version has them",
                self._uri, type(error).__name__, error, self.write_uuid,
            )  # fmt: skip
        super().on_write_failed(error)

    def _commit(self, schema: pa.Schema, actions: list[Any]) -> None:
        library = delta.library()
        table = self._table()
        mode = "overwrite" if self.mode is base.SaveMode.OVERWRITE else "append"
        if table is None:
            from deltalake import transaction

            self._is_ending = True
            transaction.create_table_with_add_actions(
                self._uri,
                library.Schema.from_arrow(schema),
                actions,
                mode=mode,
                partition_by=self.partition_cols,
                name=self._table_name,
                description=self._description,
                storage_options=self._storage_options,
            )
            return
        if mode == "append":
            schema = self._merged(table, schema)
        self._is_ending = True
        table.create_write_transaction(
            actions, mode, library.Schema.from_arrow(schema), partition_by=self.partition_cols
        )

    def _merged(self, table: Any, schema: pa.Schema) -> pa.Schema:
        """The table's schema, with the columns that it lacks. Raises ValueError where types differ: its files stay."""
        own = pa.schema(table.schema().to_arrow())
        whole = schemas.unify([(own, f"the table {self._uri!r}"), (schema, "the dataset")])
        for field in own:
            other = whole.field(field.name).type
            if not other.equals(field.type):
                raise ValueError(
                    f"column {field.name!r} of {self._uri!r} is {field.type}, and the dataset needs {other}; cast it"
                )
        added = [field for field in whole if field.name not in own.names]
        if added and self._schema_mode == "error":
            raise ValueError(
                f"the table {self._uri!r} has no column {added[0].name!r}; drop it, or pass schema_mode='merge'"
            )
        if added:
            table.alter.add_columns(list(delta.library().Schema.from_arrow(pa.schema(added)).fields))
        return whole

    def _action(self, file: DeltaFile) -> Any:
        from deltalake import transaction

        relative = posixpath.relpath(file.final, self.path)
        values = partitioning.PathPartitionParser(partitioning.HIVE)(relative)
        return transaction.AddAction(
            path=relative,
            size=int(self._filesystem.get_file_info(file.final).size or 0),
            partition_values=values,
            modification_time=int(time.time() * 1000),
            data_change=True,
            stats=json.dumps({"numRecords": file.num_rows}),
        )

    def _table(self) -> Any:
        library = delta.library()
        if not library.DeltaTable.is_deltatable(self._uri, self._storage_options):
            return None
        return library.DeltaTable(self._uri, storage_options=self._storage_options)


def _of_delta(data_type: pa.DataType) -> pa.DataType | None:
    """Its timestamps count microseconds, in UTC or without a zone."""
    if pa.types.is_timestamp(data_type):
        return pa.timestamp("us", None if data_type.tz is None else "UTC")
    if pa.types.is_time(data_type) or pa.types.is_duration(data_type) or pa.types.is_float16(data_type):
        return None
    if pa.types.is_date64(data_type):
        return pa.date32()
    return storable.signed(data_type)


class _Seen:
    """Tables on their way, and the schema of all of them so far."""

    def __init__(self, blocks: Iterable[pa.Table]) -> None:
        self._blocks = blocks
        self.schema = pa.schema([])

    def __iter__(self) -> Iterator[pa.Table]:
        for table in self._blocks:
            if not table.schema.equals(self.schema):
                self.schema = schemas.unify([(self.schema, "the blocks before"), (table.schema, "a block")])
            yield table
