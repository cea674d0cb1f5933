"""The objects of the inline engine: encoded as between processes, counted as between processes, all in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from umbel import exceptions
from umbel._base import config as configuration
from umbel._client import refs, troubles, values
from umbel._client.inline import mutex as mutex_module
from umbel._objects import ownership, serialization

PENDING = ownership.PENDING
ERROR = serialization.ERROR
RAW = serialization.RAW
LIFETIME = 100  # the kind of the object that stands for an actor's life; never read


class Encoded(NamedTuple):
    """A value as others will read it. `contained`: ids of the references inside."""

    kind: int
    payload: Any
    contained: tuple[bytes, ...] = ()


NONE = Encoded(RAW, None)


class Failure:
    """What a failed task left instead of values; shared by all its returns."""

    __slots__ = ("_blob", "is_of_user", "name")

    def __init__(self, error: BaseException, name: str) -> None:
        self._blob = exceptions.dump_error(error)
        self.is_of_user = isinstance(error, exceptions.UmbelTaskError)  # the user's code ran, and raised it
        self.name = name

    def blob(self) -> bytes:
        """The error as it would travel."""
        return self._blob

    def load(self) -> BaseException:
        """A fresh copy, as everybody who reads it gets; also of the user's class where it is an error of his code."""
        error = exceptions.load_error(self._blob)
        return error.as_instanceof_cause() if isinstance(error, exceptions.UmbelTaskError) else error

    def encoded(self) -> Encoded:
        return Encoded(ERROR, self)


class InputFailure(Failure):
    """What a call left that did not run, because an argument of it could not be computed."""

    __slots__ = ()

    def __init__(self, upstream: Failure, name: str, task_id: bytes, actor_id: bytes | None) -> None:
        actor = None if actor_id is None else actor_id.hex()
        self._blob = exceptions.dump_failed_input(upstream.blob(), name, task_id=task_id.hex(), actor_id=actor)
        self.is_of_user = False
        self.name = name


def encode(value: Any) -> Encoded:
    """A snapshot of `value`. Raises TypeError for what cannot be pickled. Called without the mutex."""
    if serialization.is_raw(value):
        return Encoded(RAW, value)
    serialized = serialization.serialize(value)
    return Encoded(*serialized.inline(), tuple(serialized.refs))


