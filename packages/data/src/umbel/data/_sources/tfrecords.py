"""TFRecord files of tf.train.Example: a row for each record, a column for each feature.

A record is its length, a CRC of that, its bytes and a CRC of those; both are checked. Features have no order, so that columns
come by name. A feature that has at most one value in each record of the first piece of a file is a column of values,
any other one of lists.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa

from umbel.data._sources import crc32c, examples, files

_PIECE_BYTES: Final = 8 << 20  # of records that become a table
_RECORD_BYTES_MAX: Final = 1 << 40  # what is said to be larger is not the length of a record
_ARROW_TYPES: Final[Mapping[int, pa.DataType]] = {
    0: pa.null(),
    examples.BYTES: pa.binary(),
    examples.FLOATS: pa.float32(),
    examples.INTS: pa.int64(),
}


class TFRecordDatasource(files.FileBasedDatasource):
    """schema: says by a list type which features are lists, and by string that bytes are text."""

    FILE_EXTENSIONS: ClassVar[Sequence[str] | None] = None

    def get_name(self) -> str:
        return "TFRecord"

    def _read_stream(self, f: pa.NativeFile, path: str) -> Iterator[pa.Table]:
        lists: dict[str, bool] = {}
        if self._given_schema is not None:
            lists = {field.name: pa.types.is_list(field.type) for field in self._given_schema}
        for records in _pieces(f):
            yield _table([examples.decode(record) for record in records], lists)


def records(stream: Any) -> Iterator[bytes]:
    """Those of a file, checked. Raises ValueError where it is broken, with the number of the record."""
    for piece in _pieces(stream):
        yield from piece


def framed(payloads: Sequence[bytes]) -> bytes:
    """As they lie in a file."""
    headers = [struct.pack("<Q", len(payload)) for payload in payloads]
    checks = (
        [crc32c.masked(crc32c.crc32c(strings)).tolist() for strings in (headers, payloads)] if payloads else [[], []]
    )
    return b"".join(
        header + struct.pack("<I", header_check) + payload + struct.pack("<I", payload_check)
        for header, header_check, payload, payload_check in zip(headers, checks[0], payloads, checks[1], strict=True)
    )


def _pieces(stream: Any) -> Iterator[list[bytes]]:
    number = 0
    headers: list[bytes] = []
    payloads: list[bytes] = []
    stored: list[int] = []
    size_bytes = 0
    while header := stream.read(12):
        length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
        if length > _RECORD_BYTES_MAX:
            _check(headers, payloads, stored, number)
            raise ValueError(f"record {number + len(payloads)} says that it has {length} bytes; is it a TFRecord file?")
        body = stream.read(length + 4)
        if len(header) < 12 or len(body) < length + 4:
            raise ValueError(f"it ends within record {number + len(payloads)}")
        headers.append(header[:8])
        payloads.append(body[:-4])
        stored += [struct.unpack("<I", header[8:])[0], struct.unpack("<I", body[-4:])[0]]
        size_bytes += length
        if size_bytes >= _PIECE_BYTES:
            _check(headers, payloads, stored, number)
            yield payloads
            number += len(payloads)
            headers, payloads, stored, size_bytes = [], [], [], 0
    if payloads:
        _check(headers, payloads, stored, number)
        yield payloads


def _check(headers: Sequence[bytes], payloads: Sequence[bytes], stored: Sequence[int], number: int) -> None:
    if not payloads:
        return
    for strings, expected, what in ((headers, stored[0::2], "length"), (payloads, stored[1::2], "content")):
        wrong = np.flatnonzero(crc32c.masked(crc32c.crc32c(strings)) != np.array(expected, np.uint32))
        if wrong.size:
            raise ValueError(f"the {what} of record {number + int(wrong[0])} is not what its checksum says")


def _table(rows: Sequence[Mapping[str, examples.Feature]], lists: dict[str, bool]) -> pa.Table:
    names = sorted(examples.names_of(rows))
    return pa.table({name: _column(name, [row.get(name) for row in rows], lists) for name in names})


def _column(name: str, features: Sequence[examples.Feature | None], lists: dict[str, bool]) -> pa.Array:
    kinds = {feature.kind for feature in features if feature is not None and feature.kind}
    if len(kinds) > 1:
        raise ValueError(
            f"feature {name!r} has {' in one record, '.join(examples.KINDS[kind] for kind in sorted(kinds))} in another"
        )
    kind = kinds.pop() if kinds else 0
    values = [None if feature is None or not feature.kind else feature.values for feature in features]
    has_many = any(one is not None and len(one) > 1 for one in values)
    if not lists.setdefault(name, has_many):
        if has_many:
            raise ValueError(
                f"feature {name!r} has several values in one record, and had one at most in those before; "
                "pass schema= with a list type for it"
            )
        return pa.array([one[0] if one is not None and len(one) else None for one in values], _ARROW_TYPES[kind])
    flat = [value for one in values if one is not None for value in one]
    offsets = np.cumsum([0, *(0 if one is None else len(one) for one in values)], dtype=np.int32)
    mask = pa.array([one is None for one in values])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, _ARROW_TYPES[kind]), mask=mask)
