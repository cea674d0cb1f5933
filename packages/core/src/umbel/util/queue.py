"""A first-in-first-out queue that any task, actor or driver holding it can use.

The items are held by one actor; a `Queue` is a handle to it, so it may be passed around and pickled. Items are copied
in, and an item that is itself a reference arrives as its value.
"""

from __future__ import annotations

import asyncio
import math
import queue
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import umbel

# Each caller that waits in `get` or `put` takes one of the actor's concurrent calls; were they used up by getters, no
# put could ever free them. A waiting coroutine costs the actor a few kilobytes.
WAITING_CALLERS_MAX = 10_000
SHUTDOWN_GRACE_S = 5


class Empty(queue.Empty):
    """There was no item (in time)."""


class Full(queue.Full):
    """There was no room (in time)."""


class _QueueActor:
    """Holds the items. All methods are coroutines of one event loop, which is what makes each step atomic."""

    def __init__(self, maxsize: int) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def qsize(self) -> int:
        return self._items.qsize()

    async def put(self, item: Any, is_blocking: bool, timeout_s: float | None) -> bool:
        """Whether there was room."""
        if not self._items.full():
            self._items.put_nowait(item)
            return True
        if not is_blocking:
            return False
        try:
            await asyncio.wait_for(self._items.put(item), timeout_s)
        except asyncio.TimeoutError:
            return False
        return True

    async def get(self, is_blocking: bool, timeout_s: float | None) -> tuple[Any, ...]:
        """The item in a tuple, so that None and references stay what they are; () when there was none."""
        if not self._items.empty():
            return (self._items.get_nowait(),)
        if not is_blocking:
            return ()
        try:
            return (await asyncio.wait_for(self._items.get(), timeout_s),)
        except asyncio.TimeoutError:
            return ()

    async def put_batch(self, items: Sequence[Any]) -> int | None:
        """All or none; None when they fit, otherwise how many there is room for."""
        room = self._items.maxsize - self._items.qsize()
        if self._items.maxsize > 0 and len(items) > room:
            return room
        for item in items:
            self._items.put_nowait(item)
        return None

    async def get_batch(self, count: int) -> tuple[int, list[Any]]:
        """How many items there were, and `count` of them, or none if there were fewer."""
        held = self._items.qsize()
        return held, [self._items.get_nowait() for _ in range(count)] if held >= count else []


class Queue:
    """`maxsize` items at most; 0 or less means no bound. `actor_options` go to the actor that holds the items.

    The queue lives as long as a handle to it does. Up to 10,000 callers may wait at a time, unless
    `actor_options={"max_concurrency": n}` says otherwise.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be an int (0 for no bound), got {maxsize!r}")
        if actor_options is not None and not isinstance(actor_options, Mapping):
            raise TypeError(
                f"actor_options must be a dict of an actor's options, got {actor_options!r}; for example "
                "{'num_cpus': 1}, or omit it"
            )
        options = {"max_concurrency": WAITING_CALLERS_MAX, **(actor_options or {})}
        self.maxsize = maxsize
        self.actor: Any = umbel.remote(_QueueActor).options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.qsize()

    def size(self) -> int:
        """As `qsize`."""
        return self.qsize()

    def qsize(self) -> int:
        """How many items are held; others may change it before the answer is here."""
        count: int = umbel.get(self._open().qsize.remote())
        return count

    def empty(self) -> bool:
        return self.qsize() == 0

    def full(self) -> bool:
        return 0 < self.maxsize <= self.qsize()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item, waiting for room up to `timeout` seconds (None: forever). Raises Full."""
        _check_timeout(timeout)
        if not umbel.get(self._open().put.remote(item, block, timeout)):
            raise Full(self._no_room(block, timeout))

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """`put` for coroutines."""
        _check_timeout(timeout)
        if not await self._open().put.remote(item, block, timeout):
            raise Full(self._no_room(block, timeout))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Remove the oldest item, waiting for one up to `timeout` seconds (None: forever). Raises Empty."""
        _check_timeout(timeout)
        return _item(umbel.get(self._open().get.remote(block, timeout)), block, timeout)

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """`get` for coroutines."""
        _check_timeout(timeout)
        return _item(await self._open().get.remote(block, timeout), block, timeout)

    def put_nowait(self, item: Any) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all items in one step. Raises Full, and adds none, when not all fit."""
        if not isinstance(items, Iterable):
            raise TypeError(f"items must be an iterable, got {items!r}")
        batch = list(items)
        room = umbel.get(self._open().put_batch.remote(batch))
        if room is not None:
            raise Full(f"{len(batch)} items do not fit: the queue of maxsize {self.maxsize} has room for {room}")

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Remove the `num_items` oldest items in one step. Raises Empty, and removes none, when there are fewer."""
        if isinstance(num_items, bool) or not isinstance(num_items, int):
            raise TypeError(f"num_items must be an int, got {num_items!r}")
        if num_items < 0:
            raise ValueError(f"num_items must be at least 0, got {num_items}")
        held, batch = umbel.get(self._open().get_batch.remote(num_items))
        if held < num_items:
            raise Empty(f"{num_items} items were asked for, but the queue holds {held}")
        return list(batch)

    def shutdown(self, force: bool = False, grace_period_s: float = SHUTDOWN_GRACE_S) -> None:
        """End the actor, and the items with it; callers that wait get ActorDiedError.

        Unless `force`, calls that it has accepted and that need not wait are carried out first, within
        `grace_period_s` seconds. This handle is closed afterwards; closing again does nothing.
        """
        actor, self.actor = self.actor, None
        if actor is None:
            return
        if not force:
            umbel.wait([actor.__umbel_terminate__.remote()], timeout=grace_period_s)
        umbel.kill(actor, no_restart=True)  # for those who wait, whom termination would let wait on

    def _open(self) -> Any:
        if self.actor is None:
            raise ValueError("the queue was shut down through this handle; make a new Queue")
        return self.actor

    def _no_room(self, block: bool, timeout: float | None) -> str:
        return f"the queue of maxsize {self.maxsize} is full{_waited(block, timeout)}"


def _item(found: tuple[Any, ...], block: bool, timeout: float | None) -> Any:
    if not found:
        raise Empty(f"the queue is empty{_waited(block, timeout)}")
    return found[0]


def _waited(block: bool, timeout: float | None) -> str:
    return f", also after {timeout} s" if block else ""


def _check_timeout(timeout: float | None) -> None:
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or math.isnan(timeout):
        raise TypeError(f"timeout must be a number of seconds or None, got {timeout!r}; omit it to wait for ever")
    if timeout < 0:
        raise ValueError(f"timeout must be at least 0 seconds or None, got {timeout!r}")
