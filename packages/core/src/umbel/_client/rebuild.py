"""Computing lost values again, by running their tasks again.

A value is lost when whoever reads it finds that its memory or file is gone. The reader tells the owner, which runs the
task again if it may (`umbel._objects.lineage` decides) and gives the same object its new value; meanwhile the object is
pending as it was at first. Everything here runs under the engine's lock.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import streams
from umbel._client.actor import LIFETIME_SUFFIX
from umbel._client.task import return_id
from umbel._objects import lineage, ownership, serialization
from umbel._scheduling import actor_calls
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine
    from umbel._client.task import Task

PENDING, ERROR, STORED = ownership.PENDING, serialization.ERROR, serialization.STORED
_IN_MESSAGES = (serialization.RAW, serialization.PICKLE, serialization.BUFFERS)  # the kinds of small values
_TASK_BYTES = 1_000  # what a kept task costs beside its arguments, about

_WHY = {
    "max_attempts_exceeded": "its task has no retries left; raise max_retries if it may safely run more often",
    "lineage_evicted": "how to compute it was forgotten to save memory; raise UMBEL_LINEAGE_BYTES_MAX, or keep large "
    "arguments in objects instead of passing them by value",
    "put": "it was made by put() or passed to a task by value, and nothing computes such values; put it again, or let "
    "a task make it",
    "retries_disabled": "its task has max_retries=0 (an actor's method: max_task_retries=0) and may not run twice",
    "borrowed": "it needs an object that another process owns, and that has let go of it; keep a reference to the "
    "arguments there",
    "ref_not_found": "nobody refers to that any more, and it was not there yet when the task ended; keep a reference to it as "
    "long as to what was computed from it",
    "task_cancelled": "its task was cancelled; run it again",
    "lineage_disabled": "items of a stream are computed again only once it has ended well, and nothing is with "
    "UMBEL_LINEAGE_BYTES_MAX=0; run the task again",
}


class Arguments:
    """What a finished task was called with, as it is kept: values that travelled in messages whole, others by id.

    small: of the references inside, those to such values of ours, with the value and the references in it, which are
    there themselves or in `inner`.
    """

    __slots__ = ("awaited", "deps", "inner", "kind", "payload", "small")

    def __init__(self, task: Task, table: ownership.ReferenceTable) -> None:
        self.kind = task.kind
        self.payload = task.payload
        self.deps = [
            (key, record.object_id, record.kind, None if record.kind == STORED else record.payload)
            for key, record in task.deps or ()
        ]
        named = {object_id for _, object_id, _, _ in self.deps}
        waiting = [pin.object_id for pin in task.argument_pins or () if pin.object_id not in named]
        for _, record in task.deps or ():
            if record.kind != STORED:
                waiting += record.contained
        self.inner: list[bytes] = []
        self.small: dict[bytes, tuple[int, Any, tuple[bytes, ...]]] = {}
        self.awaited: set[bytes] = set()  # nobody knows yet what they will be
        while waiting:
            object_id = waiting.pop()
            record = table.records[object_id]
            if object_id in self.small:
                continue
            if record.kind in _IN_MESSAGES and table.is_owner(object_id):
                self.small[object_id] = (record.kind, record.payload, record.contained)
                waiting += record.contained
                continue
            self.inner.append(object_id)
            if record.kind == PENDING:
                self.awaited.add(object_id)

    def needs(self) -> tuple[bytes, ...]:
        """The objects without which the task cannot run again."""
        return (*(object_id for _, object_id, kind, _ in self.deps if kind == STORED), *self.inner)

    def size_bytes(self) -> int:
        kept = [payload for _, _, _, payload in self.deps] + [payload for _, payload, _ in self.small.values()]
        return _TASK_BYTES + _size(self.payload) + sum(map(_size, kept))


class Rebuilder:
    """The lost objects of one owner."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._values = engine.values
        self._is_on = engine.config.lineage_bytes_max > 0
        self.run_count = 0  # of tasks that were run again
        self.lineage = lineage.Lineage(engine.process_id, engine.config.lineage_bytes_max)

    def remember(self, task: Task, stored: Collection[int]) -> None:
        """A task has ended well; its results of these indices are stored. Its arguments are still pinned."""
        if task.stream is not None or task.attempt:
            stored = self._living(task, stored)
        if self.lineage.finished(task.seq, stored) or not stored:
            return
        if not self._is_on:
            self.lineage.refuse(task.seq, stored, "lineage_disabled")
        elif task.template.max_retries == 0:
            self.lineage.refuse(task.seq, stored, "retries_disabled")
        elif task.kind == messages.ARGS_OBJECT and task.deps:  # which is freed now
            self.lineage.refuse(task.seq, stored, "put", (task.deps[0][1].object_id,))
        else:
            arguments = Arguments(task, self._values.table)
            task.parent = None
            self.lineage.keep(
                task.seq,
                (task, arguments),
                stored,
                arguments.needs(),
                arguments.size_bytes(),
                awaited=arguments.awaited,
            )

    def failed(self, task: Task) -> None:
        """A task has ended with an error, one that was run again perhaps, or a generator some of whose items are there."""
        if self.lineage.finished(task.seq, ()) or task.stream is None or not task.is_cancelled:
            return
        stored = self._living(task, task.stream.stored)
        if stored:
            self.lineage.refuse(task.seq, stored, "task_cancelled")

    def _living(self, task: Task, items: Collection[int]) -> list[int]:
        """Those stored results that have not been let go of: items of a generator that were read, or one of several while its
        task ran again for another."""
        records = self._values.table.records
        found = ((index, records.get(return_id(self._engine.process_id, task.seq, index))) for index in items)
        return [index for index, record in found if record is not None and record.kind in (STORED, PENDING)]

    def rebuild(self, record: ownership.Record, how: str) -> None:
        """Have a pending object of ours computed again, or give it the error that says why not. how: it was lost."""
        records = self._values.table.records
        order = self.lineage.plan(record.object_id, records.__contains__, _reason_not_to)
        if isinstance(order, lineage.Refusal):
            self.lineage.freed(record.object_id)
            self._values.settle_error(record, _refused(record.object_id, order, how))
            return
        self.run_count += len(order)
        table = self._values.table
        revived: list[ownership.Record] = []
        begun: list[tuple[Any, Arguments]] = []
        for seq in order:
            kept, needs = self.lineage.begin(seq)
            begun.append(kept)
            for need in needs:
                if need not in records:  # a result of a task that comes before
                    one = table.own(need)
                    one.local = 0
                    table.pin(one)
                    revived.append(one)
        for one in (record, *revived):
            self._expect(one)
        self.lineage.freed(record.object_id)  # it is not stored any more, until its task has ended well again
        for task, arguments in begun:
            self._run_again(task, arguments)
        for one in revived:
            table.unpin(one)  # by now it is an argument

    def _expect(self, record: ownership.Record) -> None:
        """The task that makes this object runs again, by now or soon: it gives it a value or an error."""
        kept = self.lineage.task_of(record.object_id)
        if kept is None:
            return
        task: Task = kept[0]
        index = lineage.index_of(record.object_id)
        record.task = task
        if task.stream is not None:
            task.stream.stored.add(index)
        elif index < len(task.records):
            task.records[index] = record

    def _run_again(self, task: Task, arguments: Arguments) -> None:
        task.retries_left -= 1 if task.retries_left > 0 else 0
        task.attempt += 1
        task.lease = None
        task.error = None
        task.missing = 0
        task.kind, task.payload = arguments.kind, arguments.payload
        task.records = [self._result(task, record.object_id) for record in task.records]
        if task.stream is not None:
            task.stream = streams.Replay(task.stream)
        book = self._engine.tasks
        book.arguments.attach_again(task, arguments)
        book.unfinished[task.seq] = task
        if task.error is not None:
            book.fail(task, task.error)
        elif task.actor is not None:
            if task.actor.calls.state is actor_calls.ActorState.DEAD:
                book.fail(task, task.actor.death)
            else:
                task.actor.retry(task)
        elif not task.missing:
            self._engine.leases.enqueue(task)

    def _result(self, task: Task, object_id: bytes) -> ownership.Record:
        record = self._values.table.records.get(object_id)
        if record is None:  # nobody needs this one of several results
            record = ownership.Record(object_id)
            record.is_dead = True
        if record.kind == PENDING:
            record.task = task
        return record


