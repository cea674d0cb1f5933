"""Delta Lake: the log says which Parquet files a table has, what their partitions are and how many rows; the rest is Parquet.

deltalake reads the log. Tables with features that change what files mean (deletion vectors, column mapping) are refused.
"""

from __future__ import annotations

import posixpath
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from umbel import exceptions
from umbel.data._sources import errors, files, filesystems, listing, packing, parquet, predicates

_OLDEST: Final = (1, 6)  # 1.4 adds where it is to overwrite, and says nothing
_FEATURES_KNOWN: Final = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})


class DeltaDatasource(parquet.ParquetDatasource):
    """version: of the table; the latest if None. storage_options: for deltalake, to read the log of an object store; filesystem
    is for the files."""

    def __init__(
        self,
        path: str,
        *,
        version: int | None = None,
        storage_options: Mapping[str, str] | None = None,
        filesystem: Any = None,
        columns: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        table = library().DeltaTable(path, version=version, storage_options=dict(storage_options or {}) or None)
        _refuse_unknown_features(table, path)
        _, (root,) = filesystems.resolve(path, filesystem)
        actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        listed = [listing.ListedFile(_located(root, action["path"]), action["size_bytes"]) for action in actions]
        paths = [file.path for file in listed]
        schema = pa.schema(table.schema().to_arrow())
        self._partition_fields = [schema.field(name) for name in table.metadata().partition_columns]
        self._values = {
            path: {field.name: action[f"partition.{field.name}"] for field in self._partition_fields}
            for path, action in zip(paths, actions, strict=True)
        }
        self._record_counts: dict[str, int | None] = {
            path: action.get("num_records") for path, action in zip(paths, actions, strict=True)
        }
        super().__init__(path, filesystem=filesystem, partitioning=None, schema=schema, listed=listed, **options)
        names = [*schema.names, *([files.PATH_COLUMN] if self._include_paths else ())]
        predicates.check_columns(columns if columns is not None else names, names)
        self._columns = tuple(columns if columns is not None else names)

    def get_name(self) -> str:
        return "Delta"

    def row_count(self) -> int | None:
        if self._filter is not None:
            return None
        counts = [self._record_counts[file.path] for file in self._files]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return super().row_count()
        return sum(known) if self._limit is None else min(sum(known), self._limit)

    def _units(self, files: Sequence[listing.ListedFile]) -> list[packing.Unit]:
        return [
            unit
            if unit.part is not None
            else packing.Unit(unit.path, unit.size_bytes, None, self._record_counts[unit.path])
            for unit in super()._units(files)
        ]

    def _path_fields(self) -> pa.Schema:
        fields = list(self._partition_fields)
        return pa.schema([*fields, pa.field(files.PATH_COLUMN, pa.string())] if self._include_paths else fields)

    def _path_values(self, path: str) -> dict[str, pa.Scalar]:
        values = {field.name: pa.scalar(self._values[path][field.name], field.type) for field in self._partition_fields}
        return {**values, files.PATH_COLUMN: pa.scalar(path)} if self._include_paths else values

    def _for_units(self, units: Sequence[packing.Unit]) -> files.FileBasedDatasource:
        return self._changed(_values={unit.path: self._values[unit.path] for unit in units}, _record_counts={})


def library() -> Any:
    try:
        import deltalake
    except ImportError as error:
        raise errors.missing_library("deltalake", what="a Delta table", extra="umbel-data[delta]") from error
    version = tuple(int(part) for part in deltalake.__version__.split(".")[:2])
    if version < _OLDEST:
        raise ImportError(
            f"a Delta table needs deltalake {'.'.join(map(str, _OLDEST))} or later, got {deltalake.__version__}; "
            "pip install -U 'umbel-data[delta]'",
            name="deltalake",
        )
    return deltalake


def _located(root: str, path: str) -> str:
    """A path of the log is a URI relative to the table, or an absolute one."""
    if "://" in path:
        return filesystems.resolve(path)[1][0]
    return posixpath.join(root, urllib.parse.unquote(path))


def _refuse_unknown_features(table: Any, path: str) -> None:
    features = set(table.protocol().reader_features or ())
    unknown = sorted(features - _FEATURES_KNOWN)
    if unknown:
        raise exceptions.UnsupportedFeature(
            f"the Delta table {path!r} needs readers that know {', '.join(unknown)}; read it by deltalake, or write it without"
        )
