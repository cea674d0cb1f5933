"""How datasets begin: out of what is in memory, and out of what is read."""

from __future__ import annotations

import builtins
import importlib
import inspect
import itertools
import logging
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from umbel.data import context as contexts
from umbel.data._api import format_options, plugins, references
from umbel.data._api import options as task_options
from umbel.data._blocks import batches, frames, schemas, sizes
from umbel.data._engine import placing
from umbel.data._plan import kernels, logical
from umbel.data._sources import base as sources
from umbel.data._sources import ranges
from umbel.data.dataset import Dataset, MaterializedDataset

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from typing_extensions import Unpack

    from umbel.data._sources import files, partitioning

logger = logging.getLogger("umbel.data")

Paths = Any  # a path or URI, or a list of them


class TaskOptions(TypedDict, total=False):
    """How the tasks of a read run. All may be left out.

    override_num_blocks: how many tasks; by size if it is None; `parallelism` is its old name. concurrency: how many run at once
    at most, or `compute=TaskPoolStrategy(size)`; None for as many as there is room for. num_cpus (1), num_gpus (0), memory (0
    bytes), resources, accelerator_type, label_selector, fallback_strategy, max_calls, runtime_env: what each takes and where it
    runs. ray_remote_args: other options of its tasks, as `umbel.remote` has them.
    """

    override_num_blocks: int | None
    parallelism: int
    concurrency: int | None
    compute: task_options.TaskPoolStrategy | None
    num_cpus: float | None
    num_gpus: float | None
    memory: float | None
    resources: Mapping[str, float] | None
    accelerator_type: str | None
    label_selector: Mapping[str, str] | None
    fallback_strategy: Sequence[Mapping[str, Any]] | None
    max_calls: int | None
    runtime_env: Mapping[str, Any] | None
    ray_remote_args: Mapping[str, Any] | None


class FileReadOptions(TaskOptions, total=False):
    """What all readers of files take, beside TaskOptions. All may be left out.

    filesystem: of pyarrow or fsspec; by the URI if it is None. arrow_open_stream_args: for opening a file, of which `compression`
    is told by its name otherwise. partitioning: how paths say values of columns; those of Parquet, CSV and JSON are read as
    Hive's `name=value`, others not at all unless it is given. partition_filter: which files, by these values. include_paths: the
    file of each row, as column `path`. ignore_missing_paths: paths that are not there are left out, and no FileNotFoundError.
    skip_paths: files and folders that are left out. shuffle: "files" for files in another order each time, or a
    FileShuffleConfig with a seed. file_extensions: of the files to be read of a directory, None for all; those of the format, if
    it has some, if they are not given. schema: what each file is read as; columns that it lacks are dropped, those that a file
    lacks are null.
    """

    filesystem: Any
    arrow_open_stream_args: Mapping[str, Any] | None
    partition_filter: partitioning.PathPartitionFilter | None
    partitioning: partitioning.Partitioning | None
    include_paths: bool
    ignore_missing_paths: bool
    skip_paths: Paths | None
    shuffle: Literal["files"] | files.FileShuffleConfig | None
    file_extensions: Sequence[str] | None
    schema: pa.Schema | None


class CsvReadOptions(FileReadOptions, total=False):
    """The options of pyarrow.csv."""

    read_options: Any
    parse_options: Any
    convert_options: Any


class JsonReadOptions(FileReadOptions, total=False):
    """The options of pyarrow.json. read_options say how large pieces are, which is decided here."""

    read_options: Any
    parse_options: Any


class ImageReadOptions(FileReadOptions, total=False):
    """arrow_open_file_args: the name that it has for images."""

    arrow_open_file_args: Mapping[str, Any] | None


# ---------------------------------------------------------------------------------------------------------------------
# In memory.


def range(n: int, **options: Unpack[TaskOptions]) -> Dataset:
    """The numbers 0 to n - 1, as column `id`."""
    return read_datasource(ranges.RangeDatasource(n), **options)


