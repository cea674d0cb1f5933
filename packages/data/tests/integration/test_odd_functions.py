"""Functions that do what they should not: the error says what, where, and in which operator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import umbel
from umbel import data
from umbel.data import aggregate
from umbel.data.expressions import col

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=400 << 20)
    yield
    umbel.shutdown()


def half(batch: Any) -> Iterator[Any]:
    yield batch
    raise RuntimeError("half way")


def half_a_row(row: Any) -> Iterator[Any]:
    yield row
    raise RuntimeError("half way")


def two_kinds(batch: Any) -> Any:
    return {"x": [1] if batch["id"][0] else ["text"]}


DOUBLED = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
ODD: dict[str, tuple[Callable[[data.Dataset], data.Dataset], type[Exception], str]] = {
    "no row": (lambda ds: ds.map(lambda row: None), TypeError, r"Map\(.*a row is a mapping.*returned None"),
    "a number": (lambda ds: ds.map(lambda row: 1), TypeError, r"Map\(.*returned 1 of type int"),
    "a key": (lambda ds: ds.map(lambda row: {1: 2}), TypeError, r"must be a str, got 1(?s:.*)in .*Map\("),
    "an object": (lambda ds: ds.map(lambda row: {"x": object()}), TypeError, r"column 'x', row 0(?s:.*)in .*Map\("),
    "two types": (
        lambda ds: ds.repartition(1).map(lambda row: {"x": row["id"] or "text"}),
        TypeError,
        r"column 'x' mixes types: row 0 has str(?s:.*)in .*Map\(",
    ),
    "too large": (lambda ds: ds.map(lambda row: {"x": 2**64}), ValueError, r"does not fit into 64 bits(?s:.*)Map\("),
    "one row": (lambda ds: ds.flat_map(lambda row: row), TypeError, r"FlatMap\(.*returns a list of rows"),
    "no list": (lambda ds: ds.flat_map(lambda row: None), TypeError, r"FlatMap\(.*returned None"),
    "half a row": (
        lambda ds: ds.flat_map(half_a_row),
        RuntimeError,
        r"half way(?s:.*)in FlatMap\(half_a_row\), on row",
    ),
    "no truth": (lambda ds: ds.filter(lambda row: np.zeros(2)), ValueError, r"ambiguous(?s:.*)in Filter\("),
    "no batch": (lambda ds: ds.map_batches(lambda batch: None), TypeError, r"MapBatches\(.*return statement missing"),
    "a list": (lambda ds: ds.map_batches(lambda batch: [1]), TypeError, r"MapBatches\(.*it is a list"),
    "lengths": (
        lambda ds: ds.map_batches(lambda batch: {"a": [1], "b": [1, 2]}),
        ValueError,
        r"MapBatches\(.*unequal lengths: 'a' has 1, 'b' has 2",
    ),
    "a scalar": (
        lambda ds: ds.map_batches(lambda batch: {"a": 1}),
        TypeError,
        r"MapBatches\(.*return \{'a': \[value\]\}",
    ),
    "a name twice": (lambda ds: ds.map_batches(lambda batch: DOUBLED), ValueError, r"several columns called 'a'"),
    "half a batch": (lambda ds: ds.map_batches(half), RuntimeError, r"half way(?s:.*)in MapBatches\(half\)"),
    "a group": (
        lambda ds: ds.groupby("id").map_groups(lambda group: 1 // 0),
        ZeroDivisionError,
        r"in MapGroups\(",
    ),
    "blocks that do not unify": (
        lambda ds: ds.map_batches(two_kinds, batch_size=1).sort("x"),
        ValueError,
        r"'x' is string in table 0 and int64 in table 1(?s:.*)in Sort",
    ),
    "sums that do not unify": (
        lambda ds: (
            ds.map_batches(lambda batch: {"x": [1.5 if batch["id"][0] else True]}, batch_size=1)
            .groupby()
            .aggregate(aggregate.Sum("x"))
        ),
        ValueError,
        r"'x' is bool in block 0 and double in block 1(?s:.*)in Aggregate",
    ),
    "a column": (
        lambda ds: ds.map(dict).sort("idd"),
        KeyError,
        r"the key of the sort 'idd' is not a column; did you mean 'id'",
    ),
    "a column of a filter": (
        lambda ds: ds.map(dict).filter(expr=col("idd") > 1),
        KeyError,
        r"the name 'idd' is not a column; did you mean 'id'(?s:.*)in .*Filter\(",
    ),
    "text": (
        lambda ds: ds.map(lambda row: {"x": "a"}).groupby().sum("x"),
        TypeError,
        r"column 'x' has type string(?s:.*)in .*Aggregate",
    ),
    "overflow": (
        lambda ds: ds.map(lambda row: {"x": 2**63 - 1}).with_column("y", col("x") + 1),
        OverflowError,
        r"col\('x'\) \+ 1: the result does not fit in int64(?s:.*)in .*Project",
    ),
    "a sum that does not fit": (
        lambda ds: ds.map(lambda row: {"x": 2**63 - 1}).groupby().sum("x"),
        OverflowError,
        r"sum\(x\): a sum does not fit into int64(?s:.*)in Aggregate",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_errors_say_what_and_in_which_operator(name: str) -> None:
    make, kind, pattern = ODD[name]
    with pytest.raises(kind) as raised:
        make(data.range(2, override_num_blocks=2)).take_all()
    assert re.search(pattern, str(raised.value)), raised.value


def test_what_a_generator_gave_before_it_failed_is_left_out_with_its_rows() -> None:
    ds = data.range(3, override_num_blocks=1)
    assert ds.flat_map(half_a_row, on_error="skip").take_all() == []
    assert ds.map_batches(half, batch_size=1, on_error="skip").take_all() == []
    assert ds.map_batches(half).take(1) == [{"id": 0}]  # nobody asked for more


def test_long_text_passes() -> None:
    ds = data.range(2, override_num_blocks=2).map(lambda row: {"text": "x" * (20 << 20)})
    assert ds.map(lambda row: {"size": len(row["text"])}).take_all() == [{"size": 20 << 20}] * 2


def test_truths_with_nulls_stay_so() -> None:
    pytest.importorskip("pandas")
    ds = data.from_arrow(pa.table({"b": [True, None, False]}))
    assert [row["n"] for row in ds.map_batches(lambda batch: {"n": ~batch["b"]}).take_all()] == [False, None, True]
    found = ds.map_batches(lambda batch: batch.assign(n=~batch["b"]), batch_format="pandas").take_all()
    assert [row["n"] for row in found] == [False, None, True]
