from __future__ import annotations

from typing import Any

import kernel_tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.data._blocks import partitioning, sorting


def numbers(parts: list[pa.Table]) -> list[list[int]]:
    return [part.column("row").to_pylist() for part in parts]


@kernel_tables.checked(45)
@given(kernel_tables.tables(list(kernel_tables.POOLS)), st.integers(1, 5))
def test_equal_keys_come_into_one_partition_and_rows_keep_their_order(table: pa.Table, count: int) -> None:
    parts = partitioning.by_hash(table, ["a", "b"], count)
    assert len(parts) == count
    assert all(rows == sorted(rows) for rows in numbers(parts))
    assert sorted(row for rows in numbers(parts) for row in rows) == list(range(table.num_rows))
    places = [(key, index) for index, part in enumerate(parts) for key in kernel_tables.keys_of(part, ["a", "b"])]
    assert len(set(places)) == len({key for key, _ in places})
    for part in parts:
        assert part.schema == table.schema
        assert kernel_tables.rows(part) == kernel_tables.rows(table.take(part.column("row")))


@kernel_tables.checked(50)
@given(kernel_tables.tables(kernel_tables.SORTABLE), st.integers(1, 5), st.booleans(), st.booleans())
def test_ranges_in_turn_are_the_sorted_table(table: pa.Table, count: int, first: bool, second: bool) -> None:
    keys, descending = ["a", "b"], [first, second]
    halves = [table.slice(0, 7), table.slice(7)]
    bounds = sorting.boundaries(halves, keys, count, descending=descending)
    assert bounds.keys.num_rows < count
    sizes = [(number, half.num_rows) for number, half in enumerate(halves)]
    parts = partitioning.by_range(table, keys, bounds, descending=descending, blocks=sizes)
    assert len(parts) == bounds.keys.num_rows + 1
    one_by_one = [
        partitioning.by_range(half, keys, bounds, descending=descending, blocks=[size])
        for half, size in zip(halves, sizes, strict=True)
    ]
    for part, *shards in zip(parts, *one_by_one, strict=True):
        assert numbers([sorting.sort(pa.concat_tables(shards), keys, descending=descending)]) == numbers([part])
    together = pa.concat_tables(parts)
    whole = sorting.sort(table, keys, descending=descending)
    assert together.column("row").to_pylist() == whole.column("row").to_pylist()


def bounds_of(keys: list[Any], blocks: list[int] | None = None) -> sorting.Boundaries:
    return sorting.Boundaries(pa.table({"k": keys}), np.array(blocks or [0] * len(keys)))


def test_a_row_equal_to_a_boundary_comes_behind_it() -> None:
    table = pa.table({"k": [1, 5, 9, None, 5], "row": [0, 1, 2, 3, 4]})
    assert numbers(partitioning.by_range(table, ["k"], bounds_of([5, 9]))) == [[0], [1, 4], [2, 3]]
    assert numbers(partitioning.by_range(table, ["k"], bounds_of([5]), descending=True)) == [[2], [1, 4, 0, 3]]


def test_rows_of_a_boundarys_key_that_are_of_a_block_before_come_in_front_of_it() -> None:
    table = pa.table({"k": [5, 5, 5, 1, 5], "row": [0, 1, 2, 3, 4]})
    bounds = bounds_of([5, 5], [4, 6])
    blocks = [(3, 1), (4, 2), (5, 0), (6, 2)]
    assert numbers(partitioning.by_range(table, ["k"], bounds, blocks=blocks)) == [[3, 0], [1, 2], [4]]
    assert numbers(partitioning.by_range(table, ["k"], bounds, blocks=[(7, 5)])) == [[3], [], [0, 1, 2, 4]]
    assert numbers(partitioning.by_range(table, ["k"], bounds, blocks=[(1, 5)])) == [[3, 0, 1, 2, 4], [], []]


