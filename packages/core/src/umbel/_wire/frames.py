"""Frames: how messages are cut out of a byte stream.

A frame is a four-byte little-endian length and that many bytes. Two bodies exist. *Data* frames (`data_frames`) are pickles,
between owners and workers. *Control* frames, the only kind a daemon reads, are a JSON object plus an opaque body which the daemon
passes on without looking inside.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

PROTOCOL_VERSION = 1
HEADER = struct.Struct("<I")
FRAME_BYTES_MAX = 1 << 30  # a length beyond this is a broken stream, not a message: large values travel by store
DEPTH_MAX = (
    200  # of a control message: it is shown, copied and written again, each of which the stack has to have room for
)

to_json = json.JSONEncoder(separators=(",", ":")).encode
_from_json = json.JSONDecoder().decode
_pack = HEADER.pack


def encode_control(message: Mapping[str, Any], body: bytes = b"", *, encoded: Mapping[str, str] | None = None) -> bytes:
    """One control frame: `message` must be JSON; `body` travels untouched. encoded: more fields of it, which are JSON already."""
    text = to_json(message).encode()
    if encoded:
        fields = "".join(f",{to_json(name)}:{value}" for name, value in encoded.items())
        text = b"".join((text[:-1], fields.encode(), b"}"))
    return b"".join((_pack(4 + len(text) + len(body)), _pack(len(text)), text, body))


def decode_control(payload: bytes, *, depth_max: int = DEPTH_MAX) -> tuple[dict[str, Any], bytes]:
    """Inverse of `encode_control`, for a payload without its frame header. Raises ValueError on anything malformed."""
    if len(payload) < 4:
        raise ValueError(f"control frame of {len(payload)} bytes is too short to hold its header")
    (size,) = HEADER.unpack_from(payload)
    if 4 + size > len(payload):
        raise ValueError(f"control frame announces {size} bytes of text, has {len(payload) - 4}")
    text = payload[4 : 4 + size].decode()
    try:
        message = _from_json(text)
    except RecursionError:
        raise ValueError(f"control frame nests deeper than {DEPTH_MAX}") from None
    if not isinstance(message, dict):
        raise ValueError(f"control frame must hold an object, got {type(message).__name__}")
    if (
        size > 2 * depth_max and text.count("[") + text.count("{") > depth_max
    ):  # few messages are so long, or have so many
        _check_depth(message, depth_max)
    return message, payload[4 + size :]


def _check_depth(message: dict[str, Any], depth_max: int) -> None:
    """Raises ValueError when objects and arrays lie deeper in each other than that."""
    level: list[Any] = [message]
    for _ in range(depth_max):
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for several in inner for one in several if isinstance(one, (dict, list))]
        if not level:
            return
    raise ValueError(f"control frame nests deeper than {depth_max}")


class FrameReader:
    """Cuts a byte stream into frame payloads. Holds at most one incomplete frame."""

    __slots__ = ("_pending", "_wanted")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._wanted = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads completed by `data`. Raises ValueError when a length exceeds FRAME_BYTES_MAX."""
        size = len(data)
        if not self._pending and size >= 4:
            (length,) = HEADER.unpack_from(data)
            if length + 4 == size:  # by far the commonest: exactly one frame
                return [data[4:]]
        pending = self._pending
        pending += data
        have = len(pending)
        if have < self._wanted:
            return []
        payloads = []
        start = 0
        while have - start >= 4:
            (length,) = HEADER.unpack_from(pending, start)
            if length > FRAME_BYTES_MAX:
                raise ValueError(f"frame of {length} bytes exceeds {FRAME_BYTES_MAX}; the stream is corrupt")
            end = start + 4 + length
            if end > have:
                self._wanted = end - start
                break
            payloads.append(bytes(memoryview(pending)[start + 4 : end]))
            start = end
        else:
            self._wanted = 4
        if start:
            del pending[:start]
        return payloads
