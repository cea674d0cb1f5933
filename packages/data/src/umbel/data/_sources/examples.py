"""tf.train.Example, the protocol buffer that TFRecord files have, taken apart and put together by hand.

An Example is a map from names to features, a feature a list of bytes, of float32 or of int64.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np

BYTES: Final = 1
FLOATS: Final = 2
INTS: Final = 3
KINDS: Final = {BYTES: "bytes", FLOATS: "floats", INTS: "integers"}

_VARINT: Final = 0
_FIXED64: Final = 1
_LENGTH: Final = 2
_FIXED32: Final = 5
_SIGN: Final = 1 << 63


class Feature(NamedTuple):
    """kind: 0 where none is set, which is a feature without a value. values: a list, or an array of numbers."""

    kind: int
    values: Any


def decode(record: bytes) -> dict[str, Feature]:
    """Raises ValueError for what is no Example."""
    try:
        found: dict[str, Feature] = {}
        for number, features in _fields(record):
            if number == 1:
                for entry_number, entry in _fields(features):
                    if entry_number == 1:
                        parts = dict(_fields(entry))
                        found[parts.get(1, b"").decode()] = _feature(parts.get(2, b""))
        return found
    except (IndexError, struct.error, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"a record of {len(record)} bytes is no tf.train.Example: {error}") from error


def encode(features: Mapping[str, Feature]) -> bytes:
    entries = []
    for name, feature in features.items():
        entry = _field(1, name.encode()) + _field(2, _encoded(feature))
        entries.append(_field(1, entry))
    return _field(1, b"".join(entries))


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The number and the value of each field: bytes, or an int."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        wire = tag & 7
        value: Any
        if wire == _LENGTH:
            size, position = _varint(message, position)
            value = message[position : position + size]
            if len(value) < size:
                raise IndexError("it ends too early")
            position += size
        elif wire == _VARINT:
            value, position = _varint(message, position)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
            value = message[position : position + size]
            position += size
        else:
            raise IndexError(f"there is no wire type {wire}")
        yield tag >> 3, value


def _feature(message: bytes) -> Feature:
    feature = Feature(0, ())
    for kind, values in _fields(message):
        if kind == BYTES:
            feature = Feature(kind, [value for number, value in _fields(values) if number == 1])
        elif kind == FLOATS:
            packed = b"".join(value for number, value in _fields(values) if number == 1)
            feature = Feature(kind, np.frombuffer(packed, "<f4"))
        elif kind == INTS:
            feature = Feature(kind, _ints(values))
    return feature


def _ints(message: bytes) -> np.ndarray:
    found: list[int] = []
    for number, value in _fields(message):
        if number != 1:
            continue
        if isinstance(value, int):
            found.append(value)
            continue
        position = 0
        while position < len(value):
            one, position = _varint(value, position)
            found.append(one)
    signed: np.ndarray = np.array(found, np.uint64).view(np.int64)
    return signed


def _varint(message: bytes, position: int) -> tuple[int, int]:
    byte = message[position]
    position += 1
    if byte < 0x80:
        return byte, position
    value, shift = byte & 0x7F, 7
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2 * _SIGN - 1), position
        shift += 7


def _encoded(feature: Feature) -> bytes:
    if feature.kind == BYTES:
        values = b"".join(_field(1, value) for value in feature.values)
    elif feature.kind == FLOATS:
        values = _field(1, _floats(feature.values).tobytes())
    elif feature.kind == INTS:
        values = _field(1, b"".join(_varint_bytes(int(value) & (2 * _SIGN - 1)) for value in feature.values))
    else:
        return b""
    return _field(feature.kind, values)


def _floats(values: Any) -> np.ndarray:
    """Rounded to float32; raises ValueError where that would make an infinity of a number."""
    wide: np.ndarray = np.asarray(values, np.float64)
    with np.errstate(over="ignore"):
        narrow: np.ndarray = wide.astype("<f4")
    lost = np.isinf(narrow) & ~np.isinf(wide)
    if lost.any():
        raise ValueError(f"{wide[lost][0]!r} is too large for float32, the only floating point that an Example has")
    return narrow


def _field(number: int, value: bytes) -> bytes:
    return bytes((number << 3 | _LENGTH,)) + _varint_bytes(len(value)) + value


def _varint_bytes(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def names_of(examples: Iterable[Mapping[str, Feature]]) -> list[str]:
    """In the order in which they are first seen; a map has none of its own."""
    names: dict[str, None] = {}
    for example in examples:
        names.update(dict.fromkeys(example))
    return list(names)
