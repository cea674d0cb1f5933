"""The internal key-value store: small values that the parts of a program leave for each other, by namespace and key.

Namespaces, keys and values are bytes. Meant for what is small and changes rarely: all of it is in the memory of the head.
"""

from __future__ import annotations

KEY_BYTES_MAX = 4_096  # with its namespace
VALUE_BYTES_MAX = 32 << 20  # it goes through the daemon, and with its record into one commit


class KeyValues:
    """The table."""

    def __init__(self) -> None:
        self._spaces: dict[bytes, dict[bytes, bytes]] = {}
        self.changed: dict[tuple[bytes, bytes], None] | None = (
            None  # as in other tables: None where nobody keeps records
        )

    def put(self, namespace: bytes, key: bytes, value: bytes, *, overwrites: bool) -> bool:
        """Whether there was a value already, which only `overwrites` replaces."""
        space = self._spaces.setdefault(namespace, {})
        is_there = key in space
        if not is_there or (overwrites and space[key] != value):
            space[key] = value
            self._changes(namespace, key)
        return is_there

    def get(self, namespace: bytes, key: bytes) -> bytes | None:
        return self._spaces.get(namespace, {}).get(key)

    def delete(self, namespace: bytes, key: bytes, *, is_prefix: bool = False) -> int:
        """How many have gone. is_prefix: with all whose key begins so."""
        space = self._spaces.get(namespace, {})
        gone = self.keys(namespace, key) if is_prefix else [key] if key in space else []
        for one in gone:
            del space[one]
            self._changes(namespace, one)
        if not space:
            self._spaces.pop(namespace, None)
        return len(gone)

    def keys(self, namespace: bytes, prefix: bytes) -> list[bytes]:
        """Sorted."""
        return sorted(key for key in self._spaces.get(namespace, {}) if key.startswith(prefix))

    def restore(self, namespace: bytes, key: bytes, value: bytes) -> None:
        self._spaces.setdefault(namespace, {})[key] = value

    def _changes(self, namespace: bytes, key: bytes) -> None:
        if self.changed is not None:
            self.changed[namespace, key] = None
