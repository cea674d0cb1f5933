"""Plans are rewritten to others that give the same rows in the same order, and do less."""

from __future__ import annotations

import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel import data
from umbel.data import aggregate, expressions, window
from umbel.data._blocks import grouping
from umbel.data._engine import local
from umbel.data._plan import calls, kernels, logical, physical, rules, schemas
from umbel.data.expressions import col, lit, when

TABLE = pa.table(
    {
        "a": pa.array([5, None, 3, -7, 0, 3, 8, None], pa.int64()),
        "b": pa.array(["x", "y", None, "x", "z", "y", "x", "x"]),
        "c": pa.array([0.5, 1.5, float("nan"), None, -2.0, 1.5, 3.0, 0.0]),
    }
)
OTHER = pa.table({"k": pa.array([3, 5, 3, None], pa.int64()), "b": ["p", "q", "r", "s"], "d": [1, 2, 3, 4]})


def rows_of(node: logical.Node) -> list[dict[str, Any]]:
    tables = [*local.tables(physical.stage_of(node, physical.Sizes()))]
    return [row for table in tables for row in table.to_pylist()]


def shown(rows: list[dict[str, Any]]) -> str:
    """As text, since nan is unequal to itself."""
    return repr(rows)


def dataset() -> data.Dataset:
    return data.from_blocks([TABLE.slice(0, 3), TABLE.slice(3, 5)])


STEPS: list[tuple[str, Any]] = [
    ("filter a", lambda ds: ds.filter(expr=col("a") > 0)),
    ("filter b", lambda ds: ds.filter(expr=(col("b") == "x") | col("b").is_null())),
    ("filter two", lambda ds: ds.filter(expr=(col("a") < 8) & (col("c") > 0.1))),
    ("with column", lambda ds: ds.with_column("a", col("a") + 1)),
    ("with another", lambda ds: ds.with_column("e", col("a") * 2)),
    ("select", lambda ds: ds.select_columns(["c", "b", "a"])),
    ("renamed back", lambda ds: ds.rename_columns({"a": "z"}).filter(expr=col("z") < 6).rename_columns({"z": "a"})),
    ("sort", lambda ds: ds.sort(["b", "a"], descending=[False, True])),
    ("limit", lambda ds: ds.limit(4)),
    ("distinct", lambda ds: ds.distinct(["b"])),
    ("union", lambda ds: ds.union(ds)),
    ("shuffle", lambda ds: ds.random_shuffle(seed=7)),
    ("map", lambda ds: ds.map(_doubled)),
    ("join", lambda ds: ds.join(data.from_arrow(OTHER), on="a", right_on="k", right_suffix="_r")),
    ("left join", lambda ds: ds.join(data.from_arrow(OTHER), "left_outer", on="a", right_on="k", right_suffix="_r")),
    ("semi join", lambda ds: ds.join(data.from_arrow(OTHER), "left_semi", on="a", right_on="k")),
    (
        "grouped",
        lambda ds: ds.groupby("b").aggregate(aggregate.Max("a", alias_name="a"), aggregate.Sum("c", alias_name="c")),
    ),
    ("blocks reordered", lambda ds: ds.randomize_block_order(seed=2)),
    ("sampled", lambda ds: ds.random_sample(0.7, seed=5)),
    ("exact blocks", lambda ds: ds.repartition(target_num_rows_per_block=3, strict=True)),
    ("some blocks", lambda ds: ds.repartition(2)),
    ("drawn", lambda ds: ds.with_column("a", when(expressions.random(seed=1) < 0.5).then(col("a")).otherwise(lit(1)))),
    ("window", lambda ds: ds.window({"a": window.max("a", rows=(1, 0))}, partition_by="b", order_by="c")),
    ("mixed", lambda ds: ds.mix(ds.filter(expr=col("a") > 1), weights=[2, 1], stopping_condition="LONGEST_DROP")),
    ("nearest", lambda ds: ds.join_asof(data.from_arrow(OTHER), "a", right_on="k", right_suffix="_r")),
    ("twice", lambda ds: _twice(ds.map(_doubled))),
    ("zipped", lambda ds: ds.zip(ds.rename_columns({"a": "z", "b": "y", "c": "x"})).select_columns(["a", "b", "c"])),
    ("drop", lambda ds: ds.drop_columns(["c"]).with_column("c", lit(1.0))),
]
LAST: list[tuple[str, Any]] = [
    ("all", lambda ds: ds),
    ("count", lambda ds: ds._with(logical.Aggregate(input=ds._node, keys=(), aggregates=(aggregate.Count(),)))),
    ("one column", lambda ds: ds.select_columns(["b"])),
    ("sums", lambda ds: ds.groupby("b").sum("a")),
    ("first", lambda ds: ds.limit(2)),
]