def range_tensor(n: int, *, shape: tuple[int, ...] = (1,), **options: Unpack[TaskOptions]) -> Dataset:
    """Tensors of this shape, each filled with its number 0 to n - 1, as column `data`."""
    return read_datasource(ranges.RangeDatasource(n, tensor_shape=shape), **options)


def from_items(
    items: Iterable[Any], *, override_num_blocks: int | None = None, parallelism: int = -1
) -> MaterializedDataset:
    """A row for each item: a mapping is one by its keys; anything else is the column `item`. parallelism: the old name of
    override_num_blocks."""
    _, count = task_options.of_read({"override_num_blocks": override_num_blocks, "parallelism": parallelism})
    if not isinstance(items, Iterable):
        raise TypeError(f"from_items takes a list of rows or values, got {items!r}")
    return _of_table(kernels.of_rows([*items]), "FromItems", count)


def from_arrow(tables: Any, *, override_num_blocks: int | None = None) -> MaterializedDataset:
    """Of a table, or of several one after the other. Also of anything else with `__arrow_c_stream__`: frames of polars,
    results of DuckDB; and of bytes of a stream in Arrow's IPC format."""
    return _of_several([_arrow(one) for one in _several(tables)], "FromArrow", override_num_blocks)


def from_pandas(
    dfs: pd.DataFrame | Sequence[pd.DataFrame], override_num_blocks: int | None = None
) -> MaterializedDataset:
    """Of a frame, or of several one after the other."""
    made = [batches.from_batch(one, operator="from_pandas") for one in _several(dfs)]
    return _of_several(made, "FromPandas", override_num_blocks)


def from_polars(dfs: Any, *, override_num_blocks: int | None = None) -> MaterializedDataset:
    """Of a frame, or of several one after the other; a lazy one is run for it."""
    made = [frames.from_polars(one.collect() if hasattr(one, "collect") else one) for one in _several(dfs)]
    return _of_several(made, "FromPolars", override_num_blocks)


def from_numpy(ndarrays: np.ndarray[Any, Any] | Sequence[np.ndarray[Any, Any]]) -> MaterializedDataset:
    """Of an array, whose first axis counts the rows, or of several one after the other; as column `data`."""
    made = [batches.from_batch({"data": one}, operator="from_numpy") for one in _several(ndarrays)]
    return _of_several(made, "FromNumpy", None)


def from_blocks(blocks: Sequence[pa.Table | pd.DataFrame]) -> MaterializedDataset:
    """Of these tables or frames, each a block."""
    return _of_several(
        [
            _arrow(one) if isinstance(one, pa.Table) else batches.from_batch(one, operator="from_blocks")
            for one in blocks
        ],
        "FromBlocks",
        None,
    )


def from_duckdb(relation: Any, *, override_num_blocks: int | None = None) -> MaterializedDataset:
    """Of a relation of DuckDB, which is run for it, or of a connection's result."""
    if not hasattr(relation, "__arrow_c_stream__"):
        reader = getattr(relation, "to_arrow_reader", None) or getattr(relation, "fetch_record_batch", None)
        relation = relation if reader is None else reader()
    return _of_several([_arrow(relation)], "FromDuckDB", override_num_blocks)


def from_arrow_refs(tables: Any) -> MaterializedDataset:
    """Of references to tables, each a block. They are not fetched to this process."""
    return _of_references(tables, "FromArrowRefs")


def from_pandas_refs(dfs: Any) -> MaterializedDataset:
    """Of references to frames, each a block. They are not fetched to this process."""
    return _of_references(dfs, "FromPandasRefs")


def from_numpy_refs(ndarrays: Any) -> MaterializedDataset:
    """Of references to arrays, each a block, as column `data`. They are not fetched to this process."""
    return _of_references(ndarrays, "FromNumpyRefs", column="data")


