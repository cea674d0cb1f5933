"""Actors of the inline engine: their lanes, the calls that wait for them, their names, and how they end and restart.

An actor takes the calls of each caller in the order of submission; one whose arguments are not there yet holds back the
later ones of its caller only. A call that has arrived waits in a group for one of the group's slots: coroutines have
slots of their own, so that a method which blocks does not stop the event loop.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from umbel import exceptions
from umbel._client import actor as actor_api
from umbel._client import context, troubles
from umbel._client.inline import calls, lanes, running, values
from umbel._objects import ownership

if TYPE_CHECKING:
    from umbel._client.inline import loops, registry
    from umbel._client.inline.engine import InlineEngine

ASYNC_CONCURRENCY = 1_000  # coroutines of an actor that does not say; Ray's default
PENDING, ALIVE, RESTARTING, DEAD = "PENDING", "ALIVE", "RESTARTING", "DEAD"
ENDING = "ENDING"  # it wants to end: what runs finishes
EXITING = "EXITING"  # its exit handlers run, the last of its code

_log = logging.getLogger("umbel")


class Group:
    """Slots for calls that run at a time, and the calls that wait for one."""

    __slots__ = ("idle", "limit", "running", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running: set[calls.Call] = set()
        self.waiting: deque[calls.Call] = deque()
        self.idle: list[lanes.Lane] = []


class Actor:
    """One actor. Mutex held around every method that does not say otherwise; none of them waits."""

    def __init__(
        self,
        engine: InlineEngine,
        actors: registry.Registry,
        template: actor_api.ActorTemplate,
        creation: calls.Call,
        namespace: str,
    ) -> None:
        self._engine = engine
        self._registry = actors
        self._baton = engine.baton
        self.actor_id = creation.task_id
        creation.actor = self
        self.template = template
        self.description = template.description
        self.creation = creation
        self.namespace = namespace
        self.name = template.options.name
        self.state = PENDING
        self.instance: Any = None
        self.restarts_left = template.options.max_restarts
        self.restart_count = 0
        self.loop: loops.ActorLoop | None = None
        self.lifetime: ownership.Record | None = None
        self.exit_handlers: list[functools.partial[Any]] = []  # in the order in which they were registered
        self._worker_id = ""  # of this life, once it has begun
        self.session: context.SessionContext
        self.context: context.ActorContext
        self._groups: dict[tuple[str, bool], Group] = {}
        self._by_caller: dict[str, deque[calls.Call]] = {}
        self._pending_counts: dict[str, int] = {}
        self._exit_reason = ""
        self._has_warned = False
        self._leaving: list[calls.Call] = []  # calls that asked the actor to end, and get their answer when it has

    @property
    def label(self) -> str:
        return f"actor {self.description.class_name} ({self.actor_id.hex()})"

    # Life

    def start(self) -> None:
        """Run the constructor, for the first time or again. Its arguments are there."""
        if self.state == DEAD:  # it was killed while they were not
            return
        recipe = self.creation.recipe
        if recipe.in_group is not None and not self._engine.groups.admits(recipe, self.start):
            return
        options = self.template.options
        description = self.description
        default = options.max_concurrency
        self._groups = {
            ("", True): Group(default or ASYNC_CONCURRENCY),
            ("", False): Group((default or 1) if not description.is_async else 1),
        }
        for name, limit in (options.concurrency_groups or {}).items():
            self._groups[name, True] = Group(limit)
            self._groups[name, False] = Group(limit)
        self.session = self._engine.new_session(self.creation.recipe.gpu_count)
        self._worker_id = self.session.worker_id
        self.context = context.ActorContext(
            self.actor_id.hex(),
            description.class_name,
            name=self.name or "",
            namespace=self.namespace,
            resources=options.running_resources.to_floats(),
            is_reconstructed=self.restart_count > 0,
            make_handle=self.weak_handle,
            in_group=recipe.in_group,
        )
        self._engine.tasks.begin(self.creation, self.session)
        try:
            self._start_constructor(self.restart_count)
        except exceptions.UmbelSystemError as error:  # too many lanes
            self.die(values.Failure(error, self.label))
        for caller in list(self._by_caller):
            self.deliver(caller)

    def _start_constructor(self, life: int) -> None:
        if self.description.is_async:
            from umbel._client.inline import loops

            self.loop = loop = loops.ActorLoop(self._baton)
            loop.schedule(lambda: self._construct(life))
            loop.lane = self.creation.lane = self._spawn(lambda: self._serve_loop(loop), "the event loop")
        else:
            self.creation.lane = self._spawn(lambda: self._construct(life), "the constructor")
            self.creation.lane.is_kept = True

    def _spawn(self, job: Callable[[], None], what: str) -> lanes.Lane:
        return self._engine.pool.spawn(job, f"{what} of {self.label}", env_vars=self.creation.recipe.worn)

    def weak_handle(self) -> actor_api.ActorHandle:
        return actor_api.ActorHandle(self.actor_id, self.description, None)

    def _construct(self, life: int) -> None:
        """Runs in the actor's lane or loop, without the mutex."""
        outcome = running.attempt(self._engine, self.creation, lambda *args, **kwargs: self._make(life, args, kwargs))
        with self._engine.mutex:
            if life != self.restart_count or self.state == DEAD:
                return
            if isinstance(outcome, running.Failed):
                self.init_failed(outcome.failure)
            elif isinstance(outcome, running.Left):
                self.left(outcome)
            else:
                self._constructed()

    def _make(self, life: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        made = self.template.cls(*args, **kwargs)
        if life == self.restart_count:
            self.instance = made

    def _constructed(self) -> None:
        self.state = ALIVE
        lane = self.creation.lane
        if lane is not None and not self.description.is_async:
            self._groups["", False].idle.append(lane)
        for group in self._groups.values():
            self._start_waiting(group)
        self._release_creation()

    def _release_creation(self) -> None:
        """The constructor's arguments are kept as long as it may run again; the actor itself only while it runs."""
        pins = self.creation.pins
        if not self.restarts_left:
            self._engine.values.unpin_all(pins)
        elif self.lifetime in pins:
            pins.remove(self.lifetime)
            self._engine.values.unpin_all([self.lifetime])

    def init_failed(self, failure: values.Failure) -> None:
        """The constructor raised, or cannot run."""
        if self.state == DEAD:
            return
        did_run = self.creation.is_started
        what = "its constructor raised" if did_run else "an argument of its constructor could not be computed"
        text = f"{self.label} could not be created: {what}"

        def tell() -> None:  # the user's exception is read outside of the mutex
            error = exceptions.ActorDiedError(
                f"{text}\n{failure.load()}", actor_id=self.actor_id.hex(), actor_init_failed=True
            )
            with self._engine.mutex:
                self.die(values.Failure(error, self.label))

        self.state = ENDING
        self._engine.mutex.later.append(tell)

    def _serve_loop(self, loop: loops.ActorLoop) -> None:
        """Runs in the loop's lane, without the mutex."""
        try:
            loop.serve()
        finally:
            with self._engine.mutex:
                if self.loop is loop and self.state not in (DEAD, ENDING, EXITING):
                    self.left(running.Left("sys.exit() was called in its event loop", is_intended=False))

    def left(self, outcome: running.Left, call: calls.Call | None = None) -> None:
        """Code of the actor asked to end it: it ends when what runs beside has finished, or restarts after a crash."""
        if not outcome.is_intended:
            self._run_exit_handlers(lambda: self.crash(outcome.how, may_restart=True))
            return
        if call is not None:
            self._leaving.append(call)
        self.state = ENDING
        self._exit_reason = f"{outcome.how}; nothing restarts it"
        failure = self._died(f"it ended before the call started: {outcome.how}")
        for waiting in self._take_unstarted():
            self._engine.tasks.fail(waiting, failure)
        self._end_if_quiet()

    def _end_if_quiet(self) -> None:
        if self.state == ENDING and not any(group.running for group in self._groups.values()):
            self._run_exit_handlers(lambda: self.die(self._died(self._exit_reason)))

    def blocked(self, lane: lanes.Lane) -> None:
        """Code of the actor waits in `get` or `wait`: told once if the event loop does, and with it all coroutines."""
        if not self._has_warned and self.state == ALIVE and self.loop is not None and self.loop.lane is lane:
            self._has_warned = True
            self._engine.mutex.later.append(lambda: troubles.coroutine_blocks(self.description.class_name))

    def unreferenced(self) -> None:
        """All handles to it are gone, and so are all calls."""
        self._run_exit_handlers(lambda: self.crash("all handles to it are gone", may_restart=False))

    def _run_exit_handlers(self, then: Callable[[], None]) -> None:
        """Run what the actor has registered with atexit, the last one first, and when that has ended, `then`."""
        handlers, self.exit_handlers = self.exit_handlers, []
        if not handlers or self.state in (EXITING, DEAD):
            then()
            return
        before, self.state = self.state, EXITING

        def run() -> None:
            token = context.current_task.set(self.creation.context)
            try:
                while handlers:
                    _run_exit_handler(handlers.pop(), self.label)
            finally:
                context.current_task.reset(token)
                with self._engine.mutex:
                    if self.state == EXITING:
                        self.state = before
                        then()

        try:
            self._spawn(run, "the exit handlers")
        except exceptions.UmbelSystemError:  # too many lanes
            self.state = before
            then()

    def _died(self, reason: str) -> values.Failure:
        error = exceptions.ActorDiedError(f"{self.label} is dead: {reason}", actor_id=self.actor_id.hex())
        return values.Failure(error, self.label)

    def crash(self, reason: str, *, may_restart: bool) -> None:
        """The actor stops at once. With restarts left a new instance takes over what has not started."""
        if self.state == DEAD:
            return
        if not may_restart or self.restarts_left == 0 or self.state in (ENDING, EXITING):
            self.die(self._died(reason))
            return
        if self.creation.missing:
            return  # nothing runs yet that could stop
        if self.restarts_left > 0:
            self.restarts_left -= 1
        self.restart_count += 1
        self.state = RESTARTING
        started = [call for group in self._groups.values() for call in group.running]
        waiting = [call for group in self._groups.values() for call in group.waiting]
        self._stop_lanes(reason)
        error = exceptions.ActorUnavailableError(
            f"{self.label} restarts: {reason}. The call may have run in part; set max_task_retries to have such calls "
            "repeated",
            actor_id=self.actor_id.hex(),
        )
        failure = values.Failure(error, self.label)
        again: list[calls.Call] = []
        for call in started:
            if call.may_retry():
                call.is_started = False
                call.lane = call.asyncio_task = None
                again.append(call)
            else:
                self._engine.tasks.fail(call, failure)
        self.start()
        for call in (*again, *waiting):
            if not call.is_done:  # one of its own calls may have ended with it
                self._arrived(call)

    def die(self, failure: values.Failure) -> None:
        """The end. Every call that has no result gets the failure, now and later."""
        if self.state == DEAD:
            return
        self.state = DEAD
        unfinished = [call for group in self._groups.values() for call in group.running]
        unfinished += [*self._leaving, *self._take_unstarted()]
        self._stop_lanes("the actor is dead")
        for call in unfinished:
            self._engine.tasks.fail(call, failure)
        self._engine.values.unpin_all(self.creation.pins)
        self._registry.forget(self, failure)

    def _take_unstarted(self) -> list[calls.Call]:
        found = [call for group in self._groups.values() for call in group.waiting]
        found += [call for queue in self._by_caller.values() for call in queue]
        for group in self._groups.values():
            group.waiting.clear()
        self._by_caller.clear()
        return found

    def _stop_lanes(self, reason: str) -> None:
        creating = [] if self.creation.lane is None or self.description.is_async else [self.creation.lane]
        active = {call.lane for group in self._groups.values() for call in group.running if call.asyncio_task is None}
        idle = {lane for group in self._groups.values() for lane in group.idle}
        for lane in idle:
            self._engine.pool.let_go(lane)
        for busy in {*active, *creating} - idle:
            if busy is not None and busy.is_kept:
                busy.is_kept = False
                self._baton.interrupt(busy, lanes.LaneExit(reason))
        if self.loop is not None:
            loop, self.loop = self.loop, None
            if loop.lane is None:  # it never got one
                loop.close()
            elif loop.lane.state is lanes.State.BLOCKED:
                self._baton.interrupt(loop.lane, lanes.LaneExit(reason))
            loop.schedule(loop.stop)
        self.creation.lane = None
        self._groups = {}
        garbage, self.instance = [self.instance], None
        self._engine.mutex.later.append(garbage.clear)  # its destructor is the user's code
        self.exit_handlers.clear()
        ended, self._worker_id = self._worker_id, ""
        if ended:
            self._engine.worker_ended(ended)

    # Calls

    def accept(self, call: calls.Call) -> None:
        """From here on the call counts as pending, until `finished`."""
        call.actor = self
        self._pending_counts[call.caller] = self.pending_count(call.caller) + 1

    def submit(self, call: calls.Call) -> None:
        """A call that may have to wait for its arguments."""
        self._by_caller.setdefault(call.caller, deque()).append(call)
        self.deliver(call.caller)

    def pending_count(self, caller: str) -> int:
        return self._pending_counts.get(caller, 0)

    def deliver(self, caller: str) -> None:
        """Take what may be taken of this caller's calls."""
        queue = self._by_caller.get(caller)
        if not queue or not self._groups:
            return
        if self.description.allow_out_of_order:
            for call in [c for c in queue if not c.missing]:
                queue.remove(call)
                self._arrived(call)
        else:
            while queue and not queue[0].missing:
                self._arrived(queue.popleft())
        if not queue:
            self._by_caller.pop(caller, None)

    def group_of(self, call: calls.Call) -> Group:
        recipe = call.recipe
        return self._groups[recipe.group or "", recipe.is_async]

    def _arrived(self, call: calls.Call) -> None:
        group = self.group_of(call)
        group.waiting.append(call)
        self._start_waiting(group)

    def _start_waiting(self, group: Group) -> None:
        while self.state == ALIVE and group.waiting and len(group.running) < group.limit:
            call = group.waiting.popleft()
            group.running.add(call)
            self._engine.tasks.begin(call, self.session)
            if call.recipe.is_async:
                self._start_coroutine(call)
            else:
                self._start_in_lane(group, call)

    def _start_in_lane(self, group: Group, call: calls.Call) -> None:
        life = self.restart_count

        def run() -> None:
            self._run(group, call, life)

        if group.idle:
            call.lane = lane = group.idle.pop()
            self._engine.pool.assign(lane, run, f"{call.name} of {self.label}")
            return
        try:
            call.lane = lane = self._spawn(run, call.name)
        except exceptions.UmbelSystemError as error:  # too many lanes
            group.running.discard(call)
            self._engine.tasks.fail(call, values.Failure(error, call.name))
        else:
            lane.is_kept = True

    def _run(self, group: Group, call: calls.Call, life: int) -> None:
        """One call, in its lane, without the mutex."""
        method = self._method(call)
        while True:
            outcome = running.attempt(self._engine, call, method)
            if not isinstance(outcome, running.Retry):
                break
        with self._engine.mutex:
            if life != self.restart_count or self.state == DEAD:
                return
            if call.lane is not None:
                group.idle.append(call.lane)
            self._ended(group, call, outcome)

    def _method(self, call: calls.Call) -> Callable[..., Any]:
        method = call.recipe.method
        system = SYSTEM_METHODS.get(method)
        if system is not None:
            return lambda *args, **kwargs: system(self.instance, *args, **kwargs)
        found: Callable[..., Any] = getattr(self.instance, method)
        return found

    def _start_coroutine(self, call: calls.Call) -> None:
        loop = self.loop
        if loop is None:
            raise exceptions.InternalError("an async call has no event loop", actor=self.actor_id.hex())
        call.lane = loop.lane
        loop.schedule(self._create_task, loop, call)

    def _create_task(self, loop: loops.ActorLoop, call: calls.Call) -> None:
        """Runs in the loop, without the mutex."""
        if not call.is_done:
            token = context.current_task.set(call.context)
            try:
                call.asyncio_task = loop.create_task(self._run_async(call, self.restart_count))
            finally:
                context.current_task.reset(token)

    async def _run_async(self, call: calls.Call, life: int) -> None:
        method = self._method(call)
        if call.recipe.method in SYSTEM_METHODS:
            method = _awaited(method)
        while True:
            outcome: running.Outcome
            if call.is_cancelled:
                outcome = running.cancelled(call)
            else:
                outcome = await running.attempt_async(self._engine, call, method)
            if not isinstance(outcome, running.Retry):
                break
        with self._engine.mutex:
            if life == self.restart_count and self.state != DEAD:
                self._ended(self.group_of(call), call, outcome)

    def _ended(self, group: Group, call: calls.Call, outcome: running.Outcome) -> None:
        if isinstance(outcome, running.Left):
            if outcome.is_intended:
                group.running.discard(call)
            self.left(outcome, call)
            return
        group.running.discard(call)
        self._engine.tasks.finish(call, outcome)
        self._start_waiting(group)
        self._end_if_quiet()

    def finished(self, call: calls.Call) -> None:
        """The call has its results."""
        left = self._pending_counts.get(call.caller, 1) - 1
        if left:
            self._pending_counts[call.caller] = left
        else:
            self._pending_counts.pop(call.caller, None)

    def cancel(self, call: calls.Call) -> None:
        """A call that has not started never does, a coroutine is cancelled, another is only told."""
        if not call.is_started:
            self.remove(call)
            self._engine.tasks.finish(call, running.cancelled(call))
            return
        if call.context is not None:
            call.context.is_canceled = True
        if call.asyncio_task is not None and self.loop is not None:
            self.loop.schedule(call.asyncio_task.cancel)

    def remove(self, call: calls.Call) -> None:
        """Forget a call that has not started."""
        queue = self._by_caller.get(call.caller)
        if queue is not None and call in queue:
            queue.remove(call)
            self.deliver(call.caller)
        elif self._groups and call in (group := self.group_of(call)).waiting:
            group.waiting.remove(call)


def _run_exit_handler(handler: Callable[[], Any], label: str) -> None:
    try:
        handler()
    except lanes.LaneExit:
        raise
    except BaseException:  # as atexit does: it is shown, and the others run
        _log.exception("an exit handler of %s failed", label)


def _ready(_instance: Any) -> bool:
    return True


def _terminate(_instance: Any) -> None:
    raise running.ActorExit


def _call(instance: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(instance, *args, **kwargs)


SYSTEM_METHODS: dict[str, Callable[..., Any]] = {
    "__umbel_ready__": _ready,
    "__umbel_terminate__": _terminate,
    "__umbel_call__": _call,
}


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        import inspect

        value = function(*args, **kwargs)
        return await value if inspect.isawaitable(value) else value

    return run
