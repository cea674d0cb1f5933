"""Where a coroutine stands and what it waits for, read from outside of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from umbel._client import awaits, coroutines
from umbel._objects import ownership

Futures = list["asyncio.Future[None]"]


async def through_a_generator(future: Any) -> None:
    async def items() -> AsyncIterator[None]:
        yield await future

    async for _ in items():
        pass


async def through_tasks(futures: Futures) -> None:
    await asyncio.create_task(through_a_generator(asyncio.gather(*futures)))


async def within_a_group(futures: Futures) -> None:
    async with asyncio.TaskGroup() as group:
        for future in futures:
            group.create_task(through_a_generator(future))


async def all_in_time(futures: Futures) -> None:
    await asyncio.wait_for(asyncio.gather(*futures), 60)


async def shielded(futures: Futures) -> None:
    await asyncio.gather(asyncio.shield(futures[0]), asyncio.shield(through_a_generator(futures[1])))


async def all_of(futures: Futures) -> None:
    await asyncio.wait(futures)


async def one_of(futures: Futures) -> None:
    await asyncio.wait(futures, return_when="FIRST_COMPLETED")


async def none_of(_futures: Futures) -> None:
    await asyncio.sleep(60)


def suspended(
    waits: Callable[[Futures], Awaitable[None]], look: Callable[[Any, Futures], None], count: int = 2
) -> None:
    """Look at a task that waits for some of as many futures."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(count)]
        task = asyncio.ensure_future(waits(futures))
        for _ in range(5):  # until all that it makes has begun
            await asyncio.sleep(0)
        look(task, futures)
        task.cancel()
        for future in futures:
            future.cancel()
        await asyncio.wait([task])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("waits", "wanted"),
    [
        (through_tasks, [0, 1]),
        (all_in_time, [0, 1]),
        (all_of, [0, 1]),
        (shielded, [0, 1]),
        (one_of, []),  # either is enough
        (none_of, []),
        pytest.param(
            within_a_group, [0, 1], marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="no TaskGroup")
        ),
    ],
)
def test_what_must_come_is_found_behind_tasks_and_what_asyncio_makes_of_them(waits: Any, wanted: list[int]) -> None:
    def look(task: Any, futures: Futures) -> None:
        known = {future: index for index, future in enumerate(futures)}
        assert sorted(coroutines.awaited(task, known)) == wanted

    suspended(waits, look)


def test_one_that_is_left_of_several_is_waited_for() -> None:
    def look(task: Any, futures: Futures) -> None:
        assert coroutines.awaited(task, {futures[0]: "it"}) == ["it"]

    suspended(one_of, look, count=1)


def test_frames_lead_through_generators_to_the_innermost() -> None:
    def look(task: Any, _futures: Futures) -> None:
        outer, inner = coroutines.tasks(task)
        assert [frame.f_code.co_name for frame in coroutines.frames(outer)] == ["through_tasks"]
        assert [frame.f_code.co_name for frame in coroutines.frames(inner)] == ["through_a_generator", "items"]
        assert not coroutines.is_running(task)

    suspended(through_tasks, look)


class Engine:
    class config:
        watchdog_s = 10.0


def test_watchdog_looks_at_an_await_after_once_twice_and_four_times_its_time() -> None:
    async def main() -> None:
        watched = awaits.Awaits(Engine())  # type: ignore[arg-type]  # what decides needs no more of it
        record = ownership.Record(b"\0" * 28)
        calls: list[None] = []
        end = watched.add(record, asyncio.get_running_loop().create_future(), lambda: calls.append(None))
        told = [(look, times) for look in range(1, 20) for times, _ in watched.look()]
        assert told == [(3, 1), (5, 2), (9, 4), (17, 8)]
        end(record)
        assert calls == [None]
        assert watched.of == {}

    asyncio.run(main())


def test_await_that_was_given_up_is_forgotten() -> None:
    async def main() -> None:
        watched = awaits.Awaits(Engine())  # type: ignore[arg-type]  # likewise
        future = asyncio.get_running_loop().create_future()
        watched.add(ownership.Record(b"\0" * 28), future, lambda: None)
        future.cancel()
        assert watched.look() == []
        assert watched.of == {}

    asyncio.run(main())
