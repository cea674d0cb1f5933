"""Preprocessors whose functions run on workers of a real runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import umbel
from umbel import data
from umbel.data import preprocessors
from umbel.data.preprocessor import Preprocessor

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    umbel.init(num_cpus=2, log_to_driver=False, object_store_memory=400 << 20)
    yield
    umbel.shutdown()


class Doubled(Preprocessor):
    """As a user would write it."""

    _is_fittable = False

    def _transform_pandas(self, frame: Any) -> Any:
        frame["x"] = frame["x"] * 2
        return frame


def test_functions_of_users_run_on_workers_and_keep_the_order() -> None:
    pytest.importorskip("pandas")
    ds = data.from_arrow(pa.table({"x": range(1000), "t": [f"a{number} b" for number in range(1000)]}))
    chain = preprocessors.Chain(
        Doubled(),
        preprocessors.Tokenizer(["t"], lambda text: text.upper().split()),
        preprocessors.MaxAbsScaler(["x"]),
    )
    result = chain.fit_transform(ds).to_arrow()
    assert result.column("t").to_pylist() == [[f"A{number}", "B"] for number in range(1000)]
    assert result.column("x").to_pylist() == [number / 999 for number in range(1000)]


def test_wide_rows_are_made_in_parts_of_a_block() -> None:
    row_count, width = 50_000, 1000  # 50 MB of bytes, of a block of 400 kB
    values = np.arange(row_count) % width
    encoder = preprocessors.OneHotEncoder(["x"]).fit(data.from_arrow(pa.table({"x": values})))
    made = encoder.transform(data.from_arrow(pa.table({"x": values})))
    first = 0
    for batch in made.iter_batches(batch_size=10_000):
        np.testing.assert_array_equal(batch["x"].argmax(axis=1), values[first : first + len(batch["x"])])
        assert batch["x"].shape[1] == width and (batch["x"].sum(axis=1) == 1).all()
        first += len(batch["x"])
    assert first == row_count


def test_options_go_to_the_tasks_and_the_error_of_one_says_what_to_do() -> None:
    ds = data.from_arrow(pa.table({"x": ["a", "b", None]}))
    encoder = preprocessors.OrdinalEncoder(["x"]).fit(ds.limit(2))
    made = encoder.transform(ds.limit(2), batch_size=1, num_cpus=0.5, concurrency=1)
    assert made.to_arrow().column("x").to_pylist() == [0, 1]
    with pytest.raises(Exception, match="the column 'x' has 1 null values among 3; fill them before"):
        encoder.transform(ds, num_cpus=0.5).to_arrow()
