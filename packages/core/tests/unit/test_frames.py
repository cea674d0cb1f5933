"""Frames and control messages as they come from a peer that has proved itself and is wrong all the same."""

from __future__ import annotations

import json

import pytest

from umbel._agent import messages
from umbel._wire import frames


def control(text: bytes, body: bytes = b"") -> bytes:
    """The payload of a control frame with this text, whatever it is."""
    return frames.HEADER.pack(len(text)) + text + body


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01\0\0",
        b"\x01\0\0\0",
        frames.HEADER.pack(2**32 - 1),
        control(b""),
        control(b"[]"),
        control(b"1"),
        control(b"{"),
        control(b'{"t": "\xff"}'),
        control(b'{"rq": ' + b"1" * 5000 + b"}"),
        control(b"[" * 100_000),
        control(b'{"t":' * 100_000),
        control(b'{"t":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ],
    ids=lambda payload: repr(payload[:12]),
)
def test_what_is_no_control_frame_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError):
        frames.decode_control(payload)


def test_message_of_any_depth_is_taken_or_refused() -> None:
    """By a daemon, which else would end with a RecursionError: at once, or when it shows or copies the message."""
    for depth in (*range(frames.DEPTH_MAX - 5, frames.DEPTH_MAX + 5), *range(800, 1010)):
        fields = {"t": "demand", "key": "k", "resources": {}, "count": 1, "env": {"DEEP": 0}}
        text = json.dumps(fields).replace('{"DEEP": 0}', '{"a":' * depth + "1" + "}" * depth).encode()
        if depth < frames.DEPTH_MAX:
            assert messages.parse(frames.decode_control(control(text))[0])["env"]
        else:
            with pytest.raises(ValueError, match="nests deeper than 200"):
                frames.decode_control(control(text))


def test_message_that_is_wide_and_not_deep_is_taken() -> None:
    wide = {"t": "metrics", "report": [[{"a": [1]}] for _ in range(10_000)]}
    assert frames.decode_control(frames.encode_control(wide, b"body")[4:]) == (wide, b"body")
