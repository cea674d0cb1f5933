"""Iceberg: tasks write data files that no reader of the table sees until the driver commits them, as one change of the table.

Of an upsert the tasks also return the keys of their rows; the commit removes the table's rows with these keys first.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from umbel import exceptions
from umbel.data._blocks import grouping, schemas
from umbel.data._sinks import base
from umbel.data._sources import bounding, errors, iceberg, iceberg_filters

_MODES: Final = (base.SaveMode.APPEND, base.SaveMode.OVERWRITE, base.SaveMode.UPSERT)
# Of rows in memory that become a file; pyiceberg cuts it where the table wants smaller ones.
_FILE_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class WrittenFiles:
    """files: pyiceberg's. keys: of the rows, for an upsert."""

    files: list[Any]
    keys: pa.Table | None


class IcebergDatasink(base.Datasink[WrittenFiles]):
    """Into a table that is there. Columns go by name; those that the rows lack are null, and those that the table lacks are added
    to it.

    mode: append; overwrite: what `overwrite_filter` (an expression, or text of pyiceberg; all if None) takes is replaced; upsert:
    rows with the keys of the new ones are. upsert_kwargs: `join_cols`, which columns are the key; those that the table says if
    not given. overwrite_kwargs: `branch` of the table, and `case_sensitive` for the filter's names.
    """

    def __init__(
        self,
        table_identifier: str,
        *,
        catalog_kwargs: Mapping[str, Any] | None = None,
        mode: base.SaveMode | str = base.SaveMode.APPEND,
        overwrite_filter: Any = None,
        upsert_kwargs: Mapping[str, Any] | None = None,
        overwrite_kwargs: Mapping[str, Any] | None = None,
        snapshot_properties: Mapping[str, str] | None = None,
    ) -> None:
        self.mode = base.SaveMode(mode)
        if self.mode not in _MODES:
            raise exceptions.UnsupportedFeature(
                f"an Iceberg table is written by append, overwrite or upsert, got {self.mode.value!r}"
            )
        for option, value, only in (
            ("overwrite_filter", overwrite_filter, base.SaveMode.OVERWRITE),
            ("upsert_kwargs", upsert_kwargs, base.SaveMode.UPSERT),
            ("overwrite_kwargs", overwrite_kwargs, base.SaveMode.OVERWRITE),
        ):
            if value is not None and self.mode is not only:
                raise exceptions.InvalidOption(
                    f"{option} goes with mode={only.value!r} only, got {self.mode.value!r}", option=option
                )
        for option, value, known in (
            ("upsert_kwargs", upsert_kwargs, ("join_cols",)),
            ("overwrite_kwargs", overwrite_kwargs, ("branch", "case_sensitive")),
        ):
            unknown = sorted(set(value or ()) - set(known))
            if unknown:
                raise exceptions.InvalidOption(
                    f"{option} takes {' and '.join(known)}, got {unknown[0]!r}", option=option
                )
        self._overwrite_kwargs = dict(overwrite_kwargs or {})
        self._identifier, self._catalog_kwargs = table_identifier, dict(catalog_kwargs or {})
        self._overwrite_filter = overwrite_filter
        self._keys = list((upsert_kwargs or {}).get("join_cols") or ())
        self._properties = dict(snapshot_properties or {})
        self._new_columns = pa.schema([])
        self._metadata: Any = None
        self._io: Any = None

    def get_name(self) -> str:
        return "Iceberg"

    # -----------------------------------------------------------------------------------------------------------------
    # On the driver.

    def on_write_start(self, schema: pa.Schema | None = None) -> None:
        table = iceberg.load_table(self._identifier, self._catalog_kwargs)
        own = iceberg.arrow_schema(table.schema())
        self._overwrite_filter = iceberg_filters.of(self._overwrite_filter, own, option="overwrite_filter")
        self._new_columns = pa.schema([field for field in schema or () if field.name not in own.names])
        if self.mode is base.SaveMode.UPSERT:
            self._keys = self._keys or [
                table.schema().find_column_name(one) for one in table.schema().identifier_field_ids
            ]
            self._check_keys(own)
        self._metadata, self._io = self._begun(table).table_metadata, table.io

    def on_write_complete(self, write_result: base.WriteResult[WrittenFiles]) -> None:
        from pyiceberg.exceptions import CommitFailedException

        files = [file for written in write_result.write_returns for file in written.files]
        table = iceberg.load_table(self._identifier, self._catalog_kwargs)
        try:
            transaction = self._begun(table)
            if self._new_columns.names and transaction.table_metadata.schema() != self._metadata.schema():
                raise ValueError(
                    f"columns of the table {self._identifier!r} were changed while rows were written; write again"
                )
            self._delete(transaction, [written.keys for written in write_result.write_returns])
            on_branch = {name: value for name, value in self._overwrite_kwargs.items() if name == "branch"}
            update = transaction.update_snapshot(snapshot_properties=self._properties, **on_branch)
            with update.fast_append() as snapshot:
                for file in files:
                    snapshot.append_data_file(file)
        except BaseException:
            _discard(files, self._io)
            raise
        try:
            transaction.commit_transaction()
        except CommitFailedException:  # after any other error the table may have the files
            _discard(files, self._io)
            raise

    def _begun(self, table: Any) -> Any:
        """A transaction in which the table has the columns that it lacks."""
        transaction = table.transaction()
        if self._new_columns.names:
            with transaction.update_schema() as update:
                update.union_by_name(self._new_columns)
        return transaction

    def _delete(self, transaction: Any, keys: Sequence[pa.Table | None]) -> None:
        if self.mode is base.SaveMode.APPEND:
            return
        from pyiceberg.expressions import AlwaysTrue

        taken = AlwaysTrue() if self._overwrite_filter is None else self._overwrite_filter
        if self.mode is base.SaveMode.UPSERT:
            known = [table for table in keys if table is not None]
            if not known:
                return
            taken = _rows_with(self._distinct(pa.concat_tables(known)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Delete operation did not match any records")
            transaction.delete(taken, snapshot_properties=self._properties, **self._overwrite_kwargs)

    def _check_keys(self, schema: pa.Schema) -> None:
        if not self._keys:
            raise exceptions.InvalidOption(
                f"the table {self._identifier!r} does not say which columns are its key; say it by "
                "upsert_kwargs={'join_cols': [...]}",
                option="upsert_kwargs",
            )
        for name in self._keys:
            if name not in schema.names:
                raise KeyError(errors.no_column(name, schema.names, purpose="tell rows apart by"))

    def _distinct(self, keys: pa.Table) -> pa.Table:
        """Raises ValueError where a key is there twice, so that which row is meant is not known."""
        distinct = grouping.distinct(keys)
        if distinct.num_rows < keys.num_rows:
            raise ValueError(
                f"{keys.num_rows - distinct.num_rows} rows have the same {', '.join(self._keys)} as others of the dataset; an "
                "upsert needs one row for each key: drop the others"
            )
        return distinct

    # -----------------------------------------------------------------------------------------------------------------
    # In a task.

    def write(self, blocks: Iterable[pa.Table], ctx: base.WriteContext) -> WrittenFiles:
        from pyiceberg.io.pyarrow import _dataframe_to_data_files

        schema = iceberg.arrow_schema(self._metadata.schema())
        files: list[Any] = []
        keys: list[pa.Table] = []
        try:
            for table in bounding.blocks(blocks, target_bytes=_FILE_BYTES):
                if table.num_rows:
                    rows = schemas.conform(table, schema, origin="the dataset")
                    keys += [self._keys_of(rows)] if self.mode is base.SaveMode.UPSERT else []
                    files += _dataframe_to_data_files(self._metadata, rows, self._io, write_uuid=uuid.uuid4())
        except BaseException:
            _discard(files, self._io)
            raise
        return WrittenFiles(files, pa.concat_tables(keys) if keys else None)

    def _keys_of(self, rows: pa.Table) -> pa.Table:
        keys = rows.select(self._keys)
        for name in self._keys:
            if keys.column(name).null_count:
                raise ValueError(f"column {name!r} has nulls; each row that is upserted needs a key")
        return keys


def _rows_with(keys: pa.Table) -> Any:
    """The rows that have one of these keys: by all but the last column of a key, those of which the last is one of several."""
    from pyiceberg.expressions import And, EqualTo, In, Or

    *first, last = keys.column_names
    values: dict[tuple[Any, ...], list[Any]] = {}
    for *key, value in zip(*(column.to_pylist() for column in keys.columns), strict=True):
        values.setdefault(tuple(key), []).append(value)
    filters = [
        functools.reduce(And, [EqualTo(name, value) for name, value in zip(first, key, strict=True)], In(last, among))
        for key, among in values.items()
    ]
    return filters[0] if len(filters) == 1 else Or(*filters)


def _discard(files: Iterable[Any], io: Any) -> None:
    for file in files:
        with contextlib.suppress(
            Exception
        ):  # the first error is the one that says what happened; no reader sees the file
            io.delete(file.file_path)
