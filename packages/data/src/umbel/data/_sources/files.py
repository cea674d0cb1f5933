"""Sources that are files: what is the same whatever the format.

The files are listed once, when the source is made. A task has neighbouring files (or parts of files), and reads them one
after the other. Behind the columns of a file come those that its path says: partitions, then `path`. Of a filter, what can
be decided by the path is decided without opening the file; the rest is applied to each table as it is read, before
columns are dropped.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
import pyarrow as pa

from umbel import exceptions
from umbel.data import block
from umbel.data._blocks import schemas
from umbel.data._sources import base, bounding, errors, filesystems, listing, packing, partitioning, predicates

PATH_COLUMN: Final = "path"
_LOOKED_AT: Final = "the files that were looked at first"
PIECE_BYTES: Final = 16 << 20  # of the tables that readers give: much less than a block, and few calls


@dataclass(frozen=True)
class FileShuffleConfig:
    """Files in a random order. seed: None for another order each time; else the order is the same for the same seed, and,
    with reseed_after_execution, the same epoch."""

    seed: int | None = None
    reseed_after_execution: bool = True

    def __post_init__(self) -> None:
        if self.seed is not None and not isinstance(self.seed, int):
            raise exceptions.InvalidOptionType(f"seed must be an int or None, got {self.seed!r}", option="seed")

    def get_seed(self, execution_idx: int = 0) -> int | None:
        """The seed of this execution: None for another order each time."""
        if self.seed is None or not self.reseed_after_execution:
            return self.seed
        return int(np.random.SeedSequence([abs(self.seed), execution_idx]).generate_state(1)[0])


class FileBasedDatasource(base.Datasource):
    """A source of files. For a format of your own, define `_read_stream(self, f, path)`: it gets an open file, decompressed,
    and yields tables.

    schema: what each file is read as; columns that it lacks are dropped, those that a file lacks are null.
    open_stream_args: for `pyarrow.fs.FileSystem.open_input_stream`; `compression` is told by the name otherwise.
    file_extensions: of the files to be read of a directory; a file that is named itself is always read. listed: the files, where
    a table has a log that says which they are.
    """

    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = None
    _VALUE_COLUMN: ClassVar[str | None] = None  # where a file is a row: the column with what `_value` makes of it
    _INMEMORY_RATIO: ClassVar[float] = 1.0  # bytes of blocks for each byte of a file
    _READS_COLUMNS: ClassVar[bool] = False  # whether a reader is quicker when it need not give all columns

    def __init__(
        self,
        paths: filesystems.Paths,
        *,
        filesystem: Any = None,
        schema: pa.Schema | None = None,
        open_stream_args: Mapping[str, Any] | None = None,
        partition_filter: partitioning.PathPartitionFilter | None = None,
        partitioning: partitioning.Partitioning | None = None,
        ignore_missing_paths: bool = False,
        skip_paths: filesystems.Paths | None = None,
        shuffle: Literal["files"] | FileShuffleConfig | None = None,
        include_paths: bool = False,
        file_extensions: Sequence[str] | None = None,
        listed: Sequence[listing.ListedFile] | None = None,
    ) -> None:
        self._filesystem, names = filesystems.resolve(paths, filesystem)
        self._is_local_only = filesystems.is_local_only(paths)
        self._given_schema = schema
        self._open_stream_args = dict(open_stream_args or {})
        self._partitioning = _located(partitioning, filesystem)
        self._parser = _parser(self._partitioning)
        self._shuffle = _shuffle_config(shuffle)
        self._include_paths = include_paths
        self._columns: tuple[str, ...] | None = None
        self._filter: Any = None  # a pyarrow.dataset expression
        self._limit: int | None = None
        self._epoch = 0
        if listed is not None:
            self._files = list(listed)
        else:
            self._files = listing.list_files(
                names,
                self._filesystem,
                ignore_missing_paths=ignore_missing_paths,
                skip_paths=filesystems.resolve(skip_paths, filesystem)[1] if skip_paths else (),
                file_extensions=file_extensions,
            )
        if partition_filter is not None:
            self._files = _kept(self._files, partition_filter)
        self._path_schema = self._path_fields()
        self._wanted: list[str] | None = None  # columns of a file itself that are to be read; None for all

    # -----------------------------------------------------------------------------------------------------------------
    # What a format says.

    def _read_stream(self, f: pa.NativeFile, path: str) -> Iterator[pa.Table]:
        raise NotImplementedError(f"{type(self).__name__} must define _read_stream(f, path), which yields tables")

    def _read_unit(self, unit: packing.Unit) -> Iterator[pa.Table]:
        """The tables of a file or a part of one, with all columns that it has itself, or only those of `_wanted`."""
        with self._open_input_source(unit.path) as stream:
            yield from map(bounding.as_table, self._read_stream(stream, unit.path))

    def _value(self, f: pa.NativeFile, path: str) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define _value(f, path), as it has a _VALUE_COLUMN")

    def _value_array(self, values: Sequence[Any], paths: Sequence[str]) -> pa.Array:
        """A column of values, one of each path."""
        raise NotImplementedError(
            f"{type(self).__name__} must define _value_array(values, paths), as it has a _VALUE_COLUMN"
        )

    def _units(self, files: Sequence[listing.ListedFile]) -> list[packing.Unit]:
        rows = None if self._VALUE_COLUMN is None else 1
        return [packing.Unit(file.path, max(file.size_bytes, 0), row_count=rows) for file in files]

    def _file_schema(self) -> pa.Schema | None:
        """Of the columns that the files have themselves, where it is known without reading rows."""
        return None

    # -----------------------------------------------------------------------------------------------------------------
    # What is asked of a source.

    def schema(self) -> pa.Schema | None:
        whole = self._whole_schema()
        return (
            whole
            if whole is None or self._columns is None
            else pa.schema([whole.field(name) for name in self._columns])
        )

    def row_count(self) -> int | None:
        if self._filter is not None:
            return None
        counts = [unit.row_count for unit in self._units(self._files)]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        return sum(known) if self._limit is None else min(sum(known), self._limit)

    def estimate_inmemory_data_size(self) -> int | None:
        return int(self._INMEMORY_RATIO * sum(max(file.size_bytes, 0) for file in self._files))

    def input_files(self) -> list[str]:
        return [file.path for file in self._files]

    def input_versions(self) -> Mapping[str, str]:
        return listing.versions(self.input_files(), self._filesystem)

    def checkpoint_identity(self) -> str:
        return f"{self.get_name()} of files as {self._given_schema}, {self._columns}, {self._filter}, {self._limit}"

    @property
    def supports_distributed_reads(self) -> bool:
        return not self._is_local_only

    def with_columns(self, names: Iterable[str]) -> base.Datasource | None:
        if not self._READS_COLUMNS:
            return None
        wanted = tuple(names)
        whole = self._whole_schema()
        if whole is not None:
            predicates.check_columns(wanted, whole.names)
        return self._changed(_columns=wanted)

    def with_filter(self, expr: Any) -> tuple[base.Datasource, Any | None]:
        if self._limit is not None:  # the rows that pass are among the first, and not the first of those that pass
            return self, expr
        pushed, residual = predicates.split(expr, self._whole_schema(), self._path_schema)
        if pushed is None:
            return self, expr
        return self._with_arrow_filter(pushed), residual

    def with_limit(self, count: int) -> base.Datasource:
        return self._changed(_limit=count if self._limit is None else min(count, self._limit))

    @property
    def is_repeatable(self) -> bool:
        return self._shuffle is None or self._shuffle.seed is not None

    def with_epoch(self, epoch: int) -> base.Datasource:
        return self._changed(_epoch=epoch)

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[base.ReadTask]:
        files = self._in_order(self._unpruned())
        units = self._units(files)
        limit = per_task_row_limit
        if self._limit is not None:
            limit = self._limit if limit is None else min(limit, self._limit)
            units = units if self._filter is not None else packing.first_units(units, self._limit)
        schema = self._whole_schema()
        reader = self._travelling()
        return [
            base.ReadTask(
                _Read(reader._for_units(group), group, schema), self._metadata(group, limit), self.schema(), limit
            )
            for group in packing.pack(units, parallelism)
        ]

    # -----------------------------------------------------------------------------------------------------------------
    # For formats.

    def _open_input_source(self, path: str) -> pa.NativeFile:
        """The file from its beginning on, decompressed."""
        arguments = {"compression": "detect", **self._open_stream_args}
        if path.endswith(".snappy"):
            raise exceptions.UnsupportedFeature(
                f"{path!r} is compressed by snappy; decompress it, or use zst, lz4, gz or bz2"
            )
        return self._filesystem.open_input_stream(path, **arguments)

    def _is_compressed(self, path: str) -> bool:
        said = self._open_stream_args.get("compression", "detect")
        return path.endswith((".gz", ".bz2", ".zst", ".lz4", ".br")) if said == "detect" else said is not None

    def _travelling(self) -> FileBasedDatasource:
        """What goes with each task: all but what is known of the files."""
        return self._changed(_files=[], _wanted=self._wanted_columns())

    def _for_units(self, units: Sequence[packing.Unit]) -> FileBasedDatasource:
        """What goes with the task that has these units, of what `_travelling` gives."""
        return self

    def _wanted_columns(self) -> list[str] | None:
        """Of the columns of a file itself, those that are given on or decide which rows are. None for all."""
        if self._columns is None:
            return None
        needed = dict.fromkeys(self._columns)
        if self._filter is not None:
            whole = self._whole_schema()
            if whole is None:
                return None
            needed.update(dict.fromkeys(predicates.columns_of(self._filter, whole)))
        return [name for name in needed if name not in self._path_schema.names]

    def _changed(self, **fields: Any) -> FileBasedDatasource:
        """Another source that shares what is known of the files."""
        changed = copy.copy(self)
        changed.__dict__.update(fields)
        return changed

    def _with_arrow_filter(self, expression: Any) -> FileBasedDatasource:
        return self._changed(_filter=expression if self._filter is None else self._filter & expression)

    def _whole_schema(self) -> pa.Schema | None:
        """What `_Read` makes before columns are dropped."""
        own = self._given_schema if self._given_schema is not None else self._file_schema()
        if own is None:
            return None
        return pa.schema([*(field for field in own if field.name not in self._path_schema.names), *self._path_schema])

    def _path_fields(self) -> pa.Schema:
        """What the paths say; of a file whose path does not say it, it is null."""
        names: dict[str, None] = {}
        fields = []
        if self._parser is not None and self._partitioning is not None:
            for file in self._files:
                names.update(dict.fromkeys(self._parser(file.path)))
            fields = [pa.field(name, self._partitioning.arrow_type(name)) for name in names]
        return pa.schema([*fields, pa.field(PATH_COLUMN, pa.string())] if self._include_paths else fields)

    def _path_values(self, path: str) -> dict[str, pa.Scalar]:
        found = {} if self._parser is None else self._parser(path)
        if self._include_paths:
            found[PATH_COLUMN] = path
        return {field.name: pa.scalar(found.get(field.name), field.type) for field in self._path_schema}

    def _unpruned(self) -> list[listing.ListedFile]:
        """The files that a filter does not exclude by their paths."""
        if self._filter is None or not self._path_schema.names:
            return self._files
        known = [predicates.guarantee(self._path_values(file.path)) for file in self._files]
        schema = self._whole_schema() or self._path_schema
        kept = predicates.possible(self._filter, known, schema)
        return [file for file, is_kept in zip(self._files, kept, strict=True) if is_kept]

    def _in_order(self, files: list[listing.ListedFile]) -> list[listing.ListedFile]:
        if self._shuffle is None:
            return files
        order = np.random.default_rng(self._shuffle.get_seed(self._epoch)).permutation(len(files))
        return [files[index] for index in order]

    def _metadata(self, units: Sequence[packing.Unit], limit: int | None) -> block.BlockMetadata:
        counts = [unit.row_count for unit in units if unit.row_count is not None]
        rows = sum(counts) if len(counts) == len(units) and self._filter is None else None
        if rows is not None and limit is not None:
            rows = min(rows, limit)
        whole = sum(max(file.size_bytes, 0) for file in self._files) or 1
        size = (self.estimate_inmemory_data_size() or 0) * sum(unit.size_bytes for unit in units) // whole
        paths = tuple(dict.fromkeys(unit.path for unit in units))
        return block.BlockMetadata(num_rows=rows, size_bytes=size, input_files=paths)


class _Read:
    """Reads the units of one task. Travels: it has the source without its list of files."""

    def __init__(self, source: FileBasedDatasource, units: Sequence[packing.Unit], schema: pa.Schema | None) -> None:
        self._source = source
        self._units = units
        self._schema = schema
        if schema is not None and source._wanted is not None:
            kept = {*source._wanted, *source._path_schema.names}
            self._schema = pa.schema([field for field in schema if field.name in kept])

    def __call__(self) -> Iterator[pa.Table]:
        tables = self._unfiltered()
        if self._source._filter is not None:  # which costs a call the same for many rows as for few
            tables = bounding.blocks(tables, target_bytes=PIECE_BYTES)
        return map(self._selected, tables)

    def _unfiltered(self) -> Iterator[pa.Table]:
        expected: pa.Schema | None = None
        expected_of = ""
        if self._schema is not None:
            yield pa.Table.from_batches([], self._schema)  # what says the types where there are no rows
        for path, table in self._tables() if self._source._VALUE_COLUMN is None else self._rows():
            if self._schema is not None:
                table = self._conformed(table, path)
            elif expected is None:
                expected, expected_of = table.schema, repr(path)
            elif not table.schema.equals(expected):
                expected = schemas.unify([(expected, expected_of), (table.schema, repr(path))])
            yield table

    def _tables(self) -> Iterator[tuple[str, pa.Table]]:
        for unit in self._units:
            with self._reading(unit.path):
                values = self._source._path_values(unit.path)
                for table in self._source._read_unit(unit):
                    yield unit.path, _with_values(table, values, unit.path)

    def _rows(self) -> Iterator[tuple[str, pa.Table]]:
        """Of files that are a row each, as many together as make a table of a fair size."""
        values: list[Any] = []
        paths: list[str] = []
        size_bytes = 0
        for unit in self._units:
            with self._reading(unit.path), self._source._open_input_source(unit.path) as stream:
                value = self._source._value(stream, unit.path)
            values.append(value)
            paths.append(unit.path)
            size_bytes += getattr(value, "nbytes", None) or len(value)
            if size_bytes >= PIECE_BYTES:
                yield paths[0], self._table_of(values, paths)
                values, paths, size_bytes = [], [], 0
        if values:
            yield paths[0], self._table_of(values, paths)

    def _table_of(self, values: Sequence[Any], paths: Sequence[str]) -> pa.Table:
        source = self._source
        columns = {source._VALUE_COLUMN: source._value_array(values, paths)}
        known = [source._path_values(path) for path in paths]
        for field in source._path_schema:
            columns[field.name] = pa.array([one[field.name].as_py() for one in known], field.type)
        return pa.table(columns)

    @contextlib.contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        # The one place through which all goes that a bad file raises: where `on_error` will choose to go on.
        try:
            yield
        except Exception as error:
            raise errors.in_file(error, path, reader=self._source.get_name()) from error

    def _conformed(self, table: pa.Table, path: str) -> pa.Table:
        """To the schema that was given or planned."""
        source, schema = self._source, self._schema
        if schema is None or table.schema.equals(schema, check_metadata=False):
            return table
        if source._given_schema is not None:
            table = table.select([name for name in table.column_names if name in schema.names])
        elif not _same(schemas.unify([(schema, _LOOKED_AT), (table.schema, repr(path))]), schema):
            raise ValueError(
                f"{path!r} has columns or types that {_LOOKED_AT} have not: {errors.shown(table.schema)}, where they have "
                f"{errors.shown(schema)}; pass schema= with what all of them are to be read as"
            )
        try:
            return schemas.conform(table, schema, origin=repr(path))
        except Exception as error:
            raise errors.in_file(error, path, reader=source.get_name()) from error

    def _selected(self, table: pa.Table) -> pa.Table:
        if self._source._filter is not None:
            table = table.filter(self._source._filter)
        return table if self._source._columns is None else table.select(list(self._source._columns))


def _same(first: pa.Schema, second: pa.Schema) -> bool:
    """But for whether columns may be null: a file with fewer of them is no reason to refuse it."""
    return bool(first.names == second.names and first.types == second.types)


def _with_values(table: pa.Table, values: Mapping[str, pa.Scalar], path: str) -> pa.Table:
    for name, value in values.items():
        column = pa.repeat(value, table.num_rows)
        index = table.schema.get_field_index(name)
        if index >= 0:
            if not table.column(index).cast(value.type).equals(pa.chunked_array([column])):
                raise ValueError(
                    f"column {name!r} has other values than the path says: {value.as_py()!r}; rename or drop one"
                )
            table = table.remove_column(index)
        table = table.append_column(name, column)
    return table


def _located(scheme: partitioning.Partitioning | None, filesystem: Any) -> partitioning.Partitioning | None:
    """Its base_dir is on the file system of the paths, unless it has one of its own."""
    if scheme is None or filesystem is None or scheme.filesystem is not None:
        return scheme
    return dataclasses.replace(scheme, filesystem=filesystem)


def _parser(scheme: partitioning.Partitioning | None) -> partitioning.PathPartitionParser | None:
    return None if scheme is None else partitioning.PathPartitionParser(scheme)


def _shuffle_config(shuffle: Literal["files"] | FileShuffleConfig | None) -> FileShuffleConfig | None:
    if shuffle is None or isinstance(shuffle, FileShuffleConfig):
        return shuffle
    if shuffle == "files":
        return FileShuffleConfig()
    raise exceptions.InvalidOption(
        f"shuffle must be 'files', a FileShuffleConfig or None, got {shuffle!r}", option="shuffle"
    )


def _kept(files: list[listing.ListedFile], chosen: partitioning.PathPartitionFilter) -> list[listing.ListedFile]:
    names = set(chosen([file.path for file in files]))
    kept = [file for file in files if file.path in names]
    if not kept:
        raise exceptions.InvalidOption(
            f"partition_filter chose none of {len(files)} files, of which the first is {files[0].path!r}",
            option="partition_filter",
        )
    return kept
