"""Joins of datasets give the same rows however they are carried out: whole, divided, or with one side given to every task."""

from __future__ import annotations

import datetime
import decimal
import itertools
import pickle
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel import data
from umbel.data import aggregate
from umbel.data._blocks import asof
from umbel.data._engine import exchanges, local, stages
from umbel.data._plan import logical, physical, rules
from umbel.data.expressions import col

HOWS = {
    "inner": "SELECT l.row, r.row FROM l JOIN r ON {on}",
    "left": "SELECT l.row, r.row FROM l LEFT JOIN r ON {on}",
    "right": "SELECT l.row, r.row FROM l RIGHT JOIN r ON {on}",
    "outer": "SELECT l.row, r.row FROM l FULL JOIN r ON {on}",
    "semi": "SELECT l.row FROM l WHERE EXISTS (SELECT 1 FROM r WHERE {on})",
    "anti": "SELECT l.row FROM l WHERE NOT EXISTS (SELECT 1 FROM r WHERE {on})",
    "right_semi": "SELECT r.row FROM r WHERE EXISTS (SELECT 1 FROM l WHERE {on})",
    "right_anti": "SELECT r.row FROM r WHERE NOT EXISTS (SELECT 1 FROM l WHERE {on})",
}
DAY = datetime.datetime(2024, 2, 28, 23, 59)
POOLS: dict[str, tuple[pa.DataType, pa.DataType, list[Any]]] = {  # the types of both sides, and the values
    "integers": (pa.int32(), pa.int64(), [-1, 0, 1, 2, 2**31 - 1]),
    "texts": (pa.string(), pa.large_string(), ["", "a", "ä", "aa"]),
    "words": (pa.dictionary(pa.int8(), pa.string()), pa.string(), ["x", "y", ""]),
    "prices": (pa.decimal128(9, 2), pa.decimal128(12, 4), [decimal.Decimal(one) for one in ("-1.5", "0", "2.25")]),
    "times": (pa.timestamp("ms"), pa.timestamp("us"), [DAY + datetime.timedelta(minutes=one) for one in (0, 1, 2)]),
    "zoned": (pa.timestamp("us", "UTC"), pa.timestamp("us", "Asia/Tokyo"), [DAY.replace(tzinfo=datetime.UTC)]),
    "dates": (pa.date32(), pa.date32(), [DAY.date(), datetime.date(1969, 12, 31)]),
}


@st.composite
def sides(draw: st.DrawFn) -> tuple[list[pa.Table], list[pa.Table]]:
    """Blocks of both, which may be empty or have no rows, with keys `a` and `b`, and each row's number."""
    chosen = [POOLS[draw(st.sampled_from(sorted(POOLS)))] for _ in "ab"]
    found = []
    for side in (0, 1):
        row_count = draw(st.sampled_from([0, 1, 4, 12, 30]))
        columns = {
            name: pa.array(
                draw(st.lists(st.sampled_from([None, *pool[2]]), min_size=row_count, max_size=row_count)),
                pool[side],
            )
            for name, pool in zip("ab", chosen, strict=True)
        }
        table = pa.table({**columns, "row": pa.array(range(row_count), pa.int64())})
        cuts = sorted(draw(st.lists(st.integers(0, row_count), max_size=4)))
        bounds = [0, *cuts, row_count]
        found.append([table.slice(low, high - low) for low, high in itertools.pairwise(bounds)])
    return found[0], found[1]


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(
    sides=sides(),
    how=st.sampled_from(sorted(HOWS)),
    keys=st.sampled_from([["a"], ["a", "b"]]),
    broadcast=st.sampled_from([None, True, False]),
    partition_count=st.sampled_from([None, 1, 3]),
    partition_bytes=st.sampled_from([100, 1 << 20]),
    broadcast_bytes=st.sampled_from([0, 200, 1 << 20]),
)
def test_joins_have_the_rows_that_duckdb_has(
    sides: tuple[list[pa.Table], list[pa.Table]],
    how: str,
    keys: list[str],
    broadcast: bool | None,
    partition_count: int | None,
    partition_bytes: int,
    broadcast_bytes: int,
) -> None:
    duckdb = pytest.importorskip("duckdb")
    if how == "outer" and broadcast:
        broadcast = None
    with duckdb.connect() as connection, pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchanges, "BROADCAST_BUNDLE_BYTES", 100)  # several tasks for so few rows
        for name, blocks in zip("lr", sides, strict=True):
            connection.register(name, pa.concat_tables(blocks))
        on = " AND ".join(f"l.{key} = r.{key}" for key in keys)
        expected = Counter(connection.execute(HOWS[how].format(on=on)).fetchall())
        context = data.DataContext(target_shuffle_block_size=partition_bytes, broadcast_bytes_max=broadcast_bytes)
        with data.DataContext.current(context):
            left, right = (data.from_blocks(blocks) for blocks in sides)
            joined = left.join(
                right.drop_columns([one for one in ("a", "b") if one not in keys]),
                how,
                partition_count,
                on=keys,
                right_suffix="_r",
                broadcast=broadcast,
            )
            rows = joined.take_all()
            schema = joined.schema()
    names = [name for name in ("row", "row_r") if schema is not None and name in schema.names]
    assert Counter(tuple(row[name] for name in names) for row in rows) == expected


