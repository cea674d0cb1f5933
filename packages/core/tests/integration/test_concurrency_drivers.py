"""Many threads and event loops at once in one driver; nested tasks; what becomes of a wait that is interrupted."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import drivers
import pytest

import umbel
from umbel import exceptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def runtime() -> Iterator[None]:
    umbel.init(num_cpus=2)
    yield
    umbel.shutdown()


@umbel.remote
def double(number: int) -> int:
    return number * 2


@umbel.remote
def fail(number: int) -> None:
    raise KeyError(number)


@umbel.remote
def sleep(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@umbel.remote
def stream(count: int) -> Iterator[int]:
    yield from range(count)


@umbel.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def increment(self) -> int:
        self.count += 1
        return self.count


def in_threads(count: int, work: Callable[[int], None], *, timeout_s: float = 45.0) -> None:
    """Run `work(number)` in as many threads; raises the first error."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, until_s - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "some threads hang"
    if errors:
        raise errors[0]


def test_32_threads_do_everything_at_once() -> None:
    counter = Counter.remote()

    def work(number: int) -> None:
        rng = random.Random(number)
        for _ in range(25):
            kind = rng.randrange(7)
            if kind == 0:
                assert umbel.get(double.remote(number), timeout=30) == number * 2
            elif kind == 1:
                refs = [double.remote(i) for i in range(20)]
                ready, rest = umbel.wait(refs, num_returns=7, timeout=30)
                assert len(ready) == 7
                assert len(rest) == 13
                assert umbel.get(refs, timeout=30) == [i * 2 for i in range(20)]
            elif kind == 2:
                assert umbel.get(umbel.put([number] * 20_000), timeout=30)[5] == number
            elif kind == 3:
                assert umbel.get(counter.increment.remote(), timeout=30) > 0
            elif kind == 4:
                with pytest.raises(KeyError):
                    umbel.get(fail.remote(number), timeout=30)
            elif kind == 5:
                assert [umbel.get(ref, timeout=30) for ref in stream.remote(5)] == list(range(5))
            else:
                ref = double.remote(double.remote(number))
                assert ref.future().result(30) == number * 4

    in_threads(32, work)


def test_threads_that_wait_for_one_reference_all_get_it() -> None:
    ref = sleep.remote(0.2, "value")
    seen = []
    in_threads(32, lambda _: seen.append(umbel.get(ref, timeout=30)))
    assert seen == ["value"] * 32


def test_threads_with_time_outs_are_neither_late_nor_early() -> None:
    slow = sleep.remote(1.5)

    def work(number: int) -> None:
        timeout = 0.05 * (number % 8)
        start = time.monotonic()
        if number % 2:
            with pytest.raises(exceptions.GetTimeoutError):
                umbel.get(slow, timeout=timeout)
        else:
            assert umbel.wait([slow], timeout=timeout) == ([], [slow])
        taken = time.monotonic() - start
        assert timeout <= taken < timeout + 0.9, (timeout, taken)

    in_threads(24, work)
    umbel.get(slow)


def test_each_threads_actor_calls_stay_in_order() -> None:
    @umbel.remote
    class Log:
        def __init__(self) -> None:
            self.lines: list[tuple[int, int]] = []

        def add(self, thread: int, number: int) -> None:
            self.lines.append((thread, number))

        def get(self) -> list[tuple[int, int]]:
            return self.lines

    log = Log.remote()
    in_threads(8, lambda thread: umbel.get([log.add.remote(thread, number) for number in range(100)], timeout=30))
    lines = umbel.get(log.get.remote(), timeout=30)
    for thread in range(8):
        assert [number for of, number in lines if of == thread] == list(range(100))


def test_quick_results_behind_a_busy_worker_are_not_held_back() -> None:
    """A reply waits a moment for others to share its frame, but never for a slow task that follows."""

    @umbel.remote
    def work(seconds: float) -> float:
        if seconds:
            time.sleep(seconds)
        return seconds

    umbel.get([work.remote(0) for _ in range(1000)])
    for _ in range(3):
        slow = [work.remote(0.02) for _ in range(2)]
        quick = [work.remote(0) for _ in range(10)]
        slowest = [work.remote(30) for _ in range(2)]
        start = time.monotonic()
        umbel.get(slow + quick, timeout=30)
        assert time.monotonic() - start < 15
        for ref in slowest:
            umbel.cancel(ref)
        umbel.wait(slowest, num_returns=2, timeout=30)


def test_first_item_of_a_slow_stream_arrives_at_once() -> None:
    @umbel.remote
    def slow_stream() -> Iterator[int]:
        yield 1
        yield 2
        time.sleep(30)
        yield 3

    for _ in range(2):
        start = time.monotonic()
        items = slow_stream.remote()
        assert [umbel.get(next(items), timeout=30) for _ in range(2)] == [1, 2]
        assert time.monotonic() - start < 15
        umbel.cancel(items)


