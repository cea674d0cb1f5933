"""The values this process owns, borrows and reads: encoding, the store, and the messages of ownership.

`umbel._objects.ownership` decides when something is freed or borrowed; here its commands become messages. Everything
that touches the table holds the engine's lock.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._base import nodes
from umbel._client import actor, links, refs
from umbel._objects import ownership, segments, serialization
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel import spi
    from umbel._base import config as configuration
    from umbel._client import fetching, spill_thread, takeover
    from umbel._client.native import NativeEngine

RAW, PICKLE, BUFFERS, STORED, ERROR = (
    serialization.RAW, serialization.PICKLE, serialization.BUFFERS, serialization.STORED, serialization.ERROR,
)  # fmt: skip
PENDING = ownership.PENDING
LIFETIME_SUFFIX = actor.LIFETIME_SUFFIX
LOSSES_MAX = 10  # of one object, whose owner gives it a new value each time: it must be our view of the store
LOSSES_KNOWN_MAX = 1_000
NAMED_MAX = 1_000  # values in one message
LIFETIME = 100  # the kind of the object that stands for an actor's life; never travels
HELD = 101  # of one that stands for tensors that stay here: `umbel._client.tensors.holding`; who asks gets a copy


class Values:
    """The objects of one process."""

    def __init__(
        self, engine: NativeEngine, process_id: bytes, segments: spi.ObjectStore[Any], inline_bytes_max: int
    ) -> None:
        self._engine = engine
        self._lock = engine.lock
        self.process_id = process_id
        self.table = make_table(process_id, engine.config)
        self.store = segments
        self.stored: dict[str, int] = {}  # bytes of the values here that we have written, by segment; used last, last
        self._orders_stored = engine.config.object_spilling and hasattr(segments, "evict")  # see `spi.SpillableStore`
        self.spilling: spill_thread.Spilling | None = None  # once the agent has asked for what could be moved
        # What we own and other nodes have copies of, or had: by its keys, the tags of those nodes.
        self.copied: dict[bytes, dict[str, set[bytes]]] = {}
        self.fetching: fetching.Fetching | None = None  # once a value of another node is read here
        self.takeover: takeover.Takeover | None = None  # once a node is being drained
        self.taken: set[str] = set()  # what was written here for owners on other nodes, which have it there now
        self.kept: set[str] = set()  # what was written here for such, to whom the connection has broken since
        self._inline_bytes_max = inline_bytes_max
        self._readers = 0  # threads that are reading values, whose references are not counted yet
        self._drops: deque[Any] = deque()  # see `NativeEngine.drop_ref`
        self.drop = self._drops.append
        self._unacknowledged: dict[bytes, int] = {}  # object id -> BORROWs under way
        self._losses: dict[bytes, int] = {}  # how often we could not read what others own
        self._awaited: dict[bytes, list[list[Any]]] = {}  # object id -> [count, callback] waiting for the last ACK
        # Some of it may be done already.
        self.carrying_out: list[ownership.Free | ownership.Borrow | ownership.Release] = []

    # References coming and going

    def drain_drops(self) -> None:
        """Count the references that were garbage collected since, and unpin ended tasks' arguments. Lock held."""
        if self._readers:
            return  # a reference that is being read may be dropped before it was counted
        drops = self._drops
        drop_local = self.table.drop_local
        while drops:
            try:
                dropped = drops.popleft()
            except IndexError:
                break
            if type(dropped) is bytes:
                drop_local(dropped)
            else:
                for record in dropped:
                    self.table.unpin(record)
        if self.table.commands:
            self.carry_out()

    def adopt(self, object_id: bytes) -> None:
        """A reference instance appeared outside of our reading: unpickled by hand, or made from its id."""
        with self._lock:
            self._found_in_value(object_id, None)

    def _found_in_value(self, object_id: bytes, outer: ownership.Record | None) -> None:
        record = self.table.found_in_value(object_id, outer)
        if record.kind == PENDING:
            self._fail_if_freed(record)
        if self.table.commands:
            self.carry_out()

    def _fail_if_freed(self, record: ownership.Record) -> None:
        """A reference to it was read, and there is no value: none will come for an object of ours that was not known any more."""
        is_known = record.local > 1 or record.pins or record.borrowers or record.task is not None
        if not is_known and self.table.is_owner(record.object_id):
            self._settle_error(record, exceptions.ObjectFreedError(
                f"object {record.object_id.hex()} was freed before this reference to it was read; a reference kept as bytes "
                "outside of Umbel's view, or by a call that was given up, does not keep its object"
            ))  # fmt: skip

    def pickled(self, object_id: bytes) -> None:
        """A reference is being pickled: by us, which counts it, or by somebody else, which pins it for good."""
        if not serialization.note_reference(object_id):
            refs.check_out_of_band(object_id, is_allowed=self._engine.config.allow_out_of_band_refs)
            with self._lock:
                record = self.table.records.get(object_id)
                if record is not None:
                    self.table.pin(record)

    # Encoding

    def encode(
        self, value: Any, owner: bytes | None = None, replaced: serialization.Replaced | None = None
    ) -> tuple[int, Any, tuple[bytes, ...]]:
        """(kind, payload, contained ids). Large values go to the store, owned there by `owner` (default: us). replaced: as
        for `serialization.serialize`."""
        if serialization.is_raw(value):
            return RAW, value, ()
        serialized = serialization.serialize(value, replaced)
        if serialized.size_bytes <= self._inline_bytes_max:
            kind, payload = serialized.inline()
            return kind, payload, tuple(serialized.refs)
        return STORED, self.write(serialized, owner or self.process_id), tuple(serialized.refs)

    def write(self, serialized: serialization.Serialized, owner: bytes) -> tuple[str, int]:
        size = serialized.stored_bytes()
        segment = self.store.create(size, owner.hex())
        try:
            serialized.write_to(functools.partial(self.store.write, segment))
            self.store.seal(segment)
        except BaseException:
            self.store.free(segment.name)
            raise
        self.stored[segment.name] = size
        return segment.name, size

    def discard(self, name: str) -> None:
        """A value that was written here is not needed after all."""
        with self._lock:
            self._free_own(name)

    # Reading

    def decode(
        self,
        record: ownership.Record,
        until_s: float | None = None,
        beside: list[list[ownership.Record]] | None = None,
    ) -> Any:
        """The value of a settled record. until_s, beside: as for `read`. Raises what its task raised, and NotThere if it was
        lost meanwhile."""
        kind = record.kind
        if kind == RAW:
            return record.payload
        if kind == PENDING:
            raise NotThere
        if kind == ERROR:
            record.is_read = True
            raise_error(record.payload)
        return self.read(kind, record.payload, record.object_id, record, until_s=until_s, beside=beside)

    def read(
        self,
        kind: int,
        payload: Any,
        object_id: bytes,
        outer: ownership.Record | None,
        arguments: list[bytes] | None = None,
        *,
        waits: bool = True,
        until_s: float | None = None,
        beside: list[list[ownership.Record]] | None = None,
    ) -> Any:
        """An encoded value's value. References inside are found in `outer`, or among `arguments`, which collects
        them. waits: for one that is on disk or on another node; else it counts as lost. until_s: how long for the latter
        (time.monotonic()). beside: what is read next, until it is known that one is on another node. Raises ValueLost."""
        if kind == RAW:
            return payload
        reading = refs.reading
        before = (reading.ids, reading.engine)
        found: list[bytes] = []
        reading.ids, reading.engine = found, self._engine
        with self._lock:
            self._readers += 1
            if kind == STORED:
                self.table.add_local(object_id)
                if self._orders_stored and payload[0] in self.stored:
                    self.stored[payload[0]] = self.stored.pop(payload[0])
        try:
            if kind != STORED:
                return serialization.decode_inline(kind, payload)
            drop = functools.partial(self._engine.drop_ref, object_id)
            try:
                view: spi.View | None = None
                try:
                    view = self._open(payload[0], payload[1], drop, waits=waits)
                except exceptions.ObjectLostError:
                    if not waits or self._engine.agent_is_gone or not self.is_elsewhere(payload[0]):
                        raise
                if view is None:
                    if beside and len(beside[0]) > 1:
                        self._fetch_all(beside.pop())
                    view = self._fetch(payload, object_id, drop, is_argument=arguments is not None, until_s=until_s)
            except exceptions.ObjectLostError as error:
                drop()
                raise ValueLost(object_id, payload, str(error)) from None
            except BaseException:
                drop()
                raise
            return serialization.read_stored(view.buffer)
        finally:
            reading.ids, reading.engine = before
            with self._lock:
                self._readers -= 1
                if found:
                    self._count(found, outer, arguments)
            if self._drops:  # which nobody could count meanwhile
                self._engine.reactor.poke()

    def _open(self, name: str, size_bytes: int, on_release: Callable[[], None], *, waits: bool) -> spi.View:
        try:
            return self.store.open(name, size_bytes, on_release)
        except exceptions.ObjectLostError:
            if self._engine.is_closed or self._engine.agent_is_gone or self.is_elsewhere(name):
                raise
            if waits:
                view = self.make_spilling().restore(name, size_bytes, on_release)
            else:
                view = self.spilling.copy_of(name, size_bytes, on_release) if self.spilling is not None else None
            if view is None:
                raise
            return view

    def keeps_for_other_nodes(self) -> bool:
        """Whether owners on other nodes have values here that this process has written, which go with it. Lock held."""
        if self._engine.links.remote is None:
            return False
        own_tag = nodes.tag_of_process(self.process_id)
        on_disk = () if self.spilling is None else self.spilling.book.gone
        return any(
            nodes.tag_of_process(bytes.fromhex(segments.parts_of(name)[1])) != own_tag and name not in self.taken
            for name in (*self.stored, *on_disk)
        )

    def is_elsewhere(self, name: str) -> bool:
        """Whether a segment is of another node's store."""
        if self._engine.links.remote is None:
            return False
        creator = bytes.fromhex(segments.parts_of(name)[0])
        return nodes.tag_of_process(creator) != nodes.tag_of_process(self.process_id)

    def _fetch(
        self,
        payload: Any,
        object_id: bytes,
        on_release: Callable[[], None],
        *,
        is_argument: bool,
        until_s: float | None,
    ) -> spi.View:
        """A view of a value of another node. Meanwhile this thread reads nothing, and what it waits for may be the room of
        something that was dropped here."""
        with self._lock:
            self._readers -= 1
        try:
            return self.make_fetching().open(
                object_id, payload[0], payload[1], on_release, is_argument=is_argument, until_s=until_s
            )
        finally:
            with self._lock:
                self._readers += 1

    def _fetch_all(self, records: list[ownership.Record]) -> None:
        """Have those copied that lie on other nodes, before the first of them is read. No lock."""
        with self._lock:
            for record in records:
                if record.kind == STORED and self.is_elsewhere(record.payload[0]):
                    self.make_fetching().is_here(record, is_urgent=True)

    def make_fetching(self) -> fetching.Fetching:
        with self._lock:
            if self.fetching is None:
                from umbel._client import fetching

                self.fetching = fetching.Fetching(self._engine)
            return self.fetching

    def make_takeover(self) -> takeover.Takeover:
        with self._lock:
            if self.takeover is None:
                from umbel._client import takeover

                self.takeover = takeover.Takeover(self._engine)
            return self.takeover

    def make_spilling(self) -> spill_thread.Spilling:
        with self._lock:
            if self.spilling is None:
                self.spilling = self._engine.make_spilling()
            return self.spilling

    def _count(self, found: list[bytes], outer: ownership.Record | None, arguments: list[bytes] | None) -> None:
        """Count the references read out of a value. Lock held."""
        if arguments is not None:
            for object_id in found:
                argument = self.table.found_in_arguments(object_id)
                if argument.kind == PENDING:
                    self._fail_if_freed(argument)
            arguments += found
            return
        known = self.table.records.get
        for object_id in found:
            record = known(object_id)
            if record is not None and (record.grants or record.kind != PENDING):
                record.local += 1  # the common case, spelled out
            else:
                self._found_in_value(object_id, outer)

    # Settling

    def settle(self, record: ownership.Record, kind: int, payload: Any, contained: Iterable[bytes] = ()) -> None:
        """The record's value is there: store it, wake who waits, answer who asked. Lock held."""
        if record.kind != PENDING:
            self.let_go(kind, payload, contained, is_read=True)
        else:
            if contained:
                self.table.receive_granted(contained)
            self._settle(record, kind, payload, contained)
        if self.table.commands:
            self.carry_out()

    def let_go(self, kind: int, payload: Any, contained: Iterable[bytes] | None, *, is_read: bool = False) -> None:
        """A value that nobody waits for came: take over what it holds, then free it. Lock held."""
        record = ownership.Record(self.process_id + b"\0" * 12)
        record.is_dead = True
        record.is_read = is_read
        if contained:
            self.table.receive_granted(contained)
        self.table.settle(record, kind, payload, contained or ())
        self.carry_out()

    def settle_again(self, record: ownership.Record, kind: int, payload: Any, contained: Iterable[bytes] = ()) -> None:
        """As `settle`, by a task that has run again for one of its results. Another one that is not in memory any more gets
        the new value too, be it lost or on disk: it need not be run once more for each; nor does one that was let go of
        meanwhile. Lock held."""
        if record.kind == kind == STORED and not record.is_dead and self._is_gone(*record.payload):
            name = record.payload[0]
            self.table.unsettle(record)
            self._free_copies(record.object_id)
            self._free_segment(name)
        self.settle(record, kind, payload, contained)

    def _is_gone(self, name: str, size_bytes: int) -> bool:
        try:
            self.store.open(name, size_bytes)
        except exceptions.UmbelError:
            return True
        return False

    def _settle(self, record: ownership.Record, kind: int, payload: Any, contained: Iterable[bytes]) -> None:
        record.task = None
        self._engine.has_settled = True
        self.table.settle(record, kind, payload, contained)
        waiters, record.waiters = record.waiters, None
        subscribers, record.subscribers = record.subscribers, None
        if subscribers:
            record.is_read = True
            for link in subscribers:
                link.post((messages.VALUE, record.object_id, kind, payload))
                self._engine.mark_dirty(link)
        if waiters:
            for waiter in waiters:
                waiter(record)

    def _settle_error(self, record: ownership.Record, error: BaseException) -> None:
        self._settle(record, ERROR, exceptions.dump_error(error), ())

    def settle_error(self, record: ownership.Record, error: BaseException) -> None:
        """As `settle`, with an error of ours. Lock held."""
        self.settle(record, ERROR, exceptions.dump_error(error))

    def on_settled(self, record: ownership.Record, callback: Any) -> None:
        """Call `callback(record)`, lock held, when the value is there; fetches it from its owner if need be. Lock
        held."""
        if record.waiters is None:
            record.waiters = []
        record.waiters.append(callback)
        if not record.is_fetching and record.task is None and not self.table.is_owner(record.object_id):
            link = self._engine.links.to(self.table.owner_of(record.object_id))
            record.is_fetching = True
            if link is None:
                self._settle_error(record, owner_died(record.object_id))
                return
            link.post((messages.FETCH, record.object_id))
            self._engine.mark_dirty(link)

    # Values that are gone

    def lose(self, lost: ValueLost) -> None:
        """A stored value could not be read: have its object computed again. Lock held."""
        record = self.table.records.get(lost.object)
        if record is None:
            return
        is_owner = self.table.is_owner(record.object_id)
        if record.kind == STORED and record.payload == lost.payload:
            self.table.unsettle(record)
            self._engine.tasks.arguments.lost(record)
        elif is_owner or record.kind != PENDING or record.is_fetching:
            return  # somebody was faster
        if self._engine.agent_is_gone:
            self._settle_error(record, self._engine.daemon_died())
        elif is_owner:
            self._free_copies(record.object_id)
            self._free_segment(lost.payload[0])
            self.store.trim_all()  # if it was our own, it must not be used for the next value
            (self._engine.rebuilder or self._engine.make_rebuilder()).rebuild(record, lost.how)
        else:
            if len(self._losses) >= LOSSES_KNOWN_MAX:
                self._losses.clear()
            losses = self._losses[lost.object] = self._losses.get(lost.object, 0) + 1
            link = self._engine.links.to(self.table.owner_of(record.object_id))
            if losses > LOSSES_MAX:
                self._settle_error(record, lost)
            elif link is not None:  # else whoever waits for it is told
                link.post((messages.LOST, record.object_id, lost.payload, lost.how))
                self._engine.mark_dirty(link)
        self.carry_out()

    def on_lost(self, _link: links.Link, message: tuple[Any, ...]) -> None:
        _, object_id, payload, how = message
        self.lose(ValueLost(object_id, payload, how))

    def on_copied(self, link: links.Link, message: tuple[Any, ...]) -> None:
        self.copy_made(message[1], message[2], nodes.tag_of_process(link.peer))

    def found_again(self, lost: ValueLost) -> tuple[int, Any]:
        """The encoded value, or error, of an argument that was lost, once its owner has had it computed again. Raises
        `lost` when the session ends before. No lock."""
        with self._lock:
            record = self.table.add_local(lost.object)
            self.lose(lost)
        try:
            self._engine.waits.wait_for_records([record])
            if record.kind == PENDING:
                raise lost
            return record.kind, record.payload
        finally:
            self._engine.drop_ref(lost.object)

    # Commands of the table

    def carry_out(self) -> None:
        """Do what the table decided. Lock held."""
        table = self.table
        before = self.carrying_out
        while table.commands:
            commands, table.commands = table.commands, []
            self.carrying_out = commands if not before else [*before, *commands]
            for command in commands:
                if isinstance(command, ownership.Free):
                    if command.kind == STORED:
                        if self.copied:
                            self._free_copies(command.object_id)
                        self._free_segment(command.payload[0])
                        if self._engine.rebuilder is not None:
                            self._engine.rebuilder.lineage.freed(command.object_id)
                    elif command.kind == LIFETIME:
                        self._engine.actors.lifetime_over(command.payload)
                    elif command.kind == ERROR and not command.is_read:
                        self._engine.error_unread(command.payload)
                elif isinstance(command, ownership.Release):
                    if command.object_id.endswith(LIFETIME_SUFFIX):
                        self._engine.actors.forget(command.object_id[: -len(LIFETIME_SUFFIX)])
                    link = self._engine.links.to(command.owner)  # unknown as yet, if the grant came from others
                    if link is not None:
                        link.post((messages.RELEASE, command.object_id, self.process_id, command.grants))
                        self._engine.mark_dirty(link)
                else:
                    link = self._engine.links.to(command.owner)
                    if link is None:
                        self._owner_gone(command.owner)
                    else:
                        self._unacknowledged[command.object_id] = self._unacknowledged.get(command.object_id, 0) + 1
                        link.post((messages.BORROW, command.object_id, command.borrower, command.number))
                        self._engine.mark_dirty(link)
        self.carrying_out = before

    def copy_made(self, object_id: bytes, key: str, node: bytes) -> None:
        """The node with this tag has a copy of a value that we own, or owned. Lock held."""
        if self._engine.agent_is_gone:
            return
        self._engine.agent.notify({"t": "value_copied", "key": key, "node": node.hex()})
        self.copied.setdefault(object_id, {}).setdefault(key, set()).add(node)
        if object_id not in self.table.records:
            self._free_copies(object_id)

    def _free_copies(self, object_id: bytes) -> None:
        for key in self.copied.pop(object_id, ()):
            if not self._engine.agent_is_gone:
                self._engine.agent.notify({"t": "value_freed", "key": key})

    def _free_segment(self, name: str) -> None:
        creator = bytes.fromhex(name.split(".", 1)[0])
        if creator == self.process_id:
            self._free_own(name)
            return
        link = self._engine.links.by_peer.get(creator)
        if link is not None:
            link.post((messages.FREE, name))
            self._engine.mark_dirty(link)
        elif self.is_elsewhere(name):
            self.free_left(name)
        else:
            self.stored.pop(name, None)
            if self.spilling is not None:
                self.spilling.freed(name, tells=True)
            self.store.unlink(name)

    def _free_own(self, name: str) -> None:
        """A value that was written here is dead. Lock held."""
        # What is said of one that was kept comes by way of the daemons, perhaps late: nothing else is to have its name.
        store: Any = self.store
        is_evicted = name in self.kept and hasattr(store, "evict")
        if is_evicted and not store.evict(name) and name in store.viewed():
            return  # its owner is asked again
        self.kept.discard(name)
        self.stored.pop(name, None)
        was_on_disk = self.spilling is not None and self.spilling.freed(name)
        if not is_evicted and not was_on_disk:
            store.free(name)

    def _free_if_here(self, name: str) -> None:
        """The same of one that may have died before. Lock held."""
        if name in self.stored:
            self._free_own(name)
        elif self.spilling is not None:
            self.kept.discard(name)
            self.spilling.freed(name)

    def not_sent(self, results: Iterable[tuple[Any, ...]]) -> None:
        """These results, (kind, payload, ...) each, reach their owner no more: the connection to it is gone. Lock held."""
        for kind, payload, *_ in results:
            if kind == STORED:
                self._free_if_here(payload[0])

    def when_acknowledged(self, object_ids: list[bytes], callback: Any) -> None:
        """Call `callback()`, lock held, when the owners have entered all these borrows. Lock held."""
        awaited = [object_id for object_id in object_ids if object_id in self._unacknowledged]
        if not awaited:
            callback()
            return
        entry = [len(awaited), callback]
        for object_id in awaited:
            self._awaited.setdefault(object_id, []).append(entry)

    def _acknowledged(self, object_id: bytes) -> None:
        left = self._unacknowledged.get(object_id, 0) - 1
        if left > 0:
            self._unacknowledged[object_id] = left
            return
        self._unacknowledged.pop(object_id, None)
        for entry in self._awaited.pop(object_id, ()):
            entry[0] -= 1
            if not entry[0]:
                entry[1]()

    # Messages from other processes; lock held

    def on_borrow(self, link: links.Link, message: tuple[Any, ...]) -> None:
        _, object_id, borrower, number = message
        if borrower == link.peer:
            self.table.borrow_received(object_id, borrower)
        # Lent by somebody else: the end of our connection to the borrower is how we shall know of its death.
        elif self._engine.links.to(borrower) is not None:
            at_s = self._engine.frame_time_s
            self.table.borrow_received(object_id, borrower, lender=link.peer, number=number, at_s=at_s)
        link.post((messages.ACK, object_id))

    def on_ack(self, _link: links.Link, message: tuple[Any, ...]) -> None:
        self.table.acknowledged(message[1])
        self._acknowledged(message[1])

    def on_release(self, _link: links.Link, message: tuple[Any, ...]) -> None:
        self.table.release_received(message[1], message[2], message[3])

    def on_borrows(self, link: links.Link, message: tuple[Any, ...]) -> None:
        from umbel._client import reconnected  # connections seldom break

        reconnected.on_borrows(self, link, message)

    def on_borrows_asked(self, link: links.Link, _message: tuple[Any, ...]) -> None:
        from umbel._client import reconnected

        reconnected.say_borrows(self, link)

    def on_fetch(self, link: links.Link, message: tuple[Any, ...]) -> None:
        object_id = message[1]
        record = self.table.records.get(object_id)
        if record is None:
            error = exceptions.ObjectFreedError(
                f"object {object_id.hex()} was freed by its owner before it was asked for; keep a reference to it"
            )
            link.post((messages.VALUE, object_id, ERROR, exceptions.dump_error(error)))
        elif record.kind == HELD:
            self._engine.tensor_holder().give_copy(link.peer, object_id, record.payload)
        elif record.kind != PENDING:
            record.is_read = True
            link.post((messages.VALUE, object_id, record.kind, record.payload))
        elif record.subscribers is None:
            record.subscribers = [link]
        else:
            record.subscribers.append(link)

    def on_value(self, _link: links.Link, message: tuple[Any, ...]) -> None:
        _, object_id, kind, payload = message
        record = self.table.records.get(object_id)
        if record is not None and record.kind == PENDING:
            self._settle(record, kind, payload, ())

    def on_taken(self, _link: links.Link, message: tuple[Any, ...]) -> None:
        """Its memory is not used again: others of this node may look at it."""
        self.taken.add(message[1])

    def on_free(self, link: links.Link, message: tuple[Any, ...]) -> None:
        if self._engine.links.is_of_this_node(link.peer):
            self._free_own(message[1])
        else:
            self._free_if_here(message[1])

    def peer_gone(self, peer: bytes, *, may_live: bool) -> None:
        """A process died, or the connection to one of another node broke, which may live. Lock held."""
        if may_live and self._is_between(peer):
            self._engine.links.to(peer)  # what comes of that tells whether it lives, and is told here
        elif not may_live:
            self.table.borrower_gone(peer)
            self._owner_gone(peer)
            self.carry_out()
        if self._engine.links.is_of_this_node(peer):
            self.orphans_found(self.orphans_of(peer))
        else:
            self._keep_for(peer.hex())

    def _is_between(self, peer: bytes) -> bool:
        """Whether one of us has, or waits for, anything of the other. Lock held."""
        table = self.table
        return (
            any(
                record.grants or (record.is_fetching and record.kind == PENDING)
                for object_id, record in table.records.items()
                if table.owner_of(object_id) == peer
            )
            or any(table.owner_of(object_id) == peer for object_id in self._unacknowledged)
            or table.is_lent_to(peer)
        )

    def connected_again(self, link: links.Link) -> None:
        """A connection has begun to a process to which one was broken. Nothing was said by it so far. Lock held."""
        from umbel._client import reconnected

        reconnected.say_all(self, link)

    def _keep_for(self, owner: str) -> None:
        """Of what was written here for this process of another node it has heard, or never will: the daemon asks it which of
        that it needs, if it lives. Lock held."""
        on_disk = () if self.spilling is None else self.spilling.book.gone
        names = [name for name in (*self.stored, *on_disk) if segments.parts_of(name)[1] == owner]
        self.kept.update(names)
        if not self._engine.agent_is_gone:
            for begin in range(0, len(names), NAMED_MAX):
                self._engine.agent.notify({"t": "values_kept", "segments": names[begin : begin + NAMED_MAX]})

    def not_needed(self, names: list[str]) -> None:
        """Their owner, on another node, does not need these. Lock held."""
        for name in names:
            if name in self.kept:  # else it has the connection to tell us
                self._free_if_here(name)

    def orphans_found(self, orphans: list[str]) -> None:
        """These a dead process had written for us. Lock held."""
        if orphans:
            known = dict(record.payload for record in self.table.records.values() if record.kind == STORED)
            for name in orphans:
                if name in known:
                    self.stored[name] = known[name]  # only we can move it now
                else:  # it died before it could tell us of the value
                    self.store.unlink(name)

    def check_left(self, names: list[str]) -> None:
        """Another node has these values, made for us by processes that have ended, or to which the connection broke: say which of
        them are not needed. What its maker has said of one may be on its way, by a connection of which the end has not been seen
        here; then nothing comes of saying so, and we are asked again. Lock held."""
        known = {record.payload[0] for record in self.table.records.values() if record.kind == STORED}
        for name in names:
            if name not in known:
                self._free_segment(name)

    def free_left(self, name: str) -> None:
        """A value of another node whose maker we are not connected to is dead. Lock held."""
        if not self._engine.agent_is_gone:
            self._engine.agent.notify({"t": "left_freed", "segment": name})

    def orphans_of(self, peer: bytes) -> list[str]:
        """A process of this node is dead: give back the memory that we wrote for it. Returns what it had written for us. Lock
        held."""
        owner = peer.hex()
        for name in [name for name in self.stored if name.split(".", 2)[1] == owner]:
            del self.stored[name]
        if self.spilling is not None:
            self.spilling.book.owner_gone(owner)
        return self.store.orphans_of(owner)

    def _owner_gone(self, owner: bytes) -> None:
        for record in self.table.owner_gone(owner):
            if record.kind == PENDING and record.task is None:
                self._settle_error(record, owner_died(record.object_id))
        for object_id in [i for i in self._unacknowledged if i[: ownership.OWNER_ID_BYTES] == owner]:
            self._unacknowledged[object_id] = 1
            self._acknowledged(object_id)


