from __future__ import annotations

import datetime
import decimal
import itertools
from collections import Counter
from typing import Any

import kernel_tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.data._blocks import hashing, joining

Rows = list[tuple[int | None, int | None]]


def expected_rows(left: pa.Table, right: pa.Table, names: list[str], how: str) -> Rows:
    """Pairs of rows, None beside one that is alone, by comparing each with each."""
    left_keys, right_keys = kernel_tables.keys_of(left, names), kernel_tables.keys_of(right, names)
    found: Rows = []
    alone = set(range(len(right_keys)))
    for row, key in enumerate(left_keys):
        partners = [other for other, other_key in enumerate(right_keys) if key == other_key and None not in key]
        alone -= set(partners)
        found += [(row, partner) for partner in partners]
        if not partners and how in ("left_outer", "full_outer"):
            found.append((row, None))
    if how in ("right_outer", "full_outer"):
        found += [(None, row) for row in sorted(alone)]
    return found


def at(table: pa.Table, name: str, row: int | None) -> Any:
    return None if row is None else kernel_tables.normal(table.column(name)[row].as_py())


@st.composite
def pairs_of_tables(draw: st.DrawFn, pools: list[str]) -> tuple[pa.Table, pa.Table]:
    """With the same types of `a` and `b`."""
    chosen = [draw(st.sampled_from(pools)) for _ in "ab"]
    found = []
    for side in ("left", "right"):
        count = draw(st.integers(0, 10))
        keys = {name: draw(kernel_tables.columns(pool, count)) for name, pool in zip("ab", chosen, strict=True)}
        payload = pa.array([[{"side": side, "row": row}] for row in range(count)], PAYLOAD)
        found.append(pa.table({**keys, "row": pa.array(range(count), pa.int64()), "payload": payload}))
    return found[0], found[1]


PAYLOAD = pa.list_(pa.struct([("side", pa.string()), ("row", pa.int64())]))


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(
    left=st.lists(st.sampled_from([None, 1, 2, 3, 4]), max_size=8),
    right=st.lists(st.sampled_from([None, 1, 2, 3, 5]), max_size=8),
    cuts=st.lists(st.integers(0, 8), max_size=3),
)
def test_full_outer_join_by_parts_of_one_side_has_the_rows_of_the_whole(
    left: list[int | None], right: list[int | None], cuts: list[int]
) -> None:
    sides = [
        pa.table({"k": pa.array(some, pa.int64()), name: range(len(some))})
        for name, some in (("l", left), ("r", right))
    ]
    expected = joining.join(*sides, "full_outer", ["k"])
    for divided, share, rest in ((0, "left_outer", "right_anti"), (1, "right_outer", "left_anti")):
        bounds = [0, *sorted(min(cut, sides[divided].num_rows) for cut in cuts), sides[divided].num_rows]
        found = []
        for low, high in itertools.pairwise(bounds):
            some = [*sides]
            some[divided] = sides[divided].slice(low, high - low)
            found += joining.joined(*some, "full_outer", ["k"], rows_max=2, part=share)
        found += joining.joined(*sides, "full_outer", ["k"], rows_max=2, part=rest)
        whole = pa.concat_tables(found)
        assert whole.schema == expected.schema
        if divided == 0:
            assert whole.to_pylist() == expected.to_pylist()
        assert Counter(map(str, whole.to_pylist())) == Counter(map(str, expected.to_pylist()))


OUTER = ["inner", "left_outer", "right_outer", "full_outer"]
ONE_SIDED = ["left_semi", "right_semi", "left_anti", "right_anti"]


