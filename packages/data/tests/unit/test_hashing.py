from __future__ import annotations

import datetime
import decimal
from typing import Any

import kernel_tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.data._blocks import columns, factoring, hashing


@kernel_tables.checked(70)
@given(kernel_tables.tables(list(kernel_tables.POOLS)))
def test_rows_have_equal_hashes_where_their_keys_are_equal(table: pa.Table) -> None:
    for names in (["a"], ["a", "b"]):
        keys = kernel_tables.keys_of(table, names)
        hashes = hashing.hash_rows(table, names).tolist()
        assert len(set(zip(keys, hashes, strict=True))) == len(set(keys)) == len(set(hashes))


@kernel_tables.checked(70)
@given(kernel_tables.tables(list(kernel_tables.POOLS)))
def test_rows_have_equal_numbers_where_their_keys_are_equal(table: pa.Table) -> None:
    for names in ([], ["a"], ["a", "b"]):
        keys = kernel_tables.keys_of(table, names)
        found = factoring.factors([columns.flat(table.column(name)) for name in names], table.num_rows)
        assert len(set(zip(keys, found.ids.tolist(), strict=True))) == len(set(keys)) == found.count
        assert found.ids[found.first].tolist() == list(range(found.count))
        assert sorted(found.first.tolist()) == [row for row, key in enumerate(keys) if key not in keys[:row]]


GOLDEN = {
    "int": ["e220a8397b1dcdaf", "e4d971771b652c20", "6e756c6c00000001"],
    "float": ["359f43a23e021f51", "e220a8397b1dcdaf", "6e616e0000000002"],
    "text": ["986fe29a084bb6e1", "382389ed40d187f8", "1786154c896b309a"],
    "list": ["3f440ac78bd4f183", "0d1f15a6b4b693b4", "6e756c6c00000001"],
}
GOLDEN_OF_TWO = ["6fa0d1f93cb7f9ea", "10ce2f9da285cd95", "0faf8d6d408f8c9a"]
ZONED = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        (
            5,
            [
                pa.int8(),
                pa.uint8(),
                pa.int16(),
                pa.int32(),
                pa.uint32(),
                pa.int64(),
                pa.uint64(),
                pa.float32(),
                pa.float64(),
            ],
        ),
        (-5, [pa.int8(), pa.int64(), pa.float64(), pa.decimal128(5, 0), pa.decimal128(9, 4), pa.decimal256(50, 9)]),
        (decimal.Decimal("1.50"), [pa.decimal128(3, 2), pa.decimal128(38, 20), pa.decimal256(60, 40)]),
        (-(2**63), [pa.int64(), pa.float64(), pa.float32(), pa.decimal128(20, 0)]),
        (2**63, [pa.uint64(), pa.float64(), pa.float32(), pa.decimal128(20, 0), pa.decimal256(40, 10)]),
        (2**63 + 1, [pa.uint64(), pa.decimal128(20, 0), pa.decimal128(38, 3)]),
        (decimal.Decimal(10) ** 30 + 1, [pa.decimal128(38, 2), pa.decimal256(70, 30), pa.decimal128(31, 0)]),
        (300, [pa.int16(), pa.decimal128(5, -2)]),
        (1.25, [pa.float32(), pa.float64()]),
        ("text", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]),
        (b"text", [pa.binary(), pa.large_binary(), pa.binary(4)]),
        (
            ZONED,
            [
                pa.timestamp("s", "UTC"),
                pa.timestamp("ms", "UTC"),
                pa.timestamp("us", "Asia/Tokyo"),
                pa.timestamp("ns", "UTC"),
            ],
        ),
        (datetime.date(2024, 5, 1), [pa.date32(), pa.date64()]),
        ([1, 2], [pa.list_(pa.int8()), pa.large_list(pa.int64()), pa.list_(pa.float64(), 2)]),
    ],
)
def test_a_value_has_one_hash_in_every_type_that_will_hold_it(value: Any, kinds: list[pa.DataType]) -> None:
    arrays = [pa.array([float(value) if pa.types.is_floating(kind) else value], kind) for kind in kinds]
    hashes = {int(hashing.hash_arrays([array], 1)[0]) for array in arrays}
    assert len(hashes) == 1


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_zeros_are_one_key_and_nan_is_one_whatever_its_bits(kind: pa.DataType) -> None:
    array = pa.array([-0.0, 0.0, np.nan, -np.nan, None, 1.5], kind)
    ids = factoring.factors([array], 6).ids.tolist()
    hashes = hashing.hash_arrays([array], 6).tolist()
    for found in (ids, hashes):
        assert found[0] == found[1] and found[2] == found[3] and len(set(found)) == 4


def test_a_day_has_the_hash_of_its_midnight() -> None:
    day = pa.array([datetime.date(1960, 2, 3)])
    assert hashing.hash_arrays([day], 1) == hashing.hash_arrays([day.cast(pa.timestamp("ms"))], 1)


def test_hashes_are_those_of_the_first_release() -> None:
    """Machines of different versions must send equal keys to the same partition, so no hash may ever change."""
    table = pa.table(
        {
            "int": pa.array([0, -1, None]),
            "float": pa.array([0.5, -0.0, float("nan")]),
            "text": pa.array(["", "hello world", "x" * 1000]),
            "list": pa.array([[], [1], None], pa.list_(pa.int64())),
        }
    )
    found = {
        name: [f"{value:016x}" for value in hashing.hash_rows(table, [name]).tolist()] for name in table.column_names
    }
    assert found == GOLDEN
    assert [f"{value:016x}" for value in hashing.hash_rows(table, ["int", "text"]).tolist()] == GOLDEN_OF_TWO


@kernel_tables.checked(50)
@given(st.lists(st.one_of(st.none(), st.binary(max_size=40), st.binary(min_size=500, max_size=530))), st.integers(0, 3))
def test_the_hash_of_a_text_does_not_depend_on_where_it_lies(values: list[bytes | None], start: int) -> None:
    whole = pa.array(values, pa.binary())
    found = hashing.hash_arrays([whole.slice(start)], len(whole.slice(start)))
    alone = [int(hashing.hash_arrays([pa.array([value], pa.binary())], 1)[0]) for value in values[start:]]
    assert found.tolist() == alone


def test_hashes_are_spread_evenly() -> None:
    for array in (pa.array(range(40_000)), pa.array([f"key{number}" for number in range(40_000)])):
        counts = np.bincount(hashing.buckets(hashing.hash_arrays([array], len(array)), 20), minlength=20)
        assert 1_800 < counts.min() <= counts.max() < 2_200


def test_a_permutation_is_one_and_the_same_for_the_same_seed() -> None:
    first = hashing.permutation(1000, seed_parts=(1, 2))
    assert sorted(first.tolist()) == list(range(1000))
    assert first.tolist() == hashing.permutation(1000, seed_parts=(1, 2)).tolist()
    assert first.tolist() != hashing.permutation(1000, seed_parts=(2, 1)).tolist()
    assert first.tolist()[:50] != sorted(first.tolist()[:50])
    assert hashing.permutation(0, seed_parts=(-1,)).tolist() == []


def test_a_missing_key_is_named_with_what_may_have_been_meant() -> None:
    with pytest.raises(KeyError, match="'pirce' is not a column; did you mean 'price'"):
        hashing.hash_rows(pa.table({"price": [1], "size": [2]}), ["pirce"])


def test_a_type_without_equality_is_refused() -> None:
    array = pa.array([pa.MonthDayNano([1, 2, 3])])
    with pytest.raises(TypeError, match="month_day_nano_interval cannot be a key"):
        hashing.hash_arrays([array], 1)
