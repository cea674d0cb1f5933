"""A whole simulated node: the production daemon, drivers and workers, whose threads take turns.

Drivers and workers run the production code from the user's function down, blocking calls included. Each of their
threads is a fiber; it pauses where the thread would wait, and where the user's code says so. Forks, exits, kills, the
passing of time and whose turn it is are chance.
"""

from __future__ import annotations

import contextvars
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from umbel._agent.ledger import CPU, UNIT
from umbel._base import config as configuration
from umbel._client import current, links, native, waits
from umbel._transport import reactor
from umbel._worker import actor, main, output
from umbel.testing.simulation.daemon import FIRST_WORKER, Daemon
from umbel.testing.simulation.fibers import Exited, Fiber
from umbel.testing.simulation.processes import CONFIG, Engine, Node, Process, attributes, collect_cycles, surroundings
from umbel.testing.simulation.world import Stream, World

QUIET_ROUNDS_MAX = 20_000
MEMORY_BYTES = 16 << 20  # of the node: five times what a killed task was seen to hold
PEAK_BYTES = 3 << 20  # of a task that was killed for memory
QUIET_S = 60.0  # idle leases, idle workers and whatever else waits for time have gone by then
COLLECT_EVERY = 3  # rounds of rest, if anything has happened since; most find no cycle
SHORTAGE: dict[str, Any] = {  # what the daemon tells of a worker that it killed for memory
    "source": "simulated processes use", "used_bytes": 100, "limit_bytes": 100, "allowed_bytes": 95, "pid": 1,
    "peak_bytes": PEAK_BYTES, "resident_bytes": PEAK_BYTES, "demand_bytes": 0, "alone": False,
    "curve": [[0.0, 1], [1.0, PEAK_BYTES]], "others": [], "outside_bytes": 0,
}  # fmt: skip
NOT_STARTED = b"\xff" * 8  # the progress of a worker that has started nothing: -1


class Turn(Fiber):
    """A thread of a process: `waiter` is what it waits for, until `deadline_s`. A moment passes whenever it likes."""

    waiter: reactor.Waiter | None = None
    deadline_s: float | None = None

    def __init__(self, process: Machine, body: Callable[[], None], name: str) -> None:
        super().__init__(body, name)
        self.process = process

    def is_ready(self) -> bool:
        waiter = self.waiter
        return waiter is None or waiter.done or self.process.is_interrupted or self.is_late()

    def is_late(self) -> bool:
        return self.deadline_s is not None and self.process.world.now_s + waits.BLOCK_AFTER_S >= self.deadline_s


class Machine(Process):
    """A process with threads. What it has sent is the system's: it arrives even if the process dies."""

    loses_sent = False
    world: RuntimeWorld

    def __init__(self, node: Node, name: str, process_id: bytes) -> None:
        self.turns: list[Turn] = []
        self.is_interrupted = False
        self.must_die = False
        super().__init__(node, name, process_id)

    def spawn(self, body: Callable[[], None], name: str) -> Turn:
        turn = Turn(self, body, f"{self.name}.{name}")
        self.turns.append(turn)
        return turn

    def pause(self) -> None:
        """The user's code takes a while."""
        self._turn().pause()
        self.raise_interrupt()

    def crash(self) -> None:
        """The user's code brings its process down. Does not return."""
        self.must_die = True
        self._turn().pause()

    def _turn(self) -> Turn:
        for turn in self.turns:
            if turn.is_current():
                return turn
        raise AssertionError(f"{self.name} waits where nobody may: a message or housekeeping is being handled")

    def wait(self, waiter: reactor.Waiter, deadline_s: float | None) -> bool:
        turn = self._turn()
        turn.waiter, turn.deadline_s = waiter, deadline_s
        try:
            while True:
                turn.pause()
                self.raise_interrupt()
                if waiter.done or turn.is_late():
                    return waiter.done
        finally:
            turn.waiter = None

    def raise_interrupt(self) -> None:
        """Raise KeyboardInterrupt if the running task has been cancelled, as the signal's handler would."""

    def die(self) -> None:
        super().die()
        for turn in self.turns:
            turn.kill()


