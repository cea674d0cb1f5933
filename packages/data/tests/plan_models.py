"""Random plans through the public methods of datasets, each with what plain Python makes of the same rows.

A `Frame` is the model of a dataset: names with the pool that their values come from, and rows as dictionaries. A step is a
method of datasets with its arguments, and what it makes of a frame. `plans` draws a source and some steps that fit, one after
the other, so that hypothesis can shrink all of it; `ways` runs a plan in this process in each way that must not matter.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hypothesis
import kernel_tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import strategies as st

from umbel import data
from umbel.data import aggregate, expressions, window
from umbel.data._blocks import schemas as block_schemas
from umbel.data._blocks import tensors, unpacking
from umbel.data._engine import local
from umbel.data._plan import rules, running
from umbel.data._plan import schemas as plan_schemas
from umbel.data.expressions import col, lit

pytest.importorskip("pandas", reason="batches of pandas are one of the formats")
LONG = 20  # times as many examples, other ones each time, with HYPOTHESIS_PROFILE=long: minutes


def checked(examples: int) -> hypothesis.settings:
    is_long = os.environ.get("HYPOTHESIS_PROFILE") == "long"
    return hypothesis.settings(
        max_examples=examples * (LONG if is_long else 1),
        deadline=None,
        database=None,
        derandomize=not is_long,
        print_blob=is_long,
        suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
    )


Row = dict[str, Any]
POOLS: dict[str, tuple[pa.DataType, list[Any]]] = {
    **kernel_tables.POOLS,
    "small": (pa.int64(), [-3, 0, 1, 2, 3, 9, None]),
    "narrow": (pa.int16(), [-7, 0, 5, None]),
    "flag": (pa.bool_(), [False, True, None]),
}
TENSORS = {
    "tensor": [np.arange(4, dtype=np.float32).reshape(2, 2), np.ones((2, 2), np.float32)],
    "ragged": [np.arange(2, dtype=np.int64), np.arange(3, dtype=np.int64), np.zeros(0, np.int64)],
}
KINDS = [*POOLS, *TENSORS]
SORTABLE = {*kernel_tables.SORTABLE, "small", "narrow", "flag"}
KEYS = SORTABLE | {"list", "struct", "nested"}
INTEGERS = {"small", "narrow", "int8"}  # few enough that no sum or product of some overflows
FLOATS = {"float64", "float32", "real"}
SUMMED = INTEGERS | {"decimal"}


@dataclasses.dataclass
class Frame:
    """kinds: of each column, by name, in order; "real" is a computed float, of which the last digits are not looked at.
    is_known: the dataset's columns are known before it runs."""

    kinds: dict[str, str]
    rows: list[Row]
    is_ordered: bool = True
    is_known: bool = True

    def of(self, kinds: set[str]) -> list[str]:
        return [name for name, kind in self.kinds.items() if kind in kinds]

    def with_rows(self, rows: list[Row], *, is_ordered: bool | None = None) -> Frame:
        return Frame(dict(self.kinds), rows, self.is_ordered if is_ordered is None else is_ordered)


@dataclasses.dataclass
class Plan:
    dataset: data.Dataset
    frame: Frame
    steps: list[str]

    def __repr__(self) -> str:
        return f"{' '.join(self.steps)}\n  expected {self.frame}"


Step = tuple[str, Callable[[data.Dataset], data.Dataset], Frame]


# ---------------------------------------------------------------------------------------------------------------------
# What is equal.


