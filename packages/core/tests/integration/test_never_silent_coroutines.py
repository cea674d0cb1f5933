"""Coroutines of async actors: where they stand, what they await, and who waits for whom."""

from __future__ import annotations

import asyncio
import pathlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import commands
import drivers
import pytest

import umbel
from umbel._model import reasons
from umbel.util import state

HERE = pathlib.Path(__file__).name


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with umbel.init(num_cpus=2):
        yield


@umbel.remote(num_cpus=0)
def hold(path: str) -> str:
    while not pathlib.Path(path).exists():
        time.sleep(0.005)
    return "released"


@umbel.remote(num_cpus=0)
def items_of(path: str) -> Iterator[str]:
    yield umbel.get(hold.remote(path))


@umbel.remote(num_cpus=0, max_concurrency=1)
class Caller:
    async def meet(self, other: Any) -> None:
        self.other = other

    async def call(self, depth: int) -> str:
        if not depth:
            return "the end"
        return await self.inner(depth)

    async def inner(self, depth: int) -> str:
        return str(await self.other.call.remote(depth - 1))  # the line that explain shows

    async def call_and_block(self, depth: int) -> str:
        return str(umbel.get(self.other.call.remote(depth)))

    async def await_it(self, boxed: list[Any]) -> Any:
        return await boxed[0]

    async def give(self, boxed: list[Any]) -> None:
        self.given = boxed

    async def await_what_is_given(self) -> Any:
        while not hasattr(self, "given"):
            await asyncio.sleep(0.005)
        return await self.given[0]

    async def await_by(self, how: str, path: str) -> Any:
        ref = hold.remote(path)
        if how == "gather":
            return await asyncio.gather(ref, asyncio.sleep(0))
        if how == "wait":
            return len(await asyncio.wait([ref.as_future()]))
        if how == "wait_for":
            return await asyncio.wait_for(ref, timeout=60)
        if how == "task":
            return await asyncio.create_task(self.await_it([ref]))
        return [item async for item in self.relay(path)]

    async def relay(self, path: str) -> AsyncIterator[str]:
        async for item in items_of.remote(path):
            yield await item

    async def hold_a_call_up(self, path: str) -> None:
        self.background = asyncio.ensure_future(self.await_it([self.other.call.remote(1)]))
        while not pathlib.Path(path).exists():
            await asyncio.sleep(0.005)


def pair(**options: Any) -> tuple[Any, Any]:
    first, second = Caller.options(**options).remote(), Caller.options(**options).remote()
    umbel.get([first.meet.remote(second), second.meet.remote(first)], timeout=30)
    return first, second


def story(ref: Any, is_wanted: Callable[[state.Reason], bool]) -> state.Reason:
    """The story of a reference, once its end is as wanted."""
    told: list[state.Reason] = []

    def is_told() -> bool:
        told.append(state.explain(ref))
        return is_wanted(told[-1].last())

    try:
        drivers.wait_until(is_told)
    except AssertionError:
        raise AssertionError(f"the story stayed another one: {told[-1]}") from None
    return told[-1]


def story_with(ref: Any, code: str) -> state.Reason:
    return story(ref, lambda end: end.code == code)


def story_of_hold(ref: Any) -> state.Reason:
    return story(ref, lambda end: end.facts.get("name") == "hold")


def test_coroutines_that_wait_for_each_other_are_a_deadlock() -> None:
    first, _second = pair()
    reason = story_with(first.call.remote(5), reasons.DEADLOCK)
    assert "max_concurrency" in reason.last().advice
    assert str(reason).count(f"{HERE}") >= 2
    assert str(reason).count("in inner, and waits there") >= 2


def test_coroutines_that_await_each_other_s_results_are_a_deadlock_however_many_may_run() -> None:
    first, second = pair(max_concurrency=1000)
    ref = first.await_what_is_given.remote()
    umbel.get(first.give.remote([second.await_it.remote([ref])]), timeout=30)
    story_with(ref, reasons.DEADLOCK)


def test_coroutine_that_blocks_the_loop_for_one_of_its_own_is_a_deadlock() -> None:
    first, _second = pair(max_concurrency=1000)
    umbel.get(first.meet.remote(first), timeout=30)
    story_with(first.call_and_block.remote(0), reasons.DEADLOCK)


