"""The node's store as this process writes to it, within what the agent grants it of the store's bytes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._model import reasons
from umbel._objects import quota, store

if TYPE_CHECKING:
    from umbel import spi
    from umbel._client.native import NativeEngine

STORE_SHARES = 32  # no more than such a share of the store is asked for at once, unless a single value needs it
STORE_SHARE_BYTES_MIN = 1 << 20


def make_store(engine: NativeEngine) -> spi.ObjectStore[Any]:
    """The one that the configuration names."""
    name = engine.config.store
    make: Callable[..., Any] = store.SharedMemoryStore
    if name != "shm":  # looking for plugins takes a worker longer than starting does
        from umbel._plugins import registry

        make = functools.partial(registry.installed().stores.create, name)
    grants = Grants(engine)
    made: spi.ObjectStore[Any] = make(
        engine.welcome["store_dir"], engine.process_id.hex(), reserve=grants.reserve, release=grants.release
    )
    return made


class Grants:
    """Bytes of the node's store, from the agent."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine

    def reserve(self, size_bytes: int) -> int:
        capacity_bytes = self._engine.welcome["store_capacity_bytes"]
        if size_bytes > capacity_bytes:
            raise exceptions.ObjectStoreFullError(
                f"{size_bytes} bytes do not fit into the object store, which has {capacity_bytes}; store the value in parts, or "
                "start with a larger object_store_memory"
            )
        if size_bytes <= quota.CHUNK_BYTES:  # of a small store, a dozen processes would keep it all as spare chunks
            size_bytes = min(size_bytes, max(capacity_bytes // STORE_SHARES, STORE_SHARE_BYTES_MIN))
        why = reasons.Reason(
            reasons.ROOM, "it", f"waits for {size_bytes} more bytes in the store", facts={"bytes": size_bytes}
        )
        with self._engine.answers.telling(why):
            answer, _ = self._engine.agent.request({"t": "reserve_store", "bytes": size_bytes})
        error = answer.get("error")
        if error is None:
            return int(answer["granted"])
        from umbel._client import store_full

        raise store_full.error_of(self._engine, size_bytes, error)

    def release(self, size_bytes: int) -> None:
        if not self._engine.agent_is_gone:
            self._engine.agent.notify({"t": "release_store", "bytes": size_bytes})
