"""What two nodes say to each other about leases, as control frames, checked once when it arrives.

The *lessee* is the node with the process that wants leases, the *lessor* the one with the workers. The lessee dials, and says
who it is, and whom it means, before anything else; the lessor says how much it has, at first and with each grant, what it does
for an environment before it can grant anything, and how much it will grant once others have given it back. What is for a process
of the lessee passes on as the lessor would say it to one of its own. Either side may have workers of a driver of the other, and
tells what they print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from umbel._base import nodes
from umbel._wire import node_messages

PROTOCOL_VERSION = 9
PASSED_ON = ("grant", "reclaim", "worker_died", "demand_failed")

Message = dict[str, Any]
_Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_amounts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_count, value.values()))


def _is_in_group(value: Any) -> bool:
    """Of which placement group a bundle is to be used, and which; nothing for none."""
    return value == {} or (
        isinstance(value, dict)
        and _is_text(value.get("placement_group"))
        and isinstance(value.get("bundle_index", -1), int)
    )


def _are_bundles(value: Any) -> bool:
    """What is free in them, by placement group and index."""
    return isinstance(value, dict) and all(
        isinstance(held, dict) and all(index.isdecimal() and _is_amounts(free) for index, free in held.items())
        for held in value.values()
    )


def _is_id(value: Any, size: int) -> bool:
    return _is_text(value) and len(value) == 2 * size and set(value) <= set("0123456789abcdef")


def _is_node(value: Any) -> bool:
    return _is_id(value, nodes.NODE_ID_BYTES)


def _is_process(value: Any) -> bool:
    return _is_id(value, nodes.PROCESS_ID_BYTES)


def _is_for_process(value: Any) -> bool:
    """What is looked at on the way is there."""
    if not isinstance(value, dict) or value.get("t") not in PASSED_ON:
        return False
    if value["t"] in ("grant", "demand_failed") and not _is_text(value.get("key")):
        return False
    return _is_text(value.get("reason")) if value["t"] == "demand_failed" else _is_process(value.get("worker"))


def _is_output(value: Any) -> bool:
    return isinstance(value, dict) and value.get("t") == "log" and isinstance(value.get("lines"), list)


FROM_LESSEE: Mapping[str, Mapping[str, _Check]] = {
    "hello": {"protocol": _is_count, "node": _is_node, "to": _is_node},
    "job": {"job": _is_text, "facts": _is_object},
    "job_over": {"job": _is_text},
    "want": {
        "client": _is_process, "key": _is_text, "count": _is_count, "heard": _is_count, "job": _is_text,
        "resources": _is_amounts, "depth": _is_count, "env": _is_object, "group": _is_in_group,
        "impatient": _is_flag, "claim": _is_flag,
    },
    "leave": {"client": _is_process},
    "return": {"client": _is_process, "worker": _is_process, "retire": _is_flag},
    "kill": {"client": _is_process, "worker": _is_process, "reason": _is_text},
    "check": {"client": _is_process, "worker": _is_process},
    "lines": {"job": _is_text, "message": _is_output},
}  # fmt: skip
FROM_LESSOR: Mapping[str, Mapping[str, _Check]] = {
    "room": {"available": _is_amounts, "bundles": _are_bundles, "returns": _is_count},
    "tell": {"client": _is_process, "message": _is_for_process},
    "preparing": {"client": _is_process, "key": _is_text, "text": _is_text},
    "promised": {"client": _is_process, "key": _is_text, "count": _is_count},
    "lines": {"job": _is_text, "message": _is_output},
}


def parse(message: Message, known: Mapping[str, Mapping[str, _Check]]) -> Message:
    """The message. Raises ValueError: what of it is wrong."""
    return node_messages.parse(message, known)
