"""Values that several processes write, read and drop while the store is too small for them, and any of them may die.

The agent's part is the production one, with its machines; so is each process's book of what is where. Memory and files
are dictionaries, and others take of the same memory now and then. What a process does in steps (waiting for room, writing
a file, having it entered, giving memory back, reading it again) is made step by step here, so that everything else can
happen in between.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from umbel._agent import messages as agent_messages
from umbel._agent import spill_ledger, spill_orders, store_service
from umbel._objects import spill_book, store
from umbel.testing.simulation.world import Stream, World

CAPACITY_BYTES = 64
SIZES = (5, 10, 10, 20)
OPTIONS = {"directory": "", "high_water": 0.8, "batch_bytes": 8, "is_enabled": True}
FULL_WAIT_S = 1.0
QUIET_ROUNDS_MAX = 5_000
HELD_MAX = 8  # values that a process needs at once: a dozen of all processes' do not fit into the store

Message = dict[str, Any]


class _Client:
    """What the agent knows of a process."""

    is_driver = is_tool = False
    pid = 1

    def __init__(self, peer: Peer) -> None:
        self.id = peer.id
        self.peer = peer


class _Hub:
    """Whom the agent sends to."""

    def __init__(self) -> None:
        self.clients: dict[str, _Client] = {}

    def send(self, client: str, message: Message) -> None:
        if client in self.clients:
            self.clients[client].peer.agent_end.send(message)

    def reply(self, client: str, request: int, message: Message) -> None:
        self.send(client, {"t": "reply", "rq": request, **message})

    def refuse(self, client: str, request: int, kind: str, text: str, **_more: object) -> None:
        self.reply(client, request, {"error": text})

    def drivers(self) -> list[_Client]:
        return []


class _Service(store_service.StoreService):
    """The production service; what it looks up and removes is in the world's dictionaries."""

    def __init__(self, world: SpillingWorld) -> None:
        self._world = world
        hub: Any = world.hub
        super().__init__(
            hub, lambda: world.now_s, "", capacity_bytes=CAPACITY_BYTES, full_wait_s=FULL_WAIT_S, spilling=OPTIONS
        )

    def _left_by(self, client: str) -> int:
        memory = self._world.memory
        size_bytes = 0
        for segment in [segment for segment in memory if spill_ledger.creator_of(segment) == client]:
            if spill_ledger.owner_of(segment) in self._world.hub.clients:
                size_bytes += memory[segment][1]
            else:
                del memory[segment]
        return size_bytes

    def _biggest_owners(self) -> list[str]:
        return []

    def _system_free_bytes(self) -> int:
        return self._world.system_free_bytes

    def _own_bytes(self) -> int:
        return self._world.memory_bytes

    def unlink(self, path: str) -> None:
        self._world.files.pop(path, None)


