"""Hosting an actor: its construction, its methods, its threads and its event loop, its end.

A plain actor runs its calls on the main thread, in order. A threaded one has a pool for each concurrency group. One
with `async def` methods runs its coroutines on an event loop on the main thread, and its plain methods one at a time on
a thread of their own, so that they cannot block the loop. `mailbox` decides which calls may start.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import actor as actor_api
from umbel._client import answers, context, links, troubles
from umbel._objects import serialization
from umbel._wire import messages
from umbel._worker import execute, mailbox

if TYPE_CHECKING:
    import concurrent.futures

    from umbel._worker import argument_readers
    from umbel._worker.main import Worker


ASYNC_CONCURRENCY = 1000  # coroutines at once unless max_concurrency says otherwise; Ray's default
REPR_CHARS_MAX = 1_000  # of what an actor calls itself, kept by the daemon for each actor, for listings
SYNC_IN_ASYNC_CONCURRENCY = 1  # plain methods of an async actor: one at a time, as if the loop ran them


class ActorExit(SystemExit):
    """Raised by exit_actor in a method, to leave the user's code."""


def become(worker: Worker, message: dict[str, Any], body: bytes) -> None:
    """Turn this worker into the actor of the agent's `create` message. On the main thread."""
    Host(worker, message, body).construct()


