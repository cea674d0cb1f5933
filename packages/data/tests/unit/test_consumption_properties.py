"""What looks at rows sees those of the model: batches of each form and size, parts, conversions, counts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import plan_models
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel import data
from umbel.data._blocks import batches

# Plans of built-in operators, that run in this process by themselves.
BUILT_IN = [
    plan_models._filter_by_expression, plan_models._with_column, plan_models._select, plan_models._rename, plan_models._limit,
    plan_models._sort, plan_models._repartition, plan_models._union, plan_models._zip, plan_models._distinct,
]  # fmt: skip
PLANS = plan_models.plans(steps=BUILT_IN, count_max=2)
SIZES = st.sampled_from([1, 2, 3, 5, 100])


def contexts() -> st.SearchStrategy[data.DataContext]:
    return st.sampled_from([data.DataContext(), plan_models.pieces()])


def inside(plan: plan_models.Plan, context: data.DataContext) -> data.Dataset:
    """The same plan in another context."""
    return data.Dataset(plan.dataset._node, context)


@plan_models.checked(40)
@given(PLANS, contexts(), st.integers(0, 12))
def test_counts_and_rows_are_those_of_the_model(plan: plan_models.Plan, context: data.DataContext, count: int) -> None:
    ds, frame = inside(plan, context), plan.frame
    assert ds.count() == len(frame.rows)
    assert ds.columns() == [*frame.kinds]
    plan_models.compare(plan_models.rows_of(ds.to_arrow()), frame, "to_arrow")
    plan_models.compare(plan_models.rows_of(pa.table(ds)), frame, "as a stream of Arrow")
    plan_models.compare(plan_models.rows_of(ds.materialize().to_arrow()), frame, "materialized")
    taken = ds.take(count)
    assert len(taken) == min(count, len(frame.rows))
    if frame.is_ordered:
        first = frame.with_rows(frame.rows[:count])
        plan_models.compare(plan_models.rows_of(ds.limit(count).to_arrow()), first, "limit")
        assert [[*row] for row in taken] == [[*frame.kinds]] * len(taken)
    assert len(ds.to_pandas()) == len(frame.rows)
    assert ds.to_polars().height == len(frame.rows) if not frame.of({"decimal256"}) else True
    assert {len(values) for values in ds.to_numpy().values()} <= {len(frame.rows)}


@plan_models.checked(60)
@given(
    PLANS, contexts(), st.one_of(st.none(), SIZES), st.sampled_from(["numpy", "pandas", "pyarrow", "polars", None]),
    st.booleans(), st.integers(0, 2), st.sampled_from([None, 1, 3, 50]),
)  # fmt: skip
def test_batches_are_the_rows(
    plan: plan_models.Plan,
    context: data.DataContext,
    size: int | None,
    form: str | None,
    drops_last: bool,
    prefetch: int,
    mixed: int | None,
) -> None:
    frame = plan.frame
    if form == "polars" and frame.of({"decimal256"}):
        return
    options: dict[str, Any] = {"local_shuffle_buffer_size": mixed, "local_shuffle_seed": 1} if mixed else {}
    ds = inside(plan, context)
    found = [
        *ds.iter_batches(batch_size=size, batch_format=form, drop_last=drops_last, prefetch_batches=prefetch, **options)
    ]
    counts = [plan_models.rows_in(batch) for batch in found]
    total = len(frame.rows)
    if size is not None:
        whole, rest = divmod(total, size)
        assert counts == [size] * whole + ([rest] if rest and not drops_last else [])
    else:
        assert sum(counts) == total
        assert 0 not in counts
    like = ds.to_arrow().schema
    tables = [batches.from_batch(batch, like=like) for batch in found]
    rows = [row for table in tables for row in plan_models.rows_of(table)]
    if sum(counts) < total:  # the last one was dropped, and which rows are in it is known only in order
        if mixed or not frame.is_ordered:
            return
        frame = frame.with_rows(frame.rows[: sum(counts)])
    frame = frame.with_rows(plan_models.through(form, frame), is_ordered=frame.is_ordered and not mixed)
    plan_models.compare(rows, frame, f"batches of {form}")


@plan_models.checked(30)
@given(PLANS, contexts(), st.integers(1, 4), st.lists(st.integers(0, 10), min_size=1, max_size=3).map(sorted))
def test_parts_have_each_row_once(
    plan: plan_models.Plan, context: data.DataContext, count: int, indices: list[int]
) -> None:
    ds, total = inside(plan, context), len(plan.frame.rows)
    parts = {
        "split": ds.split(count),
        "split_at_indices": ds.split_at_indices(indices),
        "split_proportionately": ds.split_proportionately([0.25, 0.5]),
    }
    for name, some in parts.items():
        tables = [part.to_arrow() for part in some]
        assert all(table.column_names == [*plan.frame.kinds] for table in tables), name
        rows = [row for table in tables for row in plan_models.rows_of(table)]
        plan_models.compare(rows, plan.frame, name)
    assert max(part.count() for part in parts["split"]) - min(part.count() for part in parts["split"]) <= 1
    ends = [0, *(min(index, total) for index in indices), total]
    assert [part.count() for part in parts["split_at_indices"]] == [
        last - first for first, last in itertools.pairwise(ends)
    ]
    assert {part.count() for part in ds.split(count, equal=True)} == {total // count}
    if total > 1:
        train, test = ds.train_test_split(1)
        rows = [row for part in (train, test) for row in plan_models.rows_of(part.to_arrow())]
        plan_models.compare(rows, plan.frame, "train_test_split")
        assert test.count() == 1
        train, test = ds.train_test_split(0.5, shuffle=True, seed=2)
        rows = [row for part in (train, test) for row in plan_models.rows_of(part.to_arrow())]
        plan_models.compare(rows, plan.frame.with_rows(plan.frame.rows, is_ordered=False), "shuffled")


@plan_models.checked(30)
@given(
    plan_models.plans(steps=[*BUILT_IN, plan_models._shuffle], count_max=2), contexts(), SIZES, SIZES, st.integers(1, 5)
)
def test_an_iteration_of_a_plan_goes_on_where_it_was(
    plan: plan_models.Plan, context: data.DataContext, size: int, other: int, taken: int
) -> None:
    if "'shuffle': True" in repr(plan.steps):
        return  # without a seed
    whole = inside(plan, context).iterator()
    rows = [
        row
        for batch in whole.iter_batches(batch_size=size, batch_format="pyarrow")
        for row in plan_models.rows_of(batch)
    ]
    begun = inside(plan, context).iterator()
    seen: list[Any] = []
    for batch in itertools.islice(begun.iter_batches(batch_size=size, batch_format="pyarrow"), taken):
        seen += plan_models.rows_of(batch)
        state = begun.state_dict()
    if not seen or len(seen) == len(rows):
        return
    after = inside(plan, context).iterator()
    after.load_state_dict(state)
    for batch in after.iter_batches(batch_size=other, batch_format="pyarrow"):
        seen += plan_models.rows_of(batch)
    names = [*plan.frame.kinds]
    assert plan_models.normal_rows(seen, names, is_ordered=True) == plan_models.normal_rows(
        rows, names, is_ordered=True
    )


@plan_models.checked(40)
@given(plan_models.frames(), st.integers(0, 9), st.floats(0, 1), st.integers(0, 3), contexts())
def test_samples_are_some_of_the_rows(
    made: Any, count: int, fraction: float, seed: int, context: data.DataContext
) -> None:
    dataset, frame, _ = made
    ds = data.Dataset(dataset._node, context).zip(data.range(len(frame.rows)).rename_columns({"id": "number"}))
    for sampled, most in ((ds.sample(count, seed=seed), count), (ds.random_sample(fraction, seed=seed), None)):
        rows = plan_models.rows_of(sampled.to_arrow())
        numbers = [row.pop("number") for row in rows]
        assert len(set(numbers)) == len(numbers)
        assert most is None or len(numbers) == min(most, len(frame.rows))
        plan_models.compare(
            rows, frame.with_rows([frame.rows[number] for number in numbers], is_ordered=True), "sampled"
        )
        assert numbers == [row["number"] for row in sampled.take_all()]
        if most is None:
            assert numbers == sorted(numbers)


@plan_models.checked(30)
@given(plan_models.frames(kinds={"a": "small", "b": "narrow", "c": "float64"}), contexts())
def test_sums_of_a_dataset_are_those_of_its_rows(made: Any, context: data.DataContext) -> None:
    dataset, frame, _ = made
    ds = data.Dataset(dataset._node, context)
    columns = {name: [row[name] for row in frame.rows if row[name] is not None] for name in frame.kinds}
    some = columns["a"]
    assert ds.sum("a") == (sum(some) if some else None)
    assert ds.min(["a", "b"]) == {f"min({name})": min(columns[name], default=None) for name in ("a", "b")}
    assert ds.max("a") == max(some, default=None)
    mean, std = ds.mean("a"), ds.std("a")
    if not some:
        assert (mean, std) == (None, None)
    else:
        assert mean == pytest.approx(np.mean(some))
        assert math.isnan(std) if len(some) == 1 else std == pytest.approx(np.std(some, ddof=1))
    firsts = list(dict.fromkeys(row["a"] for row in frame.rows))
    assert ds.unique("a") == firsts
    assert ds.unique("a", ignore_nulls=True) == [one for one in firsts if one is not None]
