"""Streaming generators: the items a producer has yielded and its reader has not taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import refs
from umbel._client.inline import calls, values
from umbel._objects import ownership

if TYPE_CHECKING:
    from umbel._client.inline.engine import InlineEngine


class Stream:
    """The producer's side. Mutex held around every method.

    A retry yields from the start again; items that are here already are matched by index and not replaced.
    """

    __slots__ = ("call", "callbacks", "consumed", "is_closed", "items", "length", "on_taken", "values", "window")

    def __init__(self, table: values.Values, call: calls.Call) -> None:
        self.values = table
        self.call = call
        self.window = call.recipe.window
        self.items: dict[int, ownership.Record] = {}
        self.consumed = 0
        self.length: int | None = None  # once it ended: how many items there were, a final error included
        self.is_closed = False  # nobody reads
        self.callbacks: list[Callable[[], None]] = []  # of readers, called when `is_ready`
        self.on_taken: Callable[[], None] | None = None  # of a producer that waits for the reader

    def add(self, index: int, encoded: values.Encoded) -> None:
        if self.is_closed or index < self.consumed or index in self.items or self.length is not None:
            return
        object_id = self.call.task_id + (index + 1).to_bytes(calls.INDEX_BYTES, "big")
        record = self.values.new(object_id, self.call, self.call.caller)
        self.values.table.pin(record)  # until the reader takes it
        self.values.table.drop_local(object_id)
        self.items[index] = record
        self.values.settle(record, encoded)
        self._tell()

    def has_room(self, index: int) -> bool:
        """Whether the producer of item `index` may go on to the next."""
        is_unbounded = self.window <= 0 or self.is_closed or self.call.recipe.is_dynamic
        return is_unbounded or index + 1 - self.consumed < self.window

    def is_ready(self) -> bool:
        return self.consumed in self.items or self.is_finished()

    def is_finished(self) -> bool:
        return self.length is not None and self.consumed >= self.length

    def end(self, count: int) -> values.Failure | None:
        """The producer has returned after `count` items. Returns what is wrong with that."""
        arrived = self.consumed + len(self.items)
        if count < arrived and not self.is_closed:
            error = exceptions.StreamingGeneratorReplayInconsistentError(
                f"generator {self.call.name} yielded {count} items when retried, but {arrived} before; a generator "
                "that is retried must yield the same items each time, or set max_retries=0"
            )
            failure = values.Failure(error, self.call.name)
            self.fail(failure)
            return failure
        self._finish(count)
        return None

    def fail(self, failure: values.Failure) -> None:
        """The producer will not go on: what arrived stays, the error comes after it."""
        if self.length is not None:
            return
        if self.is_closed:
            self._finish(self.consumed)
            return
        index = self.consumed
        while index in self.items:
            index += 1
        self.add(index, failure.encoded())
        self._finish(index + 1)

    def _finish(self, length: int) -> None:
        self.length = length
        self._tell()

    def _tell(self) -> None:
        if self.callbacks and self.is_ready():
            callbacks, self.callbacks = self.callbacks, []
            for callback in callbacks:
                callback()

    def take(self) -> refs.ObjectRef[Any]:
        """The reader takes the next item, which is here."""
        record = self.items.pop(self.consumed)
        self.consumed += 1
        self.values.table.add_local(record.object_id)
        ref = self.values.ref(record.object_id)
        self.values.table.unpin(record)
        self._taken()
        return ref

    def _taken(self) -> None:
        on_taken, self.on_taken = self.on_taken, None
        if on_taken is not None:
            on_taken()

    def close(self) -> None:
        """Nobody reads on: what was not taken is freed, and the producer runs to its end."""
        if not self.is_closed:
            self.is_closed = True
            self.values.unpin_all(list(self.items.values()))
            self.items.clear()
            self._taken()


class Reader:
    """What an ObjectRefGenerator holds; `refs.Stream` says what its methods do. Called without the mutex."""

    def __init__(self, engine: InlineEngine, stream: Stream, completed: refs.ObjectRef[Any]) -> None:
        self._engine = engine
        self.stream = stream
        self.completed = completed

    def next_ref(self, timeout_s: float | None) -> refs.ObjectRef[Any] | None:
        engine, stream = self._engine, self.stream
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with engine.baton.turn() as lane:
            is_in_time = True

            def wake() -> None:
                engine.baton.wake(lane)

            def reason(depth: int) -> str:
                return f"the next item of {stream.call.explain(depth)}"

            while True:
                with engine.mutex:
                    if stream.consumed in stream.items:
                        return stream.take()
                    if stream.is_finished():
                        return None
                    if not is_in_time:
                        raise exceptions.GetTimeoutError(f"no item of {stream.call.name} came within {timeout_s} s")
                    stream.callbacks.append(wake)
                    engine.baton.give_up(lane, reason, deadline_s)
                is_in_time = engine.baton.park(lane, deadline_s)
                with engine.mutex:
                    if wake in stream.callbacks:
                        stream.callbacks.remove(wake)
                engine.baton.check_interrupt(lane)

    def is_ready(self) -> bool:
        with self._engine.baton.turn(), self._engine.mutex:
            return self.stream.is_ready()

    def is_finished(self) -> bool:
        with self._engine.mutex:
            return self.stream.is_finished()

    def on_ready(self, callback: Callable[[], None], _future: Any = None) -> None:
        with self._engine.mutex:
            if not self.stream.is_ready():
                later = self._engine.mutex.later
                self.stream.callbacks.append(lambda: later.append(callback))
                return
        callback()

    def wake(self) -> None:
        """Nothing is sent anywhere."""

    def close(self) -> None:
        self._engine.mutex.drop(self.stream)
