"""What the tests of sources share: read all that the tasks of a source give, as they are given where they run."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa

from umbel.data import datasource


def blocks(
    source: datasource.Datasource, *, parallelism: int = -1, travels: bool = True, **options: Any
) -> list[pa.Table]:
    """Each task pickled and called, as on a worker."""
    tasks = source.get_read_tasks(parallelism)
    return [table for task in tasks for table in (pickle.loads(pickle.dumps(task)) if travels else task)(**options)]


def table(source: datasource.Datasource, **options: Any) -> pa.Table:
    return pa.concat_tables(blocks(source, **options), promote_options="permissive")


def rows(source: datasource.Datasource, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table(source, **options).to_pylist()
    return found
