"""TFRecord files: the checksums, the protocol buffer, and rows."""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import reading
import writing
from hypothesis import given, settings
from hypothesis import strategies as st

from umbel.data import datasource
from umbel.data._sinks.tfrecords import TFRecordDatasink
from umbel.data._sources import crc32c, examples, tfrecords
from umbel.data._sources.examples import BYTES, FLOATS, INTS, Feature
from umbel.data._sources.tfrecords import TFRecordDatasource


def slowly(data: bytes) -> int:
    """By the definition, bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def test_checksums_are_those_of_the_standard() -> None:
    """RFC 3720, B.4."""
    strings = [b"123456789", bytes(32), b"\xff" * 32, bytes(range(32)), bytes(range(31, -1, -1)), b""]
    assert crc32c.crc32c(strings).tolist() == [0xE3069283, 0x8A9136AA, 0x62A8AB43, 0x46DD794E, 0x113FDB5C, 0]


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.lists(st.binary(max_size=400), max_size=6), st.integers(1, 500))
def test_checksums_of_many_are_those_of_each(strings: list[bytes], bound: int) -> None:
    kept = crc32c._AT_ONCE_BYTES
    crc32c._AT_ONCE_BYTES = bound  # type: ignore[misc]
    try:
        assert crc32c.crc32c(strings).tolist() == [slowly(one) for one in strings]
    finally:
        crc32c._AT_ONCE_BYTES = kept  # type: ignore[misc]


def test_an_example_is_what_the_standard_says_it_is() -> None:
    """As example.proto and feature.proto have it: {"a": int64 [1, -1], "b": bytes ["x"], "c": float [0.5], "d": unset}."""
    int_list = b"\x1a\x0d\x0a\x0b\x01" + b"\xff" * 9 + b"\x01"
    entries = [
        b"\x0a\x01a\x12" + bytes((len(int_list),)) + int_list,
        b"\x0a\x01b\x12\x05\x0a\x03\x0a\x01x",
        b"\x0a\x01c\x12\x08\x12\x06\x0a\x04" + struct.pack("<f", 0.5),
        b"\x0a\x01d\x12\x00",
    ]
    body = b"".join(b"\x0a" + bytes((len(entry),)) + entry for entry in entries)
    record = b"\x0a" + bytes((len(body),)) + body
    found = examples.decode(record)
    assert {name: (feature.kind, list(feature.values)) for name, feature in found.items()} == {
        "a": (INTS, [1, -1]),
        "b": (BYTES, [b"x"]),
        "c": (FLOATS, [0.5]),
        "d": (0, []),
    }
    assert examples.encode(found) == record


def test_values_that_are_not_packed_are_read_too() -> None:
    """As writers other than TensorFlow's may have them."""
    ints = b"\x08\x05\x08\x96\x01"  # 5 and 150, each with its tag
    floats = b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", -2.0)

    def framed(number: int, message: bytes) -> bytes:
        return bytes((number << 3 | 2, len(message))) + message

    entries = [framed(1, b"i") + framed(2, framed(3, ints)), framed(1, b"f") + framed(2, framed(2, floats))]
    found = examples.decode(framed(1, b"".join(framed(1, entry) for entry in entries)))
    assert [list(found["i"].values), list(found["f"].values)] == [[5, 150], [1.5, -2.0]]


_features = st.dictionaries(
    st.text(max_size=4),
    st.one_of(
        st.builds(Feature, st.just(BYTES), st.lists(st.binary(max_size=200), max_size=3)),
        st.builds(Feature, st.just(INTS), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3)),
        st.builds(Feature, st.just(FLOATS), st.lists(st.floats(width=32, allow_nan=False), max_size=3)),
    ),
    max_size=3,
)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.lists(_features, max_size=4))
def test_whatever_is_framed_is_read(rows: list[dict[str, Feature]]) -> None:
    data = tfrecords.framed([examples.encode(row) for row in rows])
    found = [examples.decode(record) for record in tfrecords.records(io.BytesIO(data))]
    assert [{name: (one.kind, list(one.values)) for name, one in row.items()} for row in found] == [
        {name: (one.kind, one.values) for name, one in row.items()} for row in rows
    ]


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.binary(max_size=60))
def test_what_is_no_example_is_an_error_or_an_example(data: bytes) -> None:
    try:
        examples.decode(data)
    except ValueError as error:
        assert "is no tf.train.Example" in str(error)


