"""umbel.util.multiprocessing.Pool: the standard library's pool on actors."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import umbel
import umbel.actor
from umbel import exceptions
from umbel.util.multiprocessing import Pool, TimeoutError, cpu_count


@pytest.fixture(scope="module", autouse=True, params=["native", "inline"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    with umbel.init(num_cpus=2, engine=request.param):
        yield request.param


@pytest.fixture(scope="module")
def pool(session: None) -> Iterator[Pool]:
    with Pool(2) as running:
        yield running


def add(left: int, right: int) -> int:
    return left + right


def invert(x: float) -> float:
    return 1 / x


@umbel.remote(num_cpus=0)
class Gate:
    """Open once `open` was called; `wait` returns then."""

    def __init__(self) -> None:
        import asyncio

        self._opened = asyncio.Event()

    async def wait(self) -> None:
        await self._opened.wait()

    async def open(self) -> None:
        self._opened.set()


def wait_for(gate: Any) -> str:
    umbel.get(gate.wait.remote())
    return "waited"


def test_calls_of_every_kind_give_what_the_standard_library_gives(pool: Pool) -> None:
    assert pool.apply(add, (1, 2)) == 3
    assert pool.apply(add, (1,), {"right": 2}) == 3
    assert pool.apply(add, (1,), kwds={"right": 2}) == 3
    assert pool.apply_async(add, (1, 2)).get(timeout=30) == 3
    assert pool.map(abs, range(-50, 0)) == list(range(50, 0, -1))
    assert pool.map(abs, range(-50, 0), chunksize=7) == list(range(50, 0, -1))
    assert pool.map_async(abs, [-1]).get() == [1]
    assert pool.map(abs, []) == []
    assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
    assert pool.starmap_async(add, [(1, 2)], chunksize=1).get() == [3]
    assert list(pool.imap(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
    assert list(pool.imap(abs, range(-5, 0), chunksize=2)) == [5, 4, 3, 2, 1]
    assert sorted(pool.imap_unordered(abs, range(-5, 0), chunksize=3)) == [1, 2, 3, 4, 5]


def test_functions_need_not_be_importable(pool: Pool) -> None:
    offset = 10
    assert pool.map(lambda x: x + offset, [1, 2]) == [11, 12]
    assert pool.map(functools.partial(add, 5), [1, 2]) == [6, 7]


def test_an_error_has_its_own_class_and_the_remote_traceback_as_its_cause(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pool.map(invert, [1, 0, 2], chunksize=1)
    assert "in invert" in str(caught.value.__cause__)
    assert "child.py" not in str(caught.value.__cause__)
    with pytest.raises(ZeroDivisionError):
        pool.apply(invert, (0,))


def test_of_several_errors_a_map_raises_the_first(pool: Pool) -> None:
    def fail(number: int) -> None:
        raise ValueError(number)

    for _ in range(3):
        with pytest.raises(ValueError, match=r"^0$"):
            pool.map(fail, range(8), chunksize=1)


def test_an_error_that_cannot_be_pickled_is_told_as_text(pool: Pool) -> None:
    class Stubborn(Exception):
        def __init__(self) -> None:
            super().__init__("stubborn")
            self.lock = threading.Lock()

    def fail() -> None:
        raise Stubborn

    with pytest.raises(exceptions.UnserializableException, match=r"Stubborn: stubborn"):
        pool.apply(fail)


def test_an_argument_that_cannot_be_pickled_fails_its_own_call_only(pool: Pool) -> None:
    good = pool.apply_async(abs, (-1,))
    with pytest.raises(TypeError, match="lock"):
        pool.apply(id, (threading.Lock(),))
    assert good.get(timeout=30) == 1


def test_imap_goes_on_behind_an_error(pool: Pool) -> None:
    results = pool.imap(invert, [1, 0, 2], chunksize=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert next(results) == 0.5
    with pytest.raises(StopIteration):
        next(results)


def test_imap_reads_endless_input(pool: Pool) -> None:
    assert list(itertools.islice(pool.imap(abs, itertools.count()), 100)) == list(range(100))
    assert len(set(itertools.islice(pool.imap_unordered(abs, itertools.count()), 100))) == 100


def test_an_error_of_the_input_comes_behind_the_results(pool: Pool) -> None:
    def items() -> Iterator[int]:
        yield -1
        yield -2
        raise KeyError("input")

    results = pool.imap(abs, items())
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(KeyError, match="input"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_time_outs_are_the_standard_library_s(pool: Pool) -> None:
    gate = Gate.remote()
    result = pool.apply_async(wait_for, (gate,))
    with pytest.raises(multiprocessing.TimeoutError):
        result.get(timeout=0.01)
    assert TimeoutError is multiprocessing.TimeoutError
    result.wait(timeout=0.01)
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    results = pool.imap(wait_for, [gate])
    with pytest.raises(multiprocessing.TimeoutError):
        results.next(timeout=0.01)
    umbel.get(gate.open.remote())
    assert result.get(timeout=30) == results.next(timeout=30) == "waited"
    assert result.ready()
    assert result.successful()


def test_a_long_call_does_not_hold_up_the_others(pool: Pool) -> None:
    gate = Gate.remote()
    results = pool.imap_unordered(wait_for_if, [(gate, i == 0) for i in range(50)])
    assert [next(results) for _ in range(49)] == ["passed"] * 49
    umbel.get(gate.open.remote())
    assert list(results) == ["waited"]


def wait_for_if(case: tuple[Any, bool]) -> str:
    gate, is_blocking = case
    return wait_for(gate) if is_blocking else "passed"


def test_callbacks_get_the_result_or_the_error(pool: Pool) -> None:
    seen: list[Any] = []
    pool.map_async(abs, range(-20, 0), callback=seen.append, error_callback=seen.append).get()
    assert seen == [list(range(20, 0, -1))]
    result = pool.apply_async(invert, (0,), callback=seen.append, error_callback=seen.append)
    result.wait()
    assert not result.successful()
    assert isinstance(seen[1], ZeroDivisionError)
    pool.map_async(abs, [], callback=seen.append).get()
    assert seen[2] == []


def test_a_callback_that_raises_does_not_harm_the_pool(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_value: int) -> None:
        raise RuntimeError("callback")

    assert pool.apply_async(abs, (-1,), callback=fail).get(timeout=30) == 1
    assert "callback" in caplog.text
    assert pool.apply(abs, (-2,)) == 2


def test_the_initializer_sets_globals_that_later_calls_see_and_change() -> None:
    def initialize(start: int) -> None:
        global counter
        counter = [start]

    def count() -> int:
        counter.append(0)
        return len(counter)

    with Pool(1, initializer=initialize, initargs=(7,)) as pool:
        assert [pool.apply(count) for _ in range(3)] == [2, 3, 4]


counter: list[int] = []


def test_an_initializer_that_fails_fails_the_pool() -> None:
    with pytest.raises(exceptions.ActorDiedError, match="division by zero"):
        Pool(1, initializer=invert, initargs=(0,))


def test_a_process_is_replaced_after_its_share_of_chunks() -> None:
    with Pool(1, maxtasksperchild=2) as pool:
        ids = pool.map(lambda _: umbel.get_runtime_context().get_actor_id(), range(5), chunksize=1)
    assert [len(list(group)) for _, group in itertools.groupby(ids)] == [2, 2, 1]


def test_a_dead_process_fails_its_call_and_is_replaced(pool: Pool) -> None:
    with pytest.raises(exceptions.ActorDiedError):
        pool.apply(umbel.actor.exit_actor)
    assert pool.map(abs, range(-10, 0)) == list(range(10, 0, -1))


def test_close_lets_outstanding_calls_end() -> None:
    gate = Gate.remote()
    pool = Pool(1)
    waiting = pool.apply_async(wait_for, (gate,))
    behind = pool.map_async(abs, range(-9, 0), chunksize=1)
    unread = pool.imap(abs, range(-100, 0))
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.apply(abs, (1,))
    umbel.get(gate.open.remote())
    pool.join()
    assert waiting.get(timeout=0) == "waited"
    assert behind.get(timeout=0) == list(range(9, 0, -1))
    assert list(unread) == list(range(100, 0, -1))


def test_terminate_fails_outstanding_calls() -> None:
    gate = Gate.remote()
    with Pool(1) as pool:
        results = [pool.apply_async(wait_for, (gate,)) for _ in range(4)]
        iterator = pool.imap(wait_for, [gate])
    pool.join()
    for result in results:
        with pytest.raises(exceptions.UmbelError):
            result.get(timeout=30)
    with pytest.raises(exceptions.UmbelError):
        iterator.next(timeout=30)
    pool.terminate()


def test_a_forgotten_pool_finishes_what_was_asked_of_it() -> None:
    result = Pool(1).apply_async(abs, (-3,))
    assert result.get(timeout=30) == 3


def test_the_end_of_the_session_is_the_end_of_the_pool() -> None:
    program = """
        import umbel
        from umbel.util.multiprocessing import Pool

        @umbel.remote(num_cpus=0)
        class Never:
            async def wait(self):
                import asyncio
                await asyncio.Event().wait()

        umbel.init(num_cpus=1)
        never = Never.remote()
        pool = Pool(1)
        results = [pool.apply_async(lambda: umbel.get(never.wait.remote())) for _ in range(3)]
        umbel.shutdown()
        for result in results:
            try:
                result.get(timeout=30)
            except umbel.exceptions.UmbelError as error:
                print(type(error).__name__)
        pool.terminate()
        print(umbel.is_initialized())
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert len(done.stdout.splitlines()) == 4, done.stdout


