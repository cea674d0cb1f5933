"""Methods of a dataset that write its rows. They run the plan; files appear whole, and together, or not at all."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from umbel.data import checkpoint as checkpoints
from umbel.data._api import format_options, plugins
from umbel.data._api import options as task_options
from umbel.data._plan import logical
from umbel.data._sinks import base as sinks

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Unpack

    from umbel.data._plan import running
    from umbel.data._sinks import filenames


class FileWriteOptions(TypedDict, total=False):
    """What all writers of files take. All may be left out.

    filesystem: of pyarrow or fsspec; by the URI if it is None. try_create_dir (True): the folder is made. mode (APPEND): what
    becomes of files that are there; see SaveMode. min_rows_per_file, min_bytes_per_file (in memory): a task gets so much at
    least, where there is as much. num_rows_per_file: the old name of min_rows_per_file. max_rows_per_file: a task makes several
    files rather than one with more. filename_provider: what files are called. arrow_open_stream_args: for
    `pyarrow.fs.FileSystem.open_output_stream`; compression is told by the file's ending otherwise. concurrency: how many tasks
    run at once at most. ray_remote_args: other options of the tasks, such as `num_cpus` and `memory`. checkpoint: a directory in
    which is noted what is done, or a `umbel.data.checkpoint.CheckpointConfig`: run again after its driver was killed, the write
    goes on there.
    """

    filesystem: Any
    try_create_dir: bool
    arrow_open_stream_args: Mapping[str, Any] | None
    filename_provider: filenames.FilenameProvider | None
    mode: sinks.SaveMode | str
    min_rows_per_file: int | None
    max_rows_per_file: int | None
    min_bytes_per_file: int | None
    num_rows_per_file: int | None
    concurrency: int | None
    ray_remote_args: Mapping[str, Any] | None
    checkpoint: checkpoints.CheckpointConfig | str | None


class ParquetWriteOptions(FileWriteOptions, total=False):
    """Those of pyarrow's ParquetWriter that are used most; it takes all."""

    compression: str | Mapping[str, str] | None
    compression_level: int | Mapping[str, int] | None
    row_group_size: int | None
    use_dictionary: bool | Sequence[str]
    write_statistics: bool | Sequence[str]


class CsvWriteOptions(FileWriteOptions, total=False):
    """write_options: of pyarrow.csv."""

    write_options: Any


class JsonWriteOptions(FileWriteOptions, total=False):
    """lines: an object on each line; otherwise all in an array."""

    lines: bool
    orient: str
    ensure_ascii: bool
    indent: int | None