@pytest.mark.parametrize("how", sorted(HOWS))
def test_keys_of_a_join_are_those_of_whichever_side_has_a_row(how: str) -> None:
    left = data.from_blocks([pa.table({"k": [1, 2], "v": ["a", "b"]}), pa.table({"k": [2, None], "v": ["c", "d"]})])
    right = data.from_arrow(pa.table({"k": [2, 3, None], "w": [0.5, 1.5, 2.5]}))
    both = [{"k": 2, "v": "b", "w": 0.5}, {"k": 2, "v": "c", "w": 0.5}]
    of_left = [{"k": 1, "v": "a", "w": None}, {"k": None, "v": "d", "w": None}]
    of_right = [{"k": 3, "v": None, "w": 1.5}, {"k": None, "v": None, "w": 2.5}]
    expected: dict[str, list[dict[str, Any]]] = {
        "inner": both,
        "left": both + of_left,
        "right": both + of_right,
        "outer": both + of_left + of_right,
        "semi": [{"k": 2, "v": "b"}, {"k": 2, "v": "c"}],
        "anti": [{"k": 1, "v": "a"}, {"k": None, "v": "d"}],
        "right_semi": [{"k": 2, "w": 0.5}],
        "right_anti": [{"k": 3, "w": 1.5}, {"k": None, "w": 2.5}],
    }
    for broadcast in (False, None, *([True] if how != "outer" else [])):
        found = left.join(right, how, on="k", broadcast=broadcast).take_all()
        assert sorted(found, key=repr) == sorted(expected[how], key=repr)


def test_broadcast_join_keeps_the_order_of_the_divided_side_and_gives_blocks_before_all_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchanges, "BROADCAST_BUNDLE_BYTES", 100)
    left = data.from_blocks([pa.table({"id": range(at, at + 20)}) for at in range(0, 100, 20)])
    right = data.from_items([{"id": 40 * at, "x": at} for at in reversed(range(2))])
    ids = [row["id"] for row in left.join(right, on="id", broadcast=True).take_all()]
    assert ids == [0, 40]
    node = rules.optimized(left.join(right, on="id", broadcast=True)._node)
    drawn = []

    def counted(tables: Any) -> Any:
        for table in tables:
            drawn.append(table.num_rows)
            yield table

    exchange = physical.stage_of(node, physical.Sizes())
    assert isinstance(exchange, stages.Exchange)
    first = stages.Map(name="counted", input=exchange.inputs[0], transforms=[counted], is_kernel=True, bundle_bytes=1)
    made = local.tables(stages.Exchange(**{**vars(exchange), "inputs": (first, exchange.inputs[1])}))
    assert next(made)["id"].to_pylist() == [0]
    assert len(drawn) == 1


def rows_here(ds: data.Dataset) -> list[dict[str, Any]]:
    """Without workers, users' functions too."""
    stage = physical.stage_of(rules.optimized(ds._node), physical.Sizes())
    return [row for table in local.tables(stage) for row in table.to_pylist()]


def exchange_of(ds: data.Dataset, **sizes: Any) -> stages.Exchange:
    found = physical.stage_of(rules.optimized(ds._node), physical.Sizes(**sizes))
    assert isinstance(found, stages.Exchange)
    return found


def test_sides_that_may_be_whole_by_the_kind_of_join_and_what_is_known_of_their_sizes() -> None:
    small, large = data.range(10), data.range(100_000)
    unknown = data.range(10).map(lambda row: row)
    assert {how: exchange_of(large.join(small, how)).whole for how in HOWS} == {
        "inner": (1, 0), "left": (1,), "semi": (1,), "anti": (1,), "right": (0,), "right_semi": (0,), "right_anti": (0,),
        "outer": (),
    }  # fmt: skip
    assert exchange_of(small.join(large)).whole == (0, 1)
    assert exchange_of(large.join(unknown)).whole == (0, 1)  # what is known to be no larger than it is
    assert exchange_of(unknown.join(unknown)).whole == (1, 0)
    assert exchange_of(small.join(large, broadcast=True)).whole == (1,)
    assert exchange_of(small.join(large, broadcast=True)).broadcast_bytes >= 1 << 62
    assert exchange_of(small.join(large, broadcast=False)).broadcast_bytes == 0
    assert exchange_of(small.join(large), broadcast_bytes=5).broadcast_bytes == 5


