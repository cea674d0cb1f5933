"""Submitting tasks: leases, pushes, replies, retries, cancellation.

`umbel._scheduling.dispatch` decides what goes where; this module sends it and settles what comes back. Everything
here runs under the engine's lock unless it says otherwise.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import arguments, links, recording, refs, remote_function, streams
from umbel._client.task import Task, Template, cancelled_error, known, resolve_deps
from umbel._model import options as option_model
from umbel._objects import ownership, serialization
from umbel._scheduling import dispatch
from umbel._wire import messages

if TYPE_CHECKING:
    from umbel._client import memory_kills
    from umbel._client.native import NativeEngine

PENDING = ownership.PENDING
ERROR = serialization.ERROR
RAW = serialization.RAW
STORED = serialization.STORED
FINISHED = recording.FINISHED
# While one thread submits and submits, nobody reads replies; so it does, now and then, more often when tasks wait for
# each other and each reply lets the next one start. Looking costs 3 us.
POLL_PERIOD = 32
POLL_PERIOD_CHAINED = 8
READY_PUSH = 32  # waiting tasks that are worth an assignment round while more are being submitted
UNSTARTED_DEATHS_MAX = 8  # a task that was pushed and did not start costs nothing, but nothing may go on for ever
_INDEX = [index.to_bytes(4, "big") for index in range(16)]
_NO_REFS: tuple[bytes, ...] = ()


class Tasks:
    """The tasks this process has submitted."""

    def __init__(self, engine: NativeEngine, depth: int) -> None:
        self._engine = engine
        self._values = engine.values
        self.depth = depth
        self.classes: dict[str, dispatch.SchedulingClass] = {}
        self.unfinished: dict[int, Task] = {}
        self.last_seq = 0
        self._templates = 0
        self._dirty: set[dispatch.SchedulingClass] = set()
        self.memory_kills: memory_kills.MemoryKills | None = None  # once there was one
        self._unstarted_deaths: dict[int, int] = {}  # task -> workers that died with it at the head of their queue
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
        from hashlib import blake2b  # loads OpenSSL, which a worker that submits nothing has no use for

        options = template.options
        blob = self._engine.export(template.source)
        env = self._engine.environment(options.env_vars, options.environment)
        strategy = wire_strategy(options.scheduling_strategy)
        request: dict[str, Any] = {"resources": dict(options.resources.items()), "env": env, "strategy": strategy}
        if options.label_selectors:
            request["label_selectors"] = options.label_selectors
        with self._engine.lock:
            made = self.new_template(template.name, options.num_returns, template.is_generator)
            made.function_blob = blob
            made.digest = blake2b(blob, digest_size=16).digest()
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
            made.cls = self._class_of(request)
            template.engine_state = made
        return made

    def _class_of(self, request: dict[str, Any]) -> dispatch.SchedulingClass:
        key = json.dumps(request, sort_keys=True)
        found = self.classes.get(key)
        if found is None:
            found = self.classes[key] = dispatch.SchedulingClass(key, request, self.depth)
        return found

    def with_resources(self, template: Template, resources: dict[str, int]) -> Template:
        """The same function with other resources, in units."""
        made = self.new_template(template.name, template.num_returns, False)
        for name in Template.__slots__:
            if name != "index":
                setattr(made, name, getattr(template, name))
        made.announcement = {**template.announcement, "resources": resources}
        made.cls = self._class_of({**known(template.cls).request, "resources": resources})
        return made

    def submit(self, template: remote_function.TaskTemplate, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Called without the lock. Returns what `RemoteFunction.remote` does."""
        state: Template | None = template.engine_state
        engine = self._engine
        if state is None or state.engine is not engine:
            state = self.prepare(template)
        try:
            kind, payload, deps, pins = self.arguments.encode(args, kwargs)
        except TypeError as error:
            raise template.signature.blame(template.name, args, kwargs, error) from error.__cause__
        with engine.lock:
            engine.check_running()
            self.last_seq = seq = self.last_seq + 1
            task = Task(seq, state, kind, payload)
            result = self.open_results(task, state)
            self.arguments.attach(task, deps, pins)
            self.unfinished[seq] = task
            if engine.context_of is not None:
                task.parent = engine.context_of()
            if task.error is not None:
                self.fail(task, task.error)
            elif not task.missing:
                self.enqueue(task)
            elif task.missing == 1:
                self._push_behind(task)
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
            task.records.append(record)
            return refs.ObjectRef(object_id, engine)
        made: list[refs.ObjectRef[Any]] = []
        for index in range(count):
            record = self._values.table.own(prefix + index.to_bytes(4, "big"))
            record.task = task
            task.records.append(record)
            made.append(refs.ObjectRef(record.object_id, engine))
        return made or None

    # Pushing

    def enqueue(self, task: Task) -> None:
        cls = known(task.template.cls)
        lease = cls.quick_lease() if not cls.ready else None
        if lease is not None:
            lease.inflight[task.seq] = task
            task.lease = lease
            lease.last_reply_s = time.monotonic()
            self._push(lease.link, task)
            lease.link.flush()
            return
        cls.ready.append(task)
        if len(cls.ready) >= READY_PUSH:
            self._assign(cls)
        if cls not in self._dirty:
            self._dirty.add(cls)
            if not cls.leases and not cls.told:
                self._tell_demand(cls, time.monotonic())
            else:
                self._engine.reactor.poke()

    def _push_behind(self, task: Task) -> None:
        """Send a task to the worker that is about to compute its last missing argument, which saves the way there and
        back. Only for quick functions, and only while the worker has room; a worker that no longer has the argument
        hands the task back."""
        cls = task.template.cls
        producer = None
        for _, record in task.deps or ():
            if record.kind == PENDING:
                producer = record.task
                break
        if not isinstance(producer, Task) or producer.template.cls is not cls or producer.stream is not None:
            return
        lease = producer.lease
        if (
            lease is None
            or len(producer.records) != 1
            or producer.is_cancelled
            or lease.is_blocked
            or lease.is_reclaimed
        ):
            return
        room = min(task.durations.depth(), producer.durations.depth())
        if room <= len(lease.inflight) or producer.seq not in lease.inflight or task.template.max_retries == 0:
            return
        lease.inflight[task.seq] = task
        task.lease = lease
        self._push(lease.link, task)
        if len(lease.link.outbox) >= READY_PUSH:
            lease.link.flush()
        else:
            self._engine.mark_dirty(lease.link)
            self._engine.reactor.poke()

    def _push(self, link: links.Link, task: Task) -> None:
        template = task.template
        self.announce(link, template)
        if link.depth_told != self.depth:
            self.tell_depth(link)
        link.post((messages.TASK, task.seq, template.index, task.kind, task.payload, resolve_deps(task), task.attempt))

    def tell_depth(self, link: links.Link) -> None:
        """The agent serves deeper demands first, so that wide recursion needs few processes; so a worker has to know
        how deep its tasks are, whichever task of ours it was that submitted them."""
        link.depth_told = self.depth
        link.post((messages.DEPTH, self.depth))

    @staticmethod
    def announce(link: links.Link, template: Template) -> None:
        """Tell the peer what it has to know before the first call of this template."""
        known = link.known
        if template.index in known:
            return
        known.add(template.index)
        if template.function_blob and template.digest not in known:
            known.add(template.digest)
            link.post((messages.FUNCTION, template.digest, template.function_blob))
        link.post((messages.TEMPLATE, template.index, template.announcement))

    def _assign(self, cls: dispatch.SchedulingClass) -> None:
        for lease, batch in cls.assign():
            link = lease.link
            if len(lease.inflight) == len(batch):
                lease.last_reply_s = time.monotonic()
            for task in batch:
                task.lease = lease
                self._push(link, task)
            link.flush()

    def _tell_demand(self, cls: dispatch.SchedulingClass, now_s: float) -> None:
        wanted = cls.wanted(now_s)
        if wanted != cls.told:
            cls.told = wanted
            self.classes[cls.key] = cls  # of which it may have been taken: see `_forget_class`
            self._engine.agent.notify(
                {
                    "t": "demand",
                    "key": cls.key,
                    "resources": cls.request["resources"],
                    "env": cls.request["env"],
                    "strategy": cls.request["strategy"],
                    "label_selectors": cls.request.get("label_selectors"),
                    "count": wanted,
                    "depth": self.depth,
                }
            )

    def pump(self) -> None:
        """Push what waits and tell the agent what is wanted; before waiting, and in housekeeping."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, set()
        now = time.monotonic()
        for cls in dirty:
            self._assign(cls)
            self._tell_demand(cls, now)
            self._give_back_idle(cls, now, self._engine.config.idle_lease_s)

    def give_back_unused(self) -> None:
        """Return every lease on which nothing runs, though more tasks might come."""
        now = time.monotonic()
        for cls in self.classes.values():
            self._tell_demand(cls, now)
            self._give_back_idle(cls, now, 0.0)

    def housekeep(self, now_s: float) -> float | None:
        """What time brings: idle leases go back, stalled work is offered to others. Returns when to look again."""
        due = self.memory_kills.release(now_s) if self.memory_kills is not None else None
        idle_lease_s = self._engine.config.idle_lease_s
        for cls in self.classes.values():
            if not cls.leases and not cls.ready:
                if cls.told:
                    self._tell_demand(cls, now_s)
                continue
            self._assign(cls)
            self._tell_demand(cls, now_s)
            self._steal(cls)
            self._give_back_idle(cls, now_s, idle_lease_s)
            for lease in cls.leases.values():
                wait = dispatch.STALLED_AFTER_S if len(lease.inflight) > 1 else None
                if not lease.inflight:
                    wait = max(0.0, lease.idle_since_s + idle_lease_s - now_s)
                if wait is not None:
                    due = wait if due is None else min(due, wait)
        return due

    def _steal(self, cls: dispatch.SchedulingClass) -> None:
        found = cls.steal_from()
        if found is not None:
            lease, count = found
            lease.link.post((messages.STEAL, count))
            lease.link.flush()

    def _give_back_idle(self, cls: dispatch.SchedulingClass, now_s: float, idle_lease_s: float) -> None:
        """Return what was not used for so long; a lease asked back as soon as it has drained, since somebody waits for
        it."""
        for lease in cls.idle_leases(now_s, idle_lease_s):
            self._give_back(lease, retire=lease.is_retired)

    def _give_back(self, lease: dispatch.Lease, *, retire: bool = False) -> None:
        lease.link.lease = None
        self._engine.agent.notify({"t": "return", "worker": lease.worker, "retire": retire})

    # From the agent

    def on_grant(self, message: dict[str, Any]) -> None:
        cls = self.classes.get(message["key"])
        worker = message["worker"]
        link = self._engine.links.to(bytes.fromhex(worker))
        if cls is None or link is None:
            if cls is not None:
                cls.told = max(0, cls.told - 1)
                self._dirty.add(cls)
            self._engine.agent.notify({"t": "return", "worker": worker, "retire": True})
            return
        lease = cls.add_lease(worker, link, time.monotonic())
        link.lease = (cls, lease)
        if message.get("accelerators"):
            link.post((messages.TEMPLATE, 0, {"accelerators": message["accelerators"]}))
        self._assign(cls)
        self._steal(cls)
        link.flush()

    def on_reclaim(self, worker: str) -> None:
        for cls in self.classes.values():
            lease = cls.leases.get(worker)
            if lease is None:
                continue
            if cls.ready or len(lease.inflight) > 1:
                # Work waits here too: give back what has not started, so that the worker drains soon.
                lease.link.post((messages.STEAL, len(lease.inflight)))
                lease.link.flush()
            lease.is_reclaimed = True
            self._give_back_idle(cls, time.monotonic(), self._engine.config.idle_lease_s)
            self._dirty.add(cls)

    def on_worker_died(self, message: dict[str, Any]) -> None:
        worker = message["worker"]
        link = self._engine.links.by_peer.get(bytes.fromhex(worker))
        if link is not None and link.stream is not None:
            link.stream.drain()  # replies it sent before it died count
        for cls in list(self.classes.values()):
            if worker not in cls.leases:
                continue
            begun, fresh = cls.lose_lease(worker, message.get("started", -1))
            if fresh and not begun and self._is_unlucky(fresh[0]):
                cls.ready.remove(fresh[0])
                begun, fresh = fresh[:1], fresh[1:]
            self._wait_again(cls, fresh)
            self._dirty.add(cls)
            for task in reversed(begun):
                if message.get("group"):
                    self._lost_with_group(task, message)
                elif message.get("memory") is not None and not task.is_cancelled and task.seq in self.unfinished:
                    self._killed_for_memory(task, message, was_running=task is begun[-1])
                else:
                    self._crashed(task, cls, message)
            if message.get("group"):
                self._forget_class(cls)
        self.pump()

    def _lost_with_group(self, task: Task, message: dict[str, Any]) -> None:
        """A task was running, or its answer was on the way, when its placement group ended. It is not tried again: nothing
        will ever run there."""
        if task.seq not in self.unfinished:
            return
        error = exceptions.TaskPlacementGroupRemoved(
            f"the worker (pid {message.get('pid')}) of task {task.template.name} {message['reason']}"
        )
        blob = cancelled_error(task) if task.is_cancelled else exceptions.dump_error(error)
        self.note_failure(task, bytes.fromhex(message["worker"]), blob)
        self.settle_failure(task, blob)

    def _is_unlucky(self, task: Task) -> bool:
        """Whether workers die so often just before they start this task that it must be its doing."""
        count = self._unstarted_deaths.get(task.seq, 0) + 1
        self._unstarted_deaths = {seq: n for seq, n in self._unstarted_deaths.items() if seq in self.unfinished}
        self._unstarted_deaths[task.seq] = count
        return count > UNSTARTED_DEATHS_MAX

    def on_demand_failed(self, key: str, reason: str, *, is_unschedulable: bool, is_group_gone: bool) -> None:
        """No worker of this class can be started, or none may run its tasks: they fail."""
        cls = self.classes.get(key)
        if cls is None:
            return
        cls.told = 0
        while cls.ready:
            task = cls.ready.popleft()
            error: exceptions.UmbelError = (
                exceptions.TaskUnschedulableError(f"task {task.template.name} can never run: {reason}")
                if is_unschedulable
                else exceptions.TaskPlacementGroupRemoved(f"task {task.template.name} cannot run: {reason}")
                if is_group_gone
                else exceptions.RuntimeEnvSetupError(
                    f"no worker could be started for task {task.template.name} (environment {_shown(cls.request['env'])}): "
                    f"{reason}"
                )
            )
            self.fail(task, exceptions.dump_error(error))
        if is_group_gone:
            self._forget_class(cls)

    def _forget_class(self, cls: dispatch.SchedulingClass) -> None:
        """Of a placement group that has ended: a program may make many, and classes are looked through. If more of its tasks
        are submitted all the same, it is there again with the demand for them."""
        if not cls.leases and not cls.ready:
            self.classes.pop(cls.key, None)

    def _killed_for_memory(self, task: Task, message: dict[str, Any], *, was_running: bool) -> None:
        if self.memory_kills is None:
            from umbel._client import memory_kills  # most sessions never need it

            self.memory_kills = memory_kills.MemoryKills(self)
        worker, report = bytes.fromhex(message["worker"]), message["memory"]
        if was_running or not task.template.max_retries:
            self.memory_kills.happened(task, worker, report)
        else:  # it had run, and its answer was not out
            self.memory_kills.answer_lost(task, worker, report)

    def begin_again(self, task: Task, *, is_delayed: bool = False) -> None:
        """A task that had begun is in the queue again, before others; with `is_delayed` it will be."""
        if task.lease is not None:
            task.attempt += 1
            task.lease = None
        cls = known(task.template.cls)
        if is_delayed or task.missing or task in cls.ready or self.arguments.waits_again(task):
            return  # an argument is computed anew, or else it is there already
        cls.ready.appendleft(task)
        self._dirty.add(cls)

    def _crashed(self, task: Task, cls: dispatch.SchedulingClass, message: dict[str, Any]) -> None:
        """A task was running, or had run without its reply arriving, when its worker died."""
        if task.seq not in self.unfinished:
            return
        worker = bytes.fromhex(message["worker"])
        how = message.get("reason") or "it exited"
        crash = exceptions.dump_error(
            exceptions.WorkerCrashedError(
                f"the worker (pid {message.get('pid')}) died while running task {task.template.name}: {how}; raise "
                "max_retries if the task may safely run again, and look at the worker's output for the cause"
            )
        )
        self.note_failure(task, worker, cancelled_error(task) if task.is_cancelled else crash)
        if task.retries_left != 0 and not task.is_cancelled:
            task.retries_left -= 1 if task.retries_left > 0 else 0
            task.attempt += 1
            task.lease = None
            if not task.missing and not self.arguments.waits_again(task):  # else an argument is computed anew
                cls.ready.appendleft(task)
            return
        self.settle_failure(task, cancelled_error(task) if task.is_cancelled else crash)

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
                self.enqueue(task)
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
            lease.inflight.pop(seq, None)
            lease.is_blocked = False
            lease.last_reply_s = lease.idle_since_s = self._engine.frame_time_s
            if cls.ready or (not lease.inflight and (lease.is_reclaimed or len(cls.leases) > 1)):
                self._dirty.add(cls)
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

    def on_unstarted(self, link: links.Link, message: tuple[Any, ...]) -> None:
        if link.lease is None:
            return
        cls, lease = link.lease
        self._wait_again(cls, cls.take_back(lease, message[1]))
        lease.is_blocked = message[2]
        self._dirty.add(cls)

    def on_retire(self, link: links.Link, _message: tuple[Any, ...]) -> None:
        if link.lease is None:
            return
        cls, lease = link.lease
        # What it had not started has come back before this. Of the rest the answers are on their way: some may have to
        # wait for others to acknowledge borrows.
        lease.is_reclaimed = lease.is_retired = True
        self._dirty.add(cls)

    def _wait_again(self, cls: dispatch.SchedulingClass, tasks: list[Task]) -> None:
        """Tasks that a worker had and did not start are in the queue again, unless they ended or were cancelled
        meanwhile, or had been sent ahead of an argument which they now have to wait for like others."""
        for task in tasks:
            task.lease = None
            is_ended = task.is_cancelled or task.seq not in self.unfinished
            if is_ended or task.missing or self.arguments.waits_again(task):
                cls.ready.remove(task)
            if task.is_cancelled:
                self.fail(task, cancelled_error(task))

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
                self._dirty.add(cls)  # the agent is told that less is wanted
            self.fail(task, cancelled_error(task))
            return
        task.lease.link.post((messages.CANCEL, task.seq, force, recursive))
        task.lease.link.flush()


def _shown(env: dict[str, Any]) -> str:
    """An environment in an error, where the build's output says the rest."""
    built = env.get("built")
    return f"with {', '.join(sorted(built))}" if built else str(env)


def wire_strategy(strategy: Any) -> str | dict[str, Any] | None:
    """A scheduling strategy as the agent is told of it; None for the default one."""
    if strategy is None or isinstance(strategy, str):
        return None if strategy == "DEFAULT" else strategy
    if isinstance(strategy, option_model.InGroup):
        if strategy.group:
            return {
                "placement_group": strategy.group,
                "bundle_index": strategy.bundle_index,
                "captures": bool(strategy.captures),
            }
        if strategy.bundle_index >= 0:
            raise option_model.no_group(strategy.bundle_index)
        return None
    return {
        "node_id": strategy.node_id,
        "soft": bool(strategy.soft),
        "spills_when_busy": bool(getattr(strategy, "_spill_on_unavailable", False)),
        "fails_when_busy": bool(getattr(strategy, "_fail_on_unavailable", False)),
    }
