"""Programs in a simulated cluster, their tasks and actors, and what all of these are told.

Programs on any machine submit tasks that take others' results, submit more and wait for those; create actors, with and
without names, call, find, kill and let go of them; make placement groups and run tasks there; and write and read keys. The
simulation has books of its own of what was asked, what ran where, and what was answered.
"""

from __future__ import annotations

from typing import Any, Final

import umbel
from umbel import exceptions
from umbel._agent.ledger import CPU, UNIT
from umbel._client import deaths, refs
from umbel.experimental import internal_kv
from umbel.testing.simulation import cluster_meetings
from umbel.testing.simulation.cluster_world import SEAT, SLOT, SPECIAL, Cluster, ClusterNode
from umbel.testing.simulation.runtime import Machine, process_here
from umbel.testing.simulation.world import facts
from umbel.util import placement_group, remove_placement_group, scheduling_strategies

TASKS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "once": {"max_retries": 0},
    "spread": {"scheduling_strategy": "SPREAD", "max_retries": 1},
    "special": {"resources": {SPECIAL: 1}},
    "grouped": {"num_cpus": 0, "resources": {SLOT: 1}},
}
ACTORS: Final[dict[str, dict[str, Any]]] = {
    "plain": {},
    "restarting": {"max_restarts": 1},
    "retrying": {"max_restarts": 2, "max_task_retries": 1},
    "special": {"num_cpus": 0, "resources": {SEAT: 1}, "max_restarts": 1},
    "named": {"name": "n", "get_if_exists": True, "max_restarts": 1},
    "detached": {"name": "d", "get_if_exists": True, "lifetime": "detached", "max_restarts": -1},
}
HOLDING: Final = ("special", "grouped")  # what others may need to end: who has that waits for nobody
DEPTH_MAX: Final = 1

Ref = refs.ObjectRef[Any]


class Trouble(Exception):
    """What users' code raises."""


def run_task(number: int, carried: list[Ref], *inputs: Any) -> Any:
    """The only remote function: what a task does is in the world's books."""
    process = process_here()
    world: Any = process.world
    return world.run_work(process, number, carried, inputs)


class Performer:
    """The only actor class, likewise."""

    def __init__(self, number: int) -> None:
        self.number = number
        process = process_here()
        world: Any = process.world
        world.construct(process, number)

    def act(self, number: int, carried: list[Ref], *inputs: Any) -> Any:
        process = process_here()
        world: Any = process.world
        return world.run_work(process, number, carried, inputs)


class NotedActor:
    """An actor as the simulation knows it."""

    def __init__(self, number: int, kind: str, creator: Machine) -> None:
        self.number = number
        self.kind = kind
        self.creator = creator
        self.actor_id = b""
        self.restart_count: int = ACTORS[kind].get("max_restarts", 0)
        self.retry_count: int = ACTORS[kind].get("max_task_retries", 0)
        self.hosts: list[Machine] = []  # in which it was constructed
        self.killers: set[Machine] = set()  # who have killed it for good
        self.is_restarted = 0  # so often it was killed to be constructed anew
        self.may_end = False  # it was killed or let go of
        self.is_recorded = False  # its creator has been answered, or it was constructed
        self.is_detached = kind == "detached"


class Work:
    """A task, or a call of an actor, as the simulation knows it."""

    def __init__(
        self, number: int, owner: Machine, kind: str, actor: NotedActor | None, parent: Work | None, inputs: list[Work]
    ) -> None:
        self.number = number
        self.owner = owner
        self.kind = kind
        self.actor = actor
        self.parent = parent
        self.inputs = inputs
        self.depth: int = parent.depth + 1 if parent is not None else 0
        self.retry_count: int = actor.retry_count if actor is not None else TASKS.get(kind, {}).get("max_retries", 3)
        self.group: NotedGroup | None = None
        self.meeting: cluster_meetings.Meeting | None = None
        self.faults_before = 0
        self.pause_count = 0
        self.child_count = 0
        self.end = "return"
        self.is_after_kill = False  # its caller had killed the actor before
        self.executions: list[tuple[Machine, str]] = []  # where it ran, and how far it came: begun, returned or raised

    def __str__(self) -> str:
        return f"{'task' if self.actor is None else 'call'} {self.number}"