class Peer:
    """A process: it creates values for itself and others, reads them, and moves them to files."""

    def __init__(self, world: SpillingWorld, name: str) -> None:
        self.world = world
        self.id = name
        self.is_dead = False
        self.count = 0
        self.needs: dict[str, tuple[int, int]] = {}  # what it owns and has not dropped: segment -> (content, bytes)
        self.book = spill_book.SpillBook({})
        self.views: Counter[str] = Counter()
        self.reserved_bytes = 0
        self.used_bytes = 0
        self.collecting = 0  # requests for room that wait
        self.waiting: dict[int, Callable[[Message], None]] = {}  # requests to the agent
        self.requests = 0
        self.orders: list[Message] = []  # to move values; the first is being carried out
        self.jobs: list[Callable[[], None]] = []  # the next step of what it has begun
        self.links: dict[str, Stream] = {}
        self.agent_stream, self.agent_end = world.connect(f"{name}<agent", f"agent<{name}")
        self.agent_stream.on_frame = lambda _stream, message: self._on_agent(message)
        self.agent_end.on_frame = lambda _stream, message: world.on_message(self, message)
        self.agent_end.on_close = lambda _stream: world.on_gone(self)
        world.hub.clients[name] = _Client(self)

    def join(self, other: Peer) -> None:
        near, far = self.world.connect(f"{self.id}<{other.id}", f"{other.id}<{self.id}")
        for peer, end, whom in ((self, near, other), (other, far, self)):
            peer.links[whom.id] = end
            end.on_frame = peer.hears
            end.on_close = functools.partial(peer.link_gone, whom.id)

    def hears(self, _stream: Stream, message: Message) -> None:
        self.on_peer(message)

    def link_gone(self, other: str, _stream: Stream) -> None:
        self.peer_gone(other)

    def tell(self, message: Message) -> None:
        self.agent_stream.send(message)

    def ask(self, message: Message, then: Callable[[Message], None]) -> None:
        self.requests += 1
        self.waiting[self.requests] = then
        self.tell({**message, "rq": self.requests})

    # Room

    def with_room(self, size_bytes: int, then: Callable[[], None], tries_left: int = store.GROW_TRIES) -> None:
        """Go on once there is room for so many bytes; not at all when the agent refuses, or the system time and again."""
        spare_bytes = self.reserved_bytes - self.used_bytes
        if spare_bytes >= size_bytes:
            if self.world.system_free_bytes >= size_bytes:
                self.used_bytes += size_bytes
                then()
                return
            self.world.note("%s does not get %s bytes that it was granted", self.id, size_bytes)
            given_bytes = size_bytes if self.collecting else spare_bytes
            self.reserved_bytes -= given_bytes
            self.tell({"t": "release_store", "bytes": given_bytes})
            if tries_left > 1:
                self.with_room(size_bytes, then, tries_left - 1)
            return
        self.collecting += 1
        self.ask(
            {"t": "reserve_store", "bytes": size_bytes - spare_bytes},
            lambda answer: self._granted(answer, size_bytes, then, tries_left),
        )

    def _granted(self, answer: Message, size_bytes: int, then: Callable[[], None], tries_left: int) -> None:
        self.collecting -= 1
        if "error" in answer:
            self.world.note("%s is refused: %s", self.id, answer["error"][:60])
            self.give_back()
            return
        self.reserved_bytes += answer["granted"]
        self.with_room(size_bytes, then, tries_left)

    def give_back(self) -> None:
        spare_bytes = self.reserved_bytes - self.used_bytes
        if spare_bytes and not self.collecting:
            self.reserved_bytes -= spare_bytes
            self.tell({"t": "release_store", "bytes": spare_bytes})

    def _remove(self, segment: str, size_bytes: int) -> None:
        """Of its own memory."""
        if self.world.memory.pop(segment, None) is not None:
            self.used_bytes -= size_bytes
            self.give_back()

    # Values

    def create(self, owner: Peer, size_bytes: int) -> None:
        def written() -> None:
            self.count += 1
            segment = f"{self.id}.{owner.id}.{self.count}"
            content = self.world.new_content()
            self.world.memory[segment] = (content, size_bytes)
            self.book.stored[segment] = size_bytes
            self.world.note("%s writes %s", self.id, segment)
            message = {"t": "value", "segment": segment, "content": content, "bytes": size_bytes}
            if owner is self:
                owner.on_peer(message)
            elif owner.is_dead or self.links[owner.id].is_closed:
                self.forget_owner(owner.id)
            else:
                self.links[owner.id].send(message)

        self.with_room(size_bytes, written)

    def on_peer(self, message: Message) -> None:
        if message["t"] == "value":
            self.needs[message["segment"]] = (message["content"], message["bytes"])
        else:
            self.freed_here(message["segment"])

    def drop(self, segment: str) -> None:
        """It needs a value of its own no more."""
        del self.needs[segment]
        creator = spill_ledger.creator_of(segment)
        self.world.note("%s drops %s", self.id, segment)
        if creator == self.id:
            self.freed_here(segment)
        elif creator in self.links and not self.links[creator].is_closed:
            self.links[creator].send({"t": "free", "segment": segment})
        else:
            self.book.stored.pop(segment, None)
            self._forget_copy(segment)
            self.book.freed(segment)
            self.tell({"t": "spill_freed", "segment": segment})
            self.world.memory.pop(segment, None)

    def freed_here(self, segment: str) -> None:
        """A value that it has written is dead."""
        size_bytes = self.book.stored.pop(segment, 0)
        self._forget_copy(segment)
        if self.book.freed(segment):
            self.tell({"t": "spill_freed", "segment": segment})
        if size_bytes:
            self._remove(segment, size_bytes)

    def _forget_copy(self, segment: str) -> None:
        found = self.book.copies.get(segment)
        copy = self.book.forget_copy(segment)
        if copy is not None and found is not None:
            self._remove(copy, found[1])

    def peer_gone(self, other: str) -> None:
        self.forget_owner(other)
        memory = self.world.memory
        for segment in [one for one in memory if one.startswith(f"{other}.{self.id}.")]:
            if segment in self.needs:
                self.book.stored[segment] = memory[segment][1]
            else:
                del memory[segment]

    def forget_owner(self, owner: str) -> None:
        for segment in [one for one in self.book.stored if spill_ledger.owner_of(one) == owner]:
            self._remove(segment, self.book.stored.pop(segment))
        self.book.owner_gone(owner)

    def read(self, segment: str, then: Callable[[str], None]) -> None:
        """`then` with the segment in which its bytes are. Any process that was given a reference may read."""
        world = self.world
        if segment in world.memory:
            then(segment)
            return
        copy = self.book.copies.get(segment)
        if copy is not None:
            then(copy[0])
            return
        self.ask({"t": "locate", "segment": segment}, lambda answer: self._located(answer, segment, then))

    def _located(self, answer: Message, segment: str, then: Callable[[str], None]) -> None:
        world = self.world
        if "error" in answer:
            world.must(not world.is_needed(segment), "S4", "%s is nowhere", segment)
            return
        content = world.files.get(answer["file"], {}).get(answer["offset"])

        def made() -> None:
            if content is None:
                world.must(not world.is_needed(segment), "S4", "the file of %s is gone", segment)
                self.used_bytes -= answer["size_bytes"]
                self.give_back()
                return
            self.count += 1
            copy = f"{self.id}.{self.id}.c{self.count}"
            world.memory[copy] = (content, answer["size_bytes"])
            before = self.book.copies.get(segment)
            if self.book.restored(segment, copy, answer["size_bytes"]) is not None and before is not None:
                self._remove(*before)
            self.tell({"t": "restored", "segment": segment})
            then(copy)

        self.with_room(answer["size_bytes"], made)

    # Moving values

    def _on_agent(self, message: Message) -> None:
        kind = message["t"]
        if kind == "reply":
            self.waiting.pop(message["rq"])(message)
        elif kind == "store_trim":
            self.give_back()
        elif kind == "store_ask":
            viewed = {one: self.world.memory[one][1] for one in self.views if one in self.world.memory}
            self.tell({
                "t": "store_told", "round": message["round"], "live": self.book.live_bytes,
                "spillable": self.book.spillable_bytes(viewed), "viewed": [list(pair) for pair in viewed.items()],
            })  # fmt: skip
        elif kind == "store_spill":
            self.orders.append(message)
            if len(self.orders) == 1:
                self.jobs.append(lambda: self._make_room(message))
        elif kind == "spill_check":
            if message["creator"] in self.links:
                self.links[message["creator"]].drain()
            for segment in message["segments"]:
                if segment not in self.needs:
                    self.tell({"t": "spill_freed", "segment": segment})
        elif kind == "spill_forget":
            self._forget_copy(message["segment"])

    def _make_room(self, order: Message) -> None:
        choice = self.book.choose(order["bytes"], kept={*order["kept"], *self.views})
        freed_bytes = 0
        for copy, size_bytes in choice.copies:
            self.book.copy_gone(copy)
            self._remove(copy, size_bytes)
            freed_bytes += size_bytes
        freed_bytes += sum(self._evict(segment) for segment, _ in choice.saved)
        chosen = [segment for segment, _ in choice.write]
        self.views.update(chosen)
        self.jobs.append(lambda: self._write(order, chosen, freed_bytes))

    def _write(self, order: Message, chosen: list[str], freed_bytes: int) -> None:
        """One value after the other could be dropped meanwhile; the views keep their bytes."""
        world = self.world
        if world.chance.happens(30):  # a disk so slow that the agent gives up the order
            world.pass_time(spill_orders.ORDER_S)
        entries: list[list[Any]] = []
        contents: dict[int, int] = {}
        for segment in chosen:
            if segment in self.book.stored:
                content, size_bytes = world.memory[segment]
                contents[len(entries)] = content
                entries.append([segment, len(entries), size_bytes, content])
        if not entries or world.chance.happens(10):  # a disk that refuses
            self.views.subtract(chosen)
            self._trim_views()
            self._end(order, freed_bytes, "full" if entries else "")
            return
        world.files[order["file"]] = contents
        world.note("%s writes %s to %s", self.id, [entry[0] for entry in entries], order["file"])
        message = {"t": "spilled", "file": order["file"], "entries": entries}
        self.jobs.append(
            lambda: self.ask(message, lambda answer: self._entered(answer, order, chosen, entries, freed_bytes))
        )

    def _entered(
        self, answer: Message, order: Message, chosen: list[str], entries: list[list[Any]], freed_bytes: int
    ) -> None:
        self.views.subtract(chosen)
        self._trim_views()
        if "error" in answer:
            self.world.files.pop(order["file"], None)
            entries = []
        for segment, *_ in entries:
            if self.book.written(segment):
                freed_bytes += self._evict(segment)
            else:
                self.tell({"t": "spill_freed", "segment": segment})
        self._end(order, freed_bytes)

    def _end(self, order: Message, freed_bytes: int, error: str = "") -> None:
        self.tell({
            "t": "spill_ended", "order": order["order"], "file": order["file"], "freed": freed_bytes, "error": error,
        })  # fmt: skip
        del self.orders[0]
        if self.orders:
            following = self.orders[0]
            self.jobs.append(lambda: self._make_room(following))

    def _evict(self, segment: str) -> int:
        if segment in self.views or segment not in self.world.memory:
            return 0
        size_bytes = self.world.memory[segment][1]
        if spill_ledger.creator_of(segment) == self.id:
            self._remove(segment, size_bytes)
        else:
            del self.world.memory[segment]
        self.book.evicted(segment)
        self.world.note("%s evicts %s", self.id, segment)
        return size_bytes

    def _trim_views(self) -> None:
        self.views = +self.views

    def die(self) -> None:
        self.is_dead = True
        self.jobs.clear()
        for stream in (self.agent_stream, *self.links.values()):
            if not stream.is_closed:
                waiting = len(stream.other.inbox)
                stream.cut(kept=waiting - self.world.chance.below(waiting + 1))


