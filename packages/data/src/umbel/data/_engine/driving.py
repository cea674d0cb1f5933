"""Carries out what the scheduler decides, on the runtime's workers and actors.

A run is driven by one thread, which waits for whatever comes first: the next item of a task, something of a consumer's,
or the time at which the scheduler wants to look again. However it ends, its tasks are cancelled and its actors killed.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa

import umbel
from umbel import exceptions
from umbel.data._engine import events, fitting, held, placing, progress, reports, scheduling, stages, work
from umbel.util import completion

BUDGET_PART = 0.5  # of the object store: the rest is for what else there is, and for what an exchange keeps
RETRIES_MAX = 1  # of whole tasks, beside those of core's, which come first
RESOURCES_EVERY_S = 5.0  # looked at again when something happens; a cluster grows in tens of seconds

_LOST = (
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,
    exceptions.UmbelActorError,
    exceptions.ObjectLostError,
    exceptions.UmbelSystemError,
)


class Reader:
    """What one attempt at a task gives, or an actor that begins (command None)."""

    __slots__ = (
        "actor",
        "command",
        "generator",
        "input_files",
        "is_armed",
        "is_paused",
        "left_out",
        "pending",
        "schema",
    )

    def __init__(self, generator: Any, command: events.StartTask | None, actor: int | None = None) -> None:
        self.generator = generator
        self.command = command
        self.actor = actor
        self.is_paused = False
        self.is_armed = False  # its callback will come
        self.pending: tuple[Any, ...] | None = None  # the item whose block is the next one
        self.schema: pa.Schema | None = None
        self.input_files: tuple[str, ...] = ()
        self.left_out: tuple[Any, ...] | None = None  # counts and tables, for when the task has ended


def taken_from(waiting: queue.SimpleQueue[Any], timeout_s: float | None) -> Any:
    """What comes next; None if nothing did in time. A task that waits gives its CPU back meanwhile."""
    try:
        return waiting.get_nowait()
    except queue.Empty:
        if timeout_s is not None and timeout_s <= 0.0:
            return None
    found: list[Any] = []

    def is_there(seconds: float | None) -> bool:
        try:
            found.append(waiting.get(timeout=seconds))
        except queue.Empty:
            return False
        return True

    completion.wait_beside(is_there, timeout_s)
    return found[0] if found else None


class DrivenRun:
    """One run of one plan. What comes from other threads comes by `inbox`; all else is the driving thread's.

    deliver: called with (consumer, delivery number, block).
    """

    def __init__(
        self, plan: stages.Stage, options: reports.RunOptions, deliver: Callable[[int, int, held.View], None]
    ) -> None:
        if not umbel.is_initialized():
            umbel.init()
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.error: BaseException | None = None
        self.is_over = False
        self.left_out: list[tuple[Any, ...]] = []  # of each task its counts and tables
        self._deliver = deliver
        self._resources = options.within(placing.totals(options.label_selector))
        self._resources_s = time.monotonic()
        budget = options.budget_bytes or int(BUDGET_PART * self._resources.get("object_store_memory", 1 << 30))
        plan = placing.placed(plan, options.label_selector)
        plan = fitting.fitted(plan, fitting.piece_bytes(budget, self._resources.get("CPU", 1.0)))
        self._plan = plan
        self.machine = scheduling.Machine(
            plan,
            scheduling.Options(
                budget_bytes=budget, keeps_order=options.keeps_order, repeats=options.repeats, retries_max=RETRIES_MAX,
                stall_s=options.stall_s, learns_first="memory" in options.limits,
            ),
        )  # fmt: skip
        self._options = options
        self._readers: dict[tuple[int, int], Reader] = {}
        self._actors: dict[int, Any] = {}
        self._beginning: dict[int, Reader] = {}  # by actor
        self._blocks: dict[int, held.Held] = {}
        self._last_block = 0
        self._samples: dict[int, list[Any]] = {}
        self._boundaries: dict[int, Any] = {}
        # By stage, then by input: of shards, with the first task that made such ones.
        self._shard_schemas: dict[int, dict[int, list[tuple[int, pa.Schema]]]] = {}
        self._codes: dict[int, work.Code] = {}
        self._functions: dict[tuple[int, bool], Any] = {}
        self._began_s = time.monotonic()
        self._ended_s: float | None = None
        self._state = "running"
        self._warned: Any = None  # of what everybody waits for
        self._progress = None
        if options.shows_progress:
            self._progress = progress.of(self.machine, options.name, self._began_s, has_stages=options.shows_stages)
        self._callbacks = reports.Callbacks(options.callbacks, reports.Execution(options.name, self.stats))
        for run in self.machine.runs:
            if isinstance(run.stage, stages.Input):
                for number, block in enumerate(run.stage.blocks):
                    self._blocks[-1 - number - (run.index << 32)] = held.Held.of_block(block)

    # Driving

    def begin(self) -> None:
        self._callbacks.begin()
        for run in self.machine.runs:
            if isinstance(run.stage, stages.Write) and run.stage.begin is not None:
                run.stage.begin()
        self._tell(events.Began(self._resources, time.monotonic()))

    def step(self) -> None:
        """Wait for something to happen, and see to it, and to what else has happened meanwhile."""
        wake_s = self.machine.next_wake_s
        shown_s = None if self._progress is None else self._progress.due_s
        if shown_s is not None:
            wake_s = shown_s if wake_s is None else min(wake_s, shown_s)
        message = taken_from(self.inbox, None if wake_s is None else max(0.0, wake_s - time.monotonic()))
        if message is None:
            self._tell(events.TimePassed(time.monotonic()))
        while message is not None and not self.is_over:
            self._hear(message)
            message = taken_from(self.inbox, 0.0)
        if time.monotonic() - self._resources_s > RESOURCES_EVERY_S and not self.is_over:
            self._look_at_resources()
        if self._progress is not None:
            self._progress.look(time.monotonic())
        self._callbacks.step()

    def drive(self) -> None:
        """To the end, whatever it is."""
        try:
            self.begin()
            while not self.is_over:
                self.step()
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.end()

    def end(self) -> None:
        """Nothing of it goes on. May be called again."""
        now_s = time.monotonic()
        if not self.machine.is_done:
            for consumer in range(self._consumer_count):
                for command in self.machine.apply(events.ConsumerDone(consumer, now_s)):
                    if not isinstance(command, (events.StartTask, events.StartActor, events.Deliver)):
                        self._carry_out(command)
        self.is_over = True
        is_first = self._ended_s is None
        if is_first:
            self._ended_s = now_s
            self._state = "ended" if self.error is None else "failed"  # the error is forgotten once it was raised
        if self._progress is not None:
            self._progress.end(now_s, has_failed=self.error is not None)
        for reader in [*self._readers.values()]:
            self._cancel(reader)
        self._readers.clear()
        for actor in [*self._actors]:
            self._stop_actor(actor)
        self._blocks.clear()
        self._abort()
        if is_first:
            self._callbacks.end(as_raised(self.error))

    @property
    def _consumer_count(self) -> int:
        return self._plan.count if isinstance(self._plan, stages.Split) else 1

    def _abort(self) -> None:
        for run in self.machine.runs:
            if isinstance(run.stage, stages.Write) and run.stage.abort is not None and not self._is_committed:
                run.stage.abort(self.error or exceptions.TaskCancelledError("the run was given up"))
                self._is_committed = True

    _is_committed = False

    def _hear(self, message: Any) -> None:
        if isinstance(message, Reader):
            message.is_armed = False
            self._read(message)
        else:
            self._tell(message)

    def _tell(self, event: events.Event) -> None:
        for command in self.machine.apply(event):
            self._carry_out(command)

    def _look_at_resources(self) -> None:
        self._resources_s = time.monotonic()
        resources = self._options.within(placing.totals(self._options.label_selector))
        if resources != self._resources:
            self._resources = resources
            self._tell(events.ResourcesChanged(resources, time.monotonic()))

    # Items

    def _arm(self, reader: Reader) -> None:
        """Have it heard when there is something."""
        if not reader.is_armed:
            reader.is_armed = True
            inbox = self.inbox
            reader.generator.add_ready_callback(lambda: inbox.put(reader))

    def _read(self, reader: Reader) -> None:
        """What is there."""
        while not reader.is_paused and self._is_current(reader):
            if not reader.generator.next_ready():
                if reader.generator.is_finished():
                    self._lost(reader, exceptions.WorkerCrashedError("a task ended without saying so"))
                else:
                    self._arm(reader)
                return
            try:  # no more than this: what follows from an item may fail too, and that is not this task's failure
                ref = next(reader.generator)
                item = umbel.get(ref) if reader.pending is None else None
            except exceptions.UmbelError as error:
                self._lost(reader, error)
                return
            self._take(reader, ref, item)

    def _is_current(self, reader: Reader) -> bool:
        if reader.command is None:
            return reader.actor is not None and self._beginning.get(reader.actor) is reader
        return self._readers.get((reader.command.task, reader.command.attempt)) is reader

    def _take(self, reader: Reader, ref: Any, item: Any) -> None:
        """item: what the reference is of, unless that is the block which was announced."""
        if reader.pending is not None:
            item, reader.pending = reader.pending, None
            self._made(reader, item, held.Held(ref, None, self._metadata(reader, item)))
            return
        kind = item[0]
        if kind == work.BLOCK:
            if item[4] is None:
                reader.pending = item
            else:
                self._made(reader, item, held.Held(ref, item, self._metadata(reader, item)))
        elif kind == work.SHARDS:
            for row_count, size_bytes, packed, told in item[1]:
                metadata = stages.Metadata(row_count, size_bytes, None, reader.input_files)
                self._made(reader, (kind, row_count, size_bytes, told), held.Held.of_bytes(packed, metadata))
        elif kind == work.VALUE:
            self._made(reader, (kind, 1, 0), held.Held(ref, item, stages.Metadata(1, 0)))
        elif reader.command is None:
            self._actor_says(reader, item)
        elif kind == work.SAMPLE:
            self._samples[reader.command.task] = item[1]
        elif kind == work.LEFT_OUT:
            reader.left_out = item[1:]
        elif kind == work.END:
            if reader.left_out is not None:
                self.left_out.append(reader.left_out)
            self._forget(reader)
            self._tell(
                events.TaskEnded(reader.command.task, reader.command.attempt, events.Cost(*item[1]), time.monotonic())
            )
        else:
            self._failed(reader, item[1], is_lost=False)

    def _metadata(self, reader: Reader, item: tuple[Any, ...]) -> stages.Metadata:
        if item[3] is not None:
            reader.schema = item[3]
        return stages.Metadata(item[1], item[2], reader.schema, reader.input_files)

    def _made(self, reader: Reader, item: tuple[Any, ...], block: held.Held) -> None:
        command = reader.command
        if command is not None:
            if item[0] == work.VALUE and self._options.on_written is not None:
                self._options.on_written(command.number, block.item[1])  # type: ignore[index]  # a value is in its item
            self._last_block += 1
            self._blocks[self._last_block] = block
            if command.kind == events.PARTITION and item[3] is not None:
                self._sees_shards(command, item[3])
            self._tell(
                events.BlockMade(command.task, command.attempt, self._last_block, item[1], item[2], time.monotonic())
            )

    def _sees_shards(self, command: events.StartTask, schema: pa.Schema) -> None:
        """Nearly always all of an exchange have one schema; a function of the user's may make it several."""
        known = self._shard_schemas.setdefault(command.stage, {}).setdefault(command.number, [])
        for index, (task, one) in enumerate(known):
            if one.equals(schema):
                known[index] = (min(task, command.task), one)
                return
        known.append((command.task, schema))

    def _schemas_of_shards(self, command: events.StartTask) -> tuple[tuple[pa.Schema, ...], ...]:
        """Of a partition, for `work.Call.schemas`: in the order of the tasks, and so the same in each run."""
        seen = self._shard_schemas.get(command.stage, {}) if command.kind in events.REDUCING else {}
        if all(len(some) < 2 for some in seen.values()):
            return ()
        ordered = [sorted(seen.get(number, []), key=lambda one: one[0]) for number in range(len(command.pieces))]
        return tuple(tuple(schema for _, schema in some) for some in ordered)

    def _actor_says(self, reader: Reader, item: tuple[Any, ...]) -> None:
        actor = reader.actor
        if actor is None:
            return
        self._beginning.pop(actor, None)
        if item[0] == work.READY:
            self._tell(events.ActorReady(actor, time.monotonic(), item[1]))
        else:
            self._tell(events.ActorDied(actor, item[1], False, time.monotonic()))

    def _lost(self, reader: Reader, error: BaseException) -> None:
        is_of_actor = reader.command is None or reader.command.actor is not None
        if isinstance(error, held.GONE) and not is_of_actor:  # of what the task takes
            self._failed(reader, held.lost(error), is_lost=False)
            return
        self._failed(reader, error, is_lost=isinstance(error, _LOST))

    def _failed(self, reader: Reader, error: BaseException, *, is_lost: bool) -> None:
        self._forget(reader)
        at_s = time.monotonic()
        actor = reader.actor if reader.command is None else reader.command.actor
        if isinstance(error, exceptions.ActorDiedError) and actor in self._actors and reader.command is not None:
            del self._actors[actor]  # for good: the runtime has made it anew as often as it may
            self._tell(events.ActorDied(actor, error, is_lost, at_s))  # of its tasks, this one among them
        elif reader.command is not None:
            self._tell(events.TaskFailed(reader.command.task, reader.command.attempt, error, is_lost, at_s))
        elif reader.actor is not None:
            self._beginning.pop(reader.actor, None)
            self._actors.pop(reader.actor, None)
            self._tell(events.ActorDied(reader.actor, error, is_lost, at_s))

    def _forget(self, reader: Reader) -> None:
        if reader.command is not None:
            self._readers.pop((reader.command.task, reader.command.attempt), None)

    # Commands

    def _carry_out(self, command: events.Command) -> None:
        if isinstance(command, events.StartTask):
            self._start(command)
        elif isinstance(command, events.CancelTask):
            reader = self._readers.pop((command.task, command.attempt), None)
            if reader is not None:
                self._cancel(reader)
        elif isinstance(command, events.PauseTask):
            self._readers[command.task, command.attempt].is_paused = True
        elif isinstance(command, events.ResumeTask):
            reader = self._readers[command.task, command.attempt]
            reader.is_paused = False
            if not reader.is_armed:
                self.inbox.put(reader)
                reader.is_armed = True
        elif isinstance(command, events.Deliver):
            block = self._blocks[command.piece.block]
            self._deliver(command.consumer, command.delivery, held.View(block, command.piece))
        elif isinstance(command, events.Release):
            self._blocks.pop(command.block, None)
        elif isinstance(command, events.StartActor):
            self._start_actor(command)
        elif isinstance(command, events.StopActor):
            self._stop_actor(command.actor)
        elif isinstance(command, events.MakeBoundaries):
            self._make_boundaries(command)
        elif isinstance(command, events.Warn):
            self._warn(command)
        elif isinstance(command, events.Fail):
            self.error = command.error
            self.is_over = True
        elif isinstance(command, events.Finish):
            self.is_over = True

    def _warn(self, command: events.Warn) -> None:
        """Once for each thing that everybody waits for."""
        if command.reasons != self._warned:
            self._warned = command.reasons
            reports.warn_of_stall(command, self._of_the_oldest())

    def _of_the_oldest(self) -> str:
        from umbel.util import state  # what waits so long has time to import it

        for reader in (*self._beginning.values(), *self._readers.values()):
            if not reader.is_paused:
                with contextlib.suppress(exceptions.UmbelError):
                    return f"Of the oldest task: {state.explain(reader.generator).last().text}"
        return ""

    def _cancel(self, reader: Reader) -> None:
        """Nobody waits for it."""
        try:
            umbel.cancel(reader.generator)
        except exceptions.UmbelError:
            pass  # the session has ended, and all tasks with it

    def _start(self, command: events.StartTask) -> None:
        code = self._code(command.stage)
        files: dict[str, None] = {}
        values: list[Any] = []
        slices = []
        for pieces in command.pieces:
            slices.append(tuple(work.Slice(piece.number, piece.offset, piece.row_count) for piece in pieces))
            for piece in pieces:
                block = self._blocks[piece.block]
                values.append(block.argument())
                files.update(dict.fromkeys(block.metadata.input_files))
        read, own_files = None, tuple(files)
        if command.kind == events.READ:
            part = code.parts[command.number]
            read, own_files = part.read, part.input_files
        call = work.Call(
            command.kind, command.number, tuple(slices), command.skipped_blocks, command.partition_count, read,
            own_files[: held.FILES_MAX], self._schemas_of_shards(command),
        )  # fmt: skip
        if command.kind == events.PARTITION:
            values.insert(0, self._boundaries.get(command.stage))
        if command.actor is not None:
            generator = self._actors[command.actor].run.remote(call.plain(), *values)
        else:
            generator = self._function(command.stage, has_cpus=command.has_cpus).remote(call.plain(), *values)
        reader = Reader(generator, command)
        reader.input_files = call.input_files
        self._readers[command.task, command.attempt] = reader
        self._arm(reader)

    def _code(self, index: int) -> work.Code:
        code = self._codes.get(index)
        if code is None:
            run = self.machine.runs[index]
            code = reports.code_of(run.stage)._replace(around=self._options.around)
            if run.sampling is not None and run.sampling.sample is not None:
                code = code._replace(sampling=(run.sampling.name, run.sampling.sample))
            self._codes[index] = code
        return code

    def _function(self, index: int, *, has_cpus: bool) -> Any:
        found = self._functions.get((index, has_cpus))
        if found is None:
            stage: Any = self.machine.runs[index].stage
            code = self._code(index)._replace(parts=())
            options = _options(stage.resources, has_cpus=has_cpus)
            options["name"] = stage.name
            decorate = umbel.remote(
                num_returns="streaming", _generator_backpressure_num_objects=work.WINDOW_ITEMS, **options
            )
            found = self._functions[index, has_cpus] = decorate(work.task_of(code))
        return found

    def _start_actor(self, command: events.StartActor) -> None:
        stage: Any = self.machine.runs[command.stage].stage
        options = _options(stage.resources, has_cpus=command.has_cpus)
        pool = stage.compute
        made = (
            umbel.remote(work.DatasetActor)
            .options(
                max_restarts=RETRIES_MAX, max_task_retries=RETRIES_MAX, max_concurrency=max(1, pool.concurrency),
                _actor_generator_backpressure_num_objects=work.WINDOW_ITEMS, **options,
            )
            .remote(self._code(command.stage)._replace(parts=()))
        )  # fmt: skip
        self._actors[command.actor] = made
        reader = Reader(made.ready.remote(), None, command.actor)
        self._beginning[command.actor] = reader
        self._arm(reader)

    def _stop_actor(self, actor: int) -> None:
        self._beginning.pop(actor, None)
        handle = self._actors.pop(actor, None)
        if handle is not None:
            try:
                umbel.kill(handle)
            except exceptions.UmbelError:
                pass  # the session has ended, and all actors with it

    def _make_boundaries(self, command: events.MakeBoundaries) -> None:
        stage = self.machine.runs[command.stage].stage
        samples = [sample for task in command.tasks for sample in self._samples.pop(task, ())]
        samples += command.row_counts
        try:
            if isinstance(stage, stages.Exchange) and stage.boundaries is not None:
                self._boundaries[command.stage] = umbel.put(stage.boundaries(samples, command.partition_count))
        except Exception as error:
            self.error, self.is_over = error, True
            return
        self.inbox.put(events.BoundariesMade(command.stage, time.monotonic()))

    # What is told

    def stats(self) -> reports.Stats:
        """See `reports.Stats`; and `left_out`: rows on which users' functions failed, for each task how many by operator, and
        tables of them."""
        wall_s = (self._ended_s or time.monotonic()) - self._began_s
        found = reports.stats(self.machine, wall_s, state=self._state)
        found["left_out"] = [*self.left_out]
        return found

    def commit(self, results: list[Any]) -> Any:
        """Of a plan whose last stage writes."""
        stage = self._plan
        if isinstance(stage, stages.Write) and stage.commit is not None:
            results = stage.commit(results)
        self._is_committed = True
        return results


def as_raised(error: BaseException | None) -> BaseException | None:
    """As users see it: what a function of theirs raised is an error of that class as well."""
    return error.as_instanceof_cause() if isinstance(error, exceptions.UmbelTaskError) else error


def _options(resources: stages.Resources, *, has_cpus: bool) -> dict[str, Any]:
    options: dict[str, Any] = {**resources.options, "num_cpus": resources.num_cpus if has_cpus else 0}
    if resources.num_gpus:
        options["num_gpus"] = resources.num_gpus
    if resources.memory_bytes:
        options["memory"] = resources.memory_bytes
    return options
