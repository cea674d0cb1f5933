"""What clients may say to the agent, checked once at the edge.

`parse` turns a decoded control message into one whose fields are all there and of the right type, so that nothing
behind it looks again. The agent answers anything else with an error and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from umbel._base import nodes

_REQUIRED = object()
_Field = tuple[Callable[[Any], bool], str, Any]  # test, what it wants in words, default


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_amounts(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_count(amount) for amount in value.values())


def _text(default: Any = _REQUIRED) -> _Field:
    return _is_text, "a string", default


def _hex(size_bytes: int) -> _Field:
    def is_right(value: Any) -> bool:
        return _is_text(value) and len(value) == 2 * size_bytes and set(value) <= set("0123456789abcdef")

    return is_right, f"{size_bytes} bytes in hexadecimal", _REQUIRED


def _text_or_none() -> _Field:
    return lambda value: value is None or _is_text(value), "a string or null", None


def _count(default: Any = _REQUIRED) -> _Field:
    return _is_count, "an integer >= 0", default


def _integer(default: Any = _REQUIRED) -> _Field:
    return _is_integer, "an integer", default


def _flag(default: Any = _REQUIRED) -> _Field:
    return _is_flag, "true or false", default


def _amounts(default: Any = _REQUIRED) -> _Field:
    return _is_amounts, "an object of integers >= 0", default


def _object() -> _Field:
    return lambda value: value is None or isinstance(value, dict), "an object or null", None


def _texts() -> _Field:
    def is_right(value: Any) -> bool:
        return isinstance(value, dict) and all(map(_is_text, value.values()))

    return is_right, "an object of strings", _REQUIRED


def _strategy() -> _Field:
    def is_right(value: Any) -> bool:
        if isinstance(value, dict) and "placement_group" in value:
            return _is_text(value["placement_group"]) and _is_integer(value.get("bundle_index", -1))
        return value is None or isinstance(value, (str, dict))

    return is_right, "a string, an object (a placement group's with its id and an integer bundle_index) or null", None


def _alternatives() -> _Field:
    def is_right(value: Any) -> bool:
        return value is None or (
            isinstance(value, list) and all(isinstance(one, list) and all(map(_is_pair, one)) for one in value)
        )

    return is_right, "an array of arrays of [label, condition], or null", None


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_text, value))


def _bundles() -> _Field:
    def is_right(value: Any) -> bool:
        return isinstance(value, list) and bool(value) and all(map(_is_amounts, value))

    return is_right, "an array of objects of integers >= 0", _REQUIRED


def _seconds() -> _Field:
    def is_right(value: Any) -> bool:
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0)

    return is_right, "a number >= 0 or null", None


def _selectors() -> _Field:
    def is_right(value: Any) -> bool:
        return isinstance(value, list) and all(
            isinstance(one, dict) and all(map(_is_text, one.values())) for one in value
        )

    return is_right, "an array of objects of strings", ()


def _views() -> _Field:
    def is_right(value: Any) -> bool:
        return isinstance(value, list) and all(
            isinstance(one, list) and len(one) == 2 and _is_segment(one[0]) and _is_count(one[1]) for one in value
        )

    return is_right, "an array of [segment, bytes]", _REQUIRED


def _segments() -> _Field:
    return lambda value: isinstance(value, list) and all(map(_is_segment, value)), "an array of segments", _REQUIRED


def _entries() -> _Field:
    def is_right(value: Any) -> bool:
        return isinstance(value, list) and all(
            isinstance(one, list) and len(one) == 4 and _is_segment(one[0]) and all(map(_is_count, one[1:]))
            for one in value
        )

    return is_right, "an array of [segment, offset, bytes, checksum]", _REQUIRED


def _is_segment(value: Any) -> bool:
    return _is_text(value) and value.count(".") >= 2


def _list() -> _Field:
    return lambda value: isinstance(value, list), "an array", _REQUIRED


_FIELDS: dict[str, dict[str, _Field]] = {
    "hello": {
        "kind": (lambda value: value in ("driver", "worker", "tool"), '"driver", "worker" or "tool"', _REQUIRED),
        "id": _text(),
        "pid": _count(),
        "protocol": _count(),
        "namespace": _text_or_none(),
        "job": _object(),
    },
    "demand": {
        "key": _text(), "resources": _amounts(), "count": _count(), "depth": _count(0), "env": _object(),
        "strategy": _strategy(), "label_selectors": _alternatives(), "near": _amounts({}),
    },
    "hold_environment": {"env": _object()},
    "return": {"worker": _text(), "retire": _flag(False)},
    "blocked": {},
    "unblocked": {},
    "kill_worker": {"worker": _text(), "reason": _text("")},
    "check_lease": {"worker": _text()},
    "task_seen": {"task": _integer(), "since_s": _seconds(), "keeps": _text("")},
    "busy_owner": {"running": _flag(False)},
    "create_actor": {
        "actor": _text(), "name": _text_or_none(), "namespace": _text_or_none(), "get_if_exists": _flag(False),
        "detached": _flag(False), "max_restarts": _integer(0), "placement": _amounts(), "running": _amounts(),
        "env": _object(), "strategy": _strategy(), "label_selectors": _alternatives(), "class_name": _text(""),
        "meta_size": _count(), "depth": _count(0), "lacks_arguments": _flag(False), "call_site": _text(""),
    },
    "actor_arguments": {"actor": _text()},
    "actor_arguments_failed": {"actor": _text()},
    "get_actor": {"name": _text(), "namespace": _text_or_none()},
    "list_actors": {"all_namespaces": _flag(False), "namespace": _text_or_none()},
    "actor_watch": {"actor": _text()},
    "kill_actor": {"actor": _text(), "no_restart": _flag(True)},
    "actor_unreferenced": {"actor": _text()},
    "actor_ready": {"actor": _text(), "repr_name": _text("")},
    "actor_failed": {"actor": _text()},
    "actor_exiting": {"actor": _text(), "reason": _text("it exited by itself")},
    "create_group": {
        "group": _text(), "name": _text(""), "namespace": _text_or_none(), "bundles": _bundles(), "strategy": _text(),
        "detached": _flag(False), "label_selectors": _selectors(), "soft_target": _text(""), "actor": _text(""),
        "depth": _count(0), "job": _text(""),
    },
    "remove_group": {"group": _text()},
    "group_watch": {"group": _text()},
    "get_group": {"group": _text(""), "name": _text(""), "namespace": _text_or_none()},
    "kv_put": {"space_size": _count(), "key_size": _count(), "overwrite": _flag(True)},
    "kv_get": {"space_size": _count()},
    "kv_del": {"space_size": _count(), "prefix": _flag(False)},
    "kv_list": {"space_size": _count()},
    "reserve_store": {"bytes": _count()},
    "release_store": {"bytes": _count()},
    "store_told": {"round": _count(), "live": _count(), "spillable": _count(), "viewed": _views()},
    "spilled": {"file": _text(), "entries": _entries()},
    "spill_ended": {
        "order": _count(), "file": _text(), "freed": _count(), "error": _text(""), "disk_full": _flag(False),
    },
    "spill_freed": {"segment": _text()},
    "locate": {"segment": _text()},
    "find_node": {"node": _hex(nodes.TAG_BYTES)},
    "reach": {"node": _hex(nodes.TAG_BYTES), "ticket": _hex(nodes.PROCESS_ID_BYTES)},  # a ticket is as long as an id
    "want_value": {"key": _text(), "n": _count(), "segment": _text(), "bytes": _count(), "priority": _count()},
    "unwant_value": {"key": _text()},
    "value_copied": {"key": _text(), "node": _text()},
    "value_freed": {"key": _text()},
    "left_freed": {"segment": _text()},
    "values_kept": {"segments": _segments()},
    "restored": {"segment": _text()},
    "metrics": {"report": _list()},
    "task_events": {"count": _count()},
    "query": {"what": _text(), "about": _text(""), "node": _text("")},
    "gather": {"what": _text(), "abouts": _texts(), "limit_s": _seconds()},
    "ask": {"whom": _text(), "what": _text(), "about": _text("")},
    "answer": {"ask": _count(), "answer": _object()},
    "shutdown": {},
    "leave": {},
    "stop": {},
    "drain_node": {"node": _text(), "reason": _text(), "message": _text(""), "deadline_s": _seconds()},
    "scale": {"report": _object(), "barred": _text("")},
}  # fmt: skip
NEEDS_ANSWER = {
    "get_actor", "list_actors", "create_group", "remove_group", "get_group", "kv_put", "kv_get", "kv_del", "kv_list",
    "reserve_store", "spilled", "locate", "query", "gather", "ask", "drain_node", "scale",
}  # fmt: skip
TOOLS_MAY_SAY = {"query", "gather", "ask", "stop", "drain_node", "scale"}


KINDS = tuple(_FIELDS)


class BadMessageError(ValueError):
    """A client sent something that is not in the protocol."""


def parse(message: Mapping[str, Any]) -> dict[str, Any]:
    """`message` with defaults filled in. Raises BadMessageError: which field is wrong, and what it should be."""
    kind = message.get("t")
    fields = _FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise BadMessageError(f"unknown message type {kind!r}; known are {', '.join(_FIELDS)}")
    parsed = dict(message)
    for name, (is_right, wanted, default) in fields.items():
        if name not in parsed:
            if default is _REQUIRED:
                raise BadMessageError(f"{kind}.{name} is missing; it must be {wanted}")
            parsed[name] = default
        elif not is_right(parsed[name]):
            raise BadMessageError(f"{kind}.{name} must be {wanted}, got {parsed[name]!r:.100}")
    request = parsed.setdefault("rq", None)
    if not (request is None or _is_integer(request)) or (request is None and kind in NEEDS_ANSWER):
        raise BadMessageError(f"{kind}.rq must be an integer, got {request!r:.100}")
    return parsed
