"""The internal key-value store of the inline engine."""

from __future__ import annotations


class KeyValues:
    """As `umbel._client.key_values` has it."""

    def __init__(self) -> None:
        self._values: dict[tuple[bytes, bytes], bytes] = {}

    def put(self, space: bytes, key: bytes, value: bytes, *, overwrites: bool) -> bool:
        is_there = (space, key) in self._values
        if overwrites or not is_there:
            self._values[space, key] = value
        return is_there

    def get(self, space: bytes, key: bytes) -> bytes | None:
        return self._values.get((space, key))

    def delete(self, space: bytes, key: bytes, *, is_prefix: bool) -> int:
        gone = self.keys(space, key) if is_prefix else [key]
        return sum(self._values.pop((space, one), None) is not None for one in gone)

    def keys(self, space: bytes, prefix: bytes) -> list[bytes]:
        return sorted(key for found, key in self._values if found == space and key.startswith(prefix))
