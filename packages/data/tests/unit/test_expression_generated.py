"""Values that depend on where a row is, and not on how it is computed."""

from __future__ import annotations

import uuid as uuids
from typing import Any

import expression_tables as tables
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.data._expressions import evaluate
from umbel.data.expressions import col, monotonically_increasing_id, random, uuid, when

TABLE = pa.table({"a": [1, 2, None], "b": [0, 4, 2], "s": ["x", None, "y"]})


def test_ids_rise_and_are_unique_across_blocks() -> None:
    expr = monotonically_increasing_id()
    found = [
        evaluate.evaluate(expr, TABLE, block=block, row_offset=offset).to_pylist()
        for block, offset in ((0, 0), (0, 3), (2, 0))
    ]
    assert found == [[0, 1, 2], [3, 4, 5], [2 * 2**33, 2 * 2**33 + 1, 2 * 2**33 + 2]]
    with pytest.raises(ValueError, match="has room for"):
        evaluate.evaluate(expr, TABLE, block=2**31)


@pytest.mark.parametrize("make", [lambda: random(seed=7), random, uuid], ids=["seeded", "random", "uuid"])
@given(cut=st.integers(0, 20), block=st.integers(0, 3))
@settings(max_examples=20, deadline=None, database=None, derandomize=True)
def test_what_is_random_does_not_depend_on_how_a_block_is_cut(make: Any, cut: int, block: int) -> None:
    table = pa.table({"x": range(20)})
    expr = make()
    whole = tables.computed(expr, table)
    parts = [
        *evaluate.evaluate(expr, table.slice(0, cut)).to_pylist(),
        *evaluate.evaluate(expr, table.slice(cut), row_offset=cut).to_pylist(),
    ]
    assert parts == whole
    again = evaluate.evaluate(expr, table, block=block).to_pylist()
    assert (again == whole) == (block == 0)
    wanted = tables.computed(when(col("x") % 3 == 1).then(expr), table)
    assert wanted == [one if row % 3 == 1 else None for row, one in enumerate(whole)]


def test_random_numbers_are_uniform_and_differ_by_epoch_if_told() -> None:
    table = pa.table({"x": range(10_000)})
    numbers = evaluate.evaluate(random(seed=1), table).to_numpy()
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert np.histogram(numbers, 10, (0, 1))[0].min() > 850
    for reseed in (True, False):
        expr = random(seed=1, reseed_after_execution=reseed)
        same = evaluate.evaluate(expr, table, epoch=1).equals(evaluate.evaluate(expr, table))
        assert same is not reseed
    with pytest.raises(ValueError, match="seed must be an integer"):
        random(seed=-1)


def test_uuids_are_version_4_and_all_differ() -> None:
    found = evaluate.evaluate(uuid(), pa.table({"x": range(1000)})).to_pylist()
    assert len(set(found)) == 1000
    assert {(uuids.UUID(one).version, uuids.UUID(one).variant, str(uuids.UUID(one)) == one) for one in found} == {
        (4, uuids.RFC_4122, True)
    }
    assert not set(found) & set(evaluate.evaluate(uuid(), pa.table({"x": range(1000)})).to_pylist())
