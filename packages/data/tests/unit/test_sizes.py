"""What tables show, what they hold, and pieces of a good size."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from umbel.data._blocks import sizes, tensors


def sent_bytes(table: pa.Table) -> int:
    """What pickling would send, in band and out of it."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(table, protocol=5, buffer_callback=buffers.append)
    return len(data) + sum(buffer.raw().nbytes for buffer in buffers)


@pytest.fixture(scope="module")
def large() -> pa.Table:
    """100 MB."""
    return pa.table({name: np.arange(3_125_000, dtype=np.int64) for name in "abcd"})


def nested(row_count: int) -> pa.Table:
    numbers = np.arange(row_count)
    text = pa.array([f"row {number}" * 5 for number in numbers])
    return pa.table(
        {
            "text": text,
            "dictionary": text.dictionary_encode(),
            "list": pa.array([[number] * 3 for number in numbers.tolist()]),
            "struct": pa.array([{"a": number, "b": [str(number)]} for number in numbers.tolist()]),
            "tensor": tensors.from_numpy(np.zeros((row_count, 4, 4))),
            "ragged": tensors.from_arrays([np.zeros(number % 7 + 1) for number in numbers]),
            "null": pa.nulls(row_count),
        }
    )


def test_ten_rows_of_a_hundred_megabytes_are_sent_as_ten_rows(large: pa.Table) -> None:
    few = large.slice(1_000_000, 10)
    assert sizes.size_bytes(few) == 320
    assert sent_bytes(few) > 100_000_000
    got = sizes.compact(few)
    assert got == few
    assert sent_bytes(got) < 4_000


def test_a_whole_table_is_not_copied_and_neither_is_most_of_one(large: pa.Table) -> None:
    assert sizes.compact(large) is large
    most = large.slice(0, 2_000_000)
    assert sizes.compact(most) is most
    assert sizes.compact(pa.table({})).num_rows == 0


def test_slices_of_every_kind_of_column_become_small() -> None:
    table = nested(20_000)
    few = table.slice(5_000, 10)
    got = sizes.compact(few)
    assert got.schema == few.schema
    assert got.drop_columns(["dictionary", "tensor", "ragged"]) == few.drop_columns(["dictionary", "tensor", "ragged"])
    assert got["dictionary"].to_pylist() == few["dictionary"].to_pylist()
    for name in ("tensor", "ragged"):
        one, other = (tensors.to_numpy(sizes.contiguous(side[name])) for side in (got, few))
        assert [row.tolist() for row in one] == [row.tolist() for row in other]
    assert sent_bytes(got) < 12_000


def test_only_the_columns_that_hold_too_much_are_copied() -> None:
    whole, part = pa.array(np.arange(100_000)), pa.array(np.arange(1_000_000)).slice(3, 100_000)
    table = pa.table({"whole": whole, "part": part})
    got = sizes.compact(table)
    assert got == table
    assert got["whole"].chunk(0).buffers()[1].address == whole.buffers()[1].address
    assert got.get_total_buffer_size() == 2 * 800_000


def test_tiny_chunks_are_combined_and_large_ones_left() -> None:
    tiny = pa.concat_tables([nested(3)] * 50)
    got = sizes.compact(tiny)
    assert {column.num_chunks for column in got.columns} == {1}
    assert got.schema == tiny.schema
    assert got["text"].to_pylist() == tiny["text"].to_pylist()
    assert got["dictionary"].to_pylist() == tiny["dictionary"].to_pylist()
    long = pa.concat_tables([pa.table({"a": np.arange(10_000)})] * 3)
    assert sizes.compact(long) is long


def test_dictionaries_that_are_too_many_for_their_indices_stay_apart_or_get_wider_ones() -> None:
    narrow = pa.dictionary(pa.int8(), pa.string())
    chunks = [pa.array([f"{letter}{number}" for number in range(100)]).cast(narrow) for letter in "ab"]
    table = pa.table({"a": pa.chunked_array(chunks)})
    assert sizes.compact(table).schema == table.schema
    got = sizes.contiguous(table["a"])
    assert got.type == pa.dictionary(pa.int32(), pa.string())
    assert got.to_pylist() == table["a"].to_pylist()


def test_dictionaries_of_narrow_floats_keep_their_values() -> None:
    """PyArrow 26 makes 32256.0 of the NaN."""
    try:
        pc.dictionary_encode(pa.array(np.zeros(1, np.float16)))
    except NotImplementedError:
        pytest.skip("this PyArrow makes no such dictionaries")
    chunks = [pa.array(np.array([np.nan, 1.5], np.float16)).dictionary_encode() for _ in range(2)]
    got = sizes.contiguous(pa.chunked_array(chunks))
    assert got.type == chunks[0].type
    assert [str(value) for value in got.to_pylist()] == ["nan", "1.5", "nan", "1.5"]


def test_columns_that_pass_the_limit_of_offsets_get_large_ones() -> None:
    text = pa.array(["abc", None, "defg"])
    pairs = pa.struct({"s": pa.list_(pa.string()), "n": pa.int64()})
    inside = pa.array([{"s": ["abc"], "n": 1}, None, {"s": None, "n": 2}], pairs)
    for chunk, expected in [
        (text, pa.large_string()),
        (text.cast(pa.binary()), pa.large_binary()),
        (inside, pa.struct({"s": pa.large_list(pa.large_string()), "n": pa.int64()})),
        (pa.array([1, 2, 3]), pa.int64()),
    ]:
        column = pa.chunked_array([chunk, chunk])
        got = sizes.contiguous(column, offset_bytes_max=column.nbytes - 1)
        assert got.type == expected
        assert got.to_pylist() == column.to_pylist()
        assert sizes.contiguous(column, offset_bytes_max=column.nbytes).type == chunk.type


def test_one_array_is_itself_and_no_array_is_empty() -> None:
    array = pa.array([1, 2])
    assert sizes.contiguous(pa.chunked_array([array])).buffers()[1].address == array.buffers()[1].address
    assert sizes.contiguous(pa.chunked_array([], pa.string())) == pa.array([], pa.string())


def test_a_table_is_split_into_even_slices_in_order() -> None:
    table = pa.table({"a": np.arange(1000)})
    pieces = list(sizes.split(table, 1000))
    assert [piece.num_rows for piece in pieces] == [125] * 8
    assert pa.concat_tables(pieces) == table
    assert [piece.num_rows for piece in sizes.split(table, 6000)] == [1000]
    assert list(sizes.split(table[:0], 10)) == []


def test_rows_of_unequal_sizes_are_split_further_and_a_huge_one_stands_alone() -> None:
    table = pa.table({"a": ["x"] * 100 + ["y" * 10_000] + ["z" * 100] * 100})
    pieces = list(sizes.split(table, 2000))
    assert pa.concat_tables(pieces).combine_chunks() == table
    assert max(sizes.size_bytes(piece) for piece in pieces if piece.num_rows > 1) <= 3000
    assert sum(sizes.size_bytes(piece) > 3000 for piece in pieces) == 1


@pytest.mark.parametrize("name", nested(1).column_names)
def test_no_chunks_are_one_array_too(name: str) -> None:
    kind = nested(1).schema.field(name).type
    found = sizes.contiguous(pa.chunked_array([], kind))
    assert (len(found), found.type) == (0, kind)
