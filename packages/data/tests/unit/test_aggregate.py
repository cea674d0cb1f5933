from __future__ import annotations

import decimal
import fractions
import math
import pickle
import statistics
from collections.abc import Callable
from typing import Any

import kernel_tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_grouping import in_tree

from umbel.data import aggregate
from umbel.data._blocks import grouping, tensors

Values = list[Any]


def known(values: Values) -> Values:
    return [value for value in values if value is not None]


def is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def distinct(values: Values) -> Values:
    return list({kernel_tables.normal(value): value for value in reversed(values)}.values())[::-1]


def in_first_order(values: Values) -> Values:
    found: dict[Any, Any] = {}
    for value in values:
        found.setdefault(kernel_tables.normal(value), value)
    return list(found.values())


def total(values: Values) -> Any:
    if not values:
        return None
    if any(isinstance(value, float) for value in values):
        return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)
    with decimal.localcontext(prec=100):
        return sum(values)


def extreme(choose: Callable[[Values], Any]) -> Callable[[Values], Any]:
    def found(values: Values) -> Any:
        numbers = [value for value in values if not is_nan(value)]
        return choose(numbers) if numbers else (values[0] if values else None)

    return found


def mean(values: Values) -> Any:
    if not values:
        return None
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        return sum(values) / len(values)
    return float(sum(map(fractions.Fraction, values)) / len(values))


def counted(values: Values) -> dict[str, Values]:
    firsts = in_first_order(values)
    keys = [kernel_tables.normal(value) for value in values]
    return {"values": firsts, "counts": [keys.count(kernel_tables.normal(value)) for value in firsts]}


# (aggregation, the same in plain Python of the values of a group, the columns it takes)
ANY, SORTABLE, NUMERIC = list(kernel_tables.POOLS), kernel_tables.SORTABLE, kernel_tables.NUMERIC
CASES: dict[str, tuple[Any, Callable[[Values], Any], list[str]]] = {
    "count of rows": (aggregate.Count(), len, ANY),
    "count": (aggregate.Count("b"), len, ANY),
    "count of values": (aggregate.Count("b", ignore_nulls=True), lambda v: len(known(v)), ANY),
    "sum": (
        aggregate.Sum("b"),
        lambda v: total(known(v)),
        [name for name in NUMERIC if name not in ("int64", "uint64")],
    ),
    "sum with nulls": (
        aggregate.Sum("b", ignore_nulls=False),
        lambda v: None if None in v else total(v),
        ["int8", "float32"],
    ),
    "mean": (aggregate.Mean("b"), lambda v: mean(known(v)), NUMERIC),
    "mean with nulls": (aggregate.Mean("b", ignore_nulls=False), lambda v: None if None in v else mean(v), NUMERIC),
    "min": (aggregate.Min("b"), lambda v: extreme(min)(known(v)), SORTABLE),
    "max": (aggregate.Max("b"), lambda v: extreme(max)(known(v)), SORTABLE),
    "max with nulls": (
        aggregate.Max("b", ignore_nulls=False),
        lambda v: None if None in v else extreme(max)(v),
        SORTABLE,
    ),
    "absmax": (
        aggregate.AbsMax("b"),
        lambda v: extreme(max)([abs(x) for x in known(v)]),
        ["uint64", "float64", "decimal", "long_decimal", "duration"],
    ),
    "first": (aggregate.First("b"), lambda v: (known(v) or [None])[0], ANY),
    "last": (aggregate.Last("b"), lambda v: (known(v) or [None])[-1], ANY),
    "first of all": (aggregate.First("b", ignore_nulls=False), lambda v: v[0], ANY),
    "last of all": (aggregate.Last("b", ignore_nulls=False), lambda v: v[-1], ANY),
    "list": (aggregate.AsList("b"), list, ANY),
    "list of values": (aggregate.AsList("b", ignore_nulls=True), known, ANY),
    "unique": (aggregate.Unique("b"), in_first_order, ANY),
    "unique values": (aggregate.Unique("b", ignore_nulls=True), lambda v: in_first_order(known(v)), ANY),
    "count distinct": (aggregate.CountDistinct("b"), lambda v: len(in_first_order(known(v))), ANY),
    "count distinct of all": (aggregate.CountDistinct("b", ignore_nulls=False), lambda v: len(in_first_order(v)), ANY),
    "value counter": (aggregate.ValueCounter("b"), lambda v: counted(known(v)), ANY),
    "missing": (
        aggregate.MissingValuePercentage("b"),
        lambda v: sum(x is None or is_nan(x) for x in v) / len(v) * 100.0,
        ANY,
    ),
    "zeros": (
        aggregate.ZeroPercentage("b"),
        lambda v: sum(x == 0 for x in known(v)) / len(known(v)) * 100.0 if known(v) else None,
        NUMERIC,
    ),
    "zeros of all": (
        aggregate.ZeroPercentage("b", ignore_nulls=False),
        lambda v: sum(x == 0 for x in known(v)) / len(v) * 100.0,
        NUMERIC,
    ),
}


