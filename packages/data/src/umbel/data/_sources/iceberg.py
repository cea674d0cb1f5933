"""Iceberg: pyiceberg plans which files are read on the driver, and reads them in the tasks, since deletions and columns that were
renamed are its to know."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from umbel.data import block
from umbel.data._blocks import schemas
from umbel.data._sources import base, errors, iceberg_filters, packing, predicates

_INMEMORY_RATIO: Final = 4.0  # of Arrow's layout to compressed Parquet


class IcebergDatasource(base.Datasource):
    """table_identifier: "namespace.table". catalog_kwargs: for pyiceberg.catalog.load_catalog. row_filter: of pyiceberg, text or
    an expression, or an expression of ours that has the same meaning there. selected_fields: names of columns. snapshot_id: the
    latest if None. scan_kwargs: for Table.scan."""

    def __init__(
        self,
        table_identifier: str,
        *,
        catalog_kwargs: Mapping[str, Any] | None = None,
        row_filter: Any = None,
        selected_fields: Sequence[str] = ("*",),
        snapshot_id: int | None = None,
        scan_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._identifier = table_identifier
        self._table = load_table(table_identifier, catalog_kwargs)
        given = {"selected_fields": tuple(selected_fields), "snapshot_id": snapshot_id, **(scan_kwargs or {})}
        if row_filter is not None:
            schema = arrow_schema(self._table.scan(snapshot_id=snapshot_id).projection())
            given["row_filter"] = iceberg_filters.of(row_filter, schema, option="row_filter")
        self._scan = self._table.scan(**given)
        self._is_filtered = row_filter is not None or "row_filter" in given
        self._limit: int | None = None
        self._planned: list[Any] | None = None

    def get_name(self) -> str:
        return "Iceberg"

    def schema(self) -> pa.Schema:
        projected = arrow_schema(self._scan.projection())
        return projected if self._order is None else pa.schema([projected.field(name) for name in self._order])

    def input_files(self) -> list[str]:
        return [task.file.file_path for task in self._plan()]

    def estimate_inmemory_data_size(self) -> int:
        return int(_INMEMORY_RATIO * sum(task.file.file_size_in_bytes for task in self._plan()))

    def row_count(self) -> int | None:
        if self._is_filtered or any(task.delete_files for task in self._plan()):
            return None
        rows = sum(int(task.file.record_count) for task in self._plan())
        return rows if self._limit is None else min(rows, self._limit)

    def with_columns(self, names: Iterable[str]) -> base.Datasource | None:
        wanted = list(names)
        predicates.check_columns(wanted, self.schema().names)
        if not wanted:
            return None  # pyiceberg has no scan of no columns
        return self._changed(_scan=self._scan.select(*wanted), _order=wanted)

    def with_filter(self, expr: Any) -> tuple[base.Datasource, Any | None]:
        if self._limit is not None:  # the rows that pass are among the first, and not the first of those that pass
            return self, expr
        pushed, residual = iceberg_filters.split(expr, self.schema())
        if pushed is None:
            return self, expr
        return self._changed(_scan=self._scan.filter(pushed), _is_filtered=True, _planned=None), residual

    def with_limit(self, count: int) -> base.Datasource:
        return self._changed(_limit=count if self._limit is None else min(count, self._limit))

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[base.ReadTask]:
        units = []
        for task in self._plan():
            rows = None if self._is_filtered or task.delete_files else int(task.file.record_count)
            units.append(packing.Unit(task.file.file_path, int(task.file.file_size_in_bytes), task, rows))
        limit = per_task_row_limit
        if self._limit is not None:
            units = packing.first_units(units, self._limit)
            limit = self._limit if limit is None else min(limit, self._limit)
        tasks, schema = [], self.schema()
        for group in packing.pack(units, parallelism) or [[]]:  # one at least, which says the types
            counts = [unit.row_count for unit in group if unit.row_count is not None]
            rows = sum(counts) if len(counts) == len(group) else None
            metadata = block.BlockMetadata(
                num_rows=rows if rows is None or limit is None else min(rows, limit),
                size_bytes=int(_INMEMORY_RATIO * sum(unit.size_bytes for unit in group)),
                input_files=tuple(unit.path for unit in group),
            )
            scan = (self._table.metadata, self._table.io, self._scan.projection(), self._scan.row_filter)
            read = functools.partial(_read, *scan, schema, group)
            tasks.append(base.ReadTask(read, metadata, schema, limit))
        return tasks

    def _plan(self) -> list[Any]:
        """Once for the scan: it reads manifests."""
        if self._planned is None:
            self._planned = sorted(self._scan.plan_files(), key=lambda task: str(task.file.file_path))
        return self._planned

    def _changed(self, **fields: Any) -> IcebergDatasource:
        changed = type(self).__new__(type(self))
        changed.__dict__.update({**self.__dict__, **fields})
        return changed

    _order: list[str] | None = None


def arrow_schema(of: Any) -> pa.Schema:
    """Of one of pyiceberg's, as rows are read and written by it."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    return schema_to_pyarrow(of, include_field_ids=False).remove_metadata()


def load_table(identifier: str, catalog_kwargs: Mapping[str, Any] | None) -> Any:
    try:
        from pyiceberg import catalog
    except ImportError as error:
        raise errors.missing_library("pyiceberg", what="an Iceberg table", extra="umbel-data[iceberg]") from error
    return catalog.load_catalog(**(catalog_kwargs or {})).load_table(identifier)


def _read(
    metadata: Any, io: Any, projection: Any, row_filter: Any, schema: pa.Schema, units: Sequence[packing.Unit]
) -> Iterator[pa.Table]:
    from pyiceberg.io.pyarrow import ArrowScan

    scan = ArrowScan(metadata, io, projection, row_filter)
    yield pa.Table.from_batches([], schema)
    for unit in units:  # one after the other, since the scan holds all of what it is given
        try:
            for batch in scan.to_record_batches([unit.part]):
                table = pa.Table.from_batches([batch]).select(schema.names)
                yield schemas.conform(table.cast(schema), schema, origin=repr(unit.path))
        except Exception as error:
            raise errors.in_file(error, unit.path, reader="Iceberg") from error
