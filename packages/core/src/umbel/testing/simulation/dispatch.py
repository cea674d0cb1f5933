"""Tasks: queues, leases, pushes, steals, hand-backs, retries, cancellation and crashes, on a whole simulated node.

Drivers submit tasks that wait, submit more and wait for those, raise, leave their process or bring it down; drivers
get,
wait for, cancel and drop what they submitted. The simulation notes every execution, and compares what drivers are told.
"""

from __future__ import annotations

from typing import Any, Final

import umbel
from umbel import exceptions
from umbel._agent.ledger import UNIT
from umbel._client import deaths, reasons, refs
from umbel._client.task import Task
from umbel._model.reasons import READY, UNKNOWN
from umbel._objects import ownership
from umbel.testing.simulation.processes import CONFIG
from umbel.testing.simulation.runtime import (
    MEMORY_BYTES,
    PEAK_BYTES,
    Driver,
    Machine,
    RuntimeWorld,
    WorkerProcess,
    process_here,
)
from umbel.testing.simulation.world import facts

DEPTH_MAX: Final = 2
REASONS_EVERY: Final = 8  # steps
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "once": {"max_retries": 0},
    "twice": {"max_retries": 1, "retry_exceptions": True},
    "retiring": {"max_calls": 2},
    "half": {"num_cpus": 0.5},
    "huge": {"num_cpus": 100},  # which no node has
}
_REASONS = ("retries_disabled", "max_attempts_exceeded", "borrowed", "ref_not_found")
CANCEL_AFTER_MAX: Final = 30  # turns, in which something may begin to run
CLEANING_MAX: Final = 10  # pauses of a task that was interrupted
LARGE = bytes(400)  # a result that goes to the store

Ref = refs.ObjectRef[Any]


class Trouble(Exception):
    """What a task raises."""


def perform(task: int, carried: list[Ref], *inputs: Any) -> Any:
    """The only remote function: what a task does is in the world's notes."""
    process = process_here()
    world: Any = process.world
    return world.perform(process, task, carried, inputs)


class Noted:
    """A submitted task as the simulation knows it."""

    def __init__(self, number: int, owner: Machine, kind: str, parent: Noted | None, inputs: list[Noted]) -> None:
        self.number = number
        self.owner = owner
        self.kind = kind
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent is not None else 0
        self.inputs = inputs
        self.retry_count: int = OPTIONS[kind].get("max_retries", 3)
        self.pause_count = 0
        self.child_count = 0
        self.end = "return"
        self.is_returning_carried = False
        self.cancel_count = 0
        self.interrupt_count = 0
        self.executions: list[tuple[Machine, str]] = []  # where it ran, and how far it came: begun, returned or raised

    def may_be_interrupted(self) -> bool:
        """Whether it was cancelled, by somebody or because nobody is left who wants it, or one that it works for was."""
        return self.cancellations() > 0 or self.has_no_owner()

    def is_running(self) -> bool:
        return bool(self.executions) and self.executions[-1][1] == "begun"

    def has_no_owner(self) -> bool:
        """Whether nobody is left who wants it, or one that it works for."""
        return self.owner.is_dead or (self.parent is not None and self.parent.has_no_owner())

    def cancellations(self) -> int:
        """How often somebody has cancelled it, or one that it works for."""
        return self.cancel_count + (self.parent.cancellations() if self.parent is not None else 0)

    def value(self) -> Any:
        """What it returns."""
        return (
            (self.number, LARGE) if self.number % 5 == 0 else ("done", self.number) if self.number % 2 else self.number
        )


