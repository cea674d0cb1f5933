"""Plans in words. Nothing is run for them, and no runtime is begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import umbel
from umbel import data
from umbel.data.expressions import col


def never(batch: Any) -> Any:
    raise AssertionError("explain() runs nothing")


class Model:
    def __call__(self, batch: Any) -> Any:
        raise AssertionError("explain() runs nothing")


@pytest.fixture
def orders(tmp_path: Path) -> str:
    pq.write_table(pa.table({"id": range(100), "price": [1.5] * 100, "note": ["x" * 50] * 100}), tmp_path / "a.parquet")
    return str(tmp_path)


def test_both_plans_are_told_with_what_changed(orders: str, capsys: pytest.CaptureFixture[str]) -> None:
    ds = data.read_parquet(orders, override_num_blocks=1)
    ds = ds.with_column("double", col("price") * 2).filter(expr=col("id") > 3).select_columns(["double"]).limit(5)
    text = ds.explain()
    assert capsys.readouterr().out == text + "\n"
    assert not umbel.is_initialized()
    logical, optimized, stages = text.split("\n\n")
    assert logical.splitlines() == [
        "Logical plan",
        "------------",
        "Limit(5)",
        "+- Project  expressions: [col('double')]",
        "   +- Filter(col('id') > 3)",
        "      +- Project  expressions: [star(), (col('price') * 2).alias('double')]",
        "         +- ReadParquet  parts: 1",
    ]
    assert optimized.splitlines()[2:] == [
        "Limit(5)",
        "+- Project  expressions: [col('double')]",
        "   +- Project  expressions: [star(), (col('price') * 2).alias('double')]",
        "      +- ReadParquet  columns: [price], filter: (id > 3), limit: 5, parts: 1",
        "(filters go towards the sources; limits go towards the sources; columns that nobody asks for are not made)",
    ]
    assert stages.splitlines()[2:] == [
        "1. ReadParquet->Project->Project->Limit(5)",
        stages.splitlines()[3],
        "2. Limit(5)  of 1",
        "   passes blocks on",
        "All of it is built-in and little: it runs in this process, without workers.",
    ]
    assert "   1 parts, about " in stages and ", in tasks" in stages


def test_actors_resources_and_exchanges_are_told() -> None:
    ds = data.range(1_000, override_num_blocks=3).map_batches(never, num_cpus=0.5, batch_size=7)
    ds = ds.map_batches(Model, compute=data.ActorPoolStrategy(min_size=1, max_size=4), num_gpus=1, batch_size=9)
    text = ds.sort("id", descending=True).explain()
    stages = text.split("Stages\n------\n")[1].splitlines()
    assert stages == [
        "1. ReadRange",
        "   3 parts, about 7.8 KiB, in tasks",
        "2. MapBatches(never)  of 1",
        "   in tasks, each with 0.5 CPUs, 7 rows at least in each",
        "3. MapBatches(Model)  of 2",
        "   on actors: 1 to 4, each with 0 CPUs, 1 GPUs, 9 rows at least in each",
        "4. Sort  of 3",
        "   needs all of its input: divided by range, of samples; partitions: one for each 128.0 MiB",
    ]
    assert "Sort  keys: [id], descending: [True]" in text
    assert "The same: no rule changed anything." in text


def test_what_two_operators_use_is_told_once() -> None:
    ds = data.range(10).map(never)
    text = ds.union(ds.filter(expr=col("id") > 1)).explain()
    assert "+- (1) Map(never)" in text and "+- (1) again" in text
    assert text.count("ReadRange") == 2  # in the plan and in the stages


def test_joins_and_groups_name_their_keys() -> None:
    left, right = (data.from_arrow(pa.table({"k": [1], name: [2]})) for name in ("a", "b"))
    text = left.join(right, on="k", join_type="inner", num_partitions=2).groupby("k").sum("a").explain()
    assert "Aggregate  keys: [k], aggregates: [sum(a)]" in text
    assert "Join(inner)  how: inner, left_on: [k], right_on: [k], " in text
