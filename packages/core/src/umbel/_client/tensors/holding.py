"""Values whose tensors stay where they were made.

Such a value is pickled with a placeholder for each tensor, and with one *ticket*: whose the tensors are, and a reference
to an object that stands for all of them. That object's owner is the holder, and its value, which never travels, is the
tensors. So the books of ownership say how long they are kept: as long as the value that contains the reference, whoever
dies. Whoever reads the value takes the tensors from the holder, by the value's transport; the holder has them. Who cannot come
to the holder's door, as from another machine, gets a copy that the holder has put into the object store.
"""

from __future__ import annotations

import operator
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from umbel import exceptions, spi
from umbel._client import context, current, refs, values
from umbel._client.tensors import lines, transports
from umbel._model import reasons
from umbel._objects import ownership
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine


class Held:
    """The value of an object that stands for tensors."""

    def __init__(self, tensors: list[Any], offered: spi.HeldTensors) -> None:
        self.tensors = tensors
        self.offered = offered
        self._lock = threading.Lock()
        self._copy: refs.ObjectRef[list[Any]] | None = None

    @property
    def size_bytes(self) -> int:
        return sum(getattr(tensor, "nbytes", 0) for tensor in self.tensors)

    def copy(self, engine: NativeEngine) -> refs.ObjectRef[list[Any]]:
        """Of the tensors, in the object store; one for all who come, as long as the tensors are held."""
        with self._lock:
            if self._copy is None:
                self._copy = engine.put(list(self.tensors))
            return self._copy


class _Ticket:
    """Pickled as what takes the tensors; one for all placeholders of a value, so they are taken once."""

    __slots__ = ("parts",)

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[Any, ...]:
        return _take, self.parts


