"""Parquet. What is read apart is a row group, or a whole file where files are small.

Memory is bounded by a row group: a task decodes it in slices. Footers are fetched by threads and kept for the source: of a few
files for the schema, of large files to divide them, of all files for a count or a filter. Row groups whose statistics
exclude the filter are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from umbel.data._blocks import schemas
from umbel.data._sources import errors, files, filesystems, listing, packing, partitioning, predicates

_FOOTERS_LOOKED_AT_MAX: Final = 64  # for the schema: more would delay the start where there are thousands
_DIVIDED_BYTES: Final = 32 << 20  # a larger file is divided into row groups
_INMEMORY_RATIO_UNKNOWN: Final = 4.0  # compressed and encoded, against Arrow's layout
_PRUNED_BYTES: Final = 1 << 20  # a smaller file of one row group is read sooner than its statistics are looked at
_BATCH_ROWS_MAX: Final = 1 << 20


class ParquetDatasource(files.FileBasedDatasource):
    """arrow_parquet_args: for pyarrow's ParquetFile. columns, filter: as with_columns and with_filter; the filter may be a
    pyarrow expression."""

    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = ("parquet", "parquet.snappy", "parquet.gz", "parq")
    _READS_COLUMNS = True

    def __init__(
        self,
        paths: filesystems.Paths,
        *,
        columns: Sequence[str] | None = None,
        filter: Any = None,
        arrow_parquet_args: Mapping[str, Any] | None = None,
        partitioning: partitioning.Partitioning | None = partitioning.HIVE,
        **options: Any,
    ) -> None:
        super().__init__(paths, partitioning=partitioning, **options)
        self._arguments = dict(arrow_parquet_args or {})
        self._footers: dict[str, pq.FileMetaData] = {}
        if columns is not None:
            predicates.check_columns(columns, self._known_schema().names)
            self._columns = tuple(columns)
        if filter is not None:
            self._filter = filter

    def get_name(self) -> str:
        return "Parquet"

    def row_count(self) -> int | None:
        if self._filter is not None:
            return None
        rows: int = sum(footer.num_rows for footer in self._footers_of([file.path for file in self._files]))
        return rows if self._limit is None else min(rows, self._limit)

    def estimate_inmemory_data_size(self) -> int:
        """By what the footers looked at say of their files: decoded, of the columns that are wanted."""
        paths = [file.path for file in _spread(self._files, 8)]
        sizes = {file.path: max(file.size_bytes, 1) for file in self._files}
        wanted = self._wanted_columns()
        decoded = sum(_decoded_bytes(footer, wanted) for footer in self._footers_of(paths))
        on_disk = sum(sizes[path] for path in paths)
        ratio = decoded / on_disk if on_disk else _INMEMORY_RATIO_UNKNOWN
        return int(ratio * sum(sizes.values()))

    def _known_schema(self) -> pa.Schema:
        schema = self._whole_schema()
        if schema is None:
            raise RuntimeError("a Parquet source always knows its schema")
        return schema

    def _file_schema(self) -> pa.Schema:
        looked_at = [file.path for file in _spread(self._files, _FOOTERS_LOOKED_AT_MAX)]
        found = [footer.schema.to_arrow_schema() for footer in self._footers_of(looked_at)]
        return schemas.unify(zip(found, map(repr, looked_at), strict=True)).remove_metadata()

    def _footers_of(self, paths: Sequence[str]) -> list[pq.FileMetaData]:
        missing = [path for path in paths if path not in self._footers]
        self._footers.update(zip(missing, listing.in_threads(self._read_footer, missing), strict=True))
        return [self._footers[path] for path in paths]

    def _read_footer(self, path: str) -> pq.FileMetaData:
        try:
            with self._filesystem.open_input_file(path) as stream:
                return pq.read_metadata(stream)
        except Exception as error:
            raise errors.in_file(error, path, reader="Parquet") from error

    def _units(self, files: Sequence[listing.ListedFile]) -> list[packing.Unit]:
        large = [file.path for file in files if file.size_bytes > _DIVIDED_BYTES or file.size_bytes < 0]
        self._footers_of(large)
        units = []
        for file in files:
            footer = self._footers.get(file.path)
            if footer is None:
                units.append(packing.Unit(file.path, file.size_bytes))
            elif file.size_bytes <= _DIVIDED_BYTES:
                units.append(packing.Unit(file.path, max(file.size_bytes, 0), None, footer.num_rows))
            else:
                units += self._row_groups(file.path, footer)
        return units

    def _row_groups(self, path: str, footer: pq.FileMetaData) -> Iterator[packing.Unit]:
        for index in self._possible_row_groups(path, footer, self._pruning()):
            group = footer.row_group(index)
            size_bytes = sum(group.column(column).total_compressed_size for column in range(group.num_columns))
            yield packing.Unit(path, size_bytes, index, group.num_rows)

    def _pruning(self) -> _Pruning | None:
        """What statistics can say to the filter, if anything."""
        if self._filter is None:
            return None
        schema = self._known_schema()
        if not predicates.may_use_statistics(self._filter, schema):
            return None
        return _Pruning(schema, frozenset(predicates.columns_of(self._filter, schema)))

    def _possible_row_groups(self, path: str, footer: pq.FileMetaData, pruning: _Pruning | None) -> Sequence[int]:
        """Those that may have a row that passes the filter."""
        every = range(footer.num_row_groups)
        if pruning is None or not pruning.suits(footer):
            return every
        of_path = predicates.guarantee(self._path_values(path))
        known = [of_path & pruning.known(footer.row_group(index)) for index in every]
        kept = predicates.possible(self._filter, known, pruning.schema)
        return [index for index in every if kept[index]]

    def _travelling(self) -> files.FileBasedDatasource:
        travelling = super()._travelling()
        travelling.__dict__.update(_footers={}, _planned_pruning=self._pruning())
        return travelling

    def _read_unit(self, unit: packing.Unit) -> Iterator[pa.Table]:
        is_remote = not isinstance(self._filesystem, fs.LocalFileSystem)
        arguments = {"pre_buffer": is_remote, **self._arguments}
        with self._filesystem.open_input_file(unit.path) as stream, pq.ParquetFile(stream, **arguments) as file:
            footer = file.metadata
            groups: Sequence[int] = range(footer.num_row_groups) if unit.part is None else [unit.part]
            if unit.part is None and (len(groups) > 1 or unit.size_bytes > _PRUNED_BYTES):
                groups = self._possible_row_groups(unit.path, footer, self._planned_pruning)
            present = file.schema_arrow.names
            columns = None if self._wanted is None else [name for name in self._wanted if name in present]
            for group in groups:
                batch_rows = _batch_rows(footer, group, columns)
                for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns, use_threads=False):
                    yield _table(batch, columns)

    _planned_pruning: _Pruning | None = None


@dataclass(frozen=True)
class _Pruning:
    """columns: those that the filter looks at."""

    schema: pa.Schema
    columns: frozenset[str]

    def suits(self, footer: pq.FileMetaData) -> bool:
        """Whether the filter sees the columns as the file has them: not where a file's types are widened."""
        own = footer.schema.to_arrow_schema()
        return all(own.field(name).type.equals(self.schema.field(name).type) for name in self.columns & set(own.names))

    def known(self, group: pq.RowGroupMetaData) -> pc.Expression:
        """What the statistics of a row group say of each of its rows. Of nested values they say nothing, and of what is cut
        short no more than bounds."""
        known = pc.scalar(True)
        for index in range(group.num_columns):
            column = group.column(index)
            if column.path_in_schema not in self.columns or column.statistics is None:
                continue
            field, found = self.schema.field(column.path_in_schema), column.statistics
            if pa.types.is_nested(field.type):
                continue
            nulls = found.null_count if found.has_null_count else None
            try:
                if found.has_min_max:
                    known = known & predicates.between(field, found.min, found.max, may_be_null=nulls != 0)
                elif nulls == group.num_rows:
                    known = known & predicates.between(field, None, None, may_be_null=True)
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError, TypeError):
                continue  # bounds of a type that Arrow makes no scalar of
        return known


