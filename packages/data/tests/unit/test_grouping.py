from __future__ import annotations

from typing import Any

import kernel_tables
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.data import aggregate
from umbel.data._blocks import grouping


def in_tree(whole: grouping.Grouping, table: pa.Table, cuts: list[int]) -> pa.Table:
    """Aggregated in three blocks, of which two are combined first."""
    first, second = sorted(cuts)
    blocks = [table.slice(0, first), table.slice(first, second - first), table.slice(second)]
    partials = [whole.partial(block) for block in blocks]
    return whole.finish(whole.combine([whole.combine(partials[:2]), partials[2]]))


@kernel_tables.checked(60)
@given(kernel_tables.tables(kernel_tables.SORTABLE), st.integers(1, 2))
def test_groups_come_in_the_order_of_their_keys_with_their_rows_in_order(table: pa.Table, count: int) -> None:
    names = ["a", "b"][:count]
    found = list(grouping.groups(table, names))
    expected: dict[Any, list[int]] = {}
    keys = kernel_tables.keys_of(table, names)
    for row in kernel_tables.sorted_rows(table, names, [False] * count):
        expected.setdefault(keys[row], []).append(row)
    assert [(kernel_tables.normal(key), part.column("row").to_pylist()) for key, part in found] == list(
        expected.items()
    )
    for _, part in found:
        assert kernel_tables.rows(part) == kernel_tables.rows(table.take(part.column("row")))


@kernel_tables.checked(40)
@given(kernel_tables.tables(["list", "struct", "nested", "map", "int64"]))
def test_keys_without_order_come_by_first_appearance(table: pa.Table) -> None:
    table = table.set_column(0, "a", pa.array([[row % 3] for row in range(table.num_rows)], pa.list_(pa.int64())))
    names = ["a", "b"]
    keys = kernel_tables.keys_of(table, names)
    expected = [keys.count(key) for key in dict.fromkeys(keys)]
    assert [part.num_rows for _, part in grouping.groups(table, names)] == expected
    counts = in_tree(grouping.Grouping(names, [aggregate.Count()]), table, [2, 5])
    assert counts.column("count()").to_pylist() == expected
    assert kernel_tables.keys_of(counts, names) == list(dict.fromkeys(keys))


def test_groups_that_lie_in_order_are_slices_of_the_table_itself() -> None:
    table = pa.table({"k": [1, 1, 2], "v": [5, 6, 7]})
    (first, one), (second, two) = grouping.groups(table, ["k"])
    assert (first, second) == ((1,), (2,))
    own = table.column("v").chunk(0).buffers()[1].address
    assert [part.column("v").chunk(0).buffers()[1].address for part in (one, two)] == [own, own]


def test_all_rows_are_one_group_without_keys() -> None:
    table = pa.table({"v": [5, 6]})
    assert list(grouping.groups(table, [])) == [((), table)]
    assert list(grouping.groups(table.slice(0, 0), [])) == []


@kernel_tables.checked(60)
@given(kernel_tables.tables(list(kernel_tables.POOLS)), st.sampled_from(["first", "last", "any"]))
def test_one_row_of_each_key_is_kept(table: pa.Table, keep: grouping.Keep) -> None:
    keys = kernel_tables.keys_of(table, ["a", "b"])
    if keep == "last":
        expected = [row for row, key in enumerate(keys) if key not in keys[row + 1 :]]
    else:
        expected = [row for row, key in enumerate(keys) if key not in keys[:row]]
    found = grouping.distinct(table, ["a", "b"], keep=keep)
    assert found.column("row").to_pylist() == expected
    assert kernel_tables.rows(found) == kernel_tables.rows(table.take(found.column("row")))
    whole = grouping.distinct(table.select(["a", "b"]))
    assert kernel_tables.rows(whole) == list(dict.fromkeys(keys))


def test_distinct_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="keep must be one of 'first', 'last', 'any', got 'none'"):
        grouping.distinct(pa.table({"a": [1]}), keep="none")  # type: ignore[arg-type] # that is the point


def test_names_that_are_taken_get_a_number() -> None:
    whole = grouping.Grouping(
        ["k"], [aggregate.Sum("v"), aggregate.Sum("v"), aggregate.Count(alias_name="k"), aggregate.Sum("v")]
    )
    found = whole.whole(pa.table({"k": [1], "v": [2]}))
    assert found.to_pylist() == [{"k": 1, "sum(v)": 2, "sum(v)_2": 2, "k_2": 1, "sum(v)_3": 2}]


