"""The internal key-value store, which is with the control service: one request for each operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from umbel._client import links

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine


class KeyValues:
    """Each method returns when what it says is so for good. Raises UmbelSystemError for what is too large."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine

    def put(self, space: bytes, key: bytes, value: bytes, *, overwrites: bool) -> bool:
        """Whether there was a value already, which only `overwrites` replaces."""
        message = {"t": "kv_put", "space_size": len(space), "key_size": len(key), "overwrite": overwrites}
        return bool(self._ask(message, space + key + value)[0]["existed"])

    def get(self, space: bytes, key: bytes) -> bytes | None:
        answer, body = self._ask({"t": "kv_get", "space_size": len(space)}, space + key)
        return bytes(body) if answer["found"] else None

    def delete(self, space: bytes, key: bytes, *, is_prefix: bool) -> int:
        """How many have gone."""
        answer, _ = self._ask({"t": "kv_del", "space_size": len(space), "prefix": is_prefix}, space + key)
        return int(answer["count"])

    def keys(self, space: bytes, prefix: bytes) -> list[bytes]:
        answer, body = self._ask({"t": "kv_list", "space_size": len(space)}, space + prefix)
        found, at = [], 0
        for size in answer["sizes"]:
            found.append(bytes(body[at : at + size]))
            at += size
        return found

    def _ask(self, message: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        self._engine.check_running()
        answer, found = self._engine.agent.request(message, body)
        links.raise_refusal(answer)
        return answer, found
