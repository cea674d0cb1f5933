"""What a node and its head say to each other, as control frames, checked once when it arrives.

The other side has proved that it is a node of the cluster; what is checked is that it has made no mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from umbel._base import nodes
from umbel._wire import frames, handshake

PROTOCOL_VERSION = 5
DEPTH_MAX = frames.DEPTH_MAX + 8  # what a process may say is passed on in some objects more
PACKED_BYTES = (
    16_384  # a frame to all nodes that is so long is packed: of 2,000 nodes' changes it becomes a fourth in 3 ms
)

Message = dict[str, Any]
_Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _is_time_or_none(value: Any) -> bool:
    return value is None or value == 0 or _is_number(value)


def _is_node_id(value: Any) -> bool:
    return _is_text(value) and len(value) == 2 * nodes.NODE_ID_BYTES and set(value) <= set("0123456789abcdef")


def _is_amounts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, int) for one in value.values())


def _are_jobs(value: Any) -> bool:
    """See `umbel._agent.shares.told`."""
    return isinstance(value, dict) and all(
        isinstance(one, list)
        and len(one) == 4
        and isinstance(one[0], int)
        and _is_number(one[1])
        and _is_amounts(one[2])
        and _is_count(one[3])
        for one in value.values()
    )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("available"), dict)
        and _is_count(value.get("waiting"))
        and _are_jobs(value.get("jobs", {}))
    )


def _is_facts(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_node_id(value.get("node_id"))
        and all(_is_text(value.get(name)) for name in ("version", "address", "host_name"))
        and all(isinstance(value.get(name), dict) for name in ("resources", "labels"))
    )


def _are_changes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) and _is_node_id(one.get("node_id")) for one in value)


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


def _is_ticket(value: Any) -> bool:
    return _is_text(value) and len(value) == 2 * handshake.TARGET_ID_BYTES and set(value) <= set("0123456789abcdef")


def _is_said(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("t"), str)


_CONVERSATION: Mapping[str, Mapping[str, _Check]] = {  # see `channels`
    "said": {"number": _is_count, "heard": _is_count, "message": _is_said},
    "heard_said": {"heard": _is_count},
}
FROM_NODE: Mapping[str, Mapping[str, _Check]] = {
    "join": {
        "protocol": _is_count, "sequence": _is_count, "cluster": _is_text, "facts": _is_facts, "state": _is_state,
        "heard": _is_count, "head": _is_text,
    },
    "beat": {"sequence": _is_count, "state": _is_state},
    "drain_answer": {"request": _is_count, "is_accepted": _is_flag, "text": _is_text, "state": _is_state},
    "goodbye": {"reason": _is_text},
    "reach": {"ticket": _is_ticket, "node": _is_node_id, "is_relayed": _is_flag},  # see `rendezvous`
    "unreached": {"ticket": _is_ticket, "reason": _is_text},
    **_CONVERSATION,
}  # fmt: skip
FROM_HEAD: Mapping[str, Mapping[str, _Check]] = {
    "welcome": {
        "cluster": _is_node_id, "head": _is_node_id, "period_s": _is_number, "timeout_s": _is_number, "silence_s": _is_number,
        "nodes": _are_changes, "heard": _is_count,
        "job_ids": _are_numbers,
    },  # after what is in the listing and the news before it
    "listing": {"nodes": _are_changes},
    "nodes": {"nodes": _are_changes},
    "heard": {"sequence": _is_count, "leads": _is_flag},
    "job_use": {
        "jobs": _are_jobs, "gone": _are_texts, "total": _is_amounts, "shared": _is_amounts, "is_whole": _is_flag,
        "is_over": _is_flag,
    },
    "drain": {"request": _is_count, "reason": _is_text, "message": _is_text, "left_s": _is_time_or_none},
    "refused": {"kind": _is_text, "reason": _is_text},
    "head_ends": {"reason": _is_text},
    "dial_back": {"ticket": _is_ticket, "address": _is_text, "is_relayed": _is_flag},
    "meet": {"ticket": _is_ticket},
    "unreached": {"ticket": _is_ticket, "reason": _is_text, "is_final": _is_flag},
    **_CONVERSATION,
}  # fmt: skip


def packed(frame: bytes, kind: str) -> bytes:
    """One that says the same, and is shorter if that one is long. kind: of its message."""
    if len(frame) < PACKED_BYTES:
        return frame
    import zlib  # which only large clusters need

    payload = frame[frames.HEADER.size :]
    return frames.encode_control({"t": "packed", "of": kind, "size_bytes": len(payload)}, zlib.compress(payload, 1))


def decode(payload: bytes) -> tuple[Message, bytes]:
    """The message, which may have been packed, and its body. Raises ValueError on anything malformed."""
    message, body = frames.decode_control(payload, depth_max=DEPTH_MAX)
    if message.get("t") != "packed":
        return message, body
    import zlib

    size_bytes = message.get("size_bytes")
    if not isinstance(size_bytes, int) or not 0 < size_bytes <= frames.FRAME_BYTES_MAX:
        raise ValueError(f"packed.size_bytes is wrong: {size_bytes!r:.100}")
    unpacker = zlib.decompressobj()
    try:
        payload = unpacker.decompress(body, size_bytes)
    except zlib.error as error:
        raise ValueError(f"a packed message cannot be unpacked: {error}") from None
    if len(payload) != size_bytes or not unpacker.eof:
        raise ValueError(f"a packed message was to have {size_bytes} bytes, and has others")
    return frames.decode_control(payload, depth_max=DEPTH_MAX)


def parse(message: Message, known: Mapping[str, Mapping[str, _Check]]) -> Message:
    """The message. Raises ValueError: what of it is wrong."""
    kind = message.get("t")
    fields = known.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ValueError(f"unknown message type {kind!r:.100}; known are {', '.join(known)}")
    for name, is_right in fields.items():
        if not is_right(message.get(name)):
            raise ValueError(f"{kind}.{name} is wrong: {message.get(name)!r:.100}")
    return message