def test_side_goes_whole_unless_the_other_is_known_to_be_too_small_for_an_index_on_every_cpu() -> None:
    cases = {
        (1, 1, 16): True,  # little to index, however many do
        (16, 1, 16): True,
        (17, 17, 2): False,
        (40, 60, 2): False,
        (40, 80, 2): True,
        (40, 160, 4): False,
        (40, 240, 4): True,
        (64, 64, 1): True,  # one CPU makes one index either way
        (64, None, 16): True,  # and the join streams
        (None, 64, 16): True,
    }
    for (whole, other, cpu_count), expected in cases.items():
        sizes = [None if size is None else size * stages.MIB for size in (whole, other)]
        assert physical.should_go_whole(*sizes, cpu_count) == expected, (whole, other, cpu_count)


def test_sides_in_memory_of_like_sizes_are_divided_and_what_is_filtered_is_measured_first() -> None:
    table = pa.table({"id": pa.array(range(3_000_000), pa.int64())})  # 24 MB
    one, other = data.from_arrow(table), data.from_arrow(table)
    assert exchange_of(one.join(other), cpu_count=2).broadcast_bytes == 0
    assert exchange_of(one.join(other), cpu_count=2).parallelism == 4
    assert exchange_of(one.join(other), cpu_count=1).broadcast_bytes == 64 * stages.MIB
    assert exchange_of(one.join(other.filter(expr=col("id") > 5)), cpu_count=2).broadcast_bytes == 64 * stages.MIB
    assert exchange_of(one.join(other, broadcast=True), cpu_count=2).broadcast_bytes >= 1 << 62


def test_number_of_partitions_is_that_of_a_join_that_is_divided_unless_a_side_is_to_go_whole() -> None:
    small, large = data.range(10), data.range(100_000)
    divided = exchange_of(large.join(small, num_partitions=3))
    assert (divided.partition_count, divided.broadcast_bytes) == (3, 0)
    assert exchange_of(large.join(small, num_partitions=3, broadcast=True)).broadcast_bytes >= 1 << 62
    assert "goes whole" not in large.map(lambda row: row).join(small, num_partitions=3).explain()


def test_what_travels_to_tasks_is_small_whatever_is_joined() -> None:
    """The operator had its inputs with it, and they the blocks that were in memory."""
    large = data.from_arrow(pa.table({"id": range(100_000)}))
    for joined in (large.join(large.rename_columns({"id": "k"}), on="id", right_on="k"), large.join_asof(large, "id")):
        assert len(pickle.dumps(exchange_of(joined).reduce)) < 2_000


def test_explain_shows_which_side_goes_whole(capsys: pytest.CaptureFixture[str]) -> None:
    small, unknown = data.range(10), data.range(10).map(lambda row: row)
    assert "of 1, 2; 2 goes whole to every task\n" in f"{small.join(small.limit(5)).explain()}\n".replace("3", "2")
    left_out = unknown.join(unknown.filter(expr=col("id") > 3), "left").explain()
    assert "2 goes whole to every task if it has at most 64.0 MiB" in left_out
    either = unknown.join(data.range(10).map(lambda row: row)).explain()
    assert "2 or else 1 goes whole to every task if it has at most 64.0 MiB" in either
    assert "goes whole" not in unknown.join(small, "outer").explain()
    assert "goes whole" not in unknown.join(small, broadcast=False).explain()
    assert "; 2 goes whole to every task" in unknown.join(small, broadcast=True).explain()


@pytest.mark.parametrize("how", sorted(HOWS))
@pytest.mark.parametrize("is_known", [True, False])
def test_join_with_what_has_not_even_an_empty_block(how: str, is_known: bool) -> None:
    """Of a limit of 0 there comes no block; where a function comes before it, its columns are not known either."""
    some = data.from_items([{"k": 1, "v": 2}])
    other = data.from_items([{"k": 1, "w": 3}])
    none, neither = (one if is_known else one.map(lambda row: row) for one in (other, some))
    found = some.join(none.limit(0), how, on="k")
    has_left = how in ("left", "outer", "anti")
    row = {"k": 1, "v": 2, **({"w": None} if is_known and how != "anti" else {})}
    assert rows_here(found) == ([row] if has_left else [])
    assert rows_here(neither.limit(0).join(none.limit(0), how, on="k")) == []