def test_no_keys_make_one_row_even_of_none() -> None:
    whole = grouping.Grouping([], [aggregate.Count(), aggregate.Sum("v"), aggregate.Min("v"), aggregate.Unique("v")])
    empty = pa.table({"v": pa.array([], pa.int32())})
    expected = [{"count()": 0, "sum(v)": None, "min(v)": None, "unique(v)": []}]
    assert whole.whole(empty).to_pylist() == expected
    assert whole.finish(whole.combine([whole.partial(empty), whole.partial(empty)])).to_pylist() == expected


def test_keys_without_rows_make_none() -> None:
    whole = grouping.Grouping(["k"], [aggregate.Sum("v")])
    found = whole.whole(pa.table({"k": pa.array([], pa.string()), "v": pa.array([], pa.float32())}))
    assert found.schema == pa.schema([("k", pa.string()), ("sum(v)", pa.float64())])
    assert found.num_rows == 0


def test_the_schema_is_known_before_the_rows_are() -> None:
    schema = pa.schema([("k", pa.string()), ("v", pa.int32()), ("t", pa.timestamp("us"))])
    whole = grouping.Grouping(
        ["k"], [aggregate.Sum("v"), aggregate.Mean("v"), aggregate.Max("t"), aggregate.AsList("t")]
    )
    found = whole.schema(schema)
    assert found is not None
    assert found.types == [pa.string(), pa.int64(), pa.float64(), pa.timestamp("us"), pa.list_(pa.timestamp("us"))]
    rows = pa.table({"k": ["x"], "v": pa.array([1], pa.int32()), "t": pa.array([0], pa.timestamp("us"))})
    assert whole.whole(rows).schema.types == found.types


def test_a_schema_that_does_not_fit_is_refused_with_the_column() -> None:
    schema = pa.schema([("key", pa.string()), ("value", pa.string())])
    with pytest.raises(KeyError, match="'kye' is not a column; did you mean 'key'"):
        grouping.Grouping(["kye"], [aggregate.Count()]).schema(schema)
    with pytest.raises(KeyError, match=r"sum\(valu\): the column 'valu' is not a column; did you mean 'value'"):
        grouping.Grouping(["key"], [aggregate.Sum("valu")]).schema(schema)
    with pytest.raises(TypeError, match=r"sum\(value\): column 'value' has type string; it must be a number"):
        grouping.Grouping(["key"], [aggregate.Sum("value")]).schema(schema)


def test_which_columns_are_read_is_known_unless_a_function_may_read_any() -> None:
    assert grouping.Grouping(["k"], [aggregate.Sum("v"), aggregate.Count(), aggregate.Max("v")]).input_columns() == (
        "k",
        "v",
    )
    own = aggregate.AggregateFn(lambda key: 0, lambda a, b: a + b, "n", accumulate_row=lambda a, row: a + 1)
    assert grouping.Grouping(["k"], [own]).input_columns() is None


def test_what_is_no_aggregation_is_refused() -> None:
    with pytest.raises(TypeError, match="must be an AggregateFn"):
        grouping.Grouping(["k"], [sum])  # type: ignore[list-item] # that is the point
    with pytest.raises(ValueError, match="nothing to aggregate"):
        grouping.Grouping([], [])
    with pytest.raises(ValueError, match="a column can be a key once"):
        grouping.Grouping(["k", "k"], [])


def test_keys_alone_are_the_distinct_keys() -> None:
    whole = grouping.Grouping(["k"], [])
    assert in_tree(whole, pa.table({"k": [3, 1, 3, None, 1]}), [1, 3]).to_pydict() == {"k": [1, 3, None]}


def test_blocks_whose_integers_differ_in_width_combine() -> None:
    whole = grouping.Grouping(["k"], [aggregate.Sum("v"), aggregate.Min("v")])
    narrow = pa.table({"k": pa.array([1], pa.int32()), "v": pa.array([5], pa.int16())})
    wide = pa.table({"k": pa.array([1], pa.int64()), "v": pa.array([7], pa.int64())})
    assert whole.finish(whole.combine([whole.partial(narrow), whole.partial(wide)])).to_pylist() == [
        {"k": 1, "sum(v)": 12, "min(v)": 5}
    ]
