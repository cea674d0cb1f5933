"""Who keeps an object alive: one process's half of distributed reference counting.

The process that made an object's first reference *owns* it; its id begins with the owner's id. Every other process that
holds a reference *borrows* it. The owner keeps the value while it has references itself (`local`), while something it
keeps needs it (`pins`: arguments of unfinished tasks, values that contain the reference), or while anyone borrows it.

A borrow must be known to the owner before whatever protected the reference so far lets go. Three ways lead to one:

- *Found inside a value that was read.* The reader sends BORROW at once and pins the outer value until the owner's ACK.
- *Found among a task's arguments.* The submitter's pin protects it until the reply, so nothing is sent unless the
  process still holds it when the task ends; then BORROW goes first, and the reply waits for the ACK unless it
  travels to the owner itself, behind the BORROW on the same connection.
- *Returned inside a result.* The executor has the submitter's borrow entered (BORROW_FOR, or its own count if it is the
  owner) before it replies.

Borrows are counted, not listed: a RELEASE carries how many grants it gives back, so it does not matter in which order
a RELEASE and a new grant arrive. A count below zero keeps nothing: whoever lends protects the object until its grant is here.

This module decides; it neither sends nor frees. Commands pile up in `commands` until the caller takes them. The caller
holds one lock around every call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from umbel._base.checks import broken

PENDING = -1  # the kind of an encoded value that is not there yet
OWNER_ID_BYTES = 16


class Free(NamedTuple):
    """Nobody needs this encoded value any more; give its memory back. `is_read`: as the record's."""

    kind: int
    payload: Any
    is_read: bool = False
    object_id: bytes = b""


class Borrow(NamedTuple):
    """Tell `owner` that `borrower` borrows the object once more; it answers with an acknowledgement."""

    owner: bytes
    object_id: bytes
    borrower: bytes


class Release(NamedTuple):
    """Tell `owner` that this process gives back `grants` borrows of the object."""

    owner: bytes
    object_id: bytes
    grants: int


class Record:
    """What one process knows of one object.

    local: live references and views in this process. pins: what this process needs it for besides.
    borrowers: owned objects only; process id -> grants outstanding. grants: borrowed objects only; ours.
    kind, payload: the encoded value, or PENDING. contained: ids of references inside the value, each pinned.
    is_read: somebody got the value, or the error. Kept for errors only: one that was never read is worth a word.
    waiters, subscribers, task, call_site: the caller's; not looked at here. call_site is unset unless it is recorded.
    """

    __slots__ = (
        "borrowers", "call_site", "contained", "grants", "is_dead", "is_fetching", "is_read", "kind", "local", "object_id",
        "payload", "pins", "subscribers", "task", "waiters",
    )  # fmt: skip

    call_site: str

    def __init__(self, object_id: bytes, local: int = 0) -> None:
        self.object_id = object_id
        self.local = local
        self.pins = 0
        self.grants = 0
        self.borrowers: dict[bytes, int] | None = None
        self.kind = PENDING
        self.payload: Any = None
        self.contained: tuple[bytes, ...] = ()
        self.is_dead = False
        self.is_fetching = False
        self.waiters: list[Any] | None = None
        self.subscribers: list[Any] | None = None
        self.task: Any = None
        self.is_read = False

    def __repr__(self) -> str:
        return (
            f"Record({self.object_id.hex()}, kind={self.kind}, local={self.local}, pins={self.pins}, "
            f"grants={self.grants}, borrowers={self.borrowers})"
        )


