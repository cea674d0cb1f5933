"""Calls on their way from submission to their results; plain tasks whole, calls of actors as far as they are alike."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import context, exports, refs, remote_function
from umbel._client.inline import calls, lanes, running, streams, surroundings, values
from umbel._model import node_labels
from umbel._model import options as option_model
from umbel._model import resources as resource_model
from umbel._objects import ownership, serialization

if TYPE_CHECKING:
    from umbel._client.inline.engine import InlineEngine

TIMELINE_EVENTS_MAX = 100_000  # the latest ones; Ray's bound


def refuse_environment(fields: str) -> None:
    """Raises UnsupportedFeature for an environment that needs a process of its own. fields: as JSON."""
    from umbel._client import environments  # seldom needed

    environments.refuse_inline(fields)


class Tasks:
    """Methods need the mutex held unless they say otherwise."""

    def __init__(self, engine: InlineEngine) -> None:
        self._engine = engine
        self._values = engine.values
        self.unfinished: set[calls.Call] = set()
        self.events: deque[tuple[str, str, float, float, str, bool]] = deque(maxlen=TIMELINE_EVENTS_MAX)
        self._counter = 0

    # What all calls of a kind share; without the mutex

    def recipe(self, template: remote_function.TaskTemplate) -> calls.Recipe:
        """Read a function and its options; the function is copied now, at its first call, with what it captured."""
        options = template.options
        recipe = calls.Recipe(self._engine, template.name, options.num_returns, is_generator=template.is_generator)
        recipe.function = serialization.loads(self.export(template.source))
        recipe.function_name = getattr(template.function, "__qualname__", template.name)
        recipe.max_retries = options.max_retries
        recipe.has_events = options.enable_task_events
        recipe.retry_exceptions = options.retry_exceptions
        recipe.window = options.generator_backpressure_num_objects
        recipe.env_vars = self.env_vars(options.env_vars)
        if options.environment:
            refuse_environment(options.environment)
        self.place(recipe, options.resources, options, exceptions.TaskUnschedulableError)
        return recipe

    def env_vars(self, own: surroundings.EnvVars) -> surroundings.EnvVars:
        """The session's variables, and over them the task's."""
        return tuple(sorted({**dict(self._engine.env_vars), **dict(own)}.items()))

    def place(
        self,
        recipe: calls.Recipe,
        wanted: resource_model.ResourceSet,
        options: option_model.TaskOptions | option_model.ActorOptions,
        error: type[exceptions.UmbelError],
    ) -> None:
        """Note what the calls hold, and whether this session can ever run them."""
        strategy: Any = options.scheduling_strategy
        total = self._engine.resources
        recipe.resources = wanted.to_floats()
        recipe.gpu_count = -(-wanted.get(resource_model.GPU, 0) // resource_model.RESOURCE_UNIT)
        recipe.worn = surroundings.showing(recipe.env_vars, self._engine.devices(recipe.gpu_count))
        if isinstance(strategy, option_model.InGroup):
            self._place_in_group(recipe, strategy)
        wanted_node, only_node = getattr(strategy, "node_id", None), self._engine.node_id
        text = None
        if not wanted.fits_in(total):
            text = (
                f"{recipe.name} needs {recipe.resources}, but this session has {total.to_floats()} in all, and the "
                "inline engine has no other nodes; ask for less, or start with umbel.init(num_cpus=..., resources=...)"
            )
        elif wanted_node is not None and wanted_node != only_node and not strategy.soft:
            text = (
                f"{recipe.name} must run on node {wanted_node}, which does not exist; the only node is {only_node}; "
                "pass soft=True or leave the strategy out"
            )
        elif options.label_selectors and not self._engine.meets_one(options.label_selectors):
            text = (
                f"{recipe.name} needs a node with the labels {node_labels.in_words(options.label_selectors)}, but the only node "
                f"has {self._engine.labels}; correct the label selector, or start with umbel.init(labels=...)"
            )
        recipe.infeasible = None if text is None else values.Failure(error(text), recipe.name)

    def _place_in_group(self, recipe: calls.Recipe, strategy: option_model.InGroup) -> None:
        if not strategy.group:
            if strategy.bundle_index >= 0:
                raise option_model.no_group(strategy.bundle_index)
            return
        from umbel._client import capturing  # few sessions have groups

        capturing.install(self._engine)
        recipe.in_group = strategy

    def export(self, source: remote_function.Source) -> bytes:
        """A function or class as bytes, made at its first use in this session and kept."""
        engine = self._engine
        if source.exported is not None and source.exported[0] is engine:
            return source.exported[1]
        blob, _ = exports.pack(source, engine.config, stacklevel=5)
        source.exported = (engine, blob)
        return blob

    # Submission

    def next_id(self) -> bytes:
        self._counter += 1
        return self._engine.process_id + self._counter.to_bytes(8, "big")

    def submit(self, recipe: calls.Recipe, arguments: calls.Arguments) -> tuple[calls.Call, Any]:
        """A new task, started if it may start; and what its caller gets."""
        call = self.new(recipe, arguments)
        result = self.open(call)
        if recipe.infeasible is not None:
            self.fail(call, recipe.infeasible)
            return call, result
        if recipe.in_group is not None and (trouble := self._engine.groups.trouble(recipe.in_group)):
            self.fail(call, self._engine.groups.task_failure(call, trouble))
            return call, result
        failure = self.attach(call, lambda: self._start(call), lambda failure: self.fail(call, failure))
        if failure is not None:
            self.fail(call, failure)
        elif not call.missing:
            self._start(call)
        return call, result

    def new(self, recipe: calls.Recipe, arguments: calls.Arguments) -> calls.Call:
        parent = self._engine.current_call()
        call = calls.Call(recipe, self.next_id(), arguments, parent, self._engine.session_context.worker_id)
        self.unfinished.add(call)
        if parent is not None:
            parent.children.add(call)
        return call

    def open(self, call: calls.Call) -> Any:
        """Make the call's records, and what its caller gets."""
        recipe = call.recipe
        for index in range(recipe.num_returns):
            object_id = call.task_id + index.to_bytes(calls.INDEX_BYTES, "big")
            call.records.append(self._values.new(object_id, call, call.caller))
        made = [self._values.ref(record.object_id) for record in call.records]
        if recipe.is_streaming:
            call.stream = streams.Stream(self._values, call)
            if recipe.is_dynamic:
                return made[0]
            return refs.ObjectRefGenerator(streams.Reader(self._engine, call.stream, made[0]))
        if recipe.num_returns == 1:
            return made[0]
        return made or None

    def attach(
        self, call: calls.Call, ready: Callable[[], None], failed: Callable[[values.Failure], None]
    ) -> values.Failure | None:
        """Keep what the arguments refer to, and count those that are not there yet in `call.missing`.

        Returns why the call cannot run, if that is known now. Later, either `failed` is called with the reason, or
        `ready` when the last one is there.
        """
        table = self._values.table
        failure: values.Failure | None = None
        for key, object_id in call.arguments.deps:
            record = table.records.get(object_id)
            if record is None:
                failure = values.Failure(self._values.lost(object_id), call.name)
                continue
            table.pin(record)
            call.pins.append(record)
            call.deps.append((key, record))
            if record.kind == values.ERROR and failure is None:
                record.is_read = True  # what becomes of it is the call's result
                failure = self._input_failure(call, record.payload)
        lost = self._values.first_lost(call.arguments.contained)
        if lost is not None and failure is None:
            failure = values.Failure(lost, call.name)
        call.pins += self._values.pin_all(call.arguments.contained)
        if failure is not None:
            return failure

        def settled(record: ownership.Record) -> None:
            if call.is_done or call.missing <= 0:
                return  # cancelled, or failed by another argument
            if record.kind == values.ERROR:
                record.is_read = True
                call.missing = 0
                failed(self._input_failure(call, record.payload))
                return
            call.missing -= 1
            if not call.missing:
                ready()

        for record in {r.object_id: r for _, r in call.deps if r.kind == values.PENDING}.values():
            call.missing += 1
            self._values.on_settled(record, settled)
        return None

    @staticmethod
    def _input_failure(call: calls.Call, upstream: values.Failure) -> values.Failure:
        actor_id = None if call.actor is None else call.actor.actor_id
        return values.InputFailure(upstream, call.name, call.task_id, actor_id)

    # Running

    def _start(self, call: calls.Call) -> None:
        recipe = call.recipe
        if call.is_done:
            return  # it was cancelled, or its placement group ended, before it could start
        if recipe.in_group is not None and not self._engine.groups.admits(recipe, lambda: self._start(call)):
            return
        try:
            call.lane = lane = self._engine.pool.spawn(
                lambda: self._run(call), f"task {call.name}", env_vars=recipe.worn
            )
        except exceptions.UmbelSystemError as error:
            self.fail(call, values.Failure(error, call.name))
            return
        if lane.session is None:
            lane.session = self._engine.new_session(0)
        self.begin(call, self._engine.new_session(recipe.gpu_count) if recipe.gpu_count else lane.session)

    def begin(self, call: calls.Call, session: context.SessionContext) -> None:
        """The call is about to run."""
        call.is_started = True
        call.session = session
        call.started_s = time.time()
        call.context = context.TaskContext(
            call.task_id.hex(),
            call.name,
            call.recipe.function_name,
            resources=call.recipe.resources,
            attempt=call.attempt,
            actor=call.actor.context if call.actor is not None else None,
            key=call,
            env_vars=dict((call if call.actor is None else call.actor.creation).recipe.env_vars),
        )
        call.context.is_coroutine = call.recipe.is_async

    def _run(self, call: calls.Call) -> None:
        """A task, in its lane. Called without the mutex."""
        function = call.recipe.function
        if function is None:
            raise exceptions.InternalError("a task has no function", task=call.task_id.hex())
        while True:
            outcome = running.attempt(self._engine, call, function)
            if isinstance(outcome, running.Left):
                with self._engine.mutex:
                    self._renew_worker(call)
                if call.may_retry():
                    continue
                error = exceptions.WorkerCrashedError(
                    f"the worker of task {call.name} ended: {outcome.how}; return from the function instead, or raise "
                    "max_retries if the task may safely run again"
                )
                outcome = running.Failed(values.Failure(error, call.name))
            if not isinstance(outcome, running.Retry):
                break
        with self._engine.mutex:
            self.finish(call, outcome)

    # The end

    def fail(self, call: calls.Call, failure: values.Failure) -> None:
        self.finish(call, running.Failed(failure))

    def finish(self, call: calls.Call, outcome: running.Outcome) -> None:
        """The call has ended: its results are there. A second end is ignored."""
        if call.is_done:
            return
        call.is_done = True
        self.unfinished.discard(call)
        failure = outcome.failure if isinstance(outcome, running.Failed) else None
        if call.stream is not None:
            failure = self._finish_stream(call, call.stream, outcome) or failure
            if failure is not None and failure.is_of_user and not call.recipe.is_dynamic:
                failure = None  # the last item says it
        for index, record in enumerate(call.records):
            if failure is not None:
                record.is_read = call.stream is not None and not call.recipe.is_dynamic  # its last item says it
                self._values.settle(record, failure.encoded())
            elif isinstance(outcome, running.Returned) and outcome.results:
                self._values.settle(record, outcome.results[index])
            else:
                self._values.settle(record, values.NONE)
        if failure is not None and not call.records:
            self._values.report(failure)
        call.arguments = calls.NO_ARGUMENTS
        call.context = None  # which knows the call
        call.deps.clear()
        self._values.unpin_all(call.pins)
        if call.parent is not None:
            call.parent.children.discard(call)
        if call.actor is not None:
            call.actor.finished(call)
        if call.is_started and call.recipe.has_events:
            kind = "task" if call.actor is None else "actor_task"
            has_failed = isinstance(outcome, running.Failed)
            self.events.append((call.name, call.task_id.hex(), call.started_s, time.time(), kind, has_failed))

    def _finish_stream(
        self, call: calls.Call, stream: streams.Stream, outcome: running.Outcome
    ) -> values.Failure | None:
        failure = None
        if isinstance(outcome, running.Failed):
            stream.fail(outcome.failure)
        else:
            failure = stream.end(outcome.item_count if isinstance(outcome, running.Returned) else 0)
        if failure is None and call.recipe.is_dynamic and call.is_started:
            items = [stream.take() for _ in range(stream.length or 0)]
            self._values.settle(call.records[0], values.encode(refs.DynamicObjectRefGenerator(items)))
        return failure

    # Stopping

    def stop(self, call: calls.Call, failure: values.Failure) -> None:
        """End a task that has started, where it waits or calls Umbel next, and its worker with it."""
        self.fail(call, failure)
        if call.lane is not None:
            self._engine.baton.interrupt(call.lane, lanes.LaneExit(f"{call.name} was stopped"))
        self._renew_worker(call)

    def _renew_worker(self, call: calls.Call) -> None:
        """The worker of this task has ended; what its lane runs next runs in another."""
        lane, ended = call.lane, call.session
        if lane is None or ended is None:
            return
        call.session = self._engine.new_session(call.recipe.gpu_count)
        if lane.session is ended:
            lane.session = call.session
        self._engine.worker_ended(ended.worker_id)

    def owner_died(self, owner: str) -> None:
        """The worker has ended: nobody wants what it had submitted. Calls that an actor has begun are its own affair."""
        for call in sorted((one for one in self.unfinished if one.caller == owner), key=lambda one: one.task_id):
            if call.is_done:
                continue  # it was a child of one before
            failure = running.cancelled(call).failure
            if not call.is_started:
                if call.actor is not None:
                    call.actor.remove(call)
                self.fail(call, failure)
            elif call.actor is None:
                self.stop(call, failure)
            elif call.stream is not None:
                call.stream.close()

    # Cancellation

    def cancel(self, call: calls.Call, *, force: bool, recursive: bool) -> None:
        """A call that has not started never does; one that runs is interrupted where it waits. A finished one is left
        alone."""
        if call.is_done:
            return
        for child in list(call.children) if recursive else ():
            self.cancel(child, force=force and child.actor is None, recursive=True)
        call.is_cancelled = True
        if call.actor is not None:
            call.actor.cancel(call)
        elif not call.is_started:
            self.finish(call, running.cancelled(call))
        elif call.lane is not None:
            running.interrupt(self._engine, call, force=force)
