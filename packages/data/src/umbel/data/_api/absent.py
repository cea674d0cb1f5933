"""Names that Ray Data has and that are not here, each with what to use instead; and old ones, which still mean what they did.

A list of them is in the package's README; a test holds the two together.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any, Final, NoReturn

_ARROW: Final = "from_arrow takes whatever has __arrow_c_stream__ or comes as a list of pyarrow tables"
_SQL: Final = "read_sql and write_sql take any connection of Python's DB-API; or write a Datasource or Datasink"
_CATALOG: Final = "use read_delta or read_parquet with storage_options"
_SOURCE: Final = "write a Datasource or Datasink of a few lines, see umbel.data.datasource"

OLD_NAMES: Final[Mapping[str, str]] = {"DatasetContext": "DataContext", "DatasetIterator": "DataIterator"}

FUNCTIONS: Final[Mapping[str, str]] = {
    "from_daft": f"give what daft's to_arrow() makes: {_ARROW}",
    "from_dask": f"give from_pandas what dask's compute() makes, or read the files that dask reads; {_ARROW}",
    "from_mars": f"give from_pandas its frames; {_ARROW}",
    "from_modin": f"give from_pandas its frames; {_ARROW}",
    "from_spark": f"write Parquet by Spark and use read_parquet, or give what toArrow() makes: {_ARROW}",
    "from_tf": "give from_items what as_numpy_iterator() makes, or use read_tfrecords",
    "list_stats_summaries": "each dataset has its own get_stats_summary()",
    "read_audio": "use read_binary_files, and map() with the library that decodes",
    "read_bigquery": _SQL,
    "read_clickhouse": _SQL,
    "read_databricks_tables": _SQL,
    "read_delta_sharing_tables": _SOURCE,
    "read_hudi": _SOURCE,
    "read_kafka": _SOURCE,
    "read_lerobot": "its tables are Parquet: use read_parquet",
    "read_mcap": _SOURCE,
    "read_mongo": _SOURCE,
    "read_snowflake": _SQL,
    "read_unity_catalog": _CATALOG,
    "read_videos": "use read_binary_files, and map() with the library that decodes",
    "read_zarr": _SOURCE,
    "Preprocessor": "it is in umbel.data.preprocessor, which nothing loads before it is used",
    "Catalog": _CATALOG,
    "CatalogAccessMode": _CATALOG,
    "ClickHouseTableSettings": _SQL,
    "DatabricksUnityCatalog": _CATALOG,
    "KafkaAuthConfig": _SOURCE,
    "NodeIdStr": "the id of a node is a str",
    "ReaderFormat": _CATALOG,
    "ResolvedSource": _CATALOG,
    "SinkMode": "it is for ClickHouse; files and tables are written with a SaveMode",
}

METHODS: Final[Mapping[str, str]] = {
    "iter_jax_batches": "use iter_batches(), whose arrays jax.numpy.asarray takes, in a map: map(jax.numpy.asarray, ...)",
    "map_batches_internal": "use map_batches",
    "to_daft": "give daft.from_arrow() what to_arrow() makes",
    "to_dask": "give dask.dataframe.from_delayed() what to_pandas_refs() makes, or write_parquet and read it with dask",
    "to_mars": "use to_pandas()",
    "to_modin": "use to_pandas()",
    "to_random_access_dataset": "use filter(expr=col(key) == value), or join() with the keys that are looked up",
    "to_spark": "use write_parquet, and read it with Spark",
    "write_bigquery": _SQL,
    "write_clickhouse": _SQL,
    "write_kafka": _SOURCE,
    "write_mongo": _SOURCE,
    "write_snowflake": _SQL,
    "write_turbopuffer": _SOURCE,
}


def of_module(name: str) -> Any:
    """The `__getattr__` of `umbel.data`."""
    if name in OLD_NAMES:
        warnings.warn(f"{name} is an old name; use {OLD_NAMES[name]}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module("umbel.data"), OLD_NAMES[name])
    raise AttributeError(_told("umbel.data", name, FUNCTIONS))


def of_dataset(_dataset: object, name: str) -> NoReturn:
    """The `__getattr__` of datasets and their iterators."""
    raise AttributeError(_told("a dataset", name, METHODS))


def _told(of: str, name: str, known: Mapping[str, str]) -> str:
    advice = known.get(name)
    return f"{of} has no {name!r}" if advice is None else f"{of} has no {name}: {advice}"