def assert_alike(found: Any, expected: Any) -> None:
    if isinstance(expected, float) and not is_nan(expected):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-300)
    else:
        assert kernel_tables.normal(found) == kernel_tables.normal(expected)


@pytest.mark.parametrize("case", CASES)
@kernel_tables.checked(25)
@given(data=st.data())
def test_aggregations_are_those_of_plain_python_however_the_rows_are_divided(case: str, data: st.DataObject) -> None:
    aggregation, reference, pools = CASES[case]
    table = data.draw(kernel_tables.tables(pools))
    keys = ["x" if row % 3 else None for row in range(table.num_rows)]
    table = table.set_column(0, "a", pa.array(keys, pa.string()))
    cuts = data.draw(st.lists(st.integers(0, 12), min_size=2, max_size=2))
    whole = grouping.Grouping(["a"], [aggregation])
    found = in_tree(whole, table, cuts)
    values = table.column("b").to_pylist()
    assert found.column("a").to_pylist() == sorted(set(keys), key=lambda key: (key is None, key))
    for key, value in zip(found.column("a").to_pylist(), found.column(1).to_pylist(), strict=True):
        assert_alike(value, reference([value for value, own in zip(values, keys, strict=True) if own == key]))
    once = whole.whole(table)
    assert once.schema == found.schema == whole.schema(table.schema)


NUMBERS = st.lists(st.floats(-1e6, 1e6) | st.none(), max_size=30)