def _twice(ds: data.Dataset) -> data.Dataset:
    """What two operators use, of which each wants something else."""
    low, high = ds.filter(expr=col("a") < 3).select_columns(["a", "b"]), ds.filter(expr=col("a") >= 3)
    return low.with_column("c", lit(0.5)).union(high.limit(2))


def _doubled(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "a": None if row["a"] is None else row["a"] * 2}


def test_rows_are_counted_where_no_column_is_wanted() -> None:
    ds = dataset().select_columns(["c", "b"]).drop_columns(["c"]).with_column("c", lit(1.0))
    counted = logical.Aggregate(input=ds._node, keys=(), aggregates=(aggregate.Count(),))
    assert rows_of(rules.optimized(counted)) == [{"count()": 8}]


@settings(max_examples=150, deadline=None, database=None, derandomize=True)
@given(st.lists(st.sampled_from(STEPS), max_size=5), st.sampled_from(LAST))
def test_a_plan_gives_the_same_rows_rewritten(steps: list[tuple[str, Any]], last: tuple[str, Any]) -> None:
    ds = dataset()
    for _, step in [*steps, last]:
        try:
            ds = step(ds)
        except ValueError as error:
            assert "two of one name" in str(error) or "suffix" in str(error) or "twice" in str(error), error
            return
    try:
        expected = rows_of(ds._node)
    except Exception as error:
        with pytest.raises(type(error)):
            rows_of(rules.optimized(ds._node))
        return
    assert shown(rows_of(rules.optimized(ds._node))) == shown(expected), [name for name, _ in [*steps, last]]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> str:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    return str(tmp_path)


def optimized(ds: data.Dataset) -> str:
    return logical.drawn(rules.optimized(ds._node))


def read_columns(ds: data.Dataset) -> list[str]:
    """Those that are read of files."""
    (read,) = [one for one in logical.each(rules.optimized(ds._node)) if isinstance(one, logical.Read)]
    schema = schemas.of(read)
    assert schema is not None
    return [*schema.names]


def test_columns_that_nobody_asks_for_are_not_read(folder: str) -> None:
    ds = data.read_parquet(folder)
    assert read_columns(ds.with_column("e", col("a") + 1).select_columns(["e", "b"])) == ["a", "b"]
    assert read_columns(ds.groupby("b").sum("a")) == ["a", "b"]
    assert read_columns(ds.sort("c").select_columns(["a"])) == ["a", "c"]
    assert read_columns(ds) == ["a", "b", "c"]


def test_a_filter_goes_into_the_files(folder: str) -> None:
    ds = data.read_parquet(folder).with_column("e", col("a")).filter(expr=col("e") > 3).select_columns(["e"])
    assert "Filter" not in optimized(ds)
    assert ds.take_all() == [{"e": 5}, {"e": 8}]