def normal(value: Any) -> Any:
    """Hashable, and equal where values are: an integer is no float and no truth, NaN is NaN; of floats nine digits."""
    if isinstance(value, (bool, np.bool_)):
        return ("bool", bool(value))
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return "NaN"
        return ("float", value + 0.0 if math.isinf(value) else float(f"{value:.9g}") + 0.0)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.ndarray):
        return (value.shape, normal(value.tolist()))
    if isinstance(value, dict):
        return tuple((name, normal(inner)) for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(normal(inner) for inner in value)
    return value


def normal_rows(rows: Sequence[Row], names: Sequence[str], *, is_ordered: bool) -> list[Any]:
    found = [tuple(normal(row[name]) for name in names) for row in rows]
    return found if is_ordered else sorted(found, key=repr)


def rows_of(table: pa.Table) -> list[Row]:
    """By PyArrow, but for tensors."""
    found = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if tensors.is_tensor(column.type):
            found[name] = [one for chunk in column.chunks for one in unpacking.to_values(chunk)]
        else:
            found[name] = column.to_pylist()
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def check(found: Sequence[pa.Table], frame: Frame, what: str) -> None:
    """The tables have the frame's rows."""
    rows = [row for table in found for row in rows_of(block_schemas.conform(table, whole(found)))]
    if found:
        assert whole(found).names == [*frame.kinds], what
    compare(rows, frame, what)


def compare(rows: Sequence[Row], frame: Frame, what: str) -> None:
    names = [*frame.kinds]
    expected = normal_rows(frame.rows, names, is_ordered=frame.is_ordered)
    assert normal_rows(rows, names, is_ordered=frame.is_ordered) == expected, what


def whole(found: Sequence[pa.Table]) -> pa.Schema:
    return block_schemas.unify([(table.schema, f"block {number}") for number, table in enumerate(found)])


# ---------------------------------------------------------------------------------------------------------------------
# Ways to run a plan.


def pieces() -> data.DataContext:
    """Blocks and partitions of a row or so each."""
    return data.DataContext(target_max_block_size=40, target_shuffle_block_size=60)


def ways(dataset: data.Dataset) -> Iterator[tuple[str, list[pa.Table]]]:
    """The tables that come of a plan in each way to run it in this process, user's functions too."""
    node = dataset._node
    usual = data.DataContext()
    yield "as rewritten", [*local.tables(running.staged(rules.optimized(node), usual))]
    yield "as written", [*local.tables(running.staged(node, usual))]
    yield "in pieces", [*local.tables(running.staged(rules.optimized(node), pieces()))]
    yield "as written, in pieces", [*local.tables(running.staged(node, pieces()))]


def check_ways(plan: Plan, found: Iterator[tuple[str, list[pa.Table]]]) -> None:
    """Each has the rows of the model, and the schema that was foretold."""
    foretold = plan_schemas.of(plan.dataset._node)
    for way, tables in found:
        check(tables, plan.frame, way)
        if foretold is not None and tables:
            assert whole(tables).equals(foretold), (way, whole(tables), foretold)


# ---------------------------------------------------------------------------------------------------------------------
# Sources.


def array(kind: str, values: list[Any]) -> pa.Array:
    if kind not in TENSORS:
        return pa.array(values, POOLS[kind][0])
    pool = [*TENSORS[kind]]
    made = tensors.from_arrays(pool + values)  # with at least one value, so that there is a type
    return made.slice(len(pool))


def pool(kind: str) -> list[Any]:
    return [*TENSORS[kind], None] if kind in TENSORS else POOLS[kind][1]


NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def frames(
    draw: st.DrawFn, names: Sequence[str] = NAMES, row_count: int | None = None, kinds: dict[str, str] | None = None
) -> tuple[data.Dataset, Frame, str]:
    """A dataset of blocks, some of them empty, with its model."""
    if kinds is None:
        chosen = names[: draw(st.integers(1, 4))]
        # Small integers first, since much needs them.
        kinds = {name: "small" if name == "a" else draw(st.sampled_from(KINDS)) for name in chosen}
    count = draw(st.one_of(st.integers(3, 8), st.integers(0, 2))) if row_count is None else row_count
    columns = {
        name: array(kind, [draw(st.sampled_from(pool(kind))) for _ in range(count)]) for name, kind in kinds.items()
    }
    table = pa.table(columns)
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=3)))
    blocks = [table.slice(first, last - first) for first, last in itertools.pairwise([0, *cuts, count])]
    dataset = data.from_blocks(blocks)
    sizes = [block.num_rows for block in blocks]
    return dataset, Frame(kinds, rows_of(table)), f"from_blocks({kinds}, rows {sizes})"


# ---------------------------------------------------------------------------------------------------------------------
# Expressions, with what they are of a row.

Made = tuple[expressions.Expr, Callable[[Row], Any]]