@pytest.mark.parametrize("how", OUTER)
@kernel_tables.checked(30)
@given(tables=pairs_of_tables(list(kernel_tables.POOLS)), count=st.integers(1, 2))
def test_rows_with_equal_keys_come_side_by_side(
    how: joining.How, tables: tuple[pa.Table, pa.Table], count: int
) -> None:
    left, right = tables
    names = ["a", "b"][:count]
    found = joining.join(left, right, how, names, left_suffix="_l", right_suffix="_r")
    rows = expected_rows(left, right, names, how)
    assert list(zip(found.column("row_l").to_pylist(), found.column("row_r").to_pylist(), strict=True)) == rows
    for name in names:
        keys = [at(left, name, row) if row is not None else at(right, name, other) for row, other in rows]
        assert [kernel_tables.normal(value) for value in found.column(name).to_pylist()] == keys
    for table, suffix, index in ((left, "_l", 0), (right, "_r", 1)):
        values = [at(table, "payload", pair[index]) for pair in rows]
        assert [kernel_tables.normal(value) for value in found.column("payload" + suffix).to_pylist()] == values
    schema = joining.joined_schema(left.schema, right.schema, how, names, left_suffix="_l", right_suffix="_r")
    assert found.schema == schema


@pytest.mark.parametrize("how", ONE_SIDED)
@kernel_tables.checked(30)
@given(tables=pairs_of_tables(list(kernel_tables.POOLS)))
def test_rows_of_one_side_stay_by_whether_they_have_a_partner(
    how: joining.How, tables: tuple[pa.Table, pa.Table]
) -> None:
    left, right = tables
    pairs = expected_rows(left, right, ["a"], "inner")
    index = 0 if how.startswith("left") else 1
    table = tables[index]
    has_partner = {pair[index] for pair in pairs}
    rows = [row for row in range(table.num_rows) if (row in has_partner) == how.endswith("_semi")]
    found = joining.join(left, right, how, ["a"])
    assert found.column("row").to_pylist() == rows
    assert found.schema == table.schema
    assert kernel_tables.rows(found) == kernel_tables.rows(table.take(pa.array(rows, pa.int64())))


@pytest.mark.parametrize("how", OUTER)
def test_duckdb_has_the_same_rows(how: joining.How) -> None:
    duckdb = pytest.importorskip("duckdb")
    chance = np.random.default_rng(2)
    keys = chance.integers(-50, 50, 900)
    left = pa.table(
        {"k": pa.array(keys[:500], mask=keys[:500] == 7), "t": [f"t{key}" for key in keys[:500]], "x": range(500)}
    )
    right = pa.table({"k": pa.array(keys[500:] * 2, pa.int32()), "y": range(400)})
    found = joining.join(left, right, how, ["k"])
    with duckdb.connect() as connection:
        connection.register("l", left)
        connection.register("r", right)
        kind = how.replace("_", " ")
        query = f"select coalesce(l.k, r.k), t, x, y from l {kind} join r on l.k = r.k order by x nulls last, y"
        assert list(zip(*found.to_pydict().values(), strict=True)) == connection.execute(query).fetchall()


def test_a_frequent_key_costs_a_half_join_nothing() -> None:
    """Each of 20,000 rows has 20,000 partners; there must not be a list of all pairs."""
    table = pa.table({"k": np.zeros(20_000, np.int64)})
    assert joining.join(table, table, "left_semi", ["k"]).num_rows == 20_000
    assert joining.join(table, table, "right_anti", ["k"]).num_rows == 0