# Event loops


def test_coroutines_await_references() -> None:
    async def main() -> None:
        refs = [double.remote(number) for number in range(300)]
        assert await asyncio.gather(*refs) == [number * 2 for number in range(300)]
        with pytest.raises(KeyError):
            await fail.remote(1)
        results = await asyncio.gather(*(fail.remote(n) if n % 3 == 0 else double.remote(n) for n in range(30)),
                                       return_exceptions=True)  # fmt: skip
        assert [isinstance(result, KeyError) for result in results] == [n % 3 == 0 for n in range(30)]
        assert [await ref async for ref in stream.remote(20)] == list(range(20))
        future = double.remote(2).as_future()
        assert await asyncio.wait_for(future, 30) == 4
        counter = Counter.remote()
        assert await asyncio.gather(*(counter.increment.remote() for _ in range(50))) == list(range(1, 51))

    asyncio.run(main())


def test_loop_stays_responsive_while_results_are_awaited() -> None:
    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        await asyncio.gather(*(sleep.remote(0.25) for _ in range(4)))
        ticking.cancel()
        return ticks

    assert asyncio.run(main()) >= 20


def test_cancelled_awaits_leave_the_task_and_the_loop_alone() -> None:
    async def main() -> None:
        ref = sleep.remote(0.3, "value")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ref.as_future(), 0.05)
        waiting = asyncio.ensure_future(asyncio.wait_for(ref, 30))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await ref == "value"

    asyncio.run(main())


def test_loop_that_closed_before_the_result_came() -> None:
    ref = sleep.remote(0.3, "value")

    async def main() -> None:
        ref.as_future()

    asyncio.run(main())
    assert umbel.get(ref, timeout=30) == "value"
    assert umbel.get(double.remote(1), timeout=30) == 2


def test_loops_in_several_threads() -> None:
    def work(number: int) -> None:
        async def main() -> None:
            for _ in range(10):
                assert await asyncio.gather(*(double.remote(i + number) for i in range(10))) == [
                    (i + number) * 2 for i in range(10)
                ]

        asyncio.run(main())

    in_threads(8, work)


def test_futures_callbacks_may_use_the_runtime() -> None:
    done = threading.Event()
    seen: list[Any] = []

    def chain(future: Any) -> None:
        seen.append(future.result())
        seen.append(umbel.get(double.remote(future.result()), timeout=30))
        done.set()

    double.remote(1).future().add_done_callback(chain)
    assert done.wait(30)
    assert seen == [2, 4]


# Nesting


@umbel.remote
def nest(depth: int) -> int:
    return 0 if depth == 0 else 1 + umbel.get(nest.remote(depth - 1))


@umbel.remote
def fib(number: int) -> int:
    if number < 2:
        return number
    return sum(umbel.get([fib.remote(number - 1), fib.remote(number - 2)]))


def workers() -> int:
    engine: Any = umbel._client.current.engine()
    return len([w for w in engine.query("workers") if w["pid"]])


def test_chain_of_nested_tasks_completes() -> None:
    assert umbel.get(nest.remote(30), timeout=45) == 30