class Driver(Machine):
    """The user's program."""

    def make_engine(self) -> Engine:
        engine = Engine(self, kind="driver")
        engine.start()
        return engine


class _Worker(main.Worker):
    """The production worker; its progress is not in a file."""

    def _open_progress(self) -> Any:
        return bytearray(NOT_STARTED + b"\0")


class WorkerProcess(Machine):
    """A forked worker."""

    def make_engine(self) -> Engine:
        with attributes(
            (native, "NativeEngine", lambda **options: Engine(self, **options)),
            (configuration.Config, "from_environment", lambda: CONFIG),
        ):
            self.worker = _Worker({"id": self.id.hex(), "session_dir": ""})
        self.spawn(self._run, "main")
        engine: Any = self.worker.engine
        return engine  # type: ignore[no-any-return]  # ours, see above

    def _run(self) -> None:
        self.worker._main_thread = threading.get_ident()
        self.worker.run()

    def raise_interrupt(self) -> None:
        if self.is_interrupted and self.worker._main_thread == threading.get_ident():
            self.is_interrupted = False
            if self.worker._take_cancel():
                raise KeyboardInterrupt

    @property
    def started(self) -> int:
        return int.from_bytes((self.worker._progress or NOT_STARTED)[:8], "little", signed=True)

    def die(self) -> None:
        self.worker._queue.clear()
        super().die()


class _Host(actor.Host):
    """The production host of an actor; the threads of its pools are fibers."""

    def _start(self, job: Any) -> None:
        process = self._engine.process  # type: ignore[attr-defined]  # the engine is ours
        in_context = contextvars.copy_context().run
        process.spawn(lambda: in_context(self._run_in_thread, job), f"call{job.seq}")


class _Os:
    """`os` for workers: ending the process ends the simulated one."""

    environ: dict[str, str]

    def __init__(self) -> None:
        self.environ = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @staticmethod
    def _exit(code: int) -> None:
        raise Exited(code)


class _Signal:
    """`signal` for workers: a signal to a thread is noted for its next pause."""

    SIGINT = signal.SIGINT

    def __init__(self, world: RuntimeWorld) -> None:
        self._world = world

    def signal(self, *_arguments: object) -> None:
        """Handlers are called by the simulation."""

    def pthread_kill(self, thread: int, _number: int) -> None:
        for process in self._world.node.living:
            if isinstance(process, WorkerProcess) and process.worker._main_thread == thread:
                process.is_interrupted = True


class RuntimeNode(Node):
    """A node with the production daemon."""

    daemon: Daemon

    def connected(self, process: Process) -> None:
        self.daemon.hub.accept(process.agent_end)


