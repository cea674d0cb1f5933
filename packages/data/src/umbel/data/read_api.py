"""How datasets begin: out of what is in memory, and out of what is read."""

from __future__ import annotations

import builtins
import functools
import importlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import pyarrow as pa

from umbel.data import context as contexts
from umbel.data import datasource as sources
from umbel.data._api import references
from umbel.data._blocks import batches, schemas
from umbel.data._engine import stages
from umbel.data._plan import kernels, logical
from umbel.data.dataset import Dataset, MaterializedDataset

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from typing_extensions import Unpack

Paths = Any  # a path or URI, or a list of them


class TaskOptions(TypedDict, total=False):
    """How the tasks of a read run. override_num_blocks: how many tasks; None to choose by size. concurrency: how many at once at
    most. num_cpus, num_gpus, memory: what each takes. ray_remote_args: other options of its tasks."""

    override_num_blocks: int | None
    concurrency: int | None
    num_cpus: float | None
    num_gpus: float | None
    memory: float | None
    ray_remote_args: Mapping[str, Any] | None


class FileOptions(TaskOptions, total=False):
    """What all readers of files take.

    filesystem: of pyarrow or fsspec; by the URI otherwise. partition_filter: which files, by the partitions that their paths say.
    partitioning: how paths say them. include_paths: the file of each row, as column `path`. ignore_missing_paths: those that are
    not there are left out. skip_paths: these are left out. shuffle: "files" for files in a random order. file_extensions: of the
    files to be read of a directory. schema: what each file is read as.
    """

    filesystem: Any
    partition_filter: sources.PathPartitionFilter | None
    partitioning: sources.Partitioning | None
    include_paths: bool
    ignore_missing_paths: bool
    skip_paths: Paths | None
    shuffle: Literal["files"] | sources.FileShuffleConfig | None
    file_extensions: list[str] | None
    schema: pa.Schema | None


# ---------------------------------------------------------------------------------------------------------------------
# In memory.


def range(n: int, **options: Unpack[TaskOptions]) -> Dataset:
    """The numbers 0 to n - 1, as column `id`."""
    return read_datasource(sources.RangeDatasource(n), **options)


def range_tensor(n: int, *, shape: tuple[int, ...] = (1,), **options: Unpack[TaskOptions]) -> Dataset:
    """Tensors of this shape, each filled with its number 0 to n - 1, as column `data`."""
    return read_datasource(sources.RangeDatasource(n, tensor_shape=shape), **options)


def from_items(items: Iterable[Any], *, override_num_blocks: int | None = None) -> MaterializedDataset:
    """A row for each item: a mapping is one by its keys; anything else is the column `item`."""
    return _of_table(kernels.of_rows([*items]), "FromItems", override_num_blocks)


def from_arrow(tables: Any, *, override_num_blocks: int | None = None) -> MaterializedDataset:
    """Of a table, or of several one after the other. Also of anything else with `__arrow_c_stream__`: frames of polars,
    results of DuckDB."""
    return _of_several([_arrow(one) for one in _several(tables)], "FromArrow", override_num_blocks)


def from_pandas(
    dfs: pd.DataFrame | Sequence[pd.DataFrame], *, override_num_blocks: int | None = None
) -> MaterializedDataset:
    """Of a frame, or of several one after the other."""
    made = [batches.from_batch(one, operator="from_pandas") for one in _several(dfs)]
    return _of_several(made, "FromPandas", override_num_blocks)


def from_polars(dfs: Any, *, override_num_blocks: int | None = None) -> MaterializedDataset:
    """Of a frame, or of several one after the other."""
    return _of_several([_arrow(one) for one in _several(dfs)], "FromPolars", override_num_blocks)


def from_numpy(ndarrays: np.ndarray[Any, Any] | Sequence[np.ndarray[Any, Any]]) -> MaterializedDataset:
    """Of an array, whose first axis counts the rows, or of several one after the other; as column `data`."""
    made = [batches.from_batch({"data": one}, operator="from_numpy") for one in _several(ndarrays)]
    return _of_several(made, "FromNumpy", None)


def from_blocks(blocks: Sequence[pa.Table]) -> MaterializedDataset:
    """Of these tables, each a block."""
    return _of_several([_arrow(one) for one in blocks], "FromBlocks", None)


def from_duckdb(relation: Any, *, override_num_blocks: int | None = None) -> MaterializedDataset:
    """Of a relation or result of DuckDB, which is run for it."""
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


def from_torch(dataset: Any, local_read: bool = False) -> Dataset:
    """Of a map-style torch dataset: a row for each index, as column `item`; of an iterable one likewise, in this process."""
    del local_read  # it is always so
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return from_items([dataset[index] for index in builtins.range(len(dataset))])
    return from_items(list(dataset))


