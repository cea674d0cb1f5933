"""Actor calls: their order, their limits, and what becomes of them when the actor restarts or dies.

On a whole simulated node. Drivers create actors, plain ones and such with several threads, call them, cancel calls, kill
actors and let go of them. Methods take a while, raise, leave the actor or bring its process down. The simulation notes
every call and every execution of one, and compares what callers are told.
"""

from __future__ import annotations

from typing import Any, Final

import umbel
from umbel import exceptions
from umbel._client import refs
from umbel.testing.simulation.runtime import Driver, Machine, RuntimeWorld, WorkerProcess, process_here
from umbel.testing.simulation.world import facts

CLASSES: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "restarting": {"max_restarts": 1},
    "retrying": {"max_restarts": 2, "max_task_retries": 1},
    "endless": {"max_restarts": -1, "max_task_retries": -1},
    "threaded": {"max_concurrency": 2, "max_restarts": 1},
    "grouped": {"concurrency_groups": {"side": 1}, "max_concurrency": 2, "max_task_retries": 1, "max_restarts": 1},
    "named": {"name": "n", "get_if_exists": True, "max_restarts": 1},
    "huge": {"num_cpus": 100},  # which no node has
}
LIMITS: Final = {"threaded": {"": 2}, "grouped": {"": 2, "side": 1}}  # calls at once; elsewhere one
CALLS_MAX: Final = 6  # submitted one after the other

Ref = refs.ObjectRef[Any]


class Trouble(Exception):
    """What a method raises."""


class Performer:
    """The only actor class: what its constructor and its method do is in the world's notes."""

    def __init__(self, number: int) -> None:
        self.number = number
        process = process_here()
        world: Any = process.world
        world.construct(process, number)

    def act(self, call: int, *inputs: Any) -> Any:
        process = process_here()
        world: Any = process.world
        return world.perform(process, self.number, call, inputs)


class NotedActor:
    """An actor as the simulation knows it."""

    def __init__(self, number: int, kind: str, creator: Driver) -> None:
        options = CLASSES[kind]
        self.number = number
        self.kind = kind
        self.creator = creator
        self.restart_count: int = options.get("max_restarts", 0)
        self.retry_count: int = options.get("max_task_retries", 0)
        self.hosts: list[Machine] = []  # in which it was constructed
        self.death_count = 0  # of workers that were its own
        self.running: dict[str, int] = {}  # group -> calls that run now
        self.begun: dict[Machine, list[NotedCall]] = {}  # by host, in order
        self.killers: set[Driver] = set()  # who have killed it for good
        self.may_end = False  # it was killed, let go of, has left by itself, or its constructor raised
        self.fails = False  # its constructor raises

    def may_be_dead(self) -> bool:
        return self.may_end or (0 <= self.restart_count < self.death_count) or self.creator.is_dead


class NotedCall:
    """A call as the simulation knows it."""

    def __init__(self, number: int, actor: NotedActor, caller: Driver, group: str, inputs: list[NotedCall]) -> None:
        self.number = number
        self.actor = actor
        self.caller = caller
        self.group = group
        self.inputs = inputs
        self.pause_count = 0
        self.end = "return"
        self.is_cancelled = False
        self.is_hopeless = False  # it was cancelled, and then its host died
        self.is_after_kill = False  # its caller had killed the actor before
        self.is_over = False  # as far as its caller was told
        self.executions: list[tuple[Machine, str]] = []


