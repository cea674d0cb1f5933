"""Nodes that pull values from each other: the production mover of each, on simulated connections, files and room.

What is sent of a file is read only when it arrives, as the kernel does it, so that memory that is used again meanwhile shows.
Connections break, also within a body; nodes die and new ones come; processes that want values die, and are heard to have
died later than by the values' owners, who free what nobody counts on, and use its memory again at once. Stores are small,
others take room and give it back, and room is granted in parts, late, not really, or not at all.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from typing import Any

from umbel._agent import mover, pull_commands, pull_copies
from umbel.testing.simulation.world import END, QUIET_STEPS_MAX, Stream, World

PAGE = 4096
CHUNK_BYTES = PAGE
SIZES = (0, 1, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE, 5 * PAGE)
CAPACITY_BYTES = 9 * PAGE
NODES = 4
NODES_MAX = 7  # in all of a run
SEGMENTS = 3  # of a node, used again and again
PAUSES_S = (0.01, 0.05, 0.2, 0.5, 1.5)


class Segment:
    """Memory of a process, in which one value after another lies. Each has a generation of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.object_id = ""
        self.size_bytes = 0
        self.generation = 0

    def read(self, offset: int) -> Any:
        return self.object_id, offset


class Original:
    """See `moving.Original`."""

    offset = 0

    def __init__(self, segment: Segment) -> None:
        self.file = segment
        self.generation = str(segment.generation)

    def holds(self) -> bool:
        return str(self.file.generation) == self.generation


