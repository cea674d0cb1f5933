"""Generators whose items are large, unread, read late, read by many means, held back or interrupted."""

from __future__ import annotations

import asyncio
import gc
import os
import pathlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.slow
LARGE = 300_000  # float64s


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=2)
    yield
    umbel.shutdown()


@umbel.remote
def count(number: int, fail_at: int = -1) -> Iterator[int]:
    for index in range(number):
        if index == fail_at:
            raise KeyError(index)
        yield index


@umbel.remote
def arrays(number: int, size: int = LARGE) -> Iterator[Any]:
    for index in range(number):
        yield np.full(size, float(index))


def live_records() -> int:
    engine: Any = umbel._client.current.engine()
    with engine.lock:
        engine.values.drain_drops()
        return len(engine.values.table.records)


def live_segments() -> int:
    engine: Any = umbel._client.current.engine()
    return len([name for name in os.listdir(engine.values.store.directory) if name.count(".") == 2])


def test_ten_thousand_items_arrive_in_order() -> None:
    assert [umbel.get(ref) for ref in count.remote(10_000)] == list(range(10_000))


def test_large_items_are_views_that_outlive_everything() -> None:
    views = [umbel.get(ref, timeout=30) for ref in arrays.remote(20)]
    gc.collect()
    for _ in range(3):
        for ref in arrays.remote(20):
            umbel.get(ref, timeout=30)
    assert [view[-1] for view in views] == [float(index) for index in range(20)]
    assert not any(view.flags.writeable for view in views)


def test_items_nobody_took_are_freed_when_the_generator_is_dropped() -> None:
    gc.collect()
    before = live_records()
    for taken in (0, 1, 5):
        items = arrays.remote(10)
        for _ in range(taken):
            umbel.get(next(items), timeout=30)
        umbel.wait([items.completed()], timeout=30)
        del items
    gc.collect()
    drivers.wait_until(lambda: live_records() <= before, what="items to be freed")
    drivers.wait_until(lambda: live_segments() == 0, timeout_s=40, what="shared memory to go")


