"""Columns of tensors, against the ndarrays that they are made of."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from umbel.data._blocks import tensors

DTYPES = ["bool", "int8", "uint64", "float16", "float32", "float64", "datetime64[us]"]


def numbers(shape: tuple[int, ...], dtype: str = "int64") -> np.ndarray[Any, Any]:
    return np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(dtype)


def ragged() -> tuple[list[np.ndarray[Any, Any] | None], pa.Array]:
    arrays = [numbers((2, 3)), numbers((1, 4)) + 10, None, numbers((0, 5)), numbers((3, 1)) + 20]
    return arrays, tensors.from_arrays(arrays)


def assert_rows(column: pa.Array, arrays: list[np.ndarray[Any, Any] | None]) -> None:
    got = tensors.to_numpy(column)
    assert len(got) == len(arrays)
    for one, other in zip(got, arrays, strict=True):
        if other is None:
            assert one is None
        else:
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 2, 2), (1, 2), (0, 2, 3), (3, 0, 2), (2, 1, 1, 1)])
def test_stacked_arrays_of_one_shape_come_back_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    stacked = numbers(shape, dtype)
    column = tensors.from_numpy(stacked)
    assert len(column) == shape[0]
    assert tensors.shape(column.type) == shape[1:]
    got = tensors.to_numpy(column)
    assert (got.dtype, got.shape) == (stacked.dtype, stacked.shape)
    np.testing.assert_array_equal(got, stacked)
    np.testing.assert_array_equal(tensors.to_numpy(column[1:]), stacked[1:])


def test_a_column_and_its_stacked_array_are_one_memory() -> None:
    stacked = numbers((100, 4), "float32")
    got = tensors.to_numpy(tensors.from_numpy(stacked))
    assert np.shares_memory(stacked, got)
    assert not got.flags.writeable


def test_arrays_of_other_byte_orders_and_strides_are_brought_into_order() -> None:
    stacked = np.asfortranarray(numbers((4, 3, 2)).astype(">i4"))[::2]
    np.testing.assert_array_equal(tensors.to_numpy(tensors.from_numpy(stacked)), stacked)


def test_null_rows_of_one_shape_are_none_and_the_rest_views() -> None:
    arrays: list[np.ndarray[Any, Any] | None] = [None, numbers((2, 2)), None, numbers((2, 2)) + 5]
    column = tensors.from_arrays(arrays)
    assert tensors.is_fixed(column.type)
    assert_rows(column, arrays)
    assert_rows(column[1:3], arrays[1:3])
    assert_rows(pa.concat_arrays([column[1:], column]), arrays[1:] + arrays)


def test_ragged_rows_survive_slices_concatenation_and_gathering() -> None:
    arrays, column = ragged()
    assert str(column.type) == "ragged_tensor<int64, ndim=2>"
    assert_rows(column, arrays)
    assert_rows(column[1:4], arrays[1:4])
    assert_rows(column[4:], arrays[4:])
    assert_rows(column[:0], [])
    assert_rows(pa.concat_arrays([column[3:], column[:2]]), arrays[3:] + arrays[:2])
    assert_rows(column.take(pa.array([4, 2, 0, 0])), [arrays[4], arrays[2], arrays[0], arrays[0]])
    assert column[2].as_py() is None
    np.testing.assert_array_equal(column[1].as_py(), arrays[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_ragged_rows_keep_their_dtype(dtype: str) -> None:
    arrays: list[np.ndarray[Any, Any] | None] = [numbers((2,), dtype), numbers((3,), dtype)]
    assert_rows(tensors.from_arrays(arrays), arrays)


def test_ragged_rows_are_views_of_the_column() -> None:
    _, column = ragged()
    first = tensors.to_numpy(column)[0]
    again = tensors.to_numpy(column)[0]
    assert np.shares_memory(first, again)


def test_ragged_columns_travel_by_pickle_and_ipc_and_parquet(tmp_path: Path) -> None:
    arrays, column = ragged()
    if pa.__version__.startswith("17."):  # which writes no null within a fixed-size list to Parquet
        arrays, column = [array for array in arrays if array is not None], column.drop_null()
    table = pa.table({"image": column})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, tmp_path / "one.parquet")
    for came in (
        pickle.loads(pickle.dumps(table)),
        pa.ipc.open_stream(sink.getvalue()).read_all(),
        pq.read_table(tmp_path / "one.parquet"),
    ):
        assert came.schema == table.schema
        assert_rows(came["image"].chunk(0), arrays)


def test_types_are_equal_by_what_they_hold() -> None:
    one = tensors.RaggedTensorType(pa.int64(), 2)
    assert one == tensors.RaggedTensorType(pa.int64(), 2)
    assert one != tensors.RaggedTensorType(pa.int64(), 3)
    assert one != tensors.RaggedTensorType(pa.int32(), 2)
    assert pickle.loads(pickle.dumps(one)) == one


def test_one_shape_becomes_several_and_numbers_become_others() -> None:
    arrays: list[np.ndarray[Any, Any] | None] = [numbers((2, 2), "int32"), None]
    fixed = tensors.from_arrays(arrays)
    wide = [None if array is None else array.astype("float64") for array in arrays]
    assert_rows(tensors.cast(fixed, tensors.RaggedTensorType(pa.float64(), 2)), wide)
    assert_rows(tensors.cast(fixed[1:], tensors.RaggedTensorType(pa.float64(), 2)), wide[1:])
    assert_rows(tensors.cast(fixed, tensors.fixed_type(pa.float64(), (2, 2))), wide)
    several, column = ragged()
    floats = [None if array is None else array.astype("float64") for array in several]
    assert_rows(tensors.cast(column[1:], tensors.RaggedTensorType(pa.float64(), 2)), floats[1:])


def test_casts_that_lose_something_are_errors() -> None:
    with pytest.raises(pa.ArrowInvalid):
        tensors.cast(tensors.from_numpy(np.array([[2**53 + 1]])), tensors.fixed_type(pa.float64(), (1,)))
    with pytest.raises(ValueError, match=r"shape \(2,\) cannot be cast"):
        tensors.cast(tensors.from_numpy(numbers((1, 2))), tensors.fixed_type(pa.int64(), (3,)))
    with pytest.raises(ValueError, match="several shapes"):
        tensors.cast(ragged()[1], tensors.fixed_type(pa.int64(), (3,)))


def test_axes_that_are_stored_in_another_order_are_seen_in_theirs() -> None:
    stored = numbers((2, 3, 4))
    storage = pa.FixedSizeListArray.from_arrays(pa.array(stored.reshape(-1)), 12)
    column = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int64(), (3, 4), permutation=(1, 0)), storage)
    assert tensors.shape(column.type) == (4, 3)
    np.testing.assert_array_equal(tensors.to_numpy(column), stored.transpose(0, 2, 1))
    np.testing.assert_array_equal(tensors.to_numpy(column), column.to_numpy_ndarray())
    plain = tensors.cast(column, tensors.fixed_type(pa.int64(), (4, 3)))
    np.testing.assert_array_equal(tensors.to_numpy(plain), stored.transpose(0, 2, 1))


def test_a_null_within_a_tensor_of_integers_is_an_error_and_does_not_become_a_float() -> None:
    storage = pa.FixedSizeListArray.from_arrays(pa.array([1, None]), 2)
    column = pa.ExtensionArray.from_storage(tensors.fixed_type(pa.int64(), (2,)), storage)
    with pytest.raises(ValueError, match="null among its elements"):
        tensors.to_numpy(column)


def test_numbers_of_null_rows_may_be_null_too() -> None:
    for data_type in (tensors.fixed_type(pa.int8(), (2,)), tensors.RaggedTensorType(pa.int8(), 1)):
        column = pa.ExtensionArray.from_storage(data_type, pa.nulls(2, data_type.storage_type))
        assert_rows(column, [None, None])
    arrays: list[np.ndarray[Any, Any] | None] = [numbers((2,), "int8"), None]
    fixed = tensors.from_arrays(arrays)
    absent = pa.ExtensionArray.from_storage(fixed.type, pa.nulls(1, fixed.type.storage_type))
    assert_rows(pa.concat_arrays([fixed, absent]), [*arrays, None])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("int8", True),
        ("float16", True),
        ("bool", True),
        ("datetime64[us]", True),
        ("timedelta64[D]", False),
        ("complex64", False),
        ("longdouble", False),
        ("U3", False),
        ("S3", False),
        ("object", False),
    ],
)
def test_what_tensors_hold(dtype: str, expected: bool) -> None:
    assert tensors.holds(np.dtype(dtype)) is expected
