"""The machines of a simulated cluster: on each the production daemon, and processes with the production engine.

Beyond what `daemon` and `processes` replace, here it is what leads to other machines: the door of a node and whoever dials it,
the disk on which the head keeps its records, and each machine's clock, which runs at its own speed. What travels between
machines goes through `Wire`s, which the production code takes for its own connections.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from umbel._agent.hub import Client
from umbel._base import config as configuration
from umbel._base import nodes as node_ids
from umbel._base import tokens
from umbel._client import links, native, remote_links
from umbel._control import journal, keeping, kept, leadership, service
from umbel._transport import addresses, negotiation
from umbel._wire import frames, handshake, node_messages
from umbel.testing.simulation import daemon, processes, runtime
from umbel.testing.simulation.world import Stream, World

if TYPE_CHECKING:
    from umbel.testing.simulation.cluster_world import Cluster

FIRST_PROCESS: Final = 1_000
VERSION: Final = "1"
FACTS: Final[dict[str, Any]] = {"version": VERSION, "log_to_driver": False, "entrypoint": "program.py"}
HEAD_ADDRESS: Final = "10.0.0.1:1"
LEASE_S: Final = 1e9  # of the head's storage: it has it for good, `leadership` has a world for what else may be
# Less than in production, in the same proportions, so that less has to be looked at until a node is dead.
HEALTH: Final = {"period_s": 1.0, "threshold": 2, "timeout_s": 3.0, "reconnect_s": 2.0}
HEAD_LOST_S: Final = 20.0
TOKEN: Final = tokens.Token(tokens.Role.NODE, bytes(range(tokens.KEY_BYTES)))


class Wire(Stream):
    """One end of a simulated connection, which may be to another machine.

    It is also what production code gets that makes a `Connection` of it.
    """

    __slots__ = ("machine", "via")

    def __new__(cls, made_of: Any, *_: Any) -> Wire:
        return made_of if isinstance(made_of, Wire) else super().__new__(cls)

    def __init__(
        self,
        made_of: Any,
        name: Any,
        on_frame: Callable[[Any, bytes], None] | None = None,
        on_close: Callable[[Any], None] | None = None,
    ) -> None:
        """made_of: the world, for a new one with this name. Else it is one already, and is to be listened to from now on."""
        if made_of is not self:
            super().__init__(made_of, name)
            self.machine: ClusterNode | None = None
            self.via: ClusterNode | None = None  # which passes it on
        elif on_frame is not None and on_close is not None:
            self.on_frame = lambda _stream, frame: self._hear(on_frame, frame)
            self.on_close = on_close

    def fileno(self) -> Any:
        return self  # see `unacknowledged_bytes`

    @property
    def far(self) -> Wire:
        """The other end."""
        other: Any = self.other
        return other  # type: ignore[no-any-return]  # it was made with this one

    def is_held_up(self) -> bool:
        """Whether nothing arrives here at present."""
        here, there = self.machine, self.far.machine
        if here is there or here is None or there is None:
            return False
        if self.via is not None:
            return here.world.is_parted(there, self.via) or here.world.is_parted(self.via, here)
        return here.world.is_parted(there, here)

    def _hear(self, on_frame: Callable[[Any, bytes], None], frame: bytes) -> None:
        if self.world.trace is not None and self.owner is None and self.machine is not self.far.machine:
            message, _ = frames.decode_control(frame[4:], depth_max=node_messages.DEPTH_MAX)
            self.world.note("%s: %s", self.name, processes.in_words_of_notice(message))
        on_frame(self, frame[4:])

    def break_off(self) -> None:
        """Both sides will see the end, each after a part of what is under way."""
        for end in (self, self.other):
            if not end.is_closed:
                kept = end.world.chance.below(len(end.inbox) + 1)
                while len(end.inbox) > kept:
                    end.inbox.pop()
                end.inbox.append(None)


def unacknowledged_bytes(wire: Any) -> int:
    return len(wire.other.inbox)


class Door:
    """In the place of `umbel._agent.door.Door`."""

    def __init__(
        self,
        machine: ClusterNode,
        address: str,
        token: tokens.Token,
        door_of: Callable[[bytes], str],
        admit: dict[handshake.TargetKind, Callable[[Any], None] | None],
        take_ticket: Callable[[Any, handshake.Preamble], bool],
    ) -> None:
        self.machine = machine
        self.take_ticket = take_ticket
        self.taken: dict[
            Wire, None
        ] = {}  # connections that this node has dialled, whose other side is to say what it wants
        self.address = address
        self.token = token
        self.submit_token = _submit_token()
        self.door_of = door_of
        self.admit = admit
        machine.world.doors[address] = self

    def next_tick_s(self) -> None:
        return None

    def close(self) -> None:
        """Its machine is gone."""

    def refusal(self, target: handshake.Target) -> str:
        """Why who has proved itself does not reach it, or ""."""
        if target.kind is handshake.TargetKind.PROCESS:
            return (
                "" if self.door_of(target.id) and self._process(target.id) is not None else "there is no such process"
            )
        return "" if self.admit[target.kind] is not None else "there is nothing of the kind here"

    def is_meant(self, target: handshake.Target) -> bool:
        return target.tag in (b"", node_ids.tag_of_node(self.machine.node_id))

    def take(self, wire: Wire, _host: str) -> None:
        self.taken[wire] = None

    def _process(self, process_id: bytes) -> processes.Process | None:
        found = self.machine.processes.get(process_id)
        return None if found is None or found.is_dead else found

    def let_in(self, target: handshake.Target, wire: Wire) -> None:
        process = self._process(target.id) if target.kind is handshake.TargetKind.PROCESS else None
        if process is not None:
            process.world.let_act(process, functools.partial(process.links.remote.accept, wire))  # type: ignore[attr-defined]
            return
        admit = self.admit[target.kind]
        if admit is not None:
            admit(wire)


@functools.lru_cache(maxsize=1)
def _submit_token() -> str:
    return TOKEN.lowered(tokens.Role.SUBMIT).as_text()


def make_door(world: Cluster) -> Callable[..., Door]:
    def make(
        _poller: Any, address: str, token: Any, _admit: Any, door_of: Any, *, tag: Any, listens: Any, take_ticket: Any,
        admit_node: Any = None, admit_values: Any, admit_packages: Any, admit_lessee: Any = None, admit_program: Any = None,
        now_s: Any, warn: Any,
    ) -> Door:  # fmt: skip
        kind = handshake.TargetKind
        admit = {
            kind.CONTROL: admit_node, kind.VALUES: admit_values, kind.LEASES: admit_lessee, kind.PACKAGES: admit_packages,
        }  # fmt: skip
        return Door(world.here, address, token, door_of, admit, take_ticket)

    return make


class Dial:
    """One connection that is being made, for `process` or for the daemon."""

    is_reached = False

    def __init__(
        self, dialler: Dialler, address: str, target: handshake.Target, connected: Any, failed: Any, through: Wire | None,
        *, only_knocks: bool,
    ) -> None:  # fmt: skip
        """through: a connection that leads there. only_knocks: it says what it wants, and that is all."""
        self.through = through
        self.only_knocks = only_knocks
        self.dialler = dialler
        self.address = address
        self.target = target
        self.on_connected = connected
        self.on_failed = failed
        self.until_s = dialler.now_s() + dialler.timeout_s


class Dialler:
    """In the place of `umbel._transport.dialler.Dialler`: chance says when a dial goes on."""

    def __init__(
        self, world: Cluster, *, now_s: Callable[[], float], timeout_s: float = 10.0, tls: None = None
    ) -> None:
        self.world = world
        self.machine = world.here
        self.process = world.acting
        self.now_s = now_s
        self.timeout_s = timeout_s
        self.dials: dict[Dial, None] = {}

    def dial(
        self, address: addresses.Address, target: handshake.Target, on_connected: Any, on_failed: Any, *,
        only_knocks: bool = False, through: Any = None,
    ) -> Dial:  # fmt: skip
        dial = Dial(self, str(address), target, on_connected, on_failed, through, only_knocks=only_knocks)
        self.dials[dial] = None
        self.world.dials[dial] = None
        return dial

    def cancel(self, dial: Dial) -> None:
        if dial in self.dials:
            self.end(dial)
            if dial.through is not None:
                dial.through.close()

    def next_tick_s(self) -> float | None:
        return min(dial.until_s for dial in self.dials) if self.dials else None

    def tick(self) -> None:
        now_s = self.now_s()
        for dial in [dial for dial in self.dials if dial.until_s <= now_s]:
            self.cancel(dial)
            dial.on_failed(TimeoutError("no answer in time"))

    def end(self, dial: Dial) -> None:
        self.dials.pop(dial, None)
        self.world.dials.pop(dial, None)

    def close(self) -> None:
        for dial in list(self.dials):
            self.cancel(dial)

    def go_on(self, dial: Dial) -> None:
        """It ends, unless nothing gets through."""
        world, door = self.world, self.world.doors.get(dial.address)
        is_gone = self.machine.is_dead or (self.process is not None and self.process.is_dead)
        if is_gone:
            self.end(dial)
            return
        if dial.through is not None:
            self._prove(dial, dial.through)
            return
        if door is None or door.machine.has_vanished or world.is_parted(self.machine, door.machine):
            return
        if world.is_parted(door.machine, self.machine):
            return
        if door.machine.is_behind_nat and door.machine is not self.machine:
            if world.chance.happens(50):
                self.end(dial)
                self._do(dial.on_failed, ConnectionError("network is unreachable"))
            return
        self.end(dial)
        if door.machine.is_dead:
            self._do(dial.on_failed, ConnectionRefusedError("connection refused"))
            return
        if not door.is_meant(dial.target):
            self._do(dial.on_failed, ConnectionError("another node is there"))
            return
        reason = "" if dial.only_knocks else door.refusal(dial.target)
        world.note("%s dials %s: %s", self.name(), door.machine.name, reason or dial.target.kind.name)
        if reason:
            self._do(dial.on_failed, negotiation.RefusedError(reason))
            return
        what = dial.target.kind.name.lower()
        near, far = world.connect(
            f"{self.name()}<{door.machine.name} {what}", f"{door.machine.name}<{self.name()} {what}"
        )
        near.machine, far.machine = self.machine, door.machine
        if dial.only_knocks:
            world.on_machine(door.machine, functools.partial(self._knocked, door, dial.target, far))
        else:
            world.on_machine(door.machine, functools.partial(door.let_in, dial.target, far))
        self._do(dial.on_connected, near)

    @staticmethod
    def _knocked(door: Door, target: handshake.Target, far: Wire) -> None:
        preamble = handshake.Preamble(target, False, handshake.encode_preamble(target, is_tls=False))
        if not door.take_ticket(far, preamble):
            far.close()

    def _prove(self, dial: Dial, near: Wire) -> None:
        """Over a connection of which the other end is at the door of the node that is meant, or will be."""
        if near.is_closed or near.far.is_closed or (near.inbox and near.inbox[0] is None):
            self.end(dial)
            near.close()
            self._do(dial.on_failed, ConnectionError("it was broken off"))
            return
        far = near.far
        machine = far.machine
        if machine is None or near.is_held_up() or far.is_held_up() or far not in machine.daemon.door.taken:
            return
        door: Door = machine.daemon.door
        del door.taken[far]
        self.end(dial)
        reason = door.refusal(dial.target)
        self.world.note("%s meets %s: %s", self.name(), machine.name, reason or dial.target.kind.name)
        if reason or not door.is_meant(dial.target):
            near.close()
            error = negotiation.RefusedError(reason) if reason else ConnectionError("another node is there")
            self._do(dial.on_failed, error)
            return
        self.world.on_machine(machine, functools.partial(door.let_in, dial.target, far))
        self._do(dial.on_connected, near)

    def name(self) -> str:
        return self.process.name if self.process is not None else self.machine.name

    def _do(self, done: Callable[[Any], None], what: Any) -> None:
        if self.process is not None:
            self.world.let_act(self.process, functools.partial(done, what))
        else:
            self.world.on_machine(self.machine, functools.partial(done, what))


class Forwarder:
    """In the place of `umbel._agent.forwarder.Forwarder`."""

    pid = 1

    def __init__(self, world: Cluster) -> None:
        self.machine = world.here

    def join(self, one: Wire, other: Wire) -> None:
        """What their other ends say goes to each other; these two are out of it."""
        near, far = one.far, other.far
        for end, its_other in ((near, far), (far, near)):
            end.other, end.via = its_other, self.machine
            end.inbox.clear()  # nothing was said before the two were connected
        if near.is_closed or far.is_closed:
            near.cut(kept=0)
            far.cut(kept=0)
        for out in (one, other):
            out.is_closed = True

    def close(self) -> None:
        """Its machine is gone."""


def pass_on(world: Cluster) -> Callable[[Wire, bytes, str], bool]:
    """In the place of `umbel._agent.door.pass_on`."""

    def passed(wire: Wire, preamble: bytes, path: str) -> bool:
        process = world.here.processes.get(bytes.fromhex(path.rpartition("/")[2].removesuffix(".door")))
        remote: Any = None if process is None or process.is_dead else process.links.remote
        if remote is None or process is None:
            return False
        world.let_act(process, lambda: remote._adopt(wire, preamble))
        return True

    return passed


class Disk:
    """A `keeping.Storing` whose commits are done when chance says so. What was written outlives the head."""

    def __init__(self, records: dict[str, bytes]) -> None:
        self.records = records
        self.under_way: list[journal.Commit] = []
        self.heard: list[Any] = []

    def commit(self, command: journal.Commit) -> None:
        self.under_way.append(command)

    def ask(self, _command: Any) -> None:
        """It has its lease."""

    @property
    def has_heard(self) -> bool:
        return bool(self.heard)

    def take(self) -> list[Any]:
        heard, self.heard = self.heard, []
        return heard

    def close(self, _fencing: int) -> None:
        """Nothing to do."""

    def write(self) -> journal.Commit:
        """The oldest commit under way, as a whole."""
        command = self.under_way.pop(0)
        for key, value in command.writes.items():
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
        return command


class Daemon(daemon.Daemon):
    """The production daemon of one machine of a cluster. disk: of a head that keeps its records."""

    def __init__(self, machine: ClusterNode, *, is_head: bool, disk: Disk | None, starts_max: int) -> None:
        self.machine = machine
        self.disk = disk
        settings: dict[str, Any] = {
            "node_id": machine.node_id, "has_jobs": True, "version": VERSION, "listen": machine.address,
            "token_file": "", "tls_directory": "", "members": "umbel._control.members", "health": HEALTH,
            "node_service": "umbel._control.node_service", "infeasible_timeout_s": None, "sys_path": [],
        }  # fmt: skip
        if not is_head:
            settings |= {"head": HEAD_ADDRESS, "join_s": 1e6, "head_lost_s": HEAD_LOST_S}
        super().__init__(
            machine.world, machine.resources, on_start=lambda worker, _env: machine.starting.append(worker),
            on_kill=machine.world.killed_by_daemon, progress_of=machine.world.progress_of, starts_max=starts_max,
            settings=settings,
        )  # fmt: skip

    def deciding(self) -> tuple[Any, ...]:
        return super().deciding() if self.members is not None else (self.agent,)

    def _own_control_service(self, config: Any, node: Any) -> Any:
        if self.disk is None:
            return service.ActorService(node)
        made = service.ActorService(node, self._keeper(self.disk))
        for environment in made.job_environments():
            self.jobs.knows(environment)
        return made

    def _keeper(self, disk: Disk) -> keeping.Keeping:
        at_s = self.now_s()
        leader = leadership.Leadership(ttl_s=LEASE_S, now_s=at_s)
        leader.apply(leadership.Tick(at_s))
        leader.apply(leadership.Granted(self.machine.number, at_s, at_s))
        return keeping.Keeping(
            kept.Kept(disk.records.items(), at_s), leader, disk, now_s=self.now_s, lease_now_s=self.now_s,
            on_step_down=lambda reason: self._world.must(condition=False, rule="R1", text=reason), recovery_s=0.0,
        )  # fmt: skip

    def worker_ids(self, _node_id: str) -> Iterator[str]:
        while True:
            yield self.machine.new_process_id().hex()

    def on_build(self, server: str) -> None:
        self.machine.building.append(server)

    def now_s(self) -> float:
        return self.machine.now_s

    def time_s(self) -> float:
        return self.machine.now_s + self.machine.wall_offset_s

    def tick(self) -> None:
        self._tick()

    def pending(self) -> list[dict[str, Any]]:
        """What waits here, as users are told."""
        return list(self.queries.answer("pending"))

    @property
    def door(self) -> Any:
        return self.others._door

    @property
    def has_ended(self) -> bool:
        return self._is_over

    def check_all(self) -> None:
        """What always holds of what its machines know."""
        self.check()
        if self._sharing is not None and not self._sharing.is_alone:
            self._sharing.forwarding.check()
        if self.members is None:
            self.control.channel.check()  # type: ignore[attr-defined]  # it is a proxy
        else:
            for member in self.members._members.values():
                member.channel.check()


class ClusterNode(processes.Node):
    """One machine. address: where its daemon listens; rate: how fast its clock runs."""

    daemon: Daemon
    world: Cluster

    def __init__(self, world: Cluster, number: int, address: str, resources: dict[str, int], rate: float) -> None:
        super().__init__(world)
        self.number = number
        self.name = f"n{number}"
        self.node_id = f"{number:0{2 * node_ids.TAG_BYTES}x}".ljust(2 * node_ids.NODE_ID_BYTES, "0")
        self.address = address
        self.resources = resources
        self.rate = rate
        self.jumped_s = 0.0
        self.wall_offset_s = 0.0
        self.starting: list[str] = []  # workers to be forked
        self.exited: list[tuple[str, int]] = []  # whose end the daemon has not heard of, with their exit code
        self.building: list[str] = []  # fork servers of environments
        self.is_dead = False
        self.was_drained = False
        self.has_vanished = False  # it is dead, and nobody there says so to whoever is connected
        self.is_behind_nat = False  # it dials others, and they cannot dial it

    @property
    def now_s(self) -> float:
        return self.world.now_s * self.rate + self.jumped_s

    def due_s(self) -> float:
        """When its daemon has something to look at, by the world's clock."""
        due_s = self.daemon.due_s()
        return float("inf") if due_s is None else (due_s - self.jumped_s) / self.rate

    def new_process_id(self) -> bytes:
        number = next(self.world.process_numbers)
        return bytes(4) + node_ids.tag_of_node(self.node_id) + number.to_bytes(6, "big")

    def connected(self, process: processes.Process) -> None:
        for end in (process.agent_stream, process.agent_end):
            end.machine = self  # type: ignore[attr-defined]  # it is a `Wire`
        self.daemon.hub.accept(process.agent_end)

    def die(self, *, has_vanished: bool) -> None:
        """With all that runs there."""
        self.is_dead, self.has_vanished = True, has_vanished
        for process in self.living:
            process.die()
        self.starting.clear()
        self.exited.clear()
        self.building.clear()


