"""A whole simulated cluster: a head, nodes that join it, programs on any of them, and all that may go wrong between and on them.

On each machine runs the production daemon, in each program and worker the production engine (see `cluster_nodes`). Chance
breaks connections, parts machines from each other in one direction or in both, has some that nobody can dial, delays what the
head writes to its disk, lets clocks run at different speeds and jump, and ends workers, programs and machines at any step; a
machine that vanishes does not say so to anybody. A head that keeps its records comes back with what was written.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any, Final

from umbel._agent import door, forwarder, lease_links, other_nodes, service
from umbel._agent.ledger import CPU, UNIT
from umbel._base import sessions
from umbel._client import current, remote_links
from umbel._control import journal, node_service
from umbel._model import ids
from umbel._transport import addresses, connection, dialler, ways
from umbel.testing.simulation import cluster_nodes, processes
from umbel.testing.simulation.cluster_nodes import (
    HEAD_ADDRESS,
    ClusterNode,
    Daemon,
    Dialler,
    Disk,
    Driver,
    Wire,
    WorkerProcess,
)
from umbel.testing.simulation.processes import OrderedSet, attributes
from umbel.testing.simulation.runtime import QUIET_ROUNDS_MAX, Machine, RuntimeWorld
from umbel.testing.simulation.world import Stream

SPECIAL: Final = "special"  # of which one machine has one
SEAT: Final = "seat"  # of which the same one has enough
SLOT: Final = "slot"  # of which all have some
NODES_MAX: Final = 6  # machines in all, heads included; so a run comes to its end
JOIN_ROUNDS_MAX: Final = 200
OUTLAST_S: Final = 8.0  # enough for a machine that cannot be heard to be declared dead
REST_S: Final = 8.0  # leases, connections and whatever else waits for time have gone by then
STANDSTILL_S: Final = 4.0
LOOKS_MAX: Final = 1_000  # of all daemons, in less than that
PATIENCE_S: Final = 150.0  # what waits for something that will come has it by then
REST_STEPS_S: Final = (1.1, 1.3)  # with more at once the head would take itself for one that has stood still


class _Everybody:
    """In the place of a single node, for what is so of all processes."""

    def __init__(self, world: Cluster) -> None:
        self._world = world

    @property
    def living(self) -> list[Any]:
        return [process for machine in self._world.machines for process in machine.living]


class _ClockHere:
    """`time` for the engine's modules: that of the machine on which something happens."""

    def __init__(self, world: Cluster) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.here.now_s

    time = monotonic


class _Os:
    """`os` for what makes ids of its own: none of them is by chance."""

    def __init__(self, first: int = 1) -> None:
        self._numbers = itertools.count(first)

    def urandom(self, size_bytes: int) -> bytes:
        return next(self._numbers).to_bytes(size_bytes, "big")


