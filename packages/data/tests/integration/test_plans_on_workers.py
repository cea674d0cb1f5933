"""Random plans give on workers what plain Python makes. See `plan_models`."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Iterator

import plan_models
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel import data
from umbel.data import expressions
from umbel.data._engine import local
from umbel.data._plan import rules, running
from umbel.data.expressions import col

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


@plan_models.checked(8)
@given(
    plan_models.plans(steps=[plan_models._map, plan_models._filter, plan_models._sort], count_max=2),
    st.integers(1, 3),
    st.booleans(),
)
def test_consumers_get_each_row_once(plan: plan_models.Plan, count: int, is_equal: bool) -> None:
    away = dataclasses.replace(plan_models.pieces(), local_bytes_max=-1)
    iterators = data.Dataset(plan.dataset._node, away).streaming_split(count, equal=is_equal)
    found: list[list[plan_models.Row]] = [[] for _ in iterators]

    def consume(number: int) -> None:
        for batch in iterators[number].iter_batches(batch_size=2, batch_format="pyarrow"):
            found[number] += plan_models.rows_of(batch)

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        for future in [pool.submit(consume, number) for number in range(count)]:
            future.result()
    total = len(plan.frame.rows)
    if is_equal:
        assert [len(rows) for rows in found] == [total // count] * count
    if not is_equal or total % count == 0:
        every = [row for rows in found for row in rows]
        plan_models.compare(every, plan.frame.with_rows(plan.frame.rows, is_ordered=False), "all consumers")


def seeded() -> dict[str, data.Dataset]:
    table = pa.table({"id": list(range(60))})
    ds = data.from_blocks([table.slice(at, 10) for at in range(0, 60, 10)]).map(dict)
    drawn = expressions.random(seed=4, reseed_after_execution=False)
    return {
        "shuffle": ds.random_shuffle(seed=1),
        "shuffle into blocks": ds.random_shuffle(seed=1, num_blocks=4),
        "behind a filter": ds.filter(expr=col("id") % 3 > 0).random_shuffle(seed=1, num_blocks=2),
        "random_sample": ds.random_sample(0.5, seed=2),
        "sample": ds.sample(7, seed=3),
        "random column": ds.with_column("r", drawn).filter(expr=col("r") < 0.4),
        "of a shuffle": ds.random_shuffle(seed=1, num_blocks=3).random_sample(0.5, seed=2),
        "block order": ds.randomize_block_order(seed=5).map(dict),
        "train": ds.streaming_train_test_split(0.3, seed=6)[0],
    }


def order_of(dataset: data.Dataset) -> list[plan_models.Row]:
    return [row for table in running.Run(dataset._node, data.DataContext()).tables() for row in table.to_pylist()]


def test_a_seed_gives_the_same_rows_again_with_another_number_of_workers() -> None:
    with_two = {name: order_of(dataset) for name, dataset in seeded().items()}
    assert with_two == {name: order_of(dataset) for name, dataset in seeded().items()}
    umbel.shutdown()
    umbel.init(num_cpus=1, log_to_driver=False, object_store_memory=400 << 20)
    assert with_two == {name: order_of(dataset) for name, dataset in seeded().items()}
    usual = data.DataContext()
    for name, dataset in seeded().items():  # and with none
        tables = local.tables(running.staged(rules.optimized(dataset._node), usual))
        assert with_two[name] == [row for table in tables for row in table.to_pylist()], name
    assert [row["id"] for row in with_two["shuffle"]] != sorted(row["id"] for row in with_two["shuffle"])