def integer(draw: st.DrawFn, frame: Frame) -> Made:
    name = draw(st.sampled_from(frame.of(INTEGERS)))
    other = draw(st.sampled_from(frame.of(INTEGERS)))
    number = draw(st.integers(-3, 3))

    def null(fn: Callable[[int, int], int]) -> Callable[[Row], Any]:
        return lambda row: None if row[name] is None or row[other] is None else fn(row[name], row[other])

    return draw(
        st.sampled_from(
            [
                (col(name) + col(other), null(lambda x, y: x + y)),
                (col(name) * lit(number), lambda row: None if row[name] is None else row[name] * number),
                (col(name) - col(other), null(lambda x, y: x - y)),
                (col(name) // lit(2), lambda row: None if row[name] is None else row[name] // 2),
                (col(name) % lit(-2), lambda row: None if row[name] is None else row[name] % -2),
                (col(name).fill_null(number), lambda row: number if row[name] is None else row[name]),
                (
                    expressions.when(col(name) > number).then(col(other)).otherwise(lit(7)),
                    lambda row: row[other] if row[name] is not None and row[name] > number else 7,
                ),
                (
                    expressions.coalesce(col(name), col(other)),
                    lambda row: row[other] if row[name] is None else row[name],
                ),
            ]
        )
    )


def truth(draw: st.DrawFn, frame: Frame, depth: int = 0) -> Made:
    """True, false or null."""
    simple: list[Made] = []
    if not frame.kinds:
        return lit(True), lambda row: True
    name = draw(st.sampled_from([*frame.kinds]))
    simple.append((col(name).is_null(), lambda row: row[name] is None))
    for number in frame.of(INTEGERS)[:2]:
        bound = draw(st.integers(-1, 3))
        simple.append((col(number) > bound, lambda row, n=number, b=bound: None if row[n] is None else row[n] > b))  # type: ignore[misc]
        simple.append(
            (col(number).is_in([bound, 9]), lambda row, n=number, b=bound: None if row[n] is None else row[n] in (b, 9))
        )  # type: ignore[misc]
    for text in frame.of({"string", "dictionary", "large_string"})[:1]:
        simple.append((col(text) == "a", lambda row, n=text: None if row[n] is None else row[n] == "a"))  # type: ignore[misc]
    for flag in frame.of({"bool", "flag"})[:1]:
        simple.append((col(flag), lambda row, n=flag: row[n]))  # type: ignore[misc]
    expr, fn = draw(st.sampled_from(simple))
    if depth == 2:
        return expr, fn
    how = draw(st.sampled_from(["", "", "not", "and", "or"]))
    if how == "not":
        return ~expr, lambda row: None if fn(row) is None else not fn(row)
    if how:
        other, other_fn = truth(draw, frame, depth + 1)
        return (expr & other if how == "and" else expr | other), lambda row: kleene(how, fn(row), other_fn(row))
    return expr, fn


def kleene(how: str, one: bool | None, other: bool | None) -> bool | None:
    decides = how == "or"
    if one is decides or other is decides:
        return decides
    return None if one is None or other is None else not decides


# ---------------------------------------------------------------------------------------------------------------------
# Functions of users. They travel.


def copied(row: Row) -> Row:
    return dict(row)


def nulls(row: Row) -> int:
    return sum(value is None for value in row.values())


def with_nulls(row: Row) -> Row:
    return {**row, "n": nulls(row)}


def drifting(row: Row) -> Row:
    """Whose new column is an integer in some rows and a float in others."""
    count = nulls(row)
    return {**row, "n": count if count else 0.5}


def reversed_row(row: Row) -> Row:
    return dict(reversed(row.items()))


def repeated(row: Row) -> list[Row]:
    return [row] * (nulls(row) + 1)


def yielded(row: Row) -> Iterator[Row]:
    for _ in range(2 - nulls(row)):
        yield dict(row)


def is_whole(row: Row) -> bool:
    return nulls(row) == 0


def same(batch: Any) -> Any:
    return batch


def halves(batch: Any) -> Iterator[Any]:
    count = rows_in(batch)
    yield cut(batch, 0, count // 2)
    yield cut(batch, count // 2, count)


def rows_in(batch: Any) -> int:
    if isinstance(batch, dict):
        return len(next(iter(batch.values())))
    return int(batch.num_rows) if isinstance(batch, pa.Table) else len(batch)


def cut(batch: Any, first: int, last: int) -> Any:
    if isinstance(batch, dict):
        return {name: values[first:last] for name, values in batch.items()}
    if hasattr(batch, "iloc"):
        return batch.iloc[first:last]
    return batch[first:last] if isinstance(batch, pa.Table) else batch.slice(first, last - first)


def with_size(group: pa.Table) -> pa.Table:
    at = group.schema.get_field_index("size")
    column = pa.array([group.num_rows] * group.num_rows, pa.int64())
    return group.append_column("size", column) if at < 0 else group.set_column(at, "size", column)


# ---------------------------------------------------------------------------------------------------------------------
# Steps. Each draws its arguments; None where it does not fit the frame.


def _map(draw: st.DrawFn, frame: Frame) -> Step | None:
    if not frame.rows:
        return None
    fn = draw(st.sampled_from([with_nulls, reversed_row, drifting]))
    made = [fn(row) for row in frame.rows]
    names = dict.fromkeys(name for row in made for name in row)
    rows = [{name: row.get(name) for name in names} for row in made]
    kinds = {name: frame.kinds.get(name, "small") for name in names}
    if fn is with_nulls:
        kinds["n"] = "small"
    elif fn is drifting:
        if "n" in frame.kinds:
            return None
        is_float = any(isinstance(row["n"], float) for row in rows)
        kinds["n"] = "float64" if is_float else "small"
        rows = [{**row, "n": float(row["n"])} for row in rows] if is_float else rows
    return f".map({fn.__name__})", lambda ds: ds.map(fn), Frame(kinds, rows, frame.is_ordered)


def _flat_map(draw: st.DrawFn, frame: Frame) -> Step | None:
    fn = draw(st.sampled_from([repeated, yielded]))
    rows = [one for row in frame.rows for one in fn(row)]
    if not rows:
        return None  # without rows there are no columns
    return f".flat_map({fn.__name__})", lambda ds: ds.flat_map(fn), frame.with_rows(rows)


def _map_batches(draw: st.DrawFn, frame: Frame) -> Step | None:
    form = draw(st.sampled_from(["numpy", "pandas", "pyarrow", "polars", None]))
    if not frame.rows or (form == "polars" and frame.of({"decimal256"})):  # which it has not
        return None  # without rows there are no columns
    if (
        form in FLOAT_NULLS
        and not frame.is_known
        and any(row[name] is None for row in frame.rows for name in frame.of(FLOATS))
    ):
        return None  # a block may have only nulls, of no type, which are no NaN
    size = draw(st.sampled_from([None, 1, 2, 3, 100, "auto"]))
    fn = draw(st.sampled_from([same, halves]))
    text = f".map_batches({fn.__name__}, batch_size={size!r}, batch_format={form!r})"
    return (
        text,
        lambda ds: ds.map_batches(fn, batch_size=size, batch_format=form),
        frame.with_rows(through(form, frame)),
    )


FLOAT_NULLS = {"numpy": math.nan, "pandas": None}  # what is both null and NaN there, comes back as one of them


def through(form: str | None, frame: Frame) -> list[Row]:
    """The rows, as they come back from batches of this form."""
    if form not in FLOAT_NULLS:
        return frame.rows
    floats, missing = frame.of(FLOATS), FLOAT_NULLS[form]
    return [
        {name: missing if name in floats and is_missing(value) else value for name, value in row.items()}
        for row in frame.rows
    ]


def is_missing(value: Any) -> bool:
    return value is None or math.isnan(value)


def _filter_by_expression(draw: st.DrawFn, frame: Frame) -> Step:
    expr, fn = truth(draw, frame)
    rows = [row for row in frame.rows if fn(row) is True]
    return f".filter({expr!r})", lambda ds: ds.filter(expr=expr), frame.with_rows(rows)


def _filter(draw: st.DrawFn, frame: Frame) -> Step:
    return ".filter(is_whole)", lambda ds: ds.filter(is_whole), frame.with_rows([*filter(is_whole, frame.rows)])


def _with_column(draw: st.DrawFn, frame: Frame) -> Step:
    name = draw(st.sampled_from([*frame.kinds, "x"]))
    if frame.of(INTEGERS) and draw(st.booleans()):
        (expr, fn), kind = integer(draw, frame), "small"
    else:
        (expr, fn), kind = truth(draw, frame), "flag"
    rows = [{**row, name: fn(row)} for row in frame.rows]
    bounded = all(abs(row[name] or 0) < 1 << 30 for row in rows)
    made = Frame({**frame.kinds, name: kind if bounded else "int64"}, rows, frame.is_ordered)
    return f".with_column({name!r}, {expr!r})", lambda ds: ds.with_column(name, expr), made


def _select(draw: st.DrawFn, frame: Frame) -> Step:
    names = draw(st.lists(st.sampled_from([*frame.kinds]), min_size=1, unique=True))
    rows = [{name: row[name] for name in names} for row in frame.rows]
    made = Frame({name: frame.kinds[name] for name in names}, rows, frame.is_ordered)
    return f".select_columns({names})", lambda ds: ds.select_columns(names), made


def _drop(draw: st.DrawFn, frame: Frame) -> Step | None:
    if len(frame.kinds) < 2:
        return None
    name = draw(st.sampled_from([*frame.kinds]))
    rows = [{one: value for one, value in row.items() if one != name} for row in frame.rows]
    kinds = {one: kind for one, kind in frame.kinds.items() if one != name}
    return f".drop_columns({name!r})", lambda ds: ds.drop_columns(name), Frame(kinds, rows, frame.is_ordered)


def _rename(draw: st.DrawFn, frame: Frame) -> Step:
    old = draw(st.lists(st.sampled_from([*frame.kinds]), min_size=1, max_size=2, unique=True))
    new = [*reversed(old)] if len(old) == 2 else draw(st.sampled_from([old, ["z"]]))
    if new == ["z"] and "z" in frame.kinds:
        new = old
    names = dict(zip(old, new, strict=True))
    rows = [{names.get(name, name): value for name, value in row.items()} for row in frame.rows]
    kinds = {names.get(name, name): kind for name, kind in frame.kinds.items()}
    return f".rename_columns({names})", lambda ds: ds.rename_columns(names), Frame(kinds, rows, frame.is_ordered)


def _limit(draw: st.DrawFn, frame: Frame) -> Step | None:
    count = draw(st.integers(0, 10))
    if not frame.is_ordered and 0 < count < len(frame.rows):
        return None
    return f".limit({count})", lambda ds: ds.limit(count), frame.with_rows(frame.rows[:count])


def _random_sample(draw: st.DrawFn, frame: Frame) -> Step:
    fraction = draw(st.sampled_from([0.0, 1.0]))
    rows = frame.rows if fraction else []
    return f".random_sample({fraction})", lambda ds: ds.random_sample(fraction, seed=1), frame.with_rows(rows)


def _sort(draw: st.DrawFn, frame: Frame) -> Step | None:
    usable = frame.of(SORTABLE)
    if not usable:
        return None
    keys = draw(st.lists(st.sampled_from(usable), min_size=1, max_size=3, unique=True))
    descending = [draw(st.booleans()) for _ in keys]
    rows = sorted(frame.rows, key=lambda row: order_of(row, keys, descending))
    is_ordered = frame.is_ordered or {*keys} == {*frame.kinds}
    text = f".sort({keys}, descending={descending})"
    return text, lambda ds: ds.sort(keys, descending=descending), frame.with_rows(rows, is_ordered=is_ordered)


def order_of(row: Row, keys: Sequence[str], descending: Sequence[bool]) -> Any:
    pairs = zip(keys, descending, strict=True)
    return [kernel_tables.sort_key(row[key], is_descending=is_descending) for key, is_descending in pairs]


def _distinct(draw: st.DrawFn, frame: Frame) -> Step | None:
    usable = frame.of(KEYS)
    if not usable:
        return None
    keys = draw(st.lists(st.sampled_from(usable), min_size=1, unique=True))
    is_all = {*keys} == {*frame.kinds}
    if not frame.is_ordered and not is_all:
        return None
    keep = draw(st.sampled_from(["first", "last", "any"] if is_all else ["first", "last"]))
    found: dict[Any, Row] = {}
    for row in frame.rows if keep == "first" else reversed(frame.rows):
        found.setdefault(key_of(row, keys), row)
    on = None if is_all and draw(st.booleans()) else keys
    text = f".distinct({on}, keep={keep!r})"
    return text, lambda ds: ds.distinct(on, keep=keep), frame.with_rows([*found.values()], is_ordered=False)


def key_of(row: Row, keys: Sequence[str]) -> Any:
    return tuple(normal(row[key]) for key in keys)


def _repartition(draw: st.DrawFn, frame: Frame) -> Step:
    count = draw(st.integers(1, 4))
    how: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"num_blocks": count},
                {"target_num_rows_per_block": count},
                {"target_num_rows_per_block": count, "strict": True},
                {"num_blocks": count, "shuffle": True},
            ]
        )
    )
    keys = frame.of(SORTABLE)
    if keys and draw(st.booleans()):
        how = {"num_blocks": count, "keys": keys[:2], "sort": draw(st.booleans())}
    is_ordered = frame.is_ordered and not how.keys() & {"shuffle", "keys"}
    text = f".repartition({how})"
    return text, lambda ds: ds.repartition(**how), frame.with_rows(frame.rows, is_ordered=is_ordered)


