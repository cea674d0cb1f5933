"""Which values of other nodes this one fetches, from whom and in which order, and which copies it keeps.

A *pull* fetches one value for all who want it here, in chunks and from several sources at once. It begins when the store has
granted room for all of it, so nothing that has begun waits for room; who waits is served by priority and then by age, and
nobody overtakes. When room is short a pull of lower priority that has begun is given up for one of higher priority.

Whether bytes are right: the memory of a value may be used again for another, once it was freed, while it is being sent. So
each source says of which *generation* its bytes are, and the node that the generation is of, its *authority*, is asked when
all has come whether it still holds. A source that has been through that itself is *sure*, and what comes from it is right.

Whoever wants a value counts on it, as its owner knows, until he says that he wants and looks at it no more. The file of a
dead copy is kept warm for a while, for the next of about its size: fresh pages are the enemy here too (`pull_copies`). This
module only decides: `mover` talks, and `offers` is the other side.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping

from umbel._agent import pull_copies
from umbel._agent.pull_commands import (
    Abandon,
    Ask,
    Cancel,
    Close,
    Code,
    Confirm,
    Connect,
    Create,
    Deliver,
    Fail,
    Inquire,
    Priority,
    PullCommand,
    Release,
    Reserve,
    Withdraw,
)
from umbel._agent.pull_records import Had, Pull, Source, State
from umbel._base import checks
from umbel._model import reasons
from umbel._objects import segments

CHUNK_BYTES = 8 << 20  # half as many make a transfer a fifth slower, twice as many no quicker
WINDOW = 2  # chunks asked of one source at once, so that it need not wait for us
SOURCES_MAX = 16  # of one pull; each is a connection
TRIES_MAX = 4  # to connect to a source, in a row
RETRY_S = 0.2  # until the first of them; each later one waits twice as long
FULL_TRIES = 10  # to write a copy into room that was granted; in between the store makes room
PREEMPT_S = 0.1  # for the store to find room without giving anything up; it asks others to trim within that time
LATE_FACTOR = 3.0  # so many times what another source takes for a chunk, a chunk is waited for before that one is asked
LATE_S = 0.3  # but never shorter, nor, if it is the authority, whose bytes are dear, than:
LATE_AUTHORITY_S = 1.0
LOOK_S = 0.2  # how often that is looked at
INQUIRE_S = 5.0  # for the daemon of a value's owner to say who else has it: it may have to be dialled
LOOKED_AT_MAX = 1_000  # missing chunks, to find one for a source; those that others are to give get their turn


class PullTable:
    """The machine; one method for each event. Times are seconds of one monotonic clock."""

    def __init__(
        self, node: str, capacity_bytes: int, *, is_lent: Callable[[str], bool], chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        """is_lent: whether a copy may be being sent to another node just now."""
        self.node = node
        self._kept = pull_copies.Copies(is_lent)
        self.chunk_bytes = chunk_bytes
        self.pulls: dict[str, Pull] = {}
        self.copies = self._kept.held
        self.granted_bytes = 0  # by the store
        self._capacity_bytes = capacity_bytes
        self._spare_bytes = 0  # granted, and not of a pull or a copy
        self._reserving_bytes = 0
        self._reserving_since_s = 0.0
        self._is_given_up_for = False  # whether others were given up since then
        self._looked_at_s = 0.0
        self._count = 0

    # ---- who wants what ----

    def wanted(
        self,
        object_id: str,
        size_bytes: int,
        *,
        sources: Mapping[str, str],
        asker: str,
        priority: Priority,
        at_s: float,
    ) -> list[PullCommand]:
        """sources: node -> the segment that the value lies in there, or "" where that node has a copy of its own."""
        known = self.copies.get(object_id) or self.pulls.get(object_id)
        if known is not None and known.size_bytes != size_bytes:
            text = f"it has {known.size_bytes} bytes, and {size_bytes} are wanted"
            return [Fail(object_id, (asker,), Code.LOST, text)]
        if isinstance(known, pull_copies.Copy):
            if known.is_dead:
                return [Fail(object_id, (asker,), Code.FREED, "its owner has freed it")]
            return self._kept.use(object_id, asker)
        if segments.page_bytes(size_bytes) > self._capacity_bytes:
            text = f"it has {size_bytes} bytes, and the node's store {self._capacity_bytes}"
            return [Fail(object_id, (asker,), Code.TOO_LARGE, text)]
        pull = known
        if pull is None:
            self._count += 1
            count = max(1, -(-size_bytes // self.chunk_bytes))
            pull = self.pulls[object_id] = Pull(object_id, size_bytes, count, self._count)
        pull.askers[asker] = min(priority, pull.askers.get(asker, priority))
        commands: list[PullCommand] = []
        for node, segment in sources.items():
            commands += self._add_place(pull, node, segment)
        return commands + self._admit(at_s) + self._check_sources(pull, at_s)

    def source_added(self, object_id: str, node: str, segment: str, *, at_s: float) -> list[PullCommand]:
        """Somebody else has it now too."""
        pull = self.pulls.get(object_id)
        return [] if pull is None else self._add_place(pull, node, segment) + self._go_on(pull, at_s)

    def unwanted(self, object_id: str, asker: str, *, at_s: float) -> list[PullCommand]:
        """He wants it no more, and no longer looks at it."""
        if object_id in self.copies:
            return self._freed_room(self._kept.unused(object_id, asker, at_s), at_s)
        pull = self.pulls.get(object_id)
        if pull is not None and pull.askers.pop(asker, None) is not None and not pull.askers:
            return [*self._end(pull, has_all=False), *self._admit(at_s)]
        return []

    def asker_gone(self, asker: str, *, at_s: float) -> list[PullCommand]:
        commands: list[PullCommand] = []
        for object_id in [*self.pulls, *self.copies]:
            commands += self.unwanted(object_id, asker, at_s=at_s)
        return commands

    def freed(self, object_id: str, *, at_s: float) -> list[PullCommand]:
        """The owner says that nobody needs it. Whoever looks at a copy may go on."""
        pull = self.pulls.get(object_id)
        if pull is not None:
            return [*self._fail(pull, Code.FREED, "its owner has freed it"), *self._admit(at_s)]
        return self._freed_room(self._kept.freed(object_id, at_s), at_s) if object_id in self.copies else []

    # ---- room ----

    def room_granted(self, size_bytes: int, *, at_s: float) -> list[PullCommand]:
        self.granted_bytes += size_bytes
        self._spare_bytes += size_bytes
        self._reserving_bytes = 0
        return self._admit(at_s)

    def room_refused(self, text: str, *, at_s: float) -> list[PullCommand]:
        """Nothing came free in time."""
        self._reserving_bytes = 0
        head = self._head()
        if head is None:
            return self._admit(at_s)
        commands = self._give_up_for(head)
        if not commands:
            commands += self._fail(head, Code.FULL, text)
        return commands + self._admit(at_s)

    def room_wanted(self, *, at_s: float) -> list[PullCommand]:
        """The store is full: what is only kept goes."""
        return self._freed_room(self._kept.give_back(), at_s)

    def _freed_room(self, freed: pull_copies.Freed, at_s: float) -> list[PullCommand]:
        """Those who wait have what has come free."""
        commands, freed_bytes = freed
        self._spare_bytes += freed_bytes
        return [*commands, *self._admit(at_s)]

    @property
    def idle_bytes(self) -> int:
        """What `room_wanted` gives back."""
        return self._kept.idle_bytes

    def no_room(self, object_id: str, text: str, *, at_s: float) -> list[PullCommand]:
        """What the store has granted was not to be had of the system: it is asked again, and may make room."""
        pull = self.pulls.get(object_id)
        if pull is None:
            return []
        pull.full_count += 1
        if pull.full_count >= FULL_TRIES:
            return [*self._fail(pull, Code.FULL, text), *self._admit(at_s)]
        return [*self._stop(pull, has_all=False), *self._release_spare(), *self._admit(at_s)]

    def _head(self) -> Pull | None:
        """Whose turn it is."""
        return min((pull for pull in self.pulls.values() if not pull.is_admitted), key=_order, default=None)

    def _admit(self, at_s: float) -> list[PullCommand]:
        commands: list[PullCommand] = []
        while (head := self._head()) is not None:
            warm = self._kept.fitting(head.size_bytes, head.room_bytes)
            if warm is not None:
                head.room_bytes = self._kept.warm.pop(warm).room_bytes
                self._spare_bytes += head.room_bytes
            missing_bytes = head.room_bytes - self._spare_bytes
            if missing_bytes > 0:
                if not self._reserving_bytes:
                    self._reserving_bytes, self._reserving_since_s = missing_bytes, at_s
                    self._is_given_up_for = False
                    commands.append(Reserve(missing_bytes))
                return commands
            self._spare_bytes -= head.room_bytes
            head.is_admitted = True
            commands.append(Create(head.object_id, head.size_bytes, warm))
            for node, segment in head.places.items():
                commands += self._add_source(head, node, segment)
        return commands + self._release_spare()

    def _release_spare(self) -> list[PullCommand]:
        released_bytes, self._spare_bytes = self._spare_bytes, 0
        self.granted_bytes -= released_bytes
        return [Release(released_bytes)] if released_bytes else []

    def _give_up_for(self, head: Pull) -> list[PullCommand]:
        """What is less urgent gives its room, the last first, as far as that is needed."""
        commands: list[PullCommand] = []
        less_urgent = [one for one in self.pulls.values() if one.is_admitted and one.priority > head.priority]
        for pull in sorted(less_urgent, key=_order, reverse=True):
            if self._spare_bytes >= head.room_bytes:
                break
            commands += self._stop(pull, has_all=False)
        return commands

    # ---- sources ----

    def _add_place(self, pull: Pull, node: str, segment: str) -> list[PullCommand]:
        """Somebody here knows that this node has it. That is remembered however often the pull begins anew."""
        if node == self.node:
            return []
        pull.places.setdefault(node, segment)
        return self._add_source(pull, node, segment) if pull.is_admitted else []

    def _add_source(self, pull: Pull, node: str, segment: str, chunks: set[int] | None = None) -> list[PullCommand]:
        if node == self.node:
            return []
        known = pull.sources.get(node)
        if known is not None or node in pull.failed:
            if known is not None and known.chunks is not None:
                known.chunks = None if chunks is None else known.chunks | chunks
            return []
        if len(pull.sources) >= SOURCES_MAX:
            pull.failed[node] = None
            return []
        pull.sources[node] = Source(node, segment, chunks)
        return [Connect(pull.object_id, node, segment, pull.size_bytes)]

    def opened(
        self,
        object_id: str,
        node: str,
        *,
        generation: str,
        is_sure: bool,
        chunks: Collection[int] | None,
        start: int,
        at_s: float,
    ) -> list[PullCommand]:
        """The source has it. start: with which chunk to begin, so that those who pull at once have different ones to share."""
        pull, source = self._of(object_id, node)
        if pull is None or source is None or source.state is not State.CONNECTING:
            return []
        commands: list[PullCommand] = []
        if not is_sure and pull.generation not in ("", generation):
            if pull.authority != node:  # of another time than what we have: it can be of no use
                return [*self._lose(pull, source, at_s), Close(object_id, node, has_all=False)]
            commands += self._void(pull)
        if not is_sure:
            if not pull.generation:
                commands.append(Withdraw(object_id))  # what is here was sure so far, and may have been given as such
            pull.generation = generation
        if not pull.arrived and not pull.asked:
            pull.missing = dict.fromkeys([*range(start, pull.chunk_count), *range(min(start, pull.chunk_count))])
        source.state = State.OPEN
        source.generation, source.is_sure = generation, is_sure
        source.chunks = None if chunks is None else {*chunks, *(source.chunks or ())}
        return commands + self._go_on(pull, at_s)

    def told_holders(
        self, object_id: str, holders: Mapping[str, Collection[int] | None], *, at_s: float
    ) -> list[PullCommand]:
        """Others have begun to have it too."""
        pull = self.pulls.get(object_id)
        if pull is None or not pull.is_admitted:
            return []
        commands: list[PullCommand] = []
        for node, chunks in holders.items():
            commands += self._add_source(pull, node, "", None if chunks is None else set(chunks))
        return commands + self._go_on(pull, at_s)

    def owner_told(self, object_id: str, nodes: Iterable[str], *, at_s: float) -> list[PullCommand]:
        """These have copies of it, or had not long ago, as its owner's node knows."""
        pull = self.pulls.get(object_id)
        if pull is None or pull.inquires_until_s is None:
            return []
        pull.inquires_until_s = None
        commands: list[PullCommand] = []
        for node in nodes:
            if node not in pull.failed:
                commands += self._add_place(pull, node, "")
        return commands + (self._go_on(pull, at_s) if pull.is_admitted else self._check_sources(pull, at_s))

    def elsewhere(
        self, object_id: str, node: str, chunk: int, holders: Mapping[str, Collection[int] | None], *, at_s: float
    ) -> list[PullCommand]:
        """The source wants others to be asked for this chunk."""
        pull, source = self._of(object_id, node)
        if pull is None or source is None:
            return []
        source.declined.add(chunk)
        self._take_back(pull, source, chunk)
        return self.told_holders(object_id, holders, at_s=at_s)

    def gone(self, object_id: str, node: str, *, why: str = "", at_s: float) -> list[PullCommand]:
        """The source says that it has it no more, or not that. why: or that it cannot give what it has."""
        pull, source = self._of(object_id, node)
        if pull is None or source is None:
            return []
        if why:
            pull.troubles[Code.ELSEWHERE] = why
        return self._lose(pull, source, at_s)

    def source_lost(self, node: str, *, is_dead: bool = False, at_s: float) -> list[PullCommand]:
        """The connection to a node is lost, or was not to be had. is_dead: it is known that the node will not come back."""
        commands: list[PullCommand] = []
        for pull in [*self.pulls.values()]:
            if is_dead:
                pull.places.pop(node, None)
            source = pull.sources.get(node)
            if source is None:
                if is_dead:
                    commands += self._check_sources(pull, at_s)
            elif is_dead or (source.state is not State.LOST and source.tries + 1 >= TRIES_MAX):
                if not is_dead:
                    pull.troubles[Code.UNREACHABLE] = f"node {node} could not be connected to"
                commands += self._lose(pull, source, at_s)
            elif source.state is not State.LOST:
                for chunk in [*source.asked]:
                    self._take_back(pull, source, chunk)
                if pull.confirming == node:
                    pull.confirming = ""
                source.state = State.LOST
                source.retry_at_s = at_s + RETRY_S * (1 << source.tries)
                source.tries += 1
                commands += self._go_on(pull, at_s)
        return commands

    def _lose(self, pull: Pull, source: Source, at_s: float) -> list[PullCommand]:
        """This source does not come back."""
        commands = self._forget(pull, source)
        if source.node == pull.authority:
            commands += self._void(pull)
        return commands + self._go_on(pull, at_s)

    def _forget(self, pull: Pull, source: Source) -> list[PullCommand]:
        commands: list[PullCommand] = [Cancel(pull.object_id, source.node, chunk) for chunk in source.asked]
        for chunk in [*source.asked]:
            self._take_back(pull, source, chunk)
        del pull.sources[source.node]
        pull.failed[source.node] = None
        if pull.confirming == source.node:
            pull.confirming = ""
        return commands

    def _void(self, pull: Pull) -> list[PullCommand]:
        """Nobody can say any more that what is not sure is right."""
        commands: list[PullCommand] = [Withdraw(pull.object_id)]
        for source in [*pull.sources.values()]:
            if source.is_open and not source.is_sure:
                commands += [*self._forget(pull, source), Close(pull.object_id, source.node, has_all=False)]
        for chunk in [chunk for chunk, is_sure in pull.arrived.items() if not is_sure]:
            del pull.arrived[chunk]
            pull.missing[chunk] = None
        pull.generation = pull.confirming = ""
        return commands

    def _take_back(self, pull: Pull, source: Source, chunk: int) -> None:
        if source.asked.pop(chunk, None) is not None:
            del pull.asked[chunk]
            pull.missing[chunk] = None

    # ---- chunks ----

    def takes(self, object_id: str, node: str, chunk: int) -> bool:
        """Whether this chunk is wanted from there; else what comes is thrown away."""
        pull = self.pulls.get(object_id)
        return pull is not None and pull.asked.get(chunk) == node

    def chunk_arrived(self, object_id: str, node: str, chunk: int, *, at_s: float) -> list[PullCommand]:
        pull, source = self._of(object_id, node)
        if pull is None or source is None or pull.asked.get(chunk) != node:
            return []
        del pull.asked[chunk]
        source.chunk_s = at_s - source.asked.pop(chunk)
        source.is_slow = False
        source.tries = 0
        pull.arrived[chunk] = source.is_sure
        return self._go_on(pull, at_s)

    def confirmed(self, object_id: str, node: str, *, is_right: bool, at_s: float) -> list[PullCommand]:
        """Whether the generation still held when all had come."""
        pull, source = self._of(object_id, node)
        if pull is None or source is None or pull.confirming != node:
            return []
        if not is_right:
            return [Close(object_id, node, has_all=False), *self._lose(pull, source, at_s)]
        pull.confirming = ""
        return self._deliver(pull, at_s)

    def _go_on(self, pull: Pull, at_s: float) -> list[PullCommand]:
        """Whatever can be asked for is asked for."""
        if not pull.is_admitted:
            return []
        if len(pull.arrived) == pull.chunk_count:
            if all(pull.arrived.values()):
                return self._deliver(pull, at_s)
            authority = pull.sources.get(pull.authority)
            if authority is None:  # it was never told of by who wants the value, and only it knows
                is_new = pull.authority not in pull.failed
                connecting = self._add_source(pull, pull.authority, "") if is_new else []
                return connecting or [*self._void(pull), *self._go_on(pull, at_s)]
            if authority.is_open and not pull.confirming:
                pull.confirming = authority.node
                return [Confirm(pull.object_id, authority.node)]
            return []
        commands: list[PullCommand] = []
        for source in pull.sources.values():
            while source.is_open and len(source.asked) < WINDOW:
                chunk = self._next(pull, source)
                if chunk is None:
                    break
                commands.append(self._ask(pull, source, chunk, at_s))
        return commands + self._check_sources(pull, at_s)

    def _next(self, pull: Pull, source: Source) -> int | None:
        others = [one for one in pull.sources.values() if one.is_of_use and one is not source]
        is_authority = source.node == pull.authority
        for chunk in itertools.islice(pull.missing, LOOKED_AT_MAX):
            if not source.has(chunk):
                continue
            is_last = is_authority or source.is_slow or chunk in source.declined
            if is_last and any(one.has(chunk) and chunk not in one.declined for one in others):
                continue  # what others have is theirs to give
            return chunk
        return None

    def _ask(self, pull: Pull, source: Source, chunk: int, at_s: float) -> Ask:
        del pull.missing[chunk]
        pull.asked[chunk] = source.node
        source.asked[chunk] = at_s
        others = [one for one in pull.sources.values() if one is not source]
        no_use = [one.node for one in others if not one.is_of_use or chunk in one.declined]
        return Ask(pull.object_id, source.node, chunk, pull.priority, (*pull.failed, *no_use))

    def _check_sources(self, pull: Pull, at_s: float) -> list[PullCommand]:
        """Whether there is anything left to hope for."""
        if not pull.is_admitted:
            if pull.places or not pull.askers:
                return []
        elif pull.asked or pull.confirming or any(not one.is_open for one in pull.sources.values()):
            return []
        if not pull.was_inquired:
            pull.was_inquired, pull.inquires_until_s = True, at_s + INQUIRE_S
            return [Inquire(pull.object_id)]
        if pull.inquires_until_s is not None:
            return []
        text = f"none of the nodes that had it does: {len(pull.failed)} were asked"
        text = text if pull.failed else "the node that it was on has died, and its owner knows of no copy"
        code = next((one for one in (Code.UNREACHABLE, Code.ELSEWHERE) if one in pull.troubles), Code.LOST)
        return [*self._fail(pull, code, pull.troubles.get(code, text)), *self._admit(at_s)]

    def _of(self, object_id: str, node: str) -> tuple[Pull | None, Source | None]:
        pull = self.pulls.get(object_id)
        return pull, None if pull is None else pull.sources.get(node)

    # ---- ends ----

    def _deliver(self, pull: Pull, at_s: float) -> list[PullCommand]:
        self.copies[pull.object_id] = pull_copies.Copy(pull.size_bytes, pull.room_bytes, pull.askers)
        closing: list[PullCommand] = [Close(pull.object_id, node, has_all=True) for node in pull.sources]
        del self.pulls[pull.object_id]
        return [Deliver(pull.object_id, (*pull.askers,)), *closing]

    def _fail(self, pull: Pull, code: Code, text: str) -> list[PullCommand]:
        askers = (*pull.askers,)
        return [*self._end(pull, has_all=False), Fail(pull.object_id, askers, code, text)]

    def _end(self, pull: Pull, *, has_all: bool) -> list[PullCommand]:
        commands = self._stop(pull, has_all=has_all) if pull.is_admitted else []
        del self.pulls[pull.object_id]
        return commands

    def _stop(self, pull: Pull, *, has_all: bool) -> list[PullCommand]:
        """What has come is thrown away, and its room is free."""
        commands: list[PullCommand] = [Withdraw(pull.object_id)]
        for source in pull.sources.values():
            commands += [Cancel(pull.object_id, source.node, chunk) for chunk in source.asked]
            commands.append(Close(pull.object_id, source.node, has_all))
            pull.places.setdefault(source.node, source.segment)  # for when it begins anew
        commands.append(Abandon(pull.object_id))
        self._spare_bytes += pull.room_bytes
        pull.reset()
        return commands

    # ---- time ----

    def next_tick_s(self) -> float | None:
        kept_s = self._kept.next_tick_s()
        due = [] if kept_s is None else [kept_s]
        if self._reserving_bytes and not self._is_given_up_for:
            due.append(self._reserving_since_s + PREEMPT_S)
        for pull in self.pulls.values():
            if pull.inquires_until_s is not None:
                due.append(pull.inquires_until_s)
            if pull.is_admitted:
                due += [one.retry_at_s for one in pull.sources.values() if one.state is State.LOST]
                if len(pull.sources) > 1 and pull.asked:
                    due.append(self._looked_at_s + LOOK_S)
        return min(due, default=None)

    def tick(self, *, at_s: float) -> list[PullCommand]:
        commands: list[PullCommand] = []
        if self._reserving_bytes and not self._is_given_up_for and at_s >= self._reserving_since_s + PREEMPT_S:
            self._is_given_up_for = True
            head = self._head()
            if head is not None:
                commands += [*self._give_up_for(head), *self._admit(at_s)]
        commands += self._freed_room(self._kept.expire(at_s), at_s)
        is_looking = at_s >= self._looked_at_s + LOOK_S
        if is_looking:
            self._looked_at_s = at_s
        for pull in [*self.pulls.values()]:
            if pull.inquires_until_s is not None and at_s >= pull.inquires_until_s:
                commands += self.owner_told(pull.object_id, (), at_s=at_s)
            for source in [*pull.sources.values()]:
                if source.state is State.LOST and at_s >= source.retry_at_s:
                    source.state = State.CONNECTING
                    commands.append(Connect(pull.object_id, source.node, source.segment, pull.size_bytes))
                elif is_looking and source.is_open and not source.asked:
                    commands += self._relieve(pull, source, at_s)
        return commands

    def _relieve(self, pull: Pull, idle: Source, at_s: float) -> list[PullCommand]:
        """An idle source takes over what another is late with: nobody waits for the slowest at the end."""
        floor_s = LATE_AUTHORITY_S if idle.node == pull.authority else LATE_S
        patience_s = max(floor_s, LATE_FACTOR * idle.chunk_s)
        for chunk, node in pull.asked.items():
            late = pull.sources[node]
            if at_s - late.asked[chunk] > patience_s and idle.has(chunk):
                late.is_slow = True
                self._take_back(pull, late, chunk)
                return [Cancel(pull.object_id, node, chunk), self._ask(pull, idle, chunk, at_s)]
        return []

    # ---- for those who ask ----

    def had(self, object_id: str) -> Had | None:
        """What others may have of it from here."""
        copy, pull = self.copies.get(object_id), self.pulls.get(object_id)
        if copy is not None and not copy.is_dead:
            return Had(copy.size_bytes, "", is_sure=True, chunks=None)
        if pull is not None and pull.is_admitted:
            return Had(pull.size_bytes, pull.generation, not pull.generation, frozenset(pull.arrived))
        return None

    def reason(self, object_id: str) -> reasons.Reason | None:
        """Why whoever wants it does not have it. None: it is here, or nobody wants it."""
        pull = self.pulls.get(object_id)
        if pull is None:
            return None
        facts = {"bytes": pull.size_bytes, "arrived_chunks": len(pull.arrived), "chunks": pull.chunk_count}
        if not pull.is_admitted:
            head = self._head()
            if head is not None and head is not pull:
                text = f"waits for its turn behind object {head.object_id}, which waits for {head.room_bytes} bytes of room"
                return reasons.Reason(reasons.TURN, "it", text, facts=facts)
            text = f"waits for {pull.room_bytes} bytes of room in this node's store, to be copied to it"
            return reasons.Reason(reasons.ROOM, "it", text, facts=facts)
        if pull.confirming:
            text = f"is here, and node {pull.confirming} is asked whether what it sent was still right"
            return reasons.Reason(reasons.TRANSFER, "it", text, facts=facts)
        told = ", ".join(f"node {one.node} {one.state.value}" for one in pull.sources.values())
        told = told or "its owner's node is asked who has it"
        text = f"is being copied to this node, {len(pull.arrived)} of {pull.chunk_count} chunks are here: {told}"
        return reasons.Reason(reasons.TRANSFER, "it", text, facts=facts)

    def check(self) -> None:
        """The invariants, for tests and the simulator."""
        used_bytes = sum(pull.room_bytes for pull in self.pulls.values() if pull.is_admitted)
        used_bytes += self._kept.room_bytes
        checks.invariant(self._spare_bytes >= 0, "more is pulled than there is room for", spare=self._spare_bytes)
        checks.invariant(
            used_bytes + self._spare_bytes == self.granted_bytes, "room for pulls and copies does not add up",
            used=used_bytes, spare=self._spare_bytes, granted=self.granted_bytes,
        )  # fmt: skip
        waiting = [pull for pull in self.pulls.values() if not pull.is_admitted]
        checks.invariant(not waiting or self._reserving_bytes > 0, "pulls wait, and nobody is asked for room")
        checks.invariant(waiting or not self._spare_bytes, "room is kept that nobody waits for")
        for object_id, pull in self.pulls.items():
            checks.invariant(pull.askers, "a pull that nobody wants", object=object_id)
            checks.invariant(object_id not in self.copies, "a value is here and pulled", object=object_id)
            parts = [*pull.missing, *pull.asked, *pull.arrived]
            checks.invariant(
                sorted(parts) == [*range(pull.chunk_count)], "a chunk is in two places or none", object=object_id
            )
            of_sources = {chunk: one.node for one in pull.sources.values() for chunk in one.asked}
            checks.invariant(of_sources == pull.asked, "a chunk is asked for where nobody knows", object=object_id)
            if pull.is_admitted:
                is_moving = pull.asked or pull.confirming or any(not one.is_open for one in pull.sources.values())
                is_moving = is_moving or pull.inquires_until_s is not None
                checks.invariant(is_moving, "a pull waits for nobody", object=object_id)
            else:
                checks.invariant(not pull.sources, "a pull without room has sources", object=object_id)


def _order(pull: Pull) -> tuple[Priority, int]:
    return pull.order