@kernel_tables.checked(40)
@given(NUMBERS, st.integers(0, 2), st.lists(st.integers(0, 30), min_size=2, max_size=2), st.sampled_from([0.0, 1e9]))
def test_deviations_merge_without_cancellation(values: Values, ddof: int, cuts: list[int], base: float) -> None:
    shifted = [None if value is None else value + base for value in values]
    whole = grouping.Grouping([], [aggregate.Var("v", ddof=ddof), aggregate.Std("v", ddof=ddof)])
    found = in_tree(whole, pa.table({"v": pa.array(shifted, pa.float64())}), cuts).to_pylist()[0]
    numbers = [fractions.Fraction(value) for value in known(shifted)]
    if not numbers:
        assert found == {"var(v)": None, "std(v)": None}
    elif len(numbers) <= ddof:
        assert all(map(is_nan, found.values()))
    else:
        center = sum(numbers) / len(numbers)
        variance = float(sum((number - center) ** 2 for number in numbers) / (len(numbers) - ddof))
        assert found == pytest.approx({"var(v)": variance, "std(v)": math.sqrt(variance)}, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("cuts", [[0, 0], [1, 2], [2, 3]])
def test_deviations_of_large_numbers_that_differ_little_are_exact(cuts: list[int]) -> None:
    table = pa.table({"v": [1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16]})
    assert in_tree(grouping.Grouping([], [aggregate.Var("v")]), table, cuts).to_pylist() == [{"var(v)": 30.0}]


def test_nan_is_an_extreme_only_where_there_is_nothing_else() -> None:
    nan = kernel_tables.NAN
    table = pa.table({"k": [1, 1, 2, 2, 3], "v": pa.array([nan, None, nan, 5.0, None], pa.float32())})
    whole = grouping.Grouping(["k"], [aggregate.Min("v"), aggregate.Max("v")])
    for found in (whole.whole(table), in_tree(whole, table, [1, 3])):
        assert kernel_tables.rows(found) == [(1, "NaN", "NaN"), (2, 5.0, 5.0), (3, None, None)]


def test_deviations_of_groups_are_those_of_statistics() -> None:
    table = pa.table({"k": [1, 1, 2, 2, 2, 3], "v": pa.array([1, 2, 3, 5, None, 7], pa.int16())})
    whole = grouping.Grouping(["k"], [aggregate.Std("v")])
    for found in (whole.whole(table), in_tree(whole, table, [1, 4])):
        one, two, three = found.column("std(v)").to_pylist()
        assert (one, two) == pytest.approx((statistics.stdev([1, 2]), statistics.stdev([3, 5])))
        assert is_nan(three)


@kernel_tables.checked(40)
@given(NUMBERS, st.sampled_from([0.0, 0.1, 0.5, 0.75, 1.0]), st.lists(st.integers(0, 30), min_size=2, max_size=2))
def test_quantiles_are_those_of_numpy(values: Values, q: float, cuts: list[int]) -> None:
    whole = grouping.Grouping([], [aggregate.Quantile("v", q), aggregate.ApproximateQuantile("v", [q])])
    found = in_tree(whole, pa.table({"v": pa.array(values, pa.float64())}), cuts).to_pylist()[0]
    expected = float(np.quantile(known(values), q)) if known(values) else None
    assert found["quantile(v)"] == (expected if expected is None else pytest.approx(expected, rel=1e-9, abs=1e-9))
    assert found["approx_quantile(v)"] == (
        expected if expected is None else pytest.approx([expected], rel=1e-9, abs=1e-9)
    )


def test_quantiles_with_nulls_are_null_if_those_count() -> None:
    table = pa.table({"v": pa.array([1, None, 3])})
    assert grouping.Grouping([], [aggregate.Quantile("v", ignore_nulls=False)]).whole(table).to_pylist() == [
        {"quantile(v)": None}
    ]


@pytest.mark.parametrize("shape", ["normal", "exponential", "sorted", "few"])
def test_approximate_quantiles_are_close_in_rank(shape: str) -> None:
    chance = np.random.default_rng(3)
    values = {
        "normal": chance.normal(size=60_000),
        "exponential": chance.exponential(size=60_000),
        "sorted": np.arange(60_000.0),
        "few": chance.integers(0, 3, 60_000).astype(float),
    }[shape]
    quantiles = [0.0, 0.001, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0]
    whole = grouping.Grouping([], [aggregate.ApproximateQuantile("v", quantiles, quantile_precision=200)])
    partials = [whole.partial(pa.table({"v": part})) for part in np.array_split(values, 12)]
    state = whole.combine([whole.combine(partials[:5]), whole.combine(partials[5:])])
    (found,) = whole.finish(state).column(0).to_pylist()
    assert state.nbytes < 30_000
    assert (found[0], found[-1]) == (values.min(), values.max())
    ordered = np.sort(values)
    for q, value in zip(quantiles, found, strict=True):
        margin = 1e-9 + 0.02 * (ordered[-1] - ordered[0]) / len(ordered)
        below, above = (np.searchsorted(ordered, value + d) / len(ordered) for d in (-margin, margin))
        assert below - 0.006 <= q <= above + 0.006


def test_sums_of_integers_are_exact_or_an_error_whatever_the_order() -> None:
    most = 2**63 - 1
    whole = grouping.Grouping(["k"], [aggregate.Sum("v"), aggregate.Mean("v")])
    table = pa.table({"k": [1, 1, 1], "v": [most, most, -most]})
    for found in (whole.whole(table), in_tree(whole, table, [1, 2])):
        assert found.to_pylist() == [{"k": 1, "sum(v)": most, "mean(v)": most / 3}]
    with pytest.raises(OverflowError, match=r"sum\(v\): a sum does not fit into int64; cast the column to float64"):
        whole.whole(table.slice(0, 2))
    mean = grouping.Grouping([], [aggregate.Mean("v")]).whole(table.slice(0, 2)).to_pylist()
    assert mean == [{"mean(v)": float(most)}]
    unsigned = pa.table({"k": [1, 1], "v": pa.array([2**63, 2**63 - 1], pa.uint64())})
    assert whole.whole(unsigned).column("sum(v)").to_pylist() == [2**64 - 1]
    with pytest.raises(OverflowError, match="does not fit into uint64"):
        whole.whole(pa.concat_tables([unsigned, unsigned]))


def test_sums_of_decimals_are_exact_or_an_error() -> None:
    large = decimal.Decimal(10) ** 35 * 9
    table = pa.table({"v": pa.array([large] * 12 + [-large] * 11, pa.decimal128(38, 2))})
    whole = grouping.Grouping([], [aggregate.Sum("v"), aggregate.Mean("v")])
    for found in (whole.whole(table), in_tree(whole, table, [5, 12])):
        assert found.column("sum(v)").to_pylist() == [large]
        assert found.column("sum(v)").type == pa.decimal128(38, 2)
        assert found.column("mean(v)").to_pylist() == pytest.approx([float(large) / 23])
    with pytest.raises(OverflowError, match=r"does not fit into decimal128\(38, 2\)"):
        whole.whole(table.slice(0, 12))
    digits = pa.table({"v": pa.array([decimal.Decimal(6) * 10**35] * 2, pa.decimal128(38, 2))})
    with pytest.raises(OverflowError, match="does not fit"):  # into 38 digits, though into 128 bits
        whole.whole(digits)


def test_results_have_the_types_of_their_columns() -> None:
    table = pa.table(
        {"b": [True, None, True], "d": pa.array([1, 2, 3], pa.duration("ms")), "f": pa.array([1, 2, 3], pa.float32())}
    )
    found = grouping.Grouping(
        [], [aggregate.Sum("b"), aggregate.Sum("d"), aggregate.Max("f"), aggregate.Min("b")]
    ).whole(table)
    assert found.schema.types == [pa.int64(), pa.duration("ms"), pa.float32(), pa.bool_()]
    assert found.column("sum(b)").to_pylist() == [2]


def test_most_frequent_values_are_exact_within_the_capacity() -> None:
    table = pa.table({"k": [1, 1, 1, 1, 2, 1], "v": ["b", "a", "a", None, "z", "c"]})
    whole = grouping.Grouping(["k"], [aggregate.ApproximateTopK("v", k=2)])
    for found in (whole.whole(table), in_tree(whole, table, [2, 3])):
        assert found.column(1).to_pylist() == [
            [{"v": "a", "count": 2}, {"v": "b", "count": 1}],
            [{"v": "z", "count": 1}],
        ]


@kernel_tables.checked(40)
@given(
    st.lists(st.integers(0, 12), max_size=60), st.integers(1, 3), st.lists(st.integers(0, 60), min_size=2, max_size=2)
)
def test_frequent_values_are_found_and_their_counts_off_by_the_bound_at_most(
    values: list[int], log_capacity: int, cuts: list[int]
) -> None:
    whole = grouping.Grouping([], [aggregate.ApproximateTopK("v", k=100, log_capacity=log_capacity)])
    (found,) = in_tree(whole, pa.table({"v": pa.array(values, pa.int64())}), cuts).column(0).to_pylist()
    bound = len(values) / 2**log_capacity
    counts = {row["v"]: row["count"] for row in found}
    assert len(counts) <= 2**log_capacity
    for value in set(values):
        true = values.count(value)
        assert true - bound <= counts.get(value, 0) <= true


def test_lists_can_be_taken_apart() -> None:
    table = pa.table({"v": [[1, 2, None], None, [2], []]})
    aggregations = [
        aggregate.Unique("v", encode_lists=True),
        aggregate.Unique(
            "v", alias_name="hashes", ignore_nulls=True, encode_lists=aggregate.Unique.ListEncodingMode.HASH
        ),
        aggregate.ApproximateTopK("v", k=1, encode_lists=True),
    ]
    found = in_tree(grouping.Grouping([], aggregations), table, [1, 3]).to_pylist()[0]
    assert found["unique(v)"] == [1, 2, None]
    assert len(found["hashes"]) == 3
    assert found["approx_topk(v)"] == [{"v": 2, "count": 2}]


class Product(aggregate.AggregateFnV2):
    """One of a user's own."""

    def __init__(self, on: str, ignore_nulls: bool) -> None:
        super().__init__(f"product({on})", lambda: 1, on=on, ignore_nulls=ignore_nulls)

    def aggregate_block(self, block: pa.Table) -> int | None:
        values = block.column(self.on).to_pylist()
        if None in values and not self.ignore_nulls:
            return None
        return math.prod(known(values)) if known(values) else None

    def combine(self, current_accumulator: int, new: int) -> int:
        return current_accumulator * new

    def finalize(self, accumulator: int) -> str:
        return f"= {accumulator}"


@pytest.mark.parametrize("cuts", [[0, 0], [1, 4], [2, 3]])
def test_a_users_own_class_is_called_group_by_group_beside_ours(cuts: list[int]) -> None:
    table = pa.table({"k": ["y", "x", "y", "x", "y", "z"], "v": [None, 2, 3, 5, None, None]})
    aggregations = [Product("v", ignore_nulls=True), aggregate.Sum("v"), Product("v", ignore_nulls=False)]
    assert in_tree(grouping.Grouping(["k"], aggregations), table, cuts).to_pylist() == [
        {"k": "x", "product(v)": "= 10", "sum(v)": 7, "product(v)_2": "= 10"},
        {"k": "y", "product(v)": "= 3", "sum(v)": 3, "product(v)_2": None},
        {"k": "z", "product(v)": None, "sum(v)": None, "product(v)_2": None},
    ]


def test_a_users_own_class_without_rows_gives_what_it_begins_with() -> None:
    aggregations = [Product("v", ignore_nulls=True), Product("v", ignore_nulls=False)]
    empty = pa.table({"v": pa.array([], pa.int64())})
    assert grouping.Grouping([], aggregations).whole(empty).to_pylist() == [{"product(v)": None, "product(v)_2": "= 1"}]


@pytest.mark.parametrize("keys", [["k"], ["k", "l"], []])
def test_functions_see_the_key_the_rows_and_each_others_accumulators(keys: list[str]) -> None:
    by_row = aggregate.AggregateFn(
        init=lambda key: [key],
        merge=lambda first, second: first + second[1:],
        name="rows",
        accumulate_row=lambda found, row: [*found, row["v"]],
        finalize=repr,
    )
    by_block = aggregate.AggregateFn(
        init=lambda key: 0,
        merge=lambda a, b: a + b,
        name="n",
        accumulate_block=lambda found, block: found + block.num_rows,
    )
    table = pa.table({"k": ["x", "y", "x"], "l": [1, 1, 1], "v": [2, 3, 4]})
    found = in_tree(grouping.Grouping(keys, [by_row, by_block]), table, [1, 2])
    expected = {
        ("k",): [("['x', 2, 4]", 2), ("['y', 3]", 1)],
        ("k", "l"): [("[('x', 1), 2, 4]", 2), ("[('y', 1), 3]", 1)],
        (): [("[None, 2, 3, 4]", 3)],
    }[tuple(keys)]
    assert list(zip(found.column("rows").to_pylist(), found.column("n").to_pylist(), strict=True)) == expected


def test_ours_can_be_called_and_changed_as_a_users_own() -> None:
    mean = aggregate.Mean("v")
    first, second = (mean.aggregate_block(pa.table({"v": values})) for values in ([1, 2], [6]))
    assert mean.finalize(mean.combine(first, second)) == 3.0

    class Rounded(aggregate.Mean):
        def finalize(self, accumulator: Any) -> Any:
            return round(super().finalize(accumulator))

    table = pa.table({"k": [1, 1, 2], "v": [1, 2, 2.4]})
    assert in_tree(grouping.Grouping(["k"], [Rounded("v")]), table, [1, 2]).to_pylist() == [
        {"k": 1, "mean(v)": 2},
        {"k": 2, "mean(v)": 2},
    ]
    assert grouping.Grouping(["k"], [Rounded("v")]).schema(table.schema) is None


@pytest.mark.parametrize("case", CASES)
def test_an_aggregation_can_be_pickled(case: str) -> None:
    aggregation = CASES[case][0]
    copy = pickle.loads(pickle.dumps(aggregation))
    table = pa.table({"b": [1.0, None]})
    assert grouping.Grouping([], [copy]).whole(table) == grouping.Grouping([], [aggregation]).whole(table)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: aggregate.Sum(), ValueError, "sum: on must be the name of a column, got None"),
        (lambda: aggregate.Sum(3), TypeError, "sum: on must be the name of a column, got 3"),
        (lambda: aggregate.Quantile("v", 1.5), ValueError, "q must be between 0 and 1, got 1.5"),
        (lambda: aggregate.ApproximateQuantile("v", []), ValueError, "one or more numbers between 0 and 1"),
        (lambda: aggregate.ApproximateTopK("v", 0), ValueError, "k must be at least 1"),
        (lambda: aggregate.AggregateFn(lambda k: 0, max, "n"), ValueError, "exactly one of accumulate_row and"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "aggregation", [aggregate.Mean, aggregate.Std, aggregate.AbsMax, aggregate.ZeroPercentage, aggregate.Quantile]
)
def test_text_has_no_numbers(aggregation: Any) -> None:
    with pytest.raises(TypeError, match="column 'v' has type string; it must be a number"):
        grouping.Grouping([], [aggregation("v")]).schema(pa.schema([("v", pa.string())]))


