"""What users call on datasets, as far as it runs in the calling process."""

from __future__ import annotations

import collections
import datetime
import shutil
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel import data
from umbel.data import aggregate, block, expressions, window
from umbel.data._blocks import asof
from umbel.data._engine import local
from umbel.data._plan import counts, logical, running
from umbel.data.expressions import col


def blocks_of(ds: data.Dataset) -> list[list[int]]:
    """The ids of each block."""
    return [table["id"].to_pylist() for table in ds._tables()]


def ids(ds: data.Dataset) -> list[int]:
    return [row["id"] for row in ds.take_all()]


def cut(count: int, *sizes: int) -> data.Dataset:
    """The ids 0 to count - 1, in blocks of these sizes and of the rest."""
    table, tables, at = pa.table({"id": pa.array(range(count), pa.int64())}), [], 0
    for size in sizes:
        tables.append(table.slice(at, size))
        at += size
    return data.from_blocks([*tables, table.slice(at)])


# ---- blocks ----


@pytest.mark.parametrize("sizes", [(), (1, 2, 3), (0, 7, 0), (10,)])
def test_strict_repartition_cuts_blocks_of_just_so_many_rows(sizes: tuple[int, ...]) -> None:
    ds = cut(10, *sizes).repartition(target_num_rows_per_block=4, strict=True)
    assert blocks_of(ds) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_rows_that_are_equal_in_a_key_come_into_one_block() -> None:
    ds = cut(10, 3, 4).rename_columns({"id": "number"}).with_column("id", col("number") % 2)
    for keys in ("id", ["id"]):
        found = [set(one) for one in blocks_of(ds.repartition(4, keys=keys))]
        assert sorted(value for one in found for value in one) == [0, 1]


def test_blocks_of_chosen_sizes_are_kept() -> None:
    ds = cut(10, 3).repartition(target_num_rows_per_block=4)
    assert [len(one) for one in blocks_of(ds)] == [4, 4, 2]


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.lists(st.integers(0, 7), max_size=6), st.integers(1, 6))
def test_repartition_keeps_rows_in_order_and_divides_them_evenly(sizes: list[int], count: int) -> None:
    total = sum(sizes) + 3
    found = blocks_of(cut(total, *sizes).repartition(count))
    assert [value for some in found for value in some] == list(range(total))
    assert len(found) == count
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_block_order_is_random_with_rows_in_their_blocks() -> None:
    ds = cut(20, *[2] * 9)
    shuffled = blocks_of(ds.randomize_block_order(seed=3))
    assert shuffled != blocks_of(ds)
    assert sorted(shuffled) == blocks_of(ds)
    assert shuffled == blocks_of(ds.randomize_block_order(seed=3))
    behind = blocks_of(ds.filter(expr=col("id") >= 0).randomize_block_order(seed=3))
    assert sorted(value for some in behind for value in some) == list(range(20))
    of_files = ids(data.range(100, override_num_blocks=10).randomize_block_order(seed=1))
    assert of_files != list(range(100))
    assert sorted(of_files) == list(range(100))


# ---- what is random ----


def test_generated_columns_differ_from_block_to_block_and_not_from_run_to_run() -> None:
    ds = cut(8, 3, 2).with_column("r", expressions.random(seed=1, reseed_after_execution=False))
    ds = ds.with_column("n", expressions.monotonically_increasing_id())
    first = ds.take_all()
    assert len({row["r"] for row in first}) == 8
    assert len({row["n"] for row in first}) == 8
    assert first == ds.take_all()
    anew = cut(8, 3, 2).with_column("r", expressions.random(seed=1))
    assert anew.take_all() != anew.take_all()


def test_random_sample_of_several_blocks_draws_for_each() -> None:
    found = ids(cut(2000, 1000).random_sample(0.5, seed=5))
    low, high = [one for one in found if one < 1000], [one - 1000 for one in found if one >= 1000]
    assert 800 < len(found) < 1200
    assert low != high
    assert found == ids(cut(2000, 1000).random_sample(0.5, seed=5))


