"""Calls of one actor at the same time: order, threads, coroutines, groups, limits, back-pressure."""

from __future__ import annotations

import asyncio
import os
import pathlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
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
def slow(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@umbel.remote
class Log:
    def __init__(self) -> None:
        self.lines: list[Any] = []

    def add(self, line: Any) -> None:
        self.lines.append(line)

    def get(self) -> list[Any]:
        return self.lines


class Gate:
    """Methods that wait for a file, so that a test decides when they end."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.running = 0
        self.most = 0
        self.guard = threading.Lock()

    def enter(self) -> None:
        with self.guard:
            self.running += 1
            self.most = max(self.most, self.running)
        (self.path / f"entered-{os.urandom(4).hex()}").touch()

    def leave(self) -> None:
        with self.guard:
            self.running -= 1

    def is_open(self) -> bool:
        return (self.path / "open").exists()


@umbel.remote
class Threaded(Gate):
    def wait(self) -> None:
        self.enter()
        while not self.is_open():
            time.sleep(0.002)
        self.leave()

    def peak(self) -> int:
        return self.most


@umbel.remote
class Async(Gate):
    async def wait(self) -> None:
        self.enter()
        while not self.is_open():
            await asyncio.sleep(0.002)
        self.leave()

    async def peak(self) -> int:
        return self.most

    def sync_wait(self) -> None:
        self.enter()
        while not self.is_open():
            time.sleep(0.002)
        self.leave()

    async def ping(self) -> str:
        return "pong"

    async def get_inside(self, number: int) -> int:
        return await slow.remote(0, number) + 1

    async def blocking_get(self, number: int) -> int:
        return umbel.get(slow.remote(0.05, number)) + 1

    async def fail(self) -> None:
        raise KeyError("async")

    async def stream(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            await asyncio.sleep(0)
            yield number

    async def loop_id(self) -> int:
        return id(asyncio.get_running_loop())


def entered(path: pathlib.Path) -> int:
    return len(list(path.glob("entered-*")))


def test_plain_actor_runs_one_call_at_a_time_in_order(tmp_path: pathlib.Path) -> None:
    log = Log.remote()
    for number in range(300):
        log.add.remote(number)
    assert umbel.get(log.get.remote(), timeout=30) == list(range(300))


def test_call_that_waits_for_an_argument_holds_back_later_calls_of_the_same_caller_only() -> None:
    log = Log.remote()
    first = log.add.remote(slow.remote(0.3, "slow"))
    second = log.add.remote("after")

    @umbel.remote
    def other_caller(log: Any) -> None:
        umbel.get(log.add.remote("other"))

    umbel.get(other_caller.remote(log), timeout=30)
    umbel.get([first, second], timeout=30)
    assert umbel.get(log.get.remote()) == ["other", "slow", "after"]


def test_out_of_order_actor_does_not_wait_for_arguments_of_earlier_calls() -> None:
    log = Log.options(allow_out_of_order_execution=True).remote()
    first = log.add.remote(slow.remote(0.3, "slow"))
    umbel.get(log.add.remote("after"), timeout=30)
    umbel.get(first, timeout=30)
    assert umbel.get(log.get.remote()) == ["after", "slow"]


def test_failed_argument_lets_the_calls_behind_it_go_on() -> None:
    @umbel.remote
    def fail() -> None:
        raise KeyError("argument")

    log = Log.remote()
    refs = [log.add.remote(1), log.add.remote(fail.remote()), log.add.remote(3)]
    umbel.get(refs[2], timeout=30)
    with pytest.raises(KeyError, match="argument"):
        umbel.get(refs[1], timeout=30)
    assert umbel.get(log.get.remote()) == [1, 3]


@pytest.mark.parametrize("kind", [Threaded, Async])
def test_max_concurrency_bounds_what_runs_at_once(tmp_path: pathlib.Path, kind: Any) -> None:
    actor = kind.options(max_concurrency=3).remote(tmp_path)
    refs = [actor.wait.remote() for _ in range(10)]
    drivers.wait_until(lambda: entered(tmp_path) == 3)
    drivers.pause(0.05)
    assert entered(tmp_path) == 3
    (tmp_path / "open").touch()
    umbel.get(refs, timeout=30)
    assert umbel.get(actor.peak.remote(), timeout=30) == 3


def test_async_actor_runs_many_coroutines_at_once(tmp_path: pathlib.Path) -> None:
    actor = Async.remote(tmp_path)
    refs = [actor.wait.remote() for _ in range(200)]
    drivers.wait_until(lambda: entered(tmp_path) == 200)
    (tmp_path / "open").touch()
    umbel.get(refs, timeout=30)


def test_answers_arrive_while_another_coroutine_holds_the_loop_up(tmp_path: pathlib.Path) -> None:
    """Coroutines that end together share a frame, which must not wait for one that does not give the loop back."""

    @umbel.remote
    class Rude:
        async def hold(self, name: str) -> None:
            while not (tmp_path / name).exists():
                time.sleep(0.002)

        async def quick(self) -> str:
            return "done"

    actor = Rude.remote()
    first, quick, second = actor.hold.remote("first"), actor.quick.remote(), actor.hold.remote("second")
    (tmp_path / "first").touch()
    assert umbel.get([first, quick], timeout=30) == [None, "done"]
    (tmp_path / "second").touch()
    assert umbel.get(second, timeout=30) is None


def test_plain_methods_of_an_async_actor_do_not_block_its_loop(tmp_path: pathlib.Path) -> None:
    actor = Async.remote(tmp_path)
    blocked = actor.sync_wait.remote()
    drivers.wait_until(lambda: entered(tmp_path) == 1)
    assert umbel.get([actor.ping.remote() for _ in range(20)], timeout=30) == ["pong"] * 20
    (tmp_path / "open").touch()
    umbel.get(blocked, timeout=30)


def test_plain_methods_of_an_async_actor_run_one_at_a_time(tmp_path: pathlib.Path) -> None:
    actor = Async.remote(tmp_path)
    refs = [actor.sync_wait.remote() for _ in range(5)]
    drivers.wait_until(lambda: entered(tmp_path) == 1)
    drivers.pause(0.05)
    assert entered(tmp_path) == 1
    (tmp_path / "open").touch()
    umbel.get(refs, timeout=30)
    assert umbel.get(actor.peak.remote()) == 1


def test_coroutines_use_the_runtime(tmp_path: pathlib.Path) -> None:
    actor = Async.remote(tmp_path)
    assert umbel.get([actor.get_inside.remote(number) for number in range(50)], timeout=30) == list(range(1, 51))
    assert umbel.get(actor.blocking_get.remote(1), timeout=30) == 2
    assert umbel.get([actor.blocking_get.remote(number) for number in range(5)], timeout=30) == [1, 2, 3, 4, 5]
    with pytest.raises(KeyError, match="async"):
        umbel.get(actor.fail.remote(), timeout=30)
    assert [umbel.get(ref, timeout=30) for ref in actor.stream.remote(30)] == list(range(30))
    assert len(set(umbel.get([actor.loop_id.remote() for _ in range(20)], timeout=30))) == 1


def test_two_async_actors_that_call_each_other_do_not_deadlock() -> None:
    @umbel.remote
    class Ping:
        async def go(self, other: Any, depth: int) -> int:
            return 0 if depth == 0 else 1 + await other.go.remote(umbel.get_runtime_context().current_actor, depth - 1)

    first, second = Ping.remote(), Ping.remote()
    assert umbel.get(first.go.remote(second, 40), timeout=30) == 40


def test_threaded_actor_that_waits_for_its_own_call_does_not_deadlock() -> None:
    @umbel.remote(max_concurrency=2)
    class Own:
        def outer(self) -> int:
            return umbel.get(umbel.get_runtime_context().current_actor.inner.remote()) + 1

        def inner(self) -> int:
            return 1

    assert umbel.get(Own.remote().outer.remote(), timeout=30) == 2


def test_threads_of_an_actor_submit_and_wait_at_once() -> None:
    @umbel.remote(max_concurrency=8)
    class Busy:
        def work(self, number: int) -> int:
            refs = [slow.remote(0, number) for _ in range(20)]
            umbel.wait(refs, num_returns=10)
            return sum(umbel.get(refs)) + int(umbel.get(umbel.put(number)))

    busy = Busy.remote()
    assert umbel.get([busy.work.remote(number) for number in range(40)], timeout=45) == [n * 21 for n in range(40)]


def test_concurrency_groups_have_limits_of_their_own(tmp_path: pathlib.Path) -> None:
    for name in ("io", "compute", "default"):
        (tmp_path / name).mkdir()

    @umbel.remote(concurrency_groups={"io": 2, "compute": 1})
    class Grouped:
        @umbel.method(concurrency_group="io")
        def io(self) -> None:
            self.wait(tmp_path / "io")

        @umbel.method(concurrency_group="compute")
        def compute(self) -> None:
            self.wait(tmp_path / "compute")

        def default(self) -> None:
            self.wait(tmp_path / "default")

        def wait(self, path: pathlib.Path) -> None:
            (path / f"entered-{os.urandom(4).hex()}").touch()
            while not (tmp_path / "open").exists():
                time.sleep(0.002)

    actor = Grouped.remote()
    refs = [method.remote() for _ in range(4) for method in (actor.io, actor.compute, actor.default)]
    refs.append(actor.default.options(concurrency_group="io").remote())
    expected = {"io": 2, "compute": 1, "default": 1}
    drivers.wait_until(lambda: {name: entered(tmp_path / name) for name in expected} == expected)
    drivers.pause(0.05)
    assert {name: entered(tmp_path / name) for name in expected} == expected
    (tmp_path / "open").touch()
    umbel.get(refs, timeout=30)


def test_async_concurrency_groups(tmp_path: pathlib.Path) -> None:
    @umbel.remote(concurrency_groups={"few": 2})
    class Grouped(Async._cls):  # type: ignore[misc]  # the plain class
        @umbel.method(concurrency_group="few")
        async def few(self) -> None:
            await self.wait()

    actor = Grouped.remote(tmp_path)
    refs = [actor.few.remote() for _ in range(6)]
    drivers.wait_until(lambda: entered(tmp_path) == 2)
    assert umbel.get(actor.ping.remote(), timeout=30) == "pong"
    drivers.pause(0.05)
    assert entered(tmp_path) == 2
    (tmp_path / "open").touch()
    umbel.get(refs, timeout=30)


def test_unknown_concurrency_group_fails_the_call_and_names_it() -> None:
    @umbel.remote(concurrency_groups={"io": 1})
    class Grouped:
        def work(self) -> int:
            return 1

    actor = Grouped.remote()
    with pytest.raises(ValueError, match="nowhere"):
        umbel.get(actor.work.options(concurrency_group="nowhere").remote(), timeout=30)
    assert umbel.get(actor.work.remote(), timeout=30) == 1


def test_max_pending_calls_is_per_caller(tmp_path: pathlib.Path) -> None:
    actor = Threaded.options(max_pending_calls=3, max_concurrency=1).remote(tmp_path)
    refs = [actor.wait.remote() for _ in range(3)]
    with pytest.raises(exceptions.PendingCallsLimitExceeded, match="3"):
        actor.wait.remote()

    @umbel.remote
    def other(actor: Any) -> Any:
        return [actor.peak.remote()]

    elsewhere = umbel.get(other.remote(actor), timeout=30)
    (tmp_path / "open").touch()
    umbel.get(refs + elsewhere, timeout=30)
    assert umbel.get(actor.peak.remote(), timeout=30) == 1


def test_stream_is_held_back_until_it_is_read(tmp_path: pathlib.Path) -> None:
    class Producer:
        @umbel.method(_generator_backpressure_num_objects=2)
        def stream(self) -> Iterator[int]:
            for number in range(20):
                (tmp_path / str(number)).touch()
                yield number

        @umbel.method(_generator_backpressure_num_objects=2)
        async def stream_async(self) -> AsyncIterator[int]:
            for number in range(20):
                (tmp_path / str(number)).touch()
                yield number

    actor = umbel.remote(Producer).remote()
    for method in (actor.stream, actor.stream_async):
        for path in tmp_path.iterdir():
            path.unlink()
        items = method.remote()
        drivers.wait_until(lambda: len(list(tmp_path.iterdir())) >= 2)
        drivers.pause(0.1)
        assert len(list(tmp_path.iterdir())) <= 3
        assert [umbel.get(ref, timeout=30) for ref in items] == list(range(20))


def test_dropped_streams_let_their_producer_go_on(tmp_path: pathlib.Path) -> None:
    @umbel.remote
    class Producer:
        @umbel.method(_generator_backpressure_num_objects=1)
        def stream(self) -> Iterator[bytes]:
            for _ in range(10):
                yield bytes(300_000)

        def ping(self) -> str:
            return "pong"

    actor = Producer.remote()
    for _ in range(5):
        items = actor.stream.remote()
        umbel.get(next(items), timeout=30)
        del items
    assert umbel.get(actor.ping.remote(), timeout=30) == "pong"


def test_idle_actors_cost_no_cpu_time(tmp_path: pathlib.Path) -> None:
    """One of each kind, and the driver and daemon beside them."""
    actors = [Log.remote(), Threaded.options(max_concurrency=4).remote(tmp_path), Async.remote(tmp_path)]
    umbel.get([actor.__umbel_ready__.remote() for actor in actors], timeout=30)
    engine: Any = umbel._client.current.engine()
    drivers.pause(6.0)  # until what was kept warm has been given back

    def ticks() -> dict[int, int]:
        pids = [os.getpid(), engine._node.pid, *drivers.children_of(engine._node.pid)]
        pids += [w["pid"] for w in engine.query("workers")]
        found = {}
        for pid in pids:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            found[pid] = int(fields[11]) + int(fields[12])
        return found

    def used() -> dict[int, int]:
        before = ticks()
        drivers.pause(5.0)
        return {pid: after - before.get(pid, 0) for pid, after in ticks().items()}

    # What a busy machine adds differs; what they use themselves, they use each time.
    least = min((used() for _ in range(3)), key=lambda one: sum(one.values()))
    assert sum(least.values()) <= 5 * 100 * 0.005 + 1, least  # 0.5 % of a core; a tick is 10 ms
