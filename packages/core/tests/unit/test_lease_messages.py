"""What two nodes say to each other about leases: what is well-formed, and what of the rest is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from umbel._wire import lease_messages

PROCESS, NODE = "ab" * 16, "cd" * 28
WANT = {
    "t": "want", "client": PROCESS, "key": "k", "count": 2, "heard": 1, "job": "01000000@cdcdcdcdcdcd",
    "resources": {"CPU": 10_000}, "depth": 0, "env": {}, "group": {}, "impatient": False, "claim": False,
}  # fmt: skip
TOLD = {"t": "tell", "client": PROCESS, "message": {"t": "grant", "key": "k", "worker": PROCESS}}


@pytest.mark.parametrize(
    "message",
    [
        {"t": "hello", "protocol": 1, "node": NODE, "to": NODE},
        {"t": "job", "job": "01000000@cdcdcdcdcdcd", "facts": {}},
        WANT,
        {**WANT, "group": {"placement_group": "ab", "bundle_index": 0, "captures": False}},
        {"t": "leave", "client": PROCESS},
        {"t": "return", "client": PROCESS, "worker": PROCESS, "retire": False},
        {"t": "kill", "client": PROCESS, "worker": PROCESS, "reason": "it was cancelled"},
        {"t": "check", "client": PROCESS, "worker": PROCESS},
        {"t": "lines", "job": "01000000", "message": {"t": "log", "lines": ["a"]}},
    ],
)
def test_what_a_lessee_says(message: dict[str, Any]) -> None:
    assert lease_messages.parse(message, lease_messages.FROM_LESSEE) is message


@pytest.mark.parametrize(
    "message",
    [
        {"t": "room", "available": {"CPU": 0}, "bundles": {}, "returns": 0},
        {"t": "room", "available": {"CPU": 0}, "bundles": {"ab": {"0": {"CPU": 10_000}}}, "returns": 2},
        TOLD,
        {**TOLD, "message": {"t": "demand_failed", "key": "k", "reason": "r"}},
        {**TOLD, "message": {"t": "worker_died", "worker": PROCESS}},
        {"t": "lines", "job": "01000000@cdcdcdcdcdcd", "message": {"t": "log", "lines": ["a"]}},
    ],
)
def test_what_a_lessor_says(message: dict[str, Any]) -> None:
    assert lease_messages.parse(message, lease_messages.FROM_LESSOR) is message


@pytest.mark.parametrize(
    ("message", "known", "wrong"),
    [
        ({"t": "hello", "protocol": 1, "node": "ab", "to": NODE}, lease_messages.FROM_LESSEE, "hello.node"),
        ({"t": "hello", "protocol": 1, "node": NODE, "to": ""}, lease_messages.FROM_LESSEE, "hello.to"),
        ({**WANT, "client": "p1"}, lease_messages.FROM_LESSEE, "want.client"),
        ({**WANT, "count": -1}, lease_messages.FROM_LESSEE, "want.count"),
        ({**WANT, "count": True}, lease_messages.FROM_LESSEE, "want.count"),
        ({**WANT, "resources": {"CPU": 0.5}}, lease_messages.FROM_LESSEE, "want.resources"),
        ({**WANT, "env": None}, lease_messages.FROM_LESSEE, "want.env"),
        ({**WANT, "group": {"placement_group": 1}}, lease_messages.FROM_LESSEE, "want.group"),
        ({**WANT, "group": {"placement_group": "ab", "bundle_index": "0"}}, lease_messages.FROM_LESSEE, "want.group"),
        ({"t": "room", "available": {}, "bundles": {"ab": {"x": {}}}}, lease_messages.FROM_LESSOR, "room.bundles"),
        (TOLD, lease_messages.FROM_LESSEE, "unknown message type 'tell'"),
        ({**TOLD, "message": {"t": "fatal", "text": "end"}}, lease_messages.FROM_LESSOR, "tell.message"),
        ({**TOLD, "message": {"t": "grant", "worker": PROCESS}}, lease_messages.FROM_LESSOR, "tell.message"),
        ({**TOLD, "message": {"t": "reclaim", "worker": "../x"}}, lease_messages.FROM_LESSOR, "tell.message"),
        ({"t": "lines", "job": "", "message": {"t": "log"}}, lease_messages.FROM_LESSOR, "lines.message"),
        ({"t": "room", "available": {"CPU": -1}}, lease_messages.FROM_LESSOR, "room.available"),
    ],
)
def test_what_is_wrong_of_a_message(message: dict[str, Any], known: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        lease_messages.parse(message, known)
