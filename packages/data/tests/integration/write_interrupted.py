"""Sinks in whose tasks something happens in the middle: also a program that writes until it is killed."""

from __future__ import annotations

import importlib
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa

from umbel.data import datasink

SINKS = {
    "parquet": ("tables", "ParquetDatasink", {"max_rows_per_file": 10}),
    "csv": ("tables", "CSVDatasink", {"max_rows_per_file": 10}),
    "json": ("json", "JSONDatasink", {"max_rows_per_file": 10}),
    "delta": ("delta", "DeltaDatasink", {"max_rows_per_file": 10}),
    "lance": ("lance", "LanceDatasink", {"max_rows_per_file": 10}),
    "iceberg": ("iceberg", "IcebergDatasink", {}),
}


def catalog(path: str) -> dict[str, str]:
    """Of the Iceberg table n.t, which is below the path."""
    return {"name": "c", "type": "sql", "uri": f"sqlite:///{path}/c.db", "warehouse": f"file://{path}/w"}


def sink(kind: str, path: str) -> Any:
    module, name, options = SINKS[kind]
    if kind == "iceberg":
        options, path = {"catalog_kwargs": catalog(path)}, "n.t"
    return getattr(importlib.import_module(f"umbel.data._sinks.{module}"), name)(path, **options)


class Interrupted(datasink.Datasink[Any]):
    """Another sink, which gets 10 rows at a time; `act` is called after 30 rows of a task were given to it."""

    def __init__(self, inner: datasink.Datasink[Any], act: Callable[[], None]) -> None:
        self.inner, self.act = inner, act
        self.on_write_start = inner.on_write_start  # type: ignore[method-assign]
        self.on_write_complete = inner.on_write_complete  # type: ignore[method-assign]
        self.on_write_failed = inner.on_write_failed  # type: ignore[method-assign]

    def write(self, blocks: Iterable[pa.Table], ctx: datasink.WriteContext) -> Any:
        return self.inner.write(self._pieces(blocks), ctx)

    def _pieces(self, blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in blocks:
            for start in range(0, table.num_rows, 10):
                if start == 30:
                    self.act()
                yield table.slice(start, 10)


class DiesOnce:
    """Kills its process, but only once."""

    def __init__(self, mark: pathlib.Path) -> None:
        self.mark = mark

    def __call__(self) -> None:
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


class Stands:
    """Stands still until it is killed."""

    def __init__(self, mark: pathlib.Path) -> None:
        self.mark = mark

    def __call__(self) -> None:
        self.mark.touch()
        time.sleep(600)


def main(kind: str, path: str, mark: str) -> None:
    import umbel
    from umbel import data

    umbel.init(num_cpus=1, log_to_driver=False, object_store_memory=100 << 20)
    data.range(100, override_num_blocks=1).write_datasink(Interrupted(sink(kind, path), Stands(pathlib.Path(mark))))


if __name__ == "__main__":
    main(*sys.argv[1:])
