"""Functions of the user's that are asynchronous.

Coroutines of one task run at once, `CONCURRENT_CALLS` of them, and their results keep the order of what went in. Of an
asynchronous generator at most `ITEMS_AHEAD` items wait to be taken: one that never ends is as good as any other.
"""

from __future__ import annotations

import asyncio
import collections
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from umbel.data._plan import calls

CONCURRENT_CALLS: Final = 16  # of a task: enough to hide a request's round trip, few enough to bound memory
ITEMS_AHEAD: Final = 2  # of each asynchronous generator: the next is made while one is worked on

_END: Final = object()


def outcomes(call: Callable[[Any], Any], first: Any, others: Iterator[Any]) -> Iterator[calls.Outcome]:
    """The outcome of the first result, and those of the calls for all others, which are asynchronous as well."""
    loop = asyncio.new_event_loop()
    pending: collections.deque[tuple[asyncio.Task[Any] | None, calls.Outcome]] = collections.deque()

    def begin(result: Any) -> None:
        if isinstance(result, AsyncIterator):
            items: asyncio.Queue[Any] = asyncio.Queue(ITEMS_AHEAD)
            pump = loop.create_task(_pumped(result, items))
            pending.append((pump, lambda: _drained(loop, pump, items)))
        elif inspect.isawaitable(result):
            task = loop.create_task(_ended(result))
            pending.append((task, lambda: loop.run_until_complete(task)))
        else:
            pending.append((None, lambda: result))

    begin(first)
    try:
        for value in others:
            try:
                begin(call(value))
            except Exception as error:
                pending.append((None, calls.raises(error)))
            if len(pending) == CONCURRENT_CALLS:
                yield pending[0][1]
                pending.popleft()
        while pending:
            yield pending[0][1]
            pending.popleft()
    finally:
        tasks = [task for task, _ in pending if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _ended(result: Any) -> Any:
    return await result


async def _pumped(source: AsyncIterator[Any], items: asyncio.Queue[Any]) -> None:
    try:
        async for one in source:
            await items.put(one)
    finally:
        if not items.full():
            items.put_nowait(_END)


def _drained(loop: asyncio.AbstractEventLoop, pump: asyncio.Task[None], items: asyncio.Queue[Any]) -> Iterator[Any]:
    while not (pump.done() and items.empty()):
        next_item = loop.create_task(items.get())
        loop.run_until_complete(asyncio.wait([pump, next_item], return_when=asyncio.FIRST_COMPLETED))
        if not next_item.done():
            next_item.cancel()
            loop.run_until_complete(asyncio.wait([next_item]))
            continue
        one = next_item.result()
        if one is not _END:
            yield one
    pump.result()  # raises what it raised
