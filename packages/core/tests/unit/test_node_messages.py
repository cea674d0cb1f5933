"""What a node and its head say to each other, checked when it arrives."""

from __future__ import annotations

import os
from typing import Any

import pytest

from umbel._wire import frames, node_messages

FACTS = {"node_id": "ab" * 28, "version": "1", "address": "h:1", "host_name": "h", "resources": {}, "labels": {}}
STATE = {"available": {}, "waiting": 0}
JOIN = {
    "t": "join",
    "protocol": 1,
    "sequence": 1,
    "cluster": "",
    "facts": FACTS,
    "state": STATE,
    "heard": 0,
    "head": "",
}
SAID = {"t": "said", "number": 1, "heard": 0, "message": {"t": "client_gone", "client": "c"}}


def test_right_messages_pass_as_they_are() -> None:
    of_node = (JOIN, {"t": "beat", "sequence": 2, "state": STATE}, {"t": "goodbye", "reason": "umbel stop"})
    of_both = (SAID, {"t": "heard_said", "heard": 3})
    for message in (*of_node, *of_both):
        assert node_messages.parse(message, node_messages.FROM_NODE) is message
    welcome = {
        "t": "welcome", "cluster": "cd" * 28, "period_s": 3, "timeout_s": 10.0, "silence_s": 25.0, "nodes": [FACTS], "heard": 7,
        "job_ids": [65, 64], "head": "ab" * 28,
    }  # fmt: skip
    listing = {"t": "listing", "nodes": [FACTS]}
    for message in (
        welcome,
        listing,
        {"t": "nodes", "nodes": [FACTS]},
        {"t": "heard", "sequence": 1, "leads": True},
        *of_both,
    ):
        assert node_messages.parse(message, node_messages.FROM_HEAD) is message


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence", -1), ("sequence", True), ("cluster", None), ("facts", {**FACTS, "node_id": "AB" * 28}),
        ("facts", {**FACTS, "node_id": "ab"}), ("facts", {**FACTS, "labels": []}), ("facts", []), ("state", {"available": {}}),
        ("state", {"available": [], "waiting": 0}), ("protocol", "1"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"join.{field} is wrong"):
        node_messages.parse({**JOIN, field: value}, node_messages.FROM_NODE)


@pytest.mark.parametrize("said", [None, [], {}, {"t": 1}])
def test_what_is_said_has_a_kind(said: Any) -> None:
    with pytest.raises(ValueError, match=r"said\.message is wrong"):
        node_messages.parse({**SAID, "message": said}, node_messages.FROM_HEAD)


@pytest.mark.parametrize("message", [{}, {"t": "welcome"}, {"t": 1}, {"t": ["join"]}])
def test_unknown_messages_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unknown message type"):
        node_messages.parse(message, node_messages.FROM_NODE)


def test_a_missing_field_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"welcome\.cluster is wrong: None"):
        node_messages.parse({"t": "welcome"}, node_messages.FROM_HEAD)


# ---- packing ----


def news(count: int) -> dict[str, Any]:
    return {"t": "nodes", "nodes": [{**STATE, "node_id": os.urandom(28).hex()} for _ in range(count)]}


@pytest.mark.parametrize("count", [1, 1_000])
def test_what_was_packed_is_read_as_it_was(count: int) -> None:
    message = news(count)
    frame = node_messages.packed(frames.encode_control(message), "nodes")
    assert node_messages.decode(frame[frames.HEADER.size :]) == (message, b"")


def test_a_long_frame_becomes_less_than_half_and_a_short_one_stays() -> None:
    long, short = (frames.encode_control(news(count)) for count in (1_000, 5))
    assert len(node_messages.packed(long, "nodes")) < len(long) / 2
    assert node_messages.packed(short, "nodes") is short


@pytest.mark.parametrize(
    ("size_bytes", "body", "message"),
    [
        (None, b"", r"packed\.size_bytes is wrong: None"), (0, b"", "wrong: 0"), (1 << 40, b"", "wrong: 1099511627776"),
        (100, b"no zlib", "cannot be unpacked"), (10, None, "was to have 10 bytes"), (100_000_000, None, "was to have 100000000"),
    ],
)  # fmt: skip
def test_what_was_packed_wrongly_is_refused(size_bytes: Any, body: bytes | None, message: str) -> None:
    if body is None:
        frame = node_messages.packed(frames.encode_control(news(1_000)), "nodes")
        _, body = frames.decode_control(frame[frames.HEADER.size :])
    wrong = frames.encode_control({"t": "packed", "of": "nodes", "size_bytes": size_bytes}, body)
    with pytest.raises(ValueError, match=message):
        node_messages.decode(wrong[frames.HEADER.size :])