def _shuffle(draw: st.DrawFn, frame: Frame) -> Step:
    if draw(st.booleans()):
        made = frame.with_rows(frame.rows, is_ordered=False)
        return ".randomize_block_order(seed=3)", lambda ds: ds.randomize_block_order(seed=3), made
    count = draw(st.sampled_from([None, 1, 3]))
    text = f".random_shuffle(seed=3, num_blocks={count})"
    return text, lambda ds: ds.random_shuffle(seed=3, num_blocks=count), frame.with_rows(frame.rows, is_ordered=False)


# Of the values of a group, in order: what an aggregation makes of them.
def _present(values: list[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _extreme(values: list[Any], *, is_highest: bool) -> Any:
    there = sorted(_present(values), key=kernel_tables.sort_key)
    known = [one for one in there if not (isinstance(one, float) and math.isnan(one))] or there
    return None if not known else known[-1 if is_highest else 0]


def _std(values: list[Any]) -> Any:
    there = [float(one) for one in _present(values)]
    if not there:
        return None
    return math.nan if len(there) == 1 else statistics.stdev(there)


Aggregated = tuple[Any, str, Callable[[list[Any]], Any]]  # the aggregation, what kind it makes, and how


def aggregations(name: str, kind: str, *, is_ordered: bool) -> list[Aggregated]:
    made: list[Aggregated] = [(aggregate.Count(name, ignore_nulls=True), "small", lambda some: len(_present(some)))]
    if kind in SUMMED:
        summed = "small" if kind in INTEGERS else "wide"
        made += [
            (aggregate.Sum(name), summed, lambda some: sum(_present(some)) if _present(some) else None),
            (
                aggregate.Mean(name),
                "real",
                lambda some: float(sum(_present(some))) / len(_present(some)) if _present(some) else None,
            ),
        ]
    if kind in INTEGERS:
        made += [
            (aggregate.Std(name), "real", _std),
            (
                aggregate.Sum(name, ignore_nulls=False),
                "small",
                lambda some: sum(some) if some and None not in some else None,
            ),
            (
                aggregate.Quantile(name),
                "real",
                lambda some: float(statistics.median(_present(some))) if _present(some) else None,
            ),
        ]
    if kind in SORTABLE - {"null"}:
        made += [
            (aggregate.Min(name), kind, lambda some: _extreme(some, is_highest=False)),
            (aggregate.Max(name), kind, lambda some: _extreme(some, is_highest=True)),
        ]
    if kind in KEYS:
        made.append((aggregate.CountDistinct(name), "small", lambda some: len({normal(one) for one in _present(some)})))
    if is_ordered and kind not in TENSORS:  # of which it makes lists
        made.append((aggregate.AsList(name), "any", lambda some: some))
        if kind in KEYS:
            made.append((aggregate.Unique(name), "any", _firsts))
    return made


def _firsts(values: list[Any]) -> list[Any]:
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(normal(value), value)
    return [*found.values()]


def _aggregate(draw: st.DrawFn, frame: Frame) -> Step | None:
    keys = draw(st.lists(st.sampled_from(frame.of(KEYS)), max_size=2, unique=True)) if frame.of(KEYS) else []
    aggs: list[Aggregated] = [(aggregate.Count(), "small", len)]
    reads: list[str | None] = [None]
    for name in draw(st.lists(st.sampled_from([*frame.kinds]), max_size=2, unique=True)):
        some = aggregations(name, frame.kinds[name], is_ordered=frame.is_ordered)
        aggs.append(draw(st.sampled_from(some)))
        reads.append(name)
    names = [one.name for one, _, _ in aggs]
    if {*names} & {*keys}:
        return None
    groups: dict[Any, list[Row]] = {} if keys else {(): []}
    for row in frame.rows:
        groups.setdefault(key_of(row, keys), []).append(row)
    rows = [
        {
            **{key: some[0][key] for key in keys},
            **{
                one.name: fn([row if read is None else row[read] for row in some])
                for (one, _, fn), read in zip(aggs, reads, strict=True)
            },
        }
        for some in groups.values()
    ]
    kinds = {**{key: frame.kinds[key] for key in keys}, **{one.name: kind for one, kind, _ in aggs}}
    count = draw(st.sampled_from([None, 1, 3]))
    text = f".groupby({keys}, {count}).aggregate({', '.join(names)})"
    given = [one for one, _, _ in aggs]
    return text, lambda ds: ds.groupby(keys or None, count).aggregate(*given), Frame(kinds, rows, is_ordered=False)


def _map_groups(draw: st.DrawFn, frame: Frame) -> Step | None:
    usable = frame.of(KEYS)
    if not usable or not frame.rows:
        return None
    keys = draw(st.lists(st.sampled_from(usable), min_size=1, max_size=2, unique=True))
    sizes: dict[Any, int] = {}
    for row in frame.rows:
        sizes[key_of(row, keys)] = sizes.get(key_of(row, keys), 0) + 1
    before = [key_of(row, keys) for row in frame.rows]
    rows = [{**row, "size": sizes[key]} for row, key in zip(frame.rows, before, strict=True)]
    made = Frame({**frame.kinds, "size": "small"}, rows, is_ordered=False)
    text = f".groupby({keys}).map_groups(with_size)"
    return text, lambda ds: ds.groupby(keys).map_groups(with_size, batch_format="pyarrow"), made


def _window(draw: st.DrawFn, frame: Frame) -> Step | None:
    usable = frame.of(SORTABLE)
    if not usable or not frame.is_ordered:
        return None
    by = draw(st.lists(st.sampled_from(frame.of(KEYS)), max_size=1))
    order = draw(st.lists(st.sampled_from(usable), max_size=2, unique=True))
    descending = [draw(st.booleans()) for _ in order]
    on = draw(st.sampled_from([*frame.kinds]))
    offset = draw(st.integers(-2, 2))
    functions: dict[str, Any] = {
        "w1": window.row_number(),
        "w2": window.rank(),
        "w3": window.lag(on, offset),
        "w4": window.count(on, rows=(1, 1)),
        "w5": window.dense_rank(),
    }
    summed = frame.of(INTEGERS)
    if summed:
        functions["w6"] = window.sum(summed[0], rows=(None, 0))
    parts: dict[Any, list[Row]] = {}
    for row in frame.rows:
        parts.setdefault(key_of(row, by), []).append(row)
    rows = []
    for part in parts.values():
        some = sorted(part, key=lambda row: order_of(row, order, descending))
        keys = [order_of(row, order, descending) for row in some]
        for at, row in enumerate(some):
            first = keys.index(keys[at])
            made: Row = {
                "w1": at + 1,
                "w2": first + 1,
                "w3": some[at - offset][on] if 0 <= at - offset < len(some) else None,
                "w4": len(_present([one[on] for one in some[max(at - 1, 0) : at + 2]])),
                "w5": len([key for place, key in enumerate(keys[: at + 1]) if place == 0 or key != keys[place - 1]]),
            }
            if summed:
                running_sum = _present([one[summed[0]] for one in some[: at + 1]])
                made["w6"] = sum(running_sum) if running_sum else None
            rows.append({**row, **made})
    kinds = {**frame.kinds, **dict.fromkeys(functions, "small"), "w3": frame.kinds[on]}
    text = f".window(w1 to w6 on {on!r} by {by}, order {order} {descending}, offset {offset}, sum of {summed[:1]})"
    return (
        text,
        lambda ds: ds.window(functions, partition_by=by or None, order_by=order or None, descending=descending),
        Frame(kinds, rows, is_ordered=False),
    )


def _union(draw: st.DrawFn, frame: Frame) -> Step | None:
    if draw(st.booleans()):
        return ".union(itself)", lambda ds: ds.union(ds), frame.with_rows(frame.rows * 2)
    if not frame.is_known:
        return None  # blocks have their own columns then, and what follows may not find some
    # Some of the columns, perhaps of a type that unifies, and perhaps one more.
    kinds = {name: kind for name, kind in frame.kinds.items() if kind in KINDS and draw(st.booleans())}
    wider = {"small": "float64", "narrow": "small", "dictionary": "string", "string": "large_string", "flag": "null"}
    merged = dict(frame.kinds)
    for name, kind in kinds.items():
        if kind in wider and draw(st.booleans()):
            kinds[name] = wider[kind]
            merged[name] = kind if wider[kind] == "null" else wider[kind]
    if not kinds or draw(st.booleans()):
        kinds["u"] = "small"
        if frame.kinds.get("u", "small") != "small":
            return None
        merged.setdefault("u", "small")
    other, other_frame, text = draw(frames(kinds=kinds))
    rows = [{name: row.get(name) for name in merged} for row in [*frame.rows, *other_frame.rows]]
    for name, kind in merged.items():
        if kind == "float64":
            rows = [{**row, name: None if row[name] is None else float(row[name])} for row in rows]
    return f".union({text})", lambda ds: ds.union(other), Frame(merged, rows, frame.is_ordered)


def _zip(draw: st.DrawFn, frame: Frame) -> Step | None:
    if not frame.is_ordered:
        return None
    if draw(st.booleans()):
        doubled = [{**row, **{taken(name, row): value for name, value in row.items()}} for row in frame.rows]
        kinds = {**frame.kinds, **{taken(name, frame.kinds): kind for name, kind in frame.kinds.items()}}
        if any(taken(name, frame.kinds) != f"{name}_1" for name in frame.kinds):
            return None  # which names are taken depends on the order then
        return ".zip(itself)", lambda ds: ds.zip(ds), Frame(kinds, doubled)
    names = [name for name in ("y1", "y2") if name not in frame.kinds]
    if not names:
        return None
    other, other_frame, text = draw(frames(names=names, row_count=len(frame.rows)))
    rows = [{**one, **two} for one, two in zip(frame.rows, other_frame.rows, strict=True)]
    return f".zip({text})", lambda ds: ds.zip(other), Frame({**frame.kinds, **other_frame.kinds}, rows)


def taken(name: str, names: Any) -> str:
    return next(new for number in itertools.count(1) if (new := f"{name}_{number}") not in names)


def _mix(draw: st.DrawFn, frame: Frame) -> Step | None:
    if not frame.is_known or any(kind not in KINDS for kind in frame.kinds.values()):
        return None
    other, other_frame, text = draw(frames(kinds=frame.kinds))
    weights = draw(st.sampled_from([None, [1, 3], [0.5, 0.1]]))
    made = frame.with_rows([*frame.rows, *other_frame.rows], is_ordered=False)
    return f".mix({text}, weights={weights})", lambda ds: ds.mix(other, weights=weights), made


HOWS = ["inner", "left", "right", "outer", "semi", "anti", "right_semi", "right_anti"]
OF_LEFT = {
    "inner",
    "left",
    "semi",
    "anti",
}  # joins that go through the left side in its order, if the right one is whole
# The kind of the other side's key, and the kind in which both meet.
MEETING = {
    "small": [("narrow", "small"), ("int8", "small"), ("float64", "float64")],
    "narrow": [("small", "small"), ("int8", "narrow")],
    "string": [("large_string", "large_string"), ("dictionary", "string")],
    "dictionary": [("string", "string")],
    "float32": [("float64", "float64")],
    "null": [("small", "small")],
}
JOINED_ROWS_MAX = 40  # of a side that is joined with itself; more rows show nothing else


def _has_no_columns(frame: Frame) -> bool:
    """A function decides about them, and had no row."""
    return not frame.is_known and not frame.rows


def _join(draw: st.DrawFn, frame: Frame) -> Step | None:
    usable = frame.of(KEYS)
    if not usable or _has_no_columns(frame):
        return None
    how = draw(st.sampled_from(HOWS))
    options: dict[str, Any] = {"num_partitions": draw(st.sampled_from([None, 1, 3]))}
    options["broadcast"] = draw(st.sampled_from([None, False] if how == "outer" else [None, False, True]))
    keys = draw(st.lists(st.sampled_from(usable), min_size=1, max_size=2, unique=True))
    if any(f"{name}_r" in frame.kinds for name in frame.kinds):
        return None
    if draw(st.booleans()) and len(frame.rows) <= JOINED_ROWS_MAX:
        made = joined(frame, frame, how, keys, keys, keys_met=None, is_whole=options["broadcast"] is True)
        text = f".join(itself, {how!r}, on={keys}, {options})"
        return text, lambda ds: ds.join(ds, how, on=keys, right_suffix="_r", **options), made
    met = {key: draw(st.sampled_from([(frame.kinds[key],) * 2, *MEETING.get(frame.kinds[key], [])])) for key in keys}
    right_keys = keys if draw(st.booleans()) else [f"j{number}" for number, _ in enumerate(keys)]
    names = [name for name in dict.fromkeys(["v", *frame.kinds]) if name not in (*keys, *right_keys)]
    others = draw(st.lists(st.sampled_from(names), max_size=2, unique=True)) if names else []
    if {*right_keys, *others} & {*frame.kinds} - {*keys, *others}:
        return None
    kinds = {right: met[key][0] for right, key in zip(right_keys, keys, strict=True)}
    other, other_frame, named = draw(frames(kinds={**kinds, **{name: draw(st.sampled_from(KINDS)) for name in others}}))
    if other_frame.rows and draw(st.integers(0, 4)) == 0:
        other, named = other.map(copied), f"{named}.map(copied)"  # so that its columns are not known before it runs
    made = joined(
        frame, other_frame, how, keys, right_keys, keys_met={key: kind for key, (_, kind) in met.items()},
        is_whole=options["broadcast"] is True,
    )  # fmt: skip
    if right_keys != keys:
        options["right_on"] = right_keys
    text = f".join({named}, {how!r}, on={keys}, {options})"
    return text, lambda ds: ds.join(other, how, on=keys, right_suffix="_r", **options), made


def joined(
    left: Frame, right: Frame, how: str, keys: Sequence[str], right_keys: Sequence[str], *,
    keys_met: dict[str, str] | None, is_whole: bool,
) -> Frame:  # fmt: skip
    """By comparing each row with each. keys_met: the kinds of keys in which both sides meet, if not those of the left."""
    of_left = [join_key(row, keys) for row in left.rows]
    of_right = [join_key(row, right_keys) for row in right.rows]
    pairs = [
        (row, other)
        for row, key in enumerate(of_left)
        for other, other_key in enumerate(of_right)
        if None not in key and key == other_key
    ]
    if how.endswith(("semi", "anti")):
        side, frame = (1, right) if how.startswith("right") else (0, left)
        there = {pair[side] for pair in pairs}
        rows = [row for number, row in enumerate(frame.rows) if (number in there) == how.endswith("semi")]
        return frame.with_rows(rows, is_ordered=frame.is_ordered and is_whole and how in OF_LEFT)
    some: list[tuple[int | None, int | None]] = [*pairs]
    if how in ("left", "outer"):
        some += [(row, None) for row in {*range(len(left.rows))} - {row for row, _ in pairs}]
    if how in ("right", "outer"):
        some += [(None, row) for row in {*range(len(right.rows))} - {row for _, row in pairs}]
    some.sort(key=lambda pair: math.inf if pair[0] is None else pair[0])
    kinds = {**left.kinds, **(keys_met or {})}
    names = {name: f"{name}_r" if name in left.kinds else name for name in right.kinds if name not in right_keys}
    rows = []
    for first, second in some:
        row = dict.fromkeys(left.kinds) if first is None else dict(left.rows[first])
        if first is None and second is not None:
            row.update(zip(keys, (right.rows[second][key] for key in right_keys), strict=True))
        for key in keys:
            if kinds[key] == "float64" and row[key] is not None:
                row[key] = float(row[key])
        row.update({new: None if second is None else right.rows[second][name] for name, new in names.items()})
        rows.append(row)
    made = {**kinds, **{new: right.kinds[name] for name, new in names.items()}}
    return Frame(made, rows, left.is_ordered and is_whole and how in OF_LEFT)


def join_key(row: Row, keys: Sequence[str]) -> tuple[Any, ...]:
    """Numbers are equal by their values, whatever their types."""
    values = [row[key] for key in keys]
    return tuple(
        one if isinstance(one, (int, float)) and one == one and not isinstance(one, bool) else normal(one)
        for one in values
    )


NEAR = {"small", "narrow", "int8", "int64", "float32", "float64", "decimal", "date", "timestamp", "zoned", "duration"}


def _join_asof(draw: st.DrawFn, frame: Frame) -> Step | None:
    usable = frame.of(NEAR)
    if not usable or "p" in frame.kinds or _has_no_columns(frame):
        return None
    on = draw(st.sampled_from(usable))
    keyed = [name for name in frame.of(KEYS) if name != on]
    by = draw(st.lists(st.sampled_from(keyed), max_size=1)) if keyed else []
    other, other_frame, text = draw(frames(kinds={**{name: frame.kinds[name] for name in (*by, on)}, "p": "string"}))
    direction = draw(st.sampled_from(["backward", "forward", "nearest"]))
    broadcast = draw(st.sampled_from([None, True, False]))
    is_exact_allowed = draw(st.booleans())
    tolerance = draw(st.sampled_from([None, 0, 2])) if frame.kinds[on] in INTEGERS | FLOATS else None
    rows = []
    for row in frame.rows:
        best: tuple[Any, ...] | None = None
        for number, candidate in enumerate(other_frame.rows):
            found = _nearness(row, candidate, on, by, direction, number)
            if found is None or (not is_exact_allowed and candidate[on] == row[on]):
                continue
            if tolerance is not None and not found[0] <= tolerance:
                continue
            best = (*found, candidate) if best is None or found < best[:3] else best
        rows.append({**row, "p": None if best is None else best[3]["p"]})
    made = Frame({**frame.kinds, "p": "string"}, rows, frame.is_ordered and broadcast is True)
    options = {"by": by or None, "direction": direction, "tolerance": tolerance, "broadcast": broadcast}
    return (
        f".join_asof({text}, {on!r}, {options}, allow_exact_matches={is_exact_allowed})",
        lambda ds: ds.join_asof(other, on, allow_exact_matches=is_exact_allowed, **options),
        made,
    )


def _nearness(row: Row, other: Row, on: str, by: Sequence[str], direction: str, number: int) -> tuple[Any, ...] | None:
    """Less is nearer: the distance, whether it is above, and of equal ones how late it is, or how early; None if it is none."""
    value, near = row[on], other[on]
    keys = join_key(row, by), join_key(other, by)
    if value is None or near is None or None in keys[0] or keys[0] != keys[1]:
        return None
    if value != value or near != near:  # NaN
        return None
    is_back = near < value or (near == value and direction != "forward")
    if (direction == "backward" and not is_back) or (direction == "forward" and near < value):
        return None
    distance = value - value if value == near and not isinstance(value, float) else abs(value - near)
    return (
        0.0 if isinstance(value, float) and value == near else distance,
        not is_back,
        -number if is_back else number,
    )


def _sample(draw: st.DrawFn, frame: Frame) -> Step | None:
    """So many that it is known which."""
    count = draw(st.sampled_from([0, max(len(frame.rows), 1), len(frame.rows) + 3]))
    made = frame.with_rows(frame.rows if count else [], is_ordered=False)
    return f".sample({count}, seed=5)", lambda ds: ds.sample(count, seed=5), made


STEPS: list[Callable[[st.DrawFn, Frame], Step | None]] = [
    _map, _flat_map, _map_batches, _filter, _filter_by_expression, _with_column, _select, _drop, _rename, _limit, _random_sample,
    _sample, _sort, _distinct, _repartition, _shuffle, _aggregate, _map_groups, _window, _union, _mix, _zip, _join, _join_asof,
]  # fmt: skip


@st.composite
def plans(draw: st.DrawFn, steps: Sequence[Callable[..., Step | None]] = tuple(STEPS), count_max: int = 5) -> Plan:
    dataset, frame, text = draw(frames())
    plan = Plan(dataset, frame, [text])
    for _ in range(draw(st.integers(min(2, count_max), count_max))):
        step = draw(st.sampled_from(steps))(draw, plan.frame)
        if step is not None:
            text, add, frame = step
            dataset = add(plan.dataset)
            frame.is_known = plan_schemas.of(dataset._node) is not None
            plan = Plan(dataset, frame, [*plan.steps, text])
    return plan