def test_coroutines_that_can_answer_meanwhile_are_no_deadlock(tmp_path: pathlib.Path) -> None:
    first, second = pair(max_concurrency=1000)
    umbel.get(second.meet.remote(first), timeout=30)
    assert umbel.get(first.call.remote(20), timeout=30) == "the end"
    ref = first.await_it.remote(
        [second.await_it.remote([first.await_it.remote([hold.remote(str(tmp_path / "gate"))])])]
    )
    assert str(story_of_hold(ref)).count("in await_it, and waits there") == 3
    (tmp_path / "gate").touch()
    assert umbel.get(ref, timeout=30) == "released"


def test_call_behind_two_of_which_one_can_end_is_no_deadlock(tmp_path: pathlib.Path) -> None:
    """The second call awaits one that is queued behind it, but the first only takes its time."""
    actor = Caller.options(max_concurrency=2).remote()
    umbel.get(actor.meet.remote(actor), timeout=30)
    blocking = actor.await_it.remote([hold.remote(str(tmp_path / "gate"))])
    story_of_hold(blocking)
    waiting = actor.call.remote(1)
    reason = story_of_hold(waiting)
    assert "with 1 behind it" in str(reason), str(reason)
    (tmp_path / "gate").touch()
    umbel.get([waiting, blocking], timeout=30)


def test_call_behind_two_of_which_none_can_end_is_a_deadlock() -> None:
    actor = Caller.options(max_concurrency=2).remote()
    umbel.get(actor.meet.remote(actor), timeout=30)
    refs = [actor.call.remote(2), actor.call.remote(2)]
    for ref in refs:
        story_with(ref, reasons.DEADLOCK)


def test_coroutine_tells_what_can_never_come() -> None:
    actor = Caller.remote()
    unplaced = hold.options(resources={"licence": 1}).remote("/")
    ref = actor.await_it.remote([unplaced])
    reason = story_with(ref, reasons.INFEASIBLE)
    assert f"{HERE}:" in str(reason)
    assert "in await_it, and waits there" in str(reason)
    umbel.cancel(unplaced)


@pytest.mark.parametrize("how", ["gather", "wait", "wait_for", "task", "stream"])
def test_what_is_awaited_is_found_behind_asyncio_s_own(how: str, tmp_path: pathlib.Path) -> None:
    actor = Caller.remote()
    ref = actor.await_by.remote(how, str(tmp_path / "gate"))
    reason = story_of_hold(ref)
    assert HERE in str(reason)
    (tmp_path / "gate").touch()
    umbel.get(ref, timeout=30)


def test_what_a_task_in_the_background_awaits_is_not_what_its_call_waits_for(tmp_path: pathlib.Path) -> None:
    first, _second = pair()
    ref = first.hold_a_call_up.remote(str(tmp_path / "gate"))
    drivers.wait_until(lambda: "in hold_a_call_up" in str(state.explain(ref)))
    assert state.explain(ref).last().code == reasons.RUNNING
    (tmp_path / "gate").touch()
    umbel.get(ref, timeout=30)


def test_command_shows_where_coroutines_stand(tmp_path: pathlib.Path) -> None:
    actor = Caller.remote()
    ref = actor.await_by.remote("task", str(tmp_path / "gate"))
    story_of_hold(ref)
    told = commands.run("stack", ref.task_id().hex())
    assert told.returncode == 0, told.stderr
    assert "coroutine" in told.stdout
    assert "return await asyncio.create_task(self.await_it([ref]))" in told.stdout
    assert "return await boxed[0]" in told.stdout
    assert "_worker" not in told.stdout
    (tmp_path / "gate").touch()
    umbel.get(ref, timeout=30)


def test_listing_tells_that_a_coroutine_waits(tmp_path: pathlib.Path) -> None:
    actor = Caller.remote()
    ref = actor.await_by.remote("gather", str(tmp_path / "gate"))
    story_of_hold(ref)
    assert state.get_task(ref.task_id().hex()).state == "RUNNING_IN_RAY_GET"
    (tmp_path / "gate").touch()
    umbel.get(ref, timeout=30)
