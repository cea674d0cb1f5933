"""Random plans give the rows that plain Python makes, however they are run.

`HYPOTHESIS_PROFILE=long` looks for some minutes.
"""

from __future__ import annotations

from typing import Any

import plan_models
import pyarrow as pa
import pytest
from hypothesis import given

from umbel import data
from umbel.data import window
from umbel.data.expressions import col


@pytest.mark.parametrize("step", plan_models.STEPS, ids=lambda step: step.__name__.strip("_"))
def test_each_operator_gives_what_plain_python_makes(step: Any) -> None:
    @plan_models.checked(8)
    @given(plan_models.plans(steps=[step], count_max=1))
    def holds(plan: plan_models.Plan) -> None:
        plan_models.check_ways(plan, plan_models.ways(plan.dataset))

    holds()


@pytest.mark.slow
def test_ten_thousand_blocks_of_a_row_are_as_good_as_one() -> None:
    count = 10_000
    table = pa.table({"id": pa.array(range(count), pa.int64()), "g": [number % 7 for number in range(count)]})
    one, many = data.from_arrow(table), data.from_blocks([table.slice(at, 1) for at in range(count)])

    def of(ds: data.Dataset) -> list[Any]:
        made = ds.filter(expr=col("id") % 2 == 0).with_column("x", col("id") + 1).sort("id", descending=True)
        return [
            made.to_arrow(),
            made.limit(3).to_arrow(),
            ds.groupby("g").sum("id").to_arrow(),
            ds.union(ds).repartition(3).to_arrow(),
            [batch["id"].tolist() for batch in ds.iter_batches(batch_size=999)],
            [part.count() for part in ds.split(3)],
            sorted(row["id"] for row in ds.random_shuffle(seed=1).take_all()),
            ds.join(made, "left", on="id", right_suffix="_r", broadcast=True).to_arrow(),
            ds.join(made, "outer", on="id", right_suffix="_r", num_partitions=3).sort("id").to_arrow(),
            ds.join_asof(made.select_columns(["id", "x"]), "id").sort("id").to_arrow(),
            ds.distinct("g", keep="last").sort("g").to_arrow(),
            ds.window({"n": window.row_number()}, partition_by="g", order_by="id").sort("id").to_arrow(),
            sorted(row["id"] for row in ds.mix(ds).take_all()),
            ds.repartition(target_num_rows_per_block=7, strict=True).to_arrow(),
            [part.count() for part in ds.train_test_split(0.3, stratify="g")],
            ds.schema(),
        ]

    assert of(many) == of(one)


@plan_models.checked(40)
@given(plan_models.plans())
def test_plans_give_what_plain_python_makes(plan: plan_models.Plan) -> None:
    plan_models.check_ways(plan, plan_models.ways(plan.dataset))
