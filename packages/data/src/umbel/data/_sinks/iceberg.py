"""Iceberg: tasks write data files that no reader of the table sees until the driver commits them as a snapshot."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from umbel import exceptions
from umbel.data._blocks import schemas
from umbel.data._sinks import base
from umbel.data._sources import iceberg


class IcebergDatasink(base.Datasink[list[Any]]):
    """Into a table that is there. mode: append, or overwrite: what `overwrite_filter` (of pyiceberg; all if None) takes is
    replaced. Columns go by name; those that the rows lack are null."""

    def __init__(
        self,
        table_identifier: str,
        *,
        catalog_kwargs: Mapping[str, Any] | None = None,
        mode: base.SaveMode | str = base.SaveMode.APPEND,
        overwrite_filter: Any = None,
        snapshot_properties: Mapping[str, str] | None = None,
    ) -> None:
        self.mode = base.SaveMode(mode)
        if self.mode not in (base.SaveMode.APPEND, base.SaveMode.OVERWRITE):
            raise exceptions.UnsupportedFeature(
                f"an Iceberg table is written by append or overwrite, got {self.mode.value!r}"
            )
        self._identifier, self._catalog_kwargs = table_identifier, dict(catalog_kwargs or {})
        self._overwrite_filter = overwrite_filter
        self._properties = dict(snapshot_properties or {})
        self._metadata: Any = None
        self._io: Any = None

    def get_name(self) -> str:
        return "Iceberg"

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        table = iceberg.load_table(self._identifier, self._catalog_kwargs)
        self._metadata, self._io = table.metadata, table.io

    def write(self, blocks: Iterable[pa.Table], ctx: base.WriteContext) -> list[Any]:
        from pyiceberg.io.pyarrow import _dataframe_to_data_files, schema_to_pyarrow

        schema = schema_to_pyarrow(self._metadata.schema(), include_field_ids=False).remove_metadata()
        written: list[Any] = []
        for table in blocks:
            if table.num_rows:
                rows = schemas.conform(table, schema, origin="the dataset")
                written += _dataframe_to_data_files(self._metadata, rows, self._io, write_uuid=uuid.uuid4())
        return written

    def on_write_complete(self, write_result: base.WriteResult[list[Any]]) -> None:
        from pyiceberg.expressions import AlwaysTrue

        table = iceberg.load_table(self._identifier, self._catalog_kwargs)
        with table.transaction() as transaction:
            if self.mode is base.SaveMode.OVERWRITE:
                taken = AlwaysTrue() if self._overwrite_filter is None else self._overwrite_filter
                transaction.delete(taken, snapshot_properties=self._properties)
            with transaction.update_snapshot(snapshot_properties=self._properties).fast_append() as snapshot:
                for files in write_result.write_returns:
                    for file in files:
                        snapshot.append_data_file(file)