class Host:
    """The actor in this process."""

    def __init__(self, worker: Worker, message: dict[str, Any], body: bytes) -> None:
        self._worker = worker
        self._engine = worker.engine
        self._body = body
        self.actor_id: str = message["actor"]
        self._creator = bytes.fromhex(self.actor_id)[:16]
        self.display_name: str = message["class_name"]
        self.context = context.ActorContext(
            self.actor_id,
            message["class_name"],
            name=message.get("name") or "",
            namespace=message.get("namespace") or "",
            resources={name: units / 10_000 for name, units in message.get("running", {}).items()},
            is_reconstructed=bool(message.get("reconstructed")),
            make_handle=self._own_handle,
            in_group=execute.in_group(message.get("strategy")),
        )
        if self.context.in_group is not None:
            worker.runs_in_group()
        self._attempt = int(message.get("reconstructed") or 0)
        self._description_bytes = b""
        self._has_events = True
        self._call_site = ""
        self._repr_name = ""
        self._instance: Any = None
        self._methods: dict[str, Callable[..., Any]] = {}
        self._mailbox: mailbox.Mailbox | None = None  # None: a plain actor
        self._pools: dict[str, concurrent.futures.ThreadPoolExecutor] = {}
        self._argument_readers: argument_readers.ArgumentReaders | None = None
        self._loop: Any = None
        self._cancelled_error: Any = None  # asyncio's, which is not for everybody to load
        self._is_flush_due = False
        self._flush_at_s = 0.0  # while it is due
        self._async_tasks: dict[execute.Execution, Any] = {}
        self._unfinished: dict[tuple[links.Link, int], execute.Execution] = {}
        self._is_ending = False
        self._is_housekeeping_due = False
        self._has_warned = False
        self.constructing_since_s = 0.0  # time.time() while the constructor runs
        if message.get("namespace"):
            self._engine.namespace = message["namespace"]
            worker.session.namespace = message["namespace"]
        if message.get("accelerators"):
            worker._use_accelerators(message["accelerators"])
        worker.use_threads(execute.threads_of(self.context.resources))

    # Construction

    def construct(self) -> None:
        engine, worker = self._engine, self._worker
        job = execute.Execution.__new__(execute.Execution)
        job.argument_ids = []
        began_s = submitted_s = 0.0
        try:
            spec = serialization.loads(self._body)
            self._description_bytes, self._has_events = spec["description"], spec["has_events"]
            submitted_s, self._call_site = spec["submitted_s"], spec.get("call_site", "")
            cls = serialization.loads(spec["cls"])
            job.kind, job.payload, job.deps = spec["kind"], spec["payload"], spec["deps"]
            engine.leases.depth = spec["creator_depth"] + 1
            self._set_up_lanes(spec)
            args, kwargs = worker.executor.arguments(job)
            token = context.current_task.set(
                context.TaskContext("", f"{self.display_name}.__init__", "__init__", actor=self.context)
            )
            worker.host = self
            self.constructing_since_s = began_s = time.time()
            try:
                make = cls if worker.tracing is None else worker.tracing.running(cls)
                if self._loop is not None:
                    self._instance = self._loop.run_until_complete(_call_on_loop(make, args, kwargs))
                else:
                    self._instance = execute.call_user(make, args, kwargs)
            finally:
                self.constructing_since_s = 0.0
                context.current_task.reset(token)
            del args, kwargs
        except BaseException as error:  # the constructor's error is what every call will raise
            worker.host = None
            name = f"{self.display_name}.__init__"
            if isinstance(error, execute.ArgumentFailed):
                blob = exceptions.dump_failed_input(error.blob, name, task_id="", actor_id=self.actor_id)
            else:
                wrapped = exceptions.UmbelTaskError.from_exception(error, name, pid=os.getpid(), actor_id=self.actor_id)
                blob = exceptions.dump_error(wrapped)
            self._record_construction((submitted_s, began_s, time.time()), blob)
            engine.agent.notify({"t": "actor_failed", "actor": self.actor_id}, blob)
            worker.created()
            return
        self._record_construction((submitted_s, began_s, time.time()), b"")
        if any("__repr__" in vars(base) for base in type(self._instance).__mro__[:-1]):
            try:
                self.display_name = repr(self._instance)
                self._repr_name = self.display_name[:REPR_CHARS_MAX]
            except Exception:  # a repr that needs more than a fresh instance: keep the class name
                self.display_name = self.context.class_name
        with engine.lock:
            engine.values.drain_drops()
            awaited = engine.values.table.task_ended(job.argument_ids, b"")
            engine.values.carry_out()
            engine._flush()
            if awaited:
                engine.values.when_acknowledged(awaited, self._ready)
            else:
                self._ready()
        worker.created()
        if self._loop is not None:
            self._run_loop()

    def _record_construction(self, times: tuple[float, float, float], error: bytes) -> None:
        recorder = self._engine.tasks.recorder
        if recorder is None or not self._has_events:
            return
        actor, peer = bytes.fromhex(self.actor_id), self._worker.process_id
        with self._engine.lock:
            recorder.constructed(actor, self.context.class_name, peer, self._attempt, times, error, self._call_site)
        if error:
            self._engine.reports.send_tasks()  # this process will not be here in a second

    def _ready(self) -> None:
        message = {"t": "actor_ready", "actor": self.actor_id, "address": self._worker.process_id.hex()}
        if self._repr_name:
            message["repr_name"] = self._repr_name
        self._engine.agent.notify(message)

    def _set_up_lanes(self, spec: dict[str, Any]) -> None:
        groups: dict[str, int] = dict(spec["concurrency_groups"] or {})
        limit = spec["max_concurrency"]
        is_async = spec["is_async"]
        if not is_async and (limit or 1) <= 1 and not groups:
            return
        limits: dict[tuple[str, bool], int] = {}
        for name, size in {mailbox.DEFAULT_GROUP: None, **groups}.items():
            if is_async:
                limits[name, True] = size or limit or ASYNC_CONCURRENCY
                limits[name, False] = size if size is not None else SYNC_IN_ASYNC_CONCURRENCY
            else:
                limits[name, False] = size or limit or 1
        self._mailbox = mailbox.Mailbox(limits)
        if is_async:
            import asyncio

            from umbel._worker import event_loop

            self._loop, self._cancelled_error = event_loop.new_event_loop(), asyncio.CancelledError
            asyncio.set_event_loop(self._loop)

    @functools.cached_property
    def _description(self) -> actor_api.ActorDescription:
        """A plain actor that is not asked for its handle does without."""
        return serialization.loads(self._description_bytes)  # type: ignore[no-any-return]

    def _own_handle(self) -> Any:
        return actor_api.ActorHandle(bytes.fromhex(self.actor_id), self._description, None)

    # Calls; lock held

    def arrived(self, job: execute.Execution) -> None:
        """A call came in."""
        if self._is_ending:
            self._refuse(job)
            return
        if self._mailbox is None:
            self._worker.enqueue(job)
            return
        template = job.template
        if template.lane is None:
            lane = self._lane(template)
            if not self._mailbox.has_group(lane[0]):
                self._worker.executor.fail(job, ValueError(self._no_group(lane[0])), time.time())
                return
            template.lane = lane
        self._unfinished[job.link, job.seq] = job
        group, is_async = template.lane
        for ready in self._mailbox.arrived(group, is_async, job):
            self._start(ready)

    def _no_group(self, group: str) -> str:
        return f"actor {self.context.class_name} has no concurrency group {group!r}; declare it with concurrency_groups"

    def _lane(self, template: execute.Template) -> tuple[str, bool]:
        described = self._description.methods.get(template.method)
        is_async = described is not None and described.is_async
        declared = described.options.get("concurrency_group") if described is not None else None
        return template.group or declared or mailbox.DEFAULT_GROUP, is_async

    def _start(self, job: execute.Execution) -> None:
        group, is_async = job.template.lane
        if is_async:
            loop = self._loop
            if threading.get_ident() == self._worker._main_thread:
                self._spawn(job)
            else:
                loop.call_soon_threadsafe(self._spawn, job)
            return
        pool = self._pools.get(group)
        if pool is None:
            import concurrent.futures  # which most workers never need

            size = self._mailbox._lanes[group, False].limit if self._mailbox is not None else 1
            pool = self._pools[group] = concurrent.futures.ThreadPoolExecutor(
                size, thread_name_prefix=f"umbel-{group or 'actor'}"
            )
        pool.submit(contextvars.copy_context().run, self._run_in_thread, job)

    def finished(self, job: execute.Execution) -> None:
        """A call of a threaded or async actor ended: start what waited for its place."""
        with self._engine.lock:
            self._unfinished.pop((job.link, job.seq), None)
            if self._mailbox is not None:
                for ready in self._mailbox.finished(*job.template.lane):
                    self._start(ready)
            if self._unfinished and job in self._async_tasks:
                # Others are likely to end in the same round of the loop: their answers share a frame, unless the round
                # takes long. Should one of them hold the loop up, the background thread sends.
                now = time.monotonic()
                if not self._is_flush_due:
                    self._is_flush_due = True
                    self._flush_at_s = now + execute.FLUSH_AFTER_S
                    self._loop.call_soon(self._flush)
                elif now > self._flush_at_s:
                    self._flush_at_s = now + execute.FLUSH_AFTER_S
                    self._engine._flush()
            else:
                self._engine._flush()
            if self._is_ending and not self._unfinished:
                self._leave_soon()

    def _flush(self) -> None:
        self._is_flush_due = False
        with self._engine.lock:
            self._engine._flush()

    def running(self) -> list[answers.Running]:
        """The calls of a threaded or async actor that have started."""
        return [
            execute.running(job, getattr(job, "thread", 0), self._async_tasks.get(job))
            for job in self._unfinished.values()
            if hasattr(job, "started_s")
        ]

    def queue_about(self, task: str) -> answers.Queue | None:
        """Where a call waits; None for the queue of the worker, as in a plain actor, or if it is of none."""
        if self._mailbox is None or not task:
            return None
        jobs = self._unfinished.values()
        job = next((one for one in jobs if execute.task_id(one) == task), None)
        if job is None or hasattr(job, "started_s"):
            return answers.Queue(0, ())
        lane = self._mailbox.lane_of(job)
        if lane is None:  # it has its place, and waits for the event loop, in which another one is
            from umbel._client import coroutines

            ahead = [one for one, its in list(self._async_tasks.items()) if coroutines.is_running(its)]
            return answers.Queue(0, {execute.task_id(one) for one in ahead})
        ahead = [one for one in jobs if one.template.lane == lane and self._mailbox.lane_of(one) is None]
        return answers.Queue(self._mailbox.waiting_count(*lane), {execute.task_id(one) for one in ahead})

    def find(self, link: links.Link, seq: int) -> execute.Execution | None:
        return self._unfinished.get((link, seq))

    def cancel(self, link: links.Link, seq: int, *, is_recursive: bool) -> None:
        """Cancel a call: one that waits never starts, a coroutine is cancelled, the rest sees `is_canceled()`."""
        job = self._unfinished.get((link, seq))
        running = self._worker._running
        if job is None and running is not None and running.seq == seq and running.link is link:
            job = running
        if job is None:
            return
        if self._mailbox is not None and self._mailbox.remove(job):
            self._unfinished.pop((link, seq), None)
            link.post((messages.CANCELLED, seq))
            self._engine.mark_dirty(link)
            return
        job.is_cancelled = True
        if job.context is not None:
            job.context.is_canceled = True
        if is_recursive:
            self._worker.cancel_children(job, self._engine.tasks.last_seq)
        task = self._async_tasks.get(job)
        if task is not None:
            self._loop.call_soon_threadsafe(task.cancel)

    # Running

    def method(self, name: str) -> Callable[..., Any]:
        """The function a call runs."""
        found = self._methods.get(name)
        if found is None:
            if name == "__umbel_ready__":
                found = _ready
            elif name == "__umbel_terminate__":
                found = self._terminate
            elif name == "__umbel_call__":
                found = self._call_with_instance
            else:
                try:
                    found = getattr(self._instance, name)
                except Exception as error:  # the class had it; the instance's own attributes decide
                    return _raiser(error)
                if self._worker.tracing is not None:
                    found = self._worker.tracing.running(found)
            self._methods[name] = found
        return found

    def _call_with_instance(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(self._instance, *args, **kwargs)

    def _terminate(self) -> None:
        self.exit_from_method()

    def _enter(self, job: execute.Execution, *, is_coroutine: bool = False) -> contextvars.Token[Any]:
        job.context = context.TaskContext(
            execute.task_id(job),
            job.template.name,
            job.template.method,
            attempt=job.attempt,
            actor=self.context,
            key=job,
        )
        job.context.is_canceled = job.is_cancelled
        job.context.is_coroutine = is_coroutine
        return context.current_task.set(job.context)

    def _run_in_thread(self, job: execute.Execution) -> None:
        job.thread = threading.get_ident()
        self._enter(job)
        try:
            self._worker.executor.run(job, self.method(job.template.method))
        except SystemExit as error:
            self.left_from_thread(job, error)
        finally:
            self.finished(job)

    def _spawn(self, job: execute.Execution) -> None:
        if self._is_ending and job not in self._unfinished.values():
            return
        self._async_tasks[job] = self._loop.create_task(self._run_async(job))
        if self._engine.reactor._is_parked:
            self._engine.reactor.poke()

    async def _run_async(self, job: execute.Execution) -> None:
        self._enter(job, is_coroutine=True)
        executor = self._worker.executor
        job.thread = 0
        job.started_s = started = time.time()
        try:
            if job.is_cancelled:
                raise self._cancelled_error
            args, kwargs = executor.arguments_at_hand(job) or await self._arguments_from_thread(job)
            result = self.method(job.template.method)(*args, **kwargs)
            args = kwargs = ()  # type: ignore[assignment]  # let go before looking at what is still held
            if job.template.is_streaming:
                await self._stream_async(job, result, started)
                return
            value = await result
            message, contained = executor._result(job, value)
            lent = executor.lend(job, contained)
            del value, result
        except SystemExit as error:
            self.left_from_thread(job, error)
        except self._cancelled_error as error:
            if job.is_cancelled:
                executor.fail(job, exceptions.TaskCancelledError("cancelled"), started)
            else:
                executor.fail(job, error, started)
        except BaseException as error:  # whatever the user's code raises is its result
            executor.fail(job, error, started)
        else:
            executor.reply(job, message, lent, started)
        finally:
            self.finished(job)
            self._async_tasks.pop(job, None)

    async def _arguments_from_thread(self, job: execute.Execution) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Where some have to be restored or computed again. The loop goes on meanwhile."""
        if self._argument_readers is None:
            from umbel._worker import argument_readers

            limit = self._mailbox.limit_of_coroutines() if self._mailbox is not None else 1
            self._argument_readers = argument_readers.ArgumentReaders(self._worker.executor, limit)
        return await self._argument_readers.read(job)

    async def _stream_async(self, job: execute.Execution, items: Any, started: float) -> None:
        import asyncio

        executor = self._worker.executor
        count = 0
        blob: bytes | None = None
        try:
            async for item in items:
                executor.send_item(job, count, item)
                count += 1
                with self._engine.lock:
                    self._engine._flush()
                while executor._is_held_back(job, count):
                    resumed = asyncio.Event()
                    job.resume = lambda resumed=resumed: self._loop.call_soon_threadsafe(resumed.set)
                    if executor._is_held_back(job, count):
                        await resumed.wait()
                    else:
                        job.resume = None
        except SystemExit:
            raise
        except asyncio.CancelledError as error:
            blob = executor.error_blob(job, exceptions.TaskCancelledError("cancelled") if job.is_cancelled else error)
        except BaseException as error:  # comes after the items, as the stream's last
            blob = executor.error_blob(job, error)
        executor.end_stream(job, count, blob, started)

    # The event loop

    def _run_loop(self) -> None:
        """Serve from the event loop until the actor ends; runs on the main thread."""
        loop, reactor = self._loop, self._engine.reactor
        descriptor = reactor.poller.fileno()

        def readable() -> None:
            if not reactor.poll_now():
                loop.remove_reader(descriptor)  # a waiting thread reads the sockets; it says when it stops
                return
            if not self._is_housekeeping_due:
                self._is_housekeeping_due = True
                loop.call_later(0.005, housekeeping)

        def housekeeping() -> None:
            due = self._engine._housekeeping()
            self._is_housekeeping_due = due is not None
            if due is not None:
                loop.call_later(max(due, 0.005), housekeeping)

        def lead_free() -> None:
            try:
                loop.call_soon_threadsafe(loop.add_reader, descriptor, readable)
            except RuntimeError:  # the loop has closed: the actor ends
                pass

        reactor.driven_by_loop(lambda: bool(self._unfinished), lead_free)
        loop.add_reader(descriptor, readable)
        try:
            loop.run_forever()
        finally:
            loop.remove_reader(descriptor)
        self._worker.leave(0)

    def blocked(self) -> None:
        """A thread waits in `get` or `wait`: told once if it is the event loop's, whose other coroutines stand still."""
        if self._has_warned or threading.get_ident() != self._worker._main_thread:
            return
        if self._loop is not None and self._instance is not None and self._loop.is_running():
            self._has_warned = True
            troubles.coroutine_blocks(self.context.class_name)

    # The end

    def _refuse(self, job: execute.Execution) -> None:
        self._unfinished.pop((job.link, job.seq), None)
        error = exceptions.ActorDiedError(
            f"actor {self.context.class_name} is exiting and takes no more calls", actor_id=self.actor_id
        )
        job.link.post((messages.FAILED, job.seq, exceptions.dump_error(error), None, time.time()))
        self._engine.mark_dirty(job.link)

    def exit_from_method(self) -> None:
        """The actor wants to end: running calls finish, queued ones fail. Raises to leave the method."""
        self._announce_exit("exit_actor() was called")
        raise ActorExit(0)

    def _announce_exit(self, reason: str) -> None:
        with self._engine.lock:
            if self._is_ending:
                return
            self._is_ending = True
            self._engine.agent.notify({"t": "actor_exiting", "actor": self.actor_id, "reason": reason})
            waiting = self._mailbox.close() if self._mailbox is not None else [
                job for job in self._worker._queue if type(job) is execute.Execution
            ]  # fmt: skip
            self._worker._queue.clear()
            for job in waiting:
                self._refuse(job)
            self._engine._flush()

    def left(self, reason: str) -> None:
        """The main thread leaves the process by SystemExit."""
        self._announce_exit(reason)

    def left_from_thread(self, job: execute.Execution, error: SystemExit) -> None:
        """A method of a threaded or async actor called exit_actor or sys.exit(0): the actor ends once the others are
        done. Any other sys.exit is a crash, here and now."""
        if error.code not in (None, 0):
            self._worker.crash(error)
        self._announce_exit(f"sys.exit({error.code!r}) was called in its method {job.template.name}")
        died = exceptions.ActorDiedError(
            f"actor {self.context.class_name} ended by its method {job.template.name}", actor_id=self.actor_id
        )
        self._worker.executor.reply(job, (messages.FAILED, job.seq, exceptions.dump_error(died)), [], time.time())

    def left_from_graph(self, error: SystemExit) -> None:
        """The same for a method that a compiled graph has called, on its own thread."""
        if error.code not in (None, 0):
            self._worker.crash(error)
        self._announce_exit(f"sys.exit({error.code!r}) was called in a method of a compiled graph")
        with self._engine.lock:
            if not self._unfinished:
                self._leave_soon()

    def end(self) -> None:
        """Nobody refers to the actor any more: leave when what was received is done. Lock held."""
        self._is_ending = True
        if self._mailbox is None:
            self._worker.enqueue(self._worker._end)
        elif not self._unfinished:
            self._leave_soon()

    def _leave_soon(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
        else:
            self._worker.enqueue(self._worker._end)


async def _call_on_loop(cls: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Construct while the loop runs, to which the asyncio objects that a constructor makes are bound."""
    return execute.call_user(cls, args, kwargs)


def _ready() -> None:
    """What `__umbel_ready__` runs: nothing; that it ran says the actor is there."""


def _raiser(error: Exception) -> Callable[..., Any]:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    return fail