class Program:
    """What a program has. put: what it has written last to its key, and was told that it is there."""

    def __init__(self, driver: Machine) -> None:
        self.driver = driver
        self.held: list[Ref] = []
        self.handles: list[tuple[NotedActor, Any]] = []
        self.groups: list[NotedGroup] = []
        self.put = 0


class NotedGroup:
    """A placement group whose creation was answered."""

    def __init__(self, made: Any, creator: Machine, *, is_detached: bool) -> None:
        self.made = made
        self.id: str = made.id.hex()
        self.creator = creator
        self.is_detached = is_detached
        self.is_removed = False  # or is to be


class Programs(Cluster):
    """See the module."""

    def set_up(self) -> None:
        chance = self.chance
        self.works: list[Work] = []
        self.by_ref: dict[bytes, Work] = {}
        self.actors: list[NotedActor] = []
        self.groups: list[NotedGroup] = []
        self.made: dict[tuple[bytes, str], Any] = {}  # remote functions and classes, by process and kind
        self.running: dict[Machine, list[Work]] = {}
        self.programs: list[Program] = []
        self.meeting: cluster_meetings.Meeting | None = None  # the last one
        self.task_kinds = [kind for kind in TASKS if kind != "grouped" and chance.happens(50)] or ["plain"]
        self.actor_kinds = [kind for kind in ACTORS if chance.happens(40)] or ["plain"]
        self.trouble_percent = chance.choose((0, 0, 10))
        self.pauses_max = chance.choose((1, 1, 3))
        self.ops = [
            chance.choose((1, 2, 4)),
            3,
            chance.choose((0, 2)),
            chance.choose((0, 3)),
            1,
            1,
            1,
            chance.choose((0, 1)),
            chance.choose((0, 4)),
        ]
        super().set_up()

    # The programs

    def drive(self, driver: Machine) -> None:
        program = Program(driver)
        self.programs.append(program)
        for _ in range(2 + self.chance.below(6)):
            driver.pause()
            if self.is_settling:
                break
            (
                self._submit_some, self._get_one, self._create, self._call_some, self._end_actor, self._find_actor, self._keys,
                self._group, self._meet,
            )[self.chance.weighted(self.ops)](program)  # fmt: skip
        self._end_program(program)

    def _end_program(self, program: Program) -> None:
        for ref in program.held:
            self._get(program.driver, ref)
        program.held.clear()
        if program.put:
            self._read_key(program)
        for group in program.groups:
            if not group.is_detached:
                self._remove(program, group)
        for noted, _ in program.handles:
            noted.may_end |= not noted.is_detached
        program.handles.clear()
        self.note("%s is done", program.driver.name)

    def _submit_some(self, program: Program) -> None:
        for _ in range(self.chance.choose((1, 1, 2, 4))):
            kind = self.chance.choose(self.task_kinds)
            program.held.append(self._submit(program.driver, program.held, None, kind))

    def _submit(
        self,
        process: Machine,
        known: list[Ref],
        parent: Work | None,
        kind: str,
        group: NotedGroup | None = None,
        meeting: cluster_meetings.Meeting | None = None,
    ) -> Ref:
        inputs = self._some_inputs(known)
        work = self._work(process, inputs, parent, kind, None)
        function = self.made.get((process.id, kind))
        if function is None:
            function = umbel.remote(**TASKS[kind])(run_task) if TASKS.get(kind) else umbel.remote(run_task)
            self.made[process.id, kind] = function
        if group is not None:
            work.group = group
            strategy = scheduling_strategies.PlacementGroupSchedulingStrategy(group.made)
            function = function.options(scheduling_strategy=strategy)
        carried = [] if kind in HOLDING else self._some_inputs(known)
        ref: Ref = function.remote(work.number, carried, *inputs)
        if meeting is not None:
            work.meeting = meeting
            meeting.add(work, ref._id)
        self._submitted(process, work, ref)
        return ref

    def _meet(self, program: Program) -> None:
        """Tasks that end only once all have begun; one such set at a time, so that there are CPUs for all of them."""
        cpu_count = self.cpus_for_tasks()
        if cpu_count < 2 or (self.meeting is not None and not self.meeting.is_over):
            return
        self.meeting = meeting = cluster_meetings.Meeting(program.driver)
        for _ in range(2 + self.chance.below(cpu_count - 1)):
            kind = self.chance.choose(cluster_meetings.KINDS)
            ref = self._submit(program.driver, [], None, kind, meeting=meeting)
            program.held.append(ref)
        self.note("%s wants %s to meet", program.driver.name, [str(work) for work in meeting.works])

    def cpus_for_tasks(self) -> int:
        """On machines that take tasks."""
        return sum(one.resources[CPU] // UNIT for one in self.living_machines() if not one.was_drained)

    def look_at_meeting(self) -> None:
        meeting = self.meeting
        if meeting is not None and not meeting.is_over and meeting.is_hopeless(self.cpus_for_tasks()):
            self.note("nobody waits for the others to come any more")
            meeting.end()

    def _some_inputs(self, known: list[Ref]) -> list[Ref]:
        return self.chance.some(known, 2) if self.chance.happens(30) else []

    def _work(
        self, process: Machine, inputs: list[Ref], parent: Work | None, kind: str, actor: NotedActor | None
    ) -> Work:
        chance = self.chance
        work = Work(len(self.works), process, kind, actor, parent, [self.by_ref[ref._id] for ref in inputs])
        work.pause_count = chance.below(self.pauses_max + 1)
        work.child_count = chance.choose((0, 0, 1)) if work.depth < DEPTH_MAX else 0
        work.faults_before = self.fault_count
        if chance.happens(self.trouble_percent):
            work.end = chance.choose(("raise", "crash"))
        self.works.append(work)
        return work

    def _submitted(self, process: Machine, work: Work, ref: Ref) -> None:
        self.by_ref[ref._id] = work
        whose = f" of actor {work.actor.number}" if work.actor is not None else ""
        self.note("%s submits %s%s (%s), which ends by %s", process.name, work, whose, work.kind, work.end)

    def _get_one(self, program: Program) -> None:
        if program.held:
            self._get(program.driver, self.chance.choose(program.held))

    def _create(self, program: Program) -> None:
        driver = program.driver
        kind = self.chance.choose(self.actor_kinds)
        noted = NotedActor(len(self.actors), kind, driver)
        self.actors.append(noted)
        self.note("%s creates actor %d (%s)", driver.name, noted.number, kind)
        cls = self.made.get((driver.id, f"actor {kind}"))
        if cls is None:
            cls = umbel.remote(**ACTORS[kind])(Performer) if ACTORS[kind] else umbel.remote(Performer)
            self.made[driver.id, f"actor {kind}"] = cls
        handle = cls.remote(noted.number)
        self._hold(program, noted, handle)
        noted.is_recorded |= "name" in ACTORS[kind]  # so it has been waited for

    def _hold(self, program: Program, created: NotedActor | None, handle: Any) -> None:
        """A handle that was made, or found."""
        known = [one for one in self.actors if one.actor_id == handle._actor_id]
        # One that its creator has not heard about yet is the last that it has made.
        made = [one for one in self.actors if not one.actor_id and one.creator.id == handle._actor_id[:16]]
        noted = (known + ([created] if created in made else made[-1:]) + [created])[0]
        self.must(noted is not None, "B2", "%s found an actor that nobody has created", program.driver.name)
        if noted is not None:
            noted.actor_id = handle._actor_id
            program.handles.append((noted, handle))

    def _call_some(self, program: Program) -> None:
        if not program.handles:
            return
        noted, handle = self.chance.choose(program.handles)
        for _ in range(self.chance.choose((1, 2, 3))):
            inputs = self._some_inputs(program.held)
            work = self._work(program.driver, inputs, None, noted.kind, noted)
            work.is_after_kill = program.driver in noted.killers
            ref = handle.act.remote(work.number, self._some_inputs(program.held), *inputs)
            self._submitted(program.driver, work, ref)
            program.held.append(ref)

    def _end_actor(self, program: Program) -> None:
        if not program.handles:
            return
        index = self.chance.below(len(program.handles))
        noted, handle = program.handles[index]
        what = self.chance.below(3)
        self.note("%s %s actor %d", program.driver.name, ("kills", "restarts", "lets go of")[what], noted.number)
        if what == 2:
            noted.may_end |= not noted.is_detached
            del program.handles[index]
        elif what == 1:
            noted.is_restarted += 1
            program.driver.engine.kill(handle, no_restart=False)
        else:
            noted.may_end = True
            noted.killers.add(program.driver)
            program.driver.engine.kill(handle, no_restart=True)

    def _find_actor(self, program: Program) -> None:
        try:
            handle = umbel.get_actor(self.chance.choose(("n", "d")))
        except ValueError:
            return
        self._hold(program, None, handle)

    def _keys(self, program: Program) -> None:
        if program.put and self.chance.happens(50):
            self._read_key(program)
        else:
            value = program.put + 1
            self.note("%s writes %d", program.driver.name, value)
            internal_kv._internal_kv_put(program.driver.id, b"%d" % value)
            program.put = value

    def _read_key(self, program: Program) -> None:
        found = internal_kv._internal_kv_get(program.driver.id)
        self.must(
            found == b"%d" % program.put, "B2", "%s has written %d, found %s", program.driver.name, program.put, found
        )

    def _group(self, program: Program) -> None:
        if program.groups:
            group = program.groups[0]
            if self.chance.happens(70):
                program.held.append(self._submit(program.driver, [], None, "grouped", group))
                return
            program.groups.remove(group)
            self._remove(program, group)
            return
        strategy, is_detached = self.chance.choose(("PACK", "SPREAD")), self.chance.happens(30)
        bundles = [{SLOT: 1.0}] * (1 + self.chance.below(2))
        made = placement_group(bundles, strategy=strategy, lifetime="detached" if is_detached else None)
        self.note("%s has made group %s", program.driver.name, made.id.hex()[-4:])
        group = NotedGroup(made, program.driver, is_detached=is_detached)
        self.groups.append(group)
        program.groups.append(group)

    def _remove(self, program: Program, group: NotedGroup) -> None:
        self.note("%s removes group %s", program.driver.name, group.id[-4:])
        group.is_removed = True
        remove_placement_group(group.made)

    # Tasks and actors

    def construct(self, process: Machine, number: int) -> None:
        noted = self.actors[number]
        self.note("%s constructs actor %d", process.name, number)
        rivals = [host.name for host in noted.hosts if not host.is_dead and self._is_member(host)]
        self.must(not rivals, "B6", "actor %d is constructed in %s while it lives in %s", number, process.name, rivals)
        limit = noted.restart_count
        self.must(
            limit < 0 or len(noted.hosts) <= limit, "B6", "actor %d is constructed for the %d. time", number, limit + 2
        )
        noted.hosts.append(process)
        noted.is_recorded = True
        self.running[process] = []
        process.pause()

    def _is_member(self, host: Machine) -> bool:
        """Whether its machine is one that the head has not given up."""
        return self.is_alive_to_head(host.node)  # type: ignore[arg-type]

    def is_alive_to_head(self, machine: ClusterNode) -> bool:
        if machine is self.head:
            return True
        return not self.head.is_dead and machine.node_id in self.head.daemon.others.link.table.alive

    def run_work(self, process: Machine, number: int, carried: list[Ref], inputs: tuple[Any, ...]) -> Any:
        work = self.works[number]
        self.note("%s begins %s", process.name, work)
        self._check_begin(process, work, inputs)
        at = len(work.executions)
        work.executions.append((process, "begun"))
        self.running.setdefault(process, []).append(work)
        children: list[Ref] = []
        try:
            for _ in range(work.pause_count):
                process.pause()
            if work.meeting is not None:
                work.meeting.attend(process)
            for _ in range(work.child_count):
                kinds = [kind for kind in self.task_kinds if kind != "special"] or ["plain"]  # its parent may have it
                children.append(self._submit(process, [], work, self.chance.choose(kinds)))
            for ref in (*children, *carried):
                self._get(process, ref)
        finally:
            if not process.is_dead:
                self.running[process].remove(work)
        self.note("%s ends %s by %s", process.name, work, work.end)
        if work.end == "crash" and not at:
            process.crash()
        work.executions[at] = (process, "returned" if work.end != "raise" else "raised")
        if work.end == "raise":
            raise Trouble(number)
        return ("done", number)

    def _check_begin(self, process: Machine, work: Work, inputs: tuple[Any, ...]) -> None:
        expected = tuple(("done", one.number) for one in work.inputs)
        self.must(inputs == expected, "B1", "%s got %s", work, inputs)
        limit = work.retry_count
        self.must(
            limit < 0 or len(work.executions) <= limit, "B5", "%s runs for the %d. time", work, len(work.executions) + 1
        )
        self.must(
            not self.running.get(process), "B3", "%s runs %s beside %s", process.name, work, self.running.get(process)
        )
        self.must(not work.is_after_kill, "B5", "%s begins, though its caller killed the actor before", work)
        if work.actor is not None:
            self.must(
                work.actor.hosts[-1:] == [process] or not self._is_member(process),
                "B6",
                "%s runs in %s",
                work,
                process.name,
            )
        if SPECIAL in TASKS.get(work.kind, {}).get("resources", {}) and work.actor is None:
            others = [one.name for one in process.node.living if one is not process and self._holds_special(one)]
            self.must(not others, "B3", "%s runs in %s while %s has the only %s", work, process.name, others, SPECIAL)

    def _holds_special(self, process: Any) -> bool:
        return any(one.kind == "special" and one.actor is None for one in self.running.get(process, ()))

    # What programs are told

    def _get(self, process: Machine, ref: Ref) -> None:
        work = self.by_ref[ref._id]
        try:
            value = process.engine.get([ref], None)[0]
        except exceptions.UmbelError as error:
            self.note("%s gets %s: %s", process.name, work, type(error).__name__)
            self.must(self._may_fail(work, error), "B4", "%s gave %r: %s", work, error, facts(work))
            return
        self.note("%s gets %s", process.name, work)
        self.must(value == ("done", work.number) and work.end != "raise", "B1", "%s gave %r", work, value)
        self.must(any(how == "returned" for _, how in work.executions), "B1", "%s never ran", work)

    def _faults(self, work: Work) -> int:
        return self.fault_count - work.faults_before

    def _may_fail(self, work: Work, error: BaseException) -> bool:
        """Whether this is the right error, of the work itself or of what it takes."""
        if any(self._may_fail(one, error) for one in work.inputs):
            return True
        faults = self._faults(work)
        if isinstance(error, Trouble):
            return work.end == "raise"
        if isinstance(error, exceptions.TaskPlacementGroupRemoved):
            return work.group is not None and work.group.is_removed
        if isinstance(error, exceptions.ActorDiedError):
            noted = work.actor
            return noted is not None and (noted.may_end or self._has_spent_restarts(noted) or noted.creator.is_dead)
        if isinstance(error, exceptions.ActorUnavailableError):
            noted = work.actor
            return noted is not None and work.retry_count >= 0 and faults + noted.is_restarted > work.retry_count
        if isinstance(error, (exceptions.WorkerCrashedError, exceptions.NodeDiedError)):
            return self._is_given_up(work.owner) or faults > min(work.retry_count, deaths.UNSTARTED_DEATHS_MAX)
        if isinstance(error, exceptions.OwnerDiedError):
            return work.owner.is_dead or self._is_given_up(work.owner)
        return False

    def _is_given_up(self, process: Machine) -> bool:
        """Whether its node is dead to the head, for what was wrong before, and others have ended what it leases there."""
        machine: Any = process.node
        return machine.node_id not in self.head.daemon.others.link.table.alive

    def _has_spent_restarts(self, noted: NotedActor) -> bool:
        return 0 <= noted.restart_count < self.fault_count + noted.is_restarted