class MailboxWorld(RuntimeWorld):
    """See the module."""

    steps_min, steps_max = 20, 75

    def set_up(self) -> None:
        chance = self.chance
        self.actors: list[NotedActor] = []
        self.calls: list[NotedCall] = []
        self.by_ref: dict[bytes, NotedCall] = {}
        self.by_id: dict[bytes, NotedActor] = {}
        self.classes: dict[tuple[bytes, str], Any] = {}
        self.kinds = [kind for kind in CLASSES if chance.happens(40)] or ["plain"]
        self.trouble_percent = chance.choose((0, 0, 10))
        self.cancel_percent = chance.choose((0, 0, 30))
        self.kill_percent = chance.choose((0, 0, 30))
        self.pauses_max = chance.choose((1, 2, 4))
        super().set_up()
        shell: Any = self.node.daemon.actor_service
        tell = shell.host_died

        def host_died(actor: str, worker: str, reason: str, *, memory: Any) -> None:
            noted = self._known(bytes.fromhex(actor))
            noted.death_count += 1
            for call in self.calls:
                call.is_hopeless |= call.actor is noted and call.is_cancelled
            tell(actor, worker, reason, memory=memory)

        shell.host_died = host_died

    # The programs

    def drive(self, driver: Driver) -> None:
        handles: list[tuple[NotedActor, Any]] = []
        held: list[Ref] = []
        for _ in range(4 + self.chance.below(10)):
            driver.pause()
            if self.is_settling:
                break
            what = self.chance.below(8)
            if what == 0 or not handles:
                self._create(driver, handles)
            elif what <= 4:
                for _ in range(1 + self.chance.below(CALLS_MAX)):
                    held.append(self._call(driver, *self.chance.choose(handles), held))
            elif what == 5 and held:
                self._get(driver, self.chance.choose(held))
            elif what == 6 and held and self.chance.happens(self.cancel_percent):
                self._cancel(driver, self.chance.choose(held))
            elif self.chance.happens(self.kill_percent):
                self._end_one(driver, handles)
                if handles and self.chance.happens(50):
                    held.append(self._call(driver, *handles[-1], held))
        if self.chance.happens(50):
            for noted, _ in handles:
                noted.may_end = True
            handles.clear()  # the actors live until their calls have ended
        for ref in held:
            self._get(driver, ref)
        for noted, _ in handles:
            noted.may_end = True

    def _create(self, driver: Driver, handles: list[tuple[NotedActor, Any]]) -> None:
        kind = self.chance.choose(self.kinds)
        noted = NotedActor(len(self.actors), kind, driver)
        noted.fails = self.chance.happens(self.trouble_percent // 2)
        self.actors.append(noted)
        cls = self.classes.get((driver.id, kind))
        if cls is None:
            cls = umbel.remote(**CLASSES[kind])(Performer) if CLASSES[kind] else umbel.remote(Performer)
            self.classes[driver.id, kind] = cls
        handle = cls.remote(noted.number)
        self.note("%s creates actor %d (%s)", driver.name, noted.number, kind)
        handles.append((self._known(handle._actor_id), handle))

    def _known(self, actor_id: bytes) -> NotedActor:
        """The notes of an actor. One that is not known by its id was made last by its creator, who has not heard yet."""
        if actor_id not in self.by_id:
            self.by_id[actor_id] = [one for one in self.actors if one.creator.id == actor_id[:16]][-1]
        return self.by_id[actor_id]

    def _call(self, driver: Driver, noted: NotedActor, handle: Any, known: list[Ref]) -> Ref:
        chance = self.chance
        inputs = chance.some(known, 1) if chance.happens(30) else []
        group = "side" if noted.kind == "grouped" and chance.happens(40) else ""
        call = NotedCall(len(self.calls), noted, driver, group, [self.by_ref[ref._id] for ref in inputs])
        call.is_after_kill = driver in noted.killers
        call.pause_count = chance.below(self.pauses_max + 1)
        if chance.happens(self.trouble_percent):
            call.end = chance.choose(("raise", "crash", "leave"))
        self.calls.append(call)
        method = handle.act.options(concurrency_group=group) if group else handle.act
        ref: Ref = method.remote(call.number, *inputs)
        self.by_ref[ref._id] = call
        self.note(
            "%s calls actor %d: call %d, which ends by %s, on %s",
            driver.name,
            noted.number,
            call.number,
            call.end,
            inputs,
        )
        return ref

    def _cancel(self, driver: Driver, ref: Ref) -> None:
        call = self.by_ref[ref._id]
        call.is_cancelled = True
        self.note("%s cancels call %d", driver.name, call.number)
        driver.engine.cancel(ref, force=False, recursive=True)

    def _end_one(self, driver: Driver, handles: list[tuple[NotedActor, Any]]) -> None:
        index = len(handles) - 1 if self.chance.happens(50) else self.chance.below(len(handles))  # often the newest
        noted, handle = handles[index]
        what = self.chance.below(3)
        self.note("%s %s actor %d", driver.name, ("kills", "restarts", "lets go of")[what], noted.number)
        if what != 1:
            noted.may_end = True
        if what == 2:
            del handles[index]
        else:
            if what == 0:
                noted.killers.add(driver)
            driver.engine.kill(handle, no_restart=what == 0)

    # Actors

    def construct(self, process: Machine, number: int) -> None:
        noted = self.actors[number]
        self.note("%s constructs actor %d", process.name, number)
        self.must(noted.kind != "huge", "A10", "actor %d, which no node can host, is constructed", number)
        living = [host.name for host in noted.hosts if not host.is_dead]
        self.must(not living, "T3", "actor %d is constructed in %s while it lives in %s", number, process.name, living)
        limit = noted.restart_count
        self.must(
            limit < 0 or len(noted.hosts) <= limit, "T5", "actor %d is constructed for the %d. time", number, limit + 2
        )
        noted.hosts.append(process)
        noted.begun[process] = []
        noted.running = {}
        process.pause()
        if noted.fails:
            noted.may_end = True
            raise Trouble(number)

    def perform(self, process: Machine, actor: int, number: int, inputs: tuple[Any, ...]) -> Any:
        """A call runs."""
        call = self.calls[number]
        noted = call.actor
        self.note("%s begins call %d", process.name, number)
        self._check_begin(process, noted, call, actor, inputs)
        at = len(call.executions)
        call.executions.append((process, "begun"))
        noted.begun[process].append(call)
        noted.running[call.group] = noted.running.get(call.group, 0) + 1
        limit = LIMITS.get(noted.kind, {}).get(call.group, 1)
        self.must(
            noted.running[call.group] <= limit, "M1", "actor %d runs %d calls at once", actor, noted.running[call.group]
        )
        try:
            for _ in range(call.pause_count):
                process.pause()
            self.note("%s ends call %d by %s", process.name, number, call.end)
            if call.end == "crash" and not at:
                process.crash()
            if call.end == "leave":
                noted.may_end = True
                process.engine.exit_actor()
        finally:
            if not process.is_dead:
                noted.running[call.group] -= 1
        call.executions[at] = (process, "returned" if call.end != "raise" else "raised")
        if call.end == "raise":
            raise Trouble(number)
        return ("done", number)

    def _check_begin(
        self, process: Machine, noted: NotedActor, call: NotedCall, actor: int, inputs: tuple[Any, ...]
    ) -> None:
        number = call.number
        self.must(actor == noted.number, "C5", "call %d of actor %d came to actor %d", number, noted.number, actor)
        self.must(inputs == tuple(("done", one.number) for one in call.inputs), "C5", "call %d got %s", number, inputs)
        self.must(
            not call.is_over or noted.may_be_dead(), "M4", "call %d runs though its caller was told of its end", number
        )
        self.must(not call.is_after_kill, "C7", "call %d begins, though its caller killed the actor before", number)
        self.must(not call.is_hopeless, "C6", "call %d was cancelled, and is sent again", number)
        for where, how in call.executions:
            self.must(where.is_dead, "C3", "%s runs call %d, which has %s in %s", process.name, number, how, where.name)
        self.must(
            noted.retry_count < 0 or len(call.executions) <= noted.retry_count,
            "C3", "call %d runs for the %d. time", number, len(call.executions) + 1,
        )  # fmt: skip
        if noted.kind not in LIMITS:
            later = [one.number for one in noted.begun[process] if one.caller is call.caller and one.number >= number]
            self.must(not later, "C1", "call %d begins after %s, which came later", number, later)

    # What callers are told

    def _get(self, driver: Driver, ref: Ref) -> None:
        call = self.by_ref[ref._id]
        try:
            value = driver.engine.get([ref], None)[0]
        except exceptions.UmbelError as error:
            self.note("%s gets call %d: %s", driver.name, call.number, type(error).__name__)
            self.must(
                self._may_fail(call, error),
                "C5",
                "call %d gave %r: %s, %s",
                call.number,
                error,
                facts(call),
                facts(call.actor),
            )
        else:
            self.note("%s gets call %d", driver.name, call.number)
            self.must(value == ("done", call.number), "C5", "call %d gave %r", call.number, value)
            self.must(any(how == "returned" for _, how in call.executions), "C5", "call %d never ran", call.number)
        call.is_over = True

    def _may_fail(self, call: NotedCall, error: BaseException) -> bool:
        """Whether this is the right error, of the call itself or of one whose result it takes."""
        if any(self._may_fail(one, error) for one in call.inputs):
            return True
        noted = call.actor
        if isinstance(error, exceptions.TaskCancelledError):
            return call.is_cancelled
        if isinstance(error, Trouble):
            return call.end == "raise"
        if isinstance(error, exceptions.ActorUnschedulableError):
            return noted.kind == "huge"
        if isinstance(error, exceptions.ActorDiedError):
            return noted.may_be_dead()
        if isinstance(error, exceptions.ActorUnavailableError):
            return 0 <= noted.retry_count < noted.death_count
        return False

    # What must hold

    def check_process(self, process: Any) -> None:
        super().check_process(process)
        if isinstance(process, WorkerProcess) and process.worker.host is not None:
            box = process.worker.host._mailbox
            if box is not None:
                box.check()

    def check_rest(self) -> None:
        daemon = self.node.daemon
        for driver in self.drivers:
            self.must(not driver.turns, "C5", "%s waits for ever", driver.name)
            self.must(not driver.engine.tasks.unfinished, "C5", "%s has unfinished calls", driver.name)
        for process in self.node.living:
            kept = [*process.engine.values.table.records.values()]
            self.must(not kept, "O9", "%s keeps %s", process.name, kept)
        hosts = [p.name for p in self.node.living if isinstance(p, WorkerProcess) and p.worker.host is not None]
        self.must(not hosts, "T7", "actors that nobody refers to live on in %s", hosts)
        self.must(not daemon.actor_service.table.actors, "T7", "actors live: %s", [*daemon.actor_service.table.actors])
        self.must(daemon.agent.ledger.free == daemon.agent.ledger.total, "A13", "free is %s", daemon.agent.ledger.free)
