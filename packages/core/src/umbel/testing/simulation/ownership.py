"""Objects that several processes make, pass on, read and drop while any of them may die.

Every process runs the production engine. It hosts an actor that the others call with references among the arguments
and that returns references; it keeps some for itself. Chance decides which message arrives next, at which point of a
call everything else happens, and who dies when.
"""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from umbel import exceptions
from umbel._client import actor as actor_api
from umbel._client import links, refs, remote_links, waits
from umbel._model import options
from umbel._objects import ownership, serialization
from umbel._wire import data_frames, frames, messages
from umbel._worker import execute
from umbel.testing.simulation.processes import Node, Process, collect_cycles, surroundings
from umbel.testing.simulation.processes import in_words_of_id as _short
from umbel.testing.simulation.world import END, World

HELD_MAX = 6  # things a process keeps at once: more makes runs longer, not richer
JOBS_MAX = 4  # calls of one process that run at once, as in a threaded actor
LARGE_BYTES = 512  # of a buffer that goes to the store
QUIET_ROUNDS_MAX = 2_000

Ref = refs.ObjectRef[Any]


class _Peer:
    """What the actors are instances of, as far as their callers know."""

    def run(self, *arguments: Any) -> Any: ...


class _Refused(Exception):
    """What a call raises now and then."""


DESCRIPTION = actor_api.describe(_Peer, options.actor_options({"max_concurrency": 2}, {}))


class Job:
    """A call under way in its process, one phase after the other."""

    __slots__ = ("arguments", "awaited", "execution", "kept", "message", "phase", "value")

    def __init__(self, execution: execute.Execution) -> None:
        self.execution = execution
        self.phase = 0
        self.arguments: Any = ()
        self.value: Any = None
        self.message: tuple[Any, ...] = ()
        self.awaited: list[bytes] = []
        self.kept: set[bytes] = set()  # of the references among the arguments, when the call ended


