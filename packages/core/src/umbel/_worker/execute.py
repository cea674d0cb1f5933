"""Running one task or call: its arguments, the user's code, its results.

`Execution` is what arrived and how to answer it. Everything here runs on the thread that executes, without the engine's
lock except where it says so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from types import GeneratorType
from typing import Any

from umbel import exceptions
from umbel._base import tracebacks
from umbel._client import answers, context, links, native, values
from umbel._model import options as option_model
from umbel._model import reasons
from umbel._model.reasons import Reason
from umbel._objects import ownership, serialization
from umbel._transport import reactor
from umbel._wire import messages

RECENT_MAX = 512  # results kept for tasks sent behind them; twice what an owner keeps in flight at one worker
RECENT_BYTES_MAX = 1_024  # of one such result: half a megabyte in all for each owner
FLUSH_AFTER_S = 0.0005  # a reply may wait so long for others to share its frame while more tasks are at hand
ARGUMENT_TRIES_MAX = 3  # each waits until nothing moves; those who find no room even then never will
RAW, ERROR = serialization.RAW, serialization.ERROR
_NO_DURATION = None


class Template:
    """What the owner has announced of a function or method."""

    __slots__ = (
        "backpressure",
        "calls",
        "digest",
        "flush",
        "function",
        "function_name",
        "group",
        "in_group",
        "is_streaming",
        "lane",
        "max_calls",
        "method",
        "name",
        "num_returns",
        "resources",
        "tensor_transport",
        "threads",
    )  # fmt: skip

    def __init__(self, facts: dict[str, Any]) -> None:
        self.name: str = facts["name"]
        self.method: str = facts.get("method", "")
        self.function_name: str = facts.get("function") or self.method or self.name
        self.digest: bytes = facts.get("digest", b"")
        self.num_returns: int = facts["num_returns"]
        self.is_streaming: bool = facts["is_streaming"]
        self.backpressure: int = facts["backpressure"]
        self.group: str | None = facts.get("group")
        self.tensor_transport: str | None = facts.get("tensor_transport")
        self.max_calls: int = facts.get("max_calls", 0)
        self.flush: bool = facts.get(
            "flush", False
        )  # answer before the next task starts: a crash must not take it along
        self.resources = {name: units / 10_000 for name, units in facts.get("resources", {}).items()}
        self.in_group = in_group(facts.get("strategy"))
        self.threads = threads_of(self.resources)
        self.function: Callable[..., Any] | None = None
        self.calls = 0
        # Of a threaded or async actor, once called: the concurrency group of the calls, and whether they are coroutines.
        self.lane: Any = None


def in_group(strategy: Any) -> option_model.InGroup | None:
    """The placement group in which what was announced with this strategy is to run."""
    if not isinstance(strategy, dict) or "placement_group" not in strategy:
        return None
    return option_model.InGroup(strategy["placement_group"], strategy["bundle_index"], captures=strategy["captures"])


def threads_of(resources: Mapping[str, float]) -> str:
    """How many threads numerical libraries shall use by default: one for each CPU held, so that tasks that run side by
    side do not fight for them."""
    return str(max(1, int(resources.get("CPU", 1))))


def task_id(job: Execution) -> str:
    seq: int = job.seq
    return (job.link.peer + seq.to_bytes(8, "big")).hex()


def running(job: Execution, thread: int, coroutine: Any = None) -> answers.Running:
    """What is told of a task or call that runs."""
    why = _held_back(job) if job.resume is not None else None
    return answers.Running(task_id(job), job.template.name, job.started_s, thread, coroutine, why)


def _held_back(job: Execution) -> Reason:
    """Why a producer waits whose reader is to take an item first."""
    unread, reader = job.template.backpressure, job.link.peer.hex()
    return Reason(
        reasons.READER,
        "it",
        f"waits for its reader, process {reader[:8]}: {unread} of {unread} items that it may be ahead are unread",
        "read on, drop the generator, or raise _generator_backpressure_num_objects",
        {"reader": reader, "unread": unread},
    )


class InputNotHere(Exception):
    """A task was sent ahead of an argument whose value this worker does not have: it failed, or is large or old."""


class ArgumentFailed(Exception):
    """An argument was lost, or the tensors in it, and this is what it ended with instead of a value."""

    def __init__(self, blob: bytes) -> None:
        super().__init__()
        self.blob = blob


class Execution:
    """One task or call, from its arrival to its reply."""

    __slots__ = (
        "argument_ids",
        "attempt",
        "consumed",
        "context",
        "deps",
        "depth",
        "interrupted_at_seq",
        "is_cancelled",
        "is_cancelled_with_children",
        "kind",
        "link",
        "passed",
        "payload",
        "resume",
        "seq",
        "started_s",
        "template",
        "thread",
    )  # fmt: skip

    @property
    def in_group(self) -> option_model.InGroup | None:
        return self.template.in_group

    started_s: float  # time.time(), once it runs
    thread: int  # which one runs it, of an actor that has several

    def __init__(self, link: links.Link, message: tuple[Any, ...], template: Template) -> None:
        _, self.seq, _, self.kind, self.payload, self.deps, self.attempt = message
        self.link = link
        self.depth = link.depth
        self.template = template
        self.argument_ids: list[bytes] = []
        self.passed: list[ownership.Record] = []  # the receiver's own objects in a result that has not left yet
        self.is_cancelled = False
        self.is_cancelled_with_children = False
        self.interrupted_at_seq = 0  # of what this process had submitted when the cancellation was raised
        self.consumed = 0  # items of a stream that the reader has taken
        self.resume: Callable[[], None] | None = None  # wakes a producer held back by backpressure
        self.context: context.TaskContext | None = None


class Executor:
    """Runs executions for one worker process."""

    def __init__(self, engine: native.NativeEngine) -> None:
        self._engine = engine
        self._values = engine.values
        self.last_flush_s = 0.0

    # Arguments

    def arguments(self, job: Execution) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The values to call with. References inside are noted in `job.argument_ids`.

        Where the store has no room for all of them, several tasks may each hold what another waits for: then this one
        lets go of its own and begins anew.
        """
        for _ in range(ARGUMENT_TRIES_MAX - 1):
            try:
                return self._arguments(job)
            except exceptions.ObjectStoreFullError as error:
                tracebacks.drop(error)  # they hold what was read
                job.argument_ids.clear()
        return self._arguments(job)

    def arguments_at_hand(self, job: Execution) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """As `arguments`, for who must not wait; None if one of them has to be restored or computed again."""
        try:
            return self._arguments(job, waits=False)
        except (values.ValueLost, exceptions.ObjectStoreFullError) as error:
            tracebacks.drop(error)  # they hold what was read
            job.argument_ids.clear()
            return None

    def _arguments(self, job: Execution, *, waits: bool = True) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kind, payload, deps = job.kind, job.payload, job.deps
        if deps is None:
            if kind == messages.ARGS:
                return payload, {}
            if kind == messages.ARGS_KWARGS:
                return payload[0], payload[1]
        ids = job.argument_ids
        read = self._values.read
        whole: Any = None
        if kind == messages.ARGS_OBJECT:
            _, object_id, dep_kind, dep_payload = deps[0]
            ids.append(object_id)
            whole = self._read_argument(dep_kind, dep_payload, object_id, ids, waits=waits)
            deps = deps[1:]
        elif kind == messages.ARGS:
            whole = payload, {}
        elif kind == messages.ARGS_KWARGS:
            whole = payload
        else:
            whole = read(kind, payload, b"", None, ids)
        args, kwargs = whole
        if deps:
            positional = list(args)
            kwargs = dict(kwargs)  # what is read must not stay in the payload if this has to begin anew
            for key, object_id, dep_kind, dep_payload in deps:
                if dep_kind == messages.AWAITED:
                    known = job.link.recent.get(dep_payload)  # another thread may let go of it meanwhile
                    if known is None:
                        raise InputNotHere
                    dep_kind, dep_payload = known
                ids.append(object_id)
                value = self._read_argument(dep_kind, dep_payload, object_id, ids, waits=waits)
                if type(key) is int:
                    positional[key] = value
                else:
                    kwargs[key] = value
            args = tuple(positional)
        job.payload = job.deps = None
        return args, kwargs

    def _read_argument(self, kind: int, payload: Any, object_id: bytes, ids: list[bytes], *, waits: bool) -> Any:
        while True:
            try:
                return self._values.read(kind, payload, object_id, None, ids, waits=waits)
            except values.ValueLost as lost:
                if not waits:
                    raise
                kind, payload = self._values.found_again(lost)
                if kind == ERROR:
                    raise ArgumentFailed(payload) from None
            except exceptions.ObjectLostError as error:  # the tensors in it are
                raise ArgumentFailed(exceptions.dump_error(error)) from None

    # Running

    def run(self, job: Execution, function: Callable[..., Any]) -> None:
        """Call `function` with the job's arguments and send what comes of it. Raises nothing but SystemExit."""
        job.started_s = started = time.time()
        try:
            args, kwargs = self.arguments(job)
            value = call_user(function, args, kwargs)
            args = kwargs = ()  # type: ignore[assignment]  # let go before looking at what is still held
            if job.template.is_streaming:
                self._stream(job, value, started)
                return
            if job.is_cancelled and job.template.method:
                raise exceptions.TaskCancelledError  # it saw `is_canceled()` and left early
            message, contained = self._result(job, value)
            awaited = self.lend(job, contained)
            if not contained and message[0] == messages.REPLY and len(message) == 5:
                self._remember(job, message[2], message[3])
            value = None
        except SystemExit:
            raise
        except InputNotHere:
            self._post(job.link, (messages.UNSTARTED, [job.seq], False))
            return
        except BaseException as error:  # whatever the user's code raises is its result, cancellation included
            args = kwargs = value = ()  # type: ignore[assignment]
            self.fail(job, error, started)
            return
        self.reply(job, message, awaited, started)

    @staticmethod
    def _remember(job: Execution, kind: int, payload: Any) -> None:
        """Keep a small result for a task that its owner may have sent behind this one."""
        if kind != RAW and (kind != serialization.PICKLE or len(payload) > RECENT_BYTES_MAX):
            return
        recent = job.link.recent
        recent[job.seq] = (kind, payload)
        if len(recent) > RECENT_MAX:
            recent.popitem(last=False)  # in one step, as other threads of an actor do the same

    def lend(self, job: Execution, contained: tuple[bytes, ...]) -> list[bytes]:
        """Have the receiver's borrows of references in a result entered, while the value still holds them. Returns
        those whose acknowledgement the reply must wait for."""
        if not contained:
            return []
        with self._engine.lock:
            if job.link.stream is None or job.link.stream.is_closed:
                return []  # nobody is there to give the borrows back
            table, receiver = self._values.table, job.link.peer
            awaited = table.lend_result(contained, receiver, time.monotonic())
            for object_id in contained:
                if table.owner_of(object_id) == receiver:
                    # Nothing has to be entered, but giving back our borrow must not overtake the result.
                    record = table.records[object_id]
                    table.pin(record)
                    job.passed.append(record)
            self._values.carry_out()
        return awaited

    def _result(self, job: Execution, value: Any) -> tuple[tuple[Any, ...], tuple[bytes, ...]]:
        template = job.template
        if template.num_returns == 1:
            if serialization.is_raw(value):
                return (messages.REPLY, job.seq, RAW, value, None), ()
            if type(value) is GeneratorType:
                return self._generated(job, value)
            if template.tensor_transport is None:
                kind, payload, contained = self._values.encode(value, job.link.peer)
            else:
                holder = self._engine.tensor_holder()
                (kind, payload, contained), record = holder.encode(value, template.tensor_transport, job.link.peer)
                if record is not None:
                    job.passed.append(record)  # until the receiver's borrow is entered
            return (messages.REPLY, job.seq, kind, payload, contained or None), contained
        if type(value) is GeneratorType:
            return self._generated(job, value)
        if template.num_returns == 0:
            return (messages.REPLY, job.seq, RAW, None, None), ()
        values = self._several(template, value)
        encoded = [self._values.encode(item, job.link.peer) for item in values]
        contained = tuple(object_id for _, _, inner in encoded for object_id in inner)
        return (messages.REPLY_MANY, job.seq, encoded), contained

    def _generated(self, job: Execution, items: Generator[Any, Any, Any]) -> tuple[tuple[Any, ...], tuple[bytes, ...]]:
        """The results that a generator yields, as many as asked for; from where it fails or ends on, the error."""
        name, wanted = job.template.name, job.template.num_returns
        encoded: list[tuple[int, Any, tuple[bytes, ...]]] = []
        failure: BaseException | None = None
        try:
            for item in iterate(items):
                if len(encoded) == wanted:
                    failure = ValueError(
                        f"{name} yields more than num_returns={wanted} values; ask for as many, or use "
                        "num_returns='streaming'"
                    )
                    items.close()
                    break
                encoded.append(self._values.encode(item, job.link.peer))
            else:
                if len(encoded) < wanted:
                    failure = ValueError(
                        f"{name} has num_returns={wanted}, got {len(encoded)} values; yield as many, or change "
                        "num_returns"
                    )
        except SystemExit:
            raise
        except BaseException as error:
            failure = error
        if failure is not None:
            blob = self.error_blob(job, failure)
            if len(encoded) < wanted:
                encoded += [(ERROR, blob, ())] * (wanted - len(encoded))
            else:
                with self._engine.lock:
                    self._engine.troubles.lost(name, blob)
        contained = tuple(object_id for _, _, inner in encoded for object_id in inner)
        return (messages.REPLY_MANY, job.seq, encoded), contained

    @staticmethod
    def _several(template: Template, value: Any) -> list[Any]:
        try:
            values = list(value)
        except TypeError:
            raise ValueError(
                f"{template.name} has num_returns={template.num_returns} and must return as many values, got "
                f"one {type(value).__name__}; return a tuple, or change num_returns"
            ) from None
        if len(values) != template.num_returns:
            raise ValueError(
                f"{template.name} has num_returns={template.num_returns}, got {len(values)} values; return as "
                f"many, or change "
                "num_returns"
            )
        return values

    def _stream(self, job: Execution, value: Any, started: float) -> None:
        count = 0
        blob: bytes | None = None
        try:
            for item in iterate(value):
                self.send_item(job, count, item)
                count += 1
                if self._is_held_back(job, count):
                    self._wait_for_reader(job, count)
                if job.is_cancelled and not job.template.method:
                    raise KeyboardInterrupt  # the signal may have found us between two items
        except SystemExit:
            raise
        except BaseException as error:
            blob = self.error_blob(job, error)
        finally:
            value = None
        self.end_stream(job, count, blob, started)

    def send_item(self, job: Execution, index: int, item: Any) -> None:
        kind, payload, contained = self._values.encode(item, job.link.peer)
        awaited = self.lend(job, contained)
        if awaited:
            waiter = reactor.Waiter()
            with self._engine.lock:
                self._values.when_acknowledged(awaited, waiter.finish)
                self._engine._flush()
            self._engine.waits.wait_for(waiter, None)
        self._answer(job, (messages.ITEM, job.seq, index, kind, payload, contained or None))
        self.flush_soon()

    def end_stream(self, job: Execution, count: int, blob: bytes | None, started: float) -> None:
        self.reply(job, (messages.END, job.seq, count, blob), [], started)

    @staticmethod
    def _is_held_back(job: Execution, count: int) -> bool:
        limit = job.template.backpressure
        return limit > 0 and count - job.consumed >= limit

    def _wait_for_reader(self, job: Execution, count: int) -> None:
        while True:
            with self._engine.lock:
                if not self._is_held_back(job, count):
                    return
                waiter = reactor.Waiter()
                job.resume = waiter.finish
                self._engine._flush()
            self._engine.waits.wait_for(waiter, None)

    # Answers

    def fail(self, job: Execution, error: BaseException, started: float) -> None:
        self.reply(job, (messages.FAILED, job.seq, self.error_blob(job, error)), [], started)

    def error_blob(self, job: Execution, error: BaseException) -> bytes:
        """The error as it travels."""
        if job.is_cancelled and isinstance(error, (KeyboardInterrupt, exceptions.TaskCancelledError)):
            tracebacks.drop(error)  # else a reference in them is one to enter, by an owner who may not answer
            return exceptions.dump_error(
                exceptions.TaskCancelledError(f"task {job.template.name} was cancelled while it ran")
            )
        running = job.context
        actor_id = running.actor.actor_id if running is not None and running.actor is not None else None
        if isinstance(error, ArgumentFailed):
            tracebacks.drop(error)  # likewise
            name = job.template.name
            return exceptions.dump_failed_input(error.blob, name, task_id=task_id(job), actor_id=actor_id)
        try:
            wrapped = exceptions.UmbelTaskError.from_exception(
                error,
                job.template.name,
                pid=os.getpid(),
                task_id=running.task_id if running is not None else None,
                actor_id=actor_id,
            )
            tracebacks.drop(error)
            return exceptions.dump_error(wrapped)
        except KeyboardInterrupt as interrupt:  # pickling runs the error's own code, which may call us
            tracebacks.drop(error)
            if not job.is_cancelled:
                raise
            return self.error_blob(job, interrupt)

    def reply(self, job: Execution, message: tuple[Any, ...], lent: list[bytes], started: float) -> None:
        """Send the answer, once the borrows it brings with it are known to the owners. `lent`: see `lend`."""
        ended = time.time()
        message = (*message, ended - started, ended)
        if not job.argument_ids and not lent:
            self._answer(job, message)
            return
        engine, objects = self._engine, self._values
        with engine.lock:
            objects.drain_drops()
            submitter = job.link.peer
            is_fifo = engine.links.by_peer.get(submitter) is job.link  # else a BORROW could be overtaken by the reply
            awaited = objects.table.task_ended(job.argument_ids, submitter if is_fifo else b"")
            awaited += lent
            objects.carry_out()
            engine._flush()
            if awaited:
                objects.when_acknowledged(awaited, lambda: self._answer(job, message))
                return
        self._answer(job, message)

    def _answer(self, job: Execution, message: tuple[Any, ...]) -> None:
        self._post(job.link, message)
        if job.passed:
            with self._engine.lock:
                passed, job.passed = job.passed, []
                for record in passed:
                    self._values.table.unpin(record)
                self._values.carry_out()

    def _post(self, link: links.Link, message: tuple[Any, ...]) -> None:
        engine = self._engine
        with engine.lock:
            if link.stream is None or link.stream.is_closed:
                self._values.not_sent(messages.results_in(message))
                return
            link.outbox.append(message)
            engine.dirty_links.add(link)

    def flush(self) -> None:
        """Send what was posted."""
        self.last_flush_s = time.monotonic()
        with self._engine.lock:
            self._engine._flush()

    def flush_soon(self) -> None:
        """Send what was posted, unless the last time was a moment ago: then the background thread does it, within
        a tick."""
        if time.monotonic() - self.last_flush_s > FLUSH_AFTER_S:
            self.flush()
        else:
            self._engine.reactor.nudge()


def call_user(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the user's code. Everything above this frame is his, as far as interrupting it goes."""
    return function(*args, **kwargs)


def iterate(value: Any) -> Iterator[Any]:
    """Iterate over what a generator function returned; the user's code runs inside."""
    if not hasattr(value, "__iter__"):
        raise TypeError(f"a streaming task must return an iterator, got {type(value).__name__}; use 'yield'")
    iterator = iter(value)
    while True:
        try:
            item = call_user(next, (iterator,), {})
        except StopIteration:
            return
        yield item
