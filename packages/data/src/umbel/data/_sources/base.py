"""What a source of rows is, and one task of reading it.

A source knows what it would read; nothing is read but by the tasks that it gives, each of which travels to a worker and
is called there. It never changes: columns, filters and limits that are pushed into it give another source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from umbel.data import block
from umbel.data._sources import bounding

TARGET_BYTES: Final = 128 << 20  # of a block: costs nothing to schedule, and some of them fit a heap


class ReadTask:
    """What one task reads. Called, it gives its blocks; pickled, it goes to where it is called.

    read_fn: what gives the tables, small or large. metadata: what is known before; its num_rows is exact or None.
    per_task_row_limit: no more rows than these are given, and reading ends there.
    """

    def __init__(
        self,
        read_fn: Callable[[], Iterable[pa.Table]],
        metadata: block.BlockMetadata,
        schema: pa.Schema | None = None,
        per_task_row_limit: int | None = None,
    ) -> None:
        self.read_fn = read_fn
        self.metadata = metadata
        self.schema = schema
        self.per_task_row_limit = per_task_row_limit

    def __call__(self, *, target_bytes: int = TARGET_BYTES) -> Iterator[pa.Table]:
        """Blocks of about `target_bytes`, whatever `read_fn` gives: small tables are put together, large ones cut."""
        tables = self.read_fn()
        if not isinstance(tables, Iterable) or isinstance(tables, pa.Table):
            raise TypeError(f"a ReadTask's function must give tables one after the other, got {type(tables).__name__}")
        tables = map(bounding.as_table, tables)
        if self.per_task_row_limit is not None:
            tables = bounding.first_rows(tables, self.per_task_row_limit)
        return bounding.blocks(tables, target_bytes=target_bytes)

    def __repr__(self) -> str:
        files = self.metadata.input_files
        return f"ReadTask(rows={self.metadata.num_rows}, bytes={self.metadata.size_bytes}, files={len(files)})"


class Datasource:
    """A source of rows. One of your own has `get_read_tasks` at least; see `umbel.data.read_datasource`."""

    def get_name(self) -> str:
        """For people, in plans and statistics."""
        name = type(self).__name__
        return name[: -len("Datasource")] if name.endswith("Datasource") and name != "Datasource" else name

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[ReadTask]:
        """Tasks that together read everything once, in order. parallelism: how many are wanted (fewer are given where there is
        less to divide); -1 for as many as suits the bytes."""
        raise NotImplementedError(
            f"{type(self).__name__} must define get_read_tasks(parallelism, per_task_row_limit=None)"
        )

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes, None where nothing is known."""
        return None

    def schema(self) -> pa.Schema | None:
        """Where it is known without reading rows."""
        return None

    def row_count(self) -> int | None:
        """Where it is known without reading rows. Exact."""
        return None

    @property
    def is_told_at_once(self) -> bool:
        """Whether `schema` and `row_count` open no file and ask no server, so that `repr` of a dataset may have them."""
        return False

    def input_files(self) -> list[str]:
        """Paths of what it reads; none where it is no files."""
        return []

    def pushed_down(self) -> Mapping[str, Any]:
        """What readers are told of columns, filters and limits; for people."""
        told = {name: getattr(self, f"_{name}", None) for name in ("columns", "filter", "limit")}
        return {name: value for name, value in told.items() if value is not None}

    def input_versions(self) -> Mapping[str, str]:
        """Of each input file, what is another when the file has changed, as far as its file system tells."""
        return {}

    def checkpoint_identity(self) -> str:
        """What tells it from a source of other rows, its files apart. The same in every process."""
        return f"{self.get_name()} of {self.row_count()} rows, {self.schema()}"

    @property
    def supports_distributed_reads(self) -> bool:
        """False where the tasks must run on the machine of the driver."""
        return True

    @property
    def is_repeatable(self) -> bool:
        """It gives the same rows in the same order each time around."""
        return True

    def with_columns(self, names: Iterable[str]) -> Datasource | None:
        """A source of these columns only, in this order. None where it would read all of them anyway."""
        return None

    def with_filter(self, expr: Any) -> tuple[Datasource, Any | None]:
        """A source of fewer rows, and what remains to be evaluated on them: None if it gives exactly those that pass."""
        return self, expr

    def with_limit(self, count: int) -> Datasource:
        """A source that may stop after its first `count` rows. It may give more: the limit stays in the plan."""
        return self

    def with_epoch(self, epoch: int) -> Datasource:
        """A source for another time around: what is random in it is drawn anew from its seed."""
        return self