class _Links(processes.Links):
    """The production links, also to processes of other machines."""

    _poller: Any = None

    def to(self, peer: bytes) -> links.Link | None:
        if self.is_of_this_node(peer) or self.remote is None:
            return super().to(peer)
        return self.by_peer.get(peer) or self.remote.to(peer)

    def attach(self, link: links.Link, sock: Any) -> Any:
        self._join(link, sock)
        self._process.streams.append(sock)
        return sock


class _AgentLink(processes.AgentLink):
    """A driver is welcome when its job is kept, if that is to be: then the disk is quick."""

    def __init__(self, process: processes.Process, on_notice: Any, on_gone: Any) -> None:
        super().__init__(process, on_notice, on_gone)
        self._machine: Any = process.node

    def notify(self, message: dict[str, Any], body: bytes = b"") -> None:
        if message["t"] != "hello":
            super().notify(message, body)
            return
        stream: Any = self._stream
        super(processes.AgentLink, self).notify(message, body)
        stream.other.deliver()
        while not stream.inbox:
            self._machine.world.write(self._machine)
        stream.deliver()


class Engine(processes.Engine):
    """The production engine of a process that others may reach from other machines."""

    def _make_links(self) -> Any:
        return _Links(self.process, self)

    def _connect_agent(self) -> Any:
        return _AgentLink(self.process, self.arrivals.on_notice, self._agent_gone)

    def _make_door(self) -> Any:
        return self  # which is passed on

    def _open_door(self, _door: Any, token: str) -> None:
        driver: Any = self.reactor
        driver.poller = daemon._Nothing()
        notify = self.agent.notify
        self.links.remote = remote_links.RemoteLinks(
            self.links, self.process_id, token, None, driver, self.lock, notify
        )


class Driver(runtime.Driver):
    """A program that is connected to its machine's daemon."""

    node: ClusterNode

    def make_engine(self) -> Engine:
        engine = Engine(self, kind="driver", job=FACTS, has_door=True)
        engine.start()
        return engine


class WorkerProcess(runtime.WorkerProcess):
    """A forked worker."""

    node: ClusterNode

    def make_engine(self) -> Engine:
        with processes.attributes(
            (native, "NativeEngine", lambda **options: Engine(self, **options)),
            (configuration.Config, "from_environment", lambda: processes.CONFIG),
        ):
            self.worker = runtime._Worker({"id": self.id.hex(), "session_dir": "", "listen": True})
        self.spawn(self._run, "main")
        engine: Any = self.worker.engine
        return engine  # type: ignore[no-any-return]  # ours, see above


def process_numbers() -> Iterator[int]:
    return itertools.count(FIRST_PROCESS)


__all__ = [
    "Client",
    "ClusterNode",
    "Daemon",
    "Dialler",
    "Disk",
    "Driver",
    "Forwarder",
    "Wire",
    "WorkerProcess",
    "World",
    "make_door",
    "pass_on",
]