def _reason_not_to(kept: tuple[Any, Arguments], object_id: bytes) -> str:
    task = kept[0]
    if task.stream is not None and not lineage.index_of(object_id):
        return "put"  # the references to all items, which the owner has put together
    if task.is_cancelled:  # too late, or when it ran again
        return "task_cancelled"
    return "max_attempts_exceeded" if task.retries_left == 0 else ""


def _refused(object_id: bytes, refusal: lineage.Refusal, how: str) -> exceptions.ObjectReconstructionFailedError:
    culprit, why = "", _WHY[refusal.reason]
    if refusal.object_id.endswith(LIFETIME_SUFFIX):
        why = "its actor ended when nobody had a handle to it any more; keep one"
    elif refusal.object_id != object_id:
        culprit = f" needs object {refusal.object_id.hex()}, which is gone too,"
    return exceptions.ObjectReconstructionFailedError(
        f"object {object_id.hex()} is lost ({how}) and{culprit} cannot be computed again: {why}",
        object_id=object_id.hex(),
        owner=object_id[: ownership.OWNER_ID_BYTES].hex(),
        reason=refusal.reason,
    )


def _size(payload: Any) -> int:
    """About how many bytes an encoded value takes; exactly where it is much."""
    if isinstance(payload, (bytes, bytearray, str)):
        return len(payload)
    if isinstance(payload, memoryview):
        return payload.nbytes
    if isinstance(payload, (tuple, list)):
        return sum(map(_size, payload)) + 8 * len(payload)
    if isinstance(payload, dict):
        return sum(map(_size, payload.values())) + 100 * len(payload)
    return 8