def from_huggingface(dataset: Any, *, override_num_blocks: int | None = None) -> MaterializedDataset:
    """Of a Hugging Face dataset, whose Arrow tables become blocks without a copy."""
    if hasattr(dataset, "keys") and not hasattr(dataset, "data"):
        raise ValueError(
            f"this is a dictionary of datasets, {[*dataset.keys()]}; give one of them, such as ds['train']"
        )
    table = dataset.with_format("arrow")[:]
    return _of_table(_arrow(table), "FromHuggingFace", override_num_blocks)


def _of_references(refs: Any, what: str, *, column: str | None = None) -> MaterializedDataset:
    node = logical.FromBlocks(blocks=references.to_blocks(refs, column=column), what=what)
    return MaterializedDataset(node, contexts.DataContext.get_current())


def _several(given: Any) -> list[Any]:
    return [*given] if isinstance(given, list | tuple) else [given]


def _arrow(given: Any) -> pa.Table:
    if isinstance(given, pa.Table):
        return given
    if isinstance(given, pa.RecordBatch):
        return pa.Table.from_batches([given])
    if hasattr(given, "__arrow_c_stream__"):
        return pa.table(given)
    raise TypeError(f"a pyarrow.Table, or anything with __arrow_c_stream__, is needed; got {type(given).__name__}")


def _of_table(table: pa.Table, what: str, block_count: int | None) -> MaterializedDataset:
    return _of_several([table], what, block_count)


