"""A run of a dataset by chance: the scheduler is real, what carries out its commands is simulated.

The runtime starts tasks as it has resources, and does not know that some are paused: these keep theirs. A worker makes
blocks ahead of their reader up to a window. Workers and actors are lost, tasks get stuck, consumers are slow or leave.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import dataset_plans
from dataset_plans import BLOCK_ROWS_MAX, ROW_BYTES

from umbel.data._engine import capacity, events, runs, scheduling, stages
from umbel.data._engine.events import Piece
from umbel.testing.simulation.chance import Chance
from umbel.testing.simulation.world import QUIET_STEPS_MAX, Violation, World

INVARIANTS: Final[Mapping[str, str]] = {
    "F1": "every row once, in order",
    "F2": "bytes stay within the budget",
    "F3": "every run ends",
    "F4": "nothing is left of what has ended",
    "F5": "a block is there while it is needed, and no longer",
    "F6": "no more at once than there is room for",
    "F7": "nothing is done for nobody",
    "F8": "a user's error ends the run, and is said to be the stage's",
    "F9": "what was lost is tried again, a few times",
}
WINDOW = 2
STRAGGLES_PERCENT = 4


class Broken(Violation):
    """An invariant of the section on datasets does not hold."""

    def __init__(self, rule: str, text: str) -> None:
        AssertionError.__init__(self, f"{rule} ({INVARIANTS[rule]}): {text}")
        self.rule = rule


class Oops(Exception):
    """The user's."""


class Work:
    """An attempt at a task, as the runtime has it."""

    def __init__(self, command: events.StartTask, run: runs.Run, output: list[list[int]], fails_at: int | None) -> None:
        self.command = command
        self.run = run
        self.output = output
        self.made = 0
        self.read = 0
        self.fails_at = fails_at
        self.is_user_error = False
        self.is_running = False
        self.is_paused = False
        self.is_cancelled = False
        self.is_stuck = False
        self.node = 0  # on which it runs

    def needs(self) -> Mapping[str, float]:
        if self.command.actor is not None:
            return {}
        return {name: amount for name, amount in self.run.needs.items() if name != "CPU" or self.command.has_cpus}

    def can_make(self) -> bool:
        """Another block, ahead of its reader."""
        at_end = len(self.output) if self.fails_at is None else min(self.fails_at, len(self.output))
        return self.made < at_end and self.made - self.read < WINDOW

    def __str__(self) -> str:
        return f"{self.run.name}/{self.command.kind} {self.command.task}.{self.command.attempt}"


