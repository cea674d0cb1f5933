"""Small values that the parts of a program leave for each other, by key, with the names and the behaviour of
`ray.experimental.internal_kv`.

Keys, values and namespaces are bytes, or text, which is encoded as UTF-8; no namespace is the namespace b"". A value has at most
32 MiB, a key with its namespace 4 KiB. They are with the head, and outlive programs where the node does; where that keeps its
records in a control storage, they outlive it as well, from the moment on that `_internal_kv_put` has returned.
"""

from __future__ import annotations

from typing import Any

from umbel._client import current

__all__ = [
    "_internal_kv_del",
    "_internal_kv_exists",
    "_internal_kv_get",
    "_internal_kv_initialized",
    "_internal_kv_list",
    "_internal_kv_put",
]


def _internal_kv_initialized() -> bool:
    """Whether this process is connected to a session."""
    return current.is_initialized()


def _internal_kv_get(key: str | bytes, *, namespace: str | bytes | None = None) -> bytes | None:
    """The value; None if there is none."""
    found: bytes | None = _store().get(_bytes("namespace", namespace), _bytes("key", key))
    return found


def _internal_kv_exists(key: str | bytes, *, namespace: str | bytes | None = None) -> bool:
    """Whether the key has a value."""
    return _internal_kv_get(key, namespace=namespace) is not None


def _internal_kv_put(
    key: str | bytes, value: str | bytes, overwrite: bool = True, *, namespace: str | bytes | None = None
) -> bool:
    """Give the key this value, unless it has one and `overwrite` is false. Returns whether it had one before."""
    if not isinstance(overwrite, bool):
        raise TypeError(f"overwrite must be True or False, got {overwrite!r:.100}")
    space, name, data = _bytes("namespace", namespace), _bytes("key", key), _bytes("value", value)
    return bool(_store().put(space, name, data, overwrites=overwrite))


def _internal_kv_del(key: str | bytes, *, del_by_prefix: bool = False, namespace: str | bytes | None = None) -> int:
    """Remove the key, or all that begin with it. Returns how many have gone."""
    return int(_store().delete(_bytes("namespace", namespace), _bytes("key", key), is_prefix=del_by_prefix))


def _internal_kv_list(prefix: str | bytes, *, namespace: str | bytes | None = None) -> list[bytes]:
    """The keys that begin with this, sorted."""
    return list(_store().keys(_bytes("namespace", namespace), _bytes("prefix", prefix)))


def _store() -> Any:
    return current.engine().key_values


def _bytes(what: str, given: str | bytes | None) -> bytes:
    if isinstance(given, str):
        return given.encode()
    if given is None and what == "namespace":
        return b""
    if not isinstance(given, bytes):
        raise TypeError(f"{what} must be bytes or a string, got {given!r:.100} of type {type(given).__name__}")
    return given
