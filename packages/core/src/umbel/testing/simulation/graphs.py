"""Compiled graphs: rings, loops, results and their ends, with memory that is seen late and processes that die at any point.

A driver compiles a graph of methods of actors, begins executions, reads results and lets go of them, by several threads.
Planning, channels, loops and the driver's side are the production code, down to the word that is written; threads are
fibers that may pause at each of them. The memory, the sleeping, the segments of the stores and the engines are the
simulation's.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from umbel import exceptions
from umbel._base import sessions
from umbel._client import actor as actor_api
from umbel._client import current
from umbel._client.graphs import backends, channels, loop, nodes, results
from umbel._model import options
from umbel._objects import segments
from umbel._transport import futex, reactor
from umbel.testing.simulation.fibers import Fiber, Killed
from umbel.testing.simulation.late_memory import View
from umbel.testing.simulation.processes import attribute, collect_cycles, surroundings
from umbel.testing.simulation.world import Violation, World

ACTORS_MAX = 3
CALLS_MAX = 4  # in a graph
EXECUTIONS_MAX = 6
PAUSE_PERCENT = 15  # of the looks at the memory
SLOT_BYTES = channels.SLOT_BYTES_MIN
LARGE_BYTES = SLOT_BYTES + 100  # of a value that goes through a segment
QUIET_ROUNDS_MAX = 5_000
LOOKS_IN_SPIN = 4
NODE = "node"
SPIN_STEP_S: Final = channels.SPIN_S / LOOKS_IN_SPIN or 1e-4


class Trouble(Exception):
    """What a method raises."""


class Performer:
    """The only actor class. What its method does is in the world's notes."""

    def __init__(self, process: Process | None = None) -> None:
        self._process = process

    def step(self, call: int, *inputs: Any) -> Any:
        process: Any = self._process
        return process.world.perform(process, call, inputs)


class Turn(Fiber):
    """A thread. address: of the word on which it sleeps; -1 for none. until: when it goes on by itself."""

    address = -1
    is_woken = False
    until_s: float | None = None
    condition: Callable[[], bool] | None = None

    def __init__(self, process: Process, body: Callable[[], None], name: str) -> None:
        super().__init__(body, name)
        self.process = process

    def is_ready(self) -> bool:
        if self.until_s is not None and self.process.world.now_s >= self.until_s:
            return True
        if self.address >= 0:
            return self.is_woken
        return self.condition is None or self.condition()


class Process:
    """One, with its view of the memory, its store of segments, and, as far as the graph asks, its engine."""

    def __init__(self, world: GraphsWorld, pid: int, name: str) -> None:
        self.world = world
        self.pid = pid
        self.title = name
        self.is_dead = False
        self.turns: list[Turn] = []
        self.view = View(world.there, world.chance)
        self.store = Store(self)
        # As an engine:
        self.name = "native"
        self.values = self
        self.process_id = abs(pid).to_bytes(16, "big")
        self.welcome = {"store_dir": "/nonexistent"}
        self.session_context = self
        self.node_id = NODE
        self.is_closed = False
        self.agent_is_gone = False

    def check_running(self) -> None:
        if self.is_closed:
            raise exceptions.UmbelSystemError("the session has ended")

    def spawn(self, body: Callable[[], None], name: str) -> None:
        self.turns.append(Turn(self, body, f"{self.title}.{name}"))

    def die(self) -> None:
        self.is_dead = True
        self.view.lose()
        self.store.lose()
        for turn in self.turns:
            turn.kill()


class Segment:
    """A segment of a store."""

    def __init__(self, name: str, owner: Process) -> None:
        self.name = name
        self.owner = owner
        self.data = bytearray()
        self.is_free = False

    @property
    def buffer(self) -> memoryview:
        self.owner.world.pause()  # between finding it and copying it
        return memoryview(bytes(self.data))


