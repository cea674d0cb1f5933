"""The rows' work on libraries that are shown beside: pandas, Polars, DuckDB, and torch's DataLoader.

Each in the form that its users write, with as many threads or workers as the other sides have CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets import inputs, jobs, queries
from benchmarks.datasets.job import Job, Setting, expecting

TORCH_SHARE = 0.1  # of the rows: a DataLoader takes them one by one


def groupby_pandas(setting: Setting) -> Job:
    frame = inputs.group_table(setting.sizes).to_pandas()
    return Job(lambda: [[int(k), int(v)] for k, v in frame.groupby("k")["v"].sum().items()], _group_check(setting))


def groupby_polars(setting: Setting) -> Job:
    import polars as pl

    frame = pl.from_arrow(inputs.group_table(setting.sizes))
    return Job(lambda: [list(row) for row in frame.group_by("k").agg(pl.col("v").sum()).rows()], _group_check(setting))


def groupby_duckdb(setting: Setting) -> Job:
    connection = _duckdb(setting)
    connection.register("t", inputs.group_table(setting.sizes))
    sql = "select k, cast(sum(v) as bigint) from t group by k"
    return Job(lambda: [list(row) for row in connection.execute(sql).fetchall()], _group_check(setting))


def _group_check(setting: Setting) -> Callable[[Any], None]:
    rows = setting.sizes.group_rows
    return expecting([[0, rows * (rows - 1) // 2]])


def parquet_filter_polars(setting: Setting) -> Job:
    import polars as pl

    folder = inputs.scan(setting.folder, setting.sizes)

    def run() -> Any:
        found = pl.scan_parquet(folder / "*.parquet").filter(pl.col("kind") < inputs.SCAN_BELOW).collect()
        return [found.height, found["value"].sum()]

    return Job(run, expecting(jobs.scan_answer(setting)))


def parquet_filter_duckdb(setting: Setting) -> Job:
    connection, folder = _duckdb(setting), inputs.scan(setting.folder, setting.sizes)

    def run() -> Any:
        sql = f"select * from read_parquet('{folder}/*.parquet') where kind < {inputs.SCAN_BELOW}"
        found = connection.execute(sql).to_arrow_table()
        return [found.num_rows, int(found["value"].to_numpy().sum())]

    return Job(run, expecting(jobs.scan_answer(setting)))


def parquet_tiny_polars(setting: Setting) -> Job:
    import polars as pl

    folder = inputs.tiny(setting.folder, setting.sizes)
    pattern = folder / "*.parquet"
    run = lambda: pl.scan_parquet(pattern).select(pl.col("value").sum()).collect().item()  # noqa: E731
    return Job(run, expecting(jobs.tiny_answer(setting)))


def parquet_tiny_duckdb(setting: Setting) -> Job:
    connection, folder = _duckdb(setting), inputs.tiny(setting.folder, setting.sizes)
    sql = f"select cast(sum(value) as bigint) from read_parquet('{folder}/*.parquet')"
    return Job(lambda: connection.execute(sql).fetchall()[0][0], expecting(jobs.tiny_answer(setting)))


def join_polars(setting: Setting) -> Job:
    import polars as pl

    left, right = inputs.join_tables(setting.sizes)
    left_frame, right_frame = pl.from_arrow(left), pl.from_arrow(right)

    def run() -> Any:
        found = left_frame.join(right_frame, on="key", how="inner")
        return [found.height, found["b"].sum()]

    return Job(run, expecting(jobs.join_answer(left)))


def join_duckdb(setting: Setting) -> Job:
    connection, (left, right) = _duckdb(setting), inputs.join_tables(setting.sizes)
    connection.register("l", left)
    connection.register("r", right)

    def run() -> Any:
        found = connection.execute("select l.key, a, b from l join r on l.key = r.key").to_arrow_table()
        return [found.num_rows, int(found["b"].to_numpy().sum())]

    return Job(run, expecting(jobs.join_answer(left)))


def query_duckdb(name: str) -> Callable[[Setting], Job]:
    def build(setting: Setting) -> Job:
        connection, folder = _duckdb(setting), inputs.tpch_tables(setting.folder, setting.sizes)
        queries.views(connection, folder)
        return Job(lambda: queries.by_duckdb(connection, name), expecting(queries.answers(folder)[name]))

    return build


def iteration_torch(batch_size: int) -> Callable[[Setting], Job]:
    def build(setting: Setting) -> Job:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        rows = max(1, int(setting.sizes.batch_rows * TORCH_SHARE))
        table = inputs.batch_table(setting.sizes).slice(0, rows)
        tensors = [torch.from_numpy(column.to_numpy()) for column in table.columns]
        loader = DataLoader(TensorDataset(*tensors), batch_size=batch_size)

        def run() -> Any:
            count, seen, began_with = 0, 0, None
            for batch in loader:
                count, seen = count + 1, seen + len(batch[3])
                began_with = float(batch[0][0]) if began_with is None else began_with
            return [count, seen, began_with]

        check = expecting([-(-rows // batch_size), rows, table["x0"][0].as_py()])
        return Job(run, check, share=rows / setting.sizes.batch_rows)

    return build


class _Images:
    """What a DataLoader's workers read: one image by its number."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        pixels = inputs.scaled(self._paths[index]).astype(np.float32)
        pixels -= np.array(inputs.IMAGE_MEAN, np.float32)
        pixels /= np.array(inputs.IMAGE_DEVIATION, np.float32)
        return pixels


def images_torch(setting: Setting) -> Job:
    from torch.utils.data import DataLoader

    folder = inputs.images(setting.folder, setting.sizes)
    images: Any = _Images(sorted((folder / "jpeg").iterdir()))

    def run() -> Any:
        count, total = 0, 0.0
        for batch in DataLoader(images, batch_size=jobs.BATCH_IMAGES, num_workers=setting.cpus):
            count, total = count + len(batch), total + float(batch[:, 0, 0, 0].sum())
        return [count, total]

    return Job(run, jobs.checking_images(folder, setting.sizes.images))


def _duckdb(setting: Setting) -> Any:
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads = {setting.cpus}")
    return connection


BUILDERS: dict[str, dict[str, Callable[[Setting], Job]]] = {
    "pandas": {"groupby": groupby_pandas},
    "polars": {
        "groupby": groupby_polars,
        "parquet_filter": parquet_filter_polars,
        "parquet_tiny": parquet_tiny_polars,
        "join": join_polars,
    },
    "duckdb": {
        "groupby": groupby_duckdb,
        "parquet_filter": parquet_filter_duckdb,
        "parquet_tiny": parquet_tiny_duckdb,
        "join": join_duckdb,
        **{f"tpch_{name}": query_duckdb(name) for name in queries.SQL},
    },
    "torch": {"iter_32": iteration_torch(32), "iter_256": iteration_torch(256), "images": images_torch},
}
