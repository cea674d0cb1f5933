"""A program without a node, and the relay that stands for it: one conversation over connections that break.

Both tunnels are the production ones with all below them, conversations, streams, frames, connections; so are the program's store
and the relay's files. Sockets, descriptors, shared memory and time are simulated. The program and processes of the node call each
other, and the program stores values. Connections are cut, fall silent, are made twice or too late; the network goes away; the
program, its relay, the daemon, the node and other processes die. Windows are small, so that they are full now and then.
"""

from __future__ import annotations

from typing import Any, Final

from umbel import exceptions
from umbel._agent import relayed_files
from umbel._client import remote_store
from umbel._transport import connection, reactor, tunnel
from umbel._wire import channels, multiplexing, reconnecting
from umbel.testing.simulation.processes import attributes
from umbel.testing.simulation.remote_system import Poller, Process, Socket, System
from umbel.testing.simulation.remote_ways import PATTERN, Endpoint, Way, Ways
from umbel.testing.simulation.world import World

SIZES: Final = (
    (multiplexing, "WINDOW_BYTES", 256),
    (multiplexing, "KEPT_BYTES_MAX", 512),
    (tunnel, "READ_BYTES", 96),
    (tunnel, "READ_BYTES_MIN", 16),
    (channels, "ACKNOWLEDGE_COUNT", 4),
    (channels, "ACKNOWLEDGE_BYTES", 128),
    (remote_store, "PIECE_BYTES", 96),
    (remote_store, "PIECES_MAX", 3),
)
PATIENCE_S: Final = 30.0
DIAL_S: Final = 5.0  # for an attempt that nobody answers
# In a network that carries everything, for both to be connected: an attempt that met its last fault is given up, another made.
RECOVERY_S: Final = DIAL_S + reconnecting.SILENCE_S + 2 * reconnecting.REDIAL_S_MAX
PAUSES_S: Final = (0.1, 0.1, 0.1, 0.5, 0.5, 3.0, 3.0, 11.0)
SERVERS: Final = 2
WAYS_MAX: Final = 4  # open at a time
VALUES_MAX: Final = 3
VALUE_BYTES: Final = (1, 50, 200, 330)
DOOMS: Final = ("", "", "", "", "program", "machine", "relay", "daemon", "node", "leaves")
MEANWHILE_MAX: Final = 40  # steps by chance while the program waits; then all that can happen does
REST_ROUNDS_MAX: Final = 3_000
PROGRAM, STORE = "p", "/store"


class Died(Exception):
    """What a program raises when its connection is lost."""


class Killed(BaseException):
    """The program was killed in the midst of something."""


class Side:
    """One end of the conversation, and its owner."""

    def __init__(self, world: RemoteDriversWorld, process: Process, *, dials: bool) -> None:
        self.world = world
        self.process = process
        self.tunnel = tunnel.Tunnel(
            process.poller,  # type: ignore[arg-type]
            self,
            dials=dials,
            secret="s" * 32,
            patience_s=PATIENCE_S,
            now_s=lambda: world.now_s,
        )
        self.linked_s = 0.0  # when there was a connection last
        self.over = ""

    @property
    def is_gone(self) -> bool:
        return self.process.is_dead or bool(self.over)

    def link(self, sock: Socket) -> connection.Connection:
        poller: Any = self.process.poller
        return connection.Connection(sock, poller, self.tunnel.on_frame, self.tunnel.on_close)

    def tick(self) -> None:
        due_s = None if self.is_gone else self.tunnel.next_tick_s()
        if due_s is not None and due_s <= self.world.now_s:
            self.tunnel.tick()

    # ---- for the tunnel ----

    def opened(self, stream: int, to: dict[str, Any]) -> None:
        self.world.opened(self, stream, to)

    def dial(self) -> None:
        if self is self.world.program:
            self.world.note("the program dials")
            self.world.dials.append(self.world.now_s)

    def resumed(self) -> None:
        self.world.note("%s is connected again", self.process.name)

    def closes(self, why: str) -> None:
        self.world.note("%s closes a connection: %s", self.process.name, why)

    def is_over(self, reason: str) -> None:
        self.world.is_over(self, reason)


