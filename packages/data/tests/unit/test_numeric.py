"""Numbers between NumPy and Arrow."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from umbel.data._blocks import numeric

DTYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back_in_one_memory(dtype: str) -> None:
    array = np.arange(10, dtype=dtype)
    column = numeric.to_arrow(array)
    assert column.equals(pa.array(array))
    assert numeric.holds(column)
    back = numeric.to_numpy(column)
    assert back.dtype == array.dtype
    assert back.tolist() == array.tolist()
    assert np.shares_memory(array, back)
    assert not back.flags.writeable


@pytest.mark.parametrize("dtype", DTYPES)
def test_slices_strides_byte_orders_and_nothing(dtype: str) -> None:
    array = np.arange(10, dtype=dtype)
    assert numeric.to_numpy(numeric.to_arrow(array).slice(3, 4)).tolist() == [3, 4, 5, 6]
    assert numeric.to_arrow(array[::-3]).to_pylist() == [9, 6, 3, 0]
    assert numeric.to_arrow(array.astype(array.dtype.newbyteorder(">"))).equals(pa.array(array))
    empty = numeric.to_arrow(array[:0])
    assert empty.equals(pa.array(array[:0]))
    assert numeric.to_numpy(empty).dtype == array.dtype
    assert numeric.to_numpy(pa.nulls(0, empty.type)).tolist() == []


def test_what_is_null_or_no_number_is_left_to_others() -> None:
    assert numeric.holds(pa.array([1.0, float("nan")]))
    assert not numeric.holds(pa.array([1, None]))
    assert not numeric.holds(pa.array([True]))
    assert not numeric.holds(pa.array([1], pa.timestamp("s")))
    assert not numeric.holds(pa.array(["1"]))


def test_rows_of_numbers_need_no_pandas() -> None:
    """PyArrow would load it, where it is installed."""
    program = """
import sys
from umbel import data
from umbel.data._blocks import batches, rows
ds = data.range(100)
made = [rows.from_rows(ds.take(3)), *(batches.from_batch(batch) for batch in ds.iter_batches(batch_size=60))]
assert [len(table) for table in made] == [3, 60, 40]
sys.exit("pandas" in sys.modules)
"""
    pytest.importorskip("pandas")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