class _Lessee(lease_links.Lessee):
    """Its set in the order of insertion."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self.guests: Any = OrderedSet()


class Cluster(RuntimeWorld):
    """See the module. Subclasses say what programs do, by `drive`, and what must hold."""

    steps_min, steps_max = 40, 130

    def set_up(self) -> None:
        chance = self.chance
        self.node: Any = _Everybody(self)
        self.machines: list[ClusterNode] = []
        self.here: ClusterNode
        self.acting: Any = None  # the process that does something; None for a daemon
        self.doors: dict[str, cluster_nodes.Door] = {}
        self.dials: dict[cluster_nodes.Dial, None] = {}
        self.parted: dict[tuple[ClusterNode, ClusterNode], None] = {}  # nothing gets from the first to the second
        self.process_numbers = cluster_nodes.process_numbers()
        self.drivers: list[Any] = []
        self.is_settling = False
        self.rest_count = 0
        self.is_collected = False
        self.acted: list[Any] = []
        self.unchecked: dict[ClusterNode, None] = {}
        self.told: dict[
            ClusterNode, dict[str, bool]
        ] = {}  # which nodes live, as machines were told, when it was looked at last
        self.fault_count = 0  # ends and breaks, each of which may cost whatever is under way one attempt
        self.last_fault_s = 0.0
        self.heads = 0
        self.keeps = chance.happens(70)
        self.records: dict[str, bytes] = {}
        self.disk: Disk | None = None
        self.starts_max = 1 + chance.below(2)
        self.driver_count = 1 + chance.below(2)
        self._choose_faults()
        self._begin_head()
        for number in range(2, 3 + chance.below(2)):
            more = {SPECIAL: UNIT, SEAT: 100 * UNIT} if number == 2 else {}
            self._join(f"10.0.0.{number}:1", {CPU: UNIT * (1 + chance.below(2)), SLOT: 2 * UNIT, **more})
        if not chance.happens(15):  # else programs begin while machines are coming
            self._let_join()
        for _ in range(self.driver_count):
            self._begin_program()

    def _choose_faults(self) -> None:
        chance = self.chance
        self.faults_left = chance.choose((0, 1, 2, 4))
        self.nat_percent = chance.choose((0, 0, 50, 100))
        self.deeds: tuple[Callable[[], object], ...] = (
            self.deliver_one, self._let_run, self._housekeep, self._fork_or_reap, self._pass_time, self._dial, self._commit,
            self._begin_program, self._break_wire, self._part, self._heal, self._jump, self._crash, self._crash_machine,
            self._crash_head, self._come_back, self._drain,
        )  # fmt: skip
        of_faults = [chance.choose((0, 1, 2)) for _ in range(7)] if self.faults_left else [0] * 7
        breaks, parts, jumps, crashes, machines, heads, drains = of_faults
        self.weights = [
            chance.choose((12, 24)), chance.choose((8, 16)), 2, 5, 1 + chance.below(3), 4, chance.choose((1, 4)), 1, breaks,
            parts, int(parts > 0), jumps, crashes, machines, heads if self.keeps else 0,
            int(machines + heads + drains > 0), drains,
        ]  # fmt: skip

    def run(self) -> None:
        clock = _ClockHere(self)
        timed = [(module, "time", clock) for module in (*processes._TIMED, remote_links)]
        with attributes(
            *timed,
            (dialler, "Dialler", lambda _poller, _token, **more: Dialler(self, **more)),
            (door, "Door", cluster_nodes.make_door(self)),
            (door, "pass_on", cluster_nodes.pass_on(self)),
            (forwarder, "Forwarder", lambda _directory: cluster_nodes.Forwarder(self)),
            (ways, "os", _Os(1 << 64)),
            (node_service, "os", _Os(1 << 65)),
            (connection, "Connection", Wire),
            (addresses, "unacknowledged_bytes", cluster_nodes.unacknowledged_bytes),
            (addresses, "unanswered_s", lambda _wire: 0.0),  # which break when chance has it
            (addresses, "let_read_late", lambda _wire: None),
            (addresses, "bear", lambda _silence_s: None),
            (lease_links, "Lessee", _Lessee),
            (ids, "os", _Os()),
            (other_nodes, "token_of", lambda _config: cluster_nodes.TOKEN),
            (sessions, "note_outliving", lambda *_: None),  # nobody looks for it
            (service, "_log", lambda line: self.note("    %s: %s", self.here.name, line)),
        ):
            super().run()

    def connect(self, name: str, other_name: str) -> tuple[Any, Any]:
        near, far = Wire(self, name), Wire(self, other_name)
        near.other, far.other = far, near
        near.is_slow, far.is_slow = self.chance.happens(self.slow_percent), self.chance.happens(self.slow_percent)
        self.streams += (near, far)
        return near, far

    # Machines

    @property
    def head(self) -> ClusterNode:
        """Which may be dead."""
        return self.doors[HEAD_ADDRESS].machine

    def living_machines(self) -> list[ClusterNode]:
        return [machine for machine in self.machines if not machine.is_dead]

    def _make_machine(self, address: str, resources: dict[str, int], *, is_head: bool) -> ClusterNode:
        number = len(self.machines) + 1
        machine = ClusterNode(self, number, address, resources, self.chance.choose((1.0, 1.0, 0.95, 1.05)))
        self.here = machine
        self.machines.append(machine)
        self.note("%s begins%s, with %s", machine.name, " as the head" if is_head else "", resources)
        self.disk = Disk(self.records) if is_head and self.keeps else self.disk
        machine.daemon = Daemon(
            machine, is_head=is_head, disk=self.disk if is_head else None, starts_max=self.starts_max
        )
        return machine

    def _begin_head(self) -> None:
        self.heads += 1
        self._make_machine(HEAD_ADDRESS, {CPU: UNIT * (1 + self.chance.below(2)), SLOT: 2 * UNIT}, is_head=True)

    def _join(self, address: str, resources: dict[str, int]) -> None:
        machine = self._make_machine(address, resources, is_head=False)
        machine.is_behind_nat = self.chance.happens(self.nat_percent)
        if machine.is_behind_nat:
            self.note("nobody can dial %s", machine.name)

    def _let_join(self) -> None:
        """Without chance: all know each other."""
        for _ in range(JOIN_ROUNDS_MAX):
            if all(machine.daemon.control.driver_trouble() == "" for machine in self.machines[1:]):
                break
            self.pass_time(0.1)
            self._do_all()
        self._do_all()

    def _do_all(self) -> None:
        """Deliver, dial and write whatever there is, but let no program run."""
        while True:
            for dial in [*self.dials]:
                dial.dialler.go_on(dial)
            waiting = [stream for stream in self.streams if stream.inbox]
            if self.disk is not None and self.disk.under_way:
                self.write(self.head)
            elif not waiting:
                return
            for stream in waiting:
                if stream.inbox:
                    self._deliver(stream)

    def on_machine(self, machine: ClusterNode, deed: Callable[[], object]) -> None:
        """Its daemon does something."""
        if machine.is_dead:
            return
        before = self.here, self.acting, current.running_engine()
        self.here, self.acting = machine, None
        self.unchecked[machine] = None
        try:
            deed()
        finally:
            self.here, self.acting = before[:2]
            current.set_engine(before[2])

    def _let_act(self, process: Any, deed: Callable[[], object]) -> None:
        before = getattr(self, "here", None), self.acting, current.running_engine()
        self.here, self.acting = process.node, process
        try:
            super()._let_act(process, deed)
        finally:
            self.here, self.acting = before[:2]  # type: ignore[assignment]  # a process is on a machine
            current.set_engine(before[2])

    let_act = _let_act

    def is_parted(self, sender: ClusterNode, receiver: ClusterNode) -> bool:
        return sender.has_vanished or receiver.has_vanished or (sender, receiver) in self.parted

    def next_to_deliver(self) -> Stream | None:
        if not self.parted and not any(machine.has_vanished for machine in self.machines):
            return super().next_to_deliver()
        streams = self.streams
        self.streams = [one for one in streams if one.inbox and not one.is_held_up()]  # type: ignore[attr-defined]
        try:
            return super().next_to_deliver()
        finally:
            self.streams = streams

    def _deliver(self, stream: Stream) -> None:
        if stream.owner is None:
            machine = stream.machine  # type: ignore[attr-defined]  # all are `Wire`s
            self.on_machine(machine, stream.deliver)
        else:
            super()._deliver(stream)

    # Programs

    def _begin_program(self) -> bool:
        """On any machine, as many as there are to be."""
        machines = [one for one in self.living_machines() if not one.daemon.control.driver_trouble()]
        machines = [one for one in machines if not one.daemon._end_at_s]
        if len(self.drivers) >= self.driver_count or not machines:
            return False
        machine = self.chance.choose(machines)
        process_id = machine.new_process_id()
        self.here, self.acting = machine, None
        driver = Driver(machine, f"d{int.from_bytes(process_id[10:], 'big')}", process_id)
        self.note("program %s begins on %s", driver.name, machine.name)
        driver.spawn(lambda: self.drive(driver), "main")
        self.drivers.append(driver)
        return True

    # What happens

    def act(self) -> None:
        self.deeds[self.chance.weighted(self.weights)]()
        self.forget_closed()

    def _housekeep(self) -> None:
        if self.node.living:
            super()._housekeep()

    def _fork_or_reap(self) -> None:
        self._prepare()

    def _prepare(self) -> bool:
        """A worker is forked or its end heard of, or an environment's server is there; whether there was one."""
        busy = [one for one in self.living_machines() if one.starting or one.exited or one.building]
        if not busy:
            return False
        machine = self.chance.choose(busy)
        if machine.building:
            server = machine.building.pop(0)
            self.on_machine(machine, lambda: machine.daemon.environments.ready(server))
        elif machine.exited and (not machine.starting or self.chance.happens(50)):
            self._reap_on(machine, self.chance.below(len(machine.exited)))
        else:
            self._fork_on(machine, self.chance.choose(machine.starting))
        return True

    def _fork_on(self, machine: ClusterNode, worker: str) -> None:
        machine.starting.remove(worker)
        number = int(worker[20:], 16)
        self.note("w%d starts on %s", number, machine.name)
        self.here, self.acting = machine, None
        WorkerProcess(machine, f"w{number}", bytes.fromhex(worker))

    def _reap_on(self, machine: ClusterNode, index: int) -> None:
        worker, code = machine.exited.pop(index)
        self.note("%s hears of the end of w%d", machine.name, int(worker[20:], 16))
        self.on_machine(machine, lambda: machine.daemon.reports.on_worker_exited(worker, max(0, code), max(0, -code)))

    def _pass_time(self) -> None:
        self.pass_time(self.chance.choose((0.01, 0.1, 0.4, 1.0, 4.0)))

    def pass_time(self, duration_s: float) -> None:
        """Daemons look at what is due when it is, or all too late, as they have stood still."""
        self.note("%s s pass", duration_s)
        until_s = self.now_s + duration_s
        due = self._look_in_time(until_s) if duration_s < STANDSTILL_S else {}
        self.now_s = until_s
        for machine in self.living_machines():
            if due.get(machine, 0.0) <= until_s or machine.daemon.is_ending:
                self._look(machine)

    def _look_in_time(self, until_s: float) -> dict[ClusterNode, float]:
        """Returns when something is due of each then."""
        due = {machine: machine.due_s() for machine in self.living_machines()}
        for _ in range(LOOKS_MAX):
            machine, due_s = min(due.items(), key=lambda one: one[1], default=(self.head, until_s))
            if due_s >= until_s:
                return due
            self.now_s = max(self.now_s, due_s + 1e-6)  # more than is lost by rounding
            self._look(machine)
            due = {one: one.due_s() if one is machine else at_s for one, at_s in due.items() if not one.is_dead}
        self.must(False, "A12", "%s look again and again", [(one.name, at_s) for one, at_s in due.items()])
        return due

    def _look(self, machine: ClusterNode) -> None:
        self.on_machine(machine, machine.daemon.tick)
        if machine.daemon.has_ended:
            self._resign(machine)

    def _dial(self) -> None:
        if self.dials:
            dial = self.chance.choose([*self.dials])
            dial.dialler.go_on(dial)

    def _commit(self) -> bool:
        """What the head writes is written; whether it writes anything."""
        if self.disk is None or not self.disk.under_way or self.head.is_dead:
            return False
        self.write(self.head)
        return True

    def write(self, head: ClusterNode) -> None:
        disk = self.disk
        if disk is None or head is not self.head or not disk.under_way:
            raise AssertionError(f"{head.name} has nothing to write")
        command = disk.write()
        self.note("commit %d is done", command.number)
        disk.heard.append(journal.Committed(command.fencing, command.number, head.now_s))
        self.on_machine(head, head.daemon.tick)

    # What goes wrong

    def _may_fail_now(self) -> bool:
        self.faults_left -= 1
        self.last_fault_s = self.now_s
        return self.faults_left >= 0

    def _break_wire(self) -> None:
        between = [
            one for one in self.streams
            if not one.is_closed and not one.other.is_closed and one.machine is not one.other.machine  # type: ignore[attr-defined]
        ]  # fmt: skip
        if between and self._may_fail_now():
            wire: Any = self.chance.choose(between)
            self.note("the connection %s BREAKS", wire.name)
            self.fault_count += 1
            wire.break_off()

    def _part(self) -> None:
        living = self.living_machines()
        if len(living) < 2 or not self._may_fail_now():
            return
        one = self.chance.choose(living)
        other = self.chance.choose([machine for machine in living if machine is not one])
        is_one_way = self.chance.happens(30)
        self.note("nothing gets from %s to %s%s", one.name, other.name, "" if is_one_way else ", nor back")
        self.fault_count += 1
        self.parted[one, other] = None
        if not is_one_way:
            self.parted[other, one] = None

    def _heal(self) -> None:
        if self.parted:
            self.note("all reach each other")
            self.parted.clear()

    def _jump(self) -> None:
        """A clock."""
        machine = self.chance.choose(self.machines)
        if not machine.is_dead and self._may_fail_now():
            machine.jumped_s += self.chance.choose((0.3, 2.0, 30.0))
            machine.wall_offset_s += self.chance.choose((-1e4, 1e4))
            self.note("the clocks of %s jump", machine.name)

    def _crash(self) -> None:
        """A worker, or a program."""
        is_worker = not self.chance.happens(20)
        processes_ = [one for one in self.node.living if isinstance(one, WorkerProcess) is is_worker]
        if processes_ and self._may_fail_now():
            self.kill(self.chance.choose(processes_))

    def _drain(self) -> None:
        machines = [one for one in self.living_machines() if one is not self.head and not one.was_drained]
        if not machines or self.head.is_dead or not self._may_fail_now():
            return
        machine = self.chance.choose(machines)
        left_s = self.chance.choose((0.0, 1.0, 5.0))
        self.note("%s is to be drained within %s s", machine.name, left_s)
        machine.was_drained = True
        self.fault_count += 4
        drain = self.head.daemon.others.link.drain
        self.on_machine(
            self.head, lambda: drain(machine.node_id, "preemption", "it is needed", left_s, lambda *_: None)
        )

    def kill(self, process: Machine) -> None:
        machine: Any = process.node
        self.note("%s of %s DIES", process.name, machine.name)
        self.fault_count += 1
        process.die()
        if isinstance(process, WorkerProcess):
            machine.exited.append((process.id.hex(), -9))

    def killed_by_daemon(self, worker: str) -> None:
        machine = self.here
        if worker in machine.starting:
            machine.starting.remove(worker)
            machine.exited.append((worker, -9))
            return
        process = machine.processes.get(bytes.fromhex(worker))
        if isinstance(process, Machine) and not process.is_dead:
            self.kill(process)

    def _exit(self, process: Any, code: int) -> None:
        self.note("%s exits with code %d", process.name, code)
        process.die()
        if isinstance(process, WorkerProcess):
            process.node.exited.append((process.id.hex(), code))

    def progress_of(self, worker: str) -> int:
        process = self.here.processes.get(bytes.fromhex(worker))
        return process.started if isinstance(process, WorkerProcess) else -1

    def _crash_machine(self) -> None:
        machines = [one for one in self.living_machines() if one is not self.head]
        if machines and self._may_fail_now():
            self.end_machine(self.chance.choose(machines), has_vanished=self.chance.happens(40))
            if self.chance.happens(50):
                self._come_back()  # before anybody knows that it was away

    def _crash_head(self) -> None:
        if self.head.is_dead or len(self.machines) >= NODES_MAX or not self._may_fail_now():
            return
        if self.disk is not None and self.disk.under_way and self.chance.happens(50):
            self.disk.write()  # and nobody hears of it
        self.end_machine(self.head, has_vanished=self.chance.happens(30))

    def end_machine(self, machine: ClusterNode, *, has_vanished: bool) -> None:
        self.note("%s %s, with all that runs there", machine.name, "VANISHES" if has_vanished else "DIES")
        self.fault_count += 4
        machine.die(has_vanished=has_vanished)
        for stream in self.streams:
            if stream.machine is machine and not stream.is_closed:  # type: ignore[attr-defined]
                stream.cut(kept=self.chance.below(len(stream.other.inbox) + 1))
        self.forget_closed()

    def _resign(self, machine: ClusterNode) -> None:
        """A daemon has ended by itself."""
        self.resigned(machine)
        self.end_machine(machine, has_vanished=False)

    def resigned(self, machine: ClusterNode) -> None:
        """Whether it may have."""

    def _come_back(self) -> bool:
        """A head in the place of one that is dead, or a machine like one that is, mostly where that was; whether there is one
        missing."""
        if self.head.is_dead:
            self._begin_head()
            return True
        there = [one.resources for one in self.living_machines()]
        lacking = [one for one in self.machines if one.is_dead and SPECIAL in one.resources]
        if not lacking or any(SPECIAL in one for one in there):
            return False
        before = lacking[-1]
        is_elsewhere = before.address == HEAD_ADDRESS or self.chance.happens(30)
        address = f"10.0.0.{len(self.machines) + 1}:1" if is_elsewhere else before.address
        self._join(address, before.resources)
        return True

    # Coming to rest

    def settle(self) -> None:
        self.is_settling = True
        if self.parted or any(machine.has_vanished for machine in self.machines):
            self._outlast()
        self._heal()
        while self._come_back():
            pass
        until_s = self.now_s + REST_S
        until_rest_s = self.now_s + PATIENCE_S
        for _ in range(QUIET_ROUNDS_MAX):
            if self._do_one():
                self.is_collected = False
                self.check()
            elif self.now_s < until_s or (self.now_s < until_rest_s and not self.is_quiet()):
                if any(driver.turns for driver in self.drivers if not driver.is_dead):
                    until_s = self.now_s + REST_S
                    self.must(self.now_s < until_rest_s, "R2", "programs never end: %s", self.what_waits())
                self._settle_in_time()
            else:
                return
        self.must(False, "R2", "it goes on and on")

    def what_waits(self) -> list[str]:
        """As the daemons say it."""
        return [
            f"{machine.name}: {one['count']} of {one['needs']}: {one['reason']}"
            for machine in self.living_machines()
            for one in machine.daemon.pending()
        ]

    def is_quiet(self) -> bool:
        """Whether the head has given up what is dead."""
        return len(self.head.daemon.others.link.table.alive) == len(self.living_machines())

    def _do_one(self) -> bool:
        did = [self.deliver_one(), self._let_run(), self._prepare(), self._commit()]
        if self.dials:
            self._dial()
        self.forget_closed()
        return any(did)

    def _outlast(self) -> None:
        """What cannot be heard is declared dead, in some runs; all who can be heard are."""
        until_s = self.now_s + self.chance.choose((0.0, OUTLAST_S, 2 * HEAD_LOST))
        while self.now_s < until_s:
            for _ in range(200):
                if not self._do_one():
                    break
                self.check()
            self.pass_time(0.9)

    def _settle_in_time(self) -> None:
        self.pass_time(self.chance.choose(REST_STEPS_S))
        while self._come_back():
            pass
        self.collect_now_and_then()
        for process in self.node.living:
            self._let_act(process, process.engine._housekeeping)

    def check(self) -> None:
        while self.unchecked:
            machine, _ = self.unchecked.popitem()
            if not machine.is_dead:
                machine.daemon.check_all()
                self._check_told(machine)
        while self.acted:
            self.check_process(self.acted.pop())

    def _check_told(self, machine: ClusterNode) -> None:
        """It has been told of no node what a head that began now would not know."""
        link = machine.daemon.others.link
        if not self.keeps or link.is_head:
            return
        told = {node_id: bool(facts["alive"]) for node_id, facts in link._membership.nodes.items()}
        if told == self.told.get(machine):
            return
        self.told[machine] = told
        for node_id, is_alive in told.items():
            record = json.loads(self.records.get(f"node/{node_id}", b"{}\n").partition(b"\n")[0])
            is_kept = bool(record) and (is_alive or record["ended_s"] is not None)
            self.must(is_kept, "B2", "%s was told that %s is %s: %s", machine.name, node_id, is_alive, record)


HEAD_LOST: Final = cluster_nodes.HEAD_LOST_S

__all__ = ["Cluster", "ClusterNode", "Driver", "WorkerProcess"]
