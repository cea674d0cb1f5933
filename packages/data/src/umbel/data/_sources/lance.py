"""Lance: read by its own library, a fragment at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from umbel.data import block
from umbel.data._sources import base, errors, lance_filters, packing, predicates


class LanceDatasource(base.Datasource):
    """version: of the dataset; the latest when the source is made, if None. filter: of Lance, as text. scanner_options: for
    `LanceDataset.scanner`."""

    def __init__(
        self,
        uri: str,
        *,
        version: int | str | None = None,
        columns: Sequence[str] | None = None,
        filter: str | None = None,
        storage_options: Mapping[str, str] | None = None,
        scanner_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._uri = uri
        self._storage_options = dict(storage_options or {}) or None
        self._dataset = library().dataset(uri, version=version, storage_options=self._storage_options)
        self._options = dict(scanner_options or {})
        self._filter = filter
        self._limit: int | None = None
        if columns is not None:
            predicates.check_columns(columns, self._dataset.schema.names)
        self._columns = None if columns is None else list(columns)

    def get_name(self) -> str:
        return "Lance"

    def schema(self) -> pa.Schema:
        whole = self._dataset.schema
        return whole if self._columns is None else pa.schema([whole.field(name) for name in self._columns])

    def row_count(self) -> int | None:
        if self._filter is not None:
            return None
        rows = int(self._dataset.count_rows())
        return rows if self._limit is None else min(rows, self._limit)

    def with_columns(self, names: Iterable[str]) -> base.Datasource | None:
        wanted = list(names)
        predicates.check_columns(wanted, self.schema().names)
        return self._changed(_columns=wanted) if wanted else None

    def with_filter(self, expr: Any) -> tuple[base.Datasource, Any | None]:
        if self._limit is not None:  # the rows that pass are among the first, and not the first of those that pass
            return self, expr
        pushed, residual = lance_filters.split(expr, self.schema())
        if pushed is None:
            return self, expr
        return self._changed(_filter=pushed if self._filter is None else f"({self._filter}) AND ({pushed})"), residual

    def with_limit(self, count: int) -> base.Datasource:
        return self._changed(_limit=count if self._limit is None else min(count, self._limit))

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[base.ReadTask]:
        units = []
        for fragment in self._dataset.get_fragments():
            rows = int(fragment.count_rows())
            size_bytes = rows * _row_bytes(self.schema())
            units.append(
                packing.Unit(self._uri, size_bytes, fragment.fragment_id, rows if self._filter is None else None)
            )
        limit = per_task_row_limit
        if self._limit is not None:
            units = packing.first_units(units, self._limit)
            limit = self._limit if limit is None else min(limit, self._limit)
        tasks = []
        for group in packing.pack(units, parallelism) or [[]]:  # one at least, which says the types
            counts = [unit.row_count for unit in group if unit.row_count is not None]
            rows_known = sum(counts) if len(counts) == len(group) else None
            metadata = block.BlockMetadata(
                num_rows=rows_known if rows_known is None or limit is None else min(rows_known, limit),
                size_bytes=sum(unit.size_bytes for unit in group),
                input_files=(self._uri,),
            )
            scan = {**self._options, "columns": self._columns, "filter": self._filter}
            ids = [unit.part for unit in group]
            where = (self._uri, self._dataset.version, self._storage_options)
            read = functools.partial(_read, *where, ids, scan, self.schema())
            tasks.append(base.ReadTask(read, metadata, self.schema(), limit))
        return tasks

    def _changed(self, **fields: Any) -> LanceDatasource:
        changed = type(self).__new__(type(self))
        changed.__dict__.update({**self.__dict__, **fields})
        return changed


def library() -> Any:
    try:
        import lance
    except ImportError as error:
        raise errors.missing_library("pylance", what="a Lance dataset", extra="umbel-data[lance]") from error
    return lance


def _row_bytes(schema: pa.Schema) -> int:
    """A guess where a value has no width of its own."""
    return sum(field.type.bit_width // 8 if _has_width(field.type) else 32 for field in schema) or 1


def _has_width(data_type: pa.DataType) -> bool:
    try:
        return bool(data_type.bit_width)
    except ValueError:
        return False


def _read(
    uri: str,
    version: int,
    storage_options: Mapping[str, str] | None,
    ids: Sequence[int],
    scan: Mapping[str, Any],
    schema: pa.Schema,
) -> Iterator[pa.Table]:
    yield pa.Table.from_batches([], schema)
    try:
        dataset = library().dataset(uri, version=version, storage_options=storage_options)
        for fragment_id in ids:
            fragment = dataset.get_fragment(fragment_id)
            for batch in fragment.scanner(**scan).to_batches():
                yield pa.Table.from_batches([batch])
    except Exception as error:
        raise errors.in_file(error, uri, reader="Lance") from error