class Store:
    """A process's segments. One that is given back is used again at once, under the same name: the worst that a reader can
    meet."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.live: list[str] = []

    def create(self, size_bytes: int) -> Segment:
        world = self._process.world
        made = next((one for one in world.segments.values() if one.is_free and one.owner is self._process), None)
        if made is None:
            name = f"s{len(world.segments)}"
            made = world.segments[name] = Segment(name, self._process)
        made.is_free = False
        made.data = bytearray(size_bytes)
        self.live.append(made.name)
        return made

    def write(self, segment: Segment, offset: int, data: Any) -> None:
        segment.data[offset : offset + len(data)] = data

    def seal(self, _segment: Segment) -> None:
        """Nobody knows of it yet."""

    def open(self, name: str, _size_bytes: int) -> Segment:
        found = self._process.world.segments[name]
        if found.owner.is_dead and self._process.world.chance.happens(50):
            raise exceptions.ObjectLostError("its maker is dead, and the daemon has removed it")
        return found

    def free(self, name: str) -> None:
        world = self._process.world
        if self._process.is_dead:
            return
        world.must(name in self.live, "X5", "%s of %s was given back twice", name, self._process.title)
        self.live.remove(name)
        segment = world.segments[name]
        segment.is_free = True
        segment.data = bytearray(b"?" * len(segment.data))

    def lose(self) -> None:
        self.live.clear()


class _Words:
    """Words of the memory, all of one size."""

    def __init__(self, process: Process, kind: str) -> None:
        self._process = process
        self._kind = kind

    def __getitem__(self, index: int) -> int:
        process = self._process
        process.world.maybe_pause()
        found: int = process.view.load((self._kind, index), 0)
        return found

    def __setitem__(self, index: int, value: int) -> None:
        process = self._process
        process.world.maybe_pause()
        if not process.is_dead:
            process.view.store((self._kind, index), value)


class _Bytes:
    """The slots of the memory: what was put into one is one value."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __getitem__(self, place: slice) -> memoryview:
        self._process.world.maybe_pause()
        found = self._process.view.load(("bytes", place.start), b"")
        return memoryview(found[: place.stop - place.start])

    def __setitem__(self, place: slice, data: bytes) -> None:
        self._process.world.maybe_pause()
        if not self._process.is_dead:
            self._process.view.store(("bytes", place.start), bytes(data))


class Memory(channels.Memory):
    """The memory of a graph as a process sees it."""

    def __init__(self, process: Process, *, edges: int, slots: int, slot_bytes: int) -> None:
        self.edges = edges
        self.slots = slots
        self.slot_bytes = slot_bytes
        self.address = 0
        self.words = _Words(process, "word")  # type: ignore[assignment]  # as far as they are used
        self.halves = _Words(process, "half")  # type: ignore[assignment]
        self.bytes = _Bytes(process)  # type: ignore[assignment]


class Backend(backends.Channels):
    """The production side of the driver; its actors are processes of the simulation."""

    def _join(self, path: str) -> list[loop.Joined]:
        driver: Process = self._engine
        world, graph = driver.world, self._graph
        world.backend = self
        if world.chance.happens(3):
            raise exceptions.ActorDiedError("it died before it had joined")
        joined = []
        for index in range(len(graph.handles)):
            process = Process(world, index + 1, f"a{index}")
            world.actors.append(process)
            memory, mine = self._memory, process
            own = Memory(process, edges=memory.edges, slots=memory.slots, slot_bytes=memory.slot_bytes)
            order = loop.Order(
                NODE, path, memory.slots, memory.slot_bytes, index, graph.edges, graph.actors[index], self._process,
                self._name_of_graph, self._senders,
            )  # fmt: skip
            with world.acting(mine):
                serving = loop._Loop(mine, Performer(mine), own, order)
            process.spawn(serving.run, "loop")
            joined.append(loop.Joined(loop.Process(process.pid, 0), NODE))
        return joined

    def _death_of(self, index: int) -> BaseException | None:
        if self._engine.world.actors[index].is_dead:
            return exceptions.ActorDiedError("the daemon says that it is dead")
        return None

    def abandon(self) -> None:
        world: GraphsWorld = self._engine.world
        world.may_pause = False  # no exception leaves a `__del__`
        try:
            super().abandon()
        finally:
            world.may_pause = True


class _Fence:
    """`channels._fence`."""

    def __init__(self, world: GraphsWorld) -> None:
        self._world = world

    def __enter__(self) -> None:
        self._world.maybe_pause()
        self._world.here.view.fence()

    def __exit__(self, *_error: object) -> None:
        """It is over at once."""


class _Lock:
    """A lock for fibers."""

    def __init__(self, world: GraphsWorld) -> None:
        self._world = world
        self._is_held = False

    def __enter__(self) -> None:
        while self._is_held:
            self._world.wait_until(lambda: not self._is_held, None)
        self._is_held = True

    def __exit__(self, *_error: object) -> None:
        self._is_held = False