D = decimal.Decimal
NOON = datetime.datetime(2024, 1, 1, 12)
UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    ("left", "right", "kind"),
    [
        (pa.array([1], pa.int8()), pa.array([1], pa.int64()), pa.int64()),
        (pa.array([1], pa.uint8()), pa.array([1], pa.int8()), pa.int16()),
        (pa.array([1], pa.uint32()), pa.array([1], pa.int16()), pa.int64()),
        (pa.array([1], pa.uint64()), pa.array([1], pa.int64()), pa.decimal128(20, 0)),
        (pa.array([1], pa.int64()), pa.array([1.0], pa.float32()), pa.float64()),
        (pa.array([0.5], pa.float32()), pa.array([0.5]), pa.float64()),
        (pa.array([D("1.5")], pa.decimal128(5, 1)), pa.array([D("1.50")], pa.decimal128(12, 2)), pa.decimal128(12, 2)),
        (pa.array([D("7.00")], pa.decimal128(38, 2)), pa.array([7], pa.int32()), pa.decimal128(38, 2)),
        (pa.array(["x"]), pa.array(["x"], pa.large_string()), pa.large_string()),
        (pa.array(["x"]).dictionary_encode(), pa.array(["x"]), pa.string()),
        (pa.array([b"x"], pa.binary(1)), pa.array([b"x"]), pa.large_binary()),
        (pa.array([NOON], pa.timestamp("s")), pa.array([NOON], pa.timestamp("ns")), pa.timestamp("ns")),
        (
            pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("s", "UTC")),
            pa.array([NOON.replace(tzinfo=UTC)], pa.timestamp("s", "Asia/Tokyo")),
            pa.timestamp("s", "UTC"),
        ),
        (pa.array([NOON.date()]), pa.array([NOON.replace(hour=0)], pa.timestamp("ms")), pa.timestamp("ms")),
        (pa.array([NOON.date()]), pa.array([NOON.date()], pa.date64()), pa.date32()),
        (pa.array([NOON.time()], pa.time32("s")), pa.array([NOON.time()], pa.time64("us")), pa.time64("us")),
        (pa.array([3], pa.duration("s")), pa.array([3000], pa.duration("ms")), pa.duration("ms")),
    ],
)
def test_equal_keys_of_different_types_meet(left: pa.Array, right: pa.Array, kind: pa.DataType) -> None:
    for one, other in ((left, right), (right, left)):
        tables = pa.table({"k": one, "l": [1]}), pa.table({"k": other, "r": [2]})
        found = joining.join(*tables, "inner", ["k"])
        assert found.select(["l", "r"]).to_pylist() == [{"l": 1, "r": 2}]
        if not pa.types.is_timestamp(kind) or kind.tz is None:  # of zones that of the left side stays
            assert found.schema.field("k").type == kind
        assert hashing.hash_rows(tables[0], ["k"]) == hashing.hash_rows(tables[1], ["k"])
        assert joining.join(*tables, "left_anti", ["k"]).num_rows == 0


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pa.int64(), pa.string()),
        (pa.string(), pa.binary()),
        (pa.bool_(), pa.int8()),
        (pa.float64(), pa.decimal128(5, 2)),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us"), pa.int64()),
        (pa.list_(pa.int32()), pa.list_(pa.int64())),
    ],
)
def test_keys_that_cannot_be_equal_are_refused_with_both_types(left: pa.DataType, right: pa.DataType) -> None:
    with pytest.raises(TypeError) as caught:
        joining.joined_schema(pa.schema([("k", left)]), pa.schema([("m", right)]), "inner", ["k"], ["m"])
    assert str(caught.value) == (
        f"the keys 'k' (left, {left}) and 'm' (right, {right}) cannot be equal; cast one to the type of the other first"
    )


def test_a_key_that_a_common_type_does_not_hold_is_an_error_and_not_another_key() -> None:
    left, right = pa.table({"k": [2**53 + 1]}), pa.table({"k": [float(2**53)], "v": [1]})
    with pytest.raises(ValueError, match=r"the key 'k' \(int64\) cannot be compared as double"):
        joining.join(left, right, "inner", ["k"])


def test_keys_may_have_different_names_and_only_the_left_one_stays() -> None:
    left, right = pa.table({"id": [1, 2], "v": ["a", "b"]}), pa.table({"key": [2, 3], "w": ["x", "y"]})
    assert joining.join(left, right, "full_outer", ["id"], ["key"]).to_pylist() == [
        {"id": 1, "v": "a", "w": None},
        {"id": 2, "v": "b", "w": "x"},
        {"id": 3, "v": None, "w": "y"},
    ]


