"""The owner's side of streaming generators: items as they come, in order, and how far the reader got."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import refs
from umbel._model import reasons
from umbel._model.reasons import Reason
from umbel._objects import lineage, ownership, serialization
from umbel._transport import reactor
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

_ALL = 1 << 60  # items
STORED_MAX = 1_000  # remembered before those that are gone are looked for
ERROR, STORED, PENDING = serialization.ERROR, serialization.STORED, ownership.PENDING


class StreamState:
    """What has arrived of one generator. Lock held around every method.

    A retry yields from the start again; items that are here already are matched by index and not replaced.
    """

    __slots__ = (
        "callbacks", "consumed", "engine", "error", "is_closed", "items", "keep_all", "length", "link",
        "prefix", "stored", "stored_max", "task",
    )  # fmt: skip

    def __init__(self, engine: NativeEngine, task: Any, prefix: bytes, *, keep_all: bool = False) -> None:
        self.engine = engine
        self.task = task
        self.prefix = prefix
        self.keep_all = keep_all  # num_returns="dynamic": nobody reads item by item
        self.items: dict[int, ownership.Record] = {}
        self.stored: set[int] = set()  # those of them, as results of the task, that could be lost
        self.stored_max = STORED_MAX
        self.consumed = 0
        self.length: int | None = None  # once it ended: how many items, a final error included
        self.error: bytes | None = None
        self.is_closed = False
        self.callbacks: list[Callable[[], None]] = []
        self.link: Any = None

    def item(self, link: Any, index: int, kind: int, payload: Any, contained: Any) -> None:
        self.link = link
        if self.is_closed or index < self.consumed or index in self.items:
            self.engine.values.let_go(kind, payload, contained)
            if index < self.consumed or self.is_closed:
                self._tell_consumed(max(self.consumed, index + 1))
            return
        self._add(index, kind, payload, contained or ())
        if self.keep_all:
            self._tell_consumed(index + 1)
        self._notify()

    def _add(self, index: int, kind: int, payload: Any, contained: Any) -> None:
        table = self.engine.values.table
        object_id = self.prefix + (index + 1).to_bytes(4, "big")
        record = table.own(object_id)
        record.local = 0
        table.pin(record)  # until the reader takes it
        self.items[index] = record
        if kind == STORED:
            self.stored.add(index + 1)
            if len(self.stored) > self.stored_max:  # of an endless stream most are gone
                records = table.records
                self.stored = {one for one in self.stored if self.prefix + one.to_bytes(4, "big") in records}
                self.stored_max = 2 * len(self.stored) + STORED_MAX
        self.engine.values.settle(record, kind, payload, contained)

    def end(self, count: int, blob: bytes | None) -> None:
        values = self.engine.values
        if self.length is not None:
            return
        is_told = blob is not None and not self.task.is_cancelled  # by the last item, what the user's code raised
        arrived = self.consumed + len(self.items)
        if blob is not None and not self.is_closed:
            count = max(count, arrived)  # a retry may fail sooner than the attempt before it
            self._add(count, ERROR, blob, ())
            count += 1
        if not self.is_closed and count < arrived and blob is None:
            error = exceptions.StreamingGeneratorReplayInconsistentError(
                f"generator {self.task.template.name} yielded {count} items when retried, but {arrived} before; a "
                "generator that is retried must yield the same items each time, or set max_retries=0"
            )
            blob = exceptions.dump_error(error)
            count = arrived + 1
            self._add(arrived, ERROR, blob, ())
        self.length = count
        self.error = blob
        record = self.task.records[0]
        if is_told and blob is not None and self.is_closed:
            self.engine.error_unread(blob)
        if self.keep_all and (blob is None or is_told):
            self._settle_dynamic(record, count)
        elif blob is not None and not is_told:
            record.is_read = not self.keep_all  # the last item says it
            values.settle(record, ERROR, blob)
        else:
            values.settle(record, serialization.RAW, None)
        self._notify()
        if self.keep_all:
            self.close()

    def _settle_dynamic(self, record: ownership.Record, count: int) -> None:
        items = [self.take(index) for index in range(count)]
        kind, payload, contained = self.engine.values.encode(refs.DynamicObjectRefGenerator(items))
        self.engine.values.settle(record, kind, payload, contained)

    def fail(self, blob: bytes) -> None:
        """The task will not go on: what arrived stays, the error comes after it."""
        if self.length is not None:
            return
        if self.is_closed:
            self.length = self.consumed
            return
        index = self.consumed
        while index in self.items:
            index += 1
        self._add(index, ERROR, blob, ())
        self.length = index + 1
        self.error = blob
        self._notify()
        if self.keep_all:
            self.close()  # the error is that of the one reference there is

    def take(self, index: int) -> refs.ObjectRef[Any]:
        """The reader takes an item that is here."""
        record = self.items.pop(index)
        table = self.engine.values.table
        table.add_local(record.object_id)
        ref: refs.ObjectRef[Any] = refs.ObjectRef(record.object_id, self.engine)
        table.unpin(record)
        self.consumed = index + 1
        if self.length is None:
            self._tell_consumed(self.consumed)
        return ref

    def _tell_consumed(self, count: int) -> None:
        if self.task.template.backpressure > 0 and self.link is not None:
            self.link.post((messages.CONSUMED, self.task.seq, count))
            self.engine.mark_dirty(self.link)

    def is_ready(self) -> bool:
        return self.consumed in self.items or (self.length is not None and self.consumed >= self.length)

    def _notify(self) -> None:
        if self.callbacks and self.is_ready():
            callbacks, self.callbacks = self.callbacks, []
            for callback in callbacks:
                callback()

    def close(self) -> None:
        """Nobody reads on: unpin what was not taken."""
        if self.is_closed:
            return
        self.is_closed = True
        table = self.engine.values.table
        items, self.items = self.items, {}
        for record in items.values():
            record.is_read = self.keep_all  # then the reference to the whole has the error
            table.unpin(record)
        if table.commands:
            self.engine.values.carry_out()
        self._tell_consumed(_ALL)  # let a producer held back by backpressure run to its end


class Replay:
    """A generator that runs again because items of it were lost: those get their values, others are there. Lock held.

    Takes the place of the StreamState, whose reader has all that there will be.
    """

    __slots__ = ("engine", "items", "keep_all", "prefix", "stored", "task")

    def __init__(self, before: StreamState | Replay) -> None:
        self.engine: NativeEngine = before.engine
        self.task: Any = before.task
        self.prefix: bytes = before.prefix
        self.stored: set[int] = before.stored
        self.items: dict[int, ownership.Record] = {}  # none that wait for a reader
        self.keep_all = False
        for record in self._pending():
            record.task = self.task

    def item(self, link: Any, index: int, kind: int, payload: Any, contained: Any) -> None:
        if not index and self.task.template.backpressure > 0:
            link.post((messages.CONSUMED, self.task.seq, _ALL))
            self.engine.mark_dirty(link)
        record = self.engine.values.table.records.get(self._id_of(index + 1))
        if record is None:
            self.engine.values.let_go(kind, payload, contained)
        else:
            self.engine.values.settle_again(record, kind, payload, contained or ())

    def end(self, count: int, blob: bytes | None) -> None:
        if blob is not None:
            self.fail(blob)
            return
        for record in self._pending():
            index = lineage.index_of(record.object_id)
            if record.kind != PENDING:  # by now
                continue
            if index <= count:  # lost after this run had yielded it
                rebuilder = self.engine.rebuilder or self.engine.make_rebuilder()
                rebuilder.rebuild(record, "it was lost while its generator ran again")
                continue
            error = exceptions.StreamingGeneratorReplayInconsistentError(
                f"generator {self.task.template.name} yielded {count} items when it ran again for item {index}, which was "
                "lost; a generator that may run again must yield the same items each time, or set max_retries=0"
            )
            self.engine.values.settle(record, ERROR, exceptions.dump_error(error))

    def fail(self, blob: bytes) -> None:
        for record in self._pending():
            self.engine.values.settle(record, ERROR, blob)

    def _id_of(self, result: int) -> bytes:
        return self.prefix + result.to_bytes(4, "big")

    def _pending(self) -> list[ownership.Record]:
        records = self.engine.values.table.records
        found = [records.get(self._id_of(result)) for result in self.stored]
        return [record for record in found if record is not None and record.kind == PENDING]


class NativeStream:
    """What an ObjectRefGenerator holds: the thread-safe face of a StreamState."""

    def __init__(self, state: StreamState, completed: refs.ObjectRef[Any]) -> None:
        self._state = state
        self.completed = completed
        self._engine = state.engine

    def next_ref(self, timeout_s: float | None) -> refs.ObjectRef[Any] | None:
        state = self._state
        engine = self._engine
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with engine.lock:
                if state.consumed in state.items:
                    return state.take(state.consumed)
                if state.length is not None and state.consumed >= state.length:
                    return None
                engine.check_running()
                waiter = reactor.Waiter()
                state.callbacks.append(waiter.finish)
                engine.prepare_to_wait()
            left_s = None if deadline is None else deadline - time.monotonic()
            if not engine.waits.wait_for(waiter, left_s, state.task.records):
                raise exceptions.GetTimeoutError(f"no item came within {timeout_s} s")

    def is_ready(self) -> bool:
        with self._engine.lock:
            return self._state.is_ready()

    def is_finished(self) -> bool:
        with self._engine.lock:
            return self._state.length is not None and self._state.consumed >= self._state.length

    def reason(self) -> Reason | None:
        """Of the next item, if it is there; None if the generator has to go on for it. Lock held."""
        state = self._state
        if not state.is_ready():
            return None
        name = f"generator {state.task.template.name}"
        if state.length is not None and state.consumed >= state.length:
            return Reason(reasons.READY, name, "has ended")
        return Reason(reasons.READY, f"item {state.consumed} of {name}", "is ready", facts={"item": state.consumed})

    def on_ready(self, callback: Callable[[], None], future: Any = None) -> None:
        with self._engine.lock:
            if not self._state.is_ready():
                if future is not None:
                    callback = self._engine.awaits.add(self._state.task.records[0], future, callback)
                    self._engine.reactor.poke()  # for the watchdog
                self._state.callbacks.append(callback)
                return
        callback()

    def signal(self, callback: Callable[[], None]) -> None:
        """As `on_ready`, at most once for the same callback: whoever waits in a loop asks again each time. Lock held."""
        if callback not in self._state.callbacks:
            self.on_ready(callback)

    def wake(self) -> None:
        with self._engine.lock:
            self._engine.prepare_to_wait()
            self._engine.reactor.poke()

    def close(self) -> None:
        self._engine.close_stream(self._state)
