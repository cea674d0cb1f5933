"""What runs when: a pure state machine over the stages of a plan.

Events in, commands out; no clock, nothing fetched, nothing started here. What it sees to:

- What is made and not consumed, and what running tasks are expected to make, stays within the budget; what tasks and actors
  take of heap, within the memory that there is.
- Whoever is furthest down goes first. While the consumer has nothing, the one thing that it waits for may always go on,
  whatever the budget says (`following`), so that something always moves.
- What a task makes is passed on in the order of tasks; a task whose blocks there is no room for is paused, the one whose
  turn it is only while the consumer has enough.
- Nothing is done for whoever wants no more: tasks are cancelled, and not waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from umbel.data._engine import assignments, events, exchanges, flow, following, mixing, runs, splits, stages
from umbel.data._engine.events import Piece
from umbel.exceptions import InternalError

REPEATED_MEDIANS = 3.0  # a task that takes so many times as long as its like is tried a second time
REPEATED_AFTER_S = 1.0  # and not before: a second attempt costs about as much as half of that
REPEATED_SEEN = 4  # of its like, to know how long they take


@dataclass(frozen=True)
class Options:
    """budget_bytes: for blocks. learns_first: the first task of each stage runs before the others, to show what they take of
    heap, and so does the first actor. stall_s: after so long without anything, it is said what everybody waits for."""

    budget_bytes: int
    keeps_order: bool = True
    repeats: bool = True
    retries_max: int = 3
    stall_s: float = 10.0
    learns_first: bool = False


class Machine:
    """One run of one plan."""

    def __init__(self, plan: stages.Stage, options: Options) -> None:
        self.options = options
        self.ledger = flow.Ledger()
        self.is_done = False
        self._commands: list[events.Command] = []
        self._last_delivery = 0
        self._deliveries: dict[int, tuple[int, Piece]] = {}
        self._waiting: list[int] = []  # of each consumer, deliveries not taken
        self._is_consumer_done: list[bool] = []
        self._last_event_s = self._at_s = 0.0
        self.held_bytes_max = self.parked_bytes_max = 0
        self.consumer_s = 0.0  # in which the consumers had something to take
        self._stall_count = 0
        self.runs = self._make_runs(plan)
        self.assignments = assignments.Assignments(
            self.runs, self.ledger, self._commands, learns_first=options.learns_first
        )
        self._following = following.Following(self.assignments)

    def _make_runs(self, plan: stages.Stage) -> list[runs.Run]:
        services = runs.Services(
            emit=self._emit, stop_inputs=self._stop_inputs, progress=self._progress, make_boundaries=self._ask_boundaries,
            deliver=self._deliver, fail=self._fail_of, ledger=self.ledger, keeps_order=self.options.keeps_order,
        )  # fmt: skip
        ordered = stages.ordered(plan)
        made = {id(stage): _KINDS[type(stage)](index, stage, services) for index, stage in enumerate(ordered)}
        self._producer: dict[int, runs.Run] = {}
        for stage in ordered:
            run = made[id(stage)]
            for edge, source in zip(run.edges, stage.inputs, strict=True):
                made[id(source)].consumers.append((run, edge))
                run.producers.append(made[id(source)])
                self._producer[id(edge)] = made[id(source)]
        for run in made.values():
            if isinstance(run, exchanges.ExchangeRun):
                run.ask_for_samples()
        consumer_count = plan.count if isinstance(plan, stages.Split) else 1
        self._waiting = [0] * consumer_count
        self._is_consumer_done = [False] * consumer_count
        return list(made.values())

    # The outside

    def apply(self, event: events.Event) -> list[events.Command]:
        """What is to be done now. Nothing but releases once all is done."""
        at_s = event.at_s
        self._note_blocked(at_s)
        if not isinstance(event, events.TimePassed):
            self._last_event_s, self._stall_count = at_s, 0
        self._at_s = self.assignments.at_s = at_s
        if self.is_done:
            self._apply_late(event)
        else:
            task = self.assignments.tasks.get(event.task) if isinstance(event, events.BlockMade) else None
            self._handlers[type(event)](self, event)
            # A shard is put aside, and lets nothing begin before its task has ended: of these there may be millions.
            if not self.is_done and (task is None or task.plan.kind != events.PARTITION):
                self._pump()
        self.held_bytes_max = max(self.held_bytes_max, self.ledger.held_bytes)
        self.parked_bytes_max = max(self.parked_bytes_max, self.ledger.parked_bytes)
        return self._taken()

    @property
    def next_wake_s(self) -> float | None:
        """When `TimePassed` would change something, if nothing else happens."""
        if self.is_done:
            return None
        due = [run.pool.next_end_s() for run in self.runs if run.pool is not None]
        due += [self._repeat_due_s(task) for task in self.assignments.tasks.values()]
        if self._is_starving():
            due.append(self._last_event_s + self.options.stall_s * 2**self._stall_count)
        return min((one for one in due if one is not None and one > self._at_s), default=None)

    @property
    def usage_bytes(self) -> int:
        """What the budget is for."""
        return self.ledger.held_bytes + self.assignments.reserved_bytes

    def check(self) -> None:
        """Raises InternalError if what must hold does not."""
        reserved = sum(task.reserved_bytes for task in self.assignments.tasks.values())
        self._must(reserved == self.assignments.reserved_bytes, "reserved bytes do not add up")
        heap = sum(task.reserved_heap_bytes for task in self.assignments.tasks.values())
        self._must(heap == self.assignments.heap_bytes, "heap does not add up")
        self._must(self.assignments.capacity.is_right(self.assignments.tasks.values()), "used resources do not add up")
        self._must(self.ledger.held_bytes >= 0 and self.ledger.parked_bytes >= 0, "bytes went negative")
        if self.is_done:
            left = (
                self.assignments.tasks or self.assignments.capacity.actors or len(self.ledger) > len(self._deliveries)
            )
            self._must(not left, "something is left after the end")

    def _must(self, condition: object, text: str) -> None:
        if not condition:
            raise InternalError(text, stages=[run.name for run in self.runs])

    def _taken(self) -> list[events.Command]:
        for task in self.assignments.tasks.values():
            for attempt in task.attempts.values():
                if attempt.is_paused != attempt.was_paused:
                    attempt.was_paused = attempt.is_paused
                    command = events.PauseTask if attempt.is_paused else events.ResumeTask
                    self._commands.append(command(task.id, attempt.number))
        self._commands += [events.Release(block) for block in self.ledger.released]
        self.ledger.released.clear()
        commands = self._commands[:]
        self._commands.clear()
        return commands

    # Events

    def _on_began(self, event: events.Began) -> None:
        self.assignments.capacity.total = dict(event.resources)
        for run in self.runs:
            run.begin()
        for run in self.runs:
            self._close_if_exhausted(run)

    def _on_resources(self, event: events.ResourcesChanged) -> None:
        self.assignments.capacity.total = dict(event.resources)

    def _on_block(self, event: events.BlockMade) -> None:
        found = self.assignments.attempt(event.task, event.attempt)
        if found is None:
            self._commands.append(events.Release(event.block))
            return
        task, attempt = found
        for other in [one for one in task.attempts.values() if one is not attempt]:
            self.assignments.cancel_attempt(task, other)
        self.assignments.count(task, -1)
        task.block_count += 1
        task.row_count += event.row_count
        task.output_bytes += event.size_bytes
        self.assignments.count(task, 1)
        self.ledger.enter(event.block, event.size_bytes)
        task.run.made(task, Piece(event.block, 0, event.row_count, event.size_bytes, origin=task.origin))
        if task.run.is_paced(task.plan) and self.usage_bytes > self.options.budget_bytes:
            attempt.is_paused = True

    def _on_ended(self, event: events.TaskEnded) -> None:
        found = self.assignments.attempt(event.task, event.attempt)
        if found is None:
            return
        task, attempt = found
        for other in [one for one in task.attempts.values() if one is not attempt]:
            self.assignments.cancel_attempt(task, other)
        self.assignments.end_attempt(task, attempt)
        run, cost = task.run, event.cost
        run.stats.tasks_ended += 1
        run.stats.wall_s += cost.wall_s
        run.stats.cpu_s += cost.cpu_s
        run.stats.task_wall_s_max = max(run.stats.task_wall_s_max, cost.wall_s)
        run.stats.heap_bytes_max = max(run.stats.heap_bytes_max, cost.heap_bytes)
        run.learnt(task.plan.kind).ended(
            input_bytes=task.plan.input_bytes or 0, output_bytes=task.output_bytes, heap_bytes=cost.heap_bytes,
            wall_s=cost.wall_s,
        )  # fmt: skip
        self.assignments.forget_task(task)
        self.assignments.learnt(run, task.plan.kind)
        if attempt.actor is not None:
            self._actor_holds(run, attempt.actor, cost.held_bytes)
        if run.sampling is not None and task.plan.kind in events.MAKING:
            run.sampled.append(task.id)
        run.ended(task)
        run.advance()
        self._close_if_exhausted(run)

    def _on_failed(self, event: events.TaskFailed) -> None:
        found = self.assignments.attempt(event.task, event.attempt)
        if found is None:
            return
        task, attempt = found
        self.assignments.end_attempt(task, attempt)
        task.failure_count += 1
        if event.is_lost and task.attempts:
            return  # the other one goes on
        if not event.is_lost or task.failure_count > self.options.retries_max:
            self._fail(event.error, task.run, task.id)
            return
        del task.run.tasks[task.id]
        task.run.again.append(task)

    def _on_actor_ready(self, event: events.ActorReady) -> None:
        run = self.assignments.capacity.actors.get(event.actor)
        if run is not None and run.pool is not None:
            run.pool.is_ready(event.actor, event.at_s)
            self._actor_holds(run, event.actor, event.held_bytes)

    def _actor_holds(self, run: runs.Run, actor: int, held_bytes: int) -> None:
        self.assignments.actor_holds(run, actor, held_bytes)
        run.stats.actor_bytes_max = max(run.stats.actor_bytes_max, held_bytes)

    def _on_actor_died(self, event: events.ActorDied) -> None:
        run = self.assignments.capacity.actors.get(event.actor)
        if run is None or run.pool is None:
            return
        self.assignments.capacity.remove_actor(event.actor)
        run.pool.death_count += 1
        if not event.is_lost or run.pool.death_count > self.options.retries_max:
            self._fail(event.error, run)
            return
        for task in [*run.tasks.values()]:
            for attempt in [*task.attempts.values()]:
                if attempt.actor == event.actor:
                    self._on_failed(events.TaskFailed(task.id, attempt.number, event.error, True, event.at_s))

    def _on_took(self, event: events.Took) -> None:
        consumer, piece = self._deliveries.pop(event.delivery)
        self._waiting[consumer] -= 1
        self.ledger.let_go([piece])
        last = self.runs[-1]
        if isinstance(last, splits.SplitRun):
            last.taken(consumer, event.at_s)
            self._close_if_exhausted(last)

    def _on_consumer_done(self, event: events.ConsumerDone) -> None:
        consumer = event.consumer
        self._is_consumer_done[consumer] = True
        last = self.runs[-1]
        if all(self._is_consumer_done):
            self._end()
            self._commands.append(events.Finish())
        elif isinstance(last, splits.SplitRun):
            last.done(consumer)
            self._close_if_exhausted(last)

    def _on_boundaries(self, event: events.BoundariesMade) -> None:
        run = self.runs[event.stage]
        if isinstance(run, exchanges.ExchangeRun):
            run.boundaries_made()

    def _on_time(self, event: events.TimePassed) -> None:
        due_s = self._last_event_s + self.options.stall_s * 2**self._stall_count
        if self._is_starving() and event.at_s >= due_s:
            self._stall_count += 1
            reasons = {run.name: run.reason for run in self.runs if run.reason and not run.is_closed}
            self._commands.append(events.Warn(event.at_s - self._last_event_s, reasons))

    def _apply_late(self, event: events.Event) -> None:
        if isinstance(event, events.BlockMade):
            self._commands.append(events.Release(event.block))
        elif isinstance(event, events.Took) and event.delivery in self._deliveries:
            self.ledger.let_go([self._deliveries.pop(event.delivery)[1]])

    _handlers: Mapping[type, Callable[[Machine, Any], None]] = {
        events.Began: _on_began,
        events.BlockMade: _on_block,
        events.TaskEnded: _on_ended,
        events.TaskFailed: _on_failed,
        events.ActorReady: _on_actor_ready,
        events.ActorDied: _on_actor_died,
        events.Took: _on_took,
        events.ConsumerDone: _on_consumer_done,
        events.ResourcesChanged: _on_resources,
        events.BoundariesMade: _on_boundaries,
        events.TimePassed: _on_time,
    }

    # What is passed on

    def _emit(self, run: runs.Run, piece: Piece) -> None:
        """To all that want it; to the consumer from the last stage."""
        ledger = self.ledger
        if run is self.runs[-1]:
            self._deliver(0, piece)
            return
        targets = [(consumer, edge) for consumer, edge in run.consumers if edge.is_wanted]
        for _ in targets:
            ledger.need([piece])
        ledger.let_go([piece])
        for consumer, edge in targets:
            edge.push(piece)
            consumer.stats.rows_in += piece.row_count
            consumer.stats.bytes_in += piece.size_bytes
            if edge.parks:
                ledger.park(piece)
        for consumer, _ in targets:
            consumer.advance()

    def _deliver(self, consumer: int, piece: Piece) -> None:
        self._last_delivery += 1
        self._deliveries[self._last_delivery] = (consumer, piece)
        self._waiting[consumer] += 1
        self._commands.append(events.Deliver(self._last_delivery, consumer, piece))

    def _close_if_exhausted(self, run: runs.Run) -> None:
        if self.is_done or run.is_closed or not run.is_exhausted():
            return
        run.is_closed = True
        for actor in self.assignments.capacity.actors_of(run):
            self.assignments.stop_actor(actor)
        if run is self.runs[-1]:
            self._end()
            self._commands += [events.CloseConsumer(consumer) for consumer in range(len(self._waiting))]
            self._commands.append(events.Finish())
            return
        for consumer, edge in run.consumers:
            edge.is_complete = True
            consumer.advance()
            self._close_if_exhausted(consumer)

    def _stop_inputs(self, run: runs.Run) -> None:
        """It wants nothing more of what is above it."""
        for edge, producer in zip(run.edges, run.producers, strict=True):
            edge.is_wanted, edge.is_complete = False, True
            self.ledger.let_go(edge.pieces)
            edge.pieces.clear()
            edge.size_bytes = edge.row_count = 0
            if not any(one.is_wanted for _, one in producer.consumers):
                self._stop(producer)
        self._close_if_exhausted(run)

    def _stop(self, run: runs.Run) -> None:
        """Nobody wants its blocks."""
        if run.is_closed:
            return
        run.is_closed = True
        self._clear(run)
        self._stop_inputs(run)

    def _clear(self, run: runs.Run) -> None:
        for task in [*run.tasks.values(), *run.again]:
            for attempt in [*task.attempts.values()]:
                self.assignments.cancel_attempt(task, attempt)
            self.assignments.forget_task(task)
        run.again.clear()
        for actor in self.assignments.capacity.actors_of(run):
            self.assignments.stop_actor(actor)
        self.ledger.let_go(run.pieces_held())

    def _end(self) -> None:
        self.is_done = True
        for run in self.runs:
            run.is_closed = True
            self._clear(run)

    def _fail_of(self, error: BaseException, run: runs.Run) -> None:
        self._fail(error, run)

    def _fail(self, error: BaseException, run: runs.Run, task: int | None = None) -> None:
        if self.is_done:
            return
        self._end()
        self._commands.append(events.Fail(error, run.name, task))

    def _progress(self, edge: flow.Edge) -> float:
        return self._producer[id(edge)].progress()

    def _ask_boundaries(self, run: runs.Run, tasks: tuple[int, ...], count: int, row_counts: tuple[int, ...]) -> None:
        self._commands.append(events.MakeBoundaries(run.index, tasks, count, row_counts))

    # What is started

    def _pump(self) -> None:
        budget = self.options.budget_bytes
        has_room = True
        for run in self._by_urgency():
            run.reason = ""
            self.assignments.scale(run)
            for task in run.tasks.values():
                for attempt in task.attempts.values():
                    if attempt.is_paused and has_room and self.usage_bytes <= budget:
                        attempt.is_paused = False
            while run.again and self.assignments.capacity.free_count(run) > 0:
                self.assignments.start_again(run)
            while not run.reason:
                free_count = self.assignments.capacity.free_count(run)
                plan = run.peek(free_count, self.assignments.capacity.slot_count(run)) if free_count else None
                if plan is None:
                    run.reason = self._reason(run, is_full=not free_count)
                elif self.assignments.must_learn(run, plan.kind):
                    run.reason = "tasks"
                elif not self.assignments.has_heap(self.assignments.expected_heap(run, plan)):
                    has_room = has_room and bool(run.tasks)  # else whoever is above must leave it what they give back
                    run.reason = "budget"
                elif not has_room or self.usage_bytes + self._growth(run, plan) > budget:
                    has_room = False
                    run.reason = "budget"
                else:
                    self.assignments.start(run, plan)
        if self.options.repeats:
            self._repeat()
        if self._is_starving():
            self._following.follow(self.runs[-1])

    def _by_urgency(self) -> list[runs.Run]:
        """Those that may have tasks to start, from the end upwards; of inputs, first what is wanted first."""
        found: dict[int, runs.Run] = {}
        waiting = [self.runs[-1]]
        while waiting:
            run = waiting.pop()
            if run.index not in found and not run.is_closed:
                found[run.index] = run
                waiting += [run.producers[index] for index in reversed(run.input_order())]
        return [run for run in found.values() if run.has_tasks]

    def _reason(self, run: runs.Run, *, is_full: bool) -> str:
        """Why it starts nothing, though there would be memory."""
        if is_full and run.ready_count():
            return "resources" if run.pool is None else "actors"
        return "tasks" if run.tasks else "input"

    def _growth(self, run: runs.Run, plan: runs.Plan) -> int:
        """What the task would add to the usage."""
        input_bytes = plan.input_bytes
        output = run.learnt(plan.kind).expected_window(input_bytes) if run.is_paced(plan) else 0
        return output + run.parked_bytes(plan)

    def _is_starving(self) -> bool:
        """Whether a consumer has nothing to take."""
        return any(
            not waiting and not is_done for waiting, is_done in zip(self._waiting, self._is_consumer_done, strict=True)
        )

    # What is late

    def _repeat_due_s(self, task: runs.Task) -> float | None:
        """When the task is to be tried a second time, if it gives nothing until then."""
        run = task.run
        if not self.options.repeats or not run.can_repeat or task.block_count or not task.is_alone:
            return None
        learnt = run.learnt(task.plan.kind)
        median_s = learnt.median_s
        if (
            median_s is None
            or learnt.ended_count < REPEATED_SEEN
            or run.ready_count()
            or not self.assignments.capacity.free_count(run)
        ):
            return None
        (attempt,) = task.attempts.values()
        return attempt.began_s + max(REPEATED_MEDIANS * median_s, REPEATED_AFTER_S)

    def _repeat(self) -> None:
        for task in [*self.assignments.tasks.values()]:
            due_s = self._repeat_due_s(task)
            if due_s is not None and due_s <= self._at_s and self._has_budget_for(task):
                task.run.stats.tasks_repeated += 1
                self.assignments.begin_attempt(task)

    def _has_budget_for(self, task: runs.Task) -> bool:
        is_room = self.usage_bytes + task.reserved_bytes <= self.options.budget_bytes
        return is_room and self.assignments.has_heap(task.heap_bytes)

    # What is told

    def _note_blocked(self, at_s: float) -> None:
        if self.is_done:
            return
        passed_s = at_s - self._at_s
        if not self._is_starving():
            self.consumer_s += passed_s
        for run in self.runs:
            if run.reason and not run.is_closed:
                run.stats.blocked_s[run.reason] = run.stats.blocked_s.get(run.reason, 0.0) + passed_s


_KINDS: Mapping[type, Callable[[int, Any, runs.Services], runs.Run]] = {
    stages.Input: runs.InputRun,
    stages.Read: runs.ReadRun,
    stages.Map: runs.MapRun,
    stages.Write: runs.MapRun,
    stages.Exchange: exchanges.ExchangeRun,
    stages.Limit: runs.LimitRun,
    stages.Union: runs.UnionRun,
    stages.Mix: mixing.MixRun,
    stages.Zip: runs.ZipRun,
    stages.Split: splits.SplitRun,
}
