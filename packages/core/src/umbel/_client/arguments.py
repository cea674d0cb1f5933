"""The arguments of tasks and calls: encoded, pinned while they are needed, and waited for.

Everything here runs under the engine's lock unless it says otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from umbel._client import refs
from umbel._client.task import Task, known, return_id
from umbel._objects import ownership, serialization
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client import rebuild
    from umbel._client.native import NativeEngine
    from umbel._client.tasks import Tasks

PENDING, ERROR, STORED = ownership.PENDING, serialization.ERROR, serialization.STORED


class TaskArguments:
    """Those of the tasks that this process has submitted."""

    def __init__(self, engine: NativeEngine, book: Tasks) -> None:
        self._engine = engine
        self._values = engine.values
        self._book = book
        self._process_id = engine.process_id
        self._failed: deque[tuple[Task, bytes]] = deque()  # whose argument has ended with this error
        self._is_failing = False

    def encode(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[int, Any, list[tuple[Any, bytes]] | None, Any]:
        """(kind, payload, [(position or keyword, object id)], ids of references inside). No lock.

        A snapshot: later changes to the arguments do not show. Raises TypeError for what cannot be pickled.
        """
        deps: list[tuple[Any, bytes]] | None = None
        is_raw = True
        for position, value in enumerate(args):
            if isinstance(value, refs.ObjectRef):
                if deps is None:
                    deps = []
                deps.append((position, value._id))
            elif is_raw and not serialization.is_raw(value):
                is_raw = False
        if deps is not None:
            left = list(args)
            for position, object_id in deps:
                left[position] = None
                if object_id not in self._values.table.records:
                    raise self._engine.stale(object_id)
            args = tuple(left)
        if kwargs:
            named = {name: value._id for name, value in kwargs.items() if isinstance(value, refs.ObjectRef)}
            if named:
                self.check_known(named.values())
                deps = [*(deps or ()), *named.items()]
                kwargs = {**kwargs, **dict.fromkeys(named)}
            is_raw = is_raw and all(map(serialization.is_raw, kwargs.values()))
        if is_raw:
            if kwargs:
                return messages.ARGS_KWARGS, (args, kwargs), deps, None
            return messages.ARGS, args, deps, None
        serialized = serialization.serialize((args, kwargs))
        self.check_known(serialized.refs)
        if serialized.size_bytes <= self._engine.config.inline_bytes_max:
            kind, payload = serialized.inline()
            return kind, payload, deps, serialized.refs
        name, size = self._values.write(serialized, self._process_id)
        return messages.ARGS_OBJECT, (name, size), deps, serialized.refs

    def check_known(self, object_ids: Iterable[bytes]) -> None:
        records = self._values.table.records
        for object_id in object_ids:
            if object_id not in records:
                raise self._engine.stale(object_id)

    def attach(self, task: Task, deps: list[tuple[Any, bytes]] | None, inner: Any) -> None:
        """Pin what the arguments refer to, and note which are not there yet."""
        table = self._values.table
        if task.kind == messages.ARGS_OBJECT:
            record = table.own(return_id(self._process_id, self._book.next_seq(), 0))
            table.pin(record)
            record.local = 0
            table.settle(record, STORED, task.payload)
            task.argument_pins = [*(task.argument_pins or ()), record]
            task.deps = [(None, record)]
            task.payload = None
        if inner:
            pins = task.argument_pins or []
            for object_id in inner:
                record = table.records[object_id]
                table.pin(record)
                pins.append(record)
            task.argument_pins = pins
        if deps:
            if task.deps is None:
                task.deps = []
            pins = task.argument_pins or []
            for key, object_id in deps:
                record = table.records[object_id]
                table.pin(record)
                pins.append(record)
                task.deps.append((key, record))
                self._await_argument(task, record)
            task.argument_pins = pins

    def _await_argument(self, task: Task, record: ownership.Record) -> None:
        if record.kind == PENDING:
            task.missing += 1
            self._values.on_settled(record, lambda settled, task=task: self._dependency_settled(task, settled))
        if record.kind == ERROR:  # perhaps just now: its owner is dead
            record.is_read = True
            task.error = self._book.input_failed(task, record.payload)

    def attach_again(self, task: Task, arguments: rebuild.Arguments) -> None:
        """As `attach`, of a task that is run again, with what was kept of its arguments."""
        table = self._values.table
        task.argument_pins = []
        task.deps = []
        for key, object_id, kind, payload in arguments.deps:
            if kind == STORED:
                record = table.records[object_id]
                table.pin(record)
                task.argument_pins.append(record)
                self._await_argument(task, record)
            else:
                record = ownership.Record(object_id)
                record.kind, record.payload = kind, payload
            task.deps.append((key, record))
        gone = [object_id for object_id in arguments.small if object_id not in table.records]
        for object_id in gone:
            table.own(object_id).local = 0
        for object_id in (*arguments.inner, *arguments.small):
            record = table.records[object_id]
            table.pin(record)
            task.argument_pins.append(record)
        for object_id in gone:
            table.settle(table.records[object_id], *arguments.small[object_id])
        task.deps = task.deps or None

    def lost(self, record: ownership.Record) -> None:
        """The value of an argument is being computed again: what has not been sent waits for it again."""
        for task in list(self._book.unfinished.values()):
            if any(dep is record for _, dep in task.deps or ()) and task.missing >= 0:
                if task.actor is None and task.lease is None:
                    cls = known(task.template.cls)
                    if task in cls.ready:
                        cls.ready.remove(task)
                    self._await_argument(task, record)
                elif task.actor is not None and task.seq not in task.actor.calls.inflight:
                    self._await_argument(task, record)

    def waits_again(self, task: Task) -> bool:
        """Whether an argument of a task that comes back was lost since it was sent: the task then waits for it, or has
        failed with it."""
        for _, record in task.deps or ():
            self._await_argument(task, record)
        if task.error is not None:
            if task.actor is not None:
                task.actor.calls.remove(task)
            self._book.fail(task, task.error)
        return task.missing > 0 or task.error is not None

    def _input_failed(self, task: Task, blob: bytes) -> None:
        if task.seq not in self._book.unfinished:
            return  # by another argument, in between
        if task.actor is not None:
            task.actor.calls.remove(task)
        self._book.fail(task, self._book.input_failed(task, blob))
        if task.actor is not None:
            task.actor.pump()  # it may have held others back

    def _dependency_settled(self, task: Task, record: ownership.Record) -> None:
        if task.seq not in self._book.unfinished:
            return  # cancelled, or failed by another argument
        if record.kind == ERROR:
            record.is_read = True
            task.missing = -1
            self._failed.append((task, record.payload))
            if (
                not self._is_failing
            ):  # else who is at it goes on with this: of a long chain each is the next one's argument
                self._is_failing = True
                try:
                    while self._failed:
                        self._input_failed(*self._failed.popleft())
                finally:
                    self._is_failing = False
            return
        task.missing -= 1
        if not task.missing:
            if task.actor is not None:
                task.actor.pump()
            elif task.lease is None:  # else it went with its input, see `Leases.push_behind`
                self._engine.leases.enqueue(task)