class Copy:
    """See `moving.Copy`. Its contents: what was read at the offset from which it was sent."""

    offset = 0

    def __init__(self, node: Node, name: str, size_bytes: int, failed: Callable[[OSError], None]) -> None:
        self.file = self
        self.name = name
        self._failed: Callable[[OSError], None] | None = failed
        self.room_bytes = -(-max(size_bytes, 1) // PAGE) * PAGE
        self.contents: dict[int, Any] = {}
        self._node = node

    def begin(self, size_bytes: int, failed: Callable[[OSError], None]) -> None:
        """What was there stays there until it is written over. All its pages are there."""
        self._failed = None

    def receive(self, stream: Any, offset: int, _size_max: int) -> int:
        self.contents[offset] = stream
        failed = self._failed
        if failed is not None and self._node.world.is_system_full():
            self._failed = None
            self._node.pulled = []  # nobody else's room would help
            failed(OSError(errno.ENOSPC, "no space left"))
        return 1

    def read(self, offset: int) -> Any:
        return self.contents.get(offset)

    def remove(self) -> None:
        del self._node.files[self.name]


class Link:
    """One end of a connection between two movers. See `moving.Link`."""

    def __init__(self, node: Node, stream: Stream) -> None:
        self.node = node
        self.stream = stream
        self.target: Any = None
        self.message: Any = None
        stream.on_frame = lambda _stream, frame: self._receive(frame)
        stream.on_close = lambda _stream: node.lost(self)

    @property
    def is_closed(self) -> bool:
        return self.stream.is_closed

    def send(self, message: Any) -> None:
        self.stream.send(("message", json.dumps(message), 0))

    def send_body(self, message: Any, file: Any, offset: int, size_bytes: int) -> None:
        self.stream.send(("message", json.dumps(message), size_bytes))
        self.stream.send(("body", file, offset))
        self.node.world.sending.append(self)

    def throw_away(self) -> None:
        self.target = None

    def close(self) -> None:
        self.stream.on_close = lambda _stream: None
        self.stream.close()

    def _receive(self, frame: Any) -> None:
        kind, what, more = frame
        if kind == "message":
            self.message = json.loads(what)
            self.node.world.note("%s <- %s", self.stream.name, what)
            self.target = self.node.mover.on_message(self, self.message, more)
        else:
            if self.target is not None:
                self.target.sink.receive(what.read(more), self.target.offset, 0)
            self.node.mover.on_body(self, self.message)


class Node:
    """One daemon's part, and what it needs. See `moving.Surroundings`."""

    def __init__(self, world: PullsWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.is_alive = True
        self.files: dict[str, Copy] = {}
        self.file_count = 0
        self.segments = [Segment(f"{name}.{name}.{number}") for number in range(SEGMENTS)]
        self.others_bytes = 0  # room that others have taken
        self.granted_bytes = 0
        self.asked_bytes = 0
        self.pulled: list[pull_commands.Priority] = []  # what had room when room was refused last
        self.is_touched = True  # since it was last looked at whether all is right there
        self._mover = mover.Mover(
            name, self, capacity_bytes=CAPACITY_BYTES, address=f"at {name}", chunk_bytes=CHUNK_BYTES
        )

    @property
    def mover(self) -> mover.Mover:
        self.is_touched = True
        return self._mover

    def check(self) -> None:
        self.is_touched = False
        self._mover.check()
        used = sum(file.room_bytes for file in self.files.values())
        self.world.must(
            used <= self.granted_bytes == self._mover.pulls.granted_bytes, "V4",
            "%s has files of %d bytes, and was granted %d", self.name, used, self.granted_bytes,
        )  # fmt: skip
        for want in self.world.wants:
            if want.node is self and not want.is_done and not want.is_dead:
                told = self._mover.reason(want.value.object_id)
                self.world.must(
                    told is not None, "V5", "%s waits for %s, and nothing says why", want.asker, want.value.object_id
                )

    @property
    def free_bytes(self) -> int:
        return CAPACITY_BYTES - self.others_bytes - self.granted_bytes

    def now_s(self) -> float:
        return self.world.now_s

    def dial(self, node: str, _address: str) -> None:
        self.world.dials.append((self, node))

    def lost(self, link: Link) -> None:
        if self.is_alive:
            self.mover.on_closed(link)

    def open_original(self, segment: str, size_bytes: int) -> Original | None:
        for one in self.segments:
            if one.name == segment and one.size_bytes == size_bytes:
                return Original(one)
        return None

    def create(self, size_bytes: int, failed: Callable[[OSError], None]) -> Copy:
        self.file_count += 1
        copy = self.files[str(self.file_count)] = Copy(self, str(self.file_count), size_bytes, failed)
        return copy

    def reserve(self, size_bytes: int) -> None:
        self.asked_bytes = size_bytes

    def release(self, size_bytes: int) -> None:
        self.granted_bytes -= size_bytes

    def delivered(self, asker: str, object_id: str, segment: str, size_bytes: int) -> None:
        self.world.delivered(self, asker, object_id, self.files[segment], size_bytes)

    def failed(self, asker: str, object_id: str, code: str, text: str) -> None:
        self.world.failed(self, asker, object_id, code, text)

    def ask_owner(self, object_id: str) -> None:
        """Some do not answer."""
        if self.world.chance.happens(80):
            holders = [one for one in self.world.nodes if one is not self and object_id in one.mover.pulls.copies]
            self.mover.owner_told(object_id, {one.name: f"at {one.name}" for one in holders})

    def who_has(self, object_id: str, node: str, address: str) -> None:
        raise AssertionError("nobody is asked")

    def left(self, owner: str, names: list[str]) -> None:
        raise AssertionError("processes are not part of this world")

    def needless(self, names: list[str]) -> None:
        raise AssertionError("processes are not part of this world")


class Want:
    """A process of a node that wants a value, or looks at it."""

    def __init__(self, node: Node, asker: str, value: Value, priority: pull_commands.Priority) -> None:
        self.node = node
        self.asker = asker
        self.value = value
        self.priority = priority
        self.is_done = False
        self.is_dead = False  # and its node does not know yet


class Value:
    """What an owner has. It lives as long as a living process counts on it."""

    def __init__(self, object_id: str, node: Node, segment: Segment, size_bytes: int) -> None:
        self.object_id = object_id
        self.node = node
        self.segment = segment
        self.size_bytes = size_bytes
        self.is_freed = False


class PullsWorld(World):
    """See the module."""

    steps_min, steps_max = 40, 140

    def set_up(self) -> None:
        self.nodes: list[Node] = []
        self.node_count = 0
        self.values: list[Value] = []
        self.wants: list[Want] = []
        self.dials: list[tuple[Node, str]] = []
        self.sending: list[Link] = []  # whose bodies the system has not taken yet
        self.untold: list[tuple[Node, str]] = []  # (who, a dead node that it has not heard of)
        self.unheard_frees: list[tuple[Node, str]] = []
        self.count = 0
        self.name_count = 0
        self.faults = self.chance.choose((0, 1, 1, 3))  # how often something breaks
        for _ in range(NODES):
            self._add_node()

    def is_system_full(self) -> bool:
        """Others have taken what the store has granted."""
        return self.faults > 0 and self.chance.happens(3)

    def _add_node(self) -> None:
        self.node_count += 1
        self.nodes.append(Node(self, f"n{self.node_count}"))

    # What happens

    def act(self) -> None:
        chance = self.chance
        faults = self.faults
        what = chance.weighted((40, 12, 6, 5, 8, 8, 6, 6, 3, 2 * faults, faults, 2 * faults, 2, 4))
        if what == 0:
            self.deliver_one()
        elif what == 1:
            self._want()
        elif what == 2:
            self._make()
        elif what == 3:
            self._let_go()
        elif what == 4:
            self._connect_one()
        elif what == 5:
            self._sent_one()
        elif what == 6:
            self._answer_for_room()
        elif what == 7:
            self._pass(chance.choose(PAUSES_S))
        elif what == 8:
            self._use_room(chance.choose(self.nodes))
        elif what == 9:
            self._cut()
        elif what == 10:
            self._kill_node()
        elif what == 11:
            self._kill_asker()
        elif what == 12:
            self._kill_owner()
        else:
            self._tell_late()

    def _make(self) -> None:
        node = self.chance.choose(self.nodes)
        free = [one for one in node.segments if not one.object_id]
        if free:
            self.count += 1
            segment = self.chance.choose(free)
            value = Value(f"o{self.count}", node, segment, self.chance.choose(SIZES))
            segment.object_id, segment.size_bytes = value.object_id, value.size_bytes
            self.values.append(value)
            self.note("%s lies in %s, %d bytes", value.object_id, segment.name, value.size_bytes)

    def _want(self) -> None:
        living = [value for value in self.values if not value.is_freed]
        node = self.chance.choose(self.nodes)
        choices = [value for value in living if value.node is not node]
        if not choices:
            self._make()
            return
        self.count += 1
        want = Want(
            node, f"p{self.count}", self.chance.choose(choices), self.chance.choose(tuple(pull_commands.Priority))
        )
        self.wants.append(want)
        value = want.value
        sources = {value.node.name: (f"at {value.node.name}", value.segment.name)}
        for other in self.nodes:
            if other is not node and self.chance.happens(20) and value.object_id in other.mover.pulls.copies:
                sources[other.name] = (f"at {other.name}", "")
        self.note("%s on %s wants %s, %s", want.asker, node.name, value.object_id, want.priority.name)
        node.mover.want(value.object_id, value.size_bytes, sources, asker=want.asker, priority=want.priority)

    def delivered(self, node: Node, asker: str, object_id: str, copy: Copy, size_bytes: int) -> None:
        want = self._want_of(node, asker, object_id)
        if want.is_dead:
            return
        self.note("    %s has %s", asker, object_id)
        want.is_done = True
        offsets = range(0, max(size_bytes, 1), CHUNK_BYTES) if size_bytes else ()
        wrong = {offset: copy.read(offset) for offset in offsets if copy.read(offset) != (object_id, offset)}
        self.must(not wrong and size_bytes == want.value.size_bytes, "V1", "%s got of %s: %s", asker, object_id, wrong)

    def failed(self, node: Node, asker: str, object_id: str, code: str, text: str) -> None:
        want = self._want_of(node, asker, object_id)
        self.note("    %s does not get %s: %s, %s", asker, object_id, code, text)
        self.wants.remove(want)
        if want.is_dead:
            return
        if code == pull_commands.Code.FULL.value:
            less = any(priority > want.priority for priority in node.pulled)
            self.must(not less, "V3", "%s is refused room that is used for something less urgent", asker)
        else:
            may_be_lost = self.faults or want.value.is_freed
            self.must(
                code in (pull_commands.Code.LOST, pull_commands.Code.FREED, pull_commands.Code.UNREACHABLE) and may_be_lost, "V2",
                "%s is told of %s: %s", asker, object_id, code,
            )  # fmt: skip

    def _want_of(self, node: Node, asker: str, object_id: str) -> Want:
        for want in self.wants:
            if want.asker == asker:
                self.must(want.node is node and want.value.object_id == object_id, "V2", "%s is told wrongly", asker)
                return want
        self.must(False, "V2", "%s is answered twice, or without having asked", asker)
        raise AssertionError

    def _let_go(self) -> None:
        if self.wants:
            want = self.chance.choose(self.wants)
            if not want.is_dead:
                self.wants.remove(want)
                self.note("%s lets go of %s", want.asker, want.value.object_id)
                want.node.mover.unwanted(want.value.object_id, want.asker)
                self._free_unused()

    def _kill_asker(self) -> None:
        living = [want for want in self.wants if not want.is_dead]
        if living:
            want = self.chance.choose(living)
            want.is_dead = True
            self.note("%s on %s is killed", want.asker, want.node.name)
            self._free_unused()

    def _free_unused(self) -> None:
        """An owner that nobody counts on frees, now or later, and uses the memory again."""
        counted = {want.value for want in self.wants if not want.is_dead}
        for value in [value for value in self.values if value not in counted and self.chance.happens(40)]:
            self._free(value)

    def _kill_owner(self) -> None:
        """Who made the value for it frees it although others count on it, under another name."""
        if self.values:
            value = self.chance.choose(self.values)
            self.note("the owner of %s dies", value.object_id)
            self.name_count += 1
            value.segment.name = f"{value.node.name}.{value.node.name}.{SEGMENTS + self.name_count}"
            self._free(value)

    def _free(self, value: Value) -> None:
        self.note("%s is freed", value.object_id)
        value.is_freed = True
        self.values.remove(value)
        segment = value.segment
        segment.generation += 1
        segment.object_id = ""
        for node in self.nodes:
            self.unheard_frees.append((node, value.object_id))
        if value.node.is_alive and self.chance.happens(70):  # the next value is written over it
            self.count += 1
            after = Value(f"o{self.count}", value.node, segment, value.size_bytes)
            segment.object_id = after.object_id
            self.note("%s lies in %s now", after.object_id, segment.name)
            self.values.append(after)

    def _tell_late(self) -> None:
        """Somebody hears of a death, of a process, a node or a value, that is past."""
        dead = [want for want in self.wants if want.is_dead]
        what = self.chance.below(3)
        if what == 0 and dead:
            self._hear_of_asker(self.chance.choose(dead))
        elif what == 1 and self.untold:
            self._hear_of_node(self.untold.pop(self.chance.below(len(self.untold))))
        elif self.unheard_frees:
            self._hear_of_free(self.unheard_frees.pop(self.chance.below(len(self.unheard_frees))))

    def _hear_of_asker(self, want: Want) -> None:
        self.wants.remove(want)
        self.note("%s hears that %s is dead", want.node.name, want.asker)
        want.node.mover.asker_gone(want.asker)

    def _hear_of_node(self, told: tuple[Node, str]) -> None:
        node, name = told
        if node.is_alive:
            self.note("%s hears that %s is dead", node.name, name)
            node.mover.node_dead(name)

    def _hear_of_free(self, told: tuple[Node, str]) -> None:
        node, object_id = told
        if node.is_alive:
            node.mover.freed(object_id)

    # Connections

    def _connect_one(self) -> bool:
        if not self.dials:
            return False
        node, name = self.dials.pop(self.chance.below(len(self.dials)))
        if not node.is_alive:
            return True
        other = next((one for one in self.nodes if one.name == name), None)
        if other is None or self.chance.happens(5 * self.faults):
            self.note("%s cannot connect to %s", node.name, name)
            node.mover.not_connected(name)
            return True
        near, far = self.connect(f"{node.name} from {name}", f"{name} from {node.name}")
        near.owner, far.owner = node, other
        other.mover.accepted(Link(other, far))
        node.mover.connected(name, Link(node, near))
        return True

    def _sent_one(self) -> bool:
        while self.sending:
            link = self.sending.pop(self.chance.below(len(self.sending)))
            if not link.is_closed and link.node.is_alive:
                link.node.mover.on_sent(link)
                return True
        return False

    def _cut(self) -> None:
        open_ones = [stream for stream in self.streams if not stream.is_closed and not stream.other.is_closed]
        if open_ones:
            stream = self.chance.choose(open_ones)
            self.note("the connection %s breaks", stream.name)
            for end in (stream, stream.other):  # what was under way is lost, or the last part of it
                kept = self.chance.below(len(end.inbox) + 1)
                while len(end.inbox) > kept:
                    end.inbox.pop()
                end.inbox.append(END)

    def _kill_node(self) -> None:
        if len(self.nodes) < 2 or self.node_count >= NODES_MAX:
            return
        node = self.chance.choose(self.nodes)
        self.note("%s dies", node.name)
        node.is_alive = False
        self.nodes.remove(node)
        self.wants = [want for want in self.wants if want.node is not node]
        for stream in self.streams:
            if stream.owner is node and not stream.is_closed:
                stream.cut(kept=self.chance.below(len(stream.other.inbox) + 1))
        self.untold += [(other, node.name) for other in self.nodes]
        for value in [value for value in self.values if value.node is node]:
            self.values.remove(value)
            value.is_freed = True  # its pages are gone with the machine
        self._add_node()
        self._free_unused()

    # Room

    def _answer_for_room(self) -> bool:
        asking = [node for node in self.nodes if node.asked_bytes]
        if not asking:
            return False
        node = self.chance.choose(asking)
        if node.free_bytes <= 0:
            if self.chance.happens(50):
                node.mover.room_wanted()
            else:
                self._refuse(node)
            return True
        granted = min(node.asked_bytes, node.free_bytes)
        if granted > PAGE and self.chance.happens(30):
            granted = PAGE
        node.asked_bytes = 0
        node.granted_bytes += granted
        self.note("%s is granted %d", node.name, granted)
        node.mover.room_granted(granted)
        return True

    def _refuse(self, node: Node) -> None:
        node.asked_bytes = 0
        self.note("%s is refused room", node.name)
        node.pulled = [pull.priority for pull in node.mover.pulls.pulls.values() if pull.is_admitted]
        node.mover.room_refused("the store is full")

    def _use_room(self, node: Node) -> None:
        node.others_bytes = 0 if node.others_bytes else min(node.free_bytes, PAGE * self.chance.below(9))

    def _pass(self, duration_s: float) -> None:
        self.now_s += duration_s
        for node in [*self.nodes]:
            due_s = node._mover.next_tick_s()
            if due_s is not None and due_s <= self.now_s:
                node.mover.tick()

    # What must hold

    def check(self) -> None:
        for node in self.nodes:
            if node.is_touched:
                node.check()
        self.forget_closed()

    # Coming to rest

    def settle(self) -> None:
        for node in self.nodes:
            node.others_bytes = 0
        for _ in range(QUIET_STEPS_MAX):
            if not self._settle_one():
                return
            self.check()
        self.must(
            False, "R2", "%s", [(want.asker, str(want.node.mover.reason(want.value.object_id))) for want in self.wants]
        )

    def _settle_one(self) -> bool:
        if self.deliver_one() or self._connect_one() or self._sent_one() or self._answer_for_room():
            return True
        if self.untold:
            self._hear_of_node(self.untold.pop())
            return True
        dead = [want for want in self.wants if want.is_dead]
        if dead:
            self._hear_of_asker(dead[0])
            return True
        if any(not want.is_done for want in self.wants):
            due = [due_s for node in self.nodes if (due_s := node.mover.pulls.next_tick_s()) is not None]
            self.must(due, "V2", "%s never get what they want", [one.asker for one in self.wants if not one.is_done])
            self._pass(max(0.0, min(due) - self.now_s))
            return True
        return False

    def check_rest(self) -> None:
        """Everybody has what he wanted, or was told why not. Now nobody wants anything any more."""
        for want in [*self.wants]:
            want.node.mover.unwanted(want.value.object_id, want.asker)
        self.wants.clear()
        for node in self.nodes:
            for number in range(1, self.count + 1):
                node.mover.freed(f"o{number}")
        for _ in range(QUIET_STEPS_MAX):
            if not (self.deliver_one() or self._connect_one() or self._sent_one() or self._answer_for_room()):
                break
        self.check()
        self._pass(pull_copies.WARM_S)
        for node in self.nodes:
            self.must(not node.files and not node.granted_bytes, "V6", "%s keeps %s", node.name, [*node.files])
            opened = [one for one, offer in node.mover.offers.offers.items() if offer.pullers]
            self.must(not opened, "V6", "%s has %s open for others", node.name, opened)
