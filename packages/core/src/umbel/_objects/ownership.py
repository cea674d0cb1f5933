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
a RELEASE and a new grant arrive.

The connection of two processes of different nodes may break while both live. Then neither forgets anything before the other
is known to be gone. Over the next connection a borrower first says all that it borrows of the owner (`borrows_of`), and the
owner takes that for its counts (`told_borrows`), but for grants that others, or it itself, have entered for the borrower so
lately that they may still be on their way to it.

This module decides; it neither sends nor frees. Commands pile up in `commands` until the caller takes them. The caller
holds one lock around every call.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from umbel._base import nodes
from umbel._base.checks import broken

PENDING = -1  # the kind of an encoded value that is not there yet
OWNER_ID_BYTES = 16
LENDERS_MAX = 10_000  # on other nodes, the living and the dead
# A result that lends something has arrived by then, or never will: its lender's acknowledgement and it itself may each wait a
# minute for a connection, and lie half a minute where a machine is silent.
UNDER_WAY_S = 300.0


class Free(NamedTuple):
    """Nobody needs this encoded value any more; give its memory back. `is_read`: as the record's."""

    kind: int
    payload: Any
    is_read: bool = False
    object_id: bytes = b""


class Borrow(NamedTuple):
    """Tell `owner` that `borrower` borrows the object once more; it answers with an acknowledgement. number: counts those of
    this process."""

    owner: bytes
    object_id: bytes
    borrower: bytes
    number: int


class Release(NamedTuple):
    """Tell `owner` that this process gives back `grants` borrows of the object."""

    owner: bytes
    object_id: bytes
    grants: int