def _table(batch: pa.RecordBatch, columns: Sequence[str] | None) -> pa.Table:
    return _selected(pa.Table.from_batches([batch]), columns)


def _selected(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """The file's own order is what the reader gives; and of `a`, it gives `a.b` as well."""
    if table.num_columns > 0:  # pyarrow forgets how many rows a table without columns has
        table = table.replace_schema_metadata(None)
    return table if columns is None or table.column_names == columns else table.select(columns)


def _spread(listed: Sequence[listing.ListedFile], count: int) -> Sequence[listing.ListedFile]:
    """The first, the last, and between them at even distances."""
    if len(listed) <= count:
        return listed
    return [listed[index * (len(listed) - 1) // (count - 1)] for index in range(count)]


def _decoded_bytes(footer: pq.FileMetaData, wanted: Sequence[str] | None) -> int:
    return sum(_group_bytes(footer, group, wanted) for group in range(footer.num_row_groups))


def _group_bytes(footer: pq.FileMetaData, group: int, wanted: Sequence[str] | None) -> int:
    """Of the wanted columns as they are decoded, before dictionaries are resolved."""
    described = footer.row_group(group)
    if wanted is None:
        return int(max(described.total_byte_size, described.num_rows * described.num_columns))
    columns = [described.column(index) for index in range(described.num_columns)]
    return sum(int(column.total_uncompressed_size) for column in columns if _top(column.path_in_schema) in wanted)


def _top(path_in_schema: str) -> str:
    return path_in_schema.partition(".")[0]


def _batch_rows(footer: pq.FileMetaData, group: int, columns: Sequence[str] | None) -> int:
    rows = int(footer.row_group(group).num_rows)
    row_bytes = max(1, _group_bytes(footer, group, columns) // max(rows, 1))
    return max(1, min(_BATCH_ROWS_MAX, files.PIECE_BYTES // row_bytes, max(rows, 1)))
