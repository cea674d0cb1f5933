"""Blocks of a user's function may differ in their columns. What is null of that, what is an error, and which types come out do
not depend on how rows are divided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plan_models
import pyarrow as pa
import pytest

from umbel import data
from umbel.data import aggregate, window
from umbel.data._blocks import grouping, partitioning, schemas
from umbel.data._engine import local
from umbel.data._plan import kernels, running
from umbel.data.expressions import col

Of = Callable[[data.Dataset], data.Dataset]
CONTEXTS = {"whole": data.DataContext(), "in pieces": plan_models.pieces()}


def of_function(*tables: pa.Table) -> data.Dataset:
    """A block for each table, made by a function, so that nothing is known of them."""
    numbers = [pa.table({"n": [number]}) for number in range(len(tables))]
    return data.from_blocks(numbers).map_batches(
        lambda batch: tables[batch["n"][0].as_py()], batch_size=1, batch_format="pyarrow"
    )


def tables_of(dataset: data.Dataset, context: data.DataContext) -> list[pa.Table]:
    return [*local.tables(running.staged(dataset._node, context))]


def rows_of(dataset: data.Dataset, context: data.DataContext) -> list[Any]:
    return schemas.concat(tables_of(dataset, context)).to_pylist()


def same(batch: Any) -> Any:
    return batch


LACKING = pa.table({"a": [1, 2]})
HAVING = pa.table({"a": [3, 4], "b": ["x", "y"]})
OTHER = data.from_arrow(pa.table({"b": ["x"], "t": [1]}))
NAMED: dict[str, Of] = {
    "filter": lambda ds: ds.filter(expr=col("b") == "x"),
    "with_column": lambda ds: ds.with_column("c", col("b").str.upper()),
    "select_columns": lambda ds: ds.select_columns(["b"]),
    "rename_columns": lambda ds: ds.rename_columns({"b": "c"}),
    "groupby": lambda ds: ds.groupby("b").count(),
    "min": lambda ds: ds.groupby("a").min("b"),
    "min of all": lambda ds: ds.groupby(None).min("b"),
    "unique": lambda ds: ds.groupby(None).aggregate(aggregate.Unique("b")),
    "sort": lambda ds: ds.sort("b"),
    "sort with boundaries": lambda ds: ds.sort("b", boundaries=["x", "y"]),
    "top": lambda ds: ds.sort("b").limit(1),
    "distinct": lambda ds: ds.distinct("b"),
    "join": lambda ds: ds.join(OTHER, on="b", broadcast=False),
    "join with a small table": lambda ds: ds.join(OTHER, on="b", broadcast=True),
    "join on the right": lambda ds: OTHER.join(ds, on="b", join_type="outer"),
    "join_asof": lambda ds: ds.join_asof(OTHER, on="a", right_on="t", by="b"),
    "window by": lambda ds: ds.window({"n": window.count()}, partition_by="b"),
    "window in order": lambda ds: ds.window({"n": window.row_number()}, order_by="b"),
    "window of": lambda ds: ds.window({"n": window.count("b")}, partition_by="a"),
    "repartition": lambda ds: ds.repartition(2, keys=["b"]),
    "map_groups": lambda ds: ds.groupby("b").map_groups(same, batch_format="pyarrow"),
}
UNNAMED: dict[str, Of] = {
    "nothing": lambda ds: ds,
    "sort": lambda ds: ds.sort("a"),
    "repartition": lambda ds: ds.repartition(3),
    "repartition by key": lambda ds: ds.repartition(3, keys=["a"]),
    "shuffle": lambda ds: ds.random_shuffle(seed=1),
    "distinct": lambda ds: ds.distinct(),
    "distinct by key": lambda ds: ds.distinct("a"),
    "map_groups": lambda ds: ds.groupby("a").map_groups(same, batch_format="pyarrow"),
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("tables", [(LACKING, HAVING), (HAVING, LACKING)], ids=["lacking first", "lacking last"])
@pytest.mark.parametrize("name", NAMED)
def test_a_column_that_an_operator_names_and_a_block_lacks_is_an_error(
    name: str, tables: Sequence[pa.Table], context: str
) -> None:
    with pytest.raises(KeyError, match=r"'b' is not a column; .*A block has a: int64.*let it give the column always"):
        tables_of(NAMED[name](of_function(*tables)), CONTEXTS[context])


# What is divided in this process is so block by block.
@pytest.mark.parametrize("name", [name for name in NAMED if name not in ("sort with boundaries", "repartition")])
def test_the_error_has_the_schema_of_a_block_that_has_the_column(name: str) -> None:
    """Of those of one task."""
    dataset = data.from_blocks([LACKING]).map_batches(lambda _: iter([HAVING, LACKING]), batch_format="pyarrow")
    with pytest.raises(KeyError, match="A block has a: int64, and another one a: int64, b: string"):
        tables_of(NAMED[name](dataset), CONTEXTS["whole"])


@pytest.mark.parametrize("name", UNNAMED)
@pytest.mark.parametrize("context", CONTEXTS)
def test_a_column_that_no_operator_names_is_null_where_it_is_missing(name: str, context: str) -> None:
    found = rows_of(UNNAMED[name](of_function(HAVING, LACKING)), CONTEXTS[context])
    expected = [{"a": 1, "b": None}, {"a": 2, "b": None}, {"a": 3, "b": "x"}, {"a": 4, "b": "y"}]
    assert sorted(found, key=lambda row: row["a"]) == expected


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", NAMED)
def test_a_block_without_columns_and_rows_says_nothing(name: str, context: str) -> None:
    of = NAMED[name]
    expected = rows_of(of(of_function(HAVING)), CONTEXTS["whole"])
    for tables in [(pa.table({}), HAVING), (HAVING, pa.table({}))]:
        found = rows_of(of(of_function(*tables)), CONTEXTS[context])
        assert sorted(found, key=repr) == sorted(expected, key=repr)


@pytest.mark.parametrize("context", CONTEXTS)
def test_rows_that_become_equal_are_one(context: str) -> None:
    tables = [
        pa.table({"a": [1], "b": ["x"]}),
        pa.table({"b": ["x"], "a": [1]}),  # in another order
        pa.table({"a": [2]}),
        pa.table({"a": [2], "b": pa.array([None], pa.string())}),
        pa.table({"a": [2], "b": pa.nulls(1)}),
    ]
    found = rows_of(of_function(*tables).distinct(), CONTEXTS[context])
    assert sorted(found, key=repr) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]


@pytest.mark.parametrize("context", CONTEXTS)
def test_structs_that_become_equal_are_one_key(context: str) -> None:
    tables = [
        pa.table({"s": [{"a": 1}]}),
        pa.table({"s": [{"a": 1, "b": None}]}),
        pa.table({"s": [{"b": "x", "a": 1}]}),
        pa.table({"s": [{"a": 1, "b": "x"}]}),
    ]
    (found,) = schemas.concat(tables_of(of_function(*tables).groupby("s", 5).count(), CONTEXTS[context])).select(
        ["count()"]
    )
    assert found.to_pylist() == [2, 2]


TYPES: dict[str, tuple[pa.Array, pa.Array, pa.DataType]] = {
    "unsigned and signed": (pa.array([1, 2], pa.uint8()), pa.array([3, 4], pa.int64()), pa.int64()),
    "integers and floats": (pa.array([1, 2]), pa.array([0.5, 4]), pa.float64()),
    "scales": (pa.array([1, 2], pa.decimal128(5, 1)), pa.array([3, 4], pa.decimal128(7, 3)), pa.decimal128(38, 3)),
    "nulls": (pa.nulls(2), pa.array([3, 4]), pa.int64()),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_all_partitions_have_the_types_of_all_blocks(name: str, is_reversed: bool) -> None:
    """Each key is in one block alone, so that no partition that has only rows of one block would know of the other's types."""
    *arrays, kind = TYPES[name]
    blocks = [
        pa.table({"k": [2 * at, 2 * at + 1], "x": array})
        for at, array in enumerate(arrays[::-1] if is_reversed else arrays)
    ]
    dataset = of_function(*blocks)
    whole = data.from_arrow(schemas.concat(blocks))
    for of in (
        lambda ds: ds.groupby("k", 4).sum("x"),
        lambda ds: ds.groupby("k", 4).aggregate(aggregate.Min("x"), aggregate.AsList("x"), aggregate.Mean("x")),
        lambda ds: ds.repartition(4, keys=["k"]),
        lambda ds: ds.sort("k", boundaries=[1, 2, 3]),
        lambda ds: ds.join(data.from_arrow(pa.table({"k": [0, 1, 2, 3]})), on="k", num_partitions=4, broadcast=False),
    ):
        found = tables_of(of(dataset), CONTEXTS["whole"])
        expected = tables_of(of(whole), CONTEXTS["whole"])
        assert {str(table.schema) for table in found} == {str(expected[0].schema)}
        assert sorted(schemas.concat(found).to_pylist(), key=repr) == sorted(
            schemas.concat(expected).to_pylist(), key=repr
        )
    assert tables_of(dataset.groupby("k", 4).sum("x"), CONTEXTS["whole"])[0].schema.field("sum(x)").type == kind


