"""Running the user's code of one call, and judging how it ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple

from umbel import exceptions
from umbel._client import context
from umbel._client.inline import calls, lanes, values

if TYPE_CHECKING:
    from umbel._client.inline.engine import InlineEngine
    from umbel._client.inline.streams import Stream

# What a cancelled task's code may raise; of a child that was cancelled with it, for instance.
_CANCELLED = (KeyboardInterrupt, asyncio.CancelledError, exceptions.TaskCancelledError)


class ActorExit(SystemExit):
    """What `exit_actor()` raises in a method that is no coroutine."""


class Returned(NamedTuple):
    """`results`: one for each return. `item_count`: of a stream. `value` keeps alive what the results refer to."""

    results: list[values.Encoded]
    item_count: int = 0
    value: Any = None


class Failed(NamedTuple):
    failure: values.Failure


class Left(NamedTuple):
    """The code asked to end its worker. is_intended: not a crash."""

    how: str
    is_intended: bool


class Retry(NamedTuple):
    """Run it again."""


Outcome = Returned | Failed | Left | Retry


def attempt(engine: InlineEngine, call: calls.Call, function: Callable[..., Any]) -> Outcome:
    """Run the call once, in its lane. Raises LaneExit when it shall not end by itself."""
    token = context.current_task.set(call.context)
    if call.context is not None:
        call.context.attempt = call.attempt
    try:
        if call.is_cancelled:
            return cancelled(call)
        if call.attempt:
            with engine.baton.turn():
                pass  # a retry lets others go first
        args, kwargs = call.read_arguments()
        if engine.tracing is not None:
            function = engine.tracing.running(function)
        value = function(*args, **kwargs)
        if call.recipe.is_streaming:
            return Returned([], _produce(engine, call, value))
        if call.is_cancelled and call.actor is not None:
            return cancelled(call)  # it saw `is_canceled()` and left early
        return _returned(engine, call, value)
    except lanes.LaneExit:
        raise
    except BaseException as error:
        return _judge(engine, call, error)
    finally:
        context.current_task.reset(token)


async def attempt_async(engine: InlineEngine, call: calls.Call, function: Callable[..., Any]) -> Outcome:
    """Run the call once, in its actor's event loop; `current_task` is set already."""
    if call.context is not None:
        call.context.attempt = call.attempt
    try:
        args, kwargs = call.read_arguments()
        if engine.tracing is not None:
            function = engine.tracing.running(function)
        made = function(*args, **kwargs)
        if call.recipe.is_streaming:
            return Returned([], await _produce_async(engine, call, made))
        return _returned(engine, call, await made)
    except lanes.LaneExit:
        raise
    except BaseException as error:
        return _judge(engine, call, error)


def cancelled(call: calls.Call) -> Failed:
    error = exceptions.TaskCancelledError(f"task {call.name} was cancelled", task_id=call.task_id.hex())
    return Failed(values.Failure(error, call.name))


def interrupt(engine: InlineEngine, call: calls.Call, *, force: bool) -> None:
    """Stop a task that has started, where it waits or calls Umbel next. Mutex held."""
    if force:
        engine.tasks.stop(call, cancelled(call).failure)
    elif call.lane is not None:
        engine.baton.interrupt(call.lane, KeyboardInterrupt("cancelled"))


def _judge(engine: InlineEngine, call: calls.Call, error: BaseException) -> Outcome:
    if isinstance(error, (ActorExit, exceptions.AsyncioActorExit)):
        return Left("exit_actor() was called", is_intended=True)
    if isinstance(error, SystemExit):
        return Left(f"{call.name} called sys.exit({error.code!r})", is_intended=error.code in (None, 0))
    if call.is_cancelled and isinstance(error, _CANCELLED):
        return cancelled(call)
    actor_id = call.actor.actor_id.hex() if call.actor is not None else None
    wrapped = exceptions.UmbelTaskError.from_exception(
        error, call.name, pid=os.getpid(), task_id=call.task_id.hex(), actor_id=actor_id
    )
    failure = values.Failure(wrapped, call.name)
    retries_left = call.retries_left
    if call.retries_error(error) and call.may_retry():
        with engine.mutex:
            engine.values.troubles.retried(call.name, retries_left, failure.blob())
        return Retry()
    return Failed(failure)