def test_a_name_on_both_sides_needs_a_suffix() -> None:
    table = pa.table({"k": [1], "v": [1]})
    with pytest.raises(
        ValueError, match=r"both sides of the join have columns \['v'\]; give left_suffix or right_suffix"
    ):
        joining.join(table, table, "inner", ["k"])
    assert joining.join(table, table, "inner", ["k"], right_suffix="_2").column_names == ["k", "v", "v_2"]


def test_tensors_come_along() -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8.0).reshape(2, 2, 2))
    found = joining.join(pa.table({"k": [1, 2, 3]}), pa.table({"k": [3, 1], "t": tensors}), "left_outer", ["k"])
    assert found.column("t").type == tensors.type
    assert [None if row is None else row for row in found.column("t").is_valid().to_pylist()] == [True, False, True]


def test_tensors_can_be_keys() -> None:
    left, right = (
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(rows)) for rows in ([[1, 2], [3, 4]], [[3, 4], [5, 6]])
    )
    found = joining.join(pa.table({"k": left, "l": [1, 2]}), pa.table({"k": right, "r": [3, 4]}), "full_outer", ["k"])
    assert found.column("k").type == left.type
    assert found.column("k").combine_chunks().to_numpy_ndarray().tolist() == [[1, 2], [3, 4], [5, 6]]
    assert found.select(["l", "r"]).to_pydict() == {"l": [1, 2, None], "r": [None, 3, 4]}


def test_wrong_arguments_are_refused() -> None:
    table = pa.table({"key": [1]})
    with pytest.raises(ValueError, match="how must be one of 'inner', 'left_outer'"):
        joining.join(table, table, "outer", ["key"])  # type: ignore[arg-type] # that is the point
    with pytest.raises(KeyError, match="the key of the right side 'kye' is not a column; did you mean 'key'"):
        joining.join(table, table, "inner", ["key"], ["kye"])
    with pytest.raises(ValueError, match="as many on the left as on the right"):
        joining.join(table, table, "inner", ["key"], [])


@pytest.mark.parametrize("how", joining.HOWS)
@kernel_tables.checked(15)
@given(tables=pairs_of_tables(["int64", "string"]), rows_max=st.integers(1, 5))
def test_tables_of_some_rows_make_the_join(how: joining.How, tables: tuple[pa.Table, pa.Table], rows_max: int) -> None:
    whole = joining.join(*tables, how, ["a"], right_suffix="_r")
    several = [*joining.joined(*tables, how, ["a"], right_suffix="_r", rows_max=rows_max)]
    assert pa.concat_tables(several).combine_chunks().equals(whole.combine_chunks())
    if how in ("inner", "left_outer"):
        of_one_row = max(1, tables[1].num_rows)
        assert max(table.num_rows for table in several) <= max(rows_max, of_one_row)


def test_join_of_one_key_with_itself_makes_pairs_as_they_are_asked_for() -> None:
    left, right = pa.table({"k": [7] * 100_000}), pa.table({"k": [7] * 100_000, "x": range(100_000)})
    first = next(joining.joined(left, right, "inner", ["k"], rows_max=200_000))  # of ten thousand million
    assert first.num_rows == 200_000
    assert first["x"].to_numpy().tolist() == [*range(100_000)] * 2


@pytest.mark.parametrize("how", joining.HOWS)
def test_a_null_of_a_dictionary_is_a_null_key(how: joining.How) -> None:
    """The index is not null, but what it stands for is."""
    encoded = pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int8()), pa.array(["a", None]))
    plain = pa.array([None, "a"])
    found = [
        joining.join(pa.table({"k": one, "x": [0, 1]}), pa.table({"k": one, "y": [2, 3]}), how, ["k"])
        for one in (encoded, plain)
    ]
    assert found[0].to_pylist() == found[1].to_pylist()