def test_sums_of_states_that_one_task_divides_unify_as_values_do() -> None:
    """As on workers, where a task that divides has several blocks at once."""
    how = grouping.Grouping(["k"], [aggregate.Sum("x"), aggregate.Mean("x")])
    for values in ([pa.array([1]), pa.array([0.5])], [pa.array([0.5]), pa.array([2**60])]):
        parts = [how.partial(pa.table({"k": [7], "x": one})) for one in values]
        by_group = kernels.ByGroup(how)
        (table,) = by_group(by_group.together(parts), 1, None)
        total = sum(float(one[0].as_py()) for one in values)
        assert how.finish(table).to_pylist() == [{"k": 7, "sum(x)": total, "mean(x)": total / 2}]


def test_rows_by_all_columns_go_where_equal_ones_go_whatever_their_tables_lack() -> None:
    full = pa.table({"a": range(50), "b": pa.nulls(50, pa.int32())})
    for other in (full.select(["a"]), full.select(["b", "a"])):
        parts = [[part["a"].to_pylist() for part in partitioning.by_row(table, 7)] for table in (full, other)]
        assert parts[0] == parts[1]
        assert sum(map(bool, parts[0])) > 1


def test_boundaries_are_of_blocks_that_have_columns() -> None:
    sample = kernels.KeySample(("a",))
    samples = [sample(table) for table in (pa.table({}), HAVING, pa.table({}))]
    found = kernels.SortBoundaries(("a",), (False,))(samples, 2)
    assert (found.keys.to_pylist(), found.blocks.tolist()) == ([{"a": 4}], [1])
    by_range = kernels.ByRange(("a",), (False,))
    assert [part.num_rows for part in by_range(pa.table({}), 2, found)] == [0, 0]
    assert by_range.together([pa.table({}), HAVING]).equals(HAVING)


@pytest.mark.parametrize("wider", [pa.array([5]), pa.array([0.5]), pa.array([5], pa.decimal128(5, 1))])
def test_a_magnitude_fits_if_it_fits_the_type_of_all_blocks(wider: pa.Array) -> None:
    blocks = [pa.table({"x": pa.array([-128, 7], pa.int8())}), pa.table({"x": wider})]
    how = grouping.Grouping([], [aggregate.AbsMax("x")])
    for tables in (blocks, blocks[::-1]):
        found = how.finish(how.combine([how.partial(table) for table in tables]))
        assert found.equals(how.whole(schemas.concat(tables)))
        assert found.to_pylist() == [{"abs_max(x)": 128}]
    assert how.schema(blocks[0].schema) == pa.schema({"abs_max(x)": pa.int8()})
    with pytest.raises(OverflowError, match="'x' does not fit into int8"):
        how.whole(blocks[0])