@kernel_tables.checked(30)
@given(kernel_tables.tables(["int8", "float64", "decimal"]), st.booleans())
def test_polars_and_duckdb_agree(table: pa.Table, has_key: bool) -> None:
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    values = table.column("b").to_pylist()
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        return  # each has its own rules on infinities and NaN; ours are above
    table = table.set_column(0, "a", pa.array([row % 3 if has_key else 0 for row in range(table.num_rows)], pa.int64()))
    ours = grouping.Grouping(
        ["a"], [kind("b") for kind in (aggregate.Sum, aggregate.Mean, aggregate.Min, aggregate.Std)]
    )
    found = [tuple(None if is_nan(v) else v for v in row.values()) for row in ours.whole(table).to_pylist()]
    b = polars.col("b")
    frame = (
        polars.from_arrow(table)
        .group_by("a")
        .agg(b.sum(), b.mean().alias("m"), b.min().alias("l"), b.std().alias("s"))
        .sort("a")
    )
    theirs = [(a, total if low is not None else None, m, low, s) for a, total, m, low, s in frame.rows()]
    assert found == [pytest.approx(row) for row in theirs]
    with duckdb.connect() as connection:
        connection.register("ours", table)
        query = "select a, sum(b), avg(b), min(b), stddev_samp(b) from ours group by a order by a"
        assert found == [pytest.approx(row) for row in connection.execute(query).fetchall()]