class Values:
    """Methods need the mutex held unless they say otherwise."""

    def __init__(
        self,
        engine: refs.RefEngine,
        mutex: mutex_module.Mutex,
        process_id: bytes,
        config: configuration.Config,
    ) -> None:
        self._engine = engine
        self._logs_unread = not config.ignore_unhandled_errors
        self.troubles = troubles.TroubleLog(run=mutex.later.append)
        self._mutex = mutex
        self.process_id = process_id
        self.table = values.make_table(process_id, config)
        self._owners: set[str] = set()  # workers that have owned anything
        self.is_closed = False  # after the session nobody reads errors any more
        self.on_unreferenced: Callable[[bytes], None] = _ignore

    def new(self, object_id: bytes, producer: Any, owner: str) -> ownership.Record:
        """A record for what `producer` will compute, with one reference counted for the caller. owner: the worker that
        the object ends with."""
        record = self.table.own(object_id)
        record.task = producer
        record.subscribers = [owner]  # nobody subscribes here, so the field is free to say whose it is
        self._owners.add(owner)
        return record

    def owner_died(self, owner: str) -> None:
        """The worker has ended, and its objects with it: who has a reference, now or later, gets an error."""
        if owner not in self._owners:
            return
        self._owners.discard(owner)
        for record in [one for one in self.table.records.values() if one.subscribers == [owner]]:
            failure = Failure(_owner_died(record.object_id, owner), "a lost object")
            if record.kind == PENDING:
                self.settle(record, failure.encoded())
            elif record.kind != LIFETIME:
                inside, record.contained = record.contained, ()
                record.kind, record.payload = ERROR, failure
                self.unpin_all([self.table.records[object_id] for object_id in inside])

    def ref(self, object_id: bytes) -> refs.ObjectRef[Any]:
        """The reference that `new` has counted."""
        return refs.ObjectRef(object_id, self._engine)

    def find(self, ref: refs.ObjectRef[Any]) -> ownership.Record:
        record = self.table.records.get(ref.binary())
        if record is None:
            raise self.lost(ref.binary())
        return record

    def settle(self, record: ownership.Record, encoded: Encoded) -> None:
        """The value is there: whoever waits for it is told. A second value is dropped."""
        if record.kind != PENDING:
            return
        record.task = None
        waiters, record.waiters = record.waiters, None
        self.table.settle(record, *encoded)
        for waiter in waiters or ():
            waiter(record)
        self.carry_out()

    def on_settled(self, record: ownership.Record, callback: Callable[[ownership.Record], None]) -> None:
        """Call `callback`, with the mutex held, when the value is there."""
        if record.waiters is None:
            record.waiters = []
        record.waiters.append(callback)

    def adopt(self, object_id: bytes) -> None:
        """A reference was unpickled or made by hand. Called without the mutex."""
        with self._mutex:
            record = self.table.add_local(object_id)
            if record.kind == PENDING and record.task is None:
                self.settle(record, Failure(self.lost(object_id), "a lost object").encoded())

    def lost(self, object_id: bytes) -> exceptions.ObjectLostError:
        """The error of a reference whose object is not here."""
        if self.table.is_owner(object_id):
            return exceptions.ObjectFreedError(
                f"object {object_id.hex()} was freed before this reference to it was read; a reference kept as bytes "
                "outside of Umbel's view does not keep its object",
                object_id=object_id.hex(),
            )
        return exceptions.OwnerDiedError(
            f"object {object_id.hex()} is of another session; references do not outlive umbel.shutdown()",
            object_id=object_id.hex(),
        )

    def first_lost(self, object_ids: Iterable[bytes]) -> exceptions.ObjectLostError | None:
        """The error of the first of these references whose object is not here; None where all are."""
        return next((self.lost(one) for one in object_ids if one not in self.table.records), None)

    def pin_all(self, object_ids: Iterable[bytes]) -> list[ownership.Record]:
        """Keep these objects until `unpin_all`."""
        records = [self.table.records[object_id] for object_id in object_ids if object_id in self.table.records]
        for record in records:
            self.table.pin(record)
        return records

    def unpin_all(self, records: list[ownership.Record]) -> None:
        for record in records:
            self.table.unpin(record)
        records.clear()
        self.carry_out()

    def carry_out(self) -> None:
        """Do what the table decided."""
        table = self.table
        while table.commands:
            commands, table.commands = table.commands, []
            for command in commands:
                if isinstance(command, ownership.Free):
                    if command.kind == LIFETIME:
                        self.on_unreferenced(command.payload)
                    elif command.kind == ERROR and not command.is_read:
                        self.report(command.payload)

    def report(self, failure: Failure) -> None:
        """Nobody has seen this error, nor will; so it is logged."""
        if self._logs_unread and not self.is_closed:
            self._mutex.later.append(lambda: self._report(failure))

    def _report(self, failure: Failure) -> None:
        blob = failure.blob()
        with self._mutex:
            self.troubles.unread(blob)


def read(record: ownership.Record) -> Any:
    """The value of a settled record that somebody keeps. Raises what its task raised. Called without the mutex."""
    if record.kind == RAW:
        return record.payload
    if record.kind == ERROR:
        record.is_read = True
        raise record.payload.load()
    return serialization.decode_inline(record.kind, record.payload)


def _owner_died(object_id: bytes, owner: str) -> exceptions.OwnerDiedError:
    return exceptions.OwnerDiedError(
        f"the owner of object {object_id.hex()}, worker {owner}, has ended, and its objects with it; create long-lived "
        "objects in the driver or in an actor that lives as long",
        object_id=object_id.hex(),
    )


def _ignore(_actor_id: bytes) -> None:
    """Before there are actors."""
