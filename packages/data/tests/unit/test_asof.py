from __future__ import annotations

import datetime
import math
from typing import Any

import kernel_tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umbel.data._blocks import asof

ON = st.lists(
    st.tuples(st.sampled_from([None, -5, -1, 0, 1, 2, 2**50, -(2**50)]), st.sampled_from(["x", "y", None])), max_size=8
)


def expected(
    left: list[Any], right: list[Any], direction: str, tolerance: int | None, is_exact_allowed: bool
) -> list[int | None]:
    found: list[int | None] = []
    for value, key in left:
        best: tuple[Any, ...] | None = None
        for row, (other, other_key) in enumerate(right):
            if None in (value, key, other) or key != other_key:
                continue
            distance = abs(value - other)
            if (tolerance is not None and distance > tolerance) or (value == other and not is_exact_allowed):
                continue
            is_back = other < value or (other == value and direction != "forward")
            if (direction == "backward" and not is_back) or (direction == "forward" and other < value):
                continue
            rank = (distance, not is_back, -row if is_back else row)
            best = (*rank, row) if best is None or rank < best[:3] else best
        found.append(None if best is None else best[3])
    return found


def table_of(rows: list[Any], kind: pa.DataType) -> pa.Table:
    values = pa.array([value for value, _ in rows], pa.float64() if kind == pa.float64() else pa.int64())
    return pa.table(
        {"t": values.cast(kind), "k": pa.array([key for _, key in rows], pa.string()), "row": range(len(rows))}
    )


@kernel_tables.checked(120)
@given(
    ON,
    ON,
    st.sampled_from(asof.DIRECTIONS),
    st.sampled_from([None, 0, 1, 3]),
    st.booleans(),
    st.sampled_from([pa.int64(), pa.timestamp("us"), pa.float64()]),
)
def test_each_row_has_the_nearest_partner(
    left: list[Any], right: list[Any], direction: Any, tolerance: Any, is_exact_allowed: bool, kind: pa.DataType
) -> None:
    if kind == pa.float64():
        left, right = (
            [(None if value is None else float(value), key) for value, key in rows] for rows in (left, right)
        )
    found = asof.asof(
        table_of(left, kind),
        table_of(right, kind),
        "t",
        ["k"],
        direction=direction,
        tolerance=tolerance,
        is_exact_allowed=is_exact_allowed,
        right_suffix="_r",
    )
    assert found.column("row").to_pylist() == list(range(len(left)))
    assert found.column("row_r").to_pylist() == expected(left, right, direction, tolerance, is_exact_allowed)


@pytest.mark.parametrize("direction", asof.DIRECTIONS)
def test_pandas_and_polars_agree(direction: Any) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    chance = np.random.default_rng(5)
    left = pa.table({"t": np.sort(chance.integers(0, 1000, 200)), "k": chance.integers(0, 3, 200)})
    right = pa.table(
        {"t": np.sort(chance.choice(1000, 300, replace=False)), "k": chance.integers(0, 3, 300), "v": range(300)}
    )
    found = asof.asof(left, right, "t", ["k"], direction=direction, tolerance=6).column("v").to_pylist()
    theirs = pandas.merge_asof(left.to_pandas(), right.to_pandas(), on="t", by="k", direction=direction, tolerance=6)
    assert found == [None if math.isnan(value) else int(value) for value in theirs["v"]]
    if direction != "nearest":  # in which polars prefers the later one
        frames = polars.from_arrow(left), polars.from_arrow(right)
        others = frames[0].join_asof(frames[1], on="t", by="k", strategy=direction, tolerance=6, check_sortedness=False)
        assert found == others["v"].to_list()


def test_a_tolerance_may_be_a_time() -> None:
    day = datetime.datetime(2024, 1, 1)
    minutes = [day + datetime.timedelta(minutes=count) for count in (0, 10)]
    left = pa.table({"t": pa.array([minutes[1]], pa.timestamp("ns"))})
    right = pa.table({"time": pa.array([minutes[0]], pa.timestamp("s")), "v": [1]})
    for limit, value in ((9, None), (10, 1)):
        tolerance = datetime.timedelta(minutes=limit)
        found = asof.asof(left, right, "t", right_on="time", tolerance=tolerance)
        assert found.to_pydict() == {"t": [minutes[1]], "v": [value]}


def test_distances_do_not_overflow() -> None:
    left, right = pa.table({"t": [-(2**63), 2**63 - 1]}), pa.table({"t": [2**63 - 2], "v": [1]})
    for tolerance, expected in ((2**63, [None, 1]), (None, [1, 1])):
        found = asof.asof(left, right, "t", direction="nearest", tolerance=tolerance)
        assert found.column("v").to_pylist() == expected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("direction", asof.DIRECTIONS)
def test_infinities_are_at_the_same_place(direction: Any) -> None:
    left = pa.table({"t": [math.inf, -math.inf, math.inf, 1.0]})
    right = pa.table({"t": [math.inf, -math.inf, 2.0], "v": [1, 2, 3]})
    found = asof.asof(left, right, "t", direction=direction, tolerance=0.5)
    assert found.column("v").to_pylist() == [1, 2, 1, None]


def test_nan_has_no_partner() -> None:
    left, right = pa.table({"t": [math.nan, 1.0]}), pa.table({"t": [math.nan, 0.0], "v": [1, 2]})
    assert asof.asof(left, right, "t", direction="nearest").column("v").to_pylist() == [None, 2]


def test_what_cannot_be_near_is_refused() -> None:
    left, right = pa.table({"t": ["a"]}), pa.table({"t": ["b"]})
    with pytest.raises(TypeError, match="goes by numbers or times, but 't' has type string"):
        asof.asof(left, right, "t")
    numbers = pa.table({"t": [1]})
    with pytest.raises(ValueError, match="direction must be one of"):
        asof.asof(numbers, numbers, "t", direction="up")  # type: ignore[arg-type] # that is the point
    with pytest.raises(TypeError, match="is for times, but the column has type int64"):
        asof.asof(numbers, numbers, "t", tolerance=datetime.timedelta(1))
    with pytest.raises(ValueError, match="tolerance must not be negative, got -1"):
        asof.asof(numbers, numbers, "t", tolerance=-1)