class ReferenceTable:
    """The objects one process owns or borrows."""

    def __init__(self, process_id: bytes) -> None:
        self.process_id = process_id
        self.records: dict[bytes, Record] = {}
        self.commands: list[Free | Borrow | Release] = []
        self._lenders: dict[bytes, deque[Record | None]] = {}  # per object, who protects it until the next ACK

    def owner_of(self, object_id: bytes) -> bytes:
        return object_id[:OWNER_ID_BYTES]

    def is_owner(self, object_id: bytes) -> bool:
        return object_id[:OWNER_ID_BYTES] == self.process_id

    # Local references

    def own(self, object_id: bytes) -> Record:
        """A new object of this process, with one reference to it."""
        record = self.records[object_id] = Record(object_id, 1)
        return record

    def add_local(self, object_id: bytes) -> Record:
        """One more reference or view in this process; a record is made when there is none."""
        record = self.records.get(object_id)
        if record is None:
            record = self.records[object_id] = Record(object_id)
        record.local += 1
        return record

    def drop_local(self, object_id: bytes) -> None:
        record = self.records.get(object_id)
        if record is None:
            return  # the session in which the reference was counted has ended
        record.local -= 1
        if not record.local and not record.pins:
            self._maybe_free(record)

    def pin(self, record: Record) -> None:
        record.pins += 1

    def unpin(self, record: Record) -> None:
        record.pins -= 1
        if record.pins < 0:
            raise broken("an object was unpinned more often than pinned", object=record.object_id.hex())
        if not record.pins and not record.local:
            self._maybe_free(record)

    def _maybe_free(self, record: Record) -> None:
        """If nobody counts on it, and then what only it contained, however deep values lie in each other."""
        waiting: list[Record] = []
        while True:
            if not (record.local or record.pins or record.is_dead or (record.borrowers and _is_lent(record.borrowers))):
                record.is_dead = True
                del self.records[record.object_id]
                if record.grants:
                    self.commands.append(Release(self.owner_of(record.object_id), record.object_id, record.grants))
                    record.grants = 0
                if record.kind != PENDING:
                    self._let_go(record, waiting)
            if not waiting:
                return
            record = waiting.pop()

    def _let_go(self, record: Record, unneeded: list[Record]) -> None:
        """Free a dead record's value if it is ours to free, and unpin what it contained: what nothing else in this process needs
        of that is added to `unneeded`, the first last."""
        if self.is_owner(record.object_id):
            self.commands.append(Free(record.kind, record.payload, record.is_read, record.object_id))
        contained, record.contained = record.contained, ()
        record.payload = None
        for object_id in reversed(contained):
            inner = self.records.get(object_id)
            if inner is not None:
                inner.pins -= 1
                if inner.pins < 0:
                    raise broken("an object was unpinned more often than pinned", object=object_id.hex())
                if not inner.pins and not inner.local:
                    unneeded.append(inner)

    # Values

    def settle(self, record: Record, kind: int, payload: Any, contained: Iterable[bytes] = ()) -> None:
        """The value is there. `contained`: references inside it, already protected for this process by whoever sent it
        (`receive_granted`) or by references it holds (`put`)."""
        if record.kind != PENDING:
            raise broken("an object got a second value", object=record.object_id.hex())
        record.kind = kind
        record.payload = payload
        if contained:
            record.contained = tuple(contained)
            for object_id in record.contained:
                self.pin(self._known(object_id))
        if record.is_dead:
            unneeded: list[Record] = []
            self._let_go(record, unneeded)
            while unneeded:
                self._maybe_free(unneeded.pop())

    def unsettle(self, record: Record) -> None:
        """The value is lost: the object is pending again, until `settle`. Its memory is the caller's to give back."""
        if record.kind == PENDING:
            raise broken("an object without a value lost it", object=record.object_id.hex())
        record.kind = PENDING
        record.payload = None
        record.is_fetching = False
        contained, record.contained = record.contained, ()
        for object_id in contained:
            self.unpin(self._known(object_id))

    def _known(self, object_id: bytes) -> Record:
        record = self.records.get(object_id)
        if record is None:
            record = self.records[object_id] = Record(object_id)
        return record

    # Borrowing: this process borrows

    def found_in_value(self, object_id: bytes, outer: Record | None) -> Record:
        """A reference was read out of the value of `outer` (None: out of bytes that nobody counts). Adds the local
        reference."""
        record = self.add_local(object_id)
        if not self.is_owner(object_id) and not record.grants:
            self._borrow(record)
            if outer is not None:
                self.pin(outer)
            self._lenders.setdefault(object_id, deque()).append(outer)
        return record

    def found_in_arguments(self, object_id: bytes) -> Record:
        """A reference was read out of a task's arguments. Adds the local reference; the submitter protects it."""
        return self.add_local(object_id)

    def _borrow(self, record: Record) -> None:
        record.grants += 1
        self.commands.append(Borrow(self.owner_of(record.object_id), record.object_id, self.process_id))

    def task_ended(self, argument_ids: Iterable[bytes], submitter: bytes) -> list[bytes]:
        """The task whose arguments held these references is about to reply to `submitter`. Returns those whose ACK
        the reply must wait for."""
        awaited = []
        for object_id in argument_ids:
            record = self.records.get(object_id)
            if record is None or self.is_owner(object_id) or not (record.local or record.pins):
                continue
            if not record.grants:
                self._borrow(record)
                self._lenders.setdefault(object_id, deque()).append(None)
            elif object_id not in self._lenders:
                continue  # the owner knows; else a borrow is under way which the reply could overtake
            if self.owner_of(object_id) != submitter:
                awaited.append(object_id)
        return awaited

    def lend_result(self, object_ids: Iterable[bytes], submitter: bytes) -> list[bytes]:
        """These references travel to `submitter` inside a result. Returns those whose ACK the reply must wait for."""
        awaited = []
        for object_id in object_ids:
            owner = self.owner_of(object_id)
            if owner == submitter:
                continue  # it does not borrow from itself; it may be this process
            if owner == self.process_id:
                self.borrow_received(object_id, submitter)
            else:
                self.commands.append(Borrow(owner, object_id, submitter))
                self._lenders.setdefault(object_id, deque()).append(None)
                awaited.append(object_id)
        return awaited

    def receive_granted(self, object_ids: Iterable[bytes]) -> None:
        """A result that holds these references arrived; its sender has entered our borrow of each we do not own.
        Call before `settle`, whose pins keep them."""
        for object_id in object_ids:
            if not self.is_owner(object_id):
                self._known(object_id).grants += 1

    def acknowledged(self, object_id: bytes) -> None:
        """The owner has entered the oldest borrow of this object that we asked for."""
        waiting = self._lenders.get(object_id)
        if not waiting:
            return  # the owner's death answered first
        outer = waiting.popleft()
        if not waiting:
            del self._lenders[object_id]
        if outer is not None:
            self.unpin(outer)

    def owner_gone(self, owner: bytes) -> list[Record]:
        """The owner died. Returns the borrowed objects whose value is not here and never will be."""
        for object_id in [i for i in self._lenders if self.owner_of(i) == owner]:
            for outer in self._lenders.pop(object_id):
                if outer is not None:
                    self.unpin(outer)
        lost = []
        for object_id, record in list(self.records.items()):
            if self.owner_of(object_id) == owner:
                record.grants = 0
                if record.kind == PENDING:
                    lost.append(record)
        return lost

    # Borrowing: others borrow from this process

    def borrow_received(self, object_id: bytes, borrower: bytes) -> bool:
        """Someone borrows an object of ours once more. False: it is gone, which only a reference nobody counted
        does."""
        record = self.records.get(object_id)
        if record is None:
            return False
        if record.borrowers is None:
            record.borrowers = {}
        self._change_grants(record, borrower, 1)
        return True

    def release_received(self, object_id: bytes, borrower: bytes, grants: int) -> None:
        record = self.records.get(object_id)
        if record is None:
            return
        if record.borrowers is None:
            record.borrowers = {}
        self._change_grants(record, borrower, -grants)
        self._maybe_free(record)

    @staticmethod
    def _change_grants(record: Record, borrower: bytes, change: int) -> None:
        borrowers = record.borrowers
        if borrowers is None:
            return
        # Below zero if a release overtook its grant; or for good, if a broken connection had ended that one here.
        count = borrowers.get(borrower, 0) + change
        if count:
            borrowers[borrower] = count
        else:
            borrowers.pop(borrower, None)

    def borrower_gone(self, borrower: bytes) -> None:
        """A process died; what it borrowed is given back."""
        for record in [r for r in self.records.values() if r.borrowers and borrower in r.borrowers]:
            if record.borrowers is not None:
                record.borrowers.pop(borrower, None)
            self._maybe_free(record)

    # Invariants

    def check(self) -> None:
        """Assert what always holds within one process; `docs/invariants.md` has the words."""
        records = self.records
        for object_id, record in records.items():
            if record.local < 0 or record.pins < 0:
                raise broken("negative count", object=object_id.hex())
            if record.is_dead:
                raise broken("a dead record is still listed", object=object_id.hex())
            if record.borrowers and not self.is_owner(object_id):
                raise broken("a borrowed object has borrowers", object=object_id.hex())
            for inner in record.contained:
                if inner not in records:
                    raise broken("a contained object is not listed", object=inner.hex())


def _is_lent(borrowers: dict[bytes, int]) -> bool:
    return any(count > 0 for count in borrowers.values())
