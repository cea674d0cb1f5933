"""On which node a task is best run for its arguments: on the one that has most bytes of them, if they are large.

Whoever submits a task knows where its arguments lie, and, of those it owns, which nodes have copies, or had not long ago. Such a
task is *drawn* to a node. It is of the same scheduling class as others: `dispatch` gives it to a worker there, the agent is told
how many are drawn where, and the policy of the cluster decides what that counts (`placement.Demand.near`). Only tasks with the
default strategy are drawn anywhere. Everything here runs under the engine's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from umbel._base import nodes
from umbel._client import fetching
from umbel._client.task import Task
from umbel._objects import serialization
from umbel._scheduling import dispatch

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

# A task waits for a worker where its arguments are for about as long as they would take to be copied, while workers elsewhere
# have nothing to do: but for so long at least, in which another node's agent answers, and no longer than nobody minds.
COPY_BYTES_PER_S = 1e9
PATIENCE_S = 0.01
PATIENCE_S_MAX = 0.2


class Locality:
    """Of one process of a node that others may join."""

    def __init__(self, engine: NativeEngine) -> None:
        self._copied = engine.values.copied
        self._own = nodes.tag_of_process(engine.process_id).hex()
        self._least_bytes = engine.config.locality_bytes_min

    def drawn(self, task: Task, cls: dispatch.SchedulingClass, now_s: float) -> dispatch.Drawn | None:
        """To which node a task is drawn whose arguments are there."""
        if cls.request["strategy"] is not None:
            return None
        held: dict[str, int] = {}
        made: dict[str, int] = {}
        for _, record in task.deps or ():
            if record.kind != serialization.STORED:
                continue
            name, size_bytes = record.payload
            maker = name[nodes.TAG_IN_TEXT]
            made[maker] = made.get(maker, 0) + size_bytes
            for tag in {maker, *self._copies(record.object_id, name)}:
                held[tag] = held.get(tag, 0) + size_bytes
        if not held:
            return None
        # Among equals those where the values were made, for a copy may be gone by now.
        best = max(held, key=lambda tag: (held[tag], tag == self._own, made.get(tag, 0)))
        if held[best] < self._least_bytes:
            return None
        patience_s = min(PATIENCE_S_MAX, max(PATIENCE_S, held[best] / COPY_BYTES_PER_S))
        return dispatch.Drawn(best, now_s + patience_s)

    def is_elsewhere(self, drawn: dispatch.Drawn) -> bool:
        return drawn.node != self._own

    def _copies(self, object_id: bytes, name: str) -> list[str]:
        keys = self._copied.get(object_id)
        return [tag.hex() for tag in keys.get(fetching.key_of(object_id, name), ())] if keys else []