def test_wide_recursion_completes_without_an_explosion_of_processes() -> None:
    drivers.wait_until(lambda: workers() <= 4, what="surplus workers of other tests to end")
    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, workers())
            done.wait(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert umbel.get(fib.remote(8), timeout=45) == 21
    finally:
        done.set()
        watcher.join()
    assert most <= 24, most  # 67 calls, 33 of which wait for others


def test_surplus_workers_of_a_recursion_end() -> None:
    umbel.get(nest.remote(20), timeout=45)
    drivers.wait_until(lambda: workers() <= 4, what="surplus workers to end")


def test_waiting_parents_of_different_needs_do_not_block_each_other() -> None:
    @umbel.remote(num_cpus=1)
    def parent(depth: int) -> int:
        child = parent.options(num_cpus=0.5 if depth % 2 else 2)
        return 1 if depth == 0 else 1 + umbel.get(child.remote(depth - 1))

    assert umbel.get([parent.remote(4) for _ in range(3)], timeout=45) == [5] * 3


def test_cpus_of_waiting_tasks_are_free_and_come_back() -> None:
    @umbel.remote(num_cpus=2)
    def greedy() -> Any:
        return umbel.get(inner.remote()), umbel.available_resources().get("CPU", 0.0)

    @umbel.remote(num_cpus=2)
    def inner() -> str:
        return "inner"

    assert umbel.get(greedy.remote(), timeout=30) == ("inner", 0.0)
    drivers.wait_until(lambda: umbel.available_resources().get("CPU") == 2.0)


def test_actor_and_tasks_wait_for_each_other_on_one_cpu() -> None:
    @umbel.remote
    class Middle:
        def work(self, number: int) -> int:
            return umbel.get(double.remote(number))

    @umbel.remote(num_cpus=2)
    def outer(middle: Any) -> list[int]:
        return umbel.get([middle.work.remote(number) for number in range(5)])

    assert umbel.get(outer.remote(Middle.remote()), timeout=30) == [0, 2, 4, 6, 8]


# Interrupts


INTERRUPTED = """
    import os, random, signal, sys, threading, time, umbel

    umbel.init(num_cpus=2)

    @umbel.remote
    def double(number): return number * 2
    @umbel.remote
    def sleep(seconds): time.sleep(seconds)
    @umbel.remote
    class Counter:
        def __init__(self): self.count = 0
        def increment(self):
            self.count += 1
            return self.count
    @umbel.remote
    def stream():
        yield from range(300)

    counter = Counter.remote()
    umbel.get(counter.increment.remote())
    rng = random.Random(%d)
    interrupted = 0

    def load(kind):
        if kind == 0:
            umbel.get([double.remote(number) for number in range(1000)])
        elif kind == 1:
            for number in range(100): umbel.get(double.remote(number))
        elif kind == 2:
            umbel.get([counter.increment.remote() for _ in range(500)])
        elif kind == 3:
            umbel.get(sleep.remote(0.1))
        elif kind == 4:
            for _ in range(20): umbel.get(umbel.put(bytes(500_000)))
        elif kind == 5:
            refs = [double.remote(number) for number in range(200)]
            while refs: _, refs = umbel.wait(refs)
        else:
            for ref in stream.remote(): umbel.get(ref)

    for round_number in range(42):
        timer = threading.Timer(rng.random() * 0.06, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            while True:
                load(round_number %% 7)
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
        assert umbel.get([double.remote(number) for number in range(50)], timeout=20) == [n * 2 for n in range(50)]
        assert umbel.get(counter.increment.remote(), timeout=20) > 0
        assert umbel.get(umbel.put(bytes(500_000)), timeout=20) == bytes(500_000)
    print(interrupted, flush=True)
    deadline = time.monotonic() + 20
    while umbel.available_resources().get("CPU") != 2.0:
        assert time.monotonic() < deadline, umbel.available_resources()
        time.sleep(0.01)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found through /proc")
@pytest.mark.parametrize("seed", range(3))
def test_interrupted_driver_goes_on_working(seed: int) -> None:
    """Ctrl-C at random moments: whatever it hit, everything still works afterwards."""
    output, _ = drivers.run(INTERRUPTED % seed, timeout_s=55)
    assert output == "42\n"


def test_interrupt_ends_a_wait_by_means_of_the_callers_code() -> None:
    output, _ = drivers.run("""
        import os, queue, signal, threading, umbel, umbel.util
        umbel.init(num_cpus=1)
        inbox = queue.SimpleQueue()

        def is_there(seconds):
            try:
                inbox.get(timeout=seconds)
            except queue.Empty:
                return False
            return True

        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            umbel.util.wait_beside(is_there)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        inbox.put(1)
        umbel.util.wait_beside(is_there)
        print(umbel.get(umbel.put(2)))
    """)
    assert output == "interrupted\n2\n"


def test_users_own_interrupt_handler_is_kept() -> None:
    output, _ = drivers.run("""
        import os, signal, umbel
        signal.signal(signal.SIGINT, lambda *_: print("mine", flush=True))
        umbel.init(num_cpus=1)
        os.kill(os.getpid(), signal.SIGINT)
        umbel.shutdown()
        os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        umbel.init(num_cpus=1)
        umbel.shutdown()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    """)
    assert output == "mine\nmine\n"


# What stays behind


def test_memory_and_descriptors_do_not_grow_with_tasks() -> None:
    counter = Counter.remote()

    def round_of_work() -> None:
        for _ in range(10):
            umbel.get([double.remote(number) for number in range(400)])
            umbel.get([counter.increment.remote() for _ in range(100)])
            umbel.get([umbel.put(number) for number in range(100)])
            umbel.get([double.options(name=f"n{number}").remote(number) for number in range(20)])
            list(stream.remote(20))

    def memory_kb(pid: int) -> int:
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))

    def pids() -> list[int]:
        engine: Any = umbel._client.current.engine()
        return [
            os.getpid(),
            *(w["pid"] for w in engine.query("workers") if w["pid"] and (w["actor"] or w["state"] == "idle")),
        ]

    round_of_work()
    round_of_work()
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    before = {pid: memory_kb(pid) for pid in pids() if drivers.is_running(pid)}
    for _ in range(3):
        round_of_work()
    gc.collect()
    after = {pid: memory_kb(pid) for pid in before if drivers.is_running(pid)}
    assert {pid: after[pid] - before[pid] for pid in after if after[pid] - before[pid] > 4_000} == {}
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
