"""Methods of a dataset that write its rows. They run the plan; files appear whole, and together, or not at all."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from umbel.data import checkpoint as checkpoints
from umbel.data import datasink as sinks
from umbel.data._engine import stages
from umbel.data._plan import logical

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from umbel.data._plan import running


class FileOptions(TypedDict, total=False):
    """What all writers of files take.

    filesystem: of pyarrow or fsspec; by the URI otherwise. try_create_dir: makes the folder. arrow_open_stream_args: for
    opening a file. filename_provider: what files are called. mode: what becomes of those that are there. min_rows_per_file,
    max_rows_per_file. concurrency: how many tasks at once at most. ray_remote_args: other options of the tasks. checkpoint:
    a directory in which is noted what is done, or a `umbel.data.checkpoint.CheckpointConfig`: run again after its driver was
    killed, the write goes on there.
    """

    filesystem: Any
    try_create_dir: bool
    arrow_open_stream_args: Mapping[str, Any] | None
    filename_provider: sinks.FilenameProvider | None
    mode: sinks.SaveMode | str
    min_rows_per_file: int | None
    max_rows_per_file: int | None
    concurrency: int | None
    ray_remote_args: Mapping[str, Any] | None
    checkpoint: checkpoints.CheckpointConfig | str | None


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
        **options: Unpack[FileOptions],
    ) -> None:
        """Parquet files in a folder. partition_cols: a subfolder `name=value` for each of their values; files leave them out."""
        own = {
            "partition_cols": partition_cols,
            "arrow_parquet_args": arrow_parquet_args,
            "arrow_parquet_args_fn": arrow_parquet_args_fn,
        }
        self._write_files("tables", "ParquetDatasink", path, options, own)

    def write_csv(
        self,
        path: str,
        *,
        arrow_csv_args: Mapping[str, Any] | None = None,
        arrow_csv_args_fn: Callable[[], Mapping[str, Any]] | None = None,
        **options: Unpack[FileOptions],
    ) -> None:
        """CSV files in a folder, each with a line of names."""
        own = {"arrow_csv_args": arrow_csv_args, "arrow_csv_args_fn": arrow_csv_args_fn}
        self._write_files("tables", "CSVDatasink", path, options, own)

    def write_json(
        self, path: str, *, pandas_json_args: Mapping[str, Any] | None = None, **options: Unpack[FileOptions]
    ) -> None:
        """JSON files in a folder, a row on each line."""
        self._write_files("json", "JSONDatasink", path, options, {"pandas_json_args": pandas_json_args})

    def write_numpy(self, path: str, *, column: str | Sequence[str] = "data", **options: Unpack[FileOptions]) -> None:
        """Of a column, .npy files in a folder."""
        self._write_files("arrays", "NumpyDatasink", path, options, {"column": column})

    def write_arrow(
        self, path: str, *, arrow_ipc_args: Mapping[str, Any] | None = None, **options: Unpack[FileOptions]
    ) -> None:
        """Files in Arrow's IPC format, which is Feather's too. arrow_ipc_args: of `pyarrow.ipc.IpcWriteOptions`."""
        self._write_files("tables", "ArrowDatasink", path, options, {"arrow_ipc_args": arrow_ipc_args})

    def write_orc(
        self,
        path: str,
        *,
        arrow_orc_args: Mapping[str, Any] | None = None,
        arrow_orc_args_fn: Callable[[], Mapping[str, Any]] | None = None,
        **options: Unpack[FileOptions],
    ) -> None:
        """ORC files in a folder."""
        own = {"arrow_orc_args": arrow_orc_args, "arrow_orc_args_fn": arrow_orc_args_fn}
        self._write_files("tables", "ORCDatasink", path, options, own)

    def write_images(self, path: str, column: str, *, file_format: str = "png", **options: Unpack[FileOptions]) -> None:
        """A file for each row, of a column of pixels: uint8, [height, width] or [height, width, channel]. Needs Pillow."""
        self._write_files("arrays", "ImageDatasink", path, options, {"column": column, "file_format": file_format})

    def write_tfrecords(self, path: str, **options: Unpack[FileOptions]) -> None:
        """TFRecord files of tf.train.Example, a feature for each column. No TensorFlow is needed."""
        self._write_files("tfrecords", "TFRecordDatasink", path, options, {})

    def write_webdataset(self, path: str, *, encoder: Any = True, **options: Unpack[FileOptions]) -> None:
        """Tar files: for each row a file of each column, `key.column`, with the key of column `__key__`. encoder: True for the
        usual one by ending, False or None for columns that are bytes or text already, or a function of the row."""
        self._write_files("webdataset", "WebDatasetDatasink", path, options, {}, encoder=encoder)

    def write_sql(
        self,
        sql: str,
        connection_factory: Callable[[], Any],
        *,
        concurrency: int | None = None,
        ray_remote_args: Mapping[str, Any] | None = None,
    ) -> None:
        """By a statement for each row, such as "INSERT INTO t VALUES (?, ?)", by any connection of Python's DB-API. A task's
        rows are one transaction."""
        from umbel.data._sinks import sql as sql_sinks

        sink = sql_sinks.SQLDatasink(sql, connection_factory)
        self.write_datasink(sink, concurrency=concurrency, ray_remote_args=ray_remote_args)

    def write_datasink(
        self,
        datasink: sinks.Datasink[Any],
        *,
        ray_remote_args: Mapping[str, Any] | None = None,
        concurrency: int | None = None,
        checkpoint: checkpoints.CheckpointConfig | str | None = None,
    ) -> None:
        """To a sink: one of `umbel.data.datasink`, or your own. checkpoint: as for files, if the sink `supports_checkpoints`."""
        given = dict(ray_remote_args or {})
        cpus, gpus, memory = given.pop("num_cpus", 1.0), given.pop("num_gpus", 0.0), given.pop("memory", 0)
        means = logical.Means(
            stages.TaskPool(concurrency) if concurrency is not None else None,
            stages.Resources(cpus, gpus, int(memory), given),
        )
        noted = checkpoints.config_of(checkpoint)
        self._run_node(logical.Write(input=self._node, sink=datasink, means=means, checkpoint=noted)).write()

    def _write_files(
        self, module: str, name: str, path: str, options: Mapping[str, Any], own: Mapping[str, Any], **always: Any
    ) -> None:
        """own: options of the format, of which None is left out; always: those of which it is not."""
        unknown = [one for one in options if one not in FileOptions.__annotations__]
        if unknown:
            raise TypeError(
                f"there is no option {unknown[0]!r} here; there are {', '.join(sorted({*FileOptions.__annotations__, *own}))}"
            )
        given = {one: value for one, value in {**own, **options}.items() if value is not None}
        of_tasks = {
            "concurrency": given.pop("concurrency", None),
            "ray_remote_args": given.pop("ray_remote_args", None),
            "checkpoint": given.pop("checkpoint", None),
        }
        if "arrow_open_stream_args" in given:
            given["open_stream_args"] = given.pop("arrow_open_stream_args")
        kind = getattr(importlib.import_module(f"umbel.data._sinks.{module}"), name)
        self.write_datasink(kind(path, **always, **given), **of_tasks)