class _Executor(execute.Executor):
    """The production executor; the simulation looks at each answer before it leaves."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer.engine)
        self._peer = peer

    def _post(self, link: links.Link, message: tuple[Any, ...]) -> None:
        self._peer.check_answer(link, message)
        super()._post(link, message)


class Peer(Process):
    """A process that owns, borrows, calls and is called."""

    world: OwnershipWorld

    def __init__(self, node: Node, name: str, process_id: bytes) -> None:
        super().__init__(node, name, process_id)
        self.held: list[Any] = []  # references, views, and lists of both
        self.waits: list[Ref] = []  # references whose value somebody waits for here
        self.jobs: list[Job] = []
        self.template = actor_api.MethodTemplate(DESCRIPTION.methods["run"], options.method_options({}, {}))
        self.templates: dict[tuple[bytes, int], execute.Template] = {}
        self.executor = _Executor(self)
        self.lent: list[tuple[tuple[bytes, ...], Peer, int]] = []  # (ids in a result, for whom, of which call)
        self.engine.arrivals.add({messages.TEMPLATE: self._on_template, messages.CALL: self._on_call})

    def _on_template(self, link: links.Link, message: tuple[Any, ...]) -> None:
        self.templates[link.peer, message[1]] = execute.Template(message[2])

    def _on_call(self, link: links.Link, message: tuple[Any, ...]) -> None:
        self.jobs.append(Job(execute.Execution(link, message, self.templates[link.peer, message[2]])))

    @property
    def actor_id(self) -> bytes:
        return self.id + bytes(8)

    def borrows_at_owner(self, object_id: bytes) -> bool:
        """Whether the owner has entered a borrow of ours."""
        record = self.node.processes[object_id[:16]].engine.values.table.records.get(object_id)
        return record is not None and record.borrowers is not None and record.borrowers.get(self.id, 0) > 0

    def note_kept(self, job: Job) -> None:
        """The call has ended: which references among its arguments are still counted here."""
        let_go = list(self.engine.values._drops)
        dropped = Counter(one for one in let_go if type(one) is bytes)
        unpinned = Counter(pin.object_id for one in let_go if type(one) is not bytes for pin in one)
        for object_id in job.execution.argument_ids:
            record = self.engine.values.table.records.get(object_id)
            if record is not None and (record.local > dropped[object_id] or record.pins > unpinned[object_id]):
                job.kept.add(object_id)

    def _is_protected(self, object_id: bytes) -> bool:
        """Whether another call that is not answered, or a value that is being read, keeps it from being freed."""
        if any(
            object_id in job.execution.argument_ids and not self.node.processes[job.execution.link.peer].is_dead
            for job in self.jobs
        ):
            return True
        outers = [asked.outer for asked in self.engine.values.table._asked.get(object_id, ())]
        return any(outer is not None and not self.node.processes[outer.object_id[:16]].is_dead for outer in outers)

    def check_answer(self, link: links.Link, message: tuple[Any, ...]) -> None:
        """What an answer must not leave before."""
        world, receiver = self.world, self.node.processes[link.peer]
        job = next(job for job in self.jobs if job.execution.link is link and job.execution.seq == message[1])
        self.jobs.remove(job)
        if receiver.is_dead or _is_cut(link):
            return
        for object_id in sorted(job.kept - world.risky):
            record = self.engine.values.table.records.get(object_id)
            owner = self.node.processes[object_id[:16]]
            if record is None or owner is self or owner.is_dead or not (record.local or record.pins):
                continue
            world.must(
                self.borrows_at_owner(object_id)
                or (owner is receiver and _is_borrowing(link, object_id))
                or self._is_protected(object_id),
                "O8", "%s replies to %s, whose argument %s it keeps without a borrow", self.name, receiver.name,
                _Name(object_id),
            )  # fmt: skip
        for object_id in _lent_ids(message):
            owner = self.node.processes[object_id[:16]]
            if owner is not receiver and not owner.is_dead and object_id not in world.risky:
                world.must(
                    isinstance(receiver, Peer) and receiver.borrows_at_owner(object_id),
                    "O8", "%s returns %s to %s without a borrow", self.name, _Name(object_id), receiver.name,
                )  # fmt: skip

    def die(self) -> None:
        super().die()
        self.held.clear()
        self.waits.clear()
        self.jobs.clear()


class OwnershipWorld(World):
    """See the module."""

    steps_min, steps_max = 20, 60
    large_percent = 30  # of values, which go to the store

    def set_up(self) -> None:
        chance = self.chance
        self.make_node()
        count = chance.choose((2, 3, 3, 4))
        self.peers = [self.make_peer(number) for number in range(1, count + 1)]
        self.deaths_left = chance.choose((0, 0, 1, 2))
        self.haste_percent = chance.choose((0, 50, 90))  # of deliveries, after which somebody passes on what follows
        self.is_passing_on = False
        self.held_max = 1 + chance.below(HELD_MAX)
        # Each run has its own rhythm: a network that lags, processes that hardly keep anything, calls that take long.
        self.weights = [
            chance.choose((2, 6, 15, 30)),
            *(chance.choose((1, 0, 1, 2, 4, 8)) for _ in range(7)),
            int(self.deaths_left > 0),
        ]
        self.risky: set[bytes] = set()  # objects that somebody who died may have protected
        self.unconfirmed: list[tuple[bytes, bytes]] = []  # (object, borrower) entered by an executor that then died
        self.dead: set[bytes] = set()
        for peer in self.peers:
            for other in self.peers:
                if other is not peer:
                    peer.engine.actors._client(other.actor_id, DESCRIPTION)
                    self._announce(peer, other, "ALIVE")

    def make_node(self) -> None:
        self.node = Node(self)

    def make_peer(self, number: int) -> Peer:
        return Peer(self.node, f"p{number}", number.to_bytes(16, "big"))

    def _announce(self, peer: Peer, other: Peer, state: str) -> None:
        """The agent tells `peer` of the state of the actor in `other`."""
        message = {"t": "actor_state", "actor": other.actor_id.hex(), "state": state, "worker": other.id.hex()}
        peer.agent_end.send(frames.encode_control(message))

    def run_guarded(self) -> None:
        with surroundings(self):
            self.run()

    # Steps

    def act(self) -> None:
        action = self.chance.weighted(self.weights)
        if action == 0:
            if self.deliver_one():
                return
            action = 1 + self.chance.below(7)
        if action == 8:
            self._crash()
        else:
            (self._put, self._drop, self._read, self._call, self._work, self._work, self._housekeep)[action - 1]()

    def _anyone(self) -> Peer:
        return self.chance.choose([peer for peer in self.peers if not peer.is_dead])

    def _new_value(self, peer: Peer, sources: list[Any]) -> list[Any]:
        references = [thing for thing in sources if isinstance(thing, refs.ObjectRef)]
        foreign = [ref for ref in references if ref._id[:16] != peer.id]
        if foreign and self.chance.happens(50):
            references = foreign  # values that hold what others own are where it gets interesting
        value: list[Any] = []
        if references and self.chance.happens(80):
            value += [self.chance.choose(references) for _ in range(1 + self.chance.below(2))]
        if self.chance.happens(self.large_percent):
            value.append(pickle.PickleBuffer(bytes(LARGE_BYTES)))
        return value

    def _put(self) -> None:
        peer = self._anyone()
        ref = peer.engine.put(self._new_value(peer, peer.held))
        self.note("%s puts %s", peer.name, _Name(ref))
        self._keep(peer, ref)

    def _keep(self, peer: Peer, thing: Any) -> None:
        peer.held.append(thing)
        if len(peer.held) > self.held_max:
            del peer.held[0]

    def _drop(self) -> None:
        peer = self._anyone()
        if not peer.held:
            return
        index = self.chance.below(len(peer.held))
        thing = peer.held.pop(index)
        if isinstance(thing, list) and self.chance.happens(60):  # a value's contents outlive the value
            self.note("%s takes %s apart", peer.name, _Name(thing))
            for part in thing:
                self._keep(peer, part)
        else:
            self.note("%s drops %s", peer.name, _Name(thing))
        del thing

    def _read(self) -> None:
        """Get a value, if it is there; else wait for it."""
        eager = [peer for peer in self.peers if not peer.is_dead and self._arrived(peer)]
        peer = self.chance.choose(eager) if eager and self.chance.happens(60) else self._anyone()
        known = [thing for thing in peer.held if isinstance(thing, refs.ObjectRef)] + peer.waits
        if not known:
            return
        arrived = self._arrived(peer)
        foreign = [ref for ref in known if ref._id[:16] != peer.id]
        for preferred in ([ref for ref in arrived if ref in foreign], arrived, foreign):
            if preferred and self.chance.happens(60):
                known = preferred
                break
        self._read_one(peer, self.chance.choose(known))

    def _read_one(self, peer: Peer, ref: Ref) -> None:
        engine = peer.engine
        record = engine.values.table.records[ref._id]
        if record.kind == ownership.PENDING:
            self.note("%s waits for %s", peer.name, _Name(ref))
            with engine.lock:
                engine.values.on_settled(record, waits.ignore)
                engine.carry_on()
            if ref not in peer.waits:
                peer.waits.append(ref)
            return
        if ref in peer.waits:
            peer.waits.remove(ref)
        try:
            value = engine.get([ref], 0.0)[0]
        except exceptions.GetTimeoutError:  # its memory is gone, and the owner was asked to compute it again
            self.note("%s finds %s to be lost", peer.name, _Name(ref))
            is_allowed = ref._id[:16] in self.dead or ref._id in self.risky
            self.must(is_allowed, "O13", "%s of the living is lost to %s", _Name(ref), peer.name)
            peer.waits.append(ref)
            return
        except exceptions.UmbelError as error:
            self.note("%s reads %s: %s", peer.name, _Name(ref), type(error).__name__)
            self._check_error(ref._id, error)
            return
        self.note("%s reads %s: %s", peer.name, _Name(ref), _Name(value))
        if isinstance(value, list):
            self._keep(peer, value)
            if self.chance.happens(50):  # what was in it outlives it
                self._let_go(peer, ref)

    @staticmethod
    def _arrived(peer: Peer) -> list[Ref]:
        """What it has waited for, and what is there now."""
        records = peer.engine.values.table.records
        return [ref for ref in peer.waits if records[ref._id].kind != ownership.PENDING]

    def _call(self) -> None:
        peer = self._anyone()
        target = self.chance.choose([other for other in self.peers if other is not peer])
        arguments: list[Any] = [thing for thing in self.chance.some(peer.held, 2) if isinstance(thing, refs.ObjectRef)]
        value = self._new_value(peer, peer.held)
        if self.chance.happens(40):  # a reference to be read there, with others behind it
            others = [thing for thing in peer.held if not _is_owned(thing, target)]
            value.append(peer.engine.put(self._new_value(peer, others)))
        arguments.append(value)
        handle = actor_api.ActorHandle(target.actor_id, DESCRIPTION, None)
        ref = peer.engine.submit_actor_task(handle, peer.template, tuple(arguments), {})
        self.note("%s calls %s with %s: %s", peer.name, target.name, _Name(arguments), _Name(ref))
        if self.chance.happens(50):
            self._let_go(peer, arguments)
        self._keep(peer, ref)

    def _let_go(self, peer: Peer, passed_on: Any) -> None:
        """It keeps nothing of what it has passed on."""
        given = {ref._id for ref in _flat([passed_on]) if isinstance(ref, refs.ObjectRef)}
        peer.held = [thing for thing in peer.held if not (isinstance(thing, refs.ObjectRef) and thing._id in given)]

    def _housekeep(self) -> None:
        peer = self._anyone()
        self.note("%s does its housekeeping", peer.name)
        peer.engine._housekeeping()

    def _crash(self) -> None:
        living = [peer for peer in self.peers if not peer.is_dead]
        if not self.deaths_left or len(living) < 2:
            return
        self.deaths_left -= 1
        victim = self.chance.choose(living)
        self.note("%s DIES", victim.name)
        self._note_risks(victim)
        victim.die()
        self.dead.add(victim.id)
        for peer in self.peers:
            if not peer.is_dead:
                self._announce(peer, victim, "DEAD")
        for name in list(self.node.memory.segments):  # the agent removes what the dead left to the dead
            creator, owner, _ = name.split(".")
            if bytes.fromhex(creator) in self.dead and bytes.fromhex(owner) in self.dead:
                del self.node.memory.segments[name]

    def _note_risks(self, victim: Peer) -> None:
        """What the victim held, and what that holds, may be gone for those who relied on the victim."""
        self.note_risky(victim.engine.values.table.records)
        for ids, borrower, seq in victim.lent:
            if seq in borrower.engine.tasks.unfinished:
                self.unconfirmed += [(object_id, borrower.id) for object_id in ids]

    def note_risky(self, object_ids: Iterable[bytes]) -> None:
        """These, and what they hold, may be gone for those who rely on them."""
        waiting = list(object_ids)
        while waiting:
            object_id = waiting.pop()
            if object_id in self.risky:
                continue
            self.risky.add(object_id)
            owner = self.node.processes[object_id[:16]]
            record = owner.engine.values.table.records.get(object_id)
            if record is not None:
                waiting += record.contained

    # Calls under way

    def _work(self) -> None:
        """One phase of one call: read the arguments, return, lend what the result holds, reply."""
        peer = self._anyone()
        if peer.jobs:
            self._work_on(peer, self.chance.choose(peer.jobs[:JOBS_MAX]))

    def _work_on(self, peer: Peer, job: Job) -> None:
        execution, executor = job.execution, peer.executor
        caller, seq = _Name(execution.link.peer), execution.seq
        job.phase += 1
        if job.phase == 1:
            try:
                job.arguments, _ = executor.arguments(execution)
            except (execute.ArgumentFailed, exceptions.ObjectLostError) as failed:  # here, nobody can wait for it
                error = exceptions.load_error(failed.blob) if isinstance(failed, execute.ArgumentFailed) else failed
                self._check_error(execution.argument_ids[-1], error)
                self._fail(peer, job, error)
                return
            self.note("%s reads the arguments of call %s/%d: %s", peer.name, caller, seq, _Name(job.arguments))
            found = [thing for part in job.arguments for thing in (part if isinstance(part, list) else [part])]
            for thing in found[:1] if self.is_passing_on else self.chance.some(found, 3):
                self.note("%s keeps %s", peer.name, _Name(thing))
                self._keep(peer, thing)
            if self.chance.happens(5):
                self._fail(peer, job, _Refused())
        elif job.phase == 2:
            sources = [*peer.held, *(part for part in job.arguments if isinstance(part, refs.ObjectRef))]
            job.value = self._new_value(peer, sources) if self.chance.happens(70) else 1
            job.arguments = ()
            if self.chance.happens(50):
                self._let_go(peer, job.value)
            self.note("%s returns %s from call %s/%d", peer.name, _Name(job.value), caller, seq)
            job.message, contained = executor._result(execution, job.value)
            job.awaited = executor.lend(execution, contained)
            if contained:
                peer.lent.append((contained, self._peer(execution.link.peer), execution.seq))
        elif job.phase == 3:
            job.value = None
            self.note("%s is about to reply to call %s/%d", peer.name, caller, seq)
            peer.note_kept(job)
            executor.reply(execution, job.message, job.awaited, 0.0)
            if self.chance.happens(50):
                peer.engine._housekeeping()
        else:
            job.phase = 3  # the answer waits for acknowledgements

    def _fail(self, peer: Peer, job: Job, error: BaseException) -> None:
        job.arguments = ()
        job.phase = 3
        peer.note_kept(job)
        self.note("%s fails: %s", peer.name, type(error).__name__)
        peer.executor.fail(job.execution, error, 0.0)

    def _peer(self, process_id: bytes) -> Peer:
        return next(peer for peer in self.peers if peer.id == process_id)

    # What must hold

    def check(self) -> None:
        """O7, and what each process knows of itself."""
        processes = self.node.processes
        for peer in self.peers:
            if peer.is_dead:
                continue
            peer.engine.values.table.check()
            for object_id, record in peer.engine.values.table.records.items():
                if not (record.local or record.pins) or object_id in self.risky:
                    continue
                owner = processes[object_id[:16]]
                if owner.is_dead:
                    continue
                if owner is peer:
                    is_there = record.kind != ownership.PENDING or record.task is not None
                else:
                    is_there = object_id in owner.engine.values.table.records
                self.must(
                    is_there, "O7", "%s refers to %s, which its owner has freed: %s",
                    peer.name, _Name(object_id), record,
                )  # fmt: skip

    def _check_error(self, object_id: bytes, error: BaseException) -> None:
        """O13: what a reader was told."""
        if isinstance(error, _Refused) or self.is_allowed(error):
            return
        named = [bytes.fromhex(found) for found in re.findall("object ([0-9a-f]{56})", str(error))] or [object_id]
        if isinstance(error, exceptions.OwnerDiedError):
            is_right = all(one[:16] in self.dead for one in named)
        elif isinstance(error, (exceptions.ObjectFreedError, exceptions.ObjectLostError)):
            # A call that could not read an argument names its memory, and so the argument's owner.
            owners = re.findall(r"segment [0-9a-f]{32}\.([0-9a-f]{32})", str(error))
            is_right = all(one in self.risky or one[:16] in self.dead for one in named) or (
                bool(owners) and all(bytes.fromhex(owner) in self.dead for owner in owners)
            )
        else:
            is_right = isinstance(error, exceptions.ActorDiedError) and bool(self.dead)
        self.must(is_right, "O13", "reading %s gave %r", _Name(object_id), error)

    def is_allowed(self, _error: BaseException) -> bool:
        """Whether something other than a death explains it."""
        return False

    # Coming to rest

    def settle(self) -> None:
        for _ in range(QUIET_ROUNDS_MAX):
            if self.deliver_one():
                if self.chance.happens(self.haste_percent):
                    self._anyone().engine._housekeeping()
                self.check()
                continue
            if self._work_on_something():
                continue
            collect_cycles()
            for peer in self.peers:
                if not peer.is_dead:
                    peer.engine._housekeeping()
            if not any(stream.inbox for stream in self.streams):
                return
        self.must(False, "R2", "messages go round and round")

    def _work_on_something(self) -> bool:
        for peer in self.peers:
            for job in peer.jobs:
                if job.phase < 3:
                    self._work_on(peer, job)
                    return True
        return False

    def _pass_chain(self) -> None:
        """What one owns reaches a third process inside a value of a second, and both forget it while it is read."""
        living = [peer for peer in self.peers if not peer.is_dead]
        start = self.chance.below(len(living))
        if len(living) < 3:
            return
        first, second, third = (living[start:] + living[:start])[:3]
        self.note("---- %s, %s and %s pass something on", first.name, second.name, third.name)
        inner = self._pass_on(first, second, first.engine.put([]))
        if inner is not None:
            outer = self._pass_on(second, third, second.engine.put([inner]))
            self._let_go(second, inner)
            del inner
            if outer is not None:
                self._read_one(third, outer)
                self.settle()
                self._read_one(third, outer)
                self._let_go(third, outer)
                del outer
                third.engine._housekeeping()
        self.settle()

    def _pass_on(self, giver: Peer, receiver: Peer, ref: Ref) -> Ref | None:
        """The receiver's reference, if it kept one; the giver keeps none."""
        handle = actor_api.ActorHandle(receiver.actor_id, DESCRIPTION, None)
        giver.engine.submit_actor_task(handle, giver.template, ([ref],), {})
        object_id = ref._id
        del ref
        self.is_passing_on = True  # the receiver keeps what it gets
        self.settle()
        self.is_passing_on = False
        return next(
            (thing for thing in receiver.held if isinstance(thing, refs.ObjectRef) and thing._id == object_id), None
        )

    def check_rest(self) -> None:
        self._check_rest_of_waits()
        self._pass_chain()
        self._check_rest_of_waits()
        self._check_rest_of_counts()
        self.note("---- everybody drops everything")
        for peer in self.peers:
            peer.held.clear()
            peer.waits.clear()
        self.settle()
        self._check_rest_of_counts()

    def _check_rest_of_waits(self) -> None:
        """O12: nobody waits for ever."""
        for peer in self.peers:
            if peer.is_dead:
                continue
            self.must(not peer.engine.tasks.unfinished, "O12", "%s has calls that never ended", peer.name)
            for ref in peer.waits:
                record = peer.engine.values.table.records[ref._id]
                self.must(record.kind != ownership.PENDING, "O12", "%s waits for %s for ever", peer.name, _Name(ref))

    def _check_rest_of_counts(self) -> None:
        """O1, O2, and O9 to O12: what is counted is what there is."""
        living = [peer for peer in self.peers if not peer.is_dead]
        for peer in living:
            values = peer.engine.values
            table = values.table
            self.must(
                not (table._asked or values._unacknowledged or values._awaited),
                "O12", "%s waits for acknowledgements: %s", peer.name, table._asked,
            )  # fmt: skip
            references = _count_references(peer)
            for (viewer, segment), count in self.node.memory.views.items():
                if viewer == peer.id.hex():
                    references[self.node.memory.object_of[segment]] += count
            pins = Counter(inner for record in table.records.values() for inner in record.contained)
            for object_id, record in table.records.items():
                self._check_record(peer, record, references[object_id], pins[object_id])
        kept = {
            record.payload[0]
            for peer in living
            for record in peer.engine.values.table.records.values()
            if record.kind == serialization.STORED
        }
        for name in self.node.memory.segments:
            self.must(name in kept, "O9", "the memory of segment %s is not given back", name)

    def _check_record(self, peer: Peer, record: ownership.Record, references: int, pins: int) -> None:
        object_id = record.object_id
        self.must(
            record.local == references and record.pins == pins,
            "O1", "%s counts %s, but it has %d references and needs it %d times", peer.name, record, references, pins,
        )  # fmt: skip
        if object_id[:16] != peer.id:
            self.must(record.local or record.pins, "O2", "%s knows %s for no reason", peer.name, record)
            return
        borrowers = dict(record.borrowers or {})
        for other in self.peers:
            theirs = other.engine.values.table.records.get(object_id)
            if other.is_dead or other is peer:
                continue
            entered = borrowers.pop(other.id, 0) - self.unconfirmed.count((object_id, other.id))
            grants = theirs.grants if theirs is not None else 0
            self.must(
                entered <= grants,
                "O11", "%s keeps %s for %s, which knows of %d borrows", peer.name, record, other.name, grants,
            )  # fmt: skip
        self.must(not borrowers, "O10", "%s keeps %s for the dead", peer.name, record)
        self.must(record.local or record.pins or record.borrowers, "O2", "%s keeps %s for nobody", peer.name, record)