class Writing:
    """See the module."""

    _node: logical.Node

    def _run_node(self, node: logical.Node) -> running.Run:
        raise NotImplementedError

    def write_parquet(
        self,
        path: str,
        *,
        partition_cols: Sequence[str] | None = None,
        arrow_parquet_args: Mapping[str, Any] | None = None,
        arrow_parquet_args_fn: Callable[[], Mapping[str, Any]] | None = None,
        **options: Unpack[ParquetWriteOptions],
    ) -> None:
        """Parquet files in a folder. partition_cols: a subfolder `name=value` for each of their values; files leave them out.
        Other options, or arrow_parquet_args, go to pyarrow's ParquetWriter; arrow_parquet_args_fn makes them in each task."""
        own = {
            "partition_cols": partition_cols,
            "arrow_parquet_args": arrow_parquet_args,
            "arrow_parquet_args_fn": arrow_parquet_args_fn,
        }
        import pyarrow.parquet as pq

        known = {*inspect.signature(pq.ParquetWriter.__init__).parameters, "row_group_size"}
        of_format = format_options.OfFormat("arrow_parquet_args", frozenset(known - _OF_WRITERS))
        self._write_files("tables", "ParquetDatasink", path, options, own, of_format)

    def write_csv(
        self,
        path: str,
        *,
        arrow_csv_args: Mapping[str, Any] | None = None,
        arrow_csv_args_fn: Callable[[], Mapping[str, Any]] | None = None,
        **options: Unpack[CsvWriteOptions],
    ) -> None:
        """CSV files in a folder, each with a line of names. write_options: of pyarrow.csv; also in arrow_csv_args, or made in
        each task by arrow_csv_args_fn."""
        own = {"arrow_csv_args": arrow_csv_args, "arrow_csv_args_fn": arrow_csv_args_fn}
        self._write_files("tables", "CSVDatasink", path, options, own, format_options.CSV_WRITE)

    def write_json(
        self,
        path: str,
        *,
        pandas_json_args: Mapping[str, Any] | None = None,
        pandas_json_args_fn: Callable[[], Mapping[str, Any]] | None = None,
        **options: Unpack[JsonWriteOptions],
    ) -> None:
        """JSON files in a folder, a row on each line."""
        own = {"pandas_json_args": pandas_json_args, "pandas_json_args_fn": pandas_json_args_fn}
        self._write_files("json", "JSONDatasink", path, options, own, format_options.JSON_WRITE)

    def write_numpy(
        self, path: str, *, column: str | Sequence[str] = "data", **options: Unpack[FileWriteOptions]
    ) -> None:
        """Of a column, .npy files in a folder."""
        self._write_files("arrays", "NumpyDatasink", path, options, {"column": column})

    def write_arrow(
        self, path: str, *, arrow_ipc_args: Mapping[str, Any] | None = None, **options: Unpack[FileWriteOptions]
    ) -> None:
        """Files in Arrow's IPC format, which is Feather's too. arrow_ipc_args: of `pyarrow.ipc.IpcWriteOptions`."""
        self._write_files("tables", "ArrowDatasink", path, options, {"arrow_ipc_args": arrow_ipc_args})

    def write_orc(
        self,
        path: str,
        *,
        arrow_orc_args: Mapping[str, Any] | None = None,
        arrow_orc_args_fn: Callable[[], Mapping[str, Any]] | None = None,
        **options: Unpack[FileWriteOptions],
    ) -> None:
        """ORC files in a folder. Other options, or arrow_orc_args, go to pyarrow's ORCWriter."""
        from pyarrow import orc

        own = {"arrow_orc_args": arrow_orc_args, "arrow_orc_args_fn": arrow_orc_args_fn}
        known = frozenset(inspect.signature(orc.ORCWriter.__init__).parameters) - _OF_WRITERS
        self._write_files(
            "tables", "ORCDatasink", path, options, own, format_options.OfFormat("arrow_orc_args", frozenset(known))
        )

    def write_images(
        self, path: str, column: str, file_format: str = "png", **options: Unpack[FileWriteOptions]
    ) -> None:
        """A file for each row, of a column of pixels: uint8, [height, width] or [height, width, channel]. Needs Pillow."""
        self._write_files("arrays", "ImageDatasink", path, options, {"column": column, "file_format": file_format})

    def write_tfrecords(self, path: str, **options: Unpack[FileWriteOptions]) -> None:
        """TFRecord files of tf.train.Example, a feature for each column. No TensorFlow is needed."""
        given = format_options.without(
            options, "write_tfrecords", "tf_schema", "cast the columns before, with_column(...cast())"
        )
        self._write_files("tfrecords", "TFRecordDatasink", path, given, {})

    def write_webdataset(self, path: str, *, encoder: Any = True, **options: Unpack[FileWriteOptions]) -> None:
        """Tar files: for each row a file of each column, `key.column`, with the key of column `__key__`. encoder: True for the
        usual one by ending, False or None for columns that are bytes or text already, or a function of the row."""
        self._write_files("webdataset", "WebDatasetDatasink", path, options, {}, encoder=encoder)

    def write_sql(
        self,
        sql: str,
        connection_factory: Callable[[], Any],
        ray_remote_args: Mapping[str, Any] | None = None,
        concurrency: int | None = None,
    ) -> None:
        """By a statement for each row, such as "INSERT INTO t VALUES (?, ?)", by any connection of Python's DB-API. A task's
        rows are one transaction."""
        from umbel.data._sinks import sql as sql_sinks

        sink = sql_sinks.SQLDatasink(sql, connection_factory)
        self.write_datasink(sink, concurrency=concurrency, ray_remote_args=ray_remote_args)

    def write_delta(
        self,
        path: str,
        *,
        mode: sinks.SaveMode | str = sinks.SaveMode.APPEND,
        partition_by: Sequence[str] | None = None,
        schema_mode: Literal["merge", "error"] = "merge",
        storage_options: Mapping[str, str] | None = None,
        filesystem: Any = None,
        name: str | None = None,
        description: str | None = None,
        concurrency: int | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        """As one version of a Delta table, which is made if it is not there. Needs deltalake.

        partition_by, name, description: of a table that is made. schema_mode: "merge" adds the columns that the table lacks, as
        a version of their own before that with the rows, "error" refuses them. storage_options: for deltalake, which
        writes the log; filesystem: for the files, by the URI otherwise.
        """
        from umbel.data._sinks import delta

        sink = delta.DeltaDatasink(
            path,
            mode=mode,
            partition_by=partition_by,
            schema_mode=schema_mode,
            storage_options=storage_options,
            filesystem=filesystem,
            name=name,
            description=description,
        )
        self.write_datasink(sink, concurrency=concurrency, ray_remote_args=ray_remote_args)

    def write_iceberg(
        self,
        table_identifier: str,
        *,
        catalog_kwargs: Mapping[str, Any] | None = None,
        snapshot_properties: Mapping[str, str] | None = None,
        mode: sinks.SaveMode | str = sinks.SaveMode.APPEND,
        overwrite_filter: Any = None,
        upsert_kwargs: Mapping[str, Any] | None = None,
        overwrite_kwargs: Mapping[str, Any] | None = None,
        concurrency: int | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        """As one change of an Iceberg table that is there, to which columns that it lacks are added. Needs pyiceberg.

        mode: append, overwrite or upsert. overwrite_filter: which rows of the table are replaced, an expression or text of
        pyiceberg; all if None. upsert_kwargs: `join_cols`, the columns by which rows are the same; those that the table says if
        not given. overwrite_kwargs: `branch` of the table that is overwritten, and `case_sensitive` for the filter's names.
        """
        from umbel.data._sinks import iceberg

        sink = iceberg.IcebergDatasink(
            table_identifier,
            catalog_kwargs=catalog_kwargs,
            snapshot_properties=snapshot_properties,
            mode=mode,
            overwrite_filter=overwrite_filter,
            upsert_kwargs=upsert_kwargs,
            overwrite_kwargs=overwrite_kwargs,
        )
        self.write_datasink(sink, concurrency=concurrency, ray_remote_args=ray_remote_args)

    def write_lance(
        self,
        path: str,
        *,
        schema: pa.Schema | None = None,
        mode: sinks.SaveMode | str = sinks.SaveMode.CREATE,
        min_rows_per_file: int | None = 1024 * 1024,
        max_rows_per_file: int = 64 * 1024 * 1024,
        data_storage_version: str | None = None,
        storage_options: Mapping[str, str] | None = None,
        concurrency: int | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        """As one version of a Lance dataset. schema: what the rows are brought to; what is known of them if None. Needs
        pylance."""
        from umbel.data._sinks import lance

        sink = lance.LanceDatasink(
            path,
            schema=schema,
            mode=mode,
            min_rows_per_file=min_rows_per_file,
            max_rows_per_file=max_rows_per_file,
            data_storage_version=data_storage_version,
            storage_options=storage_options,
        )
        self.write_datasink(sink, concurrency=concurrency, ray_remote_args=ray_remote_args)

    def write_datasink(
        self,
        datasink: sinks.Datasink[Any] | str,
        *,
        ray_remote_args: Mapping[str, Any] | None = None,
        concurrency: int | None = None,
        checkpoint: checkpoints.CheckpointConfig | str | None = None,
        **options: Any,
    ) -> None:
        """To a sink: one of `umbel.data.datasink`, or your own; or by the name that an installed distribution gives it, which
        then takes the options. checkpoint: as for files, if the sink `supports_checkpoints`."""
        if isinstance(datasink, str):
            datasink, options = plugins.sink(datasink, options), {}
        if not isinstance(datasink, sinks.Datasink) or options:
            raise TypeError(f"a Datasink is needed, or the name of one and its options, got {datasink!r}, {options}")
        means = task_options.plain_means({"ray_remote_args": ray_remote_args, "concurrency": concurrency})
        noted = checkpoints.config_of(checkpoint)
        self._run_node(logical.Write(input=self._node, sink=datasink, means=means, checkpoint=noted)).write()

    def _write_files(
        self,
        module: str,
        name: str,
        path: str,
        options: Mapping[str, Any],
        own: Mapping[str, Any],
        of_format: format_options.OfFormat | None = None,
        **always: Any,
    ) -> None:
        """own: options of the format, of which None is left out; always: those of which it is not. of_format: those that go on to
        pyarrow."""
        rest = {**options}
        given = {one: value for one, value in own.items() if value is not None}
        if of_format is not None:
            given |= of_format.taken(rest, given)
        unknown = [one for one in rest if one not in FileWriteOptions.__annotations__]
        if unknown:
            known = {*FileWriteOptions.__annotations__, *own, *(() if of_format is None else of_format.known)}
            raise TypeError(format_options.unknown(_CALLED[name], unknown[0], known))
        given |= {one: value for one, value in rest.items() if value is not None}
        of_tasks = {
            "concurrency": given.pop("concurrency", None),
            "ray_remote_args": given.pop("ray_remote_args", None),
            "checkpoint": given.pop("checkpoint", None),
        }
        if "num_rows_per_file" in given:
            warnings.warn("num_rows_per_file is deprecated; use min_rows_per_file", DeprecationWarning, 3)
            given.setdefault("min_rows_per_file", given.pop("num_rows_per_file"))
        if "arrow_open_stream_args" in given:
            given["open_stream_args"] = given.pop("arrow_open_stream_args")
        kind = getattr(importlib.import_module(f"umbel.data._sinks.{module}"), name)
        self.write_datasink(kind(path, **always, **given), **of_tasks)


_OF_WRITERS: Final = {"self", "where", "schema", "filesystem", "options"}  # parameters of pyarrow's that are given here
_CALLED: Final = {
    "ParquetDatasink": "write_parquet",
    "CSVDatasink": "write_csv",
    "JSONDatasink": "write_json",
    "NumpyDatasink": "write_numpy",
    "ArrowDatasink": "write_arrow",
    "ORCDatasink": "write_orc",
    "ImageDatasink": "write_images",
    "TFRecordDatasink": "write_tfrecords",
    "WebDatasetDatasink": "write_webdataset",
}