class DatasetWorld(World):
    """`works` are attempts that the runtime knows; `books` what is known of blocks."""

    steps_min, steps_max = 50, 300

    def set_up(self) -> None:
        chance = self.chance
        self.plan = dataset_plans.Plan(chance)
        self.fails_percent = chance.choose((0, 0, 0, 2, 10))
        self.lost_percent = chance.choose((0, 0, 3, 10))
        self.lazy_percent = chance.choose((0, 50, 90))
        budget = ROW_BYTES * chance.choose((1, 20, 100, 10_000))
        self.options = scheduling.Options(
            budget_bytes=budget, keeps_order=chance.happens(85) or self.plan.is_by_part, repeats=chance.happens(60),
            retries_max=3, learns_first=chance.happens(50),
        )  # fmt: skip
        self.machine = scheduling.Machine(self.plan.last, self.options)
        self.heap_max = chance.choose((None, ROW_BYTES * 10, ROW_BYTES * 30))
        self.heaps = [ROW_BYTES * chance.below(12) for _ in self.machine.runs]  # that a task of each takes
        self.models = [ROW_BYTES * chance.below(8) for _ in self.machine.runs]  # that an actor of each holds
        self.shown: set[tuple[int, str]] = set()  # of which stages and kinds a task has ended
        self.node_cpus: list[int] = []
        self.total: dict[str, float] = {}
        self.be_of_nodes()
        self.works: dict[tuple[int, int], Work] = {}
        self.actors: dict[int, tuple[runs.Run, bool, bool]] = {}  # -> (run, has CPUs, is ready)
        self.node_of: dict[int, int] = {}  # of actors
        self.stopped: set[int] = set()
        self.blocks: dict[int, list[int]] = {}
        self.sizes: dict[int, int] = {}
        self.last_block = 0
        self.samples: dict[int, list[int]] = {}
        self.boundaries: dict[int, list[int]] = {}
        self.counts: dict[str, int] = {}
        self.delivered: list[list[int]] = [[] for _ in self.machine._waiting]
        self.to_take: dict[int, int] = {}  # delivery -> consumer
        self.done_consumers: set[int] = set()
        self.end: events.Command | None = None
        self.has_left = False
        self.attempts: Counter[int] = Counter()
        self.lost: Counter[int] = Counter()
        self.held_max = 0
        self.failed_stage: str | None = None
        self.pending: list[events.Event] = []
        for run in self.machine.runs:
            if isinstance(run.stage, stages.Input):
                for number, rows in enumerate(self.plan.source_rows[run.stage]):
                    block = -1 - number - (run.index << 32)
                    self.blocks[block], self.sizes[block] = rows, 0
        names = [f"{run.name}<{','.join(str(one.index) for one in run.producers)}>" for run in self.machine.runs]
        self.note("plan %s, budget %d, %s", names, budget, self.total)
        self.tell(events.Began(self.total, self.now_s))

    # The executor

    def tell(self, event: events.Event) -> None:
        self.note("%s", _short(event))
        commands = self.machine.apply(event)
        for command in commands:
            self.carry_out(command)
        self.machine.check()
        for command in commands:
            if isinstance(command, events.StartTask):
                self.check_heap(command)

    def carry_out(self, command: events.Command) -> None:
        self.note("    %s", _short(command))
        if self.end is not None:
            self.must(isinstance(command, events.Release), "F4", "%s after the end", command)
        if isinstance(command, events.StartTask):
            self.start(command)
        elif isinstance(command, (events.PauseTask, events.ResumeTask)):
            self.works[command.task, command.attempt].is_paused = isinstance(command, events.PauseTask)
        elif isinstance(command, events.CancelTask):
            self.works[command.task, command.attempt].is_cancelled = True
        elif isinstance(command, events.StartActor):
            run = self.machine.runs[command.stage]
            self.actors[command.actor] = (run, command.has_cpus, False)
            count = sum(one is run for one, _, _ in self.actors.values())
            self.must(count <= run.stage.compute.max_size, "F6", "%d actors of %s", count, run.name)
        elif isinstance(command, events.StopActor):
            self.must(command.actor in self.actors, "F4", "actor %d stopped twice", command.actor)
            del self.actors[command.actor]
            self.stopped.add(command.actor)
        elif isinstance(command, events.MakeBoundaries):
            found = sorted(row for task in command.tasks for row in self.samples[task])
            found = found or list(itertools.accumulate(command.row_counts))
            count = command.partition_count
            if not command.row_counts:
                found = [found[len(found) * at // count] for at in range(1, count) if found]
            self.boundaries[command.stage] = found
            self.pending.append(events.BoundariesMade(command.stage, self.now_s))
        elif isinstance(command, events.Deliver):
            self.delivered[command.consumer] += self.rows_of(command.piece)
            self.to_take[command.delivery] = command.consumer
        elif isinstance(command, events.Release):
            self.must(command.block in self.blocks, "F5", "block %d released twice", command.block)
            del self.blocks[command.block]
        elif isinstance(command, (events.Finish, events.Fail)):
            self.end = command

    def rows_of(self, piece: Piece) -> list[int]:
        self.must(piece.block in self.blocks, "F5", "block %d is wanted and was released", piece.block)
        return self.blocks[piece.block][piece.offset : piece.offset + piece.row_count]

    def start(self, command: events.StartTask) -> None:
        run = self.machine.runs[command.stage]
        self.must(self.is_wanted(run), "F7", "%s is started, and nobody wants it", run.name)
        self.attempts[command.task] += 1
        most = self.lost[command.task] + (2 if run.can_repeat and self.options.repeats else 1)
        self.must(self.attempts[command.task] <= most, "F9", "attempt %d", self.attempts[command.task])
        running = [work for work in self.works.values() if work.run is run and not work.is_cancelled]
        if command.actor is not None:
            found = self.actors.get(command.actor)
            self.must(found is not None and found[2], "F6", "actor %d gets a task and is not ready", command.actor)
            in_hand = sum(work.command.actor == command.actor for work in running)
            per_actor = run.stage.compute.tasks_per_actor
            self.must(in_hand < per_actor, "F6", "actor %d has %d tasks", command.actor, in_hand)
        else:
            most_at_once = self.total["CPU"] * capacity.AHEAD
            cpus = sum(work.needs().get("CPU", 0.0) for work in self.works.values() if not work.is_cancelled)
            needs = run.needs.get("CPU", 0.0) if command.has_cpus else 0.0
            is_alone = not cpus or not needs
            self.must(is_alone or cpus + needs <= max(most_at_once, needs), "F6", "%s CPUs", cpus + needs)
        output = self.output_of(run, command)
        if run.sampling is not None and command.kind in events.MAKING:
            self.samples[command.task] = [row for block in output for row in block]
        fails_at = None
        is_user_error = False
        if self.chance.happens(self.fails_percent):
            fails_at, is_user_error = self.chance.below(len(output) + 1), self.chance.happens(20)
        work = Work(command, run, output, fails_at)
        work.is_user_error = is_user_error
        work.read = work.made = min(command.skipped_blocks, len(output))
        work.is_stuck = self.chance.happens(STRAGGLES_PERCENT)
        self.works[command.task, command.attempt] = work

    def check_heap(self, command: events.StartTask) -> None:
        """A task that has just been started has room beside all others of whose like it is known what they take; or nothing
        goes on that would give room."""
        if (command.stage, command.kind) not in self.shown or "memory" not in self.total or command.attempt > 1:
            return
        works = [one for one in self.works.values() if not one.is_cancelled]
        taken = sum(self.heaps[one.run.index] for one in works if (one.run.index, one.command.kind) in self.shown)
        taken += sum(self.models[run.index] for run, _, is_ready in self.actors.values() if is_ready)
        others = [one for one in works if one.command is not command and not one.is_paused]
        goes_on = any(self.heaps[one.run.index] and (one.run.index, one.command.kind) in self.shown for one in others)
        is_least = not self.heaps[command.stage] or not goes_on
        self.must(is_least or taken <= self.total["memory"], "F6", "%d bytes of heap", taken)

    def is_wanted(self, run: runs.Run) -> bool:
        """Whether a way to the end leads past no limit that is reached."""
        if isinstance(run, runs.LimitRun) and not run._left:
            return False
        return not run.is_closed and (not run.consumers or any(self.is_wanted(one) for one, _ in run.consumers))

    def output_of(self, run: runs.Run, command: events.StartTask) -> list[list[int]]:
        """The blocks that the task makes."""
        inputs = [[row for piece in pieces for row in self.rows_of(piece)] for pieces in command.pieces]
        if command.kind == events.READ:
            return _blocks(self.plan.source_rows[run.stage][command.number])
        if command.kind == events.MAP:
            if self.plan.is_by_part:
                self.check_part(run, command, inputs[0])
            return _blocks(self.plan.functions[run.stage](inputs[0]))
        if command.kind == events.ZIP:
            return _blocks([dataset_plans.zipped(pair) for pair in zip(*inputs, strict=True)])
        if command.kind == events.SAMPLE:
            self.samples[command.task] = inputs[0]
            return []
        self.counts[run.name] = command.partition_count
        is_join = run.stage in self.plan.joins
        if command.kind in events.SHARES:
            return _blocks(inputs[0])
        if command.kind in events.RESTS:
            return _blocks(dataset_plans.alone(inputs))
        if command.kind == events.REDUCE and is_join:
            return _blocks(dataset_plans.matched(inputs, self.plan.joins[run.stage]))
        if command.kind == events.REDUCE:
            rows = [row for rows in inputs for row in rows]
            return _blocks(rows if dataset_plans.is_by_place(run.stage) else sorted(rows))
        count = command.partition_count
        if is_join:
            return [[row for row in inputs[0] if dataset_plans.key(row) % count == at] for at in range(count)]
        if dataset_plans.is_by_place(run.stage):
            ends = self.boundaries[command.stage]
            first = ends[command.pieces[0][0].number] - command.pieces[0][0].row_count
            places = [(first + at) * count // ends[-1] for at in range(len(inputs[0]))]
            return [[row for row, place in zip(inputs[0], places, strict=True) if place == at] for at in range(count)]
        if run.stage.sample is None:
            return [[row for row in inputs[0] if row % count == at] for at in range(count)]
        ends = self.boundaries[command.stage]
        return [[row for row in inputs[0] if sum(row >= end for end in ends) == at] for at in range(count)]

    def check_part(self, run: runs.Run, command: events.StartTask, rows: list[int]) -> None:
        origins = {piece.origin for piece in command.pieces[0]}
        self.must(len(origins) == 1, "F1", "a task has rows of the parts %s", origins)
        if isinstance(run.stage, stages.Write):
            whole = self.plan.of_part(run.stage, command.number)
            self.must(rows == whole, "F1", "%s is written as part %d, and not %s", rows, command.number, whole)

    # The runtime

    def be_of_nodes(self) -> None:
        """The cluster has so many CPUs, on one or two nodes."""
        count = 1 + self.chance.below(4)
        first = 1 + self.chance.below(count) if self.chance.happens(40) else count
        self.node_cpus = [one for one in (first, count - first) if one]
        nodes = {f"node:{number}": 1.0 for number in range(len(self.node_cpus))}
        self.total = {"CPU": float(count), "GPU": 1.0, **nodes}
        if self.heap_max is not None:
            self.total["memory"] = float(self.heap_max)

    def node_for(self, needs: Mapping[str, float]) -> int | None:
        """One that has room. GPUs are wherever they are wanted."""
        used: dict[str, float] = {}
        cpus = [0.0] * len(self.node_cpus)
        taken = [(work.node, work.needs()) for work in self.works.values() if work.is_running]
        taken += [
            (self.node_of[one], self.actor_needs(one)) for one, (_, _, is_ready) in self.actors.items() if is_ready
        ]
        for node, some in taken:
            capacity.add(used, some, 1)
            cpus[node % len(cpus)] += some.get("CPU", 0.0)
        if any(used.get(name, 0.0) + amount > self.total[name] for name, amount in needs.items() if name != "CPU"):
            return None
        wanted = needs.get("CPU", 0.0)
        found = [at for at, most in enumerate(self.node_cpus) if not wanted or cpus[at] + wanted <= most]
        return self.chance.choose(found) if found else None

    def core_step(self, *, is_settling: bool) -> bool:
        """Something that the runtime can do; whether there was anything."""
        if self.pending:
            self.tell(self.pending.pop(0)._replace(at_s=self.now_s))
            return True
        choices: list[Any] = []
        for key, work in self.works.items():
            if work.is_cancelled:
                choices.append((self.drop, key))
            elif not work.is_running:
                if self.node_for(work.needs()) is not None:
                    choices.append((self.run_task, key))
            elif not work.is_stuck:
                is_read = work.read == work.made and not work.is_paused
                fails = is_read and work.fails_at is not None and work.made >= work.fails_at
                if fails or work.can_make() or (is_read and work.made == len(work.output)):
                    choices.append((self.advance, key))
                if work.read < work.made and not work.is_paused:
                    choices.append((self.read_block, key))
        starting = [actor for actor, (_, _, is_ready) in self.actors.items() if not is_ready]
        choices += [
            (self.make_actor, actor) for actor in starting if self.node_for(self.actor_needs(actor)) is not None
        ]
        if not choices:
            stuck = [work for work in self.works.values() if work.is_stuck]
            if is_settling and stuck:
                self.chance.choose(stuck).is_stuck = False
                return True
            return False
        call, key = self.chance.choose(choices)
        return bool(call(key))

    def drop(self, key: Any) -> bool:
        del self.works[key]
        return True

    def run_task(self, key: Any) -> bool:
        work = self.works[key]
        node = self.node_for(work.needs())
        assert node is not None
        work.node, work.is_running = node, True
        return True

    def advance(self, key: Any) -> bool:
        work = self.works[key]
        command = work.command
        is_read = work.read == work.made and not work.is_paused
        if is_read and work.fails_at is not None and work.made >= work.fails_at:
            del self.works[key]
            if work.is_user_error:
                self.failed_stage = work.run.name
                self.tell(events.TaskFailed(command.task, command.attempt, Oops("no"), False, self.now_s))
            else:
                self.lost[command.task] += 1
                self.tell(events.TaskFailed(command.task, command.attempt, OSError("lost"), True, self.now_s))
        elif work.can_make():
            work.made += 1
        else:
            del self.works[key]
            index = work.run.index
            held = 0 if command.actor is None else self.models[index]
            cost = events.Cost(0.001 * (1 + self.chance.below(200)), 0.001, self.heaps[index], held)
            self.shown.add((index, command.kind))
            self.tell(events.TaskEnded(command.task, command.attempt, cost, self.now_s))
        return True

    def read_block(self, key: Any) -> bool:
        work = self.works[key]
        rows = work.output[work.read]
        work.read += 1
        self.last_block += 1
        self.blocks[self.last_block], self.sizes[self.last_block] = rows, len(rows) * ROW_BYTES
        command = work.command
        self.tell(
            events.BlockMade(
                command.task, command.attempt, self.last_block, len(rows), len(rows) * ROW_BYTES, self.now_s
            )
        )
        return True

    def actor_needs(self, actor: int) -> dict[str, float]:
        run, has_cpus, _ = self.actors[actor]
        return {name: amount for name, amount in run.needs.items() if name != "CPU" or has_cpus}

    def make_actor(self, actor: int) -> bool:
        run, has_cpus, _ = self.actors[actor]
        node = self.node_for(self.actor_needs(actor))
        assert node is not None
        self.node_of[actor] = node
        self.actors[actor] = (run, has_cpus, True)
        self.tell(events.ActorReady(actor, self.now_s, self.models[run.index]))
        return True

    def lose_actor(self) -> None:
        if not self.actors or self.machine.is_done:
            return
        actor = self.chance.choose([*self.actors])
        run, _, _ = self.actors.pop(actor)
        for key, work in [*self.works.items()]:
            if work.command.actor == actor:
                self.lost[work.command.task] += 1
                del self.works[key]
        self.note("actor %d of %s is lost", actor, run.name)
        self.tell(events.ActorDied(actor, OSError("actor lost"), True, self.now_s))

    # Consumers

    def take(self) -> bool:
        if not self.to_take:
            return False
        delivery = min(self.to_take) if self.chance.happens(80) else self.chance.choose([*self.to_take])
        del self.to_take[delivery]
        self.tell(events.Took(delivery, self.now_s))
        return True

    def leave(self) -> None:
        left = [one for one in range(len(self.delivered)) if one not in self.done_consumers]
        if left and self.end is None:
            consumer = self.chance.choose(left)
            self.done_consumers.add(consumer)
            self.has_left = True
            self.tell(events.ConsumerDone(consumer, self.now_s))

    # The run

    def act(self) -> None:
        chance = self.chance
        self.now_s += 0.001 * chance.below(100)
        wake_s = self.machine.next_wake_s
        if wake_s is not None:
            self.must(wake_s > self.now_s - 1e9, "F3", "no time")
            if self.now_s >= wake_s or chance.happens(2):
                self.now_s = max(self.now_s, wake_s)
                self.tell(events.TimePassed(self.now_s))
                return
        kind = chance.weighted((80, 20, 1, 1))
        if kind == 1 and not chance.happens(self.lazy_percent):
            self.take()
        elif kind == 2 and chance.happens(self.lost_percent):
            self.lose_actor()
        elif kind == 3:
            if chance.happens(5):
                self.leave()
            elif chance.happens(20):
                self.be_of_nodes()
                self.tell(events.ResourcesChanged(self.total, self.now_s))
        else:
            self.core_step(is_settling=False)

    def settle(self) -> None:
        idle = 0
        for _ in range(QUIET_STEPS_MAX):
            if self.end is not None and not self.to_take and not self.works:
                return
            self.now_s += 0.01
            if self.core_step(is_settling=True) or (self.chance.happens(50) and self.take()):
                idle = 0
                self.check()
                continue
            idle += 1
            self.now_s += 1.0
            self.tell(events.TimePassed(self.now_s))
            if idle > 20:
                break
        waits = {run.name: (run.reason, len(run.tasks)) for run in self.machine.runs if not run.is_closed}
        self.must(False, "F3", "%s", waits)

    def check(self) -> None:
        """What is held, by our own books: blocks that are neither given back nor kept for an exchange."""
        if self.plan.is_shared or any(isinstance(one, _KEEPING) for one in stages.ordered(self.plan.last)):
            return
        if self.plan.is_by_part:  # a part is kept until it is whole
            return
        held = sum(self.sizes[block] for block in self.blocks)
        block = 2 * BLOCK_ROWS_MAX * ROW_BYTES
        at_once = len(self.machine.runs) + self.total["CPU"] * capacity.AHEAD + 4 + 3 * 2
        most = self.options.budget_bytes + block * at_once
        self.must(held <= most, "F2", "%d bytes are held, the budget is %d", held, self.options.budget_bytes)

    def check_rest(self) -> None:
        self.must(not self.actors, "F4", "actors %s are left", [*self.actors])
        made = [block for block in self.blocks if block > 0]
        self.must(not made, "F5", "blocks %s are left", made)
        if isinstance(self.end, events.Fail):
            self.check_failure(self.end)
            return
        self.must(self.failed_stage is None or self.has_left, "F8", "%s failed, and the run did not", self.failed_stage)
        self.check_rows()

    def check_failure(self, end: events.Fail) -> None:
        if isinstance(end.error, Oops):
            self.must(end.stage == self.failed_stage, "F8", "%s is blamed for %s", end.stage, self.failed_stage)
        elif isinstance(end.error, ValueError):
            is_wrong = self.options.keeps_order and self.plan.result(self.counts) is not None
            self.must(not is_wrong, "F8", "%s", end.error)
        else:
            most = max(self.lost.values(), default=0)
            deaths = max((run.pool.death_count for run in self.machine.runs if run.pool is not None), default=0)
            self.must(max(most, deaths) > self.options.retries_max, "F9", "given up after %d losses", most)

    def check_rows(self) -> None:
        expected = self.plan.result(self.counts)
        last = self.plan.last
        if expected is None:  # the consumer had gone, or a limit was reached, before it showed
            return
        if isinstance(last, stages.Split):
            self.check_split(last, expected)
            return
        rows = self.delivered[0]
        kinds = [type(one) for one in stages.ordered(last)]
        if not self.options.keeps_order:
            if stages.Limit not in kinds and stages.Zip not in kinds and not self.has_left:
                self.must(Counter(rows) == Counter(expected), "F1", "%s for %s", rows, expected)
            return
        if self.has_left:
            expected = expected[: len(rows)]
        self.must(rows == expected, "F1", "got %s for %s", rows, expected)

    def check_split(self, last: stages.Split, expected: list[int]) -> None:
        everything = [row for rows in self.delivered for row in rows]
        kinds = [type(one) for one in stages.ordered(last)]
        if self.has_left or (not self.options.keeps_order and (stages.Limit in kinds or stages.Zip in kinds)):
            return
        missing = Counter(expected) - Counter(everything)
        self.must(not Counter(everything) - Counter(expected), "F1", "some rows twice")
        if last.is_equal:
            counts = {len(rows) for rows in self.delivered}
            self.must(len(counts) == 1, "F1", "consumers have %s rows", counts)
            self.must(missing.total() < last.count, "F1", "%d rows are missing", missing.total())
        else:
            self.must(not missing, "F1", "rows are missing")

    def must(self, condition: object, rule: str, text: str, *values: object) -> None:
        if not condition:
            self.violation = Broken(rule, text % values if values else text)
            raise self.violation


_KEEPING = (stages.Exchange, stages.Union, stages.Zip, stages.Split)


def _blocks(rows: list[int]) -> list[list[int]]:
    """As a task divides what it makes: at least one block."""
    return [rows[at : at + BLOCK_ROWS_MAX] for at in range(0, len(rows), BLOCK_ROWS_MAX)] or [[]]


def _short(thing: Any) -> str:
    return str(thing)


def make(chance: Chance, trace: list[str] | None) -> World:
    return DatasetWorld(chance, trace)