class DispatchWorld(RuntimeWorld):
    """See the module."""

    steps_min, steps_max = 40, 140  # it is the dearest

    def set_up(self) -> None:
        chance = self.chance
        self.noted: list[Noted] = []
        self.by_ref: dict[bytes, Noted] = {}
        self.unexplained: dict[Machine, None] = {}  # whose reasons to wait were not looked at since they did something
        self.functions: dict[tuple[bytes, str], Any] = {}  # (process, kind) -> its remote function
        self.kinds = [kind for kind in OPTIONS if chance.happens(50)] or ["plain"]
        self.trouble_percent = chance.choose((0, 0, 10))
        self.cancel_percent = chance.choose((0, 0, 70))
        self.pauses_max = chance.choose((1, 1, 4))
        self.loss_percent = chance.choose((0, 0, 10, 40))
        self.loss_count = 0
        super().set_up()
        self.memory_percent = chance.choose((0, 0, 50))
        for driver in self.drivers:
            self._watch_pushes(driver)

    def _watch_pushes(self, process: Machine) -> None:
        """D8: nothing is sent that was cancelled."""
        held: Any = process.engine.leases
        push = held._push

        def watched(link: Any, task: Task) -> None:
            self.must(not task.is_cancelled, "D8", "%s sends task %d, which was cancelled", process.name, task.seq)
            push(link, task)

        held._push = watched

    # The programs

    def drive(self, driver: Driver) -> None:
        held: list[Ref] = []
        for _ in range(3 + self.chance.below(8)):
            driver.pause()
            if self.is_settling:
                break
            if self.chance.happens(self.loss_percent):
                self._lose_one()
            what = self.chance.below(6)
            if what <= 2:
                for _ in range(self.chance.choose((1, 1, 2, 5))):
                    held.append(self._submit(driver, held, None))
            elif what == 3 and held:
                self._get(driver, [self.chance.choose(held)])
            elif what == 4 and held:
                ready, _ = driver.engine.wait(held, 1, 0.5 if self.chance.happens(50) else None, True)
                self.note("%s: %d of %d are ready", driver.name, len(ready), len(held))
            elif held and self.chance.happens(self.cancel_percent):
                for _ in range(self.chance.below(CANCEL_AFTER_MAX)):
                    driver.pause()
                running = [ref for ref in held if self.by_ref[ref._id].is_running()]
                self._cancel(driver, self.chance.choose(running or held))
            elif held and self.chance.happens(50):
                del held[self.chance.below(len(held))]
        for ref in held:
            self._get(driver, [ref])

    def _lose_one(self) -> None:
        """A stored value goes away, whose it may be."""
        memory = self.node.memory
        if memory.segments:
            name = self.chance.choose(sorted(memory.segments))
            self.note("segment %s IS LOST", name)
            self.loss_count += 1
            memory.lose(name)

    def _submit(self, process: Machine, known: list[Ref], parent: Noted | None) -> Ref:
        chance = self.chance
        inputs = chance.some(known, 2) if chance.happens(40) else []
        noted = Noted(
            len(self.noted), process, chance.choose(self.kinds), parent, [self.by_ref[ref._id] for ref in inputs]
        )
        carried = chance.some(known, 2) if chance.happens(40) else []
        noted.is_returning_carried = chance.happens(30)
        noted.pause_count = chance.below(self.pauses_max + 1)
        noted.child_count = chance.choose((0, 0, 1, 2)) if noted.depth < DEPTH_MAX else 0
        if chance.happens(self.trouble_percent):
            noted.end = chance.choose(("raise", "crash", "exit"))
        self.noted.append(noted)
        function = self.functions.get((process.id, noted.kind))
        if function is None:
            function = umbel.remote(**OPTIONS[noted.kind])(perform) if OPTIONS[noted.kind] else umbel.remote(perform)
            self.functions[process.id, noted.kind] = function
        ref: Ref = function.remote(noted.number, carried, *inputs)
        self.by_ref[ref._id] = noted
        self.note(
            "%s submits task %d (%s), which ends by %s, on %s",
            process.name,
            noted.number,
            noted.kind,
            noted.end,
            inputs,
        )
        return ref

    def perform(self, process: Machine, number: int, carried: list[Ref], inputs: tuple[Any, ...]) -> Any:
        """A task runs."""
        noted = self.noted[number]
        self.note("%s begins task %d", process.name, number)
        self._check_execution(process, noted, inputs)
        at = len(noted.executions)
        noted.executions.append((process, "begun"))
        children: list[Ref] = []
        try:
            for _ in range(noted.pause_count):
                process.pause()
            for _ in range(noted.child_count):
                children.append(self._submit(process, [*children, *carried], noted))
            if children and self.chance.happens(70):
                for child in children:
                    self._get(process, [child])
        except KeyboardInterrupt:
            self.must(noted.may_be_interrupted(), "D6", "task %d is interrupted for no reason", number)
            self._clean_up(process, noted)
            raise
        self.note("%s ends task %d by %s", process.name, number, noted.end)
        if noted.end == "crash" and not at:
            process.crash()
        if noted.end == "exit" and not at:
            raise SystemExit(1)
        noted.executions[at] = (process, "returned" if noted.end != "raise" else "raised")
        if noted.end == "raise":
            raise Trouble(number)
        return [noted.value(), *carried] if noted.is_returning_carried else noted.value()

    def _clean_up(self, process: Machine, noted: Noted) -> None:
        """A task that was interrupted does something in the end, which takes a while."""
        noted.interrupt_count += 1
        try:
            for _ in range(self.chance.below(CLEANING_MAX)):
                process.pause()
        except KeyboardInterrupt:
            self._clean_up(process, noted)
        limit = max(1, noted.cancellations())
        self.must(
            noted.interrupt_count <= limit,
            "D10",
            "task %d is interrupted %d times",
            noted.number,
            noted.interrupt_count,
        )

    def _check_execution(self, process: Machine, noted: Noted, inputs: tuple[Any, ...]) -> None:
        """D5: it runs once, and again only when what ran before crashed or raised what may be tried again."""
        self.must(noted.kind != "huge", "A10", "task %d, which no node can run, runs", noted.number)
        got = [_without_carried(one) for one in inputs]
        self.must(got == [one.value() for one in noted.inputs], "D6", "task %d got %s", noted.number, inputs)
        for where, how in noted.executions:
            may_again = where.is_dead or (how == "raised" and noted.kind == "twice")
            may_again |= self.loss_count > 0 and how == "returned"
            self.must(
                may_again, "D5", "%s runs task %d, which has %s in %s", process.name, noted.number, how, where.name
            )
        self._check_memory(process, noted)
        limit = 1 + noted.retry_count + len(self.killed_for_memory)
        self.must(len(noted.executions) < limit, "D5", "task %d runs for the %d. time", noted.number, limit + 1)

    def _check_memory(self, process: Machine, noted: Noted) -> None:
        """K6, of one that runs now."""
        killed = [
            where.id.hex()
            for where, how in noted.executions
            if how == "begun" and where.id.hex() in self.killed_for_memory
        ]
        if not killed:
            return
        limit = CONFIG.task_oom_retries if noted.retry_count else 0
        self.must(len(killed) <= limit, "K6", "task %d runs after %d kills for memory", noted.number, len(killed))
        was_alone = any(self.killed_for_memory[worker] for worker in killed)
        self.must(not was_alone, "K6", "task %d, which was alone when it was killed for memory, runs", noted.number)
        known = self.node.daemon.agent.workers.get(process.id.hex())
        if known is not None and known.lease is not None:
            promised = known.lease.resources.get("memory", 0)
            wanted = min(MEMORY_BYTES, len(killed) * PEAK_BYTES) * UNIT
            self.must(promised >= wanted, "K6", "task %d is promised %d, and wants %d", noted.number, promised, wanted)

    def _get(self, process: Machine, wanted: list[Ref]) -> None:
        noted = self.by_ref[wanted[0]._id]
        try:
            value = process.engine.get(wanted, None)[0]
        except exceptions.UmbelError as error:
            self.note("%s gets task %d: %s", process.name, noted.number, type(error).__name__)
            rule = "D4" if isinstance(error, exceptions.WorkerCrashedError) else "D6"
            self.must(self._may_fail(noted, error), rule, "task %d gave %r: %s", noted.number, error, facts(noted))
            return
        self.note("%s gets task %d", process.name, noted.number)
        self.must(
            _without_carried(value) == noted.value() and noted.end != "raise",
            "D6",
            "task %d gave %r",
            noted.number,
            value,
        )
        self.must(any(how == "returned" for _, how in noted.executions), "D6", "task %d never ran", noted.number)

        if isinstance(value, list) and self.chance.happens(50):
            for carried in value[1:]:
                self._get(process, [carried])

    def _may_fail(self, noted: Noted, error: BaseException) -> bool:
        """Whether this is the right error, of the task itself or of one whose result it takes."""
        if any(self._may_fail(one, error) for one in noted.inputs):
            return True
        if isinstance(error, exceptions.TaskCancelledError):
            return noted.may_be_interrupted()
        if isinstance(error, exceptions.ObjectReconstructionFailedError):
            is_cancelled = error.reason == "task_cancelled" and any(one.may_be_interrupted() for one in self.noted)
            return self.loss_count > 0 and (error.reason in _REASONS or is_cancelled)
        if isinstance(error, exceptions.TaskUnschedulableError):
            return noted.kind == "huge"
        if isinstance(error, Trouble):
            return noted.end == "raise"
        if isinstance(error, exceptions.WorkerCrashedError):
            is_lossy = self.loss_count > 0  # what computes a lost result again is a retry as well
            spent = sum(where.is_dead or (is_lossy and how == "returned") for where, how in noted.executions)
            is_unlucky = self.crash_count > deaths.UNSTARTED_DEATHS_MAX
            return spent > noted.retry_count or noted.may_be_interrupted() or is_unlucky
        if isinstance(error, exceptions.OutOfMemoryError):
            kills = len(self.killed_for_memory)
            is_last = not noted.retry_count or kills > CONFIG.task_oom_retries or any(self.killed_for_memory.values())
            return is_last and kills > 0
        return False

    def _cancel(self, driver: Driver, ref: Ref) -> None:
        noted = self.by_ref[ref._id]
        is_forced = self.chance.happens(30)
        self.note("%s cancels task %d%s", driver.name, noted.number, " by force" if is_forced else "")
        noted.cancel_count += 1
        driver.engine.cancel(ref, force=is_forced, recursive=True)

    # What must hold

    def check_process(self, process: Any) -> None:
        super().check_process(process)
        self.unexplained[process] = None

    def check(self) -> None:
        super().check()
        if self.main_step_count % REASONS_EVERY:
            return
        for process in self.unexplained:
            if process.is_dead:
                continue
            for record in process.engine.values.table.records.values():
                if record.kind == ownership.PENDING:
                    reason = reasons.of_object(process.engine, record.object_id)
                    is_told = reason.text and reason.code not in (READY, UNKNOWN)
                    self.must(is_told, "A16", "%s waits for an object, and why: %s", process.name, reason)
        self.unexplained.clear()

    def check_rest(self) -> None:
        daemon = self.node.daemon
        for driver in self.drivers:
            self.must(not driver.turns, "D6", "%s waits for ever", driver.name)
        for process in self.node.living:
            book, classes = process.engine.tasks, process.engine.leases.classes
            self.must(not book.unfinished, "D7", "%s has unfinished tasks: %s", process.name, [*book.unfinished])
            for cls in classes.values():
                self.must(
                    not cls.ready and not cls.leases, "D7", "%s has %s and %s", process.name, cls.ready, cls.leases
                )
            self.must(
                not classes or not any(c.told for c in classes.values()),
                "D7",
                "%s asks for workers",
                process.name,
            )
            if isinstance(process, WorkerProcess):
                self.must(not process.worker._queue, "D7", "%s has tasks that it never ran", process.name)
            lineage = process.engine.rebuilder.lineage if process.engine.rebuilder is not None else ()
            self.must(not lineage, "O9", "%s keeps the lineage of what is freed: %s", process.name, lineage)
            kept = [*process.engine.values.table.records.values()]
            self.must(not kept, "O9", "%s keeps %s", process.name, kept)
        self.must(not daemon.agent.demands, "D7", "the agent has demands: %s", daemon.agent.pending())
        self.must(daemon.agent.ledger.free == daemon.agent.ledger.total, "A13", "free is %s", daemon.agent.ledger.free)
        alive = {process.id.hex() for process in self.node.living}
        left = [name for name in self.node.memory.segments if alive & {*name.split(".")}]  # others the daemon removes
        self.must(not left, "O9", "segments are left: %s", left)


def _without_carried(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value