class SpillingWorld(World):
    """See the module."""

    def set_up(self) -> None:
        self.memory: dict[str, tuple[int, int]] = {}  # segment -> (content, bytes)
        self.files: dict[str, dict[int, int]] = {}  # file -> offset -> content
        self.contents = 0
        self.hub = _Hub()
        self.service = _Service(self)
        self.peers = [Peer(self, name) for name in ("p", "q", "r")]
        self.peers[0].join(self.peers[1])
        self.peers[0].join(self.peers[2])
        self.peers[1].join(self.peers[2])
        self.deaths_left = self.chance.choose((0, 1, 2, 3))
        self.viewing: list[tuple[Peer, str]] = []
        self.others_bytes = 0  # of the memory: other programs'
        self.weights = [
            20, *(self.chance.choose((1, 2, 4)) for _ in range(5)), int(self.deaths_left > 0), self.chance.choose((0, 0, 1))
        ]  # fmt: skip

    @property
    def memory_bytes(self) -> int:
        return sum(size_bytes for _, size_bytes in self.memory.values())

    @property
    def system_free_bytes(self) -> int:
        return max(0, CAPACITY_BYTES - self.memory_bytes - self.others_bytes)

    def new_content(self) -> int:
        self.contents += 1
        return self.contents

    @property
    def locations(self) -> Mapping[str, spill_ledger.Location]:
        spilling = self.service.spilling
        return {} if spilling is None else spilling.ledger.locations

    def is_needed(self, segment: str) -> bool:
        owner = next(peer for peer in self.peers if peer.id == spill_ledger.owner_of(segment))
        return not owner.is_dead and segment in owner.needs

    # The agent

    def on_message(self, peer: Peer, message: Message) -> None:
        client: Any = self.hub.clients[peer.id]
        self.service.on[message["t"]](client, agent_messages.parse(message), b"")

    def on_gone(self, peer: Peer) -> None:
        del self.hub.clients[peer.id]
        self.service.client_gone(peer.id)

    # Steps

    def act(self) -> None:
        action = self.chance.weighted(self.weights)
        peer = self.chance.choose([one for one in self.peers if not one.is_dead])
        if action == 0:
            self._go_on()
        elif action == 1:
            owner = self.chance.choose([one for one in self.peers if not one.is_dead])
            if len(owner.needs) < HELD_MAX and len(peer.waiting) < 3:
                peer.create(owner, self.chance.choose(SIZES))
        elif action == 2:
            self._look(peer)
        elif action == 3 and self.viewing:
            self._look_away(self.chance.below(len(self.viewing)))
        elif action == 4 and peer.needs:
            peer.drop(self.chance.choose(list(peer.needs)))
        elif action == 5:
            self.pass_time(0.05)
        elif action == 6 and self.deaths_left and len([one for one in self.peers if not one.is_dead]) > 1:
            self.deaths_left -= 1
            if self.chance.happens(90):  # with word under way of values that are not needed any more
                self._drop_what_it_made(peer)
            self.note("%s DIES", peer.id)
            peer.die()
            self.viewing = [(viewer, segment) for viewer, segment in self.viewing if viewer is not peer]

        elif action == 7:
            most_bytes = self.others_bytes + self.system_free_bytes
            self.others_bytes = 0 if self.others_bytes else self.chance.below(most_bytes + 1)
            self.note("others take %s bytes", self.others_bytes)

    def _drop_what_it_made(self, creator: Peer) -> None:
        for owner in self.peers:
            made = [one for one in owner.needs if spill_ledger.creator_of(one) == creator.id]
            if made and owner is not creator and not owner.is_dead:
                owner.drop(self.chance.choose(made))

    def _go_on(self) -> None:
        working = [peer for peer in self.peers if peer.jobs]
        if working and self.chance.happens(30):
            self.chance.choose(working).jobs.pop(0)()
        else:
            self.deliver_one()

    def pass_time(self, duration_s: float) -> None:
        self.now_s += duration_s
        due_s = self.service.next_tick_s()
        if due_s is not None and due_s <= self.now_s:
            self.service.tick()

    def _look(self, peer: Peer) -> None:
        """Read a value that somebody needs, and keep a view of it for a while."""
        needed = [(owner, one) for owner in self.peers if not owner.is_dead for one in owner.needs]
        if not needed or len(peer.waiting) >= 3:
            return
        owner, segment = self.chance.choose(needed)
        expected = owner.needs[segment][0]

        def read(where: str) -> None:
            self.must(self.memory[where][0] == expected, "S4", "%s has another value than was written", segment)
            self.note("%s reads %s", peer.id, segment)
            peer.views[where] += 1
            self.viewing.append((peer, where))

        peer.read(segment, read)

    def _look_away(self, index: int) -> None:
        peer, segment = self.viewing.pop(index)
        peer.views[segment] -= 1
        peer._trim_views()

    def check(self) -> None:
        self.service.ledger.check()
        spilling = self.service.spilling
        if spilling is not None:
            spilling.orders.check()
            spilling.ledger.check()
        locations = self.locations
        for peer in self.peers:
            if peer.is_dead:
                continue
            peer.book.check()
            for segment in peer.needs:
                location = locations.get(segment)
                is_there = location is not None and location.offset in self.files.get(location.file, {})
                self.must(segment in self.memory or is_there, "S4", "%s is neither in memory nor on disk", segment)

    def settle(self) -> None:
        self._rest()
        while self.viewing:
            self._look_away(0)
        for peer in self.peers:
            while not peer.is_dead and peer.needs:
                peer.drop(next(iter(peer.needs)))
        self._rest()

    def _rest(self) -> None:
        for _ in range(QUIET_ROUNDS_MAX):
            working = [peer for peer in self.peers if peer.jobs]
            if working:
                working[0].jobs.pop(0)()
            elif not self.deliver_one():
                due_s = self.service.next_tick_s()
                is_waited_for = any(peer.waiting for peer in self.peers if not peer.is_dead)
                if due_s is None or not (is_waited_for or self.service.is_making_room):
                    break
                self.pass_time(max(0.0, due_s - self.now_s))
        else:
            self.must(False, "R2", "the store never comes to rest")
        waiting = [peer.id for peer in self.peers if not peer.is_dead and peer.waiting]
        self.must(not waiting, "S5", "%s wait for an answer for ever", waiting)

    def check_rest(self) -> None:
        self.must(not self.files, "S6", "files are left: %s", list(self.files))
        self.must(not self.locations, "S6", "values are listed that nobody needs")
