"""What runs when: a pure state machine over the stages of a plan.

Events in, commands out; no clock, nothing fetched, nothing started here. What it sees to:

- What is made and not consumed, and what running tasks are expected to make and to take of heap, stays within the budget.
- Whoever is furthest down goes first. While the consumer has nothing, the one thing that it waits for may always go on,
  whatever the budget says (`_follow`), so that something always moves.
- What a task makes is passed on in the order of tasks; a task whose blocks there is no room for is paused, the one whose
  turn it is only while the consumer has enough.
- Nothing is done for whoever wants no more: tasks are cancelled, and not waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from umbel.data._engine import capacity, events, exchanges, flow, mixing, runs, stages
from umbel.data._engine.events import Piece
from umbel.exceptions import InternalError

REPEATED_MEDIANS = 3.0  # a task that takes so many times as long as its like is tried a second time
REPEATED_AFTER_S = 1.0  # and not before: a second attempt costs about as much as half of that
REPEATED_SEEN = 4  # of its like, to know how long they take


@dataclass(frozen=True)
class Options:
    """budget_bytes: for blocks and heap. stall_s: after so long without anything, it is said what everybody waits for."""

    budget_bytes: int
    keeps_order: bool = True
    repeats: bool = True
    retries_max: int = 3
    stall_s: float = 10.0


class Machine:
    """One run of one plan."""

    def __init__(self, plan: stages.Stage, options: Options) -> None:
        self.options = options
        self.ledger = flow.Ledger()
        self.is_done = False
        self._commands: list[events.Command] = []
        self._reserved_bytes = 0
        self._tasks: dict[int, runs.Task] = {}
        self._last_task = self._last_actor = self._last_delivery = 0
        self._deliveries: dict[int, tuple[int, Piece]] = {}
        self._waiting: list[int] = []  # of each consumer, deliveries not taken
        self._is_consumer_done: list[bool] = []
        self._last_event_s = self._at_s = 0.0
        self._stall_count = 0
        self.runs = self._make_runs(plan)
        self.capacity = capacity.Capacity(self.runs)

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
        consumer_count = plan.count if isinstance(plan, stages.Split) else 1
        self._waiting = [0] * consumer_count
        self._is_consumer_done = [False] * consumer_count
        return list(made.values())

    # The outside

    def apply(self, event: events.Event) -> list[events.Command]:
        """What is to be done now. Nothing but releases once all is done."""
        at_s = event.at_s
        if not isinstance(event, events.TimePassed):
            self._note_blocked(at_s)
            self._last_event_s, self._stall_count = at_s, 0
        self._at_s = at_s
        if self.is_done:
            self._apply_late(event)
        else:
            self._handlers[type(event)](self, event)
            if not self.is_done:
                self._pump()
        return self._taken()

    @property
    def next_wake_s(self) -> float | None:
        """When `TimePassed` would change something, if nothing else happens."""
        if self.is_done:
            return None
        due = [run.pool.next_end_s() for run in self.runs if run.pool is not None]
        due += [self._repeat_due_s(task) for task in self._tasks.values()]
        if self._is_starving():
            due.append(self._last_event_s + self.options.stall_s * 2**self._stall_count)
        return min((one for one in due if one is not None and one > self._at_s), default=None)

    @property
    def usage_bytes(self) -> int:
        """What the budget is for."""
        return self.ledger.held_bytes + self._reserved_bytes

    def check(self) -> None:
        """Raises InternalError if what must hold does not."""
        reserved = sum(task.reserved_bytes for task in self._tasks.values())
        self._must(reserved == self._reserved_bytes, "reserved bytes do not add up")
        self._must(self.capacity.is_right(self._tasks.values()), "used resources do not add up")
        self._must(self.ledger.held_bytes >= 0 and self.ledger.parked_bytes >= 0, "bytes went negative")
        if self.is_done:
            left = self._tasks or self.capacity.actors or len(self.ledger) > len(self._deliveries)
            self._must(not left, "something is left after the end")

    def _must(self, condition: object, text: str) -> None:
        if not condition:
            raise InternalError(text, stages=[run.name for run in self.runs])

    def _taken(self) -> list[events.Command]:
        for task in self._tasks.values():
            for attempt in task.attempts.values():
                if attempt.is_paused != attempt.was_paused:
                    attempt.was_paused = attempt.is_paused
                    command = events.PauseTask if attempt.is_paused else events.ResumeTask
                    self._commands.append(command(task.id, attempt.number))
        self._commands += [events.Release(block) for block in self.ledger.released]
        self.ledger.released.clear()
        commands, self._commands = self._commands, []
        return commands

    # Events

    def _on_began(self, event: events.Began) -> None:
        self.capacity.total = dict(event.resources)
        for run in self.runs:
            run.begin()
        for run in self.runs:
            self._close_if_exhausted(run)

    def _on_resources(self, event: events.ResourcesChanged) -> None:
        self.capacity.total = dict(event.resources)

    def _on_block(self, event: events.BlockMade) -> None:
        found = self._attempt(event.task, event.attempt)
        if found is None:
            self._commands.append(events.Release(event.block))
            return
        task, attempt = found
        for other in [one for one in task.attempts.values() if one is not attempt]:
            self._cancel_attempt(task, other)
        self._reserved_bytes -= task.reserved_bytes
        task.block_count += 1
        task.row_count += event.row_count
        task.output_bytes += event.size_bytes
        self._reserved_bytes += task.reserved_bytes
        self.ledger.enter(event.block, event.size_bytes)
        task.run.made(task, Piece(event.block, 0, event.row_count, event.size_bytes))
        if task.run.is_paced(task.plan) and self.usage_bytes > self.options.budget_bytes:
            attempt.is_paused = True

    def _on_ended(self, event: events.TaskEnded) -> None:
        found = self._attempt(event.task, event.attempt)
        if found is None:
            return
        task, attempt = found
        for other in [one for one in task.attempts.values() if one is not attempt]:
            self._cancel_attempt(task, other)
        self._end_attempt(task, attempt)
        run, cost = task.run, event.cost
        run.stats.tasks_ended += 1
        run.stats.wall_s += cost.wall_s
        run.stats.cpu_s += cost.cpu_s
        run.stats.heap_bytes_max = max(run.stats.heap_bytes_max, cost.heap_bytes)
        run.learnt.ended(
            input_bytes=task.plan.input_bytes or 0, output_bytes=task.output_bytes, heap_bytes=cost.heap_bytes,
            wall_s=cost.wall_s,
        )  # fmt: skip
        self._forget_task(task)
        run.ended(task)
        run.advance()
        self._close_if_exhausted(run)

    def _on_failed(self, event: events.TaskFailed) -> None:
        found = self._attempt(event.task, event.attempt)
        if found is None:
            return
        task, attempt = found
        self._end_attempt(task, attempt)
        task.failure_count += 1
        if event.is_lost and task.attempts:
            return  # the other one goes on
        if not event.is_lost or task.failure_count > self.options.retries_max:
            self._fail(event.error, task.run, task.id)
            return
        del task.run.tasks[task.id]
        task.run.again.append(task)

    def _on_actor_ready(self, event: events.ActorReady) -> None:
        run = self.capacity.actors.get(event.actor)
        if run is not None and run.pool is not None:
            run.pool.is_ready(event.actor, event.at_s)

    def _on_actor_died(self, event: events.ActorDied) -> None:
        run = self.capacity.actors.get(event.actor)
        if run is None or run.pool is None:
            return
        self.capacity.remove_actor(event.actor)
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
        if isinstance(last, exchanges.SplitRun):
            last.taken(consumer)
            self._close_if_exhausted(last)

    def _on_consumer_done(self, event: events.ConsumerDone) -> None:
        consumer = event.consumer
        self._is_consumer_done[consumer] = True
        last = self.runs[-1]
        if all(self._is_consumer_done):
            self._end()
            self._commands.append(events.Finish())
        elif isinstance(last, exchanges.SplitRun):
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
        for actor in self.capacity.actors_of(run):
            self._stop_actor(actor)
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
                self._cancel_attempt(task, attempt)
            self._forget_task(task)
        run.again.clear()
        for actor in self.capacity.actors_of(run):
            self._stop_actor(actor)
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

    def _ask_boundaries(self, run: runs.Run, tasks: tuple[int, ...], count: int) -> None:
        self._commands.append(events.MakeBoundaries(run.index, tasks, count))

    # What is started

    def _pump(self) -> None:
        budget = self.options.budget_bytes
        has_room = True
        for run in self._by_urgency():
            run.reason = ""
            self._scale(run)
            for task in run.tasks.values():
                for attempt in task.attempts.values():
                    if attempt.is_paused and has_room and self.usage_bytes <= budget:
                        attempt.is_paused = False
            while run.again and self.capacity.free_count(run) > 0:
                self._start_again(run)
            while not run.reason:
                free_count = self.capacity.free_count(run)
                plan = run.peek(free_count, self.capacity.slot_count(run)) if free_count else None
                if plan is None:
                    run.reason = self._reason(run, is_full=not free_count)
                elif not has_room or self.usage_bytes + self._growth(run, plan) > budget:
                    has_room = False
                    run.reason = "budget"
                else:
                    self._start(run, plan)
        if self.options.repeats:
            self._repeat()
        if self._is_starving():
            self._follow(self.runs[-1])

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
        output = run.learnt.expected_window(input_bytes) if run.is_paced(plan) else 0
        parked = (input_bytes or 0) if run.parks and plan.kind != events.SAMPLE else 0
        return output + run.learnt.expected_heap(input_bytes) + parked

    def _start(self, run: runs.Run, plan: runs.Plan, *, has_cpus: bool = True) -> None:
        run.take(plan)
        learnt = run.learnt
        self._last_task += 1
        task = runs.Task(self._last_task, run, plan)
        task.heap_bytes = learnt.expected_heap(plan.input_bytes)
        if run.is_paced(plan):
            task.window_bytes = learnt.expected_window(plan.input_bytes)
            task.expected_bytes = learnt.expected_output(plan.input_bytes)
        self._tasks[task.id] = task
        self._reserved_bytes += task.reserved_bytes
        run.stats.tasks_started += 1
        run.opens(task)
        self._begin_attempt(task, has_cpus=has_cpus)

    def _start_again(self, run: runs.Run, *, has_cpus: bool = True) -> None:
        task = run.again.popleft()
        run.stats.tasks_repeated += 1
        self._begin_attempt(task, has_cpus=has_cpus)

    def _begin_attempt(self, task: runs.Task, *, has_cpus: bool = True) -> None:
        run, plan = task.run, task.plan
        run.tasks[task.id] = task
        actor = run.pool.next_actor() if run.pool is not None else None
        self._reserved_bytes -= task.reserved_bytes
        task.attempt_count += 1
        attempt = runs.Attempt(task.attempt_count, self._at_s, actor, has_cpus=has_cpus)
        task.attempts[attempt.number] = attempt
        self._reserved_bytes += task.reserved_bytes
        if actor is not None and run.pool is not None:
            run.pool.took(actor)
        else:
            self.capacity.begin_task(run, has_cpus=has_cpus)
        self._commands.append(
            events.StartTask(
                task=task.id, attempt=attempt.number, stage=run.index, kind=plan.kind, number=plan.number,
                pieces=plan.pieces, skipped_blocks=task.block_count, actor=actor, partition_count=plan.partition_count,
                has_cpus=has_cpus,
            )
        )  # fmt: skip

    def _attempt(self, task_id: int, number: int) -> tuple[runs.Task, runs.Attempt] | None:
        task = self._tasks.get(task_id)
        attempt = None if task is None else task.attempts.get(number)
        return None if task is None or attempt is None else (task, attempt)

    def _cancel_attempt(self, task: runs.Task, attempt: runs.Attempt) -> None:
        self._end_attempt(task, attempt)
        self._commands.append(events.CancelTask(task.id, attempt.number))

    def _end_attempt(self, task: runs.Task, attempt: runs.Attempt) -> None:
        run = task.run
        self._reserved_bytes -= task.reserved_bytes
        del task.attempts[attempt.number]
        self._reserved_bytes += task.reserved_bytes
        if attempt.actor is not None and run.pool is not None:
            run.pool.gave_back(attempt.actor, self._at_s)
        else:
            self.capacity.end_task(run, has_cpus=attempt.has_cpus)

    def _forget_task(self, task: runs.Task) -> None:
        self._reserved_bytes -= task.reserved_bytes
        del self._tasks[task.id]
        task.run.tasks.pop(task.id, None)
        self.ledger.let_go(task.pieces)

    # Actors

    def _scale(self, run: runs.Run) -> None:
        """Start the actors that there is work for, end those that have been idle."""
        pool = run.pool
        if pool is None:
            return
        for actor in pool.to_end(self._at_s):
            self._stop_actor(actor)
        wanted = pool.wanted(run.ready_count() + len(run.again))
        if wanted and not pool.count and not self.capacity.lacking_devices(run):
            self._start_actor(run)  # the first one in any case: it has no CPUs if there are none for it
        while 0 < pool.count < wanted and self.capacity.has_room_for_actor(run):
            self._start_actor(run)

    def _start_actor(self, run: runs.Run) -> None:
        has_cpus = self.capacity.has_room_for_actor(run)
        self._last_actor += 1
        self.capacity.add_actor(self._last_actor, run, has_cpus=has_cpus)
        self._commands.append(events.StartActor(self._last_actor, run.index, has_cpus))

    def _stop_actor(self, actor: int) -> None:
        self.capacity.remove_actor(actor)
        self._commands.append(events.StopActor(actor))

    # What must move

    def _is_starving(self) -> bool:
        """Whether a consumer has nothing to take."""
        return any(
            not waiting and not is_done for waiting, is_done in zip(self._waiting, self._is_consumer_done, strict=True)
        )

    def _follow(self, run: runs.Run) -> None:
        """Let the one thing go on that the consumer waits for: from the end upwards, whoever is waited for."""
        if run.tasks:
            head = run.order.head
            task = run.tasks.get(head) if head is not None else None
            if task is not None:
                self._let_go_on(task)
                return
            if not run.again:  # of an exchange, tasks that are never paused
                self._let_go_on(None)
                return
        if run.again or (run.has_tasks and run.ready_count()):
            self._force(run)
            if run.tasks:
                return
            if run.pool is not None and run.pool.starting:
                self._let_go_on(None)
                return
        for index in run.needed_edges():
            self._follow(run.producers[index])

    def _let_go_on(self, task: runs.Task | None) -> None:
        """This one; or, if it may wait for a CPU that one has which is paused, that one."""
        if task is not None:
            for attempt in task.attempts.values():
                if attempt.is_paused:
                    attempt.is_paused = False
                    return
        if self.capacity.is_oversubscribed():
            for attempt in self._paused():
                attempt.is_paused = False
                return
            if self.capacity.is_filled_by_actors():  # since there is less than there was
                self._stop_idle({capacity.CPU})

    def _paused(self) -> Iterator[runs.Attempt]:
        for task in self._tasks.values():
            for attempt in task.attempts.values():
                if attempt.is_paused and attempt.has_cpus:
                    yield attempt

    def _force(self, run: runs.Run) -> None:
        """Start a task, if there is one, though the budget has no room, and without CPUs if those are with tasks that are
        paused."""
        plan = None if run.again else run.peek(1, self.capacity.slot_count(run))
        if plan is None and not run.again:
            return
        if run.pool is not None and not run.pool.room():
            if not run.pool.count and self._has_freed_devices(run):
                self._start_actor(run)
            return
        has_cpus = True
        if not self.capacity.free_count(run):
            if not self._has_freed_devices(run):
                return
            has_cpus = next(self._paused(), None) is None and not self.capacity.is_filled_by_actors()
            if has_cpus and self._tasks:
                return  # whoever has the CPUs will give them back
        if plan is None:
            self._start_again(run, has_cpus=has_cpus)
        else:
            self._start(run, plan, has_cpus=has_cpus)

    def _has_freed_devices(self, run: runs.Run) -> bool:
        """Whether what the stage needs beside CPUs is free. Whoever has it is made to give it back: actors that have nothing in
        hand are ended, a task that is paused goes on."""
        lacking = self.capacity.lacking_devices(run)
        if not lacking or not self.capacity.could_ever_hold(run):
            return True  # or it is asked for in vain, which core tells the user
        self._stop_idle(lacking, but=run)
        lacking = self.capacity.lacking_devices(run)
        for task in self._tasks.values():
            if lacking & task.run.needs.keys():
                for attempt in task.attempts.values():
                    attempt.is_paused = False
        return not lacking

    def _stop_idle(self, names: set[str], *, but: runs.Run | None = None) -> None:
        """End the actors that have some of this, and nothing in hand."""
        for run in self.runs:
            if run is not but and run.pool is not None and names & run.needs.keys():
                for actor in run.pool.idle():
                    self._stop_actor(actor)

    # What is late

    def _repeat_due_s(self, task: runs.Task) -> float | None:
        """When the task is to be tried a second time, if it gives nothing until then."""
        run = task.run
        if not self.options.repeats or not run.can_repeat or task.block_count or not task.is_alone:
            return None
        median_s = run.learnt.median_s
        if (
            median_s is None
            or run.learnt.ended_count < REPEATED_SEEN
            or run.ready_count()
            or not self.capacity.free_count(run)
        ):
            return None
        (attempt,) = task.attempts.values()
        return attempt.began_s + max(REPEATED_MEDIANS * median_s, REPEATED_AFTER_S)

    def _repeat(self) -> None:
        for task in [*self._tasks.values()]:
            due_s = self._repeat_due_s(task)
            if due_s is not None and due_s <= self._at_s and self._has_budget_for(task):
                task.run.stats.tasks_repeated += 1
                self._begin_attempt(task)

    def _has_budget_for(self, task: runs.Task) -> bool:
        return self.usage_bytes + task.reserved_bytes <= self.options.budget_bytes

    # What is told

    def _note_blocked(self, at_s: float) -> None:
        passed_s = at_s - self._at_s
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
    stages.Split: exchanges.SplitRun,
}