def _of_several(tables: Sequence[pa.Table], what: str, block_count: int | None) -> MaterializedDataset:
    for number, table in enumerate(tables):
        schemas.refuse_duplicates(table.column_names, f"table {number}")
    if block_count is not None:
        if block_count < 1:
            raise ValueError(f"override_num_blocks must be 1 or more, got {block_count}")
        whole = schemas.concat(tables)
        ends = [whole.num_rows * number // block_count for number in builtins.range(block_count + 1)]
        tables = [whole.slice(first, last - first) for first, last in itertools.pairwise(ends)]
    return MaterializedDataset.of(tables, what)


# ---------------------------------------------------------------------------------------------------------------------
# Read.


def read_datasource(datasource: sources.Datasource, **options: Unpack[TaskOptions]) -> Dataset:
    """Of a source: one of `umbel.data.datasource`, or your own."""
    given: dict[str, Any] = {**options}
    size = given.pop("concurrency", None)
    resources = stages.Resources(
        _or(given.pop("num_cpus", None), 1.0),
        _or(given.pop("num_gpus", None), 0.0),
        int(_or(given.pop("memory", None), 0)),
        dict(given.pop("ray_remote_args", None) or {}),
    )
    parallelism = given.pop("override_num_blocks", None)
    if given:
        raise TypeError(
            f"read_datasource has no option {sorted(given)[0]!r}; it has {', '.join(TaskOptions.__annotations__)}"
        )
    if parallelism is not None and parallelism < 1:
        raise ValueError(f"override_num_blocks must be 1 or more, got {parallelism}")
    means = logical.Means(stages.TaskPool(size) if size is not None else None, resources)
    return Dataset(
        logical.Read(source=datasource, parallelism=parallelism, means=means), contexts.DataContext.get_current()
    )


def _or(value: Any, default: float) -> float:
    return default if value is None else value


def _read(kind: Callable[..., sources.Datasource], paths: Paths, options: Mapping[str, Any], **own: Any) -> Dataset:
    """own: options of the format, of which None is left out."""
    of_task = {name: value for name, value in options.items() if name in TaskOptions.__annotations__}
    of_file = {name: value for name, value in options.items() if name not in of_task}
    unknown = [name for name in of_file if name not in FileOptions.__annotations__]
    if unknown:
        known = sorted({*FileOptions.__annotations__, *TaskOptions.__annotations__, *own})
        raise TypeError(f"there is no option {unknown[0]!r} here; there are {', '.join(known)}")
    given = {name: value for name, value in own.items() if value is not None}
    return read_datasource(kind(paths, **given, **of_file), **of_task)


def read_parquet(
    paths: Paths,
    *,
    columns: list[str] | None = None,
    filter: Any = None,
    arrow_parquet_args: Mapping[str, Any] | None = None,
    **options: Unpack[FileOptions],
) -> Dataset:
    """Of Parquet files, by row groups. columns: only these are read. filter: rows for which it is true, an expression; row
    groups and partitions of which none can be are not read."""
    made = _read(
        _kind("parquet", "ParquetDatasource"), paths, options, columns=columns, arrow_parquet_args=arrow_parquet_args
    )
    return made if filter is None else made.filter(expr=filter)


def read_csv(
    paths: Paths, *, arrow_csv_args: Mapping[str, Any] | None = None, **options: Unpack[FileOptions]
) -> Dataset:
    """Of CSV files with a line of names. arrow_csv_args: `parse_options` and others of `pyarrow.csv.open_csv`."""
    return _read(_kind("csv", "CSVDatasource"), paths, options, arrow_csv_args=arrow_csv_args)


def read_json(
    paths: Paths,
    *,
    lines: bool = False,
    arrow_json_args: Mapping[str, Any] | None = None,
    **options: Unpack[FileOptions],
) -> Dataset:
    """Of JSON files: a row on each line, or a document that is a list of rows, or one row. lines: each line is one for
    certain."""
    return _read(_kind("json", "JSONDatasource"), paths, options, lines=lines, arrow_json_args=arrow_json_args)


def read_text(
    paths: Paths, *, encoding: str = "utf-8", drop_empty_lines: bool = True, **options: Unpack[FileOptions]
) -> Dataset:
    """A row for each line, as column `text`."""
    own = {"encoding": encoding, "drop_empty_lines": drop_empty_lines}
    return _read(_kind("text", "TextDatasource"), paths, options, **own)


def read_binary_files(paths: Paths, **options: Unpack[FileOptions]) -> Dataset:
    """A row for each file, as column `bytes`."""
    return _read(_kind("binary", "BinaryDatasource"), paths, options)


def read_numpy(
    paths: Paths,
    *,
    allow_pickle: bool = False,
    numpy_load_args: Mapping[str, Any] | None = None,
    **options: Unpack[FileOptions],
) -> Dataset:
    """Of .npy files, whose first axis counts the rows, as column `data`."""
    own = {"allow_pickle": allow_pickle, "numpy_load_args": numpy_load_args}
    return _read(_kind("numpy", "NumpyDatasource"), paths, options, **own)


def read_images(
    paths: Paths, *, size: tuple[int, int] | None = None, mode: str | None = None, **options: Unpack[FileOptions]
) -> Dataset:
    """A row for each image, as column `image`: [height, width, channel] uint8. size: (height, width) that all are brought to.
    mode: of Pillow, such as "RGB"."""
    return _read(_kind("images", "ImageDatasource"), paths, options, size=size, mode=mode)


def read_arrow(paths: Paths, *, columns: list[str] | None = None, **options: Unpack[FileOptions]) -> Dataset:
    """Of files in Arrow's IPC format, which Feather is too: those of files and those of streams."""
    made = _read(_kind("arrow_files", "ArrowDatasource"), paths, options)
    return made if columns is None else made.select_columns(columns)


read_feather = read_arrow


def read_orc(paths: Paths, *, columns: list[str] | None = None, **options: Unpack[FileOptions]) -> Dataset:
    """Of ORC files, large ones by stripes."""
    made = _read(_kind("orc", "ORCDatasource"), paths, options)
    return made if columns is None else made.select_columns(columns)


def read_avro(paths: Paths, **options: Unpack[FileOptions]) -> Dataset:
    """Of Avro files. Needs fastavro."""
    return _read(_kind("avro", "AvroDatasource"), paths, options)


def read_tfrecords(paths: Paths, **options: Unpack[FileOptions]) -> Dataset:
    """Of TFRecord files of tf.train.Example: a column for each feature. No TensorFlow is needed. schema: which features are
    lists, by a list type, and which bytes are text, by string."""
    return _read(_kind("tfrecords", "TFRecordDatasource"), paths, options)


def read_webdataset(
    paths: Paths,
    *,
    decoder: Any = True,
    fileselect: Any = None,
    filerename: Any = None,
    suffixes: Any = None,
    expand_json: bool = False,
    **options: Unpack[FileOptions],
) -> Dataset:
    """Of tar files: a row for each group of files with one name, a column for each of their endings.

    decoder: True for the usual one by ending, False or None for bytes, or a function of the row. fileselect, suffixes: which
    files. filerename: how files are to be called. expand_json: the keys of a .json become columns.
    """
    own = {"fileselect": fileselect, "filerename": filerename, "suffixes": suffixes, "expand_json": expand_json}
    return _read(functools.partial(_kind("webdataset", "WebDatasetDatasource"), decoder=decoder), paths, options, **own)


def read_sql(
    sql: str,
    connection_factory: Callable[[], Any],
    *,
    sql_params: Any = None,
    shard_keys: list[str] | None = None,
    shard_hash_fn: str = "MD5",
    **options: Unpack[TaskOptions],
) -> Dataset:
    """Of a query, by any connection of Python's DB-API. connection_factory: makes one, where the query runs.

    shard_keys: columns by whose hash the rows are divided among tasks; without, one task reads all. shard_hash_fn: the
    function of the database that makes a number of them, "" for keys that are integers.
    """
    kind = _kind("sql", "SQLDatasource")
    source: Callable[..., sources.Datasource] = kind
    made = source(sql, connection_factory, shard_keys=shard_keys, shard_hash_fn=shard_hash_fn, sql_params=sql_params)
    return read_datasource(made, **options)


def _kind(module: str, name: str) -> Callable[..., sources.Datasource]:
    """A source's class, whose module is loaded with its first use."""
    found: Callable[..., sources.Datasource] = getattr(importlib.import_module(f"umbel.data._sources.{module}"), name)
    return found
