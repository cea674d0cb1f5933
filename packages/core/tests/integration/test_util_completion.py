"""umbel.util.as_completed and map_unordered."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest

import umbel
from umbel.util import as_completed, map_unordered, wait_beside


@pytest.fixture(scope="module", autouse=True, params=["native", "inline"])
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    with umbel.init(num_cpus=2, engine=request.param):
        yield request.param


@umbel.remote
def square(x: int) -> int:
    return x * x


@umbel.remote
def invert(x: int) -> float:
    return 1 / x


@umbel.remote(num_cpus=0)
class Gate:
    """Open once `open` was called; `wait` returns then."""

    def __init__(self) -> None:
        import asyncio

        self._opened = asyncio.Event()

    async def wait(self) -> str:
        await self._opened.wait()
        return "waited"

    async def open(self) -> None:
        self._opened.set()


@umbel.remote(num_cpus=0)
class Recorder:
    def __init__(self) -> None:
        self.started: list[int] = []

    def start(self, x: int) -> int:
        self.started.append(x)
        return x

    def all_started(self) -> list[int]:
        return self.started


def test_as_completed_gives_all_values() -> None:
    assert sorted(as_completed([square.remote(i) for i in range(25)])) == [i * i for i in range(25)]
    assert list(as_completed([])) == []


def test_as_completed_gives_the_first_value_before_the_others_are_there() -> None:
    gate = Gate.remote()
    waiting = gate.wait.remote()
    values = as_completed([waiting, *[square.remote(i) for i in range(3)]], chunk_size=10)
    assert sorted(next(values) for _ in range(3)) == [0, 1, 4]
    umbel.get(gate.open.remote())
    assert list(values) == ["waited"]


def test_references_are_given_on_request() -> None:
    refs = [square.remote(i) for i in range(5)]
    assert set(as_completed(refs, yield_obj_refs=True)) == set(refs)
    given = list(map_unordered(square, [1, 2], yield_obj_refs=True))
    assert sorted(umbel.get(given)) == [1, 4]


def test_a_failed_task_raises_at_its_turn() -> None:
    with pytest.raises(ZeroDivisionError):
        list(as_completed([invert.remote(0)]))
    with pytest.raises(ZeroDivisionError):
        list(map_unordered(invert, [1, 0]))


def test_map_unordered_runs_over_everything() -> None:
    assert sorted(map_unordered(square, range(30), backpressure_size=4, chunk_size=2)) == [i * i for i in range(30)]
    assert sorted(map_unordered(square, range(30), backpressure_size=None)) == [i * i for i in range(30)]


def test_map_unordered_bounds_what_is_unfinished() -> None:
    recorder = Recorder.remote()
    endless = map_unordered(recorder.start, iter(range(10**9)), backpressure_size=3, chunk_size=1)
    assert {next(endless) for _ in range(2)} <= {0, 1, 2, 3}
    assert len(umbel.get(recorder.all_started.remote())) <= 5


_X: Any = "x"


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: as_completed([], chunk_size=0), ValueError, "chunk_size must be at least 1"),
        (lambda: map_unordered(square, [], chunk_size=0), ValueError, "chunk_size must be at least 1"),
        (lambda: map_unordered(square, [], backpressure_size=0), ValueError, "backpressure_size must be at least 1"),
        (lambda: map_unordered(abs, []), TypeError, "must be a remote function"),
        (lambda: as_completed([], yield_obj_refs=_X), TypeError, "yield_obj_refs must be True or False, got 'x'"),
        (lambda: map_unordered(square, [], yield_obj_refs=_X), TypeError, "yield_obj_refs must be True or False"),
    ],
)
def test_bad_arguments_are_named_at_once(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_what_is_no_list_of_references_is_refused() -> None:
    ref = umbel.put(1)
    wrong: Any
    for wrong in (5, None, ref):
        with pytest.raises(TypeError, match=r"as_completed\(\) takes a list of ObjectRefs, got .*write \[ref\]"):
            as_completed(wrong)
    wrong = [ref, 5]
    with pytest.raises(TypeError, match=r"as_completed\(\) takes a list of ObjectRefs, got 5 at position 1"):
        as_completed(wrong)
    with pytest.raises(ValueError, match=r"as_completed\(\) takes each reference once"):
        as_completed([ref, ref])
    wrong = "1"
    with pytest.raises(TypeError, match="chunk_size must be a whole number >= 1, got '1'"):
        as_completed([ref], chunk_size=wrong)


@umbel.remote
def numbers(n: int) -> Iterator[int]:
    yield from range(n)


@umbel.remote(num_cpus=2)
def follow_by_callbacks() -> list[int]:
    """Holds all CPUs there are, and waits for what needs one, in a queue of its own."""
    told: queue.SimpleQueue[None] = queue.SimpleQueue()
    stream, found = numbers.remote(3), []

    def is_told(timeout_s: float | None) -> bool:
        try:
            told.get(timeout=timeout_s)
        except queue.Empty:
            return False
        return True

    while not stream.is_finished():
        stream.add_ready_callback(lambda: told.put(None))
        wait_beside(is_told)
        if stream.next_ready():
            found.append(umbel.get(next(stream)))
    return found


def test_task_that_waits_by_callbacks_gives_its_cpu_back() -> None:
    assert umbel.get(follow_by_callbacks.remote(), timeout=20) == [0, 1, 2]


def test_wait_by_callbacks_ends_with_its_time() -> None:
    asked: list[float | None] = []
    wait_beside(lambda timeout_s: bool(asked.append(timeout_s)), 0.01)
    assert asked
    assert all(timeout_s is not None and timeout_s <= 0.01 for timeout_s in asked)