class _Deque(collections.deque[Any]):
    """A thread may stop before it takes something out."""

    world: GraphsWorld

    def popleft(self) -> Any:
        self.world.maybe_pause()
        return super().popleft()


class _Threading:
    """`threading` for the channels."""

    get_ident = staticmethod(threading.get_ident)

    def __init__(self, world: GraphsWorld) -> None:
        self._world = world

    def Lock(self) -> _Lock:  # as it is called there
        return _Lock(self._world)


class _Collections:
    """`collections` for the channels."""

    def __init__(self, world: GraphsWorld) -> None:
        self._world = world

    def deque(self) -> _Deque:
        made = _Deque()
        made.world = self._world
        return made


class _Os:
    """`os` for the graph's modules."""

    def __init__(self, world: GraphsWorld) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def urandom(self, count: int) -> bytes:
        return bytes(count)

    def sched_yield(self) -> None:
        self._world.now_s += SPIN_STEP_S
        self._world.pause()


class _Thread:
    """`_thread` for the driver's side."""

    def __init__(self, world: GraphsWorld) -> None:
        self._world = world

    def start_new_thread(self, body: Callable[[], None], _arguments: tuple[()]) -> None:
        self._world.here.spawn(body, "giving back")


class _Alarm(logging.Handler):
    """What a loop would log as a defect of its own ends the run, unless its process is dead."""

    def __init__(self, world: GraphsWorld) -> None:
        super().__init__()
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        world = self._world
        if record.levelno >= logging.ERROR and not world.here.is_dead and world.violation is None:
            world.violation = Violation("R1", record.getMessage())


class Noted:
    """A result as the simulation knows it."""

    def __init__(self, ref: Any, execution: int, output: int) -> None:
        self.ref = ref
        self.execution = execution
        self.output = output