TABLE = pa.table(
    {
        "f": [0.5, None, -2.0],
        "i": [1, -5, None],
        "l": [[1, 2], [], [3]],
        "s": [b"x", b"", None],
        "t": [[b"a", b"b"], None, [b"c"]],
    }
)


def test_rows_come_back(tmp_path: Path) -> None:
    writing.write(TFRecordDatasink(str(tmp_path)), [TABLE.slice(0, 1), TABLE.slice(1)])
    table = reading.table(TFRecordDatasource(tmp_path))
    assert table.schema == pa.schema(
        [
            ("f", pa.float32()),
            ("i", pa.int64()),
            ("l", pa.list_(pa.int64())),
            ("s", pa.binary()),
            ("t", pa.list_(pa.binary())),
        ]
    )
    assert table.to_pylist() == TABLE.to_pylist()


def test_what_an_example_has_no_form_for(tmp_path: Path) -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8.0).reshape(2, 2, 2))
    table = pa.table({"b": [True, False], "s": pa.array(["ä", "b"]).dictionary_encode(), "t": tensors})
    writing.write(TFRecordDatasink(str(tmp_path)), [table])
    assert reading.rows(TFRecordDatasource(tmp_path)) == [
        {"b": 1, "s": "ä".encode(), "t": [0.0, 1.0, 2.0, 3.0]},
        {"b": 0, "s": b"b", "t": [4.0, 5.0, 6.0, 7.0]},
    ]
    with pytest.raises(TypeError, match=r"column 'x' is struct<.*which an Example cannot hold"):
        writing.write(TFRecordDatasink(str(tmp_path)), [pa.table({"x": [{"a": 1}]})])
    with pytest.raises(ValueError, match="has a null within a list"):
        writing.write(TFRecordDatasink(str(tmp_path)), [pa.table({"x": [[1, None]]})])


def test_a_schema_says_what_is_a_list_and_what_is_text(tmp_path: Path) -> None:
    writing.write(TFRecordDatasink(str(tmp_path)), [TABLE])
    schema = pa.schema([("s", pa.string()), ("i", pa.list_(pa.int64())), ("f", pa.float64())])
    table = reading.table(TFRecordDatasource(tmp_path, schema=schema))
    assert table.schema == schema
    assert table.column("i").to_pylist() == [[1], [-5], None]


def test_a_feature_that_gets_several_values_later_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing.write(TFRecordDatasink(str(tmp_path)), [pa.table({"x": [[1], [2, 3]]})])
    monkeypatch.setattr(tfrecords, "_PIECE_BYTES", 1)
    with pytest.raises(
        datasource.FileReadError, match=r"feature 'x' has several values.*pass schema= with a list type"
    ):
        reading.rows(TFRecordDatasource(tmp_path))


def broken(data: bytes, kind: str) -> bytes:
    if kind == "content":
        return data[:14] + bytes((data[14] ^ 1,)) + data[15:]
    if kind == "length":
        return data[:9] + bytes((data[9] ^ 1,)) + data[10:]
    return data[:-3]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("content", r"the content of record 0 is not what its checksum says"),
        ("length", r"the length of record 0 is not what its checksum says"),
        ("end", r"it ends within record 2"),
    ],
)
def test_a_broken_file_is_named_with_the_record(tmp_path: Path, kind: str, said: str) -> None:
    writing.write(TFRecordDatasink(str(tmp_path)), [TABLE])
    (path,) = tmp_path.iterdir()
    path.write_bytes(broken(path.read_bytes(), kind))
    with pytest.raises(datasource.FileReadError, match=rf"TFRecord cannot read '.*\.tfrecords': ValueError: {said}"):
        reading.rows(TFRecordDatasource(tmp_path))


def test_another_file_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"nothing of the kind, and long enough")
    with pytest.raises(datasource.FileReadError, match=r"says that it has \d+ bytes; is it a TFRecord file\?"):
        reading.rows(TFRecordDatasource(tmp_path))


def test_values_are_rounded_but_not_made_infinite(tmp_path: Path) -> None:
    values = [math.pi, math.nan, math.inf, -0.0]
    writing.write(TFRecordDatasink(str(tmp_path)), [pa.table({"x": values})])
    found = reading.table(TFRecordDatasource(tmp_path)).column("x").to_numpy()
    np.testing.assert_array_equal(found, np.array(values, np.float32))
    with pytest.raises(ValueError, match=r"1e\+300.* is too large for float32"):
        writing.write(TFRecordDatasink(str(tmp_path)), [pa.table({"x": [1.0, 1e300]})])
