"""The rows' work on a module with this API, `umbel.data` or `ray.data`: written once for both.

Functions for workers are made inside, so that they travel by value and no worker has to find this file.
"""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.datasets import inputs, queries
from benchmarks.datasets.job import Job, Setting, expecting

JOIN_BLOCKS = 8  # of the left side; half as many on the right
PARTITIONS_PER_CPU = 2  # of a join, for Ray, which has to be told; Umbel chooses
KEY_FACTOR, PAYLOAD_FACTOR = (
    0x9E3779B97F4A7C15,
    0xD1B54A32D192ED03,
)  # odd: a number times one of them modulo 2**64 is another one
PAYLOAD_WORDS = 11  # of eight bytes; with id and key a row has 104 bytes
BATCH_IMAGES = 32

START_PROGRAM = """
import {module} as rt
import {module}.data as data

def add(row):
    return {{"x": row["id"] + 1}}

rt.init(num_cpus={cpus})
data.DataContext.get_current().enable_progress_bars = False
found = data.range(1000).map(add).take()
assert [row["x"] for row in found] == [*range(1, 21)], found
print("done", flush=True)
"""


def _quiet(module: str) -> Any:
    data = importlib.import_module(f"{module}.data")
    data.DataContext.get_current().enable_progress_bars = False
    return data


def partitions(module: str, setting: Setting) -> int | None:
    return None if module == "umbel" else PARTITIONS_PER_CPU * setting.cpus