def test_generator_dropped_while_it_runs_frees_what_still_comes(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    def slow_arrays() -> Iterator[Any]:
        for index in range(10):
            yield np.full(LARGE, float(index))
            time.sleep(0.02)
        (tmp_path / "done").touch()

    gc.collect()
    before = live_records()
    items = slow_arrays.remote()
    umbel.get(next(items), timeout=30)
    del items
    gc.collect()
    drivers.wait_until((tmp_path / "done").exists)
    drivers.wait_until(lambda: live_records() <= before, what="items to be freed")


def test_item_references_outlive_the_generator() -> None:
    items = arrays.remote(5)
    taken = [next(items) for _ in range(3)]
    del items
    gc.collect()
    assert [umbel.get(ref, timeout=30)[0] for ref in taken] == [0.0, 1.0, 2.0]


def test_items_are_passed_on_to_tasks() -> None:
    @umbel.remote
    def total(value: Any) -> float:
        return float(value.sum())

    refs = [total.remote(ref) for ref in arrays.remote(5)]
    assert umbel.get(refs, timeout=30) == [LARGE * float(index) for index in range(5)]


def test_error_comes_after_the_items_and_ends_the_stream() -> None:
    items = count.remote(10, 4)
    assert [umbel.get(next(items), timeout=30) for _ in range(4)] == list(range(4))
    with pytest.raises(KeyError, match="4"):
        umbel.get(next(items), timeout=30)
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(items)
    assert umbel.get(items.completed(), timeout=30) is None
    assert items.is_finished()


def test_stream_of_nothing() -> None:
    items = count.remote(0)
    assert list(items) == []
    assert umbel.get(items.completed(), timeout=30) is None


def test_argument_that_failed_is_the_first_and_last_item() -> None:
    @umbel.remote
    def fail() -> int:
        raise KeyError("upstream")

    items = count.remote(fail.remote())
    with pytest.raises(KeyError, match="upstream"):
        umbel.get(next(items), timeout=30)
    with pytest.raises(StopIteration):
        next(items)


def test_wait_takes_generators_and_consumes_nothing() -> None:
    @umbel.remote
    def slow() -> Iterator[int]:
        time.sleep(0.2)
        yield 7

    items = slow.remote()
    quick = umbel.put(1)
    assert umbel.wait([items, quick]) == ([quick], [items])
    assert umbel.wait([items], timeout=0.01) == ([], [items])
    assert umbel.wait([items], timeout=30) == ([items], [])
    assert umbel.wait([items], timeout=30) == ([items], [])
    assert umbel.get(next(items)) == 7
    assert umbel.wait([items], timeout=30) == ([items], [])
    with pytest.raises(StopIteration):
        next(items)


def test_backpressure_lets_the_producer_run_no_further_ahead(tmp_path: pathlib.Path) -> None:
    @umbel.remote(_generator_backpressure_num_objects=3)
    def produce() -> Iterator[int]:
        for index in range(12):
            (tmp_path / str(index)).touch()
            yield index

    items = produce.remote()
    for taken in range(10):
        drivers.wait_until(lambda taken=taken: len(list(tmp_path.iterdir())) >= min(12, taken + 3))
        assert len(list(tmp_path.iterdir())) <= taken + 4
        assert umbel.get(next(items), timeout=30) == taken
    assert [umbel.get(ref, timeout=30) for ref in items] == [10, 11]


def test_held_back_producer_does_not_keep_others_from_the_cpu() -> None:
    @umbel.remote(_generator_backpressure_num_objects=1)
    def produce() -> Iterator[int]:
        yield from range(100)

    held = [produce.remote() for _ in range(4)]
    for items in held:
        assert umbel.get(next(items), timeout=30) == 0
    assert umbel.get(umbel.remote(lambda: "free").remote(), timeout=30) == "free"
    for items in held:
        assert [umbel.get(ref, timeout=30) for ref in items] == list(range(1, 100))


def test_infinite_generators_end_by_cancellation(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    def forever() -> Iterator[bytes]:
        try:
            while True:
                yield bytes(1000)
        finally:
            (tmp_path / "ended").touch()

    items = forever.remote()
    for _ in range(50):
        umbel.get(next(items), timeout=30)
    umbel.cancel(items)
    drivers.wait_until((tmp_path / "ended").exists)
    del items
    assert umbel.get(umbel.remote(lambda: "free").remote(), timeout=30) == "free"


def test_many_generators_read_in_turns() -> None:
    streams = [count.remote(50) for _ in range(20)]
    for index in range(50):
        for items in streams:
            assert umbel.get(next(items), timeout=30) == index


def test_coroutines_read_generators() -> None:
    @umbel.remote
    class Source:
        async def items(self, number: int) -> AsyncIterator[int]:
            for index in range(number):
                yield index

    source = Source.remote()

    async def read(number: int) -> list[int]:
        return [await ref async for ref in source.items.remote(number)]

    async def main() -> None:
        assert await asyncio.gather(*(read(30) for _ in range(10))) == [list(range(30))] * 10
        with pytest.raises(KeyError):
            async for ref in count.remote(5, 2):
                await ref

    asyncio.run(main())


def test_generators_with_a_fixed_number_of_returns() -> None:
    @umbel.remote(num_returns=3)
    def produce(number: int) -> Iterator[Any]:
        for index in range(number):
            yield np.full(LARGE, float(index))

    assert [value[0] for value in umbel.get(produce.remote(3), timeout=30)] == [0.0, 1.0, 2.0]
    for number in (2, 4):
        made = produce.remote(number)
        assert [value[0] for value in umbel.get(made[:2], timeout=30)] == [0.0, 1.0]
        if number == 4:
            assert umbel.get(made[2], timeout=30)[0] == 2.0
        else:
            with pytest.raises(ValueError, match="num_returns"):
                umbel.get(made[2], timeout=30)


def test_dynamic_generators_can_be_passed_on() -> None:
    @umbel.remote(num_returns="dynamic")
    def produce(number: int) -> Iterator[Any]:
        for index in range(number):
            yield np.full(LARGE, float(index))

    @umbel.remote
    def consume(found: Any) -> list[float]:
        return [float(umbel.get(ref)[0]) for ref in found]

    ref = produce.remote(4)
    assert umbel.get(consume.remote(ref), timeout=30) == [0.0, 1.0, 2.0, 3.0]
    found = umbel.get(ref, timeout=30)
    del ref
    gc.collect()
    assert len(found) == 4
    assert [umbel.get(item, timeout=30)[0] for item in found] == [0.0, 1.0, 2.0, 3.0]


def test_items_that_hold_references() -> None:
    @umbel.remote
    def produce() -> Iterator[Any]:
        for index in range(5):
            yield {"ref": umbel.put(np.full(LARGE, float(index)))}

    inner = [umbel.get(ref, timeout=30)["ref"] for ref in produce.remote()]
    gc.collect()
    assert [umbel.get(ref, timeout=30)[0] for ref in inner] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_next_times_out_through_wait_only() -> None:
    @umbel.remote
    def slow() -> Iterator[int]:
        time.sleep(1000)
        yield 1

    items = slow.remote()
    assert umbel.wait([items], timeout=0.05) == ([], [items])
    umbel.cancel(items)
    with pytest.raises((exceptions.TaskCancelledError, exceptions.UmbelTaskError)):
        umbel.get(next(items), timeout=30)