class _Clock:
    """`time` for the graph's modules."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.now_s


class GraphsWorld(World):
    """See the module."""

    steps_min, steps_max = 60, 200

    def run_guarded(self) -> None:
        self.there: dict[tuple[str, int], Any] = {}
        self.names: set[str] = set()  # of files of memory
        self.actors: list[Process] = []
        self.segments: dict[str, Segment] = {}
        self.backend: Any = None
        self.may_pause = True
        self.driver = Process(self, 0, "d")
        self.here = self.driver  # the process that runs
        self.turn: Turn | None = None  # its thread
        clock = _Clock(self)
        system = _Os(self)
        alarm = _Alarm(self)
        with contextlib.ExitStack() as stack:
            stack.enter_context(surroundings(self))
            for owner, name, replacement in (
                *((module, "time", clock) for module in (channels, results, backends, loop)),
                *((module, "os", system) for module in (channels, backends)),
                (channels, "_fence", _Fence(self)),
                (channels, "collections", _Collections(self)),
                (channels, "threading", _Threading(self)),
                (channels, "make", self._make),
                (futex, "wait", self._sleep),
                (futex, "wake", self._wake),
                (reactor, "sleep_in", self._acquire),
                (segments, "remove", self.names.discard),
                (sessions, "is_alive", self._is_alive),
                (sessions, "start_time", lambda _pid: 0),
                (backends, "_thread", _Thread(self)),
                (backends, "Channels", Backend),
            ):
                stack.enter_context(attribute(owner, name, replacement))
            loop.logger.addHandler(alarm)
            stack.callback(loop.logger.removeHandler, alarm)
            try:
                self.run()
            finally:
                for process in (self.driver, *self.actors):
                    self._kill(process)
                if self.backend is not None:
                    self.backend._is_torn_down = True  # whoever still has it lets go of it in silence

    def set_up(self) -> None:
        chance = self.chance
        self.calls: list[
            tuple[int, list[int]]
        ] = []  # actor and inputs of each: earlier calls, or -1 for the graph's input
        actor_count = 1 + chance.below(ACTORS_MAX)
        for number in range(1 + chance.below(CALLS_MAX)):
            inputs = sorted({chance.below(number + 1) - 1 for _ in range(1 + chance.below(2))})
            self.calls.append((chance.below(actor_count), inputs))
        used = {one for _, inputs in self.calls for one in inputs}
        self.outputs = [number for number in range(len(self.calls)) if number not in used]
        self.in_flight_max = 1 + chance.below(3)
        self.buffered_max = 1 + chance.below(4)
        self.large_percent = chance.choose((0, 10, 50))
        self.trouble_percent = chance.choose((0, 0, 10))
        self.death_weight = chance.choose((0, 0, 1))
        self.kinds: dict[tuple[int, int], str] = {}  # (call, execution) -> plain, large or raise
        self.executing = _Lock(self)
        self.begun_count = 0  # executions
        self.read: set[tuple[int, int]] = set()  # results that somebody was given: (execution, output)
        self.is_settling = False
        self.is_torn_down = False
        self.has_ended = False  # the session
        self.driver.spawn(self._drive, "main")

    # The system

    def _make(self, path: str, *, edges: int, slots: int, slot_bytes: int) -> Memory:
        self.names.add(path)
        return Memory(self.driver, edges=edges, slots=slots, slot_bytes=slot_bytes)

    def _is_alive(self, pid: int, _started: int) -> bool:
        return not (self.driver if pid == os.getpid() else self.actors[pid - 1]).is_dead

    @contextlib.contextmanager
    def acting(self, process: Process, turn: Turn | None = None) -> Iterator[None]:
        """What happens within is that process's doing."""
        before = self.here, self.turn
        self.here, self.turn = process, turn
        engine: Any = process
        current.set_engine(engine)
        try:
            yield
        finally:
            self.here, self.turn = before

    def _kill(self, process: Process) -> None:
        if not process.is_dead:
            with self.acting(process):
                process.die()

    def pause(self) -> None:
        if self.here.is_dead:
            raise Killed
        if self.turn is not None and self.may_pause:
            self.turn.pause()

    def maybe_pause(self) -> None:
        if self.turn is not None and self.may_pause and self.chance.happens(PAUSE_PERCENT):
            self.turn.pause()

    def wait_until(self, condition: Callable[[], bool], until_s: float | None) -> None:
        turn = self.turn
        assert turn is not None
        turn.condition, turn.until_s = condition, until_s
        try:
            self.pause()
        finally:
            turn.condition = turn.until_s = None

    def _acquire(self, acquire: Any, _blocks: bool, timeout_s: float) -> bool:
        lock, until_s = acquire.__self__, self.now_s + timeout_s
        while not acquire(False):
            if self.now_s >= until_s:
                return False
            self.wait_until(lambda: not lock.locked(), until_s)
        return True

    def _sleep(self, address: int, expected: int, timespec: futex.Timespec) -> None:
        turn = self.turn
        assert turn is not None
        self.maybe_pause()
        self.here.view.fence()
        if self.there.get(("half", address // 4), 0) != expected:
            return
        turn.address, turn.is_woken = address, False
        turn.until_s = self.now_s + timespec.seconds + timespec.nanoseconds * 1e-9
        try:
            self.pause()
        finally:
            turn.address, turn.until_s = -1, None

    def _wake(self, address: int) -> None:
        self.maybe_pause()
        self.here.view.fence()
        for turn in self._turns():
            turn.is_woken |= turn.address == address

    def _turns(self) -> list[Turn]:
        return [
            turn
            for process in (self.driver, *self.actors)
            if not process.is_dead
            for turn in process.turns
            if not turn.is_over
        ]

    # What the driver does

    def _drive(self) -> None:
        """Its main thread."""
        driver, chance = self.driver, self.chance
        try:
            graph = self._compile()
        except exceptions.ActorDiedError:
            self.must(not self.names, "X6", "a graph that was not compiled leaves %s", self.names)
            return
        self.must(not self.names, "X6", "the memory has the name %s", self.names)
        if chance.happens(40):
            driver.spawn(functools.partial(self._use, graph), "other")
        self._use(graph)
        if chance.happens(70):
            self.note("the graph is torn down")
            self.is_torn_down = True
            graph.teardown()

    def _compile(self) -> Any:
        described = actor_api.describe(Performer, options.actor_options({}, {}))
        handles = [actor_api.ActorHandle(bytes([1 + index]) * 24, described, None) for index in range(ACTORS_MAX)]
        given = nodes.InputNode()
        made: list[Any] = []
        for number, (actor, inputs) in enumerate(self.calls):
            made.append(handles[actor].step.bind(number, *(given if one < 0 else made[one] for one in inputs)))
        ends = [made[output] for output in self.outputs]
        root = nodes.MultiOutputNode(ends) if len(ends) > 1 else ends[0]
        graph = root.experimental_compile(
            _submit_timeout=-1,
            _buffer_size_bytes=SLOT_BYTES * self.in_flight_max,
            _max_inflight_executions=self.in_flight_max,
            _max_buffered_results=self.buffered_max,
        )
        self.note("calls %s, results of %s, %d in flight", self.calls, self.outputs, self.in_flight_max)
        return graph

    def _use(self, graph: Any) -> None:
        """One thread executes, reads, and lets go of results."""
        chance = self.chance
        held: list[Noted] = []
        for _ in range(1 + chance.below(2 * EXECUTIONS_MAX)):
            self.pause()
            if self.is_settling:
                break
            what = chance.below(5)
            if what <= 1 or not held:
                self._execute(graph, held)
            elif what <= 3:
                self._get(held.pop(chance.below(len(held))), chance.choose((None, None, 0.05)))
            else:
                noted = held.pop(chance.below(len(held)))
                self.note("result %d of execution %d is let go of", noted.output, noted.execution)
                del noted
        while held:
            self._get(held.pop(0), None)

    def _execute(self, graph: Any, held: list[Noted]) -> None:
        try:
            with self.executing:  # so that the input can say which execution it is
                open_count = len({number for number in range(self.begun_count) if self._is_open(number)})
                made = graph.execute(self.value(-1, self.begun_count))
                self.begun_count += 1
        except exceptions.UmbelCgraphCapacityExceeded:
            self.must(open_count >= self.in_flight_max, "X2", "refused with %d executions unread", open_count)
            self.note("no more executions")
        except exceptions.UmbelError as error:
            self._check_end(error, "execute")
        else:
            made = made if isinstance(made, list) else [made]
            self.note("execution %d begins", made[0]._execution)
            held += [Noted(ref, ref._execution, ref._output) for ref in made]

    def _is_open(self, number: int) -> bool:
        """Whether a result of the execution was not read."""
        return any((number, output) not in self.read for output in range(len(self.outputs)))

    def _get(self, noted: Noted, timeout_s: float | None) -> None:
        number, output = noted.execution, noted.output
        call = self.outputs[output]
        is_there = self._is_in_slot(number, output)
        began_s = self.now_s
        try:
            value = noted.ref.get(-1 if timeout_s is None else timeout_s)
        except Trouble:
            self.must(self._may_fail(call, number), "X3", "result %d of execution %d is an error", output, number)
        except exceptions.UmbelChannelTimeoutError:
            is_late = timeout_s is not None and self.now_s - began_s > timeout_s - 1e-9  # sums of floats
            self.must(is_late, "X4", "a wait of %s s is over after %s s", timeout_s, self.now_s - began_s)
            return
        except exceptions.UmbelCgraphCapacityExceeded:
            self.note("result %d of execution %d has too many before it", output, number)
            return
        except exceptions.UmbelError as error:
            self.must(not is_there, "X4", "result %d of execution %d was there, and gives %r", output, number, error)
            self._check_end(error, f"result {output} of execution {number}")
        else:
            self.must(value == self.value(call, number), "X1", "execution %d gives %s", number, value[:20])
        self.note("result %d of execution %d is read", output, number)
        self.must((number, output) not in self.read, "X3", "result %d of execution %d came twice", output, number)
        self.read.add((number, output))

    def _check_end(self, error: exceptions.UmbelError, what: str) -> None:
        """X4: an end of the graph is told as what it is."""
        self.note("%s: %s", what, type(error).__name__)
        if isinstance(error, exceptions.ActorDiedError):
            self.must(any(actor.is_dead for actor in self.actors), "X4", "%s says %r, and all live", what, error)
        elif isinstance(error, exceptions.UmbelChannelError):
            self.must(self.is_torn_down, "X4", "%s says %r", what, error)
        elif isinstance(error, exceptions.UmbelSystemError):
            self.must(self.has_ended, "X4", "%s says %r", what, error)
        else:
            self.must(False, "X4", "%s says %r", what, error)

    def _is_in_slot(self, number: int, output: int) -> bool:
        """Whether a result that is no error lies in a slot as a whole, so that it can be read whatever happens."""
        call = self.outputs[output]
        if self.kinds.get((call, number)) == "large" or self._may_fail(call, number) or self.has_ended:
            return False
        base = self.backend._memory.base_of(self.backend._graph.outputs[output])
        return bool(self.there.get(("word", (base + channels._WRITTEN) // 8), 0) > number)

    # What methods do

    def value(self, call: int, number: int) -> bytes:
        """What a call returns in an execution; for -1, what the execution was given."""
        text = b"%d:%d:" % (number, call)
        return text + b"x" * LARGE_BYTES if self._kind_of(call, number) == "large" else text

    def _kind_of(self, call: int, number: int) -> str:
        known = self.kinds.get((call, number))
        if known is None:
            known = "plain"
            if self.chance.happens(self.large_percent):
                known = "large"
            elif call >= 0 and self.chance.happens(self.trouble_percent):
                known = "raise"
            self.kinds[call, number] = known
        return known

    def _may_fail(self, call: int, number: int) -> bool:
        if call < 0:
            return False
        return self._kind_of(call, number) == "raise" or any(self._may_fail(one, number) for one in self.calls[call][1])

    def perform(self, process: Process, call: int, inputs: tuple[bytes, ...]) -> bytes:
        first = inputs[0].split(b":")[0]
        self.must(first.isdigit(), "X1", "call %d got %s", call, inputs[0][:20])
        number = int(first)
        self.note("%s runs call %d of execution %d", process.title, call, number)
        expected = tuple(self.value(one, number) for one in self.calls[call][1])
        self.must(
            inputs == expected, "X1", "call %d of execution %d got %s", call, number, [one[:20] for one in inputs]
        )
        self.pause()
        if self._kind_of(call, number) == "raise":
            raise Trouble(call)
        return self.value(call, number)

    # Steps

    def act(self) -> None:
        chance = self.chance
        what = chance.weighted((30, 4, 2, self.death_weight))
        if what == 0 and self._let_run():
            return
        if what <= 1:
            chance.choose([self.driver, *self.actors]).view.leak()
        elif what == 2:
            self._pass_time()
        else:
            self._lose_one()

    def _let_run(self) -> bool:
        ready = [turn for turn in self._turns() if turn.is_ready()]
        if not ready:
            return False
        turn = self.chance.choose(ready)
        with self.acting(turn.process, turn):
            turn.step()
        if turn.is_over:
            turn.process.turns.remove(turn)
        if self.violation is not None:
            raise self.violation
        return True

    def _pass_time(self) -> None:
        self.now_s += self.chance.choose((0.001, 0.05, 0.6))

    def _lose_one(self) -> None:
        """An actor dies, or its driver, or all of the session."""
        living = [actor for actor in self.actors if not actor.is_dead]
        what = self.chance.below(8)
        if what <= 5 and living:
            actor = self.chance.choose(living)
            self.note("%s DIES", actor.title)
            self._kill(actor)
        elif what == 6 and self.actors:
            self.note("the session ends")
            self.has_ended = self.driver.is_closed = True
            for actor in living:
                self._kill(actor)
        elif what == 7 and self.actors:
            self.note("the driver DIES")
            self._kill(self.driver)

    # Coming to rest

    def settle(self) -> None:
        self.is_settling = True
        for _ in range(QUIET_ROUNDS_MAX):
            if self._let_run():
                continue
            for process in (self.driver, *self.actors):
                process.view.fence()
            self._check_sleepers()
            if self._turns():
                self._pass_time()
            elif self.driver.store.live:  # errors that were raised hold on to the graph
                with self.acting(self.driver):
                    collect_cycles()
                if not self._turns():
                    return
            else:
                return
        self.must(False, "R2", "%s never end", [turn.name for turn in self._turns()])

    def _check_sleepers(self) -> None:
        """X7, while nobody has died in the midst of waking somebody."""
        if any(process.is_dead for process in (self.driver, *self.actors)) or self.backend is None:
            return
        memory = self.backend._memory
        for turn in self._turns():
            at = turn.address
            if at < 0:
                continue
            is_over = self.there.get(("half", 0), 0)
            if at >= channels.CONTROL_BYTES:
                base = at - channels._SIGNAL
                written, read = (
                    self.there.get(("word", (base + one) // 8), 0) for one in (channels._WRITTEN, channels._READ)
                )
                is_over |= written > read
            else:
                is_over = self.there.get(("half", at // 4), 0)
            self.must(not is_over, "X7", "%s sleeps on, of %d edges", turn.name, memory.edges)

    def check_rest(self) -> None:
        if self.has_ended:
            return
        for process in (self.driver, *self.actors):
            self.must(process.is_dead or not process.store.live, "X5", "%s keeps %s", process.title, process.store.live)