def _returned(engine: InlineEngine, call: calls.Call, value: Any) -> Outcome:
    """Raises what `_results` raises."""
    if isinstance(value, GeneratorType):
        return _generated(engine, call, value)
    return Returned(_results(call, value), value=value)


def _results(call: calls.Call, value: Any) -> list[values.Encoded]:
    """Raises ValueError when the value does not fit the number of returns, TypeError when it cannot be pickled."""
    count = call.recipe.num_returns
    if count == 1:
        return [values.encode(value)]
    if count == 0:
        return []
    try:
        items = list(value)
    except TypeError:
        raise ValueError(
            f"{call.name} has num_returns={count} and must return as many values, got one {type(value).__name__}; "
            "return a tuple, or change num_returns"
        ) from None
    if len(items) != count:
        raise ValueError(
            f"{call.name} has num_returns={count}, got {len(items)} values; return as many, or change num_returns"
        )
    return [values.encode(item) for item in items]


def _generated(engine: InlineEngine, call: calls.Call, items: Generator[Any, Any, Any]) -> Outcome:
    """The results that a generator yields, as many as asked for; from where it fails or ends on, the error."""
    wanted = call.recipe.num_returns
    encoded: list[values.Encoded] = []
    try:
        for item in items:
            if len(encoded) == wanted:
                raise ValueError(
                    f"{call.name} yields more than num_returns={wanted} values; ask for as many, or use "
                    "num_returns='streaming'"
                )
            encoded.append(values.encode(item))
        if len(encoded) < wanted:
            raise ValueError(
                f"{call.name} has num_returns={wanted}, got {len(encoded)} values; yield as many, or change num_returns"
            )
    except lanes.LaneExit:
        raise
    except BaseException as error:
        outcome = _judge(engine, call, error)
        if not isinstance(outcome, Failed):
            return outcome
        if len(encoded) == wanted:
            with engine.mutex:
                engine.values.troubles.lost(call.name, outcome.failure.blob())
        encoded += [outcome.failure.encoded()] * (wanted - len(encoded))
    finally:
        items.close()
    return Returned(encoded)


def _produce(engine: InlineEngine, call: calls.Call, generator: Generator[Any, Any, Any]) -> int:
    """Run a generator to its end, as far ahead of the reader as it may. Returns how many items there were."""
    stream = _stream_of(call)
    index = 0
    try:
        for item in generator:
            encoded = values.encode(item)
            with engine.baton.turn() as lane:
                with engine.mutex:
                    stream.add(index, encoded)
                _wait_for_room(engine, stream, index, lane)
            index += 1
    finally:
        generator.close()
    return index


def _wait_for_room(engine: InlineEngine, stream: Stream, index: int, lane: lanes.Lane) -> None:
    baton = engine.baton
    while True:
        with engine.mutex:
            if stream.has_room(index):
                return
            stream.on_taken = lambda: baton.wake(lane)
            baton.give_up(lane, lambda depth: f"the reader of {stream.call.name} to take an item")
        baton.park(lane)
        baton.check_interrupt(lane)


async def _produce_async(engine: InlineEngine, call: calls.Call, generator: AsyncIterator[Any]) -> int:
    stream = _stream_of(call)
    loop = asyncio.get_running_loop()
    taken = asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(taken.set)

    def on_taken() -> None:
        engine.mutex.later.append(wake)

    index = 0
    async for item in generator:
        encoded = values.encode(item)
        with engine.baton.turn(), engine.mutex:
            stream.add(index, encoded)
        await asyncio.sleep(0)  # so that a generator that awaits nothing can be cancelled
        while True:
            taken.clear()
            with engine.mutex:
                if stream.has_room(index):
                    break
                stream.on_taken = on_taken
            await taken.wait()
        index += 1
    return index


def _stream_of(call: calls.Call) -> Stream:
    if call.stream is None:
        raise exceptions.InternalError("a call that streams has no stream", task=call.task_id.hex())
    return call.stream
