"""Submitting tasks, and settling what comes back: replies, errors and retries, streams, cancellation.

Which worker gets them is the business of `leases`, what becomes of them when workers die that of `deaths`. Everything
here runs under the engine's lock unless it says otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import arguments, exports, links, recording, refs, remote_function, strategies, streams
from umbel._client.task import Task, Template, cancelled_error, known
from umbel._objects import ownership, serialization
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client.native import NativeEngine

PENDING = ownership.PENDING
ERROR = serialization.ERROR
STORED = serialization.STORED
FINISHED = recording.FINISHED
# While one thread submits and submits, nobody reads replies; so it does, now and then, more often when tasks wait for
# each other and each reply lets the next one start. Looking costs 3 us.
POLL_PERIOD = 32
POLL_PERIOD_CHAINED = 8
_INDEX = [index.to_bytes(4, "big") for index in range(16)]


class Tasks:
    """The tasks this process has submitted."""

    def __init__(self, engine: NativeEngine) -> None:
        self._engine = engine
        self._values = engine.values
        self._leases = engine.leases
        self.unfinished: dict[int, Task] = {}
        self.last_seq = 0
        self._templates = 0
        self._process_id = engine.process_id
        self.arguments = arguments.TaskArguments(engine, self)
        self.recorder = recording.make(engine.process_id, engine.welcome.get("job_id", ""), engine.config)

    # Submission

    def next_seq(self) -> int:
        self.last_seq += 1
        return self.last_seq

    def new_template(self, name: str, num_returns: Any, is_generator: bool) -> Template:
        self._templates += 1
        return Template(self._engine, self._templates, name, num_returns, is_generator)

    def prepare(self, template: remote_function.TaskTemplate) -> Template:
        """Read a function and its options into what is sent: the function is pickled now, at its first call. No
        lock."""
        options = template.options
        blob = exports.exported(self._engine, template.source)
        env = self._engine.own_environment.inherited(options.env_vars, options.environment)
        strategy = strategies.wire_strategy(options.scheduling_strategy)
        request: dict[str, Any] = {"resources": dict(options.resources.items()), "env": env, "strategy": strategy}
        if options.label_selectors:
            request["label_selectors"] = options.label_selectors
        with self._engine.lock:
            made = self.new_template(template.name, options.num_returns, template.is_generator)
            made.function_blob = blob
            made.digest = _digest(blob)
            made.max_retries = options.max_retries
            made.retry_exceptions = options.retry_exceptions
            made.backpressure = options.generator_backpressure_num_objects
            made.announcement = {
                "name": made.name,
                "digest": made.digest,
                "num_returns": made.num_returns,
                "is_streaming": made.is_streaming,
                "backpressure": made.backpressure,
                "max_calls": options.max_calls,
                "flush": made.max_retries == 0,
                "events": options.enable_task_events,
                "resources": request["resources"],
                "function": template.source.name,
                "module": getattr(template.function, "__module__", ""),
                "env": env,
                "strategy": strategy,
            }
            made.cls = self._leases.class_of(request)
            template.engine_state = made
        return made

    def with_resources(self, template: Template, resources: dict[str, int]) -> Template:
        """The same function with other resources, in units."""
        made = self.new_template(template.name, template.num_returns, False)
        for name in Template.__slots__:
            if name != "index":
                setattr(made, name, getattr(template, name))
        made.announcement = {**template.announcement, "resources": resources}
        made.cls = self._leases.class_of({**known(template.cls).request, "resources": resources})
        return made

    def submit(self, template: remote_function.TaskTemplate, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Called without the lock. Returns what `RemoteFunction.remote` does."""
        state: Template | None = template.engine_state
        engine = self._engine
        if state is None or state.engine is not engine:
            state = self.prepare(template)
        kind, payload, deps, pins = messages.ARGS, args, None, None
        if args or kwargs:
            try:
                kind, payload, deps, pins = self.arguments.encode(args, kwargs)
            except TypeError as error:
                raise template.signature.blame(template.name, args, kwargs, error) from error.__cause__
        with engine.lock:
            engine.check_running()
            self.last_seq = seq = self.last_seq + 1
            task = Task(seq, state, kind, payload)
            result = self.open_results(task, state)
            if deps or pins or kind == messages.ARGS_OBJECT:
                self.arguments.attach(task, deps, pins)
            self.unfinished[seq] = task
            if engine.context_of is not None:
                task.parent = engine.context_of()
            if task.error is not None:
                self.fail(task, task.error)
            elif not task.missing:
                self._leases.enqueue(task)
            elif task.missing == 1:
                self._leases.push_behind(task)
            if engine.values._drops:
                engine.values.drain_drops()
        if not seq % (POLL_PERIOD_CHAINED if task.missing else POLL_PERIOD):
            engine.reactor.poll_now()
        return result

    def open_results(self, task: Task, state: Template) -> Any:
        """Make the records of a task's results, and the references the caller gets."""
        engine = self._engine
        prefix = self._process_id + task.seq.to_bytes(8, "big")
        if state.is_streaming:
            record = self._values.table.own(prefix + _INDEX[0])
            record.task = task
            task.records.append(record)
            if state.is_dynamic:
                task.stream = streams.StreamState(engine, task, prefix, keep_all=True)
                return refs.ObjectRef(record.object_id, engine)
            task.stream = streams.StreamState(engine, task, prefix)
            return refs.ObjectRefGenerator(streams.NativeStream(task.stream, refs.ObjectRef(record.object_id, engine)))
        count = state.num_returns
        if count == 1:
            object_id = prefix + _INDEX[0]
            record = self._values.table.own(object_id)
            record.task = task
            task.records = [record]
            return refs.ObjectRef(object_id, engine)
        made: list[refs.ObjectRef[Any]] = []
        for index in range(count):
            record = self._values.table.own(prefix + index.to_bytes(4, "big"))
            record.task = task
            task.records.append(record)
            made.append(refs.ObjectRef(record.object_id, engine))
        return made or None

    # Replies

    def on_reply(self, link: links.Link, message: tuple[Any, ...]) -> None:
        _, seq, kind, payload, contained, duration_s, ended_s = message
        task = self._finish(link, seq, duration_s)
        if task is None:
            self._values.let_go(kind, payload, contained)
            return
        last = link.recorded
        if task.template is last.template and task.parent is last.parent and not task.attempt:
            last.add((last.group, seq, task.submitted_s, duration_s, ended_s))  # as the one before from there
        elif self.recorder is not None:
            link.recorded = self.recorder.ended(task, link.peer, FINISHED, duration_s, ended_s)
        if kind == STORED or task.attempt:
            self._remember(task, (0,) if kind == STORED else ())
        record = task.records[0] if task.records else None
        if record is None:
            self._values.let_go(kind, payload, contained)
        elif contained or record.is_dead or record.subscribers:
            self._values.settle(record, kind, payload, contained or ())
        else:  # the common case, spelled out
            record.kind = kind
            record.payload = payload
            record.task = None
            self._engine.has_settled = True
            waiters = record.waiters
            if waiters:
                record.waiters = None
                for waiter in waiters:
                    waiter(record)
                if task.argument_pins and not self.unfinished:  # who waits for just this goes on before they are freed
                    self._engine.drop_ref(self._detach_arguments(task))
        if task.argument_pins:
            self._unpin_arguments(task)

    def on_reply_many(self, link: links.Link, message: tuple[Any, ...]) -> None:
        _, seq, results, duration_s, ended_s = message
        task = self.unfinished.get(seq)
        if task is not None and results and results[-1][0] == ERROR and self._retries(task, results[-1][1]):
            for kind, payload, contained in results:
                if kind != ERROR:
                    self._values.let_go(kind, payload, contained)
            self.on_failed(link, (messages.FAILED, seq, results[-1][1], duration_s, ended_s))
            return
        task = self._finish(link, seq, duration_s)
        if task is not None and self.recorder is not None:
            if results and results[-1][0] == ERROR:
                self.recorder.failed(task, link.peer, results[-1][1], duration_s, ended_s)
            else:
                self.recorder.ended(task, link.peer, FINISHED, duration_s, ended_s)
        if task is not None:
            stored = [index for index, (kind, _, _) in enumerate(results) if kind == STORED]
            if stored or task.attempt:
                self._remember(task, stored)
        for index, (kind, payload, contained) in enumerate(results):
            if task is None:
                self._values.let_go(kind, payload, contained)
            elif task.attempt:
                self._values.settle_again(task.records[index], kind, payload, contained or ())
            else:
                self._values.settle(task.records[index], kind, payload, contained or ())
        if task is not None:
            self._unpin_arguments(task)

    def on_failed(self, link: links.Link, message: tuple[Any, ...]) -> None:
        _, seq, blob, duration_s, ended_s = message
        task = self._finish(link, seq, duration_s)
        if task is None:
            return
        if self.recorder is not None:
            self.recorder.failed(task, link.peer, blob, duration_s, ended_s)
        if self._retries(task, blob):
            self._engine.troubles.retried(task.template.name, task.retries_left, blob)
            self.unfinished[seq] = task
            task.retries_left -= 1 if task.retries_left > 0 else 0
            task.attempt += 1
            task.lease = None
            is_waiting = task.missing or self.arguments.waits_again(task)
            if task.actor is not None and task.error is None:
                task.actor.retry(task)
            elif not is_waiting:
                self._leases.enqueue(task)
            return
        self.settle_failure(task, blob)

    def _remember(self, task: Task, stored: Collection[int]) -> None:
        """A task has ended well and is recorded; its results of these indices can be lost. Takes its parent away."""
        rebuilder = self._engine.rebuilder
        if rebuilder is None:
            if not stored:
                return
            rebuilder = self._engine.make_rebuilder()
        rebuilder.remember(task, stored)

    def _forget_how(self, task: Task) -> None:
        """A task has ended with an error: what is there of its results is not computed again by it."""
        rebuilder = self._engine.rebuilder
        if rebuilder is None and task.is_cancelled and task.stream is not None and task.stream.stored:
            rebuilder = self._engine.make_rebuilder()
        if rebuilder is not None and (task.attempt or task.stream is not None):
            rebuilder.failed(task)

    def _retries(self, task: Task, blob: bytes) -> bool:
        """Whether the error the user's code raised is one to try again."""
        wanted = task.template.retry_exceptions
        if not wanted or task.retries_left == 0 or task.is_cancelled:
            return False
        if exceptions.first_of_failed_input(blob) is not None:
            return False  # another task's code raised it
        error = exceptions.load_error(blob)
        if not isinstance(error, exceptions.UmbelTaskError):
            return False
        return wanted is True or isinstance(error.cause, tuple(wanted))

    def _finish(self, link: links.Link, seq: int, duration_s: float | None) -> Task | None:
        """Take a task that ended off the books; None when it was settled before."""
        task = self.unfinished.pop(seq, None)
        leased = link.lease
        if leased is not None:
            cls, lease = leased
            if lease.inflight.pop(seq, None) is None and task is not None:
                self._leases.not_to_run(task)  # that lease was lost, and the task is to run again
            lease.is_blocked = False
            lease.last_reply_s = lease.idle_since_s = self._engine.frame_time_s
            if cls.ready or (not lease.inflight and (lease.is_reclaimed or len(cls.leases) > 1)):
                self._leases.dirty.add(cls)
        elif task is not None and task.actor is not None:
            task.actor.calls.replied(seq)
        if task is not None and duration_s is not None:
            task.durations.add(duration_s)
        return task

    def _unpin_arguments(self, task: Task) -> None:
        pins = self._detach_arguments(task)
        if pins:
            table = self._values.table
            for record in pins:
                table.unpin(record)
            if table.commands:
                self._values.carry_out()

    @staticmethod
    def _detach_arguments(task: Task) -> Any:
        """The task, which does not run any more, forgets its arguments. Returns what has to be unpinned, if anything."""
        pins, task.argument_pins = task.argument_pins, None
        task.deps = None
        task.payload = None
        return pins

    def fail(self, task: Task, blob: bytes | None, peer: bytes = b"") -> None:
        """End a task that was not sent, or whose `peer` is gone."""
        if self.unfinished.pop(task.seq, None) is not None:
            self.note_failure(task, peer, blob or b"")
            self.settle_failure(task, blob or b"")

    def input_failed(self, task: Task, blob: bytes) -> bytes:
        """The error of a task that cannot run, because an argument of it has ended with this one."""
        task_id = self._process_id + task.seq.to_bytes(8, "big")
        actor_id = None if task.actor is None else task.actor.actor_id.hex()
        return exceptions.dump_failed_input(blob, task.template.name, task_id=task_id.hex(), actor_id=actor_id)

    def note_failure(self, task: Task, peer: bytes, blob: bytes) -> None:
        """An attempt has failed of which its worker, `peer` or b"" for none, did not say so."""
        if self.recorder is not None:
            self.recorder.failed(task, peer, blob, None, time.time())

    def settle_failure(self, task: Task, blob: bytes) -> None:
        """Give every result of the task this error."""
        self.unfinished.pop(task.seq, None)
        self._forget_how(task)
        if task.stream is not None:
            task.stream.fail(blob)
        for record in task.records:
            if record.kind == PENDING:
                record.is_read = task.stream is not None and not task.stream.keep_all  # its last item says it
                self._values.settle(record, ERROR, blob)
        self._unpin_arguments(task)

    def on_cancelled(self, link: links.Link, message: tuple[Any, ...]) -> None:
        task = self._finish(link, message[1], None)
        if task is not None:
            blob = cancelled_error(task)
            self.note_failure(task, b"", blob)
            self.settle_failure(task, blob)

    # Streams

    def on_item(self, link: links.Link, message: tuple[Any, ...]) -> None:
        _, seq, index, kind, payload, contained = message
        task = self.unfinished.get(seq)
        if task is None or task.stream is None:
            self._values.let_go(kind, payload, contained)
            return
        if link.lease is not None:
            link.lease[1].last_reply_s = self._engine.frame_time_s
        task.stream.item(link, index, kind, payload, contained)

    def on_end(self, link: links.Link, message: tuple[Any, ...]) -> None:
        _, seq, count, blob, duration_s, ended_s = message
        task = self.unfinished.get(seq)
        if blob is not None and task is not None and self._retries(task, blob):
            self.on_failed(link, (messages.FAILED, seq, blob, duration_s, ended_s))
            return
        task = self._finish(link, seq, duration_s)
        if task is None or task.stream is None:
            return
        if self.recorder is not None:
            if blob is None:
                self.recorder.ended(task, link.peer, FINISHED, duration_s, ended_s)
            else:
                self.recorder.failed(task, link.peer, blob, duration_s, ended_s)
        stream = task.stream
        if blob is not None:
            self._forget_how(task)
        elif stream.stored or task.attempt:
            self._remember(task, stream.stored)
        self._unpin_arguments(task)
        stream.end(count, blob)  # which may begin it again

    # Cancellation

    def cancel(self, task: Task, *, force: bool, recursive: bool) -> None:
        """Cancel an unfinished task: it never starts, or is interrupted. A finished one is left alone."""
        if task.seq not in self.unfinished:
            return
        task.is_cancelled = True
        if task.actor is not None:
            if task.actor.calls.remove(task):
                self.fail(task, cancelled_error(task))
                task.actor.pump()  # it may have held up those behind it
            else:
                task.actor.cancel(task, recursive=recursive)
            return
        if task.lease is None:
            cls = known(task.template.cls)
            if task in cls.ready:
                cls.ready.remove(task)
                self._leases.dirty.add(cls)  # the agent is told that less is wanted
            self.fail(task, cancelled_error(task))
            return
        task.lease.link.post((messages.CANCEL, task.seq, force, recursive))
        task.lease.link.flush()

    def on_cancel_object(self, _link: links.Link, message: tuple[Any, ...]) -> None:
        _, object_id, force, recursive = message
        record = self._values.table.records.get(object_id)
        if record is not None and isinstance(record.task, Task):
            self.cancel(record.task, force=force and record.task.actor is None, recursive=recursive)


def _digest(blob: bytes) -> bytes:
    """By what a function is known."""
    try:  # `hashlib` would load OpenSSL as well: half a megabyte, and milliseconds of the first task
        from _blake2 import blake2b
    except ImportError:  # not every Python has it
        from hashlib import blake2b
    return blake2b(blob, digest_size=16).digest()