def test_lists_of_tensors_are_lists_of_lists_of_their_shape() -> None:
    fixed = tensors.from_numpy(np.arange(12).reshape(2, 2, 3))
    ragged = tensors.from_arrays([np.ones((1, 2), np.int64), None, np.zeros((2, 0), np.int64)])
    tables = [
        pa.table({"t": fixed}),
        pa.table({"t": ragged}),
        pa.table({"t": fixed}).slice(1),
        pa.table({"t": ragged}).slice(2),
    ]
    names = ("AsList", "Unique", "ValueCounter")
    how = grouping.Grouping([], [getattr(aggregate, name)("t") for name in names])
    first, second = np.arange(12).reshape(2, 2, 3).tolist()
    ones, none = [[1, 1]], [[], []]
    (alone,) = how.whole(tables[0]).to_pylist()
    assert alone["list(t)"] == [first, second]
    assert how.schema(tables[0].schema).field(0).type == how.whole(tables[0]).schema.field(0).type
    (found,) = how.finish(how.combine([how.partial(table) for table in tables])).to_pylist()
    assert found == {
        "list(t)": [first, second, ones, None, none, second, none],
        "unique(t)": [first, second, ones, None, none],
        "value_counter(t)": {"values": [first, second, ones, none], "counts": [1, 2, 1, 2]},
    }
    (turned,) = how.whole(pa.table({"t": _turned()})).to_pylist()
    assert turned["list(t)"] == [[[0, 2, 4], [1, 3, 5]]]


def _turned() -> pa.Array:
    """Stored as 3 by 2, seen as 2 by 3."""
    kind = pa.fixed_shape_tensor(pa.int64(), (3, 2), permutation=[1, 0])
    return pa.ExtensionArray.from_storage(kind, pa.array([[*range(6)]], kind.storage_type))