def test_chance_is_fair_and_the_same_for_the_same_seed() -> None:
    table = pa.table({"row": range(3000)})
    parts = partitioning.at_random(table, 3, seed=7, blocks=[(0, 3000)])
    assert all(900 < part.num_rows < 1100 for part in parts)
    assert numbers(parts) == numbers(partitioning.at_random(table, 3, seed=7, blocks=[(0, 3000)]))
    assert numbers(parts) != numbers(partitioning.at_random(table, 3, seed=7, blocks=[(1, 3000)]))
    assert numbers(parts) != numbers(partitioning.at_random(table, 3, seed=8, blocks=[(0, 3000)]))


def test_chance_does_not_depend_on_which_blocks_come_together() -> None:
    """They did where tasks got as much as a small store had room for."""
    table = pa.table({"row": range(60)})
    blocks = [(4, 10), (5, 0), (6, 25), (7, 25)]
    for divide in (partitioning.at_random, partitioning.whole_blocks_at_random):
        together = numbers(divide(table, 4, seed=7, blocks=blocks))
        found: list[list[int]] = [[], [], [], []]
        at = 0
        for number, row_count in blocks:
            some = divide(table.slice(at, row_count), 4, seed=7, blocks=[(number, row_count)])
            found = [[*rows, *more] for rows, more in zip(found, numbers(some), strict=True)]
            at += row_count
        assert together == found
        assert sorted(value for part in together for value in part) == [*range(60)]


def test_blocks_go_whole_where_chance_is_of_blocks() -> None:
    table = pa.table({"row": range(400)})
    parts = numbers(partitioning.whole_blocks_at_random(table, 4, seed=7, blocks=[(at, 4) for at in range(100)]))
    assert all(40 < len(rows) < 160 for rows in parts)
    assert all(rows[at : at + 4] == [*range(rows[at], rows[at] + 4)] for rows in parts for at in range(0, len(rows), 4))


def test_rows_are_dealt_in_turn() -> None:
    table = pa.table({"row": range(5)})
    assert numbers(partitioning.round_robin(table, 2)) == [[0, 2, 4], [1, 3]]
    assert numbers(partitioning.round_robin(table, 3, start=2)) == [[1, 4], [2], [0, 3]]


def test_large_partitions_are_gathered_one_by_one() -> None:
    table = pa.table({"row": range(100_000)})
    parts = partitioning.round_robin(table, 4)
    before = pa.total_allocated_bytes()
    first = next(iter(parts))
    assert first.column("row").to_pylist() == list(range(0, 100_000, 4))
    assert first.get_total_buffer_size() == table.nbytes // 4
    assert pa.total_allocated_bytes() - before < table.nbytes // 2


def test_small_partitions_are_slices_of_one_gathered_table() -> None:
    parts = partitioning.round_robin(pa.table({"row": range(64)}), 4)
    addresses = {part.column("row").chunk(0).buffers()[1].address for part in parts}
    assert len(addresses) == 1


def test_one_partition_is_the_table_itself() -> None:
    table = pa.table({"row": range(4)})
    assert partitioning.by_hash(table, ["row"], 1) == [table]


def test_tensors_and_tables_without_columns_are_divided_too() -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(__import__("numpy").arange(12.0).reshape(3, 2, 2))
    parts = partitioning.round_robin(pa.table({"t": tensors}), 2)
    assert parts[1].column("t").combine_chunks().to_numpy_ndarray().tolist() == [[[4.0, 5.0], [6.0, 7.0]]]
    empty = pa.table({"row": range(5)}).select([])
    assert [part.num_rows for part in partitioning.round_robin(empty, 2)] == [3, 2]


def test_boundaries_of_another_type_are_unified_or_refused() -> None:
    table = pa.table({"k": pa.array([1, 2, 3], pa.int8()), "row": [0, 1, 2]})
    assert numbers(partitioning.by_range(table, ["k"], bounds_of([2]))) == [[0], [1, 2]]
    with pytest.raises(ValueError, match="no type holds the values of both"):
        partitioning.by_range(table, ["k"], bounds_of(["x"]))