def from_torch(dataset: Any, local_read: bool = False, **options: Unpack[TaskOptions]) -> Dataset:
    """Of a torch dataset: a row for each of its items. A mapping is one by its keys, a tuple is the columns `item_0`, `item_1`,
    ..., and anything else the column `item`.

    A map-style dataset is divided among tasks, an iterable one is read by one. local_read: in this process, now.
    """
    source = _kind("torch_datasets", "TorchDatasource")(dataset)
    if not local_read:
        return read_datasource(source, **options)
    (task,) = source.get_read_tasks(1)
    return _of_several([*task()], "FromTorch", options.get("override_num_blocks"))


def from_huggingface(dataset: Any, **options: Unpack[TaskOptions]) -> Dataset:
    """Of a Hugging Face dataset, whose Arrow tables become blocks without a copy; of the options, override_num_blocks is heeded.
    Of an iterable one each shard is read by a task."""
    _, block_count = task_options.of_read(options)
    if isinstance(dataset, dict):
        raise ValueError(
            f"this is a dictionary of datasets, {[*dataset.keys()]}; give one of them, such as ds[{next(iter(dataset), '')!r}]"
        )
    if not hasattr(dataset, "__len__"):
        return read_datasource(_kind("huggingface", "HuggingFaceDatasource")(dataset), **options)
    table = dataset.with_format("arrow")[:]
    return _of_table(_arrow(table).replace_schema_metadata(None), "FromHuggingFace", block_count)


def _of_references(refs: Any, what: str, *, column: str | None = None) -> MaterializedDataset:
    node = logical.FromBlocks(blocks=references.to_blocks(refs, column=column), what=what)
    return MaterializedDataset(node, contexts.DataContext.get_current().copy())


def _several(given: Any) -> list[Any]:
    return [*given] if isinstance(given, list | tuple) else [given]


def _arrow(given: Any) -> pa.Table:
    if isinstance(given, pa.Table):
        return sizes.plain(given)
    if isinstance(given, bytes | pa.Buffer):
        return sizes.plain(pa.ipc.open_stream(given).read_all())
    if isinstance(given, pa.RecordBatch):
        return sizes.plain(pa.Table.from_batches([given]))
    if hasattr(given, "__arrow_c_stream__"):
        try:
            return sizes.plain(pa.table(given))
        except pa.ArrowInvalid as error:  # a column alone
            raise TypeError(f"{type(given).__name__} has no columns: {error}; make a frame or a table of it") from error
    raise TypeError(f"a pyarrow.Table, or anything with __arrow_c_stream__, is needed; got {type(given).__name__}")


def _of_table(table: pa.Table, what: str, block_count: int | None) -> MaterializedDataset:
    return _of_several([table], what, block_count)