class Reactor:
    """The program's: while it waits, other things happen."""

    def __init__(self, world: RemoteDriversWorld) -> None:
        self.poller = Poller()
        self._world = world

    def wait(self, waiter: reactor.Waiter, _deadline_s: float | None) -> bool:
        for count in range(MEANWHILE_MAX + REST_ROUNDS_MAX):
            if waiter.done:
                return True
            if count < MEANWHILE_MAX and not self._world.is_resting:
                self._world.happen()
            else:
                self._world.go_on()
            if self._world.program.process.is_dead:
                raise Killed
        self._world.must(False, "R2", "the program waits for ever")
        return False


class RemoteDriversWorld(World):
    """See the module."""

    steps_min, steps_max = 40, 100

    def run_guarded(self) -> None:
        self.system = system = System()
        replaced: list[tuple[Any, str, Any]] = [(remote_store, "_anonymous_file", system.anonymous_file)]
        replaced += [(module, name, system) for module in (remote_store, relayed_files) for name in ("os", "segments")]
        with attributes(*SIZES, *replaced):
            self.run()

    def set_up(self) -> None:
        system = self.system
        self.now_s = 1.0
        self.is_resting = False
        self.is_node_dead = False
        self.is_shut = False  # the network
        self.was_full = False
        self.doom = self.chance.choose(DOOMS)
        self.rested_s = 0.0
        self.links: list[tuple[Socket, Socket]] = []  # (program's, relay's) ends of connections
        self.dials: list[float] = []
        self.arriving: list[Socket] = []  # the relay's ends of connections that are made
        self.late: list[Socket] = []  # likewise; the relay comes to them when others have taken their place
        self.half_made: list[tuple[float, Socket]] = []  # the program's
        self.relayed: relayed_files.RelayedFiles | None = None
        self.asked_elsewhere: list[tuple[int, Way]] = []
        self.ways = Ways(self)
        self.values: dict[str, bytes] = {}
        self.value_count = 0
        self.servers = [Process(system, f"server {number}") for number in range(SERVERS)]
        self.program = Side(self, Process(system, "the program"), dials=True)
        self.relay = Side(self, Process(system, "the relay"), dials=False)
        near, far = self._connection()
        self.program.tunnel.begin(self.program.link(near))
        self.relay.tunnel.begin(self.relay.link(far))
        self.reactor = Reactor(self)
        near, far = system.pair(self.program.process, self.program.process, "files")
        self.program.tunnel.open(far, {"to": "files"})
        driver: Any = self.reactor
        self.files = remote_store.Files(near, driver, self._died)
        self.store = remote_store.RemoteStore(self.files, PROGRAM, reserve=int, release=lambda _bytes: None)
        self.store.on_orphans = self._on_orphans

    @property
    def is_any_gone(self) -> bool:
        return self.program.is_gone or self.relay.is_gone

    def _connection(self) -> tuple[Socket, Socket]:
        ends = self.system.pair(self.program.process, self.relay.process, "network", is_remote=True)
        self.links.append(ends)
        return ends

    # What happens

    def act(self) -> None:
        if self.program.is_gone or not self.chance.happens(35):
            self.happen()
            return
        try:
            self._program_acts()
        except Killed:
            pass
        except Died:
            self.must(self.program.over or self.relay.is_gone, "Z5", "the program is told that its connection is lost")

    def happen(self) -> None:
        """Something that the program does not do."""
        chance = self.chance
        what = chance.weighted((16, 16, 14, 16, 8, 10, 5))
        if what == 0:
            self._poll(self.program)
        elif what == 1:
            self._poll(self.relay)
        elif what == 2:
            self._deliver(1 + chance.below(6))
        elif what == 3:
            self._server_acts()
        elif what == 4:
            self._connect_one()
        elif what == 5:
            self._pass(chance.choose(PAUSES_S))
        else:
            self._fail()

    def _poll(self, side: Side) -> int:
        if side.process.is_dead:
            return 0
        count = side.process.poll(first=self.chance.below(3) if not self.is_resting else 0)
        if side is self.program:
            count += side.process.poll(self.reactor.poller)
        return count

    def _deliver(self, count: int) -> bool:
        """So many pieces of each connection, as far as there are, both ways."""
        is_any = False
        for ends in self.links:
            for end in ends:
                if end.under_way and not end.is_silent:
                    is_any = True
                    for _ in range(count):
                        end.deliver()
        self.links = [ends for ends in self.links if not (ends[0].is_closed and ends[1].is_closed)]
        return is_any

    def _pass(self, duration_s: float) -> None:
        self.now_s += duration_s
        for side in (self.program, self.relay):
            side.tick()

    # ---- connections ----

    def _connect_one(self) -> None:
        """Something on the way to another connection."""
        chance = self.chance
        if self.half_made and (self.is_resting or chance.happens(60)):
            self._program_is_connected(*self.half_made.pop(0))
        elif self.arriving and (self.is_resting or chance.happens(60)):
            self._relay_is_connected(self.arriving.pop(0))
        elif self.dials and (self.is_resting or chance.happens(80)):
            self._answer_dial(self.dials.pop())
        elif self.late and (self.is_resting or chance.happens(30)):
            self._relay_is_connected(self.late.pop(0))
        elif self.asked_elsewhere:
            self._answer_elsewhere(*self.asked_elsewhere.pop(chance.below(len(self.asked_elsewhere))))

    def _answer_dial(self, at_s: float) -> None:
        chance, program = self.chance, self.program
        if program.is_gone:
            return
        is_late = self.now_s >= at_s + DIAL_S
        if self.is_node_dead or self.is_shut or is_late or (not self.is_resting and chance.happens(15)):
            if not is_late and chance.happens(50):
                self.now_s = at_s + DIAL_S
            self.note("the attempt fails")
            program.tunnel.dial_failed("nobody has answered")
            self.relay.tick()
        elif self.relay.process.is_dead:
            program.tunnel.dial_failed("there is no such process", is_final=True)
        else:
            near, far = self._connection()
            self.half_made.append((at_s, near))
            (self.late if chance.happens(25) else self.arriving).append(far)
            if not self.is_resting and chance.happens(15):
                near.is_silent = far.is_silent = True  # by now
                self.note("a connection is made, and falls silent")

    def _relay_is_connected(self, sock: Socket) -> None:
        if not self.relay.is_gone:
            self.note("a connection arrives at the relay")
            self.relay.tunnel.connected(self.relay.link(sock))

    def _program_is_connected(self, at_s: float, sock: Socket) -> None:
        if self.program.is_gone:
            sock.close()
        elif self.now_s >= at_s + DIAL_S:
            sock.close()
            self.program.tunnel.dial_failed("not in time")
        else:
            self.note("the program has a connection")
            self.program.tunnel.connected(self.program.link(sock))

    # ---- streams ----

    def opened(self, side: Side, stream: int, to: dict[str, Any]) -> None:
        """As the relay does, and the program with what comes from there."""
        if to.get("to") == "files":
            ours, theirs = self.system.pair(side.process, side.process, "files")
            poller: Any = side.process.poller
            self.relayed = relayed_files.RelayedFiles(theirs, poller, STORE, "/session")  # type: ignore[arg-type]
            side.tunnel.attach(stream, ours)
            return
        way = self.ways.by_number[to["n"]]
        self.must(way.callee is None and not way.is_refused, "Z1", "stream %d is opened twice", way.number)
        if way.kind == "elsewhere":
            self.asked_elsewhere.append((stream, way))
        elif way.kind == "from":
            near, far = self.system.pair(side.process, side.process, f"way {way.number}")
            way.callee = Endpoint(way, side.process, near)
            side.tunnel.attach(stream, far)
        else:
            self._take(stream, way)

    def _take(self, stream: int, way: Way) -> None:
        """For the relay: connect to the process."""
        server = self.servers[way.server]
        if server.is_dead:
            way.is_refused = True
            self.relay.tunnel.refuse(stream, "nobody is there")
            return
        near, far = self.system.pair(self.relay.process, server, f"way {way.number}")
        way.callee = Endpoint(way, server, far)
        self.relay.tunnel.attach(stream, near)

    def _answer_elsewhere(self, stream: int, way: Way) -> None:
        if not self.relay.is_gone:
            self.note("the relay has dialled for way %d", way.number)
            self._take(stream, way)

    def _open(self) -> None:
        """The program wants a stream to a process."""
        kind = self.chance.choose(("process", "process", "elsewhere"))
        way = self.ways.new(kind, self.chance.below(SERVERS))
        process = self.program.process
        near, far = self.system.pair(process, process, f"way {way.number}")
        way.caller = Endpoint(way, process, near)

        def on_answer(is_taken: bool, _reason: str, _is_final: bool) -> None:
            way.answers += 1
            self.must(way.answers == 1 and is_taken != way.is_refused, "Z1", "way %d is answered wrongly", way.number)

        self.note("the program opens way %d to %s %d", way.number, kind, way.server)
        self.program.tunnel.open(far, {"to": kind, "n": way.number}, on_answer)

    # ---- the program ----

    def _program_acts(self) -> None:
        chance = self.chance
        mine = self.ways.of(self.program.process)
        what = chance.weighted((30, 20, 10, 3, 6, 6, 3))
        if what == 0 and mine:
            end = chance.choose(mine)
            if end is end.way.caller:
                self.ways.call(end)
        elif what == 1:
            for end in mine:
                self.ways.flush(end)
                self.ways.read(end)
        elif what == 2 and len(mine) < WAYS_MAX:
            self._open()
        elif what == 3 and mine:
            end = chance.choose(mine)
            self.note("the program closes way %d", end.way.number)
            self.ways.close(end)
        elif what == 4 and len(self.values) < VALUES_MAX:
            self._put()
        elif what == 5 and self.values:
            self._get(chance.choose(list(self.values)))
        elif what == 6 and self.values:
            name = chance.choose(list(self.values))
            self.note("the program frees %s", name)
            del self.values[name]
            self.store.free(name)

    def _put(self) -> None:
        self.value_count += 1
        size = self.chance.choose(VALUE_BYTES)
        data = PATTERN[self.value_count : self.value_count + size]
        self.was_full = self.system.is_full
        self.note("the program puts %d bytes", size)
        try:
            segment = self.store.create(size)
            self.store.write(segment, 0, data)
            self.store.seal(segment)
        except exceptions.ObjectStoreFullError:
            self.must(self.was_full, "Z6", "there is no room for a value, it is said")
            return
        self.values[segment.name] = data

    def _get(self, name: str) -> None:
        self.note("the program reads %s", name)
        data = self.values[name]
        try:
            found = bytes(self.store.open(name, len(data)).buffer)
        except exceptions.ObjectLostError as error:
            found = str(error).encode()
        self.must(found == data, "Z6", "%s is read as %r", name, found)

    def _died(self) -> BaseException:
        return Died()

    def _on_orphans(self, names: list[str]) -> None:
        for name in names:
            self.store.unlink(name)

    # ---- other processes ----

    def _server_acts(self) -> None:
        chance = self.chance
        number = chance.below(SERVERS)
        server = self.servers[number]
        if server.is_dead:
            return
        ends = self.ways.of(server)
        what = chance.weighted((50, 20, 6, 3, 5))
        if what == 0:
            for end in ends:
                self.ways.flush(end)
                self.ways.read(end)
        elif what == 1 and ends:
            end = chance.choose(ends)
            if end is end.way.caller:
                self.ways.call(end)
        elif what == 2 and len(ends) < WAYS_MAX and not self.relay.is_gone:
            way = self.ways.new("from", number)
            near, far = self.system.pair(server, self.relay.process, f"way {way.number}")
            way.caller = Endpoint(way, server, near)
            self.note("%s opens way %d to the program", server.name, way.number)
            self.relay.tunnel.open(far, {"from": "process", "n": way.number})
        elif what == 3 and ends:
            end = chance.choose(ends)
            self.note("%s closes way %d", server.name, end.way.number)
            self.ways.close(end)
        elif what == 4 and not self.relay.is_gone:  # a value for the program, which it does not hear of
            self.value_count += 1
            self.system.files[f"{STORE}/{number}.{PROGRAM}.{self.value_count}"] = bytearray(1)

    def _server_dies(self) -> None:
        number = self.chance.below(SERVERS)
        server = self.servers[number]
        if server.is_dead:
            return
        self.note("%s dies", server.name)
        server.die()
        self.ways.has_died(server)
        if not self.program.is_gone:
            self.store.orphans_of(str(number))

    # ---- faults ----

    def _fail(self) -> None:
        chance = self.chance
        what = chance.weighted((30, 25, 8, 8, 4, 25))
        if what == 0:
            for ends in self.links:
                self.note("the connection breaks")
                for end in ends:
                    end.cut(chance.below(4))
        elif what == 1:
            for ends in self.links:
                if not ends[0].is_closed:
                    self.note("the connection falls silent")
                    for end in chance.choose((ends, ends[:1], ends[1:])):
                        end.is_silent = True
        elif what == 2:
            self.is_shut = not self.is_shut
            self.note("the network is %s", "shut" if self.is_shut else "open")
        elif what == 3:
            self._server_dies()
        elif what == 4:
            self.system.is_full = not self.system.is_full
            self.was_full |= self.system.is_full
        elif self.doom:
            doom, self.doom = self.doom, ""
            self._doomed(doom)

    def _doomed(self, doom: str) -> None:
        self.note("doom: %s", doom)
        if doom == "program":
            self.program.process.die()
        elif doom == "machine":  # of the program: nobody says anything
            for ends in self.links:
                ends[1].is_silent = True
            self.program.process.die()
        elif doom == "relay" and not self.relay.is_gone:
            self._relay_ends()
        elif doom == "daemon" and not self.relay.is_gone:
            self.relay.tunnel.leave("the node's daemon has ended")
            self._relay_ends()
        elif doom == "node":
            self.is_node_dead = True
            for ends in self.links:
                ends[0].is_silent = True
            self._relay_ends()
            for server in self.servers:
                server.die()
                self.ways.has_died(server)
        elif doom == "leaves" and not self.program.is_gone:
            self._leave()

    def _leave(self) -> None:
        """`umbel.shutdown()`."""
        self.note("the program leaves")
        self.store.close()
        self.program.over = "it has left"
        self.program.tunnel.leave("umbel.shutdown() was called")
        self.program.tunnel.close()

    def _relay_ends(self) -> None:
        """Its process, and for the daemon with it the program's."""
        if self.relay.process.is_dead:
            return
        self.relay.process.die()
        self.system.open_files.clear()
        for path in [path for path in self.system.files if path.split(".")[1] == PROGRAM]:
            del self.system.files[path]

    def is_over(self, side: Side, reason: str) -> None:
        self.note("it is over for %s: %s", side.process.name, reason)
        other = self.relay if side is self.program else self.program
        side.over = reason
        if "broken for longer" in reason:
            away_s = self.now_s - side.linked_s
            self.must(away_s >= PATIENCE_S - 0.001, "Z7", "%s is given up after %s s", side.process.name, away_s)
            if self.is_resting and not other.is_gone:
                late_s = self.now_s - self.rested_s
                self.must(
                    late_s <= RECOVERY_S, "Z2", "%s gives up %s s after the last fault", side.process.name, late_s
                )
        else:
            self.must(other.is_gone, "Z7", "%s hears of an end that is none: %s", side.process.name, reason)
        if side is self.relay:
            if self.relayed is not None:
                self.relayed.close()
            self._relay_ends()

    # What must hold

    def check(self) -> None:
        for side in (self.program, self.relay):
            if side.is_gone:
                continue
            if side.tunnel.is_linked:
                side.linked_s = self.now_s
            machine = side.tunnel.multiplexer
            machine.channel.check()
            kept = machine.channel.kept_bytes
            self.must(
                kept <= multiplexing.KEPT_BYTES_MAX + tunnel.READ_BYTES,
                "Z3",
                "%s keeps %d bytes",
                side.process.name,
                kept,
            )
            for local in side.tunnel._locals.values():
                left = sum(map(len, local.out))
                self.must(
                    left <= multiplexing.WINDOW_BYTES, "Z3", "%s has %d bytes of a stream", side.process.name, left
                )

    # Coming to rest

    def settle(self) -> None:
        """Nobody dies any more, and the network carries everything."""
        self.is_resting = True
        self.is_shut = False
        self.system.is_full = False
        self.rested_s = self.now_s
        self._rest()
        if not self.program.is_gone:
            self._check_all_done()
            for name in list(self.values):
                self._get(name)
            self._leave()
        self._rest()

    def _rest(self) -> None:
        for _ in range(REST_ROUNDS_MAX):
            if not self.go_on():
                return
        self.must(False, "R2", "there is no end")

    def go_on(self) -> bool:
        """All that can happen now; if nothing can, time passes. False when nothing will happen any more."""
        if self._pump():
            return True
        if self._is_at_rest():
            return False
        due = [side.tunnel.next_tick_s() for side in (self.program, self.relay) if not side.is_gone]
        at_s = min((at_s for at_s in due if at_s is not None), default=None)
        self.must(at_s is not None, "R2", "nothing is due, and it is not at rest")
        self._pass(max(0.0, (at_s or 0.0) - self.now_s))
        self.check()
        return True

    def _pump(self) -> bool:
        count = self._poll(self.program) + self._poll(self.relay)
        is_any = self._deliver(100) or count > 0
        if self.dials or self.arriving or self.late or self.half_made or self.asked_elsewhere:
            self._connect_one()
            is_any = True
        is_any |= self.ways.go_on()
        return is_any

    def _is_at_rest(self) -> bool:
        if self.program.is_gone or self.relay.is_gone:
            return self.program.is_gone and self.relay.is_gone
        return all(
            side.tunnel.is_linked and not side.tunnel.multiplexer.channel.kept_count
            for side in (self.program, self.relay)
        )

    def _check_all_done(self) -> None:
        self.ways.check_all_done()
        counts = [side.tunnel.multiplexer.stream_count for side in (self.program, self.relay)]
        locals_ = [len(side.tunnel._locals) for side in (self.program, self.relay)]
        self.must(counts[0] == counts[1], "Z5", "there are %d streams here, and %d there", *counts)
        self.must(counts == locals_, "Z5", "%s streams have %s sockets", counts, locals_)
        paused = [sorted(side.tunnel._paused) for side in (self.program, self.relay)]
        self.must(paused == [[], []], "Z2", "nothing is read of %s", paused)
        self.must(not self.system.open_files, "Z5", "%d files are open", len(self.system.open_files))
        orphans = [path for path in self.system.files if self._is_orphan(path)]
        self.must(not orphans, "Z5", "the dead have left %s", orphans)

    def _is_orphan(self, path: str) -> bool:
        maker = path.rpartition("/")[2].partition(".")[0]
        return maker != PROGRAM and self.servers[int(maker)].is_dead

    def check_rest(self) -> None:
        self.must(self.program.is_gone and self.relay.is_gone, "Z5", "one side does not know of the end")
        for process in (self.program.process, self.relay.process, *self.servers):
            left = [sock.name for sock in process.sockets.values()]
            self.must(not left, "Z5", "%s has open sockets: %s", process.name, left)
        self.must(not self.system.files, "Z5", "left in the node's memory: %s", list(self.system.files))
        left_open = len(self.system.open_files) + len(self.system.open_copies)
        self.must(not left_open, "Z5", "%d files are open", left_open)
