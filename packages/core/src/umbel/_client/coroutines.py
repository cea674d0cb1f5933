"""Where the coroutine of an asyncio task stands, and what it waits for.

Asked from another thread while the event loop goes on: what is read here may be a moment old, and nothing of it is kept.
What is behind a lock or an event of asyncio's, or a future of somebody else's, is not known.
"""

from __future__ import annotations

import collections
import gc
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any, TypeVar

DEPTH_MAX = 200  # of coroutines that await each other; a deeper recursion repeats itself
_FRAMES = (("cr_frame", "cr_await"), ("ag_frame", "ag_await"), ("gi_frame", "gi_yieldfrom"))
T = TypeVar("T")


def _running_of_wait(variables: Mapping[str, Any]) -> Iterable[Any]:
    """asyncio.wait: what is not done. One of several may be enough; then there is nothing that must come."""
    left = [one for one in variables["fs"] if not one.done()]
    return left if len(left) == 1 or variables["return_when"] == "ALL_COMPLETED" else ()


# What asyncio's own coroutines wait for, of whose futures that for a wake-up says nothing, by function: of its variables.
_HELPERS: dict[str, Callable[[Mapping[str, Any]], Iterable[Any]]] = {
    "wait_for": lambda variables: (variables["fut"],),
    "_wait": _running_of_wait,
    "_aexit": lambda variables: variables["self"]._tasks,  # of a TaskGroup
    "__aexit__": lambda variables: variables["self"]._tasks,
}


def frames(task: Any) -> Iterator[FrameType]:
    """Of the coroutines that await each other, outermost first. Of one that runs at the moment, what its thread has not
    entered since is missing."""
    awaitable = task.get_coro()
    for _ in range(DEPTH_MAX):
        names = _names(awaitable)
        if names is None:  # such as what `async for` makes of a generator, which names it in no attribute
            awaitable = next((one for one in gc.get_referents(awaitable) if _names(one) is not None), None)
            if awaitable is None:
                return
            continue
        frame = getattr(awaitable, names[0])
        if frame is not None:  # else it has ended by now
            yield frame
        awaitable = getattr(awaitable, names[1])


def _names(awaitable: Any) -> tuple[str, str] | None:
    return next((names for names in _FRAMES if hasattr(awaitable, names[0])), None)


def is_running(task: Any) -> bool:
    """Whether the event loop's thread is in it at the moment."""
    return bool(getattr(task.get_coro(), "cr_running", False))


def tasks(task: Any) -> list[Any]:
    """The task itself and those that it waits for, as far as it waits for all of them."""
    found: dict[Any, None] = {task: None}
    for one in _behind(task):
        if hasattr(one, "get_coro"):
            found[one] = None
    return list(found)


def waiting(known: Mapping[Any, Any], besides: Iterable[Any]) -> list[Any]:
    """The asyncio tasks that wait for one of these futures, but for those that wait on behalf of others, and but for some."""
    import asyncio

    every = [task for loop in {future.get_loop() for future in list(known)} for task in asyncio.all_tasks(loop)]
    told = {one for task in besides for one in tasks(task)}
    told |= {one for task in every for one in tasks(task)[1:]}
    return [task for task in every if task not in told and awaited(task, known)]


def awaited(task: Any, known: Mapping[Any, T]) -> list[T]:
    """What the task waits for. known: by the future that is awaited."""
    return [known[one] for one in _behind(task) if one in known]


def _behind(task: Any) -> Iterator[Any]:
    """The futures and tasks, not done, each of which must be before the task goes on."""
    seen: set[Any] = set()
    waiting = [task]
    while waiting:
        one = waiting.pop(0)
        if one in seen or one.done():
            continue
        seen.add(one)
        yield one
        if hasattr(one, "get_coro"):
            waiting += _next(one)
        else:
            waiting += getattr(one, "_children", None) or _shielded(one)  # the first: of asyncio.gather


def _shielded(future: Any) -> Iterator[Any]:
    """What a future of asyncio.shield stands for, which only its callback knows."""
    for callback, *_ in getattr(future, "_callbacks", None) or ():
        if getattr(callback, "__qualname__", "") == "shield.<locals>._outer_done_callback":
            yield inspect.getclosurevars(callback).nonlocals["inner"]


def _next(task: Any) -> Iterable[Any]:
    """What a task is suspended in."""
    future = getattr(task, "_fut_waiter", None)  # a task of somebody else's may have none
    if future is None:
        return ()
    innermost = collections.deque(frames(task), maxlen=1)
    if innermost and innermost[0].f_globals.get("__name__") in ("asyncio.tasks", "asyncio.taskgroups"):
        helper = _HELPERS.get(innermost[0].f_code.co_name)
        if helper is not None:  # asyncio.wait_for may still have what it was given, which is no future
            return [one for one in (*list(helper(innermost[0].f_locals)), future) if hasattr(one, "done")]
    return (future,)
