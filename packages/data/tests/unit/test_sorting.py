from __future__ import annotations

import kernel_tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.data._blocks import optional_polars, ordering, sorting


def order(table: pa.Table) -> list[int]:
    return table.column("row").to_pylist()


@kernel_tables.checked(90)
@given(kernel_tables.tables(kernel_tables.SORTABLE, column_count=3), st.lists(st.booleans(), min_size=3, max_size=3))
def test_rows_come_in_the_order_of_their_keys(table: pa.Table, directions: list[bool]) -> None:
    for count in (1, 2, 3):
        names = ["a", "b", "c"][:count]
        found = sorting.sort(table, names, descending=directions[:count])
        assert order(found) == kernel_tables.sorted_rows(table, names, directions[:count])
        assert found.schema == table.schema
        assert kernel_tables.rows(found) == kernel_tables.rows(table.take(found.column("row")))


@kernel_tables.checked(50)
@given(kernel_tables.tables(kernel_tables.SORTABLE), st.booleans(), st.integers(0, 14))
def test_the_top_rows_are_the_first_of_the_sorted_ones(table: pa.Table, is_descending: bool, count: int) -> None:
    found = sorting.top_k(table, count, ["a", "b"], descending=[is_descending, False])
    whole = sorting.sort(table, ["a", "b"], descending=[is_descending, False])
    assert order(found) == order(whole)[:count]


@kernel_tables.checked(40)
@given(kernel_tables.tables(kernel_tables.SORTABLE), st.integers(0, 12), st.booleans())
def test_sorted_tables_merge_to_the_sorted_whole(table: pa.Table, cut: int, is_descending: bool) -> None:
    parts = [sorting.sort(part, ["a"], descending=is_descending) for part in (table.slice(0, cut), table.slice(cut))]
    whole = sorting.sort(table, ["a"], descending=is_descending)
    assert order(sorting.merge(parts, ["a"], descending=is_descending)) == order(whole)


def test_runs_that_are_sorted_come_out_in_parts_of_the_sorted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "_PART_BYTES", 16 << 10)
    chance = np.random.default_rng(2)
    runs = [sorting.sort(pa.table({"a": chance.integers(-(2**62), 2**62, 2_000)}), ["a"]) for _ in range(5)]
    table = pa.concat_tables(runs).append_column("row", pa.array(range(10_000)))
    parts = list(sorting.sorted_parts(table, ["a"]))
    assert len(parts) == 10
    expected = sorting.sort(table, ["a"])
    assert order(pa.concat_tables(parts)) == order(expected)
    assert order(expected) == np.argsort(table["a"].to_numpy(), kind="stable").tolist()
    assert [part.num_rows for part in sorting.sorted_parts(table.slice(0, 0), ["a"])] == [0]