def _of_several(tables: Sequence[pa.Table], what: str, block_count: int | None) -> MaterializedDataset:
    for number, table in enumerate(tables):
        schemas.refuse_duplicates(table.column_names, f"table {number}")
    if task_options.check_block_count(block_count) is not None:
        assert block_count is not None
        whole = schemas.concat(tables)
        ends = [whole.num_rows * number // block_count for number in builtins.range(block_count + 1)]
        tables = [whole.slice(first, last - first) for first, last in itertools.pairwise(ends)]
    return MaterializedDataset._of_tables(tables, what, is_chosen=block_count is not None)


# ---------------------------------------------------------------------------------------------------------------------
# Read.


def read_datasource(datasource: sources.Datasource | str, **options: Unpack[TaskOptions]) -> Dataset:
    """Of a source: one of `umbel.data.datasource`, or your own; or by the name that an installed distribution gives it (see
    `umbel.data.datasource`), which then takes the options that are not of tasks."""
    if isinstance(datasource, str):
        of_source = {one: value for one, value in options.items() if one not in TaskOptions.__annotations__}
        datasource = plugins.source(datasource, of_source)
        options = {one: value for one, value in options.items() if one not in of_source}  # type: ignore[assignment]
    if not isinstance(datasource, sources.Datasource):
        raise TypeError(f"a Datasource is needed, or the name of one, got {datasource!r}")
    unknown = [name for name in options if name not in TaskOptions.__annotations__]
    if unknown:
        raise TypeError(format_options.unknown("read_datasource", unknown[0], TaskOptions.__annotations__))
    means, block_count = task_options.of_read(options)
    if not datasource.supports_distributed_reads:
        means = logical.Means(means.compute, placing.on_driver(means.resources))
    node = logical.Read(source=datasource, parallelism=block_count, means=means)
    return Dataset(node, contexts.DataContext.get_current().copy())


def _read(
    name: str,
    kind: Callable[..., sources.Datasource],
    paths: Paths,
    options: Mapping[str, Any],
    own: Mapping[str, Any] = types.MappingProxyType({}),
    *,
    of_format: format_options.OfFormat | None = None,
    always: Mapping[str, Any] = types.MappingProxyType({}),
) -> Dataset:
    """own: options of the format, of which None is left out; always: those of which it is not. of_format: those that go on to
    pyarrow."""
    of_task = {one: value for one, value in options.items() if one in TaskOptions.__annotations__}
    of_file = {one: value for one, value in options.items() if one not in of_task}
    given = {one: value for one, value in own.items() if value is not None}
    if of_format is not None:
        given |= of_format.taken(of_file, given)
    if "arrow_open_file_args" in of_file:
        of_file["arrow_open_stream_args"] = of_file.pop("arrow_open_file_args")
    unknown = [one for one in of_file if one not in FileReadOptions.__annotations__]
    if unknown:
        named = {*inspect.signature(globals()[name]).parameters} - {"paths", "options"}
        known = {*FileReadOptions.__annotations__, *named, *(() if of_format is None else of_format.known)}
        raise TypeError(format_options.unknown(name, unknown[0], known))
    if of_file.get("arrow_open_stream_args") is not None:
        of_file["open_stream_args"] = of_file["arrow_open_stream_args"]
    of_file.pop("arrow_open_stream_args", None)
    of_file.setdefault("file_extensions", getattr(kind, "FILE_EXTENSIONS", None))
    return read_datasource(kind(paths, **always, **given, **of_file), **of_task)


def read_parquet(
    paths: Paths,
    *,
    columns: list[str] | None = None,
    filter: Any = None,
    arrow_parquet_args: Mapping[str, Any] | None = None,
    **options: Unpack[FileReadOptions],
) -> Dataset:
    """Of Parquet files, by row groups. columns: only these are read. filter: rows for which it is true, an expression of ours or
    of pyarrow; row groups and partitions of which none can be are not read. Other options, or arrow_parquet_args, go to pyarrow's
    ParquetFile. Those of its scanner (batch_size, use_threads and the like) have no effect: what is read at once is decided here.
    """
    is_arrow = isinstance(filter, pc.Expression)
    own = {
        "columns": columns,
        "filter": filter if is_arrow else None,
        "arrow_parquet_args": arrow_parquet_args,
    }
    kind = _kind("parquet", "ParquetDatasource")
    made = _read("read_parquet", kind, paths, options, own, of_format=format_options.PARQUET_READ)
    return made if filter is None or is_arrow else made.filter(expr=filter)


def read_csv(
    paths: Paths, *, arrow_csv_args: Mapping[str, Any] | None = None, **options: Unpack[CsvReadOptions]
) -> Dataset:
    """Of CSV files with a line of names. read_options, parse_options, convert_options: of pyarrow.csv; or together as
    arrow_csv_args."""
    from umbel.data._sources import partitioning

    given: Mapping[str, Any] = {"partitioning": partitioning.HIVE, **options}
    kind = _kind("csv", "CSVDatasource")
    return _read("read_csv", kind, paths, given, {"arrow_csv_args": arrow_csv_args}, of_format=format_options.CSV_READ)


def read_json(
    paths: Paths,
    *,
    lines: bool = False,
    arrow_json_args: Mapping[str, Any] | None = None,
    **options: Unpack[JsonReadOptions],
) -> Dataset:
    """Of JSON files: a row on each line, or a document that is a list of rows, or one row. lines: each line is one for
    certain. parse_options: of pyarrow.json."""
    from umbel.data._sources import partitioning

    given: Mapping[str, Any] = {"partitioning": partitioning.HIVE, **options}
    kind = _kind("json", "JSONDatasource")
    own = {"lines": lines, "arrow_json_args": arrow_json_args}
    return _read("read_json", kind, paths, given, own, of_format=format_options.JSON_READ)


def read_text(
    paths: Paths, *, encoding: str = "utf-8", drop_empty_lines: bool = True, **options: Unpack[FileReadOptions]
) -> Dataset:
    """A row for each line, as column `text`."""
    own = {"encoding": encoding, "drop_empty_lines": drop_empty_lines}
    return _read("read_text", _kind("text", "TextDatasource"), paths, options, own)


def read_binary_files(paths: Paths, **options: Unpack[FileReadOptions]) -> Dataset:
    """A row for each file, as column `bytes`."""
    return _read("read_binary_files", _kind("binary", "BinaryDatasource"), paths, options)


def read_numpy(
    paths: Paths,
    *,
    allow_pickle: bool = False,
    numpy_load_args: Mapping[str, Any] | None = None,
    **options: Unpack[FileReadOptions],
) -> Dataset:
    """Of .npy files, whose first axis counts the rows, as column `data`."""
    own = {"allow_pickle": allow_pickle, "numpy_load_args": numpy_load_args}
    return _read("read_numpy", _kind("numpy", "NumpyDatasource"), paths, options, own)


def read_images(
    paths: Paths, *, size: tuple[int, int] | None = None, mode: str | None = None, **options: Unpack[ImageReadOptions]
) -> Dataset:
    """A row for each image, as column `image`: [height, width, channel] uint8. size: (height, width) that all are brought to.
    mode: of Pillow, such as "RGB"."""
    return _read("read_images", _kind("images", "ImageDatasource"), paths, options, {"size": size, "mode": mode})


def read_arrow(paths: Paths, *, columns: list[str] | None = None, **options: Unpack[FileReadOptions]) -> Dataset:
    """Of files in Arrow's IPC format, which Feather is too: those of files and those of streams."""
    made = _read("read_arrow", _kind("arrow_files", "ArrowDatasource"), paths, options)
    return made if columns is None else made.select_columns(columns)


read_feather = read_arrow


def read_orc(paths: Paths, *, columns: list[str] | None = None, **options: Unpack[FileReadOptions]) -> Dataset:
    """Of ORC files, large ones by stripes."""
    made = _read("read_orc", _kind("orc", "ORCDatasource"), paths, options)
    return made if columns is None else made.select_columns(columns)


def read_avro(paths: Paths, **options: Unpack[FileReadOptions]) -> Dataset:
    """Of Avro files. Needs fastavro."""
    return _read("read_avro", _kind("avro", "AvroDatasource"), paths, options)


def read_tfrecords(paths: Paths, **options: Unpack[FileReadOptions]) -> Dataset:
    """Of TFRecord files of tf.train.Example: a column for each feature. No TensorFlow is needed. schema: which features are
    lists, by a list type, and which bytes are text, by string."""
    given = format_options.without(
        options, "read_tfrecords", "tf_schema", "say by schema=, of pyarrow, what features are"
    )
    return _read("read_tfrecords", _kind("tfrecords", "TFRecordDatasource"), paths, given)


def read_webdataset(
    paths: Paths,
    *,
    decoder: Any = True,
    fileselect: Any = None,
    filerename: Any = None,
    suffixes: Any = None,
    expand_json: bool = False,
    verbose_open: bool = False,
    **options: Unpack[FileReadOptions],
) -> Dataset:
    """Of tar files: a row for each group of files with one name, a column for each of their endings.

    decoder: True for the usual one by ending, False or None for bytes, or a function of the row. fileselect, suffixes: which
    files. filerename: how files are to be called. expand_json: the keys of a .json become columns. verbose_open: logs the
    names of files.
    """
    if verbose_open:
        logger.info("reading %s", paths)
    own = {"fileselect": fileselect, "filerename": filerename, "suffixes": suffixes, "expand_json": expand_json}
    kind = _kind("webdataset", "WebDatasetDatasource")
    return _read("read_webdataset", kind, paths, options, own, always={"decoder": decoder})


def read_sql(
    sql: str,
    connection_factory: Callable[[], Any],
    *,
    sql_params: Any = None,
    shard_keys: list[str] | None = None,
    shard_hash_fn: str = "MD5",
    **options: Unpack[TaskOptions],
) -> Dataset:
    """Of a query, by any connection of Python's DB-API. connection_factory: makes one, where the query runs. It
    travels there: a lambda or a function, as `lambda: duckdb.connect(path)`; `functools.partial(duckdb.connect, path)` cannot.

    shard_keys: columns by whose hash the rows are divided among tasks; without, one task reads all. shard_hash_fn: the
    function of the database that makes a number of them, "" for keys that are integers.
    """
    kind = _kind("sql", "SQLDatasource")
    source: Callable[..., sources.Datasource] = kind
    made = source(sql, connection_factory, shard_keys=shard_keys, shard_hash_fn=shard_hash_fn, sql_params=sql_params)
    return read_datasource(made, **options)


def read_delta(
    path: str,
    version: int | None = None,
    *,
    columns: list[str] | None = None,
    storage_options: Mapping[str, str] | None = None,
    filesystem: Any = None,
    include_paths: bool = False,
    shuffle: Literal["files"] | files.FileShuffleConfig | None = None,
    **options: Unpack[TaskOptions],
) -> Dataset:
    """Of a Delta table. version: the latest if None. storage_options: for deltalake, which reads the log; filesystem: for the
    files, by the URI otherwise. Needs deltalake."""
    made = _kind("delta", "DeltaDatasource")(
        path,
        version=version,
        columns=columns,
        storage_options=storage_options,
        filesystem=filesystem,
        include_paths=include_paths,
        shuffle=shuffle,
    )
    return read_datasource(made, **options)


def read_iceberg(
    *,
    table_identifier: str,
    row_filter: Any = None,
    selected_fields: Sequence[str] = ("*",),
    snapshot_id: int | None = None,
    scan_kwargs: Mapping[str, Any] | None = None,
    catalog_kwargs: Mapping[str, Any] | None = None,
    **options: Unpack[TaskOptions],
) -> Dataset:
    """Of an Iceberg table, "namespace.table". row_filter: an expression, or what pyiceberg takes. selected_fields: which columns.
    snapshot_id: the latest if None. scan_kwargs: for pyiceberg's `Table.scan`. catalog_kwargs: for its `load_catalog`. Needs
    pyiceberg."""
    made = _kind("iceberg", "IcebergDatasource")(
        table_identifier,
        catalog_kwargs=catalog_kwargs,
        row_filter=row_filter,
        selected_fields=selected_fields,
        snapshot_id=snapshot_id,
        scan_kwargs=scan_kwargs,
    )
    return read_datasource(made, **options)


def read_lance(
    uri: str,
    *,
    version: int | str | None = None,
    columns: list[str] | None = None,
    filter: Any = None,
    storage_options: Mapping[str, str] | None = None,
    scanner_options: Mapping[str, Any] | None = None,
    **options: Unpack[TaskOptions],
) -> Dataset:
    """Of a Lance dataset. version: the latest if None. filter: Lance's, as text, or an expression. scanner_options: for
    `LanceDataset.scanner`. Needs pylance."""
    is_text = isinstance(filter, str)
    made = _kind("lance", "LanceDatasource")(
        uri,
        version=version,
        columns=columns if filter is None or is_text else None,
        filter=filter if is_text else None,
        storage_options=storage_options,
        scanner_options=scanner_options,
    )
    found = read_datasource(made, **options)
    if filter is None or is_text:
        return found
    kept = found.filter(expr=filter)
    return kept if columns is None else kept.select_columns(columns)


def _kind(module: str, name: str) -> Callable[..., sources.Datasource]:
    """A source's class, whose module is loaded with its first use."""
    found: Callable[..., sources.Datasource] = getattr(importlib.import_module(f"umbel.data._sources.{module}"), name)
    return found