def test_default_size_is_the_cluster_s_cpus() -> None:
    assert cpu_count() == 2
    with Pool() as pool:
        ids = pool.map(lambda _: umbel.get_runtime_context().get_actor_id(), range(50), chunksize=1)
    assert 1 <= len(set(ids)) <= 2


def test_arguments_of_the_actors_are_honoured() -> None:
    with pytest.raises(ValueError, match="num_cpus"):
        Pool(1, umbel_remote_args={"num_cpus": -1})


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"processes": 3}, ValueError, "at most the cluster's 2 CPUs, got 3"),
        ({"processes": 0}, ValueError, "processes must be at least 1"),
        ({"processes": "two"}, TypeError, "processes must be an int"),
        ({"processes": 1, "maxtasksperchild": 0}, ValueError, "maxtasksperchild must be at least 1"),
        ({"processes": 1, "initializer": 5}, TypeError, "initializer must be callable"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Pool(**arguments)


def test_bad_use_is_named(pool: Pool) -> None:
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    with pytest.raises(ValueError, match="chunksize must be at least 1"):
        pool.map(abs, [1], chunksize=0)
    with pytest.raises(NotImplementedError, match="cannot be pickled"):
        pool.__reduce__()
    wrong: Any = "x"
    waits: list[Callable[..., Any]] = [
        (called := pool.apply_async(abs, (1,))).get,
        called.wait,
        pool.imap(abs, [1]).next,
    ]
    for wait in waits:
        with pytest.raises(TypeError, match="timeout must be a number of seconds or None, got 'x'"):
            wait(timeout=wrong)
