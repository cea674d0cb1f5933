"""Joins on workers: one side to every task, a hot key shared by several, and what is measured decides."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import umbel
from umbel import data

pytestmark = pytest.mark.timeout(120)
KIB = 1 << 10
HOWS = ("inner", "left", "right", "outer", "semi", "anti", "right_semi", "right_anti")


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=400 << 20)
    yield
    umbel.shutdown()


@pytest.fixture(autouse=True)
def _on_workers() -> Iterator[None]:
    with data.DataContext.current(data.DataContext(local_bytes_max=-1)):
        yield


def blocks(keys: np.ndarray, name: str, count: int) -> data.Dataset:
    table = pa.table({"k": pa.array(keys, mask=keys < 0), name: np.arange(len(keys))})
    bounds = np.linspace(0, len(keys), count + 1).astype(int)
    return data.from_blocks([table.slice(low, high - low) for low, high in itertools.pairwise(bounds)])


def how_of(ds: data.Dataset) -> str:
    (found,) = [one["how"] for one in ds.get_stats_summary()["stages"] if one["name"].startswith("Join")]
    return str(found)


def rows_of(ds: data.Dataset) -> Counter[Any]:
    return Counter(tuple(sorted(row.items())) for row in ds.take_all())


@pytest.mark.parametrize("how", HOWS)
def test_joins_have_the_same_rows_whichever_way_they_are_carried_out(how: str) -> None:
    chance = np.random.default_rng(7)
    left = blocks(chance.integers(-1, 400, 3_000), "v", 6)
    right = blocks(chance.integers(-1, 300, 200), "w", 3)
    with data.DataContext.current(data.DataContext()):
        expected = rows_of(data.from_arrow(left.to_arrow()).join(data.from_arrow(right.to_arrow()), how, on="k"))
    several = {}
    for name, options in {
        "small": {},
        "divided": {"broadcast": False, "num_partitions": 3},
        **({"whole": {"broadcast": True}} if how != "outer" else {}),
    }.items():
        joined = left.join(right, how, on="k", **options)
        assert rows_of(joined) == expected
        several[name] = how_of(joined)
    of_left = {
        "right": "input 1 to every task",
        "right_semi": "input 1 to every task",
        "right_anti": "input 1 to every task",
    }
    whole = "1 partition" if how == "outer" else of_left.get(how, "input 2 to every task")
    assert several == {"small": whole, "divided": "3 partitions", **({"whole": whole} if how != "outer" else {})}


def test_what_a_function_makes_is_measured() -> None:
    left = data.range(20_000, override_num_blocks=4)
    some = data.range(2_000, override_num_blocks=2).map_batches(lambda batch: {"id": batch["id"] * 7})
    with data.DataContext.current(data.DataContext(local_bytes_max=-1, broadcast_bytes_max=16 * KIB)):
        large, small = (ds.map_batches(lambda batch: batch) for ds in (data.range(20_000), data.range(1_500)))
        joins = {
            "small": small.join(some),
            "large": large.join(some),
            "neither": large.join(left.map(lambda row: row), "left"),
        }
        counts = {name: joined.materialize() for name, joined in joins.items()}
    assert {name: found.count() for name, found in counts.items()} == {"small": 215, "large": 2_000, "neither": 20_000}
    assert {name: how_of(found) for name, found in counts.items()} == {
        "small": "input 2 to every task",
        "large": "input 2 to every task",
        "neither": "1 partition",
    }


def test_small_side_of_many_blocks_is_put_together_first() -> None:
    many = data.from_blocks([pa.table({"id": [at], "x": [-at]}) for at in range(2_000)])
    joined = data.range(3_000, override_num_blocks=4).join(many, "left")
    assert [row["x"] for row in joined.take_all()] == [-at if at < 2_000 else None for at in range(3_000)]
    assert how_of(joined) == "input 2 to every task"
    assert {one["name"]: one["blocks_out"] for one in joined.get_stats_summary()["stages"]}["Gather"] < 64


def test_hot_key_is_shared_by_several_tasks() -> None:
    chance = np.random.default_rng(3)
    keys = np.where(chance.random(60_000) < 0.8, 5, chance.integers(0, 1_000, 60_000))
    with data.DataContext.current(data.DataContext(local_bytes_max=-1, target_shuffle_block_size=64 * KIB)):
        for how in ("inner", "left", "semi", "anti", "outer"):
            joined = blocks(keys, "v", 8).join(blocks(np.arange(0, 1_000, 5), "w", 2), how, on="k", broadcast=False)
            found = joined.materialize()
            has_partner = keys % 5 == 0
            kept = {"inner": has_partner, "semi": has_partner, "anti": ~has_partner}
            expected = kept.get(how, keys >= 0)
            assert "of them shared by several tasks" in how_of(found)
            assert sorted(row["v"] for row in found.take_all()) == np.flatnonzero(expected).tolist()


@pytest.mark.parametrize("is_left", [True, False])
def test_hot_key_of_a_full_outer_join_is_shared_by_several_tasks(is_left: bool) -> None:
    """90 % of the rows of one side have one key; the other side has rows without a partner, in the hot partition too."""
    chance = np.random.default_rng(4)
    hot = np.where(chance.random(60_000) < 0.9, 5, chance.integers(-1, 1_000, 60_000))
    found = []
    for options in ({}, {"local_bytes_max": -1, "target_shuffle_block_size": 64 * KIB}):
        with data.DataContext.current(data.DataContext(**options)):
            sides = [blocks(hot, "v", 8), blocks(np.arange(-1, 3_000, 5), "w", 2)]
            left, right = sides if is_left else reversed(sides)
            joined = left.join(right, "outer", on="k").materialize()
            how = how_of(joined) if options else ""
            found.append(joined.to_arrow().sort_by([("v", "ascending"), ("w", "ascending")]).combine_chunks())
    assert "1 of them shared by several tasks" in how
    assert found[0].equals(found[1])


def test_keys_are_checked_in_what_functions_make_if_that_is_wanted() -> None:
    unknown = data.range(4).map(lambda row: {"id": float(row["id"])})
    with pytest.raises(KeyError, match="did you mean 'id'"):
        data.range(4).join(unknown, right_on="idd", validate_schemas=True)
    assert data.range(4).join(unknown, validate_schemas=True).count() == 4


def test_groups_of_one_key_are_added_up_in_part_before_they_come_together() -> None:
    """So that a hot key costs one row of each task."""
    ds = data.range(100_000, override_num_blocks=8).map_batches(lambda batch: {"k": batch["id"] * 0, "v": batch["id"]})
    found = ds.groupby("k").sum("v").materialize()
    assert found.get_stats_summary()["stages"][-1]["rows_in"] <= 8
    assert found.take_all() == [{"k": 0, "sum(v)": 4_999_950_000}]


def test_group_that_is_large_is_given_whole_and_said_to_be() -> None:
    with data.DataContext.current(data.DataContext(target_shuffle_block_size=64 * KIB)):
        ds = data.range(100_000).map_batches(lambda batch: {"k": batch["id"] % 2, "v": batch["id"]})
        found = ds.groupby("k").map_groups(lambda group: {"n": [len(group["v"])]}).materialize()
    how = found.get_stats_summary()["stages"][-1]["how"]
    assert how.endswith("partitions, the largest of 0.8 MiB and not shared")
    assert found.take_all() == [{"n": 50_000}, {"n": 50_000}]