class NotThere(Exception):
    """An object that was there is pending again: somebody else found it lost."""


class ValueLost(exceptions.ObjectLostError):
    """The stored value of an object cannot be read. payload: where it was; how: what happened to it."""

    def __init__(self, object_id: bytes, payload: Any, how: str) -> None:
        super().__init__(
            f"object {object_id.hex()} is lost: {how}", object_id=object_id.hex(), owner=object_id[:16].hex()
        )
        self.object = object_id
        self.payload = payload
        self.how = how


def make_table(process_id: bytes, config: configuration.Config) -> ownership.ReferenceTable:
    if not config.record_call_sites:
        return ownership.ReferenceTable(process_id)
    from umbel._client import call_sites  # what few programs ask for is not imported for all

    return call_sites.RecordingTable(process_id)


def owner_died(object_id: bytes) -> exceptions.OwnerDiedError:
    return exceptions.OwnerDiedError(
        f"the owner of object {object_id.hex()}, process {object_id[:16].hex()}, has died, and its objects with it (if it was "
        "a program, `umbel list jobs` says how that ended); create long-lived objects in a process that lives as long, such as "
        "the driver or an actor"
    )


def raise_error(blob: bytes) -> None:
    """Raise the error these bytes hold, as both UmbelTaskError and the user's class where it is one."""
    error = exceptions.load_error(blob)
    if isinstance(error, exceptions.UmbelTaskError):
        error = error.as_instanceof_cause()
    try:
        raise error
    finally:
        # Else it and this frame refer to each other, and keep the references in our callers' frames until the next gc.
        del error
