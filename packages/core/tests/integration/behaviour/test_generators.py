"""Streaming generators. Numbers are those of the list of semantics."""

from __future__ import annotations

import asyncio
import gc
import queue
from typing import Any

import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.usefixtures("engine")


@umbel.remote
def count(n: int) -> Any:
    yield from range(n)


def test_items_are_references_in_order() -> None:
    refs = list(count.remote(5))
    assert all(isinstance(r, umbel.ObjectRef) for r in refs)
    assert umbel.get(refs) == list(range(5))


def test_the_end_is_final() -> None:
    stream = count.remote(1)
    assert umbel.get(next(stream)) == 0
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(stream)
    assert stream.is_finished()


def test_an_error_comes_after_the_items() -> None:
    """69"""

    @umbel.remote
    def fails() -> Any:
        yield 1
        raise ValueError("after one")

    stream = fails.remote()
    assert umbel.get(next(stream)) == 1
    bad = next(stream)
    with pytest.raises(ValueError, match="after one"):
        umbel.get(bad)
    with pytest.raises(StopIteration):
        next(stream)


def test_completed_is_ready_at_the_end() -> None:
    stream = count.remote(3)
    umbel.get(stream.completed(), timeout=20)
    assert umbel.get(list(stream)) == [0, 1, 2]


def test_wait_does_not_consume() -> None:
    """73"""
    stream = count.remote(2)
    for _ in range(2):
        assert umbel.wait([stream], timeout=20) == ([stream], [])
    assert umbel.get(list(stream)) == [0, 1]


def test_backpressure_holds_the_producer(marks: Any, eventually: Any) -> None:
    """74"""

    @umbel.remote(_generator_backpressure_num_objects=2)
    def slow() -> Any:
        for i in range(5):
            marks.add(i)
            yield i

    stream = slow.remote()
    eventually(lambda: len(marks.all()) >= 2)
    assert umbel.wait([stream.completed()], timeout=0.1)[0] == []
    assert len(marks.all()) <= 3
    assert umbel.get(list(stream)) == list(range(5))


def test_a_dropped_generator_frees_its_items_and_ends(marks: Any, eventually: Any) -> None:
    """70"""

    @umbel.remote(_generator_backpressure_num_objects=1)
    def endless() -> Any:
        yield from range(4)
        marks.add("ended")

    stream = endless.remote()
    next(stream)
    del stream
    gc.collect()
    eventually(lambda: marks.all() == ["ended"])


def test_it_cannot_be_passed_on() -> None:
    """17"""
    stream = count.remote(1)
    with pytest.raises(TypeError, match="ObjectRefGenerator"):
        umbel.put([stream])
    assert umbel.get(list(stream)) == [0]


def test_items_feed_tasks() -> None:
    @umbel.remote
    def double(x: int) -> int:
        return 2 * x

    assert umbel.get([double.remote(r) for r in count.remote(4)]) == [0, 2, 4, 6]


def test_methods_stream_plain_and_async() -> None:
    @umbel.remote
    class Streams:
        def plain(self, n: int) -> Any:
            yield from range(n)

        async def slow(self, n: int) -> Any:
            for i in range(n):
                await asyncio.sleep(0)
                yield i

    streams = Streams.remote()
    assert umbel.get(list(streams.plain.remote(3))) == [0, 1, 2]
    assert umbel.get(list(streams.slow.remote(3))) == [0, 1, 2]


def test_async_iteration() -> None:
    async def main() -> list[Any]:
        return [await ref async for ref in count.remote(4)]

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_callbacks_tell_of_each_item_and_of_the_end() -> None:
    """Though no thread waits for a result, and also of an item that is there already."""
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    streams = {"a": count.remote(2), "b": count.remote(1)}
    found: dict[str, list[int]] = {"a": [], "b": []}
    for name, stream in streams.items():
        stream.add_ready_callback(lambda name=name: told.put(name))
    while streams:
        name = told.get(timeout=20)
        ref = next(streams[name], None)
        if ref is None:
            del streams[name]
            continue
        found[name].append(umbel.get(ref))
        streams[name].add_ready_callback(lambda name=name: told.put(name))
    assert found == {"a": [0, 1], "b": [0]}
    assert told.empty()


def test_waiting_in_a_loop_leaves_nothing_behind_at_a_slow_generator(signal: Any) -> None:
    @umbel.remote
    def slow(released: Any) -> Any:
        umbel.get(released.wait.remote())
        yield 1

    stream = slow.remote(signal)
    for _ in range(5):
        assert umbel.wait([stream], timeout=0.01) == ([], [stream])
    state = getattr(stream._stream, "_state", None)  # of the native engine
    assert state is None or len(state.callbacks) == 1
    umbel.get(signal.send.remote())
    assert umbel.get(list(stream)) == [1]


def test_a_fixed_number_of_returns() -> None:
    assert umbel.get(count.options(num_returns=3).remote(3)) == [0, 1, 2]
    first, second, third = count.options(num_returns=3).remote(2)
    assert umbel.get([first, second]) == [0, 1]
    with pytest.raises(ValueError, match="got 2"):
        umbel.get(third)


def test_dynamic_generators() -> None:
    inner = umbel.get(count.options(num_returns="dynamic").remote(3))
    assert len(inner) == 3
    assert umbel.get(list(inner)) == [0, 1, 2]


def test_cancelling_a_generator(signal: Any) -> None:
    @umbel.remote
    def held(box: Any) -> Any:
        yield 1
        umbel.get(box[0].wait.remote())
        yield 2

    stream = held.remote([signal])
    assert umbel.get(next(stream)) == 1
    umbel.cancel(stream)
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(list(stream), timeout=20)
    umbel.get(signal.send.remote())