def _is_owned(thing: Any, peer: Peer) -> bool:
    return isinstance(thing, refs.ObjectRef) and thing._id[:16] == peer.id


def _is_cut(link: links.Link) -> bool:
    """Whether nothing that is posted now arrives."""
    stream: Any = link.stream
    if stream is None or stream.is_closed:
        return True
    return not isinstance(stream, remote_links.Waiting) and END in stream.other.inbox


def _is_borrowing(link: links.Link, object_id: bytes) -> bool:
    """Whether a BORROW of the object is ahead of whatever is posted now."""
    stream: Any = link.stream
    under_way = stream.frames if isinstance(stream, remote_links.Waiting) else stream.other.inbox
    batches = [link.outbox, *(data_frames.decode(frame[4:]) for frame in under_way if frame is not None)]
    return any(m[0] == messages.BORROW and m[1] == object_id for batch in batches for m in batch)


def _lent_ids(message: tuple[Any, ...]) -> tuple[bytes, ...]:
    """The references inside the result that an answer carries."""
    return (message[4] or ()) if message and message[0] == messages.REPLY else ()


def _count_references(peer: Peer) -> Counter[bytes]:
    """Live references of a process by object: everything is in its hands, for at rest nothing runs."""
    seen: dict[int, bytes] = {}
    for thing in _flat([*peer.held, *peer.waits]):
        if isinstance(thing, refs.ObjectRef):
            seen[id(thing)] = thing._id
    return Counter(seen.values())


def _flat(things: Iterable[Any]) -> Iterator[Any]:
    for thing in things:
        if isinstance(thing, (list, tuple)):
            yield from _flat(thing)
        else:
            yield thing


class _Name:
    """A thing, for the trace and for messages: it is put into words only where these are wanted."""

    __slots__ = ("_thing",)

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __str__(self) -> str:
        return _in_words(self._thing)


def _in_words(thing: Any) -> str:
    if isinstance(thing, refs.ObjectRef):
        return _short(thing._id)
    if isinstance(thing, (list, tuple)):
        return "[" + ", ".join(map(_in_words, thing)) + "]"
    if isinstance(thing, (memoryview, pickle.PickleBuffer)):
        return "memory"
    return _short(thing)
