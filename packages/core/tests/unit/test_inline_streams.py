"""Streaming generators on the inline engine."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import umbel
from umbel import exceptions
from umbel._client import current


@pytest.fixture(autouse=True)
def session() -> Iterator[Any]:
    with umbel.init(engine="inline", num_cpus=4):
        yield current.engine()


@umbel.remote
class Log:
    def __init__(self) -> None:
        self.words: list[Any] = []

    def add(self, word: Any) -> None:
        self.words.append(word)

    def read(self) -> list[Any]:
        return self.words


@umbel.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@umbel.remote
def noted(log: Any, n: int) -> Iterator[int]:
    for i in range(n):
        umbel.get(log.add.remote(i))
        yield i


def test_items_come_in_order_and_then_the_end() -> None:
    stream = count.remote(3)
    assert isinstance(stream, umbel.ObjectRefGenerator)
    assert [umbel.get(ref) for ref in stream] == [0, 1, 2]
    assert stream.is_finished()
    with pytest.raises(StopIteration):
        next(stream)
    assert umbel.get(stream.completed()) is None


def test_generator_runs_to_its_end_before_anybody_reads() -> None:
    log = Log.remote()
    stream = noted.remote(log, 4)
    assert umbel.get(log.read.remote()) == [0, 1, 2, 3]
    assert [umbel.get(ref) for ref in stream] == [0, 1, 2, 3]


def test_backpressure_holds_the_producer_where_python_would() -> None:
    log = Log.remote()
    stream = noted.options(_generator_backpressure_num_objects=1).remote(log, 3)
    assert umbel.get(log.read.remote()) == [0]
    assert umbel.get(next(stream)) == 0
    assert umbel.get(log.read.remote()) == [0, 1]
    assert [umbel.get(ref) for ref in stream] == [1, 2]


@pytest.mark.parametrize(("of_actor", "of_method", "ahead"), [(2, None, 2), (None, 1, 1), (3, 2, 2)])
def test_backpressure_of_actor_and_method_both_apply(of_actor: Any, of_method: Any, ahead: int) -> None:
    log = Log.remote()

    class Producer:
        def items(self, n: int) -> Iterator[int]:
            for i in range(n):
                umbel.get(log.add.remote(i))
                yield i

    producer = umbel.remote(Producer).options(_actor_generator_backpressure_num_objects=of_actor).remote()
    stream = producer.items.options(_generator_backpressure_num_objects=of_method).remote(5)
    assert umbel.get(log.read.remote()) == list(range(ahead))
    assert [umbel.get(ref) for ref in stream] == [0, 1, 2, 3, 4]


def test_dropping_the_reader_frees_the_items_and_lets_the_producer_finish(session: Any) -> None:
    log = Log.remote()
    stream = noted.options(_generator_backpressure_num_objects=1).remote(log, 3)
    next(stream)
    done = stream.completed()
    del stream
    gc.collect()
    umbel.get(done)
    assert umbel.get(log.read.remote()) == [0, 1, 2]
    del log, done
    gc.collect()
    assert len(session.values.table.records) == 0


def test_error_comes_after_the_items_and_ends_the_stream() -> None:
    @umbel.remote
    def fails() -> Iterator[int]:
        yield 1
        raise KeyError("late")

    stream = fails.remote()
    assert umbel.get(next(stream)) == 1
    with pytest.raises(KeyError, match="late"):
        umbel.get(next(stream))
    assert list(stream) == []
    assert umbel.get(stream.completed()) is None


def test_item_that_cannot_be_pickled_is_an_error_in_its_place() -> None:
    @umbel.remote
    def locks() -> Iterator[Any]:
        import threading

        yield 1
        yield threading.Lock()

    one, bad = list(locks.remote())
    assert umbel.get(one) == 1
    with pytest.raises(TypeError, match="lock"):
        umbel.get(bad)


def test_failed_argument_is_the_only_item() -> None:
    @umbel.remote
    def fails() -> int:
        raise LookupError("argument")

    (ref,) = count.remote(fails.remote())
    with pytest.raises(LookupError, match="argument"):
        umbel.get(ref)


def test_retry_yields_from_the_start_and_keeps_what_was_read() -> None:
    @umbel.remote(max_retries=1)
    def fragile() -> Iterator[Any]:
        attempt = umbel.get_runtime_context().get_attempt_number()
        yield "first", attempt
        if attempt == 0:
            raise SystemExit(1)
        yield "second", attempt

    assert [umbel.get(ref) for ref in fragile.remote()] == [("first", 0), ("second", 1)]


def test_retry_that_yields_less_is_reported() -> None:
    @umbel.remote(max_retries=1)
    def fickle() -> Iterator[int]:
        if umbel.get_runtime_context().get_attempt_number() == 0:
            yield from (1, 2)
            raise SystemExit(1)
        yield 1

    first, second, last = list(fickle.remote())
    assert umbel.get([first, second]) == [1, 2]
    with pytest.raises(exceptions.StreamingGeneratorReplayInconsistentError, match="yielded 1 items when retried"):
        umbel.get(last)


def test_wait_counts_a_generator_as_ready_when_its_next_item_is() -> None:
    stream, ref = count.remote(1), umbel.put(0)
    assert umbel.wait([stream, ref], num_returns=2, timeout=0) == ([stream, ref], [])
    next(stream)
    assert stream.is_finished()
    assert not stream.next_ready()


def test_reader_waits_for_a_producer_that_waits() -> None:
    @umbel.remote
    class Gate:
        def __init__(self) -> None:
            self.event = asyncio.Event()

        async def wait(self) -> None:
            await self.event.wait()

        async def open(self) -> None:
            self.event.set()

    gate = Gate.remote()

    @umbel.remote
    def produce(box: Any) -> Iterator[str]:
        yield "early"
        umbel.get(box[0].wait.remote())
        yield "late"

    stream = produce.remote([gate])
    read = umbel.remote(lambda: [umbel.get(r) for r in count.remote(2)])
    assert umbel.get(next(stream)) == "early"
    assert umbel.wait([stream], timeout=0)[0] == []
    assert umbel.get(read.remote()) == [0, 1]
    with pytest.raises(exceptions.GetTimeoutError, match="no item of"):
        stream._stream.next_ref(0.001)
    gate.open.remote()
    assert [umbel.get(ref) for ref in stream] == ["late"]


def test_number_of_returns_fixes_the_items() -> None:
    assert umbel.get(count.options(num_returns=2).remote(2)) == [0, 1]
    assert umbel.get(count.options(num_returns=1).remote(5)) == 0
    there, missing = count.options(num_returns=2).remote(1)
    assert umbel.get(there) == 0
    with pytest.raises(ValueError, match="yield as many"):
        umbel.get(missing)


def test_dynamic_returns_are_one_picklable_collection() -> None:
    ref = count.options(num_returns="dynamic").remote(3)
    items = umbel.get(umbel.remote(lambda all_items: list(all_items)).remote(ref))
    assert umbel.get(items) == [0, 1, 2]
    assert len(umbel.get(ref)) == 3


def test_driver_may_iterate_asynchronously() -> None:
    async def main() -> list[int]:
        return [await ref async for ref in count.remote(3)]

    assert asyncio.run(main()) == [0, 1, 2]


def test_async_generators_of_one_actor_interleave_and_respect_backpressure() -> None:
    class Producer:
        def __init__(self) -> None:
            self.turn = asyncio.Event()
            self.made = 0

        async def left(self) -> AsyncIterator[str]:
            yield "l1"
            await self.turn.wait()
            yield "l2"

        async def right(self) -> AsyncIterator[str]:
            yield "r1"
            self.turn.set()
            yield "r2"

        async def counted(self) -> AsyncIterator[int]:
            for i in range(4):
                self.made += 1
                yield i

        async def so_far(self) -> int:
            return self.made

    producer = umbel.remote(Producer).remote()
    left, right = producer.left.remote(), producer.right.remote()
    assert [umbel.get(r) for r in right] == ["r1", "r2"]
    assert [umbel.get(r) for r in left] == ["l1", "l2"]
    counted = producer.counted.options(_generator_backpressure_num_objects=2).remote()
    assert umbel.get(producer.so_far.remote()) == 2
    assert umbel.get(next(counted)) == 0
    assert umbel.get(producer.so_far.remote()) == 3
    assert [umbel.get(r) for r in counted] == [1, 2, 3]


def test_error_of_an_async_generator_comes_after_its_items() -> None:
    @umbel.remote
    class Producer:
        async def items(self) -> AsyncIterator[int]:
            yield 1
            raise KeyError("late")

    stream = Producer.remote().items.remote()
    assert umbel.get(next(stream)) == 1
    with pytest.raises(KeyError, match="late"):
        umbel.get(next(stream))


def test_death_of_the_actor_ends_its_streams() -> None:
    class Producer:
        def items(self) -> Iterator[int]:
            yield from itertools.count()

    producer = umbel.remote(Producer).remote()
    stream = producer.items.options(_generator_backpressure_num_objects=1).remote()
    assert umbel.get(next(stream)) == 0
    umbel.kill(producer)
    assert umbel.get(next(stream)) == 1
    with pytest.raises(exceptions.ActorDiedError, match="killed"):
        umbel.get(next(stream))
    assert list(stream) == []


def test_endless_generator_lets_its_reader_go_on() -> None:
    @umbel.remote
    def endless() -> Iterator[int]:
        yield from itertools.count()

    stream = endless.remote()
    assert [umbel.get(ref) for ref in itertools.islice(stream, 3)] == [0, 1, 2]
    umbel.cancel(stream)
    *_, last = stream
    with pytest.raises(exceptions.TaskCancelledError):
        umbel.get(last)