class _Asked(NamedTuple):
    """A borrow that its owner has not acknowledged. outer: the value that protects it until then, if that is ours to pin."""

    borrower: bytes
    number: int
    outer: Record | None


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
        self._asked: dict[bytes, deque[_Asked]] = {}  # per object, in the order in which they are acknowledged
        self._asked_count = 0
        self._lent: deque[tuple[float, bytes, bytes]] = deque()  # when what was entered for whom: see `told_borrows`
        self._heard: dict[bytes, int] = {}  # by lender on another node, its last number of what it lent to others

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
            if not (record.local or record.pins or record.borrowers or record.is_dead):
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
            self._borrow(record, outer)
        return record

    def found_in_arguments(self, object_id: bytes) -> Record:
        """A reference was read out of a task's arguments. Adds the local reference; the submitter protects it."""
        return self.add_local(object_id)

    def _borrow(self, record: Record, outer: Record | None = None) -> None:
        record.grants += 1
        if outer is not None:
            self.pin(outer)
        self._ask(record.object_id, self.process_id, outer)

    def _ask(self, object_id: bytes, borrower: bytes, outer: Record | None = None) -> None:
        self._asked_count += 1
        self.commands.append(Borrow(self.owner_of(object_id), object_id, borrower, self._asked_count))
        self._asked.setdefault(object_id, deque()).append(_Asked(borrower, self._asked_count, outer))

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
            elif object_id not in self._asked:
                continue  # the owner knows; else a borrow is under way which the reply could overtake
            if self.owner_of(object_id) != submitter:
                awaited.append(object_id)
        return awaited

    def lend_result(self, object_ids: Iterable[bytes], submitter: bytes, at_s: float) -> list[bytes]:
        """These references travel to `submitter` inside a result. Returns those whose ACK the reply must wait for."""
        awaited = []
        for object_id in object_ids:
            owner = self.owner_of(object_id)
            if owner == submitter:
                continue  # it does not borrow from itself; it may be this process
            if owner == self.process_id:
                self._enter(object_id, submitter, self.process_id, at_s)
            else:
                self._ask(object_id, submitter)
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
        waiting = self._asked.get(object_id)
        if not waiting:
            return  # the owner's death answered first
        outer = waiting.popleft().outer
        if not waiting:
            del self._asked[object_id]
        if outer is not None:
            self.unpin(outer)

    def unacknowledged(self, owner: bytes, unsent: Iterable[Free | Borrow | Release]) -> list[Borrow]:
        """What was asked of the owner and not acknowledged, but for what is still to be: the oldest first."""
        numbers = {command.number for command in unsent if isinstance(command, Borrow)}
        return sorted(
            (
                Borrow(owner, object_id, asked.borrower, asked.number)
                for object_id, waiting in self._asked.items()
                if self.owner_of(object_id) == owner
                for asked in waiting
                if asked.number not in numbers
            ),
            key=lambda borrow: borrow.number,
        )

    def borrows_of(self, owner: bytes, unsent: Iterable[Free | Borrow | Release]) -> list[tuple[bytes, int]]:
        """All grants that this process has of the owner's objects. unsent: commands of which it will hear after this."""
        grants = Counter(
            {
                one: record.grants
                for one, record in self.records.items()
                if record.grants and self.owner_of(one) == owner
            }
        )
        for command in unsent:
            if isinstance(command, Release) and command.owner == owner:
                grants[command.object_id] += command.grants
            elif isinstance(command, Borrow) and command.owner == owner and command.borrower == self.process_id:
                grants[command.object_id] -= 1
        return [(object_id, count) for object_id, count in grants.items() if count > 0]

    def owner_gone(self, owner: bytes) -> list[Record]:
        """The owner died. Returns the borrowed objects whose value is not here and never will be."""
        for object_id in [i for i in self._asked if self.owner_of(i) == owner]:
            for asked in self._asked.pop(object_id):
                if asked.outer is not None:
                    self.unpin(asked.outer)
        lost = []
        for object_id, record in list(self.records.items()):
            if self.owner_of(object_id) == owner:
                record.grants = 0
                if record.kind == PENDING:
                    lost.append(record)
        return lost

    # Borrowing: others borrow from this process

    def borrow_received(
        self, object_id: bytes, borrower: bytes, *, lender: bytes = b"", number: int = 0, at_s: float = 0.0
    ) -> bool:
        """Someone borrows an object of ours once more. lender: who says so, if it is another one, with its number for it. False:
        it is gone, which only a reference nobody counted does."""
        if lender and self._is_far(lender):
            if number <= self._heard.get(lender, 0):
                return True  # its acknowledgement was lost with the connection before
            self._heard[lender] = number
            if len(self._heard) > LENDERS_MAX:
                del self._heard[next(iter(self._heard))]
        return self._enter(object_id, borrower, lender or borrower, at_s)

    def _enter(self, object_id: bytes, borrower: bytes, lender: bytes, at_s: float) -> bool:
        record = self.records.get(object_id)
        if record is None:
            return False
        if record.borrowers is None:
            record.borrowers = {}
        record.borrowers[borrower] = record.borrowers.get(borrower, 0) + 1
        if lender != borrower and self._is_far(borrower):
            self._lent.append((at_s, object_id, borrower))
            self._forget_lent(at_s)
        return True

    def _is_far(self, process: bytes) -> bool:
        """Whether the connection to it may break while it lives."""
        return nodes.tag_of_process(process) != nodes.tag_of_process(self.process_id)

    def _forget_lent(self, at_s: float) -> None:
        lent = self._lent
        while lent and lent[0][0] <= at_s - UNDER_WAY_S:
            lent.popleft()

    def release_received(self, object_id: bytes, borrower: bytes, grants: int) -> None:
        record = self.records.get(object_id)
        if record is not None and record.borrowers:
            self._set_grants(record, borrower, record.borrowers.get(borrower, 0) - grants)
            self._maybe_free(record)

    @staticmethod
    def _set_grants(record: Record, borrower: bytes, count: int) -> None:
        if record.borrowers is None:
            record.borrowers = {}
        # Never below zero: grants are entered before they can be given back, but for those of who had been given up, whose later
        # ones must count.
        if count > 0:
            record.borrowers[borrower] = count
        else:
            record.borrowers.pop(borrower, None)

    def is_lent_to(self, borrower: bytes) -> bool:
        return any(record.borrowers and borrower in record.borrowers for record in self.records.values())

    def told_borrows(self, borrower: bytes, grants: Mapping[bytes, int], at_s: float) -> bool:
        """It has said, over a new connection, all that it borrows of us. Returns whether something is kept for it that may be on
        its way to it: what it says `UNDER_WAY_S` later tells. Saying so again changes nothing."""
        self._forget_lent(at_s)
        under_way = Counter(object_id for _, object_id, to in self._lent if to == borrower)
        is_doubtful = False
        fewer = []
        for object_id, record in self.records.items():
            entered = record.borrowers.get(borrower, 0) if record.borrowers else 0
            has = grants.get(object_id, 0)
            if entered != has and self.is_owner(object_id):
                count = max(has, min(entered, has + under_way[object_id]))
                is_doubtful |= count > has
                self._set_grants(record, borrower, count)
                if count < entered:
                    fewer.append(record)
        for record in fewer:  # when all counts are right: one may keep what another one contains
            self._maybe_free(record)
        return is_doubtful

    def borrower_gone(self, borrower: bytes) -> None:
        """A process died; what it borrowed is given back."""
        self._heard.pop(borrower, None)
        for record in [r for r in self.records.values() if r.borrowers and borrower in r.borrowers]:
            self._set_grants(record, borrower, 0)
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