class RuntimeWorld(World):
    """A node and what goes on in it. Subclasses say what drivers do, by `drive`, and what must hold."""

    steps_min, steps_max = 60, 260
    driver_count_max = 2

    def set_up(self) -> None:
        chance = self.chance
        self.node = RuntimeNode(self)
        self.cpu_count = 1 + chance.below(3)
        self.node.daemon = Daemon(
            self,
            {CPU: UNIT * self.cpu_count, "memory": UNIT * MEMORY_BYTES},
            on_start=lambda worker, _env: self.starting.append(worker),
            on_kill=self._killed,
            progress_of=self._progress_of,
            starts_max=1 + chance.below(3),
            recycle_s=chance.choose((None, 0.5, 5.0)),
        )
        self.starting: list[str] = []
        self.exited: list[tuple[str, int]] = []  # processes whose end the daemon has not heard of, and their exit code
        self.is_settling = False
        self.rest_count = 0
        self.is_collected = False  # nothing has happened since cycles were looked for
        self.quiet_count = 0  # rounds of rest in a row after which nothing happened
        self.acted: list[Any] = []  # processes that did something since they were checked
        self.crash_count = 0
        self.memory_percent = 0  # of the crashes that are kills for memory
        self.killed_for_memory: dict[str, bool] = {}  # worker -> whether it was alone
        daemon: Any = self.node.daemon
        daemon.memory._take_report = self._memory_report
        self.crashes_left = chance.choose((0, 0, 1, 2, 4))
        # deliver, let a thread run, housekeeping, fork or reap, time, crash
        self.weights = [
            chance.choose((4, 8, 16)),
            chance.choose((4, 8, 16)),
            1 + chance.below(4),
            2,
            1 + chance.below(3),
            0,
        ]
        self.weights[5] = int(self.crashes_left > 0)
        self.drivers = [self._drive(number) for number in range(1, 2 + chance.below(self.driver_count_max))]

    def _drive(self, number: int) -> Driver:
        driver = Driver(self.node, f"d{number}", number.to_bytes(16, "big"))
        driver.spawn(lambda: self.drive(driver), "main")
        return driver

    def drive(self, driver: Driver) -> None:
        """The program of a driver; runs in a fiber."""
        raise NotImplementedError  # each world has its own

    def run_guarded(self) -> None:
        system = attributes(
            (main, "os", _Os()),
            (main, "signal", _Signal(self)),
            (output, "install", lambda *_: []),
            (actor, "Host", _Host),
        )
        with surroundings(self), system:
            try:
                self.run()
            finally:
                for process in self.node.living:
                    process.die()

    # Steps

    def act(self) -> None:
        action = self.chance.weighted(self.weights)
        if action == 0 and self.deliver_one():
            return
        if action <= 1 and self._let_run():
            return
        (self._housekeep, self._housekeep, self._housekeep, self._fork_or_reap, self._pass_time, self._crash)[action]()

    def deliver_one(self) -> bool:
        stream = self.next_to_deliver()
        if stream is None:
            return False
        self._deliver(stream)
        return True

    def _deliver(self, stream: Stream) -> None:
        process = stream.owner
        if process is None:
            stream.deliver()
        else:
            self._let_act(process, stream.deliver)

    def _let_act(self, process: Any, deed: Callable[[], object]) -> None:
        """What happens is that process's doing; it may end itself."""
        current.set_engine(process.engine)
        self.acted.append(process)
        try:
            deed()
        except Exited as end:
            self._exit(process, end.code)
        if self.violation is not None:
            raise self.violation

    def _let_run(self) -> bool:
        ready = [
            turn
            for process in self.node.living
            if isinstance(process, Machine)
            for turn in process.turns
            if not turn.is_over and turn.is_ready()
        ]
        if not ready:
            return False
        turn = self.chance.choose(ready)
        self._let_act(turn.process, turn.step)
        if turn.is_over and turn in turn.process.turns:
            turn.process.turns.remove(turn)
        if turn.process.must_die and not turn.process.is_dead:
            self.kill(turn.process)
        return True

    def _housekeep(self) -> None:
        process = self.chance.choose(self.node.living)
        self._let_act(process, process.engine._housekeeping)

    def _fork_or_reap(self) -> None:
        if self.exited and (not self.starting or self.chance.happens(50)):
            self._reap(self.chance.below(len(self.exited)))
        elif self.starting:
            self._fork(self.chance.choose(self.starting))

    def _fork(self, worker: str) -> None:
        self.starting.remove(worker)
        self.note("w%d starts", int(worker, 16))
        WorkerProcess(self.node, f"w{int(worker, 16)}", bytes.fromhex(worker))

    def _reap(self, index: int) -> None:
        worker, code = self.exited.pop(index)
        self.note("the daemon hears of the end of w%d", int(worker, 16))
        self.node.daemon.reports.on_worker_exited(worker, max(0, code), max(0, -code))

    def _pass_time(self) -> None:
        self.pass_time(self.chance.choose((0.001, 0.03, 0.6, 3.0)))

    def pass_time(self, duration_s: float) -> None:
        self.note("%s s pass", duration_s)
        self.node.daemon.pass_time(duration_s)

    def _crash(self) -> None:
        workers = [process for process in self.node.living if isinstance(process, WorkerProcess)]
        if not (workers and self.crashes_left):
            return
        self.crashes_left -= 1
        known = self.node.daemon.agent.workers
        used = [one for one in workers if (its := known.get(one.id.hex())) is not None and its.lease is not None]
        if used and self.memory_percent and self.chance.happens(self.memory_percent):
            worker = self.chance.choose(used)  # the daemon kills no others for it
            self.killed_for_memory[worker.id.hex()] = self.chance.happens(50)
        else:
            worker = self.chance.choose(workers)
        self.kill(worker)

    def _memory_report(self, worker: str) -> dict[str, Any] | None:
        is_alone = self.killed_for_memory.get(worker)
        return None if is_alone is None else {**SHORTAGE, "alone": is_alone}

    def kill(self, process: Machine) -> None:
        """It dies in the midst of whatever it does."""
        self.note("%s DIES", process.name)
        self.crash_count += 1
        process.die()
        if isinstance(process, WorkerProcess):
            self.exited.append((process.id.hex(), -9))

    def _killed(self, worker: str) -> None:
        """The daemon wants the process dead."""
        if worker in self.starting:
            self.starting.remove(worker)
            self.exited.append((worker, -9))
            return
        process = self.node.processes.get(bytes.fromhex(worker))
        if isinstance(process, Machine) and not process.is_dead:
            self.kill(process)

    def _exit(self, process: Any, code: int) -> None:
        """It ends by itself: what it had sent arrives."""
        self.note("%s exits with code %d", process.name, code)
        process.die()
        self.exited.append((process.id.hex(), code))

    def _progress_of(self, worker: str) -> int:
        process = self.node.processes.get(bytes.fromhex(worker))
        return process.started if isinstance(process, WorkerProcess) else -1

    # Coming to rest

    def settle(self) -> None:
        self.is_settling = True
        until_s = self.now_s + QUIET_S
        for _ in range(QUIET_ROUNDS_MAX):
            # All get their turns, lest one keeps the others from ever having theirs.
            did = [self.deliver_one(), self._let_run()]
            if self.exited:
                did.append(True)
                self._reap(0)
            if self.starting:
                did.append(True)
                self._fork(self.starting[0])
            if any(did):
                self.quiet_count = 0
                self.is_collected = False
                self.check()
            elif self.now_s < until_s:
                self._settle_in_time()
            else:
                return
        self.must(False, "R2", "it goes on and on")

    def _settle_in_time(self) -> None:
        """Nothing happens by itself any more: time passes, the more the longer it has been so, and everybody looks after
        what is his."""
        due_s = self.node.daemon.due_s()
        self.quiet_count += 1
        step_s = self.quiet_count * (0.6 if self.chance.below(2) else 4.0)
        if due_s is not None:
            step_s = min(step_s, max(1e-6, due_s - self.now_s))
        self.pass_time(step_s)
        self.collect_now_and_then()
        for process in self.node.living:
            self._let_act(process, process.engine._housekeeping)

    def collect_now_and_then(self) -> None:
        """In rounds of rest."""
        self.rest_count += 1
        if self.rest_count % COLLECT_EVERY == 1 and not self.is_collected:
            self.is_collected = True
            collect_cycles()

    def check(self) -> None:
        """Of who did something since."""
        self.node.daemon.check()
        while self.acted:
            self.check_process(self.acted.pop())

    def check_process(self, process: Any) -> None:
        """What must hold within one that did something."""
        process.engine.values.table.check()


def process_here() -> Machine:
    """The process whose code is running."""
    process = current.engine().process
    return process  # type: ignore[no-any-return]  # an engine of ours


__all__ = ["FIRST_WORKER", "Driver", "Machine", "RuntimeWorld", "WorkerProcess", "links", "process_here"]