def test_sample_gives_so_many_rows_each_once() -> None:
    ds = cut(100, 30, 30)
    found = ids(ds.sample(10, seed=2))
    assert len(set(found)) == 10
    assert found == ids(ds.sample(10, seed=2))
    assert found != ids(ds.sample(10, seed=3))
    assert sorted(ids(ds.sample(500))) == list(range(100))
    assert ds.sample(10).columns() == ["id"]


# ---- parts ----


def test_splits_have_all_rows_once_and_in_order() -> None:
    ds = cut(10, 4, 0, 3)
    assert [ids(one) for one in ds.split(3)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 9]]
    assert [ids(one) for one in ds.split(3, equal=True)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert [ids(one) for one in ds.split_at_indices([2, 2, 50])] == [[0, 1], [], [2, 3, 4, 5, 6, 7, 8, 9], []]
    assert [ids(one) for one in ds.split_proportionately([0.2, 0.3])] == [[0, 1], [2, 3, 4], [5, 6, 7, 8, 9]]
    assert [one.count() for one in ds.split_proportionately([0.1] * 8)] == [1] * 8 + [2]
    assert cut(100).train_test_split(0.29)[1].count() == 29
    assert ds.split_at_indices([0])[0].columns() == ["id"]
    with pytest.raises(ValueError, match="that rise, got \\[3, 2\\]"):
        ds.split_at_indices([3, 2])


def test_train_test_split() -> None:
    ds = cut(10, 4)
    train, test = ds.train_test_split(0.3)
    assert (ids(train), ids(test)) == (list(range(7)), [7, 8, 9])
    train, test = ds.train_test_split(4, shuffle=True, seed=1)
    assert sorted(ids(train) + ids(test)) == list(range(10))
    assert (train.count(), test.count()) == (6, 4)
    assert ids(test) == ids(ds.train_test_split(4, shuffle=True, seed=1)[1])
    for size in (1.5, 0, True, -1, "a"):
        with pytest.raises(ValueError, match="test_size must be"):
            ds.train_test_split(size)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leaves no row"):
        ds.train_test_split(10)


@pytest.mark.parametrize("size", [0.25, 25])
def test_stratified_parts_have_as_much_of_each_value(size: Any) -> None:
    ds = cut(100, 33).with_column("k", col("id") % 10 == 0)
    train, test = ds.train_test_split(size, stratify="k", shuffle=True, seed=4)
    counted = collections.Counter(row["k"] for row in test.take_all())
    assert counted == {False: 22, True: 2}
    assert sorted(ids(train) + ids(test)) == list(range(100))
    assert test.columns() == ["id", "k"]


def test_streaming_train_test_split_divides_rows_for_good() -> None:
    ds = cut(1000, 300)
    train, test = ds.streaming_train_test_split(0.2, seed=1)
    assert sorted(ids(train) + ids(test)) == list(range(1000))
    assert 150 < test.count() < 250
    keyed = ds.with_column("k", col("id") % 50)
    train, test = keyed.streaming_train_test_split(0.3, split_type="hash", hash_column="k")
    of_train, of_test = ({row["k"] for row in one.take_all()} for one in (train, test))
    assert of_train | of_test == set(range(50))
    assert not of_train & of_test
    with pytest.raises(KeyError, match="no column 'kk'"):
        keyed.streaming_train_test_split(0.3, split_type="hash", hash_column="kk")


# ---- several datasets ----


def test_mix_takes_rows_by_weight_in_turns() -> None:
    ones, twos = data.range(5000), data.range(5000).with_column("id", -col("id") - 1)
    found = ids(ones.mix(twos, weights=[3, 1], stopping_condition="SHORTEST"))
    assert [one for one in found if one >= 0] == list(range(5000))
    second = [-one - 1 for one in found if one < 0]
    assert second == list(range(len(second)))
    assert abs(len(second) - 5000 / 3) <= 1024
    assert abs(sum(one >= 0 for one in found[:2048]) - 1536) <= 2
    both = ids(ones.mix(twos, weights=[3, 1], stopping_condition="LONGEST_DROP"))
    assert sorted(both) == sorted([*range(5000), *range(-5000, 0)])
    assert both[: len(found)] == found
    with pytest.raises(ValueError, match="2 numbers above 0"):
        ones.mix(twos, weights=[1.0, 0.0])
    with pytest.raises(ValueError, match="'shortest' or 'longest_drop'"):
        ones.mix(twos, stopping_condition="never")


def test_mix_does_not_depend_on_how_inputs_are_cut() -> None:
    other = cut(3000, 5, 700).with_column("id", -col("id"))
    assert ids(cut(4000, 1, 2000).mix(other)) == ids(cut(4000).mix(other.materialize().repartition(3)))


def test_join_asof_finds_the_last_before() -> None:
    left = pa.table({"k": ["a", "b", "a", None], "t": [5, 1, 9, 3]})
    right = pa.table({"k": ["a", "a", "b"], "s": [4, 9, 2], "p": [1.0, 2.0, 3.0]})
    options: dict[str, Any] = {"right_on": "s", "by": ["k"], "tolerance": 3}
    found = data.from_arrow(left).join_asof(data.from_arrow(right), "t", **options)
    expected = asof.asof(left, right, "t", ["k"], right_on="s", tolerance=3)
    assert found.schema() == data.Schema(expected.schema)
    assert found.take_all() == expected.to_pylist()
    unkeyed = data.from_arrow(left).join_asof(data.from_arrow(right.drop_columns(["k"])), "t", right_on="s")
    assert [row["p"] for row in unkeyed.take_all()] == [1.0, None, 2.0, 3.0]
    with pytest.raises(ValueError, match="direction must be one of"):
        data.from_arrow(left).join_asof(data.from_arrow(right), "t", right_on="s", direction="up")
    with pytest.raises(KeyError, match="did you mean 's'"):
        data.from_arrow(left).join_asof(data.from_arrow(right), "t", right_on="ss")


def test_window_gives_columns_of_rows_around() -> None:
    ds = data.from_items(
        [{"k": k, "t": t, "x": x} for k, t, x in (("a", 2, 10), ("b", 1, 5), ("a", 1, 1), ("a", 3, None))]
    )
    found = ds.window(
        {"n": window.row_number(), "before": window.lag("x"), "sum": window.sum("x", rows=(1, 0))},
        partition_by="k",
        order_by="t",
    )
    assert sorted(found.take_all(), key=lambda row: (row["k"], row["t"])) == [
        {"k": "a", "t": 1, "x": 1, "n": 1, "before": None, "sum": 1},
        {"k": "a", "t": 2, "x": 10, "n": 2, "before": 1, "sum": 11},
        {"k": "a", "t": 3, "x": None, "n": 3, "before": 10, "sum": 10},
        {"k": "b", "t": 1, "x": 5, "n": 1, "before": None, "sum": 5},
    ]
    assert found.columns() == ["k", "t", "x", "n", "before", "sum"]
    with pytest.raises(TypeError, match="must be a function of umbel"):
        ds.window({"n": "row_number"}, order_by="t")  # type: ignore[dict-item]
    with pytest.raises(KeyError, match="no column 'y'"):
        ds.window({"n": window.lag("y")}, order_by="t")


# ---- figures ----


def test_summary_has_the_figures_that_a_type_has() -> None:
    ds = data.from_items([{"x": 1, "s": "b", "l": [1]}, {"x": 0, "s": None, "l": [2]}, {"x": 5, "s": "a", "l": None}])
    found = ds.summary()
    assert found.get_column_stats("x") == {
        "count": 3, "missing_pct": 0.0, "mean": 2.0, "std": pytest.approx(7**0.5), "zero_pct": pytest.approx(100 / 3),
        "min": 0, "max": 5,
    }  # fmt: skip
    assert found.get_column_stats("s") == {"count": 3, "missing_pct": pytest.approx(100 / 3), "min": "a", "max": "b"}
    assert found.get_column_stats("l") == {"count": 3, "missing_pct": pytest.approx(100 / 3)}
    assert repr(found).splitlines()[0].split() == [
        "column",
        "count",
        "missing_pct",
        "mean",
        "std",
        "zero_pct",
        "min",
        "max",
    ]
    assert ds.summary(["s"]).columns == ["s"]
    with pytest.raises(KeyError, match="no column 'y'"):
        ds.summary(["y"])


def test_unique_of_nested_values() -> None:
    ds = data.from_items([{"x": [1, 2]}, {"x": [1]}, {"x": [1, 2]}, {"x": None}])
    assert ds.unique("x") == [[1, 2], [1], None]
    assert ds.unique("x", ignore_nulls=True) == [[1, 2], [1]]
    structs = data.from_items([{"x": {"a": 1}}, {"x": {"a": 2}}, {"x": {"a": 1}}])
    assert structs.unique("x") == [{"a": 1}, {"a": 2}]


# ---- what is known without a run ----


def test_what_there_is_is_told_without_a_run() -> None:
    ds = cut(10, 4).with_column("x", col("id") * 2)
    assert cut(10, 4).num_blocks() == 2
    assert ds.repartition(7).num_blocks() == 7
    assert ds.count() == 10
    assert ds.columns() == ["id", "x"]
    assert ds.input_files() == []
    assert data.range(100).size_bytes() == 800
    with pytest.raises(ValueError, match=r"use materialize\(\).num_blocks\(\)"):
        data.range(5).num_blocks()
    assert not ds.stats()  # nothing above has run it
    ds.take(1)
    assert "total: 1 rows" in str(ds.stats())


def test_counts_that_are_known_and_those_that_are_not() -> None:
    ds, other = cut(10, 4), cut(3)
    assert counts.of(ds.union(other).union(other)._node) == 16
    assert counts.of(ds.mix(other)._node) == 13
    assert counts.of(ds.mix(other, stopping_condition="SHORTEST")._node) is None
    assert counts.of(ds.join_asof(other, "id")._node) == 10
    assert counts.of(ds.map(dict).limit(7)._node) == 7
    assert counts.of(ds.map(dict, on_error="skip")._node) is None
    assert counts.of(ds.filter(expr=col("id") > 3)._node) is None
    deep = ds
    for _ in range(40):  # as many rows as nobody could count
        deep = deep.union(deep)
    assert deep.count() == 10 << 40


def test_zip_has_a_schema() -> None:
    ds = cut(3).zip(cut(3).with_column("b", col("id")))
    assert ds.columns() == ["id", "id_1", "b"]
    assert ds.take(1) == [{"id": 0, "id_1": 0, "b": 0}]


def test_a_dataset_is_a_stream_of_arrow() -> None:
    ds = cut(5, 2).filter(expr=col("id") != 3)
    assert pa.table(ds)["id"].to_pylist() == [0, 1, 2, 4]
    assert pa.table(cut(5).filter(expr=col("id") > 9)).schema == pa.schema([("id", pa.int64())])
    polars = pytest.importorskip("polars")
    assert polars.DataFrame(ds)["id"].to_list() == [0, 1, 2, 4]
    duckdb = pytest.importorskip("duckdb")
    assert ids(data.from_duckdb(duckdb.sql("select 7::bigint as id"))) == [7]


def test_context_is_of_a_thread_and_of_a_block() -> None:
    context = data.DataContext.get_current().copy()
    context.target_max_block_size = 77
    seen: list[int] = []
    with data.DataContext.current(context):
        thread = threading.Thread(target=lambda: seen.append(data.DataContext.get_current().target_max_block_size))
        thread.start()
        thread.join()
        assert data.range(1).context.target_max_block_size == 77
    assert seen == [data.DataContext.get_current().target_max_block_size]
    assert seen != [77]


def test_what_is_not_there_says_what_is() -> None:
    ds = data.range(3)
    with pytest.raises(NotImplementedError, match="iter_torch_batches"):
        ds.to_torch()
    for method in ("to_tf", "iter_tf_batches"):
        with pytest.raises(NotImplementedError, match="from_generator"):
            getattr(ds, method)()
    with pytest.raises(TypeError, match="iter_rows"):
        iter(ds)


def test_a_mistake_in_options_is_told_at_once() -> None:
    ds = data.range(3)
    with pytest.raises(ValueError, match="on_error must be one of 'raise', 'skip', 'collect', got 'ignore'"):
        ds.map(lambda row: row, on_error="ignore")
    with pytest.raises(ValueError, match="'auto', or None"):
        ds.map_batches(lambda batch: batch, batch_size="big")
    with pytest.raises(ValueError, match="batch_format must be one of"):
        ds.map_batches(lambda batch: batch, batch_format="cudf")
    with pytest.raises(ValueError, match="n must be 1 or more"):
        ds.streaming_split(0)
    with pytest.warns(DeprecationWarning, match="with_column"):
        ds.add_column("x", lambda batch: batch["id"])


def test_random_ints() -> None:
    ds = data.read_datasource(data.RandomIntRowDatasource(50, num_columns=2, seed=1))
    assert ds.columns() == ["c_0", "c_1"]
    assert ds.count() == 50
    assert ds.take_all() == ds.take_all()


def test_dates_sum_up() -> None:
    day = datetime.date(2026, 1, 2)
    found = data.from_items([{"d": day}, {"d": None}]).aggregate(aggregate.Max("d"))
    assert found == {"max(d)": day}


# ---- what blocks do not have ----


def test_columns_that_one_of_a_union_has_not_are_there_for_what_follows() -> None:
    ds = cut(2).union(data.from_arrow(pa.table({"u": [0.5]})))
    assert ds.select_columns(["u"]).take_all() == [{"u": None}, {"u": None}, {"u": 0.5}]
    assert ds.filter(expr=col("u").is_null()).rename_columns({"u": "v"}).count() == 2
    mixed = cut(1).mix(data.from_arrow(pa.table({"u": [0.5]})), stopping_condition="LONGEST_DROP")
    assert mixed.with_column("w", col("u").is_null()).sort("w").columns() == ["id", "u", "w"]
    blocks = data.from_blocks([pa.table({"x": [1]}), pa.table({"x": [0.5], "y": ["a"]})])
    assert blocks.with_column("z", col("x") / 2).select_columns(["z", "y"]).take_all() == [
        {"z": 0.5, "y": None},
        {"z": 0.25, "y": "a"},
    ]


def test_a_filter_behind_a_union_computes_with_its_types() -> None:
    ds = data.from_arrow(pa.table({"x": [0]})).union(data.from_arrow(pa.table({"x": [0.5]})))
    assert ds.filter(expr=1 / col("x") > 1).take_all() == [{"x": 0.0}, {"x": 0.5}]


def test_nothing_is_made_of_no_rows_of_which_nothing_is_known() -> None:
    pytest.importorskip("pandas")
    ds = cut(3).map(lambda row: row).limit(0)
    assert ds.schema() is None
    for one in (
        ds.sort("id"),
        ds.distinct(),
        ds.distinct("id"),
        ds.random_shuffle(seed=1),
        ds.repartition(3),
        ds.repartition(2, keys=["id"]),
        ds.repartition(target_num_rows_per_block=2, strict=True),
        ds.groupby("id").count(),
        ds.window({"n": window.row_number()}, partition_by="id"),
        ds.zip(ds),
        ds.union(ds),
        ds.join(ds, on="id"),
        ds.filter(expr=col("id") > 0).with_column("x", col("id") + 1).drop_columns("id"),
    ):
        assert one.take_all() == []
        assert one.count() == 0
    assert ds.aggregate(aggregate.Sum("id"), aggregate.Max("id"), aggregate.Count()) == {
        "sum(id)": None,
        "max(id)": None,
        "count()": 0,
    }
    assert cut(3).join(ds, "left_outer", on="id").take_all() == [{"id": 0}, {"id": 1}, {"id": 2}]
    assert cut(3).limit(0).sort("id").columns() == ["id"]
    assert [one.take_all() for one in ds.split(2)] == [[], []]
    assert len(ds.to_pandas()) == 0


class Nothing(data.Datasource):
    """Gives not even an empty table: nobody knows what columns it might have had."""

    def get_read_tasks(self, parallelism: int, per_task_row_limit: int | None = None) -> list[data.ReadTask]:
        return [data.ReadTask(lambda: [], block.BlockMetadata(size_bytes=0))]


def test_where_no_table_comes_there_are_no_rows() -> None:
    ds = data.read_datasource(Nothing())
    assert (ds.count(), ds.take_all(), ds.to_arrow().num_rows) == (0, [], 0)


# ---- odd input ----


def test_columns_of_one_name_are_refused_at_once() -> None:
    doubled = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    for make in (data.from_arrow, lambda table: data.from_blocks([table])):
        with pytest.raises(ValueError, match="table 0 has several columns called 'a'; rename all but one"):
            make(doubled)


def test_rows_without_columns_are_counted() -> None:
    ds = cut(3, 1).drop_columns("id")
    assert (ds.count(), ds.take_all(), ds.random_shuffle(seed=1).materialize().count()) == (3, [{}] * 3, 3)
    assert ds.repartition(2).zip(cut(3)).take_all() == [{"id": 0}, {"id": 1}, {"id": 2}]
    assert [len(one) for one in (ds.limit(2).take_all(), ds.union(ds).take_all())] == [2, 6]


def test_names_are_any_text() -> None:
    ds = data.from_arrow(pa.table({"": [2, 1], "ключ 🎉": [1, 1], "a.b": [3, 4], "x[0]": [5, 6]}))
    ds = ds.sort("").with_column("a.b", col("a.b") + col("x[0]")).filter(expr=col("ключ 🎉") == 1)
    assert ds.groupby(["ключ 🎉", "a.b"]).sum("").take_all() == [
        {"ключ 🎉": 1, "a.b": 8, "sum()": 2},
        {"ключ 🎉": 1, "a.b": 10, "sum()": 1},
    ]


def test_columns_that_are_there_for_a_while_do_not_replace_others() -> None:
    ds = data.from_arrow(pa.table({"__drawn__": [1, 2], "__number__": [1, 2], "__part__": [3, 3], "k": [0, 0]}))
    assert ds.sample(2, seed=1).columns() == ds.columns()
    assert [one.columns() for one in ds.train_test_split(0.5, stratify="k")] == [ds.columns()] * 2
    assert [one.columns() for one in ds.streaming_train_test_split(0.5, seed=1)] == [ds.columns()] * 2


def test_limits_beyond_what_can_be_counted_are_none() -> None:
    pytest.importorskip("pandas")
    assert len(cut(3).limit(2**70).take_all()) == len(cut(3).take(2**70)) == len(cut(3).take_all(2**70)) == 3
    assert len(cut(3).to_pandas(2**70)) == len(cut(3).take_batch(2**70)["id"]) == 3


def test_a_plan_with_an_error_can_be_shown() -> None:
    ds = cut(3).union(data.from_arrow(pa.table({"id": ["x"]})))
    assert repr(ds) == "Dataset(num_rows=4, schema=<ValueError>, plan=Union)"
    with pytest.raises(ValueError, match="the column 'id' is int64 in input 0 of the union and string in input 1"):
        ds.take_all()


def test_a_thousand_columns() -> None:
    ds = data.from_arrow(pa.table({f"c{number}": [number, number + 1] for number in range(1000)}))
    assert len(ds.sort("c5", descending=True).rename_columns({"c7": "x"}).take_all()[0]) == 1000
    assert ds.sum()["sum(c999)"] == 1999
    assert ds.groupby("c0").max([f"c{number}" for number in range(1, 1000)]).take_all()[1]["max(c7)"] == 8


def test_blocks_of_chosen_sizes_of_no_rows_have_columns() -> None:
    ds = cut(3).filter(expr=col("id") > 5).repartition(target_num_rows_per_block=2)
    assert ds.to_arrow().schema == ds.schema().base_schema
    assert [one.columns() for one in ds.split(2)] == [["id"], ["id"]]


def test_a_sort_has_a_block_for_each_range_between_its_boundaries() -> None:
    ds = data.from_items([{"id": one} for one in [5, 20, 3, 10, None, 15, 10]])
    assert blocks_of(ds.sort("id", boundaries=[10, 20])) == [[3, 5], [10, 10, 15], [20, None]]
    assert blocks_of(ds.sort("id", boundaries=[20, 10])) == [[3, 5], [10, 10, 15], [20, None]]  # whichever comes first
    assert blocks_of(ds.sort("id", descending=True, boundaries=[20, 10])) == [[], [20, 15], [10, 10, 5, 3, None]]
    assert blocks_of(ds.sort("id", boundaries=[0.5, 7.5])) == [[], [3, 5], [10, 10, 15, 20, None]]
    assert blocks_of(ds.sort("id", boundaries=[])) == [[3, 5, 10, 10, 15, 20, None]]
    assert ds.sort("id", boundaries=[10, 20]).materialize().num_blocks() == 3
    by_two = data.from_items([{"k": one, "id": one % 3} for one in range(7)]).sort(["id", "k"], boundaries=[1, 1])
    assert [table["k"].to_pylist() for table in by_two._tables()] == [[0, 3, 6], [], [1, 4, 2, 5]]
    days = data.from_items([{"id": datetime.date(2020, 1, day)} for day in (3, 1, 2)])
    assert [table.num_rows for table in days.sort("id", boundaries=[datetime.date(2020, 1, 3)])._tables()] == [2, 1]


def test_boundaries_that_are_no_values_of_the_key_are_an_error() -> None:
    ds = data.from_items([{"id": 1, "name": "x"}])
    with pytest.raises(TypeError, match="boundaries are values of the key 'name', which is string; got int64"):
        ds.sort("name", boundaries=[1])
    with pytest.raises(ValueError, match="got None among"):
        ds.sort("id", boundaries=[1, None])
    unknown = ds.filter(lambda row: True).map(lambda row: row).sort("id", boundaries=["x", "y"])
    with pytest.raises(ValueError, match="is string in the boundaries and int64 in the rows"):
        [*local.tables(running.staged(unknown._node, data.DataContext()))]


def test_views_are_plain_in_blocks_as_kernels_take_no_views() -> None:
    columns = {
        "k": pa.array(["b", "a", None], pa.string_view()),
        "b": pa.array([b"b", None, b"a"], pa.binary_view()),
        "l": pa.array([["x"], [], None], pa.list_(pa.string_view())),
        "s": pa.array([{"z": "x"}, None, {"z": None}], pa.struct({"z": pa.string_view()})),
    }
    table = pa.table(columns)
    (batch,) = table.to_batches()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for ds in (
        data.from_arrow(table),
        data.from_arrow(batch),
        data.from_arrow(sink.getvalue()),
        data.from_blocks([table]),
    ):
        assert ds.sort("k").take_all() == table.to_pylist()[1::-1] + table.to_pylist()[2:]


def test_a_repr_opens_no_file(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    data.range(3).write_parquet(path)
    ds = data.read_parquet(path)
    shutil.rmtree(path)
    assert repr(ds) == "Dataset(num_rows=unknown, schema=unknown, plan=ReadParquet)"
    assert repr(data.range(3).with_column("x", col("id") * 0.5)) == (
        "Dataset(num_rows=3, schema={id: int64, x: double}, plan=Project)"
    )


def test_a_repr_shows_a_schema_that_was_asked_for(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    data.range(3).write_parquet(path)
    ds = data.read_parquet(path)
    ds.schema()
    shutil.rmtree(path)
    assert repr(ds) == "Dataset(num_rows=unknown, schema={id: int64}, plan=ReadParquet)"


def test_streaming_train_test_split_takes_means_of_its_tasks() -> None:
    train, _test = data.range(10).streaming_train_test_split(0.2, seed=1, num_cpus=0.5)
    (project,) = (node for node in logical.each(train._node) if isinstance(node, logical.Project) and not node.dropped)
    assert project.means.resources.num_cpus == 0.5