def test_what_comes_of_no_blocks_at_all() -> None:
    none = data.from_items([{"k": 1, "v": 2}]).map(lambda row: row).limit(0)
    assert rows_here(none.groupby("k").sum("v")) == []
    assert rows_here(none.groupby().aggregate(aggregate.Count(), aggregate.Sum("v"))) == [
        {"count()": 0, "sum(v)": None}
    ]
    for ds in (none.sort("k"), none.distinct(), none.random_shuffle(seed=1), none.groupby("k").map_groups(dict)):
        assert rows_here(ds) == []
    known = data.from_items([{"k": 1, "v": 2}]).limit(0)
    assert known.groupby("k").count().schema() == data.Schema(pa.schema([("k", pa.int64()), ("count()", pa.int64())]))
    assert known.groupby("k").count().take_all() == []


def test_arguments_of_join_are_checked_when_it_is_called() -> None:
    left = data.from_items([{"k": 1, "v": "a"}])
    right = data.from_items([{"k": 1.5, "v": "a"}])
    with pytest.raises(ValueError, match=r"must be one of 'inner', 'left', .* got 'lft'; did you mean 'left'\?"):
        left.join(right, "lft", on="k")
    with pytest.raises(ValueError, match="an outer join needs both divided"):
        left.join(right, "outer", on="k", broadcast=True, right_suffix="_r")
    with pytest.raises(ValueError, match="num_partitions must be at least 1, got 0"):
        left.join(right, num_partitions=0, on="k", right_suffix="_r")
    with pytest.raises(TypeError, match=r"'v' .* and 'k' .* cannot be equal"):
        left.join(right, on="v", right_on="k", right_suffix="_r")
    with pytest.raises(ValueError, match="give left_suffix or right_suffix"):
        left.join(right, on="k")
    with pytest.raises(KeyError, match="did you mean 'k'"):
        left.join(right, on="kk")


def test_join_takes_what_ray_takes() -> None:
    left, right = data.range(4), data.from_items([{"id": 1, "x": 2}])
    joined = left.join(
        right, "inner", 2, ("id",), None, "_l", "_r", partition_size_hint=1, aggregator_ray_remote_args={"num_cpus": 0.5},
        validate_schemas=True,
    )  # fmt: skip
    assert joined.take_all() == [{"id": 1, "x": 2}]
    assert exchange_of(joined).resources == stages.Resources(num_cpus=0.5)


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(
    left=st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.one_of(st.none(), st.integers(0, 9))), max_size=12),
    right=st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.one_of(st.none(), st.integers(0, 9))), max_size=12),
    by=st.sampled_from([[], ["k"]]),
    direction=st.sampled_from(asof.DIRECTIONS),
    broadcast=st.sampled_from([True, False]),
)
def test_asof_joins_have_the_same_rows_divided_and_not(
    left: list[Any], right: list[Any], by: list[str], direction: Any, broadcast: bool
) -> None:
    schema = pa.schema([("k", pa.string()), ("t", pa.int64())])
    first, second = (
        pa.Table.from_pylist([{"k": k, "t": t} for k, t in rows], schema=schema).append_column(
            "row", pa.array(range(len(rows)), pa.int64())
        )
        for rows in (left, right)
    )
    expected = asof.asof(
        first, second if by else second.drop_columns(["k"]), "t", by, direction=direction, right_suffix="_r"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchanges, "BROADCAST_BUNDLE_BYTES", 100)
        with data.DataContext.current(data.DataContext(target_shuffle_block_size=100)):
            one, other = (data.from_blocks([table.slice(0, 4), table.slice(4)]) for table in (first, second))
            joined = one.join_asof(
                other if by else other.drop_columns(["k"]), "t", by=by or None, direction=direction, right_suffix="_r",
                broadcast=broadcast,
            )  # fmt: skip
            found = joined.take_all()
    assert sorted(found, key=lambda row: row["row"]) == expected.to_pylist()


def test_first_rows_of_a_sort_are_found_without_sorting_all() -> None:
    ds = data.from_blocks([pa.table({"x": [3, 1, 2]}), pa.table({"x": [0, 5, 4]})]).sort("x", descending=True)
    names = [
        stage.name for stage in stages.ordered(physical.stage_of(rules.optimized(ds.limit(2)._node), physical.Sizes()))
    ]
    assert names[1:3] == ["TopRows", "Sort"]
    assert [row["x"] for row in ds.limit(2).take_all()] == [row["x"] for row in ds.take(2)] == [5, 4]
    kept = logical.each(rules.optimized(ds.limit(rules.TOP_ROWS_MAX + 1)._node))
    assert [node.limit for node in kept if isinstance(node, logical.Sort)] == [None]