def groupby(module: str, setting: Setting) -> Job:
    rows = setting.sizes.group_rows
    ds = _quiet(module).from_arrow(inputs.group_table(setting.sizes))

    def run() -> Any:
        return [[row["k"], row["sum(v)"]] for row in ds.groupby("k").sum("v").take_all()]

    return Job(run, expecting([[0, rows * (rows - 1) // 2]]))


def map_batches(module: str, setting: Setting) -> Job:
    data, rows = _quiet(module), setting.sizes.map_rows

    def add(batch: dict[str, Any]) -> dict[str, Any]:
        batch["x"] = batch["id"] + 1
        return batch

    kept: list[Any] = []

    def run() -> int:
        kept[:] = [data.range(rows).map_batches(add).materialize()]
        return int(kept[0].count())

    def check(count: int) -> None:
        expecting(rows)(count)
        expecting(rows * (rows + 1) // 2)(kept.pop().sum("x"))  # and frees it before the next one

    return Job(run, check)


def iteration(batch_size: int) -> Callable[[str, Setting], Job]:
    def build(module: str, setting: Setting) -> Job:
        table = inputs.batch_table(setting.sizes)
        ds, rows = _quiet(module).from_arrow(table), setting.sizes.batch_rows
        batches, first = -(-rows // batch_size), table["x0"][0].as_py()

        def run() -> Any:
            count, seen, began_with = 0, 0, None
            for batch in ds.iter_batches(batch_size=batch_size):
                count, seen = count + 1, seen + len(batch["x3"])
                began_with = float(batch["x0"][0]) if began_with is None else began_with
            return [count, seen, began_with]

        return Job(run, expecting([batches, rows, first]))

    return build


def parquet_filter(module: str, setting: Setting) -> Job:
    folder, data = inputs.scan(setting.folder, setting.sizes), _quiet(module)
    col, lit = (getattr(importlib.import_module(f"{module}.data.expressions"), name) for name in ("col", "lit"))

    def run() -> Any:
        found = data.read_parquet(str(folder)).filter(expr=col("kind") < lit(inputs.SCAN_BELOW)).materialize()
        return [found.count(), found]

    def check(answer: Any) -> None:
        count, found = answer
        expecting(scan_answer(setting))([count, found.sum("value")])

    return Job(run, check)


def scan_answer(setting: Setting) -> list[int]:
    """How many rows the filter of the files leaves, and the sum of their values."""
    import pyarrow.dataset as pads

    dataset = pads.dataset(inputs.scan(setting.folder, setting.sizes))
    values = dataset.to_table(columns=["value"], filter=pc.field("kind") < inputs.SCAN_BELOW)["value"]
    return [len(values), pc.sum(values).as_py() or 0]


def parquet_tiny(module: str, setting: Setting) -> Job:
    folder, data = inputs.tiny(setting.folder, setting.sizes), _quiet(module)
    return Job(lambda: data.read_parquet(str(folder)).sum("value"), expecting(tiny_answer(setting)))


def tiny_answer(setting: Setting) -> int:
    rows = setting.sizes.tiny_files * inputs.TINY_ROWS
    return rows * (rows - 1)


def join(module: str, setting: Setting) -> Job:
    data, (left, right) = _quiet(module), inputs.join_tables(setting.sizes)
    left_ds, right_ds = (
        data.from_arrow(_parts(one, JOIN_BLOCKS // divisor)) for one, divisor in ((left, 1), (right, 2))
    )
    wanted = join_answer(left)
    del left, right

    def run() -> Any:
        joined = left_ds.join(right_ds, "inner", partitions(module, setting), on=("key",)).materialize()
        return [joined.count(), joined]

    def check(answer: Any) -> None:
        count, joined = answer
        expecting(wanted)([count, joined.sum("b")])

    return Job(run, check)


def join_answer(left: pa.Table) -> list[int]:
    return [left.num_rows, 3 * pc.sum(left["key"]).as_py()]


def _parts(table: pa.Table, count: int) -> list[pa.Table]:
    ends = [table.num_rows * number // count for number in range(count + 1)]
    return [table.slice(first, last - first) for first, last in itertools.pairwise(ends)]


def _large(module: str, setting: Setting) -> tuple[Any, int]:
    """A dataset of random keys with a payload that does not compress, made by its tasks, and how many rows it has."""
    words, key_factor, payload_factor = PAYLOAD_WORDS, KEY_FACTOR, PAYLOAD_FACTOR
    rows = setting.sizes.large_bytes // (8 * (PAYLOAD_WORDS + 2))

    def make(table: Any) -> Any:
        import numpy as np
        import pyarrow as pa

        ids = table["id"].to_numpy()
        keys = ids.astype(np.uint64) * np.uint64(key_factor)
        keys ^= keys >> np.uint64(29)
        keys *= np.uint64(payload_factor)
        payload = np.outer(keys, np.arange(1, 2 * words, 2, dtype=np.uint64))
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(8 * words), len(ids), [None, pa.py_buffer(payload)])
        return pa.table({"id": ids, "key": keys.view(np.int64), "payload": column})

    return _quiet(module).range(rows).map_batches(make, batch_format="pyarrow", batch_size=100_000), rows


def sort(module: str, setting: Setting) -> Job:
    ds, rows = _large(module, setting)

    def run() -> Any:
        count, id_sum, before, is_sorted = 0, 0, None, True
        for table in ds.sort("key").iter_batches(batch_size=None, batch_format="pyarrow"):
            keys = table["key"].to_numpy()
            if not len(keys):
                continue
            is_sorted = is_sorted and bool((keys[1:] >= keys[:-1]).all()) and (before is None or before <= keys[0])
            before, count, id_sum = keys[-1], count + len(keys), id_sum + int(table["id"].to_numpy().sum())
        return [count, id_sum, is_sorted]

    return Job(run, expecting([rows, rows * (rows - 1) // 2, True]))


def shuffle(module: str, setting: Setting) -> Job:
    ds, rows = _large(module, setting)

    def run() -> Any:
        count, id_sum, neighbours = 0, 0, 0
        for table in ds.random_shuffle(seed=1).iter_batches(batch_size=None, batch_format="pyarrow"):
            ids = table["id"].to_numpy()
            neighbours += int((np.diff(ids) == 1).sum())
            count, id_sum = count + len(ids), id_sum + int(ids.sum())
        return [count, id_sum, neighbours <= max(10, rows // 1_000)]

    return Job(run, expecting([rows, rows * (rows - 1) // 2, True]))


def query(name: str) -> Callable[[str, Setting], Job]:
    def build(module: str, setting: Setting) -> Job:
        _quiet(module)
        folder = inputs.tpch_tables(setting.folder, setting.sizes)
        tables = queries.Tables(module, folder, partitions(module, setting))
        cents = 0.5 if module == "umbel" else math.inf  # Ray's sums of floats in Q1 are off by more
        return Job(lambda: queries.QUERIES[name](tables), expecting(queries.answers(folder)[name], cents=cents))

    return build


def images(module: str, setting: Setting) -> Job:
    found, data = inputs.images(setting.folder, setting.sizes), _quiet(module)
    edge, mean, deviation = inputs.IMAGE_EDGE, inputs.IMAGE_MEAN, inputs.IMAGE_DEVIATION

    def normalise(batch: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        pixels = batch["image"].astype(np.float32)
        pixels -= np.array(mean, np.float32)
        pixels /= np.array(deviation, np.float32)
        return {"image": pixels}

    def run() -> Any:
        count, total = 0, 0.0
        read = data.read_images(str(found / "jpeg"), size=(edge, edge), mode="RGB")
        for batch in read.map_batches(normalise, batch_size=BATCH_IMAGES).iter_batches(batch_size=BATCH_IMAGES):
            count, total = count + len(batch["image"]), total + float(batch["image"][:, 0, 0, 0].sum())
        return [count, total]

    return Job(run, checking_images(found, setting.sizes.images))


def checking_images(folder: Path, count: int) -> Callable[[Any], None]:
    """All images, and the sum of their normalised first values."""
    total = (inputs.images_answer(folder) - count * inputs.IMAGE_MEAN[0]) / inputs.IMAGE_DEVIATION[0]

    def check(found: Any) -> None:
        expecting(count)(found[0])
        if abs(found[1] - total) > 1e-4 * count:
            raise ValueError(
                f"the first values have the sum {found[1]}, but {total} is right; fix that before timing it"
            )

    return check


BUILDERS: dict[str, Callable[[str, Setting], Job]] = {
    "groupby": groupby,
    "map_batches": map_batches,
    "iter_32": iteration(32),
    "iter_256": iteration(256),
    "parquet_filter": parquet_filter,
    "parquet_tiny": parquet_tiny,
    "join": join,
    "sort": sort,
    "shuffle": shuffle,
    **{f"tpch_{name}": query(name) for name in queries.QUERIES},
    "images": images,
}
