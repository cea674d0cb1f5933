"""Streaming datasets on Arrow: read, transform, shuffle, join, and feed to training.

from umbel import data

ds = data.read_parquet("orders/").filter(expr="amount > 100").groupby("customer").sum("amount")
for batch in ds.iter_batches(batch_size=1024):
    ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from umbel.data._api.options import ActorPoolStrategy as ActorPoolStrategy
    from umbel.data._api.options import TaskPoolStrategy as TaskPoolStrategy
    from umbel.data._api.relations import MixStoppingCondition as MixStoppingCondition
    from umbel.data._api.summaries import DatasetSummary as DatasetSummary
    from umbel.data.context import DataContext as DataContext
    from umbel.data.context import ExecutionCallback as ExecutionCallback
    from umbel.data.context import ExecutionOptions as ExecutionOptions
    from umbel.data.context import ExecutionResources as ExecutionResources
    from umbel.data.context import RandomSeedConfig as RandomSeedConfig
    from umbel.data.dataset import Dataset as Dataset
    from umbel.data.dataset import MaterializedDataset as MaterializedDataset
    from umbel.data.dataset import Schema as Schema
    from umbel.data.datasink import BlockBasedFileDatasink as BlockBasedFileDatasink
    from umbel.data.datasink import Datasink as Datasink
    from umbel.data.datasink import FilenameProvider as FilenameProvider
    from umbel.data.datasink import RowBasedFileDatasink as RowBasedFileDatasink
    from umbel.data.datasink import SaveMode as SaveMode
    from umbel.data.datasource import Datasource as Datasource
    from umbel.data.datasource import FileShuffleConfig as FileShuffleConfig
    from umbel.data.datasource import RandomIntRowDatasource as RandomIntRowDatasource
    from umbel.data.datasource import ReadTask as ReadTask
    from umbel.data.datatype import DataType as DataType
    from umbel.data.grouped_data import GroupedData as GroupedData
    from umbel.data.iterator import DataIterator as DataIterator
    from umbel.data.read_api import from_arrow as from_arrow
    from umbel.data.read_api import from_arrow_refs as from_arrow_refs
    from umbel.data.read_api import from_blocks as from_blocks
    from umbel.data.read_api import from_duckdb as from_duckdb
    from umbel.data.read_api import from_huggingface as from_huggingface
    from umbel.data.read_api import from_items as from_items
    from umbel.data.read_api import from_numpy as from_numpy
    from umbel.data.read_api import from_numpy_refs as from_numpy_refs
    from umbel.data.read_api import from_pandas as from_pandas
    from umbel.data.read_api import from_pandas_refs as from_pandas_refs
    from umbel.data.read_api import from_polars as from_polars
    from umbel.data.read_api import from_torch as from_torch
    from umbel.data.read_api import range as range
    from umbel.data.read_api import range_tensor as range_tensor
    from umbel.data.read_api import read_arrow as read_arrow
    from umbel.data.read_api import read_avro as read_avro
    from umbel.data.read_api import read_binary_files as read_binary_files
    from umbel.data.read_api import read_csv as read_csv
    from umbel.data.read_api import read_datasource as read_datasource
    from umbel.data.read_api import read_delta as read_delta
    from umbel.data.read_api import read_feather as read_feather
    from umbel.data.read_api import read_iceberg as read_iceberg
    from umbel.data.read_api import read_images as read_images
    from umbel.data.read_api import read_json as read_json
    from umbel.data.read_api import read_lance as read_lance
    from umbel.data.read_api import read_numpy as read_numpy
    from umbel.data.read_api import read_orc as read_orc
    from umbel.data.read_api import read_parquet as read_parquet
    from umbel.data.read_api import read_sql as read_sql
    from umbel.data.read_api import read_text as read_text
    from umbel.data.read_api import read_tfrecords as read_tfrecords
    from umbel.data.read_api import read_webdataset as read_webdataset

__all__ = [
    "ActorPoolStrategy",
    "BlockBasedFileDatasink",
    "DataContext",
    "DataIterator",
    "DataType",
    "Dataset",
    "DatasetSummary",
    "Datasink",
    "Datasource",
    "ExecutionCallback",
    "ExecutionOptions",
    "ExecutionResources",
    "FileShuffleConfig",
    "FilenameProvider",
    "GroupedData",
    "MaterializedDataset",
    "MixStoppingCondition",
    "RandomIntRowDatasource",
    "RandomSeedConfig",
    "ReadTask",
    "RowBasedFileDatasink",
    "SaveMode",
    "Schema",
    "TaskPoolStrategy",
    "from_arrow",
    "from_arrow_refs",
    "from_blocks",
    "from_duckdb",
    "from_huggingface",
    "from_items",
    "from_numpy",
    "from_numpy_refs",
    "from_pandas",
    "from_pandas_refs",
    "from_polars",
    "from_torch",
    "range",
    "range_tensor",
    "read_arrow",
    "read_avro",
    "read_binary_files",
    "read_csv",
    "read_datasource",
    "read_delta",
    "read_feather",
    "read_iceberg",
    "read_images",
    "read_json",
    "read_lance",
    "read_numpy",
    "read_orc",
    "read_parquet",
    "read_sql",
    "read_text",
    "read_tfrecords",
    "read_webdataset",
]

# Each of these comes with its first use: a worker needs a few of the modules, and loading all takes longer than most tasks.
_CLASSES = {
    "umbel.data._api.options": "ActorPoolStrategy TaskPoolStrategy",
    "umbel.data._api.relations": "MixStoppingCondition",
    "umbel.data._api.summaries": "DatasetSummary",
    "umbel.data._sinks.base": "Datasink SaveMode",
    "umbel.data._sinks.filenames": "FilenameProvider",
    "umbel.data._sinks.files": "BlockBasedFileDatasink RowBasedFileDatasink",
    "umbel.data._sources.base": "Datasource ReadTask",
    "umbel.data._sources.files": "FileShuffleConfig",
    "umbel.data._sources.ranges": "RandomIntRowDatasource",
    "umbel.data.context": "DataContext ExecutionCallback ExecutionOptions ExecutionResources RandomSeedConfig",
    "umbel.data.dataset": "Dataset MaterializedDataset Schema",
    "umbel.data.datatype": "DataType",
    "umbel.data.grouped_data": "GroupedData",
    "umbel.data.iterator": "DataIterator",
}
_MODULE_OF = dict.fromkeys(__all__, "umbel.data.read_api")
_MODULE_OF |= {name: module for module, names in _CLASSES.items() for name in names.split()}
_SUBMODULES = frozenset(
    (
        "aggregate",
        "block",
        "checkpoint",
        "collate_fn",
        "context",
        "dataset",
        "datasink",
        "datasource",
        "datatype",
        "exceptions",
        "expressions",
        "grouped_data",
        "iterator",
        "preprocessor",
        "preprocessors",
        "read_api",
        "window",
    )
)

if not TYPE_CHECKING:  # to type checkers, only what is above is there

    def __getattr__(name: str) -> Any:
        if name in _SUBMODULES:
            return importlib.import_module(f"umbel.data.{name}")
        if name in _MODULE_OF:
            found = globals()[name] = getattr(importlib.import_module(_MODULE_OF[name]), name)
            return found
        from umbel.data._api import absent

        return absent.of_module(name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, *_SUBMODULES})
