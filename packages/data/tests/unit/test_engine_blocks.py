"""How a task divides what it makes, and what is sent of a block."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import pyarrow as pa
import pytest

from umbel.data._engine import blocks_out, heap, stages, work

MIB = 1 << 20


def numbers(count: int, first: int = 0) -> pa.Table:
    return pa.table({"n": pa.array(range(first, first + count), pa.int64())})


def values(tables: list[pa.Table]) -> list[int]:
    return [value for table in tables for value in table["n"].to_pylist()]


def test_blocks_grow_from_small_to_the_wanted_size() -> None:
    tables = [numbers(MIB // 16) for _ in range(20)]  # half a MiB each
    sizes = [table.nbytes / MIB for table in blocks_out.blocks(tables, 2 * MIB)]
    assert sizes == [1.0, 2.0, 2.0, 2.0, 2.0, 1.0]


def test_rows_stay_in_order_and_large_tables_are_divided() -> None:
    made = list(blocks_out.blocks([numbers(1_000), numbers(7, 1_000)], block_bytes=800))
    assert values(made) == list(range(1_007))
    assert [table.num_rows for table in made] == [100] * 10 + [7]


def test_tables_of_two_schemas_are_not_put_together() -> None:
    other = pa.table({"n": pa.array([1.5])})
    made = list(blocks_out.blocks([numbers(2), other, numbers(1, 2)], MIB))
    assert [table.schema.field("n").type for table in made] == [pa.int64(), pa.float64(), pa.int64()]


@pytest.mark.parametrize("tables", [[numbers(0)], [numbers(0), numbers(0)]])
def test_no_rows_are_one_block_that_has_the_schema(tables: list[pa.Table]) -> None:
    (made,) = blocks_out.blocks(tables, MIB)
    assert made.schema == numbers(0).schema
    assert made.num_rows == 0


def test_nothing_is_no_block_and_no_empty_one_follows_rows() -> None:
    assert list(blocks_out.blocks([], MIB)) == []
    assert values(list(blocks_out.blocks([numbers(0), numbers(3), numbers(0)], MIB))) == [0, 1, 2]
    assert [table.num_rows for table in blocks_out.blocks([numbers(MIB // 8), numbers(0)], MIB)] == [MIB // 8]


def test_small_tables_are_merged_and_large_ones_are_not() -> None:
    large = numbers(20_000)
    made = list(blocks_out.merged([numbers(1), numbers(2, 1), large, numbers(1), pa.table({"n": ["a"]})]))
    assert [table.num_rows for table in made] == [3, 20_000, 1, 1]
    assert values(made)[:3] == [0, 1, 2]


def test_slice_is_sent_without_what_it_shares() -> None:
    table = numbers(MIB)
    part = table.slice(10, 5)
    made = blocks_out.compact(part)
    assert made.equals(part)
    assert len(pickle.dumps(made)) < 2_000
    assert blocks_out.compact(table) is table


@pytest.mark.parametrize("size", [3, 20_000])
def test_blocks_travel_without_what_they_share(size: int) -> None:
    """A dataset of slices, as it goes to the actor that divides it among consumers, was as large as that many whole tables."""
    table = numbers(MIB)
    made = [stages.Block(table.slice(at, size), stages.Metadata(size, 8 * size, table.schema)) for at in range(10)]
    data = pickle.dumps(made)
    assert len(data) < 10 * (8 * size + 2_000)
    for block, found in zip(made, pickle.loads(data), strict=True):
        assert found.value.equals(block.value)
        assert found.metadata == block.metadata


@pytest.mark.parametrize("table", [numbers(3), numbers(100_000), numbers(MIB).slice(5, 20_000), numbers(0)])
def test_what_is_packed_is_read_back(table: pa.Table) -> None:
    assert blocks_out.unpack(blocks_out.pack(table)).equals(table)


def shards(tables: list[pa.Table], skipped: int = 0) -> list[Any]:
    with contextlib.closing(heap.Heap()) as taken:
        return [*work._shards(iter(tables), skipped, taken)]


def test_small_shards_of_a_task_come_together_and_large_ones_by_themselves() -> None:
    sizes = [1, 2_000, 3, 0, 5_000]
    tables = [pa.table({"n": range(size)}) for size in sizes]
    for skipped in range(3):
        items = shards(tables, skipped)
        found: list[pa.Table] = []
        for item in items:
            if isinstance(item, pa.Table):
                found.append(item)
            elif item[0] == work.SHARDS:
                found += [blocks_out.from_bytes(packed) for _, _, packed, _ in item[1]]
                assert [(rows, size) for rows, size, _, _ in item[1]] == [
                    (one.num_rows, one.nbytes) for one in found[-len(item[1]) :]
                ]
            elif item[4] is not None:
                found.append(blocks_out.from_bytes(item[4]))
        assert found == tables[skipped:]
    unlike = [pa.table({"n": [1]}), pa.table({"n": [2]}), pa.table({"n": ["x"]})]
    ((_, few),) = shards(unlike)
    assert [told for *_, told in few] == [unlike[0].schema, None, unlike[2].schema]
    assert [item[0] for item in shards(tables)] == [
        work.SHARDS, work.BLOCK, work.SHARDS, work.BLOCK,
    ]  # fmt: skip
