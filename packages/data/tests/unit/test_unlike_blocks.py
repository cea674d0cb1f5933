"""Blocks of a user's function may differ in their types: what is made of them is what is made of them under one schema."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import plan_models
import pyarrow as pa
import pytest

from umbel import data
from umbel.data import aggregate, window
from umbel.data._blocks import grouping, ordering, schemas
from umbel.data._engine import local
from umbel.data._plan import running

D = decimal.Decimal
DAY = datetime.datetime(2020, 1, 1)
ZONED = DAY.replace(tzinfo=datetime.timezone.utc)
NAN = float("nan")
PAIRS: dict[str, tuple[pa.Array, pa.Array]] = {
    "integers and floats": (pa.array([1, 2, 3]), pa.array([1.0, 2.5, None])),
    "floats and integers": (pa.array([1.0, 2.5, None]), pa.array([1, 2, 3])),
    "widths": (pa.array([1, 2], pa.int8()), pa.array([2, 300], pa.int64())),
    "unsigned and wider": (pa.array([1, 2**64 - 1], pa.uint64()), pa.array([1, 2], pa.uint8())),
    "float widths": (pa.array([1, 0.5], pa.float32()), pa.array([0.5, NAN])),
    "scales": (pa.array([D("1.5"), D("2.0")]), pa.array([D("1.500"), D("12345678901234567890123456789.1")])),
    "decimals and integers": (pa.array([D("1.5"), D("2.0")]), pa.array([2, 3])),
    "decimal widths": (pa.array([D("1.5"), D("2.0")]), pa.array([D("1.5"), D(10) ** 50])),
    "no numbers": (pa.array([None, None]), pa.array([1, None])),
    "durations": (pa.array([1, 2], pa.duration("s")), pa.array([1000, 7], pa.duration("ms"))),
    "times": (pa.array([1, 2], pa.time32("s")), pa.array([1000, 7], pa.time32("ms"))),
    "units": (pa.array([DAY], pa.timestamp("s")), pa.array([DAY, DAY.replace(microsecond=5)], pa.timestamp("us"))),
    "zones": (pa.array([ZONED], pa.timestamp("s", "Asia/Tokyo")), pa.array([ZONED, None], pa.timestamp("us", "UTC"))),
    "dictionaries": (pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c"]).dictionary_encode()),
    "dictionary and text": (pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c"])),
    "offsets": (pa.array(["a", "b"]), pa.array(["b", "c"], pa.large_string())),
    "no text": (pa.array([None, None]), pa.array(["b", None])),
    "lists": (pa.array([[1], [2, 3]], pa.list_(pa.int8())), pa.array([[1], []], pa.list_(pa.float64()))),
    "empty lists": (pa.array([[], None]), pa.array([[1], []], pa.list_(pa.float64()))),
    "structs": (pa.array([{"a": 1}]), pa.array([{"a": 1, "b": "x"}, {"a": 1, "b": None}])),
}
Of = Callable[[data.Dataset], data.Dataset]
OPERATORS: dict[str, Of] = {
    "count": lambda ds: ds.groupby("k").count(),
    "distinct": lambda ds: ds.distinct("k"),
    "repartition": lambda ds: ds.repartition(2, keys=["k"]),
    "shuffle": lambda ds: ds.random_shuffle(seed=1),
    "zip": lambda ds: ds.zip(ds),
    "window": lambda ds: ds.window({"n": window.count()}, partition_by="k"),
    "map_groups": lambda ds: ds.groupby("k").map_groups(plan_models.with_size, batch_format="pyarrow"),
    "map_batches": lambda ds: ds.map_batches(plan_models.same, batch_size=4, batch_format="pyarrow"),
    "join": lambda ds: ds.join(ds.rename_columns({"i": "j", "g": "h"}), on="k"),
}
ORDERED: dict[str, Of] = {
    "sort": lambda ds: ds.sort(["k", "i"]),
    "falling": lambda ds: ds.sort("k", descending=True),
    "top": lambda ds: ds.sort(["k", "i"]).limit(2),
    "row numbers": lambda ds: ds.window({"n": window.row_number()}, order_by=["k", "i"]),
    "edges": lambda ds: ds.groupby("g").aggregate(aggregate.Min("k"), aggregate.Max("k")),
}
OF_VALUES = [aggregate.Unique, aggregate.CountDistinct, aggregate.AsList, aggregate.First, aggregate.Last]
OF_NUMBERS = [aggregate.Mean, aggregate.Std, aggregate.Quantile, aggregate.ZeroPercentage]


def operators(kind: pa.DataType) -> dict[str, Of]:
    found = {**OPERATORS, "values": lambda ds: ds.groupby("g").aggregate(*(one("k") for one in OF_VALUES))}
    if ordering.has_order(kind):
        found |= ORDERED
    if kind in (pa.int64(), pa.uint64(), pa.float64()) or pa.types.is_decimal(kind):
        found["numbers"] = lambda ds: ds.groupby("g").aggregate(*(one("k") for one in OF_NUMBERS))
    if kind in (pa.int64(), pa.float64()) or pa.types.is_decimal(kind) or pa.types.is_duration(kind):
        found["sum"] = lambda ds: ds.groupby("g").aggregate(aggregate.Sum("k"))
    return found


def rows(dataset: data.Dataset, context: data.DataContext) -> list[Any]:
    tables = [*local.tables(running.staged(dataset._node, context))]
    schema = plan_models.whole(tables)
    found = [row for table in tables for row in plan_models.rows_of(schemas.conform(table, schema))]
    return plan_models.normal_rows(found, schema.names, is_ordered=False)


@pytest.mark.parametrize("name", PAIRS)
def test_types_of_blocks_make_no_difference(name: str) -> None:
    tables: list[pa.Table] = []
    for array in PAIRS[name]:
        numbers = [*range(3 * len(tables), 3 * len(tables) + len(array))]
        tables.append(pa.table({"k": array, "i": numbers, "g": [number % 2 for number in numbers]}))
    alike = data.from_arrow(schemas.concat(tables))
    unlike = data.from_blocks([pa.table({"n": [0]}), pa.table({"n": [1]})]).map_batches(
        lambda batch: tables[batch["n"][0].as_py()], batch_size=1, batch_format="pyarrow"
    )
    for operator, of in operators(schemas.concat(tables).schema.field("k").type).items():
        expected = rows(of(alike), data.DataContext())
        assert rows(of(unlike), data.DataContext()) == expected, operator
        assert rows(of(unlike), plan_models.pieces()) == expected, operator


def test_a_sum_of_types_that_do_not_unify_names_the_column_and_both_types() -> None:
    tables = [pa.table({"k": [True]}), pa.table({"k": [1]})]
    how = grouping.Grouping([], [aggregate.Sum("k")])
    with pytest.raises(ValueError, match=r"'k'.*bool.*int64"):
        how.combine([how.partial(table) for table in tables])


def test_the_first_of_tensors_is_a_tensor_of_blocks_of_other_shapes_too() -> None:
    shapes = [plan_models.array("tensor", [None]), plan_models.array("ragged", plan_models.TENSORS["ragged"])]
    how = grouping.Grouping([], [aggregate.First("k"), aggregate.Last("k")])
    for array in shapes:
        table = pa.table({"k": array})
        found = how.finish(how.combine([how.partial(table), how.partial(table)]))
        assert found.schema.types == [array.type] * 2
        assert found.schema == how.schema(table.schema)
    (row,) = plan_models.rows_of(found)
    assert [value.tolist() for value in row.values()] == [[0, 1], []]