CASES = {
    "wide floats": lambda chance, size: [chance.normal(size=size) * 10.0 ** chance.integers(-300, 300, size)],
    "few values": lambda chance, size: [chance.integers(0, 5, size)],
    "many bits": lambda chance, size: [chance.integers(-(2**63), 2**63 - 1, size)],
    "three keys": lambda chance, size: [chance.integers(-(2**62), 2**62, size) // 2**61 * 2**61 for _ in range(3)],
    "sorted": lambda chance, size: [np.arange(size)],
}


@pytest.mark.parametrize("case", CASES)
def test_the_order_is_the_same_with_and_without_polars(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("polars")
    keys = CASES[case](np.random.default_rng(1), 5_000)
    table = pa.table({str(index): key for index, key in enumerate(keys)})
    descending = [index == 1 for index in range(len(keys))]
    codes = ordering.codes(table, table.column_names, descending)
    monkeypatch.setattr(optional_polars, "ROWS_MIN", 0)
    with_polars = ordering.argsort(codes, table.num_rows)
    monkeypatch.setattr(optional_polars, "ROWS_MIN", 10**9)
    without = ordering.argsort(codes, table.num_rows)
    signed = [-key if is_descending else key for key, is_descending in zip(keys, descending, strict=True)]
    assert with_polars.tolist() == without.tolist() == np.lexsort(signed[::-1]).tolist()


@kernel_tables.checked(30)
@given(kernel_tables.tables(["int64", "float64", "string", "decimal", "timestamp", "bool"]), st.booleans())
def test_polars_has_the_same_order(table: pa.Table, is_descending: bool) -> None:
    """Polars has NaN as the greatest number, which for descending keys comes first; apart from NaN the orders are one."""
    polars = pytest.importorskip("polars")
    if "NaN" in [value for row in kernel_tables.rows(table) for value in row]:
        return
    theirs = polars.from_arrow(table).sort("a", "b", descending=is_descending, nulls_last=True, maintain_order=True)
    assert order(sorting.sort(table, ["a", "b"], descending=is_descending)) == theirs["row"].to_list()


@kernel_tables.checked(30)
@given(kernel_tables.tables(["int64", "float64", "string", "date", "bool"], column_count=1), st.booleans())
def test_pandas_has_the_same_order(table: pa.Table, is_descending: bool) -> None:
    pytest.importorskip("pandas")
    frame = table.to_pandas()
    if table.column("a").null_count and table.schema.field("a").type == pa.float64():
        return  # pandas does not tell null from NaN
    if table.column("a").null_count and table.schema.field("a").type == pa.int64():
        return  # nor large integers beside nulls
    theirs = frame.sort_values("a", ascending=not is_descending, kind="stable")
    assert order(sorting.sort(table, ["a"], descending=is_descending)) == theirs["row"].tolist()


def test_integers_at_both_ends_stay_before_nulls() -> None:
    table = pa.table({"a": pa.array([None, 2**63 - 1, -(2**63), 0]), "row": range(4)})
    assert order(sorting.sort(table, ["a"])) == [2, 3, 1, 0]
    assert order(sorting.sort(table, ["a"], descending=True)) == [1, 3, 2, 0]


def test_a_dictionary_with_values_twice_and_null_sorts_by_what_it_stands_for() -> None:
    entries = pa.array(["b", "a", None, "b"])
    column = pa.DictionaryArray.from_arrays(pa.array([3, 2, 1, None, 0], pa.int8()), entries)
    table = pa.table({"a": column, "row": range(5)})
    assert order(sorting.sort(table, ["a"])) == [2, 0, 4, 1, 3]
    assert order(sorting.sort(table, ["a"], descending=True)) == [0, 4, 2, 1, 3]


def test_a_sample_keeps_the_order_and_depends_on_the_seed_only() -> None:
    table = pa.table({"row": range(1000)})
    found = order(sorting.sample(table, 100, seed=5))
    assert found == sorted(set(found)) and len(found) == 100
    assert found == order(sorting.sample(table, 100, seed=(5,)))
    assert found != order(sorting.sample(table, 100, seed=6))
    assert order(sorting.sample(table, 5000, seed=5)) == list(range(1000))
    assert order(sorting.sample(table, 0, seed=5)) == []


def test_boundaries_halve_and_never_repeat() -> None:
    halves = sorting.boundaries([pa.table({"k": range(100)})], ["k"], 2).keys
    assert halves.to_pydict() == {"k": [50]}
    assert sorting.boundaries([pa.table({"k": [1] * 50})], ["k"], 8).keys.to_pydict() == {"k": [1]}
    assert sorting.boundaries([pa.table({"k": pa.array([], pa.int64())})], ["k"], 8).keys.num_rows == 0


def test_rows_of_a_frequent_key_are_divided_by_their_blocks() -> None:
    samples = [pa.table({"k": [7] * 10}), pa.table({"k": [7] * 9 + [9]}), pa.table({"k": [1] * 10})]
    found = sorting.boundaries(samples, ["k"], 4, descending=False)
    assert (found.keys["k"].to_pylist(), found.blocks.tolist()) == ([1, 7, 7], [2, 0, 1])
    found = sorting.boundaries(samples, ["k"], 3, descending=True)
    assert (found.keys["k"].to_pylist(), found.blocks.tolist()) == ([7, 1], [0, 2])


def test_what_has_no_order_is_refused_by_name() -> None:
    table = pa.table({"l": [[1]]})
    with pytest.raises(TypeError, match=r"cannot sort by 'l': values of type list<.*> have no order"):
        sorting.sort(table, ["l"])
    with pytest.raises(ValueError, match="one for each of the 1 keys"):
        sorting.sort(pa.table({"a": [1]}), ["a"], descending=[True, False])