class Holder:
    """The tensors that this process keeps for others."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self.door = lines.Door(self._offered)

    def _offered(self, object_id: bytes) -> spi.HeldTensors:
        return self._held(object_id).offered

    def _held(self, object_id: bytes) -> Held:
        with self._engine.lock:
            record = self._engine.values.table.records.get(object_id)
            if record is None or record.kind != values.HELD:
                raise exceptions.ObjectFreedError(
                    f"the tensors of object {object_id.hex()} were freed before they were taken; keep a reference to the "
                    "object that they are in",
                    object_id=object_id.hex(),
                )
            held: Held = record.payload
            return held

    def tensors(self, object_id: bytes) -> Sequence[Any]:
        """The very tensors. Raises ObjectFreedError."""
        return self._held(object_id).tensors

    def give_copy(self, taker: bytes, object_id: bytes, held: Held) -> None:
        """Tell a process that cannot come to the door where it finds a copy: in a thread, for it may have to be made."""
        args = (taker, object_id, held)
        threading.Thread(target=self._give_copy, args=args, daemon=True, name="umbel-tensors").start()

    def _give_copy(self, taker: bytes, object_id: bytes, held: Held) -> None:
        engine = self._engine
        kind: int
        payload: Any
        try:
            kind, payload, _ = engine.values.encode(held.copy(engine))
        except BaseException as error:  # there is no room for it, or it cannot be pickled
            kind, payload = values.ERROR, exceptions.dump_error(error)
        with engine.lock:
            link = None if engine.is_closed else engine.links.to(taker)
            if link is not None:
                link.post((messages.VALUE, object_id, kind, payload))
                engine.mark_dirty(link)
                engine.carry_on()

    def encode(
        self, value: Any, transport: str, owner: bytes | None
    ) -> tuple[tuple[int, Any, tuple[bytes, ...]], ownership.Record | None]:
        """As `Values.encode`, with all tensors left here; and the record of the object that stands for them, if there are
        any, which is pinned once for the caller to unpin."""
        engine, table = self._engine, self._engine.values.table
        means = transports.named(transport)
        found: list[Any] = []
        tickets: list[_Ticket] = []
        records: list[ownership.Record] = []

        def replaced(part: Any) -> Any:
            if not means.is_tensor(part):
                return None
            if not tickets:
                with engine.lock:
                    record = engine.own_next()
                    table.pin(record)
                records.append(record)
                ref: refs.ObjectRef[Any] = refs.ObjectRef(record.object_id, engine)
                tickets.append(_Ticket(transport, ref, self.door.address, _own_name()))
            found.append(part)
            return operator.getitem, (tickets[0], len(found) - 1)

        try:
            encoded = engine.values.encode(value, owner, replaced)
            if not records:
                return encoded, None
            offered = self._offer(means, found, encoded)
        except BaseException:
            for record in records:
                with engine.lock:
                    table.unpin(record)
            raise
        with engine.lock:
            table.settle(records[0], values.HELD, Held(found, offered))
        return encoded, records[0]

    def _offer(
        self, means: spi.TensorTransport, found: list[Any], encoded: tuple[int, Any, tuple[bytes, ...]]
    ) -> spi.HeldTensors:
        try:
            return means.hold(found)
        except BaseException:
            if encoded[0] == values.STORED:
                self._engine.values.discard(encoded[1][0])
            raise


def put(value: Any, transport: str) -> refs.ObjectRef[Any]:
    """As `umbel.put`, with the tensors left in this process."""
    engine = current.engine()
    if not isinstance(transport, str):
        raise exceptions.InvalidOptionType(
            f"_tensor_transport must be a str, got {transport!r} of type {type(transport).__name__}; leave it out for none",
            option="_tensor_transport",
        )
    name = transport.lower()
    transports.check(name, "_tensor_transport")
    if engine.name != "native":
        return engine.put(value)  # type: ignore[no-any-return]  # one process: nothing is transferred
    engine.check_running()
    encoded, record = engine.tensor_holder().encode(value, name, None)
    try:
        return engine.put_encoded(*encoded)  # type: ignore[no-any-return]
    finally:
        if record is not None:
            with engine.lock:
                engine.values.table.unpin(record)
                engine.values.carry_out()


def _own_name() -> str:
    task = context.current_task.get()
    actor = None if task is None else task.actor
    return "" if actor is None else f"actor {actor.class_name} ({actor.actor_id})"


def _take(transport: str, ref: refs.ObjectRef[Any], address: bytes, holder: str) -> Sequence[Any]:
    """What a ticket is read as: the tensors."""
    engine = current.engine()
    object_id = ref.binary()
    owner = object_id[: ownership.OWNER_ID_BYTES]
    if owner == engine.process_id:
        return engine.tensor_holder().tensors(object_id)  # type: ignore[no-any-return]
    who = f"{holder or 'the process'}, {'process ' if holder else ''}{owner.hex()}"
    try:
        try:
            line = lines.connect(address)
        except ConnectionRefusedError:  # nobody is there on this machine
            return _take_copy(engine, object_id, who)
        try:
            means = transports.named(transport)
            line.send(object_id)
            return means.take(line)
        finally:
            line.close()
    except TimeoutError as error:
        raise exceptions.ObjectFetchTimedOutError(
            f"{who}, which keeps the tensors of an object, lives but has not answered for {lines.TIMEOUT_S:g} s; look at "
            "what it does with `umbel stack`",
            object_id=object_id.hex(), owner=owner.hex(),
        ) from error  # fmt: skip
    except (ConnectionError, exceptions.OwnerDiedError) as error:
        raise exceptions.ObjectLostError(
            f"the tensors of an object are lost: {who}, which kept them, has died; have them made again, or pass them "
            "without tensor_transport, by the object store, which outlives actors",
            object_id=object_id.hex(), owner=owner.hex(),
        ) from error  # fmt: skip


def _take_copy(engine: NativeEngine, object_id: bytes, who: str) -> list[Any]:
    """By the object store. who: has the tensors, if it lives. Raises OwnerDiedError, and what the holder has met with."""
    text = f"have to be copied: {who}, which keeps them, cannot be reached by a socket of this machine"
    why = reasons.Reason(reasons.TRANSFER, f"the tensors of object {object_id.hex()}", text)
    with engine.lock:
        record = engine.values.table.add_local(object_id)
    try:
        with engine.answers.telling(why):
            engine.waits.wait_for_records([record])
        (copied,) = engine.get([engine.values.decode(record)], None)
    finally:
        engine.drop_ref(object_id)
    return [_own(tensor) for tensor in copied]


def _own(tensor: Any) -> Any:
    """One that may be written to: arrays from the object store are read-only."""
    np = sys.modules.get("numpy")
    if np is not None and type(tensor) is np.ndarray and not tensor.flags.writeable:
        return tensor.copy(order="K")
    return tensor
