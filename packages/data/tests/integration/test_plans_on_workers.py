"""Random plans give on workers what plain Python makes. See `plan_models`."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import plan_models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import umbel
from umbel import data
from umbel.data import expressions
from umbel.data._blocks import schemas
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


def test_blocks_of_unlike_types_have_one_answer_in_all_partitions() -> None:
    """A task that divides has several of them at once, and of some partitions all rows have one type."""
    columns = [pa.array([1, 2], pa.uint8()), pa.array([3, 4]), pa.array([0.5, 2**53 * 4.0]), pa.nulls(2)]
    tables = [pa.table({"k": [2 * at, 2 * at + 1], "g": [0, 1], "x": one}) for at, one in enumerate(columns)]
    numbers = data.from_blocks([pa.table({"n": [number]}) for number in range(len(tables))])
    unlike = numbers.map_batches(lambda batch: tables[batch["n"][0].as_py()], batch_size=1, batch_format="pyarrow")
    alike = data.from_arrow(schemas.concat(tables))
    for of in (
        lambda ds: ds.groupby("k", 5).sum("x"),
        lambda ds: ds.groupby("g", 3).sum("x"),
        lambda ds: ds.repartition(5, keys=["k"]),
        lambda ds: ds.sort("k"),
    ):
        expected = schemas.concat([*local.tables(running.staged(of(alike)._node, data.DataContext()))])
        for way, found in on_workers(of(unlike)):
            assert {str(table.schema) for table in found} == {str(expected.schema)}, way
            rows = [repr(row) for table in found for row in table.to_pylist()]
            assert sorted(rows) == sorted(map(repr, expected.to_pylist())), way


def test_a_key_that_some_blocks_lack_is_an_error_on_workers_too() -> None:
    tables = [pa.table({"a": [1], "b": ["x"]}), pa.table({"a": [2]})]
    numbers = data.from_blocks([pa.table({"n": [number]}) for number in range(len(tables))])
    unlike = numbers.map_batches(lambda batch: tables[batch["n"][0].as_py()], batch_size=1, batch_format="pyarrow")
    for of in (
        lambda ds: ds.filter(expr=col("b") == "x"),
        lambda ds: ds.sort("b"),
        lambda ds: ds.repartition(2, keys=["b"]),
        lambda ds: ds.groupby("b").map_groups(lambda group: group),
        lambda ds: ds.groupby("b").count(),
    ):
        with pytest.raises(KeyError, match=r"'b' is not a column.*A block has a: int64"):
            for _ in on_workers(of(unlike)):
                pass


def test_sorted_blocks_begin_at_the_boundaries() -> None:
    dataset = data.range(100, override_num_blocks=4).sort("id", descending=True, boundaries=[90, 20])
    for _, found in on_workers(dataset):
        assert [table["id"].to_pylist() for table in found] == [
            [*range(99, 90, -1)], [*range(90, 20, -1)], [*range(20, -1, -1)],
        ]  # fmt: skip


@plan_models.checked(4)  # each of which starts an actor
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


def test_two_thousand_blocks_of_a_row_come_to_consumers_once_and_in_the_order_of_each() -> None:
    """They are slices of one table, which would be sent with each of them."""
    table = pa.table({"id": range(2_000), "text": ["x" * 1_000] * 2_000})
    iterators = data.from_blocks([table.slice(at, 1) for at in range(2_000)]).streaming_split(2)

    def consume(number: int) -> list[int]:
        batches = iterators[number].iter_batches(batch_size=None, batch_format="pyarrow")
        return [one for batch in batches for one in batch["id"].to_pylist()]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = [*pool.map(consume, range(2))]
    assert sorted(found[0] + found[1]) == [*range(2_000)]
    assert all(some == sorted(some) and len(some) > 100 for some in found)


MIB = 1 << 20


def seeded(files: Path) -> dict[str, data.Dataset]:
    """Of a function, so that they run on workers; and of as many blocks as said."""
    table = pa.table({"id": list(range(60))})
    ds = data.from_blocks([table.slice(at, 10) for at in range(0, 60, 10)]).map(dict)
    drawn = expressions.random(seed=4, reseed_after_execution=False)
    some, rest = ds.streaming_train_test_split(0.3, seed=6)
    shuffled_files = data.read_parquet(str(files), shuffle=data.FileShuffleConfig(seed=7), override_num_blocks=5)
    return {
        "shuffle": ds.random_shuffle(seed=1),
        "shuffle into blocks": ds.random_shuffle(seed=1, num_blocks=4),
        "behind a filter": ds.filter(expr=col("id") % 3 > 0).random_shuffle(seed=1, num_blocks=2),
        "random_sample": ds.random_sample(0.5, seed=2),
        "sample": ds.sample(7, seed=3),
        "random column": ds.with_column("r", drawn).filter(expr=col("r") < 0.4),
        "of a shuffle": ds.random_shuffle(seed=1, num_blocks=3).random_sample(0.5, seed=2),
        "block order": ds.randomize_block_order(seed=5).map(dict),
        "train": some,
        "test": rest,
        "files": shuffled_files.map(dict),
        "shuffle of files": shuffled_files.map(dict).random_shuffle(seed=8, num_blocks=3),
        "random column of files": shuffled_files.with_column("r", drawn).map(dict),
    }


def order_of(dataset: data.Dataset) -> list[plan_models.Row]:
    return [row for table in running.Run(dataset._node, dataset.context).tables() for row in table.to_pylist()]


def consumed(files: Path) -> dict[str, list[plan_models.Row]]:
    """What is run at once."""
    ds = data.range(60, override_num_blocks=6).map(dict)
    train, test = ds.train_test_split(0.25, shuffle=True, seed=9)
    batches = ds.iter_batches(batch_size=7, local_shuffle_buffer_size=20, local_shuffle_seed=3, batch_format="pyarrow")
    return {
        **{name: order_of(dataset) for name, dataset in seeded(files).items()},
        "train_test_split": [*train.take_all(), *test.take_all()],
        "local shuffle": [row for batch in batches for row in batch.to_pylist()],
    }


def keyed(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**batch, "k": batch["id"] % 701}


def many(row_count: int) -> dict[str, str]:
    """Of more than a task of a map gets, and of more than a partition has; by what stands for all rows in their order."""
    # As large as the store of one CPU has room for: see "What is random" in docs/data/relations.md.
    context = data.DataContext(target_max_block_size=16 * MIB, target_shuffle_block_size=2 * MIB)
    with data.DataContext.current(context):
        ds = data.range(row_count, override_num_blocks=4).map_batches(plan_models.same)
        every = {
            "shuffle": ds.random_shuffle(seed=1, num_blocks=5),
            "shuffle into partitions by size": ds.random_shuffle(seed=1),
            "random_sample": ds.map_batches(plan_models.same, batch_size=None).random_sample(0.5, seed=2),
            "of a shuffle": ds.random_shuffle(seed=1).random_sample(0.5, seed=2),
            "no seed, but an order: groups": ds.map_batches(keyed).groupby("k").map_groups(plan_models.same),
            "and a join": ds.map_batches(keyed).join(data.range(row_count), on="id", broadcast=False),
            "and distinct rows": ds.map_batches(keyed).distinct("k"),
        }
        found = {}
        for name, dataset in every.items():
            tables = [*running.Run(dataset._node, context).tables()]
            ids = pa.concat_tables(tables)["id"].to_numpy()
            found[name] = hashlib.sha256(ids.tobytes()).hexdigest()
    return found


def test_the_same_rows_come_in_the_same_order_again_whatever_the_workers_and_the_store(tmp_path: Path) -> None:
    for number in range(12):
        pq.write_table(pa.table({"id": range(number * 5, number * 5 + 5)}), tmp_path / f"{number:02}.parquet")
    row_count = 2_500_000  # 20 MB, while a task of a map gets 16
    with_two, many_with_two = consumed(tmp_path), many(row_count)
    assert with_two == consumed(tmp_path)
    for cpu_count, store_bytes in ((1, 200 * MIB), (3, 800 * MIB)):
        umbel.shutdown()
        umbel.init(num_cpus=cpu_count, log_to_driver=False, object_store_memory=store_bytes)
        assert with_two == consumed(tmp_path)
        assert many_with_two == many(row_count)
    usual = data.DataContext()
    for name, dataset in seeded(tmp_path).items():  # and with none
        tables = local.tables(running.staged(rules.optimized(dataset._node), usual))
        assert with_two[name] == [row for table in tables for row in table.to_pylist()], name
    ids = {name: [row["id"] for row in rows] for name, rows in with_two.items()}
    for name in ("shuffle", "files", "shuffle of files", "block order", "local shuffle", "train_test_split"):
        assert ids[name] != sorted(ids[name]) == [*range(60)], name
    assert sorted(ids["train"] + ids["test"]) == [*range(60)]
    assert 0 < len(ids["random_sample"]) < 60