@pytest.mark.parametrize("how", ["inner", "left_semi", "left_anti"])
def test_a_filter_that_may_fail_sees_no_rows_that_a_join_leaves_out(how: str) -> None:
    partners = [2, 3] if how == "left_anti" else [1]
    left = data.from_items([{"id": 1, "x": 4, "s": "4"}, {"id": 2, "x": 0, "s": "none"}, {"id": 3, "x": 0, "s": ""}])
    joined = left.join(data.from_items([{"id": one} for one in partners]), how, on="id")
    for expr in (8 / col("x") == 2, col("s").cast("int64") == 4, (col("id") < 9) & (8 // col("x") == 2)):
        assert joined.filter(expr=expr).take_all() == left.take(1)
    kept = joined.filter(expr=(col("x") > 0) & (8 / col("x") == 2))
    assert "Filter(col('x') > 0)" in optimized(kept).partition("Join")[2], "what cannot fail goes below"
    assert kept.take_all() == left.take(1)


def test_a_filter_of_keys_that_may_fail_stays_behind_one_that_keeps_it_from_that() -> None:
    ds = data.from_items([{"k": 0, "x": 1}, {"k": 2, "x": 5}]).groupby("k").sum("x")
    kept = ds.filter(expr=(col("sum(x)") > 3) & (4 // col("k") == 2) & (col("k") < 9))
    assert kept.take_all() == [{"k": 2, "sum(x)": 5}]
    assert "(4 // col('k'))" not in optimized(kept).partition("Aggregate")[2]
    assert "Filter(col('k') < 9)" in optimized(kept).partition("Aggregate")[2]


def test_of_a_sort_with_a_limit_only_the_first_rows_are_kept() -> None:
    ds = dataset().sort("a").limit(2)
    (sort,) = [one for one in logical.each(rules.optimized(ds._node)) if isinstance(one, logical.Sort)]
    assert sort.limit == 2
    assert [row["a"] for row in ds.take_all()] == [-7, 0]


def test_what_is_random_is_not_moved() -> None:
    drawn = expressions.random(seed=3)
    ds = dataset().with_column("r", drawn).filter(expr=col("r") < 0.5)
    assert optimized(ds).startswith("Filter")


def test_a_mistake_in_a_plan_is_told_before_anything_runs() -> None:
    with pytest.raises(KeyError, match="did you mean 'aa'"):
        rules.optimized(dataset().rename_columns({"a": "aa"}).filter(expr=col("aaa") > 1)._node)


def test_what_two_operators_use_stays_one() -> None:
    ds = dataset().map(_doubled)
    both = ds.filter(expr=col("a") > 1).select_columns(["a"]).union(ds.select_columns(["a"]).limit(1))
    plan = rules.optimized(both._node)
    assert len([one for one in logical.each(plan) if isinstance(one, logical.MapRows)]) == 1


def test_what_is_cheap_is_read_twice_with_less_each_time(folder: str) -> None:
    ds = data.read_parquet(folder)
    both = ds.filter(expr=col("a") > 4).select_columns(["a"]).union(ds.select_columns(["b"]))
    reads = [one for one in logical.each(rules.optimized(both._node)) if isinstance(one, logical.Read)]
    assert sorted(schemas.of(one).names for one in reads) == [["a"], ["b"]]  # type: ignore[union-attr]


def test_states_of_a_group_of_several_blocks_are_one_before_they_are_divided() -> None:
    how = grouping.Grouping(["a"], [aggregate.Count()])
    both = pa.concat_tables([how.partial(pa.table({"a": [1, 2]})), how.partial(pa.table({"a": [1]}))])
    shards = kernels.ByGroup(how)(both, 3, None)
    found = [how.finish(how.combine([shard])).to_pylist() for shard in shards]
    assert sorted(row["count()"] for some in found for row in some) == [1, 2]


def test_no_users_function_is_tried_twice_at_once() -> None:
    """A late read may be, but not with what a user does behind it."""
    read = logical.Read(source=data.range(3)._node.source)  # type: ignore[attr-defined]
    kernel = logical.Filter(input=read, expression=col("id") > 1)
    function = logical.MapRows(input=kernel, function=calls.Function(dict), kind="map")
    assert physical.stage_of(kernel, physical.Sizes()).can_repeat  # type: ignore[union-attr]
    assert not physical.stage_of(function, physical.Sizes()).can_repeat  # type: ignore[union-attr]
