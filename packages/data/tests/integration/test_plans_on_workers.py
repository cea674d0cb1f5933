"""Random plans give on workers what plain Python makes. See `plan_models`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import plan_models
import pyarrow as pa
import pytest
from hypothesis import given

import umbel
from umbel import data
from umbel.data._plan import running

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=400 << 20)
    yield
    umbel.shutdown()


def on_workers(dataset: data.Dataset) -> Iterator[tuple[str, list[pa.Table]]]:
    for name, context in (("on workers", data.DataContext()), ("on workers, in pieces", plan_models.pieces())):
        away = dataclasses.replace(context, local_bytes_max=-1)
        yield name, [*running.Run(dataset._node, away).tables()]


@plan_models.checked(25)
@given(plan_models.plans())
def test_plans_give_what_plain_python_makes(plan: plan_models.Plan) -> None:
    plan_models.check_ways(plan, on_workers(plan.dataset))


def test_groups_of_several_blocks_that_one_task_divides_are_groups_once() -> None:
    blocks = [pa.table({"k": ["a", "b"], "x": [number, 1]}) for number in range(4)]
    dataset = data.from_blocks(blocks).groupby("k", 3).sum("x")
    away = dataclasses.replace(plan_models.pieces(), local_bytes_max=-1)
    found = [row for table in running.Run(dataset._node, away).tables() for row in table.to_pylist()]
    assert sorted(found, key=repr) == [{"k": "a", "sum(x)": 6}, {"k": "b", "sum(x)": 4}]
