"""umbel.util.queue.Queue between processes."""

from __future__ import annotations

import asyncio
import queue as standard
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel.util.queue import Empty, Full, Queue


@pytest.fixture(scope="module", autouse=True, params=["native", "inline"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    with umbel.init(num_cpus=2, engine=request.param):
        yield request.param


@umbel.remote(num_cpus=0)
def put_all(queue: Queue, items: list[Any]) -> None:
    for item in items:
        queue.put(item)


@umbel.remote(num_cpus=0)
def get_one(queue: Queue) -> Any:
    return queue.get()


def test_items_come_out_in_the_order_they_went_in() -> None:
    queue = Queue()
    for item in range(5):
        queue.put(item)
    assert len(queue) == queue.qsize() == queue.size() == 5
    assert [queue.get() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert queue.empty()


def test_a_bounded_queue_is_filled_and_emptied_from_two_sides() -> None:
    queue = Queue(maxsize=2)
    filled = put_all.remote(queue, list(range(20)))
    assert [queue.get(timeout=30) for _ in range(20)] == list(range(20))
    umbel.get(filled)


def test_a_waiting_getter_gets_what_is_put_later() -> None:
    queue = Queue()
    waiting = get_one.remote(queue)
    queue.put("late")
    assert umbel.get(waiting, timeout=30) == "late"


def test_none_is_an_item() -> None:
    queue = Queue()
    queue.put(None)
    assert queue.get() is None


def test_a_reference_arrives_as_its_value() -> None:
    queue = Queue()
    queue.put(umbel.put(5))
    assert queue.get() == 5


def test_errors_are_those_of_the_standard_library_too() -> None:
    queue = Queue(maxsize=1)
    with pytest.raises(standard.Empty):
        queue.get_nowait()
    queue.put(1)
    with pytest.raises(standard.Full):
        queue.put_nowait(2)


def test_waiting_ends_at_the_time_out() -> None:
    queue = Queue(maxsize=1)
    with pytest.raises(Empty, match=r"also after 0\.01 s"):
        queue.get(timeout=0.01)
    queue.put(1)
    with pytest.raises(Full, match=r"also after 0\.01 s"):
        queue.put(2, timeout=0.01)
    assert queue.full()


def test_a_batch_goes_in_and_out_whole_or_not_at_all() -> None:
    queue = Queue(maxsize=3)
    with pytest.raises(Full, match="room for 3"):
        queue.put_nowait_batch(range(4))
    assert queue.empty()
    queue.put_nowait_batch(range(3))
    with pytest.raises(Empty, match="holds 3"):
        queue.get_nowait_batch(4)
    assert queue.get_nowait_batch(2) == [0, 1]
    assert queue.get_nowait_batch(0) == []
    assert queue.qsize() == 1


def test_coroutines_can_wait_on_both_sides() -> None:
    queue = Queue(maxsize=1)

    async def both() -> list[int]:
        async def fill() -> None:
            for item in range(4):
                await queue.put_async(item)

        filling = asyncio.ensure_future(fill())
        found = [await queue.get_async(timeout=30) for _ in range(4)]
        await filling
        with pytest.raises(Empty):
            await queue.get_async(block=False)
        return found

    assert asyncio.run(both()) == [0, 1, 2, 3]


def test_many_waiting_getters_do_not_keep_a_put_out() -> None:
    queue = Queue()

    async def wait_and_fill(count: int) -> list[int]:
        waiting = [asyncio.ensure_future(queue.get_async()) for _ in range(count)]
        await asyncio.sleep(0)  # let them all be sent
        await queue.put_async(0)
        for item in range(1, count):
            await queue.put_async(item)
        return sorted(await asyncio.gather(*waiting))

    assert asyncio.run(wait_and_fill(1_200)) == list(range(1_200))  # an async actor takes 1,000 calls by default


def test_after_shutdown_the_queue_says_so() -> None:
    queue = Queue()
    queue.put(1)
    queue.shutdown()
    queue.shutdown()
    with pytest.raises(ValueError, match="shut down"):
        queue.qsize()


@pytest.mark.parametrize("force", [True, False])
def test_others_see_a_shut_down_queue_as_a_dead_actor(force: bool) -> None:
    queue = Queue()
    reader = get_one.remote(queue)
    queue.shutdown(force=force, grace_period_s=0.1)
    with pytest.raises(exceptions.UmbelActorError):
        umbel.get(reader, timeout=30)


def test_options_reach_the_actor() -> None:
    queue = Queue(actor_options={"name": "the-queue", "num_cpus": 0})
    assert umbel.get_actor("the-queue") == queue.actor


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Queue(maxsize="big"), TypeError, "maxsize must be an int"),  # type: ignore[arg-type]
        (lambda: Queue().get(timeout=-1), ValueError, "timeout must be at least 0"),
        (lambda: Queue().put(1, timeout=-1), ValueError, "timeout must be at least 0"),
        (lambda: Queue().put_nowait_batch(5), TypeError, "items must be an iterable"),  # type: ignore[arg-type]
        (lambda: Queue().get_nowait_batch("a"), TypeError, "num_items must be an int"),  # type: ignore[arg-type]
        (lambda: Queue().get_nowait_batch(-1), ValueError, "num_items must be at least 0"),
    ],
)
def test_bad_arguments_are_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize("wrong", ["5", True, float("nan"), [1]])
def test_timeout_that_is_no_number_is_refused(wrong: Any) -> None:
    queue = Queue()
    for call in (lambda: queue.get(timeout=wrong), lambda: queue.put(1, timeout=wrong)):
        with pytest.raises(TypeError, match="timeout must be a number of seconds or None, got"):
            call()


def test_actor_options_that_are_no_dict_are_refused() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="actor_options must be a dict of an actor's options, got 5"):
        Queue(actor_options=wrong)
