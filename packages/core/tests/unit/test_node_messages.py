"""What a node and its head say to each other, checked when it arrives."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._wire import node_messages

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
        "t": "welcome", "cluster": "cd" * 28, "period_s": 3, "timeout_s": 10.0, "nodes": [FACTS], "heard": 7,
        "job_ids": [65, 64], "head": "ab" * 28,
    }  # fmt: skip
    for message in (welcome, {"t": "nodes", "nodes": [FACTS]}, {"t": "heard", "sequence": 1, "leads": True}, *of_both):
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
